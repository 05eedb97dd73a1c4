//! The data path: one worker per core, run to completion.
//!
//! Read in this order: [`worker`] (the breath), `lane` (the stages of a burst), `balance` (new
//! connections), [`persist`] and [`marks`] (which follow others), `forward` (the three methods), `ftp`
//! (what is read), `stack` (everything that is not a connection's).
//! [`snapshot`] and [`network`] are what a worker is told, [`shared`] what it tells.
#![forbid(unsafe_code)]

mod admission;
mod announce;
mod atlas;
mod balance;
pub mod bell;
mod carry;
mod cut;
mod defense;
pub mod drop_reason;
mod forward;
mod fragment;
mod ftp;
pub mod grain;
pub mod handoff;
mod icmp;
mod ident;
mod ipsec;
mod lane;
mod links;
pub mod marks;
pub mod neighbor;
pub mod network;
mod obey;
mod origins;
pub mod overload;
mod path_mtu;
mod paths;
pub mod persist;
mod port;
pub mod publish;
mod quota;
mod related;
mod reunion;
pub mod servers;
pub mod services;
pub mod shared;
pub mod snapshot;
mod stack;
pub mod stage;
pub mod steering;
mod sync;
mod tunnel_error;
mod unfinished;
pub mod worker;

pub use bell::Bell;
pub use handoff::Mesh;
pub use network::Network;
pub use publish::{Publisher, Reader};
pub use shared::Shared;
pub use snapshot::Snapshot;
pub use steering::Steering;
pub use worker::{Limits, Setup, Worker};
