//! What is done is undone: there and back again, nothing but the hops has changed.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod examples;

use examples::*;
use rvs_wire::checksum::{self, Delta};
use rvs_wire::flow::{Ends, Ends4, Ends6, V4, V6, protocol};
use rvs_wire::icmp::{Error, Icmp, Kind};
use rvs_wire::ipip::Outer;
use rvs_wire::ipv4::Ipv4;
use rvs_wire::ipv6::Ipv6;
use rvs_wire::ipv6_ext::next_header;
use rvs_wire::packet::{Class, classify};
use rvs_wire::rewrite::{Rewrite, Stop};
use rvs_wire::tcp::{self, Tcp, TcpMut};
use rvs_wire::tunnel::{self, Encapsulation, Tunnel};
use rvs_wire::udp::{self, Udp, UdpMut};

#[test]
fn every_example_adds_up() {
    for (name, frame) in frames() {
        let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
        let fragment = name == "fragment4";
        assert!(name.starts_with("arp") || fragment || adds_up(&frame[l3..]), "{name}");
    }
}

/// Masquerades inbound and, what the first one made, outbound.
fn there_and_back<F: Rewrite>(packet: &[u8], l4: usize, protocol: u8, dest: (F::Addr, u16)) {
    let class = match classify(&frame(if F::IS_V6 { 0x86dd } else { 0x0800 }, packet), ME) {
        Class::V4(parsed) => parsed.key.ends.words(),
        Class::V6(parsed) => parsed.key.ends.words(),
        other => unreachable!("{other:?}"),
    };
    let ends = ends_of::<F>(packet, l4);
    assert_eq!(ends.words(), class);
    let inbound = F::Ends::new(ends.source(), dest);
    let (address, segment) = Delta::end::<F>(ends.destination(), dest);
    let mut there = packet.to_vec();
    assert_eq!(F::masquerade(&mut there, l4, protocol, &inbound, address, segment), Ok(()));
    assert!(adds_up(&there));
    assert_eq!(ends_of::<F>(&there, l4), inbound);
    let mut back = there.clone();
    assert_eq!(F::masquerade(&mut back, l4, protocol, &ends, !address, !segment), Ok(()));
    assert!(adds_up(&back));
    let mut expected = packet.to_vec();
    for _ in 0..2 {
        F::direct(&mut expected).unwrap();
    }
    assert_eq!(back, expected);
}

fn ends_of<F: Rewrite>(packet: &[u8], l4: usize) -> F::Ends {
    let port = |at: usize| u16::from_be_bytes([packet[l4 + at], packet[l4 + at + 1]]);
    let (source, destination) = if F::IS_V6 {
        let (ip, _) = Ipv6::parse(packet).unwrap();
        (ip.source().into(), ip.destination().into())
    } else {
        let (ip, _) = Ipv4::parse(packet).unwrap();
        (ip.source().into(), ip.destination().into())
    };
    F::Ends::new(
        (F::address(source).unwrap(), port(0)),
        (F::address(destination).unwrap(), port(2)),
    )
}

#[test]
fn masquerading_inbound_and_outbound_restores_the_packet() {
    there_and_back::<V4>(&tcp4(), 20, protocol::TCP, (REAL, 8080));
    there_and_back::<V4>(&udp4(), 20, protocol::UDP, (REAL, 5353));
    there_and_back::<V6>(&tcp6(), 40, protocol::TCP, (REAL6, 8080));
    there_and_back::<V6>(&udp6(), 40, protocol::UDP, (REAL6, 5353));
    let extended = extended(tcp6(), &[next_header::DESTINATION_OPTIONS, next_header::FRAGMENT]);
    there_and_back::<V6>(&extended, 56, protocol::TCP, (REAL6, 80));
    // To itself: as a destination that is the director's own address would have it.
    there_and_back::<V4>(&tcp4(), 20, protocol::TCP, (VIP, HTTP));
    there_and_back::<V6>(&udp6(), 40, protocol::UDP, (VIP6, 53));
}

