//! Who stands between clients and servers.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::Result;
use rvs_lab::process::{Daemon, Limits, command, run, run_with_input};

use crate::rvsd::{Driver, Rvsd};
use crate::stage::{BULK, DIRECTOR, HTTP, Links, REALS, SERVERS, Stage, VIP, Way, Wire};
use crate::usage::Group;

/// A director, or none.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, clap::ValueEnum)]
pub enum Peer {
    /// The kernel routes to one server: what every kernel's director stands on.
    Forward,
    /// nftables DNAT, in turn, with connection tracking.
    Nftables,
    /// HAProxy in TCP mode, two threads.
    Haproxy,
    /// nginx's stream module, two processes.
    Nginx,
    /// The least that a program between two TAPs can do.
    TapFloor,
    /// rvs, NAT, TAP links.
    RvsTap,
    /// The same with `offload = false`: frames are cut and checksums finished before it sees them.
    RvsTapCut,
    /// The least that a program between two veths can do over AF_XDP.
    #[value(name = "af_xdp-floor")]
    AfXdpFloor,
    /// rvs, NAT, AF_XDP links.
    #[value(name = "rvs-af_xdp")]
    RvsAfXdp,
    /// The kernel routes to one server, which answers past the director: the floor of the next two.
    ForwardDirect,
    /// rvs, direct routing, TAP links.
    RvsDr,
    /// rvs, IP in IP, TAP links; a program of the lab unwraps at the servers.
    RvsTun,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Forward,
        Self::Nftables,
        Self::Haproxy,
        Self::Nginx,
        Self::TapFloor,
        Self::RvsTap,
        Self::RvsTapCut,
        Self::AfXdpFloor,
        Self::RvsAfXdp,
        Self::ForwardDirect,
        Self::RvsDr,
        Self::RvsTun,
    ];

    /// As in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forwarding",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx stream",
            Self::TapFloor => "TAP floor",
            Self::RvsTap => "rvs NAT, TAP",
            Self::RvsTapCut => "rvs NAT, TAP, no offload",
            Self::AfXdpFloor => "AF_XDP floor",
            Self::RvsAfXdp => "rvs NAT, AF_XDP",
            Self::ForwardDirect => "forwarding, direct",
            Self::RvsDr => "rvs DR, TAP",
            Self::RvsTun => "rvs TUN, TAP",
        }
    }

    const fn way(self) -> Way {
        match self {
            Self::Forward | Self::TapFloor | Self::AfXdpFloor => Way::Routed,
            Self::Nftables
            | Self::Haproxy
            | Self::Nginx
            | Self::RvsTap
            | Self::RvsTapCut
            | Self::RvsAfXdp => Way::Through,
            Self::ForwardDirect | Self::RvsDr | Self::RvsTun => Way::Direct,
        }
    }

    const fn links(self) -> Links {
        match self {
            Self::TapFloor | Self::RvsTap | Self::RvsTapCut | Self::RvsDr | Self::RvsTun => {
                Links::Tap
            }
            Self::AfXdpFloor | Self::RvsAfXdp => Links::Shared,
            _ => Links::Kernel,
        }
    }

    /// What the least is that a program over its links can do.
    pub const fn floor(self) -> Option<Self> {
        match self.links() {
            Links::Tap => Some(Self::TapFloor),
            Links::Shared => Some(Self::AfXdpFloor),
            Links::Kernel => None,
        }
    }

    /// Whether it carries UDP.
    pub const fn carries_udp(self) -> bool {
        !matches!(self, Self::Haproxy)
    }

    /// Whether it is a program, which takes processor time of its own.
    pub const fn is_program(self) -> bool {
        !matches!(self, Self::Forward | Self::Nftables | Self::ForwardDirect)
    }

    /// Builds the stage around it, and waits for the first answer.
    pub fn set_up(
        self,
        wire: Wire,
        bin: &Path,
        dir: &Path,
        group: &Group,
        limits: &Limits,
    ) -> Result<(Stage, Option<Rvsd>)> {
        let mut stage = Stage::build(self.links(), dir)?;
        let mut rvsd = None;
        match self {
            Self::Forward | Self::ForwardDirect => {}
            Self::Nftables => {
                let mut nft = command(Some(DIRECTOR), "nft");
                run_with_input(nft.args(["-f", "-"]), &nft_rules())?;
            }
            Self::Haproxy => {
                let file = dir.join("haproxy.cfg");
                fs::write(&file, haproxy_config()?)?;
                let mut haproxy = command(Some(DIRECTOR), "haproxy");
                haproxy.arg("-db").arg("-f").arg(&file);
                vip_at_the_director()?;
                stage.keep(start("haproxy", haproxy, dir, group)?);
            }
            Self::Nginx => {
                vip_at_the_director()?;
                // Two that share the port, as a master's workers do: those would outlive it if it is killed.
                for name in ["stream0", "stream1"] {
                    let file = dir.join(format!("{name}.conf"));
                    fs::write(&file, nginx_config(name, dir)?)?;
                    let mut nginx = command(Some(DIRECTOR), "sh");
                    nginx.args(["-ec", "ulimit -Sn $(ulimit -Hn); exec nginx \"$@\"", "sh"]);
                    nginx.arg("-e").arg(dir.join(format!("{name}.log"))).arg("-c").arg(&file);
                    stage.keep(start(name, nginx, dir, group)?);
                }
            }
            Self::TapFloor | Self::AfXdpFloor => {
                let over = if self == Self::TapFloor { "tap" } else { "af_xdp" };
                let mut floor = command(Some(DIRECTOR), env::current_exe()?);
                floor.args(["floor", over]);
                let mut floor = start("floor", floor, dir, group)?;
                floor.wait_for_line("floor: ready", limits)?;
                stage.keep(floor);
            }
            Self::RvsTap | Self::RvsDr | Self::RvsTun => {
                rvsd = Some(Rvsd::start(Driver::Tap, "", bin, dir, Some(group), limits)?);
            }
            Self::RvsTapCut => {
                let more = "\n[workers]\noffload = false\n";
                rvsd = Some(Rvsd::start(Driver::Tap, more, bin, dir, Some(group), limits)?);
            }
            Self::RvsAfXdp => {
                rvsd = Some(Rvsd::start(Driver::AfXdp, "", bin, dir, Some(group), limits)?);
            }
        }
        stage.connect(self.way(), wire)?;
        if let Some(rvsd) = &rvsd {
            let method = match self {
                Self::RvsDr => "-g",
                Self::RvsTun => "-i",
                _ => "-m",
            };
            for port in [HTTP, BULK] {
                for protocol in ["-t", "-u"] {
                    rvsd.serve(protocol, VIP, port, &REALS, method)?;
                }
            }
        }
        if self == Self::RvsTun {
            let mut decap = command(Some(SERVERS), bin.join("rvs-lab"));
            decap.arg("decap");
            let mut decap = Daemon::start("decap", decap, dir)?;
            decap.wait_for_line("decap: ready", limits)?;
            stage.keep(decap);
        }
        stage.serve(limits)?;
        Ok((stage, rvsd))
    }
}

