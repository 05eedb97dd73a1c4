//! ICMPv6 (RFC 4443). Neighbour discovery, which travels in it, is [`crate::ndp`]'s.
//!
//! ```text
//!  0      1      2          4            6          8
//!  ├ type ┼ code ┼ checksum ┼ identifier ┼ sequence ┼ data …               echo
//!  ├ type ┼ code ┼ checksum ┼ MTU or pointer or 0   ┼ IPv6 packet …        error: type below 128
//! ```

use crate::checksum;
use crate::flow::{Ends, Ends6, Key, V6, protocol};
use crate::icmp::{ERROR_MAX, Error, HEADER_LEN, Icmp, Kind, Quoted, quoted_ports};
use crate::ipv6::{self, Ipv6, Ipv6Mut};
use crate::ipv6_ext;
use crate::rewrite::Stop;
use crate::unusable::Unusable;
use core::net::Ipv6Addr;

/// Types of messages, as IANA assigned them.
pub mod message_type {
    /// A packet did not arrive.
    pub const UNREACHABLE: u8 = 1;
    /// A packet is too big for a link.
    pub const TOO_BIG: u8 = 2;
    /// A packet's hops, or the time to reassemble it, ran out.
    pub const TIME_EXCEEDED: u8 = 3;
    /// To be answered.
    pub const ECHO_REQUEST: u8 = 128;
    /// The answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// RFC 4861 section 4.3.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// RFC 4861 section 4.4.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// RFC 4861 section 4.5.
    pub const REDIRECT: u8 = 137;
    /// Types below it report errors.
    pub const INFORMATIONAL: u8 = 128;
}

/// Codes of [`message_type::UNREACHABLE`].
pub mod unreachable {
    /// No route.
    pub const NO_ROUTE: u8 = 0;
    /// Nobody serves there.
    pub const PORT: u8 = 4;
}

/// Hops of a packet that the director makes.
const HOP_LIMIT: u8 = 64;

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6<'p> {
    fixed: &'p [u8; HEADER_LEN],
}

impl<'p> Icmpv6<'p> {
    /// Splits `message`, which came from `source` to `destination`, into its header and what
    /// follows.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::IcmpChecksum`].
    pub fn parse(
        message: &'p [u8],
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(Self, &'p [u8]), Unusable> {
        let (fixed, rest) = message.split_first_chunk().ok_or(Unusable::Truncated)?;
        let len = u16::try_from(message.len()).map_err(|_| Unusable::Ipv6PayloadLength)?;
        let pseudo = checksum::pseudo6(source, destination, protocol::ICMPV6, len);
        if !checksum::is_right(message, pseudo) {
            return Err(Unusable::IcmpChecksum);
        }
        Ok((Self { fixed }, rest))
    }

    /// See [`message_type`].
    #[must_use]
    pub fn message_type(self) -> u8 {
        self.fixed[0]
    }

    /// More of the type.
    #[must_use]
    pub fn code(self) -> u8 {
        self.fixed[1]
    }

    /// Identifier and sequence number of an echo.
    #[must_use]
    pub fn echo(self) -> (u16, u16) {
        let [_, _, _, _, a, b, c, d] = *self.fixed;
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    /// What the next link carries, of [`message_type::TOO_BIG`].
    #[must_use]
    pub fn mtu(self) -> u32 {
        let [_, _, _, _, octets @ ..] = *self.fixed;
        u32::from_be_bytes(octets)
    }

    /// What it says. As in Linux, all error types are translated (Linux 6.1 `ip_vs_core.c`
    /// `ip_vs_in_icmp_v6()`).
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.message_type() {
            message_type::ECHO_REQUEST => Kind::EchoRequest,
            message_type::ECHO_REPLY => Kind::EchoReply,
            0..message_type::INFORMATIONAL => Kind::Error,
            _ => Kind::Other,
        }
    }
}

/// The message's checksum anew.
fn sum_up(message: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) {
    if let Some(header) = message.first_chunk_mut::<HEADER_LEN>() {
        [header[2], header[3]] = [0, 0];
    }
    // The caller's packet has a 16-bit length, hence the message, too.
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let pseudo = checksum::pseudo6(source, destination, protocol::ICMPV6, len);
    let checksum = checksum::checksum(message, pseudo);
    if let Some(header) = message.first_chunk_mut::<HEADER_LEN>() {
        [header[2], header[3]] = checksum;
    }
}

impl Icmp for V6 {
    const PROTOCOL: u8 = protocol::ICMPV6;

    fn message(packet: &[u8], l4: usize) -> Result<(Kind, &[u8]), Unusable> {
        let (ip, _) = Ipv6::parse_quoted(packet)?;
        let message = packet.get(l4..).ok_or(Unusable::Truncated)?;
        let (header, rest) = Icmpv6::parse(message, ip.source(), ip.destination())?;
        Ok((header.kind(), rest))
    }

    fn claimed(packet: &[u8], l4: usize) -> Option<Kind> {
        let fixed = packet.get(l4..)?.first_chunk()?;
        Some(Icmpv6 { fixed }.kind())
    }

    fn quoted(packet: &[u8]) -> Result<Option<Quoted<Self>>, Unusable> {
        let (ip, payload) = Ipv6::parse_quoted(packet)?;
        let upper = ipv6_ext::walk(ip.next_header(), payload)?;
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(None);
        }
        let quoted = quoted_ports(upper.protocol, upper.payload)?;
        let Some((protocol, [from, to], has_ports)) = quoted else { return Ok(None) };
        let ends = Ends6::new((ip.source(), from), (ip.destination(), to));
        let ports = has_ports.then_some(ipv6::HEADER_LEN + upper.extensions_len);
        Ok(Some(Quoted { key: Key { ends, protocol }, ports }))
    }

