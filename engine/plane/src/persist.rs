//! Persistence: connections of one client's network stay with one destination.
//!
//! ```text
//!  service                     template                                  its connections go to
//!  on a port, not 21           protocol (network, 0) → (VIP, port)       the destination's port
//!  on port 21                  protocol (network, 0) → (VIP, 0)          port 21, or their own port
//!  on port 0                   protocol (network, 0) → (VIP, 0)          their own port
//!  a mark                      any      (network, 0) → (the mark, 0)     their own port
//! ```
//!
//! The first connection is scheduled, and leaves a template; those after it follow that, whatever the
//! scheduler would say. A destination with weight 0, or with too many connections, goes on getting
//! them; one that was deleted does not. Linux 6.1 `ip_vs_core.c` `ip_vs_sched_persist()`.

use crate::balance::{Balance, dest_address, take_in};
use crate::drop_reason::DropReason;
use crate::lane::{Verdict, World};
use crate::snapshot::{Dest, FTP_PORT, Service};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_conntrack::{Conn, Conns, template};
use rvs_model::{DestLine, State, Tick};
use rvs_schedulers::Request;
use rvs_wire::flow::{Ends, Family, Key};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;

/// Which bits of a client's address count: `-M`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mask(u128);

impl Mask {
    /// The whole address, of either family.
    pub const ALL: Self = Self(u128::MAX);

    /// Of IPv4: any pattern of bits, as the kernel takes it.
    #[must_use]
    pub fn v4(mask: Ipv4Addr) -> Self {
        Self(mask.to_bits().into())
    }

    /// Of IPv6: the first `prefix` bits.
    #[must_use]
    pub fn v6(prefix: u32) -> Self {
        Self(u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or_default())
    }

    /// The network of `client`, of the mask's family.
    #[must_use]
    pub fn network(self, client: IpAddr) -> IpAddr {
        match client {
            IpAddr::V4(client) => {
                let bits = u128::from(client.to_bits()) & self.0;
                Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default()).into()
            }
            IpAddr::V6(client) => Ipv6Addr::from_bits(client.to_bits() & self.0).into(),
        }
    }

    /// The bits that count in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What `-p` and `-M` say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Persistence {
    /// How long a client's network is remembered after its last new connection.
    pub timeout: Tick,
    /// What of a client's address is its network.
    pub mask: Mask,
}

/// The template that a connection of `key` goes by.
fn key<F: Family>(service: &Service, mask: Mask, key: &Key<F>) -> Option<Key<F>> {
    let ((client, _), (vip, port)) = (key.ends.source(), key.ends.destination());
    let network = F::address(mask.network(client.into()))?;
    let (protocol, to) = if port == service.key.port {
        (key.protocol, (vip, if service.key.port == FTP_PORT { 0 } else { port }))
    } else if service.key.is_mark() {
        (0, (F::address(service.key.address)?, 0))
    } else {
        (key.protocol, (vip, 0))
    };
    let ends = <F::Ends as Ends>::new((network, 0), to);
    Some(Key { ends, protocol: template::number(protocol)? })
}

/// The port at `dest` that a template of `service` names.
fn port(service: &Service, dest: &Dest, port: u16) -> u16 {
    if port == service.key.port && port != FTP_PORT { dest.socket.port() } else { 0 }
}

/// The destination of a new connection, and the line of the template that it goes by; 0 if there is
/// none yet, and [`remember`] is to make it.
///
/// # Errors
///
/// What becomes of the packet if there is none.
#[inline(never)]
pub(crate) fn choose<'s, F: Rewrite>(
    balance: &mut Balance,
    world: &World<'_>,
    conns: &mut Conns<F>,
    (service, persistence): (&'s Service, Persistence),
    packet: &Packet<F>,
    request: &Request,
) -> Result<(&'s Dest, u32), Verdict> {
    let known = key(service, persistence.mask, &packet.key).ok_or(DropReason::NoDest)?;
    if let Some((line, template)) = conns.template(&known) {
        let hint = template.next_hop;
        if let Some((place, dest)) = usable(service, template, world) {
            conns.renew_template(line, world.now);
            if place != hint
                && let Some(template) = conns.conn_mut(line)
            {
                template.next_hop = place;
            }
            return Ok((dest, line));
        }
        conns.void_template(line);
    }
    let dest = balance.schedule(service, request);
    Ok((dest.ok_or_else(|| service.leave(packet))?, 0))
}

