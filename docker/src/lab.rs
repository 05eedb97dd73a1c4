//! One topology, up and running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::director::{Director, Driver};
use crate::inspect::{Findings, Inspection};
use crate::netns::{Netns, SWITCH};
use crate::process::{Daemon, Limits, command};
use crate::stage::Stage;
use crate::topology::{Program, Topology};
use crate::web;

/// Where the lab keeps what belongs to one run: in its private `/run`, so it goes by itself.
const RUN: &str = "/run/rvs-lab";

/// Lines of each log that are shown after a failure.
const LOG_LINES: usize = 20;

/// What all labs of one invocation share.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The folder of `rvsd`, `rvsadm` and `rvs-lab`.
    pub bin: PathBuf,
    /// Where a failed lab's logs are copied to.
    pub logs: Option<PathBuf>,
    /// Whether tshark looks at what rvsd sends.
    pub inspect: bool,
    /// How rvsd gets at its links.
    pub driver: Driver,
    /// What rvsd alone has in its environment.
    pub environment: Vec<(&'static str, String)>,
}

/// A running lab. Dropped, everything in it ends.
#[derive(Debug)]
pub struct Lab<'t> {
    /// What it was made from.
    pub topology: &'t Topology,
    /// rvsd.
    pub director: Director,
    /// Of this run.
    pub dir: PathBuf,
    bin: PathBuf,
    inspection: Option<Inspection>,
    // In this order: programs end before their namespaces.
    programs: Vec<Daemon>,
    _wires: Vec<Daemon>,
    netns: Netns<'t>,
}

impl<'t> Lab<'t> {
    /// Builds it: hosts, director, cables, programs. Says each step.
    ///
    /// # Errors
    ///
    /// The first step that fails; what was there before is gone again.
    pub fn up(topology: &'t Topology, setup: &Setup, limits: &Limits) -> Result<Self> {
        let dir = run_dir(topology);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let netns = Netns::build(topology, setup.driver).context("network namespaces")?;
        let hosts: Vec<_> = topology.hosts.iter().map(|host| host.name.as_str()).collect();
        limits.say(topology, &format!("hosts {}, director", hosts.join(", ")));

        let wires = Self::lay_wires(topology, setup, &netns, &dir, limits)?;
        let director = Director::start(topology, setup, &dir, limits)?;
        netns.connect().context("plugging in rvsd's links")?;
        let links: Vec<_> =
            topology.director.interfaces.iter().map(|i| i.network.as_str()).collect();
        limits.say(topology, &format!("rvsd is ready, its links: {}", links.join(", ")));

        let inspection =
            setup.inspect.then(|| Inspection::start(topology, &netns, &dir, limits)).transpose()?;
        let programs = Vec::new();
        let bin = setup.bin.clone();
        let mut lab =
            Self { topology, director, dir, bin, inspection, programs, _wires: wires, netns };
        lab.start_programs(setup, limits)?;
        Ok(lab)
    }

    /// Starts the programs of cables that do something.
    fn lay_wires(
        topology: &Topology,
        setup: &Setup,
        netns: &Netns<'_>,
        dir: &Path,
        limits: &Limits,
    ) -> Result<Vec<Daemon>> {
        let mut wires = Vec::new();
        for network in topology.networks_with_program() {
            let mut wire = command(Some(SWITCH), setup.bin.join("rvs-lab"));
            wire.args(["wire", &topology.name, network]);
            let mut wire = Daemon::start(&format!("{network}.wire"), wire, dir)?;
            wire.wait_for_line("wire: ready", limits)?;
            netns.plug_in_wire(network)?;
            wires.push(wire);
        }
        Ok(wires)
    }

