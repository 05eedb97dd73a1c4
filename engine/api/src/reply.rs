//! What rvsd answers.

use crate::{
    Daemon, DestAttributes, Refusal, Request, ServiceAttributes, ServiceKey, TimeoutsChange,
};
use core::net::SocketAddr;
use rvs_model::{Protocol, State};
use serde::{Deserialize, Serialize};

/// What became of one request.
pub type Outcome = Result<Reply, Refusal>;

/// The answer to a request that was carried out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// To [`ListServices`](crate::Request::ListServices), in no order of meaning.
    Services(Vec<ServiceEntry>),
    /// To [`ListConns`](crate::Request::ListConns), in no order of meaning.
    Conns(Vec<ConnEntry>),
    /// To [`GetTimeouts`](crate::Request::GetTimeouts).
    Timeouts(TimeoutsChange),
    /// To [`GetInfo`](crate::Request::GetInfo).
    Info(Info),
    /// To [`ListDaemons`](crate::Request::ListDaemons): none, one or both.
    Daemons(Vec<Daemon>),
    /// To [`ListTunables`](crate::Request::ListTunables) and
    /// [`SetTunable`](crate::Request::SetTunable), by name.
    Tunables(Vec<Tunable>),
    /// To [`Apply`](crate::Request::Apply): what was changed, or would be.
    Changes(Vec<Request>),
}

/// A sysctl of `net.ipv4.vs`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tunable {
    /// Its name.
    pub name: String,
    /// What it is set to.
    pub value: String,
    /// What it is otherwise.
    pub default: String,
    /// What it may be set to, in words.
    pub allowed: String,
    /// What it does, or why it does nothing, in one line.
    pub sentence: String,
    /// Whether it does anything here.
    pub has_effect: bool,
}

/// What a daemon is asked first.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Info {
    /// Version of IPVS whose rules are kept.
    pub version: (u8, u8, u8),
    /// Size of the connection table, as the first line of `-L` prints it.
    pub size: u32,
}

/// What was counted since the last `-Z`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Connections opened.
    pub conns: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Octets from clients, IP total length.
    pub octets_in: u64,
    /// Octets to clients, IP total length.
    pub octets_out: u64,
}

impl Totals {
    fn each(self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            conns: join(self.conns, other.conns),
            packets_in: join(self.packets_in, other.packets_in),
            packets_out: join(self.packets_out, other.packets_out),
            octets_in: join(self.octets_in, other.octets_in),
            octets_out: join(self.octets_out, other.octets_out),
        }
    }

    /// Both together; counters wrap.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::wrapping_add)
    }

    /// What came since `start`; counters wrap.
    #[must_use]
    pub fn since(self, start: Self) -> Self {
        self.each(start, u64::wrapping_sub)
    }

    /// In the order of ipvsadm's columns.
    #[must_use]
    pub const fn columns(self) -> [u64; 5] {
        [self.conns, self.packets_in, self.packets_out, self.octets_in, self.octets_out]
    }
}

/// What was counted lately, per second; octets where ipvsadm's heading says `BPS`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rates {
    /// Connections opened.
    pub conns: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Octets from clients.
    pub octets_in: u64,
    /// Octets to clients.
    pub octets_out: u64,
}

impl Rates {
    /// In the order of ipvsadm's columns.
    #[must_use]
    pub const fn columns(self) -> [u64; 5] {
        [self.conns, self.packets_in, self.packets_out, self.octets_in, self.octets_out]
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A service with its destinations.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceEntry {
    /// Which.
    pub service: ServiceKey,
    /// What it is.
    pub attributes: ServiceAttributes,
    /// What all its destinations counted, deleted ones included.
    #[serde(default, skip_serializing_if = "is_default")]
    pub totals: Totals,
    /// The same per second.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rates: Rates,
    /// Its destinations in the order that schedulers see: the one added last comes first.
    #[serde(default)]
    pub dests: Vec<DestEntry>,
}

/// A destination.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DestEntry {
    /// Address and port.
    pub dest: SocketAddr,
    /// What it is.
    pub attributes: DestAttributes,
    /// Connections in an active state.
    #[serde(default, skip_serializing_if = "is_default")]
    pub active: u32,
    /// All other connections.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inactive: u32,
    /// Persistence templates.
    #[serde(default, skip_serializing_if = "is_default")]
    pub persistent: u32,
    /// What it counted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub totals: Totals,
    /// The same per second.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rates: Rates,
}

/// The state of an entry of the connection table.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnState {
    /// A connection.
    Conn(State),
    /// A persistence template, and whether one of its connections was ever established.
    Template {
        /// Prints ASSURED rather than NONE.
        assured: bool,
    },
}

impl ConnState {
    /// What `-Lc` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conn(state) => state.name(),
            Self::Template { assured: true } => "ASSURED",
            Self::Template { assured: false } => "NONE",
        }
    }
}

/// An entry of the connection table.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConnEntry {
    /// `None` for a template of a fwmark service, which spans protocols and prints `IP`.
    pub protocol: Option<Protocol>,
    /// The client; port zero in a template.
    pub client: SocketAddr,
    /// The virtual address.
    pub vip: SocketAddr,
    /// The destination.
    pub dest: SocketAddr,
    /// Its state.
    pub state: ConnState,
    /// Whole seconds until it expires.
    pub expires_s: u32,
    /// Whole seconds since it was opened; 0 for a template.
    #[serde(default)]
    pub age_s: u32,
    /// What a persistence engine knows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<ConnEngine>,
}

/// What a persistence engine knows of a connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConnEngine {
    /// The engine's name.
    pub name: String,
    /// What it goes by, printable.
    pub data: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_survive_a_counter_that_wraps() {
        let start = Totals { conns: u64::MAX, ..Totals::default() };
        let now = Totals { conns: 2, ..Totals::default() };
        assert_eq!(now.since(start).conns, 3);
        assert_eq!(now.since(start).plus(start), now);
    }
}
