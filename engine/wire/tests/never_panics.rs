//! No octets whatever make a parser or a rewriting helper panic, overflow or index out of bounds;
//! and what a helper refuses it leaves alone. A seed that fails is printed; `RVS_SEED` and
//! `RVS_ROUNDS` repeat it or go further.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod examples;

use examples::*;
use rvs_wire::checksum::Delta;
use rvs_wire::ethernet::{Ethernet, EthernetMut, Tag};
use rvs_wire::flow::{Ends, V4, V6, protocol};
use rvs_wire::icmp::{Error, Icmp};
use rvs_wire::ipip::Outer;
use rvs_wire::ipv4::{Ipv4, Ipv4Mut};
use rvs_wire::ipv6::{Ipv6, Ipv6Mut};
use rvs_wire::packet::{Class, Packet, SlowKind, classify};
use rvs_wire::rewrite::Stop;
use rvs_wire::tcp::{Tcp, TcpMut};
use rvs_wire::tunnel::{self, Encapsulation, Tunnel};
use rvs_wire::udp::{Udp, UdpMut};
use rvs_wire::{arp, ipv6_ext, ndp, toeplitz};

static TOEPLITZ: toeplitz::Toeplitz = toeplitz::Toeplitz::new(&toeplitz::SYMMETRIC_KEY);

/// Number `name` of the environment, or `otherwise`.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Calls `function` on a copy; when it says [`Stop`], the copy must be as it was.
fn on_copy(packet: &[u8], function: impl FnOnce(&mut [u8]) -> Result<(), Stop>) -> Option<Stop> {
    let mut copy = packet.to_vec();
    let stop = function(&mut copy).err();
    assert!(stop.is_none() || copy == packet, "{stop:?} after a change");
    assert_eq!(copy.len(), packet.len());
    stop
}

/// Everything that takes octets from an IP header on, of any family and any length.
fn exercise_packet<F: Icmp>(packet: &[u8], l4: usize, protocol: u8, to: (F::Addr, u16)) {
    let ends = F::Ends::new(to, to);
    let delta = Delta::word(u16::try_from(l4).unwrap(), to.1);
    on_copy(packet, F::direct);
    on_copy(packet, |packet| F::masquerade(packet, l4, protocol, &ends, delta, !delta));
    on_copy(packet, |packet| F::masquerade_fragment(packet, &ends, delta));
    let mut copy = packet.to_vec();
    if F::echo_reply(&mut copy, l4, 7).is_err() {
        assert_eq!(copy, packet, "left as it was");
    }
    on_copy(packet, |packet| F::translate_error(packet, l4, true, to));
    on_copy(packet, |packet| F::translate_error(packet, l4, false, to));
    let _ = (F::message(packet, l4), F::quoted(packet), F::dont_fragment(packet));
    let mut place = [0; 1280];
    for room in [l4, 575, 1280] {
        let written = F::write_error(Error::PortUnreachable, to.0, packet, 9, &mut place[..room]);
        if let Some(len) = written {
            assert!(len <= room && adds_up(&place[..len]));
        }
    }
    let _ = F::deserves_error(packet);
    if let Some(inner) = F::inner(packet) {
        for (local, dest) in [(LOCAL.into(), REAL.into()), (LOCAL6.into(), REAL6.into())] {
            let outer = Outer::new(local, dest).unwrap();
            let _ = outer.write(inner, 3, &mut place[..l4]);
            assert!(inner.octets > 65515 || outer.write(inner, 3, &mut place));
            for checksum in [false, true] {
                for wrapped in
                    [Encapsulation::Gre { checksum }, Encapsulation::Gue { port: 6080, checksum }]
                {
                    let tunnel = Tunnel::new(local, dest, wrapped).unwrap();
                    let _ = tunnel.write(inner, 3, 4, &mut place[..l4]);
                    let _ = tunnel.write(inner, 3, 4, &mut place);
                }
            }
        }
    }
}

fn exercise_views(octets: &[u8], next_header: u8) {
    let _ = (Tcp::parse(octets).map(|(tcp, _)| tcp.options()), arp::Arp::parse(octets));
    if let Ok((udp, data)) = Udp::parse(octets) {
        assert_eq!(usize::from(udp.len()), 8 + data.len());
    }
    if let Ok((ip, payload)) = Ipv4::parse(octets) {
        assert_eq!(usize::from(ip.total_len()), ip.header_len() + payload.len());
        let _ = (ip.check_options(), ip.fragment_offset());
    }
    if let Ok((ip, payload)) = Ipv6::parse(octets) {
        assert_eq!(usize::from(ip.payload_len()), payload.len());
        let _ = (ndp::Ndp::parse(ip, payload), ip.traffic_class(), ip.flow_label());
    }
    if let Ok(upper) = ipv6_ext::walk(next_header, octets) {
        assert_eq!(upper.extensions_len + upper.payload.len(), octets.len());
    }
    let _ = (Ipv4::parse_quoted(octets), Ipv6::parse_quoted(octets), tunnel::open(octets));
    let _ = (Ethernet::parse(octets), Tag::parse(octets), TOEPLITZ.hash(octets));
    let mut copy = octets.to_vec();
    if let Ok((mut ethernet, _)) = EthernetMut::parse(&mut copy) {
        ethernet.set_destination(ME);
        ethernet.set_source(GATEWAY);
    }
    if let Ok((mut ip, _)) = Ipv4Mut::parse(&mut copy) {
        ip.set_total_len(0);
        ip.set_identification(0xffff);
        ip.set_dont_fragment(true);
        ip.set_tos(next_header);
    }
    if let Ok((mut ip, _)) = Ipv6Mut::parse(&mut copy) {
        ip.set_payload_len(0);
    }
    if let Ok((mut tcp, _)) = TcpMut::parse(&mut copy) {
        tcp.set_source_port(0);
        tcp.set_destination_port(65535);
    }
    if let Ok((mut udp, _)) = UdpMut::parse(&mut copy) {
        udp.set_source_port(0);
        udp.set_destination_port(65535);
    }
}

