//! IPv6 headers (RFC 8200 section 3). What may stand behind them is [`crate::ipv6_ext`]'s.
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------+---------------+---------------------------------------+
//!  |Version| Traffic class |              Flow label               |  0
//!  |    Payload length (octets)    |  Next header  |   Hop limit   |  4
//!  |                    Source address (16 octets)                 |  8
//!  |                 Destination address (16 octets)               | 24
//!  +---------------------------------------------------------------+
//! ```

use crate::unusable::Unusable;
use core::net::Ipv6Addr;

/// Octets of the header.
pub const HEADER_LEN: usize = 40;

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'p> {
    fixed: &'p [u8; HEADER_LEN],
}

impl<'p> Ipv6<'p> {
    /// Splits `packet` into its header and its payload, extension headers first; padding behind
    /// the packet is left out.
    ///
    /// # Errors
    ///
    /// [`Unusable`] names the first check that failed: version, payload length. A jumbogram
    /// (RFC 2675) has payload length 0, hence no payload here.
    pub fn parse(packet: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let (header, _) = Self::parse_quoted(packet)?;
        let payload = packet
            .get(HEADER_LEN..)
            .and_then(|rest| rest.get(..usize::from(header.payload_len())))
            .ok_or(Unusable::Ipv6PayloadLength)?;
        Ok((header, payload))
    }

    /// As [`Ipv6::parse`], of a packet that an ICMPv6 error quotes: its end may be missing.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::Ipv6Version`].
    pub fn parse_quoted(packet: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let (fixed, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Unusable::Truncated)?;
        if fixed[0] >> 4 != 6 {
            return Err(Unusable::Ipv6Version);
        }
        let header = Self { fixed };
        Ok((header, rest.get(..usize::from(header.payload_len())).unwrap_or(rest)))
    }

    /// DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn traffic_class(self) -> u8 {
        self.fixed[0] << 4 | self.fixed[1] >> 4
    }

    /// Flow label, 20 bits.
    #[inline]
    #[must_use]
    pub fn flow_label(self) -> u32 {
        u32::from_be_bytes([0, self.fixed[1] & 0x0f, self.fixed[2], self.fixed[3]])
    }

    /// Octets behind this header.
    #[inline]
    #[must_use]
    pub fn payload_len(self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// What the payload begins with.
    #[inline]
    #[must_use]
    pub fn next_header(self) -> u8 {
        self.fixed[6]
    }

    /// Remaining hops.
    #[inline]
    #[must_use]
    pub fn hop_limit(self) -> u8 {
        self.fixed[7]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn source(self) -> Ipv6Addr {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = *self.fixed;
        let (first, _) = addresses.as_chunks::<16>();
        first.first().map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn destination(self) -> Ipv6Addr {
        self.fixed.last_chunk().map_or(Ipv6Addr::UNSPECIFIED, |octets: &[u8; 16]| (*octets).into())
    }
}

/// A header to be rewritten. It has no checksum; those of upper protocols are the caller's.
#[derive(Debug)]
pub struct Ipv6Mut<'p> {
    fixed: &'p mut [u8; HEADER_LEN],
}

impl<'p> Ipv6Mut<'p> {
    /// Splits `packet` into its header and what follows. Meant for packets that [`Ipv6::parse`]
    /// accepted; the version alone is checked again.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::Ipv6Version`].
    pub fn parse(packet: &'p mut [u8]) -> Result<(Self, &'p mut [u8]), Unusable> {
        let (fixed, rest) =
            packet.split_first_chunk_mut::<HEADER_LEN>().ok_or(Unusable::Truncated)?;
        if fixed[0] >> 4 == 6 { Ok((Self { fixed }, rest)) } else { Err(Unusable::Ipv6Version) }
    }

    /// The same header, to be read.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Ipv6<'_> {
        Ipv6 { fixed: self.fixed }
    }

    /// Octets behind this header.
    pub fn set_payload_len(&mut self, to: u16) {
        [self.fixed[4], self.fixed[5]] = to.to_be_bytes();
    }

    /// Remaining hops.
    pub fn set_hop_limit(&mut self, to: u8) {
        self.fixed[7] = to;
    }

    /// Source address.
    pub fn set_source(&mut self, to: Ipv6Addr) {
        if let Some((from, _)) = self.fixed.last_chunk_mut::<32>().and_then(split_addresses) {
            *from = to.octets();
        }
    }

    /// Destination address.
    pub fn set_destination(&mut self, to: Ipv6Addr) {
        if let Some((_, place)) = self.fixed.last_chunk_mut::<32>().and_then(split_addresses) {
            *place = to.octets();
        }
    }
}

