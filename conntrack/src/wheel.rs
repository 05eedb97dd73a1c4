//! When to look at a connection again: a timer wheel that no packet touches.
//!
//! A packet only stores the tick at which it was seen, in a line that it writes anyway. When an
//! entry of the wheel falls due, its owner compares: still fresh, arm again; otherwise expire.
//! So a timer costs one visit per timeout, not one per packet.
//!
//! ```text
//!  slots  [ . | ● | . | . | … ]      one per tick; a later due time than the last slot waits there
//!             ▼                      and is armed again: no second level
//!         [14 × index | len | next] ─► [14 × index | 14 | next] ─► …      one cache line each
//! ```
//!
//! Indices in lines, not a list through the connections: a list is a chain of dependent misses,
//! a line names the next 14 connections at once, so that their lines can be asked for together.
//! Arming writes to the line that the previous connection wrote to.
//!
//! Nothing is ever taken out of the middle. A connection remembers the tick it is armed for, and an
//! entry that comes out at another tick is stale: a shorter timeout arms a second, earlier entry.
//! Whoever makes many of them at once would fill the wheel, so when it gets crowded,
//! [`Wheel::sift`] hands out entries slot by slot before they are due, and those that are not
//! stale are armed again where they were.
//!
//! DIFFERS from Linux, whose timers are late by up to an eighth of their time (16 s in 900): a
//! connection expires to an eighth of a second.
//!
//! Ticks wrap after 17 years. They are only compared by their difference, so a wrap is nothing
//! special as long as no two of them are 8 years apart.

use crate::num::at;
use arrayvec::ArrayVec;
use rvs_model::Tick;

/// Slots: 1024 s, more than the longest usual timeout (900 s), at 4 octets each. Divides the range
/// of [`Tick`], so that a slot follows from a tick alone.
const SLOTS: u32 = 8192;

/// Empty slots that one call steps over: bounds a call after a long sleep to 32 cache lines. A
/// tick is some 10 000 breaths, so the hand catches up at once even then.
const STEPS: u32 = 512;

/// Indices in a cache line beside its length and its link.
const PER_CHUNK: usize = 14;

/// The longest timeout: 4 years, so that differences of ticks have a sign.
pub const TIMEOUT_MAX: Tick = 1 << 30;

/// Whether `tick` is not after `now`.
#[inline]
#[must_use]
pub const fn is_due(tick: Tick, now: Tick) -> bool {
    now.wrapping_sub(tick) <= u32::MAX / 2
}

/// An entry that came out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// What was armed.
    pub index: u32,
    /// The tick it was armed for.
    pub tick: Tick,
}

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Chunk {
    indices: [u32; PER_CHUNK],
    len: u32,
    /// The next chunk of this slot, or of the free ones. 0 ends both.
    next: u32,
}

const _: () = assert!(size_of::<Chunk>() == 64);

/// Chunks that are in no slot, first to last by their links. 0 ends every list of chunks.
struct Chunks {
    all: Vec<Chunk>,
    free: u32,
}

/// The wheel of one worker.
pub struct Wheel {
    /// The first chunk of each slot.
    slots: Vec<u32>,
    chunks: Chunks,
    /// Entries that there is room for, whatever their slots.
    entries: u32,
    /// Entries there are.
    armed: u32,
    /// The tick that [`Wheel::pop`] looks at next. All entries lie in the `SLOTS` from here on.
    hand: Tick,
    /// The tick whose chunks [`Wheel::sift`] has taken.
    sifted: Tick,
    /// What is left of them.
    sifting: u32,
}

impl Wheel {
    /// A wheel for `entries` armed at one time, at the tick `now`.
    #[must_use]
    pub fn new(entries: u32, now: Tick, huge: bool) -> Self {
        // Each slot, and the one being sifted, has at most one chunk that is not full; chunk 0 is
        // the end of every list.
        let count = entries / 14 + SLOTS + 3;
        let mut all = rvs_cache::vec_in_huge_pages(&Chunk::default(), at(count), huge);
        for (chunk, next) in all.iter_mut().skip(1).zip(2..) {
            chunk.next = next;
        }
        if let Some(last) = all.last_mut() {
            last.next = 0;
        }
        Self {
            slots: vec![0; at(SLOTS)],
            chunks: Chunks { all, free: 1 },
            entries,
            armed: 0,
            hand: now,
            sifted: now,
            sifting: 0,
        }
    }

    /// Arms `index` for `tick`, or for the end of the wheel if that is earlier, and says for which.
    ///
    /// `None` when all entries are in use: possible only if stale ones fill the wheel.
    #[inline]
    pub fn arm(&mut self, index: u32, tick: Tick) -> Option<Tick> {
        let ahead = if is_due(tick, self.hand) { 0 } else { tick.wrapping_sub(self.hand) };
        let tick = self.hand.wrapping_add(ahead.min(SLOTS - 1));
        let slot = self.slots.get_mut(at(tick % SLOTS))?;
        self.chunks.push(slot, index)?;
        self.armed += 1;
        Some(tick)
    }

