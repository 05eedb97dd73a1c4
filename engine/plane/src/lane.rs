//! One address family's way through a worker: its connections, and the stages of a burst.
//!
//! ```text
//!  take: hash, ask for the bucket │ locate: match tags, ask   │ forward: compare, state, count,
//!  one loop over the burst        │ for the connections       │ rewrite: what most packets see
//!                                 │                           │
//!                                 └ admit: the rest, in order: other bucket, handoff, new
//! ```
//!
//! No stage waits for memory that an earlier one could have asked for. A verdict says what becomes
//! of a frame; [`crate::worker`] carries it out.

use crate::admission::{Admission, Known, Settle};
use crate::balance::Balance;
use crate::drop_reason::{DropIndex, DropReason};
use crate::forward::{self, Sent};
use crate::ftp::{Helper, Talks};
use crate::handoff::Mesh;
use crate::icmp::Local;
use crate::neighbor::{Hop, HopId, Neighbors, peer};
use crate::paths::Paths;
use crate::shared::FrameCounters;
use crate::snapshot::{ServiceKey, Snapshot};
use crate::steering::Steering;
use arrayvec::ArrayVec;
use rvs_conntrack::conn::flag as unusual;
use rvs_conntrack::{Conn, Conns, Direction, Found, Hash, Held, state};
use rvs_io::{BURST_MAX, Frame};
use rvs_model::{DestLine, ForwardMethod, State, Tick};
use rvs_wire::flow::{Ends as _, Key, protocol};
use rvs_wire::icmp;
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;
use rvs_wire::tcp::flag;

/// What becomes of a frame whose IP header begins at `l3`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Rewritten, its Ethernet header included: send it.
    Out { link: u8 },
    /// Rewritten: put the hop's Ethernet header before it and send it.
    Send { hop: HopId, l3: u16 },
    /// The same, in pieces that fit.
    Fragment { hop: HopId, l3: u16, mtu: u16 },
    /// Not a connection's: for the director itself, or to be routed.
    Stack { l3: u16, vlan: u16 },
    /// Another worker's.
    Handoff(u16),
    /// The hop limit ran out: tell the sender.
    Exceeded { l3: u16 },
    /// Too long for the next link: tell the sender what fits.
    TooBig { l3: u16, mtu: u16 },
    /// A long frame into a tunnel: its segments one by one.
    Segment { l3: u16 },
    /// No destination takes connections: tell the client.
    NoDest { l3: u16 },
    /// A connection that is to be reset, to both sides.
    Cut { l3: u16, vlan: u16 },
    /// A real server answers nobody: tell it.
    NoConn { l3: u16 },
    /// Free it and count why.
    Drop(DropIndex),
}

/// One for each frame of the largest burst: a frame's number in eight bits is always one of them.
pub(crate) type Verdicts = [Verdict; BURST_MAX];

const _: () = assert!(BURST_MAX == 1 << u8::BITS);

impl From<DropReason> for Verdict {
    #[inline]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason.into())
    }
}

/// What does not change during a breath.
pub(crate) struct World<'b> {
    pub(crate) snapshot: &'b Snapshot,
    pub(crate) lines: &'b [DestLine],
    pub(crate) steering: &'b Steering,
    pub(crate) frames: &'b FrameCounters,
    pub(crate) worker: u16,
    /// Whether there is a service of IPv4, and of IPv6.
    pub(crate) serves: [bool; 2],
    pub(crate) now: Tick,
    /// The link that each frame of the burst came from.
    pub(crate) origins: &'b [u8],
}

impl World<'_> {
    /// Whose a packet is that came in through `vlan` of `link`: ADR 0002.
    pub(crate) fn owner<F: Rewrite>(
        &self,
        key: &Key<F>,
        is_inbound: bool,
        (link, vlan): (u8, u16),
    ) -> u16 {
        let Snapshot { grains, .. } = self.snapshot;
        if grains.is_empty() {
            return self.steering.owner(key, is_inbound);
        }
        let mask = if is_inbound {
            let mark = self.snapshot.mark(key, (link, vlan));
            let service = self.snapshot.service(mark, &ServiceKey::of(key));
            service.and_then(|service| grains.of_service(service.id))
        } else {
            let (server, port) = key.ends.source();
            grains.of_reply((server.into(), port))
        };
        self.steering.owner_by(key, is_inbound, mask)
    }
}

