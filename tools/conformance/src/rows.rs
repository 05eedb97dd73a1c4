//! Listings compared row by row, with the tolerance that the recordings themselves state.
//!
//! Two things in a recorded listing are not sharp (README of `goldens/`). Seconds left are cut to
//! whole ones a moment after the packet, so 59 and 60 both mean a 60 s timer: ours may be one more,
//! never less. And the kernel's timer wheel rounds expiry up: a connection whose time is over may
//! still be listed, with 00:00, and counted, for as long as the wheel's level is coarse. Likewise
//! connections that a command ends (`expire_nodest_conn`) go with the kernel's next tick, and may be
//! listed until then. A template that lives on for its connections does so from the moment at which the
//! wheel looks at it: for as long as that was late it has more time left than ours. Nothing else is
//! excused.

use crate::stage::Stage;
use crate::tally::{Aspect, Ledger, Place};
use core::net::SocketAddr;
use rvs_api::{ConnEntry, ConnState};
use rvs_io::Queue;
use rvs_model::{State, TICKS_PER_SECOND, Tick, Timeouts};
use std::collections::BTreeMap;

/// Connections that are over and that the kernel may still have.
#[derive(Debug, Default)]
pub struct Lingering {
    late: Vec<Late>,
    /// Seconds, at most, that the kernel's template has more than ours.
    prolonged: BTreeMap<String, i64>,
    /// Whether the kernel may have templates that ours has not, or the other way round.
    is_blurred: bool,
}

#[derive(Debug)]
struct Late {
    key: String,
    vip: SocketAddr,
    dest: SocketAddr,
    is_active: bool,
    /// Whether its time was over, so that 00:00 is what the kernel prints.
    is_due: bool,
    /// The last tick at which the kernel may have it.
    until: Tick,
}

impl Lingering {
    /// Lets `act` do something to `stage` that is no packet, and takes note of which connections
    /// end meanwhile.
    pub fn watch<Q: Queue, R>(
        &mut self,
        stage: &mut Stage<Q>,
        act: impl FnOnce(&mut Stage<Q>) -> R,
    ) -> R {
        let services = stage.services();
        let persistence = services.iter().map(|service| service.attributes.timeout_s).max();
        let persistence = persistence.unwrap_or_default();
        let (start, before) = (stage.now(), stage.conns());
        let result = act(stage);
        let now = stage.now();
        let after: Vec<String> = stage.conns().iter().map(|(conn, _)| key(conn)).collect();
        self.is_blurred |= before.iter().any(|(conn, left)| {
            let deadline = start.saturating_add(*left);
            let is_due = is_template(conn) && deadline <= now;
            is_due && self.is_doubtful((conn, deadline), (start, &before), persistence)
        });
        for (conn, left) in before {
            let key = key(&conn);
            let deadline = start.saturating_add(left);
            let is_due = deadline <= now;
            let lateness = lateness(&conn, persistence);
            // What was late when it was given more time is late from there on.
            let before = self.prolonged.get(&whose(&key)).filter(|_| is_template(&conn));
            let before = before.and_then(|seconds| Tick::try_from(*seconds).ok());
            let late = lateness + before.unwrap_or_default() * TICKS_PER_SECOND;
            let until = if is_due { deadline.saturating_add(late) } else { now };
            if is_due && after.contains(&key) && is_template(&conn) {
                let seconds = i64::from(lateness.div_ceil(TICKS_PER_SECOND));
                self.prolonged.insert(whose(&key), seconds);
            }
            if until >= now && !after.contains(&key) && !is_template(&conn) {
                let is_active =
                    State::ALL.iter().any(|it| it.name() == conn.state.name() && it.is_active());
                let ConnEntry { vip, dest, .. } = conn;
                self.late.push(Late { key, vip, dest, is_active, is_due, until });
            } else if until >= now && !after.contains(&key) {
                let ConnEntry { vip, .. } = conn;
                // It is nobody's connection, and not counted as one.
                let dest = SocketAddr::new(vip.ip(), 0);
                self.late.push(Late { key, vip, dest, is_active: false, is_due, until });
            }
        }
        self.late.retain(|late| late.until >= now);
        result
    }

