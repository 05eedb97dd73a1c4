//! A link that makes the packets it delivers, and looks at what was made of them.
//!
//! ```text
//!  Script ─octets─► Carrier::deliver ─frames─► the director ─frames─► Carrier::collect ─octets─► counts
//! ```
//!
//! Carriers are the links: [`Memory`], whose frames are the pool's warmest, and DPDK's. All of it costs
//! the same for the director and for the floor. What comes back is checked by its length and its
//! hop limit, so that a frame which was dropped or answered is not taken for one that was forwarded.

use crate::case::Case;
use crate::rig::Ends;
use crate::script::{HOPS, Script};
pub use crate::script::{Kind, OCTETS4, OCTETS6, Plan};
use anyhow::Result;
use rvs_io::{Burst, Frame, Pool, Queue, Reserve, RoomFrame, RoomPool};

/// Frames that come at a rate, whether or not somebody takes them: what does not fit into the ring
/// is lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    /// In the ring.
    pub waiting: u64,
    /// How many have come, by [`Kind`].
    pub came: [u64; 3],
    /// How many came back, by [`Kind`].
    pub back: [u64; 3],
}

/// Frames that the ring of a flood holds.
pub const RING: u64 = 4096;
/// What is expected to come back.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Octets of the frame.
    pub octets: usize,
    /// Whether it took a hop.
    pub routed: bool,
}

/// A link that a director is measured on: what it delivers is known, and what comes back is counted.
pub trait Source: Queue + Sized {
    /// One that is to open the flows of `case`, and its frames: as many as are ever on their way.
    ///
    /// # Errors
    ///
    /// The link cannot be had, or there is no memory for frames.
    fn open(case: Case, ends: &Ends, expected: Expected) -> Result<(Self, Self::Pool)>;

    /// From now on, packets of this kind.
    fn follow(&mut self, plan: Plan);

    /// Frames that were delivered, and that came back as expected.
    fn counts(&self) -> (u64, u64);
}

fn count(counts: &mut [u64; 3], kind: Kind) {
    let at = match kind {
        Kind::Established => 0,
        Kind::Opening => 1,
        Kind::Answer => 2,
    };
    if let Some(place) = counts.get_mut(at) {
        *place += 1;
    }
}

/// How frames get to the director and back.
pub trait Carrier: Send + Sized {
    /// What frames live in.
    type Frame: Frame;
    /// Where they come from.
    type Pool: Pool<Frame = Self::Frame>;

    /// One for frames of so many octets.
    ///
    /// # Errors
    ///
    /// The link cannot be had, or there is no memory for frames.
    fn open(octets: usize) -> Result<(Self, Self::Pool)>;

    /// Has at most `most` frames filled in by `make`, and appends them to `burst` as the link does.
    fn deliver<const N: usize>(
        &mut self,
        pool: &mut Self::Pool,
        burst: &mut Burst<Self::Frame>,
        most: usize,
        make: impl FnMut(&mut [u8; N]),
    ) -> usize;

    /// Takes what it can of `burst`, and shows each frame as it comes out at the other end.
    fn collect(
        &mut self,
        pool: &mut Self::Pool,
        burst: &mut Burst<Self::Frame>,
        see: impl FnMut(&[u8]),
    ) -> usize;
}

/// Frames of the pool: those of the largest burst, twice.
const FRAMES: usize = 2 * rvs_io::BURST_MAX;

/// Makes `frame` one of `N` octets, filled in by `make`.
#[inline(always)]
pub(crate) fn fill_in<const N: usize>(frame: &mut impl Frame, mut make: impl FnMut(&mut [u8; N])) {
    let _fits = frame.resize(N);
    if let Some(octets) = frame.octets_mut().first_chunk_mut() {
        make(octets);
    }
}

/// No link at all: frames are made in the director's own burst.
#[derive(Debug)]
pub struct Memory;

impl Carrier for Memory {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    /// All frames in the pool's own cache.
    fn open(octets: usize) -> Result<(Self, RoomPool)> {
        Ok((Self, Reserve::new(FRAMES, octets.max(1514)).pool_with_cache(FRAMES)))
    }

    #[inline(always)]
    fn deliver<const N: usize>(
        &mut self,
        pool: &mut RoomPool,
        burst: &mut Burst<RoomFrame>,
        most: usize,
        mut make: impl FnMut(&mut [u8; N]),
    ) -> usize {
        let before = burst.len();
        for _ in 0..most.min(burst.remaining_capacity()) {
            let Some(mut frame) = pool.take() else { break };
            fill_in(&mut frame, &mut make);
            burst.push(frame);
        }
        burst.len() - before
    }

    #[inline(always)]
    fn collect(
        &mut self,
        pool: &mut RoomPool,
        burst: &mut Burst<RoomFrame>,
        mut see: impl FnMut(&[u8]),
    ) -> usize {
        let sent = burst.len();
        for frame in burst.drain(..) {
            see(frame.octets());
            pool.give(frame);
        }
        sent
    }
}

/// The link: `N` is the length of its frames, and tells their family.
#[derive(Debug)]
pub struct Feed<const N: usize, C = Memory> {
    script: Script<N>,
    carrier: C,
    plan: Plan,
    /// The number of the next packet.
    next: u32,
    expected: Expected,
    made: u64,
    back: u64,
    arrivals: Arrivals,
}

impl<const N: usize, C: Carrier> Feed<N, C> {
    /// Lets so many packets of a flood arrive; those that find no room in the ring never come.
    pub fn arrive(&mut self, packets: u64) {
        let waiting = self.arrivals.waiting + packets;
        self.arrivals.waiting = waiting.min(RING);
        // Who is lost is a matter of chance; both halves lose alike.
        let lost = (waiting - self.arrivals.waiting) / 2;
        for came in self.arrivals.came.iter_mut().take(2) {
            *came += lost;
        }
    }

