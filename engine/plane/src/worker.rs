//! One worker: everything that one core owns, and its breath.
//!
//! ```text
//!  breathe(now)
//!   1  snapshot            one Acquire load; the breath sees one configuration
//!   2  receive             a burst: from every link, and what other workers handed over
//!   3  classify            IPv4 lane │ IPv6 lane │ stack; asks for buckets        lane::take
//!   4  locate              matches tags, asks for connections                     lane::locate
//!   5  forward             known connections: state, counters, rewrite            lane::forward
//!   6  admit               the rest: handoff, services, new connections           lane::admit
//!   7  carry out verdicts  Ethernet header and out; or the stack's business       Worker::dispose
//!   8  fragments           those that the lanes cannot take: their own round      Worker::reunite
//!   9  send                one call per link
//!  10  expire, neighbours, commands: each with a budget
//! ```
//!
//! The stages are functions of their own, never inlined: in one, compilers run out of registers.
//!
//! `breathe` is the same function in production, tests, benches and simulation. Nothing in it waits,
//! allocates, locks or logs; the only system calls are the links' own.

use crate::balance::Balance;
use crate::carry::{carry_out, settle};
use crate::defense::{self, Defense};
use crate::drop_reason::DropReason;
use crate::handoff::{Handed, Inbox, Mesh, Stray, TOGETHER};
use crate::ident::Idents;
use crate::lane::{Lane, Verdict, Verdicts, World, forget, purge};
use crate::links::Links;
use crate::network::Network;
use crate::obey;
use crate::origins::Origins;
use crate::paths::Paths;
use crate::port::{Port, ports, share_with_host, take_carefully};
use crate::publish::Reader;
use crate::related::Around;
use crate::reunion::{Reunions, Told, Way};
use crate::shared::{Command, Dump, Shared};
use crate::snapshot::Snapshot;
use crate::stack::Stack;
use crate::stage::Stage;
use crate::steering::Steering;
use arrayvec::ArrayVec;
use rvs_conntrack::{Capacity, CapacityError, Conn, Conns, Seed};
use rvs_io::{BURST_MAX, Burst, Frame as _, Queue};
use rvs_model::{DestLine, Tick};
use rvs_wire::flow::{V4, V6};
use rvs_wire::packet::{Plain, plain, syn_to};
use std::sync::Arc;

/// Timers looked at together, for as many frames as a breath had, and once at least.
///
/// Bounds the longest breath: each is a cache miss, all of them in flight together. No less than the
/// connections that a burst can open, so that expiry keeps up with any flood.
const EXPIRE_BUDGET: usize = 128;

/// Sizes, fixed while the worker lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// IPv4 connections.
    pub conns4: u32,
    /// IPv6 connections.
    pub conns6: u32,
    /// Services.
    pub services: u32,
    /// Destinations, deleted ones with connections included.
    pub dests: u32,
    /// Neighbours.
    pub neighbors: u32,
    /// Frames taken from a link per breath.
    pub burst: usize,
    /// Whether to ask for huge pages.
    pub huge_pages: bool,
}

impl Limits {
    /// Frames that a breath takes from each of so many links: so few that every link and the other
    /// workers, at least a batch of theirs, find room in its burst.
    #[must_use]
    pub fn burst_for(&self, links: usize) -> usize {
        let most = (BURST_MAX / (links + 1)).min((BURST_MAX - TOGETHER) / links.max(1));
        self.burst.clamp(1, most.max(1))
    }
}

/// What a worker is made of.
pub struct Setup<Q: Queue> {
    /// Its number, from 0.
    pub id: u16,
    /// One queue of every link, by link index.
    pub queues: Vec<Q>,
    /// Its empty frames.
    pub pool: Q::Pool,
    /// Its view of the configuration.
    pub reader: Reader<Snapshot>,
    /// What it shares with the control plane.
    pub shared: Shared,
    /// Every worker's counters, its own included, by worker.
    pub all_lines: Vec<Arc<[DestLine]>>,
    /// Inboxes of all workers.
    pub mesh: Mesh<Q::Frame>,
    /// Who owns what.
    pub steering: Steering,
    /// Sizes.
    pub limits: Limits,
    /// Keys the hash of connections. Secret: whoever knows it can aim at one bucket.
    pub seed: [u64; 2],
    /// The tick at which it starts.
    pub now: Tick,
}

