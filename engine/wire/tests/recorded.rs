//! What a Linux 6.1 director made of packets, and what comes out here: recordings of the real thing
//! (`pkt-nat`, `pkt6-nat`, `pkt-dr`, `pkt-tun-ipip`, `pkt-tun-gre`, `pkt-tun-gue`, `pkt6-tun-ip6ip6`, `pkt-icmp-nat`).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod examples;

use core::net::IpAddr;
use examples::{Random, hex};
use rvs_wire::checksum::Delta;
use rvs_wire::ethernet::{self, ethertype};
use rvs_wire::flow::{Ends, Family, V4, V6};
use rvs_wire::icmp::{Error, Icmp, Kind};
use rvs_wire::ipip::Outer;
use rvs_wire::ipv4::Ipv4;
use rvs_wire::mac::MacAddr;
use rvs_wire::packet::{Class, Packet, classify};
use rvs_wire::rewrite::{Rewrite, Stop};
use rvs_wire::tunnel::{Encapsulation, Tunnel};
use rvs_wire::unusable::Unusable;

const ME: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn address<F: Family>(text: &str) -> F::Addr {
    F::address(text.parse::<IpAddr>().unwrap()).unwrap()
}

fn class(packet: &[u8]) -> Class {
    let family = if packet[0] >> 4 == 6 { ethertype::IPV6 } else { ethertype::IPV4 };
    classify(&[&ethernet::header(ME, ME, family), packet].concat(), ME)
}

fn parsed4(packet: &[u8]) -> Packet<V4> {
    let Class::V4(parsed) = class(packet) else { unreachable!("{:?}", class(packet)) };
    parsed
}

fn parsed6(packet: &[u8]) -> Packet<V6> {
    let Class::V6(parsed) = class(packet) else { unreachable!("{:?}", class(packet)) };
    parsed
}

/// The packet with another source (outbound) or destination (inbound).
fn masqueraded<F: Rewrite>(
    packet: &[u8],
    parsed: &Packet<F>,
    outbound: bool,
    to: &str,
) -> Result<Vec<u8>, Stop> {
    let (source, destination) = (parsed.key.ends.source(), parsed.key.ends.destination());
    let (from, ends) = if outbound {
        let to = (address::<F>(to), source.1);
        (source, F::Ends::new(to, destination))
    } else {
        let to = (address::<F>(to), destination.1);
        (destination, F::Ends::new(source, to))
    };
    let to = if outbound { ends.source() } else { ends.destination() };
    let (address_delta, segment_delta) = Delta::end::<F>(from, to);
    let mut packet = packet.to_vec();
    let l4 = usize::from(parsed.l4);
    F::masquerade(&mut packet, l4, parsed.key.protocol, &ends, address_delta, segment_delta)?;
    Ok(packet)
}

#[test]
fn masquerading_ipv4_is_as_recorded() {
    let recorded = [
        (
            "SYN with an option",
            false,
            "4500002c1111400040067346ac1000010a00006480e80050000003e8000000006002faf061a00000020405b4",
            "4500002c111140003f0674a7ac1000010a01000280e80050000003e8000000006002faf062010000020405b4",
        ),
        (
            "data, DSCP EF",
            false,
            "45b8003a222340004006616eac1000010a00006480e80050000003e9000013895018faf0870a0000474554202f20485454502f312e300d0a0d0a",
            "45b8003a222340003f0662cfac1000010a01000280e80050000003e9000013895018faf0876b0000474554202f20485454502f312e300d0a0d0a",
        ),
        (
            "TTL 2",
            false,
            "45000028223040000206a02bac1000010a00006480e80050000003e9000013895010faf065c40000",
            "45000028223040000106a18cac1000010a01000280e80050000003e9000013895010faf066250000",
        ),
        (
            "TTL 255",
            false,
            "4500002822324000ff06a328ac1000010a00006480e80050000003e9000013895010faf065c40000",
            "4500002822324000fe06a489ac1000010a01000280e80050000003e9000013895010faf066250000",
        ),
        (
            "IP options",
            false,
            "4600002c77774000400609dfac1000010a0000640101010080e80050000003e9000013895010faf065c40000",
            "4600002c777740003f060b40ac1000010a0100020101010080e80050000003e9000013895010faf066250000",
        ),
        (
            "a wrong TCP checksum stays wrong",
            false,
            "4500002a2250400040066209ac1000010a00006480e80050000003e9000013895018faf0be3f00007a7a",
            "4500002a225040003f06636aac1000010a01000280e80050000003e9000013895018faf0bea000007a7a",
        ),
        (
            "UDP",
            false,
            "450000213000400040115457ac1000010a00006480e80035000d78597175657279",
            "45000021300040003f1155b8ac1000010a01000280e80035000d78ba7175657279",
        ),
        (
            "UDP without a checksum gets one",
            false,
            "450000213001400040115456ac1000010a00006480e80035000d00007175657279",
            "45000021300140003f1155b7ac1000010a01000280e80035000d78ba7175657279",
        ),
        (
            "reply",
            true,
            "4510002c000140003d0687a70a010002ac100001005080e800001388000003e96012faf04e680000020405b4",
            "4510002c000140003c0688460a000064ac100001005080e800001388000003e96012faf04e070000020405b4",
        ),
        (
            "UDP reply without a checksum",
            true,
            "4500002240064000401144b10a010002ac100001003580e8000e0000616e73776572",
            "45000022400640003f1145500a000064ac100001003580e8000e8de7616e73776572",
        ),
    ];
    for (note, outbound, before, after) in recorded {
        let before = hex(before);
        let to = if outbound { "10.0.0.100" } else { "10.1.0.2" };
        assert_eq!(masqueraded(&before, &parsed4(&before), outbound, to), Ok(hex(after)), "{note}");
    }
}

