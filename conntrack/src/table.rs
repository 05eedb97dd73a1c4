//! Connections of one worker, found from either direction in two cache misses.
//!
//! ```text
//!  key ─► hash ─┬─ home bucket ─► [8 × tag 16 | 8 × entry 32 | away]     one cache line
//!               └─ tag                                          │
//!                                        index · away · direction┘
//!                                          ▼
//!                  connections [ 64 octets | 64 octets | … ]             one cache line each, IPv6 two
//! ```
//!
//! Bounded cuckoo hashing: an entry lives in its home bucket or in one other, which follows from
//! bucket and tag alone, so moving it reads no connection. `away` counts the entries that call a
//! bucket home and live elsewhere: while it is 0, a lookup that fails is over after one line.
//!
//! A burst asks in three steps, each a loop over all its packets: [`Table::touch`] the home
//! buckets, [`Guesser::guess`] by tag and touch the connections, compare with [`Conn::key`]. A guess
//! that proves wrong (one in 16 000 by chance, and whatever lives away) takes [`Table::find`].
//!
//! Only keys with a protocol are looked up: protocol 0 marks a free line.

use crate::bucket::{Bucket, Entry, WAYS};
use crate::conn::{Conn, Direction};
use crate::hash::{Hash, Seed};
use crate::num::{at, scale};
use rvs_wire::flow::{Family, Key};

/// A connection's place in its table. 0 is nobody's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Index of the connection.
    pub index: u32,
    /// Which of its keys was found.
    pub direction: Direction,
}

/// Entries per bucket when the table is full. At 5 of 8 ways, 2.6 % of the entries live away and
/// cost a burst a second look; at 6.4 it is 7.7 %, which saves 3 octets a key and costs 7 ns a
/// packet at 1M flows.
const LOAD: u32 = 5;

/// How many entries move in a row to make room for one: bounds an insert to 2 × 8 × 9 buckets.
const DISPLACEMENTS: u32 = 1;

/// Why a connection was not taken in. Each is a counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    /// All connections are in use.
    Conns,
    /// The index has no way left near both buckets of a key: less likely than a bad memory chip
    /// while the seed is secret and no more keys are held than the table was made for.
    Index,
    /// The wheel has no entry left.
    Timers,
}

/// How much a table holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capacity {
    conns_max: u32,
    keys_per_conn: u32,
}

/// A table of such a size cannot be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CapacityError {
    /// The number of connections.
    #[error("{0} connections (allowed: 1 to {max})", max = Capacity::CONNS_MAX)]
    Conns(u32),
    /// The number of keys.
    #[error("{0} keys per connection (allowed: 1, or 2 if any is masqueraded)")]
    Keys(u32),
}

impl Capacity {
    /// The most connections that one table holds: 16 GiB of IPv4 lines.
    pub const CONNS_MAX: u32 = 1 << 28;

    /// Room for `conns_max` connections of `keys_per_conn` keys: 2 if any is masqueraded, else 1.
    ///
    /// # Errors
    ///
    /// [`CapacityError`] names the argument that is out of range.
    pub fn new(conns_max: u32, keys_per_conn: u32) -> Result<Self, CapacityError> {
        if !(1..=Self::CONNS_MAX).contains(&conns_max) {
            return Err(CapacityError::Conns(conns_max));
        }
        if !(1..=2).contains(&keys_per_conn) {
            return Err(CapacityError::Keys(keys_per_conn));
        }
        Ok(Self { conns_max, keys_per_conn })
    }

    /// Connections.
    #[must_use]
    pub fn conns_max(self) -> u32 {
        self.conns_max
    }

    fn buckets(self) -> u32 {
        (self.conns_max * self.keys_per_conn).div_ceil(LOAD).max(2)
    }
}

const _: () = assert!(Capacity::CONNS_MAX <= Entry::INDEX_MAX, "an entry holds any index");
const _: () = assert!(Capacity::CONNS_MAX <= u32::MAX / 2, "the number of keys fits");

/// Step 2 of a lookup. A copy of where things are, which stays in registers through a loop that writes.
#[derive(Clone, Copy)]
pub struct Guesser<'t, F: Family> {
    conns: &'t [Conn<F>],
    buckets: &'t [Bucket],
    bucket_count: u32,
}

impl<F: Family> Guesser<'_, F> {
    /// Who it probably is, nobody if no tag matches. Asks for the connection.
    #[inline]
    #[must_use]
    pub fn guess(self, hash: Hash) -> Found {
        let home = self.buckets.get(at(scale(hash.high(), self.bucket_count)));
        let found = home.map(|bucket| bucket.first(hash.tag())).unwrap_or_default().found();
        rvs_cache::prefetch_nth(self.conns, at(found.index));
        found
    }
}

