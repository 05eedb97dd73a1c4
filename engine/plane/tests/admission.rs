//! Who is let in, and who has to go: thresholds, one-packet services, the three defences.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::SocketAddr;
use rig::frames::{ethernet, read, tagged, tcp, udp, untagged};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, interface, network_with};
use rvs_model::{DestLine, ForwardMethod, Load, SchedulerKind, ServiceId, State, Tunables, ticks};
use rvs_plane::overload::Limits;
use rvs_plane::shared::{Command, Kill};
use rvs_plane::snapshot::Rules;

const SYN: u8 = 2;
const ACK: u8 = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;
const VIP: &str = "198.51.100.80:80";
const DESTS: [&str; 3] = ["192.0.2.11:80", "192.0.2.12:80", "192.0.2.13:80"];

fn rig(workers: u16) -> Rig {
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    Rig::new(network, &Plan { workers, ..PLAN })
}

fn service(rig: &mut Rig, protocol: u8, kind: SchedulerKind, method: ForwardMethod) -> ServiceId {
    rig.add_service((protocol, VIP), kind, &DESTS.map(|dest| (dest, method, 1)))
}

fn client(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::new([203, 0, high, low].into(), 1024 + number % 60_000)
}

fn segment(number: u16, flags: u8) -> Vec<u8> {
    let packet = tcp(client(number), VIP.parse().unwrap(), flags, b"");
    ethernet(OUR_MACS[0], CLIENT_MAC, &packet)
}

fn datagram(number: u16) -> Vec<u8> {
    let packet = udp(client(number), VIP.parse().unwrap(), b"?");
    ethernet(OUR_MACS[0], CLIENT_MAC, &packet)
}

/// Connections of each destination, on all workers.
fn loads(rig: &Rig, service: ServiceId) -> Vec<u64> {
    let load = |id: u32| {
        let place = usize::try_from(id).unwrap();
        let lines = rig.shared.iter().map(|shared| shared.lines[place].load());
        let sum = lines.fold(Load::default(), |sum, more| Load {
            active: sum.active.wrapping_add(more.active),
            inactive: sum.inactive.wrapping_add(more.inactive),
        });
        sum.total()
    };
    rig.service(service).dests.iter().map(|dest| load(dest.id.0)).collect()
}

fn limited(upper: u32, lower: u32) -> Rules {
    Rules { limits: vec![Limits { upper, lower, lifted: 1 }; 3], ..Rules::default() }
}

#[test]
fn no_destination_passes_its_threshold_by_more_than_one_connection_a_worker() {
    for (workers, kind) in [
        (1, SchedulerKind::Rr),
        (1, SchedulerKind::Wlc),
        (4, SchedulerKind::Rr),
        (8, SchedulerKind::Wlc),
        (8, SchedulerKind::Sh),
    ] {
        let mut rig = rig(workers);
        let service = service(&mut rig, TCP, kind, ForwardMethod::Direct);
        rig.set_rules(service, limited(40, 10));
        for first in (0..600).step_by(50) {
            let syns: Vec<_> = (first..first + 50).map(|number| segment(number, SYN)).collect();
            rig.send(0, &syns);
        }
        let most = 40 + u64::from(workers) - 1;
        for load in loads(&rig, service) {
            assert!((40..=most).contains(&load), "{workers} workers, {kind}: {load}");
        }
        assert!(rig.counts().dropped_total() >= 600 - 3 * most, "the others were refused");
        // Half of them expire: not below 10 yet. Then all.
        rig.pass(ticks(61));
        assert_eq!(loads(&rig, service), [0, 0, 0]);
        let out = rig.send(0, &[segment(999, SYN)]);
        assert_eq!(out.iter().filter(|(link, _)| *link == 1).count(), 1, "it is open again");
        rig.finish();
    }
}