#[test]
fn masquerading_ipv6_is_as_recorded() {
    let recorded = [
        (
            "SYN",
            false,
            "600000000014064020010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e8000000005002faf0033d0000",
            "600000000014063f20010db8000000000000000000000077fd00000100000000000000000000000280e80050000003e8000000005002faf0049e0000",
        ),
        (
            "reply",
            true,
            "600000000014063dfd00000100000000000000000000000220010db8000000000000000000000077005080e800001388000003e95012faf0f1040000",
            "600000000014063cfd00010000000000000000000000006420010db8000000000000000000000077005080e800001388000003e95012faf0efa30000",
        ),
        (
            "UDP",
            false,
            "60000000000d114020010db8000000000000000000000077fd00010000000000000000000000006480e80035000d023a7175657279",
            "60000000000d113f20010db8000000000000000000000077fd00000100000000000000000000000280e80035000d039b7175657279",
        ),
        (
            "UDP reply",
            true,
            "60000000000e1140fd00000100000000000000000000000220010db8000000000000000000000077003580e8000e1929616e73776572",
            "60000000000e113ffd00010000000000000000000000006420010db8000000000000000000000077003580e8000e17c8616e73776572",
        ),
    ];
    for (note, outbound, before, after) in recorded {
        let before = hex(before);
        let to = if outbound { "fd00:100::64" } else { "fd00:1::2" };
        assert_eq!(masqueraded(&before, &parsed6(&before), outbound, to), Ok(hex(after)), "{note}");
    }
}

#[test]
fn a_packet_with_one_hop_left_stops_and_is_left_as_it_was() {
    let four = "45000028223140000106a12aac1000010a00006480e80050000003e9000013895010faf065c40000";
    let six = "600000000014060120010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e9000013895010faf0efa40000";
    let (mut four, mut six) = (hex(four), hex(six));
    let (before4, before6) = (four.clone(), six.clone());
    assert_eq!(V4::direct(&mut four), Err(Stop::Exceeded));
    assert_eq!(V6::direct(&mut six), Err(Stop::Exceeded));
    assert_eq!(masqueraded(&four, &parsed4(&four), false, "10.1.0.2"), Err(Stop::Exceeded));
    assert_eq!(masqueraded(&six, &parsed6(&six), false, "fd00:1::2"), Err(Stop::Exceeded));
    assert_eq!((four, six), (before4, before6));
}

#[test]
fn direct_routing_is_as_recorded() {
    let mut four =
        hex("45000028223040000206a02bac1000010a00006480e80050000003e9000013895010faf065c40000");
    assert_eq!(V4::direct(&mut four), Ok(()));
    let after = "45000028223040000106a12bac1000010a00006480e80050000003e9000013895010faf065c40000";
    assert_eq!(four, hex(after));
    let mut six = hex(
        "600000000014064020010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e8000000005002faf0033d0000",
    );
    assert_eq!(V6::direct(&mut six), Ok(()));
    assert_eq!(six[7], 0x3f);
}

fn tunnelled<F: Rewrite>(outer: Outer, identification: u16, before: &str) -> Vec<u8> {
    let mut packet = hex(before);
    F::direct(&mut packet).unwrap();
    let mut whole = vec![0; outer.len()];
    assert!(outer.write(F::inner(&packet).unwrap(), identification, &mut whole));
    whole.extend(packet);
    whole
}

