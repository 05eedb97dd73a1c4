//! How finely connections are spread over workers where persistence wants those of a client's
//! network together: ADR 0002, point 4.
//!
//! ```text
//!  inbound    its service ─────────────────────► mask ─┐
//!  outbound   its source, the real server's end ─► mask ┴► owner of (client & mask), else of
//!                                                           (client, port)
//! ```
//!
//! Both directions must come to the same mask, and replies know their service by the real server
//! only. So masquerading services that share an end of a real server share their masks: the bits
//! that count in all of them.
//!
//! DIFFERS from Linux on more than one worker, whose connections are every core's: a change of these
//! masks moves owners, and connections of before are found only where their packets go on arriving
//! (ADR 0002).

use crate::persist::Mask;
use crate::snapshot::{FTP_PORT, Service};
use core::net::IpAddr;
use hashbrown::HashMap;
use rvs_model::{ForwardMethod, ServiceId};

/// The masks, for each service and each end of a real server that any has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grains {
    services: HashMap<ServiceId, Mask>,
    /// Port 0 stands for all ports of the address.
    replies: HashMap<(IpAddr, u16), Mask>,
}

/// Services that share real servers, as sets: each points to another of its set, or to itself.
struct Sets(Vec<usize>);

impl Sets {
    fn first(&self, mut of: usize) -> usize {
        while let Some(next) = self.0.get(of).filter(|next| **next != of) {
            of = *next;
        }
        of
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        if let Some(place) = self.0.get_mut(one.max(other)) {
            *place = one.min(other);
        }
    }
}

/// The ends that masqueraded replies of a service come from.
fn reply_ends(service: &Service) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
    let masqueraded = service.dests.iter().filter(|dest| dest.method == ForwardMethod::Masquerade);
    masqueraded.map(|dest| {
        let (ip, port) = (dest.socket.ip(), dest.socket.port());
        // Linux 6.1 ip_vs_core.c ip_vs_sched_persist(): marks, port 0 and FTP's data connections keep
        // the port that the client asked for.
        let any = service.key.is_mark() || [0, FTP_PORT].contains(&service.key.port);
        let persists = service.persistence.is_some();
        (ip, if any && persists { 0 } else { port })
    })
}

impl Grains {
    /// Of these services. Empty if none of them is persistent.
    #[must_use]
    pub fn new<'s>(services: impl IntoIterator<Item = &'s Service>) -> Self {
        let services: Vec<&Service> = services.into_iter().collect();
        if services.iter().all(|service| service.persistence.is_none()) {
            return Self::default();
        }
        let mut sets = Sets((0..services.len()).collect());
        // Whose end it was first, and all ends of an address.
        let mut ends: HashMap<(IpAddr, u16), usize> = HashMap::new();
        let mut of_address: HashMap<IpAddr, Vec<usize>> = HashMap::new();
        for (service, at) in services.iter().zip(0..) {
            for end in reply_ends(service) {
                sets.join(at, *ends.entry(end).or_insert(at));
                of_address.entry(end.0).or_default().push(at);
            }
        }
        for (address, all) in &of_address {
            if let Some(any) = ends.get(&(*address, 0)).copied() {
                for at in all {
                    sets.join(*at, any);
                }
            }
        }
        let mut masks: HashMap<usize, Mask> = HashMap::new();
        for (service, at) in services.iter().zip(0..) {
            if let Some(persistence) = service.persistence {
                let mask = persistence.mask;
                let both = |other: &mut Mask| *other = other.and(mask);
                masks.entry(sets.first(at)).and_modify(both).or_insert(mask);
            }
        }
        let mask_of = |at| masks.get(&sets.first(at)).copied();
        let of_service = |(service, at): (&&Service, usize)| Some((service.id, mask_of(at)?));
        Self {
            services: services.iter().zip(0..).filter_map(of_service).collect(),
            replies: ends.iter().filter_map(|(end, at)| Some((*end, mask_of(*at)?))).collect(),
        }
    }

    /// Whether all connections are spread by address and port.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The mask that the connections of a service are spread by.
    #[must_use]
    pub fn of_service(&self, id: ServiceId) -> Option<Mask> {
        self.services.get(&id).copied()
    }

    /// The mask for what this end of a real server sends.
    #[must_use]
    pub fn of_reply(&self, (address, port): (IpAddr, u16)) -> Option<Mask> {
        let mask = self.replies.get(&(address, port));
        mask.or_else(|| self.replies.get(&(address, 0))).copied()
    }
}
