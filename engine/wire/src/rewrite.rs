//! What forwarding changes in a packet, checksums included, in either address family.
//!
//! Every function takes the packet from its IP header on, checks all it needs before it writes
//! anything, and leaves the packet as it was when it says [`Stop`]. Meant for packets that
//! [`crate::packet::classify`] accepted: lengths are then never a reason to stop.
//!
//! Linux 6.1 `ip_vs_xmit.c` `ip_vs_nat_xmit()`, `ip_vs_dr_xmit()`, `ip_vs_tunnel_xmit()` with
//! `decrement_ttl()`; `ip_vs_proto_tcp.c` `tcp_dnat_handler()`; `ip_vs_proto_udp.c`
//! `udp_dnat_handler()`; `ip_vs_proto_sctp.c` `sctp_dnat_handler()`.

use crate::checksum::{self, Delta};
use crate::flow::{Ends, Ends4, Ends6, Family, V4, V6, protocol};
use crate::ipip::Inner;
use crate::{ipv4, ipv6, sctp};
use core::net::{Ipv4Addr, Ipv6Addr};

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Its hops are used up: the caller owes the sender an ICMP time exceeded.
    Exceeded,
    /// Not a packet that the parser accepted: our mistake.
    Unparsed,
}

/// The changes that forwarding makes, for one address family.
pub trait Rewrite: Family {
    /// Octets of the IP header without options or extension headers.
    const HEADER_LEN: usize;

    /// What another address does to a checksum that covers it.
    fn address_delta(from: Self::Addr, to: Self::Addr) -> Delta;

    /// The sum of the pseudo-header before `octets` of `protocol`.
    fn pseudo_sum(source: Self::Addr, destination: Self::Addr, protocol: u8, octets: u16) -> u32;

    /// One hop less and nothing else: direct routing, and the inner packet of a tunnel.
    ///
    /// # Errors
    ///
    /// [`Stop`].
    fn direct(packet: &mut [u8]) -> Result<(), Stop>;

    /// One hop less, and `ends` in place of the addresses and ports: masquerading, inbound and
    /// outbound alike. The half of `ends` that does not change is the packet's own.
    ///
    /// The deltas are [`Delta::end`]'s, of the half that changes. A wrong TCP or UDP checksum stays
    /// as wrong as it was; a UDP checksum of zero, which means none, becomes a whole one as in
    /// Linux, and so does SCTP's whenever a port changes.
    ///
    /// # Errors
    ///
    /// [`Stop`].
    fn masquerade(
        packet: &mut [u8],
        l4: usize,
        protocol: u8,
        ends: &Self::Ends,
        address_delta: Delta,
        segment_delta: Delta,
    ) -> Result<(), Stop>;

    /// As [`Rewrite::masquerade`], for a fragment that is not its packet's first: it has addresses
    /// and no ports.
    ///
    /// # Errors
    ///
    /// [`Stop`].
    fn masquerade_fragment(
        packet: &mut [u8],
        ends: &Self::Ends,
        address_delta: Delta,
    ) -> Result<(), Stop>;

    /// Says in the header that the packet has so many octets.
    fn set_octets(packet: &mut [u8], octets: u16);

    /// What a tunnel's outer header takes over from a packet; after [`Rewrite::direct`].
    fn inner(packet: &[u8]) -> Option<Inner>;

    /// Whether the packet is dropped, and its sender told, when a link cannot carry it whole.
    /// Always so in IPv6.
    fn dont_fragment(packet: &[u8]) -> bool;
}

/// Writes `ports` and the checksum that goes with them into a TCP header.
#[inline(always)]
fn rewrite_tcp(tcp: &mut [u8; 20], ports: [u8; 4], delta: Delta) {
    [tcp[0], tcp[1], tcp[2], tcp[3]] = ports;
    [tcp[16], tcp[17]] = delta.apply([tcp[16], tcp[17]]);
}

/// Writes `ports` and the checksum that goes with them into a TCP, UDP or SCTP header. `true` when it
/// is UDP without a checksum.
#[inline(always)]
fn rewrite_segment(
    segment: &mut [u8],
    protocol: u8,
    ports: [u8; 4],
    delta: Delta,
) -> Result<bool, Stop> {
    match protocol {
        protocol::TCP => {
            rewrite_tcp(segment.first_chunk_mut().ok_or(Stop::Unparsed)?, ports, delta);
            Ok(false)
        }
        protocol::UDP => {
            let udp = segment.first_chunk_mut::<8>().ok_or(Stop::Unparsed)?;
            *udp.first_chunk_mut().ok_or(Stop::Unparsed)? = ports;
            let none = [udp[6], udp[7]] == [0, 0];
            if !none {
                [udp[6], udp[7]] = delta.apply_udp([udp[6], udp[7]]);
            }
            Ok(none)
        }
        protocol::SCTP if sctp::set_ports(segment, ports) => Ok(false),
        _ => Err(Stop::Unparsed),
    }
}

