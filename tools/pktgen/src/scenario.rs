//! What a run is: who talks to whom, in which flows, with which packets.
//!
//! Addresses of both ends are the generator's own: it answers ARP and neighbour discovery for them.
//! Real server `n` has the Ethernet address `02:72:76:INSTANCE:n`, so that an arriving frame names
//! its server.

use crate::Trouble;
use crate::record;
use rvs_wire::mac::MacAddr;
use std::net::{IpAddr, SocketAddr};

/// Octets that a frame has on the wire beside those of a [`Scenario`]'s sizes: preamble and start
/// delimiter 8, the gap between frames 12 (IEEE 802.3 clauses 3.1.1 and 4.4.2).
pub const WIRE_OVERHEAD: u32 = 20;
/// The frame check sequence, which sizes contain and links do not carry.
pub const FCS: usize = 4;
/// The shortest frame, its check sequence included.
pub const SIZE_MIN: u16 = 64;
/// The longest frame, its check sequence included: an MTU of 9000.
pub const SIZE_MAX: u16 = 9018;
/// The first port that a client uses.
pub const PORT_FIRST: u16 = 1024;
/// Ports that one client has.
pub const PORTS: u32 = 64_512;
/// Real servers that one process plays at most.
pub const REALS_MAX: usize = 4096;

/// What the packets of a flow are.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// UDP datagrams.
    Udp,
    /// TCP data in a connection that was opened by a handshake before.
    Established,
    /// TCP data that nothing came before.
    Ack,
    /// TCP SYN segments, each with a record as its data (RFC 9293 section 3.4 allows data there).
    Syn,
}

impl Kind {
    /// All, in the order of their words.
    pub const ALL: [Self; 4] = [Self::Udp, Self::Established, Self::Ack, Self::Syn];

    /// Its word on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Established => "established",
            Self::Ack => "ack",
            Self::Syn => "syn",
        }
    }
}

/// Which flow the next packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// One after the other.
    Turn,
    /// Any, all equally likely.
    Uniform,
    /// Flow `n` (from 1 on) with a weight of `1 / n^s`.
    Zipf(f64),
}

/// Whose Ethernet address the client's frames go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Director {
    /// Whoever answers for this address.
    Address(IpAddr),
    /// This one.
    Mac(MacAddr),
}

/// A checked run.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The first client's address; the others follow.
    pub client: IpAddr,
    /// How many clients there are.
    pub clients: u32,
    /// The service.
    pub vip: SocketAddr,
    /// The way to it.
    pub director: Director,
    /// Addresses of the real servers that are played here.
    pub reals: Vec<IpAddr>,
    /// How many flows there are.
    pub flows: u32,
    /// What flows carry, with weights: flow `n` is of the kind in place `n` of a round of them.
    pub mix: Vec<(Kind, u32)>,
    /// Which flow is next.
    pub choice: Choice,
    /// Octets of frames with their check sequence, with weights.
    pub sizes: Vec<(u16, u32)>,
    /// Whether the real servers that are played here send data back.
    pub echo: bool,
    /// Whether replies are waited for and judged.
    pub replies: bool,
    /// Tells generators on one network apart.
    pub instance: u8,
    /// Of everything that is left to chance.
    pub seed: u64,
}

impl Scenario {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    ///
    /// [`Trouble::Asked`] with what is wrong and what would be right.
    pub fn check(self) -> Result<Self, Trouble> {
        let wrong = |what: String| Err(Trouble::Asked(what));
        let v6 = self.vip.is_ipv6();
        if self.client.is_ipv6() != v6 {
            let (client, vip) = (self.client, self.vip.ip());
            return wrong(format!("--clients {client} and --vip {vip} are of different families"));
        }
        let flows_max = u64::from(self.clients) * u64::from(PORTS);
        if self.flows == 0 || u64::from(self.flows) > flows_max || self.flows > record::FLOWS_MAX {
            return wrong(format!(
                "--flows is {}, expected 1 to {flows_max}: {} clients with {PORTS} ports each",
                self.flows, self.clients
            ));
        }
        if self.reals.len() > REALS_MAX {
            return wrong(format!("too many --real, expected at most {REALS_MAX}"));
        }
        if let [(size, _)] = *self.sizes {
            let least = self.size_min();
            if size < least {
                return wrong(format!(
                    "--size is {size}, expected {least} to {SIZE_MAX}: each packet carries a \
                     record of {} octets",
                    record::OCTETS
                ));
            }
        }
        Ok(self)
    }

