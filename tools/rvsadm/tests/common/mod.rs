//! A table in this process, driven as a user drives it.
#![allow(dead_code, reason = "each of the tests uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that fails shall stop")]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rvs_adm::{Names, Transport, run};
use rvs_api::{
    AddressFamily, ClientError, ConnEntry, FwMark, Outcome, Reply, Request, ServiceKey, Totals,
};
use rvs_control::state::{Limits, Readings, State};
use rvs_model::{DestId, Load, Protocol};
use std::collections::HashMap;

/// What a command came to.
#[derive(Debug, Eq, PartialEq)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// What would be counted if there were traffic.
#[derive(Default)]
pub struct Traffic {
    pub loads: HashMap<DestId, Load>,
    pub totals: HashMap<DestId, Totals>,
    pub templates: HashMap<DestId, u32>,
    pub conns: Vec<ConnEntry>,
}

impl Readings for Traffic {
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

/// The table and its traffic.
pub struct Table {
    pub state: State,
    pub traffic: Traffic,
}

/// As many as a test needs, and the size that the recordings show.
pub const LIMITS: Limits = Limits { services: 20_000, dests: 200_000, conns: 4096 };

impl Table {
    pub fn new(state: State) -> Self {
        Self { state, traffic: Traffic::default() }
    }

    /// The words of `line` after the program's name, as `ipvsadm`.
    pub fn say(&mut self, line: &str, stdin: &str, names: &dyn Names) -> Said {
        let words = core::iter::once("ipvsadm").chain(line.split_ascii_whitespace());
        let argv: Vec<String> = words.map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&argv, &mut stdin.as_bytes(), self, names, &mut out, &mut err);
        Said { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }

    /// Where the destination of a service has its place.
    pub fn dest(&self, service: &ServiceKey, dest: SocketAddr) -> Option<DestId> {
        let service = self.state.service(service)?;
        self.state
            .dests_of(service)
            .find(|row| row.address() == dest)
            .map(rvs_control::state::Dest::id)
    }
}

impl Transport for Table {
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        let Self { state, traffic } = self;
        let outcomes = requests.iter().map(|request| match request {
            Request::ListConns => Ok(Reply::Conns(traffic.conns.clone())),
            // All connections of a table in a test are of the service that is asked for.
            Request::ListConnsWhere(filter) => {
                let admits = |conn: &&ConnEntry| filter.admits(conn, filter.service.as_ref());
                Ok(Reply::Conns(traffic.conns.iter().filter(admits).cloned().collect()))
            }
            request => state.apply(request.clone(), traffic),
        });
        Ok(outcomes.collect())
    }
}

/// Hosts as the recording had them in /etc/hosts, and what services(5) of Debian 12 says of the
/// ports that occur.
#[derive(Default)]
pub struct RecordedNames {
    hosts: Vec<(IpAddr, String)>,
}

const SERVICES: [(u16, Protocol, &str); 8] = [
    (21, Protocol::Tcp, "ftp"),
    (53, Protocol::Tcp, "domain"),
    (53, Protocol::Udp, "domain"),
    (80, Protocol::Tcp, "http"),
    (443, Protocol::Tcp, "https"),
    (7000, Protocol::Tcp, "bbs"),
    (7100, Protocol::Tcp, "font-service"),
    (8080, Protocol::Tcp, "http-alt"),
];

impl RecordedNames {
    pub fn new(hosts: &str) -> Self {
        let lines = hosts.lines().filter_map(|line| line.split_once(' '));
        Self { hosts: lines.map(|(ip, name)| (ip.parse().unwrap(), name.to_owned())).collect() }
    }
}

impl Names for RecordedNames {
    fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.hosts.iter().filter(|(_, name)| name == host).find_map(|(ip, _)| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        })
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        let found = self.hosts.iter().find(|(ip, _)| *ip == address);
        found.map(|(_, name)| name.clone())
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        let found = SERVICES.iter().find(|(_, p, name)| (*p, *name) == (protocol, service));
        found.map(|(port, ..)| *port)
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        let found = SERVICES.iter().find(|(other, p, _)| (*other, *p) == (port, protocol));
        found.map(|(.., name)| (*name).to_owned())
    }
}

/// The service that a row of a numeric listing names.
pub fn service_of(row: &str) -> Option<ServiceKey> {
    let mut words = row.split_whitespace();
    let (kind, name) = (words.next()?, words.next()?);
    let protocol = match kind {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        "FWM" => {
            let mark = FwMark(name.parse().ok()?);
            let v6 = words.next() == Some("IPv6");
            let family = if v6 { AddressFamily::V6 } else { AddressFamily::V4 };
            return Some(ServiceKey::Mark { mark, family });
        }
        _ => return None,
    };
    Some(ServiceKey::Address { protocol, address: name.parse().ok()? })
}
