//! A worker takes no memory and frees none while it breathes, whatever comes: what it needs it took
//! when it was made.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "other floods use all of it")]
mod flood;
#[path = "sim/random.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod random;
mod rig;

use allocation_counter::measure;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rig::frames::{
    ACK, ARP_REPLY, ARP_REQUEST, FIN, SYN, TCP, UDP, arp, echo_request, ethernet, fragments, icmp,
    may_fragment, solicitation, tagged, tcp, udp, with_hops,
};
use rig::{
    CLIENT_MAC, LIMITS, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network_with,
};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{SchedulerKind, ServiceId, State};
use rvs_plane::Limits;
use rvs_plane::marks::{Marks, Rule};
use rvs_plane::persist::Mask;
use rvs_wire::mac::MacAddr;
use std::sync::Arc;

/// How often the allocator is called meanwhile, by this thread: what is taken, and what is freed.
fn calls(run: impl FnOnce()) -> u64 {
    let info = measure(run);
    let taken = i64::try_from(info.count_total).unwrap();
    u64::try_from(2 * taken - info.count_current).unwrap()
}

/// Lets all workers breathe until nothing moves; says how often the allocator was called.
fn breathe(rig: &mut Rig) -> u64 {
    let mut count = 0;
    loop {
        let now = rig.now;
        let mut moved = 0;
        for worker in &mut rig.workers {
            count += calls(|| moved += worker.breathe(now));
        }
        if moved == 0 {
            return count;
        }
        rig.discard();
    }
}

/// Gives frames to a link, a burst at a time; says how often the allocator was called.
fn send(rig: &mut Rig, link: usize, frames: impl Iterator<Item = Vec<u8>>) -> u64 {
    let mut calls = 0;
    for (count, frame) in frames.enumerate() {
        rig.far[link].inject(&frame).unwrap();
        if count % 100 == 99 {
            calls += breathe(rig);
        }
    }
    calls += breathe(rig);
    rig.assert_conservation();
    calls
}

fn client(v6: bool, port: u16) -> SocketAddr {
    let address = if v6 { "2001:db8:99::7" } else { "203.0.113.7" };
    SocketAddr::new(address.parse().unwrap(), port)
}

fn vip(v6: bool, port: u16) -> SocketAddr {
    let address = if v6 { "2001:db8:c::80" } else { "198.51.100.80" };
    SocketAddr::new(address.parse().unwrap(), port)
}

const METHODS: [(ForwardMethod, u16); 3] = [(Masquerade, 80), (Direct, 81), (Tunnel, 82)];

/// A director with a service of each method, family and protocol; a narrow second link.
fn director(workers: u16, limits: Limits) -> (Rig, Vec<ServiceId>) {
    let interfaces = vec![
        interface(0, 0, 1500),
        interface(1, 0, 1300),
        interface(0, 7, 1500),
        interface(1, 9, 1400),
    ];
    let rss: rig::Rss = |frame| u32::from(*frame.get(35).unwrap_or(&0));
    let plan = Plan { workers, limits, rss: [rss, rss], ..PLAN };
    let mut rig = Rig::new(network_with(interfaces, 4), &plan);
    let mut services = Vec::new();
    for v6 in [false, true] {
        for (method, port) in METHODS {
            for protocol in [TCP, UDP] {
                let dests: Vec<_> = (0..4)
                    .map(|number| SocketAddr::new(dest_ip(v6, number), port).to_string())
                    .collect();
                let dests: Vec<_> = dests.iter().map(|dest| (dest.as_str(), method, 1)).collect();
                services.push(rig.add_service(
                    (protocol, &vip(v6, port).to_string()),
                    SchedulerKind::Wlc,
                    &dests,
                ));
            }
        }
    }
    breathe(&mut rig);
    (rig, services)
}

fn inward(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[0], CLIENT_MAC, packet)
}

#[test]
fn the_allocator_is_counted() {
    let mut boxed = None;
    assert_eq!(calls(|| boxed = Some(Box::new(7))), 1);
    assert_eq!(calls(|| drop(boxed.take())), 1);
    assert_eq!(calls(|| ()), 0);
}

#[test]
fn connections_open_talk_close_and_expire_without_memory() {
    for workers in [1, 3] {
        let (mut rig, _) = director(workers, LIMITS);
        for v6 in [false, true] {
            for (_, port) in METHODS {
                for flags in [SYN, ACK, ACK, FIN | ACK] {
                    let segments = (1000..1400).map(|own| {
                        inward(&tcp(client(v6, own), vip(v6, port), flags, b"some data"))
                    });
                    assert_eq!(
                        send(&mut rig, 0, segments),
                        0,
                        "IPv6 {v6} port {port} flags {flags}"
                    );
                }
                let datagrams =
                    (1000..1400).map(|own| inward(&udp(client(v6, own), vip(v6, port), b"?")));
                assert_eq!(send(&mut rig, 0, datagrams), 0);
            }
            let answers = (1000..1400).flat_map(|own| {
                (0..4).map(move |number| {
                    let dest = SocketAddr::new(dest_ip(v6, number), 80);
                    ethernet(
                        OUR_MACS[1],
                        dest_mac(number),
                        &tcp(dest, client(v6, own), SYN | ACK, b""),
                    )
                })
            });
            assert_eq!(send(&mut rig, 1, answers), 0);
        }
        assert_eq!(rig.conns(), 2 * 3 * 2 * 400);
        let mut calls = 0;
        for _ in 0..1000 {
            rig.now += 8;
            calls += breathe(&mut rig);
            rig.discard();
        }
        assert_eq!((rig.conns(), calls), (0, 0));
        rig.finish();
    }
}

