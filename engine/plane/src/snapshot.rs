//! What a worker knows of the configuration during one breath. Immutable: a change is a new one.
//!
//! Services are shared between snapshots, and so are lists of them and where they are found, so that
//! changing one of ten thousand copies little.

use crate::grain::Grains;
use crate::lane::Verdict;
use crate::marks::Marks;
use crate::network::Network;
use crate::overload::Limits;
use crate::persist::Persistence;
use crate::servers::Servers;
use crate::services::Services;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use crossbeam_queue::ArrayQueue;
use hashbrown::HashMap;
use rvs_model::{DestId, ForwardMethod, ServiceId, StaleUdp, Timeouts, Tunables};
use rvs_schedulers::map::Map;
use rvs_schedulers::table::Table;
use rvs_schedulers::{Candidate, Scheduler};
use rvs_wire::flow::{Ends, Family, Key, protocol};
use rvs_wire::packet::Packet;
use rvs_wire::tunnel::Encapsulation;
use std::sync::Arc;

/// FTP's control port, RFC 959.
pub(crate) const FTP_PORT: u16 = 21;
/// FTP's data port.
pub(crate) const FTP_DATA_PORT: u16 = 20;
/// The first port that any process may listen on (Linux `net.ipv4.ip_unprivileged_port_start`).
const UNPRIVILEGED: u16 = 1024;

/// What a service is found by: IP protocol number, address, port. A mark is found as protocol 0 and
/// an address that is made of it, as the kernel keeps its templates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ServiceKey {
    /// IP protocol number.
    pub protocol: u8,
    /// Virtual address.
    pub address: IpAddr,
    /// Virtual port.
    pub port: u16,
}

impl ServiceKey {
    /// Of the packets of a family that have `mark`.
    #[must_use]
    pub fn mark(mark: u32, v6: bool) -> Self {
        let address = if v6 {
            Ipv6Addr::from_bits(u128::from(mark) << 96).into()
        } else {
            Ipv4Addr::from_bits(mark).into()
        };
        Self { protocol: 0, address, port: 0 }
    }

    /// Whether it is that of a mark.
    #[inline]
    #[must_use]
    pub fn is_mark(&self) -> bool {
        self.protocol == 0
    }

    /// The virtual address; a mark has none.
    #[must_use]
    pub fn vip(&self) -> Option<IpAddr> {
        (!self.is_mark()).then_some(self.address)
    }
}

/// A destination as a worker needs it.
#[derive(Clone, Copy, Debug)]
pub struct Dest {
    /// Its place in every worker's arrays.
    pub id: DestId,
    /// Address and port. Port 0: the packet's own.
    pub socket: SocketAddr,
    /// How packets reach it.
    pub method: ForwardMethod,
    /// How they are wrapped in a tunnel to it.
    pub encapsulation: Encapsulation,
}

/// A virtual service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its place in every worker's arrays.
    pub id: ServiceId,
    /// What it is found by.
    pub key: ServiceKey,
    /// Who chooses, as it stands after every change so far and no connection: what a worker starts
    /// with that sees this `epoch` for the first time. The control plane keeps it up to date, one
    /// [`Scheduler::update`] a change.
    pub scheduler: Scheduler,
    /// Changes when the scheduler's state must start afresh: another scheduler, another service in
    /// the same place.
    pub epoch: u64,
    /// Changes with every change of the destinations or their weights.
    pub version: u64,
    /// What the scheduler sees, newest first as in the kernel.
    pub candidates: Vec<Candidate>,
    /// The destinations, in the same order.
    pub dests: Vec<Dest>,
    /// What a scheduler that hashes looks up; made of the destinations.
    pub table: Table,
    /// For a scheduler that remembers addresses: the maps of this `epoch`.
    pub maps: Option<Maps>,
    /// If connections of one client stay with one destination.
    pub persistence: Option<Persistence>,
    /// What most services do not have.
    pub rules: Rules,
}

