//! Time as the data path knows it. It is an argument everywhere: nobody here reads a clock.

/// Time in ticks since the worker started; wraps after 17 years.
pub type Tick = u32;

/// Ticks in a second. IPVS promises seconds; a finer tick makes more slots for nothing.
pub const TICKS_PER_SECOND: u32 = 8;

/// `seconds` in ticks; more than a wheel can ever hold becomes just that.
#[inline]
#[must_use]
pub const fn ticks(seconds: u32) -> Tick {
    seconds.saturating_mul(TICKS_PER_SECOND)
}
