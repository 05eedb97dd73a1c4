//! A topology made of network namespaces.
//!
//! ```text
//!  a network of director and one host       every other network
//!
//!  director ── TAP ═══ eth0 host            director ── TAP ═══ tap-N ┐
//!              (the TAP's kernel end)                         br-N    ├ namespace "switch"
//!                                           host eth0 ── veth ═══════ ┘
//! ```
//!
//! rvsd opens its TAPs in the director's namespace; then [`Netns::connect`] moves their kernel ends
//! to where the cables go. Nothing else is in the director's namespace: its kernel forwards nothing.
//!
//! With AF_XDP, or DPDK's `net_af_packet`, each TAP is a veth instead, which is there before rvsd is.
//!
//! A host's kernel leaves checksums and segmentation to the device. A TAP without `vnet_hdr` offers
//! neither, so what rvsd reads is whole: each frame at most the MTU, each checksum complete.
//! A veth offers both until rvsd comes; then checksums only, and rvsd finishes those.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};

use crate::director::Driver;
use crate::process::{run, run_with_input};
use crate::topology::{Host, Interface, Topology};

/// Where rvsd runs.
pub const DIRECTOR: &str = "director";

/// Where the bridges are.
pub const SWITCH: &str = "switch";

/// Kernel parameters of every host, for all interfaces that it has or gets.
const EVERYWHERE: [(&str, u8); 2] = [
    // Replies may come by another way than requests, whatever this machine makes of that.
    ("net/ipv4/conf/*/rp_filter", 0),
    // Else IPv6 addresses, also those that neighbours are asked from, take seconds to be usable.
    ("net/ipv6/conf/*/accept_dad", 0),
];

/// The namespaces of one topology. Dropped, they are deleted.
#[derive(Debug)]
pub struct Netns<'t> {
    topology: &'t Topology,
    driver: Driver,
    names: Vec<String>,
}

/// The name of the TAP for the director's end of `network`.
#[must_use]
pub fn tap_name(network: &str) -> String {
    format!("tap-{network}")
}

/// The names of the TAPs of `network`'s program: towards hosts, towards the director.
#[must_use]
pub fn wire_names(network: &str) -> [String; 2] {
    [format!("wh-{network}"), format!("wd-{network}")]
}

impl<'t> Netns<'t> {
    /// Makes the hosts and the cables between them, but for the director's.
    ///
    /// # Errors
    ///
    /// Whatever `ip` complains about.
    pub fn build(topology: &'t Topology, driver: Driver) -> Result<Self> {
        let mut netns = Self { topology, driver, names: Vec::new() };
        for name in [DIRECTOR, SWITCH] {
            netns.add(name, &BTreeMap::new())?;
        }
        for host in &topology.hosts {
            netns.add(&host.name, &host.sysctls)?;
        }
        ip(SWITCH, &netns.switch_script()?)?;
        if driver.is_on_veth() {
            ip(DIRECTOR, &netns.veth_script()?)?;
        }
        Ok(netns)
    }

    /// Plugs in the director's TAPs, which rvsd holds open, then gives every host its addresses
    /// and routes.
    ///
    /// # Errors
    ///
    /// Whatever `ip` complains about.
    pub fn connect(&self) -> Result<()> {
        self.plug_in()?;
        self.topology.hosts.iter().try_for_each(|host| ip(&host.name, &host_script(host)?))
    }

