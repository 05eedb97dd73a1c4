//! Frames for tests, built with the standard library's arithmetic, not with `rvs-wire`'s.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rvs_wire::mac::MacAddr;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

/// Types of SCTP chunks.
pub const DATA: u8 = 0;
pub const INIT: u8 = 1;
pub const INIT_ACK: u8 = 2;
pub const ABORT: u8 = 6;
pub const COOKIE_ECHO: u8 = 10;
pub const COOKIE_ACK: u8 = 11;

/// Octets of an Ethernet header without a tag.
pub const L3: usize = 14;

pub fn sum(octets: &[u8]) -> u32 {
    octets
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

pub fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn short(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap().to_be_bytes()
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, octets: usize) -> u32 {
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum(&from.octets()) + sum(&to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum(&from.octets()) + sum(&to.octets()),
        _ => panic!("one family"),
    };
    addresses + u32::from(protocol) + u32::try_from(octets).unwrap()
}

/// An IP packet of either family around `payload`. IPv4: identification 7, don't fragment.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = short(20 + payload.len());
            packet = vec![0x45, 0, high, low, 0, 7, 0x40, 0, hops, protocol, 0, 0];
            packet.extend(from.octets());
            packet.extend(to.octets());
            sum_up_v4(&mut packet);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = short(payload.len());
            packet = vec![0x60, 0, 0, 0, high, low, protocol, hops];
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("one family"),
    }
    packet.extend(payload);
    packet
}

/// The checksum of an IPv4 header anew.
pub fn sum_up_v4(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let checksum = (!folded(sum(&packet[..len]))).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
}

/// A change of an IP header; the checksum follows.
pub fn changed(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut packet);
    if packet[0] >> 4 == 4 {
        sum_up_v4(&mut packet);
    }
    packet
}

pub fn with_hops(packet: Vec<u8>, hops: u8) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    changed(packet, |packet| packet[at] = hops)
}

/// The packet without don't-fragment, if it is IPv4.
pub fn may_fragment(packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        return packet;
    }
    changed(packet, |packet| packet[6] &= !0x40)
}

/// The IPv4 packet with options in its header, of a length that is a multiple of four.
pub fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut longer = packet[..20].to_vec();
    longer.extend(options);
    longer.extend(&packet[20..]);
    longer[0] = 0x40 | u8::try_from((20 + options.len()) / 4).unwrap();
    let total = short(longer.len());
    longer[2..4].copy_from_slice(&total);
    sum_up_v4(&mut longer);
    longer
}

/// The IPv6 packet with an extension header of `kind` before what it has; `octets` begins behind
/// the next-header octet.
pub fn with_extension(packet: &[u8], kind: u8, octets: &[u8]) -> Vec<u8> {
    let mut longer = packet[..40].to_vec();
    longer.push(packet[6]);
    longer.extend(octets);
    longer.extend(&packet[40..]);
    longer[6] = kind;
    let payload = short(longer.len() - 40);
    longer[4..6].copy_from_slice(&payload);
    longer
}

/// A TCP segment in a packet.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'d> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub flags: u8,
    pub data: &'d [u8],
}

impl Segment<'_> {
    pub fn packet(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.from.port().to_be_bytes());
        segment.extend(self.to.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgment.to_be_bytes());
        segment.extend([0x50, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        segment.extend(self.data);
        let (from, to) = (self.from.ip(), self.to.ip());
        let whole = sum(&segment) + pseudo(from, to, TCP, segment.len());
        segment[16..18].copy_from_slice(&(!folded(whole)).to_be_bytes());
        ip(from, to, TCP, 64, &segment)
    }
}

pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, data: &[u8]) -> Vec<u8> {
    Segment { from, to, sequence: 1, acknowledgment: 2, flags, data }.packet()
}

pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = udp_without_checksum(from, to, data);
    let l4 = if datagram[0] >> 4 == 4 { 20 } else { 40 };
    let octets = datagram.len() - l4;
    let whole = sum(&datagram[l4..]) + pseudo(from.ip(), to.ip(), UDP, octets);
    let checksum = match !folded(whole) {
        0 => 0xffff,
        checksum => checksum,
    };
    datagram[l4 + 6..l4 + 8].copy_from_slice(&checksum.to_be_bytes());
    datagram
}

