//! IPVS as generic netlink speaks it: what unmodified ipvsadm and keepalived ask, answered.
//!
//! ```text
//!  datagram ──wire──► messages ──genl──► family? ──ipvs──► Request ──► Table (rvsd's, or a test's)
//!                                    │                                   │
//!           ◄── 8 KiB datagrams ─────┴──────── service, dest, … ◄────────┘ Outcome
//! ```
//!
//! Pure: one datagram and a [`Table`] in, datagrams out. No socket, no clock, no state of its own, so
//! that a client that dies between two messages leaves nothing behind. Numbers are those of Linux
//! `include/uapi/linux/{netlink,genetlink,ip_vs}.h`; the order of checks and the error numbers are
//! the kernel's, because ipvsadm and keepalived choose their words by them.
//!
//! Beside netlink, [`files`] answers for what the kernel shows under `/proc/net/ip_vs*` and
//! `/proc/sys/net/ipv4/vs`, on the same socket.
#![forbid(unsafe_code)]

mod ctrl;
mod daemon;
mod dest;
pub mod files;
mod ipvs;
mod numbers;
mod service;
mod stats;
mod wire;

use files::Next;
pub use numbers::FAMILY_ID;
use numbers::{FILES_ID, GENL_ID_CTRL, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_MIN_TYPE};
use rvs_api::{Access, Errno, Outcome, Request, ServiceAttributes, ServiceKey};
use wire::{Answers, Message};

/// Where rvsd listens for netlink clients unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/rvs/rvsd.netlink";

/// The longest datagram that is answered. Clients' requests have a few hundred octets.
pub const REQUEST_OCTETS_MAX: usize = 16 << 10;

/// What requests are carried out on.
pub trait Table {
    /// What a service is, or `None` if there is none of this key: an edit over netlink says only
    /// a part of what it shall be.
    fn service(&self, service: &ServiceKey) -> Option<ServiceAttributes>;

    /// Carries out one request. [`Request::ListConns`] is never asked for: see [`Answer::Conns`].
    ///
    /// # Errors
    ///
    /// What the client is told; nothing has changed then.
    fn carry_out(&mut self, request: Request) -> Outcome;
}

/// What a client gets.
#[derive(Debug)]
pub enum Answer {
    /// These datagrams, in this order; none for a message that asks for no acknowledgement.
    Datagrams(Vec<Vec<u8>>),
    /// A listing of connections, which the caller has from workers, piece by piece.
    Conns(files::Conns),
    /// These datagrams; and what the client sends from now on is no netlink, but written to a file.
    Written(Vec<Vec<u8>>, files::Written),
}

/// It is no netlink message: nothing in it says where an answer would belong. The kernel drops it
/// without a word; a client on a socket of its own is better told by its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a datagram that is no netlink message")]
pub struct NotNetlink;

/// Answers one datagram of a client that may do `access`.
///
/// # Errors
///
/// [`NotNetlink`]; nothing was done then.
pub fn answer(
    datagram: &[u8],
    access: Access,
    table: &mut impl Table,
) -> Result<Answer, NotNetlink> {
    let mut answers = Answers::default();
    let mut messages = wire::messages(datagram).peekable();
    if messages.peek().is_none() {
        return Err(NotNetlink);
    }
    let mut is_telling = false;
    for message in messages {
        // Linux 6.1 af_netlink.c netlink_rcv_skb(): what is no request, and control messages, are
        // only acknowledged.
        let is_request = message.flags & NLM_F_REQUEST != 0 && message.kind >= NLMSG_MIN_TYPE;
        let is_dump = message.flags & NLM_F_DUMP == NLM_F_DUMP || message.kind == FILES_ID;
        let done = if is_request {
            match message.kind {
                // af_netlink.c __netlink_dump_start(). A datagram has room for 800 questions whose
                // answers are as long as the table: we would have to keep them all.
                _ if is_dump && is_telling => Err(Errno::Busy),
                GENL_ID_CTRL => ctrl::answer(&message, &mut answers),
                FAMILY_ID => ipvs::answer(&message, access, table, &mut answers),
                FILES_ID => match files::answer(&message, access, table, &mut answers) {
                    Ok(Next::Conns(conns)) => return Ok(Answer::Conns(conns)),
                    Ok(Next::Written(file)) => {
                        return Ok(Answer::Written(answers.datagrams(), file));
                    }
                    Ok(Next::Nothing(done)) => Ok(done),
                    Err(errno) => Err(errno),
                },
                // genetlink.c genl_rcv_msg()
                _ => Err(Errno::NoEnt),
            }
        } else {
            Ok(Done::Acknowledge)
        };
        match done {
            Err(errno) => answers.error(&message, errno),
            Ok(Done::Told) => is_telling = true,
            Ok(Done::Acknowledge) if message.flags & NLM_F_ACK != 0 => answers.ack(&message),
            Ok(Done::Acknowledge) => {}
        }
    }
    Ok(Answer::Datagrams(answers.datagrams()))
}

/// How a request that was carried out ends.
enum Done {
    /// With an acknowledgement, if one was asked for.
    Acknowledge,
    /// With the end of what was told: a dump has no other acknowledgement.
    Told,
}

/// The message of a request, beside what is common to all.
struct Genl<'m> {
    command: u8,
    attributes: &'m [u8],
}

impl<'m> Genl<'m> {
    /// genetlink.c `genl_family_rcv_msg()`
    fn of(message: &Message<'m>) -> Result<Self, Errno> {
        match message.payload.split_first_chunk() {
            Some(([command, _version, _, _], attributes)) => {
                Ok(Self { command: *command, attributes })
            }
            None => Err(Errno::Inval),
        }
    }
}
