//! A command line as it was meant: options in the order in which they came, since a later one may
//! depend on what an earlier one said.

use crate::cli;
use crate::names::Names;
use crate::option::{Command, Opt, Options, Tag};
use crate::popt::{Found, Popt, Problem};
use crate::run::is_ipvsadm;
use crate::{rules, usage, values};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU32;
use rvs_api::{
    AddressFamily, ConnFilter, ConnState, Daemon, DaemonState, DestAttributes, FwMark, Netmask,
    ServiceAttributes, ServiceFlags, ServiceKey, TimeoutsChange, TunnelChecksum, TunnelKind,
};
use rvs_model::{ForwardMethod, Protocol, StaleUdp, State, Weight};

/// Seconds that a client is remembered when `-p` does not say.
const PERSISTENT_SECONDS: u32 = 360;

/// The longest timeout that is taken: 31 days.
const TIMEOUT_SECONDS_MAX: u32 = 86_400 * 31;

/// `INT_MAX`.
const INT_MAX: u32 = i32::MAX.unsigned_abs();

/// The longest synchronisation message: an IPv4 packet's room.
const SYNC_OCTETS_MAX: u32 = 65_535 - 20 - 8;

/// Lengths of names, less the NUL.
const INTERFACE_NAME_MAX: usize = 15;
const ENGINE_NAME_MAX: usize = 16;
const SCHEDULER_FLAGS_MAX: usize = 127;

/// Why a line is not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// The program ends with a status, after a text on stderr.
    Exit(i32, String),
    /// The program ends well, after a text on stdout.
    Tell(String),
    /// The line fails, after a text on stderr; `-R` goes on.
    GiveUp(String),
}

/// A fault of the command line: one line and status 2.
fn fault<T>(text: impl Into<String>) -> Result<T, Stop> {
    let mut text = text.into();
    text.push('\n');
    Err(Stop::Exit(2, text))
}

/// A command line, read.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) command: Command,
    pub(crate) options: Options,
    protocol: Option<Protocol>,
    /// The service's address, or the unspecified one.
    address: IpAddr,
    port: u16,
    mark: Option<NonZeroU32>,
    attributes: ServiceAttributes,
    scheduler_flags: String,
    dest: SocketAddr,
    dest_attributes: DestAttributes,
    timeouts: TimeoutsChange,
    daemon: Daemon,
    /// Which connections are listed; what the service and the server add is put in when asked for.
    filter: ConnFilter,
    /// Whether the server was said with a port.
    dest_has_port: bool,
    /// Called by ipvsadm's name: nothing is taken that it does not take.
    strictly: bool,
}

impl Line {
    /// Reads a command line and checks all that can be checked without rvsd.
    pub(crate) fn read(argv: &[&str], names: &dyn Names) -> Result<Self, Stop> {
        let program = argv.first().copied().unwrap_or_default();
        let mut popt = Popt::new(argv);
        let mut line = Self::begin(popt.next(), program)?;
        line.strictly = is_ipvsadm(program);
        let problem = loop {
            match popt.next() {
                None => break None,
                Some(Err(problem)) => break Some(problem),
                Some(Ok(found)) => line.option(found, popt.last_word(), names)?,
            }
        };
        if let Some(problem) = problem {
            return Err(Stop::GiveUp(format!("{}: {}\n", popt.last_word(), problem.text())));
        }
        line.rest(popt.arguments())?;
        line.check()?;
        Ok(line)
    }

    /// The first option says what is to be done.
    fn begin(first: Option<Result<Found<'_>, Problem>>, program: &str) -> Result<Self, Stop> {
        match first {
            Some(Ok(Found { tag: Tag::Command(command), value })) => Self::of(command, value),
            Some(Ok(Found { tag: Tag::Help, .. })) => {
                let own = if is_ipvsadm(program) { String::new() } else { cli::summary() };
                Err(Stop::Tell(usage::help(program) + &own))
            }
            Some(Ok(Found { tag: Tag::Version, .. })) => Err(Stop::Tell(usage::version())),
            _ => Err(Stop::Exit(-1, usage::try_help(program))),
        }
    }

