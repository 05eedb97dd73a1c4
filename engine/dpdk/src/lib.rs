//! The `dpdk` link: network cards driven from user space, one queue per worker.
//!
//! ```text
//!  Eal::start ──► Device::open ──► Port            the operator's end: link state, counters
//!  once per          │
//!  process           └──► DpdkQueue, one per worker: receive, send   (neither Clone nor Sync)
//!                         DpdkPool,  one per device, on the card's NUMA node
//!                         DpdkFrame: an mbuf that somebody owns; dropped, it is back in its pool
//! ```
//!
//! DPDK comes from the system (22.11 or later, by pkg-config) and only with the feature `libdpdk`.
//! `shim.c` holds what DPDK has as inline functions and structures that differ from release to
//! release; the C compiler checks it against the headers, the layout of a frame included. So there
//! is no generated binding, and nothing but a C compiler is needed to build it (ADR 0016).
//!
//! A frame is one buffer. Receive offloads are off: tags and checksums are in the frame, as the
//! plane wants them; what a device hands over in several buffers, or with its tag taken out and no
//! place to put it back, is counted and freed.
//!
//! [`host`] knows what a machine lacks for DPDK and which command supplies it; it needs no DPDK.

pub mod host;

#[cfg(feature = "libdpdk")]
mod device;
#[cfg(feature = "libdpdk")]
mod eal;
#[cfg(feature = "libdpdk")]
mod frame;
#[cfg(feature = "guest")]
pub mod guest;
#[cfg(feature = "libdpdk")]
mod queue;
#[cfg(feature = "rings")]
pub mod ring;
#[cfg(feature = "libdpdk")]
mod sys;

#[cfg(feature = "libdpdk")]
pub use {
    device::{Descriptors, Device, Plan, Port, Spreading},
    eal::{Eal, EalPlan, Lcore, Pools},
    frame::{DpdkFrame, DpdkPool},
    queue::DpdkQueue,
};

/// Which end of a flow a link's queues are chosen by: who is at its other end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Side {
    /// Clients send there: their address and port are the source.
    Clients,
    /// Real servers send there: the client's address and port are the destination.
    Servers,
    /// Both, as with one arm: no single end of a packet names the client.
    #[default]
    Both,
}

/// Why DPDK or a device of it cannot be used. One line, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DpdkError {
    /// EAL can be started once in a process.
    #[error("DPDK was started in this process already")]
    Twice,
    /// An argument cannot be passed on.
    #[error("DPDK's argument {0:?} has a zero octet in it")]
    Argument(String),
    /// The machine lacks something.
    #[error("{0}")]
    Host(String),
    /// EAL refused.
    #[error("DPDK does not start: {what}{said}")]
    Eal {
        /// In the words of its errno.
        what: String,
        /// What it logged last, from a separator on; empty if nothing.
        said: String,
    },
    /// There is no such device.
    #[error("DPDK has no device {device}: {advice}{said}")]
    NoDevice {
        /// As it was configured.
        device: String,
        /// What to do.
        advice: String,
        /// What DPDK logged last.
        said: String,
    },
    /// There is, but not as wanted.
    #[error("device {device} ({driver}): {what}")]
    Cannot {
        /// As it was configured.
        device: String,
        /// Its driver.
        driver: String,
        /// What it cannot, and what would do.
        what: String,
    },
    /// The driver refused.
    #[error("device {device} ({driver}) refused {what}: {why}{said}")]
    Refused {
        /// As it was configured.
        device: String,
        /// Its driver.
        driver: String,
        /// To do what.
        what: &'static str,
        /// In the words of its errno.
        why: String,
        /// What DPDK logged last.
        said: String,
    },
    /// A worker cannot become an lcore.
    #[error("a worker cannot become a DPDK lcore: {0}")]
    Lcore(String),
}
