//! The program as operators meet it: its words, its exit codes, captures in and out, its socket.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use rvs_api::{Client, Reply, Request};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvsd-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// A director between two captures.
    fn config(&self, more: &str) -> PathBuf {
        self.write(
            "rvs.toml",
            &format!(
                "{more}
[control]
socket = \"rvsd.sock\"

[tables]
conns = 1000
conns6 = 1000
services = 16
dests = 64

[[link]]
name = \"wire\"
kind = \"pcap\"
mac = \"02:00:00:00:00:01\"
read = \"in.pcap\"
write = \"out.pcap\"
addresses = [\"192.0.2.1/24\"]

[[neighbor]]
link = \"wire\"
address = \"192.0.2.9\"
mac = \"02:00:00:00:00:09\"
"
            ),
        )
    }

    fn capture(&self, frames: &[Vec<u8>]) {
        let mut writer = PcapWriter::new(File::create(self.0.join("in.pcap")).unwrap()).unwrap();
        for (frame, second) in frames.iter().zip(0..) {
            let len = u32::try_from(frame.len()).unwrap();
            writer.write_packet(&PcapPacket::new(Duration::from_secs(second), len, frame)).unwrap();
        }
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        let mut reader = PcapReader::new(File::open(self.0.join("out.pcap")).unwrap()).unwrap();
        let mut frames = Vec::new();
        while let Some(packet) = reader.next_packet() {
            frames.push(packet.unwrap().data.into_owned());
        }
        frames
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn rvsd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvsd"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn with_file(word: &str, file: &Path) -> Output {
    rvsd(&[word]).arg(file).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn ethernet(to: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &NEIGHBOR, &ethertype.to_be_bytes(), payload].concat()
}

/// RFC 826: who has 192.0.2.1, says 192.0.2.9.
fn arp_request() -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    let message = [&fixed[..], &NEIGHBOR, &[192, 0, 2, 9], &[0; 6], &[192, 0, 2, 1]].concat();
    ethernet([0xff; 6], 0x0806, &message)
}

fn sum(octets: &[u8]) -> [u8; 2] {
    let words = octets.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(*high) << 8 | u32::from(*low),
        _ => u32::from(pair.first().copied().unwrap()) << 8,
    });
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(folded & 0xffff).unwrap()).to_be_bytes()
}

fn ipv4(protocol: u8, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header =
        [&[0x45, 0], &len[..], &[0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 9], &destination]
            .concat();
    let [high, low] = sum(&header);
    header.splice(10..12, [high, low]);
    ethernet(OURS, 0x0800, &[header, payload.to_vec()].concat())
}

fn ping(destination: [u8; 4]) -> Vec<u8> {
    let mut echo = [&[8, 0, 0, 0, 0, 7, 0, 1][..], b"rvs"].concat();
    let [high, low] = sum(&echo);
    echo.splice(2..4, [high, low]);
    ipv4(1, destination, &echo)
}

#[test]
fn a_capture_goes_through_and_every_frame_is_accounted_for() {
    let folder = Folder::new("capture");
    let config = folder.config("");
    let truncated = ethernet(OURS, 0x0800, &[0x45; 12]);
    folder.capture(&[arp_request(), ping([192, 0, 2, 1]), ping([198, 51, 100, 1]), truncated]);
    let ended = with_file("run", &config);
    let (summary, log) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{summary}{log}");
    assert!(log.starts_with("rvsd: ready: 1 worker on any core; 1 pcap link; "), "{log}");
    let law = summary.lines().last().unwrap();
    assert!(law.starts_with("conservation: received 4 + originated "), "{summary}");
    assert!(law.ends_with(": holds"), "{summary}");

    let sent = folder.sent();
    let arp_reply = sent.iter().find(|frame| frame.get(12..14) == Some(&[8, 6])).unwrap();
    assert_eq!(arp_reply.get(..12).unwrap(), [NEIGHBOR, OURS].concat());
    let echo_reply = sent.iter().find(|frame| frame.get(12..14) == Some(&[8, 0])).unwrap();
    assert_eq!(echo_reply.get(26..34).unwrap(), [192, 0, 2, 1, 192, 0, 2, 9]);
    assert!(echo_reply.ends_with(b"rvs"));
    assert!(!folder.0.join("rvsd.sock").exists());
}

#[test]
fn frames_that_a_capture_has_the_beginning_of_are_told_about() {
    let folder = Folder::new("snapped");
    let config = folder.config("");
    let mut frame = ping([192, 0, 2, 1]);
    let whole = u32::try_from(frame.len()).unwrap();
    frame.pop();
    let mut writer = PcapWriter::new(File::create(folder.0.join("in.pcap")).unwrap()).unwrap();
    writer.write_packet(&PcapPacket::new(Duration::ZERO, whole, &frame)).unwrap();
    let log = text(&with_file("run", &config).stderr);
    let expected = "in.pcap: of 1 frames it holds the beginning only, ";
    assert!(log.contains(expected), "{log}");
}

