//! Servers die, cables are pulled, disks fill up, rvsd is killed: what clients see of it, and
//! whether rvsd comes out as it went in.
//!
//! One lab, nat with both networks on bridges of their own so that hosts keep their interfaces
//! when rvsd's end goes. Each act has connections that stay ([`Probe::Steady`]) and ones that come
//! and go ([`Probe::Fresh`]); afterwards rvsd accounts for every frame and has neither more memory
//! nor more descriptors than before.
//!
//! [`Probe::Steady`]: crate::probe::Probe::Steady
//! [`Probe::Fresh`]: crate::probe::Probe::Fresh

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::functional::shortened;
use crate::lab::{Lab, Setup, run_dir, show_logs};
use crate::netns::SWITCH;
use crate::process::{Daemon, Limits, run, run_with_input};
use crate::stage::Stage;
use crate::topology::{Family, Topology};

/// Where [`crate::probe`] serves.
const PORT: u16 = 7000;

/// The servers' port behind the services that have one server. Not [`PORT`]: a client may have one
/// port in connections to two services, which would then be one connection to a real server.
const OWN_PORT: u16 = 7100;

/// Changes of the act that reloads.
const RELOADS: usize = 10_000;

/// Clients of the act that floods the control socket.
const FLOOD: usize = 500;

/// How much more memory rvsd may have after an act, in KB: pages that it had not touched before.
const GROWTH_KB: u64 = 4096;

/// Room of the file system that fills up.
const DISK: &str = "size=16m";

/// Where clients and servers write: not on the disk that fills up.
const SCRATCH: &str = "/run";

type Act = fn(&mut Play<'_, '_>) -> Result<String>;

const ACTS: [(&str, Act); 8] = [
    ("10 000 changes under traffic: no connection notices", reloads),
    ("a flooded control socket: traffic does not notice, and others are served again", flood),
    (
        "a disk that is full: traffic goes on, changes are refused whole, and taken again later",
        full_disk,
    ),
    ("a server that is killed refuses at once, the other one's connections stay", killed_server),
    ("a server that is paused is waited for, nothing is lost", paused_server),
    ("a cable that is pulled for a second: connections stay", pulled_cable),
    ("a server with another Ethernet address: connections stay", changed_mac),
    (
        "rvsd killed: services are there again, old connections are told, new ones served",
        killed_rvsd,
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
    let topology = Topology::load("apart")?;
    println!("\n== faults: {}", topology.claim);
    // rvsd's files are on a file system of their own, which one act fills up.
    let dir = run_dir(&topology);
    fs::create_dir_all(&dir)?;
    run(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "rvs-lab"]).arg(&dir))?;
    let outcome = play(&topology, setup, only, limits);
    if !matches!(outcome, Ok(true)) {
        show_logs(&topology, setup)?;
    }
    outcome
}

