//! Maglev hashing, `-s mh`.
//!
//! A client's address (and port, with `-b mh-port`) leads to one of 4093 slots, and the slot to a
//! destination. The table is filled so that slots are shared as weights say, and few of them change
//! hands when a destination comes or goes. If the one found is not eligible, nobody gets the
//! connection, or with `-b mh-fallback` the one of another slot does. Kernel: Linux 6.1 `ip_vs_mh.c`
//! `ip_vs_mh_schedule()`, `ip_vs_mh_permutate()`, `ip_vs_mh_populate()`; the idea is section 3.4 of
//! "Maglev" (NSDI 2016).
//!
//! State: none; the table is the control plane's. Cost: O(1), one hash of 4 octets; a fallback takes
//! 4093 hashes at worst, which needs a table of whose slots one is eligible, and O(n) when nobody
//! is; an update takes about 35 000 steps.
//! Differs: the kernel keeps its old table when there are more than 4093 destinations; ours is made
//! of the 4093 oldest, which is the same until one of these goes.
//!
//! ```text
//!  each dest's own order of all slots:    offset, offset + skip, offset + 2 skip, ... (mod 4093)
//!  round after round each dest takes as many of its next free slots as it has turns
//! ```

use crate::table::{Entry, Table, fold};
use crate::{Candidate, Loads, Request};
use siphasher::sip::SipHasher13;

/// Slots: a prime (Linux 6.1 `ip_vs_mh.c` `primes[]`; Debian's `CONFIG_IP_VS_MH_TAB_INDEX` is 12).
const SLOTS: u32 = 4093;
/// Weights have at most so many bits (Linux 6.1 `ip_vs_mh.c` `IP_VS_MH_TAB_BITS`).
const WEIGHT_BITS: u32 = 6;
/// Keys of the two hashes (Linux 6.1 `ip_vs_mh.c` `generate_hash_secret()`). Directors that know the
/// same destinations in the same order agree.
const OFFSET_KEY: u64 = 2_654_435_761;
const SKIP_KEY: u64 = 2_654_446_892;

/// Maglev hashing needs no memory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mh;

impl Mh {
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
        let key = fold(request.client).wrapping_add(port.into());
        table.find(dests, loads, |offset| hash(OFFSET_KEY, key.wrapping_add(offset)) % SLOTS)
    }
}

