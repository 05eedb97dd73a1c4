//! A worker's queues and the frames on their way out, to other workers too.

use crate::drop_reason::{DropIndex, DropReason};
use crate::handoff::{Batch, Handed, Mesh};
use crate::neighbor::Hop;
use crate::network::Host;
use crate::shared::FrameCounters;
use rvs_io::{BURST_MAX, Burst, Frame, Lost, Pool, Queue};
use std::mem;
use std::sync::Arc;

/// One queue of every link, the pool, and a burst per link that waits to be sent.
pub(crate) struct Links<Q: Queue> {
    queues: Vec<Q>,
    pool: Q::Pool,
    out: Vec<Box<Burst<Q::Frame>>>,
    /// Which of them lead to the host's own stack.
    to_host: Vec<bool>,
    lost: Vec<Lost>,
    mesh: Mesh<Q::Frame>,
    /// What waits to be handed to other workers, by worker: less than a whole batch each.
    handing: Vec<Batch<Q::Frame>>,
    /// Whether there is any.
    is_handing: bool,
    pub(crate) counters: Arc<FrameCounters>,
}

impl<Q: Queue> Links<Q> {
    pub(crate) fn new(
        queues: Vec<Q>,
        pool: Q::Pool,
        counters: Arc<FrameCounters>,
        hosts: &[Host],
        mesh: Mesh<Q::Frame>,
    ) -> Self {
        let out = queues.iter().map(|_| Box::default()).collect();
        let lost = vec![Lost::default(); queues.len()];
        let is_host = |link| hosts.iter().any(|host| usize::from(host.end) == link);
        let to_host = (0..queues.len()).map(is_host).collect();
        let handing = (0..).map_while(|worker| mesh.inbox(worker).map(|_| Batch::new())).collect();
        Self { queues, pool, out, to_host, lost, mesh, handing, is_handing: false, counters }
    }

