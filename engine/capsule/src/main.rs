//! `rvs-capsule CAPSULE.toml RVS.toml`: a director in a Capsule runtime.
#![forbid(unsafe_code)]

use rvs_capsule::{Failure, Guest, log};
use rvs_control::config::{Config, Machine};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A frame is not accounted for: as rvsd ends then.
const UNACCOUNTED: u8 = 4;

fn main() -> ExitCode {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [capsule, rvs] = files.as_slice() else {
        log("usage: rvs-capsule CAPSULE.toml RVS.toml");
        return ExitCode::from(2);
    };
    run(capsule, rvs).unwrap_or_else(|failure| {
        log(format_args!("rvs-capsule: {failure}"));
        ExitCode::FAILURE
    })
}

fn run(capsule: &Path, rvs: &Path) -> Result<ExitCode, Failure> {
    let text = std::fs::read_to_string(capsule)
        .map_err(|error| Failure::File { path: capsule.to_owned(), why: error.to_string() })?;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Cores are in Capsule's configuration.
    let machine = Machine { cores: Vec::new(), name: name.trim().to_owned() };
    let summary = Guest::new(&text, Config::read(rvs, &machine)?)?.run()?;
    let _closed = writeln!(std::io::stdout(), "{summary}");
    Ok(if summary.is_conserved() { ExitCode::SUCCESS } else { ExitCode::from(UNACCOUNTED) })
}
