//! Connections, listed from the workers that hold them.
//!
//! ```text
//!  client thread ──Dump, room for ROWS──► worker 0, IPv4 … IPv6, worker 1, …
//!                ◄──rows, where to go on──    some each breath, no allocation
//! ```
//!
//! A worker is never waited for longer than [`PATIENCE`]; one that owes an answer is not asked
//! again until it gave it. What is listed is not one moment's: connections that come and go
//! meanwhile may be missing, and none is listed twice unless it moved.

use core::time::Duration;
use rvs_api::{ConnEntry, ConnState};
use rvs_model::{Protocol, State, TICKS_PER_SECOND};
use rvs_plane::shared::{Command, ConnRow, Dump, Kill, Shared};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Connections asked for at a time.
const ROWS: usize = 1024;
/// How long an answer may take. A worker answers within a few breaths, but a busy machine may give
/// it no processor for seconds; one that does not breathe for as long as this ends the director.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
/// Between two looks for the answer.
const LOOK: Duration = Duration::from_micros(50);

/// A worker did not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("worker {0} does not answer")]
pub struct NoAnswer(pub usize);

/// Whom to ask for connections.
#[derive(Debug)]
pub struct Conns {
    workers: Vec<Desk>,
    patience: Duration,
}

/// One worker's rings, for one asker at a time.
#[derive(Debug)]
struct Desk {
    shared: Shared,
    /// Whether an answer is to come that nobody waits for any more.
    owes: Mutex<bool>,
}

impl Conns {
    /// Of these workers.
    #[must_use]
    pub fn new(workers: &[Shared]) -> Self {
        let desk = |shared: &Shared| Desk { shared: shared.clone(), owes: Mutex::new(false) };
        Self { workers: workers.iter().map(desk).collect(), patience: PATIENCE }
    }

