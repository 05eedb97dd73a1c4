//! The hosts that are played, as their neighbours see them: ARP and neighbour discovery.

use rvs_io::Frame;
use rvs_wire::arp::{Arp, Operation};
use rvs_wire::ethernet::{Ethernet, ethertype};
use rvs_wire::flow::protocol;
use rvs_wire::ipv6::Ipv6;
use rvs_wire::mac::MacAddr;
use rvs_wire::ndp::{Message, Ndp};
use std::net::{IpAddr, Ipv6Addr};

/// What a frame was about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Not about neighbours.
    Nothing,
    /// About others, or a question that was not ours to answer.
    Gossip,
    /// A question; the frame is the answer now.
    Answer,
    /// Where somebody is.
    Is(IpAddr, MacAddr),
}

/// Reads what may be about neighbours, and answers for the addresses that `ours` knows.
#[cold]
pub fn hear<F: Frame>(frame: &mut F, ours: impl Fn(IpAddr) -> Option<MacAddr>) -> Heard {
    let Ok((ethernet, packet)) = Ethernet::parse(frame.octets()) else { return Heard::Nothing };
    match ethernet.ethertype() {
        ethertype::ARP => {
            let Ok((arp, _)) = Arp::parse(packet) else { return Heard::Nothing };
            match arp.operation {
                Operation::Reply => Heard::Is(arp.sender.1.into(), arp.sender.0),
                Operation::Request => match ours(arp.target.1.into()) {
                    Some(mac) => become_answer(frame, &arp.reply(mac).frame()),
                    None => Heard::Gossip,
                },
            }
        }
        ethertype::IPV6 => {
            let Ok((ip, payload)) = Ipv6::parse(packet) else { return Heard::Nothing };
            if ip.next_header() != protocol::ICMPV6 {
                return Heard::Nothing;
            }
            match Ndp::parse(ip, payload) {
                Ok(Some(Ndp::Advertisement { target, at: Some(mac), .. })) => {
                    Heard::Is(target.into(), mac)
                }
                Ok(Some(Ndp::Solicitation { target, source })) => {
                    let Some(mac) = ours(target.into()) else { return Heard::Gossip };
                    let asked_by = (source.unwrap_or(ethernet.source()), ip.source());
                    let asked_by = (!asked_by.1.is_unspecified()).then_some(asked_by);
                    let answer = Message::advertisement((mac, target), asked_by, false);
                    become_answer(frame, &answer.frame())
                }
                Ok(Some(_)) => Heard::Gossip,
                _ => Heard::Nothing,
            }
        }
        _ => Heard::Nothing,
    }
}

/// Who has `wanted`?, asks a host.
#[must_use]
pub fn question((mac, address): (MacAddr, IpAddr), wanted: IpAddr) -> Vec<u8> {
    match (address, wanted) {
        (IpAddr::V4(address), IpAddr::V4(wanted)) => {
            Arp::request((mac, address), wanted).frame().to_vec()
        }
        (address, wanted) => {
            let v6 = |address| match address {
                IpAddr::V6(address) => address,
                IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
            };
            Message::solicitation((mac, v6(address)), v6(wanted)).frame().to_vec()
        }
    }
}

/// Makes `frame` hold `octets`; `false` when they do not fit.
pub fn overwrite<F: Frame>(frame: &mut F, octets: &[u8]) -> bool {
    let fits = frame.resize(octets.len());
    if fits {
        frame.octets_mut().copy_from_slice(octets);
    }
    fits
}

fn become_answer<F: Frame>(frame: &mut F, octets: &[u8]) -> Heard {
    if overwrite(frame, octets) { Heard::Answer } else { Heard::Gossip }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_io::{Pool, Reserve};

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PLAYED: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn questions_about_played_hosts_are_answered_and_the_answers_understood() {
        let mut pool = Reserve::new(1, 1514).pool();
        let mut frame = pool.take().unwrap();
        for (asker, played) in [("192.0.2.1", "192.0.2.11"), ("2001:db8::1", "2001:db8::11")] {
            let (asker, played): (IpAddr, IpAddr) =
                (asker.parse().unwrap(), played.parse().unwrap());
            assert!(overwrite(&mut frame, &question((ASKER, asker), played)));
            assert_eq!(hear(&mut frame, |_| None), Heard::Gossip);
            let ours = |address| (address == played).then_some(PLAYED);
            assert_eq!(hear(&mut frame, ours), Heard::Answer);
            assert_eq!(frame.octets()[..12], [ASKER.0, PLAYED.0].concat());
            assert_eq!(hear(&mut frame, ours), Heard::Is(played, PLAYED));
        }
        assert!(overwrite(&mut frame, &[0; 60]));
        assert_eq!(hear(&mut frame, |_| None), Heard::Nothing);
    }
}
