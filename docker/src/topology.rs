//! What a lab looks like: hosts, networks, addresses, programs and the one service.
//!
//! A topology is written once, in `topologies/*.toml`, and knows nothing of how it is built: the
//! driver in [`crate::netns`] makes it from network namespaces, [`crate::compose`] from containers.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;

use crate::director::Driver;

/// The topologies that come with the program, by name.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("nat", include_str!("../topologies/nat.toml")),
    ("dr", include_str!("../topologies/dr.toml")),
    ("tun", include_str!("../topologies/tun.toml")),
];

/// What is made from those by other cables.
const VARIANTS: &str = include_str!("../topologies/variants.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variants {
    variant: Vec<Variant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    like: String,
    claim: String,
    cables: BTreeMap<String, Cable>,
}

/// The names of the built-in topologies' variants.
///
/// # Errors
///
/// None, as a test sees to.
pub fn variants() -> Result<Vec<String>> {
    let Variants { variant } = toml::from_str(VARIANTS)?;
    Ok(variant.into_iter().map(|variant| variant.name).collect())
}

/// One lab.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Short name, as in `rvs-lab run NAME`.
    pub name: String,
    /// What it shows, in one line.
    pub claim: String,
    /// What the director balances.
    pub service: Service,
    /// What the networks' cables are like, where they are not plain.
    #[serde(default)]
    pub cables: BTreeMap<String, Cable>,
    /// Where rvsd runs.
    pub director: Director,
    /// Everybody else.
    #[serde(rename = "host")]
    pub hosts: Vec<Host>,
}

/// The virtual service of a lab, once for each address family.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// How packets get to the real servers.
    pub method: Method,
    /// As in `ipvsadm -s`.
    pub scheduler: String,
    /// The VIPs.
    pub addresses: Vec<IpAddr>,
    /// The VIPs' TCP port.
    pub port: u16,
    /// Names of the hosts that serve.
    pub dests: Vec<String>,
    /// TCP port of the servers' programs.
    pub dest_port: u16,
    /// More options of `ipvsadm -a`, by the dest's name.
    #[serde(default)]
    pub options: BTreeMap<String, Vec<String>>,
}

/// The packet-forwarding method.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Masquerading.
    Nat,
    /// Direct routing.
    Dr,
    /// IP-in-IP tunnelling.
    Tun,
}

impl Method {
    /// The option of `ipvsadm -a`.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Nat => "-m",
            Self::Dr => "-g",
            Self::Tun => "-i",
        }
    }

    /// Whether replies come back through the director.
    #[must_use]
    pub const fn replies_pass_director(self) -> bool {
        matches!(self, Self::Nat)
    }
}

/// The host that rvsd makes out of its links.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Director {
    /// Its links.
    pub interfaces: Vec<DirectorInterface>,
    /// Its static routes.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// A link of the director.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorInterface {
    /// The network that it is on; also the link's name.
    pub network: String,
    /// The director's own Ethernet address there.
    pub mac: String,
    /// The director's own addresses there.
    pub addresses: Vec<IpNet>,
}

/// What carries a network's frames.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cable {
    /// Octets of the longest packet.
    pub mtu: u16,
    /// Has a bridge even where director and one host are alone, so that the host's interface stays
    /// when the director's goes.
    pub apart: bool,
    /// The director's frames have this tag.
    pub vlan: Option<u16>,
    /// Of the chance that the shares below are.
    pub seed: u64,
    /// Share of frames that are gone.
    pub lose: f64,
    /// Share of frames with one bit turned.
    pub corrupt: f64,
    /// Share of frames whose end is missing.
    pub truncate: f64,
    /// Share of frames that come twice.
    pub duplicate: f64,
    /// Share of frames that later ones pass.
    pub reorder: f64,
    /// Share of frames that are held back.
    pub delay: f64,
}

