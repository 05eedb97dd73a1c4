//! A container engine of the lab's own, and the images.
//!
//! ```text
//!  unshare --mount --pid [--net] ── dockerd ── containerd ── containers
//!                                    └ data: target/containers, socket: the lab's private /run
//! ```
//!
//! Nothing of the user's engine is touched: its own data, socket, mounts and processes; and while
//! labs run a network namespace of its own, with its own bridges and packet filter. Only while
//! images are built, which fetches Debian packages, it is in the machine's network, and told to
//! leave that alone. It ends with the lab, whatever ends the lab: its processes are a PID namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Daemon, Limits, command, run};

/// Programs that containers take, each with its Debian package.
pub const NEEDED: [(&str, &str); 3] =
    [("dockerd", "docker.io"), ("docker", "docker.io"), ("debootstrap", "debootstrap")];

/// Where its socket and logs are: in the lab's private `/run`.
pub const RUN: &str = "/run/rvs-engine";

/// How long an engine may take to start, and to end.
const PATIENCE: Duration = Duration::from_mins(2);

/// The images of the labs: tag, and target in the Dockerfile.
const IMAGES: [(&str, &str); 2] = [("rvs", "rvs"), ("rvs-host", "host")];

/// What the build context of programs that are built already has beside them.
const CONTEXT: [(&str, &str); 2] =
    [("Dockerfile", include_str!("../Dockerfile")), ("rvs-entry", include_str!("../rvs-entry"))];

/// What images are made from, and the script that makes it where no registry is reached.
const BASE: (&str, &str) = ("debian:bookworm-slim", include_str!("../base.sh"));
const RUST: (&str, &str) = ("rust:1.95-slim-bookworm", include_str!("../rust.sh"));

/// `docker compose`, and its predecessor.
const COMPOSE: [(&str, &[&str]); 2] = [("docker", &["compose"]), ("docker-compose", &[])];

/// Where programs are in containers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Seconds that a registry has; one that is not reached is known sooner.
const PULL: &str = "120";

