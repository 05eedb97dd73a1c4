//! Devices: what one can do, how it is set up, and the operator's end of it.

use crate::eal::{self, Eal, Said, listen, words};
use crate::frame::DpdkPool;
use crate::host::{Host, name_of, pci_address};
use crate::queue::DpdkQueue;
use crate::sys::{self, DeviceInfo, DeviceSetup, spread};
use crate::{DpdkError, Side};
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use rvs_io::frame::{CACHE, HEADROOM};
use std::ffi::CString;
use std::sync::Arc;

/// The RSS key is these two octets, repeated: `rvs_wire::toeplitz::SYMMETRIC_KEY`.
const KEY_REPEAT: [u8; 2] = [0x6d, 0x5a];
/// Entries of the table by which ownership goes: `plane::steering`.
const OWNERS: u16 = 128;
/// A receive buffer is a multiple of this: some devices count them so.
const BUFFER_UNIT: usize = 1024;
/// And at least this.
const BUFFER_MIN: usize = 2048;
/// Of an mbuf and what a pool puts before it.
const FRAME_OVERHEAD: u64 = 256;
/// Of memory without huge pages.
const PAGE: u64 = 4096;
/// Of a pool's caches: one of these for each of 128 lcores, and its ring.
const POOL_OVERHEAD: u64 = 3 << 20;
/// What a device is asked for unless told otherwise.
const DESCRIPTORS: u16 = 1024;
/// `DEFAULT` as an errno: the driver has no such function.
const NOT_SUPPORTED: i32 = -libc::ENOTSUP;

/// Pools made so far: their names.
static POOLS: AtomicU32 = AtomicU32::new(0);

/// Descriptors of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptors {
    /// To receive; `None`: 1024, or what the device has.
    pub rx: Option<u16>,
    /// To send.
    pub tx: Option<u16>,
}

/// How a device is wanted.
#[derive(Clone, Debug)]
pub struct Plan<'p> {
    /// PCI address, or virtual device with its arguments.
    pub device: &'p str,
    /// Queues in each direction: one for each worker.
    pub queues: u16,
    /// Longest IP packet.
    pub mtu: u16,
    /// Our Ethernet address; `None`: the device's own.
    pub mac: Option<[u8; 6]>,
    /// Whether the device keeps its own address beside ours: for the host's own stack.
    pub keeps_own: bool,
    /// Who is at its other end.
    pub side: Side,
    /// Of each queue.
    pub descriptors: Descriptors,
    /// Whether it takes in frames to anybody.
    pub promiscuous: bool,
    /// Frames for each queue: the device's pool has so many times its queues.
    pub frames: u32,
    /// Octets of the longest frame.
    pub frame_octets: usize,
}

impl<'p> Plan<'p> {
    /// One queue for packets of 1500 octets, the device's own address, anybody at its other end; so
    /// many frames in its pool, of so many octets.
    #[must_use]
    pub fn new(device: &'p str, frames: u32, frame_octets: usize) -> Self {
        Self {
            device,
            queues: 1,
            mtu: 1500,
            mac: None,
            keeps_own: false,
            side: Side::Both,
            descriptors: Descriptors::default(),
            promiscuous: false,
            frames,
            frame_octets,
        }
    }
}

/// How a device chooses a queue for a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spreading {
    /// There is one.
    One,
    /// By the client's address and port alone, as ownership goes: nothing is handed over.
    ByOwner,
    /// By addresses and ports of both ends: most frames are handed over.
    ByFlow,
    /// By rules of its own: most frames are handed over.
    ByDevice,
}

impl fmt::Display for Spreading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one queue",
            Self::ByOwner => "RSS by the client's end: frames arrive at their owner",
            Self::ByFlow => "RSS by both ends: workers hand frames over to their owner",
            Self::ByDevice => "no RSS: workers hand frames over to their owner",
        })
    }
}

/// A device that moves frames. It stops when its last queue and its port are gone, if we started it.
#[derive(Debug)]
pub struct Started {
    device: u16,
    is_ours: bool,
}

impl Started {
    /// A device that somebody else has started and will stop.
    #[cfg(feature = "guest")]
    pub(crate) fn lent(device: u16) -> Self {
        Self { device, is_ours: false }
    }

    pub(crate) fn device(&self) -> u16 {
        self.device
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: nobody polls it any more: queues hold this value.
        let _stopped = unsafe { sys::rte_eth_dev_stop(self.device) };
        // JUSTIFICATION: as above.
        // SAFETY: as above; the number is not used again.
        let _closed = unsafe { sys::rte_eth_dev_close(self.device) };
    }
}