#[test]
fn a_capture_that_is_read_is_not_written_over_by_another_name() {
    let folder = Folder::new("same");
    let config = folder.config("");
    folder.capture(&[arp_request()]);
    let [read, other] = ["in.pcap", "out.pcap"].map(|name| folder.0.join(name));
    let before = fs::read(&read).unwrap();
    for is_symbolic in [false, true] {
        if is_symbolic {
            std::os::unix::fs::symlink(&read, &other).unwrap();
        } else {
            fs::hard_link(&read, &other).unwrap();
        }
        let ended = with_file("run", &config);
        let expected = format!(
            "rvsd: capture {}: the capture is one that is read as well: write into another file\n",
            other.display()
        );
        assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(1), expected));
        assert_eq!(fs::read(&read).unwrap(), before);
        fs::remove_file(&other).unwrap();
    }
}

#[test]
fn a_wrong_configuration_is_one_line_and_nothing_starts() {
    let folder = Folder::new("wrong");
    folder.capture(&[]);
    for (more, expected) in [
        ("forwards = true", ":1:1: unknown field `forwards`, expected one of "),
        ("forwarding = 7", ":1:14: invalid type: integer `7`, expected a boolean"),
        ("[workers]\ncores = [4096]\n", ":2:10: core 4096 is not there, expected one of "),
        ("[workers]\nburst = 0\n", ":2:9: burst is 0, expected 1 to 256"),
        (
            "[[route]]\nto = \"10.0.0.0/8\"\nlink = \"wier\"\n",
            ":3:8: link is \"wier\", expected one of wire",
        ),
    ] {
        let config = folder.config(more);
        for word in ["check", "run"] {
            let ended = with_file(word, &config);
            assert_eq!(ended.status.code(), Some(1));
            let line = text(&ended.stderr);
            let expected = format!("rvsd: {}{expected}", config.display());
            assert!(line.starts_with(&expected) && line.lines().count() == 1, "{line}");
            assert!(ended.stdout.is_empty());
        }
    }
    assert!(!folder.0.join("out.pcap").exists() && !folder.0.join("rvsd.sock").exists());
}

#[test]
fn what_cannot_be_opened_is_one_line_too() {
    let folder = Folder::new("missing");
    let config = folder.config("");
    assert_eq!(with_file("check", &config).status.code(), Some(0), "it may appear until the start");
    let ended = with_file("run", &config);
    assert_eq!(ended.status.code(), Some(1));
    let line = text(&ended.stderr);
    let file = folder.0.join("in.pcap");
    let expected = format!("rvsd: capture {}: cannot open the capture: No such", file.display());
    assert!(line.starts_with(&expected) && line.lines().count() == 1, "{line}");
    assert!(!folder.0.join("rvsd.sock").exists(), "nothing is left behind");

    let nowhere = with_file("check", &folder.0.join("nowhere.toml"));
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("nowhere.toml: cannot read it: No such file"));
}

#[test]
#[cfg(not(feature = "dpdk"))]
fn a_build_without_dpdk_says_how_to_get_one_that_has_it() {
    let folder = Folder::new("dpdk");
    let config = folder.write(
        "rvs.toml",
        "[control]\nsocket = \"rvsd.sock\"\n[[link]]\nname = \"a\"\nkind = \"dpdk\"\n\
         device = \"0000:01:00.0\"\n",
    );
    assert_eq!(with_file("check", &config).status.code(), Some(0));
    let ended = with_file("run", &config);
    assert_eq!(ended.status.code(), Some(1));
    let line = text(&ended.stderr);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains("cargo build --release -p rvs-daemon --features dpdk"), "{line}");
    assert!(!folder.0.join("rvsd.sock").exists());
}

#[test]
fn check_says_what_the_configuration_describes() {
    let folder = Folder::new("check");
    let ended = with_file("check", &folder.config(""));
    let told = text(&ended.stdout);
    assert!(told.lines().next().unwrap().ends_with("rvs.toml: good"), "{told}");
    assert!(told.contains("link       wire: reads "), "{told}");
    assert!(told.contains("mac 02:00:00:00:00:01, mtu 1500, 192.0.2.1/24\n"), "{told}");
    assert!(told.ends_with("rvsd.netlink, mode 0600\n"), "{told}");
    assert!(ended.stderr.is_empty());
}

