//! Listings, as ipvsadm formats them.
//!
//! ```text
//!  TCP  vip:80 wlc persistent 300        service rows; cut to 33 columns unless IPv6
//!    -> dest:80              Masq    1   destination rows; the name cut to 28 columns unless IPv6
//! ```

use crate::names::Names;
use crate::option::{Opt, Options};
use crate::sort;
use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rvs_api::{
    AddressFamily, ConnEntry, Daemon, DaemonState, DestEntry, Info, Netmask, ServiceAttributes,
    ServiceEntry, ServiceFlags, ServiceKey, TimeoutsChange, TunnelChecksum, TunnelKind,
};
use rvs_model::{ForwardMethod, Protocol, StaleUdp};

/// Columns of a service's name.
const SERVICE_COLUMNS: usize = 33;

/// Columns of a destination's name.
const DEST_COLUMNS: usize = 28;

/// The longest `host:port`, in octets.
const SOCKET_OCTETS_MAX: usize = 59;

/// Prints what was asked for.
pub(crate) struct Printer<'a> {
    options: Options,
    /// `-S`: lines that `-R` reads.
    as_rules: bool,
    names: &'a dyn Names,
    text: String,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(options: Options, as_rules: bool, names: &'a dyn Names) -> Self {
        Self { options, as_rules, names, text: String::new() }
    }

    /// All that was printed.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// The first line of a listing of everything.
    pub(crate) fn header(&mut self, info: &Info) {
        let Info { version: (major, minor, patch), size } = info;
        self.line(format_args!("IP Virtual Server version {major}.{minor}.{patch} (size={size})"));
    }

    /// The headings, then the services with their destinations.
    pub(crate) fn services(&mut self, entries: &[ServiceEntry]) {
        self.title();
        let sorted =
            if self.has(Opt::NoSort) { entries.iter().collect() } else { sort::services(entries) };
        for entry in sorted {
            self.service(entry);
            let dests = if self.has(Opt::NoSort) {
                entry.dests.iter().collect()
            } else {
                sort::dests(&entry.dests)
            };
            for dest in dests {
                self.dest(entry, dest);
            }
        }
    }

    /// `-L --timeout`.
    pub(crate) fn timeouts(&mut self, timeouts: TimeoutsChange) {
        let TimeoutsChange { tcp_s, tcp_fin_s, udp_s } = timeouts;
        self.line(format_args!("Timeout (tcp tcpfin udp): {tcp_s} {tcp_fin_s} {udp_s}"));
    }

    /// `-L --daemon`.
    pub(crate) fn daemons(&mut self, daemons: &[Daemon]) {
        for daemon in daemons {
            let state = match daemon.state {
                DaemonState::Master => "master",
                DaemonState::Backup => "backup",
            };
            let Daemon { interface, sync_id, .. } = daemon;
            self.write(format_args!("{state} sync daemon (mcast={interface}, syncid={sync_id}"));
            if let Some(octets) = daemon.message_octets_max {
                self.write(format_args!(", maxlen={octets}"));
            }
            if let Some(group) = daemon.group {
                self.write(format_args!(", group={group}"));
            }
            if let Some(port) = daemon.port {
                self.write(format_args!(", port={port}"));
            }
            if let Some(ttl) = daemon.ttl {
                self.write(format_args!(", ttl={ttl}"));
            }
            self.line(format_args!(")"));
        }
    }

    /// `-Lc`.
    pub(crate) fn conns(&mut self, entries: &[ConnEntry]) {
        let with_engine = self.has(Opt::PersistentConn);
        self.line(format_args!("IPVS connection entries"));
        let (state, source, vip, dest) = ("state", "source", "virtual", "destination");
        if with_engine {
            let (name, data) = ("pe name", "pe_data");
            self.line(format_args!(
                "pro expire {state:<11} {source:<18} {vip:<18} {dest:<18} {name:<16} {data}"
            ));
        } else {
            self.line(format_args!("pro expire {state:<11} {source:<18} {vip:<18} {dest}"));
        }
        for entry in entries {
            let protocol = entry.protocol.map_or("IP", protocol_name);
            let expire = format!("{:02}:{:02}", entry.expires_s / 60, entry.expires_s % 60);
            let state = entry.state.name();
            let client = self.socket(entry.client, entry.protocol);
            let vip = self.socket(entry.vip, entry.protocol);
            let dest = self.socket(entry.dest, entry.protocol);
            self.write(format_args!(
                "{protocol:<3} {expire:<6} {state:<11} {client:<18} {vip:<18} "
            ));
            match entry.engine.as_ref().filter(|_| with_engine) {
                Some(engine) => {
                    let (name, data) = (&engine.name, &engine.data);
                    self.line(format_args!("{dest:<16} {name:<18} {data}"));
                }
                None => self.line(format_args!("{dest}")),
            }
        }
    }

    fn title(&mut self) {
        let local = "Prot LocalAddress:Port";
        let remote = "  -> RemoteAddress:Port";
        if self.has(Opt::Stats) || self.has(Opt::Rate) {
            let [a, b, c, d, e] = if self.has(Opt::Stats) {
                ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]
            } else {
                ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]
            };
            self.line(format_args!("{local:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n{remote}"));
        } else if self.has(Opt::Thresholds) {
            let [a, b, c, d] = ["Uthreshold", "Lthreshold", "ActiveConn", "InActConn"];
            self.line(format_args!("{local:<33} {a:<10} {b:<10} {c:<10} {d:<10}\n{remote}"));
        } else if self.has(Opt::PersistentConn) {
            let [a, b, c, d] = ["Weight", "PersistConn", "ActiveConn", "InActConn"];
            self.line(format_args!("{local:<33} {a:<9} {b:<11} {c:<10} {d:<10}\n{remote}"));
        } else if !self.as_rules {
            let tunnel = if self.has(Opt::TunInfo) { "TunnelInfo    " } else { "" };
            self.line(format_args!(
                "{local} Scheduler Flags\n\
                 {remote}           Forward {tunnel}Weight ActiveConn InActConn"
            ));
        }
    }

    fn service(&mut self, entry: &ServiceEntry) {
        let name = self.service_name(&entry.service);
        let attributes = &entry.attributes;
        if self.as_rules {
            self.write(format_args!("-A {name} -s {}", attributes.scheduler));
            self.service_rule(attributes);
        } else if self.has(Opt::Stats) || self.has(Opt::Rate) {
            self.write(format_args!("{name:<SERVICE_COLUMNS$}"));
            let columns =
                if self.has(Opt::Stats) { entry.totals.columns() } else { entry.rates.columns() };
            for number in columns {
                self.large(number);
            }
        } else {
            self.write(format_args!("{name} {}", attributes.scheduler));
            self.service_flags(attributes);
        }
        self.line(format_args!(""));
    }

    fn service_rule(&mut self, attributes: &ServiceAttributes) {
        if attributes.flags.has(ServiceFlags::PERSISTENT) {
            self.write(format_args!(" -p {}", attributes.timeout_s));
            self.netmask(" -M", attributes.netmask);
        }
        if let Some(engine) = &attributes.engine {
            self.write(format_args!(" --pe {engine}"));
        }
        if attributes.flags.has(ServiceFlags::ONE_PACKET) {
            self.write(format_args!(" -o"));
        }
        if attributes.flags.has(ServiceFlags::SCHEDULER) {
            self.write(format_args!(" -b {}", scheduler_flags(attributes)));
        }
        self.stale_udp(" --stale-udp", attributes);
    }

    fn service_flags(&mut self, attributes: &ServiceAttributes) {
        if attributes.flags.has(ServiceFlags::SCHEDULER) {
            self.write(format_args!(" ({})", scheduler_flags(attributes)));
        }
        if attributes.flags.has(ServiceFlags::PERSISTENT) {
            self.write(format_args!(" persistent {}", attributes.timeout_s));
            self.netmask(" mask", attributes.netmask);
            if let Some(engine) = &attributes.engine {
                self.write(format_args!(" pe {engine}"));
            }
        }
        if attributes.flags.has(ServiceFlags::ONE_PACKET) {
            self.write(format_args!(" ops"));
        }
        self.stale_udp(" stale-udp", attributes);
    }

    /// Not ipvsadm's, so only where it is said.
    fn stale_udp(&mut self, word: &str, attributes: &ServiceAttributes) {
        if attributes.stale_udp != StaleUdp::Keep {
            self.write(format_args!("{word} {}", attributes.stale_udp.name()));
        }
    }

    fn netmask(&mut self, word: &str, netmask: Netmask) {
        match netmask {
            host if host.is_host() => {}
            Netmask::V4(mask) => self.write(format_args!("{word} {mask}")),
            Netmask::V6(bits) => self.write(format_args!("{word} {bits}")),
        }
    }

    fn dest(&mut self, service: &ServiceEntry, entry: &DestEntry) {
        let protocol = protocol_of(&service.service);
        let mut name = self.socket(entry.dest, protocol);
        let attributes = &entry.attributes;
        let weight = attributes.weight.0;
        if self.as_rules {
            let service = self.service_name(&service.service);
            let switch = match attributes.method {
                ForwardMethod::Masquerade => "-m",
                ForwardMethod::Tunnel => "-i",
                ForwardMethod::Direct => "-g",
            };
            self.write(format_args!("-a {service} -r {name} {switch} -w {weight}"));
            self.tunnel_rule(entry);
            return self.line(format_args!(""));
        }
        if entry.dest.is_ipv4() {
            cut(&mut name, DEST_COLUMNS);
        }
        self.write(format_args!("  -> {name:<DEST_COLUMNS$}"));
        let (active, inactive) = (entry.active, entry.inactive);
        if self.has(Opt::Stats) {
            for number in entry.totals.columns() {
                self.large(number);
            }
        } else if self.has(Opt::Rate) {
            let [conns, packets_in, packets_out, octets_in, octets_out] = entry.rates.columns();
            self.write(format_args!(" {conns:>8} {packets_in:>8} {packets_out:>8}"));
            self.large(octets_in);
            self.large(octets_out);
        } else if self.has(Opt::Thresholds) {
            let (upper, lower) = (attributes.upper_threshold, attributes.lower_threshold);
            self.write(format_args!(" {upper:<10} {lower:<10} {active:<10} {inactive:<10}"));
        } else if self.has(Opt::PersistentConn) {
            let persistent = entry.persistent;
            self.write(format_args!(" {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"));
        } else {
            let method = match attributes.method {
                ForwardMethod::Masquerade => "Masq",
                ForwardMethod::Tunnel => "Tunnel",
                ForwardMethod::Direct => "Route",
            };
            self.write(format_args!(" {method:<7}"));
            if self.has(Opt::TunInfo) {
                self.write(format_args!(" {:<13}", tunnel_info(entry)));
            }
            self.write(format_args!(" {weight:<6} {active:<10} {inactive:<10}"));
        }
        self.line(format_args!(""));
    }

    fn tunnel_rule(&mut self, entry: &DestEntry) {
        if entry.attributes.method != ForwardMethod::Tunnel {
            return;
        }
        let tunnel = entry.attributes.tunnel;
        let checksum = match tunnel.checksum {
            TunnelChecksum::None => "--tun-nocsum",
            TunnelChecksum::Full => "--tun-csum",
            TunnelChecksum::Remote => "--tun-remcsum",
        };
        let (kind, port) = (tunnel.kind, tunnel.port);
        self.write(format_args!(" --tun-type {kind}"));
        match kind {
            TunnelKind::Ipip => {}
            TunnelKind::Gue => self.write(format_args!(" --tun-port {port} {checksum}")),
            TunnelKind::Gre => self.write(format_args!(" {checksum}")),
        }
    }

    fn service_name(&self, key: &ServiceKey) -> String {
        let (protocol, address) = match key {
            ServiceKey::Mark { mark, family } => {
                // ipvsadm prints marks as signed numbers.
                let mark = mark.0.get().cast_signed();
                return match (self.as_rules, family) {
                    (true, AddressFamily::V4) => format!("-f {mark}"),
                    (true, AddressFamily::V6) => format!("-f {mark} -6"),
                    (false, AddressFamily::V4) => format!("FWM  {mark}"),
                    (false, AddressFamily::V6) => format!("FWM  {mark} IPv6"),
                };
            }
            ServiceKey::Address { protocol, address } => (*protocol, *address),
        };
        let socket = self.socket(address, Some(protocol));
        if self.as_rules {
            let switch = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            return format!("{switch} {socket}");
        }
        let mut name = format!("{:<4} {socket}", protocol_name(protocol));
        if address.is_ipv4() {
            cut(&mut name, SERVICE_COLUMNS);
        }
        name
    }

    /// `host:port`, by name unless numeric.
    fn socket(&self, address: SocketAddr, protocol: Option<Protocol>) -> String {
        let (ip, port) = (address.ip(), address.port());
        let (mut host, mut service) = (None, None);
        if !self.has(Opt::Numeric) {
            host = self.names.host(ip);
            service = protocol.and_then(|protocol| self.names.service(port, protocol));
        }
        let host = host.unwrap_or_else(|| number_of(ip));
        let service = service.unwrap_or_else(|| port.to_string());
        let mut text =
            if ip.is_ipv4() { format!("{host}:{service}") } else { format!("[{host}]:{service}") };
        cut(&mut text, SOCKET_OCTETS_MAX);
        text
    }

    /// A counter in nine columns, shortened unless it shall be exact.
    fn large(&mut self, number: u64) {
        const SHORTENED: [(u64, u64, char); 4] = [
            (100_000_000_000_000, 1_000_000_000_000, 'T'),
            (100_000_000_000, 1_000_000_000, 'G'),
            (1_000_000_000, 1_000_000, 'M'),
            (100_000_000, 1_000, 'K'),
        ];
        let found = SHORTENED.iter().find(|(from, ..)| number >= *from);
        match found.filter(|_| !self.has(Opt::Exact)) {
            Some((_, divisor, unit)) => {
                self.write(format_args!("{:>8}{unit}", number / divisor));
            }
            None => self.write(format_args!(" {number:>8}")),
        }
    }

    fn has(&self, opt: Opt) -> bool {
        self.options.has(opt)
    }

    fn write(&mut self, text: core::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.text.write_fmt(text);
    }

    fn line(&mut self, text: core::fmt::Arguments<'_>) {
        self.write(text);
        self.text.push('\n');
    }
}

