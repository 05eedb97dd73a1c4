//! Weighted overflow, `-s ovf`.
//!
//! New connections go to the destination with the highest weight until it has more active ones than
//! its weight; what overflows goes to the next highest. When all are full, nobody gets it. Kernel:
//! Linux 6.1 `ip_vs_ovf.c` `ip_vs_ovf_schedule()`.
//!
//! State: none. Cost: O(n).
//! Differs: nothing.

use crate::{Candidate, Loads};

/// Overflow needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ovf;

impl Ovf {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The eligible destination with the highest weight among those that are not full.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        // As many as its weight is not full yet: there will be one more.
        let has_room = |dest: &Candidate| {
            dest.is_eligible(loads) && loads.load(dest.id).active <= dest.weight.0
        };
        let open = dests.iter().enumerate().filter(|(_, dest)| has_room(dest));
        // `max_by_key` keeps the last of equals.
        open.rev().max_by_key(|(_, dest)| dest.weight).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, active, dests};

    #[test]
    fn a_dest_takes_one_more_than_its_weight_before_it_overflows() {
        let list = dests(&[(3, 2), (2, 5), (1, 5)]);
        let pick = |counts: &[(u32, u32)]| Ovf::new().pick(&list, &active(counts));
        assert_eq!(pick(&[(2, 5)]), Some(1));
        assert_eq!(pick(&[(2, 6)]), Some(2));
        assert_eq!(pick(&[(2, 6), (1, 6)]), Some(0));
        assert_eq!(pick(&[(2, 6), (1, 6), (3, 3)]), None);
    }

    #[test]
    fn nobody_drained_or_overloaded_is_picked() {
        let list = dests(&[(2, 0), (1, 5)]);
        assert_eq!(Ovf::new().pick(&list, &active(&[(1, 6)])), None);
        assert_eq!(Ovf::new().pick(&list, &Overloaded(&[1])), None);
    }
}
