//! What each forwarding method does to a packet of a known connection.
//!
//! Linux 6.1 `ip_vs_xmit.c`: `ip_vs_nat_xmit()`, `ip_vs_dr_xmit()`, `ip_vs_tunnel_xmit()`. All three
//! take one from the hop limit, then look whether the packet fits. What depends on the
//! destination alone was computed when its first connection was opened ([`crate::paths`]).

use crate::drop_reason::DropReason;
use crate::lane::Verdict;
use crate::neighbor::{Hop, HopId};
use crate::paths::Paths;
use crate::unfinished;
use rvs_conntrack::conn::flag;
use rvs_conntrack::{Conn, Direction};
use rvs_io::Frame;
use rvs_model::ForwardMethod;
use rvs_wire::ethernet;
use rvs_wire::flow::Ends as _;
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::{Rewrite, Stop};
use rvs_wire::tunnel::Encapsulation;

/// How it went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sent {
    /// Rewritten, and the hop's Ethernet header is before it.
    Framed,
    /// Rewritten and fits.
    Whole,
    /// Rewritten; does not fit and may be fragmented.
    ToFragment { mtu: u16 },
    /// The hop limit ran out; unchanged.
    Exceeded,
    /// Does not fit and may not be fragmented.
    TooBig { mtu: u16 },
    /// To be cut into segments, each of which goes into the tunnel; unchanged.
    ToSegment,
    /// No room for a tunnel's header.
    NoHeadroom,
    /// To be read first ([`crate::ftp`]); unchanged.
    Helped,
}

impl Sent {
    /// Whether the packet was rewritten and goes on.
    #[inline(always)]
    pub(crate) fn is_sent(self) -> bool {
        matches!(self, Self::Framed | Self::Whole | Self::ToFragment { .. } | Self::ToSegment)
    }

    /// What becomes of the frame.
    pub(crate) fn verdict(self, hop: HopId, l3: u16) -> Verdict {
        match self {
            Self::Framed | Self::Whole => Verdict::Send { hop, l3 },
            Self::ToFragment { mtu } => Verdict::Fragment { hop, l3, mtu },
            Self::Exceeded => Verdict::Exceeded { l3 },
            Self::TooBig { mtu } => Verdict::TooBig { l3, mtu },
            Self::ToSegment => Verdict::Segment { l3 },
            Self::NoHeadroom | Self::Helped => DropReason::NoHeadroom.into(),
        }
    }
}

impl From<Stop> for Sent {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Exceeded => Self::Exceeded,
            Stop::Unparsed => Self::NoHeadroom,
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
    if conn.has(flag::APART) {
        return apart(conn, direction, packet, hop, paths, pmtu_disc, frame);
    }
    // What follows the packet is the link's padding, which the next link would put there again, or more
    // than that takes.
    if frame.octets().len() > PADDED && !trim(packet, frame) {
        return Sent::NoHeadroom;
    }
    let sent = in_place(conn, direction, packet, hop, frame);
    if sent != Sent::Framed && !trim(packet, frame) {
        return Sent::NoHeadroom;
    }
    sent
}

/// Octets of a frame without its checksum that links fill shorter ones up to: IEEE 802.3 section 3.2.7.
const PADDED: usize = 60;

/// Ends the frame where its packet ends; `false` if there is no room for that.
#[inline(always)]
fn trim<F: Rewrite, B: Frame>(packet: &Packet<F>, frame: &mut B) -> bool {
    frame.resize(usize::from(packet.l3) + usize::from(packet.packet_octets))
}

/// The same where the packet stays where it is.
#[inline(always)]
pub(crate) fn in_place<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    frame: &mut B,
) -> Sent {
    if packet.packet_octets > hop.mtu {
        return too_long(conn, direction, packet, hop, frame);
    }
    if usize::from(packet.l3) == ethernet::HEADER_LEN
        && let Some(header) = hop.untagged_header()
        && let Some((place, octets)) = frame.octets_mut().split_first_chunk_mut()
        && let Some(octets) = octets.get_mut(..usize::from(packet.packet_octets))
    {
        return match rewrite(conn, direction, packet, octets) {
            Ok(()) => {
                // In the room of the one that the frame came with.
                *place = *header;
                Sent::Framed
            }
            Err(stop) => stop.into(),
        };
    }
    unframed(conn, direction, packet, frame)
}

