//! Locality-based least connections, `-s lblc`.
//!
//! An address goes to the destination that it went to before, so that this one has it in its cache,
//! unless that one has more active connections than its weight while another has less than half of
//! its own. New addresses go where `wlc` sends them. For caches in front of many addresses, which a
//! firewall mark makes one service. Kernel: Linux 6.1 `ip_vs_lblc.c` `ip_vs_lblc_schedule()`.
//!
//! State: the map. Cost: O(1) while the destination is good, else O(n).
//! Differs: a destination that was deleted for good leaves its number to the next, and with it the
//! addresses that nobody asked for since. The kernel compares its own counter of entries, which
//! counts those that changed their destination twice.

use crate::map::Map;
use crate::{Candidate, Loads, Request, least_eligible, overhead};

/// What `lblc` remembers is in the map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lblc;

impl Lblc {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The destination that the address went to before if it is good, else the eligible one with the
    /// least load for its weight.
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
        // The kernel does not look at thresholds here.
        let known = map.members(entry, dests).next();
        if let Some((_, Some(place))) = known
            && let Some(dest) = dests.get(place).filter(|dest| dest.weight.is_eligible())
            && !is_crowded(*dest, dests, loads)
        {
            return Some(place);
        }
        let place = least()?;
        if let Some((before, _)) = known {
            map.remove(entry, before.dest, now);
        }
        map.add(entry, *dests.get(place)?, place, now);
        Some(place)
    }
}

/// Whether a destination has more active connections than its weight while another has less than
/// half of its own.
pub(crate) fn is_crowded(dest: Candidate, dests: &[Candidate], loads: &impl Loads) -> bool {
    let active = |dest: &Candidate| u64::from(loads.load(dest.id).active);
    active(&dest) > dest.weight.0.into()
        && dests.iter().any(|other| active(other) * 2 < other.weight.0.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Overloaded, active, dests, idle, request};

    fn pick(map: &mut Map, list: &[Candidate], vip: u8, loads: &impl Loads) -> Option<usize> {
        let request = request("198.51.100.7", 1, &format!("203.0.113.{vip}"));
        Lblc::new().pick(list, Some(map), &request, loads)
    }

    #[test]
    fn an_address_stays_where_it_was_until_that_one_is_crowded() {
        let (list, mut map) = (dests(&[(2, 4), (1, 4)]), Map::new(10, 0));
        assert_eq!(pick(&mut map, &list, 1, &idle), Some(0));
        assert_eq!(pick(&mut map, &list, 1, &active(&[(2, 4)])), Some(0), "not above its weight");
        assert_eq!(pick(&mut map, &list, 1, &active(&[(2, 9), (1, 2)])), Some(0), "nobody is free");
        assert_eq!(pick(&mut map, &list, 1, &active(&[(2, 5), (1, 1)])), Some(1));
        assert_eq!(pick(&mut map, &list, 1, &active(&[(1, 1)])), Some(1), "and stays there");
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn a_drained_or_deleted_dest_loses_its_addresses() {
        let (list, mut map) = (dests(&[(3, 4), (2, 4), (1, 4)]), Map::new(10, 0));
        assert_eq!(pick(&mut map, &list, 1, &idle), Some(0));
        assert_eq!(pick(&mut map, &dests(&[(3, 0), (2, 4), (1, 4)]), 1, &idle), Some(1));
        assert_eq!(pick(&mut map, &dests(&[(3, 4), (1, 4)]), 1, &idle), Some(0));
        assert_eq!(pick(&mut map, &list, 1, &idle), Some(0));
        assert_eq!(pick(&mut map, &[], 1, &idle), None);
    }

    #[test]
    fn thresholds_count_for_new_addresses_only() {
        let (list, mut map) = (dests(&[(2, 4), (1, 4)]), Map::new(10, 0));
        assert_eq!(pick(&mut map, &list, 1, &idle), Some(0));
        assert_eq!(pick(&mut map, &list, 1, &Overloaded(&[2])), Some(0));
        assert_eq!(pick(&mut map, &list, 2, &Overloaded(&[2])), Some(1));
    }

    #[test]
    fn without_room_it_is_wlc() {
        let (list, mut map) = (dests(&[(2, 1), (1, 1)]), Map::new(1, 0));
        assert_eq!(pick(&mut map, &list, 1, &idle), Some(0));
        for (busy, place) in [(2, 1), (1, 0), (2, 1)] {
            assert_eq!(pick(&mut map, &list, 2, &active(&[(busy, 1)])), Some(place));
        }
        let request = request("198.51.100.7", 1, "203.0.113.1");
        assert_eq!(Lblc::new().pick(&list, None, &request, &active(&[(2, 1)])), Some(1));
    }
}
