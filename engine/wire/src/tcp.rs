//! TCP headers (RFC 9293 section 3.1).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------------------------------+-------------------------------+
//!  |          Source port          |       Destination port        |  0
//!  |                        Sequence number                        |  4
//!  |                     Acknowledgment number                     |  8
//!  | Offset|  Res. |     Flags     |            Window             | 12
//!  |           Checksum            |         Urgent pointer        | 16
//!  +-------------------------------+-------------------------------+
//!  |                    Options, 0 to 40 octets                    | 20
//! ```

use crate::checksum::{self, Delta};
use crate::unusable::Unusable;

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// Control bits.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Hand the data over.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// SYN, and neither ACK nor RST: what a client begins a connection with.
#[inline]
#[must_use]
pub const fn is_lone_syn(flags: u8) -> bool {
    flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
}

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'p> {
    fixed: &'p [u8; HEADER_LEN],
    options: &'p [u8],
}

impl<'p> Tcp<'p> {
    /// Splits `segment` into its header and its data.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::TcpHeaderLength`].
    #[inline]
    pub fn parse(segment: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let (fixed, rest) = segment.split_first_chunk().ok_or(Unusable::Truncated)?;
        let header = Self { fixed, options: &[] };
        let options_len =
            header.header_len().checked_sub(HEADER_LEN).ok_or(Unusable::TcpHeaderLength)?;
        let (options, data) =
            rest.split_at_checked(options_len).ok_or(Unusable::TcpHeaderLength)?;
        Ok((Self { options, ..header }, data))
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub fn source_port(self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// Sequence number.
    #[inline]
    #[must_use]
    pub fn sequence(self) -> u32 {
        u32::from_be_bytes([self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]])
    }

    /// Acknowledgment number.
    #[inline]
    #[must_use]
    pub fn acknowledgment(self) -> u32 {
        u32::from_be_bytes([self.fixed[8], self.fixed[9], self.fixed[10], self.fixed[11]])
    }

    /// Octets of the header, options included: 20..=60.
    #[inline]
    #[must_use]
    pub fn header_len(self) -> usize {
        usize::from(self.fixed[12] >> 4) * 4
    }

    /// Control bits: see [`flag`].
    #[inline]
    #[must_use]
    pub fn flags(self) -> u8 {
        self.fixed[13]
    }

    /// Octets the sender has room for, not scaled.
    #[inline]
    #[must_use]
    pub fn window(self) -> u16 {
        u16::from_be_bytes([self.fixed[14], self.fixed[15]])
    }

    /// The checksum.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        u16::from_be_bytes([self.fixed[16], self.fixed[17]])
    }

    /// Option octets, possibly none.
    #[inline]
    #[must_use]
    pub fn options(self) -> &'p [u8] {
        self.options
    }
}

/// A header to be rewritten; its checksum follows every change.
#[derive(Debug)]
pub struct TcpMut<'p> {
    fixed: &'p mut [u8; HEADER_LEN],
}

impl<'p> TcpMut<'p> {
    /// Splits `segment` into the fixed part of its header and what follows, options first.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`].
    pub fn parse(segment: &'p mut [u8]) -> Result<(Self, &'p mut [u8]), Unusable> {
        let (fixed, rest) = segment.split_first_chunk_mut().ok_or(Unusable::Truncated)?;
        Ok((Self { fixed }, rest))
    }

    /// The same header, to be read; options are left out.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Tcp<'_> {
        Tcp { fixed: self.fixed, options: &[] }
    }

    /// Source port.
    pub fn set_source_port(&mut self, to: u16) {
        self.apply(Delta::word(self.view().source_port(), to));
        [self.fixed[0], self.fixed[1]] = to.to_be_bytes();
    }

    /// Destination port.
    pub fn set_destination_port(&mut self, to: u16) {
        self.apply(Delta::word(self.view().destination_port(), to));
        [self.fixed[2], self.fixed[3]] = to.to_be_bytes();
    }

    /// What changed elsewhere: in the pseudo-header.
    pub fn apply(&mut self, delta: Delta) {
        [self.fixed[16], self.fixed[17]] = delta.apply([self.fixed[16], self.fixed[17]]);
    }
}

/// A header without options, to be written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Control bits: see [`flag`].
    pub flags: u8,
    /// Octets the sender has room for.
    pub window: u16,
}

impl Header {
    /// The header's octets before `data`; `pseudo` is the sum of the pseudo-header.
    #[must_use]
    pub fn octets(&self, data: &[u8], pseudo: u32) -> [u8; HEADER_LEN] {
        let ([a, b], [c, d]) =
            (self.source_port.to_be_bytes(), self.destination_port.to_be_bytes());
        let [e, f, g, h] = self.sequence.to_be_bytes();
        let [i, j, k, l] = self.acknowledgment.to_be_bytes();
        let [m, n] = self.window.to_be_bytes();
        let mut octets = [a, b, c, d, e, f, g, h, i, j, k, l, 0x50, self.flags, m, n, 0, 0, 0, 0];
        let more = u32::from(checksum::fold(pseudo)) + checksum::sum(data);
        [octets[16], octets[17]] = checksum::checksum(&octets, more);
        octets
    }
}