    /// The shortest frame that holds every kind of packet of the mix, with its check sequence.
    #[must_use]
    pub fn size_min(&self) -> u16 {
        let ip = if self.vip.is_ipv6() { 40 } else { 20 };
        let udp_only = self.mix.iter().all(|(kind, _)| *kind == Kind::Udp);
        let transport = if udp_only { 8 } else { 20 };
        let octets = 14 + ip + transport + record::OCTETS + FCS;
        u16::try_from(octets).unwrap_or(SIZE_MAX).max(SIZE_MIN)
    }

    /// The sizes as they are sent: none is too short for its record.
    #[must_use]
    pub fn sent_sizes(&self) -> Vec<(u16, u32)> {
        let least = self.size_min();
        self.sizes.iter().map(|(size, weight)| ((*size).max(least), *weight)).collect()
    }

    /// The average of the frames that are sent, with their check sequences.
    #[must_use]
    pub fn mean_octets(&self) -> f64 {
        let all = self.sent_sizes();
        let weights: f64 = all.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let octets = all.iter().map(|(size, weight)| f64::from(*size) * f64::from(*weight));
        octets.sum::<f64>() / weights.max(1.0)
    }

    /// The kind of each flow: a flow takes the one at its number, again and again.
    #[must_use]
    pub fn round(&self) -> Vec<Kind> {
        // Spread: the kind that is furthest behind its share comes next.
        let total: u32 = self.mix.iter().map(|(_, weight)| *weight).sum();
        let mut behind: Vec<i64> = vec![0; self.mix.len()];
        (0..total)
            .filter_map(|_| {
                for (behind, (_, weight)) in behind.iter_mut().zip(&self.mix) {
                    *behind += i64::from(*weight);
                }
                let (at, most) = behind.iter_mut().enumerate().max_by_key(|(_, most)| **most)?;
                *most -= i64::from(total);
                Some(self.mix.get(at)?.0)
            })
            .collect()
    }

    /// Client and port of a flow.
    #[must_use]
    pub fn ends_of(&self, flow: u32) -> (IpAddr, u16) {
        let (client, port) = (flow % self.clients, flow / self.clients);
        let port = u32::from(PORT_FIRST) + port;
        (self.client_at(client), u16::try_from(port).unwrap_or(u16::MAX))
    }

    /// The flow of a client and port, if there is one.
    #[must_use]
    pub fn flow_of(&self, client: IpAddr, port: u16) -> Option<u32> {
        let client = self.number_of(client)?;
        let port = u32::from(port.checked_sub(PORT_FIRST)?);
        let flow = port.checked_mul(self.clients)?.checked_add(client)?;
        (flow < self.flows).then_some(flow)
    }

    /// The last four octets of the first client's address.
    #[must_use]
    pub fn client_base(&self) -> u32 {
        low(self.client)
    }

    fn client_at(&self, number: u32) -> IpAddr {
        let last = self.client_base().wrapping_add(number).to_be_bytes();
        match self.client {
            IpAddr::V4(_) => IpAddr::from(last),
            IpAddr::V6(first) => {
                let [rest @ .., _, _, _, _] = first.octets();
                let mut octets = [0; 16];
                octets.iter_mut().zip(rest.iter().chain(&last)).for_each(|(to, from)| *to = *from);
                IpAddr::from(octets)
            }
        }
    }

    /// Which client has an address.
    #[must_use]
    pub fn number_of(&self, client: IpAddr) -> Option<u32> {
        let number = low(client).wrapping_sub(self.client_base());
        (number < self.clients && self.client_at(number) == client).then_some(number)
    }

    /// The Ethernet address that all clients share.
    #[must_use]
    pub fn client_mac(&self) -> MacAddr {
        MacAddr([2, 0x72, 0x76, self.instance, 0xff, 0xff])
    }

