//! What every forwarding method does alike, in both families and with a tunnel of the other one:
//! each claim runs over all of them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod rig;

use core::net::{IpAddr, SocketAddr};
use rig::frames::{
    ACK, FIN, ICMP, ICMPV6, L3, RST, SYN, Seen, TCP, UDP, changed, ethernet, mac_at, may_fragment,
    packet_octets, read_packet, reassembled, segment_sum, tagged, tcp, trimmed, udp,
    udp_without_checksum, with_extension, with_hops, with_options,
};
use rig::{
    CLIENT_MAC, LIMITS, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network_with,
};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{DestId, Load, SchedulerKind, ServiceId, State};
use rvs_plane::Limits;

/// One way of forwarding.
#[derive(Clone, Copy, Debug)]
struct Case {
    method: ForwardMethod,
    /// Whether clients speak IPv6.
    v6: bool,
    /// Whether destinations do.
    dest_v6: bool,
}

const CASES: [Case; 8] = [
    Case { method: Masquerade, v6: false, dest_v6: false },
    Case { method: Masquerade, v6: true, dest_v6: true },
    Case { method: Direct, v6: false, dest_v6: false },
    Case { method: Direct, v6: true, dest_v6: true },
    Case { method: Tunnel, v6: false, dest_v6: false },
    Case { method: Tunnel, v6: true, dest_v6: true },
    Case { method: Tunnel, v6: false, dest_v6: true },
    Case { method: Tunnel, v6: true, dest_v6: false },
];

/// A director with one service for each protocol and two destinations, of which the first added,
/// number 0, is the one that gets the first connection.
struct Bench {
    case: Case,
    rig: Rig,
    services: [ServiceId; 2],
}

impl Case {
    fn client(self, port: u16) -> SocketAddr {
        let address = if self.v6 { "2001:db8:99::7" } else { "203.0.113.7" };
        SocketAddr::new(address.parse().unwrap(), port)
    }

    fn vip(self) -> SocketAddr {
        let address = if self.v6 { "2001:db8:c::80" } else { "198.51.100.80" };
        SocketAddr::new(address.parse().unwrap(), 80)
    }

    fn dest(self, number: u8) -> SocketAddr {
        let port = if self.method == Masquerade { 8080 } else { 80 };
        SocketAddr::new(dest_ip(self.dest_v6, number), port)
    }

    fn overhead(self) -> usize {
        match (self.method, self.dest_v6) {
            (Tunnel, false) => 20,
            (Tunnel, true) => 40,
            _ => 0,
        }
    }

    fn header_octets(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Where the second link's packets may be this long.
    fn bench(self, mtu: u16) -> Bench {
        self.bench_with(mtu, LIMITS)
    }

    fn bench_with(self, mtu: u16, limits: Limits) -> Bench {
        let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, mtu)], 8);
        let mut rig = Rig::new(network, &Plan { limits, ..PLAN });
        let vip = self.vip().to_string();
        let services = [TCP, UDP].map(|protocol| {
            let id = rig.add_service((protocol, &vip), SchedulerKind::Rr, &[]);
            rig.add_dest(id, self.dest(1), self.method, 1);
            rig.add_dest(id, self.dest(0), self.method, 1);
            id
        });
        Bench { case: self, rig, services }
    }

    /// What the destination's own stack sees of a frame, after the checks that every frame towards
    /// it has to stand.
    fn arrived(self, frame: &[u8]) -> (u8, Seen) {
        let number = mac_at(frame, 0).0[5] - 0x11;
        assert_eq!((mac_at(frame, 0), mac_at(frame, 6)), (dest_mac(number), OUR_MACS[1]));
        let packet = self.unwrapped(number, trimmed(&frame[L3..]));
        let seen = read_packet(&packet);
        let wanted = if self.method == Masquerade { self.dest(number) } else { self.vip() };
        assert_eq!(seen.destination, wanted);
        (number, seen)
    }

    /// The packet inside the tunnel, if there is one.
    fn unwrapped(self, number: u8, packet: &[u8]) -> Vec<u8> {
        if self.method != Tunnel {
            return packet.to_vec();
        }
        let outer = read_packet(packet);
        assert_eq!(outer.protocol, if self.v6 { 41 } else { 4 });
        assert_eq!(outer.destination.ip(), self.dest(number).ip());
        let ours = if self.dest_v6 { "2001:db8:d::1" } else { "192.0.2.1" };
        assert_eq!(outer.source.ip(), ours.parse::<IpAddr>().unwrap());
        let inner = read_packet(&outer.data);
        assert_eq!(outer.hops, inner.hops, "the outer hop limit is the inner one");
        assert_eq!(outer.data.len(), packet_octets(&outer.data), "no padding inside");
        outer.data
    }
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[0], CLIENT_MAC, packet)
}

