//! A link that makes the packets it delivers, and takes back what was made of them.
//!
//! A frame is a template with a client's address, its port and two checksums written over it; the
//! frames themselves are the pool's warmest. That costs the same for the director and for the
//! floor. What comes back is checked by its length and its hop limit, so that a frame which was
//! dropped or answered is not taken for one that was forwarded.

use crate::case::Case;
use crate::flow::{Flow, Shuffle};
use crate::rig::{self, DESTS, Ends};
use anyhow::Result;
use core::net::IpAddr;
use rvs_io::{Burst, Frame, Pool, Queue, Reserve, RoomFrame, RoomPool};
use rvs_wire::flow::protocol;
use rvs_wire::tcp::{self, flag};
use rvs_wire::{checksum, ethernet, ipv4, ipv6};

/// Octets of an IPv4 frame: the shortest that Ethernet has, without the frame check sequence.
pub const OCTETS4: usize = 60;
/// Octets of an IPv6 frame: no shorter one has a TCP header.
pub const OCTETS6: usize = 74;

/// Hops of a frame when it is made.
const HOPS: u8 = 64;

/// Where a packet begins in a frame.
const L3: usize = 14;

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

    /// Makes `frame` this one, of `flow`, to or from the port that is `more` above the service's.
    #[inline(always)]
    fn make(&self, frame: &mut RoomFrame, flow: Flow, more: u16) {
        let _fits = frame.resize(N);
        let Some(octets) = frame.octets_mut().first_chunk_mut::<N>() else { return };
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
    /// As much as arrives, see [`Arrivals`]: established flows' acknowledgments and SYNs of clients
    /// that never come again in turn; every so many of those is a client's that acknowledges.
    Flood,
}

/// Frames that come at a rate, whether or not somebody takes them: what does not fit into the ring
/// is lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrivals {
    /// In the ring.
    pub waiting: u64,
    /// How many have come, by [`Kind`].
    pub came: [u64; 3],
    /// How many came back, by [`Kind`].
    pub back: [u64; 3],
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

/// Frames that the ring of a flood holds.
pub const RING: u64 = 4096;
/// Every so many SYNs is a client's that acknowledges, so many SYNs later.
const LEGITIMATE: u32 = 64;
const ANSWERS_AFTER: u32 = 8192;

/// What is expected to come back.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Octets of the frame.
    pub octets: usize,
    /// Whether it took a hop.
    pub routed: bool,
}

/// A link that a director is measured on: what it delivers is known, and what comes back is counted.
pub trait Source: Queue + Sized {
    /// One that is to open the flows of `case`.
    ///
    /// # Errors
    ///
    /// The link cannot be had.
    fn new(case: Case, ends: &Ends, expected: Expected) -> Result<Self>;

    /// Its frames: as many as are ever on their way.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    fn pool(case: Case) -> Result<Self::Pool>;

    /// From now on, packets of this kind.
    fn follow(&mut self, plan: Plan);

    /// Frames that were delivered, and that came back as expected.
    fn counts(&self) -> (u64, u64);
}

fn count(counts: &mut [u64; 3], kind: Kind) {
    let at = match kind {
        Kind::Established => 0,
        Kind::Opening => 1,
        Kind::Answer => 2,
    };
    if let Some(place) = counts.get_mut(at) {
        *place += 1;
    }
}

/// Frames of the pool: those of the largest burst, twice.
const FRAMES: usize = 2 * rvs_io::BURST_MAX;

/// The link: `N` is the length of its frames, and tells their family.
#[derive(Debug)]
pub struct Feed<const N: usize> {
    syn: Template<N>,
    inbound: Template<N>,
    outbound: [Template<N>; DESTS],
    order: Shuffle,
    services: u32,
    plan: Plan,
    /// The number of the next packet.
    next: u32,
    expected: Expected,
    made: u64,
    back: u64,
    flows: u32,
    arrivals: Arrivals,
}

