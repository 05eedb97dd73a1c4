//! Frames, and the rooms that most links keep them in.
//!
//! ```text
//!  one room, whole cache lines
//!  ├── HEADROOM ──┼── frame_octets, at least, and one octet to spare ──┤
//!  │              ├──── the frame ────┤                                │
//!                 ^ start             ^ start + len
//!
//!            take, give                  64 at a time
//!  worker ◄────────────► RoomPool cache ◄────────────► Reserve
//!                        one per worker                all share, lock-free
//! ```
//!
//! [`Frame`] and [`Pool`] are what the plane knows. [`RoomFrame`], [`RoomPool`] and [`Reserve`] serve
//! links that copy, or that move frames inside one process: memory, captures, TAP. Every room is
//! allocated at the start; afterwards rooms only change hands. The plane never drops a frame, it
//! gives it back; [`Reserve::free`] and [`RoomPool::free`] let a test prove that.

use crossbeam_queue::ArrayQueue;
use std::{fmt, sync::Arc};

/// A frame: octets from the Ethernet header on, in a room with space before and behind them.
pub trait Frame: Send + Sized {
    /// From the Ethernet header on.
    fn octets(&self) -> &[u8];
    /// From the Ethernet header on.
    fn octets_mut(&mut self) -> &mut [u8];
    /// Moves the front: `by` more octets in front if positive, fewer if negative. The new octets
    /// hold anything. `false`, and nothing changes, when there is no such space.
    #[must_use]
    fn shift_front(&mut self, by: isize) -> bool;
    /// Makes the frame `len` octets long, at the end. `false` when there is no such space.
    #[must_use]
    fn resize(&mut self, len: usize) -> bool;
}

/// Empty frames of one worker.
pub trait Pool: Send {
    /// What it lends.
    type Frame: Frame;
    /// An empty frame (length 0, all headroom), or `None` when there is none.
    fn take(&mut self) -> Option<Self::Frame>;
    /// Takes a frame back.
    fn give(&mut self, frame: Self::Frame);
}

/// Octets before a received frame, for headers that the director puts in front: the largest is an
/// IPv6 tunnel's, 40 octets; two cache lines leave room for a tunnel in a tunnel with a VLAN tag.
pub const HEADROOM: usize = 128;

/// Frames that one exchange between a pool's cache and the reserve moves.
pub const EXCHANGE: usize = 64;

/// Frames that a pool keeps for itself unless told otherwise: two of the largest bursts, so that a
/// worker which gives back what it took leaves the shared ring alone.
pub const CACHE: usize = 2 * crate::BURST_MAX;

/// Octets of a cache line.
const LINE: usize = 64;

/// One cache line; frames are made of these, so that headers do not straddle lines.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A frame in a room of its own on the heap. Moving it moves 24 bytes.
pub struct RoomFrame {
    room: Box<[Line]>,
    start: u32,
    len: u32,
}

impl RoomFrame {
    fn new(lines: usize) -> Self {
        let mut frame =
            Self { room: vec![Line([0; LINE]); lines].into_boxed_slice(), start: 0, len: 0 };
        frame.clear();
        frame
    }

    /// Forgets the octets: length 0, all headroom.
    #[inline]
    pub fn clear(&mut self) {
        // HEADROOM fits, and `Reserve::new` makes no room smaller than it.
        self.start = u32::try_from(HEADROOM).unwrap_or_default();
        self.len = 0;
    }

    /// Everything from the frame's front to the end of the room, for a driver to write into; then
    /// [`Frame::resize`] says how much of it is the frame.
    #[inline]
    pub fn reach_mut(&mut self) -> &mut [u8] {
        let start = index(self.start);
        bytemuck::must_cast_slice_mut(&mut self.room).get_mut(start..).unwrap_or_default()
    }

    /// Makes `octets` the frame, with all headroom. `false`, and the frame is empty, when they are
    /// longer than the room.
    #[inline]
    #[must_use]
    pub fn fill(&mut self, octets: &[u8]) -> bool {
        self.clear();
        let fits = self.resize(octets.len());
        if fits {
            self.octets_mut().copy_from_slice(octets);
        }
        fits
    }

