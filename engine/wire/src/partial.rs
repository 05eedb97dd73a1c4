//! Checksums that a sender left to a card.
//!
//! Kernels of one machine hand each other frames whose TCP or UDP checksum field holds no more than
//! the sum of the pseudo-header, and whose SCTP one holds zero: a card would do the rest, but between
//! them is none. They know this beside the frame, and a driver that gives the director frames only
//! does not say it. Who changes such a frame as if it were finished makes it worthless.
//!
//! A finished checksum looks like that once in 65536 times. Then it is computed to what it is anyway,
//! unless the frame was damaged, which between kernels of one machine it is not.

use crate::checksum;
use crate::ethernet::{self, ethertype};
use crate::flow::protocol;
use crate::ipv4::Ipv4;
use crate::ipv6::{self, Ipv6};
use crate::ipv6_ext::{self, Fragment};
use crate::sctp;

/// Where TCP has its checksum.
const TCP_CHECKSUM: usize = 16;
/// Where UDP has its own.
const UDP_CHECKSUM: usize = 6;
/// Where SCTP has its own.
const SCTP_CHECKSUM: usize = 8;

/// Finishes the checksum of a frame that has half of one; leaves every other frame as it is, also
/// fragments and what is in tunnels.
pub fn finish(frame: &mut [u8]) {
    let _not_such_a_frame = look(frame).and_then(|found| write(frame, &found));
}

/// A message of an upper protocol in a frame.
struct Found {
    at: usize,
    octets: u16,
    protocol: u8,
    /// The sum of its pseudo-header, not folded.
    pseudo: u32,
}

fn look(frame: &[u8]) -> Option<Found> {
    let kind = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (mut at, mut ethertype) = (ethernet::HEADER_LEN, kind(ethernet::HEADER_LEN - 2)?);
    if ethertype == ethertype::VLAN {
        (at, ethertype) = (at + ethernet::TAG_LEN, kind(at + ethernet::TAG_LEN - 2)?);
    }
    let packet = frame.get(at..)?;
    match ethertype {
        ethertype::IPV4 => {
            let (ip, payload) = Ipv4::parse(packet).ok().filter(|(ip, _)| !ip.is_fragment())?;
            let (octets, protocol) = (u16::try_from(payload.len()).ok()?, ip.protocol());
            let pseudo = checksum::pseudo(ip.source(), ip.destination(), protocol, octets);
            Some(Found { at: at + ip.header_len(), octets, protocol, pseudo })
        }
        ethertype::IPV6 => {
            let (ip, payload) = Ipv6::parse(packet).ok()?;
            let upper = ipv6_ext::walk(ip.next_header(), payload).ok()?;
            let is_whole = upper.fragment.is_none_or(Fragment::is_whole);
            let message = Some(upper.payload).filter(|_| is_whole)?;
            let (octets, protocol) = (u16::try_from(message.len()).ok()?, upper.protocol);
            let pseudo = checksum::pseudo6(ip.source(), ip.destination(), protocol, octets);
            let at = at + ipv6::HEADER_LEN + upper.extensions_len;
            Some(Found { at, octets, protocol, pseudo })
        }
        _ => None,
    }
}

