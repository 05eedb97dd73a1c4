//! Pieces of packets, which somebody on the way cut: what they have in common, and what the first of
//! them says for all.
//!
//! ```text
//!  first:  ├ IP, offset 0, more ┼ ports, flags … ┤      names the packet's ports
//!  later:  ├ IP, offset > 0     ┼ payload …      ┤      belongs to it by addresses and identification
//! ```
//!
//! RFC 791 section 3.2, RFC 8200 section 4.5.
//!
//! DIFFERS from Linux, which waits for the rest: a first fragment that ends within its TCP, UDP or SCTP
//! header is dropped, for nobody makes one who wants to be understood (RFC 1858 section 3, ADR 0009).

use crate::flow::{Ends, Family, Key, V4, V6, protocol};
use crate::ipv4::Ipv4;
use crate::ipv6::{self, Ipv6};
use crate::ipv6_ext::{self, next_header};
use crate::packet::Packet;
use crate::sctp;
use crate::tcp::Tcp;
use crate::udp;
use crate::unusable::Unusable;

/// A piece of a TCP segment, UDP datagram or SCTP packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece<F: Family> {
    /// What all pieces of the packet have in common: addresses, in IPv4 the protocol, and the
    /// identification where others have ports. No key of a connection.
    pub whole: Key<F>,
    /// What only the first piece says.
    pub names: Option<Names>,
    /// TCP flags and the like of a first piece, as in [`Packet::flags`].
    pub flags: u8,
    /// Octets of headers before the piece of payload.
    pub header_octets: u16,
    /// Octets of the IP packet that it is.
    pub packet_octets: u16,
    /// Octets of headers that all pieces have and the whole packet has not, if this is the last piece.
    pub saved_octets: u16,
}

/// What a packet's first piece says for all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Names {
    /// Source and destination port as they are on the wire.
    pub ports: [u8; 4],
    /// IP protocol number.
    pub protocol: u8,
}

impl<F: Family> Piece<F> {
    /// Whose packet it is a piece of.
    #[must_use]
    pub fn key(&self, names: Names) -> Key<F> {
        let [a, b, c, d] = names.ports;
        let (source, destination) = (self.whole.ends.source().0, self.whole.ends.destination().0);
        let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let ends = <F::Ends as Ends>::new((source, ports.0), (destination, ports.1));
        Key { ends, protocol: names.protocol }
    }

    /// The piece as a packet that begins at `l3` of a frame. One that is not the first has no
    /// transport header: its `l4` is 0.
    #[must_use]
    pub fn packet(&self, names: Names, l3: u16, vlan: u16) -> Packet<F> {
        Packet {
            key: self.key(names),
            l3,
            l4: if self.names.is_some() { self.header_octets } else { 0 },
            packet_octets: self.packet_octets,
            vlan,
            flags: self.flags,
        }
    }
}

/// Reading pieces, for one address family.
pub trait Pieces: Family {
    /// What `packet`, from its IP header on, is a piece of; `None` if it is whole, or of a protocol
    /// without ports.
    ///
    /// # Errors
    ///
    /// [`Unusable`] if it is no packet, or a first piece without the transport header.
    fn piece(packet: &[u8]) -> Result<Option<Piece<Self>>, Unusable>;
}

/// Ports and flags at the beginning of a transport header; `None` for other protocols.
fn names(protocol: u8, segment: &[u8]) -> Result<Option<(Names, u8)>, Unusable> {
    let flags = match protocol {
        protocol::TCP => Tcp::parse(segment)?.0.flags(),
        protocol::UDP if segment.len() < udp::HEADER_LEN => return Err(Unusable::Truncated),
        protocol::UDP => 0,
        protocol::SCTP => sctp::event(segment)?,
        _ => return Ok(None),
    };
    let ports = *segment.first_chunk().ok_or(Unusable::Truncated)?;
    Ok(Some((Names { ports, protocol }, flags)))
}

