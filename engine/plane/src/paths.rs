//! What reaching a destination takes, computed when its first connection is opened: the next hop,
//! and the headers of a tunnel.

use crate::drop_reason::DropReason;
use crate::ident::Idents;
use crate::neighbor::{HopId, Neighbors, Place, peer};
use crate::network::Network;
use crate::path_mtu::PathMtus;
use crate::snapshot::Dest;
use core::cell::Cell;
use core::net::IpAddr;
use rvs_model::{DestId, ForwardMethod, Tick};
use rvs_wire::tunnel::{Encapsulation, Tunnel};

/// The tunnel to a destination, and how long a packet it takes.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    tunnel: Tunnel,
    /// Octets that it puts before a packet.
    front: u16,
    /// What the path takes in octets, of the outer packet: `u16::MAX` unless an ICMP error told.
    mtu: u16,
    /// The same when the last packet went.
    last: Cell<u16>,
}

impl Way {
    fn new(tunnel: Tunnel, mtu: u16) -> Self {
        Self { tunnel, front: front(&tunnel), mtu, last: Cell::new(mtu) }
    }

    /// The headers.
    #[inline(always)]
    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Octets of all of them.
    #[inline(always)]
    pub(crate) fn front(&self) -> u16 {
        self.front
    }

    /// From now on packets are wrapped so.
    fn wrap(&mut self, encapsulation: Encapsulation) {
        self.tunnel = self.tunnel.wrapped(encapsulation);
        self.front = front(&self.tunnel);
    }

    /// What the path takes, for a packet that is about to go.
    #[inline(always)]
    pub(crate) fn mtu(&self) -> u16 {
        if self.last.get() != self.mtu {
            self.last.set(self.mtu);
        }
        self.mtu
    }

    /// What is known of the path.
    pub(crate) fn known_mtu(&self) -> u16 {
        self.mtu
    }

    /// What the path took when the last packet went.
    pub(crate) fn last_mtu(&self) -> u16 {
        self.last.get()
    }
}

fn front(tunnel: &Tunnel) -> u16 {
    u16::try_from(tunnel.len()).unwrap_or(u16::MAX)
}

/// One destination's.
#[derive(Clone, Debug)]
struct Path {
    address: IpAddr,
    hop: HopId,
    way: Option<Way>,
}

/// All destinations', of one worker.
pub(crate) struct Paths {
    all: Vec<Option<Path>>,
    /// What ICMP errors told.
    mtus: PathMtus,
    /// Of outer headers that may be fragmented.
    idents: Idents,
    /// Makes source ports of GUE.
    seed: u64,
}

impl Paths {
    /// Of a destination.
    #[cfg(test)]
    pub(crate) const OCTETS_EACH: usize = size_of::<Option<Path>>();

    /// `seed` is secret, and the same for all workers.
    pub(crate) fn new(dests_max: usize, idents: Idents, seed: u64) -> Self {
        Self { all: vec![None; dests_max], mtus: PathMtus::new(), idents, seed: seed | 1 }
    }

    /// The way to a destination that is reached by a tunnel.
    #[inline]
    pub(crate) fn way(&self, dest: DestId) -> Option<&Way> {
        self.all.get(usize::try_from(dest.0).ok()?)?.as_ref()?.way.as_ref()
    }

    /// The address of a destination that a connection was opened to.
    pub(crate) fn address(&self, dest: DestId) -> Option<IpAddr> {
        Some(self.all.get(usize::try_from(dest.0).ok()?)?.as_ref()?.address)
    }

    /// An identification for an outer header.
    #[inline]
    pub(crate) fn ident(&self) -> u16 {
        self.idents.next()
    }

    /// A source port for all packets between the same ends (Linux 6.1 `net/udp.h`
    /// `udp_flow_src_port()`): of the range that Linux has for such, by a hash that tells nobody what
    /// it is of.
    #[inline]
    pub(crate) fn flow_port(&self, ends: [u64; 5]) -> u16 {
        const FIRST: u16 = 32_768;
        const PORTS: u64 = 60_999 - 32_768;
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(self.seed).rotate_left(29);
        let hash = ends.into_iter().fold(self.seed, mix).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        FIRST + u16::try_from((hash * PORTS) >> 32).unwrap_or_default()
    }