impl Bench {
    fn client(&self) -> SocketAddr {
        self.case.client(40000)
    }

    /// What comes out when a client sends packets.
    fn sends(&mut self, packets: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
        let frames: Vec<_> = packets.iter().map(|packet| from_client(packet)).collect();
        self.rig.send(0, &frames)
    }

    /// What a destination sees of the one packet that a client sends.
    fn through(&mut self, packet: Vec<u8>) -> (u8, Seen) {
        let out = self.sends(&[packet]);
        assert_eq!((out.len(), out[0].0), (1, 1), "{:?}: {out:?}", self.case);
        self.case.arrived(&out[0].1)
    }

    /// A segment from the client; what the destination sees of it.
    fn segment(&mut self, port: u16, flags: u8) -> (u8, Seen) {
        self.through(tcp(self.case.client(port), self.case.vip(), flags, b""))
    }

    /// A segment from the client that nothing comes of.
    fn vanishes(&mut self, port: u16, flags: u8) {
        let out = self.sends(&[tcp(self.case.client(port), self.case.vip(), flags, b"")]);
        assert_eq!(out, [], "{:?}", self.case);
    }

    /// A segment from the client that the director answers with a reset.
    fn is_reset(&mut self, port: u16, flags: u8) {
        let out = self.sends(&[tcp(self.case.client(port), self.case.vip(), flags, b"")]);
        let seen = self.told(&out, TCP);
        assert_eq!((seen.source, seen.flags & RST), (self.case.vip(), RST));
    }

    /// A segment from a destination to the client; what the client sees of it.
    fn answers(&mut self, number: u8, port: u16, flags: u8) -> Seen {
        let packet = tcp(self.case.dest(number), self.case.client(port), flags, b"");
        let out = self.rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(number), &packet)]);
        self.told(&out, TCP)
    }

    /// The one packet that the client gets.
    fn told(&self, out: &[(usize, Vec<u8>)], protocol: u8) -> Seen {
        assert_eq!((out.len(), out[0].0), (1, 0), "{:?}: {out:?}", self.case);
        let frame = &out[0].1;
        assert_eq!((mac_at(frame, 0), mac_at(frame, 6)), (CLIENT_MAC, OUR_MACS[0]));
        let seen = read_packet(&frame[L3..]);
        assert_eq!(seen.destination.ip(), self.client().ip());
        assert_eq!(seen.protocol, protocol);
        seen
    }

    /// The ICMP error that the client gets: type, code, the next 4 octets, and what it quotes.
    fn refused(&self, out: &[(usize, Vec<u8>)]) -> (u8, u8, u32, Vec<u8>) {
        let protocol = if self.case.v6 { ICMPV6 } else { ICMP };
        let seen = self.told(out, protocol);
        assert_eq!(seen.source.ip(), self.case.vip().ip(), "the VIP is who refuses");
        let [kind, code, _, _, a, b, c, d, quoted @ ..] = &seen.data[..] else { panic!("short") };
        (*kind, *code, u32::from_be_bytes([*a, *b, *c, *d]), quoted.to_vec())
    }

    fn load(&self, dest: u32) -> Load {
        self.rig.shared[0].lines[usize::try_from(dest).unwrap()].load()
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.rig.drops().get(reason).copied().unwrap_or_default()
    }

    /// Takes a TCP connection of the client's port into a state; says whose it is.
    fn enters(&mut self, port: u16, state: State) -> u8 {
        let masquerade = self.case.method == Masquerade;
        let (number, _) = self.segment(port, SYN);
        match state {
            State::SynRecv => {}
            State::Established => {
                self.segment(port, ACK);
            }
            State::FinWait if !masquerade => {
                self.segment(port, ACK);
                self.segment(port, FIN | ACK);
            }
            State::FinWait => {
                self.segment(port, ACK);
                self.answers(number, port, FIN | ACK);
            }
            State::TimeWait if !masquerade => {
                self.segment(port, FIN | ACK);
            }
            State::TimeWait => {
                self.segment(port, ACK);
                self.segment(port, FIN | ACK);
                self.answers(number, port, FIN | ACK);
            }
            State::Close => {
                self.segment(port, ACK);
                self.segment(port, RST);
            }
            other => panic!("no way to {other:?} here"),
        }
        let rows = self.rig.dump(0, self.case.v6);
        let row = rows.iter().find(|row| row.client.port() == port).unwrap();
        assert_eq!(row.state, state, "{:?}", self.case);
        number
    }
}

