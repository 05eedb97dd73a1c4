//! Frames of every kind that the director knows, and what chance makes of them.

use crate::random::Random;
use crate::rig::frames::{
    ACK, ARP_REPLY, ARP_REQUEST, FIN, L3, OVERRIDE, RST, SOLICITED, SYN, TCP, UDP, advertisement,
    arp, echo_request, ethernet, folded, fragments, icmp, ip, may_fragment, solicitation, sum,
    tagged, tcp, udp, with_extension, with_hops, with_options,
};
use crate::rig::{
    CLIENT_MAC, OUR_MACS, PLAN, Plan, Rig, dest_ip, dest_mac, interface, network_with,
};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::SchedulerKind;
use rvs_wire::mac::MacAddr;

pub const METHODS: [(ForwardMethod, u16); 3] = [(Masquerade, 80), (Direct, 81), (Tunnel, 82)];

pub fn client(v6: bool, port: u16) -> SocketAddr {
    let address = if v6 { "2001:db8:99::7" } else { "203.0.113.7" };
    SocketAddr::new(address.parse().unwrap(), port)
}

pub fn vip(v6: bool, port: u16) -> SocketAddr {
    let address = if v6 { "2001:db8:c::80" } else { "198.51.100.80" };
    SocketAddr::new(address.parse().unwrap(), port)
}

pub fn inward(packet: &[u8]) -> Vec<u8> {
    ethernet(OUR_MACS[0], CLIENT_MAC, packet)
}

/// A director with a service of each method, family and protocol, four destinations known, VLANs 7
/// and 9, and a narrow second link.
pub fn director(plan: &Plan) -> Rig {
    let interfaces = vec![
        interface(0, 0, 1500),
        interface(1, 0, 1300),
        interface(0, 7, 1500),
        interface(1, 9, 1400),
    ];
    let mut rig = Rig::new(network_with(interfaces, 4), plan);
    for v6 in [false, true] {
        for (method, port) in METHODS {
            for protocol in [TCP, UDP] {
                let all = (0..4).map(|it| SocketAddr::new(dest_ip(v6, it), port).to_string());
                let all: Vec<_> = all.collect();
                let dests: Vec<_> = all.iter().map(|dest| (dest.as_str(), method, 1)).collect();
                let vip = vip(v6, port).to_string();
                rig.add_service((protocol, &vip), SchedulerKind::Wlc, &dests);
            }
        }
    }
    rig
}

pub fn plan() -> Plan {
    Plan { frames: 3000, ..PLAN }
}

/// Valid frames and the link that each comes from.
pub fn corpus() -> Vec<(usize, Vec<u8>)> {
    let mut all = Vec::new();
    for v6 in [false, true] {
        let own: IpAddr = if v6 { "2001:db8:c::1" } else { "198.51.100.1" }.parse().unwrap();
        let from = client(v6, 1234);
        let mut inbound = Vec::new();
        for (_, port) in METHODS {
            let vip = vip(v6, port);
            for flags in [SYN, ACK, FIN | ACK, RST, SYN | ACK, 0] {
                inbound.push(tcp(from, vip, flags, b"some data"));
            }
            inbound.extend([udp(from, vip, b"question"), may_fragment(udp(from, vip, &[7; 1400]))]);
            inbound.extend(fragments(&may_fragment(udp(from, vip, &[7; 600])), 200));
            let reply = udp(vip, from, b"quoted");
            for (kind, code) in [(3, 3), (3, 4), (11, 0), (1, 4), (2, 0), (5, 0), (4, 0)] {
                let mut message = vec![kind, code, 0, 0, 0, 0, 5, 0];
                message.extend(&reply);
                inbound.push(icmp(from.ip(), vip.ip(), 64, &message));
            }
        }
        inbound.extend([
            tcp(from, SocketAddr::new(own, 9), SYN, b""),
            udp(from, SocketAddr::new(own, 9), b""),
            udp(from, SocketAddr::new(dest_ip(v6, 0), 9), b"routed"),
            with_hops(udp(from, SocketAddr::new(dest_ip(v6, 0), 9), b"routed"), 1),
            echo_request(from.ip(), own, b"hello"),
            echo_request(from.ip(), dest_ip(v6, 1), b"hello"),
            ip(from.ip(), own, if v6 { 41 } else { 4 }, 9, &udp(from, vip(v6, 80), b"inside")),
            ip(from.ip(), own, 132, 9, b"some other protocol"),
        ]);
        let plain = tcp(from, vip(v6, 80), SYN, b"");
        if v6 {
            for kind in [0, 43, 60, 51, 135] {
                inbound.push(with_extension(&plain, kind, &[0, 1, 4, 0, 0, 0, 0]));
            }
            inbound.push(with_extension(&plain, 44, &[0, 0, 0, 0, 0, 0, 9]));
        } else {
            inbound.push(with_options(&plain, &[7, 7, 4, 0, 0, 0, 0, 0]));
            inbound.push(with_options(&plain, &[131, 3, 4, 0]));
            inbound.push(with_options(&plain, &[0x94, 4, 0, 0]));
        }
        for packet in &inbound {
            all.push((0, inward(packet)));
            all.push((0, tagged(&inward(packet), 7)));
        }
        for number in 0..4 {
            let dest = SocketAddr::new(dest_ip(v6, number), 80);
            for packet in [tcp(dest, from, SYN | ACK, b""), udp(dest, from, b"answer")] {
                all.push((1, ethernet(OUR_MACS[1], dest_mac(number), &packet)));
            }
            let mut message = vec![if v6 { 1 } else { 3 }, 3, 0, 0, 0, 0, 0, 0];
            message.extend(udp(from, dest, b"quoted"));
            let error = icmp(dest.ip(), from.ip(), 64, &message);
            all.push((1, ethernet(OUR_MACS[1], dest_mac(number), &error)));
        }
    }
    all.extend(discovery());
    all
}

