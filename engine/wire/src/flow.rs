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
    /// Generic routing encapsulation, RFC 2784.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload, RFC 4303.
    pub const ESP: u8 = 50;
    /// Authentication header, RFC 4302.
    pub const AH: u8 = 51;
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
    #[must_use]
    fn reversed(self) -> Self;

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
///
/// Words, because compilers take what is made of octets apart into octets. Each has the value that
/// its four octets have in memory, so that taking them from a packet turns nothing round.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ends4 {
    hosts: [u32; 2],
    ports: u32,
}

/// The ends of an IPv6 packet: thirty-six octets, kept as [`Ends4`]'s are.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ends6 {
    hosts: [u32; 8],
    ports: u32,
}

#[inline(always)]
fn load<const N: usize>(octets: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, octets) in words.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_ne_bytes(*octets);
    }
    words
}

#[inline(always)]
fn store<const N: usize>(words: &[u32]) -> [u8; N] {
    let mut octets = [0; N];
    for (octets, word) in octets.as_chunks_mut().0.iter_mut().zip(words) {
        *octets = word.to_ne_bytes();
    }
    octets
}

/// Two words as one, whatever the machine.
#[inline(always)]
fn pair(first: u32, second: u32) -> u64 {
    let value = |word: u32| u64::from(u32::from_le_bytes(word.to_ne_bytes()));
    value(first) | value(second) << 32
}

/// Source and destination port.
#[inline(always)]
fn split(ports: u32) -> (u16, u16) {
    let [a, b, c, d] = ports.to_ne_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

#[inline(always)]
fn join(source: u16, destination: u16) -> u32 {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

impl Ends4 {
    /// From what a packet has.
    #[inline(always)]
    #[must_use]
    pub fn from_wire(hosts: &[u8; 8], ports: [u8; 4]) -> Self {
        Self { hosts: load(hosts), ports: u32::from_ne_bytes(ports) }
    }

    /// Source and destination address as they are on the wire.
    #[inline(always)]
    #[must_use]
    pub fn hosts(&self) -> [u8; 8] {
        store(&self.hosts)
    }

    /// Source and destination port as they are on the wire.
    #[inline(always)]
    #[must_use]
    pub fn ports(&self) -> [u8; 4] {
        self.ports.to_ne_bytes()
    }
}

impl Ends6 {
    /// From what a packet has.
    #[inline(always)]
    #[must_use]
    pub fn from_wire(hosts: &[u8; 32], ports: [u8; 4]) -> Self {
        Self { hosts: load(hosts), ports: u32::from_ne_bytes(ports) }
    }

    /// Source and destination address as they are on the wire.
    #[inline(always)]
    #[must_use]
    pub fn hosts(&self) -> [u8; 32] {
        store(&self.hosts)
    }

    /// Source and destination port as they are on the wire.
    #[inline(always)]
    #[must_use]
    pub fn ports(&self) -> [u8; 4] {
        self.ports.to_ne_bytes()
    }
}

impl Ends for Ends4 {
    type Addr = Ipv4Addr;

    #[inline(always)]
    fn new(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Self {
        let hosts = [source.0, destination.0].map(|host| u32::from_ne_bytes(host.octets()));
        Self { hosts, ports: join(source.1, destination.1) }
    }

    #[inline]
    fn source(self) -> (Ipv4Addr, u16) {
        let [host, _] = self.hosts;
        (host.to_ne_bytes().into(), split(self.ports).0)
    }

    #[inline]
    fn destination(self) -> (Ipv4Addr, u16) {
        let [_, host] = self.hosts;
        (host.to_ne_bytes().into(), split(self.ports).1)
    }

    #[inline]
    fn reversed(self) -> Self {
        let [source, destination] = self.hosts;
        Self { hosts: [destination, source], ports: self.ports.rotate_left(16) }
    }

    #[inline(always)]
    fn words(&self) -> [u64; 5] {
        let [source, destination] = self.hosts;
        [pair(source, destination), pair(self.ports, 0), 0, 0, 0]
    }
}

impl Ends for Ends6 {
    type Addr = Ipv6Addr;

    #[inline(always)]
    fn new(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16)) -> Self {
        let ([a, b, c, d], [e, f, g, h]) =
            (load(&source.0.octets()), load(&destination.0.octets()));
        Self { hosts: [a, b, c, d, e, f, g, h], ports: join(source.1, destination.1) }
    }

    #[inline]
    fn source(self) -> (Ipv6Addr, u16) {
        let [a, b, c, d, ..] = self.hosts;
        (store::<16>(&[a, b, c, d]).into(), split(self.ports).0)
    }

    #[inline]
    fn destination(self) -> (Ipv6Addr, u16) {
        let [.., e, f, g, h] = self.hosts;
        (store::<16>(&[e, f, g, h]).into(), split(self.ports).1)
    }

    #[inline]
    fn reversed(self) -> Self {
        let [a, b, c, d, e, f, g, h] = self.hosts;
        Self { hosts: [e, f, g, h, a, b, c, d], ports: self.ports.rotate_left(16) }
    }

    #[inline(always)]
    fn words(&self) -> [u64; 5] {
        let [a, b, c, d, e, f, g, h] = self.hosts;
        [pair(a, b), pair(c, d), pair(e, f), pair(g, h), pair(self.ports, 0)]
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
