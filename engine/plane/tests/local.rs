//! What the director does as a host and as a router: neighbours, echo, refusals, routing, VLANs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod rig;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rig::frames::{
    ACK, ARP_REPLY, ARP_REQUEST, ArpSeen, FIN, L3, NdpSeen, OVERRIDE, RST, SOLICITED, SYN, Seen,
    Segment, TCP, UDP, advertisement, arp, changed, echo_request, ethernet, fragments, icmp,
    mac_at, may_fragment, read, read_arp, read_ndp, read_packet, reassembled, solicitation,
    solicited_node, tagged, tcp, trimmed, udp, udp_without_checksum, untagged, with_extension,
    with_hops,
};
use rig::{
    CLIENT_MAC, LIMITS, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network,
    network_with,
};
use rvs_model::ForwardMethod::{Direct, Masquerade, Tunnel};
use rvs_model::SchedulerKind;
use rvs_plane::{Limits, Network};
use rvs_wire::mac::MacAddr;

const NOBODY: MacAddr = MacAddr([0; 6]);

fn v4(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

fn v6(address: &str) -> Ipv6Addr {
    address.parse().unwrap()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// A director that knows no destination beforehand.
fn stranger() -> Rig {
    Rig::new(network(), &PLAN)
}

/// An address of a destination as ARP and neighbour discovery have it.
fn dest4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 11 + number)
}

fn dest6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 0x11 + u16::from(number))
}

/// A datagram that is routed from the clients' side to a destination's address.
fn transit(is_v6: bool, number: u8, mark: u8) -> Vec<u8> {
    let client = if is_v6 { "[2001:db8:99::7]:7" } else { "203.0.113.7:7" };
    let packet = udp(client.parse().unwrap(), SocketAddr::new(dest_ip(is_v6, number), 9), &[mark]);
    ethernet(OUR_MACS[0], CLIENT_MAC, &packet)
}

/// Our question about a destination's address.
fn question(is_v6: bool, number: u8, frame: &[u8]) -> MacAddr {
    if is_v6 {
        let (group_mac, group) = solicited_node(dest6(number));
        let seen = read_ndp(frame).unwrap();
        let expected = NdpSeen {
            to: seen.to,
            kind: 135,
            source: v6("2001:db8:d::1"),
            destination: group,
            flags: 0,
            target: dest6(number),
            mac: Some(OUR_MACS[1]),
        };
        assert_eq!(seen, expected);
        if seen.to == group_mac { MacAddr::BROADCAST } else { seen.to }
    } else {
        let seen = read_arp(frame).unwrap();
        let expected = ArpSeen {
            to: seen.to,
            operation: 1,
            sender: (OUR_MACS[1], v4("192.0.2.1")),
            target: (NOBODY, dest4(number)),
        };
        assert_eq!(seen, expected);
        seen.to
    }
}

/// A destination's answer to our question.
fn answer(is_v6: bool, number: u8) -> Vec<u8> {
    let mac = dest_mac(number);
    if is_v6 {
        let ours = (OUR_MACS[1], v6("2001:db8:d::1"));
        advertisement((mac, dest6(number)), ours, SOLICITED | OVERRIDE)
    } else {
        arp(OUR_MACS[1], ARP_REPLY, (mac, dest4(number)), (OUR_MACS[1], v4("192.0.2.1")))
    }
}

fn dropped(rig: &Rig, reason: &str) -> u64 {
    rig.drops().get(reason).copied().unwrap_or_default()
}

fn only(out: &[(usize, Vec<u8>)]) -> (usize, &[u8]) {
    assert_eq!(out.len(), 1, "{out:?}");
    (out[0].0, &out[0].1)
}

mod neighbors {
    use super::*;

    #[test]
    fn own_addresses_and_vips_are_answered_for_on_every_link() {
        let mut rig = stranger();
        rig.add_service((TCP, "203.0.113.80:80"), SchedulerKind::Rr, &[]);
        let asker = (dest_mac(3), dest4(3));
        for address in ["192.0.2.1", "198.51.100.1", "203.0.113.80"] {
            let asks = arp(MacAddr::BROADCAST, ARP_REQUEST, asker, (NOBODY, v4(address)));
            let out = rig.send(1, &[asks]);
            let (link, frame) = only(&out);
            let expected = ArpSeen {
                to: dest_mac(3),
                operation: 2,
                sender: (OUR_MACS[1], v4(address)),
                target: asker,
            };
            assert_eq!((link, read_arp(frame)), (1, Some(expected)));
        }
        let other = arp(MacAddr::BROADCAST, ARP_REQUEST, asker, (NOBODY, v4("192.0.2.77")));
        assert_eq!(rig.send(1, &[other]), []);
        assert_eq!(dropped(&rig, "arp-ignored"), 1);
    }

    #[test]
    fn solicitations_for_own_addresses_vips_and_the_link_local_one_are_answered() {
        let mut rig = stranger();
        rig.add_service((TCP, "[2001:db8:5::80]:80"), SchedulerKind::Rr, &[]);
        let asker = (dest_mac(3), dest6(3));
        for address in ["2001:db8:d::1", "2001:db8:c::1", "2001:db8:5::80", "fe80::ff:fe00:101"] {
            let out = rig.send(1, &[solicitation(asker, v6(address))]);
            let (link, frame) = only(&out);
            let expected = NdpSeen {
                to: dest_mac(3),
                kind: 136,
                source: v6(address),
                destination: asker.1,
                flags: 0xe0,
                target: v6(address),
                mac: Some(OUR_MACS[1]),
            };
            assert_eq!((link, read_ndp(frame)), (1, Some(expected)));
        }
        // The first link's own link-local address is not ours on the second.
        assert_eq!(rig.send(1, &[solicitation(asker, v6("fe80::ff:fe00:1"))]), []);
        assert_eq!(rig.send(1, &[solicitation(asker, dest6(9))]), []);
        assert_eq!(dropped(&rig, "ndp-ignored"), 2);
    }

