//! What becomes of connections whose service or destination an operator deletes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;

use core::net::SocketAddr;
use rig::frames::{ACK, SYN, TCP, ethernet, read, tcp};
use rig::{CLIENT_MAC, OUR_MACS, Rig};
use rvs_model::{DestLine, ForwardMethod, SchedulerKind};

/// An address that stays the director's when the service is gone.
const VIP: &str = "198.51.100.1:80";

fn client(port: u16) -> SocketAddr {
    SocketAddr::new([203, 0, 113, 7].into(), port)
}

fn from_client(port: u16, flags: u8) -> Vec<u8> {
    let packet = tcp(client(port), VIP.parse().unwrap(), flags, b"");
    ethernet(OUR_MACS[0], CLIENT_MAC, &packet)
}

/// A service with one destination and `conns` connections from port 40000 on.
fn rig(conns: u16) -> Rig {
    let mut rig = Rig::single();
    let dest = [("192.0.2.11:80", ForwardMethod::Masquerade, 1)];
    rig.add_service((TCP, VIP), SchedulerKind::Rr, &dest);
    for port in 0..conns {
        rig.send(0, &[from_client(40_000 + port, SYN)]);
    }
    assert_eq!(rig.workers[0].conns(), [conns.into(), 0]);
    rig
}

#[test]
fn without_a_service_of_its_family_a_packet_is_the_stacks_even_of_a_connection() {
    let mut rig = rig(1);
    let service = rig.snapshot.services.set(0, None);
    let index = core::mem::take(&mut rig.snapshot.index);
    rig.shared[0].lines[0].set_flags(0);
    rig.publish();
    let out = rig.send(0, &[from_client(40_000, ACK)]);
    assert_eq!(out.len(), 1, "{out:x?}");
    let (link, frame) = &out[0];
    let seen = read(frame);
    assert_eq!((*link, seen.destination, seen.flags), (0, client(40_000), 4), "a reset");
    // The connection is there still, and goes on when service and destination come back.
    rig.snapshot.services.set(0, service);
    rig.snapshot.index = index;
    rig.shared[0].lines[0].set_flags(DestLine::AVAILABLE);
    rig.publish();
    let out = rig.send(0, &[from_client(40_000, ACK)]);
    assert_eq!((out.len(), out[0].0), (1, 1), "{out:?}");
}

#[test]
fn packets_of_a_deleted_destination_are_dropped_by_name_while_its_service_is_there() {
    let mut rig = rig(1);
    rig.shared[0].lines[0].set_flags(0);
    assert_eq!(rig.send(0, &[from_client(40_000, ACK)]), []);
    assert_eq!(rig.drops()["dest-deleted"], 1);
}

#[test]
fn a_purge_ends_connections_of_deleted_destinations_within_few_breaths_and_no_other() {
    let mut rig = rig(400);
    rig.shared[0].purge();
    for _ in 0..100 {
        rig.settle();
    }
    assert_eq!(rig.workers[0].conns(), [400, 0], "its destination is there");
    rig.shared[0].lines[0].set_flags(DestLine::ENDS);
    rig.shared[0].purge();
    rig.settle();
    assert!(rig.workers[0].conns()[0] > 0, "not all in one breath");
    assert!(!rig.shared[0].has_purged());
    for _ in 0..100 {
        rig.settle();
    }
    assert_eq!(rig.workers[0].conns(), [0, 0]);
    assert!(rig.shared[0].has_purged());
    assert_eq!(rig.shared[0].lines[0].load().total(), 0);
}
