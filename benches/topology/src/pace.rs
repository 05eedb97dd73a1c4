//! Requests at a fixed rate, each timed from when it was due: what a client that does not wait for
//! slow answers sees.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

/// Connections that requests are shared out to.
const CONNECTIONS: usize = 16;

struct Connection {
    stream: TcpStream,
    due: Option<Instant>,
    left: usize,
}

/// Asks `to` for `/` and prints how long the answers took, as JSON.
pub fn act(to: SocketAddr, rate: u32, seconds: u32) -> Result<()> {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = answer_octets(to, request)?;
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        all.push(Connection { stream, due: None, left: 0 });
    }
    let mut times = Histogram::<u64>::new(3)?;
    let (gap, requests) = (Duration::from_secs(1) / rate, rate * seconds);
    let start = Instant::now();
    let hard = start + Duration::from_secs(u64::from(seconds) + 3);
    let (mut next, mut asked) = (start, 0);
    let mut octets = [0; 8192];
    while (asked < requests || all.iter().any(|one| one.due.is_some())) && Instant::now() < hard {
        while asked < requests
            && next <= Instant::now()
            && let Some(one) = all.iter_mut().find(|one| one.due.is_none())
        {
            one.stream.write_all(request)?;
            (one.due, one.left) = (Some(next), answer);
            (next, asked) = (next + gap, asked + 1);
        }
        wait(&all, if asked < requests { next } else { hard })?;
        for one in &mut all {
            let Some(due) = one.due else { continue };
            match one.stream.read(&mut octets) {
                Ok(0) => anyhow::bail!("the server hung up"),
                Ok(len) => one.left = one.left.saturating_sub(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("reading an answer"),
            }
            if one.left == 0 {
                one.due = None;
                times.record(u64::try_from(due.elapsed().as_nanos())?)?;
            }
        }
    }
    let us = |quantile| {
        let ns = u32::try_from(times.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(ns) / 1000.0
    };
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(us);
    println!("{}", json!({ "requests": times.len(), "p50": p50, "p99": p99, "p99.9": p999 }));
    Ok(())
}

/// How long one answer is; all are alike.
fn answer_octets(to: SocketAddr, request: &[u8]) -> Result<usize> {
    let mut stream = TcpStream::connect(to).context("the first connection")?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.write_all(request)?;
    let (mut octets, mut answer) = ([0; 4096], 0);
    while let Ok(len @ 1..) = stream.read(&mut octets) {
        answer += len;
    }
    ensure!(answer > 0, "no answer");
    Ok(answer)
}

/// Until an answer comes or the next request is due.
fn wait(all: &[Connection], until: Instant) -> Result<()> {
    let waiting = all.iter().filter(|one| one.due.is_some());
    let mut waiting: Vec<_> = waiting.map(|one| PollFd::new(&one.stream, PollFlags::IN)).collect();
    let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
    let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut waiting, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
