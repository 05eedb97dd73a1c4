//! A keyed hash of what connections are looked up by.

use crate::num::{fold_multiply, high32, low16};
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

/// Digits of pi. Multiplying by the seed instead would save an addition, and seeds of few or regular
/// bits would then put 200 keys into one bucket.
const MIX: [u64; 5] = [
    0x2437_54a8_85a3_08d3,
    0xa409_3822_299f_31d1,
    0x1319_8a2e_0370_7345,
    0x0801_f2e2_858e_fc17,
    0x6369_20d8_7157_4e69,
];

impl Seed {
    /// Hashes `key`: two multiplications for IPv4; for IPv6 five, of which three wait for another.
    #[inline(always)]
    #[must_use]
    pub fn hash<F: Family>(self, key: &Key<F>) -> Hash {
        let [a, b, c, d, e] = key.ends.words();
        let [first, second] = self.0;
        let protocol = u64::from(key.protocol);
        if F::IS_V6 {
            let source = fold_multiply(fold_multiply(a ^ first, MIX[0]) ^ b, MIX[2]);
            let destination = fold_multiply(fold_multiply(c ^ second, MIX[1]) ^ d, MIX[3]);
            Hash(fold_multiply(source ^ destination ^ (e << 8 | protocol) ^ second, MIX[4]))
        } else {
            let hosts = fold_multiply(a ^ first, MIX[0]);
            Hash(fold_multiply(hosts ^ (b << 8 | protocol) ^ second, MIX[1]))
        }
    }
}
