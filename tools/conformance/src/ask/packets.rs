//! Cases of packets: all fields and lengths that forwarding may touch, ICMP errors about what was
//! forwarded, fragments; every octet that comes out is compared.
//!
//! rvs plays along, so that errors are about packets that left.

use super::author::{client, server, vip};
use crate::golden::Golden;
use crate::judge::{hex, leaving};
use crate::packet::{self, Header, finish_header, set_word};
use crate::scene::{Scene, Set, Uncovered};
use crate::stage::Side;
use crate::tally::Failure;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rvs_model::ForwardMethod;
use rvs_wire::flow::protocol;
use rvs_wire::tcp::{self, flag};
use rvs_wire::{checksum, ipv4, udp};
use serde_json::json;

/// Packets a case.
const PACKETS: u32 = 40;
/// Conversations a case: their clients' ports count up from [`FIRST_PORT`].
const TALKS: u16 = 4;
const FIRST_PORT: u16 = 33_000;
/// What data consists of.
const DATA: u8 = b'd';
/// The identification of a datagram in fragments, from here.
const FIRST_FRAGMENTED: u16 = 0x3000;
/// The next header of an IPv6 fragment (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;
/// Octets of an IPv4 error that quotes headers of a tunnel and of what is in it.
const SHORT: usize = 28 + 60;
/// IPv4's flag of a fragment that others follow.
const MORE: u16 = 0x2000;

/// Tunnels, as `ipvsadm` says them.
const TUNNELS: [&str; 8] = [
    "",
    "--tun-type gre",
    "--tun-type gre --tun-csum",
    "--tun-type gue --tun-port 6080",
    "--tun-type gue --tun-port 6080 --tun-csum",
    "--tun-type gue --tun-port 6080 --tun-remcsum",
    "--tun-type gre --tun-nocsum",
    "--tun-type gue --tun-port 6080 --tun-nocsum",
];

/// A conversation.
#[derive(Clone, Debug)]
struct Talk {
    client: SocketAddr,
    vip: SocketAddr,
    is_udp: bool,
    /// The last packet that left towards a server.
    forwarded: Option<Vec<u8>>,
    /// The last packet that left towards the client.
    returned: Option<Vec<u8>>,
    /// Where its server answers from, if answers come this way.
    server: Option<SocketAddr>,
}

struct Writer {
    dice: fastrand::Rng,
    scene: Box<Scene>,
    case: Golden,
    talks: Vec<Talk>,
    is_v6: bool,
    mtu: u32,
    method: ForwardMethod,
    fragmented: u16,
    /// Whether it was told what the path to a server carries.
    is_told: bool,
}