impl<const N: usize> Feed<N> {
    /// Lets so many packets of a flood arrive; those that find no room in the ring never come.
    pub fn arrive(&mut self, packets: u64) {
        let waiting = self.arrivals.waiting + packets;
        self.arrivals.waiting = waiting.min(RING);
        // Who is lost is a matter of chance; both halves lose alike.
        let lost = (waiting - self.arrivals.waiting) / 2;
        for came in self.arrivals.came.iter_mut().take(2) {
            *came += lost;
        }
    }

    /// What came of the flood.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        self.arrivals
    }

    /// Packet `number` of a flood.
    #[inline]
    fn flood(&self, number: u32, frame: &mut RoomFrame) -> Kind {
        let syn = number / 2;
        if number & 1 == 0 {
            self.inbound.make(frame, Flow(self.order.at(syn)), 0);
            return Kind::Established;
        }
        let fresh = Flow(self.flows.wrapping_add(syn));
        if let Some(earlier) = syn.checked_sub(ANSWERS_AFTER).filter(|it| it % LEGITIMATE == 1) {
            self.inbound.make(frame, Flow(self.flows + earlier - 1), 0);
            return Kind::Answer;
        }
        self.syn.make(frame, fresh, 0);
        Kind::Opening
    }

    /// Which kind a packet of a flood was.
    #[inline]
    fn kind_of(&self, frame: &[u8]) -> Option<Kind> {
        let flags = frame.get(Template::<N>::L4 + 13)?;
        if flags & flag::SYN != 0 {
            return Some(Kind::Opening);
        }
        let client = frame.get(self.inbound.address_at..)?.first_chunk()?;
        let first_fresh = Flow(self.flows).client();
        let is_fresh = u32::from_be_bytes(*client) >= first_fresh;
        Some(if is_fresh { Kind::Answer } else { Kind::Established })
    }

    #[inline(never)]
    fn receive_flood(
        &mut self,
        pool: &mut RoomPool,
        burst: &mut Burst<RoomFrame>,
        most: usize,
    ) -> usize {
        let mut frames = 0;
        while frames < most && self.arrivals.waiting > 0 {
            let Some(mut frame) = pool.take() else { break };
            let kind = self.flood(self.next, &mut frame);
            count(&mut self.arrivals.came, kind);
            self.next = self.next.wrapping_add(1);
            self.arrivals.waiting -= 1;
            burst.push(frame);
            frames += 1;
        }
        frames
    }

    #[inline(always)]
    fn fill(
        &mut self,
        pool: &mut RoomPool,
        burst: &mut Burst<RoomFrame>,
        most: usize,
        make: impl Fn(&Self, u32, &mut RoomFrame),
    ) -> usize {
        let before = burst.len();
        for _ in 0..most.min(burst.remaining_capacity()) {
            let Some(mut frame) = pool.take() else { break };
            make(self, self.next, &mut frame);
            self.next = self.next.wrapping_add(1);
            burst.push(frame);
        }
        let frames = burst.len() - before;
        self.made += u64::try_from(frames).unwrap_or_default();
        frames
    }
}

impl<const N: usize> Source for Feed<N> {
    fn new(case: Case, ends: &Ends, expected: Expected) -> Result<Self> {
        let from_client = |flags| Template::new(ends.clients, ends.vip, false, flags);
        Ok(Self {
            syn: from_client(flag::SYN),
            inbound: from_client(flag::ACK),
            outbound: ends.dests.map(|dest| Template::new(ends.clients, dest, true, flag::ACK)),
            order: Shuffle::new(case.flows),
            services: case.services.into(),
            plan: Plan::Open,
            next: 0,
            expected,
            made: 0,
            back: 0,
            flows: case.flows.next_power_of_two(),
            arrivals: Arrivals::default(),
        })
    }

    /// All of them in the pool's own cache.
    fn pool(_: Case) -> Result<RoomPool> {
        Ok(Reserve::new(FRAMES, N.max(1514)).pool_with_cache(FRAMES))
    }

    fn follow(&mut self, plan: Plan) {
        (self.plan, self.next) = (plan, 0);
    }

    fn counts(&self) -> (u64, u64) {
        (self.made, self.back)
    }
}

