//! From what an operator sees to what workers read.
//!
//! ```text
//!  State ──compile──► Snapshot          services that did not change are shared with the last one
//!                 └─► DestLine flags    of those that did, in every worker's lines
//! ```
//!
//! A change costs what the changed service costs, however many others there are: they are shared,
//! and so are the pieces of the list that they are in. Only where a service comes or goes the index is
//! copied, and where it takes its address with it our addresses are made anew.
//!
//! Where a scheduler stands depends on every single change of its destinations, in their order. So
//! each change is noted by itself, even where workers see several of them at once.

use crate::state::{Service as Row, State};
use core::net::IpAddr;
use rvs_api::{
    AddressFamily, Netmask, ServiceAttributes, ServiceFlags, ServiceKey as Key, Tunnel,
    TunnelChecksum, TunnelKind,
};
use rvs_model::{DestId, DestLine, SchedulerKind, ServiceId, StaleUdp, ticks};
use rvs_plane::grain::Grains;
use rvs_plane::marks::{Marks, Rule};
use rvs_plane::network::Network;
use rvs_plane::overload::Limits;
use rvs_plane::persist::{Mask, Persistence};
use rvs_plane::servers::Servers;
use rvs_plane::snapshot::{Dest, Maps, Rules, Service, ServiceKey, Snapshot};
use rvs_schedulers::map::ADDRESSES_MAX;
use rvs_schedulers::table::{self, HashFlags, Table};
use rvs_schedulers::{Candidate, Scheduler};
use rvs_wire::tunnel::Encapsulation;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Makes snapshots of one director, and knows the last one.
#[derive(Debug)]
pub struct Compiler {
    /// Without VIPs.
    network: Network,
    last: Snapshot,
    /// By the services' places.
    turns: Vec<Option<Turn>>,
    lines: Vec<Arc<[DestLine]>>,
    /// Maps that workers have, or may have. They are freed here, when all are back.
    lent: Vec<Maps>,
    /// Whether workers are to end connections of destinations that are marked so.
    purges: bool,
    /// Destinations whose connections workers are ending.
    ending: HashSet<DestId>,
    /// The version of the state that `last` is of.
    seen: u64,
    /// Virtual addresses, and how many services each has.
    vips: BTreeMap<IpAddr, usize>,
    /// How many services are persistent.
    persistent: usize,
}

/// What follows from the changes of a snapshot.
#[derive(Default)]
struct Follow {
    gone: Vec<Gone>,
    lent: Vec<Maps>,
    added: Vec<(ServiceKey, ServiceId)>,
    removed: Vec<ServiceKey>,
    /// Whether owners may have changed.
    grains: bool,
    persistent: usize,
    no_longer_persistent: usize,
}

impl Follow {
    /// A service has become another one, or came, or went.
    fn note(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if old.map(|old| old.key) != new.map(|new| new.key) {
            self.removed.extend(old.map(|old| old.key));
            self.added.extend(new.map(|new| (new.key, new.id)));
        }
        let is_persistent = |it: Option<&Service>| it.is_some_and(|it| it.persistence.is_some());
        self.persistent += usize::from(is_persistent(new));
        self.no_longer_persistent += usize::from(is_persistent(old));
        let ends = |it: Option<&Service>| {
            it.map(|it| {
                let ends: Vec<_> = it.dests.iter().map(|dest| (dest.socket, dest.method)).collect();
                (it.key, it.persistence, ends)
            })
        };
        self.grains |= ends(old) != ends(new);
    }
}

/// Where a service's scheduler stands that has seen every change and no connection.
#[derive(Clone, Copy, Debug)]
struct Turn {
    scheduler: Scheduler,
    /// When it got this scheduler.
    epoch: u64,
    /// When its destinations changed last.
    version: u64,
    /// The version of the state that this is about.
    seen: u64,
}

impl Compiler {
    /// For a director in `network` whose workers count in `lines`.
    #[must_use]
    pub fn new(network: Network, lines: Vec<Arc<[DestLine]>>) -> Self {
        let last = Snapshot::new(network.clone());
        Self {
            network,
            last,
            turns: Vec::new(),
            lines,
            lent: Vec::new(),
            purges: false,
            ending: HashSet::new(),
            seen: 0,
            vips: BTreeMap::new(),
            persistent: 0,
        }
    }

    /// Takes note of a change of the service of `key`, or of its destinations if `dests`. To be
    /// called after every such change.
    pub fn note(&mut self, state: &State, key: &Key, dests: bool) {
        if let Some(row) = state.service(key) {
            self.turn(state, row, dests);
        }
    }

