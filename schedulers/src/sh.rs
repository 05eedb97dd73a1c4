//! Source hashing, `-s sh`.
//!
//! A client's address (and port, with `-b sh-port`) leads to one of 256 slots, and the slot to a
//! destination, so a client stays where it was. If that one is not eligible, nobody gets the
//! connection, or with `-b sh-fallback` the one of another slot does. Kernel: Linux 6.1 `ip_vs_sh.c`
//! `ip_vs_sh_schedule()`, `ip_vs_sh_reassign()`, `ip_vs_sh_get_fallback()`.
//!
//! State: none; the table is the control plane's. Cost: O(1); a fallback takes 256 steps at worst,
//! and O(n) when nobody is eligible; an update fills 256 slots.
//! Differs: nothing. Who comes after weights that add up to 256 gets nothing, as in the kernel, and
//! a change of one destination's weight moves the slots of all that come after it.
//!
//! ```text
//!  weights 2 0 3:   slot 0 1 2 3 4 5 6 7 8 ...
//!                  place 0 0 1 2 2 2 0 0 1 ...     a drained one has a slot still
//! ```

use crate::table::{Entry, SLOTS, Table, fold, hash_8};
use crate::{Candidate, Loads, Request};

/// Source hashing needs no memory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sh;

impl Sh {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The destination of the client's slot.
    #[inline]
    pub fn pick(
        &mut self,
        dests: &[Candidate],
        table: &Table,
        request: &Request,
        loads: &impl Loads,
    ) -> Option<usize> {
        let port = if table.flags().port { request.client_port } else { 0 };
        let hash = hash_8(fold(request.client).wrapping_add(port.into()));
        table.find(dests, loads, |offset| offset.wrapping_add(hash) & 0xff)
    }
}

/// The slots: each destination in turn has as many as its weight says, but at least one.
pub(crate) fn fill(dests: &[Entry]) -> Vec<u16> {
    let weight = |dest: &Entry| usize::try_from(dest.weight.0).unwrap_or(SLOTS).clamp(1, SLOTS);
    let round =
        (0..).zip(dests).flat_map(|(place, dest)| core::iter::repeat_n(place, weight(dest)));
    round.cycle().take(SLOTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::HashFlags;
    use crate::tests::{Overloaded, dests, idle, request};
    use rvs_model::{SchedulerKind, Weight};

    fn entries(list: &[Candidate]) -> Vec<Entry> {
        let entry = |dest: &Candidate| Entry {
            address: "192.0.2.1:80".parse().unwrap(),
            weight: dest.weight,
            last_weight: Weight(1),
        };
        list.iter().map(entry).collect()
    }

    fn table(list: &[Candidate], fallback: bool, port: bool) -> Table {
        Table::new(SchedulerKind::Sh, HashFlags { fallback, port }, &entries(list))
    }

    #[test]
    fn slots_follow_weights_and_a_drained_dest_has_one() {
        let slots = fill(&entries(&dests(&[(3, 2), (2, 0), (1, 3)])));
        assert_eq!(slots[..9], [0, 0, 1, 2, 2, 2, 0, 0, 1]);
        assert_eq!(slots.len(), 256);
        let slots = fill(&entries(&dests(&[(3, 200), (2, 100), (1, 100)])));
        assert!(slots[..200].iter().all(|place| *place == 0));
        assert!(slots[200..].iter().all(|place| *place == 1), "the last one starves");
        assert!(fill(&[]).is_empty());
    }

    #[test]
    fn a_client_keeps_its_dest_whatever_its_port_unless_ports_count() {
        let list = dests(&[(4, 1), (3, 1), (2, 1), (1, 1)]);
        let places = |table: &Table| -> Vec<_> {
            let pick = |port| {
                let request = request("198.51.100.7", port, "203.0.113.1");
                Sh::new().pick(&list, table, &request, &idle)
            };
            (1024..1064).map(pick).collect()
        };
        let without = places(&table(&list, false, false));
        assert!(without.iter().all(|place| *place == without[0] && place.is_some()));
        let with = places(&table(&list, false, true));
        assert!((0..4).all(|place| with.contains(&Some(place))), "{with:?}");
    }

    #[test]
    fn whoever_would_get_an_unavailable_dest_gets_none_or_the_next_with_fallback() {
        let list = dests(&[(3, 1), (2, 0), (1, 1)]);
        let (strict, lenient) = (table(&list, false, false), table(&list, true, false));
        let mut refused = 0;
        for last in 0..=255 {
            let request = request(&format!("198.51.100.{last}"), 1, "203.0.113.1");
            let plain = Sh::new().pick(&list, &strict, &request, &Overloaded(&[1]));
            let found = Sh::new().pick(&list, &lenient, &request, &Overloaded(&[1]));
            assert!(plain.is_none_or(|place| place == 0), "drained or overloaded");
            assert_eq!(found, Some(0), "the only one");
            refused += usize::from(plain.is_none());
        }
        assert!((140..200).contains(&refused), "two of three slots: {refused}");
        let everybody = Overloaded(&[1, 3]);
        let request = request("198.51.100.1", 1, "203.0.113.1");
        assert_eq!(Sh::new().pick(&list, &lenient, &request, &everybody), None);
    }
}
