//! Where addresses were sent before: the memory of `lblc` and `lblcr`, for one service on one worker.
//!
//! ```text
//!  buckets ─► entry ─► entry          an address that clients ask for, when last, since when so
//!               └► member ─► member   the destinations it was given, newest first
//! ```
//!
//! All memory is taken when a map is made, in the control plane: entries of 48 octets and members of
//! 16. When it is full, addresses that it does not know are scheduled as if there were no memory,
//! which is what the kernel does when it gets none. Where the kernel looks at all entries once a
//! minute, a map does so in bounded steps ([`Map::step`]).
//!
//! Linux 6.1 `ip_vs_lblc.c` `ip_vs_lblc_check_expire()`, `ip_vs_lblc_full_check()`, and the same of
//! `ip_vs_lblcr.c`.

use crate::Candidate;
use core::net::IpAddr;
use rvs_model::{DestId, TICKS_PER_SECOND, Tick, Weight, ticks};

/// Addresses above which old ones are forgotten early (Linux 6.1 `ip_vs_lblc.c`
/// `ip_vs_lblc_init_svc()`). There is room for half as many more.
pub const ADDRESSES_MAX: u32 = 16 * 1024;
/// How often entries are looked at.
const CHECK_INTERVAL: Tick = 60 * TICKS_PER_SECOND;
/// How long an entry must have been idle to be forgotten while there are too many.
const IDLE_WHEN_CROWDED: Tick = 6 * 60 * TICKS_PER_SECOND;
/// Every so many checks all entries are looked at.
const CHECKS_UNTIL_FULL: u32 = 30;
/// Buckets and entries looked at per step.
///
/// Bounds the longest breath: each is a cache miss at worst. A full map takes 220 steps, which a
/// worker makes within a millisecond or two, 60 seconds apart.
const LOOKS: u32 = 128;
/// No entry, no member.
const NONE: u32 = u32::MAX;

/// An entry's place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EntryId(u32);

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u128,
    /// When it was asked for last.
    used: Tick,
    /// When its members changed last.
    modified: Tick,
    members: u32,
    members_len: u32,
    /// In its bucket, or among the free ones.
    next: u32,
}

/// A destination that an address was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) dest: DestId,
    /// As far as is known: of one that was deleted, its weight then.
    pub(crate) weight: Weight,
    /// Where it was in the list.
    place: u32,
    next: u32,
}

impl Member {
    /// Its place in the list; `None` if it was deleted.
    fn find(&mut self, dests: &[Candidate]) -> Option<usize> {
        let is_it = |dest: &Candidate| dest.id == self.dest;
        let hint = usize::try_from(self.place).ok()?;
        let place =
            if dests.get(hint).is_some_and(is_it) { hint } else { dests.iter().position(is_it)? };
        self.weight = dests.get(place)?.weight;
        self.place = u32::try_from(place).ok()?;
        Some(place)
    }
}

/// A check under way.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// Buckets to go.
    buckets: u32,
    /// Entries idle for so long go.
    idle: Tick,
    /// So many at least, and then no more buckets.
    goal: u32,
}

/// The memory of one service on one worker.
#[derive(Debug)]
pub struct Map {
    buckets: Box<[u32]>,
    entries: Box<[Entry]>,
    members: Box<[Member]>,
    free_entry: u32,
    free_member: u32,
    len: u32,
    /// Above which entries are forgotten early.
    crowded: u32,
    /// What addresses are hashed with. Secret: whoever knows it can aim at one bucket.
    key: u64,
    expiration: Tick,
    /// When the next check is due; `None` before the first breath.
    check_at: Option<Tick>,
    /// Checks since all entries were looked at.
    checks: u32,
    /// The bucket looked at last.
    rover: u32,
    sweep: Option<Sweep>,
}

impl Map {
    /// A map for `addresses` and half as many more, each with two destinations if all are used.
    #[must_use]
    pub fn new(addresses: u32, key: u64) -> Self {
        let room = addresses.saturating_add(addresses / 2).max(1);
        let chained = |at: u32, end: u32| if at + 1 < end { at + 1 } else { NONE };
        let entry = |at| Entry {
            address: 0,
            used: 0,
            modified: 0,
            members: NONE,
            members_len: 0,
            next: chained(at, room),
        };
        let members = room.saturating_mul(2);
        let member = |at| Member {
            dest: DestId(0),
            weight: Weight::DRAIN,
            place: 0,
            next: chained(at, members),
        };
        let buckets = usize::try_from((room / 4).next_power_of_two()).unwrap_or(1);
        Self {
            buckets: vec![NONE; buckets].into(),
            entries: (0..room).map(entry).collect(),
            members: (0..members).map(member).collect(),
            free_entry: 0,
            free_member: 0,
            len: 0,
            crowded: addresses,
            key: scatter(key) | 1,
            expiration: ticks(24 * 60 * 60),
            check_at: None,
            checks: 1,
            rover: 0,
            sweep: None,
        }
    }

