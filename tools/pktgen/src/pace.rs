//! When packets are due: evenly, counted from the start, whatever became of those before.

/// Fractions of a nanosecond that are kept.
const FRACTION_BITS: u32 = 32;

/// A schedule. Times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: u64,
    /// Between two packets; `None` is no schedule: whatever is asked for is due now.
    step: Option<u128>,
    /// From the start to the next packet.
    ahead: u128,
}

impl Pace {
    /// Packets from `start` on, so many a second; `None` for as fast as they are taken.
    #[must_use]
    pub fn new(start: u64, packets_per_second: Option<f64>) -> Self {
        let step = packets_per_second.map(|rate| {
            // In thousandths of packets a second: a step of 128 bits loses nothing that matters.
            let rate = num_milli(rate).max(1);
            // Rounded up, so that no second has a packet too many.
            (1_000_000_000_000_u128 << FRACTION_BITS).div_ceil(rate)
        });
        Self { start, step, ahead: 0 }
    }

    /// When the next packet is due.
    #[inline]
    #[must_use]
    pub fn next(&self, now: u64) -> u64 {
        match self.step {
            Some(_) => {
                let ahead = u64::try_from(self.ahead >> FRACTION_BITS).unwrap_or(u64::MAX);
                self.start.saturating_add(ahead)
            }
            None => now,
        }
    }

    /// The next packet is made: the one behind it is next.
    #[inline]
    pub fn advance(&mut self) {
        self.ahead += self.step.unwrap_or_default();
    }

    /// Packets due before `end` that are not made yet.
    #[must_use]
    pub fn backlog(&self, end: u64) -> u64 {
        let Some(step) = self.step else { return 0 };
        let until = u128::from(end.saturating_sub(self.start)) << FRACTION_BITS;
        let left = until.saturating_sub(self.ahead).div_ceil(step.max(1));
        u64::try_from(left).unwrap_or(u64::MAX)
    }
}

/// Thousandths, for rates from the command line.
fn num_milli(rate: f64) -> u128 {
    // No integer is made of a float without a cast but by way of its seconds.
    let seconds = std::time::Duration::try_from_secs_f64(rate.max(0.0)).unwrap_or_default();
    seconds.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_as_many_packets_as_asked_for_even_when_steps_are_no_whole_nanoseconds() {
        for rate in [1.0, 3.0, 999.5, 14_880_952.38, 1e8] {
            let mut pace = Pace::new(7, Some(rate));
            let end = 7 + 10_000_000_000;
            let all = pace.backlog(end);
            let error = crate::trial::number(all) - rate * 10.0;
            assert!(error.abs() <= 1.0 + rate * 1e-7, "{rate}: {all}");
            let mut made = 0;
            while made < 100_000 && pace.next(0) < end {
                pace.advance();
                made += 1;
            }
            assert_eq!(pace.backlog(end), all - made, "{rate}");
        }
    }

    #[test]
    fn without_a_rate_packets_are_due_now() {
        let mut pace = Pace::new(7, None);
        assert_eq!(pace.next(1000), 1000);
        pace.advance();
        assert_eq!((pace.next(2000), pace.backlog(1 << 40)), (2000, 0));
    }
}
