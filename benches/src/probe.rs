//! What the machine's memory can do, by the kinds of access that a director makes.
//!
//! ```text
//!  dependent    load ─► load ─► load          each line names the next: what waiting costs
//!  overlapped   64 × prefetch, 64 × load      a burst's way: what it costs to have asked before
//!  bandwidth    every octet once, in order
//! ```
//!
//! The least that a packet can cost at so many flows is the cost with everything in the cache, plus
//! the lines it needs times the overlapped latency of the set that they are spread over.

use crate::flow::Shuffle;
use crate::measure::{median, processor_time};
use std::hint::black_box;
use std::time::Instant;

/// Lines asked for together.
const TOGETHER: usize = 64;

/// Lines visited for one figure, several times over.
const VISITS: u32 = 1 << 18;

/// What a set of lines costs.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Octets of the set.
    pub octets: u64,
    /// Whether it was asked for in huge pages.
    pub huge_pages: bool,
    /// Nanoseconds until a load that depends on the one before it.
    pub dependent_ns: f64,
    /// Nanoseconds a line when 64 are in flight.
    pub overlapped_ns: f64,
}

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line {
    next: u32,
    rest: [u32; 15],
}

/// Memory of so many octets, filled once, and the seconds that took: the least that a table of that size
/// takes to begin. It is more where the kernel, or a virtual machine's host, has to find the pages first.
#[must_use]
pub fn fill(octets: usize) -> (impl Sized, f64) {
    let begun = Instant::now();
    let line = Line { next: 1, rest: [1; 15] };
    let filled = black_box(rvs_cache::vec_in_huge_pages(&line, octets / size_of::<Line>(), true));
    (filled, begun.elapsed().as_secs_f64())
}

/// Lines in an order in which neighbours have nothing to do with each other.
pub struct Set {
    lines: Vec<Line>,
    order: Shuffle,
    /// How many there are, less one: a power of two is.
    mask: u32,
    /// Where the next load is.
    from: u32,
}

impl Set {
    /// A set of `octets`, rounded down to a power of two.
    #[must_use]
    pub fn new(octets: u64, huge_pages: bool) -> Self {
        let count = u32::try_from(octets / 64).unwrap_or(u32::MAX);
        let count = 1 << count.max(64).ilog2();
        let order = Shuffle::new(count);
        let len = usize::try_from(count).unwrap_or_default();
        let mut lines = rvs_cache::vec_in_huge_pages(&Line::default(), len, huge_pages);
        for place in 0..count {
            if let Some(line) = at(&mut lines, order.at(place)) {
                line.next = order.at((place + 1) & (count - 1));
                line.rest = [place; 15];
            }
        }
        Self { lines, order, mask: count - 1, from: 0 }
    }

    /// Loads, each of which waits for the one before.
    pub fn one_by_one(&mut self, visits: u32) {
        for _ in 0..visits {
            self.from = at(&mut self.lines, self.from).map_or(0, |line| line.next);
        }
        black_box(self.from);
    }

    /// Loads, 64 of which are asked for together.
    pub fn together(&mut self, visits: u32) {
        let mut sum = 0u32;
        for _ in 0..visits / 64 {
            let numbers: [u32; TOGETHER] = core::array::from_fn(|n| {
                self.order.at(self.from + u32::try_from(n).unwrap_or_default())
            });
            for number in numbers {
                if let Some(line) = at(&mut self.lines, number) {
                    rvs_cache::prefetch(line);
                }
            }
            for number in numbers {
                sum = sum.wrapping_add(at(&mut self.lines, number).map_or(0, |line| line.next));
            }
            self.from = self.from.wrapping_add(64) & self.mask;
        }
        black_box(sum);
    }
}

/// As much as `steps` steps of arithmetic in registers take.
pub fn arithmetic(steps: u32) {
    let mut number = 1u64;
    for step in 0..steps {
        number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ u64::from(step);
    }
    black_box(number);
}

/// Measures a set of `octets`, rounded down to a power of two.
#[must_use]
pub fn latency(octets: u64, huge_pages: bool) -> Latency {
    let mut set = Set::new(octets, huge_pages);
    let visits = VISITS.min(set.mask.saturating_mul(4).saturating_add(4));
    let dependent_ns = timed(visits, || set.one_by_one(visits));
    set.from = 0;
    let overlapped_ns = timed(visits, || set.together(visits));
    let octets = u64::from(set.mask) * 64 + 64;
    Latency { octets, huge_pages, dependent_ns, overlapped_ns }
}

/// Octets a second that are read in order from a set far larger than caches.
#[must_use]
pub fn bandwidth() -> f64 {
    const OCTETS: u32 = 1 << 30;
    let words = usize::try_from(OCTETS / 8).unwrap_or_default();
    let set = rvs_cache::vec_in_huge_pages(&1u64, words, true);
    let passes = (0..3).map(|_| {
        let begun = processor_time();
        black_box(set.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
        f64::from(OCTETS) / (processor_time() - begun)
    });
    median(passes.collect())
}

fn at(set: &mut [Line], number: u32) -> Option<&mut Line> {
    set.get_mut(usize::try_from(number).ok()?)
}

/// Nanoseconds for each of `visits`: the lowest of seven passes, the first of which warms up.
fn timed(visits: u32, mut pass: impl FnMut()) -> f64 {
    let passes = (0..7).map(|_| {
        let begun = processor_time();
        pass();
        (processor_time() - begun) * 1e9 / f64::from(visits)
    });
    passes.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_costs_more_than_asking_before() {
        let small = latency(1 << 16, false);
        assert_eq!(small.octets, 1 << 16);
        assert!(small.dependent_ns > 0.0 && small.overlapped_ns > 0.0);
    }
}