    fn of(command: Command, value: Option<&str>) -> Result<Self, Stop> {
        let state = match (command, value) {
            (Command::StartDaemon | Command::StopDaemon, Some("backup")) => DaemonState::Backup,
            (Command::StartDaemon | Command::StopDaemon, Some("master")) => DaemonState::Master,
            (Command::StartDaemon, _) => return fault("illegal start-daemon parameter specified"),
            (Command::StopDaemon, _) => return fault("illegal start_daemon specified"),
            _ => DaemonState::Master,
        };
        Ok(Self {
            command,
            options: Options::default(),
            protocol: None,
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 0,
            mark: None,
            attributes: ServiceAttributes::new("", AddressFamily::V4),
            scheduler_flags: String::new(),
            dest: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            dest_attributes: DestAttributes::new(ForwardMethod::Direct, Weight(1)),
            timeouts: TimeoutsChange::default(),
            daemon: Daemon {
                state,
                interface: String::new(),
                sync_id: 0,
                message_octets_max: None,
                group: None,
                port: None,
                ttl: None,
            },
            filter: ConnFilter::default(),
            dest_has_port: false,
            strictly: false,
        })
    }

    /// The family of the service.
    fn family(&self) -> AddressFamily {
        match self.attributes.netmask {
            Netmask::V4(_) => AddressFamily::V4,
            Netmask::V6(_) => AddressFamily::V6,
        }
    }

    fn add(&mut self, opt: Opt) -> Result<(), Stop> {
        if self.options.insert(opt) {
            Ok(())
        } else {
            fault(format!("multiple '{opt}' options specified"))
        }
    }

    fn option(&mut self, found: Found<'_>, word: &str, names: &dyn Names) -> Result<(), Stop> {
        let value = found.value;
        match found.tag {
            Tag::Service(protocol) => self.service(protocol, value.unwrap_or_default(), names),
            Tag::Mark => self.fwmark(value.unwrap_or_default()),
            Tag::V6 => self.v6(),
            Tag::Forward(method) => {
                self.add(Opt::Forward)?;
                self.dest_attributes.method = method;
                Ok(())
            }
            Tag::Sort => Ok(()),
            Tag::Option(opt) => {
                self.add(opt)?;
                self.value(opt, value, names)
            }
            Tag::Command(_) | Tag::Help | Tag::Version => fault(format!("invalid option `{word}'")),
        }
    }

    fn service(&mut self, protocol: Protocol, text: &str, names: &dyn Names) -> Result<(), Stop> {
        self.add(Opt::Service)?;
        self.protocol = Some(protocol);
        let Some(found) = values::host_port(text, self.protocol, names) else {
            return fault("illegal virtual server address[:port] specified");
        };
        self.address = found.address;
        self.port = found.port.unwrap_or(self.port);
        if found.address.is_ipv6() {
            self.attributes.netmask = Netmask::host(AddressFamily::V6);
        }
        Ok(())
    }

    fn fwmark(&mut self, text: &str) -> Result<(), Stop> {
        self.add(Opt::Service)?;
        self.protocol = Some(Protocol::Tcp);
        self.mark = values::number(text, 1, u32::MAX).and_then(NonZeroU32::new);
        if self.mark.is_some() {
            Ok(())
        } else {
            fault(format!("invalid fwmark value `{text}' specified"))
        }
    }

    fn v6(&mut self) -> Result<(), Stop> {
        if self.mark.is_none() {
            return fault("-6 used before -f\n");
        }
        self.attributes.netmask = Netmask::host(AddressFamily::V6);
        Ok(())
    }

