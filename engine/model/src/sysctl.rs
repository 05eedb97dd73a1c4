//! Every name that Linux has under `net.ipv4.vs`: what may be written to it, and what it does here.
//!
//! ```text
//!  name = text ──Sysctl::read──► canonical text ──Sysctls──► Tunables, which workers read
//! ```
//!
//! A name that means nothing here takes and keeps its values all the same, so that scripts made for
//! the kernel run unchanged, and says in one line why it means nothing.

use crate::tunables::Tunables;
use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What may be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allowed {
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// 0 or 1; `false` and `true` are understood.
    Switch,
    /// 1, 2, 4 and so on up to this.
    PowerOfTwo(i64),
    /// Two whole numbers, the first less than the second unless that is 0.
    Threshold,
    /// Numbers of cores and ranges of them, like `0-3,6`; nothing is any.
    Cpus,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(low, high) => write!(f, "{low} to {high}"),
            Self::Switch => f.write_str("0 or 1"),
            Self::PowerOfTwo(high) => write!(f, "a power of two from 1 to {high}"),
            Self::Threshold => f.write_str("two numbers like \"3 50\", the first the lesser"),
            Self::Cpus => f.write_str("cores like \"0-3,6\""),
        }
    }
}

impl Allowed {
    /// The canonical form of `text`, or `None` if it is not allowed.
    fn read(self, text: &str) -> Option<String> {
        let number = |text: &str| text.parse::<i64>().ok();
        match self {
            Self::Number(low, high) => {
                number(text).filter(|found| (low..=high).contains(found)).map(|it| it.to_string())
            }
            Self::Switch => match text {
                "0" | "false" => Some("0".to_owned()),
                "1" | "true" => Some("1".to_owned()),
                _ => None,
            },
            Self::PowerOfTwo(high) => number(text)
                .filter(|found| (1..=high).contains(found) && found.count_ones() == 1)
                .map(|it| it.to_string()),
            Self::Threshold => {
                let mut words = text.split_ascii_whitespace().map(number);
                let (Some(first), Some(period), None) =
                    (words.next()?, words.next()?, words.next())
                else {
                    return None;
                };
                let fits = |number: i64| (0..=INT_MAX).contains(&number);
                let is_ordered = period == 0 || first < period;
                (fits(first) && fits(period) && is_ordered).then(|| format!("{first} {period}"))
            }
            Self::Cpus => {
                let core = |text: &str| text.parse::<u16>().ok();
                let is_range = |part: &str| match part.split_once('-') {
                    Some((low, high)) => {
                        core(low).zip(core(high)).is_some_and(|(low, high)| low <= high)
                    }
                    None => core(part).is_some(),
                };
                (text.is_empty() || text.split(',').all(is_range)).then(|| text.to_owned())
            }
        }
    }
}

/// How far a name does here what it does in the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// As in the kernel, or as its sentence says.
    Honoured,
    /// Not at all: its sentence says why.
    Meaningless,
}

/// One of the names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sysctl {
    /// As under `/proc/sys/net/ipv4/vs`.
    pub name: &'static str,
    /// What may be written.
    pub allowed: Allowed,
    /// The kernel's default.
    pub default: &'static str,
    /// Whether it does anything here.
    pub effect: Effect,
    /// What it does, or why it does nothing.
    pub sentence: &'static str,
}

/// `INT_MAX`.
const INT_MAX: i64 = 0x7fff_ffff;
/// Seconds whose jiffies fit an `int`, at the 250 a second of Debian's kernel.
const JIFFIES_SECONDS_MAX: i64 = 8_589_934;
/// Limit of connections of a 64-bit kernel.
const CONNS_MAX: i64 = 1 << 30;

const fn honoured(
    name: &'static str,
    allowed: Allowed,
    default: &'static str,
    sentence: &'static str,
) -> Sysctl {
    Sysctl { name, allowed, default, effect: Effect::Honoured, sentence }
}

