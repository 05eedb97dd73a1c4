//! All schedulers through the same claims.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rvs_model::{DestId, Load, SchedulerKind, Weight};
use rvs_schedulers::map::Map;
use rvs_schedulers::table::{Entry, HashFlags, Table};
use rvs_schedulers::{Candidate, Loads, Request, Scheduler};
use std::collections::{HashMap, HashSet};

/// Steele and Vigna's `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, range: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % u64::try_from(range).unwrap()).unwrap()
    }
}

/// Who has how many connections, and who is overloaded.
#[derive(Default)]
struct Loaded {
    loads: HashMap<DestId, Load>,
    overloaded: HashSet<DestId>,
}

impl Loads for Loaded {
    fn load(&self, id: DestId) -> Load {
        self.loads.get(&id).copied().unwrap_or_default()
    }

    fn is_overloaded(&self, id: DestId) -> bool {
        self.overloaded.contains(&id)
    }
}

/// A service on one worker.
struct Service {
    dests: Vec<Candidate>,
    last_weights: HashMap<DestId, Weight>,
    scheduler: Scheduler,
    flags: HashFlags,
    table: Table,
    map: Map,
    loaded: Loaded,
    ids: u32,
    /// Whose clients and VIPs come one after the other.
    random: Random,
}

impl Service {
    fn new(kind: SchedulerKind, weights: &[u32]) -> Self {
        Self::with_flags(kind, HashFlags::default(), weights)
    }

    fn with_flags(kind: SchedulerKind, flags: HashFlags, weights: &[u32]) -> Self {
        let mut service = Self {
            dests: Vec::new(),
            last_weights: HashMap::new(),
            scheduler: Scheduler::new(kind),
            flags,
            table: Table::default(),
            map: Map::new(50, 3),
            loaded: Loaded::default(),
            ids: 0,
            random: Random(7),
        };
        for weight in weights {
            service.add(*weight);
        }
        service
    }

    fn add(&mut self, weight: u32) {
        self.ids += 1;
        self.dests.insert(0, Candidate { id: DestId(self.ids), weight: Weight(weight) });
        self.changed();
    }

    fn remove(&mut self, place: usize) {
        self.dests.remove(place);
        self.changed();
    }

    fn edit(&mut self, place: usize, weight: u32) {
        self.dests[place].weight = Weight(weight);
        self.changed();
    }

    fn changed(&mut self) {
        for dest in self.dests.iter().filter(|dest| dest.weight.is_eligible()) {
            self.last_weights.insert(dest.id, dest.weight);
        }
        let entry = |dest: &Candidate| Entry {
            address: SocketAddr::from((Ipv4Addr::from_bits(0xc000_0200 + dest.id.0), 80)),
            weight: dest.weight,
            last_weight: self.last_weights.get(&dest.id).copied().unwrap_or_default(),
        };
        let entries: Vec<_> = self.dests.iter().map(entry).collect();
        self.table = Table::new(self.scheduler.kind(), self.flags, &entries);
        self.scheduler.update(&self.dests);
    }

    /// Picks for a client and an address.
    fn pick(&mut self, client: u32, vip: u32) -> Option<Candidate> {
        let address = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
        let (client, vip) = (address(client), address(vip));
        let request = Request { client, client_port: 1024, vip, now: 0 };
        let (map, loads) = (Some(&mut self.map), &self.loaded);
        let place = self.scheduler.pick(&self.dests, &self.table, map, &request, loads)?;
        Some(self.dests[place])
    }

    /// Picks for anybody and opens an active connection there.
    fn open(&mut self) -> Option<Candidate> {
        let mut any = |range| u32::try_from(self.random.below(range)).unwrap();
        let (client, vip) = (any(1 << 32), any(100));
        let dest = self.pick(client, vip)?;
        self.loaded.loads.entry(dest.id).or_default().active += 1;
        Some(dest)
    }

    fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = HashMap::new();
        for _ in 0..picks {
            *counts.entry(self.open().unwrap().id).or_insert(0) += 1;
        }
        self.dests.iter().map(|dest| counts.get(&dest.id).copied().unwrap_or(0)).collect()
    }

    fn is_eligible(&self, dest: Candidate) -> bool {
        dest.is_eligible(&self.loaded)
    }
}

