//! Which worker owns what: ADR 0002, judged by a second writing of its rule.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

#[path = "sim/random.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod random;
mod rig;
#[path = "sim/rss.rs"]
mod rss;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use random::Random;
use rig::frames::{ethernet, tcp, udp};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, dest_mac, interface, network_with};
use rss::{Spread, hash_of, owner};
use rvs_model::{ForwardMethod, SchedulerKind};
use rvs_plane::Steering;
use rvs_plane::handoff::BATCHES;
use rvs_plane::persist::Mask;
use rvs_wire::flow::{Ends, Ends4, Ends6, Key, V4, V6};
use rvs_wire::toeplitz::{SYMMETRIC_KEY, Toeplitz};

static CARD: Toeplitz = Toeplitz::new(&SYMMETRIC_KEY);

fn any4(random: &mut Random) -> (Ipv4Addr, u16) {
    let [a, b, c, d, e, f, ..] = random.next().to_le_bytes();
    (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([e, f]))
}

fn any6(random: &mut Random) -> (Ipv6Addr, u16) {
    let high = u128::from(random.next()) << 64;
    (Ipv6Addr::from_bits(high | u128::from(random.next())), any4(random).1)
}

#[test]
fn both_directions_have_one_owner_and_it_is_the_adrs() {
    let mut random = Random::new(1);
    for workers in [1, 2, 3, 5, 8, 16, 63, 64, 128] {
        let steering = Steering::new(workers);
        for _ in 0..2000 {
            let (client, vip, dest) = (any4(&mut random), any4(&mut random), any4(&mut random));
            let inbound = Key::<V4> { ends: Ends4::new(client, vip), protocol: 6 };
            let outbound = Key::<V4> { ends: Ends4::new(dest, client), protocol: 6 };
            let wanted = owner(client.0.into(), client.1, workers);
            assert_eq!(steering.owner(&inbound, true), wanted);
            assert_eq!(steering.owner(&outbound, false), wanted);
            assert_eq!(steering.owner_of(client.0.into(), client.1), wanted);
            assert!(wanted < workers);
            let (client, vip, dest) = (any6(&mut random), any6(&mut random), any6(&mut random));
            let inbound = Key::<V6> { ends: Ends6::new(client, vip), protocol: 17 };
            let outbound = Key::<V6> { ends: Ends6::new(dest, client), protocol: 17 };
            let wanted = owner(client.0.into(), client.1, workers);
            assert_eq!(steering.owner(&inbound, true), wanted);
            assert_eq!(steering.owner(&outbound, false), wanted);
        }
    }
}

/// `L3_SRC_ONLY` with `L4_SRC_ONLY` hashes source address and port, `_DST_ONLY` the other two; the
/// card puts what is left of the input side by side.
#[test]
fn the_rule_is_what_a_card_computes_over_the_clients_fields() {
    let mut random = Random::new(2);
    for _ in 0..5000 {
        let (client, other) = (any4(&mut random), any4(&mut random));
        let mut fields = client.0.octets().to_vec();
        fields.extend(client.1.to_be_bytes());
        assert_eq!(CARD.hash(&fields), hash_of(client.0.into(), client.1));
        // A card that cannot leave fields out of the input, but hashes zeros in their place.
        let sources = Ends4::new(client, (Ipv4Addr::UNSPECIFIED, 0));
        let destinations = Ends4::new((Ipv4Addr::UNSPECIFIED, 0), client);
        assert_eq!(CARD.ends4(&sources), hash_of(client.0.into(), client.1));
        assert_eq!(CARD.ends4(&destinations), hash_of(client.0.into(), client.1));
        assert_ne!(other, client);
        let client = any6(&mut random);
        let mut fields = client.0.octets().to_vec();
        fields.extend(client.1.to_be_bytes());
        assert_eq!(CARD.hash(&fields), hash_of(client.0.into(), client.1));
    }
}

/// The busiest worker's share of `clients`, as a multiple of a fair one.
fn skew(workers: u16, clients: impl Iterator<Item = (IpAddr, u16)>) -> f64 {
    let steering = Steering::new(workers);
    let mut counts = vec![0_u32; usize::from(workers)];
    for (address, port) in clients {
        counts[usize::from(steering.owner_of(address, port))] += 1;
    }
    let total: u32 = counts.iter().sum();
    f64::from(*counts.iter().max().unwrap()) * f64::from(workers) / f64::from(total)
}

