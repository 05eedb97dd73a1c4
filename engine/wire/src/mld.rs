//! Multicast listener discovery, version 2 (RFC 3810): which groups we listen to, said to routers and
//! to the switches that listen in on it (RFC 4541), which would keep neighbour solicitations from us
//! otherwise.
//!
//! ```text
//!  report  ├ IPv6, hop limit 1 ┼ hop-by-hop: router alert (8) ┼ 143, 0, checksum, 0, records ┼ records … ┤
//!  record  ├ type ┼ 0 ┼ no sources (2) ┼ group (16) ┤
//! ```

use crate::checksum;
use crate::flow::protocol;
use crate::icmpv6::Icmpv6;
use crate::ipv6::{self, Ipv6};
use crate::ipv6_ext;
use crate::mac::MacAddr;
use core::net::Ipv6Addr;

const QUERY: u8 = 130;
const REPORT: u8 = 143;
/// RFC 3810 section 5.1: octets of a query of version 1, and the least.
const QUERY_LEN: usize = 24;
/// All routers that speak version 2: `ff02::16`.
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Its Ethernet address.
pub const ROUTERS_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 0x16]);
/// Next header; RFC 2711: router alert for MLD; RFC 8200 section 4.2: two octets of padding.
const HOP_BY_HOP: [u8; 8] = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const HEAD_LEN: usize = 8;
const RECORD_LEN: usize = 20;

/// Groups in one report: so many that every link carries it.
pub const GROUPS_MAX: usize = 60;
/// Octets of the longest report.
pub const REPORT_MAX: usize =
    ipv6::HEADER_LEN + HOP_BY_HOP.len() + HEAD_LEN + GROUPS_MAX * RECORD_LEN;

/// Why there is a report: RFC 3810 section 5.2.12.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// A router asked.
    Asked,
    /// We begin to listen.
    Joined,
}

/// Whether a packet asks what groups we listen to (RFC 3810 section 6.2: from a link-local address,
/// over one hop, with a router alert, which any hop-by-hop header is taken for).
#[must_use]
pub fn is_query(packet: &[u8]) -> bool {
    let Ok((ip, payload)) = Ipv6::parse(packet) else { return false };
    let Ok(upper) = ipv6_ext::walk(ip.next_header(), payload) else { return false };
    ip.hop_limit() == 1
        && ip.next_header() == ipv6_ext::next_header::HOP_BY_HOP
        && ip.source().is_unicast_link_local()
        && upper.protocol == protocol::ICMPV6
        && upper.payload.len() >= QUERY_LEN
        && upper.payload.first() == Some(&QUERY)
        && Icmpv6::parse(upper.payload, ip.source(), ip.destination()).is_ok()
}

