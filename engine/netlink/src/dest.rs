//! A destination: `IPVS_DEST_ATTR_*`.

use crate::numbers::dst;
use crate::service::{ADDRESS_OCTETS, address, address_octets, family, family_number};
use crate::stats;
use crate::wire::{Attributes, Shape, Writer};
use core::net::SocketAddr;
use rvs_api::{
    AddressFamily, DestAttributes, DestEntry, Errno, Tunnel, TunnelChecksum, TunnelKind,
};
use rvs_model::{ForwardMethod, Weight};

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_dest_policy`
const SHAPES: [Shape; 16] = [
    Shape::Any,
    Shape::Max(ADDRESS_OCTETS),
    Shape::U16,
    Shape::U32,
    Shape::U32,
    Shape::U32,
    Shape::U32,
    Shape::U32,
    Shape::U32,
    Shape::U32,
    Shape::Nest,
    Shape::U16,
    Shape::Any,
    Shape::U8,
    Shape::U16,
    Shape::U16,
];

/// `IP_VS_CONN_F_FWD_MASK` and what is under it.
const METHOD_MASK: u32 = 7;
const MASQUERADE: u32 = 0;
const TUNNEL: u32 = 2;
const DIRECT: u32 = 3;

/// A destination as a request describes it.
pub(crate) struct Described<'m> {
    pub(crate) address: SocketAddr,
    attributes: Attributes<'m, 16>,
}

impl<'m> Described<'m> {
    /// The part that says which destination of a service of family `service` is meant (Linux 6.1
    /// `ip_vs_ctl.c` `ip_vs_genl_parse_dest()`).
    pub(crate) fn parse<const N: usize>(
        top: &Attributes<'m, N>,
        kind: u16,
        service: AddressFamily,
    ) -> Result<Self, Errno> {
        let attributes = top.nest(kind, &SHAPES)?;
        let (Some(octets), Some(port)) = (attributes.padded(dst::ADDR), attributes.be16(dst::PORT))
        else {
            return Err(Errno::Inval);
        };
        let family = match attributes.u16(dst::ADDR_FAMILY) {
            None | Some(0) => service,
            Some(number) => family(number)?,
        };
        Ok(Self { address: SocketAddr::new(address(family, octets), port), attributes })
    }

    /// The part that says what the destination shall be.
    // DIFFERS from Linux, which takes numbers of forwarding methods, tunnels and checksums that have no
    // meaning: they are refused.
    pub(crate) fn full(&self) -> Result<DestAttributes, Errno> {
        let it = &self.attributes;
        let (Some(method), Some(weight), Some(upper_threshold), Some(lower_threshold)) = (
            it.u32(dst::FWD_METHOD),
            it.u32(dst::WEIGHT),
            it.u32(dst::U_THRESH),
            it.u32(dst::L_THRESH),
        ) else {
            return Err(Errno::Inval);
        };
        let method = match method & METHOD_MASK {
            MASQUERADE => ForwardMethod::Masquerade,
            TUNNEL => ForwardMethod::Tunnel,
            DIRECT => ForwardMethod::Direct,
            _ => return Err(Errno::Inval),
        };
        let kind = match it.u8(dst::TUN_TYPE).unwrap_or_default() {
            0 => TunnelKind::Ipip,
            1 => TunnelKind::Gue,
            2 => TunnelKind::Gre,
            _ => return Err(Errno::Inval),
        };
        let checksum = match it.u16(dst::TUN_FLAGS).unwrap_or_default() {
            0 => TunnelChecksum::None,
            1 => TunnelChecksum::Full,
            2 => TunnelChecksum::Remote,
            _ => return Err(Errno::Inval),
        };
        let port = it.be16(dst::TUN_PORT).unwrap_or_default();
        Ok(DestAttributes {
            method,
            // A negative one is out of range as an unsigned one too, and is told so by the table.
            weight: Weight(weight),
            upper_threshold,
            lower_threshold,
            tunnel: Tunnel { kind, port, checksum },
        })
    }
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_fill_dest()`
pub(crate) fn write(writer: &mut Writer, entry: &DestEntry) {
    let it = &entry.attributes;
    writer.attribute(dst::ADDR, &address_octets(entry.dest.ip()));
    writer.be16(dst::PORT, entry.dest.port());
    writer.u32(
        dst::FWD_METHOD,
        match it.method {
            ForwardMethod::Masquerade => MASQUERADE,
            ForwardMethod::Tunnel => TUNNEL,
            ForwardMethod::Direct => DIRECT,
        },
    );
    writer.u32(dst::WEIGHT, it.weight.0);
    writer.u8(
        dst::TUN_TYPE,
        match it.tunnel.kind {
            TunnelKind::Ipip => 0,
            TunnelKind::Gue => 1,
            TunnelKind::Gre => 2,
        },
    );
    writer.be16(dst::TUN_PORT, it.tunnel.port);
    writer.u16(
        dst::TUN_FLAGS,
        match it.tunnel.checksum {
            TunnelChecksum::None => 0,
            TunnelChecksum::Full => 1,
            TunnelChecksum::Remote => 2,
        },
    );
    writer.u32(dst::U_THRESH, it.upper_threshold);
    writer.u32(dst::L_THRESH, it.lower_threshold);
    writer.u32(dst::ACTIVE_CONNS, entry.active);
    writer.u32(dst::INACT_CONNS, entry.inactive);
    writer.u32(dst::PERSIST_CONNS, entry.persistent);
    writer.u16(dst::ADDR_FAMILY, family_number(entry.dest.ip().into()));
    stats::write(writer, dst::STATS, dst::STATS64, entry.totals, entry.rates);
}
