//! The highest rate at which no more than a share of the packets is lost.
//!
//! RFC 2544 section 26.1 defines throughput as the fastest rate at which nothing is lost: NDR, the
//! non-drop rate. PDR allows a little, as is usual where a single packet lost to a timer would hide
//! what a machine can do. Both by halving the interval between the highest rate that passed and the
//! lowest that did not. A rate that the generator itself cannot send does not pass either, and is
//! told apart.

use crate::Trouble;
use crate::trial::{Trial, number};
use serde::Serialize;

/// A share of unsent packets above which the generator, not the director, is at its limit.
pub const SHORTFALL_MAX: f64 = 0.001;

/// What is searched for and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The highest rate that is tried, packets a second.
    pub highest: f64,
    /// The answer is that near to the limit: a share of `highest`.
    pub resolution: f64,
}

/// Who was at its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// What was tested: it lost packets.
    Director,
    /// The generator or its link: it could not send as many.
    Generator,
    /// Nobody: the highest rate passed.
    None,
}

/// A trial of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Packets a second that were asked for.
    pub pps: f64,
    /// The share that was lost.
    pub loss: f64,
    /// The share that could not be sent.
    pub shortfall: f64,
    /// All of it.
    pub trial: Trial,
}

impl Step {
    fn limit(&self, loss_max: f64) -> Limit {
        let Self { loss, shortfall, trial, .. } = self;
        let own = number(trial.link_lost()) / number(trial.sent.max(1));
        if *shortfall > SHORTFALL_MAX || (*loss > loss_max && *loss - own <= loss_max) {
            Limit::Generator
        } else if *loss > loss_max || trial.sent == 0 {
            Limit::Director
        } else {
            Limit::None
        }
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The share that may be lost.
    pub loss_max: f64,
    /// The highest rate that passed, packets a second; `None` when none did.
    pub pps: Option<f64>,
    /// Who stood in the way of a higher one.
    pub limit: Limit,
    /// The place of that trial among all steps.
    pub step: Option<usize>,
}

impl Search {
    /// Finds the rate for `loss_max`. Trials of earlier searches, in `steps`, are not repeated; new
    /// ones are added.
    ///
    /// # Errors
    ///
    /// What `trial` says.
    pub fn find(
        &self,
        loss_max: f64,
        steps: &mut Vec<Step>,
        mut trial: impl FnMut(f64) -> Result<Trial, Trouble>,
    ) -> Result<Found, Trouble> {
        loop {
            // The lowest rate that did not pass, and the highest below it that did.
            let limit_of = |step: &Step| step.limit(loss_max);
            let failed = steps.iter().filter(|step| limit_of(step) != Limit::None);
            let failed = failed.min_by(|a, b| a.pps.total_cmp(&b.pps));
            let below = |step: &Step| failed.is_none_or(|failed| step.pps < failed.pps);
            let passed = steps.iter().enumerate();
            let passed = passed.filter(|(_, step)| limit_of(step) == Limit::None && below(step));
            let passed = passed.max_by(|(_, a), (_, b)| a.pps.total_cmp(&b.pps));
            let low = passed.map_or(0.0, |(_, step)| step.pps);
            let high = failed.map(|step| step.pps);
            let next = match high {
                None if low >= self.highest => None,
                None => Some(self.highest),
                Some(high) if high - low <= self.resolution * self.highest => None,
                Some(high) => Some(f64::midpoint(low, high)),
            };
            let Some(pps) = next.filter(|pps| *pps >= 1.0) else {
                return Ok(Found {
                    loss_max,
                    pps: passed.map(|(_, step)| step.pps),
                    limit: failed.map_or(Limit::None, limit_of),
                    step: passed.map(|(place, _)| place),
                });
            };
            let trial = trial(pps)?;
            let (loss, shortfall) = (trial.loss(), trial.shortfall());
            steps.push(Step { pps, loss, shortfall, trial });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Arrived;

    /// A director that forwards `capacity` packets a second, and a generator that makes `most`.
    fn machine(capacity: u64, most: u64) -> impl FnMut(f64) -> Result<Trial, Trouble> {
        move |pps| {
            let asked = num(pps);
            let sent = asked.min(most);
            let lost = sent.saturating_sub(capacity);
            let servers = Some(Arrived { lost, ..Arrived::default() });
            Ok(Trial { sent, unsent: asked - sent, servers, ..Trial::default() })
        }
    }

    fn num(pps: f64) -> u64 {
        format!("{pps:.0}").parse().unwrap()
    }

    const SEARCH: Search = Search { highest: 1e6, resolution: 0.001 };

    #[test]
    fn a_known_limit_is_found_to_the_resolution() {
        let mut steps = Vec::new();
        let ndr = SEARCH.find(0.0, &mut steps, machine(333_000, u64::MAX)).unwrap();
        let pps = ndr.pps.unwrap();
        assert!((332_000.0..=333_000.5).contains(&pps), "{pps}");
        assert_eq!(ndr.limit, Limit::Director);
        assert!((9..=12).contains(&steps.len()), "{}", steps.len());
        let before = steps.len();
        let pdr = SEARCH.find(0.01, &mut steps, machine(333_000, u64::MAX)).unwrap();
        let pps = pdr.pps.unwrap();
        assert!((335_000.0..=336_400.0).contains(&pps), "{pps}");
        assert!(steps.len() - before <= 8, "what is known is not tried again");
        assert!((steps[pdr.step.unwrap()].pps - pps).abs() < 1e-9);
    }

    #[test]
    fn a_machine_without_a_limit_below_the_highest_rate_takes_one_trial() {
        let mut steps = Vec::new();
        let found = SEARCH.find(0.0, &mut steps, machine(u64::MAX, u64::MAX)).unwrap();
        assert_eq!((found.pps, found.limit, steps.len()), (Some(1e6), Limit::None, 1));
    }

    #[test]
    fn the_generators_own_limit_is_called_so() {
        let mut steps = Vec::new();
        let found = SEARCH.find(0.0, &mut steps, machine(u64::MAX, 500_000)).unwrap();
        assert_eq!(found.limit, Limit::Generator);
        assert!((499_000.0..=500_600.0).contains(&found.pps.unwrap()), "{found:?}");
    }

    #[test]
    fn what_the_generators_own_link_lost_is_not_the_directors() {
        let machine = |pps| {
            let sent = num(pps);
            let lost = sent.saturating_sub(500_000);
            let servers = Some(Arrived { lost, link_lost: lost, ..Arrived::default() });
            Ok(Trial { sent, servers, ..Trial::default() })
        };
        let found = SEARCH.find(0.0, &mut Vec::new(), machine).unwrap();
        assert_eq!(found.limit, Limit::Generator);
        assert!((499_000.0..=500_600.0).contains(&found.pps.unwrap()), "{found:?}");
    }

    #[test]
    fn where_nothing_passes_no_rate_is_found() {
        let found = SEARCH.find(0.0, &mut Vec::new(), machine(0, u64::MAX)).unwrap();
        assert_eq!((found.pps, found.limit), (None, Limit::Director));
    }
}
