//! Round robin, `-s rr`.
//!
//! Each new connection goes to the destination after the one before it. Weights only say who takes
//! part. Kernel: Linux 6.1 `ip_vs_rr.c` `ip_vs_rr_schedule()`, `ip_vs_rr_del_dest()`.
//!
//! State: who was chosen last. Cost: O(1) while all are eligible, O(n) at worst; an update is O(n).
//! Differs: nothing.

use crate::{Candidate, Loads, Share};
use rvs_model::DestId;

/// Where the round of one service stands on this worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rr {
    last: Option<Last>,
}

/// Who was chosen last, and its place in the list.
#[derive(Clone, Copy, Debug)]
struct Last {
    id: DestId,
    place: u32,
}

impl Last {
    fn new(place: usize, dest: Candidate) -> Option<Self> {
        Some(Self { id: dest.id, place: u32::try_from(place).ok()? })
    }
}

impl Rr {
    /// Before the first round.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None }
    }

    /// Finds the one chosen last again. If it was removed, the one before it counts as chosen last.
    pub fn update(&mut self, dests: &[Candidate]) {
        self.last = self.last.and_then(|last| {
            let place = dests.iter().position(|dest| dest.id == last.id).or_else(|| {
                let before = usize::try_from(last.place).ok()?.checked_sub(1)?;
                Some(before.min(dests.len().checked_sub(1)?))
            })?;
            Last::new(place, *dests.get(place)?)
        });
    }

    /// Before the first choice, puts the worker's round a fair way ahead of the one before it.
    pub fn stagger(&mut self, share: Share, dests: &[Candidate]) {
        if self.last.is_none() {
            let ahead = dests.len() * usize::from(share.worker) / usize::from(share.workers.max(1));
            self.last = ahead.checked_sub(1).and_then(|place| Last::new(place, *dests.get(place)?));
        }
    }

    /// The next eligible destination after the one chosen last.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], loads: &impl Loads) -> Option<usize> {
        let place = self.last.and_then(|last| usize::try_from(last.place).ok());
        let start = place.map_or(0, |place| place.saturating_add(1)).min(dests.len());
        // Nearly always it is the very next one.
        let next = if start < dests.len() { start } else { 0 };
        let dest = *dests.get(next)?;
        if dest.is_eligible(loads) {
            self.last = Last::new(next, dest);
            return Some(next);
        }
        self.pick_later(start, dests, loads)
    }

    #[cold]
    fn pick_later(
        &mut self,
        start: usize,
        dests: &[Candidate],
        loads: &impl Loads,
    ) -> Option<usize> {
        let (before, after) = dests.split_at_checked(start)?;
        let mut round = (start..).zip(after).chain((0..).zip(before));
        let (place, dest) = round.find(|(_, dest)| dest.is_eligible(loads))?;
        self.last = Last::new(place, *dest);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, dests, idle};

    fn picks(rr: &mut Rr, dests: &[Candidate], count: usize) -> Vec<u32> {
        (0..count).map(|_| dests[rr.pick(dests, &idle).unwrap()].id.0).collect()
    }

    #[test]
    fn rr_visits_each_eligible_dest_once_per_round() {
        let list = dests(&[(4, 1), (3, 0), (2, 7), (1, 2)]);
        let mut rr = Rr::new();
        rr.update(&list);
        assert_eq!(picks(&mut rr, &list, 7), [4, 2, 1, 4, 2, 1, 4]);
    }

    #[test]
    fn a_dest_added_in_front_waits_for_the_next_round() {
        let mut rr = Rr::new();
        let before = dests(&[(3, 1), (2, 1), (1, 1)]);
        assert_eq!(picks(&mut rr, &before, 2), [3, 2]);
        let after = dests(&[(4, 1), (3, 1), (2, 1), (1, 1)]);
        rr.update(&after);
        assert_eq!(picks(&mut rr, &after, 5), [1, 4, 3, 2, 1]);
    }

    #[test]
    fn the_round_goes_on_after_the_place_of_a_removed_dest() {
        let mut rr = Rr::new();
        let before = dests(&[(4, 1), (3, 1), (2, 1), (1, 1)]);
        assert_eq!(picks(&mut rr, &before, 2), [4, 3]);
        let after = dests(&[(4, 1), (2, 1), (1, 1)]);
        rr.update(&after);
        assert_eq!(picks(&mut rr, &after, 4), [2, 1, 4, 2]);
        let mut rr = Rr::new();
        assert_eq!(picks(&mut rr, &before, 1), [4]);
        rr.update(&before[1..]);
        assert_eq!(picks(&mut rr, &before[1..], 1), [3], "the first was removed: start over");
    }

    #[test]
    fn an_overloaded_dest_is_passed_over() {
        let list = dests(&[(3, 1), (2, 1), (1, 1)]);
        let mut rr = Rr::new();
        let mut pick = |overloaded: &[u32]| rr.pick(&list, &Overloaded(overloaded));
        assert_eq!([pick(&[3]), pick(&[3]), pick(&[3]), pick(&[])], [1, 2, 1, 2].map(Some));
        assert_eq!(pick(&[1, 2, 3]), None);
    }

    #[test]
    fn four_workers_begin_with_four_dests() {
        let list = dests(&[(4, 1), (3, 1), (2, 1), (1, 1)]);
        let begin = |worker| {
            let mut rr = Rr::new();
            rr.stagger(Share { worker, workers: 4, seed: 0 }, &list);
            picks(&mut rr, &list, 1)[0]
        };
        assert_eq!([0, 1, 2, 3].map(begin), [4, 3, 2, 1]);
    }

    #[test]
    fn a_list_that_shrank_unannounced_is_no_danger() {
        let mut rr = Rr::new();
        let list = dests(&[(3, 1), (2, 1), (1, 1)]);
        assert_eq!(picks(&mut rr, &list, 3), [3, 2, 1]);
        assert_eq!(picks(&mut rr, &list[..1], 2), [3, 3]);
        assert_eq!(rr.pick(&[], &idle), None);
        rr.update(&[]);
        assert_eq!(rr.pick(&[], &idle), None);
    }
}
