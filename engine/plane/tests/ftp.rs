//! FTP through masquerading: what control connections say of data connections, on any worker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

#[path = "sim/random.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod random;
mod rig;
#[path = "sim/rss.rs"]
#[allow(dead_code, reason = "the tests of ownership use all of it")]
mod rss;

use core::net::SocketAddr;
use random::Random;
use rig::frames::{ACK, FIN, L3, SYN, Seen, Segment, ethernet, fragments, read};
use rig::{CLIENT_MAC, LIMITS, OUR_MACS, PLAN, Plan, Rig, dest_mac, interface, network_with};
use rss::Spread;
use rvs_model::ForwardMethod::{self, Direct, Masquerade};
use rvs_model::{SchedulerKind, State, Tick, ticks};
use rvs_plane::Limits;

const TCP: u8 = 6;
const CLIENTS: usize = 0;
const SERVERS: usize = 1;

/// A client's control connection and what its ends have said.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
    /// Next sequence numbers, as each sender counts.
    client_next: u32,
    server_next: u32,
    /// What the client expects next of the server.
    expected: u32,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ends(v6: bool) -> Ends {
    let [client, vip, dest] = if v6 {
        ["[2001:db8:99::7]:40000", "[2001:db8:c::80]:21", "[2001:db8:d::11]:2121"]
    } else {
        ["203.0.113.7:40000", "198.51.100.80:21", "192.0.2.11:2121"]
    }
    .map(at);
    Ends { client, vip, dest, client_next: 1000, server_next: 5000, expected: 5000 }
}

struct Bench {
    rig: Rig,
    ends: Ends,
}

fn bench_of(method: ForwardMethod, v6: bool, plan: &Plan) -> Bench {
    let ends = ends(v6);
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let mut rig = Rig::new(network, plan);
    let dest = if method == Masquerade { ends.dest } else { SocketAddr::new(ends.dest.ip(), 21) };
    let service = (TCP, &*ends.vip.to_string());
    rig.add_service(service, SchedulerKind::Rr, &[(&dest.to_string(), method, 1)]);
    Bench { rig, ends }
}

/// The same with the control connection established.
fn bench(v6: bool, plan: &Plan) -> Bench {
    let mut bench = bench_of(Masquerade, v6, plan);
    bench.connect();
    bench
}

impl Bench {
    /// What leaves on the other side when this comes in on one.
    fn pass(&mut self, side: usize, packet: &[u8]) -> Option<Seen> {
        let mac = if side == CLIENTS { CLIENT_MAC } else { dest_mac(0) };
        let out = self.rig.send(side, &[ethernet(OUR_MACS[side], mac, packet)]);
        assert!(out.len() <= 1, "{out:?}");
        out.first().map(|(link, frame)| {
            assert_eq!(*link, 1 - side, "to the other side");
            read(frame)
        })
    }

    fn connect(&mut self) {
        let Ends { client, vip, dest, .. } = self.ends;
        let segment = Segment {
            from: client,
            to: vip,
            sequence: self.ends.client_next - 1,
            acknowledgment: 0,
            flags: SYN,
            data: b"",
        };
        assert_eq!(self.pass(CLIENTS, &segment.packet()).unwrap().destination, dest);
        let segment = Segment {
            from: dest,
            to: client,
            sequence: self.ends.server_next - 1,
            acknowledgment: self.ends.client_next,
            flags: SYN | ACK,
            data: b"",
        };
        assert_eq!(self.pass(SERVERS, &segment.packet()).unwrap().source, vip);
        self.client_says("");
    }

    /// What the server hears.
    fn client_says(&mut self, text: &str) -> Seen {
        let packet = self.client_packet(text);
        let seen = self.pass(CLIENTS, &packet).unwrap();
        assert_eq!((seen.source, seen.destination), (self.ends.client, self.ends.dest));
        assert_eq!(seen.data, text.as_bytes(), "a client's words are left alone");
        assert_eq!(seen.acknowledgment, self.ends.server_next, "as the server counts");
        self.ends.client_next += u32::try_from(text.len()).unwrap();
        seen
    }

    fn client_packet(&self, text: &str) -> Vec<u8> {
        let Ends { client, vip, client_next, expected, .. } = self.ends;
        Segment {
            from: client,
            to: vip,
            sequence: client_next,
            acknowledgment: expected,
            flags: ACK,
            data: text.as_bytes(),
        }
        .packet()
    }