    /// Shows all connections to `page`, at most [`ROWS`] at a time, until it fails.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`], or what `page` says.
    pub fn each_page<E: From<NoAnswer>>(
        &self,
        mut page: impl FnMut(&[ConnRow]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (desk, number) in self.workers.iter().zip(0..) {
            for v6 in [false, true] {
                let mut dump = Dump { v6, from: 0, rows: Vec::with_capacity(ROWS), done: false };
                while !dump.done {
                    dump.rows.clear();
                    let answer = desk.ask(Command::Dump(dump), self.patience);
                    let Some(Command::Dump(filled)) = answer else {
                        return Err(NoAnswer(number).into());
                    };
                    dump = filled;
                    page(&dump.rows)?;
                }
            }
        }
        Ok(())
    }
}

impl Conns {
    /// Ends a connection, and says whether there was one.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`].
    pub fn kill(&self, kill: Kill) -> Result<bool, NoAnswer> {
        let mut found = false;
        for (desk, number) in self.workers.iter().zip(0..) {
            match desk.ask(Command::Kill(kill), self.patience) {
                Some(Command::Kill(answer)) => found |= answer.found,
                _ => return Err(NoAnswer(number)),
            }
        }
        Ok(found)
    }
}

impl Desk {
    fn ask(&self, command: Command, patience: Duration) -> Option<Command> {
        let mut owes = self.owes.lock().unwrap_or_else(PoisonError::into_inner);
        if *owes {
            self.shared.replies.pop()?;
            *owes = false;
        }
        self.shared.ask(command).ok()?;
        let until = Instant::now() + patience;
        loop {
            if let Some(answer) = self.shared.replies.pop() {
                return Some(answer);
            }
            if Instant::now() >= until {
                *owes = true;
                return None;
            }
            thread::sleep(LOOK);
        }
    }
}

/// A connection as clients are told of it. `dest` is the destination's address where the connection
/// itself does not know it. `None` for a protocol that no service has.
#[must_use]
pub fn entry(row: &ConnRow, dest: Option<core::net::SocketAddr>) -> Option<ConnEntry> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let known = |number: u8| protocols.into_iter().find(|it| it.number() == number);
    let (protocol, state) = match row.template {
        Some(number) => {
            let assured = row.state == State::Established;
            (known(number), ConnState::Template { assured })
        }
        None => (Some(known(row.protocol)?), ConnState::Conn(row.state)),
    };
    Some(ConnEntry {
        protocol,
        client: row.client,
        vip: row.vip,
        dest: match dest {
            // A tunnel to the other family: the connection keeps the port alone.
            Some(known) if known.is_ipv4() != row.dest.is_ipv4() => {
                core::net::SocketAddr::new(known.ip(), row.dest.port())
            }
            _ => row.dest,
        },
        state,
        expires_s: row.expires / TICKS_PER_SECOND,
        age_s: if row.template.is_some() { 0 } else { row.age / TICKS_PER_SECOND },
        engine: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_model::DestId;

    fn row(port: u16) -> ConnRow {
        ConnRow {
            protocol: 6,
            state: State::Established,
            template: None,
            expires: 899 * TICKS_PER_SECOND + 7,
            age: 30 * TICKS_PER_SECOND,
            client: ([198, 51, 100, 7], port).into(),
            vip: ([203, 0, 113, 1], 80).into(),
            dest: ([192, 0, 2, 11], 8080).into(),
            dest_id: DestId(3),
        }
    }

    /// Longer than any machine is busy with something else.
    const LONG: Duration = Duration::from_mins(1);

    fn conns(workers: &[Shared], patience: Duration) -> Conns {
        Conns { patience, ..Conns::new(workers) }
    }

    /// Answers as [`answer`] until it did `times` times, or nobody asks any more.
    fn answer_all(workers: &[Shared], held: u16, times: usize) {
        let until = Instant::now() + LONG;
        let mut answered = 0;
        while answered < times && Instant::now() < until {
            let more = workers.iter().filter(|worker| answer(worker, held)).count();
            answered += more;
            if more == 0 {
                thread::yield_now();
            }
        }
    }

    /// Answers one command as a worker with `held` connections of each family would.
    fn answer(worker: &Shared, held: u16) -> bool {
        let mut dump = match worker.commands.pop() {
            Some(Command::Dump(dump)) => dump,
            Some(Command::Kill(kill)) => {
                let found = kill.client.port() < held;
                worker.replies.push(Command::Kill(Kill { found, ..kill })).unwrap();
                return true;
            }
            None => return false,
        };
        let first = u16::try_from(dump.from).unwrap();
        let room = u16::try_from(dump.rows.capacity()).unwrap();
        let next = held.min(first + room);
        dump.rows.extend((first..next).map(row));
        dump.from = next.into();
        dump.done = next == held;
        worker.replies.push(Command::Dump(dump)).unwrap();
        true
    }

    #[test]
    fn all_workers_are_asked_for_both_families_page_by_page() {
        let workers = [Shared::new(1), Shared::new(1)];
        let conns = conns(&workers, LONG);
        let mut seen = 0;
        thread::scope(|scope| {
            scope.spawn(|| answer_all(&workers, 2500, 12));
            let mut pages = 0;
            conns
                .each_page(|rows| {
                    assert!(rows.len() <= ROWS);
                    (pages, seen) = (pages + 1, seen + rows.len());
                    Ok::<(), NoAnswer>(())
                })
                .unwrap();
            assert_eq!(pages, 12);
        });
        assert_eq!(seen, 4 * 2500);
    }

    #[test]
    fn a_stuck_worker_costs_its_patience_once_and_its_late_answer_is_nobodys() {
        let workers = [Shared::new(1)];
        let mut conns = conns(&workers, Duration::from_millis(20));
        let none = |_: &[ConnRow]| Ok::<(), NoAnswer>(());
        assert_eq!(conns.each_page(none), Err(NoAnswer(0)));
        for _ in 0..100 {
            assert_eq!(conns.each_page(none), Err(NoAnswer(0)));
        }
        assert_eq!(workers[0].commands.len(), 1, "it is not asked again and again");
        assert!(answer(&workers[0], 1));
        assert_eq!(conns.each_page(none), Err(NoAnswer(0)), "it answers no new question");
        assert!(answer(&workers[0], 1));
        conns.patience = LONG;
        thread::scope(|scope| {
            scope.spawn(|| answer_all(&workers, 0, 2));
            let pages = conns.each_page(|rows| {
                assert!(rows.is_empty(), "the late answer had a row");
                Ok::<(), NoAnswer>(())
            });
            assert_eq!(pages, Ok(()));
        });
    }

    #[test]
    fn an_entry_says_what_ipvsadm_prints() {
        let told = entry(&row(4711), None).unwrap();
        assert_eq!(told.protocol, Some(Protocol::Tcp));
        assert_eq!((told.expires_s, told.state.name()), (899, "ESTABLISHED"));
        assert_eq!(told.dest, "192.0.2.11:8080".parse().unwrap());
        let far = "[2001:db8::11]:8080".parse().unwrap();
        assert_eq!(entry(&row(1), Some(far)).unwrap().dest, far);
        let same = "192.0.2.99:0".parse().unwrap();
        assert_eq!(entry(&row(1), Some(same)).unwrap().dest, "192.0.2.11:8080".parse().unwrap());
        assert_eq!(entry(&ConnRow { protocol: 47, ..row(1) }, None), None);
    }

    #[test]
    fn an_entry_says_of_a_template_what_it_is_about_and_whether_it_is_assured() {
        let told = |template, state| {
            let template = Some(template);
            entry(&ConnRow { protocol: 0xe0, template, state, ..row(0) }, None).unwrap()
        };
        let tcp = told(6, State::Established);
        assert_eq!((tcp.protocol, tcp.state.name()), (Some(Protocol::Tcp), "ASSURED"));
        let any = told(0, State::None);
        assert_eq!((any.protocol, any.state.name()), (None, "NONE"));
    }
}
