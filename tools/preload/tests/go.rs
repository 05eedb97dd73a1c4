//! Programs in Go, linked statically as they are shipped, under `rvs-run --seccomp`: one with the library
//! that Docker's swarm, kube-proxy and kube-router drive IPVS with, and Debian's node exporter.
//! `cargo xtask go` builds the one and installs the other.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod bench;

use bench::{Bench, assert_well};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What `moby/main.go` reads back, in rvsd's order of services.
const LISTED: &str = "\
203.0.113.1:80 rr
-> 192.0.2.12:80 method 3 weight 2
-> 192.0.2.11:8080 method 0 weight 1
2001:db8::1:53 lc
-> 2001:db8:1::11:53 method 2 weight 3
mark 7 rr
203.0.113.1:80 is there: true; the mark is: false
";
/// What is left in the end.
const LEFT: &str = "\
203.0.113.1:80 rr
-> 192.0.2.11:8080 method 0 weight 9
2001:db8::1:53 sh
-> 2001:db8:1::11:53 method 2 weight 3
";

/// The program that `cargo xtask go` built.
fn moby() -> PathBuf {
    let built = std::env::var_os("RVS_MOBY");
    assert!(built.is_some(), "it is not built: run `cargo xtask go`");
    PathBuf::from(built.unwrap())
}

#[test]
#[ignore = "takes Go: cargo xtask go"]
fn mobys_library_lists_adds_changes_and_deletes() {
    let bench = Bench::served("moby");
    let output = bench.seccomp(&moby(), &[]);
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(told, format!("{LISTED}{LEFT}1h0m0s 2m0s 1m0s\n"));
    // That the kernel's module cannot be loaded it says, and goes on.
    let warned = String::from_utf8(output.stderr).unwrap();
    assert!(warned.lines().count() <= 1, "{warned}");
    // Another process finds what the first one left.
    let output = bench.seccomp(&moby(), &["list"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), LEFT);
}

#[test]
#[ignore = "takes Go: cargo xtask go"]
fn mobys_library_is_told_that_there_is_no_ipvs_without_rvsd() {
    let output = Bench::new("no-moby").seccomp(&moby(), &["list"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("Could not get ipvs family"), "{told}");
}

/// A process of ours; it ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn fetched(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
#[ignore = "takes Go: cargo xtask go"]
fn node_exporter_counts_rvsds_services() {
    let bench = Bench::served("exporter");
    assert_well("ipvsadm", &bench.preloaded("ipvsadm".as_ref(), &["-A", "-t", "203.0.113.1:80"]));
    let server = ["-a", "-t", "203.0.113.1:80", "-r", "192.0.2.11:8080", "-m", "-w", "7"];
    assert_well("ipvsadm", &bench.preloaded("ipvsadm".as_ref(), &server));
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-run"));
    command.args(["--seccomp", "prometheus-node-exporter", "--collector.disable-defaults"]);
    command.args(["--collector.ipvs", &format!("--web.listen-address={address}")]);
    command.env("RVS_NETLINK", bench.folder.join("netlink")).stderr(Stdio::null());
    let _exporter = Running(command.spawn().unwrap());
    let begun = Instant::now();
    let metrics = loop {
        if let Some(text) = fetched(address) {
            break text;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not answer");
        thread::sleep(Duration::from_millis(50));
    };
    let weight = metrics.lines().find(|line| line.starts_with("node_ipvs_backend_weight{"));
    let weight = weight.unwrap_or_else(|| panic!("{metrics}"));
    assert!(weight.contains("remote_address=\"192.0.2.11\"") && weight.ends_with(" 7"), "{weight}");
    assert!(metrics.contains("node_ipvs_connections_total 0"), "{metrics}");
}
