//! Read-copy-update without `unsafe`.
//!
//! One publisher swaps an immutable `Arc<T>`; each worker looks at a generation number once
//! per breath and takes the lock only when it moved. A worker holds no borrow across breaths,
//! so a breath boundary is its quiescent state.
//!
//! The publisher keeps every retired value until no worker holds it, so `T` is always dropped
//! on the publisher's thread: a worker never frees memory.

use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use std::sync::PoisonError;

struct Shared<T> {
    generation: AtomicU64,
    current: Mutex<Arc<T>>,
}

/// The control plane's end.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    retired: Vec<Arc<T>>,
}

/// One worker's end.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    generation: u64,
    current: Arc<T>,
}

impl<T> Publisher<T> {
    /// Starts at `initial`.
    pub fn new(initial: T) -> Self {
        let shared =
            Shared { generation: AtomicU64::new(0), current: Mutex::new(Arc::new(initial)) };
        Self { shared: Arc::new(shared), retired: Vec::new() }
    }

    /// Makes `next` what readers see from their next refresh on.
    pub fn publish(&mut self, next: T) {
        let next = Arc::new(next);
        let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.retired.push(core::mem::replace(&mut *current, next));
        // Release: pairs with the Acquire in `Reader::refresh`. Inside the lock, so that two
        // publications cannot leave an older value under a newer number.
        self.shared.generation.fetch_add(1, Ordering::Release);
        drop(current);
        self.reclaim();
    }

    /// Drops the retired values that no reader holds any more; returns how many are left.
    pub fn reclaim(&mut self) -> usize {
        self.retired.retain(|value| Arc::strong_count(value) > 1);
        self.retired.len()
    }

    /// A further reader, to be moved to its worker.
    pub fn reader(&self) -> Reader<T> {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        Reader {
            shared: Arc::clone(&self.shared),
            generation: self.shared.generation.load(Ordering::Acquire),
            current: Arc::clone(&current),
        }
    }
}

impl<T> Reader<T> {
    /// Returns the newest value. Costs one load when nothing was published.
    #[inline]
    pub fn refresh(&mut self) -> &T {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.reload(generation);
        }
        &self.current
    }

    /// The number of the newest value; the next [`Reader::refresh`] returns it or a newer one.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether there is a newer value than the one that was returned last.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.generation() != self.generation
    }

    #[cold]
    fn reload(&mut self, generation: u64) {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.current = Arc::clone(&current);
        self.generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_sees_the_last_publication() {
        let mut publisher = Publisher::new(1);
        let mut reader = publisher.reader();
        assert_eq!(*reader.refresh(), 1);
        publisher.publish(2);
        publisher.publish(3);
        assert_eq!(*reader.refresh(), 3);
    }

    #[test]
    fn a_value_in_use_outlives_its_successor() {
        let mut publisher = Publisher::new(1);
        let mut reader = publisher.reader();
        publisher.publish(2);
        assert_eq!(publisher.reclaim(), 1);
        reader.refresh();
        assert_eq!(publisher.reclaim(), 0);
    }
}
