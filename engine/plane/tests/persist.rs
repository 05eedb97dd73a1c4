//! Persistence, marks and services on all ports, through whole workers. What the kernel does is in
//! the recordings; here is what they do not reach.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::{Ipv4Addr, SocketAddr};
use rig::frames::{ACK, FIN, RST, SYN, Seen, TCP, UDP, ethernet, read, tagged, tcp, udp};
use rig::{CLIENT_MAC, LIMITS, OUR_MACS, PLAN, Plan, Rig, interface, network_with};
use rvs_model::ForwardMethod::{Direct, Masquerade};
use rvs_model::{DestId, DestLine, SchedulerKind, ServiceId, ticks};
use rvs_plane::Limits;
use rvs_plane::marks::{Marks, Rule};
use rvs_plane::network::{InterfaceId, Network, StaticNeighbor};
use rvs_plane::persist::Mask;
use rvs_plane::snapshot::{Rules, ServiceKey};
use std::sync::Arc;

const VIP: &str = "198.51.100.1:80";
const HOST: Mask = Mask::ALL;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn from_client(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[0], CLIENT_MAC, packet)
}

/// What a packet of a client became: the frames that left, read.
fn give(rig: &mut Rig, packet: &[u8]) -> Vec<(usize, Seen)> {
    let out = rig.send(0, &[from_client(packet)]);
    out.iter().map(|(link, frame)| (*link, read(frame))).collect()
}

/// The server that a SYN of `client` goes to, if any: the last octet of its address.
fn server(rig: &mut Rig, client: &str, vip: &str) -> Option<u8> {
    let (client, vip) = (socket(client), socket(vip));
    let out = rig.send(0, &[from_client(&tcp(client, vip, SYN, b""))]);
    out.iter().find(|(link, _)| *link == 1).map(|(_, frame)| frame[5] - 0x11)
}

/// Three servers in turn.
fn dests(
    port: u16,
    method: rvs_model::ForwardMethod,
) -> Vec<(String, rvs_model::ForwardMethod, u32)> {
    (11..14).map(|last| (format!("192.0.2.{last}:{port}"), method, 1)).collect()
}

fn add(rig: &mut Rig, key: ServiceKey, port: u16, method: rvs_model::ForwardMethod) -> ServiceId {
    let dests = dests(port, method);
    let dests: Vec<_> =
        dests.iter().map(|(to, method, weight)| (to.as_str(), *method, *weight)).collect();
    rig.add_service_of(key, SchedulerKind::Rr, &dests)
}

fn key(vip: &str) -> ServiceKey {
    let vip = socket(vip);
    ServiceKey { protocol: TCP, address: vip.ip(), port: vip.port() }
}

#[test]
fn no_port_of_a_client_makes_a_packet_look_like_a_template() {
    let mut rig = Rig::single();
    let id = add(&mut rig, key("198.51.100.1:0"), 0, Masquerade);
    rig.persist(id, ticks(100), HOST);
    let first = server(&mut rig, "203.0.113.7:2000", VIP);
    assert!(first.is_some());
    // Port 0 on either side, as a template has it, is a connection like any other.
    for (from, to) in [("203.0.113.7:0", VIP), ("203.0.113.7:0", "198.51.100.1:0")] {
        assert_eq!(server(&mut rig, from, to), first);
    }
    let rows = rig.dump(0, false);
    assert_eq!((rows.len(), rows.iter().filter(|row| row.template.is_some()).count()), (4, 1));
    // Nor does a reply from port 0.
    let reply = tcp(socket("192.0.2.11:0"), socket("203.0.113.7:0"), ACK, b"");
    rig.send(1, &[ethernet(OUR_MACS[1], rig::dest_mac(0), &reply)]);
}

#[test]
fn a_connection_with_a_template_is_never_scheduled_anew_on_its_port() {
    let mut rig = Rig::single();
    let id = add(&mut rig, key(VIP), 80, Masquerade);
    rig.persist(id, ticks(10), HOST);
    let client = "203.0.113.7:2000";
    let first = server(&mut rig, client, VIP);
    let say = |rig: &mut Rig, flags| give(rig, &tcp(socket(client), socket(VIP), flags, b"")).len();
    assert_eq!(say(&mut rig, RST | ACK), 1);
    // In CLOSE, where conn_reuse_mode 1 would choose again; the template's turn has not come round.
    assert_eq!(server(&mut rig, client, VIP), first);
    assert_eq!(rig.dump(0, false).len(), 2);
    say(&mut rig, FIN | ACK);
    rig.pass(ticks(1500));
    assert_eq!(rig.conns(), 0);
    assert!((0..3).all(|dest| rig.shared[0].lines[dest].templates() == 0));
    rig.finish();
}

