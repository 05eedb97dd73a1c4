//! IPv4 headers (RFC 791 section 3.1).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------+-------+---------------+-------------------------------+
//!  |Version|  IHL  |   DSCP  | ECN |      Total length (octets)    |  0
//!  |        Identification         |-DM|  Fragment offset (8 o.)   |  4
//!  |      TTL      |   Protocol    |         Header checksum       |  8
//!  |                         Source address                        | 12
//!  |                      Destination address                      | 16
//!  +---------------------------------------------------------------+
//!  |                    Options, 0 to 40 octets                    | 20
//! ```

use crate::checksum::{self, Delta};
use crate::unusable::Unusable;
use core::net::Ipv4Addr;

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Don't fragment, in the word of flags and offset.
const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;
/// Where the fragment belongs, in units of eight octets.
const OFFSET: u16 = 0x1fff;

/// Option kinds, as IANA assigned them; those that the director looks at.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    pub(super) const LOOSE_SOURCE_ROUTE: u8 = 131;
    pub(super) const STRICT_SOURCE_ROUTE: u8 = 137;
}

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'p> {
    fixed: &'p [u8; HEADER_LEN],
    options: &'p [u8],
}

impl<'p> Ipv4<'p> {
    /// Splits `packet` into its header and its payload; padding behind the packet is left out.
    ///
    /// # Errors
    ///
    /// [`Unusable`] names the first check that failed: version, header length, total length,
    /// checksum (RFC 1812 section 5.2.2).
    pub fn parse(packet: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let (header, _) = Self::parse_quoted(packet)?;
        let payload = packet
            .get(header.header_len()..usize::from(header.total_len()))
            .ok_or(Unusable::Ipv4TotalLength)?;
        if !checksum::is_right(header.options, checksum::sum(header.fixed)) {
            return Err(Unusable::Ipv4Checksum);
        }
        Ok((header, payload))
    }

    /// As [`Ipv4::parse`], of a packet that an ICMP error quotes: its end may be missing, and
    /// routers on the way may have left its checksum wrong.
    ///
    /// # Errors
    ///
    /// [`Unusable`] names the first check that failed: version, header length.
    pub fn parse_quoted(packet: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let (fixed, rest) = packet.split_first_chunk().ok_or(Unusable::Truncated)?;
        let header = Self { fixed, options: &[] };
        if fixed[0] >> 4 != 4 {
            return Err(Unusable::Ipv4Version);
        }
        // RFC 791 section 3.1: "the minimum value for a correct header is 5".
        let options_len =
            header.header_len().checked_sub(HEADER_LEN).ok_or(Unusable::Ipv4HeaderLength)?;
        let (options, payload) =
            rest.split_at_checked(options_len).ok_or(Unusable::Ipv4HeaderLength)?;
        let len = usize::from(header.total_len()).saturating_sub(header.header_len());
        Ok((Self { options, ..header }, payload.get(..len).unwrap_or(payload)))
    }

