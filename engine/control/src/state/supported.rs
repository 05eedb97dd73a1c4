//! What this version of the engine does not do yet, all in one place.
//!
//! An operator who asks for it gets one honest line instead of a service that behaves otherwise.
//! When the engine learns something, its refusal goes away here, and nowhere else anything changes.
//! The checks of the kernel come before these.

use core::net::IpAddr;
use rvs_api::{Errno, Refusal};
use rvs_model::SchedulerKind;

/// How much of IPVS is accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Support {
    /// What the engine does.
    Engine,
    /// All that the kernel takes: for tests of the command line, behind which no engine stands.
    Everything,
}

/// The only persistence engine there is.
const KERNEL_ENGINE: &str = "sip";

impl Support {
    /// Whether there is a scheduler of this name; the kernel says ENOENT otherwise.
    pub(super) fn has_scheduler(name: &str) -> bool {
        name.parse::<SchedulerKind>().is_ok()
    }

    /// Whether there is a persistence engine of this name; the kernel says ENOENT otherwise.
    pub(super) fn has_engine(self, name: &str) -> bool {
        self == Self::Everything && name == KERNEL_ENGINE
    }

    /// Refuses the director itself as a destination.
    ///
    /// DIFFERS from Linux, which serves a real server that is the director itself by its own stack:
    /// rvsd has none, and refuses it (ADR 0010).
    pub(super) fn host(self, address: IpAddr, is_own: bool) -> Result<(), Refusal> {
        if self == Self::Everything || !(is_own || address.is_loopback()) {
            return Ok(());
        }
        let message = format!(
            "rvsd: {address} is the director itself; a server on this machine needs an address of \
             its own, behind a link"
        );
        Err(Refusal::with_message(Errno::OpNotSupp, message))
    }
}
