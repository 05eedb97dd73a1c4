//! DPDK's virtual devices as links: `net_ring` and `net_pcap`.
//!
//! ```text
//!  net_ring   octets ─► mbuf ─► ring ─► DpdkQueue ─► the director ─► DpdkQueue ─► ring ─► octets
//!  net_pcap   octets ─► pipe ─────────► DpdkQueue ─► the director ─► DpdkQueue ─► pipe ─► octets
//! ```
//!
//! A ring moves pointers. A capture is read and written by libpcap: here from one pipe and into
//! another, so that it can be as long as flows are many. All of it is on the director's core.

use crate::feed::{Carrier, fill_in};
use anyhow::{Context as _, Result, anyhow};
use rvs_dpdk::ring;
pub use rvs_dpdk::ring::FarEnd;
use rvs_dpdk::{Device, DpdkError, DpdkFrame, DpdkPool, DpdkQueue, Eal, EalPlan, Plan, Pools};
use rvs_io::{BURST_MAX, Burst, Frame as _, Pool as _, Queue as _};
use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Frames of a device's pool: more than are ever on their way, and what caches keep.
const FRAMES: u32 = 2047;
/// Devices there may be: a director's, a floor's and one to take over, of each kind, and as many for
/// tests beside.
const DEVICES: u16 = 16;
/// Octets of the longest frame.
const FRAME_OCTETS: usize = 1518;

/// What is at the other end of a device, and the device.
pub trait End: Send + Sized + 'static {
    /// A new device, and its other end.
    ///
    /// # Errors
    ///
    /// DPDK refuses.
    fn device(eal: Eal, number: u16) -> Result<(Device, Self)>;

    /// Puts so many frames on the wire, each filled in by `make`; says how many.
    fn put<const N: usize>(
        &mut self,
        pool: &mut DpdkPool,
        count: usize,
        make: impl FnMut(&mut [u8; N]),
    ) -> usize;

    /// Takes so many frames off the wire.
    fn take(&mut self, count: usize, see: impl FnMut(&[u8]));

    /// Devices that nobody uses now. Their pools are for ever, so they are used again.
    fn idle() -> &'static Mutex<Vec<Wired<Self>>>;
}

/// A device and what is at its other end.
#[derive(Debug)]
pub struct Wired<E> {
    queue: DpdkQueue,
    pool: DpdkPool,
    end: E,
}

/// A device, as long as somebody uses it.
#[derive(Debug)]
pub struct Dpdk<E: End>(Option<Wired<E>>);

impl<E: End> Drop for Dpdk<E> {
    fn drop(&mut self) {
        let mut idle = E::idle().lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.0.take());
    }
}

impl<E: End> Carrier for Dpdk<E> {
    type Frame = DpdkFrame;
    type Pool = DpdkPool;

    fn open(_octets: usize) -> Result<(Self, DpdkPool)> {
        let idle = E::idle().lock().unwrap_or_else(PoisonError::into_inner).pop();
        let wired = idle.map_or_else(wire, Ok)?;
        let pool = wired.pool;
        Ok((Self(Some(wired)), pool))
    }

    #[inline(always)]
    fn deliver<const N: usize>(
        &mut self,
        pool: &mut DpdkPool,
        burst: &mut Burst<DpdkFrame>,
        most: usize,
        make: impl FnMut(&mut [u8; N]),
    ) -> usize {
        let Some(Wired { queue, end, .. }) = &mut self.0 else { return 0 };
        let count = end.put(pool, most.min(burst.remaining_capacity()), make);
        queue.receive(pool, burst, count)
    }

    #[inline(always)]
    fn collect(
        &mut self,
        pool: &mut DpdkPool,
        burst: &mut Burst<DpdkFrame>,
        see: impl FnMut(&[u8]),
    ) -> usize {
        let Some(Wired { queue, end, .. }) = &mut self.0 else { return 0 };
        let sent = queue.send(pool, burst);
        end.take(sent, see);
        sent
    }
}

/// A new device, set up and started.
fn wire<E: End>() -> Result<Wired<E>> {
    static NUMBERS: AtomicU16 = AtomicU16::new(0);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let (device, end) = E::device(eal()?, number)?;
    let (_port, queues) = device.open(&Plan::new("a bench's", FRAMES, FRAME_OCTETS))?;
    let (queue, pool) = queues.into_iter().next().context("a device without a queue")?;
    Ok(Wired { queue, pool, end })
}

