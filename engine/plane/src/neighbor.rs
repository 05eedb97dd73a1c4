//! Next hops: who is reached by which Ethernet header, and how that is found out.
//!
//! ```text
//!            a packet for it                    answer
//!  (new) ──► Incomplete ──────────────────────► Reachable ◄────────────┐
//!    │          │ three requests unanswered       │ after 30 s         │ answer
//!    │          ▼                                 ▼                    │
//!    │       Failed ── next use, 1 s later     Probing (still used) ───┘
//!    │          ▲  ▲                            ▲ │ three probes unanswered
//!    │          │  └────────────────────────────┼─┘
//!    │          │ after 30 s                    │
//!    └───────► Heard ───────────────────────────┘ a packet for it
//!  asked for us
//! ```
//!
//! RFC 826 for IPv4, RFC 4861 section 7.3 for IPv6, simplified alike: a neighbour is asked again
//! after [`REACHABLE_S`] whether or not it is in use, so that no packet writes to its line.
//!
//! [`Hop`] is what packets read: one half line. Everything else is beside it. A connection keeps
//! the number of its hop; an entry given to another address is told by [`Hop::leads_to`].
//!
//! Whoever can send a packet can name addresses of connected networks, and whoever is on a link can
//! claim any, and answer for it. So places are of two kinds: those of routers and destinations, and
//! those of *guests*, everybody else, who take half of the table at most. A place is given to another
//! address only when nobody answers there and no packet of this breath is on its way to it; and an
//! answer counts as one only when there was a question.

use crate::atlas::About;
use crate::drop_reason::DropReason;
use crate::network::{InterfaceId, Network, NextHop};
use arrayvec::ArrayVec;
use core::net::IpAddr;
use hashbrown::HashMap;
use rvs_model::{TICKS_PER_SECOND, Tick, ticks};
use rvs_wire::ethernet;
use rvs_wire::mac::MacAddr;

/// The place of a hop.
pub type HopId = u16;

/// Seconds after which a neighbour is asked again.
pub const REACHABLE_S: u32 = 30;
/// Requests before giving up, one a second (RFC 4861 section 10: `MAX_MULTICAST_SOLICIT`).
const REQUESTS: u8 = 3;
/// Frames that wait for one neighbour.
const HELD: usize = 3;
/// Frames that wait for all of them: a scan of a connected network must not empty the pool. Half of
/// that is for those that are not guests, or the scan would keep destinations from being asked for.
const HELD_ALL: usize = 512;
/// Those among them that are to be cut into segments: their rooms are few. TCP begins with short
/// packets, so that long ones find their neighbour known.
const HELD_LONG: usize = 8;
/// Entries looked at for an expired one when the table is full, and per breath by the timer.
const LOOKS: usize = 64;

/// How to reach a next hop: what packets read.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub struct Hop {
    /// Ethernet header, tag included.
    header: [u8; 18],
    /// 0 while the address is not resolved.
    header_len: u8,
    /// Index of the link.
    pub link: u8,
    /// The longest packet it takes, octets.
    pub mtu: u16,
    /// What [`peer`] says of its address.
    peer: u32,
    /// All bits for a neighbour that packets to its own address alone use, none for a router.
    mask: u32,
}

const _: () = assert!(size_of::<Hop>() == 32);

impl Hop {
    /// The Ethernet header, or nothing while the address is not resolved.
    #[inline]
    #[must_use]
    pub fn header(&self) -> Option<&[u8]> {
        self.header.get(..usize::from(self.header_len)).filter(|_| self.is_ready())
    }

    /// The same if it has no tag.
    #[inline]
    #[must_use]
    pub fn untagged_header(&self) -> Option<&[u8; ethernet::HEADER_LEN]> {
        let is_untagged = usize::from(self.header_len) == ethernet::HEADER_LEN;
        self.header.first_chunk().filter(|_| is_untagged)
    }

