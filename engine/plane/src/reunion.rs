//! Fragments of packets to services and from masqueraded destinations: each finds its connection,
//! none is put together with others (ADR 0009).
//!
//! ```text
//!  any worker ──────► the worker of the client's address ──────► the connection's owner
//!  cannot know        remembers the ports that a first fragment   opens or finds the connection,
//!  whose it is        named; later ones wait for it a little      rewrites each by itself
//! ```
//!
//! DIFFERS from Linux, which puts a packet together, forwards it and cuts it again: fragments are
//! forwarded one by one as they come, and each is a packet of its own to a tunnel (ADR 0009).
//!
//! Both ways lead through rings of their own ([`crate::handoff::Inbox`]), so that a flood of
//! fragments delays no other frame. All room is taken at start.

use crate::drop_reason::DropReason;
use crate::forward;
use crate::handoff::{Mesh, Stray};
use crate::icmp::{Local, is_v6};
use crate::lane::{Lane, Verdict, World, line_of};
use crate::links::Links;
use crate::related::{Around, hop_of, may_be_a_connections};
use rvs_conntrack::{Conns, Direction, Seed};
use rvs_io::{Frame, Queue};
use rvs_model::{DestLine, ForwardMethod, Tick, ticks};
use rvs_wire::flow::{Ends as _, Key, V4, V6, protocol};
use rvs_wire::piece::{Names, Piece};
use std::collections::VecDeque;

/// How long a first fragment is remembered.
///
/// RFC 791 section 3.2 keeps fragments for 15 seconds at least; the kernel for 30. An identification
/// may be used again within them (RFC 4963): the newest first fragment counts.
const MEMORY: Tick = ticks(15);
/// First fragments remembered, per worker and family: so many sets of so many.
const SETS: u32 = 1024;
const WAYS: usize = 4;
/// How long a later fragment waits for the first one.
///
/// The network may turn their order round; a sender that lost the first one sends all of them again.
const PATIENCE: Tick = ticks(1);
/// Later fragments that wait, per worker and family.
const WAITING: usize = 64;

/// Fragments of both families.
pub(crate) struct Reunions<B> {
    v4: Reunion<V4, B>,
    v6: Reunion<V6, B>,
}

/// Fragments of one family on one worker.
struct Reunion<F: Local, B> {
    seed: Seed,
    sets: Box<[[Option<First<F>>; WAYS]]>,
    waiting: VecDeque<Waiting<F, B>>,
}

/// A first fragment that was here.
#[derive(Clone, Copy)]
struct First<F: Local> {
    whole: Key<F>,
    names: Names,
    came: Tick,
}

/// A later fragment that came before the first one.
struct Waiting<F: Local, B> {
    whole: Key<F>,
    came: Tick,
    stray: Stray<B>,
}

impl<F: Local, B> Reunion<F, B> {
    fn new(seed: Seed) -> Self {
        let sets = (0..SETS).map(|_| [const { None }; WAYS]).collect();
        Self { seed, sets, waiting: VecDeque::with_capacity(WAITING) }
    }

    fn set(&mut self, whole: &Key<F>) -> &mut [Option<First<F>>] {
        let place = self.seed.hash(whole).place(SETS);
        let set = usize::try_from(place).ok().and_then(|place| self.sets.get_mut(place));
        set.map_or(&mut [], |set| set.as_mut_slice())
    }

    /// In the place of what the same packet said before, else of the oldest.
    fn remember(&mut self, first: First<F>, now: Tick) {
        let age = |way: &Option<First<F>>| match way {
            None => Tick::MAX,
            Some(known) if known.whole == first.whole => Tick::MAX,
            Some(known) => now.wrapping_sub(known.came),
        };
        let set = self.set(&first.whole);
        // The same packet's place before an empty one.
        let same = set.iter().position(|way| way.is_some_and(|it| it.whole == first.whole));
        let oldest = || set.iter().zip(0usize..).max_by_key(|(way, _)| age(way)).map(|(_, at)| at);
        if let Some(place) = same.or_else(oldest).and_then(|at| set.get_mut(at)) {
            *place = Some(first);
        }
    }

    fn recall(&mut self, whole: &Key<F>, now: Tick) -> Option<Names> {
        let known =
            |first: &&First<F>| first.whole == *whole && now.wrapping_sub(first.came) < MEMORY;
        self.set(whole).iter().flatten().find(known).map(|first| first.names)
    }
}