#[test]
fn a_packet_arrives_one_hop_older_with_its_payload_and_a_right_checksum() {
    for case in CASES {
        let mut bench = case.bench(1500);
        let most = 1500 - case.overhead() - case.header_octets() - 20;
        for octets in [0, 1, 2, 5, 6, 7, 100, 777, most] {
            let data: Vec<u8> = (0..octets).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
            for hops in [2, 64, 255] {
                let (client, vip) = (bench.client(), case.vip());
                for packet in [tcp(client, vip, SYN, &data), udp(client, vip, &data)] {
                    let (number, seen) = bench.through(with_hops(packet, hops));
                    assert_eq!((number, seen.source, seen.hops), (0, client, hops - 1));
                    assert_eq!(seen.data, data, "{case:?}");
                }
            }
        }
        assert_eq!(bench.rig.conns(), 2);
        bench.rig.finish();
    }
}

#[test]
fn the_way_back_of_a_masqueraded_packet_is_its_mirror() {
    for case in CASES.iter().filter(|case| case.method == Masquerade) {
        let mut bench = case.bench(1500);
        let (client, vip) = (bench.client(), case.vip());
        bench.through(udp(client, vip, b"question"));
        let answer = with_hops(udp(case.dest(0), client, b"answer"), 9);
        let out = bench.rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &answer)]);
        let seen = bench.told(&out, UDP);
        assert_eq!((seen.source, seen.destination, seen.hops), (vip, client, 8));
        assert_eq!(seen.data, b"answer");
    }
}

