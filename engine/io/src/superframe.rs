//! The header before each frame of a TAP that carries what is not finished: frames of up to 64 KB that
//! somebody will cut, and checksums that somebody will finish.
//!
//! ```text
//!  flags 1 │ kind 1 │ headers 2 │ segment 2 │ l4 2 │ field 2 │ Ethernet …
//! ```
//!
//! `struct virtio_net_hdr`, VIRTIO 1.2 section 5.1.6, in the machine's own byte order as TAPs have it
//! unless told otherwise. What it says goes beside the frame into its room, and comes out again when the
//! frame is sent on; meanwhile headers may have changed. The checksum's field must hold the sum of
//! the pseudo-header then, which is computed from the headers as they are.
//!
//! The header is the kernel's, but a container may write any: who holds a raw socket there chooses all
//! ten octets. So a frame stays unfinished only if it is what the director can carry: TCP or UDP right
//! in the packet, whose checksum's field holds the pseudo-header's sum. Any other checksum is finished
//! at once, from where to where the header says.

use crate::frame::{Frame, Note, RoomFrame};
use rvs_wire::checksum::{self, fold, sum};

/// Octets of the header.
pub const HEADER_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`, and the bit beside them,
/// `VIRTIO_NET_HDR_GSO_ECN`.
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const ECN: u8 = 0x80;
/// Octets of an Ethernet header, and of a VLAN tag in it.
const ETHERNET: usize = 14;
const TAG: usize = 4;
const IPV6: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where TCP has its checksum, and UDP.
const TCP_FIELD: u16 = 16;
const UDP_FIELD: u16 = 6;

/// Takes in what the header of a received frame says. `false` if it is to be cut in a way that was not
/// offered, or cannot be: such a frame goes no further.
#[must_use]
pub fn take_note(header: [u8; HEADER_LEN], frame: &mut RoomFrame) -> bool {
    let [flags, kind, _, _, s0, s1, l0, l1, f0, f1] = header;
    let segment = u16::from_ne_bytes([s0, s1]);
    let (l4, field) = (u16::from_ne_bytes([l0, l1]), u16::from_ne_bytes([f0, f1]));
    let is_cut = kind & !ECN != 0;
    if flags & NEEDS_CHECKSUM == 0 {
        return !is_cut;
    }
    let segment = if is_cut { segment } else { 0 };
    if let Some(left) = Left::find(frame.octets(), usize::from(l4), field)
        && word(frame.octets(), usize::from(l4) + usize::from(field))
            .is_some_and(|sum| is_same_sum(sum, left.sum))
        && (!is_cut || segment > 0 && left.may_be_cut(kind & !ECN, frame.octets(), l4))
        && frame.note(Note { l4, field, segment, kind: kind.into() })
    {
        return true;
    }
    let covered = frame.octets_mut().get_mut(usize::from(l4)..).filter(|_| !is_cut);
    covered.and_then(|covered| checksum::finish(covered, field.into())).is_some()
}

/// The header for a frame that is sent; then the checksum's field holds what it shall. `None` if the
/// frame is no longer what it was taken for.
#[must_use]
pub fn header_for(frame: &mut RoomFrame) -> Option<[u8; HEADER_LEN]> {
    let Some(note) = frame.noted() else { return Some([0; HEADER_LEN]) };
    leave_sum(frame)?;
    let headers = frame.unfinished()?.segments.map_or(0, |cut| cut.headers);
    let [kind, _] = note.kind.to_le_bytes();
    let [h0, h1] = u16::try_from(headers).ok()?.to_ne_bytes();
    let ([s0, s1], [l0, l1]) = (note.segment.to_ne_bytes(), note.l4.to_ne_bytes());
    let [f0, f1] = note.field.to_ne_bytes();
    Some([NEEDS_CHECKSUM, kind, h0, h1, s0, s1, l0, l1, f0, f1])
}

/// Writes the pseudo-header's sum where the checksum will be.
pub(crate) fn leave_sum(frame: &mut RoomFrame) -> Option<()> {
    let note = frame.noted()?;
    let l4 = usize::from(note.l4);
    let left = Left::find(frame.octets(), l4, note.field)?;
    let place = frame.octets_mut().get_mut(l4 + usize::from(note.field)..)?;
    *place.first_chunk_mut()? = left.sum.to_be_bytes();
    Some(())
}

/// What a packet's headers say of the TCP or UDP in it.
struct Left {
    /// The sum of its pseudo-header, folded: RFC 9293 section 3.1, RFC 8200 section 8.1.
    sum: u16,
    /// How it may be cut.
    kind: Option<u8>,
    /// Where its packet ends.
    end: usize,
}

impl Left {
    /// If it is a whole packet's, not in a tunnel, and begins at `l4`.
    fn find(frame: &[u8], l4: usize, field: u16) -> Option<Self> {
        let protocol = match field {
            TCP_FIELD => TCP,
            UDP_FIELD => UDP,
            _ => return None,
        };
        let mut l3 = ETHERNET;
        let mut ethertype = word(frame, l3 - 2)?;
        while matches!(ethertype, 0x8100 | 0x88a8) {
            l3 += TAG;
            ethertype = word(frame, l3 - 2)?;
        }
        let (kind, addresses, end) = match ethertype {
            0x0800 => {
                let first = frame.get(l3)?;
                let (header, piece) = (4 * usize::from(first & 15), word(frame, l3 + 6)? & 0x3fff);
                if frame.get(l3 + 9) != Some(&protocol) || l4 != l3 + header || piece != 0 {
                    return None;
                }
                (TCP_V4, frame.get(l3 + 12..l3 + 20)?, l3 + usize::from(word(frame, l3 + 2)?))
            }
            0x86dd => {
                let (mut next, mut at) = (*frame.get(l3 + 6)?, l3 + IPV6);
                // Hop by hop, routing, destination options: RFC 8200 section 4. The sum behind a
                // routing header is of another address, and so not the one that is there.
                while matches!(next, 0 | 43 | 60) && at < l4 {
                    let words = *frame.get(at + 1)?;
                    (next, at) = (*frame.get(at)?, at + 8 + 8 * usize::from(words));
                }
                if next != protocol || at != l4 {
                    return None;
                }
                let end = l3 + IPV6 + usize::from(word(frame, l3 + 4)?);
                (TCP_V6, frame.get(l3 + 8..l3 + IPV6)?, end)
            }
            _ => return None,
        };
        let octets = u16::try_from(end.checked_sub(l4)?).ok()?;
        let sum = fold(sum(addresses) + u32::from(protocol) + u32::from(octets));
        Some(Self { sum, kind: Some(kind).filter(|_| protocol == TCP), end })
    }

    /// Whether the frame may be cut in this way: it ends with its packet, and there is something behind
    /// a whole header of TCP.
    fn may_be_cut(&self, kind: u8, frame: &[u8], l4: u16) -> bool {
        let l4 = usize::from(l4);
        // RFC 9293 section 3.1: the data offset counts words of four octets.
        let words = frame.get(l4 + 12).map_or(0, |offset| usize::from(offset >> 4));
        let has_headers = words >= 5 && l4 + 4 * words < frame.len();
        self.kind == Some(kind) && self.end == frame.len() && has_headers
    }
}

/// Whether two sums say the same: zero has two forms (RFC 1071 section 1).
fn is_same_sum(one: u16, other: u16) -> bool {
    one % u16::MAX == other % u16::MAX
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*octets.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pool, Reserve, Segments};

    const V4: [&[u8]; 2] = [&[192, 0, 2, 1], &[192, 0, 2, 2]];

    /// An IPv4 packet of 20 octets and `message`.
    fn v4(protocol: u8, message: &[u8]) -> Vec<u8> {
        let octets = u8::try_from(20 + message.len()).unwrap();
        let header = [0x45, 0, 0, octets, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        [&[8, 0][..], &header, V4[0], V4[1], message].concat()
    }

    /// An IPv6 packet with `message` behind `between`.
    fn v6(next: u8, between: &[u8], message: &[u8]) -> Vec<u8> {
        let octets = u8::try_from(between.len() + message.len()).unwrap();
        let header = [0x86, 0xdd, 0x60, 0, 0, 0, 0, octets, next, 64];
        [&header[..], &[0x20; 16], &[0x21; 16], between, message].concat()
    }

    /// 20 octets of TCP header with the sum of the pseudo-header, and 10 of payload.
    fn tcp(sum: u16) -> Vec<u8> {
        let mut tcp = vec![0; 30];
        tcp[12] = 5 << 4;
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    /// c000 + 0201 + c000 + 0202 + 6 + 30, folded.
    const SUM: u16 = 0x8428;
    /// 16 times 2020 and 2121, 6 and 30: eight times 4141 and 24 hex, folded.
    const SUM6: u16 = 0x0a2e;

    fn frame(packet: &[u8]) -> RoomFrame {
        let octets = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], packet].concat();
        let mut frame = Reserve::new(1, 1514).pool().take().unwrap();
        assert!(frame.fill(&octets));
        frame
    }

    fn header(kind: u8, segment: u16, l4: u16, field: u16) -> [u8; HEADER_LEN] {
        let ([s0, s1], [l0, l1]) = (segment.to_ne_bytes(), l4.to_ne_bytes());
        let [f0, f1] = field.to_ne_bytes();
        let [h0, h1] = if segment == 0 { [0; 2] } else { l4.wrapping_add(20).to_ne_bytes() };
        [NEEDS_CHECKSUM, kind, h0, h1, s0, s1, l0, l1, f0, f1]
    }

    #[test]
    fn what_a_header_said_is_in_the_header_of_the_frame_that_is_sent_on() {
        let extension = [6, 0, 1, 4, 0, 0, 0, 0];
        for (packet, kind, l4, sum) in [
            (v4(6, &tcp(SUM)), TCP_V4, 34, SUM),
            (v4(6, &tcp(SUM)), TCP_V4 | ECN, 34, SUM),
            (v6(6, &[], &tcp(SUM6)), TCP_V6, 54, SUM6),
            (v6(60, &extension, &tcp(SUM6)), TCP_V6, 62, SUM6),
        ] {
            for (kind, segment) in [(kind, 4), (0, 0)] {
                let mut frame = frame(&packet);
                let said = header(kind, segment, l4, 16);
                assert!(take_note(said, &mut frame), "{l4} {kind}");
                let left = frame.unfinished().unwrap();
                let (headers, payload) = (usize::from(l4) + 20, 4);
                let cut = Some(Segments { headers, payload }).filter(|_| segment > 0);
                assert_eq!((left.l4, left.field, left.segments), (l4.into(), 16, cut));
                // Rewriting makes nonsense of the field.
                let field = usize::from(l4) + 16;
                frame.octets_mut()[field] ^= 0x55;
                assert_eq!(header_for(&mut frame), Some(said));
                assert_eq!(word(frame.octets(), field), Some(sum));
            }
        }
    }

    #[test]
    fn a_tag_moves_where_headers_begin_and_other_addresses_have_another_sum() {
        let mut frame = frame(&v4(6, &tcp(SUM)));
        assert!(take_note(header(TCP_V4, 4, 34, 16), &mut frame));
        let untagged = frame.octets().to_vec();
        assert!(frame.shift_front(4));
        let tagged = [&untagged[..12], &[0x81, 0, 0, 100], &untagged[12..]].concat();
        frame.octets_mut().copy_from_slice(&tagged);
        frame.octets_mut()[37] = 3;
        assert_eq!(header_for(&mut frame), Some(header(TCP_V4, 4, 38, 16)));
        assert_eq!(word(frame.octets(), 54), Some(SUM + 1));
    }

    #[test]
    fn finished_frames_have_an_empty_header() {
        let mut whole = frame(&v4(6, &tcp(SUM)));
        assert!(take_note([0; HEADER_LEN], &mut whole));
        assert_eq!((whole.unfinished(), header_for(&mut whole)), (None, Some([0; HEADER_LEN])));
        let mut done = frame(&v4(6, &tcp(SUM)));
        assert!(take_note(header(TCP_V4, 4, 34, 16), &mut done));
        done.finished();
        assert_eq!(header_for(&mut done), Some([0; HEADER_LEN]));
    }

    /// Whether the message at `l4` has a right checksum, if `sum` is its pseudo-header's.
    fn is_right(octets: &[u8], l4: usize, pseudo: u16) -> bool {
        fold(sum(&octets[l4..]) + u32::from(pseudo)) == 0xffff
    }

    #[test]
    fn a_checksum_that_cannot_be_carried_is_finished_at_once() {
        // In a tunnel; of a fragment; behind a routing header, whose pseudo-header has another address;
        // of a protocol that is neither TCP nor UDP.
        let mut fragment = v4(6, &tcp(SUM));
        fragment[8] = 0x20;
        let tunnelled = v4(4, &v4(6, &tcp(SUM))[2..]);
        let routed = v6(43, &[6, 0, 2, 1, 0, 0, 0, 0], &tcp(SUM6 + 7));
        let other = v4(136, &[&[0; 6][..], &SUM.to_be_bytes(), &[0; 22]].concat());
        for (packet, l4, field, sum) in [
            (fragment, 34, 16, SUM),
            (tunnelled, 54, 16, SUM),
            (routed, 62, 16, SUM6 + 7),
            (other, 34, 6, SUM),
        ] {
            let mut frame = frame(&packet);
            assert!(take_note(header(0, 0, l4, field), &mut frame));
            assert_eq!(frame.unfinished(), None);
            let octets = frame.octets().to_vec();
            let mut rest = octets.clone();
            let place = usize::from(l4 + field);
            rest[place..place + 2].fill(0);
            let pseudo = sum;
            assert!(is_right(&octets, l4.into(), pseudo), "{l4} {field}");
            assert_eq!(header_for(&mut frame), Some([0; HEADER_LEN]));
        }
    }

    #[test]
    fn frames_to_be_cut_that_make_no_sense_are_refused() {
        let good = v4(6, &tcp(SUM));
        let mut without_headers = good.clone();
        without_headers[34] = 4 << 4;
        let mut all_headers = good.clone();
        all_headers[34] = 15 << 4;
        for (packet, said) in [
            (&good, header(TCP_V6, 4, 34, 16)),
            (&good, header(3, 4, 34, 16)),
            (&good, header(5, 4, 34, 16)),
            (&good, header(TCP_V4, 0, 34, 16)),
            (&good, header(TCP_V4, 4, 33, 16)),
            (&good, header(TCP_V4, 4, 34, 6)),
            (&good, header(TCP_V4, 4, u16::MAX, 16)),
            (&[&good[..], &[0]].concat(), header(TCP_V4, 4, 34, 16)),
            (&good[..good.len() - 1].to_vec(), header(TCP_V4, 4, 34, 16)),
            (&v6(60, &[44, 0, 1, 4, 0, 0, 0, 0], &tcp(SUM6)), header(TCP_V6, 4, 62, 16)),
            (&v6(60, &[6, 1, 1, 4, 0, 0, 0, 0], &tcp(SUM6)), header(TCP_V6, 4, 62, 16)),
            (&good, header(TCP_V4, 4, 34, u16::MAX)),
            (&good, [0, TCP_V4, 54, 0, 4, 0, 34, 0, 16, 0]),
            (&v4(6, &tcp(SUM + 1)), header(TCP_V4, 4, 34, 16)),
            (&without_headers, header(TCP_V4, 4, 34, 16)),
            (&all_headers, header(TCP_V4, 4, 34, 16)),
        ] {
            let mut frame = frame(packet);
            assert!(!take_note(said, &mut frame), "{said:?}");
            assert_eq!(frame.unfinished(), None);
        }
    }

    #[test]
    fn a_sum_of_zero_is_carried_in_both_its_forms() {
        // Less by as much as the sum is.
        let mut packet = v4(6, &tcp(0));
        packet[14..16].copy_from_slice(&(0xc000 - SUM).to_be_bytes());
        for form in [0, u16::MAX] {
            packet[38..40].copy_from_slice(&form.to_be_bytes());
            let mut frame = frame(&packet);
            assert!(take_note(header(TCP_V4, 4, 34, 16), &mut frame), "{form:x}");
            assert!(header_for(&mut frame).is_some());
            assert_eq!(word(frame.octets(), 50), Some(u16::MAX));
        }
    }

    #[test]
    fn checksums_outside_of_the_frame_are_refused_whatever_is_in_it() {
        let whole = frame(&v4(6, &tcp(SUM))).octets().to_vec();
        for len in 0..whole.len() {
            for (l4, field) in [(34, 16), (0, 0), (63, 0), (62, 1), (64, 0), (u16::MAX, u16::MAX)] {
                let mut frame = frame(&[]);
                assert!(frame.fill(&whole[..len]));
                let fits = usize::from(l4) + usize::from(field) + 2 <= len;
                assert_eq!(take_note(header(0, 0, l4, field), &mut frame), fits, "{len} {l4}");
                assert!(header_for(&mut frame).is_some() || len < whole.len());
            }
        }
    }

    #[test]
    fn a_frame_that_is_no_longer_what_it_was_has_no_header() {
        let mut frame = frame(&v4(6, &tcp(SUM)));
        assert!(take_note(header(TCP_V4, 4, 34, 16), &mut frame));
        frame.octets_mut()[12] = 9;
        assert_eq!(header_for(&mut frame), None);
    }
}
