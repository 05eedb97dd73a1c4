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
/// Tries of each method on a machine that has other things to do.
const TRIES: usize = 5;

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

/// What is not as it should be where servers get packets by the method at `place`.
fn wrong(result: &Value, place: usize) -> Vec<String> {
    let sent = number(result, "/sent");
    let by_method = number(result, &format!("/servers/by_method/{place}"));
    let mut claims = vec![
        (sent + number(result, "/unsent") == 10_000 && sent > 1000, "sent"),
        (by_method == sent, "by_method"),
        (place > 0 || number(result, "/clients/lost") == 0, "replies"),
    ];
    for what in ["lost", "foreign", "damaged", "misdirected"] {
        claims.push((number(result, &format!("/servers/{what}")) == 0, what));
    }
    let wrong = claims.into_iter().filter(|(holds, _)| !holds);
    wrong.map(|(_, what)| format!("{what}, of {sent} sent")).collect()
}

/// A sink that is stopped for a while, behind a device that counts what it has no place for.
#[test]
fn what_the_generators_own_device_missed_is_lost_by_the_link() {
    let may = Command::new("unshare").args(["--net", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: network namespaces take root");
        return;
    }
    let folder = std::env::temp_dir().join(format!("rvs-pktgen-missed-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let json = folder.join("sink.json");
    let script = format!(
        "set -e; ip link add gen-c type veth peer name gen-s; ip link set gen-c up; \
         ip link set gen-s up; ends='--vip 203.0.113.1:9 --flows 10 --quiet'; \
         \"$0\" sink --link dpdk:net_pcap0,iface=gen-s $ends --real 192.0.2.1 --duration 60s \
         --json {} & sink=$!; sleep 2; kill -STOP $sink; \
         \"$0\" run --client af_xdp:gen-c --clients 198.51.100.10 $ends \
         --director-mac 02:72:76:00:00:00 --rate 50kpps --duration 2s --warm-up 0; \
         kill -CONT $sink; sleep 1; kill -TERM $sink; wait $sink",
        json.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script, env!("CARGO_BIN_EXE_rvs-pktgen")]);
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let result: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let [arrived, lost] = ["/arrived", "/link_lost"].map(|path| number(&result, path));
    assert!(arrived > 0 && lost > 1000, "{result:#}");
    fs::remove_dir_all(folder).unwrap();
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
    for ((method, place), first) in methods.into_iter().zip((110_u8..).step_by(25)) {
        for service in ["-u 198.18.0.100:9", "-t 198.18.0.100:9"] {
            director.adm(&format!("-A {service} -s rr"));
            for real in ["192.0.2.11", "192.0.2.12"] {
                // A tunnel keeps the port.
                director.adm(&format!("-a {service} -r {real}:9 {method}"));
            }
        }
        // Others each time: a connection keeps the method that it was opened with.
        let mut clients =
            (first..).step_by(5).map(|it| format!("198.18.0.{it}-198.18.0.{}", it + 4));
        // A director whose core others have for a while refuses what would open connections; one try
        // that had all it needs is enough.
        let mut wrongs = Vec::new();
        let is_so = clients.by_ref().take(TRIES).any(|clients| {
            let wrong = wrong(&director.traffic(&clients, place == 0), place);
            let is_so = wrong.is_empty();
            wrongs.push(wrong);
            is_so
        });
        assert!(is_so, "{method}: {wrongs:#?}");
        director.adm("-C");
    }
}
