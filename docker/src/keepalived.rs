//! Debian's keepalived, unmodified, manages rvsd; servers and rvsd itself die and come back under a
//! steady client.
//!
//! What happens is printed as it happens; what must hold is judged at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::lab::{Lab, Setup, show_logs};
use crate::process::{Daemon, Limits, command, run};
use crate::topology::Topology;
use crate::web;

/// Where the real servers of NAT are.
const TOPOLOGY: &str = include_str!("../topologies/keepalived.toml");

const PORT: u16 = 80;
/// What the steady clients ask, each with its method.
const VIPS: [(&str, &str); 4] = [
    ("nat", "172.16.30.1"),
    ("nat6", "[fd00:30::1]"),
    ("dr", "172.16.30.3"),
    ("tun", "172.16.30.4"),
];

/// The address of keepalived's own VRRP instance.
const VRRP: &str = "172.16.30.99";

/// How long the pool may take to follow. A check each second and one more to be sure take three to four
/// seconds; the rest is for what else the machine may do.
const FOLLOWS: Duration = Duration::from_secs(15);
/// How long a client's request may hang.
const REQUEST: Duration = Duration::from_secs(5);
/// Clock ticks of a process's second, as `/proc` counts them.
const TICKS: u64 = 100;

/// Runs the scenario; whether all of it held.
///
/// # Errors
///
/// It could not be played to its end.
pub fn run_scenario(setup: &Setup, limits: &Limits) -> Result<bool> {
    let topology = Topology::parse(TOPOLOGY).context("topology keepalived")?;
    println!("\n== {}: {}", topology.name, topology.claim);
    let played = Lab::up(&topology, setup, limits).and_then(|lab| play(lab, setup, limits));
    let good = played.as_ref().is_ok_and(Vec::is_empty);
    if !good {
        show_logs(&topology, setup)?;
    }
    let failures = played?;
    println!("\nkeepalived: {}", if good { "all held" } else { "FAILED" });
    for failure in &failures {
        println!("  {failure}");
    }
    Ok(good)
}

/// A span of time in which requests to one address may fail.
struct Excuse {
    vip: &'static str,
    from: SystemTime,
    to: SystemTime,
}

/// What came of rvsd's absence.
struct Outage {
    /// What keepalived used of the processor meanwhile.
    ticks: u64,
    /// The rules before and after.
    rules: [String; 2],
}

struct Play<'l, 't> {
    lab: Lab<'t>,
    setup: &'l Setup,
    limits: &'l Limits,
    keepalived: Daemon,
    /// The web server that dies and comes back.
    rs1: Option<Daemon>,
    /// What the check of rs2 reads.
    weight: PathBuf,
    /// What keepalived's scripts write when the IPv6 pool loses its quorum or has it again.
    quorum: PathBuf,
    excuses: Vec<Excuse>,
}

fn play(lab: Lab<'_>, setup: &Setup, limits: &Limits) -> Result<Vec<String>> {
    let dir = lab.dir.clone();
    let (weight, quorum) = (dir.join("weight"), dir.join("quorum"));
    fs::write(&weight, "0\n")?;
    fs::write(&quorum, "")?;
    fs::write(dir.join("keepalived.conf"), configuration(&weight, &quorum, "wrr"))?;
    let keepalived = start(&lab, setup)?;
    let excuses = Vec::new();
    let mut play = Play { lab, setup, limits, keepalived, rs1: None, weight, quorum, excuses };
    play.revive()?;
    play.until("keepalived has filled the pools, those of addresses and of marks", |table| {
        let all = ["192.168.1.11:80", "[fd00:1::11]:80", "172.16.30.21:80", "192.168.1.41:80"];
        let services =
            ["FWM  7 rr", "FWM  8 sh", "TCP  172.16.30.50:80 sh", "TCP  172.16.30.51:80 sh"];
        all.iter().all(|dest| table.weight(dest).is_some_and(|weight| weight > 0))
            && services.iter().all(|service| table.0.contains(service))
    })?;
    play.until_quorum_is("up")?;
    play.until_vrrp_is_master()?;
    play.show()?;
    let clients = clients(&dir)?;
    play.pause(2)?;
    play.servers_die()?;
    let outage = play.rvsd_dies()?;
    play.all_servers_die()?;
    play.judge(clients, &outage)
}