/// Everything that one core owns.
pub struct Worker<Q: Queue> {
    reader: Reader<Snapshot>,
    core: Core<Q>,
}

/// All of it but the view of the configuration, which a breath borrows.
struct Core<Q: Queue> {
    id: u16,
    links: Links<Q>,
    /// Boxed, as those that wait in [`Links`] are: a burst that leaves as it came is not copied.
    burst: Box<Burst<Q::Frame>>,
    origins: Origins,
    verdicts: Verdicts,
    v4: Lane<V4>,
    v6: Lane<V6>,
    balance: Balance,
    defense: Defense,
    paths: Paths,
    stack: Stack<Q::Frame>,
    reunions: Reunions<Q::Frame>,
    mesh: Mesh<Q::Frame>,
    steering: Steering,
    shared: Shared,
    ports: Vec<Port>,
    /// The snapshot that was applied last.
    generation: Option<u64>,
    /// Which network that had: where it stood in memory, where it stays while this worker has it.
    network: usize,
    dump: Option<Dump>,
    purge: Purge,
    /// Timers that the last breath looked at, of the family that had more.
    expired: usize,
    /// Whether there is a service of IPv4, and of IPv6.
    serves: [bool; 2],
    burst_most: usize,
}

/// How far connections of destinations that are marked so have been ended.
#[derive(Clone, Copy, Debug, Default)]
struct Purge {
    /// Requests seen.
    seen: u32,
    /// Where to go on in each table; `None` when it is done.
    from: [Option<u32>; 2],
}

impl<Q: Queue> Worker<Q> {
    /// A worker with empty tables. All memory is taken now.
    ///
    /// # Errors
    ///
    /// A table size that is out of range.
    pub fn new(mut setup: Setup<Q>) -> Result<Self, CapacityError> {
        let limits = setup.limits;
        let snapshot = setup.reader.refresh();
        let (timeouts, seed, now) = (snapshot.timeouts, Seed(setup.seed), setup.now);
        let ports = ports(&snapshot.network, setup.queues.len());
        let burst_most = limits.burst_for(setup.queues.len());
        let capacity = |conns| Capacity::new(conns, 2);
        let huge = limits.huge_pages;
        let v4 = Conns::new(capacity(limits.conns4)?, seed, &timeouts, now, huge);
        let v6 = Conns::new(capacity(limits.conns6)?, seed, &timeouts, now, huge);
        let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let workers = u16::try_from(setup.all_lines.len()).unwrap_or(u16::MAX);
        let idents = || Idents::new(setup.id, workers);
        let core = Core {
            id: setup.id,
            links: Links::new(
                setup.queues,
                setup.pool,
                Arc::clone(&setup.shared.frames),
                snapshot.network.hosts(),
                setup.mesh.clone(),
            ),
            burst: Box::default(),
            origins: Origins::default(),
            verdicts: [Verdict::Stack { l3: 0, vlan: 0 }; BURST_MAX],
            v4: Lane::new(v4),
            v6: Lane::new(v6),
            balance: Balance::new(size(limits.services), setup.id, setup.all_lines, setup.seed[1]),
            defense: Defense::new(setup.seed[0] ^ u64::from(setup.id), now),
            paths: Paths::new(size(limits.dests), idents(), setup.seed[1]),
            stack: Stack::new(size(limits.neighbors), idents(), now),
            reunions: Reunions::new(seed),
            mesh: setup.mesh,
            steering: setup.steering,
            shared: setup.shared,
            ports,
            generation: None,
            network: 0,
            dump: None,
            purge: Purge::default(),
            expired: 0,
            serves: [false; 2],
            burst_most,
        };
        Ok(Self { reader: setup.reader, core })
    }

