//! Stage 6 of a lane: the connection of a packet that the burst could not guess, found or opened.
//!
//! ```text
//!  find ─► held ──────────────────────────────► forwarded like any packet
//!    │     └ its destination is gone, its port is used again ─┐
//!    └ none ─► awaited by FTP's helper │ another worker's │ a server's │ open ─► its first packet
//! ```

use crate::balance::{Asker, Balance};
use crate::drop_reason::DropReason;
use crate::ftp::Talks;
use crate::handoff::Mesh;
use crate::icmp::Local;
use crate::lane::{Slot, Verdict, World, begins_anew, first, first_and_last, forget, line_of};
use crate::neighbor::{Hop, Neighbors, Place, peer};
use crate::paths::Paths;
use crate::snapshot::{Service, ServiceKey};
use rvs_conntrack::conn::flag as unusual;
use rvs_conntrack::{Conn, Conns, Direction, Found};
use rvs_io::Frame;
use rvs_model::DestLine;
use rvs_wire::flow::{Ends as _, Key, protocol};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;
use rvs_wire::tcp::flag;

/// What is known of a packet's connection.
pub(crate) enum Known {
    /// This one.
    Held(Found),
    /// None; in the place of this one, if there is one.
    Not { over: Option<u32> },
}

/// What finding or opening a connection needs.
pub(crate) struct Settle<'a, 'b, B> {
    pub(crate) world: &'a World<'b>,
    pub(crate) balance: &'a mut Balance,
    pub(crate) neighbors: &'a mut Neighbors<B>,
    pub(crate) paths: &'a mut Paths,
    pub(crate) mesh: &'a Mesh<B>,
}

/// What a client asked for: who comes next often asks for the same.
pub(crate) struct Asked<'b, F: Rewrite> {
    end: (F::Addr, u16),
    protocol: u8,
    service: Option<&'b Service>,
}

/// The same for those of one burst.
pub(crate) struct Admission<'a, 'b, F: Rewrite, B> {
    pub(crate) settle: Settle<'a, 'b, B>,
    /// By the last packet of this burst that had no connection and no mark.
    pub(crate) asked: Option<Asked<'b, F>>,
    /// The address of ours that the last one went to which did go to one.
    pub(crate) ours: Option<F::Addr>,
}

