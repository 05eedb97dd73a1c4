//! Which destination a new connection gets. One file for each algorithm, all laid out alike: read
//! one, know all.
//!
//! ```text
//!  rr wrr                                   whose turn it is
//!  lc wlc sed nq ovf twos                   who has how many connections      Loads
//!  fo                                       the highest weight
//!  sh dh mh                                 a hash of the client or the VIP   table::Table
//!  lblc lblcr                               where the VIP went before         map::Map
//! ```
//!
//! A worker has one [`Scheduler`] for each service and asks it once for each new connection. It
//! tells it whenever the service's list of destinations changed: one [`Scheduler::update`] for each
//! addition, edit and removal, in order, as the kernel tells its own; what several changes at once
//! leave of a weighted round depends on each of them. What the algorithms that hash look up is made
//! in the control plane and travels with the list.
//!
//! The list is in the kernel's order: a destination that is added becomes the first. Ties go to the
//! first. All rules and names are those of Linux 6.1 `net/netfilter/ipvs/ip_vs_*.c`. On one worker
//! every choice is the kernel's.
//!
//! DIFFERS from Linux on several workers: each has its own turn in rr and wrr and its own memory in
//! lblc and lblcr, and sees the others' connections a little late. Destinations get their share to
//! within a few connections for each worker (ADR 0005).
#![forbid(unsafe_code)]

pub mod dh;
pub mod fo;
pub mod fold;
pub mod lblc;
pub mod lblcr;
pub mod lc;
pub mod map;
pub mod mh;
pub mod nq;
pub mod ovf;
pub mod rr;
pub mod sed;
pub mod sh;
pub mod table;
pub mod twos;
pub mod wlc;
pub mod wrr;

use core::net::IpAddr;
use map::Map;
use rvs_model::{DestId, Load, SchedulerKind, Tick, Weight};
use table::Table;

/// What a scheduler may see of a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Who it is.
    pub id: DestId,
    /// Its share of new connections.
    pub weight: Weight,
}

impl Candidate {
    /// Whether it may be given a new connection: it is neither drained nor overloaded.
    #[inline]
    #[must_use]
    pub fn is_eligible(&self, loads: &impl Loads) -> bool {
        self.weight.is_eligible() && !loads.is_overloaded(self.id)
    }
}

/// What destinations have to carry at this moment.
pub trait Loads {
    /// Connections of a destination, on all workers.
    fn load(&self, id: DestId) -> Load;

    /// Whether a destination has reached its upper threshold and not yet come below its lower one:
    /// not now.
    fn is_overloaded(&self, id: DestId) -> bool;
}

/// Nobody is ever overloaded.
impl<F: Fn(DestId) -> Load> Loads for F {
    #[inline]
    fn load(&self, id: DestId) -> Load {
        self(id)
    }

    #[inline]
    fn is_overloaded(&self, _: DestId) -> bool {
        false
    }
}

/// The new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// Who opens it.
    pub client: IpAddr,
    /// From which port.
    pub client_port: u16,
    /// To which address: not always the service's own, which may be a mark.
    pub vip: IpAddr,
    /// When.
    pub now: Tick,
}

