//! What a director shall be, as `rvsadm apply` reads it and `rvsadm save` writes it: services with
//! their destinations, timeouts, tunables, synchronisation daemons.
//!
//! ```text
//!  [timeouts]  [ipvs]       as in rvsd's configuration
//!  [[service]]              protocol and address, or mark; what it is
//!  [[service.dest]]         address; what it is
//!  [[daemon]]
//! ```
//!
//! What a file does not have stays as it is, each of the four for itself: no `service` at all leaves
//! services alone, `service = []` deletes them. The same names are those of `--json`.

use crate::{
    AddressFamily, Daemon, DestAttributes, FwMark, Netmask, Request, ServiceAttributes,
    ServiceFlags, ServiceKey, TimeoutsChange, Tunnel, TunnelKind,
};
use core::net::{Ipv4Addr, SocketAddr};
use core::num::NonZeroU32;
use rvs_model::{
    ForwardMethod, Protocol, SchedulerKind, Setting, StaleUdp, UnknownScheduler, Weight,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;

/// All of it. What is `None` or empty stays as it is, but for an empty list of services or daemons.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// How long connections outlive their last packet.
    #[serde(skip_serializing_if = "is_default")]
    pub timeouts: RuleTimeouts,
    /// Tunables by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ipvs: BTreeMap<String, Setting>,
    /// All synchronisation daemons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Vec<Daemon>>,
    /// All services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Vec<ServiceRule>>,
}

/// The timeouts that can change while rvsd runs, in seconds, by the names of the configuration.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleTimeouts {
    /// TCP, ESTABLISHED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub established: Option<NonZeroU32>,
    /// TCP, `FIN_WAIT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fin_wait: Option<NonZeroU32>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<NonZeroU32>,
}

impl From<RuleTimeouts> for TimeoutsChange {
    fn from(rule: RuleTimeouts) -> Self {
        let seconds = |it: Option<NonZeroU32>| it.map_or(0, NonZeroU32::get);
        Self {
            tcp_s: seconds(rule.established),
            tcp_fin_s: seconds(rule.fin_wait),
            udp_s: seconds(rule.udp),
        }
    }
}

impl From<TimeoutsChange> for RuleTimeouts {
    fn from(it: TimeoutsChange) -> Self {
        Self {
            established: NonZeroU32::new(it.tcp_s),
            fin_wait: NonZeroU32::new(it.tcp_fin_s),
            udp: NonZeroU32::new(it.udp_s),
        }
    }
}

/// A service with its destinations.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "WrittenService", into = "WrittenService")]
pub struct ServiceRule {
    /// Which.
    pub service: ServiceKey,
    /// What it is.
    pub attributes: ServiceAttributes,
    /// Its destinations, in the order in which they are added to a new service.
    pub dests: Vec<DestRule>,
}

/// A destination.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "WrittenDest", into = "WrittenDest")]
pub struct DestRule {
    /// Address and port.
    pub dest: SocketAddr,
    /// What it is.
    pub attributes: DestAttributes,
}

impl ServiceRule {
    /// The requests that add it.
    pub fn additions(&self) -> impl Iterator<Item = Request> {
        let service = self.service;
        let attributes = self.attributes.clone();
        let dests = self.dests.iter().map(move |it| Request::AddDest {
            service,
            dest: it.dest,
            attributes: it.attributes,
        });
        core::iter::once(Request::AddService { service, attributes }).chain(dests)
    }
}

/// What a service or a destination of a file cannot be. Each is one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum Unfit {
    #[error("a service needs `protocol` and `address`, or else `mark`")]
    Key,
    #[error(
        "address is {0:?}, expected ADDRESS:PORT like \"203.0.113.1:80\" or \"[2001:db8::1]:80\""
    )]
    Address(String),
    #[error("`family` goes with `mark`; an address tells its own")]
    Family,
    #[error("scheduler is {0:?}: {1}")]
    Scheduler(String, UnknownScheduler),
    #[error(
        "netmask is of another family than the service: IPv4's is like \"255.255.255.0\", IPv6's a number from 1 to 128"
    )]
    Netmask,
    #[error(
        "flag {0:?} is unknown, expected sh-fallback, sh-port, mh-fallback, mh-port, or flag-1 to flag-3"
    )]
    Flag(String),
    #[error("`persistent_s` and `timeout_s` exclude each other")]
    Timeouts,
    #[error("weight is {0}, expected 0 to 2147483647")]
    Weight(u32),
    #[error("lower_threshold is {lower}, expected at most upper_threshold, which is {upper}")]
    Thresholds { lower: u32, upper: u32 },
    #[error("a tunnel of kind gue needs a `port`")]
    Port,
}

