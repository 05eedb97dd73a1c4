//! What is done to rvsd's control: thousands of changes and files, floods, a disk that is full.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_adm::{NumbersOnly, SocketTransport};

use super::{FOR_EVER, PORT, Play};
use crate::process::run_with_input;
use crate::topology::Family;

/// Changes of the act that makes many, and files of the one that applies many.
const RELOADS: usize = 10_000;

/// Clients of the act that floods the control socket.
const FLOOD: usize = 500;

pub(super) fn reloads(play: &mut Play<'_, '_>) -> Result<String> {
    let mut rules = String::new();
    let real = SocketAddr::new(play.lab.topology.address_of("rs1", Family::V4)?, PORT);
    let vip = play.vip(None, Family::V4)?;
    for number in 0..RELOADS / 5 {
        let other = SocketAddr::new(vip.ip(), 9000 + u16::try_from(number % 500)?);
        let weight = 1 + number % 9;
        writeln!(rules, "-A -t {other} -s wrr\n-a -t {other} -r {real} -m")?;
        writeln!(rules, "-e -t {vip} -r {real} -m -w {weight}\n-E -t {vip} -s wlc\n-D -t {other}")?;
    }
    // The table's places for what is deleted are taken once, so that the second time shows leaks.
    let adm = || {
        let mut adm = Command::new("timeout");
        adm.arg("120").arg(play.setup.bin.join("rvsadm")).arg("-R");
        adm.env("RVS_SOCKET", play.lab.director.socket());
        adm
    };
    let before = play.resources()?;
    let mut clients = play.steady(4000)?;
    clients.push(play.client("fresh", None, Family::V4, 4000)?);
    clients.push(play.client("fresh", None, Family::V6, 4000)?);
    let begun = Instant::now();
    let rules: Vec<_> = rules.lines().collect();
    for some in rules.chunks(RELOADS / 50) {
        run_with_input(&mut adm(), &(some.join("\n") + "\n"))?;
    }
    let time = begun.elapsed().as_secs_f32();
    let said = play.ends(clients)?;
    let list = play.stage().adm(&["-Ln"])?;
    ensure!(!list.contains(":9"), "services were left: {list}");
    let growth = play.resources()?.memory_kb.saturating_sub(before.memory_kb);
    Ok(format!("{RELOADS} changes in {time:.1} s, {growth} KB more; {said}"))
}

/// Two files, in turns: weights, a scheduler, time-outs, a service that comes and goes.
pub(super) fn applies(play: &mut Play<'_, '_>) -> Result<String> {
    let one = play.stage().adm(&["save"])?;
    let vip = SocketAddr::new(play.vip(None, Family::V4)?.ip(), 9999);
    let real = SocketAddr::new(play.lab.topology.address_of("rs1", Family::V4)?, PORT);
    let other = one.replace("weight = 1", "weight = 3").replace("\"rr\"", "\"wrr\"")
        + &format!(
            "\n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}\"\nscheduler = \"lc\"\n\n\
             [[service.dest]]\naddress = \"{real}\"\nmethod = \"masquerade\"\n"
        );
    let files = [("one.toml", &one), ("other.toml", &other)].map(|(name, text)| {
        let file = play.lab.dir.join(name);
        fs::write(&file, text).map(|()| file)
    });
    let files = files.into_iter().collect::<Result<Vec<_>, _>>()?;
    let socket = play.lab.director.socket().to_owned();
    let apply = |file: &Path| {
        // As the program does it, each time by a connection of its own, but for starting a process.
        let argv = ["rvsadm", "apply", &file.to_string_lossy()].map(str::to_owned);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut rvsd = SocketTransport::new(socket.clone());
        let status =
            rvs_adm::run(&argv, &mut io::empty(), &mut rvsd, &NumbersOnly, &mut out, &mut err);
        ensure!(status == 0, "apply: {}", String::from_utf8_lossy(&err));
        Ok(())
    };
    // Both once, so that the table has had all places that it needs.
    files.iter().rev().try_for_each(|file| apply(file))?;
    let before = play.resources()?;
    let mut clients = play.steady(FOR_EVER)?;
    clients.push(play.client("fresh", None, Family::V4, FOR_EVER)?);
    clients.push(play.client("fresh", None, Family::V6, FOR_EVER)?);
    let begun = Instant::now();
    for file in files.iter().rev().cycle().take(RELOADS) {
        play.limits.check()?;
        apply(file)?;
    }
    let time = begun.elapsed().as_secs_f32();
    play.go_on(clients)?;
    let after = play.stage().adm(&["save"])?;
    ensure!(after == one, "not what the file says:\n{after}");
    let growth = play.resources()?.memory_kb.saturating_sub(before.memory_kb);
    Ok(format!("{RELOADS} files in {time:.1} s, {growth} KB more"))
}

pub(super) fn flood(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(3000)?;
    let mut sockets = Vec::new();
    let mut refused = 0;
    for number in 0..FLOOD {
        // A listener whose queue is full answers so, and does not make us wait.
        let Ok(mut socket) = UnixStream::connect(play.lab.director.socket()) else {
            refused += 1;
            continue;
        };
        socket.set_nonblocking(true)?;
        // Some say nothing, some nonsense, some half a message.
        let words: &[u8] = match number % 3 {
            0 => b"",
            1 => b"\xff\xff\xff\xff nonsense \n\0\0\0",
            _ => b"{\"version\":",
        };
        let _ = socket.write_all(words);
        sockets.push(socket);
    }
    let held = sockets.len();
    drop(sockets);
    let begun = Instant::now();
    play.limits.wait("rvsadm after the flood", Duration::from_mins(1), || {
        Ok(play.stage().adm(&["-Ln"]).ok())
    })?;
    let wait = begun.elapsed().as_millis();
    let said = play.ends(clients)?;
    Ok(format!("{held} clients at once, {refused} refused; rvsadm {wait} ms later; {said}"))
}

pub(super) fn full_disk(play: &mut Play<'_, '_>) -> Result<String> {
    let filler = play.lab.dir.join("filler");
    let mut file = OpenOptions::new().create(true).append(true).open(&filler)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
    let clients = play.steady(1500)?;
    let vip = SocketAddr::new(play.vip(None, Family::V4)?.ip(), 9999).to_string();
    // What is left of the state file's last block takes some.
    let (add, remove) = (["-A", "-t", &vip, "-s", "rr"], ["-D", "-t", &vip]);
    let mut taken = 0;
    let why = loop {
        ensure!(taken < 100, "{taken} changes were taken though there was no room to keep them");
        let is_there = taken % 2 == 1;
        let change: &[&str] = if is_there { &remove } else { &add };
        match play.stage().adm(change) {
            Ok(_) => taken += 1,
            Err(why) => break format!("{why:#}"),
        }
    };
    let list = play.stage().adm(&["-Ln"])?;
    drop(file);
    fs::remove_file(&filler)?;
    ensure!(why.contains("No space left"), "{why}");
    ensure!(list.contains(&vip) == (taken % 2 == 1), "half a change: {list}");
    let said = play.ends(clients)?;
    if taken % 2 == 0 {
        play.stage().adm(&add).context("with room again")?;
    }
    play.stage().adm(&remove)?;
    Ok(format!("refused after {taken}: No space left; {said}"))
}
