//! Scenarios: captures in, captures out, for people to read.
//!
//! A folder of `scenarios/` is a claim, and its name says which. It holds what an operator would
//! have: `setup.ipvs` (what `ipvsadm --save` prints), `network.toml` (rvsd's configuration, if not
//! the one all share), what arrives on each link (`client.in.pcap`, `servers.in.pcap`), what leaves
//! (`client.out.pcap`, `servers.out.pcap`) and what was counted (`counters.txt`). The captures are
//! played to the whole director, control plane and worker, each frame at its time, and what leaves
//! must be the same to the octet.
//!
//! What arrives may be a capture of anything; that of the folders named in `scenarios/inputs.rs` is
//! made by code there. `RVS_BLESS=1` writes all but what people write. Look at the difference before
//! you commit it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "rig/frames.rs"]
mod frames;
#[path = "scenarios/inputs.rs"]
mod inputs;

use core::time::Duration;
use inputs::Film;
use rvs_adm::NumbersOnly;
use rvs_conformance::stage::Stage;
use rvs_control::config::{Config, Links, Machine, PcapLink};
use rvs_io::Reserve;
use rvs_io::pcap::{PcapQueue, Recorder, Replay, Resolution, SNAP_MAX};
use rvs_model::{TICKS_PER_SECOND, Tick};
use rvs_plane::drop_reason::drop_counters;
use rvs_plane::shared::FrameCounts;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Time goes on for so long after the last frame: three requests to a neighbour, and a bit.
const EPILOGUE: Tick = 5 * TICKS_PER_SECOND;
const TICK: Duration = Duration::from_millis(125);
const _: () = assert!(TICKS_PER_SECOND == 8);
/// When the captures begin, in seconds since 1970: all of them in the same year of nobody's life.
const EPOCH_S: u64 = 1_000_000_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn blesses() -> bool {
    std::env::var_os("RVS_BLESS").is_some_and(|value| value == "1")
}

/// Compares a file with what it should hold, or writes it.
fn hold(path: &Path, content: &[u8], complaints: &mut Vec<String>) {
    if blesses() {
        fs::write(path, content).unwrap();
        return;
    }
    let there = fs::read(path).unwrap_or_default();
    if there != content {
        complaints.push(format!("{}: {}", path.display(), first_difference(path, &there, content)));
    }
}

/// Where two files differ, in words.
fn first_difference(path: &Path, there: &[u8], now: &[u8]) -> String {
    if path.extension().is_some_and(|extension| extension == "pcap") {
        let (there, now) = (frames_of(there), frames_of(now));
        let number = there.iter().zip(&now).take_while(|(there, now)| there == now).count();
        let told = |frames: &[(Duration, Vec<u8>)]| match frames.get(number) {
            Some((at, octets)) => format!("at {at:?}: {octets:02x?}"),
            None => "none".to_owned(),
        };
        let (there, now) = (told(&there), told(&now));
        return format!("frame {}\n  file has {there}\n  now      {now}", number + 1);
    }
    let (there, now) = (String::from_utf8_lossy(there), String::from_utf8_lossy(now));
    format!("\n--- file\n{there}--- now\n{now}")
}

/// The frames of a capture, each with its time counted from the first one.
fn frames_of(capture: &[u8]) -> Vec<(Duration, Vec<u8>)> {
    use rvs_io::{Burst, Frame as _, Queue as _};
    let Ok(replay) = Replay::new(capture) else { return Vec::new() };
    let mut pool = Reserve::new(256, 2048).pool();
    let mut queue = PcapQueue::<_, Vec<u8>> { replay: Some(replay), recorder: None };
    let mut frames = Vec::new();
    while let Some(at) = queue.replay.as_ref().and_then(Replay::next_due) {
        let mut burst = Burst::new();
        queue.receive(&mut pool, &mut burst, 1);
        frames.extend(burst.drain(..).map(|frame| (at, frame.octets().to_vec())));
    }
    frames
}

/// A capture of these frames.
fn capture(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    use rvs_io::{Burst, Pool as _, Queue as _};
    let mut queue = PcapQueue::<fs::File, _> { replay: None, recorder: Some(recorder()) };
    let mut pool = Reserve::new(64, 2048).pool();
    for (ms, octets) in frames {
        let recorder = queue.recorder.as_mut().unwrap();
        recorder.stamp(Duration::from_secs(EPOCH_S) + Duration::from_millis(*ms));
        let mut burst = Burst::new();
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(octets));
        burst.push(frame);
        assert_eq!(queue.send(&mut pool, &mut burst), 1);
    }
    queue.recorder.unwrap().finish().unwrap()
}

type Link = PcapQueue<fs::File, Vec<u8>>;

