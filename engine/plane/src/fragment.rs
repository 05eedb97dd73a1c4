//! Packets in pieces: what is too long for the next link and may be fragmented.
//!
//! RFC 791 section 2.3 and 3.1, RFC 8200 section 4.5 (tunnels over IPv6, where the director is the
//! source). The frame becomes the first piece; the others are the director's own frames. The kernel
//! cuts alike (Linux 6.1 `ip_output.c` `ip_do_fragment()`): all pieces but the last are as long as
//! fits in multiples of eight octets.

use crate::drop_reason::DropReason;
use crate::icmp::is_v6;
use crate::links::Links;
use arrayvec::ArrayVec;
use rvs_io::{Frame, Queue};
use rvs_wire::checksum;

/// Pieces of one packet.
const PIECES: usize = 64;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
/// RFC 8200 section 4.5.
const FRAGMENT_HEADER_LEN: usize = 8;
const NEXT_HEADER_FRAGMENT: u8 = 44;

/// The frames of one packet, in order, each with its IP header at the same place.
pub(crate) type Pieces<F> = ArrayVec<F, PIECES>;

/// Cuts the packet that begins at `l3` into pieces of at most `mtu` octets. One that fits after all,
/// since it became shorter meanwhile ([`crate::ftp`]), stays whole.
///
/// # Errors
///
/// The frame and why; nothing is left over then.
pub(crate) fn split<Q: Queue>(
    links: &mut Links<Q>,
    frame: Q::Frame,
    l3: u16,
    mtu: u16,
    ident: u16,
) -> Result<Pieces<Q::Frame>, (Q::Frame, DropReason)> {
    let is_v6 = is_v6(&frame, l3);
    let (l3, mtu) = (usize::from(l3), usize::from(mtu));
    if is_v6 { split_v6(links, frame, l3, mtu, ident) } else { split_v4(links, frame, l3, mtu) }
}

fn split_v4<Q: Queue>(
    links: &mut Links<Q>,
    mut frame: Q::Frame,
    l3: usize,
    mtu: usize,
) -> Result<Pieces<Q::Frame>, (Q::Frame, DropReason)> {
    let Some((header_len, total)) = lengths_v4(frame.octets().get(l3..).unwrap_or_default()) else {
        return Err((frame, DropReason::Unfragmentable));
    };
    if total <= mtu {
        return Ok(whole(frame, l3 + total));
    }
    let step = mtu.saturating_sub(header_len) & !7;
    // A piece that claims to lie beyond the end of any packet has no offsets to give to its own.
    let before = frame.octets().get(l3 + 6..l3 + 8).and_then(<[u8]>::first_chunk);
    let before = before.map_or(0, |field| u16::from_be_bytes(*field) & OFFSET);
    let is_beyond = usize::from(before) * 8 + total > usize::from(u16::MAX);
    if is_beyond || step == 0 || total.saturating_sub(header_len).div_ceil(step) > PIECES {
        return Err((frame, DropReason::Unfragmentable));
    }
    let mut later = Pieces::new();
    let mut at = header_len + step;
    while at < total {
        let end = total.min(at + step);
        let made = links.originate(l3 + header_len + end - at).and_then(|mut piece| {
            let whole = frame.octets().get(l3..)?;
            let (place, rest) = piece.octets_mut().get_mut(l3..)?.split_at_mut(header_len);
            place.copy_from_slice(whole.get(..header_len)?);
            rest.copy_from_slice(whole.get(at..end)?);
            let offset = u16::try_from((at - header_len) / 8).ok()?;
            finish_v4(place, header_len + end - at, offset, end < total)?;
            drop_options(place);
            sum_v4(place);
            Some(piece)
        });
        let Some(piece) = made else {
            for piece in later {
                links.drop(piece, DropReason::NoFrame);
            }
            return Err((frame, DropReason::NoFrame));
        };
        later.push(piece);
        at = end;
    }
    let first_len = header_len + step;
    let fits = frame.resize(l3 + first_len);
    if let Some(place) = frame.octets_mut().get_mut(l3..l3 + header_len).filter(|_| fits) {
        let _whole = finish_v4(place, first_len, 0, true);
        sum_v4(place);
    }
    let mut pieces = Pieces::new();
    pieces.push(frame);
    pieces.extend(later);
    Ok(pieces)
}

