//! The guard: instructions per packet of every mode against the committed baseline.
//!
//! `net` is less the floor: what the director does, without the link. More than [`TOLERANCE`] above
//! the baseline is a failure.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use rvs_benches::count::{Count, count};
use rvs_benches::feed::Source;
use rvs_benches::handoff::Pair;
use rvs_benches::link::{self, Job};
use rvs_benches::{Case, Family, Floor, Link, Mode, Rig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, iter};

/// By how much more than the baseline is too much.
const TOLERANCE: f64 = 0.02;

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
        link: Link,
        mode: Mode,
        family: Family,
        flows: u32,
        packets: u32,
        #[arg(long)]
        floor: bool,
    },
    /// Sends packets through two workers, all to one of them, and ends.
    #[command(hide = true)]
    Handoff { packets: u32 },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.inner {
        None => return compare(&arguments),
        Some(Inner::Count { link, mode, family, flows, packets, floor }) => {
            let case = Case { huge_pages: false, ..Case::new(mode, family, flows) };
            link::on(link, family, Pass { case, packets, floor })?;
        }
        Some(Inner::Handoff { packets }) => {
            let case = Case::new(Mode::Dr, Family::V4, 1024);
            Pair::new(Case { huge_pages: false, ..case })?.run(packets.into())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Packets through a director, or over its floor.
struct Pass {
    case: Case,
    packets: u32,
    floor: bool,
}

impl Job for Pass {
    type Outcome = ();

    fn on<S: Source>(self) -> Result<()> {
        let Self { case, packets, floor } = self;
        if floor {
            Floor::<S>::new(case)?.run(packets.into())
        } else {
            Rig::<S>::new(case)?.run(packets.into())
        }
    }
}

fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("icount/baseline.csv");
    let baseline = if arguments.bless { BTreeMap::new() } else { read(&place)? };
    println!("{:<14} {:>4} {:>8} {:>8} {:>8}   baseline", "mode", "", "all", "floor", "net");
    let mut counts = Vec::new();
    let (mut worse, mut better) = (0, 0);
    for mode in Mode::ALL {
        if !arguments.mode.is_empty() && !arguments.mode.contains(&mode) {
            continue;
        }
        for family in Family::ALL {
            let count = count(Link::Memory, mode, family)?;
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
                "{mode:<14} {family:>4} {all:>8.1} {floor:>8.1} {:>8.1}   {remark}",
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
