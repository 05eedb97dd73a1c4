//! What happens in each scenario: the frames that its captures hold, made by code so that a person
//! can change one.

use crate::frames::{
    ACK, ARP_REPLY, ARP_REQUEST, COOKIE_ACK, COOKIE_ECHO, DATA, FIN, ICMP, INIT, INIT_ACK, PSH,
    SOLICITED, SYN, Segment, UDP, advertisement, arp, changed, echo_request, ethernet, fragments,
    ip, may_fragment, sctp, solicitation, tagged, tcp, udp, with_extension, with_hops,
    with_options,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rvs_wire::mac::MacAddr;

/// The director, by link.
const CLIENT_SIDE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const SERVERS_SIDE: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);
const NOBODY: MacAddr = MacAddr([0; 6]);

const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);

/// The two real servers, by their last octets 0x11 and 0x12.
fn server_mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, last])
}

fn server(v6: bool, last: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, last.into()).into()
    } else {
        // 0x11 is written 11.
        Ipv4Addr::new(192, 0, 2, last / 16 * 10 + last % 16).into()
    }
}

fn client(v6: bool) -> IpAddr {
    if v6 { CLIENT_V6.into() } else { CLIENT_V4.into() }
}

fn vip(v6: bool) -> IpAddr {
    if v6 { VIP_V6.into() } else { VIP_V4.into() }
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// Frames on their way to the director, by link, each with its time in milliseconds.
#[derive(Debug, Default)]
pub struct Film {
    pub client: Vec<(u64, Vec<u8>)>,
    pub servers: Vec<(u64, Vec<u8>)>,
}

impl Film {
    /// A packet of the client.
    fn ask(&mut self, ms: u64, packet: &[u8]) {
        self.client.push((ms, ethernet(CLIENT_SIDE, CLIENT_MAC, packet)));
    }

    /// A packet of a real server.
    fn answer(&mut self, ms: u64, last: u8, packet: &[u8]) {
        self.servers.push((ms, ethernet(SERVERS_SIDE, server_mac(last), packet)));
    }
}

/// Puts a scenario's frames into a film.
pub type Script = fn(&mut Film);

/// Every scenario, by the name of its folder.
pub const ALL: [(&str, Script); 18] = [
    ("a-full-round-of-wrr-follows-the-weights", rounds),
    ("arp-and-neighbour-discovery-find-servers-while-frames-wait", unknown_neighbours),
    ("corrupt-frames-are-counted-by-name", corrupt),
    ("direct-routing-changes-ethernet-addresses-and-hop-limit-only", without_way_back),
    ("echo-to-a-vip-is-answered", echo),
    ("fragments-find-their-connection-in-any-order", scattered),
    ("frames-for-others-are-left-alone", others),
    ("hop-limit-ends-at-the-director", hop_limit),
    ("ipv4-options-and-ipv6-extension-headers-are-carried-along", options),
    ("nat-maps-address-and-port-there-and-back", masquerade),
    ("neighbours-are-told-where-director-and-vips-are", asked),
    ("no-real-server-is-port-unreachable", no_server),
    ("sctp-keeps-a-right-checksum-through-nat", associated),
    ("too-long-and-not-to-be-fragmented-is-told-to-the-sender", too_long),
    ("too-long-but-may-be-fragmented-arrives-in-pieces", in_pieces),
    ("tunnels-carry-packets-whole", without_way_back),
    ("udp-finds-its-way-back-without-a-checksum-too", datagrams),
    ("vlan-tags-differ-on-either-side", vlans),
];

/// Both halves of a TCP conversation, with sequence numbers as they should be.
struct Talk {
    client: SocketAddr,
    vip: SocketAddr,
    /// As the server sees itself.
    dest: SocketAddr,
    sent: u32,
    answered: u32,
}

impl Talk {
    fn new(v6: bool, port: u16, vip_port: u16, dest: SocketAddr) -> Self {
        let (client, vip) = (at(client(v6), port), at(vip(v6), vip_port));
        Self { client, vip, dest, sent: 1000, answered: 5000 }
    }

    /// The client's next segment.
    fn says(&mut self, flags: u8, data: &[u8]) -> Vec<u8> {
        let acknowledgment = if flags & ACK == 0 { 0 } else { self.answered };
        let (from, to, sequence) = (self.client, self.vip, self.sent);
        self.sent += octets(flags, data);
        Segment { from, to, sequence, acknowledgment, flags, data }.packet()
    }

    /// The server's next segment.
    fn hears(&mut self, flags: u8, data: &[u8]) -> Vec<u8> {
        let (from, to, sequence) = (self.dest, self.client, self.answered);
        self.answered += octets(flags, data);
        Segment { from, to, sequence, acknowledgment: self.sent, flags, data }.packet()
    }
}

/// What a segment takes of the sequence space.
fn octets(flags: u8, data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap() + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0)
}

