//! A director on memory links, stepped by hand: what the plane's tests stand on.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "each test file uses part of it, and a test may panic"
)]

pub mod frames;

use core::net::{IpAddr, SocketAddr};
use rvs_io::memory::{FarEnd, MemoryQueue, link};
use rvs_io::{Reserve, RoomFrame};
use rvs_model::{DestId, DestLine, ForwardMethod, SchedulerKind, ServiceId, Tick, Weight};
use rvs_plane::network::{Interface, InterfaceId, Network, Route, StaticNeighbor};
use rvs_plane::shared::FrameCounts;
use rvs_plane::snapshot::{Dest, Service, ServiceKey};
use rvs_plane::{Limits, Mesh, Publisher, Setup, Shared, Snapshot, Steering, Worker};
use rvs_schedulers::{Candidate, Scheduler};
use rvs_wire::mac::MacAddr;
use std::collections::HashMap;
use std::sync::Arc;

pub const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
pub const OUR_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 1, 1])];

/// The hash that the simulated card computes, and the director's own rule in software.
pub type Rss = fn(&[u8]) -> u32;

pub struct Rig {
    pub workers: Vec<Worker<MemoryQueue>>,
    pub far: Vec<FarEnd<Rss>>,
    pub publisher: Publisher<Snapshot>,
    pub shared: Vec<Shared>,
    pub mesh: Mesh<RoomFrame>,
    pub snapshot: Snapshot,
    pub reserve: Reserve,
    pub now: Tick,
    versions: u64,
}

/// Two links: clients on 198.51.100.0/24 and 2001:db8:c::/64 behind the first, destinations on
/// 192.0.2.0/24 and 2001:db8:d::/64 behind the second.
pub fn network() -> Network {
    let interface = |link: u8, addresses: [&str; 2], mtu| Interface {
        name: format!("link{link}"),
        link,
        vlan: 0,
        mac: OUR_MACS[usize::from(link)],
        mtu,
        addresses: addresses.map(|text| text.parse().unwrap()).to_vec(),
    };
    let interfaces = vec![
        interface(0, ["198.51.100.1/24", "2001:db8:c::1/64"], 1500),
        interface(1, ["192.0.2.1/24", "2001:db8:d::1/64"], 1500),
    ];
    let via = |to: &str, gateway: &str| Route {
        to: to.parse().unwrap(),
        interface: InterfaceId(0),
        via: Some(gateway.parse().unwrap()),
    };
    let routes = vec![via("0.0.0.0/0", "198.51.100.254"), via("::/0", "2001:db8:c::fe")];
    let gateway = |address: &str| StaticNeighbor {
        interface: InterfaceId(0),
        address: address.parse().unwrap(),
        mac: CLIENT_MAC,
    };
    let neighbors = vec![gateway("198.51.100.254"), gateway("2001:db8:c::fe")];
    Network::new(interfaces, routes, vec![], neighbors, true)
}

/// Neighbours 192.0.2.11.. and 2001:db8:d::11.. at 02:00:00:00:02:11.., known beforehand.
pub fn with_known_dests(network: Network, count: u8) -> Network {
    let mut neighbors = network.static_neighbors().to_vec();
    for number in 0..count {
        for address in [
            IpAddr::from([192, 0, 2, 11 + number]),
            IpAddr::from([0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 0x11 + u16::from(number)]),
        ] {
            neighbors.push(StaticNeighbor {
                interface: InterfaceId(1),
                address,
                mac: dest_mac(number),
            });
        }
    }
    let routes = vec![
        Route {
            to: "0.0.0.0/0".parse().unwrap(),
            interface: InterfaceId(0),
            via: Some("198.51.100.254".parse().unwrap()),
        },
        Route {
            to: "::/0".parse().unwrap(),
            interface: InterfaceId(0),
            via: Some("2001:db8:c::fe".parse().unwrap()),
        },
    ];
    Network::new(network.interfaces().to_vec(), routes, vec![], neighbors, true)
}

pub fn dest_mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 2, 0x11 + number])
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

