//! What each forwarding method does to a packet of a known connection.
//!
//! Linux 6.1 `ip_vs_xmit.c`: `ip_vs_nat_xmit()`, `ip_vs_dr_xmit()`, `ip_vs_tunnel_xmit()`. All three
//! take one from the hop limit, then look whether the packet fits. What depends on the
//! destination alone was computed when its first connection was opened ([`crate::paths`]).

use crate::drop_reason::DropReason;
use crate::lane::Verdict;
use crate::neighbor::{Hop, HopId};
use crate::paths::Paths;
use rvs_conntrack::{Conn, Direction};
use rvs_io::Frame;
use rvs_model::ForwardMethod;
use rvs_wire::checksum::Delta;
use rvs_wire::flow::Ends as _;
use rvs_wire::ipip::Outer;
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::{Rewrite, Stop};

/// How it went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sent {
    /// Rewritten and fits.
    Whole,
    /// Rewritten; does not fit and may be fragmented.
    ToFragment,
    /// The hop limit ran out; unchanged.
    Exceeded,
    /// Does not fit and may not be fragmented.
    TooBig { mtu: u16 },
    /// No room for a tunnel's header.
    NoHeadroom,
}

impl Sent {
    /// Whether the packet was rewritten and goes on.
    #[inline(always)]
    pub(crate) fn is_sent(self) -> bool {
        matches!(self, Self::Whole | Self::ToFragment)
    }

    /// What becomes of the frame.
    #[inline(always)]
    pub(crate) fn verdict(self, hop: HopId, l3: u16) -> Verdict {
        match self {
            Self::Whole => Verdict::Send { hop, l3 },
            Self::ToFragment => Verdict::Fragment { hop, l3 },
            Self::Exceeded => Verdict::Exceeded { l3 },
            Self::TooBig { mtu } => Verdict::TooBig { l3, mtu },
            Self::NoHeadroom => DropReason::NoHeadroom.into(),
        }
    }
}

/// Rewrites the packet for its connection's destination or client.
#[inline(always)]
pub(crate) fn apply<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Sent {
    let l3 = usize::from(packet.l3);
    // What follows the packet is the link's padding, or more than the next link takes.
    if !frame.resize(l3 + usize::from(packet.packet_octets)) {
        return Sent::NoHeadroom;
    }
    let Some(octets) = frame.octets_mut().get_mut(l3..) else { return Sent::NoHeadroom };
    let overhead = match conn.method {
        ForwardMethod::Tunnel => paths.outer(conn.dest).map_or(0, Outer::len),
        _ => 0,
    };
    let mtu = hop.mtu.saturating_sub(u16::try_from(overhead).unwrap_or_default());
    let fits = packet.packet_octets <= mtu;
    // Linux 6.1 ip_vs_xmit.c ensure_mtu_is_adequate(): only IPv4 in a tunnel is ever cut against its
    // will.
    let obeys = pmtu_disc || F::IS_V6 || conn.method != ForwardMethod::Tunnel;
    if !fits && obeys && F::dont_fragment(octets) {
        return too_big::<F>(octets, direction, mtu);
    }
    let done = match conn.method {
        ForwardMethod::Masquerade => masquerade(conn, direction, packet, octets),
        ForwardMethod::Direct | ForwardMethod::Tunnel => F::direct(octets),
    };
    match done {
        Err(Stop::Exceeded) => return Sent::Exceeded,
        Err(Stop::Unparsed) => return Sent::NoHeadroom,
        Ok(()) => {}
    }
    if conn.method == ForwardMethod::Tunnel
        && encapsulate::<F, B>(conn, packet, paths, pmtu_disc, frame).is_none()
    {
        return Sent::NoHeadroom;
    }
    if fits { Sent::Whole } else { Sent::ToFragment }
}

/// Puts the destination's outer header before the packet.
#[inline(always)]
fn encapsulate<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    packet: &Packet<F>,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Option<()> {
    let outer = paths.outer(conn.dest)?;
    let l3 = usize::from(packet.l3);
    let mut inner = F::inner(frame.octets().get(l3..)?)?;
    inner.dont_fragment &= pmtu_disc;
    let room = isize::try_from(outer.len()).ok()?;
    if !frame.shift_front(room) {
        return None;
    }
    let place = frame.octets_mut().get_mut(l3..)?;
    outer.write(inner, paths.ident(), place).then_some(())
}

/// Destination's address and port inbound, the service's outbound.
#[inline(always)]
fn masquerade<F: Rewrite>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    octets: &mut [u8],
) -> Result<(), Stop> {
    let l4 = usize::from(packet.l4);
    let (ends, address, segment): (F::Ends, Delta, Delta) = match direction {
        Direction::Inbound => (conn.outbound.reversed(), conn.address_delta, conn.segment_delta),
        Direction::Outbound => (conn.inbound.reversed(), !conn.address_delta, !conn.segment_delta),
    };
    F::masquerade(octets, l4, conn.protocol, &ends, address, segment)
}

/// The hop limit of a packet that is quoted is one less when the sender is told by the code that
/// would have sent it (inbound), and untouched when by the router before it (outbound).
#[cold]
fn too_big<F: Rewrite>(octets: &mut [u8], direction: Direction, mtu: u16) -> Sent {
    match direction {
        Direction::Inbound if F::direct(octets).is_err() => Sent::Exceeded,
        _ => Sent::TooBig { mtu },
    }
}
