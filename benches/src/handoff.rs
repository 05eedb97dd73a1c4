//! What it costs when a packet reaches the wrong worker: two of them, and all packets come to one.
//!
//! ```text
//!  Feed ─all─► worker 0 ──its own half──────────────────► Feed
//!                 └──the other half──ring──► worker 1 ──► Feed
//! ```
//!
//! On one thread, one after the other, that is what both do more than a single worker does for the same
//! packets; on two cores, cache lines travel besides.

use crate::case::{Case, Family, Mode};
use crate::count::{self, Count};
use crate::feed::{Expected, Feed, OCTETS4, Plan, Source as _};
use crate::measure::{median, per_packet};
use crate::report::Figure;
use crate::rig::{self, Ends, Place, Rig};
use anyhow::{Context as _, Result, bail, ensure};
use core_affinity::CoreId;
use rvs_io::Reserve;
use rvs_plane::{Mesh, Publisher, Shared, Snapshot, Steering, Worker};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

/// Packets of a round.
const PACKETS: u32 = 1 << 18;
/// Rounds.
const ROUNDS: usize = 7;
/// Frames for both workers, and how many batches of them may wait between the two: fewer than a ring
/// takes.
const FRAMES: usize = 4096;
const WAITING: usize = 128;

type Link = Feed<OCTETS4>;
type Frames = Mesh<rvs_io::RoomFrame>;

/// Two workers, one of which gets all packets.
pub struct Pair {
    first: Worker<Link>,
    second: Worker<Link>,
    shared: [Shared; 2],
    mesh: Frames,
    _publisher: Publisher<Snapshot>,
}

impl Pair {
    /// With the connections of `case` established.
    ///
    /// # Errors
    ///
    /// A table that cannot be made; packets that are not forwarded.
    pub fn new(case: Case) -> Result<Self> {
        let publisher = Publisher::new(rig::snapshot(case)?);
        let shared = [rig::shared(case), rig::shared(case)];
        let mesh = Frames::new(2);
        let reserve = Reserve::new(FRAMES, 1514);
        let worker = |id: u16, shared: &Shared| {
            let expected = Expected { octets: rig::sent_octets(case), routed: true };
            let (mut feed, _its_own) =
                Link::open(case, &Ends::new(case.family, case.mode.method()), expected)?;
            feed.follow(if id == 0 { Plan::Open } else { Plan::Silence });
            let place = Place {
                id,
                mesh: mesh.clone(),
                steering: Steering::new(2),
                reader: publisher.reader(),
                shared: shared.clone(),
            };
            rig::worker(case, 0, (feed, reserve.pool()), place, case.services.into())
        };
        let [one, two] = &shared;
        let (first, second) = (worker(0, one)?, worker(1, two)?);
        let mut pair = Self { first, second, shared, mesh, _publisher: publisher };
        pair.run(case.flows.into())?;
        for feed in pair.first.queues_mut() {
            feed.follow(Plan::Inbound);
        }
        pair.run(case.flows.into())?;
        Ok(pair)
    }

    /// Both breathe in turn until `packets` packets went by.
    ///
    /// # Errors
    ///
    /// Not all of them were forwarded.
    pub fn run(&mut self, packets: u64) -> Result<()> {
        let (before, mut done) = (self.missing(), 0);
        while done < packets {
            done += u64::try_from(self.first.breathe(0))?;
            self.second.breathe(0);
        }
        ensure!(self.missing() == before, "packets were lost between two workers");
        Ok(())
    }

    /// Packets that were made and did not come back.
    fn missing(&mut self) -> u64 {
        let queues = self.first.queues_mut().iter().chain(self.second.queues_mut().iter());
        let (made, back) =
            queues.map(Link::counts).fold((0, 0), |sum, (made, back)| (sum.0 + made, sum.1 + back));
        made - back
    }

    /// The part of all packets that was handed over.
    #[must_use]
    pub fn share(&self) -> f64 {
        let [first, _] = &self.shared;
        let counts = first.frames.read();
        let count = |number| u32::try_from(number).map_or(f64::INFINITY, f64::from);
        count(counts.handed) / count(counts.received)
    }

