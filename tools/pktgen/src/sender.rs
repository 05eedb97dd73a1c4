//! The clients' end: makes packets when they are due, opens connections, takes replies in.

use crate::arrival;
use crate::deck::{self, Deck};
use crate::hosts::{self, Heard};
use crate::judge::{Judge, Verdict};
use crate::latency::Latency;
use crate::pace::Pace;
use crate::record::Record;
use crate::scenario::{Kind, Scenario};
use crate::sink::Sink;
use crate::template::{CLIENT_ISN, Own, Shape, Template};
use rvs_io::{Burst, Frame, Pool};
use rvs_wire::mac::MacAddr;
use rvs_wire::tcp::flag;
use std::net::IpAddr;

/// What the sender knows of a flow: two to three of these share a cache line.
#[derive(Clone, Copy, Debug)]
struct Flow {
    own: Own,
    /// Packets of this run.
    packets: u32,
    kind: Kind,
    open: bool,
}

/// What a frame at the clients was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Came {
    /// Done with.
    Done,
    /// It is an answer now: to be sent.
    Answer,
    /// A neighbour told where it is.
    Is(IpAddr, MacAddr),
}

/// The clients' end, without its link.
#[derive(Debug)]
pub struct Sender {
    flows: Box<[Flow]>,
    order: Deck<u32>,
    sizes: Deck<usize>,
    /// By kind and size.
    data: Vec<Vec<Template>>,
    open: Template,
    opened: Template,
    judge: Judge,
    latency: Latency,
    lag: Latency,
    run: u16,
    made: u64,
    made_octets: u64,
    unknown: u64,
}

impl Sender {
    /// The clients of a scenario, whose frames go to `director`.
    #[must_use]
    pub fn new(scenario: &Scenario, director: MacAddr) -> Self {
        let round = scenario.round();
        let kinds = round.iter().cycle();
        let flows = (0..scenario.flows).zip(kinds).map(|(flow, kind)| {
            let (_, port) = scenario.ends_of(flow);
            let low = scenario.client_base().wrapping_add(flow % scenario.clients);
            let own = Own { low, port, sequence: 0, acknowledgment: 0 };
            Flow { own, packets: 0, kind: *kind, open: false }
        });
        let sizes = scenario.sent_sizes();
        let weights: Vec<u32> = sizes.iter().map(|(_, weight)| *weight).collect();
        let template = |shape| Template::new(scenario, shape, director);
        let of_kind = |kind| {
            sizes.iter().map(|(size, _)| template(Shape::Data(kind, *size))).collect::<Vec<_>>()
        };
        Self {
            flows: flows.collect(),
            order: deck::flows(scenario),
            sizes: deck::sizes(&weights, scenario.seed),
            data: Kind::ALL.map(of_kind).into(),
            open: template(Shape::Open),
            opened: template(Shape::Opened),
            judge: Judge::new(scenario.flows),
            latency: Latency::default(),
            lag: Latency::default(),
            run: 0,
            made: 0,
            made_octets: 0,
            unknown: 0,
        }
    }

    /// Begins run `run`: every flow starts again from its first number.
    pub fn begin(&mut self, run: u16) {
        self.run = run;
        self.order.rewind();
        self.sizes.rewind();
        self.judge.forget();
        self.latency.forget();
        self.lag.forget();
        (self.made, self.made_octets, self.unknown) = (0, 0, 0);
        for flow in &mut self.flows {
            flow.packets = 0;
        }
    }

    /// Adds the packets that are due at `now` and before `end` to `burst`, at most `most`.
    #[inline]
    pub fn make<P: Pool>(
        &mut self,
        pace: &mut Pace,
        (now, end): (u64, u64),
        (pool, burst): (&mut P, &mut Burst<P::Frame>),
        most: usize,
    ) {
        for nth in 0..most.min(burst.remaining_capacity()) {
            let due = pace.next(now);
            if due > now || due >= end {
                break;
            }
            if nth == 0 {
                self.lag.note(now - due);
            }
            let Some(mut frame) = pool.take() else { break };
            if !self.next(&mut frame, due) {
                debug_assert!(false, "rooms are as long as the longest frame");
                pool.give(frame);
                break;
            }
            burst.push(frame);
            pace.advance();
        }
    }

    /// Makes `frame` the next packet.
    #[inline]
    fn next<F: Frame>(&mut self, frame: &mut F, due: u64) -> bool {
        let (number, size) = (self.order.draw(), self.sizes.draw());
        let Some(flow) = usize::try_from(number).ok().and_then(|at| self.flows.get_mut(at)) else {
            return false;
        };
        let (kind, data_first) = match flow.kind {
            Kind::Udp => (0, 0),
            Kind::Established => (1, CLIENT_ISN + 1),
            Kind::Ack => (2, CLIENT_ISN + 1),
            Kind::Syn => (3, CLIENT_ISN),
        };
        let Some(template) = self.data.get(kind).and_then(|sizes| sizes.get(size)) else {
            return false;
        };
        let record =
            Record { run: self.run, flow: number, reply: false, sequence: flow.packets, due };
        if flow.own.sequence == 0 {
            flow.own.sequence = data_first;
        }
        if !template.write(frame, flow.own, Some(&record)) {
            return false;
        }
        flow.packets = flow.packets.wrapping_add(1);
        if flow.kind != Kind::Syn {
            flow.own.sequence = flow.own.sequence.wrapping_add(template.data_octets());
        }
        self.made += 1;
        self.made_octets += u64::try_from(template.octets()).unwrap_or_default();
        true
    }

