//! Who makes room when the table is full: the connections opened last whose handshake may not have
//! ended.
//!
//! ```text
//!         pop_victim ▼ oldest                 newest ▼ push
//!   ring  [ . . . . | 7 | 12 | 3 | 9 | … | 41 | 8 | . . . ]      indices; older ones are overwritten
//! ```
//!
//! A flood of connections that never end their handshake pushes out its own oldest. Those that were
//! established meanwhile are passed over and forgotten here: they are never a victim. An index may
//! be in the ring for a connection that is gone; whoever has its line then, if half-open, may go
//! before its turn.

use crate::num::at;

/// Indices looked at for one victim: bounds the cache misses of an eviction. The ring moves on with
/// every look, so that a search that fails is not repeated over the same ones.
pub const LOOKS: usize = 32;

/// The ring of one worker's table.
pub struct HalfOpen {
    ring: Vec<u32>,
    /// Free-running; reduced by `mask` where they are used.
    oldest: u32,
    newest: u32,
    mask: u32,
}

impl HalfOpen {
    /// A ring for a table of `conns_max`: an eighth of it, but at least 1024.
    #[must_use]
    pub fn new(conns_max: u32) -> Self {
        let len = (conns_max / 8).clamp(1024, 1 << 30).next_power_of_two();
        Self { ring: vec![0; at(len)], oldest: 0, newest: 0, mask: len - 1 }
    }

    /// Notes that connection `index` was opened.
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

    /// The oldest that is still half-open, if there is one among the next [`LOOKS`].
    #[inline]
    pub fn pop_victim(&mut self, mut is_half_open: impl FnMut(u32) -> bool) -> Option<u32> {
        for _ in 0..LOOKS {
            if self.oldest == self.newest {
                return None;
            }
            let index = self.ring.get(at(self.oldest & self.mask)).copied()?;
            self.oldest = self.oldest.wrapping_add(1);
            if is_half_open(index) {
                return Some(index);
            }
        }
        None
    }

    /// The next `most` that [`HalfOpen::pop_victim`] looks at.
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
        assert_eq!(ring.pop_victim(|_| true), None, "all were looked at");
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
        assert_eq!((found, looks), (None, LOOKS));
        assert_eq!(ring.pop_victim(|_| true), Some(5000 - 1024 + 32));
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
        assert_eq!(ring.pop_victim(|_| true), None);
    }
}
