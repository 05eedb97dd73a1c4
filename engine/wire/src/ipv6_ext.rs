//! IPv6 extension headers (RFC 8200 section 4), from the fixed header to the upper protocol.
//!
//! ```text
//!  Hop-by-hop, routing, destination options:   next header, length in 8 octets less one, …
//!  Fragment:        next header, 0, offset (13 bits, 8 octets each), 00, M, identification (4)
//!  Authentication (RFC 4302):                  next header, length in 4 octets less two, …
//! ```
//!
//! Encapsulating security payload (50) hides what follows it and is an upper protocol here, as are
//! "no next header" (59) and all that is unknown.

use crate::unusable::Unusable;

/// Extension headers that are walked before a packet is refused.
///
/// RFC 8200 section 4.1 has a use for seven; RFC 8504 section 5.3 lets hosts set a limit and names
/// eight options as one.
pub const HEADERS_MAX: usize = 8;

/// Next-header values of extension headers, as IANA assigned them.
pub mod next_header {
    /// Options for every router: first, or nowhere.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication, RFC 4302.
    pub const AUTHENTICATION: u8 = 51;
    /// Nothing follows.
    pub const NONE: u8 = 59;
    /// Options for the destination.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Octets of a Fragment header.
pub const FRAGMENT_LEN: u16 = 8;

/// What a fragment header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragment {
    /// Where the payload belongs in the whole packet's, in octets.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
    /// What the fragments of a packet have in common.
    pub identification: u32,
}

impl Fragment {
    /// Whether the packet is whole all the same (RFC 6946: an atomic fragment).
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Where the extension headers end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Upper<'p> {
    /// What `payload` is. In a fragment that is not the first, what its first one's begins with,
    /// which may be another extension header.
    pub protocol: u8,
    /// Octets of all extension headers.
    pub extensions_len: usize,
    /// Set when there is a fragment header.
    pub fragment: Option<Fragment>,
    /// What follows the last extension header.
    pub payload: &'p [u8],
}