    /// What came of the flood.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        self.arrivals
    }

    #[inline(always)]
    fn fill(
        &mut self,
        pool: &mut C::Pool,
        burst: &mut Burst<C::Frame>,
        most: usize,
        make: impl Fn(&Script<N>, u32, &mut [u8; N]),
    ) -> usize {
        let Self { script, carrier, next, .. } = self;
        let frames = carrier.deliver(pool, burst, most, |octets| {
            make(script, *next, octets);
            *next = next.wrapping_add(1);
        });
        self.made += u64::try_from(frames).unwrap_or_default();
        frames
    }

    #[inline(never)]
    fn receive_flood(
        &mut self,
        pool: &mut C::Pool,
        burst: &mut Burst<C::Frame>,
        most: usize,
    ) -> usize {
        let Self { script, carrier, next, arrivals, .. } = self;
        let most = most.min(usize::try_from(arrivals.waiting).unwrap_or(usize::MAX));
        carrier.deliver(pool, burst, most, |octets| {
            count(&mut arrivals.came, script.flood(*next, octets));
            *next = next.wrapping_add(1);
            arrivals.waiting -= 1;
        })
    }
}

impl<const N: usize, C: Carrier> Source for Feed<N, C> {
    fn open(case: Case, ends: &Ends, expected: Expected) -> Result<(Self, C::Pool)> {
        let (carrier, pool) = C::open(N)?;
        let feed = Self {
            script: Script::new(case, ends),
            carrier,
            plan: Plan::Open,
            next: 0,
            expected,
            made: 0,
            back: 0,
            arrivals: Arrivals::default(),
        };
        Ok((feed, pool))
    }

    fn follow(&mut self, plan: Plan) {
        (self.plan, self.next) = (plan, 0);
    }

    fn counts(&self) -> (u64, u64) {
        (self.made, self.back)
    }
}

impl<const N: usize, C: Carrier> Queue for Feed<N, C> {
    type Frame = C::Frame;
    type Pool = C::Pool;

    #[inline]
    fn receive(&mut self, pool: &mut C::Pool, burst: &mut Burst<C::Frame>, most: usize) -> usize {
        match self.plan {
            Plan::Open => self.fill(pool, burst, most, Script::open),
            Plan::Inbound => self.fill(pool, burst, most, Script::inbound),
            Plan::Both => self.fill(pool, burst, most, Script::both),
            Plan::Silence => 0,
            Plan::Flood => self.receive_flood(pool, burst, most),
        }
    }

    #[inline]
    fn send(&mut self, pool: &mut C::Pool, burst: &mut Burst<C::Frame>) -> usize {
        let Expected { octets, routed } = self.expected;
        let (hops, is_flood) = (HOPS - u8::from(routed), self.plan == Plan::Flood);
        let Self { script, carrier, back, arrivals, .. } = self;
        carrier.collect(pool, burst, |seen| {
            let good = seen.len() == octets && seen.get(Script::<N>::HOPS_AT) == Some(&hops);
            *back += u64::from(good);
            if is_flood && let Some(kind) = script.kind_of(seen).filter(|_| good) {
                count(&mut arrivals.back, kind);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Family, Mode};
    use crate::rig;
    use rvs_model::ForwardMethod;
    use rvs_wire::checksum;
    use rvs_wire::packet::{Class, classify};
    use rvs_wire::rewrite::Rewrite;

    fn packets<const N: usize>(family: Family, plan: Plan, flows: u32) -> Vec<Vec<u8>> {
        let expected = Expected { octets: N, routed: false };
        let case = Case { services: 3, ..Case::new(Mode::Nat, family, flows) };
        let ends = Ends::new(family, ForwardMethod::Masquerade);
        let (mut feed, mut pool) = <Feed<N> as Source>::open(case, &ends, expected).unwrap();
        feed.follow(plan);
        let mut burst = Burst::new();
        assert_eq!(feed.receive(&mut pool, &mut burst, 64), 64);
        let octets = burst.iter().map(|frame| frame.octets().to_vec()).collect();
        assert_eq!((feed.send(&mut pool, &mut burst), feed.counts()), (64, (64, 64)));
        octets
    }

    fn sum_of<F: Rewrite>(key: &rvs_wire::flow::Key<F>, segment: &[u8]) -> bool {
        use rvs_wire::flow::Ends as _;
        let (from, to) = (key.ends.source().0, key.ends.destination().0);
        checksum::is_right(segment, F::pseudo_sum(from, to, key.protocol, 20))
    }

    #[test]
    fn every_frame_is_a_segment_whose_checksums_are_right() {
        for plan in [Plan::Open, Plan::Inbound, Plan::Both] {
            for frame in packets::<OCTETS4>(Family::V4, plan, 1024) {
                let Class::V4(packet) = classify(&frame, rig::OUR_MAC) else { panic!("{plan:?}") };
                assert!(sum_of(&packet.key, &frame[34..54]), "{plan:?}");
            }
            for frame in packets::<OCTETS6>(Family::V6, plan, 1024) {
                let Class::V6(packet) = classify(&frame, rig::OUR_MAC) else { panic!("{plan:?}") };
                assert!(sum_of(&packet.key, &frame[54..74]), "{plan:?}");
            }
        }
    }

    #[test]
    fn destinations_answer_the_flows_that_clients_have() {
        let frames = packets::<OCTETS4>(Family::V4, Plan::Both, 32);
        for pair in frames.chunks(2) {
            assert_eq!(pair[0][26..30], pair[1][30..34], "the client's address");
            assert_eq!(pair[0][34..36], pair[1][36..38], "the client's port");
        }
    }
}