/// Writes the report that we, at the link-local address `source`, listen to `groups`, of which the
/// first [`GROUPS_MAX`] count. Says how long the packet is; `None` when `place` is too short.
pub fn report(
    place: &mut [u8],
    source: Ipv6Addr,
    reason: Reason,
    groups: impl Iterator<Item = Ipv6Addr>,
) -> Option<usize> {
    // MODE_IS_EXCLUDE, CHANGE_TO_EXCLUDE_MODE: of no sources, hence all.
    let record_type = match reason {
        Reason::Asked => 2,
        Reason::Joined => 4,
    };
    let (ip, rest) = place.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
    let (options, message) = rest.split_first_chunk_mut()?;
    let (head, records) = message.split_first_chunk_mut::<HEAD_LEN>()?;
    let mut count: u16 = 0;
    for (group, record) in groups.take(GROUPS_MAX).zip(records.chunks_exact_mut(RECORD_LEN)) {
        let (kind, address) = record.split_first_chunk_mut()?;
        *kind = [record_type, 0, 0, 0];
        *address.first_chunk_mut()? = group.octets();
        count += 1;
    }
    let [a, b] = count.to_be_bytes();
    *head = [REPORT, 0, 0, 0, 0, 0, a, b];
    let octets = u16::try_from(HEAD_LEN + usize::from(count) * RECORD_LEN).ok()?;
    let message = message.get_mut(..octets.into())?;
    let pseudo = checksum::pseudo6(source, ROUTERS, protocol::ICMPV6, octets);
    let sum = checksum::checksum(message, pseudo);
    let [_, _, high, low] = message.first_chunk_mut::<4>()?;
    [*high, *low] = sum;
    *options = HOP_BY_HOP;
    let payload_len = octets + 8;
    *ip = ipv6::Header {
        traffic_class: 0,
        payload_len,
        next_header: ipv6_ext::next_header::HOP_BY_HOP,
        hop_limit: 1,
        source,
        destination: ROUTERS,
    }
    .octets();
    Some(ipv6::HEADER_LEN + usize::from(payload_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ndp::solicited_node;
    use std::vec::Vec;

    const ME: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

    fn group(last: u16) -> Ipv6Addr {
        solicited_node(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
    }

    /// A general query of version 2 (RFC 3810 section 5.1), changed at one octet.
    fn query(change: Option<(usize, u8)>) -> Vec<u8> {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut message = [0; 28];
        message[0] = QUERY;
        let pseudo = checksum::pseudo6(ROUTER, all, protocol::ICMPV6, 28);
        let sum = checksum::checksum(&message, pseudo);
        message[2..4].copy_from_slice(&sum);
        let header = ipv6::Header {
            traffic_class: 0,
            payload_len: 36,
            next_header: 0,
            hop_limit: 1,
            source: ROUTER,
            destination: all,
        };
        let mut packet = [&header.octets()[..], &HOP_BY_HOP, &message].concat();
        if let Some((at, value)) = change {
            packet[at] = value;
        }
        packet
    }

    #[test]
    fn a_report_names_each_group_and_adds_up() {
        let mut place = [0xee; REPORT_MAX];
        let groups = [group(1), group(2)];
        let len = report(&mut place, ME, Reason::Joined, groups.into_iter()).unwrap();
        let packet = &place[..len];
        assert_eq!(len, 40 + 8 + 8 + 2 * 20);
        let (ip, payload) = Ipv6::parse(packet).unwrap();
        assert_eq!((ip.source(), ip.destination(), ip.hop_limit()), (ME, ROUTERS, 1));
        let upper = ipv6_ext::walk(ip.next_header(), payload).unwrap();
        let (icmp, _) = Icmpv6::parse(upper.payload, ME, ROUTERS).unwrap();
        assert_eq!((icmp.message_type(), icmp.code()), (143, 0));
        assert_eq!(upper.payload[4..12], [0, 0, 0, 2, 4, 0, 0, 0]);
        assert_eq!(upper.payload[12..28], groups[0].octets());
        assert_eq!(upper.payload[28..32], [4, 0, 0, 0]);
        assert_eq!(upper.payload[32..], groups[1].octets());
    }

    #[test]
    fn a_report_is_never_too_long_for_a_link() {
        let mut place = [0; 2000];
        let len = report(&mut place, ME, Reason::Asked, (0..500).map(group)).unwrap();
        assert_eq!(len, REPORT_MAX);
        const { assert!(REPORT_MAX <= 1280) };
        assert_eq!(report(&mut place[..50], ME, Reason::Asked, (0..1).map(group)), None);
    }

    #[test]
    fn a_query_is_one_only_from_a_neighbor_and_whole() {
        assert!(is_query(&query(None)));
        // Hop limit, source, message type, checksum, no hop-by-hop header.
        for change in [(7, 2), (8, 0x20), (48, 131), (60, 1), (6, 58)] {
            assert!(!is_query(&query(Some(change))), "{change:?}");
        }
        for len in 0..query(None).len() {
            assert!(!is_query(&query(None)[..len]));
        }
    }
}
