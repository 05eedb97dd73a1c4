//! Instructions per packet, counted by callgrind: the same on every machine and however busy it is.
//!
//! ```text
//!  icount ──► valgrind icount count dr v4 8192   ─► a
//!         └─► valgrind icount count dr v4 40960  ─► b      (b - a) / (40960 - 8192)
//! ```
//!
//! Each case is run with two numbers of packets; in the difference nothing is left of setting up.
//! `net` is less the floor: what the director does, without the link. It is compared with the
//! committed baseline, and more than [`TOLERANCE`] above it is a failure.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use rvs_benches::feed::{OCTETS4, OCTETS6};
use rvs_benches::{Case, Family, Floor, Mode, Rig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, iter};

/// By how much more than the baseline is too much.
const TOLERANCE: f64 = 0.02;

/// Packets of the shorter run, and how many more the longer one has.
const PACKETS: u32 = 8192;
const MORE: u32 = 32768;

/// What is counted. Connections are opened in a table that ends half full.
const CASES: [(Mode, u32); 6] = [
    (Mode::Nat, 1024),
    (Mode::NatBoth, 1024),
    (Mode::Dr, 1024),
    (Mode::Tun, 1024),
    (Mode::SynNat, 81_920),
    (Mode::SynDr, 81_920),
];

/// Counts instructions per packet and compares them with the baseline.
#[derive(Parser)]
#[command(name = "icount")]
struct Arguments {
    /// Writes the baseline anew.
    #[arg(long)]
    bless: bool,
    /// Only these modes.
    #[arg(long, value_delimiter = ',')]
    mode: Vec<Mode>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What runs inside valgrind.
#[derive(clap::Subcommand)]
enum Inner {
    /// Sends packets through a director, or over the floor, and ends.
    #[command(hide = true)]
    Count {
        mode: Mode,
        family: Family,
        flows: u32,
        packets: u32,
        #[arg(long)]
        floor: bool,
    },
}

/// Instructions per packet.
#[derive(Clone, Copy, Debug)]
struct Count {
    all: f64,
    floor: f64,
}

impl Count {
    fn net(self) -> f64 {
        self.all - self.floor
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Inner::Count { mode, family, flows, packets, floor }) = arguments.inner {
        let case = Case { mode, family, flows, burst: 64, huge_pages: false };
        match family {
            Family::V4 => pass::<OCTETS4>(case, packets, floor)?,
            Family::V6 => pass::<OCTETS6>(case, packets, floor)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    compare(&arguments)
}

fn pass<const N: usize>(case: Case, packets: u32, floor: bool) -> Result<()> {
    if floor {
        Floor::<N>::new(case).run(packets.into())
    } else {
        Rig::<N>::new(case)?.run(packets.into())
    }
}

fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("icount/baseline.csv");
    let baseline = if arguments.bless { BTreeMap::new() } else { read(&place)? };
    println!("{:<10} {:>4} {:>8} {:>8} {:>8}   baseline", "mode", "", "all", "floor", "net");
    let mut counts = Vec::new();
    let (mut worse, mut better) = (0, 0);
    for (mode, flows) in CASES {
        if !arguments.mode.is_empty() && !arguments.mode.contains(&mode) {
            continue;
        }
        for family in Family::ALL {
            let count = Count {
                all: per_packet(mode, family, flows, false)?,
                floor: per_packet(mode, family, flows, true)?,
            };
            let name = format!("{mode},{family}");
            let remark = match baseline.get(&name) {
                None => String::new(),
                Some(before) => {
                    let ratio = count.net() / before.net() - 1.0;
                    worse += i32::from(ratio > TOLERANCE);
                    better += i32::from(ratio < -TOLERANCE);
                    format!("{:>8.1} {:>+6.1} %", before.net(), ratio * 100.0)
                }
            };
            let Count { all, floor } = count;
            println!(
                "{mode:<10} {family:>4} {all:>8.1} {floor:>8.1} {:>8.1}   {remark}",
                count.net()
            );
            counts.push((name, count));
        }
    }
    if arguments.bless {
        ensure!(arguments.mode.is_empty(), "a baseline has all modes: leave --mode away");
        write(&place, &counts)?;
        println!("wrote {} counts", counts.len());
        return Ok(ExitCode::SUCCESS);
    }
    if worse > 0 {
        println!("{worse} counts are more than 2 % above the baseline (--bless accepts them)");
        return Ok(ExitCode::FAILURE);
    }
    let hint = if better > 0 { "; --bless keeps what was gained" } else { "" };
    println!("{} counts, none more than 2 % above the baseline{hint}", counts.len());
    Ok(ExitCode::SUCCESS)
}

/// The difference of two runs.
fn per_packet(mode: Mode, family: Family, flows: u32, floor: bool) -> Result<f64> {
    let count = |packets| instructions(mode, family, flows, packets, floor);
    let (few, many) = (count(PACKETS)?, count(PACKETS + MORE)?);
    let added = many.checked_sub(few).context("more packets took fewer instructions")?;
    Ok(f64::from(u32::try_from(added)?) / f64::from(MORE))
}

/// All instructions of a run of ourselves.
fn instructions(mode: Mode, family: Family, flows: u32, packets: u32, floor: bool) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(env::current_exe()?).args(["count", mode.name(), family.name()]);
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

fn read(place: &PathBuf) -> Result<BTreeMap<String, Count>> {
    let text = fs::read_to_string(place)
        .with_context(|| format!("no baseline {} (--bless writes it)", place.display()))?;
    let mut counts = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [mode, family, all, floor, _] = *fields else { bail!("not five fields: {line}") };
        let count = Count { all: all.parse()?, floor: floor.parse()? };
        counts.insert(format!("{mode},{family}"), count);
    }
    Ok(counts)
}

fn write(place: &Path, counts: &[(String, Count)]) -> Result<()> {
    let lines = counts.iter().map(|(name, count)| {
        let Count { all, floor } = count;
        format!("{name},{all:.1},{floor:.1},{:.1}\n", count.net())
    });
    let text: String = iter::once("mode,family,all,floor,net\n".to_owned()).chain(lines).collect();
    Ok(fs::write(place, text)?)
}