    fn server_packet(&self, text: &str) -> Vec<u8> {
        let Ends { client, dest, client_next, server_next, .. } = self.ends;
        Segment {
            from: dest,
            to: client,
            sequence: server_next,
            acknowledgment: client_next,
            flags: ACK,
            data: text.as_bytes(),
        }
        .packet()
    }

    /// What the client hears.
    fn server_says(&mut self, text: &str) -> String {
        let packet = self.server_packet(text);
        let seen = self.pass(SERVERS, &packet).unwrap();
        assert_eq!((seen.source, seen.destination), (self.ends.vip, self.ends.client));
        assert_eq!(seen.sequence, self.ends.expected, "as the client counts");
        self.ends.server_next += u32::try_from(text.len()).unwrap();
        self.ends.expected += u32::try_from(seen.data.len()).unwrap();
        String::from_utf8(seen.data).unwrap()
    }

    /// A data connection from `from` to `to` that arrives `there` and seems to come from `seen`.
    fn data_connection(
        &mut self,
        side: usize,
        (from, to): (SocketAddr, SocketAddr),
        (seen, there): (SocketAddr, SocketAddr),
    ) {
        let segment = |from, to, flags, data| {
            Segment { from, to, sequence: 7, acknowledgment: 8, flags, data }.packet()
        };
        let steps = [(true, SYN), (false, SYN | ACK), (true, ACK), (false, ACK), (true, ACK)];
        for (is_onward, flags) in steps {
            let out = if is_onward {
                self.pass(side, &segment(from, to, flags, b"227 (1,2,3,4,5,6)\r\n"))
            } else {
                self.pass(1 - side, &segment(there, seen, flags, b""))
            };
            let out = out.unwrap();
            let wanted = if is_onward { (seen, there) } else { (to, from) };
            assert_eq!((out.source, out.destination), wanted, "flags {flags:#x}");
        }
    }

    /// Connections listed, by all workers.
    fn rows(&mut self) -> Vec<(SocketAddr, SocketAddr, SocketAddr, State)> {
        let v6 = self.ends.vip.is_ipv6();
        let workers = 0..self.rig.workers.len();
        let rows: Vec<_> = workers.flat_map(|worker| self.rig.dump(worker, v6)).collect();
        let mut rows: Vec<_> =
            rows.iter().map(|row| (row.client, row.vip, row.dest, row.state)).collect();
        rows.sort_by_key(|(_, vip, ..)| vip.port());
        rows
    }

    /// Connections that the workers count for the destination: active, inactive.
    fn load(&self) -> (u32, u32) {
        self.rig.shared.iter().map(|shared| shared.lines[0].load()).fold((0, 0), |sum, more| {
            (sum.0.wrapping_add(more.active), sum.1.wrapping_add(more.inactive))
        })
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.rig.drops().get(reason).copied().unwrap_or_default()
    }
}

fn with_port(socket: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(socket.ip(), port)
}

#[test]
fn a_passive_reply_names_the_vip_and_all_that_follows_is_numbered_anew() {
    let mut bench = bench(false, &PLAN);
    let Ends { client, vip, dest, .. } = bench.ends;
    bench.server_says("220 ready\r\n");
    bench.client_says("PASV\r\n");
    let heard = bench.server_says("227 Entering Passive Mode (192,0,2,11,195,80).\r\n");
    assert_eq!(heard, "227 Entering Passive Mode (198,51,100,80,195,80).\r\n");
    let (vip_data, dest_data) = (with_port(vip, 50_000), with_port(dest, 50_000));
    let awaited = (with_port(client, 0), vip_data, dest_data, State::Listen);
    assert_eq!(bench.rows(), [(client, vip, dest, State::Established), awaited]);
    assert_eq!(bench.load(), (1, 1));
    // Another host's, and another port's, are nobody's.
    for (from, to) in
        [("203.0.113.8:40001", vip_data), ("203.0.113.7:40001", with_port(vip, 50_001))]
    {
        let stranger =
            Segment { from: at(from), to, sequence: 1, acknowledgment: 0, flags: SYN, data: b"" };
        let frame = ethernet(OUR_MACS[0], CLIENT_MAC, &stranger.packet());
        let out = bench.rig.send(CLIENTS, &[frame]);
        assert_eq!(read(&out[0].1).flags, 0x14, "the director resets it");
    }
    let from = with_port(client, 40_001);
    bench.data_connection(CLIENTS, (from, vip_data), (from, dest_data));
    assert_eq!(bench.rows()[1], (from, vip_data, dest_data, State::Established));
    assert_eq!(bench.load(), (2, 0));
    bench.client_says("RETR a\r\n");
    bench.server_says("150 here\r\n");
    // A second one: what was before it is still told from what is behind it.
    bench.client_says("TYPE I\r\nPASV\r\n");
    let heard = bench.server_says("227 =192,0,2,11,200,1\r\n");
    assert_eq!(heard, "227 =198,51,100,80,200,1\r\n");
    bench.server_says("226 done\r\n");
    bench.client_says("QUIT\r\n");
    bench.rig.finish();
}

