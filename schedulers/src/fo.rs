//! Weighted failover, `-s fo`.
//!
//! All new connections go to the destination with the highest weight, and to the next highest while
//! that one is drained or overloaded. Kernel: Linux 6.1 `ip_vs_fo.c` `ip_vs_fo_schedule()`.
//!
//! State: none. Cost: O(n).
//! Differs: nothing.

use crate::{Candidate, Loads};

/// Failover needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fo;

impl Fo {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The eligible destination with the highest weight.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        let eligible = dests.iter().enumerate().filter(|(_, dest)| dest.is_eligible(loads));
        // `max_by_key` keeps the last of equals.
        eligible.rev().max_by_key(|(_, dest)| dest.weight).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, dests, idle};

    #[test]
    fn the_highest_weight_gets_all_and_ties_go_to_the_first() {
        let list = dests(&[(4, 1), (3, 7), (2, 7), (1, 0)]);
        for _ in 0..3 {
            assert_eq!(Fo::new().pick(&list, &idle), Some(1));
        }
    }

    #[test]
    fn the_next_highest_takes_over_while_one_is_overloaded() {
        let list = dests(&[(4, 1), (3, 7), (2, 5), (1, 0)]);
        assert_eq!(Fo::new().pick(&list, &Overloaded(&[3])), Some(2));
        assert_eq!(Fo::new().pick(&list, &Overloaded(&[3, 2])), Some(0));
        assert_eq!(Fo::new().pick(&list, &Overloaded(&[4, 3, 2])), None);
    }
}
