//! One case, timed.
//!
//! ```text
//!  floor │ director │ floor │ director │ floor …      a round is a director between two floors
//! ```
//!
//! The floor is the same link and the same packets with their Ethernet addresses swapped. Rounds
//! are timed by the thread's processor time, which does not pass while others have the core. But
//! others slow it down in other ways: they use the caches, the memory and, in a virtual machine,
//! the other half of the core. That shows in the floor: rounds whose floors are more than
//! [`QUIET`] above the lowest one known are left out, unless fewer than three would stay, and made
//! up for by more rounds, at most four times as many, as long as all cases together have patience.

use crate::case::{Case, Family, Link, Mode};
use crate::count::Count;
use crate::feed::Source;
use crate::link::{self, Job};
use crate::rig::{Floor, Rig};
use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How much slower than the fastest a floor may be.
const QUIET: f64 = 0.08;

/// Breaths whose length is taken one by one.
const BREATHS: u32 = 4096;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds.
    pub runs: usize,
    /// Packets of a round.
    pub packets: u32,
}

/// One line of the table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// What frames came through.
    pub link: Link,
    /// What the packets were.
    pub mode: Mode,
    /// Their family.
    pub family: Family,
    /// Connections: those that packets belonged to, or that the table was filled with, or held.
    pub flows: u32,
    /// Frames per breath.
    pub burst: usize,
    /// Whether tables asked for huge pages.
    pub hugepages: bool,
    /// Of director and link: the median of all rounds that count.
    pub ns_per_packet: f64,
    /// Of the floor, likewise.
    pub floor_ns: f64,
    /// The director's whole cost: the difference.
    pub net_ns: f64,
    /// What the director executes, by callgrind, at 1024 flows or while a table fills up.
    pub instructions_per_packet: Option<f64>,
    /// By director and link.
    pub frames_per_s: f64,
    /// Rounds that count.
    pub runs: usize,
    /// Rounds there were.
    pub rounds: usize,
    /// The lowest director's difference to the lowest floor.
    pub best_net_ns: f64,
    /// How long breaths take, the link's part included.
    pub breath_p50_ns: u64,
    /// The same.
    pub breath_p99_ns: u64,
    /// All tables, for each connection they hold at most.
    pub bytes_per_connection: usize,
}

impl Row {
    /// With bursts and pages as they usually are.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.burst == 64 && self.hugepages
    }
}

/// Measures `case`.
///
/// # Errors
///
/// The link or the tables cannot be had; packets get lost.
pub fn measure(
    link: Link,
    case: Case,
    count: Option<Count>,
    effort: Effort,
    floors: &mut Floors,
) -> Result<Row> {
    link::on(link, case.family, Measurement { link, case, count, effort, floors })
}

/// What cases know of each other.
#[derive(Debug)]
pub struct Floors {
    /// The lowest floors seen so far, by what they depend on.
    lowest: HashMap<(&'static str, &'static str, &'static str, usize), f64>,
    /// How much longer disturbed rounds may be made up for.
    patience: Duration,
}

impl Floors {
    /// None known yet.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { lowest: HashMap::new(), patience }
    }
}

struct Measurement<'f> {
    link: Link,
    case: Case,
    count: Option<Count>,
    effort: Effort,
    floors: &'f mut Floors,
}

impl Job for Measurement<'_> {
    type Outcome = Row;

    fn on<S: Source>(self) -> Result<Row> {
        let Self { link, case, count, effort, floors } = self;
        let mut floor = Floor::<S>::new(case)?;
        let mut rig = Rig::<S>::new(case)?;
        let bytes_per_connection = rig.table_bytes() / usize::try_from(case.flows)?;
        // A table that fills up is full after so many; what follows begins with an empty one.
        let fills = !case.mode.is_established() && !case.mode.expires();
        let slice = (case.flows / 16).max(1024).min(case.flows);
        let packets = if fills { slice.min(effort.packets) } else { effort.packets };
        let (mut rounds, mut room) = (Rounds::default(), case.flows);
        rounds.floors.push(per_packet(packets, || floor.run(packets.into()))?);
        let mix = if case.mode.is_established() { case.mode.name() } else { "syn" };
        let Floors { lowest: known, patience } = floors;
        let known = known.entry((link.name(), mix, case.family.name(), case.burst));
        let known = known.or_insert(f64::INFINITY);
        let runs = effort.runs.max(1);
        while rounds.directors.len() < runs
            || fills && room >= packets
            || rounds.quiet(*known).len() < runs
                && rounds.directors.len() < 4 * runs
                && !patience.is_zero()
        {
            let begun = Instant::now();
            if fills && room < packets {
                rig = Rig::new(case)?;
                room = case.flows;
            }
            room = room.wrapping_sub(packets);
            rounds.directors.push(per_packet(packets, || rig.run(packets.into()))?);
            rounds.floors.push(per_packet(packets, || floor.run(packets.into()))?);
            *known = known.min(lowest(&rounds.floors));
            if rounds.directors.len() > runs {
                *patience = patience.saturating_sub(begun.elapsed());
            }
        }
        if fills {
            rig = Rig::new(case)?;
        }
        let breaths = breaths(&mut rig, case)?;
        let quiet = rounds.counting(*known);
        let ns_per_packet = median(quiet.iter().map(|round| round.0).collect());
        let floor_ns = median(quiet.iter().map(|round| round.1).collect());
        Ok(Row {
            link,
            mode: case.mode,
            family: case.family,
            flows: case.flows,
            burst: case.burst,
            hugepages: case.huge_pages,
            ns_per_packet,
            floor_ns,
            net_ns: ns_per_packet - floor_ns,
            instructions_per_packet: count.map(Count::net),
            frames_per_s: 1e9 / ns_per_packet,
            runs: quiet.len(),
            rounds: rounds.directors.len(),
            best_net_ns: lowest(&rounds.directors) - lowest(&rounds.floors),
            breath_p50_ns: breaths.value_at_quantile(0.5),
            breath_p99_ns: breaths.value_at_quantile(0.99),
            bytes_per_connection,
        })
    }
}

