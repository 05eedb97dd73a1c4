//! `rvsd run`: the order of starting and of ending.
//!
//! ```text
//!  control socket bound ─► links opened ─► workers pinned, tables made ─► clients served ─► ready
//!  SIGTERM ─► socket gone ─► workers stop breathing, all of them ─► what waits is counted ─► summary
//! ```

use crate::check::placement;
use crate::device::{Device, Doorbell, End, Opened};
use crate::turn::Turns;
use crate::{Failure, exit, log, print};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rvs_control::config::{Config, Links, Tables};
use rvs_control::conns::Conns;
use rvs_control::desk::Desk;
use rvs_control::director::{Director, Lines};
use rvs_control::socket::{Kind, Server, Socket};
use rvs_control::summary::Summary;
use rvs_control::{netlink, server};
use rvs_io::af_xdp::AfXdpQueue;
use rvs_io::pcap::PcapQueue;
use rvs_io::tap::TapQueue;
use rvs_plane::stage::Stage;
use rvs_plane::{Mesh, Setup, Shared, Steering, Worker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Between two looks at workers, rates and places that may be free.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 400 } else { 1000 });
/// Looks without a breath after which a worker is reported.
const LATE_LOOKS: u32 = 2;
/// And after which nobody waits for it any longer: its clients' packets go nowhere meanwhile. A
/// worker that merely rests wakes a hundred times a second.
const STALLED_LOOKS: u32 = 5;
/// How long workers may take to stop.
const STOP_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 2000 } else { 5000 });

/// Runs a director until it is told to stop.
pub fn run(config: &Config) -> Result<ExitCode, Failure> {
    Ok(match &config.links {
        Links::Tap(links) => Running::<TapQueue>::start(config, links)?.until_the_end(),
        Links::Pcap(links) => Running::<PcapQueue>::start(config, links)?.until_the_end(),
        Links::AfXdp(links) => Running::<AfXdpQueue>::start(config, links)?.until_the_end(),
        #[cfg(feature = "dpdk")]
        Links::Dpdk(links) => Running::<rvs_dpdk::DpdkQueue>::start(config, links)?.until_the_end(),
        #[cfg(not(feature = "dpdk"))]
        Links::Dpdk(_) => return Err(Failure::NoDpdk),
    })
}

/// What the main thread waits for.
enum Event {
    /// A signal says stop.
    Stop,
    /// A worker has made its tables, or cannot.
    Started(usize, Result<(), String>),
    /// A worker stopped breathing: as told, or because there is nothing to come.
    Stopped,
    /// A worker's thread is over.
    Over(usize),
}

/// A director at work.
struct Running<'c, D: Device> {
    links: &'c [D::Link],
    ends: Vec<Box<dyn End>>,
    workers: Vec<Option<JoinHandle<Vec<D>>>>,
    shared: Vec<Shared>,
    desk: Arc<Desk>,
    servers: [Server; 2],
    stop: Arc<AtomicBool>,
    events: Receiver<Event>,
    start: Instant,
    /// A signal came while it was starting.
    told_to_stop: bool,
}

