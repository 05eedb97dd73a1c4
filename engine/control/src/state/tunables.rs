//! What `net.ipv4.vs` is in the kernel, by name.

use super::State;
use rvs_api::{Errno, Outcome, Refusal, Reply, Tunable};
use rvs_model::{Effect, SYSCTLS, Sysctl, SysctlError, Sysctls};

impl State {
    /// What the sysctls are set to; [`Sysctls::get`] tells one by its name.
    #[must_use]
    pub fn sysctls(&self) -> &Sysctls {
        &self.sysctls
    }

    /// Replaces all of them: what the configuration says.
    pub fn set_all_sysctls(&mut self, sysctls: Sysctls) {
        self.sysctls = sysctls;
        self.version += 1;
    }

    pub(super) fn set_tunable(&mut self, name: &str, text: &str) -> Outcome {
        let sysctl = self.sysctls.set(name, text).map_err(refusal)?;
        if sysctl.effect == Effect::Honoured {
            self.version += 1;
        }
        Ok(Reply::Tunables(vec![self.tunable(sysctl)]))
    }

    pub(super) fn list_tunables(&self, only: Option<&str>) -> Outcome {
        Ok(Reply::Tunables(match only {
            None => SYSCTLS.iter().map(|sysctl| self.tunable(sysctl)).collect(),
            Some(name) => {
                let unknown = || refusal(SysctlError::Unknown(name.to_owned()));
                vec![self.tunable(Sysctl::of(name).ok_or_else(unknown)?)]
            }
        }))
    }

    fn tunable(&self, sysctl: &Sysctl) -> Tunable {
        Tunable {
            name: sysctl.name.to_owned(),
            value: self.sysctls.get(sysctl.name).unwrap_or_default().into_owned(),
            default: sysctl.default.to_owned(),
            allowed: sysctl.allowed.to_string(),
            sentence: sysctl.sentence.to_owned(),
            has_effect: sysctl.effect == Effect::Honoured,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn refusal(error: SysctlError) -> Refusal {
    let errno = match error {
        SysctlError::Unknown(_) => Errno::NoEnt,
        SysctlError::Refused { .. } => Errno::Inval,
    };
    Refusal::with_message(errno, format!("rvsd: {error}"))
}