/// Walks the extension headers at the beginning of an IPv6 payload.
///
/// # Errors
///
/// [`Unusable::Truncated`] when one ends beyond the payload; [`Unusable::Ipv6Extensions`] for more
/// than [`HEADERS_MAX`], for hop-by-hop options behind another header, and for a fragment in a
/// fragment; [`Unusable::SourceRoute`] for a routing header with segments left (RFC 5095, RFC 8200
/// section 4.4).
pub fn walk(next_header: u8, payload: &[u8]) -> Result<Upper<'_>, Unusable> {
    let mut upper = Upper { protocol: next_header, extensions_len: 0, fragment: None, payload };
    for count in 0..=HEADERS_MAX {
        let fixed = || upper.payload.first_chunk::<8>().ok_or(Unusable::Truncated);
        let len = match upper.protocol {
            next_header::HOP_BY_HOP if count > 0 => return Err(Unusable::Ipv6Extensions),
            next_header::HOP_BY_HOP | next_header::DESTINATION_OPTIONS => {
                (usize::from(fixed()?[1]) + 1) * 8
            }
            next_header::ROUTING => {
                let [_, len, _, segments_left, ..] = *fixed()?;
                if segments_left != 0 {
                    return Err(Unusable::SourceRoute);
                }
                (usize::from(len) + 1) * 8
            }
            // RFC 4302 section 2.2.
            next_header::AUTHENTICATION => (usize::from(fixed()?[1]) + 2) * 4,
            next_header::FRAGMENT if upper.fragment.is_some() => {
                return Err(Unusable::Ipv6Extensions);
            }
            next_header::FRAGMENT => {
                let [_, _, high, low, a, b, c, d] = *fixed()?;
                let word = u16::from_be_bytes([high, low]);
                let fragment = Fragment {
                    offset: word & 0xfff8,
                    more: word & 1 != 0,
                    identification: u32::from_be_bytes([a, b, c, d]),
                };
                upper.fragment = Some(fragment);
                8
            }
            _ => return Ok(upper),
        };
        let (header, rest) = upper.payload.split_at_checked(len).ok_or(Unusable::Truncated)?;
        upper.protocol = *header.first().ok_or(Unusable::Truncated)?;
        upper.extensions_len += len;
        upper.payload = rest;
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(upper);
        }
    }
    Err(Unusable::Ipv6Extensions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;

    #[test]
    fn a_payload_without_extension_headers_is_the_upper_protocol() {
        for protocol in [TCP, 17, 58, 50, 59, 253] {
            let upper = walk(protocol, &[1, 2, 3]).unwrap();
            assert_eq!((upper.protocol, upper.extensions_len), (protocol, 0));
            assert_eq!((upper.fragment, upper.payload), (None, &[1, 2, 3][..]));
        }
    }

    #[test]
    fn every_kind_of_header_is_walked() {
        let mut octets = [0_u8; 64];
        octets[0] = 43; // hop-by-hop, 8 octets
        octets[8..10].copy_from_slice(&[44, 1]); // routing, 16 octets
        octets[24..32].copy_from_slice(&[51, 0, 0, 0, 1, 2, 3, 4]); // fragment
        octets[32..34].copy_from_slice(&[60, 1]); // authentication, 12 octets
        octets[44..46].copy_from_slice(&[TCP, 0]); // destination options, 8 octets
        octets[52] = 0xaa;
        let upper = walk(0, &octets).unwrap();
        assert_eq!((upper.protocol, upper.extensions_len), (TCP, 52));
        assert_eq!(upper.payload[0], 0xaa);
        let fragment = upper.fragment.unwrap();
        assert!(fragment.is_whole());
        assert_eq!(fragment.identification, 0x0102_0304);
        for len in 0..52 {
            assert_eq!(walk(0, &octets[..len]), Err(Unusable::Truncated), "{len} octets");
        }
    }

    #[test]
    fn a_later_fragment_ends_the_walk_and_a_first_one_does_not() {
        let octets = [60, 0, 0x05, 0xa9, 0, 0, 0, 1, TCP, 0, 0, 0, 0, 0, 0, 0];
        let upper = walk(44, &octets).unwrap();
        assert_eq!((upper.protocol, upper.extensions_len), (60, 8));
        let fragment = upper.fragment.unwrap();
        assert_eq!((fragment.offset, fragment.more, fragment.is_whole()), (1448, true, false));
        let first = [60, 0, 0, 1, 0, 0, 0, 1, TCP, 0, 0, 0, 0, 0, 0, 0];
        let upper = walk(44, &first).unwrap();
        assert_eq!((upper.protocol, upper.extensions_len), (TCP, 16));
        assert!(!upper.fragment.unwrap().is_whole());
    }

    #[test]
    fn endless_and_misordered_chains_are_refused() {
        let mut octets = [0_u8; 128];
        for header in octets.chunks_exact_mut(8) {
            header[0] = 60;
        }
        assert_eq!(walk(60, &octets), Err(Unusable::Ipv6Extensions));
        octets[(HEADERS_MAX - 1) * 8] = TCP;
        assert_eq!(walk(60, &octets).unwrap().extensions_len, HEADERS_MAX * 8);
        octets[(HEADERS_MAX - 1) * 8] = 60;
        octets[HEADERS_MAX * 8] = TCP;
        assert_eq!(walk(60, &octets), Err(Unusable::Ipv6Extensions));
        octets[0] = 0;
        assert_eq!(walk(60, &octets), Err(Unusable::Ipv6Extensions), "hop-by-hop must be first");
        let fragments = [44, 0, 0, 0, 0, 0, 0, 1, TCP, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(walk(44, &fragments), Err(Unusable::Ipv6Extensions));
    }

    #[test]
    fn a_routing_header_with_segments_left_is_a_source_route() {
        let mut octets = [TCP, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(walk(43, &octets), Err(Unusable::SourceRoute));
        octets[3] = 0;
        assert_eq!(walk(43, &octets).unwrap().protocol, TCP);
    }
}
