//! What real programs do through rvsd, each as a claim.
//!
//! ```text
//!  Scene: a stage, one address family ──► CASES, one after another ──► a line each, and a table
//! ```
//!
//! The same list runs on namespaces and on containers. Cases use ports of their own, so what one
//! leaves behind is not in the way of the next.

mod bulk;
mod http;
mod packets;
mod tcp;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::{Daemon, Limits, run};
use crate::stage::Stage;
use crate::topology::{Family, Method};

/// Where [`crate::probe`] serves.
const PROBE: u16 = 7000;

/// Where iperf3 serves, at one real server: its connections belong together.
const IPERF: u16 = 5201;

/// A claim, and how it is shown. What it returns is told beside it.
struct Case {
    claim: &'static str,
    wants: Wants,
    show: fn(&Scene<'_>) -> Result<String>,
}

/// Where a case makes sense.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wants {
    /// Any cable: it takes what TCP mends.
    Anything,
    /// Cables that lose nothing.
    Calm,
    /// Cables with longer packets than others.
    Jumbo,
    /// The topologies themselves, not their variants with other cables.
    Plain,
    /// As plain, and replies that pass the director.
    Nat,
    /// As plain, and tunnels.
    Tun,
    /// The same where this machine's programs can look into hosts' networks from outside.
    TunVisited,
}

impl Wants {
    fn fits(self, stage: &dyn Stage) -> bool {
        let topology = stage.topology();
        let method = topology.service.method;
        let is_plain = topology.cables.is_empty();
        match self {
            Self::Anything => true,
            Self::Calm => topology.is_calm(),
            Self::Jumbo => topology.cables.values().any(|cable| cable.mtu > 1500),
            Self::Plain => is_plain,
            Self::Nat => is_plain && method == Method::Nat,
            Self::Tun => is_plain && method == Method::Tun,
            Self::TunVisited => {
                is_plain && method == Method::Tun && stage.visitor("client", "ip").is_some()
            }
        }
    }
}

const fn case(claim: &'static str, wants: Wants, show: fn(&Scene<'_>) -> Result<String>) -> Case {
    Case { claim, wants, show }
}

use Wants::{Anything, Calm, Jumbo, Nat, Plain, Tun, TunVisited};

const CASES: [Case; 20] = [
    case("10 000 short connections, none fails", Plain, http::short_connections),
    case("a download arrives unchanged", Anything, http::download),
    case("an upload arrives unchanged", Anything, http::upload),
    case("more requests go over the same connection", Anything, http::keep_alive),
    case("nc closes its half and still gets its answer", Anything, tcp::half_close),
    case("a reset ends the connection at both ends", Calm, tcp::reset),
    case("a port that nobody serves is refused at once", Plain, tcp::refused),
    case("a connection outlives a silence shorter than its time-out", Plain, tcp::shorter),
    case("a connection that timed out ends with a reset", Plain, tcp::longer),
    case("a client's port serves again and again", Plain, tcp::port_reuse),
    case("questions and answers in datagrams", Calm, packets::datagrams),
    case("datagrams in fragments, both ways", Calm, packets::fragments),
    case("the VIP answers ping", Plain, packets::ping),
    case("packets of 9000 octets go whole", Jumbo, packets::jumbo),
    case("traceroute finds the director on the way to a server", Nat, packets::traceroute),
    case("traceroute by TCP finds the VIP, and the VIP behind it", Plain, packets::tcptraceroute),
    case("iperf3: 1 and 16 streams, both directions", Calm, bulk::iperf),
    case("a tunnel of every kind and family, as tshark reads it", TunVisited, tunnel::kinds),
    case("a client learns how long packets into a tunnel may be", Tun, tunnel::learns),
    case("without path MTU discovery tunnels fragment", TunVisited, tunnel::fragments),
];

/// Where a case plays.
pub struct Scene<'s> {
    stage: &'s dyn Stage,
    family: Family,
    vip: IpAddr,
    limits: &'s Limits,
}

/// What became of one case.
#[derive(Clone, Debug)]
pub struct Shown {
    topology: String,
    family: Family,
    claim: &'static str,
    failure: Option<String>,
}

