//! rvsd with DPDK links, as operators meet it: what it says when it cannot start, and Debian's
//! `dpdk-testpmd` as the network around it.
//!
//! ```text
//!  testpmd txonly ══ net_memif ══ rvsd ══ net_memif ══ testpmd 5tswap
//!     generator        clients    NAT      servers       sends all of it back
//!  testpmd rxonly ══ net_memif ═══╝
//!     sink             back: where the clients' route leads
//! ```
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use rvs_adm::{SocketTransport, SystemNames};
use rvs_dpdk::host::Host;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that takes moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvsd-dpdk-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// A configuration with these links.
    fn config(&self, head: &str, links: &str) -> PathBuf {
        let file = self.0.join("rvs.toml");
        let text = format!(
            "announce = false\n[control]\nsocket = \"rvsd.sock\"\n[tables]\nconns = 10000\nconns6 = 1000\n{head}\n{links}"
        );
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A program whose words are looked at while it runs. Dropped, it is killed.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    said: PathBuf,
}

impl Program {
    fn start(mut command: Command, folder: &Folder, name: &str) -> Self {
        let said = folder.0.join(name);
        let out = File::create(&said).unwrap();
        command.stdin(Stdio::piped()).stdout(out.try_clone().unwrap()).stderr(out);
        let mut child = command.spawn().unwrap();
        Self { stdin: child.stdin.take(), child, said }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap()).into_owned()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits until it has said so.
    fn await_words(&mut self, words: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            if said.contains(words) {
                return said;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "no {words:?}, {ended:?}:\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it by a signal, and returns its exit code and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let code = self.child.wait().unwrap().code();
        (code, self.said())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn rvsd(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvsd"));
    command.arg("run").arg(config);
    command
}

/// The one line of a start that fails.
fn refusal(name: &str, head: &str, devices: &[&str]) -> String {
    let folder = Folder::new(name);
    let mut links = String::new();
    for (device, number) in devices.iter().zip(0..) {
        writeln!(links, "[[link]]\nname = \"l{number}\"\nkind = \"dpdk\"\ndevice = {device:?}")
            .unwrap();
    }
    let ended = rvsd(&folder.config(head, &links)).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(!folder.0.join("rvsd.sock").exists());
    // DPDK's own words about its arguments cannot be held back; ours come last.
    let ours = said
        .lines()
        .filter(|line| line.starts_with("rvsd: DPDK") || line.starts_with("rvsd: device"));
    assert_eq!(ours.count(), 1, "{said}");
    said.lines().last().unwrap().to_owned()
}

#[test]
fn what_a_machine_lacks_is_one_line_with_the_command_that_supplies_it() {
    // More than any machine has: 4 million frames of 9 KB.
    let line = refusal("pages", "frames = 4194304\nframe_octets = 9018", &["net_null0"]);
    assert!(line.starts_with("rvsd: DPDK needs 4"), "{line}");
    assert!(line.contains(" MB of huge pages on node 0, and "), "{line}");
    assert!(line.contains("vm.nr_hugepages=") || line.contains("/nr_hugepages "), "{line}");
}

#[test]
fn devices_that_are_not_there_are_one_line_with_what_would_be() {
    let line = refusal("flux", "[dpdk]\nno_huge = true", &["net_flux0"]);
    assert!(line.contains("DPDK has no device net_flux0: expected a PCI address like "), "{line}");
    let line = refusal("card", "[dpdk]\nno_huge = true", &["ffff:1f:00.7"]);
    assert!(line.contains("DPDK has no device ffff:1f:00.7: no such PCI device"), "{line}");
    let line = refusal("args", "[dpdk]\nno_huge = true", &["net_pcap0,rx_pcap=/nowhere/x"]);
    assert!(line.contains("/nowhere/x: No such file or directory"), "{line}");
    let line = refusal("eal", "[dpdk]\nno_huge = true\neal = [\"--no-such\"]", &["net_null0"]);
    assert!(line.contains("are the arguments under [dpdk] eal right?"), "{line}");
}

#[test]
fn what_dpdk_says_of_cards_is_passed_on_when_all_goes_well() {
    let said = |name, device: &str| {
        let folder = Folder::new(name);
        let head = "[dpdk]\nno_huge = true\neal = [\"--log-level=debug\"]";
        let link = format!("[[link]]\nname = \"l\"\nkind = \"dpdk\"\ndevice = {device:?}");
        let ended = rvsd(&folder.config(head, &link)).output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        text.lines().filter(|line| line.starts_with("DPDK: EAL: ")).count()
    };
    // EAL starts; there are no such devices.
    assert!(said("card-log", "ffff:1f:00.7") > 0);
    assert_eq!(said("virtual-log", "net_flux0"), 0);
}

#[test]
fn too_few_queues_for_the_workers_are_one_line() {
    if thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("skipped: a single core");
        return;
    }
    let head = "[workers]\ncores = [0, 1]\n[dpdk]\nno_huge = true";
    let line = refusal("queues", head, &["net_pcap0,tx_pcap=/dev/null"]);
    assert!(line.contains("2 workers want a queue each, and it has 1; list at most 1"), "{line}");
}

/// A testpmd that talks to one of rvsd's links.
fn testpmd(folder: &Folder, name: &str, id: u8, more: &[String]) -> Option<Program> {
    let socket = folder.0.join("memif.sock");
    // What it prints must not wait for its end.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-shconf"]);
    // Its two threads run wherever there is time.
    let cpus = Host::this().allowed_cpus();
    command.arg(format!("--lcores=0@({cpus}),1@({cpus})"));
    let device = format!("net_memif0,role=client,id={id},socket-abstract=no,rsize=12");
    command.arg(format!("--vdev={device},socket={}", socket.display()));
    command.args(["--", "-i", "--total-num-mbufs=16384"]).args(more);
    let found = Command::new("dpdk-testpmd").arg("--version").output();
    if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        println!("skipped: no dpdk-testpmd; apt-get install dpdk-dev");
        return None;
    }
    let mut program = Program::start(command, folder, name);
    program.await_words("testpmd>");
    Some(program)
}

/// The number behind `name` in testpmd's account of forwarding.
fn counted(said: &str, name: &str) -> u64 {
    let account = said.split("Accumulated forward statistics").nth(1).unwrap();
    let figure = account.split(name).nth(1).unwrap();
    figure.split_whitespace().next().unwrap().parse().unwrap()
}

/// A number of rvsd's account at its end.
fn accounted(said: &str, name: &str) -> u64 {
    let line = said.lines().find(|line| line.trim_start().starts_with(name));
    line.map_or(0, |line| {
        let mut words = line.trim_start().strip_prefix(name).unwrap().split_whitespace();
        words.next().unwrap().parse().unwrap()
    })
}

fn rvsadm(folder: &Folder, line: &str) -> String {
    let words: Vec<String> =
        ["rvsadm"].into_iter().chain(line.split(' ')).map(str::to_owned).collect();
    let mut transport = SocketTransport::new(folder.0.join("rvsd.sock"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = rvs_adm::run(
        &words,
        &mut io::empty(),
        &mut transport,
        &SystemNames::default(),
        &mut out,
        &mut err,
    );
    assert_eq!(code, 0, "{line}: {}", String::from_utf8_lossy(&err));
    String::from_utf8(out).unwrap()
}

/// Packets that the service's clients sent and got, as an operator reads it.
fn packets(folder: &Folder) -> [u64; 2] {
    let listing = rvsadm(folder, "-Ln --stats --exact");
    let line = listing.lines().find(|line| line.starts_with("UDP")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| words.get(at).unwrap().parse().unwrap();
    [number(3), number(4)]
}

/// How long testpmd generates: a moment, or as long as `cargo xtask testpmd --minutes` says.
fn length() -> Duration {
    let seconds = std::env::var("RVS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// Testpmd generates, rvsd masquerades, testpmd answers, rvsd masquerades, testpmd takes in; what each
/// of them counted must agree, in both directions.
fn counts_agree(name: &str, cores: &str, queues: &str) {
    let folder = Folder::new(name);
    let socket = folder.0.join("memif.sock");
    let link = |name: &str, side: &str, id: u8, address: &str| {
        format!(
            "[[link]]\nname = {name:?}\nkind = \"dpdk\"\nside = {side:?}\n\
             device = \"net_memif{id},role=server,id={id},socket-abstract=no,socket={}\"\n\
             mac = \"02:00:00:00:00:0{id}\"\naddresses = [{address:?}]\n",
            socket.display()
        )
    };
    let neighbor = |link: &str, address: &str| {
        format!(
            "[[neighbor]]\nlink = {link:?}\naddress = {address:?}\nmac = \"02:00:00:00:00:11\"\n"
        )
    };
    let links = [
        link("clients", "clients", 1, "198.51.100.254/24"),
        link("servers", "servers", 2, "192.0.2.1/24"),
        link("back", "clients", 3, "198.19.0.254/24"),
        "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"198.19.0.1\"\n".to_owned(),
        neighbor("servers", "192.0.2.11"),
        neighbor("back", "198.19.0.1"),
    ];
    // Programs that poll on few cores only wait for each other.
    let head = format!("[workers]\ncores = {cores}\nidle = \"adaptive\"\n[dpdk]\nno_huge = true\n");
    let mut director =
        Program::start(rvsd(&folder.config(&head, &links.concat())), &folder, "rvsd");
    director.await_words("rvsd: ready: ");
    rvsadm(&folder, "-A -u 198.18.0.100:9 -s rr");
    rvsadm(&folder, "-a -u 198.18.0.100:9 -r 192.0.2.11:9009 -m");

    let both = [format!("--rxq={queues}"), format!("--txq={queues}")];
    let with = |mode: &[&str]| {
        let words = mode.iter().map(|&word| word.to_owned());
        both.iter().cloned().chain(words).collect::<Vec<_>>()
    };
    let takes = with(&["--forward-mode=rxonly"]);
    let Some(mut sink) = testpmd(&folder, "sink", 3, &takes) else { return };
    let answers = with(&["--forward-mode=5tswap"]);
    let Some(mut server) = testpmd(&folder, "server", 2, &answers) else { return };
    let makes = with(&[
        "--forward-mode=txonly",
        "--txonly-multi-flow",
        "--eth-peer=0,02:00:00:00:00:01",
        "--tx-ip=203.0.113.1,198.18.0.100",
    ]);
    let Some(mut source) = testpmd(&folder, "source", 1, &makes) else { return };
    for link in ["clients", "servers", "back"] {
        director.await_words(&format!("rvsd: link {link}: link is up"));
    }
    sink.tell("start");
    server.tell("start");
    source.tell("start");
    thread::sleep(length());
    source.tell("stop");
    let made = counted(&source.await_words("Accumulated forward"), "TX-packets:");

    // What is on the way arrives before anybody hangs up.
    let (mut counts, mut before) = (packets(&folder), [0; 2]);
    while counts != before {
        thread::sleep(Duration::from_millis(500));
        (before, counts) = (counts, packets(&folder));
    }
    server.tell("stop");
    let said = server.await_words("Accumulated forward");
    let [arrived, answered] = ["RX-packets:", "TX-packets:"].map(|name| counted(&said, name));
    sink.tell("stop");
    let returned = counted(&sink.await_words("Accumulated forward"), "RX-packets:");

    let (code, said) = director.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(": holds"), "{said}");
    let [received, sent, unsent, unhanded, unopened] =
        ["received", "sent", "tx-full", "handoff-full", "overload"]
            .map(|name| accounted(&said, name));
    assert_eq!((received, sent), (made + answered, arrived + returned), "{said}");
    // Neither of these was a connection's packet.
    let (lost, [came_in, went_out]) = (unhanded + unopened, counts);
    assert_eq!(came_in + went_out + lost, received, "{said}");
    assert_eq!(sent + unsent + lost, received, "{said}");
    assert!(arrived > 1000 && returned > 1000, "{said}");
    let handed = accounted(&said, "handed over");
    println!(
        "{name}: {made} generated, {arrived} taken in, {answered} answered, {returned} returned, \
         {handed} handed over, in {:?}",
        length()
    );
    assert!(queues == "1" || handed > 0, "memif spreads by its own rule: {said}");
}

#[test]
fn counts_of_testpmd_and_of_one_worker_agree() {
    counts_agree("one", "[0]", "1");
}

#[test]
fn counts_of_testpmd_and_of_two_workers_agree() {
    if thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!("skipped: a single core");
        return;
    }
    counts_agree("two", "[0, 1]", "2");
}
