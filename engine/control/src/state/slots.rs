//! Places with stable numbers: what workers index their arrays with.

use std::collections::VecDeque;

/// At most a fixed number of values, each at a place that keeps its number until it is freed. The
/// place freed longest ago is used first.
#[derive(Clone, Debug)]
pub(super) struct Slots<T> {
    places: Vec<Option<T>>,
    free: VecDeque<u32>,
    max: u32,
}

impl<T> Slots<T> {
    /// No place is used yet, and never more than `max` are.
    pub(super) fn new(max: u32) -> Self {
        Self { places: Vec::new(), free: VecDeque::new(), max }
    }

    /// How many there can be.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// The first place that was never used.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Puts what `make` makes of its number into a place, or says that none is free.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32) -> T) -> Option<u32> {
        if let Ok(next) = u32::try_from(self.places.len())
            && next < self.max
        {
            self.places.push(Some(make(next)));
            return Some(next);
        }
        let place = self.free.pop_front()?;
        *self.place(place)? = Some(make(place));
        Some(place)
    }

    /// Empties a place.
    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        let value = self.place(place)?.take()?;
        self.free.push_back(place);
        Some(value)
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        self.places.get(usize::try_from(place).ok()?)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.place(place)?.as_mut()
    }

    /// In the order of the places.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    /// In the order of the places.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }

    fn place(&mut self, place: u32) -> Option<&mut Option<T>> {
        self.places.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_only_when_all_others_were() {
        let mut slots = Slots::new(3);
        assert_eq!(slots.insert(|n| n), Some(0));
        assert_eq!(slots.remove(0), Some(0));
        assert_eq!(slots.insert(|n| n), Some(1));
        assert_eq!(slots.insert(|n| n), Some(2));
        assert_eq!(slots.insert(|n| n), Some(0));
        assert_eq!(slots.insert(|n| n), None);
        assert_eq!(slots.remove(7), None);
        assert_eq!(slots.iter().count(), 3);
    }
}
