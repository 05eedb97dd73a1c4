//! Services and destinations as an operator sees them: every change is validated and made here.
//!
//! ```text
//!  Request ──► kernel's checks ──► what the engine supports ──► change, version + 1
//!
//!  place (ServiceId, DestId):  free ─-a─► in the list ─-d─► trash ─no conn for 120 s─► free
//!                                            ▲               │
//!                                            └──────-a───────┘  counters and connections go on
//! ```
//!
//! Pure: no clock, no socket, no worker. Time is an argument, and what workers count comes through
//! [`Readings`]. Order of checks and error numbers are the kernel's (Linux 6.1 `ip_vs_ctl.c`
//! `ip_vs_genl_set_cmd()`), since tools choose their words by them. The order of a service's
//! destinations is the kernel's too: the one added last comes first.
//!
//! What a service counted is the sum over its destinations and over those that it had: the data path
//! counts for destinations only.

mod checks;
mod daemons;
mod dests;
mod kept;
mod listing;
mod log;
mod rows;
mod rules;
mod services;
mod slots;
mod supported;
mod tunables;

use core::net::SocketAddr;
use daemons::Daemons;
use log::Log;
pub use rows::{Dest, Service};
use rvs_api::{
    Errno, IPVS_VERSION, Info, Outcome, Refusal, Reply, Request, ServiceKey, TimeoutsChange, Totals,
};
use rvs_model::{DestId, Load, ServiceId, State as ConnState, Sysctls, Timeouts};
use rvs_plane::Network;
use slots::Slots;
use std::collections::HashMap;
use supported::Support;

/// Seconds that a deleted destination keeps its place after its last connection (Linux 6.1
/// `ip_vs.h` `IP_VS_DEST_TRASH_PERIOD`).
pub const TRASH_SECONDS: u64 = 120;

/// The longest timeout that `--set` takes, in seconds (Linux 6.1 `ip_vs_ctl.c`
/// `ip_vs_set_timeout()`: `INT_MAX / HZ`, with the HZ of 250 that Debian builds).
pub const TIMEOUT_SECONDS_MAX: u32 = 8_589_934;

/// What workers count, added up.
pub trait Readings {
    /// Connections that `dest` has now.
    fn load(&self, dest: DestId) -> Load;
    /// What the place `dest` counted since the engine started; freeing a place does not reset it.
    fn totals(&self, dest: DestId) -> Totals;
    /// Persistence templates that lead to `dest` now.
    fn templates(&self, dest: DestId) -> u32;
}

/// Nobody counts: there is no engine.
#[derive(Clone, Copy, Debug)]
pub struct NoTraffic;

impl Readings for NoTraffic {
    fn load(&self, _: DestId) -> Load {
        Load::default()
    }

    fn totals(&self, _: DestId) -> Totals {
        Totals::default()
    }

    fn templates(&self, _: DestId) -> u32 {
        0
    }
}

/// How much there can be; fixed while the engine runs, since workers have arrays of this size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Services.
    pub services: u32,
    /// Destinations of all services, those in the trash included.
    pub dests: u32,
    /// Size of the connection table, only to be told.
    pub conns: u32,
}

/// The table. A copy serves to see what changes would come to.
#[derive(Clone, Debug)]
pub struct State {
    support: Support,
    network: Network,
    limits: Limits,
    timeouts: Timeouts,
    sysctls: Sysctls,
    services: Slots<Service>,
    dests: Slots<Dest>,
    service_at: HashMap<ServiceKey, ServiceId>,
    dest_at: HashMap<(ServiceId, SocketAddr), DestId>,
    daemons: Daemons,
    /// Whether what was deleted keeps its place for a while.
    keeps_trash: bool,
    version: u64,
    log: Log,
}

