//! What a client and a real server see of the director, by each method, in both families.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::SocketAddr;
use rig::frames::{ACK, FIN, SYN, Seen, TCP, UDP, ethernet, read, read_packet, tcp, udp};
use rig::{CLIENT_MAC, OUR_MACS, Rig, dest_mac};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::SchedulerKind;

struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
}

fn ends(v6: bool) -> Ends {
    let parse = |text: &str| text.parse().unwrap();
    if v6 {
        Ends {
            client: parse("[2001:db8:99::7]:40000"),
            vip: parse("[2001:db8:c::80]:80"),
            dest: parse("[2001:db8:d::11]:8080"),
        }
    } else {
        Ends {
            client: parse("203.0.113.7:40000"),
            vip: parse("198.51.100.80:80"),
            dest: parse("192.0.2.11:8080"),
        }
    }
}

fn rig(method: ForwardMethod, ends: &Ends) -> Rig {
    let mut rig = Rig::single();
    let (vip, dest) = (ends.vip.to_string(), ends.dest.to_string());
    for protocol in [TCP, UDP] {
        rig.add_service((protocol, &vip), SchedulerKind::Rr, &[(&dest, method, 1)]);
    }
    rig
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[0], CLIENT_MAC, packet)
}

fn from_dest(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[1], dest_mac(0), packet)
}

fn only(out: &[(usize, Vec<u8>)]) -> (usize, Seen) {
    assert_eq!(out.len(), 1, "{out:?}");
    let (link, frame) = &out[0];
    (*link, read(frame))
}