/// A service as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenService {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address_if_any")]
    address: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<FwMark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    family: Option<AddressFamily>,
    #[serde(default = "default_scheduler")]
    scheduler: String,
    /// Present: clients are remembered for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    persistent_s: Option<u32>,
    /// The same number of a service that is not persistent: netlink can say so, and it means nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    timeout_s: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netmask: Option<WrittenMask>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    one_packet: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flags: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    stale_udp: StaleUdp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dest: Vec<DestRule>,
}

/// `"255.255.255.0"` or `64`.
#[derive(Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a netmask like \"255.255.255.0\", or a number for IPv6")]
enum WrittenMask {
    V4(Ipv4Addr),
    V6(u32),
}

/// A destination as it is written.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenDest {
    #[serde(deserialize_with = "address")]
    address: SocketAddr,
    method: ForwardMethod,
    #[serde(default = "default_weight")]
    weight: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    upper_threshold: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    lower_threshold: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    tunnel: Tunnel,
}

fn address<'d, D: Deserializer<'d>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| de::Error::custom(Unfit::Address(text)))
}

fn address_if_any<'d, D: Deserializer<'d>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    address(from).map(Some)
}

fn default_scheduler() -> String {
    SchedulerKind::default().name().to_owned()
}

fn default_weight() -> u32 {
    1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The bits that have a key of their own, or that the kernel sets itself.
const OWN_KEYS: ServiceFlags =
    ServiceFlags::PERSISTENT.with(ServiceFlags::ONE_PACKET).with(ServiceFlags::HASHED);

/// `flag-1`, or `0x40` for a bit that has no name.
fn flag(text: &str) -> Option<ServiceFlags> {
    let named = match text {
        "flag-1" | "sh-fallback" | "mh-fallback" => ServiceFlags::SCHEDULER_1,
        "flag-2" | "sh-port" | "mh-port" => ServiceFlags::SCHEDULER_2,
        "flag-3" => ServiceFlags::SCHEDULER_3,
        _ => {
            let bits = u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
            return Some(ServiceFlags(bits).without(OWN_KEYS));
        }
    };
    Some(named)
}

impl TryFrom<WrittenService> for ServiceRule {
    type Error = Unfit;

    fn try_from(it: WrittenService) -> Result<Self, Unfit> {
        let service = match (it.protocol, it.address, it.mark) {
            (Some(_), Some(_), None) if it.family.is_some() => return Err(Unfit::Family),
            (Some(protocol), Some(address), None) => ServiceKey::Address { protocol, address },
            (None, None, Some(mark)) => {
                ServiceKey::Mark { mark, family: it.family.unwrap_or_default() }
            }
            _ => return Err(Unfit::Key),
        };
        if let Err(unknown) = it.scheduler.parse::<SchedulerKind>() {
            return Err(Unfit::Scheduler(it.scheduler, unknown));
        }
        let mut attributes = ServiceAttributes::new(&it.scheduler, service.family());
        match (service.family(), it.netmask) {
            (_, None) => {}
            (AddressFamily::V4, Some(WrittenMask::V4(mask))) => {
                attributes.netmask = Netmask::V4(mask);
            }
            (AddressFamily::V6, Some(WrittenMask::V6(bits @ 1..=128))) => {
                attributes.netmask = Netmask::V6(bits);
            }
            _ => return Err(Unfit::Netmask),
        }
        for text in it.flags {
            let flag = flag(&text).ok_or(Unfit::Flag(text))?;
            attributes.flags = attributes.flags.with(flag);
        }
        if it.one_packet {
            attributes.flags = attributes.flags.with(ServiceFlags::ONE_PACKET);
        }
        attributes.timeout_s = it.timeout_s;
        if let Some(seconds) = it.persistent_s {
            if it.timeout_s != 0 {
                return Err(Unfit::Timeouts);
            }
            attributes.flags = attributes.flags.with(ServiceFlags::PERSISTENT);
            attributes.timeout_s = seconds;
        }
        attributes.engine = it.engine.filter(|engine| !engine.is_empty());
        attributes.stale_udp = it.stale_udp;
        Ok(Self { service, attributes, dests: it.dest })
    }
}

impl From<ServiceRule> for WrittenService {
    fn from(rule: ServiceRule) -> Self {
        let ServiceRule { service, attributes: it, dests: dest } = rule;
        let (protocol, address, mark, family) = match service {
            ServiceKey::Address { protocol, address } => {
                (Some(protocol), Some(address), None, None)
            }
            ServiceKey::Mark { mark, family } => {
                (None, None, Some(mark), Some(family).filter(|it| *it == AddressFamily::V6))
            }
        };
        let mut flags: Vec<_> = it.scheduler_flags().map(str::to_owned).collect();
        let named = flags.iter().filter_map(|text| flag(text)).fold(OWN_KEYS, ServiceFlags::with);
        let nameless = it.flags.without(named);
        if nameless.0 != 0 {
            flags.push(format!("{:#x}", nameless.0));
        }
        let is_persistent = it.flags.has(ServiceFlags::PERSISTENT);
        Self {
            protocol,
            address,
            mark,
            family,
            one_packet: it.flags.has(ServiceFlags::ONE_PACKET),
            flags,
            persistent_s: is_persistent.then_some(it.timeout_s),
            timeout_s: if is_persistent { 0 } else { it.timeout_s },
            netmask: match it.netmask {
                host if host.is_host() => None,
                Netmask::V4(pattern) => Some(WrittenMask::V4(pattern)),
                Netmask::V6(bits) => Some(WrittenMask::V6(bits)),
            },
            scheduler: it.scheduler,
            engine: it.engine,
            stale_udp: it.stale_udp,
            dest,
        }
    }
}

impl TryFrom<WrittenDest> for DestRule {
    type Error = Unfit;

    fn try_from(it: WrittenDest) -> Result<Self, Unfit> {
        let WrittenDest { upper_threshold: upper, lower_threshold: lower, .. } = it;
        if it.weight > i32::MAX.unsigned_abs() {
            return Err(Unfit::Weight(it.weight));
        }
        if lower > upper {
            return Err(Unfit::Thresholds { lower, upper });
        }
        if it.tunnel.kind == TunnelKind::Gue && it.tunnel.port == 0 {
            return Err(Unfit::Port);
        }
        let attributes = DestAttributes {
            method: it.method,
            weight: Weight(it.weight),
            upper_threshold: upper,
            lower_threshold: lower,
            tunnel: it.tunnel,
        };
        Ok(Self { dest: it.address, attributes })
    }
}

impl From<DestRule> for WrittenDest {
    fn from(rule: DestRule) -> Self {
        let DestRule { dest: address, attributes: it } = rule;
        Self {
            address,
            method: it.method,
            weight: it.weight.0,
            upper_threshold: it.upper_threshold,
            lower_threshold: it.lower_threshold,
            tunnel: it.tunnel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Rules, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn service(rest: &str) -> Result<Rules, String> {
        let key = r#""protocol":"udp","address":"203.0.113.1:53""#;
        read(&format!(r#"{{"service":[{{{key}{rest}}}]}}"#))
    }

    #[test]
    fn what_is_not_said_is_ipvsadms_default() {
        let rules = service(r#","dest":[{"address":"192.0.2.1:53","method":"direct"}]"#).unwrap();
        let rule = rules.service.unwrap().pop().unwrap();
        assert_eq!(rule.attributes, ServiceAttributes::new("wlc", AddressFamily::V4));
        let expected = DestAttributes::new(ForwardMethod::Direct, Weight(1));
        assert_eq!(rule.dests.first().unwrap().attributes, expected);
        assert_eq!(read("{}").unwrap(), Rules::default());
    }

    #[test]
    fn every_flag_survives_writing_and_reading() {
        for bits in 0..=0xff {
            let mut attributes = ServiceAttributes::new("sh", AddressFamily::V4);
            attributes.flags = ServiceFlags(bits).without(ServiceFlags::HASHED);
            attributes.timeout_s = 7;
            let address = "203.0.113.1:53".parse().unwrap();
            let service = ServiceKey::Address { protocol: Protocol::Udp, address };
            let rule = ServiceRule { service, attributes, dests: Vec::new() };
            let text = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<ServiceRule>(&text).unwrap(), rule, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_in_one_line() {
        for (rest, expected) in [
            (r#","mark":3"#, "a service needs `protocol` and `address`, or else `mark`"),
            (r#","family":"v6""#, "`family` goes with `mark`"),
            (
                r#","scheduler":"fastest""#,
                "scheduler is \"fastest\": unknown scheduler (expected rr, wrr, ",
            ),
            (
                r#","dest":[{"address":"192.0.2.1","method":"direct"}]"#,
                "address is \"192.0.2.1\", expected ADDRESS:PORT like ",
            ),
            (r#","netmask":24"#, "netmask is of another family"),
            (r#","netmask":true"#, "expected a netmask like"),
            (r#","flags":["sh"]"#, "flag \"sh\" is unknown"),
            (r#","persistent_s":1,"timeout_s":2"#, "exclude each other"),
            (r#","weight":1"#, "unknown field `weight`"),
            (
                r#","dest":[{"address":"192.0.2.1:1","method":"direct","weight":2147483648}]"#,
                "weight is 2147483648, expected 0 to 2147483647",
            ),
            (
                r#","dest":[{"address":"192.0.2.1:1","method":"direct","lower_threshold":2}]"#,
                "lower_threshold is 2, expected at most upper_threshold, which is 0",
            ),
            (
                r#","dest":[{"address":"192.0.2.1:1","method":"tunnel","tunnel":{"kind":"gue"}}]"#,
                "a tunnel of kind gue needs a `port`",
            ),
        ] {
            let told = service(rest).unwrap_err();
            assert!(told.contains(expected), "{rest}: {told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
}