/// What most services do not have.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `-o`: each datagram is scheduled by itself, and no connection remembered.
    pub one_packet: bool,
    /// What becomes of UDP flows of destinations that are removed or drained.
    pub stale_udp: StaleUdp,
    /// Thresholds of the destinations, in their order; none if no destination has one.
    pub limits: Vec<Limits>,
}

impl Service {
    /// What becomes of a packet that no destination takes (Linux 6.1 `ip_vs_core.c`
    /// `ip_vs_leave()`): what FTP's service has caught of other ports is the director's own.
    pub(crate) fn leave<F: Family>(&self, packet: &Packet<F>) -> Verdict {
        let Packet { l3, vlan, .. } = *packet;
        if self.key.port == FTP_PORT && packet.key.ends.destination().1 != FTP_PORT {
            return Verdict::Stack { l3, vlan };
        }
        Verdict::NoDest { l3 }
    }
}

/// Where services are found, by family: of a key in few words a hash costs few instructions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Index {
    v4: HashMap<u64, ServiceId>,
    v6: HashMap<(u128, u32), ServiceId>,
    marks: usize,
    /// Services on FTP's port.
    ftp: usize,
    /// Services on port 0, which is all ports.
    any_port: usize,
}

impl FromIterator<(ServiceKey, ServiceId)> for Index {
    fn from_iter<I: IntoIterator<Item = (ServiceKey, ServiceId)>>(services: I) -> Self {
        let mut index = Self::default();
        for (key, id) in services {
            index.insert(key, id);
        }
        index
    }
}

impl Index {
    /// Adds a service.
    pub fn insert(&mut self, key: ServiceKey, id: ServiceId) {
        let before = match key.address {
            IpAddr::V4(address) => self.v4.insert(key.in_v4(address), id),
            IpAddr::V6(address) => self.v6.insert(key.in_v6(address), id),
        };
        if before.is_none() {
            self.count(&key, |sum, more| sum + more);
        }
    }

    /// Removes a service.
    pub fn remove(&mut self, key: &ServiceKey) {
        let before = match key.address {
            IpAddr::V4(address) => self.v4.remove(&key.in_v4(address)),
            IpAddr::V6(address) => self.v6.remove(&key.in_v6(address)),
        };
        if before.is_some() {
            self.count(key, |sum, less| sum - less);
        }
    }

    fn count(&mut self, key: &ServiceKey, change: impl Fn(usize, usize) -> usize) {
        let is_ftp = key.protocol == protocol::TCP && key.port == FTP_PORT;
        for (sum, counts) in [
            (&mut self.marks, key.is_mark()),
            (&mut self.ftp, is_ftp),
            (&mut self.any_port, !key.is_mark() && key.port == 0),
        ] {
            *sum = change(*sum, counts.into());
        }
    }

    /// Whether there are services of IPv4, and of IPv6.
    #[must_use]
    pub fn serves(&self) -> [bool; 2] {
        [!self.v4.is_empty(), !self.v6.is_empty()]
    }

    /// The service of a packet that has `mark` (0 is none) and asks for `key`.
    ///
    /// Linux 6.1 `ip_vs_ctl.c` `ip_vs_service_find()`: the mark, the exact key, what may be FTP's data
    /// connection, port 0.
    #[inline]
    fn find(&self, mark: u32, key: &ServiceKey) -> Option<ServiceId> {
        if mark != 0 && self.marks > 0 {
            let found = self.get(&ServiceKey::mark(mark, key.address.is_ipv6()));
            if found.is_some() {
                return found;
            }
        }
        self.get(key).or_else(|| self.find_wide(key))
    }

    #[inline]
    fn get(&self, key: &ServiceKey) -> Option<ServiceId> {
        match key.address {
            IpAddr::V4(address) => self.v4.get(&key.in_v4(address)),
            IpAddr::V6(address) => self.v6.get(&key.in_v6(address)),
        }
        .copied()
    }