/// The frame's first `octets`, as they are.
fn whole<B: Frame>(mut frame: B, octets: usize) -> Pieces<B> {
    let _shorter = frame.resize(octets);
    let mut pieces = Pieces::new();
    pieces.push(frame);
    pieces
}

/// Octets of the header, and of the whole packet.
fn lengths_v4(packet: &[u8]) -> Option<(usize, usize)> {
    let ip = packet.first_chunk::<IPV4_LEN>()?;
    let header_len = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    (IPV4_LEN <= header_len && header_len <= total && total <= packet.len())
        .then_some((header_len, total))
}

/// Length, offset (in units of eight octets, added to what the packet had) and flag of a piece.
fn finish_v4(header: &mut [u8], octets: usize, offset: u16, more: bool) -> Option<()> {
    let ip = header.first_chunk_mut::<IPV4_LEN>()?;
    let before = u16::from_be_bytes([ip[6], ip[7]]);
    let offset = (before & OFFSET) + offset;
    let more = if more { MORE_FRAGMENTS } else { before & MORE_FRAGMENTS };
    [ip[2], ip[3]] = u16::try_from(octets).ok()?.to_be_bytes();
    [ip[6], ip[7]] = (before & !(OFFSET | MORE_FRAGMENTS) | more | offset).to_be_bytes();
    Some(())
}

/// Blanks the options that only the first piece carries (RFC 791 section 3.1, copied flag).
fn drop_options(header: &mut [u8]) {
    let mut rest = header.get_mut(IPV4_LEN..).unwrap_or_default();
    while let Some((kind, _)) = rest.split_first() {
        let len = match *kind {
            0 => return,
            1 => 1,
            _ => rest.get(1).map_or(rest.len(), |len| usize::from(*len).max(2)),
        };
        let copied = kind & 0x80 != 0;
        let Some((option, behind)) = rest.split_at_mut_checked(len) else { return };
        if !copied {
            option.fill(1);
        }
        rest = behind;
    }
}

fn sum_v4(header: &mut [u8]) {
    if let Some(ip) = header.first_chunk_mut::<IPV4_LEN>() {
        [ip[10], ip[11]] = [0, 0];
    }
    let sum = checksum::checksum(header, 0);
    if let Some(ip) = header.first_chunk_mut::<IPV4_LEN>() {
        [ip[10], ip[11]] = sum;
    }
}

fn split_v6<Q: Queue>(
    links: &mut Links<Q>,
    mut frame: Q::Frame,
    l3: usize,
    mtu: usize,
    ident: u16,
) -> Result<Pieces<Q::Frame>, (Q::Frame, DropReason)> {
    let packet = frame.octets().get(l3..).unwrap_or_default();
    let Some(header) = packet.first_chunk::<IPV6_LEN>().copied() else {
        return Err((frame, DropReason::Unfragmentable));
    };
    let total = IPV6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if total <= mtu.min(packet.len()) {
        return Ok(whole(frame, l3 + total));
    }
    let step = mtu.saturating_sub(IPV6_LEN + FRAGMENT_HEADER_LEN) & !7;
    if step == 0 || total > packet.len() || (total - IPV6_LEN).div_ceil(step) > PIECES {
        return Err((frame, DropReason::Unfragmentable));
    }
    let front = IPV6_LEN + FRAGMENT_HEADER_LEN;
    let mut later = Pieces::new();
    let mut at = IPV6_LEN + step;
    while at < total {
        let end = total.min(at + step);
        let made = links.originate(l3 + front + end - at).and_then(|mut piece| {
            let (place, rest) = piece.octets_mut().get_mut(l3..)?.split_at_mut(front);
            rest.copy_from_slice(frame.octets().get(l3 + at..l3 + end)?);
            front_v6(place, &header, end - at, at - IPV6_LEN, end < total, ident)?;
            Some(piece)
        });
        let Some(piece) = made else {
            for piece in later {
                links.drop(piece, DropReason::NoFrame);
            }
            return Err((frame, DropReason::NoFrame));
        };
        later.push(piece);
        at = end;
    }
    if !frame.resize(l3 + IPV6_LEN + step) || !frame.shift_front(8) {
        for piece in later {
            links.drop(piece, DropReason::NoHeadroom);
        }
        return Err((frame, DropReason::NoHeadroom));
    }
    if let Some(place) = frame.octets_mut().get_mut(l3..l3 + front) {
        let _whole = front_v6(place, &header, step, 0, true, ident);
    }
    let mut pieces = Pieces::new();
    pieces.push(frame);
    pieces.extend(later);
    Ok(pieces)
}