const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const OK: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nrs1\n";

/// A request and its answer; both ends close.
fn masquerade(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let mut talk = Talk::new(v6, 40_000, 80, at(server(v6, 0x11), 8080));
        film.ask(start, &talk.says(SYN, b""));
        film.answer(start + 1, 0x11, &talk.hears(SYN | ACK, b""));
        film.ask(start + 2, &talk.says(ACK, b""));
        film.ask(start + 3, &talk.says(PSH | ACK, GET));
        film.answer(start + 4, 0x11, &talk.hears(PSH | ACK, OK));
        film.answer(start + 5, 0x11, &talk.hears(FIN | ACK, b""));
        film.ask(start + 6, &talk.says(FIN | ACK, b""));
        film.answer(start + 7, 0x11, &talk.hears(ACK, b""));
    }
}

/// The client's half; the server answers past the director.
fn without_way_back(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let mut talk = Talk::new(v6, 40_000, 80, at(server(v6, 0x11), 80));
        film.ask(start, &talk.says(SYN, b""));
        talk.hears(SYN | ACK, b"");
        film.ask(start + 2, &talk.says(ACK, b""));
        film.ask(start + 3, &talk.says(PSH | ACK, GET));
        talk.hears(PSH | ACK, OK);
        film.ask(start + 5, &talk.says(ACK, b""));
        talk.hears(FIN | ACK, b"");
        film.ask(start + 7, &talk.says(FIN | ACK, b""));
        film.ask(start + 500, &udp(at(client(v6), 40_007), at(vip(v6), 7007), b"a question"));
    }
}

/// Datagrams with a checksum, without one (IPv4), and with one that comes out as zero.
fn datagrams(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let (from, to) = (at(client(v6), 40_007), at(vip(v6), 7007));
        let dest = at(server(v6, 0x11), 7008);
        film.ask(start, &udp(from, to, b"a question"));
        film.answer(start + 1, 0x11, &udp(dest, from, b"an answer"));
        if !v6 {
            film.ask(start + 2, &crate::frames::udp_without_checksum(from, to, b"unchecked"));
            film.answer(start + 3, 0x11, &crate::frames::udp_without_checksum(dest, from, b"so"));
        }
    }
}

/// Twelve connections at once, then more after a pause.
fn rounds(film: &mut Film) {
    for number in 0..12_u16 {
        let ms = if number < 6 { u64::from(number) } else { 2000 + u64::from(number) };
        film.ask(ms, &tcp(at(client(false), 41_000 + number), at(vip(false), 80), SYN, b""));
    }
}

/// Tag 10 towards clients, 20 towards servers.
fn vlans(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let mut talk = Talk::new(v6, 40_000, 80, at(server(v6, 0x11), 8080));
        film.ask(start, &talk.says(SYN, b""));
        film.answer(start + 1, 0x11, &talk.hears(SYN | ACK, b""));
        film.ask(start + 2, &talk.says(ACK, b""));
        film.ask(start + 3, &talk.says(PSH | ACK, GET));
        film.answer(start + 4, 0x11, &talk.hears(PSH | ACK, OK));
    }
    for (_, frame) in &mut film.client {
        *frame = tagged(frame, 10);
    }
    for (_, frame) in &mut film.servers {
        *frame = tagged(frame, 20);
    }
    // One that nobody here is part of.
    let stray = udp(at(client(false), 40_007), at(vip(false), 80), b"in VLAN 30");
    film.client.push((2000, tagged(&ethernet(CLIENT_SIDE, CLIENT_MAC, &stray), 30)));
}

