//! Results for people, line by line, and for programs, as JSON.

use crate::arrival::How;
use crate::latency::Percentiles;
use crate::scenario::{Scenario, WIRE_OVERHEAD};
use crate::search::{Found, Limit, Step};
use crate::trial::{Arrived, Returned, Sample, Trial, number};
use serde::Serialize;
use std::fmt;

/// What JSON files begin with, so that a reader knows what it has.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    /// The program's name.
    pub program: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The command line.
    pub command: String,
    /// Flows.
    pub flows: u32,
    /// The average frame, its check sequence included.
    pub mean_frame_octets: f64,
}

impl Head {
    /// Of a scenario.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            program: "rvs-pktgen",
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            flows: scenario.flows,
            mean_frame_octets: scenario.mean_octets(),
        }
    }
}

/// The result of `run`. Times are nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult<'t> {
    /// What it is.
    #[serde(flatten)]
    pub head: Head,
    /// All of it.
    #[serde(flatten)]
    pub trial: &'t Trial,
}

/// The result of `search`. Times are nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct SearchResult<'t> {
    /// What it is.
    #[serde(flatten)]
    pub head: Head,
    /// The answers.
    pub found: &'t [Found],
    /// Every trial.
    pub steps: &'t [Step],
}

/// The result of `sink`. Times are nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct SinkResult<'t> {
    /// What it is.
    #[serde(flatten)]
    pub head: Head,
    /// Seconds that it listened.
    pub seconds: f64,
    /// What came.
    #[serde(flatten)]
    pub servers: &'t Arrived,
}

/// A number with a unit's prefix: `1.50 M`.
pub(crate) struct Scaled(pub(crate) f64);

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scale, prefix) = match self.0.abs() {
            value if value >= 1e9 => (1e9, "G"),
            value if value >= 1e6 => (1e6, "M"),
            value if value >= 1e3 => (1e3, "k"),
            _ => (1.0, ""),
        };
        write!(f, "{:.2} {prefix}", self.0 / scale)
    }
}

/// Nanoseconds in the unit that suits them.
pub(crate) struct Time(pub(crate) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = number(self.0);
        match self.0 {
            0..1_000 => write!(f, "{nanos} ns"),
            1_000..1_000_000 => write!(f, "{:.1} µs", nanos / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.2} ms", nanos / 1e6),
            _ => write!(f, "{:.2} s", nanos / 1e9),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99] = [self.p50, self.p90, self.p99].map(Time);
        let [p99_9, p99_99, max] = [self.p99_9, self.p99_99, self.max].map(Time);
        write!(f, "p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p99_9}  p99.99 {p99_99}  max {max}")
    }
}

/// The line of a moment.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, sent_pps, arrived_pps, returned_pps, latency } = self;
        write!(f, "{at:6.1} s  sent {}pps", Scaled(*sent_pps))?;
        if *arrived_pps > 0.0 || *returned_pps <= 0.0 {
            write!(f, "  arrived {}pps", Scaled(*arrived_pps))?;
        }
        if *returned_pps > 0.0 {
            write!(f, "  returned {}pps", Scaled(*returned_pps))?;
        }
        let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(Time);
        write!(f, "  p50 {p50}  p99 {p99}  max {max}")
    }
}

