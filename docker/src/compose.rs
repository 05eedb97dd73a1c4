//! A topology as a compose file, for containers.
//!
//! ```text
//!  docker network "servers"                       container of the director
//!  bridge of the engine ── veth ── ethN ── br-ethN ── TAP ── rvsd
//! ```
//!
//! A network is a bridge that the engine makes. In the director's container rvsd's TAP is bridged
//! with the interface that the engine gave it, and rvsd has that interface's address
//! (`rvs-entry`). The files in `labs/` are written by this module and looked at by people, so they
//! are in the repository; a test says whether they are current, and writes them with `RVS_BLESS=1`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use crate::director::{Driver, configuration};
use crate::netns::tap_name;
use crate::stage::Rules;
use crate::topology::{Cable, Family, Host, Program, Topology};

/// The director's container and service.
pub const DIRECTOR: &str = "director";

/// The files of one lab.
#[derive(Clone, Debug)]
pub struct Files {
    /// `compose.yaml`
    pub compose: String,
    /// `rvsd.toml`
    pub rvsd: String,
    /// `services`, as `rvsadm -R` reads them.
    pub services: String,
}

impl Files {
    /// Of `topology`, written for a folder three below the repository's root, with links of `driver`'s,
    /// which are TAP devices one way or the other.
    ///
    /// # Errors
    ///
    /// A network has no address of a family that the service has, or the driver is another.
    pub fn of(topology: &Topology, driver: Driver) -> Result<Self> {
        ensure!(!driver.is_on_veth(), "in containers links are `tap` or `dpdk`");
        let origin = format!("# Made from docker/topologies/{}.toml by the test", topology.name);
        let origin = format!("{origin} `compose_files_are_current` (RVS_BLESS=1).\n");
        let control = "socket = \"/run/rvs/rvsd.sock\"";
        let rvsd = configuration(topology, control, driver)?;
        let mut services = String::new();
        for address in &topology.service.addresses {
            let rules = Rules::of(topology, SocketAddr::new(*address, topology.service.port))?;
            for line in rules.lines() {
                writeln!(services, "{}", line.join(" "))?;
            }
        }
        Ok(Self {
            compose: origin.clone() + &compose(topology, driver)?,
            rvsd: origin + "\n" + &rvsd,
            services,
        })
    }

    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &str); 3] {
        [("compose.yaml", &self.compose), ("rvsd.toml", &self.rvsd), ("services", &self.services)]
    }
}

/// The name of the container of `host`.
#[must_use]
pub fn container(topology: &Topology, host: &str) -> String {
    format!("rvs-{}-{host}", topology.name)
}

fn compose(topology: &Topology, driver: Driver) -> Result<String> {
    let mut text = format!("# {}\n\nservices:\n", topology.claim);
    let taps = topology.director.interfaces.iter().map(|interface| {
        let address = interface.addresses.first().context("a link without address")?;
        Ok(format!("{}={}", tap_name(&interface.network), address.addr()))
    });
    let taps = taps.collect::<Result<Vec<_>>>()?;
    service(&mut text, topology, DIRECTOR, "rvs")?;
    let caps = if driver == Driver::Dpdk { "\n      RVS_CAPS: net_admin" } else { "" };
    write!(
        text,
        "    devices: [/dev/net/tun]\n    environment:\n      RVS_TAPS: {}{caps}\n    volumes:\n\
         \x20     - ./rvsd.toml:/etc/rvs/rvsd.toml:ro\n      - ./services:/etc/rvs/services:ro\n",
        taps.join(" ")
    )?;
    let interfaces = topology.director.interfaces.iter();
    networks(&mut text, interfaces.map(|i| (i.network.as_str(), i.addresses.as_slice())))?;
    for network in topology.networks_with_program() {
        wire_service(&mut text, topology, network)?;
    }
    for host in &topology.hosts {
        host_service(&mut text, topology, host)?;
    }
    writeln!(text, "networks:")?;
    for network in topology.networks() {
        // Where the machine filters what its bridges carry (br_netfilter), the engine would give
        // clients' packets on the servers' network its own address.
        writeln!(
            text,
            "  {network}:\n    enable_ipv6: true\n    driver_opts:\n      \
             com.docker.network.bridge.enable_ip_masquerade: \"false\""
        )?;
        let mtu = topology.cable(network).mtu;
        if mtu != Cable::default().mtu {
            writeln!(text, "      com.docker.network.driver.mtu: \"{mtu}\"")?;
        }
        writeln!(text, "    ipam:\n      config:")?;
        for family in Family::ALL {
            let subnet = subnet(topology, network, family)?;
            // The engine's own address in it, out of everybody's way.
            let gateway = subnet.hosts().nth(252).context("a network of less than 254 hosts")?;
            writeln!(text, "        - {{subnet: \"{subnet}\", gateway: \"{gateway}\"}}")?;
        }
    }
    Ok(text)
}

