//! One worker's end of a device.

use crate::device::Started;
use crate::frame::{DpdkFrame, DpdkPool};
use crate::sys;
use core::cell::Cell;
use core::marker::PhantomData;
use rvs_io::{Burst, Lost, Queue};
use std::sync::Arc;

/// A receive and a transmit queue of a device. One thread polls it: neither `Clone` nor `Sync`.
#[derive(Debug)]
pub struct DpdkQueue {
    started: Arc<Started>,
    number: u16,
    lost: Lost,
    _one_thread: PhantomData<Cell<()>>,
}

impl DpdkQueue {
    /// Queue `number` of a device; there is one such value for each.
    pub(crate) fn new(started: Arc<Started>, number: u16) -> Self {
        Self { started, number, lost: Lost::default(), _one_thread: PhantomData }
    }

    /// What is not one buffer, or has lost its tag, does not stay; those after it move up.
    #[cold]
    fn sort_out(&mut self, burst: &mut Burst<DpdkFrame>, first: usize) {
        let mut at = first;
        while let Some(frame) = burst.get_mut(at) {
            if is_plain(frame) || unstrip(frame) {
                at += 1;
            } else {
                // Only this one leaves; order is kept. Dropped, all its buffers are free.
                burst.remove(at);
                self.lost.too_long += 1;
            }
        }
    }
}

/// Whether it is one buffer, with its tag in it if it has one.
#[inline]
fn is_plain(frame: &DpdkFrame) -> bool {
    let mbuf = frame.mbuf();
    mbuf.nb_segs == 1 && mbuf.ol_flags & sys::VLAN_STRIPPED == 0
}

/// Puts back the tag that a device took out although it was not asked to. `false` if that is not
/// what is the matter, or there is no place.
fn unstrip(frame: &mut DpdkFrame) -> bool {
    if frame.mbuf().nb_segs != 1 {
        return false;
    }
    let frame: *mut DpdkFrame = frame;
    // JUSTIFICATION: the tag is in the descriptor.
    // SAFETY: `DpdkFrame` is a pointer to an mbuf that we own (`repr(transparent)`); DPDK leaves
    //   the pointer as it is for an mbuf that nobody else refers to.
    unsafe { sys::rvs_frame_unstrip(frame.cast()) == 0 }
}

impl Queue for DpdkQueue {
    type Frame = DpdkFrame;
    type Pool = DpdkPool;

    #[inline]
    fn receive(
        &mut self,
        _pool: &mut DpdkPool,
        burst: &mut Burst<DpdkFrame>,
        most: usize,
    ) -> usize {
        let before = burst.len();
        let most = u16::try_from(most.min(burst.remaining_capacity())).unwrap_or(u16::MAX);
        // JUSTIFICATION: DPDK writes pointers to mbufs; a frame is one, so they need not be copied.
        // SAFETY: `before` is at most the capacity.
        let spare = unsafe { burst.as_mut_ptr().add(before) };
        // JUSTIFICATION: only the driver can receive.
        // SAFETY:
        // - `most` places from `spare` on are inside the burst's capacity, and nobody else's;
        // - the device is started and has this queue (`Started`);
        // - nobody else polls it: there is one value for each queue, and it is borrowed mutably.
        let count =
            unsafe { sys::rvs_rx_burst(self.started.device(), self.number, spare.cast(), most) };
        let after = before + usize::from(count.min(most));
        // JUSTIFICATION: as above.
        // SAFETY: the driver has written `count` pointers to mbufs that are ours now.
        unsafe { burst.set_len(after) };
        if !burst.iter().skip(before).all(is_plain) {
            self.sort_out(burst, before);
        }
        burst.len() - before
    }

    #[inline]
    fn send(&mut self, _pool: &mut DpdkPool, burst: &mut Burst<DpdkFrame>) -> usize {
        let count = u16::try_from(burst.len()).unwrap_or(u16::MAX);
        // JUSTIFICATION: only the driver can send, and it takes pointers.
        // SAFETY:
        // - `count` frames are in the burst, each an owned mbuf;
        // - the device is started, has this queue, and nobody else fills it, as in `receive`.
        let sent = unsafe {
            sys::rvs_tx_burst(self.started.device(), self.number, burst.as_mut_ptr().cast(), count)
        };
        forget_first(burst, usize::from(sent.min(count)));
        usize::from(sent)
    }

    fn lost(&self) -> Lost {
        self.lost
    }
}

/// Removes the first `count` frames, which the driver has taken over, without freeing them.
#[inline]
fn forget_first(burst: &mut Burst<DpdkFrame>, count: usize) {
    let left = burst.len().saturating_sub(count);
    if left > 0 {
        burst.rotate_left(count);
    }
    // JUSTIFICATION: dropping them would free what the driver is about to send.
    // SAFETY: `left` is at most the length; those behind belong to the driver and are forgotten.
    unsafe { burst.set_len(left) };
}
