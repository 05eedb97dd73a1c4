//! Locality-based least connections with replication, `-s lblcr`.
//!
//! An address goes to the least loaded of the destinations that it went to before. When even that
//! one has more active connections than its weight while another has less than half of its own, the
//! one that `wlc` would choose joins them. When they have been the same for `lblcr_expiration`, the
//! most loaded one leaves them. Kernel: Linux 6.1 `ip_vs_lblcr.c` `ip_vs_lblcr_schedule()`,
//! `ip_vs_dest_set_min()`, `ip_vs_dest_set_max()`.
//!
//! State: the map. Cost: O(s) for s destinations of the address while one is good, else O(n).
//! Differs: a destination that was deleted for good leaves its number to the next, and with it the
//! addresses that nobody asked for since.

use crate::lblc::is_crowded;
use crate::map::{EntryId, Map};
use crate::{Candidate, Loads, Request, least, least_eligible, overhead, product};
use rvs_model::DestId;

/// What `lblcr` remembers is in the map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lblcr;

impl Lblcr {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The least loaded of the destinations that the address went to before if it is good, else the
    /// eligible one with the least load for its weight, which joins them.
    #[inline]
    pub fn pick(
        &mut self,
        dests: &[Candidate],
        map: Option<&mut Map>,
        request: &Request,
        loads: &impl Loads,
    ) -> Option<usize> {
        let least = || least_eligible(dests, loads, overhead);
        let Some(map) = map else { return least() };
        let now = request.now;
        let Some(entry) = map.find(request.vip) else {
            let place = least()?;
            map.insert(request.vip, *dests.get(place)?, place, now);
            return Some(place);
        };
        map.touch(entry, now);
        let known = least_of(map, entry, dests, loads);
        let (members, age) = map.members_len(entry, now);
        if members > 1
            && map.is_stale(age)
            && let Some(most) = most_of(map, entry, dests, loads)
        {
            map.remove(entry, most, now);
        }
        if let Some((place, dest)) = known.and_then(|place| Some((place, dests.get(place)?)))
            && !is_crowded(*dest, dests, loads)
        {
            return Some(place);
        }
        let place = least()?;
        map.add(entry, *dests.get(place)?, place, now);
        Some(place)
    }
}

/// The eligible one with the least load for its weight.
fn least_of(
    map: &mut Map,
    entry: EntryId,
    dests: &[Candidate],
    loads: &impl Loads,
) -> Option<usize> {
    let listed =
        map.members(entry, dests).filter_map(|(_, place)| Some((place?, dests.get(place?)?)));
    let eligible = listed.filter(|(_, dest)| dest.is_eligible(loads));
    least(eligible.map(|(place, dest)| (place, overhead(loads.load(dest.id)), dest.weight)))
}