fn write(frame: &mut [u8], found: &Found) -> Option<()> {
    let message = frame.get_mut(found.at..found.at + usize::from(found.octets))?;
    let field = match found.protocol {
        protocol::TCP => TCP_CHECKSUM,
        protocol::UDP => UDP_CHECKSUM,
        protocol::SCTP => {
            let field: [u8; 4] = *message.get(SCTP_CHECKSUM..)?.first_chunk()?;
            if field == [0; 4] {
                let right = sctp::checksum(message);
                *message.get_mut(SCTP_CHECKSUM..)?.first_chunk_mut()? = right;
            }
            return Some(());
        }
        _ => return None,
    };
    let half = checksum::fold(found.pseudo).to_be_bytes();
    if *message.get(field..)?.first_chunk()? != half {
        return None;
    }
    // The field has the pseudo-header's sum, so the message's sum has it too.
    let whole = checksum::checksum(message, 0);
    let whole = if found.protocol == protocol::UDP { checksum::not_zero(whole) } else { whole };
    *message.get_mut(field..)?.first_chunk_mut()? = whole;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// A padded frame with `message` in it, and where that is.
    fn frame(v6: bool, tag: bool, message: &[u8], protocol: u8) -> (Vec<u8>, usize) {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if tag {
            frame.extend([0x81, 0, 0, 100]);
        }
        let octets = u8::try_from(message.len()).unwrap();
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, octets, protocol, 64]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        } else {
            let header = [0x45, 0, 0, octets + 20, 0, 1, 0x40, 0, 64, protocol, 0, 0];
            let mut header = [&header[..], &[192, 0, 2, 1, 192, 0, 2, 2]].concat();
            let sum = checksum::checksum(&header, 0);
            header[10..12].copy_from_slice(&sum);
            frame.extend([8, 0]);
            frame.extend(header);
        }
        let at = frame.len();
        frame.extend(message);
        frame.extend([0; 3]); // padding
        (frame, at)
    }

    fn pseudo(v6: bool, protocol: u8, octets: u16) -> u32 {
        if v6 {
            let [a, b] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
            checksum::pseudo6(a, b, protocol, octets)
        } else {
            checksum::pseudo([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), protocol, octets)
        }
    }

    #[test]
    fn half_a_checksum_is_finished_and_a_finished_one_left_alone() {
        for v6 in [false, true] {
            for tag in [false, true] {
                for (protocol, field, octets) in [(6, TCP_CHECKSUM, 31_u16), (17, UDP_CHECKSUM, 24)]
                {
                    let mut message: Vec<u8> =
                        (0..octets).map(|n| n.to_le_bytes()[0].wrapping_mul(7)).collect();
                    let pseudo = pseudo(v6, protocol, octets);
                    message[field..field + 2]
                        .copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
                    let (mut octets_of, at) = frame(v6, tag, &message, protocol);
                    finish(&mut octets_of);
                    let end = at + message.len();
                    assert!(
                        checksum::is_right(&octets_of[at..end], pseudo),
                        "{v6} {tag} {protocol}"
                    );
                    let mut again = octets_of.clone();
                    finish(&mut again);
                    assert_eq!(again, octets_of, "finished");
                    octets_of[end - 1] ^= 1;
                    let mut damaged = octets_of.clone();
                    finish(&mut damaged);
                    assert_eq!(damaged, octets_of, "damaged ones are not made good");
                }
            }
        }
    }

    #[test]
    fn half_a_checksum_behind_extension_headers_is_finished_unless_it_is_a_fragment() {
        // Hop-by-hop options, then destination options or a fragment header.
        for (kind, field, is_whole) in [(60, 0_u16, true), (44, 0, true), (44, 1, false)] {
            let [high, low] = field.to_be_bytes();
            let front = [[kind, 0, 1, 4, 0, 0, 0, 0], [6, 0, high, low, 0, 0, 0, 0]];
            let mut message: Vec<u8> = (1..=25).collect();
            let pseudo = pseudo(true, 6, 25);
            message[TCP_CHECKSUM..18].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
            let (mut octets, at) =
                frame(true, false, &[front.as_flattened(), &message].concat(), 0);
            let before = octets.clone();
            finish(&mut octets);
            let at = at + 16;
            assert_eq!(
                checksum::is_right(&octets[at..at + 25], pseudo),
                is_whole,
                "{kind} {field}"
            );
            assert_eq!(octets == before, !is_whole);
        }
    }

    #[test]
    fn an_sctp_checksum_of_zero_is_finished() {
        for v6 in [false, true] {
            let message: Vec<u8> =
                (0..28).map(|n| if (8..12).contains(&n) { 0 } else { n }).collect();
            let (mut octets, at) = frame(v6, false, &message, 132);
            finish(&mut octets);
            assert!(sctp::is_right(&octets[at..at + 28]));
        }
    }

    #[test]
    fn fragments_other_protocols_and_what_is_cut_are_left_as_they_are() {
        let pseudo = checksum::fold(pseudo(false, 6, 20)).to_be_bytes();
        let mut message = [0; 20];
        message[16..18].copy_from_slice(&pseudo);
        let (whole, at) = frame(false, false, &message, 6);
        let mut fragment = whole.clone();
        fragment[20] = 0x20; // more fragments
        fragment[24..26].fill(0);
        let sum = checksum::checksum(&fragment[14..34], 0);
        fragment[24..26].copy_from_slice(&sum);
        for mut frame in [fragment, whole[..at + 19].to_vec(), whole[..13].to_vec(), vec![]] {
            let before = frame.clone();
            finish(&mut frame);
            assert_eq!(frame, before);
        }
        let (mut icmp, _) = frame(false, false, &[8, 0, 0, 0, 0, 0, 0, 0], 1);
        let before = icmp.clone();
        finish(&mut icmp);
        assert_eq!(icmp, before);
    }
}
