//! What ICMP for IPv4 and for IPv6 have in common: echo, and errors that quote a packet.
//!
//! Code that answers and translates is generic over [`Icmp`], as forwarding is over
//! [`crate::rewrite::Rewrite`]; [`crate::icmpv4`] and [`crate::icmpv6`] have the formats.
//!
//! ```text
//!  ├ IP ┼ type, code, checksum ┼ 4 octets ┼ quoted IP header ┼ quoted TCP or UDP, at least 8 … ┤
//! ```

use crate::flow::{Key, protocol};
use crate::rewrite::{Rewrite, Stop};
use crate::unusable::Unusable;

/// Port of the key exchange that AH and ESP follow (RFC 7296 section 2).
pub const ISAKMP: u16 = 500;

/// Octets before what an echo or an error carries.
pub const HEADER_LEN: usize = 8;

/// What a message says, in both families.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// To be answered.
    EchoRequest,
    /// An answer.
    EchoReply,
    /// An error about a packet that the message quotes.
    Error,
    /// Anything else: neighbour discovery, redirects, queries of old.
    Other,
}

/// An error that the director reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// Nobody serves there.
    PortUnreachable,
    /// No route.
    NetUnreachable,
    /// The hops are used up.
    TimeExceeded,
    /// What a router said of a packet inside another, to be passed on.
    Relayed {
        /// As in the message.
        message_type: u8,
        /// As in the message.
        code: u8,
        /// The octets from the fourth to the eighth.
        rest: [u8; 4],
    },
    /// The next link carries packets of at most `mtu` octets.
    TooBig {
        /// In octets of the IP packet.
        mtu: u16,
    },
}

/// A packet that an error quotes, as it was when something went wrong with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quoted<F: Rewrite> {
    /// Whose packet it was. AH and ESP have no ports, and the key of what they follow: the key
    /// exchange between the same hosts.
    pub key: Key<F>,
    /// Where its ports are in it, if it has some.
    pub ports: Option<usize>,
}

/// The protocol and the ports that an error's quote goes by, whose transport header is `segment`;
/// `None` if packets of `protocol` belong to no connection.
pub(crate) fn quoted_ports(
    protocol: u8,
    segment: &[u8],
) -> Result<Option<(u8, [u16; 2], bool)>, Unusable> {
    Ok(match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let [a, b, c, d] = *segment.first_chunk().ok_or(Unusable::Truncated)?;
            Some((protocol, [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])], true))
        }
        protocol::AH | protocol::ESP => Some((protocol::UDP, [ISAKMP; 2], false)),
        _ => None,
    })
}

/// Answering and translating, for one address family. Functions take packets from the IP header
/// on, without padding; `l4` is where the ICMP header begins in one.
pub trait Icmp: Rewrite {
    /// The protocol's number.
    const PROTOCOL: u8;

    /// Says what the message at `l4` is, whose checksum is checked, and what follows its header.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::IcmpChecksum`].
    fn message(packet: &[u8], l4: usize) -> Result<(Kind, &[u8]), Unusable>;

    /// What the message at `l4` says that it is, whether or not its checksum is right; `None` if it is
    /// cut short.
    fn claimed(packet: &[u8], l4: usize) -> Option<Kind>;

    /// Reads what an error quotes; `None` when it is not TCP, UDP, SCTP, AH or ESP, or a fragment
    /// that is not its packet's first.
    ///
    /// # Errors
    ///
    /// [`Unusable`] names the first check that failed.
    fn quoted(packet: &[u8]) -> Result<Option<Quoted<Self>>, Unusable>;

    /// Makes an echo request the reply to itself, and says how long it is now. `identification` is
    /// for IPv4.
    ///
    /// As in Linux an IPv6 reply has no extension headers (`net/ipv6/icmp.c`
    /// `icmpv6_echo_reply()`): what they ask for is not asked of the way back.
    ///
    /// # Errors
    ///
    /// [`Stop::Unparsed`] for anything but an echo request.
    fn echo_reply(packet: &mut [u8], l4: usize, identification: u16) -> Result<usize, Stop>;

    /// Takes an error one hop further, through masquerading. Outbound, from a destination's side to
    /// the client, the error comes from `to` and quotes a packet to it, whoever sent the error;
    /// inbound it goes to `to` and quotes a packet from it.
    ///
    /// Linux 6.1 `ip_vs_core.c` `ip_vs_nat_icmp()`, `ip_vs_nat_icmp_v6()`: checksums within the
    /// quoted transport header stay as they are.
    ///
    /// # Errors
    ///
    /// [`Stop`]; the packet is left as it was.
    fn translate_error(
        packet: &mut [u8],
        l4: usize,
        outbound: bool,
        to: (Self::Addr, u16),
    ) -> Result<(), Stop>;

    /// Whether `packet` may be answered with an error: not an error itself, not a fragment but the
    /// first, and neither from nor to a group.
    fn deserves_error(packet: &[u8]) -> bool;

    /// Writes the packet that reports `error` about the packet `about` to its sender, coming from
    /// `source`, at the beginning of `place`, and says how long it is; `None` when there is not
    /// enough room or `about` is no packet. `identification` is for IPv4.
    ///
    /// It quotes as much of `about` as the RFCs allow: 576 octets in all are enough for IPv4 (RFC
    /// 1812 section 4.3.2.3), 1280 for IPv6 (RFC 4443 section 2.4).
    fn write_error(
        error: Error,
        source: Self::Addr,
        about: &[u8],
        identification: u16,
        place: &mut [u8],
    ) -> Option<usize>;
}

/// Octets of the longest error that [`Icmp::write_error`] writes.
pub const ERROR_MAX: usize = 1280;
