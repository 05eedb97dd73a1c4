//! New connections: which service, which destination, and what the connection will need.

use crate::drop_reason::DropReason;
use crate::lane::{Verdict, World, forget};
use crate::neighbor::{Neighbors, Place, peer};
use crate::paths::Paths;
use crate::snapshot::{Dest, Service, ServiceKey};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_conntrack::{Conn, Conns, Direction, Full, state};
use rvs_model::{DestId, DestLine, ForwardMethod, Load, SchedulerKind, State};
use rvs_schedulers::Scheduler;
use rvs_wire::checksum::Delta;
use rvs_wire::flow::{Ends, Family};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;
use std::sync::Arc;

/// The scheduler of one service, on this core.
#[derive(Clone, Copy, Debug)]
struct Turn {
    epoch: u64,
    version: u64,
    scheduler: Scheduler,
}

impl Turn {
    /// Takes note of a change. Each change is seen by itself while the worker breathes between them.
    #[cold]
    fn catch_up(&mut self, service: &Service) {
        if self.epoch == service.epoch {
            self.scheduler.update(&service.candidates);
        } else {
            self.scheduler = service.scheduler;
        }
        (self.epoch, self.version) = (service.epoch, service.version);
    }
}

/// The schedulers of all services, on this core.
pub(crate) struct Balance {
    turns: Vec<Turn>,
    /// Every worker's lines: least-connection schedulers count them all.
    all_lines: Vec<Arc<[DestLine]>>,
}

impl Balance {
    pub(crate) fn new(services_max: usize, all_lines: Vec<Arc<[DestLine]>>) -> Self {
        let nobody = Turn { epoch: 0, version: 0, scheduler: Scheduler::new(SchedulerKind::Rr) };
        Self { turns: vec![nobody; services_max], all_lines }
    }

    /// Tells schedulers what changed, before the next connection asks: what several changes leave of
    /// a weighted round depends on each of them.
    pub(crate) fn apply(&mut self, services: &[Option<Arc<Service>>]) {
        for (turn, service) in self.turns.iter_mut().zip(services) {
            if let Some(service) = service
                && (turn.epoch, turn.version) != (service.epoch, service.version)
            {
                turn.catch_up(service);
            }
        }
    }

    /// Opens the connection that `packet`, to one of our addresses, may begin, in the
    /// place of connection `over` if the client uses its port again.
    pub(crate) fn open<F: Rewrite, B>(
        &mut self,
        world: World<'_>,
        conns: &mut Conns<F>,
        neighbors: &mut Neighbors<B>,
        paths: &mut Paths,
        packet: &Packet<F>,
        over: Option<u32>,
    ) -> Result<u32, Verdict> {
        let Packet { l3, vlan, .. } = *packet;
        let (client, vip) = (packet.key.ends.source(), packet.key.ends.destination());
        let key = ServiceKey { protocol: packet.key.protocol, address: vip.0.into(), port: vip.1 };
        let snapshot = world.snapshot;
        let service = snapshot.service(&key).ok_or(Verdict::Stack { l3, vlan })?;
        let sloppy = snapshot.tunables.sloppy_tcp;
        if !state::may_open(packet.key.protocol, packet.flags, sloppy) {
            return Err(Verdict::Stack { l3, vlan });
        }
        let network = &snapshot.network;
        if is_martian(client.0.into()) || network.is_local(client.0.into()) {
            return Err(DropReason::Martian.into());
        }
        let dest = self.schedule(service).ok_or(Verdict::NoDest { l3 })?;
        let line = usize::try_from(dest.id.0).ok().and_then(|at| world.lines.get(at));
        let line = line.ok_or(DropReason::NoDest)?;
        let next_hop = paths.hop(network, neighbors, dest, world.now)?;
        let (dest_end, deltas) = dest_end::<F>(dest, vip);
        let mut conn = Conn::<F> {
            inbound: packet.key.ends,
            outbound: <F::Ends as Ends>::new(dest_end, client),
            protocol: packet.key.protocol,
            method: dest.method,
            seen: world.now,
            dest: dest.id,
            next_hop,
            address_delta: deltas.0,
            segment_delta: deltas.1,
            ..Conn::default()
        };
        if conn.has_way_back() {
            let next = network.next_hop(client.0.into()).ok_or(DropReason::NoRoute)?;
            let hop = neighbors.resolve(network, next, Place::Guest, world.now);
            conn.client_hop = hop.ok_or(DropReason::NeighborTableFull)?;
        }
        // Armed for the state that this packet leads to: NONE's time-out is shorter, and the entry
        // would have to be armed a second time.
        let view = state::View::of(conn.method, Direction::Inbound);
        let secure = snapshot.tunables.secure_tcp != 0;
        let next = state::next(State::None, conn.protocol, packet.flags, view, secure);
        let gone = |old: &Conn<F>| forget(world.lines, old);
        let opened = match over {
            Some(old) => conns.open_over(old, &conn, next, world.now, gone).map(|()| old),
            None => conns.open(&conn, next, world.now).or_else(|full| match full {
                Full::Conns => {
                    let opened = conns.open_over_half_open(&conn, next, world.now, gone);
                    opened.inspect(|_| world.frames.evicted())
                }
                other => Err(other),
            }),
        };
        let index = opened.map_err(|_: Full| DropReason::TableFull)?;
        line.count_conn();
        // Linux 6.1 ip_vs_conn.c ip_vs_bind_dest(): inactive until a state says otherwise.
        line.step_load(false, true);
        Ok(index)
    }

