//! Which destination a new connection gets. One file for each algorithm, all laid out alike: read
//! one, know all.
//!
//! A worker has one [`Scheduler`] for each service and asks it once for each new connection. It
//! tells it whenever the service's list of destinations changed: one [`Scheduler::update`] for each
//! addition, edit and removal, in order, as the kernel tells its own; what several changes at once
//! leave of a weighted round depends on each of them.
//!
//! The list is in the kernel's order: a destination that is added becomes the first. Ties go to the
//! first. All rules and names are those of Linux 6.1 `net/netfilter/ipvs/ip_vs_*.c`.
#![forbid(unsafe_code)]

pub mod lc;
pub mod rr;
pub mod wlc;
pub mod wrr;

use rvs_model::{DestId, Load, SchedulerKind, Weight};

/// What a scheduler may see of a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Who it is.
    pub id: DestId,
    /// Its share of new connections.
    pub weight: Weight,
}

impl Candidate {
    /// Whether it may be given a new connection.
    #[inline]
    #[must_use]
    pub const fn is_eligible(&self) -> bool {
        self.weight.is_eligible()
    }
}

/// The algorithm of one service on one worker, and where it stands: chosen when the service is
/// configured and matched once per new connection. No heap: these lie side by side in an array.
#[derive(Clone, Copy, Debug)]
pub enum Scheduler {
    /// `rr`
    Rr(rr::Rr),
    /// `wrr`
    Wrr(wrr::Wrr),
    /// `lc`
    Lc(lc::Lc),
    /// `wlc`
    Wlc(wlc::Wlc),
}

const _: () = assert!(size_of::<Scheduler>() <= 24);

impl Scheduler {
    /// A scheduler that has seen no destination yet.
    #[must_use]
    pub const fn new(kind: SchedulerKind) -> Self {
        match kind {
            SchedulerKind::Rr => Self::Rr(rr::Rr::new()),
            SchedulerKind::Wrr => Self::Wrr(wrr::Wrr::new()),
            SchedulerKind::Lc => Self::Lc(lc::Lc::new()),
            SchedulerKind::Wlc => Self::Wlc(wlc::Wlc::new()),
        }
    }

    /// Takes note that a destination was added, edited or removed; `dests` is the list since then.
    pub fn update(&mut self, dests: &[Candidate]) {
        match self {
            Self::Rr(rr) => rr.update(dests),
            Self::Wrr(wrr) => wrr.update(dests),
            Self::Lc(lc) => lc.update(dests),
            Self::Wlc(wlc) => wlc.update(dests),
        }
    }

    /// Chooses a destination for a new connection and says its place in `dests`, which is the list
    /// that the last [`Scheduler::update`] got; `None` if none is eligible.
    #[inline]
    pub fn pick(&mut self, dests: &[Candidate], load: impl Fn(DestId) -> Load) -> Option<usize> {
        match self {
            Self::Rr(rr) => rr.pick(dests, load),
            Self::Wrr(wrr) => wrr.pick(dests, load),
            Self::Lc(lc) => lc.pick(dests, load),
            Self::Wlc(wlc) => wlc.pick(dests, load),
        }
    }

    /// Which algorithm it is.
    #[must_use]
    pub const fn kind(&self) -> SchedulerKind {
        match self {
            Self::Rr(_) => SchedulerKind::Rr,
            Self::Wrr(_) => SchedulerKind::Wrr,
            Self::Lc(_) => SchedulerKind::Lc,
            Self::Wlc(_) => SchedulerKind::Wlc,
        }
    }
}

/// What a least-connection scheduler counts as load: an active connection is worth 256 others
/// (Linux 6.1 `include/net/ip_vs.h` `ip_vs_dest_conn_overhead()`).
#[inline]
fn overhead(load: Load) -> u64 {
    (u64::from(load.active) << 8) + u64::from(load.inactive)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list from ids and weights.
    pub(crate) fn dests(list: &[(u32, u32)]) -> Vec<Candidate> {
        list.iter()
            .map(|(id, weight)| Candidate { id: DestId(*id), weight: Weight(*weight) })
            .collect()
    }

    /// Nobody has a connection.
    pub(crate) fn idle(_: DestId) -> Load {
        Load::default()
    }

    /// Steele and Vigna's `SplitMix64`.
    pub(crate) struct Random(pub u64);

    impl Random {
        pub(crate) fn below(&mut self, range: u32) -> u32 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            u32::try_from((z ^ z >> 31) % u64::from(range)).unwrap()
        }
    }

    #[test]
    fn each_kind_makes_its_own_scheduler() {
        for kind in SchedulerKind::ALL {
            assert_eq!(Scheduler::new(kind).kind(), kind);
        }
    }
}
