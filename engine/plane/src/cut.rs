//! The end of `drain --reset`: a TCP connection is reset to both sides when its client sends next.
//!
//! ```text
//!  client ── seq, ack ──► director ── RST, seq of the client's segment ──► destination
//!         ◄── RST, its ack ──┘
//! ```
//!
//! A host believes a reset only if its sequence number is the very next (RFC 5961 section 3.2). The
//! director keeps no sequence numbers, so it waits for a segment that has them: what is silent is
//! ended silently, by the purge that follows.

use crate::carry::settle;
use crate::drop_reason::DropReason;
use crate::forward;
use crate::icmp::{Local, Look, is_v6};
use crate::lane::{World, forget};
use crate::paths::Paths;
use crate::related::hop_of;
use crate::stack::{Desk, L3};
use rvs_conntrack::{Conns, Direction};
use rvs_io::{Frame, Queue};
use rvs_wire::flow::{Ends as _, Key, V4, V6, protocol};
use rvs_wire::packet::Packet;
use rvs_wire::tcp::{self, Tcp, flag};

/// Resets the connection of a client's segment to both sides, and forgets it.
#[cold]
pub(crate) fn both<Q: Queue>(
    (v4, v6): (&mut Conns<V4>, &mut Conns<V6>),
    around: (&World<'_>, &Paths),
    desk: &mut Desk<'_, Q>,
    (frame, link): (Q::Frame, u8),
    l3: u16,
) {
    if is_v6(&frame, l3) {
        cut(v6, around, desk, (frame, link), l3);
    } else {
        cut(v4, around, desk, (frame, link), l3);
    }
}

fn cut<F: Local, Q: Queue>(
    conns: &mut Conns<F>,
    around: (&World<'_>, &Paths),
    desk: &mut Desk<'_, Q>,
    (frame, link): (Q::Frame, u8),
    l3: u16,
) {
    let look = frame.octets().get(usize::from(l3)..).and_then(F::look);
    let Some(look) =
        look.filter(|look| onward(conns, around, desk, (&frame, link), l3, look).is_some())
    else {
        return desk.links.drop(frame, DropReason::LocalIgnored);
    };
    // As many as there are: the peer is known to talk to us.
    let from = desk.interface_of(&frame, link, l3);
    desk.reset::<F>(frame, from, l3, &look, false);
}

/// Forgets the connection and tells the destination.
fn onward<F: Local, Q: Queue>(
    conns: &mut Conns<F>,
    (world, paths): (&World<'_>, &Paths),
    desk: &mut Desk<'_, Q>,
    (frame, link): (&Q::Frame, u8),
    l3: u16,
    look: &Look<F::Addr>,
) -> Option<()> {
    let about = frame.octets().get(usize::from(l3)..)?;
    let (segment, _) = Tcp::parse(about.get(look.l4..look.octets)?).ok()?;
    let client = (look.source, segment.source_port());
    let vip = (look.destination, segment.destination_port());
    let key = Key::<F> { ends: F::Ends::new(client, vip), protocol: protocol::TCP };
    let found = conns.table().find(&key, conns.table().hash(&key));
    // An earlier segment of the burst may have been the one.
    let Some(found) = found.filter(|found| found.direction == Direction::Inbound) else {
        return Some(());
    };
    let conn = conns.remove(found.index)?;
    forget(world.lines, &conn);
    let header = tcp::Header {
        source_port: client.1,
        destination_port: vip.1,
        sequence: segment.sequence(),
        acknowledgment: segment.acknowledgment(),
        flags: flag::RST | flag::ACK,
        window: 0,
    };
    let octets = F::HEADER_LEN + tcp::HEADER_LEN;
    let mut made = desk.links.originate(usize::from(L3) + octets)?;
    let place = made.octets_mut().get_mut(usize::from(L3)..)?;
    let pseudo = F::pseudo_sum(client.0, vip.0, protocol::TCP, 20);
    F::write_header(place, (protocol::TCP, 20), (client.0, vip.0), 0)?;
    *place.get_mut(F::HEADER_LEN..)?.first_chunk_mut()? = header.octets(&[], pseudo);
    let packet = Packet {
        key,
        l3: L3,
        l4: u16::try_from(F::HEADER_LEN).ok()?,
        packet_octets: u16::try_from(octets).ok()?,
        vlan: 0,
        flags: header.flags,
    };
    let verdict = match hop_of(&conn, Direction::Inbound, desk.stack.neighbors.hops()) {
        Some((id, hop)) => {
            let pmtu_disc = world.snapshot.tunables.pmtu_disc;
            let way = Direction::Inbound;
            let sent = forward::apply_unread(&conn, way, &packet, hop, paths, pmtu_disc, &mut made);
            sent.verdict(id, L3)
        }
        None => DropReason::NoRoute.into(),
    };
    settle(desk, (made, link), verdict);
    Some(())
}
