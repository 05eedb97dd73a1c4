//! What the commands do.

use crate::Trouble;
use crate::args::{Arguments, Command, Listen, Output, Run, Search};
use crate::clock::{Clock, Machine};
use crate::link::{self, Done, Job, Links};
use crate::report::{Answer, Head, RunResult, SearchResult, SinkResult};
use crate::scenario::{SIZE_MAX, Scenario};
use crate::search::{self, Found, Step};
use crate::trial::{self, Arrived, Plan, Sample, Traffic, Trial};
use crate::{cost, plot};
use rvs_io::Queue;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Octets of a frame's room: the longest frame, and the header of a tunnel.
const ROOM: usize = 2048;
/// As above, where frames are longer than Ethernet's usual ones.
const JUMBO_ROOM: usize = 9216;

/// Does what the command line says.
///
/// # Errors
///
/// [`Trouble`].
pub fn main(arguments: &Arguments) -> Result<(), Trouble> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Trouble::Signals)?;
    }
    if let Command::Cost { duration } = arguments.command {
        return cost::measure(duration, &mut Machine::of_thread(stop), |line| print(line));
    }
    let mut clock = Machine::new(stop);
    match &arguments.command {
        Command::Run(run) => self::run(run, &mut clock),
        Command::Search(search) => self::search(search, &mut clock),
        Command::Sink(listen) => self::listen(listen, &mut clock),
        Command::Cost { .. } => Ok(()),
    }
}

fn run(run: &Run, clock: &mut Machine) -> Result<(), Trouble> {
    let scenario = run.scene.scenario()?;
    let plan = run.sending.plan(run.duration, scenario.mean_octets())?;
    let (quiet, head, room) = (run.output.quiet, Head::new(&scenario), room(&scenario));
    let work = RunJob { scenario, plan, quiet, clock };
    let trial = link::open(&run.scene.client, run.scene.servers.as_ref(), room, work)?;
    print(format_args!("{}", trial.to_string().trim_end()));
    write_json(&run.output, &RunResult { head, trial: &trial })?;
    run.output.plot.as_ref().map_or(Ok(()), |path| plot::run(path, &trial.samples))
}

struct RunJob<'j> {
    scenario: Scenario,
    plan: Plan,
    quiet: bool,
    clock: &'j mut Machine,
}

impl Job for RunJob<'_> {
    type Outcome = Trial;

    fn run<Q: Queue>(self, (client, servers): Links<Q>, pool: Q::Pool) -> Done<Self::Outcome, Q> {
        let mut traffic = Traffic::start(self.scenario, client, servers, pool, self.clock)?;
        let tell = |sample: &Sample| say(self.quiet, sample);
        let trial = traffic.trial(&self.plan, self.clock, tell)?;
        Ok((trial, traffic.finish()))
    }
}

fn search(search: &Search, clock: &mut Machine) -> Result<(), Trouble> {
    let scenario = search.scene.scenario()?;
    if search.scene.servers.is_none() && matches!(search.scene.client, link::Spec::Write(_)) {
        return Err(Trouble::Asked("a capture loses nothing: there is nothing to search".into()));
    }
    if !(0.0001..0.5).contains(&search.resolution) {
        return Err(Trouble::Asked("--resolution: expected 0.01% to 50%".to_owned()));
    }
    let mean = scenario.mean_octets();
    let plan = search.sending.plan(search.trial, mean)?;
    let (head, room) = (Head::new(&scenario), room(&scenario));
    let work = SearchJob { search, scenario, plan, clock };
    let outcome = link::open(&search.scene.client, search.scene.servers.as_ref(), room, work)?;
    let (found, steps) = outcome;
    for found in &found {
        print(Answer(found, &steps, mean));
    }
    write_json(&search.output, &SearchResult { head, found: &found, steps: &steps })?;
    search.output.plot.as_ref().map_or(Ok(()), |path| plot::search(path, &steps))
}

struct SearchJob<'j> {
    search: &'j Search,
    scenario: Scenario,
    plan: Plan,
    clock: &'j mut Machine,
}

