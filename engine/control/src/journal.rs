//! One line for each change that an operator asked for, in ipvsadm's words.

use core::fmt::{self, Display};
use rvs_api::{
    AddressFamily, DaemonState, DestAttributes, Outcome, Request, ServiceAttributes, ServiceFlags,
    ServiceKey,
};
use rvs_model::{ForwardMethod, Protocol, StaleUdp};

/// Who asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Process at the other end when it connected.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} pid {}", self.uid, self.pid)
    }
}

/// The line of a change, or nothing for a question.
#[must_use]
pub fn line(request: &Request, peer: Option<Peer>) -> Option<String> {
    let what = Change(request);
    (!request.is_read_only()).then(|| match peer {
        Some(peer) => format!("rvsd: change by {peer}: {what}"),
        None => format!("rvsd: change: {what}"),
    })
}

/// How it ended, to be put behind [`line()`].
#[must_use]
pub fn ending(outcome: &Outcome) -> String {
    match outcome {
        Ok(_) => String::new(),
        Err(refusal) => format!(" (refused: {refusal})"),
    }
}

struct Change<'r>(&'r Request);

impl Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Request::AddService { service, attributes } => {
                write!(f, "-A {}{}", Service(service), Attributes(attributes))
            }
            Request::EditService { service, attributes } => {
                write!(f, "-E {}{}", Service(service), Attributes(attributes))
            }
            Request::DeleteService { service } => write!(f, "-D {}", Service(service)),
            Request::Flush => f.write_str("-C"),
            Request::AddDest { service, dest, attributes } => {
                write!(f, "-a {} -r {dest}{}", Service(service), Method(attributes))
            }
            Request::EditDest { service, dest, attributes } => {
                write!(f, "-e {} -r {dest}{}", Service(service), Method(attributes))
            }
            Request::DeleteDest { service, dest } => {
                write!(f, "-d {} -r {dest}", Service(service))
            }
            Request::Zero { service: None } => f.write_str("-Z"),
            Request::Zero { service: Some(service) } => write!(f, "-Z {}", Service(service)),
            Request::SetTimeouts(change) => {
                write!(f, "--set {} {} {}", change.tcp_s, change.tcp_fin_s, change.udp_s)
            }
            Request::StartDaemon(daemon) => {
                write!(f, "--start-daemon {}", state(daemon.state))?;
                write!(f, " --mcast-interface {}", daemon.interface.escape_debug())?;
                write!(f, " --syncid {}", daemon.sync_id)
            }
            Request::StopDaemon(end) => write!(f, "--stop-daemon {}", state(*end)),
            Request::SetTunable { name, value } => {
                write!(f, "tunable {}={}", name.escape_debug(), value.escape_debug())
            }
            Request::ListTunables { .. } => f.write_str("tunable"),
            Request::ListServices { .. } | Request::GetInfo => f.write_str("-L"),
            Request::ListConns | Request::ListConnsWhere(_) => f.write_str("-L -c"),
            Request::KillConn { protocol, client, vip } => {
                let service = ServiceKey::Address { protocol: *protocol, address: *vip };
                write!(f, "kill {} --client {client}", Service(&service))
            }
            Request::EndConns { service, dest } => {
                write!(f, "drain {} -r {dest}: the end", Service(service))
            }
            Request::GetTimeouts => f.write_str("-L --timeout"),
            Request::ListDaemons => f.write_str("-L --daemon"),
        }
    }
}

fn state(state: DaemonState) -> &'static str {
    match state {
        DaemonState::Master => "master",
        DaemonState::Backup => "backup",
    }
}

struct Service<'r>(&'r ServiceKey);

