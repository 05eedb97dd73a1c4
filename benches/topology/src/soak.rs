//! Mixed traffic through rvsd for a while, with changes of its configuration and faults; afterwards
//! nothing has leaked, every connection is gone, everybody counted the same, and every frame is
//! accounted for by a name that the traffic explains.
//!
//! ```text
//!  ├─ round ───────────────────────────┤├─ round ...            ├─ quiet ────────────────────┤
//!  │ storm: all works at once │ calm   ││                       │ only what stays │ nothing  │ account
//!  ├── connections that stay, one at each place ─────────────────────────────────┤
//! ```

mod estate;
mod judge;
mod works;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_lab::process::{Daemon, Limits};

use crate::rvsd::{Driver, Rvsd};
use crate::stage::{CLIENT, Links, Stage, Way, Wire};
use estate::{Estate, PLACES, PROBE};
use judge::{Sample, leaks, unexplained};
use works::{CALM, STORM};

/// Connections are forgotten soon after their last packet, so that all can be seen to go.
const TIMEOUTS: &str = "
[timeouts]
established = 20
syn_sent = 3
syn_recv = 3
fin_wait = 3
time_wait = 3
close_wait = 3
last_ack = 3
udp = 3
";
/// How long all but those that stay may take to go, and then those.
const PATIENCE: Duration = Duration::from_mins(3);

/// Rounds, however long they take.
const ROUNDS_MIN: usize = 4;

/// What failed, and how often.
#[derive(Debug, Default)]
struct Failures(Mutex<BTreeMap<String, u32>>);

impl Failures {
    /// Does it, and tells of a failure.
    fn note(&self, name: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            println!("   {name}: {error:#}");
            let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *all.entry(name.to_owned()).or_default() += 1;
        }
    }

    fn told(self) -> Vec<String> {
        let all = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.into_iter().map(|(name, times)| format!("{name} failed {times} times")).collect()
    }
}

/// Runs it. Every failed claim is told; the last line says how it went.
pub fn act(bin: &Path, minutes: u32) -> Result<()> {
    let limits = Limits::new(Duration::MAX)?;
    let stage = Stage::build(Links::Tap, Path::new("/run/rvs-soak"))?;
    let rvsd = Rvsd::start(Driver::Tap, TIMEOUTS, bin, &stage.dir, None, &limits)?;
    stage.connect(Way::Through, Wire::Gso)?;
    let mut estate = Estate::open(stage, rvsd, bin, &limits)?;

    let time = Duration::from_secs(60 * u64::from(minutes));
    let until = Instant::now() + time;
    let stays = stay(&estate, &limits)?;
    let (mut samples, failures) = (Vec::new(), Failures::default());
    // A busy machine has time for few: with less there is no telling what grows.
    while Instant::now() < until || samples.len() < ROUNDS_MIN {
        round(&estate, &failures, &limits)?;
        let sample = Sample::of(estate.rvsd.id())?;
        println!("   round {}: {sample:?}", samples.len() + 1);
        samples.push(sample);
    }
    failures.note("quiet", quiet(&estate, stays, &limits));

    let seen = Estate::unplug()?;
    let (account, log) = estate.rvsd.end(&limits)?;
    println!("{account}");
    let mut wrong = failures.told();
    wrong.extend(leaks(&samples));
    wrong.extend(unexplained(&account, seen));
    wrong.extend(rvs_lab::director::complete(&log).err().map(|error| error.to_string()));
    for line in &wrong {
        println!("FAILED {line}");
    }
    ensure!(wrong.is_empty(), "{} claims do not hold", wrong.len());
    let last = samples.last().context("no time for a round")?;
    println!(
        "soak: {} rounds in {minutes} minutes, {} frames; {} KB, {} descriptors, {} threads: nothing leaked, \
         all counts agree, every frame is accounted for",
        samples.len(),
        seen.iter().sum::<u64>(),
        last.rss_kb,
        last.descriptors,
        last.threads
    );
    Ok(())
}

/// All at once what stands that, and then the rest, one after another.
fn round(estate: &Estate, failures: &Failures, limits: &Limits) -> Result<()> {
    thread::scope(|scope| {
        for (name, work) in STORM {
            scope.spawn(move || failures.note(name, work(estate, limits)));
        }
    });
    for (name, work) in CALM {
        limits.check()?;
        failures.note(name, work(estate, limits));
    }
    Ok(())
}

/// A connection at each place that lives through it all.
fn stay(estate: &Estate, limits: &Limits) -> Result<Vec<Daemon>> {
    let ever = u32::MAX.to_string();
    let mut stays = Vec::new();
    for place in &PLACES {
        let arguments = ["steady", &place.at(PROBE), "--millis", &ever];
        let mut stay = estate.keeps(CLIENT, &format!("stays {}", place.name), &arguments)?;
        stay.wait_for_line("probe: steady", limits)?;
        stays.push(stay);
    }
    Ok(stays)
}

/// All connections go but those that stay; then those too, and no destination has any.
fn quiet(estate: &Estate, mut stays: Vec<Daemon>, limits: &Limits) -> Result<()> {
    let gone_to = |count: usize| {
        limits.wait(&format!("{count} connections to be left"), PATIENCE, || {
            Ok((estate.conns()? == count).then_some(()))
        })
    };
    gone_to(PLACES.len())?;
    for (stay, place) in stays.iter_mut().zip(&PLACES) {
        // It ends when it waits for an answer in vain.
        let ended = stay.ended()?.is_some();
        ensure!(!ended, "the connection that stayed by {}: {}", place.name, stay.errors());
        stay.signal("KILL")?;
    }
    gone_to(0)?;
    let busy = estate.busy()?;
    ensure!(busy.is_empty(), "destinations count connections that are gone: {busy:?}");
    Ok(())
}