#[test]
fn masqueraded_connections_go_there_and_back_with_ports_mapped() {
    for v6 in [false, true] {
        let ends = ends(v6);
        let mut rig = rig(Masquerade, &ends);
        let syn = from_client(&tcp(ends.client, ends.vip, SYN, b""));
        let (link, seen) = only(&rig.send(0, &[syn]));
        assert_eq!((link, seen.source, seen.destination), (1, ends.client, ends.dest));
        assert_eq!((seen.hops, seen.to, seen.from), (63, dest_mac(0), OUR_MACS[1]));
        let answer = from_dest(&tcp(ends.dest, ends.client, SYN | ACK, b""));
        let (link, seen) = only(&rig.send(1, &[answer]));
        assert_eq!((link, seen.source, seen.destination), (0, ends.vip, ends.client));
        assert_eq!((seen.hops, seen.to, seen.from), (63, CLIENT_MAC, OUR_MACS[0]));
        let data = from_client(&tcp(ends.client, ends.vip, ACK, b"GET / HTTP/1.0\r\n\r\n"));
        let (_, seen) = only(&rig.send(0, &[data]));
        assert_eq!(seen.data, b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(rig.workers[0].conns(), if v6 { [0, 1] } else { [1, 0] });
        let ([conns, inbound, outbound], _) = rig.shared[0].lines[0].totals();
        assert_eq!((conns, inbound, outbound), (1, 2, 1));
    }
}

#[test]
fn direct_routing_changes_nothing_but_hop_limit_and_addresses_of_the_frame() {
    for v6 in [false, true] {
        let ends = ends(v6);
        let mut rig = rig(Direct, &ends);
        let (link, seen) = only(&rig.send(0, &[from_client(&udp(ends.client, ends.vip, b"q"))]));
        assert_eq!((link, seen.source, seen.destination), (1, ends.client, ends.vip));
        assert_eq!((seen.hops, seen.to, seen.data.as_slice()), (63, dest_mac(0), &b"q"[..]));
    }
}

#[test]
fn tunnelled_packets_arrive_whole_in_an_outer_packet_to_the_destination() {
    for v6 in [false, true] {
        let ends = ends(v6);
        let mut rig = rig(Tunnel, &ends);
        let packet = tcp(ends.client, ends.vip, SYN, b"");
        let (link, outer) = only(&rig.send(0, &[from_client(&packet)]));
        assert_eq!((link, outer.destination.ip()), (1, ends.dest.ip()));
        assert_eq!((outer.protocol, outer.to), (if v6 { 41 } else { 4 }, dest_mac(0)));
        let inner = read_packet(&outer.data);
        assert_eq!((inner.source, inner.destination, inner.hops), (ends.client, ends.vip, 63));
        assert_eq!(outer.data.len(), packet.len(), "no padding inside");
    }
}

/// A wire pads what is shorter than 60 octets: RFC 894. The next one would do so again.
#[test]
fn a_short_frame_may_keep_its_padding_and_whatever_else_follows_a_packet_stays_behind() {
    let ends = ends(false);
    for method in [Masquerade, Direct, Tunnel] {
        let mut rig = rig(method, &ends);
        let packet = tcp(ends.client, ends.vip, SYN, b"");
        assert_eq!(packet.len(), 40);
        let long = udp(ends.client, ends.vip, &[7; 100]);
        let outer = if method == Tunnel { 20 } else { 0 };
        for (packet, tail, leaves) in [
            (&packet, 6, if method == Tunnel { 74 } else { 60 }),
            (&packet, 7, 54 + outer),
            (&long, 1, 142 + outer),
            (&long, 600, 142 + outer),
        ] {
            let mut frame = from_client(packet);
            frame.truncate(14 + packet.len());
            frame.resize(frame.len() + tail, 0xee);
            // The second goes the established way.
            for _ in 0..2 {
                let out = rig.send(0, &[frame.clone()]);
                assert_eq!((out.len(), out[0].1.len()), (1, leaves), "{method:?} {tail}");
            }
        }
    }
}

#[test]
fn a_tunnel_may_be_of_the_other_family() {
    let (v4, v6) = (ends(false), ends(true));
    for (ends, dest) in [(&v4, v6.dest), (&v6, v4.dest)] {
        let mut rig = rig(Tunnel, &Ends { dest, ..*ends });
        for _ in 0..2 {
            let packet = tcp(ends.client, ends.vip, SYN, b"");
            let (_, outer) = only(&rig.send(0, &[from_client(&packet)]));
            assert_eq!(outer.destination.ip(), dest.ip());
            assert_eq!(read_packet(&outer.data).destination, ends.vip);
        }
        assert_eq!(rig.workers[0].conns().iter().sum::<usize>(), 1);
    }
}

#[test]
fn a_service_without_destinations_answers_port_unreachable_to_tcp_too() {
    for v6 in [false, true] {
        let ends = ends(v6);
        let mut rig = Rig::single();
        rig.add_service((TCP, &ends.vip.to_string()), SchedulerKind::Wlc, &[]);
        let syn = tcp(ends.client, ends.vip, SYN, b"");
        let (link, seen) = only(&rig.send(0, &[from_client(&syn)]));
        let (kind, quoted) = if v6 { (1, &seen.data[8..]) } else { (3, &seen.data[8..]) };
        assert_eq!((link, seen.destination.ip(), seen.data[0]), (0, ends.client.ip(), kind));
        assert_eq!(quoted, syn);
        assert_eq!(rig.drops()["no-dest"], 1);
    }
}

#[test]
fn a_connection_ends_when_its_state_says_so() {
    let ends = ends(false);
    let mut rig = rig(Direct, &ends);
    rig.send(0, &[from_client(&tcp(ends.client, ends.vip, SYN, b""))]);
    let load = |rig: &Rig| rig.shared[0].lines[0].load();
    assert_eq!((load(&rig).active, load(&rig).inactive), (1, 0));
    rig.send(0, &[from_client(&tcp(ends.client, ends.vip, FIN | ACK, b""))]);
    assert_eq!((load(&rig).active, load(&rig).inactive), (0, 1));
    rig.pass(119 * 8);
    assert_eq!(rig.workers[0].conns(), [1, 0]);
    rig.pass(3 * 8);
    assert_eq!(rig.workers[0].conns(), [0, 0]);
    assert_eq!(load(&rig).total(), 0);
}

/// Linux 6.1 `ip_vs_core.c` `ip_vs_out_stats()`: the client gets what was under way, and nobody's
/// counter moves.
#[test]
fn replies_of_a_deleted_destination_go_on_uncounted() {
    for v6 in [false, true] {
        let ends = ends(v6);
        let mut rig = Rig::single();
        let (vip, dest) = (ends.vip.to_string(), ends.dest.to_string());
        let id = rig.add_service((TCP, &vip), SchedulerKind::Rr, &[(&dest, Masquerade, 1)]);
        rig.send(0, &[from_client(&tcp(ends.client, ends.vip, SYN, b""))]);
        let reply = from_dest(&tcp(ends.dest, ends.client, SYN | ACK, b""));
        rig.send(1, std::slice::from_ref(&reply));
        let before = rig.shared[0].lines[0].totals();
        rig.remove_dest(id, rvs_model::DestId(0));
        let (link, seen) = only(&rig.send(1, &[reply]));
        assert_eq!((link, seen.source, seen.destination), (0, ends.vip, ends.client));
        assert_eq!(rig.shared[0].lines[0].totals(), before);
    }
}
