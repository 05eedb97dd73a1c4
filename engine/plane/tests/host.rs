//! A link that the host's own stack uses beside the director: whose frame is whose.
//!
//! ```text
//!  network ── link 0 ── [director] ── link 1 ── the host's stack
//!               ours: our Ethernet address      the rest, and groups
//! ```
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::IpAddr;
use rig::frames::{arp, echo_request, ethernet, ip, read_arp, udp};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, interface, network_with};
use rvs_plane::network::Host;
use rvs_wire::mac::MacAddr;

const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x77]);

fn rig(workers: u16) -> Rig {
    let network = network_with(vec![interface(0, 0, 1500)], 0);
    let plan = Plan { workers, ..PLAN };
    Rig::new(network.with_hosts(vec![Host { link: 0, end: 1 }]), &plan)
}

fn addresses() -> (IpAddr, IpAddr, IpAddr) {
    (
        "198.51.100.9".parse().unwrap(),
        "198.51.100.3".parse().unwrap(),
        "198.51.100.1".parse().unwrap(),
    )
}

#[test]
fn frames_to_another_address_are_the_hosts_whatever_is_in_them() {
    let (peer, host, _) = addresses();
    let mut rig = rig(1);
    let ssh = ethernet(HOST_MAC, CLIENT_MAC, &udp((peer, 40000).into(), (host, 22).into(), b"ssh"));
    let mut lldp = vec![2, 0, 0, 0, 0, 0x77, 2, 0, 0, 0, 0, 0xfe, 0x88, 0xcc];
    lldp.resize(60, 7);
    let broken = [&ssh[..20], &[0xff; 40]].concat();
    let frames = [ssh, lldp, broken];
    let out = rig.send(0, &frames);
    let expected: Vec<_> = frames.iter().map(|frame| (1, frame.clone())).collect();
    assert_eq!(out, expected, "as they came");
    let counts = rig.counts();
    assert_eq!((counts.received, counts.to_host, counts.sent), (3, 3, 0));
    rig.assert_conservation();
}

#[test]
fn what_the_host_sends_goes_out_as_it_is() {
    let (peer, host, ours) = addresses();
    let mut rig = rig(1);
    let frames = [
        ethernet(CLIENT_MAC, HOST_MAC, &udp((host, 22).into(), (peer, 40000).into(), b"ssh")),
        ethernet(MacAddr::BROADCAST, HOST_MAC, &echo_request(host, ours, b"to everybody")),
        ethernet(CLIENT_MAC, HOST_MAC, &[0xff; 9]),
    ];
    let out = rig.send(1, &frames);
    let expected: Vec<_> = frames.iter().map(|frame| (0, frame.clone())).collect();
    assert_eq!(out, expected);
    let counts = rig.counts();
    assert_eq!((counts.received, counts.to_host, counts.sent), (3, 0, 3));
    rig.assert_conservation();
}

#[test]
fn groups_are_for_both_and_each_answers_for_its_own_address() {
    let (peer, host, ours) = addresses();
    let mut rig = rig(1);
    let v4 = |address| match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!(),
    };
    let question = |about| {
        arp(MacAddr::BROADCAST, 1, (CLIENT_MAC, v4(peer)), (MacAddr::UNSPECIFIED, v4(about)))
    };
    for (about, answers) in [(ours, 1), (host, 0)] {
        let frame = question(about);
        let out = rig.send(0, core::slice::from_ref(&frame));
        let (to_host, to_network): (Vec<_>, Vec<_>) =
            out.into_iter().partition(|(link, _)| *link == 1);
        assert_eq!(to_host, [(1, frame)], "the host hears every question");
        assert_eq!(to_network.len(), answers, "{about}");
        for (_, answer) in to_network {
            assert_eq!(read_arp(&answer).unwrap().sender, (OUR_MACS[0], v4(about)));
        }
    }
    // VRRP: RFC 9568 section 5.1.
    let advertisement = ip(peer, "224.0.0.18".parse().unwrap(), 112, 255, &[0x31, 1, 100, 0]);
    let vrrp = ethernet(MacAddr([1, 0, 0x5e, 0, 0, 18]), CLIENT_MAC, &advertisement);
    assert_eq!(rig.send(0, core::slice::from_ref(&vrrp)), [(1, vrrp)]);
    assert_eq!(rig.counts().to_host, 3);
    rig.assert_conservation();
}

#[test]
fn frames_to_the_director_are_not_shown_to_the_host() {
    let (peer, _, ours) = addresses();
    let mut rig = rig(2);
    let frame = ethernet(OUR_MACS[0], CLIENT_MAC, &echo_request(peer, ours, b"hello"));
    let out = rig.send(0, &[frame]);
    assert!(out.iter().all(|(link, _)| *link == 0), "{out:?}");
    assert_eq!(rig.counts().to_host, 0);
    rig.assert_conservation();
}

#[test]
fn without_a_host_frames_to_other_addresses_are_dropped_by_name() {
    let (peer, host, _) = addresses();
    let mut rig = Rig::single();
    let frame = ethernet(HOST_MAC, CLIENT_MAC, &udp((peer, 40000).into(), (host, 22).into(), b"x"));
    assert!(rig.send(0, &[frame]).is_empty());
    assert_eq!(rig.drops().get("other-host"), Some(&1));
    rig.assert_conservation();
}
