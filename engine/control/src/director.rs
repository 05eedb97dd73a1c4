//! The director as the control plane has it: one table, its snapshots, and what workers counted.
//!
//! Requests are carried out one after the other by whoever holds it; nothing here waits for a
//! worker or a client.

use crate::compile::Compiler;
use crate::config::Config;
use crate::rates::STEP_SECONDS;
use crate::state::{Limits, Readings, State};
use crate::store::{LeftOut, Store, StoreError, Sync};
use crate::tally::{self, Tally};
use core::net::SocketAddr;
use core::time::Duration;
use rvs_api::{
    Errno, Outcome, Refusal, Reply, Request, Rules, ServiceAttributes, ServiceKey, Totals,
};
use rvs_model::{DestId, DestLine, Load, Sysctls, Timeouts};
use rvs_plane::shared::Shared;
use rvs_plane::{Publisher, Reader, Snapshot};
use std::path::Path;
use std::sync::Arc;

/// What all workers counted for destinations, added up.
#[derive(Clone, Debug)]
pub struct Lines(Vec<Arc<[DestLine]>>);

impl Lines {
    /// Of these workers.
    #[must_use]
    pub fn new(workers: &[Shared]) -> Self {
        Self(workers.iter().map(|worker| Arc::clone(&worker.lines)).collect())
    }

    /// Each worker's, to be handed to every worker.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Arc<[DestLine]>> {
        self.0.clone()
    }

    fn of(&self, id: DestId) -> impl Iterator<Item = &DestLine> {
        let place = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.0.iter().filter_map(move |lines| lines.get(place))
    }
}

impl Readings for Lines {
    fn load(&self, dest: DestId) -> Load {
        // One worker may close what another opened, so a single line may have wrapped.
        self.of(dest).map(DestLine::load).fold(Load::default(), |sum, more| Load {
            active: sum.active.wrapping_add(more.active),
            inactive: sum.inactive.wrapping_add(more.inactive),
        })
    }

    fn totals(&self, dest: DestId) -> Totals {
        self.of(dest).map(DestLine::totals).fold(Totals::default(), |sum, more| {
            let ([conns, packets_in, packets_out], [octets_in, octets_out]) = more;
            sum.plus(Totals { conns, packets_in, packets_out, octets_in, octets_out })
        })
    }

    fn templates(&self, dest: DestId) -> u32 {
        self.of(dest).map(DestLine::templates).fold(0, u32::wrapping_add)
    }
}

/// Services, destinations, snapshots.
pub struct Director {
    state: State,
    compiler: Compiler,
    publisher: Publisher<Snapshot>,
    workers: Vec<Shared>,
    lines: Lines,
    published: u64,
    /// Steps of the rate estimator so far.
    steps: u64,
    /// Breaths of each worker when places were last freed.
    breaths: Vec<u64>,
    /// Where the table is kept, if anywhere.
    store: Option<Store>,
    /// Why the file could not be written anew.
    untold: Option<StoreError>,
    /// What the configuration says, to tell it from what was changed.
    timeouts: Timeouts,
    sysctls: Sysctls,
}

impl Director {
    /// A director without services, for workers that share `workers` with it.
    #[must_use]
    pub fn new(config: &Config, workers: Vec<Shared>) -> Self {
        let conns = config.tables.conns4.saturating_mul(config.workers.count().into());
        let limits = Limits { services: config.tables.services, dests: config.tables.dests, conns };
        let devices = config.devices().into_iter();
        let state = State::new(limits).within(config.network.clone());
        let mut state = state.with_devices(devices);
        state.set_all_timeouts(config.timeouts);
        state.set_all_sysctls(config.sysctls.clone());
        let lines = Lines::new(&workers);
        let network = config.network.clone();
        let mut compiler = Compiler::new(network, lines.to_vec());
        compiler.set_marks(&config.marks);
        let (snapshot, _nobody) = compiler.compile(&state);
        let published = state.version();
        Self {
            state,
            compiler,
            publisher: Publisher::new(snapshot),
            breaths: vec![0; workers.len()],
            workers,
            lines,
            published,
            steps: 0,
            store: None,
            untold: None,
            timeouts: config.timeouts,
            sysctls: config.sysctls.clone(),
        }
    }

    /// A worker's view of the snapshots.
    #[must_use]
    pub fn reader(&self) -> Reader<Snapshot> {
        self.publisher.reader()
    }

