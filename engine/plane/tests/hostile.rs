//! What nobody means to send, and far too much of what anybody may.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod flood;
#[path = "sim/random.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod random;
mod rig;

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use flood::{Spoiler, client, director, inward, plan, vip};
use random::Random;
use rig::frames::{
    ACK, ARP_REPLY, ARP_REQUEST, L3, OVERRIDE, SOLICITED, SYN, advertisement, arp, echo_request,
    ethernet, folded, mac_at, packet_octets, read_arp, solicitation, sum, tagged, tcp, udp,
    with_extension,
};
use rig::{LIMITS, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network, network_with};
use rvs_model::SchedulerKind;
use rvs_plane::Limits;
use rvs_wire::mac::MacAddr;

fn dropped(rig: &Rig, reason: &str) -> u64 {
    rig.drops().get(reason).copied().unwrap_or_default()
}

/// A frame that leaves must not be one that others have reason to complain about.
fn is_presentable(frame: &[u8], link: usize) {
    assert_eq!(frame[6..12], OUR_MACS[link].0, "from our own address: {frame:?}");
    let at = if frame[12..14] == [0x81, 0] { 18 } else { L3 };
    let packet = &frame[at..];
    match (frame[at - 2], frame[at - 1]) {
        (8, 6) => assert!(packet.len() >= 28),
        (8, 0) => {
            let header = usize::from(packet[0] & 15) * 4;
            assert_eq!((packet[0] >> 4, folded(sum(&packet[..header]))), (4, 0xffff));
            assert!((header..=1500).contains(&packet_octets(packet)));
            assert!(packet_octets(packet) <= packet.len(), "{frame:?}");
        }
        (0x86, 0xdd) => {
            assert_eq!(packet[0] >> 4, 6);
            assert!(packet_octets(packet) <= packet.len().min(1500), "{frame:?}");
        }
        other => panic!("ethertype {other:?}"),
    }
}

/// `RVS_FRAMES` says how many.
#[test]
fn spoilt_frames_of_every_kind_are_counted_by_name_and_what_leaves_is_in_order() {
    let frames: usize = std::env::var("RVS_FRAMES").map_or(1_000_000, |text| text.parse().unwrap());
    for (seed, workers) in [(1, 1), (2, 3)] {
        let rss: rig::Rss = |frame| u32::from(*frame.get(29).unwrap_or(&0));
        let mut rig = director(&Plan { workers, rss: [rss, rss], ..plan() });
        let mut spoiler = Spoiler::new(seed);
        let mut left = 0;
        for count in 1..=frames {
            let (link, frame) = spoiler.next();
            rig.far[link].inject(frame).unwrap();
            if count % 64 != 0 {
                continue;
            }
            let now = rig.now;
            while rig.workers.iter_mut().map(|worker| worker.breathe(now)).sum::<usize>() > 0 {}
            rig.assert_conservation();
            if count % (64 * 8) == 0 {
                for it in rig.collect() {
                    left += 1;
                    is_presentable(&it.frame, it.link);
                }
                rig.now += 1;
            } else {
                rig.discard();
            }
        }
        let drops = rig.drops();
        assert_eq!(drops.get("no-headroom"), None, "our own mistake: {drops:?}");
        assert!(drops.len() > 30, "many ways to be wrong were tried: {drops:?}");
        assert!(left > frames / 200, "and many frames were right: {left}");
        rig.pass(8);
        rig.finish();
    }
}

#[test]
fn header_chains_without_end_are_cut_short() {
    let mut rig = director(&plan());
    for kind in [60, 43, 51, 44, 0] {
        let mut packet = tcp(client(true, 1), vip(true, 80), SYN, b"");
        for _ in 0..150 {
            packet = with_extension(&packet, kind, &[0, 0, 0, 0, 0, 0, 0]);
        }
        // One header of 2048 octets that are not there; a fragment header has no length.
        if kind == 44 {
            assert_eq!(rig.send(0, &[inward(&packet)]), []);
            continue;
        }
        let beyond = with_extension(
            &tcp(client(true, 1), vip(true, 80), SYN, b""),
            kind,
            &[255, 0, 0, 0, 0, 0, 0],
        );
        assert_eq!(rig.send(0, &[inward(&packet), inward(&beyond)]), []);
    }
    let drops = rig.drops();
    assert!(
        drops.keys().all(|name| ["ipv6-extensions", "truncated", "fragment"].contains(name)),
        "{drops:?}"
    );
    assert_eq!(rig.conns(), 0);
}

