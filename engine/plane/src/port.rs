//! What a link is to us, and whose a frame is that does not look like most.

use crate::drop_reason::DropReason;
use crate::lane::{Lane, Verdict};
use crate::links::Links;
use crate::network::Network;
use crate::quota::Quota;
use rvs_io::Queue;
use rvs_wire::flow::{V4, V6};
use rvs_wire::mac::MacAddr;
use rvs_wire::packet::{Class, Slow, classify_carefully};
use rvs_wire::unusable::Unusable;

/// What a link is to us.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Port {
    /// Our Ethernet address there.
    pub(crate) mac: MacAddr,
    /// Whether there is an interface for frames without a tag.
    pub(crate) takes_untagged: bool,
    /// The link to the host's own stack, if that uses this one as well.
    pub(crate) host: Option<u8>,
    /// The other way round: this is the link to the host's stack, which uses that one.
    pub(crate) of: Option<u8>,
}

/// What each of `links` links is to us.
pub(crate) fn ports(network: &Network, links: usize) -> Vec<Port> {
    let of = |link: usize| {
        let mut all = network.interfaces().iter().filter(|it| usize::from(it.link) == link);
        let takes_untagged = all.clone().any(|it| it.vlan == 0);
        let mac = all.next().map_or(MacAddr::UNSPECIFIED, |it| it.mac);
        let mut hosts = network.hosts().iter();
        let host = hosts.clone().find(|host| usize::from(host.link) == link).map(|host| host.end);
        let of = hosts.find(|host| usize::from(host.end) == link).map(|host| host.link);
        Port { mac, takes_untagged, host, of }
    };
    (0..links).map(of).collect()
}

/// Sorts a frame that does not look like most into a lane, unless `quota` sheds it. What becomes of it if
/// no lane takes it; a lane says so later.
#[cold]
#[inline(never)]
pub(crate) fn take_carefully(
    (v4, v6): (&mut Lane<V4>, &mut Lane<V6>),
    octets: &[u8],
    port: Port,
    (link, number): (u8, u8),
    network: &Network,
    quota: &mut Quota,
) -> Verdict {
    let class = classify_carefully(octets, port.mac);
    let (l3, vlan) = match class {
        Class::V4(packet) => (packet.l3, packet.vlan),
        Class::V6(packet) => (packet.l3, packet.vlan),
        Class::Slow(Slow { l3, vlan, .. }) => (l3, vlan),
        Class::Unusable(unusable) => {
            return match port.host {
                Some(end) if unusable == Unusable::OtherHost => Verdict::Out { link: end },
                _ => Verdict::Drop(unusable.into()),
            };
        }
    };
    if network.interface_of(link, vlan).is_none() {
        return DropReason::VlanUnknown.into();
    }
    match class {
        Class::V4(packet) if quota.sheds(&packet) => return DropReason::Overload.into(),
        Class::V6(packet) if quota.sheds(&packet) => return DropReason::Overload.into(),
        Class::V4(packet) => v4.take(packet, number),
        Class::V6(packet) => v6.take(packet, number),
        _ => {}
    }
    Verdict::Stack { l3, vlan }
}

/// Frames to everybody and to groups are for the director and for its host: ARP, neighbour
/// discovery, VRRP, and what the director does not know.
#[inline]
pub(crate) fn share_with_host<Q: Queue>(links: &mut Links<Q>, port: Port, octets: &[u8]) {
    let is_group = octets.first().is_some_and(|first| first & 1 != 0);
    if let Some(end) = port.host.filter(|_| is_group) {
        links.copy_to_host(end, octets);
    }
}
