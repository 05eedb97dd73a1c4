//! Shortest expected delay, `-s sed`.
//!
//! Each new connection goes to the destination with the fewest active connections for its weight,
//! the new one counted: where it would be served soonest if a weight is a speed. Kernel: Linux 6.1
//! `ip_vs_sed.c` `ip_vs_sed_schedule()`.
//!
//! State: none. Cost: O(n).
//! Differs: nothing.

use crate::{Candidate, Loads, expected_delay, least_eligible};

/// Shortest expected delay needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sed;

impl Sed {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The eligible destination that would have the fewest active connections for its weight.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        least_eligible(dests, loads, expected_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, active, dests, idle};
    use rvs_model::{DestId, Load};

    #[test]
    fn an_idle_slow_dest_waits_while_a_fast_one_is_quicker_nevertheless() {
        let list = dests(&[(2, 1), (1, 3)]);
        for (busy, place) in [(0, 1), (1, 1), (2, 0)] {
            assert_eq!(Sed::new().pick(&list, &active(&[(1, busy)])), Some(place), "{busy} active");
        }
    }

    #[test]
    fn inactive_connections_do_not_count() {
        let list = dests(&[(2, 1), (1, 1)]);
        let load = |id: DestId| Load { active: 0, inactive: if id.0 == 2 { 9999 } else { 0 } };
        assert_eq!(Sed::new().pick(&list, &load), Some(0));
    }

    #[test]
    fn nobody_drained_or_overloaded_is_picked() {
        let list = dests(&[(3, 0), (2, 9), (1, 1)]);
        assert_eq!(Sed::new().pick(&list, &Overloaded(&[2])), Some(2));
        assert_eq!(Sed::new().pick(&list[..1], &idle), None);
    }
}
