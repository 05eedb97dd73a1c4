//! What a sender left to a card and cannot be left to the next one: packets in a tunnel, and in pieces.
//!
//! The kernel at the other end of a TAP hands over TCP in frames of up to 64 KB, and checksums that
//! hold no more than the pseudo-header's sum. Both are carried through where headers stay what they
//! are (NAT, direct routing, plain routing): the next kernel finishes them, or never needs to. In a
//! tunnel it could not: the outer header's checksum covers the inner packet, and no device cuts what
//! is in GRE or GUE without being told of both headers. There the checksum is computed, and a long
//! frame becomes the segments that it stands for.
//!
//! ```text
//!  headers │ payload 1 │ payload 2 │ payload 3       one frame, a connection's: counted once
//!                 └─► headers │ payload 1  ─► into the tunnel, out
//!                     headers │ payload 2  ─► into the tunnel, out
//!                     headers │ payload 3  ─► into the tunnel, out: the frame itself
//! ```

use crate::drop_reason::DropReason;
use crate::forward;
use crate::icmp::{Local, is_v6};
use crate::lane::World;
use crate::paths::Paths;
use crate::related::hop_of;
use crate::stack::Desk;
use rvs_conntrack::{Conn, Conns, Direction};
use rvs_io::{Frame, Queue, Segments};
use rvs_wire::checksum;
use rvs_wire::flow::{Ends as _, Key, V4, V6, protocol};
use rvs_wire::packet::Packet;

/// Segments of one frame at most. A sender that is told the smallest segments that Linux makes
/// (`TCP_MIN_SND_MSS`, less 12 octets of options) fills 64 KB with 1821.
const SEGMENTS: usize = 2048;
/// Where TCP has its flags, and those that only the last segment, or only the first, has.
const FLAGS: usize = 13;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Whether what is too long as a frame fits as the segments that it will be cut into. Linux 6.1
/// `net/core/gso.c` `skb_gso_validate_network_len()`.
#[cold]
#[inline(never)]
pub(crate) fn fits_in_segments(frame: &impl Frame, l3: usize, mtu: u16) -> bool {
    segment(frame, l3).is_some_and(|octets| octets <= mtu)
}

/// Octets of the packet that the first segment will be, of a frame that is to be cut.
fn segment(frame: &impl Frame, l3: usize) -> Option<u16> {
    let cut = frame.unfinished()?.segments?;
    let octets = (cut.headers + cut.payload).min(frame.octets().len()).saturating_sub(l3);
    Some(u16::try_from(octets).unwrap_or(u16::MAX))
}

/// Computes the checksum of all there is, if the sender left it. The frame, which is no longer than its
/// packet, stays unfinished.
#[inline]
pub(crate) fn sum_up(frame: &mut impl Frame) {
    if frame.unfinished().is_some() {
        let _has_such_a_place = compute(frame);
    }
}

#[cold]
#[inline(never)]
fn compute(frame: &mut impl Frame) -> Option<()> {
    frame.leave_sum();
    let left = frame.unfinished()?;
    checksum::finish(frame.octets_mut().get_mut(left.l4..)?, left.field)
}

/// Computes the checksum that the sender left, once and for all. Of a frame that is to be cut first,
/// it says how many octets the packet will have, and does nothing.
#[inline]
pub(crate) fn finish(frame: &mut impl Frame, l3: usize) -> Option<u16> {
    if frame.unfinished().is_none() { None } else { finish_if_whole(frame, l3) }
}

#[cold]
#[inline(never)]
fn finish_if_whole(frame: &mut impl Frame, l3: usize) -> Option<u16> {
    let octets = segment(frame, l3);
    if octets.is_none() {
        let _has_such_a_place = compute(frame);
        frame.finished();
    }
    octets
}

