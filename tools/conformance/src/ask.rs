//! The kernel asked anew: seeded cases, played to Debian's own kernel in an emulator and to rvs.
//!
//! ```text
//!  author: seed ─► case, a recording without answers     (rvs plays along, so that it makes sense)
//!                    │
//!  kernel: Debian's kernel in qemu, oracle/ask.py plays many cases a boot ─► the same with answers
//!                    │
//!  judge::recording ─┴─► equal, or the first difference ─► shrink: the smallest case that still differs
//! ```
//!
//! The emulator's clock counts instructions and jumps over idle time: a sleep of ten minutes costs
//! nothing, and an answer does not depend on how busy this machine is.

mod author;
mod kernel;
mod kinds;
mod packets;
mod shrink;
mod words;

use crate::golden::Golden;
use crate::judge;
use crate::tally::{Difference, Failure, Verdict};
use kernel::Kernel;
pub use kinds::Kind;
use std::fs;
use std::path::{Path, PathBuf};

/// Cases asked in one boot of the machine.
const CASES_A_BOOT: usize = 40;

/// What to ask.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kinds of cases.
    pub kinds: Vec<Kind>,
    /// How many of each.
    pub cases: u32,
    /// The first one's seed; the others count up from it.
    pub seed: u64,
    /// Where all of them are kept with the kernel's answers.
    pub keep: Option<PathBuf>,
}

/// A case that rvs plays otherwise than the kernel.
#[derive(Clone, Debug)]
pub struct Found {
    /// The case with the kernel's answers, made as small as it gets.
    pub case: Golden,
    /// Where they part.
    pub difference: Difference,
}

/// How one kind came out.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases that both played alike.
    pub equal: usize,
    /// Cases that differ.
    pub differ: usize,
    /// Cases that want what rvs does not have, and the first one's reason.
    pub beyond: usize,
    /// That reason.
    pub reason: Option<String>,
    /// Comparisons made.
    pub compared: usize,
}

/// How all kinds came out.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// In the order of the plan.
    pub tallies: Vec<(Kind, Tally)>,
    /// The first case that differs, if one does.
    pub found: Option<Found>,
}

/// Asks all that `plan` says, with the emulator's files in `folder`; `told` hears of progress.
///
/// # Errors
///
/// The machine cannot be made or does not answer.
pub fn ask(plan: &Plan, folder: &Path, mut told: impl FnMut(&str)) -> Result<Answers, Failure> {
    let kernel = Kernel::prepare(folder, &mut told)?;
    let mut tallies = Vec::new();
    let mut first = None;
    for kind in &plan.kinds {
        let mut tally = Tally::default();
        let mut cases = Vec::new();
        for number in 0..plan.cases {
            let seed = plan.seed.wrapping_add(number.into());
            match kind.write(seed)? {
                Ok(case) => cases.push(case),
                Err(reason) => {
                    tally.beyond += 1;
                    tally.reason.get_or_insert(reason.0);
                }
            }
        }
        let batches: Vec<&[Golden]> = cases.chunks(CASES_A_BOOT).collect();
        for (answers, done) in kernel.ask_all(&batches)?.into_iter().zip(1..) {
            for answer in answers {
                if let Some(folder) = &plan.keep {
                    keep(folder, &answer)?;
                }
                let difference = judged(&answer, &mut tally)?;
                if let Some(difference) = difference {
                    told(&format!("{}: {difference}", answer.id));
                    first.get_or_insert(answer);
                }
            }
            told(&format!("{kind}: {done} of {} boots judged", batches.len()));
        }
        tallies.push((*kind, tally));
    }
    let found = match first {
        Some(case) => {
            told(&format!("{}: looking for the smallest case that differs", case.id));
            Some(shrink::smallest(&kernel, case)?)
        }
        None => None,
    };
    Ok(Answers { tallies, found })
}

/// Writes an answered case.
fn keep(folder: &Path, case: &Golden) -> Result<(), Failure> {
    let path = folder.join(&case.id).with_extension("json");
    let failed =
        |error: &dyn core::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let text = serde_json::to_string(case).map_err(|error| failed(&error))?;
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(|error| failed(&error))
}

/// Plays the answered `case` to rvs and enters the result.
fn judged(case: &Golden, tally: &mut Tally) -> Result<Option<Difference>, Failure> {
    let ledger = judge::recording(case)?;
    tally.compared += ledger.total().compared;
    match ledger.verdict() {
        Verdict::Passed if ledger.left_out_total() == 0 => tally.equal += 1,
        Verdict::Failed => tally.differ += 1,
        Verdict::Passed | Verdict::NotCovered => {
            tally.beyond += 1;
            let reason = ledger.left_out().next().map(|(reason, _)| reason.to_owned());
            tally.reason = tally.reason.take().or(reason);
        }
    }
    Ok(ledger.first().cloned())
}
