//! A link around a link that treats frames as bad networks do, the same way for the same seed.
//!
//! ```text
//!            ┌────────────────────── Faulty ──────────────────────┐
//!  receive ◄─┤ lose · corrupt · truncate · duplicate · hold back ◄─┤◄─ any queue
//!  send    ──┤► … the same, with faults of its own …              ─┤►
//!            └─────────────────────────────────────────────────────┘
//! ```
//!
//! For tests and simulations: it decides per frame, and a held frame is an allocation. No clock is
//! looked at. A frame is held back until others have passed it (reordered), or for a number of
//! calls (delayed), whichever was drawn. What was done is counted, so that a test can say exactly
//! what must be found at the other end.

use crate::{Burst, Frame, Lost, Pool, Queue};
use fastrand::Rng;

/// Calls after which a frame is let go that was to be overtaken when nothing comes to overtake it.
const OVERTAKE_PATIENCE: u32 = 64;

/// How often what happens to a frame: shares of one, drawn for each frame anew.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// It is gone.
    pub lose: f64,
    /// One of its bits is turned, or it is gone if it is ARP's: that has no checksum, and what turned
    /// its bits on a cable would be found by the frame's.
    pub corrupt: f64,
    /// Its end is missing: any length from 1 octet to all but one is left.
    pub truncate: f64,
    /// It comes a second time, at once.
    pub duplicate: f64,
    /// It is held back until [`Faults::overtaken_by`] others passed it.
    pub reorder: f64,
    /// Frames that overtake a reordered one; 0 is taken for 1.
    pub overtaken_by: u32,
    /// It is held back for [`Faults::delay_calls`] calls.
    pub delay: f64,
    /// Calls of [`Queue::receive`] or [`Queue::send`] that a delayed frame waits.
    pub delay_calls: u32,
}

/// What was done to frames in one direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultCounts {
    /// Frames that came.
    pub came: u64,
    /// Gone.
    pub lost: u64,
    /// With one bit turned.
    pub corrupted: u64,
    /// Cut.
    pub truncated: u64,
    /// Second frames that were made.
    pub duplicated: u64,
    /// Held back, and let go after at least one later frame.
    pub reordered: u64,
    /// Held back for a time.
    pub delayed: u64,
    /// Sent after having been taken, and then refused by the link below: gone.
    pub refused: u64,
}

/// A queue and the faults around it.
#[derive(Debug)]
pub struct Faulty<Q: Queue> {
    inner: Q,
    receiving: Way<Q::Frame>,
    sending: Way<Q::Frame>,
    staged: Burst<Q::Frame>,
}

impl<Q: Queue> Faulty<Q> {
    /// `inner` with faults on what is received and on what is sent.
    pub fn new(inner: Q, seed: u64, receiving: Faults, sending: Faults) -> Self {
        Self {
            inner,
            receiving: Way::new(seed, receiving),
            sending: Way::new(seed.wrapping_add(1), sending),
            staged: Burst::new(),
        }
    }

    /// What was done to received frames.
    pub fn received(&self) -> FaultCounts {
        self.receiving.counts
    }

    /// What was done to sent frames.
    pub fn sent(&self) -> FaultCounts {
        self.sending.counts
    }

    /// Frames held back now, in both directions.
    pub fn held(&self) -> usize {
        self.receiving.held.len() + self.sending.held.len()
    }

    /// Ends it: frames that are held back are lost, and their rooms return to `pool`.
    pub fn finish(mut self, pool: &mut Q::Pool) -> Q {
        for way in [&mut self.receiving, &mut self.sending] {
            way.held.drain(..).for_each(|held| pool.give(held.frame));
        }
        self.inner
    }
}

impl<Q: Queue> Queue for Faulty<Q> {
    type Frame = Q::Frame;
    type Pool = Q::Pool;

