//! GRE and GUE: what goes on the wire, how long it may be, and what an edit of a destination changes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::SocketAddr;
use rig::frames::{ACK, SYN, TCP, ethernet, may_fragment, read, read_packet, reassembled, tcp};
use rig::{CLIENT_MAC, OUR_MACS, Rig, dest_ip};
use rvs_model::ForwardMethod::Tunnel;
use rvs_model::{DestId, SchedulerKind, ServiceId};
use rvs_wire::tunnel::{self, Encapsulation};

const GRE: Encapsulation = Encapsulation::Gre { checksum: false };
const GRE_CHECKSUM: Encapsulation = Encapsulation::Gre { checksum: true };
const GUE: Encapsulation = Encapsulation::Gue { port: 6080, checksum: false };
const GUE_CHECKSUM: Encapsulation = Encapsulation::Gue { port: 6080, checksum: true };
const ALL: [Encapsulation; 5] = [Encapsulation::Ip, GRE, GRE_CHECKSUM, GUE, GUE_CHECKSUM];
const DEST: DestId = DestId(0);

/// Families of the packet and of the tunnel.
const FAMILIES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn vip(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::80]:80" } else { "198.51.100.80:80" }.parse().unwrap()
}

fn client(v6: bool, port: u16) -> SocketAddr {
    let host = if v6 { "2001:db8:99::7" } else { "203.0.113.7" };
    SocketAddr::new(host.parse().unwrap(), port)
}

/// A director with one service of a family, whose destination is of one, too.
fn rig((inner, outer): (bool, bool), encapsulation: Encapsulation) -> (Rig, ServiceId) {
    let mut rig = Rig::single();
    let dest = SocketAddr::new(dest_ip(outer, 0), 80).to_string();
    let vip = vip(inner).to_string();
    let id = rig.add_service((TCP, &vip), SchedulerKind::Rr, &[(&dest, Tunnel, 1)]);
    rig.set_tunnel(id, DEST, encapsulation);
    (rig, id)
}

/// Packets of one connection, the last `octets` long in all.
fn send(rig: &mut Rig, v6: bool, octets: usize, whole: bool) -> Vec<(usize, Vec<u8>)> {
    let header = if v6 { 60 } else { 40 };
    let packet = tcp(client(v6, 40_000), vip(v6), ACK | SYN, &vec![b'x'; octets - header]);
    let packet = if whole || v6 { packet } else { may_fragment(packet) };
    rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)])
}

/// The packet in a frame.
fn packet(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

#[test]
fn every_wrapping_goes_through_every_combination_of_families() {
    for families in FAMILIES {
        for encapsulation in ALL {
            let (mut rig, _) = rig(families, encapsulation);
            let out = send(&mut rig, families.0, 100, true);
            assert_eq!(out.len(), 1, "{families:?} {encapsulation:?}");
            let opened = tunnel::open(packet(&out[0].1)).unwrap();
            assert_eq!((opened.encapsulation, out[0].0), (encapsulation, 1));
            assert_eq!(opened.destination, dest_ip(families.1, 0));
            assert_eq!(opened.packet.len(), 100, "no padding inside");
            assert_eq!(read_packet(opened.packet).hops, 63);
            assert_eq!(read(&out[0].1).hops, 63, "outside as inside");
        }
    }
}

#[test]
fn what_fits_into_a_tunnel_is_the_links_length_less_all_headers() {
    for families in FAMILIES {
        for encapsulation in ALL {
            let (mut rig, _) = rig(families, encapsulation);
            let ip = if families.1 { 40 } else { 20 };
            let room = 1500 - ip - encapsulation.octets();
            let out = send(&mut rig, families.0, room, true);
            assert_eq!((out.len(), out[0].0), (1, 1), "{families:?} {encapsulation:?}");
            assert_eq!(packet(&out[0].1).len(), 1500);
            let out = send(&mut rig, families.0, room + 1, true);
            let error = read(&out[0].1);
            assert_eq!((out.len(), out[0].0), (1, 0));
            let told = if families.0 { &error.data[4..8] } else { &error.data[6..8] };
            let told = told.iter().fold(0, |mtu, octet| mtu << 8 | usize::from(*octet));
            assert_eq!(told, room, "{families:?} {encapsulation:?}");
        }
    }
}

#[test]
fn what_may_be_cut_goes_in_pieces_that_make_the_same_tunnelled_packet() {
    for outer in [false, true] {
        for encapsulation in ALL {
            let (mut rig, _) = rig((false, outer), encapsulation);
            let out = send(&mut rig, false, 1500, false);
            assert_eq!(out.len(), 2, "{outer} {encapsulation:?}");
            let pieces: Vec<_> = out.iter().map(|(_, frame)| packet(frame).to_vec()).collect();
            assert!(pieces.iter().all(|piece| piece.len() <= 1500));
            let whole = reassembled(&pieces);
            let opened = tunnel::open(&whole).unwrap();
            assert_eq!((opened.encapsulation, opened.packet.len()), (encapsulation, 1500));
            if let Encapsulation::Gue { checksum: true, .. } = encapsulation {
                // The reader of frames adds up what UDP covers.
                assert_eq!(rig::frames::segment_sum(&whole), 0xffff);
            }
        }
    }
}

#[test]
fn without_path_mtu_discovery_nothing_is_refused() {
    let (mut rig, _) = rig((false, false), GUE);
    rig.snapshot.tunables.pmtu_disc = false;
    rig.publish();
    let out = send(&mut rig, false, 1500, true);
    assert_eq!(out.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(packet(&out[0].1)[6] & 0x40, 0, "don't fragment stays inside");
}

#[test]
fn a_connections_gue_packets_have_one_source_port_and_connections_differ() {
    let (mut rig, _) = rig((false, false), GUE);
    let mut ports = Vec::new();
    for number in 0..64 {
        let syn = tcp(client(false, 40_000 + number), vip(false), SYN, b"");
        let frame = ethernet(OUR_MACS[0], CLIENT_MAC, &syn);
        let out = rig.send(0, &[frame.clone(), frame]);
        let of = |at: usize| u16::from_be_bytes([packet(&out[at].1)[20], packet(&out[at].1)[21]]);
        assert_eq!(of(0), of(1));
        assert!((32_768..60_999).contains(&of(0)), "{}", of(0));
        ports.push(of(0));
    }
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 56, "{} of 64 are different", ports.len());
}

/// Linux 6.1 `ip_vs_tunnel_xmit()` asks the destination for each packet.
#[test]
fn an_edit_of_a_destinations_tunnel_holds_for_older_connections_at_once() {
    let (mut rig, id) = rig((false, false), Encapsulation::Ip);
    send(&mut rig, false, 100, true);
    for encapsulation in [GUE_CHECKSUM, GRE, Encapsulation::Ip] {
        rig.set_tunnel(id, DEST, encapsulation);
        let out = send(&mut rig, false, 100, true);
        assert_eq!(tunnel::open(packet(&out[0].1)).unwrap().encapsulation, encapsulation);
    }
    assert_eq!(rig.conns(), 1);
}
