//! The IP header outside: RFC 2003 (IPv4), RFC 2473 (IPv6), RFC 4213 (IPv6 in IPv4). What may stand
//! between the two is [`crate::tunnel`]'s.
//!
//! ```text
//!  ├ outer IPv4 20 or IPv6 40 ┼ the packet, IPv4 or IPv6, one hop less ┤
//!      ▲ all but five fields are the destination's
//! ```
//!
//! All that depends on the destination alone is computed when it changes: an [`Outer`] is a header
//! with nothing of a packet in it, in IPv4 the addresses and their sum.
//!
//! Linux 6.1 `ip_vs_xmit.c` `ip_vs_tunnel_xmit()`, `ip_vs_tunnel_xmit_v6()`.

use crate::checksum::{self, fold64};
use crate::flow::protocol;
use crate::rewrite::Stop;
use crate::{ipv4, ipv6};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an outer header takes over from the packet inside: see [`crate::rewrite::Rewrite::inner`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Inner {
    /// [`crate::flow::protocol::IPIP`] or [`crate::flow::protocol::IPV6`].
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Hops that are left.
    pub hops: u8,
    /// Octets of the packet.
    pub octets: u16,
    /// Whether routers must not fragment an outer IPv4 packet either.
    pub dont_fragment: bool,
}

impl Inner {
    /// DSCP and ECN of the outer header: the inner ones, but "congestion experienced" outside would
    /// be news from the tunnel (RFC 3168 section 9.1.1, full-functionality option; Linux
    /// `INET_ECN_encapsulate()`).
    #[inline]
    fn outer_tos(self) -> u8 {
        // Of both bits of ECN, the lower one.
        let congestion = self.tos & self.tos >> 1 & 1;
        self.tos ^ congestion
    }
}

/// The header of a tunnel from the director to a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outer {
    /// Over IPv4.
    V4(Outer4),
    /// Over IPv6.
    V6(Outer6),
}

impl Outer {
    /// The tunnel from the director's address `local` to a destination's; `None` when they are of
    /// different families.
    #[must_use]
    pub fn new(local: IpAddr, dest: IpAddr) -> Option<Self> {
        match (local, dest) {
            (IpAddr::V4(local), IpAddr::V4(dest)) => Some(Self::V4(Outer4::new(local, dest))),
            (IpAddr::V6(local), IpAddr::V6(dest)) => Some(Self::V6(Outer6::new(local, dest))),
            _ => None,
        }
    }

    /// Octets it adds to a packet.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "20 or 40")]
    pub fn len(&self) -> usize {
        match self {
            Self::V4(_) => ipv4::HEADER_LEN,
            Self::V6(_) => ipv6::HEADER_LEN,
        }
    }

    /// The director's end.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(outer) => {
                let [source, _] = outer.addresses;
                IpAddr::from(source)
            }
            Self::V6(outer) => {
                let [_, _, _, _, _, _, _, _, rest @ ..] = outer.header;
                let octets = rest.first_chunk::<16>().copied();
                IpAddr::from(octets.unwrap_or_default())
            }
        }
    }

    /// The sum of the pseudo-header before `octets` of `protocol`.
    #[must_use]
    pub fn pseudo(&self, protocol: u8, octets: u16) -> u32 {
        let addresses = match self {
            Self::V4(outer) => outer.addresses.as_flattened(),
            Self::V6(outer) => outer.header.get(8..).unwrap_or_default(),
        };
        checksum::sum(addresses) + u32::from(protocol) + u32::from(octets)
    }

    /// Writes the header for `inner` at the beginning of `place`, which is [`Outer::len`] octets
    /// long or longer. `false`, and nothing is written, when it is shorter or when the whole would
    /// be longer than an IP packet can be.
    ///
    /// `identification` is for an IPv4 packet that may be fragmented; see [`Outer4::write`].
    #[inline(always)]
    #[must_use]
    pub fn write(&self, inner: Inner, identification: u16, place: &mut [u8]) -> bool {
        match self {
            Self::V4(outer) => place
                .first_chunk_mut()
                .is_some_and(|place| outer.write(inner, identification, place)),
            Self::V6(outer) => {
                place.first_chunk_mut().map(|place| outer.write(inner, place)).is_some()
            }
        }
    }
}

/// An IPv4 header with nothing of a packet in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outer4 {
    addresses: [[u8; 4]; 2],
    /// Of their words of four octets.
    sum: u64,
}

impl Outer4 {
    /// From the director to a destination.
    #[must_use]
    pub fn new(local: Ipv4Addr, dest: Ipv4Addr) -> Self {
        let sum = u64::from(local.to_bits()) + u64::from(dest.to_bits());
        Self { addresses: [local.octets(), dest.octets()], sum }
    }

    /// Writes the header for `inner`; `false`, and nothing is written, when the whole would be
    /// longer than 65535 octets.
    ///
    /// `identification` is used when routers may fragment the packet, and is 0 when they must not
    /// (RFC 6864 section 4.1; Linux `ip_select_ident()`).
    #[inline(always)]
    #[must_use]
    pub fn write(
        &self,
        inner: Inner,
        identification: u16,
        place: &mut [u8; ipv4::HEADER_LEN],
    ) -> bool {
        let Some(octets) = inner.octets.checked_add(20) else { return false };
        let (flags, identification) =
            if inner.dont_fragment { (0x40, 0) } else { (0, identification) };
        let ([a, b], [c, d]) = (octets.to_be_bytes(), identification.to_be_bytes());
        let first = u32::from_be_bytes([0x45, inner.outer_tos(), a, b]);
        let second = u32::from_be_bytes([c, d, flags, 0]);
        let third = u32::from_be_bytes([inner.hops, inner.protocol, 0, 0]);
        place.as_chunks_mut::<4>().0.copy_from_slice(&self.header([first, second, third]));
        true
    }

