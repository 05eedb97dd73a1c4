//! The director as a network function of [Capsule](https://crates.io/crates/capsule).
//!
//! ```text
//!  Capsule's TOML ──► Runtime: EAL, pools, ports, cores      rvs's TOML ──► control plane
//!                        │ one Pipeline on each core of the ports               │ snapshot
//!                        └──► a worker of rvs, with raw bursts ◄────────────────┘
//! ```
//!
//! For people who run Capsule functions already and want a director among them. Capsule owns DPDK:
//! its devices, queues, pools and threads; rvs brings nothing but a worker for each core. Frames go
//! to the worker as they come from the driver, past Capsule's packet types (docs/adr/0024-capsule.md).
//! Everybody else takes `rvsd`, which needs none of this.

mod pipeline;
mod ports;

use capsule::Runtime;
use capsule::config::RuntimeConfig;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use pipeline::{Breathing, Done};
use ports::Ports;
use rvs_control::config::{Config, ConfigError, Links};
use rvs_control::conns::Conns;
use rvs_control::desk::Desk;
use rvs_control::director::{Director, Lines};
use rvs_control::socket::{Kind, Server, Socket, SocketError};
use rvs_control::store::StoreError;
use rvs_control::summary::Summary;
use rvs_control::{netlink, server};
use rvs_dpdk::{DpdkQueue, guest};
use rvs_plane::{Mesh, Setup, Shared, Steering};
use rvs_wire::mac::MacAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Between two looks at rates and places that may be free.
const LOOK: Duration = Duration::from_secs(1);

/// Why a director cannot be a guest. One line, with what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// rvs's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What services are kept in.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read.
    #[error("{path}: {why}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The two configurations do not fit each other.
    #[error("{0}")]
    Misfit(String),
    /// Capsule cannot start, or failed while it ran.
    #[error("Capsule: {0:#}")]
    Capsule(anyhow::Error),
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// A Capsule runtime with a director in it.
///
/// Fields are dropped in this order: frames must be back in their pools before Capsule frees those.
pub struct Guest {
    servers: [Server; 2],
    desk: Arc<Desk>,
    done: Done,
    mesh: Mesh<<DpdkQueue as rvs_io::Queue>::Frame>,
    shared: Vec<Shared>,
    runtime: Runtime,
    start: Instant,
    cores: Vec<usize>,
}

impl Guest {
    /// Starts Capsule as its TOML `capsule` says, and prepares the director that `config` describes:
    /// each of its links is one of kind `dpdk` whose `device` is that of one of Capsule's ports.
    ///
    /// # Errors
    ///
    /// Capsule does not start, the two do not fit, or a socket cannot be had.
    pub fn new(capsule: &str, mut config: Config) -> Result<Self, Failure> {
        let misfit = |error: toml::de::Error| {
            Failure::Misfit(format!("Capsule's configuration: {}", error.message()))
        };
        let settings: RuntimeConfig = toml::from_str(capsule).map_err(misfit)?;
        let Links::Dpdk(links) = &config.links else {
            let kind = config.links.kind();
            return Err(Failure::Misfit(format!("links are of kind {kind}, expected dpdk")));
        };
        let links = links.clone();
        let ports = Ports::of(capsule, &links)?;
        let control = Socket::bind(Kind::Control, &config.control)?;
        let netlink = Socket::bind(Kind::Netlink, &config.control)?;
        let runtime = Runtime::build(settings).map_err(Failure::Capsule)?;
        // JUSTIFICATION: DPDK is Capsule's.
        // SAFETY: `Runtime::build` has started EAL, which ends when `runtime` is dropped: `Guest`
        //   drops all that has frames before.
        let eal = unsafe { guest::eal() };
        for (link, number) in links.iter().zip(0..) {
            if link.mac.is_none() {
                let mac = ports.mac(eal, number)?;
                config.network = config.network.clone().with_mac(number, MacAddr(mac));
            }
        }
        config.workers.cores.clone_from(&ports.cores);
        let count = config.workers.count();
        let shared: Vec<_> = (0..count).map(|_| Shared::new(config.tables.dests)).collect();
        let mut director = Director::new(&config, shared.clone());
        if let Some(path) = &config.control.state
            && let Some(left_out) = director.keep_in(path, config.control.sync)?
        {
            log(format_args!("rvs-capsule: {left_out}"));
        }
        let (mesh, steering, start) = (Mesh::new(count), Steering::new(count), Instant::now());
        let done = Done::default();
        let all_lines = Lines::new(&shared).to_vec();
        let mut setups = Vec::new();
        for (id, shared) in (0..).zip(&shared) {
            setups.push(Setup {
                id,
                queues: ports.queues(eal, id)?,
                pool: ports::pool(eal)?,
                reader: director.reader(),
                shared: shared.clone(),
                all_lines: all_lines.clone(),
                mesh: mesh.clone(),
                steering: steering.clone(),
                limits: config.limits(),
                seed: seed()?,
                now: 0,
            });
        }
        let rules = config.control.rules.clone();
        let desk = Arc::new(Desk::new(director, Conns::new(&shared), rules, |line| log(line)));
        let servers = [
            server::serve(control, Arc::clone(&desk))?,
            netlink::serve(netlink, Arc::clone(&desk))?,
        ];
        let cores = ports.cores;
        let mut guest = Self { servers, desk, done, mesh, shared, runtime, start, cores };
        for (core, setup) in guest.cores.iter().zip(setups) {
            // Capsule wants to be able to share what it only moves.
            let (setup, done) = (Mutex::new(setup), guest.done.clone());
            let install = move |_queues| {
                let setup = setup.into_inner().unwrap_or_else(PoisonError::into_inner);
                Breathing::new(setup, start, done)
            };
            guest.runtime.add_pipeline_to_core(*core, install).map_err(Failure::Capsule)?;
        }
        Ok(guest)
    }

