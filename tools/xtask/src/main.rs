//! `cargo xtask`: what the people who work on rvs do, each as one command.
//!
//! Compiled before anything else, so it depends on little.
#![forbid(unsafe_code)]

mod deps;
mod differences;
mod go;
mod install;
mod source;
mod step;
mod test;
mod tidy;
mod workspace;

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds rvs and shows it between real kernels: NAT, DR and TUN over IPv4 and IPv6.
    Demo {
        /// How rvsd gets at its links.
        #[arg(long, value_enum, default_value_t)]
        link: Link,
    },
    /// What real programs do through rvsd, each as a claim; `-- --help` for the choices.
    Functional {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Servers and rvsd die, cables are pulled, disks fill up: what clients see of it.
    Faults,
    /// Labs in containers, by an engine of their own: images, compose files, requests, the same claims.
    Containers {
        /// Builds the images from source, in a build stage, instead of from what cargo built here.
        #[arg(long)]
        source: bool,
        /// With DPDK: its `net_tap` has the links.
        #[arg(long)]
        dpdk: bool,
        /// Handed on: `--topology nat`, `--only WORD`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything that must hold, as a table; `--quick` is what to run before each commit.
    #[command(visible_alias = "ci")]
    Test {
        /// Without network labs, release builds and callgrind.
        #[arg(long)]
        quick: bool,
    },
    /// Compares rvs with recordings of the kernel; with --ask, with the kernel itself.
    Conformance {
        /// A folder of recordings, if not the project's own; or `--ask` and its options (`--ask --help`).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The manual's page of what differs from Linux, made from the marks in the code.
    Differences {
        /// Writes the page anew instead of looking whether it is current.
        #[arg(long)]
        bless: bool,
    },
    /// Plays captures to the director and compares what it sends with the captures it should send.
    Scenarios {
        /// Writes those anew instead; look at the difference before you commit it.
        #[arg(long)]
        bless: bool,
    },
    /// Who may use whom, and where `unsafe` may stand.
    Deps,
    /// Lengths of files, marks of unfinished work, paths of somebody's machine.
    Tidy,
    /// Instructions per packet, by callgrind, against the committed baseline.
    Icount {
        /// Writes the baseline anew instead.
        #[arg(long)]
        bless: bool,
    },
    /// Nanoseconds per packet, and what else a director must stand; `-- --help` for the choices.
    Bench {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// What control costs with ten thousand services: time of rvsadm and ipvsadm, how soon workers see a
    /// change, what changes take from them.
    Control {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// rvs beside forwarding, nftables, HAProxy and nginx, between real kernels; `-- --help` for the choices.
    Topology {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Mixed traffic through rvsd for a while, and whether anything leaks or is not accounted for.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Debian's `dpdk-testpmd` on three sides of rvsd for a while, and whether all counts agree.
    Testpmd {
        /// For how long, with one worker and with two.
        #[arg(long, default_value_t = 1)]
        minutes: u32,
    },
    /// Programs in Go, linked statically, drive rvsd: with moby's library, and Debian's node exporter. Installs
    /// Go, 200 MB.
    Go,
    /// Installs what the other commands need and is missing.
    Install,
}

/// What drives a director's links.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Link {
    /// rvsd itself, through the kernel's TAP.
    #[default]
    Tap,
    /// DPDK, through its `net_tap`.
    Dpdk,
    /// rvsd itself, through AF_XDP on veths.
    #[value(name = "af_xdp")]
    AfXdp,
}

fn main() -> ExitCode {
    match act(&Arguments::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(chore: &Chore) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let verdict = |complaints: Vec<String>| {
        for complaint in &complaints {
            eprintln!("{complaint}");
        }
        if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    };
    match chore {
        Chore::Demo { link } => demo(&workspace, *link),
        Chore::Functional { arguments } => {
            install::packages(&install::FUNCTIONAL)?;
            ensure!(test::release(&workspace, false).status()?.success(), "the build failed");
            let mut functional = test::lab(&workspace, "functional");
            inherit(functional.args(["--timeout-s", test::FUNCTIONAL_S]).args(arguments))
        }
        Chore::Faults => {
            install::packages(&install::FAULTS)?;
            ensure!(test::release(&workspace, false).status()?.success(), "the build failed");
            inherit(test::lab(&workspace, "faults").args(["--timeout-s", test::FAULTS_S]))
        }
        Chore::Containers { source, dpdk, arguments } => {
            install::packages(&install::FUNCTIONAL)?;
            install::packages(&install::CONTAINERS)?;
            let mut build = if *source {
                let mut cargo = workspace.cargo();
                cargo.args(["build", "--release", "-p", "rvs-lab"]);
                cargo
            } else {
                install::packages(if *dpdk { &install::DPDK } else { &[] })?;
                test::release(&workspace, *dpdk)
            };
            ensure!(build.status()?.success(), "the build failed");
            let mut containers = test::containers(&workspace, *source);
            if *dpdk {
                containers.args(["--dpdk", "--link", "dpdk"]);
            }
            inherit(containers.args(arguments))
        }
        Chore::Test { quick } => test::run(&workspace, *quick),
        Chore::Conformance { arguments } => {
            if arguments.iter().any(|it| it == "--ask") {
                install::packages(&install::ORACLE)?;
            }
            inherit(&mut test::conformance(&workspace, arguments))
        }
        Chore::Differences { bless: true } => {
            differences::bless(&workspace).map(|()| ExitCode::SUCCESS)
        }
        Chore::Differences { bless: false } => Ok(verdict(differences::complaints(&workspace)?)),
        Chore::Scenarios { bless } => inherit(&mut test::scenarios(&workspace, *bless)),
        Chore::Deps => Ok(verdict(deps::complaints(&workspace)?)),
        Chore::Tidy => Ok(verdict(tidy::complaints(&workspace)?)),
        Chore::Icount { bless } => {
            install::packages(&[install::VALGRIND])?;
            inherit(&mut test::icount(&workspace, *bless))
        }
        Chore::Bench { arguments } => {
            install::packages(&[install::VALGRIND])?;
            ensure!(test::benches(&workspace).status()?.success(), "the build failed");
            inherit(Command::new(workspace.target_directory.join("release/bench")).args(arguments))
        }
        Chore::Control { arguments } => {
            install::packages(&[install::IPVSADM])?;
            let built = [test::benches(&workspace), test::release(&workspace, false)];
            for mut build in built {
                ensure!(build.status()?.success(), "the build failed");
            }
            inherit(
                Command::new(workspace.target_directory.join("release/control")).args(arguments),
            )
        }
        Chore::Topology { arguments } => {
            install::packages(&install::TOPOLOGY)?;
            ensure!(test::release(&workspace, false).status()?.success(), "the build failed");
            inherit(test::topology(&workspace, "compare").args(arguments))
        }
        Chore::Soak { minutes } => {
            install::packages(&install::SOAK)?;
            ensure!(test::release(&workspace, false).status()?.success(), "the build failed");
            let minutes = minutes.to_string();
            inherit(test::topology(&workspace, "soak").args(["--minutes", &minutes]))
        }
        Chore::Testpmd { minutes } => {
            install::packages(&install::DPDK)?;
            install::packages(&[install::TESTPMD])?;
            inherit(&mut test::testpmd(&workspace, *minutes))
        }
        Chore::Go => {
            install::packages(&go::GO)?;
            inherit(&mut go::tests(&workspace)?)
        }
        Chore::Install => {
            install::packages(&install::ALL)?;
            install::packages(&install::CONTAINERS)?;
            install::ALL_CARGO.into_iter().try_for_each(install::cargo_tool)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Builds the release binaries and hands over to the lab.
fn demo(workspace: &Workspace, link: Link) -> Result<ExitCode> {
    install::packages(&install::LAB)?;
    if link == Link::Dpdk {
        install::packages(&install::DPDK)?;
    }
    println!("Building rvsd, rvsadm and the lab (release; the first time takes minutes) ...");
    let built = test::release(workspace, link == Link::Dpdk).status()?;
    ensure!(built.success(), "the build failed");
    let mut lab = test::lab(workspace, "demo");
    match link {
        Link::Tap => {}
        Link::Dpdk => drop(lab.args(["--link", "dpdk"])),
        Link::AfXdp => drop(lab.args(["--link", "af_xdp"])),
    }
    if !install::is_root()? {
        let program = lab.get_program().to_string_lossy();
        eprintln!("Network namespaces and TAP devices take root. Run:\n  sudo {program} demo");
        return Ok(ExitCode::from(2));
    }
    inherit(&mut lab)
}

/// Runs `command` in this terminal; its success is ours.
fn inherit(command: &mut Command) -> Result<ExitCode> {
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
