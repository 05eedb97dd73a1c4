//! TCP as IPVS sees it: flags and direction move a state, nothing else is looked at.
//!
//! Linux 6.1 `ip_vs_proto_tcp.c` `tcp_states[]`, `tcp_states_dos[]`, `set_tcp_state()`. There is no
//! test of sequence numbers, and a segment with none of the four flags closes.

use super::View;
use rvs_model::State;

/// TCP flags that count, RFC 9293 section 3.1.
pub mod flag {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// States that TCP has: all but `Udp`.
const STATES: usize = 11;

type Row = [State; STATES];

/// `[view][event][state]`, events in the order of [`event`].
type Table = [[Row; 4]; 3];

/// States by two letters, to keep a row in a line.
mod short {
    pub(super) use rvs_model::State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA,
        Listen as LI, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
    };
}

const NORMAL: Table = {
    use short::{CL, CW, ES, FW, LA, LI, SR, SS, TW};
    [
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
            [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
        ],
        [
            [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
            [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
            [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
        ],
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
            [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
        ],
    ]
};

/// `secure_tcp`: a handshake counts as done only when the destination has acknowledged it.
const SECURE: Table = {
    use short::{CL, CW, ES, FW, LA, LI, SA, SR, SS, TW};
    [
        [
            [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
            [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
            [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
        ],
        [
            [SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
            [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
            [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
        ],
        [
            [SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],
            [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
            [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
            [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
        ],
    ]
};

/// Which row of the table `flags` choose: RST before SYN before FIN before ACK.
#[inline]
const fn event(flags: u8) -> Option<usize> {
    match flags {
        _ if flags & flag::RST != 0 => Some(3),
        _ if flags & flag::SYN != 0 => Some(0),
        _ if flags & flag::FIN != 0 => Some(1),
        _ if flags & flag::ACK != 0 => Some(2),
        _ => None,
    }
}

/// Whether `flags` acknowledge and do nothing else that counts.
#[inline]
#[must_use]
pub const fn is_plain_ack(flags: u8) -> bool {
    flags & (flag::FIN | flag::SYN | flag::RST | flag::ACK) == flag::ACK
}

/// The state after a segment with `flags`.
#[inline(never)]
#[must_use]
pub fn next(state: State, flags: u8, view: View, secure: bool) -> State {
    let table = if secure { &SECURE } else { &NORMAL };
    let rows = match view {
        View::Inbound => &table[0],
        View::Outbound => &table[1],
        View::InboundOnly => &table[2],
    };
    let row = event(flags).and_then(|event| rows.get(event));
    row.and_then(|row| row.get(state.index())).copied().unwrap_or(State::Close)
}

/// Whether a segment without a connection may open one (Linux 6.1 `tcp_conn_schedule()`: not RST,
/// and SYN unless `sloppy`; ACK is not looked at, so that the SYN+ACK of an active FTP server
/// passes).
#[inline]
#[must_use]
pub const fn may_open(flags: u8, sloppy: bool) -> bool {
    flags & flag::RST == 0 && (sloppy || flags & flag::SYN != 0)
}

#[cfg(test)]
mod tests {
    use super::flag::{ACK, FIN, RST, SYN};
    use super::*;

    fn walk(view: View, flags: &[u8]) -> State {
        flags.iter().fold(State::None, |state, flags| next(state, *flags, view, false))
    }

    #[test]
    fn half_close_is_close_wait_with_both_directions_and_fin_wait_with_one() {
        assert_eq!(walk(View::Inbound, &[SYN, ACK, FIN | ACK]), State::CloseWait);
        assert_eq!(walk(View::InboundOnly, &[SYN, ACK, FIN | ACK]), State::FinWait);
    }

    #[test]
    fn client_reset_in_syn_recv_does_not_close_but_the_destinations_does() {
        assert_eq!(walk(View::Inbound, &[SYN, RST]), State::SynRecv);
        assert_eq!(walk(View::InboundOnly, &[SYN, RST]), State::SynRecv);
        assert_eq!(next(State::SynRecv, RST, View::Outbound, false), State::Close);
    }

    #[test]
    fn segment_without_flags_closes_and_second_syn_keeps_established() {
        assert_eq!(walk(View::InboundOnly, &[SYN, ACK, 0]), State::Close);
        assert_eq!(walk(View::InboundOnly, &[SYN, ACK, SYN]), State::Established);
    }

    #[test]
    fn secure_handshake_under_masquerading_ends_with_the_destinations_ack_only() {
        let client_alone = [SYN, ACK, ACK]
            .iter()
            .fold(State::None, |state, flags| next(state, *flags, View::Inbound, true));
        assert_eq!(client_alone, State::SynRecv);
        assert_eq!(next(client_alone, ACK, View::Outbound, true), State::Established);
    }
}