    /// The snapshot of `state`, to be published, after which [`Compiler::retire`] is due for the
    /// destinations that it returns: no new connection finds them then.
    pub fn compile(&mut self, state: &State) -> (Snapshot, Vec<Gone>) {
        self.lent.retain(Maps::is_in_use);
        let mut next = self.last.clone();
        let mut follow = Follow::default();
        for id in state.changed_after(self.seen) {
            let Some(place) = place(id) else { continue };
            let old = self.last.services.get(place).cloned();
            let new = if let Some(row) = state.service_at(id) {
                let new = self.compiled(state, row, old.as_deref(), &mut follow);
                if new.is_none() {
                    continue;
                }
                new
            } else {
                let dests = old.iter().flat_map(|old| &old.dests);
                follow.gone.extend(dests.map(|dest| Gone { id: dest.id, flags: 0 }));
                None
            };
            follow.note(old.as_deref(), new.as_ref());
            next.services.set(place, new.map(Arc::new));
        }
        self.seen = state.version();
        self.find_at(&mut next, &follow);
        self.persistent += follow.persistent;
        self.persistent -= follow.no_longer_persistent;
        if follow.grains && self.lines.len() > 1 {
            let none = self.persistent == 0;
            let services = next.services.iter().map(Arc::as_ref).filter(|_| !none);
            next.grains = Arc::new(Grains::new(services));
        }
        self.lent.append(&mut follow.lent);
        next.timeouts = *state.timeouts();
        next.tunables = state.sysctls().tunables();
        let told = next.services.iter().map(Arc::as_ref).filter(|_| next.tunables.nat_icmp_send);
        next.servers = Arc::new(Servers::new(told));
        self.last = next.clone();
        (next, follow.gone)
    }

    /// What workers are to read of a service that is `old` to them; `None` if that is the same.
    fn compiled(
        &mut self,
        state: &State,
        row: &Row,
        old: Option<&Service>,
        follow: &mut Follow,
    ) -> Option<Service> {
        let turn = self.turn(state, row, false)?;
        let same = |old: &Service| {
            (turn.epoch, turn.version) == (old.epoch, old.version)
                && old.table.flags() == hash_flags(row)
                && old.persistence == persistence(row)
                && old.rules.one_packet == is_one_packet(row)
                && old.rules.stale_udp == row.attributes().stale_udp
        };
        if old.is_some_and(same) {
            return None;
        }
        let known = old.filter(|old| turn.epoch == old.epoch);
        let maps = match known {
            Some(old) => old.maps.clone(),
            None => maps(row, self.lines.len()),
        };
        follow.lent.extend(maps.clone().filter(|_| known.is_none()));
        let new = service(state, row, &turn, maps);
        let of_stale = stale_flags(row.attributes().stale_udp);
        let listed: HashSet<_> = new.dests.iter().map(|dest| dest.id).collect();
        let before = old.iter().flat_map(|old| &old.dests).map(|dest| dest.id);
        let missing = before.filter(|id| !listed.contains(id));
        follow.gone.extend(missing.map(|id| Gone { id, flags: of_stale }));
        for candidate in &new.candidates {
            let drained = !candidate.weight.is_eligible();
            let more = if drained { self.draining(candidate.id) | of_stale } else { 0 };
            self.flag(candidate.id, DestLine::AVAILABLE | more);
            self.purges |= more & DestLine::ENDS_UDP != 0;
        }
        Some(new)
    }

    /// What packets are marked for, from the next snapshot on.
    pub fn set_marks(&mut self, rules: &[Rule]) {
        self.last.marks = Arc::new(Marks::new(rules));
    }

    /// From now on no packet reaches these destinations.
    pub fn retire(&mut self, gone: &[Gone]) {
        for Gone { id, flags } in gone {
            self.flag(*id, *flags);
            self.purges |= flags & DestLine::ENDS_UDP != 0;
        }
    }

    /// Marks a destination so that the next purge ends all its connections; with `resets`, so that
    /// those of TCP are reset with their next packet.
    pub fn end_conns(&mut self, id: DestId, resets: bool) {
        let more = if resets { DestLine::RESETS } else { DestLine::ENDS };
        self.flag(id, self.flags(id) | more);
        if !resets {
            self.ending.insert(id);
            self.purges = true;
        }
    }