/// What all containers have; the caller goes on with it.
fn service(text: &mut String, topology: &Topology, name: &str, target: &str) -> Result<()> {
    let container = container(topology, name);
    writeln!(
        text,
        "  {name}:\n    image: {target}\n    build: {{context: ../../.., dockerfile: docker/Dockerfile, target: {}}}\n    \
         container_name: {container}\n    hostname: {name}\n    init: true\n    cap_add: [NET_ADMIN]",
        target.strip_prefix("rvs-").unwrap_or(target)
    )?;
    Ok(())
}

/// The name of the service that is the program of `network`'s cable.
#[must_use]
pub fn wire(network: &str) -> String {
    format!("wire-{network}")
}

/// The program of a cable, which plugs itself in between the bridge and rvsd's TAP.
fn wire_service(text: &mut String, topology: &Topology, network: &str) -> Result<()> {
    let (wire, lab) = (wire(network), &topology.name);
    let container = container(topology, &wire);
    writeln!(
        text,
        "  {wire}:\n    image: rvs-host\n    container_name: {container}\n    init: true\n    \
         network_mode: service:{DIRECTOR}\n    cap_add: [NET_ADMIN]\n    devices: [/dev/net/tun]\n    \
         command: [wire, {lab}, {network}, --insert]\n    \
         depends_on:\n      {DIRECTOR}: {{condition: service_healthy}}\n"
    )?;
    Ok(())
}

fn host_service(text: &mut String, topology: &Topology, host: &Host) -> Result<()> {
    service(text, topology, &host.name, "rvs-host")?;
    writeln!(text, "    sysctls:")?;
    for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"] {
        writeln!(text, "      {key}: \"0\"")?;
    }
    for (key, value) in &host.sysctls {
        writeln!(text, "      {key}: \"{value}\"")?;
    }
    writeln!(text, "    command:\n      - host\n      - --name={}", host.name)?;
    for address in &host.loopback {
        writeln!(text, "      - --loopback={address}")?;
    }
    for route in &host.routes {
        writeln!(text, "      - --route={},{}", route.to, route.via)?;
    }
    for program in &host.programs {
        match program {
            Program::Web => writeln!(text, "      - --web={}", topology.service.dest_port)?,
            Program::Decap => writeln!(text, "      - --decap")?,
        }
    }
    if host.name == topology.client()?.name {
        for address in &topology.service.addresses {
            let vip = SocketAddr::new(*address, topology.service.port);
            writeln!(text, "      - --ask={vip}")?;
        }
        writeln!(text, "    depends_on:\n      {DIRECTOR}: {{condition: service_healthy}}")?;
    }
    let interfaces = host.interfaces.iter();
    networks(text, interfaces.map(|i| (i.network.as_str(), i.addresses.as_slice())))
}

fn networks<'a>(
    text: &mut String,
    interfaces: impl Iterator<Item = (&'a str, &'a [IpNet])>,
) -> Result<()> {
    writeln!(text, "    networks:")?;
    for (network, addresses) in interfaces {
        let addresses = addresses.iter().map(|address| match address.addr() {
            IpAddr::V4(address) => format!("ipv4_address: {address}"),
            IpAddr::V6(address) => format!("ipv6_address: \"{address}\""),
        });
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        writeln!(text, "      {network}: {{{addresses}}}")?;
    }
    writeln!(text)?;
    Ok(())
}

/// The prefix of `family` that `network` has.
fn subnet(topology: &Topology, network: &str, family: Family) -> Result<IpNet> {
    let hosts = topology.hosts.iter().flat_map(|host| &host.interfaces);
    let hosts = hosts.filter(|i| i.network == network).flat_map(|i| &i.addresses);
    let director = topology.director.interfaces.iter();
    let director = director.filter(|i| i.network == network).flat_map(|i| &i.addresses);
    let mut addresses = director.chain(hosts);
    let found = addresses.find(|address| Family::of(address.addr()) == family);
    let found = found.with_context(|| format!("network {network} has no {}", family.name()))?;
    Ok(found.trunc())
}