    fn receive(&mut self, pool: &mut Q::Pool, burst: &mut Burst<Q::Frame>, most: usize) -> usize {
        let before = burst.len();
        let most = most.min(burst.remaining_capacity());
        // Of what is received each may bring a duplicate along, and held ones need place.
        let room = most.saturating_sub(self.receiving.due());
        self.inner.receive(pool, &mut self.staged, room.div_ceil(2));
        self.receiving.pass(pool, &mut self.staged, burst, most);
        burst.len() - before
    }

    fn send(&mut self, pool: &mut Q::Pool, burst: &mut Burst<Q::Frame>) -> usize {
        let given = burst.len();
        let most = self.staged.capacity();
        self.sending.pass(pool, burst, &mut self.staged, most);
        self.inner.send(pool, &mut self.staged);
        // The caller may be told of as many refused frames as it gave, no more.
        for frame in self.staged.drain(..) {
            if burst.len() < given {
                burst.push(frame);
            } else {
                self.sending.counts.refused += 1;
                pool.give(frame);
            }
        }
        given - burst.len()
    }

    fn lost(&self) -> Lost {
        self.inner.lost()
    }
}

/// A frame held back.
#[derive(Debug)]
struct Held<F> {
    frame: F,
    /// Later frames that are still to pass it, if that is what it waits for.
    passes: Option<u32>,
    /// Whether any has.
    overtaken: bool,
    /// Calls that it waits at most.
    calls: u32,
}

/// One direction.
#[derive(Debug)]
struct Way<F> {
    faults: Faults,
    random: Rng,
    held: Vec<Held<F>>,
    counts: FaultCounts,
}

impl<F: Frame> Way<F> {
    fn new(seed: u64, faults: Faults) -> Self {
        let counts = FaultCounts::default();
        Self { faults, random: Rng::with_seed(seed), held: Vec::new(), counts }
    }

    /// Held frames that will be let go at the next call.
    fn due(&self) -> usize {
        self.held.iter().filter(|held| held.calls <= 1).count()
    }

    /// Moves all frames of `from` to `to` (at most `most` with their duplicates and those let go),
    /// but for those that are lost or held back.
    fn pass<P: Pool<Frame = F>>(
        &mut self,
        pool: &mut P,
        from: &mut Burst<F>,
        to: &mut Burst<F>,
        most: usize,
    ) {
        let end = to.len().saturating_add(most).min(to.capacity());
        for held in &mut self.held {
            held.calls = held.calls.saturating_sub(1);
        }
        let mut waiting = from.len();
        for mut frame in from.drain(..) {
            waiting -= 1;
            self.counts.came += 1;
            if self.draw(self.faults.lose) || !self.spoil(&mut frame) {
                self.counts.lost += 1;
                pool.give(frame);
                continue;
            }
            if self.draw(self.faults.delay) {
                self.counts.delayed += 1;
                let calls = self.faults.delay_calls;
                self.held.push(Held { frame, passes: None, overtaken: false, calls });
                continue;
            }
            if self.draw(self.faults.reorder) {
                let (passes, calls) = (Some(self.faults.overtaken_by.max(1)), OVERTAKE_PATIENCE);
                self.held.push(Held { frame, passes, overtaken: false, calls });
                continue;
            }
            let twin = if self.draw(self.faults.duplicate) { copy(pool, &frame) } else { None };
            to.push(frame);
            if let Some(twin) = twin {
                if to.len() + waiting < end {
                    self.counts.duplicated += 1;
                    to.push(twin);
                } else {
                    pool.give(twin);
                }
            }
            for held in &mut self.held {
                if let Some(passes) = &mut held.passes {
                    *passes = passes.saturating_sub(1);
                    held.overtaken = true;
                }
            }
            self.let_go(to, end.saturating_sub(waiting));
        }
        self.let_go(to, end);
    }