/// Gives a UDP datagram the checksum it came without.
///
/// DIFFERS from Linux, which sums up the whole IP payload: octets behind the datagram are not part
/// of it, and a receiver that goes by RFC 768 would find the sum wrong (ADR 0003). In a first
/// fragment, where the datagram's end is missing, there stays none.
#[cold]
#[inline(never)]
fn fill_udp<F: Rewrite>(datagram: &mut [u8], ends: &F::Ends) {
    let Some([_, _, _, _, high, low, _, _]) = datagram.first_chunk() else { return };
    let len = u16::from_be_bytes([*high, *low]);
    let Some(datagram) = datagram.get_mut(..usize::from(len)) else { return };
    let pseudo = F::pseudo_sum(ends.source().0, ends.destination().0, protocol::UDP, len);
    let checksum = checksum::not_zero(checksum::checksum(datagram, pseudo));
    if let Some(udp) = datagram.first_chunk_mut::<8>() {
        [udp[6], udp[7]] = checksum;
    }
}

/// The header of a packet that has a hop left.
#[inline(always)]
fn split_v4(packet: &mut [u8]) -> Result<(&mut [u8; ipv4::HEADER_LEN], &mut [u8]), Stop> {
    let (ip, rest) = packet.split_first_chunk_mut().ok_or(Stop::Unparsed)?;
    let ip: &mut [u8; ipv4::HEADER_LEN] = ip;
    if ip[8] <= 1 { Err(Stop::Exceeded) } else { Ok((ip, rest)) }
}

/// One hop less (RFC 1812 section 5.3.1), and other addresses.
#[inline(always)]
fn readdress_v4(ip: &mut [u8; ipv4::HEADER_LEN], ends: &Ends4, delta: Delta) {
    ip[8] = ip[8].wrapping_sub(1);
    [ip[10], ip[11]] = delta.apply_hop([ip[10], ip[11]]);
    if let Some(place) = ip.last_chunk_mut() {
        *place = ends.hosts();
    }
}

impl Rewrite for V4 {
    const HEADER_LEN: usize = ipv4::HEADER_LEN;

    #[inline]
    fn address_delta(from: Ipv4Addr, to: Ipv4Addr) -> Delta {
        Delta::address(from, to)
    }

    #[inline]
    fn pseudo_sum(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, octets: u16) -> u32 {
        checksum::pseudo(source, destination, protocol, octets)
    }

    #[inline(always)]
    fn direct(packet: &mut [u8]) -> Result<(), Stop> {
        let (ip, _) = split_v4(packet)?;
        ip[8] = ip[8].wrapping_sub(1);
        [ip[10], ip[11]] = checksum::hop([ip[10], ip[11]]);
        Ok(())
    }

    #[inline(always)]
    fn masquerade(
        packet: &mut [u8],
        l4: usize,
        protocol: u8,
        ends: &Self::Ends,
        address_delta: Delta,
        segment_delta: Delta,
    ) -> Result<(), Stop> {
        // Nearly all of them, at places that are known beforehand.
        if protocol == protocol::TCP
            && l4 == Self::HEADER_LEN
            && let Some((ip, rest)) = packet.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>()
            && let Some(tcp) = rest.first_chunk_mut()
        {
            if ip[8] <= 1 {
                return Err(Stop::Exceeded);
            }
            readdress_v4(ip, ends, address_delta);
            rewrite_tcp(tcp, ends.ports(), segment_delta);
            return Ok(());
        }
        let (ip, rest) = split_v4(packet)?;
        let segment = l4.checked_sub(Self::HEADER_LEN).and_then(|options| rest.get_mut(options..));
        let segment = segment.ok_or(Stop::Unparsed)?;
        let no_checksum = rewrite_segment(segment, protocol, ends.ports(), segment_delta)?;
        readdress_v4(ip, ends, address_delta);
        if no_checksum {
            fill_udp::<Self>(segment, ends);
        }
        Ok(())
    }

    #[inline]
    fn masquerade_fragment(
        packet: &mut [u8],
        ends: &Self::Ends,
        address_delta: Delta,
    ) -> Result<(), Stop> {
        let (ip, _) = split_v4(packet)?;
        readdress_v4(ip, ends, address_delta);
        Ok(())
    }

    fn set_octets(packet: &mut [u8], octets: u16) {
        let Some(ip) = packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>() else { return };
        let delta = Delta::word(u16::from_be_bytes([ip[2], ip[3]]), octets);
        [ip[2], ip[3]] = octets.to_be_bytes();
        [ip[10], ip[11]] = delta.apply([ip[10], ip[11]]);
    }