#[test]
fn tunnels_over_ipv4_are_as_recorded() {
    let outer = Outer::new("10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap()).unwrap();
    let recorded = [
        (
            "SYN",
            0x9999,
            "4500002c1111400040067346ac1000010a00006480e80050000003e8000000006002faf061a00000020405b4",
            "45000040000040003f0427b60a0100010a0100024500002c111140003f067446ac1000010a00006480e80050000003e8000000006002faf061a00000020405b4",
        ),
        (
            "without DF the outer header has an identification",
            0x7178,
            "45000028222200003f06a339ac1000010a00006480e80050000003e9000013895010faf065c40000",
            "4500003c717800003e04f7410a0100010a01000245000028222200003e06a439ac1000010a00006480e80050000003e9000013895010faf065c40000",
        ),
        (
            "ECT(1) and AF11",
            0,
            "4529002b222540004006620aac1000010a00006480e80050000003e9000013895018faf0a1560000616263",
            "4529003f000040003f04278e0a0100010a0100024529002b222540003f06630aac1000010a00006480e80050000003e9000013895018faf0a1560000616263",
        ),
        (
            "CE and CS1 without DF: ECT(0) outside",
            0x718d,
            "4523002c222600004006a20eac1000010a00006480e80050000003e9000013895018faf0a0f1000061626364",
            "45220040718d00003f04f6060a0100010a0100024523002c222600003f06a30eac1000010a00006480e80050000003e9000013895018faf0a0f1000061626364",
        ),
        (
            "TTL 2",
            0,
            "45000028223040000206a02bac1000010a00006480e80050000003e9000013895010faf065c40000",
            "4500003c00004000010465ba0a0100010a01000245000028223040000106a12bac1000010a00006480e80050000003e9000013895010faf065c40000",
        ),
    ];
    for (note, identification, before, after) in recorded {
        assert_eq!(tunnelled::<V4>(outer, identification, before), hex(after), "{note}");
    }
}

/// `pkt-tun-gre`, `pkt-tun-gue`: the first with DF, the second without.
#[test]
fn gre_and_gue_tunnels_are_as_recorded() {
    let gue = Encapsulation::Gue { port: 6080, checksum: false };
    let syn =
        "4500002c1111400040067346ac1000010a00006480e80050000003e8000000006002faf061a00000020405b4";
    let ack = "45000028222200003f06a339ac1000010a00006480e80050000003e9000013895010faf065c40000";
    let recorded = [
        (
            Encapsulation::Gre { checksum: false },
            (0, syn),
            "45000044000040003f2f27870a0100010a010002000008004500002c111140003f067446ac1000010a00006480e80050000003e8000000006002faf061a00000020405b4",
        ),
        (
            Encapsulation::Gre { checksum: false },
            (0x05ee, ack),
            "4500004005ee00003e2f629d0a0100010a0100020000080045000028222200003e06a439ac1000010a00006480e80050000003e9000013895010faf065c40000",
        ),
        (
            gue,
            (0, syn),
            "4500004c000040003f11279d0a0100010a0100028e9417c000380000000400004500002c111140003f067446ac1000010a00006480e80050000003e8000000006002faf061a00000020405b4",
        ),
        (
            gue,
            (0x1745, ack),
            "45000048174500003e11515c0a0100010a0100028e9417c0003400000004000045000028222200003e06a439ac1000010a00006480e80050000003e9000013895010faf065c40000",
        ),
    ];
    let (local, dest) = ("10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap());
    for (encapsulation, (identification, before), after) in recorded {
        let tunnel = Tunnel::new(local, dest, encapsulation).unwrap();
        let mut packet = hex(before);
        V4::direct(&mut packet).unwrap();
        let inner = V4::inner(&packet).unwrap();
        let mut whole = [vec![0; tunnel.len()], packet].concat();
        assert!(tunnel.write(inner, identification, 0x8e94, &mut whole));
        assert_eq!(whole, hex(after), "{encapsulation:?}");
    }
}

#[test]
fn tunnels_over_ipv6_are_as_recorded() {
    let outer = Outer::new("fd00:1::1".parse().unwrap(), "fd00:1::2".parse().unwrap()).unwrap();
    let recorded = [
        (
            "traffic class 0xb8",
            "6b8000000019064020010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e9000013895018faf0abc5000068656c6c6f",
            "6b8000000041293ffd000001000000000000000000000001fd0000010000000000000000000000026b8000000019063f20010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e9000013895018faf0abc5000068656c6c6f",
        ),
        (
            "CE",
            "603000000019064020010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e9000013895018faf0abc5000068656c6c6f",
            "602000000041293ffd000001000000000000000000000001fd000001000000000000000000000002603000000019063f20010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e9000013895018faf0abc5000068656c6c6f",
        ),
    ];
    for (note, before, after) in recorded {
        assert_eq!(tunnelled::<V6>(outer, 0, before), hex(after), "{note}");
    }
}

#[test]
fn translated_icmp_errors_are_as_recorded() {
    // (note, outbound, address and port, before, after)
    let recorded = [
        (
            "frag needed from a router behind the director",
            true,
            ("10.0.0.100", 80),
            "4500003812344000400172750a020009ac1000010304538600000514450005a0000440003f068040ac1000010a01000280e81f90000003e9",
            "45000038123440003f01731c0a000064ac100001030472c600000514450005a0000440003f067fdfac1000010a00006480e80050000003e9",
        ),
        (
            "host unreachable with 4 octets of TCP quoted",
            true,
            ("10.0.0.100", 80),
            "4500003412344000400172790a020009ac10000103015c8600000000450005a0000440003f068040ac1000010a01000280e81f90",
            "45000034123440003f0173200a000064ac10000103017bc600000000450005a0000440003f067fdfac1000010a00006480e80050",
        ),
        (
            "source quench",
            true,
            ("10.0.0.100", 80),
            "4500003812344000400172750a020009ac1000010400579e00000000450005a0000440003f068040ac1000010a01000280e81f90000003e9",
            "45000038123440003f01731c0a000064ac100001040076de00000000450005a0000440003f067fdfac1000010a00006480e80050000003e9",
        ),
        (
            "port unreachable from the UDP server",
            true,
            ("10.0.0.100", 53),
            "45000039123440004001727c0a010002ac1000010303b32b000000004500001d000940003f1185b3ac1000010a01000280e814e9000942f671",
            "45000039123440003f01731b0a000064ac1000010303c7df000000004500001d000940003f118552ac1000010a00006480e80035000942f671",
        ),
        (
            "frag needed from the client's side",
            false,
            ("10.1.0.2", 8080),
            "450000381234400040015c2cc00002010a0000640304633a00000500450005a0000a40003e0680d90a000064ac100001005080e800001389",
            "45000038123440003f015d8dc00002010a010002030443fa00000500450005a0000a40003e06813a0a010002ac1000011f9080e800001389",
        ),
    ];
    for (note, outbound, (to, port), before, after) in recorded {
        let mut packet = hex(before);
        let (kind, quote) = V4::message(&packet, 20).unwrap();
        assert_eq!(kind, Kind::Error, "{note}");
        assert!(V4::quoted(quote).unwrap().is_some(), "{note}");
        let to = (address::<V4>(to), port);
        assert_eq!(V4::translate_error(&mut packet, 20, outbound, to), Ok(()), "{note}");
        assert_eq!(packet, hex(after), "{note}");
    }
}

#[test]
fn translated_icmpv6_errors_are_as_recorded() {
    let mut packet = hex(concat!(
        "60000000003d3a40fd00000100000000000000000000000220010db8000000000000000000000077",
        "01046221000000006000",
        "0000000d114020010db8000000000000000000000077",
        "fd00000100000000000000000000000280e80035000d039b7175657279",
    ));
    let after = hex(concat!(
        "60000000003d3a3ffd00010000000000000000000000006420010db8000000000000000000000077",
        "01045f5f000000006000",
        "0000000d114020010db8000000000000000000000077",
        "fd00010000000000000000000000006480e80035000d039b7175657279",
    ));
    assert_eq!(V6::message(&packet, 40).map(|(kind, _)| kind), Ok(Kind::Error));
    let to = (address::<V6>("fd00:100::64"), 53);
    assert_eq!(V6::translate_error(&mut packet, 40, true, to), Ok(()));
    assert_eq!(packet, after);
}

#[test]
fn errors_that_linux_does_not_translate_are_none_here() {
    let wrong_sum = hex(
        "4500003812344000400172750a020009ac1000010304538600000514450005a0000440003f068040ac1000010a01000280e81f90000003e8",
    );
    assert_eq!(V4::message(&wrong_sum, 20), Err(Unusable::IcmpChecksum));
    let parameter_problem = hex(
        "4500003812344000400172750a020009ac1000010c004f9e00000000450005a0000440003f068040ac1000010a01000280e81f90000003e9",
    );
    assert_eq!(V4::message(&parameter_problem, 20).unwrap().0, Kind::Other);
    let redirect = hex(
        "4500003812344000400172750a020009ac10000105014c950a010007450005a0000440003f068040ac1000010a01000280e81f90000003e9",
    );
    assert_eq!(V4::message(&redirect, 20).unwrap().0, Kind::Other);
}

#[test]
fn reported_errors_and_echo_replies_are_as_recorded() {
    // Identifications and flow labels are the director's own choice: taken from the recording, 0.
    let about =
        hex("45000028223140000106a12aac1000010a00006480e80050000003e9000013895010faf065c40000");
    let mut place = [0; 576];
    let vip = address::<V4>("10.0.0.100");
    let len = V4::write_error(Error::TimeExceeded, vip, &about, 0x1106, &mut place).unwrap();
    let reported = "45c00044110600004001b27e0a000064ac1000010b00ab8f0000000045000028223140000106a12aac1000010a00006480e80050000003e9000013895010faf065c40000";
    assert_eq!(place[..len], hex(reported));

    let mut about =
        hex("450005c92301400040065bb9ac1000010a00006480e80050000003e9000013895010faf0fa220000");
    about.resize(1481, 0x66);
    V4::direct(&mut about).unwrap();
    let error = Error::TooBig { mtu: 1480 };
    let len = V4::write_error(error, vip, &about, 0xa6ab, &mut place).unwrap();
    assert_eq!(len, 576);
    let reported = "45c00240a6ab000040011add0a000064ac10000103047fcb000005c8450005c9230140003f065cb9ac1000010a00006480e80050000003e9000013895010faf0fa220000666666";
    assert_eq!(place[..hex(reported).len()], hex(reported));

    let about = hex(
        "600000000014060120010db8000000000000000000000077fd00010000000000000000000000006480e80050000003e9000013895010faf0efa40000",
    );
    let mut place = [0; 1280];
    let source = address::<V6>("fd00::1");
    let len = V6::write_error(Error::TimeExceeded, source, &about, 0, &mut place).unwrap();
    let reported = "6000000000443a40fd00000000000000000000000000000120010db800000000000000000000007703006b5400000000";
    assert_eq!(place[..len], [hex(reported), about].concat());

    let mut echo = hex("450000201234400040017234ac1000010a0000640800192d0001000170696e67");
    assert_eq!(V4::echo_reply(&mut echo, 20, 0x112a), Ok(32));
    let reply = hex("45000020112a00004001b33e0a000064ac1000010000212d0001000170696e67");
    assert_eq!(echo, reply);
    assert_eq!(V4::echo_reply(&mut echo, 20, 0), Err(Stop::Unparsed), "it is a reply now");
    assert_eq!(echo, reply);
    let mut echo = hex(
        "60000000000c3a4020010db8000000000000000000000077fd000100000000000000000000000064800074510001000170696e67",
    );
    assert_eq!(V6::echo_reply(&mut echo, 40, 0), Ok(52));
    let reply = "60000000000c3a40fd00010000000000000000000000006420010db8000000000000000000000077810073510001000170696e67";
    assert_eq!(echo, hex(reply));
}

#[test]
fn fragments_after_the_first_are_masqueraded_by_address_alone() {
    let mut packet = hex("450001ac3002006440119266ac1000010a000064");
    packet.extend([0x18; 408]);
    let (ip, _) = Ipv4::parse(&packet).unwrap();
    let (from, to) = (ip.destination(), address::<V4>("10.1.0.2"));
    let ends = <V4 as Family>::Ends::new((ip.source(), 0), (to, 0));
    let delta = V4::address_delta(from, to);
    let payload = packet[20..].to_vec();
    assert_eq!(V4::masquerade_fragment(&mut packet, &ends, delta), Ok(()));
    assert_eq!(packet[..20], hex("450001ac300200643f1193c7ac1000010a010002"));
    assert_eq!(packet[20..], payload);
}

#[test]
fn a_udp_checksum_of_zero_is_filled_in_whatever_it_comes_to() {
    let mut random = Random::new(3);
    for _ in 0..70_000 {
        let mut packet = examples::udp4();
        let at = packet.len() - 2;
        packet[at..].copy_from_slice(&[random.octet(), random.octet()]);
        packet[26..28].fill(0);
        let after = masqueraded(&packet, &parsed4(&packet), false, "192.0.2.11").unwrap();
        assert!(after[26..28] != [0, 0] && examples::adds_up(&after));
    }
}
