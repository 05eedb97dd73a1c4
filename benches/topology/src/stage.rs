//! Client, director and real servers, each a network namespace.
//!
//! ```text
//!  client                   director                   servers
//!  c0 10.10.0.2 ────── d0 10.10.0.1
//!                      d1 10.20.0.1 ────── r0 10.20.0.11 … .14   nginx, iperf3
//!  c1 10.30.0.2 ──────────────────────────  r1 10.30.0.1         replies of DR and TUN
//! ```
//!
//! The client routes the VIP to 10.10.0.1. Neighbours are entered by hand: no ARP in what is measured.
//! With TAP links c0 and r0 are the kernel's ends of what rvsd holds, moved to where they belong.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rvs_lab::process::{Daemon, Limits, command, run, run_with_input};

/// The namespaces.
pub const CLIENT: &str = "client";
/// See [`CLIENT`].
pub const DIRECTOR: &str = "director";
/// See [`CLIENT`].
pub const SERVERS: &str = "servers";

/// The service's address.
pub const VIP: &str = "10.99.0.1";
/// The same of IPv6.
pub const VIP6: &str = "fd99::1";
/// The real servers.
pub const REALS: [&str; 4] = ["10.20.0.11", "10.20.0.12", "10.20.0.13", "10.20.0.14"];
/// The same of IPv6.
pub const REALS6: [&str; 2] = ["fd20::11", "fd20::12"];
/// nginx.
pub const HTTP: u16 = 80;
/// iperf3.
pub const BULK: u16 = 5201;

/// Ethernet addresses of the director's ends. What rvsd shares with a kernel has another.
pub const DIRECTOR_MACS: [&str; 2] = ["02:00:00:00:00:d0", "02:00:00:00:00:d1"];
/// rvsd's own beside a kernel's.
pub const SHARED_MACS: [&str; 2] = ["02:00:00:00:01:d0", "02:00:00:00:01:d1"];
/// Of the client.
pub const CLIENT_MAC: &str = "02:00:00:00:00:c0";
/// Of the real servers.
pub const SERVERS_MAC: &str = "02:00:00:00:00:a0";

/// What a link carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Wire {
    /// What the kernels' devices offer: frames of up to 64 KB, checksums for a card to finish.
    Gso,
    /// As a cable: frames of 1514 octets at most, with finished checksums.
    Mtu,
}

impl Wire {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gso => "gso",
            Self::Mtu => "mtu",
        }
    }
}

/// How the director's links are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Links {
    /// A pair of veths each; the director's kernel has addresses there.
    Kernel,
    /// The same, and rvsd shares them with the kernel.
    Shared,
    /// TAPs that rvsd makes.
    Tap,
}

/// Where the VIP is, and which way replies go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// At the director, and back through it.
    Through,
    /// At the servers, and back through the director.
    Routed,
    /// At the servers, and back past the director.
    Direct,
}

/// The namespaces, links and real servers of one run. Dropped, all of it ends.
#[derive(Debug)]
pub struct Stage {
    /// Files of the run.
    pub dir: PathBuf,
    links: Links,
    // Programs end before their namespaces.
    programs: Vec<Daemon>,
    _namespaces: Namespaces,
}

/// Deletes them.
#[derive(Debug)]
struct Namespaces;

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [CLIENT, DIRECTOR, SERVERS] {
            // What cannot be deleted goes with the mount namespace.
            let _ = run(Command::new("ip").args(["netns", "del", name]));
        }
    }
}

