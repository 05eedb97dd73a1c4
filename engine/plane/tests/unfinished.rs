//! Frames of up to 64 KB and checksums that nobody computed: what kernels leave to a network card goes
//! on as they left it, or finished where nobody behind could do that. The card of `rig::card` is the judge.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod rig;

use core::net::SocketAddr;
use rig::card::{Left, left};
use rig::frames::{
    ACK, FIN, PSH, SYN, TCP, UDP, ethernet, may_fragment, packet_octets, read, read_packet,
    reassembled, tagged, tcp, udp, with_hops,
};
use rig::{
    CLIENT_MAC, LIMITS, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network_with,
};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{DestId, SchedulerKind};
use rvs_wire::tunnel::{self, Encapsulation};

const GRE: Encapsulation = Encapsulation::Gre { checksum: true };
const GUE: Encapsulation = Encapsulation::Gue { port: 6080, checksum: true };
const CLIENTS: usize = 0;
const SERVERS: usize = 1;
const MSS: u16 = 1360;

fn vip(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::80]:80" } else { "198.51.100.80:80" }.parse().unwrap()
}

fn client(v6: bool) -> SocketAddr {
    let host = if v6 { "2001:db8:99::7" } else { "203.0.113.7" };
    SocketAddr::new(host.parse().unwrap(), 40_000)
}

fn server(v6: bool) -> SocketAddr {
    SocketAddr::new(dest_ip(v6, 0), 8000)
}

fn rig_of(protocol: u8, method: ForwardMethod, v6: bool) -> Rig {
    with_mtu(protocol, method, v6, 1500)
}

/// A director with one service whose servers are behind a link of this length.
fn with_mtu(protocol: u8, method: ForwardMethod, v6: bool, mtu: u16) -> Rig {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, mtu)];
    let mut rig = Rig::new(network_with(interfaces, 8), &PLAN);
    let port = if method == Masquerade { 8000 } else { 80 };
    let dest = SocketAddr::new(dest_ip(v6, 0), port).to_string();
    rig.add_service((protocol, &vip(v6).to_string()), SchedulerKind::Rr, &[(&dest, method, 1)]);
    rig
}

fn data(octets: usize) -> Vec<u8> {
    (0..octets).map(|number| u8::try_from(number * 7 % 251).unwrap()).collect()
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[CLIENTS], CLIENT_MAC, packet)
}

/// A frame of a client with `octets` to send.
fn long(v6: bool, flags: u8, octets: usize) -> Left {
    left(&from_client(&tcp(client(v6), vip(v6), flags, &data(octets))), Some(MSS))
}

/// One frame out, and what a card makes of it.
fn one(out: &[(usize, Left)], link: usize) -> Vec<Vec<u8>> {
    assert_eq!((out.len(), out[0].0), (1, link), "{out:?}");
    out[0].1.sent()
}

#[test]
fn a_long_frame_is_masqueraded_as_one_there_and_back() {
    for v6 in [false, true] {
        let mut rig = rig_of(TCP, Masquerade, v6);
        rig.send(CLIENTS, &[from_client(&tcp(client(v6), vip(v6), SYN, b""))]);
        let before = rig.counts();
        let sent = one(&rig.send_left(CLIENTS, &[long(v6, ACK | PSH, 60_000)]), SERVERS);
        let seen: Vec<_> = sent.iter().map(|frame| read(frame)).collect();
        assert_eq!(seen.len(), 60_000_usize.div_ceil(MSS.into()));
        assert!(seen.iter().all(|it| (it.source, it.destination) == (client(v6), server(v6))));
        assert!(seen.iter().all(|it| it.hops == 63 && it.to == dest_mac(0)));
        assert_eq!(seen.concat_data(), data(60_000));
        assert_eq!(rig.counts().received - before.received, 1);

        let answer = tcp(server(v6), client(v6), ACK | SYN, &data(5000));
        let answer = left(&ethernet(OUR_MACS[SERVERS], dest_mac(0), &answer), Some(MSS));
        let seen: Vec<_> =
            one(&rig.send_left(SERVERS, &[answer]), CLIENTS).iter().map(|it| read(it)).collect();
        assert!(seen.iter().all(|it| (it.source, it.destination) == (vip(v6), client(v6))));
        assert_eq!((seen.len(), seen.concat_data()), (4, data(5000)));
        let row = &rig.dump(0, v6)[0];
        assert_eq!(row.state, rvs_model::State::Established, "{row:?}");
    }
}

trait Data {
    fn concat_data(&self) -> Vec<u8>;
}