    #[test]
    fn who_probes_for_an_address_is_answered_and_not_believed_to_have_it() {
        let mut rig = stranger();
        let probe = arp(
            MacAddr::BROADCAST,
            ARP_REQUEST,
            (dest_mac(0), v4("0.0.0.0")),
            (NOBODY, v4("192.0.2.1")),
        );
        let out = rig.send(1, &[probe]);
        assert_eq!(read_arp(only(&out).1).unwrap().to, dest_mac(0));

        let probe = solicitation((dest_mac(0), Ipv6Addr::UNSPECIFIED), v6("2001:db8:d::1"));
        let out = rig.send(1, &[probe]);
        let seen = read_ndp(only(&out).1).unwrap();
        assert_eq!((seen.destination, seen.flags), (v6("ff02::1"), 0xa0), "told to all, unasked");
        assert_eq!(seen.to, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
        for is_v6 in [false, true] {
            let out = rig.send(0, &[transit(is_v6, 0, 1)]);
            assert_eq!(question(is_v6, 0, only(&out).1), MacAddr::BROADCAST);
        }
    }

    #[test]
    fn who_asks_for_us_is_known_from_then_on() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let asks = if is_v6 {
                solicitation((dest_mac(0), dest6(0)), v6("2001:db8:d::1"))
            } else {
                let ours = (NOBODY, v4("192.0.2.1"));
                arp(MacAddr::BROADCAST, ARP_REQUEST, (dest_mac(0), dest4(0)), ours)
            };
            rig.send(1, &[asks]);
            let out = rig.send(0, &[transit(is_v6, 0, 1)]);
            assert_eq!(mac_at(&out[0].1, 0), dest_mac(0), "IPv6 {is_v6}");
        }
    }

    #[test]
    fn frames_wait_for_the_answer_and_leave_in_order_the_oldest_making_room() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let frames: Vec<_> = (0..5).map(|mark| transit(is_v6, 0, mark)).collect();
            let out = rig.send(0, &frames);
            assert_eq!(question(is_v6, 0, only(&out).1), MacAddr::BROADCAST);
            assert_eq!(rig.counts().held, 3);
            // RFC 1122 section 2.3.2.2 and RFC 4861 section 7.2.2: the latest are kept.
            assert_eq!(dropped(&rig, "neighbor-queue-full"), 2);
            let out = rig.send(1, &[answer(is_v6, 0)]);
            let marks: Vec<_> = out.iter().map(|(_, frame)| read(frame).data[0]).collect();
            assert_eq!((marks, rig.counts().held), (vec![2, 3, 4], 0));
            assert!(out.iter().all(|(link, frame)| *link == 1 && mac_at(frame, 0) == dest_mac(0)));
            rig.finish();
        }
    }

    #[test]
    fn three_unanswered_questions_are_enough() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let mut asked = rig.send(0, &[transit(is_v6, 0, 1), transit(is_v6, 0, 2)]);
            for _ in 0..3 * 8 - 1 {
                asked.extend(rig.pass(1));
            }
            assert_eq!((asked.len(), dropped(&rig, "neighbor-unresolved")), (3, 0));
            for (_, frame) in &asked {
                assert_eq!(question(is_v6, 0, frame), MacAddr::BROADCAST);
            }
            assert_eq!(rig.pass(1), []);
            assert_eq!((rig.counts().held, dropped(&rig, "neighbor-unresolved")), (0, 2));
            assert_eq!(rig.send(0, &[transit(is_v6, 0, 3)]), [], "no new question at once");
            assert_eq!(dropped(&rig, "neighbor-unresolved"), 3);
            rig.pass(8);
            let out = rig.send(0, &[transit(is_v6, 0, 4)]);
            question(is_v6, 0, only(&out).1);
            rig.finish();
        }
    }

    #[test]
    fn a_neighbor_is_asked_again_itself_and_used_meanwhile() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            rig.send(0, &[transit(is_v6, 0, 1)]);
            rig.send(1, &[answer(is_v6, 0)]);
            assert_eq!(rig.pass(30 * 8 - 1), []);
            let out = rig.pass(1);
            assert_eq!(question(is_v6, 0, only(&out).1), dest_mac(0));
            assert_eq!(mac_at(&rig.send(0, &[transit(is_v6, 0, 1)])[0].1, 0), dest_mac(0));
            rig.send(1, &[answer(is_v6, 0)]);
            assert_eq!(rig.pass(30 * 8 - 1), [], "the answer counts for another 30 s");
            assert_eq!(rig.pass(2 * 8 + 1).len(), 3);
            assert_eq!(mac_at(&rig.send(0, &[transit(is_v6, 0, 1)])[0].1, 0), dest_mac(0));
            rig.pass(2 * 8);
            let out = rig.send(0, &[transit(is_v6, 0, 1)]);
            assert_eq!(question(is_v6, 0, only(&out).1), MacAddr::BROADCAST, "lost");
        }
    }

    #[test]
    fn an_announcement_moves_a_neighbor_and_makes_none() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let announcement = |number: u8, mac: MacAddr| {
                if is_v6 {
                    let all = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), v6("ff02::1"));
                    advertisement((mac, dest6(number)), all, OVERRIDE)
                } else {
                    let it = (mac, dest4(number));
                    arp(MacAddr::BROADCAST, ARP_REQUEST, it, (NOBODY, it.1))
                }
            };
            rig.send(1, &[announcement(0, dest_mac(0))]);
            let out = rig.send(0, &[transit(is_v6, 0, 1)]);
            question(is_v6, 0, only(&out).1);
            rig.send(1, &[answer(is_v6, 0)]);
            rig.send(1, &[announcement(0, dest_mac(7))]);
            let out = rig.send(0, &[transit(is_v6, 0, 1)]);
            assert_eq!(mac_at(&out[0].1, 0), dest_mac(7));
        }
    }

    /// Linux: `arp_accept` 0.
    #[test]
    fn an_answer_to_nothing_makes_no_neighbor() {
        let mut rig = stranger();
        rig.send(1, &[answer(false, 0), answer(true, 0)]);
        for is_v6 in [false, true] {
            let out = rig.send(0, &[transit(is_v6, 0, 1)]);
            assert_eq!(question(is_v6, 0, only(&out).1), MacAddr::BROADCAST);
        }
    }

    /// RFC 4861 section 7.2.5.
    #[test]
    fn an_advertisement_without_override_moves_nobody() {
        let mut rig = stranger();
        rig.send(0, &[transit(true, 0, 1)]);
        rig.send(1, &[answer(true, 0)]);
        let ours = (OUR_MACS[1], v6("2001:db8:d::1"));
        for flags in [0, SOLICITED] {
            rig.send(1, &[advertisement((dest_mac(7), dest6(0)), ours, flags)]);
            let out = rig.send(0, &[transit(true, 0, 1)]);
            assert_eq!(mac_at(&out[0].1, 0), dest_mac(0));
        }
        rig.send(0, &[transit(true, 1, 1)]);
        let out = rig.send(1, &[advertisement((dest_mac(1), dest6(1)), ours, SOLICITED)]);
        assert_eq!(mac_at(only(&out).1, 0), dest_mac(1), "nothing was known to be overridden");
    }

    #[test]
    fn nobody_is_believed_to_have_our_address_or_a_groups() {
        let mut rig = stranger();
        let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
        let liars = [
            arp(
                MacAddr::BROADCAST,
                ARP_REQUEST,
                (dest_mac(0), v4("192.0.2.1")),
                (NOBODY, dest4(5)),
            ),
            arp(
                OUR_MACS[1],
                ARP_REPLY,
                (dest_mac(0), v4("198.51.100.1")),
                (OUR_MACS[1], v4("192.0.2.1")),
            ),
            arp(OUR_MACS[1], ARP_REPLY, (group, dest4(0)), (OUR_MACS[1], v4("192.0.2.1"))),
            // Not of this link's network.
            arp(
                OUR_MACS[1],
                ARP_REPLY,
                (dest_mac(0), v4("198.51.100.9")),
                (OUR_MACS[1], v4("192.0.2.1")),
            ),
        ];
        assert_eq!(rig.send(1, &liars), []);
        let out = rig.send(0, &[transit(false, 0, 1)]);
        question(false, 0, only(&out).1);
        assert_eq!(rig.send(0, &[echo_request_to("198.51.100.1")]).len(), 1);
    }

    fn echo_request_to(address: &str) -> Vec<u8> {
        ethernet(OUR_MACS[0], CLIENT_MAC, &echo_request(ip("203.0.113.7"), ip(address), b""))
    }

    #[test]
    fn an_answer_that_reaches_another_worker_releases_what_waits() {
        // Sources of even ports and answers go to different queues.
        let by_first_octet_of_payload =
            |frame: &[u8]| u32::from(frame[12..14] == [8, 6] || frame[20] == 58);
        for is_v6 in [false, true] {
            let plan = Plan { workers: 2, rss: [|_| 0, by_first_octet_of_payload], ..PLAN };
            let mut rig = Rig::new(network(), &plan);
            let echo = if is_v6 { "2001:db8:99::7" } else { "203.0.113.7" };
            let packet = rig::frames::ip(ip(echo), dest_ip(is_v6, 0), 99, 64, b"no ports");
            let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)]);
            question(is_v6, 0, only(&out).1);
            let out = rig.send(1, &[answer(is_v6, 0)]);
            let (link, frame) = only(&out);
            assert_eq!((link, mac_at(frame, 0)), (1, dest_mac(0)), "IPv6 {is_v6}");
            rig.finish();
        }
    }

    #[test]
    fn a_full_table_never_sends_a_packet_to_somebody_elses_address() {
        for method in [Masquerade, Direct] {
            let limits = Limits { neighbors: 5, ..LIMITS };
            let mut rig = Rig::new(network(), &Plan { limits, ..PLAN });
            let port = if method == Masquerade { 8080 } else { 80 };
            let sockets: Vec<_> = (0..8)
                .map(|number| SocketAddr::new(dest_ip(false, number), port).to_string())
                .collect();
            let dests: Vec<_> = sockets.iter().map(|socket| (socket.as_str(), method, 1)).collect();
            rig.add_service((UDP, "198.51.100.80:80"), SchedulerKind::Rr, &dests);
            let burst: Vec<_> = (1000..1032)
                .map(|port| {
                    let client = SocketAddr::new(ip("203.0.113.7"), port);
                    let packet = udp(client, "198.51.100.80:80".parse().unwrap(), b"");
                    ethernet(OUR_MACS[0], CLIENT_MAC, &packet)
                })
                .collect();
            for _ in 0..200 {
                let out = rig.send(0, &burst);
                let dests: Vec<_> =
                    rig.dump(0, false).iter().map(|row| (row.client, row.dest)).collect();
                let mut answers = Vec::new();
                for (link, frame) in out {
                    assert_eq!(link, 1);
                    match read_arp(&frame) {
                        // The first six answer sooner or later.
                        Some(asked)
                            if asked.target.1.octets()[3] < 17 && rig.now.is_multiple_of(3) =>
                        {
                            answers.push(answer(false, asked.target.1.octets()[3] - 11));
                        }
                        Some(_) => {}
                        None => right_neighbor(&frame, &dests),
                    }
                }
                for (_, frame) in rig.send(1, &answers) {
                    if read_arp(&frame).is_none() {
                        right_neighbor(&frame, &dests);
                    }
                }
                rig.pass(5);
                rig.discard();
            }
            rig.finish();
        }
    }

    fn right_neighbor(frame: &[u8], dests: &[(SocketAddr, SocketAddr)]) {
        let seen = read(frame);
        let (_, dest) = dests.iter().find(|(client, _)| *client == seen.source).unwrap();
        let IpAddr::V4(address) = dest.ip() else { panic!("IPv4") };
        assert_eq!(seen.to, dest_mac(address.octets()[3] - 11), "{seen:?}");
    }
}