impl Play<'_, '_> {
    /// A server fails and comes back; another's check asks for another weight.
    fn servers_die(&mut self) -> Result<()> {
        self.say("rs1's nginx is killed");
        self.without("nat", |play| {
            play.rs1 = None;
            play.until("keepalived has taken rs1 out", Table::is_without_rs1)
        })?;
        self.until_quorum_is("down")?;
        self.revive()?;
        self.until_rs1_is_back()?;
        self.until_quorum_is("up")?;
        fs::write(&self.weight, "9\n")?;
        self.until("the check of rs2 has changed its weight to 7", |table| {
            table.weight("192.168.1.12:80") == Some(7)
        })
    }

    /// rvsd is killed and started again, while keepalived wants to tell it something.
    fn rvsd_dies(&mut self) -> Result<Outage> {
        let before = self.rules_but_rs1()?;
        let ticks = cpu_ticks(&self.keepalived)?;
        self.say("rvsd is killed, and rs1's nginx too");
        let from = SystemTime::now();
        self.lab.director.kill()?;
        self.rs1 = None;
        self.pause(4)?;
        let ticks = cpu_ticks(&self.keepalived)?.saturating_sub(ticks);
        self.lab.restart_director(self.setup, self.limits)?;
        let after = self.rules_but_rs1()?;
        self.say("rvsd is back");
        self.until("keepalived, which goes on, has taken rs1 out", Table::is_without_rs1)?;
        for (vip, _) in VIPS {
            self.excuse(vip, from);
        }
        self.revive()?;
        self.until_rs1_is_back()?;
        Ok(Outage { ticks, rules: [before, after] })
    }

    /// Another configuration is read; then nobody is left but the sorry server.
    fn all_servers_die(&mut self) -> Result<()> {
        self.say("keepalived is told to read its configuration again: rr instead of wrr");
        fs::write(
            self.lab.dir.join("keepalived.conf"),
            configuration(&self.weight, &self.quorum, "rr"),
        )?;
        self.keepalived.signal("HUP")?;
        self.until("the scheduler is rr", |table| table.0.contains("TCP  172.16.30.1:80 rr"))?;
        self.say("both real servers fail");
        self.without("nat", |play| {
            play.rs1 = None;
            fs::write(&play.weight, "1\n")?;
            play.until("the sorry server stands in for them", |table| {
                table.weight("192.168.1.19:80").is_some()
                    && table.weight("192.168.1.12:80") != Some(7)
                    && table.is_without_rs1()
            })
        })?;
        self.pause(1)?;
        self.show()?;
        fs::write(&self.weight, "0\n")?;
        // As in Linux, what a connection sends whose server is taken away is lost.
        self.without("nat", |play| {
            play.until("rs2 is back, and the sorry server gone", |table| {
                table.weight("192.168.1.19:80").is_none()
            })
        })?;
        self.pause(1)
    }

