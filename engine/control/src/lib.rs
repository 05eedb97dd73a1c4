//! The slow half: what an operator says, validated, kept, and made into what workers read.
//!
//! ```text
//!  file ──config──► Config                          what cannot change while running
//!  sockets ─server, netlink─► Desk ──► Director: State ──compile──► Snapshot ──Publisher──► workers
//!         ◄──────────           Lines, Conns, Summary ◄──counters, rings── workers
//! ```
#![forbid(unsafe_code)]

pub mod access;
pub mod compile;
pub mod config;
pub mod conns;
pub mod desk;
pub mod director;
pub mod journal;
pub mod netlink;
pub mod rates;
pub mod server;
pub mod socket;
pub mod state;
pub mod store;
pub mod summary;
mod tally;
