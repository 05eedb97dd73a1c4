//! `rvsadm`, also installed as `ipvsadm`.
#![forbid(unsafe_code)]

use rvs_adm::{SocketTransport, SystemNames, run};
use std::io::{self, BufReader, BufWriter};
use std::process::ExitCode;

/// Input that `-R` takes at once, in bytes: what a file gives becomes few batches.
const STDIN_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    let argv: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let status = run(
        &argv,
        &mut BufReader::with_capacity(STDIN_BYTES, io::stdin().lock()),
        &mut SocketTransport::from_environment(),
        &SystemNames::default(),
        &mut out,
        &mut io::stderr().lock(),
    );
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
