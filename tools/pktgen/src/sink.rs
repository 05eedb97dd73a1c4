//! The servers' end: takes packets in, judges them, and answers as real servers would.
//!
//! Every frame is exactly one of: arrived, duplicate, damaged, misaddressed, stale, handshake,
//! neighbour, foreign ([`Tally::frames`] is their sum). A packet that came by masquerading can be
//! sent back: addresses, ports and Ethernet addresses swapped, which changes no checksum, and the
//! record marked as a reply, whose difference is added to the checksum (RFC 1624).

use crate::arrival::{self, Arrival, How, Segment, Unread};
use crate::hosts::{self, Heard};
use crate::judge::{Judge, Verdict};
use crate::latency::Latency;
use crate::record::{self, Record};
use crate::scenario::Scenario;
use rvs_io::Frame;
use rvs_wire::checksum::{self, Delta};
use rvs_wire::tcp::flag;
use serde::Serialize;

/// The sequence number that every server begins with.
const SERVER_ISN: u32 = 2_000_000_000;

/// What came, beside what a [`Verdict`] tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// All frames.
    pub frames: u64,
    /// With a wrong length or checksum.
    pub damaged: u64,
    /// At a real server's Ethernet address, with neither its address nor the VIP.
    pub misaddressed: u64,
    /// Of another run.
    pub stale: u64,
    /// Segments of handshakes.
    pub handshakes: u64,
    /// ARP and neighbour discovery.
    pub neighbour: u64,
    /// Anything else.
    pub foreign: u64,
    /// Packets of this run by the way they came: NAT, direct routing, tunnel.
    pub by_method: [u64; 3],
}

/// What shall become of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is done with.
    Done,
    /// It is a reply now, with a record.
    Reply,
    /// It is an answer now: ARP, neighbour discovery, a handshake.
    Answer,
    /// A SYN whose answer does not pass the director: this flow is open.
    Opened(u32),
}

/// Which packets count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Run {
    This(u16),
    /// The last one that began, as a generator elsewhere counts them: its warm-up is one, then what it
    /// measures.
    Latest(Option<u16>),
}

/// The servers' end, without its link.
#[derive(Clone, Debug)]
pub struct Sink {
    judge: Judge,
    latency: Latency,
    tally: Tally,
    by_real: Box<[u64]>,
    run: Run,
    echo: bool,
}

