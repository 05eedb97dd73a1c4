//! Mixed traffic through rvsd for a while, with changes of its configuration and faults; afterwards
//! nothing has leaked, every connection is gone, and every frame is accounted for by a name that the
//! traffic explains.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rvs_lab::process::{Limits, command, run};

use crate::rvsd::{Driver, Rvsd};
use crate::stage::{
    BULK, CLIENT, HTTP, Links, REALS, REALS6, SERVERS, Stage, VIP, VIP6, Way, Wire, ip,
};

/// Connections are forgotten soon after their last packet, so that all can be seen to go.
const TIMEOUTS: &str = "
[timeouts]
established = 20
syn_sent = 3
syn_recv = 3
fin_wait = 3
time_wait = 3
close_wait = 3
last_ack = 3
udp = 3
";
/// How long the last of them may take to go.
const PATIENCE: Duration = Duration::from_secs(90);
/// Memory that may be touched late, and is none that leaked, in KB.
const RSS_SLACK_KB: u64 = 4096;
/// A page whose content is known: as in [`Stage::serve`].
const LARGE: usize = 4 << 20;

/// Why frames may be dropped by what happens here, each with its reason.
const EXPLAINED: [(&str, &str); 10] = [
    ("arp-ignored", "a kernel tells of its address"),
    ("consumed", "neighbours talk to each other"),
    ("ndp-ignored", "kernels look for routers and duplicates"),
    ("multicast", "kernels report the groups that they are in"),
    ("answered", "pings"),
    ("tx-full", "a link that is down takes no frame"),
    ("neighbor-unresolved", "servers are away for a moment"),
    ("neighbor-queue-full", "servers are away for a moment"),
    ("local-ignored", "segments for connections that a fault ended"),
    ("no-dest", "all destinations of a service are taken out for a moment"),
];

/// What rvsd holds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rss_kb: u64,
    descriptors: usize,
    threads: usize,
}

impl Sample {
    fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
        let count = |what: &str| {
            Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{process}/{what}"))?.count())
        };
        Ok(Self { rss_kb: rss.parse()?, descriptors: count("fd")?, threads: count("task")? })
    }
}

/// Runs it. Every failed claim is told; the last line says how it went.
pub fn act(bin: &Path, minutes: u32) -> Result<()> {
    let limits = Limits::new(Duration::MAX)?;
    let mut stage = Stage::build(Links::Tap, Path::new("/run/rvs-soak"))?;
    let dir = stage.dir.clone();
    let mut rvsd = Rvsd::start(Driver::Tap, TIMEOUTS, bin, &dir, None, &limits)?;
    stage.connect(Way::Through, Wire::Gso)?;
    for port in [HTTP, BULK] {
        rvsd.serve("-t", VIP, port, &REALS, "-m")?;
        rvsd.serve("-u", VIP, port, &REALS, "-m")?;
    }
    rvsd.serve("-t", VIP6, HTTP, &REALS6, "-m")?;
    stage.serve(&limits)?;

    let until = Instant::now() + Duration::from_secs(60 * u64::from(minutes));
    let mut samples = Vec::new();
    let mut failures: BTreeMap<String, u32> = BTreeMap::new();
    let mut rounds = 0;
    while Instant::now() < until {
        for (name, work) in WORKS {
            limits.check()?;
            if let Err(error) = work(&rvsd, &dir) {
                let text = format!("{name}: {error:#}");
                println!("   {text}");
                *failures.entry(name.to_owned()).or_default() += 1;
            }
        }
        rounds += 1;
        samples.push(Sample::of(rvsd.id())?);
    }
    limits
        .wait("the end of all connections", PATIENCE, || Ok((conns(&rvsd)? == 0).then_some(())))?;
    let mut wrong: Vec<_> =
        failures.into_iter().map(|(name, times)| format!("{name} failed {times} times")).collect();
    wrong.extend(leaks(&samples));
    let account = rvsd.end(&limits)?;
    wrong.extend(unexplained(&account));
    println!("{account}");
    for line in &wrong {
        println!("FAILED {line}");
    }
    ensure!(wrong.is_empty(), "{} claims do not hold", wrong.len());
    let last = samples.last().context("no time for a round")?;
    println!(
        "soak: {rounds} rounds in {minutes} minutes; {} KB, {} descriptors, {} threads, nothing leaked; every \
         frame accounted for",
        last.rss_kb, last.descriptors, last.threads
    );
    Ok(())
}