    /// All that was to be ended is: what begins from now on goes on, on a drained destination too.
    pub fn ended(&mut self) {
        for id in core::mem::take(&mut self.ending) {
            self.flag(id, self.flags(id) & !DestLine::ENDS);
        }
    }

    /// Whether a purge is due since this was asked last.
    pub fn take_purge(&mut self) -> bool {
        core::mem::take(&mut self.purges)
    }

    /// The scheduler of a service, brought up to date; `dests` if what changed is its destinations.
    /// `None` if the engine has no such scheduler, which the state's checks exclude.
    fn turn(&mut self, state: &State, row: &Row, dests: bool) -> Option<Turn> {
        let place = place(row.id())?;
        if self.turns.len() <= place {
            self.turns.resize(place + 1, None);
        }
        let turn = self.turns.get_mut(place)?;
        let known = turn.filter(|turn| turn.epoch == row.bound_at());
        if let Some(turn) = known.filter(|turn| turn.seen == row.version()) {
            return Some(turn);
        }
        let now = row.version();
        let mut next = known.map_or_else(
            || {
                let scheduler = Scheduler::new(row.scheduler()?);
                Some(Turn { scheduler, epoch: row.bound_at(), version: now, seen: now })
            },
            |turn| Some(Turn { seen: now, ..turn }),
        )?;
        // Linux 6.1 ip_vs_ctl.c __ip_vs_update_dest(), ip_vs_unlink_dest() tell the scheduler;
        // ip_vs_edit_service() does so only when it binds another one.
        if dests || known.is_none() {
            next.version = now;
            next.scheduler.update(&candidates(state, row));
        }
        *turn = Some(next);
        *turn
    }

    /// Where services are found: the index, and addresses that are ours.
    fn find_at(&mut self, next: &mut Snapshot, follow: &Follow) {
        if follow.added.is_empty() && follow.removed.is_empty() {
            return;
        }
        let index = Arc::make_mut(&mut next.index);
        let mut fewer = false;
        // First, because what is added may have the key of what is removed.
        for key in &follow.removed {
            index.remove(key);
            if let Some(vip) = key.vip()
                && let Entry::Occupied(mut services) = self.vips.entry(vip)
            {
                *services.get_mut() -= 1;
                if *services.get() == 0 {
                    services.remove();
                    fewer = true;
                }
            }
        }
        let mut more = Vec::new();
        for (key, id) in &follow.added {
            index.insert(*key, *id);
            if let Some(vip) = key.vip() {
                let services = self.vips.entry(vip).or_default();
                *services += 1;
                if *services == 1 {
                    more.push(vip);
                }
            }
        }
        if fewer {
            next.network = Arc::new(self.network.with_vips(self.vips.keys().copied()));
        } else if !more.is_empty() {
            next.network = Arc::new(next.network.with_vips(more));
        }
    }

    /// What the lines of a drained destination say: connections that are being ended go on ending
    /// whatever else of their service is edited.
    fn draining(&self, id: DestId) -> u32 {
        let flags = self.flags(id);
        let was_drained = flags & DestLine::DRAINED != 0;
        let ending = if was_drained { flags & (DestLine::ENDS | DestLine::RESETS) } else { 0 };
        DestLine::DRAINED | ending
    }

    fn flags(&self, id: DestId) -> u32 {
        let line = place_of(id).and_then(|place| self.lines.first()?.get(place));
        line.map(DestLine::flags).unwrap_or_default()
    }

    fn flag(&self, id: DestId, flags: u32) {
        let Some(place) = place_of(id) else { return };
        for lines in &self.lines {
            if let Some(line) = lines.get(place) {
                line.set_flags(flags);
            }
        }
    }
}

/// A destination that is listed no longer, and what its lines are to say of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gone {
    /// Which.
    pub id: DestId,
    flags: u32,
}

/// What `--stale-udp` makes of a destination that was removed or drained.
fn stale_flags(policy: StaleUdp) -> u32 {
    match policy {
        StaleUdp::Keep => 0,
        StaleUdp::Rebind => DestLine::STALE_UDP,
        StaleUdp::Expire => DestLine::STALE_UDP | DestLine::ENDS_UDP,
    }
}

fn is_one_packet(row: &Row) -> bool {
    row.attributes().flags.has(ServiceFlags::ONE_PACKET)
}

fn place_of(id: DestId) -> Option<usize> {
    usize::try_from(id.0).ok()
}

fn place(id: ServiceId) -> Option<usize> {
    usize::try_from(id.0).ok()
}