impl Stage {
    /// The namespaces and all links but TAPs.
    pub fn build(links: Links, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let namespaces = Namespaces;
        for name in [CLIENT, DIRECTOR, SERVERS] {
            run(Command::new("ip").args(["netns", "add", name]))?;
            run(Command::new("ip").args(["netns", "exec", name, "sh", "-c", SYSCTLS]))?;
            ip(name, "link set lo up\n")?;
        }
        ip(
            CLIENT,
            "link add c1 address 02:00:00:00:00:c1 type veth peer name r1 address \
             02:00:00:00:00:a1 netns servers\nlink set c1 up\n",
        )?;
        if links != Links::Tap {
            let [clients, servers] = DIRECTOR_MACS;
            let script = format!(
                "link add d0 address {clients} type veth peer name c0 address {CLIENT_MAC} netns client\n\
                 link add d1 address {servers} type veth peer name r0 address {SERVERS_MAC} netns servers\n\
                 link set d0 up\nlink set d1 up\n"
            );
            ip(DIRECTOR, &script)?;
        }
        let dir = dir.to_owned();
        Ok(Self { dir, links, programs: Vec::new(), _namespaces: namespaces })
    }

    /// Plugs in the director's TAPs, and gives everybody addresses and routes.
    pub fn connect(&self, way: Way, wire: Wire) -> Result<()> {
        if self.links == Links::Tap {
            ip(
                DIRECTOR,
                &format!(
                    "link set c0 address {CLIENT_MAC} txqueuelen 1000 netns client\n\
                     link set r0 address {SERVERS_MAC} txqueuelen 1000 netns servers\n"
                ),
            )?;
        }
        let macs = if self.links == Links::Shared { SHARED_MACS } else { DIRECTOR_MACS };
        let [near_clients, near_servers] = macs;
        let mut client = format!(
            "link set c0 up\naddr add 10.10.0.2/24 dev c0\naddr add fd10::2/64 dev c0 nodad\n\
             addr add 10.30.0.2/24 dev c1\n\
             neigh replace 10.10.0.1 lladdr {near_clients} dev c0 nud permanent\n\
             neigh replace fd10::1 lladdr {near_clients} dev c0 nud permanent\n\
             route add {VIP}/32 via 10.10.0.1\nroute add 10.20.0.0/24 via 10.10.0.1\n\
             route add {VIP6}/128 via fd10::1\n"
        );
        writeln!(client, "neigh replace 10.30.0.1 lladdr 02:00:00:00:00:a1 dev c1 nud permanent")?;
        ip(CLIENT, &client)?;
        let mut servers = String::from("link set r0 up\nlink set r1 up\n");
        for real in REALS {
            writeln!(servers, "addr add {real}/24 dev r0")?;
        }
        for real in REALS6 {
            writeln!(servers, "addr add {real}/64 dev r0 nodad")?;
        }
        writeln!(servers, "addr add 10.30.0.1/24 dev r1")?;
        writeln!(servers, "neigh replace 10.20.0.1 lladdr {near_servers} dev r0 nud permanent")?;
        writeln!(servers, "neigh replace fd20::1 lladdr {near_servers} dev r0 nud permanent")?;
        writeln!(servers, "neigh replace 10.30.0.2 lladdr 02:00:00:00:00:c1 dev r1 nud permanent")?;
        if way != Way::Through {
            writeln!(servers, "addr add {VIP}/32 dev lo")?;
        }
        let back = if way == Way::Direct { "10.30.0.2" } else { "10.20.0.1" };
        writeln!(servers, "route add default via {back}\nroute add default via fd20::1")?;
        ip(SERVERS, &servers)?;
        if self.links == Links::Kernel {
            let mut director = format!(
                "addr add 10.10.0.1/24 dev d0\naddr add 10.20.0.1/24 dev d1\n\
                 neigh replace 10.10.0.2 lladdr {CLIENT_MAC} dev d0 nud permanent\n"
            );
            for real in REALS {
                writeln!(
                    director,
                    "neigh replace {real} lladdr {SERVERS_MAC} dev d1 nud permanent"
                )?;
            }
            if way != Way::Through {
                writeln!(director, "route add {VIP}/32 via {}", REALS.first().unwrap_or(&""))?;
            }
            ip(DIRECTOR, &director)?;
        }
        if wire == Wire::Mtu {
            let ends = [(CLIENT, "c0"), (CLIENT, "c1"), (SERVERS, "r0"), (SERVERS, "r1")];
            let own = [(DIRECTOR, "d0"), (DIRECTOR, "d1")];
            let own = own.into_iter().filter(|_| self.links != Links::Tap);
            for (namespace, device) in ends.into_iter().chain(own) {
                let off = ["-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"];
                // A device that cannot is as it should be.
                let _ = run(command(Some(namespace), "ethtool").args(off));
            }
        }
        Ok(())
    }

