//! Next hops: who is reached by which Ethernet header, and how that is found out.
//!
//! ```text
//!            hold, or a packet for it            reply
//!  (new) ──► Incomplete ───────────────────────► Reachable ◄──────────┐
//!               │ three requests unanswered        │ after 30 s        │ reply
//!               ▼                                   ▼                   │
//!            Failed ── next use, 1 s later ──►   Probing (still used) ──┘
//!               ▲                                   │ three probes unanswered
//!               └───────────────────────────────────┘
//! ```
//!
//! RFC 826 for IPv4, RFC 4861 section 7.3 for IPv6, simplified alike: a neighbour is asked again
//! after [`REACHABLE_S`] whether or not it is in use, so that no packet writes to its line.
//!
//! [`Hop`] is what packets read: one half line. Everything else is beside it. A connection keeps
//! the number of its hop; an entry given to another address is told by [`Hop::leads_to`].

use crate::drop_reason::DropReason;
use crate::network::{InterfaceId, Network, NextHop};
use arrayvec::ArrayVec;
use core::net::IpAddr;
use hashbrown::HashMap;
use rvs_model::{TICKS_PER_SECOND, Tick, ticks};
use rvs_wire::mac::MacAddr;

/// The place of a hop.
pub type HopId = u16;

/// Seconds after which a neighbour is asked again.
pub const REACHABLE_S: u32 = 30;
/// Requests before giving up, one a second (RFC 4861 section 10: `MAX_MULTICAST_SOLICIT`).
const REQUESTS: u8 = 3;
/// Frames that wait for one neighbour.
const HELD: usize = 3;
/// Entries looked at for an expired one when the table is full, and per breath by the timer.
const LOOKS: usize = 64;

/// How to reach a next hop: what packets read.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub struct Hop {
    /// Ethernet header, tag included.
    header: [u8; 18],
    header_len: u8,
    /// Index of the link.
    pub link: u8,
    /// The longest packet it takes, octets.
    pub mtu: u16,
    ready: bool,
    /// The last four octets of its address when packets for that address alone use it, else 0.
    peer: u32,
}

const _: () = assert!(size_of::<Hop>() == 32);

impl Hop {
    /// The Ethernet header, or nothing while the address is not resolved.
    #[inline]
    #[must_use]
    pub fn header(&self) -> Option<&[u8]> {
        self.header.get(..usize::from(self.header_len)).filter(|_| self.ready)
    }

    /// Whether the Ethernet address is known.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether packets to `peer` (see [`peer`]) may still use this hop.
    #[inline]
    #[must_use]
    pub fn leads_to(&self, peer: u32) -> bool {
        self.peer == 0 || self.peer == peer
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
        self.ready = true;
    }
}

/// What [`Hop::leads_to`] compares: the last four octets of an address.
#[inline]
#[must_use]
pub fn peer(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
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
}