#[test]
fn extended_passive_mode_works_in_both_families_and_keeps_the_servers_port() {
    for v6 in [false, true] {
        let mut bench = bench(v6, &PLAN);
        let Ends { client, vip, dest, .. } = bench.ends;
        bench.client_says(if v6 { "EPSV 2\r\n" } else { "EPSV\r\n" });
        let line = "229 Entering Extended Passive Mode (|||50000|)\r\n";
        assert_eq!(bench.server_says(line), line);
        let data = (with_port(client, 40_001), with_port(vip, 50_000));
        bench.data_connection(CLIENTS, data, (data.0, with_port(dest, 50_000)));
        // A server that says an address has it taken out.
        bench.client_says("epsv\r\n");
        let family = if v6 { 2 } else { 1 };
        let long = format!("229 ok (|{family}|{}|50001|)\r\n", dest.ip());
        assert_eq!(bench.server_says(&long), "229 ok (|||50001|)\r\n");
        bench.server_says("150 here\r\n");
        bench.client_says("QUIT\r\n");
        bench.rig.finish();
    }
}

#[test]
fn a_server_that_says_another_address_is_reached_there() {
    let mut bench = bench(false, &PLAN);
    bench.client_says("PASV\r\n");
    bench.server_says("227 (192,0,2,13,195,80)\r\n");
    let data = (at("203.0.113.7:40001"), at("198.51.100.80:50000"));
    bench.data_connection(CLIENTS, data, (data.0, at("192.0.2.13:50000")));
}

#[test]
fn a_servers_connection_comes_from_the_vips_port_before_its_own() {
    for v6 in [false, true] {
        let mut bench = bench(v6, &PLAN);
        let Ends { client, vip, dest, .. } = bench.ends;
        let command = if v6 {
            "EPRT |2|2001:db8:99::7|40001|\r\n".to_owned()
        } else {
            "PORT 203,0,113,7,156,65\r\n".to_owned()
        };
        bench.client_says(&command);
        let (from, to) = (with_port(dest, 2120), with_port(client, 40_001));
        assert_eq!(bench.rows()[0], (to, with_port(vip, 20), from, State::Listen));
        bench.data_connection(SERVERS, (from, to), (with_port(vip, 20), to));
        assert_eq!(bench.rows()[0].3, State::Established);
        assert_eq!(bench.load(), (2, 0));
        // The same port again, while the old connection is still there.
        bench.client_says(&command);
        assert_eq!(bench.rows()[0].3, State::Listen);
        assert_eq!(bench.load(), (1, 1));
        bench.data_connection(SERVERS, (from, to), (with_port(vip, 20), to));
        bench.rig.finish();
    }
}

/// Wherever cards bring a data connection's packets, they find it, and it is listed and counted once.
#[test]
fn data_connections_find_their_way_on_any_number_of_workers() {
    for spread in Spread::ALL {
        for workers in [2, 3, 8] {
            for v6 in [false, true] {
                let plan = Plan { workers, rss: spread.hashes(), ..PLAN };
                let mut bench = bench(v6, &plan);
                let Ends { client, vip, dest, .. } = bench.ends;
                for number in 0..12 {
                    bench.client_says("EPSV\r\n");
                    let port = 50_000 + number;
                    bench.server_says(&format!("229 (|||{port}|)\r\n"));
                    let data = (with_port(client, 41_000 + number), with_port(vip, port));
                    bench.data_connection(CLIENTS, data, (data.0, with_port(dest, port)));
                    let to = with_port(client, 42_000 + number);
                    let family = if v6 { 2 } else { 1 };
                    bench.client_says(&format!("EPRT |{family}|{}|{}|\r\n", to.ip(), to.port()));
                    let from = with_port(dest, 2120);
                    bench.data_connection(SERVERS, (from, to), (with_port(vip, 20), to));
                }
                let rows = bench.rows();
                assert_eq!(rows.len(), 25, "{rows:?}");
                assert!(rows.iter().all(|(.., state)| *state == State::Established));
                assert_eq!(bench.load(), (25, 0), "{workers} workers");
                assert_eq!(bench.rig.conns(), 25, "nobody goes on waiting");
                bench.client_says("EPSV\r\n");
                bench.server_says("229 (|||60000|)\r\n");
                assert_eq!(bench.rig.conns(), 25 + usize::from(workers));
                assert_eq!((bench.rows().len(), bench.load()), (26, (25, 1)));
                bench.rig.pass(ticks(130));
                assert_eq!((bench.rows().len(), bench.load()), (25, (25, 0)));
                assert_eq!(bench.rig.conns(), 25);
                bench.rig.finish();
            }
        }
    }
}