/// Carries the segments of a frame into its connection's tunnel. The frame itself is noted and counted.
#[cold]
pub(crate) fn into_tunnel<Q: Queue>(
    (v4, v6): (&Conns<V4>, &Conns<V6>),
    around: (&World<'_>, &Paths),
    desk: &mut Desk<'_, Q>,
    (frame, link): (Q::Frame, u8),
    l3: u16,
) {
    if is_v6(&frame, l3) {
        tunnelled(v6, around, desk, (frame, link), l3);
    } else {
        tunnelled(v4, around, desk, (frame, link), l3);
    }
}

fn tunnelled<F: Local, Q: Queue>(
    conns: &Conns<F>,
    (world, paths): (&World<'_>, &Paths),
    desk: &mut Desk<'_, Q>,
    (frame, link): (Q::Frame, u8),
    l3: u16,
) {
    let Some((packet, hops, conn)) = known(conns, &frame, l3) else {
        return desk.links.drop(frame, DropReason::NoRoute);
    };
    if hops <= 1 {
        // One error for all of them.
        return desk.refuse_exceeded(frame, link, l3);
    }
    each_segment(desk, frame, l3, |desk, mut frame, packet_octets| {
        let Some((id, hop)) = hop_of(conn, Direction::Inbound, desk.stack.neighbors.hops()) else {
            return desk.links.drop(frame, DropReason::NoRoute);
        };
        let (way, packet) = (Direction::Inbound, Packet { packet_octets, ..packet });
        let pmtu_disc = world.snapshot.tunables.pmtu_disc;
        let sent = forward::apply_unread(conn, way, &packet, hop, paths, pmtu_disc, &mut frame);
        crate::carry::settle(desk, (frame, link), sent.verdict(id, l3));
    });
}

/// A client's packet as its lane saw it, its hop limit, and its connection.
fn known<'c, F: Local>(
    conns: &'c Conns<F>,
    frame: &impl Frame,
    l3: u16,
) -> Option<(Packet<F>, u8, &'c Conn<F>)> {
    let look = F::look(frame.octets().get(usize::from(l3)..)?)?;
    let l4 = frame.unfinished()?.l4;
    let ports = frame.octets().get(l4..)?.first_chunk::<4>()?;
    let [s0, s1, d0, d1] = *ports;
    let client = (look.source, u16::from_be_bytes([s0, s1]));
    let vip = (look.destination, u16::from_be_bytes([d0, d1]));
    let key = Key { ends: F::Ends::new(client, vip), protocol: protocol::TCP };
    let found = conns.table().find(&key, conns.table().hash(&key))?;
    let l4 = u16::try_from(l4).ok()?.checked_sub(l3)?;
    let packet = Packet { key, l3, l4, packet_octets: 0, vlan: 0, flags: 0 };
    Some((packet, look.hops, conns.table().conn(found.index)?))
}

/// Cuts a frame into its segments, and does `then` to each, in order, with the octets of its packet.
/// The frame itself becomes the last.
#[cold]
pub(crate) fn each_segment<Q: Queue>(
    desk: &mut Desk<'_, Q>,
    mut frame: Q::Frame,
    l3: u16,
    mut then: impl FnMut(&mut Desk<'_, Q>, Q::Frame, u16),
) {
    frame.leave_sum();
    let Some((left, cut)) = frame.unfinished().and_then(|left| Some((left, left.segments?))) else {
        return desk.links.drop(frame, DropReason::Unfragmentable);
    };
    let Segments { headers, payload } = cut;
    let total = frame.octets().len();
    let count = total.saturating_sub(headers).div_ceil(payload.max(1));
    if !(1..=SEGMENTS).contains(&count) || payload == 0 {
        return desk.links.drop(frame, DropReason::Unfragmentable);
    }
    let places = Places { l3: l3.into(), l4: left.l4, field: left.field };
    for number in 0..count - 1 {
        let Some(mut segment) = desk.links.originate(headers + payload) else {
            desk.links.counters.originated();
            desk.links.counters.dropped(DropReason::NoFrame);
            continue;
        };
        let from = headers + number * payload;
        let (all, place) = (frame.octets(), segment.octets_mut());
        let parts = all.get(..headers).zip(all.get(from..from + payload));
        if let Some(((head, body), parts)) = place.split_at_mut_checked(headers).zip(parts) {
            head.copy_from_slice(parts.0);
            body.copy_from_slice(parts.1);
        }
        match places.head(place, number, payload, false) {
            Some(octets) => then(desk, segment, octets),
            None => desk.links.drop(segment, DropReason::Unfragmentable),
        }
    }
    let from = headers + (count - 1) * payload;
    frame.octets_mut().copy_within(from.., headers);
    let fits = frame.resize(headers + total - from);
    frame.finished();
    match places.head(frame.octets_mut(), count - 1, payload, true).filter(|_| fits) {
        Some(octets) => then(desk, frame, octets),
        None => desk.links.drop(frame, DropReason::Unfragmentable),
    }
}

/// Where headers are.
#[derive(Clone, Copy)]
struct Places {
    l3: usize,
    l4: usize,
    field: usize,
}

impl Places {
    /// Makes the headers of segment `number` its own: lengths, identification, sequence number, flags,
    /// checksums. Says how many octets its packet has. Linux 6.1 `tcp_offload.c` `tcp_gso_segment()` and
    /// `af_inet.c` `inet_gso_segment()`.
    fn head(self, frame: &mut [u8], number: usize, payload: usize, is_last: bool) -> Option<u16> {
        let packet = frame.get_mut(self.l3..)?;
        let octets = u16::try_from(packet.len()).ok()?;
        let (network, transport) = packet.split_at_mut_checked(self.l4.checked_sub(self.l3)?)?;
        let before = if network.first()? >> 4 == 4 {
            let length = network.get_mut(2..4)?.first_chunk_mut()?;
            let before = u16::from_be_bytes(*length);
            *length = octets.to_be_bytes();
            let ident = network.get_mut(4..6)?.first_chunk_mut()?;
            let step = u16::try_from(number).ok()?;
            *ident = u16::from_be_bytes(*ident).wrapping_add(step).to_be_bytes();
            network.get_mut(10..12)?.fill(0);
            let sum = checksum::checksum(network, 0);
            network.get_mut(10..12)?.copy_from_slice(&sum);
            before
        } else {
            let length = network.get_mut(4..6)?.first_chunk_mut()?;
            let before = u16::from_be_bytes(*length).checked_add(IPV6)?;
            *length = octets.checked_sub(IPV6)?.to_be_bytes();
            before
        };
        let sequence = transport.get_mut(4..8)?.first_chunk_mut()?;
        let step = u32::try_from(number * payload).ok()?;
        *sequence = u32::from_be_bytes(*sequence).wrapping_add(step).to_be_bytes();
        let flags = transport.get_mut(FLAGS)?;
        *flags &= if is_last { u8::MAX } else { !FIN_PSH };
        *flags &= if number == 0 { u8::MAX } else { !CWR };
        // The pseudo-header's sum has the length of the whole.
        let sum = transport.get_mut(self.field..)?.first_chunk_mut()?;
        let [whole, less, more] = [u16::from_be_bytes(*sum), !before, octets].map(u32::from);
        *sum = checksum::fold(whole + less + more).to_be_bytes();
        checksum::finish(transport, self.field)?;
        Some(octets)
    }
}

const IPV6: u16 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_wire::checksum::{is_right, pseudo, pseudo6};

    const PLACES: Places = Places { l3: 14, l4: 34, field: 16 };

    /// TCP with flags CWR, PSH, FIN and the sum of a pseudo-header; ten octets of payload.
    fn tcp(sum: u32) -> Vec<u8> {
        let [a, b] = checksum::fold(sum).to_be_bytes();
        let header = [0, 80, 0x12, 0x34, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x50, 0x99];
        [&header[..], &[1, 2, a, b, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]].concat()
    }

    #[test]
    fn a_segment_has_headers_of_its_own_and_a_right_checksum() {
        // One that says it has 0x4000 octets, of which ten of payload are left.
        let mut whole = vec![0; 12];
        whole.extend([8, 0, 0x45, 0, 0x40, 0, 0xff, 0xff, 0x40, 0, 64, 6, 9, 9]);
        whole.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        let ends = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        whole.extend(tcp(pseudo(ends.0, ends.1, 6, 0x4000 - 20)));
        for (number, is_last, flags) in [(0, false, 0x90), (1, false, 0x10), (2, true, 0x19)] {
            let mut frame = whole.clone();
            assert_eq!(PLACES.head(&mut frame, number, 1000, is_last), Some(50));
            let step = u32::try_from(number * 1000).unwrap();
            let ident = 0xffff_u16.wrapping_add(number.try_into().unwrap());
            assert_eq!(frame[16..18], [0, 50]);
            assert_eq!(frame[18..20], ident.to_be_bytes());
            assert_eq!(frame[38..42], u32::MAX.wrapping_add(step).to_be_bytes());
            assert_eq!(frame[47], flags);
            assert!(is_right(&frame[14..34], 0), "the packet's");
            assert!(is_right(&frame[34..], pseudo(ends.0, ends.1, 6, 30)), "the segment's");
        }
    }

    #[test]
    fn a_segment_of_ipv6_has_too_behind_extension_headers() {
        let ends: [core::net::Ipv6Addr; 2] =
            ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        let mut whole = vec![0; 12];
        whole.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0x40, 0, 60, 64]);
        whole.extend(ends[0].octets());
        whole.extend(ends[1].octets());
        whole.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        whole.extend(tcp(pseudo6(ends[0], ends[1], 6, 0x4000 - 8)));
        let places = Places { l3: 14, l4: 62, field: 16 };
        assert_eq!(places.head(&mut whole, 3, 1000, true), Some(78));
        assert_eq!(whole[18..20], [0, 38]);
        assert!(is_right(&whole[62..], pseudo6(ends[0], ends[1], 6, 30)));
    }

    #[test]
    fn headers_that_are_not_there_make_no_segment() {
        for len in 0..34 + 18 {
            let mut frame = vec![0x45; len];
            assert_eq!(PLACES.head(&mut frame, 1, 10, true), None, "{len}");
        }
    }
}