/// The same where a tag comes or goes, and the packet may have to make room for it.
#[inline(never)]
fn unframed<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    frame: &mut B,
) -> Sent {
    if !trim(packet, frame) {
        return Sent::NoHeadroom;
    }
    let Some(octets) = frame.octets_mut().get_mut(usize::from(packet.l3)..) else {
        return Sent::NoHeadroom;
    };
    match rewrite(conn, direction, packet, octets) {
        Ok(()) => Sent::Whole,
        Err(stop) => stop.into(),
    }
}

/// Writes the hop's Ethernet header into the room of the one that the frame came with, if it fits
/// there, which it nearly always does.
#[inline(always)]
fn framed(hop: &Hop, before: &mut [u8]) -> Sent {
    match (<&mut [u8; ethernet::HEADER_LEN]>::try_from(before), hop.untagged_header()) {
        (Ok(place), Some(header)) => {
            *place = *header;
            Sent::Framed
        }
        _ => Sent::Whole,
    }
}

#[inline(always)]
fn rewrite<F: Rewrite>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    octets: &mut [u8],
) -> Result<(), Stop> {
    match conn.method {
        ForwardMethod::Masquerade => masquerade(conn, direction, packet, octets),
        ForwardMethod::Direct | ForwardMethod::Tunnel => F::direct(octets),
    }
}

/// [`in_place`] for what is longer than the next link takes, unless it is to be cut into segments that
/// are not.
#[cold]
#[inline(never)]
fn too_long<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    frame: &mut B,
) -> Sent {
    let (l3, mtu) = (usize::from(packet.l3), hop.mtu);
    let fits = unfinished::fits_in_segments(frame, l3, mtu);
    let Some((before, octets)) = frame.octets_mut().split_at_mut_checked(l3) else {
        return Sent::NoHeadroom;
    };
    if !fits && F::dont_fragment(octets) {
        return too_big::<F>(octets, direction, mtu);
    }
    match rewrite(conn, direction, packet, octets) {
        Ok(()) if fits => framed(hop, before),
        Ok(()) => Sent::ToFragment { mtu },
        Err(stop) => stop.into(),
    }
}

/// The same for a connection whose packets take more.
///
/// Not part of its caller's loop, which has few enough registers as it is.
#[inline(never)]
fn apart<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Sent {
    if conn.method == ForwardMethod::Tunnel
        && let Some(sent) = wrap(conn, packet, hop, paths, pmtu_disc, frame)
    {
        return sent;
    }
    apart_by_parts(conn, direction, packet, hop, paths, pmtu_disc, frame)
}

/// What [`wrap`] does not take. Not part of its caller, which then needs few registers.
#[inline(never)]
fn apart_by_parts<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Sent {
    if !trim(packet, frame) {
        return Sent::NoHeadroom;
    }
    if conn.method == ForwardMethod::Tunnel {
        return tunnel(conn, direction, packet, hop, paths, pmtu_disc, frame);
    }
    Sent::Helped
}

/// [`apply`] for what says nothing: a connection's first packet, a later fragment, or what the
/// director made.
#[inline(always)]
pub(crate) fn apply_unread<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Sent {
    match apply(conn, direction, packet, hop, paths, pmtu_disc, frame) {
        Sent::Helped => in_place(conn, direction, packet, hop, frame),
        sent => sent,
    }
}

/// [`tunnel`] in one go for what fits, comes without a tag and goes without one: nearly all packets.
/// `None`, and nothing has changed but the frame's end, for the others.
#[inline(always)]
fn wrap<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    packet: &Packet<F>,
    hop: &Hop,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Option<Sent> {
    let (way, header) = (paths.way(conn.dest)?, hop.untagged_header()?);
    let (l3, octets, front) = (usize::from(packet.l3), packet.packet_octets, way.front());
    let fits = u32::from(octets) + u32::from(front) <= u32::from(hop.mtu.min(way.mtu()));
    if l3 != ethernet::HEADER_LEN
        || !fits
        || way.tunnel().encapsulation() != Encapsulation::Ip
        || frame.unfinished().is_some()
        || !frame.enclose(front, l3 + usize::from(octets))
    {
        return None;
    }
    // It has an Ethernet header and more.
    let Some((place, headers)) = frame.octets_mut().split_first_chunk_mut() else {
        return Some(Sent::NoHeadroom);
    };
    let entered = way.tunnel().enter::<F>(headers, pmtu_disc, paths.ident(), 0);
    if let Err(stop) = entered {
        let _as_it_was = frame.shift_front(-isize::try_from(front).unwrap_or_default());
        return Some(stop.into());
    }
    *place = *header;
    Some(Sent::Framed)
}

