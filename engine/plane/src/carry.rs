//! What becomes of a frame, once a lane has decided or left it: the less trodden paths.
//!
//! ```text
//!  left by the lanes ─► an error about our tunnels │ about a connection │ AH, ESP │ a fragment ─┐
//!  to be cut ──► reset to both sides                                                            │
//!  decided ─────────────────────────────────────────────────────────────────────────────────────┴─► settle
//! ```

use crate::admission::Settle;
use crate::balance::Balance;
use crate::cut;
use crate::drop_reason::DropReason;
use crate::handoff::Stray;
use crate::ipsec;
use crate::lane::{Verdict, World};
use crate::paths::Paths;
use crate::related::{self, Around};
use crate::reunion::{Reunions, Way};
use crate::stack::Desk;
use crate::tunnel_error::{self, Outcome};
use crate::unfinished;
use rvs_conntrack::Conns;
use rvs_io::{Frame, Queue};
use rvs_wire::flow::{V4, V6};

/// What becomes of the frames that do not simply go on.
#[inline(never)]
pub(crate) fn carry_out<Q: Queue>(
    desk: &mut Desk<'_, Q>,
    (v4, v6): (&mut Conns<V4>, &mut Conns<V6>),
    reunions: &mut Reunions<Q::Frame>,
    (world, balance, paths): (&World<'_>, &mut Balance, &mut Paths),
    (mut frame, link): (Q::Frame, u8),
    verdict: Verdict,
) {
    let (l3, vlan) = match verdict {
        Verdict::Stack { l3, vlan } => (l3, vlan),
        Verdict::Cut { l3, .. } => {
            cut::both((v4, v6), (world, paths), desk, (frame, link), l3);
            return;
        }
        Verdict::Segment { l3 } => {
            unfinished::into_tunnel((v4, v6), (world, paths), desk, (frame, link), l3);
            return;
        }
        _ => {
            settle(desk, (frame, link), verdict);
            return;
        }
    };
    let from = (link, vlan);
    let hops = desk.stack.neighbors.hops();
    let related = match tunnel_error::outcome((v4, v6), world, hops, paths, frame.octets(), l3) {
        Some(Outcome::Tell { at, end, error }) => {
            return desk.pass_on(frame, link, l3, (at, end), error);
        }
        Some(Outcome::Handoff(owner)) => Some(Verdict::Handoff(owner)),
        Some(Outcome::Drop(reason)) => Some(Verdict::Drop(reason)),
        None => {
            let around = Around { world, hops, paths, from };
            related::verdict((v4, v6), around, &mut frame, l3)
                .or_else(|| ipsec::verdict((v4, v6), around, &mut frame, l3))
                .or_else(|| {
                    let neighbors = &mut desk.stack.neighbors;
                    let settle = Settle { world, balance, neighbors, paths, mesh: desk.mesh };
                    related::scheduled((v4, v6), settle, from, &mut frame, l3)
                })
        }
    };
    if let Some(verdict) = related {
        settle(desk, (frame, link), verdict);
        return;
    }
    let mut way = Way { links: &mut *desk.links, mesh: desk.mesh, world };
    let stray = Stray { frame, link, l3, vlan, names: None };
    if let Some(frame) = way.sort_in(reunions, stray) {
        settle(desk, (frame, link), verdict);
    }
}

/// The same once nothing is left to decide.
pub(crate) fn settle<Q: Queue>(
    desk: &mut Desk<'_, Q>,
    (frame, link): (Q::Frame, u8),
    verdict: Verdict,
) {
    match verdict {
        Verdict::Out { link } => desk.links.push(link, frame),
        Verdict::Send { hop, l3 } => desk.transmit(hop, frame, l3),
        Verdict::Fragment { hop, l3, mtu } => desk.transmit_in_pieces(hop, frame, l3, mtu),
        // Of those to cut, a fragment's, which says no sequence numbers: the next whole segment does.
        Verdict::Stack { l3, vlan } | Verdict::Cut { l3, vlan } => {
            desk.take(frame, link, l3, vlan);
        }
        Verdict::Exceeded { l3 } => desk.refuse_exceeded(frame, link, l3),
        Verdict::TooBig { l3, mtu } => desk.refuse_too_big(frame, link, l3, mtu),
        Verdict::NoDest { l3 } => desk.refuse_no_dest(frame, link, l3),
        Verdict::NoConn { l3 } => desk.refuse_no_conn(frame, link, l3),
        // Not of what the director made, nor of fragments and errors, which nobody leaves uncut.
        Verdict::Segment { .. } => desk.links.drop(frame, DropReason::Unfragmentable),
        Verdict::Drop(reason) => desk.links.drop(frame, reason),
        Verdict::Handoff(owner) => desk.links.hand(owner, frame, link),
    }
}