#[test]
fn a_reply_that_is_sent_again_is_rewritten_again() {
    let mut bench = bench(false, &PLAN);
    bench.client_says("PASV\r\n");
    let before = bench.ends;
    let line = "227 Entering Passive Mode (192,0,2,11,195,80).\r\n";
    let heard = bench.server_says(line);
    bench.server_says("211 more\r\n");
    let after = bench.ends;
    bench.ends = Ends { client_next: after.client_next, ..before };
    assert_eq!(bench.server_says(line), heard);
    assert_eq!(bench.ends.expected, before.expected + u32::try_from(heard.len()).unwrap());
    bench.ends = after;
    bench.client_says("NOOP\r\n");
    bench.server_says("200 ok\r\n");
    assert_eq!(bench.rows().len(), 2, "announced once");
}

#[test]
fn nothing_is_read_before_the_connection_is_established_or_without_masquerading_or_off_port_21() {
    let mut bench = bench_of(Direct, false, &PLAN);
    let packet = Segment {
        from: bench.ends.client,
        to: bench.ends.vip,
        sequence: 1,
        acknowledgment: 0,
        flags: SYN,
        data: b"PORT 203,0,113,7,156,65\r\n",
    };
    bench.pass(CLIENTS, &packet.packet());
    bench.pass(CLIENTS, &bench.client_packet("PORT 203,0,113,7,156,65\r\n"));
    assert_eq!(bench.rows().len(), 1);
    let mut bench = bench_of(Masquerade, false, &PLAN);
    bench.pass(CLIENTS, &packet.packet());
    assert_eq!(bench.rows().len(), 1);
    let mut bench = bench_of(Masquerade, false, &PLAN);
    let other = with_port(bench.ends.vip, 2121);
    let dests = [("192.0.2.11:2121", Masquerade, 1)];
    bench.rig.add_service((TCP, &other.to_string()), SchedulerKind::Rr, &dests);
    bench.ends.vip = other;
    bench.connect();
    bench.client_says("PASV\r\n");
    let line = "227 (192,0,2,11,195,80)\r\n";
    assert_eq!(bench.server_says(line), line);
    assert_eq!(bench.rows().len(), 1);
}

#[test]
fn a_client_cannot_have_the_director_wait_for_its_own_addresses_or_nobodys() {
    let mut bench = bench(false, &PLAN);
    for address in ["198,51,100,80", "127,0,0,1", "224,0,0,1", "0,0,0,0", "255,255,255,255"] {
        bench.client_says(&format!("PORT {address},156,65\r\n"));
    }
    assert_eq!(bench.rows().len(), 1);
}

#[test]
fn a_client_that_names_anothers_port_does_not_end_that_ones_connection() {
    let mut bench = bench(false, &PLAN);
    let (other, vip, dest) = (at("203.0.113.9:41000"), at("198.51.100.80:20"), at("192.0.2.12:20"));
    let service = (TCP, &*vip.to_string());
    bench.rig.add_service(service, SchedulerKind::Rr, &[(&dest.to_string(), Masquerade, 1)]);
    let segment = |from, to, flags| {
        Segment { from, to, sequence: 7, acknowledgment: 8, flags, data: b"" }.packet()
    };
    for (side, from, to, flags) in
        [(CLIENTS, other, vip, SYN), (SERVERS, dest, other, SYN | ACK), (CLIENTS, other, vip, ACK)]
    {
        assert!(bench.pass(side, &segment(from, to, flags)).is_some());
    }
    let before = bench.rows();
    assert_eq!(before[0], (other, vip, dest, State::Established));
    bench.client_says("PORT 203,0,113,9,160,40\r\n");
    assert_eq!(bench.rows(), before);
    let seen = bench.pass(CLIENTS, &segment(other, vip, ACK)).unwrap();
    assert_eq!(seen.destination, dest);
    // Once that connection is over, its ends may be another's, though it is still there.
    for (side, from, to) in [(CLIENTS, other, vip), (SERVERS, dest, other)] {
        bench.pass(side, &segment(from, to, FIN | ACK)).unwrap();
    }
    assert_eq!(bench.rows()[0], (other, vip, dest, State::TimeWait));
    bench.client_says("PORT 203,0,113,9,160,40\r\n");
    let from = with_port(bench.ends.dest, 2120);
    assert_eq!(bench.rows()[0], (other, vip, from, State::Listen));
    bench.data_connection(SERVERS, (from, other), (vip, other));
    bench.rig.finish();
}

