//! The configuration file: what cannot change while the director runs.
//!
//! ```text
//!  TOML text ──file──► as written, every value with its place
//!            ──check─► numbers in range, names known
//!            ──links─► interfaces, routes, neighbours: one `Network`
//!            ──marks─► what to look for in packets
//! ```
//!
//! An unknown key is refused, and so is everything that cannot be meant. An error is one line that
//! says where, what was found and what is allowed; the first one found is the only one told, and
//! nothing starts. Services are not configured here but through the control socket.

mod af_xdp;
mod check;
mod dpdk;
mod file;
mod links;
mod marks;
#[cfg(test)]
mod tests;

use crate::access::Rules;
use crate::store::Sync;
pub use af_xdp::AfXdpLink;
use core::fmt;
pub use dpdk::{Dpdk, DpdkLink, Side};
pub use links::LINKS_MAX;
use rvs_model::{Sysctls, Timeouts};
use rvs_plane::marks::Rule;
use rvs_plane::network::Network;
use rvs_wire::mac::MacAddr;
use std::path::{Path, PathBuf};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// How operators reach us.
    pub control: Control,
    /// The worker threads.
    pub workers: Workers,
    /// How much fits.
    pub tables: Tables,
    /// How DPDK starts, if links are its.
    pub dpdk: Dpdk,
    /// The devices, by the link index that [`Network`]'s interfaces refer to.
    pub links: Links,
    /// Interfaces, addresses, routes, configured neighbours.
    pub network: Network,
    /// What packets are marked for, the first that matches.
    pub marks: Vec<Rule>,
    /// How long connections outlive their last packet.
    pub timeouts: Timeouts,
    /// Corner cases, as they are at the start.
    pub sysctls: Sysctls,
}

/// `[control]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Control {
    /// Path of the socket that rvsadm uses.
    pub socket: PathBuf,
    /// Path of the socket that unmodified ipvsadm and keepalived use.
    pub netlink: PathBuf,
    /// Permissions of both.
    pub mode: u32,
    /// Owner of both, if not who runs rvsd.
    pub owner: Option<u32>,
    /// Group of both, if not that of who runs rvsd.
    pub group: Option<u32>,
    /// Who may do what there.
    pub rules: Rules,
    /// Where services are kept; `None` if they end with rvsd.
    pub state: Option<PathBuf>,
    /// When what is kept is on the disk.
    pub sync: Sync,
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// It sleeps a little, and longer the longer nothing comes.
    #[default]
    Adaptive,
    /// It goes on asking: the shortest latency, one core at 100 %.
    Poll,
}

/// `[workers]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workers {
    /// One worker on each of these cores; none listed is one worker on any core.
    pub cores: Vec<usize>,
    /// Frames that one breath takes in, over all links.
    pub burst: usize,
    /// Whether the tables ask for huge pages.
    pub huge_pages: bool,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// Whether TAP links carry what kernels leave to cards: frames of up to 64 KB, checksums that the
    /// receiver's end finishes.
    pub offload: bool,
}

impl Workers {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.cores.len()).unwrap_or(u16::MAX).max(1)
    }
}

/// `[tables]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tables {
    /// IPv4 connections of each worker.
    pub conns4: u32,
    /// IPv6 connections of each worker.
    pub conns6: u32,
    /// Services of the director.
    pub services: u32,
    /// Destinations of the director, deleted ones that still have connections included.
    pub dests: u32,
    /// Neighbours of each worker.
    pub neighbors: u32,
    /// Frames of each worker.
    pub frames: usize,
    /// Octets of the longest frame, from its Ethernet header on.
    pub frame_octets: usize,
}

/// All links of a director; they are of one kind, because a worker is compiled for each kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Links {
    /// TAP devices.
    Tap(Vec<TapLink>),
    /// Captures.
    Pcap(Vec<PcapLink>),
    /// Network cards driven by DPDK.
    Dpdk(Vec<DpdkLink>),
    /// Devices shared with the host's kernel.
    AfXdp(Vec<AfXdpLink>),
}

impl Links {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Tap(links) => links.len(),
            Self::Pcap(links) => links.len(),
            Self::Dpdk(links) => links.len(),
            Self::AfXdp(links) => links.len(),
        }
    }

    /// The word of `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tap(_) => "tap",
            Self::Pcap(_) => "pcap",
            Self::Dpdk(_) => "dpdk",
            Self::AfXdp(_) => "af_xdp",
        }
    }
}

/// A TAP device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TapLink {
    /// The device's name.
    pub device: String,
    /// MTU that the device is given; `None` leaves it as it is.
    pub mtu: Option<u16>,
}

/// A capture that is read, and one that is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PcapLink {
    /// Frames from here; none if absent.
    pub read: Option<PathBuf>,
    /// Frames to here; what is sent is refused, and counted so, if absent.
    pub write: Option<PathBuf>,
}

/// What the configuration is checked against.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Numbers of the cores that this process may run on.
    pub cores: Vec<usize>,
    /// Its host name, which Ethernet addresses that are not configured are made from.
    pub name: String,
}

/// A configuration that cannot be used. Prints as one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Line and column, both from 1, if the error has a place.
    pub place: Option<(usize, usize)>,
    /// What was found and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, message } = self;
        match place {
            Some((line, column)) => write!(f, "{file}:{line}:{column}: {message}"),
            None => write!(f, "{file}: {message}"),
        }
    }
}

impl Config {
    /// The sizes of each worker's tables.
    #[must_use]
    pub fn limits(&self) -> rvs_plane::Limits {
        let Tables { conns4, conns6, services, dests, neighbors, .. } = self.tables;
        let Workers { burst, huge_pages, .. } = self.workers;
        rvs_plane::Limits { conns4, conns6, services, dests, neighbors, burst, huge_pages }
    }

    /// Names by which operators know the director's links: their own, and those of their devices.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.network.interfaces().iter().map(|interface| interface.name.clone()).collect();
        match &self.links {
            Links::Tap(links) => names.extend(links.iter().map(|link| link.device.clone())),
            Links::AfXdp(links) => names.extend(links.iter().map(|link| link.device.clone())),
            Links::Pcap(_) | Links::Dpdk(_) => {}
        }
        names
    }

    /// Reads and checks a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it cannot be read or says something that cannot be.
    pub fn read(path: &Path, machine: &Machine) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.display().to_string(),
            place: None,
            message: format!("cannot read it: {error}"),
        })?;
        Self::parse(path, &text, machine)
    }

    /// Checks `text` as if it were read from `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it says something that cannot be.
    pub fn parse(path: &Path, text: &str, machine: &Machine) -> Result<Self, ConfigError> {
        check::config(text, path.parent().unwrap_or(Path::new("")), machine)
            .map_err(|flaw| flaw.in_file(path, text))
    }
}

/// The Ethernet address of a link that has none configured: locally administered, the same at every
/// start, different on every host.
#[must_use]
pub fn derived_mac(host: &str, link: &str) -> MacAddr {
    // FNV-1a: any even spread will do, and a well-known one can be recomputed.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for octet in host.bytes().chain([0]).chain(link.bytes()) {
        hash = (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }
    let [_, _, mut octets @ ..] = hash.to_be_bytes();
    // IEEE 802: bit 1 of the first octet marks a local address, bit 0 a group.
    octets[0] = (octets[0] & 0xfc) | 2;
    MacAddr(octets)
}
