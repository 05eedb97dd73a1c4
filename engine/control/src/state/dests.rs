//! Changes of destinations.

use super::rows::{Dest, Trash};
use super::{Readings, State, checks, full};
use crate::rates::Estimator;
use core::net::SocketAddr;
use rvs_api::{DestAttributes, Errno, Refusal, ServiceKey};
use rvs_model::{DestId, ServiceId};

impl State {
    pub(super) fn add_dest(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        attributes: DestAttributes,
        readings: &impl Readings,
    ) -> Result<(), Refusal> {
        let service = self.find(key)?;
        checks::families(key, address.ip(), &attributes, self.daemons.run())?;
        checks::dest(&attributes)?;
        let known = self.dest_at.get(&(service, address)).copied();
        if known.and_then(|id| self.dest(id)).is_some_and(Dest::is_available) {
            return Err(Errno::Exist.into());
        }
        if known.is_none() {
            checks::unicast(address.ip())?;
        }
        self.support.host(address.ip(), self.network.is_local(address.ip()))?;
        let id = match known {
            Some(id) => {
                self.take_back(id, attributes, readings);
                id
            }
            None => self.new_dest(service, address, attributes, readings)?,
        };
        if let Some(service) = self.services.get_mut(service.0) {
            service.dests.push(id);
        }
        self.touch(service);
        Ok(())
    }

    fn new_dest(
        &mut self,
        service: ServiceId,
        address: SocketAddr,
        attributes: DestAttributes,
        readings: &impl Readings,
    ) -> Result<DestId, Refusal> {
        let born = self.born(service);
        let lifted = self.version + 1;
        let made = self.dests.insert(|place| {
            let counted = readings.totals(DestId(place));
            Dest {
                id: DestId(place),
                service,
                born,
                address,
                last_weight: attributes.weight,
                attributes,
                joined: counted,
                zero: counted,
                estimator: Estimator::starting(counted),
                trash: None,
                lifted,
            }
        });
        let id = DestId(made.ok_or_else(|| full("destinations", self.dests.max()))?);
        self.dest_at.insert((service, address), id);
        Ok(id)
    }

    /// Out of the trash: counters go on where they were, unless the service is a new one of the
    /// same key (Linux 6.1 `ip_vs_ctl.c` `__ip_vs_update_dest()`).
    fn take_back(&mut self, id: DestId, attributes: DestAttributes, readings: &impl Readings) {
        let Some(dest) = self.dests.get_mut(id.0) else { return };
        let Some(service) = self.services.get_mut(dest.service.0) else { return };
        service.trash -= 1;
        dest.trash = None;
        dest.set_attributes(attributes, self.version + 1);
        let born = service.life.map_or(0, |life| life.born);
        if dest.born != born {
            let counted = readings.totals(id);
            dest.born = born;
            dest.joined = counted;
            dest.zero = counted;
            dest.estimator = Estimator::starting(counted);
        }
    }

    pub(super) fn edit_dest(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        attributes: DestAttributes,
    ) -> Result<(), Refusal> {
        let service = self.find(key)?;
        checks::families(key, address.ip(), &attributes, self.daemons.run())?;
        checks::dest(&attributes)?;
        let id = self.find_dest(service, address)?;
        if let Some(dest) = self.dests.get_mut(id.0) {
            dest.set_attributes(attributes, self.version + 1);
        }
        self.touch(service);
        Ok(())
    }

    pub(super) fn delete_dest(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        readings: &impl Readings,
    ) -> Result<(), Errno> {
        let service = self.find(key)?;
        let id = self.find_dest(service, address)?;
        if let Some(dest) = self.dests.get_mut(id.0) {
            dest.trash = Some(Trash::default());
        }
        self.settle(id, readings);
        if let Some(service) = self.services.get_mut(service.0) {
            service.dests.retain(|other| *other != id);
            service.trash += 1;
        }
        if !self.keeps_trash {
            self.free_dest(id, readings);
        }
        self.touch(service);
        Ok(())
    }

    pub(super) fn free_dest(&mut self, id: DestId, readings: &impl Readings) {
        self.settle(id, readings);
        let Some(dest) = self.dests.remove(id.0) else { return };
        self.dest_at.remove(&(dest.service, dest.address));
        if let Some(service) = self.services.get_mut(dest.service.0) {
            service.trash -= 1;
        }
        self.free_service_if_gone(dest.service);
    }

    /// The service takes over what the destination counted for it.
    fn settle(&mut self, id: DestId, readings: &impl Readings) {
        let Some(dest) = self.dests.get_mut(id.0) else { return };
        let Some(service) = self.services.get_mut(dest.service.0) else { return };
        let counted = readings.totals(id);
        if let Some(life) = service.life.as_mut().filter(|life| life.born == dest.born) {
            life.retired = life.retired.plus(counted.since(dest.joined));
        }
        dest.joined = counted;
    }

    /// A destination that was not deleted.
    pub(super) fn find_dest(
        &self,
        service: ServiceId,
        address: SocketAddr,
    ) -> Result<DestId, Errno> {
        let id = self.dest_at.get(&(service, address)).ok_or(Errno::NoEnt)?;
        let lives = self.dest(*id).is_some_and(Dest::is_available);
        if lives { Ok(*id) } else { Err(Errno::NoEnt) }
    }

    fn born(&self, service: ServiceId) -> u64 {
        self.services.get(service.0).and_then(|service| service.life).map_or(0, |life| life.born)
    }
}
