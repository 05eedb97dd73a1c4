//! New connections: which service, which destination, and what the connection will need.

use crate::defense::Gate;
use crate::drop_reason::DropReason;
use crate::lane::{Verdict, World, forget};
use crate::neighbor::{Hop, Neighbors, peer};
use crate::overload::{Latches, Limits, Seen};
use crate::paths::Paths;
use crate::persist;
use crate::quota::Quota;
use crate::services::PIECE;
use crate::snapshot::{Dest, FTP_DATA_PORT, FTP_PORT, Maps, Service, ServiceKey, Snapshot};
use core::net::{Ipv4Addr, Ipv6Addr};
use rvs_conntrack::conn::flag;
use rvs_conntrack::{Conn, Conns, Direction, Full, Hash, state};
use rvs_model::{
    DestId, DestLine, ForwardMethod, Load, SchedulerKind, State, Tick, Tunables, ticks,
};
use rvs_schedulers::fold::{Cursor, Fold};
use rvs_schedulers::map::Map;
use rvs_schedulers::{Loads, Request, Scheduler, Share};
use rvs_wire::checksum::Delta;
use rvs_wire::flow::{Ends, Family, Key, protocol};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;
use std::sync::Arc;

/// The scheduler of one service, on this core.
#[derive(Debug)]
struct Turn {
    epoch: u64,
    version: u64,
    scheduler: Scheduler,
    /// Whether it goes by how many connections there are.
    counts: bool,
    /// Whose connections on other cores are looked at next.
    cursor: Cursor,
    lease: Option<Lease>,
}

/// A service's map, and where it belongs.
#[derive(Debug)]
struct Lease {
    map: Box<Map>,
    home: Maps,
}

impl Turn {
    /// No service was here yet.
    fn vacant() -> Self {
        let scheduler = Scheduler::new(SchedulerKind::None);
        let cursor = Cursor::default();
        Self { epoch: 0, version: 0, scheduler, counts: false, cursor, lease: None }
    }

    /// Takes note of a change. Each change is seen by itself while the worker breathes between them.
    #[cold]
    fn catch_up(&mut self, service: &Service, share: Share) {
        if self.epoch == service.epoch {
            self.scheduler.update(&service.candidates);
        } else {
            self.leave();
            self.scheduler = service.scheduler;
            self.counts = self.scheduler.kind().counts_conns();
            self.lease = service.maps.as_ref().and_then(|home| {
                let map = home.take()?;
                Some(Lease { map, home: Maps::clone(home) })
            });
        }
        self.scheduler.stagger(share, &service.candidates);
        (self.epoch, self.version) = (service.epoch, service.version);
    }

    /// Brings the map back, which the control plane frees.
    fn leave(&mut self) {
        if let Some(Lease { map, home }) = self.lease.take() {
            home.bring_back(map);
        }
    }
}

/// A packet of a client that has no connection.
pub(crate) struct Asker<'p, F: Family> {
    pub(crate) packet: &'p Packet<F>,
    /// Of its key.
    pub(crate) hash: Hash,
    /// 0 is none.
    pub(crate) mark: u32,
    /// What it asks for.
    pub(crate) service: Option<&'p Service>,
    /// The line of its client's connection before, if that is over.
    pub(crate) over: Option<u32>,
}

/// The schedulers of all services, on this core.
pub(crate) struct Balance {
    turns: Vec<Turn>,
    share: Share,
    /// What this core counts, by destination.
    own_lines: Arc<[DestLine]>,
    /// What the others count.
    other_lines: Vec<Arc<[DestLine]>>,
    /// The sum of the latter, as last looked at.
    fold: Fold,
    /// Which destinations are full.
    latches: Latches,
    /// What `drop_packet` lets through.
    pub(crate) gate: Gate,
    /// What there is time for.
    pub(crate) quota: Quota,
    /// The services that have a map.
    mapped: Vec<u32>,
    /// Whose map is looked after next.
    mapped_next: usize,
    /// The pieces of services as they were last looked at.
    seen: Vec<u64>,
    /// By which maps forget.
    tunables: Tunables,
}