impl Data for Vec<rig::frames::Seen> {
    fn concat_data(&self) -> Vec<u8> {
        self.iter().flat_map(|seen| seen.data.clone()).collect()
    }
}

#[test]
fn a_long_frame_opens_a_connection_and_goes_directly() {
    for v6 in [false, true] {
        let mut rig = rig_of(TCP, Direct, v6);
        let sent = one(&rig.send_left(CLIENTS, &[long(v6, SYN, 4000)]), SERVERS);
        let seen: Vec<_> = sent.iter().map(|it| read(it)).collect();
        assert_eq!((seen.len(), seen.concat_data()), (3, data(4000)));
        assert!(seen.iter().all(|it| it.destination == vip(v6) && it.to == dest_mac(0)));
    }
}

#[test]
fn checksums_of_short_frames_stay_unfinished_too() {
    for v6 in [false, true] {
        for protocol in [TCP, UDP] {
            let mut rig = rig_of(protocol, Masquerade, v6);
            let packet = if protocol == TCP {
                tcp(client(v6), vip(v6), SYN, b"")
            } else {
                udp(client(v6), vip(v6), b"who is there")
            };
            let out = rig.send_left(CLIENTS, &[left(&from_client(&packet), None)]);
            assert_eq!(out[0].1.header[..2], [1, 0], "unfinished, not to be cut");
            assert_eq!(read(&one(&out, SERVERS)[0]).destination, server(v6));
        }
    }
}

#[test]
fn a_worker_hands_over_what_it_was_given() {
    for v6 in [false, true] {
        let plan = Plan { workers: 2, ..PLAN };
        for queue in [0, 1] {
            let rss: rig::Rss = if queue == 0 { |_| 0 } else { |_| 1 };
            let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
            let plan = Plan { rss: [rss, rss], limits: LIMITS, ..plan };
            let mut rig = Rig::new(network_with(interfaces, 8), &plan);
            let dest = server(v6).to_string();
            let service = (TCP, &*vip(v6).to_string());
            rig.add_service(service, SchedulerKind::Rr, &[(&dest, Masquerade, 1)]);
            let sent = one(&rig.send_left(CLIENTS, &[long(v6, SYN, 4000)]), SERVERS);
            assert_eq!(
                sent.iter().map(|it| read(it)).collect::<Vec<_>>().concat_data(),
                data(4000)
            );
        }
    }
}

#[test]
fn too_long_is_what_a_segment_would_be() {
    for v6 in [false, true] {
        let headers: u16 = if v6 { 60 } else { 40 };
        for method in [Masquerade, Direct] {
            for (mtu, fits) in [(MSS + headers, true), (MSS + headers - 1, false)] {
                let mut rig = with_mtu(TCP, method, v6, mtu);
                let out = rig.send_left(CLIENTS, &[long(v6, SYN, 4000)]);
                if fits {
                    assert_eq!(one(&out, SERVERS).len(), 3, "{v6} {method:?}");
                    continue;
                }
                let error = read(&one(&out, CLIENTS)[0]);
                let told = if v6 { &error.data[4..8] } else { &error.data[6..8] };
                let told = told.iter().fold(0, |mtu, octet| mtu << 8 | u16::from(*octet));
                assert_eq!(told, mtu, "{v6} {method:?}");
                assert_eq!(rig.drops()["too-big"], 1);
            }
        }
    }
}

#[test]
fn segments_that_are_too_long_and_may_be_cut_are_cut_into_pieces() {
    let mut rig = with_mtu(TCP, Masquerade, false, 1000);
    let packet = may_fragment(tcp(client(false), vip(false), SYN, &data(4000)));
    let out = rig.send_left(CLIENTS, &[left(&from_client(&packet), Some(MSS))]);
    let frames: Vec<_> = out.iter().flat_map(|(_, left)| left.sent()).collect();
    assert!(frames.iter().all(|frame| packet_octets(&frame[14..]) <= 1000));
    // Two pieces of each segment, which the identification tells apart.
    let mut all = Vec::new();
    for pieces in frames.chunk_by(|one, other| one[18..20] == other[18..20]) {
        let pieces: Vec<_> = pieces.iter().map(|frame| frame[14..].to_vec()).collect();
        assert_eq!(pieces.len(), 2);
        all.push(read_packet(&reassembled(&pieces)));
    }
    assert_eq!((all.len(), all.concat_data()), (3, data(4000)));
}

