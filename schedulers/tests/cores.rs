//! Many workers that share no memory they write, against one.
//!
//! Connections come to workers by chance, as receive-side scaling sends them, and stay open until
//! 4000 newer ones are. Each worker has its own scheduler, table and map, counts its own connections
//! and looks at those of the others as [`Fold`] says. What is measured is how far destinations are
//! from their fair share, and what is claimed is in `docs/adr/0005-schedulers-on-many-cores.md`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rvs_model::{DestId, Load, SchedulerKind, Tick, Weight};
use rvs_schedulers::fold::{Cursor, Fold};
use rvs_schedulers::map::Map;
use rvs_schedulers::table::{Entry, HashFlags, Table};
use rvs_schedulers::{Candidate, Request, Scheduler, Share};
use std::collections::VecDeque;

const WORKERS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const WEIGHTS: [u32; 10] = [4, 4, 4, 4, 4, 2, 2, 2, 1, 1];
/// Connections open at a time: each worker has some even when there are 64.
const OPEN: usize = 4000;
const OPENED: usize = 24_000;
/// New connections in an eighth of a second.
const PER_TICK: usize = 500;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, range: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(range).unwrap()).unwrap()
    }
}

/// One worker: what it alone writes, and what it remembers of others.
struct Worker {
    scheduler: Scheduler,
    map: Map,
    own: Vec<Load>,
    fold: Fold,
    cursor: Cursor,
}

struct Director {
    dests: Vec<Candidate>,
    table: Table,
    workers: Vec<Worker>,
    open: VecDeque<(usize, usize)>,
}

impl Director {
    fn new(kind: SchedulerKind, workers: usize) -> Self {
        let list = (0..).zip(WEIGHTS.map(|weight| Weight(weight * scale(kind))));
        let dests: Vec<_> = list.map(|(id, weight)| Candidate { id: DestId(id), weight }).collect();
        let entry = |dest: &Candidate| Entry {
            address: SocketAddr::from((Ipv4Addr::from_bits(0xc000_0200 + dest.id.0), 80)),
            weight: dest.weight,
            last_weight: dest.weight,
        };
        let entries: Vec<_> = dests.iter().map(entry).collect();
        let flags = HashFlags { fallback: true, port: true };
        let worker = |worker| {
            let mut scheduler = Scheduler::new(kind);
            scheduler.update(&dests);
            let seed = u64::try_from(worker).unwrap().wrapping_mul(0x2545_f491_4f6c_dd1d);
            let [worker, workers] = [worker, workers].map(|it| u16::try_from(it).unwrap());
            scheduler.stagger(Share { worker, workers, seed }, &dests);
            Worker {
                scheduler,
                map: Map::new(1000, 1),
                own: vec![Load::default(); WEIGHTS.len()],
                fold: Fold::new(WEIGHTS.len()),
                cursor: Cursor::default(),
            }
        };
        let workers = (0..workers).map(worker).collect();
        let table = Table::new(kind, flags, &entries);
        Self { dests, table, workers, open: VecDeque::new() }
    }

    /// Opens a connection on a worker, and closes the oldest of too many.
    fn open(&mut self, at: usize, client: (IpAddr, u16), vip: IpAddr, now: Tick) -> Option<usize> {
        let Self { dests, table, workers, open } = self;
        let (mut fold, mut cursor) = (workers[at].fold.clone(), workers[at].cursor);
        let others = || workers.iter().enumerate().filter(|(other, _)| *other != at);
        let read = |id: DestId| {
            others().fold(Load::default(), |sum, (_, other)| Load {
                active: sum.active + other.own[usize::try_from(id.0).unwrap()].active,
                inactive: 0,
            })
        };
        fold.refresh(dests, &mut cursor, others().count(), now, read);
        let worker = &mut workers[at];
        (worker.fold, worker.cursor) = (fold, cursor);
        let (own, fold) = (&worker.own, &worker.fold);
        let loads = |id: DestId| fold.load(id, own[usize::try_from(id.0).unwrap()]);
        let request = Request { client: client.0, client_port: client.1, vip, now };
        let map = Some(&mut worker.map);
        let place = worker.scheduler.pick(dests, table, map, &request, &loads)?;
        worker.own[place].active += 1;
        open.push_back((at, place));
        if open.len() > OPEN {
            let (worker, place) = open.pop_front().unwrap();
            workers[worker].own[place].active -= 1;
        }
        Some(place)
    }