/// How a scheduler shares connections that stay open.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Sharing {
    Equal,
    ByWeight,
    /// By chance, by hash, by locality, or not at all.
    Otherwise,
}

const fn sharing(kind: SchedulerKind) -> Sharing {
    match kind {
        SchedulerKind::Rr | SchedulerKind::Lc => Sharing::Equal,
        SchedulerKind::Wrr | SchedulerKind::Wlc | SchedulerKind::Sed | SchedulerKind::Nq => {
            Sharing::ByWeight
        }
        SchedulerKind::Lblc
        | SchedulerKind::Lblcr
        | SchedulerKind::Sh
        | SchedulerKind::Dh
        | SchedulerKind::Fo
        | SchedulerKind::Ovf
        | SchedulerKind::Mh
        | SchedulerKind::Twos
        | SchedulerKind::None => Sharing::Otherwise,
    }
}

/// Whether it may refuse a connection though somebody is eligible.
const fn may_refuse(kind: SchedulerKind) -> bool {
    match kind {
        SchedulerKind::Sh
        | SchedulerKind::Dh
        | SchedulerKind::Mh
        | SchedulerKind::Ovf
        | SchedulerKind::None => true,
        SchedulerKind::Rr
        | SchedulerKind::Wrr
        | SchedulerKind::Lc
        | SchedulerKind::Wlc
        | SchedulerKind::Sed
        | SchedulerKind::Nq
        | SchedulerKind::Lblc
        | SchedulerKind::Lblcr
        | SchedulerKind::Fo
        | SchedulerKind::Twos => false,
    }
}

fn fair_kinds() -> impl Iterator<Item = SchedulerKind> {
    SchedulerKind::ALL.into_iter().filter(|kind| sharing(*kind) != Sharing::Otherwise)
}

#[test]
fn nobody_is_picked_of_none() {
    for kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &[]);
        assert_eq!(service.open(), None, "{kind}");
        service.add(1);
        service.open();
        service.remove(0);
        assert_eq!(service.open(), None, "{kind}");
    }
}

#[test]
fn a_drained_or_overloaded_dest_is_never_picked_and_none_only_by_rule() {
    for kind in SchedulerKind::ALL {
        for seed in 0..40 {
            let mut random = Random(seed);
            let fallback = seed % 2 == 0;
            let flags = HashFlags { fallback, port: false };
            let mut service = Service::with_flags(kind, flags, &[]);
            for step in 0..1500 {
                let place = random.below(service.dests.len().max(1));
                let weight = [0, 0, 1, 2, 3, 100, 65_535, 0x7fff_ffff][random.below(8)];
                match random.below(40) {
                    0 => service.add(weight),
                    1 if place < service.dests.len() => service.edit(place, weight),
                    2 if place < service.dests.len() => service.remove(place),
                    3 => {
                        let some = service.dests.iter().map(|dest| dest.id);
                        service.loaded.overloaded = some.filter(|_| random.below(3) == 0).collect();
                    }
                    _ => {}
                }
                let is_somebody_eligible =
                    service.dests.iter().any(|dest| service.is_eligible(*dest));
                let picked = service.open();
                let why = format!("{kind}, seed {seed}, step {step}: {:?}", service.dests);
                assert!(picked.is_none_or(|dest| dest.weight.is_eligible()), "{why}");
                // The kernel's `lblc` does not look at thresholds of a destination that it knows.
                if kind != SchedulerKind::Lblc {
                    assert!(picked.is_none_or(|dest| service.is_eligible(dest)), "{why}");
                    assert!(is_somebody_eligible || picked.is_none(), "{why}");
                }
                if is_somebody_eligible && !may_refuse(kind) {
                    assert!(picked.is_some(), "{why}");
                }
            }
        }
    }
}

#[test]
fn shares_are_fair_within_one_round() {
    let weights = [3, 1, 0, 2, 4, 30, 7];
    let total = weights.iter().sum::<u32>();
    for kind in fair_kinds() {
        let mut service = Service::new(kind, &weights);
        let (picks, rounds) = (total * 100, 100);
        let counts = service.counts(usize::try_from(picks).unwrap());
        for (count, dest) in counts.iter().zip(&service.dests) {
            let fair = match (sharing(kind), dest.weight.0) {
                (_, 0) => 0,
                (Sharing::Equal, _) => picks / 6,
                (_, weight) => weight * rounds,
            };
            let off = count.abs_diff(usize::try_from(fair).unwrap());
            assert!(off <= 1, "{kind}: {count} connections for {dest:?}, fair is {fair}");
        }
    }
}