    /// What did not hold.
    fn judge(mut self, clients: Vec<(&str, Daemon)>, outage: &Outage) -> Result<Vec<String>> {
        let mut failures = Vec::new();
        let mut judge = |claim: String, holds: bool| {
            println!("{:14}{} {claim}", "", if holds { "ok    " } else { "FAILED" });
            if !holds {
                failures.push(claim);
            }
        };
        for (vip, client) in clients {
            let requests = requests(&client.output());
            drop(client);
            let is_lost = |(at, code): &&(SystemTime, u16)| {
                *code != 200 && !is_excused(&self.excuses, vip, *at)
            };
            let lost = requests.iter().filter(is_lost).count();
            let answered = requests.iter().filter(|(_, code)| *code == 200).count();
            let all = requests.len();
            judge(
                format!("{vip}: {answered} of {all} requests answered; {lost} lost for no reason"),
                lost == 0 && answered > all / 2,
            );
        }
        let [before, after] = &outage.rules;
        judge("all rules were there when rvsd was back".to_owned(), before == after);
        judge(
            format!("keepalived took {} ticks of {} without rvsd", outage.ticks, 4 * TICKS),
            outage.ticks < TICKS,
        );
        let status = self.keepalived.terminate(self.limits)?;
        let left = self.lab.director.adm(&["-Sn"])?;
        judge(
            format!("keepalived ended with {status} and left no service"),
            status.success() && left.trim().is_empty(),
        );
        let (summary, _) = self.lab.end(self.limits)?;
        let law = summary.lines().last().unwrap_or_default();
        judge(law.to_owned(), law.ends_with("holds"));
        Ok(failures)
    }

    /// All rules but those of rs1, which keepalived may change as soon as there is an rvsd.
    fn rules_but_rs1(&self) -> Result<String> {
        let rules = self.lab.director.adm(&["-Sn"])?;
        let of_others =
            |line: &&str| !["192.168.1.11:", "[fd00:1::11]:"].iter().any(|it| line.contains(it));
        Ok(rules.lines().filter(of_others).collect::<Vec<_>>().join("\n"))
    }

    fn revive(&mut self) -> Result<()> {
        self.rs1 = Some(web::serve("rs1", PORT, &self.lab.dir)?);
        web::wait_until_served("rs1", PORT, self.limits)
    }

    fn until_rs1_is_back(&self) -> Result<()> {
        self.until("rs1 is back, and in the pool", |table| {
            table.weight("192.168.1.11:80") == Some(2) && table.weight("[fd00:1::11]:80") == Some(1)
        })
    }

    /// Waits until the IPv6 pool has its quorum or has lost it, as keepalived's scripts tell.
    fn until_quorum_is(&self, what: &str) -> Result<()> {
        let told =
            || Ok((fs::read_to_string(&self.quorum)?.lines().last() == Some(what)).then_some(()));
        self.limits.wait("the script of the quorum", FOLLOWS * 2, told)?;
        self.say(&format!("the quorum of the IPv6 pool is {what}"));
        Ok(())
    }

    /// Waits until keepalived's VRRP instance has its address.
    fn until_vrrp_is_master(&self) -> Result<()> {
        let look = || {
            let addresses = run(command(Some("manager"), "ip").args(["-4", "addr"]))?;
            Ok(addresses.contains(VRRP).then_some(()))
        };
        self.limits.wait("the address of VRRP", FOLLOWS * 2, look)?;
        self.say("VRRP beside it is master, and has its address");
        Ok(())
    }

    fn say(&self, what: &str) {
        self.limits.say(self.lab.topology, what);
    }

    fn show(&self) -> Result<()> {
        for line in self.lab.director.adm(&["-Ln"])?.lines() {
            println!("{:16}{line}", "");
        }
        Ok(())
    }

    fn pause(&self, seconds: u64) -> Result<()> {
        let until = self.limits.elapsed() + Duration::from_secs(seconds);
        let look = || Ok((self.limits.elapsed() >= until).then_some(()));
        self.limits.wait("time", Duration::from_secs(seconds + 10), look)
    }

    /// Waits until the listing is as it should be.
    fn until(&self, what: &str, holds: impl Fn(&Table) -> bool) -> Result<()> {
        let look = || {
            let table = Table(self.lab.director.adm(&["-Ln"])?);
            Ok(holds(&table).then_some(()))
        };
        self.limits.wait(what, FOLLOWS * 2, look)?;
        self.say(what);
        Ok(())
    }

