//! The networks that the director is part of: interfaces, addresses, routes. Immutable; a part of
//! the snapshot.

use core::net::{IpAddr, Ipv6Addr};
use hashbrown::HashSet;
use ipnet::IpNet;
use rvs_wire::mac::MacAddr;

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

/// What the director knows about the networks around it.
#[derive(Clone, Debug, Default)]
pub struct Network {
    interfaces: Vec<Interface>,
    /// Longest prefix first.
    routes: Vec<Route>,
    local: HashSet<IpAddr>,
    local_prefixes: Vec<IpNet>,
    neighbors: Vec<StaticNeighbor>,
    forwarding: bool,
}

impl Network {
    /// A network of these interfaces. Connected networks become routes; `routes` are static ones,
    /// `local_prefixes` whole networks of local addresses, `forwarding` says whether packets that
    /// belong to no service are routed.
    #[must_use]
    pub fn new(
        interfaces: Vec<Interface>,
        mut routes: Vec<Route>,
        local_prefixes: Vec<IpNet>,
        neighbors: Vec<StaticNeighbor>,
        forwarding: bool,
    ) -> Self {
        let mut local = HashSet::new();
        for (interface, number) in interfaces.iter().zip(0..) {
            for address in &interface.addresses {
                local.insert(address.addr());
                let route =
                    Route { to: address.trunc(), interface: InterfaceId(number), via: None };
                routes.push(route);
            }
            let link_local = IpAddr::V6(link_local(interface.mac));
            local.insert(link_local);
        }
        // Stable: of two equal prefixes the one named first holds, static before connected.
        routes.sort_by_key(|route| core::cmp::Reverse(route.to.prefix_len()));
        Self { interfaces, routes, local, local_prefixes, neighbors, forwarding }
    }

    /// The same network with other local addresses beside those of the interfaces: the VIPs. One
    /// inside a local network is local already, and stays what it is there: not an address of the
    /// director's own ([`Network::is_own`]).
    #[must_use]
    pub fn with_vips(&self, vips: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut network = self.clone();
        network.local.extend(vips.into_iter().filter(|vip| !self.is_local(*vip)));
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
        self.local.contains(&address)
            || self.local_prefixes.iter().any(|prefix| prefix.contains(&address))
    }

    /// Whether `address` itself is the director's, not only a local network that contains it.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.local.contains(&address)
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
        let IpAddr::V4(address) = address else { return false };
        let mut networks = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        address.is_broadcast()
            || networks.any(|network| {
                network.prefix_len() < 31 && network.broadcast() == IpAddr::V4(address)
            })
    }

    /// The next hop towards `to`, by the longest prefix.
    #[must_use]
    pub fn next_hop(&self, to: IpAddr) -> Option<NextHop> {
        if let IpAddr::V6(to) = to
            && to.is_unicast_link_local()
        {
            return None;
        }
        let route = self.routes.iter().find(|route| route.to.contains(&to))?;
        Some(NextHop {
            interface: route.interface,
            address: route.via.unwrap_or(to),
            on_link: route.via.is_none(),
        })
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

/// The link-local address that belongs to an Ethernet address (RFC 4291 appendix A, modified
/// EUI-64).
#[must_use]
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
