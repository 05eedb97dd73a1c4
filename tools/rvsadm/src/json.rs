//! `--json`: what listings tell, for programs. The names are those of the files of `apply`, and of
//! what is counted those of rvsd's control protocol.
//!
//! One object on one line. A service is listed with all that is known of it, whichever of `--stats`,
//! `--rate`, `--thresholds` and `--persistent-conn` was said.

use crate::option::{Opt, Options};
use crate::sort;
use core::net::SocketAddr;
use rvs_api::{
    ConnEngine, ConnEntry, Daemon, DestEntry, DestRule, Info, Rates, Reply, RuleTimeouts,
    ServiceEntry, ServiceRule, Totals, Tunable,
};
use rvs_model::Protocol;
use serde::Serialize;

/// What a listing of everything begins with.
#[derive(Default, Serialize)]
pub(crate) struct Head {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
}

impl From<&Info> for Head {
    fn from(info: &Info) -> Self {
        let (major, minor, patch) = info.version;
        Self { version: Some(format!("{major}.{minor}.{patch}")), size: Some(info.size) }
    }
}

#[derive(Serialize)]
struct Services<'e> {
    #[serde(flatten)]
    head: Head,
    service: Vec<Service<'e>>,
}

#[derive(Serialize)]
struct Service<'e> {
    #[serde(flatten)]
    rule: ServiceRule,
    totals: &'e Totals,
    rates: &'e Rates,
    dest: Vec<Dest<'e>>,
}

#[derive(Serialize)]
struct Dest<'e> {
    #[serde(flatten)]
    rule: DestRule,
    active: u32,
    inactive: u32,
    persistent: u32,
    totals: &'e Totals,
    rates: &'e Rates,
}

#[derive(Serialize)]
struct Conn<'e> {
    /// None in a template of a mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    client: SocketAddr,
    vip: SocketAddr,
    dest: SocketAddr,
    state: &'static str,
    expires_s: u32,
    age_s: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'e ConnEngine>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Other<'e> {
    Connection(Vec<Conn<'e>>),
    Timeouts(RuleTimeouts),
    Daemon(&'e [Daemon]),
    Tunable(&'e [Tunable]),
}

/// The line of a reply; `head` goes before services.
pub(crate) fn text(head: Head, options: Options, reply: &Reply) -> String {
    let other = match reply {
        Reply::Services(entries) => {
            return line(&Services { head, service: services(options, entries) });
        }
        Reply::Conns(entries) => Other::Connection(entries.iter().map(conn).collect()),
        Reply::Timeouts(timeouts) => Other::Timeouts((*timeouts).into()),
        Reply::Daemons(daemons) => Other::Daemon(daemons),
        Reply::Tunables(tunables) => Other::Tunable(tunables),
        Reply::Done | Reply::Info(_) | Reply::Changes(_) => return String::new(),
    };
    line(&other)
}

fn line(it: &impl Serialize) -> String {
    // Only a map whose keys are no texts cannot be written.
    serde_json::to_string(it).unwrap_or_default() + "\n"
}

fn services(options: Options, entries: &[ServiceEntry]) -> Vec<Service<'_>> {
    let is_sorted = !options.has(Opt::NoSort);
    let sorted = if is_sorted { sort::services(entries) } else { entries.iter().collect() };
    sorted.into_iter().map(|entry| service(entry, is_sorted)).collect()
}

fn service(entry: &ServiceEntry, is_sorted: bool) -> Service<'_> {
    let ServiceEntry { service, attributes, totals, rates, dests } = entry;
    let rule = ServiceRule { service: *service, attributes: attributes.clone(), dests: Vec::new() };
    let dests = if is_sorted { sort::dests(dests) } else { dests.iter().collect() };
    Service { rule, totals, rates, dest: dests.into_iter().map(dest).collect() }
}

fn dest(entry: &DestEntry) -> Dest<'_> {
    Dest {
        rule: DestRule { dest: entry.dest, attributes: entry.attributes },
        active: entry.active,
        inactive: entry.inactive,
        persistent: entry.persistent,
        totals: &entry.totals,
        rates: &entry.rates,
    }
}

fn conn(entry: &ConnEntry) -> Conn<'_> {
    Conn {
        protocol: entry.protocol,
        client: entry.client,
        vip: entry.vip,
        dest: entry.dest,
        state: entry.state.name(),
        expires_s: entry.expires_s,
        age_s: entry.age_s,
        engine: entry.engine.as_ref(),
    }
}
