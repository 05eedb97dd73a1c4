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

use crate::admission::Settle;
use crate::atlas::is_martian;
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
use rvs_wire::flow::{Ends, Family, Key, V4, V6};
use rvs_wire::icmp::{HEADER_LEN, Kind};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Stop;
use rvs_wire::unusable::Unusable;

/// What an error goes by, beside the connections.
#[derive(Clone, Copy)]
pub(crate) struct Around<'b> {
    pub(crate) world: &'b World<'b>,
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

/// What becomes of an error that no connection knows, if `schedule_icmp` is on and a service should:
/// it opens a connection and follows it. So directors that share a VIP, each with a part of the
/// clients, find the same destination for an error that a router sent to the wrong one.
///
/// Linux 6.1 `ip_vs_core.c` `ip_vs_in_icmp()`.
#[cold]
pub(crate) fn scheduled<B: Frame>(
    (v4, v6): (&mut Conns<V4>, &mut Conns<V6>),
    settle: Settle<'_, '_, B>,
    from: (u8, u16),
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let World { snapshot, serves: [serves_v4, serves_v6], .. } = *settle.world;
    if !snapshot.tunables.schedule_icmp {
        return None;
    }
    match frame.octets().get(usize::from(l3))? >> 4 {
        4 if serves_v4 => schedule(v4, settle, from, frame, l3),
        6 if serves_v6 => schedule(v6, settle, from, frame, l3),
        _ => None,
    }
}

fn schedule<F: Local, B: Frame>(
    conns: &mut Conns<F>,
    settle: Settle<'_, '_, B>,
    from: (u8, u16),
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let Settle { world, balance, neighbors, paths, .. } = settle;
    let error = Report::<F>::read(world, frame, l3)?;
    // AH and ESP open nothing: Linux 6.1 ip_vs_proto_ah_esp.c ah_esp_conn_schedule().
    if !error.is_right || !error.has_ports {
        return None;
    }
    let ends = <F::Ends as Ends>::new((error.look.source, 0), (error.look.destination, 0));
    let mark = world.snapshot.mark::<F>(&Key { ends, protocol: error.look.protocol }, from);
    let packet = Packet { key: error.key, l3, vlan: from.1, ..Packet::default() };
    let asked = (&packet, mark);
    let mut remembered_by_nobody = None;
    let once = |conn: &Conn<F>, _: &[Hop], _: &Paths| {
        remembered_by_nobody = Some(*conn);
        DropReason::Consumed.into()
    };
    let opened = balance.open_by_error(world, conns, (neighbors, &mut *paths), asked, once)?;
    let conn = match (opened, remembered_by_nobody) {
        (Ok(index), _) => {
            conns.settle();
            *conns.table().conn(index)?
        }
        (Err(_), Some(conn)) => conn,
        (Err(verdict), None) => return Some(verdict),
    };
    let around = Around { world, hops: neighbors.hops(), paths, from };
    error.follow(&conn, Direction::Inbound, around, frame)
}

fn of_family<F: Local, B: Frame>(
    conns: &Conns<F>,
    around: Around<'_>,
    frame: &mut B,
    l3: u16,
) -> Option<Verdict> {
    let world = around.world;
    let error = Report::<F>::read(world, frame, l3)?;
    let Some(found) = conns.table().find(&error.key, conns.table().hash(&error.key)) else {
        let inbound = world.snapshot.network.is_local(error.key.ends.destination().0.into());
        let owner = world.owner(&error.key, inbound, around.from);
        let elsewhere = !world.steering.is_single() && owner != world.worker;
        return elsewhere.then_some(Verdict::Handoff(owner));
    };
    let conn = conns.table().conn(found.index)?;
    error.follow(conn, found.direction, around, frame)
}

/// An error as it was read.
struct Report<F: Local> {
    look: Look<F::Addr>,
    l3: u16,
    /// The connection that it is about.
    key: Key<F>,
    /// Whether what it quotes has ports.
    has_ports: bool,
    /// Whether its checksum is right.
    is_right: bool,
}