fn play(topology: &Topology, setup: &Setup, only: &str, limits: &Limits) -> Result<bool> {
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
    let (mut good, mut count) = (0, 0);
    for (claim, show) in ACTS.iter().filter(|(claim, _)| claim.contains(only)) {
        limits.check()?;
        let (before, begun) = (play.resources()?, Instant::now());
        let outcome = show(&mut play).and_then(|said| {
            // A client's end is noticed a moment later.
            play.limits.wait("as few descriptors as before", Duration::from_secs(3), || {
                Ok((play.resources()?.fds <= before.fds).then_some(()))
            })?;
            let after = play.resources()?;
            let growth = after.memory_kb.saturating_sub(before.memory_kb);
            ensure!(growth <= GROWTH_KB, "{growth} KB more memory");
            Ok(said)
        });
        let time = begun.elapsed().as_secs_f32();
        count += 1;
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
    let word = if good == count && count > 0 { "PASS" } else { "FAIL" };
    let seconds = limits.elapsed().as_secs_f32();
    println!("\n{word}: {good} of {count} faults are stood in {seconds:.0} s");
    Ok(good == count && count > 0)
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
        let status = self.0.wait(Duration::from_secs(30), limits)?;
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
        serve.args(["probe", "serve", &PORT.to_string(), "--also", &OWN_PORT.to_string()]);
        let mut server = Daemon::start(&format!("{dest}.probe"), serve, Path::new(SCRATCH))?;
        server.wait_for_line("probe: ready", self.limits)?;
        Ok(server)
    }

    /// A service of one server, for connections whose server is to be known: on the port after
    /// the server's place; and one of all servers.
    fn announce(&self, dest: &str, family: Family) -> Result<()> {
        let topology = self.lab.topology;
        let real = topology.address_of(dest, family)?;
        let services = [(self.vip(Some(dest), family)?, OWN_PORT), (self.vip(None, family)?, PORT)];
        for (vip, port) in services {
            let (vip, real) = (vip.to_string(), SocketAddr::new(real, port).to_string());
            // The service of all is there already when the second server comes.
            let _ = self.stage().adm(&["-A", "-t", &vip, "-s", "rr"]);
            self.stage().adm(&["-a", "-t", &vip, "-r", &real, "-m"])?;
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

    /// Connections that stay at both servers in both families.
    fn steady(&self, millis: u32) -> Result<Vec<Client>> {
        let families = Family::ALL.into_iter();
        let all = families.flat_map(|family| ["rs1", "rs2"].map(|dest| (dest, family)));
        all.map(|(dest, family)| self.stays(dest, family, millis)).collect()
    }

    fn ends(&self, clients: Vec<Client>) -> Result<String> {
        let said = clients.into_iter().map(|client| client.end(self.limits));
        Ok(said.collect::<Result<Vec<_>>>()?.join("; "))
    }

    fn server(&mut self, place: usize) -> Result<&mut Daemon> {
        self.servers.get_mut(place).context("no such server")
    }
}

fn reloads(play: &mut Play<'_, '_>) -> Result<String> {
    let mut rules = String::new();
    let real = SocketAddr::new(play.lab.topology.address_of("rs1", Family::V4)?, PORT);
    let vip = play.vip(None, Family::V4)?;
    for number in 0..RELOADS / 5 {
        let other = SocketAddr::new(vip.ip(), 9000 + u16::try_from(number % 500)?);
        let weight = 1 + number % 9;
        writeln!(rules, "-A -t {other} -s wrr\n-a -t {other} -r {real} -m")?;
        writeln!(rules, "-e -t {vip} -r {real} -m -w {weight}\n-E -t {vip} -s wlc\n-D -t {other}")?;
    }
    // The table's places for what is deleted are taken once, so that the second time shows leaks.
    let adm = || {
        let mut adm = Command::new("timeout");
        adm.arg("30").arg(play.setup.bin.join("rvsadm")).arg("-R");
        adm.env("RVS_SOCKET", play.lab.director.socket());
        adm
    };
    let before = play.resources()?;
    let mut clients = play.steady(4000)?;
    clients.push(play.client("fresh", None, Family::V4, 4000)?);
    clients.push(play.client("fresh", None, Family::V6, 4000)?);
    let begun = Instant::now();
    let rules: Vec<_> = rules.lines().collect();
    for some in rules.chunks(RELOADS / 50) {
        run_with_input(&mut adm(), &(some.join("\n") + "\n"))?;
    }
    let time = begun.elapsed().as_secs_f32();
    let said = play.ends(clients)?;
    let list = play.stage().adm(&["-Ln"])?;
    ensure!(!list.contains(":9"), "services were left: {list}");
    let growth = play.resources()?.memory_kb.saturating_sub(before.memory_kb);
    Ok(format!("{RELOADS} changes in {time:.1} s, {growth} KB more; {said}"))
}

fn flood(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(3000)?;
    let mut sockets = Vec::new();
    let mut refused = 0;
    for number in 0..FLOOD {
        // A listener whose queue is full answers so, and does not make us wait.
        let Ok(mut socket) = UnixStream::connect(play.lab.director.socket()) else {
            refused += 1;
            continue;
        };
        socket.set_nonblocking(true)?;
        // Some say nothing, some nonsense, some half a message.
        let words: &[u8] = match number % 3 {
            0 => b"",
            1 => b"\xff\xff\xff\xff nonsense \n\0\0\0",
            _ => b"{\"version\":",
        };
        let _ = socket.write_all(words);
        sockets.push(socket);
    }
    let held = sockets.len();
    drop(sockets);
    let begun = Instant::now();
    play.limits.wait("rvsadm after the flood", Duration::from_secs(15), || {
        Ok(play.stage().adm(&["-Ln"]).ok())
    })?;
    let wait = begun.elapsed().as_millis();
    let said = play.ends(clients)?;
    Ok(format!("{held} clients at once, {refused} refused; rvsadm {wait} ms later; {said}"))
}

fn full_disk(play: &mut Play<'_, '_>) -> Result<String> {
    let filler = play.lab.dir.join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&filler)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
    let clients = play.steady(1500)?;
    let vip = SocketAddr::new(play.vip(None, Family::V4)?.ip(), 9999).to_string();
    // What is left of the state file's last block takes some.
    let (add, remove) = (["-A", "-t", &vip, "-s", "rr"], ["-D", "-t", &vip]);
    let mut taken = 0;
    let why = loop {
        ensure!(taken < 100, "{taken} changes were taken though there was no room to keep them");
        let is_there = taken % 2 == 1;
        let change: &[&str] = if is_there { &remove } else { &add };
        match play.stage().adm(change) {
            Ok(_) => taken += 1,
            Err(why) => break format!("{why:#}"),
        }
    };
    let list = play.stage().adm(&["-Ln"])?;
    drop(file);
    fs::remove_file(&filler)?;
    ensure!(why.contains("No space left"), "{why}");
    ensure!(list.contains(&vip) == (taken % 2 == 1), "half a change: {list}");
    let said = play.ends(clients)?;
    if taken % 2 == 0 {
        play.stage().adm(&add).context("with room again")?;
    }
    play.stage().adm(&remove)?;
    Ok(format!("refused after {taken}: No space left; {said}"))
}

fn killed_server(play: &mut Play<'_, '_>) -> Result<String> {
    let other = play.stays("rs2", Family::V4, 2000)?;
    let its = play.stays("rs1", Family::V4, 2000)?;
    play.server(0)?.signal("KILL")?;
    let limits = play.limits;
    play.server(0)?.wait(Duration::from_secs(5), limits)?;
    let begun = Instant::now();
    let to_dead = play.client("fresh", Some("rs1"), Family::V4, 100)?.end(play.limits);
    let refusal = begun.elapsed();
    let complaint = format!("{:#}", to_dead.err().context("somebody answered for the dead")?);
    ensure!(complaint.contains("refused"), "{complaint}");
    ensure!(refusal < Duration::from_secs(1), "refused after {refusal:?}");
    let complaint = its.end(play.limits).err().context("a dead server's connection lived on")?;
    let said = other.end(play.limits)?;
    let again = play.serve("rs1")?;
    *play.server(0)? = again;
    play.client("fresh", Some("rs1"), Family::V4, 200)?.end(play.limits)?;
    Ok(format!("its connections: {complaint:#}; the other's: {said}"))
}

fn paused_server(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(2500)?;
    play.server(0)?.signal("STOP")?;
    thread::sleep(Duration::from_secs(1));
    play.server(0)?.signal("CONT")?;
    play.ends(clients)
}

fn pulled_cable(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(4000)?;
    for (port, state) in [
        ("tap-servers", "down"),
        ("tap-servers", "up"),
        ("tap-client", "down"),
        ("tap-client", "up"),
    ] {
        run(Command::new("ip").args(["-n", SWITCH, "link", "set", port, state]))?;
        if state == "down" {
            thread::sleep(Duration::from_millis(500));
        }
    }
    play.ends(clients)
}

fn changed_mac(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(4000)?;
    // As a virtual machine that moves, or an address that fails over, says it.
    for key in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
        let line = format!("echo 1 > /proc/sys/net/{key}");
        run(play.stage().command("rs1", "sh").args(["-c", &line]))?;
    }
    let change = ["link", "set", "eth0", "address", "02:00:00:00:99:11"];
    run(play.stage().command("rs1", "ip").args(change))?;
    play.ends(clients)
}