/// What 128 entries divided among the workers cost at best.
fn unavoidable(workers: u16) -> f64 {
    f64::from(128_u16.div_ceil(workers)) * f64::from(workers) / 128.0
}

#[test]
fn one_client_alone_is_spread_over_all_workers_by_its_ports() {
    let addresses: [IpAddr; 3] = [
        "203.0.113.7".parse().unwrap(),
        "10.0.0.1".parse().unwrap(),
        "2001:db8:99::7".parse().unwrap(),
    ];
    for workers in 1..=64 {
        for address in addresses {
            // Linux gives even ports to connect(2) and walks through its range in steps of two; others
            // take one after the other.
            for step in [1, 2] {
                let ports = (32768..=60999).step_by(step).map(|port| (address, port));
                let skew = skew(workers, ports);
                assert!(skew <= unavoidable(workers) * 1.02, "{address} {workers}: {skew}");
            }
        }
    }
}

#[test]
fn a_few_connections_of_one_client_use_most_workers() {
    for workers in [2, 4, 8, 16, 32, 64] {
        for step in [1, 2] {
            let steering = Steering::new(workers);
            let count = usize::from(workers) * 4;
            let client: IpAddr = "203.0.113.7".parse().unwrap();
            let mut used = vec![0_usize; usize::from(workers)];
            for port in (40000..).step_by(step).take(count) {
                used[usize::from(steering.owner_of(client, port))] += 1;
            }
            let busy = used.iter().filter(|count| **count > 0).count();
            assert!(busy * 4 >= usize::from(workers) * 3, "{workers} step {step}: {used:?}");
            assert!(*used.iter().max().unwrap() <= 16, "{workers} step {step}: {used:?}");
        }
    }
}

#[test]
fn many_clients_are_spread_whatever_their_ports() {
    let mut random = Random::new(3);
    for workers in 1..=64 {
        let one_port = (0..20_000_u32)
            .map(|number| (IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number)), 1024));
        let neighbours = skew(workers, one_port);
        assert!(neighbours <= unavoidable(workers) * 1.1, "{workers}: {neighbours}");
        let anybody = (0..20_000).map(|number| {
            if number % 2 == 0 {
                let (address, port) = any4(&mut random);
                (IpAddr::from(address), port)
            } else {
                let (address, port) = any6(&mut random);
                (IpAddr::from(address), port)
            }
        });
        let anybody = skew(workers, anybody);
        // 20 000 over 64 workers is 312 each, give or take 18: the most loaded is three off.
        assert!(anybody <= unavoidable(workers) * 1.25, "{workers}: {anybody}");
    }
}

/// Whatever the cards do, a connection lives where it belongs, and cards that know the rule cost no
/// handoff at all.
#[test]
fn a_connection_lives_with_its_owner_whatever_the_cards_do() {
    for spread in Spread::ALL {
        for workers in [1, 2, 3, 8] {
            let plan = Plan { workers, rss: spread.hashes(), ..PLAN };
            let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
            let mut rig = Rig::new(network_with(interfaces, 4), &plan);
            let vips = ["198.51.100.80:80", "[2001:db8:c::80]:80"];
            let dests = ["192.0.2.11:8080", "[2001:db8:d::11]:8080"];
            let clients = ["203.0.113.7", "2001:db8:99::7"];
            for ((vip, dest), client) in vips.iter().zip(dests).zip(clients) {
                for protocol in [6, 17] {
                    let method = ForwardMethod::Masquerade;
                    rig.add_service((protocol, vip), SchedulerKind::Rr, &[(dest, method, 1)]);
                }
                let (vip, dest): (SocketAddr, SocketAddr) =
                    (vip.parse().unwrap(), dest.parse().unwrap());
                for port in 2000..2064 {
                    let client = SocketAddr::new(client.parse().unwrap(), port);
                    for (there, back) in [
                        (tcp(client, vip, 2, b""), tcp(dest, client, 18, b"")),
                        (udp(client, vip, b""), udp(dest, client, b"")),
                    ] {
                        rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &there)]);
                        rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &back)]);
                    }
                }
            }
            for worker in 0..workers {
                for v6 in [false, true] {
                    for row in rig.dump(usize::from(worker), v6) {
                        let of = owner(row.client.ip(), row.client.port(), workers);
                        assert_eq!(of, worker, "{row:?}");
                    }
                }
            }
            assert_eq!(rig.conns(), 256);
            let counts = rig.counts();
            assert_eq!((counts.received, counts.sent, counts.dropped_total()), (512, 512, 0));
            let handed = counts.handed;
            match spread {
                Spread::ByClient => assert_eq!(handed, 0),
                _ if workers == 1 => assert_eq!(handed, 0),
                Spread::ByFlow | Spread::None => assert!(handed > 128, "{handed}"),
            }
            rig.finish();
        }
    }
}

