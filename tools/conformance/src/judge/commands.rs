//! placeholder while wiring
use crate::golden::Golden;
use crate::tally::{Failure, Ledger};
pub(super) fn play(_: &Golden, _: &mut Ledger) -> Result<(), Failure> { Ok(()) }