impl Balance {
    /// For the worker `worker` of those whose lines these are; `seed` is secret and may be the same
    /// for all.
    pub(crate) fn new(
        services_max: usize,
        worker: u16,
        all_lines: Vec<Arc<[DestLine]>>,
        seed: u64,
    ) -> Self {
        let workers = u16::try_from(all_lines.len()).unwrap_or(u16::MAX);
        let seed = (u64::from(worker) + 1).wrapping_mul(seed | 1);
        let mut other_lines = all_lines;
        let at = usize::from(worker);
        let has_lines = at < other_lines.len();
        let own_lines = if has_lines { other_lines.remove(at) } else { Arc::default() };
        Self {
            turns: (0..services_max).map(|_| Turn::vacant()).collect(),
            share: Share { worker, workers, seed },
            fold: Fold::new(own_lines.len()),
            latches: Latches::new(own_lines.len(), other_lines.is_empty()),
            gate: Gate::default(),
            quota: Quota::default(),
            own_lines,
            other_lines,
            mapped: Vec::with_capacity(services_max),
            mapped_next: 0,
            seen: vec![0; services_max.div_ceil(PIECE)],
            tunables: Tunables::default(),
        }
    }

    /// Tells schedulers what changed, before the next connection asks: what several changes leave of
    /// a weighted round depends on each of them.
    pub(crate) fn apply(&mut self, snapshot: &Snapshot, paths: &mut Paths) {
        self.quota.forget_ends();
        let counted = Counted {
            own_lines: &self.own_lines,
            fold: &self.fold,
            latches: &self.latches,
            has_limits: true,
        };
        let pieces = snapshot.services.pieces().zip(&mut self.seen);
        let piece = u32::try_from(PIECE).unwrap_or(u32::MAX);
        let places = (0_u32..).step_by(PIECE);
        for ((((number, services), seen), turns), first) in
            pieces.zip(self.turns.chunks_mut(PIECE)).zip(places)
        {
            if core::mem::replace(seen, number) == number {
                continue;
            }
            for (turn, service) in turns.iter_mut().zip(services) {
                match service {
                    Some(service) => {
                        if (turn.epoch, turn.version) != (service.epoch, service.version) {
                            turn.catch_up(service, self.share);
                            service.dests.iter().for_each(|dest| paths.follow(dest));
                            counted.limit(service);
                        }
                    }
                    None => turn.leave(),
                }
                if let Some(lease) = &mut turn.lease {
                    lease.map.set_expiration(expiration(turn.scheduler.kind(), &self.tunables));
                }
            }
            let mapped = turns.iter().zip(first..).filter(|(turn, _)| turn.lease.is_some());
            self.mapped.retain(|place| !(first..first + piece).contains(place));
            self.mapped.extend(mapped.map(|(_, place)| place));
        }
        if self.tunables != snapshot.tunables {
            self.tunables = snapshot.tunables;
            for place in &self.mapped {
                let turn = usize::try_from(*place).ok().and_then(|at| self.turns.get_mut(at));
                if let Some(Turn { lease: Some(lease), scheduler, .. }) = turn {
                    lease.map.set_expiration(expiration(scheduler.kind(), &self.tunables));
                }
            }
        }
    }

    /// Looks after one service's map.
    #[inline]
    pub(crate) fn step(&mut self, now: Tick) {
        if !self.mapped.is_empty() {
            self.step_map(now);
        }
    }

    #[cold]
    fn step_map(&mut self, now: Tick) {
        let place = self.mapped.get(self.mapped_next).or_else(|| self.mapped.first());
        let at = place.and_then(|place| usize::try_from(*place).ok());
        let turn = at.and_then(|at| self.turns.get_mut(at));
        if let Some(lease) = turn.and_then(|turn| turn.lease.as_mut()) {
            lease.map.step(now);
        }
        self.mapped_next = (self.mapped_next + 1) % self.mapped.len().max(1);
    }

    /// Opens the connection that a packet to one of our addresses may begin, in the place of the
    /// one before if the client uses its port again, and says its line. The packet is counted as the
    /// connection's, and has yet to be sent.
    ///
    /// # Errors
    ///
    /// What becomes of the packet otherwise: by a connection that lives for this packet only, what
    /// `once` says.
    #[inline]
    pub(crate) fn open<F: Rewrite, B>(
        &mut self,
        world: &World<'_>,
        conns: &mut Conns<F>,
        (neighbors, paths): (&mut Neighbors<B>, &mut Paths),
        asker: &Asker<'_, F>,
        once: impl FnOnce(&Conn<F>, &[Hop], &Paths) -> Verdict,
    ) -> Result<u32, Verdict> {
        let Asker { packet, hash, mark, service, over } = *asker;
        let Packet { l3, vlan, .. } = *packet;
        let snapshot = world.snapshot;
        let service = service.ok_or(Verdict::Stack { l3, vlan })?;
        let sloppy = match packet.key.protocol {
            protocol::SCTP => snapshot.tunables.sloppy_sctp,
            _ => snapshot.tunables.sloppy_tcp,
        };
        if !state::may_open(packet.key.protocol, packet.flags, sloppy) {
            return Err(Verdict::Stack { l3, vlan });
        }
        let wanted = Wanted { packet, hash, mark, service, is_error: false };
        self.schedule_conn(world, conns, (neighbors, paths), wanted, over, once)
    }

