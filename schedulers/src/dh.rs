//! Destination hashing, `-s dh`.
//!
//! The address that a client asks for leads to one of 256 slots, and the slot to a destination: for
//! caches in front of many addresses, which a firewall mark makes one service. Kernel: Linux 6.1
//! `ip_vs_dh.c` `ip_vs_dh_schedule()`, `ip_vs_dh_reassign()`.
//!
//! State: none; the table is the control plane's. Cost: O(1); an update fills 256 slots.
//! Differs: nothing. Weights only say who takes part, and there is no fallback.
//!
//! ```text
//!  three dests:   slot 0 1 2 3 4 5 6 ...
//!                place 0 1 2 0 1 2 0 ...
//! ```

use crate::table::{SLOTS, Table, fold, hash_8};
use crate::{Candidate, Loads, Request};

/// Destination hashing needs no memory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dh;

impl Dh {
    /// The one there is.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The destination of the slot of the address asked for.
    #[inline]
    pub fn pick(
        &mut self,
        dests: &[Candidate],
        table: &Table,
        request: &Request,
        loads: &impl Loads,
    ) -> Option<usize> {
        let slot = usize::try_from(hash_8(fold(request.vip))).ok()?;
        let (place, dest) = table.at(dests, slot)?;
        dest.is_eligible(loads).then_some(place)
    }
}

/// The slots: one for each destination in turn.
pub(crate) fn fill(dests: usize) -> Vec<u16> {
    (0..u16::try_from(dests).unwrap_or(u16::MAX)).cycle().take(SLOTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::HashFlags;
    use crate::tests::{Overloaded, dests, idle, request};
    use rvs_model::SchedulerKind;

    fn table(dests: usize) -> Table {
        let entry = crate::table::Entry {
            address: "192.0.2.1:80".parse().unwrap(),
            weight: rvs_model::Weight(1),
            last_weight: rvs_model::Weight(1),
        };
        Table::new(SchedulerKind::Dh, HashFlags::default(), &vec![entry; dests])
    }

    #[test]
    fn all_clients_of_an_address_get_one_dest_and_addresses_are_spread() {
        let list = dests(&[(3, 1), (2, 100), (1, 1)]);
        let table = table(3);
        let mut counts = [0; 3];
        for last in 0..=255 {
            let pick = |client: &str, port| {
                let request = request(client, port, &format!("203.0.113.{last}"));
                Dh::new().pick(&list, &table, &request, &idle)
            };
            let place = pick("198.51.100.7", 1);
            assert_eq!(place, pick("192.0.2.200", 999));
            counts[place.unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (60..110).contains(count)), "{counts:?}");
    }

    #[test]
    fn there_is_no_fallback() {
        let list = dests(&[(2, 0), (1, 1)]);
        let table = table(2);
        let pick = |last: u8, overloaded: &[u32]| {
            let request = request("198.51.100.7", 1, &format!("203.0.113.{last}"));
            Dh::new().pick(&list, &table, &request, &Overloaded(overloaded))
        };
        let picked: Vec<_> = (0..=255).map(|last| pick(last, &[])).collect();
        assert!(picked.contains(&None) && picked.contains(&Some(1)) && !picked.contains(&Some(0)));
        assert!((0..=255).all(|last| pick(last, &[1]).is_none()));
    }
}