/// A device that DPDK has, not yet set up.
#[derive(Debug)]
pub struct Device {
    number: u16,
    configured: String,
    info: DeviceInfo,
}

impl Device {
    /// Finds a device that was named when EAL started, or makes a virtual one.
    ///
    /// # Errors
    ///
    /// [`DpdkError::NoDevice`], with what to do.
    pub fn find(_eal: Eal, configured: &str) -> Result<Self, DpdkError> {
        let missing = |said: String| DpdkError::NoDevice {
            device: configured.to_owned(),
            // "EAL: Driver cannot attach the device": there is a driver.
            advice: Host::this().explain_missing(
                pci_address(configured).as_deref(),
                said.contains("cannot attach"),
            ),
            said,
        };
        let (Ok(arguments), Ok(name)) =
            (CString::new(configured), CString::new(name_of(configured)))
        else {
            return Err(missing(String::new()));
        };
        let (number, said) = listen(|| {
            number_of(&name).or_else(|| {
                // JUSTIFICATION: DPDK is a C library.
                // SAFETY: a text that ends with a zero; DPDK copies it.
                let _probed = unsafe { sys::rte_dev_probe(arguments.as_ptr()) };
                number_of(&name)
            })
        });
        let number = number.ok_or_else(|| missing(said.in_short()))?;
        let info = info_of(number).ok_or_else(|| missing(String::new()))?;
        Ok(Self { number, configured: configured.to_owned(), info })
    }

    /// A device by its number, which somebody has made by other means.
    #[cfg(feature = "rings")]
    pub(crate) fn numbered(number: u16, name: &str) -> Option<Self> {
        Some(Self { number, configured: name.to_owned(), info: info_of(number)? })
    }

    /// Sets the device up and starts it: a queue for each worker, the pool of all of them, and the
    /// operator's end.
    ///
    /// # Errors
    ///
    /// What it cannot, or its driver refuses.
    pub fn open(self, plan: &Plan<'_>) -> Result<(Port, Vec<(DpdkQueue, DpdkPool)>), DpdkError> {
        self.check(plan)?;
        let node = self.info.node;
        let spreading = self.spreading(plan);
        let setup = DeviceSetup {
            mtu: plan.mtu.into(),
            queues: plan.queues,
            spread: match (spreading, plan.side) {
                (Spreading::ByOwner, Side::Clients) => spread::SOURCE,
                (Spreading::ByOwner, _) => spread::DESTINATION,
                (Spreading::ByFlow, _) => spread::FLOW,
                (Spreading::One | Spreading::ByDevice, _) => spread::NONE,
            },
            key_repeat: KEY_REPEAT,
            unused: [0; 3],
        };
        self.ask("its configuration", || {
            // JUSTIFICATION: DPDK is a C library.
            // SAFETY: the device is there, not started, and nobody else configures it; `setup`
            //   lives across the call.
            unsafe { sys::rvs_device_configure(self.number, &raw const setup) }
        })?;
        let [rx, tx] = self.descriptors(plan)?;
        let pool = self.pool(plan, node)?;
        for queue in 0..plan.queues {
            self.ask("a receive queue", || {
                // JUSTIFICATION: as above.
                // SAFETY: as above; the pool lives for ever.
                unsafe { sys::rvs_rx_queue(self.number, queue, rx, node, pool.raw()) }
            })?;
            self.ask("a transmit queue", || {
                // JUSTIFICATION: as above.
                // SAFETY: as above.
                unsafe { sys::rvs_tx_queue(self.number, queue, tx, node) }
            })?;
        }
        self.set_mac(plan)?;
        if self.info.mtu_max != 0 {
            let is_needed = |done: i32| if done == NOT_SUPPORTED { 0 } else { done };
            // Some drivers take it in their configuration, some only so.
            self.ask("its mtu", || {
                // JUSTIFICATION: as above.
                // SAFETY: a number within the limits that the device told.
                is_needed(unsafe { sys::rte_eth_dev_set_mtu(self.number, plan.mtu) })
            })?;
        }
        self.ask("to start", || {
            // JUSTIFICATION: as above.
            // SAFETY: configured, every queue set up.
            unsafe { sys::rte_eth_dev_start(self.number) }
        })?;
        let started = Arc::new(Started { device: self.number, is_ours: true });
        self.set_filters(plan)?;
        if matches!(spreading, Spreading::ByOwner | Spreading::ByFlow)
            && self.info.table_entries > 0
        {
            self.ask("its indirection table", || {
                let entries = self.info.table_entries;
                // JUSTIFICATION: as above.
                // SAFETY: started, with so many queues.
                unsafe { sys::rvs_device_spread(self.number, entries, plan.queues) }
            })?;
        }
        let queue = |number| (DpdkQueue::new(Arc::clone(&started), number), pool);
        let queues = (0..plan.queues).map(queue).collect();
        let info = info_of(self.number).unwrap_or(self.info);
        let port = Port {
            configured: self.configured,
            mac: plan.mac.unwrap_or(info.mac),
            own_mac: self.info.mac,
            was_up: None,
            spreading,
            info,
            started,
        };
        Ok((port, queues))
    }

