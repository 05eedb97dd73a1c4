//! What simulated cards hash, and the rule of ADR 0002 written down a second time.

use crate::rig::Rss;
use core::net::IpAddr;
use rvs_wire::toeplitz::{DEFAULT_KEY, Toeplitz};
use std::sync::LazyLock;

/// How the cards spread frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spread {
    /// Source address and port towards the VIPs, destination address and port towards clients, with
    /// the key that the director uses.
    ByClient,
    /// Both addresses and both ports, with the key that most cards start with.
    ByFlow,
    /// Everything to the first queue.
    None,
}

impl Spread {
    pub const ALL: [Self; 3] = [Self::ByClient, Self::ByFlow, Self::None];

    /// The hashes of the first and the second link.
    pub fn hashes(self) -> [Rss; 2] {
        match self {
            Self::ByClient => [by_source, by_destination],
            Self::ByFlow => [by_flow, by_flow],
            Self::None => [|_| 0, |_| 0],
        }
    }
}

/// Microsoft's definition, bit by bit, with the key that repeats 6d5a: the hash of two octets.
/// Since the key has a period of 16 bits, whole inputs are the sum of their words.
fn hash_of_word(word: u16) -> u32 {
    let key = |bit: usize| 0x6d5a_u32 >> (15 - bit % 16) & 1;
    let window = |from: usize| (from..from + 32).fold(0, |window, bit| window << 1 | key(bit));
    (0..16).filter(|bit| word >> (15 - bit) & 1 == 1).fold(0, |hash, bit| hash ^ window(bit))
}

static HASHES: LazyLock<Vec<u32>> = LazyLock::new(|| (0..=u16::MAX).map(hash_of_word).collect());

fn hash(words: impl Iterator<Item = u16>) -> u32 {
    HASHES[usize::from(words.fold(0, |sum, word| sum ^ word))]
}

fn words(octets: &[u8]) -> impl Iterator<Item = u16> {
    octets.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// The hash of an address and a port.
pub fn hash_of(address: IpAddr, port: u16) -> u32 {
    match address {
        IpAddr::V4(address) => hash(words(&address.octets()).chain([port])),
        IpAddr::V6(address) => hash(words(&address.octets()).chain([port])),
    }
}

/// The worker whom connections of a client belong to, of this many: ADR 0002.
pub fn owner(address: IpAddr, port: u16, workers: u16) -> u16 {
    let indirection: Vec<u16> = (0..128).map(|entry| entry % workers).collect();
    indirection[usize::try_from(hash_of(address, port) % 128).unwrap()]
}

/// Addresses (one behind the other) and ports of a frame with TCP or UDP, tagged or not.
fn flow(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let l3 = if frame.get(12..14)? == [0x81, 0] { 18 } else { 14 };
    let packet = frame.get(l3..)?;
    let (addresses, protocol, l4) = match packet.first()? >> 4 {
        4 => (packet.get(12..20)?, packet.get(9)?, usize::from(packet[0] & 15) * 4),
        6 => (packet.get(8..40)?, packet.get(6)?, 40),
        _ => return None,
    };
    if !matches!(protocol, 6 | 17) {
        return None;
    }
    Some((addresses, packet.get(l4..l4 + 4)?))
}

fn by_source(frame: &[u8]) -> u32 {
    let Some((addresses, ports)) = flow(frame) else { return 0 };
    hash(words(&addresses[..addresses.len() / 2]).chain(words(&ports[..2])))
}

fn by_destination(frame: &[u8]) -> u32 {
    let Some((addresses, ports)) = flow(frame) else { return 0 };
    hash(words(&addresses[addresses.len() / 2..]).chain(words(&ports[2..])))
}

static CARD: Toeplitz = Toeplitz::new(&DEFAULT_KEY);

fn by_flow(frame: &[u8]) -> u32 {
    let Some((addresses, ports)) = flow(frame) else { return 0 };
    let mut input = [0; 36];
    input[..addresses.len()].copy_from_slice(addresses);
    input[addresses.len()..addresses.len() + 4].copy_from_slice(ports);
    CARD.hash(&input[..addresses.len() + 4])
}
