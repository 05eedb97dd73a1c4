//! What is special about tunnels: their kinds, and that packets grow.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Scene;
use super::http::upload_of;
use crate::inspect::{COMPLAINTS, Capture, fields};
use crate::process::run;
use crate::topology::Family;

/// Where each kind of tunnel has its service, and a real server listens.
pub(super) const PORTS: std::ops::Range<u16> = 8001..8013;

/// Options of `rvsadm -a`, and what a frame must be as tshark reads it: a filter for what is
/// right behind the outer header.
const KINDS: [(&str, &str); 6] = [
    ("--tun-type ipip", "OUTER.INNER"),
    ("--tun-type gre --tun-nocsum", "gre.flags_and_version == 0x0000"),
    ("--tun-type gre --tun-csum", "gre.flags_and_version == 0x8000"),
    ("--tun-type gue --tun-port 6080 --tun-nocsum", "udp.dstport == 6080 && udp.checksum == 0"),
    (
        "--tun-type gue --tun-port 6080 --tun-csum",
        "udp.dstport == 6080 && udp.checksum.status == 1",
    ),
    (
        "--tun-type gue --tun-port 6080 --tun-remcsum",
        "udp.dstport == 6080 && udp.checksum.status == 1",
    ),
];

pub(super) fn kinds(scene: &Scene<'_>) -> Result<String> {
    let topology = scene.stage.topology();
    let dest = topology.service.dests.first().context("no dests")?;
    let (host, device) = scene.stage.wire("servers");
    let file = scene.stage.dir().join(format!("kinds-{}.pcapng", scene.family.name()));
    let dumpcap = scene.visitor(&host, "dumpcap")?;
    let mut capture = Capture::start(dumpcap, &device, "", &file, scene.limits)?;
    let cases = Family::ALL.into_iter().flat_map(|outer| KINDS.map(|(o, f)| (outer, o, f)));
    let cases: Vec<_> = cases.collect();
    ensure!(cases.len() == PORTS.len(), "a port for each kind");
    for (port, (outer, options, _)) in PORTS.zip(&cases) {
        let what = format!("{} in {} {options}", scene.family.name(), outer.name());
        let vip = scene.at(port).to_string();
        scene.stage.adm(&["-A", "-t", &vip, "-s", "rr"])?;
        let real = SocketAddr::new(topology.address_of(dest, *outer)?, port).to_string();
        let mut words = vec!["-a", "-t", &vip, "-r", &real, "-i"];
        words.extend(options.split(' '));
        scene.stage.adm(&words).with_context(|| what.clone())?;
        let nc = format!(
            "head -c 2000 /dev/zero | tr '\\0' 'r' | nc -N -w 30 {} {port} | grep -q '^2000 octets'",
            scene.vip
        );
        scene.shell("client", &nc).with_context(|| what.clone())?;
        scene.stage.adm(&["-D", "-t", &vip])?;
    }
    capture.end(scene.limits)?;
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for (port, (outer, _, filter)) in PORTS.zip(&cases) {
        let right = match *filter {
            "OUTER.INNER" => match (outer, scene.family) {
                (Family::V4, Family::V4) => "ip.proto == 4",
                (Family::V4, Family::V6) => "ip.proto == 41",
                (Family::V6, Family::V4) => "ipv6.nxt == 4",
                (Family::V6, Family::V6) => "ipv6.nxt == 41",
            },
            filter => filter,
        };
        let inner = to_port(scene.family, filter, port);
        let outer = if *outer == Family::V4 { "eth.type == 0x0800" } else { "eth.type == 0x86dd" };
        all.push(format!("({inner})"));
        wrong.push(format!("({inner} && !({outer} && {right}))"));
    }
    let director = "eth.src == 02:00:00:00:00:02";
    let look = |filter: &str| fields(&file, &format!("{director} && ({filter})"), "frame.number");
    let found = look(&all.join(" || "))?.len();
    // A handshake, the data, both ends.
    ensure!(found >= 4 * cases.len(), "{found} frames into {} tunnels", cases.len());
    let wrong = look(&wrong.join(" || "))?;
    ensure!(wrong.is_empty(), "frames {wrong:?} of {found} are not as they should be");
    let wrong = look(COMPLAINTS)?;
    ensure!(wrong.is_empty(), "tshark complains about frames {wrong:?}");
    fs::remove_file(&file)?;
    Ok(format!("{} tunnels, {found} frames", cases.len()))
}

/// A filter for what goes to TCP port `port` through a tunnel. What GUE carries tshark leaves as
/// data: there the port is behind four octets of GUE, the IP header, and the source port.
fn to_port(inner: Family, kind: &str, port: u16) -> String {
    if !kind.starts_with("udp") {
        return format!("tcp.dstport == {port}");
    }
    let at = if inner == Family::V4 { 4 + 20 + 2 } else { 4 + 40 + 2 };
    format!("udp.payload[{at}:2] == {:02x}:{:02x}", port >> 8, port & 0xff)
}

/// The MTU that the client's kernel has learnt for the VIP.
fn learnt(scene: &Scene<'_>) -> Result<Option<u32>> {
    let route = run(scene.client(30, "ip").args(["route", "get", &scene.vip.to_string()]))?;
    let mut words = route.split_whitespace();
    let mtu = words.find(|word| *word == "mtu").and_then(|_| words.next());
    Ok(mtu.and_then(|mtu| mtu.parse().ok()))
}

/// From outside, where that can be: it takes a file that may not be written in a container.
fn forget(scene: &Scene<'_>) -> Result<()> {
    let family = if scene.family == Family::V4 { "-4" } else { "-6" };
    let mut ip = scene.visitor("client", "ip").unwrap_or_else(|_| scene.client(30, "ip"));
    run(ip.args([family, "route", "flush", "cache"])).map(drop)
}

pub(super) fn learns(scene: &Scene<'_>) -> Result<String> {
    forget(scene)?;
    let uploads = scene.stage.topology().service.dests.len();
    // Each goes to another server, through another kind of tunnel.
    for number in 0..uploads {
        upload_of(scene, (4 << 20) + number)?;
    }
    let mtu = learnt(scene)?.context("the client has learnt nothing")?;
    ensure!((1400..1500).contains(&mtu), "the client believes in an MTU of {mtu}");
    Ok(format!("{uploads} uploads of 4 MB, MTU {mtu}"))
}

pub(super) fn fragments(scene: &Scene<'_>) -> Result<String> {
    forget(scene)?;
    std::thread::sleep(Duration::from_millis(10));
    scene.stage.adm(&["tunable", "pmtu_disc=0"])?;
    let outcome = upload_of(scene, 4 << 20);
    scene.stage.adm(&["tunable", "pmtu_disc=1"])?;
    outcome?;
    match (scene.family, learnt(scene)?) {
        (Family::V4, None) => Ok("4 MB in fragments, nothing was learnt".to_owned()),
        // IPv6 knows no fragmenting on the way, so the director always tells.
        (Family::V6, Some(mtu)) => Ok(format!("IPv6 is told all the same: MTU {mtu}")),
        (_, learnt) => anyhow::bail!("the client learnt {learnt:?}"),
    }
}
