//! From a link's name to its type: what runs on any link is a [`Job`].

use crate::case::{Family, Link};
#[cfg(feature = "dpdk")]
use crate::dpdk::{Dpdk, FarEnd, Pipes};
use crate::feed::{Carrier, Feed, Memory, OCTETS4, OCTETS6, Source};
use anyhow::Result;

/// What to do for the links that this program was built without.
#[cfg(not(feature = "dpdk"))]
pub const MISSING: Option<&str> = Some(
    "the links net_ring and net_pcap take DPDK, and this program was built without: apt-get install \
     libdpdk-dev pkg-config, then run `cargo xtask bench` again",
);
/// What to do for the links that this program was built without: it has all.
#[cfg(feature = "dpdk")]
pub const MISSING: Option<&str> = None;

/// What can be done on any link.
pub trait Job {
    /// What comes of it.
    type Outcome;

    /// Does it.
    ///
    /// # Errors
    ///
    /// The link cannot be had, or what is done fails.
    fn on<S: Source>(self) -> Result<Self::Outcome>;
}

/// Does `job` on a link with frames of a family.
///
/// # Errors
///
/// Those of the job; [`MISSING`].
pub fn on<J: Job>(link: Link, family: Family, job: J) -> Result<J::Outcome> {
    match link {
        Link::Memory => over::<Memory, J>(family, job),
        #[cfg(feature = "dpdk")]
        Link::NetRing => over::<Dpdk<FarEnd>, J>(family, job),
        #[cfg(feature = "dpdk")]
        Link::NetPcap => over::<Dpdk<Pipes>, J>(family, job),
        #[cfg(not(feature = "dpdk"))]
        Link::NetRing | Link::NetPcap => anyhow::bail!("{}", MISSING.unwrap_or_default()),
    }
}

fn over<C: Carrier, J: Job>(family: Family, job: J) -> Result<J::Outcome> {
    match family {
        Family::V4 => job.on::<Feed<OCTETS4, C>>(),
        Family::V6 => job.on::<Feed<OCTETS6, C>>(),
    }
}
