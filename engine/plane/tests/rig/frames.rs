//! Frames for tests, built with the standard library's arithmetic, not with `rvs-wire`'s.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "each test file uses part of it, and a test may panic"
)]

use core::net::{IpAddr, SocketAddr};
use rvs_wire::mac::MacAddr;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

fn sum(octets: &[u8]) -> u32 {
    octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, octets: usize) -> u32 {
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum(&from.octets()) + sum(&to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum(&from.octets()) + sum(&to.octets()),
        _ => panic!("one family"),
    };
    addresses + u32::from(protocol) + octets as u32
}

/// An IP packet of either family around `payload`.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (20 + payload.len() as u16).to_be_bytes();
            packet = vec![0x45, 0, total[0], total[1], 0, 7, 0x40, 0, hops, protocol, 0, 0];
            packet.extend(from.octets());
            packet.extend(to.octets());
            let checksum = (!folded(sum(&packet))).to_be_bytes();
            packet[10..12].copy_from_slice(&checksum);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let octets = (payload.len() as u16).to_be_bytes();
            packet = vec![0x60, 0, 0, 0, octets[0], octets[1], protocol, hops];
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("one family"),
    }
    packet.extend(payload);
    packet
}

pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(data);
    let whole = sum(&segment) + pseudo(from.ip(), to.ip(), TCP, segment.len());
    segment[16..18].copy_from_slice(&(!folded(whole)).to_be_bytes());
    ip(from.ip(), to.ip(), TCP, 64, &segment)
}

pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let octets = (8 + data.len() as u16).to_be_bytes();
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend([octets[0], octets[1], 0, 0]);
    datagram.extend(data);
    let whole = sum(&datagram) + pseudo(from.ip(), to.ip(), UDP, datagram.len());
    let checksum = match !folded(whole) {
        0 => 0xffff,
        checksum => checksum,
    };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    ip(from.ip(), to.ip(), UDP, 64, &datagram)
}

/// An Ethernet frame around an IP packet, padded to 60 octets as a card would.
pub fn ethernet(to: MacAddr, from: MacAddr, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(packet);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// What a receiver reads in a frame with TCP or UDP, checksums checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub to: MacAddr,
    pub from: MacAddr,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    pub hops: u8,
    pub flags: u8,
    pub data: Vec<u8>,
}

/// Reads a frame as its receiver would, and panics over anything it would complain about.
pub fn read(frame: &[u8]) -> Seen {
    let mac = |at: usize| MacAddr(frame[at..at + 6].try_into().unwrap());
    let seen = read_packet(&frame[14..]);
    Seen { to: mac(0), from: mac(6), ..seen }
}

pub fn read_packet(packet: &[u8]) -> Seen {
    let (source, destination, protocol, hops, segment): (IpAddr, IpAddr, u8, u8, &[u8]) =
        match packet[0] >> 4 {
            4 => {
                let header_len = usize::from(packet[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                assert_eq!(folded(sum(&packet[..header_len])), 0xffff, "IPv4 checksum");
                let address = |at: usize| {
                    let octets: [u8; 4] = packet[at..at + 4].try_into().unwrap();
                    IpAddr::from(octets)
                };
                (address(12), address(16), packet[9], packet[8], &packet[header_len..total])
            }
            6 => {
                let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                let address = |at: usize| {
                    let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
                    IpAddr::from(octets)
                };
                (address(8), address(24), packet[6], packet[7], &packet[40..total])
            }
            version => panic!("IP version {version}"),
        };
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let whole = sum(segment) + pseudo(source, destination, protocol, segment.len());
    let (flags, data) = match protocol {
        TCP => (segment[13], &segment[usize::from(segment[12] >> 4) * 4..]),
        UDP => (0, &segment[8..]),
        _ => (0, segment),
    };
    if protocol == TCP || protocol == UDP && port(6) != 0 {
        assert_eq!(folded(whole), 0xffff, "checksum of protocol {protocol}");
    }
    let (from_port, to_port) =
        if matches!(protocol, TCP | UDP) { (port(0), port(2)) } else { (0, 0) };
    Seen {
        to: MacAddr::default(),
        from: MacAddr::default(),
        source: SocketAddr::new(source, from_port),
        destination: SocketAddr::new(destination, to_port),
        protocol,
        hops,
        flags,
        data: data.to_vec(),
    }
}
