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
    // Two words give at most one carry, and a carry leaves room for itself.
    let [a, b, c, d] = sum.to_be_bytes();
    let (sum, carry) = u16::from_be_bytes([a, b]).overflowing_add(u16::from_be_bytes([c, d]));
    sum.wrapping_add(u16::from(carry))
}

#[inline]
fn fold64(sum: u64) -> u16 {
    let [a, b, c, d, e, f, g, h] = sum.to_be_bytes();
    let (high, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    let (sum, carry) = high.overflowing_add(low);
    fold(sum.wrapping_add(u32::from(carry)))
}

/// The sum of `octets` as 16-bit words, the last one padded with a zero octet: at most `0xffff`.
///
/// Words are added four octets at a time in the machine's order and turned round at the end:
/// RFC 1071 section 2 (B) and (C) on why that is the same sum.
#[inline]
#[must_use]
pub fn sum(octets: &[u8]) -> u32 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut last = [0; 4];
    for (place, octet) in last.iter_mut().zip(rest) {
        *place = *octet;
    }
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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const NONE: Self = Self(0);
    /// One hop less in the word of TTL and protocol: `~m + (m - 0x0100)`.
    pub const TTL: Self = Self(0xfeff);

    /// From one 16-bit word to another.
    #[inline]
    #[must_use]
    pub fn word(from: u16, to: u16) -> Self {
        Self(fold(u32::from(!from) + u32::from(to)))
    }

    /// From one IPv4 address to another.
    #[inline]
    #[must_use]
    pub fn address(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        Self(!fold(address(from))).and(Self(fold(address(to))))
    }

    /// From one IPv6 address to another.
    #[inline]
    #[must_use]
    pub fn address6(from: Ipv6Addr, to: Ipv6Addr) -> Self {
        Self(!fold(address6(from))).and(Self(fold(address6(to))))
    }

    /// From one end to another: what it does to the IP header (nothing, in IPv6), and what to TCP
    /// or UDP, whose pseudo-header has the address too.
    #[inline]
    #[must_use]
    pub fn end<F: Rewrite>(from: (F::Addr, u16), to: (F::Addr, u16)) -> (Self, Self) {
        let address = F::address_delta(from.0, to.0);
        let segment = address.and(Self::word(from.1, to.1));
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
        let before = u16::from_be_bytes(checksum);
        (!fold(u32::from(!before) + u32::from(self.0))).to_be_bytes()
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

impl Not for Delta {
    type Output = Self;
    #[inline]
    fn not(self) -> Self {
        Self(!self.0)
    }
}