    /// Makes the table that is kept in a file, and keeps it there from now on; tells of lines that
    /// count for nothing. To be called before workers start and anything else is asked.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the file is as it was.
    pub fn keep_in(&mut self, path: &Path, sync: Sync) -> Result<Option<LeftOut>, StoreError> {
        let (mut store, kept) = Store::open(path, sync)?;
        let mut left_out: Option<LeftOut> = None;
        // No time passes from line to line, in which places would become free; and there are no
        // connections that need them.
        self.state.keep_trash(false);
        for (line, request) in kept {
            let Err(refusal) = self.change(request) else { continue };
            if !is_as_before(refusal.errno) {
                return Err(StoreError::Refused { path: path.to_owned(), line, refusal });
            }
            match &mut left_out {
                Some(known) => known.lines += 1,
                None => left_out = Some(store.leave_out(line, refusal)?),
            }
        }
        self.state.keep_trash(true);
        self.publish();
        match store.rewrite(&self.state.as_requests(&self.timeouts, &self.sysctls)) {
            // Rather longer than it need be than no director: all is in it.
            Err(error) if error.is_full() && left_out.is_none() => self.untold = Some(error),
            written => written?,
        }
        // Gone when they were taken: so not before we are sure to go on from them.
        self.state.go_on_from(&tally::take(path));
        self.store = Some(store);
        Ok(left_out)
    }

    /// Keeps what was counted for the next start, if the table is kept. To be called last of all.
    ///
    /// # Errors
    ///
    /// The file cannot be written: counters will begin at 0.
    pub fn keep_counters(&mut self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let path = store.path();
        let all = Request::ListServices { service: None };
        let Ok(Reply::Services(entries)) = self.state.apply(all, &self.lines) else {
            return Ok(());
        };
        let tallies: Vec<Tally> = entries.iter().map(Tally::from).collect();
        tally::save(path, &tallies)
            .map_err(|source| StoreError::File { path: path.to_owned(), source })
    }

    /// Carries out `requests` in their order, whether those before were refused or not, and shows
    /// workers the result once. [`Request::ListConns`] is not for the director: see
    /// [`crate::conns`].
    pub fn apply(&mut self, requests: impl IntoIterator<Item = Request>) -> Vec<Outcome> {
        let outcomes = self.carry_out(requests.into_iter().collect());
        self.publish();
        outcomes
    }

    /// What is due at `now`, counted from the start: rates, places that became free, a file that grew
    /// long. To be called once a second or so.
    ///
    /// # Errors
    ///
    /// The file cannot be written anew; the old one is good still.
    pub fn tick(&mut self, now: Duration) -> Result<(), StoreError> {
        let due = now.as_secs() / STEP_SECONDS;
        // After a pause of the process one step makes up for all: rates are about now.
        if self.steps < due {
            self.steps = due;
            // DIFFERS from Linux, where counters stand still too while `run_estimation` is 0: rates do.
            if self.state.sysctls().is_on("run_estimation") {
                self.state.estimate(&self.lines);
            }
        }
        // A worker that does not breathe may hold a snapshot, and a packet, of long ago.
        let breaths: Vec<_> =
            self.workers.iter().map(|worker| worker.frames.read().breaths).collect();
        let all_breathed = breaths.iter().zip(&self.breaths).all(|(now, then)| *now >= *then + 2);
        if all_breathed {
            self.breaths = breaths;
            self.state.reclaim(now.as_secs(), &self.lines);
        }
        if self.workers.iter().all(Shared::has_purged) {
            self.compiler.ended();
        }
        self.publisher.reclaim();
        self.untold.take().map_or_else(|| self.tend(), Err)
    }

    /// Looks after the file.
    fn tend(&mut self) -> Result<(), StoreError> {
        let Self { store, state, timeouts, sysctls, .. } = self;
        store.as_mut().map_or(Ok(()), |store| store.tend(|| state.as_requests(timeouts, sysctls)))
    }

    /// Address and port of a destination, deleted ones included.
    #[must_use]
    pub fn dest(&self, id: DestId) -> Option<SocketAddr> {
        Some(self.state.dest(id)?.address())
    }

    /// The service that a destination belongs to, or belonged to.
    #[must_use]
    pub fn service_of(&self, id: DestId) -> Option<ServiceKey> {
        self.state.service_of(id)
    }

