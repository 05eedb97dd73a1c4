//! The director's host on the director's own link: whatever is not the director's is the host's.
//!
//! ```text
//!                       lan
//!  client ───────────────┬──────────── one device of the director's host
//!                        │               ├── rvsd: 172.16.30.2, VIP 172.16.30.1   its own address
//!  rs1, rs2 ─────────────┘               └── the host's kernel: 172.16.30.3       the device's
//! ```
//!
//! Two ways: with AF_XDP the kernel keeps the device, with DPDK it gets a TAP device instead. In both
//! the host's ping, TCP and VRRP must work while the service is balanced.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::director::Driver;
use crate::lab::{Lab, Setup, show_logs};
use crate::netns::{DIRECTOR, ip, tap_name};
use crate::process::{Daemon, Limits, command, run};
use crate::stage::Stage;
use crate::topology::{Family, Topology};
use crate::web;

/// The network that all are on.
const LAN: &str = "lan";
/// Where the host's web server listens.
const PORT: u16 = 8080;
/// Octets of a download from the host.
const DOWNLOAD: usize = 5_000_000;
/// Requests to the VIP, and to the host, in turn.
const ROUNDS: u32 = 5;
const REQUESTS: u32 = 20;
/// What VRRP moves.
const VIRTUAL: &str = "172.16.30.200";

/// Plays it. Whether all went well.
///
/// # Errors
///
/// The lab cannot be built.
pub fn run_scenario(setup: &Setup, limits: &Limits) -> Result<bool> {
    let topology = Topology::load("dr")?;
    let device = setup.driver.host_device(LAN);
    let device = device.context("expected --link af_xdp or --link af_packet")?;
    println!("\n== share: ping, TCP and VRRP of the director's host by {device}");
    let outcome = play(&topology, &device, setup, limits);
    if let Err(error) = &outcome {
        println!("   FAILED: {error:#}");
        show_logs(&topology, setup)?;
    } else {
        let seconds = limits.elapsed().as_secs_f32();
        println!("\nshare: the rest is the host's, {seconds:.1} s");
    }
    Ok(outcome.is_ok())
}

fn play(topology: &Topology, device: &str, setup: &Setup, limits: &Limits) -> Result<()> {
    let lab = Lab::up(topology, setup, limits)?;
    settle_in(topology, device, setup.driver)?;
    let stage: &dyn Stage = &lab;
    let mut addresses = Vec::new();
    for (family, own) in Family::ALL.into_iter().zip(["172.16.30.3", "fd00:30::3"]) {
        let vip = topology.vip(family).context("a VIP of each family")?;
        let vip = SocketAddr::new(vip, topology.service.port);
        stage.add_service(vip)?;
        let own: IpAddr = own.parse()?;
        addresses.push((family, vip, own));
    }
    let _web = serve(&lab.dir)?;
    web::wait_until_served(DIRECTOR, PORT, limits)?;

    for (family, vip, own) in addresses {
        let client = topology.address_of("client", family)?;
        for (from, to) in
            [("client", own), (DIRECTOR, client), ("client", director(topology, family)?)]
        {
            ping(from, to)?;
        }
        limits.say(topology, &format!("{}: host and client ping each other", family.name()));
        for _ in 0..ROUNDS {
            for (at, what) in [(vip, "the VIP"), (SocketAddr::new(own, PORT), "the host")] {
                let answers = web::ask(
                    command(Some("client"), "curl"),
                    client,
                    at,
                    REQUESTS,
                    &lab.dir,
                    limits,
                )?;
                ensure!(
                    answers.total() == u64::from(REQUESTS) && answers.disguised == 0,
                    "{what}: {answers:?}"
                );
                let servers: Vec<_> = answers.by_server.keys().map(String::as_str).collect();
                let expected: &[&str] = if at == vip { &["rs1", "rs2"] } else { &[DIRECTOR] };
                ensure!(servers == expected, "{what} was answered by {servers:?}");
            }
        }
        let size = download("client", SocketAddr::new(own, PORT))?;
        ensure!(size == DOWNLOAD, "{size} octets of {DOWNLOAD} came");
        let server = topology.address_of("rs1", family)?;
        let server = SocketAddr::new(server, topology.service.dest_port);
        let asked = topology.address_of("rs1", family)?;
        let answers =
            web::ask(command(Some(DIRECTOR), "curl"), own, server, REQUESTS, &lab.dir, limits)?;
        ensure!(answers.total() == u64::from(REQUESTS), "the host asks {asked}: {answers:?}");
        let all = ROUNDS * REQUESTS;
        limits.say(
            topology,
            &format!(
                "{}: {all} answers of the VIP, {all} of the host, {size} octets",
                family.name()
            ),
        );
    }
    vrrp(topology, device, &lab, limits)?;
    let (summary, _) = lab.end(limits)?;
    limits.say(topology, "rvsd ended in order; its summary:");
    for line in summary.lines() {
        println!("             {line}");
    }
    Ok(())
}

