//! `rvsadm`: ipvsadm 1.31's grammar, words, formats and exit codes, spoken to rvsd.
//!
//! ```text
//!  argv ─ popt ─► options ─ args ─► Invocation ─ run ─► Transport ─► rvsd
//!                 rules: what goes with what            │
//!                 values: numbers, addresses            ▼
//!  stdout ◄─ print, sort ◄──────────────────────────── replies      stderr ◄─ words
//! ```
//!
//! Everything is a function of its arguments: the socket is a [`Transport`], the resolver is
//! [`Names`], the standard streams are parameters of [`run()`]. So tests and the conformance runner
//! drive it in their own process.
//!
//! Where ipvsadm is odd, so is this, since scripts know it: order of options matters, `-R` goes on
//! after the kernel's errors, addresses 2^31 apart sort the wrong way round.
#![forbid(unsafe_code)]

mod args;
mod cli;
mod drain;
mod file;
mod json;
mod names;
mod option;
mod own;
mod popt;
mod print;
mod rules;
mod run;
mod sort;
mod transport;
mod usage;
mod values;

pub use names::{Names, NumbersOnly, SystemNames};
pub use run::run;
pub use transport::{SocketTransport, Transport};
