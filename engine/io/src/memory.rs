//! Links inside one process: simulation, tests and benches.
//!
//! ```text
//!            far end                                       a worker each
//!  inject ──► hash ──► indirection[hash % 128] ─┬─ ring ──► MemoryQueue 0
//!                                               ├─ ring ──► MemoryQueue 1
//!  collect ◄──────────────────────────── ring ──┴────────── send
//! ```
//!
//! The far end is the network and the device's receive side scaling at once: it spreads frames over
//! the queues as a NIC does. The hash is the caller's, since what octets mean is nobody's business
//! here. Rings are bounded and lock-free, so the far end may live on a thread of its own. Frames
//! move, they are not copied: give both ends pools of one [`Reserve`](crate::Reserve).

use crate::{Burst, Frame, Pool, Queue, RoomFrame, RoomPool};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// Entries of the indirection table: as the RSS interface of Windows and most NICs have them.
pub const INDIRECTION: usize = 128;

/// Frames in flight to or from one queue.
type Ring = Arc<ArrayQueue<RoomFrame>>;

/// Makes a link of `queues` queues (1 to 65536; none is made one), each with rings of `depth`
/// frames (at least one) in both directions.
///
/// `hash` is what the device computes over a received frame, from the Ethernet header on; its
/// lowest 7 bits choose an entry of the indirection table, which at first names the queues in
/// turn. `pool` serves the far end.
pub fn link<H: Fn(&[u8]) -> u32>(
    queues: u16,
    depth: usize,
    pool: RoomPool,
    hash: H,
) -> (Vec<MemoryQueue>, FarEnd<H>) {
    let queues = queues.max(1);
    let ring = || Ring::new(ArrayQueue::new(depth.max(1)));
    let near: Vec<_> =
        (0..queues).map(|_| MemoryQueue { arriving: ring(), leaving: ring() }).collect();
    let far = near.iter().map(|queue| (queue.arriving.clone(), queue.leaving.clone()));
    let (arriving, leaving) = far.unzip();
    let mut indirection = [0; INDIRECTION];
    indirection.iter_mut().zip((0..queues).cycle()).for_each(|(entry, queue)| *entry = queue);
    (near, FarEnd { arriving, leaving, pool, hash, indirection })
}

/// Appends at most `most` of `frames`, and says how many.
#[inline]
fn take_in(
    burst: &mut Burst<RoomFrame>,
    most: usize,
    frames: impl Iterator<Item = RoomFrame>,
) -> usize {
    let before = burst.len();
    burst.extend(frames.take(most.min(burst.remaining_capacity())));
    burst.len() - before
}

/// One worker's end of a memory link.
#[derive(Debug)]
pub struct MemoryQueue {
    arriving: Ring,
    leaving: Ring,
}

impl Queue for MemoryQueue {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    #[inline]
    fn receive(
        &mut self,
        _pool: &mut RoomPool,
        burst: &mut Burst<RoomFrame>,
        most: usize,
    ) -> usize {
        take_in(burst, most, core::iter::from_fn(|| self.arriving.pop()))
    }

    #[inline]
    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        // Nobody else fills this ring, so what is free now is free until we fill it.
        let free = self.leaving.capacity().saturating_sub(self.leaving.len());
        let went = free.min(burst.len());
        for frame in burst.drain(..went) {
            if let Err(frame) = self.leaving.push(frame) {
                debug_assert!(false, "somebody else filled a worker's ring");
                pool.give(frame);
            }
        }
        went
    }
}

/// The other end of a memory link: puts frames on the wire and takes them off.
#[derive(Debug)]
pub struct FarEnd<H> {
    arriving: Vec<Ring>,
    leaving: Vec<Ring>,
    pool: RoomPool,
    hash: H,
    indirection: [u16; INDIRECTION],
}

/// Why a frame did not get onto the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotInjected {
    /// Longer than a frame's room.
    #[error("the frame is longer than a room of the pool")]
    TooLong,
    /// The far end's pool is empty.
    #[error("no empty frame is left")]
    NoFrame,
    /// The ring of the queue that the hash chose is full.
    #[error("the queue's ring is full")]
    QueueFull,
}

