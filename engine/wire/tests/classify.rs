//! What frames are said to be.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod examples;

use core::net::IpAddr;
use examples::*;
use rvs_wire::ethernet::ethertype;
use rvs_wire::flow::{Ends, Ends4, Ends6, Family, Key, V4, V6, protocol};
use rvs_wire::ipv6_ext::next_header;
use rvs_wire::mac::MacAddr;
use rvs_wire::packet::{Class, Packet, Plain, Slow, SlowKind, classify, plain, syn_to};
use rvs_wire::tcp::flag;
use rvs_wire::unusable::Unusable;

fn v4(packet: &[u8]) -> Class {
    classify(&frame(ethertype::IPV4, packet), ME)
}

fn v6(packet: &[u8]) -> Class {
    classify(&frame(ethertype::IPV6, packet), ME)
}

fn key4(protocol: u8, port: u16) -> Key<V4> {
    Key { ends: Ends4::new((CLIENT, CLIENT_PORT), (VIP, port)), protocol }
}

fn key6(protocol: u8, port: u16) -> Key<V6> {
    Key { ends: Ends6::new((CLIENT6, CLIENT_PORT), (VIP6, port)), protocol }
}

#[test]
fn plain_tcp_and_udp_are_told_by_their_ends() {
    let tcp = Packet {
        key: key4(protocol::TCP, HTTP),
        l3: 14,
        l4: 20,
        packet_octets: 48,
        vlan: 0,
        flags: flag::SYN,
    };
    assert_eq!(v4(&tcp4()), Class::V4(tcp));
    let udp = Packet { key: key4(protocol::UDP, 53), packet_octets: 33, flags: 0, ..tcp };
    assert_eq!(v4(&udp4()), Class::V4(udp));

    let tcp = Packet {
        key: key6(protocol::TCP, HTTP),
        l3: 14,
        l4: 40,
        packet_octets: 68,
        vlan: 0,
        flags: flag::SYN,
    };
    assert_eq!(v6(&tcp6()), Class::V6(tcp));
    let udp = Packet { key: key6(protocol::UDP, 53), packet_octets: 53, flags: 0, ..tcp };
    assert_eq!(v6(&udp6()), Class::V6(udp));
}

#[test]
fn a_syn_is_told_without_a_look_at_the_rest() {
    let mut syns = 0;
    for (name, frame) in frames() {
        for flags in 0..=u8::MAX {
            for (ip, at) in [(4, 14 + 20 + 13), (6, 14 + 40 + 13)] {
                let mut frame = frame.clone();
                if frame.get(at).is_none() || frame[14] >> 4 != ip {
                    continue;
                }
                frame[at] = flags;
                let end: Option<(IpAddr, u16)> = match plain(&frame, ME) {
                    Some(Plain::V4(packet)) if packet.key.protocol == protocol::TCP => {
                        let (address, port) = packet.key.ends.destination();
                        Some((address.into(), port))
                    }
                    Some(Plain::V6(packet)) if packet.key.protocol == protocol::TCP => {
                        let (address, port) = packet.key.ends.destination();
                        Some((address.into(), port))
                    }
                    Some(_) => None,
                    // Not in order, perhaps.
                    None => continue,
                };
                let is_syn = flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
                syns += u32::from(end.is_some() && is_syn);
                assert_eq!(syn_to(&frame, ME), end.filter(|_| is_syn), "{name}, {flags:#x}");
                assert_eq!(syn_to(&frame, GATEWAY), None);
            }
        }
    }
    assert!(syns >= 2 * 32, "{syns}");
    let mut fragment = frame(ethertype::IPV4, &tcp4());
    assert!(syn_to(&fragment, ME).is_some());
    fragment[20] |= 0x20;
    assert_eq!(syn_to(&fragment, ME), None);
}

#[test]
fn padding_is_no_part_of_the_packet() {
    for packet in [udp4(), udp6()] {
        let family = if packet[0] >> 4 == 4 { ethertype::IPV4 } else { ethertype::IPV6 };
        let bare = frame(family, &packet);
        let padded = [&bare[..], &[0xee; 30]].concat();
        assert_eq!(classify(&padded, ME), classify(&bare, ME));
    }
}

#[test]
fn options_and_extension_headers_only_move_the_transport_header() {
    let examples = frames();
    let find = |name| &examples.iter().find(|(other, _)| *other == name).unwrap().1;
    let Class::V4(packet) = classify(find("tcp4 with options"), ME) else { panic!("not IPv4") };
    assert_eq!((packet.key, packet.l4), (key4(protocol::TCP, HTTP), 28));
    let Class::V6(packet) = classify(find("tcp6 with extension headers"), ME) else {
        panic!("not IPv6");
    };
    assert_eq!((packet.key, packet.l4), (key6(protocol::TCP, HTTP), 40 + 5 * 8 + 12));
    assert_eq!(packet.flags, flag::SYN);
}

