//! rvs beside its peers, and by itself for a long time, between real kernels: how many requests, connections and octets, and what
//! they cost in processor time.
//!
//! Each peer in turn stands between a client and real servers, in [`stage`]s of network namespaces;
//! rounds go over all peers, so that what the machine does meanwhile meets all alike.
#![forbid(unsafe_code)]

mod flood;
mod floor;
mod load;
mod pace;
mod peer;
mod rvsd;
mod soak;
mod stage;
mod table;
mod usage;

use std::env;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use rvs_lab::process::{Limits, run};

use crate::load::{Groups, Load, measure};
use crate::peer::Peer;
use crate::rvsd::Driver;
use crate::stage::Wire;
use crate::table::Figures;
use crate::usage::Group;

/// Set for the process that has its own mounts.
const PRIVATE: &str = "RVS_TOPOLOGY_PRIVATE";

/// rvs and its peers between real kernels.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs the same work through each, and prints one table.
    Compare(Compare),
    /// Mixed traffic through rvsd for a while: whether anything leaks or is not accounted for.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Small datagrams as fast as they go.
    #[command(hide = true)]
    Flood {
        /// Where.
        to: SocketAddr,
        /// For how long.
        seconds: u32,
    },
    /// Takes datagrams.
    #[command(hide = true)]
    Sink {
        /// Where.
        at: SocketAddr,
    },
    /// Carries frames between two devices.
    #[command(hide = true)]
    Floor {
        /// Of which kind.
        over: Driver,
    },
    /// Requests at a fixed rate, and how long each took from when it was due.
    #[command(hide = true)]
    Pace {
        /// Where.
        to: SocketAddr,
        /// Requests a second.
        rate: u32,
        /// For how long.
        seconds: u32,
    },
}

#[derive(clap::Args)]
struct Compare {
    /// Rounds over all peers.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds for each load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// What links carry; both unless told otherwise.
    #[arg(long, value_enum)]
    wire: Vec<Wire>,
    /// Who is compared; all unless told otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The work; all of it unless told otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    loads: Vec<Load>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().action {
        Action::Compare(compare) => in_private(|bin| compare_all(&compare, bin)),
        Action::Soak { minutes } => in_private(|bin| soak::act(bin, minutes)),
        Action::Flood { to, seconds } => flood::send(to, seconds),
        Action::Sink { at } => flood::sink(at),
        Action::Floor { over: Driver::Tap } => floor::tap(),
        Action::Floor { over: Driver::AfXdp } => floor::af_xdp(),
        Action::Pace { to, rate, seconds } => pace::act(to, rate, seconds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvs-topology: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `act` with a `/run` of its own, where namespaces and files have plain names, and go with the
/// last process. It is given the folder of this program, where rvsd is as well.
fn in_private(act: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let own = env::current_exe().context("where this program is")?;
    if env::var_os(PRIVATE).is_none() {
        let mut again = Command::new("unshare");
        again.args(["--mount", "--propagation", "private", "--"]).arg(own);
        return Err(again.args(env::args_os().skip(1)).env(PRIVATE, "1").exec()).context("unshare");
    }
    run(Command::new("mount").args(["-t", "tmpfs", "rvs-topology", "/run"]))?;
    let bin = own.parent().context("this program is in no folder")?;
    for program in ["rvsd", "rvsadm", "rvs-lab"] {
        ensure!(bin.join(program).exists(), "no {program} beside this program: build it");
    }
    act(bin)
}

fn compare_all(compare: &Compare, bin: &Path) -> Result<()> {
    let or_all = |some: &[Peer], all: &[Peer]| if some.is_empty() { all } else { some }.to_vec();
    let peers = or_all(&compare.peers, &Peer::ALL);
    let loads = if compare.loads.is_empty() { Load::ALL.to_vec() } else { compare.loads.clone() };
    let wires =
        if compare.wire.is_empty() { vec![Wire::Gso, Wire::Mtu] } else { compare.wire.clone() };
    let groups = Groups { ends: Group::new("ends")?, director: Group::new("director")? };
    groups.ends.take(std::process::id())?;
    let limits = Limits::new(Duration::MAX)?;
    for wire in wires {
        let mut figures = Figures::default();
        for round in 1..=compare.rounds {
            for peer in &peers {
                limits.check()?;
                eprintln!("{} round {round} of {}: {}", wire.name(), compare.rounds, peer.name());
                let dir = PathBuf::from("/run/rvs-topology").join(format!("{peer:?}"));
                let outcome = (|| {
                    let (stage, rvsd) = peer.set_up(wire, bin, &dir, &groups.director, &limits)?;
                    for load in &loads {
                        if *load == Load::Small && !peer.carries_udp() {
                            continue;
                        }
                        match measure(*load, &stage, &groups, compare.seconds) {
                            Ok(figure) => {
                                eprintln!(
                                    "    {load:?} {:.2}, {:.2} µs each",
                                    figure.value, figure.cpu_us
                                );
                                figures.add(*peer, *load, round, figure);
                            }
                            Err(error) => eprintln!("    {load:?}: {error:#}"),
                        }
                        limits.check()?;
                    }
                    if let Some(mut rvsd) = rvsd {
                        let (account, _log) = rvsd.end(&limits)?;
                        let holds = account.lines().any(|line| line.ends_with(": holds"));
                        ensure!(holds, "rvsd lost count of frames:\n{account}");
                    }
                    Ok(())
                })();
                limits.check()?;
                if let Err(error) = outcome {
                    eprintln!("    {}: {error:#}", peer.name());
                }
            }
        }
        let what = match wire {
            Wire::Gso => "what kernels' devices offer each other: frames of up to 64 KB",
            Wire::Mtu => "frames of at most 1514 octets with finished checksums, as on a cable",
        };
        println!(
            "\nWire: {what}. Medians of {} rounds of {} s; latency in µs at 2000 requests a second.",
            compare.rounds, compare.seconds
        );
        figures.print(&peers);
    }
    Ok(())
}
