//! What a socket shares with the kernel: chunks of memory that frames are in, and four rings that
//! say whose each chunk is.
//!
//! ```text
//!            fill: chunks to receive into           transmit: frames to send
//!  we ─────────────────────────────────► kernel ◄──────────────────────────── we
//!     ◄────────────────────────────────         ────────────────────────────►
//!            receive: frames received               completion: chunks that were sent
//! ```
//!
//! Linux `Documentation/networking/af_xdp.rst`; `include/uapi/linux/if_xdp.h` has the shapes. A ring
//! is written by one side and read by the other: an index is stored with release after what it covers,
//! and loaded with acquire before. `net/xdp/xsk_queue.h` names the pairs.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Pages of ours, until dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    octets: usize,
}

impl Mapping {
    /// Zeroed pages of this process, or those that `fd` has at `offset`.
    pub(super) fn new(octets: usize, fd: Option<(BorrowedFd<'_>, i64)>) -> io::Result<Self> {
        let (fd, offset, kind) = match fd {
            Some((fd, offset)) => (fd.as_raw_fd(), offset, libc::MAP_SHARED),
            None => (-1, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        };
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // JUSTIFICATION: rings and frames are memory that the kernel shares with us.
        // SAFETY: without MAP_FIXED the kernel chooses a place where nothing is; the descriptor, if
        //   any, is open as it is borrowed.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), octets, rights, kind | libc::MAP_POPULATE, fd, offset)
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, octets }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn start(&self) -> NonNull<c_void> {
        self.start
    }

    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// The place `offset` octets behind the start; `None` when a `T` there would reach beyond the
    /// end or lie askew.
    fn at<T>(&self, offset: u64, count: usize) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        // SAFETY: `offset` is within the pages, as `end` is.
        let place = (end <= self.octets).then(|| unsafe { self.start.byte_add(offset) })?;
        Some(place.cast()).filter(|place: &NonNull<T>| place.is_aligned())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the pages are ours since `new`, and whoever drops this has no pointer left into
        //   them: rings and chunks hold theirs in the same value.
        let _gone = unsafe { libc::munmap(self.start.as_ptr(), self.octets) };
    }
}

// SAFETY: pages belong to the process, not to a thread.
unsafe impl Send for Mapping {}

/// The chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    pages: Mapping,
}

impl Chunks {
    pub(super) fn new(octets: usize) -> io::Result<Self> {
        Ok(Self { pages: Mapping::new(octets, None)? })
    }

    pub(super) fn pages(&self) -> &Mapping {
        &self.pages
    }

    /// `len` octets at `address`; `None` when they are not all in here.
    ///
    /// # Safety
    ///
    /// The chunk is ours: it came out of the receive or the completion ring, or was never given to
    /// the kernel, and did not go into the fill or the transmit ring since.
    #[inline]
    pub(super) unsafe fn octets_mut(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let place = self.pages.at::<u8>(address, len)?;
        // SAFETY: within the pages (checked), initialised since they were mapped zeroed, written by
        //   nobody else as the caller promises, and borrowed from `self` mutably.
        Some(unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), len) })
    }
}

/// What one side writes and the other reads: entries, and an index that counts them.
#[derive(Debug)]
pub(super) struct Ring<T> {
    /// How far the side has written that puts entries in.
    producer: NonNull<AtomicU32>,
    /// How far the side has read that takes entries out.
    consumer: NonNull<AtomicU32>,
    /// What the kernel says.
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    /// A power of two.
    size: u32,
    _pages: Mapping,
    _entries: PhantomData<T>,
}

// SAFETY: a ring has one owner on our side, whatever thread that is on.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: u64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let count = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entries_at = usize::try_from(offsets.desc).map_err(|_| io::ErrorKind::InvalidData)?;
        let octets = entries_at + count * size_of::<T>();
        let page_offset = i64::try_from(page_offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let pages = Mapping::new(octets, Some((socket, page_offset)))?;
        let outside = || io::Error::from(io::ErrorKind::InvalidData);
        Ok(Self {
            producer: pages.at(offsets.producer, 1).ok_or_else(outside)?,
            consumer: pages.at(offsets.consumer, 1).ok_or_else(outside)?,
            flags: pages.at(offsets.flags, 1).ok_or_else(outside)?,
            entries: pages.at(offsets.desc, count).ok_or_else(outside)?,
            size,
            _pages: pages,
            _entries: PhantomData,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the pages, aligned (both checked by `map`), and both sides use it as an atomic.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn wants_call(&self) -> bool {
        // SAFETY: as in `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// The place of entry number `index`.
    #[inline]
    fn place(&self, index: u32) -> NonNull<T> {
        // Lossless: rvs runs on 64 bits.
        let at = usize::try_from(index & (self.size - 1)).unwrap_or_default();
        // SAFETY: `at` is less than `size`, and so many entries are in the pages (checked by `map`).
        unsafe { self.entries.add(at) }
    }
}

/// A ring that we put entries into: fill, transmit.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    ring: Ring<T>,
    /// Where the next entry goes.
    next: u32,
    /// Where the kernel was when we last looked.
    taken: u32,
}

impl<T: Copy> Outbox<T> {
    pub(super) fn over(ring: Ring<T>) -> Self {
        Self { ring, next: 0, taken: 0 }
    }

    /// Puts an entry in, which the kernel sees with [`Self::publish`]. `false` when the ring is full.
    #[inline]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.next.wrapping_sub(self.taken) == self.ring.size {
            self.taken = self.ring.consumer().load(Ordering::Acquire);
        }
        let has_room = self.next.wrapping_sub(self.taken) < self.ring.size;
        if has_room {
            // SAFETY: the place is in the ring, and the kernel does not read it before `publish`.
            unsafe { self.ring.place(self.next).write(entry) };
            self.next = self.next.wrapping_add(1);
        }
        has_room
    }

    /// Shows the kernel what was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Takes back the last `count` entries, which the kernel has surely not looked at.
    pub(super) fn take_back(&mut self, count: u32) {
        self.next = self.next.wrapping_sub(count);
        self.publish();
    }

    /// Whether the kernel has not taken all of it yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.ring.consumer().load(Ordering::Acquire) != self.next
    }

    /// Whether the kernel goes on only when it is called.
    #[inline]
    pub(super) fn wants_call(&self) -> bool {
        self.ring.wants_call()
    }
}

/// A ring that we take entries out of: receive, completion.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    ring: Ring<T>,
    /// The next entry to take.
    next: u32,
    /// Where the kernel was when we last looked.
    there: u32,
}

impl<T: Copy> Inbox<T> {
    pub(super) fn over(ring: Ring<T>) -> Self {
        Self { ring, next: 0, there: 0 }
    }

    /// The next entry, which stays until [`Self::advance`].
    #[inline]
    pub(super) fn peek(&mut self) -> Option<T> {
        if self.next == self.there {
            self.there = self.ring.producer().load(Ordering::Acquire);
        }
        if self.next == self.there {
            return None;
        }
        // SAFETY: the place is in the ring, and the kernel wrote it before it moved its index there.
        Some(unsafe { self.ring.place(self.next).read() })
    }

    /// Leaves the entry behind that was peeked at; the kernel sees it with [`Self::publish`].
    #[inline]
    pub(super) fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// Lets the kernel have the places of entries left behind.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}
