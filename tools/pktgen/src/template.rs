//! Frames made in advance, with nothing of one flow in them, and their checksums with nothing of it
//! summed: a packet is a copy with a few words written and two sums finished (RFC 1071 section 2
//! (C): parts may be summed in any order).

use crate::record::{self, Record};
use crate::scenario::{Director, FCS, Kind, Scenario};
use rvs_io::Frame;
use rvs_wire::ethernet::{self, ethertype};
use rvs_wire::flow::protocol;
use rvs_wire::mac::MacAddr;
use rvs_wire::tcp::flag;
use rvs_wire::{checksum, ipv4, ipv6, tcp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of the shortest frame that Ethernet has, without its check sequence.
const SHORTEST: usize = 60;

/// Hops of a packet when it is made.
const HOPS: u8 = 64;

/// The sequence number of every client's SYN.
pub const CLIENT_ISN: u32 = 1_000_000_000;

/// What a template is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// A record in a packet of this kind, in a frame of so many octets with its check sequence.
    Data(Kind, u16),
    /// A SYN without data.
    Open,
    /// The ACK that ends a handshake.
    Opened,
}

/// What a packet has of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Own {
    /// The last four octets of the client's address.
    pub low: u32,
    /// The client's port.
    pub port: u16,
    /// TCP's sequence number; not for UDP.
    pub sequence: u32,
    /// TCP's acknowledgment number; not for UDP.
    pub acknowledgment: u32,
}

/// A frame of everybody's.
#[derive(Clone, Debug)]
pub struct Template {
    octets: Box<[u8]>,
    /// Where the last four octets of the client's address are.
    address_at: usize,
    l4: usize,
    /// Where the transport checksum is.
    sum_at: usize,
    /// Where the record is; the frame's end where there is none.
    record_at: usize,
    v6: bool,
    tcp: bool,
    /// The sums of what is in the frame already; in IPv6 the first is not used.
    ip_sum: u32,
    segment_sum: u32,
}

impl Template {
    /// Makes the frame of a shape.
    #[must_use]
    pub fn new(scenario: &Scenario, shape: Shape, director: MacAddr) -> Self {
        let v6 = scenario.vip.is_ipv6();
        let (tcp, flags) = match shape {
            Shape::Data(Kind::Udp, _) => (false, 0),
            Shape::Data(Kind::Established | Kind::Ack, _) => (true, flag::ACK | flag::PSH),
            Shape::Data(Kind::Syn, _) | Shape::Open => (true, flag::SYN),
            Shape::Opened => (true, flag::ACK),
        };
        let l4 = ethernet::HEADER_LEN + if v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        let record_at = l4 + if tcp { tcp::HEADER_LEN } else { rvs_wire::udp::HEADER_LEN };
        let octets = match shape {
            Shape::Data(_, size) => {
                usize::from(size).saturating_sub(FCS).max(record_at + record::OCTETS)
            }
            Shape::Open | Shape::Opened => record_at,
        };
        let protocol = if tcp { protocol::TCP } else { protocol::UDP };
        let segment_len = u16::try_from(octets - l4).unwrap_or(u16::MAX);
        let vip = scenario.vip.port();
        let segment = if tcp {
            let header = tcp::Header {
                destination_port: vip,
                flags,
                window: 0xffff,
                ..tcp::Header::default()
            };
            without(&header.octets(&[], 0), 16)
        } else {
            without(&rvs_wire::udp::header(0, vip, &vec![0; octets - record_at], 0), 6)
        };
        let ip = ip_header(scenario, protocol, segment_len);
        let pseudo = addresses_sum(&ip, v6) + u32::from(protocol) + u32::from(segment_len);
        let (segment_sum, ip_sum) = (pseudo + checksum::sum(&segment), checksum::sum(&ip));
        let ethertype = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        let ethernet = ethernet::header(director, scenario.client_mac(), ethertype);
        let mut frame = [&ethernet[..], &ip, &segment].concat();
        frame.resize(octets.max(SHORTEST), 0);
        Self {
            address_at: ethernet::HEADER_LEN + if v6 { 20 } else { 12 },
            l4,
            sum_at: l4 + if tcp { 16 } else { 6 },
            record_at,
            octets: frame.into_boxed_slice(),
            v6,
            tcp,
            ip_sum,
            segment_sum,
        }
    }