/// A worker that has not heard of a new VIP takes its packets for transit, whose owner goes by the
/// other end. Whoever gets them so may know better.
/// Its frames come in batches, and the last ones in what there is when a breath ends.
#[test]
fn a_worker_that_does_not_breathe_gets_what_its_ring_holds_and_the_rest_is_counted() {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let plan = Plan { workers: 2, rss: [|_| 0, |_| 0], ring: 512, frames: 8000, ..PLAN };
    let mut rig = Rig::new(network_with(interfaces, 1), &plan);
    let dest = [("192.0.2.11:80", ForwardMethod::Direct, 1)];
    rig.add_service((17, "198.51.100.80:80"), SchedulerKind::Rr, &dest);
    let vip: SocketAddr = "198.51.100.80:80".parse().unwrap();
    let clients = (0..30_000).map(|number: u16| {
        let [high, low] = number.to_be_bytes();
        SocketAddr::new([203, 0, high, low].into(), 5000)
    });
    let others: Vec<_> =
        clients.filter(|client| owner(client.ip(), client.port(), 2) == 1).take(4000).collect();
    // Two batches each time: of 8 and of 5.
    for (some, round) in others.chunks_exact(13).zip(1..) {
        for client in some {
            rig.far[0]
                .inject(&ethernet(OUR_MACS[0], CLIENT_MAC, &udp(*client, vip, b"x")))
                .unwrap();
        }
        rig.workers[0].breathe(0);
        rig.assert_conservation();
        let waiting = rig.mesh.inbox(1).unwrap().waiting();
        assert_eq!(waiting, BATCHES.min(2 * round));
        assert_eq!(rig.counts().handed, 13 * u64::try_from(waiting / 2).unwrap());
    }
    let turns = others.len() / 13;
    assert!(turns > BATCHES, "{turns}");
    let lost = u64::try_from(13 * (turns - BATCHES / 2)).unwrap();
    assert_eq!(rig.drops().get("handoff-full"), Some(&lost));
    assert_eq!(rig.settle().len(), 13 * BATCHES / 2);
    rig.finish();
}

#[test]
fn a_packet_that_was_handed_over_in_ignorance_is_handed_on() {
    let workers = 3;
    let vip: SocketAddr = "198.51.100.80:80".parse().unwrap();
    let client = (1000..9999)
        .map(|port| SocketAddr::new("203.0.113.7".parse().unwrap(), port))
        .find(|client| owner(client.ip(), client.port(), workers) == 2)
        .unwrap();
    let wrong = owner(vip.ip(), vip.port(), workers);
    // All frames come to a worker that is neither.
    let first = (0..2).find(|worker| *worker != wrong).unwrap();
    let rss: rig::Rss = if first == 0 { |_| 0 } else { |_| 1 };
    assert_ne!(wrong, 2, "the test wants three different ones");
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let plan = Plan { workers, rss: [rss, rss], ..PLAN };
    let mut rig = Rig::new(network_with(interfaces, 1), &plan);
    rig.add_service((6, "198.51.100.81:80"), SchedulerKind::Rr, &[]);
    rig.far[0].inject(&ethernet(OUR_MACS[0], CLIENT_MAC, &tcp(client, vip, 2, b""))).unwrap();
    rig.workers[usize::from(first)].breathe(0);
    assert_eq!(rig.mesh.inbox(wrong).unwrap().waiting(), 1);
    rig.add_service(
        (6, "198.51.100.80:80"),
        SchedulerKind::Rr,
        &[("192.0.2.11:8080", ForwardMethod::Masquerade, 1)],
    );
    assert_eq!(rig.settle().len(), 1);
    let conns: Vec<_> = rig.workers.iter().map(|worker| worker.conns()[0]).collect();
    assert_eq!((conns, rig.counts().handed), (vec![0, 0, 1], 2));
}