    /// What can be known before anything is changed.
    fn check(&self, plan: &Plan<'_>) -> Result<(), DpdkError> {
        let info = &self.info;
        let most = info.rx_queues_max.min(info.tx_queues_max);
        let queues = plan.queues;
        if queues > most {
            let what = format!(
                "{queues} workers want a queue each, and it has {most}; list at most {most} under \
                 [workers] cores"
            );
            return Err(self.cannot(what));
        }
        let mtu = plan.mtu;
        // 0 or all ones: unknown.
        if info.mtu_max != 0 && mtu > info.mtu_max || mtu < info.mtu_min {
            let (least, most) = (info.mtu_min, info.mtu_max);
            return Err(self.cannot(format!("mtu is {mtu}, expected {least} to {most}")));
        }
        let room = buffer_octets(plan.frame_octets) + HEADROOM;
        if u16::try_from(room).is_err() {
            let most = usize::from(u16::MAX) / BUFFER_UNIT * BUFFER_UNIT - BUFFER_UNIT;
            let found = plan.frame_octets;
            let what = format!("[tables] frame_octets is {found}, expected at most {most}");
            return Err(self.cannot(what));
        }
        let least = usize::try_from(info.buffer_min).unwrap_or_default();
        if least > buffer_octets(plan.frame_octets) {
            let what =
                format!("its buffers have {least} octets; set [tables] frame_octets to that");
            return Err(self.cannot(what));
        }
        Ok(())
    }

    fn spreading(&self, plan: &Plan<'_>) -> Spreading {
        let info = &self.info;
        let has_table = info.table_entries > 0;
        if plan.queues == 1 {
            Spreading::One
        } else if info.hashes_one_end != 0
            && plan.side != Side::Both
            && names_owners(info.table_entries, plan.queues)
        {
            Spreading::ByOwner
        } else if has_table && info.hashes_flows != 0 {
            Spreading::ByFlow
        } else {
            Spreading::ByDevice
        }
    }

    /// As asked for, or what the device has nearest to the usual.
    fn descriptors(&self, plan: &Plan<'_>) -> Result<[u16; 2], DpdkError> {
        let one = |name, asked: Option<u16>, [least, most, step]: [u16; 3]| {
            let (least, most, step) = (least.max(1), most.max(1), step.max(1));
            let fits = |count: u16| (least..=most).contains(&count) && count.is_multiple_of(step);
            match asked {
                Some(count) if fits(count) => Ok(count),
                Some(count) => Err(self.cannot(format!(
                    "{name} is {count}, expected {least} to {most} in steps of {step}"
                ))),
                None => Ok((DESCRIPTORS.clamp(least, most) / step * step).max(least)),
            }
        };
        Ok([
            one("rx_descriptors", plan.descriptors.rx, self.info.rx_descriptors)?,
            one("tx_descriptors", plan.descriptors.tx, self.info.tx_descriptors)?,
        ])
    }

