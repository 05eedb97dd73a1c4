//! What a connection is looked up by, in either address family.
//!
//! Code that does not care about the family is generic over [`Family`] and compiled twice: nothing
//! is decided per packet but the first four bits of its header.

use core::fmt::Debug;
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// IP protocol numbers, as IANA assigned them.
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP, RFC 2003.
    pub const IPIP: u8 = 4;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// IPv6 in IP, RFC 2473 and RFC 4213.
    pub const IPV6: u8 = 41;
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// SCTP, RFC 9260.
    pub const SCTP: u8 = 132;
}

/// Source address, destination address, source port, destination port as they are on the wire:
/// compared as words, copied without turning a single number round.
pub trait Ends: Copy + Debug + Default + Eq + Hash + Send + Sync + 'static {
    /// The address type of the family.
    type Addr: Copy + Debug + Eq + Hash + Into<IpAddr>;

    /// The ends of a packet.
    fn new(source: (Self::Addr, u16), destination: (Self::Addr, u16)) -> Self;
    /// Who sent it.
    fn source(self) -> (Self::Addr, u16);
    /// Whom it is for.
    fn destination(self) -> (Self::Addr, u16);

    /// The way back.
    #[inline]
    #[must_use]
    fn reversed(self) -> Self {
        Self::new(self.destination(), self.source())
    }

    /// Who sent it, whatever the family.
    #[inline]
    fn source_socket(self) -> SocketAddr {
        let (address, port) = self.source();
        SocketAddr::new(address.into(), port)
    }

    /// Whom it is for, whatever the family.
    #[inline]
    fn destination_socket(self) -> SocketAddr {
        let (address, port) = self.destination();
        SocketAddr::new(address.into(), port)
    }

    /// The octets as words, zero-padded: what hashes read. IPv4 fills the first two.
    fn words(&self) -> [u64; 5];
}

/// The ends of an IPv4 packet: twelve octets.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ends4(pub [u8; 12]);

/// The ends of an IPv6 packet: thirty-six octets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ends6(pub [u8; 36]);

impl Default for Ends6 {
    fn default() -> Self {
        Self([0; 36])
    }
}

impl Ends for Ends4 {
    type Addr = Ipv4Addr;

    #[inline]
    fn new(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (source.0.octets(), destination.0.octets());
        let ([i, j], [k, l]) = (source.1.to_be_bytes(), destination.1.to_be_bytes());
        Self([a, b, c, d, e, f, g, h, i, j, k, l])
    }

    #[inline]
    fn source(self) -> (Ipv4Addr, u16) {
        let [a, b, c, d, _, _, _, _, i, j, _, _] = self.0;
        (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([i, j]))
    }

    #[inline]
    fn destination(self) -> (Ipv4Addr, u16) {
        let [_, _, _, _, e, f, g, h, _, _, k, l] = self.0;
        (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([k, l]))
    }

    #[inline(always)]
    fn words(&self) -> [u64; 5] {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        let hosts = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        [hosts, u64::from(u32::from_le_bytes([i, j, k, l])), 0, 0, 0]
    }
}

impl Ends for Ends6 {
    type Addr = Ipv6Addr;

    #[inline]
    fn new(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16)) -> Self {
        let mut octets = [0; 36];
        let (hosts, ports) = octets.split_at_mut(32);
        let (from, to) = hosts.split_at_mut(16);
        from.copy_from_slice(&source.0.octets());
        to.copy_from_slice(&destination.0.octets());
        let ([a, b], [c, d]) = (source.1.to_be_bytes(), destination.1.to_be_bytes());
        ports.copy_from_slice(&[a, b, c, d]);
        Self(octets)
    }

    #[inline]
    fn source(self) -> (Ipv6Addr, u16) {
        let [first, ..] = self.0.as_chunks::<16>().0 else { return (Ipv6Addr::UNSPECIFIED, 0) };
        let [.., a, b, _, _] = self.0;
        (Ipv6Addr::from(*first), u16::from_be_bytes([a, b]))
    }

    #[inline]
    fn destination(self) -> (Ipv6Addr, u16) {
        let [_, second, ..] = self.0.as_chunks::<16>().0 else {
            return (Ipv6Addr::UNSPECIFIED, 0);
        };
        let [.., c, d] = self.0;
        (Ipv6Addr::from(*second), u16::from_be_bytes([c, d]))
    }

    #[inline(always)]
    fn words(&self) -> [u64; 5] {
        let (words, rest) = self.0.as_chunks::<8>();
        let mut all = [0; 5];
        for (place, word) in all.iter_mut().zip(words) {
            *place = u64::from_le_bytes(*word);
        }
        if let (Some(last), Some(ports)) = (all.last_mut(), rest.first_chunk::<4>()) {
            *last = u64::from(u32::from_le_bytes(*ports));
        }
        all
    }
}

/// An address family.
pub trait Family: Copy + Debug + Default + Eq + Hash + Send + Sync + 'static {
    /// Addresses and ports of a packet.
    type Ends: Ends<Addr = Self::Addr>;
    /// An address.
    type Addr: Copy + Debug + Eq + Hash + Into<IpAddr>;
    /// Whether this is IPv6: a constant, so that what follows from it costs nothing.
    const IS_V6: bool;

    /// `address` in this family, if it is of this family.
    fn address(address: IpAddr) -> Option<Self::Addr>;
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct V6;

impl Family for V4 {
    type Ends = Ends4;
    type Addr = Ipv4Addr;
    const IS_V6: bool = false;

    #[inline]
    fn address(address: IpAddr) -> Option<Ipv4Addr> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Family for V6 {
    type Ends = Ends6;
    type Addr = Ipv6Addr;
    const IS_V6: bool = true;

    #[inline]
    fn address(address: IpAddr) -> Option<Ipv6Addr> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
}

/// What a connection is looked up by.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Key<F: Family> {
    /// Addresses and ports.
    pub ends: F::Ends,
    /// IP protocol number.
    pub protocol: u8,
}
