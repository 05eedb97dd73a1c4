//! Fragments of packets to services and from masqueraded destinations: whoever puts them together
//! again sees the packet that a director of one piece would have sent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

#[path = "sim/random.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod random;
mod rig;

use core::net::SocketAddr;
use random::Random;
use rig::frames::{
    ACK, L3, SCTP, SYN, Seen, TCP, UDP, ethernet, fragments, ip, may_fragment, read_packet,
    reassembled, tcp, trimmed, udp, with_extension,
};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, Rss, dest_mac, interface, network_with};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{SchedulerKind, ServiceId, State};
use rvs_plane::snapshot::Rules;

/// Cards that spread fragments by anything but what their connection goes by.
const ANYHOW: Rss = |frame| frame.iter().map(|octet| u32::from(*octet)).sum();

struct Bench {
    rig: Rig,
    method: ForwardMethod,
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
}

fn bench(method: ForwardMethod, v6: bool, workers: u16) -> Bench {
    let [client, vip, dest] = if v6 {
        ["[2001:db8:99::7]:40000", "[2001:db8:c::80]:80", "[2001:db8:d::11]:8080"]
    } else {
        ["203.0.113.7:40000", "198.51.100.80:80", "192.0.2.11:8080"]
    }
    .map(|text| text.parse::<SocketAddr>().unwrap());
    let dest = if method == Masquerade { dest } else { SocketAddr::new(dest.ip(), 80) };
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let mut rig = Rig::new(network, &Plan { workers, rss: [ANYHOW, ANYHOW], ..PLAN });
    let named = dest.to_string();
    for protocol in [TCP, UDP, SCTP] {
        let key = (protocol, vip.to_string());
        rig.add_service((key.0, &key.1), SchedulerKind::Rr, &[(&named, method, 1)]);
    }
    Bench { rig, method, client, vip, dest }
}

impl Bench {
    /// The packets that leave towards the destination, out of their tunnel.
    fn asks(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let frames: Vec<_> =
            packets.iter().map(|packet| ethernet(OUR_MACS[0], CLIENT_MAC, packet)).collect();
        let out = self.rig.send(0, &frames);
        let outer = if self.client.is_ipv6() { 40 } else { 20 };
        let inner = |(link, frame): &(usize, Vec<u8>)| {
            assert_eq!((*link, &frame[..6]), (1, &dest_mac(0).0[..]));
            let packet = trimmed(&frame[L3..]);
            if self.method == Tunnel { packet[outer..].to_vec() } else { packet.to_vec() }
        };
        out.iter().map(inner).collect()
    }

    /// The packets that leave towards the client.
    fn answers(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let frames: Vec<_> =
            packets.iter().map(|packet| ethernet(OUR_MACS[1], dest_mac(0), packet)).collect();
        let out = self.rig.send(1, &frames);
        assert!(out.iter().all(|(link, _)| *link == 0));
        out.iter().map(|(_, frame)| trimmed(&frame[L3..]).to_vec()).collect()
    }

    fn target(&self) -> SocketAddr {
        if self.method == Masquerade { self.dest } else { self.vip }
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.rig.drops().get(reason).copied().unwrap_or_default()
    }
}

/// What a receiver reads, in whatever order the pieces came.
fn received(mut pieces: Vec<Vec<u8>>) -> Seen {
    pieces.sort_by_key(|piece| {
        let at = if piece[0] >> 4 == 4 { 6 } else { 42 };
        let field = u16::from_be_bytes([piece[at], piece[at + 1]]);
        if piece[0] >> 4 == 4 { field & 0x1fff } else { field >> 3 }
    });
    read_packet(&reassembled(&pieces))
}

/// Another identification, so that a packet is another one.
fn numbered(mut pieces: Vec<Vec<u8>>, number: u8) -> Vec<Vec<u8>> {
    for piece in &mut pieces {
        if piece[0] >> 4 == 4 {
            piece[5] = number;
            rig::frames::sum_up_v4(piece);
        } else {
            piece[47] = number;
        }
    }
    pieces
}

const METHODS: [(ForwardMethod, bool, u16); 9] = [
    (Masquerade, false, 1),
    (Masquerade, false, 4),
    (Masquerade, true, 1),
    (Masquerade, true, 3),
    (Direct, false, 4),
    (Direct, true, 1),
    (Tunnel, false, 1),
    (Tunnel, true, 3),
    (Tunnel, false, 5),
];