#[test]
fn a_threshold_that_is_raised_opens_a_full_destination_that_is_below_the_lower_one_then() {
    let mut rig = rig(1);
    let service = service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    let opened = |rig: &mut Rig, number| {
        rig.send(0, &[segment(number, SYN)]).iter().any(|(link, _)| *link == 1)
    };
    rig.set_rules(service, limited(2, 0));
    let first = (0..10).filter(|number| opened(&mut rig, *number)).count();
    assert_eq!(first, 6);
    rig.set_rules(service, limited(1, 0));
    assert!(!opened(&mut rig, 20), "lowered");
    rig.set_rules(service, limited(3, 2));
    assert!(!opened(&mut rig, 21), "raised by one, and two are not below two");
    rig.set_rules(service, limited(3, 0));
    let second = (30..40).filter(|number| opened(&mut rig, *number)).count();
    assert_eq!(second, 3, "below three quarters of three");
    rig.set_rules(service, limited(9, 0));
    assert!(opened(&mut rig, 41), "raised by far");
    rig.set_rules(service, limited(2, 0));
    assert!(!opened(&mut rig, 42), "full by lowering");
    rig.set_rules(service, Rules::default());
    assert!(opened(&mut rig, 50), "removed");
    rig.finish();
}

#[test]
fn each_datagram_of_a_one_packet_service_is_scheduled_counted_and_forgotten() {
    for method in [ForwardMethod::Masquerade, ForwardMethod::Direct, ForwardMethod::Tunnel] {
        let mut rig = rig(1);
        let service = service(&mut rig, UDP, SchedulerKind::Rr, method);
        rig.set_rules(service, Rules { one_packet: true, ..Rules::default() });
        // One client, one port, all in one burst.
        let out = rig.send(0, &vec![datagram(1); 9]);
        let mut to: Vec<_> = out.iter().map(|(_, frame)| frame[..6].to_vec()).collect();
        assert_eq!(to.len(), 9, "{method:?}");
        to.sort();
        to.dedup();
        assert_eq!(to.len(), 3, "each to the next destination");
        if method == ForwardMethod::Masquerade {
            assert!(out.iter().all(|(_, frame)| read(frame).data == b"?"), "checksums hold");
        }
        assert_eq!((rig.conns(), loads(&rig, service)), (0, vec![0, 0, 0]));
        for id in 0..3 {
            let (packets, _) = rig.shared[0].lines[id].totals();
            assert_eq!(packets, [3, 3, 0], "connections, packets in, packets out");
        }
        rig.finish();
    }
}

#[test]
fn a_one_packet_service_closes_for_one_packet_only() {
    let mut rig = rig(1);
    let service = service(&mut rig, UDP, SchedulerKind::Rr, ForwardMethod::Direct);
    let limits = limited(1, 0).limits;
    rig.set_rules(service, Rules { one_packet: true, limits, ..Rules::default() });
    assert_eq!(rig.send(0, &vec![datagram(1); 20]).len(), 20, "over with each, and below again");
    rig.finish();
}

#[test]
fn drop_packet_drops_openings_by_name_and_no_established_connections_packets() {
    let mut rig = rig(1);
    service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    rig.send(0, &[segment(0, SYN), segment(0, ACK)]);
    rig.snapshot.tunables = Tunables { drop_packet: 3, am_droprate: 4, ..Tunables::default() };
    rig.publish();
    let syns: Vec<_> = (1..=40).map(|number| segment(number, SYN)).collect();
    assert_eq!(rig.send(0, &syns).len(), 30);
    assert_eq!(rig.send(0, &vec![segment(0, ACK); 40]).len(), 40);
    assert_eq!(rig.drops()["drop-packet"], 10);
    rig.snapshot.tunables.drop_packet = 0;
    rig.publish();
    let syns: Vec<_> = (41..=80).map(|number| segment(number, SYN)).collect();
    assert_eq!(rig.send(0, &syns).len(), 40);
    rig.finish();
}

#[test]
fn automatic_defence_begins_when_the_table_is_short_of_room_and_ends_after() {
    let mut rig = rig(1);
    service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    let auto = Tunables { drop_packet: 1, secure_tcp: 2, drop_entry: 1, ..Tunables::default() };
    rig.snapshot.tunables = auto;
    rig.publish();
    let open = |rig: &mut Rig, numbers: core::ops::Range<u16>| {
        let syns: Vec<_> = numbers.map(|number| segment(number, SYN)).collect();
        syns.chunks(64).map(|syns| rig.send(0, syns).len()).sum::<usize>()
    };
    // 4096 lines are 64 pages; a quarter of them is free until 3072 are taken.
    assert_eq!(open(&mut rig, 0..3000), 3000);
    rig.pass(ticks(1));
    assert_eq!(open(&mut rig, 3000..3400), 400, "judged once a second");
    rig.pass(ticks(1));
    assert!(open(&mut rig, 3400..3500) < 100, "some are dropped");
    let strict = rig.dump(0, false).iter().filter(|row| row.state == State::SynAck).count();
    assert!(strict > 0, "and those let in go the stricter way");
    let aged = rig.counts().aged;
    assert!(aged > 0, "and some end");
    rig.pass(ticks(130));
    assert_eq!(open(&mut rig, 4000..4100), 100, "there is room again");
    rig.finish();
}