#[test]
fn options_and_extension_headers_are_carried_along() {
    for case in CASES {
        let mut bench = case.bench(1500);
        let (client, vip) = (bench.client(), case.vip());
        // Router alert, as IPv4 option and in hop-by-hop options; padding in destination options.
        let packet = if case.v6 {
            let plain = tcp(client, vip, SYN, b"data");
            let padded =
                with_extension(&plain, 60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            with_extension(&padded, 0, &[0, 5, 2, 0, 0, 1, 0])
        } else {
            with_options(&tcp(client, vip, SYN, b"data"), &[0x94, 4, 0, 0, 1, 1, 1, 0])
        };
        let out = bench.sends(std::slice::from_ref(&packet));
        let (_, seen) = case.arrived(&out[0].1);
        assert_eq!((seen.source, seen.data.as_slice()), (client, &b"data"[..]));
        let inner = case.unwrapped(0, trimmed(&out[0].1[L3..]));
        let (from, to) = if case.v6 { (40, 64) } else { (20, 28) };
        assert_eq!(inner[from..to], packet[from..to], "{case:?}");
    }
}

#[test]
fn a_tag_is_taken_off_and_what_follows_a_packet_stays_behind() {
    for case in CASES {
        let network = network_with(
            vec![interface(0, 0, 1500), interface(1, 0, 1500), interface(0, 7, 1500)],
            8,
        );
        let mut rig = Rig::new(network, &PLAN);
        let (vip, dest) = (case.vip().to_string(), case.dest(0).to_string());
        rig.add_service((UDP, &vip), SchedulerKind::Rr, &[(&dest, case.method, 1)]);
        for size in [0, 1, 40, 1000] {
            let packet = udp(case.client(40000), case.vip(), &vec![7; size]);
            let mut frame = from_client(&packet);
            frame.resize(frame.len().max(1700), 0xee);
            for frame in [frame.clone(), tagged(&frame, 7)] {
                let out = rig.send(0, &[frame]);
                let (_, seen) = case.arrived(&out[0].1);
                assert_eq!(seen.data, vec![7; size]);
                let most = (L3 + packet.len() + case.overhead()).max(60);
                assert!(out[0].1.len() <= most, "{case:?}: {} octets", out[0].1.len());
            }
        }
    }
}

#[test]
fn the_last_hop_is_refused_with_time_exceeded_and_the_packet_as_it_was() {
    for case in CASES {
        let mut bench = case.bench(1500);
        for hops in [0, 1] {
            let packet = with_hops(tcp(bench.client(), case.vip(), SYN, b"data"), hops);
            let out = bench.sends(std::slice::from_ref(&packet));
            let (kind, code, rest, quoted) = bench.refused(&out);
            assert_eq!((kind, code, rest), (if case.v6 { 3 } else { 11 }, 0, 0));
            assert_eq!(quoted, packet);
        }
        assert_eq!(bench.dropped("hop-limit"), 2);
    }
}

#[test]
fn a_packet_that_does_not_fit_and_must_not_be_cut_is_refused_with_what_fits() {
    for case in CASES {
        let mut bench = case.bench(1400);
        let fits = 1400 - case.overhead();
        let payload = |packet: usize| vec![9; packet - case.header_octets() - 20];
        let (client, vip) = (bench.client(), case.vip());
        let (_, seen) = bench.through(tcp(client, vip, SYN, &payload(fits)));
        assert_eq!(seen.data, payload(fits), "{case:?}");

        let packet = tcp(client, vip, SYN, &payload(fits + 1));
        let out = bench.sends(std::slice::from_ref(&packet));
        let (kind, code, mtu, quoted) = bench.refused(&out);
        assert_eq!((kind, code), if case.v6 { (2, 0) } else { (3, 4) });
        assert_eq!(usize::try_from(mtu).unwrap(), fits, "{case:?}");
        // As Linux quotes it: the hop was taken before the length was looked at.
        let told = with_hops(packet, 63);
        assert_eq!(quoted, told[..quoted.len()]);
        assert!(quoted.len() >= 500, "as much as an answer may carry");
        assert_eq!(bench.dropped("too-big"), 1);

        let last = with_hops(tcp(client, vip, SYN, &payload(fits + 1)), 1);
        let out = bench.sends(&[last]);
        let (kind, ..) = bench.refused(&out);
        assert_eq!(kind, if case.v6 { 3 } else { 11 }, "hops come first");
    }
}

#[test]
fn a_packet_that_may_be_cut_arrives_in_pieces_that_make_the_whole() {
    for case in CASES.iter().filter(|case| !case.v6) {
        let mut bench = case.bench(576);
        let client = bench.client();
        for (size, options) in [(600, 0), (1200, 0), (1300, 8), (1400, 40)] {
            let data: Vec<u8> = (0..size).map(|at| u8::try_from(at % 253).unwrap()).collect();
            let mut packet = may_fragment(udp(client, case.vip(), &data));
            if options > 0 {
                let mut octets = vec![1; options];
                octets[..4].copy_from_slice(&[0x94, 4, 0, 0]);
                packet = with_options(&packet, &octets);
            }
            let out = bench.sends(&[packet]);
            let pieces = out.iter().map(|(link, frame)| {
                assert_eq!((*link, mac_at(frame, 0)), (1, dest_mac(0)));
                let packet = trimmed(&frame[L3..]).to_vec();
                assert!(packet.len() <= 576, "{case:?}: {} octets", packet.len());
                packet
            });
            let pieces: Vec<_> = pieces.collect();
            assert!(pieces.len() > 1, "{case:?}");
            let whole = case.unwrapped(0, &reassembled(&pieces));
            let seen = read_packet(&whole);
            assert_eq!((seen.source, seen.hops, seen.data), (client, 63, data), "{case:?}");
        }
        let counts = bench.rig.counts();
        assert_eq!(counts.dropped_total(), 0);
        bench.rig.finish();
    }
}

/// Linux 6.1 `ip_vs_xmit.c` `ensure_mtu_is_adequate()`: `pmtu_disc` is for IPv4 in tunnels; a packet
/// of IPv6 that does not fit is always refused.
#[test]
fn without_path_mtu_discovery_a_tunnel_cuts_ipv4_and_still_refuses_ipv6() {
    for case in CASES {
        let mut bench = case.bench(1400);
        bench.rig.snapshot.tunables.pmtu_disc = false;
        bench.rig.publish();
        let packet = udp(bench.client(), case.vip(), &[3; 1370]);
        let out = bench.sends(&[packet]);
        if case.method == Tunnel && !case.v6 {
            let pieces: Vec<_> =
                out.iter().map(|(_, frame)| trimmed(&frame[L3..]).to_vec()).collect();
            assert_eq!(pieces.len(), 2, "{case:?}");
            let whole = case.unwrapped(0, &reassembled(&pieces));
            assert_eq!(read_packet(&whole).data, vec![3; 1370]);
            assert_eq!(whole[6] & 0x40, 0x40, "inside it is as it was");
        } else if case.v6 || case.method != Tunnel {
            let fits = 1400 - case.overhead();
            if packet_len(case, 1370) > fits {
                let (_, _, mtu, _) = bench.refused(&out);
                assert_eq!(usize::try_from(mtu).unwrap(), fits, "{case:?}");
            }
        }
    }
}

fn packet_len(case: Case, data: usize) -> usize {
    case.header_octets() + 8 + data
}

#[test]
fn an_outer_header_forbids_cutting_where_the_inner_one_does() {
    for case in CASES.iter().filter(|case| case.method == Tunnel && !case.dest_v6) {
        let mut bench = case.bench(1500);
        let client = bench.client();
        let flag_of = |bench: &mut Bench, packet: Vec<u8>| {
            let out = bench.sends(&[packet]);
            let outer = &out[0].1[L3..];
            (outer[6] & 0x40 != 0, u16::from_be_bytes([outer[4], outer[5]]))
        };
        let (forbidden, ident) = flag_of(&mut bench, udp(client, case.vip(), b"x"));
        assert_eq!((forbidden, ident == 0), (!case.v6, !case.v6), "{case:?}");
        let (forbidden, first) = flag_of(&mut bench, may_fragment(udp(client, case.vip(), b"x")));
        let (_, second) = flag_of(&mut bench, may_fragment(udp(client, case.vip(), b"x")));
        assert!(!forbidden && first != second, "{case:?}");
    }
}

#[test]
fn masquerading_completes_a_missing_udp_checksum_and_leaves_a_wrong_tcp_one_wrong() {
    for case in CASES {
        let mut bench = case.bench(1500);
        let client = bench.client();
        let out = bench.sends(&[udp_without_checksum(client, case.vip(), b"odd")]);
        let inner = case.unwrapped(0, trimmed(&out[0].1[L3..]));
        let at = case.header_octets() + 6;
        assert_eq!(inner[at..at + 2] != [0, 0], case.method == Masquerade, "{case:?}");
        case.arrived(&out[0].1);

        let mut wrong = tcp(client, case.vip(), SYN, b"data");
        wrong[case.header_octets() + 16] ^= 0x55;
        let out = bench.sends(std::slice::from_ref(&wrong));
        let inner = &out[0].1[L3 + case.overhead()..];
        assert_ne!(segment_sum(&wrong), 0xffff);
        assert_eq!(segment_sum(trimmed(inner)), segment_sum(&wrong), "exactly as wrong");
    }
}

#[test]
fn a_destination_counts_its_connections_packets_and_octets() {
    for case in CASES {
        let mut bench = case.bench(1300);
        let (client, vip) = (bench.client(), case.vip());
        let packets = [
            tcp(client, vip, SYN, b""),
            tcp(client, vip, ACK, b"four"),
            // Inbound packets are counted before they are refused, as in Linux.
            tcp(client, vip, ACK, &[1; 1270]),
            with_hops(tcp(client, vip, ACK, b""), 1),
        ];
        let octets: u64 = packets.iter().map(|packet| u64::try_from(packet.len()).unwrap()).sum();
        let padded: Vec<_> = packets.iter().map(|packet| from_client(packet)).collect();
        let out = bench.rig.send(0, &padded);
        // The two errors that the client gets, too, without masquerading.
        let errors = out.iter().filter(|(link, _)| *link == 0 && case.method != Masquerade);
        let errors: Vec<_> =
            errors.map(|(_, frame)| u64::try_from(trimmed(&frame[L3..]).len()).unwrap()).collect();
        let outbound = (errors.len().try_into().unwrap(), errors.iter().sum());
        assert_eq!(outbound.0, if case.method == Masquerade { 0 } else { 2 });
        let line = &bench.rig.shared[0].lines[1];
        assert_eq!(line.totals(), ([1, 4, outbound.0], [octets, outbound.1]), "{case:?}");
        assert_eq!(line.load(), Load { active: 1, inactive: 0 });
        if case.method == Masquerade {
            // Outbound ones that are refused never reached IPVS.
            let answer = tcp(case.dest(0), client, SYN | ACK, b"");
            let refused = with_hops(answer.clone(), 1);
            let frames = [&answer, &refused].map(|it| ethernet(OUR_MACS[1], dest_mac(0), it));
            bench.rig.send(1, &frames);
            let ([_, _, packets], [_, octets]) = bench.rig.shared[0].lines[1].totals();
            assert_eq!((packets, octets), (1, u64::try_from(answer.len()).unwrap()));
        }
    }
}

#[test]
fn a_packet_for_the_client_that_does_not_fit_is_refused_to_the_destination() {
    for v6 in [false, true] {
        let case = Case { method: Masquerade, v6, dest_v6: v6 };
        let network = network_with(vec![interface(0, 0, 1300), interface(1, 0, 1500)], 8);
        let mut rig = Rig::new(network, &PLAN);
        let (vip, dest) = (case.vip().to_string(), case.dest(0).to_string());
        rig.add_service((UDP, &vip), SchedulerKind::Rr, &[(&dest, Masquerade, 1)]);
        rig.send(0, &[from_client(&udp(case.client(1), case.vip(), b""))]);
        let answer = udp(case.dest(0), case.client(1), &[1; 1280]);
        let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &answer)]);
        assert_eq!((out.len(), out[0].0), (1, 1));
        let seen = read_packet(&out[0].1[L3..]);
        assert_eq!(seen.destination.ip(), case.dest(0).ip());
        assert_eq!(&seen.data[..2], if v6 { &[2, 0] } else { &[3, 4] });
        assert_eq!(seen.data[8..], answer[..seen.data.len() - 8], "quoted as it was sent");

        let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &may_fragment(answer))]);
        if !v6 {
            let pieces: Vec<_> =
                out.iter().map(|(_, frame)| trimmed(&frame[L3..]).to_vec()).collect();
            let seen = read_packet(&reassembled(&pieces));
            assert_eq!((seen.source, seen.data.len()), (case.vip(), 1280));
        }
    }
}