/// DPDK, once for the process; the thread that asks first has caches in its pools. Huge pages are
/// used where some are free.
fn eal() -> Result<Eal> {
    static EAL: OnceLock<Result<Eal, String>> = OnceLock::new();
    let started = EAL.get_or_init(|| {
        let pools = Pools { node: 0, count: DEVICES, frames: FRAMES, frame_octets: FRAME_OCTETS };
        let plan = EalPlan { pools: vec![pools], ..EalPlan::default() };
        let eal = match Eal::start(&plan) {
            Err(DpdkError::Host(_)) => Eal::start(&EalPlan { no_huge: true, ..plan }),
            other => other,
        };
        eal.map_err(|error| error.to_string())
    });
    started.clone().map_err(|error| anyhow!(error))
}

impl End for FarEnd {
    fn device(eal: Eal, number: u16) -> Result<(Device, Self)> {
        let depth = u32::try_from(BURST_MAX)?;
        let link = ring::link(eal, &format!("net_ring_bench{number}"), 1, depth);
        link.context("DPDK refuses a device of rings")
    }

    #[inline(always)]
    fn put<const N: usize>(
        &mut self,
        pool: &mut DpdkPool,
        count: usize,
        mut make: impl FnMut(&mut [u8; N]),
    ) -> usize {
        for done in 0..count {
            let Some(mut frame) = pool.take() else { return done };
            fill_in(&mut frame, &mut make);
            if self.inject(0, frame).is_err() {
                return done;
            }
        }
        count
    }

    #[inline(always)]
    fn take(&mut self, count: usize, mut see: impl FnMut(&[u8])) {
        for frame in (0..count).map_while(|_| self.collect(0)) {
            see(frame.octets());
        }
    }

    fn idle() -> &'static Mutex<Vec<Wired<Self>>> {
        static IDLE: Mutex<Vec<Wired<FarEnd>>> = Mutex::new(Vec::new());
        &IDLE
    }
}

/// Octets before a capture's first frame, and before each.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A capture that a device reads, and one that it writes.
#[derive(Debug)]
pub struct Pipes {
    to: PipeWriter,
    from: PipeReader,
    /// What a breath puts into the one, or takes out of the other.
    octets: Vec<u8>,
    /// Octets of the other that are no frame: its header, once.
    header: usize,
}

impl End for Pipes {
    fn device(eal: Eal, number: u16) -> Result<(Device, Self)> {
        let ((read, mut to), (from, written)) = (pipe()?, pipe()?);
        // The file's header: microseconds, version 2.4, snap length 64 k, Ethernet.
        let words: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x1_0000, 1];
        to.write_all(&words.map(u32::to_ne_bytes).concat())?;
        let path = |number| format!("/proc/self/fd/{number}");
        let device = format!(
            "net_pcap{number},rx_pcap={},tx_pcap={}",
            path(read.as_raw_fd()),
            path(written.as_raw_fd())
        );
        // It opens both for itself, here or when it starts: until then ours must not close.
        let device = Device::find(eal, &device)?;
        core::mem::forget((read, written));
        Ok((device, Self { to, from, octets: Vec::new(), header: FILE_HEADER }))
    }

    #[inline(always)]
    fn put<const N: usize>(
        &mut self,
        _pool: &mut DpdkPool,
        count: usize,
        mut make: impl FnMut(&mut [u8; N]),
    ) -> usize {
        self.octets.clear();
        let Ok(octets) = u32::try_from(N) else { return 0 };
        let [a, b, c, d] = octets.to_ne_bytes();
        let mut frame = [0; N];
        for _ in 0..count {
            make(&mut frame);
            let header = [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, a, b, c, d];
            self.octets.extend(header);
            self.octets.extend(frame);
        }
        // The largest burst is less than a pipe holds, so this does not wait, and neither does the
        // device, which is asked for just as many.
        if self.to.write_all(&self.octets).is_ok() { count } else { 0 }
    }

    #[inline(always)]
    fn take(&mut self, count: usize, mut see: impl FnMut(&[u8])) {
        // The device has written all of the burst.
        self.octets.resize(BURST_MAX * (RECORD_HEADER + 256), 0);
        let mut left = count;
        while left > 0 {
            let Ok(octets) = self.from.read(&mut self.octets) else { return };
            let mut rest = self.octets.get(self.header..octets).unwrap_or_default();
            self.header = 0;
            while let Some((header, behind)) = rest.split_first_chunk::<RECORD_HEADER>() {
                let [.., a, b, c, d, _, _, _, _] = *header;
                let captured =
                    usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or_default();
                let Some((frame, behind)) = behind.split_at_checked(captured) else { return };
                see(frame);
                left = left.saturating_sub(1);
                rest = behind;
            }
        }
    }

    fn idle() -> &'static Mutex<Vec<Wired<Self>>> {
        static IDLE: Mutex<Vec<Wired<Pipes>>> = Mutex::new(Vec::new());
        &IDLE
    }
}
