//! Waiting for an answer without falling asleep, where that pays.
//!
//! rvsd has most answers sooner than a sleeper is woken, if it has a processor. Where it has none, because
//! others have them all, each look at the socket only keeps it from running: so a wait in vain lets the
//! next ones fall asleep at once, after several in vain very many of them. It never yields: who yields
//! on a busy machine is back after a slice of the scheduler, milliseconds later.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::time::Instant;

/// How long a wait lasts before it is in vain.
const AWAKE: Duration = Duration::from_micros(50);
/// The most waits that fall asleep at once after one in vain.
const ASLEEP_MAX: u32 = 255;

/// Waits that are to fall asleep at once. Which of two threads counts does not matter.
static ASLEEP: AtomicU32 = AtomicU32::new(0);
/// How many there are after the next one in vain.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Looks until there is something, or the caller had better fall asleep.
pub(crate) fn look<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let asleep = ASLEEP.load(Ordering::Relaxed);
    if asleep > 0 {
        ASLEEP.store(asleep - 1, Ordering::Relaxed);
        return look();
    }
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            NEXT.store(0, Ordering::Relaxed);
            return Some(found);
        }
        if begun.elapsed() > AWAKE {
            break;
        }
        core::hint::spin_loop();
    }
    let next = NEXT.load(Ordering::Relaxed);
    ASLEEP.store(next, Ordering::Relaxed);
    NEXT.store((2 * next + 1).min(ASLEEP_MAX), Ordering::Relaxed);
    None
}
