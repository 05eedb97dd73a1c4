//! Packets as recordings describe them: made from a few words, and read back into them.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use rvs_wire::ethernet::{self, ethertype};
use rvs_wire::flow::{V4, V6, protocol};
use rvs_wire::icmp::{self, Icmp};
use rvs_wire::ipv4::{self, Ipv4};
use rvs_wire::ipv6::{self, Ipv6};
use rvs_wire::mac::MacAddr;
use rvs_wire::sctp::{self, chunk_type};
use rvs_wire::tcp::{self, flag};
use rvs_wire::{checksum, ipv6_ext, udp};

/// What an IP header says beside who sends what to whom.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// Of IPv4.
    pub identification: u16,
    /// Of IPv4.
    pub dont_fragment: bool,
}

impl Header {
    /// Of packets whose header a recording does not tell.
    pub const PLAIN: Self = Self { tos: 0, hops: 64, identification: 0, dont_fragment: true };
}

/// The flags that a recording names by one letter each.
const FLAGS: [(char, u8); 6] = [
    ('F', flag::FIN),
    ('S', flag::SYN),
    ('R', flag::RST),
    ('P', flag::PSH),
    ('A', flag::ACK),
    ('U', flag::URG),
];

/// The flags that `letters` name; `None` for a letter that is none.
#[must_use]
pub fn tcp_flags(letters: &str) -> Option<u8> {
    let flag = |letter: char| FLAGS.iter().find(|(name, _)| *name == letter).map(|(_, flag)| *flag);
    letters.chars().try_fold(0, |all, letter| Some(all | flag(letter)?))
}

/// A TCP segment without options and data; 40 octets over IPv4. `None` for two families.
#[must_use]
pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Option<Vec<u8>> {
    let header = tcp::Header {
        source_port: source.port(),
        destination_port: destination.port(),
        sequence: 1000,
        acknowledgment: if flags & flag::ACK == 0 { 0 } else { 2000 },
        flags,
        window: 8192,
    };
    let pseudo = pseudo(source.ip(), destination.ip(), protocol::TCP, 20)?;
    plain(source.ip(), destination.ip(), protocol::TCP, &header.octets(&[], pseudo))
}

/// A UDP datagram around `data`. `None` for two families.
#[must_use]
pub fn udp(source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Option<Vec<u8>> {
    let octets = u16::try_from(udp::HEADER_LEN + data.len()).ok()?;
    let pseudo = pseudo(source.ip(), destination.ip(), protocol::UDP, octets)?;
    let mut datagram = udp::header(source.port(), destination.port(), data, pseudo).to_vec();
    datagram.extend_from_slice(data);
    plain(source.ip(), destination.ip(), protocol::UDP, &datagram)
}

/// The chunks that recordings name.
const CHUNKS: [(&str, u8); 13] = [
    ("DATA", chunk_type::DATA),
    ("INIT", chunk_type::INIT),
    ("INIT_ACK", chunk_type::INIT_ACK),
    ("SACK", chunk_type::SACK),
    ("HEARTBEAT", chunk_type::HEARTBEAT),
    ("HEARTBEAT_ACK", chunk_type::HEARTBEAT_ACK),
    ("ABORT", chunk_type::ABORT),
    ("SHUTDOWN", chunk_type::SHUTDOWN),
    ("SHUTDOWN_ACK", chunk_type::SHUTDOWN_ACK),
    ("ERROR", chunk_type::ERROR),
    ("COOKIE_ECHO", chunk_type::COOKIE_ECHO),
    ("COOKIE_ACK", chunk_type::COOKIE_ACK),
    ("SHUTDOWN_COMPLETE", chunk_type::SHUTDOWN_COMPLETE),
];

/// An SCTP packet with the chunks that `names` says, joined by `+`, each with sixteen octets of
/// value. `None` for two families and for a chunk that is not known.
#[must_use]
pub fn sctp(source: SocketAddr, destination: SocketAddr, names: &str) -> Option<Vec<u8>> {
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let mut packet = [ports.as_slice(), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    for name in names.split('+') {
        let (_, kind) = CHUNKS.iter().find(|(known, _)| *known == name)?;
        packet.extend_from_slice(&[*kind, 3, 0, 20]);
        packet.extend_from_slice(&[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    }
    let sum = sctp::checksum(&packet);
    packet.get_mut(8..sctp::HEADER_LEN)?.copy_from_slice(&sum);
    plain(source.ip(), destination.ip(), protocol::SCTP, &packet)
}

/// The ICMP message by which `source` reports `error` to the sender of the packet `about`.
#[must_use]
pub fn icmp_error(source: IpAddr, error: icmp::Error, about: &[u8]) -> Option<Vec<u8>> {
    let mut place = vec![0; icmp::ERROR_MAX];
    let octets = match source {
        IpAddr::V4(source) => V4::write_error(error, source, about, 1, &mut place)?,
        IpAddr::V6(source) => V6::write_error(error, source, about, 1, &mut place)?,
    };
    place.truncate(octets);
    Some(place)
}

/// An echo request without data. `None` for two families.
#[must_use]
pub fn echo_request(source: IpAddr, destination: IpAddr, header: Header) -> Option<Vec<u8>> {
    let (kind, number) = match source {
        IpAddr::V4(_) => (8, protocol::ICMP),
        IpAddr::V6(_) => (128, protocol::ICMPV6),
    };
    let mut message = [kind, 0, 0, 0, 0, 1, 0, 1];
    let more = match source {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => pseudo(source, destination, number, 8)?,
    };
    [message[2], message[3]] = checksum::checksum(&message, more);
    ip(source, destination, header, &[], number, &message)
}

/// The sum of a pseudo-header. `None` for two families.
#[must_use]
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, octets: u16) -> Option<u32> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Some(checksum::pseudo(source, destination, protocol, octets))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Some(checksum::pseudo6(source, destination, protocol, octets))
        }
        _ => None,
    }
}

