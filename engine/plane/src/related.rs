//! ICMP errors about packets of connections: they follow the connection, translated.
//!
//! ```text
//!  client side                        director                          destination's side
//!  error about VIP → client  ──────►  found inbound:  to the destination, quoting it
//!  from the VIP              ◄──────  found outbound: error about client → destination
//! ```
//!
//! An error quotes the packet that failed, which went the other way; so the quoted ends, turned
//! round, are the connection's key. Linux 6.1 `ip_vs_core.c` `ip_vs_in_icmp()`, `ip_vs_out_icmp()` and
//! their IPv6 twins: errors are counted, and never move a state or a timer.

use crate::balance::{is_martian, is_no_host};
use crate::drop_reason::DropReason;
use crate::forward;
use crate::icmp::{Local, Look};
use crate::lane::{Verdict, World, line_of};
use crate::neighbor::{Hop, HopId, peer};
use crate::network::Network;
use crate::paths::Paths;
use rvs_conntrack::{Conn, Conns, Direction};
use rvs_io::Frame;
use rvs_model::{DestLine, ForwardMethod};
use rvs_wire::ethernet::Ethernet;
use rvs_wire::flow::{Ends as _, Key, V4, V6};
use rvs_wire::icmp::{HEADER_LEN, Kind};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Stop;
use rvs_wire::unusable::Unusable;

/// What an error goes by, beside the connections.
#[derive(Clone, Copy)]
pub(crate) struct Around<'b> {
    pub(crate) world: World<'b>,
    pub(crate) hops: &'b [Hop],
    pub(crate) paths: &'b Paths,
    /// Link and VLAN that it came in through.
    pub(crate) from: (u8, u16),
}

/// What becomes of a packet that no service took, if it is an error about a connection's packet;
/// `None` if it is anything else.
#[cold]
pub(crate) fn verdict<B: Frame>(
    (v4, v6): (&Conns<V4>, &Conns<V6>),
    around: Around<'_>,
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let [serves_v4, serves_v6] = around.world.serves;
    match frame.octets().get(usize::from(l3))? >> 4 {
        4 if serves_v4 => of_family(v4, around, frame, l3),
        6 if serves_v6 => of_family(v6, around, frame, l3),
        _ => None,
    }
}

fn of_family<F: Local, B: Frame>(
    conns: &Conns<F>,
    around: Around<'_>,
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let world = around.world;
    let at = usize::from(l3);
    let look = F::look(frame.octets().get(at..)?)?;
    if look.protocol != F::PROTOCOL
        || look.is_fragment
        || !may_be_a_connections::<F>(frame, &world.snapshot.network, &look)
    {
        return None;
    }
    let packet = frame.octets().get(at..at + look.octets)?;
    let message = F::message(packet, look.l4);
    if message.is_ok_and(|(kind, _)| kind != Kind::Error) {
        return None;
    }
    let quote = packet.get(look.l4..)?.get(HEADER_LEN..)?;
    let quoted = F::quoted(quote).ok()??;
    let key = Key { ends: quoted.key.ends.reversed(), protocol: quoted.key.protocol };
    let Some(found) = conns.table().find(&key, conns.table().hash(&key)) else {
        let inbound = world.snapshot.network.is_local(key.ends.destination().0.into());
        let owner = world.owner(&key, inbound, around.from);
        let elsewhere = !world.steering.is_single() && owner != world.worker;
        return elsewhere.then_some(Verdict::Handoff(owner));
    };
    if message.is_err() {
        return Some(Verdict::Drop(Unusable::IcmpChecksum.into()));
    }
    let conn = *conns.table().conn(found.index)?;
    let line = line_of(world.lines, &conn)?;
    let is_outbound = found.direction == Direction::Outbound;
    if !is_outbound && !line.has(DestLine::AVAILABLE) {
        return Some(DropReason::DestDeleted.into());
    }
    let error = Error { conn: &conn, direction: found.direction, look, l3 };
    let verdict = error.send(around, frame);
    // As with packets: inbound counts before it is sent, outbound after.
    let is_sent = matches!(verdict, Verdict::Send { .. } | Verdict::Fragment { .. });
    if line.has(DestLine::AVAILABLE) && (is_sent || !is_outbound) {
        line.count_packet(is_outbound, u64::try_from(look.octets).unwrap_or_default());
    }
    Some(verdict)
}