    /// One turn: takes in what has arrived, decides, sends. Returns how many frames came in, so
    /// that an idle caller may rest.
    pub fn breathe(&mut self, now: Tick) -> usize {
        let generation = self.reader.generation();
        let snapshot = self.reader.refresh();
        if self.core.generation != Some(generation) {
            self.core.apply(snapshot, now);
            self.core.generation = Some(generation);
        }
        self.core.breathe(snapshot, now)
    }

    /// Whether the next breath has something to do, frames or not: what this one began and its
    /// budgets did not let it end, or what the control plane or another worker wants.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.core.is_behind() || self.reader.is_behind() || self.core.is_wanted()
    }

    /// Counts what still waits as dropped, and gives back the queues and the pool.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Q>, Q::Pool) {
        self.core.abandon();
        self.core.links.into_parts()
    }

    /// The queues, one of every link: for whoever waits for frames.
    pub fn queues(&self) -> &[Q] {
        self.core.links.queues()
    }

    /// The queues, one of every link: for whoever steps a worker by hand.
    pub fn queues_mut(&mut self) -> &mut [Q] {
        self.core.links.queues_mut()
    }

    /// Connections held, IPv4 and IPv6.
    #[must_use]
    pub fn conns(&self) -> [usize; 2] {
        [self.core.v4.conns.len(), self.core.v6.conns.len()]
    }

    /// Bytes that the connection tables take, IPv4 and IPv6.
    #[must_use]
    pub fn table_bytes(&self) -> [usize; 2] {
        [self.core.v4.conns.bytes(), self.core.v6.conns.bytes()]
    }
}

impl<Q: Queue> Core<Q> {
    /// Takes over what a new snapshot changes in the tables. Not per packet.
    #[cold]
    fn apply(&mut self, snapshot: &Snapshot, now: Tick) {
        self.links.counters.enter(Stage::Apply);
        self.v4.conns.set_timeouts(&snapshot.timeouts);
        self.v6.conns.set_timeouts(&snapshot.timeouts);
        let (v4, v6) = (&mut self.v4.conns, &mut self.v6.conns);
        defense::judge(&snapshot.tunables, v4, v6, &mut self.balance.gate);
        self.balance.apply(snapshot, &mut self.paths);
        // Linux 6.1 ip_vs_ctl.c __ip_vs_del_service(): with the last service of a family the hooks
        // are gone, and no packet of it is IPVS's.
        self.serves = snapshot.index.serves();
        if self.generation.is_none() {
            self.stack.neighbors.configure(&snapshot.network, now);
        }
        let network = Arc::as_ptr(&snapshot.network).addr();
        if self.network != network {
            self.network = network;
            self.stack.neighbors.forget_routes();
            self.stack.announcer.begin(&snapshot.network, self.id == 0);
        }
    }

    fn breathe(&mut self, snapshot: &Snapshot, now: Tick) -> usize {
        let handed = self.links.counters.handed_so_far();
        let frames = self.receive();
        if self.mesh.inbox(self.id).is_some_and(Inbox::has_words) {
            self.hear(snapshot, now);
        }
        if frames > 0 {
            if self.balance.quota.is_crowded() {
                self.classify::<true>(&snapshot.network);
            } else {
                self.classify::<false>(&snapshot.network);
            }
            self.decide(snapshot, now);
            self.dispose(snapshot, now);
        }
        let strays = self.mesh.inbox(self.id).map_or(0, |inbox| inbox.strays.len());
        if strays > 0 {
            self.links.counters.enter(Stage::Fragments);
            self.reunite(snapshot, now);
        }
        self.links.counters.enter(Stage::Send);
        self.links.flush();
        if self.links.counters.handed_so_far() != handed {
            self.mesh.wake(self.id);
        }
        self.housekeep(snapshot, now, frames + strays);
        frames + strays
    }