/// The link to clients takes less than that to servers.
#[test]
fn a_reply_that_rewriting_makes_short_enough_is_not_cut() {
    let ends = ends(false);
    let mut rig =
        Rig::new(network_with(vec![interface(0, 0, 576), interface(1, 0, 1500)], 8), &PLAN);
    let service = (TCP, &*ends.vip.to_string());
    rig.add_service(service, SchedulerKind::Rr, &[(&ends.dest.to_string(), Masquerade, 1)]);
    let mut bench = Bench { rig, ends };
    bench.connect();
    bench.client_says("EPSV\r\n");
    for (octets, pieces) in [(577, 1), (587, 1), (588, 2)] {
        let begin = "229 (|1|192.0.2.11|50000|)";
        let rest = "x".repeat(octets - 40 - begin.len());
        let mut packet = bench.server_packet(&format!("{begin}{rest}"));
        assert_eq!(packet.len(), octets);
        packet[6] = 0;
        rig::frames::sum_up_v4(&mut packet);
        let frame = ethernet(OUR_MACS[1], dest_mac(0), &packet);
        let out = bench.rig.send(SERVERS, &[frame]);
        assert_eq!(out.len(), pieces, "{octets} octets");
        let out: Vec<_> = out.iter().map(|(_, frame)| frame[L3..].to_vec()).collect();
        assert!(out.iter().all(|piece| piece.len() <= 576));
        let whole = if pieces == 1 { out[0].clone() } else { rig::frames::reassembled(&out) };
        assert_eq!(whole.len(), octets - 11);
        assert_eq!(whole[6..8], [0, 0], "a whole packet");
        let seen = rig::frames::read_packet(&whole);
        assert_eq!(seen.data, format!("229 (|||50000|){rest}").into_bytes());
    }
    bench.rig.finish();
}

#[test]
fn a_segment_whose_checksum_is_wrong_is_dropped_by_name() {
    let mut bench = bench(false, &PLAN);
    let mut packet = bench.client_packet("PASV\r\n");
    packet[36] ^= 1;
    assert!(bench.pass(CLIENTS, &packet).is_none());
    assert_eq!(bench.dropped("ftp-checksum"), 1);
}

#[test]
fn fragments_of_a_control_connection_are_forwarded_unread_and_numbered_anew() {
    let mut bench = bench(false, &PLAN);
    bench.client_says("PASV\r\n");
    bench.server_says("227 (192,0,2,11,195,80)\r\n");
    let text = format!("211 {}\r\n", "long ".repeat(20));
    let mut packet = bench.server_packet(&text);
    packet[6] = 0;
    rig::frames::sum_up_v4(&mut packet);
    let pieces = fragments(&packet, 64);
    let frames: Vec<_> =
        pieces.iter().map(|piece| ethernet(OUR_MACS[1], dest_mac(0), piece)).collect();
    let out = bench.rig.send(SERVERS, &frames);
    let pieces: Vec<_> = out.iter().map(|(_, frame)| frame[L3..].to_vec()).collect();
    let whole = rig::frames::reassembled(&pieces);
    let seen = rig::frames::read_packet(&whole);
    assert_eq!((seen.sequence, seen.data), (bench.ends.expected, text.into_bytes()));
    bench.rig.finish();
}

