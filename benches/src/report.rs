//! Rows and figures as people read them.

use crate::case::{Family, Link, Mode};
use crate::measure::Row;
use crate::plot::{Plot, Series, short};
use crate::probe::Latency;
use std::fmt::Write as _;

/// A figure beside the rows.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// What came out, with its unit.
    pub value: String,
    /// What it should be.
    pub target: &'static str,
}

/// The most that a packet may cost above the floor, nanoseconds: of IPv4, where all else is usual.
#[must_use]
pub fn target(row: &Row) -> Option<f64> {
    let by_flows: [Option<f64>; 4] = match row.mode {
        Mode::Dr => [18.0, 22.0, 34.0, 55.0].map(Some),
        Mode::Nat | Mode::Tun => [21.0, 26.0, 38.0, 60.0].map(Some),
        Mode::NatBoth => [21.0, 26.0, 48.0, 80.0].map(Some),
        Mode::SynDr => [None, None, Some(75.0), Some(85.0)],
        Mode::SynNat => [None, None, Some(105.0), Some(125.0)],
        Mode::SynExpireDr => [None, None, Some(105.0), Some(135.0)],
        Mode::SynExpireNat => [None, None, Some(150.0), Some(210.0)],
    };
    let at = [1 << 10, 1 << 16, 1 << 20, 1 << 24].iter().position(|it| *it == row.flows)?;
    by_flows.get(at).copied().flatten().filter(|_| row.family == Family::V4 && row.is_usual())
}

/// The columns of rows, and how wide they are on a terminal.
const COLUMNS: [(&str, usize); 16] = [
    ("link", 8),
    ("mode", 14),
    ("", 2),
    ("flows", 5),
    ("burst", 5),
    ("pages", 5),
    ("ns/pkt", 8),
    ("floor", 6),
    ("net", 7),
    ("best", 7),
    ("instr", 7),
    ("M/s", 7),
    ("p50 us", 7),
    ("p99 us", 7),
    ("B/conn", 6),
    ("rounds", 7),
];
/// Those that are words, those that say what was measured, and what a packet costs.
const WORDS: usize = 2;
const CASE: usize = 6;
const NET: usize = 8;

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let count = row.instructions_per_packet.map_or(String::new(), |count| format!("{count:.0}"));
    [
        row.link.to_string(),
        row.mode.to_string(),
        row.family.to_string(),
        short(f64::from(row.flows)),
        row.burst.to_string(),
        if row.hugepages { "huge" } else { "small" }.to_owned(),
        format!("{:.1}", row.ns_per_packet),
        format!("{:.1}", row.floor_ns),
        format!("{:.1}", row.net_ns),
        format!("{:.1}", row.best_net_ns),
        count,
        format!("{:.2}", row.frames_per_s / 1e6),
        format!("{:.1}", microseconds(row.breath_p50_ns)),
        format!("{:.1}", microseconds(row.breath_p99_ns)),
        row.bytes_per_connection.to_string(),
        format!("{}/{}", row.runs, row.rounds),
    ]
}

/// The rows as a Markdown table, with what IPv4 should cost.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut head = COLUMNS.map(|(name, _)| name).to_vec();
    let mut rule = COLUMNS.map(|_| "---:").to_vec();
    head.insert(NET + 1, "target");
    rule.insert(NET + 1, "---:");
    for place in rule.iter_mut().take(WORDS + 1) {
        *place = "---";
    }
    let mut text = format!("| {} |\n|{}|\n", head.join(" | "), rule.join("|"));
    for row in rows {
        let mut cells = cells(row).to_vec();
        if let Some(net) = cells.get_mut(NET) {
            *net = format!("**{net}**");
        }
        cells.insert(NET + 1, target(row).map_or(String::new(), |ns| format!("{ns:.0}")));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn microseconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64() * 1e6
}

/// One line while it runs.
#[must_use]
pub fn line(row: &Row) -> String {
    padded(&cells(row))
}

/// Above those lines.
#[must_use]
pub fn headings() -> String {
    padded(&COLUMNS.map(|(name, _)| name.to_owned()))
}

