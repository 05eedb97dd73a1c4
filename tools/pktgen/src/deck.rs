//! What is next, drawn in advance: the generator turns a page instead of throwing dice.

use crate::scenario::{Choice, Scenario};
use fastrand::Rng;

/// Entries of a drawn deck at least; more when there are more flows.
const DRAWN_MIN: usize = 1 << 16;
/// Entries of the deck of sizes: a prime, so that no flow always meets the same size.
const SIZES: usize = 8191;

/// A deck of cards that is gone through again and again.
#[derive(Clone, Debug)]
pub struct Deck<T> {
    cards: Box<[T]>,
    at: usize,
}

impl<T: Copy + Default> Deck<T> {
    fn new(cards: Vec<T>) -> Self {
        Self { cards: cards.into_boxed_slice(), at: 0 }
    }

    /// The next card.
    #[inline]
    pub fn draw(&mut self) -> T {
        let card = self.cards.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        if self.at >= self.cards.len() {
            self.at = 0;
        }
        card
    }

    /// Starts from the first card.
    pub fn rewind(&mut self) {
        self.at = 0;
    }
}

/// The order of flows.
#[must_use]
pub fn flows(scenario: &Scenario) -> Deck<u32> {
    let count = scenario.flows;
    let mut random = Rng::with_seed(scenario.seed);
    let drawn = DRAWN_MIN.max(usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(2));
    Deck::new(match scenario.choice {
        Choice::Turn => (0..count).collect(),
        Choice::Uniform => (0..drawn).map(|_| random.u32(..count)).collect(),
        Choice::Zipf(exponent) => {
            let mut sum = 0.0;
            let up_to: Vec<f64> = (1..=count)
                .map(|rank| {
                    sum += f64::from(rank).powf(-exponent);
                    sum
                })
                .collect();
            let draw = |point: f64| up_to.partition_point(|up_to| *up_to <= point);
            let last = count.saturating_sub(1);
            (0..drawn)
                .map(|_| u32::try_from(draw(random.f64() * sum)).unwrap_or(last).min(last))
                .collect()
        }
    })
}

/// The order of sizes, as places in the list of them: in their shares as exactly as the deck's
/// length allows.
#[must_use]
pub fn sizes(weights: &[u32], seed: u64) -> Deck<usize> {
    let total: u32 = weights.iter().sum();
    let mut cards = Vec::with_capacity(SIZES);
    for (place, weight) in weights.iter().enumerate() {
        let share = f64::from(*weight) / f64::from(total.max(1));
        // Rounded up; the surplus is cut from the end of the last.
        let count = (0..SIZES).take_while(|taken| number(*taken) < share * number(SIZES)).count();
        cards.extend(std::iter::repeat_n(place, count));
    }
    cards.truncate(SIZES);
    Rng::with_seed(seed).shuffle(&mut cards);
    Deck::new(cards)
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::tests::scenario;

    fn counts(choice: Choice, flows: u32) -> Vec<usize> {
        let scenario = Scenario { flows, clients: flows, choice, ..scenario() };
        let mut deck = super::flows(&scenario);
        let mut counts = vec![0; usize::try_from(flows).unwrap()];
        for _ in 0..deck.cards.len() {
            counts[usize::try_from(deck.draw()).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn in_turn_every_flow_comes_once_a_round() {
        assert_eq!(counts(Choice::Turn, 1000), vec![1; 1000]);
    }

    #[test]
    fn uniform_flows_come_about_equally_often() {
        let counts = counts(Choice::Uniform, 64);
        assert!(counts.iter().all(|count| (850..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn by_zipfs_law_the_first_flow_comes_twice_as_often_as_the_second() {
        let counts = counts(Choice::Zipf(1.0), 1000);
        let times = |a: usize, b: usize| number(counts[a]) / number(counts[b]);
        assert!((1.9..2.1).contains(&times(0, 1)), "{:?}", &counts[..8]);
        assert!((3.6..4.4).contains(&times(0, 3)), "{:?}", &counts[..8]);
    }

    #[test]
    fn sizes_come_in_their_shares() {
        let mut deck = sizes(&[7, 4, 1], 3);
        let mut counts = [0_usize; 3];
        (0..SIZES).for_each(|_| counts[deck.draw()] += 1);
        assert!(counts[0].abs_diff(SIZES * 7 / 12) <= 2, "{counts:?}");
        assert!(counts[1].abs_diff(SIZES * 4 / 12) <= 2, "{counts:?}");
    }
}