    /// Whether a budget ended something in the last breath.
    fn is_behind(&self) -> bool {
        self.dump.is_some()
            || self.purge.from != [None; 2]
            || self.expired >= EXPIRE_BUDGET
            || self.v4.conns.is_resetting()
            || self.v6.conns.is_resetting()
            || self.defense.is_behind()
            || self.stack.neighbors.is_behind()
    }

    /// Whether somebody wants something that the next breath does.
    fn is_wanted(&self) -> bool {
        !self.shared.commands.is_empty()
            || self.purge.seen != self.shared.purges()
            || self.mesh.inbox(self.id).is_some_and(|inbox| !inbox.is_empty())
    }

    /// Fills the burst: what was handed over first, for those frames have waited.
    #[inline(never)]
    fn receive(&mut self) -> usize {
        self.links.counters.enter(Stage::Receive);
        let (origins, most) = (&mut self.origins, self.burst_most);
        // Other workers are like one more link.
        let inbox = self.mesh.inbox(self.id);
        let mut is_full = inbox.is_some_and(|inbox| inbox.empty(&mut self.burst, most, origins));
        let taken = self.burst.len();
        if taken > 0 {
            self.links.counters.taken(taken);
        }
        self.links.receive(&mut self.burst, most, |link, frames| {
            is_full |= frames >= most;
            origins.add(link, frames);
        });
        self.balance.quota.begin(is_full);
        let received = self.burst.len() - taken;
        if received > 0 {
            self.links.counters.received(received);
        }
        self.burst.len()
    }

    /// Takes note of data connections that other workers know of: after frames were received, so that
    /// none begins one before that.
    #[cold]
    fn hear(&mut self, snapshot: &Snapshot, now: Tick) {
        let us = (&self.steering, self.id, self.serves);
        let world = &world(snapshot, &self.shared, us, &[], now);
        let Some(inbox) = self.mesh.inbox(self.id) else { return };
        let (v4, v6, balance) = (&mut self.v4, &mut self.v6, &self.balance);
        v4.talks.hear(&mut v4.conns, world, balance, inbox);
        v6.talks.hear(&mut v6.conns, world, balance, inbox);
    }

    /// Sorts the burst into lanes, and asks for buckets on the way. `SHEDS`: but for SYNs that there is
    /// no time to look up.
    #[inline(never)]
    fn classify<const SHEDS: bool>(&mut self, network: &Network) {
        self.links.counters.enter(Stage::Classify);
        let mut frames = self.burst.iter().zip(0u16..);
        for (link, run) in self.origins.runs() {
            let port = self.ports.get(usize::from(*link)).copied().unwrap_or_default();
            if let Some(link) = port.of {
                // What the host sends goes out as it is.
                for (_, number) in frames.by_ref().take(*run) {
                    if let Some(verdict) = self.verdicts.get_mut(usize::from(number)) {
                        *verdict = Verdict::Out { link };
                    }
                }
                continue;
            }
            for (frame, number) in frames.by_ref().take(*run) {
                let [number, _] = number.to_le_bytes();
                let octets = frame.octets();
                if SHEDS
                    && port.takes_untagged
                    && syn_to(octets, port.mac).is_some_and(|end| self.balance.quota.sheds_of(end))
                {
                    decided(&mut self.verdicts, number, DropReason::Overload.into());
                    continue;
                }
                match plain(octets, port.mac) {
                    Some(Plain::V4(packet)) if port.takes_untagged => self.v4.take(packet, number),
                    Some(Plain::V6(packet)) if port.takes_untagged => self.v6.take(packet, number),
                    _ => {
                        let lanes = (&mut self.v4, &mut self.v6);
                        let (place, quota) = ((*link, number), &mut self.balance.quota);
                        let verdict = take_carefully(lanes, octets, port, place, network, quota);
                        decided(&mut self.verdicts, number, verdict);
                        share_with_host(&mut self.links, port, octets);
                    }
                }
            }
        }
    }

