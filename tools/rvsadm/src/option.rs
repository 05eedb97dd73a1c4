//! The commands and options there are.

use core::fmt;

/// What is to be done. Each line has exactly one, and it comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Command {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Flush,
    /// `-L`, `-l`
    List,
    /// `-a`
    AddDest,
    /// `-d`
    DeleteDest,
    /// `-e`
    EditDest,
    /// `--set`
    SetTimeouts,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-R`
    Restore,
    /// `-S`
    Save,
    /// `-Z`
    Zero,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::List => "list",
            Self::AddDest => "add-server",
            Self::DeleteDest => "delete-server",
            Self::EditDest => "edit-server",
            Self::SetTimeouts => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::Zero => "zero",
        })
    }
}

/// What is said besides the command, in the order in which it is checked; ipvsadm(8) says what each
/// means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
    StaleUdp,
    Client,
    State,
}

impl Opt {
    /// All of them.
    pub(crate) const ALL: [Self; 37] = [
        Self::Numeric,
        Self::Connection,
        Self::Service,
        Self::Scheduler,
        Self::Persistent,
        Self::Netmask,
        Self::Server,
        Self::Forward,
        Self::Weight,
        Self::UpperThreshold,
        Self::LowerThreshold,
        Self::McastInterface,
        Self::Timeout,
        Self::Daemon,
        Self::Stats,
        Self::Rate,
        Self::Thresholds,
        Self::PersistentConn,
        Self::NoSort,
        Self::SyncId,
        Self::Exact,
        Self::OnePacket,
        Self::Engine,
        Self::SchedulerFlags,
        Self::McastGroup,
        Self::McastPort,
        Self::McastTtl,
        Self::SyncMaxlen,
        Self::TunInfo,
        Self::TunType,
        Self::TunPort,
        Self::TunNoCsum,
        Self::TunCsum,
        Self::TunRemCsum,
        Self::StaleUdp,
        Self::Client,
        Self::State,
    ];
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Numeric => "numeric",
            Self::Connection => "connection",
            Self::Service => "service-address",
            Self::Scheduler => "scheduler",
            Self::Persistent => "persistent",
            Self::Netmask => "netmask",
            Self::Server => "real-server",
            Self::Forward => "forwarding-method",
            Self::Weight => "weight",
            Self::UpperThreshold => "u-threshold",
            Self::LowerThreshold => "l-threshold",
            Self::McastInterface => "mcast-interface",
            Self::Timeout => "timeout",
            Self::Daemon => "daemon",
            Self::Stats => "stats",
            Self::Rate => "rate",
            Self::Thresholds => "thresholds",
            Self::PersistentConn => "persistent-conn",
            Self::NoSort => "nosort",
            Self::SyncId => "syncid",
            Self::Exact => "exact",
            Self::OnePacket => "ops",
            Self::Engine => "pe",
            Self::SchedulerFlags => "sched-flags",
            Self::McastGroup => "mcast-group",
            Self::McastPort => "mcast-port",
            Self::McastTtl => "mcast-ttl",
            Self::SyncMaxlen => "sync-maxlen",
            Self::TunInfo => "tun-info",
            Self::TunType => "tun-type",
            Self::TunPort => "tun-port",
            Self::TunNoCsum => "tun-nocsum",
            Self::TunCsum => "tun-csum",
            Self::TunRemCsum => "tun-remcsum",
            Self::StaleUdp => "stale-udp",
            Self::Client => "client",
            Self::State => "state",
        })
    }
}

/// The options of a line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Options(u64);

impl Options {
    const fn bit(opt: Opt) -> u64 {
        #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
        let place = opt as u32;
        1 << place
    }

    /// Adds `opt`, or says that it is there already.
    pub(crate) fn insert(&mut self, opt: Opt) -> bool {
        let fresh = !self.has(opt);
        self.0 |= Self::bit(opt);
        fresh
    }

    pub(crate) const fn has(self, opt: Opt) -> bool {
        self.0 & Self::bit(opt) != 0
    }

    pub(crate) fn has_any(self, opts: &[Opt]) -> bool {
        opts.iter().any(|opt| self.has(*opt))
    }
}

/// What a word of the command line stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tag {
    Command(Command),
    Help,
    Version,
    /// An option whose word says all, or whose value is read by it.
    Option(Opt),
    /// `-t`, `-u`, `--sctp-service`.
    Service(rvs_model::Protocol),
    /// `-f`.
    Mark,
    /// `-6`.
    V6,
    /// `-g`, `-i`, `-m`.
    Forward(rvs_model::ForwardMethod),
    /// `--sort`.
    Sort,
}

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takes {
    Nothing,
    Argument,
    MaybeArgument,
}

/// One option as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    pub(crate) tag: Tag,
}

const fn command(long: &'static str, short: char, command: Command) -> Written {
    Written { long, short: Some(short), takes: Takes::Nothing, tag: Tag::Command(command) }
}

const fn flag(long: &'static str, short: Option<char>, tag: Tag) -> Written {
    Written { long, short, takes: Takes::Nothing, tag }
}

const fn value(long: &'static str, short: Option<char>, tag: Tag) -> Written {
    Written { long, short, takes: Takes::Argument, tag }
}

const fn option(opt: Opt) -> Tag {
    Tag::Option(opt)
}

/// All of them. The first with a name or letter is meant.
pub(crate) const OPTIONS: &[Written] = {
    use rvs_model::ForwardMethod::{Direct, Masquerade, Tunnel};
    use rvs_model::Protocol::{Sctp, Tcp, Udp};
    &[
        command("add-service", 'A', Command::AddService),
        command("edit-service", 'E', Command::EditService),
        command("delete-service", 'D', Command::DeleteService),
        command("clear", 'C', Command::Flush),
        command("list", 'L', Command::List),
        command("list", 'l', Command::List),
        command("zero", 'Z', Command::Zero),
        command("add-server", 'a', Command::AddDest),
        command("edit-server", 'e', Command::EditDest),
        command("delete-server", 'd', Command::DeleteDest),
        flag("set", None, Tag::Command(Command::SetTimeouts)),
        flag("help", Some('h'), Tag::Help),
        flag("version", Some('v'), Tag::Version),
        command("restore", 'R', Command::Restore),
        command("save", 'S', Command::Save),
        value("start-daemon", None, Tag::Command(Command::StartDaemon)),
        value("stop-daemon", None, Tag::Command(Command::StopDaemon)),
        value("tcp-service", Some('t'), Tag::Service(Tcp)),
        value("udp-service", Some('u'), Tag::Service(Udp)),
        value("sctp-service", None, Tag::Service(Sctp)),
        value("fwmark-service", Some('f'), Tag::Mark),
        value("scheduler", Some('s'), option(Opt::Scheduler)),
        Written {
            long: "persistent",
            short: Some('p'),
            takes: Takes::MaybeArgument,
            tag: option(Opt::Persistent),
        },
        value("netmask", Some('M'), option(Opt::Netmask)),
        value("real-server", Some('r'), option(Opt::Server)),
        flag("masquerading", Some('m'), Tag::Forward(Masquerade)),
        flag("ipip", Some('i'), Tag::Forward(Tunnel)),
        flag("gatewaying", Some('g'), Tag::Forward(Direct)),
        value("weight", Some('w'), option(Opt::Weight)),
        value("u-threshold", Some('x'), option(Opt::UpperThreshold)),
        value("l-threshold", Some('y'), option(Opt::LowerThreshold)),
        flag("numeric", Some('n'), option(Opt::Numeric)),
        flag("connection", Some('c'), option(Opt::Connection)),
        value("mcast-interface", None, option(Opt::McastInterface)),
        value("syncid", None, option(Opt::SyncId)),
        flag("timeout", None, option(Opt::Timeout)),
        flag("daemon", None, option(Opt::Daemon)),
        flag("stats", None, option(Opt::Stats)),
        flag("rate", None, option(Opt::Rate)),
        flag("thresholds", None, option(Opt::Thresholds)),
        flag("persistent-conn", None, option(Opt::PersistentConn)),
        flag("nosort", None, option(Opt::NoSort)),
        flag("sort", None, Tag::Sort),
        flag("exact", Some('X'), option(Opt::Exact)),
        flag("ipv6", Some('6'), Tag::V6),
        flag("ops", Some('o'), option(Opt::OnePacket)),
        value("pe", None, option(Opt::Engine)),
        value("sched-flags", Some('b'), option(Opt::SchedulerFlags)),
        value("mcast-group", None, option(Opt::McastGroup)),
        value("mcast-port", None, option(Opt::McastPort)),
        value("mcast-ttl", None, option(Opt::McastTtl)),
        value("sync-maxlen", None, option(Opt::SyncMaxlen)),
        flag("tun-info", None, option(Opt::TunInfo)),
        value("tun-type", None, option(Opt::TunType)),
        value("tun-port", None, option(Opt::TunPort)),
        flag("tun-nocsum", None, option(Opt::TunNoCsum)),
        flag("tun-csum", None, option(Opt::TunCsum)),
        flag("tun-remcsum", None, option(Opt::TunRemCsum)),
        // Not ipvsadm's.
        value("stale-udp", None, option(Opt::StaleUdp)),
        value("client", None, option(Opt::Client)),
        value("state", None, option(Opt::State)),
    ]
};