fn killed_rvsd(play: &mut Play<'_, '_>) -> Result<String> {
    let old = play.stays("rs1", Family::V4, 8000)?;
    let old6 = play.stays("rs1", Family::V6, 8000)?;
    let before = play.stage().adm(&["-Sn"])?;
    play.lab.director.kill()?;
    let begun = Instant::now();
    play.lab.restart_director(play.setup, play.limits)?;
    let mut tries = 0;
    play.limits.wait("a connection after the restart", Duration::from_secs(20), || {
        tries += 1;
        Ok(play.client("fresh", None, Family::V4, 50)?.end(play.limits).ok())
    })?;
    let gap = begun.elapsed().as_secs_f32();
    let after = play.stage().adm(&["-Sn"])?;
    ensure!(before == after, "other services than before:\n{before}\n{after}");
    let mut words = Vec::new();
    for (family, client) in [("IPv4", old), ("IPv6", old6)] {
        let complaint = client.end(play.limits).err().context("a connection survived")?;
        let complaint = format!("{complaint:#}");
        ensure!(complaint.contains("reset"), "{family}, {gap:.2} s without rvsd: {complaint}");
        words.push(format!("{family} {complaint}"));
    }
    let fresh = play.client("fresh", None, Family::V6, 300)?.end(play.limits)?;
    Ok(format!("served again after {gap:.2} s; {}; {fresh}", words.join(", ")))
}
