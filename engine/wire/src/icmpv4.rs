//! ICMP (RFC 792).
//!
//! ```text
//!  0      1      2          4            6          8
//!  ├ type ┼ code ┼ checksum ┼ identifier ┼ sequence ┼ data …                     echo
//!  ├ type ┼ code ┼ checksum ┼ 0          ┼ next MTU ┼ IP header, 8 octets or more  error
//! ```

use crate::checksum;
use crate::flow::{Ends, Ends4, Key, V4, protocol};
use crate::icmp::{Error, HEADER_LEN, Icmp, Kind, Quoted, quoted_ports};
use crate::ipv4::{self, Ipv4, Ipv4Mut};
use crate::rewrite::Stop;
use crate::unusable::Unusable;
use core::net::Ipv4Addr;

/// Types of messages, as IANA assigned them.
pub mod message_type {
    /// The answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// A packet did not arrive.
    pub const UNREACHABLE: u8 = 3;
    /// Deprecated by RFC 6633.
    pub const SOURCE_QUENCH: u8 = 4;
    /// To be answered.
    pub const ECHO_REQUEST: u8 = 8;
    /// A packet's hops, or the time to reassemble it, ran out.
    pub const TIME_EXCEEDED: u8 = 11;
}

/// Codes of [`message_type::UNREACHABLE`].
pub mod unreachable {
    /// No route.
    pub const NET: u8 = 0;
    /// Nobody serves there.
    pub const PORT: u8 = 3;
    /// Too big and not to be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// Hops of a packet that the director makes.
const TTL: u8 = 64;
/// Octets of an error, at most.
const ERROR_MAX: usize = 576;

/// A checked header, borrowed from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv4<'p> {
    fixed: &'p [u8; HEADER_LEN],
}

impl<'p> Icmpv4<'p> {
    /// Splits `message` into its header and what follows.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::IcmpChecksum`].
    pub fn parse(message: &'p [u8]) -> Result<(Self, &'p [u8]), Unusable> {
        let (fixed, rest) = message.split_first_chunk().ok_or(Unusable::Truncated)?;
        if !checksum::is_right(message, 0) {
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

    /// What the next link carries, of [`unreachable::FRAGMENTATION_NEEDED`] (RFC 1191 section 4);
    /// 0 from routers that do not say.
    #[must_use]
    pub fn mtu(self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }

    /// What it says. As in Linux, errors are those that report a packet that did not arrive:
    /// redirects and parameter problems are not translated (Linux 6.1 `ip_vs_core.c`
    /// `ip_vs_in_icmp()`).
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.message_type() {
            message_type::ECHO_REQUEST => Kind::EchoRequest,
            message_type::ECHO_REPLY => Kind::EchoReply,
            message_type::UNREACHABLE
            | message_type::SOURCE_QUENCH
            | message_type::TIME_EXCEEDED => Kind::Error,
            _ => Kind::Other,
        }
    }
}

/// Whether a message reports an error, translated or not (RFC 1122 section 3.2.2): it is not to be
/// answered with another. All but these are queries, answers and experiments.
fn reports_error(message_type: u8) -> bool {
    matches!(message_type, 3 | 4 | 5 | 11 | 12)
}

/// The message's checksum anew.
fn sum_up(message: &mut [u8]) {
    if let Some(header) = message.first_chunk_mut::<HEADER_LEN>() {
        [header[2], header[3]] = [0, 0];
    }
    let checksum = checksum::checksum(message, 0);
    if let Some(header) = message.first_chunk_mut::<HEADER_LEN>() {
        [header[2], header[3]] = checksum;
    }
}

impl Icmp for V4 {
    const PROTOCOL: u8 = protocol::ICMP;

    fn message(packet: &[u8], l4: usize) -> Result<(Kind, &[u8]), Unusable> {
        let (header, rest) = Icmpv4::parse(packet.get(l4..).ok_or(Unusable::Truncated)?)?;
        Ok((header.kind(), rest))
    }

    fn claimed(packet: &[u8], l4: usize) -> Option<Kind> {
        let fixed = packet.get(l4..)?.first_chunk()?;
        Some(Icmpv4 { fixed }.kind())
    }

    fn quoted(packet: &[u8]) -> Result<Option<Quoted<Self>>, Unusable> {
        let (ip, segment) = Ipv4::parse_quoted(packet)?;
        if ip.fragment_offset() != 0 {
            return Ok(None);
        }
        let Some((protocol, [from, to], has_ports)) = quoted_ports(ip.protocol(), segment)? else {
            return Ok(None);
        };
        let ends = Ends4::new((ip.source(), from), (ip.destination(), to));
        let ports = has_ports.then_some(ip.header_len());
        Ok(Some(Quoted { key: Key { ends, protocol }, ports }))
    }

