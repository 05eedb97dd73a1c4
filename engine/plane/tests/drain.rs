//! The end of a drain: what is left of a destination's connections is reset to both sides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::SocketAddr;
use rig::frames::{ACK, PSH, RST, SYN, Segment, TCP, UDP, ethernet, read, read_packet, udp};
use rig::{CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, dest_mac, interface, network_with};
use rvs_model::ForwardMethod::{Direct, Masquerade, Tunnel};
use rvs_model::{DestId, DestLine, SchedulerKind, ServiceId};

#[test]
fn a_connection_that_is_cut_is_reset_to_both_sides_with_numbers_that_they_believe() {
    for (method, v6, workers) in
        [(Masquerade, false, 1), (Masquerade, true, 3), (Direct, false, 3), (Tunnel, true, 1)]
    {
        let [client, vip, dest] = if v6 {
            ["[2001:db8:99::7]:40000", "[2001:db8:c::80]:80", "[2001:db8:d::11]:8080"]
        } else {
            ["203.0.113.7:40000", "198.51.100.80:80", "192.0.2.11:8080"]
        }
        .map(|text| text.parse::<SocketAddr>().unwrap());
        let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
        let mut rig = Rig::new(network, &Plan { workers, ..PLAN });
        let dests = [(&*dest.to_string(), method, 1)];
        rig.add_service((TCP, &vip.to_string()), SchedulerKind::Rr, &dests);
        let says = |rig: &mut Rig, from: SocketAddr, flags: u8, data: &[u8]| {
            let (sequence, acknowledgment) = (70_001, 90_002);
            let made = Segment { from, to: vip, sequence, acknowledgment, flags, data };
            rig.send(0, &[ethernet(OUR_MACS[0], CLIENT_MAC, &made.packet())])
        };
        let mut other = client;
        other.set_port(40_001);
        for from in [client, other] {
            says(&mut rig, from, SYN, b"");
            assert_eq!(says(&mut rig, from, ACK, b"").len(), 1);
        }
        rig.set_weight(ServiceId(0), DestId(0), 0);
        assert_eq!(says(&mut rig, client, ACK, b"x").len(), 1, "weight 0 ends nothing");
        let flags = DestLine::AVAILABLE | DestLine::DRAINED | DestLine::RESETS;
        for shared in &rig.shared {
            shared.lines[0].set_flags(flags);
        }
        let mut out = says(&mut rig, client, PSH | ACK, b"GET /");
        out.sort_by_key(|(link, _)| *link);
        assert_eq!(out.len(), 2, "{method:?} {:?}", rig.drops());
        let to_client = read(&out[0].1);
        assert_eq!((to_client.source, to_client.destination), (vip, client));
        assert_eq!((to_client.flags, to_client.sequence), (RST, 90_002), "what it expects next");
        let to_dest = read(&out[1].1);
        assert_eq!(to_dest.to, dest_mac(0));
        let to_dest = if method == Tunnel { read_packet(&to_dest.data) } else { to_dest };
        let there = if method == Masquerade { dest } else { vip };
        assert_eq!((to_dest.source, to_dest.destination), (client, there));
        assert_eq!((to_dest.flags & RST, to_dest.sequence), (RST, 70_001));
        assert_eq!(rig.conns(), 1, "the silent one stays");
        let out = says(&mut rig, client, ACK, b"late");
        assert_eq!(out.len(), 1);
        assert_eq!((read(&out[0].1).flags, out[0].0), (RST, 0), "as of any unknown connection");
        rig.finish();
    }
}

#[test]
fn nothing_is_reset_that_is_not_tcp() {
    let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 8);
    let mut rig = Rig::new(network, &PLAN);
    let (client, vip) = ("203.0.113.7:40000".parse().unwrap(), "198.51.100.80:53");
    rig.add_service((UDP, vip), SchedulerKind::Rr, &[("192.0.2.11:53", Masquerade, 1)]);
    let query = ethernet(OUR_MACS[0], CLIENT_MAC, &udp(client, vip.parse().unwrap(), b"?"));
    assert_eq!(rig.send(0, std::slice::from_ref(&query)).len(), 1);
    rig.shared[0].lines[0].set_flags(DestLine::AVAILABLE | DestLine::RESETS);
    assert_eq!((rig.send(0, &[query]).len(), rig.conns()), (1, 1));
}
