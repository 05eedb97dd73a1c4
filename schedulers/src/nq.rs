//! Never queue, `-s nq`.
//!
//! Each new connection goes to the first destination without an active connection, and if there is
//! none, to where it would be served soonest, as `sed` does. Kernel: Linux 6.1 `ip_vs_nq.c`
//! `ip_vs_nq_schedule()`.
//!
//! State: none. Cost: O(n), two walks while nobody is idle.
//! Differs: nothing.

use crate::{Candidate, Loads, expected_delay, least_eligible};

/// Never queue needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nq;

impl Nq {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The first eligible destination that is idle, else the one of the shortest expected delay.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        let is_idle = |dest: &Candidate| dest.is_eligible(loads) && loads.load(dest.id).active == 0;
        dests.iter().position(is_idle).or_else(|| least_eligible(dests, loads, expected_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, active, dests};

    #[test]
    fn an_idle_slow_dest_goes_first() {
        let list = dests(&[(2, 1), (1, 100)]);
        assert_eq!(Nq::new().pick(&list, &active(&[(1, 1)])), Some(0));
        assert_eq!(Nq::new().pick(&list, &active(&[(2, 1), (1, 1)])), Some(1));
    }

    #[test]
    fn an_idle_dest_that_is_drained_or_overloaded_does_not_count() {
        let list = dests(&[(3, 0), (2, 1), (1, 1)]);
        assert_eq!(Nq::new().pick(&list, &active(&[(2, 5), (1, 4)])), Some(2));
        assert_eq!(Nq::new().pick(&list, &Overloaded(&[2])), Some(2));
        assert_eq!(Nq::new().pick(&list, &Overloaded(&[2, 1])), None);
    }
}
