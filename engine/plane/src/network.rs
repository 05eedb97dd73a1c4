//! The networks that the director is part of: interfaces, addresses, routes. Immutable; a part of
//! the snapshot.

use crate::atlas::{About, Atlas};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use rvs_wire::mac::MacAddr;
use std::sync::Arc;

/// The place of an interface in [`Network::interfaces`].
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct InterfaceId(pub u16);

/// A link, or one VLAN of it, and our addresses there.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The operator's name for it.
    pub name: String,
    /// Index of the link among a worker's queues.
    pub link: u8,
    /// IEEE 802.1Q VLAN id; 0 for untagged frames.
    pub vlan: u16,
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// The longest IP packet that the link carries, octets.
    pub mtu: u16,
    /// Our addresses, each with its connected network.
    pub addresses: Vec<IpNet>,
}

/// A static route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Where it leads.
    pub to: IpNet,
    /// Through which interface.
    pub interface: InterfaceId,
    /// The router, or `None` when the network is connected.
    pub via: Option<IpAddr>,
}

/// A neighbour whose Ethernet address is configured.
#[derive(Clone, Copy, Debug)]
pub struct StaticNeighbor {
    /// Where it is.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// The next hop towards an address.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NextHop {
    /// Through which interface.
    pub interface: InterfaceId,
    /// Whose Ethernet address is wanted: a router's or the address's own.
    pub address: IpAddr,
    /// Whether `address` is the packet's own destination, not a router.
    pub on_link: bool,
}

/// One of our addresses, where others look for it themselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Own {
    /// Where its network is.
    pub interface: InterfaceId,
    /// The address.
    pub address: IpAddr,
}

/// A set of addresses, by family: one of both is looked up at twice the cost.
#[derive(Clone, Debug, Default)]
struct Addresses {
    v4: HashSet<Ipv4Addr>,
    v6: HashSet<Ipv6Addr>,
    /// A bit for each [`region`] that one of them is in, or was. Every new connection's client is
    /// asked about, and nearly all clients are in others.
    regions: [u64; 4],
}

impl Addresses {
    #[inline(always)]
    fn contains(&self, address: IpAddr) -> bool {
        let region = region(address);
        let word = self.regions.get(usize::from(region / 64)).copied().unwrap_or_default();
        word >> (region % 64) & 1 != 0 && self.is_there(address)
    }

    #[inline(never)]
    fn is_there(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(&address),
            IpAddr::V6(address) => self.v6.contains(&address),
        }
    }

    /// Whether it was not there.
    fn insert(&mut self, address: IpAddr) -> bool {
        let region = region(address);
        if let Some(word) = self.regions.get_mut(usize::from(region / 64)) {
            *word |= 1 << (region % 64);
        }
        match address {
            IpAddr::V4(address) => self.v4.insert(address),
            IpAddr::V6(address) => self.v6.insert(address),
        }
    }
}

/// Addresses of one region are near each other: they begin alike.
#[inline(always)]
fn region(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[0],
        IpAddr::V6(address) => {
            let [_, _, a, b, c, d, ..] = address.octets();
            a ^ b ^ c ^ d
        }
    }
}

/// What the director knows about the networks around it.
#[derive(Clone, Debug)]
pub struct Network {
    interfaces: Vec<Interface>,
    routes: Vec<Route>,
    /// Routes, local networks, broadcast addresses: all but the single addresses in `local`.
    atlas: Arc<Atlas>,
    local: Addresses,
    own: Vec<Own>,
    announces: bool,
    neighbors: Vec<StaticNeighbor>,
    forwarding: bool,
    hosts: Vec<Host>,
}

/// A link that the host's own stack uses beside us, and the link to that stack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Host {
    /// Index of the link.
    pub link: u8,
    /// Index of the link to the host: what it sends goes out on `link`, and what arrives there for
    /// nobody here is the host's.
    pub end: u8,
}

impl Default for Network {
    fn default() -> Self {
        Self::new(vec![], vec![], vec![], vec![], false)
    }
}