#[test]
fn a_tag_says_the_vlan_and_nothing_else_changes() {
    let Class::V4(packet) = classify(&tagged(&frame(ethertype::IPV4, &tcp4()), 0xb064), ME) else {
        panic!("not IPv4");
    };
    assert_eq!((packet.vlan, packet.l3, packet.l4), (100, 18, 20));
    // VLAN 0: a priority and no VLAN.
    let Class::V6(packet) = classify(&tagged(&frame(ethertype::IPV6, &udp6()), 0xe000), ME) else {
        panic!("not IPv6");
    };
    assert_eq!((packet.vlan, packet.l3), (0, 18));
}

#[test]
fn everything_else_that_makes_sense_is_slow() {
    let expected = [
        ("fragment4", SlowKind::Ipv4),
        ("echo4", SlowKind::Ipv4),
        ("error4", SlowKind::Ipv4),
        ("echo6", SlowKind::Ipv6),
        ("error6", SlowKind::Ipv6),
        ("tcp4 in ipv4", SlowKind::Ipv4),
        ("tcp4 in ipv6", SlowKind::Ipv6),
        ("udp6 in ipv4", SlowKind::Ipv4),
        ("udp6 in ipv6", SlowKind::Ipv6),
        ("arp request", SlowKind::Arp),
        ("arp reply", SlowKind::Arp),
        ("solicitation", SlowKind::Ipv6),
        ("advertisement", SlowKind::Ipv6),
    ];
    for (name, frame) in frames() {
        match classify(&frame, ME) {
            Class::Slow(slow) => {
                let (_, kind) = expected.iter().find(|(other, _)| *other == name).unwrap();
                assert_eq!(slow.kind, *kind, "{name}");
                assert_eq!(usize::from(slow.l3 + slow.packet_octets), frame.len(), "{name}");
                assert_eq!(slow.unicast, frame[..6] == ME.0, "{name}");
            }
            class => {
                let slow = expected.iter().any(|(other, _)| *other == name);
                assert!(!slow && matches!(class, Class::V4(_) | Class::V6(_)), "{name}: {class:?}");
            }
        }
    }
}

#[test]
fn fragments_are_slow_and_atomic_fragments_are_whole() {
    for (flags, whole) in [(0x4000_u16, true), (0, true), (0x2000, false), (1, false)] {
        let mut packet = tcp4();
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        sum_up_v4(&mut packet);
        assert_eq!(matches!(v4(&packet), Class::V4(_)), whole, "{flags:04x}");
        assert_eq!(matches!(v4(&packet), Class::Slow(_)), !whole, "{flags:04x}");
    }
    let mut packet = extended(tcp6(), &[next_header::FRAGMENT]);
    for (offset, whole) in [(0_u16, true), (1, false), (8, false)] {
        packet[42..44].copy_from_slice(&offset.to_be_bytes());
        assert_eq!(matches!(v6(&packet), Class::V6(_)), whole, "{offset}");
        assert_eq!(matches!(v6(&packet), Class::Slow(_)), !whole, "{offset}");
    }
}

#[test]
fn frames_for_groups_are_slow_and_frames_for_others_unusable() {
    for (family, packet) in [(ethertype::IPV4, tcp4()), (ethertype::IPV6, udp6())] {
        let mut group = frame(family, &packet);
        group[..6].copy_from_slice(&MacAddr::BROADCAST.0);
        let Class::Slow(Slow { unicast, kind, .. }) = classify(&group, ME) else {
            panic!("not slow");
        };
        assert!(!unicast);
        assert_eq!(kind == SlowKind::Ipv6, family == ethertype::IPV6);
        let other = frame(family, &packet);
        assert_eq!(classify(&other, GATEWAY), Class::Unusable(Unusable::OtherHost));
    }
}

/// The frame of an example after a change, its IPv4 header checksum right again.
fn spoilt(name: &str, change: impl Fn(&mut Vec<u8>)) -> Class {
    let mut frame = frames().into_iter().find(|(other, _)| *other == name).unwrap().1;
    change(&mut frame);
    if frame[12..14] == ethertype::IPV4.to_be_bytes() && frame[14] & 0x0f > 4 {
        sum_up_v4(&mut frame[14..]);
    }
    classify(&frame, ME)
}

