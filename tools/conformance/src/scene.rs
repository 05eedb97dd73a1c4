//! The stage that every recording was made on, set up for one of them.
//!
//! ```text
//!  clients ─ gateway 02:00:00:00:00:fe ─ dc [director] dr ─ real server 10.1.0.N 02:00:00:00:01:N
//!                         10.0.0.1/24, fd00::1/64      10.1.0.1/24, fd00:1::1/64
//!            local: 10.0.0.96/27 198.18.0.0/15 fd00:100::/64 2001:db8:5::/64
//! ```
//!
//! What this version of rvs cannot do is decided here by rule: a recording whose sysctl or service
//! rvsd refuses is not covered, with what rvsd said as the reason.

use crate::golden::{Golden, plain};
use crate::marks::{self, Mark};
use crate::packet;
use crate::stage::{Bench, Ran, Sent, Side};
use crate::tally::Failure;
use core::fmt::Write as _;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_adm::NumbersOnly;
use rvs_control::config::{Config, Machine};
use rvs_model::{Sysctl, TICKS_PER_SECOND, Tick};
use rvs_wire::mac::MacAddr;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The client side's router, behind which all clients are.
pub const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
/// The director on the client side.
pub const CLIENT_SIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The director on the servers' side.
pub const SERVERS_SIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
/// The director's own addresses.
pub const OWN: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)),
];
/// Networks whose addresses are all the director's.
const LOCAL: [&str; 4] = ["10.0.0.96/27", "198.18.0.0/15", "fd00:100::/64", "2001:db8:5::/64"];

/// The recorded machine, for its sysctls' defaults.
const ENVIRONMENT: &str = include_str!("../goldens/environment.json");

/// The Ethernet address of a real server on the stage.
#[must_use]
pub fn server_mac(server: IpAddr) -> Option<MacAddr> {
    let [high, low] = match server {
        IpAddr::V4(address) => match address.octets() {
            [10, 1, 0, last] => [0, last],
            _ => return None,
        },
        IpAddr::V6(address) => match address.segments() {
            [0xfd00, 1, 0, 0, 0, 0, 0, last] => last.to_be_bytes(),
            _ => return None,
        },
    };
    Some(MacAddr([2, 0, 0, high, 1, low])).filter(|_| low > 1)
}

/// The real server of an Ethernet address, in the family of `like`.
#[must_use]
pub fn server_of(mac: MacAddr, like: IpAddr) -> Option<IpAddr> {
    let MacAddr([2, 0, 0, high, 1, low]) = mac else { return None };
    let last = u16::from_be_bytes([high, low]);
    Some(match like {
        IpAddr::V4(_) => Ipv4Addr::new(10, 1, 0, low).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last).into(),
    })
}

/// Whether an address is the director's, its own or a local one.
#[must_use]
pub fn is_local(address: IpAddr) -> bool {
    let local = LOCAL.iter().filter_map(|network| network.parse::<ipnet::IpNet>().ok());
    OWN.contains(&address) || local.into_iter().any(|network| network.contains(&address))
}

/// The stage's configuration, as an operator would write it.
fn configuration(mtu_servers: u16, marks: &str) -> String {
    let mut text = format!("local = {LOCAL:?}\nannounce = false\n");
    text.push_str("workers = { huge_pages = false }\n");
    text.push_str("tables = { conns = 4096, conns6 = 4096, services = 256, dests = 4096 }\n");
    for (name, mac, mtu, addresses) in [
        ("dc", CLIENT_SIDE_MAC, 1500, ["10.0.0.1/24", "fd00::1/64"]),
        ("dr", SERVERS_SIDE_MAC, mtu_servers, ["10.1.0.1/24", "fd00:1::1/64"]),
    ] {
        // RFC 8200 section 5: a narrower link does not carry IPv6.
        let addresses = if mtu < 1280 { &addresses[..1] } else { &addresses[..] };
        let _always = write!(
            text,
            "[[link]]\nname = \"{name}\"\nkind = \"pcap\"\nwrite = \"{name}.pcap\"\n\
             mac = \"{mac}\"\nmtu = {mtu}\naddresses = {addresses:?}\n"
        );
    }
    for (to, via) in [("0.0.0.0/0", "10.0.0.254"), ("::/0", "fd00::fe")] {
        let _always = write!(text, "[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n");
        neighbor(&mut text, "dc", &via, GATEWAY_MAC);
    }
    for last in 2..=254 {
        let servers: [IpAddr; 2] = [
            Ipv4Addr::new(10, 1, 0, last).into(),
            Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()).into(),
        ];
        for server in servers.into_iter().filter(|it| it.is_ipv4() || mtu_servers >= 1280) {
            neighbor(&mut text, "dr", &server, server_mac(server).unwrap_or_default());
        }
    }
    text.push_str(marks);
    text
}

