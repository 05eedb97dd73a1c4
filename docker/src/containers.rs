//! A topology made of containers: `docker compose up` with the files in `labs/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cases::{Outcome, run_family};
use crate::compose::{DIRECTOR, Files, container, wire};
use crate::director::{balanced, complete};
use crate::engine::Engine;
use crate::functional::{self, Shown};
use crate::netns::tap_name;
use crate::process::{Limits, command, run};
use crate::stage::Stage;
use crate::topology::{Family, Topology};
use crate::web;

/// A lab that is up. Dropped, it is taken down.
#[derive(Debug)]
pub struct Containers<'t> {
    topology: &'t Topology,
    engine: &'t Engine,
    dir: PathBuf,
}

/// Runs one topology for both families: requests, then the functional claims that contain `only`,
/// which go to `shown`. Whatever fails is part of the outcomes.
#[must_use]
pub fn run_topology(
    topology: &Topology,
    engine: &Engine,
    dir: &Path,
    requests: u32,
    (only, shown): (&str, &mut Vec<Shown>),
    limits: &Limits,
) -> Vec<Outcome> {
    println!("\n== {}, in containers: {}", topology.name, topology.claim);
    let failed = |error: &anyhow::Error| {
        Family::ALL.iter().map(|family| Outcome::failed(topology, *family, error)).collect()
    };
    let lab = match Containers::up(topology, engine, dir, limits) {
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
        engine: &'t Engine,
        dir: &Path,
        limits: &Limits,
    ) -> Result<Self> {
        let dir = dir.join(&topology.name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        for (name, text) in Files::of(topology)?.named() {
            fs::write(dir.join(name), text)?;
        }
        fs::write(dir.join("quiet.yaml"), "services: {client: {command: [host]}}\n")?;
        let containers = Self { topology, engine, dir };
        containers.start(limits).inspect_err(|_| containers.show_logs())?;
        limits.say(topology, "containers are up, rvsd is healthy");
        Ok(containers)
    }

    fn start(&self, limits: &Limits) -> Result<()> {
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
        self.adm(&["-C"]).map(drop)
    }

    /// Waits until a container has said `line`.
    fn wait_for_line(&self, host: &str, line: &str, limits: &Limits) -> Result<()> {
        limits.wait(&format!("{host}: '{line}'"), Duration::from_secs(20), || {
            Ok(self.logs(host)?.lines().any(|said| said == line).then_some(()))
        })
    }

    /// Prints the ends of what the containers said.
    fn show_logs(&self) {
        let hosts = self.topology.hosts.iter().map(|host| host.name.clone());
        let wires = self.topology.networks_with_program().map(wire);
        for host in std::iter::once(DIRECTOR.to_owned()).chain(wires).chain(hosts) {
            let name = container(self.topology, &host);
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
        compose.args(["--project-name", &format!("rvs-{}", self.topology.name)]);
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
        let mut docker = self.engine.docker();
        docker.args(["exec", "--interactive", &container(self.topology, host), program]);
        docker
    }

    fn visitor(&self, host: &str, program: &str) -> Option<Command> {
        let network = self.engine.network_of(&container(self.topology, host)).ok()??;
        let mut visitor = command(None, "nsenter");
        visitor.arg(format!("--net={}", network.display())).args(["--", program]);
        Some(visitor)
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
        // What cannot be taken down now goes with the engine.
        if let Ok(mut compose) = self.compose() {
            let _ = run(compose.args(["down", "--timeout", "1"]));
        }
    }
}
