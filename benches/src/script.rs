//! The packets: which one is the next, and its octets.
//!
//! A frame is a template with a client's address, its port and two checksums written over it.

use crate::case::Case;
use crate::flow::{Flow, Shuffle};
use crate::rig::{self, DESTS, Ends};
use core::net::IpAddr;
use rvs_wire::flow::protocol;
use rvs_wire::tcp::{self, flag};
use rvs_wire::{checksum, ethernet, ipv4, ipv6};

/// Octets of an IPv4 frame: the shortest that Ethernet has, without the frame check sequence.
pub const OCTETS4: usize = 60;
/// Octets of an IPv6 frame: no shorter one has a TCP header.
pub const OCTETS6: usize = 74;

/// Hops of a frame when it is made.
pub(crate) const HOPS: u8 = 64;

/// Where a packet begins in a frame.
const L3: usize = 14;

/// Which packets come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plan {
    /// A SYN of each flow, in their order and without end.
    Open,
    /// A client's acknowledgment of one flow after another, in shuffled order.
    Inbound,
    /// The same, and a destination's in turn.
    Both,
    /// Nothing.
    Silence,
    /// As much as arrives, see [`crate::feed::Arrivals`]: established flows' acknowledgments and SYNs of clients
    /// that never come again in turn; every so many of those is a client's that acknowledges.
    Flood,
}

/// What an arriving packet is, as the index of its count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Of a connection that was there before the flood.
    Established,
    /// A SYN.
    Opening,
    /// The first acknowledgment of a client that was let in.
    Answer,
}

/// Every so many SYNs is a client's that acknowledges, so many SYNs later. Prime, so that such a client has no
/// place of its own in bursts.
const LEGITIMATE: u32 = 61;
const ANSWERS_AFTER: u32 = 8192;

/// A frame of everybody's, with nothing of one client in it.
#[derive(Clone, Copy, Debug)]
struct Template<const N: usize> {
    octets: [u8; N],
    /// Where the last four octets of the client's address are.
    address_at: usize,
    port_at: usize,
    /// The other's port.
    other_port_at: usize,
    other_port: u16,
    /// What checksums cover, but for the client. In IPv6 the first is not used.
    header_sum: u32,
    segment_sum: u32,
}

impl<const N: usize> Template<N> {
    const IS_V6: bool = N == OCTETS6;
    const L4: usize = if Self::IS_V6 { L3 + ipv6::HEADER_LEN } else { L3 + ipv4::HEADER_LEN };
    const HOPS_AT: usize = if Self::IS_V6 { L3 + 7 } else { L3 + 8 };
    const LAYOUT: () = assert!(N == OCTETS4 || N == OCTETS6);

    /// From or to a client whose address ends in zeros and whose port is 0.
    fn new(client: IpAddr, other: (IpAddr, u16), outbound: bool, flags: u8) -> Self {
        const { Self::LAYOUT }
        let (mut source, mut destination) = ((client, 0), other);
        if outbound {
            (source, destination) = (destination, source);
        }
        let segment = tcp::Header {
            source_port: source.1,
            destination_port: destination.1,
            sequence: 1,
            acknowledgment: 2,
            flags,
            window: 0xfaf0,
        };
        let mut octets = [0; N];
        let (packet, pseudo): (Vec<u8>, u32) = match (source.0, destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    tos: 0,
                    payload_len: 20,
                    identification: 7,
                    dont_fragment: true,
                    ttl: HOPS,
                    protocol: protocol::TCP,
                    source,
                    destination,
                };
                let pseudo = checksum::pseudo(source, destination, protocol::TCP, 20);
                (header.octets().to_vec(), pseudo)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header {
                    traffic_class: 0,
                    payload_len: 20,
                    next_header: protocol::TCP,
                    hop_limit: HOPS,
                    source,
                    destination,
                };
                let pseudo = checksum::pseudo6(source, destination, protocol::TCP, 20);
                (header.octets().to_vec(), pseudo)
            }
            _ => Default::default(),
        };
        let mut packet = packet;
        let segment = segment.octets(&[], pseudo);
        // A sum with its own checksum in it is that of zero: what is added later is all there is.
        let (header_sum, segment_sum) = if Self::IS_V6 {
            (0, sum_without(&segment, 16, pseudo))
        } else {
            (sum_without(&packet, 10, 0), sum_without(&segment, 16, pseudo))
        };
        let ethertype =
            if Self::IS_V6 { ethernet::ethertype::IPV6 } else { ethernet::ethertype::IPV4 };
        let mut frame = ethernet::header(rig::OUR_MAC, rig::PEER_MAC, ethertype).to_vec();
        frame.append(&mut packet);
        frame.extend(segment);
        for (place, octet) in octets.iter_mut().zip(frame) {
            *place = octet;
        }
        let (address_at, port_at, other_port_at) = match (Self::IS_V6, outbound) {
            (false, false) => (L3 + 12, Self::L4, Self::L4 + 2),
            (false, true) => (L3 + 16, Self::L4 + 2, Self::L4),
            (true, false) => (L3 + 8 + 12, Self::L4, Self::L4 + 2),
            (true, true) => (L3 + 24 + 12, Self::L4 + 2, Self::L4),
        };
        let other_port = other.1;
        Self { octets, address_at, port_at, other_port_at, other_port, header_sum, segment_sum }
    }

    /// Makes `octets` this one, of `flow`, to or from the port that is `more` above the service's.
    #[inline(always)]
    fn make(&self, octets: &mut [u8; N], flow: Flow, more: u16) {
        *octets = self.octets;
        let (client, port) = (flow.client(), flow.port());
        let words = (client >> 16) + (client & 0xffff);
        put(octets, self.address_at, client.to_be_bytes());
        put(octets, self.port_at, port.to_be_bytes());
        if !Self::IS_V6 {
            put(octets, L3 + 10, (!checksum::fold(self.header_sum + words)).to_be_bytes());
        }
        if more != 0 {
            put(octets, self.other_port_at, (self.other_port + more).to_be_bytes());
        }
        let ports = u32::from(port) + u32::from(more);
        let segment = !checksum::fold(self.segment_sum + words + ports);
        put(octets, Self::L4 + 16, segment.to_be_bytes());
    }
}

