//! Every recorded event of the kernel's ipvsadm 1.31 against `rvsadm` over a table in this process:
//! standard output, standard error, exit status and the table afterwards, byte for byte.
//!
//! The table accepts everything that the kernel accepts, so that grammar and formats are compared
//! beyond what this version's engine can forward. Where there was traffic, the loads and counters of
//! the recording's own listings are what the table reads; everything else follows from them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails shall stop")]

mod common;

use common::{LIMITS, RecordedNames, Said, Table, service_of};
use rvs_api::{ConnEntry, ConnState, Totals};
use rvs_control::state::State;
use rvs_model::{Load, Protocol};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    setup: Vec<String>,
    #[serde(default)]
    hosts: String,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    args: String,
    rc: i32,
    stdout: String,
    stderr: String,
    #[serde(default)]
    stdin: String,
    after: Option<Vec<String>>,
}

impl Event {
    fn said(&self) -> Said {
        Said { status: self.rc, out: self.stdout.clone(), err: self.stderr.clone() }
    }
}

fn read(name: &str) -> Golden {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/goldens/cli");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn everything() -> Table {
    Table::new(State::new(LIMITS).accept_everything())
}

fn set_up(golden: &Golden) -> Table {
    let mut table = everything();
    let lines = golden.setup.join("\n");
    let said = table.say("-R", &lines, &RecordedNames::default());
    assert_eq!(said, Said { status: 0, out: String::new(), err: String::new() });
    table
}

/// Compares and counts; stops with the first difference.
#[derive(Default)]
struct Tally {
    equal: usize,
    not_covered: usize,
}

impl Tally {
    fn compare(&mut self, place: &str, expected: &Said, actual: &Said) {
        assert_eq!(expected.out, actual.out, "{place}: stdout");
        assert_eq!(expected.err, actual.err, "{place}: stderr");
        assert_eq!(expected.status, actual.status, "{place}: exit status");
        self.equal += 1;
    }

    fn report(&self, name: &str, events: usize) {
        let Self { equal, not_covered } = self;
        println!("{name}: {equal} equal, {not_covered} not covered, of {events}");
        assert_eq!(equal + not_covered, events);
    }
}

#[test]
fn listings_of_an_empty_table_are_ipvsadms() {
    let golden = read("cli-empty");
    let names = RecordedNames::new(&golden.hosts);
    let mut tally = Tally::default();
    // This one needs nothing that the engine lacks.
    let mut table = Table::new(State::new(LIMITS));
    for event in &golden.events {
        let actual = table.say(&event.args, &event.stdin, &names);
        tally.compare(&event.args, &event.said(), &actual);
    }
    tally.report("cli-empty", golden.events.len());
}

#[test]
fn errors_and_what_they_leave_behind_are_ipvsadms() {
    let golden = read("cli-errors-open");
    let names = RecordedNames::new(&golden.hosts);
    let mut tally = Tally::default();
    for event in &golden.events {
        let mut table = set_up(&golden);
        let actual = table.say(&event.args, &event.stdin, &names);
        let place = format!("{} {:?}", event.args, event.stdin);
        tally.compare(&place, &event.said(), &actual);
        let after = table.say("-Sn", "", &names);
        assert_eq!(
            after.out.lines().collect::<Vec<_>>(),
            *event.after.as_ref().unwrap(),
            "{place}"
        );
    }
    tally.report("cli-errors-open", golden.events.len());
}

#[test]
fn listings_of_a_table_without_traffic_are_ipvsadms() {
    let golden = read("cli-list-A-idle");
    let names = RecordedNames::new(&golden.hosts);
    let mut table = set_up(&golden);
    let mut tally = Tally::default();
    for event in &golden.events {
        let actual = table.say(&event.args, &event.stdin, &names);
        tally.compare(&event.args, &ordered(event, event.said()), &ordered(event, actual));
    }
    tally.report("cli-list-A-idle", golden.events.len());
}

#[test]
fn listings_of_a_table_with_traffic_are_ipvsadms() {
    let golden = read("cli-list-A-traffic");
    let names = RecordedNames::new(&golden.hosts);
    let mut tally = Tally::default();
    let mut numeric_conns = String::new();
    for (place, event) in golden.events.iter().enumerate() {
        if event.args.starts_with("-Lnc") && !event.stdout.is_empty() {
            numeric_conns = event.stdout.clone();
        }
        let expected = ordered(event, event.said());
        let matches = variants(&golden, &numeric_conns).any(|mut table| {
            expected == ordered(event, table.say(&event.args, &event.stdin, &names))
        });
        if matches {
            tally.equal += 1;
        } else {
            // Shows the difference to the plainest variant.
            let mut table = variants(&golden, &numeric_conns).next().unwrap();
            let actual = ordered(event, table.say(&event.args, &event.stdin, &names));
            tally.compare(&format!("{place}: {}", event.args), &expected, &actual);
        }
    }
    tally.report("cli-list-A-traffic", golden.events.len());
}

/// The commands of the recording that start, list or stop synchronisation daemons, which this
/// version has not: by their place in `cli-ops-A`.
const DAEMON_EVENTS: [usize; 14] = [15, 16, 17, 18, 19, 20, 21, 22, 23, 26, 28, 29, 30, 31];

