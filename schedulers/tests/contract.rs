//! All schedulers through the same claims.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use rvs_model::{DestId, Load, SchedulerKind, Weight};
use rvs_schedulers::{Candidate, Scheduler};
use std::collections::HashMap;

/// Steele and Vigna's `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, range: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % u64::try_from(range).unwrap()).unwrap()
    }
}

/// A service on one worker: the list, the scheduler, and who has how many connections.
struct Service {
    dests: Vec<Candidate>,
    scheduler: Scheduler,
    loads: HashMap<DestId, Load>,
    ids: u32,
}

impl Service {
    fn new(kind: SchedulerKind, weights: &[u32]) -> Self {
        let scheduler = Scheduler::new(kind);
        let mut service = Self { dests: Vec::new(), scheduler, loads: HashMap::new(), ids: 0 };
        for weight in weights {
            service.add(*weight);
        }
        service
    }

    fn add(&mut self, weight: u32) {
        self.ids += 1;
        self.dests.insert(0, Candidate { id: DestId(self.ids), weight: Weight(weight) });
        self.scheduler.update(&self.dests);
    }

    fn remove(&mut self, place: usize) {
        self.dests.remove(place);
        self.scheduler.update(&self.dests);
    }

    fn edit(&mut self, place: usize, weight: u32) {
        self.dests[place].weight = Weight(weight);
        self.scheduler.update(&self.dests);
    }

    /// Picks and opens an active connection there.
    fn open(&mut self) -> Option<Candidate> {
        let load = |id: DestId| self.loads.get(&id).copied().unwrap_or_default();
        let dest = self.dests[self.scheduler.pick(&self.dests, load)?];
        self.loads.entry(dest.id).or_default().active += 1;
        Some(dest)
    }

    fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = HashMap::new();
        for _ in 0..picks {
            *counts.entry(self.open().unwrap().id).or_insert(0) += 1;
        }
        self.dests.iter().map(|dest| counts.get(&dest.id).copied().unwrap_or(0)).collect()
    }
}

const fn is_weighted(kind: SchedulerKind) -> bool {
    match kind {
        SchedulerKind::Rr | SchedulerKind::Lc => false,
        SchedulerKind::Wrr | SchedulerKind::Wlc => true,
    }
}

#[test]
fn nobody_is_picked_of_none() {
    for kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &[]);
        assert_eq!(service.open(), None, "{kind}");
        service.add(1);
        service.remove(0);
        assert_eq!(service.open(), None, "{kind}");
    }
}

#[test]
fn a_drained_dest_is_never_picked_and_none_only_if_all_are_drained() {
    for kind in SchedulerKind::ALL {
        for seed in 0..50 {
            let mut random = Random(seed);
            let mut service = Service::new(kind, &[]);
            for step in 0..2000 {
                let place = random.below(service.dests.len().max(1));
                let weight = [0, 0, 1, 2, 3, 100, 65_535, 0x7fff_ffff][random.below(8)];
                match random.below(40) {
                    0 => service.add(weight),
                    1 if place < service.dests.len() => service.edit(place, weight),
                    2 if place < service.dests.len() => service.remove(place),
                    _ => {}
                }
                let eligible = service.dests.iter().any(Candidate::is_eligible);
                let picked = service.open();
                let why = format!("{kind}, seed {seed}, step {step}: {:?}", service.dests);
                assert_eq!(picked.is_some(), eligible, "{why}");
                assert!(picked.is_none_or(|dest| dest.weight.is_eligible()), "{why}");
            }
        }
    }
}

#[test]
fn shares_are_fair_within_one_round() {
    let weights = [3, 1, 0, 2, 4, 30, 7];
    let total = weights.iter().sum::<u32>();
    for kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &weights);
        let (picks, rounds) = (total * 100, 100);
        let counts = service.counts(usize::try_from(picks).unwrap());
        for (count, dest) in counts.iter().zip(&service.dests) {
            let fair = match (is_weighted(kind), dest.weight.0) {
                (_, 0) => 0,
                (true, weight) => weight * rounds,
                (false, _) => picks / 6,
            };
            let off = count.abs_diff(usize::try_from(fair).unwrap());
            assert!(off <= 1, "{kind}: {count} connections for {dest:?}, fair is {fair}");
        }
    }
}

#[test]
fn after_a_change_shares_are_fair_again_among_those_that_are_there() {
    for kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &[1, 1, 1, 1]);
        service.counts(41);
        service.remove(1);
        service.add(1);
        service.edit(2, 0);
        service.loads.clear();
        let counts = service.counts(300);
        assert_eq!(counts[2], 0, "{kind}");
        for place in [0, 1, 3] {
            assert!(counts[place].abs_diff(100) <= 1, "{kind}: {counts:?}");
        }
    }
}

#[test]
fn an_edit_that_changes_nothing_keeps_shares_fair() {
    for kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &[2, 2, 2]);
        for _ in 0..100 {
            service.counts(3);
            service.edit(1, 2);
        }
        let most = service.loads.values().map(|load| load.active).max().unwrap();
        assert!(most <= 101, "{kind}: {:?}", service.loads);
    }
}
