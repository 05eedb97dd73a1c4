//! SCTP as IPVS sees it: the first chunk and its direction move a state, nothing else is looked at.
//!
//! Linux 6.1 `ip_vs_proto_sctp.c` `sctp_states[]`, `set_sctp_state()`. States are those of the real
//! server. There is no test of verification tags.
//!
//! ```text
//!  client            director                                  destination
//!  INIT ────────────► INIT1, then INIT  ◄────────── INIT ACK:  C-SENT
//!  COOKIE ECHO ─────► C-REPLIED         ◄────────── COOKIE ACK: ESTABLISHED
//!  SHUTDOWN ────────► S-RECEIVED        ◄────────── SHUTDOWN ACK: S-ACK-SENT
//!  SHUTDOWN COMPLETE► CLOSED
//! ```

use super::View;
use rvs_model::State;
use rvs_wire::sctp::event;

/// States that SCTP has: `None` and its own.
const STATES: usize = 14;

type Row = [State; STATES];

/// `[view][event][state]`, events by the high half of [`event()`].
type Table = [[Row; 10]; 3];

/// States by two letters, to keep a row in a line.
mod short {
    pub(super) use rvs_model::State::{
        SctpClosed as CL, SctpCookie as CO, SctpCookieEchoed as CE, SctpCookieReplied as CR,
        SctpCookieSent as CS, SctpCookieWait as CW, SctpEstablished as ES, SctpInit as IN,
        SctpInit1 as I1, SctpRejected as RJ, SctpShutdownAckSent as SA, SctpShutdownReceived as SR,
        SctpShutdownSent as SS,
    };
}

const TABLE: Table = {
    use short::{CE, CL, CO, CR, CS, CW, ES, I1, IN, RJ, SA, SR, SS};
    [
        [
            [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
            [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
            [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
            [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
            [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],
            [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],
            [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],
            [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
        ],
        [
            [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],
            [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],
            [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],
            [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],
            [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],
            [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        ],
        [
            [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
            [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN],
            [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL],
            [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
            [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL],
            [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
            [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],
            [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL],
            [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
            [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
        ],
    ]
};

/// The state after a packet with `event`; the same after one without a chunk.
#[cold]
#[inline(never)]
#[must_use]
pub fn next(state: State, event: u8, view: View) -> State {
    let rows = match view {
        View::Inbound => &TABLE[0],
        View::Outbound => &TABLE[1],
        View::InboundOnly => &TABLE[2],
    };
    let column = match state {
        State::None => 0,
        state => state.index().saturating_sub(State::Udp.index()),
    };
    let row = rows.get(usize::from(event >> 4));
    row.and_then(|row| row.get(column)).copied().unwrap_or(state)
}

/// Whether a packet without a connection may open one (Linux 6.1 `sctp_conn_schedule()`: an INIT, or
/// when `sloppy` anything but ABORT).
#[inline]
#[must_use]
pub const fn may_open(event: u8, sloppy: bool) -> bool {
    match event {
        event::INIT => true,
        event::ABORT | event::NOTHING => false,
        _ => sloppy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_stands_in_its_own_column() {
        // Nothing moves on data but what has none yet.
        for state in State::ALL.into_iter().filter(|state| state.is_sctp()) {
            assert_eq!(next(state, event::DATA, View::Inbound), state);
            assert_eq!(next(state, event::NOTHING, View::Outbound), state);
        }
        assert_eq!(next(State::None, event::DATA, View::Inbound), State::SctpEstablished);
    }

    #[test]
    fn one_direction_is_enough_to_see_an_association_stand_and_end() {
        let walk = |events: &[u8]| {
            events.iter().fold(State::None, |state, event| next(state, *event, View::InboundOnly))
        };
        assert_eq!(walk(&[event::INIT]), State::SctpInit1);
        assert_eq!(walk(&[event::INIT, event::COOKIE_ECHO]), State::SctpEstablished);
        let shut = [event::INIT, event::COOKIE_ECHO, event::SHUTDOWN, event::SHUTDOWN_COMPLETE];
        assert_eq!(walk(&shut), State::SctpClosed);
    }
}