/// The kernel's `hsiphash()` on a machine of 64 bits: the low half of `SipHash-1-3`.
#[inline]
fn hash(key: u64, value: u32) -> u32 {
    let hash = SipHasher13::new_with_keys(key, key).hash(&value.to_le_bytes());
    let [a, b, c, d, ..] = hash.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A destination while the table is filled.
struct Filling {
    place: u16,
    /// Its next slot, which may be taken already.
    next: u32,
    skip: u32,
    /// Slots that it takes in a round.
    turns: u32,
}

/// The slots; none if nobody ever had a weight.
pub(crate) fn fill(dests: &[Entry]) -> Vec<u16> {
    let all = usize::try_from(SLOTS).unwrap_or(usize::MAX);
    let dropped = dests.len().saturating_sub(all);
    let dests = dests.get(dropped..).unwrap_or_default();
    let weights = || dests.iter().map(|dest| dest.last_weight.0);
    let divisor = weights().fold(0, crate::wrr::gcd);
    if divisor == 0 {
        return Vec::new();
    }
    let highest = weights().max().unwrap_or_default() / divisor;
    let shift = (u32::BITS - highest.leading_zeros()).saturating_sub(WEIGHT_BITS);
    let filling = |(place, dest): (usize, &Entry)| {
        let weight = dest.last_weight.0;
        let turns = ((weight / divisor) >> shift).max(u32::from(weight != 0));
        let address = fold(dest.address.ip()).wrapping_add(dest.address.port().into());
        Some(Filling {
            place: u16::try_from(dropped + place).ok()?,
            next: hash(OFFSET_KEY, address) % SLOTS,
            skip: hash(SKIP_KEY, address) % (SLOTS - 1) + 1,
            turns,
        })
    };
    let mut filling: Vec<Filling> =
        dests.iter().enumerate().filter_map(filling).filter(|it| it.turns > 0).collect();
    let mut slots = vec![None; all];
    let mut free = all;
    while free > 0 && !filling.is_empty() {
        for dest in &mut filling {
            for _ in 0..dest.turns {
                if free == 0 {
                    break;
                }
                take(&mut slots, dest);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// Takes the next free slot in the destination's order; there must be one.
fn take(slots: &mut [Option<u16>], dest: &mut Filling) {
    for _ in 0..SLOTS {
        let slot = usize::try_from(dest.next).ok().and_then(|at| slots.get_mut(at));
        if let Some(free @ None) = slot {
            *free = Some(dest.place);
            return;
        }
        dest.next = (dest.next + dest.skip) % SLOTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::HashFlags;
    use crate::tests::{Overloaded, dests, idle, request};
    use rvs_model::{SchedulerKind, Weight};

    fn entries(weights: &[u32]) -> Vec<Entry> {
        let entry = |(last, weight): (u8, &u32)| Entry {
            address: ([192, 0, 2, last], 80).into(),
            weight: Weight(*weight),
            last_weight: Weight(*weight),
        };
        (11..).zip(weights).map(entry).collect()
    }

    fn shares(weights: &[u32]) -> Vec<usize> {
        let table = Table::new(SchedulerKind::Mh, HashFlags::default(), &entries(weights));
        table.shares(weights.len())
    }

    /// Aumasson and Bernstein's `SipHash` with 1 and 3 rounds, of 4 octets, step by step.
    fn siphash_1_3(key: u64, value: u32) -> u64 {
        let [v0, v1] = [key ^ 0x736f_6d65_7073_6575, key ^ 0x646f_7261_6e64_6f6d];
        let [v2, v3] = [key ^ 0x6c79_6765_6e65_7261, key ^ 0x7465_6462_7974_6573];
        let round = |v: &mut [u64; 4]| {
            v[0] = v[0].wrapping_add(v[1]);
            v[2] = v[2].wrapping_add(v[3]);
            v[1] = v[1].rotate_left(13) ^ v[0];
            v[3] = v[3].rotate_left(16) ^ v[2];
            v[0] = v[0].rotate_left(32).wrapping_add(v[3]);
            v[2] = v[2].wrapping_add(v[1]);
            v[1] = v[1].rotate_left(17) ^ v[2];
            v[3] = v[3].rotate_left(21) ^ v[0];
            v[2] = v[2].rotate_left(32);
        };
        let word = 4 << 56 | u64::from(value);
        let mut v = [v0, v1, v2, v3];
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
        v[2] ^= 0xff;
        (0..3).for_each(|_| round(&mut v));
        v.iter().fold(0, |hash, it| hash ^ it)
    }

    #[test]
    fn the_hash_is_the_low_half_of_siphash_1_3() {
        for value in [0, 1, 0x0102_0304, 0xcb00_7109, u32::MAX] {
            let expected = siphash_1_3(OFFSET_KEY, value) & u64::from(u32::MAX);
            assert_eq!(u64::from(hash(OFFSET_KEY, value)), expected);
        }
    }

    #[test]
    fn slots_are_shared_as_weights_say_within_a_round() {
        let shares = shares(&[1, 2, 0, 4]);
        assert_eq!(shares.iter().sum::<usize>(), 4093);
        for (share, weight) in shares.iter().zip([1, 2, 0, 4]) {
            assert!(share.abs_diff(4093 * weight / 7) <= weight, "{shares:?}");
        }
    }

    #[test]
    fn high_weights_lose_their_lowest_bits_but_nobody_all_slots() {
        // 1000 has 10 bits and keeps 6: 62 turns against 1.
        let shares = shares(&[1000, 1]);
        assert!(shares[1].abs_diff(4093 / 63) <= 1, "{shares:?}");
        // A common divisor does not count.
        assert_eq!(super::tests::shares(&[7000, 7]), shares);
    }

    #[test]
    fn without_a_weight_ever_there_is_nobody() {
        assert!(fill(&entries(&[0, 0])).is_empty());
        assert!(fill(&[]).is_empty());
    }

    #[test]
    fn draining_refuses_the_dests_own_clients_and_moves_nobody_elses() {
        let before = dests(&[(3, 1), (2, 1), (1, 1)]);
        let after = dests(&[(3, 1), (2, 0), (1, 1)]);
        let entries = entries(&[1, 1, 1]);
        let flags = |fallback| HashFlags { fallback, port: false };
        let strict = Table::new(SchedulerKind::Mh, flags(false), &entries);
        let lenient = Table::new(SchedulerKind::Mh, flags(true), &entries);
        for last in 0..=255 {
            let request = request(&format!("198.51.100.{last}"), 1, "203.0.113.1");
            let was = Mh::new().pick(&before, &strict, &request, &idle);
            let is = Mh::new().pick(&after, &strict, &request, &idle);
            assert_eq!(is, was.filter(|place| *place != 1));
            let found = Mh::new().pick(&after, &lenient, &request, &Overloaded(&[3]));
            assert_eq!(found, Some(2));
            assert_eq!(Mh::new().pick(&after, &lenient, &request, &Overloaded(&[3, 1])), None);
        }
    }

    #[test]
    fn more_dests_than_slots_leave_the_newest_without() {
        let weights = vec![1; 4100];
        let slots = fill(&entries_many(&weights));
        assert_eq!(slots.len(), 4093);
        assert!(slots.iter().all(|place| *place >= 7));
    }

    fn entries_many(weights: &[u32]) -> Vec<Entry> {
        let entry = |(number, weight): (u32, &u32)| Entry {
            address: (core::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 80).into(),
            weight: Weight(*weight),
            last_weight: Weight(*weight),
        };
        (0..).zip(weights).map(entry).collect()
    }
}