    /// How long an address that nobody asks for is remembered, and how long a second destination is
    /// kept that an address does not need (sysctls `lblc_expiration` and `lblcr_expiration`).
    pub fn set_expiration(&mut self, expiration: Tick) {
        self.expiration = expiration;
    }

    /// Addresses known.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no address is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes taken, however many addresses are known.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + size_of_val(&*self.entries) + size_of_val(&*self.members)
    }

    /// Goes on with the check that is under way or due.
    #[inline]
    pub fn step(&mut self, now: Tick) {
        let due = *self.check_at.get_or_insert(now.wrapping_add(CHECK_INTERVAL));
        if self.sweep.is_some() || is_reached(due, now) {
            self.check(now);
        }
    }

    #[cold]
    fn check(&mut self, now: Tick) {
        let Some(mut sweep) = self.sweep.take().or_else(|| self.begin(now)) else { return };
        let mut looks = 0;
        while sweep.buckets > 0 && sweep.goal > 0 && looks < LOOKS {
            let buckets = u32::try_from(self.buckets.len()).unwrap_or(1);
            self.rover = (self.rover + 1) & (buckets - 1);
            let (looked, forgotten) = self.forget_idle(self.rover, now, sweep.idle);
            looks += 1 + looked;
            sweep.buckets -= 1;
            sweep.goal = sweep.goal.saturating_sub(forgotten);
        }
        self.sweep = Some(sweep).filter(|sweep| sweep.buckets > 0 && sweep.goal > 0);
    }

    /// What the check that is due now is to do, if anything.
    fn begin(&mut self, now: Tick) -> Option<Sweep> {
        self.check_at = Some(now.wrapping_add(CHECK_INTERVAL));
        let buckets = u32::try_from(self.buckets.len()).ok()?;
        if self.checks.is_multiple_of(CHECKS_UNTIL_FULL) {
            self.checks = 1;
            return Some(Sweep { buckets, idle: self.expiration, goal: NONE });
        }
        if self.len <= self.crowded {
            self.checks += 1;
            return None;
        }
        let goal = ((self.len - self.crowded) * 4 / 3).min(self.crowded / 2);
        Some(Sweep { buckets, idle: IDLE_WHEN_CROWDED, goal })
    }

    /// Forgets the entries of a bucket that have been idle for so long; says how many there were,
    /// and how many went.
    fn forget_idle(&mut self, bucket: u32, now: Tick, idle: Tick) -> (u32, u32) {
        let (mut looked, mut forgotten, mut before) = (0, 0, None);
        let mut at = self.bucket(bucket);
        while let Some(Entry { used, next, .. }) = self.entry(EntryId(at)).copied() {
            looked += 1;
            if now.wrapping_sub(used) >= idle {
                self.unlink(bucket, before, next);
                self.release(EntryId(at));
                forgotten += 1;
            } else {
                before = Some(EntryId(at));
            }
            at = next;
        }
        (looked, forgotten)
    }

    /// What is known of an address.
    #[inline]
    pub(crate) fn find(&self, address: IpAddr) -> Option<EntryId> {
        let address = bits(address);
        let mut at = self.bucket(self.bucket_of(address));
        while let Some(entry) = self.entry(EntryId(at)) {
            if entry.address == address {
                return Some(EntryId(at));
            }
            at = entry.next;
        }
        None
    }

    /// Notes that somebody asked for it.
    #[inline]
    pub(crate) fn touch(&mut self, entry: EntryId, now: Tick) {
        if let Some(entry) = self.entry_mut(entry) {
            entry.used = now;
        }
    }

    /// Remembers an address that is not known, with its first destination. Nothing happens if there
    /// is no room.
    pub(crate) fn insert(&mut self, address: IpAddr, dest: Candidate, place: usize, now: Tick) {
        let id = EntryId(self.free_entry);
        let Some(free) = self.entry(id).copied().filter(|_| self.free_member != NONE) else {
            return;
        };
        let address = bits(address);
        let bucket = self.bucket_of(address);
        let next = self.bucket(bucket);
        self.free_entry = free.next;
        let fresh =
            Entry { address, used: now, modified: now, members: NONE, members_len: 0, next };
        if let Some(entry) = self.entry_mut(id) {
            *entry = fresh;
        }
        if let Some(first) = self.bucket_mut(bucket) {
            *first = id.0;
        }
        self.len += 1;
        self.add(id, dest, place, now);
    }

    /// How many destinations an address has, and for how long it has had these.
    #[inline]
    pub(crate) fn members_len(&self, entry: EntryId, now: Tick) -> (u32, Tick) {
        let entry = self.entry(entry);
        entry.map_or((0, 0), |it| (it.members_len, now.wrapping_sub(it.modified)))
    }

    /// Whether destinations have been the same for longer than they need be.
    #[inline]
    pub(crate) fn is_stale(&self, age: Tick) -> bool {
        age > self.expiration
    }

    /// An address's destinations, the newest first, each with its place in `dests` unless it was
    /// deleted.
    #[inline]
    pub(crate) fn members<'m>(
        &'m mut self,
        entry: EntryId,
        dests: &'m [Candidate],
    ) -> impl Iterator<Item = (Member, Option<usize>)> + 'm {
        let mut at = self.entry(entry).map_or(NONE, |entry| entry.members);
        core::iter::from_fn(move || {
            let member = self.members.get_mut(usize::try_from(at).ok()?)?;
            at = member.next;
            let place = member.find(dests);
            Some((*member, place))
        })
    }

    /// Gives an address another destination before the others. Nothing happens if it has it or
    /// there is no room.
    pub(crate) fn add(&mut self, entry: EntryId, dest: Candidate, place: usize, now: Tick) {
        let mut at = self.entry(entry).map_or(NONE, |entry| entry.members);
        while let Some(member) = usize::try_from(at).ok().and_then(|at| self.members.get(at)) {
            if member.dest == dest.id {
                return;
            }
            at = member.next;
        }
        let id = self.free_member;
        let Some(entry) = usize::try_from(entry.0).ok().and_then(|at| self.entries.get_mut(at))
        else {
            return;
        };
        let Some(member) = usize::try_from(id).ok().and_then(|at| self.members.get_mut(at)) else {
            return;
        };
        self.free_member = member.next;
        let place = u32::try_from(place).unwrap_or(NONE);
        *member = Member { dest: dest.id, weight: dest.weight, place, next: entry.members };
        entry.members = id;
        entry.members_len += 1;
        entry.modified = now;
    }

    /// Takes a destination from an address.
    pub(crate) fn remove(&mut self, entry: EntryId, dest: DestId, now: Tick) {
        let mut before = None;
        let mut at = self.entry(entry).map_or(NONE, |entry| entry.members);
        while let Some(member) = self.member(at).copied() {
            if member.dest == dest {
                match before.and_then(|before| self.member_mut(before)) {
                    Some(before) => before.next = member.next,
                    None => {
                        if let Some(entry) = self.entry_mut(entry) {
                            entry.members = member.next;
                        }
                    }
                }
                if let Some(entry) = self.entry_mut(entry) {
                    entry.members_len -= 1;
                    entry.modified = now;
                }
                self.release_member(at);
                return;
            }
            (before, at) = (Some(at), member.next);
        }
    }

    /// Takes an entry out of its bucket's chain.
    fn unlink(&mut self, bucket: u32, before: Option<EntryId>, next: u32) {
        let link = match before {
            Some(before) => self.entry_mut(before).map(|before| &mut before.next),
            None => self.bucket_mut(bucket),
        };
        if let Some(link) = link {
            *link = next;
        }
    }

    fn release(&mut self, id: EntryId) {
        let mut member = self.entry(id).map_or(NONE, |entry| entry.members);
        while let Some(next) = self.member(member).map(|member| member.next) {
            self.release_member(member);
            member = next;
        }
        let free = self.free_entry;
        if let Some(entry) = self.entry_mut(id) {
            (entry.members, entry.next) = (NONE, free);
            self.free_entry = id.0;
            self.len -= 1;
        }
    }

    fn release_member(&mut self, at: u32) {
        let free = self.free_member;
        if let Some(member) = self.member_mut(at) {
            member.next = free;
            self.free_member = at;
        }
    }

    #[inline]
    fn bucket_of(&self, address: u128) -> u32 {
        // Two multiplications by a secret odd number, folded: what an attacker cannot steer.
        let key = u128::from(self.key);
        let [low, high] = [address & u128::from(u64::MAX), address >> 64];
        let one = low.wrapping_mul(key);
        let two = (high ^ one >> 64 ^ one).wrapping_mul(key) >> 64;
        let mask = u128::try_from(self.buckets.len()).unwrap_or(1) - 1;
        u32::try_from(two & mask).unwrap_or_default()
    }

    #[inline]
    fn bucket(&self, bucket: u32) -> u32 {
        usize::try_from(bucket).ok().and_then(|at| self.buckets.get(at)).copied().unwrap_or(NONE)
    }

    fn bucket_mut(&mut self, bucket: u32) -> Option<&mut u32> {
        self.buckets.get_mut(usize::try_from(bucket).ok()?)
    }

    #[inline]
    fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(usize::try_from(id.0).ok()?)
    }

    #[inline]
    fn entry_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(id.0).ok()?)
    }

    fn member(&self, at: u32) -> Option<&Member> {
        self.members.get(usize::try_from(at).ok()?)
    }

    fn member_mut(&mut self, at: u32) -> Option<&mut Member> {
        self.members.get_mut(usize::try_from(at).ok()?)
    }
}

