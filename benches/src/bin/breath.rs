//! Nanoseconds per packet on one core, without a network card.
//!
//! ```text
//!  round 1: director, floor · round 2: director, floor · …        the median of each, and their
//!  then:    director, each breath timed                           difference: what a packet costs
//! ```
//!
//! The floor is the same link and the same packets with their Ethernet addresses swapped. It is run
//! in turn with the director, so that what else the machine does meets both. Rounds are timed by
//! the thread's processor time, which does not pass while others have the core; single breaths by
//! the wall clock.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use hdrhistogram::Histogram;
use rvs_benches::feed::{OCTETS4, OCTETS6};
use rvs_benches::{Case, Family, Floor, Mode, Rig};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Breaths whose length is taken one by one.
const BREATHS: u32 = 4096;

/// Measures what a packet costs.
#[derive(Parser)]
#[command(name = "breath")]
struct Arguments {
    /// What the packets are; all if none is named.
    #[arg(long, value_delimiter = ',')]
    mode: Vec<Mode>,
    #[arg(long, value_delimiter = ',')]
    family: Vec<Family>,
    /// Connections, as 1024, 64k or 1M. Those that open connections are run with the largest alone,
    /// unless one is named.
    #[arg(long, value_delimiter = ',', value_parser = number)]
    flows: Vec<u32>,
    /// Frames per breath, 1 to 256.
    #[arg(long, value_delimiter = ',', default_value = "64")]
    burst: Vec<usize>,
    /// Tables in pages of the usual size.
    #[arg(long)]
    small_pages: bool,
    /// Rounds.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Packets of a round, as 65536, 64k or 1M.
    #[arg(long, value_parser = number, default_value = "256k")]
    packets: u32,
    /// Where to write the rows as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One line of the table.
#[derive(Serialize)]
struct Row {
    link: &'static str,
    mode: Mode,
    family: Family,
    flows: u32,
    burst: usize,
    hugepages: bool,
    ns_per_packet: f64,
    floor_ns: f64,
    net_ns: f64,
    frames_per_s: f64,
    runs: usize,
    /// The best round's difference to the best floor: on a busy machine closer to the truth.
    best_net_ns: f64,
    /// How long breaths take, the link's part included.
    breath_p50_ns: u64,
    breath_p99_ns: u64,
    breath_max_ns: u64,
    /// All tables, for each connection they hold at most.
    table_bytes: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let mut rows = Vec::new();
    println!("{}", headings());
    for mode in chosen(&arguments.mode, &Mode::ALL) {
        for family in chosen(&arguments.family, &Family::ALL) {
            for flows in flows(&arguments, mode) {
                for burst in &arguments.burst {
                    let huge_pages = !arguments.small_pages;
                    let case = Case { mode, family, flows, burst: *burst, huge_pages };
                    let row = match family {
                        Family::V4 => measure::<OCTETS4>(case, &arguments)?,
                        Family::V6 => measure::<OCTETS6>(case, &arguments)?,
                    };
                    println!("{}", line(&row));
                    rows.push(row);
                }
            }
        }
    }
    println!("{} rows in {:.0} s", rows.len(), begun.elapsed().as_secs_f64());
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn chosen<T: Copy>(named: &[T], all: &[T]) -> Vec<T> {
    if named.is_empty() { all.to_vec() } else { named.to_vec() }
}

fn flows(arguments: &Arguments, mode: Mode) -> Vec<u32> {
    let usual: &[u32] =
        if mode.is_established() { &[1 << 10, 1 << 16, 1 << 20] } else { &[1 << 20] };
    chosen(&arguments.flows, usual)
}

/// A number, or so many thousands or millions of two's powers: `64k`, `1M`.
fn number(text: &str) -> Result<u32> {
    let (digits, factor) = match text.strip_suffix('k').zip(Some(1 << 10)) {
        Some(thousands) => thousands,
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let value = digits.parse::<u32>()?.checked_mul(factor).context("too large")?;
    Ok(value.max(1))
}

fn measure<const N: usize>(case: Case, arguments: &Arguments) -> Result<Row> {
    let mut floor = Floor::<N>::new(case);
    let mut rig = Rig::<N>::new(case)?;
    let table_bytes = rig.table_bytes() / usize::try_from(case.flows)?;
    // A table that fills up is full after so many; the next round begins with an empty one.
    let fills = !case.mode.is_established() && !case.mode.expires();
    let packets = if fills { case.flows } else { arguments.packets };
    let (mut directors, mut floors) = (Vec::new(), Vec::new());
    for round in 0..arguments.runs.max(1) {
        if fills && round > 0 {
            rig = Rig::<N>::new(case)?;
        }
        directors.push(per_packet(packets, || rig.run(packets.into()))?);
        floors.push(per_packet(packets, || floor.run(packets.into()))?);
    }
    if fills {
        rig = Rig::<N>::new(case)?;
    }
    let breaths = breaths(&mut rig, case)?;
    let (best, best_floor) = (lowest(&directors), lowest(&floors));
    let (ns_per_packet, floor_ns) = (median(directors), median(floors));
    Ok(Row {
        link: "memory",
        mode: case.mode,
        family: case.family,
        flows: case.flows,
        burst: case.burst,
        hugepages: case.huge_pages,
        ns_per_packet,
        floor_ns,
        net_ns: ns_per_packet - floor_ns,
        frames_per_s: 1e9 / ns_per_packet,
        runs: arguments.runs.max(1),
        best_net_ns: best - best_floor,
        breath_p50_ns: breaths.value_at_quantile(0.5),
        breath_p99_ns: breaths.value_at_quantile(0.99),
        breath_max_ns: breaths.max(),
        table_bytes,
    })
}

fn per_packet(packets: u32, run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = processor_time();
    run()?;
    Ok((processor_time() - begun) * 1e9 / f64::from(packets))
}

/// Seconds that this thread has run.
fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}

/// How long single breaths take, up to the end of a table that fills up.
fn breaths<const N: usize>(rig: &mut Rig<N>, case: Case) -> Result<Histogram<u64>> {
    let mut lengths = Histogram::new_with_bounds(1, 1_000_000_000, 3)?;
    let room = case.flows / u32::try_from(case.burst)?.max(1);
    for _ in 0..if case.mode.is_established() { BREATHS } else { BREATHS.min(room) } {
        let begun = Instant::now();
        rig.breathe();
        lengths.saturating_record(nanoseconds(begun.elapsed()));
    }
    Ok(lengths)
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn lowest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn headings() -> String {
    format!(
        "{:<14} {:>2} {:>8} {:>5} {:>8} {:>6} {:>6} {:>6} {:>7} {:>8} {:>8} {:>9} {:>6}",
        "mode",
        "",
        "flows",
        "burst",
        "ns/pkt",
        "floor",
        "net",
        "best",
        "M/s",
        "p50 us",
        "p99 us",
        "max us",
        "B/conn"
    )
}

fn line(row: &Row) -> String {
    let microseconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e6;
    format!(
        "{:<14} {:>2} {:>8} {:>5} {:>8.1} {:>6.1} {:>6.1} {:>6.1} {:>7.2} {:>8.1} {:>8.1} {:>9.1} {:>6}",
        row.mode,
        row.family,
        row.flows,
        row.burst,
        row.ns_per_packet,
        row.floor_ns,
        row.net_ns,
        row.best_net_ns,
        row.frames_per_s / 1e6,
        microseconds(row.breath_p50_ns),
        microseconds(row.breath_p99_ns),
        microseconds(row.breath_max_ns),
        row.table_bytes,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_thousands_and_millions() {
        assert_eq!(number("1000").unwrap(), 1000);
        assert_eq!(number("64k").unwrap(), 65_536);
        assert_eq!(number("1M").unwrap(), 1 << 20);
        assert!(number("5000M").is_err() && number("k").is_err() && number("1x").is_err());
    }

    #[test]
    fn each_mode_gives_a_row() {
        let arguments = ["breath", "--runs", "1", "--packets", "1k", "--flows", "1k"];
        let arguments = Arguments::parse_from(arguments);
        for mode in Mode::ALL {
            let case = Case { mode, family: Family::V6, flows: 1024, burst: 32, huge_pages: false };
            let row = measure::<OCTETS6>(case, &arguments).unwrap();
            assert!(row.ns_per_packet > 0.0 && row.breath_max_ns >= row.breath_p50_ns, "{mode}");
        }
    }
}