    /// The pool of all queues, on the device's node.
    fn pool(&self, plan: &Plan<'_>, node: i32) -> Result<DpdkPool, DpdkError> {
        // Pools outlive their devices, whose numbers are used again.
        let serial = POOLS.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("rvs_{serial}")).unwrap_or_default();
        let room = u16::try_from(buffer_octets(plan.frame_octets) + HEADROOM).unwrap_or(u16::MAX);
        let cache = u32::try_from(CACHE).unwrap_or_default();
        let frames = plan.frames.saturating_mul(plan.queues.into());
        let ((pool, errno), said) = listen(|| {
            // JUSTIFICATION: DPDK is a C library.
            // SAFETY: the name ends with a zero and is copied.
            let pool = unsafe {
                sys::rte_pktmbuf_pool_create(name.as_ptr(), frames, cache, 0, room, node)
            };
            (pool, eal::errno())
        });
        // JUSTIFICATION: it is C memory.
        // SAFETY: null or a pool of mbufs that nobody frees; DPDK's memory comes from mmap(2), which
        //   zeroes it.
        let pool = unsafe { DpdkPool::new(pool) };
        pool.ok_or_else(|| self.refused("memory for frames", errno, &said))
    }

    /// Sets our Ethernet address, if it is not the device's own.
    fn set_mac(&self, plan: &Plan<'_>) -> Result<(), DpdkError> {
        let Some(mac) = plan.mac.filter(|mac| *mac != self.info.mac) else { return Ok(()) };
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: six octets at `mac`; the device is there.
        let done = unsafe { sys::rvs_device_mac(self.number, mac.as_ptr(), plan.keeps_own.into()) };
        // A virtual device hands over whatever arrives, and the plane looks at the address.
        if done == 0 || plan.promiscuous || (done == NOT_SUPPORTED && self.info.is_virtual != 0) {
            return Ok(());
        }
        if plan.keeps_own {
            let why = words(done);
            return Err(self.cannot(format!(
                "it does not take a second Ethernet address ({why}), which a link with `host` needs; \
                 set promiscuous = true"
            )));
        }
        let own = self.info.mac.map(|octet| format!("{octet:02x}")).join(":");
        Err(self.cannot(format!(
            "it does not take another Ethernet address ({}); leave `mac` out, its own is {own}, or \
             set promiscuous = true",
            words(done)
        )))
    }

    /// Frames to groups are for the plane to judge: neighbour discovery lives on them. Frames to
    /// other hosts are not taken in unless wanted.
    fn set_filters(&self, plan: &Plan<'_>) -> Result<(), DpdkError> {
        let is_needed = |done: i32| if done == NOT_SUPPORTED { 0 } else { done };
        if plan.promiscuous {
            return self.ask("promiscuous mode", || {
                // JUSTIFICATION: DPDK is a C library.
                // SAFETY: the device is started.
                unsafe { sys::rte_eth_promiscuous_enable(self.number) }
            });
        }
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: the device is started. A driver without filters cannot be told, and need not be.
        let _off = unsafe { sys::rte_eth_promiscuous_disable(self.number) };
        self.ask("frames to all groups", || {
            // JUSTIFICATION: DPDK is a C library.
            // SAFETY: the device is started.
            is_needed(unsafe { sys::rte_eth_allmulticast_enable(self.number) })
        })
    }

    /// Runs a call of the driver's, and puts its refusal into words.
    fn ask(&self, what: &'static str, call: impl FnOnce() -> i32) -> Result<(), DpdkError> {
        let (done, said) = listen(call);
        if done < 0 {
            return Err(self.refused(what, done, &said));
        }
        if self.info.is_virtual == 0 {
            said.pass_on();
        }
        Ok(())
    }

    fn driver(&self) -> String {
        eal::text(&self.info.driver)
    }

    fn cannot(&self, what: String) -> DpdkError {
        DpdkError::Cannot { device: self.configured.clone(), driver: self.driver(), what }
    }

    fn refused(&self, what: &'static str, error: i32, said: &Said) -> DpdkError {
        let (device, driver) = (self.configured.clone(), self.driver());
        DpdkError::Refused { device, driver, what, why: words(error), said: said.in_short() }
    }
}

/// Whether a table of `entries`, filled by `rvs_device_spread`, names the owner of every hash: the entry
/// of its remainder by [`OWNERS`], in turn.
fn names_owners(entries: u16, queues: u16) -> bool {
    entries > 0
        && (entries.is_multiple_of(OWNERS)
            || OWNERS.is_multiple_of(queues) && entries.is_multiple_of(queues))
}

/// Octets of memory that a pool of `frames` frames of `frame_octets` takes.
pub(crate) fn pool_octets(frames: u32, frame_octets: usize, no_huge: bool) -> u64 {
    let buffer = u64::try_from(buffer_octets(frame_octets)).unwrap_or(u64::MAX);
    let frame = buffer.saturating_add(FRAME_OVERHEAD);
    // DPDK lets no frame cross a page's end where pages may lie anywhere.
    let frame = if no_huge { frame.next_multiple_of(PAGE) } else { frame };
    frame.saturating_mul(frames.into()) + POOL_OVERHEAD
}