struct Entry<F> {
    interface: InterfaceId,
    address: IpAddr,
    mac: MacAddr,
    status: Status,
    /// When the status was entered, or the last request sent.
    since: Tick,
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
    hand: usize,
    held: usize,
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
            index: HashMap::with_capacity(capacity),
            capacity,
            hand: 0,
            held: 0,
            round: (0, 0),
        }
    }

    /// Frames that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
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

    /// Enters the configured neighbours.
    pub fn configure(&mut self, network: &Network, now: Tick) {
        for neighbor in network.static_neighbors() {
            let next =
                NextHop { interface: neighbor.interface, address: neighbor.address, on_link: true };
            if let Some(id) = self.resolve(network, next, now) {
                self.set_mac(network, id, neighbor.mac);
                if let Some(entry) = self.entries.get_mut(usize::from(id)) {
                    entry.status = Status::Static;
                }
            }
        }
    }

    /// The hop of `next`, entered if it is new. `None` when the table is full of living ones.
    pub fn resolve(&mut self, network: &Network, next: NextHop, now: Tick) -> Option<HopId> {
        let key = (next.interface, next.address);
        if let Some(id) = self.index.get(&key) {
            if !next.on_link
                && let Some(hop) = self.hops.get_mut(usize::from(*id))
            {
                hop.peer = 0;
            }
            return Some(*id);
        }
        let interface = network.interface(next.interface)?;
        let hop = Hop {
            link: interface.link,
            mtu: interface.mtu,
            peer: if next.on_link { peer(next.address) } else { 0 },
            ..Hop::default()
        };
        let entry = Entry {
            interface: next.interface,
            address: next.address,
            mac: MacAddr::UNSPECIFIED,
            status: Status::Failed,
            since: now.wrapping_sub(ticks(1)),
            held: ArrayVec::new(),
        };
        let id = if self.hops.len() < self.capacity {
            self.hops.push(hop);
            self.entries.push(entry);
            HopId::try_from(self.hops.len() - 1).ok()?
        } else {
            let id = self.reusable()?;
            let old = self.entries.get_mut(usize::from(id))?;
            self.index.remove(&(old.interface, old.address));
            *old = entry;
            *self.hops.get_mut(usize::from(id))? = hop;
            id
        };
        self.index.insert(key, id);
        Some(id)
    }

    /// The place of a neighbour that does not answer. Routers keep theirs: connections do not
    /// check that a router's hop is still a router's.
    fn reusable(&mut self) -> Option<HopId> {
        for _ in 0..LOOKS.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = self.entries.get(self.hand)?;
            let is_host = self.hops.get(self.hand).is_some_and(|hop| hop.peer != 0);
            if entry.status == Status::Failed && entry.held.is_empty() && is_host {
                return HopId::try_from(self.hand).ok();
            }
        }
        None
    }

    /// Keeps a frame until its hop is resolved, and says what to ask, if it is time to.
    ///
    /// # Errors
    ///
    /// The frame and why it can't wait.
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
        if let Err(full) = entry.held.try_push(held) {
            return Err((full.element().frame, DropReason::NeighborQueueFull));
        }
        self.held += 1;
        if entry.status != Status::Failed {
            return Ok(None);
        }
        entry.status = Status::Incomplete { asked: 1 };
        entry.since = now;
        Ok(Some(Question { interface: entry.interface, address: entry.address, to: None }))
    }

    /// Takes in that `address` is at `mac`. Unknown neighbours are entered only if `create`.
    /// `solicited` says that it answered us: then it is reachable, else merely known.
    pub fn learn(
        &mut self,
        network: &Network,
        from: (InterfaceId, IpAddr),
        mac: MacAddr,
        (solicited, create): (bool, bool),
        now: Tick,
    ) -> Option<HopId> {
        let (interface, address) = from;
        let id = match self.index.get(&from) {
            Some(id) => *id,
            None if create => {
                self.resolve(network, NextHop { interface, address, on_link: true }, now)?
            }
            None => return None,
        };
        let entry = self.entries.get(usize::from(id))?;
        if entry.status == Status::Static {
            return None;
        }
        // What nobody asked for does not make a known address fresh, or a host that shouts
        // would never be probed.
        let fresh = solicited || entry.mac != mac || entry.status == Status::Failed;
        self.set_mac(network, id, mac);
        if let Some(entry) = self.entries.get_mut(usize::from(id)).filter(|_| fresh) {
            entry.status = Status::Reachable;
            entry.since = now;
        }
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
        self.held -= held.len();
        held
    }

    /// Looks at some neighbours; once a tick at each of them.
    pub fn tick(&mut self, now: Tick) -> Due<F> {
        let mut due = Due { questions: ArrayVec::new(), given_up: ArrayVec::new() };
        let (tick, mut next) = self.round;
        if next >= self.entries.len() {
            if tick == now {
                return due;
            }
            next = 0;
        }
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
                hop.ready = false;
                self.held -= entry.held.len();
                due.given_up.extend(entry.held.drain(..));
            }
        }
        self.round = (now, next);
        due
    }

    /// Everything that waits, at the end.
    pub fn drain(&mut self) -> impl Iterator<Item = F> {
        self.held = 0;
        self.entries.iter_mut().flat_map(|entry| entry.held.drain(..)).map(|held| held.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Interface;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);

    fn network() -> Network {
        let interface = Interface {
            name: "lan".into(),
            link: 1,
            vlan: 0,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
        };
        Network::new(vec![interface], vec![], vec![], vec![], true)
    }

    fn next(last: u8) -> NextHop {
        let address = IpAddr::from([192, 0, 2, last]);
        NextHop { interface: InterfaceId(0), address, on_link: true }
    }

    fn held() -> Held<u8> {
        Held { frame: 7, l3: 14 }
    }

    #[test]
    fn a_frame_waits_for_the_answer_and_the_first_one_asks() {
        let (network, mut all) = (network(), Neighbors::new(8));
        let id = all.resolve(&network, next(9), 100).unwrap();
        let question = all.hold(id, held(), 100).unwrap().unwrap();
        assert_eq!((question.address, question.to), (next(9).address, None));
        assert_eq!(all.hold(id, held(), 100).unwrap(), None);
        assert!(all.hop(id).unwrap().header().is_none());
        let answered =
            all.learn(&network, (InterfaceId(0), question.address), MAC, (true, false), 101);
        assert_eq!(answered, Some(id));
        assert_eq!(all.release(id).len(), 2);
        let header = all.hop(id).unwrap().header().unwrap();
        assert_eq!((&header[..6], &header[12..]), (&MAC.0[..], &[8, 0][..]));
    }

    #[test]
    fn three_unanswered_requests_give_up_and_a_later_frame_asks_again() {
        let (network, mut all) = (network(), Neighbors::new(8));
        let id = all.resolve(&network, next(9), 0).unwrap();
        assert!(all.hold(id, held(), 0).unwrap().is_some());
        let mut asked = 1;
        let mut lost = 0;
        for now in 1..40 {
            let due = all.tick(now);
            asked += due.questions.len();
            lost += due.given_up.len();
        }
        assert_eq!((asked, lost, all.held()), (3, 1, 0));
        assert!(all.hold(id, held(), 25).is_err(), "within a second of giving up");
        assert!(all.hold(id, held(), 60).unwrap().is_some());
    }

    #[test]
    fn a_neighbor_is_probed_after_thirty_seconds_and_lost_when_silent() {
        let (network, mut all) = (network(), Neighbors::<u8>::new(8));
        let from = (InterfaceId(0), next(9).address);
        let id = all.learn(&network, from, MAC, (true, true), 0).unwrap();
        let mut questions = 0;
        for now in 0..ticks(REACHABLE_S) + ticks(10) {
            for question in all.tick(now).questions {
                assert_eq!(question.to, Some(MAC));
                questions += 1;
            }
        }
        assert_eq!(questions, 3);
        assert!(!all.hop(id).unwrap().is_ready());
    }

    #[test]
    fn a_full_table_reuses_only_those_that_do_not_answer() {
        let (network, mut all) = (network(), Neighbors::<u8>::new(2));
        let alive =
            all.learn(&network, (InterfaceId(0), next(1).address), MAC, (true, true), 0).unwrap();
        let silent = all.resolve(&network, next(2), 0).unwrap();
        let reused = all.resolve(&network, next(3), 0).unwrap();
        assert_eq!(reused, silent);
        assert!(!all.hop(reused).unwrap().leads_to(peer(next(2).address)));
        all.learn(&network, (InterfaceId(0), next(3).address), MAC, (true, true), 0).unwrap();
        assert_eq!(all.resolve(&network, next(4), 0), None);
        assert!(all.hop(alive).unwrap().is_ready());
    }
}
