//! The kernel's own checks of what an operator asks for.

use super::supported::Support;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_api::{
    AddressFamily, DestAttributes, Errno, Netmask, ServiceAttributes, ServiceKey, TunnelKind,
};
use rvs_model::ForwardMethod;

/// What `-A` and `-E` must satisfy (Linux 6.1 `ip_vs_ctl.c` `ip_vs_add_service()`,
/// `ip_vs_edit_service()`): scheduler, then engine, then the mask of IPv6.
pub(super) fn service(
    support: Support,
    key: &ServiceKey,
    attributes: &ServiceAttributes,
) -> Result<(), Errno> {
    if !Support::has_scheduler(&attributes.scheduler) {
        return Err(Errno::NoEnt);
    }
    if attributes.engine.as_deref().is_some_and(|engine| !support.has_engine(engine)) {
        return Err(Errno::NoEnt);
    }
    match (key.family(), attributes.netmask) {
        (AddressFamily::V4, Netmask::V4(_)) | (AddressFamily::V6, Netmask::V6(1..=128)) => Ok(()),
        _ => Err(Errno::Inval),
    }
}

/// A destination of another family than its service can only be reached by a tunnel, and not while
/// connections are synchronised (Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_set_cmd()`).
pub(super) fn families(
    service: &ServiceKey,
    dest: IpAddr,
    attributes: &DestAttributes,
    synchronised: bool,
) -> Result<(), Errno> {
    let same = service.family() == AddressFamily::from(dest);
    let tunnelled = attributes.method == ForwardMethod::Tunnel && !synchronised;
    if same || tunnelled { Ok(()) } else { Err(Errno::Inval) }
}

/// What `-a` and `-e` must satisfy before the destination is looked for (Linux 6.1 `ip_vs_ctl.c`
/// `ip_vs_add_dest()`, `ip_vs_edit_dest()`).
pub(super) fn dest(attributes: &DestAttributes) -> Result<(), Errno> {
    // The kernel's weight is signed, and a negative one out of range.
    if attributes.weight.0 > i32::MAX.unsigned_abs() {
        return Err(Errno::Range);
    }
    if attributes.lower_threshold > attributes.upper_threshold {
        return Err(Errno::Range);
    }
    if attributes.tunnel.kind == TunnelKind::Gue && attributes.tunnel.port == 0 {
        return Err(Errno::Inval);
    }
    Ok(())
}

/// A new destination's address is one host's (Linux 6.1 `ip_vs_ctl.c` `ip_vs_new_dest()`, with
/// `inet_addr_type()` and `ipv6_addr_type()`). Broadcasts of the director's own networks, which
/// the kernel refuses too, are not known here.
pub(super) fn unicast(address: IpAddr) -> Result<(), Errno> {
    let is_unicast = match address {
        IpAddr::V4(address) => {
            address != Ipv4Addr::UNSPECIFIED
                && address != Ipv4Addr::BROADCAST
                && !address.is_multicast()
        }
        IpAddr::V6(address) => {
            address != Ipv6Addr::UNSPECIFIED
                && address.to_ipv4_mapped().is_none()
                && !address.is_multicast()
                && !address.is_unicast_link_local()
        }
    };
    if is_unicast { Ok(()) } else { Err(Errno::Inval) }
}