/// Spreads a number over all 64 bits (the end of Steele and Vigna's `SplitMix64`).
fn scatter(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Whether `due` is not later than `now`.
#[inline]
fn is_reached(due: Tick, now: Tick) -> bool {
    now.wrapping_sub(due) < Tick::MAX / 2
}

#[inline]
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;
    use core::net::Ipv4Addr;
    use std::collections::HashMap;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc612_0000 + number).into()
    }

    fn dest(id: u32) -> Candidate {
        Candidate { id: DestId(id), weight: Weight(1) }
    }

    fn dests_of(map: &mut Map, number: u32) -> Option<Vec<u32>> {
        let entry = map.find(address(number))?;
        Some(map.members(entry, &[]).map(|(member, _)| member.dest.0).collect())
    }

    /// Steps of a worker that does nothing else for a second of each minute.
    fn pass(map: &mut Map, now: &mut Tick, minutes: u32) {
        for _ in 0..minutes {
            *now += CHECK_INTERVAL;
            (0..300).for_each(|_| map.step(*now));
        }
    }

    #[test]
    fn a_map_holds_what_a_hash_map_of_sets_holds() {
        for seed in 0..20 {
            let mut random = Random(seed);
            let mut map = Map::new(40, random.0);
            let mut model: HashMap<u32, Vec<u32>> = HashMap::new();
            for now in 0..3000 {
                let (number, id) = (random.below(90), random.below(6));
                let used: usize = model.values().map(Vec::len).sum();
                match (map.find(address(number)), random.below(3)) {
                    (None, _) => {
                        map.insert(address(number), dest(id), 0, now);
                        if model.len() < 60 && used < 120 {
                            model.insert(number, vec![id]);
                        }
                    }
                    (Some(entry), 0) => {
                        map.remove(entry, DestId(id), now);
                        model.get_mut(&number).unwrap().retain(|it| *it != id);
                    }
                    (Some(entry), _) => {
                        map.add(entry, dest(id), 0, now);
                        let all = model.get_mut(&number).unwrap();
                        if !all.contains(&id) && used < 120 {
                            all.insert(0, id);
                        }
                    }
                }
                assert_eq!(dests_of(&mut map, number), model.get(&number).cloned(), "seed {seed}");
            }
            assert_eq!(usize::try_from(map.len()).unwrap(), model.len());
        }
    }

    #[test]
    fn all_is_forgotten_a_day_after_its_use_at_the_next_full_check() {
        let (mut map, mut now) = (Map::new(100, 7), 5);
        map.step(now);
        map.insert(address(1), dest(1), 0, now);
        pass(&mut map, &mut now, 60);
        map.insert(address(2), dest(1), 0, now);
        pass(&mut map, &mut now, 24 * 60 - 60 - 1);
        assert_eq!(map.len(), 2);
        pass(&mut map, &mut now, 1);
        assert_eq!(dests_of(&mut map, 1), None);
        assert_eq!(dests_of(&mut map, 2), Some(vec![1]));
        pass(&mut map, &mut now, 60);
        assert!(map.is_empty());
        assert!(map.find(address(2)).is_none());
    }

    #[test]
    fn above_its_size_a_map_forgets_what_was_idle_for_six_minutes_and_no_more_than_needed() {
        let (mut map, mut now) = (Map::new(400, 7), 0);
        map.step(now);
        (0..300).for_each(|number| map.insert(address(number), dest(1), 0, now));
        pass(&mut map, &mut now, 5);
        (300..700).for_each(|number| map.insert(address(number), dest(1), 0, now));
        assert_eq!(map.len(), 600, "there is room for half as many more");
        pass(&mut map, &mut now, 1);
        // 200 too many: the goal is 200, the most at once. A bucket is looked at as a whole.
        assert!((390..=400).contains(&map.len()), "{}", map.len());
        let young = (300..600).filter(|number| map.find(address(*number)).is_some()).count();
        assert_eq!(young, 300);
    }

    #[test]
    fn a_step_looks_at_no_more_than_its_budget_and_a_bucket() {
        let mut map = Map::new(ADDRESSES_MAX, 99);
        (0..ADDRESSES_MAX).for_each(|number| map.insert(address(number), dest(1), 0, 0));
        let longest = (0..u32::try_from(map.buckets.len()).unwrap())
            .map(|bucket| map.forget_idle(bucket, 1, Tick::MAX).0)
            .max()
            .unwrap();
        assert!(longest < 20, "{longest} entries in one bucket");
        assert!(map.bytes() < 2_100_000, "{} bytes", map.bytes());
    }
}
