//! A TCP stream that is made longer or shorter on its way: data replaced, and the sequence numbers that
//! go with it.
//!
//! ```text
//!  as its sender counts   ┆ before ┆ at: 46 octets ┆ after          sequence  +0 │ +2 behind `at`
//!  as its receiver does   ┆ before ┆ at: 48 octets   ┆ after        what is acknowledged: -0 │ -2
//! ```
//!
//! The rules of Linux 6.1 `nf_conntrack_seqadj.c` `nf_ct_seqadj_set()`, `nf_ct_seq_adjust()`,
//! `nf_ct_sack_adjust()`: what came before the last change is still told from what came after it, so
//! that a segment that was lost then can be sent again; what came before the last but one is not.

use crate::checksum::{self, Delta};
use crate::flow::{Ends as _, protocol};
use crate::rewrite::Rewrite;
use crate::tcp::{self, Tcp, flag};
use core::ops::Range;

/// TCP options (RFC 9293 section 3.2, RFC 2018 section 3).
const END: u8 = 0;
const PADDING: u8 = 1;
const SACK: u8 = 5;

/// By how much one direction of a stream has grown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Shift {
    /// Where the last change was, as the sender counts.
    at: u32,
    /// Octets more up to there, modulo 2^32.
    before: u32,
    /// Octets more behind it.
    after: u32,
}

/// Whether sequence number `one` comes after `other` (RFC 9293 section 3.4).
fn is_after(one: u32, other: u32) -> bool {
    let distance = one.wrapping_sub(other);
    distance != 0 && distance < 1 << 31
}

impl Shift {
    /// Whether the stream is as its sender sent it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        (self.before, self.after) == (0, 0)
    }

    /// The data of the segment at `sequence` has changed from so many octets to so many.
    pub fn change(&mut self, sequence: u32, from: usize, to: usize) {
        let count = |octets| u32::try_from(octets).unwrap_or_default();
        let more = count(to).wrapping_sub(count(from));
        if more != 0 && (self.before == self.after || is_after(sequence, self.at)) {
            let after = self.after.wrapping_add(more);
            *self = Self { at: sequence, before: self.after, after };
        }
    }

    /// What its receiver calls the sender's `sequence`.
    #[must_use]
    pub fn onward(&self, sequence: u32) -> u32 {
        let more = if is_after(sequence, self.at) { self.after } else { self.before };
        sequence.wrapping_add(more)
    }

    /// What its sender calls the receiver's `acknowledgment`.
    #[must_use]
    pub fn back(&self, acknowledgment: u32) -> u32 {
        let is_behind = is_after(acknowledgment.wrapping_sub(self.before), self.at);
        acknowledgment.wrapping_sub(if is_behind { self.after } else { self.before })
    }
}

fn renumber(place: Option<&mut [u8; 4]>, to: impl Fn(u32) -> u32) {
    if let Some(place) = place {
        *place = to(u32::from_be_bytes(*place)).to_be_bytes();
    }
}

/// Numbers a segment anew that its stream's sender sends: nothing happens to what is no segment.
pub fn renumber_onward(segment: &mut [u8], shift: &Shift) {
    renumber_header(segment, |header| {
        renumber(header.get_mut(4..8).and_then(<[u8]>::first_chunk_mut), |it| shift.onward(it));
    });
}

/// The same for a segment of its receiver, and what that acknowledges.
pub fn renumber_back(segment: &mut [u8], shift: &Shift) {
    renumber_header(segment, |header| {
        if header.get(13).is_none_or(|flags| flags & flag::ACK == 0) {
            return;
        }
        renumber(header.get_mut(8..12).and_then(<[u8]>::first_chunk_mut), |it| shift.back(it));
        if let Some(options) = header.get_mut(tcp::HEADER_LEN..) {
            renumber_sacks(options, shift);
        }
    });
}