    fn echo_reply(packet: &mut [u8], l4: usize, _: u16) -> Result<usize, Stop> {
        let (ip, _) = Ipv6::parse(packet).map_err(|_| Stop::Unparsed)?;
        let (client, us, traffic_class) = (ip.source(), ip.destination(), ip.traffic_class());
        let end = ipv6::HEADER_LEN + usize::from(ip.payload_len());
        let message = packet.get(l4..end).filter(|_| l4 >= ipv6::HEADER_LEN);
        if message.and_then(<[u8]>::first) != Some(&message_type::ECHO_REQUEST) {
            return Err(Stop::Unparsed);
        }
        packet.copy_within(l4..end, ipv6::HEADER_LEN);
        let (place, rest) = packet.split_first_chunk_mut().ok_or(Stop::Unparsed)?;
        let message = rest.get_mut(..end - l4).ok_or(Stop::Unparsed)?;
        if let Some(header) = message.first_chunk_mut::<HEADER_LEN>() {
            header[0] = message_type::ECHO_REPLY;
        }
        sum_up(message, us, client);
        *place = ipv6::Header {
            traffic_class,
            payload_len: u16::try_from(message.len()).map_err(|_| Stop::Unparsed)?,
            next_header: protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source: us,
            destination: client,
        }
        .octets();
        Ok(ipv6::HEADER_LEN + message.len())
    }

    fn translate_error(
        packet: &mut [u8],
        l4: usize,
        outbound: bool,
        to: (Ipv6Addr, u16),
    ) -> Result<(), Stop> {
        let quote = packet.get(l4..).and_then(|message| message.get(HEADER_LEN..));
        let quoted = Self::quoted(quote.ok_or(Stop::Unparsed)?);
        let quoted = quoted.ok().flatten().ok_or(Stop::Unparsed)?;
        let (mut ip, rest) = Ipv6Mut::parse(packet).map_err(|_| Stop::Unparsed)?;
        let hops = ip.view().hop_limit();
        if hops <= 1 {
            return Err(Stop::Exceeded);
        }
        let message = l4.checked_sub(ipv6::HEADER_LEN).and_then(|headers| rest.get_mut(headers..));
        let message = message.ok_or(Stop::Unparsed)?;
        let quote = message.get_mut(HEADER_LEN..).ok_or(Stop::Unparsed)?;
        let (mut quoted_ip, _) = Ipv6Mut::parse(quote).map_err(|_| Stop::Unparsed)?;
        ip.set_hop_limit(hops.wrapping_sub(1));
        if outbound {
            ip.set_source(to.0);
            quoted_ip.set_destination(to.0);
        } else {
            ip.set_destination(to.0);
            quoted_ip.set_source(to.0);
        }
        let ports = quoted.ports.and_then(|at| quote.get_mut(at..));
        if let Some([a, b, c, d]) = ports.and_then(<[u8]>::first_chunk_mut::<4>) {
            let port = if outbound { (c, d) } else { (a, b) };
            [*port.0, *port.1] = to.1.to_be_bytes();
        }
        sum_up(message, ip.view().source(), ip.view().destination());
        Ok(())
    }

    /// RFC 4443 section 2.4 (e), Linux 6.1 `net/ipv6/icmp.c` `icmp6_send()`.
    fn deserves_error(packet: &[u8]) -> bool {
        let Ok((ip, payload)) = Ipv6::parse_quoted(packet) else { return false };
        let Ok(upper) = ipv6_ext::walk(ip.next_header(), payload) else { return false };
        let answerable = !ip.source().is_multicast()
            && !ip.source().is_unspecified()
            && !ip.source().is_loopback()
            && !ip.destination().is_multicast();
        let error = upper.protocol == protocol::ICMPV6
            && upper.payload.first().is_none_or(|message_type| {
                *message_type < message_type::INFORMATIONAL
                    || *message_type == message_type::REDIRECT
            });
        let later = upper.fragment.is_some_and(|fragment| fragment.offset != 0);
        answerable && !later && !error
    }

    fn write_error(
        error: Error,
        source: Ipv6Addr,
        about: &[u8],
        _: u16,
        place: &mut [u8],
    ) -> Option<usize> {
        let (ip, _) = Ipv6::parse_quoted(about).ok()?;
        let quote = about.get(..ERROR_MAX - ipv6::HEADER_LEN - HEADER_LEN).unwrap_or(about);
        let (message_type, code, field) = match error {
            Error::PortUnreachable => (message_type::UNREACHABLE, unreachable::PORT, [0; 4]),
            Error::NetUnreachable => (message_type::UNREACHABLE, unreachable::NO_ROUTE, [0; 4]),
            Error::TimeExceeded => (message_type::TIME_EXCEEDED, 0, [0; 4]),
            Error::TooBig { mtu } => (message_type::TOO_BIG, 0, u32::from(mtu).to_be_bytes()),
            Error::Relayed { message_type, code, rest } => (message_type, code, rest),
        };
        let header = ipv6::Header {
            traffic_class: 0,
            payload_len: u16::try_from(HEADER_LEN + quote.len()).ok()?,
            next_header: protocol::ICMPV6,
            hop_limit: HOP_LIMIT,
            source,
            destination: ip.source(),
        };
        let (ip, message) = place.split_first_chunk_mut()?;
        let message = message.get_mut(..HEADER_LEN + quote.len())?;
        let (fixed, rest) = message.split_first_chunk_mut::<HEADER_LEN>()?;
        let [a, b, c, d] = field;
        *fixed = [message_type, code, 0, 0, a, b, c, d];
        rest.copy_from_slice(quote);
        sum_up(message, source, header.destination);
        *ip = header.octets();
        Some(ipv6::HEADER_LEN + message.len())
    }
}
