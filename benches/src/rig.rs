//! The director that is measured, and the floor that it stands on.

use crate::case::{Case, Family, Mode};
use crate::feed::{Expected, Feed, Plan};
use crate::flow::Flow;
use anyhow::{Result, ensure};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rvs_io::{Burst, Frame as _, Queue as _, Reserve, RoomFrame, RoomPool};
use rvs_model::{
    DestId, DestLine, ForwardMethod, SchedulerKind, ServiceId, State, Tick, Timeouts, Weight,
};
use rvs_plane::network::{Interface, InterfaceId, Network, Route, StaticNeighbor};
use rvs_plane::snapshot::{Dest, Service, ServiceKey};
use rvs_plane::{Limits, Mesh, Publisher, Setup, Shared, Snapshot, Steering, Worker};
use rvs_schedulers::table::Table;
use rvs_schedulers::{Candidate, Scheduler};
use rvs_wire::flow::protocol;
use rvs_wire::mac::MacAddr;
use std::sync::Arc;

/// The director's Ethernet address.
pub const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Everybody else's.
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Destinations of the service, a power of two.
pub const DESTS: usize = 4;

/// Frames of the pool: those of the largest burst, twice.
const FRAMES: usize = 2 * rvs_io::BURST_MAX;

/// The destination of a flow's connection: they are opened in the order of their numbers, and
/// round robin begins with the first.
#[inline(always)]
#[must_use]
pub fn dest_of(flow: Flow) -> usize {
    const { assert!(DESTS == 4) };
    let [.., low] = flow.0.to_be_bytes();
    usize::from(low & 3)
}

/// Who talks.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// A client, the last four octets of its address zero.
    pub clients: IpAddr,
    /// The service.
    pub vip: (IpAddr, u16),
    /// The destinations.
    pub dests: [(IpAddr, u16); DESTS],
}

impl Ends {
    /// Those of a family.
    #[must_use]
    pub fn new(family: Family, method: ForwardMethod) -> Self {
        // Only masquerading maps ports.
        let port = if method == ForwardMethod::Masquerade { 8080 } else { 80 };
        let numbers: [u8; DESTS] = [11, 12, 13, 14];
        match family {
            Family::V4 => Self {
                clients: Ipv4Addr::UNSPECIFIED.into(),
                vip: (Ipv4Addr::new(198, 51, 100, 80).into(), 80),
                dests: numbers.map(|last| (Ipv4Addr::new(192, 0, 2, last).into(), port)),
            },
            Family::V6 => {
                let at = |net, last| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, last);
                Self {
                    clients: at(0x99, 0).into(),
                    vip: (at(0xc, 0x80).into(), 80),
                    dests: numbers.map(|last| (at(0xd, last.into()).into(), port)),
                }
            }
        }
    }
}

/// Both networks on one link, so that a breath asks one link as the floor does.
fn network(ends: &Ends) -> Result<Network> {
    let addresses = ["198.51.100.1/24", "192.0.2.1/24", "2001:db8:c::1/64", "2001:db8:d::1/64"];
    let interface = Interface {
        name: "feed".to_owned(),
        link: 0,
        vlan: 0,
        mac: OUR_MAC,
        mtu: 1500,
        addresses: addresses.into_iter().map(str::parse).collect::<Result<_, _>>()?,
    };
    let here = InterfaceId(0);
    let gateway = match ends.vip.0 {
        IpAddr::V4(_) => "198.51.100.254",
        IpAddr::V6(_) => "2001:db8:c::fe",
    };
    let (gateway, everywhere): (IpAddr, &str) = match gateway.parse()? {
        gateway @ IpAddr::V4(_) => (gateway, "0.0.0.0/0"),
        gateway @ IpAddr::V6(_) => (gateway, "::/0"),
    };
    let route = Route { to: everywhere.parse()?, interface: here, via: Some(gateway) };
    let addresses = ends.dests.iter().map(|(address, _)| *address).chain([gateway]);
    let neighbors = addresses
        .map(|address| StaticNeighbor { interface: here, address, mac: PEER_MAC })
        .collect();
    // What belongs to no connection is dropped and not routed, so that it is missed.
    let network = Network::new(vec![interface], vec![route], vec![], neighbors, false);
    Ok(network.with_vips([ends.vip.0]))
}