    /// Whether the Ethernet address is known.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.header_len != 0
    }

    /// Whether packets to `peer` (see [`peer`]) may still use this hop.
    #[inline]
    #[must_use]
    pub fn leads_to(&self, peer: u32) -> bool {
        (self.peer ^ peer) & self.mask == 0
    }

    fn address(&mut self, mac: MacAddr, ours: MacAddr, vlan: u16, is_v6: bool) {
        let ethertype: [u8; 2] = if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        let [a, b, c, d, e, f] = mac.0;
        let [g, h, i, j, k, l] = ours.0;
        let [m, n] = ethertype;
        if vlan == 0 {
            self.header = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, 0, 0, 0, 0];
            self.header_len = 14;
        } else {
            let [o, p] = vlan.to_be_bytes();
            self.header = [a, b, c, d, e, f, g, h, i, j, k, l, 0x81, 0x00, o, p, m, n];
            self.header_len = 18;
        }
    }
}

/// What [`Hop::leads_to`] compares: an IPv4 address, or the words of an IPv6 one added without
/// carries, since hosts of several networks like to have the same last word.
#[inline]
#[must_use]
pub fn peer(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let (words, _) = octets.as_chunks::<4>();
            words.iter().fold(0, |sum, word| sum ^ u32::from_be_bytes(*word))
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Heard,
    Incomplete { asked: u8 },
    Reachable,
    Probing { asked: u8 },
    Failed,
    Static,
}

/// A frame that waits: its IP header begins at `l3`.
#[derive(Debug)]
pub struct Held<F> {
    /// The frame, rewritten but for its Ethernet header.
    pub frame: F,
    /// Offset of the IP header.
    pub l3: u16,
    /// Whether it is to be cut into segments.
    pub is_long: bool,
}

/// How many frames wait.
#[derive(Default)]
struct Waiting {
    all: usize,
    long: usize,
}

impl Waiting {
    fn one_more<F>(&mut self, held: &Held<F>) {
        self.all += 1;
        self.long += usize::from(held.is_long);
    }

    fn less<F>(&mut self, gone: &[Held<F>]) {
        self.all -= gone.len();
        self.long -= gone.iter().filter(|held| held.is_long).count();
    }
}

struct Entry<F> {
    interface: InterfaceId,
    address: IpAddr,
    mac: MacAddr,
    status: Status,
    /// When the status was entered, or the last request sent.
    since: Tick,
    /// The last breath that meant a packet for it while it was not resolved.
    used: u32,
    guest: bool,
    held: ArrayVec<Held<F>, HELD>,
}

/// A question to be put on a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Question {
    /// Where.
    pub interface: InterfaceId,
    /// About whom.
    pub address: IpAddr,
    /// Whom to ask: the last known address when probing, everybody otherwise.
    pub to: Option<MacAddr>,
}

/// Whose place in the table a new neighbour takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Of those whom the operator named: destinations. Routers count as such anyway.
    Resident,
    /// Of those whom packets named.
    Guest,
}

/// What a neighbour says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct News {
    /// Where it is.
    pub mac: MacAddr,
    /// It answers us: so it is reachable, and not only known.
    pub solicited: bool,
    /// It replaces another address that is known (RFC 4861 section 7.2.5).
    pub overrides: bool,
    /// It is entered if it is unknown.
    pub create: bool,
}

/// What [`Neighbors::tick`] found due.
pub struct Due<F> {
    /// To be asked.
    pub questions: ArrayVec<Question, LOOKS>,
    /// Waited in vain.
    pub given_up: ArrayVec<Held<F>, LOOKS>,
}

/// The neighbours of one worker.
pub struct Neighbors<F> {
    hops: Vec<Hop>,
    entries: Vec<Entry<F>>,
    index: HashMap<(InterfaceId, IpAddr), HopId>,
    capacity: usize,
    guests: usize,
    hand: usize,
    waiting: Waiting,
    breath: u32,
    /// What [`Neighbors::resolve_towards`] found last, for one state of the network: a route that leads
    /// through a router, and that router's hop. Clients that have the same router come one after the
    /// other.
    routed: Option<(u32, HopId)>,
    /// The tick of the current round of the timer, and how far it has come.
    round: (Tick, usize),
}

