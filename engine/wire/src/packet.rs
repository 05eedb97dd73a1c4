//! What the director wants to know of a frame, in one look.
//!
//! ```text
//!  0        l3                    l3 + l4
//!  ├ Ethernet ┼ IPv4 or IPv6, options ┼ TCP 20.. or UDP 8 ┼ payload ┼ padding
//!             └───────────── packet_octets ───────────────┘
//! ```
//!
//! Frames of almost all traffic are untagged, for this MAC address, and have a plain IP header
//! before TCP or UDP: [`classify`] reads those straight on. All others go through one function that
//! is out of the way, takes care and names what is wrong.
//!
//! DIFFERS from Linux, where IPVS leaves TCP data offsets, UDP lengths and routing headers with
//! segments left for the destination to refuse: they are refused here and counted
//! (ADR 0003).

use crate::arp::Arp;
use crate::checksum;
use crate::ethernet::{self, Ethernet, Tag, ethertype};
use crate::flow::{Ends4, Ends6, Family, Key, V4, V6, protocol};
use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Ipv6};
use crate::ipv6_ext;
use crate::mac::MacAddr;
use crate::sctp;
use crate::tcp::{self, Tcp};
use crate::udp::Udp;
use crate::unusable::Unusable;
use core::net::IpAddr;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// A whole TCP segment, UDP datagram or SCTP packet over IPv4, for this MAC address.
    V4(Packet<V4>),
    /// A whole TCP segment, UDP datagram or SCTP packet over IPv6, for this MAC address.
    V6(Packet<V6>),
    /// Something else that makes sense.
    Slow(Slow),
    /// Something that does not, or that is not for us.
    Unusable(Unusable),
}

/// A TCP segment, UDP datagram or SCTP packet in one piece, its lengths and its IPv4 header checksum
/// checked. Its own checksum is not: like the kernel, the director passes wrong ones on as they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Packet<F: Family> {
    /// Whose packet it is.
    pub key: Key<F>,
    /// Where the IP packet begins in the frame.
    pub l3: u16,
    /// Where the transport header begins in the IP packet.
    pub l4: u16,
    /// Octets of the IP packet, as its header says: an Ethernet frame may be padded.
    pub packet_octets: u16,
    /// The VLAN the frame came in, 0 when it is in none.
    pub vlan: u16,
    /// TCP flags, 0 for UDP, an event of SCTP: see [`crate::tcp::flag`], [`mod@crate::sctp::event`].
    pub flags: u8,
}

/// A frame for the less trodden path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slow {
    /// What it is.
    pub kind: SlowKind,
    /// Where the ARP message or IP packet begins in the frame.
    pub l3: u16,
    /// Octets of the ARP message or IP packet.
    pub packet_octets: u16,
    /// The VLAN the frame came in, 0 when it is in none.
    pub vlan: u16,
    /// Whether it is for this MAC address, rather than for a group or for everybody.
    pub unicast: bool,
}

/// What a [`Slow`] frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlowKind {
    /// A message that [`Arp::parse`] accepts.
    Arp,
    /// A packet that [`Ipv4::parse`] accepts, with options that are in order: ICMP or another
    /// protocol, a fragment, or anything for a group.
    Ipv4,
    /// A packet that [`Ipv6::parse`] and [`ipv6_ext::walk`] accept: ICMPv6 or another protocol, a
    /// fragment, or anything for a group.
    Ipv6,
}

/// Where a packet begins in a frame without a tag.
const UNTAGGED: u16 = 14;
/// Where a packet begins in a frame with a tag.
const TAGGED: u16 = 18;
/// RFC 791 section 3.1: more-fragments flag and offset; the don't-fragment flag is above them.
const FRAGMENT_MASK: u16 = 0x3fff;

const _: () = assert!(ethernet::HEADER_LEN == 14 && ethernet::TAG_LEN == 4);

/// Says what `frame` is to a link whose address is `me`.
#[inline]
#[must_use]
pub fn classify(frame: &[u8], me: MacAddr) -> Class {
    match plain(frame, me) {
        Some(Plain::V4(packet)) => Class::V4(packet),
        Some(Plain::V6(packet)) => Class::V6(packet),
        None => classify_carefully(frame, me),
    }
}

/// What almost every frame is: the first half of [`classify`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plain {
    /// As [`Class::V4`].
    V4(Packet<V4>),
    /// As [`Class::V6`].
    V6(Packet<V6>),
}