impl<'c, D: Device> Running<'c, D> {
    fn start(config: &Config, links: &'c [D::Link]) -> Result<Self, Failure> {
        find_memory(config)?;
        let (sender, events) = mpsc::channel();
        listen_for_signals(sender.clone())?;
        let control = Socket::bind(Kind::Control, &config.control)?;
        let netlink = Socket::bind(Kind::Netlink, &config.control)?;
        let count = config.workers.count();
        let Opened { workers: outfits, mut ends, macs } = D::open(links, config)?;
        let mut config = config.clone();
        for (link, mac) in macs {
            config.network = config.network.with_mac(link, mac);
        }
        let config = &config;
        ends.iter_mut().filter_map(|end| end.look()).for_each(log);

        let shared: Vec<_> = (0..count).map(|_| Shared::new(config.tables.dests)).collect();
        let mut director = Director::new(config, shared.clone());
        if let Some(path) = &config.control.state
            && let Some(left_out) = director.keep_in(path, config.control.sync)?
        {
            log(format_args!("rvsd: {left_out}"));
        }
        let (stop, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let mesh = Mesh::with_bells(shared.iter().map(|shared| Arc::clone(&shared.bell)));
        let steering = Steering::new(count);
        let all_lines = Lines::new(&shared).to_vec();
        let barrier = Arc::new(Barrier::new(usize::from(count)));
        let mut workers = Vec::new();
        for (((queues, pool), shared), id) in outfits.into_iter().zip(&shared).zip(0..) {
            let setup = Setup {
                id,
                queues,
                pool,
                reader: director.reader(),
                shared: shared.clone(),
                all_lines: all_lines.clone(),
                mesh: mesh.clone(),
                steering: steering.clone(),
                limits: config.limits(),
                seed: seed()?,
                now: 0,
            };
            let turns = Turns {
                start,
                stop: Arc::clone(&stop),
                idle: config.workers.idle,
                bell: Arc::clone(&shared.bell),
                doorbell: Doorbell::of(&shared.bell)?,
                frames: Arc::clone(&shared.frames),
            };
            let core = config.workers.cores.get(usize::from(id)).copied();
            workers.push(Some(spawn(setup, turns, core, &barrier, &sender)?));
        }
        let told_to_stop = await_start(&events, workers.len())?;

        let rules = config.control.rules.clone();
        let desk = Arc::new(Desk::new(director, Conns::new(&shared), rules, |line| log(line)));
        let servers = [
            server::serve(control, Arc::clone(&desk))?,
            netlink::serve(netlink, Arc::clone(&desk))?,
        ];
        spreading(config).into_iter().chain(fewer(config)).for_each(log);
        log(format_args!(
            "rvsd: ready: {}; {} {} {}; a connection is its client's address and port, whose hash \
             names the worker",
            placement(config),
            config.links.count(),
            config.links.kind(),
            if config.links.count() == 1 { "link" } else { "links" },
        ));
        Ok(Self { links, ends, workers, shared, desk, servers, stop, events, start, told_to_stop })
    }

    fn until_the_end(mut self) -> ExitCode {
        let mut watch = vec![Watch::default(); self.shared.len()];
        while !self.told_to_stop {
            match self.events.recv_timeout(LOOK) {
                Ok(Event::Stop | Event::Stopped) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Event::Over(worker)) => return self.lost(worker, exit::DIED),
                Ok(Event::Started(..)) => {}
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.desk.director().tick(self.start.elapsed()) {
                        log(format_args!("rvsd: {error}"));
                    }
                    self.ends.iter_mut().filter_map(|end| end.look()).for_each(log);
                    for ((watch, shared), worker) in watch.iter_mut().zip(&self.shared).zip(0..) {
                        let breaths = shared.frames.read().breaths;
                        if let Some(line) = watch.look(worker, breaths, shared.frames.stage()) {
                            log(line);
                        }
                    }
                    if let Some(worker) = watch.iter().position(Watch::is_lost) {
                        return self.lost(worker, exit::STALLED);
                    }
                }
            }
        }
        self.end()
    }

    /// Stops the workers and gives account.
    fn end(mut self) -> ExitCode {
        self.servers.iter_mut().for_each(Server::stop);
        self.stop.store(true, Ordering::Relaxed);
        self.shared.iter().for_each(|shared| shared.bell.ring());
        let until = Instant::now() + STOP_PATIENCE;
        let mut left = self.workers.len();
        let (mut notes, mut failures) = (Vec::new(), Vec::new());
        while left > 0 {
            let patience = until.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(patience) else {
                log(format_args!(
                    "rvsd: {left} of {} workers did not stop: no account can be given",
                    self.workers.len()
                ));
                for (worker, thread) in self.workers.iter().enumerate() {
                    if thread.is_some() {
                        log(format_args!("rvsd: worker {worker}: {}", self.stage(worker)));
                    }
                }
                return ExitCode::from(exit::STALLED);
            };
            let Event::Over(worker) = event else { continue };
            let Some(thread) = self.workers.get_mut(worker).and_then(Option::take) else {
                continue;
            };
            let Ok(queues) = thread.join() else { return self.lost(worker, exit::DIED) };
            for (queue, link) in queues.into_iter().zip(self.links) {
                notes.extend(queue.note(link));
                failures.extend(queue.close(link).err());
            }
            left -= 1;
        }
        notes.extend(self.ends.iter().flat_map(|end| end.account()));
        self.keep_counters();
        let summary = Summary::of(&self.shared);
        print(&summary);
        for note in notes.iter().chain(&failures) {
            log(format_args!("rvsd: {note}"));
        }
        ExitCode::from(match (summary.is_conserved(), failures.is_empty()) {
            (false, _) => exit::UNACCOUNTED,
            (true, false) => exit::FAILED,
            (true, true) => 0,
        })
    }

    /// A worker died or does not breathe. The others hold no connection of its clients: rather nobody
    /// forwards than half.
    fn lost(&mut self, worker: usize, code: u8) -> ExitCode {
        let (what, stage) =
            (if code == exit::DIED { "died" } else { "stalled" }, self.stage(worker));
        log(format_args!("rvsd: worker {worker} {what} ({stage}): nothing is forwarded any more"));
        self.servers.iter_mut().for_each(Server::stop);
        self.keep_counters();
        ExitCode::from(code)
    }

    /// The next rvsd's counters begin where these end.
    fn keep_counters(&self) {
        if let Err(error) = self.desk.director().keep_counters() {
            log(format_args!("rvsd: counters: {error}"));
        }
    }

    /// Where a worker is in its breath, or ended.
    fn stage(&self, worker: usize) -> Stage {
        self.shared.get(worker).map(|shared| shared.frames.stage()).unwrap_or_default()
    }
}

