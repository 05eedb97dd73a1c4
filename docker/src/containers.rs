//! A topology made of containers: `docker compose up` with the files in `labs/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cases::{Outcome, run_family};
use crate::compose::{DIRECTOR, Files, container, wire};
use crate::director::{Driver, balanced, complete};
use crate::engine::{self, Engine};
use crate::functional::{self, Shown};
use crate::netns::tap_name;
use crate::process::{Limits, run};
use crate::stage::Stage;
use crate::topology::{Family, Topology};
use crate::web;

/// A lab that is up. Dropped, it is taken down.
#[derive(Debug)]
pub struct Containers<'t> {
    topology: &'t Topology,
    engine: &'t Engine,
    dir: PathBuf,
    /// Each host's namespaces, where they can be entered without asking the engine.
    namespaces: BTreeMap<String, PathBuf>,
}

/// Runs one topology for both families: requests, then the functional claims that contain `only`,
/// which go to `shown`. Whatever fails is part of the outcomes.
#[must_use]
pub fn run_topology(
    topology: &Topology,
    (engine, driver): (&Engine, Driver),
    dir: &Path,
    requests: u32,
    (only, shown): (&str, &mut Vec<Shown>),
    limits: &Limits,
) -> Vec<Outcome> {
    println!("\n== {}, in containers: {}", topology.name, topology.claim);
    let failed = |error: &anyhow::Error| {
        Family::ALL.iter().map(|family| Outcome::failed(topology, *family, error)).collect()
    };
    let lab = match Containers::up(topology, (engine, driver), dir, limits) {
        Ok(lab) => lab,
        Err(error) => return failed(&error),
    };
    // Over bad cables counts are not what was asked for.
    let families = Family::ALL.iter().filter(|_| topology.is_calm());
    let outcomes = families.map(|family| run_family(&lab, *family, requests, limits)).collect();
    shown.extend(functional::act(&lab, only, limits));
    match lab.end() {
        Ok(_) => outcomes,
        Err(error) => failed(&error),
    }
}