    /// The Ethernet address of a real server.
    #[must_use]
    pub fn real_mac(&self, number: u16) -> MacAddr {
        let [high, low] = number.to_be_bytes();
        MacAddr([2, 0x72, 0x76, self.instance, high, low])
    }

    /// The real server that has an Ethernet address.
    #[inline]
    #[must_use]
    pub fn real_at(&self, mac: MacAddr) -> Option<(u16, IpAddr)> {
        let [2, 0x72, 0x76, instance, high, low] = mac.0 else { return None };
        let number = u16::from_be_bytes([high, low]);
        let address = self.reals.get(usize::from(number))?;
        (instance == self.instance).then_some((number, *address))
    }
}

fn low(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            u32::from_be_bytes([a, b, c, d])
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn scenario() -> Scenario {
        Scenario {
            client: "198.51.100.10".parse().unwrap(),
            clients: 3,
            vip: "203.0.113.1:80".parse().unwrap(),
            director: Director::Mac(MacAddr([2, 0, 0, 0, 0, 1])),
            reals: vec!["192.0.2.11".parse().unwrap(), "192.0.2.12".parse().unwrap()],
            flows: 10,
            mix: vec![(Kind::Udp, 1)],
            choice: Choice::Turn,
            sizes: vec![(64, 1)],
            echo: false,
            replies: false,
            instance: 0,
            seed: 1,
        }
    }

    #[test]
    fn every_flow_has_ends_of_its_own_and_is_found_by_them() {
        for client in ["198.51.100.254", "2001:db8::fffe"] {
            let client: IpAddr = client.parse().unwrap();
            let scenario = Scenario { client, flows: 1000, ..scenario() };
            let ends: std::collections::HashSet<_> =
                (0..1000).map(|flow| scenario.ends_of(flow)).collect();
            assert_eq!(ends.len(), 1000);
            for flow in 0..1000 {
                let (client, port) = scenario.ends_of(flow);
                assert_eq!(scenario.flow_of(client, port), Some(flow));
            }
            let (client, port) = scenario.ends_of(1000);
            assert_eq!(scenario.flow_of(client, port), None);
        }
    }

    #[test]
    fn a_server_is_known_by_its_ethernet_address() {
        let scenario = scenario();
        for number in 0..2 {
            let (found, address) = scenario.real_at(scenario.real_mac(number)).unwrap();
            assert_eq!((found, address), (number, scenario.reals[usize::from(number)]));
        }
        assert_eq!(scenario.real_at(scenario.real_mac(2)), None);
        assert_eq!(scenario.real_at(scenario.client_mac()), None);
        let other = Scenario { instance: 1, ..scenario.clone() };
        assert_eq!(scenario.real_at(other.real_mac(0)), None);
    }

    #[test]
    fn kinds_take_turns_in_their_shares() {
        let mix = vec![(Kind::Udp, 3), (Kind::Syn, 1)];
        let round = Scenario { mix, ..scenario() }.round();
        assert_eq!(round.len(), 4);
        assert_eq!(round.iter().filter(|kind| **kind == Kind::Udp).count(), 3);
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line_that_says_what_could() {
        let refused = |scenario: Scenario| scenario.check().unwrap_err().to_string();
        let line = refused(Scenario { flows: 0, ..scenario() });
        assert!(line.starts_with("--flows is 0, expected 1 to 193536"), "{line}");
        let line = refused(Scenario { mix: vec![(Kind::Ack, 1)], ..scenario() });
        assert!(line.starts_with("--size is 64, expected 76 to 9018"), "{line}");
        let line = refused(Scenario { client: "2001:db8::1".parse().unwrap(), ..scenario() });
        assert!(line.ends_with("are of different families"), "{line}");
        assert!(scenario().check().is_ok());
    }

    #[test]
    fn short_frames_of_a_mixture_are_sent_as_long_as_they_must_be() {
        let mixed =
            Scenario { mix: vec![(Kind::Ack, 1)], sizes: vec![(64, 1), (1518, 1)], ..scenario() };
        let mixed = mixed.check().unwrap();
        assert_eq!(mixed.sent_sizes(), [(76, 1), (1518, 1)]);
        assert!((mixed.mean_octets() - 797.0).abs() < 1e-9);
    }
}