fn padded(cells: &[String]) -> String {
    let cells = cells.iter().zip(COLUMNS).enumerate().map(|(place, (cell, (_, width)))| {
        if place < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    cells.collect::<Vec<_>>().join(" ")
}

/// What the machine's memory can do.
#[must_use]
pub fn probe(latencies: &[Latency], octets_per_s: f64) -> String {
    let mut text = String::from(
        "| set | pages | dependent load, ns | 64 in flight, ns a line |\n|---:|---|---:|---:|\n",
    );
    for it in latencies {
        let _ = writeln!(
            text,
            "| {} MiB | {} | {:.1} | {:.1} |",
            it.octets >> 20,
            if it.huge_pages { "huge" } else { "usual" },
            it.dependent_ns,
            it.overlapped_ns
        );
    }
    let _ = writeln!(text, "\nRead in order: {:.1} GB/s.", octets_per_s / 1e9);
    text
}

/// The figures as a Markdown table.
#[must_use]
pub fn figures(figures: &[Figure]) -> String {
    let mut text = String::from("| what | measured | target |\n|---|---:|---|\n");
    for Figure { what, value, target } in figures {
        let _ = writeln!(text, "| {what} | {value} | {target} |");
    }
    text
}

/// Each row's figures divided by those of the same case before.
#[must_use]
pub fn compare(rows: &[Row], before: &[Row]) -> String {
    let case = COLUMNS.map(|(name, _)| name.to_owned());
    let case = padded(case.get(..CASE).unwrap_or_default());
    let mut text =
        format!("{case} {:>9} {:>9} {:>7} {:>7}\n", "net then", "net now", "ratio", "instr");
    for row in rows {
        let Some(old) = before.iter().find(|old| is_same_case(old, row)) else { continue };
        let counts = row.instructions_per_packet.zip(old.instructions_per_packet);
        let case = padded(cells(row).get(..CASE).unwrap_or_default());
        let count = counts.map_or(String::new(), |(now, then)| format!("{:.2}", now / then));
        let (then, now) = (old.net_ns, row.net_ns);
        let _ = writeln!(text, "{case} {then:>9.1} {now:>9.1} {:>7.2} {count:>7}", now / then);
    }
    text
}

/// Where a row stands among others: by link, mode and family, in the order that these are named in.
#[must_use]
pub fn place(row: &Row) -> impl Ord + use<> {
    let link = Link::ALL.iter().position(|link| *link == row.link);
    let mode = Mode::ALL.iter().position(|mode| *mode == row.mode);
    let family = Family::ALL.iter().position(|family| *family == row.family);
    (link, mode, family, row.flows, !row.hugepages, row.burst)
}

/// Whether two rows are of the same case.
#[must_use]
pub fn is_same_case(one: &Row, other: &Row) -> bool {
    let case = |row: &Row| (row.link, row.mode, row.family, row.flows, row.burst, row.hugepages);
    case(one) == case(other)
}

/// Cost against flows, against connections held, and against burst, with the names of their files;
/// of the first link, which the director's own cost does not depend on.
#[must_use]
pub fn plots(rows: &[Row]) -> Vec<(&'static str, String)> {
    let link = rows.first().map(|row| row.link);
    let ns = "ns per packet above the floor".to_owned();
    let of = |keep: &dyn Fn(&Row) -> bool, x: &dyn Fn(&Row) -> f64| -> Vec<Series> {
        let mut series = Vec::new();
        for family in Family::ALL {
            for mode in Mode::ALL {
                let rows = rows.iter().filter(|row| Some(row.link) == link);
                let rows = rows.filter(|row| row.mode == mode && row.family == family);
                let mut points: Vec<(f64, f64)> =
                    rows.filter(|row| keep(row)).map(|row| (x(row), row.net_ns)).collect();
                points.sort_by(|one, other| one.0.total_cmp(&other.0));
                if points.len() > 1 {
                    series.push(Series { name: format!("{mode} {family}"), points });
                }
            }
        }
        series
    };
    let flows = |row: &Row| f64::from(row.flows);
    let burst = |row: &Row| f64::from(u32::try_from(row.burst).unwrap_or_default());
    let plot = |title: &str, x: &str, series| {
        Plot { title: title.to_owned(), x: x.to_owned(), y: ns.clone(), series }.svg()
    };
    vec![
        (
            "flows.svg",
            plot(
                "Packets of established connections",
                "flows",
                of(&|row| row.is_usual() && row.mode.is_established(), &flows),
            ),
        ),
        (
            "held.svg",
            plot(
                "New connections",
                "connections held",
                of(&|row| row.is_usual() && !row.mode.is_established(), &flows),
            ),
        ),
        (
            "burst.svg",
            plot(
                "Cost against burst, 1M flows",
                "frames per burst",
                of(
                    &|row| row.hugepages && row.flows == 1 << 20 && row.mode.is_established(),
                    &burst,
                ),
            ),
        ),
    ]
}