/// The packet in an untagged frame for this MAC address whose IP header has no options. `None` says
/// nothing about the frame but that it takes [`classify_carefully`].
///
/// Meant to become part of the caller's loop, where the packet need not be put together anywhere
/// but in its place.
#[inline(always)]
#[must_use]
pub fn plain(frame: &[u8], me: MacAddr) -> Option<Plain> {
    let (ethernet, packet) = Ethernet::parse(frame).ok()?;
    if !ethernet.is_for(me) {
        return None;
    }
    match ethernet.ethertype() {
        ethertype::IPV4 => Some(Plain::V4(plain_v4(packet)?)),
        ethertype::IPV6 => Some(Plain::V6(plain_v6(packet)?)),
        _ => None,
    }
}

/// Where a [`plain`] frame goes to that begins a connection of TCP, for whoever has no time to look whether
/// it is in order: that is most of what [`plain`] costs. `None` of all other frames.
#[inline(always)]
#[must_use]
pub fn syn_to(frame: &[u8], me: MacAddr) -> Option<(IpAddr, u16)> {
    let (ethernet, packet) = Ethernet::parse(frame).ok()?;
    if !ethernet.is_for(me) {
        return None;
    }
    let (address, segment): (IpAddr, _) = match ethernet.ethertype() {
        ethertype::IPV4 => {
            let (ip, segment) = packet.split_first_chunk::<{ ipv4::HEADER_LEN }>()?;
            let fragment = u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT_MASK != 0;
            if ip[0] != 0x45 || fragment || ip[9] != protocol::TCP {
                return None;
            }
            (ip.last_chunk::<4>().copied()?.into(), segment)
        }
        ethertype::IPV6 => {
            let (ip, segment) = packet.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
            if ip[0] >> 4 != 6 || ip[6] != protocol::TCP {
                return None;
            }
            (ip.last_chunk::<16>().copied()?.into(), segment)
        }
        _ => return None,
    };
    let tcp = segment.first_chunk::<{ tcp::HEADER_LEN }>()?;
    tcp::is_lone_syn(tcp[13]).then(|| (address, u16::from_be_bytes([tcp[2], tcp[3]])))
}

#[inline(always)]
fn plain_v4(packet: &[u8]) -> Option<Packet<V4>> {
    let ip = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & FRAGMENT_MASK != 0;
    if ip[0] != 0x45 || fragment || !checksum::is_header_right(ip) {
        return None;
    }
    let packet_octets = u16::from_be_bytes([ip[2], ip[3]]);
    let segment = packet.get(ipv4::HEADER_LEN..usize::from(packet_octets))?;
    let flags = plain_flags(ip[9], segment)?;
    let key = Key { ends: ends4(ip, segment)?, protocol: ip[9] };
    Some(Packet { key, l3: UNTAGGED, l4: 20, packet_octets, vlan: 0, flags })
}

#[inline(always)]
fn plain_v6(packet: &[u8]) -> Option<Packet<V6>> {
    let (ip, rest) = packet.split_first_chunk::<{ ipv6::HEADER_LEN }>()?;
    let payload_octets = u16::from_be_bytes([ip[4], ip[5]]);
    let packet_octets = payload_octets.checked_add(40)?;
    if ip[0] >> 4 != 6 {
        return None;
    }
    let segment = rest.get(..usize::from(payload_octets))?;
    let flags = plain_flags(ip[6], segment)?;
    let key = Key { ends: ends6(ip, segment)?, protocol: ip[6] };
    Some(Packet { key, l3: UNTAGGED, l4: 40, packet_octets, vlan: 0, flags })
}

#[inline(always)]
fn ends4(ip: &[u8; ipv4::HEADER_LEN], segment: &[u8]) -> Option<Ends4> {
    Some(Ends4::from_wire(ip.last_chunk()?, *segment.first_chunk()?))
}

#[inline(always)]
fn ends6(ip: &[u8; ipv6::HEADER_LEN], segment: &[u8]) -> Option<Ends6> {
    Some(Ends6::from_wire(ip.last_chunk()?, *segment.first_chunk()?))
}

/// See [`Packet::flags`]; `None` for other protocols.
#[inline(always)]
fn flags(protocol: u8, segment: &[u8]) -> Result<Option<u8>, Unusable> {
    match protocol {
        protocol::TCP => Tcp::parse(segment).map(|(tcp, _)| Some(tcp.flags())),
        protocol::UDP => Udp::parse(segment).map(|_| Some(0)),
        protocol::SCTP => sctp::event(segment).map(Some),
        _ => Ok(None),
    }
}