#[test]
fn frames_for_others_of_other_kinds_and_of_other_vlans_have_names_of_their_own() {
    let mut rig = director(&plan());
    let mut random = Random::new(7);
    let good = inward(&tcp(client(false, 1), vip(false, 80), SYN, b""));
    let mut expected = [0; 4];
    for _ in 0..20_000 {
        let mut frame = good.clone();
        match random.below(4) {
            0 => {
                frame[..6].copy_from_slice(&[2, 1, random.octet(), random.octet(), 0, 0]);
                expected[0] += 1;
            }
            1 => {
                let vlan = random.one_of(&[1, 2, 6, 8, 9, 100, 4094, 4095]);
                frame = tagged(&frame, vlan | u16::from(random.octet() & 0xe0) << 8);
                expected[1] += 1;
            }
            2 => {
                frame = tagged(&tagged(&frame, 7), 7);
                if random.chance(50) {
                    frame[12..14].copy_from_slice(&[0x88, 0xa8]);
                }
                expected[2] += u64::from(frame[12] == 0x81);
                expected[3] += u64::from(frame[12] == 0x88);
            }
            _ => {
                let kind = random.one_of(&[0x0000_u16, 0x05dc, 0x0801, 0x88cc, 0x8847, 0xffff]);
                frame[12..14].copy_from_slice(&kind.to_be_bytes());
                expected[3] += 1;
            }
        }
        rig.far[0].inject(&frame).unwrap();
        rig.workers[0].breathe(0);
    }
    rig.assert_conservation();
    let [other, vlan, stack, kind] = expected;
    assert_eq!((dropped(&rig, "other-host"), dropped(&rig, "vlan-unknown")), (other, vlan));
    let (stacked, odd) = (dropped(&rig, "vlan-stack"), dropped(&rig, "ethertype"));
    assert!(stacked >= stack && stacked + odd == stack + kind, "{:?}", rig.drops());
    assert_eq!((rig.conns(), rig.counts().sent), (0, 0));
}

/// Hosts on the second link that are known because they answered.
fn acquainted(limits: Limits) -> Rig {
    let mut rig = Rig::new(network(), &Plan { limits, ..plan() });
    let dests = ["192.0.2.11:80", "192.0.2.12:80"];
    let dests = dests.map(|dest| (dest, rvs_model::ForwardMethod::Masquerade, 1));
    rig.add_service((17, "198.51.100.80:80"), SchedulerKind::Rr, &dests);
    rig.send(0, &[question(1), question(2)]);
    rig.send(1, &[answer(0), answer(1)]);
    rig.discard();
    rig
}

fn question(port: u16) -> Vec<u8> {
    inward(&udp(client(false, port), vip(false, 80), b"?"))
}

fn answer(number: u8) -> Vec<u8> {
    let own = (dest_mac(number), Ipv4Addr::new(192, 0, 2, 11 + number));
    arp(OUR_MACS[1], ARP_REPLY, own, (OUR_MACS[1], Ipv4Addr::new(192, 0, 2, 1)))
}

/// Destinations that a packet of each of two new connections reaches.
fn reached(rig: &mut Rig, port: u16) -> Vec<MacAddr> {
    let out = rig.send(0, &[question(port), question(port + 1)]);
    let data = out.iter().filter(|(link, frame)| *link == 1 && frame[12..14] == [8, 0]);
    let mut reached: Vec<_> = data.map(|(_, frame)| mac_at(frame, 0)).collect();
    reached.sort_unstable_by_key(|mac| mac.0);
    reached
}