mod echo {
    use super::*;

    fn client(is_v6: bool) -> IpAddr {
        ip(if is_v6 { "2001:db8:99::7" } else { "203.0.113.7" })
    }

    #[test]
    fn is_answered_for_own_addresses_and_vips() {
        let mut rig = stranger();
        rig.add_service((TCP, "203.0.113.80:80"), SchedulerKind::Rr, &[]);
        rig.add_service((TCP, "[2001:db8:5::80]:80"), SchedulerKind::Rr, &[]);
        for address in [
            "198.51.100.1",
            "192.0.2.1",
            "203.0.113.80",
            "2001:db8:c::1",
            "2001:db8:d::1",
            "2001:db8:5::80",
        ] {
            let to = ip(address);
            for size in [0, 1, 2, 56, 1400] {
                let data: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
                let request = with_hops(echo_request(client(to.is_ipv6()), to, &data), 1);
                let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &request)]);
                let (link, frame) = only(&out);
                let seen = read(frame);
                assert_eq!((link, seen.to, seen.from), (0, CLIENT_MAC, OUR_MACS[0]));
                assert_eq!((seen.source.ip(), seen.destination.ip()), (to, client(to.is_ipv6())));
                assert_eq!((seen.hops, seen.data[0]), (64, if to.is_ipv6() { 129 } else { 0 }));
                assert_eq!(
                    (&seen.data[4..8], &seen.data[8..]),
                    (&[0x12, 0x34, 0, 1][..], &data[..])
                );
            }
        }
    }

    /// Linux 6.1 `net/ipv6/icmp.c` `icmpv6_echo_reply()` makes a packet of its own.
    #[test]
    fn is_answered_without_the_extension_headers_of_the_request() {
        let mut rig = stranger();
        let plain = echo_request(client(true), ip("2001:db8:c::1"), b"hello");
        let headed = with_extension(&plain, 60, &[0, 1, 4, 0, 0, 0, 0]);
        let headed = with_extension(&headed, 0, &[0, 1, 4, 0, 0, 0, 0]);
        let answers = [plain, headed].map(|packet| {
            let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)]);
            only(&out).1.to_vec()
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0][14 + 6], 58);
    }

    #[test]
    fn is_answered_for_the_link_local_address_on_its_link() {
        let mut rig = stranger();
        let (neighbor, ours) = (v6("fe80::9"), v6("fe80::ff:fe00:101"));
        let request = echo_request(neighbor.into(), ours.into(), b"hello");
        let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &request)]);
        let (link, frame) = only(&out);
        let asked = read_ndp(frame).unwrap();
        assert_eq!((link, asked.target, asked.source), (1, neighbor, ours));
        let answer = advertisement((dest_mac(0), neighbor), (OUR_MACS[1], ours), SOLICITED);
        let out = rig.send(1, &[answer]);
        let seen = read(only(&out).1);
        assert_eq!((seen.source.ip(), seen.destination.ip()), (ours.into(), neighbor.into()));
        assert_eq!((seen.to, seen.data[0]), (dest_mac(0), 129));
    }

    #[test]
    fn with_a_wrong_checksum_or_to_everybody_is_not_answered() {
        let mut rig = stranger();
        for is_v6 in [false, true] {
            let to = ip(if is_v6 { "2001:db8:c::1" } else { "198.51.100.1" });
            let mut request = echo_request(client(is_v6), to, b"data");
            let last = request.len() - 1;
            request[last] ^= 1;
            assert_eq!(rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &request)]), []);
        }
        assert_eq!(dropped(&rig, "icmp-checksum"), 2, "{:?}", rig.drops());
        for to in ["255.255.255.255", "198.51.100.255", "224.0.0.1", "ff02::1"] {
            let to = ip(to);
            let request = echo_request(client(to.is_ipv6()), to, b"");
            for mac in [OUR_MACS[0], MacAddr::BROADCAST] {
                assert_eq!(rig.send(0, &[ethernet(mac, CLIENT_MAC, &request)]), []);
            }
        }
        let ours = echo_request(client(false), ip("198.51.100.1"), b"");
        assert_eq!(rig.send(0, &[ethernet(MacAddr::BROADCAST, CLIENT_MAC, &ours)]), []);
        assert_eq!(dropped(&rig, "multicast"), 9);
        let reply = icmp(client(false), ip("198.51.100.1"), 64, &[0, 0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &reply)]), []);
        assert_eq!(dropped(&rig, "icmp-ignored"), 1);
    }

    #[test]
    fn is_answered_in_pieces_where_the_way_back_is_narrow() {
        let interfaces = vec![interface(0, 0, 1280), interface(1, 0, 1500)];
        let mut rig = Rig::new(network_with(interfaces, 1), &PLAN);
        for is_v6 in [false, true] {
            let to = ip(if is_v6 { "2001:db8:d::1" } else { "192.0.2.1" });
            let data = vec![0xab; 1400];
            let request = echo_request(client(is_v6), to, &data);
            let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &request)]);
            let pieces: Vec<_> =
                out.iter().map(|(_, frame)| trimmed(&frame[L3..]).to_vec()).collect();
            assert!(pieces.iter().all(|piece| piece.len() <= 1280), "IPv6 {is_v6}");
            let seen = read_packet(&reassembled(&pieces));
            assert_eq!((seen.destination.ip(), &seen.data[8..]), (client(is_v6), &data[..]));
        }
    }
}