    /// Moves entries due at or before `now` into `due` until it is full, in at most `STEPS` slots.
    ///
    /// After a sleep longer than the wheel all entries are due; they come out with a tick that is
    /// not the one they were armed for but falls into the same slot: compare with [`Due::is_for`].
    #[inline]
    pub fn pop<const N: usize>(&mut self, now: Tick, due: &mut ArrayVec<Due, N>) {
        if !is_due(now, self.hand.wrapping_add(SLOTS - 1)) {
            self.hand = now.wrapping_sub(SLOTS - 1);
        }
        let mut steps = STEPS;
        while is_due(self.hand, now) && !due.is_full() && steps > 0 {
            let tick = self.hand;
            let Some(slot) = self.slots.get_mut(at(tick % SLOTS)) else { return };
            if *slot != 0 {
                self.armed -= self.chunks.pop(slot, tick, due);
            } else if self.sifting != 0 && self.sifted % SLOTS == tick % SLOTS {
                *slot = core::mem::take(&mut self.sifting);
            } else {
                self.hand = tick.wrapping_add(1);
                steps -= 1;
            }
        }
    }

    /// Whether more than 5 of 8 entries are in use: time to [`Wheel::sift`].
    ///
    /// With room for two entries a connection, a fifth of them is stale then. If each packet makes
    /// one more, three that are sifted for each packet keep the wheel from filling.
    #[inline]
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.armed > self.entries - self.entries / 8 * 3
    }

    /// Moves entries that are not due yet into `out` until it is full, slot by slot round the wheel,
    /// in at most `STEPS` slots. The caller arms those again that are not stale, for the tick that
    /// they come with.
    pub fn sift<const N: usize>(&mut self, out: &mut ArrayVec<Due, N>) {
        let mut steps = STEPS;
        while !out.is_full() && steps > 0 {
            if self.sifting != 0 {
                self.armed -= self.chunks.pop(&mut self.sifting, self.sifted, out);
                continue;
            }
            // Never the hand's own slot: what is there is about to come out.
            let next = self.sifted.wrapping_add(1);
            let is_ahead = (1..SLOTS).contains(&next.wrapping_sub(self.hand));
            self.sifted = if is_ahead { next } else { self.hand.wrapping_add(1) };
            if let Some(slot) = self.slots.get_mut(at(self.sifted % SLOTS)) {
                self.sifting = core::mem::take(slot);
            }
            steps -= 1;
        }
    }

    /// Bytes taken, all allocations counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.chunks.all)
    }
}

impl Chunks {
    /// Puts `index` into the list that begins with `first`; `None` if that takes a chunk and none is
    /// free.
    #[inline(always)]
    fn push(&mut self, first: &mut u32, index: u32) -> Option<()> {
        let chunk = self.all.get_mut(at(*first))?;
        if let Some(place) = chunk.indices.get_mut(at(chunk.len)).filter(|_| *first != 0) {
            *place = index;
            chunk.len += 1;
            return Some(());
        }
        let fresh = self.free;
        let chunk = self.all.get_mut(at(fresh)).filter(|_| fresh != 0)?;
        self.free = core::mem::replace(&mut chunk.next, *first);
        *first = fresh;
        chunk.indices[0] = index;
        chunk.len = 1;
        Some(())
    }

    /// Moves entries of the chunk `first` into `out` until that is full, frees the chunk if it has
    /// none left, and says how many went.
    #[inline(always)]
    fn pop<const N: usize>(
        &mut self,
        first: &mut u32,
        tick: Tick,
        out: &mut ArrayVec<Due, N>,
    ) -> u32 {
        let next = self.all.get(at(*first)).map_or(0, |chunk| chunk.next);
        // One line ahead: who pops on needs it soon.
        if let Some(next) = self.all.get(at(next)) {
            rvs_cache::prefetch(next);
        }
        let Some(chunk) = self.all.get_mut(at(*first)) else { return 0 };
        let len = chunk.len;
        let keep = at(len).saturating_sub(out.remaining_capacity());
        for index in chunk.indices.iter().take(at(len)).skip(keep) {
            let _fits = out.try_push(Due { index: *index, tick });
        }
        chunk.len = u32::try_from(keep).unwrap_or_default();
        if keep == 0 {
            let emptied = core::mem::replace(first, chunk.next);
            chunk.next = self.free;
            self.free = emptied;
        }
        len - chunk.len
    }
}

impl Due {
    /// Whether this is the entry of something that was armed for `tick`, or a stale one.
    #[inline]
    #[must_use]
    pub fn is_for(self, tick: Tick) -> bool {
        self.tick % SLOTS == tick % SLOTS
    }
}