/// Destinations whose counters stay in the nearest cache: with more, a packet asks for those of the
/// packets that come [`LOOK_AHEAD`] behind it, whose connections have arrived by then.
const LINES_NEAR: usize = 256;
const LOOK_AHEAD: usize = 8;

/// One packet of the burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<F: Rewrite> {
    pub(crate) packet: Packet<F>,
    pub(crate) hash: Hash,
    pub(crate) found: Found,
    /// Its place in the burst.
    pub(crate) frame: u8,
}

/// The connections of one family, and its part of the burst.
pub(crate) struct Lane<F: Rewrite> {
    pub(crate) conns: Conns<F>,
    pub(crate) talks: Talks<F>,
    slots: ArrayVec<Slot<F>, BURST_MAX>,
    strays: ArrayVec<u16, BURST_MAX>,
}

impl<F: Local> Lane<F> {
    pub(crate) fn new(conns: Conns<F>) -> Self {
        let talks = Talks::new(conns.table().capacity());
        Self { conns, talks, slots: ArrayVec::new(), strays: ArrayVec::new() }
    }

    /// Stage 3, for each packet: asks for the bucket where its connection should be.
    #[inline(always)]
    pub(crate) fn take(&mut self, packet: Packet<F>, frame: u8) {
        let hash = self.conns.table().hash(&packet.key);
        self.conns.table().touch(hash);
        let _fits = self.slots.try_push(Slot { packet, hash, found: Found::default(), frame });
    }

    /// In place of the other stages while no service has this family: nothing is a connection's,
    /// not even what connections are left of.
    #[cold]
    pub(crate) fn leave_to_stack(&mut self, verdicts: &mut Verdicts) {
        for slot in self.slots.drain(..) {
            if let Some(verdict) = verdicts.get_mut(usize::from(slot.frame)) {
                let Packet { l3, vlan, .. } = slot.packet;
                *verdict = Verdict::Stack { l3, vlan };
            }
        }
    }

    /// Stage 4: asks for the connections.
    #[inline(always)]
    pub(crate) fn locate(&mut self) {
        let guesser = self.conns.table().guesser();
        for slot in &mut self.slots {
            slot.found = guesser.guess(slot.hash);
        }
    }

    /// Stage 5: what packets of known connections need. The others are left for [`Lane::admit`].
    #[inline(never)]
    pub(crate) fn forward<B: Frame>(
        &mut self,
        world: &World<'_>,
        hops: &[Hop],
        paths: &Paths,
        frames: &mut [B],
        verdicts: &mut Verdicts,
    ) {
        let lines_are_far = world.lines.len() > LINES_NEAR;
        for (slots, first) in self.slots.chunks(LOOK_AHEAD).zip((0u16..).step_by(LOOK_AHEAD)) {
            if lines_are_far {
                self.touch_lines(world.lines, usize::from(first) + LOOK_AHEAD);
            }
            for (slot, number) in slots.iter().zip(first..) {
                let at = usize::from(slot.frame);
                let (Some(frame), Some(verdict)) = (frames.get_mut(at), verdicts.get_mut(at))
                else {
                    continue;
                };
                let place = (frame, verdict);
                if !known::<F, B, false>(&mut self.conns, world, hops, paths, slot, place) {
                    let _fits = self.strays.try_push(number);
                }
            }
        }
    }

    /// Asks for the counters that the packets in the slots from `first` on will need.
    #[inline]
    fn touch_lines(&self, lines: &[DestLine], first: usize) {
        for slot in self.slots.iter().skip(first).take(LOOK_AHEAD) {
            if let Some(conn) = self.conns.table().conn(slot.found.index)
                && let Some(line) = line_of(lines, conn)
            {
                rvs_cache::prefetch(line);
            }
        }
    }

