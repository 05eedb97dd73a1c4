//! `packets/`: every octet that leaves the director, and the frame's addresses.

use super::Maybe;
use crate::golden::Golden;
use crate::packet::{self, Look};
use crate::pieces;
use crate::rows;
use crate::scene::{self, Scene};
use crate::stage::{Sent, Side};
use crate::tally::{Aspect, Failure, Ledger, Place};
use core::fmt::Write as _;
use rvs_wire::checksum::{self, Delta};
use rvs_wire::ethernet::{self, Ethernet};
use rvs_wire::flow::protocol;
use serde::Deserialize;

/// A packet given, and what came of it.
#[derive(Debug, Deserialize)]
struct Event {
    note: String,
    #[serde(rename = "in")]
    given: Option<Given>,
    out: Option<Vec<Out>>,
    error: Option<String>,
    lnc: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Given {
    side: String,
    hex: String,
}

#[derive(Debug, Deserialize)]
struct Out {
    side: String,
    hex: String,
    dmac: Option<String>,
    smac: Option<String>,
}

pub(super) fn play(golden: &Golden, scene: &mut Scene, ledger: &mut Ledger) -> Result<(), Failure> {
    // Fragments that left so far of a packet that the recorded kernel has not forwarded yet.
    let mut pieces = Vec::new();
    for (event, number) in golden.events.iter().zip(0..) {
        let Ok(event) = serde_json::from_value::<Event>(event.clone()) else {
            super::leave_rest(golden, number, ledger);
            break;
        };
        let place = || Place::event(number, &event.note);
        if event.error.is_some() {
            continue;
        }
        if let Some(rows) = &event.lnc {
            compare_states(scene, ledger, place, rows);
        }
        if let (Some(given), Some(out)) = (&event.given, &event.out) {
            give(scene, ledger, place, given, out, &mut pieces)?;
        }
    }
    if let Some(rows) = golden.field::<Vec<String>>("lnc") {
        compare_states(scene, ledger, || Place::whole("ipvsadm -Lnc at the end"), &rows);
    }
    if let Some(stats) = golden.field::<String>("stats") {
        compare_stats(scene, ledger, &stats);
    }
    Ok(())
}

/// Counters, service by service.
fn compare_stats(scene: &mut Scene, ledger: &mut Ledger, stats: &str) {
    let got = scene.ipvsadm("-Ln --stats --exact").stdout;
    let (expected, got) = (blocks(stats), blocks(&got));
    let place = || Place::whole("ipvsadm -Ln --stats --exact at the end");
    ledger.compare(Aspect::Counts, place, &expected.len(), &got.len());
    for (expected, got) in expected.iter().zip(&got) {
        ledger.compare(Aspect::Counts, place, expected, got);
    }
}

/// The header of a listing, then each service with its destinations.
fn blocks(listing: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in listing.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with(' ') => {
                block.push('\n');
                block.push_str(line);
            }
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks
}

/// Connections and their states; the recording does not tell how much time went by.
fn compare_states(
    scene: &mut Scene,
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    rows: &[String],
) {
    let stdout = scene.ipvsadm("-Lnc").stdout;
    let expected = rows.iter().map(String::as_str);
    rows::compare_states(ledger, place, expected, stdout.lines());
}

fn give(
    scene: &mut Scene,
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    given: &Given,
    out: &[Out],
    held: &mut Vec<Leaving>,
) -> Result<(), Failure> {
    let side = if given.side == Side::Client.name() { Side::Client } else { Side::Servers };
    let (Some(packet), Some(expected)) = (octets(&given.hex), recorded(out)) else {
        ledger.leave_out("octets that cannot be read", 1);
        return Ok(());
    };
    let sent = match side {
        Side::Client => scene.from_client(&packet)?,
        Side::Servers => scene.from_server(&packet)?,
    };
    let mut expected: Vec<Leaving> = expected;
    let mut got: Vec<Leaving> = sent.iter().filter_map(seen).collect();
    if packet::look(&packet).is_some_and(|look| look.is_fragment) {
        held.append(&mut got);
        if expected.is_empty() {
            return Ok(());
        }
        got = core::mem::take(held);
        got.sort_by_key(|leaving| pieces::offset(&leaving.packet));
        if let Some((theirs, ours)) = through_tunnel(&expected).zip(through_tunnel(&got)) {
            (expected, got) = (vec![theirs], vec![ours]);
        }
    }
    for (expected, got) in expected.iter_mut().zip(&mut got) {
        // Told of its tunnel, the director tells the client.
        level(expected, got, if is_about_tunnel(&packet) { Side::Client } else { side });
    }
    let told = |all: &[Leaving]| all.iter().map(Leaving::told).collect::<Vec<_>>().join("\n");
    let told = || (Maybe(Some(told(&expected))).to_string(), told(&got));
    ledger.judge(Aspect::Bytes, expected == got, place, told);
    Ok(())
}

/// The packet whose fragments go through a tunnel in these, which are otherwise alike.
fn through_tunnel(all: &[Leaving]) -> Option<Leaving> {
    let is_tunnel = |leaving: &Leaving| {
        packet::look(&leaving.packet).is_some_and(|look| scene::OWN.contains(&look.source))
    };
    let packets: Vec<_> = all.iter().map(|leaving| leaving.packet.clone()).collect();
    let packet = pieces::through_tunnel(&packets).filter(|_| all.iter().all(is_tunnel))?;
    Some(Leaving { packet, ..all.first()?.clone() })
}

/// A packet on its way out.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Leaving {
    side: String,
    /// Destination and source Ethernet address.
    macs: Option<(String, String)>,
    packet: Vec<u8>,
}