    fn value(&mut self, opt: Opt, value: Option<&str>, names: &dyn Names) -> Result<(), Stop> {
        let text = value.unwrap_or_default();
        let ranged = |min, max, illegal: &str| match values::number(text, min, max) {
            Some(number) => Ok(number),
            None => fault(illegal),
        };
        match opt {
            Opt::Scheduler => {
                self.attributes.scheduler = ServiceAttributes::new(text, self.family()).scheduler;
            }
            Opt::Persistent => {
                self.set_flag(ServiceFlags::PERSISTENT);
                self.attributes.timeout_s = match value {
                    Some(text) => timeout(text, 1)?,
                    None => PERSISTENT_SECONDS,
                };
            }
            Opt::Netmask => self.attributes.netmask = self.netmask(text, names)?,
            Opt::OnePacket => self.set_flag(ServiceFlags::ONE_PACKET),
            Opt::Engine => {
                self.attributes.engine =
                    Some(cut(text, ENGINE_NAME_MAX)).filter(|name| !name.is_empty());
            }
            Opt::SchedulerFlags => self.scheduler_flags = cut(text, SCHEDULER_FLAGS_MAX),
            Opt::Server => self.server(text, names)?,
            Opt::Weight => {
                self.dest_attributes.weight =
                    Weight(ranged(0, INT_MAX, "illegal weight specified")?);
            }
            Opt::UpperThreshold => {
                self.dest_attributes.upper_threshold =
                    ranged(0, INT_MAX, "illegal u_threshold specified")?;
            }
            Opt::LowerThreshold => {
                self.dest_attributes.lower_threshold =
                    ranged(0, INT_MAX, "illegal l_threshold specified")?;
            }
            Opt::TunType => self.dest_attributes.tunnel.kind = tunnel_kind(text)?,
            Opt::TunPort => {
                let port = ranged(1, 65_535, "illegal tunnel port specified")?;
                self.dest_attributes.tunnel.port = u16::try_from(port).unwrap_or_default();
            }
            Opt::TunCsum => self.dest_attributes.tunnel.checksum = TunnelChecksum::Full,
            Opt::TunRemCsum => self.dest_attributes.tunnel.checksum = TunnelChecksum::Remote,
            Opt::StaleUdp => {
                let policy = StaleUdp::ALL.into_iter().find(|policy| policy.name() == text);
                let Some(policy) = policy else {
                    return fault(format!(
                        "illegal stale-udp `{text}' specified, expected keep, rebind or expire"
                    ));
                };
                self.attributes.stale_udp = policy;
            }
            Opt::Client => self.filter.client = Some(network(text)?),
            Opt::State => self.filter.state = Some(conn_state(text)?),
            Opt::McastInterface => self.daemon.interface = cut(text, INTERFACE_NAME_MAX),
            Opt::SyncId => {
                let id = ranged(0, 255, "illegal syncid specified")?;
                self.daemon.sync_id = u8::try_from(id).unwrap_or_default();
            }
            Opt::McastGroup => self.daemon.group = Some(multicast_group(text)?),
            Opt::McastPort => {
                let port = ranged(1, 65_535, "illegal mcast-port specified")?;
                self.daemon.port = u16::try_from(port).ok();
            }
            Opt::McastTtl => {
                let ttl = ranged(1, 255, "illegal mcast-ttl specified")?;
                self.daemon.ttl = u8::try_from(ttl).ok();
            }
            Opt::SyncMaxlen => {
                let octets = ranged(1, SYNC_OCTETS_MAX, "illegal sync-maxlen specified")?;
                self.daemon.message_octets_max = u16::try_from(octets).ok();
            }
            _ => {}
        }
        Ok(())
    }

    fn set_flag(&mut self, flag: ServiceFlags) {
        self.attributes.flags = self.attributes.flags.with(flag);
    }

    fn netmask(&self, text: &str, names: &dyn Names) -> Result<Netmask, Stop> {
        match self.family() {
            AddressFamily::V4 => match values::host(text, names) {
                Some(mask) => Ok(Netmask::V4(mask)),
                None => fault("illegal virtual server persistent mask specified"),
            },
            AddressFamily::V6 => match u32::try_from(values::lenient_number(text)) {
                Ok(bits @ 1..=128) => Ok(Netmask::V6(bits)),
                _ => fault("illegal ipv6 netmask specified"),
            },
        }
    }