    /// Moves held frames whose time has come, as long as `to` is shorter than `end`.
    fn let_go(&mut self, to: &mut Burst<F>, end: usize) {
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            if to.len() >= end {
                return;
            }
            if held.calls == 0 || held.passes == Some(0) {
                let held = self.held.remove(at);
                self.counts.reordered += u64::from(held.overtaken);
                to.push(held.frame);
            } else {
                at += 1;
            }
        }
    }

    /// `false` if nothing is left of it.
    fn spoil(&mut self, frame: &mut F) -> bool {
        let len = frame.octets().len();
        if len > 0 && self.draw(self.faults.corrupt) {
            if frame.octets().get(12..14) == Some(&[0x08, 0x06]) {
                return false;
            }
            let (at, bit) = (self.random.usize(..len), self.random.u32(..8));
            if let Some(octet) = frame.octets_mut().get_mut(at) {
                *octet ^= 1 << bit;
                self.counts.corrupted += 1;
            }
        }
        if len > 1 && self.draw(self.faults.truncate) && frame.resize(self.random.usize(1..len)) {
            self.counts.truncated += 1;
        }
        true
    }

    fn draw(&mut self, share: f64) -> bool {
        // What is off draws nothing: turning one fault on leaves the others as they were.
        share > 0.0 && self.random.f64() < share
    }
}