impl Leaving {
    fn told(&self) -> String {
        let (to, from) = self.macs.clone().unwrap_or_default();
        format!("{} {to} {from} {}", self.side, hex(&self.packet))
    }
}

fn recorded(out: &[Out]) -> Option<Vec<Leaving>> {
    let read = |out: &Out| {
        let macs = out.dmac.clone().zip(out.smac.clone());
        Some(Leaving { side: out.side.clone(), macs, packet: octets(&out.hex)? })
    };
    out.iter().map(read).collect()
}

fn seen(sent: &Sent) -> Option<Leaving> {
    let (ethernet, _) = Ethernet::parse(&sent.frame).ok()?;
    let macs = (hex(&ethernet.destination().0), hex(&ethernet.source().0));
    let packet = leaving(sent)?;
    Some(Leaving { side: sent.side.name().to_owned(), macs: Some(macs), packet })
}

/// The packet that the director sent in a frame.
pub(crate) fn leaving(sent: &Sent) -> Option<Vec<u8>> {
    Some(sent.frame.get(ethernet::HEADER_LEN..)?.to_vec())
}

/// Whether a packet is an ICMP error about one of the director's own.
fn is_about_tunnel(packet: &[u8]) -> bool {
    let look = packet::look(packet).filter(Look::is_icmp_error);
    let quoted = look.and_then(|look| packet::look(packet.get(look.l4 + 8..)?));
    quoted.is_some_and(|quoted| scene::OWN.contains(&quoted.source))
}

/// Makes equal what is random in packets that the director itself makes: the identification of
/// IPv4 packets that may be fragmented, the flow label of IPv6 packets, the source port of GUE; and
/// the identification of IPv6 fragments, which Linux puts together and cuts anew.
fn level(expected: &mut Leaving, got: &mut Leaving, given_on: Side) {
    if expected.macs.is_none() {
        got.macs = None;
    }
    for packet in [&mut expected.packet, &mut got.packet] {
        blank_fragment(packet);
    }
    let made_here = |leaving: &Leaving| {
        packet::look(&leaving.packet).is_some_and(|look| is_made_here(leaving, &look, given_on))
    };
    if !made_here(expected) || !made_here(got) {
        return;
    }
    level_identification(&mut expected.packet, &mut got.packet);
    let ports = [&expected.packet, &got.packet].map(|packet| flow_port(packet).is_some());
    for packet in [&mut expected.packet, &mut got.packet] {
        level_v6(packet);
        if ports == [true; 2] {
            blank_flow_port(packet);
        }
    }
}

/// Where the source port of a tunnel's datagram stands, if it is one that Linux chooses for flows
/// (`udp_flow_src_port()`: by a hash with a key of its own at every start).
fn flow_port(packet: &[u8]) -> Option<usize> {
    let look = packet::look(packet).filter(|look| look.protocol == protocol::UDP)?;
    let port = u16::from_be_bytes(*packet.get(look.l4..)?.first_chunk()?);
    let offset = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) << 3;
    let is_first = packet.first()? >> 4 == 6 || offset == 0;
    let is_tunnel = scene::OWN.contains(&look.source) && (32_768..60_999).contains(&port);
    (is_first && is_tunnel).then_some(look.l4)
}