#[test]
fn into_a_tunnel_go_segments_in_order_finished_and_counted_as_one() {
    for encapsulation in [Encapsulation::Ip, GRE, GUE] {
        for (v6, outer) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut rig = Rig::single();
            let dest = SocketAddr::new(dest_ip(outer, 0), 80).to_string();
            let service = (TCP, &*vip(v6).to_string());
            let id = rig.add_service(service, SchedulerKind::Rr, &[(&dest, Tunnel, 1)]);
            rig.set_tunnel(id, DestId(0), encapsulation);
            // What comes behind it in the same burst stays behind it.
            let end = tcp(client(v6), vip(v6), FIN | ACK, b"the end");
            let frames =
                [long(v6, SYN | PSH, 4000), left(&from_client(&end), None), long(v6, ACK, 100)];
            let out = rig.send_left(CLIENTS, &frames);
            assert_eq!(out.len(), 5, "{v6} {outer} {encapsulation:?}");
            let seen: Vec<_> = out
                .iter()
                .map(|(link, out)| {
                    assert_eq!((*link, out.header), (SERVERS, [0; 10]), "finished");
                    let opened = tunnel::open(&out.frame[14..]).unwrap();
                    assert_eq!(opened.encapsulation, encapsulation);
                    read_packet(opened.packet)
                })
                .collect();
            assert_eq!(seen[..3].to_vec().concat_data(), data(4000));
            assert_eq!((seen[1].sequence, seen[2].sequence), (1361, 2721));
            let pushes = seen.iter().map(|it| it.flags & PSH != 0).collect::<Vec<_>>();
            assert_eq!(pushes, [false, false, true, false, false]);
            assert_eq!(seen[3].data, b"the end");
            assert_eq!(seen[4].data, data(100));
            let (packets, _) = rig.shared[0].lines[0].totals();
            assert_eq!(packets, [1, 3, 0], "one connection, as many packets as came");
        }
    }
}

#[test]
fn a_tunnel_with_too_little_room_for_segments_is_told_once() {
    for v6 in [false, true] {
        let mut rig = with_mtu(TCP, Tunnel, v6, 1400);
        let out = rig.send_left(CLIENTS, &[long(v6, SYN, 40_000)]);
        let error = read(&one(&out, CLIENTS)[0]);
        let told = if v6 { &error.data[4..8] } else { &error.data[6..8] };
        let told = told.iter().fold(0, |mtu, octet| mtu << 8 | u16::from(*octet));
        assert_eq!(told, if v6 { 1360 } else { 1380 });
    }
}

#[test]
fn a_hop_limit_that_ran_out_is_told_once() {
    for method in [Masquerade, Direct, Tunnel] {
        for v6 in [false, true] {
            let mut rig = rig_of(TCP, method, v6);
            let packet = with_hops(tcp(client(v6), vip(v6), SYN, &data(40_000)), 1);
            let out = rig.send_left(CLIENTS, &[left(&from_client(&packet), Some(MSS))]);
            let error = read(&one(&out, CLIENTS)[0]);
            assert_eq!(error.data[0], if v6 { 3 } else { 11 }, "time exceeded");
        }
    }
}

#[test]
fn frames_in_a_vlan_are_carried_from_and_to_others_without() {
    for v6 in [false, true] {
        let interfaces = vec![interface(0, 7, 1500), interface(1, 0, 1500), interface(0, 0, 1500)];
        let mut rig = Rig::new(network_with(interfaces, 0), &PLAN);
        let dest = server(v6).to_string();
        let service = (TCP, &*vip(v6).to_string());
        rig.add_service(service, SchedulerKind::Rr, &[(&dest, Masquerade, 1)]);
        let Left { mut header, frame } = long(v6, SYN, 4000);
        for at in [2, 6] {
            let place = u16::from_ne_bytes([header[at], header[at + 1]]) + 4;
            header[at..at + 2].copy_from_slice(&place.to_ne_bytes());
        }
        let out = rig.send_left(CLIENTS, &[Left { header, frame: tagged(&frame, 7) }]);
        // The server is asked for first; the frame waits and goes on as it is.
        assert_eq!(out.len(), 1);
        let (ask, answer) = (&out[0].1.frame, dest_mac(0));
        let answer = if v6 {
            let core::net::IpAddr::V6(ip) = dest_ip(true, 0) else { panic!() };
            let asked = rig::frames::read_ndp(ask).unwrap();
            let flags = rig::frames::SOLICITED | rig::frames::OVERRIDE;
            let ends = ((answer, ip), (OUR_MACS[SERVERS], asked.source));
            rig::frames::advertisement(ends.0, ends.1, flags)
        } else {
            let core::net::IpAddr::V4(ip) = dest_ip(false, 0) else { panic!() };
            let asked = rig::frames::read_arp(ask).unwrap();
            let to = OUR_MACS[SERVERS];
            rig::frames::arp(to, rig::frames::ARP_REPLY, (answer, ip), (to, asked.sender.1))
        };
        let out = rig.send_left(SERVERS, &[Left { header: [0; 10], frame: answer }]);
        let sent = one(&out, SERVERS);
        let seen: Vec<_> = sent.iter().map(|it| read(it)).collect();
        assert_eq!((seen.len(), seen.concat_data()), (3, data(4000)));
    }
}

