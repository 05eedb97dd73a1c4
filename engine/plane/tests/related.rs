//! ICMP errors about packets of connections reach whom they concern, in names that they know.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::{IpAddr, SocketAddr};
use rig::frames::{ACK, RST, SYN, TCP, ethernet, icmp, read, read_packet, tcp, with_hops};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, dest_mac, interface, network_with};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{DestId, SchedulerKind, ServiceId};
use rvs_wire::mac::MacAddr;

struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
    router: IpAddr,
}

fn ends(is_v6: bool) -> Ends {
    let [client, vip, dest, router] = if is_v6 {
        ["[2001:db8:99::7]:40000", "[2001:db8:c::80]:80", "[2001:db8:d::11]:8080", "2001:db8:e::9"]
    } else {
        ["203.0.113.7:40000", "198.51.100.80:80", "192.0.2.11:8080", "198.51.100.9"]
    };
    let parse = |text: &str| text.parse().unwrap();
    Ends {
        client: parse(client),
        vip: parse(vip),
        dest: parse(dest),
        router: router.parse().unwrap(),
    }
}

/// A director with one connection, and how many workers share it.
fn connected(method: ForwardMethod, ends: &Ends, workers: u16) -> Rig {
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let mut rig = Rig::new(network, &Plan { workers, ..PLAN });
    let (vip, dest) = (ends.vip.to_string(), ends.dest.to_string());
    rig.add_service((TCP, &vip), SchedulerKind::Rr, &[(&dest, method, 1)]);
    let syn = ethernet(OUR_MACS[0], CLIENT_MAC, &tcp(ends.client, ends.vip, SYN, b""));
    assert_eq!(rig.send(0, &[syn]).len(), 1);
    rig
}

/// "The next link carries 1400 octets", about `packet`, from `router` to who sent the packet.
fn too_big(router: IpAddr, to: IpAddr, packet: &[u8]) -> Vec<u8> {
    let head: &[u8] =
        if router.is_ipv6() { &[2, 0, 0, 0, 0, 0, 5, 120] } else { &[3, 4, 0, 0, 0, 0, 5, 120] };
    icmp(router, to, 64, &[head, packet].concat())
}

/// The ends of the packet that an error quotes. Its TCP checksum stays as the sender of the error
/// saw it, as in Linux: nobody checks it.
fn quoted(error: &[u8]) -> (SocketAddr, SocketAddr) {
    let seen = read_packet(error);
    let inner = &seen.data[8..];
    let port = |at: usize| u16::from_be_bytes([inner[at], inner[at + 1]]);
    if inner[0] >> 4 == 6 {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&inner[at..at + 16]).unwrap());
        (SocketAddr::new(address(8), port(40)), SocketAddr::new(address(24), port(42)))
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&inner[at..at + 4]).unwrap());
        (SocketAddr::new(address(12), port(20)), SocketAddr::new(address(16), port(22)))
    }
}

#[test]
fn an_error_from_the_destinations_side_comes_to_the_client_from_the_vip() {
    for is_v6 in [false, true] {
        let ends = ends(is_v6);
        for workers in [1, 3] {
            let mut rig = connected(Masquerade, &ends, workers);
            let failed = with_hops(tcp(ends.client, ends.dest, ACK, b"much"), 60);
            let error = too_big(ends.router, ends.client.ip(), &failed);
            let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &error)]);
            assert_eq!(out.len(), 1, "{out:?}");
            let (link, frame) = &out[0];
            let seen = read(frame);
            assert_eq!((*link, seen.source.ip()), (0, ends.vip.ip()));
            assert_eq!((seen.destination.ip(), seen.hops), (ends.client.ip(), 63));
            assert_eq!(quoted(&frame[14..]), (ends.client, ends.vip));
            assert_eq!(&seen.data[4..8], &[0, 0, 5, 120], "the MTU as it was told");
        }
    }
}