/// The connections of one worker.
pub struct Table<F: Family> {
    /// Line 0 is nobody's: what a guess without an answer reads.
    conns: Vec<Conn<F>>,
    buckets: Vec<Bucket>,
    bucket_count: u32,
    /// Free lines, the next one last: what was freed last is in the cache.
    free: Vec<u32>,
    seed: Seed,
}

impl<F: Family> Table<F> {
    /// An empty table. Every page of it has been written when this returns; `huge` asks for huge
    /// pages.
    #[must_use]
    pub fn new(capacity: Capacity, seed: Seed, huge: bool) -> Self {
        let bucket_count = capacity.buckets();
        let lines = at(capacity.conns_max) + 1;
        Self {
            conns: rvs_cache::vec_in_huge_pages(&Conn::default(), lines, huge),
            buckets: rvs_cache::vec_in_huge_pages(&Bucket::default(), at(bucket_count), huge),
            bucket_count,
            free: (1..=capacity.conns_max).rev().collect(),
            seed,
        }
    }

    /// Takes `conn` in. Its inbound key must not be there yet. Its outbound key may: a client that
    /// uses one port towards two services which share a destination. The younger of two gets the
    /// replies then, as in the kernel, unless crowding has moved it from its home since.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room; nothing has changed then.
    #[inline]
    pub fn insert(&mut self, conn: &Conn<F>) -> Result<u32, Full> {
        let index = self.next_free()?;
        self.link_all(conn, index)?;
        self.fill(index, conn);
        Ok(index)
    }

    /// The line that the next connection gets. To take one in step by step: its keys are linked to
    /// this line, then it is filled.
    ///
    /// # Errors
    ///
    /// [`Full::Conns`].
    #[inline(always)]
    pub(crate) fn next_free(&self) -> Result<u32, Full> {
        self.free.last().copied().ok_or(Full::Conns)
    }

    /// Makes the inbound key of which this is the hash lead to line `index`.
    ///
    /// # Errors
    ///
    /// [`Full::Index`].
    #[inline(always)]
    pub(crate) fn link_inbound(&mut self, hash: Hash, index: u32) -> Result<(), Full> {
        self.link_hash(hash, Entry::new(index, Direction::Inbound))
    }

    /// Takes that back.
    #[cold]
    pub(crate) fn unlink_inbound(&mut self, hash: Hash, index: u32) {
        self.unlink_hash(hash, Entry::new(index, Direction::Inbound));
    }

    /// Puts `conn` into the line that [`Table::next_free`] named.
    #[inline(always)]
    pub(crate) fn fill(&mut self, index: u32, conn: &Conn<F>) -> Option<&mut Conn<F>> {
        self.free.pop();
        let place = self.conns.get_mut(at(index))?;
        *place = *conn;
        Some(place)
    }

    /// Hashes the outbound key of a connection whose way back is to be found, and asks for its bucket:
    /// for [`Table::link_outbound`].
    #[inline(always)]
    pub(crate) fn touch_way_back(&self, conn: &Conn<F>) -> Option<Hash> {
        let hash = conn.has_way_back().then(|| self.hash(&conn.key(Direction::Outbound)))?;
        self.touch(hash);
        Some(hash)
    }

    /// Makes the outbound key of which this is the hash lead to line `index`.
    ///
    /// # Errors
    ///
    /// [`Full::Index`]: the connection is to be taken out by [`Table::remove_inbound`].
    #[inline]
    pub(crate) fn link_outbound(&mut self, hash: Hash, index: u32) -> Result<(), Full> {
        self.link_hash(hash, Entry::new(index, Direction::Outbound))
    }

    /// Forgets a connection whose outbound key is not there.
    #[cold]
    pub(crate) fn remove_inbound(&mut self, index: u32) -> Option<Conn<F>> {
        let conn = self.live(index)?;
        self.unlink(&conn, Direction::Inbound, index);
        self.conn_mut(index)?.protocol = 0;
        self.free.push(index);
        Some(conn)
    }

    /// Puts `conn` into the line of another connection, which is forgotten.
    ///
    /// # Errors
    ///
    /// [`Full::Index`] if there is no room for the new keys: the line is free then.
    pub fn replace(&mut self, index: u32, conn: &Conn<F>) -> Result<(), Full> {
        let Some(old) = self.live(index) else { return Err(Full::Conns) };
        self.unlink_all(&old, index);
        let linked = self.link_all(conn, index);
        let Some(place) = self.conns.get_mut(at(index)) else { return Err(Full::Conns) };
        if linked.is_ok() {
            *place = *conn;
        } else {
            place.protocol = 0;
            self.free.push(index);
        }
        linked
    }