#[test]
fn what_no_service_takes_is_answered_or_routed() {
    for v6 in [false, true] {
        let mut rig = rig_of(TCP, Masquerade, v6);
        let closed = SocketAddr::new(vip(v6).ip(), 81);
        let syn = tcp(client(v6), closed, SYN, b"");
        let out = rig.send_left(CLIENTS, &[left(&from_client(&syn), None)]);
        assert_eq!(read(&one(&out, CLIENTS)[0]).flags & rig::frames::RST, rig::frames::RST);

        let packet = tcp(client(v6), server(v6), ACK, &data(4000));
        let out = rig.send_left(CLIENTS, &[left(&from_client(&packet), Some(MSS))]);
        let seen: Vec<_> = one(&out, SERVERS).iter().map(|it| read(it)).collect();
        assert_eq!((seen.len(), seen.concat_data()), (3, data(4000)));
        let packet = tcp(client(v6), server(v6), ACK, &data(4000));
        let out = rig.send_left(CLIENTS, &[left(&from_client(&packet), Some(1500))]);
        assert_eq!(out[0].0, CLIENTS, "segments of more than 1500 octets: its sender is told");
        assert_eq!(rig.drops()["too-big"], 1);
    }
}

/// Any number below this.
fn any(state: &mut u64, below: usize) -> usize {
    // Knuth, The Art of Computer Programming, volume 2, section 3.3.4: MMIX.
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap() % below
}

/// What who has a raw socket may make of a header and of a frame.
fn spoil(state: &mut u64, left: &mut Left) {
    let len = left.frame.len();
    for _ in 0..=any(state, 3) {
        match any(state, 5) {
            0 => left.header[any(state, 10)] = u8::try_from(any(state, 256)).unwrap(),
            1 => {
                let edges = [0, 1, 13, 14, 34, 54, 0x7fff, 0xfffe, 0xffff, len - 1, len, len + 1];
                let edge = u16::try_from(edges[any(state, edges.len())]).unwrap();
                let at = 2 + 2 * any(state, 4);
                left.header[at..at + 2].copy_from_slice(&edge.to_ne_bytes());
            }
            2 => left.frame.truncate(14 + any(state, len - 14)),
            _ => {
                let at = any(state, left.frame.len().min(96));
                left.frame[at] ^= 1 << any(state, 8);
            }
        }
        if left.frame.len() < len {
            return;
        }
    }
}

#[test]
fn whatever_header_is_sent_each_frame_is_accounted_for_and_leaves_as_a_card_can_take_it() {
    let mut state = 1;
    let (mut taken, mut refused) = (0, 0);
    for v6 in [false, true] {
        for method in [Masquerade, Direct, Tunnel] {
            let mut rig = rig_of(TCP, method, v6);
            rig.send(CLIENTS, &[from_client(&tcp(client(v6), vip(v6), SYN, b""))]);
            for _ in 0..1000 {
                let octets = [10, MSS.into(), 5000, 60_000][any(&mut state, 4)];
                let mut left = long(v6, ACK, octets);
                spoil(&mut state, &mut left);
                // Each is counted, which `sent_left` asserts.
                let is_taken = rig.offer_left(CLIENTS, &left);
                (taken, refused) =
                    (taken + usize::from(is_taken), refused + usize::from(!is_taken));
                for (_, Left { header, frame }) in rig.sent_left() {
                    let word =
                        |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
                    let (headers, mss, l4, field) = (word(2), word(4), word(6), word(8));
                    assert!(
                        header[0] <= 1 && [0, 1, 4].contains(&(header[1] & 0x7f)),
                        "{header:?}"
                    );
                    assert!(header[0] == 0 || l4 + field + 2 <= frame.len(), "{header:?}");
                    let is_cut = header[1] != 0;
                    assert!(!is_cut || mss > 0 && l4 + 20 <= headers && headers <= frame.len());
                }
            }
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}