/// A second frame like `frame`, if there is room for one.
fn copy<P: Pool>(pool: &mut P, frame: &P::Frame) -> Option<P::Frame> {
    let mut twin = pool.take()?;
    if twin.resize(frame.octets().len()) {
        twin.octets_mut().copy_from_slice(frame.octets());
        Some(twin)
    } else {
        pool.give(twin);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, FarEnd, MemoryQueue};
    use crate::{Reserve, RoomPool};

    type Far = FarEnd<fn(&[u8]) -> u32>;

    fn rig(receiving: Faults, sending: Faults) -> (Reserve, Faulty<MemoryQueue>, Far, RoomPool) {
        let reserve = Reserve::new(4096, 1514);
        let hash: fn(&[u8]) -> u32 = |_| 0;
        let (mut near, far) = memory::link(1, 1024, reserve.pool(), hash);
        let network = Faulty::new(near.remove(0), 7, receiving, sending);
        let pool = reserve.pool();
        (reserve, network, far, pool)
    }

    fn numbered(number: u32) -> [u8; 60] {
        let mut octets = [0; 60];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        octets
    }

    /// What of `count` numbered frames is received, after enough calls for all to be let go.
    fn received(faults: Faults, count: u32) -> (Vec<Vec<u8>>, FaultCounts) {
        let (reserve, mut network, mut far, mut pool) = rig(faults, Faults::default());
        let mut all = Vec::new();
        let mut burst = Burst::new();
        let mut take = |network: &mut Faulty<MemoryQueue>, pool: &mut RoomPool| {
            let took = network.receive(pool, &mut burst, 32);
            assert!(took <= 32);
            for frame in burst.drain(..) {
                all.push(frame.octets().to_vec());
                pool.give(frame);
            }
        };
        for number in 0..count {
            far.inject(&numbered(number)).unwrap();
            if number % 32 == 31 {
                take(&mut network, &mut pool);
            }
        }
        for _ in 0..count / 8 + 200 {
            take(&mut network, &mut pool);
        }
        let counts = network.received();
        assert_eq!(network.held(), 0);
        drop((network.finish(&mut pool), far, pool));
        assert_eq!(reserve.free(), reserve.total(), "every room came back");
        (all, counts)
    }

    fn number(octets: &[u8]) -> u32 {
        u32::from_be_bytes(*octets.first_chunk().unwrap())
    }

    #[test]
    fn without_faults_frames_pass_as_they_are() {
        let (all, counts) = received(Faults::default(), 1000);
        assert!(all.iter().map(|octets| number(octets)).eq(0..1000));
        assert_eq!(counts, FaultCounts { came: 1000, ..FaultCounts::default() });
    }

    #[test]
    fn what_is_lost_duplicated_corrupted_or_cut_is_counted_exactly() {
        let faults =
            Faults { lose: 0.1, duplicate: 0.1, corrupt: 0.1, truncate: 0.1, ..Faults::default() };
        let (all, counts) = received(faults, 1000);
        assert_eq!(all.len().try_into(), Ok(1000 - counts.lost + counts.duplicated));
        for count in [counts.lost, counts.duplicated, counts.corrupted, counts.truncated] {
            assert!((50..200).contains(&count), "{counts:?}");
        }
        let again = received(faults, 1000);
        assert_eq!(again, (all, counts), "the same seed does the same");
    }

    #[test]
    fn a_frame_of_arp_is_lost_where_others_are_corrupted() {
        let faults = Faults { corrupt: 1.0, ..Faults::default() };
        let (_, mut network, mut far, mut pool) = rig(faults, Faults::default());
        let mut arp = [0; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        far.inject(&arp).unwrap();
        far.inject(&numbered(1)).unwrap();
        let mut burst = Burst::new();
        assert_eq!(network.receive(&mut pool, &mut burst, 8), 1);
        assert_ne!(burst[0].octets(), numbered(1));
        let FaultCounts { came, lost, corrupted, .. } = network.received();
        assert_eq!((came, lost, corrupted), (2, 1, 1));
    }

    #[test]
    fn a_reordered_frame_comes_after_as_many_others_as_said() {
        let faults = Faults { reorder: 0.05, overtaken_by: 3, ..Faults::default() };
        let (all, counts) = received(faults, 2000);
        let numbers: Vec<_> = all.iter().map(|octets| number(octets)).collect();
        let mut highest = 0;
        let late = numbers.iter().filter(|number| {
            let late = **number < highest;
            highest = highest.max(**number);
            late
        });
        assert_eq!(late.count().try_into(), Ok(counts.reordered));
        assert!(counts.reordered > 50, "{counts:?}");
        let mut sorted = numbers;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..2000), "none is missing, none is there twice");
    }

    #[test]
    fn a_delayed_frame_comes_so_many_calls_later() {
        let faults = Faults { delay: 1.0, delay_calls: 3, ..Faults::default() };
        let (_, mut network, mut far, mut pool) = rig(faults, Faults::default());
        far.inject(&numbered(1)).unwrap();
        let mut burst = Burst::new();
        let came: Vec<_> = (0..6).map(|_| network.receive(&mut pool, &mut burst, 8)).collect();
        assert_eq!(came, [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn of_sent_frames_each_is_on_the_wire_refused_held_or_counted() {
        let faults = Faults {
            lose: 0.1,
            duplicate: 0.3,
            reorder: 0.1,
            overtaken_by: 2,
            ..Faults::default()
        };
        let (reserve, mut network, mut far, mut pool) = rig(Faults::default(), faults);
        let (mut given, mut refused, mut burst) = (0, 0, Burst::new());
        // 1024 frames fit onto the wire.
        for number in 0..2000 {
            let mut frame = pool.take().unwrap();
            assert!(frame.fill(&numbered(number)));
            burst.push(frame);
            if burst.len() == 50 {
                given += burst.len();
                let went = network.send(&mut pool, &mut burst);
                assert_eq!(went + burst.len(), 50);
                refused += burst.len();
                burst.drain(..).for_each(|frame| pool.give(frame));
            }
        }
        let counts = network.sent();
        let wire = u64::try_from(far.collect().len() + network.held() + refused).unwrap();
        let gone = wire + counts.lost + counts.refused;
        assert_eq!(gone, u64::try_from(given).unwrap() + counts.duplicated);
        assert!(refused > 0 && counts.refused > 0, "{counts:?}");
        drop((network.finish(&mut pool), far, pool));
        assert_eq!(reserve.free(), reserve.total());
    }
}