    /// Nanoseconds that a packet takes with each worker on a core of its own. Medians of breaths: how
    /// long a worker waited for the other, or for a processor, does not count.
    fn apart(&mut self, packets: u64, cores: [CoreId; 2]) -> Result<f64> {
        let (is_over, before) = (AtomicBool::new(false), self.missing());
        // The other thread begins on this core: it must have left before this one keeps it.
        let ready = Barrier::new(2);
        let Self { first, second, mesh, .. } = self;
        let inbox = mesh.inbox(1).context("no inbox")?;
        let [one, two] = cores;
        let halves = thread::scope(|scope| {
            let second = scope.spawn(|| {
                core_affinity::set_for_current(two);
                ready.wait();
                let mut breaths = Vec::new();
                while !is_over.load(Ordering::Acquire) || inbox.waiting() > 0 {
                    breath(second, &mut breaths);
                }
                median(breaths)
            });
            core_affinity::set_for_current(one);
            ready.wait();
            let (mut breaths, mut done) = (Vec::new(), 0);
            while done < packets {
                if inbox.waiting() < WAITING {
                    done += breath(first, &mut breaths);
                }
            }
            is_over.store(true, Ordering::Release);
            [Some(median(breaths)), second.join().ok()]
        });
        let [Some(first), Some(second)] = halves else { bail!("a worker panicked") };
        ensure!(self.missing() == before, "packets were lost between two cores");
        Ok(first + self.share() * second)
    }
}

/// A breath, and nanoseconds for each frame of it, if there were any.
fn breath(worker: &mut Worker<Link>, breaths: &mut Vec<f64>) -> u64 {
    let begun = Instant::now();
    let frames = u32::try_from(worker.breathe(0)).unwrap_or_default();
    if frames > 0 {
        breaths.push(begun.elapsed().as_secs_f64() * 1e9 / f64::from(frames));
    }
    frames.into()
}

/// What a handoff costs.
///
/// # Errors
///
/// A table that cannot be made; packets that are not forwarded.
pub fn figures(cores: &[CoreId]) -> Result<Vec<Figure>> {
    let case = Case::new(Mode::Dr, Family::V4, 1 << 10);
    let (mut pair, mut alone) = (Pair::new(case)?, Rig::<Link>::new(case)?);
    let share = pair.share();
    let mut more = Vec::new();
    for _ in 0..ROUNDS {
        let kept = per_packet(PACKETS, || alone.run(PACKETS.into()))?;
        more.push(per_packet(PACKETS, || pair.run(PACKETS.into()))? - kept);
    }
    let figure = |what: &str, value| Figure { what: what.to_owned(), value, target: "" };
    let ns = |more: Vec<f64>| format!("{:.0} ns", median(more) / share);
    let mut figures = vec![figure(
        "a packet handed over to another worker, more than one kept, dr at 1024 flows",
        ns(more),
    )];
    match count::handoff() {
        Ok(Count { all, floor }) => {
            let each = format!("{:.0}", (all - floor) / share);
            figures.push(figure("the same, instructions", each));
        }
        Err(error) => eprintln!("no instruction counts: {error:#}"),
    }
    if let [.., two, one] = cores {
        let mut more = Vec::new();
        for _ in 0..ROUNDS {
            let kept = per_packet(PACKETS, || alone.run(PACKETS.into()))?;
            more.push(pair.apart(PACKETS.into(), [*one, *two])? - kept);
        }
        figures.push(figure("the same, the other worker on another core", ns(more)));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_packets_are_handed_over_and_all_come_back() {
        let mut pair = Pair::new(Case::new(Mode::Nat, Family::V4, 4096)).unwrap();
        pair.run(4096).unwrap();
        assert!((0.45..0.55).contains(&pair.share()), "{}", pair.share());
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        if let [.., one, two] = *cores {
            assert!(pair.apart(4096, [one, two]).unwrap() > 0.0);
        }
    }
}
