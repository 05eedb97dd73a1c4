//! What the algorithms that hash look up: made in the control plane of a list of destinations, and
//! read by all workers.
//!
//! ```text
//!  slot   0 1 2 3 4 5 ...     sh: weight by weight, 256    dh: one by one, 256    mh: 4093
//!  place  0 0 1 2 2 2 ...     of the destination in the list
//! ```
//!
//! The kernel's tables point to destinations, ours say places in the list that came with them. All
//! of them depend on nothing but the list, so one table is made for any number of changes.

use crate::{Candidate, Loads, dh, mh, sh};
use core::net::{IpAddr, SocketAddr};
use rvs_model::{SchedulerKind, Weight};
use std::sync::Arc;

/// What a table is made of: a destination as the control plane has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Address and port.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: Weight,
    /// Its latest weight that was not zero; zero if it never had one.
    pub last_weight: Weight,
}

/// What `-b` says to the algorithms that hash.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct HashFlags {
    /// `sh-fallback`, `mh-fallback`, `flag-1`: whoever would get an unavailable destination gets
    /// another one instead of none.
    pub fallback: bool,
    /// `sh-port`, `mh-port`, `flag-2`: the client's port counts too.
    pub port: bool,
}

/// A service's table: empty unless its algorithm hashes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    slots: Arc<[u16]>,
    flags: HashFlags,
}

impl Table {
    /// The table of `kind` for these destinations, the newest first.
    ///
    /// Cost: 256 steps for `sh` and `dh`. `mh` takes 4093 steps, each of which passes over the
    /// slots that others have already, about 35 000 altogether.
    #[must_use]
    pub fn new(kind: SchedulerKind, flags: HashFlags, dests: &[Entry]) -> Self {
        let slots = match kind {
            SchedulerKind::Sh => sh::fill(dests),
            SchedulerKind::Dh => dh::fill(dests.len()),
            SchedulerKind::Mh => mh::fill(dests),
            _ => Vec::new(),
        };
        Self { slots: slots.into(), flags }
    }

    /// What `-b` says.
    #[inline]
    #[must_use]
    pub const fn flags(&self) -> HashFlags {
        self.flags
    }

    /// The place that `slot` says, and who is there.
    #[inline]
    pub(crate) fn at<'d>(
        &self,
        dests: &'d [Candidate],
        slot: usize,
    ) -> Option<(usize, &'d Candidate)> {
        let place = usize::from(*self.slots.get(slot)?);
        Some((place, dests.get(place)?))
    }

    /// The destination of the first slot if it is eligible, else what `fallback` is asked for: for
    /// each offset from the first slot on, once around, the slot to look at.
    ///
    /// Linux 6.1 `ip_vs_sh.c` `ip_vs_sh_get_fallback()`, `ip_vs_mh.c` `ip_vs_mh_get_fallback()`.
    #[inline]
    pub(crate) fn find(
        &self,
        dests: &[Candidate],
        loads: &impl Loads,
        slot_at: impl Fn(u32) -> u32,
    ) -> Option<usize> {
        let look = |offset| {
            let (place, dest) = self.at(dests, usize::try_from(slot_at(offset)).ok()?)?;
            dest.is_eligible(loads).then_some(place)
        };
        let first = look(0);
        if first.is_some() || !self.flags.fallback {
            return first;
        }
        // The kernel goes around in vain if nobody is eligible.
        if !dests.iter().any(|dest| dest.is_eligible(loads)) {
            return None;
        }
        let around = u32::try_from(self.slots.len()).unwrap_or_default();
        let first = slot_at(0);
        (0..around).find_map(|step| look((first + step) % around))
    }

    /// How many slots lead to each of `dests` destinations.
    #[must_use]
    pub fn shares(&self, dests: usize) -> Vec<usize> {
        let mut shares = vec![0; dests];
        for place in self.slots.iter() {
            if let Some(share) = shares.get_mut(usize::from(*place)) {
                *share += 1;
            }
        }
        shares
    }
}

/// An address in 32 bits: of IPv6 the exclusive or of its four words.
#[inline]
pub(crate) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments();
            u32::from(a ^ c ^ e ^ g) << 16 | u32::from(b ^ d ^ f ^ h)
        }
    }
}

/// The highest 8 bits of a product: Linux 6.1 `include/linux/hash.h` `hash_32()`.
#[inline]
pub(crate) const fn hash_8(value: u32) -> u32 {
    value.wrapping_mul(0x61c8_8647) >> 24
}

/// Slots of `sh` and `dh` (Linux 6.1 as Debian builds it: `CONFIG_IP_VS_SH_TAB_BITS` is 8, and so
/// is `dh`'s).
pub(crate) const SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_folds_to_the_exclusive_or_of_its_words() {
        assert_eq!(fold("203.0.113.9".parse().unwrap()), 0xcb00_7109);
        let v6 = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(fold(v6), 0x2001_0db8 ^ 0x0001_0002 ^ 0x0003_0004 ^ 0x0005_0006);
    }

    #[test]
    fn an_algorithm_that_does_not_hash_has_no_table() {
        let entry = |last| Entry {
            address: core::net::SocketAddr::from(([192, 0, 2, last], 80)),
            weight: Weight(1),
            last_weight: Weight(1),
        };
        for kind in SchedulerKind::ALL {
            let table = Table::new(kind, HashFlags::default(), &[entry(1), entry(2)]);
            let hashes = matches!(kind, SchedulerKind::Sh | SchedulerKind::Dh | SchedulerKind::Mh);
            assert_eq!(table.shares(2) != [0, 0], hashes, "{kind}");
            let empty = Table::new(kind, HashFlags::default(), &[]);
            assert!(empty.slots.is_empty(), "{kind}");
        }
    }
}