impl<B> Reunions<B> {
    pub(crate) fn new(seed: Seed) -> Self {
        Self { v4: Reunion::new(seed), v6: Reunion::new(seed) }
    }

    /// Fragments that wait.
    pub(crate) fn held(&self) -> usize {
        self.v4.waiting.len() + self.v6.waiting.len()
    }

    /// Takes out what waits, all of it if there is no `now`, else what has waited too long.
    pub(crate) fn give_up(&mut self, now: Option<Tick>) -> Option<B> {
        let frame = |stray: Stray<B>| stray.frame;
        take_out(&mut self.v4.waiting, now)
            .or_else(|| take_out(&mut self.v6.waiting, now))
            .map(frame)
    }
}

fn take_out<F: Local, B>(
    waiting: &mut VecDeque<Waiting<F, B>>,
    now: Option<Tick>,
) -> Option<Stray<B>> {
    let since = waiting.front()?.came;
    if now.is_some_and(|now| now.wrapping_sub(since) < PATIENCE) {
        return None;
    }
    waiting.pop_front().map(|it| it.stray)
}

/// What takes fragments further.
pub(crate) struct Way<'w, Q: Queue> {
    pub(crate) links: &'w mut Links<Q>,
    pub(crate) mesh: &'w Mesh<Q::Frame>,
    pub(crate) world: &'w World<'w>,
}

impl<Q: Queue> Way<'_, Q> {
    /// Sends a fragment towards its connection; gives back the frame of anything else.
    #[cold]
    pub(crate) fn sort_in(
        &mut self,
        reunions: &mut Reunions<Q::Frame>,
        stray: Stray<Q::Frame>,
    ) -> Option<Q::Frame> {
        let [serves_v4, serves_v6] = self.world.serves;
        match stray.packet().first().map(|first| first >> 4) {
            Some(4) if serves_v4 => self.sort_in_family(&mut reunions.v4, stray),
            Some(6) if serves_v6 => self.sort_in_family(&mut reunions.v6, stray),
            _ => Some(stray.frame),
        }
    }

    fn sort_in_family<F: Local>(
        &mut self,
        reunion: &mut Reunion<F, Q::Frame>,
        stray: Stray<Q::Frame>,
    ) -> Option<Q::Frame> {
        let world = self.world;
        let network = &world.snapshot.network;
        let look = F::look(stray.packet()).filter(|look| look.is_fragment);
        let Some(look) = look.filter(|look| may_be_a_connections::<F>(&stray.frame, network, look))
        else {
            return Some(stray.frame);
        };
        let piece = match F::piece(stray.packet()) {
            Ok(Some(piece)) => piece,
            Ok(None) => return Some(stray.frame),
            Err(unusable) => {
                self.links.drop(stray.frame, unusable);
                return None;
            }
        };
        let is_inbound = network.is_local(look.destination.into());
        let client = if is_inbound { look.source } else { look.destination };
        let home = world.steering.owner_of(client.into(), 0);
        if home != world.worker {
            self.hand(home, stray);
            return None;
        }
        let from = (stray.link, stray.vlan);
        let owner = |names| world.owner(&piece.key(names), is_inbound, from);
        let whole = piece.whole;
        if let Some(names) = piece.names {
            reunion.remember(First { whole, names, came: world.now }, world.now);
            self.hand(owner(names), stray.named(names));
            let mut at = 0;
            while let Some(waiting) = reunion.waiting.get(at) {
                if waiting.whole != whole {
                    at += 1;
                } else if let Some(waiting) = reunion.waiting.remove(at) {
                    self.hand(owner(names), waiting.stray.named(names));
                }
            }
        } else if let Some(names) = reunion.recall(&whole, world.now) {
            self.hand(owner(names), stray.named(names));
        } else {
            if reunion.waiting.len() >= WAITING
                && let Some(oldest) = reunion.waiting.pop_front()
            {
                self.links.drop(oldest.stray.frame, DropReason::FragmentQueueFull);
            }
            reunion.waiting.push_back(Waiting { whole, came: world.now, stray });
        }
        None
    }

    /// Gives a fragment to a worker, perhaps this one.
    pub(crate) fn hand(&mut self, to: u16, stray: Stray<Q::Frame>) {
        let handed = match self.mesh.inbox(to) {
            Some(inbox) => inbox.strays.push(stray),
            None => Err(stray),
        };
        match handed {
            Ok(()) => self.links.counters.handed(1),
            Err(stray) => self.links.drop(stray.frame, DropReason::HandoffFull),
        }
    }
}

