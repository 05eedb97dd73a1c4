//! The hash by which network cards spread flows over queues (receive-side scaling).
//!
//! Input octets come in the order of [`Ends4`] and [`Ends6`]: source address, destination address,
//! source port, destination port, with later ones left out as the card is told. Each bit that is
//! set adds (without carries) the 32 bits of the key that begin at its own place; here an octet at
//! a time is looked up, because a hash is linear: the hash of a sum is the sum of hashes.
//!
//! Microsoft, "Verifying the RSS Hash Calculation" has the vectors that the tests check.

use crate::flow::{Ends4, Ends6};

/// Octets of the longest input: IPv6 addresses and ports.
pub const INPUT_MAX: usize = 36;
/// Octets of a key that reach so far: 32 bits from the last bit of the input on.
pub const KEY_LEN: usize = INPUT_MAX + 4;

/// The key of Microsoft's specification, which most cards start with.
pub const DEFAULT_KEY: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A key that repeats after 16 bits, so that both directions of a connection have one hash and an
/// address alone has the same one as source and as destination (Woo and Park, "Scalable TCP Session
/// Monitoring with Symmetric Receive-side Scaling", 2012).
pub const SYMMETRIC_KEY: [u8; KEY_LEN] = symmetric();

/// The same for cards whose keys are longer.
pub const SYMMETRIC_KEY_52: [u8; 52] = symmetric();

#[expect(clippy::indexing_slicing, reason = "const: an index out of bounds does not compile")]
const fn symmetric<const N: usize>() -> [u8; N] {
    let mut key = [0x6d; N];
    let mut at = 1;
    while at < N {
        key[at] = 0x5a;
        at += 2;
    }
    key
}

/// A key, as what each octet value adds to the hash at each place: 36 KiB, of which an IPv4 address
/// uses four and IPv4 addresses and ports twelve.
#[derive(Clone, Debug)]
pub struct Toeplitz {
    table: [[u32; 256]; INPUT_MAX],
}

