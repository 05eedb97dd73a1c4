//! rvsd, the director: reads its configuration, opens its links, starts its workers, and then only
//! listens to its operators. Here is the start order; what moves packets is `rvs-plane`.
#![forbid(unsafe_code)]

mod af_xdp;
mod check;
mod device;
#[cfg(feature = "dpdk")]
mod dpdk;
mod run;
mod turn;

use clap::{Parser, Subcommand};
use rvs_control::config::{Config, Machine};
use rvs_plane::drop_reason::drop_counters;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How rvsd ends, beside 0. 2 is clap's: the command line is wrong.
mod exit {
    /// Configuration, links, cores or control socket: it could not do its work.
    pub const FAILED: u8 = 1;
    /// A worker died: it panicked.
    pub const DIED: u8 = 3;
    /// A frame is not accounted for.
    pub const UNACCOUNTED: u8 = 4;
    /// A worker stalled: it did not breathe, or did not stop.
    pub const STALLED: u8 = 5;
}

/// Layer-4 load balancer in user space that does what Linux IPVS does.
#[derive(Debug, Parser)]
#[command(name = "rvsd", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a director until SIGTERM or SIGINT
    Run {
        /// Its configuration
        file: PathBuf,
    },
    /// Says what is wrong with a configuration, or what it describes
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Lists the reasons for which frames are dropped, as the summary names them
    Counters,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { file } => configuration(&file).and_then(|config| run::run(&config)),
        Command::Check { file } => configuration(&file).map(|config| {
            print(check::Told { file: &file, config: &config });
            ExitCode::SUCCESS
        }),
        Command::Counters => {
            for (name, sentence) in drop_counters() {
                print(format_args!("{name:<24}{}", sentence.trim()));
            }
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|failure| {
        log(format_args!("rvsd: {failure}"));
        ExitCode::from(exit::FAILED)
    })
}

fn configuration(file: &Path) -> Result<Config, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let machine = Machine {
        cores: cores.into_iter().map(|core| core.id).collect(),
        name: name.trim().to_owned(),
    };
    Ok(Config::read(file, &machine)?)
}

/// Why rvsd does not start, or could not end as it should. One line.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] rvs_control::config::ConfigError),
    #[error(transparent)]
    Socket(#[from] rvs_control::socket::SocketError),
    #[error(transparent)]
    Store(#[from] rvs_control::store::StoreError),
    #[error(transparent)]
    Tap(#[from] rvs_io::tap::TapError),
    #[error("link {link}: {source}")]
    AfXdp { link: String, source: rvs_io::af_xdp::AfXdpError },
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] rvs_dpdk::DpdkError),
    #[cfg(not(feature = "dpdk"))]
    #[error(
        "this rvsd was built without DPDK; build one with it: apt-get install libdpdk-dev \
         pkg-config && cargo build --release -p rvs-daemon --features dpdk"
    )]
    NoDpdk,
    #[error("capture {}: {source}", path.display())]
    Capture { path: PathBuf, source: rvs_io::pcap::CaptureError },
    #[error(
        "no memory for {conns4} IPv4 and {conns6} IPv6 connections of each worker: they take {mib} MiB \
         together; make `conns` and `conns6` of [tables] smaller"
    )]
    Memory { conns4: u32, conns6: u32, mib: u64 },
    #[error("worker {worker}: {what}")]
    Worker { worker: usize, what: String },
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

/// A line on standard output; nobody to read it is no reason to fail.
fn print(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error; nobody to read it is no reason to fail.
fn log(line: impl Display) {
    // One write, so that lines of several threads do not mix.
    let _closed = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
