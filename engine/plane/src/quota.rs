//! Who goes first when more arrives than a worker can carry: the packets of connections that stand.
//! What opens another one costs several times as much, and its client tries again.
//!
//! ```text
//!  a link gave all it was asked for, so often in a row ──► fewer openings a breath, down to a few
//!  it gave less: nothing waits any more                ──► one more a breath, up to as many as come
//! ```
//!
//! A worker does not see how full a card's ring is, but it sees whether it empties it. While packets
//! of known connections come, openings get what time those leave; alone they get all of it.
//!
//! DIFFERS from Linux, where a flood of new connections takes a core's time from all packets alike:
//! the ring overflows and the card loses of both.

/// Breaths in a row that found as much as they could take before openings have to wait: with bursts of
/// 64 that is a ring of 1024.
const PATIENCE: u32 = 16;
/// Openings that every breath has time for.
const LEAST: u32 = 2;
/// Breaths without a packet of a known connection after which there is nobody to protect.
const FORGOTTEN: u32 = 64;

/// How many connections one worker opens in a breath.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    /// How many it may; no limit at first.
    allowed: u32,
    /// How many it has in this breath.
    opened: u32,
    /// Breaths in a row that found as much as they could take.
    full: u32,
    /// Breaths since a known connection had a packet.
    quiet: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { allowed: u32::MAX, opened: 0, full: 0, quiet: FORGOTTEN }
    }
}

impl Quota {
    /// Begins a breath, `is_full` if a link gave all that it was asked for.
    #[inline]
    pub(crate) fn begin(&mut self, is_full: bool) {
        if !is_full {
            self.allowed = self.allowed.saturating_add(1);
            self.full = 0;
        } else if self.full < PATIENCE {
            self.full += 1;
        } else {
            self.allowed = (self.opened.min(self.allowed) / 4 * 3).max(LEAST);
        }
        self.opened = 0;
        self.quiet = self.quiet.saturating_add(1);
    }

    /// So many packets of this breath are of known connections.
    #[inline]
    pub(crate) fn known(&mut self, packets: usize) {
        if packets > 0 {
            self.quiet = 0;
        }
    }

    /// Whether there is time for one more opening.
    #[inline]
    pub(crate) fn takes(&mut self) -> bool {
        if self.opened >= self.allowed && self.quiet < FORGOTTEN {
            return false;
        }
        self.opened += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `come` openings a breath takes that has packets of `known` connections.
    fn breathe(quota: &mut Quota, is_full: bool, known: usize, come: u32) -> u32 {
        quota.begin(is_full);
        quota.known(known);
        (0..come).map(|_| u32::from(quota.takes())).sum()
    }

    #[test]
    fn openings_give_way_to_known_connections_once_a_worker_does_not_keep_up() {
        let mut quota = Quota::default();
        for _ in 0..PATIENCE {
            assert_eq!(breathe(&mut quota, true, 32, 32), 32, "a burst of traffic is no flood");
        }
        let taken: Vec<u32> = (0..12).map(|_| breathe(&mut quota, true, 32, 32)).collect();
        assert!(taken.windows(2).all(|pair| pair[1] <= pair[0]), "{taken:?}");
        assert_eq!(taken.last(), Some(&LEAST));
        let taken: Vec<u32> = (0..40).map(|_| breathe(&mut quota, false, 32, 32)).collect();
        assert_eq!((taken[0], taken[39]), (LEAST + 1, 32), "time is left again");
    }

    #[test]
    fn a_flood_alone_has_all_the_time_there_is() {
        let mut quota = Quota::default();
        for _ in 0..10_000 {
            assert_eq!(breathe(&mut quota, true, 0, 64), 64);
        }
        assert!(breathe(&mut quota, true, 1, 64) < 64, "until somebody else comes");
    }
}