/// Record route and padding; hop-by-hop and destination options, an atomic fragment.
fn options(film: &mut Film) {
    const NOP: u8 = 1;
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let (from, to) = (at(client(false), 40_000), at(vip(false), 80));
    film.ask(0, &with_options(&tcp(from, to, SYN, b""), &[NOP, NOP, NOP, 0]));
    film.ask(1, &with_options(&tcp(from, to, ACK, b"more"), &record_route));
    let (from, to) = (at(client(true), 40_000), at(vip(true), 80));
    let pad = [0, 1, 4, 0, 0, 0, 0];
    film.ask(1000, &with_extension(&tcp(from, to, SYN, b""), 0, &pad));
    film.ask(1001, &with_extension(&tcp(from, to, ACK, b"more"), 60, &pad));
    let both = with_extension(&with_extension(&tcp(from, to, ACK, b"most"), 60, &pad), 0, &pad);
    film.ask(1002, &both);
}

/// Just fits, one octet more, and much more.
fn too_long(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let (from, to) = (at(client(v6), 40_000), at(vip(v6), 80));
        let headers = if v6 { 60 } else { 40 };
        film.ask(start, &tcp(from, to, SYN, b""));
        for (number, octets) in [(1, 1400), (2, 1401), (3, 1500)] {
            let data = vec![b'x'; octets - headers];
            film.ask(start + number, &tcp(from, to, ACK, &data));
        }
        // Nobody translates for this one: it is routed, and the same holds.
        let data = vec![b'y'; 1480 - headers];
        film.ask(start + 10, &udp(from, at(server(v6, 0x12), 7007), &data));
    }
}

/// A masqueraded and a tunnelled service over a link of 1400 octets.
fn in_pieces(film: &mut Film) {
    let from = at(client(false), 40_000);
    for (port, start) in [(80, 0), (81, 1000)] {
        let to = at(vip(false), port);
        film.ask(start, &tcp(from, to, SYN, b""));
        let data: Vec<u8> = (0..1460_u16).map(|octet| octet.to_be_bytes()[1]).collect();
        film.ask(start + 1, &may_fragment(tcp(from, to, ACK, &data)));
        film.ask(
            start + 2,
            &may_fragment(with_options(&tcp(from, to, ACK, &data[..1400]), &[1, 1, 1, 0])),
        );
    }
}

/// A service without servers, one whose servers are at weight 0, and ports without service.
fn no_server(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let from = at(client(v6), 40_000);
        film.ask(start, &tcp(from, at(vip(v6), 80), SYN, b""));
        film.ask(start + 10, &udp(from, at(vip(v6), 7007), b"a question"));
        film.ask(start + 20, &tcp(from, at(vip(v6), 81), SYN, b""));
        film.ask(start + 30, &tcp(from, at(vip(v6), 82), SYN, b""));
        film.ask(start + 40, &udp(from, at(vip(v6), 82), b"a question"));
    }
}

/// Servers that are not configured: one answers, one does not.
fn unknown_neighbours(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 6000)] {
        for number in 0..4 {
            let from = at(client(v6), 40_000 + number);
            film.ask(start + u64::from(number), &tcp(from, at(vip(v6), 80), SYN, b""));
        }
        let reply = match (server(v6, 0x11), server(v6, 1)) {
            (IpAddr::V4(address), IpAddr::V4(_)) => {
                let asker = (SERVERS_SIDE, Ipv4Addr::new(192, 0, 2, 1));
                arp(SERVERS_SIDE, ARP_REPLY, (server_mac(0x11), address), asker)
            }
            (IpAddr::V6(address), IpAddr::V6(asker)) => {
                advertisement((server_mac(0x11), address), (SERVERS_SIDE, asker), SOLICITED)
            }
            _ => unreachable!("one family"),
        };
        film.servers.push((start + 200, reply));
        let from = at(client(v6), 40_100);
        film.ask(start + 4500, &tcp(from, at(vip(v6), 80), SYN, b""));
    }
}