/// The case that `seed` names.
///
/// # Errors
///
/// The stage cannot be set.
pub(super) fn case(seed: u64) -> Result<Result<Golden, Uncovered>, Failure> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let is_v6 = dice.u32(0..3) == 0;
    let method = *dice.choice(&["-m", "-m", "-g", "-i", "-i", "-i"]).unwrap_or(&"-m");
    let tunnel = if method == "-i" { *dice.choice(&TUNNELS).unwrap_or(&"") } else { "" };
    let is_mixed = method == "-i" && dice.u32(0..4) == 0;
    // A tunnel of or over IPv6 has room for what every IPv6 link carries, or Linux drops all.
    let is_about_v6 = is_v6 || is_mixed;
    let mtus = if is_about_v6 { [1500, 1500, 1400, 1340] } else { [1500, 1500, 1400, 1300] };
    let mtu = *dice.choice(&mtus).unwrap_or(&1500);
    let mut setup = Vec::new();
    for (option, port, at) in [("-t", 80, 8080), ("-u", 53, 5353)] {
        let service = format!("{option} {}", SocketAddr::new(vip(0, is_v6), port));
        let at = if method == "-m" { at } else { port };
        setup.push(format!("-A {service} -s rr"));
        for number in 0..dice.u32(1..3) {
            let rip = SocketAddr::new(server(number, is_v6 != is_mixed), at);
            setup.push(format!("-a {service} -r {rip} {method} -w 1 {tunnel}").trim().to_owned());
        }
    }
    let mut sysctl = serde_json::Map::new();
    for (name, value) in [("pmtu_disc", 0), ("nat_icmp_send", 1), ("schedule_icmp", 1)] {
        if dice.u32(0..4) == 0 {
            sysctl.insert(name.to_owned(), json!(value));
        }
    }
    let case = Golden {
        id: format!("packets-{seed}"),
        category: "packets".to_owned(),
        sysctl: Some(sysctl.into_iter().collect()),
        setup: Some(setup),
        events: Vec::new(),
        more: [
            ("schema".to_owned(), json!("ipvs-golden/1")),
            ("mtu_rs_link".to_owned(), json!(mtu)),
        ]
        .into_iter()
        .collect(),
    };
    let scene = match Scene::set(&case)? {
        Set::Up(scene) => scene,
        Set::Beyond(reason) => return Ok(Err(reason)),
    };
    let talks = (0..TALKS).zip(0..).map(|(number, host)| {
        let is_udp = number % 2 == 1;
        Talk {
            client: client(host, FIRST_PORT + number, is_v6),
            vip: SocketAddr::new(vip(0, is_v6), if is_udp { 53 } else { 80 }),
            is_udp,
            forwarded: None,
            returned: None,
            server: None,
        }
    });
    let mut writer = Writer {
        talks: talks.collect(),
        dice,
        scene,
        case,
        is_v6,
        mtu,
        method: match method {
            "-m" => ForwardMethod::Masquerade,
            "-g" => ForwardMethod::Direct,
            _ => ForwardMethod::Tunnel,
        },
        fragmented: FIRST_FRAGMENTED,
        is_told: false,
    };
    writer.write()?;
    Ok(Ok(writer.case))
}

impl Writer {
    fn write(&mut self) -> Result<(), Failure> {
        for number in 0..usize::from(TALKS) {
            self.client_sends(number, flag::SYN)?;
            self.server_answers(number, flag::SYN | flag::ACK)?;
            self.client_sends(number, flag::ACK)?;
        }
        for _ in 0..PACKETS {
            let number = self.dice.usize(0..usize::from(TALKS));
            match self.dice.u32(0..20) {
                0..=5 => self.client_sends(number, flag::ACK)?,
                6..=9 => self.server_answers(number, flag::ACK)?,
                10..=14 => self.error_from_servers(number)?,
                15 | 16 => self.error_from_clients(number)?,
                17 | 18 => self.fragments(number)?,
                _ => self.stray()?,
            }
        }
        Ok(())
    }

    fn once_in(&mut self, of: u32) -> bool {
        self.dice.u32(0..of) == 0
    }

    fn header(&mut self) -> Header {
        let tos = *self.dice.choice(&[0, 0, 0x10, 0xb8, 1, 2, 3, 0x29, 0x23, 0xc0]).unwrap_or(&0);
        let hops = *self.dice.choice(&[64, 64, 64, 64, 63, 255, 128, 2, 2, 1]).unwrap_or(&64);
        let identification = if self.once_in(5) { 0 } else { self.dice.u16(1..FIRST_FRAGMENTED) };
        Header { tos, hops, identification, dont_fragment: self.dice.bool() }
    }

    /// Octets of data: few, or about as many as one of the links carries, with or without a tunnel.
    fn data(&mut self) -> Vec<u8> {
        let octets = if self.once_in(3) {
            let mtu = *self.dice.choice(&[self.mtu, 1500]).unwrap_or(&1500);
            let headers = if self.is_v6 { 60 } else { 40 };
            let tunnel = *self.dice.choice(&[0, 20, 24, 28, 32, 36, 40, 44, 48, 52]).unwrap_or(&0);
            let near = mtu - headers - tunnel + 2 - self.dice.u32(0..5);
            near.min(1500 - headers)
        } else {
            *self.dice.choice(&[0, 0, 1, 2, 3, 17, 100, 536]).unwrap_or(&0)
        };
        (0..octets).map(|_| DATA).collect()
    }