impl Sink {
    /// The servers of a scenario, with memory for its flows.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            judge: Judge::new(scenario.flows),
            latency: Latency::default(),
            tally: Tally::default(),
            by_real: vec![0; scenario.reals.len()].into_boxed_slice(),
            run: Run::Latest(None),
            echo: scenario.echo,
        }
    }

    /// Forgets everything; from now on packets of run `run` count.
    pub fn begin(&mut self, run: u16) {
        self.forget();
        self.run = Run::This(run);
    }

    fn forget(&mut self) {
        self.judge.forget();
        self.latency.forget();
        self.tally = Tally::default();
        self.by_real.fill(0);
    }

    /// A frame came.
    #[inline]
    pub fn hear<F: Frame>(&mut self, frame: &mut F, scenario: &Scenario, now: u64) -> Fate {
        self.tally.frames += 1;
        let arrival = match arrival::arrival(frame.octets(), scenario) {
            Ok(arrival) => arrival,
            Err(unread) => return self.unread(frame, scenario, unread),
        };
        let data = frame.octets().get(arrival.segment.data..arrival.segment.end);
        let Some(record) = data.and_then(Record::read).filter(|record| !record.reply) else {
            return self.handshake(frame, scenario, &arrival);
        };
        if !self.counts(record.run) {
            self.tally.stale += 1;
            return Fate::Done;
        }
        if !self.judge.note(record.flow, record.sequence, arrival.real) {
            self.tally.foreign += 1;
            return Fate::Done;
        }
        self.latency.note(record.age(now));
        if let Some(count) = self.tally.by_method.get_mut(arrival.how.index()) {
            *count += 1;
        }
        if let Some(count) = self.by_real.get_mut(usize::from(arrival.real)) {
            *count += 1;
        }
        if self.echo && arrival.how == How::Nat && turn_round(frame, &arrival.segment, Some(record))
        {
            return Fate::Reply;
        }
        Fate::Done
    }

    /// Whether packets of run `run` count.
    #[inline]
    fn counts(&mut self, run: u16) -> bool {
        match self.run {
            Run::This(ours) => run == ours,
            Run::Latest(Some(heard)) if run == heard => true,
            Run::Latest(heard) => self.follow(heard, run),
        }
    }

    /// Starts anew with a later run. Numbers wrap: half of them are later.
    #[cold]
    fn follow(&mut self, heard: Option<u16>, run: u16) -> bool {
        let is_later = heard.is_none_or(|heard| run.wrapping_sub(heard).cast_signed() > 0);
        if is_later {
            self.forget();
            self.tally.frames = 1;
            self.run = Run::Latest(Some(run));
        }
        is_later
    }

    #[cold]
    fn unread<F: Frame>(&mut self, frame: &mut F, scenario: &Scenario, unread: Unread) -> Fate {
        let ours = |address| {
            let number = scenario.reals.iter().position(|real| *real == address)?;
            Some(scenario.real_mac(u16::try_from(number).ok()?))
        };
        match (hosts::hear(frame, ours), unread) {
            (Heard::Nothing, Unread::Damaged) => self.tally.damaged += 1,
            (Heard::Nothing, Unread::Misaddressed) => self.tally.misaddressed += 1,
            (Heard::Nothing, Unread::Foreign) => self.tally.foreign += 1,
            (Heard::Answer, _) => {
                self.tally.neighbour += 1;
                return Fate::Answer;
            }
            (Heard::Gossip | Heard::Is(..), _) => self.tally.neighbour += 1,
        }
        Fate::Done
    }

    #[cold]
    fn handshake<F: Frame>(
        &mut self,
        frame: &mut F,
        scenario: &Scenario,
        arrival: &Arrival,
    ) -> Fate {
        let Arrival { segment, how, .. } = arrival;
        if !segment.tcp || segment.data != segment.end {
            self.tally.foreign += 1;
            return Fate::Done;
        }
        self.tally.handshakes += 1;
        if segment.flags & (flag::SYN | flag::ACK) != flag::SYN {
            return Fate::Done;
        }
        match how {
            How::Nat if turn_round(frame, segment, None) => Fate::Answer,
            How::Nat => Fate::Done,
            // The answer goes straight to the client: it is the other half of this process.
            How::Direct | How::Tunnel => {
                let (client, port) = segment.source;
                scenario.flow_of(client, port).map_or(Fate::Done, Fate::Opened)
            }
        }
    }

    /// Packets by their ways and numbers.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What became of the run's packets.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.judge.verdict()
    }

    /// See [`Judge::missing`].
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.judge.missing()
    }

    /// Packets of the run at each real server, in their order.
    #[must_use]
    pub fn by_real(&self) -> &[u64] {
        &self.by_real
    }

    /// How long packets took.
    pub fn latency_mut(&mut self) -> &mut Latency {
        &mut self.latency
    }

    /// The first number of the server's side of every connection.
    #[must_use]
    pub const fn isn() -> u32 {
        SERVER_ISN
    }
}

/// Makes a segment its answer: a SYN a SYN-ACK, data with a record the same data as a reply.
fn turn_round<F: Frame>(frame: &mut F, segment: &Segment, record: Option<Record>) -> bool {
    let octets = frame.octets_mut();
    let [a, b, c, d, e, f, g, h, i, j, k, l] = match octets.first_chunk::<12>() {
        Some(macs) => *macs,
        None => return false,
    };
    let Segment { l3, l4, data, end, v6, tcp, flags, .. } = *segment;
    let (source, len) = if v6 { (l3 + 8, 16) } else { (l3 + 12, 4) };
    let (Some(hosts), true) = (octets.get_mut(source..source + 2 * len), data <= end) else {
        return false;
    };
    hosts.rotate_left(len);
    let Some(ports) = octets.get_mut(l4..l4 + 4) else { return false };
    ports.rotate_left(2);
    let sum_at = l4 + if tcp { 16 } else { 6 };
    let mut delta = Delta::NONE;
    if let Some(record) = record {
        let reply = Record { reply: true, ..record }.octets();
        let Some(place) = octets.get_mut(data..data + record::OCTETS) else { return false };
        delta = delta.and(change(place, &reply));
    }
    if tcp {
        // What is acknowledged has come; where we are, the client said (RFC 9293 section 3.4).
        let Some(place) = octets.get_mut(l4 + 4..l4 + 14) else { return false };
        let &mut [s0, s1, s2, s3, a0, a1, a2, a3, offset, _] = place else { return false };
        let syn = flags & flag::SYN != 0;
        let their = u32::from_be_bytes([s0, s1, s2, s3]);
        let came = u32::try_from(end - data).unwrap_or_default().wrapping_add(u32::from(syn));
        let ours = if syn { SERVER_ISN } else { u32::from_be_bytes([a0, a1, a2, a3]) };
        let [t0, t1, t2, t3] = their.wrapping_add(came).to_be_bytes();
        let [o0, o1, o2, o3] = ours.to_be_bytes();
        let flags = flags | flag::ACK;
        delta = delta.and(change(place, &[o0, o1, o2, o3, t0, t1, t2, t3, offset, flags]));
    }
    if let Some(sum) = octets.get_mut(sum_at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        // No checksum stays none.
        if tcp {
            *sum = delta.apply(*sum);
        } else if *sum != [0, 0] {
            *sum = delta.apply_udp(*sum);
        }
    }
    if let Some(macs) = octets.first_chunk_mut::<12>() {
        *macs = [g, h, i, j, k, l, a, b, c, d, e, f];
    }
    true
}