#[test]
fn drop_entry_ends_a_thirty_second_of_what_is_half_open_each_second_and_spares_the_rest() {
    let mut rig = rig(1);
    let service = service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    for number in 0..2000 {
        rig.send(0, &[segment(number, SYN)]);
        if number % 4 == 0 {
            rig.send(0, &[segment(number, ACK)]);
        }
    }
    rig.snapshot.tunables = Tunables { drop_entry: 3, ..Tunables::default() };
    rig.publish();
    rig.pass(ticks(16));
    let rows = rig.dump(0, false);
    let of = |state| rows.iter().filter(|row| row.state == state).count();
    assert_eq!(of(State::Established), 500);
    // 1500 times 31/32 to the power of 16 is 902.
    assert!((820..990).contains(&of(State::SynRecv)), "{}", of(State::SynRecv));
    assert_eq!(loads(&rig, service).iter().sum::<u64>(), rows.len().try_into().unwrap());
    assert!(rig.shared[0].lines[0].has(DestLine::AVAILABLE));
    rig.finish();
}

/// Gives destination `id` other flags in every worker's lines, as the control plane does.
fn flag(rig: &Rig, id: usize, flags: u32) {
    rig.shared.iter().for_each(|shared| shared.lines[id].set_flags(flags));
}

fn reached(rig: &mut Rig, frame: Vec<u8>) -> Option<Vec<u8>> {
    let out = rig.send(0, &[frame]);
    out.into_iter().find(|(link, _)| *link == 1).map(|(_, frame)| frame[..6].to_vec())
}

#[test]
fn a_stale_udp_flow_gets_another_destination_with_its_next_packet_and_tcp_stays() {
    for gone in [0, DestLine::AVAILABLE | DestLine::DRAINED] {
        let mut rig = rig(1);
        let udp = service(&mut rig, UDP, SchedulerKind::Rr, ForwardMethod::Masquerade);
        let tcp = service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
        let before = reached(&mut rig, datagram(1)).unwrap();
        let other = reached(&mut rig, datagram(2)).unwrap();
        let to_tcp = reached(&mut rig, segment(1, SYN));
        let first = rig.dump(0, false)[0].dest_id;
        rig.set_weight(udp, first, 0);
        let place = usize::try_from(first.0).unwrap();
        flag(&rig, place, gone | DestLine::STALE_UDP);
        let after = reached(&mut rig, datagram(1)).unwrap();
        assert_ne!(before, after);
        assert_eq!(reached(&mut rig, datagram(1)), Some(after), "it stays where it is now");
        assert_eq!(reached(&mut rig, datagram(2)), Some(other), "nobody else moved");
        assert_eq!(rig.shared[0].lines[place].load().total(), 0, "counted where it is");
        // The kernel's way of every other connection.
        for dest in rig.service(tcp).dests.clone() {
            let place = usize::try_from(dest.id.0).unwrap();
            flag(&rig, place, DestLine::AVAILABLE | DestLine::DRAINED | DestLine::STALE_UDP);
        }
        assert_eq!(reached(&mut rig, segment(1, ACK)), to_tcp);
        rig.finish();
    }
}

#[test]
fn a_purge_ends_the_udp_flows_of_a_stale_destination_and_nothing_else() {
    let mut rig = rig(1);
    let udp = service(&mut rig, UDP, SchedulerKind::Rr, ForwardMethod::Direct);
    let datagrams: Vec<_> = (0..90).map(datagram).collect();
    rig.send(0, &datagrams);
    assert_eq!(loads(&rig, udp), [30, 30, 30]);
    let flags = DestLine::AVAILABLE | DestLine::DRAINED;
    flag(&rig, 1, flags | DestLine::STALE_UDP | DestLine::ENDS_UDP);
    rig.shared[0].purge();
    (0..100).for_each(|_| drop(rig.settle()));
    let mut left = loads(&rig, udp);
    left.sort_unstable();
    assert_eq!(left, [0, 30, 30]);
    rig.finish();
}