    /// Octets of the header, options included: 20..=60.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        usize::from(self.fixed[0] & 0x0f) * 4
    }

    /// DSCP and ECN, the octet once called type of service.
    #[inline]
    #[must_use]
    pub fn tos(self) -> u8 {
        self.fixed[1]
    }

    /// Octets of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// What the fragments of a packet have in common.
    #[inline]
    #[must_use]
    pub fn identification(self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    #[inline]
    fn flags_and_offset(self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// Whether routers must not fragment it.
    #[inline]
    #[must_use]
    pub fn dont_fragment(self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    /// Whether it is a fragment that others follow.
    #[inline]
    #[must_use]
    pub fn more_fragments(self) -> bool {
        self.flags_and_offset() & MORE_FRAGMENTS != 0
    }

    /// Where its payload belongs in the whole packet's, in octets.
    #[inline]
    #[must_use]
    pub fn fragment_offset(self) -> u16 {
        (self.flags_and_offset() & OFFSET) << 3
    }

    /// Whether it is a part of a packet only.
    #[inline]
    #[must_use]
    pub fn is_fragment(self) -> bool {
        self.flags_and_offset() & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// Remaining hops.
    #[inline]
    #[must_use]
    pub fn ttl(self) -> u8 {
        self.fixed[8]
    }

    /// What the payload is: see [`crate::flow::protocol`].
    #[inline]
    #[must_use]
    pub fn protocol(self) -> u8 {
        self.fixed[9]
    }

    /// The header's checksum.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        u16::from_be_bytes([self.fixed[10], self.fixed[11]])
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Option octets, possibly none.
    #[inline]
    #[must_use]
    pub fn options(self) -> &'p [u8] {
        self.options
    }

    /// Walks the options, to say what a router must not pass on.
    ///
    /// # Errors
    ///
    /// [`Unusable::Ipv4Options`] when a length is wrong; [`Unusable::SourceRoute`] when there is a
    /// source route, which hosts refuse (RFC 1122 section 3.2.1.8, Linux
    /// `net.ipv4.conf.all.accept_source_route`, off).
    pub fn check_options(self) -> Result<(), Unusable> {
        let mut rest = self.options;
        while let [kind, after @ ..] = rest {
            rest = match *kind {
                option::END => return Ok(()),
                option::NO_OPERATION => after,
                option::LOOSE_SOURCE_ROUTE | option::STRICT_SOURCE_ROUTE => {
                    return Err(Unusable::SourceRoute);
                }
                // RFC 791 section 3.1: the length counts the kind and itself.
                _ => match after.first() {
                    Some(len @ 2..) => rest.get(usize::from(*len)..),
                    _ => None,
                }
                .ok_or(Unusable::Ipv4Options)?,
            };
        }
        Ok(())
    }
}

/// A header to be rewritten; its checksum follows every change.
#[derive(Debug)]
pub struct Ipv4Mut<'p> {
    fixed: &'p mut [u8; HEADER_LEN],
}

impl<'p> Ipv4Mut<'p> {
    /// Splits `packet` into the fixed part of its header and what follows, options first. Meant
    /// for packets that [`Ipv4::parse`] accepted; the version alone is checked again.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::Ipv4Version`].
    pub fn parse(packet: &'p mut [u8]) -> Result<(Self, &'p mut [u8]), Unusable> {
        let (fixed, rest) =
            packet.split_first_chunk_mut::<HEADER_LEN>().ok_or(Unusable::Truncated)?;
        if fixed[0] >> 4 == 4 { Ok((Self { fixed }, rest)) } else { Err(Unusable::Ipv4Version) }
    }

    /// The same header, to be read; options are left out.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Ipv4<'_> {
        Ipv4 { fixed: self.fixed, options: &[] }
    }

    #[inline]
    fn apply(&mut self, delta: Delta) {
        let ip = &mut *self.fixed;
        [ip[10], ip[11]] = delta.apply([ip[10], ip[11]]);
    }

    /// DSCP and ECN.
    pub fn set_tos(&mut self, to: u8) {
        self.apply(Delta::word(u16::from(self.fixed[1]), u16::from(to)));
        self.fixed[1] = to;
    }

    /// Octets of header and payload.
    pub fn set_total_len(&mut self, to: u16) {
        self.apply(Delta::word(self.view().total_len(), to));
        [self.fixed[2], self.fixed[3]] = to.to_be_bytes();
    }

    /// What the packet's fragments would have in common.
    pub fn set_identification(&mut self, to: u16) {
        self.apply(Delta::word(self.view().identification(), to));
        [self.fixed[4], self.fixed[5]] = to.to_be_bytes();
    }

    /// Whether routers must not fragment it.
    pub fn set_dont_fragment(&mut self, to: bool) {
        let from = self.view().flags_and_offset();
        let word = if to { from | DONT_FRAGMENT } else { from & !DONT_FRAGMENT };
        self.apply(Delta::word(from, word));
        [self.fixed[6], self.fixed[7]] = word.to_be_bytes();
    }

    /// Remaining hops.
    pub fn set_ttl(&mut self, to: u8) {
        self.apply(Delta::word(u16::from(self.fixed[8]) << 8, u16::from(to) << 8));
        self.fixed[8] = to;
    }

    /// Source address. A checksum in the payload that has a pseudo-header is the caller's.
    pub fn set_source(&mut self, to: Ipv4Addr) {
        self.apply(Delta::address(self.view().source(), to));
        [self.fixed[12], self.fixed[13], self.fixed[14], self.fixed[15]] = to.octets();
    }

    /// Destination address. A checksum in the payload that has a pseudo-header is the caller's.
    pub fn set_destination(&mut self, to: Ipv4Addr) {
        self.apply(Delta::address(self.view().destination(), to));
        [self.fixed[16], self.fixed[17], self.fixed[18], self.fixed[19]] = to.octets();
    }
}