#[test]
fn masquerading_any_address_and_port_keeps_checksums_right() {
    let mut random = Random::new(11);
    for _ in 0..20_000 {
        let port = u16::from_be_bytes([random.octet(), random.octet()]);
        let four: [u8; 4] = core::array::from_fn(|_| random.octet());
        let six: [u8; 16] = core::array::from_fn(|_| random.octet());
        there_and_back::<V4>(&tcp4(), 20, protocol::TCP, (four.into(), port));
        there_and_back::<V4>(&udp4(), 20, protocol::UDP, (four.into(), port));
        there_and_back::<V6>(&tcp6(), 40, protocol::TCP, (six.into(), port));
        there_and_back::<V6>(&udp6(), 40, protocol::UDP, (six.into(), port));
    }
}

#[test]
fn a_masqueraded_datagram_always_has_a_checksum() {
    // Some port makes the checksum come out as zero, which must be sent as all ones.
    let mut all_ones = 0;
    for port in 0..=u16::MAX {
        let (mut four, mut six) = (udp4(), udp6());
        let ends = ends_of::<V4>(&four, 20);
        let to = Ends4::new(ends.source(), (REAL, port));
        let (address, segment) = Delta::end::<V4>(ends.destination(), (REAL, port));
        V4::masquerade(&mut four, 20, protocol::UDP, &to, address, segment).unwrap();
        let ends = ends_of::<V6>(&six, 40);
        let to = Ends6::new(ends.source(), (REAL6, port));
        let (address, segment) = Delta::end::<V6>(ends.destination(), (REAL6, port));
        V6::masquerade(&mut six, 40, protocol::UDP, &to, address, segment).unwrap();
        for (packet, at) in [(&four, 26), (&six, 46)] {
            assert!(packet[at..at + 2] != [0, 0] && adds_up(packet), "port {port}");
            all_ones += usize::from(packet[at..at + 2] == [0xff, 0xff]);
        }
    }
    assert_eq!(all_ones, 2);
}

#[test]
fn a_filled_in_checksum_is_of_the_datagram_alone() {
    let datagram = udp::<V4>((CLIENT, VIP), (CLIENT_PORT, 53), b"query");
    let rest = [&datagram[..], &[0xee; 9]].concat();
    let mut packet = ipv4(protocol::UDP, (CLIENT, VIP), false, &[], &rest);
    packet[26..28].fill(0);
    let ends = Ends4::new((CLIENT, CLIENT_PORT), (REAL, 53));
    let (address, segment) = Delta::end::<V4>((VIP, 53), (REAL, 53));
    V4::masquerade(&mut packet, 20, protocol::UDP, &ends, address, segment).unwrap();
    let expected = udp::<V4>((CLIENT, REAL), (CLIENT_PORT, 53), b"query");
    assert_eq!(packet[20..33], expected);
    assert_eq!(packet[33..], [0xee; 9]);
    // Of a first fragment the datagram's end is missing.
    let mut packet = udp4();
    packet[24..28].copy_from_slice(&[0, 200, 0, 0]);
    V4::masquerade(&mut packet, 20, protocol::UDP, &ends, address, segment).unwrap();
    assert_eq!(packet[26..28], [0, 0]);
}

#[test]
fn what_goes_into_a_tunnel_comes_out_in_all_four_combinations() {
    fn through<F: Rewrite>(packet: &[u8], outer: Outer, inner_protocol: u8) {
        let whole = tunnelled::<F>(packet, outer);
        assert!(adds_up(&whole));
        let out = tunnel::open(&whole).unwrap();
        assert_eq!((out.packet, out.protocol), (packet, inner_protocol));
        let ends = match outer {
            Outer::V4(_) => (LOCAL.into(), REAL.into()),
            Outer::V6(_) => (LOCAL6.into(), REAL6.into()),
        };
        assert_eq!((out.source, out.destination), ends);
    }
    let outer4 = Outer::new(LOCAL.into(), REAL.into()).unwrap();
    let outer6 = Outer::new(LOCAL6.into(), REAL6.into()).unwrap();
    for outer in [outer4, outer6] {
        through::<V4>(&tcp4(), outer, protocol::IPIP);
        through::<V4>(&udp4(), outer, protocol::IPIP);
        through::<V6>(&tcp6(), outer, protocol::IPV6);
    }
    assert_eq!(Outer::new(LOCAL.into(), REAL6.into()), None);
    assert_eq!(tunnel::open(&tcp4()), None);
    assert_eq!(tunnel::open(&tcp6()), None);
}

