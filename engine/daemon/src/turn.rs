//! A worker's thread: one breath after the other, and rest in between when there is nothing to do.

use crate::device::{Device, since_1970};
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rvs_control::config::Idle;
use rvs_model::{TICKS_PER_SECOND, Tick};
use rvs_plane::Worker;
use rvs_plane::shared::FrameCounters;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Empty breaths after which a worker yields its core, and twice as many before it sleeps.
const PATIENCE: u32 = 64;
/// The longest sleep: what the first packet after a pause may have to wait.
const SLEEP: Duration = Duration::from_micros(50);

/// What all turns of one worker have in common.
pub struct Turns {
    /// When tick 0 was.
    pub start: Instant,
    /// Set when workers shall stop.
    pub stop: Arc<AtomicBool>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// Where the worker counts.
    pub frames: Arc<FrameCounters>,
}

impl Turns {
    /// Breathes until told to stop, or until the links will never bring anything any more and
    /// nothing waits.
    pub fn take<D: Device>(&self, worker: &mut Worker<D>) {
        // The kernel may add this much to a sleep; unless told otherwise as much as the sleep itself.
        let _as_it_is = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let since = since_1970().saturating_sub(self.start.elapsed());
        let mut empty = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let elapsed = self.start.elapsed();
            for queue in worker.queues_mut() {
                queue.tell_time(since + elapsed);
            }
            if worker.breathe(tick(elapsed)) > 0 {
                empty = 0;
                continue;
            }
            if worker.queues_mut().iter().all(Device::is_exhausted) && self.frames.read().held == 0
            {
                return;
            }
            empty = self.rest(empty);
        }
    }

    /// Rests after `empty` empty breaths in a row, and counts one more.
    fn rest(&self, empty: u32) -> u32 {
        match self.idle {
            Idle::Adaptive if empty >= 2 * PATIENCE => thread::sleep(SLEEP),
            Idle::Adaptive if empty >= PATIENCE => thread::yield_now(),
            Idle::Adaptive | Idle::Poll => core::hint::spin_loop(),
        }
        empty.saturating_add(1)
    }
}

/// The tick at `elapsed` since the start; it wraps like [`Tick`] does.
fn tick(elapsed: Duration) -> Tick {
    let ticks = elapsed.as_millis() * u128::from(TICKS_PER_SECOND) / 1000;
    Tick::try_from(ticks & u128::from(Tick::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_eight_ticks_and_time_wraps() {
        assert_eq!(tick(Duration::ZERO), 0);
        assert_eq!(tick(Duration::from_millis(124)), 0);
        assert_eq!(tick(Duration::from_millis(125)), 1);
        assert_eq!(tick(Duration::from_mins(15)), 7200);
        let wraps = Duration::from_secs((u64::from(Tick::MAX) + 1) / 8);
        assert_eq!(tick(wraps), 0);
    }
}
