//! The generator by itself: both ends on one wire, on a clock that is turned by hand.
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "a test that cannot go on shall stop"
)]

use rvs_io::faulty::{Faults, Faulty};
use rvs_io::memory::{self, FarEnd, MemoryQueue};
use rvs_io::{Burst, Pool, Queue, Reserve, RoomFrame, RoomPool};
use rvs_pktgen::clock::Clock;
use rvs_pktgen::scenario::{Choice, Director, Kind, Scenario};
use rvs_pktgen::search::{Limit, Search};
use rvs_pktgen::trial::{Plan, Traffic};
use rvs_wire::mac::MacAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const STEP: u64 = 1_000;

/// Each look is a microsecond later; once, it may be much later.
#[derive(Default)]
struct Steps {
    nanos: Arc<AtomicU64>,
    stall: Option<(u64, u64)>,
}

impl Clock for Steps {
    fn now(&mut self) -> u64 {
        let mut now = self.nanos.load(Ordering::Relaxed) + STEP;
        if let Some((at, length)) = self.stall
            && now >= at
        {
            now += length;
            self.stall = None;
        }
        self.nanos.store(now, Ordering::Relaxed);
        now
    }
}

/// The client's frames go straight to the first real server, as if routed there directly.
fn scenario() -> Scenario {
    Scenario {
        client: "198.51.100.1".parse().unwrap(),
        clients: 4,
        vip: "203.0.113.1:80".parse().unwrap(),
        director: Director::Mac(MacAddr([2, 0x72, 0x76, 0, 0, 0])),
        reals: vec!["192.0.2.1".parse().unwrap()],
        flows: 8,
        mix: vec![(Kind::Udp, 1)],
        choice: Choice::Turn,
        sizes: vec![(64, 1)],
        echo: false,
        replies: false,
        instance: 0,
        seed: 1,
    }
}

const PLAN: Plan = Plan {
    rate: Some(10_000.0),
    duration: Duration::from_secs(1),
    warm_up: Duration::ZERO,
    drain: Duration::from_millis(10),
    burst: 32,
    sample: Duration::from_secs(10),
};

type Far = FarEnd<fn(&[u8]) -> u32>;

fn wire(depth: usize) -> (Reserve, MemoryQueue, Far) {
    let reserve = Reserve::new(4096, 1518);
    let hash: fn(&[u8]) -> u32 = |_| 0;
    let (mut near, far) = memory::link(1, depth, reserve.pool(), hash);
    (reserve, near.remove(0), far)
}

/// A queue behind a machine that lets so many frames through in a millisecond and drops the rest.
struct Narrow {
    inner: Far,
    nanos: Arc<AtomicU64>,
    per_milli: usize,
    milli: u64,
    passed: usize,
}

impl Queue for Narrow {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        let milli = self.nanos.load(Ordering::Relaxed) / 1_000_000;
        if milli != self.milli {
            (self.milli, self.passed) = (milli, 0);
        }
        let before = burst.len();
        self.inner.receive(pool, burst, most);
        let passing = (self.per_milli - self.passed).min(burst.len() - before);
        self.passed += passing;
        burst.drain(before + passing..).for_each(|frame| pool.give(frame));
        passing
    }

    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        self.inner.send(pool, burst)
    }
}

#[test]
fn the_search_finds_a_bottleneck_of_known_width() {
    let (reserve, near, far) = wire(512);
    let mut clock = Steps::default();
    let nanos = Arc::clone(&clock.nanos);
    let narrow = Narrow { inner: far, nanos, per_milli: 50, milli: 0, passed: 0 };
    let pool = reserve.pool();
    let mut traffic = Traffic::start(scenario(), near, Some(narrow), pool, &mut clock).unwrap();
    let search = Search { highest: 200_000.0, resolution: 0.005 };
    let mut steps = Vec::new();
    let mut try_rate = |rate| {
        let plan = Plan { rate: Some(rate), duration: Duration::from_millis(200), ..PLAN };
        traffic.trial(&plan, &mut clock, |_| {})
    };
    let ndr = search.find(0.0, &mut steps, &mut try_rate).unwrap();
    assert_eq!(ndr.limit, Limit::Director);
    // 50 in a millisecond are 50 000 in a second; a packet's place in its millisecond may shift.
    let pps = ndr.pps.unwrap();
    assert!((48_000.0..=50_000.0).contains(&pps), "{pps}");
    let pdr = search.find(0.1, &mut steps, &mut try_rate).unwrap();
    let pps = pdr.pps.unwrap();
    assert!((53_500.0..=56_000.0).contains(&pps), "a tenth more may be lost: {pps}");
}

