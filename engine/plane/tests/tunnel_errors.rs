//! ICMP errors about the director's own tunnel packets reach who sent the packet inside; what they
//! say of a path's MTU is kept for a while; what is forged changes nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::{IpAddr, SocketAddr};
use rig::frames::{ACK, SYN, TCP, ethernet, icmp, may_fragment, read, tcp};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network_with};
use rvs_model::ForwardMethod::{Direct, Tunnel};
use rvs_model::{DestId, SchedulerKind, ServiceId, TICKS_PER_SECOND, ticks};
use rvs_plane::marks::{Marks, Rule};
use rvs_plane::network::InterfaceId;
use rvs_plane::persist::Mask;
use rvs_plane::snapshot::ServiceKey;
use rvs_wire::tunnel::Encapsulation;
use std::sync::Arc;

const GUE: Encapsulation = Encapsulation::Gue { port: 6080, checksum: true };
const ALL: [Encapsulation; 3] = [Encapsulation::Ip, Encapsulation::Gre { checksum: true }, GUE];
const FAMILIES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn vip(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:c::80]:80" } else { "198.51.100.80:80" }.parse().unwrap()
}

fn client(v6: bool) -> SocketAddr {
    if v6 { "[2001:db8:99::7]:40000" } else { "203.0.113.7:40000" }.parse().unwrap()
}

fn own(v6: bool) -> IpAddr {
    if v6 { "2001:db8:d::1" } else { "192.0.2.1" }.parse().unwrap()
}

fn router(v6: bool) -> IpAddr {
    dest_ip(v6, 7)
}

fn connected((inner, outer): (bool, bool), wrapped: Encapsulation, workers: u16) -> Rig {
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let mut rig = Rig::new(network, &Plan { workers, ..PLAN });
    let dest = SocketAddr::new(dest_ip(outer, 0), 80).to_string();
    let vip = vip(inner).to_string();
    let id = rig.add_service((TCP, &vip), SchedulerKind::Rr, &[(&dest, Tunnel, 1)]);
    rig.set_tunnel(id, DestId(0), wrapped);
    rig
}

/// A packet of the connection, `octets` long; what leaves.
fn send(rig: &mut Rig, v6: bool, octets: usize) -> Vec<(usize, Vec<u8>)> {
    let header = if v6 { 60 } else { 40 };
    let packet = tcp(client(v6), vip(v6), SYN | ACK, &vec![b'x'; octets - header]);
    rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)])
}

/// An error of a router behind the director about `quote`.
fn error(v6: bool, head: [u8; 8], quote: &[u8]) -> Vec<u8> {
    let message = [&head, quote].concat();
    ethernet(OUR_MACS[1], dest_mac(7), &icmp(router(v6), own(v6), 64, &message))
}

fn too_big(v6: bool, mtu: u16) -> [u8; 8] {
    let [a, b] = mtu.to_be_bytes();
    if v6 { [2, 0, 0, 0, 0, 0, a, b] } else { [3, 4, 0, 0, 0, 0, a, b] }
}

/// The MTU that an error tells the client.
fn told(out: &[(usize, Vec<u8>)], v6: bool) -> u16 {
    assert_eq!((out.len(), out[0].0), (1, 0), "{out:?}");
    let seen = read(&out[0].1);
    assert_eq!((seen.source.ip(), seen.destination.ip()), (vip(v6).ip(), client(v6).ip()));
    assert_eq!(seen.data[..2], too_big(v6, 0)[..2]);
    u16::from_be_bytes([seen.data[6], seen.data[7]])
}

fn headers(outer: bool, wrapped: Encapsulation) -> u16 {
    (if outer { 40 } else { 20 }) + u16::try_from(wrapped.octets()).unwrap()
}

