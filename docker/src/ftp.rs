//! FTP through rvsd: vsftpd on the real servers, curl on the client, all ways of a data connection.
//!
//! ```text
//!  curl ── EPSV, PASV: to the VIP's port that the server named ──────────► vsftpd
//!       ◄─ EPRT, PORT: from port 20 of the VIP ─────────────────────────── port 20
//! ```

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cases;
use crate::lab::{Lab, Setup, show_logs};
use crate::process::{Daemon, Limits, command, run};
use crate::topology::{Family, Topology};

/// FTP's control port.
const PORT: u16 = 21;
/// Files fetched on one control connection.
const FILES: usize = 5;
/// Lines of each: a hundred thousand octets or so.
const LINES: usize = 10_000;

/// Ways of a data connection: a name, whether IPv6 has it, and what makes curl do it.
const WAYS: [(&str, bool, &[&str]); 4] = [
    ("EPSV", true, &["--ftp-pasv"]),
    // curl would not believe the address that it is told.
    ("PASV", false, &["--disable-epsv", "--no-ftp-skip-pasv-ip"]),
    ("EPRT", true, &["--ftp-port", "-"]),
    ("PORT", false, &["--ftp-port", "-", "--disable-eprt"]),
];

/// Fetches files in every way. `false`, and the reasons printed, if any does not arrive as it was.
///
/// # Errors
///
/// The lab cannot be built, or a program in it fails.
pub fn act(setup: &Setup, limits: &Limits) -> Result<bool> {
    let topology = Topology::load("nat")?;
    println!("\n== ftp: data connections of FTP find their server and their client");
    let outcome = Lab::up(&topology, setup, limits).and_then(|lab| in_lab(lab, &topology, limits));
    if !matches!(outcome, Ok(true)) {
        show_logs(&topology, setup)?;
    }
    outcome
}

fn in_lab(lab: Lab<'_>, topology: &Topology, limits: &Limits) -> Result<bool> {
    let servers = &topology.service.dests;
    let serving = servers.iter().map(|host| serve(host, &lab.dir, limits));
    let daemons: Vec<Daemon> = serving.collect::<Result<_>>()?;
    let mut whole: Vec<_> = servers.iter().map(|host| content(host, FILES)).collect();
    whole.sort();
    let mut good = true;
    for family in Family::ALL {
        let vip = topology.vip(family).context("the service has no address of this family")?;
        let vip = SocketAddr::new(vip, PORT).to_string();
        lab.director.adm(&["-A", "-t", &vip, "-s", "rr"])?;
        for server in servers {
            let real = SocketAddr::new(topology.address_of(server, family)?, PORT).to_string();
            lab.director.adm(&["-a", "-t", &vip, "-r", &real, "-m"])?;
        }
        for (name, _, options) in WAYS.iter().filter(|(_, v6, _)| *v6 || family == Family::V4) {
            // Once for each server: rr.
            let fetched = servers.iter().map(|_| fetch(&vip, options));
            let mut from: Vec<_> = fetched.collect::<Result<_>>()?;
            from.sort();
            let holds = from == whole;
            let (family, verdict) = (family.name(), if holds { "ok    " } else { "FAILED" });
            println!(
                "{:14}{verdict} {family} {name}: {FILES} files of each server arrive as they are",
                ""
            );
            good &= holds;
        }
    }
    drop(daemons);
    cases::end(lab, limits)?;
    println!("\nftp: {}", if good { "all files arrived" } else { "FAILED" });
    Ok(good)
}

/// What a client gets that fetches `files` files of `host`.
fn content(host: &str, files: usize) -> String {
    let mut text = String::new();
    for file in 1..=files {
        for line in 0..LINES {
            let _always = writeln!(text, "{host} {file} {line}");
        }
    }
    text
}

/// What curl gets on one control connection.
fn fetch(vip: &str, options: &[&str]) -> Result<String> {
    let mut curl = command(Some("client"), "curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--connect-timeout", "20"]);
    curl.args(["--max-time", "60"]).args(options);
    run(curl.arg(format!("ftp://{vip}/[1-{FILES}]")))
}

/// Starts vsftpd on `host`, with its files, and waits until it listens.
fn serve(host: &str, dir: &Path, limits: &Limits) -> Result<Daemon> {
    let root = dir.join(format!("{host}.ftp"));
    let empty = dir.join("empty");
    fs::create_dir_all(&root)?;
    fs::create_dir_all(&empty)?;
    for file in 1..=FILES {
        let before = content(host, file - 1).len();
        let all = content(host, file);
        fs::write(root.join(file.to_string()), all.get(before..).unwrap_or_default())?;
    }
    let config = dir.join(format!("{host}.vsftpd.conf"));
    let (root, empty) = (root.display(), empty.display());
    // A namespace in a namespace, and a filter of system calls, are not what is tried here.
    let text = format!(
        "background=NO\nlisten=NO\nlisten_ipv6=YES\nlisten_port={PORT}\nanonymous_enable=YES\n\
         local_enable=NO\nanon_root={root}\nconnect_from_port_20=YES\n\
         secure_chroot_dir={empty}\nseccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\n"
    );
    fs::write(&config, text)?;
    let mut vsftpd = command(Some(host), "vsftpd");
    vsftpd.arg(config);
    let daemon = Daemon::start(&format!("{host}.vsftpd"), vsftpd, dir)?;
    limits.wait(&format!("vsftpd on {host}"), Duration::from_mins(1), || {
        let sockets = run(command(Some(host), "cat").arg("/proc/net/tcp6"))?;
        Ok(sockets.contains(&format!(":{PORT:04X} ")).then_some(()))
    })?;
    Ok(daemon)
}
