//! Servers: answer what they are asked, know nothing of the director.

use super::menu::SERVERS;
use crate::rig::frames::{
    ACK, ARP_REPLY, ARP_REQUEST, FIN, RST, SOLICITED, SYN, Seen, Segment, TCP, UDP, advertisement,
    arp, read_arp, read_ndp, udp,
};
use crate::rig::{dest_ip, dest_mac};
use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;

/// Who talks to whom, as the server sees it.
type Session = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
pub struct Server {
    /// Conversations by their ends.
    sessions: HashMap<Session, u32>,
    pub mute: bool,
}

pub fn all() -> Vec<Server> {
    (0..SERVERS).map(|_| Server::default()).collect()
}

/// The number of a conversation in a sequence number that belongs to it.
pub fn talk_of(sequence: u32) -> u32 {
    sequence >> 12
}

/// Message `number` of a conversation.
pub fn message(talk: u32, number: u8, octets: usize) -> Vec<u8> {
    let mut data = talk.to_be_bytes().to_vec();
    data.push(number);
    data.resize(5 + octets, number);
    data
}

/// Conversation and number of a message, which arrived as it was sent.
pub fn read_message(data: &[u8]) -> (u32, u8) {
    let talk = u32::from_be_bytes(data[..4].try_into().unwrap());
    assert!(data[5..].iter().all(|octet| *octet == data[4]), "{data:?}");
    (talk, data[4])
}

impl Server {
    /// Answers to a packet that came to this server; each an IP packet.
    pub fn hear(&mut self, seen: &Seen) -> Vec<Vec<u8>> {
        let (client, own) = (seen.source, seen.destination);
        match seen.protocol {
            TCP => self.tcp(seen, client, own),
            UDP => vec![udp(own, client, &seen.data)],
            protocol => panic!("protocol {protocol} at a server"),
        }
    }

    fn tcp(&mut self, seen: &Seen, client: SocketAddr, own: SocketAddr) -> Vec<Vec<u8>> {
        let talk = talk_of(seen.sequence);
        let say = |flags: u8, data: &[u8]| {
            let sequence = talk << 12;
            Segment { from: own, to: client, sequence, acknowledgment: sequence, flags, data }
                .packet()
        };
        let known = self.sessions.get(&(client, own)).copied();
        match seen.flags {
            flags if flags & RST != 0 => {
                self.sessions.remove(&(client, own));
                vec![]
            }
            flags if flags & SYN != 0 => {
                if known.is_some_and(|known| known > talk) {
                    return vec![];
                }
                self.sessions.insert((client, own), talk);
                vec![say(SYN | ACK, b"")]
            }
            flags if known != Some(talk) => {
                if flags & ACK != 0 {
                    vec![say(RST, b"")]
                } else {
                    vec![]
                }
            }
            flags if flags & FIN != 0 => {
                // Some more to say after the client has finished, then the end.
                let last = message(talk, 0xff, 3);
                vec![say(ACK, &last), say(FIN | ACK, b"")]
            }
            _ if seen.data.is_empty() => vec![],
            _ => {
                let (of, _) = read_message(&seen.data);
                assert_eq!(of, talk, "data of the conversation that it came in");
                vec![say(ACK, &seen.data)]
            }
        }
    }
}

/// The server whose address this is.
pub fn number_of(address: IpAddr) -> Option<u8> {
    (0..SERVERS).find(|number| [false, true].iter().any(|v6| dest_ip(*v6, *number) == address))
}

/// What a server's host answers to a question about its addresses.
pub fn neighbor_answer(frame: &[u8]) -> Option<(u8, Vec<u8>)> {
    if let Some(asked) = read_arp(frame) {
        let number = number_of(asked.target.1.into())?;
        let own = (dest_mac(number), asked.target.1);
        return (asked.operation == ARP_REQUEST)
            .then(|| (number, arp(asked.sender.0, ARP_REPLY, own, asked.sender)));
    }
    let asked = read_ndp(frame)?;
    let number = number_of(asked.target.into())?;
    let own = (dest_mac(number), asked.target);
    let to = (asked.mac?, asked.source);
    (asked.kind == 135).then(|| (number, advertisement(own, to, SOLICITED | 0x20)))
}
