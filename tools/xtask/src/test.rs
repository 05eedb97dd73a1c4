//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::step::Steps;
use crate::workspace::Workspace;
use crate::{deps, differences, go, install, tidy};

/// What the lab is made of.
const RELEASED: [&str; 12] = [
    "-p",
    "rvs-daemon",
    "-p",
    "rvs-adm",
    "-p",
    "rvs-preload",
    "-p",
    "rvs-pktgen",
    "-p",
    "rvs-lab",
    "-p",
    "rvs-topology",
];

/// Seconds after which a lab that hangs is ended: several times what it takes on a machine that has
/// other things to do.
pub const FUNCTIONAL_S: &str = "3000";
/// The same of the faults.
pub const FAULTS_S: &str = "2000";

/// Runs all steps, or those that need neither root nor long builds.
///
/// # Errors
///
/// Something is missing that cannot be installed, or a step cannot be started.
pub fn run(workspace: &Workspace, quick: bool) -> Result<ExitCode> {
    install::packages(if quick { &install::QUICK } else { &install::ALL })?;
    let mut steps = Steps::new(workspace.target_directory.join("xtask"))?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo.args(arguments).env("CARGO_TERM_COLOR", "never");
        cargo
    };
    let none = |_: &str| None;

    steps.run("fmt", &mut cargo(&["fmt", "--all", "--check", "--", "--color", "never"]), none)?;
    steps.check("deps", || deps::complaints(workspace))?;
    steps.check("tidy", || tidy::complaints(workspace))?;
    steps.check("differences", || differences::complaints(workspace))?;
    deny(workspace, &mut steps, quick)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.run("clippy", &mut cargo(&clippy), none)?;
    tests(workspace, &mut steps, quick)?;
    // Recorded commands are run with the unmodified ipvsadm too, which takes the library.
    steps.run("preload", &mut preload(workspace), none)?;
    steps.run("conformance", &mut conformance(workspace, &[]), last_line)?;
    if quick || !install::are_there(&go::GO) {
        steps.skip("go", "--quick, or there is no Go; `cargo xtask go` brings it");
    } else {
        steps.run("go", &mut go::tests(workspace)?, passed)?;
    }
    if quick {
        steps.skip("doctests", "--quick");
    } else {
        steps.run("doctests", &mut cargo(&["test", "--workspace", "--doc"]), none)?;
        let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
        // Private items are documented too, so a link to one leads somewhere.
        doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
        steps.run("doc", &mut doc, none)?;
    }
    dpdk(workspace, &mut steps, quick)?;
    capsule(workspace, &mut steps, quick)?;
    labs(workspace, &mut steps, quick)?;
    if quick {
        steps.skip("icount", "--quick");
    } else {
        steps.run("icount", &mut icount(workspace, false), last_line)?;
    }
    Ok(if steps.conclude() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Licences, sources and doubles of dependencies; known defects where the list of them is reached.
fn deny(workspace: &Workspace, steps: &mut Steps, quick: bool) -> Result<()> {
    if quick && !install::has_cargo_tool(install::DENY) {
        steps.skip("deny", "--quick, and cargo-deny is not installed");
        return Ok(());
    }
    if let Err(error) = install::cargo_tool(install::DENY) {
        steps.skip("deny", &format!("{error:#}"));
        return Ok(());
    }
    let mut check = workspace.cargo();
    check.args(["deny", "--color", "never", "check", "bans", "licenses", "sources"]);
    steps.run("deny", &mut check, last_line)?;
    if quick {
        return Ok(());
    }
    // Where the network swallows packets, git would wait for ever.
    let mut fetch = Command::new("timeout");
    fetch.args(["60", "cargo", "deny", "fetch", "db"]).current_dir(&workspace.root);
    if fetch.output()?.status.success() {
        let mut check = workspace.cargo();
        check.args(["deny", "--color", "never", "check", "advisories"]);
        steps.run("advisories", &mut check, last_line)?;
    } else {
        steps.skip("advisories", "the advisory database cannot be fetched from here");
    }
    Ok(())
}

/// Unit, contract, model and scenario tests, and the simulation.
fn tests(workspace: &Workspace, steps: &mut Steps, quick: bool) -> Result<()> {
    let mut tests = workspace.cargo();
    if install::has_cargo_tool(install::NEXTEST) {
        tests.args(["nextest", "run", "--workspace"]);
    } else {
        // Building it takes longer than it saves once; `cargo xtask install` does.
        println!("cargo-nextest is missing: cargo test runs the tests, one program after another.");
        tests.args(["test", "--workspace", "--lib", "--bins", "--tests"]);
    }
    if quick {
        tests.envs(QUICK);
    }
    steps.run("tests", tests.env("CARGO_TERM_COLOR", "never"), |text| {
        let summary = text.lines().rfind(|line| line.trim_start().starts_with("Summary"))?;
        Some(summary.split_once(']')?.1.trim().to_owned())
    })?;
    Ok(())
}

/// The DPDK link, which the default build leaves out, against the system's libdpdk.
fn dpdk(workspace: &Workspace, steps: &mut Steps, quick: bool) -> Result<()> {
    if quick {
        steps.skip("dpdk", "--quick");
        return Ok(());
    }
    let packages = ["-p", "rvs-dpdk", "-p", "rvs-daemon", "-p", "rvs-pktgen", "-p", "rvs-benches"];
    let features = "rvs-dpdk/rings,rvs-daemon/dpdk,rvs-pktgen/dpdk,rvs-benches/dpdk";
    let features = ["--features", features];
    let mut clippy = workspace.cargo();
    clippy.arg("clippy").args(packages).args(features);
    clippy.args(["--all-targets", "--", "-D", "warnings"]).env("CARGO_TERM_COLOR", "never");
    steps.run("dpdk clippy", &mut clippy, |_| None)?;
    let mut tests = workspace.cargo();
    tests.arg("test").args(packages).args(features).env("CARGO_TERM_COLOR", "never");
    // Processes of DPDK's poll: side by side they would only wait for each other.
    tests.args(["--lib", "--bins", "--tests", "--", "--test-threads", "1"]);
    steps.run("dpdk", &mut tests, passed)?;
    if !install::is_root()? {
        steps.skip("dpdk lab", "network namespaces and TAP devices take root");
        return Ok(());
    }
    // The profile of the tests, whose libraries are built already; beside what is shipped.
    let mut build = workspace.cargo();
    build.args(["build", "--profile", "test", "--features", "rvs-daemon/dpdk"]).args(RELEASED);
    if steps.run("dpdk build", &mut build, |_| None)? {
        let mut lab = Command::new(workspace.target_directory.join("debug/rvs-lab"));
        lab.args(["demo", "--link", "dpdk", "--inspect", "--logs"]);
        lab.arg(workspace.target_directory.join("lab-dpdk"));
        steps.run("dpdk lab", &mut lab, last_line)?;
        let mut host = Command::new(workspace.target_directory.join("debug/rvs-lab"));
        host.args(["share", "--link", "af_packet", "--logs"]);
        host.arg(workspace.target_directory.join("lab-host"));
        steps.run("dpdk share", &mut host, last_line)?;
    }
    Ok(())
}

/// The director in Capsule: a workspace of its own, which nothing else of ours depends on.
fn capsule(workspace: &Workspace, steps: &mut Steps, quick: bool) -> Result<()> {
    if quick {
        steps.skip("capsule", "--quick");
        return Ok(());
    }
    let cargo = |action: &[&str], more: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(action).current_dir(workspace.root.join("engine/capsule")).args(more);
        cargo.env("CARGO_TERM_COLOR", "never");
        cargo.env("CARGO_TARGET_DIR", workspace.target_directory.join("capsule"));
        cargo
    };
    // Not --locked: when a crate of ours gets a dependency, this lock file grows by it; what it pins
    // stays pinned.
    let lints = ["--all-targets", "--", "-D", "warnings"];
    steps.run("capsule clippy", &mut cargo(&["clippy"], &lints), |_| None)?;
    let tests = ["--tests", "--", "--test-threads", "1"];
    steps.run("capsule", &mut cargo(&["test"], &tests), passed)?;
    Ok(())
}