impl Display for Service<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ServiceKey::Address { protocol: Protocol::Tcp, address } => write!(f, "-t {address}"),
            ServiceKey::Address { protocol: Protocol::Udp, address } => write!(f, "-u {address}"),
            ServiceKey::Address { protocol: Protocol::Sctp, address } => {
                write!(f, "--sctp-service {address}")
            }
            ServiceKey::Mark { mark, family: AddressFamily::V4 } => write!(f, "-f {}", mark.0),
            ServiceKey::Mark { mark, family: AddressFamily::V6 } => write!(f, "-f {} -6", mark.0),
        }
    }
}

struct Attributes<'r>(&'r ServiceAttributes);

impl Display for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        // What a client sends is not yet checked when it is logged: no control characters.
        write!(f, " -s {}", it.scheduler.escape_debug())?;
        if it.flags.has(ServiceFlags::PERSISTENT) {
            write!(f, " -p {}", it.timeout_s)?;
        }
        if it.flags.has(ServiceFlags::ONE_PACKET) {
            f.write_str(" -o")?;
        }
        if let Some(engine) = &it.engine {
            write!(f, " --pe {}", engine.escape_debug())?;
        }
        if it.stale_udp != StaleUdp::Keep {
            write!(f, " --stale-udp {}", it.stale_udp.name())?;
        }
        Ok(())
    }
}

struct Method<'r>(&'r DestAttributes);

impl Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.0.method {
            ForwardMethod::Masquerade => "-m",
            ForwardMethod::Direct => "-g",
            ForwardMethod::Tunnel => "-i",
        };
        write!(f, " {method} -w {}", self.0.weight.0)?;
        if self.0.upper_threshold != 0 {
            write!(f, " -x {} -y {}", self.0.upper_threshold, self.0.lower_threshold)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_api::{Errno, Refusal, Reply, TimeoutsChange};
    use rvs_model::Weight;

    const PEER: Peer = Peer { pid: 4711, uid: 0, gid: 0 };

    fn tcp() -> ServiceKey {
        ServiceKey::Address { protocol: Protocol::Tcp, address: "203.0.113.1:80".parse().unwrap() }
    }

    #[test]
    fn a_change_reads_as_the_command_that_makes_it() {
        let service = tcp();
        let dest = "192.0.2.11:8080".parse().unwrap();
        let attributes = ServiceAttributes::new("wlc", AddressFamily::V4);
        let masquerade = DestAttributes::new(ForwardMethod::Masquerade, Weight(7));
        for (request, expected) in [
            (Request::AddService { service, attributes }, "-A -t 203.0.113.1:80 -s wlc"),
            (
                Request::AddDest { service, dest, attributes: masquerade },
                "-a -t 203.0.113.1:80 -r 192.0.2.11:8080 -m -w 7",
            ),
            (Request::DeleteDest { service, dest }, "-d -t 203.0.113.1:80 -r 192.0.2.11:8080"),
            (Request::Flush, "-C"),
            (Request::Zero { service: None }, "-Z"),
            (
                Request::SetTimeouts(TimeoutsChange { tcp_s: 1, tcp_fin_s: 2, udp_s: 3 }),
                "--set 1 2 3",
            ),
        ] {
            let expected = format!("rvsd: change by uid 0 pid 4711: {expected}");
            assert_eq!(line(&request, Some(PEER)).unwrap(), expected);
        }
    }

    #[test]
    fn questions_leave_no_line() {
        assert_eq!(line(&Request::ListConns, Some(PEER)), None);
        assert_eq!(line(&Request::ListServices { service: None }, None), None);
    }

    #[test]
    fn a_hostile_name_stays_within_its_line() {
        let attributes = ServiceAttributes::new("rr\nrvsd: done", AddressFamily::V4);
        let told = line(&Request::AddService { service: tcp(), attributes }, None).unwrap();
        assert_eq!(told, "rvsd: change: -A -t 203.0.113.1:80 -s rr\\nrvsd: done");
    }

    #[test]
    fn a_refusal_says_why() {
        assert_eq!(ending(&Ok(Reply::Done)), "");
        let refusal: Refusal = Errno::Exist.into();
        assert_eq!(ending(&Err(refusal)), " (refused: File exists)");
    }
}
