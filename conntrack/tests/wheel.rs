//! The wheel against a map of what is armed for when.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use arrayvec::ArrayVec;
use common::Random;
use rvs_conntrack::wheel::{Due, Wheel};
use rvs_model::Tick;
use std::collections::{BTreeSet, HashMap};

/// The span of the wheel: 1024 s.
const SLOTS: u64 = 8192;

/// A wheel, and what it should hold. Time is wider here, so that it does not wrap.
struct Checked {
    wheel: Wheel,
    armed: HashMap<u32, u64>,
    by_tick: BTreeSet<(u64, u32)>,
    now: u64,
    next_index: u32,
}

fn tick(time: u64) -> Tick {
    u32::try_from(time & u64::from(u32::MAX)).unwrap()
}

impl Checked {
    fn new(entries: u32, now: u64) -> Self {
        Self {
            wheel: Wheel::new(entries, tick(now), false),
            armed: HashMap::new(),
            by_tick: BTreeSet::new(),
            now,
            next_index: 1,
        }
    }

    /// Arms a new entry for `ahead` ticks from now.
    fn arm(&mut self, ahead: u64) {
        let armed = self.wheel.arm(self.next_index, tick(self.now + ahead)).unwrap();
        // The hand may be one past now, and the end of the wheel is as far from it as it is long.
        let due = self.now + u64::from(armed.wrapping_sub(tick(self.now)));
        let wish = self.now + ahead;
        assert!(due == wish.max(self.now + 1) || due == wish || (due < wish && ahead >= SLOTS - 1));
        self.insert(self.next_index, due);
        self.next_index += 1;
    }

    fn insert(&mut self, index: u32, due: u64) {
        assert_eq!(self.armed.insert(index, due), None);
        self.by_tick.insert((due, index));
    }

    /// Takes out an entry that is armed, and says for when.
    fn take(&mut self, entry: Due) -> u64 {
        let due = self.armed.remove(&entry.index).unwrap();
        self.by_tick.remove(&(due, entry.index));
        assert!(entry.is_for(tick(due)));
        due
    }

    /// Lets time pass and takes out all that is due, in calls that are bounded.
    fn sleep(&mut self, ticks: u64) -> usize {
        self.now += ticks;
        let is_jump = ticks >= SLOTS;
        let (mut calls, mut quiet) = (0, 0);
        while quiet < SLOTS / 512 + 1 {
            let mut due = ArrayVec::<Due, 8>::new();
            self.wheel.pop(tick(self.now), &mut due);
            calls += 1;
            quiet = if due.is_full() { 0 } else { quiet + 1 };
            for entry in due {
                let armed_for = self.take(entry);
                assert!(armed_for <= self.now, "never early");
                assert!(is_jump || entry.tick == tick(armed_for));
            }
        }
        let first = self.by_tick.first();
        assert!(first.is_none_or(|(due, _)| *due > self.now), "never late: {first:?}");
        calls
    }

    /// Takes out some entries before they are due; one of four is not armed again.
    fn sift(&mut self, random: &mut Random) {
        let mut out = ArrayVec::<Due, 24>::new();
        self.wheel.sift(&mut out);
        for entry in out {
            let due = self.take(entry);
            if random.below(4) != 0 {
                assert_eq!(self.wheel.arm(entry.index, tick(due)), Some(tick(due)));
                self.insert(entry.index, due);
            }
        }
    }
}

#[test]
fn every_entry_comes_out_once_at_its_tick_in_a_model_with_random_steps() {
    for seed in 0..6 {
        let mut random = Random(seed);
        // Every second one crosses the end of the range of ticks.
        let start = if seed % 2 == 0 { 0 } else { (1 << 32) - 40_000 };
        let mut checked = Checked::new(20_000, start);
        for _ in 0..300_000 {
            match random.below(100) {
                0..70 if checked.armed.len() < 20_000 => {
                    let ahead = match random.below(3) {
                        0 => random.below(100),
                        1 => random.below(8192),
                        _ => random.below(20_000),
                    };
                    checked.arm(u64::from(ahead));
                }
                99 if random.below(300) == 0 => {
                    checked.sleep(u64::from(random.below(100_000)));
                }
                96..99 => checked.sift(&mut random),
                _ if random.below(4) == 0 => {
                    checked.sleep(u64::from(random.below(8)));
                }
                _ => {}
            }
        }
        checked.sleep(20_000);
        assert!(checked.armed.is_empty());
    }
}

#[test]
fn after_a_sleep_of_hours_all_that_is_due_comes_out_in_bounded_calls() {
    for hours in [1, 24, 24 * 365] {
        let mut checked = Checked::new(1000, 5);
        for number in 0..1000 {
            checked.arm(number * 8);
        }
        let calls = checked.sleep(hours * 3600 * 8);
        assert!(checked.armed.is_empty());
        // 8 entries or 512 slots a call, and the quiet ones at the end.
        assert!(calls <= 1000 / 8 + 16 + 18, "{calls} calls");
        checked.arm(100);
        checked.sleep(99);
        assert_eq!(checked.armed.len(), 1);
        checked.sleep(1);
        assert!(checked.armed.is_empty());
    }
}

#[test]
fn a_wheel_takes_what_it_was_made_for_wherever_it_falls_then_refuses_and_recovers() {
    for spread in [1, 14, 8192] {
        let mut wheel = Wheel::new(100_000, 0, false);
        for index in 0..100_000 {
            assert!(wheel.arm(index, index % spread).is_some(), "{index} over {spread}");
        }
        assert!(wheel.is_crowded());
        let more = (0..200_000).take_while(|index| wheel.arm(*index, 5).is_some()).count();
        assert!(more <= 14 * 8195, "memory is what it was");
        let mut left = 100_000 + more;
        while left > 0 {
            let mut due = ArrayVec::<Due, 256>::new();
            wheel.pop(8191, &mut due);
            left -= due.len();
        }
        assert!(wheel.arm(1, 9000).is_some());
    }
}

#[test]
fn a_wheel_with_one_entry_for_each_of_half_its_room_is_not_crowded() {
    for entries in [2, 20, 20_000, 2_000_000] {
        let mut wheel = Wheel::new(entries, 0, false);
        for index in 0..entries / 2 {
            wheel.arm(index, index % 8192).unwrap();
        }
        assert!(!wheel.is_crowded(), "{entries}");
    }
}
