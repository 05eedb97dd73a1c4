//! How long packets took: HDR histograms of fixed size, which nothing is allocated for later.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told apart, in nanoseconds; longer ones count as this.
const LONGEST: u64 = 600_000_000_000;
/// Decimal digits that are right.
const DIGITS: u8 = 3;

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Packets that were timed.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// The average.
    pub mean: f64,
    /// Half took no longer.
    pub p50: u64,
    /// Nine of ten took no longer.
    pub p90: u64,
    /// 99 of a hundred.
    pub p99: u64,
    /// 999 of a thousand.
    pub p99_9: u64,
    /// 9999 of ten thousand.
    pub p99_99: u64,
    /// The longest.
    pub max: u64,
}

/// Times of one direction: of the sample that is being taken, and of all before it.
#[derive(Clone, Debug)]
pub struct Latency {
    sample: Histogram<u64>,
    before: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { sample: histogram(), before: histogram() }
    }
}

impl Latency {
    /// Takes note of a time in nanoseconds.
    #[inline]
    pub fn note(&mut self, nanos: u64) {
        self.sample.saturating_record(nanos);
    }

    /// Ends the sample and says what was in it.
    pub fn end_sample(&mut self) -> Percentiles {
        let percentiles = percentiles(&self.sample);
        // Histograms of one shape always add up.
        let _same_shape = self.before.add(&self.sample);
        self.sample.reset();
        percentiles
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.sample.reset();
        self.before.reset();
    }

    /// All of it; ends the sample.
    pub fn all(&mut self) -> Percentiles {
        self.end_sample();
        percentiles(&self.before)
    }
}

fn histogram() -> Histogram<u64> {
    let Ok(histogram) = Histogram::new_with_bounds(1, LONGEST, DIGITS) else {
        unreachable!("1 to {LONGEST} with {DIGITS} digits are the bounds of a histogram");
    };
    histogram
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
    Percentiles {
        count: histogram.len(),
        min: histogram.min(),
        mean: histogram.mean(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        p99_99: at(0.9999),
        max: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within_a_thousandth(is: u64, should: u64) {
        assert!(is.abs_diff(should) <= should / 1000 + 1, "{is} should be {should}");
    }

    #[test]
    fn percentiles_of_known_times_are_right_to_a_thousandth() {
        let mut latency = Latency::default();
        (1..=100_000).for_each(|micros| latency.note(micros * 1000));
        let all = latency.all();
        assert_eq!(all.count, 100_000);
        for (is, micros) in [
            (all.min, 1),
            (all.p50, 50_000),
            (all.p90, 90_000),
            (all.p99, 99_000),
            (all.p99_9, 99_900),
            (all.p99_99, 99_990),
            (all.max, 100_000),
        ] {
            within_a_thousandth(is, micros * 1000);
        }
    }

    #[test]
    fn samples_tell_of_themselves_and_add_up() {
        let mut latency = Latency::default();
        latency.note(100);
        within_a_thousandth(latency.end_sample().max, 100);
        latency.note(5000);
        within_a_thousandth(latency.end_sample().min, 5000);
        assert_eq!(latency.end_sample(), Percentiles::default());
        let all = latency.all();
        assert_eq!(all.count, 2);
        within_a_thousandth(all.max, 5000);
        latency.note(u64::MAX);
        within_a_thousandth(latency.all().max, LONGEST);
        latency.forget();
        assert_eq!(latency.all(), Percentiles::default());
    }
}
