//! AH and ESP go where the key exchange between the same two hosts went.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::SocketAddr;
use rig::frames::{
    L3, UDP, ethernet, fragments, icmp, ip, may_fragment, read, read_packet, trimmed, udp,
};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, Rss, dest_mac, interface, network_with};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::SchedulerKind;

const ESP: u8 = 50;
const AH: u8 = 51;
const ANYHOW: Rss = |frame| frame.iter().map(|octet| u32::from(*octet)).sum();

struct Bench {
    rig: Rig,
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
}

/// A director with a key exchange.
fn bench(method: ForwardMethod, v6: bool, workers: u16) -> Bench {
    let [client, vip, dest] = if v6 {
        ["[2001:db8:99::7]:500", "[2001:db8:c::80]:500", "[2001:db8:d::11]:500"]
    } else {
        ["203.0.113.7:500", "198.51.100.80:500", "192.0.2.11:500"]
    }
    .map(|text| text.parse::<SocketAddr>().unwrap());
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let mut rig = Rig::new(network, &Plan { workers, rss: [ANYHOW, ANYHOW], ..PLAN });
    let named = dest.to_string();
    rig.add_service((UDP, &vip.to_string()), SchedulerKind::Rr, &[(&named, method, 1)]);
    let mut bench = Bench { rig, client, vip, dest };
    assert_eq!(bench.asks(&udp(client, vip, b"IKE")).len(), 1);
    bench
}

impl Bench {
    fn asks(&mut self, packet: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, packet)])
    }
}

#[test]
fn each_method_takes_it_there_and_back() {
    for (method, v6, workers) in [
        (Masquerade, false, 1),
        (Masquerade, true, 4),
        (Direct, false, 4),
        (Direct, true, 1),
        (Tunnel, false, 1),
        (Tunnel, true, 3),
    ] {
        let mut bench = bench(method, v6, workers);
        // In IPv6 the authentication header is an extension header, and the packet what follows it.
        for protocol in if v6 { &[ESP][..] } else { &[ESP, AH] } {
            let secret: Vec<u8> = (0..200).collect();
            let packet = ip(bench.client.ip(), bench.vip.ip(), *protocol, 64, &secret);
            let out = bench.asks(&packet);
            assert_eq!((out.len(), out[0].0), (1, 1), "{method:?} {v6}");
            assert_eq!(out[0].1[..6], dest_mac(0).0);
            let arrived = read(&out[0].1);
            let arrived = if method == Tunnel { read_packet(&arrived.data) } else { arrived };
            let to = if method == Masquerade { bench.dest } else { bench.vip };
            assert_eq!((arrived.destination.ip(), arrived.hops), (to.ip(), 63));
            assert_eq!((arrived.protocol, arrived.data), (*protocol, secret.clone()));
            if method == Masquerade {
                let answer = ip(bench.dest.ip(), bench.client.ip(), *protocol, 64, &secret);
                let out = bench.rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &answer)]);
                let seen = read(&out[0].1);
                assert_eq!((out[0].0, seen.source.ip()), (0, bench.vip.ip()));
                assert_eq!(seen.data, secret);
            }
        }
        bench.rig.finish();
    }
}

#[test]
fn fragments_of_it_need_no_ports() {
    let mut bench = bench(Masquerade, false, 3);
    let packet = may_fragment(ip(bench.client.ip(), bench.vip.ip(), ESP, 64, &[7; 1000]));
    for piece in fragments(&packet, 400).iter().rev() {
        let out = bench.asks(piece);
        assert_eq!(out.len(), 1, "{:?}", bench.rig.drops());
        let arrived = trimmed(&out[0].1[L3..]);
        assert_eq!(arrived[16..20], [192, 0, 2, 11]);
        assert_eq!(arrived[20..], piece[20..]);
    }
}

#[test]
fn it_keeps_its_connection_alive_and_opens_none() {
    let mut bench = bench(Masquerade, false, 1);
    let packet = ip(bench.client.ip(), bench.vip.ip(), ESP, 64, b"secret");
    for _ in 0..3 {
        bench.rig.pass(8 * 299);
        assert_eq!(bench.asks(&packet).len(), 1);
    }
    bench.rig.pass(8 * 300);
    assert_eq!(bench.rig.conns(), 0);
    assert_eq!(bench.asks(&packet), []);
    assert_eq!(bench.rig.conns(), 0);
    assert_eq!(bench.rig.drops()["local-ignored"], 1);
    let ([conns, packets, _], _) = bench.rig.shared[0].lines[0].totals();
    assert_eq!((conns, packets), (1, 4));
}

#[test]
fn an_error_about_it_is_translated_like_any_other() {
    for (v6, workers) in [(false, 1), (true, 3)] {
        let mut bench = bench(Masquerade, v6, workers);
        let (client, vip, dest) = (bench.client.ip(), bench.vip.ip(), bench.dest.ip());
        let head: &[u8] =
            if v6 { &[2, 0, 0, 0, 0, 0, 5, 120] } else { &[3, 4, 0, 0, 0, 0, 5, 120] };
        // A router on the client's side about what the server sent, and the other way round.
        for (link, from, failed, to, about) in [
            (0, client, ip(vip, client, ESP, 60, b"secrets."), vip, [dest, client]),
            (1, dest, ip(client, dest, ESP, 60, b"secrets."), client, [client, vip]),
        ] {
            let error = icmp(from, to, 64, &[head, &failed].concat());
            let mac = [CLIENT_MAC, dest_mac(0)][link];
            let out = bench.rig.send(link, &[ethernet(OUR_MACS[link], mac, &error)]);
            assert_eq!((out.len(), out[0].0), (1, 1 - link), "{:?}", bench.rig.drops());
            let seen = read(&out[0].1);
            let ends = [seen.source.ip(), seen.destination.ip()];
            assert_eq!(ends, [[client, dest], [vip, client]][link]);
            let quoted = read_packet(&seen.data[8..]);
            assert_eq!([quoted.source.ip(), quoted.destination.ip()], about);
            assert_eq!((quoted.protocol, &quoted.data[..]), (ESP, &b"secrets."[..]));
        }
    }
}
