//! From what an operator sees to what workers read.
//!
//! ```text
//!  State ──compile──► Snapshot          services that did not change are shared with the last one
//!                 └─► DestLine flags    of those that did, in every worker's lines
//! ```
//!
//! A change costs what the changed service costs, and a pointer for every other one. Addresses and
//! the index are made anew only when a service came or went.

use crate::state::{Service as Row, State};
use core::net::IpAddr;
use hashbrown::HashMap;
use rvs_api::ServiceKey as Key;
use rvs_model::{DestId, DestLine, ServiceId, Tunables};
use rvs_plane::network::Network;
use rvs_plane::snapshot::{Dest, Service, ServiceKey, Snapshot};
use rvs_schedulers::Candidate;
use std::sync::Arc;

/// Makes snapshots of one director, and knows the last one.
#[derive(Debug)]
pub struct Compiler {
    /// Without VIPs.
    network: Network,
    tunables: Tunables,
    last: Snapshot,
    lines: Vec<Arc<[DestLine]>>,
}

impl Compiler {
    /// For a director in `network` whose workers count in `lines`.
    #[must_use]
    pub fn new(network: Network, tunables: Tunables, lines: Vec<Arc<[DestLine]>>) -> Self {
        let last = Snapshot { tunables, ..Snapshot::new(network.clone()) };
        Self { network, tunables, last, lines }
    }

    /// The snapshot of `state`, to be published, after which [`Compiler::retire`] is due for the
    /// destinations that it returns: no new connection finds them then.
    pub fn compile(&mut self, state: &State) -> (Snapshot, Vec<DestId>) {
        let mut services: Vec<Option<Arc<Service>>> = Vec::new();
        let mut gone = Vec::new();
        let mut same_keys = true;
        for row in state.services() {
            let Some(place) = place(row.id()) else { continue };
            // Those in between were deleted, or never were.
            self.pass_deleted(&mut services, place, &mut gone, &mut same_keys);
            let old = self.at(place);
            if let Some(old) = old.filter(|old| old.version == row.version()) {
                services.push(Some(Arc::clone(old)));
                continue;
            }
            let new = service(state, row);
            same_keys &= old.map(|old| old.key) == new.as_ref().map(|new| new.key);
            let dests = |service: Option<&Service>| -> Vec<DestId> {
                service.map(|it| it.dests.iter().map(|dest| dest.id).collect()).unwrap_or_default()
            };
            let listed = dests(new.as_ref());
            gone.extend(dests(old.map(Arc::as_ref)).into_iter().filter(|id| !listed.contains(id)));
            for candidate in new.iter().flat_map(|new| &new.candidates) {
                let drained = !candidate.weight.is_eligible();
                let flags = DestLine::AVAILABLE | if drained { DestLine::DRAINED } else { 0 };
                self.flag(candidate.id, flags);
            }
            services.push(new.map(Arc::new));
        }
        let end = self.last.services.len();
        self.pass_deleted(&mut services, end, &mut gone, &mut same_keys);
        let (network, index) = if same_keys {
            (Arc::clone(&self.last.network), Arc::clone(&self.last.index))
        } else {
            self.found_at(&services)
        };
        let timeouts = *state.timeouts();
        let snapshot = Snapshot { network, services, index, timeouts, tunables: self.tunables };
        self.last = snapshot.clone();
        (snapshot, gone)
    }

    /// From now on no packet reaches these destinations.
    pub fn retire(&self, gone: &[DestId]) {
        for id in gone {
            self.flag(*id, 0);
        }
    }

    fn at(&self, place: usize) -> Option<&Arc<Service>> {
        self.last.services.get(place)?.as_ref()
    }

    /// Fills `services` with nothing up to `end`, and tells whose destinations that ends.
    fn pass_deleted(
        &self,
        services: &mut Vec<Option<Arc<Service>>>,
        end: usize,
        gone: &mut Vec<DestId>,
        same_keys: &mut bool,
    ) {
        while services.len() < end {
            if let Some(old) = self.at(services.len()) {
                gone.extend(old.dests.iter().map(|dest| dest.id));
                *same_keys = false;
            }
            services.push(None);
        }
    }

    /// Where services are found: addresses that are ours, and the index.
    fn found_at(
        &self,
        services: &[Option<Arc<Service>>],
    ) -> (Arc<Network>, Arc<HashMap<ServiceKey, ServiceId>>) {
        let all = || services.iter().flatten();
        let vips = all().map(|service| service.key.address);
        let index = all().map(|service| (service.key, service.id)).collect();
        (Arc::new(self.network.with_vips(vips)), Arc::new(index))
    }

    fn flag(&self, id: DestId, flags: u32) {
        let Ok(place) = usize::try_from(id.0) else { return };
        for lines in &self.lines {
            if let Some(line) = lines.get(place) {
                line.set_flags(flags);
            }
        }
    }
}

fn place(id: ServiceId) -> Option<usize> {
    usize::try_from(id.0).ok()
}

/// A service as workers read it; `None` if the data path cannot serve it, which the state's checks
/// exclude.
fn service(state: &State, row: &Row) -> Option<Service> {
    let Key::Address { protocol, address } = *row.key() else { return None };
    let ip: IpAddr = address.ip();
    Some(Service {
        id: row.id(),
        key: ServiceKey { protocol: protocol.number(), address: ip, port: address.port() },
        scheduler: row.scheduler()?,
        epoch: row.bound_at(),
        version: row.version(),
        candidates: state
            .dests_of(row)
            .map(|dest| Candidate { id: dest.id(), weight: dest.attributes().weight })
            .collect(),
        dests: state
            .dests_of(row)
            .map(|dest| Dest {
                id: dest.id(),
                socket: dest.address(),
                method: dest.attributes().method,
            })
            .collect(),
    })
}
