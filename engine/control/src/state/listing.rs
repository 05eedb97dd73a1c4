//! The table as `-L` and `-S` tell it.

use super::slots::Slots;
use super::{Dest, Readings, Service, State};
use crate::tally::Tally;
use rvs_api::{DestEntry, Errno, Outcome, Reply, ServiceEntry, ServiceKey, Totals};

/// What a service counted in its present life: its destinations, and those that were deleted.
pub(super) fn counted(service: &Service, dests: &Slots<Dest>, readings: &impl Readings) -> Totals {
    let Some(life) = &service.life else { return Totals::default() };
    let listed = service.dests.iter().filter_map(|id| dests.get(id.0));
    listed.fold(life.retired, |sum, dest| sum.plus(readings.totals(dest.id).since(dest.joined)))
}

impl State {
    pub(super) fn list(&self, only: Option<&ServiceKey>, readings: &impl Readings) -> Outcome {
        let entries = match only {
            Some(key) => {
                let service = self.service(key).ok_or(Errno::Srch)?;
                vec![self.service_entry(service, readings)]
            }
            None => self.services().map(|service| self.service_entry(service, readings)).collect(),
        };
        Ok(Reply::Services(entries))
    }

    /// Has counters go on from what `tallies` say, as far as there are such services and destinations.
    pub(crate) fn go_on_from(&mut self, tallies: &[Tally]) {
        for tally in tallies {
            let Ok(id) = self.find(&tally.service) else { continue };
            let Some(service) = self.services.get_mut(id.0) else { continue };
            if let Some(life) = &mut service.life {
                // Counters wrap: a start that many below what the places have counted so far.
                life.zero = life.zero.since(tally.totals);
            }
            for (address, totals) in &tally.dests {
                let Some(dest) = self.dest_at.get(&(id, *address)) else { continue };
                if let Some(dest) = self.dests.get_mut(dest.0) {
                    dest.zero = dest.zero.since(*totals);
                }
            }
        }
    }

    fn service_entry(&self, service: &Service, readings: &impl Readings) -> ServiceEntry {
        let zero = service.life.map(|life| life.zero).unwrap_or_default();
        ServiceEntry {
            service: service.key,
            attributes: service.attributes.clone(),
            totals: counted(service, &self.dests, readings).since(zero),
            rates: service.life.map(|life| life.estimator.rates()).unwrap_or_default(),
            dests: self.dests_of(service).map(|dest| dest_entry(dest, readings)).collect(),
        }
    }
}

fn dest_entry(dest: &Dest, readings: &impl Readings) -> DestEntry {
    let load = readings.load(dest.id);
    DestEntry {
        dest: dest.address,
        attributes: dest.attributes,
        active: load.active,
        inactive: load.inactive,
        persistent: readings.templates(dest.id),
        totals: readings.totals(dest.id).since(dest.zero),
        rates: dest.estimator.rates(),
    }
}
