//! `rvs-run`: runs an unmodified program so that it manages rvsd where it would manage the kernel's
//! IPVS.

#[allow(dead_code, reason = "the library's other half")]
mod ask;
mod program;
mod run {
    pub(crate) mod launch;
    mod notify;
    mod supervise;
}
#[allow(dead_code, reason = "the library's other half")]
mod wire;

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
Usage: rvs-run [--seccomp] PROGRAM [ARGUMENT ...]

Runs PROGRAM with librvs_preload.so, so that it manages rvsd and not the kernel's IPVS:
  rvs-run ipvsadm -Ln
  rvs-run keepalived --dont-fork --log-console

--seccomp is for programs that are linked statically, like those in Go, which do not
see the library: a process beside PROGRAM answers some of its system calls.

RVS_NETLINK  rvsd's netlink socket, if not /run/rvs/rvsd.netlink
RVS_PRELOAD  the library, if not beside rvs-run or in /usr/lib/rvs
";

const LIBRARY: &str = "librvs_preload.so";
/// What cannot be found, and what cannot be run: as the shell has it.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprint!("{USAGE}");
        return ExitCode::from(WRONG);
    };
    if program == "-h" || program == "--help" {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if program == "--version" {
        println!("rvs-run {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if program == "--seccomp" {
        let Some(program) = words.next() else {
            eprint!("{USAGE}");
            return ExitCode::from(WRONG);
        };
        if let Err(fault) = run::launch::prepare() {
            eprintln!("rvs-run: --seccomp: {fault}");
            return ExitCode::from(NOT_RUN);
        }
        return execute(Command::new(&program).args(words), &program);
    }
    if program.as_encoded_bytes().starts_with(b"-") {
        eprintln!(
            "rvs-run: {}: unknown option, expected --seccomp or a program",
            program.display()
        );
        return ExitCode::from(WRONG);
    }
    // The loader would leave out a library that it does not find, and run the program without.
    let library = match library() {
        Ok(library) => library,
        Err(fault) => {
            eprintln!("rvs-run: {fault}");
            return ExitCode::from(NOT_FOUND);
        }
    };
    if program::is_static(&program) {
        eprintln!(
            "rvs-run: {}: it is linked statically and would not see the library: use rvs-run --seccomp",
            program.display()
        );
        return ExitCode::from(NOT_RUN);
    }
    let mut preload = library.into_os_string();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload = [preload, OsString::from(":"), others].into_iter().collect();
    }
    execute(Command::new(&program).args(words).env("LD_PRELOAD", preload), &program)
}

/// Becomes the program, or says why it cannot.
fn execute(command: &mut Command, program: &OsStr) -> ExitCode {
    // The program will speak of a kernel that has no IPVS.
    if let Err(error) = wire::connect() {
        eprintln!("rvs-run: no rvsd at {}: {error}", wire::place().display());
    }
    let error = command.exec();
    let program = Path::new(program);
    eprintln!("rvs-run: {}: {error}", program.display());
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    ExitCode::from(if is_missing { NOT_FOUND } else { NOT_RUN })
}

fn library() -> Result<PathBuf, String> {
    if let Some(named) = env::var_os("RVS_PRELOAD").map(PathBuf::from) {
        let look = std::fs::File::open(&named);
        let told = |error| format!("RVS_PRELOAD names {}: {error}", named.display());
        return look.map_err(told).map(|_| named.clone());
    }
    let beside = env::current_exe().ok().and_then(|it| Some(it.parent()?.join(LIBRARY)));
    let system = Path::new("/usr/lib/rvs").join(LIBRARY);
    let found = beside.into_iter().chain([system]).find(|path| path.exists());
    found.ok_or_else(|| {
        format!("{LIBRARY} is neither beside rvs-run nor in /usr/lib/rvs: set RVS_PRELOAD")
    })
}