impl Network {
    /// A network of these interfaces. Connected networks become routes; `routes` are static ones,
    /// `local_prefixes` whole networks of local addresses, `forwarding` says whether packets that
    /// belong to no service are routed.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "all of it is the network's from now on")]
    pub fn new(
        interfaces: Vec<Interface>,
        mut routes: Vec<Route>,
        local_prefixes: Vec<IpNet>,
        neighbors: Vec<StaticNeighbor>,
        forwarding: bool,
    ) -> Self {
        let mut local = Addresses::default();
        let mut own = Vec::new();
        for (interface, number) in interfaces.iter().zip(0..) {
            for address in &interface.addresses {
                local.insert(address.addr());
                own.push(Own { interface: InterfaceId(number), address: address.addr() });
                let route =
                    Route { to: address.trunc(), interface: InterfaceId(number), via: None };
                routes.push(route);
            }
            let link_local = IpAddr::V6(link_local(interface.mac));
            local.insert(link_local);
            own.push(Own { interface: InterfaceId(number), address: link_local });
        }
        Self {
            atlas: Arc::new(atlas(&interfaces, &routes, &local_prefixes)),
            interfaces,
            routes,
            local,
            own,
            announces: false,
            neighbors,
            forwarding,
            hosts: Vec::new(),
        }
    }

    /// The same network, some of whose links the host's own stack uses as well.
    #[must_use]
    pub fn with_hosts(self, hosts: Vec<Host>) -> Self {
        Self { hosts, ..self }
    }

    /// Links that the host's own stack uses as well.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The same network with other local addresses beside those of the interfaces: the VIPs. One
    /// inside a local network is local already, and stays what it is there: not an address of the
    /// director's own ([`Network::is_own`]).
    #[must_use]
    pub fn with_vips(&self, vips: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut network = self.clone();
        for vip in vips {
            if self.is_local(vip) || !network.local.insert(vip) {
                continue;
            }
            let next = self.next_hop(vip).filter(|next| next.on_link);
            network.own.extend(next.map(|next| Own { interface: next.interface, address: vip }));
        }
        network
    }

    /// The same network, whose addresses are announced at the start and when one is added.
    #[must_use]
    pub fn announcing(self, announces: bool) -> Self {
        Self { announces, ..self }
    }

    /// Whether our addresses are announced.
    #[must_use]
    pub fn announces(&self) -> bool {
        self.announces
    }

    /// Our addresses in networks that we are connected to, each where that is: those of interfaces,
    /// then VIPs. Not local networks: those are routed to us, or answered for when asked.
    #[must_use]
    pub fn own(&self) -> &[Own] {
        &self.own
    }

    /// The same network with another Ethernet address of ours on `link`, which only the device knew.
    #[must_use]
    pub fn with_mac(&self, link: u8, mac: MacAddr) -> Self {
        let mut network = self.clone();
        let new = IpAddr::V6(link_local(mac));
        for interface in network.interfaces.iter_mut().filter(|interface| interface.link == link) {
            let old = IpAddr::V6(link_local(interface.mac));
            interface.mac = mac;
            if let IpAddr::V6(old) = old {
                network.local.v6.remove(&old);
            }
            for own in network.own.iter_mut().filter(|own| own.address == old) {
                own.address = new;
            }
        }
        network.local.insert(new);
        network
    }