/// An address as `inet_ntop(3)` of glibc writes it: like Rust, but for the deprecated IPv6 addresses
/// that hold an IPv4 one (RFC 4291 section 2.5.5.1).
fn number_of(address: IpAddr) -> String {
    if let IpAddr::V6(v6) = address
        && let [0, 0, 0, 0, 0, 0, high, _] = v6.segments()
        && high != 0
    {
        let low = Ipv4Addr::from_bits(u32::try_from(v6.to_bits()).unwrap_or_default());
        return format!("::{low}");
    }
    address.to_string()
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// Whose names for ports are printed; a mark has no protocol.
fn protocol_of(key: &ServiceKey) -> Option<Protocol> {
    match key {
        ServiceKey::Address { protocol, .. } => Some(*protocol),
        ServiceKey::Mark { .. } => None,
    }
}

/// `gue:6080:-c`, or `n/a` without a tunnel.
fn tunnel_info(entry: &DestEntry) -> String {
    if entry.attributes.method != ForwardMethod::Tunnel {
        return "n/a".to_owned();
    }
    let tunnel = entry.attributes.tunnel;
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match tunnel.kind {
        TunnelKind::Ipip => "ipip".to_owned(),
        TunnelKind::Gue => format!("gue:{}:{checksum}", tunnel.port),
        TunnelKind::Gre => format!("gre:{checksum}"),
    }
}

/// The flags that a scheduler knows, by its names for them.
fn scheduler_flags(attributes: &ServiceAttributes) -> String {
    attributes.scheduler_flags().collect::<Vec<_>>().join(",")
}

fn cut(text: &mut String, octets: usize) {
    text.truncate(text.floor_char_boundary(octets));
}