impl<H: Fn(&[u8]) -> u32> FarEnd<H> {
    /// Puts a copy of `octets`, from the Ethernet header on, on the wire.
    ///
    /// # Errors
    ///
    /// [`NotInjected`]; nothing was received then.
    pub fn inject(&mut self, octets: &[u8]) -> Result<(), NotInjected> {
        let mut frame = self.pool.take().ok_or(NotInjected::NoFrame)?;
        let sent = if frame.fill(octets) {
            self.inject_frame(frame).map_err(|frame| (frame, NotInjected::QueueFull))
        } else {
            Err((frame, NotInjected::TooLong))
        };
        sent.map_err(|(frame, reason)| {
            self.pool.give(frame);
            reason
        })
    }

    /// Puts `frame` itself on the wire.
    ///
    /// # Errors
    ///
    /// The frame, when the ring of the queue that the hash chose is full.
    #[inline]
    pub fn inject_frame(&mut self, frame: RoomFrame) -> Result<(), RoomFrame> {
        match self.arriving.get(usize::from(self.queue_of(frame.octets()))) {
            Some(ring) => ring.push(frame),
            None => Err(frame),
        }
    }

    /// Which queue `octets` arrive on.
    #[inline]
    pub fn queue_of(&self, octets: &[u8]) -> u16 {
        let [low, ..] = (self.hash)(octets).to_le_bytes();
        self.indirection.get(usize::from(low) % INDIRECTION).copied().unwrap_or_default()
    }
}

impl<H> FarEnd<H> {
    /// Takes the next frame that queue `queue` sent off the wire, without copying it.
    #[inline]
    pub fn collect_frame(&mut self, queue: u16) -> Option<RoomFrame> {
        self.leaving.get(usize::from(queue))?.pop()
    }

    /// Takes everything off the wire that was sent so far: in order within a queue, queue after
    /// queue.
    pub fn collect(&mut self) -> Vec<Vec<u8>> {
        let mut octets = Vec::new();
        for ring in &self.leaving {
            for frame in core::iter::from_fn(|| ring.pop()).take(ring.capacity()) {
                octets.push(frame.octets().to_vec());
                self.pool.give(frame);
            }
        }
        octets
    }

    /// How many queues the link has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.leaving.len()
    }

    /// Frames on the wire: injected and not yet received, or sent and not yet collected.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.arriving.iter().chain(&self.leaving).map(|ring| ring.len()).sum()
    }

    /// The device's table from the hash's lowest bits to a queue. An entry beyond the last queue
    /// refuses its frames.
    pub fn indirection_mut(&mut self) -> &mut [u16; INDIRECTION] {
        &mut self.indirection
    }

    /// The far end's empty frames: to fill one for [`inject_frame`](Self::inject_frame), to give
    /// back one from [`collect_frame`](Self::collect_frame).
    pub fn pool_mut(&mut self) -> &mut RoomPool {
        &mut self.pool
    }
}

/// The network at the other end, by the same words as a worker: what it sends arrives, spread over
/// the queues by the hash; what it receives was sent, queue after queue.
impl<H: Fn(&[u8]) -> u32 + Send> Queue for FarEnd<H> {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    #[inline]
    fn receive(
        &mut self,
        _pool: &mut RoomPool,
        burst: &mut Burst<RoomFrame>,
        most: usize,
    ) -> usize {
        let all = self.leaving.iter().flat_map(|ring| core::iter::from_fn(|| ring.pop()));
        take_in(burst, most, all)
    }

    #[inline]
    fn send(&mut self, _pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        // Refused frames gather at the front, in order.
        let given = burst.len();
        let mut refused = Burst::new();
        for frame in burst.drain(..) {
            if let Err(frame) = self.inject_frame(frame) {
                refused.push(frame);
            }
        }
        burst.extend(refused);
        given - burst.len()
    }
}

