//! What is missing on this machine: Debian packages, and cargo's subcommands.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A program, or a file by its path, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

impl Tool {
    /// What is there when the package is.
    #[must_use]
    pub const fn new(program: &'static str, package: &'static str) -> Self {
        Self { program, package }
    }
}

const NGINX: Tool = Tool { program: "nginx", package: "nginx-light" };
const CURL: Tool = Tool { program: "curl", package: "curl" };
const IP: Tool = Tool { program: "ip", package: "iproute2" };
const IPERF3: Tool = Tool { program: "iperf3", package: "iperf3" };
const NC: Tool = Tool { program: "nc", package: "netcat-openbsd" };
const TRACEROUTE: Tool = Tool { program: "traceroute", package: "traceroute" };
const GIT: Tool = Tool { program: "git", package: "git" };
const TSHARK: Tool = Tool { program: "tshark", package: "tshark" };
/// The kernel's own tool.
pub const IPVSADM: Tool = Tool { program: "ipvsadm", package: "ipvsadm" };
const SYSCTL: Tool = Tool { program: "sysctl", package: "procps" };
const VSFTPD: Tool = Tool { program: "vsftpd", package: "vsftpd" };
const KEEPALIVED: Tool = Tool { program: "keepalived", package: "keepalived" };
const ETHTOOL: Tool = Tool { program: "ethtool", package: "ethtool" };
const PING: Tool = Tool { program: "ping", package: "iputils-ping" };
const FAKETIME: Tool = Tool { program: "faketime", package: "faketime" };
const LIBDPDK: Tool = Tool { program: "/usr/include/dpdk/rte_ethdev.h", package: "libdpdk-dev" };
const PKG_CONFIG: Tool = Tool { program: "pkg-config", package: "pkg-config" };
/// DPDK's own program for tests.
pub const TESTPMD: Tool = Tool { program: "dpdk-testpmd", package: "dpdk-dev" };
const NFT: Tool = Tool { program: "nft", package: "nftables" };
const WRK: Tool = Tool { program: "wrk", package: "wrk" };
const HAPROXY: Tool = Tool { program: "haproxy", package: "haproxy" };
const STREAM: Tool =
    Tool { program: "/usr/lib/nginx/modules/ngx_stream_module.so", package: "libnginx-mod-stream" };
/// Instruction counts.
pub const VALGRIND: Tool = Tool { program: "valgrind", package: "valgrind" };

/// For the kernel to be asked: an emulator, and what its file system is made of.
pub const ORACLE: [Tool; 7] = [
    IP,
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { program: "busybox", package: "busybox-static" },
    Tool { program: "cpio", package: "cpio" },
    Tool { program: "kmod", package: "kmod" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "ipvsadm", package: "ipvsadm" },
];
/// For the labs in containers. Not part of [`ALL`]: an engine is a service that Debian starts, so
/// who has none is asked.
pub const CONTAINERS: [Tool; 3] = [
    Tool { program: "dockerd", package: "docker.io" },
    Tool { program: "docker-compose", package: "docker-compose" },
    Tool { program: "debootstrap", package: "debootstrap" },
];
/// For the lab.
pub const LAB: [Tool; 3] = [NGINX, CURL, IP];
/// For the quick tests.
pub const QUICK: [Tool; 4] = [GIT, TSHARK, IPVSADM, SYSCTL];
/// For the DPDK link.
pub const DPDK: [Tool; 2] = [LIBDPDK, PKG_CONFIG];
/// For the soak.
pub const SOAK: [Tool; 7] = [NGINX, CURL, IP, IPERF3, WRK, NC, PING];
/// For rvs beside its peers.
pub const TOPOLOGY: [Tool; 9] = [NGINX, CURL, IP, ETHTOOL, IPERF3, NFT, WRK, HAPROXY, STREAM];
/// For everything.
pub const ALL: [Tool; 20] = [
    NGINX, CURL, IP, IPERF3, WRK, NC, PING, TRACEROUTE, GIT, TSHARK, VALGRIND, IPVSADM, KEEPALIVED,
    VSFTPD, LIBDPDK, PKG_CONFIG, TESTPMD, ETHTOOL, FAKETIME, SYSCTL,
];

