//! Frames of every protocol, all of them right, and what it takes to spoil them.
#![allow(dead_code, reason = "every test program uses a part of it")]

use core::net::{Ipv4Addr, Ipv6Addr};
use rvs_wire::flow::{V4, V6, protocol};
use rvs_wire::icmp::{Error, Icmp};
use rvs_wire::ipip::Outer;
use rvs_wire::ipv6_ext::{self, next_header};
use rvs_wire::mac::MacAddr;
use rvs_wire::rewrite::Rewrite;
use rvs_wire::tcp::flag;
use rvs_wire::{arp, checksum, ethernet, ethernet::ethertype, ipv4, ipv6, ndp, tcp, udp};

pub const ME: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub const REAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub const REAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 11);
pub const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
pub const CLIENT_PORT: u16 = 40000;
pub const HTTP: u16 = 80;

/// Octets of a string of hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// xorshift64*.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

pub fn len16(octets: &[u8]) -> u16 {
    u16::try_from(octets.len()).unwrap()
}

/// An IPv4 packet; `options` are a multiple of four octets.
pub fn ipv4(
    protocol: u8,
    ends: (Ipv4Addr, Ipv4Addr),
    dont_fragment: bool,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = ipv4::Header {
        tos: 0,
        payload_len: len16(options) + len16(payload),
        identification: 0x1234,
        dont_fragment,
        ttl: 64,
        protocol,
        source: ends.0,
        destination: ends.1,
    };
    let mut packet = [&header.octets(), options, payload].concat();
    packet[0] += u8::try_from(options.len() / 4).unwrap();
    sum_up_v4(&mut packet);
    packet
}

/// Makes the header checksum right.
pub fn sum_up_v4(packet: &mut [u8]) {
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let sum = checksum::checksum(&packet[..header_len], 0);
    packet[10..12].copy_from_slice(&sum);
}

pub fn ipv6(next_header: u8, ends: (Ipv6Addr, Ipv6Addr), payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header {
        traffic_class: 0,
        payload_len: len16(payload),
        next_header,
        hop_limit: 64,
        source: ends.0,
        destination: ends.1,
    };
    [&header.octets(), payload].concat()
}

/// A TCP segment from the client, with four octets of options.
pub fn tcp<F: Rewrite>(ends: (F::Addr, F::Addr), ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let rest = [&[2, 4, 5, 0xb4], data].concat();
    let pseudo = F::pseudo_sum(ends.0, ends.1, protocol::TCP, 20 + len16(&rest));
    let header = tcp::Header {
        source_port: ports.0,
        destination_port: ports.1,
        sequence: 1000,
        acknowledgment: 0,
        flags: flag::SYN,
        window: 64240,
    };
    let mut segment = [&header.octets(&rest, pseudo), &rest[..]].concat();
    segment[12] = 0x60;
    segment[16..18].fill(0);
    let sum = checksum::checksum(&segment, pseudo);
    segment[16..18].copy_from_slice(&sum);
    segment
}

pub fn udp<F: Rewrite>(ends: (F::Addr, F::Addr), ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let pseudo = F::pseudo_sum(ends.0, ends.1, protocol::UDP, 8 + len16(data));
    [&udp::header(ports.0, ports.1, data, pseudo), data].concat()
}

pub fn echo_request4() -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0, 1, 0, 2, b'p', b'i', b'n', b'g'];
    let sum = checksum::checksum(&message, 0);
    message[2..4].copy_from_slice(&sum);
    ipv4(protocol::ICMP, (CLIENT, VIP), true, &[], &message)
}

pub fn echo_request6() -> Vec<u8> {
    let mut message = vec![128, 0, 0, 0, 0, 1, 0, 2, b'p', b'i', b'n', b'g'];
    let pseudo = V6::pseudo_sum(CLIENT6, VIP6, protocol::ICMPV6, 12);
    let sum = checksum::checksum(&message, pseudo);
    message[2..4].copy_from_slice(&sum);
    ipv6(protocol::ICMPV6, (CLIENT6, VIP6), &message)
}

pub fn tcp4() -> Vec<u8> {
    let segment = tcp::<V4>((CLIENT, VIP), (CLIENT_PORT, HTTP), b"data");
    ipv4(protocol::TCP, (CLIENT, VIP), true, &[], &segment)
}

pub fn udp4() -> Vec<u8> {
    let datagram = udp::<V4>((CLIENT, VIP), (CLIENT_PORT, 53), b"query");
    ipv4(protocol::UDP, (CLIENT, VIP), false, &[], &datagram)
}

pub fn tcp6() -> Vec<u8> {
    let segment = tcp::<V6>((CLIENT6, VIP6), (CLIENT_PORT, HTTP), b"data");
    ipv6(protocol::TCP, (CLIENT6, VIP6), &segment)
}

pub fn udp6() -> Vec<u8> {
    let datagram = udp::<V6>((CLIENT6, VIP6), (CLIENT_PORT, 53), b"query");
    ipv6(protocol::UDP, (CLIENT6, VIP6), &datagram)
}

/// `packet` with extension headers of `kinds`, eight octets each, before its payload.
pub fn extended(mut packet: Vec<u8>, kinds: &[u8]) -> Vec<u8> {
    let upper = packet[6];
    let mut headers = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(upper);
        let len = u8::from(*kind == next_header::AUTHENTICATION);
        headers.extend([next, len, 0, 0, 0, 0, 0, 0]);
        headers.extend(vec![0; usize::from(len) * 4]);
    }
    packet[6] = kinds.first().copied().unwrap_or(upper);
    packet.splice(40..40, headers);
    let len = len16(&packet) - 40;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet
}