mod refusal {
    use super::*;

    fn ends(is_v6: bool) -> (SocketAddr, SocketAddr) {
        if is_v6 {
            ("[2001:db8:99::7]:40000".parse().unwrap(), "[2001:db8:c::1]:22".parse().unwrap())
        } else {
            ("203.0.113.7:40000".parse().unwrap(), "198.51.100.1:22".parse().unwrap())
        }
    }

    fn tell(rig: &mut Rig, packet: &[u8]) -> Option<Seen> {
        let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, packet)]);
        assert!(out.len() <= 1, "{out:?}");
        out.first().map(|(link, frame)| {
            assert_eq!(*link, 0);
            read(frame)
        })
    }

    /// RFC 9293 section 3.10.7.1.
    #[test]
    fn a_reset_has_the_form_that_the_segment_asks_for() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let (from, to) = ends(is_v6);
            let (sequence, acknowledgment) = (0xffff_fffe, 0x1234_5678);
            for (flags, data, expected) in [
                (SYN, 0, (RST | ACK, 0, 0xffff_ffff)),
                (SYN, 3, (RST | ACK, 0, 2)),
                (FIN, 0, (RST | ACK, 0, 0xffff_ffff)),
                (SYN | FIN, 1, (RST | ACK, 0, 1)),
                (0, 2, (RST | ACK, 0, 0)),
                (ACK, 7, (RST, acknowledgment, 0)),
                (SYN | ACK, 0, (RST, acknowledgment, 0)),
                (FIN | ACK, 9, (RST, acknowledgment, 0)),
            ] {
                let data = vec![1; data];
                let segment = Segment { from, to, sequence, acknowledgment, flags, data: &data };
                let seen = tell(&mut rig, &segment.packet()).unwrap();
                assert_eq!((seen.source, seen.destination), (to, from));
                assert_eq!((seen.flags, seen.sequence, seen.acknowledgment), expected, "{flags:x}");
                assert_eq!((seen.hops, seen.data.len()), (64, 0));
            }
            for flags in [RST, RST | ACK] {
                assert_eq!(tell(&mut rig, &tcp(from, to, flags, b"")), None);
            }
        }
    }

    #[test]
    fn a_flood_of_resets_uses_up_nobodys_answer() {
        let mut rig = stranger();
        let (from, to) = ends(false);
        for _ in 0..500 {
            assert_eq!(tell(&mut rig, &tcp(from, to, RST, b"")), None);
        }
        assert!(tell(&mut rig, &tcp(from, to, SYN, b"")).is_some());
    }

    #[test]
    fn an_unserved_datagram_is_told_so_and_quoted() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let (from, to) = ends(is_v6);
            let packet = udp(from, to, &[5; 1000]);
            let seen = tell(&mut rig, &packet).unwrap();
            assert_eq!((seen.source.ip(), seen.destination.ip()), (to.ip(), from.ip()));
            assert_eq!(&seen.data[..2], if is_v6 { &[1, 4] } else { &[3, 3] });
            let quoted = &seen.data[8..];
            // RFC 1812 section 4.3.2.3: 576 octets; RFC 4443 section 2.4 (c): 1280.
            assert_eq!(quoted.len(), if is_v6 { packet.len() } else { 548 });
            assert_eq!(quoted, &packet[..quoted.len()]);
        }
    }

    #[test]
    fn a_segment_that_was_damaged_is_not_answered() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let (from, to) = ends(is_v6);
            for packet in [tcp(from, to, SYN, b"data"), udp(from, to, b"data")] {
                let mut packet = packet;
                let last = packet.len() - 1;
                packet[last] ^= 1;
                assert_eq!(tell(&mut rig, &packet), None);
            }
            assert_eq!(dropped(&rig, "segment-checksum"), 2);
        }
    }

    /// RFC 8200 section 8.1: "IPv6 receivers must discard UDP packets containing a zero checksum".
    #[test]
    fn a_datagram_without_a_checksum_is_answered_over_ipv4_alone() {
        for is_v6 in [false, true] {
            let mut rig = stranger();
            let (from, to) = ends(is_v6);
            let packet = udp_without_checksum(from, to, b"data");
            assert_eq!(tell(&mut rig, &packet).is_some(), !is_v6);
            assert_eq!(dropped(&rig, "segment-checksum"), u64::from(is_v6));
        }
    }

    #[test]
    fn an_error_is_never_answered_with_an_error() {
        let mut rig = stranger();
        for is_v6 in [false, true] {
            let (from, to) = ends(is_v6);
            let about = udp(to, from, b"quoted");
            let mut message = vec![if is_v6 { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0];
            message.extend(&about);
            // With its last hop, to somebody who is not here: time exceeded were due.
            let error = icmp(from.ip(), dest_ip(is_v6, 0), 1, &message);
            assert_eq!(tell(&mut rig, &error), None);
            let error = icmp(from.ip(), to.ip(), 64, &message);
            assert_eq!(tell(&mut rig, &error), None);
        }
    }
}

