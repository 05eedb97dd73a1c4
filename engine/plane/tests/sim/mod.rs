//! A small internet around a director: clients, servers, wires that lose, and a judge.
//!
//! ```text
//!   Clients ──► Wire ──► link 0 ┐                     ┌ link 1 ──► Wire ──► Servers
//!      ▲                        ├─ the director, a ───┤                       │
//!      └─────── Wire ◄──────────┘  worker at a time   └◄──── masqueraded ◄────┤
//!      ▲                              │                                       │
//!      └──────────────────────────────┼──────── Wire ◄─── all other replies ◄─┘
//!                                     ▼
//!                                   Judge: after every breath
//! ```
//!
//! Everything follows from one number: who breathes, what is lost, when an operator changes his
//! mind.

pub mod client;
pub mod judge;
pub mod menu;
pub mod random;
pub mod rss;
pub mod scene;
pub mod server;
pub mod wire;
pub mod world;