    /// The stages of both lanes.
    #[inline]
    fn decide(&mut self, snapshot: &Snapshot, now: Tick) {
        let us = (&self.steering, self.id, self.serves);
        let world = &world(snapshot, &self.shared, us, self.origins.links(), now);
        let [serves_v4, serves_v6] = self.serves;
        if !serves_v4 {
            self.v4.leave_to_stack(&mut self.verdicts);
        }
        if !serves_v6 {
            self.v6.leave_to_stack(&mut self.verdicts);
        }
        let counters = &self.links.counters;
        counters.enter(Stage::LookUp);
        self.v4.locate();
        self.v6.locate();
        counters.enter(Stage::Forward);
        let frames = self.burst.as_mut_slice();
        let verdicts = &mut self.verdicts;
        let neighbors = &mut self.stack.neighbors;
        self.v4.forward(world, neighbors.hops(), &self.paths, frames, verdicts);
        self.v6.forward(world, neighbors.hops(), &self.paths, frames, verdicts);
        let (balance, paths, mesh) = (&mut self.balance, &mut self.paths, &self.mesh);
        counters.enter(Stage::Admit);
        self.v4.admit(world, balance, neighbors, (paths, mesh), (frames, verdicts));
        self.v6.admit(world, balance, neighbors, (paths, mesh), (frames, verdicts));
    }

    /// Carries out the verdicts.
    #[inline(never)]
    fn dispose(&mut self, snapshot: &Snapshot, now: Tick) {
        self.links.counters.enter(Stage::Dispose);
        if let Some(link) = one_way(&self.verdicts, self.burst.len())
            && self.links.take_whole(link, &mut self.burst)
        {
            self.origins.clear();
            return;
        }
        let decided = self.origins.links().iter().zip(&self.verdicts);
        for (frame, (link, verdict)) in self.burst.drain(..).zip(decided) {
            match *verdict {
                Verdict::Out { link } => {
                    self.links.push(link, frame);
                    continue;
                }
                Verdict::Drop(reason) => {
                    self.links.drop(frame, reason);
                    continue;
                }
                Verdict::Handoff(owner) => {
                    self.links.hand(owner, frame, *link);
                    continue;
                }
                _ => {}
            }
            let us = (&self.steering, self.id, self.serves);
            let world = &world(snapshot, &self.shared, us, self.origins.links(), now);
            let desk = &mut self.stack.desk(&mut self.links, snapshot, &self.mesh, self.id, now);
            let conns = (&mut self.v4.conns, &mut self.v6.conns);
            let (reunions, paths) = (&mut self.reunions, &mut self.paths);
            let around = (world, &mut self.balance, paths);
            carry_out(desk, conns, reunions, around, (frame, *link), *verdict);
        }
        self.origins.clear();
    }

