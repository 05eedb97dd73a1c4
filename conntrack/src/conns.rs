//! The connections of one address family on one worker, with their timers.
//!
//! ```text
//!            table().touch ─► table().guess ─► held ── Held::packet ──► state, seen, packets
//!  no hit:   table().find  ─► open │ open_over │ open_over_half_open
//!  each breath:  expire(now, gone)
//! ```
//!
//! [`Conns::table`] lends the stages of a lookup, which change nothing, to the loops of the plane.
//! Whatever changes a connection goes through here, so that each one is in the table, in the index
//! and in the wheel, or in none of them. (Only a void template is in the table and the wheel alone:
//! [`crate::template`].)

use crate::conn::{Conn, Direction, flag};
use crate::half_open::HalfOpen;
use crate::hash::{Hash, Seed};
use crate::state::{self, View, tcp};
use crate::table::{Capacity, Found, Full, Table};
use crate::template::{IN_USE, TOLD};
use crate::wheel::{Due, TIMEOUT_MAX, Wheel, is_due};
use arrayvec::ArrayVec;
use core::ops::Deref;
use rvs_model::{State, Tick, Timeouts};
use rvs_wire::flow::{Family, Key};

/// Armed entries for each connection that the wheel has room for: its own, and a stale one.
const ENTRIES_PER_CONN: u32 = 2;

/// Connections whose way back is not in the index yet: so many that the buckets of all but the last
/// few have arrived when their turn comes.
const PENDING: usize = 64;

/// The connections of one family.
pub struct Conns<F: Family> {
    table: Table<F>,
    /// Opened in this burst: the hash of the way back, whose bucket was asked for, and the index.
    /// Oldest first; whoever searches, ends or replaces settles these first.
    pending: ArrayVec<(Hash, u32), PENDING>,
    /// Had no room in the index for the way back after all; to be shown to whoever counts.
    unlinked: ArrayVec<Conn<F>, PENDING>,
    timers: Timers,
    half_open: HalfOpen,
    /// Where the search for connections that outlive a shortened timeout goes on.
    resetting: Option<u32>,
    /// Lines of data connections of FTP that were seen to live.
    alive: ArrayVec<u32, ALIVE_MAX>,
}

/// How often a data connection of FTP is seen to live: twice in the time that its control connection
/// is given for it.
const LOOK_AGAIN: Tick = IN_USE / 2;

/// Data connections that may be seen to live between two calls of [`Conns::take_alive`]; others have
/// to wait for their next turn.
const ALIVE_MAX: usize = 256;

/// What the state of a connection has to do with time.
struct Timers {
    wheel: Wheel,
    timeouts: [Tick; State::ALL.len()],
    secure: bool,
    /// Lines of templates that had a connection established since they were told.
    assured: ArrayVec<u32, ASSURED_MAX>,
}

/// Templates that learn in one breath that they are assured; more have to wait for another packet.
const ASSURED_MAX: usize = 256;

impl Timers {
    /// How long a connection in `state` outlives its last packet.
    #[inline]
    fn timeout(&self, state: State) -> Tick {
        self.timeouts.get(state.index()).copied().unwrap_or_default()
    }

    /// When `conn` expires if no packet comes.
    #[inline]
    fn deadline<F: Family>(&self, conn: &Conn<F>) -> Tick {
        conn.seen.wrapping_add(self.lifetime(conn, conn.state))
    }

    /// How long `conn` outlives its last packet in `state`, or its last use if it is a template.
    #[inline]
    fn lifetime<F: Family>(&self, conn: &Conn<F>, state: State) -> Tick {
        if conn.is_template() { conn.template_timeout() } else { self.timeout(state) }
    }

    /// Takes note that a connection came into `state`: if it has a template, that one is assured when
    /// the connection stands.
    #[inline]
    fn arrive<F: Family>(&mut self, conn: &mut Conn<F>, state: State) {
        if conn.control != 0 && matches!(state, State::Established | State::SctpEstablished) {
            self.assure(conn);
        }
    }

