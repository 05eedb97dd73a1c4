//! Instructions per packet, counted by callgrind: the same on every machine and however busy it is.
//!
//! ```text
//!  ──► valgrind icount count memory dr v4 1024 8192   ─► a
//!  ──► valgrind icount count memory dr v4 1024 40960   ─► b      (b - a) / (40960 - 8192)
//! ```
//!
//! Each case is run with two numbers of packets; in the difference nothing is left of setting up.

use crate::case::{Family, Link, Mode};
use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::process::{Command, Stdio};
use std::{env, thread};

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

/// Counts for a mode on a link. Connections are opened in a table that ends half full.
///
/// # Errors
///
/// There is no valgrind, or no program `icount` beside this one.
pub fn count(link: Link, mode: Mode, family: Family) -> Result<Count> {
    let flows = if mode.is_established() || mode.expires() { 1024 } else { 2 * (PACKETS + MORE) };
    let flows = flows.to_string();
    let what = ["count", link.name(), mode.name(), family.name(), &flows];
    Ok(Count { all: per_packet(&what, &[])?, floor: per_packet(&what, &["--floor"])? })
}

/// Counts for two workers to one of which all packets of 1024 connections come, direct routing; the
/// floor is a worker of its own.
///
/// # Errors
///
/// As [`count`].
pub fn handoff() -> Result<Count> {
    let alone = ["count", Link::Memory.name(), Mode::Dr.name(), Family::V4.name(), "1024"];
    Ok(Count { all: per_packet(&["handoff"], &[])?, floor: per_packet(&alone, &[])? })
}

/// The difference of two runs of `icount`: so many packets come between `what` and `how`.
fn per_packet(what: &[&str], how: &[&str]) -> Result<f64> {
    let run = |packets: u32| {
        roam();
        instructions(&[what, &[&packets.to_string()], how].concat())
    };
    // Side by side, which does not change what they count.
    let (few, many) = thread::scope(|scope| {
        let [few, many] = [PACKETS, PACKETS + MORE].map(|count| scope.spawn(move || run(count)));
        (few.join(), many.join())
    });
    let [few, many] = [few, many].map(|run| run.unwrap_or_else(|_| bail!("a count panicked")));
    let (few, many) = (few?, many?);
    let added = many.checked_sub(few).context("more packets took fewer instructions")?;
    Ok(f64::from(u32::try_from(added)?) / f64::from(MORE))
}

/// Has programs that this thread starts run on any core: the bench stays on one, and they would inherit
/// that.
fn roam() {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    let _as_it_is = sched_setaffinity(None, &all);
}

/// All instructions of a run.
fn instructions(arguments: &[&str]) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(env::current_exe()?.with_file_name("icount")).args(arguments);
    // What is in the environment moves the stack, and with it what hash tables are seeded with.
    valgrind.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    let output = valgrind.stdin(Stdio::null()).output().context(
        "valgrind did not start (Debian: apt install valgrind; `cargo xtask install` does it)",
    )?;
    let report = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{arguments:?}: {report}{}", String::from_utf8_lossy(&output.stdout));
    }
    let found = report.lines().find_map(|it| it.split_once("Collected : "));
    Ok(found.context("callgrind did not say what it collected")?.1.trim().parse()?)
}