    /// A port that is not said is the service's, if that was said before.
    fn server(&mut self, text: &str, names: &dyn Names) -> Result<(), Stop> {
        let Some(found) = values::host_port(text, self.protocol, names) else {
            return fault("illegal real server address[:port] specified");
        };
        self.dest = SocketAddr::new(found.address, found.port.unwrap_or(self.port));
        self.dest_has_port = found.port.is_some();
        Ok(())
    }

    /// What is left once there are no options.
    fn rest(&mut self, arguments: &[&str]) -> Result<(), Stop> {
        let mut arguments = arguments.iter();
        if self.command == Command::SetTimeouts {
            let mut next = || match arguments.next() {
                Some(text) => Ok(*text),
                None => fault("--set option requires 3 timeout values"),
            };
            let (tcp, tcp_fin, udp) = (next()?, next()?, next()?);
            self.timeouts = TimeoutsChange {
                tcp_s: timeout(tcp, 0)?,
                tcp_fin_s: timeout(tcp_fin, 0)?,
                udp_s: timeout(udp, 0)?,
            };
        }
        if let Some(word) = arguments.next() {
            return fault(format!("unexpected argument {word}"));
        }
        if !self.scheduler_flags.is_empty() {
            match values::scheduler_flags(self.scheduler(), &self.scheduler_flags) {
                Ok(flags) => self.set_flag(flags),
                Err(text) => return fault(text),
            }
        }
        Ok(())
    }

    /// What cannot go together.
    fn check(&mut self) -> Result<(), Stop> {
        rules::check_command(self.command, self.options, self.strictly).or_else(fault)?;
        match self.command {
            Command::AddService | Command::EditService => self.check_service(),
            Command::AddDest | Command::EditDest => self.check_dest(),
            Command::List => self.check_list(),
            _ => Ok(()),
        }
    }

    fn check_service(&mut self) -> Result<(), Stop> {
        let flags = self.attributes.flags;
        let addressed = self.mark.is_none();
        if addressed && self.port == 0 && !flags.has(ServiceFlags::PERSISTENT) {
            return fault("Zero port specified for non-persistent service");
        }
        let udp = self.protocol == Some(Protocol::Udp);
        if addressed && flags.has(ServiceFlags::ONE_PACKET) && !udp {
            return fault("One-Packet Scheduling is only for UDP virtual services");
        }
        self.attributes.scheduler = self.scheduler().to_owned();
        Ok(())
    }

    fn check_dest(&mut self) -> Result<(), Stop> {
        let tunnelled = self.dest_attributes.method == ForwardMethod::Tunnel;
        if self.mark.is_none() && self.dest_attributes.method != ForwardMethod::Masquerade {
            self.dest.set_port(self.port);
        }
        if self.family() != AddressFamily::from(self.dest.ip()) && !tunnelled {
            return fault("Different address family is allowed only for tunneling servers");
        }
        if self.options.has_any(&rules::NEED_TUNNEL) && !tunnelled {
            return fault("Tunnel options conflict with forward method");
        }
        rules::check_tunnel(self.dest_attributes.tunnel.kind, self.options).or_else(fault)
    }

    fn check_list(&self) -> Result<(), Stop> {
        let others = [Opt::Timeout, Opt::Daemon];
        let no_services = self.options.has_any(&others) || self.options.has(Opt::Connection);
        let of_services = [Opt::Stats, Opt::Rate, Opt::Thresholds];
        if no_services && self.options.has_any(&of_services)
            || self.options.has_any(&others) && self.options.has(Opt::PersistentConn)
        {
            return fault("options conflicts in the list command");
        }
        Ok(())
    }

    /// The scheduler, `wlc` unless said.
    fn scheduler(&self) -> &str {
        let name = self.attributes.scheduler.as_str();
        if name.is_empty() { "wlc" } else { name }
    }

