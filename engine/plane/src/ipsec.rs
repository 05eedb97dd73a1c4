//! `IPsec` follows its key exchange: AH and ESP have no ports, and go where the UDP connection between
//! port 500 of the same two hosts goes (RFC 7296; Linux 6.1 `ip_vs_proto_ah_esp.c`).
//!
//! Addresses are all that masquerading changes. They open no connection, keep the one that they
//! follow alive, and count as its packets. Without it they are nobody's: for the director, or routed.
//! ICMP errors about them are those of the same connection ([`crate::related`]).

use crate::drop_reason::DropReason;
use crate::forward;
use crate::icmp::Local;
use crate::lane::{Verdict, line_of, note};
use crate::related::{Around, hop_of, may_be_a_connections};
use rvs_conntrack::{Conns, Direction};
use rvs_io::Frame;
use rvs_model::DestLine;
use rvs_wire::flow::{Ends, Key, V4, V6, protocol};
use rvs_wire::icmp::ISAKMP;
use rvs_wire::packet::Packet;

/// What becomes of a packet that no lane took, if it is AH or ESP and follows a connection; `None` if
/// it does not.
#[cold]
pub(crate) fn verdict<B: Frame>(
    (v4, v6): (&mut Conns<V4>, &mut Conns<V6>),
    around: Around<'_>,
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let [serves_v4, serves_v6] = around.world.serves;
    match frame.octets().get(usize::from(l3))? >> 4 {
        4 if serves_v4 => of_family(v4, around, frame, l3),
        6 if serves_v6 => of_family(v6, around, frame, l3),
        _ => None,
    }
}

fn of_family<F: Local, B: Frame>(
    conns: &mut Conns<F>,
    around: Around<'_>,
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let Around { world, hops, paths, from } = around;
    let network = &world.snapshot.network;
    // Later fragments too: addresses are enough.
    let look = F::look(frame.octets().get(usize::from(l3)..)?)?;
    if !matches!(look.protocol, protocol::AH | protocol::ESP)
        || !may_be_a_connections::<F>(frame, network, &look)
    {
        return None;
    }
    let ends = <F::Ends as Ends>::new((look.source, ISAKMP), (look.destination, ISAKMP));
    let key = Key { ends, protocol: protocol::UDP };
    let Some(found) = conns.table().find(&key, conns.table().hash(&key)) else {
        let inbound = network.is_local(look.destination.into());
        let owner = world.owner(&key, inbound, from);
        let elsewhere = !world.steering.is_single() && owner != world.worker;
        return elsewhere.then_some(Verdict::Handoff(owner));
    };
    let mut conn = conns.held(found, &key)?;
    let line = line_of(world.lines, &conn)?;
    let is_outbound = found.direction == Direction::Outbound;
    if !is_outbound && !line.has(DestLine::AVAILABLE) {
        return Some(DropReason::DestDeleted.into());
    }
    let Some((hop_id, hop)) = hop_of(&conn, found.direction, hops) else {
        return Some(DropReason::NoRoute.into());
    };
    let Ok(packet_octets) = u16::try_from(look.octets) else {
        return Some(DropReason::TooBig.into());
    };
    // No transport header that masquerading knows.
    let packet = Packet::<F> { key, l3, packet_octets, ..Packet::default() };
    let pmtu_disc = world.snapshot.tunables.pmtu_disc;
    let way = found.direction;
    let sent = forward::apply_unread(&conn, way, &packet, hop, paths, pmtu_disc, frame);
    if sent.is_sent() || !is_outbound {
        note(&mut conn, line, &packet, is_outbound, world.now);
    }
    Some(sent.verdict(hop_id, l3))
}
