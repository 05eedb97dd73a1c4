//! What is measured: a way of forwarding, a family, how many flows, how many frames at once.

use core::fmt;
use rvs_model::ForwardMethod;
use serde::{Deserialize, Serialize};

/// What the packets are, and what the director does with them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Mode {
    /// Clients' packets of established connections, direct routing.
    Dr,
    /// The same, masqueraded.
    Nat,
    /// Clients' and destinations' packets of established connections in turn, masqueraded.
    NatBoth,
    /// Clients' packets of established connections, IP in IP.
    Tun,
    /// Each packet opens a connection, direct routing; the table fills up from empty.
    SynDr,
    /// The same, masqueraded.
    SynNat,
    /// Each packet opens a connection and another one expires, direct routing; so many are held.
    SynExpireDr,
    /// The same, masqueraded.
    SynExpireNat,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Dr,
        Self::Nat,
        Self::NatBoth,
        Self::Tun,
        Self::SynDr,
        Self::SynNat,
        Self::SynExpireDr,
        Self::SynExpireNat,
    ];

    /// Its name in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::NatBoth => "nat_both",
            Self::Tun => "tun",
            Self::SynDr => "syn_dr",
            Self::SynNat => "syn_nat",
            Self::SynExpireDr => "syn_expire_dr",
            Self::SynExpireNat => "syn_expire_nat",
        }
    }

    /// How packets reach their destination.
    #[must_use]
    pub const fn method(self) -> ForwardMethod {
        match self {
            Self::Dr | Self::SynDr | Self::SynExpireDr => ForwardMethod::Direct,
            Self::Nat | Self::NatBoth | Self::SynNat | Self::SynExpireNat => {
                ForwardMethod::Masquerade
            }
            Self::Tun => ForwardMethod::Tunnel,
        }
    }

    /// Whether packets belong to connections that are there.
    #[must_use]
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Dr | Self::Nat | Self::NatBoth | Self::Tun)
    }

    /// Whether connections expire while it is measured.
    #[must_use]
    pub const fn expires(self) -> bool {
        matches!(self, Self::SynExpireDr | Self::SynExpireNat)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Address family of everything in a case, and of its tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Its name in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What frames come through.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Link {
    /// None: packets are made in the director's own burst.
    Memory,
    /// DPDK's `net_ring`: pointers in rings.
    NetRing,
    /// DPDK's `net_pcap`: captures, read and written by libpcap.
    NetPcap,
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::NetRing, Self::NetPcap];

    /// Its name in tables and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NetRing => "net_ring",
            Self::NetPcap => "net_pcap",
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing to be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// What the packets are.
    pub mode: Mode,
    /// Their family.
    pub family: Family,
    /// Connections: those that packets belong to, or that the table is filled with, or held.
    pub flows: u32,
    /// Frames per breath.
    pub burst: usize,
    /// Whether tables ask for huge pages.
    pub huge_pages: bool,
    /// Services, on one address. More than one have no masqueraded replies.
    pub services: u16,
    /// Destinations of each service; [`crate::rig::DESTS`] for masqueraded replies.
    pub dests: u16,
}

impl Case {
    /// As nearly all cases are: bursts of 64, huge pages, one service of four destinations.
    #[must_use]
    pub const fn new(mode: Mode, family: Family, flows: u32) -> Self {
        Self { mode, family, flows, burst: 64, huge_pages: true, services: 1, dests: 4 }
    }
}
