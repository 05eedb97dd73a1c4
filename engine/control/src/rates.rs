//! The kernel's rate estimator (Linux 6.1 `ip_vs_est.c`): every two seconds the average moves a
//! quarter of the way towards what was counted since.
//!
//! DIFFERS from Linux in `--stats`, which is live here and up to two seconds late there.

use rvs_api::{Rates, Totals};

/// Seconds between two steps.
pub const STEP_SECONDS: u64 = 2;

/// Fixed point of connections and packets: a step's count times 2^9 is the rate per second times
/// 2^10, since a step is two seconds.
const COUNT_BITS: u32 = 10;

/// Fixed point of octets.
const OCTET_BITS: u32 = 5;

/// The averages of one service or destination.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    last: Totals,
    /// In the order of [`Totals::columns`], in fixed point.
    averages: [u64; 5],
}

impl Estimator {
    /// Begins again at zero, counting from `now`.
    #[must_use]
    pub fn starting(now: Totals) -> Self {
        Self { last: now, averages: [0; 5] }
    }

    /// One step: `now` is what was counted in all.
    pub fn step(&mut self, now: Totals) {
        let counted = now.since(self.last).columns();
        self.last = now;
        for ((average, counted), bits) in self.averages.iter_mut().zip(counted).zip(BITS) {
            let rate = counted << bits.saturating_sub(1);
            // Linux 6.1 ip_vs_est.c estimation_timer(): the difference is signed, and its shift
            // rounds down.
            let difference = rate.wrapping_sub(*average).cast_signed() >> 2;
            *average = average.wrapping_add_signed(difference);
        }
    }

    /// What `--rate` shows: rounded up.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let mut rates = self.averages;
        for (rate, bits) in rates.iter_mut().zip(BITS) {
            // Linux 6.1 ip_vs_est.c ip_vs_read_estimator(): + 0x1FF >> 10, + 0xF >> 5.
            *rate = rate.wrapping_add((1 << bits.saturating_sub(1)) - 1) >> bits;
        }
        let [conns, packets_in, packets_out, octets_in, octets_out] = rates;
        Rates { conns, packets_in, packets_out, octets_in, octets_out }
    }
}

const BITS: [u32; 5] = [COUNT_BITS, COUNT_BITS, COUNT_BITS, OCTET_BITS, OCTET_BITS];

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(n: u64) -> Totals {
        Totals { conns: n, packets_in: n, packets_out: 0, octets_in: n * 100, octets_out: 0 }
    }

    #[test]
    fn a_steady_rate_is_approached_a_quarter_at_a_time() {
        let mut estimator = Estimator::starting(totals(1000));
        estimator.step(totals(1200));
        assert_eq!(estimator.rates().conns, 25);
        estimator.step(totals(1400));
        assert_eq!(estimator.rates().conns, 44);
        for step in 3..60 {
            estimator.step(totals(1000 + 200 * step));
        }
        assert_eq!(estimator.rates().conns, 100);
        assert_eq!(estimator.rates().octets_in, 10_000);
        assert_eq!(estimator.rates().packets_out, 0);
    }

    #[test]
    fn a_rate_decays_to_zero_when_nothing_happens() {
        let mut estimator = Estimator::default();
        estimator.step(totals(100_000));
        for _ in 0..100 {
            estimator.step(totals(100_000));
        }
        assert_eq!(estimator.rates(), Rates::default());
    }
}