    fn start_programs(&mut self, setup: &Setup, limits: &Limits) -> Result<()> {
        let mut said = Vec::new();
        for host in &self.topology.hosts {
            for program in &host.programs {
                let daemon = match program {
                    Program::Web => {
                        web::serve(&host.name, self.topology.service.dest_port, &self.dir)?
                    }
                    Program::Decap => {
                        let mut decap = command(Some(&host.name), setup.bin.join("rvs-lab"));
                        decap.arg("decap");
                        Daemon::start(&format!("{}.decap", host.name), decap, &self.dir)?
                    }
                };
                self.programs.push(daemon);
                said.push(format!("{} on {}", program.name(), host.name));
            }
        }
        // All are started before the first is waited for.
        let kinds = self.topology.hosts.iter().flat_map(|h| h.programs.iter().map(move |p| (h, p)));
        for ((host, program), daemon) in kinds.zip(&mut self.programs) {
            match program {
                Program::Web => {
                    web::wait_until_served(&host.name, self.topology.service.dest_port, limits)?;
                }
                Program::Decap => daemon.wait_for_line("decap: ready", limits)?,
            }
        }
        limits.say(self.topology, &said.join(", "));
        Ok(())
    }

    /// Starts rvsd again after it died, with the same files, and plugs its links in.
    ///
    /// # Errors
    ///
    /// It does not get ready, or a network has only one host, whose interface went with rvsd's link.
    pub fn restart_director(&mut self, setup: &Setup, limits: &Limits) -> Result<()> {
        self.director = Director::start(self.topology, setup, &self.dir, limits)?;
        self.netns.plug_in().context("plugging in rvsd's links")
    }

    /// Ends rvsd and returns its summary, and what was found in its frames if they were inspected.
    ///
    /// # Errors
    ///
    /// [`Director::end`]'s and [`Inspection::end`]'s.
    pub fn end(mut self, limits: &Limits) -> Result<(String, Option<Findings>)> {
        // The captures first: with rvsd its TAPs go.
        let findings = self.inspection.map(|inspection| inspection.end(limits)).transpose();
        let summary = self.director.end(limits)?;
        Ok((summary, findings?))
    }
}

impl Stage for Lab<'_> {
    fn topology(&self) -> &Topology {
        self.topology
    }

    fn command(&self, host: &str, program: &str) -> Command {
        command(Some(host), self.program(program))
    }

    fn program(&self, name: &str) -> PathBuf {
        let own = self.bin.join(name);
        if own.exists() { own } else { name.into() }
    }

    fn www(&self, host: &str) -> String {
        web::folder(host, &self.dir).display().to_string()
    }

    fn visitor(&self, host: &str, program: &str) -> Option<Command> {
        Some(command(Some(host), program))
    }

    fn wire(&self, network: &str) -> (String, String) {
        self.netns.far_end(network)
    }

    fn adm(&self, arguments: &[&str]) -> Result<String> {
        self.director.adm(arguments)
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Where a lab's files are.
#[must_use]
pub fn run_dir(topology: &Topology) -> PathBuf {
    Path::new(RUN).join(&topology.name)
}

/// Prints the ends of the logs of a failed lab, and copies all of its files where the person wants
/// them.
///
/// # Errors
///
/// They cannot be read or copied.
pub fn show_logs(topology: &Topology, setup: &Setup) -> Result<()> {
    let entries = fs::read_dir(run_dir(topology))?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    for file in &files {
        if file.extension().is_some_and(|kind| kind == "err" || kind == "log") {
            show_end(file)?;
        }
    }
    if let Some(logs) = &setup.logs {
        let to = logs.join(&topology.name);
        fs::create_dir_all(&to)?;
        for file in &files {
            fs::copy(file, to.join(file.file_name().unwrap_or_default()))?;
        }
        println!("   the lab's files are in {}", to.display());
    }
    Ok(())
}

fn show_end(log: &Path) -> Result<()> {
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let lines: Vec<_> = text.lines().collect();
    if !lines.is_empty() {
        println!("   the end of {}:", log.display());
    }
    for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
        println!("     {line}");
    }
    Ok(())
}