#[test]
fn the_command_line_is_checked_and_explained() {
    assert_eq!(rvsd(&[]).output().unwrap().status.code(), Some(2));
    assert_eq!(rvsd(&["walk", "x"]).output().unwrap().status.code(), Some(2));
    let version = rvsd(&["--version"]).output().unwrap();
    assert_eq!(text(&version.stdout), format!("rvsd {}\n", env!("CARGO_PKG_VERSION")));
    let counters = text(&rvsd(&["counters"]).output().unwrap().stdout);
    assert!(counters.lines().any(|line| line.starts_with("no-route  ")), "{counters}");
    assert!(counters.lines().all(|line| line.split_whitespace().count() > 3), "{counters}");
}

/// A TAP director in a network namespace of its own; `None` where that may not be made.
struct Tap {
    child: Option<Child>,
    folder: Folder,
}

impl Tap {
    fn start(name: &str, cores: &str) -> Option<Self> {
        let folder = Folder::new(name);
        let config = folder.write(
            "rvs.toml",
            &format!(
                "[control]\nsocket = \"rvsd.sock\"\n[workers]\ncores = {cores}\n[tables]\n\
                 conns = 1000\nconns6 = 1000\nservices = 16\ndests = 64\n[[link]]\nname = \"a\"\n\
                 kind = \"tap\"\naddresses = [\"192.0.2.1/24\"]\n"
            ),
        );
        let log = File::create(folder.0.join("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--net", env!("CARGO_BIN_EXE_rvsd"), "run"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut tap = Self { child: Some(child), folder };
        let until = Instant::now() + Duration::from_mins(1);
        while !tap.log().contains("rvsd: ready") {
            if let Some(status) = tap.child.as_mut().unwrap().try_wait().unwrap() {
                let log = tap.log();
                tap.child = None;
                // Without the right to make a namespace or a TAP device there is nothing to test.
                let may_not = log.contains("permi")
                    || log.contains("permitted")
                    || log.contains("/dev/net/tun");
                assert!(may_not, "{status}: {log}");
                println!("skipped: {log}");
                return None;
            }
            assert!(Instant::now() < until, "{}", tap.log());
            thread::sleep(Duration::from_millis(10));
        }
        Some(tap)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.0.join("rvsd.sock")
    }

    /// SIGTERM, and what it printed.
    fn end(mut self) -> (Option<i32>, String) {
        let child = self.child.take().unwrap();
        let killed =
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let ended = child.wait_with_output().unwrap();
        (ended.status.code(), text(&ended.stdout))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

#[test]
fn sigterm_ends_it_with_an_account_and_without_its_socket() {
    let Some(tap) = Tap::start("sigterm", "[0]") else { return };
    let socket = tap.socket();
    let mut client = Client::connect(&socket).unwrap();
    let Ok(Reply::Info(info)) = client.call(&Request::GetInfo).unwrap() else { panic!("no info") };
    assert_eq!(info.size, 1000);
    assert_eq!(client.call(&Request::ListConns).unwrap(), Ok(Reply::Conns(Vec::new())));
    let (code, summary) = tap.end();
    assert_eq!(code, Some(0), "{summary}");
    assert!(summary.trim_end().ends_with(": holds"), "{summary}");
    assert!(!socket.exists());
}

#[test]
fn a_second_director_of_the_same_socket_is_refused() {
    let Some(tap) = Tap::start("second", "[0]") else { return };
    let ended = with_file("run", &tap.folder.0.join("rvs.toml"));
    assert_eq!(ended.status.code(), Some(1));
    let line = text(&ended.stderr);
    assert!(line.contains("another rvsd serves it") && line.lines().count() == 1, "{line}");
    assert!(Client::connect(&tap.socket()).is_ok());
    assert_eq!(tap.end().0, Some(0));
}

#[test]
fn several_workers_stop_together_and_lose_nothing() {
    if thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("skipped: a single core");
        return;
    }
    let Some(tap) = Tap::start("workers", "[0, 1]") else { return };
    assert!(tap.log().contains("2 workers on cores 0, 1"), "{}", tap.log());
    let (code, summary) = tap.end();
    assert_eq!(code, Some(0), "{summary}");
    assert!(summary.trim_end().ends_with(": holds"), "{summary}");
}

#[test]
fn tables_that_memory_has_no_room_for_are_one_line_and_counters_stay() {
    let folder = Folder::new("memory");
    let file = folder.config("");
    let few = fs::read_to_string(&file).unwrap();
    let few = few.replace("socket =", "state = \"state\"\nsocket =");
    fs::write(&file, few.replace("conns = 1000", "conns = 268435456")).unwrap();
    folder.capture(&[]);
    fs::write(folder.0.join("state.counters"), "[]").unwrap();
    let limited =
        format!("ulimit -v 4000000; exec {} run {}", env!("CARGO_BIN_EXE_rvsd"), file.display());
    let ended = Command::new("sh").args(["-c", &limited]).output().unwrap();
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.starts_with("rvsd: no memory for 268435456 IPv4 and 1000 IPv6"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(folder.0.join("state.counters").exists() && !folder.0.join("rvsd.sock").exists());
}
