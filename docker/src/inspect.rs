//! What a third party thinks of the frames that rvsd sends.
//!
//! dumpcap records them at the kernel's end of each TAP; afterwards tshark dissects them with every
//! checksum checked. Only rvsd's frames: those of the hosts' kernels may have checksums that their
//! device was to complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::process::{Daemon, Limits, command, run};
use crate::topology::Topology;

/// What tshark must not find.
///
/// A sum of 0xffff where RFC 1624 would have 0x0000 is right to every receiver, and the kernel's own:
/// Linux 6.1 `net/core/dev.c` `skb_checksum_help()` gives it to one in 65 536 TCP segments too.
pub const COMPLAINTS: &str = "_ws.malformed || ip.checksum.status == 0 \
    || (tcp.checksum.status == 0 && !tcp.checksum.ffff) \
    || udp.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0";

/// tshark checks these only when told.
const CHECKED: [&str; 3] =
    ["ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"];

/// A capture whose file has not grown for so long is complete; dumpcap's own wait is a quarter of it.
const QUIET: Duration = Duration::from_secs(1);

/// A running capture of every link of the director.
#[derive(Debug)]
pub struct Inspection {
    captures: Vec<(String, Capture)>,
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    dumpcap: Daemon,
    file: PathBuf,
}

impl Capture {
    /// By `dumpcap`, its command without arguments, of the frames on `device` that the capture filter
    /// `filter` takes; returns when it runs.
    ///
    /// # Errors
    ///
    /// dumpcap cannot be started.
    pub fn start(
        mut dumpcap: Command,
        device: &str,
        filter: &str,
        file: &Path,
        limits: &Limits,
    ) -> Result<Self> {
        dumpcap.args(["-q", "-i", device, "-f", filter, "-w"]).arg(file);
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let dir = file.parent().unwrap_or(Path::new("."));
        let mut dumpcap = Daemon::start(&format!("{name}.dumpcap"), dumpcap, dir)?;
        dumpcap.wait_for_line("File:", limits)?;
        Ok(Self { dumpcap, file: file.to_owned() })
    }

    /// Ends it, when the file is complete.
    ///
    /// # Errors
    ///
    /// It ended before.
    pub fn end(&mut self, limits: &Limits) -> Result<()> {
        written_out(&self.file, limits)?;
        self.dumpcap.terminate(limits).map(drop)
    }
}

/// What the captures showed.
#[derive(Debug, Default)]
pub struct Findings {
    /// Frames that rvsd sent, over all links.
    pub frames: usize,
    /// tshark's line for each frame that is not right.
    pub complaints: Vec<String>,
}

impl Inspection {
    /// Starts it; returns when every capture runs.
    ///
    /// # Errors
    ///
    /// dumpcap cannot be started.
    pub fn start(
        topology: &Topology,
        netns: &Netns<'_>,
        dir: &Path,
        limits: &Limits,
    ) -> Result<Self> {
        let mut captures = Vec::new();
        for interface in &topology.director.interfaces {
            let network = interface.network.clone();
            let (host, device) = netns.far_end(&network);
            let file = dir.join(format!("{network}.pcapng"));
            let ours = format!("ether src {}", interface.mac);
            let dumpcap = command(Some(&host), "dumpcap");
            captures.push((network, Capture::start(dumpcap, &device, &ours, &file, limits)?));
        }
        Ok(Self { captures })
    }

    /// Ends it and lets tshark judge.
    ///
    /// # Errors
    ///
    /// A capture ended before, is empty, or cannot be read.
    pub fn end(self, limits: &Limits) -> Result<Findings> {
        let mut findings = Findings::default();
        for (network, mut capture) in self.captures {
            capture.end(limits).with_context(|| format!("the capture on {network}"))?;
            let file = capture.file;
            let frames = dissect(&file, "frame")?.lines().count();
            ensure!(frames > 0, "rvsd sent no frame on {network}");
            findings.frames += frames;
            let complaints = dissect(&file, COMPLAINTS)?;
            findings.complaints.extend(complaints.lines().map(|line| format!("{network}: {line}")));
        }
        Ok(findings)
    }
}

/// Waits until `file` grows no more: the kernel hands frames over in blocks, some time later, and
/// dumpcap does not wait for the last one.
fn written_out(file: &Path, limits: &Limits) -> Result<()> {
    let (mut octets, mut since) = (0, Instant::now());
    limits.wait("the end of a capture", Duration::from_mins(1), || {
        let now = fs::metadata(file)?.len();
        if now != octets {
            (octets, since) = (now, Instant::now());
        }
        Ok((since.elapsed() > QUIET).then_some(()))
    })
}

/// The value of `field` of each frame of `file` that `filter` lets through.
///
/// # Errors
///
/// tshark's, about the file or the filter.
pub fn fields(file: &Path, filter: &str, field: &str) -> Result<Vec<String>> {
    let said = run(tshark(file, filter).args(["-T", "fields", "-e", field]))?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// A line for each frame of `file` that `filter` lets through.
fn dissect(file: &Path, filter: &str) -> Result<String> {
    run(&mut tshark(file, filter))
}

fn tshark(file: &Path, filter: &str) -> Command {
    let mut tshark = command(None, "tshark");
    tshark.arg("-n").arg("-r").arg(file).args(["-Y", filter]);
    // What GUE carries it does not know, and would take for what the hashed source port stands for.
    tshark.args(["-d", "udp.port==6080,data"]);
    for preference in CHECKED {
        tshark.args(["-o", preference]);
    }
    tshark
}
