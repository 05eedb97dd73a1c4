//! The Internet checksum: whole sums (RFC 1071), changes (RFC 1624) and pseudo-headers.
//!
//! Partial sums are `u32`s of 16-bit words, to be added and at last folded: room for 65537 of them.
//! What depends on a connection alone is summed once, as a [`Delta`], and applied to every packet.

use crate::rewrite::Rewrite;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Not;

/// Folds a sum of 16-bit words into one, carries added at the low end (RFC 1071 section 2).
#[inline]
#[must_use]
pub fn fold(sum: u32) -> u16 {
    // The two words are added twice: below, for the carry, and above, where it goes to.
    u16::try_from(sum.wrapping_add(sum.rotate_left(16)) >> 16).unwrap_or_default()
}

/// The same for a sum of 32-bit words.
#[inline]
pub(crate) fn fold64(sum: u64) -> u16 {
    fold(u32::try_from(sum.wrapping_add(sum.rotate_left(32)) >> 32).unwrap_or_default())
}

/// The sum of `octets` as 16-bit words, the last one padded with a zero octet: at most `0xffff`.
///
/// Words are added four octets at a time in the machine's order and turned round at the end:
/// RFC 1071 section 2 (B) and (C) on why that is the same sum.
#[inline]
#[must_use]
pub fn sum(octets: &[u8]) -> u32 {
    let (words, rest) = octets.as_chunks::<4>();
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    let total = words
        .iter()
        .chain([&last])
        .fold(0_u64, |total, word| total.wrapping_add(u64::from(u32::from_ne_bytes(*word))));
    u32::from(u16::from_be_bytes(fold64(total).to_ne_bytes()))
}

/// The checksum of a message whose checksum field is zero, and other sums with it, such as a
/// pseudo-header's.
#[inline]
#[must_use]
pub fn checksum(octets: &[u8], more: u32) -> [u8; 2] {
    let [a, b, c, d] = more.to_be_bytes();
    let more = u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]));
    (!fold(sum(octets) + more)).to_be_bytes()
}

/// Whether a message with its checksum in it, and other sums such as a pseudo-header's, add up.
#[inline]
#[must_use]
pub fn is_right(octets: &[u8], more: u32) -> bool {
    checksum(octets, more) == [0, 0]
}

/// The same for an IPv4 header without options, before every packet: 20 octets, which are not all
/// zero.
///
/// In ones' complement a sum is right when it is a multiple of `0xffff`, whatever the order of the
/// octets in a word: nothing is turned round or folded.
#[inline(always)]
#[must_use]
pub fn is_header_right(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    sum.is_multiple_of(0xffff)
}

/// The sum of the words of an IPv4 address, not folded.
#[inline]
#[must_use]
pub fn address(address: Ipv4Addr) -> u32 {
    let [a, b, c, d] = address.octets();
    u32::from(u16::from_be_bytes([a, b])) + u32::from(u16::from_be_bytes([c, d]))
}

/// The sum of the words of an IPv6 address, not folded.
#[inline]
#[must_use]
pub fn address6(address: Ipv6Addr) -> u32 {
    address.segments().into_iter().map(u32::from).sum()
}

/// The sum of the pseudo-header before `octets` of TCP or UDP (RFC 9293 section 3.1).
#[inline]
#[must_use]
pub fn pseudo(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, octets: u16) -> u32 {
    address(source) + address(destination) + u32::from(protocol) + u32::from(octets)
}

/// The sum of the pseudo-header before `octets` of an upper protocol (RFC 8200 section 8.1).
#[inline]
#[must_use]
pub fn pseudo6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, octets: u16) -> u32 {
    address6(source) + address6(destination) + u32::from(protocol) + u32::from(octets)
}

