//! What the soak's stage has beside the comparison's: a service of every method and family, servers
//! for each, and books of what went through.
//!
//! ```text
//!  VIP             method   replies
//!  10.99.0.1  ::1  NAT      c0 ◄─ rvsd ◄─ r0
//!  10.99.0.2  ::2  DR       c1 ◄───────── r1, chosen by their source, the VIP
//!  10.99.0.3  ::3  TUN      the same; IP in IP, GRE and GUE are unwrapped by `rvs-lab decap`
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rvs_api::Totals;
use rvs_lab::process::{Daemon, Limits, command, run};
use serde_json::Value;

use crate::rvsd::Rvsd;
use crate::stage::{BULK, CLIENT, HTTP, REALS, REALS6, SERVERS, Stage, VIP, VIP6, ip};

/// Where `rvs-lab probe` serves, by TCP and UDP.
pub const PROBE: u16 = 7000;
/// The service whose servers come and go; each has a port of its own.
pub const MORTAL: u16 = 7100;
/// Those servers' ports, and addresses by family.
pub const MORTALS: [(u16, [&str; 2]); 2] =
    [(7101, ["10.20.0.11", "fd20::11"]), (7102, ["10.20.0.12", "fd20::12"])];
/// A UDP port of a service that nobody serves: servers say so by ICMP.
pub const NOBODY: u16 = 7999;

/// A VIP and how its packets get to real servers.
#[derive(Debug)]
pub struct Place {
    /// As it is told.
    pub name: &'static str,
    /// The address.
    pub vip: &'static str,
    /// Each real server, and what rvsadm is told of it.
    pub reals: &'static [(&'static str, &'static [&'static str])],
    /// Whether replies pass rvsd.
    pub both_ways: bool,
}

const NAT: &[&str] = &["-m"];
const DR: &[&str] = &["-g"];
const IPIP: &[&str] = &["-i"];
const GRE: &[&str] = &["-i", "--tun-type", "gre", "--tun-csum"];
const GUE: &[&str] = &["-i", "--tun-type", "gue", "--tun-port", "6080", "--tun-csum"];

/// All of them.
pub const PLACES: [Place; 6] = [
    Place {
        name: "NAT",
        vip: VIP,
        reals: &[(REALS[0], NAT), (REALS[1], NAT), (REALS[2], NAT), (REALS[3], NAT)],
        both_ways: true,
    },
    Place {
        name: "NAT of IPv6",
        vip: VIP6,
        reals: &[(REALS6[0], NAT), (REALS6[1], NAT)],
        both_ways: true,
    },
    Place {
        name: "DR",
        vip: "10.99.0.2",
        reals: &[(REALS[0], DR), (REALS[1], DR)],
        both_ways: false,
    },
    Place {
        name: "DR of IPv6",
        vip: "fd99::2",
        reals: &[(REALS6[0], DR), (REALS6[1], DR)],
        both_ways: false,
    },
    Place {
        name: "TUN",
        vip: "10.99.0.3",
        reals: &[(REALS[0], IPIP), (REALS[1], GRE), (REALS[2], GUE)],
        both_ways: false,
    },
    Place {
        name: "TUN of IPv6",
        vip: "fd99::3",
        reals: &[(REALS6[0], IPIP), (REALS6[1], GRE), (REALS[3], GUE)],
        both_ways: false,
    },
];

impl Place {
    /// Whether its address is one of IPv6.
    pub fn is_v6(&self) -> bool {
        self.vip.contains(':')
    }

    /// Address and port, as everybody writes them.
    pub fn at(&self, port: u16) -> String {
        at(self.vip, port)
    }
}

/// An address and a port.
pub fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// rvsd, its stage, and who serves there.
#[derive(Debug)]
pub struct Estate {
    /// What is soaked.
    pub rvsd: Rvsd,
    stage: Stage,
    bin: PathBuf,
}

impl Estate {
    /// Everybody serves, and rvsd knows of them.
    pub fn open(mut stage: Stage, rvsd: Rvsd, bin: &Path, limits: &Limits) -> Result<Self> {
        connect_more()?;
        for place in &PLACES {
            for (protocol, port) in [("-t", HTTP), ("-t", PROBE), ("-u", PROBE)] {
                announce(&rvsd, place, protocol, port)?;
            }
        }
        for place in PLACES.iter().filter(|place| place.both_ways) {
            announce(&rvsd, place, "-t", BULK)?;
            announce(&rvsd, place, "-u", HTTP)?;
            announce(&rvsd, place, "-u", NOBODY)?;
            rvsd.adm(&["-A", "-t", &place.at(MORTAL), "-s", "rr"])?;
        }
        let mut decap = command(Some(SERVERS), bin.join("rvs-lab"));
        decap.arg("decap");
        let mut decap = Daemon::start("decap", decap, &stage.dir)?;
        decap.wait_for_line("decap: ready", limits)?;
        stage.keep(decap);
        let mut serve = command(Some(SERVERS), bin.join("rvs-lab"));
        serve.args(["probe", "serve", &PROBE.to_string()]);
        let behind = PLACES.iter().filter(|place| !place.both_ways).map(|place| place.vip);
        for address in REALS.into_iter().chain(REALS6).chain(behind) {
            serve.args(["--address", address]);
        }
        let mut serve = Daemon::start("probe", serve, &stage.dir)?;
        serve.wait_for_line("probe: ready", limits)?;
        stage.keep(serve);
        stage.serve(limits)?;
        Ok(Self { rvsd, stage, bin: bin.to_owned() })
    }