impl<'b, F: Local, B: Frame> Admission<'_, 'b, F, B> {
    /// Whether a packet is a client's.
    #[inline(always)]
    pub(crate) fn is_inbound(&mut self, key: &Key<F>) -> bool {
        let address = key.ends.destination().0;
        let is_again = self.ours.is_some_and(|ours| ours == address);
        if !is_again && self.settle.world.snapshot.network.is_local(address.into()) {
            self.ours = Some(address);
            return true;
        }
        is_again
    }

    /// The mark of a client's packet that came in through `link`, and the service that it asks for.
    #[inline(always)]
    fn service(&mut self, packet: &Packet<F>, link: u8) -> (u32, Option<&'b Service>) {
        let (key, snapshot) = (&packet.key, self.settle.world.snapshot);
        let mark = snapshot.mark(key, (link, packet.vlan));
        if mark != 0 {
            return (mark, snapshot.service(mark, &ServiceKey::of(key)));
        }
        let (end, protocol) = (key.ends.destination(), key.protocol);
        if let Some(asked) = &self.asked
            && (asked.end, asked.protocol) == (end, protocol)
        {
            return (0, asked.service);
        }
        let service = snapshot.service(0, &ServiceKey::of(key));
        self.asked = Some(Asked { end, protocol, service });
        (0, service)
    }

    /// The packet's connection, or what becomes of a packet that has none.
    #[inline(always)]
    pub(crate) fn find(
        &mut self,
        conns: &mut Conns<F>,
        talks: &Talks<F>,
        slot: &Slot<F>,
        inbound: bool,
    ) -> Result<Known, Verdict> {
        let key = &slot.packet.key;
        // Not even among the replies that the index does not know yet: their clients have none of our
        // addresses.
        let is_there = !(inbound && conns.table().lacks(slot.hash));
        let mut found = if is_there { conns.find(key, slot.hash) } else { None };
        if found.is_none() && inbound && talks.awaits() && key.protocol == protocol::TCP {
            found = self.awaited(conns, slot)?;
        }
        let Some(found) = found else { return Ok(Known::Not { over: None }) };
        let holds = self.still_holds(conns, slot, found)?;
        Ok(if holds { Known::Held(found) } else { Known::Not { over: Some(found.index) } })
    }

    /// The same of a client's packet that has none, while data connections of FTP are awaited.
    #[cold]
    fn awaited(&self, conns: &mut Conns<F>, slot: &Slot<F>) -> Result<Option<Found>, Verdict> {
        let world = self.settle.world;
        match other_owner(world, slot, true) {
            Some(owner) => Err(Verdict::Handoff(owner)),
            None => Ok(Talks::claim(conns, world, self.settle.mesh, &slot.packet)),
        }
    }

    /// Decides what becomes of a packet that has no connection but may open one.
    #[inline(always)]
    pub(crate) fn open(
        &mut self,
        conns: &mut Conns<F>,
        talks: &mut Talks<F>,
        slot: &Slot<F>,
        (inbound, over): (bool, Option<u32>),
        (frame, verdict): (&mut B, &mut Verdict),
    ) {
        if let Some(other) = self.leads_elsewhere(slot, inbound, over) {
            *verdict = other;
            return;
        }
        let world = self.settle.world;
        let (mark, service) = self.service(&slot.packet, link_of(world, slot));
        let asker = Asker { packet: &slot.packet, hash: slot.hash, mark, service, over };
        let once = |conn: &Conn<F>, hops: &[Hop], paths: &Paths| {
            first_and_last(conn, world, (hops, paths), &slot.packet, frame)
        };
        let Settle { balance, neighbors, paths, .. } = &mut self.settle;
        match balance.open(world, conns, (neighbors, paths), &asker, once) {
            Ok(index) => {
                let Some(conn) = conns.table().conn(index) else {
                    *verdict = DropReason::TableFull.into();
                    return;
                };
                if conn.has(unusual::HELPED) {
                    talks.forget(index);
                }
                first(conn, world, (neighbors.hops(), paths), &slot.packet, (frame, verdict));
            }
            // What opened nothing takes no place either.
            Err(other) => {
                *verdict = other;
                if let Some(old) = over.filter(|old| conns.is_at(*old, &slot.packet.key))
                    && let Some(conn) = conns.remove(old)
                {
                    forget(world.lines, &conn);
                }
            }
        }
    }

    /// What becomes of a packet that opens nothing here, whatever it asks for.
    #[inline(always)]
    fn leads_elsewhere(&self, slot: &Slot<F>, inbound: bool, over: Option<u32>) -> Option<Verdict> {
        let Packet { l3, vlan, .. } = slot.packet;
        let world = self.settle.world;
        // Also of a packet that another worker handed over: its snapshot may have been older, and a
        // new VIP still a stranger to it. Snapshots only advance, so nothing goes round for ever.
        if over.is_none()
            && let Some(owner) = other_owner(world, slot, inbound)
        {
            return Some(Verdict::Handoff(owner));
        }
        if world.snapshot.servers.may_be_told(&slot.packet) {
            return Some(Verdict::NoConn { l3 });
        }
        (!inbound).then_some(Verdict::Stack { l3, vlan })
    }

    /// Whether a connection that was found is to be used, after its next hop was looked up again
    /// if that went to somebody else; `false` if it is to be forgotten and opened anew.
    fn still_holds(
        &mut self,
        conns: &mut Conns<F>,
        slot: &Slot<F>,
        found: Found,
    ) -> Result<bool, Verdict> {
        let Packet { l3, vlan, flags, .. } = slot.packet;
        let Some(conn) = conns.conn_mut(found.index) else { return Ok(false) };
        if found.direction == Direction::Inbound {
            let Some(line) = line_of(self.settle.world.lines, conn) else { return Ok(false) };
            // Linux 6.1 ip_vs_core.c ip_vs_in(): first whether the client uses its port again, then
            // whether the destination is still there.
            if flags & flag::SYN != 0 && begins_anew(conn, line, self.settle.world) {
                return Ok(false);
            }
            if line.has(DestLine::STALE_UDP) && conn.protocol == protocol::UDP {
                return Ok(false);
            }
            if line.has(DestLine::RESETS) && conn.protocol == protocol::TCP {
                return Err(Verdict::Cut { l3, vlan });
            }
            if !line.has(DestLine::AVAILABLE) {
                // Silently dropped unless the operator wants a new destination.
                return if self.settle.world.snapshot.tunables.expire_nodest_conn {
                    Ok(false)
                } else {
                    Err(DropReason::DestDeleted.into())
                };
            }
        }
        let (hop, to, place) = match found.direction {
            Direction::Inbound => {
                // Behind a tunnel of the other family the connection does not have it.
                let own = conn.outbound.source().0.into();
                let known = self.settle.paths.address(conn.dest);
                // FTP's server may say another one for data.
                let to = known.filter(|_| !conn.has(unusual::DATA)).unwrap_or(own);
                (&mut conn.next_hop, to, Place::Resident)
            }
            Direction::Outbound => {
                (&mut conn.client_hop, conn.inbound.source().0.into(), Place::Guest)
            }
        };
        if !self.settle.neighbors.keeps(*hop, peer(to)) {
            let network = &self.settle.world.snapshot.network;
            let next = network.next_hop(to).ok_or(DropReason::NoRoute)?;
            *hop = self
                .settle
                .neighbors
                .resolve(network, next, place, self.settle.world.now)
                .ok_or(DropReason::NeighborTableFull)?;
        }
        Ok(true)
    }
}

/// The worker whose packet it is, if it is not this one's.
#[inline(always)]
fn other_owner<F: Rewrite>(world: &World<'_>, slot: &Slot<F>, inbound: bool) -> Option<u16> {
    if world.steering.is_single() {
        return None;
    }
    let Packet { key, vlan, .. } = &slot.packet;
    let owner = world.owner(key, inbound, (link_of(world, slot), *vlan));
    (owner != world.worker).then_some(owner)
}

/// Where a packet came in.
#[inline(always)]
fn link_of<F: Rewrite>(world: &World<'_>, slot: &Slot<F>) -> u8 {
    world.origins.get(usize::from(slot.frame)).copied().unwrap_or_default()
}
