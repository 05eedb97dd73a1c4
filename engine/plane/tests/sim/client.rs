//! Clients: conversations that try again, end in every way that TCP has, and use ports again.

use super::menu::Menu;
use super::random::Random;
use super::server::{message, read_message, talk_of};
use crate::rig::frames::{ACK, FIN, RST, SYN, Seen, Segment, TCP, udp};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::HashMap;

/// Steps before something is said again, and how often.
const PATIENCE: u64 = 24;
const TRIES: u8 = 8;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// SYN sent.
    Opening,
    /// So many messages answered.
    Talking(u8),
    /// FIN sent.
    Closing,
}

/// How a conversation ends once everything is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Close,
    Reset,
    Vanish,
}

#[derive(Clone, Copy, Debug)]
pub struct Talk {
    pub id: u32,
    pub service: usize,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    protocol: u8,
    stage: Stage,
    messages: u8,
    octets: usize,
    end: End,
    again: u64,
    tries: u8,
}

#[derive(Debug, Default)]
pub struct Clients {
    /// Conversations that go on, by client and service: one at a time.
    pub talks: HashMap<(SocketAddr, usize), Talk>,
    next: u32,
    pub completed: usize,
    pub given_up: usize,
}

/// A host behind the router, or every fourth one on the director's own link.
pub fn host(v6: bool, number: usize) -> IpAddr {
    let last = 10 + u8::try_from(number).unwrap();
    match (v6, number % 4 == 3) {
        (false, false) => Ipv4Addr::new(203, 0, 113, last).into(),
        (false, true) => Ipv4Addr::new(198, 51, 100, last).into(),
        (true, false) => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, last.into()).into(),
        (true, true) => {
            Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x100 + u16::from(last)).into()
        }
    }
}

impl Talk {
    fn say(&self, flags: u8, data: &[u8]) -> Vec<u8> {
        if self.protocol != TCP {
            return udp(self.client, self.vip, data);
        }
        let sequence = self.id << 12;
        Segment { from: self.client, to: self.vip, sequence, acknowledgment: sequence, flags, data }
            .packet()
    }

    /// What is to be said now, for the first time or again.
    fn speak(&self) -> Vec<u8> {
        match self.stage {
            Stage::Opening => self.say(SYN, b""),
            Stage::Talking(number) => self.say(ACK, &message(self.id, number, self.octets)),
            Stage::Closing => self.say(FIN | ACK, b""),
        }
    }
}

impl Clients {
    /// Begins a conversation, if the host has a port that is free.
    pub fn begin(
        &mut self,
        random: &mut Random,
        menu: &Menu,
        (hosts, ports): (usize, u16),
        calm: bool,
        now: u64,
    ) -> Option<Vec<u8>> {
        let service = random.below(menu.all.len());
        let entry = &menu.all[service];
        let port = u16::try_from(random.below(ports.into())).unwrap();
        // Ports of their own for each service: see `contract.rs` for what shared ones come to.
        let port = 1024 + u16::try_from(service).unwrap() * 64 + port;
        let client = SocketAddr::new(host(entry.v6(), random.below(hosts)), port);
        if self.talks.contains_key(&(client, service)) {
            return None;
        }
        self.next += 1;
        let talk = Talk {
            id: self.next,
            service,
            client,
            vip: entry.vip,
            protocol: entry.protocol,
            stage: if entry.protocol == TCP { Stage::Opening } else { Stage::Talking(0) },
            messages: random.octet() % 5,
            octets: random.one_of(&[0, 1, 100, 1200]),
            end: match random.below(10) {
                _ if calm => End::Close,
                0 | 1 => End::Reset,
                2 => End::Vanish,
                _ => End::Close,
            },
            again: now + PATIENCE,
            tries: 0,
        };
        self.talks.insert((client, service), talk);
        Some(talk.speak())
    }

    /// Says again what was not answered; gives up what never was.
    pub fn nudge(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut said = Vec::new();
        let mut over = Vec::new();
        let mut keys: Vec<_> = self.talks.keys().copied().collect();
        keys.sort();
        for key in keys {
            let talk = self.talks.get_mut(&key).unwrap();
            if talk.again > now {
                continue;
            }
            talk.tries += 1;
            talk.again = now + PATIENCE * u64::from(1 + talk.tries);
            if talk.tries < TRIES {
                said.push(talk.speak());
            } else {
                over.push(key);
            }
        }
        for key in over {
            self.talks.remove(&key);
            self.given_up += 1;
        }
        said
    }

    /// The client's answer to a segment or datagram from its VIP.
    pub fn hear(&mut self, seen: &Seen, service: usize, now: u64) -> Vec<Vec<u8>> {
        let key = (seen.destination, service);
        let of = if seen.protocol == TCP {
            talk_of(if seen.flags & RST != 0 {
                seen.sequence.max(seen.acknowledgment)
            } else {
                seen.sequence
            })
        } else {
            read_message(&seen.data).0
        };
        let Some(talk) = self.talks.get_mut(&key).filter(|talk| talk.id == of) else {
            // Nobody waits for it any more. TCP says so, and acknowledges a late FIN.
            let is_late = seen.protocol == TCP && seen.flags & (RST | ACK) == ACK;
            if !is_late || !seen.data.is_empty() {
                return vec![];
            }
            let flags = if seen.flags & FIN != 0 { ACK } else { RST };
            let (from, to, sequence) = (seen.destination, seen.source, of << 12);
            let answer = Segment { from, to, sequence, acknowledgment: sequence, flags, data: b"" };
            return vec![answer.packet()];
        };
        if seen.flags & RST != 0 {
            self.talks.remove(&key);
            self.given_up += 1;
            return vec![];
        }
        let before = talk.stage;
        let mut said = Vec::new();
        match talk.stage {
            Stage::Opening if seen.flags & (SYN | ACK) == SYN | ACK => {
                talk.stage = Stage::Talking(0);
                said.push(talk.say(ACK, b""));
            }
            Stage::Talking(number) if !seen.data.is_empty() => {
                let (_, answered) = read_message(&seen.data);
                if answered == number {
                    assert_eq!(seen.data.len(), 5 + talk.octets, "the answer is the question");
                    talk.stage = Stage::Talking(number + 1);
                }
            }
            Stage::Closing if seen.flags & FIN != 0 => {
                said.push(talk.say(ACK, b""));
                self.talks.remove(&key);
                self.completed += 1;
                return said;
            }
            _ => {}
        }
        if talk.stage == before {
            return said;
        }
        (talk.again, talk.tries) = (now + PATIENCE, 0);
        if matches!(talk.stage, Stage::Talking(number) if number >= talk.messages) {
            let end = talk.end;
            if talk.protocol != TCP || end == End::Vanish {
                self.talks.remove(&key);
                self.completed += 1;
                return said;
            }
            if end == End::Reset {
                said.push(talk.say(RST | ACK, b""));
                self.talks.remove(&key);
                self.completed += 1;
                return said;
            }
            talk.stage = Stage::Closing;
        }
        said.push(talk.speak());
        said
    }
}