    /// All interfaces, by [`InterfaceId`].
    #[inline]
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// One interface.
    #[inline]
    #[must_use]
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(usize::from(id.0))
    }

    /// The interface that frames of `vlan` on `link` belong to.
    #[inline]
    #[must_use]
    pub fn interface_of(&self, link: u8, vlan: u16) -> Option<InterfaceId> {
        let mut all = self.interfaces.iter().zip(0..);
        let found = all.find(|(interface, _)| (interface.link, interface.vlan) == (link, vlan))?;
        Some(InterfaceId(found.1))
    }

    /// Configured neighbours.
    #[must_use]
    pub fn static_neighbors(&self) -> &[StaticNeighbor] {
        &self.neighbors
    }

    /// The routers that routes lead through, one per route.
    pub fn routers(&self) -> impl Iterator<Item = NextHop> {
        self.routes.iter().filter_map(|route| {
            Some(NextHop { interface: route.interface, address: route.via?, on_link: false })
        })
    }

    /// Whether packets that belong to no service are routed.
    #[inline]
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.forwarding
    }

    /// Whether `address` is the director's own: an interface's, a VIP, or in a local network.
    #[inline]
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.local.contains(address) || self.atlas.about(address).is_local
    }

    /// Whether `address` itself is the director's, not only a local network that contains it.
    #[inline]
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.local.contains(address)
    }

    /// Whether `address` is to be answered for on `interface`: a link-local address belongs to one
    /// link, any other to all.
    #[must_use]
    pub fn is_local_on(&self, interface: InterfaceId, address: Ipv6Addr) -> bool {
        if address.is_unicast_link_local() {
            self.interface(interface).is_some_and(|it| link_local(it.mac) == address)
        } else {
            self.is_local(address.into())
        }
    }

    /// Whether `address` is in a network that `interface` is connected to.
    #[must_use]
    pub fn is_connected(&self, interface: InterfaceId, address: IpAddr) -> bool {
        let next = self.next_hop(address);
        next.is_some_and(|next| next.on_link && next.interface == interface)
    }

    /// Whether `address` means everybody: of one link, or of a connected network.
    #[must_use]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        self.atlas.about(address).is_broadcast
    }

    /// Whether no other host may have sent a packet from `address` (Linux 6.1 `route.c`
    /// `ip_route_input_slow()`, `fib_frontend.c` `__fib_validate_source()`).
    #[must_use]
    pub fn is_no_host(&self, address: IpAddr) -> bool {
        self.about(address).is_no_host() || self.is_own(address)
    }

    /// What is known of `address`, unless it is one of our own.
    #[inline(always)]
    pub(crate) fn about(&self, address: IpAddr) -> About {
        self.atlas.about(address)
    }

    /// The next hop towards `to`, by the longest prefix.
    #[inline]
    #[must_use]
    pub fn next_hop(&self, to: IpAddr) -> Option<NextHop> {
        self.next_hop_by(self.about(to), to)
    }

    /// The same once it is known what is `about` that address.
    #[inline]
    pub(crate) fn next_hop_by(&self, about: About, to: IpAddr) -> Option<NextHop> {
        let Route { interface, via, .. } = *self.routes.get(usize::try_from(about.route?).ok()?)?;
        Some(NextHop { interface, address: via.unwrap_or(to), on_link: via.is_none() })
    }

    /// Our address towards `to`: of the next hop's network if we have one there, else the first of
    /// that family on the interface, else any of that family.
    #[must_use]
    pub fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        let hop = self.next_hop(to)?;
        self.source_on(hop.interface, hop.address)
    }

    /// Our address on `interface`, for talking to `peer`.
    #[must_use]
    pub fn source_on(&self, interface: InterfaceId, peer: IpAddr) -> Option<IpAddr> {
        let here = &self.interface(interface)?.addresses;
        let same_family = |address: &&IpNet| address.addr().is_ipv4() == peer.is_ipv4();
        let connected = here.iter().find(|address| address.contains(&peer));
        let elsewhere = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        connected
            .or_else(|| here.iter().find(same_family))
            .or_else(|| elsewhere.into_iter().find(same_family))
            .map(IpNet::addr)
    }
}

/// What is so of all addresses but the director's own.
fn atlas(interfaces: &[Interface], routes: &[Route], local: &[IpNet]) -> Atlas {
    let connected = || interfaces.iter().flat_map(|interface| &interface.addresses);
    let last = |net: &IpNet| match net {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
        _ => None,
    };
    let broadcasts: HashSet<Ipv4Addr> =
        connected().filter_map(last).chain([Ipv4Addr::BROADCAST]).collect();
    let by_prefix = by_prefix(routes);
    let route = |to: IpAddr| {
        if let IpAddr::V6(to) = to
            && to.is_unicast_link_local()
        {
            return None;
        }
        by_prefix.iter().find_map(|(len, routes)| {
            let network = IpNet::new(to, *len).ok()?.trunc();
            routes.get(&network).copied()
        })
    };
    let link_local = IpNet::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10);
    let edges = routes.iter().map(|route| route.to).chain(local.iter().copied());
    let edges = edges.chain(broadcasts.iter().map(|last| IpAddr::from(*last).into()));
    Atlas::new(edges.chain([link_local]), |address| About {
        route: route(address),
        is_local: local.iter().any(|prefix| prefix.contains(&address)),
        is_broadcast: matches!(address, IpAddr::V4(it) if broadcasts.contains(&it)),
        is_martian: false,
    })
}

