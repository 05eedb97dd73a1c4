//! rvsd in the middle, and rvsadm to tell it what to do.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::Setup;
use crate::netns::{DIRECTOR, tap_name};
use crate::process::{Daemon, Limits, command, run};
use crate::topology::Topology;

/// How rvsd gets at its links.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Driver {
    /// By itself, through TAP devices.
    #[default]
    Tap,
    /// By DPDK's `net_tap`; takes an rvsd that was built with its feature `dpdk`.
    Dpdk,
    /// By AF_XDP, at one end of a veth each.
    #[value(name = "af_xdp")]
    AfXdp,
    /// By DPDK's `net_af_packet`, at one end of a veth each; the host has the rest by TAP devices.
    #[value(name = "af_packet")]
    AfPacket,
}

impl Driver {
    /// Whether the director's links are veths that are there before rvsd is.
    #[must_use]
    pub const fn is_on_veth(self) -> bool {
        matches!(self, Self::AfXdp | Self::AfPacket)
    }

    /// The device by which the director's host uses the link to `network`, if it can.
    #[must_use]
    pub fn host_device(self, network: &str) -> Option<String> {
        match self {
            Self::AfXdp => Some(tap_name(network)),
            Self::AfPacket => Some(format!("rvs-{network}")),
            Self::Tap | Self::Dpdk => None,
        }
    }
}

/// A running rvsd.
#[derive(Debug)]
pub struct Director {
    daemon: Daemon,
    rvsadm: PathBuf,
    socket: PathBuf,
}

impl Director {
    /// Starts rvsd in the director's namespace; returns when its links are open.
    ///
    /// # Errors
    ///
    /// `rvsd check` refuses the configuration, or rvsd does not get ready.
    pub fn start(topology: &Topology, setup: &Setup, dir: &Path, limits: &Limits) -> Result<Self> {
        let socket = dir.join("rvsd.sock");
        let file = dir.join("rvsd.toml");
        let control = format!("socket = \"{}\"\nstate = \"state\"", socket.display());
        let mut text = configuration(topology, &control, setup.driver)?;
        if setup.inspect && setup.driver == Driver::Tap {
            // What goes onto a cable is to be looked at, not what kernels leave to each other (ADR 0022).
            text.push_str("\n[workers]\noffload = false\n");
        }
        fs::write(&file, text)?;
        let rvsd = setup.bin.join("rvsd");
        run(command(None, &rvsd).arg("check").arg(&file))?;
        let mut run = command(Some(DIRECTOR), &rvsd);
        run.arg("run").arg(&file).envs(setup.environment.iter().map(|(key, value)| (key, value)));
        let mut daemon = Daemon::start("rvsd", run, dir)?;
        daemon.wait_for_line("rvsd: ready", limits)?;
        Ok(Self { daemon, rvsadm: setup.bin.join("rvsadm"), socket })
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The netlink socket.
    #[must_use]
    pub fn netlink(&self) -> PathBuf {
        self.socket.with_extension("netlink")
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Kills rvsd, so that it can end nothing in order.
    ///
    /// # Errors
    ///
    /// It had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.signal("KILL")?;
        // Until it is gone its socket answers.
        self.daemon.reap()
    }

    /// Sends it a signal, by name.
    ///
    /// # Errors
    ///
    /// It had ended before.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        self.daemon.signal(name)
    }

    /// Runs rvsadm and returns what it printed.
    ///
    /// # Errors
    ///
    /// It failed: with its words.
    pub fn adm(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(&self.rvsadm).args(arguments).env("RVS_SOCKET", &self.socket))
    }

    /// Ends rvsd and returns the summary that it prints.
    ///
    /// # Errors
    ///
    /// It does not end, not with code 0, or frames are unaccounted for.
    pub fn end(&mut self, limits: &Limits) -> Result<String> {
        let status = self.daemon.terminate(limits).context("rvsd after SIGTERM")?;
        let errors = self.daemon.errors();
        ensure!(status.code() == Some(0), "rvsd: {status}\n{errors}");
        let summary = self.daemon.output();
        balanced(&summary)?;
        complete(&errors)?;
        Ok(summary)
    }
}

/// Whether the summary of an rvsd that ended accounts for every frame.
///
/// # Errors
///
/// It does not, or does not say.
pub fn balanced(summary: &str) -> Result<()> {
    let law = summary.lines().find(|line| line.starts_with("conservation:"));
    let law = law.with_context(|| format!("no conservation law in the summary:\n{summary}"))?;
    ensure!(law.ends_with(": holds"), "rvsd lost count of frames: {law}");
    Ok(())
}

/// Whether an rvsd that ended had all of its frames back, as its log says.
///
/// # Errors
///
/// It had not.
pub fn complete(log: &str) -> Result<()> {
    let leak = log.lines().find(|line| line.contains("frames did not come back"));
    ensure!(leak.is_none(), "{}", leak.unwrap_or_default());
    Ok(())
}

