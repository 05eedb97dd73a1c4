//! ICMP errors about the director's own tunnel packets: whoever sent what was inside is told.
//!
//! ```text
//!  router ─► director   ICMP ┼ outer IP director → destination ┼ … ┼ IP client → VIP … ┤
//!  director ─► client   ICMP ┼                                       IP client → VIP … ┤   from the VIP
//! ```
//!
//! Linux 6.1 `ip_vs_core.c` `ip_vs_in_icmp()`. News of a path's MTU is kept ([`crate::path_mtu`]), so
//! that the next packet that is too long is refused here.
//!
//! Anybody can send an error. One is believed only if it quotes a packet of a connection, wrapped
//! exactly as packets of this connection to its destination are, and comes to the address that the
//! tunnel begins at; a path's MTU can only shrink, to a floor, for ten minutes.
//!
//! DIFFERS from Linux, which heeds ICMP errors about tunnels of IPv4 in IPv4 alone, so that packets
//! too large for the path of another tunnel vanish: here what is told of a path's MTU counts for all
//! four combinations (RFC 2473 section 8.1). It does not if too little is quoted to tell whose packet
//! it was, which Linux believes about GUE.

use crate::drop_reason::{DropIndex, DropReason};
use crate::icmp::Local;
use crate::lane::{World, line_of};
use crate::neighbor::Hop;
use crate::paths::{Paths, Way};
use rvs_conntrack::{Conn, Conns, Direction};
use rvs_model::{DestLine, ForwardMethod};
use rvs_wire::flow::{Ends as _, Key, V4, V6, protocol};
use rvs_wire::icmp::{Error, HEADER_LEN, Kind};
use rvs_wire::rewrite::Rewrite;
use rvs_wire::tunnel::{self, Tunnelled};

/// What becomes of such an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Another worker has the connection.
    Handoff(u16),
    /// The sender of the packet that begins at `at` in the frame and is quoted up to `end` is told.
    Tell {
        /// From the beginning of the frame.
        at: usize,
        /// From the beginning of the frame.
        end: usize,
        /// What to tell.
        error: Error,
    },
    /// Nobody is.
    Drop(DropIndex),
}

impl From<DropReason> for Outcome {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason.into())
    }
}

/// The error, read.
struct News<'p> {
    message_type: u8,
    code: u8,
    /// Octets 4 to 8.
    rest: [u8; 4],
    /// Where the quoted packet begins in the frame.
    quote: usize,
    about: Tunnelled<'p>,
    over_v6: bool,
}

impl News<'_> {
    /// What the path takes, if that is the news; RFC 1191 section 4, RFC 4443 section 3.2.
    fn mtu(&self) -> Option<u16> {
        let [_, _, a, b] = self.rest;
        match (self.over_v6, self.message_type, self.code) {
            (false, 3, 4) => Some(u16::from_be_bytes([a, b])),
            (true, 2, _) => Some(u16::try_from(u32::from_be_bytes(self.rest)).unwrap_or(u16::MAX)),
            _ => None,
        }
    }
}

/// What becomes of a packet that no service took, if it is an error about a tunnel of ours; `None`
/// if it is anything else.
#[cold]
pub(crate) fn outcome(
    (v4, v6): (&Conns<V4>, &Conns<V6>),
    world: &World<'_>,
    hops: &[Hop],
    paths: &mut Paths,
    frame: &[u8],
    l3: u16,
) -> Option<Outcome> {
    let news = match frame.get(usize::from(l3))? >> 4 {
        4 => read::<V4>(world, frame, l3.into())?,
        6 => read::<V6>(world, frame, l3.into())?,
        _ => return None,
    };
    let news = match news {
        Ok(news) => news,
        Err(reason) => return Some(Outcome::Drop(reason)),
    };
    Some(match news.about.protocol {
        protocol::IPV6 => settle::<V6>(v6, world, hops, paths, &news),
        _ => settle::<V4>(v4, world, hops, paths, &news),
    })
}

/// The error, if it is one about a packet from where our tunnel to the packet's destination would
/// begin. Then it is nothing else, whether or not there is such a tunnel.
fn read<'p, F: Local>(
    world: &World<'_>,
    frame: &'p [u8],
    l3: usize,
) -> Option<Result<News<'p>, DropIndex>> {
    let look = F::look(frame.get(l3..)?)?;
    if look.protocol != F::PROTOCOL || look.is_fragment {
        return None;
    }
    let packet = frame.get(l3..l3 + look.octets)?;
    let message = packet.get(look.l4..)?;
    let (header, quote) = message.split_first_chunk::<HEADER_LEN>()?;
    let about = tunnel::open(quote)?;
    let network = &world.snapshot.network;
    if network.source_towards(about.destination) != Some(about.source)
        || look.destination.into() != about.source
    {
        return None;
    }
    let [message_type, code, _, _, rest @ ..] = *header;
    let quote = l3 + look.l4 + HEADER_LEN;
    match F::message(packet, look.l4) {
        Ok((Kind::Error, _)) => {
            Some(Ok(News { message_type, code, rest, quote, about, over_v6: F::IS_V6 }))
        }
        Ok(_) => None,
        Err(unusable) => Some(Err(unusable.into())),
    }
}

