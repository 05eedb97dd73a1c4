//! `drain`: a destination gets no new connections, those that it has are watched until they are gone,
//! and at the deadline the rest ends.
//!
//! ```text
//!  weight 0 ─► every second: how many are left ─► none: done ─► --then remove
//!                                              └► deadline ─► all end ─► done
//!                                                    └► --reset: who talks is reset, for some seconds
//! ```
//!
//! The deadline is this program's: who stops it leaves a destination of weight 0 and its connections.

use crate::args::Line;
use crate::run::{Exit, FAILED, Session};
use core::fmt::Write as _;
use core::time::Duration;
use rvs_api::{ConnEntry, ConnFilter, Reply, Request};
use rvs_model::Weight;
use std::collections::BTreeMap;
use std::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines if no count changed.
const TELL: Duration = Duration::from_secs(10);
/// How long clients have to send something that can be answered with a reset.
const GRACE: Duration = Duration::from_secs(10);
/// How long what was ended may be listed still: workers look at some of their table each breath.
const PATIENCE: Duration = Duration::from_secs(30);

/// `90`, `90s`, `10m`, `1h`.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let found = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, seconds) = found.unwrap_or((text, 1));
    number.parse::<u32>().ok()?.checked_mul(seconds).map(|it| Duration::from_secs(it.into()))
}

/// What is to be done.
pub(crate) struct Plan {
    /// When what is left ends.
    pub(crate) deadline: Option<Duration>,
    /// Whether both sides are told of it.
    pub(crate) resets: bool,
    /// Whether the destination is deleted after it.
    pub(crate) removes: bool,
}

pub(crate) fn run(session: &mut Session<'_>, line: &Line, plan: &Plan) -> Result<(), Exit> {
    let Plan { deadline, resets, removes } = *plan;
    let (service, dest) = (line.key(), line.dest());
    let listed = session.fetch(&Request::ListServices { service: Some(service) })?;
    let Reply::Services(services) = listed else { return Err(Exit(FAILED)) };
    let known = services.iter().flat_map(|service| &service.dests).find(|it| it.dest == dest);
    let Some(known) = known else {
        session.tell_err("No such destination\n");
        return Err(Exit(FAILED));
    };
    let mut attributes = known.attributes;
    attributes.weight = Weight::DRAIN;
    session.change(&Request::EditDest { service, dest, attributes })?;
    let filter = ConnFilter {
        service: Some(service),
        dest: Some((dest.ip(), Some(dest.port()).filter(|port| *port != 0))),
        ..ConnFilter::default()
    };
    let begin = Instant::now();
    let mut cut: Option<Instant> = None;
    let mut ended: Option<Instant> = None;
    let mut told = (String::new(), begin);
    loop {
        let Reply::Conns(conns) = session.fetch(&Request::ListConnsWhere(filter.clone()))? else {
            return Err(Exit(FAILED));
        };
        let count = left(&conns);
        if count != told.0 || told.1.elapsed() >= TELL {
            let left = deadline.map(|deadline| deadline.saturating_sub(begin.elapsed()));
            let until = left.filter(|_| cut.or(ended).is_none() && !conns.is_empty());
            let until = until.map_or(String::new(), |left| format!("; {} s left", left.as_secs()));
            session.tell(&format!("{dest}: {count}{}{until}\n", ages(&conns)));
            session.flush();
            told = (count, Instant::now());
        }
        if conns.is_empty() {
            break;
        }
        match ended {
            None if deadline.is_some_and(|deadline| begin.elapsed() >= deadline) => {
                let is_first = resets && cut.is_none();
                if is_first || cut.is_none_or(|since| since.elapsed() >= GRACE) {
                    session.change(&Request::EndConns { service, dest, resets: is_first })?;
                    *(if is_first { &mut cut } else { &mut ended }) = Some(Instant::now());
                }
            }
            Some(since) if since.elapsed() > PATIENCE => {
                session.tell_err("rvsd was told to end them, and some are there still\n");
                return Err(Exit(FAILED));
            }
            _ => {}
        }
        let is_over = cut.or(ended).is_some();
        let pause = if is_over { LOOK / 10 } else { LOOK };
        let rest = deadline.map(|deadline| deadline.saturating_sub(begin.elapsed()));
        std::thread::sleep(rest.filter(|_| !is_over).unwrap_or(pause).min(pause));
    }
    if removes {
        session.change(&Request::DeleteDest { service, dest })?;
        session.tell(&format!("{dest}: removed\n"));
    }
    Ok(())
}

/// How many connections there are, by state.
fn left(conns: &[ConnEntry]) -> String {
    if conns.is_empty() {
        return "no connections left".to_owned();
    }
    let mut states = BTreeMap::<&str, usize>::new();
    for conn in conns {
        *states.entry(conn.state.name()).or_default() += 1;
    }
    let mut text = format!("{} connections left", conns.len());
    for ((state, count), before) in
        states.iter().zip([" ("].into_iter().chain(core::iter::repeat(", ")))
    {
        // A string takes everything.
        let _ = write!(text, "{before}{state} {count}");
    }
    text.push(')');
    text
}

/// How old the oldest is, and when the last one expires if nothing comes.
fn ages(conns: &[ConnEntry]) -> String {
    let most = |of: fn(&ConnEntry) -> u32| {
        let seconds = conns.iter().map(of).max()?;
        Some(format!("{:02}:{:02}", seconds / 60, seconds % 60))
    };
    match (most(|conn| conn.age_s), most(|conn| conn.expires_s)) {
        (Some(age), Some(rest)) => {
            format!(", the oldest is {age} old, the last expires in {rest} if idle")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_seconds_by_themselves() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("0", 0)] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "-1s", "1d", "99999999h", "1.5m"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