    /// Where in the room the frame is.
    #[inline]
    fn place(&self) -> core::ops::Range<usize> {
        let start = index(self.start);
        start..start + index(self.len)
    }

    fn room_octets(&self) -> usize {
        self.room.len() * LINE
    }
}

impl Frame for RoomFrame {
    #[inline]
    fn octets(&self) -> &[u8] {
        let room: &[u8] = bytemuck::must_cast_slice(&self.room);
        match room.get(self.place()) {
            Some(octets) => octets,
            None => outside(),
        }
    }

    #[inline]
    fn octets_mut(&mut self) -> &mut [u8] {
        let place = self.place();
        let room: &mut [u8] = bytemuck::must_cast_slice_mut(&mut self.room);
        match room.get_mut(place) {
            Some(octets) => octets,
            None => outside(),
        }
    }

    #[inline]
    fn shift_front(&mut self, by: isize) -> bool {
        let Ok(by) = i32::try_from(by) else { return false };
        // A front behind the end fails at the length, one before the room at the start.
        let (Some(start), Some(len)) =
            (self.start.checked_sub_signed(by), self.len.checked_add_signed(by))
        else {
            return false;
        };
        (self.start, self.len) = (start, len);
        true
    }

    #[inline]
    fn resize(&mut self, len: usize) -> bool {
        let Ok(octets) = u32::try_from(len) else { return false };
        let fits = index(self.start) + len <= self.room_octets();
        if fits {
            self.len = octets;
        }
        fits
    }
}

impl fmt::Debug for RoomFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomFrame")
            .field("start", &self.start)
            .field("len", &self.len)
            .field("octets", &self.octets())
            .finish_non_exhaustive()
    }
}

/// What a frame outside its room has, if there were one. A call, so that a frame's place is a
/// branch that is never taken and not a choice between two addresses.
#[cold]
fn outside<'f>() -> &'f mut [u8] {
    &mut []
}

/// An offset into a room. Lossless: a room's offsets are `u32`, and rvs runs on 64 bits.
#[inline]
fn index(offset: u32) -> usize {
    const { assert!(usize::BITS >= u32::BITS) };
    usize::try_from(offset).unwrap_or_default()
}

/// All rooms of a process that no pool holds right now. Clones share them.
#[derive(Clone, Debug)]
pub struct Reserve {
    spare: Arc<ArrayQueue<RoomFrame>>,
    frame_octets: usize,
}

impl Reserve {
    /// Allocates `frames` rooms (at least one), each with [`HEADROOM`] and then place for a frame
    /// of `frame_octets`.
    ///
    /// Size it so that every pool's cache, every ring and every burst can be full at once and
    /// `EXCHANGE` frames are left.
    #[must_use]
    pub fn new(frames: usize, frame_octets: usize) -> Self {
        let lines = lines(frame_octets);
        let spare = ArrayQueue::new(frames.max(1));
        // `push` hands the frame back when the ring is full, which ends the loop.
        while spare.push(RoomFrame::new(lines)).is_ok() {}
        Self { spare: Arc::new(spare), frame_octets }
    }

    /// One worker's pool, with a cache of [`CACHE`] frames; empty until the first `take`.
    #[must_use]
    pub fn pool(&self) -> RoomPool {
        self.pool_with_cache(CACHE)
    }

    /// A pool that keeps at most `cache` frames (at least one) to itself: many simulated workers
    /// get along with few frames, at the price of more exchanges.
    #[must_use]
    pub fn pool_with_cache(&self, cache: usize) -> RoomPool {
        let cache = cache.max(1);
        RoomPool { reserve: self.clone(), cache_max: cache, cache: Vec::with_capacity(cache) }
    }

    /// Rooms in the reserve now; those in pools, rings and bursts are not among them.
    #[must_use]
    pub fn free(&self) -> usize {
        self.spare.len()
    }

    /// Rooms that were allocated.
    #[must_use]
    pub fn total(&self) -> usize {
        self.spare.capacity()
    }

