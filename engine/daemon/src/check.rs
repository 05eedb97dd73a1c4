//! What a configuration describes, in few lines.

use core::fmt::{self, Display};
use rvs_control::config::{Config, Idle, Links};
use std::path::Path;

/// `rvsd check`'s answer to a good configuration.
pub struct Told<'c> {
    /// The file, as it was named.
    pub file: &'c Path,
    /// What it says.
    pub config: &'c Config,
}

impl Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { control, workers, tables, links, network, .. } = self.config;
        writeln!(f, "{}: good", self.file.display())?;
        let idle = match workers.idle {
            Idle::Adaptive => "adaptive",
            Idle::Poll => "poll",
        };
        writeln!(
            f,
            "workers    {}; bursts of {}, idle {idle}",
            placement(self.config),
            self.config.limits().burst_for(links.count())
        )?;
        writeln!(
            f,
            "tables     {} IPv4 and {} IPv6 connections and {} neighbours a worker; {} services, {} \
             destinations",
            tables.conns4, tables.conns6, tables.neighbors, tables.services, tables.dests
        )?;
        writeln!(f, "frames     {} of {} octets a worker", tables.frames, tables.frame_octets)?;
        for interface in network.interfaces() {
            let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
            write!(f, "link       {}: ", interface.name)?;
            match (interface.vlan, device(links, interface.link)) {
                (0, device) => write!(f, "{device}")?,
                (vlan, device) => write!(f, "VLAN {vlan} of {device}")?,
            }
            if has_own_mac(links, interface.link) {
                write!(f, ", mac the device's own, mtu {}", interface.mtu)?;
            } else {
                write!(f, ", mac {}, mtu {}", interface.mac, interface.mtu)?;
            }
            if let (Links::Dpdk(all), 0) = (links, interface.vlan)
                && let Some(host) =
                    all.get(usize::from(interface.link)).and_then(|it| it.host.as_ref())
            {
                write!(f, ", the rest is the host's by {host}")?;
            }
            if !addresses.is_empty() {
                write!(f, ", {}", addresses.join(", "))?;
            }
            writeln!(f)?;
        }
        let forwards = if network.forwards() { "is routed" } else { "is dropped" };
        writeln!(f, "routing    what belongs to no service {forwards}")?;
        let (socket, netlink) = (control.socket.display(), control.netlink.display());
        write!(f, "control    {socket}, netlink {netlink}, mode {:04o}", control.mode)
    }
}

/// How many workers, and where.
pub fn placement(config: &Config) -> String {
    let cores: Vec<_> = config.workers.cores.iter().map(ToString::to_string).collect();
    match cores.as_slice() {
        [] => "1 worker on any core".to_owned(),
        [core] => format!("1 worker on core {core}"),
        cores => format!("{} workers on cores {}", cores.len(), cores.join(", ")),
    }
}

/// Whether only the device knows our Ethernet address on `link`.
fn has_own_mac(links: &Links, link: u8) -> bool {
    let Links::Dpdk(all) = links else { return false };
    all.get(usize::from(link)).is_some_and(|link| link.mac.is_none() && link.host.is_none())
}

fn device(links: &Links, link: u8) -> String {
    let link = usize::from(link);
    match links {
        Links::Tap(all) => all.get(link).map(|tap| format!("tap {}", tap.device)),
        Links::AfXdp(all) => all.get(link).map(|it| format!("af_xdp {}", it.device)),
        Links::Dpdk(all) => all.get(link).map(|dpdk| format!("dpdk {}", dpdk.device)),
        Links::Pcap(all) => all.get(link).map(|pcap| {
            let name = |file: &Option<std::path::PathBuf>| {
                file.as_ref().map_or("nothing".to_owned(), |file| file.display().to_string())
            };
            format!("reads {}, writes {}", name(&pcap.read), name(&pcap.write))
        }),
    }
    .unwrap_or_default()
}