pub fn udp_without_checksum(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(short(8 + data.len()));
    datagram.extend([0, 0]);
    datagram.extend(data);
    ip(from.ip(), to.ip(), UDP, 64, &datagram)
}

/// RFC 9260 appendix A, bit by bit.
pub fn crc32c(octets: &[u8]) -> [u8; 4] {
    let crc = octets.iter().fold(!0_u32, |crc, octet| {
        (0..8).fold(crc ^ u32::from(*octet), |crc, _| {
            crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 }
        })
    });
    (!crc).to_le_bytes()
}

/// An SCTP packet of one chunk with `value`.
pub fn sctp(from: SocketAddr, to: SocketAddr, chunk: u8, value: &[u8]) -> Vec<u8> {
    let mut packet = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    packet.extend([1, 2, 3, 4, 0, 0, 0, 0, chunk, 3]);
    packet.extend(short(4 + value.len()));
    packet.extend(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum);
    ip(from.ip(), to.ip(), SCTP, 64, &packet)
}

/// An ICMP or ICMPv6 packet; `message` begins with type and code, its checksum is filled in.
pub fn icmp(from: IpAddr, to: IpAddr, hops: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let (protocol, more) =
        if from.is_ipv4() { (ICMP, 0) } else { (ICMPV6, pseudo(from, to, ICMPV6, message.len())) };
    let checksum = (!folded(sum(&message) + more)).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    ip(from, to, protocol, hops, &message)
}

pub fn echo_request(from: IpAddr, to: IpAddr, data: &[u8]) -> Vec<u8> {
    let kind = if from.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend(data);
    icmp(from, to, 64, &message)
}

/// The group that a solicitation for `target` goes to, and its Ethernet address.
pub fn solicited_node(target: Ipv6Addr) -> (MacAddr, Ipv6Addr) {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    (MacAddr([0x33, 0x33, 0xff, a, b, c]), group)
}

/// A frame that asks for `target`; nobody in particular asks if `from` has no address.
pub fn solicitation(from: (MacAddr, Ipv6Addr), target: Ipv6Addr) -> Vec<u8> {
    let (mac, group) = solicited_node(target);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if !from.1.is_unspecified() {
        message.extend([1, 1]);
        message.extend(from.0.0);
    }
    ethernet(mac, from.0, &icmp(from.1.into(), group.into(), 255, &message))
}

/// Flags of an advertisement.
pub const SOLICITED: u8 = 0x40;
pub const OVERRIDE: u8 = 0x20;

/// A frame that says that `at.1` is at `at.0`.
pub fn advertisement(at: (MacAddr, Ipv6Addr), to: (MacAddr, Ipv6Addr), flags: u8) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(at.1.octets());
    message.extend([2, 1]);
    message.extend(at.0.0);
    ethernet(to.0, at.0, &icmp(at.1.into(), to.1.into(), 255, &message))
}

pub const ARP_REQUEST: u8 = 1;
pub const ARP_REPLY: u8 = 2;

/// An ARP message in a frame.
pub fn arp(
    to: MacAddr,
    operation: u8,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.0);
    frame.extend(sender.0.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender.0.0);
    frame.extend(sender.1.octets());
    frame.extend(target.0.0);
    frame.extend(target.1.octets());
    frame.resize(60, 0);
    frame
}

/// What an ARP frame says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ArpSeen {
    pub to: MacAddr,
    pub operation: u8,
    pub sender: (MacAddr, Ipv4Addr),
    pub target: (MacAddr, Ipv4Addr),
}

pub fn read_arp(frame: &[u8]) -> Option<ArpSeen> {
    if frame[12..14] != [8, 6] {
        return None;
    }
    assert_eq!(frame[14..21], [0, 1, 8, 0, 6, 4, 0]);
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    assert_eq!(mac_at(frame, 6), mac_at(frame, 22), "who sends is who says so");
    Some(ArpSeen {
        to: mac_at(frame, 0),
        operation: frame[21],
        sender: (mac_at(frame, 22), address(28)),
        target: (mac_at(frame, 32), address(38)),
    })
}

/// What a neighbour discovery frame says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NdpSeen {
    pub to: MacAddr,
    pub kind: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub flags: u8,
    pub target: Ipv6Addr,
    pub mac: Option<MacAddr>,
}

