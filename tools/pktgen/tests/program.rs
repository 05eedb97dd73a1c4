//! The program as people meet it: captures that tshark judges, results, and its refusals.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvs-pktgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn pktgen(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-pktgen"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

const V4: [&str; 8] = [
    "--clients",
    "198.51.100.10-198.51.100.19",
    "--vip",
    "203.0.113.1:9",
    "--director-mac",
    "02:00:00:00:00:01",
    "--mix",
    "udp,ack,syn",
];
const V6: [&str; 8] = [
    "--clients",
    "2001:db8::fff0-2001:db8::1:f",
    "--vip",
    "[2001:db8:1::1]:9",
    "--director-mac",
    "02:00:00:00:00:01",
    "--mix",
    "udp,ack,syn",
];

/// Sends for a second and a half into a capture, to the port whose data nobody reads (RFC 863).
fn capture(folder: &Folder, ends: &[&str]) -> (PathBuf, Value) {
    let (pcap, json) = (folder.path("out.pcap"), folder.path("out.json"));
    let link = format!("pcap:{pcap}");
    let rest = ["--rate", "2kpps", "--duration", "1500ms", "--warm-up", "0", "--quiet"];
    let more = ["--size", "imix", "--flows", "500", "--json", &json];
    let arguments = [&["run", "--client", &link], ends, &rest, &more].concat();
    let ended = pktgen(&arguments);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let said = text(&ended.stdout);
    assert!(said.starts_with("sent "), "{said}");
    (pcap.into(), serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
}

/// What tshark prints of the frames that `filter` lets through.
fn tshark(pcap: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(pcap).args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    // What is carried is pktgen's own: a client's port is not to be taken for OpenVPN's or C12.22's,
    // whose frames these would be bad ones of.
    for protocol in ["tcp", "udp"] {
        command.args(["-d", &format!("{protocol}.port==9,data")]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn tshark_finds_every_length_and_checksum_right_in_both_families() {
    for (name, ends) in [("v4", V4), ("v6", V6)] {
        let folder = Folder::new(name);
        let (pcap, result) = capture(&folder, &ends);
        let [sent, unsent] =
            ["sent", "unsent"].map(|key| result.get(key).and_then(Value::as_u64).unwrap());
        // On a busy machine the last moments may be somebody else's: a second of them.
        assert!(sent + unsent == 3000 && sent > 1000, "{sent} and {unsent}");
        let good = if name == "v4" {
            "ip.checksum.status == 1 && (tcp.checksum.status == 1 || udp.checksum.status == 1)"
        } else {
            "ipv6 && (tcp.checksum.status == 1 || udp.checksum.status == 1)"
        };
        let good = tshark(&pcap, good, &["frame.len"]);
        assert_eq!(good.len(), usize::try_from(sent).unwrap());
        // TCP with another segment's data, retransmissions and the like are the mixture's nature.
        let wrong = "_ws.malformed || _ws.short || _ws.expert.severity == error";
        let wrong = tshark(&pcap, wrong, &["frame.number", "_ws.expert.message"]);
        assert!(wrong.is_empty(), "{wrong:?}");
        // 7 to 4 to 1, without check sequences, each within five standard deviations.
        for (octets, parts) in [("590", 4), ("1514", 1)] {
            let frames = good.iter().filter(|len| *len == octets).count();
            let away = (12 * frames).abs_diff(good.len() * parts);
            assert!(away.pow(2) < 25 * good.len() * parts * (12 - parts), "{octets}: {frames}");
        }
        let clients = tshark(&pcap, "ip || ipv6", &["ip.src", "ipv6.src"]);
        let clients: std::collections::HashSet<_> = clients.into_iter().collect();
        assert_eq!(clients.len(), if name == "v4" { 10 } else { 32 });
    }
}

#[test]
fn a_capture_that_a_director_wrote_can_be_judged() {
    let folder = Folder::new("judge");
    let (pcap, json) = (folder.path("servers.pcap"), folder.path("sink.json"));
    // As direct routing would deliver it: the director's own step is left out.
    let link = format!("pcap:{pcap}");
    let ended = pktgen(&[
        "run",
        "--client",
        &link,
        "--clients",
        "198.51.100.10",
        "--vip",
        "203.0.113.1:9",
        "--director-mac",
        "02:72:76:00:00:01",
        "--rate",
        "5kpps",
        "--duration",
        "200ms",
        // A run of its own, which the sink hears first.
        "--warm-up",
        "100ms",
        "--quiet",
        "--flows",
        "10",
    ]);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let said = text(&ended.stdout);
    let sent: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(sent > 500, "{said}");
    let link = format!("pcap-in:{pcap}");
    let ended = pktgen(&[
        "sink",
        "--link",
        &link,
        "--vip",
        "203.0.113.1:9",
        "--real",
        "192.0.2.1,192.0.2.2",
        "--duration",
        "300ms",
        "--json",
        &json,
        "--quiet",
    ]);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let result: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(result.get("by_real"), Some(&serde_json::json!([0, sent])));
    assert_eq!(result.get("lost"), Some(&serde_json::json!(0)));
}

/// Both ends of a veth in a network namespace of their own, driven through AF_XDP: every size of frame
/// arrives, and a device with more queues than one is refused.
#[test]
fn through_af_xdp_on_a_veth_everything_arrives() {
    let folder = Folder::new("af_xdp");
    let json = folder.path("run.json");
    let run = |devices: &str, more: &str| {
        let script = format!(
            "ip link add gen-c {devices} type veth peer name gen-s {devices} && ip link set gen-c up \
             && ip link set gen-s up && exec \"$0\" run --client af_xdp:gen-c --servers af_xdp:gen-s \
             --clients 198.51.100.10-198.51.100.19 --vip 203.0.113.1:9 --real 192.0.2.1 \
             --director-mac 02:72:76:00:00:00 --rate 5kpps --duration 500ms --drain 2s --quiet \
             --flows 100 --json {json} {more}"
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script, env!("CARGO_BIN_EXE_rvs-pktgen")]);
        command.output().unwrap()
    };
    let may = Command::new("unshare").args(["--net", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: network namespaces take root");
        return;
    }
    for more in ["", "--size imix --mix udp=1,ack=1"] {
        let ended = run("", more);
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        let number = |path: &str| result.pointer(path).and_then(Value::as_u64).unwrap();
        assert!(number("/sent") > 1000, "{result:#}");
        assert_eq!(number("/servers/lost"), 0, "{result:#}");
        assert_eq!(number("/servers/by_method/1"), number("/sent"), "{result:#}");
    }
    let refused = run("numrxqueues 2 numtxqueues 2", "");
    let line = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{line}");
    assert!(line.contains("gen-c has 2 receive queues") && line.lines().count() == 1, "{line}");
}

#[test]
fn what_cannot_be_is_one_line_and_a_failure() {
    let with = |more: &[&str]| {
        let client =
            if more.contains(&"--client") { &[][..] } else { &["--client", "pcap:/nowhere/x"] };
        let ends = ["run", "--clients", "192.0.2.1", "--vip", "203.0.113.1:80"];
        let ended = pktgen(&[&ends[..], client, more].concat());
        (ended.status.code(), text(&ended.stderr))
    };
    for (more, expected) in [
        (&["--flows", "0"][..], "rvs-pktgen: --flows is 0, expected 1 to 64512"),
        (&["--real", "192.0.2.9"], "rvs-pktgen: --real needs their link, expected --servers too"),
        (&["--servers", "pcap:/nowhere/y"], "rvs-pktgen: --servers is a link without real servers"),
        (&["--servers", "tap:x", "--real", "192.0.2.9"], "rvs-pktgen: both links must be of one"),
        (&["--director", "2001:db8::1"], "rvs-pktgen: --director 2001:db8::1 and --vip"),
        (&["--burst", "0"], "rvs-pktgen: --burst is 0, expected 1 to 256"),
        (
            &["--client", "af_xdp:x", "--size", "9018"],
            "rvs-pktgen: --size is 9018, expected at most 3844 on AF_XDP devices",
        ),
        (&[], "rvs-pktgen: capture /nowhere/x: cannot open the capture: No such file"),
    ] {
        let (code, line) = with(more);
        assert_eq!(code, Some(1), "{line}");
        assert!(line.starts_with(expected) && line.lines().count() == 1, "{line}");
    }
    let (code, line) = with(&["--rate", "fast"]);
    assert_eq!(code, Some(2));
    assert!(line.contains("expected one like 250kpps"), "{line}");
}

#[test]
fn help_has_examples() {
    for arguments in [&["--help"][..], &["run", "--help"], &["search", "--help"]] {
        let help = text(&pktgen(arguments).stdout);
        assert!(help.contains("rvs-pktgen run --client tap:gen-c"), "{help}");
    }
}
