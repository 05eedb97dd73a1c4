//! Which descriptors are connections to rvsd, and how they become that.
//!
//! ```text
//!  SLOTS[fd]: cookie of the socket that was put there, port id that the kernel had given, last seq
//! ```
//!
//! A slot holds while the descriptor is the socket with that cookie, so nothing need be known of
//! close(2) and dup(2). No memory of the allocator: any thread, and the child of a fork in the middle of
//! anything, may come here. A thread that puts another socket in a descriptor's place claims its slot,
//! so that of two that begin to speak one does it; a claim of a thread that is gone counts for nothing.

use crate::kept;
use crate::wire::{self, bound_generic_netlink, connect, generic_netlink, is_for_ipvs};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use rustix::event::epoll::{EventData, EventFlags};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use std::mem::ManuallyDrop;
use std::ptr;

/// Descriptors that can be swapped are below this.
const SLOTS_MAX: usize = 4096;

struct Slot {
    /// Zero is nobody's.
    cookie: AtomicU64,
    port: AtomicU32,
    seq: AtomicU32,
    /// Requests whose answers the program has not read to their ends.
    owed: AtomicU32,
    /// It is not what a new connection is: an answer has no end, or the program has set something.
    spent: AtomicBool,
    /// One more than the other end of a connection to nobody, which keeps this one open; else zero.
    mate: AtomicI32,
    /// The cookie of that end, as long as the program has not closed it with all that it has.
    mate_cookie: AtomicU64,
    /// The thread that is putting another socket here; else zero.
    claim: AtomicI32,
    /// The socket with this cookie is watched by an epoll, whose descriptor is one less than `epoll`,
    /// for `events`, and known there by `data`. Another socket in its place must be watched, too.
    watched: AtomicU64,
    epoll: AtomicI32,
    events: AtomicU32,
    data: AtomicU64,
}

static SLOTS: [Slot; SLOTS_MAX] = [const {
    Slot {
        cookie: AtomicU64::new(0),
        port: AtomicU32::new(0),
        seq: AtomicU32::new(0),
        owed: AtomicU32::new(0),
        spent: AtomicBool::new(false),
        mate: AtomicI32::new(0),
        mate_cookie: AtomicU64::new(0),
        claim: AtomicI32::new(0),
        watched: AtomicU64::new(0),
        epoll: AtomicI32::new(0),
        events: AtomicU32::new(0),
        data: AtomicU64::new(0),
    }
}; SLOTS_MAX];

