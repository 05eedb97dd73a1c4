//! What is not one packet's cost: timers, many destinations, two cores, start, a control plane that
//! is busy, a flood.

use crate::case::{Case, Family, Mode};
use crate::feed::{Arrivals, Feed, OCTETS4, OCTETS6, Plan, Source};
use crate::handoff;
use crate::limit::Lines;
use crate::measure::{median, nanoseconds, per_packet, processor_time};
use crate::probe;
use crate::report::Figure;
use crate::rig::{Floor, Rig};
use anyhow::{Context as _, Result};
use core_affinity::CoreId;
use rvs_conntrack::{Capacity, Conns, Seed};
use rvs_model::{State, Timeouts};
use rvs_plane::shared::{Command, ConnRow, Dump, Shared};
use rvs_wire::flow::{V4, V6};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// What can be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Scenario {
    /// A million idle connections expire.
    Timers,
    /// A thousand services of a hundred destinations each.
    Services,
    /// Two workers at once.
    Workers,
    /// Packets that reach the wrong one of two workers.
    Handoff,
    /// Start and size of a table of ten million.
    Tables,
    /// Publications, statistics and listings beside a worker.
    Control,
    /// A flood of SYNs beside established connections.
    Overload,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Timers,
        Self::Services,
        Self::Workers,
        Self::Handoff,
        Self::Tables,
        Self::Control,
        Self::Overload,
    ];

    /// Runs it with `large` connections where that is what it is about; `cores` are those there are.
    ///
    /// # Errors
    ///
    /// Packets get lost that should not.
    pub fn run(self, large: u32, cores: &[CoreId]) -> Result<Vec<Figure>> {
        match self {
            Self::Timers => timers(large.min(1 << 20)),
            Self::Services => services(large.min(1 << 20)),
            Self::Workers => workers(large.min(1 << 20), cores),
            Self::Handoff => handoff::figures(cores),
            Self::Tables => tables(large.saturating_mul(10)),
            Self::Control => control(large, cores),
            Self::Overload => overload(),
        }
    }
}

fn figure(what: impl Into<String>, value: String, target: &'static str) -> Figure {
    Figure { what: what.into(), value, target }
}

type Rig4 = Rig<Feed<OCTETS4>>;

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// Of a set that all caches hold.
const FEW: u32 = 1 << 12;

/// All at once: everybody fell silent and the longest timeout is over.
fn timers(conns: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for mode in [Mode::Dr, Mode::Nat] {
        let (few, many) = (expiry(mode, FEW)?, expiry(mode, conns)?);
        let lines = Lines::default().expiry(mode, conns);
        figures.push(figure(
            format!("{conns} idle connections expire, {mode}: each"),
            format!("{:.1} ns", many.each_ns),
            "10 ns",
        ));
        figures.push(figure(
            "the least: what each of few costs, and its lines by the probe",
            format!("{:.1} + {lines:.1} ns", few.each_ns),
            "",
        ));
        figures.push(figure(
            "the longest breath of that, processor time",
            format!("{:.1} µs", many.longest_us),
            "50 µs",
        ));
    }
    Ok(figures)
}

/// What it takes that connections expire.
struct Expiry {
    each_ns: f64,
    longest_us: f64,
}

/// So many connections expire, all idle.
///
/// Every round does the same, breath by breath; what differs is what others do on the machine. So the
/// lowest counts: of whole rounds, and of each breath.
fn expiry(mode: Mode, conns: u32) -> Result<Expiry> {
    const ROUNDS: usize = 5;
    let silent = || -> Result<Rig4> {
        let mut rig = Rig4::new(Case::new(mode, Family::V4, conns))?;
        rig.follow(Plan::Silence);
        rig.sleep(Timeouts::default().ticks(State::Established) + 8);
        Ok(rig)
    };
    let (mut lowest, mut breaths) = (f64::INFINITY, Vec::new());
    for _ in 0..ROUNDS {
        let mut rig = silent()?;
        let begun = processor_time();
        while rig.conns() > 0 {
            rig.breathe();
        }
        lowest = lowest.min(processor_time() - begun);
        // A round of their own: to ask for the time costs as much as some timers.
        let mut rig = silent()?;
        let mut before = processor_time();
        for number in 0.. {
            if rig.conns() == 0 {
                break;
            }
            rig.breathe();
            let now = processor_time();
            match breaths.get_mut(number) {
                Some(lowest) => *lowest = f64::min(*lowest, now - before),
                None => breaths.push(now - before),
            }
            before = now;
        }
    }
    let longest = breaths.into_iter().fold(0.0, f64::max);
    Ok(Expiry { each_ns: lowest * 1e9 / f64::from(conns), longest_us: longest * 1e6 })
}