#[test]
fn a_flood_of_claims_leaves_neighbors_that_live_where_they_are_and_room_for_more() {
    let limits = Limits { neighbors: 64, ..LIMITS };
    let mut rig = acquainted(limits);
    let bytes = rig.workers[0].table_bytes();
    for round in 0..40_u32 {
        for number in 0..1000_u32 {
            let [_, a, b, c] = (round * 1000 + number).to_be_bytes();
            let mac = MacAddr([2, 0x66, 0, a, b, c]);
            let host = Ipv4Addr::new(192, 0, 2, 20 + c % 230);
            let ours = Ipv4Addr::new(192, 0, 2, 1);
            let host6 = Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 1, u16::from(b), u16::from(c));
            let ours6: Ipv6Addr = "2001:db8:d::1".parse().unwrap();
            let frame = match number % 4 {
                0 => arp(MacAddr::BROADCAST, ARP_REQUEST, (mac, host), (MacAddr::default(), ours)),
                1 => arp(OUR_MACS[1], ARP_REPLY, (mac, host), (OUR_MACS[1], ours)),
                2 => solicitation((mac, host6), ours6),
                _ => advertisement((mac, host6), (OUR_MACS[1], ours6), SOLICITED | OVERRIDE),
            };
            rig.far[1].inject(&frame).unwrap();
            if number % 64 == 63 {
                rig.workers[0].breathe(rig.now);
                rig.discard();
            }
        }
        rig.pass(8);
        let port = u16::try_from(1000 + round * 2).unwrap();
        assert_eq!(reached(&mut rig, port), [dest_mac(0), dest_mac(1)], "round {round}");
        if round % 10 == 9 {
            // Kept alive by answering, as living ones do.
            rig.send(1, &[answer(0), answer(1)]);
        }
    }
    // Somebody new is found all the same.
    let service = rvs_model::ServiceId(0);
    rig.add_dest(
        service,
        "192.0.2.13:80".parse().unwrap(),
        rvs_model::ForwardMethod::Masquerade,
        9,
    );
    rig.set_weight(service, rvs_model::DestId(0), 0);
    rig.set_weight(service, rvs_model::DestId(1), 0);
    let out = rig.send(0, &[question(9000)]);
    let asked = out.iter().find_map(|(_, frame)| read_arp(frame)).unwrap();
    assert_eq!(asked.target.1, Ipv4Addr::new(192, 0, 2, 13));
    let out = rig.send(1, &[answer(2)]);
    assert!(out.iter().any(|(_, frame)| mac_at(frame, 0) == dest_mac(2)));
    assert_eq!(rig.workers[0].table_bytes(), bytes);
    rig.finish();
}

#[test]
fn a_scan_of_a_connected_network_holds_few_frames_and_leaves_the_living_alone() {
    let limits = Limits { neighbors: 1024, ..LIMITS };
    let mut rig = acquainted(limits);
    for round in 0..20_u16 {
        for number in 0..2000_u16 {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 2, round, number);
            let packet = udp(client(true, 1), SocketAddr::new(address.into(), 9), b"");
            rig.far[0].inject(&inward(&packet)).unwrap();
            if number % 64 == 63 {
                rig.workers[0].breathe(rig.now);
                rig.discard();
            }
        }
        rig.pass(2);
        assert!(rig.counts().held <= 512);
        assert_eq!(reached(&mut rig, 1000 + round * 2), [dest_mac(0), dest_mac(1)]);
    }
    rig.finish();
}