#[test]
fn one_connection_is_ended_by_its_ends_on_whichever_worker_it_is() {
    let mut rig = rig(4);
    let service = service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Masquerade);
    let syns: Vec<_> = (0..40).map(|number| segment(number, SYN)).collect();
    rig.send(0, &syns);
    let kill = |client| Kill { protocol: TCP, client, vip: VIP.parse().unwrap(), found: false };
    for (client, expected) in [(client(7), 1), (client(7), 0), (client(999), 0)] {
        let mut found = 0;
        for worker in 0..4 {
            rig.shared[worker].commands.push(Command::Kill(kill(client))).unwrap();
            rig.settle();
            let Some(Command::Kill(answer)) = rig.shared[worker].replies.pop() else {
                unreachable!("every worker answers")
            };
            found += usize::from(answer.found);
        }
        assert_eq!(found, expected, "{client}");
    }
    assert_eq!((rig.conns(), loads(&rig, service).iter().sum::<u64>()), (39, 39));
    rig.finish();
}

/// Packets dropped because there was no time for what they would have opened.
fn overload(rig: &Rig) -> u64 {
    rig.drops().get("overload").copied().unwrap_or_default()
}

#[test]
fn a_worker_without_time_carries_what_stands_and_sheds_syns_to_the_flooded_end_alone() {
    const STANDING: u16 = 4;
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let limits = rvs_plane::worker::Limits { burst: 8, ..rig::LIMITS };
    let mut rig = Rig::new(network, &Plan { limits, ..PLAN });
    service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    for flags in [SYN, ACK] {
        let all: Vec<_> = (0..STANDING).map(|number| segment(number, flags)).collect();
        assert_eq!(rig.send(0, &all).len(), all.len());
    }
    let to_ourselves = tcp(client(9), "198.51.100.1:22".parse().unwrap(), SYN, b"");
    let to_ourselves = ethernet(OUR_MACS[0], CLIENT_MAC, &to_ourselves);
    let others = |rig: &Rig| rig.counts().dropped_total() + rig.counts().to_host - overload(rig);
    let (before, breaths) = (others(&rig), 500);
    let mut fresh = (1000..).map(|number| segment(number, SYN));
    let (mut carried, mut opened) = (0, 0);
    for _ in 0..breaths {
        let standing = (0..STANDING).map(|number| segment(number, ACK));
        let frames = standing.chain(fresh.by_ref().take(3)).chain([to_ourselves.clone()]);
        frames.for_each(|frame| rig.far[0].inject(&frame).unwrap());
        assert_eq!(rig.workers[0].breathe(rig.now), 8, "never less than a full burst");
        for left in rig.collect().iter().filter(|left| left.link == 1) {
            let is_syn = read(&left.frame).flags & SYN != 0;
            (carried, opened) = (carried + u64::from(!is_syn), opened + u64::from(is_syn));
        }
    }
    rig.assert_conservation();
    assert_eq!(carried, breaths * u64::from(STANDING), "what stands loses nothing");
    assert_eq!(opened + overload(&rig), breaths * 3, "SYNs to the service, and no others");
    assert!((breaths..breaths + 100).contains(&opened), "one a breath at the end: {opened}");
    assert_eq!(others(&rig) - before, breaths, "and those to ourselves arrived there");
    // With time again all are let in.
    rig.settle();
    for _ in 0..10 {
        rig.settle();
    }
    let (before, all) = (rig.conns(), (1..4).map(|n| segment(60_000 + n, SYN)).collect::<Vec<_>>());
    rig.send(0, &all);
    assert_eq!(rig.conns() - before, 3);
    rig.finish();
}