    /// Takes note that a connection which has a template was established.
    #[cold]
    fn assure<F: Family>(&mut self, conn: &mut Conn<F>) {
        let line = conn.template_line();
        if line != 0 && conn.control & TOLD == 0 && self.assured.try_push(line).is_ok() {
            conn.control |= TOLD;
        }
    }

    /// Whether `conn`, whose time is over, is a control connection that lives on because of its data
    /// connections; it is given another minute then.
    fn prolong_control<F: Family>(&self, conn: &mut Conn<F>, now: Tick) -> bool {
        let prolongs = conn.has(flag::IN_USE);
        if prolongs {
            conn.flags &= !flag::IN_USE;
            conn.seen = now.wrapping_add(IN_USE).wrapping_sub(self.timeout(conn.state));
        }
        prolongs
    }

    /// Arms the timer of `conn` anew if it expires before the wheel would look.
    ///
    /// Should the wheel be full, it expires late.
    fn shorten<F: Family>(&mut self, conn: &mut Conn<F>, index: u32) {
        let deadline = self.deadline(conn);
        if !is_due(conn.due, deadline)
            && let Some(due) = self.wheel.arm(index, deadline)
        {
            conn.due = due;
        }
    }
}

/// A connection that was found, to be told of its packet.
pub struct Held<'c, F: Family> {
    conn: &'c mut Conn<F>,
    timers: &'c mut Timers,
    found: Found,
}

impl<F: Family> Deref for Held<'_, F> {
    type Target = Conn<F>;

    #[inline(always)]
    fn deref(&self) -> &Conn<F> {
        self.conn
    }
}

impl<F: Family> Held<'_, F> {
    /// Takes note of a packet with `flags` (of [`rvs_wire::packet::Packet`]) and says which state the
    /// connection was in, if it left it: a destination's active and inactive connections may
    /// change then.
    #[inline(always)]
    pub fn packet(&mut self, flags: u8, now: Tick) -> Option<State> {
        let conn = &mut *self.conn;
        conn.seen = now;
        if self.found.direction == Direction::Inbound {
            conn.packets = conn.packets.wrapping_add(1);
        }
        // Nearly every packet there is: an acknowledgement in a connection that stands.
        if conn.state == State::Established && tcp::is_plain_ack(flags) {
            return None;
        }
        turn(conn, self.timers, flags, self.found)
    }
}

/// Moves the state of `conn`, which was found so, and says which one it left.
#[inline(never)]
fn turn<F: Family>(
    conn: &mut Conn<F>,
    timers: &mut Timers,
    flags: u8,
    found: Found,
) -> Option<State> {
    let view = View::of(conn.method, found.direction);
    let state = state::next(conn.state, conn.protocol, flags, view, timers.secure);
    if state == conn.state {
        // Linux 6.1 ip_vs_proto_udp.c udp_state_transition(): an answer is what assures.
        if conn.control != 0 && state == State::Udp && found.direction == Direction::Outbound {
            timers.assure(conn);
        }
        return None;
    }
    timers.arrive(conn, state);
    let before = core::mem::replace(&mut conn.state, state);
    timers.shorten(conn, found.index);
    Some(before)
}

impl<F: Family> Conns<F> {
    /// Room for `capacity`, all of it taken and written now. `huge` asks for huge pages.
    #[must_use]
    pub fn new(capacity: Capacity, seed: Seed, timeouts: &Timeouts, now: Tick, huge: bool) -> Self {
        let entries = capacity.conns_max() * ENTRIES_PER_CONN;
        let timers = Timers {
            wheel: Wheel::new(entries, now, huge),
            timeouts: in_ticks(timeouts),
            secure: false,
            assured: ArrayVec::new(),
        };
        Self {
            table: Table::new(capacity, seed, huge),
            pending: ArrayVec::new(),
            unlinked: ArrayVec::new(),
            timers,
            half_open: HalfOpen::new(capacity.conns_max()),
            resetting: None,
            alive: ArrayVec::new(),
        }
    }

