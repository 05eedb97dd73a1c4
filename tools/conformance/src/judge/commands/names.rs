//! Names as the recorded machine resolved them.

use core::net::{IpAddr, Ipv4Addr};
use rvs_adm::{Names, SystemNames};
use rvs_model::Protocol;

/// Hosts of the recording's /etc/hosts and nobody else; services(5) of Debian 12 for the ports that
/// recordings name, of this machine for others.
#[derive(Debug, Default)]
pub(super) struct RecordedNames {
    file: String,
    hosts: Vec<(IpAddr, String)>,
    system: SystemNames,
}

/// Debian 12, netbase 6.4.
const SERVICES: [(u16, Protocol, &str); 15] = [
    (20, Protocol::Tcp, "ftp-data"),
    (21, Protocol::Tcp, "ftp"),
    (22, Protocol::Tcp, "ssh"),
    (25, Protocol::Tcp, "smtp"),
    (53, Protocol::Tcp, "domain"),
    (53, Protocol::Udp, "domain"),
    (80, Protocol::Tcp, "http"),
    (143, Protocol::Tcp, "imap2"),
    (389, Protocol::Tcp, "ldap"),
    (443, Protocol::Tcp, "https"),
    (3306, Protocol::Tcp, "mysql"),
    (5060, Protocol::Udp, "sip"),
    (7000, Protocol::Tcp, "bbs"),
    (7100, Protocol::Tcp, "font-service"),
    (8080, Protocol::Tcp, "http-alt"),
];

impl RecordedNames {
    /// With the hosts of a hosts(5) file.
    pub(super) fn new(hosts: &str) -> Self {
        let lines = hosts.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
        });
        Self { file: hosts.to_owned(), hosts: lines.collect(), system: SystemNames::default() }
    }
}

impl RecordedNames {
    /// As hosts(5).
    pub(super) fn hosts_file(&self) -> &str {
        &self.file
    }

    /// As services(5).
    pub(super) fn services_file() -> String {
        let line = |(port, protocol, name): (u16, Protocol, &str)| {
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            format!("{name} {port}/{protocol}\n")
        };
        SERVICES.map(line).concat()
    }
}

impl Names for RecordedNames {
    fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.hosts.iter().filter(|(_, name)| name == host).find_map(|(address, _)| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        let found = self.hosts.iter().find(|(other, _)| *other == address);
        found.map(|(_, name)| name.clone())
    }

    fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
        let known = SERVICES.iter().find(|(_, p, name)| (*p, *name) == (protocol, service));
        known.map(|(port, ..)| *port).or_else(|| self.system.port(service, protocol))
    }

    fn service(&self, port: u16, protocol: Protocol) -> Option<String> {
        let known = SERVICES.iter().find(|(other, p, _)| (*other, *p) == (port, protocol));
        known.map_or_else(|| self.system.service(port, protocol), |(.., name)| Some((*name).into()))
    }
}