fn plain(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Option<Vec<u8>> {
    ip(source, destination, Header::PLAIN, &[], protocol, payload)
}

/// An IP packet; `options` are IPv4's, whole words. `None` for two families.
#[must_use]
pub fn ip(
    source: IpAddr,
    destination: IpAddr,
    header: Header,
    options: &[u8],
    protocol: u8,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let Header { tos, hops, identification, dont_fragment } = header;
    let payload_len = u16::try_from(payload.len()).ok()?;
    let header = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let fixed = ipv4::Header {
                tos,
                payload_len,
                identification,
                dont_fragment,
                ttl: hops,
                protocol,
                source,
                destination,
            };
            let mut header = [fixed.octets().as_slice(), options].concat();
            *header.first_mut()? = 0x40 | u8::try_from(header.len() / 4).ok()?;
            let octets = u16::try_from(header.len() + payload.len()).ok()?;
            set_word(&mut header, 2, octets);
            finish_header(&mut header);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6::Header {
            traffic_class: tos,
            payload_len,
            next_header: protocol,
            hop_limit: hops,
            source,
            destination,
        }
        .octets()
        .to_vec(),
        _ => return None,
    };
    Some([header.as_slice(), payload].concat())
}

/// Writes a word into octets that have it.
pub fn set_word(octets: &mut [u8], at: usize, to: u16) {
    if let Some(place) = octets.get_mut(at..at + 2) {
        place.copy_from_slice(&to.to_be_bytes());
    }
}

/// An IPv4 header's checksum anew.
pub fn finish_header(header: &mut [u8]) {
    set_word(header, 10, 0);
    let sum = checksum::checksum(header, 0);
    set_word(header, 10, u16::from_be_bytes(sum));
}

/// An Ethernet frame around an IP packet.
#[must_use]
pub fn frame(to: MacAddr, from: MacAddr, packet: &[u8]) -> Vec<u8> {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let kind = if is_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let mut frame = ethernet::header(to, from, kind).to_vec();
    frame.extend_from_slice(packet);
    frame
}

/// What a recording says of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// Who sent it.
    pub source: IpAddr,
    /// Who is to have it.
    pub destination: IpAddr,
    /// What it carries, behind extension headers.
    pub protocol: u8,
    /// Source and destination port of TCP, UDP and SCTP.
    pub ports: Option<(u16, u16)>,
    /// Flags of TCP.
    pub flags: u8,
    /// Type and code of ICMP.
    pub icmp: Option<(u8, u8)>,
    /// Whether it is a piece of a packet.
    pub is_fragment: bool,
    /// Where its payload begins, counted from the IP header.
    pub l4: usize,
    /// Its length by its IP header.
    pub octets: usize,
}