    /// The longest frame that surely fits into an empty room, in octets from the Ethernet header.
    #[must_use]
    pub fn frame_octets(&self) -> usize {
        self.frame_octets
    }
}

/// Lines of a room: one octet more than asked for, by which a driver learns that a frame was cut,
/// rounded up to a number whose place in memory suits the caches.
///
/// Rooms lie behind each other, each with a line of the allocator's in between. When a room and
/// that line are an odd number of lines, the fronts of 64 rooms meet in 64 different sets of an L1
/// cache; 2048 octets apart they would meet in two and evict each other, which was measured at
/// 6 ns a packet with 512 frames in a ring.
fn lines(frame_octets: usize) -> usize {
    let lines = HEADROOM.saturating_add(frame_octets).saturating_add(1).div_ceil(LINE);
    lines + lines % 2
}

/// One worker's empty frames: a stack of those it used last, warm in its cache, in front of the
/// [`Reserve`] that all workers share. What it holds when dropped returns to the reserve.
#[derive(Debug)]
pub struct RoomPool {
    reserve: Reserve,
    cache_max: usize,
    cache: Vec<RoomFrame>,
}

impl RoomPool {
    /// Frames in this pool's cache.
    #[must_use]
    pub fn free(&self) -> usize {
        self.cache.len()
    }

    /// Where its frames come from.
    #[must_use]
    pub fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Returns all frames to the reserve.
    pub fn flush(&mut self) {
        self.give_back(self.cache.len());
    }

    #[cold]
    fn refill(&mut self) {
        while self.cache.len() < EXCHANGE.min(self.cache_max) {
            let Some(frame) = self.reserve.spare.pop() else { break };
            self.cache.push(frame);
        }
    }

    #[cold]
    fn give_back(&mut self, frames: usize) {
        // The oldest go, the warm ones stay.
        for frame in self.cache.drain(..frames.min(self.cache.len())) {
            // Refused only when frames of another reserve were given here: the surplus is freed.
            drop(self.reserve.spare.push(frame));
        }
    }
}

impl Pool for RoomPool {
    type Frame = RoomFrame;

    #[inline]
    fn take(&mut self) -> Option<RoomFrame> {
        if self.cache.is_empty() {
            self.refill();
        }
        let mut frame = self.cache.pop()?;
        frame.clear();
        Some(frame)
    }

    #[inline]
    fn give(&mut self, frame: RoomFrame) {
        if self.cache.len() >= self.cache_max {
            self.give_back(EXCHANGE);
        }
        self.cache.push(frame);
    }
}

impl Drop for RoomPool {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> RoomFrame {
        Reserve::new(1, 1514).pool().take().unwrap()
    }