fn neighbor(text: &mut String, link: &str, address: &dyn core::fmt::Display, mac: MacAddr) {
    let _always =
        write!(text, "[[neighbor]]\nlink = \"{link}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n");
}

fn parse(mtu_servers: u16, marks: &str) -> Result<Config, String> {
    let text = configuration(mtu_servers, marks);
    let parsed = Config::parse(Path::new("stage.toml"), &text, &Machine::default());
    parsed.map_err(|error| error.message)
}

/// The recorded defaults of all sysctls of `net.ipv4.vs`.
///
/// # Errors
///
/// The project's own recording of the machine cannot be read.
pub fn sysctl_defaults() -> Result<BTreeMap<String, String>, Failure> {
    #[derive(serde::Deserialize)]
    struct Environment {
        sysctl_defaults: BTreeMap<String, String>,
    }
    let read = serde_json::from_str::<Environment>(ENVIRONMENT);
    read.map(|it| it.sysctl_defaults).map_err(|error| Failure::new(error.to_string()))
}

/// Whether rvsd's default of a sysctl is `value`; `None` if rvsd has no such sysctl.
#[must_use]
pub fn is_default(name: &str, value: &str) -> Option<bool> {
    Sysctl::of(name).map(|sysctl| sysctl.default == value)
}

/// Why something is not covered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uncovered(pub String);

/// What came of setting the stage.
pub enum Set {
    /// The stage as the recording wants it.
    Up(Box<Scene>),
    /// It wants what this version does not have.
    Beyond(Uncovered),
}

/// The stage of one recording.
pub struct Scene {
    /// The director.
    pub bench: Bench,
}

impl Scene {
    /// Sets the stage up for `golden`: sysctls, then commands.
    ///
    /// # Errors
    ///
    /// The stage itself cannot be had, or a command that the kernel took was refused with an error
    /// of the kernel's.
    pub fn set(golden: &Golden) -> Result<Set, Failure> {
        let mtu_servers = golden.field("mtu_rs_link").unwrap_or(1500);
        let marks: Vec<Mark> = golden.field("marks").unwrap_or_default();
        let marks = match marks::entries(&marks) {
            Ok(marks) => marks,
            Err(what) => return Ok(Set::Beyond(Uncovered(what))),
        };
        let config = parse(mtu_servers, &marks).map_err(Failure::new)?;
        let mut scene = Box::new(Self { bench: Bench::new(&config)? });
        for (name, value) in golden.sysctl.iter().flatten() {
            let uncovered = scene.sysctl(name, value);
            if let Some(uncovered) = uncovered.filter(|_| !is_about_others(golden, name)) {
                return Ok(Set::Beyond(uncovered));
            }
        }
        for line in golden.setup() {
            if let Some(uncovered) = scene.is_beyond(line) {
                return Ok(Set::Beyond(uncovered));
            }
            let ran = scene.ipvsadm(line);
            if let Some(uncovered) = refused(&ran) {
                return Ok(Set::Beyond(uncovered));
            }
            if ran.status != 0 {
                let Ran { status, stderr, .. } = ran;
                let stderr = stderr.trim();
                return Err(Failure::new(format!("setup: {line}: status {status}: {stderr}")));
            }
        }
        Ok(Set::Up(scene))
    }

    /// Carries out a command line, without the program's name.
    pub fn ipvsadm(&mut self, line: &str) -> Ran {
        self.bench.stage.ipvsadm(line, "", &NumbersOnly)
    }

    /// Changes a sysctl; says why not if rvsd does not do what it asks for.
    pub fn sysctl(&mut self, name: &str, value: &Value) -> Option<Uncovered> {
        let value = plain(value);
        let beyond = |why: &str| Some(Uncovered(format!("sysctl {name}={value}: {why}")));
        match self.bench.stage.set_tunable(name, &value) {
            Ok(set) if set.has_effect || set.value == set.default => None,
            Ok(set) => beyond(&set.sentence),
            Err(refusal) => beyond(&refusal.to_string()),
        }
    }