#[test]
fn a_drained_destination_keeps_what_it_has_and_gets_nothing_new() {
    for case in CASES {
        let mut bench = case.bench(1500);
        assert_eq!(bench.enters(1000, State::Established), 0);
        bench.rig.set_weight(bench.services[0], DestId(1), 0);
        assert_eq!(bench.segment(1000, ACK).0, 0, "{case:?}");
        for port in 1001..1006 {
            assert_eq!(bench.segment(port, SYN).0, 1, "{case:?}");
        }
        bench.rig.set_weight(bench.services[0], DestId(0), 0);
        let out = bench.sends(&[tcp(case.client(1007), case.vip(), SYN, b"")]);
        let (kind, code, ..) = bench.refused(&out);
        assert_eq!((kind, code), if case.v6 { (1, 4) } else { (3, 3) });
        assert_eq!(bench.segment(1000, ACK).0, 0);
        assert_eq!(bench.segment(1003, ACK).0, 1);
    }
}

#[test]
fn a_removed_destinations_connections_go_nowhere_until_it_returns() {
    for case in CASES {
        let mut bench = case.bench(1500);
        assert_eq!(bench.enters(1000, State::Established), 0);
        bench.rig.remove_dest(bench.services[0], DestId(1));
        bench.vanishes(1000, ACK);
        bench.vanishes(1000, SYN);
        assert_eq!(bench.dropped("dest-deleted"), 2);
        assert_eq!(bench.segment(1001, SYN).0, 1, "new ones go elsewhere");
        let id = bench.rig.add_dest(bench.services[0], case.dest(0), case.method, 1);
        assert_eq!(id, DestId(1));
        assert_eq!(bench.segment(1000, ACK).0, 0, "{case:?}");
    }
}