    /// From now on connections last as long as `timeouts` say. Those that would outlast a shorter
    /// one are armed anew in the breaths that follow, some in each [`Conns::expire`].
    ///
    /// DIFFERS from Linux, where a connection keeps the timeout of its last packet: one that is
    /// idle follows the change here (ADR 0004).
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) {
        let next = in_ticks(timeouts);
        if self.timers.timeouts.iter().zip(&next).any(|(before, after)| after < before) {
            self.resetting = Some(0);
        }
        self.timers.timeouts = next;
    }

    /// Chooses the TCP states of `secure_tcp`, or the usual ones.
    pub fn set_secure(&mut self, secure: bool) {
        self.timers.secure = secure;
    }

    /// The state that the first packet of a connection leads to.
    #[inline(always)]
    #[must_use]
    pub fn first_state(&self, protocol: u8, flags: u8, view: View) -> State {
        state::next(State::None, protocol, flags, view, self.timers.secure)
    }

    /// The connection at `found`, if it is the one of `key`.
    #[inline(always)]
    pub fn held(&mut self, found: Found, key: &Key<F>) -> Option<Held<'_, F>> {
        let conn = self.table.conn_mut(found.index)?;
        if conn.ends(found.direction) != &key.ends || conn.protocol != key.protocol {
            return None;
        }
        Some(Held { conn, timers: &mut self.timers, found })
    }

    /// Takes in a connection that is not there yet. Its timer is armed for `first`, the state that its
    /// first packet leads to: either `conn` is in that state and has counted that packet, or it is in
    /// state `NONE` and the caller hands the packet to [`Held::packet`] next like any other. A
    /// template's timer is armed for its own time.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room; nothing has changed then.
    pub fn open(&mut self, conn: &Conn<F>, first: State, now: Tick) -> Result<u32, Full> {
        self.open_at(self.table.hash(&conn.key(Direction::Inbound)), conn, first, now)
    }

    /// The same where the hash of the inbound key is known.
    ///
    /// # Errors
    ///
    /// As [`Conns::open`].
    #[inline]
    pub fn open_at(
        &mut self,
        hash: Hash,
        conn: &Conn<F>,
        first: State,
        now: Tick,
    ) -> Result<u32, Full> {
        if self.pending.is_full() {
            self.settle();
        }
        let index = self.table.next_free()?;
        self.table.link_inbound(hash, index)?;
        let lifetime = self.timers.lifetime(conn, first);
        let Some(due) = self.timers.wheel.arm(index, now.wrapping_add(lifetime)) else {
            self.table.unlink_inbound(hash, index);
            return Err(Full::Timers);
        };
        if let Some(line) = self.table.fill(index, conn) {
            (line.seen, line.due) = (now, due);
            self.timers.arrive(line, conn.state);
        }
        if let Some(hash) = self.table.touch_way_back(conn) {
            // Fits: they were settled.
            let _fits = self.pending.try_push((hash, index));
        }
        self.hold_template(conn);
        self.note_half_open(index);
        Ok(index)
    }

    /// The whole lookup at once, for those that a burst could not guess.
    #[inline]
    pub fn find(&mut self, key: &Key<F>, hash: Hash) -> Option<Found> {
        let found = self.table.find(key, hash);
        if found.is_some() || !self.pending.iter().any(|(other, _)| *other == hash) {
            return found;
        }
        self.settle();
        self.table.find(key, hash)
    }

    /// Makes the ways back of the connections that were opened last known to the index. To be called
    /// at a burst's end.
    ///
    /// [`Conns::open`] leaves it to this, or the burst would wait for a bucket in every connection
    /// it opens: which one follows from the destination, and that is chosen last.
    #[inline]
    pub fn settle(&mut self) {
        if !self.pending.is_empty() {
            self.settle_pending();
        }
    }

    #[inline(never)]
    fn settle_pending(&mut self) {
        // By numbers: taken out as a whole, the list would be copied.
        for number in 0..self.pending.len() {
            let Some((hash, index)) = self.pending.get(number).copied() else { break };
            if self.table.link_outbound(hash, index).is_err()
                && let Some(conn) = self.table.remove_inbound(index)
            {
                // Packets of it that were forwarded meanwhile get no answer; its client tries again.
                self.release_template(&conn);
                let _counted = self.unlinked.try_push(conn);
            }
        }
        self.pending.clear();
    }

    /// The same in the place of connection `index`, whose timer it inherits: for a client that uses
    /// its port again. `gone` sees the connection that ends.
    ///
    /// DIFFERS from Linux, which lists and counts the old connection for a moment more (ADR 0004).
    ///
    /// The timer that is there rings early, is found fresh and armed again. So a client that opens
    /// and closes one connection as fast as it can does not fill the wheel.
    ///
    /// # Errors
    ///
    /// [`Full::Index`], and the old connection is gone all the same; [`Full::Conns`] if there was
    /// none.
    pub fn open_over(
        &mut self,
        index: u32,
        conn: &Conn<F>,
        first: State,
        now: Tick,
        gone: impl FnOnce(&Conn<F>),
    ) -> Result<(), Full> {
        self.settle();
        let old = self.table.conn(index).copied().filter(Conn::is_live).ok_or(Full::Conns)?;
        gone(&old);
        self.hold_template(conn);
        self.release_template(&old);
        if let Err(full) = self.table.replace(index, conn) {
            self.release_template(conn);
            return Err(full);
        }
        if let Some(conn) = self.table.conn_mut(index) {
            conn.seen = now;
            conn.due = old.due;
            let state = core::mem::replace(&mut conn.state, first);
            self.timers.shorten(conn, index);
            conn.state = state;
            self.timers.arrive(conn, state);
        }
        Ok(())
    }

    /// The same in the place of a half-open connection, of the oldest if it is known
    /// ([`crate::half_open`]): for when the table is full. What is established never makes room.
    ///
    /// # Errors
    ///
    /// [`Full::Conns`] if no half-open connection was found in as many looks as there are for it; else
    /// as [`Conns::open_over`].
    #[cold]
    pub fn open_over_half_open(
        &mut self,
        conn: &Conn<F>,
        first: State,
        now: Tick,
        mut gone: impl FnMut(&Conn<F>),
    ) -> Result<u32, Full> {
        self.hold_template(conn);
        let opened = self.open_over_victim(conn, first, now, &mut gone);
        self.release_template(conn);
        opened
    }

    /// The same while `conn` holds its template, which is nobody's victim then.
    fn open_over_victim(
        &mut self,
        conn: &Conn<F>,
        first: State,
        now: Tick,
        mut gone: impl FnMut(&Conn<F>),
    ) -> Result<u32, Full> {
        let table = &self.table;
        let victim = self
            .half_open
            .pop_victim(|index| table.conn(index).is_some_and(state::is_half_open))
            .ok_or(Full::Conns)?;
        // The next evictions are near, and their victims known: first the line, then what it names.
        for (index, ahead) in self.half_open.upcoming(4).zip(0..) {
            match (ahead, table.conn(index)) {
                (1, Some(conn)) => drop(table.touch_keys(conn)),
                (3, _) => table.touch_conn(index),
                _ => {}
            }
        }
        let old = self.table.conn(victim).copied();
        self.open_over(victim, conn, first, now, &mut gone)?;
        if let Some(old) = old {
            self.end_idle_template(&old, gone);
        }
        self.note_half_open(victim);
        Ok(victim)
    }

    /// Ends a connection and says what it was; `None` if the line was free, or is that of a template
    /// that has connections.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<Conn<F>> {
        if self.table.conn(index).is_some_and(|conn| conn.is_template() && conn.control > 0) {
            return None;
        }
        self.settle();
        let conn = self.table.remove(index)?;
        self.release_template(&conn);
        Some(conn)
    }

    /// A new connection may be half-open. A template may never get a connection, and one whose last
    /// is gone may be one that nobody would miss.
    #[inline]
    pub(crate) fn note_half_open(&mut self, index: u32) {
        self.half_open.push(index);
    }

    /// Takes a connection out of the index.
    pub(crate) fn hide(&mut self, index: u32) {
        self.table.hide(index);
    }

    /// A template that is to be told that it is assured.
    pub(crate) fn next_assured(&mut self) -> Option<u32> {
        self.timers.assured.pop()
    }

    /// Looks at no more than `N` timers that ring at or before `now`, ends the connections that had
    /// no packet for too long, shows each to `gone`, and says how many it looked at. With `N` no
    /// less than the packets between two calls, neither timers nor stale entries pile up.
    ///
    /// Each line is asked for before the first is used: `N` misses are in flight at once.
    #[inline]
    pub fn expire<const N: usize>(&mut self, now: Tick, mut gone: impl FnMut(&Conn<F>)) -> usize {
        self.settle();
        if !self.unlinked.is_empty() {
            self.unlinked.drain(..).for_each(|conn| gone(&conn));
        }
        if !self.timers.assured.is_empty() {
            self.assure_templates();
        }
        let mut due = ArrayVec::<Due, N>::new();
        self.timers.wheel.pop(now, &mut due);
        if !due.is_empty() {
            self.look_at(&due, now, gone);
        }
        if self.timers.wheel.is_crowded() {
            for _ in 0..3 {
                self.sift::<N>();
            }
        }
        if let Some(from) = self.resetting {
            self.reset(from, N);
        }
        due.len()
    }

    /// Whether timers are still being set to other time-outs, some at each [`Conns::expire`].
    #[must_use]
    pub fn is_resetting(&self) -> bool {
        self.resetting.is_some()
    }

    /// Awaits the data connection of FTP at `index` (again), and says which state it was in (Linux 6.1
    /// `ip_vs_proto_tcp.c` `ip_vs_tcp_conn_listen()`).
    pub fn listen(&mut self, index: u32, now: Tick) -> Option<State> {
        let conn = self.table.conn_mut(index)?;
        conn.seen = now;
        let before = core::mem::replace(&mut conn.state, State::Listen);
        self.timers.shorten(conn, index);
        Some(before)
    }

    /// Shows the data connections of FTP that were seen to live since the last call.
    pub fn take_alive(&mut self, mut visit: impl FnMut(&Conn<F>)) {
        for index in core::mem::take(&mut self.alive) {
            if let Some(conn) = self.table.conn(index).filter(|conn| conn.has(flag::DATA)) {
                visit(conn);
            }
        }
    }

    /// The connections, and the stages of a lookup.
    #[inline(always)]
    #[must_use]
    pub fn table(&self) -> &Table<F> {
        &self.table
    }

    /// Whether the connection at `index` is the one that `key` names inbound.
    #[must_use]
    pub fn is_at(&self, index: u32, key: &Key<F>) -> bool {
        self.table.conn(index).is_some_and(|conn| conn.key(Direction::Inbound) == *key)
    }

    /// The connection at `index`, to be changed in what is neither key nor state nor time.
    #[inline]
    #[must_use]
    pub fn conn_mut(&mut self, index: u32) -> Option<&mut Conn<F>> {
        self.table.conn_mut(index)
    }

    /// Ticks that `conn` has left at `now` if no packet comes; 0 if it is due but still there.
    #[must_use]
    pub fn left(&self, conn: &Conn<F>, now: Tick) -> Tick {
        let deadline = self.timers.deadline(conn);
        if is_due(deadline, now) { 0 } else { deadline.wrapping_sub(now) }
    }

    /// Connections held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no connection is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes taken, all allocations counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.timers.wheel.bytes() + self.half_open.bytes()
    }

    #[inline]
    fn look_at<const N: usize>(
        &mut self,
        due: &ArrayVec<Due, N>,
        now: Tick,
        mut gone: impl FnMut(&Conn<F>),
    ) {
        for entry in due {
            self.table.touch_conn(entry.index);
        }
        let mut over = ArrayVec::<(u32, (Hash, Option<Hash>)), N>::new();
        for entry in due {
            let Some(conn) = self.table.conn(entry.index) else { continue };
            if !conn.is_live() || !entry.is_for(conn.due) {
                continue;
            }
            let is_over = is_due(self.timers.deadline(conn), now) && !has_company(conn);
            if is_over || !self.look_again(entry.index, now) {
                let Some(conn) = self.table.conn(entry.index) else { continue };
                let _fits = over.try_push((entry.index, self.table.touch_keys(conn)));
            }
        }
        // By reference: a list that is taken apart is copied first.
        for &(index, keys) in &over {
            let Some(conn) = self.table.conn(index).filter(|conn| conn.is_live()) else { continue };
            if !has_company(conn) {
                gone(conn);
                self.table.remove_by(index, keys);
            } else if let Some(conn) = self.remove(index) {
                gone(&conn);
            }
        }
    }

    /// Arms the timer of a connection anew that has time left, or is given some; `false` if it is
    /// over.
    #[inline]
    fn look_again(&mut self, index: u32, now: Tick) -> bool {
        let Some(conn) = self.table.conn_mut(index) else { return false };
        let mut deadline = self.timers.deadline(conn);
        if is_due(deadline, now)
            && (Self::prolong_template(conn, now) || self.timers.prolong_control(conn, now))
        {
            deadline = self.timers.deadline(conn);
        }
        if is_due(deadline, now) {
            return false;
        }
        let mut look = deadline;
        if conn.has(flag::DATA) && !conn.has(flag::SHADOW) {
            let _fits = self.alive.try_push(index);
            let again = now.wrapping_add(LOOK_AGAIN);
            look = if is_due(deadline, again) { deadline } else { again };
        }
        // If the wheel is full of stale entries: better over early than never.
        let due = self.timers.wheel.arm(index, look);
        due.is_some_and(|due| {
            conn.due = due;
            true
        })
    }

    /// Throws away stale entries of the wheel: looks at no more than `N`.
    #[cold]
    fn sift<const N: usize>(&mut self) {
        let mut entries = ArrayVec::<Due, N>::new();
        self.timers.wheel.sift(&mut entries);
        for entry in &entries {
            self.table.touch_conn(entry.index);
        }
        for entry in &entries {
            let Some(conn) = self.table.conn_mut(entry.index) else { continue };
            if conn.is_live()
                && entry.is_for(conn.due)
                && let Some(due) = self.timers.wheel.arm(entry.index, conn.due)
            {
                conn.due = due;
            }
        }
    }

    /// Arms those of the next `most` connections anew that would outlast a shortened timeout.
    #[cold]
    fn reset(&mut self, from: u32, most: usize) {
        let lines = from..from.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        self.resetting = Some(lines.end);
        for index in lines {
            let Some(conn) = self.table.conn_mut(index) else {
                self.resetting = None;
                return;
            };
            if conn.is_live() {
                self.timers.shorten(conn, index);
            }
        }
    }
}

/// Whether a connection has to do with others: it is a template or has one, or it is of FTP.
#[inline(always)]
fn has_company<F: Family>(conn: &Conn<F>) -> bool {
    conn.control != 0 || conn.flags & (flag::DATA | flag::IN_USE) != 0 || conn.is_template()
}

fn in_ticks(timeouts: &Timeouts) -> [Tick; State::ALL.len()] {
    State::ALL.map(|state| timeouts.ticks(state).min(TIMEOUT_MAX))
}

const _: () = assert!(Capacity::CONNS_MAX <= u32::MAX / ENTRIES_PER_CONN);