impl Rig {
    pub fn new(network: Network, workers: u16, limits: Limits, rss: Rss) -> Self {
        let links = 2;
        let reserve = Reserve::new(16_384, 1984);
        let snapshot = Snapshot::new(network);
        let publisher = Publisher::new(snapshot.clone());
        let mesh = Mesh::new(workers);
        let shared: Vec<_> = (0..workers).map(|_| Shared::new(limits.dests)).collect();
        let all_lines: Vec<_> = shared.iter().map(|it| Arc::clone(&it.lines)).collect();
        let mut queues: Vec<Vec<MemoryQueue>> = (0..workers).map(|_| Vec::new()).collect();
        let mut far = Vec::new();
        for _ in 0..links {
            let (near, end) = link(workers, 512, reserve.pool_with_cache(64), rss);
            for (worker, queue) in queues.iter_mut().zip(near) {
                worker.push(queue);
            }
            far.push(end);
        }
        let make = |(id, queues): (u16, Vec<MemoryQueue>)| {
            Worker::new(Setup {
                id,
                queues,
                pool: reserve.pool_with_cache(64),
                reader: publisher.reader(),
                shared: shared[usize::from(id)].clone(),
                all_lines: all_lines.clone(),
                mesh: mesh.clone(),
                steering: Steering::new(workers),
                limits,
                seed: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
                now: 0,
            })
            .unwrap()
        };
        let workers = (0..).zip(queues).map(make).collect();
        Self { workers, far, publisher, shared, mesh, snapshot, reserve, now: 0, versions: 0 }
    }

    /// One worker, destinations known.
    pub fn single() -> Self {
        Self::new(with_known_dests(network(), 8), 1, LIMITS, |_| 0)
    }

    /// Adds a service in the next place, its destinations newest first, and publishes.
    pub fn add_service(
        &mut self,
        (protocol, vip): (u8, &str),
        kind: SchedulerKind,
        dests: &[(&str, ForwardMethod, u32)],
    ) -> ServiceId {
        let vip: SocketAddr = vip.parse().unwrap();
        self.versions += 1;
        let first: u32 = self
            .snapshot
            .services
            .iter()
            .flatten()
            .map(|s| u32::try_from(s.dests.len()).unwrap())
            .sum();
        let list: Vec<Dest> = dests
            .iter()
            .zip(first..)
            .map(|((socket, method, _), id)| Dest {
                id: DestId(id),
                socket: socket.parse().unwrap(),
                method: *method,
            })
            .collect();
        let candidates: Vec<Candidate> = list
            .iter()
            .zip(dests)
            .map(|(dest, (_, _, weight))| Candidate { id: dest.id, weight: Weight(*weight) })
            .collect();
        for dest in &list {
            for shared in &self.shared {
                shared.lines[usize::try_from(dest.id.0).unwrap()].set_flags(DestLine::AVAILABLE);
            }
        }
        let mut scheduler = Scheduler::new(kind);
        scheduler.update(&candidates);
        let id = ServiceId(u32::try_from(self.snapshot.services.len()).unwrap());
        let key = ServiceKey { protocol, address: vip.ip(), port: vip.port() };
        self.snapshot.services.push(Some(Arc::new(Service {
            id,
            key,
            scheduler,
            epoch: self.versions,
            version: self.versions,
            candidates,
            dests: list,
        })));
        let mut index = (*self.snapshot.index).clone();
        index.insert(key, id);
        self.snapshot.index = Arc::new(index);
        self.snapshot.network = Arc::new(self.snapshot.network.with_vips([vip.ip()]));
        self.publish();
        id
    }

    pub fn publish(&mut self) {
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
            for (link, far) in self.far.iter_mut().enumerate() {
                out.extend(far.collect().into_iter().map(|frame| (link, frame)));
            }
            if moved == 0 {
                break;
            }
        }
        self.assert_conservation();
        out
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
        let waiting: usize = (0..self.workers.len())
            .map(|worker| self.mesh.inbox(u16::try_from(worker).unwrap()).unwrap().waiting())
            .sum();
        let counts = self.counts();
        let in_rings = i128::from(counts.handed) - i128::from(counts.taken);
        assert_eq!(in_rings, i128::try_from(waiting).unwrap(), "frames in rings");
        assert_eq!(counts.unaccounted(), 0, "{counts:?}");
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