/// Linux 6.1 `ip_vs_core.c` `ip_vs_in()` looks for a port that is used again first, and then
/// whether the destination is still there.
#[test]
fn a_port_used_again_does_not_wait_for_a_removed_destination() {
    for case in CASES {
        let mut bench = case.bench(1500);
        bench.enters(1000, State::TimeWait);
        bench.rig.remove_dest(bench.services[0], DestId(1));
        bench.vanishes(1000, ACK);
        assert_eq!(bench.segment(1000, SYN).0, 1, "{case:?}");
        assert_eq!((bench.load(1).total(), bench.load(0).total()), (0, 1));
    }
}

#[test]
fn with_expire_nodest_conn_a_removed_destinations_connections_end_at_their_next_packet() {
    for case in CASES {
        let mut bench = case.bench(1500);
        bench.rig.snapshot.tunables.expire_nodest_conn = true;
        bench.enters(1000, State::Established);
        bench.enters(1001, State::Established);
        bench.segment(1002, SYN);
        bench.rig.remove_dest(bench.services[0], DestId(1));
        bench.is_reset(1000, ACK);
        assert_eq!(bench.segment(1002, SYN).0, 1, "{case:?}: a SYN is scheduled anew");
        assert_eq!(bench.segment(1001, ACK).0, 1);
        assert_eq!((bench.load(1).total(), bench.load(0).total()), (0, 2));
        assert_eq!(bench.rig.conns(), 2);
    }
}