/// Octets of a receive buffer without its headroom. Two tags and the frame's checksum, which some
/// devices leave there, have room.
fn buffer_octets(frame_octets: usize) -> usize {
    frame_octets.saturating_add(8).next_multiple_of(BUFFER_UNIT).max(BUFFER_MIN)
}

pub(crate) fn number_of(name: &CString) -> Option<u16> {
    let mut number = 0;
    // JUSTIFICATION: DPDK is a C library.
    // SAFETY: a text that ends with a zero, and a place for the answer.
    let done = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut number) };
    (done == 0).then_some(number)
}

pub(crate) fn info_of(number: u16) -> Option<DeviceInfo> {
    let mut info = core::mem::MaybeUninit::<DeviceInfo>::uninit();
    // JUSTIFICATION: DPDK is a C library.
    // SAFETY: the place has the record's size and alignment; an unknown number is refused.
    let done = unsafe { sys::rvs_device_info(number, info.as_mut_ptr()) };
    // JUSTIFICATION: as above.
    // SAFETY: all of it is written when it succeeds.
    (done == 0).then(|| unsafe { info.assume_init() })
}

/// The operator's end of a device.
#[derive(Debug)]
pub struct Port {
    configured: String,
    mac: [u8; 6],
    own_mac: [u8; 6],
    /// As it was told last; `None`: not yet.
    was_up: Option<bool>,
    spreading: Spreading,
    info: DeviceInfo,
    started: Arc<Started>,
}

impl Port {
    /// As it was configured.
    #[must_use]
    pub fn configured(&self) -> &str {
        &self.configured
    }

    /// Its driver.
    #[must_use]
    pub fn driver(&self) -> String {
        eal::text(&self.info.driver)
    }

    /// Our Ethernet address there.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The Ethernet address that the device came with.
    #[must_use]
    pub fn own_mac(&self) -> [u8; 6] {
        self.own_mac
    }

    /// How it chooses a queue for a frame.
    #[must_use]
    pub fn spreading(&self) -> Spreading {
        self.spreading
    }

    /// Its NUMA node, if the machine has any.
    #[must_use]
    pub fn node(&self) -> Option<u16> {
        u16::try_from(self.info.node).ok()
    }

    /// Whether its link is up now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        info_of(self.started.device()).is_some_and(|info| info.is_up != 0)
    }

    /// What is new of its link, if anything is: for a look each second.
    pub fn look(&mut self) -> Option<String> {
        let info = info_of(self.started.device())?;
        let is_up = info.is_up != 0;
        if self.was_up.replace(is_up) == Some(is_up) {
            return None;
        }
        Some(match info.speed_mbit {
            _ if !is_up => "link is down".to_owned(),
            0 => "link is up".to_owned(),
            speed => format!("link is up, {speed} Mbit/s"),
        })
    }

    /// The device's own counters by name, those of its driver included.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        let device = self.started.device();
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: no room, so nothing is written.
        let count = unsafe {
            sys::rvs_device_counters(device, core::ptr::null_mut(), core::ptr::null_mut(), 0)
        };
        let Ok(room) = u32::try_from(count) else { return Vec::new() };
        let places = usize::try_from(room).unwrap_or_default();
        let (mut names, mut values) = (vec![0_u8; places * sys::NAME_OCTETS], vec![0_u64; places]);
        // JUSTIFICATION: as above.
        // SAFETY: `room` names and values fit.
        let got = unsafe {
            sys::rvs_device_counters(device, names.as_mut_ptr(), values.as_mut_ptr(), room)
        };
        let got = usize::try_from(got).unwrap_or_default().min(places);
        let each = names.chunks(sys::NAME_OCTETS).zip(values).take(got);
        each.map(|(name, value)| (eal::text(name), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_name_every_owner_is_not_said_to() {
        for entries in [2, 40, 64, 96, 128, 192, 256, 512, 2048] {
            for queues in 1..=12 {
                let told = |hash: u32| hash % u32::from(entries) % 128 % u32::from(queues);
                let is_so = (0..1 << 16).all(|hash| told(hash) == hash % 128 % u32::from(queues));
                assert_eq!(names_owners(entries, queues), is_so, "{entries}, {queues}");
            }
        }
        assert!(!names_owners(0, 1));
    }
}
