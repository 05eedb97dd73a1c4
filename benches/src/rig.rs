//! The director that is measured, and the floor that it stands on.

use crate::case::{Case, Family, Mode};
use crate::feed::{Expected, OCTETS4, OCTETS6, Plan, Source};
use crate::flow::Flow;
use anyhow::{Result, ensure};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rvs_io::{Burst, Frame as _};
use rvs_model::{
    DestId, DestLine, ForwardMethod, SchedulerKind, ServiceId, State, Tick, Timeouts, Weight,
};
use rvs_plane::network::{Interface, InterfaceId, Network, Route, StaticNeighbor};
use rvs_plane::snapshot::{Dest, Rules, Service, ServiceKey};
use rvs_plane::{Limits, Mesh, Publisher, Reader, Setup, Shared, Snapshot, Steering, Worker};
use rvs_schedulers::table::Table;
use rvs_schedulers::{Candidate, Scheduler};
use rvs_wire::flow::protocol;
use rvs_wire::mac::MacAddr;
use rvs_wire::tunnel::Encapsulation;
use std::sync::Arc;

/// The director's Ethernet address.
pub const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Everybody else's.
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Destinations of a service whose replies come, a power of two.
pub const DESTS: usize = 4;

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

/// The services, round robin: each on a port of its own, all with the same destinations, as many
/// times over as are asked for, each time with other ports.
pub(crate) fn snapshot(case: Case) -> Result<Snapshot> {
    let ends = &Ends::new(case.family, case.mode.method());
    let mut snapshot = Snapshot::new(network(ends)?);
    let mut index = Vec::new();
    let method = case.mode.method();
    for service in 0..case.services {
        let first = u32::from(service) * u32::from(case.dests);
        let port = |number: u16, port: u16| if number < 4 { port } else { port + number / 4 };
        let dests: Vec<Dest> = (0..case.dests)
            .zip(first..)
            .zip(ends.dests.iter().cycle())
            .map(|((number, id), (address, at))| Dest {
                id: DestId(id),
                socket: SocketAddr::new(*address, port(number, *at)),
                method,
                encapsulation: Encapsulation::Ip,
            })
            .collect();
        let candidates: Vec<Candidate> =
            dests.iter().map(|dest| Candidate { id: dest.id, weight: Weight(1) }).collect();
        let mut scheduler = Scheduler::new(SchedulerKind::Rr);
        scheduler.update(&candidates);
        let (address, at) = ends.vip;
        let key = ServiceKey { protocol: protocol::TCP, address, port: at + service };
        let id = ServiceId(service.into());
        index.push((key, id));
        let made = Service {
            id,
            key,
            scheduler,
            epoch: 1,
            version: 1,
            candidates,
            dests,
            table: Table::default(),
            maps: None,
            persistence: None,
            rules: Rules::default(),
        };
        snapshot.services.set(usize::from(service), Some(Arc::new(made)));
    }
    snapshot.index = Arc::new(index.into_iter().collect());
    Ok(snapshot)
}

/// What a worker shares with a control plane that has all destinations of `case`.
pub(crate) fn shared(case: Case) -> Shared {
    let shared = Shared::new(u32::from(case.dests) * u32::from(case.services));
    for line in shared.lines.iter() {
        line.set_flags(DestLine::AVAILABLE);
    }
    shared
}

/// Where a worker stands.
pub(crate) struct Place<F> {
    pub(crate) id: u16,
    pub(crate) mesh: Mesh<F>,
    pub(crate) steering: Steering,
    pub(crate) reader: Reader<Snapshot>,
    pub(crate) shared: Shared,
}

/// A worker with room for so many connections more than `case` holds.
pub(crate) fn worker<S: Source>(
    case: Case,
    room: u32,
    (source, pool): (S, S::Pool),
    place: Place<S::Frame>,
    services: u32,
) -> Result<Worker<S>> {
    let conns = case.flows + room;
    let (conns4, conns6) = match case.family {
        Family::V4 => (conns, 1),
        Family::V6 => (1, conns),
    };
    let Place { id, mesh, steering, reader, shared } = place;
    Ok(Worker::new(Setup {
        id,
        queues: vec![source],
        pool,
        reader,
        all_lines: vec![Arc::clone(&shared.lines)],
        mesh,
        steering,
        limits: Limits {
            conns4,
            conns6,
            services,
            dests: u32::try_from(shared.lines.len())?,
            neighbors: 64,
            burst: case.burst,
            huge_pages: case.huge_pages,
        },
        shared,
        seed: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        now: 0,
    })?)
}

/// A director and its link.
pub struct Rig<S: Source> {
    worker: Worker<S>,
    /// What a control plane sees of the worker.
    pub shared: Shared,
    case: Case,
    now: Tick,
    /// Packets since time began to pass.
    packets: u64,
    /// What the worker's configuration comes from, if that is not somebody else's.
    pub publisher: Option<Publisher<Snapshot>>,
}

impl<S: Source> Rig<S> {
    /// A director that stands where `case` begins: with its connections established, with none,
    /// or with as many as are to be held, the next one of which is about to expire.
    ///
    /// # Errors
    ///
    /// A table that cannot be made; packets that are not forwarded.
    pub fn new(case: Case) -> Result<Self> {
        // Time passes in ticks, and a tick's connections are held a little longer.
        let room = if case.mode.expires() { case.flows / 16 + 1024 } else { 0 };
        Self::with_room(case, room)
    }

