//! What is said on rvsd's control socket: requests and replies in IPVS terms, their framing, and a
//! client.
//!
//! ```text
//!  rvsadm ──Hello──► rvsd          u32 length (network order) · JSON
//!         ◄──Hello──
//!         ──[Request, …]──►        one frame carries a batch; 100 000 lines of `-R` are few frames
//!         ◄──Answers── …           outcomes in the order of the requests, until `last`
//! ```
//!
//! Attributes carry everything that ipvsadm 1.31 and the kernel's netlink family can say, whether
//! this version of the engine honours it or refuses it. An outcome is a [`Reply`] or a [`Refusal`]
//! with the kernel's error number, because the words that people know depend on it.
//!
//! [`codec`] is pure but for its helpers over `Read` and `Write`; nothing here opens a socket but
//! [`Client::connect`].
#![forbid(unsafe_code)]

mod access;
mod client;
pub mod codec;
mod command;
mod errno;
mod place;
mod reply;
mod request;
mod rules;
mod service;
pub mod words;

pub use access::Access;
pub use client::{Client, ClientError};
pub use errno::{Errno, Refusal};
pub use place::line_and_column;
pub use reply::{
    ConnEngine, ConnEntry, ConnState, DestEntry, Info, Outcome, Rates, Reply, ServiceEntry, Totals,
    Tunable,
};
pub use request::{ConnFilter, Daemon, DaemonState, Request, TimeoutsChange};
pub use rules::{DestRule, RuleTimeouts, Rules, ServiceRule};
pub use service::{
    AddressFamily, DestAttributes, FwMark, Netmask, ServiceAttributes, ServiceFlags, ServiceKey,
    Tunnel, TunnelChecksum, TunnelKind,
};

/// Version of what is said. Both ends must have the same one.
pub const VERSION: u32 = 1;

/// Where rvsd listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/rvs/rvsd.sock";

/// The version of IPVS whose interface this is, as `ipvsadm -L` prints it (Linux 6.1
/// `include/uapi/linux/ip_vs.h` `IP_VS_VERSION_CODE`).
pub const IPVS_VERSION: (u8, u8, u8) = (1, 2, 1);