/// Puts the headers of the destination's tunnel before the packet.
#[inline]
fn tunnel<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    direction: Direction,
    packet: &Packet<F>,
    hop: &Hop,
    paths: &Paths,
    pmtu_disc: bool,
    frame: &mut B,
) -> Sent {
    let Some(way) = paths.way(conn.dest) else { return Sent::NoHeadroom };
    let l3 = usize::from(packet.l3);
    let mtu = hop.mtu.min(way.mtu());
    let room = mtu.saturating_sub(way.front());
    let segment = unfinished::finish(frame, l3);
    let packet_octets = segment.unwrap_or(packet.packet_octets);
    let fits = packet_octets <= room;
    if !fits
        && let Some(octets) = frame.octets_mut().get_mut(l3..)
        && let Some(most) = most_whole::<F>(room, pmtu_disc, octets)
        && packet_octets > most
    {
        return too_big::<F>(octets, direction, most);
    }
    if segment.is_some() {
        return Sent::ToSegment;
    }
    let shift = i16::try_from(way.front()).unwrap_or_default();
    if !frame.shift_front(shift.into()) {
        return Sent::NoHeadroom;
    }
    let Some((before, place)) = frame.octets_mut().split_at_mut_checked(l3) else {
        return Sent::NoHeadroom;
    };
    let flow = match way.tunnel().encapsulation() {
        Encapsulation::Gue { .. } => paths.flow_port(conn.inbound.words()),
        _ => 0,
    };
    match way.tunnel().enter::<F>(place, pmtu_disc, paths.ident(), flow) {
        Ok(()) if fits => framed(hop, before),
        Ok(()) => Sent::ToFragment { mtu },
        Err(stop) => {
            let _as_it_was = frame.shift_front((-shift).into());
            stop.into()
        }
    }
}

/// The longest packet that goes into a tunnel that has `room`, if its sender is to be told. `None`
/// for one whose outer packet may be cut.
///
/// Linux 6.1 `ip_vs_xmit.c` `ensure_mtu_is_adequate()`: only IPv4 in a tunnel is ever cut against its
/// will.
///
/// DIFFERS from Linux, which drops all packets into a tunnel that has less room than any IPv6 link:
/// IPv6 of up to 1280 octets is carried in pieces then (RFC 2473 section 7.1).
#[cold]
fn most_whole<F: Rewrite>(room: u16, pmtu_disc: bool, octets: &[u8]) -> Option<u16> {
    if F::IS_V6 {
        return Some(room.max(1280));
    }
    (pmtu_disc && F::dont_fragment(octets)).then_some(room)
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
    let (protocol, address, segment) = (conn.protocol, conn.address_delta, conn.segment_delta);
    // Two calls: a choice of ends is twelve or thirty-six octets that are copied once more.
    let done = match direction {
        Direction::Inbound => {
            F::masquerade(octets, l4, protocol, &conn.outbound.reversed(), address, segment)
        }
        Direction::Outbound => {
            F::masquerade(octets, l4, protocol, &conn.inbound.reversed(), !address, !segment)
        }
    };
    match done {
        Err(Stop::Unparsed) if l4 == 0 => masquerade_later(conn, direction, octets),
        done => done,
    }
}

/// The same for a fragment that is not its packet's first.
#[cold]
fn masquerade_later<F: Rewrite>(
    conn: &Conn<F>,
    direction: Direction,
    octets: &mut [u8],
) -> Result<(), Stop> {
    let (ends, delta) = match direction {
        Direction::Inbound => (conn.outbound.reversed(), conn.address_delta),
        Direction::Outbound => (conn.inbound.reversed(), !conn.address_delta),
    };
    F::masquerade_fragment(octets, &ends, delta)
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