/// RFC 2018 section 3: the edges of blocks that were received.
fn renumber_sacks(mut options: &mut [u8], shift: &Shift) {
    loop {
        options = match core::mem::take(&mut options) {
            [] | [END, ..] => return,
            [PADDING, rest @ ..] => rest,
            [kind, len, rest @ ..] => {
                let edges = usize::from(*len).checked_sub(2);
                let Some((edges, rest)) =
                    edges.and_then(|octets| rest.split_at_mut_checked(octets))
                else {
                    return;
                };
                if *kind == SACK {
                    for edge in edges.as_chunks_mut().0 {
                        renumber(Some(edge), |it| shift.back(it));
                    }
                }
                rest
            }
            [_] => return,
        };
    }
}

/// Changes a header; its checksum follows.
fn renumber_header(segment: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let Ok(header_len) = Tcp::parse(segment).map(|(tcp, _)| tcp.header_len()) else { return };
    let Some(header) = segment.get_mut(..header_len) else { return };
    let sum = |header: &[u8]| checksum::fold(checksum::sum(header));
    let before = sum(header);
    change(header);
    let delta = Delta::word(before, sum(header));
    if let Some([a, b]) = header.get_mut(16..18).and_then(<[u8]>::first_chunk_mut) {
        [*a, *b] = delta.apply([*a, *b]);
    }
}

