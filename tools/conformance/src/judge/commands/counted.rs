//! What the recording's own listings say of counts and connections.

use core::net::SocketAddr;
use rvs_api::{AddressFamily, ConnEntry, ConnState, FwMark, ServiceKey, Totals};
use rvs_control::state::{Dest, Readings, State};
use rvs_model::{DestId, Load, Protocol};
use std::collections::HashMap;

/// What would be counted if there were workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) loads: HashMap<DestId, Load>,
    pub(super) totals: HashMap<DestId, Totals>,
    pub(super) templates: HashMap<DestId, u32>,
    pub(super) conns: Vec<ConnEntry>,
}

impl Readings for Counted {
    fn load(&self, dest: DestId) -> Load {
        self.loads.get(&dest).copied().unwrap_or_default()
    }

    fn totals(&self, dest: DestId) -> Totals {
        self.totals.get(&dest).copied().unwrap_or_default()
    }

    fn templates(&self, dest: DestId) -> u32 {
        self.templates.get(&dest).copied().unwrap_or_default()
    }
}

/// What a listing counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Columns {
    /// Active and inactive connections at the end.
    Loads,
    /// The same behind persistent ones.
    Templates,
    /// Connections, packets and octets.
    Totals,
    /// Rows of connections.
    Conns,
    /// Nothing that can be read.
    Nothing,
}

/// A printed listing.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    columns: Columns,
    text: String,
}

/// Lines before the services.
const HEADER_LINES: usize = 3;

/// Whether the words of a command have an option, by its letter or its name.
fn has(args: &str, letter: char, name: &str) -> bool {
    args.split_whitespace().any(|word| match word.strip_prefix("--") {
        Some(long) => long == name,
        None => word.strip_prefix('-').is_some_and(|short| short.contains(letter)),
    })
}

impl Listing {
    /// Whether a command only lists.
    pub(super) fn is_one(args: &str) -> bool {
        let first = args.split_whitespace().next().unwrap_or_default();
        let names = ["", "--list", "--save"];
        names.contains(&first) || ["-L", "-l", "-S"].iter().any(|short| first.starts_with(short))
    }

    /// Whether a command lists connections.
    pub(super) fn is_of_conns(args: &str) -> bool {
        Self::is_one(args) && has(args, 'c', "connection")
    }

    /// Whether a listing of all services has none.
    pub(super) fn lists_no_service(args: &str, stdout: &str) -> bool {
        let columns = Self::read(args, stdout).columns;
        columns != Columns::Conns
            && stdout.starts_with("IP Virtual Server")
            && stdout.lines().count() <= HEADER_LINES
    }

    pub(super) fn read(args: &str, stdout: &str) -> Self {
        let numeric = has(args, 'n', "numeric");
        let lists = Self::is_one(args) && has(args, 'L', "list") | has(args, 'l', "list");
        let columns = match () {
            () if !(numeric && lists) || stdout.is_empty() => Columns::Nothing,
            () if Self::is_of_conns(args) => Columns::Conns,
            () if ["--rate", "--timeout", "--daemon"].iter().any(|it| args.contains(it)) => {
                Columns::Nothing
            }
            () if args.contains("--stats") => Columns::Totals,
            () if args.contains("--persistent-conn") => Columns::Templates,
            () => Columns::Loads,
        };
        Self { columns, text: stdout.to_owned() }
    }

    /// Active and inactive connections; `None` if it does not tell them.
    pub(super) fn loads(&self, state: &State) -> Option<HashMap<DestId, Load>> {
        if !matches!(self.columns, Columns::Loads | Columns::Templates) {
            return None;
        }
        let load = |row: &str| {
            let [active, inactive] = last_numbers(row)?;
            Some(Load { active: active.try_into().ok()?, inactive: inactive.try_into().ok()? })
        };
        self.dests(state, load)
    }