/// Templates are opened, used, made void, pushed out by a flood and timed out; marks are looked for.
#[test]
fn persistence_takes_no_memory() {
    let limits = Limits { conns4: 300, conns6: 300, ..LIMITS };
    for workers in [1, 3] {
        let (mut rig, services) = director(workers, limits);
        rig.snapshot.marks = Arc::new(Marks::new(&[Rule { protocol: Some(UDP), ..Rule::new(7) }]));
        for id in services {
            rig.persist(id, 80, Mask::ALL);
        }
        breathe(&mut rig);
        let mut calls = 0;
        for round in 0..3_u16 {
            for v6 in [false, true] {
                for flags in [SYN, ACK] {
                    let segments = (0..60).map(|number| {
                        let own = 1000 + round * 60 + number;
                        inward(&tcp(client(v6, own), vip(v6, 80), flags, b""))
                    });
                    calls += send(&mut rig, 0, segments);
                }
            }
            let (first, dest) = (ServiceId(0), rig.service(ServiceId(0)).dests[0]);
            rig.remove_dest(first, dest.id);
            calls += breathe(&mut rig);
        }
        for v6 in [false, true] {
            let spoofed = (0..3000_u32).map(|number| {
                let mut from = client(v6, 4000);
                match from.ip() {
                    IpAddr::V4(_) => from.set_ip((0xcb00_0000 + number).to_be_bytes().into()),
                    IpAddr::V6(_) => {
                        from.set_ip(
                            (0x2001_0db8_u128 << 96 | u128::from(number) << 8 | 1)
                                .to_be_bytes()
                                .into(),
                        );
                    }
                }
                inward(&tcp(from, vip(v6, 80), SYN, b""))
            });
            calls += send(&mut rig, 0, spoofed);
        }
        assert!(rig.counts().evicted > 1000);
        for _ in 0..1000 {
            rig.now += 8;
            calls += breathe(&mut rig);
            rig.discard();
        }
        assert_eq!((rig.conns(), calls), (0, 0));
        rig.finish();
    }
}

#[test]
fn a_flood_into_a_full_table_takes_no_memory() {
    let limits = Limits { conns4: 300, conns6: 300, ..LIMITS };
    let (mut rig, _) = director(1, limits);
    for v6 in [false, true] {
        let syns = (0..20_000).map(|own| inward(&tcp(client(v6, own), vip(v6, 80), SYN, b"")));
        assert_eq!(send(&mut rig, 0, syns), 0);
    }
    assert_eq!(rig.conns(), 600);
    assert!(rig.counts().evicted > 30_000);
}

