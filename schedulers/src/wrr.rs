//! Weighted round robin, `-s wrr`.
//!
//! Rounds at a falling level: from the highest weight down in steps of the weights' greatest common
//! divisor, each round visits those whose weight reaches its level, and after the lowest level the
//! highest comes again. Kernel: Linux 6.1 `ip_vs_wrr.c` `ip_vs_wrr_schedule()`,
//! `ip_vs_wrr_dest_changed()`.
//!
//! State: who was chosen last, the level, the highest level, the step. Cost: O(n), whatever the
//! weights; an update is O(n) with a greatest common divisor for each.
//! Differs: nothing.
//!
//! ```text
//!  weights 4 2 6, step 2:   level 5: 6        highest level = highest weight - (step - 1)
//!                           level 3: 4 6
//!                           level 1: 4 2 6
//! ```

use crate::Candidate;
use rvs_model::{DestId, Load};

/// Where the rounds of one service stand on this worker.
#[derive(Clone, Copy, Debug)]
pub struct Wrr {
    /// Where this round goes on: the place after the one chosen last.
    next: u32,
    /// The weight that takes part in this round. It is 1 more than a multiple of `step`.
    level: u32,
    /// The first level; 0 if nobody has a weight.
    level_max: u32,
    /// The greatest common divisor of all weights but 0.
    step: u32,
}

impl Default for Wrr {
    fn default() -> Self {
        Self::new()
    }
}

impl Wrr {
    /// Before the first round.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0, level: 0, level_max: 0, step: 1 }
    }

    /// Starts a round over, at a level near the one it was at.
    pub fn update(&mut self, dests: &[Candidate]) {
        let weights = || dests.iter().map(|dest| dest.weight.0);
        self.next = 0;
        self.step = weights().fold(0, gcd).max(1);
        self.level_max = (weights().max().unwrap_or_default()).saturating_sub(self.step - 1);
        if self.level > self.level_max || self.level == 0 {
            self.level = self.level_max;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }

    /// The next in this round, or the first in the next one that visits anybody.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], _: impl Fn(DestId) -> Load) -> Option<usize> {
        if self.level_max == 0 {
            return None;
        }
        let next = usize::try_from(self.next).ok()?;
        let place = self.reaching(dests, next).or_else(|| self.pick_in_next_round(dests))?;
        self.next = u32::try_from(place).ok()?.checked_add(1)?;
        Some(place)
    }

    /// The first in the next round: there is one, since whoever has the highest weight takes part in
    /// every round.
    fn pick_in_next_round(&mut self, dests: &[Candidate]) -> Option<usize> {
        self.level = if self.level > self.step { self.level - self.step } else { self.level_max };
        self.reaching(dests, 0)
    }

    /// The first at `from` or later that takes part in this round.
    #[inline]
    fn reaching(&self, dests: &[Candidate], from: usize) -> Option<usize> {
        let mut rest = (from..).zip(dests.get(from..)?);
        let (place, _) =
            rest.find(|(_, dest)| dest.is_eligible() && dest.weight.0 >= self.level)?;
        Some(place)
    }
}

/// Euclid's; 0 divides nothing and is divided by all.
fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Random, dests, idle};

    /// The kernel's rules step by step, and how many destinations it looks at.
    struct Stepwise {
        /// 0 is the head of the list; the destination at place `p` is `p + 1`.
        cl: usize,
        cw: i64,
        mw: i64,
        di: i64,
    }

    impl Stepwise {
        fn update(&mut self, dests: &[Candidate]) {
            let weights = || dests.iter().map(|dest| i64::from(dest.weight.0));
            let divides = |di: i64| weights().all(|weight| weight % di == 0);
            let mw = weights().max().unwrap_or(0);
            self.cl = 0;
            self.di = (1..=mw).rev().find(|di| divides(*di)).unwrap_or(1);
            self.mw = mw - (self.di - 1);
            if self.cw > self.mw || self.cw == 0 {
                self.cw = self.mw;
            } else if self.di > 1 {
                self.cw = self.cw / self.di * self.di + 1;
            }
        }

        fn pick(&mut self, dests: &[Candidate]) -> Option<usize> {
            if self.mw == 0 {
                return None;
            }
            let last = self.cl;
            let (mut at, mut stop, mut last_pass, mut restarted) = (last, None, false, false);
            loop {
                while at < dests.len() {
                    at += 1;
                    let dest = &dests[at - 1];
                    if i64::from(dest.weight.0) >= self.cw {
                        self.cl = at;
                        return Some(at - 1);
                    }
                    if Some(at) == stop {
                        self.cl = at;
                        return None;
                    }
                }
                at = 0;
                self.cw -= self.di;
                if self.cw <= 0 {
                    self.cw = self.mw;
                    if last_pass || last == 0 {
                        self.cl = 0;
                        return None;
                    }
                    restarted = true;
                }
                last_pass = self.cw <= self.di;
                if last_pass && restarted && last != 0 {
                    stop = Some(last);
                }
            }
        }
    }

    fn stepwise() -> Stepwise {
        Stepwise { cl: 0, cw: 0, mw: 0, di: 1 }
    }

    #[test]
    fn wrr_picks_as_the_kernels_rules_do_step_by_step_while_the_list_changes() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let (mut wrr, mut model) = (Wrr::new(), stepwise());
            let mut list: Vec<Candidate> = Vec::new();
            for number in 0..400 {
                if random.below(8) == 0 {
                    let scale = [1, 1, 2, 5][usize::try_from(random.below(4)).unwrap()];
                    let weight = random.below(9) * scale;
                    let place = usize::try_from(random.below(6)).unwrap();
                    match random.below(3) {
                        0 => list.insert(0, dests(&[(number, weight)])[0]),
                        1 if place < list.len() => list[place].weight.0 = weight,
                        _ if place < list.len() => drop(list.remove(place)),
                        _ => {}
                    }
                    wrr.update(&list);
                    model.update(&list);
                }
                let picked = wrr.pick(&list, idle);
                assert_eq!(picked, model.pick(&list), "seed {seed}: {list:?}");
                let state = (wrr.level, wrr.next, wrr.step);
                assert_eq!(
                    (i64::from(state.0), usize::try_from(state.1).unwrap(), i64::from(state.2)),
                    (model.cw, model.cl, model.di),
                    "seed {seed}: {list:?}"
                );
            }
        }
    }

    #[test]
    fn a_round_gives_each_dest_its_weight_divided_by_the_step() {
        let list = dests(&[(3, 25), (2, 50), (1, 100)]);
        let mut wrr = Wrr::new();
        wrr.update(&list);
        let mut counts = [0; 3];
        for _ in 0..7 * 20 {
            counts[wrr.pick(&list, idle).unwrap()] += 1;
        }
        assert_eq!(counts, [20, 40, 80]);
    }

    #[test]
    fn weights_up_to_the_highest_cost_no_more_than_small_ones() {
        let list = dests(&[(4, 1), (3, 0x7fff_ffff), (2, u32::MAX), (1, 2)]);
        let mut wrr = Wrr::new();
        wrr.update(&list);
        // Levels above 2^31 - 1 have one visitor each; nobody can wait for two thousand million
        // picks, but nothing on the way may take longer than a walk of the list.
        for _ in 0..1_000_000 {
            assert_eq!(wrr.pick(&list, idle), Some(2));
        }
        wrr.level = 3;
        let picks: Vec<Option<usize>> = (0..10).map(|_| wrr.pick(&list, idle)).collect();
        let places = [1, 2, 3, 0, 1, 2, 3, 2, 2, 2].map(Some);
        assert_eq!(picks, places);
    }
}