#[test]
fn a_paths_mtu_is_told_and_kept_whatever_the_tunnel() {
    for families in FAMILIES {
        for wrapped in ALL {
            let (inner, outer) = families;
            let case = format!("{families:?} {wrapped:?}");
            let mut rig = connected(families, wrapped, 1);
            let sent = send(&mut rig, inner, 1400);
            assert_eq!(sent[0].0, 1);
            let told_now =
                told(&rig.send(1, &[error(outer, too_big(outer, 1400), &sent[0].1[14..])]), inner);
            let right = 1400 - headers(outer, wrapped);
            // Linux tells its clients what the route was before; the others are told right.
            let linux = !inner && !outer;
            let before = 1500 - headers(outer, wrapped);
            assert_eq!(told_now, if linux { before } else { right }, "{case}");
            assert_eq!(told(&send(&mut rig, inner, 1400), inner), right, "{case}");
            let out = send(&mut rig, inner, right.into());
            assert_eq!((out.len(), out[0].0, out[0].1.len()), (1, 1, 14 + 1400), "{case}");
        }
    }
}

#[test]
fn what_was_told_is_forgotten_after_ten_minutes() {
    let mut rig = connected((false, false), Encapsulation::Ip, 1);
    let sent = send(&mut rig, false, 1400);
    rig.send(1, &[error(false, too_big(false, 1300), &sent[0].1[14..])]);
    assert_eq!(told(&send(&mut rig, false, 1400), false), 1280);
    rig.pass(598 * TICKS_PER_SECOND);
    assert_eq!(told(&send(&mut rig, false, 1400), false), 1280);
    rig.pass(4 * TICKS_PER_SECOND);
    assert_eq!(send(&mut rig, false, 1400)[0].0, 1, "to the destination");
}

#[test]
fn what_may_be_cut_is_cut_to_what_was_told() {
    let mut rig = connected((false, false), GUE, 1);
    let sent = send(&mut rig, false, 1400);
    rig.send(1, &[error(false, too_big(false, 1300), &sent[0].1[14..])]);
    let packet = may_fragment(tcp(client(false), vip(false), ACK, &[b'x'; 1360]));
    let out = rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &packet)]);
    let lengths: Vec<_> = out.iter().map(|(_, frame)| frame.len() - 14).collect();
    assert_eq!(lengths, [1300, 1400 + 32 - 1300 + 20]);
}

#[test]
fn an_ipv6_packet_of_1280_octets_always_gets_through() {
    let mut rig = connected((true, true), Encapsulation::Ip, 1);
    let sent = send(&mut rig, true, 1400);
    let out = rig.send(1, &[error(true, too_big(true, 1280), &sent[0].1[14..])]);
    assert_eq!(told(&out, true), 1280, "no less than every link carries");
    let out = send(&mut rig, true, 1280);
    assert_eq!(out.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [1, 1], "in two pieces");
    assert!(out.iter().all(|(_, frame)| frame.len() <= 14 + 1280));
}

#[test]
fn no_router_is_believed_below_the_floor() {
    for (outer, floor) in [(false, 552 - 20), (true, 1280 - 40)] {
        let mut rig = connected((false, outer), Encapsulation::Ip, 1);
        let sent = send(&mut rig, false, 1400);
        rig.send(1, &[error(outer, too_big(outer, 0), &sent[0].1[14..])]);
        assert_eq!(told(&send(&mut rig, false, 1400), false), floor);
    }
}

#[test]
fn other_errors_about_ipv4_in_ipv4_are_passed_on_and_those_about_the_rest_are_not() {
    for families in FAMILIES {
        let (inner, outer) = families;
        let unreachable = if outer { [1, 0, 0, 0, 0, 0, 0, 0] } else { [3, 0, 0, 0, 0, 0, 0, 0] };
        let exceeded = if outer { [3, 0, 0, 0, 0, 0, 0, 0] } else { [11, 0, 0, 0, 0, 0, 0, 0] };
        for head in [unreachable, exceeded] {
            let mut rig = connected(families, GUE, 1);
            let sent = send(&mut rig, inner, 100);
            let out = rig.send(1, &[error(outer, head, &sent[0].1[14..])]);
            if families != (false, false) {
                assert_eq!((out.len(), rig.drops()["icmp-ignored"]), (0, 1), "{families:?}");
                continue;
            }
            assert_eq!((out.len(), out[0].0), (1, 0));
            let seen = read(&out[0].1);
            assert_eq!(
                (seen.source.ip(), seen.destination.ip()),
                (vip(inner).ip(), client(inner).ip())
            );
            assert_eq!(seen.data[0], head[0]);
            assert_eq!(seen.data[8..], sent[0].1[14 + usize::from(headers(outer, GUE))..]);
            assert_eq!(rig.drops()["answered"], 1);
        }
    }
}

