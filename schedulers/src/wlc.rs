//! Weighted least connections, `-s wlc`, the default.
//!
//! Each new connection goes to the destination with the least load for its weight, where an active
//! connection is worth 256 inactive ones. Kernel: Linux 6.1 `ip_vs_wlc.c` `ip_vs_wlc_schedule()`.
//!
//! State: none. Cost: O(n).
//! Differs: the kernel counts the load in 32 bits, which 8 million active connections overflow.

use crate::{Candidate, Loads, least_eligible, overhead};

/// Weighted least connections needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wlc;

impl Wlc {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The eligible destination with the least load for its weight.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        least_eligible(dests, loads, overhead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{dests, idle};
    use rvs_model::{DestId, Load};

    #[test]
    fn wlc_shares_active_connections_in_proportion_to_weights() {
        let list = dests(&[(3, 1), (2, 0), (1, 4)]);
        let mut active = [0; 3];
        for _ in 0..50 {
            let load = |id: DestId| {
                let place = list.iter().position(|dest| dest.id == id).unwrap();
                Load { active: active[place], inactive: 0 }
            };
            active[Wlc::new().pick(&list, &load).unwrap()] += 1;
        }
        assert_eq!(active, [10, 0, 40]);
    }

    #[test]
    fn ties_go_to_the_first_whatever_the_weights() {
        let list = dests(&[(3, 0), (2, 1), (1, 9)]);
        assert_eq!(Wlc::new().pick(&list, &idle), Some(1));
    }

    #[test]
    fn the_highest_loads_and_weights_are_compared_exactly() {
        let list = dests(&[(2, u32::MAX), (1, u32::MAX - 1)]);
        let full = Load { active: u32::MAX, inactive: u32::MAX };
        assert_eq!(Wlc::new().pick(&list, &|_| full), Some(0));
        let load = |id: DestId| match id.0 {
            2 => full,
            _ => Load { active: u32::MAX - 2, ..full },
        };
        assert_eq!(Wlc::new().pick(&list, &load), Some(1));
    }
}