impl<H> Drop for FarEnd<H> {
    /// What is on the wire returns to the reserve.
    fn drop(&mut self) {
        for ring in self.arriving.iter().chain(&self.leaving) {
            core::iter::from_fn(|| ring.pop())
                .take(ring.capacity())
                .for_each(|frame| self.pool.give(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reserve;
    use std::thread;

    /// The first octet of a frame is its hash.
    fn first(octets: &[u8]) -> u32 {
        octets.first().copied().unwrap_or_default().into()
    }

    fn receive(queue: &mut MemoryQueue, pool: &mut RoomPool) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        queue.receive(pool, &mut burst, usize::MAX);
        burst
            .drain(..)
            .map(|frame| {
                let octets = frame.octets().to_vec();
                pool.give(frame);
                octets
            })
            .collect()
    }

    #[test]
    fn the_indirection_table_names_the_queues_in_turn_until_it_is_changed() {
        let reserve = Reserve::new(64, 60);
        let (_near, mut far) = link(3, 8, reserve.pool(), first);
        let queues: Vec<_> = (0..=255).map(|hash| far.queue_of(&[hash])).collect();
        assert_eq!(queues[..7], [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(queues[..128], queues[128..], "only the lowest 7 bits count");
        far.indirection_mut().fill(2);
        assert!((0..=255).all(|hash| far.queue_of(&[hash]) == 2));
    }

    #[test]
    fn frames_arrive_at_the_queue_that_their_hash_chooses() {
        let reserve = Reserve::new(64, 60);
        let mut pool = reserve.pool_with_cache(8);
        let (mut near, mut far) = link(2, 8, reserve.pool_with_cache(8), first);
        for octets in [[0, 9], [1, 8], [2, 7], [131, 6]] {
            far.inject(&octets).unwrap();
        }
        assert_eq!(receive(&mut near[0], &mut pool), [[0, 9], [2, 7]]);
        assert_eq!(receive(&mut near[1], &mut pool), [[1, 8], [131, 6]]);
    }

    #[test]
    fn a_frame_that_the_wire_refuses_is_not_lost() {
        let reserve = Reserve::new(3, 60);
        let (_near, mut far) = link(1, 1, reserve.pool(), first);
        assert_eq!(far.inject(&[0; 2048]), Err(NotInjected::TooLong));
        assert_eq!(far.inject(&[1]), Ok(()));
        assert_eq!(far.inject(&[2]), Err(NotInjected::QueueFull));
        far.indirection_mut().fill(7);
        assert_eq!(far.inject(&[3]), Err(NotInjected::QueueFull));
        let held: Vec<_> = core::iter::from_fn(|| far.pool_mut().take()).collect();
        assert_eq!((held.len(), far.inject(&[4])), (2, Err(NotInjected::NoFrame)));
    }

    #[test]
    fn frames_move_and_are_not_copied() {
        let reserve = Reserve::new(8, 60);
        let mut pool = reserve.pool();
        let (mut near, mut far) = link(1, 8, reserve.pool_with_cache(1), first);
        let mut frame = far.pool_mut().take().unwrap();
        assert!(frame.fill(&[5; 60]));
        let place = frame.octets().as_ptr();
        far.inject_frame(frame).unwrap();
        let mut burst = Burst::new();
        near[0].receive(&mut pool, &mut burst, 1);
        near[0].send(&mut pool, &mut burst);
        let frame = far.collect_frame(0).unwrap();
        assert_eq!(frame.octets().as_ptr(), place);
        far.pool_mut().give(frame);
    }

    #[test]
    fn what_is_on_the_wire_at_the_end_returns_to_the_reserve() {
        let reserve = Reserve::new(16, 60);
        let mut pool = reserve.pool();
        let (mut near, mut far) = link(2, 8, reserve.pool_with_cache(1), first);
        (0..8).for_each(|hash| far.inject(&[hash]).unwrap());
        let mut burst = Burst::new();
        near[1].receive(&mut pool, &mut burst, usize::MAX);
        near[1].send(&mut pool, &mut burst);
        assert_eq!(far.in_flight(), 8);
        drop((near, far, pool));
        assert_eq!(reserve.free(), reserve.total());
    }

    #[test]
    fn a_far_end_on_another_thread_gets_every_frame_back_in_order() {
        const FRAMES: u32 = 100_000;
        let reserve = Reserve::new(512, 60);
        let mut pool = reserve.pool_with_cache(64);
        let (mut near, mut far) = link(1, 64, reserve.pool_with_cache(64), |_| 0);
        let echo = thread::spawn(move || {
            let (mut burst, mut echoed) = (Burst::new(), 0);
            while echoed < FRAMES {
                near[0].receive(&mut pool, &mut burst, 32);
                echoed += u32::try_from(near[0].send(&mut pool, &mut burst)).unwrap();
            }
        });
        let (mut next, mut back) = (0_u32, 0_u32);
        while back < FRAMES {
            if next < FRAMES && far.inject(&next.to_be_bytes()).is_ok() {
                next += 1;
            }
            for octets in far.collect() {
                assert_eq!(octets, back.to_be_bytes());
                back += 1;
            }
        }
        echo.join().unwrap();
        assert_eq!(far.in_flight(), 0);
        drop(far);
        assert_eq!(reserve.free(), reserve.total());
    }
}
