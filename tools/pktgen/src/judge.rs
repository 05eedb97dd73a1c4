//! What became of each flow's packets: which are missing, late, there twice, or at the wrong server.
//!
//! ```text
//!  sequence   … 93 94 95 96 97 98 99 │ 100 101 …
//!  seen bits     1  1  0  1  1  1  1 │ ▲ next: the highest that came, and one
//!                      ▲ missing: if it comes now, it is reordered (RFC 4737 section 3.3)
//! ```
//!
//! Sixteen bytes a flow. A packet 64 or more behind the highest of its flow is taken as reordered:
//! whether it came before is not remembered that long.

use serde::Serialize;

/// Packets that a flow remembers.
const WINDOW: u32 = 64;
/// No server yet.
const NOBODY: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Flow {
    next: u32,
    server: u16,
    seen: u64,
}

const UNSEEN: Flow = Flow { next: 0, server: NOBODY, seen: 0 };

/// Counts of packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Came for the first time.
    pub arrived: u64,
    /// Of these, came after a later one of their flow (RFC 4737).
    pub reordered: u64,
    /// Of these, came to another server than the first of their flow.
    pub misdirected: u64,
    /// Came again.
    pub duplicates: u64,
}

/// One end's memory of all flows.
#[derive(Clone, Debug)]
pub struct Judge {
    flows: Box<[Flow]>,
    verdict: Verdict,
}

impl Judge {
    /// Remembers `flows` flows.
    #[must_use]
    pub fn new(flows: u32) -> Self {
        let flows = usize::try_from(flows).unwrap_or(usize::MAX);
        Self { flows: vec![UNSEEN; flows].into_boxed_slice(), verdict: Verdict::default() }
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.flows.fill(UNSEEN);
        self.verdict = Verdict::default();
    }

    /// Takes note of a packet; `false` when there is no such flow.
    #[inline]
    pub fn note(&mut self, flow: u32, sequence: u32, server: u16) -> bool {
        let place = usize::try_from(flow).unwrap_or(usize::MAX);
        let Some(flow) = self.flows.get_mut(place) else { return false };
        let ahead = sequence.wrapping_sub(flow.next);
        if ahead <= u32::MAX / 2 {
            let shift = ahead.saturating_add(1);
            flow.seen = flow.seen.checked_shl(shift).unwrap_or_default() | 1;
            flow.next = sequence.wrapping_add(1);
        } else {
            let behind = flow.next.wrapping_sub(1).wrapping_sub(sequence);
            // Far behind, there is no bit, and the packet counts as new.
            let bit = if behind < WINDOW { 1 << behind } else { 0 };
            if flow.seen & bit != 0 {
                self.verdict.duplicates += 1;
                return true;
            }
            flow.seen |= bit;
            self.verdict.reordered += 1;
        }
        self.verdict.arrived += 1;
        if flow.server != server {
            if flow.server == NOBODY {
                flow.server = server;
            } else {
                self.verdict.misdirected += 1;
            }
        }
        true
    }

    /// What came of it so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Packets that must have been sent, by the highest number of each flow, and did not come. What
    /// was lost at a flow's end cannot be known here.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let sent: u64 = self.flows.iter().map(|flow| u64::from(flow.next)).sum();
        sent.saturating_sub(self.verdict.arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(sequences: &[u32]) -> Verdict {
        let mut judge = Judge::new(1);
        for sequence in sequences {
            assert!(judge.note(0, *sequence, 0));
        }
        judge.verdict()
    }

    #[test]
    fn what_comes_in_order_once_is_neither_reordered_nor_a_duplicate() {
        let all: Vec<u32> = (0..1000).collect();
        assert_eq!(verdict(&all), Verdict { arrived: 1000, ..Verdict::default() });
        assert_eq!(verdict(&[0, 5, 900]), Verdict { arrived: 3, ..Verdict::default() });
    }

    #[test]
    fn rfc_4737s_example_has_two_reordered_packets() {
        // Section 7.1 and figure 1, numbered from 0: 4 and 5 come behind 6 and 7.
        let v = verdict(&[0, 1, 2, 3, 6, 7, 4, 5, 8]);
        assert_eq!(v, Verdict { arrived: 9, reordered: 2, ..Verdict::default() });
    }

    #[test]
    fn a_second_copy_is_a_duplicate_in_order_or_not() {
        let v = verdict(&[0, 0, 1, 3, 2, 2, 1]);
        assert_eq!(v, Verdict { arrived: 4, reordered: 1, duplicates: 3, misdirected: 0 });
    }

    #[test]
    fn numbers_wrap() {
        let mut judge = Judge::new(1);
        judge.flows[0].next = u32::MAX - 1;
        for sequence in [u32::MAX - 1, u32::MAX, 1, 0] {
            judge.note(0, sequence, 0);
        }
        assert_eq!(judge.verdict(), Verdict { arrived: 4, reordered: 1, ..Verdict::default() });
    }

    #[test]
    fn a_flow_that_changes_its_server_is_misdirected() {
        let mut judge = Judge::new(2);
        for (flow, sequence, server) in [(0, 0, 1), (1, 0, 2), (0, 1, 1), (0, 2, 2), (0, 3, 1)] {
            judge.note(flow, sequence, server);
        }
        assert_eq!(judge.verdict().misdirected, 1);
        assert!(!judge.note(2, 0, 0), "there is no such flow");
        judge.forget();
        assert_eq!(judge.verdict(), Verdict::default());
    }

    #[test]
    fn gaps_are_missing_until_they_are_filled() {
        let mut judge = Judge::new(1);
        assert_eq!([0, 1, 4].map(|sequence| judge.note(0, sequence, 0)), [true; 3]);
        assert_eq!(judge.missing(), 2);
        judge.note(0, 2, 0);
        assert_eq!(judge.missing(), 1);
    }

    #[test]
    fn a_window_of_64_tells_a_duplicate_from_a_late_packet() {
        let mut judge = Judge::new(1);
        for sequence in 1..WINDOW {
            judge.note(0, sequence, 0);
        }
        judge.note(0, 0, 0);
        judge.note(0, 0, 0);
        let v = judge.verdict();
        assert_eq!((v.reordered, v.duplicates), (1, 1));
    }
}
