//! What a worker does against too many connections: `drop_entry`, `drop_packet`, `secure_tcp`.
//!
//! ```text
//!  once a second:  room of both tables, tunables ──judge──► Gate      one of so many openings dropped
//!                                                           secure    the stricter TCP states
//!                                                           owed      lines that age, some a breath
//! ```
//!
//! Linux 6.1 `ip_vs_ctl.c` `update_defense_level()`. Mode 0 is off, 3 is on, 1 and 2 are on while
//! memory is short.
//!
//! DIFFERS from Linux: memory is that of a worker's own connection tables, in pages of 4096 octets,
//! because they were taken at the start and nothing else grows. It is short while less than
//! `amemthresh` is free in one of them, or less than a quarter where the whole table is small. The
//! kernel turns mode 1 into 2 and back to tell which holds; here each worker is a judge of its own,
//! and what was written stays.

use rvs_conntrack::{Ageing, Conn, Conns};
use rvs_model::{TICKS_PER_SECOND, Tick, Tunables};
use rvs_wire::flow::{Family, V4, V6};

/// Octets of a page.
const PAGE: u64 = 4096;
/// The part of a table that ages in a second.
const SHARE: u32 = 32;
/// Lines that age in one breath and family: all of their misses are in flight together.
const AGE_BUDGET: usize = 16;

/// How much of a table is free, in pages.
#[derive(Clone, Copy, Debug)]
struct Room {
    free: u64,
    all: u64,
}

impl Room {
    fn of<F: Family>(conns: &Conns<F>) -> Self {
        let octets = u64::try_from(size_of::<Conn<F>>()).unwrap_or_default();
        let held = u64::try_from(conns.len()).unwrap_or_default();
        let all = u64::from(conns.table().capacity());
        Self { free: all.saturating_sub(held) * octets / PAGE, all: all * octets / PAGE }
    }

    /// One packet in how many is to be dropped, if the room is short: fewer pages, more packets.
    fn shortage(self, amemthresh: u32) -> Option<u32> {
        let enough = u64::from(amemthresh).min(self.all / 4);
        let missing = enough.checked_sub(self.free).filter(|missing| *missing > 0)?;
        Some(u32::try_from(enough / missing).unwrap_or(u32::MAX))
    }
}

/// Drops one of so many packets that would open a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    /// 0 drops none.
    rate: u32,
    left: u32,
}

impl Gate {
    /// Whether this one is dropped (Linux 6.1 `ip_vs.h` `ip_vs_todrop()`).
    #[inline]
    pub(crate) fn drops(&mut self) -> bool {
        self.rate != 0 && self.is_turn()
    }

    #[cold]
    fn is_turn(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        let is_turn = self.left == 0;
        if is_turn {
            self.left = self.rate;
        }
        is_turn
    }

    /// Mode 3 leaves the count where it is, as the kernel does.
    fn judge(&mut self, mode: u8, am_droprate: u32, shortage: Option<u32>) {
        match (mode, shortage) {
            (3, _) => self.rate = am_droprate,
            (1 | 2, Some(rate)) => *self = Self { rate, left: rate },
            _ => self.rate = 0,
        }
    }
}

/// The defence of one worker.
#[derive(Debug)]
pub(crate) struct Defense {
    ageing: Ageing,
    /// Lines that are still to age in this second.
    owed: [u32; 2],
    next: Tick,
}

impl Defense {
    pub(crate) fn new(seed: u64, now: Tick) -> Self {
        Self { ageing: Ageing::new(seed), owed: [0; 2], next: now }
    }

    /// Whether there is anything to do in this breath.
    #[inline]
    pub(crate) fn is_due(&self, now: Tick) -> bool {
        self.owed != [0; 2] || self.is_second(now)
    }

    /// Whether lines are still to age in this second.
    pub(crate) fn is_behind(&self) -> bool {
        self.owed != [0; 2]
    }

    #[inline]
    fn is_second(&self, now: Tick) -> bool {
        now.wrapping_sub(self.next) <= Tick::MAX / 2
    }

