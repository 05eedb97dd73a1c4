//! rvs-pktgen: see the library.
#![forbid(unsafe_code)]

use clap::Parser;
use rvs_pktgen::args::Arguments;
use rvs_pktgen::cli;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            let _closed = writeln!(std::io::stderr(), "rvs-pktgen: {trouble}");
            ExitCode::FAILURE
        }
    }
}