    /// Plugs in the director's TAPs.
    ///
    /// # Errors
    ///
    /// Whatever `ip` complains about.
    pub fn plug_in(&self) -> Result<()> {
        let mut moves = String::new();
        let mut switch = String::new();
        for interface in &self.topology.director.interfaces {
            let network = interface.network.as_str();
            let tap = tap_name(network);
            // The kernel's end of the cable is another station than rvsd's. DPDK gives both rvsd's
            // address, and a bridge keeps frames to its ports' own.
            let kernels = far_mac(&interface.mac);
            let is_veth = self.driver.is_on_veth();
            if !is_veth {
                writeln!(moves, "link set {tap} address {kernels}")?;
            }
            match self.wired_to(network) {
                Some(_) if is_veth => {}
                Some((host, index)) => {
                    writeln!(moves, "link set {tap} netns {} name eth{index}", host.name)?;
                }
                None => {
                    if !is_veth {
                        writeln!(moves, "link set {tap} netns {SWITCH}")?;
                    }
                    let bridge = self.bridge_of_director(network);
                    writeln!(switch, "link set {tap} master {bridge} up")?;
                }
            }
        }
        ip(DIRECTOR, &moves)?;
        ip(SWITCH, &switch)
    }

    /// Where the kernel's end of the director's TAP is, once connected: namespace and device.
    #[must_use]
    pub fn far_end(&self, network: &str) -> (String, String) {
        match self.wired_to(network) {
            Some((host, index)) => (host.name.clone(), format!("eth{index}")),
            None => (SWITCH.to_owned(), tap_name(network)),
        }
    }

    fn add(&mut self, name: &str, sysctls: &BTreeMap<String, String>) -> Result<()> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        self.names.push(name.to_owned());
        let mut script = String::from("set -e\n");
        for (key, value) in EVERYWHERE {
            for scope in ["all", "default"] {
                writeln!(script, "echo {value} > /proc/sys/{}", key.replace('*', scope))?;
            }
        }
        for (key, value) in sysctls {
            writeln!(script, "echo {value} > /proc/sys/{}", key.replace('.', "/"))?;
        }
        run(Command::new("ip").args(["netns", "exec", name, "sh", "-c", &script]))
            .with_context(|| format!("kernel parameters of {name}"))?;
        Ok(())
    }

    /// The host interface at the other end of the director's TAP, if the two are alone.
    fn wired_to(&self, network: &str) -> Option<(&'t Host, usize)> {
        let is_directors = self.topology.director.interfaces.iter().any(|i| i.network == network);
        let cable = self.topology.cable(network);
        if !is_directors
            || cable.apart
            || cable.does_something()
            || self.topology.ends(network) != 2
        {
            return None;
        }
        self.topology.hosts.iter().find_map(|host| {
            let index = host.interfaces.iter().position(|i| i.network == network)?;
            Some((host, index))
        })
    }

    /// Where the director's end of a cable goes when it is not wired to a host.
    fn bridge_of_director(&self, network: &str) -> String {
        let is_program = self.topology.cable(network).does_something();
        if is_program { format!("brd-{network}") } else { format!("br-{network}") }
    }

    /// Plugs in the ends of `network`'s program, which holds them open.
    ///
    /// # Errors
    ///
    /// Whatever `ip` complains about.
    pub fn plug_in_wire(&self, network: &str) -> Result<()> {
        let [hosts, director] = wire_names(network);
        let mut script = format!("link set {hosts} master br-{network} up\n");
        let bridge = self.bridge_of_director(network);
        writeln!(script, "link set {director} master {bridge} up")?;
        ip(SWITCH, &script)
    }

    /// The director's ends of its cables, where they are veths.
    fn veth_script(&self) -> Result<String> {
        let mut script = String::new();
        for network in self.topology.director.interfaces.iter().map(|i| i.network.as_str()) {
            let (near, (at, far)) = (tap_name(network), self.far_end(network));
            writeln!(script, "link add {near} type veth peer name {far} netns {at}")?;
            writeln!(script, "link set {near} up")?;
        }
        Ok(script)
    }

    /// Bridges, and a veth from each to its hosts.
    fn switch_script(&self) -> Result<String> {
        let mut script = String::new();
        for network in self.topology.networks() {
            if self.wired_to(network).is_some() {
                continue;
            }
            // Snooping would hold back neighbour solicitations until a querier is seen.
            writeln!(script, "link add br-{network} type bridge mcast_snooping 0")?;
            writeln!(script, "link set br-{network} up")?;
            if self.topology.cable(network).does_something() {
                let bridge = self.bridge_of_director(network);
                writeln!(script, "link add {bridge} type bridge mcast_snooping 0")?;
                writeln!(script, "link set {bridge} up")?;
            }
        }
        for host in &self.topology.hosts {
            for (index, Interface { network, .. }) in host.interfaces.iter().enumerate() {
                if self.wired_to(network).is_some() {
                    continue;
                }
                let port = format!("{}-{index}", host.name);
                let name = &host.name;
                let mtu = self.topology.cable(network).mtu;
                writeln!(
                    script,
                    "link add {port} mtu {mtu} type veth peer name eth{index} mtu {mtu} netns {name}"
                )?;
                writeln!(script, "link set {port} master br-{network} up")?;
            }
        }
        Ok(script)
    }
}

