//! Ethernet II frames and VLAN tags (IEEE 802.3 clause 3.2.6, IEEE 802.1Q clause 9).
//!
//! ```text
//!  0           6          12     14     16       18
//!  ├ destination ┼ source ┼ 8100 ┼ tag  ┼ type   ┼ …      with a tag
//!  ├ destination ┼ source ┼ type ┼ …                      without
//!
//!  tag:  3 bits priority, 1 bit drop eligible, 12 bits VLAN
//! ```

use crate::mac::MacAddr;
use crate::unusable::Unusable;

/// Octets of a header without a tag.
pub const HEADER_LEN: usize = 14;
/// Octets that a tag adds.
pub const TAG_LEN: usize = 4;

/// What is inside a frame, as IEEE assigned it.
pub mod ethertype {
    /// RFC 894.
    pub const IPV4: u16 = 0x0800;
    /// RFC 826.
    pub const ARP: u16 = 0x0806;
    /// A customer tag, IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// RFC 2464.
    pub const IPV6: u16 = 0x86dd;
    /// A service tag, IEEE 802.1ad: in front of a customer tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The header of a frame without a tag.
#[inline]
#[must_use]
pub fn header(destination: MacAddr, source: MacAddr, ethertype: u16) -> [u8; HEADER_LEN] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination.0, source.0);
    let [m, n] = ethertype.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

/// The header of a frame in `vlan` (1..=4094), priority 0.
#[inline]
#[must_use]
pub fn tagged_header(
    destination: MacAddr,
    source: MacAddr,
    vlan: u16,
    ethertype: u16,
) -> [u8; HEADER_LEN + TAG_LEN] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = header(destination, source, ethertype::VLAN);
    let ([o, p], [q, r]) = ((vlan & Tag::VLAN_MASK).to_be_bytes(), ethertype.to_be_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r]
}

/// A header, borrowed from the frame.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'f> {
    fixed: &'f [u8; HEADER_LEN],
}

impl<'f> Ethernet<'f> {
    /// Splits `frame` into its header and what follows: a tag, or a packet and padding.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`].
    #[inline]
    pub fn parse(frame: &'f [u8]) -> Result<(Self, &'f [u8]), Unusable> {
        let (fixed, rest) = frame.split_first_chunk().ok_or(Unusable::Truncated)?;
        Ok((Self { fixed }, rest))
    }

    /// For whom.
    #[inline]
    #[must_use]
    pub fn destination(self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = *self.fixed;
        MacAddr([a, b, c, d, e, f])
    }

    /// Whether it is for `me`: compared as a word, which is shorter than six octets.
    #[inline(always)]
    #[must_use]
    pub fn is_for(self, me: MacAddr) -> bool {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l, m, n, ..]) = (me.0, *self.fixed);
        let word = u64::from_le_bytes([g, h, i, j, k, l, m, n]);
        word << 16 == u64::from_le_bytes([0, 0, a, b, c, d, e, f])
    }

    /// From whom.
    #[inline]
    #[must_use]
    pub fn source(self) -> MacAddr {
        let [_, _, _, _, _, _, a, b, c, d, e, f, _, _] = *self.fixed;
        MacAddr([a, b, c, d, e, f])
    }

    /// What follows: see [`ethertype`]. Below 0x0600 it is a length (IEEE 802.3 clause 3.2.6).
    #[inline]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        u16::from_be_bytes([self.fixed[12], self.fixed[13]])
    }
}

/// What follows [`ethertype::VLAN`]: the tag's value and the ethertype behind it.
#[derive(Clone, Copy, Debug)]
pub struct Tag<'f> {
    fixed: &'f [u8; TAG_LEN],
}

impl<'f> Tag<'f> {
    const VLAN_MASK: u16 = 0x0fff;

    /// Splits what follows an Ethernet header into a tag and what follows that.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`].
    #[inline]
    pub fn parse(rest: &'f [u8]) -> Result<(Self, &'f [u8]), Unusable> {
        let (fixed, rest) = rest.split_first_chunk().ok_or(Unusable::Truncated)?;
        Ok((Self { fixed }, rest))
    }

    /// The VLAN; 0 in a frame that has a priority but no VLAN, like one without a tag.
    #[inline]
    #[must_use]
    pub fn vlan(self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]]) & Self::VLAN_MASK
    }

    /// Priority code point, 0..=7.
    #[inline]
    #[must_use]
    pub fn priority(self) -> u8 {
        self.fixed[0] >> 5
    }

    /// Whether the frame goes first when a queue is full.
    #[inline]
    #[must_use]
    pub fn drop_eligible(self) -> bool {
        self.fixed[0] & 0x10 != 0
    }

    /// What follows.
    #[inline]
    #[must_use]
    pub fn ethertype(self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }
}

/// A header to be rewritten.
#[derive(Debug)]
pub struct EthernetMut<'f> {
    fixed: &'f mut [u8; HEADER_LEN],
}

impl<'f> EthernetMut<'f> {
    /// Splits `frame` into its header and what follows.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`].
    #[inline]
    pub fn parse(frame: &'f mut [u8]) -> Result<(Self, &'f mut [u8]), Unusable> {
        let (fixed, rest) = frame.split_first_chunk_mut().ok_or(Unusable::Truncated)?;
        Ok((Self { fixed }, rest))
    }

    /// For whom.
    #[inline]
    pub fn set_destination(&mut self, to: MacAddr) {
        let [a, b, c, d, e, f] = to.0;
        [self.fixed[0], self.fixed[1], self.fixed[2]] = [a, b, c];
        [self.fixed[3], self.fixed[4], self.fixed[5]] = [d, e, f];
    }

    /// From whom.
    #[inline]
    pub fn set_source(&mut self, to: MacAddr) {
        let [a, b, c, d, e, f] = to.0;
        [self.fixed[6], self.fixed[7], self.fixed[8]] = [a, b, c];
        [self.fixed[9], self.fixed[10], self.fixed[11]] = [d, e, f];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const FROM: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_tag_stands_between_source_and_ethertype() {
        let frame = tagged_header(TO, FROM, 100, ethertype::IPV6);
        let (ethernet, rest) = Ethernet::parse(&frame).unwrap();
        assert_eq!((ethernet.destination(), ethernet.source()), (TO, FROM));
        assert_eq!(ethernet.ethertype(), ethertype::VLAN);
        let (tag, rest) = Tag::parse(rest).unwrap();
        assert_eq!((tag.vlan(), tag.priority(), tag.drop_eligible()), (100, 0, false));
        assert_eq!(tag.ethertype(), ethertype::IPV6);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_tag_has_priority_drop_eligibility_and_vlan() {
        let (tag, _) = Tag::parse(&[0b1011_1111, 0xfe, 8, 0]).unwrap();
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.vlan()), (5, true, 4094));
    }

    #[test]
    fn setters_change_one_address_each() {
        let mut frame = header(FROM, TO, ethertype::ARP);
        let (mut ethernet, _) = EthernetMut::parse(&mut frame).unwrap();
        ethernet.set_destination(TO);
        ethernet.set_source(FROM);
        assert_eq!(frame, header(TO, FROM, ethertype::ARP));
    }

    #[test]
    fn parse_rejects_every_truncation() {
        let frame = tagged_header(TO, FROM, 1, ethertype::IPV4);
        for len in 0..HEADER_LEN {
            assert_eq!(Ethernet::parse(&frame[..len]).unwrap_err(), Unusable::Truncated);
        }
        for len in 0..TAG_LEN {
            assert_eq!(Tag::parse(&frame[HEADER_LEN..][..len]).unwrap_err(), Unusable::Truncated);
        }
    }
}