    /// The service that is meant.
    pub(crate) fn key(&self) -> ServiceKey {
        match self.mark {
            Some(mark) => ServiceKey::Mark { mark: FwMark(mark), family: self.family() },
            None => ServiceKey::Address {
                protocol: self.protocol.unwrap_or(Protocol::Tcp),
                address: SocketAddr::new(self.address, self.port),
            },
        }
    }

    /// The service that `-Z` means; all of them when its address and port are zero, too.
    pub(crate) fn key_if_any(&self) -> Option<ServiceKey> {
        let any = self.mark.is_none() && self.address.is_unspecified() && self.port == 0;
        (!any).then(|| self.key())
    }

    /// Which connections are to be listed.
    pub(crate) fn conn_filter(&self) -> ConnFilter {
        let port = self.dest_has_port.then(|| self.dest.port());
        ConnFilter {
            service: self.options.has(Opt::Service).then(|| self.key()),
            dest: self.options.has(Opt::Server).then(|| (self.dest.ip(), port)),
            ..self.filter.clone()
        }
    }

    pub(crate) fn service_attributes(&self) -> ServiceAttributes {
        self.attributes.clone()
    }

    pub(crate) fn dest(&self) -> SocketAddr {
        self.dest
    }

    pub(crate) fn dest_attributes(&self) -> DestAttributes {
        self.dest_attributes
    }

    pub(crate) fn timeouts(&self) -> TimeoutsChange {
        self.timeouts
    }

    /// The daemon, on `eth0` unless said.
    pub(crate) fn daemon(&self) -> Daemon {
        let mut daemon = self.daemon.clone();
        if daemon.interface.is_empty() {
            "eth0".clone_into(&mut daemon.interface);
        }
        daemon
    }
}

fn timeout(text: &str, min: u32) -> Result<u32, Stop> {
    match values::number(text, min, TIMEOUT_SECONDS_MAX) {
        Some(seconds) => Ok(seconds),
        None => fault(format!("invalid timeout value `{text}' specified")),
    }
}

fn tunnel_kind(text: &str) -> Result<TunnelKind, Stop> {
    let kinds = [TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre];
    match kinds.into_iter().find(|kind| kind.name() == text) {
        Some(kind) => Ok(kind),
        None => fault("illegal tunnel type specified"),
    }
}

fn multicast_group(text: &str) -> Result<IpAddr, Stop> {
    let (version, group) = if text.contains(':') {
        ("IPv6", text.parse().ok().map(IpAddr::V6))
    } else {
        ("IPv4", text.parse().ok().map(IpAddr::V4))
    };
    match group.filter(IpAddr::is_multicast) {
        Some(group) => Ok(group),
        None => fault(format!("invalid {version} mcast-group `{text}'")),
    }
}

/// `10.0.0.0/8`, `fd00::/8`, or an address alone.
fn network(text: &str) -> Result<(IpAddr, u8), Stop> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(it, bits)| (it, Some(bits)));
    let address = address.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let read = address.and_then(|address| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| values::number(bits, 0, most))?;
        Some((address, u8::try_from(bits).ok()?))
    });
    match read {
        Some(network) => Ok(network),
        None => fault(format!("illegal client network `{text}', expected ADDRESS[/BITS]")),
    }
}

/// A state by the name that `-Lc` prints, in letters of any size.
fn conn_state(text: &str) -> Result<String, Stop> {
    let templates = [true, false].map(|assured| ConnState::Template { assured });
    let all = State::ALL.map(ConnState::Conn).into_iter().chain(templates);
    let mut names: Vec<&str> = all.map(ConnState::name).collect();
    names.sort_unstable();
    names.dedup();
    match names.iter().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) => Ok((*name).to_owned()),
        None => fault(format!("no state `{text}', expected one of {}", names.join(", "))),
    }
}

/// The first `octets` octets of a name.
fn cut(text: &str, octets: usize) -> String {
    text.get(..text.floor_char_boundary(octets)).unwrap_or_default().to_owned()
}