#[test]
fn with_expire_nodest_conn_a_syn_leaves_a_drained_destination() {
    for case in CASES {
        for expire in [false, true] {
            let mut bench = case.bench(1500);
            bench.rig.snapshot.tunables.expire_nodest_conn = expire;
            bench.enters(1000, State::Established);
            bench.rig.set_weight(bench.services[0], DestId(1), 0);
            assert_eq!(bench.segment(1000, ACK).0, 0);
            assert_eq!(bench.segment(1000, SYN).0, u8::from(expire), "{case:?}");
            assert_eq!(bench.rig.conns(), 1);
        }
    }
}

#[test]
fn conn_reuse_mode_says_which_states_a_syn_ends() {
    for case in CASES {
        for mode in 0..4 {
            for state in
                [State::SynRecv, State::Established, State::FinWait, State::TimeWait, State::Close]
            {
                let mut bench = case.bench(1500);
                bench.rig.snapshot.tunables.conn_reuse_mode = mode;
                bench.rig.publish();
                let number = bench.enters(1000, state);
                let anew = match state {
                    State::TimeWait | State::Close => mode != 0,
                    State::FinWait => mode & 2 != 0 && case.method != Masquerade,
                    _ => false,
                };
                let (after, _) = bench.segment(1000, SYN);
                assert_eq!(after != number, anew, "{case:?} {state:?} mode {mode}");
                assert_eq!(bench.rig.conns(), 1);
                let total: u64 = (0..2).map(|dest| bench.load(dest).total()).sum();
                assert_eq!(total, 1, "{case:?} {state:?} mode {mode}");
            }
        }
    }
}

#[test]
fn in_a_full_table_half_open_connections_yield_and_established_ones_stay() {
    let limits = Limits { conns4: 16, conns6: 16, ..LIMITS };
    for case in CASES {
        let mut bench = case.bench_with(1500, limits);
        for port in 1000..1012 {
            bench.enters(port, State::Established);
        }
        for port in 2000..2100 {
            bench.segment(port, SYN);
        }
        assert_eq!((bench.rig.conns(), bench.rig.counts().evicted), (16, 96));
        let owner = bench.segment(1003, ACK).0;
        assert_eq!(bench.segment(1003, ACK).0, owner);
        for port in 2096..2100 {
            bench.segment(port, ACK);
        }
        bench.vanishes(3000, SYN);
        bench.vanishes(3001, SYN);
        assert_eq!(bench.dropped("table-full"), 2);
        assert_eq!((bench.rig.conns(), bench.rig.counts().evicted), (16, 96));
        let active: u32 = (0..2).map(|dest| bench.load(dest).active).sum();
        assert_eq!(active, 16, "{case:?}");
        bench.rig.pass(901 * 8);
        assert_eq!(bench.rig.conns(), 0);
        let total: u64 = (0..2).map(|dest| bench.load(dest).total()).sum();
        assert_eq!(total, 0, "{case:?}");
        bench.rig.finish();
    }
}

#[test]
fn only_sloppy_tcp_opens_a_connection_without_a_syn() {
    for case in CASES {
        let mut bench = case.bench(1500);
        for flags in [ACK, FIN | ACK, 0] {
            bench.is_reset(1000, flags);
        }
        bench.vanishes(1000, RST);
        assert_eq!(bench.rig.conns(), 0);
        bench.rig.snapshot.tunables.sloppy_tcp = true;
        bench.rig.publish();
        for (port, flags) in [(1000, ACK), (1001, FIN | ACK), (1002, 0)] {
            bench.segment(port, flags);
        }
        bench.vanishes(1003, RST);
        assert_eq!(bench.rig.conns(), 3);
    }
}

#[test]
fn secure_tcp_believes_in_a_handshake_when_the_destination_does() {
    for case in CASES {
        let mut bench = case.bench(1500);
        bench.rig.snapshot.tunables.secure_tcp = 3;
        bench.rig.publish();
        bench.segment(1000, SYN);
        if case.method == Masquerade {
            assert_eq!(bench.rig.state(), State::SynRecv);
            bench.segment(1000, ACK);
            assert_eq!(bench.rig.state(), State::SynRecv, "{case:?}");
            bench.answers(0, 1000, SYN | ACK);
            bench.answers(0, 1000, ACK);
            assert_eq!(bench.rig.state(), State::Established);
        } else {
            assert_eq!(bench.rig.state(), State::SynAck);
            bench.segment(1000, ACK);
            assert_eq!(bench.rig.state(), State::Established);
        }
    }
}

