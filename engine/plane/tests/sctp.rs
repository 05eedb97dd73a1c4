//! SCTP through every forwarding method, in both families: checksums right, states moved, errors
//! translated.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::{IpAddr, SocketAddr};
use rig::frames::{
    ABORT, COOKIE_ACK, COOKIE_ECHO, DATA, INIT, INIT_ACK, L3, SCTP, crc32c, ethernet, icmp, read,
    sctp, trimmed,
};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, dest_mac, interface, network_with};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{SchedulerKind, State};

/// A packet of one chunk with `octets` of value.
fn packet(from: SocketAddr, to: SocketAddr, chunk: u8, octets: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..octets).map(|at| u8::try_from(at % 251).unwrap()).collect();
    sctp(from, to, chunk, &value)
}

/// Source and destination of a packet whose checksum is right.
fn seen(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let (at, l4) = if packet[0] >> 4 == 4 { (12, 20) } else { (8, 40) };
    let octets = (l4 - at) / 2;
    let address = |at: usize| match <[u8; 4]>::try_from(&packet[at..at + octets]) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + octets]).unwrap()),
    };
    let sctp = &trimmed(packet)[l4..];
    let blank = [&sctp[..8], &[0; 4], &sctp[12..]].concat();
    assert_eq!(sctp[8..12], crc32c(&blank), "CRC-32C");
    let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
    (SocketAddr::new(address(at), port(0)), SocketAddr::new(address(at + octets), port(2)))
}

struct Bench {
    rig: Rig,
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
    let mut rig = Rig::new(network, &Plan { workers, ..PLAN });
    let named = dest.to_string();
    rig.add_service((SCTP, &vip.to_string()), SchedulerKind::Rr, &[(&named, method, 1)]);
    Bench { rig, client, vip, dest }
}

impl Bench {
    /// The packet that comes of one from the client.
    fn asks(&mut self, chunk: u8, octets: usize) -> Vec<u8> {
        let packet = packet(self.client, self.vip, chunk, octets);
        let out = self.rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)]);
        assert_eq!((out.len(), out[0].0), (1, 1), "{out:?}");
        out[0].1[L3..].to_vec()
    }

    fn answers(&mut self, chunk: u8) -> Vec<u8> {
        let packet = packet(self.dest, self.client, chunk, 16);
        let out = self.rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &packet)]);
        assert_eq!((out.len(), out[0].0), (1, 0), "{out:?}");
        out[0].1[L3..].to_vec()
    }

    fn state(&mut self) -> State {
        let workers = self.rig.workers.len();
        let mut rows: Vec<_> = (0..workers)
            .flat_map(|it| [self.rig.dump(it, false), self.rig.dump(it, true)].concat())
            .collect();
        assert_eq!(rows.len(), 1);
        rows.remove(0).state
    }
}

#[test]
fn every_method_delivers_an_association_with_right_checksums() {
    for (method, v6, workers) in [
        (Masquerade, false, 1),
        (Masquerade, true, 3),
        (Direct, false, 3),
        (Direct, true, 1),
        (Tunnel, false, 1),
        (Tunnel, true, 3),
    ] {
        let mut bench = bench(method, v6, workers);
        for (chunk, octets) in [(INIT, 16), (COOKIE_ECHO, 97), (DATA, 0), (DATA, 1), (DATA, 1300)] {
            let arrived = bench.asks(chunk, octets);
            let outer = if v6 { 40 } else { 20 };
            let arrived = if method == Tunnel { &arrived[outer..] } else { &arrived };
            let to = if method == Masquerade { bench.dest } else { bench.vip };
            assert_eq!(seen(arrived), (bench.client, to), "{method:?}");
            if chunk == INIT && method == Masquerade {
                assert_eq!(seen(&bench.answers(INIT_ACK)), (bench.vip, bench.client));
            }
        }
        if method == Masquerade {
            assert_eq!(bench.state(), State::SctpCookieReplied);
            assert_eq!(seen(&bench.answers(COOKIE_ACK)), (bench.vip, bench.client));
        }
        assert_eq!(bench.state(), State::SctpEstablished);
        bench.rig.finish();
    }
}

#[test]
fn only_an_init_begins_and_an_init_begins_anew_what_is_closed() {
    let mut bench = bench(Masquerade, false, 1);
    let stranger = packet(bench.client, bench.vip, DATA, 16);
    let out = bench.rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &stranger)]);
    assert_eq!((out[0].0, seen(&out[0].1[L3..])), (0, (bench.vip, bench.client)));
    assert_eq!(out[0].1[L3 + 32], ABORT, "RFC 9260 section 8.4");
    assert_eq!(bench.rig.conns(), 0);
    bench.rig.snapshot.tunables.sloppy_sctp = true;
    bench.rig.publish();
    bench.asks(DATA, 16);
    assert_eq!(bench.state(), State::SctpEstablished);
    bench.asks(ABORT, 0);
    assert_eq!(bench.state(), State::SctpClosed);
    bench.asks(INIT, 16);
    assert_eq!(bench.state(), State::SctpInit1, "another connection");
    bench.answers(INIT_ACK);
    bench.rig.pass(8 * 61);
    assert_eq!(bench.rig.conns(), 0);
}

#[test]
fn a_checksum_is_touched_only_where_a_port_changes() {
    for (method, is_right) in [(Masquerade, true), (Direct, false)] {
        let mut bench = bench(method, false, 1);
        let mut packet = packet(bench.client, bench.vip, INIT, 16);
        *packet.last_mut().unwrap() ^= 1;
        let out = bench.rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)]);
        let arrived = out[0].1[L3..].to_vec();
        let read = std::panic::catch_unwind(|| seen(&arrived));
        assert_eq!(read.is_ok(), is_right, "as Linux does: {method:?}");
    }
}

#[test]
fn errors_about_an_association_are_translated() {
    for v6 in [false, true] {
        let mut bench = bench(Masquerade, v6, 1);
        let failed = bench.asks(INIT, 16);
        let head: &[u8] = if v6 { &[1, 4, 0, 0, 0, 0, 0, 0] } else { &[3, 3, 0, 0, 0, 0, 0, 0] };
        let error = icmp(bench.dest.ip(), bench.client.ip(), 64, &[head, &failed].concat());
        let out = bench.rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &error)]);
        assert_eq!(out[0].0, 0);
        let told = read(&out[0].1);
        assert_eq!(told.source.ip(), bench.vip.ip());
        let l4 = 8 + if v6 { 40 } else { 20 };
        assert_eq!(told.data[l4 + 2..l4 + 4], [0, 80], "the service's port");
    }
}
