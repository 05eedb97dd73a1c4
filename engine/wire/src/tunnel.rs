//! The three tunnels of IPVS: IP in IP, GRE (RFC 2784) and GUE (draft-ietf-intarea-gue).
//!
//! ```text
//!  ipip  ├ outer IP ┼ the packet ┤
//!  gre   ├ outer IP ┼ flags, protocol (4) ┼ [checksum, 0 (4)] ┼ the packet ┤
//!  gue   ├ outer IP ┼ UDP (8) ┼ 0, protocol, 0, 0 (4)        ┼ the packet ┤
//! ```
//!
//! A GUE datagram's source port is a hash of the connection, so that routers with several ways and
//! cards with several queues can tell connections apart.
//!
//! Linux 6.1 `ip_vs_xmit.c` `ip_vs_tunnel_xmit()`, `ip_vs_tunnel_xmit_v6()`, `ipvs_gue_encap()`,
//! `ipvs_gre_encap()`; `ip_vs_core.c` `ipvs_udp_decap()`, `ipvs_gre_decap()`.

use crate::checksum;
use crate::ethernet::ethertype;
use crate::flow::protocol;
use crate::ipip::{Inner, Outer};
use crate::ipv4::Ipv4;
use crate::ipv6::{self, Ipv6};
use crate::rewrite::{Rewrite, Stop};
use crate::{ipv6_ext, udp};
use core::net::IpAddr;

const GRE_LEN: usize = 4;
const GRE_CHECKSUM_LEN: usize = 4;
/// RFC 2784 section 2.1: a checksum is present.
const GRE_CHECKSUM: u8 = 0x80;
const GUE_LEN: usize = 4;

/// How a packet is wrapped: `--tun-type`, `--tun-port`, and whether there is a checksum.
///
/// `--tun-remcsum` is a checksum here. Linux leaves the inner one to the receiver only where a card
/// was to compute it, which is never so for a packet that came in over a wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Encapsulation {
    /// Nothing between the two IP headers.
    #[default]
    Ip,
    /// Generic routing encapsulation.
    Gre {
        /// Over the GRE header and the packet.
        checksum: bool,
    },
    /// Generic UDP encapsulation.
    Gue {
        /// Where the destination takes it out.
        port: u16,
        /// UDP's own.
        checksum: bool,
    },
}

impl Encapsulation {
    /// Octets between the outer IP header and the packet.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self {
            Self::Ip => 0,
            Self::Gre { checksum: false } => GRE_LEN,
            Self::Gre { checksum: true } => GRE_LEN + GRE_CHECKSUM_LEN,
            Self::Gue { .. } => udp::HEADER_LEN + GUE_LEN,
        }
    }
}

/// A tunnel from the director to a destination: all of its headers that is not a packet's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tunnel {
    outer: Outer,
    encapsulation: Encapsulation,
}

impl Tunnel {
    /// The tunnel from the director's address `local` to a destination's; `None` when they are of
    /// different families.
    #[must_use]
    pub fn new(local: IpAddr, dest: IpAddr, encapsulation: Encapsulation) -> Option<Self> {
        Some(Self { outer: Outer::new(local, dest)?, encapsulation })
    }

    /// The same way with other wrapping.
    #[must_use]
    pub fn wrapped(self, encapsulation: Encapsulation) -> Self {
        Self { encapsulation, ..self }
    }

