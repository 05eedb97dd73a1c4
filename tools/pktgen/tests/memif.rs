//! The generator in one process, rvsd in another, shared memory between them (`net_memif`): every
//! packet of every method arrives, and by masquerading its reply comes back.
//!
//! ```text
//!  rvs-pktgen ══ net_memif ══ rvsd ══ net_memif ══ rvs-pktgen
//!    clients       1                    2         real servers
//! ```
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use rvs_adm::{SocketTransport, SystemNames};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that takes moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// A director and its folder, both gone with the test.
struct Director {
    folder: PathBuf,
    child: Child,
}

impl Director {
    fn start(rvsd: &Path) -> Self {
        let folder = std::env::temp_dir().join(format!("rvs-pktgen-memif-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let link = |name: &str, id: u8, address: &str| {
            format!(
                "[[link]]\nname = {name:?}\nkind = \"dpdk\"\ndevice = \
                 \"net_memif{id},role=server,id={id},socket-abstract=no,rsize=12,socket={}\"\n\
                 mac = \"02:00:00:00:00:0{id}\"\naddresses = [{address:?}]\n",
                folder.join("memif.sock").display()
            )
        };
        let config = format!(
            "announce = false\n[control]\nsocket = \"rvsd.sock\"\n[workers]\ncores = [0]\n\
             idle = \"adaptive\"\n[dpdk]\nno_huge = true\n{}{}",
            link("clients", 1, "198.18.0.254/24"),
            link("servers", 2, "192.0.2.1/24")
        );
        let file = folder.join("rvs.toml");
        fs::write(&file, config).unwrap();
        let said = File::create(folder.join("said")).unwrap();
        let mut command = Command::new(rvsd);
        command.arg("run").arg(file).stdin(Stdio::null()).stdout(said.try_clone().unwrap());
        let child = command.stderr(said).spawn().unwrap();
        let director = Self { folder, child };
        let until = Instant::now() + PATIENCE;
        while !director.said().contains("rvsd: ready") {
            assert!(Instant::now() < until, "{}", director.said());
            thread::sleep(Duration::from_millis(20));
        }
        director
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("said")).unwrap()
    }

    fn adm(&self, line: &str) {
        let words: Vec<String> =
            ["rvsadm"].into_iter().chain(line.split(' ')).map(str::to_owned).collect();
        let mut transport = SocketTransport::new(self.folder.join("rvsd.sock"));
        let names = SystemNames::default();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut nothing = std::io::empty();
        let code = rvs_adm::run(&words, &mut nothing, &mut transport, &names, &mut out, &mut err);
        assert_eq!(code, 0, "{line}: {}", String::from_utf8_lossy(&err));
    }

    /// Ten thousand packets at a rate that anything can keep up with.
    fn traffic(&self, clients: &str, echo: bool) -> Value {
        let (socket, json) = (self.folder.join("memif.sock"), self.folder.join("run.json"));
        let link = |id: u8| {
            format!(
                "dpdk:net_memif{id},role=client,id={id},socket-abstract=no,rsize=12,socket={}",
                socket.display()
            )
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-pktgen"));
        command.args(["run", "--client", &link(1), "--servers", &link(2)]);
        command.args(["--clients", clients, "--vip", "198.18.0.100:9"]);
        command.args(["--real", "192.0.2.11,192.0.2.12", "--rate", "5kpps", "--duration", "2s"]);
        command.args(["--mix", "udp=3,syn=1", "--drain", "2s", "--quiet", "--json"]);
        command.arg(&json).args(echo.then_some("--echo"));
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{said}\n{}", self.said());
        println!("{}", String::from_utf8_lossy(&ended.stdout));
        serde_json::from_slice(&fs::read(json).unwrap()).unwrap()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn number(result: &Value, path: &str) -> u64 {
    let found = result.pointer(path).and_then(Value::as_u64);
    found.unwrap_or_else(|| unreachable!("no {path} in {result:#}"))
}

#[test]
fn every_packet_arrives_by_every_method() {
    let rvsd = Path::new(env!("CARGO_BIN_EXE_rvs-pktgen")).with_file_name("rvsd");
    assert!(rvsd.exists(), "no rvsd beside rvs-pktgen: test -p rvs-daemon -p rvs-pktgen together");
    let director = Director::start(&rvsd);
    let methods = [
        ("-m", 0),
        ("-i", 2),
        ("-i --tun-type gre --tun-csum", 2),
        ("-i --tun-type gue --tun-port 6080", 2),
    ];
    for ((method, place), ten) in methods.into_iter().zip(1..) {
        for service in ["-u 198.18.0.100:9", "-t 198.18.0.100:9"] {
            director.adm(&format!("-A {service} -s rr"));
            for real in ["192.0.2.11", "192.0.2.12"] {
                // A tunnel keeps the port.
                director.adm(&format!("-a {service} -r {real}:9 {method}"));
            }
        }
        // Others than before: a connection keeps the method that it was opened with.
        let clients = format!("198.18.0.{ten}0-198.18.0.{ten}9");
        let result = director.traffic(&clients, place == 0);
        let sent = number(&result, "/sent");
        assert_eq!(sent + number(&result, "/unsent"), 10_000, "{method}");
        assert!(sent > 9_000, "{method}: {sent}");
        for what in ["lost", "foreign", "damaged", "misdirected"] {
            assert_eq!(number(&result, &format!("/servers/{what}")), 0, "{method}: {what}");
        }
        assert_eq!(number(&result, &format!("/servers/by_method/{place}")), sent, "{method}");
        if place == 0 {
            assert_eq!(number(&result, "/clients/lost"), 0, "{method}: replies");
        }
        director.adm("-C");
    }
}