    /// Stage 6, for packets whose connection was not where it was guessed: it lives away from
    /// home, is new, or needs a second thought. In order, so that a packet finds what an earlier
    /// one opened.
    #[inline(always)]
    pub(crate) fn admit<B: Frame>(
        &mut self,
        world: &World<'_>,
        balance: &mut Balance,
        neighbors: &mut Neighbors<B>,
        (paths, mesh): (&mut Paths, &Mesh<B>),
        (frames, verdicts): (&mut [B], &mut Verdicts),
    ) {
        balance.quota.known(self.slots.len() - self.strays.len());
        if !self.strays.is_empty() {
            self.admit_strays(world, balance, neighbors, (paths, mesh), (frames, verdicts));
        }
        self.conns.settle();
        self.slots.clear();
        self.strays.clear();
    }

    #[inline(never)]
    fn admit_strays<B: Frame>(
        &mut self,
        world: &World<'_>,
        balance: &mut Balance,
        neighbors: &mut Neighbors<B>,
        (paths, mesh): (&mut Paths, &Mesh<B>),
        (frames, verdicts): (&mut [B], &mut Verdicts),
    ) {
        for (number, ahead) in self.strays.iter().zip(0..) {
            if let Some(slot) = self.slots.get(usize::from(*number)) {
                self.conns.table().touch_other(slot.hash);
                self.conns.table().touch_free(ahead);
            }
        }
        let settle = Settle { world, balance, neighbors, paths, mesh };
        let mut admission = Admission { settle, asked: None, ours: None };
        for number in &self.strays {
            let Some(slot) = self.slots.get_mut(usize::from(*number)) else { continue };
            let at = usize::from(slot.frame);
            let (Some(frame), Some(verdict)) = (frames.get_mut(at), verdicts.get_mut(at)) else {
                continue;
            };
            let (conns, talks) = (&mut self.conns, &mut self.talks);
            let inbound = admission.is_inbound(&slot.packet.key);
            match admission.find(conns, talks, slot, inbound) {
                Ok(Known::Held(found)) => {
                    slot.found = found;
                    let Settle { balance, neighbors, paths, .. } = &mut admission.settle;
                    let (hops, paths) = (neighbors.hops(), &**paths);
                    if is_helped(conns, found) {
                        let mut helper = Helper { world, conns, talks, balance, hops, mesh };
                        *verdict = helper.forward(found, &slot.packet, frame);
                        continue;
                    }
                    let place = (frame, &mut *verdict);
                    if !known::<F, B, true>(conns, world, hops, paths, slot, place) {
                        *verdict = DropReason::NoRoute.into();
                    }
                }
                Ok(Known::Not { over }) => {
                    admission.open(conns, talks, slot, (inbound, over), (frame, verdict));
                }
                Err(other) => *verdict = other,
            }
        }
    }
}

/// Whether what the packets of the connection at `found` say is to be read.
#[inline]
fn is_helped<F: Rewrite>(conns: &Conns<F>, found: Found) -> bool {
    conns.table().conn(found.index).is_some_and(|conn| conn.has(unusual::HELPED))
}

/// Moves the state, counts and rewrites, if the slot's guess is its connection and nothing needs a
/// second thought; `false` otherwise, and nothing has changed then.
///
/// `KEPT` says that [`Settle`] has found or opened it: the second thought is done, and its hop keeps
/// its place for this breath, so that a packet may wait there for the hop to be resolved.
#[inline(always)]
fn known<F: Rewrite, B: Frame, const KEPT: bool>(
    conns: &mut Conns<F>,
    world: &World<'_>,
    hops: &[Hop],
    paths: &Paths,
    slot: &Slot<F>,
    place: (&mut B, &mut Verdict),
) -> bool {
    match slot.found.direction {
        Direction::Inbound => going::<F, B, KEPT, false>(conns, world, hops, paths, slot, place),
        Direction::Outbound => going::<F, B, KEPT, true>(conns, world, hops, paths, slot, place),
    }
}