mod routing {
    use super::*;

    fn ends(is_v6: bool) -> (SocketAddr, SocketAddr) {
        let client = if is_v6 { "[2001:db8:99::7]:1" } else { "203.0.113.7:1" };
        (client.parse().unwrap(), SocketAddr::new(dest_ip(is_v6, 0), 2))
    }

    /// Destination 0 known, the second link this narrow.
    fn router(mtu: u16) -> Rig {
        Rig::new(network_with(vec![interface(0, 0, 1500), interface(1, 0, mtu)], 1), &PLAN)
    }

    fn inward(packet: &[u8]) -> Vec<u8> {
        ethernet(OUR_MACS[0], CLIENT_MAC, packet)
    }

    #[test]
    fn a_packet_to_somebody_else_goes_on_one_hop_older() {
        for is_v6 in [false, true] {
            let mut rig = router(1500);
            let (client, host) = ends(is_v6);
            for packet in [
                tcp(client, host, SYN, b"x"),
                udp(client, host, b"x"),
                echo_request(client.ip(), host.ip(), b"x"),
            ] {
                let mut frame = inward(&packet);
                frame.resize(1700, 0xee);
                let out = rig.send(0, &[frame]);
                let (link, frame) = only(&out);
                assert_eq!(
                    (link, mac_at(frame, 0), mac_at(frame, 6)),
                    (1, dest_mac(0), OUR_MACS[1])
                );
                assert_eq!(frame[L3..], with_hops(packet, 63), "nothing else changes");
            }
            for packet in [tcp(host, client, ACK, b"x"), udp(host, client, b"x")] {
                let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &packet)]);
                let (link, frame) = only(&out);
                assert_eq!((link, mac_at(frame, 0)), (0, CLIENT_MAC));
                assert_eq!(frame[L3..], with_hops(packet, 63));
            }
            let pieces = fragments(&may_fragment(udp(client, host, &[1; 100])), 40);
            let out = rig.send(0, &pieces.iter().map(|piece| inward(piece)).collect::<Vec<_>>());
            assert_eq!(out.len(), 3, "pieces are routed like anything else");
            rig.finish();
        }
    }

    #[test]
    fn the_last_hop_is_told_by_our_address_on_that_link() {
        for is_v6 in [false, true] {
            let mut rig = router(1500);
            let (client, host) = ends(is_v6);
            let packet = with_hops(udp(client, host, b"x"), 1);
            let out = rig.send(0, &[inward(&packet)]);
            let seen = read(only(&out).1);
            assert_eq!(seen.source.ip(), ip(if is_v6 { "2001:db8:c::1" } else { "198.51.100.1" }));
            assert_eq!(
                (seen.destination.ip(), seen.data[0]),
                (client.ip(), if is_v6 { 3 } else { 11 })
            );
            assert_eq!(seen.data[8..], packet);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_or_cut() {
        for is_v6 in [false, true] {
            let mut rig = router(1280);
            let (client, host) = ends(is_v6);
            let packet = udp(client, host, &[7; 1400]);
            let out = rig.send(0, &[inward(&packet)]);
            let seen = read(only(&out).1);
            assert_eq!(&seen.data[..2], if is_v6 { &[2, 0] } else { &[3, 4] });
            assert_eq!(seen.data[6..8], 1280_u16.to_be_bytes());
            assert_eq!(seen.data[8..], packet[..seen.data.len() - 8], "as it came");
            if is_v6 {
                continue;
            }
            let out = rig.send(0, &[inward(&may_fragment(packet.clone()))]);
            let pieces: Vec<_> = out.iter().map(|(_, frame)| frame[L3..].to_vec()).collect();
            assert_eq!(read_packet(&reassembled(&pieces)).data, [7; 1400]);
            // A piece of a piece belongs where it belonged.
            let (pieces, whole) = (fragments(&may_fragment(packet.clone()), 1304), packet.len());
            let out = rig.send(0, &pieces.iter().map(|piece| inward(piece)).collect::<Vec<_>>());
            let pieces: Vec<_> = out.iter().map(|(_, frame)| frame[L3..].to_vec()).collect();
            assert_eq!((pieces.len(), reassembled(&pieces).len()), (3, whole));
        }
    }

    #[test]
    fn news_of_a_links_mtu_goes_out_during_a_flood_of_other_errors() {
        for is_v6 in [false, true] {
            let mut rig = router(1280);
            let (client, host) = ends(is_v6);
            let old = inward(&with_hops(udp(client, host, b""), 1));
            let told = rig.send(0, &vec![old.clone(); 500]).len();
            assert!((1..500).contains(&told), "{told}");
            assert_eq!(rig.send(0, &[old]), []);
            let out = rig.send(0, &[inward(&udp(client, host, &[7; 1400]))]);
            assert_eq!(&read(only(&out).1).data[..2], if is_v6 { &[2, 0] } else { &[3, 4] });
            rig.finish();
        }
    }

    #[test]
    fn addresses_that_no_host_may_have_are_neither_answered_nor_routed() {
        let mut rig = router(1500);
        let everybody =
            [("198.51.100.255:7", "198.51.100.1:9"), ("192.0.2.255:7", "203.0.113.9:9")];
        let nobody = [("203.0.113.7:7", "127.0.0.1:9"), ("203.0.113.7:7", "0.0.0.0:9")];
        let long = [("[2001:db8:99::7]:7", "[::1]:9"), ("[2001:db8:99::7]:7", "[::]:9")];
        let all = everybody.into_iter().chain(nobody).chain(long);
        for (number, (from, to)) in (1..).zip(all) {
            let packet = udp(from.parse().unwrap(), to.parse().unwrap(), b"");
            assert_eq!(rig.send(0, &[inward(&packet)]), [], "{from} to {to}");
            assert_eq!(dropped(&rig, "martian"), number, "{from} to {to}");
        }
    }

    #[test]
    fn a_piece_beyond_the_longest_packet_is_not_cut_further() {
        let mut rig = router(1280);
        let (client, host) = ends(false);
        let packet = changed(may_fragment(udp(client, host, &[7; 1400])), |packet| {
            packet[6..8].copy_from_slice(&0x1ff0_u16.to_be_bytes());
        });
        assert_eq!(rig.send(0, &[inward(&packet)]), []);
        assert_eq!(dropped(&rig, "unfragmentable"), 1, "{:?}", rig.drops());
        rig.finish();
    }

    #[test]
    fn without_a_route_the_sender_is_told() {
        let base = network();
        let network = Network::new(base.interfaces().to_vec(), vec![], vec![], vec![], true);
        let mut rig = Rig::new(network, &PLAN);
        for is_v6 in [false, true] {
            let from = SocketAddr::new(dest_ip(is_v6, 3), 1);
            let to = ends(is_v6).0;
            let packet = udp(from, to, b"");
            let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(3), &packet)]);
            question(is_v6, 3, only(&out).1);
            let out = rig.send(1, &[answer(is_v6, 3)]);
            let seen = read(only(&out).1);
            assert_eq!(&seen.data[..2], if is_v6 { &[1, 0] } else { &[3, 0] });
            assert_eq!(seen.data[8..], packet);
        }
        assert_eq!(dropped(&rig, "no-route"), 2);
    }

    #[test]
    fn a_director_that_does_not_forward_passes_nothing_on() {
        let base = network();
        let network = Network::new(base.interfaces().to_vec(), vec![], vec![], vec![], false);
        let mut rig = Rig::new(network, &PLAN);
        assert_eq!(rig.send(0, &[transit(false, 0, 1), transit(true, 0, 1)]), []);
        assert_eq!(dropped(&rig, "not-forwarded"), 2);
    }

    #[test]
    fn link_local_packets_stay_on_their_link() {
        let mut rig = router(1500);
        let (client, host) = ends(true);
        let local = SocketAddr::new(ip("fe80::9"), 1);
        for (from, to) in [(local, host), (client, local)] {
            for packet in [udp(from, to, b""), echo_request(from.ip(), to.ip(), b"")] {
                assert_eq!(rig.send(0, &[inward(&packet)]), [], "{from} to {to}");
            }
        }
        assert_eq!(dropped(&rig, "not-forwarded"), 4);
    }

    #[test]
    fn a_frame_for_another_host_is_not_looked_at() {
        let mut rig = router(1500);
        let (client, host) = ends(false);
        let frame = ethernet(OUR_MACS[1], CLIENT_MAC, &udp(client, host, b""));
        assert_eq!(rig.send(0, &[frame]), [], "the other link's address");
        assert_eq!(dropped(&rig, "other-host"), 1, "{:?}", rig.drops());
    }
}

