//! Does it work between real kernels?
//!
//! ```text
//!  topologies/*.toml ── topology ─┬─► netns: hosts as network namespaces, networks as wires or bridges
//!                                 └─► compose, engine, containers: hosts as containers
//!                                      │
//!            director: rvsd on TAP links, told by rvsadm     web, decap: the real servers' programs
//!                                      │
//!          stage ──►     cases: curl asks, answers and counters must agree
//! ```
//!
//! A lab lives in a mount namespace of its own, with a private `/run`: its namespaces have plain
//! names that collide with nobody's, every program in it dies with the lab ([`process`]), and the
//! kernel takes down what is left when the last of them is gone, whatever ended the lab.
#![forbid(unsafe_code)]

pub mod cases;
pub mod compose;
pub mod containers;
pub mod decap;
pub mod director;
pub mod engine;
pub mod faults;
pub mod ftp;
pub mod functional;
pub mod host;
pub mod inspect;
pub mod keepalived;
pub mod lab;
pub mod netns;
pub mod probe;
pub mod process;
pub mod share;
pub mod stage;
pub mod topology;
pub mod traffic;
pub mod web;
pub mod wire;
