//! `cli/`: every command's standard output, standard error and exit status, and the table it leaves
//! behind.
//!
//! The table is the control plane's, without an engine, and takes all that the kernel takes: grammar,
//! words and formats are compared beyond what this version can forward. Counts of connections and
//! packets, and the connections themselves, are then the recording's own, read from its numeric
//! listings; what is compared there is how they are printed.

mod counted;
mod names;
mod unmodified;

use crate::golden::Golden;
use crate::scene::refused;
use crate::stage::Ran;
use crate::tally::{Aspect, Failure, Ledger, Place};
use counted::{Counted, Listing};
use names::RecordedNames;
use rvs_adm::{Transport, run};
use rvs_api::{ClientError, Outcome, Request};
use rvs_control::state::{Limits, State};
use serde::Deserialize;
use unmodified::Ipvsadm;

/// The size of the recorded kernel's connection table is what listings begin with.
const LIMITS: Limits = Limits { services: 20_000, dests: 200_000, conns: 4096 };
/// The recorded director's links.
const DEVICES: [&str; 2] = ["dc", "dr"];
/// Steps of the rate estimator between the traffic and a listing, at most.
const STEPS: usize = 8;

/// A command and what came of it.
#[derive(Clone, Debug, Deserialize)]
struct Event {
    args: String,
    rc: i32,
    stdout: String,
    stderr: String,
    #[serde(default)]
    stdin: Option<String>,
    /// The table afterwards; then the command was alone on the setup.
    after: Option<Vec<String>>,
}

impl Event {
    fn ran(&self) -> Ran {
        Ran { status: self.rc, stdout: self.stdout.clone(), stderr: self.stderr.clone() }
    }
}

/// The control plane's table, and what it reads instead of workers.
struct Table {
    state: State,
    counted: Counted,
}

impl Transport for Table {
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        let requests = requests.iter().cloned();
        Ok(requests.map(|request| rvs_netlink::Table::carry_out(self, request)).collect())
    }
}

impl Table {
    fn set(golden: &Golden) -> Result<Self, Failure> {
        let devices = DEVICES.map(str::to_owned);
        let state = State::new(LIMITS).with_devices(devices).accept_everything();
        let mut table = Self { state, counted: Counted::default() };
        let ran = table.run("-R", &golden.setup().join("\n"), &RecordedNames::default());
        if ran == Ran::default() {
            Ok(table)
        } else {
            Err(Failure::new(format!("setup: {}", ran.stderr.trim())))
        }
    }

    fn run(&mut self, args: &str, stdin: &str, names: &RecordedNames) -> Ran {
        let words = core::iter::once("ipvsadm").chain(args.split_ascii_whitespace());
        let words: Vec<String> = words.map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&words, &mut stdin.as_bytes(), self, names, &mut out, &mut err);
        Ran {
            status,
            stdout: String::from_utf8_lossy(&out).into_owned(),
            stderr: String::from_utf8_lossy(&err).into_owned(),
        }
    }
}

/// What commands are run with.
enum Tool {
    /// rvsadm, in this process.
    Rvsadm,
    /// Debian's.
    Ipvsadm(Ipvsadm),
}

impl Tool {
    fn aspect(&self) -> Aspect {
        match self {
            Self::Rvsadm => Aspect::Commands,
            Self::Ipvsadm(_) => Aspect::Unmodified,
        }
    }

    fn run(
        &self,
        table: &mut Table,
        args: &str,
        stdin: &str,
        names: &RecordedNames,
    ) -> Result<Ran, Failure> {
        match self {
            Self::Rvsadm => Ok(table.run(args, stdin, names)),
            Self::Ipvsadm(ipvsadm) => ipvsadm.run(table, args, stdin, names),
        }
    }
}

pub(super) fn play(golden: &Golden, ledger: &mut Ledger) -> Result<(), Failure> {
    play_with(Tool::Rvsadm, golden, ledger)?;
    match Ipvsadm::find() {
        Ok(ipvsadm) => play_with(Tool::Ipvsadm(ipvsadm), golden, ledger),
        Err(why) => {
            ledger.leave_out(format!("unmodified ipvsadm ({why})"), golden.events.len());
            Ok(())
        }
    }
}

fn play_with(tool: Tool, golden: &Golden, ledger: &mut Ledger) -> Result<(), Failure> {
    let events: Vec<Event> = golden
        .events
        .iter()
        .filter_map(|event| serde_json::from_value(event.clone()).ok())
        .collect();
    ledger.leave_out("events of a kind that is not known", golden.events.len() - events.len());
    let mut player = Player {
        tool,
        golden,
        names: RecordedNames::new(&golden.field::<String>("hosts").unwrap_or_default()),
        listings: events.iter().map(|event| Listing::read(&event.args, &event.stdout)).collect(),
        table: Table::set(golden)?,
        only_lists: events.iter().all(|event| Listing::is_one(&event.args)),
    };
    for (event, number) in events.iter().zip(0..) {
        player.play(event, number, ledger)?;
    }
    Ok(())
}