    /// Files of the run.
    pub fn dir(&self) -> &Path {
        &self.stage.dir
    }

    /// `program` at the client, ended after two minutes.
    pub fn client(program: impl AsRef<Path>) -> Command {
        let mut client = command(Some(CLIENT), "timeout");
        client.arg("120").arg(program.as_ref());
        client
    }

    /// Our own client: what it said.
    pub fn probe(&self, arguments: &[&str]) -> Result<String> {
        run(Self::client(self.bin.join("rvs-lab")).arg("probe").args(arguments))
    }

    /// A program of `rvs-lab probe` that goes on meanwhile.
    pub fn keeps(&self, host: &str, name: &str, arguments: &[&str]) -> Result<Daemon> {
        let mut probe = command(Some(host), self.bin.join("rvs-lab"));
        probe.arg("probe").args(arguments);
        Daemon::start(name, probe, self.dir())
    }

    /// What a service counted, and all of its destinations together.
    pub fn totals(&self, protocol: &str, address: &str) -> Result<(Totals, Totals)> {
        let services = self.services()?;
        let ours = |service: &&Value| {
            service.get("protocol").and_then(Value::as_str) == Some(protocol)
                && service.get("address").and_then(Value::as_str) == Some(address)
        };
        let service = services.iter().find(ours).with_context(|| format!("no {address}"))?;
        let dests = dests(service).map(counted).collect::<Result<Vec<_>>>()?;
        Ok((counted(service)?, dests.into_iter().fold(Totals::default(), Totals::plus)))
    }

    /// Destinations that count connections which they have at this moment, by address.
    pub fn busy(&self) -> Result<Vec<String>> {
        let gauge = |dest: &Value, name| dest.get(name).and_then(Value::as_u64) != Some(0);
        let services = self.services()?;
        let dests = services.iter().flat_map(dests);
        let busy = dests.filter(|dest| {
            ["active", "inactive", "persistent"].iter().any(|name| gauge(dest, name))
        });
        Ok(busy.map(ToString::to_string).collect())
    }

    fn services(&self) -> Result<Vec<Value>> {
        let mut told: Value = serde_json::from_str(&self.rvsd.adm(&["-Ln", "--json"])?)?;
        match told.get_mut("service").map(Value::take) {
            Some(Value::Array(services)) => Ok(services),
            _ => anyhow::bail!("no services in {told}"),
        }
    }

    /// Connections that rvsd has.
    pub fn conns(&self) -> Result<usize> {
        // Two lines of headings.
        Ok(self.rvsd.adm(&["-Lnc"])?.lines().skip(2).count())
    }

    /// Takes the kernel's ends of both cables down, and says how many frames it counted there: those
    /// that rvsd took, and those that it sent.
    pub fn unplug() -> Result<[u64; 2]> {
        let mut sums = [0; 2];
        for (host, device) in [(CLIENT, "c0"), (SERVERS, "r0")] {
            ip(host, &format!("link set {device} down\n"))?;
            let said =
                run(command(None, "ip").args(["-n", host, "-s", "-j", "link", "show", device]))?;
            let told: Value = serde_json::from_str(&said)?;
            for (sum, way) in sums.iter_mut().zip(["tx", "rx"]) {
                let counted = told.pointer(&format!("/0/stats64/{way}/packets"));
                *sum += counted.and_then(Value::as_u64).context("no count of frames")?;
            }
        }
        Ok(sums)
    }
}

/// What `rvsadm -L --json` says that a service or a destination counted.
fn counted(entry: &Value) -> Result<Totals> {
    Ok(serde_json::from_value(entry.get("totals").context("no totals")?.clone())?)
}

fn dests(service: &Value) -> impl Iterator<Item = &Value> {
    service.get("dest").and_then(Value::as_array).into_iter().flatten()
}

/// A service and its destinations, with the same port.
fn announce(rvsd: &Rvsd, place: &Place, protocol: &str, port: u16) -> Result<()> {
    let vip = place.at(port);
    rvsd.adm(&["-A", protocol, &vip, "-s", "rr"])?;
    for (real, options) in place.reals {
        rvsd.adm(&[&["-a", protocol, &vip, "-r", &at(real, port)], *options].concat())?;
    }
    Ok(())
}

/// Addresses, and the way of replies that do not pass rvsd.
fn connect_more() -> Result<()> {
    let mut client = String::from("addr add fd30::2/64 dev c1 nodad\n");
    let mut servers = String::from("addr add fd30::1/64 dev r1 nodad\n");
    writeln!(servers, "neigh replace fd30::2 lladdr 02:00:00:00:00:c1 dev r1 nud permanent")?;
    writeln!(servers, "route add default via 10.30.0.2 table 100")?;
    writeln!(servers, "route add default via fd30::2 table 100")?;
    for place in PLACES.iter().filter(|place| place.vip != VIP && place.vip != VIP6) {
        let Place { vip, .. } = place;
        let (bits, near) = if place.is_v6() { (128, "fd10::1") } else { (32, "10.10.0.1") };
        writeln!(client, "route add {vip}/{bits} via {near}")?;
        if !place.both_ways {
            let family = if place.is_v6() { "-6" } else { "-4" };
            writeln!(servers, "addr add {vip}/{bits} dev lo")?;
            run(Command::new("ip")
                .args(["-n", SERVERS, family, "rule", "add", "from", vip, "lookup", "100"]))?;
        }
    }
    ip(CLIENT, &client)?;
    ip(SERVERS, &servers)
}
