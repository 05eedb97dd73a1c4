//! One line for each change that an operator asked for, in ipvsadm's words.

use core::fmt::{self, Display};
use rvs_api::words::{self, Operation};
use rvs_api::{Outcome, Request};

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

/// A change that was asked for.
#[derive(Debug)]
pub struct Line {
    text: String,
    operation: Operation,
}

impl Line {
    /// Of a change, or nothing of a question.
    #[must_use]
    pub fn of(request: &Request, peer: Option<Peer>) -> Option<Self> {
        (!request.is_read_only()).then(|| Self {
            text: match peer {
                Some(peer) => format!("rvsd: change by {peer}: {request}"),
                None => format!("rvsd: change: {request}"),
            },
            operation: request.into(),
        })
    }

    /// The line, with how it ended; a refusal in the words that ipvsadm has for it.
    #[must_use]
    pub fn ended(self, outcome: &Outcome) -> String {
        let Self { text, operation } = self;
        match outcome {
            Ok(_) => text,
            Err(refusal) => format!("{text} (refused: {})", words::text(operation, refusal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_api::{
        AddressFamily, DestAttributes, Errno, Reply, ServiceAttributes, ServiceKey, TimeoutsChange,
    };
    use rvs_model::{ForwardMethod, Protocol, Weight};

    const PEER: Peer = Peer { pid: 4711, uid: 0, gid: 0 };

    fn told(request: &Request, peer: Option<Peer>) -> Option<String> {
        Some(Line::of(request, peer)?.ended(&Ok(Reply::Done)))
    }

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
            assert_eq!(told(&request, Some(PEER)).unwrap(), expected);
        }
    }

    #[test]
    fn questions_leave_no_line() {
        assert_eq!(told(&Request::ListConns, Some(PEER)), None);
        assert_eq!(told(&Request::ListServices { service: None }, None), None);
    }

    #[test]
    fn a_hostile_name_stays_within_its_line() {
        let attributes = ServiceAttributes::new("rr\nrvsd: done", AddressFamily::V4);
        let line = told(&Request::AddService { service: tcp(), attributes }, None).unwrap();
        assert_eq!(line, "rvsd: change: -A -t 203.0.113.1:80 -s rr\\nrvsd: done");
    }

    #[test]
    fn a_refusal_says_why_in_ipvsadms_words() {
        let attributes = ServiceAttributes::new("none-such", AddressFamily::V4);
        let request = Request::AddService { service: tcp(), attributes };
        let line = Line::of(&request, None).unwrap().ended(&Err(Errno::NoEnt.into()));
        assert!(line.ends_with(" (refused: Scheduler or persistence engine not found)"), "{line}");
    }
}