    /// Plays something during which requests to `vip`, of both families, may fail.
    fn without(
        &mut self,
        vip: &'static str,
        play: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let from = SystemTime::now();
        play(self)?;
        let took = from.elapsed().unwrap_or_default();
        ensure!(took < FOLLOWS, "the pool followed after {} s", took.as_secs());
        self.excuse(vip, from);
        self.excuse("nat6", from);
        Ok(())
    }

    fn excuse(&mut self, vip: &'static str, from: SystemTime) {
        self.excuses.push(Excuse { vip, from: from - REQUEST, to: SystemTime::now() });
    }
}

/// What `rvsadm -Ln` printed.
struct Table(String);

impl Table {
    /// Whether rs1 gets no connection any more: one pool forgets it, the other keeps it with weight 0.
    fn is_without_rs1(&self) -> bool {
        self.weight("192.168.1.11:80").is_none() && self.weight("[fd00:1::11]:80") == Some(0)
    }

    /// The weight of a destination, if it is in any pool.
    fn weight(&self, dest: &str) -> Option<u32> {
        let row = self.0.lines().find(|row| row.split_whitespace().nth(1) == Some(dest))?;
        row.split_whitespace().nth(3)?.parse().ok()
    }
}

fn start(lab: &Lab<'_>, setup: &Setup) -> Result<Daemon> {
    let dir = &lab.dir;
    let mut keepalived = command(Some("manager"), setup.bin.join("rvs-run"));
    keepalived.args(["keepalived", "--dont-fork", "--log-console", "--log-detail"]);
    keepalived.arg("--use-file").arg(dir.join("keepalived.conf"));
    for (option, file) in
        [("--pid", "main"), ("--checkers_pid", "checkers"), ("--vrrp_pid", "vrrp")]
    {
        keepalived.arg(option).arg(dir.join(format!("{file}.pid")));
    }
    keepalived.env("RVS_NETLINK", lab.director.netlink());
    Daemon::start("keepalived", keepalived, dir)
}

/// Clients that ask all the time, each one address.
fn clients(dir: &Path) -> Result<Vec<(&'static str, Daemon)>> {
    let client = |(name, vip): (&'static str, &str)| {
        let most = REQUEST.as_secs();
        let script = format!(
            "while :; do echo \"$(date +%s.%N) $(curl -s -g -o {dir}/page.{name} -m {most} \
             -w '%{{http_code}}' http://{vip}/)\"; sleep 0.05; done",
            dir = dir.display()
        );
        let mut shell = command(Some("client"), "sh");
        shell.args(["-c", &script]);
        Ok((name, Daemon::start(&format!("client.{name}"), shell, dir)?))
    };
    VIPS.into_iter().map(client).collect()
}

/// When requests were begun, and what came back; zero is nothing.
fn requests(lines: &str) -> Vec<(SystemTime, u16)> {
    let request = |line: &str| {
        let (at, code) = line.split_once(' ')?;
        let at = Duration::from_secs_f64(at.parse().ok()?);
        Some((SystemTime::UNIX_EPOCH + at, code.trim().parse().ok()?))
    };
    lines.lines().filter_map(request).collect()
}

fn is_excused(excuses: &[Excuse], vip: &str, at: SystemTime) -> bool {
    excuses.iter().any(|it| it.vip == vip && it.from <= at && at <= it.to)
}

/// What keepalived's processes have used of the processor.
fn cpu_ticks(keepalived: &Daemon) -> Result<u64> {
    let group = keepalived.id().to_string();
    let all = run(Command::new("ps").args(["-o", "pid=", "-g", &group]))
        .or_else(|_| run(Command::new("pgrep").args(["-g", &group])))?;
    let ticks = |pid: &str| {
        let stat = fs::read_to_string(PathBuf::from("/proc").join(pid).join("stat")).ok()?;
        // Behind the name, which may have spaces: utime and stime are the twelfth and thirteenth.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        Some(fields.next()?.ok()? + fields.next()?.ok()?)
    };
    Ok(all.split_whitespace().filter_map(ticks).sum())
}

