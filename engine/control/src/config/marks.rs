//! `[[mark]]`: what to look for in packets, and the mark that it gets.

use super::check::{Flaw, Unique, number};
use super::file::{self, File, Ports, Text};
use super::links::network;
use core::ops::RangeInclusive;
use ipnet::IpNet;
use rvs_model::Protocol;
use rvs_plane::marks::{MARKS_MAX, Rule};
use rvs_plane::network::{InterfaceId, Network};
use toml::Spanned;

const A_PROTOCOL: &str = "\"tcp\", \"udp\" or \"sctp\"";
const PORTS: &str = "a port or a range like \"8000-8999\"";

/// The list as it is written, top to bottom.
pub(super) fn rules(file: &File, text: &str, within: &Network) -> Result<Vec<Rule>, Flaw> {
    if let Some(beyond) = file.mark.get(MARKS_MAX) {
        return Err(Flaw::at(beyond, format!("too many marks, expected at most {MARKS_MAX}")));
    }
    let mut unique = Unique::new(text);
    let mut rules: Vec<Rule> = Vec::new();
    for written in &file.mark {
        let rule = rule(written.get_ref(), within)?;
        // A second one that looks for the same is a mistake: it would never be asked.
        unique.take(format!("{:?}", Rule { mark: 0, ..rule.clone() }), written, "such a mark")?;
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(written: &file::Mark, within: &Network) -> Result<Rule, Flaw> {
    let to_network =
        |key, value: &Option<Text>| value.as_ref().map(|value| network(key, value)).transpose();
    let source: Option<IpNet> = to_network("source", &written.source)?;
    let destination = to_network("destination", &written.destination)?;
    if let (Some(source), Some(destination), Some(value)) =
        (source, destination, &written.destination)
        && source.addr().is_ipv4() != destination.addr().is_ipv4()
    {
        let message = format!("destination is {destination}, expected the family of {source}");
        return Err(Flaw::at(value, message));
    }
    let interface = match &written.link {
        None => None,
        Some(link) => Some(named(link, within)?),
    };
    Ok(Rule {
        source,
        destination,
        protocol: written.protocol.as_ref().map(protocol).transpose()?,
        source_ports: ports("source_ports", written.source_ports.as_ref())?,
        destination_ports: ports("destination_ports", written.destination_ports.as_ref())?,
        interface,
        mark: number("set", &written.set, &(0..=u32::MAX.into()))?,
    })
}

fn named(link: &Text, within: &Network) -> Result<InterfaceId, Flaw> {
    let all = within.interfaces();
    let place = all.iter().position(|interface| interface.name == *link.get_ref());
    place.and_then(|place| u16::try_from(place).ok()).map(InterfaceId).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|interface| interface.name.as_str()).collect();
        let (found, known) = (link.get_ref(), known.join(", "));
        Flaw::at(link, format!("link is {found:?}, expected one of {known}"))
    })
}

fn protocol(value: &Text) -> Result<u8, Flaw> {
    let found = value.get_ref();
    let all = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];
    let known = all.iter().find(|(name, _)| name == found).map(|(_, known)| known.number());
    known.ok_or_else(|| Flaw::at(value, format!("protocol is {found:?}, expected {A_PROTOCOL}")))
}

fn ports(key: &str, value: Option<&Spanned<Ports>>) -> Result<RangeInclusive<u16>, Flaw> {
    let Some(value) = value else { return Ok(0..=u16::MAX) };
    let (found, range) = match value.get_ref() {
        Ports::One(port) => (port.to_string(), u16::try_from(*port).ok().map(|port| port..=port)),
        Ports::Range(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let range = first.trim().parse::<u16>().ok().zip(last.trim().parse::<u16>().ok());
            (format!("{text:?}"), range.map(|(first, last)| first..=last))
        }
    };
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| Flaw::at(value, format!("{key} is {found}, expected {PORTS}, 0 to 65535")))
}