    /// Connections of each destination now.
    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; WEIGHTS.len()];
        self.open.iter().for_each(|(_, place)| counts[*place] += 1);
        counts
    }
}

/// Weights that are numbers of connections for those who take them as such.
fn scale(kind: SchedulerKind) -> u32 {
    match kind {
        SchedulerKind::Ovf => 200,
        SchedulerKind::Lblc | SchedulerKind::Lblcr => 150,
        _ => 1,
    }
}

/// What one run gives.
struct Run {
    picks: Vec<Option<usize>>,
    /// Connections that the destination farthest from its fair share has more or less than that, on
    /// average over the second half.
    spread: usize,
    /// The most destinations that one address was sent to.
    places_per_address: usize,
}

/// The same connections, whatever the number of workers.
fn run(kind: SchedulerKind, workers: usize, seed: u64) -> Run {
    let mut director = Director::new(kind, workers);
    let (mut random, mut arrivals) = (Random(seed), Random(!seed));
    let mut places = vec![[false; WEIGHTS.len()]; 500];
    let (mut picks, mut spreads) = (Vec::new(), Vec::new());
    for number in 0..OPENED {
        let client = Ipv4Addr::from_bits(u32::try_from(random.below(1 << 32)).unwrap());
        let port = u16::try_from(random.below(1 << 16)).unwrap();
        let address = random.below(500);
        let vip = Ipv4Addr::from_bits(0xc612_0000 + u32::try_from(address).unwrap());
        let now = u32::try_from(number / PER_TICK).unwrap();
        let place = director.open(arrivals.below(workers), (client.into(), port), vip.into(), now);
        if let Some(place) = place {
            places[address][place] = true;
        }
        picks.push(place);
        if number > OPENED / 2 && number % 100 == 0 {
            spreads.push(spread(kind, &director.counts()));
        }
    }
    let per_address = places.iter().map(|all| all.iter().filter(|it| **it).count());
    Run {
        picks,
        spread: spreads.iter().sum::<usize>() / spreads.len(),
        places_per_address: per_address.max().unwrap(),
    }
}

fn spread(kind: SchedulerKind, counts: &[usize]) -> usize {
    let share = |weight: u32| match kind {
        SchedulerKind::Rr | SchedulerKind::Lc | SchedulerKind::Dh => (1, WEIGHTS.len()),
        _ => {
            let total: u32 = WEIGHTS.iter().sum();
            (usize::try_from(weight).unwrap(), usize::try_from(total).unwrap())
        }
    };
    let all: usize = counts.iter().sum();
    let off = |(count, weight): (&usize, u32)| {
        let (part, whole) = share(weight);
        count.abs_diff(all * part / whole)
    };
    counts.iter().zip(WEIGHTS).map(off).max().unwrap()
}

/// What may be added to one core's spread by `workers` of them, of 4000 connections.
fn bound(kind: SchedulerKind, workers: usize) -> usize {
    match kind {
        // The same choices.
        SchedulerKind::Sh
        | SchedulerKind::Dh
        | SchedulerKind::Mh
        | SchedulerKind::Fo
        | SchedulerKind::None => 0,
        // Whoever is full is seen to be full a little late.
        SchedulerKind::Ovf => 2 * workers,
        _ => workers,
    }
}

#[test]
fn many_workers_spread_connections_as_one_does_but_for_a_few_each() {
    for kind in SchedulerKind::ALL {
        let single = run(kind, 1, 5);
        for workers in WORKERS {
            let many = run(kind, workers, 5);
            let (one, all, bound) = (single.spread, many.spread, bound(kind, workers));
            println!("{kind} {workers}: {one} {all} {}", many.places_per_address);
            assert!(all <= one + bound, "{kind} on {workers}: {all}, on one core {one}");
            if bound == 0 {
                assert!(many.picks == single.picks, "{kind} on {workers}");
            }
        }
    }
}
