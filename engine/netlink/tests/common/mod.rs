//! Requests as clients write them, and a table without an engine.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall stop"
)]

use rvs_api::{Outcome, Request, ServiceAttributes, ServiceKey};
use rvs_control::state::{self, Limits, NoTraffic};
use rvs_netlink::{FAMILY_ID, Table};

pub(crate) struct State(pub(crate) state::State);

impl State {
    pub(crate) fn new() -> Self {
        let limits = Limits { services: 64, dests: 256, conns: 4096 };
        Self(state::State::new(limits).with_devices(["lan".to_owned()]).accept_everything())
    }
}

impl Table for State {
    fn service(&self, service: &ServiceKey) -> Option<ServiceAttributes> {
        Some(self.0.service(service)?.attributes().clone())
    }

    fn carry_out(&mut self, request: Request) -> Outcome {
        self.0.apply(request, &NoTraffic)
    }
}

/// A message being written.
pub(crate) struct Wire(Vec<u8>);

impl Wire {
    pub(crate) fn new(kind: u16, flags: u16, seq: u32, command: u8) -> Self {
        let mut octets = vec![0; 4];
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend(seq.to_ne_bytes());
        octets.extend(4711_u32.to_ne_bytes());
        octets.extend([command, 1, 0, 0]);
        Self(octets)
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.0.extend(attribute(kind, value));
        self
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap();
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0.clone()
    }
}

pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut octets = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

fn word(value: u32) -> [u8; 4] {
    value.to_ne_bytes()
}

/// 203.0.113.1:80 over TCP.
pub(crate) fn key() -> Vec<u8> {
    let (family, tcp) = (2_u16.to_ne_bytes(), 6_u16.to_ne_bytes());
    [
        attribute(1, &family),
        attribute(2, &tcp),
        attribute(3, &[203, 0, 113, 1]),
        attribute(4, &80_u16.to_be_bytes()),
    ]
    .concat()
}

/// The same with what it shall be.
pub(crate) fn full(scheduler: &[u8]) -> Vec<u8> {
    [
        key(),
        attribute(6, scheduler),
        attribute(7, &[word(0), word(u32::MAX)].concat()),
        attribute(8, &word(0)),
        attribute(9, &[255; 4]),
    ]
    .concat()
}

/// 192.0.2.11:80 by masquerading, of this weight.
pub(crate) fn dest(weight: u32) -> Vec<u8> {
    [
        attribute(1, &[192, 0, 2, 11]),
        attribute(2, &80_u16.to_be_bytes()),
        attribute(3, &word(0)),
        attribute(4, &word(weight)),
        attribute(5, &word(0)),
        attribute(6, &word(0)),
    ]
    .concat()
}

pub(crate) fn daemon(interface: &[u8]) -> Vec<u8> {
    [attribute(1, &word(1)), attribute(2, interface), attribute(3, &word(7))].concat()
}

/// A request with an acknowledgement.
pub(crate) fn ask(command: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    asks(5, command, attributes)
}

pub(crate) fn asks(flags: u16, command: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut wire = Wire::new(FAMILY_ID, flags, u32::from(command), command);
    for (kind, value) in attributes {
        wire.attribute(*kind, value);
    }
    wire.finish()
}

/// One of each kind.
pub(crate) fn requests() -> Vec<Vec<u8>> {
    let (service, of_dest) = (vec![(1, full(b"wlc\0"))], vec![(1, key()), (2, dest(3))]);
    let mut all = vec![Wire::new(16, 5, 1, 3).attribute(2, b"IPVS\0").finish()];
    all.extend([1, 2, 3, 4, 16].map(|command| ask(command, &service)));
    all.extend([5, 6, 7].map(|command| ask(command, &of_dest)));
    all.extend([4, 8, 11].map(|command| asks(0x301, command, &service)));
    all.extend([9, 10].map(|command| ask(command, &[(3, daemon(b"lan\0"))])));
    all.extend([13, 15, 16, 17].map(|command| ask(command, &[])));
    all.push(ask(12, &[(4, word(10).to_vec()), (5, word(0).to_vec()), (6, word(30).to_vec())]));
    all.extend([1, 2, 3].map(|command| {
        let name = b"net/ip_vs_conn\0";
        Wire::new(FAMILY_ID + 1, 5, 3, command).attribute(1, name).finish()
    }));
    all
}

/// Length, kind, flags, sequence number and port of a message.
pub(crate) fn header(message: &[u8]) -> (usize, u16, u16, u32, u32) {
    let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_ne_bytes(message[at..at + 2].try_into().unwrap());
    (usize::try_from(word(0)).unwrap(), half(4), half(6), word(8), word(12))
}

/// Whether all messages of an answer say what they answer.
pub(crate) fn is_answer_to(answer: &[u8], request: &[u8]) -> bool {
    let mut rest = answer;
    while !rest.is_empty() {
        let (len, _, _, seq, port) = header(rest);
        let mut asked = request;
        let mut known = false;
        while asked.len() >= 16 {
            let (len, _, _, other_seq, other_port) = header(asked);
            known |= (seq, port) == (other_seq, other_port);
            let next = len.next_multiple_of(4).clamp(16, asked.len());
            asked = &asked[next..];
        }
        if !known {
            return false;
        }
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    true
}
