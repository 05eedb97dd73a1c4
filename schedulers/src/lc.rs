//! Least connections, `-s lc`.
//!
//! Each new connection goes to the destination with the least load, where an active connection is
//! worth 256 inactive ones. Weights only say who takes part. Kernel: Linux 6.1 `ip_vs_lc.c`
//! `ip_vs_lc_schedule()`.
//!
//! State: none. Cost: O(n).
//! Differs: the kernel counts the load in 32 bits, which 8 million active connections overflow.

use crate::{Candidate, Loads, overhead};

/// Least connections needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lc;

impl Lc {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The eligible destination with the least load.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        let eligible = dests.iter().enumerate().filter(|(_, dest)| dest.is_eligible(loads));
        // `min_by_key` keeps the first of equals.
        let least = eligible.min_by_key(|(_, dest)| overhead(loads.load(dest.id)));
        least.map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, dests, idle};
    use rvs_model::{DestId, Load};

    #[test]
    fn lc_ignores_weights_but_zero_and_gives_ties_to_the_first() {
        let list = dests(&[(4, 0), (3, 1), (2, 100), (1, 1)]);
        assert_eq!(Lc::new().pick(&list, &idle), Some(1));
        let load = |id: DestId| Load { active: u32::from(id.0 == 3), inactive: 0 };
        assert_eq!(Lc::new().pick(&list, &load), Some(2));
        assert_eq!(Lc::new().pick(&list, &Overloaded(&[3, 2])), Some(3));
    }

    #[test]
    fn one_active_connection_weighs_as_much_as_256_inactive_ones() {
        let list = dests(&[(2, 1), (1, 1)]);
        let against = |inactive| {
            move |id: DestId| match id.0 {
                2 => Load { active: 1, inactive: 0 },
                _ => Load { active: 0, inactive },
            }
        };
        assert_eq!(Lc::new().pick(&list, &against(255)), Some(1));
        assert_eq!(Lc::new().pick(&list, &against(256)), Some(0), "a tie");
        assert_eq!(Lc::new().pick(&list, &against(u32::MAX)), Some(0));
    }
}
