//! The kernel as judge: recordings of Linux IPVS, played to rvs.
//!
//! ```text
//!  goldens/*.json ─golden─► judge::{scheduler, states, behaviour, packets, commands, environment}
//!                              │ plays each event
//!                              ▼
//!                           scene: the recorded stage ─ stage: Director + Worker on memory links
//!                              │ what came out
//!                              ▼
//!                           tally: equal, compared, not covered, the first difference
//! ```
//!
//! Whether something is covered is decided by rule, never by a file's name: what rvsd refuses to
//! configure, the recording is not held against it, and the reason is told. What is compared is
//! compared exactly, but for what the recordings themselves call random or not sharp ([`rows`],
//! `judge::packets`).
#![forbid(unsafe_code)]

pub mod ask;
pub mod golden;
pub mod judge;
pub mod marks;
pub mod packet;
pub mod pieces;
pub mod report;
pub mod rows;
pub mod scene;
pub mod stage;
pub mod tally;

pub use report::{Outcome, Report, run};