/// `packet` in a tunnel of either family, wrapped.
fn wrapped<F: Rewrite>(packet: &[u8], encapsulation: Encapsulation, v6: bool) -> Vec<u8> {
    let ends = if v6 { (LOCAL6.into(), REAL6.into()) } else { (LOCAL.into(), REAL.into()) };
    let tunnel = Tunnel::new(ends.0, ends.1, encapsulation).unwrap();
    // Octets behind the packet are a link's padding, and no part of any checksum.
    let mut whole = [&vec![0xee; tunnel.len()], packet, &[0xee; 3]].concat();
    assert!(tunnel.write(F::inner(packet).unwrap(), 0x4321, 0xcab9, &mut whole));
    whole.truncate(tunnel.len() + packet.len());
    whole
}

#[test]
fn each_wrapping_comes_off_again_in_all_four_combinations() {
    fn through<F: Rewrite>(packet: &[u8], inner: u8) {
        for checksum in [false, true] {
            for kind in [
                Encapsulation::Ip,
                Encapsulation::Gre { checksum },
                Encapsulation::Gue { port: 6080, checksum },
            ] {
                for v6 in [false, true] {
                    let whole = wrapped::<F>(packet, kind, v6);
                    let out = tunnel::open(&whole).unwrap();
                    assert_eq!((out.packet, out.protocol), (packet, inner), "{kind:?}");
                    assert_eq!(out.encapsulation, kind);
                    assert_eq!(out.octets, whole.len() - packet.len());
                    let quoted = &whole[..out.octets + 20];
                    assert_eq!(tunnel::open(quoted).unwrap().packet, &packet[..20], "cut off");
                }
            }
        }
    }
    through::<V4>(&tcp4(), protocol::IPIP);
    through::<V6>(&udp6(), protocol::IPV6);
}

#[test]
fn checksums_of_wrappings_add_up_and_are_absent_when_not_asked_for() {
    for v6 in [false, true] {
        let l4 = if v6 { 40 } else { 20 };
        let gre = wrapped::<V4>(&tcp4(), Encapsulation::Gre { checksum: true }, v6);
        assert_eq!(gre[l4..l4 + 4], [0x80, 0, 8, 0]);
        assert!(checksum::is_right(&gre[l4..], 0) && gre[l4 + 4..l4 + 6] != [0, 0]);
        let gre = wrapped::<V6>(&tcp6(), Encapsulation::Gre { checksum: false }, v6);
        assert_eq!(gre[l4..l4 + 4], [0, 0, 0x86, 0xdd]);
        let gue = wrapped::<V4>(&tcp4(), Encapsulation::Gue { port: 6080, checksum: true }, v6);
        assert!(adds_up(&gue) && gue[l4 + 6..l4 + 8] != [0, 0]);
        let gue = wrapped::<V4>(&tcp4(), Encapsulation::Gue { port: 6080, checksum: false }, v6);
        assert_eq!(gue[l4..l4 + 4], [0xca, 0xb9, 0x17, 0xc0]);
        assert_eq!(gue[l4 + 6..l4 + 12], [0, 0, 0, protocol::IPIP, 0, 0]);
    }
}

#[test]
fn what_is_not_wrapped_as_ipvs_wraps_is_no_tunnel() {
    let gue = Encapsulation::Gue { port: 6080, checksum: false };
    // A control message, a header with options, a protocol that is no IP, flags.
    for (at, value) in [(28, 0x20), (28, 1), (29, protocol::TCP), (30, 0x80)] {
        let mut packet = wrapped::<V4>(&tcp4(), gue, false);
        packet[at] = value;
        assert_eq!(tunnel::open(&packet), None, "{at}");
    }
    // A key, another version, another protocol.
    for (at, value) in [(20, 0x20), (21, 1), (22, 0x66)] {
        let mut packet = wrapped::<V4>(&tcp4(), Encapsulation::Gre { checksum: false }, false);
        packet[at] = value;
        assert_eq!(tunnel::open(&packet), None, "{at}");
    }
}

