//! What happens to servers and cables.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{FOR_EVER, Play};
use crate::netns::{SWITCH, tap_name};
use crate::process::run;
use crate::topology::Family;

pub(super) fn killed_server(play: &mut Play<'_, '_>) -> Result<String> {
    let other = play.stays("rs2", Family::V4, 2000)?;
    let its = play.stays("rs1", Family::V4, FOR_EVER)?;
    play.server(0)?.signal("KILL")?;
    let limits = play.limits;
    play.server(0)?.wait(Duration::from_secs(30), limits)?;
    let begun = Instant::now();
    let to_dead = play.client("fresh", Some("rs1"), Family::V4, 100)?.end(play.limits);
    let refusal = begun.elapsed();
    let complaint = format!("{:#}", to_dead.err().context("somebody answered for the dead")?);
    ensure!(complaint.contains("refused"), "{complaint}");
    // A time-out would be longer; the rest is what a busy machine takes to start a client.
    ensure!(refusal < Duration::from_secs(5), "refused after {refusal:?}");
    let complaint = its.end(play.limits).err().context("a dead server's connection lived on")?;
    let said = other.end(play.limits)?;
    let again = play.serve("rs1")?;
    *play.server(0)? = again;
    play.client("fresh", Some("rs1"), Family::V4, 200)?.end(play.limits)?;
    Ok(format!("its connections: {complaint:#}; the other's: {said}"))
}

pub(super) fn paused_server(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(2500)?;
    play.server(0)?.signal("STOP")?;
    thread::sleep(Duration::from_secs(1));
    play.server(0)?.signal("CONT")?;
    play.ends(clients)
}

pub(super) fn pulled_cable(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(4000)?;
    for interface in &play.lab.topology.director.interfaces {
        let port = tap_name(&interface.network);
        let set = |state| run(Command::new("ip").args(["-n", SWITCH, "link", "set", &port, state]));
        set("down")?;
        thread::sleep(Duration::from_millis(500));
        set("up")?;
    }
    play.ends(clients)
}

pub(super) fn changed_mac(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(4000)?;
    // As a virtual machine that moves, or an address that fails over, says it.
    for key in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
        let line = format!("echo 1 > /proc/sys/net/{key}");
        run(play.stage().command("rs1", "sh").args(["-c", &line]))?;
    }
    let change = ["link", "set", "eth0", "address", "02:00:00:00:99:11"];
    run(play.stage().command("rs1", "ip").args(change))?;
    play.ends(clients)
}
