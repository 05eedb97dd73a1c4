//! Changes of services.

use super::listing;
use super::rows::{Life, Service, Trash};
use super::{Readings, State, checks, full, plain_key};
use crate::rates::Estimator;
use rvs_api::{Errno, Refusal, ServiceAttributes, ServiceFlags, ServiceKey};
use rvs_model::ServiceId;

impl State {
    pub(super) fn add_service(
        &mut self,
        key: ServiceKey,
        attributes: ServiceAttributes,
    ) -> Result<(), Refusal> {
        let key = plain_key(key);
        let attributes = plain_attributes(attributes);
        if self.find(&key).is_ok() {
            return Err(Errno::Exist.into());
        }
        checks::service(self.support, &key, &attributes)?;
        let version = self.version + 1;
        let life = Some(Life::starting(version));
        // A deleted service whose destinations are in the trash still has its place: connections
        // of theirs say that they belong to it.
        if let Some(service) = self.service_at.get(&key).and_then(|id| self.services.get_mut(id.0))
        {
            service.attributes = attributes;
            service.life = life;
            self.log.note(version, service.id);
        } else {
            let made = self.services.insert(|place| Service {
                id: ServiceId(place),
                key,
                attributes,
                life,
                dests: Vec::new(),
                trash: 0,
            });
            let place = made.ok_or_else(|| full("services", self.services.max()))?;
            self.service_at.insert(key, ServiceId(place));
            self.log.note(version, ServiceId(place));
        }
        self.version = version;
        Ok(())
    }

    pub(super) fn edit_service(
        &mut self,
        key: &ServiceKey,
        attributes: ServiceAttributes,
    ) -> Result<(), Refusal> {
        let attributes = plain_attributes(attributes);
        let id = self.find(key)?;
        checks::service(self.support, key, &attributes)?;
        let version = self.touch(id);
        if let Some(service) = self.services.get_mut(id.0) {
            if let Some(life) = &mut service.life
                && service.attributes.scheduler != attributes.scheduler
            {
                life.bound = version;
            }
            service.attributes = attributes;
        }
        Ok(())
    }

    /// Its destinations go to the trash; their connections stay.
    pub(super) fn delete_service(&mut self, id: ServiceId, readings: &impl Readings) {
        let Some(service) = self.services.get_mut(id.0) else { return };
        service.life = None;
        let dests = core::mem::take(&mut service.dests);
        service.trash += dests.len();
        for dest in &dests {
            if let Some(dest) = self.dests.get_mut(dest.0) {
                dest.trash = Some(Trash::default());
            }
        }
        if !self.keeps_trash {
            for dest in dests {
                self.free_dest(dest, readings);
            }
        }
        self.free_service_if_gone(id);
        self.version += 1;
        self.log.note(self.version, id);
    }

    pub(super) fn flush(&mut self, readings: &impl Readings) {
        let all: Vec<ServiceId> = self.services().map(Service::id).collect();
        for id in all {
            self.delete_service(id, readings);
        }
    }

    pub(super) fn zero(
        &mut self,
        key: Option<&ServiceKey>,
        readings: &impl Readings,
    ) -> Result<(), Errno> {
        let only = key.map(|key| self.find(key)).transpose()?;
        let Self { services, dests, .. } = self;
        for service in services.iter_mut().filter(|service| only.is_none_or(|id| id == service.id))
        {
            let counted = listing::counted(service, dests, readings);
            let Some(life) = &mut service.life else { continue };
            life.zero = counted;
            life.estimator = Estimator::starting(counted);
            for id in &service.dests {
                let Some(dest) = dests.get_mut(id.0) else { continue };
                dest.zero = readings.totals(*id);
                dest.estimator = Estimator::starting(dest.zero);
            }
        }
        Ok(())
    }

    pub(super) fn free_service_if_gone(&mut self, id: ServiceId) {
        let Some(service) = self.services.get(id.0) else { return };
        if service.life.is_none() && service.trash == 0 {
            self.service_at.remove(&service.key);
            self.services.remove(id.0);
        }
    }
}

/// An empty name is none, and no caller sets the bit that the kernel sets itself.
pub(super) fn plain_attributes(mut attributes: ServiceAttributes) -> ServiceAttributes {
    attributes.flags = attributes.flags.without(ServiceFlags::HASHED);
    attributes.engine = attributes.engine.filter(|engine| !engine.is_empty());
    attributes
}