fn recorder() -> Recorder<Vec<u8>> {
    Recorder::new(Vec::new(), Resolution::Microseconds, SNAP_MAX).unwrap()
}

/// What arrives on a link, if anything does.
fn replay(link: &PcapLink) -> Option<Replay> {
    let path = link.read.as_ref().filter(|path| path.exists())?;
    Some(Replay::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// A director between captures.
struct Player {
    stage: Stage<Link>,
    /// When the first of the captures begins.
    start: Duration,
    /// Captures that have not begun, by link.
    later: Vec<Option<Replay>>,
}

impl Player {
    fn new(config: &Config, links: &[PcapLink]) -> Self {
        let later: Vec<_> = links.iter().map(replay).collect();
        let start = later.iter().flatten().filter_map(Replay::started_at).min().unwrap();
        let queues = links.iter().map(|_| PcapQueue { replay: None, recorder: Some(recorder()) });
        let reserve = Reserve::new(config.tables.frames, config.tables.frame_octets);
        let stage = Stage::new(config, queues.collect(), reserve.pool()).unwrap();
        Self { stage, start, later }
    }

    /// Nothing arrives that is due later than `now`, and what is sent is stamped with it.
    fn tell_time(&mut self, now: Duration) {
        for (queue, later) in self.stage.queues_mut().iter_mut().zip(&mut self.later) {
            let begins = later.as_ref().and_then(Replay::started_at);
            if begins.is_some_and(|begins| begins <= now) {
                queue.replay = later.take();
            }
            if let Some(replay) = &mut queue.replay {
                replay.arrive_until(now.saturating_sub(replay.started_at().unwrap()));
            }
            queue.recorder.as_mut().unwrap().stamp(now);
        }
    }

    /// When the next frame is due.
    fn next(&mut self) -> Option<Duration> {
        let playing = self.stage.queues_mut().iter().filter_map(|queue| queue.replay.as_ref());
        let replays = playing.chain(self.later.iter().flatten());
        replays.filter_map(|replay| Some(replay.started_at()? + replay.next_due()?)).min()
    }

    fn tick_of(&self, time: Duration) -> Tick {
        let ticks = time.saturating_sub(self.start).as_nanos() / TICK.as_nanos();
        ticks.try_into().unwrap()
    }

    fn pass_until(&mut self, tick: Tick) {
        while self.stage.now() < tick {
            let next = self.stage.now() + 1;
            self.tell_time(self.start + TICK * next);
            self.stage.pass_tick();
        }
    }

    fn play(&mut self) {
        let mut last = self.start;
        while let Some(due) = self.next() {
            self.pass_until(self.tick_of(due));
            self.tell_time(due);
            self.stage.settle();
            assert_ne!(self.next(), Some(due), "frames of one moment on one link arrive together");
            last = due;
        }
        self.pass_until(self.tick_of(last) + EPILOGUE);
    }
}

/// What was counted, for people to read.
fn counters(player: &mut Player) -> String {
    let mut text = String::new();
    for command in ["-Ln --stats --exact", "-Lnc"] {
        let ran = player.stage.ipvsadm(command, "", &NumbersOnly);
        let mut lines: Vec<&str> = ran.stdout.lines().collect();
        if command == "-Lnc" {
            lines[2..].sort_unstable();
        }
        let _always = write!(text, "# ipvsadm {command}\n{}\n\n", lines.join("\n"));
    }
    let FrameCounts { received, originated, sent, held, dropped, .. } = player.stage.counts();
    let _always =
        write!(text, "# frames\nreceived {received}\noriginated {originated}\nsent {sent}\n");
    if held > 0 {
        let _always = writeln!(text, "held {held}");
    }
    for ((name, _), frames) in drop_counters().zip(dropped).filter(|(_, frames)| *frames > 0) {
        let _always = writeln!(text, "dropped {name} {frames}");
    }
    text
}

/// The names of all scenarios.
fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Plays one scenario and compares everything that came of it.
fn play(name: &str, complaints: &mut Vec<String>) {
    let folder = folder().join(name);
    let mut frames = Film::default();
    if let Some((_, script)) = inputs::ALL.iter().find(|(other, _)| *other == name) {
        script(&mut frames);
    }
    for (side, frames) in [("client", &frames.client), ("servers", &frames.servers)] {
        if !frames.is_empty() {
            hold(&folder.join(format!("{side}.in.pcap")), &capture(frames), complaints);
        }
    }
    let own = folder.join("network.toml");
    let network = if own.exists() { own.clone() } else { self::folder().join("network.toml") };
    let text = fs::read_to_string(network).unwrap();
    // Paths in it are of the scenario's folder, whoever's text it is.
    let config = Config::parse(&own, &text, &Machine::default()).unwrap();
    let Links::Pcap(links) = &config.links else { panic!("{name}: links are captures") };

    let mut player = Player::new(&config, links);
    let setup = fs::read_to_string(folder.join("setup.ipvs")).unwrap();
    let ran = player.stage.ipvsadm("-R", &setup, &NumbersOnly);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{name}: setup.ipvs");
    assert_eq!(player.stage.ipvsadm("-Sn", "", &NumbersOnly).stdout, setup, "{name}: as saved");
    player.play();
    assert_eq!(player.stage.counts().unaccounted(), 0, "{name}: conservation");
    hold(&folder.join("counters.txt"), counters(&mut player).as_bytes(), complaints);
    let (queues, _) = player.stage.finish();
    for (queue, link) in queues.into_iter().zip(links) {
        let written = queue.recorder.unwrap().finish().unwrap();
        hold(link.write.as_ref().unwrap(), &written, complaints);
    }
}

#[test]
fn every_scenario_comes_out_as_it_is_written() {
    let mut complaints = Vec::new();
    for name in names() {
        play(&name, &mut complaints);
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_scenario_says_what_it_shows_and_none_is_forgotten() {
    let names = names();
    for (scripted, _) in inputs::ALL {
        assert!(names.iter().any(|name| name == scripted), "{scripted}: no such folder");
    }
    for name in names {
        let about = fs::read_to_string(folder().join(&name).join("README.md")).unwrap();
        assert!(about.split_whitespace().count() > 15, "{name}: too short a README.md");
    }
}

/// What tshark must not find in a frame that the director sent. Checksums of quoted segments are left
/// out: where the quotation is cut, tshark sums up what is left of it and calls that wrong, in the
/// kernel's own errors too.
const COMPLAINTS: &str = "_ws.malformed || ip.checksum.status == 0 \
    || sctp.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 \
    || (_ws.expert.severity >= 0x00600000 && _ws.expert.group == 0x07000000) \
    || (!icmp && !icmpv6 && (tcp.checksum.status == 0 || udp.checksum.status == 0 \
        || (_ws.expert.severity >= 0x00600000 && _ws.expert.group == 0x01000000)))";

/// The numbers of those frames of a capture that tshark complains about, from 1; `None` without
/// tshark.
fn tshark(capture: &[u8], name: &str) -> Option<Vec<usize>> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, capture).unwrap();
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(&file).args(["-Y", COMPLAINTS]);
    tshark.args(["-T", "fields", "-e", "frame.number"]);
    tshark.args(["-o", "sctp.checksum:CRC-32C"]);
    for checked in ["ip", "tcp", "udp"] {
        tshark.args(["-o", &format!("{checked}.check_checksum:TRUE")]);
    }
    let output = tshark.output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers = String::from_utf8_lossy(&output.stdout);
    Some(numbers.lines().map(|number| number.trim().parse().unwrap()).collect())
}

#[test]
fn tshark_finds_nothing_malformed_and_no_wrong_checksum_in_what_is_sent() {
    if blesses() {
        println!("captures are being written: inspected the next time");
        return;
    }
    let mut frames = Vec::new();
    let mut origins = Vec::new();
    for name in names() {
        for side in ["client", "servers"] {
            let file = folder().join(&name).join(format!("{side}.out.pcap"));
            for ((_, frame), number) in frames_of(&fs::read(&file).unwrap()).into_iter().zip(1..) {
                frames.push((frames.len().try_into().unwrap(), frame));
                origins.push(format!("{} frame {number}", file.display()));
            }
        }
    }
    assert!(frames.len() > 100, "only {} frames", frames.len());
    let Some(found) = tshark(&capture(&frames), "sent.pcap") else {
        println!("tshark is not installed: what was sent is not inspected");
        return;
    };
    let found: Vec<_> = found.iter().map(|number| &origins[number - 1]).collect();
    assert!(found.is_empty(), "{found:#?}");

    // It must see what is wrong, or its approval is worth nothing.
    let mut wrong = frames[0].1.clone();
    // Not the last octet, which may be padding.
    wrong[14 + 20 + 4] ^= 1;
    let found = tshark(&capture(&[(0, wrong)]), "wrong.pcap").unwrap();
    assert_eq!(found, [1], "a wrong checksum");
}

#[test]
fn a_capture_holds_what_was_put_into_it() {
    let frames = vec![(0, vec![1; 60]), (7, vec![2; 61])];
    let read: Vec<_> = frames_of(&capture(&frames))
        .into_iter()
        .map(|(at, octets)| (u64::try_from(at.as_millis()).unwrap(), octets))
        .collect();
    assert_eq!(read, frames);
}