/// `F` is the family inside.
fn settle<F: Local>(
    conns: &Conns<F>,
    world: &World<'_>,
    hops: &[Hop],
    paths: &mut Paths,
    news: &News<'_>,
) -> Outcome {
    let about = &news.about;
    let Ok(Some(quoted)) = F::quoted(about.packet) else { return DropReason::IcmpIgnored.into() };
    let table = conns.table();
    // The quoted packet went to the destination, so its ends are the connection's as they stand.
    let Some(found) = table.find(&quoted.key, table.hash(&quoted.key)) else {
        let owner = world.owner(&quoted.key, true, came_through(world, &quoted.key));
        let elsewhere = !world.steering.is_single() && owner != world.worker;
        return if elsewhere { Outcome::Handoff(owner) } else { DropReason::IcmpIgnored.into() };
    };
    let conn = table.conn(found.index).filter(|conn| {
        found.direction == Direction::Inbound
            && conn.method == ForwardMethod::Tunnel
            && paths.is_way(conn.dest, (about.source, about.destination), about.encapsulation)
    });
    let Some(conn) = conn else { return DropReason::IcmpIgnored.into() };
    let hop_mtu = hops.get(usize::from(conn.next_hop)).map_or(u16::MAX, |hop| hop.mtu);
    let error = match news.mtu() {
        Some(mtu) => {
            let before = paths.way(conn.dest).map_or(hop_mtu, |way| hop_mtu.min(way.known_mtu()));
            paths.learn_mtu(about.destination, mtu, before, world.now);
            match paths.way(conn.dest).and_then(|way| too_big::<F>(way, hop_mtu, about)) {
                Some(error) => error,
                None => return DropReason::Consumed.into(),
            }
        }
        None if news.over_v6 || F::IS_V6 => return DropReason::IcmpIgnored.into(),
        None => {
            let News { message_type, code, rest, .. } = *news;
            Error::Relayed { message_type, code, rest }
        }
    };
    // What a router puts behind the quote (RFC 4884) is not the packet's.
    let at = news.quote + about.octets;
    let end = at + about.packet.len();
    count::<F>(conn, world, end - at);
    Outcome::Tell { at, end, error }
}

/// Link and VLAN that packets of this client come in through, on which a mark may depend: those of the
/// way back to it, for the error came in through others.
fn came_through<F: Rewrite>(world: &World<'_>, key: &Key<F>) -> (u8, u16) {
    let network = &world.snapshot.network;
    let hop = network.next_hop(key.ends.source().0.into());
    let interface = hop.and_then(|hop| network.interface(hop.interface));
    interface.map(|interface| (interface.link, interface.vlan)).unwrap_or_default()
}

/// What the client is told of the path's MTU; nothing if its packet may be cut.
fn too_big<F: Local>(way: &Way, hop_mtu: u16, about: &Tunnelled<'_>) -> Option<Error> {
    if !F::dont_fragment(about.packet) {
        return None;
    }
    let known = hop_mtu.min(way.known_mtu()).saturating_sub(way.front());
    if F::IS_V6 {
        // RFC 2473 section 7.1: one of up to 1280 octets goes in pieces from now on.
        let mtu = known.max(1280);
        return (F::inner(about.packet)?.octets > mtu).then_some(Error::TooBig { mtu });
    }
    if way.tunnel().source().is_ipv6() {
        return Some(Error::TooBig { mtu: known });
    }
    // Linux 6.1 ip_vs_in_icmp() says what the route was when the last packet took it: the client's
    // next packet learns better.
    let last = hop_mtu.min(way.last_mtu());
    let mtu = if last > 68 + way.front() { last - way.front() } else { last };
    Some(Error::TooBig { mtu })
}

/// Linux counts the packet that is told of, and then the error as it leaves (`ip_vs_out_icmp()`).
fn count<F: Rewrite>(conn: &Conn<F>, world: &World<'_>, quoted: usize) {
    let Some(line) = line_of(world.lines, conn).filter(|line| line.has(DestLine::AVAILABLE)) else {
        return;
    };
    let most = if F::IS_V6 { 1280 } else { 576 };
    for octets in [quoted, (F::HEADER_LEN + HEADER_LEN + quoted).min(most)] {
        line.count_packet(true, u64::try_from(octets).unwrap_or_default());
    }
}