impl Job for SearchJob<'_> {
    type Outcome = (Vec<Found>, Vec<Step>);

    fn run<Q: Queue>(self, (client, servers): Links<Q>, pool: Q::Pool) -> Done<Self::Outcome, Q> {
        let Self { search, scenario, plan, clock } = self;
        let mut traffic = Traffic::start(scenario, client, servers, pool, clock)?;
        let highest = match plan.rate {
            Some(rate) => rate,
            // As fast as the link takes them: no higher rate can be sent.
            None => traffic.trial(&plan, clock, |_| {})?.sent_pps(),
        };
        let bounds = search::Search { highest, resolution: search.resolution };
        let (mut found, mut steps) = (Vec::new(), Vec::new());
        for loss_max in &search.loss {
            found.push(bounds.find(*loss_max, &mut steps, |rate| {
                let plan = Plan { rate: Some(rate), ..plan };
                let trial = traffic.trial(&plan, clock, |_| {})?;
                let (loss, shortfall) = (trial.loss(), trial.shortfall());
                let step = Step { pps: rate, loss, shortfall, trial: trial.clone() };
                say(search.output.quiet, &step);
                if clock.is_over() { Err(Trouble::Interrupted) } else { Ok(trial) }
            })?);
        }
        Ok(((found, steps), traffic.finish()))
    }
}

fn listen(listen: &Listen, clock: &mut Machine) -> Result<(), Trouble> {
    let scenario = listen.scenario();
    let head = Head::new(&scenario);
    if matches!(listen.link, link::Spec::Write(_)) {
        return Err(Trouble::Asked("--link: nothing arrives on pcap:, expected pcap-in:".into()));
    }
    let (arrived, seconds) =
        link::open(&listen.link, None, JUMBO_ROOM, ListenJob { listen, scenario, clock })?;
    let verdict = arrived.verdict;
    print(format_args!(
        "arrived     {} in {seconds:.2} s, missing {}",
        verdict.arrived, arrived.lost
    ));
    print(format_args!("{}", arrived.to_string().trim_end()));
    let result = SinkResult { head, seconds, servers: &arrived };
    listen.json.as_ref().map_or(Ok(()), |path| write(path, &result))
}

struct ListenJob<'j> {
    listen: &'j Listen,
    scenario: Scenario,
    clock: &'j mut Machine,
}

impl Job for ListenJob<'_> {
    type Outcome = (Arrived, f64);

    fn run<Q: Queue>(self, (link, other): Links<Q>, pool: Q::Pool) -> Done<Self::Outcome, Q> {
        let duration = self.listen.duration.unwrap_or(Duration::from_hours(24 * 365));
        let every = Duration::from_secs(1);
        let tell = |sample: &Sample| say(self.listen.quiet, sample);
        let (outcome, link) =
            trial::listen(&self.scenario, link, pool, (duration, every), self.clock, tell);
        Ok((outcome, (link, other)))
    }
}

fn room(scenario: &Scenario) -> usize {
    let longest = scenario.sizes.iter().map(|(size, _)| *size).max().unwrap_or(SIZE_MAX);
    if longest <= 1900 { ROOM } else { JUMBO_ROOM }
}

fn write_json(output: &Output, result: &impl Serialize) -> Result<(), Trouble> {
    output.json.as_ref().map_or(Ok(()), |path| write(path, result))
}

fn write(path: &Path, result: &impl Serialize) -> Result<(), Trouble> {
    let failed = |source| Trouble::Write { path: path.to_owned(), source };
    let text = serde_json::to_string_pretty(result).map_err(|error| failed(error.into()))?;
    std::fs::write(path, text + "\n").map_err(failed)
}

/// A line on standard output; nobody to read it is no reason to fail.
fn print(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// A line of what is going on, on standard error.
fn say(quiet: bool, line: impl Display) {
    if !quiet {
        let _closed = writeln!(std::io::stderr(), "{line}");
    }
}