/// The net cost of a case: the lowest of some rounds, each less the floor beside it.
fn net<S: Source>(case: Case) -> Result<f64> {
    let (mut rig, mut floor) = (Rig::<S>::new(case)?, Floor::<S>::new(case)?);
    let mut rounds = Vec::new();
    for _ in 0..11 {
        let director = per_packet(1 << 18, || rig.run(1 << 18))?;
        rounds.push(director - per_packet(1 << 18, || floor.run(1 << 18))?);
    }
    Ok(median(rounds))
}

fn services(flows: u32) -> Result<Vec<Figure>> {
    let few = Case::new(Mode::Dr, Family::V4, flows);
    let many = Case { services: 1000, dests: 100, ..few };
    let (few, many) = (net::<Feed<OCTETS4>>(few)?, net::<Feed<OCTETS4>>(many)?);
    let six = net::<Feed<OCTETS6>>(Case::new(Mode::Dr, Family::V6, flows))?;
    Ok(vec![
        figure(
            format!("1000 services × 100 destinations instead of 1 × 4, dr at {flows} flows"),
            format!("{:+.1} ns", many - few),
            "+10 ns",
        ),
        figure(
            format!("IPv6 instead of IPv4, dr at {flows} flows"),
            format!("× {:.2}", six / few),
            "× 1.35",
        ),
    ])
}

/// Does so many of something.
type Work = Box<dyn FnMut(u32) -> Result<()>>;

/// How many a second of what `begin` makes are done on `core`, from when all are ready.
fn steady(begin: &dyn Fn() -> Result<Work>, core: CoreId, ready: &Barrier) -> Result<f64> {
    core_affinity::set_for_current(core);
    let work = begin();
    // All wait here, or those that have start would wait for ever.
    ready.wait();
    let mut work = work?;
    let mut work_for = |length: Duration| -> Result<f64> {
        let (start, mut done) = (Instant::now(), 0u32);
        let processor = processor_time();
        while start.elapsed() < length {
            work(1 << 12)?;
            done += 1 << 12;
        }
        Ok(f64::from(done) / (processor_time() - processor))
    };
    work_for(Duration::from_millis(50))?;
    let rate = work_for(Duration::from_millis(250))?;
    // Until the others have measured too.
    work_for(Duration::from_millis(50))?;
    Ok(rate)
}

fn together(begin: &(dyn Fn() -> Result<Work> + Sync), cores: &[CoreId]) -> Result<f64> {
    let ready = Barrier::new(cores.len());
    thread::scope(|scope| {
        let spawn = |core: &CoreId| {
            let (core, ready) = (*core, &ready);
            scope.spawn(move || steady(begin, core, ready))
        };
        let all: Vec<_> = cores.iter().map(spawn).collect();
        let mut sum = 0.0;
        for one in all {
            sum += one.join().ok().context("one of two panicked")??;
        }
        Ok(sum)
    })
}

/// How many times as much two cores do as one.
fn gain(one: CoreId, two: CoreId, begin: &(dyn Fn() -> Result<Work> + Sync)) -> Result<f64> {
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let alone = f64::midpoint(together(begin, &[one])?, together(begin, &[two])?);
        ratios.push(together(begin, &[one, two])? / alone);
    }
    Ok(median(ratios))
}

/// Two workers, and what the machine's own two cores have to give: to arithmetic, which shares nothing,
/// and to loads, which share the memory.
fn workers(flows: u32, cores: &[CoreId]) -> Result<Vec<Figure>> {
    let [.., one, two] = *cores else {
        return Ok(vec![figure(
            "two workers instead of one",
            "one core here".to_owned(),
            "× 1.95",
        )]);
    };
    let mut figures = Vec::new();
    let arithmetic = gain(one, two, &|| {
        Ok(Box::new(|steps| {
            probe::arithmetic(steps);
            Ok(())
        }))
    })?;
    for flows in [1 << 10, flows] {
        let workers = gain(one, two, &|| {
            let mut rig = Rig4::new(Case::new(Mode::Dr, Family::V4, flows))?;
            Ok(Box::new(move |packets| rig.run(packets.into())))
        })?;
        let lines = gain(one, two, &|| {
            let mut set = probe::Set::new(u64::from(flows) * 64, true);
            Ok(Box::new(move |visits| {
                set.together(visits);
                Ok(())
            }))
        })?;
        figures.push(figure(
            format!("two workers instead of one, dr at {flows} flows each"),
            format!("× {workers:.2}"),
            "× 1.95",
        ));
        figures.push(figure(
            "two cores instead of one: arithmetic; lines of sets of that size, 64 in flight",
            format!("× {arithmetic:.2}; × {lines:.2}"),
            "",
        ));
    }
    Ok(figures)
}

