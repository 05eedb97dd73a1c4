//! One process's traffic: both ends on their links, and the phases of a trial.
//!
//! ```text
//!  find the director ─► open connections ─► warm up ─► measure ─► wait for what is on its way
//!   ARP, NDP             SYN, SYN-ACK, ACK   not judged  judged     judged
//! ```
//!
//! A turn takes a burst in at either end and sends what waits. What a link does not take stays and
//! is offered again: it is sent late, and its latency says so, because it counts from the time at
//! which the packet was due.

use crate::Trouble;
use crate::clock::Clock;
use crate::hosts;
use crate::judge::Verdict;
use crate::latency::Percentiles;
use crate::pace::Pace;
use crate::scenario::{Director, Scenario};
use crate::sender::{Came, Sender};
use crate::sink::{Fate, Sink, Tally};
use crate::template;
use rvs_io::{Burst, Frame as _, Lost, Pool, Queue};
use rvs_wire::mac::MacAddr;
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

/// Between two questions for the director, and how many are asked.
const ASK_EVERY: u64 = 100_000_000;
const QUESTIONS: u32 = 30;
/// Handshakes begun in a second, at most: a server's backlog, a director's table.
const HANDSHAKES: f64 = 50_000.0;
/// How often a SYN is sent, and how long its answer is waited for.
const SYNS: u32 = 3;
const SYN_PATIENCE: u64 = 1_000_000_000;
/// After the last ACK: it is on its way.
const SETTLE: u64 = 20_000_000;

/// Packets that were due in a trial are still made so long after its end, or for a twentieth of it: a
/// generator whose core was taken away for a moment has made them late, which their latency says,
/// and not too few.
const CATCH_UP: u64 = 50_000_000;

/// How a trial goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Packets a second; `None` for as many as the link takes.
    pub rate: Option<f64>,
    /// How long packets are sent.
    pub duration: Duration,
    /// How long packets are sent before that.
    pub warm_up: Duration,
    /// How long packets that are on their way are waited for, at most.
    pub drain: Duration,
    /// Packets of a burst at most.
    pub burst: usize,
    /// Time between two samples.
    pub sample: Duration,
}

/// A moment of a trial: what happened since the moment before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// Packets sent in a second.
    pub sent_pps: f64,
    /// Packets arrived in a second.
    pub arrived_pps: f64,
    /// Replies in a second.
    pub returned_pps: f64,
    /// One way, or there and back where there is no servers' end here; nanoseconds.
    pub latency: Percentiles,
}

/// What became of a trial's packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trial {
    /// Packets a second that were asked for.
    pub asked_pps: Option<f64>,
    /// Seconds in which packets were sent.
    pub seconds: f64,
    /// Packets that the link took.
    pub sent: u64,
    /// Their octets, with check sequences.
    pub sent_octets: u64,
    /// Packets that were due and could not be sent before the end.
    pub unsent: u64,
    /// What came to the real servers, if they are here.
    pub servers: Option<Arrived>,
    /// What came back to the clients, if replies were asked for or there are no servers here.
    pub clients: Option<Returned>,
    /// How late packets were made, in nanoseconds, the first of each burst: the generator's own
    /// part in the latencies.
    pub lag: Percentiles,
    /// How it went.
    pub samples: Vec<Sample>,
}

/// What came to the real servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Arrived {
    /// Judged packet by packet.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Sent and never seen.
    pub lost: u64,
    /// All other frames, too.
    #[serde(flatten)]
    pub tally: Tally,
    /// That the link received, or had no place for, and did not hand over: the generator was too slow.
    pub link_lost: u64,
    /// Packets at each real server, in their order.
    pub by_real: Vec<u64>,
    /// From when a packet was due to its arrival, in nanoseconds.
    pub latency: Percentiles,
}

/// What came back to the clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Returned {
    /// Judged packet by packet.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Sent without a reply.
    pub lost: u64,
    /// Frames that were no replies.
    pub unknown: u64,
    /// That the link received, or had no place for, and did not hand over: the generator was too slow.
    pub link_lost: u64,
    /// From when a packet was due to its reply's arrival, in nanoseconds.
    pub latency: Percentiles,
}