/// Starts a director's program, in its control group.
pub fn start(
    name: &str,
    program: std::process::Command,
    dir: &Path,
    group: &Group,
) -> Result<Daemon> {
    let daemon = Daemon::start(name, program, dir)?;
    group.take(daemon.id())?;
    Ok(daemon)
}

fn vip_at_the_director() -> Result<()> {
    run(command(None, "ip").args(["-n", DIRECTOR, "addr", "add", VIP, "dev", "lo"])).map(drop)
}

fn nft_rules() -> String {
    let map: Vec<_> = REALS.iter().zip(0..).map(|(real, at)| format!("{at} : {real}")).collect();
    let (map, count) = (map.join(", "), REALS.len());
    format!(
        "table ip lb {{\n chain pre {{\n  type nat hook prerouting priority dstnat\n  \
         ip daddr {VIP} meta l4proto {{ tcp, udp }} dnat to numgen inc mod {count} map {{ {map} }}\n \
         }}\n}}\n"
    )
}

fn haproxy_config() -> Result<String> {
    let mut text = String::from(
        "global\n  nbthread 2\n  maxconn 8000\ndefaults\n  mode tcp\n  balance roundrobin\n  \
         timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n",
    );
    for port in [HTTP, BULK] {
        writeln!(text, "listen l{port}\n  bind {VIP}:{port} backlog 8192")?;
        for (real, number) in REALS.iter().zip(0..) {
            writeln!(text, "  server s{number} {real}:{port}")?;
        }
    }
    Ok(text)
}

fn nginx_config(name: &str, dir: &Path) -> Result<String> {
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off; master_process off; pid {}/{name}.pid;\n\
         events {{ worker_connections 20000; }}\nstream {{\n",
        dir.display()
    );
    for port in [HTTP, BULK] {
        let servers: Vec<_> =
            REALS.iter().map(|real| format!("server {real}:{port} max_fails=0;")).collect();
        writeln!(text, "  upstream u{port} {{ {} }}", servers.join(" "))?;
        for udp in ["", "udp "] {
            let backlog = if udp.is_empty() { "backlog=8192 " } else { "" };
            writeln!(
                text,
                "  server {{ listen {VIP}:{port} {udp}{backlog}reuseport; proxy_pass u{port}; \
                 proxy_timeout 300s; }}"
            )?;
        }
    }
    text.push_str("}\n");
    Ok(text)
}