/// Who has the director's own address, a VIP, and an address that is nobody's.
fn asked(film: &mut Film) {
    let asker = (CLIENT_MAC, CLIENT_V4);
    for (ms, last) in
        [(0, Ipv4Addr::new(198, 51, 100, 1)), (1, VIP_V4), (2, Ipv4Addr::new(198, 51, 100, 99))]
    {
        film.client.push((ms, arp(MacAddr([0xff; 6]), ARP_REQUEST, asker, (NOBODY, last))));
    }
    let asker = (CLIENT_MAC, CLIENT_V6);
    let own = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);
    let nobody = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x99);
    for (ms, target) in [(1000, own), (1001, VIP_V6), (1002, nobody)] {
        film.client.push((ms, solicitation(asker, target)));
    }
    // Is this address taken? Asked by somebody who has none yet.
    film.client.push((1003, solicitation((CLIENT_MAC, Ipv6Addr::UNSPECIFIED), own)));
}

/// One hop left, two left: towards the service, and through the director.
fn hop_limit(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let (from, to) = (at(client(v6), 40_000), at(vip(v6), 80));
        film.ask(start, &with_hops(tcp(from, to, SYN, b""), 2));
        film.ask(start + 1, &with_hops(tcp(from, to, ACK, b""), 1));
        film.ask(start + 2, &with_hops(udp(from, at(server(v6, 0x12), 7007), b"routed"), 1));
        film.ask(start + 3, &with_hops(udp(from, at(server(v6, 0x12), 7007), b"routed"), 2));
        let answer = tcp(at(server(v6, 0x11), 80), from, SYN | ACK, b"");
        film.answer(start + 4, 0x11, &with_hops(answer.clone(), 1));
        film.answer(start + 5, 0x11, &with_hops(answer, 2));
    }
}

/// To a VIP, to the director's own address, to a server behind it.
fn echo(film: &mut Film) {
    let own_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);
    let own = [IpAddr::from([198, 51, 100, 1]), own_v6.into()];
    for (v6, start) in [(false, 0), (true, 1000)] {
        let from = client(v6);
        film.ask(start, &echo_request(from, vip(v6), b"are you there?"));
        film.ask(start + 1, &echo_request(from, own[usize::from(v6)], b"and you?"));
        film.ask(start + 2, &echo_request(from, server(v6, 0x11), b"and whoever is behind you?"));
    }
}

/// Another machine's address, everybody's, groups'.
fn others(film: &mut Film) {
    let packet = tcp(at(client(false), 40_000), at(vip(false), 80), SYN, b"");
    let (other, all) = (MacAddr([2, 0, 0, 0, 0, 0x99]), MacAddr([0xff; 6]));
    film.client.push((0, ethernet(other, CLIENT_MAC, &packet)));
    film.client.push((1, ethernet(all, CLIENT_MAC, &packet)));
    let everybody = udp(at(client(false), 68), at([255; 4].into(), 67), b"DHCP");
    film.client.push((2, ethernet(all, CLIENT_MAC, &everybody)));
    let group = MacAddr([0x01, 0, 0x5e, 0, 0, 0xfb]);
    let mdns = udp(at(client(false), 5353), at([224, 0, 0, 251].into(), 5353), b"mDNS");
    film.client.push((3, ethernet(group, CLIENT_MAC, &mdns)));
    // A spanning tree's frame, and one that tells of the switch.
    let mut frame = ethernet(MacAddr([1, 0x80, 0xc2, 0, 0, 0]), CLIENT_MAC, &packet);
    frame[12..14].copy_from_slice(&[0, 38]);
    film.client.push((4, frame));
    let mut frame = ethernet(CLIENT_SIDE, CLIENT_MAC, &packet);
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    film.client.push((5, frame));
    // And one for the director.
    film.ask(10, &packet);
}