fn tables(conns: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let seed = Seed([1, 2]);
    for (name, keys, each, target) in
        [("NAT", 2, 104, "105 octets"), ("DR, TUN", 1, 91, "92 octets")]
    {
        let capacity = Capacity::new(conns, keys)?;
        let (mut starts, mut bytes) = (Vec::new(), 0);
        // Held until the table has begun: each finds its own pages.
        let (held, least) = probe::fill(usize::try_from(conns)? * each);
        for _ in 0..3 {
            let (begun, timeouts) = (Instant::now(), Timeouts::default());
            bytes = Conns::<V4>::new(capacity, seed, &timeouts, 0, true).bytes();
            starts.push(begun.elapsed().as_secs_f64());
        }
        drop(held);
        let again = median((0..3).map(|_| probe::fill(bytes).1).collect());
        let first = starts.first().copied().unwrap_or_default();
        figures.push(figure(
            format!("a table of {conns} IPv4 connections, {name}: first start; again"),
            format!("{first:.2} s; {:.2} s", median(starts)),
            "2 s",
        ));
        figures.push(figure(
            "the least: as much memory filled once, first; again",
            format!("{least:.2} s; {again:.2} s"),
            "",
        ));
        figures.push(figure(
            format!("the same, all in, each ({:.2} GiB)", count(bytes) / 1_073_741_824.0),
            format!("{:.1} octets", count(bytes) / f64::from(conns)),
            target,
        ));
    }
    let six = Conns::<V6>::new(Capacity::new(1 << 20, 2)?, seed, &Timeouts::default(), 0, false);
    figures.push(figure(
        "an IPv6 connection, NAT, all in",
        format!("{:.1} octets", count(six.bytes()) / 1_048_576.0),
        "",
    ));
    Ok(figures)
}

/// Lists all connections again and again, and counts the lists.
fn list(shared: &Shared, lists: &AtomicU64, go: &AtomicBool) {
    let fresh = |rows: Vec<ConnRow>| Command::Dump(Dump { v6: false, from: 0, rows, done: false });
    let _sent = shared.commands.push(fresh(Vec::with_capacity(4096)));
    while go.load(Relaxed) {
        let Some(Command::Dump(mut dump)) = shared.replies.pop() else {
            thread::yield_now();
            continue;
        };
        dump.rows.clear();
        let next = if dump.done {
            lists.fetch_add(1, Relaxed);
            fresh(dump.rows)
        } else {
            Command::Dump(dump)
        };
        let _sent = shared.commands.push(next);
    }
}

/// A worker's cost with nobody beside it and with somebody, in turn.
fn beside(
    rig: &mut Rig4,
    core: Option<CoreId>,
    what: &str,
    other: impl Fn(&AtomicBool) + Sync,
) -> Result<Figure> {
    const PACKETS: u32 = 1 << 18;
    let (mut alone, mut with) = (Vec::new(), Vec::new());
    for _ in 0..25 {
        alone.push(per_packet(PACKETS, || rig.run(PACKETS.into()))?);
        let go = AtomicBool::new(true);
        thread::scope(|scope| -> Result<()> {
            scope.spawn(|| {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                other(&go);
            });
            let measured = per_packet(PACKETS, || rig.run(PACKETS.into()));
            go.store(false, Relaxed);
            with.push(measured?);
            Ok(())
        })?;
    }
    let cost = (median(with) / median(alone) - 1.0) * 100.0;
    Ok(figure(format!("{what}: the worker's packets cost"), format!("{cost:+.1} %"), "+1 %"))
}

