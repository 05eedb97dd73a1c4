//! What an operator may change about timing and about corner cases.

use crate::state::State;
use crate::time::{Tick, ticks};
use serde::{Deserialize, Serialize};

/// How long a connection outlives its last packet, by state.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Timeouts {
    seconds: [u32; State::ALL.len()],
}

impl Default for Timeouts {
    fn default() -> Self {
        let mut seconds = [0; State::ALL.len()];
        for (place, state) in seconds.iter_mut().zip(State::ALL) {
            // Linux 6.1 ip_vs_proto_tcp.c tcp_timeouts[], ip_vs_proto_udp.c udp_timeouts[],
            // ip_vs_proto_sctp.c sctp_timeouts[].
            *place = match state {
                // ip_vs_conn.c ip_vs_conn_new(): until a packet moves it. No packet moves to it.
                State::None => 3,
                State::Established | State::SctpEstablished => 900,
                State::SynRecv | State::CloseWait => 60,
                State::SynSent
                | State::FinWait
                | State::TimeWait
                | State::Listen
                | State::SynAck => 120,
                State::Close => 10,
                State::LastAck => 30,
                State::Udp => 300,
                State::SctpInit1 | State::SctpRejected => 4,
                // The longest time to a retransmission, RFC 9260 section 16, and a second.
                State::SctpInit
                | State::SctpCookieSent
                | State::SctpCookieReplied
                | State::SctpCookieWait
                | State::SctpCookie
                | State::SctpCookieEchoed
                | State::SctpShutdownSent
                | State::SctpShutdownReceived
                | State::SctpShutdownAckSent
                | State::SctpClosed => 61,
            };
        }
        Self { seconds }
    }
}

impl Timeouts {
    /// Seconds in `state`.
    #[inline]
    #[must_use]
    pub fn seconds(&self, state: State) -> u32 {
        self.seconds.get(state.index()).copied().unwrap_or_default()
    }

    /// Ticks in `state`.
    #[inline]
    #[must_use]
    pub fn ticks(&self, state: State) -> Tick {
        ticks(self.seconds(state))
    }

    /// Sets the seconds of `state`.
    pub fn set(&mut self, state: State, seconds: u32) {
        if let Some(place) = self.seconds.get_mut(state.index()) {
            *place = seconds;
        }
    }
}

/// What workers read of [`crate::Sysctls`], by the kernel's names (Linux
/// `Documentation/networking/ipvs-sysctl.rst`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the kernel's")]
pub struct Tunables {
    /// One of so many packets that would open a connection is dropped by `drop_packet` 3.
    pub am_droprate: u32,
    /// Pages of room below which modes 1 and 2 defend.
    pub amemthresh: u32,
    /// When a SYN that meets its own old connection is scheduled anew: 0 never, any other in
    /// `TIME_WAIT` and `CLOSE`, bit 1 also in `FIN_WAIT` of direct routing and tunnels.
    pub conn_reuse_mode: u8,
    /// Whether connections that look abandoned end at random: 0 never, 1 and 2 under pressure, 3
    /// always.
    pub drop_entry: u8,
    /// Whether some packets that would open a connection are dropped: the same.
    pub drop_packet: u8,
    /// Whether packets of a connection whose destination was deleted are scheduled anew (else
    /// dropped).
    pub expire_nodest_conn: bool,
    /// Whether persistence does without a destination whose weight is 0.
    pub expire_quiescent_template: bool,
    /// Seconds for which the scheduler `lblc` remembers an address that nobody asks for.
    pub lblc_expiration: u32,
    /// The same of `lblcr`, and seconds without a change after which an address loses one of several
    /// destinations.
    pub lblcr_expiration: u32,
    /// Whether a masqueraded real server is told when it answers without a connection.
    pub nat_icmp_send: bool,
    /// Whether a tunnel copies DF outwards and a packet too long for it is refused.
    pub pmtu_disc: bool,
    /// Whether an ICMP error about a packet from a service to a client that no connection knows opens
    /// one.
    pub schedule_icmp: bool,
    /// Whether the stricter TCP states are used: as `drop_entry`.
    pub secure_tcp: u8,
    /// Whether any SCTP packet but ABORT opens a connection.
    pub sloppy_sctp: bool,
    /// Whether any TCP segment but RST opens a connection.
    pub sloppy_tcp: bool,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            am_droprate: 10,
            amemthresh: 1024,
            conn_reuse_mode: 1,
            drop_entry: 0,
            drop_packet: 0,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            lblc_expiration: 24 * 60 * 60,
            lblcr_expiration: 24 * 60 * 60,
            nat_icmp_send: false,
            pmtu_disc: true,
            schedule_icmp: false,
            secure_tcp: 0,
            sloppy_sctp: false,
            sloppy_tcp: false,
        }
    }
}