    #[cold]
    fn find_wide(&self, key: &ServiceKey) -> Option<ServiceId> {
        let at = |port| self.get(&ServiceKey { port, ..*key });
        let is_data = key.port == FTP_DATA_PORT || key.port >= UNPRIVILEGED;
        let ftp = (self.ftp > 0 && key.protocol == protocol::TCP && is_data).then(|| at(FTP_PORT));
        ftp.flatten().or_else(|| if self.any_port > 0 { at(0) } else { None })
    }
}

/// Where a service's maps are while no worker has them: made by the control plane, one for each
/// worker, so that workers take no memory. A worker takes one when it first sees the service's
/// `epoch` and brings it back when that is over, so that workers free none either.
#[derive(Clone, Debug)]
pub struct Maps(Arc<ArrayQueue<Box<Map>>>);

impl Maps {
    /// Maps for so many addresses; `key` is secret.
    #[must_use]
    pub fn new(workers: usize, addresses: u32, key: u64) -> Self {
        let maps = ArrayQueue::new(workers.max(1));
        for _ in 0..workers {
            let _fits = maps.push(Box::new(Map::new(addresses, key)));
        }
        Self(Arc::new(maps))
    }

    pub(crate) fn take(&self) -> Option<Box<Map>> {
        self.0.pop()
    }

    pub(crate) fn bring_back(&self, map: Box<Map>) {
        let _fits = self.0.push(map);
    }

    /// Whether anybody else may take one or bring one back.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// One state of the configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Interfaces, addresses, routes.
    pub network: Arc<Network>,
    /// Services by [`ServiceId`].
    pub services: Services,
    /// Where a service is found.
    pub index: Arc<Index>,
    /// What marks packets get.
    pub marks: Arc<Marks>,
    /// Whose connections are spread over workers otherwise than by address and port. Needed with
    /// several workers only.
    pub grains: Arc<Grains>,
    /// Who is told when it sends without a connection. Needed with `nat_icmp_send` only.
    pub servers: Arc<Servers>,
    /// How long connections live.
    pub timeouts: Timeouts,
    /// Corner cases.
    pub tunables: Tunables,
}

impl Snapshot {
    /// A director without services.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self {
            network: Arc::new(network),
            services: Services::default(),
            index: Arc::default(),
            marks: Arc::default(),
            grains: Arc::default(),
            servers: Arc::default(),
            timeouts: Timeouts::default(),
            tunables: Tunables::default(),
        }
    }

    /// The service of a packet that has `mark`, 0 if none, and asks for `key`.
    #[inline]
    #[must_use]
    pub fn service(&self, mark: u32, key: &ServiceKey) -> Option<&Service> {
        let id = self.index.find(mark, key)?;
        Some(&**self.services.get(usize::try_from(id.0).ok()?)?)
    }

    /// The mark of a packet of a client that came in through `vlan` of `link`; 0 is none.
    #[inline(always)]
    pub(crate) fn mark<F: Family>(&self, key: &Key<F>, (link, vlan): (u8, u16)) -> u32 {
        self.marks.of(key, || self.network.interface_of(link, vlan))
    }
}

impl ServiceKey {
    /// Protocol and port in one word.
    #[inline]
    fn rest(&self) -> u32 {
        u32::from(self.protocol) << 16 | u32::from(self.port)
    }

    /// All of it, with an address of IPv4.
    #[inline]
    fn in_v4(&self, address: Ipv4Addr) -> u64 {
        u64::from(address.to_bits()) << 32 | u64::from(self.rest())
    }

    /// All of it, with an address of IPv6.
    #[inline]
    fn in_v6(&self, address: Ipv6Addr) -> (u128, u32) {
        (address.to_bits(), self.rest())
    }

    /// What a packet of a client asks for.
    #[inline]
    pub(crate) fn of<F: Family>(key: &Key<F>) -> Self {
        let (address, port) = key.ends.destination();
        Self { protocol: key.protocol, address: address.into(), port }
    }
}