    /// Capsule's runtime, for other network functions beside the director. On the
    /// director's ports they may send, from the same core; what they would receive is the director's.
    pub fn runtime(&mut self) -> &mut Runtime {
        &mut self.runtime
    }

    /// What the workers share with the control plane, by worker: their counters are there.
    #[must_use]
    pub fn shared(&self) -> &[Shared] {
        &self.shared
    }

    /// Runs until Capsule is told to stop, by a signal or its `duration`, and gives account.
    ///
    /// # Errors
    ///
    /// Capsule's.
    pub fn run(mut self) -> Result<Summary, Failure> {
        let cores: Vec<_> = self.cores.iter().map(ToString::to_string).collect();
        log(format_args!("rvs-capsule: ready: workers on cores {}", cores.join(", ")));
        let stop = Arc::new(AtomicBool::new(false));
        let clock = self.tick_until(&stop)?;
        let ran = self.runtime.execute();
        stop.store(true, Ordering::Relaxed);
        clock.thread().unpark();
        let _panicked = clock.join();
        self.servers.iter_mut().for_each(Server::stop);
        // No worker breathes any more: what waits can be counted, and is back in its pool.
        self.done.finish();
        if let Err(error) = self.desk.director().keep_counters() {
            log(format_args!("rvs-capsule: counters: {error}"));
        }
        ran.map_err(Failure::Capsule)?;
        debug_assert!((0..).map_while(|id| self.mesh.inbox(id)).all(|inbox| inbox.waiting() == 0));
        Ok(Summary::of(&self.shared))
    }

    /// Rates, and places that are free again: the main thread is Capsule's.
    fn tick_until(&self, stop: &Arc<AtomicBool>) -> Result<JoinHandle<()>, Failure> {
        let (stop, desk, start) = (Arc::clone(stop), Arc::clone(&self.desk), self.start);
        let clock = move || {
            while !stop.load(Ordering::Relaxed) {
                thread::park_timeout(LOOK);
                if let Err(error) = desk.director().tick(start.elapsed()) {
                    log(format_args!("rvs-capsule: {error}"));
                }
            }
        };
        let spawned = thread::Builder::new().name("rvs-clock".to_owned()).spawn(clock);
        spawned.map_err(|source| Failure::System { what: "a thread", source })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.done.close();
    }
}

/// Keys for a table's hash that nobody can guess.
fn seed() -> Result<[u64; 2], Failure> {
    let mut words = [[0; 8]; 2];
    for word in &mut words {
        let filled = rustix::rand::getrandom(&mut *word, rustix::rand::GetRandomFlags::empty());
        filled.map_err(|error| Failure::System { what: "random octets", source: error.into() })?;
    }
    Ok(words.map(u64::from_ne_bytes))
}

/// A line on standard error; nobody to read it is no reason to fail.
pub fn log(line: impl core::fmt::Display) {
    use std::io::Write as _;
    let _closed = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
