//! Servers die, cables are pulled, disks fill up, rvsd is killed: what clients see of it, and
//! whether rvsd comes out as it went in.
//!
//! A lab of each method, whose networks are bridges so that hosts keep their interfaces when rvsd's
//! end goes; what has to do with rvsd's control happens in one of them. Each act has connections that stay ([`Probe::Steady`]) and ones that come
//! and go ([`Probe::Fresh`]); afterwards rvsd accounts for every frame and has neither more memory
//! nor more descriptors than before.
//!
//! [`Probe::Steady`]: crate::probe::Probe::Steady
//! [`Probe::Fresh`]: crate::probe::Probe::Fresh

mod control;
mod own;
mod path;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::functional::shortened;
use crate::lab::{Lab, Setup, run_dir, show_logs};
use crate::process::{Daemon, Limits, run};
use crate::stage::Stage;
use crate::topology::{Family, Method, Topology};

/// The labs: NAT, whose client is apart too, DR and TUN.
const LABS: [&str; 3] = ["apart", "dr", "tun"];

/// Where [`crate::probe`] serves.
const PORT: u16 = 7000;

/// The servers' port behind the services that have one server. Not [`PORT`]: a client may have one
/// port in connections to two services, which would then be one connection to a real server.
const OWN_PORT: u16 = 7100;

/// Milliseconds of clients that go on until they are ended.
const FOR_EVER: u32 = u32::MAX;

/// How much more memory rvsd may have after an act, in KB: pages that it had not touched before.
const GROWTH_KB: u64 = 4096;

/// Room of the file system that fills up.
const DISK: &str = "size=16m";

/// Where clients and servers write: not on the disk that fills up.
const SCRATCH: &str = "/run";

/// A claim, where it is shown, and how.
struct Act {
    claim: &'static str,
    everywhere: bool,
    show: fn(&mut Play<'_, '_>) -> Result<String>,
}

/// Of the path of packets, which each method has another one of.
const fn path(claim: &'static str, show: fn(&mut Play<'_, '_>) -> Result<String>) -> Act {
    Act { claim, everywhere: true, show }
}

/// Of what is the same for all methods.
const fn once(claim: &'static str, show: fn(&mut Play<'_, '_>) -> Result<String>) -> Act {
    Act { claim, everywhere: false, show }
}

const ACTS: [Act; 12] = [
    once("10 000 changes under traffic: no connection notices", control::reloads),
    once("10 000 files applied under traffic: no connection notices", control::applies),
    once(
        "a flooded control socket: traffic does not notice, and others are served again",
        control::flood,
    ),
    once(
        "a disk that is full: traffic goes on, changes are refused whole, and taken again later",
        control::full_disk,
    ),
    path(
        "a server that is killed refuses at once, the others' connections stay",
        path::killed_server,
    ),
    path("a server that is paused is waited for, nothing is lost", path::paused_server),
    path("cables that are pulled, each for half a second: connections stay", path::pulled_cable),
    path("a server with another Ethernet address: connections stay", path::changed_mac),
    path("rvsd stands still for two seconds: connections stay", own::paused_rvsd),
    once("the time of day leaps: no connection notices", own::wall_clock),
    once("the time of timers leaps: who is forgotten is told", own::timers_leap),
    path(
        "rvsd killed: services are there again, old connections are told, new ones served",
        own::killed_rvsd,
    ),
];

/// A lab and its servers.
struct Play<'p, 't> {
    lab: Lab<'t>,
    setup: &'p Setup,
    limits: &'p Limits,
    servers: Vec<Daemon>,
}

/// Plays all acts, and says whether all went as they should.
///
/// # Errors
///
/// The lab cannot be built, or rvsd does not account for its frames.
pub fn act(setup: &Setup, only: &str, limits: &Limits) -> Result<bool> {
    let (mut good, mut count) = (0, 0);
    for (name, is_first) in LABS.into_iter().zip([true, false, false]) {
        let acts = ACTS.iter().filter(|act| act.claim.contains(only));
        let acts: Vec<_> = acts.filter(|act| is_first || act.everywhere).collect();
        if acts.is_empty() {
            continue;
        }
        count += acts.len();
        good += in_lab(name, &acts, setup, limits)?;
    }
    let word = if good == count && count > 0 { "PASS" } else { "FAIL" };
    let seconds = limits.elapsed().as_secs_f32();
    println!("\n{word}: {good} of {count} faults are stood in {seconds:.0} s");
    Ok(good == count && count > 0)
}