    /// Takes in at most `most` frames from each link; `arrived` is told how many came from which.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        burst: &mut Burst<Q::Frame>,
        most: usize,
        mut arrived: impl FnMut(u8, usize),
    ) {
        for ((queue, lost), link) in self.queues.iter_mut().zip(&mut self.lost).zip(0u8..) {
            let room = most.min(BURST_MAX - burst.len());
            let frames = queue.receive(&mut self.pool, burst, room);
            arrived(link, frames);
            let now = queue.lost();
            if *lost != now {
                count_lost(&self.counters, *lost, now);
                *lost = now;
            }
        }
    }

    /// An empty frame for a packet of the director's own, `len` octets long.
    pub(crate) fn originate(&mut self, len: usize) -> Option<Q::Frame> {
        let mut frame = self.pool.take()?;
        if frame.resize(len) {
            self.counters.originated();
            Some(frame)
        } else {
            self.pool.give(frame);
            None
        }
    }

    /// Gives the host's own stack a copy of a frame, over the link that leads there.
    #[cold]
    pub(crate) fn copy_to_host(&mut self, end: u8, octets: &[u8]) {
        if let Some(mut copy) = self.originate(octets.len()) {
            copy.octets_mut().copy_from_slice(octets);
            self.push(end, copy);
        } else {
            self.counters.originated();
            self.counters.dropped(DropReason::NoFrame);
        }
    }

    /// Queues a frame that is ready for the wire.
    #[inline(always)]
    pub(crate) fn push(&mut self, link: u8, frame: Q::Frame) {
        let Some(out) = self.out.get_mut(usize::from(link)) else {
            self.drop(frame, DropReason::NoRoute);
            return;
        };
        if let Err(full) = out.try_push(frame) {
            self.push_after_flush(link, full.element());
        }
    }

    /// Queues a whole burst, which is empty then, in the order it has. `false`, and nothing has changed,
    /// where others wait already.
    #[inline]
    pub(crate) fn take_whole(&mut self, link: u8, burst: &mut Box<Burst<Q::Frame>>) -> bool {
        match self.out.get_mut(usize::from(link)) {
            Some(out) if out.is_empty() => {
                mem::swap(out, burst);
                true
            }
            _ => false,
        }
    }

    #[cold]
    #[inline(never)]
    fn push_after_flush(&mut self, link: u8, frame: Q::Frame) {
        self.flush_link(usize::from(link));
        let Some(out) = self.out.get_mut(usize::from(link)) else { return };
        if let Err(full) = out.try_push(frame) {
            self.drop(full.element(), DropReason::TxFull);
        }
    }

    /// Puts `hop`'s Ethernet header before the packet that begins at `l3`, and queues the frame.
    pub(crate) fn push_to(&mut self, hop: &Hop, mut frame: Q::Frame, l3: u16) {
        if frame_for(hop, &mut frame, l3) {
            self.push(hop.link, frame);
        } else {
            self.drop(frame, DropReason::NoHeadroom);
        }
    }

    /// Gives a frame that came from `link` to another worker: with others, or when the rest is sent.
    #[inline]
    pub(crate) fn hand(&mut self, worker: u16, frame: Q::Frame, link: u8) {
        let Some(batch) = self.handing.get_mut(usize::from(worker)) else {
            self.drop(frame, DropReason::HandoffFull);
            return;
        };
        if let Err(full) = batch.try_push(Handed { frame, link }) {
            self.drop(full.element().frame, DropReason::HandoffFull);
            return;
        }
        self.is_handing = true;
        if batch.is_full() {
            self.hand_batch(worker);
        }
    }

    #[inline(never)]
    fn hand_batch(&mut self, worker: u16) {
        let (Some(batch), Some(inbox)) =
            (self.handing.get_mut(usize::from(worker)), self.mesh.inbox(worker))
        else {
            return;
        };
        let frames = batch.len();
        match inbox.frames.push(mem::take(batch)) {
            Ok(()) => self.counters.handed(frames),
            Err(batch) => {
                for Handed { frame, .. } in batch {
                    self.drop(frame, DropReason::HandoffFull);
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn hand_rest(&mut self) {
        self.is_handing = false;
        for worker in 0..u16::try_from(self.handing.len()).unwrap_or(u16::MAX) {
            if self.handing.get(usize::from(worker)).is_some_and(|batch| !batch.is_empty()) {
                self.hand_batch(worker);
            }
        }
    }

    /// Frees a frame and counts why.
    #[inline]
    pub(crate) fn drop(&mut self, frame: Q::Frame, reason: impl Into<DropIndex>) {
        self.counters.dropped(reason);
        self.pool.give(frame);
    }

    /// Sends and hands over what waits.
    #[inline]
    pub(crate) fn flush(&mut self) {
        for link in 0..self.out.len() {
            self.flush_link(link);
        }
        if self.is_handing {
            self.hand_rest();
        }
    }

    #[inline]
    fn flush_link(&mut self, link: usize) {
        let (Some(out), Some(queue)) = (self.out.get_mut(link), self.queues.get_mut(link)) else {
            return;
        };
        if out.is_empty() {
            return;
        }
        let went = queue.send(&mut self.pool, out);
        if self.to_host.get(link).is_some_and(|to_host| *to_host) {
            self.counters.to_host(went);
        } else {
            self.counters.sent(went);
        }
        for frame in out.drain(..) {
            self.counters.dropped(DropReason::TxFull);
            self.pool.give(frame);
        }
    }

    /// The queues and the pool, at the end.
    pub(crate) fn into_parts(self) -> (Vec<Q>, Q::Pool) {
        (self.queues, self.pool)
    }

    pub(crate) fn queues(&self) -> &[Q] {
        &self.queues
    }

    pub(crate) fn queues_mut(&mut self) -> &mut [Q] {
        &mut self.queues
    }
}

#[cold]
fn count_lost(counters: &FrameCounters, before: Lost, now: Lost) {
    counters.dropped_many(DropReason::FrameTooLong, now.too_long - before.too_long);
    counters.dropped_many(DropReason::NoFrame, now.no_frame - before.no_frame);
    counters.dropped_many(DropReason::Uncarriable, now.uncarriable - before.uncarriable);
    // A link counts only what it hands over; these came in too.
    counters.received(usize::try_from(now.all() - before.all()).unwrap_or_default());
}

/// Puts the Ethernet header of `hop` right before the octet at `l3`. `false` if there is no room
/// or the hop is not resolved.
pub(crate) fn frame_for<F: Frame>(hop: &Hop, frame: &mut F, l3: u16) -> bool {
    let Some(header) = hop.header() else { return false };
    let have = usize::from(l3);
    if header.len() != have {
        let (Ok(want), Ok(have)) = (isize::try_from(header.len()), isize::try_from(have)) else {
            return false;
        };
        if !frame.shift_front(want - have) {
            return false;
        }
    }
    let place = frame.octets_mut().get_mut(..header.len());
    place.map(|place| place.copy_from_slice(header)).is_some()
}