mod vlans {
    use super::*;

    fn rig() -> Rig {
        let interfaces = vec![
            interface(0, 0, 1500),
            interface(1, 0, 1500),
            interface(0, 7, 1500),
            interface(1, 9, 1400),
        ];
        Rig::new(network_with(interfaces, 0), &PLAN)
    }

    const A: MacAddr = MacAddr([2, 7, 0, 0, 0, 5]);
    const B: MacAddr = MacAddr([2, 9, 0, 0, 0, 5]);

    #[test]
    fn a_packet_leaves_with_the_tag_of_the_way_it_takes() {
        for is_v6 in [false, true] {
            let mut rig = rig();
            let (a, b) =
                if is_v6 { ("fd00:7:0::5", "fd00:9:1::5") } else { ("10.7.0.5", "10.9.1.5") };
            let packet = udp(SocketAddr::new(ip(a), 1), SocketAddr::new(ip(b), 2), b"across");
            let frame = tagged(&ethernet(OUR_MACS[0], A, &packet), 7);
            let out = rig.send(0, std::slice::from_ref(&frame));
            let (link, asks) = only(&out);
            let (vlan, asks) = untagged(asks);
            assert_eq!((link, vlan), (1, Some(9)));
            let answer = if is_v6 {
                let asked = read_ndp(&asks).unwrap();
                assert_eq!((asked.source, asked.target), (v6("fd00:9:1::1"), v6(b)));
                advertisement((B, v6(b)), (OUR_MACS[1], asked.source), SOLICITED | OVERRIDE)
            } else {
                let asked = read_arp(&asks).unwrap();
                assert_eq!((asked.sender.1, asked.target.1), (v4("10.9.1.1"), v4(b)));
                arp(OUR_MACS[1], ARP_REPLY, (B, v4(b)), asked.sender)
            };
            assert_eq!(rig.send(1, std::slice::from_ref(&answer)), [], "not from another VLAN");
            let out = rig.send(1, &[tagged(&answer, 9)]);
            let (vlan, there) = untagged(only(&out).1);
            assert_eq!(
                (vlan, read(&there).to, read(&there).data),
                (Some(9), B, b"across".to_vec())
            );
            let out = rig.send(0, &[frame]);
            assert_eq!(untagged(only(&out).1), (Some(9), there));
        }
    }