impl Trial {
    /// Packets that did not make the whole way: back to the clients if replies count, else to the
    /// servers.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let returned = self.clients.as_ref().map(|clients| clients.lost);
        returned.or(self.servers.as_ref().map(|servers| servers.lost)).unwrap_or_default()
    }

    /// Of the frames that came back or arrived, those that the generator's own links lost.
    #[must_use]
    pub fn link_lost(&self) -> u64 {
        let servers = self.servers.as_ref().map_or(0, |servers| servers.link_lost);
        servers + self.clients.as_ref().map_or(0, |clients| clients.link_lost)
    }

    /// The share of lost packets in those sent.
    #[must_use]
    pub fn loss(&self) -> f64 {
        share(self.lost(), self.sent)
    }

    /// The share of the asked packets that the generator could not send in time.
    #[must_use]
    pub fn shortfall(&self) -> f64 {
        share(self.unsent, self.sent.saturating_add(self.unsent))
    }

    /// Packets a second that were sent.
    #[must_use]
    pub fn sent_pps(&self) -> f64 {
        number(self.sent) / self.seconds.max(1e-9)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// As a float: exact up to 2^53.
#[must_use]
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "2^53 packets suffice")]
pub fn number(count: u64) -> f64 {
    count as f64
}

/// A link and what waits to be sent on it.
#[derive(Debug)]
struct Port<Q: Queue> {
    queue: Q,
    /// Answers, handshakes: sent first, not measured.
    aside: Burst<Q::Frame>,
    /// Packets with records.
    data: Burst<Q::Frame>,
    /// Of these, the link took so many.
    sent: u64,
    lost_before: Lost,
}

impl<Q: Queue> Port<Q> {
    fn new(queue: Q) -> Self {
        let lost_before = queue.lost();
        Self { queue, aside: Burst::new(), data: Burst::new(), sent: 0, lost_before }
    }

    fn begin(&mut self) {
        self.sent = 0;
        self.lost_before = self.queue.lost();
    }

    /// Frames that may be received: each may become an answer.
    fn room(&self) -> usize {
        self.aside.remaining_capacity().min(self.data.remaining_capacity())
    }

    fn flush(&mut self, pool: &mut Q::Pool) {
        if !self.aside.is_empty() {
            self.queue.send(pool, &mut self.aside);
        }
        if self.aside.is_empty() && !self.data.is_empty() {
            let went = self.queue.send(pool, &mut self.data);
            self.sent += count(went);
        }
    }

    fn link_lost(&self) -> u64 {
        self.queue.lost().all() - self.lost_before.all()
    }

    fn finish(mut self, pool: &mut Q::Pool) -> Q {
        self.aside.drain(..).chain(self.data.drain(..)).for_each(|frame| pool.give(frame));
        self.queue
    }
}

fn count(frames: usize) -> u64 {
    u64::try_from(frames).unwrap_or(u64::MAX)
}

/// Clients, and real servers if they are here, on their links.
#[derive(Debug)]
pub struct Traffic<C: Queue, S: Queue<Frame = C::Frame, Pool = C::Pool>> {
    scenario: Scenario,
    sender: Sender,
    sink: Sink,
    client: Port<C>,
    servers: Option<Port<S>>,
    pool: C::Pool,
    scratch: Burst<C::Frame>,
    run: u16,
    /// Where the director was heard to be.
    heard: Option<(IpAddr, MacAddr)>,
}

impl<C: Queue, S: Queue<Frame = C::Frame, Pool = C::Pool>> Traffic<C, S> {
    /// Finds the director and opens what is to be open: ready for trials.
    ///
    /// # Errors
    ///
    /// [`Trouble::NoDirector`], [`Trouble::NoHandshake`], [`Trouble::Interrupted`].
    pub fn start(
        scenario: Scenario,
        client: C,
        servers: Option<S>,
        pool: C::Pool,
        clock: &mut impl Clock,
    ) -> Result<Self, Trouble> {
        let known = template::named(scenario.director);
        let mut traffic = Self {
            sender: Sender::new(&scenario, known.unwrap_or(MacAddr::BROADCAST)),
            sink: Sink::new(&scenario),
            client: Port::new(client),
            servers: servers.map(Port::new),
            pool,
            scratch: Burst::new(),
            // Any start will do: packets of an earlier generator shall not be taken for ours.
            run: fastrand::u16(..),
            heard: None,
            scenario,
        };
        if let Director::Address(address) = traffic.scenario.director {
            let mac = traffic.find(address, clock)?;
            traffic.sender = Sender::new(&traffic.scenario, mac);
        }
        traffic.open(clock)?;
        Ok(traffic)
    }