pub fn read_ndp(frame: &[u8]) -> Option<NdpSeen> {
    if frame[12..14] != [0x86, 0xdd] || frame[20] != ICMPV6 || !matches!(frame[54], 135 | 136) {
        return None;
    }
    let seen = read(frame);
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (seen.source.ip(), seen.destination.ip())
    else {
        panic!("IPv6");
    };
    assert_eq!(seen.hops, 255);
    let target: [u8; 16] = seen.data[8..24].try_into().unwrap();
    let mac = seen.data.get(24..32).map(|option| {
        assert_eq!(option[..2], [seen.data[0] - 134, 1], "the link-layer address that belongs");
        mac_at(option, 2)
    });
    let (kind, flags) = (seen.data[0], seen.data[4]);
    Some(NdpSeen { to: seen.to, kind, source, destination, flags, target: target.into(), mac })
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

/// The frame with an 802.1Q tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut longer = frame[..12].to_vec();
    longer.extend([0x81, 0]);
    longer.extend(vlan.to_be_bytes());
    longer.extend(&frame[12..]);
    longer
}

/// The VLAN of a frame, and the frame without its tag.
pub fn untagged(frame: &[u8]) -> (Option<u16>, Vec<u8>) {
    if frame[12..14] != [0x81, 0] {
        return (None, frame.to_vec());
    }
    let mut shorter = frame[..12].to_vec();
    shorter.extend(&frame[16..]);
    (Some(word(frame, 14)), shorter)
}

/// What a receiver reads in a frame with TCP, UDP or ICMP, checksums checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub to: MacAddr,
    pub from: MacAddr,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    pub hops: u8,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub data: Vec<u8>,
}

pub fn mac_at(frame: &[u8], at: usize) -> MacAddr {
    MacAddr(frame[at..at + 6].try_into().unwrap())
}

/// Reads a frame as its receiver would, and panics over anything it would complain about.
pub fn read(frame: &[u8]) -> Seen {
    let seen = read_packet(&frame[L3..]);
    Seen { to: mac_at(frame, 0), from: mac_at(frame, 6), ..seen }
}

/// Octets of an IP packet, by its header.
pub fn packet_octets(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        usize::from(word(packet, 2))
    } else {
        40 + usize::from(word(packet, 4))
    }
}

/// An IP packet without what follows it in a frame.
pub fn trimmed(packet: &[u8]) -> &[u8] {
    &packet[..packet_octets(packet)]
}

pub fn read_packet(packet: &[u8]) -> Seen {
    let packet = trimmed(packet);
    let (source, destination, protocol, hops, segment): (IpAddr, IpAddr, u8, u8, &[u8]) =
        match packet[0] >> 4 {
            4 => {
                let header_len = usize::from(packet[0] & 15) * 4;
                assert_eq!(folded(sum(&packet[..header_len])), 0xffff, "IPv4 checksum");
                let address = |at: usize| {
                    let octets: [u8; 4] = packet[at..at + 4].try_into().unwrap();
                    IpAddr::from(octets)
                };
                (address(12), address(16), packet[9], packet[8], &packet[header_len..])
            }
            6 => {
                let address = |at: usize| {
                    let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
                    IpAddr::from(octets)
                };
                let (mut protocol, mut payload) = (packet[6], &packet[40..]);
                while matches!(protocol, 0 | 43 | 60) {
                    protocol = payload[0];
                    payload = &payload[(usize::from(payload[1]) + 1) * 8..];
                }
                (address(8), address(24), protocol, packet[7], payload)
            }
            version => panic!("IP version {version}"),
        };
    let whole = sum(segment) + pseudo(source, destination, protocol, segment.len());
    let (flags, sequence, acknowledgment, data) = match protocol {
        TCP => {
            let long =
                |at: usize| u32::from(word(segment, at)) << 16 | u32::from(word(segment, at + 2));
            let data = &segment[usize::from(segment[12] >> 4) * 4..];
            (segment[13], long(4), long(8), data)
        }
        UDP => {
            assert_eq!(usize::from(word(segment, 4)), segment.len(), "UDP length");
            (0, 0, 0, &segment[8..])
        }
        _ => (0, 0, 0, segment),
    };
    if matches!(protocol, TCP | ICMPV6) || protocol == UDP && word(segment, 6) != 0 {
        assert_eq!(folded(whole), 0xffff, "checksum of protocol {protocol}");
    }
    if protocol == ICMP {
        assert_eq!(folded(sum(segment)), 0xffff, "ICMP checksum");
    }
    let (from_port, to_port) =
        if matches!(protocol, TCP | UDP) { (word(segment, 0), word(segment, 2)) } else { (0, 0) };
    Seen {
        to: MacAddr::default(),
        from: MacAddr::default(),
        source: SocketAddr::new(source, from_port),
        destination: SocketAddr::new(destination, to_port),
        protocol,
        hops,
        flags,
        sequence,
        acknowledgment,
        data: data.to_vec(),
    }
}