#[test]
fn a_syn_flood_takes_no_more_memory_and_nothing_from_those_who_are_in() {
    let limits = Limits { conns4: 1000, conns6: 1000, ..LIMITS };
    let mut rig = director(&Plan { limits, ..plan() });
    for v6 in [false, true] {
        let vip = vip(v6, 80);
        let friends: Vec<_> = (1..=500).map(|port| client(v6, port)).collect();
        for flags in [SYN, ACK] {
            for friend in &friends {
                rig.send(0, &[inward(&tcp(*friend, vip, flags, b""))]);
            }
        }
        let bytes = rig.workers[0].table_bytes();
        let mut random = Random::new(11);
        for count in 0..100_000_u32 {
            let [a, b, c, d, ..] = random.next().to_le_bytes();
            let address = if v6 {
                Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, a.into(), b.into(), c.into(), d.into()).into()
            } else {
                Ipv4Addr::new(100, b, c, d).into()
            };
            let from = SocketAddr::new(address, u16::from_le_bytes([a, d]) | 1);
            rig.far[0].inject(&inward(&tcp(from, vip, SYN, b""))).unwrap();
            if count % 64 == 63 {
                rig.workers[0].breathe(rig.now);
                rig.discard();
            }
            if count % 10_000 == 0 {
                rig.now += 1;
            }
        }
        rig.settle();
        assert_eq!(rig.workers[0].table_bytes(), bytes);
        assert_eq!(rig.workers[0].conns()[usize::from(v6)], 1000);
        assert!(rig.counts().evicted > 90_000);
        let sent = rig.counts().sent;
        for friend in &friends {
            rig.send(0, &[inward(&tcp(*friend, vip, ACK, b"still here"))]);
        }
        assert_eq!(rig.counts().sent - sent, 500, "every established connection goes on");
    }
    rig.finish();
}

#[test]
fn what_the_director_says_of_its_own_is_bounded_in_time() {
    for v6 in [false, true] {
        let mut rig = director(&plan());
        let from = client(v6, 1);
        let closed = SocketAddr::new(vip(v6, 80).ip(), 9);
        let floods = [
            tcp(from, closed, SYN, b""),
            udp(from, closed, b""),
            rig::frames::with_hops(udp(from, SocketAddr::new(dest_ip(v6, 0), 9), b""), 1),
        ];
        for flood in &floods {
            let before = rig.counts();
            for tick in 0..16 {
                for _ in 0..20 {
                    for _ in 0..64 {
                        rig.far[0].inject(&inward(flood)).unwrap();
                    }
                    rig.workers[0].breathe(rig.now);
                    rig.discard();
                }
                rig.now += 1;
                assert!(rig.counts().originated - before.originated <= 125 * (tick + 1));
            }
            let answers = rig.counts().originated - before.originated;
            assert_eq!(answers, 16 * 125, "a thousand a second, and no fewer");
        }
        rig.finish();
    }
}

#[test]
fn echo_is_answered_once_each_and_makes_no_frame_of_its_own() {
    let mut rig = director(&plan());
    let own = "198.51.100.1".parse().unwrap();
    let request = inward(&echo_request(client(false, 1).ip(), own, b"x"));
    for _ in 0..100 {
        for _ in 0..64 {
            rig.far[0].inject(&request).unwrap();
        }
        rig.workers[0].breathe(0);
        rig.discard();
    }
    let counts = rig.counts();
    assert_eq!((counts.received, counts.sent, counts.originated), (6400, 6400, 0));
}

/// However busy one link is, and however many frames other workers hand over, each breath hears
/// all.
#[test]
fn no_link_starves_another() {
    let limits = Limits { burst: 256, ..LIMITS };
    let plan = Plan { workers: 2, limits, rss: [|_| 1, |_| 0], ring: 1024, frames: 8000, ..PLAN };
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let mut rig = Rig::new(network_with(interfaces, 4), &plan);
    let dest = [("192.0.2.11:80", rvs_model::ForwardMethod::Direct, 1)];
    rig.add_service((17, "198.51.100.80:80"), SchedulerKind::Rr, &dest);
    // What belongs to worker 0 comes to worker 1, who hands it over, and worker 0 has a full ring
    // on its first link, too.
    for round in 0..50_u16 {
        for number in 0..1000 {
            let _full = rig.far[0].inject(&question(round * 1000 + number));
        }
        for _ in 0..12 {
            rig.workers[1].breathe(0);
        }
        let echo = echo_request(dest_ip(false, 0), "192.0.2.1".parse().unwrap(), b"x");
        rig.far[1].inject(&ethernet(OUR_MACS[1], dest_mac(0), &echo)).unwrap();
        let before = rig.mesh.inbox(0).unwrap().waiting();
        assert!(before > 32, "{before} batches");
        rig.workers[0].breathe(0);
        let left = rig.collect();
        assert!(
            left.iter().any(|it| it.link == 1 && it.frame.get(34) == Some(&0) && it.frame[23] == 1)
        );
        rig.settle();
    }
    rig.finish();
}