struct Player<'g> {
    tool: Tool,
    golden: &'g Golden,
    names: RecordedNames,
    /// What each event lists.
    listings: Vec<Listing>,
    table: Table,
    /// Nothing changes the table, so that each event may have its own.
    only_lists: bool,
}

impl Player<'_> {
    fn play(&mut self, event: &Event, number: usize, ledger: &mut Ledger) -> Result<(), Failure> {
        let place = || Place::event(number, format!("ipvsadm {}", event.args));
        if event.after.is_some() {
            self.table = Table::set(self.golden)?;
        }
        let expected = ordered(&event.args, event.ran());
        let got = self.nearest(event, number, &expected)?;
        if let Some(reason) = refused(&got) {
            ledger.leave_out(reason.0, 1);
            return Ok(());
        }
        let told = || (told(&expected), told(&got));
        ledger.judge(self.tool.aspect(), expected == got, place, told);
        if let Some(after) = &event.after {
            let table = self.table.run("-Sn", "", &self.names).stdout;
            let after = after.join("\n");
            ledger.compare(self.tool.aspect(), place, &after.as_str(), &table.trim_end());
        }
        Ok(())
    }

    /// What a command comes to; of a listing, with the counts of the first moment that makes it as
    /// expected, or else of its own.
    fn nearest(&mut self, event: &Event, number: usize, expected: &Ran) -> Result<Ran, Failure> {
        let stdin = event.stdin.as_deref().unwrap_or_default();
        if !Listing::is_one(&event.args) {
            return self.tool.run(&mut self.table, &event.args, stdin, &self.names);
        }
        let tells_rates = self.only_lists && event.args.contains("--rate");
        let steps_most = if tells_rates { STEPS } else { 0 };
        let mut own = None;
        for moment in by_distance(number, self.listings.len()) {
            for steps in 0..=steps_most {
                if self.only_lists {
                    self.table = Table::set(self.golden)?;
                }
                self.count(moment);
                for _ in 0..steps {
                    self.table.state.estimate(&self.table.counted);
                }
                let ran = self.tool.run(&mut self.table, &event.args, stdin, &self.names)?;
                let ran = ordered(&event.args, ran);
                if ran == *expected {
                    return Ok(ran);
                }
                own.get_or_insert(ran);
            }
        }
        if !self.only_lists && Listing::lists_no_service(&event.args, &event.stdout) {
            // The recordings' `-C` is no event of its own; a listing of nothing follows it.
            self.table.run("-C", "", &self.names);
            let ran = self.tool.run(&mut self.table, &event.args, stdin, &self.names)?;
            return Ok(ordered(&event.args, ran));
        }
        Ok(own.unwrap_or_default())
    }

    /// Counts what the listings nearest to a moment tell.
    fn count(&mut self, moment: usize) {
        let Self { listings, table, only_lists, .. } = self;
        let near = || by_distance(moment, listings.len()).filter_map(|at| listings.get(at));
        let Table { state, counted } = table;
        counted.loads = near().find_map(|listing| listing.loads(state)).unwrap_or_default();
        counted.templates = near().find_map(|listing| listing.templates(state)).unwrap_or_default();
        counted.conns = near().find_map(Listing::conns).unwrap_or_default();
        // Totals count on while commands set back what is shown of them.
        if *only_lists {
            counted.totals = near().find_map(|listing| listing.totals(state)).unwrap_or_default();
        }
    }
}

/// All numbers below `end`, those next to `from` first, of two the smaller.
fn by_distance(from: usize, end: usize) -> impl Iterator<Item = usize> {
    let mut all: Vec<usize> = (0..end).collect();
    all.sort_by_key(|number| number.abs_diff(from));
    all.into_iter()
}

/// The same with what has no order put into one: connections, and services that are not sorted. (The
/// order of a service's destinations is meant, sorted or not.)
fn ordered(args: &str, ran: Ran) -> Ran {
    let stdout = if Listing::is_of_conns(args) {
        let mut lines: Vec<&str> = ran.stdout.lines().collect();
        lines.sort_unstable();
        lines.concat()
    } else if args.contains("nosort") {
        let mut services: Vec<String> = Vec::new();
        for line in ran.stdout.lines() {
            match services.last_mut().filter(|_| line.starts_with(' ')) {
                Some(service) => service.push_str(line),
                None => services.push(line.to_owned()),
            }
        }
        services.sort_unstable();
        services.concat()
    } else {
        return ran;
    };
    Ran { stdout, ..ran }
}

fn told(ran: &Ran) -> String {
    format!("{}{}exit status {}", ran.stdout, ran.stderr, ran.status)
}
