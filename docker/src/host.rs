//! A host of a lab that is a container: the program that runs in it.
//!
//! What the driver of namespaces does from outside with `ip netns exec`, this does from inside: the
//! VIP on `lo`, routes, nginx, the unwrapping of tunnels; and at a client, requests for ever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;

use crate::decap;
use crate::process::{Limits, command, run_with_input};
use crate::web;

/// Requests of a round at each address.
const ROUND: u32 = 20;

/// Time between the beginnings of rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a host's programs keep their files.
pub const DIR: &str = "/run/rvs-lab";

/// What this host is.
#[derive(Clone, Debug, clap::Args)]
pub struct Role {
    /// Its name, which its pages have.
    #[arg(long, default_value = "host")]
    name: String,
    /// An address on `lo`: a VIP.
    #[arg(long)]
    loopback: Vec<IpNet>,
    /// `PREFIX,ROUTER`; one that is there is replaced.
    #[arg(long)]
    route: Vec<String>,
    /// Serves pages on this port.
    #[arg(long)]
    web: Option<u16>,
    /// Unwraps tunnels.
    #[arg(long)]
    decap: bool,
    /// Asks this service for pages, and says who answered.
    #[arg(long)]
    ask: Vec<SocketAddr>,
    /// Where its programs keep their files.
    #[arg(long, default_value = DIR)]
    dir: PathBuf,
}

/// Is that host, until SIGTERM.
///
/// # Errors
///
/// An address or route is refused, or a program does not start.
pub fn run(role: &Role) -> Result<()> {
    let limits = Limits::new(Duration::MAX)?;
    fs::create_dir_all(&role.dir).with_context(|| role.dir.display().to_string())?;
    let mut script = String::new();
    for address in &role.loopback {
        writeln!(script, "addr replace {address} dev lo")?;
    }
    for route in &role.route {
        let (to, via) = route.split_once(',').with_context(|| format!("--route {route}"))?;
        writeln!(script, "route replace {to} via {via}")?;
    }
    run_with_input(Command::new("ip").args(["-batch", "-"]), &script)?;
    let _nginx = match role.web {
        Some(port) => Some(web::start(command(None, "nginx"), &role.name, port, &role.dir, "")?),
        None => None,
    };
    if role.decap {
        thread::spawn(|| {
            if let Err(error) = decap::run() {
                eprintln!("rvs-lab: {error:#}");
            }
        });
    }
    println!("{}: ready", role.name);
    let mut next = Instant::now();
    while limits.check().is_ok() {
        for vip in &role.ask {
            ask(*vip, &role.dir, &limits);
        }
        next += PAUSE;
        while Instant::now() < next && limits.check().is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// One round, and one line about it.
fn ask(vip: SocketAddr, dir: &Path, limits: &Limits) {
    match web::ask(command(None, "curl"), vip.ip(), vip, ROUND, dir, limits) {
        Ok(answers) => {
            let shares: BTreeMap<_, _> = answers.by_server.iter().collect();
            let shares: Vec<_> = shares.iter().map(|(name, n)| format!("{name} {n}")).collect();
            let complaints = answers.complaints;
            println!("http://{vip}/  {ROUND} requests: {} {complaints}", shares.join(", "));
        }
        Err(error) => println!("http://{vip}/  {error:#}"),
    }
}