/// What makes of the rig's service one of another kind.
type Make = fn(&mut Rig, ServiceId);

#[test]
fn whichever_worker_an_error_reaches_the_connections_owner_learns_from_it() {
    let plainly = |_: &mut Rig, _: ServiceId| ();
    let persistently = |rig: &mut Rig, id| rig.persist(id, ticks(300), Mask::ALL);
    // Of a mark that packets have which come in where clients are, and no others.
    let by_mark = |rig: &mut Rig, _: ServiceId| {
        let rule = Rule { interface: Some(InterfaceId(0)), ..Rule::new(9) };
        rig.snapshot.marks = Arc::new(Marks::new(&[rule]));
        let key = ServiceKey::mark(9, false);
        let dest = dest_ip(false, 0).to_string() + ":0";
        let id = rig.add_service_of(key, SchedulerKind::Rr, &[(&dest, Tunnel, 1)]);
        rig.persist(id, ticks(300), Mask::ALL);
    };
    let kinds: [(&str, Make); 3] =
        [("plain", plainly), ("persistent", persistently), ("by mark", by_mark)];
    for (kind, make) in kinds {
        for port in 40_000..40_008 {
            let mut rig = connected((false, false), Encapsulation::Ip, 4);
            make(&mut rig, ServiceId(0));
            let client = SocketAddr::new(client(false).ip(), port);
            let packet = tcp(client, vip(false), SYN | ACK, &[b'x'; 1360]);
            let frame = ethernet(OUR_MACS[0], CLIENT_MAC, &packet);
            let sent = rig.send(0, std::slice::from_ref(&frame));
            let out = rig.send(1, &[error(false, too_big(false, 1300), &sent[0].1[14..])]);
            assert_eq!(out.len(), 1, "{kind} {port}: {:?}", rig.drops());
            assert_eq!(told(&rig.send(0, &[frame]), false), 1280, "{kind} {port}");
        }
    }
}

/// RFC 4884 section 5.5: routers that say more than the error, such as which labels the packet had, fill
/// the quote up to 128 octets with zeros and put it behind them.
#[test]
fn what_stands_behind_a_quote_is_not_taken_for_the_packet() {
    for wrapped in ALL {
        let mut rig = connected((false, false), wrapped, 1);
        let sent = send(&mut rig, false, 60)[0].1[14..].to_vec();
        let mut quote = sent.clone();
        quote.resize(128, 0);
        quote.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 1, 0x40]);
        let out = rig.send(1, &[error(false, [3, 1, 0, 0, 0, 32, 0, 0], &quote)]);
        assert_eq!((out.len(), out[0].0), (1, 0), "{wrapped:?}: {:?}", rig.drops());
        let seen = read(&out[0].1);
        assert_eq!(
            (seen.source.ip(), seen.destination.ip()),
            (vip(false).ip(), client(false).ip())
        );
        let inner = &sent[usize::from(headers(false, wrapped))..];
        assert_eq!(&seen.data[8..], inner, "{wrapped:?}");
    }
}

