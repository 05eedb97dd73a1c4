//! `environment.json`: rvs's tunables have the defaults of the kernel's sysctls of the same name.

use crate::golden::Golden;
use crate::scene;
use crate::tally::{Aspect, Ledger, Place};
use std::collections::BTreeMap;

pub(super) fn play(golden: &Golden, ledger: &mut Ledger) {
    let defaults: BTreeMap<String, String> = golden.field("sysctl_defaults").unwrap_or_default();
    for (name, value) in defaults {
        match scene::is_default(&name, &value) {
            Some(equal) => {
                let place = || Place::whole(format!("sysctl {name}"));
                let told = || (value.clone(), "another default".to_owned());
                ledger.judge(Aspect::Defaults, equal, place, told);
            }
            None => ledger.leave_out(format!("sysctl {name}"), 1),
        }
    }
}