    /// Whether it depends on how late the kernel's wheel is what becomes of a template whose time is
    /// over: it was given more time once already, or a connection to where it leads ends at about the
    /// same time.
    fn is_doubtful(
        &self,
        (template, deadline): (&ConnEntry, Tick),
        (start, conns): (Tick, &[(ConnEntry, Tick)]),
        persistence_s: u32,
    ) -> bool {
        let late = lateness(template, persistence_s) + TICKS_PER_SECOND;
        let mut conns = conns
            .iter()
            .filter(|(conn, _)| !is_template(conn) && conn.dest.ip() == template.dest.ip());
        self.prolonged.contains_key(&whose(&key(template)))
            || self.late.iter().any(|it| it.is_due && it.dest.ip() == template.dest.ip())
            || conns.any(|(_, left)| start.saturating_add(*left) <= deadline.saturating_add(late))
    }

    /// Whether listings can no longer be compared until everything is over.
    #[must_use]
    pub fn is_blurred(&self) -> bool {
        self.is_blurred
    }

    /// Whether there is no such connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.late.is_empty()
    }

    /// Whether the kernel may list this connection with so many seconds left.
    fn excuses(&self, key: &str, seconds: i64) -> bool {
        self.late.iter().any(|late| late.key == key && (!late.is_due || seconds == 0))
    }

    /// Whether seconds left agree. Of a template that ours has given another minute, the kernel's may
    /// have more, or still be due.
    fn agree(&self, key: &str, expected: i64, got: i64) -> bool {
        let more = self.prolonged.get(&whose(key)).copied();
        let is_late =
            |more: i64| expected == 0 && (PROLONGED_S - more..=PROLONGED_S).contains(&got);
        (-more.unwrap_or_default()..=1).contains(&(got - expected)) || more.is_some_and(is_late)
    }

    /// Active and inactive ones that were a destination's.
    fn of(&self, vip: Option<SocketAddr>, dest: SocketAddr) -> (i64, i64) {
        let here = |late: &&Late| late.dest == dest && vip.is_none_or(|vip| vip == late.vip);
        self.late.iter().filter(here).fold((0, 0), |(active, inactive), late| {
            if late.is_active { (active + 1, inactive) } else { (active, inactive + 1) }
        })
    }

    /// Active and inactive ones.
    #[must_use]
    pub fn all(&self) -> (i64, i64) {
        let active = self.late.iter().filter(|late| late.is_active).count();
        let inactive = self.late.len() - active;
        (i64::try_from(active).unwrap_or_default(), i64::try_from(inactive).unwrap_or_default())
    }
}

/// By how much the kernel's timer wheel may be late for a connection's timer (Linux 6.1
/// `kernel/time/timer.c`: eight times coarser from level to level; HZ is 250).
fn lateness(conn: &ConnEntry, persistence_s: u32) -> Tick {
    let timeouts = Timeouts::default();
    let named = State::ALL.into_iter().find(|state| state.name() == conn.state.name());
    let usual = match named {
        _ if is_template(conn) => persistence_s,
        Some(state) => timeouts.seconds(state),
        None => 0,
    };
    let seconds = usual.max(conn.expires_s);
    let eighths = match seconds {
        0..=16 => 3,
        17..=131 => 17,
        132..=1048 => 132,
        _ => 1049,
    };
    eighths * TICKS_PER_SECOND / 8
}

/// Seconds that a template with connections is given when its time is over.
const PROLONGED_S: i64 = 60;

/// The template of a row without its time: its state changes, and its ports when it is void.
fn whose(key: &str) -> String {
    let words: Vec<&str> = key.split(' ').collect();
    let host = |at: usize| words.get(at).and_then(|end| end.rsplit_once(':')).map_or("", |it| it.0);
    format!("{} {} {} {}", words.first().unwrap_or(&""), host(2), host(3), host(4))
}

fn is_template(conn: &ConnEntry) -> bool {
    matches!(conn.state, ConnState::Template { .. })
}

/// A row of `-Lnc` without its time.
fn key(conn: &ConnEntry) -> String {
    let protocol = conn.protocol.map_or("IP", |protocol| match protocol {
        rvs_model::Protocol::Tcp => "TCP",
        rvs_model::Protocol::Udp => "UDP",
        rvs_model::Protocol::Sctp => "SCTP",
    });
    format!("{protocol} {} {} {} {}", conn.state.name(), conn.client, conn.vip, conn.dest)
}

