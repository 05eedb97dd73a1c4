//! Thresholds: a destination that reached its upper one gets no new connections until it is below
//! its lower one.
//!
//! ```text
//!  connections  ──opened: total ≥ upper──► over ──ended: total < lower, or < 3/4 upper──► not over
//! ```
//!
//! Linux 6.1.192 `ip_vs_conn.c` `ip_vs_bind_dest()`, `ip_vs_unbind_dest()`, and for an edit `ip_vs_ctl.c`
//! `__ip_vs_dest_update_overload()`: a flag that moves when a connection begins or ends, or when the
//! thresholds become others, and between the two of them stays what it was. (Earlier ones let an edit
//! that raised the upper one take the flag away, and none set it.) All connections count, active or not.
//!
//! Nothing is done when a connection ends. Between two openings totals only fall, so whoever asks can
//! tell from the line's counters whether one has ended, and from the total whether that was enough:
//! on one worker the answer is the kernel's.
//!
//! DIFFERS from Linux on several workers: each has a flag of its own and sees the others' connections
//! as last folded (ADR 0005), so the flag follows the total as it is seen, and workers that choose at
//! the same moment may pass the upper threshold by one connection each.

use core::cell::Cell;
use rvs_model::DestId;

/// What an operator allows a destination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// `-x`: connections from which on it gets none; 0 is no limit. At most `i32::MAX`.
    pub upper: u32,
    /// `-y`: connections below which it gets some again; 0 is three quarters of `upper`.
    pub lower: u32,
    /// Changes whenever an edit takes the upper one away, for who sees only a later edit.
    pub lifted: u32,
}

/// A destination's connections at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// On all workers.
    pub(crate) total: u64,
    /// How many have ended on this worker, wrapping.
    pub(crate) ended: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Latch {
    limits: Limits,
    /// What had ended when the flag was looked at last, shifted left over the flag itself.
    ended_and_over: u32,
}

const _: () = assert!(size_of::<Latch>() == 16);

impl Latch {
    fn is_over(self) -> bool {
        self.ended_and_over & 1 != 0
    }

    fn note(&mut self, ended: u32, is_over: bool) {
        self.ended_and_over = (ended << 1) | u32::from(is_over);
    }

    /// Whether so many connections are few enough.
    fn is_below(self, total: u64) -> bool {
        let Limits { upper, lower, .. } = self.limits;
        if lower != 0 { total < u64::from(lower) } else { total * 4 < u64::from(upper) * 3 }
    }

    /// The flag, after what has ended since the last look.
    fn look(&mut self, seen: Seen, is_alone: bool) -> bool {
        let Seen { total, ended } = seen;
        let is_over = if is_alone {
            let has_ended = self.ended_and_over >> 1 != (ended << 1) >> 1;
            self.is_over() && !(has_ended && self.is_below(total))
        } else {
            total >= u64::from(self.limits.upper) || self.is_over() && !self.is_below(total)
        };
        self.note(ended, is_over);
        is_over
    }
}

/// The flags of all destinations, on this core.
#[derive(Debug)]
pub(crate) struct Latches {
    all: Box<[Cell<Latch>]>,
    /// Whether no other worker opens connections.
    is_alone: bool,
}

impl Latches {
    /// Of a destination.
    #[cfg(test)]
    pub(crate) const OCTETS_EACH: usize = size_of::<Cell<Latch>>();

    /// For so many destinations, by [`DestId`].
    pub(crate) fn new(dests: usize, is_alone: bool) -> Self {
        Self { all: (0..dests).map(|_| Cell::default()).collect(), is_alone }
    }

    /// Whether a destination is not to be given a connection. `seen` is asked only of one that has a
    /// limit.
    #[inline]
    pub(crate) fn is_over(&self, id: DestId, seen: impl FnOnce() -> Seen) -> bool {
        self.limited(id).is_some_and(|cell| {
            let mut latch = cell.get();
            let is_over = latch.look(seen(), self.is_alone);
            cell.set(latch);
            is_over
        })
    }

    /// A destination was given a connection, which `seen` includes.
    #[inline]
    pub(crate) fn bound(&self, id: DestId, seen: impl FnOnce() -> Seen) {
        if let Some(cell) = self.limited(id) {
            let mut latch = cell.get();
            let Seen { total, ended } = seen();
            // Who is persistent comes without a look before.
            let was_over =
                latch.look(Seen { total: total.saturating_sub(1), ended }, self.is_alone);
            latch.note(ended, was_over || total >= u64::from(latch.limits.upper));
            cell.set(latch);
        }
    }