    /// A round for fragments: some are to be sorted in, the others have found their connection's
    /// owner and go through the same stages as everything, but that only the first of a packet
    /// looks like one.
    #[cold]
    #[inline(never)]
    fn reunite(&mut self, snapshot: &Snapshot, now: Tick) {
        let mut told = ArrayVec::<_, BURST_MAX>::new();
        let us = (&self.steering, self.id, self.serves);
        for _ in 0..self.burst_most {
            let Some(stray) = self.mesh.inbox(self.id).and_then(|inbox| inbox.strays.pop()) else {
                break;
            };
            self.links.counters.taken(1);
            if let Some(names) = stray.names {
                let Stray { frame, link, l3, vlan, .. } = stray;
                self.burst.push(frame);
                self.origins.push(link);
                told.push(Told { l3, vlan, names, is_first: false });
                continue;
            }
            let world = &world(snapshot, &self.shared, us, &[], now);
            let mut way = Way { links: &mut self.links, mesh: &self.mesh, world };
            if let Some(frame) = way.sort_in(&mut self.reunions, stray) {
                self.links.drop(frame, DropReason::Fragment);
            }
        }
        let frames = self.burst.iter().zip(&mut self.verdicts).zip(&mut told).zip(0u16..);
        for (((frame, verdict), told), number) in frames {
            let [number, _] = number.to_le_bytes();
            *verdict = if told.is_v6(frame) {
                told.enter(&mut self.v6, frame, number)
            } else {
                told.enter(&mut self.v4, frame, number)
            };
        }
        self.decide(snapshot, now);
        let us = (&self.steering, self.id, self.serves);
        let world = &world(snapshot, &self.shared, us, &[], now);
        let (hops, paths) = (self.stack.neighbors.hops(), &self.paths);
        let frames =
            self.burst.iter_mut().zip(&mut self.verdicts).zip(&told).zip(self.origins.links());
        for (((frame, verdict), told), link) in frames.filter(|((_, told), _)| !told.is_first) {
            let around = Around { world, hops, paths, from: (*link, told.vlan) };
            let decided = if told.is_v6(frame) {
                told.follow(&self.v6.conns, around, frame)
            } else {
                told.follow(&self.v4.conns, around, frame)
            };
            *verdict = decided.unwrap_or(*verdict);
        }
        let decided = self.origins.links().iter().zip(&self.verdicts).zip(told);
        for (frame, ((link, verdict), told)) in self.burst.drain(..).zip(decided) {
            if let Verdict::Handoff(owner) = *verdict {
                let Told { l3, vlan, names, .. } = told;
                let stray = Stray { frame, link: *link, l3, vlan, names: Some(names) };
                Way { links: &mut self.links, mesh: &self.mesh, world }.hand(owner, stray);
                continue;
            }
            let desk = &mut self.stack.desk(&mut self.links, snapshot, &self.mesh, self.id, now);
            settle(desk, (frame, *link), *verdict);
        }
        self.origins.clear();
    }

    /// What is done whether or not frames came, each part with a budget.
    #[inline]
    fn housekeep(&mut self, snapshot: &Snapshot, now: Tick, frames: usize) {
        self.links.counters.enter(Stage::Timers);
        let lines = &self.shared.lines;
        for _ in 0..frames.div_ceil(EXPIRE_BUDGET).max(1) {
            let of_v4 = self.v4.conns.expire::<EXPIRE_BUDGET>(now, |conn| forget(lines, conn));
            let of_v6 = self.v6.conns.expire::<EXPIRE_BUDGET>(now, |conn| forget(lines, conn));
            self.expired = of_v4.max(of_v6);
        }
        if self.defense.is_due(now) {
            self.defend(snapshot, now);
        }
        self.links.counters.enter(Stage::Neighbors);
        self.balance.step(now);
        self.paths.tick(now);
        let mut desk = self.stack.desk(&mut self.links, snapshot, &self.mesh, self.id, now);
        desk.tick();
        while let Some(frame) = self.reunions.give_up(Some(now)) {
            self.links.drop(frame, DropReason::FragmentAlone);
        }
        self.links.flush();
        self.links.counters.enter(Stage::Commands);
        if self.dump.is_some() || !self.shared.commands.is_empty() {
            self.obey(now);
        }
        if self.purge.seen != self.shared.purges() || self.purge.from != [None; 2] {
            self.purge();
        }
        let conns = [self.v4.conns.len(), self.v6.conns.len()];
        self.shared.frames.breath(conns, self.stack.neighbors.held() + self.reunions.held());
    }

    /// Looks whether memory is short, and ends some connections that look abandoned.
    #[cold]
    fn defend(&mut self, snapshot: &Snapshot, now: Tick) {
        let Shared { lines, frames, .. } = &self.shared;
        let conns = (&mut self.v4.conns, &mut self.v6.conns);
        let gone4 = |conn: &Conn<V4>| {
            forget(lines, conn);
            frames.aged();
        };
        let gone6 = |conn: &Conn<V6>| {
            forget(lines, conn);
            frames.aged();
        };
        let gate = &mut self.balance.gate;
        self.defense.step(&snapshot.tunables, conns, gate, now, (gone4, gone6));
        let us = (&self.steering, self.id, self.serves);
        let world = &world(snapshot, &self.shared, us, &[], now);
        let (v4, v6, mesh) = (&mut self.v4, &mut self.v6, &self.mesh);
        v4.talks.step(&mut v4.conns, world, mesh);
        v6.talks.step(&mut v6.conns, world, mesh);
    }