/// A printed row of `-Lnc`: what it says without its time, and its seconds.
fn row(text: &str) -> Option<(String, i64)> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if words.len() < 6 {
        return None;
    }
    let (minutes, seconds) = words.remove(1).split_once(':')?;
    let seconds = minutes.parse::<i64>().ok()? * 60 + seconds.parse::<i64>().ok()?;
    Some((words.join(" "), seconds))
}

/// Whether seconds left agree.
#[must_use]
pub fn agree(expected: i64, got: i64) -> bool {
    (0..=1).contains(&(got - expected))
}

/// Compares rows of `-Lnc`, as sets.
pub fn compare_conns<'t>(
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    expected: impl IntoIterator<Item = &'t str>,
    got: impl IntoIterator<Item = &'t str>,
    lingering: &Lingering,
) {
    let expected: BTreeMap<_, _> = expected.into_iter().filter_map(row).collect();
    let got: BTreeMap<_, _> = got.into_iter().filter_map(row).collect();
    for (key, seconds) in &expected {
        let ours = got.get(key);
        let excused = ours.is_none() && lingering.excuses(key, *seconds);
        let told = || (key.clone(), about(key, got.keys()));
        ledger.judge(Aspect::States, excused || ours.is_some(), &place, told);
        if let Some(ours) = ours {
            let told = || (format!("{key}: {seconds} s"), format!("{key}: {ours} s"));
            let equal = lingering.agree(key, *seconds, *ours);
            ledger.judge(Aspect::Timers, equal, &place, told);
        }
    }
    for (key, seconds) in &got {
        if !expected.contains_key(key) {
            // Less than a second left, in whole seconds: the recorder's clock is ahead of ours.
            let told = || (about(key, expected.keys()), format!("{key}: {seconds} s"));
            ledger.judge(Aspect::States, *seconds == 0, &place, told);
        }
    }
    if expected.is_empty() && got.is_empty() {
        ledger.judge(Aspect::States, true, &place, || (String::new(), String::new()));
    }
}

/// Compares rows of `-Lnc` as sets, without their times.
pub fn compare_states<'t>(
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    expected: impl IntoIterator<Item = &'t str>,
    got: impl IntoIterator<Item = &'t str>,
) {
    let sorted = |rows: &mut dyn Iterator<Item = &'t str>| {
        let mut keys: Vec<String> = rows.filter_map(row).map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.join("\n")
    };
    let expected = sorted(&mut expected.into_iter());
    let got = sorted(&mut got.into_iter());
    ledger.compare(Aspect::States, place, &expected, &got);
}

/// What there is of the client in `key`, the third word, for people to read.
fn about<'k>(key: &str, rows: impl Iterator<Item = &'k String>) -> String {
    let client = key.split(' ').nth(2);
    let same: Vec<&str> =
        rows.map(String::as_str).filter(|row| row.split(' ').nth(2) == client).collect();
    if same.is_empty() { "no row of that client".to_owned() } else { same.join("\n") }
}

/// Compares listings of services, line by line. Counts of connections may differ by those that
/// linger.
pub fn compare_services(
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    expected: &[String],
    got: &[String],
    lingering: &Lingering,
) {
    let told = || (expected.join("\n"), got.join("\n"));
    let mut vip = None;
    let mut equal = expected.len() == got.len();
    for (expected, got) in expected.iter().zip(got) {
        if let Some(service) = expected.split_whitespace().nth(1).and_then(|it| it.parse().ok())
            && !expected.starts_with(' ')
        {
            vip = Some(service);
        }
        equal &= expected == got || is_explained(expected, got, vip, lingering);
    }
    ledger.judge(Aspect::Counts, equal, place, told);
}

/// Whether two rows of a destination differ only by connections that linger.
fn is_explained(expected: &str, got: &str, vip: Option<SocketAddr>, lingering: &Lingering) -> bool {
    let split = |text: &str| -> Option<(Vec<String>, (i64, i64))> {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let inactive = words.pop()?.parse().ok()?;
        let active = words.pop()?.parse().ok()?;
        Some((words, (active, inactive)))
    };
    let (Some((words, expected)), Some((ours, got))) = (split(expected), split(got)) else {
        return false;
    };
    let Some(dest) = words.get(1).and_then(|dest| dest.parse().ok()) else { return false };
    words == ours && are_explained(expected, got, lingering.of(vip, dest))
}

