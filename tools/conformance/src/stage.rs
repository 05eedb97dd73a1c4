//! A director on a stage: the real control plane and the real worker, driven by hand.
//!
//! ```text
//!  ipvsadm words ─rvsadm─► Director ─snapshot─► Worker ◄──► queues of two links
//!                                     breathe(now): time is what the caller says
//! ```
//!
//! Nothing here is a model of rvs: a command goes the way that an operator's command goes, and a
//! frame the way that a frame goes. [`Stage`] is for any kind of link; [`Bench`] puts it between two
//! memory links, a client's side and a servers' side.

use crate::tally::Failure;
use core::time::Duration;
use rvs_adm::{Names, Transport, run};
use rvs_api::{
    ClientError, ConnEntry, Errno, Outcome, Refusal, Reply, Request, ServiceEntry, Tunable,
};
use rvs_control::config::Config;
use rvs_control::conns::entry;
use rvs_control::director::{Director, Lines};
use rvs_io::memory::{FarEnd, MemoryQueue, link};
use rvs_io::{Queue, Reserve};
use rvs_model::{TICKS_PER_SECOND, Tick};
use rvs_plane::shared::{Command, ConnRow, Dump, FrameCounts};
use rvs_plane::{Mesh, Setup, Shared, Steering, Worker};

/// Connections asked for at a time.
const ROWS: usize = 1024;
/// Breaths after which a worker must have answered.
const BREATHS_MAX: usize = 10_000;
/// What the connection table hashes with. A stage is the same every time.
const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// How a command ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ran {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A director with one worker.
pub struct Stage<Q: Queue> {
    director: Director,
    worker: Worker<Q>,
    shared: Shared,
    now: Tick,
}

impl<Q: Queue> Stage<Q> {
    /// A director as `config` describes it, without services, on these queues (one of each link).
    ///
    /// # Errors
    ///
    /// A table size that cannot be.
    pub fn new(config: &Config, queues: Vec<Q>, pool: Q::Pool) -> Result<Self, Failure> {
        let shared = Shared::new(config.tables.dests);
        let workers = [shared.clone()];
        let director = Director::new(config, workers.to_vec());
        let setup = Setup {
            id: 0,
            queues,
            pool,
            reader: director.reader(),
            shared: shared.clone(),
            all_lines: Lines::new(&workers).to_vec(),
            mesh: Mesh::new(1),
            steering: Steering::new(1),
            limits: config.limits(),
            seed: SEED,
            now: 0,
        };
        let worker = Worker::new(setup).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self { director, worker, shared, now: 0 })
    }

    /// The time, in ticks since the beginning.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Breathes until nothing moves and nothing more expires.
    pub fn settle(&mut self) {
        for _ in 0..BREATHS_MAX {
            let before = self.worker.conns();
            if self.worker.breathe(self.now) == 0 && self.worker.conns() == before {
                break;
            }
        }
    }

    /// Lets one tick pass.
    pub fn pass_tick(&mut self) {
        self.now += 1;
        if self.now.is_multiple_of(TICKS_PER_SECOND) {
            let now = Duration::from_secs((self.now / TICKS_PER_SECOND).into());
            // Nothing is kept here, so nothing can fail.
            let _nothing_kept = self.director.tick(now);
        }
        self.settle();
    }

    /// Carries out a command line of ipvsadm, without the program's name, as its process would.
    pub fn ipvsadm(&mut self, args: &str, stdin: &str, names: &dyn Names) -> Ran {
        let words = core::iter::once("ipvsadm").chain(args.split_whitespace());
        let words: Vec<String> = words.map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&words, &mut stdin.as_bytes(), self, names, &mut out, &mut err);
        Ran {
            status,
            stdout: String::from_utf8_lossy(&out).into_owned(),
            stderr: String::from_utf8_lossy(&err).into_owned(),
        }
    }

    /// Changes a sysctl.
    ///
    /// # Errors
    ///
    /// What rvsd said.
    pub fn set_tunable(&mut self, name: &str, value: &str) -> Result<Tunable, Refusal> {
        let (name, value) = (name.to_owned(), value.to_owned());
        match self.carry_out(Request::SetTunable { name, value })? {
            Reply::Tunables(set) => set.into_iter().next().ok_or_else(|| Errno::Io.into()),
            _ => Err(Errno::Io.into()),
        }
    }

    /// All services with their destinations and counters.
    pub fn services(&mut self) -> Vec<ServiceEntry> {
        match self.carry_out(Request::ListServices { service: None }) {
            Ok(Reply::Services(services)) => services,
            _ => Vec::new(),
        }
    }

    /// Active and inactive connections of all destinations.
    pub fn loads(&mut self) -> (i64, i64) {
        let services = self.services();
        let dests = services.iter().flat_map(|service| &service.dests);
        dests.fold((0, 0), |(active, inactive), dest| {
            (active + i64::from(dest.active), inactive + i64::from(dest.inactive))
        })
    }

    /// All connections, each with the ticks that it has left.
    pub fn conns(&mut self) -> Vec<(ConnEntry, Tick)> {
        let rows = self.rows();
        let told =
            |row: &ConnRow| Some((entry(row, self.director.dest(row.dest_id))?, row.expires));
        rows.iter().filter_map(told).collect()
    }

    /// What became of all frames so far.
    #[must_use]
    pub fn counts(&self) -> FrameCounts {
        self.shared.frames.read()
    }

    /// The queues of the links.
    pub fn queues_mut(&mut self) -> &mut [Q] {
        self.worker.queues_mut()
    }

    /// Ends it: what waits is counted as dropped, and the queues come back.
    #[must_use]
    pub fn finish(self) -> (Vec<Q>, FrameCounts) {
        let (queues, _pool) = self.worker.finish();
        (queues, self.shared.frames.read())
    }

    fn rows(&mut self) -> Vec<ConnRow> {
        let mut rows = Vec::new();
        for v6 in [false, true] {
            let mut dump = Dump { v6, from: 0, rows: Vec::with_capacity(ROWS), done: false };
            while !dump.done {
                dump.rows.clear();
                let Some(answered) = self.ask(dump) else { break };
                dump = answered;
                rows.extend_from_slice(&dump.rows);
            }
        }
        rows
    }

    fn ask(&mut self, dump: Dump) -> Option<Dump> {
        self.shared.commands.push(Command::Dump(dump)).ok()?;
        for _ in 0..BREATHS_MAX {
            self.worker.breathe(self.now);
            if let Some(Command::Dump(dump)) = self.shared.replies.pop() {
                return Some(dump);
            }
        }
        None
    }

    fn carry_out(&mut self, request: Request) -> Outcome {
        if request == Request::ListConns {
            return Ok(Reply::Conns(self.conns().into_iter().map(|(conn, _)| conn).collect()));
        }
        if let Request::ListConnsWhere(filter) = &request {
            let rows = self.rows();
            let told = |row: &ConnRow| {
                let told = entry(row, self.director.dest(row.dest_id))?;
                let service = self.director.service_of(row.dest_id);
                filter.admits(&told, service.as_ref()).then_some(told)
            };
            return Ok(Reply::Conns(rows.iter().filter_map(told).collect()));
        }
        let outcome = self.director.apply([request]).pop();
        // A worker sees each change before the next one, as it would between two commands.
        self.settle();
        outcome.unwrap_or_else(|| Err(Errno::Io.into()))
    }
}

