//! What is in a frame that came, by places in it, so that it can be read and turned round.
//!
//! ```text
//!  ├ Ethernet ┼ [outer IP] ┼ IP ┼ TCP or UDP ┼ record … ┤ padding
//!                          ▲ l3 ▲ l4         ▲ data     ▲ end
//! ```

use crate::scenario::Scenario;
use rvs_wire::checksum;
use rvs_wire::ethernet::{self, Ethernet, ethertype};
use rvs_wire::flow::protocol;
use rvs_wire::ipv4::Ipv4;
use rvs_wire::ipv6::Ipv6;
use rvs_wire::ipv6_ext;
use rvs_wire::mac::MacAddr;
use rvs_wire::tcp::Tcp;
use rvs_wire::tunnel::{self, Encapsulation};
use rvs_wire::udp::Udp;
use std::net::IpAddr;

/// Why a frame is no packet of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unread {
    /// Lengths or a checksum are wrong.
    Damaged,
    /// Another protocol, another host, or a group.
    Foreign,
    /// It came to a real server's Ethernet address, but neither to its IP address nor to the VIP.
    Misaddressed,
}

/// How a packet got to its real server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// To the server's address: masquerading.
    Nat,
    /// To the VIP, at the server's Ethernet address: direct routing.
    Direct,
    /// To the VIP, in a packet to the server's address: a tunnel.
    Tunnel,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nat, Self::Direct, Self::Tunnel];

    /// Its place in [`How::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Nat => 0,
            Self::Direct => 1,
            Self::Tunnel => 2,
        }
    }

    /// Its word in reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A TCP segment or UDP datagram in a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Where its IP header begins.
    pub l3: usize,
    /// Where its TCP or UDP header begins.
    pub l4: usize,
    /// Where its data begins.
    pub data: usize,
    /// Where its data ends.
    pub end: usize,
    /// Whether its IP header is of version 6.
    pub v6: bool,
    /// Whether it is TCP.
    pub tcp: bool,
    /// TCP's flags; 0 for UDP.
    pub flags: u8,
    /// Who sent it.
    pub source: (IpAddr, u16),
    /// To whom.
    pub destination: (IpAddr, u16),
}

/// A packet at a real server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Which one.
    pub real: u16,
    /// How it came.
    pub how: How,
    /// The packet itself, without a tunnel's header.
    pub segment: Segment,
}

/// Reads a frame that came to the real servers.
///
/// # Errors
///
/// [`Unread`].
#[inline]
pub fn arrival(frame: &[u8], scenario: &Scenario) -> Result<Arrival, Unread> {
    let (to, v6) = ip_frame(frame)?;
    let (real, address) = scenario.real_at(to).ok_or(Unread::Foreign)?;
    let mut ip = ip(frame, ethernet::HEADER_LEN, v6)?;
    let inside = unwrapped(frame, ip, address, scenario)?;
    let tunnel = inside.is_some();
    ip = inside.unwrap_or(ip);
    let how = match ip.destination {
        vip if vip == scenario.vip.ip() => {
            if tunnel {
                How::Tunnel
            } else {
                How::Direct
            }
        }
        own if own == address && !tunnel => How::Nat,
        _ => return Err(Unread::Misaddressed),
    };
    Ok(Arrival { real, how, segment: segment(frame, ip)? })
}

/// The packet inside a tunnel's, if it is one: IP in IP, GRE or GUE, which must end at `address`. What
/// GRE's or GUE's own checksum covers must be as it was sent.
#[inline]
fn unwrapped(
    frame: &[u8],
    outer: Ip,
    address: IpAddr,
    scenario: &Scenario,
) -> Result<Option<Ip>, Unread> {
    let is_tunnel = match outer.protocol {
        protocol::IPIP | protocol::IPV6 | protocol::GRE => true,
        // Most often a datagram of the generator's own, by masquerading.
        protocol::UDP => false,
        _ => return Ok(None),
    };
    let packet = frame.get(outer.l3..outer.end).ok_or(Unread::Damaged)?;
    let Some(found) = tunnel::open(packet) else {
        return if is_tunnel { Err(Unread::Foreign) } else { Ok(None) };
    };
    if is_tunnel && outer.destination != address {
        return Err(Unread::Misaddressed);
    }
    let v6 = found.protocol == protocol::IPV6;
    let whole = frame.get(..outer.end).unwrap_or(frame);
    let inner = match ip(whole, outer.l3 + found.octets, v6) {
        // Octets of a datagram that look like GUE's by chance.
        Err(_) if !is_tunnel => return Ok(None),
        inner => inner?,
    };
    if !is_tunnel && (outer.destination != address || inner.destination != scenario.vip.ip()) {
        return Ok(None);
    }
    match found.encapsulation {
        Encapsulation::Gue { checksum: true, .. } => segment(frame, outer).map(drop)?,
        Encapsulation::Gre { checksum: true } => {
            let sent = frame.get(outer.l4..outer.end).ok_or(Unread::Damaged)?;
            if !checksum::is_right(sent, 0) {
                return Err(Unread::Damaged);
            }
        }
        _ => {}
    }
    Ok(Some(inner))
}

