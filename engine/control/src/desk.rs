//! Where clients' requests are carried out, whichever socket they came through.
//!
//! ```text
//!  server  ─frames──►                 ┌─► Director, under its lock ─► one publication per batch
//!  netlink ─datagrams─► access? ─► Desk
//!                                     └─► connections ─► Conns, without the lock
//! ```
//!
//! The lock is held while requests are carried out, never while anybody is waited for. Every change
//! is logged once, with who asked for it.

use crate::access;
use crate::conns::{Conns, NoAnswer, entry};
use crate::director::Director;
use crate::journal::{Line, Peer};
use rvs_api::codec::{AnswerWriter, FrameError};
use rvs_api::{Access, ConnEntry, ConnFilter, Errno, Outcome, Refusal, Reply, Request, Rules};
use rvs_plane::shared::{ConnRow, Kill};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What those who serve clients share.
pub struct Desk {
    director: Mutex<Director>,
    conns: Conns,
    access: access::Rules,
    log: Box<dyn Fn(&str) + Send + Sync>,
}

impl Desk {
    /// Of a director whose workers list `conns`; clients may what `access` says; `log` takes lines
    /// without their end.
    pub fn new(
        director: Director,
        conns: Conns,
        access: access::Rules,
        log: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self { director: Mutex::new(director), conns, access, log: Box::new(log) }
    }

    /// The director, once nobody else has it.
    pub fn director(&self) -> MutexGuard<'_, Director> {
        self.director.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client may.
    pub(crate) fn access(&self, peer: Option<Peer>) -> Access {
        self.access.access(peer)
    }

    pub(crate) fn log(&self, line: &str) {
        (self.log)(line);
    }

    /// Carries out one batch and tells `answers` the outcomes.
    pub(crate) fn carry_out(
        &self,
        requests: Vec<Request>,
        peer: Option<Peer>,
        answers: &mut AnswerWriter<impl Write>,
    ) -> Result<(), FrameError> {
        let access = self.access(peer);
        let mut requests = requests.into_iter().peekable();
        while let Some(first) = requests.next() {
            if access < needed(&first) {
                self.log_changes(vec![Line::of(&first, peer)], &[Err(Errno::Perm.into())]);
                answers.push(Err(Errno::Perm.into()))?;
                continue;
            }
            match first {
                Request::ListConns => {
                    self.list_conns(&ConnFilter::default(), answers)?;
                    continue;
                }
                Request::ListConnsWhere(filter) => {
                    self.list_conns(&filter, answers)?;
                    continue;
                }
                Request::Apply { rules, dry_run } => {
                    answers.push(self.apply_rules(&rules, dry_run, peer))?;
                    continue;
                }
                Request::KillConn { .. } => {
                    let lines = vec![Line::of(&first, peer)];
                    let outcome = self.kill(&first);
                    self.log_changes(lines, core::slice::from_ref(&outcome));
                    answers.push(outcome)?;
                    continue;
                }
                _ => {}
            }
            // Lists are long: one at a time. Everything else between two lists goes together.
            let mut together = vec![first];
            if !together.iter().any(is_alone) {
                let goes_along = |next: &Request| !is_alone(next) && access >= needed(next);
                together.extend(core::iter::from_fn(|| requests.next_if(goes_along)));
            }
            let lines: Vec<_> = together.iter().map(|request| Line::of(request, peer)).collect();
            let outcomes = self.director().apply(together);
            self.log_changes(lines, &outcomes);
            for outcome in outcomes {
                answers.push(outcome)?;
            }
        }
        Ok(())
    }

    /// Carries out one request of a client that may have it. Workers see it only when the director is
    /// told to publish.
    pub(crate) fn carry_out_one(&self, request: Request, peer: Option<Peer>) -> Outcome {
        let line = Line::of(&request, peer);
        let mut outcomes = self.director().carry_out(vec![request]);
        self.log_changes(vec![line], &outcomes);
        outcomes.pop().unwrap_or_else(|| Err(Errno::Io.into()))
    }