    /// What an operator says of a destination now.
    pub(crate) fn set(&self, id: DestId, limits: Limits, seen: impl FnOnce() -> Seen) {
        let Some(cell) = self.cell(id) else { return };
        let mut latch = cell.get();
        if latch.limits == limits {
            return;
        }
        // By the limits that held when they ended.
        let seen = seen();
        let was_over = latch.limits.upper != 0
            && latch.look(seen, self.is_alone)
            && latch.limits.lifted == limits.lifted;
        latch.limits = limits;
        let is_full = limits.upper != 0 && seen.total >= u64::from(limits.upper);
        latch.note(seen.ended, is_full || was_over && !latch.is_below(seen.total));
        cell.set(latch);
    }

    fn cell(&self, id: DestId) -> Option<&Cell<Latch>> {
        self.all.get(usize::try_from(id.0).ok()?)
    }

    #[inline]
    fn limited(&self, id: DestId) -> Option<&Cell<Latch>> {
        self.cell(id).filter(|cell| cell.get().limits.upper != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DestId = DestId(1);

    /// A destination as the kernel has it, and ours beside it.
    struct Both {
        latches: Latches,
        limits: Limits,
        opened: u32,
        ended: u32,
        kernel_is_over: bool,
    }

    impl Both {
        fn new() -> Self {
            let limits = Limits::default();
            let latches = Latches::new(2, true);
            Self { latches, limits, opened: 0, ended: u32::MAX - 5, kernel_is_over: false }
        }

        fn total(&self) -> u32 {
            self.opened.wrapping_sub(self.ended)
        }

        fn seen(&self) -> Seen {
            Seen { total: self.total().into(), ended: self.ended }
        }

        fn open(&mut self) {
            self.opened = self.opened.wrapping_add(1);
            if self.limits.upper != 0 && self.total() >= self.limits.upper {
                self.kernel_is_over = true;
            }
            self.latches.bound(ID, || self.seen());
        }

        fn end(&mut self) {
            self.ended = self.ended.wrapping_add(1);
            self.kernel_is_over &= !self.is_below();
        }

        fn is_below(&self) -> bool {
            let Limits { upper, lower, .. } = self.limits;
            let most = if lower == 0 { upper - upper / 4 } else { lower };
            upper == 0 || self.total() < most
        }

        /// `told` says whether the worker sees this edit or only a later one.
        fn edit(&mut self, upper: u32, lower: u32, told: bool) {
            let lifted = self.limits.lifted + u32::from(upper == 0);
            self.limits = Limits { upper, lower, lifted };
            if upper != 0 && self.total() >= upper {
                self.kernel_is_over = true;
            } else if self.is_below() {
                self.kernel_is_over = false;
            }
            if told {
                self.latches.set(ID, self.limits, || self.seen());
            }
        }

        fn is_over(&self) -> bool {
            self.latches.is_over(ID, || self.seen())
        }
    }

    #[test]
    fn on_one_worker_the_flag_is_the_kernels_whatever_happens_in_between() {
        let mut random = 1_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((random >> 33) % below).unwrap()
        };
        let mut overs = 0;
        for _ in 0..200 {
            let mut both = Both::new();
            both.opened = both.ended;
            for _ in 0..500 {
                match draw(40) {
                    0 => {
                        if draw(8) == 0 {
                            both.edit(0, 0, false);
                        }
                        let upper = draw(12);
                        both.edit(upper, draw(u64::from(upper) + 1), true);
                    }
                    1..=18 if both.total() > 0 => both.end(),
                    // Nobody looks at it before every opening: another destination's turn.
                    19..=30 if !both.is_over() => both.open(),
                    31..=32 => both.open(),
                    _ => {}
                }
                if draw(3) == 0 {
                    assert_eq!(both.is_over(), both.kernel_is_over, "{:?}", both.limits);
                    overs += u32::from(both.kernel_is_over);
                }
            }
        }
        assert!(overs > 1000, "{overs}");
    }

    #[test]
    fn on_several_workers_the_flag_follows_the_total_that_is_seen() {
        let latches = Latches::new(2, false);
        latches.set(ID, Limits { upper: 4, lower: 2, lifted: 1 }, || Seen { total: 0, ended: 0 });
        let is_over = |total| latches.is_over(ID, || Seen { total, ended: 0 });
        let seen = [3, 4, 3, 2, 1, 3, 5, 1].map(is_over);
        assert_eq!(seen, [false, true, true, true, false, false, true, false]);
    }

    #[test]
    fn a_destination_without_a_limit_is_not_even_looked_at() {
        let latches = Latches::new(2, true);
        assert!(!latches.is_over(ID, || panic!("looked at")));
        assert!(!latches.is_over(DestId(9), || panic!("looked at")));
    }
}
