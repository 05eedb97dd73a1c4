//! What happens to rvsd itself, and to its clocks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{FOR_EVER, Play};
use crate::process::run;
use crate::topology::Family;

/// How long libfaketime goes without looking whether time has leapt, in seconds.
const LOOK_S: u64 = 1;

/// Until who was silent speaks again: by then time must have leapt, and rvsd have noticed.
const SILENCE_MS: u32 = 12_000;

pub(super) fn killed_rvsd(play: &mut Play<'_, '_>) -> Result<String> {
    let old = play.stays("rs1", Family::V4, 8000)?;
    let old6 = play.stays("rs1", Family::V6, 8000)?;
    let before = play.stage().adm(&["-Sn"])?;
    play.lab.director.kill()?;
    let begun = Instant::now();
    play.lab.restart_director(play.setup, play.limits)?;
    let mut tries = 0;
    play.limits.wait("a connection after the restart", Duration::from_mins(1), || {
        tries += 1;
        Ok(play.client("fresh", None, Family::V4, 50)?.end(play.limits).ok())
    })?;
    let gap = begun.elapsed().as_secs_f32();
    let after = play.stage().adm(&["-Sn"])?;
    ensure!(before == after, "other services than before:\n{before}\n{after}");
    let mut words = Vec::new();
    for (family, client) in [("IPv4", old), ("IPv6", old6)] {
        let complaint = client.end(play.limits).err().context("a connection survived")?;
        let complaint = format!("{complaint:#}");
        ensure!(complaint.contains("reset"), "{family}, {gap:.2} s without rvsd: {complaint}");
        words.push(format!("{family} {complaint}"));
    }
    let fresh = play.client("fresh", None, Family::V6, 300)?.end(play.limits)?;
    Ok(format!("served again after {gap:.2} s; {}; {fresh}", words.join(", ")))
}

pub(super) fn paused_rvsd(play: &mut Play<'_, '_>) -> Result<String> {
    let clients = play.steady(4000)?;
    play.lab.director.signal("STOP")?;
    thread::sleep(Duration::from_secs(2));
    play.lab.director.signal("CONT")?;
    play.ends(clients)
}

/// rvsd's clocks, which libfaketime shows it.
struct Clocks(std::path::PathBuf);

impl Clocks {
    /// Starts rvsd again with them. With `wall` only the time of day can leap.
    fn start(play: &mut Play<'_, '_>, wall: bool) -> Result<Self> {
        let library =
            run(Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]))
                .context("apt-get install faketime")?;
        let clocks = Self(play.lab.dir.join("clocks"));
        clocks.leap("+0")?;
        let mut environment = vec![
            ("LD_PRELOAD", library.trim().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", clocks.0.display().to_string()),
            ("FAKETIME_CACHE_DURATION", LOOK_S.to_string()),
        ];
        if wall {
            environment.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
        }
        play.restart(environment)?;
        let maps = Path::new("/proc").join(play.lab.director.id().to_string()).join("maps");
        ensure!(fs::read_to_string(maps)?.contains("libfaketime"), "rvsd goes without libfaketime");
        Ok(clocks)
    }

    /// From now on they are so far from what they were at the start.
    fn leap(&self, by: &str) -> Result<()> {
        Ok(fs::write(&self.0, format!("{by}\n"))?)
    }
}

pub(super) fn wall_clock(play: &mut Play<'_, '_>) -> Result<String> {
    let clocks = Clocks::start(play, true)?;
    let mut clients = play.steady(FOR_EVER)?;
    for family in Family::ALL {
        clients.push(play.client("fresh", None, family, FOR_EVER)?);
    }
    for by in ["+1y", "-10y", "+0"] {
        clocks.leap(by)?;
        thread::sleep(Duration::from_secs(LOOK_S) + Duration::from_millis(500));
    }
    play.go_on(clients)?;
    play.restart(Vec::new())?;
    Ok("a year ahead, ten back, and right again".to_owned())
}

pub(super) fn timers_leap(play: &mut Play<'_, '_>) -> Result<String> {
    let clocks = Clocks::start(play, false)?;
    let mut silent = Vec::new();
    for family in Family::ALL {
        silent.push(play.client("idle", None, family, SILENCE_MS)?);
    }
    let busy = play.steady(SILENCE_MS)?;
    play.limits.wait("all connections", Duration::from_secs(8), || {
        Ok((play.conns()? >= silent.len() + busy.len()).then_some(()))
    })?;
    clocks.leap("+1h")?;
    let silent = silent.into_iter().map(|client| client.end(play.limits));
    let silent = silent.collect::<Result<Vec<_>>>()?;
    ensure!(silent.iter().all(|said| said == "reset"), "silent ones: {silent:?}");
    let mut told = 0;
    for client in busy {
        match client.end(play.limits) {
            Ok(_) => {}
            Err(error) if format!("{error:#}").contains("reset") => told += 1,
            Err(error) => return Err(error.context("neither there nor told")),
        }
    }
    for family in Family::ALL {
        play.client("fresh", None, family, 300)?.end(play.limits)?;
    }
    play.restart(Vec::new())?;
    Ok(format!("an hour; silent connections are told, of busy ones {told}, new ones served"))
}
