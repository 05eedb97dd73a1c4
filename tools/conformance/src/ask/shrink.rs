//! The smallest case that still differs: events are left out while the difference stays.

use super::kernel::Kernel;
use super::{Found, Tally, judged};
use crate::golden::Golden;
use crate::tally::{Difference, Failure};

/// Candidates asked in one boot.
const CANDIDATES: usize = 24;
/// Boots spent at most.
const ROUNDS: usize = 12;

/// Makes `case`, which differs, as small as it gets.
pub(super) fn smallest(kernel: &Kernel, case: Golden) -> Result<Found, Failure> {
    let Some(mut found) = differing(case)? else {
        return Err(Failure::new("a case differs only sometimes"));
    };
    let mut piece = found.case.events.len().div_ceil(2);
    for _ in 0..ROUNDS {
        let candidates = without(&found.case, piece);
        let Some(answers) = kernel.ask_all(&[candidates.as_slice()])?.pop() else { break };
        let mut better: Option<Found> = None;
        for answer in answers {
            if let Some(next) = differing(answer)?
                && better.as_ref().is_none_or(|it| next.case.events.len() < it.case.events.len())
            {
                better = Some(next);
            }
        }
        match better {
            Some(next) => {
                found = next;
                piece = piece.min(found.case.events.len().div_ceil(2));
            }
            None if piece <= 1 => break,
            None => piece = piece.div_ceil(2),
        }
    }
    Ok(found)
}

/// The case up to where it differs.
fn differing(mut case: Golden) -> Result<Option<Found>, Failure> {
    let Some(difference) = judged(&case, &mut Tally::default())? else { return Ok(None) };
    let Difference { place, .. } = &difference;
    if let Some(event) = place.event {
        case.events.truncate(event + 1);
    }
    Ok(Some(Found { case, difference }))
}

/// The case without each run of `piece` events, but for the last event.
fn without(case: &Golden, piece: usize) -> Vec<Golden> {
    let last = case.events.len().saturating_sub(1);
    let starts: Vec<usize> = (0..last).step_by(piece.max(1)).collect();
    // When there are too many, those in the middle of a run of starts speak for it.
    let every = starts.len().div_ceil(CANDIDATES).max(1);
    let candidate = |start: usize| {
        let mut smaller = case.clone();
        smaller.events.drain(start..(start + piece).min(last));
        smaller
    };
    starts.into_iter().step_by(every).map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_candidate_lacks_one_run_and_keeps_the_last_event() {
        let events: Vec<_> = (0..7).map(|number| json!(number)).collect();
        let case: Golden =
            serde_json::from_value(json!({ "id": "x", "category": "behaviour", "events": events }))
                .unwrap();
        let numbers: Vec<Vec<u64>> = without(&case, 3)
            .into_iter()
            .map(|it| it.events.iter().filter_map(serde_json::Value::as_u64).collect())
            .collect();
        assert_eq!(numbers, [vec![3, 4, 5, 6], vec![0, 1, 2, 6]]);
        assert_eq!(without(&case, 1).len(), 6);
    }
}
