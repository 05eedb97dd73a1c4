//! A director on memory links, stepped by hand: what the plane's tests stand on.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "each test file uses part of it, and a test may panic"
)]

pub mod card;
pub mod frames;

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use rvs_io::memory::{FarEnd, MemoryQueue, link};
use rvs_io::{Frame, Pool, Reserve, RoomFrame};
use rvs_model::{DestId, DestLine, ForwardMethod, SchedulerKind, ServiceId, State, Tick, Weight};
use rvs_plane::grain::Grains;
use rvs_plane::handoff::TOGETHER;
use rvs_plane::network::{Interface, InterfaceId, Network, Route, StaticNeighbor};
use rvs_plane::persist::{Mask, Persistence};
use rvs_plane::servers::Servers;
use rvs_plane::shared::{Command, ConnRow, Dump, FrameCounts};
use rvs_plane::snapshot::{Dest, Rules, Service, ServiceKey};
use rvs_plane::{Limits, Mesh, Publisher, Setup, Shared, Snapshot, Steering, Worker};
use rvs_schedulers::table::{Entry, HashFlags, Table};
use rvs_schedulers::{Candidate, Scheduler};
use rvs_wire::mac::MacAddr;
use rvs_wire::tunnel::Encapsulation;
use std::collections::HashMap;
use std::sync::Arc;

/// The router that clients are behind.
pub const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
pub const OUR_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 1, 1])];
pub const LINKS: usize = 2;

/// What a card computes over a frame to choose a queue.
pub type Rss = fn(&[u8]) -> u32;

/// What a director is built with.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub workers: u16,
    pub limits: Limits,
    /// The hash of each link's card.
    pub rss: [Rss; LINKS],
    /// Frames in each ring of each queue.
    pub ring: usize,
    /// Frames in all.
    pub frames: usize,
    /// Frames that each pool keeps.
    pub cache: usize,
}

pub const LIMITS: Limits = Limits {
    conns4: 4096,
    conns6: 4096,
    services: 64,
    dests: 256,
    neighbors: 256,
    burst: 64,
    huge_pages: false,
};

pub const PLAN: Plan =
    Plan { workers: 1, limits: LIMITS, rss: [|_| 0, |_| 0], ring: 512, frames: 4096, cache: 64 };

/// A frame that left the director.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Left {
    pub link: usize,
    /// Whose it was: worker `n` has queue `n` of every link.
    pub worker: u16,
    pub frame: Vec<u8>,
}

pub struct Rig {
    pub workers: Vec<Worker<MemoryQueue>>,
    pub far: Vec<FarEnd<Rss>>,
    pub publisher: Publisher<Snapshot>,
    pub shared: Vec<Shared>,
    pub mesh: Mesh<RoomFrame>,
    pub snapshot: Snapshot,
    pub reserve: Reserve,
    pub now: Tick,
    base: Network,
    versions: u64,
    /// Destinations that were ever there: one that returns is the same one.
    known: HashMap<(ServiceKey, SocketAddr), DestId>,
}

/// Two links: clients on 198.51.100.0/24 and `2001:db8:c::/64` behind the first, destinations on
/// 192.0.2.0/24 and `2001:db8:d::/64` behind the second. Everybody else is behind a router on the
/// first.
pub fn network() -> Network {
    network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 0)
}

/// An interface of the usual network: VLAN 0 has its addresses, any other has 10.VLAN.LINK.1/24 and
/// `fd00:VLAN:LINK::1/64`.
pub fn interface(link: u8, vlan: u16, mtu: u16) -> Interface {
    let addresses = match (link, vlan) {
        (0, 0) => ["198.51.100.1/24".to_owned(), "2001:db8:c::1/64".to_owned()],
        (_, 0) => ["192.0.2.1/24".to_owned(), "2001:db8:d::1/64".to_owned()],
        _ => [format!("10.{vlan}.{link}.1/24"), format!("fd00:{vlan}:{link}::1/64")],
    };
    Interface {
        name: format!("link{link}.{vlan}"),
        link,
        vlan,
        mac: OUR_MACS[usize::from(link)],
        mtu,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// A network of these interfaces, of which the first leads to the router, and whose first `known`
/// destinations are static neighbours.
pub fn network_with(interfaces: Vec<Interface>, known: u8) -> Network {
    let via = |to: &str, gateway: &str| Route {
        to: to.parse().unwrap(),
        interface: InterfaceId(0),
        via: Some(gateway.parse().unwrap()),
    };
    let routes = vec![via("0.0.0.0/0", "198.51.100.254"), via("::/0", "2001:db8:c::fe")];
    let at = |interface, address, mac| StaticNeighbor { interface, address, mac };
    let gateways = ["198.51.100.254", "2001:db8:c::fe"];
    let mut neighbors: Vec<_> = gateways
        .iter()
        .map(|gateway| at(InterfaceId(0), gateway.parse().unwrap(), CLIENT_MAC))
        .collect();
    for number in 0..known {
        for v6 in [false, true] {
            neighbors.push(at(InterfaceId(1), dest_ip(v6, number), dest_mac(number)));
        }
    }
    Network::new(interfaces, routes, vec![], neighbors, true)
}

/// The address of a destination: 192.0.2.11.. and `2001:db8:d::11`..
pub fn dest_ip(v6: bool, number: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 0x11 + u16::from(number)).into()
    } else {
        IpAddr::from([192, 0, 2, 11 + number])
    }
}

