//! What is asked of every peer, and what came of it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_lab::process::{command, run};
use serde_json::Value;

use crate::stage::{BULK, CLIENT, HTTP, SERVERS, Stage, VIP};
use crate::usage::Group;

/// Requests a second where latency is asked for.
const PACE: u32 = 2000;

/// One kind of work.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, clap::ValueEnum)]
pub enum Load {
    /// wrk, 32 connections that stay.
    Requests,
    /// wrk, a connection for each request.
    Connections,
    /// iperf3, one stream of TCP to the servers.
    Bulk,
    /// iperf3, eight.
    Bulk8,
    /// Datagrams of 18 octets, 64 flows, as many as the client can send.
    Small,
    /// Requests at a fixed rate.
    Latency,
    /// Nothing at all: what the director's programs use then.
    Idle,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Requests,
        Self::Connections,
        Self::Bulk,
        Self::Bulk8,
        Self::Small,
        Self::Latency,
        Self::Idle,
    ];
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figure {
    /// A second: requests, connections, Gbit, thousand datagrams that arrived. Of latency the median in
    /// µs; of nothing at all the per cent of a core.
    pub value: f64,
    /// The 99th and the 99.9th per cent of latencies, in µs.
    pub tail: [f64; 2],
    /// Microseconds of all processors' time for each request, connection, MB, thousand datagrams.
    pub cpu_us: f64,
}

/// The control groups of a run.
#[derive(Debug)]
pub struct Groups {
    /// Clients, servers, and this program.
    pub ends: Group,
    /// The director's programs.
    pub director: Group,
}

impl Groups {
    fn used(&self) -> Result<Duration> {
        Ok(self.ends.used()? + self.director.used()?)
    }
}

/// Does the work and measures it.
pub fn measure(load: Load, stage: &Stage, groups: &Groups, seconds: u32) -> Result<Figure> {
    if load == Load::Idle {
        std::thread::sleep(Duration::from_millis(500));
        let (used, begun) = (groups.director.used()?, Instant::now());
        std::thread::sleep(Duration::from_secs(u64::from(seconds)));
        let used = groups.director.used()?.saturating_sub(used);
        let value = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
        return Ok(Figure { value, ..Figure::default() });
    }
    let before = groups.used()?;
    let (figure, units) = match load {
        Load::Requests => wrk(stage, seconds, None)?,
        Load::Connections => wrk(stage, seconds, Some("Connection: close"))?,
        Load::Bulk => bulk(seconds, 1)?,
        Load::Bulk8 => bulk(seconds, 8)?,
        Load::Small => small(seconds)?,
        Load::Latency | Load::Idle => latency(seconds)?,
    };
    let used = groups.used()?.saturating_sub(before);
    Ok(Figure { cpu_us: used.as_secs_f64() * 1e6 / units.max(1.0), ..figure })
}

/// A program at the client, for `seconds` and a little longer.
fn client(program: &str, seconds: u32) -> Command {
    let mut client = command(Some(CLIENT), "timeout");
    client.arg((seconds + 8).to_string()).arg(program);
    client
}

fn number(value: &Value, pointer: &str) -> Result<f64> {
    let number = value.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("no {pointer} in what the program said"))
}

fn wrk(stage: &Stage, seconds: u32, header: Option<&str>) -> Result<(Figure, f64)> {
    let script = stage.dir.join("report.lua");
    std::fs::write(&script, include_str!("../report.lua"))?;
    let mut wrk = client("wrk", seconds);
    wrk.args(["-t1", "-c32", "--timeout", "5s"]).arg(format!("-d{seconds}s")).arg("-s").arg(script);
    wrk.args(header.iter().flat_map(|header| ["-H", header]));
    let said = run(wrk.arg(format!("http://{VIP}:{HTTP}/")))?;
    let line = said.lines().find_map(|line| line.strip_prefix("JSON "));
    let line: Value = serde_json::from_str(line.context("wrk told nothing")?)?;
    let requests = number(&line, "/requests")?;
    let errors = number(&line, "/errors")?;
    ensure!(errors <= requests / 1000.0, "{errors} of {requests} requests failed");
    let value = requests / (number(&line, "/us")? / 1e6);
    Ok((Figure { value, ..Figure::default() }, requests))
}

fn iperf(seconds: u32, arguments: &[&str]) -> Result<Value> {
    let mut iperf = client("iperf3", seconds);
    iperf.args(["-c", VIP, "-p", &BULK.to_string(), "-J", "--connect-timeout", "3000"]);
    iperf.args(["-t", &seconds.to_string()]).args(arguments);
    // iperf3 says what went wrong on its output, and only there.
    let output = iperf.output()?;
    let told: Value = serde_json::from_slice(&output.stdout).context("iperf3 told nothing")?;
    if let Some(error) = told.get("error").and_then(Value::as_str) {
        anyhow::bail!("iperf3: {error}");
    }
    Ok(told)
}

fn bulk(seconds: u32, streams: u32) -> Result<(Figure, f64)> {
    let told = iperf(seconds, &["-P", &streams.to_string()])?;
    let value = number(&told, "/end/sum_received/bits_per_second")? / 1e9;
    let megabytes = number(&told, "/end/sum_received/bytes")? / 1e6;
    Ok((Figure { value, ..Figure::default() }, megabytes))
}

fn small(seconds: u32) -> Result<(Figure, f64)> {
    let arrived = || -> Result<u64> {
        let mut ip = command(None, "ip");
        let said = run(ip.args(["-n", SERVERS, "-s", "-j", "link", "show", "dev", "r0"]))?;
        let told: Value = serde_json::from_str(&said)?;
        told.pointer("/0/stats64/rx/packets").and_then(Value::as_u64).context("no count of frames")
    };
    let own = std::env::current_exe()?;
    let mut flood = client(&own.to_string_lossy(), seconds);
    flood.args(["flood", &format!("{VIP}:{HTTP}"), &seconds.to_string()]);
    let before = arrived()?;
    let told: Value = serde_json::from_str(&run(&mut flood)?)?;
    std::thread::sleep(Duration::from_millis(200));
    let thousands = f64::from(u32::try_from(arrived()? - before)?) / 1000.0;
    let value = thousands / number(&told, "/seconds")?;
    Ok((Figure { value, ..Figure::default() }, thousands))
}

fn latency(seconds: u32) -> Result<(Figure, f64)> {
    let own = std::env::current_exe()?;
    let mut pace = client(&own.to_string_lossy(), seconds);
    pace.args(["pace", &format!("{VIP}:{HTTP}"), &PACE.to_string(), &seconds.to_string()]);
    let told: Value = serde_json::from_str(&run(&mut pace)?)?;
    let tail = [number(&told, "/p99")?, number(&told, "/p99.9")?];
    let figure = Figure { value: number(&told, "/p50")?, tail, cpu_us: 0.0 };
    Ok((figure, number(&told, "/requests")?))
}