    /// What a command line asks for that the engine does not have, though it does not refuse it.
    #[must_use]
    pub fn is_beyond(&self, line: &str) -> Option<Uncovered> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |names: &[&str]| {
            let place = words.iter().position(|word| names.contains(word))?;
            words.get(place + 1).copied()
        };
        if let Some(name) = value(&["-s", "--scheduler"])
            && name.parse::<rvs_model::SchedulerKind>().is_err()
            && KERNEL_SCHEDULERS.contains(&name)
        {
            return Some(Uncovered(format!("scheduler {name}")));
        }
        if let Some(address) = value(&["-r", "--real-server"]).and_then(address_of)
            && (is_local(address) || address.is_loopback())
        {
            return Some(Uncovered("a real server that is the director itself".to_owned()));
        }
        None
    }

    /// Gives the director a packet of a client.
    ///
    /// # Errors
    ///
    /// As [`Bench::give`].
    pub fn from_client(&mut self, packet: &[u8]) -> Result<Vec<Sent>, Failure> {
        let frame = packet::frame(CLIENT_SIDE_MAC, GATEWAY_MAC, packet);
        self.bench.give(Side::Client, &frame)
    }

    /// Gives the director a packet from the servers' side.
    ///
    /// # Errors
    ///
    /// As [`Bench::give`].
    pub fn from_server(&mut self, packet: &[u8]) -> Result<Vec<Sent>, Failure> {
        let server = packet::look(packet).and_then(|look| server_mac(look.source));
        // Somebody behind a router there.
        let router = MacAddr([2, 0, 0, 0, 1, 2]);
        let frame = packet::frame(SERVERS_SIDE_MAC, server.unwrap_or(router), packet);
        self.bench.give(Side::Servers, &frame)
    }

    /// Lets `ticks` pass.
    pub fn pass(&mut self, ticks: Tick) {
        for _ in 0..ticks {
            self.bench.stage.pass_tick();
        }
    }

    /// Lets time pass up to `t` seconds, as the recorder counted them.
    pub fn pass_until(&mut self, t: f64) {
        let target = whole_ticks(t);
        self.pass(target.saturating_sub(self.bench.stage.now()));
    }
}

/// Whether a sysctl that means nothing here changes no packet and no connection of a recording: what
/// IPVS tells netfilter is for a firewall's rules (Linux 6.1 `ip_vs_nfct.c`), and for the reuse of
/// ports, which `packets/` is not about.
fn is_about_others(golden: &Golden, sysctl: &str) -> bool {
    sysctl == "conntrack" && golden.category == "packets"
}

/// Seconds in whole ticks.
#[must_use]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes an integer in no other way; it saturates"
)]
pub fn whole_ticks(seconds: f64) -> Tick {
    (seconds * f64::from(TICKS_PER_SECOND)) as Tick
}

/// The schedulers of the recorded kernel.
const KERNEL_SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "sed", "nq", "lblc", "lblcr", "sh", "dh", "fo", "ovf", "mh", "twos"];

/// The address in `10.1.0.2:80`, `[fd00:1::2]:80`, or without a port.
fn address_of(server: &str) -> Option<IpAddr> {
    let socket = server.parse::<core::net::SocketAddr>().map(|socket| socket.ip());
    socket.ok().or_else(|| server.trim_matches(['[', ']']).parse().ok())
}

/// What rvsd said that it does not do yet, if that is why a command failed.
#[must_use]
pub fn refused(ran: &Ran) -> Option<Uncovered> {
    let said = ran.stderr.trim();
    let what = said.strip_prefix("rvsd: ")?.strip_suffix(" are not supported yet")?;
    Some(Uncovered(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_a_configuration_that_rvsd_takes() {
        let config = parse(1400, "").unwrap();
        let [dc, dr] = config.network.interfaces() else { panic!("two links") };
        assert_eq!((dc.mtu, dr.mtu), (1500, 1400));
        let narrow = parse(576, "").unwrap();
        assert_eq!(narrow.network.interfaces()[1].addresses.len(), 1);
    }

    #[test]
    fn a_real_server_is_known_by_its_ethernet_address() {
        for text in ["10.1.0.2", "10.1.0.250", "fd00:1::2", "fd00:1::10"] {
            let server = text.parse().unwrap();
            assert_eq!(server_of(server_mac(server).unwrap(), server), Some(server));
        }
        assert_eq!(server_mac("10.1.0.1".parse().unwrap()), None, "the director's own");
        assert_eq!(server_of(GATEWAY_MAC, IpAddr::from([0; 4])), None);
    }

    #[test]
    fn every_recorded_sysctl_is_known_with_its_default() {
        for (name, value) in sysctl_defaults().unwrap() {
            assert_eq!(is_default(&name, &value), Some(true), "{name}");
        }
    }
}