    /// The destination whose turn it is.
    #[inline]
    fn schedule<'s>(&mut self, service: &'s Service) -> Option<&'s Dest> {
        let turn = self.turns.get_mut(usize::try_from(service.id.0).ok()?)?;
        if (turn.epoch, turn.version) != (service.epoch, service.version) {
            turn.catch_up(service);
        }
        let all_lines = &self.all_lines;
        let load = |id: DestId| load(all_lines, id);
        let position = turn.scheduler.pick(&service.candidates, load)?;
        service.dests.get(position)
    }
}

/// Connections of a destination, on all cores.
#[inline]
fn load(all_lines: &[Arc<[DestLine]>], id: DestId) -> Load {
    let at = usize::try_from(id.0).unwrap_or(usize::MAX);
    all_lines.iter().filter_map(|lines| lines.get(at)).map(DestLine::load).fold(
        Load::default(),
        |sum, more| Load {
            active: sum.active.wrapping_add(more.active),
            inactive: sum.inactive.wrapping_add(more.inactive),
        },
    )
}

/// The destination's address and port as a connection of family `F` keeps them, and what
/// masquerading does to checksums. Behind a tunnel of the other family only that of the address is
/// kept which [`crate::neighbor::Hop::leads_to`] asks for.
fn dest_end<F: Rewrite>(dest: &Dest, vip: (F::Addr, u16)) -> ((F::Addr, u16), (Delta, Delta)) {
    let port = if dest.socket.port() == 0 { vip.1 } else { dest.socket.port() };
    let address =
        F::address(dest.socket.ip()).unwrap_or_else(|| stand_in::<F>(peer(dest.socket.ip())));
    let end = (address, port);
    let deltas = match dest.method {
        ForwardMethod::Masquerade => Delta::end::<F>(vip, end),
        _ => Default::default(),
    };
    (end, deltas)
}

/// An address of family `F` of which [`peer`] says this.
fn stand_in<F: Family>(peer: u32) -> F::Addr {
    let short = Ipv4Addr::from_bits(peer);
    let long = Ipv6Addr::from_bits(peer.into());
    let either = F::address(short.into()).or_else(|| F::address(long.into()));
    either.unwrap_or_else(|| F::Ends::default().source().0)
}

/// Whether no host may have this address (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
pub(crate) fn is_martian(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => {
            source.is_multicast()
                || source.is_broadcast()
                || source.is_loopback()
                || source.octets().first() == Some(&0)
        }
        IpAddr::V6(source) => {
            source.is_multicast() || source.is_loopback() || source.is_unspecified()
        }
    }
}
