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

use crate::{Candidate, Loads, Share};

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

    /// Puts the worker's rounds a fair part of all choices ahead of those of the worker before it.
    /// The first worker's stay where they are.
    pub fn stagger(&mut self, share: Share, dests: &[Candidate]) {
        if share.worker == 0 || self.level_max == 0 {
            return;
        }
        let visits = |rounds: u32| -> u64 {
            let least = self.level_max.saturating_sub(rounds.saturating_mul(self.step));
            let of = |dest: &Candidate| dest.weight.0.saturating_sub(least) / self.step;
            dests.iter().map(|dest| u64::from(of(dest))).sum()
        };
        let rounds = (self.level_max - 1) / self.step + 1;
        let all: u64 = dests.iter().map(|dest| u64::from(dest.weight.0 / self.step)).sum();
        let ahead = all * u64::from(share.worker) / u64::from(share.workers.max(1));
        // The last round that begins no later: visits only grow.
        let (mut low, mut high) = (0, rounds);
        while low + 1 < high {
            let middle = low.midpoint(high);
            *(if visits(middle) <= ahead { &mut low } else { &mut high }) = middle;
        }
        let skip = usize::try_from(ahead.saturating_sub(visits(low))).unwrap_or(usize::MAX);
        self.level = self.level_max - low * self.step;
        let mut visited = (0..).zip(dests).filter(|(_, dest)| dest.weight.0 >= self.level);
        self.next = visited.nth(skip).map_or(0, |(place, _)| place);
    }

    /// The next in this round, or the first in the next one that visits anybody.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        if self.level_max == 0 {
            return None;
        }
        let next = usize::try_from(self.next).ok()?;
        let place = (self.reaching(dests, next, loads))
            .or_else(|| self.pick_in_later_round(dests, loads))?;
        self.next = u32::try_from(place).ok()?.checked_add(1)?;
        Some(place)
    }

    /// The first in the next round that visits anybody who is not overloaded.
    fn pick_in_later_round(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        let weights = || dests.iter().filter(|dest| dest.is_eligible(loads)).map(|it| it.weight.0);
        let Some(highest) = weights().max() else {
            // The kernel has then been through all rounds: up to where it began if that was within
            // the last round, else to the end of the list, from where the first round follows.
            if self.level > self.step || self.next == 0 {
                (self.level, self.next) = (self.level_max, 0);
            }
            return None;
        };
        let next = if self.level > self.step { self.level - self.step } else { self.level_max };
        // Levels in between visit nobody. Weights are multiples of the step.
        self.level = next.min(highest.saturating_sub(self.step - 1));
        self.reaching(dests, 0, loads)
    }

    /// The first at `from` or later that takes part in this round.
    #[inline]
    fn reaching(&self, dests: &[Candidate], from: usize, loads: &impl Loads) -> Option<usize> {
        let mut rest = (from..).zip(dests.get(from..)?);
        let reaches = |dest: &Candidate| dest.weight.0 >= self.level && dest.is_eligible(loads);
        rest.find(|(_, dest)| reaches(dest)).map(|(place, _)| place)
    }
}

/// Euclid's; 0 divides nothing and is divided by all.
pub(crate) fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, Random, dests, idle};

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

        fn pick(&mut self, dests: &[Candidate], overloaded: &[u32]) -> Option<usize> {
            if self.mw == 0 {
                return None;
            }
            let last = self.cl;
            let (mut at, mut stop, mut last_pass, mut restarted) = (last, None, false, false);
            loop {
                while at < dests.len() {
                    at += 1;
                    let dest = &dests[at - 1];
                    let is_overloaded = overloaded.contains(&dest.id.0);
                    if !is_overloaded && i64::from(dest.weight.0) >= self.cw {
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
                let overloaded: Vec<u32> = match random.below(4) {
                    0 => list.iter().map(|it| it.id.0).filter(|_| random.below(3) > 0).collect(),
                    _ => Vec::new(),
                };
                let picked = wrr.pick(&list, &Overloaded(&overloaded));
                let why = format!("seed {seed}: {list:?} but {overloaded:?}");
                assert_eq!(picked, model.pick(&list, &overloaded), "{why}");
                let state = (wrr.level, wrr.next, wrr.step);
                assert_eq!(
                    (i64::from(state.0), usize::try_from(state.1).unwrap(), i64::from(state.2)),
                    (model.cw, model.cl, model.di),
                    "{why}"
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
            counts[wrr.pick(&list, &idle).unwrap()] += 1;
        }
        assert_eq!(counts, [20, 40, 80]);
    }

    #[test]
    fn each_worker_begins_where_the_one_before_it_would_be_after_its_share() {
        for seed in 0..100 {
            let mut random = Random(seed);
            let weights: Vec<_> = (0..5).map(|id| (id, random.below(7) * 3)).collect();
            let list = dests(&weights);
            let mut first = Wrr::new();
            first.update(&list);
            let cycle: u32 = weights.iter().map(|(_, weight)| weight / first.step).sum();
            let in_order: Vec<_> = (0..2 * cycle).map(|_| first.pick(&list, &idle)).collect();
            for worker in 0..8 {
                let mut wrr = Wrr::new();
                wrr.update(&list);
                wrr.stagger(
                    Share { worker: u16::try_from(worker).unwrap(), workers: 8, seed },
                    &list,
                );
                let ahead = usize::try_from(cycle * worker / 8).unwrap();
                for at in in_order.iter().skip(ahead).take(usize::try_from(cycle).unwrap()) {
                    assert_eq!(
                        wrr.pick(&list, &idle),
                        *at,
                        "seed {seed}, worker {worker}: {list:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn weights_up_to_the_highest_cost_no_more_than_small_ones() {
        let list = dests(&[(4, 1), (3, 0x7fff_ffff), (2, u32::MAX), (1, 2)]);
        let mut wrr = Wrr::new();
        wrr.update(&list);
        // Levels above 2^31 - 1 have one visitor each; nobody can wait for two thousand million
        // picks, but nothing on the way may take longer than a walk of the list.
        for _ in 0..1_000_000 {
            assert_eq!(wrr.pick(&list, &idle), Some(2));
        }
        wrr.level = 3;
        let picks: Vec<Option<usize>> = (0..10).map(|_| wrr.pick(&list, &idle)).collect();
        let places = [1, 2, 3, 0, 1, 2, 3, 2, 2, 2].map(Some);
        assert_eq!(picks, places);
    }
}
