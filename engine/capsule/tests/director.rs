//! The director in Capsule, over captures (`net_pcap`): the plane's scenarios come out to the octet.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use core::fmt::Write as _;
use rvs_adm::NumbersOnly;
use rvs_control::config::{Config, Machine};
use rvs_io::pcap::{PcapQueue, Replay};
use rvs_io::{Burst, Frame, Pool, Queue, Reserve};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("rvs-capsule-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plane/tests/scenarios").join(name)
}

fn capture(path: &Path) -> Vec<Vec<u8>> {
    let Ok(replay) = Replay::open(path) else { return Vec::new() };
    let mut pool = Reserve::new(8, 2048).pool();
    let mut queue = PcapQueue::<_, Vec<u8>> { replay: Some(replay), recorder: None };
    let (mut frames, mut burst) = (Vec::new(), Burst::new());
    while queue.receive(&mut pool, &mut burst, 1) > 0 {
        for frame in burst.drain(..) {
            frames.push(frame.octets().to_vec());
            pool.give(frame);
        }
    }
    frames
}

/// Two cores of this machine that we may use: Capsule's own, and a worker's.
fn cores() -> Option<[usize; 2]> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let mut cores = allowed.trim().split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    let found = cores.next().zip(cores.next()).map(|(one, other)| [one, other]);
    if found.is_none() {
        println!("skipped: a single core");
    }
    found
}

/// Runs `rvs-capsule` for a while, with a state that holds `setup`.
fn run(scratch: &Folder, ports: &str, rvs: &str, setup: &str) -> Option<String> {
    let [master, worker] = cores()?;
    let capsule = format!(
        "app_name = \"rvs-test\"\napp_group = \"rvs-{}\"\nmaster_core = {master}\nduration = 3\n\
         dpdk_args = \"--no-huge -m 128 --no-pci --no-shconf --no-telemetry --log-level error\"\n\
         [mempool]\ncapacity = 8191\ncache_size = 256\n{}",
        std::process::id(),
        ports.replace("CORES", &format!("[{worker}]")),
    );
    let [capsule_file, rvs_file] = ["capsule.toml", "rvs.toml"].map(|name| scratch.0.join(name));
    fs::write(&capsule_file, capsule).unwrap();
    fs::write(&rvs_file, rvs).unwrap();
    // The table as rvsd keeps it, made by rvsd's own control plane.
    let config = Config::read(&rvs_file, &Machine::default()).unwrap();
    let mut director = rvs_control::director::Director::new(&config, Vec::new());
    director.keep_in(config.control.state.as_ref().unwrap(), config.control.sync).unwrap();
    let mut table = Table(director);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["rvsadm", "-R"].map(str::to_owned);
    let code =
        rvs_adm::run(&words, &mut setup.as_bytes(), &mut table, &NumbersOnly, &mut out, &mut err);
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&err));
    drop(table);

    let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-capsule"));
    let ended = command.arg(capsule_file).arg(rvs_file).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains(": holds"), "{said}");
    Some(said)
}

/// A control plane that is asked directly.
struct Table(rvs_control::director::Director);

impl rvs_adm::Transport for Table {
    fn batch(
        &mut self,
        requests: &[rvs_api::Request],
    ) -> Result<Vec<rvs_api::Outcome>, rvs_api::ClientError> {
        Ok(self.0.apply(requests.iter().cloned()))
    }
}

#[test]
fn scenarios_come_out_of_net_pcap_as_they_are_written() {
    for name in [
        "nat-maps-address-and-port-there-and-back",
        "direct-routing-changes-ethernet-addresses-and-hop-limit-only",
        "tunnels-carry-packets-whole",
    ] {
        let (folder, scratch) = (scenario(name), Folder::new("pcap"));
        let setup = fs::read_to_string(folder.join("setup.ipvs")).unwrap();
        let network = fs::read_to_string(folder.parent().unwrap().join("network.toml")).unwrap();
        let mut rvs = String::from("[control]\nsocket = \"s.sock\"\nstate = \"state\"\n");
        let mut ports = String::new();
        for line in network.lines() {
            // The same network, on Capsule's devices.
            match line.split_once(" = ") {
                Some(("kind", _)) => rvs.push_str("kind = \"dpdk\"\n"),
                Some(("read", _)) => {}
                Some(("write", side)) => {
                    let side = side.trim_matches('"').split('.').next().unwrap();
                    writeln!(rvs, "device = \"net_pcap_{side}\"").unwrap();
                    let read = folder.join(format!("{side}.in.pcap"));
                    let out = scratch.0.join(side);
                    let mut args = format!("tx_pcap={}", out.display());
                    if read.exists() {
                        write!(args, ",rx_pcap={}", read.display()).unwrap();
                    }
                    writeln!(
                        ports,
                        "[[ports]]\nname = {side:?}\ndevice = \"net_pcap_{side}\"\nargs = {args:?}\n\
                         cores = CORES\npromiscuous = true"
                    )
                    .unwrap();
                }
                _ if line.starts_with("announce") => rvs.insert_str(0, &format!("{line}\n")),
                _ => writeln!(rvs, "{line}").unwrap(),
            }
        }
        if run(&scratch, &ports, &rvs, &setup).is_none() {
            return;
        }
        let mut count = 0;
        for side in ["client", "servers"] {
            let expected = capture(&folder.join(format!("{side}.out.pcap")));
            assert_eq!(capture(&scratch.0.join(side)), expected, "{name}: {side}");
            count += expected.len();
        }
        assert!(count > 3, "{name}: {count} frames");
    }
}