    /// Makes of the table what rules say, all of it or nothing, and tells the changes.
    fn apply_rules(&self, rules: &Rules, dry_run: bool, peer: Option<Peer>) -> Outcome {
        let mut director = self.director();
        let outcome = director.changes_to(rules).and_then(|changes| {
            if !dry_run && !changes.is_empty() {
                let asked = Request::Together(changes.clone());
                director.apply([asked]).pop().unwrap_or_else(|| Err(Errno::Io.into()))?;
            }
            Ok(Reply::Changes(changes))
        });
        drop(director);
        match &outcome {
            _ if dry_run => {}
            Ok(Reply::Changes(changes)) => {
                let lines: Vec<_> = changes.iter().map(|change| Line::of(change, peer)).collect();
                self.log_changes(lines, &vec![Ok(Reply::Done); changes.len()]);
            }
            _ => {
                let asked = Request::Together(Vec::new());
                self.log_changes(vec![Line::of(&asked, peer)], core::slice::from_ref(&outcome));
            }
        }
        outcome
    }

    fn log_changes(&self, lines: Vec<Option<Line>>, outcomes: &[Outcome]) {
        for (line, outcome) in lines.into_iter().zip(outcomes) {
            if let Some(line) = line {
                self.log(&line.ended(outcome));
            }
        }
    }

    /// Ends one connection: the workers' business, not the director's.
    fn kill(&self, request: &Request) -> Outcome {
        let Request::KillConn { protocol, client, vip } = *request else {
            return Err(Errno::Inval.into());
        };
        let kill = Kill { protocol: protocol.number(), client, vip, found: false };
        match self.conns.kill(kill) {
            Ok(true) => Ok(Reply::Done),
            Ok(false) => Err(Refusal::with_message(Errno::NoEnt, "rvsd: no such connection")),
            Err(error) => Err(Refusal::with_message(Errno::Io, format!("rvsd: {error}"))),
        }
    }

    /// Shows the connections that `filter` admits to `page`, some at a time, until it fails.
    pub(crate) fn each_page_of_conns<E: From<NoAnswer>>(
        &self,
        filter: &ConnFilter,
        mut page: impl FnMut(Vec<ConnEntry>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.conns.each_page(|rows| {
            let entries = {
                let director = self.director();
                let told = |row: &ConnRow| {
                    let told = entry(row, director.dest(row.dest_id))?;
                    let service = director.service_of(row.dest_id);
                    filter.admits(&told, service.as_ref()).then_some(told)
                };
                rows.iter().filter_map(told).collect()
            };
            page(entries)
        })
    }

    fn list_conns(
        &self,
        filter: &ConnFilter,
        answers: &mut AnswerWriter<impl Write>,
    ) -> Result<(), FrameError> {
        let listed = self.each_page_of_conns(filter, |entries| {
            answers.push_piece(Reply::Conns(entries)).map_err(Unlisted::Client)
        });
        match listed {
            Ok(()) => answers.push(Ok(Reply::Conns(Vec::new()))),
            Err(Unlisted::Client(error)) => Err(error),
            Err(Unlisted::Worker(error)) => {
                answers.push(Err(Refusal::with_message(Errno::Io, format!("rvsd: {error}"))))
            }
        }
    }
}

fn needed(request: &Request) -> Access {
    if request.is_read_only() { Access::Read } else { Access::Change }
}

/// Whether a request is answered by itself.
fn is_alone(request: &Request) -> bool {
    matches!(
        request,
        Request::ListServices { .. }
            | Request::ListConns
            | Request::ListConnsWhere(_)
            | Request::KillConn { .. }
            | Request::Apply { .. }
    )
}

/// Why connections were not listed to the end.
enum Unlisted {
    Worker(NoAnswer),
    Client(FrameError),
}

impl From<NoAnswer> for Unlisted {
    fn from(error: NoAnswer) -> Self {
        Self::Worker(error)
    }
}
