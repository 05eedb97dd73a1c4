//! A worker's thread: one breath after the other, and rest in between when there is nothing to do.

use crate::device::{Device, Doorbell, Woken, since_1970};
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rvs_control::config::Idle;
use rvs_model::{TICKS_PER_SECOND, Tick};
use rvs_plane::shared::FrameCounters;
use rvs_plane::{Bell, Worker};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// The longest wait. Frames, other workers and the control plane end it; what it may delay is what a
/// tick begins, of which there are eight a second. A hundred wakings a second cost about a
/// thousandth of a core.
const WAIT: Duration = Duration::from_millis(10);
/// After a link told of a frame that could not be had, as one whose device is gone does for ever.
const WAIT_IN_VAIN: Duration = Duration::from_micros(50);

/// What all turns of one worker have in common.
pub struct Turns {
    /// When tick 0 was.
    pub start: Instant,
    /// Set when workers shall stop.
    pub stop: Arc<AtomicBool>,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// Wakes the worker.
    pub bell: Arc<Bell>,
    /// The same for one that waits in the kernel.
    pub doorbell: Doorbell,
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
        let mut rest = Rest::default();
        while !self.stop.load(Ordering::Relaxed) {
            let elapsed = self.start.elapsed();
            for queue in worker.queues_mut() {
                queue.tell_time(since + elapsed);
            }
            let frames = worker.breathe(tick(elapsed));
            if frames > 0 {
                rest = Rest::default();
            }
            // A list of connections is many breaths: resting after each, it would take seconds.
            if frames > 0 && D::PATIENCE > 0 || worker.is_busy() {
                continue;
            }
            if frames == 0
                && worker.queues_mut().iter().all(Device::is_exhausted)
                && self.frames.read().held == 0
            {
                return;
            }
            self.rest(&mut rest, worker);
        }
    }

    /// Rests a little, and longer the longer nothing came.
    fn rest<D: Device>(&self, rest: &mut Rest, worker: &Worker<D>) {
        rest.empty = rest.empty.saturating_add(1);
        match self.idle {
            Idle::Adaptive if rest.in_vain => {
                thread::sleep(WAIT_IN_VAIN);
                rest.in_vain = false;
            }
            Idle::Adaptive if rest.empty >= D::PATIENCE => {
                let woken = self.bell.wait_unless(
                    || worker.is_busy() || self.stop.load(Ordering::Relaxed),
                    || D::wait(worker.queues(), &self.doorbell, WAIT),
                );
                rest.in_vain = woken == Some(Woken::Frame);
            }
            Idle::Adaptive | Idle::Poll => core::hint::spin_loop(),
        }
    }
}

/// How long nothing has come.
#[derive(Default)]
struct Rest {
    /// Empty breaths in a row.
    empty: u32,
    /// Whether the last wait ended because a frame was there. If the breath after it is empty,
    /// there was none.
    in_vain: bool,
}

/// The tick at `elapsed` since the start; it wraps like [`Tick`] does.
fn tick(elapsed: Duration) -> Tick {
    // Whole seconds are whole ticks. Sixteen empty breaths come before a wait: no division of 128 bits.
    let (second, rest) = (u64::from(TICKS_PER_SECOND), u64::from(elapsed.subsec_millis()));
    let ticks = elapsed.as_secs().wrapping_mul(second).wrapping_add(rest * second / 1000);
    Tick::try_from(ticks & u64::from(Tick::MAX)).unwrap_or_default()
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