pub fn dest_mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 2, 0x11 + number])
}

impl Rig {
    pub fn new(network: Network, plan: &Plan) -> Self {
        let reserve = Reserve::new(plan.frames, 1984);
        let snapshot = Snapshot::new(network.clone());
        let publisher = Publisher::new(snapshot.clone());
        let mesh = Mesh::new(plan.workers);
        let shared: Vec<_> = (0..plan.workers).map(|_| Shared::new(plan.limits.dests)).collect();
        let all_lines: Vec<_> = shared.iter().map(|it| Arc::clone(&it.lines)).collect();
        let mut queues: Vec<Vec<MemoryQueue>> = (0..plan.workers).map(|_| Vec::new()).collect();
        let mut far = Vec::new();
        for rss in plan.rss {
            let pool = reserve.pool_with_cache(plan.cache);
            let (near, end) = link(plan.workers, plan.ring, pool, rss);
            for (worker, queue) in queues.iter_mut().zip(near) {
                worker.push(queue);
            }
            far.push(end);
        }
        let make = |(id, queues): (u16, Vec<MemoryQueue>)| {
            Worker::new(Setup {
                id,
                queues,
                pool: reserve.pool_with_cache(plan.cache),
                reader: publisher.reader(),
                shared: shared[usize::from(id)].clone(),
                all_lines: all_lines.clone(),
                mesh: mesh.clone(),
                steering: Steering::new(plan.workers),
                limits: plan.limits,
                seed: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
                now: 0,
            })
            .unwrap()
        };
        Self {
            workers: (0..).zip(queues).map(make).collect(),
            far,
            publisher,
            shared,
            mesh,
            snapshot,
            reserve,
            now: 0,
            base: network,
            versions: 0,
            known: HashMap::new(),
        }
    }

    /// One worker, eight destinations known.
    pub fn single() -> Self {
        let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
        Self::new(network_with(interfaces, 8), &PLAN)
    }

    /// Adds a service, its destinations newest first, and publishes.
    pub fn add_service(
        &mut self,
        (protocol, vip): (u8, &str),
        kind: SchedulerKind,
        dests: &[(&str, ForwardMethod, u32)],
    ) -> ServiceId {
        let vip: SocketAddr = vip.parse().unwrap();
        self.add_service_of(
            ServiceKey { protocol, address: vip.ip(), port: vip.port() },
            kind,
            dests,
        )
    }

    /// The same of any key: that of a mark, too.
    pub fn add_service_of(
        &mut self,
        key: ServiceKey,
        kind: SchedulerKind,
        dests: &[(&str, ForwardMethod, u32)],
    ) -> ServiceId {
        let mut places = 0..;
        let place = places.find(|place| self.snapshot.services.get(*place).is_none()).unwrap();
        let id = ServiceId(u32::try_from(place).unwrap());
        self.versions += 1;
        let service = Arc::new(Service {
            id,
            key,
            scheduler: Scheduler::new(kind),
            epoch: self.versions,
            version: self.versions,
            candidates: vec![],
            dests: vec![],
            table: Table::default(),
            maps: None,
            persistence: None,
            rules: Rules::default(),
        });
        self.snapshot.services.set(place, Some(service));
        for (socket, method, weight) in dests.iter().rev() {
            self.insert_dest(id, socket.parse().unwrap(), *method, *weight);
        }
        self.publish();
        id
    }

    /// Makes a service persistent, as `-p` and `-M` do.
    pub fn persist(&mut self, id: ServiceId, timeout: Tick, mask: Mask) {
        self.edit(id, |service| service.persistence = Some(Persistence { timeout, mask }));
        self.publish();
    }

    pub fn service(&self, id: ServiceId) -> &Service {
        self.snapshot.services.get(usize::try_from(id.0).unwrap()).unwrap()
    }

