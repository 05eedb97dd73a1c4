//! A folder of recordings, judged and told.

use crate::golden::{Golden, files};
use crate::judge;
use crate::tally::{Aspect, Difference, Failure, Ledger, Place, Tally, Verdict};
use core::fmt::{self, Display};
use std::collections::BTreeMap;
use std::path::Path;

/// How one recording came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its path inside the folder.
    pub file: String,
    /// Its category.
    pub category: String,
    /// What was compared.
    pub ledger: Ledger,
}

/// How a folder of recordings came out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of their paths.
    pub outcomes: Vec<Outcome>,
}

/// Plays all recordings in `folder`; `told` hears of each when it is done.
///
/// # Errors
///
/// The folder cannot be listed. A recording that cannot be read or played is a failed one.
pub fn run(folder: &Path, mut told: impl FnMut(&Outcome)) -> std::io::Result<Report> {
    let mut report = Report::default();
    for path in files(folder)? {
        let file = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        let outcome = match Golden::read(&path) {
            Ok(None) => continue,
            Ok(Some(golden)) => {
                let ledger = judge::recording(&golden).unwrap_or_else(|failure| broken(&failure));
                Outcome { file, category: golden.category, ledger }
            }
            Err(failure) => {
                Outcome { file, category: "unreadable".to_owned(), ledger: broken(&failure) }
            }
        };
        told(&outcome);
        report.outcomes.push(outcome);
    }
    Ok(report)
}

/// The ledger of a recording that could not be played to its end.
fn broken(failure: &Failure) -> Ledger {
    let mut ledger = Ledger::default();
    let told = || ("a recording that can be played".to_owned(), failure.to_string());
    ledger.judge(Aspect::Commands, false, || Place::whole("all of it"), told);
    ledger
}

impl Report {
    /// How many recordings came out as `verdict`.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.ledger.verdict() == verdict).count()
    }

    /// All ledgers of a category added up.
    #[must_use]
    pub fn category(&self, name: &str) -> Ledger {
        let mut sum = Ledger::default();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.category == name) {
            sum.add(&outcome.ledger);
        }
        sum
    }
}

/// One line, and the first difference if there is one.
impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.ledger.verdict() {
            Verdict::Passed => "ok    ",
            Verdict::Failed => "FAILED",
            Verdict::NotCovered => "-     ",
        };
        write!(f, "{word} {:<44}", self.file)?;
        for (aspect, Tally { compared, equal }) in self.ledger.tallies() {
            write!(f, " {} {equal}/{compared}", aspect.name())?;
        }
        for (reason, events) in self.ledger.left_out() {
            write!(f, "\n         not covered: {events} of {reason}")?;
        }
        if let Some(first) = self.ledger.first() {
            write!(f, "\n{}", indented(first))?;
        }
        Ok(())
    }
}

fn indented(first: &Difference) -> String {
    let text = format!("first difference: {first}");
    let lines = text.lines().map(|line| format!("         {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The sums by category, and how many recordings passed, as the last line alone.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut categories: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for outcome in &self.outcomes {
            let files = categories.entry(&outcome.category).or_default();
            let place = match outcome.ledger.verdict() {
                Verdict::Passed => 0,
                Verdict::Failed => 1,
                Verdict::NotCovered => 2,
            };
            if let Some(count) = files.get_mut(place) {
                *count += 1;
            }
        }
        writeln!(
            f,
            "{:<12} {:>8} {:>9} {:>12}   {:>7} {:>7} {:>12}",
            "category", "equal", "compared", "not covered", "passed", "failed", "not covered"
        )?;
        for (category, [passed, failed, beyond]) in categories {
            let sum = self.category(category);
            let Tally { compared, equal } = sum.total();
            writeln!(
                f,
                "{category:<12} {equal:>8} {compared:>9} {:>12}   {passed:>7} {failed:>7} {beyond:>12}",
                sum.left_out_total()
            )?;
        }
        let count = |verdict| self.count(verdict);
        write!(
            f,
            "{} passed, {} failed, {} not covered",
            count(Verdict::Passed),
            count(Verdict::Failed),
            count(Verdict::NotCovered)
        )
    }
}