/// The test that has testpmd around rvsd, of which the suite runs three seconds, for so many minutes.
#[must_use]
pub fn testpmd(workspace: &Workspace, minutes: u32) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "-p", "rvs-daemon", "--features", "rvs-daemon/dpdk", "--test", "dpdk"]);
    cargo.args(["counts_of_testpmd", "--", "--test-threads", "1", "--nocapture"]);
    cargo.env("RVS_SECONDS", minutes.saturating_mul(60).to_string());
    cargo
}

/// How many tests passed, in what cargo's own runner says.
fn passed(text: &str) -> Option<String> {
    let passed = text.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let counts = passed.filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    let sum = counts.reduce(|sum, more| sum + more)?;
    Some(format!("{sum} tests passed"))
}

/// Seeds of the simulation, and spoilt frames of the parsers' tests, where time is short.
const QUICK: [(&str, &str); 2] = [("RVS_SEEDS", "8"), ("RVS_ROUNDS", "100000")];

/// rvs between real kernels.
fn labs(workspace: &Workspace, steps: &mut Steps, quick: bool) -> Result<()> {
    if quick {
        steps.skip("labs", "--quick");
        return Ok(());
    }
    if !steps.run("release", &mut release(workspace, false), |_| None)? {
        steps.skip("labs", "there is nothing to run");
    } else if install::is_root()? {
        steps.run("labs", lab(workspace, "demo").arg("--inspect"), last_line)?;
        let mut af_xdp = lab(workspace, "demo");
        steps.run("af_xdp lab", af_xdp.args(["--link", "af_xdp", "--inspect"]), last_line)?;
        let mut host = lab(workspace, "share");
        steps.run("af_xdp share", host.args(["--link", "af_xdp"]), last_line)?;
        steps.run("traffic", &mut lab(workspace, "traffic"), last_line)?;
        let mut functional = lab(workspace, "functional");
        steps.run("functional", functional.args(["--timeout-s", FUNCTIONAL_S]), last_line)?;
        steps.run("faults", lab(workspace, "faults").args(["--timeout-s", FAULTS_S]), last_line)?;
        steps.run("ftp", &mut lab(workspace, "ftp"), last_line)?;
        let mut keepalived = lab(workspace, "keepalived");
        steps.run("keepalived", keepalived.args(["--timeout-s", "900"]), last_line)?;
        let mut soak = topology(workspace, "soak");
        steps.run("soak", soak.args(["--minutes", "2"]), last_line)?;
        if install::are_there(&install::CONTAINERS) {
            steps.run("containers", &mut containers(workspace, false), last_line)?;
        } else {
            steps.skip("containers", "no container engine; `cargo xtask install` brings one");
        }
    } else {
        steps.skip("labs", "network namespaces and TAP devices take root");
    }
    Ok(())
}