impl<const N: usize> Queue for Feed<N> {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    #[inline]
    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        match self.plan {
            Plan::Open => self.fill(pool, burst, most, |feed, number, frame| {
                feed.syn.make(frame, Flow(number), Flow(number).service(feed.services));
            }),
            Plan::Inbound => self.fill(pool, burst, most, |feed, number, frame| {
                let flow = Flow(feed.order.at(number));
                feed.inbound.make(frame, flow, flow.service(feed.services));
            }),
            Plan::Both => self.fill(pool, burst, most, |feed, number, frame| {
                let flow = Flow(feed.order.at(number >> 1));
                if number & 1 == 0 {
                    feed.inbound.make(frame, flow, 0);
                } else if let Some(template) = feed.outbound.get(rig::dest_of(flow)) {
                    template.make(frame, flow, 0);
                }
            }),
            Plan::Silence => 0,
            Plan::Flood => self.receive_flood(pool, burst, most),
        }
    }

    #[inline]
    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        let Expected { octets, routed } = self.expected;
        let hops = HOPS - u8::from(routed);
        let (sent, flood) = (burst.len(), self.plan == Plan::Flood);
        for frame in burst.drain(..) {
            let seen = frame.octets();
            let good = seen.len() == octets && seen.get(Template::<N>::HOPS_AT) == Some(&hops);
            self.back += u64::from(good);
            if flood && let Some(kind) = self.kind_of(seen).filter(|_| good) {
                count(&mut self.arrivals.back, kind);
            }
            pool.give(frame);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Family, Mode};
    use rvs_model::ForwardMethod;
    use rvs_wire::packet::{Class, classify};
    use rvs_wire::rewrite::Rewrite;

    fn packets<const N: usize>(family: Family, plan: Plan, flows: u32) -> Vec<Vec<u8>> {
        let mut pool = Reserve::new(256, 1514).pool();
        let expected = Expected { octets: N, routed: false };
        let case = Case { services: 3, ..Case::new(Mode::Nat, family, flows) };
        let ends = Ends::new(family, ForwardMethod::Masquerade);
        let mut feed = <Feed<N> as Source>::new(case, &ends, expected).unwrap();
        feed.follow(plan);
        let mut burst = Burst::new();
        assert_eq!(feed.receive(&mut pool, &mut burst, 64), 64);
        let octets = burst.iter().map(|frame| frame.octets().to_vec()).collect();
        assert_eq!((feed.send(&mut pool, &mut burst), feed.counts()), (64, (64, 64)));
        octets
    }

    fn sum_of<F: Rewrite>(key: &rvs_wire::flow::Key<F>, segment: &[u8]) -> bool {
        use rvs_wire::flow::Ends as _;
        let (from, to) = (key.ends.source().0, key.ends.destination().0);
        checksum::is_right(segment, F::pseudo_sum(from, to, key.protocol, 20))
    }

    #[test]
    fn every_frame_is_a_segment_whose_checksums_are_right() {
        for plan in [Plan::Open, Plan::Inbound, Plan::Both] {
            for frame in packets::<OCTETS4>(Family::V4, plan, 1024) {
                let Class::V4(packet) = classify(&frame, rig::OUR_MAC) else { panic!("{plan:?}") };
                assert!(sum_of(&packet.key, &frame[34..54]), "{plan:?}");
            }
            for frame in packets::<OCTETS6>(Family::V6, plan, 1024) {
                let Class::V6(packet) = classify(&frame, rig::OUR_MAC) else { panic!("{plan:?}") };
                assert!(sum_of(&packet.key, &frame[54..74]), "{plan:?}");
            }
        }
    }

    #[test]
    fn destinations_answer_the_flows_that_clients_have() {
        let frames = packets::<OCTETS4>(Family::V4, Plan::Both, 32);
        for pair in frames.chunks(2) {
            assert_eq!(pair[0][26..30], pair[1][30..34], "the client's address");
            assert_eq!(pair[0][34..36], pair[1][36..38], "the client's port");
        }
    }
}
