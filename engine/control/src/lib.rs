//! The slow half: what an operator says, validated, kept, and made into what workers read.
//!
//! ```text
//!  file ──config──► Config                          what cannot change while running
//!  socket ──server──► Director: State ──compile──► Snapshot ──Publisher──► workers
//!         ◄──────────           Lines, Conns, Summary ◄──counters, rings── workers
//! ```
#![forbid(unsafe_code)]

pub mod compile;
pub mod config;
pub mod conns;
pub mod director;
pub mod journal;
pub mod rates;
pub mod server;
pub mod state;
pub mod summary;