    fn find(&mut self, address: IpAddr, clock: &mut impl Clock) -> Result<MacAddr, Trouble> {
        let me = (self.scenario.client_mac(), self.scenario.client);
        for _ in 0..QUESTIONS {
            if let Some(mut frame) = self.pool.take() {
                if hosts::overwrite(&mut frame, &hosts::question(me, address)) {
                    self.client.aside.push(frame);
                } else {
                    self.pool.give(frame);
                }
            }
            let until = clock.now() + ASK_EVERY;
            while clock.now() < until {
                self.turn(clock)?;
                match self.heard {
                    Some((who, mac)) if who == address => return Ok(mac),
                    _ => {}
                }
            }
        }
        let protocol = if address.is_ipv4() { "ARP" } else { "neighbour discovery" };
        Err(Trouble::NoDirector { protocol, address })
    }

    fn open(&mut self, clock: &mut impl Clock) -> Result<(), Trouble> {
        let (asked, _) = self.sender.handshakes();
        if asked == 0 {
            return Ok(());
        }
        for _ in 0..SYNS {
            let mut pace = Pace::new(clock.now(), Some(HANDSHAKES));
            let mut next = self.sender.unopened(0);
            while let Some(flow) = next {
                let now = clock.now();
                if pace.next(now) <= now
                    && self.client.aside.remaining_capacity() > 0
                    && let Some(mut frame) = self.pool.take()
                {
                    if self.sender.syn(flow, &mut frame) {
                        self.client.aside.push(frame);
                    }
                    pace.advance();
                    next = flow.checked_add(1).and_then(|flow| self.sender.unopened(flow));
                }
                self.turn(clock)?;
            }
            let until = clock.now() + SYN_PATIENCE;
            while clock.now() < until && self.sender.unopened(0).is_some() {
                self.turn(clock)?;
            }
            if self.sender.unopened(0).is_none() {
                let until = clock.now() + SETTLE;
                while clock.now() < until {
                    self.turn(clock)?;
                }
                return Ok(());
            }
        }
        let (asked, unanswered) = self.sender.handshakes();
        Err(Trouble::NoHandshake { unanswered, asked, vip: self.scenario.vip })
    }

    /// Takes in and sends what is there, between trials.
    fn turn(&mut self, clock: &mut impl Clock) -> Result<(), Trouble> {
        let now = clock.now();
        if self.exchange(now) == 0 {
            clock.rest(now + ASK_EVERY);
        }
        if clock.is_over() { Err(Trouble::Interrupted) } else { Ok(()) }
    }

    /// Takes a burst in at either end and sends what waits. Says how many frames came.
    #[inline]
    fn exchange(&mut self, now: u64) -> usize {
        let Self { scenario, sender, sink, client, servers, pool, scratch, heard, .. } = self;
        let mut came = 0;
        if let Some(servers) = servers {
            let room = servers.room().min(client.aside.remaining_capacity());
            came += servers.queue.receive(pool, scratch, room);
            for mut frame in scratch.drain(..) {
                match sink.hear(&mut frame, scenario, now) {
                    Fate::Reply => servers.data.push(frame),
                    Fate::Answer => servers.aside.push(frame),
                    Fate::Opened(flow) if sender.opened_directly(flow, &mut frame) => {
                        client.aside.push(frame);
                    }
                    Fate::Done | Fate::Opened(_) => pool.give(frame),
                }
            }
            servers.flush(pool);
        }
        came += client.queue.receive(pool, scratch, client.aside.remaining_capacity());
        for mut frame in scratch.drain(..) {
            match sender.hear(&mut frame, scenario, now) {
                Came::Answer => client.aside.push(frame),
                Came::Done => pool.give(frame),
                Came::Is(address, mac) => {
                    *heard = Some((address, mac));
                    pool.give(frame);
                }
            }
        }
        client.flush(pool);
        came
    }

    /// Sends what `plan` says and judges it; `tell` hears of each sample.
    ///
    /// # Errors
    ///
    /// [`Trouble::Interrupted`] before the first packet counts. Later, the trial ends early.
    pub fn trial(
        &mut self,
        plan: &Plan,
        clock: &mut impl Clock,
        mut tell: impl FnMut(&Sample),
    ) -> Result<Trial, Trouble> {
        if !plan.warm_up.is_zero() {
            let warm_up = Plan { duration: plan.warm_up, ..*plan };
            self.send(&warm_up, clock, &mut |_| {});
            if clock.is_over() {
                return Err(Trouble::Interrupted);
            }
        }
        Ok(self.send(plan, clock, &mut tell))
    }