    #[test]
    fn requests_and_echo_are_answered_in_their_vlan() {
        let mut rig = rig();
        let asks =
            arp(MacAddr::BROADCAST, ARP_REQUEST, (A, v4("10.7.0.5")), (NOBODY, v4("10.7.0.1")));
        let out = rig.send(0, &[tagged(&asks, 7)]);
        let (vlan, frame) = untagged(only(&out).1);
        assert_eq!((vlan, read_arp(&frame).unwrap().to), (Some(7), A));
        let echo = ethernet(OUR_MACS[0], A, &echo_request(ip("10.7.0.5"), ip("10.7.0.1"), b""));
        let out = rig.send(0, &[tagged(&echo, 7)]);
        let (vlan, frame) = untagged(only(&out).1);
        assert_eq!((vlan, read(&frame).to, read(&frame).data[0]), (Some(7), A, 0));
        let asks = solicitation((A, v6("fd00:7:0::5")), v6("fd00:7:0::1"));
        let out = rig.send(0, &[tagged(&asks, 7)]);
        assert_eq!(untagged(only(&out).1).0, Some(7));
    }

    #[test]
    fn refusals_go_back_into_the_vlan_they_came_from() {
        let mut rig = rig();
        let known = arp(OUR_MACS[0], ARP_REQUEST, (A, v4("10.7.0.5")), (NOBODY, v4("10.7.0.1")));
        rig.send(0, &[tagged(&known, 7)]);
        let vip = "198.51.100.80:80";
        let dest = SocketAddr::new(ip("10.9.1.5"), 80).to_string();
        rig.add_service((UDP, vip), SchedulerKind::Rr, &[(&dest, Masquerade, 1)]);
        let packet = udp(SocketAddr::new(ip("10.7.0.5"), 1), vip.parse().unwrap(), &[1; 1380]);
        for (packet, kind) in [(packet.clone(), 3), (with_hops(packet, 1), 11)] {
            let out = rig.send(0, &[tagged(&ethernet(OUR_MACS[0], A, &packet), 7)]);
            let (vlan, frame) = untagged(only(&out).1);
            let seen = read(&frame);
            assert_eq!((vlan, seen.to, seen.data[0]), (Some(7), A, kind));
            assert_eq!(seen.source.ip(), ip("198.51.100.80"));
        }
    }

    #[test]
    fn a_masqueraded_connection_may_cross_vlans() {
        let mut rig = rig();
        let vip: SocketAddr = "198.51.100.80:80".parse().unwrap();
        let (client, dest): (SocketAddr, SocketAddr) =
            ("10.7.0.5:1000".parse().unwrap(), "10.9.1.5:8080".parse().unwrap());
        rig.add_service(
            (UDP, &vip.to_string()),
            SchedulerKind::Rr,
            &[(&dest.to_string(), Masquerade, 1)],
        );
        let known = |link: usize, mac, ip, ours, vlan| {
            tagged(&arp(OUR_MACS[link], ARP_REQUEST, (mac, ip), (NOBODY, ours)), vlan)
        };
        rig.send(0, &[known(0, A, v4("10.7.0.5"), v4("10.7.0.1"), 7)]);
        rig.send(1, &[known(1, B, v4("10.9.1.5"), v4("10.9.1.1"), 9)]);
        let out = rig.send(0, &[tagged(&ethernet(OUR_MACS[0], A, &udp(client, vip, b"q")), 7)]);
        let (vlan, frame) = untagged(only(&out).1);
        let seen = read(&frame);
        assert_eq!((vlan, seen.to, seen.source, seen.destination), (Some(9), B, client, dest));
        let out = rig.send(1, &[tagged(&ethernet(OUR_MACS[1], B, &udp(dest, client, b"a")), 9)]);
        let (vlan, frame) = untagged(only(&out).1);
        let seen = read(&frame);
        assert_eq!((vlan, seen.to, seen.source, seen.destination), (Some(7), A, vip, client));
    }

    #[test]
    fn a_vlan_that_is_not_ours_and_one_in_another_are_dropped_by_name() {
        let mut rig = rig();
        let frame = ethernet(OUR_MACS[0], A, &echo_request(ip("10.7.0.5"), ip("10.7.0.1"), b""));
        let udp = ethernet(
            OUR_MACS[0],
            A,
            &udp("10.7.0.5:1".parse().unwrap(), "10.7.0.1:2".parse().unwrap(), b""),
        );
        assert_eq!(rig.send(0, &[tagged(&frame, 8), tagged(&udp, 8), tagged(&udp, 9)]), []);
        assert_eq!(dropped(&rig, "vlan-unknown"), 3);
        assert_eq!(rig.send(0, &[tagged(&tagged(&frame, 7), 7)]), []);
        assert_eq!(dropped(&rig, "vlan-stack"), 1, "{:?}", rig.drops());
        // A tag with a priority and no VLAN is like none.
        let none = tagged(&transit(false, 0, 1), 0xe000);
        assert_eq!(rig.send(0, &[none]).len(), 1);
    }

    #[test]
    fn a_link_with_nothing_but_vlans_takes_nothing_untagged() {
        let interfaces = vec![interface(1, 0, 1500), interface(0, 7, 1500)];
        let network = Network::new(interfaces, vec![], vec![], vec![], true);
        let mut rig = Rig::new(network, &PLAN);
        rig.add_service((UDP, "10.7.0.80:80"), SchedulerKind::Rr, &[("192.0.2.11:80", Direct, 1)]);
        let packet = udp("10.7.0.5:1".parse().unwrap(), "10.7.0.80:80".parse().unwrap(), b"");
        let frame = ethernet(OUR_MACS[0], A, &packet);
        assert_eq!(rig.send(0, std::slice::from_ref(&frame)), []);
        assert_eq!((dropped(&rig, "vlan-unknown"), rig.conns()), (1, 0));
        assert_eq!(rig.send(0, &[tagged(&frame, 7)]).len(), 1);
        assert_eq!(rig.conns(), 1);
    }
}