    fn segment(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        is_udp: bool,
        flags: u8,
        data: &[u8],
    ) -> Vec<u8> {
        let number = if is_udp { protocol::UDP } else { protocol::TCP };
        let octets = data.len() + if is_udp { udp::HEADER_LEN } else { tcp::HEADER_LEN };
        let pseudo = pseudo(from.ip(), to.ip(), number, octets);
        let mut segment = if is_udp {
            udp::header(from.port(), to.port(), data, pseudo).to_vec()
        } else {
            let header = tcp::Header {
                source_port: from.port(),
                destination_port: to.port(),
                sequence: 1000,
                acknowledgment: if flags & flag::ACK == 0 { 0 } else { 2000 },
                flags,
                window: 8192,
            };
            header.octets(data, pseudo).to_vec()
        };
        segment.extend_from_slice(data);
        let sum = if is_udp { 6..8 } else { 16..18 };
        let is_none = is_udp && !self.is_v6 && self.once_in(8);
        let is_wrong = self.once_in(16);
        if let Some(sum) = segment.get_mut(sum).filter(|_| is_none || is_wrong) {
            // None, or a wrong one.
            if is_none { sum.fill(0) } else { sum.reverse() }
        }
        segment
    }

    fn client_sends(&mut self, number: usize, flags: u8) -> Result<(), Failure> {
        let Some(Talk { client, vip, is_udp, .. }) = self.talks.get(number).cloned() else {
            return Ok(());
        };
        let data = if flags == flag::SYN { Vec::new() } else { self.data() };
        let first =
            flags == flag::SYN || self.talks.get(number).is_some_and(|it| it.forwarded.is_none());
        let segment = self.segment(client, vip, is_udp, flags, &data);
        let header = if first {
            Header { tos: 0, hops: 64, identification: 7, dont_fragment: true }
        } else {
            self.header()
        };
        let options = if self.once_in(16) { [1, 1, 1, 0].as_slice() } else { &[] };
        let packet = ip(client.ip(), vip.ip(), header, options, protocol(is_udp), &segment);
        let note = format!("client {number}, flags {flags:#x}, {} octets", packet.len());
        self.give(Side::Client, &note, &packet)
    }

    fn server_answers(&mut self, number: usize, flags: u8) -> Result<(), Failure> {
        let Some(Talk { client, server: Some(server), is_udp, .. }) =
            self.talks.get(number).cloned()
        else {
            return Ok(());
        };
        let data = self.data();
        let segment = self.segment(server, client, is_udp, flags, &data);
        let header = self.header();
        let packet = ip(server.ip(), client.ip(), header, &[], protocol(is_udp), &segment);
        let note = format!("answer to client {number}, flags {flags:#x}, {} octets", packet.len());
        self.give(Side::Servers, &note, &packet)
    }

