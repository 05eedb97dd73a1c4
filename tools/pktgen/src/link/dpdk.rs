//! Links that DPDK drives: cards, and virtual devices such as `net_memif`, whose other end is another
//! process.

use super::{ETHERNET_MTU, Job, Spec};
use crate::Trouble;
use rvs_dpdk::host::{Host, pci_address};
use rvs_dpdk::{
    Descriptors, Device, DpdkFrame, DpdkPool, DpdkQueue, Eal, EalPlan, Plan, Pools, Port, Side,
};
use rvs_io::{Burst, Lost, Queue};
use std::thread;
use std::time::{Duration, Instant};

/// Frames of a pool: all bursts at once, and full queues of two devices.
const FRAMES: u32 = 16383;
/// Headers in front of a packet, with a tag.
const HEADERS: usize = 18;
/// DPDK's name for frames for which a device had no descriptor: nobody took those before them.
const MISSED: &str = "rx_missed_errors";
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
    let pools = devices.iter().map(|device| {
        let node = Host::this().node_of(device);
        Pools { node, count: 1, frames: FRAMES, frame_octets }
    });
    let eal = Eal::start(&EalPlan {
        arguments: Vec::new(),
        devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        // Cards want huge pages; to try things out, virtual devices shall not.
        no_huge: devices.iter().all(|device| pci_address(device).is_none()),
        pools: pools.collect(),
    })?;
    let (mut cards, mut pools) = (Vec::new(), Vec::new());
    for device in &devices {
        let (card, pool) = open(eal, device, frame_octets)?;
        cards.push(card);
        pools.push(pool);
    }
    await_links(&cards)?;
    let (mut cards, mut pools) = (cards.into_iter(), pools.into_iter());
    let (Some(card), Some(pool)) = (cards.next(), pools.next()) else {
        return Err(Trouble::Asked("expected a DPDK device".to_owned()));
    };
    Ok(job.run((card, cards.next()), pool)?.0)
}

/// A device whose own losses are told: they are not the director's.
struct Card {
    queue: DpdkQueue,
    port: Port,
}

impl Queue for Card {
    type Frame = DpdkFrame;
    type Pool = DpdkPool;

    #[inline]
    fn receive(&mut self, pool: &mut DpdkPool, burst: &mut Burst<DpdkFrame>, most: usize) -> usize {
        self.queue.receive(pool, burst, most)
    }

    #[inline]
    fn send(&mut self, pool: &mut DpdkPool, burst: &mut Burst<DpdkFrame>) -> usize {
        self.queue.send(pool, burst)
    }

    fn lost(&self) -> Lost {
        let counters = self.port.counters();
        let missed = counters.iter().find(|(name, _)| name == MISSED).map_or(0, |it| it.1);
        let lost = self.queue.lost();
        Lost { no_frame: lost.no_frame + missed, ..lost }
    }
}

fn device(spec: &Spec) -> Option<&str> {
    match spec {
        Spec::Dpdk(device) => Some(device),
        _ => None,
    }
}

fn open(eal: Eal, device: &str, frame_octets: usize) -> Result<(Card, DpdkPool), Trouble> {
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
    Ok((Card { queue, port }, pool))
}

/// Waits until all links are up: what is sent before is lost.
fn await_links(cards: &[Card]) -> Result<(), Trouble> {
    let until = Instant::now() + PATIENCE;
    while let Some(down) = cards.iter().map(|card| &card.port).find(|port| !port.is_up()) {
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
