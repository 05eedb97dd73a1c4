//! Thousands of packets through rvsd, each of them judged.
//!
//! ```text
//!  rvs-pktgen ─ gen-clients ═ br-clients ═ tap-clients ─ rvsd ─ tap-servers ═ … ─ rvs-pktgen
//!  100 clients                namespace "switch"                                  4 real servers
//! ```
//!
//! What [`crate::cases`] shows with a few hundred requests of real programs, this shows packet by
//! packet: in every method and family nothing is lost, late, doubled or at the wrong server, and
//! rvsd accounts for every frame.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::director::Director;
use crate::lab::{Setup, run_dir, show_logs};
use crate::netns::{Netns, SWITCH};
use crate::process::{Daemon, Limits, command, run};
use crate::topology::{DirectorInterface, Family, Method, Service, Topology};

/// Packets a second, and for how long: a few per cent of what TAPs carry, so that a busy machine
/// loses none.
const RATE: u32 = 5_000;
const SECONDS: u32 = 2;

/// Frames that a TAP may be behind: two seconds of a core that others have.
const QUEUE: u32 = 10_000;

/// Tries of each case. When others have all cores for half a second, rvsd is behind and refuses what would
/// open connections (`overload`), as it should; that it loses nothing otherwise one try shows.
const TRIES: u16 = 5;

/// What rvs-pktgen found out: the part of its JSON that is judged here.
#[derive(Debug, Deserialize)]
struct Found {
    sent: u64,
    unsent: u64,
    servers: End,
    clients: Option<End>,
}

#[derive(Debug, Default, Deserialize)]
struct End {
    arrived: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    misdirected: u64,
    #[serde(default)]
    damaged: u64,
    #[serde(default)]
    by_method: [u64; 3],
    #[serde(default)]
    by_real: Vec<u64>,
}

/// Sends traffic in every method and family. `false`, and the reasons printed, when something is not
/// as it should be.
///
/// # Errors
///
/// The lab cannot be built, or a program in it fails.
pub fn act(setup: &Setup, limits: &Limits) -> Result<bool> {
    let topology = topology()?;
    println!("\n== {}: {}", topology.name, topology.claim);
    let outcome = in_lab(&topology, setup, limits);
    if !matches!(outcome, Ok(true)) {
        show_logs(&topology, setup)?;
    }
    outcome
}

fn in_lab(topology: &Topology, setup: &Setup, limits: &Limits) -> Result<bool> {
    let dir = run_dir(topology);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let netns = Netns::build(topology, setup.driver).context("network namespaces")?;
    let mut director = Director::start(topology, setup, &dir, limits)?;
    netns.connect().context("plugging in rvsd's links")?;
    for network in topology.networks() {
        let lines = [
            format!("tuntap add gen-{network} mode tap"),
            format!("link set gen-{network} master br-{network} txqueuelen {QUEUE} up"),
            format!("link set tap-{network} txqueuelen {QUEUE}"),
        ];
        for line in lines {
            run(Command::new("ip").args(["-n", SWITCH]).args(line.split(' ')))?;
        }
    }
    let methods = [Method::Nat, Method::Dr, Method::Tun];
    let cases = Family::ALL.iter().flat_map(|family| methods.map(|method| (*family, method)));
    let mut good = true;
    for ((family, method), port) in cases.zip((1000..).step_by(TRIES.into())) {
        let mut is_good = false;
        for port in port..port + TRIES {
            is_good = is_good
                || Case { family, method, port }.holds(topology, &director, setup, &dir, limits)?;
        }
        if !is_good {
            println!("{:14}FAILED {} {}", "", family.name(), method.option());
        }
        good &= is_good;
    }
    director.end(limits)?;
    println!("\ntraffic: {}", if good { "every packet accounted for" } else { "FAILED" });
    Ok(good)
}

/// A service of its own, and the traffic to it.
#[derive(Clone, Copy)]
struct Case {
    family: Family,
    method: Method,
    port: u16,
}

impl Case {
    /// Whether all is as it should be; tells what is not.
    fn holds(
        self,
        topology: &Topology,
        director: &Director,
        setup: &Setup,
        dir: &Path,
        limits: &Limits,
    ) -> Result<bool> {
        limits.check()?;
        let (method, family) = (self.method.option(), self.family.name());
        let found = match self.send(director, &setup.bin, dir, limits) {
            Ok(found) => found,
            Err(error) => {
                println!("{:14}{family} {method}: not so: {error:#}", "");
                return Ok(false);
            }
        };
        let wrong = self.judge(&found);
        let (sent, real) = (found.sent, &found.servers.by_real);
        limits.say(topology, &format!("{family} {method}: {sent} packets, servers got {real:?}"));
        for wrong in &wrong {
            println!("{:14}not so: {wrong}: {found:?}", "");
        }
        Ok(wrong.is_empty())
    }

