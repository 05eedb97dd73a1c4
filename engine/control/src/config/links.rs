//! Links, their VLANs, routes and neighbours: the [`Network`].

use super::check::{Flaw, Unique, number, parsed};
use super::file::{self, File, Kind, Text};
use super::{Links, Machine, PcapLink, TapLink, af_xdp, derived_mac, dpdk};
use core::net::IpAddr;
use ipnet::IpNet;
use rvs_plane::network::{Host, Interface, InterfaceId, Network, Route, StaticNeighbor};
use rvs_wire::mac::MacAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Links at most: each costs every worker a queue and a burst.
pub const LINKS_MAX: usize = 64;
/// The shortest packet that every IPv4 link carries: RFC 791 section 3.2.
pub(super) const MTU_MIN: i64 = 68;
/// The shortest MTU of an IPv6 link: RFC 8200 section 5.
const MTU_MIN_V6: u16 = 1280;
/// What a frame of 65 535 octets leaves for the packet; the kernel's limit for TAP devices.
pub(super) const MTU_MAX: i64 = 65_521;
/// Ethernet's.
pub(super) const MTU_DEFAULT: u16 = 1500;
/// Octets of a device's name: Linux `IFNAMSIZ` less the NUL.
const NAME_MAX: usize = 15;

const A_NAME: &str = "1 to 15 letters, digits, '.', '_' or '-', no '.' first";
const AN_ADDRESS: &str = "an IP address like 192.0.2.1 or 2001:db8::1";
const AN_INTERFACE_ADDRESS: &str = "an address with its network's prefix length like \
                                    192.0.2.1/24 or 2001:db8::1/64";
const A_NETWORK: &str = "a network like 192.0.2.0/24 or 2001:db8::/64";
const A_MAC: &str = "six octets like \"02:00:00:00:00:01\"";

/// The interfaces as they are found, and what may be there only once.
struct Gathering<'t> {
    text: &'t str,
    interfaces: Vec<Interface>,
    names: Unique<'t, String>,
    addresses: Unique<'t, IpAddr>,
    /// Connected networks and static routes, each with its interface: connecting one network
    /// twice at one interface is how it gets two addresses.
    networks: Vec<(IpNet, InterfaceId)>,
}

pub(super) fn links_and_network(
    file: &File,
    text: &str,
    folder: &Path,
    machine: &Machine,
) -> Result<(Links, Network), Flaw> {
    let links = devices(file, text, folder, machine)?;
    let mut found = Gathering {
        text,
        interfaces: Vec::new(),
        names: Unique::new(text),
        addresses: Unique::new(text),
        networks: Vec::new(),
    };
    let mut macs = Unique::new(text);
    for (link, index) in file.link.iter().zip(0u8..) {
        found.link(link.get_ref(), index, &mut macs, machine)?;
    }
    let routes = found.routes(file)?;
    let neighbors = found.neighbors(file)?;
    let local = found.local(file)?;
    let forwarding = file.forwarding.unwrap_or(true);
    let network = Network::new(found.interfaces, routes, local, neighbors, forwarding);
    let network = network.with_hosts(hosts(&links));
    Ok((links, network.announcing(file.announce.unwrap_or(true))))
}

/// What the links are made of.
fn devices(file: &File, text: &str, folder: &Path, machine: &Machine) -> Result<Links, Flaw> {
    let Some(first) = file.link.first() else {
        return Err(Flaw::nowhere("no link, expected at least one [[link]]".to_owned()));
    };
    if let Some(beyond) = file.link.get(LINKS_MAX) {
        return Err(Flaw::at(beyond, format!("too many links, expected 1 to {LINKS_MAX}")));
    }
    let kind = first.get_ref().kind.get_ref();
    if let Some(other) = file.link.iter().find(|link| link.get_ref().kind.get_ref() != kind) {
        let (name, first) = (other.get_ref().name.get_ref(), first.get_ref().name.get_ref());
        let word = match kind {
            Kind::Tap => "tap",
            Kind::Pcap => "pcap",
            Kind::Dpdk => "dpdk",
            Kind::AfXdp => "af_xdp",
        };
        let message = format!(
            "link {name:?} is of another kind than link {first:?}, expected \"{word}\": all links \
             of a director are of one kind"
        );
        return Err(Flaw::at(&other.get_ref().kind, message));
    }
    let links = file.link.iter().map(Spanned::get_ref);
    match kind {
        Kind::Tap => {
            let mut devices = Unique::new(text);
            links.map(|link| tap(link, &mut devices)).collect::<Result<_, _>>().map(Links::Tap)
        }
        Kind::Pcap => {
            let mut files = Unique::new(text);
            let links = links.map(|link| pcap(link, folder, &mut files));
            links.collect::<Result<_, _>>().map(Links::Pcap)
        }
        Kind::Dpdk => {
            let mut devices = Unique::new(text);
            let links = links.map(|link| dpdk::link(link, &mut devices));
            links.collect::<Result<_, _>>().map(Links::Dpdk)
        }
        Kind::AfXdp => {
            let mut devices = Unique::new(text);
            let links = links.map(|link| af_xdp::link(link, machine, &mut devices));
            links.collect::<Result<_, _>>().map(Links::AfXdp)
        }
    }
}