    /// A server, or a router on the way to it, reports an error about a packet that was forwarded.
    fn error_from_servers(&mut self, number: usize) -> Result<(), Failure> {
        let about = self.talks.get(number).and_then(|talk| talk.forwarded.clone());
        let Some(about) = about else { return Ok(()) };
        let Some(look) = packet::look(&about) else { return Ok(()) };
        let router: IpAddr = match look.destination {
            IpAddr::V4(_) => Ipv4Addr::new(10, 1, 0, 250).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfa).into(),
        };
        let from = if self.once_in(3) { look.destination } else { router };
        if self.method == ForwardMethod::Direct {
            return Ok(()); // It would go to the client by itself.
        }
        // What is told of paths is heeded here and not there, or the other way round, where the tunnel
        // is not of IPv4 in IPv4, where too little is quoted, and where it is told once more.
        let is_told_apart = self.method == ForwardMethod::Tunnel
            && (self.is_told || self.is_v6 || look.destination.is_ipv6());
        let mut error = self.error(from, look.source, &about);
        let least = if self.method == ForwardMethod::Tunnel { SHORT.min(about.len()) } else { 0 };
        while is_about_mtu(&error) && (is_told_apart || error.len() < least) {
            error = self.error(from, look.source, &about);
        }
        self.is_told |= is_about_mtu(&error);
        self.give(Side::Servers, &format!("error about client {number}'s last packet"), &error)
    }

    /// A client, or a router on the way to it, reports an error about an answer.
    fn error_from_clients(&mut self, number: usize) -> Result<(), Failure> {
        let Some(talk) = self.talks.get(number).cloned() else { return Ok(()) };
        let about = if self.method == ForwardMethod::Masquerade {
            talk.returned
        } else {
            let segment = self.segment(talk.vip, talk.client, talk.is_udp, flag::ACK, b"answer");
            let header = self.header();
            let (from, to) = (talk.vip.ip(), talk.client.ip());
            Some(ip(from, to, header, &[], protocol(talk.is_udp), &segment))
        };
        let Some(about) = about else { return Ok(()) };
        let router: IpAddr = match talk.client {
            SocketAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            SocketAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1).into(),
        };
        let from = if self.once_in(3) { talk.client.ip() } else { router };
        let error = self.error(from, talk.vip.ip(), &about);
        self.give(Side::Client, &format!("error about an answer to client {number}"), &error)
    }

    /// An ICMP error about the packet `about`, quoted in part or whole.
    fn error(&mut self, from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
        let header = self.header();
        let is_v6 = from.is_ipv6();
        let (kind, code) = *if is_v6 {
            self.dice.choice(&[(2, 0), (2, 0), (1, 0), (1, 3), (1, 4), (3, 0), (4, 1), (4, 0)])
        } else {
            self.dice.choice(&[
                (3, 4),
                (3, 4),
                (3, 0),
                (3, 1),
                (3, 2),
                (3, 3),
                (3, 13),
                (11, 0),
                (11, 1),
                (12, 0),
                (4, 0),
                (5, 1),
            ])
        }
        .unwrap_or(&(3, 1));
        let rest: [u8; 4] = match (is_v6, kind) {
            (true, 2) => self.dice.u32(1280..1480).to_be_bytes(),
            (false, 3) if code == 4 => self.dice.u32(576..1480).to_be_bytes(),
            _ => [0; 4],
        };
        let least = if is_v6 { 48 } else { 28 };
        let octets = *self.dice.choice(&[least, least, 68, 548, 1232, 4]).unwrap_or(&28);
        let most = if is_v6 { 1232 } else { 548 };
        let quoted = about.get(..octets.clamp(least, most)).unwrap_or(about);
        let mut message = [&[kind, code, 0, 0], rest.as_slice(), quoted].concat();
        let number = if is_v6 { protocol::ICMPV6 } else { protocol::ICMP };
        let pseudo = if is_v6 { pseudo(from, to, number, message.len()) } else { 0 };
        let mut sum = checksum::checksum(&message, pseudo);
        if self.once_in(20) {
            sum.reverse();
        }
        if let Some(place) = message.get_mut(2..4) {
            place.copy_from_slice(&sum);
        }
        ip(from, to, header, &[], number, &message)
    }

    /// A datagram of a client in two or three fragments.
    fn fragments(&mut self, number: usize) -> Result<(), Failure> {
        let Some(talk) = self.talks.get(number).filter(|talk| talk.is_udp).cloned() else {
            return Ok(());
        };
        let from_server = self.dice.bool();
        let (from, to, side) = match talk.server.filter(|_| from_server) {
            Some(server) => (server, talk.client, Side::Servers),
            None => (talk.client, talk.vip, Side::Client),
        };
        // Of two fragments at least.
        let data: Vec<u8> = (0..self.dice.u32(820..1300)).map(|_| DATA).collect();
        let mut segment = self.segment(from, to, true, 0, &data);
        while matches!(segment.get(6..8), Some([0, 0])) {
            // Linux adds what is missing, for which one would have to wait for all fragments.
            segment = self.segment(from, to, true, 0, &data);
        }
        self.fragmented += 1;
        let header =
            Header { tos: 0, hops: 64, identification: self.fragmented, dont_fragment: false };
        let mut pieces = Vec::new();
        let step = *self.dice.choice(&[400, 592, 800]).unwrap_or(&592);
        for (piece, place) in segment.chunks(step).zip((0..).step_by(step)) {
            let is_last = place + piece.len() == segment.len();
            pieces.push(fragment(from.ip(), to.ip(), header, piece, place, !is_last));
        }
        if self.dice.bool() {
            pieces.reverse();
        }
        for piece in pieces {
            self.give(side, &format!("a fragment about client {number}"), &piece)?;
        }
        Ok(())
    }

    /// A packet of no connection.
    fn stray(&mut self) -> Result<(), Failure> {
        let from = client(9, 40_000 + self.dice.u16(0..100), self.is_v6);
        let header = self.header();
        let vip = vip(0, self.is_v6);
        let packet = match self.dice.u32(0..4) {
            0 => {
                let header = Header { tos: header.tos, ..Header::PLAIN };
                packet::echo_request(from.ip(), vip, header).unwrap_or_default()
            }
            1 => {
                let segment = self.segment(from, SocketAddr::new(vip, 81), false, flag::SYN, &[]);
                ip(from.ip(), vip, header, &[], protocol::TCP, &segment)
            }
            2 => {
                let segment = self.segment(from, SocketAddr::new(vip, 54), true, 0, b"nobody");
                ip(from.ip(), vip, header, &[], protocol::UDP, &segment)
            }
            _ => {
                let segment = self.segment(from, SocketAddr::new(vip, 80), false, flag::ACK, &[]);
                ip(from.ip(), vip, header, &[], protocol::TCP, &segment)
            }
        };
        self.give(Side::Client, "of no connection", &packet)
    }

    /// Gives the director a packet, and remembers what came of it.
    fn give(&mut self, side: Side, note: &str, packet: &[u8]) -> Result<(), Failure> {
        self.case.events.push(json!({
            "note": note,
            "in": { "side": side.name(), "hex": hex(packet) },
        }));
        let sent = match side {
            Side::Client => self.scene.from_client(packet)?,
            Side::Servers => self.scene.from_server(packet)?,
        };
        let Some(given) = packet::look(packet).filter(|look| look.ports.is_some()) else {
            return Ok(());
        };
        let [sent] = sent.as_slice() else { return Ok(()) };
        let Some(octets) = leaving(sent).filter(|_| sent.side != side) else { return Ok(()) };
        for talk in &mut self.talks {
            if side == Side::Client && talk.client == given.source_socket() {
                let look =
                    packet::look(&octets).filter(|_| self.method == ForwardMethod::Masquerade);
                talk.server = look.map(|look| look.destination_socket()).or(talk.server);
                talk.forwarded = Some(octets.clone());
            } else if side == Side::Servers && talk.client == given.destination_socket() {
                talk.returned = Some(octets.clone());
            }
        }
        Ok(())
    }
}

