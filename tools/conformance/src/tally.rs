//! What was compared, what was equal, and the first thing that was not.

use core::fmt::{self, Display};
use std::collections::BTreeMap;

/// Something that ends the judging of a recording.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// With this to say.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What kind of thing is compared.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Aspect {
    /// Which real server a new connection, or a packet of an old one, went to.
    Picks,
    /// Connections per destination.
    Counts,
    /// Where packets went: addresses and ports as they left.
    Ways,
    /// What the director itself answered.
    Answers,
    /// States of connections.
    States,
    /// Seconds that connections have left.
    Timers,
    /// Octets, and the Ethernet addresses and the link that they left with.
    Bytes,
    /// What a command printed, and its exit status.
    Commands,
    /// The same of the unmodified ipvsadm in front of rvs.
    Unmodified,
    /// Rates of the estimator.
    Rates,
    /// Values that hold unless somebody says otherwise.
    Defaults,
}

impl Aspect {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Picks => "picks",
            Self::Counts => "counts",
            Self::Ways => "ways",
            Self::Answers => "answers",
            Self::States => "states",
            Self::Timers => "timers",
            Self::Bytes => "bytes",
            Self::Commands => "commands",
            Self::Unmodified => "ipvsadm",
            Self::Rates => "rates",
            Self::Defaults => "defaults",
        }
    }
}

/// How many comparisons there were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// All.
    pub compared: usize,
    /// Those with the recorded result.
    pub equal: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.equal += other.equal;
    }
}

/// A place in a recording.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Number of the event, the first is 0; `None` for what concerns all of it.
    pub event: Option<usize>,
    /// What happens there.
    pub what: String,
}

impl Place {
    /// Event number `event`, which is `what`.
    #[must_use]
    pub fn event(event: usize, what: impl Display) -> Self {
        Self { event: Some(event), what: what.to_string() }
    }

    /// No event in particular.
    #[must_use]
    pub fn whole(what: impl Display) -> Self {
        Self { event: None, what: what.to_string() }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.event {
            Some(event) => write!(f, "event {event} ({})", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// A comparison that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// What kind of thing.
    pub aspect: Aspect,
    /// What the recording has.
    pub expected: String,
    /// What rvs did.
    pub got: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, aspect, expected, got } = self;
        write!(f, "{place}, {}:", aspect.name())?;
        for (name, text) in [("expected", expected), ("got     ", got)] {
            let mut lines = text.lines();
            write!(f, "\n  {name}  {}", lines.next().unwrap_or_default())?;
            for line in lines {
                write!(f, "\n            {line}")?;
            }
        }
        Ok(())
    }
}

/// How a recording came out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// All that was compared is equal, and something was compared.
    Passed,
    /// Something differs.
    Failed,
    /// Nothing was compared.
    NotCovered,
}

/// All that was found out about one recording, or about several.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    tallies: BTreeMap<Aspect, Tally>,
    first: Option<Difference>,
    uncovered: BTreeMap<String, usize>,
}

impl Ledger {
    /// Compares what was expected with what there is.
    pub fn compare<T: PartialEq + Display>(
        &mut self,
        aspect: Aspect,
        place: impl FnOnce() -> Place,
        expected: &T,
        got: &T,
    ) {
        let told = || (expected.to_string(), got.to_string());
        self.judge(aspect, expected == got, place, told);
    }

    /// Takes in a comparison that was made elsewhere. `told` says what was expected and what there
    /// is.
    pub fn judge(
        &mut self,
        aspect: Aspect,
        equal: bool,
        place: impl FnOnce() -> Place,
        told: impl FnOnce() -> (String, String),
    ) {
        let tally = Tally { compared: 1, equal: usize::from(equal) };
        self.tallies.entry(aspect).or_default().add(tally);
        if !equal && self.first.is_none() {
            let (expected, got) = told();
            self.first = Some(Difference { place: place(), aspect, expected, got });
        }
    }

    /// Takes note of `events` that are not compared, and why.
    pub fn leave_out(&mut self, reason: impl Into<String>, events: usize) {
        if events > 0 {
            *self.uncovered.entry(reason.into()).or_default() += events;
        }
    }

    /// What was compared, by kind.
    pub fn tallies(&self) -> impl Iterator<Item = (Aspect, Tally)> {
        self.tallies.iter().map(|(aspect, tally)| (*aspect, *tally))
    }

    /// All comparisons.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for (_, tally) in self.tallies() {
            total.add(tally);
        }
        total
    }

    /// The first difference.
    #[must_use]
    pub fn first(&self) -> Option<&Difference> {
        self.first.as_ref()
    }

    /// Why events were left out, and how many for that reason.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, usize)> {
        self.uncovered.iter().map(|(reason, events)| (reason.as_str(), *events))
    }

    /// Events that were left out.
    #[must_use]
    pub fn left_out_total(&self) -> usize {
        self.uncovered.values().sum()
    }

    /// How it came out.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Tally { compared, equal } = self.total();
        match () {
            () if equal < compared => Verdict::Failed,
            () if compared == 0 => Verdict::NotCovered,
            () => Verdict::Passed,
        }
    }

    /// Takes in another one's numbers.
    pub fn add(&mut self, other: &Self) {
        for (aspect, tally) in other.tallies() {
            self.tallies.entry(aspect).or_default().add(tally);
        }
        for (reason, events) in other.left_out() {
            self.leave_out(reason, events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::event(3, "SYN")
    }

    #[test]
    fn nothing_compared_is_not_covered_and_one_difference_is_a_failure() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.verdict(), Verdict::NotCovered);
        ledger.leave_out("marks", 7);
        assert_eq!(ledger.verdict(), Verdict::NotCovered);
        ledger.compare(Aspect::Picks, place, &1, &1);
        assert_eq!(ledger.verdict(), Verdict::Passed);
        ledger.compare(Aspect::Picks, place, &1, &2);
        ledger.compare(Aspect::Picks, place, &1, &3);
        assert_eq!(ledger.verdict(), Verdict::Failed);
        assert_eq!(ledger.total(), Tally { compared: 3, equal: 1 });
        assert_eq!(ledger.first().map(|first| first.got.as_str()), Some("2"), "the first one");
        assert_eq!((ledger.left_out_total(), ledger.left_out().count()), (7, 1));
    }

    #[test]
    fn a_difference_reads_as_what_was_expected_over_what_came() {
        let mut ledger = Ledger::default();
        ledger.compare(Aspect::Bytes, place, &"a\nb", &"c");
        let told = ledger.first().map(ToString::to_string);
        let lines = "event 3 (SYN), bytes:\n  expected  a\n            b\n  got       c";
        assert_eq!(told.as_deref(), Some(lines));
    }
}