fn octets(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

impl Pieces for V4 {
    fn piece(packet: &[u8]) -> Result<Option<Piece<Self>>, Unusable> {
        let (ip, segment) = Ipv4::parse(packet)?;
        let protocol = ip.protocol();
        let has_ports = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        if !ip.is_fragment() || !has_ports {
            return Ok(None);
        }
        let ends = Ends::new((ip.source(), ip.identification()), (ip.destination(), 0));
        let mut piece = Piece {
            whole: Key { ends, protocol },
            names: None,
            flags: 0,
            header_octets: octets(ip.header_len()),
            packet_octets: ip.total_len(),
            saved_octets: 0,
        };
        if ip.fragment_offset() == 0
            && let Some((names, flags)) = names(protocol, segment)?
        {
            (piece.names, piece.flags) = (Some(names), flags);
        }
        Ok(Some(piece))
    }
}

impl Pieces for V6 {
    fn piece(packet: &[u8]) -> Result<Option<Piece<Self>>, Unusable> {
        let (ip, payload) = Ipv6::parse(packet)?;
        let upper = ipv6_ext::walk(ip.next_header(), payload)?;
        let Some(fragment) = upper.fragment.filter(|fragment| !fragment.is_whole()) else {
            return Ok(None);
        };
        let [a, b, c, d] = fragment.identification.to_be_bytes();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let header_octets = octets(ipv6::HEADER_LEN + upper.extensions_len);
        let mut piece = Piece {
            whole: Key {
                ends: Ends::new((ip.source(), high), (ip.destination(), low)),
                // RFC 8200 section 4.5: not part of what belongs together.
                protocol: 0,
            },
            names: None,
            flags: 0,
            header_octets,
            packet_octets: octets(ipv6::HEADER_LEN + usize::from(ip.payload_len())),
            saved_octets: if fragment.more { 0 } else { ipv6_ext::FRAGMENT_LEN },
        };
        if fragment.offset == 0 {
            let Some((names, flags)) = names(upper.protocol, upper.payload)? else {
                return Ok(None);
            };
            (piece.names, piece.flags) = (Some(names), flags);
            return Ok(Some(piece));
        }
        // Behind an extension header there may be ports.
        let may_have_ports = matches!(
            upper.protocol,
            protocol::TCP
                | protocol::UDP
                | protocol::SCTP
                | next_header::ROUTING
                | next_header::DESTINATION_OPTIONS
        );
        Ok(may_have_ports.then_some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checksum, ipv4};
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    fn v4(protocol: u8, field: u16, payload: &[u8]) -> Vec<u8> {
        let header = ipv4::Header {
            tos: 0,
            payload_len: octets(payload.len()),
            identification: 0x1234,
            dont_fragment: false,
            ttl: 64,
            protocol,
            source: Ipv4Addr::new(198, 51, 100, 7),
            destination: Ipv4Addr::new(203, 0, 113, 1),
        };
        let mut packet = [header.octets().as_slice(), payload].concat();
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum::checksum(&packet[..20], 0);
        packet[10..12].copy_from_slice(&sum);
        packet
    }

    fn v6(kind: u8, field: u16, payload: &[u8]) -> Vec<u8> {
        let header = ipv6::Header {
            traffic_class: 0,
            payload_len: octets(payload.len() + 8),
            next_header: 44,
            hop_limit: 64,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::UNSPECIFIED,
        };
        let [a, b] = field.to_be_bytes();
        [header.octets().as_slice(), &[kind, 0, a, b, 0, 1, 0, 2], payload].concat()
    }

    #[test]
    fn the_first_piece_names_ports_and_all_have_the_same_identity() {
        let datagram = [0x80, 0, 0, 53, 9, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let first = V4::piece(&v4(17, 0x2000, &datagram)).unwrap().unwrap();
        let later = V4::piece(&v4(17, 0x0002, &datagram)).unwrap().unwrap();
        assert_eq!((first.whole, later.names), (later.whole, None));
        let names = first.names.unwrap();
        assert_eq!(names, Names { ports: [0x80, 0, 0, 53], protocol: 17 });
        assert_eq!(later.key(names).ends.source(), (Ipv4Addr::new(198, 51, 100, 7), 0x8000));
        assert_eq!((first.packet(names, 14, 0).l4, later.packet(names, 14, 0).l4), (20, 0));
        let first = V6::piece(&v6(17, 1, &datagram)).unwrap().unwrap();
        let later = V6::piece(&v6(17, 16, &datagram)).unwrap().unwrap();
        assert_eq!((first.whole, first.names, later.names), (later.whole, Some(names), None));
        assert_eq!((first.header_octets, first.packet_octets), (48, 64));
    }

    #[test]
    fn what_is_whole_or_has_no_ports_is_no_piece() {
        assert_eq!(V4::piece(&v4(17, 0x4000, &[0; 8])), Ok(None));
        assert_eq!(V4::piece(&v4(1, 0x2000, &[0; 8])), Ok(None));
        assert_eq!(V6::piece(&v6(17, 0, &[0; 8])), Ok(None), "RFC 6946: an atomic one");
        assert_eq!(V6::piece(&v6(58, 1, &[0; 8])), Ok(None));
        assert_eq!(V6::piece(&v6(58, 8, &[0; 8])), Ok(None));
    }

    #[test]
    fn a_first_piece_without_its_header_is_refused() {
        for (protocol, octets) in [(6, 8), (6, 16), (17, 0), (132, 8)] {
            let payload = std::vec![0x50; octets];
            assert!(V4::piece(&v4(protocol, 0x2000, &payload)).is_err(), "{protocol}");
            assert!(V6::piece(&v6(protocol, 1, &payload)).is_err(), "{protocol}");
        }
    }
}
