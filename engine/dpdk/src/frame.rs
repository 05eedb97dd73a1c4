//! Frames in DPDK's memory.
//!
//! ```text
//!  mbuf ──buf_addr──► ├── data_off ──┼── data_len ──┤          │
//!                     0              the frame              buf_len
//! ```

use crate::sys::{self, Mbuf, Mempool};
use core::fmt;
use core::ptr::NonNull;
use rvs_io::{Frame, Pool};

/// A frame of one buffer, owned. Dropped, it returns to the pool that it came from.
#[repr(transparent)]
pub struct DpdkFrame(NonNull<Mbuf>);

// JUSTIFICATION: frames travel between workers (handoff).
// SAFETY: whoever has the frame is alone with the mbuf and its buffer (`DpdkFrame::own`), and DPDK's
//   pools take frames back from any thread.
unsafe impl Send for DpdkFrame {}

impl DpdkFrame {
    /// Takes over an mbuf; `None` if there is none.
    ///
    /// # Safety
    ///
    /// `mbuf` is null or a live, direct mbuf of one segment that nobody else refers to and whose
    /// data lies inside its buffer, every octet of which is initialised.
    #[inline]
    pub(crate) unsafe fn own(mbuf: *mut Mbuf) -> Option<Self> {
        NonNull::new(mbuf).map(Self)
    }

    /// Hands the mbuf over to whoever frees it.
    #[cfg(feature = "rings")]
    pub(crate) fn disown(self) -> *mut Mbuf {
        let mbuf = self.0.as_ptr();
        core::mem::forget(self);
        mbuf
    }

    #[inline]
    pub(crate) fn mbuf(&self) -> &Mbuf {
        // JUSTIFICATION: the descriptor is C memory.
        // SAFETY: live and not written by others while we own it (`own`); the borrow ends with ours.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn mbuf_mut(&mut self) -> &mut Mbuf {
        // JUSTIFICATION: as in `mbuf`.
        // SAFETY: as in `mbuf`, and `&mut self` makes us alone.
        unsafe { self.0.as_mut() }
    }

    /// Where the frame begins. In bounds: `data_off + data_len <= buf_len` holds from `own` on, and
    /// `shift_front` and `resize` keep it.
    #[inline]
    fn front(&self) -> *mut u8 {
        let mbuf = self.mbuf();
        // JUSTIFICATION: the buffer is C memory; its length is in the descriptor.
        // SAFETY: `data_off` is at most `buf_len`, the length of the allocation at `buf_addr`.
        unsafe { mbuf.buf_addr.add(usize::from(mbuf.data_off)) }
    }

    #[inline]
    fn set_len(&mut self, len: u16) {
        let mbuf = self.mbuf_mut();
        mbuf.data_len = len;
        mbuf.pkt_len = len.into();
    }
}

impl Frame for DpdkFrame {
    #[inline]
    fn octets(&self) -> &[u8] {
        // JUSTIFICATION: as in `front`.
        // SAFETY:
        // - in bounds: `front`;
        // - initialised: `own`;
        // - not written meanwhile: we own the mbuf, and the borrow is ours.
        unsafe { core::slice::from_raw_parts(self.front(), self.mbuf().data_len.into()) }
    }

    #[inline]
    fn octets_mut(&mut self) -> &mut [u8] {
        // JUSTIFICATION: as in `front`.
        // SAFETY: as in `octets`, and `&mut self` makes us alone.
        unsafe { core::slice::from_raw_parts_mut(self.front(), self.mbuf().data_len.into()) }
    }

    #[inline]
    fn shift_front(&mut self, by: isize) -> bool {
        let Ok(by) = i16::try_from(by) else { return false };
        let mbuf = self.mbuf();
        // A front behind the end fails at the length, one before the buffer at the offset.
        let (Some(offset), Some(len)) =
            (mbuf.data_off.checked_sub_signed(by), mbuf.data_len.checked_add_signed(by))
        else {
            return false;
        };
        self.mbuf_mut().data_off = offset;
        self.set_len(len);
        true
    }

    #[inline]
    fn resize(&mut self, len: usize) -> bool {
        let mbuf = self.mbuf();
        let fits = usize::from(mbuf.data_off).saturating_add(len) <= usize::from(mbuf.buf_len);
        match u16::try_from(len) {
            Ok(len) if fits => {
                self.set_len(len);
                true
            }
            _ => false,
        }
    }
}

impl Drop for DpdkFrame {
    #[inline]
    fn drop(&mut self) {
        // JUSTIFICATION: DPDK allocated it.
        // SAFETY: a live mbuf that nobody else refers to (`own`), and nobody will use it again.
        unsafe { sys::rvs_frame_give(self.0.as_ptr()) }
    }
}

impl fmt::Debug for DpdkFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpdkFrame").field("octets", &self.octets()).finish()
    }
}

/// The empty frames of a device: a mempool, with a cache for every lcore.
///
/// One for all queues: a frame that was handed over goes into the cache of the lcore that sent it,
/// and only that one, or the pool when the cache overflows, hands it out again. Pools of single queues
/// would end up in other workers' caches and transmit queues.
///
/// It lives as long as the process: frames of it may be anywhere, in other workers' rings and in
/// devices' queues.
#[derive(Clone, Copy, Debug)]
pub struct DpdkPool(NonNull<Mempool>);

// JUSTIFICATION: pools are made on the main thread and used by a worker.
// SAFETY: DPDK's mempools may be used by any number of threads, and this one is never freed.
unsafe impl Send for DpdkPool {}

impl DpdkPool {
    /// # Safety
    ///
    /// `pool` is null or a pool of mbufs that is never freed, whose buffers are initialised.
    pub(crate) unsafe fn new(pool: *mut Mempool) -> Option<Self> {
        NonNull::new(pool).map(Self)
    }

    pub(crate) fn raw(self) -> *mut Mempool {
        self.0.as_ptr()
    }

    /// Frames in it, those in caches included. Slow: for tests and operators.
    #[must_use]
    pub fn free(&self) -> usize {
        // JUSTIFICATION: only DPDK can count them.
        // SAFETY: the pool is live for ever (`new`).
        let count = unsafe { sys::rte_mempool_avail_count(self.raw()) };
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

impl Pool for DpdkPool {
    type Frame = DpdkFrame;

    #[inline]
    fn take(&mut self) -> Option<DpdkFrame> {
        // JUSTIFICATION: only DPDK can allocate an mbuf.
        // SAFETY: the pool is live for ever (`new`).
        let mbuf = unsafe { sys::rvs_frame_take(self.raw()) };
        // JUSTIFICATION: it is C memory.
        // SAFETY: null or fresh: one segment, direct, referred to by nobody else, no data; the
        //   buffer is initialised (`new`).
        unsafe { DpdkFrame::own(mbuf) }
    }

    #[inline]
    fn give(&mut self, frame: DpdkFrame) {
        drop(frame);
    }
}
