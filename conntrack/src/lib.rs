//! Which destination an old connection has, and for how long: the connections of one worker.
//!
//! ```text
//!            key ─► Table ── index ─► Conn            one line (IPv4) or two (IPv6)
//!                                      │ due                     state::next
//!  Wheel ── what falls due ────────────┘
//!  HalfOpen ── who goes first when the table is full
//! ```
//!
//! [`Conns`] holds the three together and is what a worker has, one for each address family. All
//! memory is taken when it is made; nothing here allocates, waits, reads a clock or shares a cache
//! line with another worker. Time is an argument, in [`rvs_model::Tick`].
//!
//! Read in this order: [`conn`], [`table`], [`wheel`], [`state`], [`half_open`], [`conns`],
//! [`template`].
#![forbid(unsafe_code)]

pub mod ageing;
mod bucket;
pub mod conn;
pub mod conns;
pub mod half_open;
pub mod hash;
mod num;
pub mod state;
pub mod table;
pub mod template;
pub mod wheel;

pub use ageing::Ageing;
pub use conn::{Conn, Direction};
pub use conns::{Conns, Held};
pub use hash::{Hash, Seed};
pub use table::{Capacity, CapacityError, Found, Full, Guesser, Table};