    fn send(self, director: &Director, bin: &Path, dir: &Path, limits: &Limits) -> Result<Found> {
        let (clients, vip, reals) = match self.family {
            Family::V4 => (
                "172.16.30.100-172.16.30.199",
                "172.16.30.1",
                ["192.168.1.11", "192.168.1.12", "192.168.1.13", "192.168.1.14"],
            ),
            Family::V6 => (
                "fd00:30::100-fd00:30::163",
                "fd00:30::1",
                ["fd00:1::11", "fd00:1::12", "fd00:1::13", "fd00:1::14"],
            ),
        };
        let vip = SocketAddr::new(vip.parse()?, self.port).to_string();
        for protocol in ["-t", "-u"] {
            director.adm(&["-A", protocol, &vip, "-s", "rr"])?;
            for real in reals {
                let real = SocketAddr::new(real.parse::<IpAddr>()?, self.port).to_string();
                director.adm(&["-a", protocol, &vip, "-r", &real, self.method.option()])?;
            }
        }
        let json = dir.join("result.json");
        let mut pktgen = command(Some(SWITCH), bin.join("rvs-pktgen"));
        pktgen.args(["run", "--client", "tap:gen-clients", "--servers", "tap:gen-servers"]);
        pktgen.args(["--clients", clients, "--vip", &vip, "--real", &reals.join(",")]);
        pktgen.args(["--mix", "udp=2,established=1,syn=1", "--size", "76=7,594=4,1400=1"]);
        pktgen.args(["--flows", "2000", "--choose", "zipf", "--drain", "3s", "--quiet"]);
        pktgen.arg("--rate").arg(RATE.to_string()).arg("--duration").arg(SECONDS.to_string());
        pktgen.arg("--json").arg(&json);
        if self.method.replies_pass_director() {
            pktgen.arg("--echo");
        }
        let mut pktgen = Daemon::start("pktgen", pktgen, dir)?;
        let status = pktgen.wait(Duration::from_mins(2), limits)?;
        ensure!(status.success(), "rvs-pktgen: {status}: {}", pktgen.errors());
        Ok(serde_json::from_slice(&fs::read(json)?)?)
    }

    /// What is not as it should be.
    fn judge(self, found: &Found) -> Vec<&'static str> {
        let all = u64::from(RATE * SECONDS);
        let Found { sent, unsent, servers, clients } = found;
        let mut by_method = [0; 3];
        let (place, replies) = match self.method {
            Method::Nat => (0, true),
            Method::Dr => (1, false),
            Method::Tun => (2, false),
        };
        if let Some(count) = by_method.get_mut(place) {
            *count = servers.arrived;
        }
        let fair = sent / 4 / 2;
        let claims = [
            ("as many packets as asked for are sent", sent + unsent == all && *sent > all / 10),
            ("every packet arrives", servers.lost == 0 && servers.arrived == *sent),
            ("in order", servers.reordered == 0),
            ("once", servers.duplicates == 0),
            ("each flow at one server", servers.misdirected == 0),
            ("with all checksums right", servers.damaged == 0),
            ("by the method of the service", servers.by_method == by_method),
            ("every server gets its part", servers.by_real.iter().all(|count| *count > fair / 4)),
            ("replies come by NAT only", clients.is_some() == replies),
            ("every reply comes back", clients.as_ref().is_none_or(|it| it.lost == 0)),
        ];
        claims.into_iter().filter(|(_, holds)| !holds).map(|(claim, _)| claim).collect()
    }
}

/// A director with two links, and nobody else: the generator plays them all.
fn topology() -> Result<Topology> {
    let interface = |network: &str, mac: &str, addresses: [&str; 2]| -> Result<_> {
        Ok(DirectorInterface {
            network: network.to_owned(),
            mac: mac.to_owned(),
            addresses: addresses.into_iter().map(str::parse).collect::<Result<_, _>>()?,
        })
    };
    let interfaces = vec![
        interface("clients", "02:00:00:00:00:01", ["172.16.30.2/24", "fd00:30::2/64"])?,
        interface("servers", "02:00:00:00:00:02", ["192.168.1.1/24", "fd00:1::1/64"])?,
    ];
    Ok(Topology {
        name: "traffic".to_owned(),
        claim: "every packet arrives, once, in order, at its flow's server".to_owned(),
        service: Service {
            method: Method::Nat,
            scheduler: "rr".to_owned(),
            addresses: Vec::new(),
            port: 0,
            dests: Vec::new(),
            dest_port: 0,
            options: std::collections::BTreeMap::new(),
        },
        cables: std::collections::BTreeMap::new(),
        director: crate::topology::Director { interfaces, routes: Vec::new() },
        hosts: Vec::new(),
    })
}