/// Makes the template of a new connection of `key` that can be had, and says its line. Until then
/// nothing is made: of a client that cannot be answered nobody would ever use it.
///
/// # Errors
///
/// There is no room.
#[inline(never)]
pub(crate) fn remember<F: Rewrite>(
    world: &World<'_>,
    conns: &mut Conns<F>,
    (service, persistence): (&Service, Persistence),
    (asked, mark): (&Key<F>, u32),
    dest: &Dest,
) -> Result<u32, DropReason> {
    let known = key(service, persistence.mask, asked).ok_or(DropReason::NoDest)?;
    let vip_port = asked.ends.destination().1;
    let end = (dest_address::<F>(dest), port(service, dest, vip_port));
    let template = Conn::<F> {
        method: dest.method,
        dest: dest.id,
        mark,
        ..Conn::template(known, end, persistence.timeout)
    };
    let hash = conns.table().hash(&known);
    let line = take_in(conns, hash, &template, State::None, world);
    let line = line.map_err(|_| DropReason::TableFull)?;
    if let Some(counters) = counters(world.lines, dest) {
        counters.step_templates(true);
    }
    Ok(line)
}

/// The destination of a template and its place in the list, if it may be used (Linux 6.1
/// `ip_vs_conn.c` `ip_vs_check_template()`). Usually it is where it was the last time.
fn usable<'s, F: Family>(
    service: &'s Service,
    template: &Conn<F>,
    world: &World<'_>,
) -> Option<(u16, &'s Dest)> {
    let is_its = |dest: &Dest| dest.id == template.dest;
    let hint = usize::from(template.next_hop);
    let place = match service.dests.get(hint) {
        Some(dest) if is_its(dest) => hint,
        _ => service.dests.iter().position(is_its)?,
    };
    let dest = service.dests.get(place)?;
    let counters = counters(world.lines, dest)?;
    let expires_quiescent = world.snapshot.tunables.expire_quiescent_template;
    let is_quiescent = counters.has(DestLine::DRAINED);
    let place = u16::try_from(place).unwrap_or(u16::MAX);
    (counters.has(DestLine::AVAILABLE) && !(expires_quiescent && is_quiescent))
        .then_some((place, dest))
}

fn counters<'l>(lines: &'l [DestLine], dest: &Dest) -> Option<&'l DestLine> {
    lines.get(usize::try_from(dest.id.0).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_what_the_mask_leaves_of_an_address() {
        let network = |mask: Mask, text: &str| mask.network(text.parse().unwrap()).to_string();
        let class_c = Mask::v4(Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(network(class_c, "203.0.113.7"), "203.0.113.0");
        // Not a prefix: `-M 24`, as ipvsadm reads it.
        assert_eq!(network(Mask::v4(Ipv4Addr::new(0, 0, 0, 24)), "203.0.113.31"), "0.0.0.24");
        assert_eq!(network(Mask::v6(64), "2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network(Mask::v6(128), "2001:db8::6"), "2001:db8::6");
        assert_eq!(network(Mask::v6(1), "ffff::6"), "8000::");
    }

    #[test]
    fn of_two_masks_together_each_network_is_in_one() {
        let (wide, odd) =
            (Mask::v4(Ipv4Addr::new(255, 255, 0, 0)), Mask::v4([255, 0, 255, 0].into()));
        let both = wide.and(odd);
        assert_eq!(both.network([203, 1, 113, 7].into()), IpAddr::from([203, 0, 0, 0]));
        for mask in [wide, odd] {
            let network = mask.network([203, 1, 113, 7].into());
            assert_eq!(both.network(network), both.network([203, 1, 113, 7].into()));
        }
    }
}
