//! Requests as `rvsadm` is told them: what logs and `apply --dry-run` show.

use crate::{
    AddressFamily, DaemonState, DestAttributes, Netmask, Request, ServiceAttributes, ServiceFlags,
    ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
};
use core::fmt::{self, Display, Formatter};
use rvs_model::{ForwardMethod, Protocol, StaleUdp};

/// The command line that asks for it, without the program's name. What a client sends need not have
/// been checked: control characters are escaped.
impl Display for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService { service, attributes } => {
                write!(f, "-A {service}{}", ServiceOptions(attributes))
            }
            Self::EditService { service, attributes } => {
                write!(f, "-E {service}{}", ServiceOptions(attributes))
            }
            Self::DeleteService { service } => write!(f, "-D {service}"),
            Self::Flush => f.write_str("-C"),
            Self::AddDest { service, dest, attributes } => {
                write!(f, "-a {service} -r {dest}{}", DestOptions(attributes))
            }
            Self::EditDest { service, dest, attributes } => {
                write!(f, "-e {service} -r {dest}{}", DestOptions(attributes))
            }
            Self::DeleteDest { service, dest } => write!(f, "-d {service} -r {dest}"),
            Self::Zero { service: None } => f.write_str("-Z"),
            Self::Zero { service: Some(service) } => write!(f, "-Z {service}"),
            Self::SetTimeouts(change) => {
                write!(f, "--set {} {} {}", change.tcp_s, change.tcp_fin_s, change.udp_s)
            }
            Self::StartDaemon(daemon) => {
                write!(f, "--start-daemon {}", end(daemon.state))?;
                write!(f, " --mcast-interface {}", daemon.interface.escape_debug())?;
                write!(f, " --syncid {}", daemon.sync_id)?;
                option(f, "--sync-maxlen", daemon.message_octets_max.as_ref())?;
                option(f, "--mcast-group", daemon.group.as_ref())?;
                option(f, "--mcast-port", daemon.port.as_ref())?;
                option(f, "--mcast-ttl", daemon.ttl.as_ref())
            }
            Self::StopDaemon(state) => write!(f, "--stop-daemon {}", end(*state)),
            Self::SetTunable { name, value } => {
                write!(f, "tunable {}={}", name.escape_debug(), value.escape_debug())
            }
            Self::ListTunables { .. } => f.write_str("tunable"),
            Self::ListServices { .. } | Self::GetInfo => f.write_str("-L"),
            Self::ListConns | Self::ListConnsWhere(_) => f.write_str("-L -c"),
            Self::KillConn { protocol, client, vip } => {
                let service = ServiceKey::Address { protocol: *protocol, address: *vip };
                write!(f, "kill {service} --client {client}")
            }
            Self::EndConns { service, dest, resets } => {
                let how = if *resets { "resets" } else { "the end" };
                write!(f, "drain {service} -r {dest}: {how}")
            }
            Self::GetTimeouts => f.write_str("-L --timeout"),
            Self::ListDaemons => f.write_str("-L --daemon"),
            Self::Together(requests) => write!(f, "apply: {} changes", requests.len()),
            Self::Apply { .. } => f.write_str("apply"),
        }
    }
}

/// What names it on a command line.
impl Display for ServiceKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol: Protocol::Tcp, address } => write!(f, "-t {address}"),
            Self::Address { protocol: Protocol::Udp, address } => write!(f, "-u {address}"),
            Self::Address { protocol: Protocol::Sctp, address } => {
                write!(f, "--sctp-service {address}")
            }
            Self::Mark { mark, family: AddressFamily::V4 } => write!(f, "-f {}", mark.0),
            Self::Mark { mark, family: AddressFamily::V6 } => write!(f, "-f {} -6", mark.0),
        }
    }
}

fn end(state: DaemonState) -> &'static str {
    match state {
        DaemonState::Master => "master",
        DaemonState::Backup => "backup",
    }
}

fn option(f: &mut Formatter<'_>, name: &str, value: Option<&impl Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {name} {value}"))
}

struct ServiceOptions<'r>(&'r ServiceAttributes);

impl Display for ServiceOptions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let it = self.0;
        write!(f, " -s {}", it.scheduler.escape_debug())?;
        if it.flags.has(ServiceFlags::PERSISTENT) {
            write!(f, " -p {}", it.timeout_s)?;
        }
        match it.netmask {
            host if host.is_host() => {}
            Netmask::V4(mask) => write!(f, " -M {mask}")?,
            Netmask::V6(bits) => write!(f, " -M {bits}")?,
        }
        option(f, "--pe", it.engine.as_ref().map(|name| name.escape_debug()).as_ref())?;
        if it.flags.has(ServiceFlags::ONE_PACKET) {
            f.write_str(" -o")?;
        }
        let flags: Vec<_> = it.scheduler_flags().collect();
        if !flags.is_empty() {
            write!(f, " -b {}", flags.join(","))?;
        }
        if it.stale_udp != StaleUdp::Keep {
            write!(f, " --stale-udp {}", it.stale_udp.name())?;
        }
        Ok(())
    }
}

struct DestOptions<'r>(&'r DestAttributes);

impl Display for DestOptions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let it = self.0;
        let method = match it.method {
            ForwardMethod::Masquerade => "-m",
            ForwardMethod::Direct => "-g",
            ForwardMethod::Tunnel => "-i",
        };
        write!(f, " {method} -w {}", it.weight.0)?;
        if it.upper_threshold != 0 {
            write!(f, " -x {} -y {}", it.upper_threshold, it.lower_threshold)?;
        }
        if it.method == ForwardMethod::Tunnel && it.tunnel != Tunnel::default() {
            write!(f, " --tun-type {}", it.tunnel.kind)?;
            if it.tunnel.kind == TunnelKind::Gue {
                write!(f, " --tun-port {}", it.tunnel.port)?;
            }
            f.write_str(match it.tunnel.checksum {
                TunnelChecksum::None => "",
                TunnelChecksum::Full => " --tun-csum",
                TunnelChecksum::Remote => " --tun-remcsum",
            })?;
        }
        Ok(())
    }
}