#[test]
fn an_error_from_the_clients_side_follows_its_connection_by_each_method() {
    for is_v6 in [false, true] {
        let ends = ends(is_v6);
        for (method, workers) in [(Masquerade, 1), (Masquerade, 3), (Direct, 1), (Tunnel, 3)] {
            let mut rig = connected(method, &ends, workers);
            let failed = tcp(ends.vip, ends.client, ACK, b"page");
            let error = too_big(ends.router, ends.vip.ip(), &failed);
            let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &error)]);
            assert_eq!(out.len(), 1, "{out:?}");
            let (link, frame) = &out[0];
            assert_eq!(*link, 1);
            let packet = &frame[14..];
            match method {
                Masquerade => {
                    assert_eq!(read(frame).destination.ip(), ends.dest.ip());
                    assert_eq!(quoted(packet), (ends.dest, ends.client));
                }
                Direct => assert_eq!(quoted(packet), (ends.vip, ends.client)),
                Tunnel => {
                    let outer = read(frame);
                    assert_eq!(outer.destination.ip(), ends.dest.ip());
                    assert_eq!(quoted(&outer.data), (ends.vip, ends.client));
                }
            }
        }
    }
}

#[test]
fn an_error_moves_no_timer_and_one_that_is_spoilt_or_about_nobody_goes_nowhere() {
    let ends = ends(false);
    let mut rig = connected(Masquerade, &ends, 1);
    let failed = tcp(ends.vip, ends.client, ACK, b"page");
    let error = too_big(ends.router, ends.vip.ip(), &failed);
    let mut spoilt = error.clone();
    spoilt[22] ^= 1;
    let mut stranger = ends.client;
    stranger.set_port(9);
    let unknown = too_big(ends.router, ends.vip.ip(), &tcp(ends.vip, stranger, ACK, b"page"));
    for packet in [spoilt, unknown] {
        assert_eq!(rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)]), vec![]);
    }
    assert_eq!((rig.drops()["icmp-checksum"], rig.drops()["icmp-ignored"]), (1, 1));
    for _ in 0..61 * 8 {
        rig.pass(1);
        rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &error)]);
    }
    assert_eq!(rig.conns(), 0, "SYN_RECV ends after 60 s whatever routers say");
}

#[test]
fn an_error_for_a_group_from_nowhere_or_without_a_service_concerns_no_connection() {
    let ends = ends(false);
    let failed = tcp(ends.vip, ends.client, ACK, b"page");
    let from = |router: IpAddr| too_big(router, ends.vip.ip(), &failed);
    let good = from(ends.router);
    let mut rig = connected(Masquerade, &ends, 1);
    let broadcast = MacAddr([0xff; 6]);
    assert_eq!(rig.send(0, &[ethernet(broadcast, CLIENT_MAC, &good)]), vec![]);
    for martian in ["127.0.0.1", "224.0.0.5", "198.51.100.1", "198.51.100.255"] {
        let error = from(martian.parse().unwrap());
        assert_eq!(rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &error)]), vec![]);
    }
    assert_eq!((rig.drops()["multicast"], rig.drops()["martian"]), (1, 4));
    let sent = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &good)]);
    assert_eq!(sent.len(), 1, "and this one does");
    rig.remove_service(ServiceId(0));
    let sent = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &good)]);
    assert!(sent.iter().all(|(link, _)| *link == 0), "nothing to the destination: {sent:?}");
}