/// Builds the programs of the lab as they are shipped.
#[must_use]
pub fn release(workspace: &Workspace, dpdk: bool) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release"]).args(RELEASED);
    if dpdk {
        cargo.args(["--features", "rvs-daemon/dpdk"]);
    }
    cargo
}

/// The lab, as [`release`] built it: its `demo`, its `traffic`, `ftp` or `keepalived`, with all cases.
#[must_use]
pub fn lab(workspace: &Workspace, action: &str) -> Command {
    let mut lab = Command::new(workspace.target_directory.join("release/rvs-lab"));
    lab.arg(action).arg("--logs").arg(workspace.target_directory.join("lab"));
    lab
}

/// rvs beside its peers (`compare`) or by itself (`soak`), as [`release`] built it.
#[must_use]
pub fn topology(workspace: &Workspace, action: &str) -> Command {
    let mut topology = Command::new(workspace.target_directory.join("release/rvs-topology"));
    topology.arg(action);
    topology
}

/// The labs in containers, with an engine of their own whose images are kept; from what [`release`]
/// built, or from `source` in a build stage.
#[must_use]
pub fn containers(workspace: &Workspace, source: bool) -> Command {
    let mut containers = lab(workspace, "containers");
    containers.arg("--data").arg(workspace.target_directory.join("containers"));
    if source {
        containers.arg("--source").arg(&workspace.root);
    }
    // The first time, the base image is made from Debian packages; a build stage has no cache.
    containers.args(["--timeout-s", if source { "10800" } else { "5400" }]);
    containers
}

/// The comparison with the kernel's recordings: the project's, or what `arguments` say.
#[must_use]
pub fn conformance(workspace: &Workspace, arguments: &[String]) -> Command {
    let mut cargo = workspace.cargo();
    // The profile of the tests, whose libraries are built already.
    cargo.args(["run", "--profile", "test", "-p", "rvs-conformance", "--"]);
    cargo.args(arguments);
    if arguments.iter().any(|it| it == "--ask") {
        cargo.arg("--machine").arg(workspace.target_directory.join("oracle"));
    }
    cargo
}

/// Builds the library that is preloaded into unmodified programs, where the comparison finds it.
#[must_use]
pub fn preload(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", "test", "-p", "rvs-preload"]);
    cargo
}

/// The scenarios, or what they expect written anew.
#[must_use]
pub fn scenarios(workspace: &Workspace, bless: bool) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "-p", "rvs-plane", "--test", "scenarios"]);
    cargo.envs(bless.then_some(("RVS_BLESS", "1")));
    cargo
}

/// The instruction counts.
#[must_use]
pub fn icount(workspace: &Workspace, bless: bool) -> Command {
    let mut cargo = measured(workspace);
    cargo.args(["run", "--release", "-p", "rvs-benches", "--bin", "icount", "--"]);
    cargo.args(bless.then_some("--bless"));
    cargo
}

/// The programs that measure; with DPDK's links where libdpdk is.
#[must_use]
pub fn benches(workspace: &Workspace) -> Command {
    let mut cargo = measured(workspace);
    cargo.args(["build", "--release", "-p", "rvs-benches", "--bins"]);
    if install::are_there(&install::DPDK) {
        cargo.args(["--features", "rvs-benches/dpdk"]);
    }
    cargo
}

/// Cargo for what is measured: the release profile as it stands in Cargo.toml. A developer's
/// `CARGO_INCREMENTAL=1` would override it and give other code, by as much as 4 % of instructions.
fn measured(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.env("CARGO_INCREMENTAL", "0");
    cargo
}

fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}