/// A persistent service, one that is not but shares its real servers, and one that shares none.
/// Whatever the cards do, both directions of all of a network's connections come to one worker where
/// they must, and nowhere else.
#[test]
fn connections_of_a_persistent_service_live_with_the_owner_of_their_network() {
    let prefix = |address: IpAddr| -> IpAddr {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                [a, b, c, 0].into()
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                [a, b, c, d, 0, 0, 0, 0].into()
            }
        }
    };
    for spread in Spread::ALL {
        for workers in [1, 2, 3, 8] {
            let plan = Plan { workers, rss: spread.hashes(), ..PLAN };
            let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
            let mut rig = Rig::new(network_with(interfaces, 4), &plan);
            // VIP, real server, whether persistent, whether by network.
            let mut all: Vec<(SocketAddr, SocketAddr, bool)> = Vec::new();
            for v6 in [false, true] {
                let vip = if v6 { "[2001:db8:c::80]" } else { "198.51.100.80" };
                let dest = if v6 { "[2001:db8:d::11]" } else { "192.0.2.11" };
                for (port, at, persists, by_network) in
                    [(80, 8080, true, true), (81, 8080, false, true), (82, 8082, false, false)]
                {
                    let (vip, dest) = (format!("{vip}:{port}"), format!("{dest}:{at}"));
                    let dests = [(dest.as_str(), ForwardMethod::Masquerade, 1)];
                    let id = rig.add_service((6, &vip), SchedulerKind::Rr, &dests);
                    if persists {
                        let mask =
                            if v6 { Mask::v6(64) } else { Mask::v4([255, 255, 255, 0].into()) };
                        rig.persist(id, 800, mask);
                    }
                    all.push((vip.parse().unwrap(), dest.parse().unwrap(), by_network));
                }
            }
            let mut packets = 0;
            for (number, (vip, dest, _)) in (0_u16..).zip(&all) {
                for client in 0..40_u16 {
                    let port = 2000 + 100 * number + client;
                    let host: IpAddr = if vip.is_ipv4() {
                        [203, 0, 113 + u8::try_from(client % 4).unwrap(), 7].into()
                    } else {
                        Ipv6Addr::new(0x2001, 0xdb8, 0x99, client % 4, client, 0, 0, 7).into()
                    };
                    let client = SocketAddr::new(host, port);
                    let there = tcp(client, *vip, 2, b"");
                    let back = tcp(*dest, client, 18, b"");
                    rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &there)]);
                    rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &back)]);
                    packets += 2;
                }
            }
            let mut templates = 0;
            for worker in 0..workers {
                for v6 in [false, true] {
                    for row in rig.dump(usize::from(worker), v6) {
                        let (.., by_network) =
                            all.iter().find(|(vip, ..)| *vip == row.vip).copied().unwrap();
                        let of = if by_network {
                            owner(prefix(row.client.ip()), 0, workers)
                        } else {
                            owner(row.client.ip(), row.client.port(), workers)
                        };
                        assert_eq!(of, worker, "{row:?}");
                        templates += usize::from(row.template.is_some());
                    }
                }
            }
            let counts = rig.counts();
            assert_eq!(
                (counts.received, counts.sent, counts.dropped_total()),
                (packets, packets, 0)
            );
            assert_eq!((templates, rig.conns()), (8, 248), "{workers} workers");
            rig.finish();
        }
    }
}

/// Nothing needs the masks of persistence while its replies do not come back through the director.
#[test]
fn other_services_on_the_same_servers_keep_their_spread_where_replies_go_past_the_director() {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let mut rig = Rig::new(network_with(interfaces, 1), &Plan { workers: 4, ..PLAN });
    let dests = [("192.0.2.11:80", ForwardMethod::Direct, 1)];
    let one = rig.add_service((6, "198.51.100.80:80"), SchedulerKind::Rr, &dests);
    let other = rig.add_service((6, "198.51.100.81:80"), SchedulerKind::Rr, &dests);
    rig.persist(one, 800, Mask::ALL);
    assert_eq!(rig.snapshot.grains.of_service(one), Some(Mask::ALL));
    assert_eq!(rig.snapshot.grains.of_service(other), None);
    assert_eq!(rig.snapshot.grains.of_reply(("192.0.2.11".parse().unwrap(), 80)), None);
}
