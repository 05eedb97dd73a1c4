//! Samples of `--stats` and `--rate`: given what was counted, the estimator shows the same rates.
//!
//! Both move when the kernel's estimator steps, and the recording does not tell when that is. So one
//! moment is looked for, the same for all rows, from which on steps explain all samples.

use crate::tally::{Aspect, Ledger, Place};
use rvs_api::Totals;
use rvs_control::rates::Estimator;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What both listings showed at a time.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sample {
    t: f64,
    rate: Vec<String>,
    stats: Vec<String>,
}

/// Seconds between two steps of the recorded kernel: two, which the timer wheel rounds up to a
/// multiple of eight ticks of the clock (Linux 6.1 `kernel/time/timer.c`; HZ is 250).
const STEP_S: f64 = 504.0 / 250.0;
/// Moments within a step that are tried.
const PHASES: u32 = 100;

/// The numbers of a row of `--stats` or `--rate`, and whose they are.
fn columns(row: &str) -> Option<(String, [u64; 5])> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let (who, numbers) = words.split_last_chunk::<5>()?;
    let mut columns = [0; 5];
    for (place, number) in columns.iter_mut().zip(numbers) {
        *place = number.parse().ok()?;
    }
    Some((who.join(" "), columns))
}

fn rows(listing: &[String]) -> BTreeMap<String, [u64; 5]> {
    listing.iter().filter_map(|row| columns(row)).collect()
}

fn totals([conns, packets_in, packets_out, octets_in, octets_out]: [u64; 5]) -> Totals {
    Totals { conns, packets_in, packets_out, octets_in, octets_out }
}

/// The rates that the estimator shows at each sample if it steps `phase` seconds after the start
/// for the first time.
fn estimated(samples: &[Sample], phase: f64) -> Vec<BTreeMap<String, [u64; 5]>> {
    let mut estimators: BTreeMap<String, Estimator> = BTreeMap::new();
    let mut next = phase;
    let mut shown = Vec::with_capacity(samples.len());
    for sample in samples {
        let counted = rows(&sample.stats);
        while next <= sample.t {
            for (who, columns) in &counted {
                estimators.entry(who.clone()).or_default().step(totals(*columns));
            }
            next += STEP_S;
        }
        let rates = |who: &String| estimators.get(who).map_or([0; 5], |it| it.rates().columns());
        shown.push(counted.keys().map(|who| (who.clone(), rates(who))).collect());
    }
    shown
}

/// Compares the samples of a recording, each at its event.
pub(super) fn compare(ledger: &mut Ledger, samples: &[(usize, Sample)]) {
    let all: Vec<Sample> = samples.iter().map(|(_, sample)| sample.clone()).collect();
    let told: Vec<_> = all.iter().map(|sample| rows(&sample.rate)).collect();
    let phases = (1..=PHASES).map(|part| f64::from(part) * STEP_S / f64::from(PHASES));
    let equal =
        |shown: &Vec<_>| shown.iter().zip(&told).filter(|(ours, told)| ours == told).count();
    let best = phases.map(|phase| estimated(&all, phase)).max_by_key(equal).unwrap_or_default();
    for (((number, sample), expected), got) in samples.iter().zip(&told).zip(&best) {
        let place = || Place::event(*number, format!("ipvsadm --rate at {} s", sample.t));
        let text = |rates: &BTreeMap<String, [u64; 5]>| {
            let lines = rates.iter().map(|(who, columns)| format!("{who} {columns:?}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        ledger.judge(Aspect::Rates, expected == got, place, || (text(expected), text(got)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Verdict;

    fn samples(rates: [u64; 4]) -> Vec<(usize, Sample)> {
        let sample = |(second, rate): (u8, u64)| {
            let counted = 100 * (u64::from(second) / 2 * 2);
            let row = |number: u64| vec![format!("TCP 10.0.0.100:80 {number} 0 0 0 0")];
            let t = f64::from(second) + 0.5;
            (usize::from(second), Sample { t, rate: row(rate), stats: row(counted) })
        };
        (1..).zip(rates).map(sample).collect()
    }

    #[test]
    fn a_phase_that_explains_all_samples_is_found_and_a_wrong_rate_is_not_explained() {
        // 100 a second from the start: a quarter of the way at each step.
        for (rates, verdict) in
            [([0, 25, 25, 44], Verdict::Passed), ([0, 25, 26, 44], Verdict::Failed)]
        {
            let mut ledger = Ledger::default();
            compare(&mut ledger, &samples(rates));
            assert_eq!((ledger.verdict(), ledger.total().compared), (verdict, 4));
        }
    }
}