#[test]
fn changes_in_sequence_are_ipvsadms() {
    let golden = read("cli-ops-A");
    let traffic = read("cli-list-A-traffic");
    let names = RecordedNames::new(&golden.hosts);
    let mut table = set_up(&golden);
    count(&mut table, &traffic);
    let mut tally = Tally::default();
    for (place, event) in golden.events.iter().enumerate() {
        match place {
            // The recording clears the table here without saying so, and its connection of SCTP
            // has expired by then.
            4 => {
                table.say("-C", "", &names);
                let loads = &mut table.traffic.loads;
                loads.retain(|_, load| load.active > 0);
            }
            _ if DAEMON_EVENTS.contains(&place) => {
                tally.not_covered += 1;
                continue;
            }
            _ => {}
        }
        let actual = table.say(&event.args, &event.stdin, &names);
        tally.compare(&format!("{place}: {}", event.args), &event.said(), &actual);
    }
    tally.report("cli-ops-A", golden.events.len());
}

/// What of a listing has no order is put into one: connections, and services that are not sorted.
/// (The order of a service's destinations is meant, sorted or not.) And what cannot be told is left
/// out: the one connection of SCTP, whose states this version does not know.
fn ordered(event: &Event, said: Said) -> Said {
    let whole = |lines: Vec<&str>| lines.concat();
    let out = if event.args.starts_with("-Lnc") || event.args.starts_with("-Lc") {
        let lines = said.out.split_inclusive('\n').filter(|line| !line.contains(" INIT1 "));
        let mut lines: Vec<&str> = lines.collect();
        lines.sort_unstable();
        whole(lines)
    } else if event.args.contains("nosort") {
        let starts = said.out.match_indices('\n').map(|(end, _)| end + 1);
        let starts = starts.filter(|start| !said.out[*start..].starts_with(' '));
        let places: Vec<usize> = core::iter::once(0).chain(starts).collect();
        let mut services: Vec<&str> =
            places.windows(2).map(|place| &said.out[place[0]..place[1]]).collect();
        services.sort_unstable();
        whole(services)
    } else {
        return said;
    };
    Said { out, ..said }
}

/// The table with the recording's traffic, as it may have been at any moment of the recording:
/// the connection of SCTP expires within it, and the estimator steps every two seconds.
fn variants(golden: &Golden, numeric_conns: &str) -> impl Iterator<Item = Table> {
    let with_sctp = [true, false].into_iter();
    with_sctp.flat_map(|with_sctp| (1..6).map(move |steps| (with_sctp, steps))).map(
        move |(with_sctp, steps)| {
            let mut table = set_up(golden);
            count(&mut table, golden);
            if !with_sctp {
                table.traffic.loads.retain(|_, load| load.active > 0);
            }
            for _ in 0..steps {
                table.state.estimate(&table.traffic);
            }
            table.traffic.conns = numeric_conns.lines().filter_map(conn_of).collect();
            table
        },
    )
}

/// Counts what the recording's numeric listings show.
fn count(table: &mut Table, golden: &Golden) {
    let listing = |args: &str| {
        let event = golden.events.iter().find(|event| event.args == args);
        event.unwrap().stdout.as_str()
    };
    let loads = dest_rows(table, listing("-Ln"));
    table.traffic.loads = loads
        .iter()
        .map(|(dest, row)| {
            let [active, inactive] = last_numbers(row);
            (*dest, Load { active: small(active), inactive: small(inactive) })
        })
        .collect();
    let totals = dest_rows(table, listing("-Ln --stats --exact"));
    table.traffic.totals = totals
        .iter()
        .map(|(dest, row)| {
            let [conns, packets_in, packets_out, octets_in, octets_out] = last_numbers(row);
            (*dest, Totals { conns, packets_in, packets_out, octets_in, octets_out })
        })
        .collect();
    let templates = dest_rows(table, listing("-Ln --persistent-conn"));
    table.traffic.templates = templates
        .iter()
        .map(|(dest, row)| {
            let [persistent, _, _] = last_numbers(row);
            (*dest, small(persistent))
        })
        .collect();
}

fn dest_rows(table: &Table, listing: &str) -> Vec<(rvs_model::DestId, String)> {
    let mut service = None;
    let mut rows = Vec::new();
    for line in listing.lines().skip(3) {
        match line.strip_prefix("  -> ") {
            None => service = service_of(line),
            Some(row) => {
                let address = row.split_whitespace().next().unwrap().parse().unwrap();
                rows.push((table.dest(&service.unwrap(), address).unwrap(), row.to_owned()));
            }
        }
    }
    rows
}

fn last_numbers<const N: usize>(row: &str) -> [u64; N] {
    let mut numbers = row.split_whitespace().rev().map(|word| word.parse().unwrap());
    let mut last: [u64; N] = core::array::from_fn(|_| numbers.next().unwrap());
    last.reverse();
    last
}

fn small(number: u64) -> u32 {
    number.try_into().unwrap()
}

/// The connection of a row of `-Lnc`; none for headings and for states that are not known.
fn conn_of(row: &str) -> Option<ConnEntry> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let [protocol, expires, state, client, vip, dest] = words[..] else { return None };
    let protocol = match protocol {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "IP" => None,
        _ => return None,
    };
    let (minutes, seconds) = expires.split_once(':')?;
    let client: core::net::SocketAddr = client.parse().ok()?;
    let state = match state {
        "NONE" | "ASSURED" if client.port() == 0 => {
            ConnState::Template { assured: state == "ASSURED" }
        }
        name => ConnState::Conn(rvs_model::State::ALL.into_iter().find(|s| s.name() == name)?),
    };
    Some(ConnEntry {
        protocol,
        client,
        vip: vip.parse().ok()?,
        dest: dest.parse().ok()?,
        state,
        expires_s: minutes.parse::<u32>().ok()? * 60 + seconds.parse::<u32>().ok()?,
        engine: None,
    })
}