/// [`known`] for one direction: what depends on it is decided once.
#[inline(always)]
fn going<F: Rewrite, B: Frame, const KEPT: bool, const OUTBOUND: bool>(
    conns: &mut Conns<F>,
    world: &World<'_>,
    hops: &[Hop],
    paths: &Paths,
    slot: &Slot<F>,
    (frame, verdict): (&mut B, &mut Verdict),
) -> bool {
    let direction = if OUTBOUND { Direction::Outbound } else { Direction::Inbound };
    let (packet, found) = (&slot.packet, Found { direction, ..slot.found });
    let Some(mut conn) = conns.held(found, &packet.key) else { return false };
    let Some(line) = line_of(world.lines, &conn) else { return false };
    if !KEPT && !OUTBOUND && needs_thought(&conn, line, packet.flags, world) {
        return false;
    }
    let hop_id = if OUTBOUND { conn.client_hop } else { conn.next_hop };
    let Some(hop) = hops.get(usize::from(hop_id)) else { return false };
    let towards = if OUTBOUND { conn.inbound.source().0 } else { conn.outbound.source().0 };
    if !hop.leads_to(peer(towards.into())) || !KEPT && !hop.is_ready() {
        return false;
    }
    let pmtu_disc = world.snapshot.tunables.pmtu_disc;
    let sent = forward::apply(&conn, direction, packet, hop, paths, pmtu_disc, frame);
    if sent == Sent::Framed {
        *verdict = Verdict::Out { link: hop.link };
        note(&mut conn, line, packet, OUTBOUND, world.now);
        true
    } else {
        *verdict = sent.verdict(hop_id, packet.l3);
        note_unframed(conn, line, packet, sent, OUTBOUND, world.now)
    }
}

/// The same as [`note`] for a packet that does not simply go out; `false` if it is to be read first.
#[cold]
#[inline(never)]
fn note_unframed<F: Rewrite>(
    mut conn: Held<'_, F>,
    line: &DestLine,
    packet: &Packet<F>,
    sent: Sent,
    is_outbound: bool,
    now: Tick,
) -> bool {
    if sent == Sent::Helped {
        return false;
    }
    // Linux 6.1 checks an outbound packet's hop limit and length in ip_forward(), before IPVS sees
    // it; an inbound one's in ip_vs_xmit.c, after it was counted.
    if sent.is_sent() || !is_outbound {
        note(&mut conn, line, packet, is_outbound, now);
        if !sent.is_sent() && conn.method != ForwardMethod::Masquerade {
            count_refusal::<F>(line, packet.packet_octets);
        }
    }
    true
}

/// Counts and rewrites the packet that opened `conn`, whose hop was looked up just now and whose
/// state has moved already.
#[inline(always)]
pub(crate) fn first<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    world: &World<'_>,
    (hops, paths): (&[Hop], &Paths),
    packet: &Packet<F>,
    (frame, verdict): (&mut B, &mut Verdict),
) {
    let (Some(line), Some(hop)) =
        (line_of(world.lines, conn), hops.get(usize::from(conn.next_hop)))
    else {
        *verdict = DropReason::NoRoute.into();
        return;
    };
    let pmtu_disc = world.snapshot.tunables.pmtu_disc;
    let way = Direction::Inbound;
    // It says nothing yet that would have to be read.
    let sent = forward::apply_unread(conn, way, packet, hop, paths, pmtu_disc, frame);
    line.count_packet(false, packet.packet_octets.into());
    if sent == Sent::Framed {
        *verdict = Verdict::Out { link: hop.link };
        return;
    }
    if !sent.is_sent() && conn.method != ForwardMethod::Masquerade {
        count_refusal::<F>(line, packet.packet_octets);
    }
    *verdict = sent.verdict(conn.next_hop, packet.l3);
}

/// The same for a connection that nobody remembers: `-o`.
#[cold]
#[inline(never)]
pub(crate) fn first_and_last<F: Rewrite, B: Frame>(
    conn: &Conn<F>,
    world: &World<'_>,
    way: (&[Hop], &Paths),
    packet: &Packet<F>,
    frame: &mut B,
) -> Verdict {
    let mut verdict = DropReason::NoRoute.into();
    first(conn, world, way, packet, (frame, &mut verdict));
    verdict
}

/// Counts a packet of a connection and moves its state.
#[inline(always)]
pub(crate) fn note<F: Rewrite>(
    conn: &mut Held<'_, F>,
    line: &DestLine,
    packet: &Packet<F>,
    is_outbound: bool,
    now: Tick,
) {
    // Linux 6.1 ip_vs_core.c ip_vs_out_stats(): nothing for a destination that was deleted.
    if line.has(DestLine::AVAILABLE) {
        line.count_packet(is_outbound, packet.packet_octets.into());
    }
    if let Some(before) = conn.packet(packet.flags, now) {
        moved(line, before, conn.state);
    }
}