    /// The same for one that `error` says is there, an ICMP error that has `mark` about the client's
    /// counterpart to `packet`: it is in no state until a packet of its own comes (Linux 6.1
    /// `ip_vs_core.c` `ip_vs_in_icmp()`).
    #[cold]
    pub(crate) fn open_by_error<F: Rewrite, B>(
        &mut self,
        world: &World<'_>,
        conns: &mut Conns<F>,
        way: (&mut Neighbors<B>, &mut Paths),
        (packet, mark): (&Packet<F>, u32),
        once: impl FnOnce(&Conn<F>, &[Hop], &Paths) -> Verdict,
    ) -> Option<Result<u32, Verdict>> {
        let service = world.snapshot.service(mark, &ServiceKey::of(&packet.key))?;
        let hash = conns.table().hash(&packet.key);
        let wanted = Wanted { packet, hash, mark, service, is_error: true };
        let opened = self.schedule_conn(world, conns, way, wanted, None, once);
        Some(opened.map_err(|verdict| match verdict {
            // An error is not answered with another.
            Verdict::NoDest { .. } => DropReason::NoDest.into(),
            other => other,
        }))
    }

    #[inline]
    fn schedule_conn<F: Rewrite, B>(
        &mut self,
        world: &World<'_>,
        conns: &mut Conns<F>,
        (neighbors, paths): (&mut Neighbors<B>, &mut Paths),
        wanted: Wanted<'_, F>,
        over: Option<u32>,
        once: impl FnOnce(&Conn<F>, &[Hop], &Paths) -> Verdict,
    ) -> Result<u32, Verdict> {
        let Wanted { packet, hash, mark, service, is_error } = wanted;
        let Packet { l3, vlan, .. } = *packet;
        let (client, vip) = (packet.key.ends.source(), packet.key.ends.destination());
        let network = &world.snapshot.network;
        let about_client = network.about(client.0.into());
        if about_client.is_no_host() || network.is_own(client.0.into()) {
            return Err(DropReason::Martian.into());
        }
        let request = Request {
            client: client.0.into(),
            client_port: client.1,
            vip: vip.0.into(),
            now: world.now,
        };
        // Linux 6.1 ip_vs_core.c ip_vs_schedule(): a server's data connection of FTP, not a client's.
        if client.1 == FTP_DATA_PORT {
            return Err(Verdict::Stack { l3, vlan });
        }
        if !self.quota.takes(|| (packet.key.protocol, (vip.0.into(), vip.1))) {
            return Err(DropReason::Overload.into());
        }
        if self.gate.drops() {
            return Err(DropReason::DropPacket.into());
        }
        let (dest, template) = match service.persistence {
            Some(persistence) => {
                persist::choose(self, world, conns, (service, persistence), packet, &request)?
            }
            None if service.key.is_mark() || vip.1 == service.key.port => {
                (self.schedule(service, &request).ok_or_else(|| service.leave(packet))?, 0)
            }
            None => return Err(service.leave(packet)),
        };
        let line = usize::try_from(dest.id.0).ok().and_then(|at| world.lines.get(at));
        let line = line.ok_or(DropReason::NoDest)?;
        let next_hop = paths.hop(network, neighbors, dest, world.now)?;
        let keeps_port = service.persistence.is_some() && vip.1 != service.key.port;
        let (dest_end, deltas) = dest_end::<F>(dest, vip, keeps_port);
        let mut conn = Conn::<F> {
            inbound: packet.key.ends,
            outbound: <F::Ends as Ends>::new(dest_end, client),
            protocol: packet.key.protocol,
            method: dest.method,
            flags: flags(dest.method, &packet.key),
            seen: world.now,
            packets: u32::from(!is_error),
            dest: dest.id,
            next_hop,
            address_delta: deltas.0,
            segment_delta: deltas.1,
            mark,
            control: template,
            born: world.now,
            ..Conn::default()
        };
        let is_once = service.rules.one_packet && conn.protocol == protocol::UDP;
        if conn.has_way_back() && !is_once {
            let (about, client) = (about_client, client.0.into());
            conn.client_hop = neighbors.resolve_towards(network, about, client, world.now)?;
        }
        if let Some(persistence) = service.persistence.filter(|_| template == 0) {
            let asked = (&packet.key, mark);
            conn.control = persist::remember(world, conns, (service, persistence), asked, dest)?;
        }
        if is_once {
            self.note_bound(service, dest.id, 1);
            line.count_conn();
            return Err(once(&conn, neighbors.hops(), paths));
        }
        let view = state::View::of(conn.method, Direction::Inbound);
        if !is_error {
            conn.state = conns.first_state(conn.protocol, packet.flags, view);
        }
        // A template that found no room may have taken that very line.
        let opened = match over.filter(|old| conns.is_at(*old, &packet.key)) {
            Some(old) => {
                let gone = |old: &Conn<F>| forget(world.lines, old);
                conns.open_over(old, &conn, conn.state, world.now, gone).map(|()| old)
            }
            None => take_in(conns, hash, &conn, conn.state, world),
        };
        let index = opened.map_err(|_: Full| {
            if conn.control != template {
                conns.end(conn.control, |unused| forget(world.lines, unused));
            }
            DropReason::TableFull
        })?;
        line.count_conn();
        line.step_load(conn.state.is_active(), true);
        self.note_bound(service, dest.id, 0);
        Ok(index)
    }

