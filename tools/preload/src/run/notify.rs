//! The kernel's end of seccomp user notification (`seccomp_unotify(2)`): which system calls of a program
//! wait for us, what they were called with, and how they end.
//!
//! Every `unsafe` of this mode is here and in [`launch`](super::launch): ioctls and system calls that
//! the C library's crate declares, on descriptors and numbers of ours.

use core::mem;
use core::ptr;
use libc::{c_int, c_long, c_ulong, c_void, sock_filter};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A system call that waits.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    id: u64,
    /// Which thread made it.
    thread: u32,
    pub(crate) number: c_long,
    pub(crate) arguments: [u64; 6],
}

/// How a system call ends.
pub(crate) enum End {
    /// In the kernel, as if nobody had looked.
    Goes,
    /// With this value.
    Value(i64),
    /// With this error.
    Fails(Errno),
    /// With a descriptor of this file, at this number if there is one.
    Opens {
        /// The file.
        file: OwnedFd,
        /// Its number in the program; the lowest that is free if `None`.
        number: Option<RawFd>,
        /// Whether it is closed by exec.
        cloexec: bool,
    },
    /// It has ended already, or somebody else ends it.
    Ended,
}

/// Where calls come from.
pub(crate) struct Notifier(pub(crate) OwnedFd);

impl Notifier {
    fn ioctl<T>(&self, request: c_ulong, argument: &mut T) -> Result<c_int, Errno> {
        let argument: *mut T = argument;
        // SAFETY: each caller passes the structure that the request is defined with, which lives
        //   through the call and is nobody else's.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) };
        if done < 0 { Err(last_error()) } else { Ok(done) }
    }

    /// Waits for the next call; `None` when no program is left.
    pub(crate) fn next(&self) -> Option<Call> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            if fds.iter().any(|fd| !fd.revents().contains(PollFlags::IN)) {
                return None;
            }
            // SAFETY: a structure of integers.
            let mut seen: libc::seccomp_notif = unsafe { mem::zeroed() };
            match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut seen) {
                Ok(_) => {
                    return Some(Call {
                        id: seen.id,
                        thread: seen.pid,
                        number: seen.data.nr.into(),
                        arguments: seen.data.args,
                    });
                }
                // It was interrupted before we looked.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Whether the program still waits for the end of `call`.
    pub(crate) fn waits(&self, call: Call) -> bool {
        let mut id = call.id;
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Ends a call. What ended otherwise meanwhile is not our concern.
    pub(crate) fn end(&self, call: Call, end: End) {
        let (mut value, mut error, mut flags) = (0, 0, 0);
        match end {
            End::Goes => flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE,
            End::Value(it) => value = it,
            End::Fails(it) => error = -it.raw_os_error(),
            End::Opens { file, number, cloexec } => {
                match self.give(call, file.as_fd(), number, cloexec, true) {
                    Ok(()) | Err(Errno::NOENT) => return,
                    Err(it) => error = -it.raw_os_error(),
                }
            }
            End::Ended => return,
        }
        let flags = u32::try_from(flags).unwrap_or_default();
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: value, error, flags };
        let _gone = self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer);
    }

    /// Puts a file at a number of the program, or at the lowest that is free; if `ends` that is what
    /// its call returns.
    pub(crate) fn give(
        &self,
        call: Call,
        file: BorrowedFd,
        number: Option<RawFd>,
        cloexec: bool,
        ends: bool,
    ) -> Result<(), Errno> {
        let mut flags = 0;
        if number.is_some() {
            flags |= libc::SECCOMP_ADDFD_FLAG_SETFD;
        }
        if ends {
            flags |= libc::SECCOMP_ADDFD_FLAG_SEND;
        }
        let mut given = libc::seccomp_notif_addfd {
            id: call.id,
            flags: u32::try_from(flags).unwrap_or_default(),
            srcfd: u32::try_from(file.as_raw_fd()).unwrap_or(u32::MAX),
            newfd: number.and_then(|it| u32::try_from(it).ok()).unwrap_or_default(),
            newfd_flags: u32::try_from(if cloexec { libc::O_CLOEXEC } else { 0 })
                .unwrap_or_default(),
        };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut given).map(drop)
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

