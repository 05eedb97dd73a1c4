//! The connection that is kept for the next socket of this process that asks for "IPVS".
//!
//! ```text
//!  the program's descriptor ──┐
//!                             ├──► one connection ──► rvsd
//!  KEPT, out of the way     ──┘
//! ```
//!
//! ipvsadm makes a socket for every line of `-R` and closes it again; that many connections were a third of
//! what a line cost. A connection is given on when nobody can tell it from a new one: the descriptor
//! that had it is closed, all that was asked on it has been answered and read (the caller knows), no
//! child was forked that may have it, and rvsd would take us for the same user still. Whoever finds it
//! otherwise, or another thread looking at it, makes a new one.

use core::sync::atomic::{AtomicU32, Ordering};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::sockopt::socket_cookie;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Gid, Pid, Uid, getegid, geteuid, getpid};
use std::sync::{Mutex, Once};

/// Our descriptors are not among the first, which programs close and open again by their numbers.
const LOWEST: RawFd = 100;

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// How often this process or those that it comes from were forked.
static FORKS: AtomicU32 = AtomicU32::new(0);

struct Kept {
    /// Nothing only while it is dropped.
    socket: Option<OwnedFd>,
    cookie: u64,
    /// The descriptor that it was given to last.
    holder: RawFd,
    owner: Owner,
}

/// Whose a connection is: rvsd asked when it was made.
#[derive(Eq, PartialEq)]
struct Owner {
    process: Pid,
    forks: u32,
    user: Uid,
    group: Gid,
}

impl Owner {
    fn now() -> Self {
        let forks = FORKS.load(Ordering::Acquire);
        Self { process: getpid(), forks, user: geteuid(), group: getegid() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A program that closes all descriptors has closed this one, and the number may be its own now.
        if let Some(socket) = self.socket.take()
            && socket_cookie(&socket) != Ok(self.cookie)
        {
            let _number = socket.into_raw_fd();
        }
    }
}

impl Kept {
    /// Whether it is what a new connection would be in `place`, a socket of the program's own, but for
    /// what the caller knows.
    fn is_as_new(&self, place: RawFd) -> bool {
        let Some(socket) = &self.socket else { return false };
        let is_closed = place == self.holder || cookie_of(self.holder) != Some(self.cookie);
        let waits = |flags: OFlags| !flags.contains(OFlags::NONBLOCK);
        is_closed
            && socket_cookie(socket) == Ok(self.cookie)
            && rustix::fs::fcntl_getfl(socket).is_ok_and(waits)
            && self.owner == Owner::now()
    }
}

/// The same file by a number of its own, if there is one for it.
pub(crate) fn out_of_the_way(file: OwnedFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(&file, LOWEST).unwrap_or(file)
}

fn cookie_of(fd: RawFd) -> Option<u64> {
    socket_cookie(crate::swap::borrowed(fd)?).ok()
}

/// Keeps a new connection that `holder` has, and forgets the one before.
pub(crate) fn keep(socket: &OwnedFd, cookie: u64, holder: BorrowedFd) {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: functions that may be called at any time. Without memory for them there is no fork
        //   either.
        let _no_memory = unsafe { libc::pthread_atfork(None, Some(forked), Some(forked)) };
    });
    let owner = Owner::now();
    let Ok(mut kept) = KEPT.try_lock() else { return };
    *kept = rustix::io::fcntl_dupfd_cloexec(socket, LOWEST).ok().map(|socket| Kept {
        socket: Some(socket),
        cookie,
        holder: holder.as_raw_fd(),
        owner,
    });
}

/// Has `put` put the kept connection in the place of `place`, if it is as good as a new one and
/// `is_quiet` says so of the descriptor that had it.
pub(crate) fn give(
    place: BorrowedFd,
    is_quiet: impl FnOnce(RawFd) -> bool,
    put: impl FnOnce(BorrowedFd, u64) -> Result<(), Errno>,
) -> Option<()> {
    let mut kept = KEPT.try_lock().ok()?;
    let it = kept.as_mut().filter(|it| is_quiet(it.holder) && it.is_as_new(place.as_raw_fd()))?;
    put(it.socket.as_ref()?.as_fd(), it.cookie).ok()?;
    it.holder = place.as_raw_fd();
    Some(())
}

/// Whether rvsd is at the other end of the kept connection and waits for requests.
pub(crate) fn is_alive(is_quiet: impl FnOnce(RawFd) -> bool) -> bool {
    let Ok(kept) = KEPT.try_lock() else { return false };
    let Some(it) = kept.as_ref().filter(|it| is_quiet(it.holder)) else { return false };
    let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let looked = it.socket.as_ref().map(|socket| recv(socket, &mut [0_u8; 1][..], look));
    matches!(looked, Some(Err(Errno::AGAIN)))
}

/// Parent and child have one connection from now on: nobody gives it on.
unsafe extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::AcqRel);
}