    fn send(
        &mut self,
        plan: &Plan,
        clock: &mut impl Clock,
        tell: &mut dyn FnMut(&Sample),
    ) -> Trial {
        self.run = self.run.wrapping_add(1);
        self.sender.begin(self.run);
        self.sink.begin(self.run);
        self.client.begin();
        if let Some(servers) = &mut self.servers {
            servers.begin();
        }
        let start = clock.now();
        let mut pace = Pace::new(start, plan.rate);
        let mut samples = Samples::new(start, nanos(plan.sample));
        let mut end = start + nanos(plan.duration);
        let mut now = start;
        while now < end {
            // Frames that the link did not take are offered again before new ones are made.
            if self.client.data.is_empty() {
                let out = (&mut self.pool, &mut self.client.data);
                self.sender.make(&mut pace, (now, end), out, plan.burst);
            }
            let quiet = self.client.data.is_empty();
            if self.exchange(now) == 0 && quiet {
                clock.rest(pace.next(now));
            }
            now = clock.now();
            if now >= samples.next {
                let sample = samples.take(now, self);
                tell(&sample);
            }
            if clock.is_over() {
                end = now;
            }
        }
        let seconds = number(now.min(end) - start) / 1e9;
        let catch_up = now + CATCH_UP.min(nanos(plan.duration) / 20);
        let mut until = now + nanos(plan.drain);
        while now < until && !clock.is_over() {
            if now < catch_up && pace.backlog(end) > 0 && self.client.data.is_empty() {
                let out = (&mut self.pool, &mut self.client.data);
                self.sender.make(&mut pace, (now, end), out, plan.burst);
                until = now + nanos(plan.drain);
            }
            self.exchange(now);
            if self.is_complete() && pace.backlog(end) == 0 {
                break;
            }
            now = clock.now();
        }
        let unsent = pace.backlog(end);
        self.result(plan, seconds, unsent, samples.all)
    }

    /// Whether everything that was made has come where it was to come.
    fn is_complete(&self) -> bool {
        let (made, _) = self.sender.made();
        let there = self.servers.is_none() || self.sink.verdict().arrived >= made;
        let back = !self.scenario.replies || self.sender.verdict().arrived >= made;
        there && back && self.client.data.is_empty()
    }

    fn result(&mut self, plan: &Plan, seconds: f64, unsent: u64, samples: Vec<Sample>) -> Trial {
        let sent = self.client.sent;
        let (made, octets) = self.sender.made();
        let (mut left, mut left_octets) = (0, 0);
        for frame in self.client.data.drain(..) {
            left += 1;
            left_octets += count(frame.octets().len());
            self.pool.give(frame);
        }
        let fcs = (made - left) * count(crate::scenario::FCS);
        let servers = self.servers.as_ref().map(|port| {
            let verdict = self.sink.verdict();
            Arrived {
                verdict,
                lost: sent.saturating_sub(verdict.arrived),
                tally: self.sink.tally(),
                link_lost: port.link_lost(),
                by_real: self.sink.by_real().to_vec(),
                latency: self.sink.latency_mut().all(),
            }
        });
        let clients = self.scenario.replies.then(|| {
            let verdict = self.sender.verdict();
            Returned {
                verdict,
                lost: sent.saturating_sub(verdict.arrived),
                unknown: self.sender.unknown(),
                link_lost: self.client.link_lost(),
                latency: self.sender.latency_mut().all(),
            }
        });
        Trial {
            asked_pps: plan.rate,
            seconds,
            sent,
            sent_octets: octets - left_octets + fcs,
            unsent: unsent + left,
            servers,
            clients,
            lag: self.sender.lag_mut().all(),
            samples,
        }
    }

    /// Ends it and hands the links back: the client's, and the servers'.
    pub fn finish(mut self) -> (C, Option<S>) {
        let client = self.client.finish(&mut self.pool);
        (client, self.servers.map(|servers| servers.finish(&mut self.pool)))
    }
}