#[test]
fn a_flush_of_a_deleted_destination_takes_its_templates_along() {
    let mut rig = Rig::single();
    rig.snapshot.tunables.expire_nodest_conn = true;
    let id = add(&mut rig, key(VIP), 80, Direct);
    rig.persist(id, ticks(300), HOST);
    for port in 2000..2008 {
        for last in 1..=9 {
            server(&mut rig, &format!("203.0.113.{last}:{port}"), VIP);
        }
    }
    assert_eq!(rig.conns(), 9 * 9);
    let templates = |rig: &Rig, dest: usize| rig.shared[0].lines[dest].templates();
    assert_eq!([0, 1, 2].map(|dest| templates(&rig, dest)), [3, 3, 3]);
    rig.remove_dest(id, DestId(0));
    rig.shared[0].lines[0].set_flags(DestLine::ENDS);
    rig.shared[0].purge();
    for _ in 0..1000 {
        rig.settle();
    }
    assert_eq!([0, 1, 2].map(|dest| templates(&rig, dest)), [0, 3, 3]);
    assert_eq!(rig.conns(), 6 * 9);
}

#[test]
fn without_room_for_a_template_nothing_is_left_behind() {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let limits = Limits { conns4: 5, ..LIMITS };
    let mut rig = Rig::new(network_with(interfaces, 8), &Plan { limits, ..PLAN });
    let id = add(&mut rig, key(VIP), 80, Direct);
    rig.persist(id, ticks(300), HOST);
    for last in 1..=2 {
        let client = format!("203.0.113.{last}:2000");
        assert!(server(&mut rig, &client, VIP).is_some());
        give(&mut rig, &tcp(socket(&client), socket(VIP), ACK, b""));
    }
    // One line is left: a template fits, its connection does not. Established ones make no room.
    for _ in 0..3 {
        assert_eq!(server(&mut rig, "203.0.113.3:2000", VIP), None);
        assert_eq!(rig.conns(), 4);
    }
    assert_eq!(rig.drops().get("table-full"), Some(&3));
    assert_eq!((0..3).map(|dest| rig.shared[0].lines[dest].templates()).sum::<u32>(), 2);
    // One that is there already has room for a connection.
    assert!(server(&mut rig, "203.0.113.2:2001", VIP).is_some());
}

/// A datagram each: nothing but their templates is left of them, for an hour.
#[test]
fn templates_of_spoofed_clients_of_a_one_packet_service_make_room_for_anybody() {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let limits = Limits { conns4: 1024, ..LIMITS };
    let mut rig = Rig::new(network_with(interfaces, 8), &Plan { limits, ..PLAN });
    let to = "198.51.100.1:53";
    let key = ServiceKey { protocol: UDP, ..key(to) };
    let id = add(&mut rig, key, 53, Direct);
    rig.set_rules(id, Rules { one_packet: true, ..Rules::default() });
    rig.persist(id, ticks(3600), HOST);
    add(&mut rig, self::key(VIP), 80, Direct);
    let spoofed =
        |number: u32| SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 9);
    for number in 0..3000 {
        assert_eq!(give(&mut rig, &udp(spoofed(number), socket(to), b"?")).len(), 1, "{number}");
    }
    assert_eq!(rig.conns(), 1024);
    for port in 2000..3024 {
        assert!(server(&mut rig, &format!("203.0.113.7:{port}"), VIP).is_some(), "{port}");
        give(&mut rig, &tcp(SocketAddr::new([203, 0, 113, 7].into(), port), socket(VIP), ACK, b""));
    }
    assert!(rig.drops().is_empty(), "{:?}", rig.drops());
    assert_eq!((0..3).map(|dest| rig.shared[0].lines[dest].templates()).sum::<u32>(), 0);
    rig.finish();
}

#[test]
fn a_client_to_whom_there_is_no_way_back_leaves_no_template() {
    let at = |interface, address: &str, mac| {
        let address = address.parse().unwrap();
        StaticNeighbor { interface: InterfaceId(interface), address, mac }
    };
    let known = vec![at(0, "198.51.100.7", CLIENT_MAC), at(1, "192.0.2.11", rig::dest_mac(0))];
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let mut rig = Rig::new(Network::new(interfaces, vec![], vec![], known, true), &PLAN);
    let id = rig.add_service_of(key(VIP), SchedulerKind::Rr, &[("192.0.2.11:80", Masquerade, 1)]);
    rig.persist(id, ticks(3600), HOST);
    for last in 1..100 {
        assert_eq!(server(&mut rig, &format!("203.0.113.{last}:2000"), VIP), None);
    }
    assert_eq!((rig.conns(), rig.drops().get("no-route")), (0, Some(&99)));
    assert_eq!(rig.shared[0].lines[0].templates(), 0);
    assert_eq!(server(&mut rig, "198.51.100.7:2000", VIP), Some(0));
    assert_eq!(rig.conns(), 2);
    rig.finish();
}