#[test]
fn a_fragment_of_a_tunnel_has_no_packet_in_it() {
    let outer = Outer::new(LOCAL.into(), REAL.into()).unwrap();
    let mut packet = tunnelled::<V4>(&tcp4(), outer);
    packet[6] = 0x20;
    sum_up_v4(&mut packet);
    assert_eq!(tunnel::open(&packet), None);
    let outer = Outer::new(LOCAL6.into(), REAL6.into()).unwrap();
    let mut packet = extended(tunnelled::<V4>(&tcp4(), outer), &[next_header::FRAGMENT]);
    assert_eq!(tunnel::open(&packet).unwrap().packet, tcp4());
    packet[43] = 1;
    assert_eq!(tunnel::open(&packet), None);
}

#[test]
fn an_outer_ipv4_header_may_be_fragmented_unless_an_inner_one_may_not() {
    let outer = Outer::new(LOCAL.into(), REAL.into()).unwrap();
    for (packet, dont_fragment, identification) in [
        (tunnelled::<V4>(&tcp4(), outer), true, 0),
        (tunnelled::<V4>(&udp4(), outer), false, 0x4321),
    ] {
        let (ip, _) = Ipv4::parse(&packet).unwrap();
        assert_eq!((ip.dont_fragment(), ip.identification()), (dont_fragment, identification));
    }
    // Linux 6.1 ip_vs_prepare_tunneled_skb(): IPv6 in IPv4 has no DF.
    let packet = tunnelled::<V6>(&tcp6(), outer);
    let (ip, _) = Ipv4::parse(&packet).unwrap();
    assert_eq!((ip.dont_fragment(), ip.identification()), (false, 0x4321));
    assert!(
        V6::dont_fragment(&tcp6()) && V4::dont_fragment(&tcp4()) && !V4::dont_fragment(&udp4())
    );
}

/// Sends `packet` into a plain tunnel at once and step by step.
fn into_a_tunnel<F: Rewrite>(tunnel: Tunnel, packet: &[u8], may_set_df: bool) {
    let place = [&vec![0xa5; tunnel.len()], packet].concat();
    let mut at_once = place.clone();
    let outcome = tunnel.enter::<F>(&mut at_once, may_set_df, 0x4321, 0);
    let mut stepwise = place.clone();
    let inside = &mut stepwise[tunnel.len()..];
    if let Err(stop) = F::direct(inside) {
        assert_eq!((outcome, at_once), (Err(stop), place));
        return;
    }
    let inner = F::inner(inside).map(|inner| {
        let dont_fragment = inner.dont_fragment && may_set_df;
        rvs_wire::ipip::Inner { dont_fragment, ..inner }
    });
    if inner.is_some_and(|inner| tunnel.write(inner, 0x4321, 0, &mut stepwise)) {
        assert_eq!((outcome, at_once), (Ok(()), stepwise));
    } else {
        assert_eq!(outcome, Err(Stop::Unparsed));
    }
}

#[test]
fn a_packet_goes_into_a_tunnel_at_once_as_it_goes_step_by_step() {
    let mut dice = fastrand::Rng::with_seed(7);
    let v4 = Tunnel::new(LOCAL.into(), REAL.into(), Encapsulation::Ip).unwrap();
    let v6 = Tunnel::new(LOCAL6.into(), REAL6.into(), Encapsulation::Ip).unwrap();
    for _ in 0..20_000 {
        let (mut four, mut six) = (tcp4(), tcp6());
        dice.fill(&mut four[1..9]);
        dice.fill(&mut six[..8]);
        (four[0], six[0]) = (0x45 + dice.u8(0..=1), 0x60 | six[0] & 0xf);
        if dice.bool() {
            (four[8], six[7]) = (dice.u8(0..4), dice.u8(0..4));
        }
        sum_up_v4(&mut four);
        for tunnel in [v4, v6] {
            into_a_tunnel::<V4>(tunnel, &four, dice.bool());
            into_a_tunnel::<V6>(tunnel, &six, dice.bool());
        }
    }
}

#[test]
fn a_tunnel_that_would_overflow_the_length_is_refused() {
    let outer = Outer::new(LOCAL.into(), REAL.into()).unwrap();
    let mut inner = V4::inner(&tcp4()).unwrap();
    inner.octets = 65515;
    assert!(outer.write(inner, 0, &mut [0; 20]));
    inner.octets = 65516;
    assert!(!outer.write(inner, 0, &mut [0; 20]));
    inner.octets = 60;
    assert!(!outer.write(inner, 0, &mut [0; 19]));
    let outer = Outer::new(LOCAL6.into(), REAL6.into()).unwrap();
    assert!(!outer.write(inner, 0, &mut [0; 39]));
}

