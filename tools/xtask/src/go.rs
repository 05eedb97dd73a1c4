//! Programs in Go drive rvsd: they are made of Debian's packages, and the tests that run them.
//!
//! The library `moby/ipvs` is in the package of all of Docker's sources, which depends on 245 others. Its
//! files alone are taken out of the package; what it is built with beside is installed.

use crate::install::{self, Tool};
use crate::workspace::Workspace;
use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// 200 MB, so not part of what all tests need.
pub const GO: [Tool; 5] = [
    Tool::new("go", "golang-go"),
    Tool::new(
        "/usr/share/gocode/src/github.com/vishvananda/netlink",
        "golang-github-vishvananda-netlink-dev",
    ),
    Tool::new(
        "/usr/share/gocode/src/github.com/sirupsen/logrus",
        "golang-github-sirupsen-logrus-dev",
    ),
    Tool::new("prometheus-node-exporter", "prometheus-node-exporter"),
    install::IPVSADM,
];

/// Where Debian has the sources of libraries.
const SOURCES: &str = "/usr/share/gocode";
const DOCKER: &str = "golang-github-docker-docker-dev";

/// The tests, once their program is built.
///
/// # Errors
///
/// Something cannot be had or built.
pub fn tests(workspace: &Workspace) -> Result<Command> {
    let folder = workspace.target_directory.join("go");
    fs::create_dir_all(&folder)?;
    let library = folder.join("docker");
    if !library.join("usr/share/gocode/src/github.com/moby/ipvs").is_dir() {
        unpack(&folder, &library)?;
    }
    let program = folder.join("moby");
    let path = env::join_paths([library.join("usr/share/gocode"), PathBuf::from(SOURCES)])?;
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(".");
    go.current_dir(workspace.root.join("tools/preload/tests/moby")).env("GOPATH", path);
    go.envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0")]).env("GOCACHE", folder.join("cache"));
    ensure!(go.status().context("go")?.success(), "go build failed");
    let mut tests = workspace.cargo();
    tests.args(["test", "-p", "rvs-preload", "--test", "go", "--", "--ignored"]);
    tests.env("RVS_MOBY", OsString::from(program));
    Ok(tests)
}

fn unpack(folder: &Path, library: &Path) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["download", "-q", DOCKER]).current_dir(folder);
    ensure!(apt.status().context("apt-get")?.success(), "apt-get download {DOCKER} failed");
    let packages = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let package = packages
        .filter(|path| path.extension().is_some_and(|it| it == "deb"))
        .max()
        .with_context(|| format!("apt-get download {DOCKER} left no package"))?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--extract").arg(package).arg(library);
    ensure!(dpkg.status().context("dpkg-deb")?.success(), "dpkg-deb failed");
    Ok(())
}
