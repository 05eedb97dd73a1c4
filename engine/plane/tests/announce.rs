//! What the director says of its addresses before anybody asks, and to routers that ask for groups.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rig::frames::{TCP, ethernet, ip, mac_at, read_arp, read_ndp, solicited_node, sum};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, network};
use rvs_model::{SchedulerKind, TICKS_PER_SECOND};
use rvs_wire::mac::MacAddr;

type Frames = [(usize, Vec<u8>)];

fn rig(workers: u16) -> Rig {
    Rig::new(network().announcing(true), &Plan { workers, ..PLAN })
}

/// IPv4 addresses announced on each link.
fn announced4(out: &Frames) -> Vec<(usize, Ipv4Addr)> {
    let read = |(link, frame): &(usize, Vec<u8>)| {
        let seen = read_arp(frame)?;
        assert_eq!(mac_at(frame, 0), MacAddr::BROADCAST);
        assert_eq!(mac_at(frame, 6), OUR_MACS[*link]);
        // RFC 5227 section 2.3: about oneself.
        assert_eq!(seen.sender.1, seen.target.1);
        Some((*link, seen.sender.1))
    };
    out.iter().filter_map(read).collect()
}

fn announced6(out: &Frames) -> Vec<(usize, Ipv6Addr)> {
    let read = |(link, frame): &(usize, Vec<u8>)| {
        let seen = read_ndp(frame).filter(|_| frame[54] == 136)?;
        assert_eq!(mac_at(frame, 0), MacAddr([0x33, 0x33, 0, 0, 0, 1]), "to all nodes");
        assert_eq!(frame[58] & 0x60, 0x20, "not solicited, overrides");
        Some((*link, seen.target))
    };
    out.iter().filter_map(read).collect()
}

/// Groups reported on each link, with the type of record.
fn reported(out: &Frames) -> Vec<(usize, u8, Ipv6Addr)> {
    let mut all = Vec::new();
    for (link, frame) in out.iter().filter(|(_, frame)| frame.len() > 62 && frame[62] == 143) {
        assert_eq!(mac_at(frame, 0), MacAddr([0x33, 0x33, 0, 0, 0, 0x16]));
        let count = usize::from(u16::from_be_bytes([frame[68], frame[69]]));
        for record in frame[70..].chunks(20).take(count) {
            let group: [u8; 16] = record[4..20].try_into().unwrap();
            all.push((*link, record[0], group.into()));
        }
    }
    all
}

fn groups(addresses: &[&str]) -> Vec<Ipv6Addr> {
    addresses.iter().map(|text| solicited_node(text.parse().unwrap()).1).collect()
}

#[test]
fn addresses_of_links_are_announced_twice_at_the_start_and_then_no_more() {
    let mut rig = rig(3);
    let first = rig.settle();
    let v4 = vec![(0, [198, 51, 100, 1].into()), (1, [192, 0, 2, 1].into())];
    assert_eq!(announced4(&first), v4);
    let v6: Vec<(usize, Ipv6Addr)> = [
        (0, "2001:db8:c::1"),
        (0, "fe80::ff:fe00:1"),
        (1, "2001:db8:d::1"),
        (1, "fe80::ff:fe00:101"),
    ]
    .into_iter()
    .map(|(link, text)| (link, text.parse().unwrap()))
    .collect();
    assert_eq!(announced6(&first), v6);
    let joined: Vec<_> = reported(&first).into_iter().map(|(link, kind, _)| (link, kind)).collect();
    assert_eq!(joined, [(0, 4), (0, 4), (1, 4), (1, 4)]);
    let again = rig.pass(2 * TICKS_PER_SECOND);
    assert_eq!((announced4(&again), announced6(&again)), (v4, v6));
    assert!(rig.pass(60 * TICKS_PER_SECOND).is_empty());
}

