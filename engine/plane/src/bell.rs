//! How a worker that waits is woken.
//!
//! ```text
//!  the worker                                 who has something for it
//!  asleep := true                             puts it where the worker finds it
//!  ── fence ──                                ── fence ──
//!  anything there? goes on, else waits        asleep? wakes it
//! ```
//!
//! Whichever fence comes second, behind it is seen what was written before the other: either the
//! worker finds what is there, or it is woken. A worker that is awake costs nobody a system call.

use crate::sync::{AtomicBool, Ordering, fence};
use core::fmt;
use std::sync::OnceLock;

/// A worker's bell. Without a wire, as in tests and simulations, nobody waits and ringing does
/// nothing.
#[derive(Default)]
pub struct Bell {
    asleep: AtomicBool,
    wire: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Bell {
    /// Says what ends the worker's wait: to be called once, before the worker begins.
    pub fn connect(&self, wake: impl Fn() + Send + Sync + 'static) {
        // A second one has nothing to wake.
        let _second = self.wire.set(Box::new(wake));
    }

    /// Wakes the worker if it waits. To be called after what it is to find was put there.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        self.ring_if_asleep();
    }

    /// The same behind a fence of the caller's, which may stand for many bells.
    #[inline]
    pub(crate) fn ring_if_asleep(&self) {
        // Only the first of many wakes it.
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Relaxed)
            && let Some(wake) = self.wire.get()
        {
            wake();
        }
    }

    /// The worker's side: `wait`s, unless something `is_there` already. What ends the wait may come
    /// before it begins, and must not be lost then.
    pub fn wait_unless<R>(
        &self,
        is_there: impl FnOnce() -> bool,
        wait: impl FnOnce() -> R,
    ) -> Option<R> {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let waited = (!is_there()).then(wait);
        self.asleep.store(false, Ordering::Relaxed);
        waited
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("asleep", &self.asleep).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    fn counting() -> (Bell, Arc<AtomicU32>) {
        let (bell, rung) = (Bell::default(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&rung);
        bell.connect(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (bell, rung)
    }

    #[test]
    fn a_worker_that_is_awake_is_not_woken() {
        let (bell, rung) = counting();
        bell.ring();
        assert_eq!(bell.wait_unless(|| true, || unreachable!()), None::<()>);
        bell.ring();
        assert_eq!(rung.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_worker_that_waits_is_woken_once() {
        let (bell, rung) = counting();
        bell.wait_unless(|| false, || (0..3).for_each(|_| bell.ring()));
        assert_eq!(rung.load(Ordering::Relaxed), 1);
    }
}