    /// How packets are wrapped.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    /// The director's end.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.outer.source()
    }

    /// Octets that it adds to a packet.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "20 to 52")]
    pub fn len(&self) -> usize {
        self.outer.len() + self.encapsulation.octets()
    }

    /// Takes a hop from the packet in `place`, which begins behind the room for the headers, and
    /// writes those. `may_set_df` says whether an outer IPv4 header takes the don't-fragment flag
    /// over from an IPv4 packet; see [`Tunnel::write`] on the last two.
    ///
    /// # Errors
    ///
    /// [`Stop`]: the hops are used up, which changed nothing; or `place` is too short, or the whole
    /// would be longer than an IP packet can be.
    #[inline(always)]
    pub fn enter<F: Rewrite>(
        &self,
        place: &mut [u8],
        may_set_df: bool,
        identification: u16,
        flow: u16,
    ) -> Result<(), Stop> {
        // Nearly all of them, in words and not in octets.
        match (F::IS_V6, self.encapsulation, &self.outer) {
            (false, Encapsulation::Ip, Outer::V4(outer)) => {
                let headers = place.first_chunk_mut().ok_or(Stop::Unparsed)?;
                return outer.wrap_v4(headers, may_set_df, identification);
            }
            (true, Encapsulation::Ip, Outer::V6(outer)) => {
                let headers = place.first_chunk_mut().ok_or(Stop::Unparsed)?;
                return outer.wrap_v6(headers);
            }
            _ => {}
        }
        self.enter_any::<F>(place, may_set_df, identification, flow)
    }

    #[inline(never)]
    fn enter_any<F: Rewrite>(
        &self,
        place: &mut [u8],
        may_set_df: bool,
        identification: u16,
        flow: u16,
    ) -> Result<(), Stop> {
        let packet = place.get_mut(self.len()..).ok_or(Stop::Unparsed)?;
        F::direct(packet)?;
        let mut inner = F::inner(packet).ok_or(Stop::Unparsed)?;
        inner.dont_fragment &= may_set_df;
        self.write(inner, identification, flow, place).then_some(()).ok_or(Stop::Unparsed)
    }

    /// Writes the headers for `inner` at the beginning of `place`, which holds the packet itself
    /// behind them. `false` when `place` is too short for that, or the whole would be longer than an
    /// IP packet can be; nothing that matters is written then.
    ///
    /// `identification` is [`Outer::write`]'s, `flow` a GUE datagram's source port.
    #[inline(always)]
    #[must_use]
    pub fn write(&self, inner: Inner, identification: u16, flow: u16, place: &mut [u8]) -> bool {
        match self.encapsulation {
            Encapsulation::Ip => self.outer.write(inner, identification, place),
            _ => self.wrap(inner, identification, flow, place).is_some(),
        }
    }

    #[inline(never)]
    fn wrap(&self, inner: Inner, identification: u16, flow: u16, place: &mut [u8]) -> Option<()> {
        let octets = u16::try_from(self.encapsulation.octets()).ok()?.checked_add(inner.octets)?;
        let (front, rest) = place.split_at_mut_checked(self.outer.len())?;
        let payload = rest.get_mut(..usize::from(octets))?;
        let protocol = match self.encapsulation {
            Encapsulation::Ip => inner.protocol,
            Encapsulation::Gre { checksum } => {
                gre(payload, inner.protocol, checksum)?;
                protocol::GRE
            }
            Encapsulation::Gue { port, checksum } => {
                let pseudo = checksum.then(|| self.outer.pseudo(protocol::UDP, octets));
                gue(payload, inner.protocol, (flow, port), pseudo)?;
                protocol::UDP
            }
        };
        self.outer.write(Inner { protocol, octets, ..inner }, identification, front).then_some(())
    }
}

/// Writes the GRE header before the packet in `payload`.
fn gre(payload: &mut [u8], inner: u8, checksum: bool) -> Option<()> {
    let [a, b] = ethertype_of(inner).to_be_bytes();
    if !checksum {
        *payload.first_chunk_mut()? = [0, 0, a, b];
        return Some(());
    }
    *payload.first_chunk_mut()? = [GRE_CHECKSUM, 0, a, b, 0, 0, 0, 0];
    let sum = checksum::not_zero(checksum::checksum(payload, 0));
    let [_, _, _, _, high, low, ..] = payload.first_chunk_mut::<8>()?;
    [*high, *low] = sum;
    Some(())
}

