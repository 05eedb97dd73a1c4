//! Firewall marks: an ordered list of what to look for in the first packet of a connection. The
//! first that matches names the mark, and with it the service.
//!
//! ```text
//!  [ source │ destination │ protocol │ source ports │ destination ports │ interface ] ─► mark
//!  [ … ]                                                     top to bottom, one list per family
//! ```
//!
//! A packet of a known connection is never looked at here. One that has none costs a pass over the
//! list, whose length is bounded.

use crate::network::InterfaceId;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use ipnet::IpNet;
use rvs_wire::flow::{Ends, Family, Key};

/// The most entries of a list: at some nanoseconds each they cost a new connection a microsecond.
pub const MARKS_MAX: usize = 256;

/// What to look for, and the mark of what matches. What is left out matches all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The client's network.
    pub source: Option<IpNet>,
    /// The network of the address that was asked for; of the same family as `source`.
    pub destination: Option<IpNet>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// The client's port.
    pub source_ports: RangeInclusive<u16>,
    /// The port that was asked for.
    pub destination_ports: RangeInclusive<u16>,
    /// Where the packet came in.
    pub interface: Option<InterfaceId>,
    /// The mark; 0 is none, and ends the search.
    pub mark: u32,
}

impl Rule {
    /// Gives every packet `mark`.
    #[must_use]
    pub fn new(mark: u32) -> Self {
        Self {
            source: None,
            destination: None,
            protocol: None,
            source_ports: 0..=u16::MAX,
            destination_ports: 0..=u16::MAX,
            interface: None,
            mark,
        }
    }

    fn compiled(&self, v6: bool) -> Option<Compiled> {
        let networks = [self.source, self.destination];
        if networks.iter().flatten().any(|network| network.addr().is_ipv6() != v6) {
            return None;
        }
        let [source, destination] =
            networks.map(|network| network.map(Part::new).unwrap_or_default());
        Some(Compiled {
            source,
            destination,
            source_ports: (*self.source_ports.start(), *self.source_ports.end()),
            destination_ports: (*self.destination_ports.start(), *self.destination_ports.end()),
            protocol: self.protocol,
            interface: self.interface,
            mark: self.mark,
        })
    }
}

/// A network as a mask and what it leaves.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    mask: u128,
    bits: u128,
}

impl Part {
    fn new(network: IpNet) -> Self {
        let mask = bits(network.netmask());
        Self { mask, bits: bits(network.addr()) & mask }
    }

    #[inline]
    fn has(self, address: u128) -> bool {
        address & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[derive(Clone, Debug)]
struct Compiled {
    source: Part,
    destination: Part,
    source_ports: (u16, u16),
    destination_ports: (u16, u16),
    protocol: Option<u8>,
    interface: Option<InterfaceId>,
    mark: u32,
}

/// The list, by address family.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    lists: [Vec<Compiled>; 2],
}

impl Marks {
    /// Of these rules, the first of which that matches is the one.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Self {
        let of = |v6| rules.iter().filter_map(|rule| rule.compiled(v6)).collect();
        Self { lists: [of(false), of(true)] }
    }

    /// The mark of a packet from client to VIP that came in at `interface`; 0 is none.
    #[inline(always)]
    #[must_use]
    pub fn of<F: Family>(
        &self,
        key: &Key<F>,
        interface: impl FnOnce() -> Option<InterfaceId>,
    ) -> u32 {
        let [v4, v6] = &self.lists;
        let list = if F::IS_V6 { v6 } else { v4 };
        if list.is_empty() { 0 } else { first_match(list, key, interface()) }
    }
}