    /// Commands of the control plane, one at a time.
    #[cold]
    fn obey(&mut self, now: Tick) {
        let command = self.dump.take().map(Command::Dump);
        let mut dump = match command.or_else(|| self.shared.commands.pop()) {
            Some(Command::Dump(dump)) => dump,
            Some(Command::Kill(mut kill)) => {
                let lines = &self.shared.lines;
                kill.found = obey::kill(&mut self.v4.conns, lines, kill)
                    || obey::kill(&mut self.v6.conns, lines, kill);
                let _full = self.shared.replies.push(Command::Kill(kill));
                return;
            }
            None => return,
        };
        if dump.v6 {
            obey::list(&self.v6.conns, &mut dump, now);
        } else {
            obey::list(&self.v4.conns, &mut dump, now);
        }
        if dump.done || dump.rows.len() >= dump.rows.capacity() {
            let _full = self.shared.replies.push(Command::Dump(dump));
        } else {
            self.dump = Some(dump);
        }
    }

    /// Ends some more connections of destinations that are marked so.
    #[cold]
    fn purge(&mut self) {
        let asked = self.shared.purges();
        if self.purge.seen != asked {
            self.purge = Purge { seen: asked, from: [Some(0); 2] };
        }
        let lines = &self.shared.lines;
        let [v4, v6] = &mut self.purge.from;
        *v4 = v4.and_then(|from| purge(&mut self.v4.conns, lines, from));
        *v6 = v6.and_then(|from| purge(&mut self.v6.conns, lines, from));
        if self.purge.from == [None; 2] {
            self.shared.note_purged(self.purge.seen);
        }
    }

    /// Everything that waits is dropped by name.
    fn abandon(&mut self) {
        for frame in self.stack.neighbors.drain() {
            self.links.drop(frame, DropReason::NeighborUnresolved);
        }
        while let Some(frame) = self.reunions.give_up(None) {
            self.links.drop(frame, DropReason::FragmentAlone);
        }
        if let Some(inbox) = self.mesh.inbox(self.id) {
            while let Some(batch) = inbox.frames.pop() {
                self.links.counters.taken(batch.len());
                for Handed { frame, .. } in batch {
                    self.links.drop(frame, DropReason::HandoffFull);
                }
            }
            while let Some(Stray { frame, .. }) = inbox.strays.pop() {
                self.links.counters.taken(1);
                self.links.drop(frame, DropReason::HandoffFull);
            }
        }
        let conns = [self.v4.conns.len(), self.v6.conns.len()];
        self.shared.frames.breath(conns, 0);
    }
}

/// Takes note of what becomes of frame `number` of the burst.
#[inline]
fn decided(verdicts: &mut Verdicts, number: u8, verdict: Verdict) {
    if let Some(place) = verdicts.get_mut(usize::from(number)) {
        *place = verdict;
    }
}

/// The link that all of a burst's frames go out to as they are, if there is one.
#[inline]
fn one_way(verdicts: &Verdicts, frames: usize) -> Option<u8> {
    let verdicts = verdicts.get(..frames)?;
    let Verdict::Out { link } = *verdicts.first()? else { return None };
    let goes_there =
        |verdict: &Verdict| matches!(verdict, Verdict::Out { link: to } if *to == link);
    verdicts.iter().all(goes_there).then_some(link)
}

/// What does not change during a breath.
fn world<'b>(
    snapshot: &'b Snapshot,
    shared: &'b Shared,
    (steering, worker, serves): (&'b Steering, u16, [bool; 2]),
    origins: &'b [u8],
    now: Tick,
) -> World<'b> {
    let Shared { lines, frames, .. } = shared;
    World { snapshot, lines, steering, frames, worker, serves, now, origins }
}