impl Call {
    /// The process of the thread.
    pub(crate) fn process(self) -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
        line.trim().parse().ok()
    }

    /// A copy of a descriptor of the program, to the same file.
    pub(crate) fn file(self, fd: RawFd) -> Option<OwnedFd> {
        let process = Pid::from_raw(i32::try_from(self.process()?).ok()?)?;
        let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
        pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).ok()
    }

    /// The argument at `at`, as a descriptor or another `int`.
    pub(crate) fn int(self, at: usize) -> c_int {
        let [a, b, c, d, ..] = self.argument(at).to_le_bytes();
        c_int::from_le_bytes([a, b, c, d])
    }

    pub(crate) fn argument(self, at: usize) -> u64 {
        self.arguments.get(at).copied().unwrap_or_default()
    }

    /// Up to `len` octets of the program's memory; fewer where it ends.
    pub(crate) fn read(self, address: u64, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        let here = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: len };
        let there = remote(address, len);
        let thread = c_int::try_from(self.thread).unwrap_or_default();
        // SAFETY: `here` is the vector's memory; `there` is checked by the kernel.
        let read =
            unsafe { libc::process_vm_readv(thread, &raw const here, 1, &raw const there, 1, 0) };
        octets.truncate(usize::try_from(read).unwrap_or_default());
        octets
    }

    /// Writes to the program's memory, and says whether all of it could be.
    pub(crate) fn write(self, address: u64, octets: &[u8]) -> bool {
        let here =
            libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
        let there = remote(address, octets.len());
        let thread = c_int::try_from(self.thread).unwrap_or_default();
        // SAFETY: `here` is only read; `there` is checked by the kernel.
        let written =
            unsafe { libc::process_vm_writev(thread, &raw const here, 1, &raw const there, 1, 0) };
        usize::try_from(written) == Ok(octets.len())
    }

    /// A text of the program, without the zero at its end.
    pub(crate) fn text(self, address: u64) -> Vec<u8> {
        const PAGE: u64 = 4096;
        const OCTETS_MAX: usize = 512;
        // Not beyond a page that may be the last, unless the text is.
        let to_end = usize::try_from(PAGE - address % PAGE).unwrap_or_default();
        let mut text = self.read(address, to_end.min(OCTETS_MAX));
        if !text.contains(&0) && text.len() == to_end {
            let next = address.wrapping_add(u64::try_from(to_end).unwrap_or_default());
            text.extend(self.read(next, OCTETS_MAX - to_end.min(OCTETS_MAX)));
        }
        text.truncate(text.iter().position(|octet| *octet == 0).unwrap_or_default());
        text
    }

    /// A word of the program's memory.
    pub(crate) fn word(self, address: u64) -> Option<u64> {
        Some(u64::from_ne_bytes(self.read(address, 8).try_into().ok()?))
    }
}

fn remote(address: u64, len: usize) -> libc::iovec {
    let address = usize::try_from(address).unwrap_or_default();
    libc::iovec { iov_base: ptr::without_provenance_mut::<c_void>(address), iov_len: len }
}

/// Has this process, and all that come from it, wait for us with the calls that `filter` names.
pub(crate) fn install(filter: &[sock_filter]) -> Result<RawFd, Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or_default(),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: a number; no memory.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done < 0 {
        return Err(last_error());
    }
    // SAFETY: `program` and the filter that it names live through the call, which copies them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    RawFd::try_from(listener).ok().filter(|fd| *fd >= 0).ok_or_else(last_error)
}

/// Has an epoll watch `socket` for the `struct epoll_event` of `event`, under the number `fd`, which is
/// the program's for it.
pub(crate) fn watch(epoll: &OwnedFd, socket: &OwnedFd, fd: RawFd, event: &[u8]) -> Option<()> {
    // SAFETY: a structure of integers.
    let mut seen: libc::epoll_event = unsafe { mem::zeroed() };
    if event.len() != size_of_val(&seen) {
        return None;
    }
    // SAFETY: both are that long and do not overlap.
    unsafe { ptr::copy_nonoverlapping(event.as_ptr(), (&raw mut seen).cast(), event.len()) };
    // An epoll knows a file by the number, too, that whoever adds it has for it.
    // SAFETY: nothing of ours has so high a number.
    let here = unsafe { libc::dup2(socket.as_raw_fd(), fd) };
    if here < 0 {
        return None;
    }
    // SAFETY: the call reads the event.
    let done =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, here, &raw mut seen) };
    // SAFETY: made above, and nobody else's.
    unsafe { libc::close(here) };
    (done == 0).then_some(())
}