/// The sum of `octets` and `more`, but for the checksum at `at`.
fn sum_without(octets: &[u8], at: usize, more: u32) -> u32 {
    let mut octets = octets.to_vec();
    if let Some(place) = octets.get_mut(at..at + 2) {
        place.fill(0);
    }
    u32::from(checksum::fold(checksum::sum(&octets) + u32::from(checksum::fold(more))))
}

#[inline(always)]
fn put<const N: usize, const M: usize>(octets: &mut [u8; N], at: usize, value: [u8; M]) {
    if let Some(place) = octets.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value;
    }
}

/// All packets of a case by their numbers: `N` is the length of their frames, and tells their family.
#[derive(Debug)]
pub(crate) struct Script<const N: usize> {
    syn: Template<N>,
    inbound: Template<N>,
    outbound: [Template<N>; DESTS],
    order: Shuffle,
    services: u32,
    flows: u32,
}

impl<const N: usize> Script<N> {
    /// Where a frame has its hops.
    pub(crate) const HOPS_AT: usize = Template::<N>::HOPS_AT;

    pub(crate) fn new(case: Case, ends: &Ends) -> Self {
        let from_client = |flags| Template::new(ends.clients, ends.vip, false, flags);
        Self {
            syn: from_client(flag::SYN),
            inbound: from_client(flag::ACK),
            outbound: ends.dests.map(|dest| Template::new(ends.clients, dest, true, flag::ACK)),
            order: Shuffle::new(case.flows),
            services: case.services.into(),
            flows: case.flows.next_power_of_two(),
        }
    }

    /// Packet `number` of [`Plan::Open`].
    #[inline(always)]
    pub(crate) fn open(&self, number: u32, octets: &mut [u8; N]) {
        self.syn.make(octets, Flow(number), Flow(number).service(self.services));
    }

    /// Packet `number` of [`Plan::Inbound`].
    #[inline(always)]
    pub(crate) fn inbound(&self, number: u32, octets: &mut [u8; N]) {
        let flow = Flow(self.order.at(number));
        self.inbound.make(octets, flow, flow.service(self.services));
    }

    /// Packet `number` of [`Plan::Both`].
    #[inline(always)]
    pub(crate) fn both(&self, number: u32, octets: &mut [u8; N]) {
        let flow = Flow(self.order.at(number >> 1));
        if number & 1 == 0 {
            self.inbound.make(octets, flow, 0);
        } else if let Some(template) = self.outbound.get(rig::dest_of(flow)) {
            template.make(octets, flow, 0);
        }
    }

    /// Packet `number` of [`Plan::Flood`].
    #[inline]
    pub(crate) fn flood(&self, number: u32, octets: &mut [u8; N]) -> Kind {
        let syn = number / 2;
        if number & 1 == 0 {
            self.inbound.make(octets, Flow(self.order.at(syn)), 0);
            return Kind::Established;
        }
        let fresh = Flow(self.flows.wrapping_add(syn));
        if let Some(earlier) = syn.checked_sub(ANSWERS_AFTER).filter(|it| it % LEGITIMATE == 1) {
            self.inbound.make(octets, Flow(self.flows + earlier - 1), 0);
            return Kind::Answer;
        }
        self.syn.make(octets, fresh, 0);
        Kind::Opening
    }

    /// Which kind a packet of a flood was.
    #[inline]
    pub(crate) fn kind_of(&self, frame: &[u8]) -> Option<Kind> {
        let flags = frame.get(Template::<N>::L4 + 13)?;
        if flags & flag::SYN != 0 {
            return Some(Kind::Opening);
        }
        let client = frame.get(self.inbound.address_at..)?.first_chunk()?;
        let first_fresh = Flow(self.flows).client();
        let is_fresh = u32::from_be_bytes(*client) >= first_fresh;
        Some(if is_fresh { Kind::Answer } else { Kind::Established })
    }
}
