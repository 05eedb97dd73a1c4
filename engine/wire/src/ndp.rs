//! Neighbour discovery: who has an IPv6 address, and who says so (RFC 4861).
//!
//! ```text
//!  0      1      2          4       8        24
//!  ├ 135  ┼ 0    ┼ checksum ┼ 0     ┼ target ┼ option 1: source link-layer address   solicitation
//!  ├ 136  ┼ 0    ┼ checksum ┼ R S O ┼ target ┼ option 2: target link-layer address   advertisement
//!
//!  option:  kind, length in 8 octets, MAC address
//! ```

use crate::checksum;
use crate::ethernet::{self, ethertype};
use crate::flow::protocol;
use crate::icmpv6::{Icmpv6, message_type};
use crate::ipv6::{self, Ipv6};
use crate::mac::MacAddr;
use crate::unusable::Unusable;
use core::net::Ipv6Addr;

/// Octets of a message with one option: behind the IPv6 header.
pub const MESSAGE_LEN: usize = 32;
/// Octets of a packet with such a message.
pub const PACKET_LEN: usize = ipv6::HEADER_LEN + MESSAGE_LEN;
/// Octets of a frame with such a packet.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// All nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861 section 3.1: a packet with another hop limit has been through a router.
const HOP_LIMIT: u8 = 255;
/// Option types.
mod option {
    pub(super) const SOURCE_LINK_LAYER: u8 = 1;
    pub(super) const TARGET_LINK_LAYER: u8 = 2;
}

/// Flags of an advertisement.
mod flag {
    pub(super) const ROUTER: u8 = 0x80;
    pub(super) const SOLICITED: u8 = 0x40;
    pub(super) const OVERRIDE: u8 = 0x20;
}

/// A message about a neighbour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ndp {
    /// Who has `target`?
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// Where the sender is, if it says so.
        source: Option<MacAddr>,
    },
    /// `target` is here.
    Advertisement {
        /// The address.
        target: Ipv6Addr,
        /// Where it is, if the sender says so.
        at: Option<MacAddr>,
        /// Whether the sender is a router.
        router: bool,
        /// Whether it answers a solicitation.
        solicited: bool,
        /// Whether it replaces what is known.
        overrides: bool,
    },
}

impl Ndp {
    /// Reads `message`, the upper-layer payload of a packet with header `ip`; `None` when it is
    /// another ICMPv6 message.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`], [`Unusable::IcmpChecksum`]; [`Unusable::Ndp`] for what RFC 4861
    /// sections 7.1.1 and 7.1.2 say to discard silently.
    pub fn parse(ip: Ipv6<'_>, message: &[u8]) -> Result<Option<Self>, Unusable> {
        let (icmp, body) = Icmpv6::parse(message, ip.source(), ip.destination())?;
        let solicitation = match icmp.message_type() {
            message_type::NEIGHBOUR_SOLICITATION => true,
            message_type::NEIGHBOUR_ADVERTISEMENT => false,
            _ => return Ok(None),
        };
        let (target, options) = body.split_first_chunk::<16>().ok_or(Unusable::Ndp)?;
        let target = Ipv6Addr::from(*target);
        if ip.hop_limit() != HOP_LIMIT || icmp.code() != 0 || target.is_multicast() {
            return Err(Unusable::Ndp);
        }
        if solicitation {
            let source = link_layer(options, option::SOURCE_LINK_LAYER)?;
            let nobody = ip.source().is_unspecified();
            if nobody && (source.is_some() || !is_solicited_node(ip.destination())) {
                return Err(Unusable::Ndp);
            }
            return Ok(Some(Self::Solicitation { target, source }));
        }
        let flags = message.get(4).copied().unwrap_or_default();
        let solicited = flags & flag::SOLICITED != 0;
        if solicited && ip.destination().is_multicast() {
            return Err(Unusable::Ndp);
        }
        Ok(Some(Self::Advertisement {
            target,
            at: link_layer(options, option::TARGET_LINK_LAYER)?,
            router: flags & flag::ROUTER != 0,
            solicited,
            overrides: flags & flag::OVERRIDE != 0,
        }))
    }
}

