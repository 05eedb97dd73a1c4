//! What reaching a destination takes, computed when its first connection is opened: the next hop,
//! and the outer header of a tunnel.

use crate::drop_reason::DropReason;
use crate::ident::Idents;
use crate::neighbor::{HopId, Neighbors, Place, peer};
use crate::network::Network;
use crate::snapshot::Dest;
use core::net::IpAddr;
use rvs_model::{DestId, ForwardMethod, Tick};
use rvs_wire::ipip::Outer;

/// One destination's.
#[derive(Clone, Copy, Debug)]
struct Path {
    address: IpAddr,
    hop: HopId,
    outer: Option<Outer>,
}

/// All destinations', of one worker.
pub(crate) struct Paths {
    all: Vec<Option<Path>>,
    /// Of outer headers that may be fragmented.
    idents: Idents,
}

impl Paths {
    pub(crate) fn new(dests_max: usize, idents: Idents) -> Self {
        Self { all: vec![None; dests_max], idents }
    }

    /// The outer header towards a destination that is reached by a tunnel.
    #[inline]
    pub(crate) fn outer(&self, dest: DestId) -> Option<&Outer> {
        self.all.get(usize::try_from(dest.0).ok()?)?.as_ref()?.outer.as_ref()
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

    /// The next hop towards `dest`, found again when its place was given to another address.
    pub(crate) fn hop<B>(
        &mut self,
        network: &Network,
        neighbors: &mut Neighbors<B>,
        dest: &Dest,
        now: Tick,
    ) -> Result<HopId, DropReason> {
        let at = usize::try_from(dest.id.0).unwrap_or(usize::MAX);
        let place = self.all.get_mut(at).ok_or(DropReason::NoRoute)?;
        let address = dest.socket.ip();
        // Once there, an outer header stays: older connections may need it after an edit of the
        // destination's method (Linux 6.1 ip_vs_conn.c ip_vs_bind_xmit(): a connection keeps its).
        let before = place.as_ref().filter(|path| path.address == address);
        let tunnels = dest.method == ForwardMethod::Tunnel;
        let has_outer = before.is_some_and(|path| path.outer.is_some());
        if let Some(path) = before
            && (path.outer.is_some() || !tunnels)
            && neighbors.keeps(path.hop, peer(address))
        {
            return Ok(path.hop);
        }
        let next = network.next_hop(address).ok_or(DropReason::NoRoute)?;
        let hop = neighbors.resolve(network, next, Place::Resident, now);
        let hop = hop.ok_or(DropReason::NeighborTableFull)?;
        let outer = if tunnels || has_outer {
            let source = network.source_on(next.interface, next.address);
            let outer = source.and_then(|source| Outer::new(source, address));
            Some(outer.ok_or(DropReason::NoRoute)?)
        } else {
            None
        };
        *place = Some(Path { address, hop, outer });
        Ok(hop)
    }
}