#[test]
fn pieces_arrive_in_any_order_and_fit_together_with_a_right_checksum() {
    let mut random = Random::new(5);
    for (method, v6, workers) in METHODS {
        let mut bench = bench(method, v6, workers);
        for number in 1..=60 {
            let client = SocketAddr::new(bench.client.ip(), 40_000 + u16::from(number) % 7);
            let data: Vec<u8> = (0..1400).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let whole = if number % 3 == 0 {
                tcp(client, bench.vip, SYN | ACK, &data)
            } else {
                udp(client, bench.vip, &data)
            };
            let mut pieces =
                numbered(fragments(&may_fragment(whole), 8 * (3 + usize::from(number))), number);
            for place in (1..pieces.len()).rev() {
                pieces.swap(place, random.below(place + 1));
            }
            let arrived = bench.asks(&pieces);
            assert_eq!(arrived.len(), pieces.len(), "{method:?} {v6} {workers}");
            let seen = received(arrived);
            assert_eq!((seen.source, seen.destination), (client, bench.target()));
            assert_eq!((seen.hops, seen.data), (63, data));
        }
        assert_eq!(bench.rig.conns(), 14, "{:?}", bench.rig.drops());
        bench.rig.finish();
    }
}

#[test]
fn what_a_masqueraded_destination_sends_in_pieces_comes_from_the_vip() {
    for (v6, workers) in [(false, 1), (false, 4), (true, 1), (true, 3)] {
        let mut bench = bench(Masquerade, v6, workers);
        bench.asks(&[udp(bench.client, bench.vip, b"question")]);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let answer = may_fragment(udp(bench.dest, bench.client, &[7; 1000]));
            let pieces = numbered(fragments(&answer, 400), u8::try_from(order[0] + 1).unwrap());
            let seen = received(bench.answers(&order.map(|place| pieces[place].clone())));
            assert_eq!((seen.source, seen.destination), (bench.vip, bench.client));
            assert_eq!(seen.data, [7; 1000]);
        }
        bench.rig.finish();
    }
}

#[test]
fn pieces_count_as_the_packet_that_they_are() {
    let mut bench = bench(Masquerade, false, 1);
    let whole = may_fragment(udp(bench.client, bench.vip, &[7; 1000]));
    bench.asks(&fragments(&whole, 400));
    let answer = may_fragment(udp(bench.dest, bench.client, &[7; 500]));
    bench.answers(&fragments(&answer, 104));
    // The second service's only destination: UDP.
    let ([conns, packets_in, packets_out], [octets_in, octets_out]) =
        bench.rig.shared[0].lines[1].totals();
    assert_eq!((conns, packets_in, packets_out), (1, 1, 1));
    assert_eq!((octets_in, octets_out), (1028, 528));
}

#[test]
fn options_and_headers_before_the_fragment_header_are_no_obstacle() {
    let mut bench = bench(Masquerade, true, 1);
    let whole = udp(bench.client, bench.vip, &[7; 1000]);
    let pieces: Vec<_> = fragments(&whole, 400)
        .iter()
        .map(|piece| with_extension(piece, 0, &[0, 5, 2, 0, 0, 1, 0]))
        .collect();
    let arrived = bench.asks(&pieces);
    assert_eq!(arrived.len(), 3, "{:?}", bench.rig.drops());
    for piece in arrived {
        assert_eq!(
            piece[24..40],
            match bench.dest.ip() {
                core::net::IpAddr::V6(dest) => dest.octets(),
                core::net::IpAddr::V4(_) => unreachable!(),
            }
        );
    }
}

#[test]
fn later_pieces_alone_wait_a_second_and_no_more_than_there_is_room() {
    for workers in [1, 4] {
        let mut bench = bench(Masquerade, false, workers);
        let whole = may_fragment(udp(bench.client, bench.vip, &[7; 1000]));
        let alone = |number| numbered(fragments(&whole, 504), number).remove(1);
        let many: Vec<_> = (0..200).map(alone).collect();
        assert!(bench.asks(&many).is_empty());
        assert_eq!((bench.rig.counts().held, bench.dropped("fragment-queue-full")), (64, 136));
        bench.rig.pass(7);
        // The newest are still there.
        let first = numbered(fragments(&whole, 504), 199).remove(0);
        assert_eq!(received(bench.asks(&[first])).data, [7; 1000]);
        bench.rig.pass(1);
        assert_eq!((bench.rig.counts().held, bench.dropped("fragment-alone")), (0, 63));
        assert!(bench.asks(&many[..1]).is_empty());
        bench.rig.finish();
    }
}

#[test]
fn a_first_piece_is_forgotten_after_its_time() {
    let mut bench = bench(Direct, false, 1);
    let pieces = fragments(&may_fragment(udp(bench.client, bench.vip, &[7; 1000])), 504);
    assert_eq!(bench.asks(&pieces[..1]).len(), 1);
    bench.rig.pass(8 * 15 - 1);
    assert_eq!(bench.asks(&pieces[1..]).len(), 1);
    bench.rig.pass(1);
    assert_eq!(bench.asks(&pieces[1..]).len(), 0);
}

#[test]
fn the_newest_first_piece_with_an_identification_counts() {
    let mut bench = bench(Masquerade, false, 4);
    let other = SocketAddr::new(bench.client.ip(), 41_000);
    let of = |client: SocketAddr, vip| fragments(&may_fragment(udp(client, vip, &[7; 1000])), 504);
    let (old, new) = (of(bench.client, bench.vip), of(other, bench.vip));
    bench.asks(&old[..1]);
    assert_eq!(received(bench.asks(&new)).source, other);
}

