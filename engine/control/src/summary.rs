//! What became of every frame: the account that a director gives when it ends.

use core::fmt::{self, Display};
use rvs_plane::drop_reason::drop_counters;
use rvs_plane::shared::{FrameCounts, Shared};

/// Counts of all workers.
#[derive(Clone, Debug, Default)]
pub struct Summary(pub FrameCounts);

impl Summary {
    /// Adds up what `workers` counted.
    #[must_use]
    pub fn of(workers: &[Shared]) -> Self {
        let each = workers.iter().map(|worker| worker.frames.read());
        Self(each.fold(FrameCounts::default(), |sum, more| sum.and(&more)))
    }

    /// Whether every frame is accounted for. Only meaningful when no worker breathes any more.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.0.unaccounted() == 0 && self.0.taken == self.0.handed
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.0;
        let dropped = counts.dropped_total();
        for (name, count) in [
            ("received", counts.received),
            ("originated", counts.originated),
            ("sent", counts.sent),
            ("to host", counts.to_host),
            ("dropped", dropped),
        ] {
            writeln!(f, "{name:<12}{count:>12} frames")?;
        }
        for ((name, sentence), count) in drop_counters().zip(counts.dropped) {
            if count != 0 {
                let sentence = sentence.trim();
                writeln!(f, "  {name:<22}{count:>12}  {sentence}")?;
            }
        }
        writeln!(f, "{:<12}{:>12} frames", "held", counts.held)?;
        if counts.handed != 0 {
            writeln!(f, "{:<12}{:>12} frames between workers", "handed over", counts.handed)?;
        }
        let [v4, v6] = counts.conns;
        writeln!(f, "{:<12}{:>12} IPv4, {v6} IPv6", "connections", v4)?;
        if counts.evicted != 0 {
            let evicted = counts.evicted;
            writeln!(f, "{:<12}{evicted:>12} half-open connections", "evicted")?;
        }
        if counts.aged != 0 {
            let aged = counts.aged;
            writeln!(f, "{:<12}{aged:>12} connections, by drop_entry", "aged")?;
        }
        let FrameCounts { received, originated, sent, to_host, held, .. } = counts;
        write!(
            f,
            "conservation: received {received} + originated {originated} == sent {sent} + to host \
             {to_host} + dropped {dropped} + held {held}: "
        )?;
        if self.is_conserved() {
            f.write_str("holds")
        } else {
            let [taken, handed] = [counts.taken, counts.handed].map(i128::from);
            let missing = counts.unaccounted() - (taken - handed);
            let between = handed - taken;
            write!(f, "VIOLATED by {missing}, {between} lost between workers")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> FrameCounts {
        let mut counts = FrameCounts {
            received: 10,
            originated: 2,
            sent: 8,
            conns: [3, 0],
            ..FrameCounts::default()
        };
        counts.dropped[0] = 4;
        counts
    }

    #[test]
    fn reasons_are_told_with_their_sentence_and_only_when_they_occurred() {
        let summary = Summary(counts());
        let text = summary.to_string();
        let (name, sentence) = drop_counters().next().unwrap();
        let reason = text.lines().find(|line| line.starts_with("  ")).unwrap();
        assert!(reason.contains(name) && reason.ends_with(sentence.trim()), "{reason}");
        assert_eq!(text.lines().filter(|line| line.starts_with("  ")).count(), 1);
        assert_eq!(
            text.lines().last().unwrap(),
            "conservation: received 10 + originated 2 == sent 8 + to host 0 + dropped 4 + held 0: \
             holds"
        );
    }

    #[test]
    fn the_manual_lists_every_reason_in_order() {
        let manual = include_str!("../../../docs/manual/counters.md");
        let rows: Vec<_> = manual.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = drop_counters()
            .map(|(name, sentence)| format!("| `{name}` | {} |", sentence.trim()))
            .collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_lost_frame_violates_the_law() {
        let summary = Summary(FrameCounts { received: 11, ..counts() });
        assert!(!summary.is_conserved());
        assert!(summary.to_string().ends_with("held 0: VIOLATED by 1, 0 lost between workers"));
    }

    #[test]
    fn a_frame_lost_between_workers_violates_the_law() {
        let summary = Summary(FrameCounts { received: 11, handed: 5, taken: 4, ..counts() });
        assert!(!summary.is_conserved(), "one that was handed over was never taken");
        assert!(summary.to_string().contains("VIOLATED by 1, 1 lost between workers"));
    }

    #[test]
    fn frames_between_workers_cancel_out() {
        let one = FrameCounts { received: 5, handed: 5, ..FrameCounts::default() };
        let other = FrameCounts { taken: 5, sent: 5, ..FrameCounts::default() };
        let summary = Summary(one.and(&other));
        assert!(summary.is_conserved());
        assert!(summary.to_string().contains("5 frames between workers"));
    }
}