/// The first link-layer address among `options`, of the given type.
///
/// RFC 4861 sections 4.6 and 6.1: a length of zero spoils the message; unknown options are skipped.
fn link_layer(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, Unusable> {
    let mut found = None;
    while let [kind, len, ..] = *options {
        let (option, rest) = options
            .split_at_checked(usize::from(len) * 8)
            .filter(|_| len > 0)
            .ok_or(Unusable::Ndp)?;
        if kind == wanted
            && found.is_none()
            && let [_, _, a, b, c, d, e, f] = *option
        {
            found = Some(MacAddr([a, b, c, d, e, f]));
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(Unusable::Ndp) }
}

/// The group of all nodes whose addresses end like `address` (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

fn is_solicited_node(address: Ipv6Addr) -> bool {
    solicited_node(address) == address
}

/// The MAC address that frames to a group have (RFC 2464 section 7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// A message ready to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message {
    /// Where to.
    pub to: MacAddr,
    /// Where from.
    pub from: MacAddr,
    /// The IPv6 packet.
    pub packet: [u8; PACKET_LEN],
}

impl Message {
    /// A question to all who may be `wanted`.
    #[must_use]
    pub fn solicitation(sender: (MacAddr, Ipv6Addr), wanted: Ipv6Addr) -> Self {
        let group = solicited_node(wanted);
        let head = [message_type::NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        let option = (option::SOURCE_LINK_LAYER, sender.0);
        let packet = packet(sender.1, group, head, wanted, option);
        Self { to: group_mac(group), from: sender.0, packet }
    }

    /// Says that an address is `at` a MAC address: to who asked for it, or without being asked to
    /// all nodes, which is also how somebody without an address is answered (RFC 4861 section
    /// 7.2.4).
    #[must_use]
    pub fn advertisement(
        at: (MacAddr, Ipv6Addr),
        asked_by: Option<(MacAddr, Ipv6Addr)>,
        router: bool,
    ) -> Self {
        let asked = if asked_by.is_some() { flag::SOLICITED } else { 0 };
        let flags = flag::OVERRIDE | asked | if router { flag::ROUTER } else { 0 };
        let (to, destination) = asked_by.unwrap_or((group_mac(ALL_NODES), ALL_NODES));
        let head = [message_type::NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        let packet = packet(at.1, destination, head, at.1, (option::TARGET_LINK_LAYER, at.0));
        Self { to, from: at.0, packet }
    }

    /// The message in a frame without a tag.
    #[must_use]
    pub fn frame(&self) -> [u8; FRAME_LEN] {
        let header = ethernet::header(self.to, self.from, ethertype::IPV6);
        let mut frame = [0; FRAME_LEN];
        fill(&mut frame, header.iter().chain(&self.packet));
        frame
    }
}

fn packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    head: [u8; 8],
    target: Ipv6Addr,
    (option, mac): (u8, MacAddr),
) -> [u8; PACKET_LEN] {
    let header = ipv6::Header {
        traffic_class: 0,
        payload_len: 32,
        next_header: protocol::ICMPV6,
        hop_limit: HOP_LIMIT,
        source,
        destination,
    };
    let target = target.octets();
    let mut message = [0; MESSAGE_LEN];
    fill(&mut message, head.iter().chain(&target).chain(&[option, 1]).chain(&mac.0));
    let pseudo = checksum::pseudo6(source, destination, protocol::ICMPV6, 32);
    [message[2], message[3]] = checksum::checksum(&message, pseudo);
    let mut packet = [0; PACKET_LEN];
    fill(&mut packet, header.octets().iter().chain(&message));
    packet
}

fn fill<'o>(place: &mut [u8], octets: impl Iterator<Item = &'o u8>) {
    for (place, octet) in place.iter_mut().zip(octets) {
        *place = *octet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ME: (MacAddr, Ipv6Addr) =
        (MacAddr([2, 0, 0, 0, 0, 1]), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1));
    const OTHER: (MacAddr, Ipv6Addr) =
        (MacAddr([2, 0, 0, 0, 0, 2]), Ipv6Addr::new(0xfd00, 1, 0, 0, 0x1234, 0x56, 0x789a, 0xbcde));

    fn parse(packet: &[u8]) -> Result<Option<Ndp>, Unusable> {
        let (ip, message) = Ipv6::parse(packet)?;
        Ndp::parse(ip, message)
    }

    /// The packet after `change`, its checksum right again.
    fn changed(mut packet: [u8; PACKET_LEN], change: impl Fn(&mut [u8])) -> Vec<u8> {
        change(&mut packet);
        [packet[42], packet[43]] = [0, 0];
        let (ip, message) = Ipv6::parse(&packet).unwrap();
        let len = u16::try_from(message.len()).unwrap();
        let pseudo = checksum::pseudo6(ip.source(), ip.destination(), protocol::ICMPV6, len);
        let sum = checksum::checksum(message, pseudo);
        [packet[42], packet[43]] = sum;
        packet.to_vec()
    }

    #[test]
    fn groups_are_as_in_rfc4291_and_rfc2464() {
        // RFC 4291 section 2.7.1's example.
        let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
        let group: Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address), group);
        assert_eq!(group_mac(group), MacAddr([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]));
    }

    #[test]
    fn a_solicitation_goes_to_the_group_and_says_who_asks() {
        let message = Message::solicitation(ME, OTHER.1);
        let frame = message.frame();
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x9a, 0xbc, 0xde]);
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        let expected = Ndp::Solicitation { target: OTHER.1, source: Some(ME.0) };
        assert_eq!(parse(&frame[14..]), Ok(Some(expected)));
    }

    #[test]
    fn an_advertisement_answers_who_asked_or_tells_everybody() {
        let answer = Message::advertisement(OTHER, Some(ME), true);
        assert_eq!((answer.to, answer.from), (ME.0, OTHER.0));
        let expected = Ndp::Advertisement {
            target: OTHER.1,
            at: Some(OTHER.0),
            router: true,
            solicited: true,
            overrides: true,
        };
        assert_eq!(parse(&answer.packet), Ok(Some(expected)));

        let news = Message::advertisement(OTHER, None, false);
        assert_eq!(news.to, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
        let Ok(Some(Ndp::Advertisement { solicited, router, .. })) = parse(&news.packet) else {
            panic!("not an advertisement");
        };
        assert!(!solicited && !router);
    }

    #[test]
    fn what_rfc4861_says_to_discard_is_refused() {
        let ask = Message::solicitation(ME, OTHER.1).packet;
        let answer = Message::advertisement(OTHER, Some(ME), false).packet;
        assert!(parse(&changed(ask, |_| ())).is_ok());
        let refused: [(&str, Vec<u8>); 9] = [
            ("hop limit 254", changed(ask, |packet| packet[7] = 254)),
            ("code 1", changed(ask, |packet| packet[41] = 1)),
            ("group target", changed(ask, |packet| packet[48] = 0xff)),
            ("option of length 0", changed(ask, |packet| packet[65] = 0)),
            ("option beyond the end", changed(ask, |packet| packet[65] = 2)),
            ("an octet of an option", changed(ask, |packet| packet[5] = 25)),
            ("too short", changed(ask, |packet| packet[5] = 23)),
            ("nobody, with an address", changed(ask, |packet| packet[8..24].fill(0))),
            ("solicited by a group", changed(answer, |packet| packet[24] = 0xff)),
        ];
        for (what, packet) in refused {
            assert_eq!(parse(&packet), Err(Unusable::Ndp), "{what}");
        }
        let mut wrong_sum = ask;
        wrong_sum[50] ^= 1;
        assert_eq!(parse(&wrong_sum), Err(Unusable::IcmpChecksum));
    }

    #[test]
    fn somebody_without_an_address_may_ask_for_one_without_options() {
        let ask = Message::solicitation(ME, OTHER.1).packet;
        let asked = changed(ask, |packet| {
            packet[8..24].fill(0);
            packet[5] = 24;
        });
        let expected = Ndp::Solicitation { target: OTHER.1, source: None };
        assert_eq!(parse(&asked), Ok(Some(expected)));
        let elsewhere = changed(ask, |packet| {
            packet[8..24].fill(0);
            packet[24..40].copy_from_slice(&OTHER.1.octets());
            packet[5] = 24;
        });
        assert_eq!(parse(&elsewhere), Err(Unusable::Ndp));
    }

    #[test]
    fn unknown_options_are_skipped_and_other_messages_are_not_ours() {
        let ask = Message::solicitation(ME, OTHER.1).packet;
        let nonce = changed(ask, |packet| packet[64] = 14);
        let expected = Ndp::Solicitation { target: OTHER.1, source: None };
        assert_eq!(parse(&nonce), Ok(Some(expected)));
        let router = changed(ask, |packet| packet[40] = 133);
        assert_eq!(parse(&router), Ok(None));
    }
}
