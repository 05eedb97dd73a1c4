//! One run: moves frames, time and minds, until everybody has finished and nothing is left.

use super::client::{Clients, host};
use super::judge::Judge;
use super::menu::{Entry, Menu, SERVERS};
use super::random::Random;
use super::rss::Spread;
use super::scene::Scene;
use super::server::{self, Server};
use super::wire::Wire;
use crate::rig::frames::{
    ARP_REPLY, L3, SOLICITED, advertisement, arp, ethernet, mac_at, read, read_arp, read_ndp,
    read_packet, trimmed,
};
use crate::rig::{
    CLIENT_MAC, LIMITS, Left, OUR_MACS, Plan, Rig, dest_mac, interface, network_with,
};
use core::net::IpAddr;
use rvs_model::ForwardMethod::Masquerade;
use rvs_plane::Limits;
use rvs_wire::mac::MacAddr;

/// Steps in which conversations begin, and in which they may still end.
const BUSY: u64 = 250;
const PATIENT: u64 = 4000;

pub struct World {
    scene: Scene,
    random: Random,
    rig: Rig,
    menu: Menu,
    clients: Clients,
    servers: Vec<Server>,
    to_director: [Wire; 2],
    to_clients: Wire,
    to_servers: Wire,
    judge: Judge,
    step: u64,
    /// Frames that a full queue of a card refused.
    refused: u64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub breaths: u64,
    pub frames: u64,
    pub handed: u64,
    pub evicted: u64,
    pub refused: u64,
    pub completed: usize,
    pub given_up: usize,
}

fn client_mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 3, last])
}