#[test]
fn views_read_what_was_written() {
    let packet = tcp4();
    let (tcp, data) = Tcp::parse(&packet[20..]).unwrap();
    assert_eq!((tcp.source_port(), tcp.destination_port()), (CLIENT_PORT, HTTP));
    assert_eq!((tcp.sequence(), tcp.acknowledgment(), tcp.window()), (1000, 0, 64240));
    assert_eq!((tcp.options(), data), (&[2, 4, 5, 0xb4][..], &b"data"[..]));
    let packet = udp6();
    let (udp, data) = Udp::parse(&packet[40..]).unwrap();
    assert_eq!((udp.source_port(), udp.destination_port()), (CLIENT_PORT, 53));
    assert_eq!((udp.len(), data), (13, &b"query"[..]));
}

#[test]
fn written_headers_have_right_checksums_and_udp_never_none() {
    let pseudo = V4::pseudo_sum(CLIENT, VIP, protocol::TCP, 24);
    let header = tcp::Header { source_port: 1, sequence: 7, ..tcp::Header::default() };
    let segment = [&header.octets(b"data", pseudo), &b"data"[..]].concat();
    assert!(adds_up(&ipv4(protocol::TCP, (CLIENT, VIP), true, &[], &segment)));
    let pseudo = V4::pseudo_sum(CLIENT, VIP, protocol::UDP, 8);
    let mut all_ones = 0;
    for port in 0..=u16::MAX {
        let header = udp::header(port, 53, &[], pseudo);
        assert_ne!(header[6..], [0, 0]);
        all_ones += usize::from(header[6..] == [0xff, 0xff]);
    }
    assert_eq!(all_ones, 1);
}

#[test]
fn setting_ports_keeps_checksums_right() {
    let mut packet = tcp4();
    let (mut tcp, _) = TcpMut::parse(&mut packet[20..]).unwrap();
    tcp.set_source_port(1);
    tcp.set_destination_port(65535);
    assert_eq!((tcp.view().source_port(), tcp.view().destination_port()), (1, 65535));
    assert!(adds_up(&packet));
    let mut packet = udp6();
    let (mut udp, _) = UdpMut::parse(&mut packet[40..]).unwrap();
    udp.set_source_port(1);
    udp.set_destination_port(65535);
    assert!(adds_up(&packet));
    packet[46..48].fill(0);
    let (mut udp, _) = UdpMut::parse(&mut packet[40..]).unwrap();
    udp.set_source_port(2);
    assert_eq!(udp.view().checksum(), 0, "none stays none");
}

/// Reports `error`, reads the report and finds the packet in it.
fn reported<F: Icmp>(error: Error, source: F::Addr, about: &[u8], l4: usize, max: usize) {
    let mut place = [0; 1280];
    let len = F::write_error(error, source, about, 1, &mut place).unwrap();
    let packet = &place[..len];
    assert!(adds_up(packet));
    assert!(len <= max, "{len}");
    assert!(!F::deserves_error(packet) && F::deserves_error(about));
    let (kind, quote) = F::message(packet, F::HEADER_LEN).unwrap();
    assert_eq!((kind, quote), (Kind::Error, &about[..quote.len()]));
    let quoted = F::quoted(quote).unwrap().unwrap();
    assert_eq!((quoted.ports, quoted.key.ends), (Some(l4), ends_of::<F>(about, l4)));
    assert_eq!(F::write_error(error, source, about, 1, &mut place[..len - 1]), None);
}

#[test]
fn reported_errors_quote_the_packet_and_are_short_enough() {
    let errors = [
        Error::PortUnreachable,
        Error::NetUnreachable,
        Error::TimeExceeded,
        Error::TooBig { mtu: 1400 },
    ];
    let segment = tcp::<V4>((CLIENT, VIP), (CLIENT_PORT, HTTP), &[0x42; 1400]);
    let long4 = ipv4(protocol::TCP, (CLIENT, VIP), true, &[1, 1, 1, 0], &segment);
    let segment = tcp::<V6>((CLIENT6, VIP6), (CLIENT_PORT, HTTP), &[0x42; 1400]);
    let long6 = ipv6(protocol::TCP, (CLIENT6, VIP6), &segment);
    for error in errors {
        reported::<V4>(error, VIP, &udp4(), 20, 61);
        reported::<V4>(error, VIP, &long4, 24, 576);
        reported::<V6>(error, VIP6, &udp6(), 40, 101);
        reported::<V6>(error, VIP6, &long6, 40, 1280);
    }
}

