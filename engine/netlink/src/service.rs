//! A service: `IPVS_SVC_ATTR_*`.

use crate::numbers::{AF_INET, AF_INET6, svc};
use crate::stats;
use crate::wire::{Attributes, Shape, Writer};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::NonZeroU32;
use rvs_api::{
    AddressFamily, Errno, FwMark, Netmask, ServiceAttributes, ServiceEntry, ServiceFlags,
    ServiceKey,
};
use rvs_model::Protocol;

/// `IP_VS_SCHEDNAME_MAXLEN`, `IP_VS_PENAME_MAXLEN`, less the zero.
const NAME_OCTETS_MAX: usize = 15;
/// `sizeof(union nf_inet_addr)`
pub(crate) const ADDRESS_OCTETS: usize = 16;
/// `struct ip_vs_flags`
const FLAGS_OCTETS: usize = 8;

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_svc_policy`
const SHAPES: [Shape; 12] = [
    Shape::Any,
    Shape::U16,
    Shape::U16,
    Shape::Max(ADDRESS_OCTETS),
    Shape::U16,
    Shape::U32,
    Shape::Text(NAME_OCTETS_MAX),
    Shape::Max(FLAGS_OCTETS),
    Shape::U32,
    Shape::U32,
    Shape::Nest,
    Shape::Text(NAME_OCTETS_MAX),
];

/// A service as a request describes it.
pub(crate) struct Described<'m> {
    /// `None` for one that rvs cannot have, so that none is there.
    pub(crate) key: Option<ServiceKey>,
    pub(crate) family: AddressFamily,
    attributes: Attributes<'m, 12>,
}

/// `ip_vs_is_af_valid()`
pub(crate) fn family(number: u16) -> Result<AddressFamily, Errno> {
    match number {
        AF_INET => Ok(AddressFamily::V4),
        AF_INET6 => Ok(AddressFamily::V6),
        _ => Err(Errno::AfNoSupport),
    }
}

pub(crate) fn family_number(family: AddressFamily) -> u16 {
    match family {
        AddressFamily::V4 => AF_INET,
        AddressFamily::V6 => AF_INET6,
    }
}

/// An address of `family` in the room that both families share.
pub(crate) fn address(family: AddressFamily, octets: [u8; ADDRESS_OCTETS]) -> IpAddr {
    match family {
        AddressFamily::V4 => {
            let [a, b, c, d, ..] = octets;
            Ipv4Addr::new(a, b, c, d).into()
        }
        AddressFamily::V6 => Ipv6Addr::from(octets).into(),
    }
}

pub(crate) fn address_octets(address: IpAddr) -> [u8; ADDRESS_OCTETS] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

impl<'m> Described<'m> {
    /// The part that says which service is meant (Linux 6.1 `ip_vs_ctl.c`
    /// `ip_vs_genl_parse_service()`).
    pub(crate) fn parse<const N: usize>(top: &Attributes<'m, N>, kind: u16) -> Result<Self, Errno> {
        let attributes = top.nest(kind, &SHAPES)?;
        let has_address =
            [svc::PORT, svc::PROTOCOL, svc::ADDR].into_iter().all(|it| attributes.has(it));
        let Some(number) =
            attributes.u16(svc::AF).filter(|_| has_address || attributes.has(svc::FWMARK))
        else {
            return Err(Errno::Inval);
        };
        let family = family(number)?;
        let key = match attributes.u32(svc::FWMARK) {
            // DIFFERS from Linux, which takes mark 0 for a TCP service of address 0 and port 0: there is
            // no service of mark 0.
            Some(mark) => {
                NonZeroU32::new(mark).map(|mark| ServiceKey::Mark { mark: FwMark(mark), family })
            }
            None => address_key(&attributes, family),
        };
        Ok(Self { key, family, attributes })
    }

    /// The part that says what the service shall be, which is `known` now.
    pub(crate) fn full(
        &self,
        known: Option<&ServiceAttributes>,
    ) -> Result<ServiceAttributes, Errno> {
        let it = &self.attributes;
        let (Some(scheduler), Some(change), Some(timeout_s), Some(netmask)) = (
            it.text(svc::SCHED_NAME),
            it.padded(svc::FLAGS),
            it.u32(svc::TIMEOUT),
            it.padded(svc::NETMASK),
        ) else {
            return Err(Errno::Inval);
        };
        let [a, b, c, d, mask @ ..]: [u8; FLAGS_OCTETS] = change;
        let (set, mask) = (
            ServiceFlags(u32::from_ne_bytes([a, b, c, d])),
            ServiceFlags(u32::from_ne_bytes(mask)),
        );
        let flags = known.map(|known| known.flags).unwrap_or_default();
        Ok(ServiceAttributes {
            scheduler,
            flags: flags.without(mask).with(ServiceFlags(set.0 & mask.0)),
            timeout_s,
            netmask: match self.family {
                AddressFamily::V4 => Netmask::V4(Ipv4Addr::from(netmask)),
                AddressFamily::V6 => Netmask::V6(u32::from_ne_bytes(netmask)),
            },
            engine: it.text(svc::PE_NAME),
            // The kernel's protocol has no word for it, so none for a change of it either.
            stale_udp: known.map(|known| known.stale_udp).unwrap_or_default(),
        })
    }
}

fn address_key(attributes: &Attributes<12>, family: AddressFamily) -> Option<ServiceKey> {
    let number = attributes.u16(svc::PROTOCOL)?;
    // DIFFERS from Linux, which takes any protocol over netlink and then has a service that no packet
    // belongs to: other protocols than TCP, UDP and SCTP are refused.
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| u16::from(protocol.number()) == number)?;
    let address = address(family, attributes.padded(svc::ADDR)?);
    let address = SocketAddr::new(address, attributes.be16(svc::PORT)?);
    Some(ServiceKey::Address { protocol, address })
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_fill_service()`
pub(crate) fn write(writer: &mut Writer, entry: &ServiceEntry) {
    let it = &entry.attributes;
    writer.u16(svc::AF, family_number(entry.service.family()));
    match entry.service {
        ServiceKey::Mark { mark, .. } => writer.u32(svc::FWMARK, mark.0.get()),
        ServiceKey::Address { protocol, address } => {
            writer.u16(svc::PROTOCOL, protocol.number().into());
            writer.attribute(svc::ADDR, &address_octets(address.ip()));
            writer.be16(svc::PORT, address.port());
        }
    }
    writer.text(svc::SCHED_NAME, &it.scheduler);
    if let Some(engine) = &it.engine {
        writer.text(svc::PE_NAME, engine);
    }
    let flags = it.flags.with(ServiceFlags::HASHED).0.to_ne_bytes();
    writer.nest(svc::FLAGS, |writer| {
        writer.raw(&flags);
        writer.raw(&u32::MAX.to_ne_bytes());
    });
    writer.u32(svc::TIMEOUT, it.timeout_s);
    match it.netmask {
        Netmask::V4(mask) => writer.attribute(svc::NETMASK, &mask.octets()),
        Netmask::V6(length) => writer.u32(svc::NETMASK, length),
    }
    stats::write(writer, svc::STATS, svc::STATS64, entry.totals, entry.rates);
}