    /// A frame came to the clients.
    #[inline]
    pub fn hear<F: Frame>(&mut self, frame: &mut F, scenario: &Scenario, now: u64) -> Came {
        let Ok(segment) = arrival::answer(frame.octets(), scenario.client_mac()) else {
            let mac = scenario.client_mac();
            let ours = |address| scenario.number_of(address).map(|_| mac);
            return match hosts::hear(frame, ours) {
                Heard::Answer => Came::Answer,
                Heard::Is(address, mac) => Came::Is(address, mac),
                Heard::Nothing => {
                    self.unknown += 1;
                    Came::Done
                }
                Heard::Gossip => Came::Done,
            };
        };
        let data = frame.octets().get(segment.data..segment.end);
        let record = data.and_then(Record::read);
        if let Some(record) = record.filter(|record| record.reply && record.run == self.run) {
            if self.judge.note(record.flow, record.sequence, 0) {
                self.latency.note(record.age(now));
            }
            return Came::Done;
        }
        if segment.tcp && segment.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK {
            return self.syn_ack(frame, scenario, &segment);
        }
        self.unknown += u64::from(record.is_none());
        Came::Done
    }

    #[cold]
    fn syn_ack<F: Frame>(
        &mut self,
        frame: &mut F,
        scenario: &Scenario,
        segment: &arrival::Segment,
    ) -> Came {
        let (client, port) = segment.destination;
        let at = segment.l4 + 4;
        let isn = frame.octets().get(at..).and_then(<[u8]>::first_chunk).copied();
        let (Some(number), Some(isn)) = (scenario.flow_of(client, port), isn) else {
            self.unknown += 1;
            return Came::Done;
        };
        if self.opened(number, u32::from_be_bytes(isn), frame) { Came::Answer } else { Came::Done }
    }

    /// The server of flow `number` has answered its SYN with `isn`: makes `frame` the ACK. `false`
    /// when there is none to be sent.
    pub fn opened<F: Frame>(&mut self, number: u32, isn: u32, frame: &mut F) -> bool {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(flow) = self.flows.get_mut(place) else { return false };
        if flow.kind != Kind::Established {
            return false;
        }
        if !flow.open {
            flow.open = true;
            flow.own.sequence = CLIENT_ISN + 1;
            flow.own.acknowledgment = isn.wrapping_add(1);
        }
        self.opened.write(frame, flow.own, None)
    }

    /// As [`Sender::opened`], where the server is the other half of this process.
    pub fn opened_directly<F: Frame>(&mut self, number: u32, frame: &mut F) -> bool {
        self.opened(number, Sink::isn(), frame)
    }

    /// The next flow from `from` on that a handshake is to open and has not.
    #[must_use]
    pub fn unopened(&self, from: u32) -> Option<u32> {
        let at = usize::try_from(from).ok()?;
        let rest = self.flows.get(at..)?;
        let more = rest.iter().position(|flow| flow.kind == Kind::Established && !flow.open)?;
        from.checked_add(u32::try_from(more).ok()?)
    }

    /// Flows that a handshake is to open, and those that it has not opened yet.
    #[must_use]
    pub fn handshakes(&self) -> (u64, u64) {
        let all = self.flows.iter().filter(|flow| flow.kind == Kind::Established);
        all.fold((0, 0), |(all, left), flow| (all + 1, left + u64::from(!flow.open)))
    }

    /// Makes `frame` the SYN that opens flow `number`.
    #[must_use]
    pub fn syn<F: Frame>(&self, number: u32, frame: &mut F) -> bool {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        self.flows.get(place).is_some_and(|flow| {
            let own = Own { sequence: CLIENT_ISN, acknowledgment: 0, ..flow.own };
            self.open.write(frame, own, None)
        })
    }

    /// Packets made in this run, and their octets without check sequences.
    #[must_use]
    pub fn made(&self) -> (u64, u64) {
        (self.made, self.made_octets)
    }

    /// What became of the replies.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.judge.verdict()
    }

    /// Frames that came to the clients and were neither replies nor about neighbours.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// How long packets and their replies took together.
    pub fn latency_mut(&mut self) -> &mut Latency {
        &mut self.latency
    }

    /// How late packets were made, the first of each burst.
    pub fn lag_mut(&mut self) -> &mut Latency {
        &mut self.lag
    }
}
