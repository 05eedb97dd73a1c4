//! Links of DPDK's: from the configuration to queues.

use crate::device::{Device, Doorbell, End, Opened, Woken};
use crate::{Failure, log};
use core::time::Duration;
use rvs_control::config::{Config, DpdkLink, Side};
use rvs_dpdk::host::Host;
use rvs_dpdk::{
    Descriptors, DpdkError, DpdkPool, DpdkQueue, Eal, EalPlan, Lcore, Plan, Pools, Port,
};
use rvs_io::BURST_MAX;
use rvs_io::frame::CACHE;
use rvs_plane::handoff::{BATCHES, TOGETHER};
use rvs_wire::mac::MacAddr;
use std::thread;

/// Descriptors where none are configured.
const DESCRIPTORS: u32 = 1024;
/// Frames that wait elsewhere than in a device: in a worker's inbox.
const HANDED: u32 = 2048;
const _: () = assert!(BATCHES * TOGETHER == 2048);
/// The longest rest: a card's ring takes in that much without us.
const WAIT: Duration = Duration::from_micros(20);

impl Device for DpdkQueue {
    type Link = DpdkLink;
    type Seat = Lcore;

    fn open(links: &[DpdkLink], config: &Config) -> Result<Opened<Self>, Failure> {
        let workers = config.workers.count();
        let octets = config.tables.frame_octets;
        let pools = links.iter().map(|link| {
            let frames = frames_of(link, links, config).saturating_mul(workers.into());
            // The host's end has a pool of its own.
            let count = 1 + u16::from(link.host.is_some());
            let node = Host::this().node_of(&link.device);
            Pools { node, count, frames, frame_octets: octets }
        });
        let eal = Eal::start(&EalPlan {
            arguments: config.dpdk.eal.clone(),
            devices: links.iter().map(|link| link.device.clone()).collect(),
            no_huge: config.dpdk.no_huge,
            pools: pools.collect(),
        })?;
        let mut queues: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut pools = Vec::new();
        let (mut ends, mut macs): (Vec<Box<dyn End>>, _) = (Vec::new(), Vec::new());
        let mut hosts = Vec::new();
        for (link, number) in links.iter().zip(0..) {
            // The device's own address is the host's, if that uses the link as well.
            let mac = if link.host.is_some() { own_mac(config, number) } else { link.mac };
            let plan = Plan {
                device: &link.device,
                queues: workers,
                mtu: link.mtu,
                mac: mac.map(|mac| mac.0),
                keeps_own: link.host.is_some(),
                side: match link.side {
                    Side::Clients => rvs_dpdk::Side::Clients,
                    Side::Servers => rvs_dpdk::Side::Servers,
                    Side::Both => rvs_dpdk::Side::Both,
                },
                descriptors: Descriptors { rx: link.rx_descriptors, tx: link.tx_descriptors },
                promiscuous: link.promiscuous,
                frames: frames_of(link, links, config),
                frame_octets: octets,
            };
            let (port, of_link) = rvs_dpdk::Device::find(eal, &link.device)?.open(&plan)?;
            log(about(link, &port));
            if let Some(far) = far_from(&port, config) {
                log(far);
            }
            for (queues, (queue, pool)) in queues.iter_mut().zip(of_link) {
                queues.push(queue);
                if number == 0 {
                    pools.push(pool);
                }
            }
            macs.push((number, MacAddr(port.mac())));
            if let Some(host) = &link.host {
                hosts.push(host_of(eal, link, host, &port, &plan)?);
            }
            ends.push(Box::new(Watched { name: link.name.clone(), port }));
        }
        // As the configuration has numbered them: after all links.
        for (port, of_host) in hosts {
            for (queues, (queue, _)) in queues.iter_mut().zip(of_host) {
                queues.push(queue);
            }
            ends.push(Box::new(Hosted(port)));
        }
        Ok(Opened { workers: queues.into_iter().zip(pools).collect(), ends, macs })
    }

    fn sit_down() -> Result<Lcore, String> {
        Lcore::register().map_err(|error| error.to_string())
    }

    fn wait(_queues: &[Self], _doorbell: &Doorbell, at_most: Duration) -> Woken {
        thread::sleep(at_most.min(WAIT));
        Woken::Otherwise
    }
}