/// A change to checksummed fields, to be applied to any number of checksums: `~m + m'`.
///
/// RFC 1624 section 3, eqn 3: `HC' = ~(~HC + ~m + m')`. The part that does not depend on the
/// packet is summed once. In ones' complement the way back is the complement: see `Not`.
///
/// Octets are as on the wire, so that nothing is turned round when it is applied.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);
    /// One hop less in the word of TTL and protocol: `~m + (m - 0x0100)`.
    pub const TTL: Self = Self(0xfeff_u16.to_be());

    /// From one 16-bit word to another.
    #[inline]
    #[must_use]
    pub fn word(from: u16, to: u16) -> Self {
        Self(fold(u32::from(!from) + u32::from(to)).to_be())
    }

    /// From one IPv4 address to another.
    #[inline]
    #[must_use]
    pub fn address(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let [from, to] = [from, to].map(|address| u32::from_ne_bytes(address.octets()));
        let halves = |word: u32| (word & 0xffff) + (word >> 16);
        Self(fold(halves(!from) + halves(to)))
    }

    /// From one IPv6 address to another.
    #[inline]
    #[must_use]
    pub fn address6(from: Ipv6Addr, to: Ipv6Addr) -> Self {
        Self(!fold(address6(from)).to_be()).and(Self(fold(address6(to)).to_be()))
    }

    /// From one end to another: what it does to the IP header (nothing, in IPv6), and what to TCP
    /// or UDP, whose pseudo-header has the address too.
    #[inline(always)]
    #[must_use]
    pub fn end<F: Rewrite>(from: (F::Addr, u16), to: (F::Addr, u16)) -> (Self, Self) {
        let address = F::address_delta(from.0, to.0);
        // Folded once for address and port.
        let ports = u32::from((!from.1).to_be()) + u32::from(to.1.to_be());
        let segment = Self(fold(u32::from(address.0) + ports));
        (if F::IS_V6 { Self::NONE } else { address }, segment)
    }

    /// This change and another one.
    #[inline]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
    }

    /// The checksum after the change.
    #[inline]
    #[must_use]
    pub fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let before = u16::from_ne_bytes(checksum);
        (!fold(u32::from(!before) + u32::from(self.0))).to_ne_bytes()
    }

    /// An IPv4 header's checksum after the change and [`Delta::TTL`], folded once for both.
    #[inline]
    #[must_use]
    pub fn apply_hop(self, checksum: [u8; 2]) -> [u8; 2] {
        let before = u16::from_ne_bytes(checksum);
        let change = u32::from(self.0) + u32::from(Self::TTL.0);
        (!fold(u32::from(!before) + change)).to_ne_bytes()
    }

    /// A UDP checksum after the change, which must not be zero before.
    ///
    /// RFC 768: zero means no checksum; one that comes out zero is sent as all ones.
    #[inline]
    #[must_use]
    pub fn apply_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        not_zero(self.apply(checksum))
    }
}

/// A UDP checksum as it is sent (RFC 768).
#[inline]
#[must_use]
pub fn not_zero(checksum: [u8; 2]) -> [u8; 2] {
    if checksum == [0, 0] { [0xff, 0xff] } else { checksum }
}

/// Replaces the sum of a pseudo-header, which stands at `field` of `message`, by the checksum of both.
/// Zero means none in UDP, and the same as all ones elsewhere. `None` if there is no such place.
///
/// Linux 6.1 `net/core/dev.c` `skb_checksum_help()`.
pub fn finish(message: &mut [u8], field: usize) -> Option<()> {
    let whole = not_zero(checksum(message, 0));
    *message.get_mut(field..)?.first_chunk_mut()? = whole;
    Some(())
}

/// An IPv4 header's checksum when its packet has one hop less: [`Delta::TTL`]'s, without the complements
/// and the fold. A sum of all ones is none.
///
/// RFC 1141 with the correction of RFC 1624 section 4; Linux 6.1 `net/ip.h` `ip_decrease_ttl()`.
#[inline]
#[must_use]
pub fn hop(checksum: [u8; 2]) -> [u8; 2] {
    const HOP: u16 = 0x0100_u16.to_be();
    let before = u16::from_ne_bytes(checksum);
    let carry = u16::from(before >= u16::MAX - HOP);
    before.wrapping_add(HOP).wrapping_add(carry).to_ne_bytes()
}

impl Not for Delta {
    type Output = Self;
    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{V4, V6};

    /// RFC 1071 section 1, word by word.
    fn naively(octets: &[u8]) -> u32 {
        let mut sum = 0;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum
    }

    struct Random(u64);

    impl Random {
        fn octets<const N: usize>(&mut self) -> [u8; N] {
            core::array::from_fn(|_| {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.0.to_be_bytes()[0]
            })
        }
    }

    #[test]
    fn a_header_is_right_when_its_sum_is_whatever_it_holds() {
        let mut seed = 1_u64;
        for _ in 0..100_000 {
            let mut header = [0; 20];
            for octet in &mut header {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                *octet = seed.to_be_bytes()[0];
            }
            header[0] = 0x45;
            assert_eq!(is_header_right(&header), is_right(&header, 0));
            [header[10], header[11]] = [0, 0];
            [header[10], header[11]] = checksum(&header, 0);
            assert!(is_header_right(&header) && is_right(&header, 0));
            header[10] ^= 1;
            assert!(!is_header_right(&header));
        }
    }

