//! Identifications of packets that may be fragmented.

use core::cell::Cell;

/// Those of one worker. RFC 6864 section 4.1: unique among packets between the same two addresses
/// while fragments may live. All workers are one source to the receiver, so each counts in steps of
/// their number and no two ever give the same.
#[derive(Debug)]
pub(crate) struct Idents {
    next: Cell<u16>,
    step: u16,
}

impl Idents {
    /// For `worker` of `workers`, counted from 0.
    pub(crate) fn new(worker: u16, workers: u16) -> Self {
        // A power of two divides the range, so that the rest stays when the number wraps.
        let step = workers.checked_next_power_of_two().unwrap_or(1);
        Self { next: Cell::new(worker.wrapping_add(step)), step }
    }

    #[inline]
    pub(crate) fn next(&self) -> u16 {
        let ident = self.next.get();
        self.next.set(ident.wrapping_add(self.step));
        ident
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workers_ever_give_the_same() {
        let mut giver = vec![None; 1 << 16];
        for worker in 0..3 {
            let idents = Idents::new(worker, 3);
            for _ in 0..1 << 16 {
                let place = &mut giver[usize::from(idents.next())];
                assert_eq!(*place.get_or_insert(worker), worker);
            }
        }
    }

    #[test]
    fn one_worker_gives_all_before_it_repeats_one() {
        let idents = Idents::new(0, 1);
        assert!((1..=u16::MAX).chain([0, 1]).all(|number| idents.next() == number));
    }
}