/// Our Ethernet address on a link, as it is configured or made.
fn own_mac(config: &Config, link: u8) -> Option<MacAddr> {
    config.network.interfaces().iter().find(|it| it.link == link).map(|it| it.mac)
}

/// The way from a link to the host's own stack: a TAP device that DPDK drives, with the address that
/// the link's device came with.
fn host_of(
    eal: Eal,
    link: &DpdkLink,
    host: &str,
    port: &Port,
    plan: &Plan<'_>,
) -> Result<(Port, Vec<(DpdkQueue, DpdkPool)>), Failure> {
    if port.own_mac() == port.mac() {
        let mac = MacAddr(port.mac());
        return Err(Failure::Dpdk(DpdkError::Host(format!(
            "link {}: mac {mac} is the device's own, which is the host's; leave `mac` out, or say \
             another",
            link.name
        ))));
    }
    let device = format!("net_tap_{host},iface={host}");
    let plan = Plan {
        device: &device,
        mac: Some(port.own_mac()),
        keeps_own: false,
        side: rvs_dpdk::Side::Both,
        descriptors: Descriptors::default(),
        promiscuous: false,
        ..plan.clone()
    };
    let opened = rvs_dpdk::Device::find(eal, &device)?.open(&plan)?;
    let mac = MacAddr(port.own_mac());
    log(format_args!("rvsd: link {}: the host has {host}, mac {mac}, for the rest", link.name));
    Ok(opened)
}

/// The host's end of a link: there as long as we are.
struct Hosted(#[expect(dead_code, reason = "dropped, the device is gone")] Port);

impl End for Hosted {
    fn look(&mut self) -> Option<String> {
        None
    }

    fn account(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Frames of a link's pool for each worker: as configured, and never so few that the pool is empty when
/// every worker's queues, caches and inbox are full of its frames.
fn frames_of(link: &DpdkLink, links: &[DpdkLink], config: &Config) -> u32 {
    let count = |asked: Option<u16>| asked.map_or(DESCRIPTORS, u32::from);
    let hosts = links.iter().filter(|link| link.host.is_some()).map(|_| DESCRIPTORS);
    let leaving: u32 = links.iter().map(|link| count(link.tx_descriptors)).chain(hosts).sum();
    let own = u32::try_from(CACHE + CACHE / 2 + BURST_MAX).unwrap_or_default();
    let least = count(link.rx_descriptors) + leaving + own + HANDED;
    u32::try_from(config.tables.frames).unwrap_or(u32::MAX).max(least)
}

/// The line of the start.
fn about(link: &DpdkLink, port: &Port) -> String {
    let (name, device, driver) = (&link.name, &link.device, port.driver());
    let (mac, spreading) = (MacAddr(port.mac()), port.spreading());
    format!("rvsd: link {name}: {device} ({driver}), mac {mac}; {spreading}")
}

/// A worker that fetches its frames from another node pays for each of them.
fn far_from(port: &Port, config: &Config) -> Option<String> {
    let (node, host) = (port.node()?, Host::this());
    let mut cores = config.workers.cores.iter();
    let core = cores.find(|core| host.node_of_cpu(**core).is_some_and(|its| its != node))?;
    let device = port.configured();
    Some(format!(
        "rvsd: device {device} is on NUMA node {node}, core {core} is not: frames cross between them"
    ))
}

/// A link that is looked at.
struct Watched {
    name: String,
    port: Port,
}

impl End for Watched {
    fn look(&mut self) -> Option<String> {
        Some(format!("rvsd: link {}: {}", self.name, self.port.look()?))
    }

    fn account(&self) -> Vec<String> {
        let counters = self.port.counters();
        let counted: Vec<_> = counters
            .iter()
            .filter(|(name, value)| *value > 0 && !is_of_a_queue(name))
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        // A device that hung up has forgotten what it counted.
        if counted.is_empty() {
            return Vec::new();
        }
        vec![format!("link {}: {}", self.name, counted.join(", "))]
    }
}

/// `rx_q0_packets` and the like: as many as there are workers, and their sum is there.
fn is_of_a_queue(name: &str) -> bool {
    let rest = name.strip_prefix("rx_q").or_else(|| name.strip_prefix("tx_q"));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
