//! What a worker shares with the control plane: counters up, commands down, nothing else.
//!
//! Counters are relaxed atomics that one worker writes with a plain load and store; a reader sees
//! each of them at some recent moment. Rings are bounded; a worker never waits for either end.

use crate::bell::Bell;
use crate::drop_reason::{DROP_COUNTERS, DropIndex};
use crate::stage::Stage;
use core::net::SocketAddr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use crossbeam_queue::ArrayQueue;
use rvs_model::{DestId, DestLine, State, Tick};
use std::sync::Arc;

/// Counts of one worker's frames.
///
/// `received + originated + taken == sent + to_host + Σ dropped + handed + held`, where `taken` and
/// `handed` are frames from and to other workers.
///
/// On cache lines of its own, in pairs as processors fetch them: one worker writes here with every
/// burst, and its neighbour's counters are the next allocation.
#[derive(Debug)]
#[repr(align(128))]
pub struct FrameCounters {
    received: AtomicU64,
    originated: AtomicU64,
    taken: AtomicU64,
    sent: AtomicU64,
    to_host: AtomicU64,
    handed: AtomicU64,
    held: AtomicU64,
    dropped: [AtomicU64; DROP_COUNTERS],
    /// Breaths so far: a worker that is stuck stops counting.
    breaths: AtomicU64,
    /// The [`Stage`] that the worker is in, by its number.
    stage: AtomicU8,
    conns: [AtomicU32; 2],
    evicted: AtomicU64,
    aged: AtomicU64,
}

impl Default for FrameCounters {
    fn default() -> Self {
        Self {
            received: AtomicU64::default(),
            originated: AtomicU64::default(),
            taken: AtomicU64::default(),
            sent: AtomicU64::default(),
            to_host: AtomicU64::default(),
            handed: AtomicU64::default(),
            held: AtomicU64::default(),
            dropped: [const { AtomicU64::new(0) }; DROP_COUNTERS],
            breaths: AtomicU64::default(),
            stage: AtomicU8::default(),
            conns: [const { AtomicU32::new(0) }; 2],
            evicted: AtomicU64::default(),
            aged: AtomicU64::default(),
        }
    }
}

/// One reading of [`FrameCounters`], or a sum of several.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FrameCounts {
    /// Frames from links.
    pub received: u64,
    /// Frames that the director made itself.
    pub originated: u64,
    /// Frames from other workers.
    pub taken: u64,
    /// Frames that links took.
    pub sent: u64,
    /// Frames given to the host's own stack.
    pub to_host: u64,
    /// Frames given to other workers.
    pub handed: u64,
    /// Frames waiting for a neighbour.
    pub held: u64,
    /// Frames dropped, by reason.
    pub dropped: [u64; DROP_COUNTERS],
    /// Breaths.
    pub breaths: u64,
    /// Connections now, IPv4 and IPv6.
    pub conns: [u64; 2],
    /// Half-open connections that had to yield.
    pub evicted: u64,
    /// Connections that `drop_entry` ended.
    pub aged: u64,
}

impl Default for FrameCounts {
    fn default() -> Self {
        FrameCounters::default().read()
    }
}

impl FrameCounts {
    /// All frames dropped.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// What came in, less what is accounted for: 0 unless a frame was lost or invented. Frames in
    /// the rings between workers are accounted for only in the sum over all workers, once the
    /// rings are empty.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        let came = [self.received, self.originated, self.taken];
        let went = [self.sent, self.to_host, self.dropped_total(), self.handed, self.held];
        came.into_iter().map(i128::from).sum::<i128>()
            - went.into_iter().map(i128::from).sum::<i128>()
    }

    /// This and another worker's.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.received += other.received;
        self.originated += other.originated;
        self.taken += other.taken;
        self.sent += other.sent;
        self.to_host += other.to_host;
        self.handed += other.handed;
        self.held += other.held;
        for (place, more) in self.dropped.iter_mut().zip(other.dropped) {
            *place += more;
        }
        self.breaths += other.breaths;
        for (place, more) in self.conns.iter_mut().zip(other.conns) {
            *place += more;
        }
        self.evicted += other.evicted;
        self.aged += other.aged;
        self
    }
}

#[inline]
fn add(place: &AtomicU64, more: u64) {
    place.store(place.load(Relaxed).wrapping_add(more), Relaxed);
}