#[test]
fn every_reason_has_a_frame_that_is_refused_for_it() {
    use Unusable as U;
    let mut seen = vec![
        (U::OtherHost, spoilt("tcp4", |frame| frame[5] = 9)),
        (U::VlanStack, spoilt("tcp4 in a vlan", |frame| frame[16..18].copy_from_slice(&[0x81, 0]))),
        (U::VlanStack, spoilt("tcp4", |frame| frame[12..14].copy_from_slice(&[0x88, 0xa8]))),
        (U::Ethertype, spoilt("tcp4", |frame| frame[12] = 0x88)),
        (U::Ethertype, spoilt("tcp4", |frame| frame[12..14].copy_from_slice(&[0, 48]))),
        (U::ArpFormat, spoilt("arp request", |frame| frame[15] = 6)),
        (U::Ipv4Version, spoilt("tcp4", |frame| frame[14] = 0x65)),
        (U::Ipv4HeaderLength, spoilt("tcp4", |frame| frame[14] = 0x44)),
        (U::Ipv4TotalLength, spoilt("tcp4", |frame| frame[17] = 19)),
        (U::Ipv4TotalLength, spoilt("tcp4", |frame| frame[17] = 49)),
        (U::Ipv4Options, spoilt("tcp4 with options", |frame| frame[35] = 9)),
        (U::SourceRoute, spoilt("tcp4 with options", |frame| frame[34] = 131)),
        (U::SourceRoute, spoilt("tcp6 with extension headers", |frame| frame[73] = 1)),
        (U::Ipv6Version, spoilt("tcp6", |frame| frame[14] = 0x45)),
        (U::Ipv6PayloadLength, spoilt("tcp6", |frame| frame[19] = 29)),
        (U::Ipv6Extensions, spoilt("tcp6 with extension headers", |frame| frame[54] = 0)),
        (U::TcpHeaderLength, spoilt("tcp4", |frame| frame[46] = 0x40)),
        (U::TcpHeaderLength, spoilt("tcp6", |frame| frame[66] = 0x80)),
        (U::UdpLength, spoilt("udp4", |frame| frame[39] = 7)),
        (U::UdpLength, spoilt("udp6", |frame| frame[59] = 14)),
        (U::Truncated, spoilt("udp4", |frame| frame[17] = 27)),
        (U::Truncated, spoilt("tcp6", |frame| frame[19] = 19)),
    ];
    let mut wrong = frame(ethertype::IPV4, &tcp4());
    wrong[22] = 63;
    seen.push((U::Ipv4Checksum, classify(&wrong, ME)));
    for (reason, class) in &seen {
        assert_eq!(*class, Class::Unusable(*reason));
    }
    // Only what is wrong in a message is not seen here: `V4::message` and `Ndp::parse` say it.
    let beyond = [U::IcmpChecksum, U::Ndp];
    let missing = U::ALL
        .iter()
        .filter(|reason| !beyond.contains(reason))
        .find(|reason| !seen.iter().any(|(other, _)| other == *reason));
    assert_eq!(missing, None);
}

#[test]
fn no_truncated_frame_is_taken_for_a_whole_one() {
    for (name, frame) in frames() {
        let headers = if name.starts_with("arp") { 42 } else { frame.len() };
        for len in 0..headers {
            let class = classify(&frame[..len], ME);
            assert!(matches!(class, Class::Unusable(_)), "{name}, {len} octets: {class:?}");
        }
    }
}

/// What is the same of a frame and of the same frame in a VLAN.
fn without_tag(class: Class) -> Class {
    fn bare<F: Family>(packet: Packet<F>) -> Packet<F> {
        Packet { l3: 0, vlan: 0, ..packet }
    }
    match class {
        Class::V4(packet) => Class::V4(bare(packet)),
        Class::V6(packet) => Class::V6(bare(packet)),
        Class::Slow(slow) => Class::Slow(Slow { l3: 0, vlan: 0, ..slow }),
        Class::Unusable(reason) => Class::Unusable(reason),
    }
}

/// Tagged frames never take the short way: this compares the short way with the long one.
#[test]
fn the_short_way_and_the_long_way_agree() {
    let mut random = Random::new(7);
    let untagged: Vec<_> =
        frames().into_iter().filter(|(_, frame)| frame[12..14] != [0x81, 0]).collect();
    let mut usable = 0;
    for round in 0..400_000 {
        let (name, mut frame) = untagged[random.below(untagged.len())].clone();
        for _ in 0..random.below(3) {
            let at = 14 + random.below(frame.len().min(80) - 14);
            frame[at] = if random.below(2) == 0 { random.octet() } else { frame[at] ^ 1 };
        }
        if frame[12..14] == ethertype::IPV4.to_be_bytes() && frame[14] == 0x45 {
            sum_up_v4(&mut frame[14..]);
        }
        let class = classify(&frame, ME);
        usable += usize::from(matches!(class, Class::V4(_) | Class::V6(_)));
        let long_way = classify(&tagged(&frame, 5), ME);
        assert_eq!(without_tag(class), without_tag(long_way), "{name}, round {round}: {frame:x?}");
    }
    assert!(usable > 50_000, "{usable}");
}