#[test]
fn syns_of_a_flood_are_shed_unseen_with_a_tag_as_without() {
    for vlan in [0, 7] {
        let interfaces = [(0, 0), (1, 0), (0, 7)].map(|(link, vlan)| interface(link, vlan, 1500));
        let limits = rvs_plane::worker::Limits { burst: 8, ..rig::LIMITS };
        let mut rig = Rig::new(network_with(interfaces.to_vec(), 8), &Plan { limits, ..PLAN });
        service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
        let segment = |number, flags| {
            let frame = segment(number, flags);
            if vlan == 0 { frame } else { tagged(&frame, vlan) }
        };
        for flags in [SYN, ACK] {
            assert_eq!(rig.send(0, &[segment(1, flags)]).len(), 1);
        }
        // Looked up, the last one of each burst would be seen to be of the connection that stands.
        let mut fresh = (1000..).map(|number| segment(number, SYN));
        for _ in 0..100 {
            let frames = fresh.by_ref().take(6).chain([ACK, SYN].map(|flags| segment(1, flags)));
            frames.for_each(|frame| rig.far[0].inject(&frame).unwrap());
            assert_eq!(rig.workers[0].breathe(rig.now), 8, "a full burst");
        }
        let left = rig.collect();
        let seen = left.iter().map(|left| read(&untagged(&left.frame).1));
        let again = seen.filter(|seen| seen.source == client(1) && seen.flags == SYN).count();
        assert!((1..40).contains(&again), "in VLAN {vlan}: {again} of 100");
        rig.finish();
    }
}

#[test]
fn a_service_that_is_removed_leaves_no_end_that_syns_are_shed_of() {
    const OTHER: &str = "198.51.100.80:81";
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let limits = rvs_plane::worker::Limits { burst: 8, ..rig::LIMITS };
    let mut rig = Rig::new(network, &Plan { limits, ..PLAN });
    let flooded = service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    rig.add_service((TCP, OTHER), SchedulerKind::Rr, &[(DESTS[0], ForwardMethod::Direct, 1)]);
    let standing = |flags| {
        let packet = tcp(client(1), OTHER.parse().unwrap(), flags, b"");
        ethernet(OUR_MACS[0], CLIENT_MAC, &packet)
    };
    for flags in [SYN, ACK] {
        assert_eq!(rig.send(0, &[standing(flags)]).len(), 1);
    }
    let mut fresh = (1000..).map(|number| segment(number, SYN));
    let mut breathe = |rig: &mut Rig| {
        let frames = fresh.by_ref().take(7).chain([standing(ACK)]);
        frames.for_each(|frame| rig.far[0].inject(&frame).unwrap());
        assert_eq!(rig.workers[0].breathe(rig.now), 8, "a full burst");
        rig.discard();
        overload(rig)
    };
    let before = (0..100).map(|_| breathe(&mut rig)).last();
    assert!(before > Some(400), "{before:?}");
    rig.remove_service(flooded);
    assert_eq!(Some(breathe(&mut rig)), before, "they are the director's own");
    rig.finish();
}

#[test]
fn a_worker_that_does_not_keep_up_with_what_others_hand_over_has_no_time_either() {
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let limits = rvs_plane::worker::Limits { burst: 8, ..rig::LIMITS };
    // All that clients send comes to the first worker.
    let mut rig = Rig::new(network, &Plan { workers: 2, limits, rss: [|_| 0, |_| 0], ..PLAN });
    service(&mut rig, TCP, SchedulerKind::Rr, ForwardMethod::Direct);
    let owner = |number: u16| {
        let client = client(number);
        rvs_plane::steering::Steering::new(2).owner_of(client.ip(), client.port())
    };
    // Of the first numbers, addresses and ports cancel out: they have one owner.
    let mut fresh = (1000..60_000).filter(|number| owner(*number) == 1);
    let standing = fresh.next().unwrap();
    for flags in [SYN, ACK] {
        assert_eq!(rig.send(0, &[segment(standing, flags)]).len(), 1);
    }
    for turn in 0..200 {
        let syns = fresh.by_ref().take(7).map(|number| segment(number, SYN));
        let frames = syns.chain([segment(standing, ACK)]);
        frames.for_each(|frame| rig.far[0].inject(&frame).unwrap());
        rig.workers[0].breathe(rig.now);
        if turn % 2 == 0 {
            rig.workers[1].breathe(rig.now);
        }
        rig.discard();
    }
    let counts = [0, 1].map(|worker: usize| rig.shared[worker].frames.read().handed);
    assert!(counts[0] > 1000 && counts[1] == 0, "{counts:?}");
    assert!(overload(&rig) > 300, "{}", overload(&rig));
    rig.settle();
    rig.finish();
}