impl<F: Local> Report<F> {
    fn read<B: Frame>(world: &World<'_>, frame: &B, l3: u16) -> Option<Self> {
        let at = usize::from(l3);
        let look = F::look(frame.octets().get(at..)?)?;
        if look.protocol != F::PROTOCOL
            || look.is_fragment
            || !may_be_a_connections::<F>(frame, &world.snapshot.network, &look)
        {
            return None;
        }
        let packet = frame.octets().get(at..at + look.octets)?;
        if F::claimed(packet, look.l4)? != Kind::Error {
            return None;
        }
        let is_right = F::message(packet, look.l4).is_ok();
        let quote = packet.get(look.l4..)?.get(HEADER_LEN..)?;
        let quoted = F::quoted(quote).ok()??;
        let key = Key { ends: quoted.key.ends.reversed(), protocol: quoted.key.protocol };
        Some(Self { look, l3, key, has_ports: quoted.ports.is_some(), is_right })
    }

    fn follow<B: Frame>(
        &self,
        conn: &Conn<F>,
        direction: Direction,
        around: Around<'_>,
        frame: &mut B,
    ) -> Option<Verdict> {
        // What is not changed is for its receiver to check.
        if conn.method == ForwardMethod::Masquerade && !self.is_right {
            return Some(Verdict::Drop(Unusable::IcmpChecksum.into()));
        }
        let line = line_of(around.world.lines, conn)?;
        let is_outbound = direction == Direction::Outbound;
        if !is_outbound && !line.has(DestLine::AVAILABLE) {
            return Some(DropReason::DestDeleted.into());
        }
        let verdict = self.send(conn, direction, around, frame);
        // As with packets: inbound counts before it is sent, outbound after.
        let is_sent = matches!(verdict, Verdict::Send { .. } | Verdict::Fragment { .. });
        if line.has(DestLine::AVAILABLE) && (is_sent || !is_outbound) {
            let octets = u64::try_from(self.look.octets).unwrap_or_default();
            line.count_packet(is_outbound, octets);
        }
        Some(verdict)
    }

    fn send<B: Frame>(
        &self,
        conn: &Conn<F>,
        direction: Direction,
        around: Around<'_>,
        frame: &mut B,
    ) -> Verdict {
        let Around { world, hops, paths, .. } = around;
        let Some((hop_id, hop)) = hop_of(conn, direction, hops) else {
            return DropReason::NoRoute.into();
        };
        let sent = match conn.method {
            ForwardMethod::Masquerade => {
                let (is_outbound, to) = match direction {
                    Direction::Inbound => (false, conn.outbound.source()),
                    Direction::Outbound => (true, conn.inbound.destination()),
                };
                return match self.translate(frame, hop, is_outbound, to) {
                    Ok(()) => Verdict::Send { hop: hop_id, l3: self.l3 },
                    Err(reason) => reason.into(),
                };
            }
            ForwardMethod::Direct | ForwardMethod::Tunnel => {
                let Ok(packet_octets) = u16::try_from(self.look.octets) else {
                    return DropReason::TooBig.into();
                };
                let packet = Packet::<F> { l3: self.l3, packet_octets, ..Packet::default() };
                let pmtu_disc = world.snapshot.tunables.pmtu_disc;
                forward::apply_unread(conn, direction, &packet, hop, paths, pmtu_disc, frame)
            }
        };
        // Nobody is told of trouble with an error.
        match sent.verdict(hop_id, self.l3) {
            Verdict::Exceeded { .. } => DropReason::HopLimit.into(),
            Verdict::TooBig { .. } => DropReason::TooBig.into(),
            verdict => verdict,
        }
    }

    fn translate<B: Frame>(
        &self,
        frame: &mut B,
        hop: &Hop,
        is_outbound: bool,
        to: (F::Addr, u16),
    ) -> Result<(), DropReason> {
        let at = usize::from(self.l3);
        if !frame.resize(at + self.look.octets) {
            return Err(DropReason::NoHeadroom);
        }
        if self.look.octets > usize::from(hop.mtu) {
            return Err(DropReason::TooBig);
        }
        let packet = frame.octets_mut().get_mut(at..).ok_or(DropReason::NoHeadroom)?;
        F::translate_error(packet, self.look.l4, is_outbound, to).map_err(|stop| match stop {
            Stop::Exceeded => DropReason::HopLimit,
            Stop::Unparsed => DropReason::IcmpIgnored,
        })
    }
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
        && !network.is_no_host(look.source.into())
        && !is_martian(to)
        && !network.is_broadcast(to)
}

/// Where packets of a connection go, if its hop is still the one that it had when it was opened.
pub(crate) fn hop_of<'h, F: Family>(
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
