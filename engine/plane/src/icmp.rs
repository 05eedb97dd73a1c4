//! What the stack needs to know of a packet of either family, and the answers it makes.

use crate::ftp::Word;
use crate::handoff::Inbox;
use core::net::{Ipv4Addr, Ipv6Addr};
use crossbeam_queue::ArrayQueue;
use rvs_io::Frame;
use rvs_model::Tick;
use rvs_wire::checksum;
use rvs_wire::flow::{V4, V6, protocol};
use rvs_wire::icmp::Icmp;
use rvs_wire::ipv4::{self, Ipv4};
use rvs_wire::ipv6::{self, Ipv6};
use rvs_wire::piece::Pieces;
use rvs_wire::sctp::{self, Sctp};
use rvs_wire::tcp::{self, Tcp, flag};
use rvs_wire::{ipv6_ext, udp};

/// Hops of packets that the director makes.
const HOPS: u8 = 64;

/// The bits of the traffic class that report congestion (RFC 3168 section 5).
const ECN: u8 = 3;

/// A packet as the stack sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<A> {
    pub(crate) source: A,
    pub(crate) destination: A,
    /// What the payload is.
    pub(crate) protocol: u8,
    /// Where the payload begins.
    pub(crate) l4: usize,
    /// Octets of the packet.
    pub(crate) octets: usize,
    pub(crate) hops: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    pub(crate) is_fragment: bool,
}

/// Whether the packet that begins at `l3` of a frame is of IPv6.
pub(crate) fn is_v6(frame: &impl Frame, l3: u16) -> bool {
    frame.octets().get(usize::from(l3)).is_some_and(|first| first >> 4 == 6)
}

/// What the two families have in common here.
pub(crate) trait Local: Icmp + Pieces {
    /// Reads the headers of a packet, from the IP header on.
    fn look(packet: &[u8]) -> Option<Look<Self::Addr>>;

    /// Writes the header of a packet before its payload, of which are given protocol and octets.
    fn write_header(
        place: &mut [u8],
        payload: (u8, u16),
        ends: (Self::Addr, Self::Addr),
        traffic_class: u8,
    ) -> Option<()>;

    /// What other workers say of data connections.
    fn words<B>(inbox: &Inbox<B>) -> &ArrayQueue<Word<Self>>;
}

impl Local for V4 {
    fn words<B>(inbox: &Inbox<B>) -> &ArrayQueue<Word<Self>> {
        &inbox.words4
    }

    fn look(packet: &[u8]) -> Option<Look<Ipv4Addr>> {
        let (ip, _) = Ipv4::parse(packet).ok()?;
        Some(Look {
            source: ip.source(),
            destination: ip.destination(),
            protocol: ip.protocol(),
            l4: ip.header_len(),
            octets: ip.total_len().into(),
            hops: ip.ttl(),
            traffic_class: ip.tos(),
            is_fragment: ip.is_fragment(),
        })
    }

    /// As Linux does for resets (`ip_send_unicast_reply()`): don't fragment, and hence no
    /// identification.
    fn write_header(
        place: &mut [u8],
        (protocol, payload_len): (u8, u16),
        (source, destination): (Ipv4Addr, Ipv4Addr),
        tos: u8,
    ) -> Option<()> {
        *place.first_chunk_mut()? = ipv4::Header {
            tos,
            payload_len,
            identification: 0,
            dont_fragment: true,
            ttl: HOPS,
            protocol,
            source,
            destination,
        }
        .octets();
        Some(())
    }
}

impl Local for V6 {
    fn words<B>(inbox: &Inbox<B>) -> &ArrayQueue<Word<Self>> {
        &inbox.words6
    }

    fn look(packet: &[u8]) -> Option<Look<Ipv6Addr>> {
        let (ip, payload) = Ipv6::parse(packet).ok()?;
        let upper = ipv6_ext::walk(ip.next_header(), payload).ok()?;
        Some(Look {
            source: ip.source(),
            destination: ip.destination(),
            protocol: upper.protocol,
            l4: ipv6::HEADER_LEN + upper.extensions_len,
            octets: ipv6::HEADER_LEN + usize::from(ip.payload_len()),
            hops: ip.hop_limit(),
            traffic_class: ip.traffic_class(),
            is_fragment: upper.fragment.is_some_and(|fragment| !fragment.is_whole()),
        })
    }

