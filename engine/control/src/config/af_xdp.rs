//! What is said of links of kind `af_xdp`.

use super::check::{Flaw, Unique, number};
use super::links::{self, MTU_DEFAULT, MTU_MIN, host_mac};
use super::{Machine, derived_mac, dpdk, file};
use rvs_wire::mac::MacAddr;

/// A frame is in one page, of which the kernel keeps 256 octets; Ethernet and VLAN headers take 18.
const MTU_MAX: i64 = 4096 - 256 - 18;
/// Longer than anybody would wait for a card.
const BUSY_POLL_US_MAX: i64 = 1000;

/// A device that the host's kernel keeps.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AfXdpLink {
    /// The operator's name for it.
    pub name: String,
    /// The kernel's.
    pub device: String,
    /// Our Ethernet address there.
    pub mac: MacAddr,
    /// Longest IP packet.
    pub mtu: u16,
    /// Whether the host keeps what is not ours.
    pub shared: bool,
    /// Whether the driver must or must not do without copying; `None`: if it can.
    pub zero_copy: Option<bool>,
    /// How long a look for frames may drive the card.
    pub busy_poll_us: Option<u32>,
}

/// Refuses keys of these links in one of another kind.
pub(super) fn foreign(kind: &str, link: &file::Link) -> Result<(), Flaw> {
    links::foreign(kind, "shared", link.shared.as_ref())?;
    links::foreign(kind, "zero_copy", link.zero_copy.as_ref())?;
    links::foreign(kind, "busy_poll_us", link.busy_poll_us.as_ref())
}

pub(super) fn link(
    link: &file::Link,
    machine: &Machine,
    devices: &mut Unique<'_, String>,
) -> Result<AfXdpLink, Flaw> {
    links::foreign("af_xdp", "read", link.read.as_ref())?;
    links::foreign("af_xdp", "write", link.write.as_ref())?;
    if let Some(host) = &link.host {
        let message = "an af_xdp link has no `host`, expected it to be left out: the host goes on \
                       using the device itself";
        return Err(Flaw::at(host, message.to_owned()));
    }
    dpdk::foreign("af_xdp", link)?;
    let name = link.name.get_ref();
    let busy_poll = link.busy_poll_us.as_ref();
    Ok(AfXdpLink {
        name: name.clone(),
        device: links::own_device(link, devices)?,
        mac: match &link.mac {
            Some(mac) => host_mac(mac)?,
            None => derived_mac(&machine.name, name),
        },
        mtu: match &link.mtu {
            Some(mtu) => number("mtu", mtu, &(MTU_MIN..=MTU_MAX))?,
            None => MTU_DEFAULT,
        },
        shared: link.shared.as_ref().is_none_or(|on| *on.get_ref()),
        zero_copy: link.zero_copy.as_ref().map(|on| *on.get_ref()),
        busy_poll_us: busy_poll
            .map(|us| number("busy_poll_us", us, &(1..=BUSY_POLL_US_MAX)))
            .transpose()?,
    })
}