    #[test]
    fn a_taken_frame_is_empty_whatever_it_held_before() {
        let mut pool = Reserve::new(1, 1514).pool();
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(&[7; 60]) && frame.shift_front(-14));
        pool.give(frame);
        let mut frame = pool.take().unwrap();
        assert_eq!(frame.octets(), []);
        assert!(frame.shift_front(HEADROOM.cast_signed()));
    }

    #[test]
    fn the_longest_frame_fits_with_one_octet_to_spare() {
        for frame_octets in [0, 60, 1514, 1518, 1919, 1920, 1984, 9018, 65549] {
            let mut frame = Reserve::new(1, frame_octets).pool().take().unwrap();
            assert!(frame.resize(frame_octets), "{frame_octets}");
            assert_eq!(frame.octets().len(), frame_octets);
            assert!(frame.reach_mut().len() > frame_octets);
        }
    }

    #[test]
    fn the_front_moves_within_the_room_and_keeps_what_is_behind_it() {
        let mut frame = frame();
        assert!(frame.fill(&[1, 2, 3, 4]));
        assert!(frame.shift_front(-2));
        assert_eq!(frame.octets(), [3, 4]);
        assert!(frame.shift_front(2));
        assert_eq!(frame.octets(), [1, 2, 3, 4]);
        assert!(frame.shift_front(40));
        assert_eq!(frame.octets().len(), 44);
        assert_eq!(frame.octets()[40..], [1, 2, 3, 4]);
    }

    #[test]
    fn a_shift_without_space_is_refused_and_changes_nothing() {
        let mut frame = frame();
        assert!(frame.fill(&[1, 2, 3, 4]));
        for by in [-5, 129, isize::MIN, isize::MAX, -1 << 32] {
            assert!(!frame.shift_front(by), "{by}");
            assert_eq!(frame.octets(), [1, 2, 3, 4]);
        }
        assert!(frame.shift_front(128));
        assert!(!frame.shift_front(1));
        assert!(frame.shift_front(-132));
        assert_eq!(frame.octets(), []);
    }

    #[test]
    fn a_resize_beyond_the_room_is_refused_and_changes_nothing() {
        let mut frame = frame();
        assert!(frame.fill(&[1, 2, 3, 4]));
        let reach = frame.reach_mut().len();
        for len in [reach + 1, usize::MAX, 1 << 32] {
            assert!(!frame.resize(len), "{len}");
            assert_eq!(frame.octets(), [1, 2, 3, 4]);
        }
        assert!(frame.resize(reach));
        assert!(frame.resize(2));
        assert_eq!(frame.octets(), [1, 2]);
        assert!(!frame.fill(&vec![0; reach + 1]));
        assert_eq!(frame.octets(), []);
    }

    #[test]
    fn every_room_is_lent_once_and_none_appears_later() {
        let reserve = Reserve::new(100, 1514);
        let mut pools = [reserve.pool(), reserve.pool_with_cache(3)];
        let mut lent: Vec<_> =
            pools.iter_mut().flat_map(|pool| std::iter::from_fn(|| pool.take())).collect();
        assert_eq!((lent.len(), reserve.free()), (100, 0));
        let mut fronts: Vec<_> = lent.iter().map(|frame| frame.room.as_ptr()).collect();
        fronts.sort_unstable();
        fronts.dedup();
        assert_eq!(fronts.len(), 100);
        for (turn, frame) in lent.drain(..).enumerate() {
            pools[turn % 2].give(frame);
        }
        assert_eq!(reserve.free() + pools[0].free() + pools[1].free(), 100);
        assert!(pools[1].free() <= 3);
        drop(pools);
        assert_eq!(reserve.free(), reserve.total());
    }

    #[test]
    fn a_worker_that_returns_what_it_took_leaves_the_reserve_alone() {
        let reserve = Reserve::new(1024, 60);
        let mut pool = reserve.pool();
        let mut burst = Vec::new();
        let mut breathe = || {
            burst.extend(std::iter::from_fn(|| pool.take()).take(crate::BURST_MAX));
            burst.drain(..).for_each(|frame| pool.give(frame));
        };
        breathe();
        let before = reserve.free();
        for _ in 0..100 {
            breathe();
            assert_eq!(reserve.free(), before);
        }
    }

    #[test]
    fn frames_that_one_worker_takes_and_another_gives_come_round() {
        let reserve = Reserve::new(2048, 60);
        let (mut taker, mut giver) = (reserve.pool(), reserve.pool());
        for _ in 0..100_000 {
            giver.give(taker.take().unwrap());
        }
        assert_eq!(reserve.free() + taker.free() + giver.free(), reserve.total());
    }

    #[test]
    fn fronts_of_neighbouring_rooms_meet_in_few_sets_of_an_l1_cache() {
        // 64 sets of 64 octets: bits 6..12 of an address choose the set.
        for frame_octets in [1514, 1518, 1982, 2000, 9018] {
            let mut pool = Reserve::new(512, frame_octets).pool();
            let frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            let mut meet = [0; 64];
            for frame in &frames {
                meet[frame.octets().as_ptr().addr() / LINE % 64] += 1;
            }
            // Evenly it is 512 / 64 = 8; 2048 octets apart it would be 256.
            assert!(meet.iter().all(|&fronts| fronts <= 16), "{frame_octets}: {meet:?}");
        }
    }
}