/// The Ethernet address of a client host: its own on the director's link, else the router's.
fn mac_of(address: IpAddr) -> MacAddr {
    let hosts = (0..64).filter(|number| number % 4 == 3);
    let last = |number: usize| u8::try_from(number).unwrap();
    let mut own =
        hosts.filter(|number| [false, true].iter().any(|v6| host(*v6, *number) == address));
    own.next().map_or(CLIENT_MAC, |number| client_mac(last(number)))
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scene = Scene::of(&mut random);
        let limits = Limits {
            conns4: scene.conns,
            conns6: scene.conns,
            services: 16,
            neighbors: scene.neighbors,
            burst: scene.burst,
            ..LIMITS
        };
        let plan = Plan {
            workers: scene.workers,
            limits,
            rss: scene.spread.hashes(),
            ring: scene.ring,
            frames: 3000,
            cache: 64,
        };
        let network = network_with(vec![interface(0, 0, 1500), interface(1, 0, 1500)], 0);
        let mut rig = Rig::new(network, &plan);
        rig.snapshot.tunables = scene.tunables;
        let menu = Menu::open(&mut random, &mut rig);
        Self {
            scene,
            random,
            rig,
            menu,
            clients: Clients::default(),
            servers: server::all(),
            to_director: [Wire::default(), Wire::default()],
            to_clients: Wire::default(),
            to_servers: Wire::default(),
            judge: Judge::new(scene.workers),
            step: 0,
            refused: 0,
        }
    }

    pub fn run(mut self) -> Outcome {
        while self.step < BUSY {
            self.step(true);
        }
        while self.step < PATIENT && !self.is_quiet() {
            self.step(false);
        }
        assert!(self.is_quiet(), "still talking after {PATIENT} steps: {:?}", self.clients.talks);
        self.expire();
        let counts = self.rig.counts();
        let outcome = Outcome {
            breaths: self.judge.looks,
            frames: counts.received,
            handed: counts.handed,
            evicted: counts.evicted,
            refused: self.refused,
            completed: self.clients.completed,
            given_up: self.clients.given_up,
        };
        let Self { scene, rig, menu, .. } = self;
        let needs_help = |entry: &Entry| entry.removed || entry.persists.is_some();
        if scene.spread == Spread::ByClient && !menu.all.iter().any(needs_help) {
            assert_eq!(outcome.handed, 0, "cards that know the rule need no help");
        }
        if scene.calm {
            assert_eq!(outcome.given_up, 0, "{outcome:?} {:?}", rig.drops());
        }
        rig.finish();
        outcome
    }

    fn is_quiet(&self) -> bool {
        self.clients.talks.is_empty()
            && self.to_director.iter().all(Wire::is_empty)
            && self.to_clients.is_empty()
            && self.to_servers.is_empty()
            && self.rig.far.iter().all(|far| far.in_flight() == 0)
    }

    fn step(&mut self, busy: bool) {
        self.step += 1;
        if self.step.is_multiple_of(4) {
            self.rig.now += 1;
        }
        if busy && self.thousandth(self.scene.jumps) {
            self.rig.now += u32::from(self.random.octet()) * 4;
        }
        if busy && self.thousandth(self.scene.changes) {
            self.menu.change(&mut self.random, &mut self.rig);
        }
        if busy && self.thousandth(self.scene.mutes) {
            let number = self.random.below(SERVERS.into());
            self.servers[number].mute ^= true;
        }
        self.arrive();
        for _ in 0..=self.random.below(self.scene.workers.into()) {
            let worker = self.random.below(self.scene.workers.into());
            self.judge.breathe(&mut self.rig, worker, &self.menu);
        }
        if !busy || self.random.chance(self.scene.collects) {
            self.collect();
        }
        self.deliver();
        self.speak(busy);
    }

    fn thousandth(&mut self, count: usize) -> bool {
        self.random.below(1000) < count
    }

    /// Frames reach the director's cards.
    fn arrive(&mut self) {
        for (wire, far) in self.to_director.iter_mut().zip(&mut self.rig.far) {
            while let Some(frame) = wire.take(self.step) {
                self.refused += u64::from(far.inject(&frame).is_err());
            }
        }
    }

    /// Frames leave the director's cards, and are judged.
    fn collect(&mut self) {
        let mut all = self.rig.collect();
        // What clients get may follow from what servers get, and only its end the other way round.
        for left in all.iter().filter(|left| left.link == 0 && !is_discovery(&left.frame)) {
            self.judge.foresee(&self.menu, left);
        }
        all.sort_by_key(|left| core::cmp::Reverse(left.link));
        for left in all {
            if let Some(answer) = self.neighbor_answer(&left) {
                self.put_towards_director(left.link, &answer);
            } else if is_discovery(&left.frame) {
            } else if left.link == 1 {
                self.judge.towards_server(&self.rig, &self.menu, &left);
                let quality = self.scene.quality;
                self.to_servers.put(self.step, quality, &mut self.random, &left.frame);
            } else if self.judge.towards_client(&self.rig, &self.menu, &left).is_some() {
                let quality = self.scene.quality;
                self.to_clients.put(self.step, quality, &mut self.random, &left.frame);
            }
        }
        self.judge.emptied(&self.rig, &self.menu);
    }

    /// What hosts answer to questions about their addresses.
    fn neighbor_answer(&self, left: &Left) -> Option<Vec<u8>> {
        if left.link == 1 {
            let (number, answer) = server::neighbor_answer(&left.frame)?;
            return Some(answer).filter(|_| !self.servers[usize::from(number)].mute);
        }
        if let Some(asked) = read_arp(&left.frame) {
            let mac = mac_of(asked.target.1.into());
            let own = (mac, asked.target.1);
            return (mac != CLIENT_MAC).then(|| arp(asked.sender.0, ARP_REPLY, own, asked.sender));
        }
        let asked = read_ndp(&left.frame)?;
        let mac = mac_of(asked.target.into());
        let to = (asked.mac?, asked.source);
        (mac != CLIENT_MAC).then(|| advertisement((mac, asked.target), to, SOLICITED | 0x20))
    }

    fn put_towards_director(&mut self, link: usize, frame: &[u8]) {
        let quality = self.scene.quality;
        self.to_director[link].put(self.step, quality, &mut self.random, frame);
    }

    /// Packets reach clients and servers, who answer.
    fn deliver(&mut self) {
        while let Some(frame) = self.to_servers.take(self.step) {
            let number = mac_at(&frame, 0).0[5] - 0x11;
            let outer = read(&frame);
            let tunnelled = matches!(outer.protocol, 4 | 41);
            let seen = if tunnelled {
                read_packet(&outer.data)
            } else {
                read_packet(trimmed(&frame[L3..]))
            };
            let service = self.menu.service_of(seen.protocol, seen.destination).unwrap();
            for packet in self.servers[usize::from(number)].hear(&seen) {
                if self.menu.all[service].method == Masquerade {
                    self.put_towards_director(1, &ethernet(OUR_MACS[1], dest_mac(number), &packet));
                } else {
                    let frame = ethernet(CLIENT_MAC, dest_mac(number), &packet);
                    let quality = self.scene.quality;
                    self.to_clients.put(self.step, quality, &mut self.random, &frame);
                }
            }
        }
        while let Some(frame) = self.to_clients.take(self.step) {
            let seen = read(&frame);
            let service = self.menu.service_of(seen.protocol, seen.source).unwrap();
            for packet in self.clients.hear(&seen, service, self.step) {
                self.client_sends(&packet);
            }
        }
    }

    fn client_sends(&mut self, packet: &[u8]) {
        let from = mac_of(read_packet(packet).source.ip());
        self.put_towards_director(0, &ethernet(OUR_MACS[0], from, packet));
    }

    fn speak(&mut self, busy: bool) {
        for packet in self.clients.nudge(self.step) {
            self.client_sends(&packet);
        }
        let room = self.scene.talks.saturating_sub(self.clients.talks.len());
        for _ in 0..if busy { room.min(4) } else { 0 } {
            let grain = (self.scene.hosts, self.scene.ports);
            let calm = self.scene.calm;
            let packet = self.clients.begin(&mut self.random, &self.menu, grain, calm, self.step);
            if let Some(packet) = packet {
                self.client_sends(&packet);
            }
        }
    }

    /// Lets every connection time out.
    fn expire(&mut self) {
        for _ in 0..450 {
            self.rig.now += 20;
            for worker in 0..usize::from(self.scene.workers) {
                self.rig.workers[worker].breathe(self.rig.now);
            }
            self.rig.assert_conservation();
            self.rig.discard();
        }
        assert_eq!(self.rig.conns(), 0, "connections after all timeouts");
        assert_eq!(self.rig.counts().held, 0);
        for shared in &self.rig.shared {
            for (id, line) in shared.lines.iter().enumerate() {
                assert_eq!(line.load().total(), 0, "load of destination {id}");
                assert_eq!(line.templates(), 0, "templates to destination {id}");
            }
        }
    }
}

fn is_discovery(frame: &[u8]) -> bool {
    read_arp(frame).is_some() || read_ndp(frame).is_some()
}