/// A configuration with what people use: checks of three kinds, all methods, both families.
fn configuration(weight: &Path, quorum: &Path, scheduler: &str) -> String {
    let tcp = "TCP_CHECK { connect_timeout 4; retry 1; delay_before_retry 1 }";
    let http = "HTTP_GET { url { path /; status_code 200 }; connect_timeout 4; retry 1; \
                delay_before_retry 1 }";
    let misc = format!(
        "MISC_CHECK {{ misc_path \"/bin/sh -c 'exit $(cat {})'\"; misc_timeout 5; misc_dynamic }}",
        weight.display()
    );
    let service = |name: &str, kind: &str, scheduler: &str, rest: &str| {
        format!(
            "virtual_server {name} {{ delay_loop 1; lb_algo {scheduler}; lb_kind {kind}; \
             protocol TCP; {rest} }}"
        )
    };
    let server = |address: &str, rest: &str, check: &str| {
        format!("real_server {address} 80 {{ {rest}; {check} }}")
    };
    let several = server("192.168.1.12", "weight 1", tcp);
    let nat = [
        "quorum 1; sorry_server 192.168.1.19 80".to_owned(),
        server("192.168.1.11", "weight 2", http),
        server("192.168.1.12", "weight 2", &misc),
    ];
    let script = |event: &str| {
        format!("quorum_{event} \"/bin/sh -c 'echo {event} >> {}'\"", quorum.display())
    };
    let nat6 = [
        format!("quorum 2; {}; {}", script("up"), script("down")),
        server("fd00:1::11", "weight 1; inhibit_on_failure", tcp),
        server("fd00:1::12", "weight 1", tcp),
    ];
    let all = [
        "global_defs { router_id rvs; script_user root; lvs_flush }".to_owned(),
        "vrrp_instance beside { state MASTER; interface eth0; virtual_router_id 51; priority 100; \
         advert_int 1; virtual_ipaddress { VRRP/24 } }"
            .replace("VRRP", VRRP),
        "virtual_server_group several { 172.16.30.50-51 80; fwmark 8 }".to_owned(),
        service("172.16.30.1 80", "NAT", scheduler, &nat.join("; ")),
        service("fd00:30::1 80", "NAT", "wlc", &nat6.join("; ")),
        service("172.16.30.3 80", "DR", "rr", &server("172.16.30.21", "weight 1", tcp)),
        service("172.16.30.4 80", "TUN", "rr", &server("192.168.1.41", "weight 1", tcp)),
        service("group several", "NAT", "sh", &several),
        service("fwmark 7", "NAT", "rr", &several),
    ];
    // keepalived has a line for each statement.
    let lines = all.join("\n").replace("; ", "\n").replace("{ ", "{\n").replace(" }", "\n}");
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_topology_is_sound() {
        Topology::parse(TOPOLOGY).unwrap();
    }

    #[test]
    fn requests_outside_of_an_excuse_are_not_excused() {
        let requests = requests("100.5 200\n101.25 000\nbroken\n");
        assert_eq!(requests.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [200, 0]);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let excuses = [Excuse { vip: "nat", from: at(101), to: at(102) }];
        assert!(is_excused(&excuses, "nat", requests[1].0));
        assert!(!is_excused(&excuses, "dr", requests[1].0));
        assert!(!is_excused(&excuses, "nat", requests[0].0));
    }

    #[test]
    fn a_weight_is_the_fourth_column() {
        let table =
            Table("TCP  1.2.3.4:80 rr\n  -> 192.0.2.11:80    Masq    7      0     0\n".into());
        assert_eq!(table.weight("192.0.2.11:80"), Some(7));
        assert_eq!(table.weight("192.0.2.12:80"), None);
    }
}
