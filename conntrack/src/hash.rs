//! A keyed hash of what connections are looked up by.

use crate::num::{fold_multiply, high32, low16, scale};
use rvs_wire::flow::{Ends, Family, Key};

/// A hashed [`Key`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hash(u64);

impl Hash {
    /// What a bucket remembers of the key; 0 means a free way.
    #[inline]
    pub(crate) fn tag(self) -> u16 {
        low16(self.0).max(1)
    }

    /// One of `places` places, for a table beside the connections'.
    #[inline]
    #[must_use]
    pub fn place(self, places: u32) -> u32 {
        scale(self.high(), places)
    }

    /// What chooses the bucket: no bit of it is in the tag.
    #[inline]
    pub(crate) fn high(self) -> u32 {
        high32(self.0)
    }
}

/// Keys a table's hash. Whoever knows it can aim at one bucket: draw it at start.
///
/// Not CRC-32: it is linear, so that keys which collide under one seed collide under all.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub [u64; 2]);

/// Digits of pi, so that seeds of few or regular bits do no harm.
const MIX: [u64; 4] =
    [0x2437_54a8_85a3_08d3, 0xa409_3822_299f_31d1, 0x1319_8a2e_0370_7345, 0x0801_f2e2_858e_fc17];

impl Seed {
    /// Hashes `key`: two multiplications one after the other for IPv4; four for IPv6, three of them
    /// one after the other.
    ///
    /// Words are multiplied with each other, not with constants: ports that count up, multiplied
    /// with a constant, put three times as many keys into full buckets as chance would.
    #[inline(always)]
    #[must_use]
    pub fn hash<F: Family>(self, key: &Key<F>) -> Hash {
        let [a, b, c, d, e] = key.ends.words();
        let [first, second] = self.0;
        let protocol = u64::from(key.protocol);
        let all = if F::IS_V6 {
            let source = fold_multiply(a ^ first, b ^ second ^ MIX[0]);
            let destination = fold_multiply(c ^ first ^ MIX[2], d ^ second ^ MIX[3]);
            fold_multiply(source ^ destination, (e << 8 | protocol) ^ second ^ MIX[0])
        } else {
            fold_multiply(a ^ first, (b << 8 | protocol) ^ second ^ MIX[0])
        };
        Hash(fold_multiply(all ^ first, MIX[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::at;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use rvs_wire::flow::{V4, V6, protocol};

    fn address<F: Family>(number: u32) -> F::Addr {
        let v6 = Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(number));
        let any = if F::IS_V6 { IpAddr::V6(v6) } else { IpAddr::V4(Ipv4Addr::from(number)) };
        F::address(any).unwrap()
    }

    const PATTERNS: usize = 8;

    /// Keys as real traffic has them: one service, clients whose addresses, networks or ports count
    /// up, one behind the other or side by side, and the replies to them.
    fn key<F: Family>(pattern: usize, number: u32) -> Key<F> {
        let end = |host, port| (address::<F>(host), port);
        let low = |number: u32| u16::try_from(number & 0xffff).unwrap();
        let client = match pattern % 4 {
            0 => end(0xc612_0000 + number, 40_000),
            1 => end(0xc612_0000 + (number >> 16), low(number)),
            2 => end(number << 10, 40_000),
            _ => end(0xc612_0000 + number % 7, low(1024 + number / 7)),
        };
        let vip = end(0xcb00_7101, 80);
        let (source, destination) = if pattern < 4 { (client, vip) } else { (vip, client) };
        Key { ends: F::Ends::new(source, destination), protocol: protocol::TCP }
    }

    fn spreads_evenly<F: Family>(seed: Seed) {
        const KEYS: u32 = 200_000;
        const BUCKETS: u32 = KEYS / 5;
        for pattern in 0..PATTERNS {
            let (mut load, mut tags) = (vec![0_u32; at(BUCKETS)], vec![0_u32; 1 << 16]);
            for number in 0..KEYS {
                let hash = seed.hash(&key::<F>(pattern, number));
                load[at(scale(hash.high(), BUCKETS))] += 1;
                tags[usize::from(hash.tag())] += 1;
            }
            let why = format!("pattern {pattern}, {seed:?}, IPv6 {}", F::IS_V6);
            // Of balls thrown at random, 5 a bucket: 6.8 % of buckets get 9 or more, one in
            // 30 million 24 or more.
            let full = load.iter().filter(|load| **load > 8).count();
            assert!((2400..3000).contains(&full), "{full} overfull: {why}");
            assert!(load.iter().all(|load| *load < 24), "{:?}: {why}", load.iter().max());
            assert!(tags.iter().all(|tag| *tag < 24), "{:?}: {why}", tags.iter().max());
            assert_eq!(tags[0], 0, "0 means a free way");
        }
    }

    #[test]
    fn counting_clients_spread_like_random_ones_whatever_the_seed() {
        for seed in
            [[0, 0], [1, 0], [0, 1], [u64::MAX; 2], [0x5555_5555_5555_5555; 2], [1 << 63, 9]]
        {
            spreads_evenly::<V4>(Seed(seed));
            spreads_evenly::<V6>(Seed(seed));
        }
    }

    #[test]
    fn keys_that_collide_under_one_seed_do_not_under_another() {
        let [a, b] = [Seed([1, 2]), Seed([3, 4])];
        let bucket = |seed: Seed, number: u32| seed.hash(&key::<V4>(0, number)).high() >> 16;
        let first = bucket(a, 0);
        let together: Vec<u32> = (0..4_000_000).filter(|n| bucket(a, *n) == first).collect();
        assert!(together.len() > 30);
        let mut elsewhere: Vec<u32> = together.iter().map(|number| bucket(b, *number)).collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        assert!(elsewhere.len() * 10 > together.len() * 9, "{elsewhere:?}");
    }

    #[test]
    fn the_protocol_is_part_of_the_key() {
        let key = key::<V6>(0, 1);
        let other = Key { protocol: protocol::UDP, ..key };
        assert_ne!(Seed([0, 0]).hash(&key), Seed([0, 0]).hash(&other));
    }
}