/// Writes `to` over `place`, and says what that does to a checksum.
fn change(place: &mut [u8], to: &[u8]) -> Delta {
    let word = |octets: &[u8]| checksum::fold(checksum::sum(octets));
    let delta = Delta::word(word(place), word(to));
    place.iter_mut().zip(to).for_each(|(place, octet)| *place = *octet);
    delta
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrival::answer;
    use crate::scenario::Kind;
    use crate::scenario::tests::scenario;
    use crate::template::{Own, Shape, Template};
    use rvs_io::{Pool, Reserve, RoomFrame};
    use rvs_wire::ipip::{Inner, Outer};
    use std::net::IpAddr;

    fn own(flow: u32, scenario: &Scenario) -> Own {
        let (_, port) = scenario.ends_of(flow);
        let low = scenario.client_base() + flow % scenario.clients;
        Own { low, port, sequence: 5, acknowledgment: 6 }
    }

    /// A packet as a director that masquerades hands it to real server 1: the scenario's VIP is
    /// written over by the server's address before the checksums are made.
    fn masqueraded(scenario: &Scenario, shape: Shape, record: Option<&Record>) -> RoomFrame {
        let to = Scenario { vip: (scenario.reals[1], 8080).into(), ..scenario.clone() };
        let template = Template::new(&to, shape, scenario.real_mac(1));
        let mut frame = Reserve::new(1, 2000).pool().take().unwrap();
        assert!(template.write(&mut frame, own(4, scenario), record));
        frame
    }

    const RECORD: Record = Record { run: 3, flow: 4, reply: false, sequence: 0, due: 1000 };

    #[test]
    fn a_masqueraded_packet_is_judged_and_sent_back_with_all_checksums_right() {
        for (client, reals) in [
            ("198.51.100.10", ["192.0.2.11", "192.0.2.12"]),
            ("2001:db8::10", ["2001:db8:d::11", "2001:db8:d::12"]),
        ] {
            let client: IpAddr = client.parse().unwrap();
            let vip = if client.is_ipv4() { "203.0.113.1:80" } else { "[2001:db8:c::1]:80" };
            let scenario = Scenario {
                client,
                vip: vip.parse().unwrap(),
                reals: reals.iter().map(|real| real.parse().unwrap()).collect(),
                echo: true,
                ..scenario()
            };
            for kind in Kind::ALL {
                let mut sink = Sink::new(&scenario);
                let mut frame = masqueraded(&scenario, Shape::Data(kind, 200), Some(&RECORD));
                assert_eq!(sink.hear(&mut frame, &scenario, 1500), Fate::Reply);
                assert_eq!(sink.verdict().arrived, 1);
                assert_eq!((sink.by_real(), sink.tally().by_method), (&[0, 1][..], [1, 0, 0]));
                assert_eq!(sink.latency_mut().all().max, 500);
                // The frame's source was the client end: that is where it goes.
                let segment = answer(frame.octets(), scenario.client_mac()).unwrap();
                assert_eq!(segment.source, (scenario.reals[1], 8080));
                assert_eq!(segment.destination, scenario.ends_of(4));
                let data = &frame.octets()[segment.data..segment.end];
                assert_eq!(Record::read(data), Some(Record { reply: true, ..RECORD }));
                assert_eq!(segment.flags & flag::ACK != 0, segment.tcp);
            }
        }
    }

    #[test]
    fn a_syn_is_answered_by_a_syn_ack() {
        let scenario = scenario();
        let mut sink = Sink::new(&scenario);
        let mut frame = masqueraded(&scenario, Shape::Open, None);
        assert_eq!(sink.hear(&mut frame, &scenario, 0), Fate::Answer);
        let segment = answer(frame.octets(), scenario.client_mac()).unwrap();
        assert_eq!(segment.flags, flag::SYN | flag::ACK);
        let numbers = &frame.octets()[segment.l4 + 4..segment.l4 + 12];
        assert_eq!(numbers, [SERVER_ISN.to_be_bytes(), 6_u32.to_be_bytes()].concat());
        let mut ack = masqueraded(&scenario, Shape::Opened, None);
        assert_eq!(sink.hear(&mut ack, &scenario, 0), Fate::Done);
        assert_eq!(sink.tally().handshakes, 2);
    }

    #[test]
    fn direct_and_tunnelled_packets_are_known_by_how_they_came() {
        let scenario = scenario();
        let mut sink = Sink::new(&scenario);
        let shape = Shape::Data(Kind::Udp, 200);
        let template = Template::new(&scenario, shape, scenario.real_mac(0));
        let mut frame = Reserve::new(1, 2000).pool().take().unwrap();
        assert!(template.write(&mut frame, own(4, &scenario), Some(&RECORD)));
        let plain = frame.octets().to_vec();
        assert_eq!(sink.hear(&mut frame, &scenario, 0), Fate::Done);

        let packet = plain[14..].to_vec();
        for dest in [scenario.reals[0], scenario.reals[1]] {
            let outer = Outer::new("192.0.2.1".parse().unwrap(), dest).unwrap();
            let octets = u16::try_from(packet.len()).unwrap();
            let inner = Inner { protocol: 4, tos: 0, hops: 63, octets, dont_fragment: true };
            let mut header = vec![0; outer.len()];
            assert!(outer.write(inner, 0, &mut header));
            assert!(hosts::overwrite(&mut frame, &[&plain[..14], &header, &packet].concat()));
            assert_eq!(sink.hear(&mut frame, &scenario, 0), Fate::Done);
            assert_eq!(sink.tally().by_method, [0, 1, 1], "by the second, to another server");
        }
        let Verdict { arrived, duplicates, .. } = sink.verdict();
        assert_eq!((arrived, duplicates, sink.tally().misaddressed), (1, 1, 1));

        let syn = Template::new(&scenario, Shape::Open, scenario.real_mac(0));
        assert!(syn.write(&mut frame, own(4, &scenario), None));
        assert_eq!(sink.hear(&mut frame, &scenario, 0), Fate::Opened(4));
    }

    #[test]
    fn a_sink_of_its_own_judges_the_latest_run() {
        let scenario = scenario();
        let mut sink = Sink::new(&scenario);
        let template = Template::new(&scenario, Shape::Data(Kind::Udp, 64), scenario.real_mac(0));
        let mut frame = Reserve::new(1, 2000).pool().take().unwrap();
        let mut hear = |run, sequence| {
            let record = Record { run, sequence, ..RECORD };
            assert!(template.write(&mut frame, own(record.flow, &scenario), Some(&record)));
            sink.hear(&mut frame, &scenario, 0);
            (sink.verdict().arrived, sink.tally().stale, sink.tally().frames)
        };
        assert_eq!([hear(u16::MAX, 0), hear(u16::MAX, 1)], [(1, 0, 1), (2, 0, 2)]);
        assert_eq!(hear(0, 0), (1, 0, 1), "a later one: numbers wrap");
        assert_eq!(hear(u16::MAX, 2), (1, 1, 2), "a late one of the run before");
        assert_eq!(hear(0, 1), (2, 1, 3));
    }

    #[test]
    fn every_frame_is_counted_once() {
        let scenario = scenario();
        let mut sink = Sink::new(&scenario);
        sink.begin(3);
        let template = Template::new(&scenario, Shape::Data(Kind::Udp, 64), scenario.real_mac(0));
        let mut frame = Reserve::new(1, 2000).pool().take().unwrap();
        let mut hear = |change: &dyn Fn(&mut [u8]), record: Record| {
            assert!(template.write(&mut frame, own(record.flow, &scenario), Some(&record)));
            change(frame.octets_mut());
            sink.hear(&mut frame, &scenario, 0);
        };
        let as_it_is = |_: &mut [u8]| {};
        hear(&as_it_is, RECORD);
        hear(&as_it_is, RECORD);
        hear(&as_it_is, Record { run: 4, ..RECORD });
        hear(&as_it_is, Record { flow: 10, ..RECORD });
        for bit in 14 * 8..60 * 8 {
            hear(&|octets| octets[bit / 8] ^= 1 << (bit % 8), RECORD);
        }
        hear(&|octets| octets[3] ^= 1, RECORD);
        let (v, t) = (sink.verdict(), sink.tally());
        assert_eq!((v.arrived, v.duplicates, t.stale, t.foreign), (1, 1, 1, 2), "{t:?}");
        assert_eq!(t.damaged, 46 * 8, "each bit is covered by a checksum");
        let sum = v.arrived + v.duplicates + t.stale + t.foreign + t.damaged;
        assert_eq!(sum + t.misaddressed + t.handshakes + t.neighbour, t.frames);
    }
}