/// What schedulers see of a service's destinations.
fn candidates(state: &State, row: &Row) -> Vec<Candidate> {
    let candidate =
        |dest: &crate::state::Dest| Candidate { id: dest.id(), weight: dest.attributes().weight };
    state.dests_of(row).map(candidate).collect()
}

/// What `-b` says, to the schedulers that listen.
fn hash_flags(row: &Row) -> HashFlags {
    let flags = row.attributes().flags;
    HashFlags {
        fallback: flags.has(ServiceFlags::SCHEDULER_1),
        port: flags.has(ServiceFlags::SCHEDULER_2),
    }
}

/// The table of a scheduler that hashes. A change of many destinations makes one table.
fn table(state: &State, row: &Row, kind: SchedulerKind) -> Table {
    let entry = |dest: &crate::state::Dest| table::Entry {
        address: dest.address(),
        weight: dest.attributes().weight,
        last_weight: dest.last_weight(),
    };
    let dests: Vec<table::Entry> = state.dests_of(row).map(entry).collect();
    Table::new(kind, hash_flags(row), &dests)
}

/// Maps for a scheduler that remembers addresses. Clients ask for one address only, unless the
/// service is a mark.
fn maps(row: &Row, workers: usize) -> Option<Maps> {
    let addresses = match row.key() {
        Key::Address { .. } => 1,
        Key::Mark { .. } => ADDRESSES_MAX,
    };
    match row.scheduler()? {
        SchedulerKind::Lblc | SchedulerKind::Lblcr => {
            Some(Maps::new(workers, addresses, RandomState::new().hash_one(0)))
        }
        _ => None,
    }
}

/// A service as workers read it.
fn service(state: &State, row: &Row, turn: &Turn, maps: Option<Maps>) -> Service {
    let key = match *row.key() {
        Key::Address { protocol, address } => {
            ServiceKey { protocol: protocol.number(), address: address.ip(), port: address.port() }
        }
        Key::Mark { mark, family } => ServiceKey::mark(mark.0.get(), family == AddressFamily::V6),
    };
    let dest = |dest: &crate::state::Dest| Dest {
        id: dest.id(),
        socket: dest.address(),
        method: dest.attributes().method,
        encapsulation: encapsulation(dest.attributes().tunnel),
    };
    Service {
        id: row.id(),
        key,
        scheduler: turn.scheduler,
        epoch: turn.epoch,
        version: turn.version,
        candidates: candidates(state, row),
        dests: state.dests_of(row).map(dest).collect(),
        table: table(state, row, turn.scheduler.kind()),
        maps,
        persistence: persistence(row),
        rules: Rules {
            one_packet: is_one_packet(row),
            stale_udp: row.attributes().stale_udp,
            limits: limits(state, row),
        },
    }
}

/// What `-p` and `-M` say.
fn persistence(row: &Row) -> Option<Persistence> {
    let ServiceAttributes { flags, timeout_s, netmask, .. } = row.attributes();
    let mask = match *netmask {
        Netmask::V4(mask) => Mask::v4(mask),
        Netmask::V6(prefix) => Mask::v6(prefix),
    };
    let timeout = ticks(*timeout_s);
    flags.has(ServiceFlags::PERSISTENT).then_some(Persistence { timeout, mask })
}

/// What `--tun-type` and its companions say, to a worker.
fn encapsulation(tunnel: Tunnel) -> Encapsulation {
    let checksum = tunnel.checksum != TunnelChecksum::None;
    match tunnel.kind {
        TunnelKind::Ipip => Encapsulation::Ip,
        // Linux 6.1 ip_vs_xmit.c ipvs_gre_encap(): a remote checksum is GUE's, and none in GRE.
        TunnelKind::Gre => Encapsulation::Gre { checksum: tunnel.checksum == TunnelChecksum::Full },
        TunnelKind::Gue => Encapsulation::Gue { port: tunnel.port, checksum },
    }
}

/// The thresholds of a service's destinations; none if no destination has one.
fn limits(state: &State, row: &Row) -> Vec<Limits> {
    let limit = |dest: &crate::state::Dest| {
        let [a, b, c, d, ..] = dest.lifted_at().to_le_bytes();
        Limits {
            upper: dest.attributes().upper_threshold,
            lower: dest.attributes().lower_threshold,
            lifted: u32::from_le_bytes([a, b, c, d]),
        }
    };
    let limits: Vec<_> = state.dests_of(row).map(limit).collect();
    if limits.iter().any(|limits| limits.upper != 0) { limits } else { Vec::new() }
}

#[cfg(test)]
mod tests;
