//! What the networks around us say of every address, laid out flat: ranges of addresses for which all
//! answers are the same.
//!
//! ```text
//!  starts   0.0.0.0    1.0.0.0     10.1.0.0    10.2.0.0    127.0.0.0    …
//!  about    no host    route 0     route 2     route 0     no host      …
//! ```
//!
//! A new connection asks several things about its client. Here that is one search in a sorted list,
//! however many routes and prefix lengths there are, and only among the ranges of those addresses that
//! begin with the same octet: one, or a few.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;
use ipnet::IpNet;

/// What there is to know of an address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct About {
    /// The route that leads there, by its place in the list.
    pub(crate) route: Option<u32>,
    /// In a local network.
    pub(crate) is_local: bool,
    /// Means everybody: of one link, or of a connected network.
    pub(crate) is_broadcast: bool,
    /// No host may have it (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
    pub(crate) is_martian: bool,
}

impl About {
    /// Whether no other host may have this address, whatever else is known of it.
    #[inline]
    pub(crate) fn is_no_host(self) -> bool {
        self.is_martian || self.is_local || self.is_broadcast
    }
}

/// The ranges of one family: the first begins with 0, each ends where the next begins.
#[derive(Debug)]
struct Ranges<A> {
    starts: Vec<A>,
    about: Vec<About>,
    /// For the addresses that begin with each octet: how many ranges begin at or before the first of
    /// them, and how many at or before the first behind them.
    by_octet: [(u32, u32); 256],
}

impl<A: Address> Ranges<A> {
    /// Of these starts, in any order; `ask` is asked about each.
    fn new(mut starts: Vec<A>, ask: impl Fn(A) -> About) -> Self {
        starts.sort_unstable();
        starts.dedup();
        let about = starts.iter().map(|start| ask(*start)).collect();
        let begun = |by: Option<A>| {
            let all = by.map_or(starts.len(), |by| starts.partition_point(|start| *start <= by));
            u32::try_from(all).unwrap_or(u32::MAX)
        };
        let first = |octet| A::beginning_with(octet);
        let by_octet = core::array::from_fn(|octet| {
            let octet = u8::try_from(octet).unwrap_or(u8::MAX);
            (begun(Some(first(octet))), begun(octet.checked_add(1).map(first)))
        });
        Self { starts, about, by_octet }
    }

    #[inline(always)]
    fn about(&self, address: A) -> About {
        let by_octet = self.by_octet.get(usize::from(address.first_octet()));
        let (begun, end) = by_octet.copied().unwrap_or_default();
        let others = self.starts.get(at(begun)..at(end)).unwrap_or_default();
        let after = at(begun) + others.partition_point(|start| *start <= address);
        self.about.get(after.wrapping_sub(1)).copied().unwrap_or_default()
    }
}

#[inline]
fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The ranges of both families.
#[derive(Debug)]
pub(crate) struct Atlas {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl Atlas {
    /// `edges` are all networks and addresses that any answer of `ask` depends on: within each, and
    /// outside of all, an answer is the same for all addresses. What [`is_martian`] says is known here.
    pub(crate) fn new(edges: impl Iterator<Item = IpNet>, ask: impl Fn(IpAddr) -> About) -> Self {
        let (mut v4, mut v6) = (vec![0], vec![0]);
        for edge in edges {
            match edge {
                IpNet::V4(net) => add(&mut v4, net.network().to_bits(), net.broadcast().to_bits()),
                IpNet::V6(net) => add(&mut v6, net.network().to_bits(), net.broadcast().to_bits()),
            }
        }
        for range in MARTIANS {
            add(&mut v4, range.start().to_bits(), range.end().to_bits());
        }
        for range in MARTIANS_V6 {
            add(&mut v6, range.start().to_bits(), range.end().to_bits());
        }
        let ask = |address| About { is_martian: is_martian(address), ..ask(address) };
        Self {
            v4: Ranges::new(v4, |start| ask(Ipv4Addr::from_bits(start).into())),
            v6: Ranges::new(v6, |start| ask(Ipv6Addr::from_bits(start).into())),
        }
    }

    /// What there is to know of `address`.
    #[inline(always)]
    pub(crate) fn about(&self, address: IpAddr) -> About {
        match address {
            IpAddr::V4(address) => self.v4.about(address.to_bits()),
            IpAddr::V6(address) => self.v6.about(address.to_bits()),
        }
    }
}

/// Ranges begin at a network's first address and after its last.
fn add<A: Address>(starts: &mut Vec<A>, first: A, last: A) {
    starts.push(first);
    starts.extend(last.successor());
}

/// An address as a number.
trait Address: Copy + Ord {
    fn successor(self) -> Option<Self>;
    fn first_octet(self) -> u8;
    /// The first that begins so.
    fn beginning_with(octet: u8) -> Self;
}

impl Address for u32 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }

    #[inline]
    fn first_octet(self) -> u8 {
        self.to_be_bytes()[0]
    }

    fn beginning_with(octet: u8) -> Self {
        Self::from(octet) << 24
    }
}