impl Drop for Netns<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            // What cannot be deleted now goes with the lab's mount namespace.
            let _ = run(Command::new("ip").args(["netns", "del", name]));
        }
    }
}

/// The address of a TAP's kernel end: rvsd's with another bit in its first octet.
fn far_mac(mac: &str) -> String {
    let (first, rest) = mac.split_once(':').unwrap_or((mac, ""));
    let first = u8::from_str_radix(first, 16).unwrap_or_default();
    format!("{:02x}:{rest}", first ^ 4)
}

/// Interfaces up, with addresses; then routes.
fn host_script(host: &Host) -> Result<String> {
    let mut script = String::from("link set lo up\n");
    for address in &host.loopback {
        writeln!(script, "addr add {address} dev lo")?;
    }
    for (index, interface) in host.interfaces.iter().enumerate() {
        writeln!(script, "link set eth{index} up")?;
        for address in &interface.addresses {
            writeln!(script, "addr add {address} dev eth{index}")?;
        }
    }
    for route in &host.routes {
        writeln!(script, "route add {} via {}", route.to, route.via)?;
    }
    Ok(script)
}

/// Runs `script`, one `ip` command a line, in namespace `name`.
pub(crate) fn ip(name: &str, script: &str) -> Result<()> {
    run_with_input(Command::new("ip").args(["-n", name, "-batch", "-"]), script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netns(topology: &Topology) -> Netns<'_> {
        Netns { topology, driver: Driver::Tap, names: Vec::new() }
    }

    #[test]
    fn a_network_of_director_and_one_host_is_a_wire_and_any_other_a_bridge() {
        let nat = Topology::load("nat").unwrap();
        let (host, index) = netns(&nat).wired_to("client").unwrap();
        assert_eq!((host.name.as_str(), index), ("client", 0));
        assert!(netns(&nat).wired_to("servers").is_none());
        let script = netns(&nat).switch_script().unwrap();
        assert!(script.contains("link add br-servers") && !script.contains("br-client"));
        assert!(
            script.contains("link add rs1-0 mtu 1500 type veth peer name eth0 mtu 1500 netns rs1")
        );
    }

    #[test]
    fn the_kernels_end_of_a_cable_is_another_station() {
        assert_eq!(far_mac("02:00:00:00:00:01"), "06:00:00:00:00:01");
    }

    #[test]
    fn device_names_fit_the_kernels_fifteen_octets() {
        for (name, _) in crate::topology::BUILT_IN {
            for network in Topology::load(name).unwrap().networks() {
                assert!(tap_name(network).len() <= 15 && format!("br-{network}").len() <= 15);
            }
        }
    }

    #[test]
    fn a_host_has_its_addresses_before_the_routes_that_need_them() {
        let tun = Topology::load("tun").unwrap();
        let script = host_script(tun.host("rs1").unwrap()).unwrap();
        let place = |line| script.find(line).unwrap_or_else(|| panic!("{line} in {script}"));
        assert!(place("addr add 172.16.30.1/32 dev lo\n") > place("link set lo up\n"));
        assert!(place("addr add fd00:1::11/64 dev eth0\n") > place("link set eth0 up\n"));
        assert!(place("route add ::/0 via fd00:1::254\n") > place("addr add fd00:1::11/64"));
    }
}
