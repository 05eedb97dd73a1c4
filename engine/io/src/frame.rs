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
//! allocated at the start; afterwards rooms only change hands. Beside them may be some large rooms,
//! for frames that kernels of one machine do not cut ([`Unfinished`]). The plane never drops a frame, it
//! gives it back; [`Reserve::free`] and [`RoomPool::free`] let a test prove that.

use crate::superframe;
use arrayvec::ArrayVec;
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
    /// Makes the frame `len` octets long, at the end, and then adds `by` octets in front: both at once.
    /// `false` when there is no such space; its end may have moved then.
    #[must_use]
    #[inline]
    fn enclose(&mut self, by: u16, len: usize) -> bool {
        self.resize(len) && isize::try_from(by).is_ok_and(|by| self.shift_front(by))
    }
    /// What its sender left to whoever brings it to a cable; `None` of most links' frames.
    #[inline]
    fn unfinished(&self) -> Option<Unfinished> {
        None
    }
    /// Writes what a sender leaves in the checksum's place: the sum of the pseudo-header alone, of
    /// headers as they are now.
    fn leave_sum(&mut self) {}
    /// Nothing is left any more: what was is done.
    fn finished(&mut self) {}
}

/// What a sender may leave to a network card, and between kernels of one machine is left for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unfinished {
    /// Where the TCP or UDP header begins.
    pub l4: usize,
    /// Where in that header the checksum is. What stands there means nothing once headers were
    /// changed: [`Frame::leave_sum`].
    pub field: usize,
    /// Of a frame that is to be cut into segments of TCP.
    pub segments: Option<Segments>,
}

/// How a frame is to be cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segments {
    /// Octets of all headers, the Ethernet header included, which each segment begins with.
    pub headers: usize,
    /// Octets of payload in each but the last.
    pub payload: usize,
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

/// Frames that move between a pool's cache and the reserve at once.
pub const EXCHANGE: usize = 64;

/// Frames of those that one atomic exchange moves.
const TOGETHER: usize = 8;

/// Frames that a pool keeps for itself unless told otherwise: two of the largest bursts, so that a
/// worker which gives back what it took leaves the shared ring alone.
pub const CACHE: usize = 2 * crate::BURST_MAX;

/// Large frames that a pool keeps for itself.
const LARGE_CACHE: usize = 16;

/// Octets of a cache line.
const LINE: usize = 64;

/// One cache line; frames are made of these, so that headers do not straddle lines.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A frame in a room of its own on the heap. Moving it moves 24 bytes.
pub struct RoomFrame {
    room: Box<[Line]>,
    /// The lower half: where in the room the frame begins. [`NOTED`]: the room begins with a [`Note`].
    /// One word, as handles are moved several times a packet, and each field by itself.
    front: u32,
    len: u32,
}

/// In [`RoomFrame::front`].
const NOTED: u32 = 1 << 16;

const _: () = assert!(size_of::<RoomFrame>() == 24);

/// What a driver remembers of a frame that is not finished, in the room's first octets, which only
/// headers in front of such a frame would need: those are for frames that are finished first.
///
/// Places are from the room's beginning, so they stay as the frame's front moves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Note {
    /// Where the header with the checksum begins.
    pub(crate) l4: u16,
    /// Where in that header the checksum is.
    pub(crate) field: u16,
    /// Octets of payload in each segment; 0 if it is not to be cut.
    pub(crate) segment: u16,
    /// How to cut it, in the kernel's words.
    pub(crate) kind: u16,
}

/// What a note takes of the headroom.
const NOTE: u16 = 8;

impl RoomFrame {
    fn new(lines: usize) -> Self {
        let mut frame =
            Self { room: vec![Line([0; LINE]); lines].into_boxed_slice(), front: 0, len: 0 };
        frame.clear();
        frame
    }

    /// Forgets the octets: length 0, all headroom.
    #[inline]
    pub fn clear(&mut self) {
        // HEADROOM fits, and `Reserve::new` makes no room smaller than it.
        self.front = FRONT;
        self.len = 0;
    }

    /// Remembers what is not finished. `l4` is from the frame's front here; `false`, and nothing is
    /// remembered, if that is beyond the first 64 KB of the room.
    #[must_use]
    pub(crate) fn note(&mut self, note: Note) -> bool {
        let Some(l4) = note.l4.checked_add(self.start()) else { return false };
        let room: &mut [u8] = bytemuck::must_cast_slice_mut(&mut self.room);
        let Some(place) = room.get_mut(..usize::from(NOTE)) else { return false };
        place.copy_from_slice(bytemuck::bytes_of(&Note { l4, ..note }));
        self.front |= NOTED;
        true
    }