/// Counts a connection that left one state for another.
#[inline(never)]
pub(crate) fn moved(line: &DestLine, before: State, after: State) {
    if before.is_active() != after.is_active() {
        line.step_load(before.is_active(), false);
        line.step_load(after.is_active(), true);
    }
}

/// Counts the error that tells a client that its packet of `octets` goes no further.
///
/// Linux 6.1 `ip_vs_core.c` `ip_vs_out_icmp()` sees it leave and counts it outbound where the packet
/// that it quotes, to the VIP, is found as one to the destination: without masquerading.
#[cold]
fn count_refusal<F: Rewrite>(line: &DestLine, octets: u16) {
    let most = if F::IS_V6 { 1280 } else { 576 };
    let octets = (F::HEADER_LEN + icmp::HEADER_LEN + usize::from(octets)).min(most);
    line.count_packet(true, u64::try_from(octets).unwrap_or_default());
}

/// The counters of a connection's destination.
#[inline(always)]
pub(crate) fn line_of<'l, F: Rewrite>(
    lines: &'l [DestLine],
    conn: &Conn<F>,
) -> Option<&'l DestLine> {
    lines.get(usize::try_from(conn.dest.0).ok()?)
}

/// Whether an inbound packet may not simply follow its connection: the destination is gone, or it
/// is a SYN that may begin another connection.
#[inline(always)]
fn needs_thought<F: Rewrite>(
    conn: &Conn<F>,
    line: &DestLine,
    flags: u8,
    world: &World<'_>,
) -> bool {
    !line.is_plain() && !line.is_followed(conn.protocol == protocol::UDP)
        || flags & flag::SYN != 0 && begins_anew(conn, line, world)
}

/// Linux 6.1 `ip_vs_core.c` `ip_vs_in()` with `is_new_conn_expected()`.
#[cold]
pub(crate) fn begins_anew<F: Rewrite>(conn: &Conn<F>, line: &DestLine, world: &World<'_>) -> bool {
    let tunables = &world.snapshot.tunables;
    if tunables.expire_nodest_conn && line.has(DestLine::DRAINED) {
        return true;
    }
    // Another controls it: a template, or FTP's control connection.
    if conn.control != 0 {
        return false;
    }
    let no_output = conn.method != ForwardMethod::Masquerade;
    state::is_reused(tunables.conn_reuse_mode, conn.state, no_output)
}

/// Lines looked at per breath and family while connections of some destinations are ended.
const PURGE_BUDGET: u32 = 128;

/// Ends those connections, among the next lines from `from` on, whose destination is marked so, and
/// says where to go on; `None` at the end.
///
/// Linux 6.1 `ip_vs_conn.c` `ip_vs_expire_nodest_conn_flush()`.
pub(crate) fn purge<F: Rewrite>(
    conns: &mut Conns<F>,
    lines: &[DestLine],
    from: u32,
) -> Option<u32> {
    let mut gone = ArrayVec::<u32, BURST_MAX>::new();
    let next = conns.table().scan(from, PURGE_BUDGET, |index, conn| {
        let is_udp = conn.protocol == protocol::UDP;
        let ends =
            |line: &DestLine| line.has(DestLine::ENDS) || is_udp && line.has(DestLine::ENDS_UDP);
        if line_of(lines, conn).is_none_or(ends) {
            let _fits = gone.try_push(index);
        }
    });
    for index in gone {
        // Its template, which leads to the same destination, goes with the last one.
        let template = conns.table().conn(index).map_or(0, Conn::template_line);
        conns.end(index, |conn| forget(lines, conn));
        conns.end(template, |conn| forget(lines, conn));
    }
    next
}

/// Takes a connection that is gone off its destination's count.
#[inline]
pub(crate) fn forget<F: Rewrite>(lines: &[DestLine], conn: &Conn<F>) {
    let Some(line) = line_of(lines, conn) else { return };
    if conn.is_template() {
        line.step_templates(false);
    } else if !conn.has(unusual::SHADOW) {
        line.step_load(conn.state.is_active(), false);
    }
}
