//! Links that DPDK drives: cards, and virtual devices such as `net_memif`, whose other end is another
//! process.

use super::{ETHERNET_MTU, Job, Spec};
use crate::Trouble;
use rvs_dpdk::host::pci_address;
use rvs_dpdk::{Descriptors, Device, DpdkPool, DpdkQueue, Eal, EalPlan, Plan, Pools, Port, Side};
use std::thread;
use std::time::{Duration, Instant};

/// Frames of a pool: all bursts at once, and full queues of two devices.
const FRAMES: u32 = 16383;
/// Headers in front of a packet, with a tag.
const HEADERS: usize = 18;
/// How long a device's link may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

/// From our end's link to the other's.
const SETTLING: Duration = Duration::from_millis(200);

/// Opens the devices, does the job on them, and closes them.
pub(super) fn run<J: Job>(
    first: &Spec,
    second: Option<&Spec>,
    frame_octets: usize,
    job: J,
) -> Result<J::Outcome, Trouble> {
    let devices: Vec<&str> =
        [Some(first), second].into_iter().flatten().filter_map(device).collect();
    let pools = devices.iter().map(|_| Pools { node: 0, count: 1, frames: FRAMES, frame_octets });
    let eal = Eal::start(&EalPlan {
        arguments: Vec::new(),
        devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        // Cards want huge pages; to try things out, virtual devices shall not.
        no_huge: devices.iter().all(|device| pci_address(device).is_none()),
        pools: pools.collect(),
    })?;
    let mut opened = Vec::new();
    for device in &devices {
        opened.push(open(eal, device, frame_octets)?);
    }
    let mut opened = opened.into_iter();
    let Some((port, queue, pool)) = opened.next() else {
        return Err(Trouble::Asked("expected a DPDK device".to_owned()));
    };
    let (mut ports, mut other) = (vec![port], None);
    for (port, queue, _) in opened {
        ports.push(port);
        other = Some(queue);
    }
    await_links(&mut ports)?;
    Ok(job.run((queue, other), pool)?.0)
}

fn device(spec: &Spec) -> Option<&str> {
    match spec {
        Spec::Dpdk(device) => Some(device),
        _ => None,
    }
}

fn open(
    eal: Eal,
    device: &str,
    frame_octets: usize,
) -> Result<(Port, DpdkQueue, DpdkPool), Trouble> {
    let plan = Plan {
        device,
        queues: 1,
        mtu: u16::try_from(frame_octets - HEADERS).unwrap_or(ETHERNET_MTU).min(ETHERNET_MTU),
        mac: None,
        keeps_own: false,
        side: Side::Both,
        descriptors: Descriptors::default(),
        // Many stations are played behind a card; a virtual device lets all of them in.
        promiscuous: pci_address(device).is_some(),
        frames: FRAMES,
        frame_octets,
    };
    let (port, queues) = Device::find(eal, device)?.open(&plan)?;
    let (queue, pool) = queues
        .into_iter()
        .next()
        .ok_or_else(|| Trouble::Asked(format!("device {device} has no queue")))?;
    Ok((port, queue, pool))
}

/// Waits until all links are up: what is sent before is lost.
fn await_links(ports: &mut [Port]) -> Result<(), Trouble> {
    let until = Instant::now() + PATIENCE;
    while let Some(down) = ports.iter().find(|port| !port.is_up()) {
        if Instant::now() >= until {
            return Err(Trouble::Asked(format!(
                "device {} has no link after {} s: is its other end there?",
                down.configured(),
                PATIENCE.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
    // One end is up before the other; net_memif must not be asked in between.
    thread::sleep(SETTLING);
    Ok(())
}