/// The same for a segment or datagram whose header is in order; `None` for all others. Written out:
/// an error that is made and thrown away costs more than the checks.
#[inline(always)]
fn plain_flags(protocol: u8, segment: &[u8]) -> Option<u8> {
    if protocol == protocol::TCP {
        let tcp = segment.first_chunk::<{ tcp::HEADER_LEN }>()?;
        let header_len = usize::from(tcp[12] >> 4) * 4;
        let is_whole = header_len >= tcp::HEADER_LEN && header_len <= segment.len();
        return is_whole.then_some(tcp[13]);
    }
    flags(protocol, segment).ok()?
}

/// [`classify`] for frames that are not [`plain`]; the same answer for those that are.
#[cold]
#[inline(never)]
#[must_use]
pub fn classify_carefully(frame: &[u8], me: MacAddr) -> Class {
    careful(frame, me).unwrap_or_else(Class::Unusable)
}

fn careful(frame: &[u8], me: MacAddr) -> Result<Class, Unusable> {
    let (ethernet, packet) = Ethernet::parse(frame)?;
    let unicast = !ethernet.destination().is_multicast();
    if unicast && ethernet.destination() != me {
        return Err(Unusable::OtherHost);
    }
    let (ethertype, l3, vlan, packet) = match ethernet.ethertype() {
        ethertype::VLAN => {
            let (tag, packet) = Tag::parse(packet)?;
            (tag.ethertype(), TAGGED, tag.vlan(), packet)
        }
        ethertype => (ethertype, UNTAGGED, 0, packet),
    };
    let slow = Slow { kind: SlowKind::Arp, l3, packet_octets: 28, vlan, unicast };
    match ethertype {
        ethertype::IPV4 => careful_v4(packet, slow),
        ethertype::IPV6 => careful_v6(packet, slow),
        ethertype::ARP => Arp::parse(packet).map(|_| Class::Slow(slow)),
        ethertype::VLAN | ethertype::SERVICE_VLAN => Err(Unusable::VlanStack),
        _ => Err(Unusable::Ethertype),
    }
}

fn careful_v4(packet: &[u8], slow: Slow) -> Result<Class, Unusable> {
    let (ip, segment) = Ipv4::parse(packet)?;
    ip.check_options()?;
    let slow = Slow { kind: SlowKind::Ipv4, packet_octets: ip.total_len(), ..slow };
    if !slow.unicast || ip.is_fragment() {
        return Ok(Class::Slow(slow));
    }
    let Some(flags) = flags(ip.protocol(), segment)? else { return Ok(Class::Slow(slow)) };
    let l4 = u16::try_from(ip.header_len()).map_err(|_| Unusable::Ipv4HeaderLength)?;
    let ends = packet.first_chunk().and_then(|fixed| ends4(fixed, segment));
    let key = Key { ends: ends.ok_or(Unusable::Truncated)?, protocol: ip.protocol() };
    let Slow { l3, packet_octets, vlan, .. } = slow;
    Ok(Class::V4(Packet { key, l3, l4, packet_octets, vlan, flags }))
}

fn careful_v6(packet: &[u8], slow: Slow) -> Result<Class, Unusable> {
    let (ip, payload) = Ipv6::parse(packet)?;
    let packet_octets = ip.payload_len().checked_add(40).ok_or(Unusable::Ipv6PayloadLength)?;
    let slow = Slow { kind: SlowKind::Ipv6, packet_octets, ..slow };
    let upper = ipv6_ext::walk(ip.next_header(), payload)?;
    if !slow.unicast || upper.fragment.is_some_and(|fragment| !fragment.is_whole()) {
        return Ok(Class::Slow(slow));
    }
    let Some(flags) = flags(upper.protocol, upper.payload)? else { return Ok(Class::Slow(slow)) };
    let l4 = u16::try_from(ipv6::HEADER_LEN + upper.extensions_len)
        .map_err(|_| Unusable::Ipv6Extensions)?;
    let ends = packet.first_chunk().and_then(|fixed| ends6(fixed, upper.payload));
    let key = Key { ends: ends.ok_or(Unusable::Truncated)?, protocol: upper.protocol };
    let Slow { l3, vlan, .. } = slow;
    Ok(Class::V6(Packet { key, l3, l4, packet_octets, vlan, flags }))
}