    /// What is not finished; `l4` is from the frame's front as it is now.
    pub(crate) fn noted(&self) -> Option<Note> {
        if self.front & NOTED == 0 {
            return None;
        }
        let room: &[u8] = bytemuck::must_cast_slice(&self.room);
        let note: Note = bytemuck::pod_read_unaligned(room.get(..usize::from(NOTE))?);
        Some(Note { l4: note.l4.checked_sub(self.start())?, ..note })
    }

    /// Whether it is one of the large rooms.
    #[inline]
    fn is_large(&self) -> bool {
        self.room.len() >= LARGE_LINES
    }

    /// Everything from the frame's front to the end of the room, for a driver to write into; then
    /// [`Frame::resize`] says how much of it is the frame.
    #[inline]
    pub fn reach_mut(&mut self) -> &mut [u8] {
        let start = usize::from(self.start());
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
        let start = usize::from(self.start());
        start..start + index(self.len)
    }

    #[inline]
    fn start(&self) -> u16 {
        let [low, high, ..] = self.front.to_le_bytes();
        u16::from_le_bytes([low, high])
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
        // A front behind the end fails at the length, one before the room at the start; one beyond the
        // first 64 KB is nobody's.
        let Ok(by) = i16::try_from(by) else { return false };
        let (Some(start), Some(len)) =
            (self.start().checked_sub_signed(by), self.len.checked_add_signed(by.into()))
        else {
            return false;
        };
        (self.front, self.len) = (self.front & NOTED | u32::from(start), len);
        true
    }

    #[inline]
    fn resize(&mut self, len: usize) -> bool {
        let Ok(octets) = u32::try_from(len) else { return false };
        let fits = usize::from(self.start()) + len <= self.room_octets();
        if fits {
            self.len = octets;
        }
        fits
    }

    #[inline]
    fn enclose(&mut self, by: u16, len: usize) -> bool {
        let (Some(start), Ok(octets)) = (self.start().checked_sub(by), u32::try_from(len)) else {
            return false;
        };
        let len = octets.saturating_add(by.into());
        let fits = usize::from(start) + index(len) <= self.room_octets();
        if fits {
            (self.front, self.len) = (self.front & NOTED | u32::from(start), len);
        }
        fits
    }

    #[inline]
    fn unfinished(&self) -> Option<Unfinished> {
        if self.front & NOTED == 0 { None } else { left(self) }
    }

    #[cold]
    fn leave_sum(&mut self) {
        let _noted_ones_have_a_place = superframe::leave_sum(self);
    }

    fn finished(&mut self) {
        self.front &= !NOTED;
    }
}

#[cold]
#[inline(never)]
fn left(frame: &RoomFrame) -> Option<Unfinished> {
    let note = frame.noted()?;
    let l4 = usize::from(note.l4);
    let cut = || {
        // RFC 9293 section 3.1: the data offset counts words of four octets.
        let offset = frame.octets().get(l4 + 12)? >> 4;
        let headers = l4 + 4 * usize::from(offset);
        Some(Segments { headers, payload: note.segment.into() })
    };
    let segments = if note.segment == 0 { None } else { Some(cut()?) };
    Some(Unfinished { l4, field: note.field.into(), segments })
}

impl fmt::Debug for RoomFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomFrame")
            .field("start", &self.start())
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

/// Where frames begin.
const FRONT: u32 = {
    assert!(HEADROOM == 128);
    128
};

/// The longest frame that a kernel leaves whole: Ethernet and VLAN headers and the longest IP packet.
pub const LARGE_OCTETS: usize = 18 + 65535;

/// Lines of a large room. Ordinary ones are smaller: their frames are at most as long, and have no line
/// of their own for a note's sake.
const LARGE_LINES: usize = lines(LARGE_OCTETS) + 2;

/// A length. Lossless: it is `u32`, and rvs runs on 64 bits.
#[inline]
fn index(offset: u32) -> usize {
    const { assert!(usize::BITS >= u32::BITS) };
    usize::try_from(offset).unwrap_or_default()
}

/// All rooms of a process that no pool holds right now. Clones share them.
#[derive(Clone, Debug)]
pub struct Reserve {
    spare: Arc<Spare>,
    large: Option<Arc<ArrayQueue<RoomFrame>>>,
    frame_octets: usize,
}