/// Where a route stands, by what it leads to: a table for each length of prefix, the longest first.
/// Of two equal prefixes the one named first holds, static before connected.
fn by_prefix(routes: &[Route]) -> Vec<(u8, HashMap<IpNet, u32>)> {
    let mut lengths: Vec<u8> = routes.iter().map(|route| route.to.prefix_len()).collect();
    lengths.sort_unstable_by_key(|len| core::cmp::Reverse(*len));
    lengths.dedup();
    let of_length = |len: u8| {
        let mut table = HashMap::new();
        for (route, at) in routes.iter().zip(0..).filter(|(it, _)| it.to.prefix_len() == len) {
            table.entry(route.to.trunc()).or_insert(at);
        }
        (len, table)
    };
    lengths.into_iter().map(of_length).collect()
}

/// The link-local address that belongs to an Ethernet address (RFC 4291 appendix A, modified
/// EUI-64).
#[must_use]
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interface(link: u8, addresses: &[&str]) -> Interface {
        Interface {
            name: format!("link{link}"),
            link,
            vlan: 0,
            mac: MacAddr([2, 0, 0, 0, link, 1]),
            mtu: 1500,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn route(to: &str, interface: u16, via: Option<&str>) -> Route {
        Route { to: to.parse().unwrap(), interface: InterfaceId(interface), via: via.map(ip) }
    }

    /// Clients on the first link, servers on the second, nothing but IPv6 on the third.
    fn network() -> Network {
        let interfaces = vec![
            interface(0, &["198.51.100.1/24", "2001:db8:c::1/64"]),
            interface(1, &["192.0.2.1/24", "192.0.2.129/25", "2001:db8:d::1/64"]),
            interface(2, &["2001:db8:e::1/64"]),
        ];
        let routes = vec![
            route("0.0.0.0/0", 0, Some("198.51.100.254")),
            route("10.0.0.0/8", 1, Some("192.0.2.254")),
            route("10.1.0.0/16", 0, Some("198.51.100.253")),
            route("10.1.2.0/24", 1, None),
            route("2001:db8:d::/64", 2, Some("2001:db8:e::9")),
        ];
        Network::new(interfaces, routes, vec!["203.0.113.0/28".parse().unwrap()], vec![], true)
    }

    #[test]
    fn a_device_may_bring_its_own_ethernet_address() {
        let mac = MacAddr([2, 0, 0, 0, 7, 7]);
        let [old, new] = [MacAddr([2, 0, 0, 0, 1, 1]), mac].map(|mac| IpAddr::V6(link_local(mac)));
        let network = network().with_mac(1, mac);
        let macs: Vec<_> = network.interfaces().iter().map(|it| it.mac.0[4]).collect();
        assert_eq!(macs, [0, 7, 2], "on that link only");
        assert!(network.is_local(new) && !network.is_local(old));
        let own: Vec<_> = network.own().iter().filter(|own| own.address == new).collect();
        assert_eq!(own, [&Own { interface: InterfaceId(1), address: new }]);
        assert!(network.own().iter().all(|own| own.address != old));
    }

    #[test]
    fn the_longest_prefix_leads_and_of_equal_ones_the_static_one() {
        let network = network();
        let hop = |to: &str| {
            let hop = network.next_hop(ip(to)).unwrap();
            (hop.interface.0, hop.address, hop.on_link)
        };
        assert_eq!(hop("8.8.8.8"), (0, ip("198.51.100.254"), false));
        assert_eq!(hop("10.200.0.1"), (1, ip("192.0.2.254"), false));
        assert_eq!(hop("10.1.200.1"), (0, ip("198.51.100.253"), false));
        assert_eq!(hop("10.1.2.3"), (1, ip("10.1.2.3"), true));
        assert_eq!(hop("192.0.2.77"), (1, ip("192.0.2.77"), true));
        assert_eq!(hop("2001:db8:c::5"), (0, ip("2001:db8:c::5"), true));
        assert_eq!(hop("2001:db8:d::5"), (2, ip("2001:db8:e::9"), false));
        assert_eq!(network.next_hop(ip("2001:db8:f::1")), None, "no default route in IPv6");
        assert_eq!(network.next_hop(ip("fe80::1")), None, "on which link?");
    }

    #[test]
    fn our_address_towards_somebody_is_the_next_hops_networks() {
        let network = network();
        let source = |to: &str| network.source_towards(ip(to));
        assert_eq!(source("8.8.8.8"), Some(ip("198.51.100.1")));
        assert_eq!(source("10.200.0.1"), Some(ip("192.0.2.1")), "the router's network");
        assert_eq!(source("192.0.2.77"), Some(ip("192.0.2.1")));
        assert_eq!(source("10.1.2.3"), Some(ip("192.0.2.1")), "the first of that family there");
        assert_eq!(source("2001:db8:d::5"), Some(ip("2001:db8:e::1")));
        assert_eq!(source("2001:db8:f::1"), None);
        let elsewhere = network.source_on(InterfaceId(2), ip("192.0.2.9"));
        assert_eq!(elsewhere, Some(ip("198.51.100.1")), "none of that family there: any");
    }

    #[test]
    fn own_addresses_are_local_and_link_local_ones_on_their_link_only() {
        let network = network().with_vips([ip("198.51.100.80"), ip("203.0.113.7")]);
        for local in
            ["198.51.100.1", "192.0.2.129", "2001:db8:e::1", "198.51.100.80", "203.0.113.9"]
        {
            assert!(network.is_local(ip(local)), "{local}");
        }
        for other in ["198.51.100.2", "203.0.113.16", "2001:db8:e::2"] {
            assert!(!network.is_local(ip(other)), "{other}");
        }
        assert!(network.is_own(ip("198.51.100.80")) && !network.is_own(ip("203.0.113.7")));
        let second = link_local(MacAddr([2, 0, 0, 0, 1, 1]));
        assert_eq!(IpAddr::from(second), ip("fe80::ff:fe00:101"));
        assert!(network.is_local_on(InterfaceId(1), second));
        assert!(!network.is_local_on(InterfaceId(0), second));
        assert!(network.is_local_on(InterfaceId(0), "2001:db8:e::1".parse().unwrap()));
    }

    #[test]
    fn who_is_connected_to_an_interface_is_reached_there_without_a_router() {
        let network = network();
        let connected = |interface, to| network.is_connected(InterfaceId(interface), ip(to));
        assert!(connected(1, "192.0.2.9") && connected(1, "10.1.2.3"));
        assert!(!connected(0, "192.0.2.9") && !connected(0, "8.8.8.8"));
        assert!(!connected(1, "2001:db8:d::5"), "a static route leads elsewhere");
    }

    #[test]
    fn broadcast_is_the_last_address_of_a_network_that_has_one() {
        let interfaces = vec![interface(0, &["192.0.2.0/31", "198.51.100.1/32", "10.0.0.1/30"])];
        let network = Network::new(interfaces, vec![], vec![], vec![], true);
        for address in ["255.255.255.255", "10.0.0.3"] {
            assert!(network.is_broadcast(ip(address)), "{address}");
        }
        // RFC 3021: a network of two has none; a host has none either.
        for address in ["192.0.2.1", "198.51.100.1", "10.0.0.2", "2001:db8::ffff"] {
            assert!(!network.is_broadcast(ip(address)), "{address}");
        }
    }

    #[test]
    fn an_interface_is_found_by_link_and_vlan() {
        let mut tagged = interface(0, &["10.7.0.1/24"]);
        tagged.vlan = 7;
        let network = Network::new(
            vec![interface(0, &[]), tagged, interface(1, &[])],
            vec![],
            vec![],
            vec![],
            true,
        );
        let of = |link, vlan| network.interface_of(link, vlan).map(|id| id.0);
        assert_eq!(
            [of(0, 0), of(0, 7), of(1, 0), of(1, 7), of(2, 0)],
            [Some(0), Some(1), Some(2), None, None]
        );
    }
}