/// A table for 64 connections remembers eight talks.
#[test]
fn a_passive_client_too_many_waits_until_another_has_gone() {
    let limits = Limits { conns4: 64, conns6: 64, ..LIMITS };
    let mut bench = bench_of(Masquerade, false, &Plan { limits, ..PLAN });
    let others: Vec<Ends> = (0..8)
        .map(|number| {
            bench.ends =
                Ends { client: with_port(at("203.0.113.7:0"), 40_001 + number), ..ends(false) };
            bench.connect();
            bench.client_says("PASV\r\n");
            bench.ends
        })
        .collect();
    bench.ends = ends(false);
    bench.connect();
    let packet = bench.client_packet("PASV\r\n");
    assert!(bench.pass(CLIENTS, &packet).is_none());
    assert_eq!(bench.dropped("ftp-full"), 1);
    // It closes, and comes again by the same port.
    let gone = Segment {
        from: others[3].client,
        to: others[3].vip,
        sequence: 2,
        acknowledgment: 3,
        flags: 4 | ACK,
        data: b"",
    };
    bench.pass(CLIENTS, &gone.packet());
    let mut own = bench.ends;
    bench.ends = Ends { client: others[3].client, ..ends(false) };
    bench.connect();
    core::mem::swap(&mut own, &mut bench.ends);
    bench.client_says("PASV\r\n");
    bench.server_says("227 (192,0,2,11,195,80)\r\n");
    bench.rig.finish();
}

#[test]
fn a_control_connection_outlives_its_time_while_a_data_connection_lives() {
    for workers in [1, 4] {
        let mut bench = bench(false, &Plan { workers, ..PLAN });
        bench.client_says("EPSV\r\n");
        bench.server_says("229 (|||50000|)\r\n");
        let Ends { client, vip, dest, .. } = bench.ends;
        let data = (with_port(client, 40_001), with_port(vip, 50_000));
        bench.data_connection(CLIENTS, data, (data.0, with_port(dest, 50_000)));
        let alive = |bench: &mut Bench, seconds: Tick| {
            for _ in 0..seconds / 20 {
                let segment = Segment {
                    from: data.0,
                    to: data.1,
                    sequence: 1,
                    acknowledgment: 2,
                    flags: ACK,
                    data: b"",
                };
                bench.pass(CLIENTS, &segment.packet()).unwrap();
                bench.rig.pass(ticks(20));
            }
        };
        alive(&mut bench, 1200);
        assert_eq!(bench.rows().len(), 2, "{workers} workers");
        bench.server_says("226 done\r\n");
        bench.rig.pass(ticks(1100));
        assert_eq!(bench.rows().len(), 0, "neither outlives the other for ever");
        bench.rig.finish();
    }
}

/// Whatever both ends say, cut anywhere, with numbers that mean nothing: no panic, no frame lost
/// without a name, and what leaves adds up ([`read`]).
#[test]
fn hostile_text_is_forwarded_and_nothing_else() {
    const WORDS: [&str; 18] = [
        "PASV\r\n",
        "EPSV\r\n",
        "EPSV 1\r\n",
        "EPSV ALL\r\n",
        "PORT ",
        "EPRT ",
        "227 ",
        "229 ",
        "(",
        "|||",
        "203,0,113,7,156,65",
        "192,0,2,11,195,80",
        "|1|203.0.113.7|40001|",
        "99999",
        ",",
        "\r\n",
        "\0",
        "(|||50000|)",
    ];
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let v6 = seed % 2 == 1;
        let workers = [1, 3][usize::try_from(seed / 2 % 2).unwrap()];
        let mut bench = bench(v6, &Plan { workers, ..PLAN });
        for _ in 0..300 {
            let count = usize::try_from(random.next() % 7).unwrap();
            let mut text: String = (0..count)
                .map(|_| WORDS[usize::try_from(random.next()).unwrap_or(0) % WORDS.len()])
                .collect();
            let cut = usize::try_from(random.next() % 200).unwrap();
            text.truncate(cut);
            if random.next().is_multiple_of(4) {
                text = "227 (192,0,2,11,195,80)\r\n".to_owned();
            }
            let [a, b, c, d, ..] = random.next().to_le_bytes();
            let jump = u32::from_le_bytes([a, b, c, d]);
            if random.next().is_multiple_of(8) {
                bench.ends.server_next = jump;
            }
            if random.next().is_multiple_of(8) {
                bench.ends.client_next = jump;
            }
            let (side, packet) = if random.next().is_multiple_of(2) {
                (CLIENTS, bench.client_packet(&text))
            } else {
                (SERVERS, bench.server_packet(&text))
            };
            let seen = bench.pass(side, &packet).unwrap();
            assert!(seen.data.len() <= text.len() + 12);
        }
        bench.rig.finish();
    }
}
