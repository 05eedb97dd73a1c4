//! Instructions per packet, counted by callgrind: the same on every machine and however busy it is.
//!
//! ```text
//!  ──► valgrind icount count dr v4 1024 8192    ─► a
//!  ──► valgrind icount count dr v4 1024 40960   ─► b      (b - a) / (40960 - 8192)
//! ```
//!
//! Each case is run with two numbers of packets; in the difference nothing is left of setting up.

use crate::case::{Family, Mode};
use anyhow::{Context as _, Result, bail};
use std::env;
use std::process::{Command, Stdio};

/// Packets of the shorter run, and how many more the longer one has.
const PACKETS: u32 = 8192;
const MORE: u32 = 32768;

/// Instructions per packet.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Of director and link.
    pub all: f64,
    /// Of the link, with the floor.
    pub floor: f64,
}

impl Count {
    /// What the director does.
    #[must_use]
    pub fn net(self) -> f64 {
        self.all - self.floor
    }
}

/// Counts for a mode. Connections are opened in a table that ends half full.
///
/// # Errors
///
/// There is no valgrind, or no program `icount` beside this one.
pub fn count(mode: Mode, family: Family) -> Result<Count> {
    let flows = if mode.is_established() || mode.expires() { 1024 } else { 2 * (PACKETS + MORE) };
    Ok(Count {
        all: per_packet(mode, family, flows, false)?,
        floor: per_packet(mode, family, flows, true)?,
    })
}

/// The difference of two runs.
fn per_packet(mode: Mode, family: Family, flows: u32, floor: bool) -> Result<f64> {
    let run = |packets| instructions(mode, family, flows, packets, floor);
    let (few, many) = (run(PACKETS)?, run(PACKETS + MORE)?);
    let added = many.checked_sub(few).context("more packets took fewer instructions")?;
    Ok(f64::from(u32::try_from(added)?) / f64::from(MORE))
}

/// All instructions of a run.
fn instructions(mode: Mode, family: Family, flows: u32, packets: u32, floor: bool) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let program = env::current_exe()?.with_file_name("icount");
    valgrind.arg(program).args(["count", mode.name(), family.name()]);
    valgrind.args([flows.to_string(), packets.to_string()]).args(floor.then_some("--floor"));
    // What is in the environment moves the stack, and with it what hash tables are seeded with.
    valgrind.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    let output = valgrind.stdin(Stdio::null()).output().context(
        "valgrind did not start (Debian: apt install valgrind; `cargo xtask install` does it)",
    )?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{mode} {family}: {report}{}", String::from_utf8_lossy(&output.stdout));
    }
    let line = report.lines().find_map(|line| line.split_once("Collected : "));
    Ok(line.context("callgrind did not say what it collected")?.1.trim().parse()?)
}