fn loss(lost: u64, sent: u64) -> String {
    let percent = 100.0 * number(lost) / number(sent.max(1));
    if lost == 0 { "lost 0".to_owned() } else { format!("lost {lost} ({percent:.4} %)") }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, unsent, seconds, sent_octets, servers, clients, lag, .. } = self;
        let bits = 8.0 * (number(*sent_octets) + number(*sent) * f64::from(WIRE_OVERHEAD));
        write!(f, "sent        {sent} packets in {seconds:.2} s: {}pps", Scaled(self.sent_pps()))?;
        writeln!(f, ", {}bit/s on the wire", Scaled(bits / seconds.max(1e-9)))?;
        if *unsent > 0 {
            writeln!(
                f,
                "unsent      {unsent}: the generator or its link is too slow for this rate"
            )?;
        }
        if let Some(servers) = servers {
            writeln!(f, "arrived     {}, {}", servers.verdict.arrived, loss(servers.lost, *sent))?;
            write!(f, "{servers}")?;
        }
        if let Some(Returned { verdict, lost, unknown, link_lost, latency }) = clients {
            let (reordered, duplicates) = (verdict.reordered, verdict.duplicates);
            writeln!(f, "returned    {}, {}", verdict.arrived, loss(*lost, *sent))?;
            writeln!(f, "            reordered {reordered}, duplicates {duplicates}")?;
            if unknown + link_lost > 0 {
                writeln!(f, "            no replies {unknown}, lost by the link {link_lost}")?;
            }
            writeln!(f, "there+back  {latency}")?;
        }
        writeln!(f, "generator   late by {lag}")
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, tally, link_lost, by_real, latency, .. } = self;
        writeln!(
            f,
            "            reordered {}, duplicates {}, misdirected {}",
            verdict.reordered, verdict.duplicates, verdict.misdirected
        )?;
        let rest = [
            ("damaged", tally.damaged),
            ("misaddressed", tally.misaddressed),
            ("of another run", tally.stale),
            ("foreign", tally.foreign),
            ("lost by the link", *link_lost),
        ];
        for (what, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
            writeln!(f, "            {what} {count}")?;
        }
        write!(f, "servers    ")?;
        for (number, count) in by_real.iter().enumerate().take(16) {
            write!(f, " {number}: {count}")?;
        }
        if by_real.len() > 16 {
            write!(f, " … of {}", by_real.len())?;
        }
        for (how, count) in How::ALL.iter().zip(tally.by_method).filter(|(_, count)| *count > 0) {
            write!(f, "; by {} {count}", how.word())?;
        }
        writeln!(f)?;
        writeln!(f, "one way     {latency}")
    }
}

/// The line of a search's trial.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pps, shortfall, trial, .. } = self;
        write!(f, "asked {}pps  sent {}pps", Scaled(*pps), Scaled(trial.sent_pps()))?;
        write!(f, "  {}", loss(trial.lost(), trial.sent))?;
        if *shortfall > 0.0 {
            write!(f, "  unsent {:.3} %", 100.0 * shortfall)?;
        }
        Ok(())
    }
}

/// An answer, and how packets fared at that rate.
#[derive(Debug)]
pub struct Answer<'s>(pub &'s Found, pub &'s [Step], pub f64);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Found { loss_max, pps, limit, step }, steps, mean_octets) = self;
        let name = if *loss_max > 0.0 { "PDR" } else { "NDR" };
        write!(f, "{name} (loss at most {:.3} %): ", 100.0 * loss_max)?;
        let Some(pps) = pps else { return write!(f, "no rate passed") };
        let bits = pps * 8.0 * (mean_octets + f64::from(WIRE_OVERHEAD));
        write!(f, "{}pps, {}bit/s on the wire", Scaled(*pps), Scaled(bits))?;
        match limit {
            Limit::Director => {}
            Limit::Generator => write!(f, "; limited by the generator or its link")?,
            Limit::None => write!(f, "; the highest rate that was tried")?,
        }
        let trial = step.and_then(|step| steps.get(step)).map(|step| &step.trial);
        if let Some(clients) = trial.and_then(|trial| trial.clients.as_ref()) {
            write!(f, "\n  there+back  {}", clients.latency)?;
        } else if let Some(servers) = trial.and_then(|trial| trial.servers.as_ref()) {
            write!(f, "\n  one way     {}", servers.latency)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_the_unit_that_suits_them() {
        assert_eq!(Scaled(1_500_000.0).to_string(), "1.50 M");
        assert_eq!(Scaled(12.0).to_string(), "12.00 ");
        let times = [0, 999, 1500, 2_500_000, 3_000_000_000].map(|nanos| Time(nanos).to_string());
        assert_eq!(times, ["0 ns", "999 ns", "1.5 µs", "2.50 ms", "3.00 s"]);
    }

    #[test]
    fn a_trial_is_told_in_packets_loss_and_percentiles() {
        let verdict = crate::judge::Verdict { arrived: 99, ..Default::default() };
        let servers = Arrived { verdict, lost: 1, by_real: vec![50, 49], ..Arrived::default() };
        let trial = Trial {
            seconds: 1.0,
            sent: 100,
            sent_octets: 6400,
            servers: Some(servers),
            ..Trial::default()
        };
        let text = trial.to_string();
        // 100 frames of 64 octets and 20 more on the wire each.
        assert!(
            text.starts_with("sent        100 packets in 1.00 s: 100.00 pps, 67.20 kbit/s"),
            "{text}"
        );
        assert!(text.contains("arrived     99, lost 1 (1.0000 %)\n"), "{text}");
        assert!(text.contains("servers     0: 50 1: 49\n"), "{text}");
    }
}