const fn meaningless(
    name: &'static str,
    allowed: Allowed,
    default: &'static str,
    sentence: &'static str,
) -> Sysctl {
    Sysctl { name, allowed, default, effect: Effect::Meaningless, sentence }
}

/// What names of synchronisation say of themselves.
const NO_SYNC: &str = "no meaning here: connections are not synchronised";

/// All of them, by name: Linux 6.1 `ip_vs_ctl.c` `vs_vars[]`, with those of `ip_vs_lblc.c` and
/// `ip_vs_lblcr.c`, and those that later kernels added.
pub const SYSCTLS: [Sysctl; 35] = {
    use Allowed::{Cpus, Number, PowerOfTwo, Switch, Threshold};
    [
        honoured(
            "am_droprate",
            Number(0, INT_MAX),
            "10",
            "with drop_packet 3, one of so many packets that would open a connection is dropped; 0 \
             drops none",
        ),
        honoured(
            "amemthresh",
            Number(0, INT_MAX),
            "1024",
            "pages of 4096 octets: modes 1 and 2 of drop_entry, drop_packet and secure_tcp defend \
             while a worker's connection table has less room left, or less than a quarter if that \
             is less still",
        ),
        meaningless("backup_only", Switch, "0", NO_SYNC),
        meaningless(
            "cache_bypass",
            Switch,
            "0",
            "no meaning here: only addresses that are the director's own reach services",
        ),
        meaningless(
            "conn_lfactor",
            Number(-8, 8),
            "-4",
            "no meaning here: tables have the size that [tables] says",
        ),
        meaningless(
            "conn_max",
            Number(0, CONNS_MAX),
            "1073741824",
            "no meaning here: tables have the size that [tables] says",
        ),
        honoured(
            "conn_reuse_mode",
            Number(0, 3),
            "1",
            "when a SYN that meets its own old connection is scheduled anew: 1 in TIME_WAIT and \
             CLOSE; 2 also in FIN_WAIT, with direct routing and tunnels; 0 never",
        ),
        meaningless(
            "conntrack",
            Switch,
            "0",
            "no meaning here: there is no netfilter whose connections could be kept",
        ),
        meaningless(
            "debug_level",
            Number(0, INT_MAX),
            "0",
            "no meaning here: nothing is logged per packet",
        ),
        honoured(
            "drop_entry",
            Number(0, 3),
            "0",
            "whether connections that look abandoned end at random, a 32nd of the table a second: 0 \
             never, 1 and 2 when the table runs out of room (see amemthresh), 3 always",
        ),
        honoured(
            "drop_packet",
            Number(0, 3),
            "0",
            "whether some packets that would open a connection are dropped: 0 none, 1 and 2 when the \
             table runs out of room (see amemthresh), 3 one in am_droprate",
        ),
        meaningless(
            "est_cpulist",
            Cpus,
            "",
            "no meaning here: rates are estimated by the control thread",
        ),
        meaningless(
            "est_nice",
            Number(-20, 19),
            "0",
            "no meaning here: rates are estimated by the control thread",
        ),
        honoured(
            "expire_nodest_conn",
            Switch,
            "0",
            "whether a packet whose connection's destination was deleted is scheduled anew, else it \
             is dropped",
        ),
        honoured(
            "expire_quiescent_template",
            Switch,
            "0",
            "whether a persistent client leaves a destination whose weight is 0; else its new \
             connections still go there",
        ),
        meaningless(
            "ignore_tunneled",
            Switch,
            "0",
            "no meaning here: what a tunnel brought is not given to the director a second time",
        ),
        honoured(
            "lblc_expiration",
            Number(0, JIFFIES_SECONDS_MAX),
            "86400",
            "seconds for which lblc remembers an address that nobody asks for",
        ),
        honoured(
            "lblcr_expiration",
            Number(0, JIFFIES_SECONDS_MAX),
            "86400",
            "the same of lblcr, and seconds without a change after which an address loses one of \
             several destinations",
        ),
        honoured(
            "nat_icmp_send",
            Switch,
            "0",
            "whether a masqueraded real server that sends from its service's port without a connection \
             is told so, by ICMP; else its packet is routed like any other",
        ),
        honoured(
            "pmtu_disc",
            Switch,
            "1",
            "whether a tunnel copies DF outwards and refuses packets that are too long for it",
        ),
        honoured(
            "run_estimation",
            Switch,
            "1",
            "whether rates are estimated; counters go on in any case",
        ),
        honoured(
            "schedule_icmp",
            Switch,
            "0",
            "whether an ICMP error about a packet of a service that no connection knows is scheduled \
             like a client's packet; for directors that share a VIP",
        ),
        honoured(
            "secure_tcp",
            Number(0, 3),
            "0",
            "whether the stricter TCP states are used: 0 never, 1 and 2 when the table runs out of \
             room (see amemthresh), 3 always",
        ),
        honoured(
            "sloppy_sctp",
            Switch,
            "0",
            "whether any SCTP packet but ABORT opens a connection",
        ),
        honoured("sloppy_tcp", Switch, "0", "whether any TCP segment but RST opens a connection"),
        meaningless(
            "snat_reroute",
            Switch,
            "1",
            "no meaning here: a reply is always routed by its client's address",
        ),
        meaningless(
            "svc_lfactor",
            Number(-8, 8),
            "-3",
            "no meaning here: tables have the size that [tables] says",
        ),
        meaningless("sync_persist_mode", Switch, "0", NO_SYNC),
        meaningless("sync_ports", PowerOfTwo(64), "1", NO_SYNC),
        // The kernel's default is a 32nd of the machine's pages: this is its recording's.
        meaningless("sync_qlen_max", Number(0, INT_MAX), "5281", NO_SYNC),
        meaningless("sync_refresh_period", Number(0, JIFFIES_SECONDS_MAX), "0", NO_SYNC),
        meaningless("sync_retries", Number(0, 3), "0", NO_SYNC),
        meaningless("sync_sock_size", Number(0, INT_MAX), "0", NO_SYNC),
        meaningless("sync_threshold", Threshold, "3 50", NO_SYNC),
        meaningless("sync_version", Number(0, 1), "1", NO_SYNC),
    ]
};