    /// A destination was given a connection that nobody scheduled.
    pub(crate) fn bound(&self, id: DestId) {
        let Self { own_lines, fold, latches, .. } = self;
        Counted { own_lines, fold, latches, has_limits: true }.bound(id, 0);
    }

    /// Notes that a destination of `service` was given a connection; `more` than are counted.
    #[inline(always)]
    fn note_bound(&self, service: &Service, id: DestId, more: u64) {
        let Self { own_lines, fold, latches, .. } = self;
        if !service.rules.limits.is_empty() {
            Counted { own_lines, fold, latches, has_limits: true }.bound(id, more);
        }
    }

    /// The destination whose turn it is.
    #[inline]
    pub(crate) fn schedule<'s>(
        &mut self,
        service: &'s Service,
        request: &Request,
    ) -> Option<&'s Dest> {
        let Self { turns, share, own_lines, other_lines, fold, latches, .. } = self;
        let turn = turns.get_mut(usize::try_from(service.id.0).ok()?)?;
        if (turn.epoch, turn.version) != (service.epoch, service.version) {
            turn.catch_up(service, *share);
        }
        let Service { candidates, table, rules, .. } = service;
        let has_limits = !rules.limits.is_empty();
        if turn.counts || has_limits {
            let (cursor, others) = (&mut turn.cursor, other_lines.len());
            fold.refresh(candidates, cursor, others, request.now, |id| sum(other_lines, id));
        }
        let counted = Counted { own_lines, fold, latches, has_limits };
        let map = turn.lease.as_mut().map(|lease| &mut *lease.map);
        let position = turn.scheduler.pick(candidates, table, map, request, &counted)?;
        service.dests.get(position)
    }
}

/// How long a scheduler's map remembers.
fn expiration(kind: SchedulerKind, tunables: &Tunables) -> Tick {
    ticks(match kind {
        SchedulerKind::Lblcr => tunables.lblcr_expiration,
        _ => tunables.lblc_expiration,
    })
}

/// Connections of destinations, as this core knows them.
struct Counted<'b> {
    own_lines: &'b [DestLine],
    fold: &'b Fold,
    latches: &'b Latches,
    /// Whether any of the service's destinations has a threshold.
    has_limits: bool,
}

impl Counted<'_> {
    fn own(&self, id: DestId) -> Option<&DestLine> {
        self.own_lines.get(usize::try_from(id.0).ok()?)
    }

    /// Connections of a destination, and `more`.
    fn seen(&self, id: DestId, more: u64) -> Seen {
        let ended = self.own(id).map(DestLine::ended).unwrap_or_default();
        Seen { total: self.load(id).total() + more, ended }
    }

    /// A destination was given a connection; `more` than are counted.
    #[cold]
    fn bound(&self, id: DestId, more: u64) {
        self.latches.bound(id, || self.seen(id, more));
    }

    /// Takes over what an operator says of the destinations of a service.
    fn limit(&self, service: &Service) {
        let limits =
            service.rules.limits.iter().copied().chain(core::iter::repeat(Limits::default()));
        for (dest, limits) in service.dests.iter().zip(limits) {
            self.latches.set(dest.id, limits, || self.seen(dest.id, 0));
        }
    }
}

/// A connection that is to be opened.
#[derive(Clone, Copy)]
struct Wanted<'p, F: Family> {
    /// The client's packet, or the one that it would have sent.
    packet: &'p Packet<F>,
    hash: Hash,
    mark: u32,
    service: &'p Service,
    /// Whether an ICMP error told of it.
    is_error: bool,
}

