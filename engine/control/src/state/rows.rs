//! A service and a destination as the table holds them.

use crate::rates::Estimator;
use core::net::SocketAddr;
use rvs_api::{DestAttributes, ServiceAttributes, ServiceKey, Totals};
use rvs_model::{DestId, SchedulerKind, ServiceId, Weight};

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) id: ServiceId,
    pub(super) key: ServiceKey,
    pub(super) attributes: ServiceAttributes,
    /// `None` once it was deleted and only its destinations in the trash keep its place.
    pub(super) life: Option<Life>,
    /// The one added last is the last.
    pub(super) dests: Vec<DestId>,
    /// How many deleted destinations have a place still.
    pub(super) trash: usize,
}

/// What a service is between `-A` and `-D`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// When it was added, in versions: tells it from an earlier service of the same key.
    pub(super) born: u64,
    /// When it changed last.
    pub(super) version: u64,
    /// When it got its scheduler.
    pub(super) bound: u64,
    /// What destinations counted for it before they were deleted.
    pub(super) retired: Totals,
    /// What it had counted at the last `-Z`.
    pub(super) zero: Totals,
    pub(super) estimator: Estimator,
}

impl Life {
    pub(super) fn starting(version: u64) -> Self {
        Self {
            born: version,
            version,
            bound: version,
            retired: Totals::default(),
            zero: Totals::default(),
            estimator: Estimator::default(),
        }
    }
}

impl Service {
    /// Its place, the same in every worker.
    #[must_use]
    pub fn id(&self) -> ServiceId {
        self.id
    }

    /// What it is known by.
    #[must_use]
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// What it is.
    #[must_use]
    pub fn attributes(&self) -> &ServiceAttributes {
        &self.attributes
    }

    /// Its scheduler, if the engine has it.
    #[must_use]
    pub fn scheduler(&self) -> Option<SchedulerKind> {
        self.attributes.scheduler.parse().ok()
    }

    /// Grows with every change of it or of its destinations, and is never the same for two services
    /// nor for two services of the same key one after the other.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.life.map_or(0, |life| life.version)
    }

    /// The version at which it got its scheduler: while this stays, the scheduler keeps its state
    /// (Linux 6.1 `ip_vs_ctl.c` `ip_vs_edit_service()` binds only another scheduler anew).
    #[must_use]
    pub fn bound_at(&self) -> u64 {
        self.life.map_or(0, |life| life.bound)
    }
}

/// A destination, in its service's list or in the trash.
#[derive(Clone, Debug)]
pub struct Dest {
    pub(super) id: DestId,
    pub(super) service: ServiceId,
    /// Which life of its service it counts for.
    pub(super) born: u64,
    pub(super) address: SocketAddr,
    pub(super) attributes: DestAttributes,
    /// Its latest weight that was not zero.
    pub(super) last_weight: Weight,
    /// Up to where its service knows what its place counted.
    pub(super) joined: Totals,
    /// What its place had counted at the last `-Z`.
    pub(super) zero: Totals,
    pub(super) estimator: Estimator,
    pub(super) trash: Option<Trash>,
    /// The version at which it last had no upper threshold.
    pub(super) lifted: u64,
}

/// A stay in the trash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trash {
    /// Seconds at which its last connection was seen gone.
    pub(super) idle_since: Option<u64>,
}

impl Dest {
    /// Its place, the same in every worker.
    #[must_use]
    pub fn id(&self) -> DestId {
        self.id
    }

    /// Its service's place.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// Address and port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is.
    #[must_use]
    pub fn attributes(&self) -> &DestAttributes {
        &self.attributes
    }

    /// Its latest weight that was not zero; zero if it never had one (Linux 6.1 `ip_vs_ctl.c`
    /// `__ip_vs_update_dest()`).
    #[must_use]
    pub fn last_weight(&self) -> Weight {
        self.last_weight
    }

    /// The version at which it last had no upper threshold.
    #[must_use]
    pub fn lifted_at(&self) -> u64 {
        self.lifted
    }

    /// Edits it, at the version `version`.
    pub(super) fn set_attributes(&mut self, attributes: DestAttributes, version: u64) {
        if attributes.upper_threshold == 0 {
            self.lifted = version;
        }
        if attributes.weight.is_eligible() {
            self.last_weight = attributes.weight;
        }
        self.attributes = attributes;
    }

    /// Whether it is in its service's list; packets of its connections are otherwise not forwarded.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.trash.is_none()
    }
}
