//! UDP as IPVS sees it: one state, as long as packets come.
//!
//! Linux 6.1 `ip_vs_proto_udp.c` `udp_state_transition()`.

use rvs_model::State;

/// The state after any datagram, of either direction.
#[inline]
#[must_use]
pub const fn next() -> State {
    State::Udp
}