impl Sysctl {
    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<&'static Self> {
        SYSCTLS.iter().find(|sysctl| sysctl.name == name)
    }
}

/// Why a value was not taken. Prints as one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SysctlError {
    /// There is no such name.
    #[error("net.ipv4.vs has no {0:?}")]
    Unknown(String),
    /// It cannot have this value.
    #[error("{name} is {found}, expected {allowed}")]
    Refused {
        /// The name.
        name: &'static str,
        /// What was to be written.
        found: String,
        /// What may be.
        allowed: Allowed,
    },
}

/// What they all are set to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sysctls {
    /// Those that are not at their default.
    set: BTreeMap<&'static str, String>,
}

impl Sysctls {
    /// What `name` is set to, in the kernel's words with a space between two numbers.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let sysctl = Sysctl::of(name)?;
        Some(match self.set.get(sysctl.name) {
            Some(text) => text.into(),
            None => sysctl.default.into(),
        })
    }

    /// Sets `name`, and says what it is.
    ///
    /// # Errors
    ///
    /// [`SysctlError`]; nothing has changed then.
    pub fn set(&mut self, name: &str, text: &str) -> Result<&'static Sysctl, SysctlError> {
        let sysctl = Sysctl::of(name).ok_or_else(|| SysctlError::Unknown(name.to_owned()))?;
        let read = sysctl.allowed.read(text.trim()).ok_or_else(|| SysctlError::Refused {
            name: sysctl.name,
            found: text.to_owned(),
            allowed: sysctl.allowed,
        })?;
        if read == sysctl.default {
            self.set.remove(sysctl.name);
        } else {
            self.set.insert(sysctl.name, read);
        }
        Ok(sysctl)
    }

    /// What workers read of them.
    #[must_use]
    pub fn tunables(&self) -> Tunables {
        Tunables {
            am_droprate: self.number("am_droprate"),
            amemthresh: self.number("amemthresh"),
            conn_reuse_mode: self.number("conn_reuse_mode"),
            drop_entry: self.number("drop_entry"),
            drop_packet: self.number("drop_packet"),
            expire_nodest_conn: self.is_on("expire_nodest_conn"),
            expire_quiescent_template: self.is_on("expire_quiescent_template"),
            lblc_expiration: self.number("lblc_expiration"),
            lblcr_expiration: self.number("lblcr_expiration"),
            nat_icmp_send: self.is_on("nat_icmp_send"),
            pmtu_disc: self.is_on("pmtu_disc"),
            schedule_icmp: self.is_on("schedule_icmp"),
            secure_tcp: self.number("secure_tcp"),
            sloppy_sctp: self.is_on("sloppy_sctp"),
            sloppy_tcp: self.is_on("sloppy_tcp"),
        }
    }

    /// Whether the switch `name` is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|text| text == "1")
    }

    fn number<T: core::str::FromStr + Default>(&self, name: &str) -> T {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_every_default_is_allowed_and_canonical() {
        assert!(SYSCTLS.is_sorted_by_key(|sysctl| sysctl.name));
        for sysctl in &SYSCTLS {
            let read = sysctl.allowed.read(sysctl.default);
            assert_eq!(read.as_deref(), Some(sysctl.default), "{}", sysctl.name);
            assert!(!sysctl.sentence.is_empty() && !sysctl.sentence.contains('\n'));
            let says_so = sysctl.sentence.starts_with("no meaning here");
            assert_eq!(says_so, sysctl.effect == Effect::Meaningless, "{}", sysctl.name);
        }
    }

    #[test]
    fn workers_see_the_defaults_of_the_table() {
        assert_eq!(Sysctls::default().tunables(), Tunables::default());
    }

    #[test]
    fn a_value_is_kept_in_its_canonical_form_and_a_wrong_one_changes_nothing() {
        let mut sysctls = Sysctls::default();
        for (name, text, kept) in [
            ("sync_threshold", " 3\t50 ", "3 50"),
            ("sync_threshold", "7 0", "7 0"),
            ("expire_nodest_conn", "true", "1"),
            ("sync_ports", "8", "8"),
            ("est_cpulist", "0-3,6", "0-3,6"),
            ("est_nice", "-5", "-5"),
            ("conn_reuse_mode", "03", "3"),
        ] {
            assert_eq!(sysctls.set(name, text).unwrap().name, name);
            assert_eq!(sysctls.get(name).as_deref(), Some(kept));
        }
        let before = sysctls.clone();
        for (name, text) in [
            ("sync_threshold", "50 3"),
            ("sync_threshold", "3"),
            ("sync_threshold", "3 50 1"),
            ("sync_ports", "3"),
            ("est_cpulist", "3-1"),
            ("est_cpulist", "a"),
            ("sloppy_tcp", "2"),
            ("secure_tcp", "4"),
            ("secure_tcp", ""),
        ] {
            assert!(matches!(sysctls.set(name, text), Err(SysctlError::Refused { .. })), "{name}");
        }
        assert!(matches!(sysctls.set("tcp_fin", "1"), Err(SysctlError::Unknown(_))));
        assert_eq!(sysctls, before);
        sysctls.set("est_nice", "0").unwrap();
        assert_ne!(sysctls, before, "a default is no setting");
    }

    #[test]
    fn what_is_set_reaches_workers() {
        let mut sysctls = Sysctls::default();
        for sysctl in SYSCTLS.iter().filter(|sysctl| sysctl.effect == Effect::Honoured) {
            if sysctl.name == "run_estimation" {
                // The control thread's own.
                continue;
            }
            let other = if sysctl.default == "1" { "0" } else { "1" };
            let before = sysctls.tunables();
            sysctls.set(sysctl.name, other).unwrap();
            assert_ne!(sysctls.tunables(), before, "{}", sysctl.name);
        }
    }
}