/// One service, round robin.
fn snapshot(ends: &Ends, method: ForwardMethod) -> Result<Snapshot> {
    let list = ends.dests.iter().zip(0..);
    let dests: Vec<Dest> = list
        .map(|((address, port), id)| Dest {
            id: DestId(id),
            socket: SocketAddr::new(*address, *port),
            method,
        })
        .collect();
    let candidates: Vec<Candidate> =
        dests.iter().map(|dest| Candidate { id: dest.id, weight: Weight(1) }).collect();
    let mut scheduler = Scheduler::new(SchedulerKind::Rr);
    scheduler.update(&candidates);
    let key = ServiceKey { protocol: protocol::TCP, address: ends.vip.0, port: ends.vip.1 };
    let id = ServiceId(0);
    let service = Service {
        id,
        key,
        scheduler,
        epoch: 1,
        version: 1,
        candidates,
        dests,
        table: Table::default(),
        maps: None,
    };
    let mut snapshot = Snapshot::new(network(ends)?);
    snapshot.services.push(Some(Arc::new(service)));
    snapshot.index = Arc::new([(key, id)].into_iter().collect());
    Ok(snapshot)
}

/// A director and its link.
pub struct Rig<const N: usize> {
    worker: Worker<Feed<N>>,
    shared: Shared,
    case: Case,
    now: Tick,
    /// Packets since time began to pass.
    packets: u64,
    /// Held for the worker, which reads from it.
    _publisher: Publisher<Snapshot>,
}

impl<const N: usize> Rig<N> {
    /// A director that stands where `case` begins: with its connections established, with none,
    /// or with as many as are to be held, the next one of which is about to expire.
    ///
    /// # Errors
    ///
    /// A table that cannot be made; packets that are not forwarded.
    pub fn new(case: Case) -> Result<Self> {
        let method = case.mode.method();
        let ends = Ends::new(case.family, method);
        let publisher = Publisher::new(snapshot(&ends, method)?);
        // Time passes in ticks, and a tick's connections are held a little longer.
        let room = if case.mode.expires() { case.flows / 16 + 1024 } else { 0 };
        let conns = case.flows + room;
        let (conns4, conns6) = match case.family {
            Family::V4 => (conns, 1),
            Family::V6 => (1, conns),
        };
        let dests = u32::try_from(DESTS)?;
        let shared = Shared::new(dests);
        for line in shared.lines.iter() {
            line.set_flags(DestLine::AVAILABLE);
        }
        let expected = Expected { octets: sent_octets(case), routed: true };
        let worker = Worker::new(Setup {
            id: 0,
            queues: vec![Feed::new(&ends, case.flows, expected)],
            pool: pool(N),
            reader: publisher.reader(),
            shared: shared.clone(),
            all_lines: vec![Arc::clone(&shared.lines)],
            mesh: Mesh::new(1),
            steering: Steering::new(1),
            limits: Limits {
                conns4,
                conns6,
                services: 1,
                dests,
                neighbors: 64,
                burst: case.burst,
                huge_pages: case.huge_pages,
            },
            seed: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
            now: 0,
        })?;
        let mut rig = Self { worker, shared, case, now: 0, packets: 0, _publisher: publisher };
        if case.mode.is_established() {
            rig.establish()?;
        } else if case.mode.expires() {
            rig.run(2 * u64::from(case.flows))?;
        }
        Ok(rig)
    }

    fn establish(&mut self) -> Result<()> {
        let flows = u64::from(self.case.flows);
        self.run(flows)?;
        self.follow(Plan::Inbound);
        self.run(flows)?;
        if self.case.mode == Mode::NatBoth {
            self.follow(Plan::Both);
        }
        let held: usize = self.worker.conns().into_iter().sum();
        ensure!(u64::try_from(held)? == flows, "{held} connections of {flows}");
        // One more round: to the memory system this is the first that is like all others.
        self.run(flows)
    }

    fn follow(&mut self, plan: Plan) {
        for feed in self.worker.queues_mut() {
            feed.follow(plan);
        }
    }

    /// One burst.
    #[inline]
    pub fn breathe(&mut self) -> u64 {
        if self.case.mode.expires() {
            self.now = self.tick_of(self.packets);
        }
        let packets = u64::try_from(self.worker.breathe(self.now)).unwrap_or_default();
        self.packets += packets;
        packets
    }

    /// When packet `number` comes, if each connection expires when `flows` others were opened.
    fn tick_of(&self, number: u64) -> Tick {
        let lifetime = u64::from(Timeouts::default().ticks(State::SynRecv));
        let tick = number * lifetime / u64::from(self.case.flows);
        Tick::try_from(tick).unwrap_or(Tick::MAX)
    }

