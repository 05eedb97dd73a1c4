//! A topology that stands, whatever it was built from.
//!
//! ```text
//!  cases ──► Stage ─┬─ lab::Lab               hosts are network namespaces
//!                   └─ containers::Containers  hosts are containers
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::director::{Line, Stats};
use crate::process::Limits;
use crate::topology::{Family, Topology};

/// What a case needs of a running lab.
pub trait Stage {
    /// What it was built from.
    fn topology(&self) -> &Topology;

    /// `program` on `host`. The lab's own programs are found by their names alone.
    fn command(&self, host: &str, program: &str) -> Command;

    /// Runs rvsadm and returns what it printed.
    ///
    /// # Errors
    ///
    /// It failed: with its words.
    fn adm(&self, arguments: &[&str]) -> Result<String>;

    /// The lab's own program `name` as `host` finds it; any other name as it is.
    fn program(&self, name: &str) -> PathBuf {
        name.into()
    }

    /// Where what programs print is kept.
    fn dir(&self) -> &Path;

    /// The folder on `host` that its nginx serves as `/files/`.
    fn www(&self, host: &str) -> String;

    /// `program` of this machine in the network of `host`, or of what [`Stage::wire`] names there; if
    /// that can be entered.
    fn visitor(&self, host: &str, program: &str) -> Option<Command>;

    /// Where the director's frames on `network` can be captured: whose network, and the device.
    fn wire(&self, network: &str) -> (String, String);
}

/// A service and how its packets get to its dests: what rvsadm is told.
#[derive(Clone, Debug)]
pub struct Rules(Vec<Vec<String>>);

impl Rules {
    /// The service of `topology` at `vip`, with all its dests.
    ///
    /// # Errors
    ///
    /// A dest has no address of the VIP's family.
    pub fn of(topology: &Topology, vip: SocketAddr) -> Result<Self> {
        let service = &topology.service;
        let address = vip.to_string();
        let mut lines = vec![line(&["-A", "-t", &address, "-s", &service.scheduler])];
        for dest in &service.dests {
            let real = topology.address_of(dest, Family::of(vip.ip()))?;
            let real = SocketAddr::new(real, service.dest_port).to_string();
            let mut words = line(&["-a", "-t", &address, "-r", &real, service.method.option()]);
            words.extend(service.options.get(dest).into_iter().flatten().cloned());
            lines.push(words);
        }
        Ok(Self(lines))
    }

    /// Each as `rvsadm` is called.
    pub fn lines(&self) -> impl Iterator<Item = Vec<&str>> {
        self.0.iter().map(|words| words.iter().map(String::as_str).collect())
    }
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

impl dyn Stage + '_ {
    /// Adds the topology's service at `vip` with its dests.
    ///
    /// # Errors
    ///
    /// rvsadm's.
    pub fn add_service(&self, vip: SocketAddr) -> Result<()> {
        Rules::of(self.topology(), vip)?.lines().try_for_each(|line| self.adm(&line).map(drop))
    }

    /// The address that clients of `family` ask.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn vip(&self, family: Family) -> Result<IpAddr> {
        self.topology().vip(family).context("the service has no address of this family")
    }

    /// The statistics of the service at `vip`, once `conns` connections are in them: workers
    /// publish theirs now and then. Fewer after some seconds are returned as they are.
    ///
    /// # Errors
    ///
    /// rvsadm's.
    pub fn settled(&self, vip: SocketAddr, conns: u64, limits: &Limits) -> Result<Stats> {
        let read = || Stats::parse(&self.adm(&["-Ln", "--stats"])?, vip);
        let settled = limits.wait("statistics", Duration::from_secs(15), || {
            Ok(Some(read()?).filter(|Stats { service: Line { conns: now, .. }, .. }| *now >= conns))
        });
        settled.or_else(|_| read())
    }
}