/// Linux keeps what a connection was bound to (`ip_vs_conn.c` `ip_vs_bind_xmit()`): an edit is for
/// new ones.
#[test]
fn another_method_for_a_destination_changes_new_connections_only() {
    for case in CASES.iter().filter(|case| case.v6 == case.dest_v6) {
        for method in [Masquerade, Direct, Tunnel] {
            let mut bench = case.bench(1500);
            bench.rig.set_weight(bench.services[0], DestId(0), 0);
            bench.enters(1000, State::Established);
            bench.rig.set_method(bench.services[0], DestId(1), method);
            let out = bench.sends(&[tcp(case.client(1001), case.vip(), SYN, b"")]);
            let protocol = read_packet(&out[0].1[L3..]).protocol;
            assert_eq!(protocol != TCP, method == Tunnel);
            assert_eq!(bench.segment(1000, ACK).0, 0, "{case:?} after {method:?}");
        }
    }
}

/// To the destination both connections look alike: its replies are taken for the newest one's, as
/// in Linux (`ip_vs_conn.c` `ip_vs_conn_hash()` puts it first).
#[test]
fn of_two_connections_that_a_destination_cannot_tell_apart_the_newest_gets_the_replies() {
    for v6 in [false, true] {
        let case = Case { method: Masquerade, v6, dest_v6: v6 };
        let mut bench = case.bench(1500);
        bench.rig.set_weight(bench.services[0], DestId(0), 0);
        let other = SocketAddr::new(case.vip().ip(), 443);
        let dest = case.dest(0).to_string();
        bench.rig.add_service(
            (TCP, &other.to_string()),
            SchedulerKind::Rr,
            &[(&dest, Masquerade, 1)],
        );
        bench.enters(1000, State::TimeWait);
        bench.through(tcp(case.client(1000), other, SYN, b""));
        assert_eq!(bench.answers(0, 1000, SYN | ACK).source, other);
        assert_eq!((bench.load(1).total(), bench.load(4).total()), (1, 1));
        bench.through(tcp(case.client(1000), case.vip(), SYN, b""));
        assert_eq!(bench.answers(0, 1000, SYN | ACK).source, case.vip());
    }
}

#[test]
fn impossible_clients_open_nothing() {
    for case in CASES {
        let mut bench = case.bench(1500);
        let sources = if case.v6 {
            ["::1", "::", "ff02::1", "2001:db8:c::1", "2001:db8:c::80"]
        } else {
            ["127.0.0.1", "0.0.0.0", "224.0.0.1", "192.0.2.255", "198.51.100.80"]
        };
        for source in sources {
            let client = SocketAddr::new(source.parse().unwrap(), 1000);
            let packets = [tcp(client, case.vip(), SYN, b""), udp(client, case.vip(), b"")];
            assert_eq!(bench.sends(&packets), [], "{source}");
            let beside = SocketAddr::new(case.vip().ip(), 81);
            let packets = [tcp(client, beside, SYN, b""), udp(client, beside, b"")];
            assert_eq!(bench.sends(&packets), [], "{source} to a closed port");
        }
        assert_eq!(bench.rig.conns(), 0);
        assert_eq!(bench.dropped("martian"), 20, "{:?}", bench.rig.drops());
    }
}

#[test]
fn a_packets_own_port_is_kept_where_the_destination_has_none() {
    for case in CASES {
        let mut bench = case.bench(1500);
        let any = SocketAddr::new(case.vip().ip(), 5353);
        let dest = SocketAddr::new(case.dest(0).ip(), 0).to_string();
        bench.rig.add_service(
            (UDP, &any.to_string()),
            SchedulerKind::Rr,
            &[(&dest, case.method, 1)],
        );
        let out = bench.sends(&[udp(bench.client(), any, b"q")]);
        let inner = case.unwrapped(0, trimmed(&out[0].1[L3..]));
        assert_eq!(read_packet(&inner).destination.port(), 5353);
    }
}

/// A packet of another protocol to a VIP is no service's.
#[test]
fn changes_of_a_header_that_is_not_there_are_not_made() {
    for case in CASES {
        let mut bench = case.bench(1500);
        let packet = changed(udp(bench.client(), case.vip(), b"what?"), |packet| {
            let at = if packet[0] >> 4 == 4 { 9 } else { 6 };
            packet[at] = 253;
        });
        assert_eq!(bench.sends(&[packet]), []);
        assert_eq!(bench.dropped("local-ignored"), 1);
    }
}
