//! `rvs-conformance [DIR]`: plays recordings of the kernel to rvs and tells where they differ.
#![forbid(unsafe_code)]

use rvs_conformance::run;
use rvs_conformance::tally::Verdict;
use std::path::PathBuf;
use std::process::ExitCode;

/// The project's own recordings.
const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens");

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().map_or_else(|| PathBuf::from(GOLDENS), PathBuf::from);
    if arguments.next().is_some() {
        eprintln!("usage: rvs-conformance [DIR]");
        return ExitCode::from(2);
    }
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