impl Address for u128 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }

    #[inline]
    fn first_octet(self) -> u8 {
        self.to_be_bytes()[0]
    }

    fn beginning_with(octet: u8) -> Self {
        Self::from(octet) << 120
    }
}

const MARTIANS: [RangeInclusive<Ipv4Addr>; 4] = [
    Ipv4Addr::UNSPECIFIED..=Ipv4Addr::new(0, 255, 255, 255),
    Ipv4Addr::new(127, 0, 0, 0)..=Ipv4Addr::new(127, 255, 255, 255),
    Ipv4Addr::new(224, 0, 0, 0)..=Ipv4Addr::new(239, 255, 255, 255),
    Ipv4Addr::BROADCAST..=Ipv4Addr::BROADCAST,
];

const MARTIANS_V6: [RangeInclusive<Ipv6Addr>; 2] = [
    Ipv6Addr::UNSPECIFIED..=Ipv6Addr::LOCALHOST,
    Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)
        ..=Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
];

/// Whether no host may have this address (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
pub(crate) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => MARTIANS.iter().any(|range| range.contains(&address)),
        IpAddr::V6(address) => MARTIANS_V6.iter().any(|range| range.contains(&address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn martians_are_what_their_rfcs_say() {
        let v4 = |bits: u32| {
            let address = Ipv4Addr::from_bits(bits);
            let expected = address.is_multicast()
                || address.is_broadcast()
                || address.is_loopback()
                || address.octets()[0] == 0;
            assert_eq!(is_martian(address.into()), expected, "{address}");
        };
        for high in 0..=0xff_u32 {
            for low in [0, 1, 0x00ff_ffff] {
                v4(high << 24 | low);
            }
        }
        for text in ["::", "::1", "::2", "fe80::1", "feff::1", "ff02::1", "2001:db8::1"] {
            let address: Ipv6Addr = text.parse().unwrap();
            let expected =
                address.is_multicast() || address.is_loopback() || address.is_unspecified();
            assert_eq!(is_martian(address.into()), expected, "{address}");
        }
    }

    #[test]
    fn the_last_address_of_all_ends_a_range_and_an_atlas_of_nothing_knows_nothing() {
        let edges: [IpNet; 2] = ["255.255.255.0/24", "ffff::/16"].map(|net| net.parse().unwrap());
        let inside = |address: IpAddr| edges.iter().any(|edge| edge.contains(&address));
        let ask = |address| About { is_local: inside(address), ..About::default() };
        let atlas = Atlas::new(edges.iter().copied(), ask);
        for text in ["255.255.254.255", "255.255.255.0", "255.255.255.255", "fffe::", "ffff::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(atlas.about(address).is_local, inside(address), "{address}");
        }
        let atlas = Atlas::new([].into_iter(), |_| About::default());
        assert_eq!(atlas.about("198.51.100.1".parse().unwrap()), About::default());
    }

    #[test]
    fn whatever_networks_there_are_an_address_is_in_those_that_contain_it() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % most
        };
        for round in 0..200 {
            // Crowded in a few octets, or spread over all.
            let octets = [3, 256][round % 2];
            let mut address = |v6: bool| -> IpAddr {
                let (first, rest) = (draw(octets) * 256 / octets, draw(1 << 24) & draw(1 << 24));
                let bits = u32::try_from(first << 24 | rest).unwrap();
                if v6 {
                    Ipv6Addr::from_bits(u128::from(bits) << 96 | u128::from(rest)).into()
                } else {
                    Ipv4Addr::from_bits(bits).into()
                }
            };
            let addresses: Vec<IpAddr> = (0..200).map(|n| address(n % 2 == 0)).collect();
            let edges: Vec<IpNet> = addresses
                .iter()
                .take(20)
                .map(|it| {
                    let most: u8 = if it.is_ipv4() { 32 } else { 128 };
                    let len = u8::try_from(draw(u64::from(most) + 1)).unwrap();
                    IpNet::new(*it, len).unwrap().trunc()
                })
                .collect();
            let within = |it: IpAddr| edges.iter().filter(|edge| edge.contains(&it)).count();
            let ask = |it| About { route: u32::try_from(within(it)).ok(), ..About::default() };
            let atlas = Atlas::new(edges.iter().copied(), ask);
            let ends = edges.iter().flat_map(|edge| [edge.network(), edge.broadcast()]);
            for it in addresses.iter().copied().chain(ends) {
                assert_eq!(
                    atlas.about(it),
                    About { is_martian: is_martian(it), ..ask(it) },
                    "{it} of {edges:?}"
                );
            }
        }
    }
}