/// A flood of pieces, spoofed or not, of any kind: what whole packets there are get through, nothing
/// is lost without a name, and only pieces suffer.
#[test]
fn a_flood_of_pieces_hurts_none_but_pieces() {
    for workers in [1, 3] {
        let mut bench = bench(Masquerade, false, workers);
        let mut random = Random::new(9);
        let mut delivered = 0;
        for round in 0..300_u32 {
            let mut flood: Vec<_> = (0..60)
                .map(|_| {
                    let [a, b, c, number, ..] = random.next().to_le_bytes();
                    let from = SocketAddr::new([198, 18, a, b].into(), u16::from(c) + 1);
                    let whole = may_fragment(udp(from, bench.vip, &[1; 64]));
                    let mut pieces = numbered(fragments(&whole, 8), number);
                    // Firsts, laters, overlaps of all kinds, ends before beginnings.
                    let at = usize::from(a) % pieces.len();
                    let mut piece = pieces.swap_remove(at);
                    if b % 4 == 0 {
                        piece[7] = c;
                        rig::frames::sum_up_v4(&mut piece);
                    }
                    piece
                })
                .collect();
            let port = u16::try_from(round % 5000).unwrap() + 1000;
            let client = SocketAddr::new(bench.client.ip(), port);
            flood.insert(30, udp(client, bench.vip, b"whole"));
            let mine = numbered(fragments(&may_fragment(udp(client, bench.vip, &[9; 64])), 32), 7);
            flood.extend(mine);
            let arrived = bench.asks(&flood);
            let whole = arrived.iter().filter(|packet| packet.ends_with(b"whole")).count();
            assert_eq!(whole, 1, "round {round}: {:?}", bench.rig.drops());
            delivered += arrived.iter().filter(|packet| packet.ends_with(&[9; 16])).count();
            assert!(bench.rig.counts().held <= 64 * u64::from(workers));
            bench.rig.now += 1;
        }
        assert!(delivered > 300, "most of the others too: {delivered} {:?}", bench.rig.drops());
        bench.rig.pass(8);
        assert_eq!(bench.rig.counts().held, 0);
        bench.rig.finish();
    }
}

#[test]
fn sctp_in_pieces_goes_where_no_port_changes() {
    for (method, arrives) in [(Direct, 3), (Masquerade, 0)] {
        let mut bench = bench(method, false, 1);
        bench.rig.snapshot.tunables.sloppy_sctp = true;
        bench.rig.publish();
        let mut packet =
            [bench.client.port().to_be_bytes(), bench.vip.port().to_be_bytes()].concat();
        packet.extend([1, 2, 3, 4, 0, 0, 0, 0, 0, 3, 0, 88]);
        packet.resize(100, 7);
        let whole = ip(bench.client.ip(), bench.vip.ip(), SCTP, 64, &packet);
        bench.asks(std::slice::from_ref(&whole));
        assert_eq!(bench.asks(&fragments(&may_fragment(whole), 48)).len(), arrives, "{method:?}");
        assert_eq!(bench.dropped("fragment-of-sctp"), 3 - u64::try_from(arrives).unwrap());
        assert_eq!(bench.rig.state(), State::SctpEstablished);
    }
}

#[test]
fn pieces_to_nobodys_port_and_of_other_protocols_are_dropped_by_name() {
    let mut bench = bench(Direct, false, 3);
    let stranger = SocketAddr::new(bench.vip.ip(), 9);
    let pieces = fragments(&may_fragment(udp(bench.client, stranger, &[7; 100])), 40);
    assert!(bench.asks(&pieces).is_empty());
    assert_eq!(bench.dropped("fragment"), 3);
    let ping = ip(bench.client.ip(), bench.vip.ip(), 1, 64, &[8; 100]);
    assert!(bench.asks(&fragments(&may_fragment(ping), 40)).is_empty());
    assert_eq!(bench.dropped("fragment"), 6);
    let short = may_fragment(tcp(bench.client, bench.vip, SYN, &[7; 100]));
    assert!(bench.asks(&fragments(&short, 8)[..1]).is_empty(), "RFC 1858");
    assert_eq!(bench.dropped("truncated"), 1);
}

#[test]
fn later_pieces_of_a_datagram_to_a_one_packet_service_have_nobody_to_follow() {
    let mut bench = bench(Direct, false, 1);
    // The second of three: TCP, UDP, SCTP.
    bench.rig.set_rules(ServiceId(1), Rules { one_packet: true, ..Rules::default() });
    let pieces = fragments(&may_fragment(udp(bench.client, bench.vip, &[7; 100])), 40);
    assert_eq!(pieces.len(), 3);
    assert_eq!(bench.asks(&pieces).len(), 1);
    assert_eq!(bench.dropped("fragment"), 2);
}