/// Each wrong in one way.
fn corrupt(film: &mut Film) {
    let (from, to) = (at(client(false), 40_000), at(vip(false), 80));
    let good = tcp(from, to, SYN, b"");
    let short = |octets: usize| ethernet(CLIENT_SIDE, CLIENT_MAC, &good)[..octets].to_vec();
    for (ms, octets) in [(0, 10), (1, 20), (2, 40)] {
        film.client.push((ms, short(octets)));
    }
    let wrong = |change: fn(&mut [u8])| {
        let mut packet = good.clone();
        change(&mut packet);
        packet
    };
    let right_sum = |change: fn(&mut [u8])| changed(good.clone(), change);
    let packets = [
        wrong(|packet| packet[10] ^= 0xff),
        right_sum(|packet| packet[0] = 0x55),
        right_sum(|packet| packet[0] = 0x44),
        right_sum(|packet| packet[2..4].copy_from_slice(&[1, 0])),
        right_sum(|packet| packet[2..4].copy_from_slice(&[0, 19])),
        right_sum(|packet| packet[32] = 0x40),
        right_sum(|packet| packet[12..16].copy_from_slice(&[127, 0, 0, 1])),
        ip(from.ip(), to.ip(), UDP, 64, &[0; 4]),
        ip(from.ip(), to.ip(), ICMP, 64, &[8, 0, 0xba, 0xad, 0, 0, 0, 0]),
    ];
    for (packet, ms) in packets.iter().zip(10..) {
        film.ask(ms, packet);
    }
    let (from, to) = (at(client(true), 40_000), at(vip(true), 80));
    let good = tcp(from, to, SYN, b"");
    let chain =
        (0..12).fold(good.clone(), |packet, _| with_extension(&packet, 60, &[0, 1, 4, 0, 0, 0, 0]));
    let mut beyond = good.clone();
    beyond[4..6].copy_from_slice(&[0x10, 0]);
    let routed = with_extension(&good, 43, &[0, 0, 1, 0, 0, 0, 0]);
    for (packet, ms) in [chain, beyond, routed].iter().zip(1000..) {
        film.ask(ms, packet);
    }
    // Both pieces of a packet in two.
    let whole = may_fragment(udp(at(client(false), 40_007), at(vip(false), 7007), &[b'z'; 400]));
    for (piece, ms) in fragments(&whole, 200).iter().zip(2000..) {
        film.ask(ms, piece);
    }
    // And a good one.
    film.ask(3000, &tcp(at(client(false), 40_001), at(vip(false), 80), SYN, b""));
}

/// A question in three pieces and its answer in four, each in an order of its own.
fn scattered(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let (from, to) = (at(client(v6), 40_000), at(vip(v6), 7007));
        let dest = at(server(v6, 0x11), 17_007);
        let question = fragments(&may_fragment(udp(from, to, &[b'q'; 1200])), 408);
        for (place, ms) in [1, 0, 2].into_iter().zip(start..) {
            film.ask(ms, &question[place]);
        }
        let answer = fragments(&may_fragment(udp(dest, from, &[b'a'; 1400])), 400);
        for (place, ms) in [3, 2, 1, 0].into_iter().zip(start + 500..) {
            film.answer(ms, 0x11, &answer[place]);
        }
    }
}

/// An association: its handshake, data there and back.
fn associated(film: &mut Film) {
    for (v6, start) in [(false, 0), (true, 1000)] {
        let (from, to) = (at(client(v6), 40_000), at(vip(v6), 3868));
        let dest = at(server(v6, 0x11), 13868);
        // Tag, window, streams out and in, first number.
        let init = [9, 9, 9, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
        // And the cookie, a parameter.
        let granted = [&init[..], &[0, 7, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
        // Number, stream, sequence, protocol.
        let data = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], b"hello"].concat();
        film.ask(start, &sctp(from, to, INIT, &init));
        film.answer(start + 1, 0x11, &sctp(dest, from, INIT_ACK, &granted));
        film.ask(start + 2, &sctp(from, to, COOKIE_ECHO, &[1, 2, 3, 4, 5, 6, 7, 8]));
        film.answer(start + 3, 0x11, &sctp(dest, from, COOKIE_ACK, &[]));
        film.ask(start + 4, &sctp(from, to, DATA, &data));
        film.answer(start + 5, 0x11, &sctp(dest, from, DATA, &data));
    }
}