#[test]
fn after_a_change_shares_are_fair_again_among_those_that_are_there() {
    for kind in fair_kinds() {
        let mut service = Service::new(kind, &[1, 1, 1, 1]);
        service.counts(41);
        service.remove(1);
        service.add(1);
        service.edit(2, 0);
        service.loaded.loads.clear();
        let counts = service.counts(300);
        assert_eq!(counts[2], 0, "{kind}");
        for place in [0, 1, 3] {
            assert!(counts[place].abs_diff(100) <= 1, "{kind}: {counts:?}");
        }
    }
}

#[test]
fn an_edit_that_changes_nothing_keeps_shares_fair() {
    for kind in fair_kinds() {
        let mut service = Service::new(kind, &[2, 2, 2]);
        for _ in 0..100 {
            service.counts(3);
            service.edit(1, 2);
        }
        let most = service.loaded.loads.values().map(|load| load.active).max().unwrap();
        assert!(most <= 101, "{kind}: {:?}", service.loaded.loads);
    }
}

/// Where many clients, and many addresses, go.
fn everybody(service: &mut Service) -> Vec<Option<DestId>> {
    let mut random = Random(11);
    let mut any = || u32::try_from(random.below(1 << 32)).unwrap();
    (0..20_000).map(|_| service.pick(any(), any()).map(|dest| dest.id)).collect()
}

/// How many of 10 000 who were not with `gone` are elsewhere now, unless they are with `new`.
fn moved(
    before: &[Option<DestId>],
    after: &[Option<DestId>],
    gone: Option<DestId>,
    new: Option<DestId>,
) -> usize {
    let stayed = before.iter().zip(after).filter(|(before, _)| gone.is_none() || **before != gone);
    let (mut all, mut moved) = (0, 0);
    for (before, after) in stayed {
        all += 1;
        moved += usize::from(before != after && (new.is_none() || *after != new));
    }
    moved * 10_000 / all
}

const HASHING: [SchedulerKind; 3] = [SchedulerKind::Sh, SchedulerKind::Dh, SchedulerKind::Mh];

#[test]
fn hashing_shares_clients_as_slots_are_shared() {
    for kind in HASHING {
        let mut service = Service::new(kind, &[1; 8]);
        let all = everybody(&mut service);
        for dest in service.dests.clone() {
            let share = all.iter().filter(|it| **it == Some(dest.id)).count();
            // 2500 are fair; the deviation of chance is 47, and of 256 slots none.
            assert!(share.abs_diff(2500) < 250, "{kind}: {share} of 20000");
        }
    }
}

/// `mh` moves less than one in 20 of those that need not move, `sh` and `dh` nearly all: this is
/// what `mh` is for.
#[test]
fn adding_or_removing_one_of_ten_moves_few_others_with_mh_and_most_with_sh_and_dh() {
    for kind in HASHING {
        let mut service = Service::new(kind, &[1; 10]);
        let before = everybody(&mut service);
        let gone = service.dests[4].id;
        service.remove(4);
        let without = everybody(&mut service);
        service.add(1);
        let new = service.dests[0].id;
        let with_another = everybody(&mut service);
        let rates = [
            moved(&before, &without, Some(gone), None),
            moved(&without, &with_another, None, Some(new)),
        ];
        let bound = if kind == SchedulerKind::Mh { 0..500 } else { 500..9_500 };
        assert!(rates.iter().all(|rate| bound.contains(rate)), "{kind}: {rates:?} of 10000");
    }
}

#[test]
fn draining_moves_nobody_elses_clients_and_back_all_is_as_before() {
    for kind in HASHING {
        let mut service = Service::new(kind, &[1; 10]);
        let before = everybody(&mut service);
        let drained = service.dests[4].id;
        service.edit(4, 0);
        let during = everybody(&mut service);
        assert!(
            before.iter().zip(&during).all(|(before, during)| {
                if *before == Some(drained) { during.is_none() } else { before == during }
            }),
            "{kind}"
        );
        service.edit(4, 1);
        assert_eq!(everybody(&mut service), before, "{kind}");
    }
}