impl Loads for Counted<'_> {
    #[inline]
    fn load(&self, id: DestId) -> Load {
        let own = self.own(id).map(DestLine::load).unwrap_or_default();
        self.fold.load(id, own)
    }

    #[inline]
    fn is_overloaded(&self, id: DestId) -> bool {
        self.has_limits && self.latches.is_over(id, || self.seen(id, 0))
    }
}

/// Connections of a destination, on these cores.
#[inline]
fn sum(lines: &[Arc<[DestLine]>], id: DestId) -> Load {
    let at = usize::try_from(id.0).unwrap_or(usize::MAX);
    lines.iter().filter_map(|lines| lines.get(at)).map(DestLine::load).fold(
        Load::default(),
        |sum, more| Load {
            active: sum.active.wrapping_add(more.active),
            inactive: sum.inactive.wrapping_add(more.inactive),
        },
    )
}

/// Takes in a connection whose inbound key has this hash, in the place of one that is half-open if
/// the table is full.
#[inline]
pub(crate) fn take_in<F: Rewrite>(
    conns: &mut Conns<F>,
    hash: Hash,
    conn: &Conn<F>,
    first: State,
    world: &World<'_>,
) -> Result<u32, Full> {
    match conns.open_at(hash, conn, first, world.now) {
        Err(Full::Conns) => take_place(conns, conn, first, world),
        done => done,
    }
}

#[cold]
#[inline(never)]
fn take_place<F: Rewrite>(
    conns: &mut Conns<F>,
    conn: &Conn<F>,
    first: State,
    world: &World<'_>,
) -> Result<u32, Full> {
    let gone = |old: &Conn<F>| forget(world.lines, old);
    let opened = conns.open_over_half_open(conn, first, world.now, gone);
    opened.inspect(|_| world.frames.evicted())
}

/// What is unusual about a new connection (Linux 6.1 `ip_vs_proto_tcp.c` `tcp_app_conn_bind()`: the
/// virtual port makes a connection FTP's, whatever the service's).
#[inline]
fn flags<F: Family>(method: ForwardMethod, key: &Key<F>) -> u8 {
    match method {
        ForwardMethod::Tunnel => flag::APART,
        ForwardMethod::Masquerade
            if key.ends.destination().1 == FTP_PORT && key.protocol == protocol::TCP =>
        {
            flag::APART | flag::HELPED
        }
        _ => 0,
    }
}

/// The destination's address and port as a connection of family `F` keeps them, and what
/// masquerading does to checksums. With `asked` the port is the one that the client asked for, like
/// that of a destination that has none.
#[inline(always)]
fn dest_end<F: Rewrite>(
    dest: &Dest,
    vip: (F::Addr, u16),
    asked: bool,
) -> ((F::Addr, u16), (Delta, Delta)) {
    let port = if asked || dest.socket.port() == 0 { vip.1 } else { dest.socket.port() };
    let end = (dest_address::<F>(dest), port);
    let deltas = match dest.method {
        ForwardMethod::Masquerade => Delta::end::<F>(vip, end),
        _ => Default::default(),
    };
    (end, deltas)
}

/// The destination's address. Behind a tunnel of the other family only that of it is kept which
/// [`crate::neighbor::Hop::leads_to`] asks for.
#[inline]
pub(crate) fn dest_address<F: Family>(dest: &Dest) -> F::Addr {
    F::address(dest.socket.ip()).unwrap_or_else(|| stand_in::<F>(peer(dest.socket.ip())))
}

/// An address of family `F` of which [`peer`] says this.
#[cold]
fn stand_in<F: Family>(peer: u32) -> F::Addr {
    let short = Ipv4Addr::from_bits(peer);
    let long = Ipv6Addr::from_bits(peer.into());
    let either = F::address(short.into()).or_else(|| F::address(long.into()));
    either.unwrap_or_else(|| F::Ends::default().source().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_how_much_memory_a_place_for_a_service_and_a_destination_takes() {
        let manual = include_str!("../../../docs/manual/configuration.md");
        // With its place in the list of those that have a map.
        let service = size_of::<Turn>() + size_of::<u32>();
        // A sum of the other workers' counts among them.
        let dest =
            size_of::<DestLine>() + size_of::<Load>() + Latches::OCTETS_EACH + Paths::OCTETS_EACH;
        for (key, octets) in [("services", service), ("dests", dest)] {
            let line = manual.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
            let line = line.unwrap();
            let said = format!("{octets} octets each in every worker");
            assert!(line.contains(&said), "{line}, and it is {said}");
        }
    }
}