/// What the hot path does with a packet of its own: nothing but the hops may be wrong with it.
fn forward<F: Icmp>(frame: &[u8], parsed: &Packet<F>, to: (F::Addr, u16)) {
    let end = usize::from(parsed.l3) + usize::from(parsed.packet_octets);
    let packet = &frame[usize::from(parsed.l3)..end];
    let l4 = usize::from(parsed.l4);
    let ends = F::Ends::new(parsed.key.ends.source(), to);
    let (address, segment) = Delta::end::<F>(parsed.key.ends.destination(), to);
    let protocol = parsed.key.protocol;
    let stop =
        on_copy(packet, |packet| F::masquerade(packet, l4, protocol, &ends, address, segment));
    assert_ne!(stop, Some(Stop::Unparsed));
    assert_eq!(on_copy(packet, F::direct), stop);
    assert!(F::inner(packet).is_some());
    // Checksums that were right are right, and those that were wrong are wrong.
    if stop.is_none() && (adds_up(packet) || protocol == protocol::TCP) {
        let mut copy = packet.to_vec();
        F::masquerade(&mut copy, l4, protocol, &ends, address, segment).unwrap();
        assert_eq!(adds_up(&copy), adds_up(packet));
    }
}

fn exercise(frame: &[u8], random: &mut Random) {
    let (l4, protocol) = (random.below(200), [6, 17, 1, 58, 0, 44][random.below(6)]);
    match classify(frame, ME) {
        Class::V4(parsed) => forward(frame, &parsed, (REAL, 8080)),
        Class::V6(parsed) => forward(frame, &parsed, (REAL6, 8080)),
        Class::Slow(slow) => {
            let end = usize::from(slow.l3) + usize::from(slow.packet_octets);
            let packet = &frame[usize::from(slow.l3)..end];
            match slow.kind {
                SlowKind::Arp => assert!(arp::Arp::parse(packet).is_ok()),
                SlowKind::Ipv4 => assert!(Ipv4::parse(packet).is_ok()),
                SlowKind::Ipv6 => assert!(Ipv6::parse(packet).is_ok()),
            }
        }
        Class::Unusable(reason) => assert!(reason.index() < 18),
    }
    let packet = frame.get(14..).unwrap_or(frame);
    exercise_packet::<V4>(packet, l4, protocol, (REAL, 8080));
    exercise_packet::<V6>(packet, l4, protocol, (REAL6, 8080));
    exercise_packet::<V4>(packet, 20, protocol, (REAL, 8080));
    exercise_packet::<V6>(packet, 40, protocol, (REAL6, 8080));
    exercise_views(packet, protocol);
    exercise_views(frame.get(l4..).unwrap_or_default(), protocol);
}

/// Makes some octets other ones, some lengths wrong and some ends early.
fn spoil(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let near = if random.below(2) == 0 { 64 } else { 2048 };
        let at = random.below(frame.len().min(near).max(1));
        let Some(octet) = frame.get_mut(at) else { continue };
        *octet = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => *octet ^ (1 << random.below(8)),
            _ => random.octet(),
        };
    }
    if random.below(4) == 0 {
        let len = random.below(frame.len() + 1);
        frame.truncate(len);
    }
    // Behind a right header checksum the other checks come into play.
    if frame.len() >= 34 && frame[12..14] == [8, 0] && frame[14] == 0x45 && random.below(4) != 0 {
        sum_up_v4(&mut frame[14..]);
    }
}

#[test]
fn mutated_frames_panic_nowhere() {
    let (seed, rounds) = (setting("RVS_SEED", 1), setting("RVS_ROUNDS", 1_000_000));
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let frames = frames();
    for _ in 0..rounds {
        let mut frame = frames[random.below(frames.len())].1.clone();
        spoil(&mut frame, &mut random);
        exercise(&frame, &mut random);
    }
}

#[test]
fn random_octets_panic_nowhere() {
    let (seed, rounds) = (setting("RVS_SEED", 2), setting("RVS_ROUNDS", 500_000));
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut frame = Vec::new();
    for _ in 0..rounds {
        frame.clear();
        for _ in 0..random.below(20) {
            frame.extend(random.next().to_be_bytes());
        }
        // Half of them look like frames for us at first sight.
        let looks = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]];
        if let Some(start) = frame.get_mut(..15)
            && random.below(2) == 0
        {
            start[..6].copy_from_slice(&ME.0);
            start[12..14].copy_from_slice(&looks[random.below(4)]);
            start[14] = [0x45, 0x60, 0x4f][random.below(3)];
        }
        exercise(&frame, &mut random);
    }
}

#[test]
fn every_frame_is_safe_at_every_length() {
    let mut random = Random::new(3);
    for (_, frame) in frames() {
        for len in 0..=frame.len() {
            exercise(&frame[..len], &mut random);
        }
    }
}

#[test]
fn the_longest_packets_are_safe() {
    let mut random = Random::new(4);
    for filler in [0, 0xff] {
        for (_, mut frame) in frames() {
            frame.resize(66_000, filler);
            exercise(&frame, &mut random);
            for at in [16, 17, 18, 19, 38, 39, 58, 59] {
                frame[at] = 0xff;
            }
            if frame[14] == 0x45 {
                sum_up_v4(&mut frame[14..]);
            }
            exercise(&frame, &mut random);
        }
    }
}
