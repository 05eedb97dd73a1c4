//! rvsd between the two links of a stage.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rvs_lab::process::{Daemon, Limits, command, run};

use crate::stage::{DIRECTOR, DIRECTOR_MACS, SHARED_MACS};
use crate::usage::Group;

/// How it gets at its links.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Driver {
    /// TAPs c0 and r0.
    Tap,
    /// The veths d0 and d1.
    #[value(name = "af_xdp")]
    AfXdp,
}

/// A running rvsd.
#[derive(Debug)]
pub struct Rvsd {
    daemon: Daemon,
    rvsadm: PathBuf,
    socket: PathBuf,
}

impl Rvsd {
    /// Starts it with `more` in its configuration, in a control group if one is named.
    pub fn start(
        driver: Driver,
        more: &str,
        bin: &Path,
        dir: &Path,
        group: Option<&Group>,
        limits: &Limits,
    ) -> Result<Self> {
        let (file, socket) = (dir.join("rvsd.toml"), dir.join("rvsd.sock"));
        fs::write(&file, configuration(driver, &socket)? + more)?;
        let mut rvsd = command(Some(DIRECTOR), bin.join("rvsd"));
        rvsd.arg("run").arg(&file);
        let mut daemon = Daemon::start("rvsd", rvsd, dir)?;
        if let Some(group) = group {
            group.take(daemon.id())?;
        }
        daemon.wait_for_line("rvsd: ready", limits)?;
        Ok(Self { daemon, rvsadm: bin.join("rvsadm"), socket })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Runs rvsadm.
    pub fn adm(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(&self.rvsadm).args(arguments).env("RVS_SOCKET", &self.socket))
    }

    /// Adds a service and its destinations, all with the service's port.
    pub fn serve(
        &self,
        protocol: &str,
        vip: &str,
        port: u16,
        reals: &[&str],
        method: &str,
    ) -> Result<()> {
        let at = |address: &str| {
            if address.contains(':') {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            }
        };
        let vip = at(vip);
        self.adm(&["-A", protocol, &vip, "-s", "rr"])?;
        for real in reals {
            self.adm(&["-a", protocol, &vip, "-r", &at(real), method])?;
        }
        Ok(())
    }

    /// Ends it in order and returns the account that it gives, and its log.
    pub fn end(&mut self, limits: &Limits) -> Result<(String, String)> {
        let status = self.daemon.terminate(limits).context("rvsd after SIGTERM")?;
        let (account, log) = (self.daemon.output(), self.daemon.errors());
        ensure!(status.success(), "rvsd: {status}: {log}{account}");
        Ok((account, log))
    }
}

fn configuration(driver: Driver, socket: &Path) -> Result<String> {
    let socket = socket.display();
    let mut text = format!("[control]\nsocket = \"{socket}\"\n");
    let (kind, devices, macs) = match driver {
        Driver::Tap => ("tap", ["c0", "r0"], DIRECTOR_MACS),
        Driver::AfXdp => ("af_xdp", ["d0", "d1"], SHARED_MACS),
    };
    let addresses = [r#""10.10.0.1/24", "fd10::1/64""#, r#""10.20.0.1/24", "fd20::1/64""#];
    for ((device, mac), addresses) in devices.into_iter().zip(macs).zip(addresses) {
        write!(
            text,
            "\n[[link]]\nname = \"{device}\"\nkind = \"{kind}\"\ndevice = \"{device}\"\nmac = \"{mac}\"\n\
             mtu = 1500\naddresses = [{addresses}]\n"
        )?;
    }
    Ok(text)
}