/// Whether a packet that the lanes did not take may be related to a connection at all: it is for this
/// MAC address, and from and to addresses that hosts have.
pub(crate) fn may_be_a_connections<F: Local>(
    frame: &impl Frame,
    network: &Network,
    look: &Look<F::Addr>,
) -> bool {
    let to = look.destination.into();
    let is_unicast = Ethernet::parse(frame.octets())
        .is_ok_and(|(ethernet, _)| !ethernet.destination().is_multicast());
    is_unicast
        && !is_no_host(network, look.source.into())
        && !is_martian(to)
        && !network.is_broadcast(to)
}

/// Where packets of a connection go, if its hop is still the one that it had when it was opened.
pub(crate) fn hop_of<'h, F: Local>(
    conn: &Conn<F>,
    direction: Direction,
    hops: &'h [Hop],
) -> Option<(HopId, &'h Hop)> {
    let (id, towards) = match direction {
        Direction::Inbound => (conn.next_hop, conn.outbound.source().0),
        Direction::Outbound => (conn.client_hop, conn.inbound.source().0),
    };
    let hop = hops.get(usize::from(id)).filter(|hop| hop.leads_to(peer(towards.into())))?;
    Some((id, hop))
}

/// An error and the connection that it is about.
struct Error<'c, F: Local> {
    conn: &'c Conn<F>,
    direction: Direction,
    look: Look<F::Addr>,
    l3: u16,
}

impl<F: Local> Error<'_, F> {
    fn send<B: Frame>(&self, around: Around<'_>, frame: &mut B) -> Verdict {
        let Around { world, hops, paths, .. } = around;
        let conn = self.conn;
        let Some((hop_id, hop)) = hop_of(conn, self.direction, hops) else {
            return DropReason::NoRoute.into();
        };
        let sent = match conn.method {
            ForwardMethod::Masquerade => match self.translate(frame, hop) {
                Ok(()) => return Verdict::Send { hop: hop_id, l3: self.l3 },
                Err(reason) => return reason.into(),
            },
            ForwardMethod::Direct | ForwardMethod::Tunnel => {
                let Ok(packet_octets) = u16::try_from(self.look.octets) else {
                    return DropReason::TooBig.into();
                };
                let packet = Packet::<F> { l3: self.l3, packet_octets, ..Packet::default() };
                let pmtu_disc = world.snapshot.tunables.pmtu_disc;
                forward::apply(conn, self.direction, &packet, hop, paths, pmtu_disc, frame)
            }
        };
        // Nobody is told of trouble with an error.
        match sent.verdict(hop_id, self.l3) {
            Verdict::Exceeded { .. } => DropReason::HopLimit.into(),
            Verdict::TooBig { .. } => DropReason::TooBig.into(),
            verdict => verdict,
        }
    }

    fn translate<B: Frame>(&self, frame: &mut B, hop: &Hop) -> Result<(), DropReason> {
        let at = usize::from(self.l3);
        if !frame.resize(at + self.look.octets) {
            return Err(DropReason::NoHeadroom);
        }
        if self.look.octets > usize::from(hop.mtu) {
            return Err(DropReason::TooBig);
        }
        let packet = frame.octets_mut().get_mut(at..).ok_or(DropReason::NoHeadroom)?;
        let (is_outbound, to) = match self.direction {
            Direction::Inbound => (false, self.conn.outbound.source()),
            Direction::Outbound => (true, self.conn.inbound.destination()),
        };
        F::translate_error(packet, self.look.l4, is_outbound, to).map_err(|stop| match stop {
            Stop::Exceeded => DropReason::HopLimit,
            Stop::Unparsed => DropReason::IcmpIgnored,
        })
    }
}