#[test]
fn errors_resets_and_echo_take_no_memory() {
    let (mut rig, _) = director(2, LIMITS);
    for v6 in [false, true] {
        let (from, closed) = (client(v6, 1), vip(v6, 9));
        let own: IpAddr = if v6 { "2001:db8:c::1" } else { "198.51.100.1" }.parse().unwrap();
        let mut about = vec![if v6 { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0];
        about.extend(udp(vip(v6, 80), from, b"quoted"));
        let packets = [
            tcp(from, closed, SYN, b""),
            tcp(from, closed, ACK, b"x"),
            udp(from, closed, b"x"),
            with_hops(udp(from, vip(v6, 80), b"x"), 1),
            udp(from, vip(v6, 80), &[7; 1400]),
            udp(from, vip(v6, 82), &[7; 1280]),
            echo_request(from.ip(), own, &[7; 1400]),
            echo_request(from.ip(), dest_ip(v6, 0), &[7; 1400]),
            with_hops(echo_request(from.ip(), dest_ip(v6, 0), b""), 1),
            icmp(from.ip(), vip(v6, 80).ip(), 64, &about),
        ];
        for now in 0..20 {
            rig.now += now;
            let frames: Vec<_> = packets.iter().map(|packet| inward(packet)).collect();
            let tags: Vec<_> = frames.iter().map(|frame| tagged(frame, 7)).collect();
            let broken: Vec<_> =
                frames.iter().map(|frame| frame[..frame.len() / 2].to_vec()).collect();
            let all = frames.into_iter().chain(tags).chain(broken);
            assert_eq!(send(&mut rig, 0, all), 0, "IPv6 {v6}");
        }
    }
    rig.finish();
}

#[test]
fn pieces_take_no_memory() {
    let (mut rig, _) = director(1, LIMITS);
    for (_, port) in METHODS {
        let packet = may_fragment(udp(client(false, 1), vip(false, port), &[7; 1400]));
        let pieces = fragments(&packet, 200);
        let frames = core::iter::repeat_n(inward(&packet), 200);
        assert_eq!(send(&mut rig, 0, frames.chain(pieces.iter().map(|it| inward(it)))), 0);
    }
    let routed =
        may_fragment(udp(client(false, 1), SocketAddr::new(dest_ip(false, 0), 9), &[7; 1400]));
    assert_eq!(send(&mut rig, 0, core::iter::repeat_n(inward(&routed), 200)), 0);
    assert!(rig.counts().originated >= 800);
    rig.finish();
}

#[test]
fn fragments_find_their_connections_without_memory() {
    let (mut rig, _) = director(2, LIMITS);
    for (number, (_, port)) in METHODS.into_iter().enumerate() {
        let from = client(false, u16::try_from(number).unwrap());
        let pieces = fragments(&may_fragment(udp(from, vip(false, port), &[7; 1400])), 200);
        for _ in 0..20 {
            // In order, later ones first, and later ones alone.
            let backwards = pieces.iter().rev().chain(&pieces[1..]);
            assert_eq!(send(&mut rig, 0, pieces.iter().chain(backwards).map(|it| inward(it))), 0);
            rig.now += 4;
        }
    }
    rig.finish();
}

#[test]
fn neighbors_come_and_go_without_memory() {
    // As many as a hash table of 64 places holds: one that has no room to spare would grow.
    let limits = Limits { neighbors: 56, ..LIMITS };
    let (mut rig, _) = director(2, limits);
    for round in 0..30_u8 {
        // A scan of the destinations' network, hosts that ask for us, and some that answer.
        let scan = (0..60).map(|last| {
            let host = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 100 + last).into(), 9);
            inward(&udp(client(false, u16::from(round)), host, b""))
        });
        assert_eq!(send(&mut rig, 0, scan), 0);
        let ours = Ipv4Addr::new(192, 0, 2, 1);
        let host =
            |last: u8| (MacAddr([2, 1, 0, 0, round, last]), Ipv4Addr::new(192, 0, 2, 100 + last));
        let asks = (0..50).map(|last| {
            arp(MacAddr::BROADCAST, ARP_REQUEST, host(last), (MacAddr::default(), ours))
        });
        assert_eq!(send(&mut rig, 1, asks), 0);
        let answers = (0..20)
            .map(|last| arp(OUR_MACS[1], ARP_REPLY, host(last + round), (OUR_MACS[1], ours)));
        assert_eq!(send(&mut rig, 1, answers), 0);
        let solicitations = (0..50_u16).map(|last| {
            let address = format!("2001:db8:d::{:x}", 0x1000 * u16::from(round % 8) + last + 0x100);
            let asker = (MacAddr([2, 1, 0, 0, 7, round]), address.parse().unwrap());
            solicitation(asker, "2001:db8:d::1".parse().unwrap())
        });
        assert_eq!(send(&mut rig, 1, solicitations), 0);
        let mut calls = 0;
        for _ in 0..60 {
            rig.now += 3;
            calls += breathe(&mut rig);
            rig.discard();
        }
        assert_eq!(calls, 0, "round {round}");
    }
    rig.finish();
}

#[test]
fn another_snapshot_is_taken_over_without_memory() {
    let (mut rig, services) = director(2, LIMITS);
    let opened = (1000..1100).map(|own| inward(&tcp(client(false, own), vip(false, 80), SYN, b"")));
    assert_eq!(send(&mut rig, 0, opened), 0);
    for round in 0..20 {
        let service = services[round % services.len()];
        let dest = rig.service(service).dests[0];
        match round % 4 {
            0 => rig.remove_dest(service, dest.id),
            1 => rig.set_weight(service, dest.id, u32::try_from(round).unwrap()),
            2 => {
                rig.snapshot.timeouts.set(State::SynRecv, 10 + u32::try_from(round).unwrap());
                rig.snapshot.tunables.secure_tcp ^= 3;
                rig.publish();
            }
            _ => {
                let service = rig.add_service((UDP, "198.51.100.99:99"), SchedulerKind::Wrr, &[]);
                assert_eq!(breathe(&mut rig), 0);
                rig.remove_service(service);
            }
        }
        assert_eq!(breathe(&mut rig), 0, "round {round}");
        let port = 2000 + u16::try_from(round).unwrap();
        let more = [inward(&tcp(client(false, port), vip(false, 80), SYN, b""))];
        assert_eq!(send(&mut rig, 0, more.into_iter()), 0);
    }
}

#[test]
fn spoilt_frames_take_no_memory() {
    let mut rig = flood::director(&flood::plan());
    breathe(&mut rig);
    let mut spoiler = flood::Spoiler::new(3);
    let mut count = 0;
    for number in 1..=100_000 {
        let (link, frame) = spoiler.next();
        rig.far[link].inject(frame).unwrap();
        if number % 64 == 0 {
            count += breathe(&mut rig);
            rig.discard();
            rig.now += 1;
        }
    }
    assert_eq!(count, 0);
}
