//! Power of two choices, `-s twos`.
//!
//! Two destinations are drawn, each as likely as its weight is heavy, and the one with the lesser
//! load for its weight gets the connection. Kernel: Linux 6.1 `ip_vs_twos.c`
//! `ip_vs_twos_schedule()`.
//!
//! State: a random number generator. Cost: O(n), two walks.
//!
//! DIFFERS from Linux in the numbers drawn by `-s twos`, which are as likely but others. The kernel
//! of Debian 12 is built without this scheduler and refuses its name; it is taken here.
//!
//! ```text
//!  weights 2 3 1, draws from 0 to 6:   0 1 2 │ 3 4 5 │ 6      the first is drawn by 0 too
//! ```

use crate::{Candidate, Loads, Share, overhead, product};
use rvs_model::Weight;

/// What one worker draws with: Steele and Vigna's `SplitMix64`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Twos {
    random: u64,
}

impl Twos {
    /// Draws the same as any other, until [`Twos::stagger`].
    #[must_use]
    pub const fn new() -> Self {
        Self { random: 0 }
    }

    /// Draws other numbers than other workers.
    pub fn stagger(&mut self, share: Share) {
        self.random ^= share.seed;
    }

    /// The one with the lesser load for its weight of two eligible destinations.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        let eligible = || dests.iter().enumerate().filter(|(_, dest)| dest.is_eligible(loads));
        let total: u64 = eligible().map(|(_, dest)| u64::from(dest.weight.0)).sum();
        if total == 0 {
            return None;
        }
        let numbers = [self.up_to(total), self.up_to(total)];
        let two = numbers.map(|number| {
            let mut passed = 0;
            eligible().find(|(_, dest)| {
                passed += u64::from(dest.weight.0);
                number <= passed
            })
        });
        let [Some((first, one)), Some((second, other))] = two else { return None };
        let cost = |dest: &Candidate, by: Weight| product(overhead(loads.load(dest.id)), by);
        let is_better = cost(one, other.weight) > cost(other, one.weight);
        Some(if is_better { second } else { first })
    }

    /// A number from 0 to `most`, both included.
    #[inline]
    fn up_to(&mut self, most: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The range is small beside 2^64: no number is likelier by more than a 2^-20th.
        (z ^ z >> 31).checked_rem(most.wrapping_add(1)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, active, dests, idle};

    #[test]
    fn an_idle_dest_is_drawn_as_often_as_its_weight_says_and_the_first_a_little_oftener() {
        let list = dests(&[(3, 30), (2, 0), (1, 70)]);
        let mut twos = Twos::new();
        let mut counts = [0; 3];
        for _ in 0..101_000 {
            counts[twos.pick(&list, &idle).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((30_000..32_000).contains(&counts[0]), "31 of 101 draws: {counts:?}");
    }

    #[test]
    fn of_two_that_are_drawn_the_less_loaded_for_its_weight_is_picked() {
        let list = dests(&[(2, 1), (1, 1)]);
        let mut twos = Twos::new();
        let busy = active(&[(2, 1)]);
        let busier = (0..9000).filter(|_| twos.pick(&list, &busy) == Some(0)).count();
        // Only if both draws are it: two of three numbers, twice.
        assert!(busier.abs_diff(4000) < 200, "{busier} of 9000");
    }

    #[test]
    fn nobody_drained_or_overloaded_is_drawn() {
        let list = dests(&[(3, 0), (2, 9), (1, 1)]);
        let mut twos = Twos::new();
        for _ in 0..1000 {
            assert_eq!(twos.pick(&list, &Overloaded(&[2])), Some(2));
        }
        assert_eq!(twos.pick(&list, &Overloaded(&[2, 1])), None);
    }

    #[test]
    fn workers_draw_different_numbers() {
        let draws = |worker: u16| -> Vec<u64> {
            let mut twos = Twos::new();
            let seed = u64::from(worker).wrapping_mul(0x2545_f491_4f6c_dd1d);
            twos.stagger(Share { worker, workers: 4, seed });
            (0..20).map(|_| twos.up_to(1000)).collect()
        };
        assert_ne!(draws(1), draws(2));
    }
}