/// Starts a worker on `core`. Its thread gives the queues back.
fn spawn<D: Device>(
    setup: Setup<D>,
    turns: Turns,
    core: Option<usize>,
    barrier: &Arc<Barrier>,
    events: &Sender<Event>,
) -> Result<JoinHandle<Vec<D>>, Failure> {
    let number = usize::from(setup.id);
    let (barrier, events) = (Arc::clone(barrier), events.clone());
    let life = move || {
        let _over = Over(number, events.clone());
        let tell = |event| {
            // The main thread listens until the process ends.
            let _nobody = events.send(event);
        };
        let (mut worker, _seat) = match prepare(setup, core) {
            Ok(prepared) => prepared,
            Err(what) => {
                tell(Event::Started(number, Err(what)));
                return Vec::new();
            }
        };
        tell(Event::Started(number, Ok(())));
        turns.take(&mut worker);
        tell(Event::Stopped);
        // Only when nobody hands anything over any more, what waits can be counted.
        barrier.wait();
        worker.finish().0
    };
    thread::Builder::new()
        .name(format!("rvs-worker-{number}"))
        .spawn(life)
        .map_err(|source| Failure::System { what: "a thread for a worker", source })
}

/// On its own core, so that its memory is near it.
fn prepare<D: Device>(
    setup: Setup<D>,
    core: Option<usize>,
) -> Result<(Worker<D>, D::Seat), String> {
    if let Some(id) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(format!("cannot be pinned to core {id}"));
    }
    let seat = D::sit_down()?;
    let worker = Worker::new(setup).map_err(|error| error.to_string())?;
    Ok((worker, seat))
}

/// Tells the main thread that a worker's thread is over, however it came to that.
struct Over(usize, Sender<Event>);

impl Drop for Over {
    fn drop(&mut self) {
        let _nobody = self.1.send(Event::Over(self.0));
    }
}