#[test]
fn with_schedule_icmp_an_error_that_no_connection_knows_is_scheduled_as_its_client_would_be() {
    for is_v6 in [false, true] {
        let ends = ends(is_v6);
        for (method, workers) in [(Masquerade, 1), (Masquerade, 3), (Direct, 3), (Tunnel, 1)] {
            let mut rig = connected(method, &ends, workers);
            let mut other = ends.client;
            other.set_port(50_000);
            let failed = tcp(ends.vip, other, ACK, b"page");
            let error = too_big(ends.router, ends.vip.ip(), &failed);
            let error = ethernet(OUR_MACS[0], CLIENT_MAC, &error);
            rig.send(0, std::slice::from_ref(&error));
            assert_eq!((rig.conns(), rig.drops()["icmp-ignored"]), (1, 1), "it is off by default");

            rig.snapshot.tunables.schedule_icmp = true;
            rig.publish();
            let out = rig.send(0, &[error]);
            assert_eq!((out.len(), rig.conns()), (1, 2), "{method:?} {is_v6} {workers}");
            let arrived = read(&out[0].1);
            let to = if method == Direct { ends.vip } else { ends.dest };
            assert_eq!((out[0].0, arrived.destination.ip()), (1, to.ip()));

            // The client's own packets follow; if none comes it ends soon.
            let syn = ethernet(OUR_MACS[0], CLIENT_MAC, &tcp(other, ends.vip, SYN, b""));
            assert_eq!((rig.send(0, &[syn]).len(), rig.conns()), (1, 2));
            let mut third = ends.client;
            third.set_port(50_001);
            let error = too_big(ends.router, ends.vip.ip(), &tcp(ends.vip, third, ACK, b"page"));
            rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &error)]);
            rig.pass(8 * 2);
            assert_eq!(rig.conns(), 3);
            rig.pass(8 * 2);
            assert_eq!(rig.conns(), 2, "after three seconds");
        }
    }
}

#[test]
fn with_schedule_icmp_an_error_about_no_service_or_without_a_destination_opens_nothing() {
    let ends = ends(false);
    let mut rig = connected(Masquerade, &ends, 1);
    rig.snapshot.tunables.schedule_icmp = true;
    rig.set_weight(ServiceId(0), DestId(0), 0);
    let mut other = ends.client;
    other.set_port(50_000);
    let mut elsewhere = ends.vip;
    elsewhere.set_port(81);
    for from in [ends.vip, elsewhere] {
        let error = too_big(ends.router, ends.vip.ip(), &tcp(from, other, ACK, b"page"));
        assert_eq!(rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &error)]), vec![]);
    }
    assert_eq!((rig.drops()["no-dest"], rig.drops()["icmp-ignored"], rig.conns()), (1, 1, 1));
}

#[test]
fn with_nat_icmp_send_a_masqueraded_server_without_a_connection_is_told_so() {
    for is_v6 in [false, true] {
        let ends = ends(is_v6);
        for (method, workers) in [(Masquerade, 1), (Masquerade, 3), (Direct, 1)] {
            let mut rig = connected(method, &ends, workers);
            let mut stranger = ends.client;
            stranger.set_port(9);
            let sent = |rig: &mut Rig, port: u16, flags: u8| {
                let from = SocketAddr::new(ends.dest.ip(), port);
                let packet = tcp(from, stranger, flags, b"page");
                let out = rig.send(1, &[ethernet(OUR_MACS[1], dest_mac(0), &packet)]);
                let told = |(link, frame): &(usize, Vec<u8>)| {
                    let told = read(frame);
                    let port = if is_v6 { [1, 4] } else { [3, 3] };
                    *link == 1
                        && told.destination.ip() == ends.dest.ip()
                        && told.data[..2] == port
                        && quoted(&frame[14..]) == (from, stranger)
                };
                out.iter().any(told)
            };
            assert!(!sent(&mut rig, ends.dest.port(), ACK), "it is off by default");
            rig.snapshot.tunables.nat_icmp_send = true;
            rig.publish();
            assert_eq!(sent(&mut rig, ends.dest.port(), ACK), method == Masquerade);
            assert!(
                !sent(&mut rig, ends.dest.port(), RST),
                "what ends a connection is not answered"
            );
            assert!(!sent(&mut rig, ends.dest.port() + 1, ACK), "nor what is not its service's");
            let told = rig.drops().get("no-connection").copied();
            assert_eq!(told, (method == Masquerade).then_some(1));
        }
    }
}
