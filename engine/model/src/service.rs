//! Services and destinations: what an operator says of them.

use core::fmt;
use core::str::FromStr;
use rvs_wire::flow::protocol;
use serde::{Deserialize, Serialize};

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// Its IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

/// How packets reach a destination. The kernel's names; `ipvsadm` prints Masq, Route and Tunnel.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ForwardMethod {
    /// `-m`: addresses and ports are rewritten, replies come back through the director.
    #[default]
    Masquerade,
    /// `-g`: only the Ethernet header changes; the destination answers the client itself.
    Direct,
    /// `-i`: the packet travels inside another one; the destination answers the client itself.
    Tunnel,
}

/// What becomes of UDP flows whose destination is removed or gets weight 0: UDP says nothing of its
/// end, and a client that never pauses keeps a flow for ever.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StaleUdp {
    /// As in the kernel: what `expire_nodest_conn` says of a removed destination; one of weight 0
    /// keeps them.
    #[default]
    Keep,
    /// Each gets another destination with its next packet.
    Rebind,
    /// All of them end at once; a next packet begins another flow.
    Expire,
}

impl StaleUdp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Rebind, Self::Expire];

    /// What `--stale-udp` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Rebind => "rebind",
            Self::Expire => "expire",
        }
    }
}

/// Relative share of new connections. Zero drains: old connections stay, new ones go elsewhere.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Weight(pub u32);

impl Weight {
    /// Takes no new connections.
    pub const DRAIN: Self = Self(0);

    /// Whether a destination of this weight may be given a new connection.
    #[inline]
    #[must_use]
    pub const fn is_eligible(self) -> bool {
        self.0 != 0
    }
}

/// The schedulers there are, by the names that `-s` takes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    #[default]
    Wlc,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Locality-based least connections.
    Lblc,
    /// The same with replication.
    Lblcr,
    /// Source hashing.
    Sh,
    /// Destination hashing.
    Dh,
    /// Weighted failover.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Maglev hashing.
    Mh,
    /// Power of two choices.
    Twos,
    /// Nobody chooses: no new connections.
    None,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Sed,
        Self::Nq,
        Self::Lblc,
        Self::Lblcr,
        Self::Sh,
        Self::Dh,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
        Self::Twos,
        Self::None,
    ];

    /// The name that `ipvsadm` takes and prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Sh => "sh",
            Self::Dh => "dh",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
            Self::None => "none",
        }
    }

    /// Whether its choice depends on how many connections destinations have.
    #[must_use]
    pub const fn counts_conns(self) -> bool {
        match self {
            Self::Lc
            | Self::Wlc
            | Self::Sed
            | Self::Nq
            | Self::Lblc
            | Self::Lblcr
            | Self::Ovf
            | Self::Twos => true,
            Self::Rr | Self::Wrr | Self::Sh | Self::Dh | Self::Fo | Self::Mh | Self::None => false,
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No scheduler has this name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "unknown scheduler (expected rr, wrr, lc, wlc, sed, nq, lblc, lblcr, sh, dh, fo, ovf, mh, twos \
     or none)"
)]
pub struct UnknownScheduler;

impl FromStr for SchedulerKind {
    type Err = UnknownScheduler;

    fn from_str(name: &str) -> Result<Self, UnknownScheduler> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownScheduler)
    }
}
