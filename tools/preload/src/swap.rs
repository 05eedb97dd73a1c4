//! Which descriptors are connections to rvsd, and how they become that.
//!
//! ```text
//!  SLOTS[fd]: cookie of the socket that was put there, port id that the kernel had given, last seq
//! ```
//!
//! A slot holds while the descriptor is the socket with that cookie, so nothing need be known of
//! close(2) and dup(2). No lock and no memory of the allocator: any thread, and the child of a fork in
//! the middle of anything, may come here.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::mem::ManuallyDrop;

/// Names another socket than [`DEFAULT_SOCKET`].
const SOCKET_VARIABLE: &str = "RVS_NETLINK";
/// Where rvsd listens for netlink clients.
const DEFAULT_SOCKET: &str = "/run/rvs/rvsd.netlink";

/// Descriptors that can be swapped are below this.
const SLOTS_MAX: usize = 4096;

/// `nlmsghdr` and `genlmsghdr`.
const NETLINK_HEADER: usize = 16;
const GENL_HEADER: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_NAME`, 9 octets long, "IPVS".
const ASKS_FOR_IPVS: &[u8] = b"\x02\x00IPVS\0";
/// The number that rvsd gives the family; the kernel's are smaller.
const FAMILY_ID: u16 = 0x4956;
const NLMSG_ERROR: u16 = 2;
/// An `nlmsghdr`, a number, and the `nlmsghdr` that it is about.
const ERROR_OCTETS: u32 = 36;

struct Slot {
    /// Zero is nobody's.
    cookie: AtomicU64,
    port: AtomicU32,
    seq: AtomicU32,
    /// One more than the other end of a connection to nobody, which keeps this one open; else zero.
    mate: AtomicI32,
}

static SLOTS: [Slot; SLOTS_MAX] = [const {
    Slot {
        cookie: AtomicU64::new(0),
        port: AtomicU32::new(0),
        seq: AtomicU32::new(0),
        mate: AtomicI32::new(0),
    }
}; SLOTS_MAX];

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

/// What a message says of the socket that it is sent on.
fn is_for_ipvs(message: &[u8]) -> bool {
    let Some(([a, b, c, d, e, f, ..], payload)) = message.split_first_chunk::<NETLINK_HEADER>()
    else {
        return false;
    };
    let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
    if len < NETLINK_HEADER + GENL_HEADER || len > message.len() {
        return false;
    }
    match u16::from_ne_bytes([*e, *f]) {
        FAMILY_ID => true,
        GENL_ID_CTRL => {
            payload.first() == Some(&CTRL_CMD_GETFAMILY)
                && payload.windows(ASKS_FOR_IPVS.len()).any(|it| it == ASKS_FOR_IPVS)
        }
        _ => false,
    }
}

fn is_generic_netlink(fd: BorrowedFd) -> bool {
    sockopt::socket_domain(fd) == Ok(AddressFamily::NETLINK)
        && sockopt::socket_protocol(fd) == Ok(Some(netlink::GENERIC))
}

/// A new connection to rvsd, closed by exec.
pub(crate) fn connect() -> Result<OwnedFd, Errno> {
    let path = std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
    let address = SocketAddrUnix::new(path)?;
    let cloexec = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, cloexec, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// The connection in `fd`, if there is one.
pub(crate) fn ours(fd: RawFd) -> Option<Ours> {
    let slot = SLOTS.get(usize::try_from(fd).ok()?)?;
    let cookie = slot.cookie.load(Ordering::Acquire);
    if cookie == 0 {
        return None;
    }
    let fd = borrowed(fd)?;
    if sockopt::socket_cookie(fd) == Ok(cookie) {
        return Some(Ours { fd, slot });
    }
    // Somebody closed it, and the number is used for something else now.
    let _changed = slot.cookie.compare_exchange(cookie, 0, Ordering::Relaxed, Ordering::Relaxed);
    None
}

/// The connection in `fd`, made now if `message`, which is to be sent there, asks for IPVS.
pub(crate) fn ours_for(fd: RawFd, message: &[u8]) -> Option<Ours> {
    if let Some(ours) = ours(fd) {
        return Some(ours);
    }
    if !is_for_ipvs(message) {
        return None;
    }
    let slot = SLOTS.get(usize::try_from(fd).ok()?)?;
    let fd = borrowed(fd)?;
    if !is_generic_netlink(fd) {
        return None;
    }
    slot.port.store(port_of(fd), Ordering::Relaxed);
    slot.mate.store(0, Ordering::Relaxed);
    let ours = Ours { fd, slot };
    // A connection to nobody would do: the send that follows tries again.
    ours.reconnect().or_else(|_| ours.answer_error(0, Errno::NOENT)).ok()?;
    Some(ours)
}

/// The port id that the kernel gave a netlink socket, or gives it now.
fn port_of(fd: BorrowedFd) -> u32 {
    let port = || {
        let address = rustix::net::getsockname(fd).ok()?;
        Some(SocketAddrNetlink::try_from(address).ok()?.pid())
    };
    port().filter(|port| *port != 0).unwrap_or_else(|| {
        let _it_is_bound = rustix::net::bind(fd, &SocketAddrNetlink::new(0, 0));
        port().unwrap_or_default()
    })
}

impl Ours {
    pub(crate) fn port(&self) -> u32 {
        self.slot.port.load(Ordering::Relaxed)
    }

    /// Sends what the program wants to send. It always seems sent: what went wrong is an answer,
    /// because keepalived takes a send that failed for one that was acknowledged.
    pub(crate) fn send(&self, message: &mut [u8]) {
        let seq = self.address(message);
        self.slot.seq.store(seq, Ordering::Relaxed);
        let is_question = message.get(4..6) == Some(&GENL_ID_CTRL.to_ne_bytes());
        let is_alone = self.slot.mate.load(Ordering::Relaxed) > 0;
        let sent = if is_alone { Err(Errno::PIPE) } else { self.transmit(message) };
        if sent.is_err() && self.reconnect().and_then(|()| self.transmit(message)).is_err() {
            // "There is no such family" is what a kernel without IPVS says.
            let errno = if is_question { Errno::NOENT } else { Errno::NODEV };
            let _full = self.answer_error(seq, errno);
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
        let _full = self.answer_error(self.slot.seq.load(Ordering::Relaxed), Errno::NODEV);
    }

    /// Writes the socket's port id into all messages, as the kernel answers to the socket and not to
    /// what a message says. The last one's sequence number.
    fn address(&self, mut rest: &mut [u8]) -> u32 {
        let port = self.port().to_ne_bytes();
        let mut seq = 0;
        while let Some(header) = rest.first_chunk_mut::<NETLINK_HEADER>() {
            let [a, b, c, d, _, _, _, _, e, f, g, h, place @ ..] = header;
            *place = port;
            seq = u32::from_ne_bytes([*e, *f, *g, *h]);
            let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
            let next = len.saturating_add(3) & !3;
            rest = rest.get_mut(next.max(NETLINK_HEADER)..).unwrap_or_default();
        }
        seq
    }

    /// A new connection in this descriptor's place.
    fn reconnect(&self) -> Result<(), Errno> {
        self.replace(&connect()?)?;
        self.take_mate(None);
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
        let port = self.port();
        let mut message = [0; 36];
        let header = |len: u32, kind: u16| {
            let ([a, b], [c, d]) = (kind.to_ne_bytes(), [0; 2]);
            [len.to_ne_bytes(), [a, b, c, d], seq.to_ne_bytes(), port.to_ne_bytes()]
        };
        let number = (-errno.raw_os_error()).to_ne_bytes();
        let words = header(ERROR_OCTETS, NLMSG_ERROR)
            .into_iter()
            .chain([number])
            .chain(header(16, FAMILY_ID));
        for (place, word) in message.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word);
        }
        rustix::net::send(&theirs, &message, SendFlags::NOSIGNAL)?;
        self.replace(&mine)?;
        self.take_mate(Some(theirs));
        Ok(())
    }

    /// Keeps the other end of a connection to nobody; the one before it is closed.
    fn take_mate(&self, next: Option<OwnedFd>) {
        let next = next.map_or(0, |fd| fd.into_raw_fd() + 1);
        let before = self.slot.mate.swap(next, Ordering::Relaxed);
        if before > 0 {
            // SAFETY: an earlier call gave it up to the slot alone.
            drop(unsafe { OwnedFd::from_raw_fd(before - 1) });
        }
    }

    /// Puts `socket` in this descriptor's place, with what the program has set.
    fn replace(&self, socket: &OwnedFd) -> Result<(), Errno> {
        let flags = rustix::fs::fcntl_getfl(self.fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(socket, OFlags::NONBLOCK)?;
        }
        if let Ok(Some(timeout)) = sockopt::socket_timeout(self.fd, Timeout::Recv) {
            sockopt::set_socket_timeout(socket, Timeout::Recv, Some(timeout))?;
        }
        let cookie = sockopt::socket_cookie(socket)?;
        let closes = rustix::io::fcntl_getfd(self.fd)?.contains(FdFlags::CLOEXEC);
        let how =
            if closes { rustix::io::DupFlags::CLOEXEC } else { rustix::io::DupFlags::empty() };
        // SAFETY: the program owns it; it is not closed here, but stands for another socket.
        let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.fd.as_raw_fd()) });
        rustix::io::dup3(socket.as_fd(), &mut place, how)?;
        self.slot.cookie.store(cookie, Ordering::Release);
        Ok(())
    }
}