/// Waits for all workers to have made their tables, and says whether a signal came meanwhile.
fn await_start(events: &Receiver<Event>, workers: usize) -> Result<bool, Failure> {
    let (mut left, mut told_to_stop) = (workers, false);
    while left > 0 {
        match events.recv() {
            Ok(Event::Started(_, Ok(()))) => left -= 1,
            Ok(Event::Started(worker, Err(what))) => return Err(Failure::Worker { worker, what }),
            Ok(Event::Over(worker)) => {
                return Err(Failure::Worker { worker, what: "died at the start".to_owned() });
            }
            Ok(Event::Stop) => told_to_stop = true,
            Ok(Event::Stopped) | Err(_) => {}
        }
    }
    Ok(told_to_stop)
}

/// Whether there is as much memory as all workers' connections take. Asked before anything is begun: where a
/// worker asks for it, an answer of no ends the process.
fn find_memory(config: &Config) -> Result<(), Failure> {
    // A connection is a line of 64 octets, or 128 in IPv6.
    let Tables { conns4, conns6, .. } = config.tables;
    let octets =
        u64::from(config.workers.count()) * (u64::from(conns4) * 64 + u64::from(conns6) * 128);
    let mut room = Vec::<u8>::new();
    let found = usize::try_from(octets).is_ok_and(|octets| room.try_reserve_exact(octets).is_ok());
    if found { Ok(()) } else { Err(Failure::Memory { conns4, conns6, mib: octets >> 20 }) }
}

/// How frames get to their workers, where links do not say it themselves.
fn spreading(config: &Config) -> Option<String> {
    let (count, kind) = (config.workers.count(), config.links.kind());
    let by = match config.links {
        Links::Tap(_) => "the kernel spreads frames by addresses and ports of both ends",
        Links::AfXdp(_) => "the device spreads frames by its RSS",
        Links::Dpdk(_) | Links::Pcap(_) => return None,
    };
    (count > 1).then(|| {
        let others = count - 1;
        format!(
            "rvsd: {kind} links: {by}; those of another worker's connections, {others} of {count}, \
             are handed over to it"
        )
    })
}

/// What is not as `burst` says.
fn fewer(config: &Config) -> Option<String> {
    let (wanted, links) = (config.workers.burst, config.links.count());
    let has = config.limits().burst_for(links);
    (has < wanted).then(|| {
        format!("rvsd: burst is {has} instead of {wanted}: no more fits with {links} links")
    })
}

fn listen_for_signals(events: Sender<Event>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|source| Failure::System { what: "signals", source })?;
    let listen = move || {
        for _signal in signals.forever() {
            if events.send(Event::Stop).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("rvs-signals".to_owned()).spawn(listen);
    thread.map(drop).map_err(|source| Failure::System { what: "a thread for signals", source })
}

/// Keys for a table's hash that nobody can guess.
fn seed() -> Result<[u64; 2], Failure> {
    let mut octets = [0; 16];
    let filled = rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty());
    let failed = |source| Failure::System { what: "random octets", source };
    match filled {
        Ok(16) => {
            let (low, high) = octets.split_at(8);
            let word =
                |half: &[u8]| half.iter().fold(0, |word, octet| word << 8 | u64::from(*octet));
            Ok([word(low), word(high)])
        }
        Ok(_) => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Looks whether a worker breathes.
#[derive(Clone, Debug, Default)]
struct Watch {
    breaths: u64,
    /// Looks since the last breath.
    looks: u32,
}

impl Watch {
    /// What there is to say, once, of a worker that stopped or began to breathe.
    fn look(&mut self, worker: usize, breaths: u64, stage: Stage) -> Option<String> {
        let time = LOOK * self.looks;
        if breaths == self.breaths {
            self.looks = self.looks.saturating_add(1);
            return (self.looks == LATE_LOOKS)
                .then(|| format!("rvsd: worker {worker} does not breathe ({stage})"));
        }
        let was_late = self.looks >= LATE_LOOKS;
        *self = Self { breaths, looks: 0 };
        was_late.then(|| format!("rvsd: worker {worker} breathes again after {time:?}"))
    }

    /// Whether it is not worth waiting for any longer.
    fn is_lost(&self) -> bool {
        self.looks >= STALLED_LOOKS
    }
}

#[cfg(test)]
mod tests;