/// Reads a frame that came to the clients, whose Ethernet address is `me`.
///
/// # Errors
///
/// [`Unread`].
#[inline]
pub fn answer(frame: &[u8], me: MacAddr) -> Result<Segment, Unread> {
    let (to, v6) = ip_frame(frame)?;
    if to != me {
        return Err(Unread::Foreign);
    }
    segment(frame, ip(frame, ethernet::HEADER_LEN, v6)?)
}

/// To whom a frame with an IP packet is, and whether that is of version 6.
#[inline]
fn ip_frame(frame: &[u8]) -> Result<(MacAddr, bool), Unread> {
    let (ethernet, _) = Ethernet::parse(frame).map_err(|_| Unread::Damaged)?;
    match ethernet.ethertype() {
        ethertype::IPV4 => Ok((ethernet.destination(), false)),
        ethertype::IPV6 => Ok((ethernet.destination(), true)),
        _ => Err(Unread::Foreign),
    }
}

/// An IP header in a frame.
#[derive(Clone, Copy, Debug)]
struct Ip {
    l3: usize,
    l4: usize,
    end: usize,
    v6: bool,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
}

#[inline]
fn ip(frame: &[u8], l3: usize, v6: bool) -> Result<Ip, Unread> {
    let packet = frame.get(l3..).ok_or(Unread::Damaged)?;
    if v6 {
        let (ip, payload) = Ipv6::parse(packet).map_err(|_| Unread::Damaged)?;
        let upper = ipv6_ext::walk(ip.next_header(), payload).map_err(|_| Unread::Damaged)?;
        if upper.fragment.is_some() {
            return Err(Unread::Foreign);
        }
        let l4 = l3 + rvs_wire::ipv6::HEADER_LEN + upper.extensions_len;
        return Ok(Ip {
            l3,
            l4,
            end: l4 + upper.payload.len(),
            v6: true,
            protocol: upper.protocol,
            source: ip.source().into(),
            destination: ip.destination().into(),
        });
    }
    let (ip, payload) = Ipv4::parse(packet).map_err(|_| Unread::Damaged)?;
    if ip.is_fragment() {
        return Err(Unread::Foreign);
    }
    let l4 = l3 + ip.header_len();
    Ok(Ip {
        l3,
        l4,
        end: l4 + payload.len(),
        v6: false,
        protocol: ip.protocol(),
        source: ip.source().into(),
        destination: ip.destination().into(),
    })
}

#[inline]
fn segment(frame: &[u8], ip: Ip) -> Result<Segment, Unread> {
    let Ip { l3, l4, end, v6, .. } = ip;
    let octets = frame.get(l4..end).ok_or(Unread::Damaged)?;
    // The addresses of a header lie together.
    let addresses = if v6 { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 };
    let addresses = checksum::sum(frame.get(addresses).ok_or(Unread::Damaged)?);
    let is_right = |octets: &[u8], protocol: u8| {
        let len = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        checksum::is_right(octets, addresses + u32::from(protocol) + len)
    };
    match ip.protocol {
        protocol::TCP => {
            let (tcp, data) = Tcp::parse(octets).map_err(|_| Unread::Damaged)?;
            if !is_right(octets, protocol::TCP) {
                return Err(Unread::Damaged);
            }
            let source = (ip.source, tcp.source_port());
            let destination = (ip.destination, tcp.destination_port());
            let (data, flags) = (end - data.len(), tcp.flags());
            Ok(Segment { l3, l4, data, end, v6, tcp: true, flags, source, destination })
        }
        protocol::UDP => {
            let (udp, data) = Udp::parse(octets).map_err(|_| Unread::Damaged)?;
            let header_len = rvs_wire::udp::HEADER_LEN;
            let datagram = octets.get(..header_len + data.len()).ok_or(Unread::Damaged)?;
            // RFC 768: zero is no checksum; RFC 8200 section 8.1 has no such thing.
            let unsummed = udp.checksum() == 0 && !v6;
            if !unsummed && !is_right(datagram, protocol::UDP) {
                return Err(Unread::Damaged);
            }
            let source = (ip.source, udp.source_port());
            let destination = (ip.destination, udp.destination_port());
            let (data, end) = (l4 + header_len, l4 + datagram.len());
            Ok(Segment { l3, l4, data, end, v6, tcp: false, flags: 0, source, destination })
        }
        _ => Err(Unread::Foreign),
    }
}
