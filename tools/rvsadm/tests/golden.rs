//! Every recorded event of the kernel's ipvsadm 1.31 against `rvsadm` over a table in this process:
//! standard output, standard error, exit status and the table afterwards, byte for byte.
//!
//! The judge is `rvs-conformance`'s, which says how a table is given the recorded traffic. Here are
//! the recordings that must be there, and how many of their events must be compared.
#![allow(clippy::unwrap_used, reason = "a test that fails shall stop")]

use rvs_conformance::golden::Golden;
use rvs_conformance::judge;
use rvs_conformance::tally::{Aspect, Ledger, Tally};
use std::path::Path;

fn judged(name: &str) -> Ledger {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/goldens/cli");
    let golden = Golden::read(&folder.join(format!("{name}.json"))).unwrap().unwrap();
    judge::recording(&golden).unwrap()
}

/// All equal, so many compared, and none left out.
fn hold(name: &str, compared: usize) {
    let ledger = judged(name);
    let first = ledger.first().map(ToString::to_string);
    assert!(first.is_none(), "{name}: {}", first.unwrap_or_default());
    let commands = ledger.tallies().find(|(aspect, _)| *aspect == Aspect::Commands);
    let (_, tally) = commands.unwrap();
    assert_eq!(tally, Tally { compared, equal: compared }, "{name}");
    // The unmodified ipvsadm is not for tests without root.
    let left_out = ledger.left_out().find(|(reason, _)| !reason.starts_with("unmodified"));
    assert_eq!(left_out, None, "{name}");
}

#[test]
fn listings_of_an_empty_table_are_ipvsadms() {
    hold("cli-empty", 28);
}

/// Each event is compared twice: what was said, and what is in the table afterwards.
#[test]
fn errors_and_what_they_leave_behind_are_ipvsadms() {
    hold("cli-errors-open", 2 * 98);
}

#[test]
fn listings_of_a_table_without_traffic_are_ipvsadms() {
    hold("cli-list-A-idle", 48);
}

#[test]
fn listings_of_a_table_with_traffic_are_ipvsadms() {
    hold("cli-list-A-traffic", 48);
}

#[test]
fn changes_in_sequence_are_ipvsadms() {
    hold("cli-ops-A", 34);
}