/// Plays `acts` in one lab, and says how many went as they should.
fn in_lab(name: &str, acts: &[&Act], setup: &Setup, limits: &Limits) -> Result<usize> {
    let topology = Topology::load(name)?;
    println!("\n== faults, {name}: {}", topology.claim);
    // rvsd's files are on a file system of their own, which one act fills up.
    let dir = run_dir(&topology);
    fs::create_dir_all(&dir)?;
    run(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "rvs-lab"]).arg(&dir))?;
    let outcome = play(&topology, acts, setup, limits);
    if !matches!(outcome, Ok(good) if good == acts.len()) {
        show_logs(&topology, setup)?;
    }
    outcome
}

fn play(topology: &Topology, acts: &[&Act], setup: &Setup, limits: &Limits) -> Result<usize> {
    let lab = Lab::up(topology, setup, limits)?;
    let mut play = Play { lab, setup, limits, servers: Vec::new() };
    for dest in &topology.service.dests {
        let server = play.serve(dest)?;
        play.servers.push(server);
    }
    for family in Family::ALL {
        for dest in &topology.service.dests {
            play.announce(dest, family)?;
        }
    }
    let mut good = 0;
    for Act { claim, show, .. } in acts {
        limits.check()?;
        let (before, begun) = (play.resources()?, Instant::now());
        let outcome = show(&mut play).and_then(|said| {
            // A client's end is noticed a moment later.
            play.limits.wait("as few descriptors as before", Duration::from_secs(20), || {
                Ok((play.resources()?.fds <= before.fds).then_some(()))
            })?;
            let after = play.resources()?;
            let growth = after.memory_kb.saturating_sub(before.memory_kb);
            ensure!(growth <= GROWTH_KB, "{growth} KB more memory");
            Ok(said)
        });
        let time = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(said) => {
                println!("   ok     {time:5.2} s  {claim}: {}", said.trim());
                good += 1;
            }
            Err(error) => println!("   FAILED {time:5.2} s  {claim}: {}", shortened(&error)),
        }
    }
    play.servers.clear();
    let (summary, _) = play.lab.end(limits)?;
    let law = summary.lines().find(|line| line.starts_with("conservation:")).unwrap_or_default();
    println!("   {law}");
    Ok(good)
}

/// What rvsd has of the machine.
#[derive(Clone, Copy, Debug)]
struct Resources {
    memory_kb: u64,
    fds: usize,
}

/// A client that runs.
struct Client(Daemon);

impl Client {
    /// What it said, when it ended well.
    fn end(mut self, limits: &Limits) -> Result<String> {
        let status = self.0.wait(Duration::from_mins(2), limits)?;
        let errors = self.0.errors();
        let complaint = errors.lines().find(|line| line.starts_with("rvs-lab:"));
        ensure!(status.success(), "{}", complaint.unwrap_or(&errors));
        Ok(self.0.output().trim().to_owned())
    }
}

impl Play<'_, '_> {
    fn stage(&self) -> &dyn Stage {
        &self.lab
    }

