//! Fragments put together again, as whoever receives them would: the kernel puts a packet together,
//! forwards it, and cuts it again when its last fragment has come, where rvs forwards each fragment
//! as it comes. What arrives must be the same.

use crate::packet;
use rvs_wire::checksum;
use rvs_wire::flow::protocol;
use rvs_wire::ipv4::Ipv4;
use rvs_wire::ipv6::{self, Ipv6};
use rvs_wire::ipv6_ext;

/// Where a packet's payload belongs in that of the packet which it is a fragment of, in octets; 0 of
/// one that is whole.
#[must_use]
pub fn offset(packet: &[u8]) -> u16 {
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        let walked = Ipv6::parse_quoted(packet)
            .and_then(|(ip, payload)| ipv6_ext::walk(ip.next_header(), payload));
        walked.ok().and_then(|upper| upper.fragment).map_or(0, |fragment| fragment.offset)
    } else {
        Ipv4::parse_quoted(packet).map_or(0, |(ip, _)| ip.fragment_offset())
    }
}

/// The packet whose fragments these are, in any order; `None` if some are missing. One that is whole
/// is its own only fragment.
#[must_use]
pub fn reassembled(pieces: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut pieces: Vec<&Vec<u8>> = pieces.iter().collect();
    pieces.sort_by_key(|piece| offset(piece));
    let first = pieces.first()?;
    let is_v6 = first.first()? >> 4 == 6;
    let mut payload = Vec::new();
    for piece in &pieces {
        let (is_next, octets) = (usize::from(offset(piece)) == payload.len(), piece.get(..));
        let look = packet::look(octets?)?;
        // Behind the fragment header, whatever follows it.
        let start =
            if is_v6 { ipv6::HEADER_LEN + if look.is_fragment { 8 } else { 0 } } else { look.l4 };
        payload.extend_from_slice(piece.get(start..look.octets).filter(|_| is_next)?);
    }
    let look = packet::look(first)?;
    let mut whole = if is_v6 {
        let mut header = first.get(..ipv6::HEADER_LEN)?.to_vec();
        if look.is_fragment {
            *header.get_mut(6)? = *first.get(ipv6::HEADER_LEN)?;
        }
        header
    } else {
        first.get(..look.l4)?.to_vec()
    };
    let header_octets = whole.len();
    whole.extend(payload);
    if is_v6 {
        let octets = u16::try_from(whole.len() - header_octets).ok()?;
        whole.get_mut(4..6)?.copy_from_slice(&octets.to_be_bytes());
    } else {
        let octets = u16::try_from(whole.len()).ok()?;
        whole.get_mut(2..4)?.copy_from_slice(&octets.to_be_bytes());
        // Nothing but don't-fragment is left of flags and offset.
        *whole.get_mut(6)? &= 0x40;
        *whole.get_mut(7)? = 0;
        whole.get_mut(10..12)?.fill(0);
        let sum = checksum::checksum(whole.get(..header_octets)?, 0);
        whole.get_mut(10..12)?.copy_from_slice(&sum);
    }
    Some(whole)
}

/// The packet inside a tunnel's: IP in IP, GRE, GUE.
fn unwrapped(packet: &[u8]) -> Option<Vec<u8>> {
    let look = packet::look(packet)?;
    let inside = packet.get(look.l4..look.octets)?;
    let header = match look.protocol {
        protocol::IPIP | protocol::IPV6 => 0,
        // RFC 2784 section 2.1: a checksum may follow.
        47 => {
            if inside.first()? & 0x80 == 0 {
                4
            } else {
                8
            }
        }
        // A UDP header, and one of GUE, which says how many words follow it.
        protocol::UDP => 12 + usize::from(inside.get(8)? & 0x1f) * 4,
        _ => return None,
    };
    inside.get(header..).map(<[u8]>::to_vec)
}

/// What comes out at the far end of a tunnel that these packets, perhaps fragments, go through: the
/// packet whose fragments are inside. `None` if that is not to be had.
#[must_use]
pub fn through_tunnel(packets: &[Vec<u8>]) -> Option<Vec<u8>> {
    // Fragments of one packet of the tunnel together, a whole one by itself.
    let mut identities: Vec<&[u8]> = Vec::new();
    let mut outer: Vec<Vec<Vec<u8>>> = Vec::new();
    for packet in packets {
        let is_fragment = packet::look(packet)?.is_fragment;
        let at = if packet.first()? >> 4 == 6 { 44..48 } else { 4..6 };
        let identity = packet.get(at).filter(|_| is_fragment).unwrap_or_default();
        let known = identities.iter().position(|known| is_fragment && *known == identity);
        if let Some(pieces) = known.and_then(|known| outer.get_mut(known)) {
            pieces.push(packet.clone());
        } else {
            identities.push(identity);
            outer.push(vec![packet.clone()]);
        }
    }
    let inner: Option<Vec<_>> =
        outer.iter().map(|pieces| unwrapped(&reassembled(pieces)?)).collect();
    reassembled(&inner?)
}