#[test]
fn a_mark_may_depend_on_the_link_and_the_vlan_that_a_packet_came_in_through() {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500), interface(0, 7, 1500)];
    let mut rig = Rig::new(network_with(interfaces, 8), &PLAN);
    let tagged_only = Rule { interface: Some(InterfaceId(2)), ..Rule::new(9) };
    rig.snapshot.marks = Arc::new(Marks::new(&[tagged_only]));
    rig.add_service((TCP, VIP), SchedulerKind::Rr, &[("192.0.2.11:80", Direct, 1)]);
    let by_mark = rig.add_service_of(
        ServiceKey::mark(9, false),
        SchedulerKind::Rr,
        &[("192.0.2.12:0", Direct, 1)],
    );
    assert_eq!(rig.service(by_mark).key.vip(), None);
    let syn = |port| {
        from_client(&tcp(SocketAddr::new([203, 0, 113, 7].into(), port), socket(VIP), SYN, b""))
    };
    let to = |out: &[(usize, Vec<u8>)]| out[0].1[5] - 0x11;
    assert_eq!(to(&rig.send(0, &[syn(1)])), 0);
    assert_eq!(to(&rig.send(0, &[tagged(&syn(2), 7)])), 1);
    // A known connection stays, wherever its packets come in.
    assert_eq!(to(&rig.send(0, &[syn(2)])), 1);
}

#[test]
fn a_mark_of_ipv6_spans_addresses_ports_and_protocols_for_a_whole_network() {
    let mut rig = Rig::single();
    rig.snapshot.marks = Arc::new(Marks::new(&[Rule::new(7)]));
    let id = rig.add_service_of(
        ServiceKey::mark(7, true),
        SchedulerKind::Rr,
        &[("[2001:db8:d::11]:0", Masquerade, 1), ("[2001:db8:d::12]:0", Masquerade, 1)],
    );
    rig.persist(id, ticks(60), Mask::v6(64));
    let mut servers = Vec::new();
    for (host, to) in [("1", "80"), ("2", "443"), ("ffff:1", "81")] {
        let client = socket(&format!("[2001:db8:99::{host}]:4000"));
        // The director's own addresses are what marks are looked for.
        let vip = socket(&format!("[2001:db8:c::1]:{to}"));
        for (packet, protocol) in [(tcp(client, vip, SYN, b""), TCP), (udp(client, vip, b""), 17)] {
            let out = give(&mut rig, &packet);
            assert_eq!((out[0].0, out[0].1.protocol), (1, protocol));
            assert_eq!(out[0].1.destination.port(), vip.port(), "it keeps the client's port");
            servers.push(out[0].1.destination.ip());
        }
    }
    servers.dedup();
    assert_eq!(servers.len(), 1, "{servers:?}");
    let other = give(
        &mut rig,
        &tcp(socket("[2001:db8:98::1]:4000"), socket("[2001:db8:c::1]:80"), SYN, b""),
    );
    assert_ne!(other[0].1.destination.ip(), servers[0]);
    let rows = rig.dump(0, true);
    let template = rows.iter().find(|row| row.template == Some(0)).unwrap();
    assert_eq!(template.vip, socket("[0:7::]:0"));
    assert_eq!(rows.iter().filter(|row| row.template.is_some()).count(), 2);
}

#[test]
fn a_port_that_ftps_service_caught_is_the_directors_own_when_nobody_takes_it() {
    let mut rig = Rig::single();
    let ftp = rig.add_service((TCP, "198.51.100.1:21"), SchedulerKind::Rr, &[]);
    let answer = |rig: &mut Rig, port: u16| {
        let vip = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), port);
        let out = give(rig, &tcp(socket("203.0.113.7:2000"), vip, SYN, b""));
        out[0].1.protocol
    };
    // Nobody takes it: ICMP from the service, a reset from the host itself.
    assert_eq!([answer(&mut rig, 21), answer(&mut rig, 5000), answer(&mut rig, 80)], [1, TCP, TCP]);
    rig.add_dest(ftp, socket("192.0.2.11:21"), Direct, 1);
    assert_eq!(server(&mut rig, "203.0.113.7:2001", "198.51.100.1:21"), Some(0));
    assert_eq!(server(&mut rig, "203.0.113.7:2001", "198.51.100.1:5000"), None, "not persistent");
    rig.persist(ftp, ticks(60), HOST);
    assert_eq!(server(&mut rig, "203.0.113.7:2002", "198.51.100.1:5000"), Some(0));
    // Nor does a server's own data connection look for a service.
    assert_eq!(server(&mut rig, "203.0.113.7:20", "198.51.100.1:21"), None);
}