    /// The same with room for so many connections more than `case` holds.
    ///
    /// # Errors
    ///
    /// As [`Rig::new`].
    pub fn with_room(case: Case, room: u32) -> Result<Self> {
        let publisher = Publisher::new(snapshot(case)?);
        let (reader, shared) = (publisher.reader(), shared(case));
        let mut rig = Self::led(case, room, reader, shared, case.services.into())?;
        rig.publisher = Some(publisher);
        rig.begin()?;
        Ok(rig)
    }

    /// A director whose configuration is somebody else's, and has `case`'s service and room for
    /// `services`; nothing is established.
    ///
    /// # Errors
    ///
    /// A table that cannot be made.
    pub fn led(
        case: Case,
        room: u32,
        reader: Reader<Snapshot>,
        shared: Shared,
        services: u32,
    ) -> Result<Self> {
        let ends = Ends::new(case.family, case.mode.method());
        let expected = Expected { octets: sent_octets(case), routed: true };
        let (mesh, steering) = (Mesh::new(1), Steering::new(1));
        let place = Place { id: 0, mesh, steering, reader, shared: shared.clone() };
        let worker = worker(case, room, S::open(case, &ends, expected)?, place, services)?;
        Ok(Self { worker, shared, case, now: 0, packets: 0, publisher: None })
    }

    /// Brings it to where its case begins.
    ///
    /// # Errors
    ///
    /// Packets that are not forwarded.
    pub fn begin(&mut self) -> Result<()> {
        if self.case.mode.is_established() {
            self.establish()?;
        } else if self.case.mode.expires() {
            self.run(2 * u64::from(self.case.flows))?;
        }
        Ok(())
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

    /// From now on, packets of this kind.
    pub fn follow(&mut self, plan: Plan) {
        for source in self.worker.queues_mut() {
            source.follow(plan);
        }
    }

    /// The links: one.
    pub fn sources(&mut self) -> &mut [S] {
        self.worker.queues_mut()
    }

    /// Lets time pass.
    pub fn sleep(&mut self, ticks: Tick) {
        self.now = self.now.wrapping_add(ticks);
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
            .map(Source::counts)
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
pub struct Floor<S: Source> {
    source: S,
    pool: S::Pool,
    burst: Burst<S::Frame>,
    most: usize,
}

impl<S: Source> Floor<S> {
    /// The floor of `case`: its link, its burst, its packets.
    ///
    /// # Errors
    ///
    /// The link cannot be had.
    pub fn new(case: Case) -> Result<Self> {
        let ends = Ends::new(case.family, case.mode.method());
        let octets = match case.family {
            Family::V4 => OCTETS4,
            Family::V6 => OCTETS6,
        };
        let (mut source, pool) = S::open(case, &ends, Expected { octets, routed: false })?;
        source.follow(match case.mode {
            Mode::NatBoth => Plan::Both,
            mode if mode.is_established() => Plan::Inbound,
            _ => Plan::Open,
        });
        Ok(Self { source, pool, burst: Burst::new(), most: case.burst })
    }

    /// One burst.
    #[inline]
    pub fn breathe(&mut self) -> u64 {
        let packets = self.source.receive(&mut self.pool, &mut self.burst, self.most);
        for frame in &mut self.burst {
            if let Some(ethernet) = frame.octets_mut().first_chunk_mut::<12>() {
                let [a, b, c, d, e, f, g, h, i, j, k, l] = *ethernet;
                *ethernet = [g, h, i, j, k, l, a, b, c, d, e, f];
            }
        }
        self.source.send(&mut self.pool, &mut self.burst);
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
        let (made, back) = self.source.counts();
        ensure!(made == back, "{made} packets, {back} came back");
        Ok(())
    }
}

/// Octets of a frame when it leaves: padding does not go into a tunnel.
pub(crate) fn sent_octets(case: Case) -> usize {
    match (case.family, case.mode.method()) {
        (Family::V4, ForwardMethod::Tunnel) => 14 + 20 + 20 + 20,
        (Family::V4, _) => OCTETS4,
        (Family::V6, ForwardMethod::Tunnel) => 14 + 40 + 40 + 20,
        (Family::V6, _) => OCTETS6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Feed;

    fn all_pass<S: Source>(family: Family) {
        for mode in Mode::ALL {
            let case = Case::new(mode, family, 4096);
            let mut rig = Rig::<S>::new(case).unwrap();
            rig.run(4096).unwrap();
            let held = rig.conns();
            // A tick's worth of connections, and a breath's, more or less.
            let slack = if mode.expires() { 256 } else { 0 };
            assert!(held.abs_diff(4096) <= slack, "{mode} {family}: {held}");
            Floor::<S>::new(case).unwrap().run(4096).unwrap();
        }
    }

    #[test]
    fn in_every_mode_all_packets_are_forwarded_and_as_many_connections_held_as_said() {
        all_pass::<Feed<OCTETS4>>(Family::V4);
        all_pass::<Feed<OCTETS6>>(Family::V6);
    }

    #[test]
    fn many_services_have_their_own_destinations() {
        let case = Case { services: 10, dests: 8, ..Case::new(Mode::Dr, Family::V4, 4096) };
        let mut rig = Rig::<Feed<OCTETS4>>::new(case).unwrap();
        rig.run(4096).unwrap();
        let used = rig.shared.lines.iter().filter(|line| line.load().active > 0).count();
        assert_eq!(used, 80);
    }

    #[test]
    fn a_packet_that_is_not_forwarded_is_an_error() {
        let case = Case { burst: 32, ..Case::new(Mode::SynDr, Family::V4, 256) };
        let mut rig = Rig::<Feed<OCTETS4>>::new(case).unwrap();
        rig.follow(Plan::Inbound);
        let error = rig.run(1).unwrap_err().to_string();
        assert!(error.starts_with("32 packets, 0 as expected"), "{error}");
    }
}