impl State {
    /// Empty, with default timeouts and sysctls.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            support: Support::Engine,
            network: Network::default(),
            limits,
            timeouts: Timeouts::default(),
            sysctls: Sysctls::default(),
            services: Slots::new(limits.services),
            dests: Slots::new(limits.dests),
            service_at: HashMap::new(),
            dest_at: HashMap::new(),
            daemons: Daemons::default(),
            keeps_trash: true,
            version: 1,
            log: Log::default(),
        }
    }

    /// Says which addresses are the director's own.
    #[must_use]
    pub fn within(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Takes from now on all that the kernel takes, whether the engine can do it or not. Only for
    /// tests of what is before the engine: nothing may be forwarded by this table.
    #[must_use]
    pub fn accept_everything(mut self) -> Self {
        self.support = Support::Everything;
        self
    }

    /// With devices of these names, on which synchronisation daemons can run.
    #[must_use]
    pub fn with_devices(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.daemons.devices.extend(names);
        self
    }

    /// Whether deleted destinations keep their places while connections may lead to them. They need not
    /// while there is no worker; those that are in the trash already stay there.
    pub fn keep_trash(&mut self, keeps: bool) {
        self.keeps_trash = keeps;
    }

    /// Carries out one request.
    ///
    /// # Errors
    ///
    /// The kernel's error number for this operation, or rvs's own refusal; nothing has changed
    /// then. [`Request::ListConns`] is not answered here: connections are the workers'.
    pub fn apply(&mut self, request: Request, readings: &impl Readings) -> Outcome {
        match request {
            Request::AddService { service, attributes } => self.add_service(service, attributes)?,
            Request::EditService { service, attributes } => {
                self.edit_service(&service, attributes)?;
            }
            Request::DeleteService { service } => {
                let id = self.find(&service)?;
                self.delete_service(id, readings);
            }
            Request::Flush => self.flush(readings),
            Request::AddDest { service, dest, attributes } => {
                self.add_dest(&service, plain(dest), attributes, readings)?;
            }
            Request::EditDest { service, dest, attributes } => {
                self.edit_dest(&service, plain(dest), attributes)?;
            }
            Request::DeleteDest { service, dest } => {
                self.delete_dest(&service, plain(dest), readings)?;
            }
            Request::Zero { service } => self.zero(service.as_ref(), readings)?,
            Request::SetTimeouts(change) => self.set_timeouts(change)?,
            Request::ListServices { service } => return self.list(service.as_ref(), readings),
            Request::ListTunables { name } => return self.list_tunables(name.as_deref()),
            Request::SetTunable { name, value } => return self.set_tunable(&name, &value),
            Request::GetTimeouts => return Ok(Reply::Timeouts(self.timeouts_told())),
            Request::GetInfo => {
                return Ok(Reply::Info(Info { version: IPVS_VERSION, size: self.limits.conns }));
            }
            Request::ListDaemons => return Ok(Reply::Daemons(self.daemons.list())),
            Request::StopDaemon(end) => self.daemons.stop(end)?,
            Request::StartDaemon(daemon) => self.start_daemon(daemon)?,
            Request::EndConns { service, dest, .. } => {
                self.drained_dest(&service, plain(dest))?;
            }
            Request::Together(requests) => {
                *self = self.trial(&requests, readings)?;
            }
            Request::Apply { rules, dry_run } => {
                let changes = self.changes_to(&rules)?;
                let trial = self.trial(&changes, readings)?;
                if !dry_run {
                    *self = trial;
                }
                return Ok(Reply::Changes(changes));
            }
            Request::ListConns | Request::ListConnsWhere(_) | Request::KillConn { .. } => {
                return Err(Errno::OpNotSupp.into());
            }
        }
        Ok(Reply::Done)
    }

    /// Frees the places of deleted destinations that had no connection for [`TRASH_SECONDS`], and
    /// of deleted services that have no destination left. `now_s` never goes back. To be called
    /// every few seconds; says how many places of destinations became free.
    pub fn reclaim(&mut self, now_s: u64, readings: &impl Readings) -> usize {
        let mut free = Vec::new();
        for dest in self.dests.iter_mut() {
            let Some(trash) = &mut dest.trash else { continue };
            if readings.load(dest.id).total() > 0 || readings.templates(dest.id) > 0 {
                trash.idle_since = None;
            } else if now_s >= trash.idle_since.get_or_insert(now_s).saturating_add(TRASH_SECONDS) {
                free.push(dest.id);
            }
        }
        for id in &free {
            self.free_dest(*id, readings);
        }
        free.len()
    }

    /// One step of all rate estimators; to be called every [`crate::rates::STEP_SECONDS`].
    pub fn estimate(&mut self, readings: &impl Readings) {
        for dest in self.dests.iter_mut().filter(|dest| dest.is_available()) {
            dest.estimator.step(readings.totals(dest.id));
        }
        let Self { services, dests, .. } = self;
        for service in services.iter_mut() {
            let counted = listing::counted(service, dests, readings);
            if let Some(life) = &mut service.life {
                life.estimator.step(counted);
            }
        }
    }

    /// Grows with every change that the data path must learn of.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How long connections live, by state.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Replaces all timeouts: what the configuration says.
    pub fn set_all_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
        self.version += 1;
    }

    /// The places of the services that changed after `version`, and perhaps more.
    #[must_use]
    pub fn changed_after(&self, version: u64) -> Vec<ServiceId> {
        let all = || (0..self.services.end()).map(ServiceId).collect();
        self.log.after(version).unwrap_or_else(all)
    }

    /// The service at a place, if there is one that was not deleted.
    #[must_use]
    pub fn service_at(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0).filter(|service| service.life.is_some())
    }

    /// All services, in the order of their places.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.life.is_some())
    }

    /// The service of a key.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(self.find(key).ok()?.0)
    }

    /// The destinations of a service, the one added last first: the order that schedulers see.
    pub fn dests_of(&self, service: &Service) -> impl Iterator<Item = &Dest> {
        service.dests.iter().rev().filter_map(|id| self.dests.get(id.0))
    }

    /// What has a place, in the order of the places: listed destinations and those in the trash.
    pub fn dests(&self) -> impl Iterator<Item = &Dest> {
        self.dests.iter()
    }

    /// The service that a destination belongs to, or belonged to.
    #[must_use]
    pub fn service_of(&self, id: DestId) -> Option<ServiceKey> {
        Some(*self.services.get(self.dest(id)?.service().0)?.key())
    }

    /// A destination whose weight is 0.
    ///
    /// # Errors
    ///
    /// There is none, or it takes connections.
    pub fn drained_dest(&self, service: &ServiceKey, dest: SocketAddr) -> Result<DestId, Refusal> {
        let id = self.find_dest(self.find(service)?, plain(dest))?;
        if self.dest(id).is_some_and(|dest| dest.attributes().weight.is_eligible()) {
            let message = "rvsd: it still takes connections, set its weight to 0 first";
            return Err(Refusal::with_message(Errno::Inval, message));
        }
        Ok(id)
    }

    /// The destination at a place.
    #[must_use]
    pub fn dest(&self, id: DestId) -> Option<&Dest> {
        self.dests.get(id.0)
    }

    fn set_timeouts(&mut self, change: TimeoutsChange) -> Result<(), Errno> {
        let TimeoutsChange { tcp_s, tcp_fin_s, udp_s } = change;
        if [tcp_s, tcp_fin_s, udp_s].iter().any(|seconds| *seconds > TIMEOUT_SECONDS_MAX) {
            return Err(Errno::Inval);
        }
        for (state, seconds) in [
            (ConnState::Established, tcp_s),
            (ConnState::FinWait, tcp_fin_s),
            (ConnState::Udp, udp_s),
        ] {
            if seconds != 0 {
                self.timeouts.set(state, seconds);
            }
        }
        self.version += 1;
        Ok(())
    }

    fn timeouts_told(&self) -> TimeoutsChange {
        TimeoutsChange {
            tcp_s: self.timeouts.seconds(ConnState::Established),
            tcp_fin_s: self.timeouts.seconds(ConnState::FinWait),
            udp_s: self.timeouts.seconds(ConnState::Udp),
        }
    }

    /// A service that was not deleted.
    fn find(&self, key: &ServiceKey) -> Result<ServiceId, Errno> {
        let id = self.service_at.get(&plain_key(*key)).ok_or(Errno::Srch)?;
        let lives = self.services.get(id.0).is_some_and(|service| service.life.is_some());
        if lives { Ok(*id) } else { Err(Errno::Srch) }
    }

    /// A service, or one of its destinations, has changed.
    fn touch(&mut self, service: ServiceId) -> u64 {
        self.version += 1;
        if let Some(life) = self.services.get_mut(service.0).and_then(|row| row.life.as_mut()) {
            life.version = self.version;
        }
        self.log.note(self.version, service);
        self.version
    }
}

/// Without flow label and scope, which say nothing of a destination.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn plain_key(key: ServiceKey) -> ServiceKey {
    match key {
        ServiceKey::Address { protocol, address } => {
            ServiceKey::Address { protocol, address: plain(address) }
        }
        mark @ ServiceKey::Mark { .. } => mark,
    }
}

fn full(what: &str, max: u32) -> Refusal {
    Refusal::with_message(Errno::NoMem, format!("rvsd: all {max} places for {what} are taken"))
}

#[cfg(test)]
mod tests;