/// Writes the headers before a piece of `octets` that stood `offset` octets behind the IPv6 header.
fn front_v6(
    place: &mut [u8],
    header: &[u8; IPV6_LEN],
    octets: usize,
    offset: usize,
    more: bool,
    ident: u16,
) -> Option<()> {
    let (ip, fragment) = place.split_first_chunk_mut::<IPV6_LEN>()?;
    *ip = *header;
    [ip[4], ip[5]] = u16::try_from(octets + FRAGMENT_HEADER_LEN).ok()?.to_be_bytes();
    ip[6] = NEXT_HEADER_FRAGMENT;
    let fragment = fragment.first_chunk_mut::<FRAGMENT_HEADER_LEN>()?;
    let [a, b] = (u16::try_from(offset).ok()? | u16::from(more)).to_be_bytes();
    let [c, d] = ident.to_be_bytes();
    *fragment = [header[6], 0, a, b, 0, 0, c, d];
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(options: &[u8]) -> Vec<u8> {
        let mut header = vec![0; IPV4_LEN];
        header.extend(options);
        header
    }

    #[test]
    fn later_pieces_keep_the_options_that_are_to_be_copied_and_no_others() {
        // Record route (7), security (130, copied), no operation, timestamp (68), end.
        let options = [7, 3, 4, 130, 3, 9, 1, 68, 4, 5, 0, 0];
        let mut header = header(&options);
        drop_options(&mut header);
        assert_eq!(header[IPV4_LEN..], [1, 1, 1, 130, 3, 9, 1, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn options_of_impossible_lengths_end_the_walk() {
        for options in [[7, 0, 0, 0], [7, 200, 1, 1], [68, 1, 9, 9], [1, 1, 1, 7], [0, 7, 7, 7]] {
            let mut header = header(&options);
            drop_options(&mut header);
            assert_eq!(header.len(), IPV4_LEN + 4);
            assert_eq!(header[..IPV4_LEN], [0; IPV4_LEN], "{options:?}");
        }
    }

    #[test]
    fn a_piece_of_a_piece_goes_on_counting_and_the_last_says_what_its_whole_said() {
        let mut header = header(&[]);
        header[6..8].copy_from_slice(&(MORE_FRAGMENTS | 0x64).to_be_bytes());
        finish_v4(&mut header, 120, 3, false).unwrap();
        assert_eq!(header[2..4], [0, 120]);
        assert_eq!(header[6..8], (MORE_FRAGMENTS | 0x67).to_be_bytes());
        let mut whole = [0; IPV4_LEN];
        finish_v4(&mut whole, 120, 3, false).unwrap();
        assert_eq!(whole[6..8], [0, 3]);
    }

    #[test]
    fn lengths_that_do_not_fit_together_are_refused() {
        let packet = |first: u8, total: u16, octets: usize| {
            let mut packet = vec![0; octets];
            packet[0] = first;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            lengths_v4(&packet)
        };
        assert_eq!(packet(0x45, 30, 60), Some((20, 30)));
        assert_eq!(packet(0x46, 30, 30), Some((24, 30)));
        assert_eq!(packet(0x44, 30, 30), None);
        assert_eq!(packet(0x4f, 30, 90), None);
        assert_eq!(packet(0x45, 31, 30), None);
    }
}