/// Plays the real servers alone, until `duration` is over or the clock says so. The last run that was
/// heard counts; what it lost is told by the numbers that are missing before the highest of each flow.
///
/// Returns what came and for how many seconds, and hands the link back.
pub fn listen<Q: Queue>(
    scenario: &Scenario,
    link: Q,
    mut pool: Q::Pool,
    (duration, every): (Duration, Duration),
    clock: &mut impl Clock,
    mut tell: impl FnMut(&Sample),
) -> ((Arrived, f64), Q) {
    let (mut sink, mut port, mut burst) = (Sink::new(scenario), Port::new(link), Burst::new());
    let start = clock.now();
    let (end, every) = (start.saturating_add(nanos(duration)), nanos(every).max(1));
    let (mut now, mut last, mut arrived) = (start, start, 0);
    while now < end && !clock.is_over() {
        let came = port.queue.receive(&mut pool, &mut burst, port.room());
        for mut frame in burst.drain(..) {
            match sink.hear(&mut frame, scenario, now) {
                Fate::Reply => port.data.push(frame),
                Fate::Answer => port.aside.push(frame),
                Fate::Done | Fate::Opened(_) => pool.give(frame),
            }
        }
        port.flush(&mut pool);
        if came == 0 {
            clock.rest(end);
        }
        now = clock.now();
        if now - last >= every {
            let count = sink.verdict().arrived;
            // A run that began meanwhile counts from nothing.
            let more = count.checked_sub(arrived).unwrap_or(count);
            tell(&Sample {
                at: number(now - start) / 1e9,
                arrived_pps: number(more) * 1e9 / number(now - last),
                latency: sink.latency_mut().end_sample(),
                ..Sample::default()
            });
            (last, arrived) = (now, count);
        }
    }
    let arrived = Arrived {
        verdict: sink.verdict(),
        lost: sink.missing(),
        tally: sink.tally(),
        link_lost: port.link_lost(),
        by_real: sink.by_real().to_vec(),
        latency: sink.latency_mut().all(),
    };
    ((arrived, number(now - start) / 1e9), port.finish(&mut pool))
}

/// A duration in nanoseconds; 584 years are the most.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The samples of a trial so far.
struct Samples {
    start: u64,
    every: u64,
    next: u64,
    last: u64,
    counts: [u64; 3],
    all: Vec<Sample>,
}

impl Samples {
    fn new(start: u64, every: u64) -> Self {
        let (every, next) = (every.max(1), start.saturating_add(every.max(1)));
        Self { start, every, next, last: start, counts: [0; 3], all: Vec::new() }
    }

    fn take<C: Queue, S: Queue<Frame = C::Frame, Pool = C::Pool>>(
        &mut self,
        now: u64,
        traffic: &mut Traffic<C, S>,
    ) -> Sample {
        let counts =
            [traffic.client.sent, traffic.sink.verdict().arrived, traffic.sender.verdict().arrived];
        let seconds = number(now - self.last) / 1e9;
        let [sent_pps, arrived_pps, returned_pps] = std::array::from_fn(|at| {
            let of = |counts: &[u64; 3]| counts.get(at).copied().unwrap_or_default();
            number(of(&counts) - of(&self.counts)) / seconds.max(1e-9)
        });
        let there_and_back = traffic.sender.latency_mut().end_sample();
        let one_way = traffic.sink.latency_mut().end_sample();
        let latency = if traffic.servers.is_some() { one_way } else { there_and_back };
        let at = number(now - self.start) / 1e9;
        let sample = Sample { at, sent_pps, arrived_pps, returned_pps, latency };
        (self.counts, self.last) = (counts, now);
        // On a grid: a late sample does not push those behind it.
        let next = ((now - self.start) / self.every + 1).saturating_mul(self.every);
        self.next = self.start.saturating_add(next);
        self.all.push(sample);
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_io::{Reserve, memory};

    /// A microsecond from look to look.
    struct Steps(u64);

    impl Clock for Steps {
        fn now(&mut self) -> u64 {
            self.0 += 1000;
            self.0
        }
    }

    #[test]
    fn what_a_link_did_not_take_counts_as_unsent_only() {
        let scenario = Scenario { sizes: vec![(100, 1)], ..crate::scenario::tests::scenario() };
        let reserve = Reserve::new(1024, 1518);
        // Nobody takes anything out at its other end.
        let (mut near, _far) = memory::link(1, 40, reserve.pool(), |_| 0);
        let near = near.pop().unwrap();
        let mut clock = Steps(0);
        let traffic = Traffic::start(scenario, near, None, reserve.pool(), &mut clock);
        let mut traffic: Traffic<_, memory::MemoryQueue> = traffic.unwrap();
        let plan = Plan {
            rate: None,
            duration: Duration::from_millis(1),
            warm_up: Duration::ZERO,
            drain: Duration::from_millis(1),
            burst: 32,
            sample: Duration::from_millis(1),
        };
        let trial = traffic.trial(&plan, &mut clock, |_| {}).unwrap();
        assert!(trial.sent > 0 && trial.unsent > 0, "{trial}");
        assert_eq!(trial.sent_octets, trial.sent * 100);
    }
}
