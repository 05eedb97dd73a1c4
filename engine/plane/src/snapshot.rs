//! What a worker knows of the configuration during one breath. Immutable: a change is a new one.
//!
//! Services are shared between snapshots, so that changing one of ten thousand copies pointers.

use crate::network::Network;
use core::net::{IpAddr, SocketAddr};
use crossbeam_queue::ArrayQueue;
use hashbrown::HashMap;
use rvs_model::{DestId, ForwardMethod, ServiceId, Timeouts, Tunables};
use rvs_schedulers::map::Map;
use rvs_schedulers::table::Table;
use rvs_schedulers::{Candidate, Scheduler};
use std::sync::Arc;

/// What a service is found by: IP protocol number, address, port.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ServiceKey {
    /// IP protocol number.
    pub protocol: u8,
    /// Virtual address.
    pub address: IpAddr,
    /// Virtual port.
    pub port: u16,
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
    pub services: Vec<Option<Arc<Service>>>,
    /// Where a service is found.
    pub index: Arc<HashMap<ServiceKey, ServiceId>>,
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
            services: Vec::new(),
            index: Arc::default(),
            timeouts: Timeouts::default(),
            tunables: Tunables::default(),
        }
    }

    /// The service of `key`.
    #[inline]
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        // Linux 6.1 ip_vs_ctl.c ip_vs_service_find(): marks first, then the exact key, then FTP's
        // data ports, then port 0. Marks, FTP and port 0 come with persistence.
        let id = self.index.get(key)?;
        self.services.get(usize::try_from(id.0).ok()?)?.as_deref()
    }
}
