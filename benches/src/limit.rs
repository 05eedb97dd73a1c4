//! What a packet has to cost at so many flows: what it costs where all is in the cache, and the lines of
//! memory that it needs times what one costs when a burst's are all in flight. It is less only where the
//! work of one packet and the lines of another overlap.
//!
//! | | lines, each spread over all flows |
//! |---|---|
//! | a packet of a connection | one of the index, and the connection's (two in IPv6) |
//! | one of each direction in turn | the same, but that the two have one connection |
//! | a connection that opens | one of the index for each key, and the connection's |
//! | and one that expires | the same again, but that what opens takes the place of what expired last |

use crate::case::{Family, Link, Mode};
use crate::measure::Row;
use crate::plot::short;
use crate::probe::latency;
use crate::report;
use rvs_model::ForwardMethod;
use std::collections::HashMap;
use std::fmt::Write as _;

/// Of the index, for a key.
const OCTETS_OF_KEY: u64 = 13;
/// Octets of a line.
const LINE: u64 = 64;
/// Flows whose connections all caches hold.
const FEW: u32 = 1 << 10;

/// What lines cost that many are in flight of, nanoseconds, by the octets that they are spread over.
#[derive(Debug, Default)]
pub struct Lines(HashMap<u64, f64>);

impl Lines {
    /// The connections of so many flows.
    fn conn(&mut self, family: Family, flows: u32) -> f64 {
        let lines: u32 = if family == Family::V6 { 2 } else { 1 };
        f64::from(lines) * self.one(LINE * u64::from(lines) * u64::from(flows))
    }

    /// All keys of one of them: its connection has two where replies are masqueraded.
    fn keys(&mut self, mode: Mode, flows: u32) -> (f64, f64) {
        let keys: u32 = if mode.method() == ForwardMethod::Masquerade { 2 } else { 1 };
        let one = self.one(OCTETS_OF_KEY * u64::from(keys) * u64::from(flows));
        (one, f64::from(keys) * one)
    }

    fn one(&mut self, octets: u64) -> f64 {
        *self.0.entry(octets).or_insert_with(|| latency(octets, true).overlapped_ns)
    }

    /// A connection that expires among so many.
    pub fn expiry(&mut self, mode: Mode, flows: u32) -> f64 {
        self.conn(Family::V4, flows) + self.keys(mode, flows).1
    }

    /// All of a packet.
    fn packet(&mut self, mode: Mode, family: Family, flows: u32) -> f64 {
        let (key, keys) = self.keys(mode, flows);
        let conn = self.conn(family, flows);
        match mode {
            Mode::NatBoth => conn / 2.0 + key,
            _ if mode.is_established() => conn + key,
            _ if mode.expires() => conn + 2.0 * keys,
            _ => conn + keys,
        }
    }
}

/// Each row beside its target and its limit, as a Markdown table: nothing if there are none.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut lines = Lines::default();
    let mut text = String::from(
        "| mode | | flows | net ns | target | in the cache | its lines | both | net / both |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let usual = || rows.iter().filter(|row| row.link == Link::Memory && row.is_usual());
    let mut is_empty = true;
    for row in usual().filter(|row| row.flows > FEW) {
        let few = (row.mode, row.family, FEW);
        let few = usual().find(|it| (it.mode, it.family, it.flows) == few);
        let Some(few) = few else { continue };
        let more = lines.packet(row.mode, row.family, row.flows);
        let both = few.net_ns + more;
        let target = report::target(row).map_or(String::new(), |ns| format!("{ns:.0}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} | {target} | {:.1} | {more:.1} | {both:.1} | {:.2} |",
            row.mode,
            row.family,
            short(f64::from(row.flows)),
            row.net_ns,
            few.net_ns,
            row.net_ns / both,
        );
        is_empty = false;
    }
    if is_empty { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_needs_a_line_for_each_key_and_what_expires_as_many_again() {
        let mut lines = Lines::default();
        let flows = 1 << 10;
        for octets in [13, 26, 64, 128] {
            lines.0.insert(octets * u64::from(flows), f64::from(u32::try_from(octets).unwrap()));
        }
        let mut of = |mode, family| lines.packet(mode, family, flows);
        let near = |one: f64, other: f64| assert!((one - other).abs() < 1e-9, "{one} {other}");
        near(of(Mode::Dr, Family::V4), 64.0 + 13.0);
        near(of(Mode::Tun, Family::V6), 2.0 * 128.0 + 13.0);
        near(of(Mode::NatBoth, Family::V4), 32.0 + 26.0);
        near(of(Mode::SynDr, Family::V4), 64.0 + 13.0);
        near(of(Mode::SynNat, Family::V4), 64.0 + 2.0 * 26.0);
        near(of(Mode::SynExpireNat, Family::V4), 64.0 + 4.0 * 26.0);
        near(lines.expiry(Mode::SynExpireNat, flows), 64.0 + 2.0 * 26.0);
    }

    #[test]
    fn without_a_row_of_few_flows_there_is_no_table() {
        assert_eq!(table(&[]), "");
    }
}