/// What a receiver sums up over a segment and its pseudo-header: 0xffff if its checksum is right.
pub fn segment_sum(packet: &[u8]) -> u16 {
    let (l4, addresses, protocol) =
        if packet[0] >> 4 == 4 { (20, &packet[12..20], 9) } else { (40, &packet[8..40], 6) };
    let octets = u32::try_from(packet.len() - l4).unwrap();
    folded(sum(&packet[l4..]) + sum(addresses) + u32::from(packet[protocol]) + octets)
}

/// Cuts an IP packet into pieces whose payloads have `step` octets, a multiple of eight.
pub fn fragments(packet: &[u8], step: usize) -> Vec<Vec<u8>> {
    assert_eq!(step % 8, 0);
    let packet = trimmed(packet);
    let is_v4 = packet[0] >> 4 == 4;
    let l4 = if is_v4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let payload = &packet[l4..];
    let mut pieces = Vec::new();
    for (number, piece) in payload.chunks(step).enumerate() {
        let more = number * step + piece.len() < payload.len();
        let mut header = packet[..l4].to_vec();
        if is_v4 {
            let offset = u16::try_from(number * step / 8).unwrap() | u16::from(more) << 13;
            header[2..4].copy_from_slice(&short(l4 + piece.len()));
            header[6..8].copy_from_slice(&offset.to_be_bytes());
            sum_up_v4(&mut header);
        } else {
            let offset = u16::try_from(number * step).unwrap() | u16::from(more);
            header[4..6].copy_from_slice(&short(8 + piece.len()));
            header.extend([header[6], 0]);
            header.extend(offset.to_be_bytes());
            header.extend([0, 0, 0, 9]);
            header[6] = 44;
        }
        header.extend(piece);
        pieces.push(header);
    }
    pieces
}

/// Puts the pieces of one packet together as its receiver would, in the order they came, and
/// panics over pieces that do not fit together. IPv4 headers are the first piece's, flags cleared.
pub fn reassembled(pieces: &[Vec<u8>]) -> Vec<u8> {
    let first = &pieces[0];
    let is_v4 = first[0] >> 4 == 4;
    let l4 = if is_v4 { usize::from(first[0] & 15) * 4 } else { 40 };
    let mut whole = first[..l4].to_vec();
    for (number, piece) in pieces.iter().enumerate() {
        let piece = trimmed(piece);
        let last = number + 1 == pieces.len();
        let (offset, more, payload) = if is_v4 {
            let len = usize::from(piece[0] & 15) * 4;
            assert_eq!(folded(sum(&piece[..len])), 0xffff, "IPv4 checksum of piece {number}");
            assert_eq!(piece[4..6], first[4..6], "identification of piece {number}");
            assert_eq!(piece[12..20], first[12..20], "addresses of piece {number}");
            let field = word(piece, 6);
            (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0, &piece[len..])
        } else {
            assert_eq!(piece[6], 44, "piece {number} has a fragment header");
            assert_eq!(piece[8..40], first[8..40], "addresses of piece {number}");
            assert_eq!(piece[44..48], first[44..48], "identification of piece {number}");
            assert_eq!((piece[40], piece[41]), (first[40], 0), "headers of piece {number}");
            let field = word(piece, 42);
            (usize::from(field & 0xfff8), field & 1 != 0, &piece[48..])
        };
        assert_eq!(offset, whole.len() - l4, "piece {number} follows the one before");
        assert_eq!(more, !last, "piece {number} says whether more follow");
        assert!(last || payload.len() % 8 == 0, "piece {number} of {} octets", payload.len());
        whole.extend(payload);
    }
    if is_v4 {
        let total = short(whole.len());
        whole[2..4].copy_from_slice(&total);
        whole[6..8].fill(0);
        sum_up_v4(&mut whole);
    } else {
        let payload = short(whole.len() - 40);
        whole[4..6].copy_from_slice(&payload);
        whole[6] = first[40];
    }
    whole
}
