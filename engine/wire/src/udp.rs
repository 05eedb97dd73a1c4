//! UDP headers (RFC 768).
//!
//! ```text
//!  0             2                  4        6          8
//!  ├ source port ┼ destination port ┼ length ┼ checksum ┼ data …
//! ```

use crate::checksum::{self, Delta};
use crate::unusable::Unusable;

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'p> {
    fixed: &'p [u8; HEADER_LEN],
}

impl<'p> Udp<'p> {
    /// Splits `datagram` into its header and its data; what the IP packet has behind them is left
    /// out.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::UdpLength`].
    #[inline]
    pub fn parse(datagram: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let fixed = datagram.first_chunk().ok_or(Unusable::Truncated)?;
        let header = Self { fixed };
        let data =
            datagram.get(HEADER_LEN..usize::from(header.len())).ok_or(Unusable::UdpLength)?;
        Ok((header, data))
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

    /// Octets of header and data.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the field's name; it is never below eight")]
    pub fn len(self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// The checksum; 0 means none.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }
}

/// A header to be rewritten; its checksum, if there is one, follows every change.
#[derive(Debug)]
pub struct UdpMut<'p> {
    fixed: &'p mut [u8; HEADER_LEN],
}

impl<'p> UdpMut<'p> {
    /// Splits `datagram` into its header and what follows.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`].
    pub fn parse(datagram: &'p mut [u8]) -> Result<(Self, &'p mut [u8]), Unusable> {
        let (fixed, rest) = datagram.split_first_chunk_mut().ok_or(Unusable::Truncated)?;
        Ok((Self { fixed }, rest))
    }

    /// The same header, to be read.
    #[inline]
    #[must_use]
    pub fn view(&self) -> Udp<'_> {
        Udp { fixed: self.fixed }
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
        let udp = &mut *self.fixed;
        if [udp[6], udp[7]] != [0, 0] {
            [udp[6], udp[7]] = delta.apply_udp([udp[6], udp[7]]);
        }
    }
}

/// The header of a datagram with `data`, which is at most 65527 octets long; `pseudo` is the sum
/// of the pseudo-header.
#[must_use]
pub fn header(source_port: u16, destination_port: u16, data: &[u8], pseudo: u32) -> [u8; 8] {
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX).saturating_add(8);
    let ([a, b], [c, d]) = (source_port.to_be_bytes(), destination_port.to_be_bytes());
    let [e, f] = len.to_be_bytes();
    let mut octets = [a, b, c, d, e, f, 0, 0];
    let more = u32::from(checksum::fold(pseudo)) + checksum::sum(data);
    [octets[6], octets[7]] = checksum::not_zero(checksum::checksum(&octets, more));
    octets
}