/// The slot of a descriptor whose place is being taken, until the end of this.
struct Claim(&'static Slot);

impl Claim {
    fn of(slot: &'static Slot) -> Self {
        let me = this_thread();
        loop {
            let free = slot.claim.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
            if free.is_ok() {
                return Self(slot);
            }
            if slot.is_claimed_by_another() {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claim.store(0, Ordering::Release);
    }
}

impl Slot {
    /// Whether another thread of this process has claimed it. A claim of one that is not here, as in
    /// the child of a fork, is taken away.
    fn is_claimed_by_another(&self) -> bool {
        let who = self.claim.load(Ordering::Acquire);
        if who == 0 || who == this_thread() {
            return false;
        }
        let process = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: three numbers; signal 0 is none.
        let found = unsafe { libc::syscall(libc::SYS_tgkill, process, who, 0) };
        if found == 0 {
            return true;
        }
        let _gone = self.claim.compare_exchange(who, 0, Ordering::Relaxed, Ordering::Relaxed);
        false
    }
}

fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// A descriptor of the program.
pub(crate) fn borrowed(fd: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: it is not -1. It is used during one call of the program that names it; if the program
    //   closes it meanwhile that call fails, as the call that it stands for would.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A connection to rvsd in a descriptor of the program.
pub(crate) struct Ours {
    fd: BorrowedFd<'static>,
    slot: &'static Slot,
}

/// The connection in `fd`, if there is one.
pub(crate) fn ours(fd: RawFd) -> Option<Ours> {
    let slot = SLOTS.get(usize::try_from(fd).ok()?)?;
    let fd = borrowed(fd)?;
    let cookie = loop {
        let cookie = slot.cookie.load(Ordering::Acquire);
        if cookie != 0 && sockopt::socket_cookie(fd) == Ok(cookie) {
            return Some(Ours { fd, slot });
        }
        if !slot.is_claimed_by_another() {
            break cookie;
        }
        std::thread::yield_now();
    };
    if cookie == 0 {
        return None;
    }
    // Somebody closed it, and the number is used for something else now.
    let _changed = slot.cookie.compare_exchange(cookie, 0, Ordering::Relaxed, Ordering::Relaxed);
    None
}

/// The connection in `fd`, made now if `message`, which is to be sent there, asks for IPVS.
///
/// # Errors
///
/// It asks for IPVS, and there is no connection to be had, not even to nobody. The message must not be
/// sent then: a kernel would take it.
pub(crate) fn ours_for(fd: RawFd, message: &[u8]) -> Result<Option<Ours>, Errno> {
    if let Some(ours) = ours(fd) {
        return Ok(Some(ours));
    }
    let Some(fd) = borrowed(fd).filter(|_| is_for_ipvs(message)) else { return Ok(None) };
    let Some(slot) = usize::try_from(fd.as_raw_fd()).ok().and_then(|at| SLOTS.get(at)) else {
        return if generic_netlink(fd).is_some() { Err(Errno::MFILE) } else { Ok(None) };
    };
    let _claim = Claim::of(slot);
    let ours = Ours { fd, slot };
    let Some(port) = bound_generic_netlink(fd) else {
        // Another thread was first, it is a copy of another descriptor, or something else.
        return Ok(self::ours(fd.as_raw_fd()).or_else(|| ours.copies().map(|()| ours)));
    };
    slot.port.store(port, Ordering::Relaxed);
    ours.take_mate(None);
    if ours.take_over().is_none() {
        // A connection to nobody would do: the send that follows tries again.
        ours.reconnect().or_else(|_| ours.answer_error(0, Errno::NOENT))?;
    }
    Ok(Some(ours))
}

/// Takes note that an epoll watches a descriptor from now on, for `events` and under `data`, or not
/// any more.
pub(crate) fn watched(epoll: RawFd, fd: RawFd, event: Option<(u32, u64)>) {
    let slot = usize::try_from(fd).ok().and_then(|at| SLOTS.get(at));
    let (Some(slot), Some(fd)) = (slot, borrowed(fd)) else { return };
    if generic_netlink(fd).is_none() && ours(fd.as_raw_fd()).is_none() {
        return;
    }
    let cookie = sockopt::socket_cookie(fd).unwrap_or_default();
    match event {
        Some((events, data)) => {
            slot.events.store(events, Ordering::Relaxed);
            slot.data.store(data, Ordering::Relaxed);
            slot.epoll.store(epoll + 1, Ordering::Relaxed);
            slot.watched.store(cookie, Ordering::Release);
        }
        None => slot.watched.store(0, Ordering::Release),
    }
}

/// Whether all that was asked on a descriptor has been answered and read.
fn is_quiet(fd: RawFd) -> bool {
    usize::try_from(fd).ok().and_then(|at| SLOTS.get(at)).is_some_and(|slot| {
        slot.owed.load(Ordering::Relaxed) == 0 && !slot.spent.load(Ordering::Relaxed)
    })
}

/// Whether this process was told before that there is the family "IPVS", and would be told so again.
pub(crate) fn knows_family() -> bool {
    kept::is_alive(is_quiet)
}

impl Ours {
    pub(crate) fn port(&self) -> u32 {
        self.slot.port.load(Ordering::Relaxed)
    }

    /// Sends what the program wants to send. It always seems sent: what went wrong is an answer,
    /// because keepalived takes a send that failed for one that was acknowledged.
    pub(crate) fn send(&self, message: &mut [u8]) {
        let seq = wire::address(self.port(), message);
        self.slot.seq.store(seq, Ordering::Relaxed);
        match wire::ends_expected(message) {
            Some(ends) => drop(self.slot.owed.fetch_add(ends, Ordering::Relaxed)),
            None => self.spend(),
        }
        let is_alone = self.slot.mate.load(Ordering::Relaxed) > 0;
        let sent = if is_alone { Err(Errno::PIPE) } else { self.transmit(message) };
        if sent.is_ok() {
            return;
        }
        let _claim = Claim::of(self.slot);
        if self.reconnect().and_then(|()| self.transmit(message)).is_err() {
            let _full = self.answer_error(seq, wire::absence(message));
        }
    }

    fn transmit(&self, message: &[u8]) -> Result<(), Errno> {
        loop {
            match rustix::net::send(self.fd, message, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// rvsd went away while an answer was due.
    pub(crate) fn lost(&self) {
        let _claim = Claim::of(self.slot);
        let _full = self.answer_error(self.slot.seq.load(Ordering::Relaxed), Errno::NODEV);
    }

    /// The program has read this datagram; or something of which nobody knows what it was.
    pub(crate) fn was_read(&self, datagram: Option<&[u8]>) {
        match datagram {
            Some(datagram) => {
                self.slot.owed.fetch_sub(wire::ends(datagram), Ordering::Relaxed);
            }
            None => self.spend(),
        }
    }

    /// From now on it is not what a new connection is.
    pub(crate) fn spend(&self) {
        self.slot.spent.store(true, Ordering::Relaxed);
    }

    /// The connection of a socket that was closed in this descriptor's place.
    fn take_over(&self) -> Option<()> {
        kept::give(self.fd, is_quiet, |socket, cookie| self.replace(socket, cookie))
    }

    /// Takes note that this descriptor is a copy of one that is a connection, as dup(2) makes it.
    fn copies(&self) -> Option<()> {
        let cookie = sockopt::socket_cookie(self.fd).ok().filter(|cookie| *cookie != 0)?;
        let is_it = |other: &&Slot| other.cookie.load(Ordering::Acquire) == cookie;
        let other = SLOTS.iter().find(is_it).filter(|other| !ptr::eq(*other, self.slot))?;
        // Nobody knows which of the two is closed last.
        other.spent.store(true, Ordering::Relaxed);
        self.spend();
        self.slot.port.store(other.port.load(Ordering::Relaxed), Ordering::Relaxed);
        self.take_mate(None);
        self.slot.cookie.store(cookie, Ordering::Release);
        if other.mate.load(Ordering::Relaxed) > 0 {
            self.reconnect().or_else(|_| self.answer_error(0, Errno::NOENT)).ok()?;
        }
        Some(())
    }

    /// A new connection in this descriptor's place.
    fn reconnect(&self) -> Result<(), Errno> {
        let socket = connect()?;
        let cookie = sockopt::socket_cookie(&socket)?;
        self.replace(socket.as_fd(), cookie)?;
        self.take_mate(None);
        kept::keep(&socket, cookie, self.fd);
        Ok(())
    }

    /// A connection to nobody in this descriptor's place, in which an error waits to be read.
    fn answer_error(&self, seq: u32, errno: Errno) -> Result<(), Errno> {
        let (mine, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let message = wire::error(self.port(), seq, errno);
        rustix::net::send(&theirs, &message, SendFlags::NOSIGNAL)?;
        self.replace(mine.as_fd(), sockopt::socket_cookie(&mine)?)?;
        self.take_mate(Some(theirs));
        Ok(())
    }

    /// dup(2) ends what an epoll knows of a descriptor.
    fn watch_again(&self, cookie: u64) {
        let slot = self.slot;
        let Some(epoll) = borrowed(slot.epoll.load(Ordering::Relaxed) - 1) else { return };
        let data = EventData::new_u64(slot.data.load(Ordering::Relaxed));
        let events = EventFlags::from_bits_retain(slot.events.load(Ordering::Relaxed));
        if rustix::event::epoll::add(epoll, self.fd, data, events).is_ok() {
            slot.watched.store(cookie, Ordering::Release);
        }
    }

    /// Keeps the other end of a connection to nobody; the one before it is closed.
    fn take_mate(&self, next: Option<OwnedFd>) {
        let next = next.map(kept::out_of_the_way);
        let cookie = next.as_ref().and_then(|next| sockopt::socket_cookie(next).ok());
        let next = next.map_or(0, |fd| fd.into_raw_fd() + 1);
        let before = self.slot.mate.swap(next, Ordering::Relaxed);
        let before_cookie =
            self.slot.mate_cookie.swap(cookie.unwrap_or_default(), Ordering::Relaxed);
        // Else the program has closed all descriptors, and the number may be its own now.
        if let Some(fd) = borrowed(before - 1)
            && sockopt::socket_cookie(fd) == Ok(before_cookie)
        {
            // SAFETY: an earlier call gave it up to the slot alone.
            drop(unsafe { OwnedFd::from_raw_fd(before - 1) });
        }
    }

    /// Puts `socket`, whose cookie is known, in this descriptor's place, with what the program has set.
    fn replace(&self, socket: BorrowedFd, cookie: u64) -> Result<(), Errno> {
        let mut is_plain = true;
        let flags = rustix::fs::fcntl_getfl(self.fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(socket, OFlags::NONBLOCK)?;
            is_plain = false;
        }
        if let Ok(Some(timeout)) = sockopt::socket_timeout(self.fd, Timeout::Recv) {
            sockopt::set_socket_timeout(socket, Timeout::Recv, Some(timeout))?;
            is_plain = false;
        }
        let closes = rustix::io::fcntl_getfd(self.fd)?.contains(FdFlags::CLOEXEC);
        let how =
            if closes { rustix::io::DupFlags::CLOEXEC } else { rustix::io::DupFlags::empty() };
        let watched = self.slot.watched.load(Ordering::Acquire);
        let is_watched = watched != 0 && sockopt::socket_cookie(self.fd) == Ok(watched);
        // SAFETY: the program owns it; it is not closed here, but stands for another socket.
        let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.fd.as_raw_fd()) });
        rustix::io::dup3(socket, &mut place, how)?;
        self.slot.owed.store(0, Ordering::Relaxed);
        // One that programs get which this one becomes is not given on.
        self.slot.spent.store(!is_plain || !closes, Ordering::Relaxed);
        self.slot.cookie.store(cookie, Ordering::Release);
        if is_watched {
            self.watch_again(cookie);
        }
        Ok(())
    }
}