fn split_addresses(both: &mut [u8; 32]) -> Option<(&mut [u8; 16], &mut [u8; 16])> {
    let (source, destination) = both.split_first_chunk_mut()?;
    Some((source, destination.first_chunk_mut()?))
}

/// A header to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Octets behind the header.
    pub payload_len: u16,
    /// What they begin with.
    pub next_header: u8,
    /// Remaining hops.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Header {
    /// The header's octets; the flow label is 0.
    #[must_use]
    pub fn octets(&self) -> [u8; HEADER_LEN] {
        let [a, b] = self.payload_len.to_be_bytes();
        let class = [0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0, 0];
        let rest = [a, b, self.next_header, self.hop_limit];
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let all = class.iter().chain(&rest).chain(&source).chain(&destination);
        let mut octets = [0; HEADER_LEN];
        for (place, octet) in octets.iter_mut().zip(all) {
            *place = *octet;
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            traffic_class: 0xb8,
            payload_len: 3,
            next_header: 17,
            hop_limit: 64,
            source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
            destination: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
        }
    }

    fn packet() -> [u8; 46] {
        let mut packet = [0xaa; 46];
        packet[..40].copy_from_slice(&header().octets());
        packet
    }

    #[test]
    fn what_is_written_is_read() {
        let octets = packet();
        let (ip, payload) = Ipv6::parse(&octets).unwrap();
        assert_eq!(payload, [0xaa; 3]);
        assert_eq!((ip.traffic_class(), ip.flow_label(), ip.payload_len()), (0xb8, 0, 3));
        assert_eq!((ip.next_header(), ip.hop_limit()), (17, 64));
        assert_eq!((ip.source(), ip.destination()), (header().source, header().destination));
    }

    #[test]
    fn traffic_class_and_flow_label_share_an_octet() {
        let mut octets = packet();
        [octets[0], octets[1], octets[2], octets[3]] = [0x6a, 0xbc, 0xde, 0xf1];
        let (ip, _) = Ipv6::parse(&octets).unwrap();
        assert_eq!((ip.traffic_class(), ip.flow_label()), (0xab, 0xc_def1));
    }

    #[test]
    fn parse_rejects_every_truncation_and_other_versions() {
        let mut octets = packet();
        for len in 0..40 {
            assert_eq!(Ipv6::parse(&octets[..len]).unwrap_err(), Unusable::Truncated);
        }
        for len in 40..43 {
            assert_eq!(Ipv6::parse(&octets[..len]).unwrap_err(), Unusable::Ipv6PayloadLength);
            assert_eq!(Ipv6::parse_quoted(&octets[..len]).unwrap().1.len(), len - 40);
        }
        octets[0] = 0x40;
        assert_eq!(Ipv6::parse(&octets).unwrap_err(), Unusable::Ipv6Version);
    }

    #[test]
    fn setters_change_what_they_name() {
        let mut octets = packet();
        let other = Header {
            payload_len: 6,
            hop_limit: 1,
            source: header().destination,
            destination: header().source,
            ..header()
        };
        let (mut ip, _) = Ipv6Mut::parse(&mut octets).unwrap();
        ip.set_payload_len(6);
        ip.set_hop_limit(1);
        ip.set_source(other.source);
        ip.set_destination(other.destination);
        assert_eq!(octets[..40], other.octets());
    }
}
