//! Links of rings inside one process, for tests and benches: DPDK's `net_ring`, and its far end.

use crate::device::Device;
use crate::eal::Eal;
use crate::frame::DpdkFrame;
use crate::sys::{self, Ring};
use core::ptr::NonNull;
use std::ffi::CString;

/// The other end of a link of rings. One thread uses it.
#[derive(Debug)]
pub struct FarEnd {
    arriving: Vec<NonNull<Ring>>,
    leaving: Vec<NonNull<Ring>>,
}

// JUSTIFICATION: a generator may have a thread of its own.
// SAFETY: rings live as long as the process, and have one thread at each end: `FarEnd` is neither
//   Clone nor Sync.
unsafe impl Send for FarEnd {}

/// Makes a device called `name` of `queues` queues, with rings of `depth` frames in each direction.
///
/// `None` if DPDK refuses: no memory, or the name is taken.
#[must_use]
pub fn link(_eal: Eal, name: &str, queues: u16, depth: u32) -> Option<(Device, FarEnd)> {
    let rings = |direction: &str| {
        (0..queues)
            .map(|queue| ring(&format!("{name}_{direction}{queue}"), depth))
            .collect::<Vec<_>>()
    };
    let arriving: Vec<_> = rings("a").into_iter().collect::<Option<_>>()?;
    let leaving: Vec<_> = rings("l").into_iter().collect::<Option<_>>()?;
    let mut raw = [&arriving, &leaving]
        .map(|rings: &Vec<NonNull<Ring>>| rings.iter().map(|r| r.as_ptr()).collect::<Vec<_>>());
    let [receive, send] = &mut raw;
    let c_name = CString::new(name).ok()?;
    // JUSTIFICATION: DPDK is a C library.
    // SAFETY: `queues` rings in each list, which live for ever; DPDK copies lists and name.
    let number = unsafe {
        sys::rvs_ring_device(
            c_name.as_ptr(),
            receive.as_mut_ptr(),
            send.as_mut_ptr(),
            queues.into(),
            -1,
        )
    };
    let device = Device::numbered(u16::try_from(number).ok()?, name)?;
    Some((device, FarEnd { arriving, leaving }))
}

fn ring(name: &str, depth: u32) -> Option<NonNull<Ring>> {
    let name = CString::new(name).ok()?;
    // JUSTIFICATION: DPDK is a C library.
    // SAFETY: the name ends with a zero and is copied.
    NonNull::new(unsafe { sys::rvs_ring(name.as_ptr(), depth, -1) })
}

impl FarEnd {
    /// Puts a frame on the wire, to arrive at `queue`.
    ///
    /// # Errors
    ///
    /// The frame, when the ring is full or there is no such queue.
    pub fn inject(&mut self, queue: u16, frame: DpdkFrame) -> Result<(), DpdkFrame> {
        let Some(ring) = self.arriving.get(usize::from(queue)) else { return Err(frame) };
        let mbuf = frame.disown();
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: the ring lives; we are the one who fills it; the mbuf is nobody else's.
        let full = unsafe { sys::rvs_ring_push(ring.as_ptr(), mbuf) };
        if full == 0 {
            return Ok(());
        }
        // JUSTIFICATION: as above.
        // SAFETY: refused, so it is still ours, and as it was.
        unsafe { DpdkFrame::own(mbuf) }.map_or(Ok(()), Err)
    }

    /// The same as from a device that took the 802.1Q tag `tci` out of the frame.
    ///
    /// # Errors
    ///
    /// As [`FarEnd::inject`].
    pub fn inject_stripped(
        &mut self,
        queue: u16,
        mut frame: DpdkFrame,
        tci: u16,
    ) -> Result<(), DpdkFrame> {
        let mbuf = frame.mbuf_mut();
        mbuf.ol_flags |= sys::VLAN_STRIPPED;
        mbuf.vlan_tci = tci;
        self.inject(queue, frame)
    }

    /// Takes the next frame that `queue` sent off the wire.
    pub fn collect(&mut self, queue: u16) -> Option<DpdkFrame> {
        let ring = self.leaving.get(usize::from(queue))?;
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: the ring lives; we are the one who empties it.
        let mbuf = unsafe { sys::rvs_ring_pop(ring.as_ptr()) };
        // JUSTIFICATION: as above.
        // SAFETY: null, or what a queue sent: its own frame of one buffer.
        unsafe { DpdkFrame::own(mbuf) }
    }

    /// Frames that wait to be received.
    #[must_use]
    pub fn waiting(&self) -> usize {
        // JUSTIFICATION: DPDK is a C library.
        // SAFETY: the rings live.
        let count = |ring: &NonNull<Ring>| unsafe { sys::rvs_ring_count(ring.as_ptr()) };
        self.arriving
            .iter()
            .map(count)
            .map(|count| usize::try_from(count).unwrap_or_default())
            .sum()
    }
}