/// rvsd's configuration for the topology's director, whose table `[control]` has the lines `control`.
///
/// # Errors
///
/// None; writing to a string does not fail.
pub fn configuration(topology: &Topology, control: &str, driver: Driver) -> Result<String> {
    let mut text = format!("[control]\n{control}\n");
    if matches!(driver, Driver::Dpdk | Driver::AfPacket) {
        // Real clients and servers want the cores as well.
        writeln!(text, "\n[workers]\nidle = \"adaptive\"\n\n[dpdk]\nno_huge = true")?;
    }
    for (interface, number) in topology.director.interfaces.iter().zip(0..) {
        let tap = tap_name(&interface.network);
        let (kind, device) = match driver {
            Driver::Tap => ("tap", tap),
            Driver::AfXdp => ("af_xdp", tap),
            Driver::Dpdk => ("dpdk", format!("net_tap{number},iface={tap}")),
            Driver::AfPacket => ("dpdk", format!("net_af_packet{number},iface={tap}")),
        };
        let addresses: Vec<_> = interface.addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let cable = topology.cable(&interface.network);
        let network = format!("mtu = {}\naddresses = [{}]", cable.mtu, addresses.join(", "));
        let (name, mac) = (&interface.network, &interface.mac);
        let shared = driver == Driver::AfPacket;
        let host = driver.host_device(name).filter(|_| shared);
        let host = host.map(|host| format!("host = \"{host}\"\n")).unwrap_or_default();
        match cable.vlan {
            None => writeln!(
                text,
                "\n[[link]]\nname = \"{name}\"\nkind = \"{kind}\"\ndevice = \"{device}\"\n\
                 mac = \"{mac}\"\n{host}{network}"
            )?,
            Some(id) => writeln!(
                text,
                "\n[[link]]\nname = \"trunk\"\nkind = \"{kind}\"\ndevice = \"{device}\"\n\
                 mac = \"{mac}\"\n{host}mtu = {}\n\n[[link.vlan]]\nid = {id}\nname = \"{name}\"\n{network}",
                cable.mtu
            )?,
        }
    }
    for route in &topology.director.routes {
        writeln!(text, "\n[[route]]\nto = \"{}\"\nvia = \"{}\"", route.to, route.via)?;
    }
    Ok(text)
}

/// A service's or a dest's line of `rvsadm -L --stats`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
}

/// One service in the output of `rvsadm -L --stats`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stats {
    /// Its own line.
    pub service: Line,
    /// Its dests' addresses and lines.
    pub dests: Vec<(IpAddr, Line)>,
}

impl Stats {
    /// Finds `vip` in what `rvsadm -Ln --stats` printed.
    ///
    /// # Errors
    ///
    /// It is not there, or a line is not as ipvsadm prints it.
    pub fn parse(text: &str, vip: SocketAddr) -> Result<Self> {
        let mut lines = text.lines().skip_while(|line| !names(line, "TCP", vip));
        let service = lines.next().with_context(|| format!("no line for {vip}"))?;
        let dests = lines.take_while(|line| line.trim_start().starts_with("->"));
        let dests = dests.map(|line| {
            let address = line.split_whitespace().nth(1).context("a dest without address")?;
            let address: SocketAddr = address.parse().with_context(|| line.to_owned())?;
            Ok((address.ip(), figures(line)?))
        });
        Ok(Self { service: figures(service)?, dests: dests.collect::<Result<_>>()? })
    }
}

fn names(line: &str, protocol: &str, vip: SocketAddr) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some(protocol) && words.next().and_then(|w| w.parse().ok()) == Some(vip)
}

/// The first three columns of figures.
fn figures(line: &str) -> Result<Line> {
    let mut columns = line.split_whitespace().skip(2).map(str::parse);
    let mut next = || columns.next().context("a column is missing")?.map_err(anyhow::Error::from);
    let mut read = || {
        Ok::<_, anyhow::Error>(Line { conns: next()?, in_packets: next()?, out_packets: next()? })
    };
    read().with_context(|| format!("not a line of statistics: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // As ipvsadm 1.31 prints it.
    const STATS: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  203.0.113.1:80                      3       18       15     1200     2400
  -> 192.0.2.12:8080                     1        6        5      400      800
  -> 192.0.2.11:8080                     2       12       10      800     1600
TCP  [2001:db8::1]:80                    0        0        0        0        0
";

    #[test]
    fn stats_are_those_of_the_service_asked_for() {
        let stats = Stats::parse(STATS, "203.0.113.1:80".parse().unwrap()).unwrap();
        assert_eq!(stats.service, Line { conns: 3, in_packets: 18, out_packets: 15 });
        let conns: Vec<_> = stats.dests.iter().map(|(_, line)| line.conns).collect();
        assert_eq!(conns, [1, 2]);
        let other = Stats::parse(STATS, "[2001:db8::1]:80".parse().unwrap()).unwrap();
        assert!(other.dests.is_empty());
    }

    #[test]
    fn a_missing_service_is_an_error() {
        let error = Stats::parse(STATS, "203.0.113.1:81".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "no line for 203.0.113.1:81");
    }

    #[test]
    fn a_link_of_the_configuration_is_named_after_its_network() {
        let topology = Topology::load("nat").unwrap();
        let text = configuration(&topology, "socket = \"rvsd.sock\"", Driver::Tap).unwrap();
        let value: toml::Table = text.parse().unwrap();
        let links = value["link"].as_array().unwrap();
        assert_eq!(links.len(), 2);
        assert_eq!(links[1]["device"].as_str(), Some("tap-servers"));
        assert_eq!(links[1]["addresses"][0].as_str(), Some("192.168.1.1/24"));
    }
}