/// Plays all cases that make sense on `stage`, in both families, but those whose claim does not
/// contain `only`.
pub fn act(stage: &dyn Stage, only: &str, limits: &Limits) -> Vec<Shown> {
    let mut shown = Vec::new();
    let outcome = servers(stage, limits).and_then(|_servers| {
        for family in Family::ALL {
            shown.extend(Scene::open(stage, family, limits)?.play(only)?);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        println!("   FAILED {error:#}");
        let topology = stage.topology().name.clone();
        let failure = Some(shortened(&error));
        shown.push(Shown {
            topology,
            family: Family::V4,
            claim: "the cases can be played",
            failure,
        });
    }
    shown
}

/// Starts what serves on the real servers, beside nginx.
fn servers(stage: &dyn Stage, limits: &Limits) -> Result<Vec<Daemon>> {
    let topology = stage.topology();
    let service = &topology.service;
    let mut servers = Vec::new();
    for dest in &service.dests {
        let mut serve = stage.command(dest, "rvs-lab");
        serve.args(["probe", "serve", &PROBE.to_string()]);
        if service.method == Method::Tun {
            serve.args(tunnel::PORTS.map(|port| format!("--also={port}")));
        }
        for family in Family::ALL {
            let own = topology.address_of(dest, family)?;
            let own = if service.method == Method::Nat { own } else { stage.vip(family)? };
            serve.args(["--address", &own.to_string()]);
        }
        servers.push(Daemon::start(&format!("{dest}.probe"), serve, stage.dir())?);
    }
    for server in &mut servers {
        server.wait_for_line("probe: ready", limits)?;
    }
    let first = service.dests.first().context("no dests")?;
    let mut iperf = stage.command(first, "iperf3");
    iperf.args(["-s", "-p", &IPERF.to_string()]);
    servers.push(Daemon::start(&format!("{first}.iperf3"), iperf, stage.dir())?);
    Ok(servers)
}

impl<'s> Scene<'s> {
    /// With its services.
    fn open(stage: &'s dyn Stage, family: Family, limits: &'s Limits) -> Result<Self> {
        let scene = Self { stage, family, vip: stage.vip(family)?, limits };
        let service = &stage.topology().service;
        let first = service.dests.first().context("no dests")?;
        stage.adm(&["-C"])?;
        stage.add_service(scene.at(service.port))?;
        scene.serve("-t", PROBE, &service.dests)?;
        scene.serve("-u", PROBE, &service.dests)?;
        scene.serve("-t", IPERF, std::slice::from_ref(first))?;
        Ok(scene)
    }

    fn play(&self, only: &str) -> Result<Vec<Shown>> {
        let topology = self.stage.topology();
        let mut all = Vec::new();
        for case in CASES.iter().filter(|case| case.claim.contains(only)) {
            if !case.wants.fits(self.stage) {
                continue;
            }
            self.limits.check()?;
            let begun = Instant::now();
            let outcome = (case.show)(self);
            let time = begun.elapsed().as_secs_f32();
            let (word, detail) = match &outcome {
                Ok(detail) => ("ok    ", detail.trim().to_owned()),
                Err(error) => ("FAILED", shortened(error)),
            };
            let (name, family) = (&topology.name, self.family.name());
            println!("   {word} {name:5} {family} {time:5.2} s  {}: {detail}", case.claim);
            let failure = outcome.err().map(|error| shortened(&error));
            let topology = name.clone();
            all.push(Shown { topology, family: self.family, claim: case.claim, failure });
        }
        Ok(all)
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip, port)
    }

    /// Adds a service with the same port at its dests.
    fn serve(&self, protocol: &str, port: u16, dests: &[String]) -> Result<()> {
        let topology = self.stage.topology();
        let service = &topology.service;
        let vip = self.at(port).to_string();
        self.stage.adm(&["-A", protocol, &vip, "-s", "rr"])?;
        for dest in dests {
            let real = SocketAddr::new(topology.address_of(dest, self.family)?, port).to_string();
            let mut words = vec!["-a", protocol, &vip, "-r", &real, service.method.option()];
            words.extend(service.options.get(dest).into_iter().flatten().map(String::as_str));
            self.stage.adm(&words)?;
        }
        Ok(())
    }

    /// `program` on the client, ended after `seconds` if it does not end.
    fn client(&self, seconds: u32, program: &str) -> Command {
        self.on("client", seconds, program)
    }

    fn on(&self, host: &str, seconds: u32, program: &str) -> Command {
        let program = self.stage.program(program);
        let mut command = self.stage.command(host, "timeout");
        command.arg(seconds.to_string()).arg(program);
        command
    }

    /// A line of shell on `host`; returns what it printed.
    fn shell(&self, host: &str, line: &str) -> Result<String> {
        run(self.on(host, 250, "sh").args(["-ec", line]))
    }

    /// `program` of this machine in the network of `host`.
    fn visitor(&self, host: &str, program: &str) -> Result<Command> {
        self.stage.visitor(host, program).context("hosts' networks cannot be entered")
    }

    /// Our own client.
    fn probe(&self, kind: &str, port: u16, arguments: &[&str]) -> Result<String> {
        let to = self.at(port).to_string();
        run(self.client(240, "rvs-lab").args(["probe", kind, &to]).args(arguments))
    }

    /// Waits until `look` finds something; cases wait for seconds, not for minutes.
    fn wait<T>(&self, what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        self.limits.wait(what, Duration::from_secs(30), look)
    }
}

/// What went wrong, without what a program may have printed for pages.
#[must_use]
pub fn shortened(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let (start, end): (String, Vec<char>) =
        (text.chars().take(300).collect(), text.chars().skip(300).collect());
    if end.len() <= 300 {
        return text;
    }
    let end: String = end.iter().skip(end.len() - 300).collect();
    format!("{start} ... {end}")
}

/// Says what did not hold, and whether all did.
#[must_use]
pub fn conclude(shown: &[Shown], limits: &Limits) -> bool {
    let failed: Vec<_> = shown.iter().filter(|it| it.failure.is_some()).collect();
    for Shown { topology, family, claim, failure } in &failed {
        let why = failure.as_deref().unwrap_or_default();
        println!("   not so: {topology} {}: {claim}: {why}", family.name());
    }
    let all = failed.is_empty() && !shown.is_empty();
    println!(
        "\n{}: {} of {} claims hold in {:.0} s",
        if all { "PASS" } else { "FAIL" },
        shown.len() - failed.len(),
        shown.len(),
        limits.elapsed().as_secs_f32()
    );
    all
}