/// A worker's place among all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// Its number, from 0.
    pub worker: u16,
    /// How many there are.
    pub workers: u16,
    /// Any number, another one for each worker and start.
    pub seed: u64,
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
    /// `sed`
    Sed(sed::Sed),
    /// `nq`
    Nq(nq::Nq),
    /// `lblc`
    Lblc(lblc::Lblc),
    /// `lblcr`
    Lblcr(lblcr::Lblcr),
    /// `sh`
    Sh(sh::Sh),
    /// `dh`
    Dh(dh::Dh),
    /// `fo`
    Fo(fo::Fo),
    /// `ovf`
    Ovf(ovf::Ovf),
    /// `mh`
    Mh(mh::Mh),
    /// `twos`
    Twos(twos::Twos),
    /// `none`: nobody is chosen (Linux 6.1 `ip_vs_ctl.c` `ip_vs_add_service()`).
    None,
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
            SchedulerKind::Sed => Self::Sed(sed::Sed::new()),
            SchedulerKind::Nq => Self::Nq(nq::Nq::new()),
            SchedulerKind::Lblc => Self::Lblc(lblc::Lblc::new()),
            SchedulerKind::Lblcr => Self::Lblcr(lblcr::Lblcr::new()),
            SchedulerKind::Sh => Self::Sh(sh::Sh::new()),
            SchedulerKind::Dh => Self::Dh(dh::Dh::new()),
            SchedulerKind::Fo => Self::Fo(fo::Fo::new()),
            SchedulerKind::Ovf => Self::Ovf(ovf::Ovf::new()),
            SchedulerKind::Mh => Self::Mh(mh::Mh::new()),
            SchedulerKind::Twos => Self::Twos(twos::Twos::new()),
            SchedulerKind::None => Self::None,
        }
    }

    /// Takes note that a destination was added, edited or removed; `dests` is the list since then.
    /// Those not named here look at the whole list at each choice, or at a table made of it.
    pub fn update(&mut self, dests: &[Candidate]) {
        match self {
            Self::Rr(rr) => rr.update(dests),
            Self::Wrr(wrr) => wrr.update(dests),
            _ => {}
        }
    }

    /// Goes, after an update, to where this worker's share of the choices begins, so that many
    /// workers do not all begin with the same destination. The first worker stays where it is.
    pub fn stagger(&mut self, share: Share, dests: &[Candidate]) {
        match self {
            Self::Rr(rr) => rr.stagger(share, dests),
            Self::Wrr(wrr) => wrr.stagger(share, dests),
            Self::Twos(twos) => twos.stagger(share),
            _ => {}
        }
    }

    /// Chooses a destination for a new connection and says its place in `dests`, which is the list
    /// that the last [`Scheduler::update`] got and that `table` was made of; `None` if the rules
    /// leave nobody. `map` is for those that remember, which do without if there is none.
    #[inline]
    pub fn pick(
        &mut self,
        dests: &[Candidate],
        table: &Table,
        map: Option<&mut Map>,
        request: &Request,
        loads: &impl Loads,
    ) -> Option<usize> {
        match self {
            Self::Rr(rr) => rr.pick(dests, loads),
            Self::Wrr(wrr) => wrr.pick(dests, loads),
            Self::Lc(lc) => lc.pick(dests, loads),
            Self::Wlc(wlc) => wlc.pick(dests, loads),
            Self::Sed(sed) => sed.pick(dests, loads),
            Self::Nq(nq) => nq.pick(dests, loads),
            Self::Lblc(lblc) => lblc.pick(dests, map, request, loads),
            Self::Lblcr(lblcr) => lblcr.pick(dests, map, request, loads),
            Self::Sh(sh) => sh.pick(dests, table, request, loads),
            Self::Dh(dh) => dh.pick(dests, table, request, loads),
            Self::Fo(fo) => fo.pick(dests, loads),
            Self::Ovf(ovf) => ovf.pick(dests, loads),
            Self::Mh(mh) => mh.pick(dests, table, request, loads),
            Self::Twos(twos) => twos.pick(dests, loads),
            Self::None => None,
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
            Self::Sed(_) => SchedulerKind::Sed,
            Self::Nq(_) => SchedulerKind::Nq,
            Self::Lblc(_) => SchedulerKind::Lblc,
            Self::Lblcr(_) => SchedulerKind::Lblcr,
            Self::Sh(_) => SchedulerKind::Sh,
            Self::Dh(_) => SchedulerKind::Dh,
            Self::Fo(_) => SchedulerKind::Fo,
            Self::Ovf(_) => SchedulerKind::Ovf,
            Self::Mh(_) => SchedulerKind::Mh,
            Self::Twos(_) => SchedulerKind::Twos,
            Self::None => SchedulerKind::None,
        }
    }
}

/// What a least-connection scheduler counts as load: an active connection is worth 256 others
/// (Linux 6.1 `include/net/ip_vs.h` `ip_vs_dest_conn_overhead()`).
#[inline]
fn overhead(load: Load) -> u64 {
    (u64::from(load.active) << 8) + u64::from(load.inactive)
}

/// What a scheduler counts that looks at how soon a new connection would be served: the active ones
/// and the new one itself (Linux 6.1 `ip_vs_sed.c` `ip_vs_sed_dest_overhead()`).
#[inline]
fn expected_delay(load: Load) -> u64 {
    u64::from(load.active) + 1
}

/// The first of those with the least cost for their weight, none of which may be drained.
#[inline]
fn least<T: Copy>(all: impl Iterator<Item = (T, u64, Weight)>) -> Option<T> {
    // Instead of dividing, each cost is multiplied by the other's weight. The first of equals
    // stays.
    let least = all.reduce(|least, other| {
        let (ours, theirs) = (product(least.1, other.2), product(other.1, least.2));
        if ours > theirs { other } else { least }
    });
    least.map(|(it, ..)| it)
}

#[inline]
fn product(cost: u64, weight: Weight) -> u128 {
    u128::from(cost) * u128::from(weight.0)
}

/// The eligible destination with the least `cost` for its weight.
#[inline]
fn least_eligible(
    dests: &[Candidate],
    loads: &impl Loads,
    cost: impl Fn(Load) -> u64,
) -> Option<usize> {
    let eligible = dests.iter().enumerate().filter(|(_, dest)| dest.is_eligible(loads));
    least(eligible.map(|(place, dest)| (place, cost(loads.load(dest.id)), dest.weight)))
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

    /// So many active connections by destination.
    pub(crate) fn active(counts: &[(u32, u32)]) -> impl Fn(DestId) -> Load {
        move |id| {
            let count = counts.iter().find(|(dest, _)| *dest == id.0);
            Load { active: count.map_or(0, |(_, active)| *active), inactive: 0 }
        }
    }

    /// Nobody has a connection, and these are overloaded.
    pub(crate) struct Overloaded<'o>(pub &'o [u32]);

    impl Loads for Overloaded<'_> {
        fn load(&self, _: DestId) -> Load {
            Load::default()
        }

        fn is_overloaded(&self, id: DestId) -> bool {
            self.0.contains(&id.0)
        }
    }

    /// A connection of a client to an address.
    pub(crate) fn request(client: &str, client_port: u16, vip: &str) -> Request {
        let [client, vip] = [client, vip].map(|address| address.parse().unwrap());
        Request { client, client_port, vip, now: 0 }
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