    #[inline(always)]
    fn inner(packet: &[u8]) -> Option<Inner> {
        let ip = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        Some(Inner {
            protocol: protocol::IPIP,
            tos: ip[1],
            hops: ip[8],
            octets: u16::from_be_bytes([ip[2], ip[3]]),
            dont_fragment: ip[6] & 0x40 != 0,
        })
    }

    #[inline]
    fn dont_fragment(packet: &[u8]) -> bool {
        packet.first_chunk::<8>().is_some_and(|ip| ip[6] & 0x40 != 0)
    }
}

/// The header of a packet that has a hop left.
#[inline(always)]
fn split_v6(packet: &mut [u8]) -> Result<(&mut [u8; ipv6::HEADER_LEN], &mut [u8]), Stop> {
    let (ip, rest) = packet.split_first_chunk_mut().ok_or(Stop::Unparsed)?;
    let ip: &mut [u8; ipv6::HEADER_LEN] = ip;
    if ip[7] <= 1 { Err(Stop::Exceeded) } else { Ok((ip, rest)) }
}

/// One hop less, and other addresses.
#[inline(always)]
fn readdress_v6(ip: &mut [u8; ipv6::HEADER_LEN], ends: &Ends6) {
    ip[7] = ip[7].wrapping_sub(1);
    if let Some(place) = ip.last_chunk_mut() {
        *place = ends.hosts();
    }
}

impl Rewrite for V6 {
    const HEADER_LEN: usize = ipv6::HEADER_LEN;

    #[inline]
    fn address_delta(from: Ipv6Addr, to: Ipv6Addr) -> Delta {
        Delta::address6(from, to)
    }

    #[inline]
    fn pseudo_sum(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, octets: u16) -> u32 {
        checksum::pseudo6(source, destination, protocol, octets)
    }

    #[inline(always)]
    fn direct(packet: &mut [u8]) -> Result<(), Stop> {
        let (ip, _) = split_v6(packet)?;
        ip[7] = ip[7].wrapping_sub(1);
        Ok(())
    }

    #[inline(always)]
    fn masquerade(
        packet: &mut [u8],
        l4: usize,
        protocol: u8,
        ends: &Self::Ends,
        _: Delta,
        segment_delta: Delta,
    ) -> Result<(), Stop> {
        // Nearly all of them, at places that are known beforehand.
        if protocol == protocol::TCP
            && l4 == Self::HEADER_LEN
            && let Some((ip, rest)) = packet.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()
            && let Some(tcp) = rest.first_chunk_mut()
        {
            if ip[7] <= 1 {
                return Err(Stop::Exceeded);
            }
            readdress_v6(ip, ends);
            rewrite_tcp(tcp, ends.ports(), segment_delta);
            return Ok(());
        }
        let (ip, rest) = split_v6(packet)?;
        let segment = l4.checked_sub(Self::HEADER_LEN).and_then(|headers| rest.get_mut(headers..));
        let segment = segment.ok_or(Stop::Unparsed)?;
        let no_checksum = rewrite_segment(segment, protocol, ends.ports(), segment_delta)?;
        readdress_v6(ip, ends);
        if no_checksum {
            fill_udp::<Self>(segment, ends);
        }
        Ok(())
    }

    #[inline]
    fn masquerade_fragment(packet: &mut [u8], ends: &Self::Ends, _: Delta) -> Result<(), Stop> {
        let (ip, _) = split_v6(packet)?;
        readdress_v6(ip, ends);
        Ok(())
    }

    fn set_octets(packet: &mut [u8], octets: u16) {
        let header = u16::try_from(ipv6::HEADER_LEN).unwrap_or_default();
        let Some(ip) = packet.first_chunk_mut::<8>() else { return };
        [ip[4], ip[5]] = octets.saturating_sub(header).to_be_bytes();
    }

    #[inline(always)]
    fn inner(packet: &[u8]) -> Option<Inner> {
        let ip = packet.first_chunk::<8>()?;
        Some(Inner {
            protocol: protocol::IPV6,
            tos: ip[0] << 4 | ip[1] >> 4,
            hops: ip[7],
            octets: u16::from_be_bytes([ip[4], ip[5]]).checked_add(40)?,
            // Linux 6.1 ip_vs_xmit.c ip_vs_prepare_tunneled_skb(): IPv6 inside leaves the outer
            // IPv4 header without the flag.
            dont_fragment: false,
        })
    }

    #[inline]
    fn dont_fragment(_: &[u8]) -> bool {
        true
    }
}