/// For what real programs do through rvsd.
pub const FUNCTIONAL: [Tool; 8] = [NGINX, CURL, IP, IPERF3, NC, PING, TRACEROUTE, TSHARK];
/// For faults.
pub const FAULTS: [Tool; 4] = [NGINX, CURL, IP, FAKETIME];

/// Runs tests, several at once, each in a process of its own.
pub const NEXTEST: &str = "cargo-nextest";
/// Judges dependencies.
pub const DENY: &str = "cargo-deny";
/// cargo's subcommands that are used.
pub const ALL_CARGO: [&str; 2] = [NEXTEST, DENY];

/// Installs the packages of those `tools` that are missing.
///
/// # Errors
///
/// apt-get fails; or this is not root: then with the line to run.
pub fn packages(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !is_on_path(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    let line = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !is_root()? {
        bail!("some programs are missing. Run this, then try again:\n  sudo {line}");
    }
    if !is_on_path("apt-get") {
        bail!("some programs are missing and there is no apt-get: {}", packages.join(" "));
    }
    println!("Installing {} ...", packages.join(", "));
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    for (package, services) in
        [("nginx-light", &["nginx"][..]), ("vsftpd", &["vsftpd"]), ("docker.io", &DOCKER), EXPORTER]
    {
        if packages.contains(&package) {
            stop_services(services);
        }
    }
    for tool in missing {
        ensure!(
            is_on_path(tool.program),
            "{} is installed, but has no {}",
            tool.package,
            tool.program
        );
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    let status = apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status()?;
    ensure!(status.success(), "apt-get {}: {status}", arguments.join(" "));
    Ok(())
}

const EXPORTER: (&str, &[&str]) = ("prometheus-node-exporter", &["prometheus-node-exporter"]);
const DOCKER: [&str; 2] = ["docker.socket", "docker.service"];

/// Debian starts a service that it installs. The labs start their own nginx, vsftpd and engine,
/// in namespaces; the machine's ports 80 and 21 and its bridges are nobody's business here.
fn stop_services(services: &[&str]) {
    if Path::new("/run/systemd/system").exists() {
        println!("Debian has started {services:?}, which the labs do not use: stopping them.");
        // When that fails, a service too many is no reason to stop.
        let _ = Command::new("systemctl").args(["disable", "--now"]).args(services).status();
    }
}

/// Whether all of `tools` are there.
#[must_use]
pub fn are_there(tools: &[Tool]) -> bool {
    tools.iter().all(|tool| is_on_path(tool.program))
}

/// Installs a subcommand of cargo if it is missing.
///
/// # Errors
///
/// It cannot be built.
pub fn cargo_tool(name: &str) -> Result<()> {
    if has_cargo_tool(name) {
        return Ok(());
    }
    println!("Installing {name}, once; this takes minutes ...");
    let status = Command::new("cargo").args(["install", "--locked", name]).status()?;
    ensure!(status.success(), "cargo install {name}: {status}");
    Ok(())
}

/// Whether cargo finds that subcommand.
#[must_use]
pub fn has_cargo_tool(name: &str) -> bool {
    let cargo_home = env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let own = cargo_home.or(home).is_some_and(|home| home.join("bin").join(name).exists());
    own || is_on_path(name)
}

/// Whether this process may do everything.
///
/// # Errors
///
/// There is no `/proc`.
pub fn is_root() -> Result<bool> {
    // The owner of a process's folder is its effective user.
    Ok(fs::metadata("/proc/self").context("/proc")?.uid() == 0)
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Where Debian has what only root may use; not on everybody's PATH.
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    env::split_paths(&path).chain(system).any(|dir| dir.join(program).exists())
}