impl Toeplitz {
    /// Prepares a key of 40 octets or more, of which the first 40 count.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        clippy::large_stack_arrays,
        reason = "const fn: places are below INPUT_MAX, values below 256, and it is made in place"
    )]
    pub const fn new<const N: usize>(key: &[u8; N]) -> Self {
        const { assert!(N >= KEY_LEN, "the key is too short for IPv6 addresses and ports") };
        let mut table = [[0; 256]; INPUT_MAX];
        let mut place = 0;
        while place < INPUT_MAX {
            let word = [key[place], key[place + 1], key[place + 2], key[place + 3]];
            let word = u32::from_be_bytes(word);
            let next = u32::from_be_bytes([0, 0, 0, key[place + 4]]);
            let mut bit = 0;
            while bit < 8 {
                // The 32 bits of the key from this bit of the input on.
                let window = word << bit | next >> (8 - bit);
                let (set, mut value) = (0x80 >> bit, 0);
                while value < 256 {
                    if value & set != 0 {
                        table[place][value] ^= window;
                    }
                    value += 1;
                }
                bit += 1;
            }
            place += 1;
        }
        Self { table }
    }

    /// The hash of at most [`INPUT_MAX`] octets; what is beyond them does not count.
    #[inline]
    #[must_use]
    pub fn hash(&self, input: &[u8]) -> u32 {
        self.hash_all(input.iter())
    }

    #[inline]
    fn hash_all<'a>(&self, input: impl Iterator<Item = &'a u8>) -> u32 {
        self.table.iter().zip(input).fold(0, |hash, (values, octet)| {
            hash ^ values.get(usize::from(*octet)).copied().unwrap_or_default()
        })
    }

    /// The hash of IPv4 addresses and ports.
    #[inline]
    #[must_use]
    pub fn ends4(&self, ends: &Ends4) -> u32 {
        self.hash_all(ends.hosts().iter().chain(&ends.ports()))
    }

    /// The hash of IPv6 addresses and ports.
    #[inline]
    #[must_use]
    pub fn ends6(&self, ends: &Ends6) -> u32 {
        self.hash_all(ends.hosts().iter().chain(&ends.ports()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Ends;
    use core::net::{Ipv4Addr, Ipv6Addr};

    static DEFAULT: Toeplitz = Toeplitz::new(&DEFAULT_KEY);
    static SYMMETRIC: Toeplitz = Toeplitz::new(&SYMMETRIC_KEY_52);

    /// The definition, bit by bit.
    fn slowly(key: &[u8], input: &[u8]) -> u32 {
        let bit = |octets: &[u8], at: usize| octets[at / 8] >> (7 - at % 8) & 1;
        let mut hash = 0;
        for at in (0..input.len() * 8).filter(|at| bit(input, *at) == 1) {
            hash ^= (at..at + 32).fold(0, |word, at| word << 1 | u32::from(bit(key, at)));
        }
        hash
    }

    #[test]
    fn microsofts_ipv4_vectors_come_out() {
        let vectors = [
            ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e_8fc2, 0x51cc_c178),
            ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718_262a, 0xc626_b0ea),
            ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0_a5de, 0x5c2b_394a),
            ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x8298_9176, 0xafc7_327f),
            ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d18_09c5, 0x10e8_28a2),
        ];
        for (source, from, destination, to, addresses, all) in vectors {
            let (source, destination): (Ipv4Addr, Ipv4Addr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let ends = Ends4::new((source, from), (destination, to));
            assert_eq!(DEFAULT.hash(&ends.hosts()), addresses, "{source} {destination}");
            assert_eq!(DEFAULT.ends4(&ends), all, "{source}:{from} {destination}:{to}");
        }
    }

    #[test]
    fn microsofts_ipv6_vectors_come_out() {
        let vectors = [
            ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc1_8cd5, 0x4020_7d3d),
            ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c_461c, 0xdde5_1bbf),
            (
                "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
                44251,
                "fe80::200:f8ff:fe21:67cf",
                38024,
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        for (source, from, destination, to, addresses, all) in vectors {
            let (source, destination): (Ipv6Addr, Ipv6Addr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let ends = Ends6::new((source, from), (destination, to));
            assert_eq!(DEFAULT.hash(&ends.hosts()), addresses, "{source} {destination}");
            assert_eq!(DEFAULT.ends6(&ends), all, "{source}:{from} {destination}:{to}");
        }
    }

    #[test]
    fn tables_agree_with_the_definition_bit_by_bit() {
        let mut seed = 1_u64;
        for _ in 0..2_000 {
            let mut input = [0_u8; INPUT_MAX];
            for octet in &mut input {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *octet = seed.to_be_bytes()[0];
            }
            for len in [0, 1, 4, 8, 12, 32, 36] {
                assert_eq!(DEFAULT.hash(&input[..len]), slowly(&DEFAULT_KEY, &input[..len]));
                assert_eq!(SYMMETRIC.hash(&input[..len]), slowly(&SYMMETRIC_KEY_52, &input[..len]));
            }
        }
    }

    #[test]
    fn the_symmetric_key_gives_both_directions_one_hash() {
        let client = ("198.51.100.7".parse().unwrap(), 40000);
        let ends = Ends4::new(client, ("203.0.113.1".parse().unwrap(), 80));
        assert_eq!(SYMMETRIC.ends4(&ends), SYMMETRIC.ends4(&ends.reversed()));
        let client = ("2001:db8::7".parse().unwrap(), 40000);
        let ends = Ends6::new(client, ("2001:db8:1::1".parse().unwrap(), 80));
        assert_eq!(SYMMETRIC.ends6(&ends), SYMMETRIC.ends6(&ends.reversed()));
        assert_ne!(DEFAULT.ends6(&ends), DEFAULT.ends6(&ends.reversed()));
    }
}
