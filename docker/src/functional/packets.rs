//! Datagrams, fragments, ICMP.

use anyhow::{Result, ensure};

use super::{PROBE, Scene};
use crate::process::run;
use crate::topology::Family;

pub(super) fn datagrams(scene: &Scene<'_>) -> Result<String> {
    // As long as a question with EDNS and a signed answer.
    scene.probe("datagrams", PROBE, &["--count", "2000", "--octets", "512"])
}

pub(super) fn fragments(scene: &Scene<'_>) -> Result<String> {
    scene.probe("datagrams", PROBE, &["--count", "200", "--octets", "4000"])?;
    scene.probe("datagrams", PROBE, &["--count", "20", "--octets", "30000"])?;
    Ok("200 of 4000 octets, 20 of 30 000".to_owned())
}

pub(super) fn ping(scene: &Scene<'_>) -> Result<String> {
    let mut ping = scene.client(30, "ping");
    let said = run(ping.args(["-n", "-c", "5", "-i", "0.1", "-W", "5", &scene.vip.to_string()]))?;
    let line = said.lines().find(|line| line.contains("packets transmitted"));
    ensure!(line.is_some_and(|line| line.contains("5 received")), "{said}");
    Ok(String::new())
}

/// The hops of a traceroute that ran with `arguments`.
fn hops(scene: &Scene<'_>, arguments: &[&str]) -> Result<Vec<String>> {
    let mut traceroute = scene.client(90, "traceroute");
    traceroute.args(["-n", "-q", "1", "-w", "5", "-m", "4"]).args(arguments);
    let said = run(&mut traceroute)?;
    let lines = said.lines().skip(1);
    Ok(lines.filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect())
}

/// The director's own address on the client's network.
fn director(scene: &Scene<'_>) -> Option<String> {
    let interfaces = scene.stage.topology().director.interfaces.first()?;
    let mut own = interfaces.addresses.iter().map(ipnet::IpNet::addr);
    own.find(|address| Family::of(*address) == scene.family).map(|address| address.to_string())
}

/// Does `act` with the addresses of director and first server, while the client's way to the server
/// is the director.
fn routed(scene: &Scene<'_>, act: impl FnOnce(&str, &str) -> Result<String>) -> Result<String> {
    let topology = scene.stage.topology();
    let director = director(scene).unwrap_or_default();
    let Some(dest) = topology.service.dests.first() else { return Ok(String::new()) };
    let server = topology.address_of(dest, scene.family)?.to_string();
    run(scene.client(30, "ip").args(["route", "replace", &server, "via", &director]))?;
    let said = act(&director, &server);
    run(scene.client(30, "ip").args(["route", "del", &server]))?;
    said
}

pub(super) fn traceroute(scene: &Scene<'_>) -> Result<String> {
    routed(scene, |director, server| {
        for way in ["-U", "-I", "-T"] {
            let found = hops(scene, &[way, server])?;
            ensure!(found == [director, server], "traceroute {way}: {found:?}");
        }
        Ok(format!("{director}, then {server}; by UDP, ICMP and TCP"))
    })
}

/// Not to be fragmented, to the director and through it.
pub(super) fn jumbo(scene: &Scene<'_>) -> Result<String> {
    let headers = if scene.family == Family::V4 { 20 + 8 } else { 40 + 8 };
    let payload = (9000 - headers).to_string();
    routed(scene, |_, server| {
        for host in [&scene.vip.to_string(), server] {
            let mut ping = scene.client(30, "ping");
            ping.args(["-n", "-c", "2", "-i", "0.1", "-W", "5", "-M", "do", "-s", &payload, host]);
            run(&mut ping)?;
        }
        Ok(format!("pings of the VIP, and of {server} through the director"))
    })
}

pub(super) fn tcptraceroute(scene: &Scene<'_>) -> Result<String> {
    let vip = scene.vip.to_string();
    let port = scene.stage.topology().service.port.to_string();
    let found = hops(scene, &["-T", "-p", &port, &vip])?;
    // The director tells what it was asked as: Linux's icmp_send() takes a local address that a
    // packet was for as the source of what it says about it.
    ensure!(found == [vip.clone(), vip.clone()], "{found:?}");
    Ok(String::new())
}