/// A header without options, to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of the payload, at most 65515.
    pub payload_len: u16,
    /// What the packet's fragments would have in common; 0 is fine when there can be none.
    pub identification: u16,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
    /// Remaining hops.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Header {
    /// The header's octets, with the checksum.
    #[must_use]
    pub fn octets(&self) -> [u8; HEADER_LEN] {
        let [a, b] = self.payload_len.saturating_add(20).to_be_bytes();
        let [c, d] = self.identification.to_be_bytes();
        let [e, f] = (if self.dont_fragment { DONT_FRAGMENT } else { 0 }).to_be_bytes();
        let ([g, h, i, j], [k, l, m, n]) = (self.source.octets(), self.destination.octets());
        let (ttl, protocol) = (self.ttl, self.protocol);
        let mut octets =
            [0x45, self.tos, a, b, c, d, e, f, ttl, protocol, 0, 0, g, h, i, j, k, l, m, n];
        [octets[10], octets[11]] = checksum::checksum(&octets, 0);
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first packet of the NAT recording of a Linux 6.1 director, options added.
    const PACKET: [u8; 26] = [
        0x46, 0x10, 0, 26, 0, 1, 0x40, 0, 61, 6, 0x97, 0x8b, 10, 1, 0, 2, 172, 16, 0, 1, 1, 1, 1,
        0, 0xaa, 0xbb,
    ];

    fn header() -> Header {
        Header {
            tos: 0x10,
            payload_len: 2,
            identification: 1,
            dont_fragment: true,
            ttl: 61,
            protocol: 6,
            source: Ipv4Addr::new(10, 1, 0, 2),
            destination: Ipv4Addr::new(172, 16, 0, 1),
        }
    }

    fn packet() -> [u8; 26] {
        let mut packet = PACKET;
        [packet[10], packet[11]] = [0, 0];
        [packet[10], packet[11]] = checksum::checksum(&packet[..24], 0);
        packet
    }

    #[test]
    fn parse_splits_options_payload_and_padding() {
        let mut padded = [0; 40];
        padded[..26].copy_from_slice(&packet());
        let (ip, payload) = Ipv4::parse(&padded).unwrap();
        assert_eq!((ip.header_len(), ip.total_len(), ip.tos()), (24, 26, 0x10));
        assert_eq!((ip.identification(), ip.ttl(), ip.protocol()), (1, 61, 6));
        assert!(ip.dont_fragment() && !ip.more_fragments() && !ip.is_fragment());
        assert_eq!((ip.source(), ip.destination()), (header().source, header().destination));
        assert_eq!((ip.options(), payload), (&[1, 1, 1, 0][..], &[0xaa, 0xbb][..]));
        assert_eq!(ip.check_options(), Ok(()));
    }

    #[test]
    fn parse_rejects_every_truncation() {
        for len in 0..PACKET.len() {
            assert!(Ipv4::parse(&packet()[..len]).is_err(), "{len} octets");
        }
    }

    #[test]
    fn parse_names_the_check_that_failed() {
        let parse = |at: usize, octet: u8| {
            let mut packet = packet();
            packet[at] = octet;
            Ipv4::parse(&packet).map(|_| ()).unwrap_err()
        };
        assert_eq!(parse(0, 0x66), Unusable::Ipv4Version);
        assert_eq!(parse(0, 0x44), Unusable::Ipv4HeaderLength);
        assert_eq!(parse(0, 0x4f), Unusable::Ipv4HeaderLength);
        assert_eq!(parse(3, 23), Unusable::Ipv4TotalLength);
        assert_eq!(parse(3, 27), Unusable::Ipv4TotalLength);
        assert_eq!(parse(8, 60), Unusable::Ipv4Checksum);
        assert_eq!(parse(22, 60), Unusable::Ipv4Checksum);
    }

    #[test]
    fn a_quoted_packet_may_lack_its_end_and_have_a_wrong_checksum() {
        let mut quoted = packet();
        quoted[3] = 200;
        let (ip, payload) = Ipv4::parse_quoted(&quoted[..25]).unwrap();
        assert_eq!((ip.total_len(), payload), (200, &[0xaa][..]));
    }

    #[test]
    fn fragments_have_an_offset_in_octets() {
        let mut packet = header().octets();
        [packet[6], packet[7]] = [0x20, 0x64];
        let (ip, _) = Ipv4::parse_quoted(&packet).unwrap();
        assert!(ip.is_fragment() && ip.more_fragments() && !ip.dont_fragment());
        assert_eq!(ip.fragment_offset(), 800);
        [packet[6], packet[7]] = [0x1f, 0xff];
        assert_eq!(Ipv4::parse_quoted(&packet).unwrap().0.fragment_offset(), 65528);
    }

    #[test]
    fn source_routes_and_bad_options_are_refused() {
        let check = |options: &[u8]| {
            let header = Ipv4 { fixed: &[0; 20], options };
            header.check_options()
        };
        assert_eq!(check(&[]), Ok(()));
        // Record route (RFC 791), then the end; what follows the end is anything.
        assert_eq!(check(&[7, 3, 4, 0, 131]), Ok(()));
        assert_eq!(check(&[1, 131, 3, 4]), Err(Unusable::SourceRoute));
        assert_eq!(check(&[137, 3, 4, 0]), Err(Unusable::SourceRoute));
        for bad in [&[7][..], &[7, 0], &[7, 1, 1, 1], &[7, 5, 4, 0]] {
            assert_eq!(check(bad), Err(Unusable::Ipv4Options), "{bad:?}");
        }
    }

    #[test]
    fn setters_keep_the_checksum_right() {
        let mut packet = header().octets();
        let (mut ip, _) = Ipv4Mut::parse(&mut packet).unwrap();
        ip.set_tos(0xb8);
        ip.set_total_len(1500);
        ip.set_identification(0xffff);
        ip.set_dont_fragment(false);
        ip.set_ttl(1);
        ip.set_source(Ipv4Addr::new(198, 51, 100, 7));
        ip.set_destination(Ipv4Addr::new(203, 0, 113, 1));
        let expected = Header {
            tos: 0xb8,
            payload_len: 1480,
            identification: 0xffff,
            dont_fragment: false,
            ttl: 1,
            source: Ipv4Addr::new(198, 51, 100, 7),
            destination: Ipv4Addr::new(203, 0, 113, 1),
            ..header()
        };
        assert_eq!(packet, expected.octets());
        assert!(checksum::is_right(&packet, 0));
    }
}