fn control(flows: u32, cores: &[CoreId]) -> Result<Vec<Figure>> {
    let mut rig = Rig4::new(Case::new(Mode::Dr, Family::V4, flows))?;
    let (shared, core) = (rig.shared.clone(), cores.first().copied());
    let lines = || shared.lines.iter().map(|line| line.totals().0[1]).sum::<u64>();
    let statistics = beside(&mut rig, core, "all counters read 1000 times a second", |go| {
        while go.load(Relaxed) {
            std::hint::black_box((lines(), shared.frames.read()));
            thread::sleep(Duration::from_millis(1));
        }
    })?;
    let lists = AtomicU64::new(0);
    let listing =
        beside(&mut rig, core, &format!("{flows} connections listed without end"), |go| {
            list(&shared, &lists, go);
        })?;
    let purging =
        beside(&mut rig, core, "a flush of connections asked for 10 times a second", |go| {
            while go.load(Relaxed) {
                shared.purge();
                thread::sleep(Duration::from_millis(100));
            }
        })?;
    let published = publications(&mut rig)?;
    Ok(vec![statistics, listing, purging, published])
}

/// The publisher is the rig's own, so a publication is made between two rounds of breaths.
fn publications(rig: &mut Rig4) -> Result<Figure> {
    const PACKETS: u32 = 1 << 18;
    let publisher = rig.publisher.as_mut().context("another's configuration")?;
    let snapshot = publisher.reader().refresh().clone();
    let (mut alone, mut with) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        alone.push(per_packet(PACKETS, || rig.run(PACKETS.into()))?);
        rig.publisher.iter_mut().for_each(|it| it.publish(snapshot.clone()));
        with.push(per_packet(PACKETS, || rig.run(PACKETS.into()))?);
    }
    let took = (median(with) - median(alone)) * f64::from(PACKETS) / 1000.0;
    Ok(figure("a worker takes over a snapshot: once", format!("{took:.1} µs"), ""))
}

const NS_PER_S: u64 = 1_000_000_000;

/// What no breath takes longer than ([`timers`] has the longest): what does was stopped by the machine,
/// and counts as so much.
const LONGEST: Duration = Duration::from_micros(20);

/// What came of a flood.
struct Flooded {
    arrivals: Arrivals,
    /// Connections held.
    held: usize,
    /// Breaths that the machine stopped.
    stopped: u32,
}

/// A flood of so many packets a second for so many packets.
fn flood(rate: u64, packets: u64) -> Result<Flooded> {
    let case = Case::new(Mode::Dr, Family::V4, 1 << 17);
    let mut rig = Rig4::with_room(case, 1 << 17)?;
    rig.follow(Plan::Flood);
    let mut floor = Floor::<Feed<OCTETS4>>::new(case)?;
    let floor_ns = per_packet(1 << 18, || floor.run(1 << 18))?;
    // The link is no part of the director: its time does not pass.
    let floor_of_1000 = Duration::from_secs_f64(floor_ns / 1e6);
    // Nor are two looks at the clock.
    let clock = (0..1000).map(|_| Instant::now().elapsed()).min().unwrap_or_default();
    let (mut begot, mut owed, mut stopped) = (0, 0, 0);
    while begot < packets {
        let begun = Instant::now();
        let frames = u32::try_from(rig.breathe())?;
        let length = begun.elapsed().saturating_sub(clock);
        stopped += u32::from(length > LONGEST);
        let length = length.min(LONGEST);
        let passed = length.saturating_sub(floor_of_1000 * frames / 1000);
        // Whole packets arrive, and the rest of one waits for the next breath.
        owed += nanoseconds(passed).max(50) * rate;
        for source in rig.sources() {
            source.arrive(owed / NS_PER_S);
        }
        begot += owed / NS_PER_S;
        owed %= NS_PER_S;
    }
    let mut arrivals = rig.sources().iter().map(Feed::arrivals);
    let arrivals = arrivals.next().unwrap_or_default();
    Ok(Flooded { arrivals, held: rig.conns(), stopped })
}

fn overload() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for rate in [2_000_000, 5_000_000, 10_000_000, 20_000_000, 40_000_000] {
        let Flooded { arrivals, held, stopped } = flood(rate, 4_000_000)?;
        let part = |kind: usize| -> f64 {
            let of = |counts: [u64; 3]| {
                counts.get(kind).and_then(|n| u32::try_from(*n).ok()).map_or(0.0, f64::from)
            };
            100.0 * of(arrivals.back) / of(arrivals.came).max(1.0)
        };
        figures.push(figure(
            format!(
                "{} M packets/s, half of them a flood's SYNs: established packets lost",
                rate / 1_000_000
            ),
            format!("{:.2} %", (100.0 - part(0)).max(0.0)),
            "0, under 1 % when saturated",
        ));
        figures.push(figure(
            "SYNs let in; of handshakes begun, those that ended; connections held; breaths stopped",
            format!("{:.1} %; {:.1} %; {held}; {stopped}", part(1), part(2)),
            "",
        ));
    }
    Ok(figures)
}
