//! SCTP packets (RFC 9260 section 3), as far as somebody on the way looks at them.
//!
//! ```text
//!  0             2                  4                  8            12
//!  ├ source port ┼ destination port ┼ verification tag ┼ CRC-32C    ┼ chunks …
//!
//!  chunk:  type (1), flags (1), length (2), value, padding to four octets
//! ```
//!
//! The sum has no pseudo-header and is no sum: it covers the whole packet anew with every change.

use crate::unusable::Unusable;

/// Octets before the first chunk.
pub const HEADER_LEN: usize = 12;
/// Octets before a chunk's value.
const CHUNK_HEADER_LEN: usize = 4;

/// Types of chunks (RFC 9260 section 3.2).
pub mod chunk_type {
    /// Payload.
    pub const DATA: u8 = 0;
    /// Asks for an association.
    pub const INIT: u8 = 1;
    /// Grants it, with a cookie.
    pub const INIT_ACK: u8 = 2;
    /// Acknowledges data.
    pub const SACK: u8 = 3;
    /// Asks whether the peer is there.
    pub const HEARTBEAT: u8 = 4;
    /// It is.
    pub const HEARTBEAT_ACK: u8 = 5;
    /// Ends the association at once.
    pub const ABORT: u8 = 6;
    /// No more data from the sender.
    pub const SHUTDOWN: u8 = 7;
    /// No more data from either side.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Something went wrong.
    pub const ERROR: u8 = 9;
    /// Brings the cookie back.
    pub const COOKIE_ECHO: u8 = 10;
    /// The association stands.
    pub const COOKIE_ACK: u8 = 11;
    /// The association is over.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// What a packet does to a connection, in an octet of its own: what flags are in TCP.
///
/// The high half is a number. The bit that is TCP's SYN is set for INIT alone, so that whoever asks
/// for it asks in both protocols whether a connection may begin.
pub mod event {
    /// Data, acknowledgements, heartbeats, and whatever is not known.
    pub const DATA: u8 = 0x00;
    /// A connection may begin.
    pub const INIT: u8 = 0x12;
    /// The answer to that.
    pub const INIT_ACK: u8 = 0x20;
    /// The third packet of a handshake.
    pub const COOKIE_ECHO: u8 = 0x30;
    /// The last one.
    pub const COOKIE_ACK: u8 = 0x40;
    /// The first of three that end a connection.
    pub const SHUTDOWN: u8 = 0x50;
    /// The second.
    pub const SHUTDOWN_ACK: u8 = 0x60;
    /// The third.
    pub const SHUTDOWN_COMPLETE: u8 = 0x70;
    /// An error.
    pub const ERROR: u8 = 0x80;
    /// The end.
    pub const ABORT: u8 = 0x90;
    /// There is no chunk.
    pub const NOTHING: u8 = 0xf0;
}

const _: () = assert!(event::INIT & crate::tcp::flag::SYN != 0);

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Sctp<'p> {
    fixed: &'p [u8; HEADER_LEN],
    chunks: &'p [u8],
}