    fn write_header(
        place: &mut [u8],
        (next_header, payload_len): (u8, u16),
        (source, destination): (Ipv6Addr, Ipv6Addr),
        traffic_class: u8,
    ) -> Option<()> {
        *place.first_chunk_mut()? = ipv6::Header {
            traffic_class,
            payload_len,
            next_header,
            hop_limit: HOPS,
            source,
            destination,
        }
        .octets();
        Some(())
    }
}

/// Whether the checksum of a TCP segment, UDP datagram or SCTP packet holds.
pub(crate) fn segment_is_right<F: Local>(packet: &[u8], look: &Look<F::Addr>) -> bool {
    let Some(segment) = packet.get(look.l4..look.octets) else { return false };
    if look.protocol == protocol::UDP
        && let Some([.., 0, 0]) = segment.first_chunk::<{ udp::HEADER_LEN }>()
    {
        // RFC 8200 section 8.1: over IPv6 there must be one.
        return !F::IS_V6;
    }
    if look.protocol == protocol::SCTP {
        return sctp::is_right(segment);
    }
    let Ok(octets) = u16::try_from(segment.len()) else { return false };
    let pseudo = F::pseudo_sum(look.source, look.destination, look.protocol, octets);
    checksum::is_right(segment, pseudo)
}

/// Writes the reset that answers `packet` at the beginning of `place`, and says how long it is.
/// RFC 9293 section 3.10.7.1; `None` for a reset, which is not answered. It has the segment's class
/// without its ECN bits (Linux 6.1 `tcp_ipv4.c` `tcp_v4_send_reset()`, `ip_send_unicast_reply()`).
pub(crate) fn write_reset<F: Local>(
    packet: &[u8],
    look: &Look<F::Addr>,
    place: &mut [u8],
) -> Option<usize> {
    let (tcp, data) = Tcp::parse(packet.get(look.l4..look.octets)?).ok()?;
    let flags = tcp.flags();
    if flags & flag::RST != 0 {
        return None;
    }
    let occupied = u32::try_from(data.len()).ok()?
        + u32::from(flags & flag::SYN != 0)
        + u32::from(flags & flag::FIN != 0);
    let (sequence, acknowledgment, flags) = if flags & flag::ACK != 0 {
        (tcp.acknowledgment(), 0, flag::RST)
    } else {
        (0, tcp.sequence().wrapping_add(occupied), flag::RST | flag::ACK)
    };
    let header = tcp::Header {
        source_port: tcp.destination_port(),
        destination_port: tcp.source_port(),
        sequence,
        acknowledgment,
        flags,
        window: 0,
    };
    let ends = (look.destination, look.source);
    let pseudo = F::pseudo_sum(ends.0, ends.1, protocol::TCP, 20);
    F::write_header(place, (protocol::TCP, 20), ends, look.traffic_class & !ECN)?;
    let segment = place.get_mut(F::HEADER_LEN..)?.first_chunk_mut()?;
    *segment = header.octets(&[], pseudo);
    Some(F::HEADER_LEN + tcp::HEADER_LEN)
}

/// The same for an SCTP packet that belongs to no association (RFC 9260 section 8.4).
pub(crate) fn write_abort<F: Local>(
    packet: &[u8],
    look: &Look<F::Addr>,
    place: &mut [u8],
) -> Option<usize> {
    let answer = Sctp::parse(packet.get(look.l4..look.octets)?).ok()?.answer()?;
    let octets = u16::try_from(answer.len()).ok()?;
    let ends = (look.destination, look.source);
    F::write_header(place, (protocol::SCTP, octets), ends, 0)?;
    *place.get_mut(F::HEADER_LEN..)?.first_chunk_mut()? = answer;
    Some(F::HEADER_LEN + answer.len())
}

/// How many answers and errors a worker makes: a bucket of tokens.
///
/// Linux 6.1 `net/ipv4/icmp.c` `icmp_global_allow()`: 1000 a second, 50 at once. Here per worker, and
/// as many at once as one tick brings.
#[derive(Debug)]
pub(crate) struct Limiter {
    tokens: u32,
    filled: Tick,
}

impl Limiter {
    const PER_TICK: u32 = 1000 / rvs_model::TICKS_PER_SECOND;

    pub(crate) fn new(now: Tick) -> Self {
        Self { tokens: Self::PER_TICK, filled: now }
    }

    /// Whether one more may be made.
    pub(crate) fn allow(&mut self, now: Tick) -> bool {
        if self.filled != now {
            self.filled = now;
            self.tokens = Self::PER_TICK;
        }
        let allowed = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        allowed
    }
}
