//! Seeds: each is a director of one to eight workers, clients, servers, wires that lose, repeat and
//! reorder, and an operator who changes his mind. What must hold is asserted after every breath.
//!
//! `RVS_SEEDS=10000` runs so many; `RVS_SEED=17` runs that one, which is what a failure prints.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod rig;
#[allow(dead_code, reason = "some of it is for other tests")]
mod sim;

use sim::world::{Outcome, World};

/// Says which seed it was when a run fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was RVS_SEED={}", self.0);
        }
    }
}

fn run(seed: u64) -> Outcome {
    let _name = Named(seed);
    World::new(seed).run()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_is_lost_moved_or_left_over_whatever_the_seed() {
    if let Some(seed) = number("RVS_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let seeds = number("RVS_SEEDS").unwrap_or(200);
    let mut sum = Outcome::default();
    for seed in 0..seeds {
        let outcome = run(seed);
        sum.breaths += outcome.breaths;
        sum.frames += outcome.frames;
        sum.handed += outcome.handed;
        sum.evicted += outcome.evicted;
        sum.refused += outcome.refused;
        sum.completed += outcome.completed;
        sum.given_up += outcome.given_up;
    }
    println!("{seeds} seeds: {sum:?}");
    // The runs did what they are for.
    assert!(sum.completed > 100 * usize::try_from(seeds).unwrap() / 10, "{sum:?}");
    assert!(seeds < 20 || sum.handed > 0 && sum.evicted > 0 && sum.refused > 0, "{sum:?}");
}

#[test]
fn a_seed_decides_everything() {
    let outcomes = [run(3), run(3)].map(|outcome| format!("{outcome:?}"));
    assert_eq!(outcomes[0], outcomes[1]);
}
