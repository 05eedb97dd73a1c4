//! Which of Capsule's ports are the director's links, and what of them is whose.

use crate::Failure;
use rvs_control::config::DpdkLink;
use rvs_dpdk::{DpdkPool, DpdkQueue, Eal, guest};
use serde::Deserialize;

/// Longest IP packet: Capsule leaves the device's MTU as it is, and has buffers of one size.
const MTU: u16 = 1500;
/// The name of Capsule's first pool. It makes one for each NUMA node.
const POOL: &str = "mempool0";
/// And of the second.
const SECOND_POOL: &str = "mempool1";

/// What Capsule's TOML says, as far as it matters here: Capsule keeps it to itself.
#[derive(Deserialize)]
struct Settings {
    master_core: usize,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Deserialize)]
struct Port {
    device: String,
    cores: Vec<usize>,
}

/// The ports of the director's links, in their order.
pub struct Ports {
    devices: Vec<String>,
    /// The cores that all of them have: one worker on each.
    pub cores: Vec<usize>,
}

impl Ports {
    /// Finds the port of each link.
    pub fn of(capsule: &str, links: &[DpdkLink]) -> Result<Self, Failure> {
        let settings: Settings = toml::from_str(capsule).map_err(|error| {
            Failure::Misfit(format!("Capsule's configuration: {}", error.message()))
        })?;
        let mut devices = Vec::new();
        let mut common: Option<Vec<usize>> = None;
        for link in links {
            let (name, device) = (&link.name, &link.device);
            let Some(port) = settings.ports.iter().find(|port| port.device == *device) else {
                let known: Vec<_> = settings.ports.iter().map(|it| it.device.as_str()).collect();
                return Err(Failure::Misfit(format!(
                    "link {name}: Capsule has no port with the device {device}, expected one of {}",
                    known.join(", ")
                )));
            };
            if link.host.is_some() {
                return Err(Failure::Misfit(format!(
                    "link {name}: it has `host`, which only rvsd's links have; leave it out"
                )));
            }
            if link.mtu > MTU {
                let mtu = link.mtu;
                return Err(Failure::Misfit(format!(
                    "link {name}: mtu is {mtu}, expected at most {MTU}: Capsule's buffers have one size"
                )));
            }
            // Capsule gives its queues to the cores in this order.
            let mut cores = port.cores.clone();
            cores.sort_unstable();
            cores.dedup();
            if cores.contains(&settings.master_core) {
                let core = settings.master_core;
                return Err(Failure::Misfit(format!(
                    "port {device}: core {core} is Capsule's master_core, where it waits for signals; \
                     give the port others"
                )));
            }
            if common.get_or_insert_with(|| cores.clone()) != &cores {
                return Err(Failure::Misfit(format!(
                    "port {device}: its cores differ from those of the other links' ports; each worker \
                     needs a queue of every link"
                )));
            }
            devices.push(device.clone());
        }
        Ok(Self { devices, cores: common.unwrap_or_default() })
    }

    /// One queue of every link, for worker `id`.
    pub fn queues(&self, eal: Eal, id: u16) -> Result<Vec<DpdkQueue>, Failure> {
        let queue = |device: &String| {
            // JUSTIFICATION: the devices are Capsule's.
            // SAFETY:
            // - Capsule gives each port as many queues as it has cores, starts it before pipelines
            //   run, and stops it after their threads are over;
            // - there is one worker for each number, on the thread of its core; what other functions do
            //   with these queues is Capsule's to answer for (`Guest::runtime` says what they may).
            unsafe { guest::queue(eal, device, id) }
                .ok_or_else(|| Failure::Misfit(format!("DPDK has no device {device}")))
        };
        self.devices.iter().map(queue).collect()
    }

    /// The Ethernet address of link `number`'s port.
    pub fn mac(&self, eal: Eal, number: u8) -> Result<[u8; 6], Failure> {
        let device = self.devices.get(usize::from(number));
        device
            .and_then(|device| guest::mac(eal, device))
            .ok_or_else(|| Failure::Misfit(format!("link {number} has no Ethernet address")))
    }
}

/// Capsule's pool. Devices may free all frames of a queue into one pool, so there must be one.
pub fn pool(eal: Eal) -> Result<DpdkPool, Failure> {
    let pool = |name| {
        // JUSTIFICATION: the pool is Capsule's.
        // SAFETY: Capsule makes it of mbufs with the usual headroom, in memory fresh from the
        //   kernel, and frees it when its runtime is dropped, after all that has frames.
        unsafe { guest::pool(eal, name) }
    };
    if pool(SECOND_POOL).is_some() {
        return Err(Failure::Misfit(
            "Capsule's cores are on several NUMA nodes, and so are its pools; give it cores of one \
             node"
            .to_owned(),
        ));
    }
    pool(POOL).ok_or_else(|| Failure::Misfit(format!("Capsule has no pool {POOL}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;
    use rvs_control::config::{Config, Links, Machine};
    use std::path::Path;

    const CAPSULE: &str = "app_name = \"x\"\nmaster_core = 0\n[[ports]]\nname = \"a\"\n\
        device = \"net_ring0\"\ncores = [2, 1]\n[[ports]]\nname = \"b\"\ndevice = \"net_ring1\"\n\
        cores = [1]\n[[ports]]\nname = \"c\"\ndevice = \"net_ring2\"\ncores = [0]\n";

    fn found(links: &[(&str, u16)]) -> Result<Vec<usize>, String> {
        let mut text = String::new();
        for ((device, mtu), number) in links.iter().zip(0..) {
            writeln!(
                text,
                "[[link]]\nname = \"l{number}\"\nkind = \"dpdk\"\ndevice = {device:?}\nmtu = {mtu}"
            )
            .unwrap();
        }
        let config = Config::parse(Path::new("rvs.toml"), &text, &Machine::default()).unwrap();
        let Links::Dpdk(links) = &config.links else { unreachable!() };
        Ports::of(CAPSULE, links).map(|ports| ports.cores).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_link_is_the_port_with_its_device_and_has_a_worker_on_each_of_its_cores() {
        assert_eq!(found(&[("net_ring0", 1500)]), Ok(vec![1, 2]));
    }

    #[test]
    fn what_does_not_fit_is_one_line_that_says_what_would() {
        let line = |links: &[(&str, u16)]| found(links).unwrap_err();
        assert_eq!(
            line(&[("net_ring7", 1500)]),
            "link l0: Capsule has no port with the device net_ring7, expected one of net_ring0, \
             net_ring1, net_ring2"
        );
        assert!(line(&[("net_ring0", 9000)]).contains("mtu is 9000, expected at most 1500"));
        assert!(line(&[("net_ring2", 1500)]).contains("core 0 is Capsule's master_core"));
        let line = line(&[("net_ring0", 1500), ("net_ring1", 1500)]);
        assert!(line.starts_with("port net_ring1: its cores differ"), "{line}");
    }
}
