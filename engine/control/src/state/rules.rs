//! `apply`: the changes between the table and what rules say.
//!
//! What stays is not touched, so it keeps its counters and its connections. The order is one in which
//! every change can be made: daemons that end first and those that start last, because some
//! destinations cannot be while one runs; deletions before additions, because room is limited.

use super::daemons::with_defaults;
use super::services::plain_attributes;
use super::tunables::refusal;
use super::{Readings, State, plain, plain_key};
use core::hash::Hash;
use rvs_api::{
    Daemon, DestRule, Errno, Refusal, Request, Rules, ServiceRule, TimeoutsChange, words,
};
use std::collections::{HashMap, HashSet};

impl State {
    /// The changes that make of this table what `rules` say, in an order in which they can be made.
    ///
    /// # Errors
    ///
    /// The rules contradict themselves, or name what there is not.
    pub fn changes_to(&self, rules: &Rules) -> Result<Vec<Request>, Refusal> {
        let mut changes = Vec::new();
        let wanted: Option<Vec<Daemon>> =
            rules.daemon.as_ref().map(|all| all.iter().cloned().map(with_defaults).collect());
        if let Some(wanted) = &wanted {
            unique(wanted.iter().map(|daemon| daemon.state), |_| "a daemon".to_owned())?;
            let ended = self.daemons.list().into_iter().filter(|daemon| !wanted.contains(daemon));
            changes.extend(ended.map(|daemon| Request::StopDaemon(daemon.state)));
        }
        changes.extend(self.changed_timeouts(rules));
        self.changed_tunables(rules, &mut changes)?;
        if let Some(services) = &rules.service {
            self.changed_services(services, &mut changes)?;
        }
        for daemon in wanted.into_iter().flatten() {
            if !self.daemons.list().contains(&daemon) {
                changes.push(Request::StartDaemon(daemon));
            }
        }
        Ok(changes)
    }

    /// What this table comes to by `changes`, all of them.
    ///
    /// # Errors
    ///
    /// The first that is refused, and why.
    pub fn trial(&self, changes: &[Request], readings: &impl Readings) -> Result<Self, Refusal> {
        let mut trial = self.clone();
        for change in changes {
            let outcome = match change {
                Request::Together(_) | Request::Apply { .. } => Err(Errno::Inval.into()),
                change if !change.is_kept() => Err(Errno::Inval.into()),
                change => trial.apply(change.clone(), readings),
            };
            if let Err(refusal) = outcome {
                let why = words::text(change.into(), &refusal);
                let why = why.strip_prefix("rvsd: ").unwrap_or(why);
                let message = format!("rvsd: nothing was changed: {change}: {why}");
                return Err(Refusal::with_message(refusal.errno, message));
            }
        }
        Ok(trial)
    }

    fn changed_timeouts(&self, rules: &Rules) -> Option<Request> {
        let (wanted, known) = (TimeoutsChange::from(rules.timeouts), self.timeouts_told());
        let changed = |wanted, known| if wanted == known { 0 } else { wanted };
        let change = TimeoutsChange {
            tcp_s: changed(wanted.tcp_s, known.tcp_s),
            tcp_fin_s: changed(wanted.tcp_fin_s, known.tcp_fin_s),
            udp_s: changed(wanted.udp_s, known.udp_s),
        };
        (change != TimeoutsChange::default()).then_some(Request::SetTimeouts(change))
    }

    fn changed_tunables(&self, rules: &Rules, changes: &mut Vec<Request>) -> Result<(), Refusal> {
        let mut wanted = self.sysctls.clone();
        for (name, setting) in &rules.ipvs {
            wanted.set(name, &setting.0).map_err(refusal)?;
            let value = wanted.get(name).unwrap_or_default();
            if self.sysctls.get(name).as_deref() != Some(&*value) {
                let (name, value) = (name.clone(), value.into_owned());
                changes.push(Request::SetTunable { name, value });
            }
        }
        Ok(())
    }

    fn changed_services(
        &self,
        rules: &[ServiceRule],
        changes: &mut Vec<Request>,
    ) -> Result<(), Refusal> {
        let keys = rules.iter().map(|rule| plain_key(rule.service));
        let wanted = unique(keys, |key| format!("service {key}"))?;
        let gone = self.services().filter(|service| !wanted.contains(&service.key));
        changes.extend(gone.map(|service| Request::DeleteService { service: service.key }));
        let mut added = Vec::new();
        for rule in rules {
            let (service, address) = (plain_key(rule.service), |it: &DestRule| plain(it.dest));
            let dests = unique(rule.dests.iter().map(address), |dest| {
                format!("destination {dest} of service {service}")
            })?;
            let Some(row) = self.service(&service) else {
                added.extend(rule.additions());
                continue;
            };
            let attributes = plain_attributes(rule.attributes.clone());
            if row.attributes != attributes {
                changes.push(Request::EditService { service, attributes });
            }
            let known: HashMap<_, _> =
                self.dests_of(row).map(|dest| (dest.address, dest.attributes)).collect();
            let gone = self.dests_of(row).filter(|dest| !dests.contains(&dest.address));
            changes.extend(gone.map(|dest| Request::DeleteDest { service, dest: dest.address }));
            for DestRule { dest, attributes } in rule.dests.iter().copied() {
                let dest = plain(dest);
                match known.get(&dest) {
                    Some(same) if *same == attributes => {}
                    Some(_) => changes.push(Request::EditDest { service, dest, attributes }),
                    None => added.push(Request::AddDest { service, dest, attributes }),
                }
            }
        }
        changes.append(&mut added);
        Ok(())
    }
}

/// All of `keys`, none of which may be there twice.
fn unique<K: Copy + Eq + Hash>(
    keys: impl Iterator<Item = K>,
    name: impl Fn(K) -> String,
) -> Result<HashSet<K>, Refusal> {
    let mut all = HashSet::new();
    for key in keys {
        if !all.insert(key) {
            let message = format!("rvsd: nothing was changed: {} is there twice", name(key));
            return Err(Refusal::with_message(Errno::Inval, message));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