/// Nanoseconds per packet: each director between two floors.
#[derive(Default)]
struct Rounds {
    directors: Vec<f64>,
    floors: Vec<f64>,
}

impl Rounds {
    /// Director and floor of the rounds that nothing disturbed.
    fn quiet(&self, lowest: f64) -> Vec<(f64, f64)> {
        let most = lowest * (1.0 + QUIET);
        let mut rounds = self.all();
        rounds.retain(|(_, before, after)| before.max(*after) <= most);
        rounds.into_iter().map(|(ns, before, after)| (ns, f64::midpoint(before, after))).collect()
    }

    /// The same, or all if there are too few.
    fn counting(&self, lowest: f64) -> Vec<(f64, f64)> {
        let quiet = self.quiet(lowest);
        if quiet.len() < 3 { self.quiet(f64::INFINITY) } else { quiet }
    }

    fn all(&self) -> Vec<(f64, f64, f64)> {
        let pairs = self.floors.iter().zip(self.floors.iter().skip(1));
        let all = self.directors.iter().zip(pairs);
        all.map(|(director, (before, after))| (*director, *before, *after)).collect()
    }
}

/// Nanoseconds of processor time that `run` takes for each of `packets`.
///
/// # Errors
///
/// Those of `run`.
pub fn per_packet(packets: u32, run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = processor_time();
    run()?;
    Ok((processor_time() - begun) * 1e9 / f64::from(packets))
}

/// Seconds that this thread has run.
#[must_use]
pub fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}

/// How long single breaths take, up to the end of a table that fills up.
fn breaths<S: Source>(rig: &mut Rig<S>, case: Case) -> Result<Histogram<u64>> {
    let mut lengths = Histogram::new_with_bounds(1, 1_000_000_000, 3)?;
    let room = case.flows / u32::try_from(case.burst)?.max(1);
    for _ in 0..if case.mode.is_established() { BREATHS } else { BREATHS.min(room) } {
        let begun = Instant::now();
        rig.breathe();
        lengths.saturating_record(nanoseconds(begun.elapsed()));
    }
    Ok(lengths)
}

/// As a number.
#[must_use]
pub fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn lowest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The middle one; 0 of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_gives_a_row_on_each_link_that_is_built() {
        let links = if link::MISSING.is_none() { &Link::ALL[..] } else { &[Link::Memory] };
        let of_all = |link: &Link| Mode::ALL.map(|mode| (*link, mode));
        for (link, mode) in links.iter().flat_map(of_all) {
            let case = Case { burst: 32, ..Case::new(mode, Family::V6, 1024) };
            let effort = Effort { runs: 2, packets: 1024 };
            let row = measure(link, case, None, effort, &mut Floors::new(Duration::ZERO)).unwrap();
            assert!(
                row.ns_per_packet > 0.0 && row.breath_p99_ns >= row.breath_p50_ns,
                "{link} {mode}"
            );
            assert!(row.rounds >= 2);
        }
    }

    #[cfg(not(feature = "dpdk"))]
    #[test]
    fn without_dpdk_its_links_say_what_to_install() {
        let effort = Effort { runs: 1, packets: 1024 };
        let case = Case::new(Mode::Dr, Family::V4, 1024);
        let said = measure(Link::NetRing, case, None, effort, &mut Floors::new(Duration::ZERO))
            .unwrap_err();
        assert!(said.to_string().contains("libdpdk-dev"), "{said}");
    }

    #[test]
    fn rounds_beside_a_slow_floor_do_not_count_if_enough_others_do() {
        let floors = vec![10.0, 10.1, 10.2, 16.0, 10.3, 10.4];
        let rounds = Rounds { directors: vec![30.0, 31.0, 50.0, 51.0, 32.0], floors };
        let directors: Vec<f64> = rounds.counting(10.0).into_iter().map(|round| round.0).collect();
        assert_eq!(directors, [30.0, 31.0, 32.0]);
        let few = Rounds { directors: vec![30.0, 50.0], floors: vec![10.0, 16.0, 16.0] };
        assert_eq!(few.counting(10.0).len(), 2);
    }
}
