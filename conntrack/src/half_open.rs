//! Who makes room when the table is full: connections whose handshake may not have ended.
//!
//! ```text
//!         pop_victim ▼ oldest                 newest ▼ push
//!   ring  [ . . . . | 7 | 12 | 3 | 9 | … | 41 | 8 | . . . ]      indices; older ones are overwritten
//!
//!   table [ 1 | 2 | 3 | … | 30 | 31 | … ]                        when the ring has nobody
//!                           ▲ rover
//! ```
//!
//! A flood of connections that never end their handshake pushes out its own oldest. Those that were
//! established meanwhile are passed over and forgotten here: they are never a victim. An index may
//! be in the ring for a connection that is gone; whoever has its line then, if half-open, may go
//! before its turn.
//!
//! The ring remembers an eighth of the table, the connections opened last. Those that it has forgotten
//! are found by the rover, which goes round the lines of the table.

use crate::num::at;

/// Indices looked at for one victim: bounds the cache misses of an eviction. The ring moves on with
/// every look, so that a search that fails is not repeated over the same ones.
pub const LOOKS: usize = 32;

/// Lines that the rover looks at for one victim. They lie side by side, so that most of them are in
/// the cache when their turn comes; and it goes on where it stopped.
pub const ROVES: usize = 64;

/// The ring of one worker's table.
pub struct HalfOpen {
    ring: Vec<u32>,
    /// Free-running; reduced by `mask` where they are used.
    oldest: u32,
    newest: u32,
    mask: u32,
    /// The line that the rover looked at last.
    rover: u32,
    /// Lines are numbered from 1 to this.
    lines: u32,
}

impl HalfOpen {
    /// A ring for a table of `conns_max`: an eighth of it, but at least 1024.
    #[must_use]
    pub fn new(conns_max: u32) -> Self {
        let len = (conns_max / 8).clamp(1024, 1 << 30).next_power_of_two();
        let ring = vec![0; at(len)];
        Self { ring, oldest: 0, newest: 0, mask: len - 1, rover: 0, lines: conns_max }
    }

    /// Notes that connection `index` was opened, or that nobody uses a template any more.
    #[inline]
    pub fn push(&mut self, index: u32) {
        if let Some(place) = self.ring.get_mut(at(self.newest & self.mask)) {
            *place = index;
        }
        self.newest = self.newest.wrapping_add(1);
        if self.newest.wrapping_sub(self.oldest) > self.mask {
            self.oldest = self.newest.wrapping_sub(self.mask).wrapping_sub(1);
        }
    }

    /// The oldest in the ring that is still half-open, if there is one among the next [`LOOKS`]; else
    /// one that the rover comes by.
    #[inline]
    pub fn pop_victim(&mut self, mut is_half_open: impl FnMut(u32) -> bool) -> Option<u32> {
        for _ in 0..LOOKS {
            if self.oldest == self.newest {
                break;
            }
            let index = self.ring.get(at(self.oldest & self.mask)).copied()?;
            self.oldest = self.oldest.wrapping_add(1);
            if is_half_open(index) {
                return Some(index);
            }
        }
        self.rove(is_half_open)
    }

    /// The first of the next [`ROVES`] lines that is half-open.
    #[cold]
    fn rove(&mut self, mut is_half_open: impl FnMut(u32) -> bool) -> Option<u32> {
        for _ in 0..ROVES {
            self.rover = if self.rover < self.lines { self.rover + 1 } else { 1 };
            if is_half_open(self.rover) {
                return Some(self.rover);
            }
        }
        None
    }

    /// The next `most` of the ring that [`HalfOpen::pop_victim`] looks at.
    pub fn upcoming(&self, most: u32) -> impl Iterator<Item = u32> {
        let count = self.newest.wrapping_sub(self.oldest).min(most);
        (0..count).filter_map(move |step| {
            self.ring.get(at(self.oldest.wrapping_add(step) & self.mask)).copied()
        })
    }

    /// Bytes taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_come_oldest_first_and_those_established_are_passed_over() {
        let mut ring = HalfOpen::new(1);
        for index in 1..=10 {
            ring.push(index);
        }
        assert_eq!(ring.upcoming(3).collect::<Vec<u32>>(), [1, 2, 3]);
        assert_eq!(ring.pop_victim(|index| index > 3), Some(4));
        assert_eq!(ring.pop_victim(|_| true), Some(5));
        assert_eq!(ring.pop_victim(|_| false), None);
        assert_eq!(ring.upcoming(1).count(), 0, "all were looked at");
    }

    #[test]
    fn the_oldest_are_overwritten_and_a_search_looks_at_no_more_than_its_bound() {
        let mut ring = HalfOpen::new(0);
        for index in 0..5000 {
            ring.push(index);
        }
        let mut looks = 0;
        let found = ring.pop_victim(|_| {
            looks += 1;
            false
        });
        assert_eq!((found, looks), (None, LOOKS + ROVES));
        assert_eq!(ring.pop_victim(|_| true), Some(5000 - 1024 + 32));
    }

    #[test]
    fn whom_the_ring_has_forgotten_the_rover_finds_and_it_goes_round_and_round() {
        let lines = 1000;
        let mut ring = HalfOpen::new(lines);
        for turn in 0..3 {
            let roved: Vec<u32> = (0..lines).filter_map(|_| ring.pop_victim(|_| true)).collect();
            assert_eq!(roved, (1..=lines).collect::<Vec<u32>>(), "round {turn}");
        }
        let calls = (0..100).find(|_| ring.pop_victim(|index| index == 700).is_some());
        assert_eq!(calls, Some(10), "64 lines each time, from where the last one stopped");
    }

    #[test]
    fn positions_wrap() {
        let mut ring = HalfOpen::new(1);
        (ring.oldest, ring.newest) = (u32::MAX - 2, u32::MAX - 2);
        for index in 0..6 {
            ring.push(index);
        }
        for index in 0..6 {
            assert_eq!(ring.pop_victim(|_| true), Some(index));
        }
        assert_eq!(ring.upcoming(1).count(), 0);
    }
}
