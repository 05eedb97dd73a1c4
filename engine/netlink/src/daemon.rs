//! A synchronisation daemon: `IPVS_DAEMON_ATTR_*`.

use crate::numbers::{dmn, top};
use crate::wire::{Attributes, Shape, Writer};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_api::{Daemon, DaemonState, Errno};

/// `IP_VS_IFNAME_MAXLEN` less the zero.
const INTERFACE_OCTETS_MAX: usize = 15;
/// `IP_VS_STATE_MASTER`, `IP_VS_STATE_BACKUP`
const MASTER: u32 = 1;
const BACKUP: u32 = 2;

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_daemon_policy`
const SHAPES: [Shape; 9] = [
    Shape::Any,
    Shape::U32,
    Shape::Text(INTERFACE_OCTETS_MAX),
    Shape::U32,
    Shape::U16,
    Shape::U32,
    Shape::Min(16),
    Shape::U16,
    Shape::U8,
];

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_new_daemon()`
pub(crate) fn parse<const N: usize>(attributes: &Attributes<N>) -> Result<Daemon, Errno> {
    let it = attributes.nest(top::DAEMON, &SHAPES)?;
    let (Some(state), Some(interface), Some(sync_id)) =
        (it.u32(dmn::STATE), it.text(dmn::MCAST_IFN), it.u32(dmn::SYNC_ID))
    else {
        return Err(Errno::Inval);
    };
    let group = match (it.padded::<4>(dmn::MCAST_GROUP), it.padded::<16>(dmn::MCAST_GROUP6)) {
        (Some(octets), _) => Some(IpAddr::V4(Ipv4Addr::from(octets))),
        (None, Some(octets)) => Some(IpAddr::V6(Ipv6Addr::from(octets))),
        (None, None) => None,
    };
    if group.is_some_and(|group| !group.is_multicast()) {
        return Err(Errno::Inval);
    }
    Ok(Daemon {
        state: self::state(state)?,
        interface,
        // DIFFERS from Linux, which takes a synchronisation id above 255 and sends its lower octet: it is
        // refused.
        sync_id: u8::try_from(sync_id).map_err(|_| Errno::Inval)?,
        message_octets_max: it.u16(dmn::SYNC_MAXLEN).filter(|octets| *octets != 0),
        group,
        port: it.u16(dmn::MCAST_PORT).filter(|port| *port != 0),
        ttl: it.u8(dmn::MCAST_TTL).filter(|ttl| *ttl != 0),
    })
}

/// Which daemon to stop (Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_del_daemon()`).
pub(crate) fn parse_state<const N: usize>(
    attributes: &Attributes<N>,
) -> Result<DaemonState, Errno> {
    let it = attributes.nest(top::DAEMON, &SHAPES)?;
    state(it.u32(dmn::STATE).ok_or(Errno::Inval)?)
}

fn state(number: u32) -> Result<DaemonState, Errno> {
    match number {
        MASTER => Ok(DaemonState::Master),
        BACKUP => Ok(DaemonState::Backup),
        _ => Err(Errno::Inval),
    }
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_fill_daemon()`
pub(crate) fn write(writer: &mut Writer, daemon: &Daemon) {
    writer.nest(top::DAEMON, |writer| {
        writer.u32(
            dmn::STATE,
            match daemon.state {
                DaemonState::Master => MASTER,
                DaemonState::Backup => BACKUP,
            },
        );
        writer.text(dmn::MCAST_IFN, &daemon.interface);
        writer.u32(dmn::SYNC_ID, daemon.sync_id.into());
        writer.u16(dmn::SYNC_MAXLEN, daemon.message_octets_max.unwrap_or_default());
        writer.u16(dmn::MCAST_PORT, daemon.port.unwrap_or_default());
        writer.u8(dmn::MCAST_TTL, daemon.ttl.unwrap_or_default());
        match daemon.group {
            Some(IpAddr::V4(group)) => writer.attribute(dmn::MCAST_GROUP, &group.octets()),
            Some(IpAddr::V6(group)) => writer.attribute(dmn::MCAST_GROUP6, &group.octets()),
            None => {}
        }
    });
}