/// Each differs in one thing from an error that is believed.
#[test]
fn forged_errors_change_nothing_and_tell_nobody() {
    let refused = |rig: &mut Rig, frame: Vec<u8>, what: &str| {
        let out = rig.send(1, &[frame]);
        assert!(out.is_empty(), "{what}: {out:?}");
        assert_eq!(send(rig, false, 1400)[0].0, 1, "{what}: nothing was learnt");
    };
    for wrapped in [Encapsulation::Ip, GUE] {
        let mut rig = connected((false, false), wrapped, 1);
        let sent = send(&mut rig, false, 1400)[0].1[14..].to_vec();
        let head = too_big(false, 600);
        let inner = usize::from(headers(false, wrapped));
        let changed = |at: usize| {
            let mut quote = sent.clone();
            quote[at] ^= 1;
            error(false, head, &quote)
        };
        refused(&mut rig, changed(19), "another destination");
        refused(&mut rig, changed(15), "another beginning of the tunnel");
        refused(&mut rig, changed(inner + 21), "another client's port");
        refused(&mut rig, changed(inner + 15), "another client");
        refused(&mut rig, changed(9), "another protocol");
        refused(&mut rig, error(false, head, &sent[..inner + 8]), "too short a quotation");
        let elsewhere =
            icmp(router(false), "198.51.100.1".parse().unwrap(), 64, &[&head, &sent[..]].concat());
        let frame = ethernet(OUR_MACS[1], dest_mac(7), &elsewhere);
        refused(&mut rig, frame, "not to the tunnel's beginning");
        let mut wrong = error(false, head, &sent);
        wrong[14 + 22] ^= 1;
        refused(&mut rig, wrong, "a wrong checksum");
        if wrapped == GUE {
            refused(&mut rig, changed(23), "another port of the tunnel");
        }
    }
}

#[test]
fn an_error_about_a_connection_that_is_not_tunnelled_is_not_about_a_tunnel() {
    let mut rig = connected((false, false), Encapsulation::Ip, 1);
    let sent = send(&mut rig, false, 100)[0].1[14..].to_vec();
    // The same connection, by direct routing.
    let mut rig = Rig::single();
    let dest = SocketAddr::new(dest_ip(false, 0), 80).to_string();
    rig.add_service((TCP, &vip(false).to_string()), SchedulerKind::Rr, &[(&dest, Direct, 1)]);
    assert_eq!(send(&mut rig, false, 100).len(), 1);
    assert!(rig.send(1, &[error(false, too_big(false, 600), &sent)]).is_empty());
    assert_eq!(rig.drops()["icmp-ignored"], 1);
}

/// A director whose own address is a VIP, and an error that looks as if it were about a tunnel: no
/// frame goes round between workers for ever.
#[test]
fn an_error_that_could_be_about_a_tunnel_or_a_connection_ends() {
    let mut rig = connected((false, false), GUE, 4);
    let here = SocketAddr::new(own(false), 53);
    let dest = SocketAddr::new(dest_ip(false, 1), 53).to_string();
    rig.add_service((17, &here.to_string()), SchedulerKind::Rr, &[(&dest, Direct, 1)]);
    for port in 0..64_u16 {
        let inner = tcp(SocketAddr::new(client(false).ip(), port), vip(false), ACK, b"");
        let quote = rig::frames::udp(
            here,
            SocketAddr::new(router(false), 9000 + port),
            &[&[0, 4, 0, 0], &inner[..]].concat(),
        );
        rig.send(1, &[error(false, [3, 3, 0, 0, 0, 0, 0, 0], &quote)]);
    }
    let counts = rig.counts();
    assert!(counts.handed <= 64, "each is handed over once at most: {}", counts.handed);
}

#[test]
fn a_flood_of_errors_is_passed_on_at_a_bounded_rate() {
    let mut rig = connected((false, false), Encapsulation::Ip, 1);
    let sent = send(&mut rig, false, 100)[0].1[14..].to_vec();
    let frame = error(false, [3, 1, 0, 0, 0, 0, 0, 0], &sent);
    let mut out = 0;
    for _ in 0..20 {
        out += rig.send(1, &vec![frame.clone(); 32]).len();
    }
    assert!(out < 400, "{out}");
    assert_eq!(rig.drops()["rate-limited"] + rig.drops()["answered"], 640);
}