    /// The next hop towards `dest`, found again when its place was given to another address.
    #[inline(always)]
    pub(crate) fn hop<B>(
        &mut self,
        network: &Network,
        neighbors: &mut Neighbors<B>,
        dest: &Dest,
        now: Tick,
    ) -> Result<HopId, DropReason> {
        let at = usize::try_from(dest.id.0).unwrap_or(usize::MAX);
        let address = dest.socket.ip();
        if let Some(Some(path)) = self.all.get(at)
            && path.address == address
            && (path.way.is_some() || dest.method != ForwardMethod::Tunnel)
            && neighbors.keeps(path.hop, peer(address))
        {
            return Ok(path.hop);
        }
        self.find_hop(network, neighbors, dest, now)
    }

    #[cold]
    #[inline(never)]
    fn find_hop<B>(
        &mut self,
        network: &Network,
        neighbors: &mut Neighbors<B>,
        dest: &Dest,
        now: Tick,
    ) -> Result<HopId, DropReason> {
        let at = usize::try_from(dest.id.0).unwrap_or(usize::MAX);
        let place = self.all.get_mut(at).ok_or(DropReason::NoRoute)?;
        let address = dest.socket.ip();
        // Once there, a tunnel stays: older connections may need it after an edit of the
        // destination's method (Linux 6.1 ip_vs_conn.c ip_vs_bind_xmit(): a connection keeps its).
        let before = place.as_ref().filter(|path| path.address == address);
        let tunnels = dest.method == ForwardMethod::Tunnel;
        let has_way = before.is_some_and(|path| path.way.is_some());
        let next = network.next_hop(address).ok_or(DropReason::NoRoute)?;
        let hop = neighbors.resolve(network, next, Place::Resident, now);
        let hop = hop.ok_or(DropReason::NeighborTableFull)?;
        let way = if tunnels || has_way {
            let source = network.source_on(next.interface, next.address);
            let tunnel = source.and_then(|source| Tunnel::new(source, address, dest.encapsulation));
            Some(Way::new(tunnel.ok_or(DropReason::NoRoute)?, self.mtus.of(address)))
        } else {
            None
        };
        *place = Some(Path { address, hop, way });
        Ok(hop)
    }

    /// Takes over how packets to `dest` are wrapped from now on: those of older connections, too
    /// (Linux 6.1 `ip_vs_xmit.c` `ip_vs_tunnel_xmit()` asks the destination).
    pub(crate) fn follow(&mut self, dest: &Dest) {
        let path = usize::try_from(dest.id.0).ok().and_then(|at| self.all.get_mut(at));
        if let Some(Some(Path { address, way: Some(way), .. })) = path
            && *address == dest.socket.ip()
        {
            way.wrap(dest.encapsulation);
        }
    }

    /// Whether packets to `dest` leave as one that an ICMP error quotes did.
    pub(crate) fn is_way(&self, dest: DestId, ends: (IpAddr, IpAddr), how: Encapsulation) -> bool {
        let tunnel =
            self.way(dest).map(|way| (way.tunnel().source(), way.tunnel().encapsulation()));
        tunnel == Some((ends.0, how)) && self.address(dest) == Some(ends.1)
    }

    /// A router on the way to `address` told how long a packet may be, where it was `before` until
    /// now at most.
    pub(crate) fn learn_mtu(&mut self, address: IpAddr, mtu: u16, before: u16, now: Tick) {
        if let Some(mtu) = self.mtus.learn(address, mtu, before, now) {
            self.set_mtu(address, mtu);
        }
    }

    /// Forgets what was told long ago: one address a breath.
    #[inline]
    pub(crate) fn tick(&mut self, now: Tick) {
        if let Some(address) = self.mtus.expire(now) {
            self.set_mtu(address, u16::MAX);
        }
    }

    /// Of all destinations with this address: rare enough to look at each.
    #[cold]
    fn set_mtu(&mut self, address: IpAddr, mtu: u16) {
        for path in self.all.iter_mut().flatten().filter(|path| path.address == address) {
            if let Some(way) = &mut path.way {
                way.mtu = mtu;
            }
        }
    }
}
