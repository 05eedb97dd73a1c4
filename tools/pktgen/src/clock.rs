//! Time, and who may end a run: arguments, so that tests need not wait.

use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Below this there is nothing to be gained by giving the core away: nanoseconds.
const WORTH_YIELDING: u64 = 50_000;

/// What a run looks at between bursts.
pub trait Clock {
    /// Nanoseconds since some fixed time; never goes back.
    fn now(&mut self) -> u64;

    /// There is nothing to do, and nothing is due before `until`.
    fn rest(&mut self, _until: u64) {}

    /// Whether somebody wants the run to end.
    fn is_over(&self) -> bool {
        false
    }
}

/// One of the machine's clocks.
#[derive(Clone, Debug)]
pub struct Machine {
    id: ClockId,
    stop: Arc<AtomicBool>,
}

impl Machine {
    /// The same for all processes, so that a sink elsewhere on the machine can tell latencies too.
    /// A run on it ends when `stop` is set.
    #[must_use]
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Self { id: ClockId::Monotonic, stop }
    }

    /// This thread's: it stands still while others have the core.
    #[must_use]
    pub fn of_thread(stop: Arc<AtomicBool>) -> Self {
        Self { id: ClockId::ThreadCPUTime, stop }
    }
}

impl Clock for Machine {
    #[inline]
    fn now(&mut self) -> u64 {
        let time = clock_gettime(self.id);
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
        seconds.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default()
    }

    fn rest(&mut self, until: u64) {
        if until.saturating_sub(self.now()) > WORTH_YIELDING {
            thread::yield_now();
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