/// Puts `text` in the place of some octets of the TCP data of `packet`, which are counted from the
/// transport header at `l4` on. `packet` has the length that comes of it, or the one that it had, the longer
/// one: `octets` of it are the packet. Lengths and checksums follow. Returns how many octets it has
/// now; `None`, and nothing has changed, if it is not such a packet.
#[must_use]
pub fn replace<F: Rewrite>(
    packet: &mut [u8],
    (l4, octets): (usize, usize),
    ends: F::Ends,
    place: Range<usize>,
    text: &[u8],
) -> Option<usize> {
    let place = place.start.checked_add(l4)?..place.end.checked_add(l4)?;
    let (_, data) = Tcp::parse(packet.get(l4..octets)?).ok()?;
    let now = octets.checked_sub(place.len())?.checked_add(text.len())?;
    let is_in_data = octets - data.len() <= place.start && place.end <= octets;
    let segment_octets = u16::try_from(now.checked_sub(l4)?).ok()?;
    let packet_octets = u16::try_from(now).ok()?;
    if !is_in_data || place.is_empty() || packet.len() < now {
        return None;
    }
    packet.copy_within(place.end..octets, place.start + text.len());
    packet.get_mut(place.start..place.start + text.len())?.copy_from_slice(text);
    F::set_octets(packet, packet_octets);
    let segment = packet.get_mut(l4..now)?;
    segment.get_mut(16..18)?.fill(0);
    let (from, to) = (ends.source().0, ends.destination().0);
    let pseudo = F::pseudo_sum(from, to, protocol::TCP, segment_octets);
    let sum = checksum::checksum(segment, pseudo);
    segment.get_mut(16..18)?.copy_from_slice(&sum);
    Some(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Ends, Ends4, V4};
    use crate::ipv4;
    use std::vec::Vec;
    use std::{format, vec};

    #[test]
    fn what_is_behind_a_change_is_shifted_in_both_directions_and_what_is_before_it_is_not() {
        let mut shift = Shift::default();
        assert!(shift.is_none());
        shift.change(1000, 46, 48);
        assert!(!shift.is_none());
        assert_eq!([990, 1000, 1001, 1046].map(|it| shift.onward(it)), [990, 1000, 1003, 1048]);
        assert_eq!([1000, 1003, 1048].map(|it| shift.back(it)), [1000, 1001, 1046]);
        // Sent again: the same change.
        shift.change(1000, 46, 48);
        assert_eq!(shift.onward(1046), 1048);
        shift.change(2000, 48, 45);
        assert_eq!([1046, 2000, 2048].map(|it| shift.onward(it)), [1048, 2002, 2047]);
        assert_eq!([1048, 2002, 2047].map(|it| shift.back(it)), [1046, 2000, 2048]);
    }

    #[test]
    fn numbers_wrap_round() {
        let mut shift = Shift::default();
        shift.change(u32::MAX - 10, 20, 30);
        assert_eq!(shift.onward(u32::MAX - 10), u32::MAX - 10);
        assert_eq!(shift.onward(9), 19);
        assert_eq!(shift.back(19), 9);
    }

    const FROM: (core::net::Ipv4Addr, u16) = (core::net::Ipv4Addr::new(192, 0, 2, 11), 21);
    const TO: (core::net::Ipv4Addr, u16) = (core::net::Ipv4Addr::new(198, 51, 100, 7), 40_000);

    /// A packet with these options and data.
    fn packet(options: &[u8], data: &[u8]) -> Vec<u8> {
        let header = tcp::Header {
            source_port: FROM.1,
            destination_port: TO.1,
            sequence: 1000,
            acknowledgment: 5002,
            flags: flag::ACK,
            window: 100,
        };
        let mut segment = header.octets(&[], 0).to_vec();
        segment[12] = u8::try_from((20 + options.len()) * 4).unwrap();
        segment[16..18].fill(0);
        segment.extend(options);
        segment.extend(data);
        let octets = u16::try_from(segment.len()).unwrap();
        let pseudo = checksum::pseudo(FROM.0, TO.0, protocol::TCP, octets);
        let sum = checksum::checksum(&segment, pseudo);
        segment[16..18].copy_from_slice(&sum);
        let ip = ipv4::Header {
            tos: 0,
            payload_len: octets,
            identification: 7,
            dont_fragment: true,
            ttl: 64,
            protocol: protocol::TCP,
            source: FROM.0,
            destination: TO.0,
        };
        [ip.octets().as_slice(), &segment].concat()
    }

    fn is_right(packet: &[u8]) -> bool {
        let (ip, segment) = ipv4::Ipv4::parse(packet).unwrap();
        let octets = u16::try_from(segment.len()).unwrap();
        let pseudo = checksum::pseudo(ip.source(), ip.destination(), protocol::TCP, octets);
        checksum::is_right(segment, pseudo) && checksum::is_right(&packet[..20], 0)
    }

    #[test]
    fn acknowledgments_and_selective_ones_are_numbered_back_wherever_they_stand() {
        let mut shift = Shift::default();
        shift.change(5000, 10, 12);
        for padding in [2, 1] {
            let mut options = vec![PADDING; padding];
            options.extend([SACK, 18]);
            for edge in [5000_u32, 5012, 6002, 7002] {
                options.extend(edge.to_be_bytes());
            }
            options.resize(options.len().next_multiple_of(4), END);
            let mut packet = packet(&options, b"QUIT\r\n");
            assert!(is_right(&packet));
            renumber_back(&mut packet[20..], &shift);
            assert!(is_right(&packet));
            let long = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            assert_eq!((long(24), long(28)), (1000, 5000), "4 and 8 octets into the segment");
            let at = 40 + padding + 2;
            assert_eq!([0, 4, 8, 12].map(|edge| long(at + edge)), [5000, 5010, 6000, 7000]);
        }
    }

    #[test]
    fn options_that_lie_about_their_length_end_the_search() {
        let mut shift = Shift::default();
        shift.change(0, 10, 12);
        for options in [[SACK, 40, 0, 0], [SACK, 1, 0, 0], [SACK, 0, 9, 9], [9, 2, PADDING, SACK]] {
            let mut packet = packet(&options, &[]);
            renumber_back(&mut packet[20..], &shift);
            assert_eq!(packet[40..44], options);
            assert!(is_right(&packet));
        }
    }

    #[test]
    fn replaced_data_has_lengths_and_checksums_that_are_right() {
        for (from, to) in [("abc", "abcdef"), ("abcdef", "x"), ("abc", "xyz")] {
            let mut packet = packet(&[], format!("227 ({from}).\r\n").as_bytes());
            let octets = packet.len();
            packet.resize(octets + to.len(), 0xaa);
            let place = 25..25 + from.len();
            let ends = Ends4::new(FROM, TO);
            let now = replace::<V4>(&mut packet, (20, octets), ends, place, to.as_bytes()).unwrap();
            packet.truncate(now);
            assert_eq!(&packet[40..], format!("227 ({to}).\r\n").as_bytes());
            assert!(is_right(&packet));
        }
        let mut packet = packet(&[], b"227");
        for place in [19..22, 20..24, 5..5] {
            let ends = Ends4::new(FROM, TO);
            assert_eq!(replace::<V4>(&mut packet, (20, 43), ends, place, b"227"), None);
        }
    }
}