#[test]
fn a_known_delay_is_the_latency() {
    let (reserve, near, far) = wire(512);
    let faults = Faults { delay: 1.0, delay_calls: 100, ..Faults::default() };
    let network = Faulty::new(far, 1, faults, Faults::default());
    let mut clock = Steps::default();
    let pool = reserve.pool();
    let mut traffic = Traffic::start(scenario(), near, Some(network), pool, &mut clock).unwrap();
    let trial = traffic.trial(&PLAN, &mut clock, |_| {}).unwrap();
    let latency = trial.servers.as_ref().unwrap().latency;
    assert_eq!((trial.sent, trial.lost()), (10_000, 0));
    // A call is a microsecond after the one before. A packet waits up to one until it is made, one
    // until it is first offered, and then its hundred calls.
    for nanos in [latency.min, latency.p50, latency.p99_99, latency.max] {
        assert!((100_000..=103_000).contains(&nanos), "{latency:?}");
    }
}

#[test]
fn a_stall_delays_every_packet_that_was_due_in_it() {
    let (reserve, near, far) = wire(2048);
    let mut clock = Steps { stall: Some((500_000_000, 100_000_000)), ..Steps::default() };
    let pool = reserve.pool();
    let mut traffic = Traffic::start(scenario(), near, Some(far), pool, &mut clock).unwrap();
    let trial = traffic.trial(&PLAN, &mut clock, |_| {}).unwrap();
    assert_eq!((trial.sent, trial.lost(), trial.unsent), (10_000, 0, 0));
    let latency = trial.servers.as_ref().unwrap().latency;
    // A tenth of a second's packets were due in the stall: evenly from 100 ms down to nothing. A
    // generator that waits for answers would have one late packet.
    let milli = |nanos: u64| nanos as f64 / 1e6;
    assert!((99.0..=101.0).contains(&milli(latency.max)), "{latency:?}");
    assert!((89.0..=91.0).contains(&milli(latency.p99)), "{latency:?}");
    assert!(milli(latency.p90) < 1.0 && milli(latency.p50) < 0.01, "{latency:?}");
    assert!((99.0..=101.0).contains(&milli(trial.lag.max)), "the generator's own part");
}

#[test]
fn a_link_that_takes_less_than_asked_leaves_packets_unsent_and_late_not_lost() {
    let (reserve, near, far) = wire(64);
    let mut clock = Steps::default();
    let pool = reserve.pool();
    let mut traffic = Traffic::start(scenario(), near, Some(far), pool, &mut clock).unwrap();
    // A burst of 32 every microsecond at most: half, and a twentieth when time is up.
    let plan = Plan { rate: Some(64_000_000.0), duration: Duration::from_millis(20), ..PLAN };
    let trial = traffic.trial(&plan, &mut clock, |_| {}).unwrap();
    assert_eq!(trial.lost(), 0);
    assert_eq!(trial.sent + trial.unsent, 1_280_000);
    assert!((0.4..0.5).contains(&trial.shortfall()), "{trial}");
    assert!(trial.servers.unwrap().latency.max > 10_000_000);
}

#[test]
fn the_loop_neither_takes_nor_frees_memory() {
    let (reserve, near, far) = wire(512);
    let mut clock = Steps::default();
    let pool = reserve.pool();
    let mix = vec![(Kind::Udp, 1), (Kind::Ack, 1), (Kind::Syn, 1)];
    let scenario = Scenario { mix, sizes: vec![(80, 1), (1500, 1)], ..scenario() };
    let mut traffic = Traffic::start(scenario, near, Some(far), pool, &mut clock).unwrap();
    let trial_of = |millis| Plan { duration: Duration::from_millis(millis), ..PLAN };
    let mut memory_of = |millis| {
        let plan = trial_of(millis);
        allocation_counter::measure(|| {
            traffic.trial(&plan, &mut clock, |_| {}).unwrap();
        })
    };
    memory_of(10);
    let (short, long) = (memory_of(10), memory_of(1000));
    assert_eq!(short.count_total, long.count_total, "a hundred times as many packets");
}