    fn edit(&mut self, id: ServiceId, edit: impl FnOnce(&mut Service)) {
        let place = usize::try_from(id.0).unwrap();
        let mut service = self.snapshot.services.set(place, None).unwrap();
        edit(Arc::make_mut(&mut service));
        self.snapshot.services.set(place, Some(service));
    }

    /// Changes a service as the control plane does: one version, one update of the scheduler.
    fn change(&mut self, id: ServiceId, change: impl FnOnce(&mut Service)) {
        self.versions += 1;
        let version = self.versions;
        self.edit(id, |service| {
            change(service);
            service.version = version;
            service.scheduler.update(&service.candidates);
            let listed = service.candidates.iter().zip(&service.dests);
            let entry = |(candidate, dest): (&Candidate, &Dest)| {
                let weight = candidate.weight;
                Entry { address: dest.socket, weight, last_weight: weight }
            };
            let entries: Vec<Entry> = listed.map(entry).collect();
            service.table = Table::new(service.scheduler.kind(), HashFlags::default(), &entries);
        });
    }

    fn insert_dest(
        &mut self,
        service: ServiceId,
        socket: SocketAddr,
        method: ForwardMethod,
        weight: u32,
    ) -> DestId {
        let next = DestId(u32::try_from(self.known.len()).unwrap());
        let id = *self.known.entry((self.service(service).key, socket)).or_insert(next);
        self.flag(id, DestLine::AVAILABLE | if weight == 0 { DestLine::DRAINED } else { 0 });
        self.change(service, |service| {
            let encapsulation = Encapsulation::Ip;
            service.dests.insert(0, Dest { id, socket, method, encapsulation });
            service.candidates.insert(0, Candidate { id, weight: Weight(weight) });
        });
        id
    }

    pub fn add_dest(
        &mut self,
        service: ServiceId,
        socket: SocketAddr,
        method: ForwardMethod,
        weight: u32,
    ) -> DestId {
        let id = self.insert_dest(service, socket, method, weight);
        self.publish();
        id
    }

    pub fn remove_dest(&mut self, service: ServiceId, id: DestId) {
        self.flag(id, 0);
        self.change(service, |service| {
            service.dests.retain(|dest| dest.id != id);
            service.candidates.retain(|dest| dest.id != id);
        });
        self.publish();
    }

    pub fn set_weight(&mut self, service: ServiceId, id: DestId, weight: u32) {
        self.flag(id, DestLine::AVAILABLE | if weight == 0 { DestLine::DRAINED } else { 0 });
        self.change(service, |service| {
            let mut all = service.candidates.iter_mut();
            all.find(|dest| dest.id == id).unwrap().weight = Weight(weight);
        });
        self.publish();
    }

    /// Changes what most services do not have.
    pub fn set_rules(&mut self, service: ServiceId, rules: Rules) {
        self.change(service, |service| service.rules = rules);
        self.publish();
    }

    /// Another method for a destination, as `ipvsadm -e` does.
    pub fn set_method(&mut self, service: ServiceId, id: DestId, method: ForwardMethod) {
        self.change(service, |service| {
            service.dests.iter_mut().find(|dest| dest.id == id).unwrap().method = method;
        });
        self.publish();
    }

    /// Another kind of tunnel to a destination, as `ipvsadm -e --tun-type` does.
    pub fn set_tunnel(&mut self, service: ServiceId, id: DestId, encapsulation: Encapsulation) {
        self.change(service, |service| {
            let dest = service.dests.iter_mut().find(|dest| dest.id == id).unwrap();
            (dest.method, dest.encapsulation) = (ForwardMethod::Tunnel, encapsulation);
        });
        self.publish();
    }

    pub fn remove_service(&mut self, id: ServiceId) {
        let place = usize::try_from(id.0).unwrap();
        let place = self.snapshot.services.set(place, None).unwrap();
        for dest in &place.dests {
            self.flag(dest.id, 0);
        }
        self.publish();
    }

    fn flag(&self, id: DestId, flags: u32) {
        for shared in &self.shared {
            shared.lines[usize::try_from(id.0).unwrap()].set_flags(flags);
        }
    }

    /// Shows the workers the services and tunables as they are now.
    pub fn publish(&mut self) {
        let services = self.snapshot.services.iter();
        let keys: Vec<_> = services.map(|service| (service.key, service.id)).collect();
        self.snapshot.index = Arc::new(keys.iter().copied().collect());
        let vips = keys.iter().filter_map(|(key, _)| key.vip());
        let services = self.snapshot.services.iter();
        self.snapshot.grains = Arc::new(Grains::new(services.map(Arc::as_ref)));
        let services = self.snapshot.services.iter().map(Arc::as_ref);
        let told = services.filter(|_| self.snapshot.tunables.nat_icmp_send);
        self.snapshot.servers = Arc::new(Servers::new(told));
        self.snapshot.network = Arc::new(self.base.with_vips(vips));
        self.publisher.publish(self.snapshot.clone());
    }

