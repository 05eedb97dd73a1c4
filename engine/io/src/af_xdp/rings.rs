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

/// How calls of the kernel went.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Kicked {
    /// Why it refused, unless asking again helps.
    pub(super) fault: Option<i32>,
    /// Whether it refused before it looked at the ring: what was published last can be taken back. Else
    /// it takes that sooner or later.
    pub(super) is_unseen: bool,
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

    /// Has the kernel take what was published, by `call`, `calls` times at most.
    pub(super) fn kick(&self, calls: usize, mut call: impl FnMut() -> io::Result<()>) -> Kicked {
        for number in 0..calls {
            // A driver that does not copy may be at work already, and says whether it is.
            if !self.wants_call() {
                break;
            }
            let Err(error) = call() else { break };
            match error.raw_os_error() {
                // There is more to send, or no place at the moment.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) => {
                    if !self.is_waiting() {
                        break;
                    }
                }
                // Linux 6.1 net/xdp/xsk.c xsk_check_common(): before it looks at the ring.
                fault @ Some(libc::ENETDOWN | libc::ENXIO) => {
                    return Kicked { fault, is_unseen: number == 0 };
                }
                fault => return Kicked { fault, is_unseen: false },
            }
        }
        Kicked::default()
    }

    /// Takes back the last `count` entries. Only for those that the kernel has not seen, whether it
    /// took them or not: it remembers how far the ring was filled when it looked (Linux 6.1
    /// `net/xdp/xsk_queue.h` `cached_prod`), and shows how far it has come only when it looks again,
    /// so neither index here tells.
    pub(super) fn take_back(&mut self, count: u32) {
        self.next = self.next.wrapping_sub(count);
        self.publish();
    }

    /// Whether the kernel has not said yet that it took all of it.
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

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u32 = 128;

    /// The kernel's side of the transmit ring where frames are copied. It looks ahead, and shows what it
    /// took when it looks again: Linux 6.1 `net/xdp/xsk_queue.h` `xskq_cons_peek_desc()`.
    struct Kernel {
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        entries: NonNull<u64>,
        seen: u32,
        next: u32,
        taken: Vec<u64>,
    }

    impl Kernel {
        fn peek(&mut self) -> Option<u64> {
            // SAFETY: the outbox has the pages as long as the test runs.
            let producer = unsafe { self.producer.as_ref() };
            // SAFETY: as above.
            let consumer = unsafe { self.consumer.as_ref() };
            if self.seen == self.next {
                consumer.store(self.next, Ordering::Release);
                self.seen = producer.load(Ordering::Acquire);
            }
            let at = usize::try_from(self.next % SIZE).unwrap();
            // SAFETY: as above, and `at` is within the ring.
            let place = unsafe { self.entries.add(at) };
            // SAFETY: as above; the outbox is on this thread.
            (self.seen != self.next).then(|| unsafe { place.read() })
        }

        /// `__xsk_generic_xmit()`, and what is checked before.
        fn send(&mut self, device_is_up: bool) -> io::Result<()> {
            if !device_is_up {
                return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
            }
            for _ in 0..32 {
                let Some(entry) = self.peek() else { return Ok(()) };
                self.taken.push(entry);
                self.next = self.next.wrapping_add(1);
            }
            let more = self.peek().map(|_| Err(io::Error::from_raw_os_error(libc::EAGAIN)));
            more.unwrap_or(Ok(()))
        }
    }

    /// Both ends of a ring whose indexes are at `start`.
    fn ring(start: u32) -> (Outbox<u64>, Kernel) {
        let pages = Mapping::new(4096, None).unwrap();
        let ring = Ring {
            producer: pages.at::<AtomicU32>(0, 1).unwrap(),
            consumer: pages.at::<AtomicU32>(64, 1).unwrap(),
            flags: pages.at::<AtomicU32>(128, 1).unwrap(),
            entries: pages.at(192, usize::try_from(SIZE).unwrap()).unwrap(),
            size: SIZE,
            _pages: pages,
            _entries: PhantomData,
        };
        ring.producer().store(start, Ordering::Relaxed);
        ring.consumer().store(start, Ordering::Relaxed);
        // SAFETY: as in `Ring::wants_call`.
        let flags = unsafe { ring.flags.as_ref() };
        flags.store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        let (producer, consumer, entries) = (ring.producer, ring.consumer, ring.entries);
        let kernel =
            Kernel { producer, consumer, entries, seen: start, next: start, taken: Vec::new() };
        (Outbox { ring, next: start, taken: start }, kernel)
    }

    /// Sends these as the queue does, while the device is up for the calls that `up` says; whether they
    /// are the kernel's now.
    fn flush(
        outbox: &mut Outbox<u64>,
        kernel: &mut Kernel,
        entries: core::ops::Range<u64>,
        mut up: impl Iterator<Item = bool>,
    ) -> bool {
        let count = u32::try_from(entries.end - entries.start).unwrap();
        entries.for_each(|entry| assert!(outbox.push(entry)));
        outbox.publish();
        let kicked = outbox.kick(4, || kernel.send(up.next().unwrap()));
        if kicked.is_unseen {
            assert_eq!(kicked.fault, Some(libc::ENETDOWN));
            outbox.take_back(count);
        }
        !kicked.is_unseen
    }

    /// Where indexes begin: at 0, and just before they wrap.
    const STARTS: [u32; 2] = [0, u32::MAX - 40];

    #[test]
    fn what_the_kernel_has_seen_is_its_own_though_the_device_goes_down_before_it_took_all() {
        for start in STARTS {
            let (mut outbox, mut kernel) = ring(start);
            let up = [true, false].into_iter();
            assert!(flush(&mut outbox, &mut kernel, 0..64, up), "from {start}");
            assert_eq!(kernel.taken.len(), 32);
            // Down still, and so nothing more is the kernel's.
            assert!(!flush(&mut outbox, &mut kernel, 500..510, core::iter::once(false)));
            assert!(flush(&mut outbox, &mut kernel, 64..70, core::iter::repeat(true)));
            let expected: Vec<u64> = (0..70).collect();
            assert_eq!(kernel.taken, expected, "each once, in order");
            assert!(!outbox.is_waiting(), "from {start}");
        }
    }

    #[test]
    fn what_is_taken_back_leaves_its_places_to_what_comes_next() {
        for start in STARTS {
            let (mut outbox, mut kernel) = ring(start);
            for round in 0..5 {
                let first = round * 100;
                let down = core::iter::once(false);
                assert!(!flush(&mut outbox, &mut kernel, first..first + 60, down));
                let up = core::iter::repeat(true);
                assert!(flush(&mut outbox, &mut kernel, first + 60..first + 100, up));
            }
            let expected: Vec<u64> = (0..500).filter(|entry| entry % 100 >= 60).collect();
            assert_eq!(kernel.taken, expected, "from {start}");
            assert!(!outbox.is_waiting(), "from {start}");
        }
    }
}
