//! ARP for IPv4 over Ethernet (RFC 826).
//!
//! ```text
//!  0      2      4   5   6         8         14     18        24     28
//!  ├ 0001 ┼ 0800 ┼ 6 ┼ 4 ┼ operation ┼ sender MAC ┼ IP ┼ target MAC ┼ IP ┤
//! ```

use crate::ethernet::{self, ethertype};
use crate::mac::MacAddr;
use crate::unusable::Unusable;
use core::net::Ipv4Addr;

/// Octets of a message.
pub const MESSAGE_LEN: usize = 28;
/// Octets of a frame with a message: [`Arp::frame`] makes them.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + MESSAGE_LEN;

/// Hardware type 1 (Ethernet), protocol 0x0800 (IPv4), address lengths 6 and 4.
const FORMAT: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What a message wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Who has the target's IP address?
    Request,
    /// The sender has it.
    Reply,
}

/// A message's contents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arp {
    /// What it wants.
    pub operation: Operation,
    /// Who says so.
    pub sender: (MacAddr, Ipv4Addr),
    /// Whom it is about, or to. In a request the MAC address means nothing.
    pub target: (MacAddr, Ipv4Addr),
}

impl Arp {
    /// Reads a message and leaves what follows, which is padding.
    ///
    /// # Errors
    ///
    /// [`Unusable::Truncated`]; [`Unusable::ArpFormat`] when it is about something else than IPv4
    /// over Ethernet, or neither a request nor a reply.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), Unusable> {
        let (message, rest) =
            packet.split_first_chunk::<MESSAGE_LEN>().ok_or(Unusable::Truncated)?;
        let [a, b, c, d, e, f, operation_high, operation, addresses @ ..] = *message;
        if [a, b, c, d, e, f] != FORMAT {
            return Err(Unusable::ArpFormat);
        }
        let operation = match [operation_high, operation] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return Err(Unusable::ArpFormat),
        };
        let [a, b, c, d, e, f, g, h, i, j, target @ ..] = addresses;
        let sender = (MacAddr([a, b, c, d, e, f]), Ipv4Addr::new(g, h, i, j));
        let [a, b, c, d, e, f, g, h, i, j] = target;
        let target = (MacAddr([a, b, c, d, e, f]), Ipv4Addr::new(g, h, i, j));
        Ok((Self { operation, sender, target }, rest))
    }

    /// A question for everybody: who has `wanted`?
    #[must_use]
    pub fn request(sender: (MacAddr, Ipv4Addr), wanted: Ipv4Addr) -> Self {
        let target = (MacAddr::UNSPECIFIED, wanted);
        Self { operation: Operation::Request, sender, target }
    }

    /// The answer to a request: what it asked for is at `at`.
    #[must_use]
    pub fn reply(&self, at: MacAddr) -> Self {
        Self { operation: Operation::Reply, sender: (at, self.target.1), target: self.sender }
    }

    /// The message's octets.
    #[must_use]
    pub fn octets(&self) -> [u8; MESSAGE_LEN] {
        let operation = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let [a, b, c, d, e, f] = FORMAT;
        let (MacAddr([g, h, i, j, k, l]), sender) = self.sender;
        let [m, n, o, p] = sender.octets();
        let (MacAddr([q, r, s, t, u, v]), target) = self.target;
        let [w, x, y, z] = target.octets();
        [a, b, c, d, e, f, 0, operation, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z]
    }

    /// Where the message goes: a request to everybody, a reply to its target.
    #[must_use]
    pub fn to(&self) -> MacAddr {
        match self.operation {
            Operation::Request => MacAddr::BROADCAST,
            Operation::Reply => self.target.0,
        }
    }

    /// The message in a frame without a tag.
    #[must_use]
    pub fn frame(&self) -> [u8; FRAME_LEN] {
        let header = ethernet::header(self.to(), self.sender.0, ethertype::ARP);
        let mut frame = [0; FRAME_LEN];
        for (place, octet) in frame.iter_mut().zip(header.iter().chain(&self.octets())) {
            *place = *octet;
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: (MacAddr, Ipv4Addr) = (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: (MacAddr, Ipv4Addr) = (MacAddr([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_request_and_its_reply_are_as_in_rfc826() {
        let request = Arp::request(ME, OTHER.1);
        let frame = request.frame();
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..32], [2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
        assert_eq!(frame[32..], [0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
        assert_eq!(Arp::parse(&frame[14..]).unwrap(), (request, &[][..]));

        let reply = request.reply(OTHER.0);
        let frame = reply.frame();
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        assert_eq!(Arp::parse(&frame[14..]).unwrap().0, reply);
        assert_eq!((reply.sender, reply.target), (OTHER, ME));
    }

    #[test]
    fn parse_rejects_every_truncation_and_every_other_format() {
        let message = Arp::request(ME, OTHER.1).octets();
        for len in 0..MESSAGE_LEN {
            assert_eq!(Arp::parse(&message[..len]), Err(Unusable::Truncated));
        }
        for at in 0..8 {
            let mut bad = message;
            bad[at] ^= 0x40;
            assert_eq!(Arp::parse(&bad), Err(Unusable::ArpFormat), "octet {at}");
        }
    }
}