/// What is known of a fragment that has found its connection's owner.
pub(crate) struct Told {
    /// Where the IP header begins.
    pub(crate) l3: u16,
    /// The VLAN that it came in.
    pub(crate) vlan: u16,
    /// What the first fragment said.
    pub(crate) names: Names,
    /// Whether this is the first fragment.
    pub(crate) is_first: bool,
}

impl Told {
    pub(crate) fn is_v6(&self, frame: &impl Frame) -> bool {
        is_v6(frame, self.l3)
    }

    fn piece<F: Local>(&self, frame: &impl Frame) -> Option<Piece<F>> {
        F::piece(frame.octets().get(usize::from(self.l3)..)?).ok()?
    }

    /// Puts a first fragment into the lane, like a whole packet. What becomes of it if the lane does
    /// not take it.
    pub(crate) fn enter<F: Local>(
        &mut self,
        lane: &mut Lane<F>,
        frame: &impl Frame,
        number: u8,
    ) -> Verdict {
        let Self { l3, vlan, names, .. } = *self;
        if let Some(piece) = self.piece::<F>(frame).filter(|piece| piece.names.is_some()) {
            self.is_first = true;
            let packet = piece.packet(names, l3, vlan);
            if needs_the_rest(&lane.conns, &packet.key) {
                return DropReason::FragmentOfSctp.into();
            }
            lane.take(packet, number);
        }
        Verdict::Stack { l3, vlan }
    }

    /// What becomes of a fragment that is not its packet's first: it follows the connection that the
    /// first one found or opened, and moves neither state nor timer. `None` if there is none.
    ///
    /// DIFFERS from Linux, which has put the datagram together by then: of one in pieces to a one-packet
    /// service only the first is forwarded, for nobody remembers where it went; the others are dropped
    /// as `fragment` (ADR 0009).
    pub(crate) fn follow<F: Local>(
        &self,
        conns: &Conns<F>,
        around: Around<'_>,
        frame: &mut impl Frame,
    ) -> Option<Verdict> {
        let Around { world, hops, paths, .. } = around;
        let piece = self.piece::<F>(frame)?;
        let packet = piece.packet(self.names, self.l3, self.vlan);
        if needs_the_rest(conns, &packet.key) {
            return Some(DropReason::FragmentOfSctp.into());
        }
        let found = conns.table().find(&packet.key, conns.table().hash(&packet.key))?;
        let conn = conns.table().conn(found.index)?;
        let line = line_of(world.lines, conn)?;
        let is_outbound = found.direction == Direction::Outbound;
        if !is_outbound && !line.has(DestLine::AVAILABLE) {
            return Some(DropReason::DestDeleted.into());
        }
        let Some((hop_id, hop)) = hop_of(conn, found.direction, hops) else {
            return Some(DropReason::NoRoute.into());
        };
        let pmtu_disc = world.snapshot.tunables.pmtu_disc;
        let way = found.direction;
        let sent = forward::apply_unread(conn, way, &packet, hop, paths, pmtu_disc, frame);
        if sent.is_sent() {
            // As the kernel counts: one packet, as long as it is whole.
            let octets = i64::from(piece.packet_octets)
                - i64::from(piece.header_octets)
                - i64::from(piece.saved_octets);
            line.count_octets(is_outbound, octets);
        }
        Some(sent.verdict(hop_id, self.l3))
    }
}

/// Whether a fragment cannot be forwarded by itself: one of SCTP, whose checksum covers the whole
/// packet, unless its connection is there and leaves its ports alone.
///
/// DIFFERS from Linux, which has put the packet together by then: fragments of SCTP are dropped where
/// masquerading changes a port (ADR 0009).
fn needs_the_rest<F: Local>(conns: &Conns<F>, key: &Key<F>) -> bool {
    if key.protocol != protocol::SCTP {
        return false;
    }
    let found = conns.table().find(key, conns.table().hash(key));
    let conn = found.and_then(|found| conns.table().conn(found.index));
    conn.is_none_or(|conn| {
        conn.method == ForwardMethod::Masquerade
            && conn.inbound.destination().1 != conn.outbound.source().1
    })
}