/// Where the programs in the images come from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'p> {
    /// This folder, where they are built already.
    Built(&'p Path),
    /// A build stage, from the repository in this folder.
    Source(&'p Path),
}

/// A container engine.
#[derive(Debug)]
pub struct Engine {
    host: String,
    daemon: Option<Daemon>,
    /// Which of [`COMPOSE`] works; they take half a second to say so.
    compose: OnceLock<(&'static str, &'static [&'static str])>,
}

/// Which network an own engine is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Network {
    /// One of its own, for containers.
    Own,
    /// The machine's, to build images.
    Machine,
}

impl Engine {
    /// The user's engine, at `host`, as in `DOCKER_HOST`.
    #[must_use]
    pub fn at(host: &str) -> Self {
        Self { host: host.to_owned(), daemon: None, compose: OnceLock::new() }
    }

    /// Starts one whose images are in `data`; its socket and logs are in `dir`.
    ///
    /// # Errors
    ///
    /// It does not get ready: then with the end of its log.
    pub fn start(network: Network, data: &Path, dir: &Path, limits: &Limits) -> Result<Self> {
        fs::create_dir_all(data).with_context(|| data.display().to_string())?;
        let host = format!("unix://{}", dir.join("docker.sock").display());
        let mut unshare = command(None, "unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
        let words = match network {
            Network::Own => {
                unshare.arg("--net");
                "ip link set lo up; exec dockerd --bridge none \"$@\""
            }
            Network::Machine => {
                "exec dockerd --bridge none --iptables=false --ip-forward=false --ip-masq=false \"$@\""
            }
        };
        unshare.args(["--", "sh", "-ec", words, "sh", "--host", &host]);
        unshare.arg("--data-root").arg(data).arg("--exec-root").arg(dir.join("exec"));
        unshare.arg("--pidfile").arg(dir.join("docker.pid"));
        let daemon = Daemon::start("dockerd", unshare, dir)?;
        let mut engine = Self { host, daemon: Some(daemon), compose: OnceLock::new() };
        let ready = limits.wait("the container engine", PATIENCE, || {
            if let Some(status) = engine.daemon.as_mut().map(Daemon::ended).transpose()?.flatten() {
                bail!("dockerd ended with {status}");
            }
            Ok(engine.docker().arg("version").output()?.status.success().then_some(()))
        });
        let log = engine.daemon.as_ref().map(Daemon::errors).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        ready.with_context(|| format!("dockerd says:\n{}", last.join("\n")))?;
        // What a lab that was killed has left in `data`: its networks would be in the way of others.
        for kind in ["container", "network"] {
            run(engine.docker().args([kind, "prune", "--force"]))?;
        }
        Ok(engine)
    }

    /// `docker`, for this engine.
    #[must_use]
    pub fn docker(&self) -> Command {
        let mut docker = command(None, "docker");
        docker.env("DOCKER_HOST", &self.host);
        docker
    }

    /// `docker compose`, or its predecessor where that is installed.
    ///
    /// # Errors
    ///
    /// Neither is.
    pub fn compose(&self) -> Result<Command> {
        let call = |(program, arguments): (&str, &[&str])| {
            let mut compose = command(None, program);
            compose.args(arguments).env("DOCKER_HOST", &self.host);
            compose
        };
        if let Some(found) = self.compose.get() {
            return Ok(call(*found));
        }
        let works = |it: &(&str, &[&str])| {
            call(*it).arg("version").output().is_ok_and(|output| output.status.success())
        };
        let Some(found) = COMPOSE.into_iter().find(works) else {
            bail!("neither `docker compose` nor `docker-compose` is installed")
        };
        Ok(call(*self.compose.get_or_init(|| found)))
    }

    /// Makes the labs' images, with DPDK links in rvsd if `dpdk`; what has not changed is not made again.
    ///
    /// # Errors
    ///
    /// An image to start from can neither be pulled nor made, or a build fails.
    pub fn build(&self, origin: Origin<'_>, dpdk: bool, dir: &Path) -> Result<()> {
        self.fetch(BASE)?;
        let arguments: &[&str] = if dpdk { &["--build-arg", "DPDK=1"] } else { &[] };
        match origin {
            Origin::Built(bin) => {
                let context = dir.join("context");
                for folder in ["docker", "bin"] {
                    fs::create_dir_all(context.join(folder))?;
                }
                for (name, text) in CONTEXT {
                    fs::write(context.join("docker").join(name), text)?;
                }
                run(command(None, "chmod").arg("755").arg(context.join("docker/rvs-entry")))?;
                for program in ["rvsd", "rvsadm", "rvs-lab"] {
                    fs::copy(bin.join(program), context.join("bin").join(program))?;
                }
                for (tag, target) in IMAGES {
                    self.image(tag, &format!("prebuilt-{target}"), &context, arguments)?;
                }
            }
            Origin::Source(root) => {
                self.fetch(RUST)?;
                for (tag, target) in IMAGES {
                    println!("   image {tag} from source; this takes minutes ...");
                    self.image(tag, target, root, arguments)?;
                }
            }
        }
        // The images that these replace have no name any more.
        run(self.docker().args(["image", "prune", "--force"])).map(drop)
    }

    /// Pulls an image, or else makes it by its script.
    fn fetch(&self, (image, script): (&str, &str)) -> Result<()> {
        if self.docker().args(["image", "inspect", image]).output()?.status.success() {
            return Ok(());
        }
        println!("   {image}: asking a registry, or else making it here ...");
        let mut pull = command(None, "timeout");
        pull.args([PULL, "docker", "pull", "--quiet", image]).env("DOCKER_HOST", &self.host);
        if pull.output()?.status.success() {
            return Ok(());
        }
        let mut make = command(None, "sh");
        make.args(["-c", script, "make"]).env("DOCKER_HOST", &self.host);
        run(make.env("DOCKER_BUILDKIT", "0")).with_context(|| image.to_owned()).map(drop)
    }

    /// Makes one, by the builder that every engine has.
    fn image(&self, tag: &str, target: &str, context: &Path, arguments: &[&str]) -> Result<()> {
        let mut build = self.docker();
        build.env("DOCKER_BUILDKIT", "0");
        build.args(["build", "--quiet", "--network", "host", "--target", target]).args(arguments);
        build.args(["--tag", tag, "--file"]).arg(context.join("docker/Dockerfile"));
        run(build.arg(context)).with_context(|| format!("image {tag}")).map(drop)
    }

    /// What an image's program says when it is run with `arguments` and nothing else.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn say(&self, image: &str, arguments: &[&str]) -> Result<String> {
        run(self.docker().args(["run", "--rm", "--network", "none", image]).args(arguments))
    }

    /// The folders of these containers' namespaces; if the engine is the lab's own.
    ///
    /// # Errors
    ///
    /// One of them does not run.
    pub fn namespaces(&self, containers: &[String]) -> Result<Option<Vec<PathBuf>>> {
        let Some(dockerd) = self.dockerd()? else { return Ok(None) };
        let ask = ["inspect", "--format", "{{.State.Pid}}"];
        let processes = run(self.docker().args(ask).args(containers))?;
        // Numbers and `/proc` are those of the engine's own PID namespace.
        let folder = |process| format!("/proc/{dockerd}/root/proc/{process}/ns").into();
        Ok(Some(processes.lines().map(folder).collect()))
    }

    /// The process of the lab's own.
    fn dockerd(&self) -> Result<Option<u32>> {
        let Some(daemon) = &self.daemon else { return Ok(None) };
        // unshare is its parent.
        let id = daemon.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(Some(children.trim().parse().with_context(|| format!("children of {id}: {children}"))?))
    }

    /// Ends it, if it is the lab's own.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn end(mut self, limits: &Limits) -> Result<()> {
        let dockerd = self.dockerd()?;
        let (Some(daemon), Some(dockerd)) = (&mut self.daemon, dockerd) else { return Ok(()) };
        // unshare waits for it and passes nothing on.
        run(command(None, "kill").arg(dockerd.to_string()))?;
        daemon.wait(PATIENCE, limits).map(drop)
    }
}

/// `program` in a container whose namespaces are in this folder: as `docker exec` would run it, but for
/// the tenth of a second of processor time that takes.
#[must_use]
pub fn inside(namespaces: &Path, program: &str) -> Command {
    let mut inside = command(None, "nsenter");
    for (option, name) in [
        ("mount", "mnt"),
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("net", "net"),
        ("pid", "pid"),
        ("cgroup", "cgroup"),
    ] {
        inside.arg(format!("--{option}={}", namespaces.join(name).display()));
    }
    inside.args(["--", program]).env_clear().env("PATH", PATH);
    inside
}

/// `program` of this machine in the network of such a container.
#[must_use]
pub fn visiting(namespaces: &Path, program: &str) -> Command {
    let mut visitor = command(None, "nsenter");
    visitor.arg(format!("--net={}", namespaces.join("net").display())).args(["--", program]);
    visitor
}