type Work = fn(&Rvsd, &Path) -> Result<()>;

/// What is done in each round.
const WORKS: [(&str, Work); 10] = [
    ("short connections", |_, _| wrk(&["-H", "Connection: close"])),
    ("requests", |_, _| wrk(&[])),
    ("a download over IPv4", |_, _| download(&format!("http://{VIP}/large"))),
    ("a download over IPv6", |_, _| download(&format!("http://[{VIP6}]/large"))),
    ("bulk to the servers", |_, _| iperf(&[])),
    ("bulk from the servers", |_, _| iperf(&["-R", "-P", "4"])),
    ("datagrams", |_, _| datagrams()),
    ("changes under traffic", |rvsd, _| changes(rvsd)),
    ("lists under traffic", |rvsd, _| lists(rvsd)),
    ("faults", |rvsd, _| faults(rvsd)),
];

fn client(program: &str) -> Command {
    let mut client = command(Some(CLIENT), "timeout");
    client.args(["20", program]);
    client
}

fn wrk(more: &[&str]) -> Result<()> {
    let mut wrk = client("wrk");
    let said = run(wrk.args(["-t1", "-c16", "-d1s"]).args(more).arg(format!("http://{VIP}/")))?;
    let wrong =
        said.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    match wrong {
        Some(line) => bail!("{}", line.trim()),
        None => Ok(()),
    }
}