impl<'p> Sctp<'p> {
    /// The header of an IP packet's payload, which is all one SCTP packet. The checksum is not
    /// looked at: see [`is_right`].
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`].
    #[inline]
    pub fn parse(packet: &'p [u8]) -> Result<Self, Unusable> {
        let (fixed, chunks) = packet.split_first_chunk().ok_or(Unusable::Truncated)?;
        Ok(Self { fixed, chunks })
    }

    /// What tells the packets of an association from others.
    #[must_use]
    pub fn verification_tag(self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = *self.fixed;
        u32::from_be_bytes([a, b, c, d])
    }

    /// See [`event()`].
    ///
    /// The first chunk decides, unless it is a cookie's and an ABORT comes behind it (Linux 6.1
    /// `ip_vs_proto_sctp.c` `set_sctp_state()`). DIFFERS from Linux in IPv6, which looks for chunks
    /// right behind the fixed header even when there are extension headers.
    #[must_use]
    pub fn event(self) -> u8 {
        let mut chunks = Chunks(self.chunks);
        let Some((kind, _)) = chunks.next() else { return event::NOTHING };
        let kind = match kind {
            chunk_type::COOKIE_ECHO | chunk_type::COOKIE_ACK => match chunks.next() {
                Some((chunk_type::ABORT, _)) => chunk_type::ABORT,
                _ => kind,
            },
            _ => kind,
        };
        match kind {
            chunk_type::INIT => event::INIT,
            chunk_type::INIT_ACK => event::INIT_ACK,
            chunk_type::COOKIE_ECHO => event::COOKIE_ECHO,
            chunk_type::COOKIE_ACK => event::COOKIE_ACK,
            chunk_type::SHUTDOWN => event::SHUTDOWN,
            chunk_type::SHUTDOWN_ACK => event::SHUTDOWN_ACK,
            chunk_type::SHUTDOWN_COMPLETE => event::SHUTDOWN_COMPLETE,
            chunk_type::ERROR => event::ERROR,
            chunk_type::ABORT => event::ABORT,
            _ => event::DATA,
        }
    }

    /// What a host without an association answers (RFC 9260 section 8.4): an ABORT or a SHUTDOWN
    /// COMPLETE, or nothing.
    #[must_use]
    pub fn answer(self) -> Option<[u8; ANSWER_LEN]> {
        let mut chunks = Chunks(self.chunks);
        let (first, value) = chunks.next()?;
        let mut others = chunks.map(|(kind, _)| kind);
        if is_unanswerable(first) || others.any(is_unanswerable) {
            return None;
        }
        // The T bit says whose tag it is: the peer's own, known from its INIT alone, or the one that
        // it sent.
        let (kind, flags, tag) = match first {
            chunk_type::INIT => (chunk_type::ABORT, 0, *value.first_chunk()?),
            chunk_type::SHUTDOWN_ACK => (chunk_type::SHUTDOWN_COMPLETE, 1, self.tag_octets()),
            _ => (chunk_type::ABORT, 1, self.tag_octets()),
        };
        let [a, b, c, d, ..] = *self.fixed;
        let [e, f, g, h] = tag;
        let mut answer = [c, d, a, b, e, f, g, h, 0, 0, 0, 0, kind, flags, 0, 4];
        [answer[8], answer[9], answer[10], answer[11]] = checksum(&answer);
        Some(answer)
    }

    fn tag_octets(self) -> [u8; 4] {
        self.verification_tag().to_be_bytes()
    }
}

/// Octets of [`Sctp::answer`].
pub const ANSWER_LEN: usize = HEADER_LEN + CHUNK_HEADER_LEN;

/// What ends the talk.
fn is_unanswerable(kind: u8) -> bool {
    matches!(kind, chunk_type::ABORT | chunk_type::SHUTDOWN_COMPLETE | chunk_type::COOKIE_ACK)
}

/// Types and values of chunks, as far as their lengths make sense.
struct Chunks<'p>(&'p [u8]);

impl<'p> Iterator for Chunks<'p> {
    type Item = (u8, &'p [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, _, a, b] = *self.0.first_chunk::<CHUNK_HEADER_LEN>()?;
        let octets = usize::from(u16::from_be_bytes([a, b]));
        let chunk = self.0.get(..octets).unwrap_or(self.0);
        // A length below the header's is no way to the next chunk.
        let next = if octets < CHUNK_HEADER_LEN { usize::MAX } else { octets.next_multiple_of(4) };
        self.0 = self.0.get(next..).unwrap_or_default();
        Some((kind, chunk.get(CHUNK_HEADER_LEN..).unwrap_or_default()))
    }
}

/// See [`Sctp::event`], of an IP packet's payload.
///
/// # Errors
///
/// [`Unusable::Truncated`].
#[cold]
#[inline(never)]
pub fn event(packet: &[u8]) -> Result<u8, Unusable> {
    Sctp::parse(packet).map(Sctp::event)
}

/// The checksum of a packet, whatever its checksum field holds (RFC 9260 section 6.8, appendix A).
#[must_use]
pub fn checksum(packet: &[u8]) -> [u8; 4] {
    let (before, rest) = packet.split_at_checked(8).unwrap_or((packet, &[]));
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default()).to_le_bytes()
}

/// Whether a packet's checksum is that of the packet.
#[must_use]
pub fn is_right(packet: &[u8]) -> bool {
    packet.get(8..HEADER_LEN) == Some(&checksum(packet))
}

/// Writes source and destination port into a packet, and the checksum that goes with them.
///
/// Linux 6.1 `ip_vs_proto_sctp.c` `sctp_dnat_handler()`: only if they change, and then the checksum
/// is right afterwards even if it was not before.
#[cold]
#[inline(never)]
#[must_use]
pub fn set_ports(packet: &mut [u8], ports: [u8; 4]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return false };
    if header.first_chunk() == Some(&ports) {
        return true;
    }
    [header[0], header[1], header[2], header[3]] = ports;
    let sum = checksum(packet);
    if let Some(place) = packet.get_mut(8..HEADER_LEN) {
        place.copy_from_slice(&sum);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A packet with these chunks.
    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        let mut packet = [&[0x80, 0, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0][..], &chunks.concat()].concat();
        let sum = checksum(&packet);
        packet[8..12].copy_from_slice(&sum);
        packet
    }

    fn event_of(chunks: &[&[u8]]) -> u8 {
        event(&packet(chunks)).unwrap()
    }

    #[test]
    fn the_vectors_of_rfc3720_come_out() {
        // Appendix B.4: CRC-32C of 32 octets, in the order in which it is sent.
        let ascending: [u8; 32] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        let mut descending = ascending;
        descending.reverse();
        for (octets, sum) in [
            ([0; 32], [0xaa, 0x36, 0x91, 0x8a]),
            ([0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (ascending, [0x4e, 0x79, 0xdd, 0x46]),
            (descending, [0x5c, 0xdb, 0x3f, 0x11]),
        ] {
            assert_eq!(crc32c::crc32c(&octets).to_le_bytes(), sum);
        }
    }

    /// RFC 9260 appendix A, bit by bit.
    #[test]
    fn the_checksum_is_the_division_that_the_rfc_describes() {
        let packet =
            packet(&[&[0, 3, 0, 19, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c', 0]]);
        let mut crc = !0_u32;
        for (octet, at) in packet.iter().zip(0..) {
            let octet = if (8..12).contains(&at) { 0 } else { *octet };
            crc ^= u32::from(octet);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 };
            }
        }
        assert_eq!(packet[8..12], (!crc).to_le_bytes());
        assert!(is_right(&packet));
        for at in 0..packet.len() {
            let mut wrong = packet.clone();
            wrong[at] ^= 1;
            assert!(!is_right(&wrong), "octet {at}");
        }
    }

    #[test]
    fn the_first_chunk_decides_but_for_an_abort_behind_a_cookie() {
        let abort = &[6, 0, 0, 4][..];
        assert_eq!(event_of(&[]), event::NOTHING);
        assert_eq!(event_of(&[&[1, 0, 0, 4]]), event::INIT);
        assert_eq!(event_of(&[&[3, 0, 0, 4], &[7, 0, 0, 8, 0, 0, 0, 0]]), event::DATA);
        assert_eq!(event_of(&[&[7, 0, 0, 8, 0, 0, 0, 0], abort]), event::SHUTDOWN);
        for cookie in [10, 11] {
            let padded = [cookie, 0, 0, 7, 1, 2, 3, 0];
            assert_eq!(event_of(&[&padded, abort]), event::ABORT);
            assert_ne!(event_of(&[&padded, &[3, 0, 0, 4], abort]), event::ABORT);
            assert_ne!(event_of(&[&[cookie, 0, 0, 3], abort]), event::ABORT, "no length");
            assert_ne!(event_of(&[&[cookie, 0, 0xff, 0xff], abort]), event::ABORT, "too long");
        }
        for unknown in [12, 13, 15, 64, 0xc0, 0xff] {
            assert_eq!(event_of(&[&[unknown, 0, 0, 4]]), event::DATA);
        }
    }

    #[test]
    fn ports_that_change_bring_a_new_checksum_and_others_leave_a_wrong_one() {
        let mut packet = packet(&[&[0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0]]);
        assert!(set_ports(&mut packet, [0x80, 0, 0x1f, 0x90]));
        assert_eq!(packet[..4], [0x80, 0, 0x1f, 0x90]);
        assert!(is_right(&packet));
        packet[20] ^= 1;
        assert!(set_ports(&mut packet, [0x80, 0, 0x1f, 0x90]));
        assert!(!is_right(&packet));
        assert!(!set_ports(&mut [0; 11], [0; 4]));
    }

    #[test]
    fn packets_out_of_the_blue_are_answered_as_rfc9260_section_8_4_says() {
        let answer = |chunks: &[&[u8]]| {
            let packet = packet(chunks);
            let answer = Sctp::parse(&packet).unwrap().answer();
            if let Some(answer) = answer {
                assert_eq!(answer[..4], [0, 80, 0x80, 0], "ports turn round");
                assert!(is_right(&answer));
            }
            answer.map(|answer| {
                (answer[12], answer[13], [answer[4], answer[5], answer[6], answer[7]])
            })
        };
        let init = [1, 0, 0, 20, 9, 8, 7, 6, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        assert_eq!(answer(&[&init]), Some((6, 0, [9, 8, 7, 6])));
        assert_eq!(answer(&[&[0, 3, 0, 4]]), Some((6, 1, [1, 2, 3, 4])));
        assert_eq!(answer(&[&[8, 0, 0, 4]]), Some((14, 1, [1, 2, 3, 4])));
        for silent in [6, 11, 14] {
            assert_eq!(answer(&[&[silent, 0, 0, 4]]), None);
            assert_eq!(answer(&[&[0, 3, 0, 4], &[silent, 0, 0, 4]]), None);
        }
        assert_eq!(answer(&[]), None);
    }
}