impl FrameCounters {
    #[inline]
    pub(crate) fn received(&self, frames: usize) {
        add(&self.received, wide(frames));
    }
    #[inline]
    pub(crate) fn originated(&self) {
        add(&self.originated, 1);
    }
    #[inline]
    pub(crate) fn taken(&self, frames: usize) {
        add(&self.taken, wide(frames));
    }
    #[inline]
    pub(crate) fn sent(&self, frames: usize) {
        add(&self.sent, wide(frames));
    }
    #[inline]
    pub(crate) fn to_host(&self, frames: usize) {
        add(&self.to_host, wide(frames));
    }
    #[inline]
    pub(crate) fn handed(&self, frames: usize) {
        add(&self.handed, wide(frames));
    }
    /// Frames given to other workers.
    #[inline]
    pub(crate) fn handed_so_far(&self) -> u64 {
        self.handed.load(Relaxed)
    }
    #[inline]
    pub(crate) fn dropped(&self, reason: impl Into<DropIndex>) {
        self.dropped_many(reason, 1);
    }
    #[inline]
    pub(crate) fn dropped_many(&self, reason: impl Into<DropIndex>, frames: u64) {
        if let Some(place) = self.dropped.get(reason.into().index()) {
            add(place, frames);
        }
    }
    /// A stage of the breath begins.
    #[inline]
    pub(crate) fn enter(&self, stage: Stage) {
        #[expect(
            clippy::as_conversions,
            reason = "the number of a variant, of which there are few"
        )]
        self.stage.store(stage as u8, Relaxed);
    }
    #[inline]
    pub(crate) fn breath(&self, conns: [usize; 2], held: usize) {
        self.enter(Stage::Rest);
        add(&self.breaths, 1);
        for (place, conns) in self.conns.iter().zip(conns) {
            place.store(u32::try_from(conns).unwrap_or(u32::MAX), Relaxed);
        }
        self.held.store(wide(held), Relaxed);
    }
    #[inline]
    pub(crate) fn aged(&self) {
        add(&self.aged, 1);
    }
    #[inline]
    pub(crate) fn evicted(&self) {
        add(&self.evicted, 1);
    }

    /// Where the worker is in its breath, or where its last one ended.
    #[must_use]
    pub fn stage(&self) -> Stage {
        let number = usize::from(self.stage.load(Relaxed));
        Stage::ALL.get(number).copied().unwrap_or_default()
    }

    /// All counters, each at some recent moment.
    #[must_use]
    pub fn read(&self) -> FrameCounts {
        let mut dropped = [0; DROP_COUNTERS];
        for (place, counter) in dropped.iter_mut().zip(&self.dropped) {
            *place = counter.load(Relaxed);
        }
        let [conns4, conns6] = &self.conns;
        FrameCounts {
            received: self.received.load(Relaxed),
            originated: self.originated.load(Relaxed),
            taken: self.taken.load(Relaxed),
            sent: self.sent.load(Relaxed),
            to_host: self.to_host.load(Relaxed),
            handed: self.handed.load(Relaxed),
            held: self.held.load(Relaxed),
            dropped,
            breaths: self.breaths.load(Relaxed),
            conns: [conns4.load(Relaxed).into(), conns6.load(Relaxed).into()],
            evicted: self.evicted.load(Relaxed),
            aged: self.aged.load(Relaxed),
        }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A connection as `ipvsadm -Lc` lists it.
#[derive(Clone, Copy, Debug)]
pub struct ConnRow {
    /// IP protocol number.
    pub protocol: u8,
    /// Its state. A template's is ESTABLISHED once one of its connections was.
    pub state: State,
    /// If it is a persistence template, the IP protocol that it is about, 0 for any.
    pub template: Option<u8>,
    /// Ticks until it expires if no packet comes.
    pub expires: Tick,
    /// Ticks since it was opened; of a template nothing.
    pub age: Tick,
    /// Client.
    pub client: SocketAddr,
    /// Virtual service.
    pub vip: SocketAddr,
    /// Destination, as the connection knows it; of the wrong family behind a mixed tunnel, where
    /// [`ConnRow::dest_id`] tells.
    pub dest: SocketAddr,
    /// Destination.
    pub dest_id: DestId,
}

/// A request for connections: the worker fills `rows` to their capacity and sends it back.
#[derive(Debug)]
pub struct Dump {
    /// Whether IPv6 connections are wanted, else IPv4.
    pub v6: bool,
    /// Where to go on; 0 at first.
    pub from: u32,
    /// Room for rows, made by the control plane: a worker does not allocate.
    pub rows: Vec<ConnRow>,
    /// Set by the worker when there are no more.
    pub done: bool,
}

/// A connection that is to end.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// IP protocol number.
    pub protocol: u8,
    /// Client.
    pub client: SocketAddr,
    /// Virtual service.
    pub vip: SocketAddr,
    /// Set by the worker that had it.
    pub found: bool,
}

/// What the control plane asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// List connections.
    Dump(Dump),
    /// End a connection.
    Kill(Kill),
}

/// One worker's ends of everything shared with the control plane.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Frames.
    pub frames: Arc<FrameCounters>,
    /// One line per destination, by [`DestId`].
    pub lines: Arc<[DestLine]>,
    /// Commands, control plane to worker.
    pub commands: Arc<ArrayQueue<Command>>,
    /// The same, answered.
    pub replies: Arc<ArrayQueue<Command>>,
    /// Wakes the worker.
    pub bell: Arc<Bell>,
    /// How often connections of some destinations were to be ended at once.
    purges: Arc<AtomicU32>,
    /// How many of these are over.
    purged: Arc<AtomicU32>,
}

impl Shared {
    /// For at most `dests_max` destinations.
    #[must_use]
    pub fn new(dests_max: u32) -> Self {
        Self {
            frames: Arc::default(),
            lines: (0..dests_max).map(|_| DestLine::default()).collect(),
            commands: Arc::new(ArrayQueue::new(64)),
            replies: Arc::new(ArrayQueue::new(64)),
            bell: Arc::default(),
            purges: Arc::default(),
            purged: Arc::default(),
        }
    }

    /// Asks something of the worker.
    ///
    /// # Errors
    ///
    /// The command, when too many wait already.
    pub fn ask(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.bell.ring();
        Ok(())
    }

    /// Has the worker end all connections of destinations that are marked [`DestLine::ENDS`], and
    /// UDP flows of those marked [`DestLine::ENDS_UDP`], soon.
    pub fn purge(&self) {
        // Release: pairs with the Acquire in `purges`. The worker that sees this sees which
        // destinations are gone.
        self.purges.fetch_add(1, Release);
        self.bell.ring();
    }

    #[inline]
    pub(crate) fn purges(&self) -> u32 {
        self.purges.load(Acquire)
    }

    /// For the worker: it has done what was asked by the purge of this number, the last that it saw.
    pub fn note_purged(&self, number: u32) {
        // Release: pairs with the Acquire in `has_purged`.
        self.purged.store(number, Release);
    }

    /// Whether all connections that were to be ended have ended.
    #[must_use]
    pub fn has_purged(&self) -> bool {
        self.purged.load(Acquire) == self.purges.load(Relaxed)
    }
}