/// The one with the most load for its weight that has a weight. Deleted ones take part as they were:
/// the kernel has them still.
fn most_of(
    map: &mut Map,
    entry: EntryId,
    dests: &[Candidate],
    loads: &impl Loads,
) -> Option<DestId> {
    let weighty = map.members(entry, dests).map(|(it, _)| it).filter(|it| it.weight.is_eligible());
    let costs = weighty.map(|it| (it.dest, overhead(loads.load(it.dest)), it.weight));
    let most = costs.reduce(|most, other| {
        if product(most.1, other.2) < product(other.1, most.2) { other } else { most }
    });
    most.map(|(dest, ..)| dest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, active, dests, idle, request};
    use rvs_model::{Load, Tick, ticks};

    struct At<'m>(&'m mut Map, Tick);

    impl At<'_> {
        fn pick(&mut self, list: &[Candidate], loads: &impl Loads) -> Option<usize> {
            let request = Request { now: self.1, ..request("198.51.100.7", 1, "203.0.113.1") };
            Lblcr::new().pick(list, Some(self.0), &request, loads)
        }

        fn members(&mut self) -> Vec<u32> {
            let Some(entry) = self.0.find("203.0.113.1".parse().unwrap()) else { return vec![] };
            self.0.members(entry, &[]).map(|(member, _)| member.dest.0).collect()
        }
    }

    #[test]
    fn a_second_dest_joins_when_the_first_is_crowded_and_then_both_serve() {
        let list = dests(&[(3, 2), (2, 2), (1, 8)]);
        let mut map = Map::new(10, 0);
        let mut at = At(&mut map, 0);
        assert_eq!(at.pick(&list, &idle), Some(0));
        assert_eq!(at.pick(&list, &active(&[(3, 2)])), Some(0));
        assert_eq!(at.pick(&list, &active(&[(3, 3), (2, 1)])), Some(2), "it joins");
        assert_eq!(at.members(), [1, 3]);
        assert_eq!(at.pick(&list, &active(&[(3, 1), (1, 8)])), Some(0), "the less loaded of both");
        assert_eq!(at.members(), [1, 3]);
        assert_eq!(at.pick(&list, &Overloaded(&[1])), Some(0));
        assert_eq!(at.pick(&list, &Overloaded(&[1, 3])), Some(1), "nobody else is left");
        assert_eq!(at.members(), [2, 1, 3]);
    }

    #[test]
    fn after_a_day_without_change_the_most_loaded_leaves_and_one_stays() {
        let list = dests(&[(3, 2), (2, 2), (1, 2)]);
        let mut map = Map::new(10, 0);
        let mut at = At(&mut map, 0);
        at.pick(&list, &idle);
        at.pick(&list, &active(&[(3, 3), (2, 1)]));
        assert_eq!(at.members(), [1, 3]);
        at.1 = ticks(24 * 60 * 60);
        at.pick(&list, &active(&[(1, 1)]));
        assert_eq!(at.members(), [1, 3], "not before the day is over");
        at.1 += 1;
        assert_eq!(at.pick(&list, &active(&[(1, 1), (2, 1)])), Some(0));
        assert_eq!(at.members(), [3]);
        at.1 += 2 * ticks(24 * 60 * 60);
        assert_eq!(at.pick(&list, &active(&[(3, 1), (2, 1)])), Some(0));
        assert_eq!(at.members(), [3]);
    }

    #[test]
    fn a_deleted_dest_is_not_picked_but_leaves_in_its_turn_only() {
        let list = dests(&[(3, 2), (2, 2), (1, 2)]);
        let mut map = Map::new(10, 0);
        let mut at = At(&mut map, 0);
        at.pick(&list, &idle);
        assert_eq!(at.pick(&list[1..], &idle), Some(0), "place 0 is another one now");
        assert_eq!(at.members(), [2, 3]);
        assert_eq!(at.pick(&list, &active(&[(2, 1)])), Some(0), "back again");
        at.1 = ticks(24 * 60 * 60) + 1;
        at.pick(&list[1..], &active(&[(3, 1)]));
        assert_eq!(at.members(), [2], "it had the most load");
    }

    /// Two days and a half of 300 addresses, some busy and some hardly asked for, more by day than by
    /// night, while destinations are drained and come back.
    #[test]
    fn over_simulated_days_sets_keep_their_rules() {
        let mut random = crate::tests::Random(3);
        let mut map = Map::new(1000, 1);
        let mut open: std::collections::VecDeque<(Tick, u32)> = std::collections::VecDeque::new();
        let mut counts = [0u32; 5];
        let mut list = dests(&[(4, 20), (3, 20), (2, 10), (1, 10), (0, 5)]);
        let (mut most, mut grown, mut shrunk) = (0, 0, 0);
        let minutes = 60 * 60;
        for minute in 0..minutes {
            let now = minute * ticks(60);
            (0..40).for_each(|_| map.step(now));
            if minute % 97 == 0 {
                let place = usize::try_from(random.below(5)).unwrap();
                let drained = list[place].weight == rvs_model::Weight(0);
                list[place].weight.0 = if drained { 10 } else { 0 };
            }
            let day = minute % (24 * 60) < 14 * 60;
            for _ in 0..if day { 40 } else { 4 } {
                // The higher the number the rarer: address 299 is asked for every few hours.
                let number = random.below(300).min(random.below(300)).min(random.below(300));
                let vip = core::net::Ipv4Addr::from_bits(0xc612_0000 + number).into();
                let before = map.find(vip).map(|entry| map.members_len(entry, now));
                let loads = |id: DestId| Load {
                    active: counts[usize::try_from(id.0).unwrap()],
                    inactive: 0,
                };
                let request = Request { vip, now, ..request("198.51.100.7", 1, "203.0.113.1") };
                let eligible = list.iter().any(|dest| dest.weight.is_eligible());
                let picked = Lblcr::new().pick(&list, Some(&mut map), &request, &loads);
                assert_eq!(picked.is_some(), eligible);
                let Some(place) = picked else { continue };
                let entry = map.find(vip).unwrap();
                let members: Vec<u32> =
                    map.members(entry, &list).map(|(member, _)| member.dest.0).collect();
                let id = list[place].id.0;
                let (after, _) = map.members_len(entry, now);
                assert_eq!(usize::try_from(after).unwrap(), members.len());
                let (size, age) = before.unwrap_or_default();
                assert!(after <= size + 1 && after + 1 >= size, "one at a time");
                // The kernel uses it once more if it is both the least and the most loaded.
                assert!(members.contains(&id) || after < size, "whoever is picked is in the set");
                if after < size {
                    assert!(size > 1 && age > ticks(24 * 60 * 60), "nobody leaves early");
                    shrunk += 1;
                }
                if before.is_some() && after > size {
                    assert!(members[0] == id, "the newest is the first");
                    grown += 1;
                }
                most = most.max(after);
                counts[usize::try_from(id).unwrap()] += 1;
                open.push_back((now + ticks(90), id));
            }
            while let Some((end, id)) = open.front().copied().filter(|(end, _)| *end <= now) {
                open.pop_front();
                counts[usize::try_from(id).unwrap()] -= 1;
                assert!(end <= now);
            }
        }
        assert!(map.len() <= 300 && most <= 5, "{} addresses, {most} destinations", map.len());
        assert!(grown > 100 && shrunk > 10, "{grown} joined, {shrunk} left");
    }
}
