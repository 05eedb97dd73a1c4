//! `rvs-conformance [DIR]`: plays recordings of the kernel to rvs and tells where they differ;
//! `rvs-conformance --ask`: asks the kernel anew.
#![forbid(unsafe_code)]

use clap::Parser;
use rvs_conformance::ask::{self, Answers, Kind, Plan};
use rvs_conformance::run;
use rvs_conformance::tally::{Failure, Verdict};
use std::path::PathBuf;
use std::process::ExitCode;

/// The project's own recordings.
const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens");

/// Compares rvs with the kernel.
#[derive(Parser)]
struct Arguments {
    /// A folder of recordings, if not the project's own.
    dir: Option<PathBuf>,
    /// Boots Debian's kernel in an emulator and plays generated cases to it and to rvs.
    #[arg(long, conflicts_with = "dir")]
    ask: bool,
    /// Asks only cases of this kind: schedulers, states, persistence, thresholds, commands, packets.
    /// May be repeated.
    #[arg(long, requires = "ask")]
    kind: Vec<Kind>,
    /// Cases of each kind.
    #[arg(long, requires = "ask", default_value_t = 200)]
    cases: u32,
    /// The first case's seed; the others count up from it.
    #[arg(long, requires = "ask", default_value_t = 1)]
    seed: u64,
    /// Writes every case, with the kernel's answers, to this folder: recordings for DIR.
    #[arg(long, requires = "ask")]
    keep: Option<PathBuf>,
    /// Where the machine's files are, or are to be made.
    #[arg(long, requires = "ask", default_value = "target/oracle")]
    machine: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.ask {
        return match ask(arguments) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("rvs-conformance: {error}");
                ExitCode::from(2)
            }
        };
    }
    let folder = arguments.dir.unwrap_or_else(|| PathBuf::from(GOLDENS));
    match run(&folder, |outcome| println!("{outcome}")) {
        Ok(report) if report.outcomes.is_empty() => {
            eprintln!("rvs-conformance: {}: no recordings there", folder.display());
            ExitCode::from(2)
        }
        Ok(report) => {
            println!("\n{report}");
            ExitCode::from(u8::from(report.count(Verdict::Failed) > 0))
        }
        Err(error) => {
            eprintln!("rvs-conformance: {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

fn ask(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { mut kind, cases, seed, keep, machine, .. } = arguments;
    if kind.is_empty() {
        kind = Kind::ALL.to_vec();
    }
    let plan = Plan { kinds: kind, cases, seed, keep };
    let Answers { tallies, found } = ask::ask(&plan, &machine, |line| println!("{line}"))?;
    if let Some(found) = &found {
        let path = machine.join("smallest.json");
        let text = serde_json::to_string_pretty(&found.case).map_err(told)?;
        std::fs::write(&path, &text).map_err(told)?;
        println!("\nthe smallest case that differs, as a recording in {}:", path.display());
        for line in found.case.setup() {
            println!("  ipvsadm {line}");
        }
        for event in &found.case.events {
            println!("  {event}");
        }
        println!("{}", found.difference);
    }
    println!();
    let (mut equal, mut differ, mut beyond) = (0, 0, 0);
    for (kind, tally) in &tallies {
        let reason = tally.reason.as_deref().map(|it| format!(" ({it})")).unwrap_or_default();
        println!(
            "{kind:<12} {:>4} equal {:>4} differ {:>4} not covered{reason}; {} comparisons",
            tally.equal, tally.differ, tally.beyond, tally.compared
        );
        equal += tally.equal;
        differ += tally.differ;
        beyond += tally.beyond;
    }
    println!("{equal} passed, {differ} failed, {beyond} not covered");
    Ok(ExitCode::from(u8::from(differ > 0)))
}

fn told(error: impl core::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}
