//! The nouns of LVS, shared by the control plane and the data path. Names are the kernel's.
#![forbid(unsafe_code)]

mod counters;
mod id;
mod service;
mod setting;
mod state;
mod sysctl;
mod time;
mod tunables;

pub use counters::{DestLine, Load};
pub use id::{DestId, ServiceId};
pub use service::{ForwardMethod, Protocol, SchedulerKind, StaleUdp, UnknownScheduler, Weight};
pub use setting::Setting;
pub use state::State;
pub use sysctl::{Allowed, Effect, SYSCTLS, Sysctl, SysctlError, Sysctls};
pub use time::{TICKS_PER_SECOND, Tick, ticks};
pub use tunables::{Timeouts, Tunables};