impl<'t> Containers<'t> {
    /// Brings it up; returns when rvsd is healthy and every host is ready. The client, which in the
    /// compose file asks for ever, is quiet, and rvsd has no service.
    ///
    /// # Errors
    ///
    /// The engine's, or a container does not get ready.
    pub fn up(
        topology: &'t Topology,
        (engine, driver): (&'t Engine, Driver),
        dir: &Path,
        limits: &Limits,
    ) -> Result<Self> {
        let dir = dir.join(&topology.name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        for (name, text) in Files::of(topology, driver)?.named() {
            fs::write(dir.join(name), text)?;
        }
        fs::write(dir.join("quiet.yaml"), "services: {client: {command: [host]}}\n")?;
        let mut containers = Self { topology, engine, dir, namespaces: BTreeMap::new() };
        containers.start(limits).inspect_err(|_| containers.show_logs())?;
        limits.say(topology, "containers are up, rvsd is healthy");
        Ok(containers)
    }

    fn start(&mut self, limits: &Limits) -> Result<()> {
        run(self.compose()?.args(["up", "--detach", "--no-build"]))?;
        limits.wait("healthy containers", Duration::from_mins(1), || {
            let health = self.ask_engine(&["--format", "{{.State.Health.Status}}"])?;
            Ok((health.trim() == "healthy").then_some(()))
        })?;
        for network in self.topology.networks_with_program() {
            self.wait_for_line(&wire(network), "wire: ready", limits)?;
        }
        for host in &self.topology.hosts {
            let ready = format!("{}: ready", host.name);
            let ready = if host.name == "client" { "host: ready" } else { &ready };
            self.wait_for_line(&host.name, ready, limits)?;
        }
        // As the manual tells it, by the engine.
        self.adm(&["-C"])?;
        let (services, names): (Vec<_>, Vec<_>) = self.services().unzip();
        let namespaces = self.engine.namespaces(&names)?.unwrap_or_default();
        self.namespaces = services.into_iter().zip(namespaces).collect();
        Ok(())
    }

    /// What the compose file starts: each service, and its container's name.
    fn services(&self) -> impl Iterator<Item = (String, String)> {
        let wires = self.topology.networks_with_program().map(wire);
        let hosts = self.topology.hosts.iter().map(|host| host.name.clone());
        let services = std::iter::once(DIRECTOR.to_owned()).chain(wires).chain(hosts);
        services.map(|name| (name.clone(), container(self.topology, &name)))
    }

    /// The engine's name for what the compose file has.
    fn project(&self) -> String {
        format!("rvs-{}", self.topology.name)
    }

    /// Waits until a container has said `line`.
    fn wait_for_line(&self, host: &str, line: &str, limits: &Limits) -> Result<()> {
        limits.wait(&format!("{host}: '{line}'"), Duration::from_mins(2), || {
            Ok(self.logs(host)?.lines().any(|said| said == line).then_some(()))
        })
    }

    /// Prints the ends of what the containers said.
    fn show_logs(&self) {
        for (_, name) in self.services() {
            let output = self.engine.docker().args(["logs", "--tail", "10", &name]).output();
            let Ok(output) = output else { continue };
            println!("   {name} says:");
            for text in [output.stdout, output.stderr] {
                for line in String::from_utf8_lossy(&text).lines() {
                    println!("     {line}");
                }
            }
        }
    }

    fn compose(&self) -> Result<Command> {
        let mut compose = self.engine.compose()?;
        compose.args(["--project-name", &self.project()]);
        for file in ["compose.yaml", "quiet.yaml"] {
            compose.arg("--file").arg(self.dir.join(file));
        }
        Ok(compose)
    }

    fn ask_engine(&self, arguments: &[&str]) -> Result<String> {
        let name = container(self.topology, DIRECTOR);
        run(self.engine.docker().arg("inspect").args(arguments).arg(name))
    }

    /// What a container printed, on standard output and then on standard error.
    ///
    /// # Errors
    ///
    /// The engine cannot be asked.
    pub fn logs(&self, host: &str) -> Result<String> {
        let output =
            self.engine.docker().arg("logs").arg(container(self.topology, host)).output()?;
        Ok([output.stdout, output.stderr]
            .map(|it| String::from_utf8_lossy(&it).into_owned())
            .concat())
    }

    /// Ends rvsd and returns its summary.
    ///
    /// # Errors
    ///
    /// It does not end with code 0, or frames are unaccounted for.
    pub fn end(self) -> Result<String> {
        let name = container(self.topology, DIRECTOR);
        run(self.engine.docker().args(["stop", "-t", "5", &name]))?;
        let code = self.ask_engine(&["--format", "{{.State.ExitCode}}"])?;
        let said = self.logs(DIRECTOR)?;
        ensure!(code.trim() == "0", "rvsd: exit code {code}{said}");
        balanced(&said)?;
        complete(&said)?;
        Ok(said)
    }
}

impl Stage for Containers<'_> {
    fn topology(&self) -> &Topology {
        self.topology
    }

    fn command(&self, host: &str, program: &str) -> Command {
        if let Some(namespaces) = self.namespaces.get(host) {
            return engine::inside(namespaces, program);
        }
        let mut docker = self.engine.docker();
        docker.args(["exec", "--interactive", &container(self.topology, host), program]);
        docker
    }

    fn visitor(&self, host: &str, program: &str) -> Option<Command> {
        self.namespaces.get(host).map(|namespaces| engine::visiting(namespaces, program))
    }

    fn wire(&self, network: &str) -> (String, String) {
        (DIRECTOR.to_owned(), tap_name(network))
    }

    fn adm(&self, arguments: &[&str]) -> Result<String> {
        run(self.command(DIRECTOR, "rvsadm").args(arguments))
    }

    fn www(&self, host: &str) -> String {
        web::folder(host, Path::new(crate::host::DIR)).display().to_string()
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Containers<'_> {
    fn drop(&mut self) {
        // As `docker compose down`, which takes three times as long. What cannot be taken down now goes
        // with the engine.
        let names = self.services().map(|(_, name)| name);
        let _ = run(self.engine.docker().args(["rm", "--force", "--volumes"]).args(names));
        let networks = self.topology.networks();
        let networks = networks.iter().map(|network| format!("{}_{network}", self.project()));
        let _ = run(self.engine.docker().args(["network", "rm"]).args(networks));
    }
}