    /// Judges the situation once a second, and ages some lines.
    #[cold]
    pub(crate) fn step(
        &mut self,
        tunables: &Tunables,
        (v4, v6): (&mut Conns<V4>, &mut Conns<V6>),
        gate: &mut Gate,
        now: Tick,
        (gone4, gone6): (impl FnMut(&Conn<V4>), impl FnMut(&Conn<V6>)),
    ) {
        if self.is_second(now) {
            self.next = now.wrapping_add(TICKS_PER_SECOND);
            let is_on = judge(tunables, v4, v6, gate);
            let share = |capacity: u32| if is_on { capacity.div_ceil(SHARE) } else { 0 };
            self.owed = [share(v4.table().capacity()), share(v6.table().capacity())];
        }
        let Self { ageing, owed: [owed4, owed6], .. } = self;
        let budget = u32::try_from(AGE_BUDGET).unwrap_or(u32::MAX);
        ageing.step::<V4, AGE_BUDGET>(v4, budget.min(*owed4), now, gone4);
        ageing.step::<V6, AGE_BUDGET>(v6, budget.min(*owed6), now, gone6);
        (*owed4, *owed6) = (owed4.saturating_sub(budget), owed6.saturating_sub(budget));
    }
}

/// Sets how strict the worker is; `true` if connections are to age. Also at once when tunables
/// change.
pub(crate) fn judge(
    tunables: &Tunables,
    v4: &mut Conns<V4>,
    v6: &mut Conns<V6>,
    gate: &mut Gate,
) -> bool {
    let shortages = [Room::of(v4), Room::of(v6)].map(|room| room.shortage(tunables.amemthresh));
    let shortage = shortages.into_iter().flatten().min();
    let is_on = |mode| mode == 3 || mode != 0 && shortage.is_some();
    gate.judge(tunables.drop_packet, tunables.am_droprate, shortage);
    v4.set_secure(is_on(tunables.secure_tcp));
    v6.set_secure(is_on(tunables.secure_tcp));
    is_on(tunables.drop_entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(gate: &mut Gate, openings: usize) -> Vec<usize> {
        (0..openings).filter(|_| gate.drops()).collect()
    }

    #[test]
    fn always_drops_the_first_and_then_one_in_the_rate() {
        let mut gate = Gate::default();
        assert_eq!(dropped(&mut gate, 9), []);
        gate.judge(3, 3, None);
        assert_eq!(dropped(&mut gate, 9), [0, 3, 6]);
        gate.judge(3, 3, None);
        assert_eq!(dropped(&mut gate, 3), [0], "a second later the count goes on");
        gate.judge(3, 0, None);
        assert_eq!(dropped(&mut gate, 3), []);
    }

    #[test]
    fn automatically_drops_the_more_the_less_room_there_is() {
        let mut gate = Gate::default();
        gate.judge(1, 3, None);
        assert_eq!(dropped(&mut gate, 9), []);
        gate.judge(1, 3, Some(4));
        assert_eq!(dropped(&mut gate, 8), [3, 7]);
        gate.judge(2, 3, Some(1));
        assert_eq!(dropped(&mut gate, 3), [0, 1, 2]);
        gate.judge(2, 3, None);
        assert_eq!(dropped(&mut gate, 3), []);
    }

    #[test]
    fn room_is_short_below_the_threshold_or_a_quarter_of_a_small_table() {
        let short = |free, all| Room { free, all }.shortage(1024);
        assert_eq!(short(1024, 8192), None);
        assert_eq!(short(1023, 8192), Some(1024));
        assert_eq!(short(512, 8192), Some(2));
        assert_eq!(short(0, 8192), Some(1));
        assert_eq!(short(16, 64), None, "a quarter of 64 pages");
        assert_eq!(short(8, 64), Some(2));
        assert_eq!(short(0, 0), None, "a table without pages says nothing");
        assert_eq!(Room { free: 0, all: 64 }.shortage(0), None, "never, says the operator");
    }
}
