//! Connections: how they end, how long they live, where they come from.

use anyhow::{Context, Result, ensure};

use super::{PROBE, Scene};
use crate::probe::count;
use crate::process::run;

/// Where rvsd forwards to, and nobody listens.
const NOBODY: u16 = 7999;

pub(super) fn half_close(scene: &Scene<'_>) -> Result<String> {
    let octets = 3_000_000;
    // A pattern without line ends, so that the server counts.
    let (ip, port) = (scene.vip, PROBE);
    let line = format!("head -c {octets} /dev/zero | tr '\\0' 'r' | nc -N -w 30 {ip} {port}");
    let said = scene.shell("client", &line)?;
    let (mut place, mut sum) = (0, 0);
    let _ = count(&vec![b'r'; octets], &mut place, &mut sum);
    let wanted = format!("{place} octets {sum:x}\n");
    ensure!(said == wanted, "the server says {said:?}, not {wanted:?}");
    Ok("3 MB, then its sum".to_owned())
}

pub(super) fn reset(scene: &Scene<'_>) -> Result<String> {
    let said = scene.probe("reset", PROBE, &[])?;
    let port = said.trim();
    // With Linux's own word for it: CLOSE.
    let ending = |line: &&str| line.contains(&format!(":{port} ")) && line.contains(" CLOSE ");
    scene.wait("state CLOSE", || {
        let list = scene.stage.adm(&["-Lnc"])?;
        Ok(list.lines().any(|line| ending(&line)).then_some(()))
    })?;
    // And no server has it any more.
    for dest in &scene.stage.topology().service.dests {
        scene.wait(dest, || {
            let sockets = scene.shell(dest, "cat /proc/net/tcp6")?;
            // 01 is ESTABLISHED; our port is 1B58.
            let open = sockets.lines().filter(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let hex = port.parse::<u16>().map(|port| format!(":{port:04X}"));
                words.get(3) == Some(&"01")
                    && words
                        .get(2)
                        .is_some_and(|peer| hex.as_ref().is_ok_and(|h| peer.ends_with(h)))
            });
            Ok((open.count() == 0).then_some(()))
        })?;
    }
    Ok("state CLOSE, no socket left at the servers".to_owned())
}

pub(super) fn refused(scene: &Scene<'_>) -> Result<String> {
    scene.serve("-t", NOBODY, &scene.stage.topology().service.dests)?;
    let mut nc = scene.client(40, "nc");
    let output = nc.args(["-z", "-v", "-w", "30", &scene.vip.to_string()]).arg(NOBODY.to_string());
    let output = output.output().context("nc")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("refused") && !output.status.success(), "nc says {said:?}");
    let vip = scene.at(NOBODY).to_string();
    scene.stage.adm(&["-D", "-t", &vip])?;
    Ok(String::new())
}

/// Plays `what` with an established connection's time-out of three seconds.
fn with_short_timeout(scene: &Scene<'_>, millis: &str) -> Result<String> {
    let before = scene.stage.adm(&["-L", "--timeout"])?;
    let figures: Vec<_> = before.split_whitespace().filter(|w| w.parse::<u32>().is_ok()).collect();
    let [tcp, fin, udp] = figures[..] else {
        anyhow::bail!("not as ipvsadm prints timeouts: {before}");
    };
    scene.stage.adm(&["--set", "3", fin, udp])?;
    let said = scene.probe("idle", PROBE, &["--millis", millis]);
    scene.stage.adm(&["--set", tcp, fin, udp])?;
    Ok(said?.trim().to_owned())
}

pub(super) fn shorter(scene: &Scene<'_>) -> Result<String> {
    let said = with_short_timeout(scene, "1000")?;
    ensure!(said == "answered", "{said}");
    Ok("1 s of 3 s".to_owned())
}

pub(super) fn longer(scene: &Scene<'_>) -> Result<String> {
    let said = with_short_timeout(scene, "4000")?;
    ensure!(said == "reset", "{said}");
    Ok("4 s of 3 s".to_owned())
}

pub(super) fn port_reuse(scene: &Scene<'_>) -> Result<String> {
    scene.probe("reuse", PROBE, &["--from-port", "20045", "--count", "60"])
}

/// The sum of what `iperf3 --json` says went through.
pub(super) fn run_json(command: &mut std::process::Command) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&run(command)?)?)
}