/// `packet` in a tunnel.
pub fn tunnelled<F: Rewrite>(packet: &[u8], outer: Outer) -> Vec<u8> {
    let mut whole = vec![0; outer.len()];
    assert!(outer.write(F::inner(packet).unwrap(), 0x4321, &mut whole));
    whole.extend(packet);
    whole
}

/// An error about a packet from the VIP.
pub fn error4() -> Vec<u8> {
    let segment = tcp::<V4>((VIP, CLIENT), (HTTP, CLIENT_PORT), b"answer");
    let about = ipv4(protocol::TCP, (VIP, CLIENT), true, &[], &segment);
    let mut place = [0; 576];
    let router = Ipv4Addr::new(198, 51, 100, 1);
    let len = V4::write_error(Error::TooBig { mtu: 1280 }, router, &about, 7, &mut place);
    place[..len.unwrap()].to_vec()
}

/// An error about a packet from the VIP.
pub fn error6() -> Vec<u8> {
    let segment = tcp::<V6>((VIP6, CLIENT6), (HTTP, CLIENT_PORT), b"answer");
    let about = ipv6(protocol::TCP, (VIP6, CLIENT6), &segment);
    let mut place = [0; 1280];
    let router = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let len = V6::write_error(Error::TooBig { mtu: 1280 }, router, &about, 0, &mut place);
    place[..len.unwrap()].to_vec()
}

pub fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&ethernet::header(ME, GATEWAY, ethertype), packet].concat()
}

/// The same frame in a VLAN.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &ethertype::VLAN.to_be_bytes(), &vlan.to_be_bytes(), rest].concat()
}

/// A frame of each kind, by name: whole, and right in every checksum.
pub fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = |packet: Vec<u8>| frame(ethertype::IPV4, &packet);
    let v6 = |packet: Vec<u8>| frame(ethertype::IPV6, &packet);
    let segment = tcp::<V4>((CLIENT, VIP), (CLIENT_PORT, HTTP), b"data");
    let mut fragment = udp4();
    fragment[6] = 0x20;
    sum_up_v4(&mut fragment);
    let chain = [
        next_header::HOP_BY_HOP,
        next_header::DESTINATION_OPTIONS,
        next_header::ROUTING,
        next_header::FRAGMENT,
        next_header::AUTHENTICATION,
        next_header::DESTINATION_OPTIONS,
    ];
    let tunnel4 = Outer::new(LOCAL.into(), REAL.into()).unwrap();
    let tunnel6 = Outer::new(LOCAL6.into(), REAL6.into()).unwrap();
    vec![
        ("tcp4", v4(tcp4())),
        ("udp4", v4(udp4())),
        (
            "tcp4 with options",
            v4(ipv4(protocol::TCP, (CLIENT, VIP), true, &[7, 7, 4, 0, 0, 0, 0, 0], &segment)),
        ),
        ("tcp4 in a vlan", tagged(&v4(tcp4()), 100)),
        ("fragment4", v4(fragment)),
        ("echo4", v4(echo_request4())),
        ("error4", v4(error4())),
        ("tcp6", v6(tcp6())),
        ("udp6", v6(udp6())),
        ("tcp6 with extension headers", v6(extended(tcp6(), &chain))),
        ("udp6 in a vlan", tagged(&v6(udp6()), 4094)),
        ("echo6", v6(echo_request6())),
        ("error6", v6(error6())),
        ("tcp4 in ipv4", v4(tunnelled::<V4>(&tcp4(), tunnel4))),
        ("tcp4 in ipv6", v6(tunnelled::<V4>(&tcp4(), tunnel6))),
        ("udp6 in ipv4", v4(tunnelled::<V6>(&udp6(), tunnel4))),
        ("udp6 in ipv6", v6(tunnelled::<V6>(&udp6(), tunnel6))),
        ("arp request", arp::Arp::request((GATEWAY, CLIENT), VIP).frame().to_vec()),
        ("arp reply", arp::Arp::request((ME, VIP), CLIENT).reply(GATEWAY).frame().to_vec()),
        ("solicitation", ndp::Message::solicitation((GATEWAY, CLIENT6), VIP6).frame().to_vec()),
        (
            "advertisement",
            ndp::Message::advertisement((GATEWAY, CLIENT6), Some((ME, VIP6)), true)
                .frame()
                .to_vec(),
        ),
    ]
}

/// Whether all checksums of a whole IP packet are right; a UDP checksum may be missing.
pub fn adds_up(packet: &[u8]) -> bool {
    let (protocol, segment, addresses) = if packet[0] >> 4 == 4 {
        let Ok((ip, segment)) = ipv4::Ipv4::parse(packet) else { return false };
        (ip.protocol(), segment, V4::pseudo_sum(ip.source(), ip.destination(), 0, 0))
    } else {
        let Ok((ip, payload)) = ipv6::Ipv6::parse(packet) else { return false };
        let Ok(upper) = ipv6_ext::walk(ip.next_header(), payload) else { return false };
        let addresses = V6::pseudo_sum(ip.source(), ip.destination(), 0, 0);
        (upper.protocol, upper.payload, addresses)
    };
    let pseudo = addresses + u32::from(protocol) + u32::from(len16(segment));
    match protocol {
        protocol::UDP if segment[6..8] == [0, 0] => true,
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => checksum::is_right(segment, pseudo),
        protocol::ICMP => checksum::is_right(segment, 0),
        protocol::IPIP | protocol::IPV6 => adds_up(segment),
        _ => false,
    }
}
