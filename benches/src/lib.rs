//! What a packet costs the director, without a network card: the rig that all benches share.
//!
//! ```text
//!        ┌────────── one thread ───────────────────────────────┐
//!        │  Feed::receive ─► Worker::breathe ─► Feed::send     │   the director
//!        │  Feed::receive ─► swap MAC addresses ─► Feed::send  │   the floor
//!        └─────────────────────────────────────────────────────┘
//! ```
//!
//! [`Feed`] is a link that makes the packets and looks at what comes back, on the same core.
//! [`Rig`] is a director of one service and [`rig::DESTS`] destinations between two of its ends,
//! [`Floor`] the least that anything between them can cost. What a packet costs is the difference.
#![forbid(unsafe_code)]

pub mod case;
pub mod control;
pub mod count;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod feed;
pub mod flow;
pub mod handoff;
pub mod limit;
pub mod link;
pub mod measure;
pub mod plot;
pub mod probe;
pub mod report;
pub mod rig;
pub mod scenario;
mod script;

pub use case::{Case, Family, Link, Mode};
pub use feed::Feed;
pub use rig::{Floor, Rig};