fn download(url: &str) -> Result<()> {
    let mut curl = client("curl");
    let output = curl.args(["-s", "-S", "-f", "--noproxy", "*", "-g", url]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let body = output.stdout;
    ensure!(body.len() == LARGE && body.iter().all(|octet| *octet == b'x'), "another page came");
    Ok(())
}

fn iperf(more: &[&str]) -> Result<()> {
    let mut iperf = client("iperf3");
    iperf.args(["-c", VIP, "-p", &BULK.to_string(), "-t", "1", "--connect-timeout", "3000"]);
    run(iperf.args(more)).map(drop)
}

fn datagrams() -> Result<()> {
    let own = std::env::current_exe()?;
    run(client(&own.to_string_lossy()).args(["flood", &format!("{VIP}:{HTTP}"), "1"])).map(drop)
}

/// Runs `act` while somebody asks for pages, one after another; none may fail.
fn under_requests(act: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut curl = client("curl");
    curl.args(["-s", "-S", "-f", "--noproxy", "*", "--max-time", "5", "-o", "/dev/null"]);
    let asking = curl.arg(format!("http://{VIP}/?[1-300]")).spawn()?;
    let done = act();
    let output = asking.wait_with_output()?;
    done?;
    ensure!(output.status.success(), "a request failed meanwhile");
    Ok(())
}

/// Destinations come, change and go. New connections find others; old ones end where they began.
fn changes(rvsd: &Rvsd) -> Result<()> {
    let vip = format!("{VIP}:{HTTP}");
    under_requests(|| {
        for real in REALS {
            let real = format!("{real}:{HTTP}");
            rvsd.adm(&["-e", "-t", &vip, "-r", &real, "-m", "-w", "0"])?;
            rvsd.adm(&["-e", "-t", &vip, "-r", &real, "-m", "-w", "3"])?;
        }
        for scheduler in ["wrr", "lc", "mh", "rr"] {
            rvsd.adm(&["-E", "-t", &vip, "-s", scheduler])?;
        }
        rvsd.adm(&["-A", "-t", "10.99.0.2:80", "-s", "wlc"])?;
        rvsd.adm(&["-a", "-t", "10.99.0.2:80", "-r", "10.20.0.11:80", "-g"])?;
        rvsd.adm(&["-D", "-t", "10.99.0.2:80"]).map(drop)
    })
}

fn lists(rvsd: &Rvsd) -> Result<()> {
    under_requests(|| {
        for arguments in
            [&["-Ln"][..], &["-Ln", "--stats"], &["-Lnc"], &["-Ln", "--rate"], &["-Sn"]]
        {
            rvsd.adm(arguments)?;
        }
        Ok(())
    })
}

/// Clients that hang up in the middle, ports without a service, a link that goes down and comes back.
fn faults(rvsd: &Rvsd) -> Result<()> {
    let half = format!("curl -s --noproxy '*' http://{VIP}/large | head -c 100000 >/dev/null");
    run(client("sh").args(["-c", &half]))?;
    let refused = client("curl")
        .args(["-s", "--noproxy", "*", "--max-time", "2"])
        .arg(format!("http://{VIP}:81/"))
        .status()?;
    ensure!(!refused.success(), "nobody serves there");
    ip(SERVERS, "link set r0 down\n")?;
    thread::sleep(Duration::from_millis(200));
    // With the link went its routes and neighbours.
    let addresses = REALS6.map(|real| format!("addr replace {real}/64 dev r0 nodad\n")).concat();
    let back = format!(
        "link set r0 up\n{addresses}\
         neigh replace 10.20.0.1 lladdr 02:00:00:00:00:d1 dev r0 nud permanent\n\
         neigh replace fd20::1 lladdr 02:00:00:00:00:d1 dev r0 nud permanent\n\
         route replace default via 10.20.0.1\nroute replace default via fd20::1\n"
    );
    ip(SERVERS, &back)?;
    let until = Instant::now() + Duration::from_secs(5);
    while Stage::fetch("/").is_err() {
        ensure!(
            Instant::now() < until,
            "no answer after the link came back: {}",
            rvsd.adm(&["-Ln"])?
        );
    }
    Ok(())
}

/// Connections that rvsd has.
fn conns(rvsd: &Rvsd) -> Result<usize> {
    // Two lines of headings.
    Ok(rvsd.adm(&["-Lnc"])?.lines().skip(2).count())
}

/// What grew between the first third and the end.
fn leaks(samples: &[Sample]) -> Vec<String> {
    let warm = samples.get(samples.len() / 3);
    let (Some(warm), Some(last)) = (warm, samples.last()) else { return Vec::new() };
    let mut wrong = Vec::new();
    if last.rss_kb > warm.rss_kb + RSS_SLACK_KB {
        wrong.push(format!("memory grew from {} to {} KB", warm.rss_kb, last.rss_kb));
    }
    if last.descriptors > warm.descriptors || last.threads > warm.threads {
        wrong.push(format!("descriptors or threads grew: {warm:?}, {last:?}"));
    }
    wrong
}

/// What the account says that must not be.
fn unexplained(account: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !account.lines().any(|line| line.starts_with("conservation:") && line.ends_with(": holds")) {
        wrong.push("frames are unaccounted for".to_owned());
    }
    // Reasons are indented.
    for line in account.lines().filter(|line| line.starts_with("  ")) {
        let reason = line.split_whitespace().next().unwrap_or_default();
        if !EXPLAINED.iter().any(|(name, _)| *name == reason) {
            wrong.push(format!("nothing explains {}", line.trim()));
        }
    }
    let left = account.lines().find(|line| line.starts_with("connections"));
    if left.is_none_or(|line| !line.ends_with(" 0 IPv4, 0 IPv6")) {
        wrong.push(format!("connections are left: {}", left.unwrap_or("no line of them")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rss_kb: u64, descriptors: usize) -> Sample {
        Sample { rss_kb, descriptors, threads: 5 }
    }

    #[test]
    fn what_grows_after_it_was_warm_is_a_leak() {
        let warm = [sample(10_000, 20), sample(40_000, 21), sample(40_100, 21), sample(40_200, 21)];
        assert_eq!(leaks(&warm), Vec::<String>::new());
        let fat = [sample(40_000, 21), sample(40_000, 21), sample(50_000, 21)];
        assert_eq!(leaks(&fat).len(), 1);
        let open = [sample(40_000, 21), sample(40_000, 21), sample(40_000, 22)];
        assert_eq!(leaks(&open).len(), 1);
    }

    #[test]
    fn drops_that_nothing_explains_and_lost_frames_are_found() {
        let good = "received  9 frames\n  consumed    3  words\nconnections   0 IPv4, 0 IPv6\n\
                    conservation: received 9 == sent 6 + dropped 3: holds";
        assert_eq!(unexplained(good), Vec::<String>::new());
        let bad =
            "  no-frame   3  words\nconnections   1 IPv4, 0 IPv6\nconservation: VIOLATED by 1";
        assert_eq!(unexplained(bad).len(), 3);
    }
}