    #[test]
    fn rfc1071s_example_sums_to_ddf2() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&octets), 0xddf2);
        assert_eq!(checksum(&octets, 0), [0x22, 0x0d]);
    }

    #[test]
    fn sums_agree_with_the_naive_ones_at_every_length() {
        let mut random = Random(1);
        for _ in 0..200 {
            let octets = random.octets::<131>();
            for len in 0..=octets.len() {
                assert_eq!(sum(&octets[..len]), naively(&octets[..len]), "{len} octets");
            }
        }
        for octet in [0, 0xff] {
            for len in 0..100 {
                assert_eq!(sum(&[octet; 100][..len]), naively(&[octet; 100][..len]));
            }
        }
        assert_eq!(sum(&[0xff; 9001]), naively(&[0xff; 9001]));
    }

    #[test]
    fn partial_sums_add_up_even_when_they_are_big() {
        let octets = [0xab; 40];
        let (first, second) = octets.split_at(16);
        assert_eq!(checksum(second, sum(first)), checksum(&octets, 0));
        // 0xffff is zero in ones' complement.
        assert_eq!(checksum(&octets, 0xffff * 0xffff), checksum(&octets, 0));
        assert_eq!(checksum(&octets, u32::MAX), checksum(&octets, 0));
    }

    #[test]
    fn rfc1624s_example_is_not_got_wrong() {
        // Section 4: where RFC 1141's equation gives 0xffff.
        assert_eq!(Delta::word(0x5555, 0x3285).apply([0xdd, 0x2f]), [0, 0]);
    }

    #[test]
    fn deltas_agree_with_whole_sums_there_and_back() {
        let mut random = Random(2);
        for _ in 0..50_000 {
            let (before, after): ([u8; 18], [u8; 18]) = (random.octets(), random.octets());
            let rest: [u8; 22] = random.octets();
            let whole = |octets: &[u8]| checksum(octets, sum(&rest));
            let word = |octets: &[u8; 18]| u16::from_be_bytes([octets[16], octets[17]]);
            let v4 = |octets: &[u8; 18]| Ipv4Addr::from(*octets.first_chunk::<4>().unwrap());
            let v6 = |octets: &[u8; 18]| Ipv6Addr::from(*octets.first_chunk::<16>().unwrap());

            let (address, segment) =
                Delta::end::<V4>((v4(&before), word(&before)), (v4(&after), word(&after)));
            let [from, to] = [&before, &after].map(|octets| whole(&octets[..4]));
            assert_eq!((address.apply(from), (!address).apply(to)), (to, from));
            let [from, to] =
                [before, after].map(|o| whole(&[o[0], o[1], o[2], o[3], o[16], o[17]]));
            assert_eq!((segment.apply(from), (!segment).apply(to)), (to, from));

            let (address, segment) =
                Delta::end::<V6>((v6(&before), word(&before)), (v6(&after), word(&after)));
            assert_eq!(address, Delta::NONE);
            let [from, to] = [before, after].map(|octets| whole(&octets));
            assert_eq!((segment.apply(from), (!segment).apply(to)), (to, from));
        }
    }

    #[test]
    fn the_ttl_delta_agrees_with_the_whole_sum_for_every_ttl() {
        for ttl in 1..=255 {
            let [before, after] = [ttl, ttl - 1].map(|ttl| checksum(&[0x45, 0, ttl, 6, 18, 52], 0));
            assert_eq!(Delta::TTL.apply(before), after);
        }
    }

    #[test]
    fn one_hop_less_is_the_ttl_delta_for_every_checksum() {
        let other = Delta::word(0x1234, 0xcdef);
        for before in 0..=u16::MAX {
            let before = before.to_be_bytes();
            assert_eq!(hop(before), Delta::TTL.apply(before));
            assert_eq!(other.apply_hop(before), Delta::TTL.and(other).apply(before));
            assert_eq!((!other).apply_hop(before), Delta::TTL.and(!other).apply(before));
        }
    }

    #[test]
    fn a_udp_checksum_never_becomes_zero() {
        assert_eq!(Delta::word(0x5555, 0x3285).apply_udp([0xdd, 0x2f]), [0xff, 0xff]);
        assert_eq!(Delta::word(1, 1).apply_udp([0xff, 0xff]), [0xff, 0xff]);
        assert_eq!(Delta::word(1, 1).apply_udp([0x12, 0x34]), [0x12, 0x34]);
    }

    #[test]
    fn pseudo_headers_are_as_laid_out() {
        let (a, b) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(203, 0, 113, 1));
        let laid_out = [198, 51, 100, 7, 203, 0, 113, 1, 0, 17, 0x12, 0x34];
        assert_eq!(fold(pseudo(a, b, 17, 0x1234)), fold(sum(&laid_out)));
        let (a, b) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7), Ipv6Addr::LOCALHOST);
        let mut laid_out = [0; 40];
        laid_out[..16].copy_from_slice(&a.octets());
        laid_out[16..32].copy_from_slice(&b.octets());
        laid_out[34..].copy_from_slice(&[0x12, 0x34, 0, 0, 0, 58]);
        assert_eq!(fold(pseudo6(a, b, 58, 0x1234)), fold(sum(&laid_out)));
    }
}