    /// One hop less for the IPv4 packet in `place`, which begins behind the room for its outer
    /// header, and that header: [`crate::rewrite::Rewrite::direct`], its `inner` and
    /// [`Outer4::write`] in one, in words instead of octets, for what nearly every tunnel carries.
    ///
    /// # Errors
    ///
    /// [`Stop`]; nothing is written then.
    #[inline(always)]
    pub(crate) fn wrap_v4(
        &self,
        place: &mut [u8; 2 * ipv4::HEADER_LEN],
        may_set_df: bool,
        identification: u16,
    ) -> Result<(), Stop> {
        const FRONT: u32 = 20;
        const DF: u32 = 0x4000;
        let (words, _) = place.as_chunks_mut::<4>();
        let [a, b, c, d, e, one, two, three, _, _] = words else { return Err(Stop::Unparsed) };
        let [first, second, third] = [*one, *two, *three].map(u32::from_be_bytes);
        if third < 2 << 24 {
            return Err(Stop::Exceeded);
        }
        if first & 0xffff > 0xffff - FRONT {
            return Err(Stop::Unparsed);
        }
        let [hops, _, sum @ ..] = three;
        *hops = hops.wrapping_sub(1);
        *sum = checksum::hop(*sum);
        // Type of service and length; without "congestion experienced", as in `outer_tos`.
        let both = first & 0x00ff_ffff;
        let first = (both ^ both & both >> 1 & 1 << 16) + (0x45 << 24) + FRONT;
        let second =
            if second & DF != 0 && may_set_df { DF } else { u32::from(identification) << 16 };
        let third = (third & 0xff << 24) - (1 << 24) + (u32::from(protocol::IPIP) << 16);
        [*a, *b, *c, *d, *e] = self.header([first, second, third]);
        Ok(())
    }

    /// The header of these three words, less its checksum.
    #[inline(always)]
    fn header(&self, words: [u32; 3]) -> [[u8; 4]; 5] {
        let [first, second, third] = words;
        let sum = self.sum + u64::from(first) + u64::from(second) + u64::from(third);
        let third = third | u32::from(!fold64(sum));
        let [source, destination] = self.addresses;
        let [first, second, third] = [first, second, third].map(u32::to_be_bytes);
        [first, second, third, source, destination]
    }
}

/// An IPv6 header with nothing of a packet in it. The flow label is 0 and there is no tunnel
/// encapsulation limit, as in Linux.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outer6 {
    header: [u8; ipv6::HEADER_LEN],
}

impl Outer6 {
    /// From the director to a destination.
    #[must_use]
    pub fn new(local: Ipv6Addr, dest: Ipv6Addr) -> Self {
        let header = ipv6::Header {
            traffic_class: 0,
            payload_len: 0,
            next_header: 0,
            hop_limit: 0,
            source: local,
            destination: dest,
        };
        Self { header: header.octets() }
    }

    /// Writes the header for `inner`.
    #[inline(always)]
    pub fn write(&self, inner: Inner, place: &mut [u8; ipv6::HEADER_LEN]) {
        let tos = inner.outer_tos();
        *place = self.header;
        place[0] = 0x60 | tos >> 4;
        place[1] = tos << 4;
        [place[4], place[5]] = inner.octets.to_be_bytes();
        [place[6], place[7]] = [inner.protocol, inner.hops];
    }

    /// [`Outer4::wrap_v4`] for IPv6 in IPv6.
    ///
    /// # Errors
    ///
    /// [`Stop`]; nothing is written then.
    #[inline(always)]
    pub(crate) fn wrap_v6(&self, place: &mut [u8; 2 * ipv6::HEADER_LEN]) -> Result<(), Stop> {
        const HEADER: u32 = 40;
        let Some((front, packet)) = place.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>() else {
            return Err(Stop::Unparsed);
        };
        let (words, _) = packet.as_chunks_mut::<4>();
        let [one, two, ..] = words else { return Err(Stop::Unparsed) };
        let [first, second] = [*one, *two].map(u32::from_be_bytes);
        if second & 0xff < 2 {
            return Err(Stop::Exceeded);
        }
        if second >> 16 > 0xffff - HEADER {
            return Err(Stop::Unparsed);
        }
        let hops = (second & 0xff) - 1;
        *two = (second - 1).to_be_bytes();
        *front = self.header;
        // The traffic class without "congestion experienced", as in `outer_tos`; no flow label.
        let both = first & 0x0ff0_0000;
        let first = 6 << 28 | both ^ both & both >> 1 & 1 << 20;
        let second = ((second >> 16) + HEADER) << 16 | u32::from(protocol::IPV6) << 8 | hops;
        let (words, _) = front.as_chunks_mut::<4>();
        let [one, two, ..] = words else { return Err(Stop::Unparsed) };
        [*one, *two] = [first, second].map(u32::to_be_bytes);
        Ok(())
    }
}