/// Whether an ICMP error is about a path's MTU.
fn is_about_mtu(error: &[u8]) -> bool {
    let Some(look) = packet::look(error) else { return false };
    matches!(
        (look.protocol, look.icmp),
        (protocol::ICMP, Some((3, 4))) | (protocol::ICMPV6, Some((2, _)))
    )
}

fn protocol(is_udp: bool) -> u8 {
    if is_udp { protocol::UDP } else { protocol::TCP }
}

/// [`packet::pseudo`] and [`packet::ip`] where both ends are of one family and nothing is too long.
fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, octets: usize) -> u32 {
    let octets = u16::try_from(octets).ok();
    octets.and_then(|octets| packet::pseudo(from, to, protocol, octets)).unwrap_or_default()
}

fn ip(
    from: IpAddr,
    to: IpAddr,
    header: Header,
    options: &[u8],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    packet::ip(from, to, header, options, protocol, payload).unwrap_or_default()
}

/// The part of a UDP datagram that begins at its octet `place`.
fn fragment(
    from: IpAddr,
    to: IpAddr,
    header: Header,
    piece: &[u8],
    place: usize,
    is_followed: bool,
) -> Vec<u8> {
    let place = u16::try_from(place).unwrap_or_default();
    if from.is_ipv4() {
        let mut packet = ip(from, to, header, &[], protocol::UDP, piece);
        set_word(&mut packet, 6, (place / 8) | if is_followed { MORE } else { 0 });
        if let Some(header) = packet.get_mut(..ipv4::HEADER_LEN) {
            finish_header(header);
        }
        return packet;
    }
    let mut extension = vec![protocol::UDP, 0, 0, 0, 0, 0, 0, 0];
    set_word(&mut extension, 2, place | u16::from(is_followed));
    set_word(&mut extension, 6, header.identification);
    extension.extend_from_slice(piece);
    ip(from, to, header, &[], FRAGMENT, &extension)
}