    fn resources(&self) -> Result<Resources> {
        let process = format!("/proc/{}", self.lab.director.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        let fds = fs::read_dir(format!("{process}/fd"))?.count();
        Ok(Resources { memory_kb: memory.parse()?, fds })
    }

    /// Starts the server of `dest`.
    fn serve(&self, dest: &str) -> Result<Daemon> {
        let mut serve = self.stage().command(dest, "rvs-lab");
        let own = self.own_port(self.vip(Some(dest), Family::V4)?.port());
        serve.args(["probe", "serve", &PORT.to_string(), "--also", &own.to_string()]);
        let mut server = Daemon::start(&format!("{dest}.probe"), serve, Path::new(SCRATCH))?;
        server.wait_for_line("probe: ready", self.limits)?;
        Ok(server)
    }

    /// Where `dest` serves what comes to its own service's `port`: only NAT changes ports.
    fn own_port(&self, port: u16) -> u16 {
        let is_nat = self.lab.topology.service.method == Method::Nat;
        if is_nat { OWN_PORT } else { port }
    }

    /// A service of one server, for connections whose server is to be known: on the port after
    /// the server's place; and one of all servers.
    fn announce(&self, dest: &str, family: Family) -> Result<()> {
        let topology = self.lab.topology;
        let (service, real) = (&topology.service, topology.address_of(dest, family)?);
        let own = self.vip(Some(dest), family)?;
        for (vip, port) in [(own, self.own_port(own.port())), (self.vip(None, family)?, PORT)] {
            let (vip, real) = (vip.to_string(), SocketAddr::new(real, port).to_string());
            // The service of all is there already when the second server comes.
            let _ = self.stage().adm(&["-A", "-t", &vip, "-s", "rr"]);
            let mut words = vec!["-a", "-t", &vip, "-r", &real, service.method.option()];
            words.extend(service.options.get(dest).into_iter().flatten().map(String::as_str));
            self.stage().adm(&words)?;
        }
        Ok(())
    }

    fn vip(&self, dest: Option<&str>, family: Family) -> Result<SocketAddr> {
        let topology = self.lab.topology;
        let place = topology.service.dests.iter().position(|it| Some(it.as_str()) == dest);
        let port = place.map_or(PORT, |place| PORT + 1 + u16::try_from(place).unwrap_or_default());
        Ok(SocketAddr::new(topology.vip(family).context("no VIP")?, port))
    }

    fn client(
        &self,
        kind: &str,
        dest: Option<&str>,
        family: Family,
        millis: u32,
    ) -> Result<Client> {
        let mut probe = self.stage().command("client", "rvs-lab");
        let to = self.vip(dest, family)?.to_string();
        probe.args(["probe", kind, &to, "--millis", &millis.to_string()]);
        let name = format!("{kind}-{}-{}", dest.unwrap_or("all"), family.name());
        Ok(Client(Daemon::start(&name, probe, Path::new(SCRATCH))?))
    }

    /// A connection that stays, once it is there.
    fn stays(&self, dest: &str, family: Family, millis: u32) -> Result<Client> {
        let mut client = self.client("steady", Some(dest), family, millis)?;
        client.0.wait_for_line("probe: steady", self.limits)?;
        Ok(client)
    }

    /// Connections that stay at all servers in both families.
    fn steady(&self, millis: u32) -> Result<Vec<Client>> {
        let dests = &self.lab.topology.service.dests;
        let all = Family::ALL.into_iter().flat_map(|f| dests.iter().map(move |dest| (dest, f)));
        all.map(|(dest, family)| self.stays(dest, family, millis)).collect()
    }

    /// Ends clients that nothing has ended yet: each of them still has its answers.
    fn go_on(&self, clients: Vec<Client>) -> Result<()> {
        for mut client in clients {
            if client.0.ended()?.is_some() {
                client.end(self.limits).context("a client has ended")?;
            }
        }
        Ok(())
    }

    /// Connections that rvsd has.
    fn conns(&self) -> Result<usize> {
        // Two lines of headings.
        Ok(self.stage().adm(&["-Lnc"])?.lines().skip(2).count())
    }

    /// Ends rvsd in order and starts it with `environment`.
    fn restart(&mut self, environment: Vec<(&'static str, String)>) -> Result<()> {
        self.lab.director.end(self.limits)?;
        let setup = Setup { environment, ..self.setup.clone() };
        self.lab.restart_director(&setup, self.limits)
    }

    fn ends(&self, clients: Vec<Client>) -> Result<String> {
        let said = clients.into_iter().map(|client| client.end(self.limits));
        Ok(said.collect::<Result<Vec<_>>>()?.join("; "))
    }

    fn server(&mut self, place: usize) -> Result<&mut Daemon> {
        self.servers.get_mut(place).context("no such server")
    }
}