    /// nginx and iperf3.
    pub fn serve(&mut self, limits: &Limits) -> Result<()> {
        let dir = self.dir.display().to_string();
        let www = self.dir.join("www");
        fs::create_dir_all(&www)?;
        fs::write(www.join("index.html"), "ok\n")?;
        fs::write(www.join("large"), vec![b'x'; 4 << 20])?;
        let config = self.dir.join("real.conf");
        fs::write(
            &config,
            format!(
                "daemon off; master_process off; pid {dir}/real.pid;\n\
                 events {{ worker_connections 8192; }}\n\
                 http {{\n  access_log off; keepalive_requests 100000000; keepalive_timeout 300;\n  \
                 open_file_cache max=16 inactive=600s; default_type text/plain;\n  \
                 server {{ listen {HTTP} backlog=8192; listen [::]:{HTTP} backlog=8192; root {dir}/www; }}\n}}\n"
            ),
        )?;
        let mut nginx = command(Some(SERVERS), "nginx");
        nginx.arg("-e").arg(self.dir.join("real.log")).arg("-c").arg(&config);
        self.programs.push(Daemon::start("real", nginx, &self.dir)?);
        let mut iperf = command(Some(SERVERS), "iperf3");
        iperf.args(["-s", "-p", &BULK.to_string()]);
        self.programs.push(Daemon::start("iperf", iperf, &self.dir)?);
        let mut sink = command(Some(SERVERS), std::env::current_exe()?);
        sink.args(["sink", &format!("0.0.0.0:{HTTP}")]);
        self.programs.push(Daemon::start("sink", sink, &self.dir)?);
        limits.wait("an answer through the director", Duration::from_mins(1), || {
            Ok(Self::fetch("/").ok())
        })?;
        Ok(())
    }

    /// Gets a page through the director.
    pub fn fetch(path: &str) -> Result<String> {
        let mut curl = command(Some(CLIENT), "curl");
        curl.args(["-s", "-S", "-f", "--noproxy", "*", "--max-time", "10"]);
        run(curl.arg(format!("http://{VIP}:{HTTP}{path}"))).context("curl")
    }

    /// Adds a program that ends with the stage.
    pub fn keep(&mut self, program: Daemon) {
        self.programs.push(program);
    }
}

/// Runs `script`, one `ip` command a line, in a namespace.
pub fn ip(namespace: &str, script: &str) -> Result<()> {
    run_with_input(Command::new("ip").args(["-n", namespace, "-batch", "-"]), script)
}

/// Kernel parameters of everybody. No slow path is asked for by accident: no filters for the way
/// back, no redirects, no cookies, ports enough, a congestion control that does not pace.
const SYSCTLS: &str = "
for k in all default; do
    echo 0 >/proc/sys/net/ipv4/conf/$k/rp_filter
    echo 0 >/proc/sys/net/ipv4/conf/$k/send_redirects
    echo 0 >/proc/sys/net/ipv6/conf/$k/accept_dad
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo '1024 65535' >/proc/sys/net/ipv4/ip_local_port_range
echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse
echo 8192 >/proc/sys/net/core/somaxconn
echo 8192 >/proc/sys/net/ipv4/tcp_max_syn_backlog
echo 0 >/proc/sys/net/ipv4/tcp_syncookies
echo cubic >/proc/sys/net/ipv4/tcp_congestion_control || echo reno >/proc/sys/net/ipv4/tcp_congestion_control
";
