//! Masqueraded real servers, by the ends that they answer from: with `nat_icmp_send` one that sends
//! from there without a connection is told so. Linux 6.1 `ip_vs_core.c` `ip_vs_out_hook()`,
//! `ip_vs_ctl.c` `ip_vs_has_real_service()`.

use crate::snapshot::Service;
use core::net::SocketAddr;
use rvs_model::ForwardMethod;
use rvs_wire::flow::{Ends as _, protocol};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;
use rvs_wire::sctp::event;
use rvs_wire::tcp::flag;
use std::collections::HashSet;

/// The ends of all of them. A mark's answer for any protocol, which is 0.
#[derive(Clone, Debug, Default)]
pub struct Servers(HashSet<(u8, SocketAddr)>);

impl Servers {
    /// Of these services.
    #[must_use]
    pub fn new<'s>(services: impl IntoIterator<Item = &'s Service>) -> Self {
        let ends = services.into_iter().flat_map(|service| {
            let protocol = if service.key.is_mark() { 0 } else { service.key.protocol };
            let dests = service.dests.iter();
            let masqueraded = dests.filter(|dest| dest.method == ForwardMethod::Masquerade);
            masqueraded.map(move |dest| (protocol, dest.socket))
        });
        Self(ends.collect())
    }

    /// Whether who sent `packet`, which belongs to no connection, is a server that is told so: what
    /// itself ends a connection is not answered.
    #[inline]
    pub(crate) fn may_be_told<F: Rewrite>(&self, packet: &Packet<F>) -> bool {
        !self.0.is_empty() && self.has(packet)
    }

    #[cold]
    fn has<F: Rewrite>(&self, packet: &Packet<F>) -> bool {
        let (address, port) = packet.key.ends.source();
        let end = SocketAddr::new(address.into(), port);
        let protocol = packet.key.protocol;
        let ends_one = match protocol {
            protocol::TCP => packet.flags & flag::RST != 0,
            protocol::SCTP => packet.flags == event::ABORT,
            _ => false,
        };
        !ends_one && [protocol, 0].iter().any(|protocol| self.0.contains(&(*protocol, end)))
    }
}