/// What `traceroute` and `ping` show of a director.
mod traceroute {
    use super::*;

    /// Who answers a probe, and type and code of an ICMP answer, or the flags of a TCP one.
    #[derive(Debug, Eq, PartialEq)]
    enum Answer {
        Icmp(IpAddr, u8, u8),
        Tcp(IpAddr, u8),
        /// None; the probe went on to the destination.
        GoesOn,
    }

    const PORT: u16 = 33_434;

    fn client(is_v6: bool) -> SocketAddr {
        SocketAddr::new(ip(if is_v6 { "2001:db8:99::7" } else { "203.0.113.7" }), 40_000)
    }

    fn vip(is_v6: bool) -> IpAddr {
        ip(if is_v6 { "2001:db8:c::80" } else { "198.51.100.80" })
    }

    /// UDP as `traceroute`, TCP as `traceroute -T`, echo as `traceroute -I` and `ping`.
    fn probes(is_v6: bool, to: IpAddr, port: u16) -> [Vec<u8>; 3] {
        let (from, to_port) = (client(is_v6), SocketAddr::new(to, port));
        [
            udp(from, to_port, &[0x40; 32]),
            tcp(from, to_port, SYN, b""),
            echo_request(from.ip(), to, &[0x40; 32]),
        ]
    }

    fn ask(rig: &mut Rig, probe: &[u8], hops: u8) -> Answer {
        let probe = with_hops(probe.to_vec(), hops);
        let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &probe)]);
        let (link, frame) = only(&out);
        let seen = read(frame);
        match (link, seen.protocol) {
            (1, _) => Answer::GoesOn,
            (_, TCP) => Answer::Tcp(seen.source.ip(), seen.flags),
            _ => Answer::Icmp(seen.source.ip(), seen.data[0], seen.data[1]),
        }
    }

    #[test]
    fn to_a_vip_ends_at_the_vip_where_nothing_is_served() {
        let mut rig = Rig::single();
        for is_v6 in [false, true] {
            let vip = vip(is_v6);
            rig.add_service((TCP, &SocketAddr::new(vip, 80).to_string()), SchedulerKind::Rr, &[]);
            let (unreachable, reply) = if is_v6 { ((1, 4), 129) } else { ((3, 3), 0) };
            for hops in [1, 2, 64] {
                let [by_udp, by_tcp, by_echo] = probes(is_v6, vip, PORT);
                let (kind, code) = unreachable;
                assert_eq!(ask(&mut rig, &by_udp, hops), Answer::Icmp(vip, kind, code));
                assert_eq!(ask(&mut rig, &by_tcp, hops), Answer::Tcp(vip, RST | ACK));
                assert_eq!(ask(&mut rig, &by_echo, hops), Answer::Icmp(vip, reply, 0), "ping");
            }
        }
    }

    #[test]
    fn to_a_service_sees_the_vip_as_the_hop_before_the_destination() {
        for method in [Masquerade, Direct, Tunnel] {
            for is_v6 in [false, true] {
                let mut rig = Rig::single();
                let (vip, dest) = (vip(is_v6), SocketAddr::new(dest_ip(is_v6, 0), 80).to_string());
                for protocol in [UDP, TCP] {
                    let service = SocketAddr::new(vip, 80).to_string();
                    rig.add_service((protocol, &service), SchedulerKind::Rr, &[(&dest, method, 1)]);
                }
                let [by_udp, by_tcp, _] = probes(is_v6, vip, 80);
                let exceeded = if is_v6 { 3 } else { 11 };
                for probe in [by_udp, by_tcp] {
                    assert_eq!(ask(&mut rig, &probe, 1), Answer::Icmp(vip, exceeded, 0));
                    assert_eq!(ask(&mut rig, &probe, 2), Answer::GoesOn, "{method:?}");
                }
            }
        }
    }

    #[test]
    fn through_the_director_sees_our_address_towards_the_client() {
        let mut rig = Rig::single();
        for is_v6 in [false, true] {
            let ours = ip(if is_v6 { "2001:db8:c::1" } else { "198.51.100.1" });
            let exceeded = if is_v6 { 3 } else { 11 };
            for probe in probes(is_v6, dest_ip(is_v6, 0), PORT) {
                assert_eq!(ask(&mut rig, &probe, 1), Answer::Icmp(ours, exceeded, 0));
                assert_eq!(ask(&mut rig, &probe, 2), Answer::GoesOn);
            }
        }
    }

    /// A router behind the director, on the way to a masqueraded destination: the client sees the
    /// VIP, as of all that masquerading hides (recorded: `pkt-icmp-nat`).
    #[test]
    fn beyond_the_director_a_router_answers_by_the_name_of_the_vip() {
        for is_v6 in [false, true] {
            let mut rig = Rig::single();
            let (vip, dest) = (vip(is_v6), SocketAddr::new(dest_ip(is_v6, 0), 8080).to_string());
            let service = SocketAddr::new(vip, 80).to_string();
            rig.add_service((UDP, &service), SchedulerKind::Rr, &[(&dest, Masquerade, 1)]);
            let probe = with_hops(probes(is_v6, vip, 80)[0].clone(), 2);
            let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &probe)]);
            let head = if is_v6 { [3, 0, 0, 0, 0, 0, 0, 0] } else { [11, 0, 0, 0, 0, 0, 0, 0] };
            let message = [&head, &out[0].1[14..]].concat();
            let error = icmp(dest_ip(is_v6, 7), client(is_v6).ip(), 64, &message);
            let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(7), &error)]);
            let seen = read(only(&out).1);
            assert_eq!((seen.source.ip(), seen.destination.ip()), (vip, client(is_v6).ip()));
            assert_eq!(seen.data[..2], head[..2]);
            // As the client sent it, but for the hop; its checksum is left as it was (as in Linux).
            let (quoted, sent) = (&seen.data[8..], trimmed(&probe));
            let (ends, l4) = if is_v6 { (8..40, 40) } else { (12..20, 20) };
            assert_eq!(
                (&quoted[ends.clone()], &quoted[l4..l4 + 4]),
                (&sent[ends], &sent[l4..l4 + 4])
            );
        }
    }
}