#[test]
fn a_vip_is_announced_where_its_network_is_and_nowhere_if_it_is_routed() {
    let mut rig = rig(1);
    rig.pass(4 * TICKS_PER_SECOND);
    for vip in ["198.51.100.80:80", "[2001:db8:d::80]:80", "203.0.113.80:80"] {
        rig.add_service((TCP, vip), SchedulerKind::Rr, &[]);
    }
    let out = rig.pass(4 * TICKS_PER_SECOND);
    assert_eq!(
        announced4(&out).iter().filter(|it| **it == (0, [198, 51, 100, 80].into())).count(),
        2
    );
    assert!(!announced4(&out).iter().any(|(_, vip)| *vip == Ipv4Addr::from([203, 0, 113, 80])));
    let six: Ipv6Addr = "2001:db8:d::80".parse().unwrap();
    assert_eq!(announced6(&out).iter().filter(|it| **it == (1, six)).count(), 2);
    let group = groups(&["2001:db8:d::80"])[0];
    assert!(reported(&out).contains(&(1, 4, group)) && !reported(&out).contains(&(0, 4, group)));
}

#[test]
fn many_addresses_are_announced_at_a_bounded_rate() {
    let mut rig = rig(1);
    for last in 2..=60 {
        let vip = format!("198.51.100.{last}:80");
        rig.add_service((TCP, &vip), SchedulerKind::Rr, &[]);
    }
    let mut all = rig.settle();
    for _ in 0..4 * TICKS_PER_SECOND {
        let out = rig.pass(1);
        assert!(out.len() <= 12, "{}", out.len());
        all.extend(out);
    }
    let mut seen: Vec<_> = announced4(&all).into_iter().map(|(_, vip)| vip).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 61, "every one of them");
}

/// A general query of version 2 (RFC 3810 section 5.1).
fn query(from: Ipv6Addr, hops: u8) -> Vec<u8> {
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut message = vec![130, 0, 0, 0, 0, 10, 0, 0];
    message.extend([0; 20]);
    let pseudo: u32 = sum(&from.octets()) + sum(&all.octets()) + 58 + 28;
    let folded = rig::frames::folded(pseudo + sum(&message));
    message[2..4].copy_from_slice(&(!folded).to_be_bytes());
    let options = [58, 0, 5, 2, 0, 0, 1, 0];
    let packet = ip(from.into(), IpAddr::V6(all), 0, hops, &[&options[..], &message].concat());
    ethernet(MacAddr([0x33, 0x33, 0, 0, 0, 1]), CLIENT_MAC, &packet)
}

#[test]
fn a_router_that_asks_for_groups_is_told_those_of_its_link_once_a_second() {
    let mut rig = Rig::new(network(), &PLAN);
    let asks = query("fe80::fe".parse().unwrap(), 1);
    let mut out = rig.send(0, &[asks.clone(), asks.clone(), asks.clone()]);
    let expected = groups(&["2001:db8:c::1", "fe80::ff:fe00:1"]);
    let expected: Vec<_> = expected.into_iter().map(|group| (0, 2, group)).collect();
    out.extend(rig.pass(1));
    assert_eq!(reported(&out), expected);
    assert_eq!(out.len(), 1);
    assert_eq!(rig.drops()["consumed"], 3);
    assert!(rig.send(0, std::slice::from_ref(&asks)).is_empty(), "not twice a second");
    rig.pass(TICKS_PER_SECOND);
    let mut out = rig.send(0, &[asks]);
    out.extend(rig.pass(1));
    assert_eq!(reported(&out), expected);
    for wrong in
        [query("fe80::fe".parse().unwrap(), 2), query("2001:db8:c::fe".parse().unwrap(), 1)]
    {
        rig.pass(2 * TICKS_PER_SECOND);
        let mut out = rig.send(0, &[wrong]);
        out.extend(rig.pass(1));
        assert!(out.is_empty(), "from beyond the link, or from no link-local address");
    }
}