/// Rooms that change hands: most of them [`TOGETHER`] at a time.
#[derive(Debug)]
struct Spare {
    batches: ArrayQueue<[RoomFrame; TOGETHER]>,
    single: ArrayQueue<RoomFrame>,
}

impl Spare {
    fn give(&self, mut frames: impl Iterator<Item = RoomFrame>) {
        loop {
            let batch: ArrayVec<_, TOGETHER> = frames.by_ref().take(TOGETHER).collect();
            let rest = match batch.into_inner() {
                Ok(batch) => match self.batches.push(batch) {
                    Ok(()) => continue,
                    Err(batch) => ArrayVec::from(batch),
                },
                Err(rest) if rest.is_empty() => return,
                Err(rest) => rest,
            };
            for frame in rest {
                // Refused only when frames of another reserve were given here: the surplus is freed.
                drop(self.single.push(frame));
            }
        }
    }

    /// Takes `frames` more into `cache`, or as many as there are.
    fn take(&self, cache: &mut Vec<RoomFrame>, frames: usize) {
        let end = cache.len() + frames;
        while cache.len() + TOGETHER <= end
            && let Some(batch) = self.batches.pop()
        {
            cache.extend(batch);
        }
        while cache.len() < end {
            if let Some(frame) = self.single.pop() {
                cache.push(frame);
            } else if let Some(batch) = self.batches.pop() {
                let mut batch = batch.into_iter();
                cache.extend(batch.by_ref().take(end - cache.len()));
                batch.for_each(|frame| drop(self.single.push(frame)));
            } else {
                return;
            }
        }
    }

    fn len(&self) -> usize {
        self.batches.len() * TOGETHER + self.single.len()
    }
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
        let frames = frames.max(1);
        let spare = Spare {
            batches: ArrayQueue::new((frames / TOGETHER).max(1)),
            single: ArrayQueue::new(frames),
        };
        spare.give((0..frames).map(|_| RoomFrame::new(lines)));
        Self { spare: Arc::new(spare), large: None, frame_octets }
    }

    /// The same with `frames` large rooms beside them (at least one), each for a frame of
    /// [`LARGE_OCTETS`].
    #[must_use]
    pub fn with_large(self, frames: usize) -> Self {
        let large = ArrayQueue::new(frames.max(1));
        while large.push(RoomFrame::new(LARGE_LINES)).is_ok() {}
        Self { large: Some(Arc::new(large)), ..self }
    }

    fn give_large(&self, frame: RoomFrame) {
        if let Some(large) = &self.large {
            // Refused only when frames of another reserve were given here: the surplus is freed.
            drop(large.push(frame));
        }
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
        let (reserve, large) = (self.clone(), Vec::with_capacity(LARGE_CACHE));
        RoomPool { reserve, cache_max: cache, cache: Vec::with_capacity(cache), large }
    }

    /// Rooms in the reserve now, large ones included; those in pools, rings and bursts are not among
    /// them.
    #[must_use]
    pub fn free(&self) -> usize {
        self.spare.len() + self.large.as_ref().map_or(0, |large| large.len())
    }

    /// Rooms that were allocated, large ones included.
    #[must_use]
    pub fn total(&self) -> usize {
        self.spare.single.capacity() + self.large.as_ref().map_or(0, |large| large.capacity())
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
const fn lines(frame_octets: usize) -> usize {
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
    /// Large ones; those used last are used next, as they are 64 KB of a processor's cache each.
    large: Vec<RoomFrame>,
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
        for frame in self.large.drain(..) {
            self.reserve.give_large(frame);
        }
    }

    /// A large empty frame, or `None` when there is none. It is given back like any other.
    #[must_use]
    pub fn take_large(&mut self) -> Option<RoomFrame> {
        let from_all = || self.reserve.large.as_ref()?.pop();
        let mut frame = self.large.pop().or_else(from_all)?;
        frame.clear();
        Some(frame)
    }

    #[cold]
    #[inline(never)]
    fn give_large(&mut self, frame: RoomFrame) {
        if self.large.len() < LARGE_CACHE {
            self.large.push(frame);
        } else {
            self.reserve.give_large(frame);
        }
    }

    #[cold]
    fn refill(&mut self) {
        self.reserve.spare.take(&mut self.cache, EXCHANGE.min(self.cache_max));
    }

    #[cold]
    fn give_back(&mut self, frames: usize) {
        // From the end: the others, which are many, stay where they are.
        let stay = self.cache.len().saturating_sub(frames);
        self.reserve.spare.give(self.cache.drain(stay..));
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
        if frame.is_large() {
            return self.give_large(frame);
        }
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