impl<Q: Queue> Transport for Stage<Q> {
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        Ok(requests.iter().map(|request| self.carry_out(request.clone())).collect())
    }
}

/// One of the two links.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// Where clients are.
    Client,
    /// Where real servers are.
    Servers,
}

impl Side {
    /// Both, by link.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Servers];

    /// What recordings call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Servers => "rs",
        }
    }
}

/// A frame that left the director.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// Through which link.
    pub side: Side,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

/// Every frame to the one queue.
type OneQueue = fn(&[u8]) -> u32;

/// A stage between two memory links.
pub struct Bench {
    /// The director.
    pub stage: Stage<MemoryQueue>,
    far: [FarEnd<OneQueue>; 2],
}

impl Bench {
    /// Frames on a memory link at a time.
    const DEPTH: usize = 512;

    /// A director as `config` describes it, whose first link is the clients' and whose second one
    /// the servers'.
    ///
    /// # Errors
    ///
    /// As [`Stage::new`].
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let reserve = Reserve::new(config.tables.frames, config.tables.frame_octets);
        let one: OneQueue = |_| 0;
        let (clients, client_end) = link(1, Self::DEPTH, reserve.pool_with_cache(64), one);
        let (servers, servers_end) = link(1, Self::DEPTH, reserve.pool_with_cache(64), one);
        let queues = clients.into_iter().chain(servers).collect();
        let stage = Stage::new(config, queues, reserve.pool_with_cache(64))?;
        Ok(Self { stage, far: [client_end, servers_end] })
    }

    /// Gives the director a frame and returns what it sent until nothing moved any more.
    ///
    /// # Errors
    ///
    /// The frame is too long for the link, or a frame is not accounted for.
    pub fn give(&mut self, side: Side, frame: &[u8]) -> Result<Vec<Sent>, Failure> {
        let [clients, servers] = &mut self.far;
        let far = match side {
            Side::Client => clients,
            Side::Servers => servers,
        };
        far.inject(frame).map_err(|error| Failure::new(error.to_string()))?;
        self.stage.settle();
        match self.stage.counts().unaccounted() {
            0 => Ok(self.collect()),
            frames => Err(Failure::new(format!("{frames} frames are not accounted for"))),
        }
    }

    /// What the director has sent and nobody has looked at.
    pub fn collect(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for (far, side) in self.far.iter_mut().zip(Side::BOTH) {
            sent.extend(far.collect().into_iter().map(|frame| Sent { side, frame }));
        }
        sent
    }
}
