//! rvs-pktgen: traffic for a director, made and judged.
//!
//! ```text
//!            ┌──────── client end ────────┐                  ┌─────── servers' end ───────┐
//!  schedule ─► deck ─► template ─► frame ─┼─► link ─►        │                            │
//!            │                            │        director ─┼─► link ─► arrival ─► judge │
//!            │ judge ◄─ reply ◄───────────┼─◄ link ◄─        │            │ echo ─► link ─┼─► back
//!            └────────────────────────────┘                  └────────────────────────────┘
//! ```
//!
//! Both ends may be in one process, which then tells what became of every packet and how long it
//! took one way; or the servers' end is a sink of its own elsewhere. The generator is an open loop:
//! each packet has a time at which it is due, whatever became of those before it, and carries that
//! time. A stall of the director or of the generator itself thus delays the packets that were due
//! meanwhile, and is seen (Gil Tene calls what closed loops do instead coordinated omission).
//!
//! One thread, bursts, everything allocated at the start. What the packets say of themselves is in
//! [`record`], what is asked of a run in [`scenario`].
#![forbid(unsafe_code)]

pub mod args;
pub mod arrival;
pub mod cli;
pub mod clock;
pub mod cost;
pub mod deck;
pub mod hosts;
pub mod judge;
pub mod latency;
pub mod link;
pub mod pace;
pub mod parse;
pub mod plot;
pub mod record;
pub mod report;
pub mod scenario;
pub mod search;
pub mod sender;
pub mod sink;
pub mod template;
pub mod trial;

use std::path::PathBuf;

/// Why there is no result. One line.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The command line says what cannot be.
    #[error("{0}")]
    Asked(String),
    /// A TAP device.
    #[error(transparent)]
    Tap(#[from] rvs_io::tap::TapError),
    /// A device that is shared with the host's kernel.
    #[error(transparent)]
    AfXdp(#[from] rvs_io::af_xdp::AfXdpError),
    /// A device that DPDK drives.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] rvs_dpdk::DpdkError),
    /// A capture.
    #[error("capture {}: {source}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rvs_io::pcap::CaptureError,
    },
    /// A capture that could not be finished.
    #[error("the capture that was written: {0}")]
    Written(#[from] rvs_io::pcap::CaptureError),
    /// Nobody answers for the director's address.
    #[error(
        "nobody on the client's link answers {protocol} for {address}: is the director up and its \
         service added? (or name its Ethernet address by --director-mac)"
    )]
    NoDirector {
        /// ARP or neighbour discovery.
        protocol: &'static str,
        /// Who was asked for.
        address: std::net::IpAddr,
    },
    /// Connections that could not be opened.
    #[error(
        "{unanswered} of {asked} flows got no SYN-ACK from {vip}: does the service have \
         destinations, and are they this sink's? (--mix ack sends data without a handshake)"
    )]
    NoHandshake {
        /// Flows without one.
        unanswered: u64,
        /// Flows that are to have one.
        asked: u64,
        /// The service.
        vip: std::net::SocketAddr,
    },
    /// A result that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A plot that cannot be drawn.
    #[error("cannot draw {}: {what}", path.display())]
    Plot {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A signal handler that cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// Somebody wants it to end before there is anything to tell.
    #[error("interrupted")]
    Interrupted,
}