impl<F> Neighbors<F> {
    /// At most `capacity` neighbours, itself at most 65 535.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(usize::from(HopId::MAX));
        Self {
            hops: Vec::with_capacity(capacity),
            entries: Vec::with_capacity(capacity),
            // Twice that, so that it does not grow when places change hands.
            index: HashMap::with_capacity(capacity * 2),
            capacity,
            guests: 0,
            hand: 0,
            waiting: Waiting::default(),
            breath: 0,
            routed: None,
            round: (0, 0),
        }
    }

    /// Frames that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.waiting.all
    }

    /// What packets read, by [`HopId`].
    #[inline]
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// One of them.
    #[inline]
    #[must_use]
    pub fn hop(&self, id: HopId) -> Option<&Hop> {
        self.hops.get(usize::from(id))
    }

    /// Enters all routers, before anybody else: connections to a host whose place a router took
    /// would follow it (see [`Hop::leads_to`]). Then the configured neighbours.
    pub fn configure(&mut self, network: &Network, now: Tick) {
        for router in network.routers() {
            let _full = self.resolve(network, router, Place::Resident, now);
        }
        for neighbor in network.static_neighbors() {
            let next =
                NextHop { interface: neighbor.interface, address: neighbor.address, on_link: true };
            if let Some(id) = self.resolve(network, next, Place::Resident, now) {
                self.set_mac(network, id, neighbor.mac);
                if let Some(entry) = self.entries.get_mut(usize::from(id)) {
                    entry.status = Status::Static;
                }
            }
        }
    }

    /// The hop towards `to`, which this is known about; it keeps its place for this breath. All that one
    /// router leads to have that router's.
    ///
    /// # Errors
    ///
    /// There is no route, or no place for the neighbour.
    #[inline(always)]
    pub(crate) fn resolve_towards(
        &mut self,
        network: &Network,
        about: About,
        to: IpAddr,
        now: Tick,
    ) -> Result<HopId, DropReason> {
        if let Some((route, id)) = self.routed
            && about.route == Some(route)
            && let Some(entry) = self.entries.get_mut(usize::from(id))
            && entry.status != Status::Heard
        {
            entry.used = self.breath;
            return Ok(id);
        }
        self.resolve_route(network, about, to, now)
    }

    /// The same for the first of those. Not part of its caller, which opens connections and has few
    /// enough registers.
    #[inline(never)]
    fn resolve_route(
        &mut self,
        network: &Network,
        about: About,
        to: IpAddr,
        now: Tick,
    ) -> Result<HopId, DropReason> {
        let next = network.next_hop_by(about, to).ok_or(DropReason::NoRoute)?;
        let id = self.resolve(network, next, Place::Guest, now);
        let id = id.ok_or(DropReason::NeighborTableFull)?;
        if !next.on_link {
            self.routed = about.route.zip(Some(id));
        }
        Ok(id)
    }

    /// From now on routes are others.
    pub(crate) fn forget_routes(&mut self) {
        self.routed = None;
    }

    /// The hop of `next`, entered if it is new; it keeps its place for this breath. `None` when there
    /// is no place for it.
    #[inline(never)]
    pub fn resolve(
        &mut self,
        network: &Network,
        next: NextHop,
        place: Place,
        now: Tick,
    ) -> Option<HopId> {
        let resident = place == Place::Resident || !next.on_link;
        let Some(id) = self.index.get(&(next.interface, next.address)).copied() else {
            return self.enter(network, next, resident, now);
        };
        let at = usize::from(id);
        let (entry, hop) = (self.entries.get_mut(at)?, self.hops.get_mut(at)?);
        entry.used = self.breath;
        if !next.on_link {
            hop.mask = 0;
        }
        if entry.status == Status::Heard {
            entry.status = Status::Probing { asked: 0 };
            entry.since = now.wrapping_sub(TICKS_PER_SECOND);
        }
        if resident {
            self.guests -= usize::from(core::mem::take(&mut entry.guest));
        }
        Some(id)
    }

    fn enter(
        &mut self,
        network: &Network,
        next: NextHop,
        resident: bool,
        now: Tick,
    ) -> Option<HopId> {
        let interface = network.interface(next.interface)?;
        let hop = Hop {
            link: interface.link,
            mtu: interface.mtu,
            peer: peer(next.address),
            mask: if next.on_link { u32::MAX } else { 0 },
            ..Hop::default()
        };
        let entry = Entry {
            interface: next.interface,
            address: next.address,
            mac: MacAddr::UNSPECIFIED,
            status: Status::Failed,
            since: now.wrapping_sub(TICKS_PER_SECOND),
            used: self.breath,
            guest: !resident,
            held: ArrayVec::new(),
        };
        let is_crowded = !resident && self.guests >= self.capacity.div_ceil(2);
        let id = if self.hops.len() < self.capacity && !is_crowded {
            self.hops.push(hop);
            self.entries.push(entry);
            HopId::try_from(self.hops.len() - 1).ok()?
        } else {
            let id = self.reusable(is_crowded)?;
            self.routed = None;
            let old = self.entries.get_mut(usize::from(id))?;
            self.index.remove(&(old.interface, old.address));
            self.guests -= usize::from(old.guest);
            *old = entry;
            *self.hops.get_mut(usize::from(id))? = hop;
            id
        };
        self.guests += usize::from(!resident);
        self.index.insert((next.interface, next.address), id);
        Some(id)
    }

    /// Whether packets to `peer` (see [`peer`]) may still use a hop; if so, it keeps its place for
    /// this breath.
    #[inline(always)]
    pub fn keeps(&mut self, id: HopId, peer: u32) -> bool {
        let Some(hop) = self.hop(id).filter(|hop| hop.leads_to(peer)) else { return false };
        // Who answers keeps it anyway.
        if !hop.is_ready()
            && let Some(entry) = self.entries.get_mut(usize::from(id))
        {
            entry.used = self.breath;
        }
        true
    }

    /// The place of a neighbour that does not answer and that no packet is on its way to. Routers
    /// keep theirs: connections do not check that a router's hop is still a router's.
    fn reusable(&mut self, of_guest: bool) -> Option<HopId> {
        for _ in 0..LOOKS.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = self.entries.get(self.hand)?;
            let is_host = self.hops.get(self.hand).is_some_and(|hop| hop.mask != 0);
            let is_used = entry.used == self.breath || !entry.held.is_empty();
            // What was only heard is nobody's way to anywhere.
            let may_go = match entry.status {
                Status::Failed => entry.guest || !of_guest,
                Status::Heard => entry.guest && of_guest,
                _ => false,
            };
            if may_go && is_host && !is_used {
                return HopId::try_from(self.hand).ok();
            }
        }
        None
    }

    /// Keeps a frame until its hop is resolved, and says what to ask, if it is time to.
    ///
    /// # Errors
    ///
    /// The frame that can't wait, this one or an older one, and why.
    pub fn hold(
        &mut self,
        id: HopId,
        held: Held<F>,
        now: Tick,
    ) -> Result<Option<Question>, (F, DropReason)> {
        let Some(entry) = self.entries.get_mut(usize::from(id)) else {
            return Err((held.frame, DropReason::NeighborTableFull));
        };
        let may_ask = now.wrapping_sub(entry.since) >= TICKS_PER_SECOND;
        if entry.status == Status::Failed && !may_ask {
            return Err((held.frame, DropReason::NeighborUnresolved));
        }
        let most = if entry.guest { HELD_ALL / 2 } else { HELD_ALL };
        let is_full = entry.held.is_full();
        if !is_full && self.waiting.all >= most || held.is_long && self.waiting.long >= HELD_LONG {
            return Err((held.frame, DropReason::NeighborQueueFull));
        }
        // RFC 1122 section 2.3.2.2, RFC 4861 section 7.2.2: the latest are kept.
        let oldest = if is_full { entry.held.pop_at(0) } else { None };
        self.waiting.less(oldest.as_slice());
        self.waiting.one_more(&held);
        entry.held.push(held);
        if let Some(oldest) = oldest {
            return Err((oldest.frame, DropReason::NeighborQueueFull));
        }
        if entry.status != Status::Failed {
            return Ok(None);
        }
        entry.status = Status::Incomplete { asked: 1 };
        entry.since = now;
        Ok(Some(Question { interface: entry.interface, address: entry.address, to: None }))
    }

    /// Takes in what a neighbour says of itself; says which one it is if that was believed.
    pub fn learn(
        &mut self,
        network: &Network,
        from: (InterfaceId, IpAddr),
        news: News,
        now: Tick,
    ) -> Option<HopId> {
        let (interface, address) = from;
        let id = match self.index.get(&from) {
            Some(id) => *id,
            None if news.create => {
                let next = NextHop { interface, address, on_link: true };
                self.enter(network, next, false, now)?
            }
            None => return None,
        };
        let is_ready = self.hop(id)?.is_ready();
        let entry = self.entries.get_mut(usize::from(id))?;
        let moved = entry.mac != news.mac;
        if entry.status == Status::Static || is_ready && moved && !news.overrides {
            return None;
        }
        // What nobody asked for does not make a known address fresh, or a host that shouts would
        // never be probed.
        match entry.status {
            Status::Incomplete { .. } | Status::Probing { .. } if news.solicited => {
                (entry.status, entry.since) = (Status::Reachable, now);
            }
            // Another worker asked.
            Status::Reachable if news.solicited && !moved => entry.since = now,
            Status::Failed => (entry.status, entry.since) = (Status::Heard, now),
            Status::Reachable if moved => entry.since = now.wrapping_sub(ticks(REACHABLE_S)),
            _ => {}
        }
        self.set_mac(network, id, news.mac);
        Some(id)
    }

    fn set_mac(&mut self, network: &Network, id: HopId, mac: MacAddr) {
        let at = usize::from(id);
        if let (Some(entry), Some(hop)) = (self.entries.get_mut(at), self.hops.get_mut(at))
            && let Some(interface) = network.interface(entry.interface)
        {
            entry.mac = mac;
            hop.address(mac, interface.mac, interface.vlan, entry.address.is_ipv6());
        }
    }

    /// The frames that waited for `id`.
    pub fn release(&mut self, id: HopId) -> ArrayVec<Held<F>, HELD> {
        let entry = self.entries.get_mut(usize::from(id));
        let held = entry.map(|entry| core::mem::take(&mut entry.held)).unwrap_or_default();
        self.waiting.less(&held);
        held
    }

    /// Ends a breath: looks at some neighbours; once a tick at each of them. `None` when all were
    /// looked at, as in nearly every breath.
    #[inline]
    pub fn tick(&mut self, now: Tick) -> Option<Due<F>> {
        self.breath = self.breath.wrapping_add(1);
        let (tick, next) = self.round;
        if next < self.entries.len() {
            return Some(self.look(now, next));
        }
        if tick == now { None } else { Some(self.look(now, 0)) }
    }

    /// Whether this tick's round is not at its end.
    pub(crate) fn is_behind(&self) -> bool {
        self.round.1 < self.entries.len()
    }

    /// Looks at some neighbours, from the one at `next` on.
    #[inline(never)]
    fn look(&mut self, now: Tick, mut next: usize) -> Due<F> {
        let mut due = Due { questions: ArrayVec::new(), given_up: ArrayVec::new() };
        for _ in 0..LOOKS {
            if due.given_up.remaining_capacity() < HELD {
                break;
            }
            let at = next;
            let (Some(entry), Some(hop)) = (self.entries.get_mut(at), self.hops.get_mut(at)) else {
                break;
            };
            next += 1;
            let age = now.wrapping_sub(entry.since);
            let (asked, to) = match entry.status {
                Status::Heard if age >= ticks(REACHABLE_S) => (REQUESTS, None),
                Status::Reachable if age >= ticks(REACHABLE_S) => (0, Some(entry.mac)),
                Status::Incomplete { asked } if age >= TICKS_PER_SECOND => (asked, None),
                Status::Probing { asked } if age >= TICKS_PER_SECOND => (asked, Some(entry.mac)),
                _ => continue,
            };
            entry.since = now;
            if asked < REQUESTS {
                let asked = asked + 1;
                entry.status = match to {
                    Some(_) => Status::Probing { asked },
                    None => Status::Incomplete { asked },
                };
                due.questions.push(Question {
                    interface: entry.interface,
                    address: entry.address,
                    to,
                });
            } else {
                entry.status = Status::Failed;
                hop.header_len = 0;
                self.waiting.less(&entry.held);
                due.given_up.extend(entry.held.drain(..));
            }
        }
        self.round = (now, next);
        due
    }

    /// Everything that waits, at the end.
    pub fn drain(&mut self) -> impl Iterator<Item = F> {
        self.waiting = Waiting::default();
        self.entries.iter_mut().flat_map(|entry| entry.held.drain(..)).map(|held| held.frame)
    }
}

#[cfg(test)]
mod tests;