#[test]
fn errors_fragments_and_groups_deserve_no_error() {
    assert!(V4::deserves_error(&echo_request4()) && V6::deserves_error(&echo_request6()));
    assert!(!V4::deserves_error(&error4()) && !V6::deserves_error(&error6()));
    let mut later = udp4();
    later[7] = 1;
    assert!(!V4::deserves_error(&later));
    let mut later = extended(udp6(), &[next_header::FRAGMENT]);
    assert!(V6::deserves_error(&later));
    later[43] = 8;
    assert!(!V6::deserves_error(&later));
    for (at, octet) in [(12, 224), (16, 239), (12, 127)] {
        let mut packet = udp4();
        packet[at] = octet;
        assert!(!V4::deserves_error(&packet), "{octet} at {at}");
    }
    for at in [8, 24] {
        let mut packet = udp6();
        packet[at] = 0xff;
        assert!(!V6::deserves_error(&packet), "group at {at}");
    }
    let (mut nobody4, mut nobody6) = (udp4(), udp6());
    nobody4[12..16].fill(0);
    nobody6[8..24].fill(0);
    assert!(!V4::deserves_error(&nobody4) && !V6::deserves_error(&nobody6));
    let (mut redirect4, mut redirect6) = (echo_request4(), echo_request6());
    (redirect4[20], redirect6[40]) = (5, 137);
    assert!(!V4::deserves_error(&redirect4) && !V6::deserves_error(&redirect6));
}

#[test]
fn only_first_fragments_of_known_protocols_have_ends_to_quote() {
    assert!(V4::quoted(&udp4()).unwrap().is_some() && V6::quoted(&udp6()).unwrap().is_some());
    assert_eq!(V4::quoted(&echo_request4()), Ok(None));
    assert_eq!(V6::quoted(&echo_request6()), Ok(None));
    let mut later = udp4();
    later[7] = 1;
    assert_eq!(V4::quoted(&later), Ok(None));
    let mut later = extended(udp6(), &[next_header::FRAGMENT]);
    assert_eq!(V6::quoted(&later).unwrap().unwrap().ports, Some(48));
    later[43] = 8;
    assert_eq!(V6::quoted(&later), Ok(None));
}

#[test]
fn an_error_with_one_hop_left_is_not_translated() {
    let (mut four, mut six) = (error4(), error6());
    (four[8], six[7]) = (1, 1);
    let (before4, before6) = (four.clone(), six.clone());
    assert_eq!(V4::translate_error(&mut four, 20, false, (REAL, 1)), Err(Stop::Exceeded));
    assert_eq!(V6::translate_error(&mut six, 40, false, (REAL6, 1)), Err(Stop::Exceeded));
    assert_eq!((four, six), (before4, before6));
}

#[test]
fn errors_translated_outbound_and_inbound_are_restored() {
    let mut packet = error4();
    V4::translate_error(&mut packet, 20, false, (REAL, 8080)).unwrap();
    assert!(adds_up(&packet));
    let (_, quote) = V4::message(&packet, 20).unwrap();
    let quoted = V4::quoted(quote).unwrap().unwrap();
    assert_eq!(quoted.key.ends.source(), (REAL, 8080));
    V4::translate_error(&mut packet, 20, false, (VIP, HTTP)).unwrap();
    let mut expected = error4();
    V4::direct(&mut expected).unwrap();
    V4::direct(&mut expected).unwrap();
    assert_eq!(packet, expected);

    let mut packet = error6();
    V6::translate_error(&mut packet, 40, false, (REAL6, 8080)).unwrap();
    assert!(adds_up(&packet));
    let (_, quote) = V6::message(&packet, 40).unwrap();
    let quoted = V6::quoted(quote).unwrap().unwrap();
    assert_eq!(quoted.key.ends.source(), (REAL6, 8080));
}
