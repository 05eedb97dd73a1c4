//! Names of hosts and services, for who does not say `-n`.

use core::net::{IpAddr, Ipv4Addr};
use rvs_model::Protocol;
use std::cell::OnceCell;

/// What names mean. Each method answers `None` when there is no such name.
pub trait Names {
    /// The first IPv4 address of a host: gethostbyname(3).
    fn address(&self, host: &str) -> Option<Ipv4Addr>;
    /// The host of an address: gethostbyaddr(3).
    fn host(&self, address: IpAddr) -> Option<String>;
    /// The port of a service: getservbyname(3).
    fn port(&self, service: &str, protocol: Protocol) -> Option<u16>;
    /// The service of a port: getservbyport(3).
    fn service(&self, port: u16, protocol: Protocol) -> Option<String>;
}

/// No host and no service has a name: for who decides by numbers alone.
#[derive(Clone, Copy, Debug)]
pub struct NumbersOnly;

impl Names for NumbersOnly {
    fn address(&self, _: &str) -> Option<Ipv4Addr> {
        None
    }
    fn host(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn port(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
    fn service(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

/// Where services are named.
const SERVICES_FILE: &str = "/etc/services";

/// The system's resolver for hosts, and services(5), which is read once when it is first needed.
#[derive(Debug, Default)]
pub struct SystemNames {
    services: OnceCell<Services>,
}

impl SystemNames {
    fn services(&self) -> &Services {
        self.services.get_or_init(|| {
            Services::read(&std::fs::read_to_string(SERVICES_FILE).unwrap_or_default())
        })
    }
}

impl Names for SystemNames {
    fn address(&self, host: &str) -> Option<Ipv4Addr> {
        dns_lookup::lookup_host(host).ok()?.find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        dns_lookup::lookup_addr(&address).ok()
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        self.services().port(service, protocol)
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        self.services().name(port, protocol).map(str::to_owned)
    }
}

/// The lines of services(5), in their order.
#[derive(Debug)]
struct Services(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// The official name, then aliases.
    names: Vec<String>,
    port: u16,
    protocol: Protocol,
}

impl Services {
    /// Lines that are not understood are left out.
    fn read(text: &str) -> Self {
        Self(text.lines().filter_map(Entry::read).collect())
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut entries = self.0.iter().filter(|entry| entry.protocol == protocol);
        let entry = entries.find(|entry| entry.names.iter().any(|other| other == name))?;
        Some(entry.port)
    }

    fn name(&self, port: u16, protocol: Protocol) -> Option<&str> {
        let mut entries = self.0.iter();
        let entry = entries.find(|entry| (entry.port, entry.protocol) == (port, protocol))?;
        entry.names.first().map(String::as_str)
    }
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let (line, _) = line.split_once('#').unwrap_or((line, ""));
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        let names = core::iter::once(name).chain(words).map(str::to_owned).collect();
        Some(Self { names, port: port.parse().ok()?, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_alias_and_port() {
        let services = Services::read(
            "# a comment\n\nhttp\t80/tcp\t\twww # WorldWideWeb\ndomain 53/udp\nweb 80/tcp\nx y/tcp\n",
        );
        assert_eq!(services.port("www", Protocol::Tcp), Some(80));
        assert_eq!(services.port("www", Protocol::Udp), None);
        assert_eq!(services.name(80, Protocol::Tcp), Some("http"));
        assert_eq!(services.name(53, Protocol::Tcp), None);
        assert_eq!(services.port("x", Protocol::Tcp), None);
    }

    #[test]
    fn the_loopback_has_a_name_and_the_name_an_address() {
        let names = SystemNames::default();
        assert_eq!(names.address("localhost"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(names.host(Ipv4Addr::LOCALHOST.into()).as_deref(), Some("localhost"));
    }
}