/// Refuses a key that the link's kind has no use for.
pub(super) fn foreign<T>(kind: &str, key: &str, value: Option<&Spanned<T>>) -> Result<(), Flaw> {
    match value {
        None => Ok(()),
        Some(value) => {
            let article = if kind.starts_with('a') { "an" } else { "a" };
            let message =
                format!("{article} {kind} link has no `{key}`, expected it to be left out");
            Err(Flaw::at(value, message))
        }
    }
}

fn tap(link: &file::Link, devices: &mut Unique<'_, String>) -> Result<TapLink, Flaw> {
    foreign("tap", "read", link.read.as_ref())?;
    foreign("tap", "write", link.write.as_ref())?;
    dpdk::foreign("tap", link)?;
    af_xdp::foreign("tap", link)?;
    if let Some(host) = &link.host {
        let message = "a tap link has no `host`, expected it to be left out: the host is at the \
                       device's other end";
        return Err(Flaw::at(host, message.to_owned()));
    }
    let mtu = link.mtu.as_ref();
    let mtu = mtu.map(|mtu| number("mtu", mtu, &(MTU_MIN..=MTU_MAX))).transpose()?;
    Ok(TapLink { device: own_device(link, devices)?, mtu })
}

/// The kernel's device of a link: the one it names, or else the one of its name.
pub(super) fn own_device(
    link: &file::Link,
    devices: &mut Unique<'_, String>,
) -> Result<String, Flaw> {
    if let Some(device) = &link.device {
        check_name("device", device)?;
    }
    let device = link.device.as_ref().unwrap_or(&link.name);
    devices.take(device.get_ref().clone(), device, format_args!("device {}", device.get_ref()))?;
    Ok(device.get_ref().clone())
}

/// The device that the host's own stack gets of a link.
pub(super) fn host_device(
    link: &file::Link,
    devices: &mut Unique<'_, String>,
) -> Result<Option<String>, Flaw> {
    let Some(host) = &link.host else { return Ok(None) };
    check_name("host", host)?;
    devices.take(host.get_ref().clone(), host, format_args!("device {}", host.get_ref()))?;
    Ok(Some(host.get_ref().clone()))
}

/// Links to the host's own stack come after all others.
fn hosts(links: &Links) -> Vec<Host> {
    let Links::Dpdk(links) = links else { return Vec::new() };
    let shared = links.iter().zip(0..).filter(|(link, _)| link.host.is_some());
    let first = u8::try_from(links.len()).unwrap_or(u8::MAX);
    shared.zip(first..).map(|((_, link), end)| Host { link, end }).collect()
}

fn pcap(
    link: &file::Link,
    folder: &Path,
    files: &mut Unique<'_, PathBuf>,
) -> Result<PcapLink, Flaw> {
    foreign("pcap", "device", link.device.as_ref())?;
    foreign("pcap", "host", link.host.as_ref())?;
    dpdk::foreign("pcap", link)?;
    af_xdp::foreign("pcap", link)?;
    if link.read.is_none() && link.write.is_none() {
        let message = format!("link {:?} has neither `read` nor `write`", link.name.get_ref());
        return Err(Flaw::at(&link.name, format!("{message}, expected one of them or both")));
    }
    if link.mac.is_none() {
        let message = format!("link {:?} has no `mac`, expected {A_MAC}", link.name.get_ref());
        return Err(Flaw::at(&link.name, message));
    }
    let mut capture = |path: &Option<Text>| {
        let Some(path) = path else { return Ok(None) };
        let file = folder.join(path.get_ref());
        files.take(file.clone(), path, format_args!("capture {:?}", path.get_ref()))?;
        Ok(Some(file))
    };
    Ok(PcapLink { read: capture(&link.read)?, write: capture(&link.write)? })
}