    /// Carries out `requests` in their order; workers see the result with the next publication. What
    /// cannot be kept is refused, all of it.
    pub fn carry_out(&mut self, requests: Vec<Request>) -> Vec<Outcome> {
        let Some(mut store) = self.store.take() else {
            return requests.into_iter().map(|request| self.change(request)).collect();
        };
        let outcomes = match store.write(&requests) {
            Ok(mut written) => {
                let carry_out = |request: Request| {
                    let outcome = self.change(request.clone());
                    store.conclude(&mut written, &request, outcome.is_err());
                    outcome
                };
                let outcomes = requests.into_iter().map(carry_out).collect();
                store.finish(&written);
                outcomes
            }
            Err(refusal) => {
                let carry_out = |request: Request| {
                    if request.is_read_only() { self.change(request) } else { Err(refusal.clone()) }
                };
                requests.into_iter().map(carry_out).collect()
            }
        };
        self.store = Some(store);
        if let Err(error) = self.tend() {
            self.untold = Some(error);
        }
        outcomes
    }

    /// The changes that make of the table what `rules` say, all of which it would take.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn changes_to(&self, rules: &Rules) -> Result<Vec<Request>, Refusal> {
        let changes = self.state.changes_to(rules)?;
        self.state.trial(&changes, &self.lines)?;
        Ok(changes)
    }

    fn change(&mut self, request: Request) -> Outcome {
        if let Request::Together(requests) = request {
            self.state.trial(&requests, &self.lines)?;
            // One by one, because schedulers follow every single change; each as in the trial.
            for request in requests {
                self.change(request)?;
            }
            return Ok(Reply::Done);
        }
        if let Request::EndConns { service, dest, resets } = &request {
            let id = self.state.drained_dest(service, *dest)?;
            self.compiler.end_conns(id, *resets);
            self.purge();
            return Ok(Reply::Done);
        }
        let Self { state, compiler, lines, .. } = self;
        let concerned = concerned(&request);
        let before = state.version();
        let outcome = state.apply(request, lines);
        if let Some((key, dests)) = concerned
            && state.version() != before
        {
            compiler.note(state, &key, dests);
        }
        outcome
    }

    /// Whether something changed that workers do not see yet.
    #[must_use]
    pub fn has_unpublished(&self) -> bool {
        self.state.version() != self.published
    }

    /// Shows workers what changed.
    pub fn publish(&mut self) {
        if self.has_unpublished() {
            self.show();
        }
    }

    /// What a service is, or `None` if there is none of this key.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<ServiceAttributes> {
        Some(self.state.service(key)?.attributes().clone())
    }

    /// Shows workers the table as it is.
    fn show(&mut self) {
        self.published = self.state.version();
        let (snapshot, gone) = self.compiler.compile(&self.state);
        self.publisher.publish(snapshot);
        self.workers.iter().for_each(|worker| worker.bell.ring());
        self.compiler.retire(&gone);
        // Linux 6.1 ip_vs_ctl.c __ip_vs_del_dest(), ip_vs_enqueue_expire_nodest_conns(): all that
        // were ever deleted and have connections still.
        if !gone.is_empty() && self.state.sysctls().is_on("expire_nodest_conn") {
            let trash = self.state.dests().filter(|dest| !dest.is_available());
            trash.for_each(|dest| self.compiler.end_conns(dest.id(), false));
        }
        self.purge();
    }

    /// Has workers end connections of destinations that were marked so.
    fn purge(&mut self) {
        if self.compiler.take_purge() {
            self.workers.iter().for_each(Shared::purge);
        }
    }
}

/// Whether what is refused so in a file was refused already when it was asked for, the answer being the
/// same under any configuration; all others were taken, when there was more room or another link.
fn is_as_before(errno: Errno) -> bool {
    matches!(errno, Errno::Exist | Errno::NoEnt | Errno::Srch | Errno::Inval | Errno::Range)
}

/// The service that a request may leave changed, and whether its destinations are what changes.
fn concerned(request: &Request) -> Option<(ServiceKey, bool)> {
    match request {
        Request::AddService { service, .. } | Request::EditService { service, .. } => {
            Some((*service, false))
        }
        Request::AddDest { service, .. }
        | Request::EditDest { service, .. }
        | Request::DeleteDest { service, .. } => Some((*service, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