    /// Forgets a connection and says what it was; `None` if the line was free.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<Conn<F>> {
        let conn = self.live(index)?;
        self.unlink_all(&conn, index);
        self.conn_mut(index)?.protocol = 0;
        self.free.push(index);
        Some(conn)
    }

    /// Asks for the buckets that taking out `conn` will look at, and says which those are: for
    /// [`Table::remove_by`].
    #[inline(always)]
    pub(crate) fn touch_keys(&self, conn: &Conn<F>) -> (Hash, Option<Hash>) {
        let inbound = self.hash(&conn.key(Direction::Inbound));
        self.touch(inbound);
        (inbound, self.touch_way_back(conn))
    }

    /// Forgets a connection whose keys have these hashes.
    #[inline(always)]
    pub(crate) fn remove_by(&mut self, index: u32, (inbound, outbound): (Hash, Option<Hash>)) {
        self.unlink_hash(inbound, Entry::new(index, Direction::Inbound));
        if let Some(outbound) = outbound {
            self.unlink_hash(outbound, Entry::new(index, Direction::Outbound));
        }
        if let Some(conn) = self.conn_mut(index) {
            conn.protocol = 0;
            self.free.push(index);
        }
    }

    /// Step 3 of a lookup: the connection, nobody's line if there is none. Compare its key.
    #[inline]
    #[must_use]
    pub fn conn(&self, index: u32) -> Option<&Conn<F>> {
        self.conns.get(at(index))
    }

    /// The same, to be changed in all but its keys, protocol and method.
    #[inline]
    #[must_use]
    pub fn conn_mut(&mut self, index: u32) -> Option<&mut Conn<F>> {
        self.conns.get_mut(at(index))
    }

    /// Hashes `key` for this table.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: &Key<F>) -> Hash {
        self.seed.hash(key)
    }

    /// Step 1 of a lookup: asks for the home bucket.
    #[inline]
    pub fn touch(&self, hash: Hash) {
        rvs_cache::prefetch_nth(&self.buckets, at(self.home(hash)));
    }

    /// What step 2 reads.
    #[inline]
    #[must_use]
    pub fn guesser(&self) -> Guesser<'_, F> {
        Guesser { conns: &self.conns, buckets: &self.buckets, bucket_count: self.bucket_count }
    }

    /// Asks for the line of a connection.
    #[inline]
    pub fn touch_conn(&self, index: u32) {
        rvs_cache::prefetch_nth(&self.conns, at(index));
    }

    /// Asks for the bucket where a key lives that is away from home, if its home misses any.
    #[inline]
    pub fn touch_other(&self, hash: Hash) {
        let home = self.home(hash);
        if self.buckets.get(at(home)).is_some_and(|bucket| bucket.away != 0)
            && let Some(bucket) = self.buckets.get(at(self.other(home, hash.tag())))
        {
            rvs_cache::prefetch(bucket);
        }
    }

    /// Asks for the line that the connection after the next `ahead` will get.
    #[inline]
    pub fn touch_free(&self, ahead: usize) {
        if let Some(index) = self.free.iter().rev().nth(ahead) {
            self.touch_conn(*index);
        }
    }

    /// Whether surely no key with this hash is there: most that are not.
    #[inline(always)]
    #[must_use]
    pub fn lacks(&self, hash: Hash) -> bool {
        let home = self.buckets.get(at(self.home(hash)));
        home.is_some_and(|home| home.away == 0 && home.first(hash.tag()).found().index == 0)
    }

    /// The whole lookup at once, for those that a burst could not guess.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &Key<F>, hash: Hash) -> Option<Found> {
        let tag = hash.tag();
        let home = self.buckets.get(at(self.home(hash)))?;
        let among = |bucket: &Bucket| {
            let mut found = bucket.all(tag).map(|(_, entry)| entry.found());
            found.find(|found| {
                self.conn(found.index).is_some_and(|conn| conn.key(found.direction) == *key)
            })
        };
        among(home).or_else(|| {
            let away = home.away != 0;
            self.buckets.get(at(self.other(self.home(hash), tag))).filter(|_| away).and_then(among)
        })
    }

    /// Shows the connections in at most `most` lines from line `from` on (start with 0), and says
    /// where to go on; `None` at the end of the table. What is opened or removed between two calls
    /// may be seen or missed; what stays is seen once.
    pub fn scan(&self, from: u32, most: u32, mut visit: impl FnMut(u32, &Conn<F>)) -> Option<u32> {
        let lines = self.conns.get(at(from)..)?;
        for (index, conn) in (from..).zip(lines.iter().take(at(most))) {
            if conn.is_live() {
                visit(index, conn);
            }
        }
        let next = from.saturating_add(most);
        (at(next) < self.conns.len()).then_some(next)
    }

    /// Connections in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len() - 1 - self.free.len()
    }

    /// Whether no connection is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections that there is room for: lines are numbered from 1 to this.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.conns.len() - 1).unwrap_or(u32::MAX)
    }

    /// Bytes taken, all allocations counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.conns)
            + size_of_val(&*self.buckets)
            + self.free.capacity() * size_of::<u32>()
    }

    #[inline]
    fn live(&self, index: u32) -> Option<Conn<F>> {
        self.conns.get(at(index)).copied().filter(Conn::is_live)
    }

    #[inline]
    fn home(&self, hash: Hash) -> u32 {
        scale(hash.high(), self.bucket_count)
    }

    /// The other bucket of an entry with `tag` that lives in `bucket`: the two add up to a number
    /// that depends on the tag only, so this is its own inverse.
    #[inline]
    fn other(&self, bucket: u32, tag: u16) -> u32 {
        let sum = scale(u32::from(tag).wrapping_mul(0x9e37_79b1), self.bucket_count);
        let other = sum.wrapping_sub(bucket);
        if sum < bucket { other.wrapping_add(self.bucket_count) } else { other }
    }

    fn put(&mut self, bucket: u32, tag: u16, entry: Entry) -> bool {
        self.buckets.get_mut(at(bucket)).is_some_and(|bucket| bucket.put(tag, entry))
    }

    /// Makes the keys of `conn` lead to `index`, or changes nothing.
    #[inline]
    fn link_all(&mut self, conn: &Conn<F>, index: u32) -> Result<(), Full> {
        self.link(conn, Direction::Inbound, index)?;
        if conn.has_way_back()
            && let Err(full) = self.link(conn, Direction::Outbound, index)
        {
            self.unlink(conn, Direction::Inbound, index);
            return Err(full);
        }
        Ok(())
    }

    /// Takes a connection out of the index; its line stays. What is removed then must say of itself
    /// that it is not found.
    pub(crate) fn hide(&mut self, index: u32) {
        if let Some(conn) = self.live(index) {
            self.unlink_all(&conn, index);
        }
    }

    #[inline]
    fn unlink_all(&mut self, conn: &Conn<F>, index: u32) {
        if !conn.is_found() {
            return;
        }
        self.unlink(conn, Direction::Inbound, index);
        if conn.has_way_back() {
            self.unlink(conn, Direction::Outbound, index);
        }
    }

    #[inline]
    fn link(&mut self, conn: &Conn<F>, direction: Direction, index: u32) -> Result<(), Full> {
        self.link_hash(self.hash(&conn.key(direction)), Entry::new(index, direction))
    }

    #[inline]
    fn link_hash(&mut self, hash: Hash, entry: Entry) -> Result<(), Full> {
        let (home, tag) = (self.home(hash), hash.tag());
        if self.put(home, tag, entry) { Ok(()) } else { self.link_away(home, tag, entry) }
    }

    #[cold]
    fn link_away(&mut self, home: u32, tag: u16, entry: Entry) -> Result<(), Full> {
        let other = self.other(home, tag);
        let older = self.trade(home, tag, entry);
        if self.put(other, tag, older.moved())
            || (self.make_room(other, DISPLACEMENTS) && self.put(other, tag, older.moved()))
        {
            if let Some(home) = self.buckets.get_mut(at(home)) {
                home.away += 1;
            }
            return Ok(());
        }
        self.trade(home, tag, older);
        let put = self.make_room(home, DISPLACEMENTS) && self.put(home, tag, entry);
        if put { Ok(()) } else { Err(Full::Index) }
    }

    fn trade(&mut self, bucket: u32, tag: u16, entry: Entry) -> Entry {
        self.buckets.get_mut(at(bucket)).map_or(entry, |bucket| bucket.trade(tag, entry))
    }

    /// Moves one entry of a full bucket into its other bucket, if need be after moving one there: the
    /// last that can be moved, so that of equal keys the older goes.
    fn make_room(&mut self, bucket: u32, depth: u32) -> bool {
        for way in (0..WAYS).rev() {
            let Some(from) = self.buckets.get(at(bucket)) else { return false };
            let (tag, entry) = from.way(way);
            let to = self.other(bucket, tag);
            if to == bucket {
                continue;
            }
            let moved = self.put(to, tag, entry.moved())
                || (depth > 0 && self.make_room(to, depth - 1) && self.put(to, tag, entry.moved()));
            if moved {
                if let Some(from) = self.buckets.get_mut(at(bucket)) {
                    from.clear(way);
                    from.away += u32::from(!entry.is_away());
                }
                if let Some(to) = self.buckets.get_mut(at(to)) {
                    to.away -= u32::from(entry.is_away());
                }
                return true;
            }
        }
        false
    }

    #[inline]
    fn unlink(&mut self, conn: &Conn<F>, direction: Direction, index: u32) {
        self.unlink_hash(self.hash(&conn.key(direction)), Entry::new(index, direction));
    }

    #[inline(always)]
    fn unlink_hash(&mut self, hash: Hash, entry: Entry) {
        let (home, tag) = (self.home(hash), hash.tag());
        let Some(bucket) = self.buckets.get_mut(at(home)) else { return };
        let taken = bucket.take(tag, entry);
        if taken != Some(false) {
            bucket.away -= 1;
        }
        if taken.is_none() {
            let other = self.other(home, tag);
            let taken = self.buckets.get_mut(at(other)).and_then(|other| other.take(tag, entry));
            debug_assert_eq!(taken, Some(true), "an entry is in one of its two buckets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use rvs_model::ForwardMethod;
    use rvs_wire::flow::{Ends, Ends4, V4, protocol};

    fn conn(number: u32) -> Conn<V4> {
        let client = (
            Ipv4Addr::from(0xc612_0000 + number / 60_000),
            u16::try_from(number % 60_000).unwrap(),
        );
        let (vip, dest) = ((Ipv4Addr::from(0xcb00_7101), 80), (Ipv4Addr::from(0xc000_020b), 80));
        Conn {
            inbound: Ends4::new(client, vip),
            outbound: Ends4::new(dest, client),
            protocol: protocol::TCP,
            method: ForwardMethod::Masquerade,
            ..Conn::default()
        }
    }

    /// Recounts what every bucket knows of those that call it home.
    fn check(table: &Table<V4>) {
        let mut away = vec![0; at(table.bucket_count)];
        for (place, bucket) in (0..).zip(&table.buckets) {
            for way in 0..WAYS {
                let (tag, entry) = bucket.way(way);
                let Found { index, direction } = entry.found();
                if tag == 0 {
                    continue;
                }
                let hash = table.hash(&table.conns[at(index)].key(direction));
                let home = table.home(hash);
                assert_eq!(tag, hash.tag());
                let lives = if entry.is_away() { table.other(home, tag) } else { home };
                assert_eq!(lives, place, "an entry lives where its flag says");
                away[at(home)] += u32::from(entry.is_away());
            }
        }
        let counted: Vec<u32> = table.buckets.iter().map(|bucket| bucket.away).collect();
        assert_eq!(counted, away);
    }

    #[test]
    fn buckets_know_how_many_live_away_while_entries_are_moved_about() {
        // Made for one key a connection and given two: ways run out, and entries are displaced.
        let capacity = Capacity::new(3000, 1).unwrap();
        let mut table = Table::new(capacity, Seed([7, 11]), false);
        let mut held: Vec<u32> = Vec::new();
        let mut refused = 0;
        for number in 0..20_000 {
            // Every third one shares its outbound key with another service's.
            let mut other = conn(number);
            other.inbound = Ends4::new(other.inbound.source(), (Ipv4Addr::LOCALHOST, 80));
            for conn in [conn(number), other].iter().take(1 + usize::from(number % 3 == 0)) {
                match table.insert(conn) {
                    Ok(index) => held.push(index),
                    Err(_) => refused += 1,
                }
            }
            while refused % 2 == 1 || held.len() >= 2999 {
                refused += refused % 2;
                let index = held.swap_remove(at(number) % held.len());
                assert!(table.remove(index).is_some());
            }
            if number % 1000 == 0 {
                check(&table);
            }
        }
        assert!(refused > 0 && table.buckets.iter().any(|bucket| bucket.away > 1));
        for index in held {
            assert!(table.remove(index).is_some());
        }
        check(&table);
        assert!(table.buckets.iter().all(|bucket| bucket.away == 0 && bucket.way(0).0 == 0));
    }

    #[test]
    fn at_full_load_one_key_in_forty_lives_away() {
        let mut table = Table::new(Capacity::new(200_000, 2).unwrap(), Seed([7, 11]), false);
        for number in 0..200_000 {
            assert!(table.insert(&conn(number)).is_ok());
        }
        let away: u32 = table.buckets.iter().map(|bucket| bucket.away).sum();
        assert!((8000..13_000).contains(&away), "{away} of 400 000");
    }
}
