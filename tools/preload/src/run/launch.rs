//! `rvs-run --seccomp`: a program that is linked statically, with somebody beside it who answers some
//! of its system calls.
//!
//! ```text
//!  rvs-run ─fork─► supervisor: answers until no program is left
//!     │ filter: socket(NETLINK_GENERIC), what is done with such sockets, open, exec
//!     └ exec PROGRAM, whose process this stays
//! ```
//!
//! A filter cannot see what a descriptor is, so sockets of generic netlink get high numbers, and only
//! calls on those wait. All others go on at full speed, but for open(2) and execve(2), whose paths a
//! filter cannot see.

use super::notify::{Notifier, install};
use super::supervise::Supervisor;
use libc::{c_int, c_long, sock_filter};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource};
use std::fs::File;
use std::io::{Read as _, Write as _};

/// Numbers for sockets of generic netlink.
pub(crate) const NUMBERS: u32 = 64;
/// The first of them, if programs may have so many descriptors.
const FIRST: u32 = 600;

/// `AUDIT_ARCH_*`: the machine whose numbers of system calls are meant.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// IPVS's own socket options (Linux `include/uapi/linux/ip_vs.h` `IP_VS_BASE_CTL`).
const OPTIONS: core::ops::RangeInclusive<u32> = 1152..=1167;

/// Makes this process one whose calls are answered. What it executes next is, too.
///
/// # Errors
///
/// What could not be done, and why.
pub(crate) fn prepare() -> Result<(), String> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: Errno| format!("{what}: {error}")
    };
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let first = u32::try_from(limit.min(1 << 20)).unwrap_or_default().saturating_sub(NUMBERS);
    if first < NUMBERS {
        return Err(format!("a program may have {limit} descriptors, expected at least 128"));
    }
    let first = first.min(FIRST);
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (asks, asked) = pipe().map_err(told("pipe"))?;
    let (answered, answers) = pipe().map_err(told("pipe"))?;
    let program = rustix::process::getpid();
    // SAFETY: there is one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => {
            drop((asked, answered));
            supervise(program, first, File::from(asks), File::from(answers));
        }
        child if child > 0 => {
            let mut status = 0;
            // SAFETY: the status is ours. The child of this child is nobody's, so that the program
            //   finds no child that it does not know.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
        }
        _ => return Err("fork failed".to_owned()),
    }
    drop((asks, answers));
    let listener = install(&filter(first)).map_err(told("seccomp"))?;
    let told_it = File::from(asked).write_all(&listener.to_ne_bytes());
    let mut ready = [0];
    let is_ready = told_it.and_then(|()| File::from(answered).read_exact(&mut ready));
    is_ready.map_err(|_| "the supervisor ended at once: may it trace processes?".to_owned())
}

/// The supervisor's life, in a child of a child.
fn supervise(program: Pid, first: u32, mut asks: File, mut answers: File) -> ! {
    // SAFETY: as in `prepare`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Not of the terminal's: what ends the program with a key must not end this one first.
        let _own_session = rustix::process::setsid();
        let mut number = [0; size_of::<RawFd>()];
        let listener = asks.read_exact(&mut number).ok().and_then(|()| {
            let process = rustix::process::pidfd_open(program, PidfdFlags::empty()).ok()?;
            let listener = RawFd::from_ne_bytes(number);
            rustix::process::pidfd_getfd(process, listener, PidfdGetfdFlags::empty()).ok()
        });
        if let Some(listener) = listener
            && leave_streams().is_ok()
            && answers.write_all(&[1]).is_ok()
        {
            drop((asks, answers));
            Supervisor::new(Notifier(listener), first).run();
        }
    }
    // SAFETY: nothing is to be done at the end of this process; its parent's is not its business.
    unsafe { libc::_exit(0) }
}

/// Whoever reads the program's output must see its end.
fn leave_streams() -> Result<(), Errno> {
    let nothing: OwnedFd =
        File::options().read(true).write(true).open("/dev/null").map_err(|_| Errno::NOENT)?.into();
    for stream in 0..=2 {
        // SAFETY: replaces a standard stream, which nobody here uses.
        if unsafe { libc::dup2(nothing.as_raw_fd(), stream) } < 0 {
            return Err(Errno::BADF);
        }
    }
    Ok(())
}

/// Where in `seccomp_data` something is.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const fn argument(at: u32) -> u32 {
    16 + 8 * at
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn end(action: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, action)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k }
}

/// Skips so many statements if the comparison holds, and otherwise so many.
fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = libc::BPF_JMP | libc::BPF_K | code;
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The filter: a block for each kind of call, which ends or falls through.
fn filter(first: u32) -> Vec<sock_filter> {
    let (allow, ask) = (end(libc::SECCOMP_RET_ALLOW), end(libc::SECCOMP_RET_USER_NOTIF));
    let refuse = end(libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT.unsigned_abs());
    let unsigned = |it: c_int| it.unsigned_abs();
    let mut filter = vec![load(MACHINE), jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0), allow];
    filter.push(load(NUMBER));
    let always = [
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_execve,
    ];
    for call in always {
        filter.extend([jump(libc::BPF_JEQ, number(call), 0, 1), ask]);
    }
    // socket(AF_NETLINK, any, NETLINK_GENERIC)
    filter.extend([
        jump(libc::BPF_JEQ, number(libc::SYS_socket), 0, 6),
        load(argument(0)),
        jump(libc::BPF_JEQ, unsigned(libc::AF_NETLINK), 0, 3),
        load(argument(2)),
        jump(libc::BPF_JEQ, unsigned(libc::NETLINK_GENERIC), 0, 1),
        ask,
        allow,
    ]);
    // A kernel's IPVS is not reached by its old socket options either.
    for call in [libc::SYS_getsockopt, libc::SYS_setsockopt] {
        filter.extend([
            jump(libc::BPF_JEQ, number(call), 0, 6),
            load(argument(1)),
            jump(libc::BPF_JEQ, unsigned(libc::IPPROTO_IP), 0, 4),
            load(argument(2)),
            jump(libc::BPF_JGE, *OPTIONS.start(), 0, 2),
            jump(libc::BPF_JGT, *OPTIONS.end(), 1, 0),
            refuse,
            load(NUMBER),
        ]);
    }
    // Which argument is the socket.
    let of_sockets = [
        (libc::SYS_sendto, 0),
        (libc::SYS_sendmsg, 0),
        (libc::SYS_recvfrom, 0),
        (libc::SYS_recvmsg, 0),
        (libc::SYS_bind, 0),
        (libc::SYS_getsockname, 0),
        (libc::SYS_getpeername, 0),
        (libc::SYS_setsockopt, 0),
        (libc::SYS_epoll_ctl, 2),
    ];
    for (call, at) in of_sockets {
        filter.extend([
            jump(libc::BPF_JEQ, number(call), 0, 5),
            load(argument(at)),
            jump(libc::BPF_JGE, first, 0, 2),
            jump(libc::BPF_JGE, first + NUMBERS, 1, 0),
            ask,
            allow,
        ]);
    }
    filter.push(allow);
    filter
}