impl Default for Cable {
    fn default() -> Self {
        Self {
            mtu: 1500,
            apart: false,
            vlan: None,
            seed: 0,
            lose: 0.0,
            corrupt: 0.0,
            truncate: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            delay: 0.0,
        }
    }
}

impl Cable {
    /// Whether it takes a program between the director and the hosts.
    #[must_use]
    pub fn does_something(&self) -> bool {
        self.vlan.is_some() || self.is_bad()
    }

    /// Whether frames suffer.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        let shares =
            [self.lose, self.corrupt, self.truncate, self.duplicate, self.reorder, self.delay];
        shares.iter().any(|share| *share > 0.0)
    }
}

/// A host with a kernel's network stack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its interfaces, `eth0` first.
    pub interfaces: Vec<Interface>,
    /// Addresses on `lo`.
    #[serde(default)]
    pub loopback: Vec<IpNet>,
    /// Its static routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Kernel parameters, set before any interface is up.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// What runs there.
    #[serde(default)]
    pub programs: Vec<Program>,
}

/// An interface of a host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// The network that it is on.
    pub network: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// A static route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads.
    pub to: IpNet,
    /// The router.
    pub via: IpAddr,
}

/// A program of a host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// nginx with a page that names the host, on the service's `dest_port`.
    Web,
    /// [`crate::decap`].
    Decap,
}

impl Program {
    /// As the person is told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Web => "nginx",
            Self::Decap => "decap",
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `address`.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `IPv4` or `IPv6`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl Topology {
    /// The topology called `name`: one that comes with the program, or a file.
    ///
    /// # Errors
    ///
    /// It is neither, or [`Topology::parse`] refuses it.
    pub fn load(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(text).with_context(|| format!("topology {name}"));
        }
        let Variants { variant } = toml::from_str(VARIANTS)?;
        if let Some(Variant { name, like, claim, cables }) =
            variant.into_iter().find(|variant| variant.name == name)
        {
            return Ok(Self { name, claim, cables, ..Self::load(&like)? });
        }
        let names = BUILT_IN.map(|(name, _)| name).join(", ");
        let text = fs::read_to_string(name)
            .with_context(|| format!("no topology '{name}': neither one of {names}, nor a file"))?;
        Self::parse(&text).with_context(|| format!("topology {name}"))
    }

    /// Reads and checks a description.
    ///
    /// # Errors
    ///
    /// Not TOML of this shape, or a name, address or family in it that leads nowhere.
    pub fn parse(text: &str) -> Result<Self> {
        let topology: Self = toml::from_str(text)?;
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> Result<()> {
        for (index, host) in self.hosts.iter().enumerate() {
            let earlier = self.hosts.iter().take(index);
            ensure!(!["director", "switch"].contains(&host.name.as_str()), "host {}", host.name);
            ensure!(earlier.into_iter().all(|h| h.name != host.name), "two hosts {}", host.name);
            for interface in &host.interfaces {
                ensure!(
                    self.ends(&interface.network) >= 2,
                    "{} is alone on network {}",
                    host.name,
                    interface.network
                );
            }
        }
        self.client()?;
        for address in &self.service.addresses {
            for dest in &self.service.dests {
                self.address_of(dest, Family::of(*address))?;
            }
        }
        Ok(())
    }

    /// How many interfaces are on `network`, the director's included.
    #[must_use]
    pub fn ends(&self, network: &str) -> usize {
        let hosts = self.hosts.iter().flat_map(|host| &host.interfaces);
        hosts.filter(|interface| interface.network == network).count()
            + self.director.interfaces.iter().filter(|i| i.network == network).count()
    }

    /// The cable of `network`.
    #[must_use]
    pub fn cable(&self, network: &str) -> Cable {
        self.cables.get(network).copied().unwrap_or_default()
    }

    /// Whether no cable is bad.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.cables.values().all(|cable| !cable.is_bad())
    }

