//! One cache line of the index: eight tags, eight entries, and how many live elsewhere.

use crate::conn::Direction;
use crate::num::at;
use crate::table::Found;

/// A [`Found`] in 32 bits, and whether it lives away from home.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Entry(u32);

impl Entry {
    const OUTBOUND: u32 = 1;
    const AWAY: u32 = 2;
    /// The highest index that fits.
    pub(crate) const INDEX_MAX: u32 = u32::MAX >> 2;

    #[inline]
    pub(crate) fn new(index: u32, direction: Direction) -> Self {
        Self(index << 2 | if direction == Direction::Outbound { Self::OUTBOUND } else { 0 })
    }

    #[inline]
    pub(crate) fn found(self) -> Found {
        let outbound = self.0 & Self::OUTBOUND != 0;
        let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
        Found { index: self.0 >> 2, direction }
    }

    #[inline]
    pub(crate) fn is_away(self) -> bool {
        self.0 & Self::AWAY != 0
    }

    /// Whether both lead to the same, wherever they live.
    #[inline]
    fn leads_where(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::AWAY == 0
    }

    #[inline]
    pub(crate) fn moved(self) -> Self {
        Self(self.0 ^ Self::AWAY)
    }
}

/// Entries in a bucket.
pub(crate) const WAYS: usize = 8;

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// 0 in a free way.
    tags: [u16; WAYS],
    entries: [Entry; WAYS],
    /// How many entries call this bucket home and live in another. As wide as an index: whoever
    /// knows the seed can send more than 65 535 of them away from one bucket.
    pub(crate) away: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// A set of ways: way `w` is bits `2 * w` and `2 * w + 1`.
struct Ways(u32);

impl Iterator for Ways {
    type Item = usize;
    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let way = self.0.trailing_zeros() / 2;
        self.0 &= !(3 << (2 * way));
        Some(at(way))
    }
}

impl Bucket {
    /// The ways with this tag.
    #[inline(always)]
    fn ways(&self, tag: u16) -> Ways {
        Ways(rvs_cache::equal_lanes(&self.tags, tag))
    }

    /// The first entry with this tag, or nobody's.
    #[inline]
    pub(crate) fn first(&self, tag: u16) -> Entry {
        let way = self.ways(tag).next();
        way.and_then(|way| self.entries.get(way)).copied().unwrap_or_default()
    }

    /// All entries with this tag.
    #[inline]
    pub(crate) fn all(&self, tag: u16) -> impl Iterator<Item = (usize, Entry)> {
        self.ways(tag).filter_map(|way| Some((way, *self.entries.get(way)?)))
    }

    /// What is in `way`: its tag, 0 if free, and its entry.
    #[inline]
    pub(crate) fn way(&self, way: usize) -> (u16, Entry) {
        let tag = self.tags.get(way).copied().unwrap_or_default();
        (tag, self.entries.get(way).copied().unwrap_or_default())
    }

    /// Frees `way`.
    #[inline]
    pub(crate) fn clear(&mut self, way: usize) {
        self.set_tag(way, 0);
    }

    #[inline]
    fn set_tag(&mut self, way: usize, tag: u16) {
        if let Some(place) = self.tags.get_mut(way) {
            *place = tag;
        }
    }

    /// Puts `entry` into a free way, if there is one, and in front of those with the same tag.
    #[inline]
    pub(crate) fn put(&mut self, tag: u16, entry: Entry) -> bool {
        let Some(free) = self.ways(0).next() else { return false };
        let first = self.ways(tag).next().map_or(free, |way| way.min(free));
        let Some(place) = self.entries.get_mut(first) else { return false };
        let older = core::mem::replace(place, entry);
        if first != free
            && let Some(place) = self.entries.get_mut(free)
        {
            *place = older;
        }
        self.set_tag(free, tag);
        true
    }

    /// Puts `entry` into the way of the first one with the same tag that is at home here, and hands
    /// that back; or `entry` itself.
    pub(crate) fn trade(&mut self, tag: u16, entry: Entry) -> Entry {
        let first = self.all(tag).find(|(_, other)| !other.is_away());
        let place = first.and_then(|(way, _)| self.entries.get_mut(way));
        place.map_or(entry, |place| core::mem::replace(place, entry))
    }

    /// Takes `entry` out, wherever it lives, and says whether it lived away.
    #[inline]
    pub(crate) fn take(&mut self, tag: u16, entry: Entry) -> Option<bool> {
        let (way, found) = self.all(tag).find(|(_, other)| other.leads_where(entry))?;
        self.clear(way);
        Some(found.is_away())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_found_by_its_tag_and_by_no_other() {
        for tags in [[1, 2, 3, 4, 5, 6, 7, 8], [0xffff, 0x8000, 0x7fff, 1, 0x0100, 9, 10, 11]] {
            let mut bucket = Bucket::default();
            for (index, tag) in (1..).zip(tags) {
                assert!(bucket.put(tag, Entry::new(index, Direction::Outbound)));
            }
            assert!(!bucket.put(77, Entry::new(9, Direction::Inbound)), "a ninth has no room");
            for tag in 0..=u16::MAX {
                let found: Vec<u32> =
                    bucket.all(tag).map(|(_, entry)| entry.found().index).collect();
                let expected: Vec<u32> =
                    (1..).zip(tags).filter(|(_, t)| *t == tag).map(|(index, _)| index).collect();
                assert_eq!(found, expected, "tag {tag:#x}");
                assert_eq!(bucket.first(tag).found().index, found.first().copied().unwrap_or(0));
            }
        }
    }

    #[test]
    fn take_frees_the_way_of_that_entry_among_equal_tags() {
        let mut bucket = Bucket::default();
        for index in 1..=8 {
            assert!(bucket.put(7, Entry::new(index, Direction::Inbound)));
        }
        assert_eq!(bucket.take(7, Entry::new(5, Direction::Outbound)), None);
        assert_eq!(bucket.take(7, Entry::new(5, Direction::Inbound)), Some(false));
        assert_eq!(bucket.all(7).filter(|(_, entry)| entry.found().index == 5).count(), 0);
        assert!(bucket.put(9, Entry::new(5, Direction::Inbound).moved()));
        assert_eq!(bucket.take(9, Entry::new(5, Direction::Inbound)), Some(true));
    }
}
