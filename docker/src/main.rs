//! `rvs-lab`: rvs between real kernels, in network namespaces.
#![forbid(unsafe_code)]

use std::env;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use rvs_lab::cases::{conclude, run};
use rvs_lab::director::Driver;
use rvs_lab::engine::{Engine, Network, Origin};
use rvs_lab::lab::{Lab, Setup, show_logs};
use rvs_lab::probe::Probe;
use rvs_lab::process;
use rvs_lab::process::Limits;
use rvs_lab::stage::Stage;
use rvs_lab::topology::{BUILT_IN, Family, Topology};
use rvs_lab::{
    containers, decap, engine, faults, ftp, functional, host, keepalived, probe, share, topology,
    traffic, wire,
};

/// Set for the process that has its own mounts.
const PRIVATE: &str = "RVS_LAB_PRIVATE";

/// What labs are about, beside this program.
const PROGRAMS: [&str; 3] = ["rvsd", "rvsadm", "rvs-pktgen"];

/// Programs that a lab needs, each with its Debian package.
const NEEDED: [(&str, &str); 5] = [
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// And for functional tests.
const FOR_FUNCTIONAL: [(&str, &str); 6] = [
    ("iperf3", "iperf3"),
    ("nc", "netcat-openbsd"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("dumpcap", "wireshark-common"),
    ("tshark", "tshark"),
];

/// And for `--inspect`.
const TO_INSPECT: [(&str, &str); 2] = [("dumpcap", "wireshark-common"), ("tshark", "tshark")];

/// Labs in network namespaces: real clients and servers around rvsd.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// All topologies, both address families: does each method balance real HTTP?
    Demo(Options),
    /// One topology: nat, dr, tun or a file.
    Run {
        /// Its name, or a TOML file.
        topology: String,
        /// Only this address family, 4 or 6.
        #[arg(long, value_parser = family)]
        family: Option<Family>,
        #[command(flatten)]
        options: Options,
    },
    /// Brings a topology up, with its services, and waits for Ctrl-C: to look around.
    Up {
        /// Its name, or a TOML file.
        topology: String,
        #[command(flatten)]
        options: Options,
    },
    /// Thousands of packets of rvs-pktgen through rvsd, each of them judged.
    Traffic(Options),
    /// FTP in all its modes: vsftpd and curl.
    Ftp(Options),
    /// Debian's keepalived manages rvsd, while servers and rvsd itself die and come back.
    Keepalived(Options),
    /// The same in containers: images of rvs and of hosts, compose files, an engine of the lab's own.
    Containers {
        #[command(flatten)]
        options: Options,
        /// Only functional claims that contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// Only nat, dr, tun or jumbo.
        #[arg(long)]
        topology: Option<String>,
        /// Where the engine keeps its images.
        #[arg(long)]
        data: PathBuf,
        /// An engine that runs already, as in `DOCKER_HOST`, instead of one of the lab's own.
        #[arg(long)]
        engine: Option<String>,
        /// Builds the images from source, from the repository in this folder.
        #[arg(long)]
        source: Option<PathBuf>,
        /// The image with DPDK's drivers, for an rvsd that was built with them: `--link dpdk` uses them.
        #[arg(long)]
        dpdk: bool,
    },
    /// What real programs do through rvsd, each as a claim; in network namespaces.
    Functional {
        /// Only claims that contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// Only this topology: its name, or a TOML file.
        #[arg(long)]
        topology: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Servers and rvsd die, cables are pulled, disks fill up: what clients see of it.
    Faults {
        /// Only acts whose claim contains this.
        #[arg(long, default_value = "")]
        only: String,
        #[command(flatten)]
        options: Options,
    },
    /// Clients and a server of a few lines; what functional tests run on hosts.
    #[command(subcommand)]
    Probe(Probe),
    /// The program of a cable that does something, in the namespace of the bridges.
    Wire {
        /// Its topology.
        topology: String,
        /// The network that it carries.
        network: String,
        /// Plugs itself in, between rvsd's TAP and its bridge.
        #[arg(long)]
        insert: bool,
    },
    /// A host of a lab that is a container; what its entry point runs.
    Host(host::Role),
    /// The director's own machine uses the director's link as well: ping, TCP and VRRP beside a
    /// balanced service. Takes `--link af_xdp` or `--link af_packet`.
    Share(Options),
    /// Unwraps IP in IP for the network namespace it runs in: a real server of LVS-TUN.
    Decap,
}

#[derive(clap::Args)]
struct Options {
    /// HTTP requests for each address family.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Seconds after which the lab gives up: it takes a tenth of them, but not on a busy machine.
    #[arg(long, default_value_t = 600)]
    timeout_s: u64,
    /// The folder of rvsd and rvsadm, if not this program's.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where to copy the logs of a lab that failed.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Let tshark look for malformed frames and wrong checksums in what rvsd sends.
    #[arg(long)]
    inspect: bool,
    /// How rvsd gets at its links.
    #[arg(long, value_enum, default_value_t)]
    link: Driver,
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "4" => Ok(Family::V4),
        "6" => Ok(Family::V6),
        _ => Err("4 or 6".to_owned()),
    }
}

fn main() -> ExitCode {
    match act(&Arguments::parse().action) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rvs-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
fn act(action: &Action) -> Result<bool> {
    match action {
        Action::Demo(options) => {
            let topologies = BUILT_IN.iter().map(|(name, _)| Topology::load(name));
            let topologies: Vec<_> = topologies.collect::<Result<_>>()?;
            run_all(&topologies, &Family::ALL, options)
        }
        Action::Run { topology, family, options } => {
            let topology = Topology::load(topology)?;
            let families = family.map_or(Family::ALL.to_vec(), |family| vec![family]);
            run_all(&[topology], &families, options)
        }
        Action::Traffic(options) => {
            let setup = prepare(options)?;
            traffic::act(&setup, &Limits::new(Duration::from_secs(options.timeout_s))?)
        }
        Action::Ftp(options) => {
            require(&[("vsftpd", "vsftpd")])?;
            let setup = prepare(options)?;
            ftp::act(&setup, &Limits::new(Duration::from_secs(options.timeout_s))?)
        }
        Action::Up { topology, options } => up(&Topology::load(topology)?, options),
        Action::Keepalived(options) => {
            let setup = prepare(options)?;
            let limits = Limits::new(Duration::from_secs(options.timeout_s))?;
            keepalived::run_scenario(&setup, &limits)
        }
        Action::Containers { options, only, topology, data, engine, source, dpdk } => {
            let places = (data.as_path(), engine.as_deref(), source.as_deref());
            run_in_containers(options, (only, topology.as_deref()), places, *dpdk)
        }
        Action::Functional { only, topology, options } => {
            run_functional(only, topology.as_deref(), options)
        }
        Action::Faults { only, options } => {
            let setup = prepare(options)?;
            faults::act(&setup, only, &Limits::new(Duration::from_secs(options.timeout_s))?)
        }
        Action::Probe(probe) => probe::run(probe).map(|()| true),
        Action::Wire { topology, network, insert } => {
            let cable = Topology::load(topology)?.cable(network);
            let plug_in = || if *insert { wire::insert(network) } else { Ok(()) };
            wire::run(network, &cable, plug_in).map(|()| true)
        }
        Action::Host(role) => host::run(role).map(|()| true),
        Action::Share(options) => {
            let setup = prepare(options)?;
            let limits = Limits::new(Duration::from_secs(options.timeout_s))?;
            share::run_scenario(&setup, &limits)
        }
        Action::Decap => decap::run().map(|()| true),
    }
}

fn run_all(topologies: &[Topology], families: &[Family], options: &Options) -> Result<bool> {
    let setup = prepare(options)?;
    let limits = Limits::new(Duration::from_secs(options.timeout_s))?;
    let mut outcomes = Vec::new();
    for topology in topologies {
        limits.check()?;
        outcomes.extend(run(topology, families, options.requests, &setup, &limits));
    }
    Ok(conclude(&outcomes, options.requests, &limits))
}

/// Every claim, in every topology.
fn run_functional(only: &str, topology: Option<&str>, options: &Options) -> Result<bool> {
    require(&FOR_FUNCTIONAL)?;
    let setup = prepare(options)?;
    let limits = Limits::new(Duration::from_secs(options.timeout_s))?;
    let mut names: Vec<_> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    // `apart` is the faults'.
    names.extend(topology::variants()?.into_iter().filter(|name| name != "apart"));
    if let Some(name) = topology {
        names = vec![name.to_owned()];
    }
    let mut shown = Vec::new();
    for name in names {
        let topology = Topology::load(&name)?;
        println!("\n== {}: {}", topology.name, topology.claim);
        let outcome = Lab::up(&topology, &setup, &limits).and_then(|lab| {
            let of_lab = functional::act(&lab, only, &limits);
            lab.end(&limits).map(|_| of_lab)
        });
        let outcome = outcome.inspect_err(|_| {
            let _ = show_logs(&topology, &setup);
        });
        shown.extend(outcome?);
    }
    Ok(functional::conclude(&shown, &limits))
}

/// Images, then every topology in containers.
fn run_in_containers(
    options: &Options,
    (only, topology): (&str, Option<&str>),
    (data, host, source): (&Path, Option<&str>, Option<&Path>),
    dpdk: bool,
) -> Result<bool> {
    let data = std::path::absolute(data)?;
    require(&engine::NEEDED)?;
    require(&FOR_FUNCTIONAL)?;
    let programs: &[&str] = if source.is_some() { &[] } else { &PROGRAMS };
    let setup = prepare_with(options, programs)?;
    let limits = Limits::new(Duration::from_secs(options.timeout_s))?;
    let dir = Path::new(engine::RUN);
    std::fs::create_dir_all(dir)?;
    let start = |network| match host {
        Some(host) => Ok(Engine::at(host)),
        None => Engine::start(network, &data, dir, &limits),
    };
    let builder = start(Network::Machine)?;
    builder.build(source.map_or(Origin::Built(&setup.bin), Origin::Source), dpdk, dir)?;
    builder.end(&limits)?;
    println!("   {:5.1} s  images are built", limits.elapsed().as_secs_f32());
    let engine = start(Network::Own)?;
    let made = (&engine, options.link);
    println!("   the image's program is {}", engine.say("rvs", &["--version"])?.trim());
    let (mut outcomes, mut shown) = (Vec::new(), Vec::new());
    let mut names: Vec<_> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(topology::variants()?);
    for name in names.iter().filter(|name| topology.is_none_or(|it| it == *name)) {
        let (topology, requests) = (Topology::load(name)?, options.requests);
        if !topology.fits_containers(options.link) {
            continue;
        }
        let found = (only, &mut shown);
        outcomes.extend(containers::run_topology(&topology, made, dir, requests, found, &limits));
    }
    engine.end(&limits)?;
    let answered = outcomes.is_empty() || conclude(&outcomes, options.requests, &limits);
    Ok(functional::conclude(&shown, &limits) && answered)
}

fn up(topology: &Topology, options: &Options) -> Result<bool> {
    let setup = prepare(options)?;
    let limits = Limits::new(Duration::MAX)?;
    let lab = Lab::up(topology, &setup, &limits)?;
    for address in &topology.service.addresses {
        let stage: &dyn Stage = &lab;
        stage.add_service((*address, topology.service.port).into())?;
    }
    let enter = format!("nsenter --mount --target {} --", std::process::id());
    println!("\nIn another terminal, as root:");
    for address in &topology.service.addresses {
        let vip = std::net::SocketAddr::new(*address, topology.service.port);
        println!("  {enter} ip netns exec client curl 'http://{vip}/'");
    }
    let socket = lab.director.socket().display();
    println!("  {enter} env RVS_SOCKET={socket} {} -Ln", setup.bin.join("rvsadm").display());
    println!("Ctrl-C ends the lab.");
    while limits.check().is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}", lab.end(&Limits::new(Duration::from_mins(1))?)?.0);
    Ok(true)
}

/// Checks that a lab can be built here, and enters mounts of its own.
fn prepare(options: &Options) -> Result<Setup> {
    prepare_with(options, &PROGRAMS)
}

/// The same where only `programs` are to be there.
fn prepare_with(options: &Options, programs: &[&str]) -> Result<Setup> {
    // The owner of a process's folder is its effective user.
    let uid = std::fs::metadata("/proc/self")?.uid();
    ensure!(uid == 0, "network namespaces and TAP devices take root; try: sudo {}", invocation());
    ensure!(Path::new("/dev/net/tun").exists(), "no /dev/net/tun here; try: modprobe tun");
    require(&NEEDED)?;
    if options.inspect {
        require(&TO_INSPECT)?;
    }
    let own = env::current_exe().context("where this program is")?;
    let bin = match (&options.bin, own.parent()) {
        (Some(bin), _) => bin.canonicalize().with_context(|| bin.display().to_string())?,
        (None, Some(parent)) => parent.to_owned(),
        (None, None) => bail!("{} is in no folder", own.display()),
    };
    for program in programs {
        let path = bin.join(program);
        ensure!(path.exists(), "no {}; build it, or say --bin", path.display());
    }
    enter_private_mounts(&own)?;
    let (logs, inspect, driver) = (options.logs.clone(), options.inspect, options.link);
    Ok(Setup { bin, logs, inspect, driver, environment: Vec::new() })
}

/// Fails with the line to run when programs are missing; each has its Debian package.
fn require(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !is_installed(program));
    let mut packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    if !packages.is_empty() {
        bail!("missing programs; install them with: apt-get install {}", packages.join(" "));
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    path_dirs().any(|dir| dir.join(program).exists())
}

/// Where programs are; also those that only root may use, whose folders `su` leaves out.
fn path_dirs() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = env::split_paths(&path).collect();
    dirs.into_iter().chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
}

/// Starts this program again (the same process) with a `/run` of its own, so that the lab's
/// namespaces, sockets and files have plain names, are nobody else's, and go with the last process.
fn enter_private_mounts(own: &Path) -> Result<()> {
    if env::var_os(PRIVATE).is_some() {
        process::run(Command::new("mount").args(["-t", "tmpfs", "rvs-lab", "/run"]))?;
        return Ok(());
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private", "--"]).arg(own);
    again.args(env::args_os().skip(1)).env(PRIVATE, "1").env("PATH", env::join_paths(path_dirs())?);
    Err(again.exec()).context("unshare")
}

fn invocation() -> String {
    env::args().collect::<Vec<_>>().join(" ")
}