/// ARP and neighbour discovery, from hosts that are there.
fn discovery() -> Vec<(usize, Vec<u8>)> {
    let host = (dest_mac(9), Ipv4Addr::new(192, 0, 2, 99));
    let ours = (OUR_MACS[1], Ipv4Addr::new(192, 0, 2, 1));
    let probe = (host.0, Ipv4Addr::UNSPECIFIED);
    let host6 = (dest_mac(9), "2001:db8:d::99".parse().unwrap());
    let ours6 = (OUR_MACS[1], "2001:db8:d::1".parse().unwrap());
    let nobody6 = (dest_mac(9), core::net::Ipv6Addr::UNSPECIFIED);
    let frames = [
        arp(MacAddr::BROADCAST, ARP_REQUEST, host, (MacAddr::default(), ours.1)),
        arp(MacAddr::BROADCAST, ARP_REQUEST, host, (MacAddr::default(), host.1)),
        arp(MacAddr::BROADCAST, ARP_REQUEST, probe, (MacAddr::default(), ours.1)),
        arp(OUR_MACS[1], ARP_REPLY, host, ours),
        solicitation(host6, ours6.1),
        solicitation(nobody6, ours6.1),
        advertisement(host6, ours6, SOLICITED | OVERRIDE),
        advertisement(host6, ours6, 0),
    ];
    let tags: Vec<_> = frames.iter().map(|frame| (1, tagged(frame, 9))).collect();
    frames.into_iter().map(|frame| (1, frame)).chain(tags).collect()
}

/// Makes of the corpus what no sender means.
pub struct Spoiler {
    pub random: Random,
    corpus: Vec<(usize, Vec<u8>)>,
    frame: Vec<u8>,
}

impl Spoiler {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), corpus: corpus(), frame: Vec::with_capacity(4096) }
    }

    /// The next frame and its link.
    pub fn next(&mut self) -> (usize, &[u8]) {
        let at = self.random.below(self.corpus.len());
        let (link, frame) = &self.corpus[at];
        self.frame.clear();
        self.frame.extend(frame);
        let link = *link;
        for _ in 0..self.random.below(4) {
            self.spoil();
        }
        if self.random.chance(60) {
            self.mend();
        }
        self.frame.truncate(1900);
        (link, &self.frame)
    }

    fn spoil(&mut self) {
        let len = self.frame.len();
        if len == 0 {
            return;
        }
        // Mostly where headers are.
        let reach = if self.random.chance(80) { len.min(80) } else { len };
        let at = self.random.below(reach);
        match self.random.below(8) {
            0 | 1 => self.frame[at] ^= 1 << self.random.below(8),
            2 => self.frame[at] = self.random.octet(),
            3 => {
                self.frame[at] = self.random.one_of(&[0, 1, 4, 5, 6, 0x0f, 0x40, 0x7f, 0x80, 0xff]);
            }
            4 => self.frame.truncate(at),
            5 => {
                // The front of this one, the back of another.
                let other = self.random.below(self.corpus.len());
                let other = &self.corpus[other].1;
                self.frame.truncate(at);
                self.frame.extend(&other[at.min(other.len())..]);
            }
            6 => {
                let octets = self.random.below(64);
                let octet = self.random.octet();
                self.frame.splice(at..at, core::iter::repeat_n(octet, octets));
            }
            _ => {
                let end = (at + self.random.below(16)).min(len);
                self.frame.drain(at..end);
            }
        }
    }

    /// Makes the checksums right that can be found, so that what is wrong is found further in.
    fn mend(&mut self) {
        let tag = if self.frame.get(12..14) == Some(&[0x81, 0]) { 4 } else { 0 };
        let Some(packet) = self.frame.get_mut(L3 + tag..).filter(|packet| packet.len() >= 48)
        else {
            return;
        };
        let (l4, pseudo, protocol) = match packet[0] >> 4 {
            4 => {
                let l4 = usize::from(packet[0] & 15) * 4;
                if l4 < 20 {
                    return;
                }
                let [high, low] = u16::try_from(packet.len()).unwrap().to_be_bytes();
                let total = u16::from_be_bytes([packet[2], packet[3]]);
                if usize::from(total) > packet.len() {
                    (packet[2], packet[3]) = (high, low);
                }
                packet[10..12].fill(0);
                let checksum = !folded(sum(&packet[..l4.min(packet.len())]));
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                (l4, sum(&packet[12..20]), packet[9])
            }
            6 => {
                let payload = u16::from_be_bytes([packet[4], packet[5]]);
                if usize::from(payload) + 40 > packet.len() {
                    let octets = u16::try_from(packet.len() - 40).unwrap();
                    packet[4..6].copy_from_slice(&octets.to_be_bytes());
                }
                (40, sum(&packet[8..40]), packet[6])
            }
            _ => return,
        };
        let end = if l4 == 40 && packet[0] >> 4 == 6 {
            40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
        } else {
            usize::from(u16::from_be_bytes([packet[2], packet[3]]))
        };
        let Some(segment) = packet.get_mut(l4..end) else { return };
        let (at, pseudo) = match protocol {
            6 => (16, pseudo),
            17 => (6, pseudo),
            1 => (2, 0),
            58 => (2, pseudo),
            _ => return,
        };
        if segment.len() < at + 2 {
            return;
        }
        let length = u32::try_from(segment.len()).unwrap();
        let more = if protocol == 1 { 0 } else { pseudo + u32::from(protocol) + length };
        segment[at..at + 2].fill(0);
        let checksum = !folded(sum(segment) + more);
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}