    /// Persistence templates; `None` if it does not tell them.
    pub(super) fn templates(&self, state: &State) -> Option<HashMap<DestId, u32>> {
        let is_told = self.columns == Columns::Templates;
        let templates = |row: &str| {
            let [persistent, _, _] = last_numbers(row)?;
            persistent.try_into().ok()
        };
        is_told.then(|| self.dests(state, templates)).flatten()
    }

    /// What was counted; `None` if it does not tell it, or not exactly.
    pub(super) fn totals(&self, state: &State) -> Option<HashMap<DestId, Totals>> {
        let is_told = self.columns == Columns::Totals;
        let totals = |row: &str| {
            let [conns, packets_in, packets_out, octets_in, octets_out] = last_numbers(row)?;
            Some(Totals { conns, packets_in, packets_out, octets_in, octets_out })
        };
        is_told.then(|| self.dests(state, totals)).flatten()
    }

    /// Connections; `None` if it does not tell them.
    pub(super) fn conns(&self) -> Option<Vec<ConnEntry>> {
        let is_told = self.columns == Columns::Conns;
        is_told.then(|| self.text.lines().filter_map(conn).collect())
    }

    /// What `read` finds in each destination's row; `None` if a row does not have it.
    fn dests<T>(
        &self,
        state: &State,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<HashMap<DestId, T>> {
        let mut found = HashMap::new();
        let mut service = None;
        for line in self.text.lines() {
            let Some(row) = line.strip_prefix("  -> ") else {
                service = service_of(line).and_then(|key| state.service(&key));
                continue;
            };
            let Some(service) = service else { continue };
            let address: SocketAddr = row.split_whitespace().next()?.parse().ok()?;
            let value = read(row)?;
            let dest = state.dests_of(service).find(|dest| dest.address() == address);
            found.extend(dest.map(Dest::id).map(|id| (id, value)));
        }
        Some(found)
    }
}

/// The service that a row of a numeric listing names.
fn service_of(row: &str) -> Option<ServiceKey> {
    let mut words = row.split_whitespace();
    let (kind, name) = (words.next()?, words.next()?);
    let protocol = match kind {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "FWM" => {
            let mark = FwMark(name.parse().ok()?);
            let is_v6 = words.next() == Some("IPv6");
            let family = if is_v6 { AddressFamily::V6 } else { AddressFamily::V4 };
            return Some(ServiceKey::Mark { mark, family });
        }
        _ => return None,
    };
    Some(ServiceKey::Address { protocol, address: name.parse().ok()? })
}

fn last_numbers<const N: usize>(row: &str) -> Option<[u64; N]> {
    let mut numbers: Vec<u64> = Vec::with_capacity(N);
    for word in row.split_whitespace().rev().take(N) {
        numbers.push(word.parse().ok()?);
    }
    numbers.reverse();
    numbers.try_into().ok()
}

/// The connection of a row of `-Lnc`; none for headings and for states that are not known.
fn conn(row: &str) -> Option<ConnEntry> {
    let words: Vec<&str> = row.split_whitespace().collect();
    let [protocol, expires, state, client, vip, dest, ..] = *words.as_slice() else { return None };
    let protocol = match protocol {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        "IP" => None,
        _ => return None,
    };
    let (minutes, seconds) = expires.split_once(':')?;
    let client: SocketAddr = client.parse().ok()?;
    let state = match state {
        "NONE" | "ASSURED" if client.port() == 0 => {
            ConnState::Template { assured: state == "ASSURED" }
        }
        name => {
            let is_sctp = protocol == Some(Protocol::Sctp);
            let mut states = rvs_model::State::ALL
                .into_iter()
                .filter(|state| state.is_sctp() == is_sctp || *state == rvs_model::State::None);
            ConnState::Conn(states.find(|state| state.name() == name)?)
        }
    };
    Some(ConnEntry {
        protocol,
        client,
        vip: vip.parse().ok()?,
        dest: dest.parse().ok()?,
        state,
        expires_s: minutes.parse::<u32>().ok()?.checked_mul(60)? + seconds.parse::<u32>().ok()?,
        age_s: 0,
        engine: None,
    })
}