    fn echo_reply(packet: &mut [u8], l4: usize, identification: u16) -> Result<usize, Stop> {
        let octets = packet.len();
        let (mut ip, rest) = Ipv4Mut::parse(packet).map_err(|_| Stop::Unparsed)?;
        let (client, us) = (ip.view().source(), ip.view().destination());
        let message = l4.checked_sub(ipv4::HEADER_LEN).and_then(|options| rest.get_mut(options..));
        let message = message.ok_or(Stop::Unparsed)?;
        match message.first_chunk_mut::<HEADER_LEN>() {
            Some(header) if header[0] == message_type::ECHO_REQUEST => {
                header[0] = message_type::ECHO_REPLY;
            }
            _ => return Err(Stop::Unparsed),
        }
        sum_up(message);
        ip.set_identification(identification);
        ip.set_dont_fragment(false);
        ip.set_ttl(TTL);
        ip.set_source(us);
        ip.set_destination(client);
        Ok(octets)
    }

    fn translate_error(
        packet: &mut [u8],
        l4: usize,
        outbound: bool,
        to: (Ipv4Addr, u16),
    ) -> Result<(), Stop> {
        let quote = packet.get(l4..).and_then(|message| message.get(HEADER_LEN..));
        let quoted = Self::quoted(quote.ok_or(Stop::Unparsed)?);
        let quoted = quoted.ok().flatten().ok_or(Stop::Unparsed)?;
        let (mut ip, rest) = Ipv4Mut::parse(packet).map_err(|_| Stop::Unparsed)?;
        let ttl = ip.view().ttl();
        if ttl <= 1 {
            return Err(Stop::Exceeded);
        }
        let message = l4.checked_sub(ipv4::HEADER_LEN).and_then(|options| rest.get_mut(options..));
        let message = message.ok_or(Stop::Unparsed)?;
        let quote = message.get_mut(HEADER_LEN..).ok_or(Stop::Unparsed)?;
        let (mut quoted_ip, _) = Ipv4Mut::parse(quote).map_err(|_| Stop::Unparsed)?;
        ip.set_ttl(ttl.wrapping_sub(1));
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
        sum_up(message);
        Ok(())
    }

    /// RFC 1122 section 3.2.2, Linux 6.1 `icmp.c` `__icmp_send()`.
    fn deserves_error(packet: &[u8]) -> bool {
        let Ok((ip, payload)) = Ipv4::parse_quoted(packet) else { return false };
        let group = |address: Ipv4Addr| address.is_multicast() || address.is_broadcast();
        let answerable = !group(ip.source())
            && !group(ip.destination())
            && !ip.source().is_unspecified()
            && !ip.source().is_loopback();
        let error = ip.protocol() == protocol::ICMP
            && payload.first().is_none_or(|message_type| reports_error(*message_type));
        answerable && ip.fragment_offset() == 0 && !error
    }

    fn write_error(
        error: Error,
        source: Ipv4Addr,
        about: &[u8],
        identification: u16,
        place: &mut [u8],
    ) -> Option<usize> {
        let (ip, _) = Ipv4::parse_quoted(about).ok()?;
        let quote_max = ERROR_MAX - ipv4::HEADER_LEN - HEADER_LEN;
        let quote = about.get(..quote_max).unwrap_or(about);
        let (message_type, code, field) = match error {
            Error::PortUnreachable => (message_type::UNREACHABLE, unreachable::PORT, [0; 4]),
            Error::NetUnreachable => (message_type::UNREACHABLE, unreachable::NET, [0; 4]),
            Error::TimeExceeded => (message_type::TIME_EXCEEDED, 0, [0; 4]),
            Error::TooBig { mtu } => {
                let mtu = u32::from(mtu).to_be_bytes();
                (message_type::UNREACHABLE, unreachable::FRAGMENTATION_NEEDED, mtu)
            }
            Error::Relayed { message_type, code, rest } => (message_type, code, rest),
        };
        let header = ipv4::Header {
            // RFC 1812 section 4.3.2.5: internetwork control, and the type of service it had.
            tos: ip.tos() & 0x1e | 0xc0,
            payload_len: u16::try_from(HEADER_LEN + quote.len()).ok()?,
            identification,
            dont_fragment: false,
            ttl: TTL,
            protocol: protocol::ICMP,
            source,
            destination: ip.source(),
        };
        let (ip, message) = place.split_first_chunk_mut()?;
        let message = message.get_mut(..HEADER_LEN + quote.len())?;
        let (fixed, rest) = message.split_first_chunk_mut::<HEADER_LEN>()?;
        let [a, b, c, d] = field;
        *fixed = [message_type, code, 0, 0, a, b, c, d];
        rest.copy_from_slice(quote);
        sum_up(message);
        *ip = header.octets();
        Some(ipv4::HEADER_LEN + message.len())
    }
}