/// Takes that port out, and out of the checksum if there is one.
fn blank_flow_port(packet: &mut [u8]) {
    let place = flow_port(packet).and_then(|at| packet.get_mut(at..));
    let Some(udp) = place.and_then(<[u8]>::first_chunk_mut::<8>) else { return };
    let [a, b, _, _, _, _, c, d] = udp;
    if [*c, *d] != [0, 0] {
        [*c, *d] = Delta::word(u16::from_be_bytes([*a, *b]), 0).apply_udp([*c, *d]);
    }
    (*a, *b) = (0, 0);
}

/// Whether the director made a packet: from its own address, as a tunnel's outer packet is, or an
/// answer of a VIP on the side where the question came from.
fn is_made_here(leaving: &Leaving, look: &Look, given_on: Side) -> bool {
    let is_answer = scene::is_local(look.source) && leaving.side == given_on.name();
    is_answer || scene::OWN.contains(&look.source)
}

/// Blanks the identifications if both are there; one that is zero is so for a reason.
fn level_identification(expected: &mut [u8], got: &mut [u8]) {
    let identification = |packet: &[u8]| match packet {
        [first, _, _, _, a, b, ..] if first >> 4 == 4 => u16::from_be_bytes([*a, *b]),
        _ => 0,
    };
    if identification(expected) != 0 && identification(got) != 0 {
        for packet in [expected, got] {
            blank_identification(packet);
        }
    }
}

fn blank_identification(packet: &mut [u8]) {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let Some(header) = packet.get_mut(..header_len) else { return };
    // A header whose checksum is wrong keeps a wrong one.
    let was_right = checksum::is_right(header, 0);
    for octets in [4..6, 10..12] {
        if let Some(place) = header.get_mut(octets) {
            place.fill(0);
        }
    }
    let sum = if was_right { checksum::checksum(header, 0) } else { [0xff, 0xff] };
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&sum);
    }
}

fn level_v6(packet: &mut [u8]) {
    let Some(fixed) = packet.first_chunk_mut::<40>().filter(|fixed| fixed[0] >> 4 == 6) else {
        return;
    };
    fixed[1] &= 0xf0;
    [fixed[2], fixed[3]] = [0, 0];
}

fn blank_fragment(packet: &mut [u8]) {
    let is_fragment = matches!(packet, [first, _, _, _, _, _, 44, ..] if *first >> 4 == 6);
    if let Some(identification) = packet.get_mut(44..48).filter(|_| is_fragment) {
        identification.fill(0);
    }
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Octets as recordings write them.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _always = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo reply of 10.0.0.100 with this identification.
    fn reply(identification: u16) -> Leaving {
        let header = rvs_wire::ipv4::Header {
            tos: 0,
            payload_len: 8,
            identification,
            dont_fragment: false,
            ttl: 64,
            protocol: protocol::ICMP,
            source: [10, 0, 0, 100].into(),
            destination: [172, 16, 0, 1].into(),
        };
        let packet = [header.octets().as_slice(), &[0, 0, 0xff, 0xff, 0, 0, 0, 0]].concat();
        Leaving { side: "client".to_owned(), macs: None, packet }
    }

    #[test]
    fn identifications_of_own_packets_may_differ_but_not_be_missing() {
        for (ours, equal) in [(7, true), (8, true), (0, false)] {
            let (mut expected, mut got) = (reply(7), reply(ours));
            level(&mut expected, &mut got, Side::Client);
            assert_eq!(expected == got, equal, "{ours}");
        }
    }

    #[test]
    fn what_is_passed_on_keeps_its_identification() {
        let (mut expected, mut got) = (reply(7), reply(8));
        level(&mut expected, &mut got, Side::Servers);
        assert_ne!(expected, got);
    }

    #[test]
    fn a_wrong_header_checksum_stays_a_difference() {
        let (mut expected, mut got) = (reply(7), reply(8));
        got.packet[10] ^= 1;
        level(&mut expected, &mut got, Side::Client);
        assert_ne!(expected, got);
    }
}