/// Gives the host its addresses.
fn settle_in(topology: &Topology, device: &str, driver: Driver) -> Result<()> {
    if driver == Driver::AfPacket {
        // A card would be gone from the kernel. Of a veth the kernel sees each frame as well, and is
        // to do nothing with it: strict reverse paths, for the way back is by the other device.
        let nic = tap_name(LAN);
        let deaf = format!(
            "echo 1 > /proc/sys/net/ipv6/conf/{nic}/disable_ipv6\n\
             echo 1 > /proc/sys/net/ipv4/conf/{nic}/rp_filter"
        );
        run(command(Some(DIRECTOR), "sh").args(["-ec", &deaf]))?;
        ip(DIRECTOR, &format!("link set {nic} arp off\n"))?;
        // And it brings frames whose checksums their senders left to a card.
        for host in &topology.hosts {
            run(command(Some(&host.name), "ethtool").args(["-K", "eth0", "tx", "off"]))?;
        }
    }
    ip(
        DIRECTOR,
        &format!(
            "link set lo up\naddr add 172.16.30.3/24 dev {device}\n\
             addr add fd00:30::3/64 dev {device} nodad\n"
        ),
    )
}

/// The director's own address.
fn director(topology: &Topology, family: Family) -> Result<IpAddr> {
    let mut all = topology.director.interfaces.iter().flat_map(|it| &it.addresses);
    let found = all.find(|address| Family::of(address.addr()) == family);
    found.map(ipnet::IpNet::addr).context("the director has no address of the family")
}

/// A web server on the director's host: its usual page, and something longer.
fn serve(dir: &Path) -> Result<Daemon> {
    fs::write(dir.join("long"), vec![b'x'; DOWNLOAD])?;
    let more = format!("location /long {{ root {}; }}", dir.display());
    web::start(command(Some(DIRECTOR), "nginx"), DIRECTOR, PORT, dir, &more)
}

fn ping(from: &str, to: IpAddr) -> Result<()> {
    let to = to.to_string();
    let said =
        run(command(Some(from), "ping").args(["-n", "-c", "3", "-i", "0.2", "-w", "30", &to]))?;
    ensure!(said.contains(" 3 received") && !said.contains("DUP"), "{from} pings {to}:\n{said}");
    Ok(())
}

fn download(from: &str, server: SocketAddr) -> Result<usize> {
    let mut curl = command(Some(from), "curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "120", "--output"]);
    curl.args(["/dev/null", "--write-out", "%{size_download}", &format!("http://{server}/long")]);
    Ok(run(&mut curl)?.trim().parse()?)
}

/// The host and the client share an address by VRRP: who hears the better one's advertisements is
/// silent, and takes over when they end.
fn vrrp(topology: &Topology, device: &str, lab: &Lab<'_>, limits: &Limits) -> Result<()> {
    let has_it = |host: &str| -> Result<bool> {
        let shown = run(Command::new("ip").args(["-n", host, "-4", "-o", "addr"]))?;
        Ok(shown.contains(VIRTUAL))
    };
    let wait = |host: &str, what: &str| {
        limits.wait(what, Duration::from_mins(1), || Ok(has_it(host)?.then_some(())))
    };
    let _clients = keepalived("client", "eth0", 50, &lab.dir)?;
    wait("client", "VRRP's master is the client, alone")?;
    let mut hosts = keepalived(DIRECTOR, device, 100, &lab.dir)?;
    wait(DIRECTOR, "VRRP's master is the host, which is better")?;
    limits.wait("the client hears the host and yields", Duration::from_mins(1), || {
        Ok((!has_it("client")?).then_some(()))
    })?;
    ping("rs1", VIRTUAL.parse()?)?;
    hosts.terminate(limits)?;
    wait("client", "VRRP's master is the client again")?;
    limits.say(topology, "VRRP: host and client hear each other, and the address moves");
    Ok(())
}

fn keepalived(host: &str, device: &str, priority: u8, dir: &Path) -> Result<Daemon> {
    let file = dir.join(format!("{host}.keepalived.conf"));
    fs::write(
        &file,
        format!(
            "global_defs {{\n  router_id {host}\n}}\n\
             vrrp_instance lab {{\n  state BACKUP\n  interface {device}\n  virtual_router_id 51\n\
             \x20 priority {priority}\n  advert_int 1\n  virtual_ipaddress {{\n    {VIRTUAL}/24\n  }}\n}}\n"
        ),
    )?;
    let mut program = command(Some(host), "keepalived");
    program.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&file);
    for (option, end) in [("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
        program.arg(option).arg(dir.join(format!("{host}.keepalived.{end}")));
    }
    Daemon::start(&format!("{host}.vrrp"), program, dir)
}