    /// Whether containers can be it, with links of `driver`'s: `apart` is about interfaces that an engine
    /// makes by itself.
    #[must_use]
    pub fn fits_containers(&self, driver: Driver) -> bool {
        // DPDK's net_tap takes no longer packets.
        let most = if driver == Driver::Dpdk { Cable::default().mtu } else { u16::MAX };
        self.cables.values().all(|cable| !cable.apart && cable.mtu <= most)
    }

    /// The networks whose cable takes a program.
    pub fn networks_with_program(&self) -> impl Iterator<Item = &str> {
        self.networks().into_iter().filter(|network| self.cable(network).does_something())
    }

    /// The networks, each once, in order of appearance.
    #[must_use]
    pub fn networks(&self) -> Vec<&str> {
        let director = self.director.interfaces.iter().map(|interface| &interface.network);
        let hosts = self.hosts.iter().flat_map(|host| &host.interfaces).map(|i| &i.network);
        let mut networks: Vec<&str> = Vec::new();
        for network in director.chain(hosts) {
            if !networks.contains(&network.as_str()) {
                networks.push(network);
            }
        }
        networks
    }

    /// The host that asks.
    ///
    /// # Errors
    ///
    /// There is none called `client`.
    pub fn client(&self) -> Result<&Host> {
        self.host("client")
    }

    /// The host called `name`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        match self.hosts.iter().find(|host| host.name == name) {
            Some(host) => Ok(host),
            None => bail!("no host '{name}'"),
        }
    }

    /// The first address of `family` that host `name` has on a network.
    ///
    /// # Errors
    ///
    /// No such host, or it has none.
    pub fn address_of(&self, name: &str, family: Family) -> Result<IpAddr> {
        let interfaces = &self.host(name)?.interfaces;
        let mut addresses = interfaces.iter().flat_map(|i| &i.addresses).map(IpNet::addr);
        addresses
            .find(|address| Family::of(*address) == family)
            .with_context(|| format!("host '{name}' has no {} address", family.name()))
    }

    /// The service's address of `family`, if it has one.
    #[must_use]
    pub fn vip(&self, family: Family) -> Option<IpAddr> {
        self.service.addresses.iter().copied().find(|address| Family::of(*address) == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_topology_is_sound_and_has_both_families() {
        for (name, text) in BUILT_IN {
            let topology = Topology::parse(text).unwrap();
            assert_eq!(topology.name, name);
            assert!(Family::ALL.iter().all(|family| topology.vip(*family).is_some()));
        }
    }

    #[test]
    fn every_variant_is_sound() {
        let names = variants().unwrap();
        assert!(names.iter().all(|name| Topology::load(name).unwrap().name == *name), "{names:?}");
        assert_eq!(Topology::load("vlan").unwrap().cable("servers").vlan, Some(100));
    }

    #[test]
    fn only_masquerading_brings_replies_back() {
        for (name, _) in BUILT_IN {
            let topology = Topology::load(name).unwrap();
            assert_eq!(topology.service.method.replies_pass_director(), name == "nat");
        }
    }

    #[test]
    fn a_dest_that_is_no_host_is_refused_by_name() {
        let text = BUILT_IN[0].1.replace(r#"dests = ["rs1", "rs2"]"#, r#"dests = ["rs1", "rs9"]"#);
        assert_eq!(Topology::parse(&text).unwrap_err().to_string(), "no host 'rs9'");
    }

    #[test]
    fn a_network_with_one_end_is_refused() {
        let text = BUILT_IN[0].1.replace(r#"{ network = "client", a"#, r#"{ network = "clint", a"#);
        let error = Topology::parse(&text).unwrap_err().to_string();
        assert_eq!(error, "client is alone on network clint");
    }

    #[test]
    fn an_unknown_topology_is_answered_with_the_known_ones() {
        let error = Topology::load("fullnat").unwrap_err().to_string();
        assert!(error.contains("nat, dr, tun"), "{error}");
    }
}