/// Whether counts, active and inactive, differ by no more than what lingers.
#[must_use]
pub fn are_explained(expected: (i64, i64), got: (i64, i64), late: (i64, i64)) -> bool {
    (0..=late.0).contains(&(expected.0 - got.0)) && (0..=late.1).contains(&(expected.1 - got.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Verdict;

    const ROW: &str = "TCP 00:59  SYN_RECV    172.16.1.1:2000    10.0.0.100:80      10.1.0.3:80";

    fn verdict(expected: &[&str], got: &[&str], lingering: &Lingering) -> Verdict {
        let mut ledger = Ledger::default();
        let place = || Place::whole("test");
        compare_conns(&mut ledger, place, expected.iter().copied(), got.iter().copied(), lingering);
        ledger.verdict()
    }

    fn late(key: &str) -> Lingering {
        let (vip, dest) = ("10.0.0.100:80", "10.1.0.3:80");
        let (vip, dest) = (vip.parse().unwrap(), dest.parse().unwrap());
        let key = key.to_owned();
        let late = Late { key, vip, dest, is_active: true, is_due: true, until: 9 };
        Lingering { late: vec![late], ..Lingering::default() }
    }

    #[test]
    fn a_second_more_is_the_same_timer_and_a_second_less_is_not() {
        let none = Lingering::default();
        for (ours, verdict_of_it) in [
            ("00:59", Verdict::Passed),
            ("01:00", Verdict::Passed),
            ("00:58", Verdict::Failed),
            ("01:01", Verdict::Failed),
        ] {
            assert_eq!(verdict(&[ROW], &[&ROW.replace("00:59", ours)], &none), verdict_of_it);
        }
    }

    #[test]
    fn a_missing_row_is_excused_only_when_it_is_due_and_was_ours() {
        let due = ROW.replace("00:59", "00:00");
        let key = "TCP SYN_RECV 172.16.1.1:2000 10.0.0.100:80 10.1.0.3:80";
        assert_eq!(verdict(&[&due], &[], &late(key)), Verdict::Passed);
        assert_eq!(verdict(&[&due], &[], &Lingering::default()), Verdict::Failed);
        assert_eq!(verdict(&[ROW], &[], &late(key)), Verdict::Failed);
        assert_eq!(verdict(&[], &[ROW], &Lingering::default()), Verdict::Failed);
        assert_eq!(verdict(&[], &[&due], &Lingering::default()), Verdict::Passed);
    }

    #[test]
    fn a_template_that_was_prolonged_may_have_more_time_there_or_still_be_due() {
        let row = "UDP NONE 172.16.1.1:0 10.0.0.100:80 10.1.0.3:80";
        let void = "UDP ASSURED 172.16.1.1:0 10.0.0.100:65535 10.1.0.3:65535";
        let prolonged = BTreeMap::from([(whose(row), 3)]);
        let late = Lingering { prolonged, ..Lingering::default() };
        for key in [row, void] {
            for (expected, got, equal) in
                [(41, 40, true), (43, 40, true), (44, 40, false), (39, 40, true), (38, 40, false)]
            {
                assert_eq!(late.agree(key, expected, got), equal, "{expected} {got}");
                assert_eq!(Lingering::default().agree(key, expected, got), expected == 39);
            }
            assert!(late.agree(key, 0, 60) && late.agree(key, 0, 57) && !late.agree(key, 0, 56));
        }
        let other = "UDP NONE 172.16.1.2:0 10.0.0.100:80 10.1.0.3:80";
        assert!(!late.agree(other, 41, 40));
    }

    #[test]
    fn counts_differ_by_what_lingers_at_that_destination_and_by_nothing_else() {
        let text = |active: u32| {
            let row =
                format!("  -> 10.1.0.3:80                  Masq    1      {active}          0");
            vec!["TCP  10.0.0.100:80 rr".to_owned(), row]
        };
        for (expected, got, equal) in [(2, 2, true), (2, 1, true), (2, 0, false), (1, 2, false)] {
            let mut ledger = Ledger::default();
            let place = || Place::whole("test");
            compare_services(&mut ledger, place, &text(expected), &text(got), &late("x"));
            assert_eq!(ledger.verdict() == Verdict::Passed, equal, "{expected} {got}");
        }
    }
}