/// Reads a packet; `None` if it is none.
#[must_use]
pub fn look(packet: &[u8]) -> Option<Look> {
    let (source, destination, protocol, is_fragment, l4, octets, first): (
        IpAddr,
        IpAddr,
        _,
        _,
        _,
        _,
        _,
    ) = if packet.first()? >> 4 == 6 {
        let (ip, payload) = Ipv6::parse_quoted(packet).ok()?;
        let upper = ipv6_ext::walk(ip.next_header(), payload).ok()?;
        let l4 = ipv6::HEADER_LEN + upper.extensions_len;
        let octets = ipv6::HEADER_LEN + usize::from(ip.payload_len());
        let fragment = upper.fragment;
        let (is, first) = (
            fragment.is_some_and(|fragment| !fragment.is_whole()),
            fragment.is_none_or(|fragment| fragment.offset == 0),
        );
        (ip.source().into(), ip.destination().into(), upper.protocol, is, l4, octets, first)
    } else {
        let (ip, _) = Ipv4::parse_quoted(packet).ok()?;
        let (first, octets) = (ip.fragment_offset() == 0, usize::from(ip.total_len()));
        let l4 = ip.header_len();
        let is = ip.is_fragment();
        (ip.source().into(), ip.destination().into(), ip.protocol(), is, l4, octets, first)
    };
    let payload = packet.get(l4..).filter(|_| first).unwrap_or_default();
    let mut look = Look {
        source,
        destination,
        protocol,
        ports: None,
        flags: 0,
        icmp: None,
        is_fragment,
        l4,
        octets,
    };
    match (protocol, payload) {
        (protocol::TCP | protocol::UDP | protocol::SCTP, [a, b, c, d, ..]) => {
            look.ports = Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
            if protocol == protocol::TCP {
                look.flags = payload.get(13).copied().unwrap_or_default() & 0x3f;
            }
        }
        (protocol::ICMP | protocol::ICMPV6, [kind, code, ..]) => look.icmp = Some((*kind, *code)),
        _ => {}
    }
    Some(look)
}

impl Look {
    /// Source address and port.
    #[must_use]
    pub fn source_socket(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.ports.unwrap_or_default().0)
    }

    /// Destination address and port.
    #[must_use]
    pub fn destination_socket(&self) -> SocketAddr {
        SocketAddr::new(self.destination, self.ports.unwrap_or_default().1)
    }

    /// Whether it is an ICMP error about another packet.
    #[must_use]
    pub fn is_icmp_error(&self) -> bool {
        match (self.protocol, self.icmp) {
            (protocol::ICMP, Some((kind, _))) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (protocol::ICMPV6, Some((kind, _))) => kind < 128,
            _ => false,
        }
    }

    /// What the director answered, in the words of `behaviour/` and `scheduler/`.
    #[must_use]
    pub fn answer(&self) -> String {
        match self.protocol {
            protocol::TCP => format!("proto 6 flags {}", self.flags),
            // As Python writes what is not there.
            other => self.icmp_answer().unwrap_or_else(|| format!("proto {other} flags None")),
        }
    }

    /// The same in the words of `states/`.
    #[must_use]
    pub fn answer_in_states(&self) -> String {
        match self.protocol {
            protocol::TCP => format!("tcp flags {:#x}", self.flags),
            other => self.icmp_answer().unwrap_or_else(|| format!("proto {other}")),
        }
    }

    fn icmp_answer(&self) -> Option<String> {
        let (kind, code) = self.icmp?;
        let name = if self.protocol == protocol::ICMPV6 { "icmpv6" } else { "icmp" };
        Some(format!("{name} type {kind} code {code}"))
    }
}

/// Addresses and ports as recordings write them.
impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Some(_) => write!(f, "{} > {}", self.source_socket(), self.destination_socket()),
            None => write!(f, "proto {} {} > {}", self.protocol, self.source, self.destination),
        }
    }
}