fn check_name(key: &str, name: &Text) -> Result<(), Flaw> {
    let text = name.get_ref();
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    if (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('.')
    {
        return Ok(());
    }
    Err(Flaw::at(name, format!("{key} is {text:?}, expected {A_NAME}")))
}

pub(super) fn host_mac(value: &Text) -> Result<MacAddr, Flaw> {
    let mac: MacAddr = parsed("mac", value, A_MAC)?;
    if mac.is_multicast() || mac == MacAddr::UNSPECIFIED {
        let message = format!("mac is {mac}, expected the address of one host: an even first");
        return Err(Flaw::at(value, format!("{message} octet, not all zero")));
    }
    Ok(mac)
}

/// An address that a host can have.
fn check_host(key: &str, address: IpAddr, value: &Text) -> Result<(), Flaw> {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        let message = format!("{key} is {address}, expected the address of one host");
        return Err(Flaw::at(value, message));
    }
    Ok(())
}

/// A network without host bits.
pub(super) fn network(key: &str, value: &Text) -> Result<IpNet, Flaw> {
    let net: IpNet = parsed(key, value, A_NETWORK)?;
    if net.trunc() != net {
        let message = format!("{key} is {net}, expected its network {}", net.trunc());
        return Err(Flaw::at(value, message));
    }
    Ok(net)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Gathering<'_> {
    fn link(
        &mut self,
        link: &file::Link,
        index: u8,
        macs: &mut Unique<'_, MacAddr>,
        machine: &Machine,
    ) -> Result<(), Flaw> {
        check_name("name", &link.name)?;
        let name = link.name.get_ref();
        let mac = match &link.mac {
            Some(mac) => host_mac(mac)?,
            None => derived_mac(&machine.name, name),
        };
        macs.take(mac, link.mac.as_ref().unwrap_or(&link.name), format_args!("mac {mac}"))?;
        let mtu = match &link.mtu {
            Some(mtu) => number("mtu", mtu, &(MTU_MIN..=MTU_MAX))?,
            None => MTU_DEFAULT,
        };
        let base =
            Interface { name: name.clone(), link: index, vlan: 0, mac, mtu, addresses: vec![] };
        self.interface(&link.name, link.mtu.as_ref(), &link.addresses, base.clone())?;
        let mut ids = Unique::new(self.text);
        for vlan in &link.vlan {
            let id = number("id", &vlan.id, &(1..=4094))?;
            ids.take(id, &vlan.id, format_args!("VLAN {id} of link {name:?}"))?;
            let mtu = match &vlan.mtu {
                Some(mtu) => number("mtu", mtu, &(MTU_MIN..=base.mtu.into()))?,
                None => base.mtu,
            };
            let place = match &vlan.name {
                Some(name) => {
                    check_name("name", name)?;
                    name.clone()
                }
                None => Spanned::new(vlan.id.span(), format!("{name}.{id}")),
            };
            let name = place.get_ref().clone();
            let interface = Interface { name, vlan: id, mtu, ..base.clone() };
            self.interface(&place, vlan.mtu.as_ref(), &vlan.addresses, interface)?;
        }
        Ok(())
    }

    /// Takes in an interface and its addresses.
    fn interface(
        &mut self,
        name: &Text,
        mtu_written: Option<&Spanned<file::Whole>>,
        addresses: &[Text],
        mut interface: Interface,
    ) -> Result<(), Flaw> {
        self.names.take(name.get_ref().clone(), name, format_args!("link {:?}", name.get_ref()))?;
        let id = u16::try_from(self.interfaces.len())
            .map_err(|_| Flaw::at(name, "too many links and VLANs, expected 1 to 65536".into()))?;
        let id = InterfaceId(id);
        for value in addresses {
            let address: IpNet = parsed("address", value, AN_INTERFACE_ADDRESS)?;
            check_host("address", address.addr(), value)?;
            if let IpNet::V4(net) = address
                && net.prefix_len() < 31
                && (net.addr() == net.network() || net.addr() == net.broadcast())
            {
                let message = format!("address is {net}, expected the address of one host, not");
                return Err(Flaw::at(value, format!("{message} the network's first or last")));
            }
            if address.addr().is_ipv6() && interface.mtu < MTU_MIN_V6 {
                let (mtu, text) = (interface.mtu, &interface.name);
                let message = format!(
                    "mtu of {text:?} is {mtu}, expected {MTU_MIN_V6} to {MTU_MAX} because it has \
                     IPv6 addresses"
                );
                return Err(match mtu_written {
                    Some(mtu) => Flaw::at(mtu, message),
                    None => Flaw::at(value, message),
                });
            }
            self.addresses.take(
                address.addr(),
                value,
                format_args!("address {}", address.addr()),
            )?;
            let connected = address.trunc();
            let elsewhere = self.networks.iter().find(|(net, at)| *net == connected && *at != id);
            if let Some((_, at)) = elsewhere
                && !is_link_local(address.addr())
            {
                let other = self.name(*at);
                let message = format!(
                    "network {connected} is connected to link {other:?} already, expected one \
                     link per network"
                );
                return Err(Flaw::at(value, message));
            }
            self.networks.push((connected, id));
            interface.addresses.push(address);
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn name(&self, id: InterfaceId) -> &str {
        self.interfaces.get(usize::from(id.0)).map_or("", |interface| &interface.name)
    }

    /// The interface that `link` of a route or neighbour names.
    fn named(&self, link: &Text) -> Result<InterfaceId, Flaw> {
        let mut all = self.interfaces.iter().zip(0u16..);
        if let Some((_, number)) = all.find(|(interface, _)| interface.name == *link.get_ref()) {
            return Ok(InterfaceId(number));
        }
        let known: Vec<_> = self.interfaces.iter().map(|it| it.name.as_str()).collect();
        let (found, known) = (link.get_ref(), known.join(", "));
        Err(Flaw::at(link, format!("link is {found:?}, expected one of {known}")))
    }

    /// The interface whose connected network has `via` in it: the narrowest one.
    fn connected_to(&self, via: IpAddr, value: &Text) -> Result<InterfaceId, Flaw> {
        let around = self.networks.iter().filter(|(net, _)| net.contains(&via));
        if let Some((_, id)) = around.max_by_key(|(net, _)| net.prefix_len()) {
            return Ok(*id);
        }
        let known: Vec<_> = self.networks.iter().map(|(net, _)| net.to_string()).collect();
        let known = known.join(", ");
        let message = format!(
            "via is {via}, expected an address in a connected network ({known}) or a `link`"
        );
        Err(Flaw::at(value, message))
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        let mut all = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        all.any(|own| own.addr() == address)
    }

    fn routes(&self, file: &File) -> Result<Vec<Route>, Flaw> {
        let mut unique = Unique::new(self.text);
        file.route
            .iter()
            .map(|whole| {
                let route = whole.get_ref();
                let to = network("to", &route.to)?;
                unique.take(to, &route.to, format_args!("route to {to}"))?;
                if let Some((_, at)) = self.networks.iter().find(|(net, _)| *net == to) {
                    let message = format!("route to {to} is there already: link");
                    let message = format!("{message} {:?} is connected to it", self.name(*at));
                    return Err(Flaw::at(&route.to, message));
                }
                let link = route.link.as_ref().map(|link| self.named(link)).transpose()?;
                let Some(value) = &route.via else {
                    let interface = link.ok_or_else(|| {
                        let message = format!("route to {to} has neither `via` nor `link`");
                        Flaw::at(&route.to, format!("{message}, expected one of them or both"))
                    })?;
                    return Ok(Route { to, interface, via: None });
                };
                let via: IpAddr = parsed("via", value, AN_ADDRESS)?;
                check_host("via", via, value)?;
                if via.is_ipv4() != to.addr().is_ipv4() {
                    let family = if via.is_ipv4() { "IPv6" } else { "IPv4" };
                    let message = format!("via is {via}, expected an {family} address like {to}");
                    return Err(Flaw::at(value, message));
                }
                if self.is_ours(via) {
                    let message = format!("via is {via}, expected another router: this is our own");
                    return Err(Flaw::at(value, message));
                }
                let interface = match link {
                    Some(link) => link,
                    None => self.connected_to(via, value)?,
                };
                Ok(Route { to, interface, via: Some(via) })
            })
            .collect()
    }

    fn neighbors(&self, file: &File) -> Result<Vec<StaticNeighbor>, Flaw> {
        let mut unique = Unique::new(self.text);
        file.neighbor
            .iter()
            .map(|neighbor| {
                let interface = self.named(&neighbor.link)?;
                let address: IpAddr = parsed("address", &neighbor.address, AN_ADDRESS)?;
                check_host("address", address, &neighbor.address)?;
                if self.is_ours(address) {
                    let message = format!("address is {address}, expected another host's");
                    return Err(Flaw::at(&neighbor.address, message));
                }
                let what = format!("neighbor {address} of link {:?}", self.name(interface));
                unique.take((interface, address), &neighbor.address, what)?;
                Ok(StaticNeighbor { interface, address, mac: host_mac(&neighbor.mac)? })
            })
            .collect()
    }

    fn local(&self, file: &File) -> Result<Vec<IpNet>, Flaw> {
        let mut unique = Unique::new(self.text);
        file.local
            .iter()
            .map(|value| {
                let local = network("local", value)?;
                unique.take(local, value, format_args!("local {local}"))?;
                // Its hosts would be taken for ourselves: the director would answer for them.
                if let Some((net, at)) = self.networks.iter().find(|(net, _)| local.contains(net)) {
                    let name = self.name(*at);
                    let message = format!(
                        "local is {local}, expected a network that leaves out {net} of link {name:?}"
                    );
                    return Err(Flaw::at(value, message));
                }
                Ok(local)
            })
            .collect()
    }
}