/// Writes UDP and GUE headers before the packet in `payload`; with a checksum if there is a pseudo
/// header's sum for it.
fn gue(payload: &mut [u8], inner: u8, ports: (u16, u16), pseudo: Option<u32>) -> Option<()> {
    let ([a, b], [c, d]) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    let [e, f] = u16::try_from(payload.len()).ok()?.to_be_bytes();
    *payload.first_chunk_mut()? = [a, b, c, d, e, f, 0, 0, 0, inner, 0, 0];
    if let Some(pseudo) = pseudo {
        let sum = checksum::not_zero(checksum::checksum(payload, pseudo));
        let [_, _, _, _, _, _, high, low] = payload.first_chunk_mut::<{ udp::HEADER_LEN }>()?;
        [*high, *low] = sum;
    }
    Some(())
}

fn ethertype_of(inner: u8) -> u16 {
    if inner == protocol::IPV6 { ethertype::IPV6 } else { ethertype::IPV4 }
}

/// What came out of a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tunnelled<'p> {
    /// Where the tunnel begins.
    pub source: IpAddr,
    /// Where it ends.
    pub destination: IpAddr,
    /// How the packet is wrapped.
    pub encapsulation: Encapsulation,
    /// [`protocol::IPIP`] or [`protocol::IPV6`].
    pub protocol: u8,
    /// Octets of all headers before the packet.
    pub octets: usize,
    /// The packet inside, not looked at yet, without what follows the outer packet.
    pub packet: &'p [u8],
}

/// Looks into a packet, either IPv4 or IPv6, which may be one that an ICMP error quotes: its end may
/// be missing. `None` when there is no other packet in it, or only a fragment of one. Checksums are
/// not checked; any UDP datagram that says so is taken for GUE.
#[must_use]
pub fn open(packet: &[u8]) -> Option<Tunnelled<'_>> {
    let (ends, outer, header, payload) = if packet.first()? >> 4 == 6 {
        let (ip, payload) = Ipv6::parse_quoted(packet).ok()?;
        let upper = ipv6_ext::walk(ip.next_header(), payload).ok()?;
        let is_whole = upper.fragment.is_none_or(ipv6_ext::Fragment::is_whole);
        let payload = Some(upper.payload).filter(|_| is_whole)?;
        let header = ipv6::HEADER_LEN + upper.extensions_len;
        ((ip.source().into(), ip.destination().into()), upper.protocol, header, payload)
    } else {
        let (ip, payload) = Ipv4::parse_quoted(packet).ok()?;
        let payload = Some(payload).filter(|_| !ip.is_fragment())?;
        ((ip.source().into(), ip.destination().into()), ip.protocol(), ip.header_len(), payload)
    };
    let (encapsulation, protocol) = match outer {
        protocol::IPIP | protocol::IPV6 => (Encapsulation::Ip, outer),
        protocol::GRE => open_gre(payload)?,
        protocol::UDP => open_gue(payload)?,
        _ => return None,
    };
    let inside = payload.get(encapsulation.octets()..)?;
    let octets = header + encapsulation.octets();
    let (source, destination) = ends;
    Some(Tunnelled { source, destination, encapsulation, protocol, octets, packet: inside })
}

/// Checksum or not is all that IPVS ever says in the flags.
fn open_gre(payload: &[u8]) -> Option<(Encapsulation, u8)> {
    let [flags, version, a, b] = *payload.first_chunk()?;
    let protocol = match u16::from_be_bytes([a, b]) {
        ethertype::IPV4 => protocol::IPIP,
        ethertype::IPV6 => protocol::IPV6,
        _ => return None,
    };
    let known = flags & !GRE_CHECKSUM == 0 && version == 0;
    known.then_some((Encapsulation::Gre { checksum: flags != 0 }, protocol))
}

fn open_gue(payload: &[u8]) -> Option<(Encapsulation, u8)> {
    let [_, _, a, b, _, _, c, d, control, inner, 0, 0] = *payload.first_chunk()? else {
        return None;
    };
    let known = control == 0 && matches!(inner, protocol::IPIP | protocol::IPV6);
    let (port, checksum) = (u16::from_be_bytes([a, b]), [c, d] != [0, 0]);
    known.then_some((Encapsulation::Gue { port, checksum }, inner))
}