    /// Gives frames to a link and lets every worker breathe until nothing moves.
    pub fn send(&mut self, link: usize, frames: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
        for frame in frames {
            self.far[link].inject(frame).unwrap();
        }
        self.settle()
    }

    /// Breathes until nothing moves and returns what came out, by link.
    pub fn settle(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            let now = self.now;
            let moved: usize = self.workers.iter_mut().map(|worker| worker.breathe(now)).sum();
            out.extend(self.collect().into_iter().map(|left| (left.link, left.frame)));
            if moved == 0 {
                break;
            }
        }
        self.assert_conservation();
        out
    }

    /// Takes what left the director off the wires.
    pub fn collect(&mut self) -> Vec<Left> {
        let mut out = Vec::new();
        for (link, far) in self.far.iter_mut().enumerate() {
            for worker in 0..u16::try_from(far.queues()).unwrap() {
                while let Some(frame) = far.collect_frame(worker) {
                    out.push(Left { link, worker, frame: frame.octets().to_vec() });
                    far.pool_mut().give(frame);
                }
            }
        }
        out
    }

    /// Takes what left the director off the wires and forgets it.
    pub fn discard(&mut self) {
        for far in &mut self.far {
            for worker in 0..u16::try_from(far.queues()).unwrap() {
                while let Some(frame) = far.collect_frame(worker) {
                    far.pool_mut().give(frame);
                }
            }
        }
    }

    /// Lets time pass, a tick at a time.
    pub fn pass(&mut self, ticks: Tick) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        for _ in 0..ticks {
            self.now += 1;
            out.extend(self.settle());
        }
        out
    }

    pub fn counts(&self) -> FrameCounts {
        let all = self.shared.iter().map(|shared| shared.frames.read());
        all.fold(FrameCounts::default(), |sum, more| sum.and(&more))
    }

    /// What came in went somewhere: sent, to the host, dropped by name, held, or in a ring.
    pub fn assert_conservation(&self) {
        for (worker, shared) in self.shared.iter().enumerate() {
            let counts = shared.frames.read();
            assert_eq!(counts.unaccounted(), 0, "worker {worker}: {counts:?}");
        }
        let waiting: usize = (0..self.workers.len())
            .map(|worker| self.mesh.inbox(u16::try_from(worker).unwrap()).unwrap().waiting())
            .sum();
        let counts = self.counts();
        let in_rings = usize::try_from(counts.handed - counts.taken).unwrap();
        assert!((waiting..=waiting * TOGETHER).contains(&in_rings), "{in_rings} in {waiting}");
    }

    /// Asks a worker for its connections, as the control plane does.
    pub fn dump(&mut self, worker: usize, v6: bool) -> Vec<ConnRow> {
        let mut all = Vec::new();
        let mut from = 0;
        loop {
            let dump = Dump { v6, from, rows: Vec::with_capacity(7), done: false };
            self.shared[worker].commands.push(Command::Dump(dump)).unwrap();
            let answer = loop {
                self.workers[worker].breathe(self.now);
                if let Some(Command::Dump(answer)) = self.shared[worker].replies.pop() {
                    break answer;
                }
            };
            assert!(answer.rows.len() <= 7, "no more rows than there was room for");
            all.extend(answer.rows);
            if answer.done {
                return all;
            }
            from = answer.from;
        }
    }

    /// The state of the only connection there is.
    pub fn state(&mut self) -> State {
        let mut rows = self.dump(0, false);
        rows.extend(self.dump(0, true));
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].state
    }

    /// Connections of all workers.
    pub fn conns(&self) -> usize {
        self.workers.iter().flat_map(Worker::conns).sum()
    }

    /// Ends all workers and asserts that every frame has come back.
    pub fn finish(self) {
        let Self { workers, far, reserve, shared, .. } = self;
        let ended: Vec<_> = workers.into_iter().map(Worker::finish).collect();
        for (worker, shared) in shared.iter().enumerate() {
            let counts = shared.frames.read();
            assert_eq!(counts.unaccounted(), 0, "worker {worker} at the end: {counts:?}");
        }
        drop((ended, far));
        assert_eq!(reserve.free(), reserve.total(), "frames that came back");
    }

    /// Drops by name.
    pub fn drops(&self) -> HashMap<&'static str, u64> {
        let counts = self.counts();
        rvs_plane::drop_reason::drop_counters()
            .zip(counts.dropped)
            .filter(|(_, count)| *count > 0)
            .map(|((name, _), count)| (name, count))
            .collect()
    }
}