    /// Octets of the frame, without its check sequence.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.octets.len()
    }

    /// Octets of its TCP or UDP data.
    #[must_use]
    pub fn data_octets(&self) -> u32 {
        u32::try_from(self.octets.len().saturating_sub(self.record_at)).unwrap_or_default()
    }

    /// Makes `frame` this frame with what is a packet's own; `false` when it does not fit.
    #[inline]
    #[must_use]
    pub fn write<F: Frame>(&self, frame: &mut F, own: Own, record: Option<&Record>) -> bool {
        if !frame.resize(self.octets.len()) {
            return false;
        }
        let octets = frame.octets_mut();
        octets.copy_from_slice(&self.octets);
        let low = own.low.to_be_bytes();
        let low_sum = words(own.low);
        put(octets, self.address_at, low);
        if !self.v6 {
            let sum = !checksum::fold(self.ip_sum + low_sum);
            put(octets, ethernet::HEADER_LEN + 10, sum.to_be_bytes());
        }
        put(octets, self.l4, own.port.to_be_bytes());
        let mut sum = self.segment_sum + low_sum + u32::from(own.port);
        if self.tcp {
            put(octets, self.l4 + 4, own.sequence.to_be_bytes());
            put(octets, self.l4 + 8, own.acknowledgment.to_be_bytes());
            sum += words(own.sequence) + words(own.acknowledgment);
        }
        if let Some(record) = record {
            let record = record.octets();
            put(octets, self.record_at, record);
            sum += checksum::sum(&record);
        }
        let sum = (!checksum::fold(sum)).to_be_bytes();
        put(octets, self.sum_at, if self.tcp { sum } else { checksum::not_zero(sum) });
        true
    }
}

#[inline]
fn words(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// Writes `octets` at a place that is there: templates are made so.
#[inline]
fn put<const N: usize>(frame: &mut [u8], at: usize, octets: [u8; N]) {
    if let Some(place) = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = octets;
    }
}

/// A header whose checksum, at `at`, is zero.
fn without(header: &[u8], at: usize) -> Vec<u8> {
    let mut header = header.to_vec();
    put(&mut header, at, [0, 0]);
    header
}

/// The IP header, with zeroes for the client's last four octets and for the checksum.
fn ip_header(scenario: &Scenario, protocol: u8, payload_len: u16) -> Vec<u8> {
    match (scenario.client, scenario.vip.ip()) {
        (IpAddr::V6(client), IpAddr::V6(destination)) => {
            let source = Ipv6Addr::from_bits(client.to_bits() >> 32 << 32);
            let header = ipv6::Header {
                traffic_class: 0,
                payload_len,
                next_header: protocol,
                hop_limit: HOPS,
                source,
                destination,
            };
            header.octets().to_vec()
        }
        (_, vip) => {
            let header = ipv4::Header {
                tos: 0,
                payload_len,
                identification: 0,
                dont_fragment: true,
                ttl: HOPS,
                protocol,
                source: Ipv4Addr::UNSPECIFIED,
                destination: if let IpAddr::V4(vip) = vip { vip } else { Ipv4Addr::UNSPECIFIED },
            };
            without(&header.octets(), 10)
        }
    }
}

fn addresses_sum(ip: &[u8], v6: bool) -> u32 {
    checksum::sum(ip.get(if v6 { 8 } else { 12 }..).unwrap_or_default())
}

/// The Ethernet address that a scenario names, if it names one.
#[must_use]
pub fn named(director: Director) -> Option<MacAddr> {
    match director {
        Director::Mac(mac) => Some(mac),
        Director::Address(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrival;
    use crate::scenario::tests::scenario;
    use rvs_io::{Pool, Reserve};

    /// Every shape in both families is read back with every checksum right, whatever is in it.
    #[test]
    fn every_frame_is_right_in_length_and_checksums() {
        let director = MacAddr([2, 0, 0, 0, 0, 1]);
        let mut pool = Reserve::new(1, 9018).pool();
        let mut frame = pool.take().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for (client, vip) in
            [("198.51.100.10", "203.0.113.1:80"), ("2001:db8::ff00:1", "[2001:db8:1::1]:80")]
        {
            let (client, vip) = (client.parse().unwrap(), vip.parse().unwrap());
            let scenario = Scenario { client, vip, ..scenario() };
            let sizes = [64, 65, 77, 512, 1518, 9018];
            let data =
                sizes.into_iter().flat_map(|size| Kind::ALL.map(|kind| Shape::Data(kind, size)));
            for shape in data.chain([Shape::Open, Shape::Opened]) {
                let template = Template::new(&scenario, shape, director);
                for _ in 0..200 {
                    let own = Own {
                        low: random.u32(..),
                        port: random.u16(..),
                        sequence: random.u32(..),
                        acknowledgment: random.u32(..),
                    };
                    let record = Record {
                        run: random.u16(..),
                        flow: random.u32(..record::FLOWS_MAX),
                        reply: false,
                        sequence: random.u32(..),
                        due: random.u64(..1 << 48),
                    };
                    let data = matches!(shape, Shape::Data(..)).then_some(&record);
                    assert!(template.write(&mut frame, own, data));
                    let octets = frame.octets();
                    let segment = arrival::answer(octets, director).unwrap();
                    assert_eq!(segment.source.1, own.port);
                    assert_eq!(segment.destination, (scenario.vip.ip(), 80));
                    let read = Record::read(&octets[segment.data..segment.end]);
                    assert_eq!(read.as_ref(), data, "{shape:?}");
                    if let Shape::Data(_, size) = shape {
                        let least = usize::from(size) - FCS;
                        assert!(octets.len() >= least && (size < 100 || octets.len() == least));
                    }
                    assert!(octets.len() >= SHORTEST);
                }
            }
        }
    }
}