#[inline(never)]
fn first_match<F: Family>(list: &[Compiled], key: &Key<F>, interface: Option<InterfaceId>) -> u32 {
    let ((source, source_port), (destination, port)) = (key.ends.source(), key.ends.destination());
    let (source, destination) = (bits(source.into()), bits(destination.into()));
    let within = |(first, last): (u16, u16), port: u16| first <= port && port <= last;
    let matches = |rule: &&Compiled| {
        rule.destination.has(destination)
            && within(rule.destination_ports, port)
            && rule.source.has(source)
            && within(rule.source_ports, source_port)
            && rule.protocol.is_none_or(|protocol| protocol == key.protocol)
            && (rule.interface.is_none() || rule.interface == interface)
    };
    list.iter().find(matches).map_or(0, |rule| rule.mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::SocketAddr;
    use rvs_wire::flow::{Ends4, Ends6, V4, V6};

    /// The mark of a packet, by a list of rules that is gone through as the manual says.
    fn told(rules: &[Rule], from: SocketAddr, to: SocketAddr, protocol: u8, link: u16) -> u32 {
        let matches = |rule: &&Rule| {
            rule.source.is_none_or(|net| net.contains(&from.ip()))
                && rule.destination.is_none_or(|net| net.contains(&to.ip()))
                && rule.protocol.is_none_or(|wanted| wanted == protocol)
                && rule.source_ports.contains(&from.port())
                && rule.destination_ports.contains(&to.port())
                && rule.interface.is_none_or(|wanted| wanted == InterfaceId(link))
        };
        rules.iter().find(matches).map_or(0, |rule| rule.mark)
    }

    fn of(marks: &Marks, from: SocketAddr, to: SocketAddr, protocol: u8, link: u16) -> u32 {
        let interface = || Some(InterfaceId(link));
        match (from.ip(), to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let ends = Ends4::new((a, from.port()), (b, to.port()));
                marks.of::<V4>(&Key { ends, protocol }, interface)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let ends = Ends6::new((a, from.port()), (b, to.port()));
                marks.of::<V6>(&Key { ends, protocol }, interface)
            }
            _ => unreachable!("packets have one family"),
        }
    }

    #[test]
    fn the_first_rule_that_matches_names_the_mark_whatever_rules_there_are() {
        let networks: [Option<IpNet>; 7] = [
            None,
            Some("10.0.0.0/8".parse().unwrap()),
            Some("10.1.0.0/16".parse().unwrap()),
            Some("10.1.2.3/32".parse().unwrap()),
            Some("0.0.0.0/0".parse().unwrap()),
            Some("2001:db8::/32".parse().unwrap()),
            Some("2001:db8:1::/48".parse().unwrap()),
        ];
        let addresses: [IpAddr; 5] = ["10.1.2.3", "10.1.9.9", "192.0.2.1", "2001:db8:1::1", "::2"]
            .map(|text| text.parse().unwrap());
        let mut random: u64 = 7;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from((random >> 33) % below).unwrap()
        };
        let ports = [0_u16, 53, 80, 81, 443, 1024, 65535];
        let (mut marked, mut unmarked) = (0, 0);
        for round in 0..400 {
            let rules: Vec<Rule> = (0..next(6))
                .map(|number| {
                    let mut range = || {
                        let (a, b) = (ports[next(7)], ports[next(7)]);
                        a.min(b)..=a.max(b)
                    };
                    Rule {
                        source_ports: range(),
                        destination_ports: range(),
                        source: networks[next(7)],
                        destination: networks[next(7)],
                        protocol: [None, Some(6), Some(17)][next(3)],
                        interface: [None, Some(InterfaceId(1))][next(2)],
                        mark: u32::try_from(number).unwrap(),
                    }
                })
                // The configuration refuses these.
                .filter(|rule| match (rule.source, rule.destination) {
                    (Some(one), Some(other)) => one.addr().is_ipv4() == other.addr().is_ipv4(),
                    _ => true,
                })
                .collect();
            let marks = Marks::new(&rules);
            for _ in 0..50 {
                let (from, to) = (addresses[next(5)], addresses[next(5)]);
                if from.is_ipv4() != to.is_ipv4() {
                    continue;
                }
                let (from, to) =
                    (SocketAddr::new(from, ports[next(7)]), SocketAddr::new(to, ports[next(7)]));
                let (protocol, link) = ([6, 17][next(2)], u16::try_from(next(2)).unwrap());
                let expected = told(&rules, from, to, protocol, link);
                assert_eq!(of(&marks, from, to, protocol, link), expected, "{round}: {rules:?}");
                if expected == 0 { unmarked += 1 } else { marked += 1 }
            }
        }
        assert!(marked > 100 && unmarked > 100, "{marked} {unmarked}");
    }

    #[test]
    fn an_empty_list_marks_nothing_and_does_not_ask_where_a_packet_came_in() {
        let marks = Marks::new(&[]);
        let key = Key::<V4>::default();
        assert_eq!(marks.of(&key, || unreachable!("nobody wants to know")), 0);
    }
}