    /// Breathes until `packets` packets went by, rounded up to bursts.
    ///
    /// # Errors
    ///
    /// Not all of them were forwarded.
    pub fn run(&mut self, packets: u64) -> Result<()> {
        let before = self.counts();
        let mut done = 0;
        while done < packets {
            done += self.breathe();
        }
        let after = self.counts();
        let (made, back) = (after.0 - before.0, after.1 - before.1);
        ensure!(
            made == back,
            "{made} packets, {back} as expected: {:?}",
            self.shared.frames.read()
        );
        Ok(())
    }

    fn counts(&mut self) -> (u64, u64) {
        self.worker
            .queues_mut()
            .iter()
            .map(Feed::counts)
            .fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }

    /// Connections held now.
    #[must_use]
    pub fn conns(&self) -> usize {
        self.worker.conns().into_iter().sum()
    }

    /// Bytes that the tables take.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.worker.table_bytes().into_iter().sum()
    }
}

/// The least that can be done with a frame: it goes back to whom it came from.
pub struct Floor<const N: usize> {
    feed: Feed<N>,
    pool: RoomPool,
    burst: Burst<RoomFrame>,
    most: usize,
}

impl<const N: usize> Floor<N> {
    /// The floor of `case`: its link, its burst, its packets.
    #[must_use]
    pub fn new(case: Case) -> Self {
        let ends = Ends::new(case.family, case.mode.method());
        let mut feed = Feed::new(&ends, case.flows, Expected { octets: N, routed: false });
        feed.follow(match case.mode {
            Mode::NatBoth => Plan::Both,
            mode if mode.is_established() => Plan::Inbound,
            _ => Plan::Open,
        });
        Self { feed, pool: pool(N), burst: Burst::new(), most: case.burst }
    }

    /// One burst.
    #[inline]
    pub fn breathe(&mut self) -> u64 {
        let packets = self.feed.receive(&mut self.pool, &mut self.burst, self.most);
        for frame in &mut self.burst {
            if let Some(ethernet) = frame.octets_mut().first_chunk_mut::<12>() {
                let [a, b, c, d, e, f, g, h, i, j, k, l] = *ethernet;
                *ethernet = [g, h, i, j, k, l, a, b, c, d, e, f];
            }
        }
        self.feed.send(&mut self.pool, &mut self.burst);
        u64::try_from(packets).unwrap_or_default()
    }

    /// Breathes until `packets` packets went by, rounded up to bursts.
    ///
    /// # Errors
    ///
    /// Not all of them came back.
    pub fn run(&mut self, packets: u64) -> Result<()> {
        let mut done = 0;
        while done < packets {
            done += self.breathe();
        }
        let (made, back) = self.feed.counts();
        ensure!(made == back, "{made} packets, {back} came back");
        Ok(())
    }
}

/// Octets of a frame when it leaves. Padding stays behind.
fn sent_octets(case: Case) -> usize {
    let (frame, tunnel) = match case.family {
        Family::V4 => (14 + 20 + 20, 20),
        Family::V6 => (14 + 40 + 20, 40),
    };
    frame + if case.mode.method() == ForwardMethod::Tunnel { tunnel } else { 0 }
}

/// As many frames as are ever on their way, all of them in the pool's own cache.
fn pool(octets: usize) -> RoomPool {
    Reserve::new(FRAMES, octets.max(1514)).pool_with_cache(FRAMES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{OCTETS4, OCTETS6};

    fn all_pass<const N: usize>(family: Family) {
        for mode in Mode::ALL {
            let case = Case { mode, family, flows: 4096, burst: 64, huge_pages: false };
            let mut rig = Rig::<N>::new(case).unwrap();
            rig.run(4096).unwrap();
            let held = rig.conns();
            // A tick's worth of connections, and a breath's, more or less.
            let slack = if mode.expires() { 256 } else { 0 };
            assert!(held.abs_diff(4096) <= slack, "{mode} {family}: {held}");
            Floor::<N>::new(case).run(4096).unwrap();
        }
    }

    #[test]
    fn in_every_mode_all_packets_are_forwarded_and_as_many_connections_held_as_said() {
        all_pass::<OCTETS4>(Family::V4);
        all_pass::<OCTETS6>(Family::V6);
    }

    #[test]
    fn a_packet_that_is_not_forwarded_is_an_error() {
        let case = Case {
            mode: Mode::SynDr,
            family: Family::V4,
            flows: 256,
            burst: 32,
            huge_pages: false,
        };
        let mut rig = Rig::<OCTETS4>::new(case).unwrap();
        rig.follow(Plan::Inbound);
        let error = rig.run(1).unwrap_err().to_string();
        assert!(error.starts_with("32 packets, 0 as expected"), "{error}");
    }
}
