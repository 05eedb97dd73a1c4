//! One connection: all that forwarding reads or writes, in one cache line (two for IPv6).
//!
//! ```text
//!  octet  0            12             24  25    26     27    28   32  36      40   44   46   48 50 52   56      60
//!  V4   [ inbound 12 | outbound 12 | proto state method flags seen due packets dest hop  hop  Δ  Δ  mark control born ]
//!  V6   [ inbound 36 | outbound 36 | the same, from octet 72                                               | room 16 ]
//! ```

use rvs_model::{DestId, ForwardMethod, State, Tick};
use rvs_wire::checksum::Delta;
use rvs_wire::flow::{Family, Key, V4, V6};

/// Which end of a connection sent a packet.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Direction {
    /// Client to destination.
    #[default]
    Inbound,
    /// Destination to client.
    Outbound,
}

/// Bits of [`Conn::flags`].
pub mod flag {
    /// Its packets take more than a rewrite where they are: they go into a tunnel, or it is
    /// [`HELPED`]. One bit, so that other packets pay for one test.
    pub const APART: u8 = 1;
    /// A control connection of FTP, whose data is read; it is [`APART`], too.
    pub const HELPED: u8 = 2;
    /// A data connection of FTP. [`super::Conn::control`] is the client's port of its control
    /// connection.
    pub const DATA: u8 = 4;
    /// Another worker counts and lists it.
    pub const SHADOW: u8 = 8;
    /// A control connection that had a data connection half a minute ago.
    pub const IN_USE: u8 = 16;
}

/// In place of an IP protocol: a data connection of FTP over TCP that nobody has begun yet, whose
/// client's port is not known (Linux 6.1 `IP_VS_CONN_F_NO_CPORT`). IANA has not assigned it, so no
/// packet finds one.
pub const AWAITED: u8 = 0xe8;

/// A connection.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Conn<F: Family> {
    /// Client to virtual service.
    pub inbound: F::Ends,
    /// Destination to client. Also what to write into a masqueraded packet.
    pub outbound: F::Ends,
    /// IP protocol number. 0 in a line that is free, so that no packet matches it.
    pub protocol: u8,
    /// Protocol state.
    pub state: State,
    /// How inbound packets are forwarded.
    pub method: ForwardMethod,
    /// What is unusual about it: see [`flag`].
    pub flags: u8,
    /// Last packet.
    pub seen: Tick,
    /// The tick that the wheel has for this connection.
    pub due: Tick,
    /// Inbound packets, wrapping: what the threshold of sync and half-open UDP go by. Of a template:
    /// ticks that it outlives its last use.
    pub packets: u32,
    /// The destination: its counters, its tunnel.
    pub dest: DestId,
    /// Ethernet header of inbound packets. Of a template: where in its service's list its destination
    /// was.
    pub next_hop: u16,
    /// Ethernet header of outbound packets.
    pub client_hop: u16,
    /// What masquerading does to the checksum of an IPv4 header on the way in. The way back is its
    /// complement.
    pub address_delta: Delta,
    /// The same and the port: what it does to the checksum of TCP or UDP.
    pub segment_delta: Delta,
    /// The firewall mark of the packet that opened it; 0 is none.
    pub mark: u32,
    /// The line of its template, 0 if it has none: see [`Conn::template_line`]. Of a template: how
    /// many connections it has. Of a data connection of FTP: see [`flag::DATA`].
    pub control: u32,
    /// When it was opened.
    pub born: Tick,
}

const _: () = assert!(size_of::<Conn<V4>>() == 64);
const _: () = assert!(size_of::<Conn<V6>>() == 128);
const _: () = assert!(core::mem::offset_of!(Conn<V4>, born) + 4 == 64);

impl<F: Family> Conn<F> {
    /// The ends of a packet of `direction`.
    #[inline(always)]
    #[must_use]
    pub fn ends(&self, direction: Direction) -> &F::Ends {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// What a packet of `direction` looks like.
    #[inline]
    #[must_use]
    pub fn key(&self, direction: Direction) -> Key<F> {
        Key { ends: *self.ends(direction), protocol: self.protocol }
    }

    /// Whether the way back comes through here and must be found too.
    #[inline]
    #[must_use]
    pub fn has_way_back(&self) -> bool {
        self.method == ForwardMethod::Masquerade && !self.is_template() && !self.is_awaited()
    }

    /// Whether nobody has begun it yet: see [`AWAITED`].
    #[inline]
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.protocol == AWAITED
    }

    /// Whether it has this bit of [`flag`].
    #[inline]
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether this is a connection and not a free line.
    #[inline]
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.protocol != 0
    }
}
