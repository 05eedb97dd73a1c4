//! What moves a connection's state, one file for each protocol.
//!
//! A packet's flags, its direction and whether the other direction can be seen choose the next
//! state; nothing else is looked at. How long a state lasts is [`rvs_model::Timeouts`]'.

pub mod sctp;
pub mod tcp;
pub mod udp;

use crate::conn::{Conn, Direction};
use rvs_model::{ForwardMethod, State};
use rvs_wire::flow::{Family, protocol};

/// Who sent a packet, and whether the other side can be seen at all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum View {
    /// Client to destination.
    #[default]
    Inbound,
    /// Destination to client.
    Outbound,
    /// Client to destination, the way back bypasses the director.
    InboundOnly,
}

impl View {
    /// What a packet of `direction` is to a connection of `method`: replies are seen only when
    /// they are masqueraded (Linux 6.1 `IP_VS_CONN_F_NOOUTPUT`).
    #[inline]
    #[must_use]
    pub const fn of(method: ForwardMethod, direction: Direction) -> Self {
        match (method, direction) {
            (_, Direction::Outbound) => Self::Outbound,
            (ForwardMethod::Masquerade, Direction::Inbound) => Self::Inbound,
            _ => Self::InboundOnly,
        }
    }
}

/// The state after a packet with these `flags` (of [`rvs_wire::packet::Packet`]). `secure` chooses the
/// stricter TCP tables of `secure_tcp`.
#[inline]
#[must_use]
pub fn next(state: State, protocol: u8, flags: u8, view: View, secure: bool) -> State {
    match protocol {
        protocol::TCP => tcp::next(state, flags, view, secure),
        protocol::UDP => udp::next(),
        protocol::SCTP => sctp::next(state, flags, view),
        _ => state,
    }
}

/// Whether a packet without a connection may open one. `sloppy`: also a TCP segment that is not a
/// SYN, or an SCTP packet that is not an INIT.
#[inline]
#[must_use]
pub const fn may_open(protocol: u8, flags: u8, sloppy: bool) -> bool {
    match protocol {
        protocol::TCP => tcp::may_open(flags, sloppy),
        protocol::UDP => true,
        protocol::SCTP => sctp::may_open(flags, sloppy),
        _ => false,
    }
}

/// Whether a packet that meets a connection wants a new one, if [`is_reused`] lets it (Linux 6.1
/// `ip_vs_core.c` `is_new_conn()`: any TCP segment with SYN, an INIT of SCTP).
#[inline]
#[must_use]
pub const fn is_opening(protocol: u8, flags: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::SCTP) && flags & tcp::flag::SYN != 0
}

/// Whether a new connection may take the place of one in `state` (Linux 6.1 `ip_vs_core.c`
/// `is_new_conn_expected()`). Any `conn_reuse_mode` but 0 gives up `TIME_WAIT`, `CLOSE` and SCTP's `CLOSED`;
/// bit 1 also `FIN_WAIT` where the destination's FIN cannot be seen (`no_output`).
#[inline]
#[must_use]
pub const fn is_reused(conn_reuse_mode: u8, state: State, no_output: bool) -> bool {
    match state {
        State::TimeWait | State::Close | State::SctpClosed => conn_reuse_mode != 0,
        State::FinWait => conn_reuse_mode & 2 != 0 && no_output,
        _ => false,
    }
}

/// Whether nobody would miss this connection much: its handshake has not ended, or it is UDP and
/// the client has sent once, it is a data connection of FTP that was only announced, or a template
/// without connections that never had one established. These make room when the table is full.
#[inline]
#[must_use]
pub fn is_half_open<F: Family>(conn: &Conn<F>) -> bool {
    match conn.state {
        State::None if conn.is_template() => conn.control == 0,
        State::None
        | State::Listen
        | State::SynRecv
        | State::SynSent
        | State::SynAck
        | State::SctpInit1
        | State::SctpInit
        | State::SctpCookieSent => conn.is_live(),
        State::Udp => conn.is_live() && conn.packets <= 1,
        _ => false,
    }
}
