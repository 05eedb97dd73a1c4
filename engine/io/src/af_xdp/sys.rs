//! System calls that std has not.

use core::mem::MaybeUninit;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The address of something, as the kernel wants it in numbers. Exposed: the kernel reads what is there,
/// so the compiler must not think that nobody does.
pub(super) fn address<T>(of: *const T) -> u64 {
    // Lossless: rvs runs on 64 bits.
    u64::try_from(of.cast::<u8>().expose_provenance()).unwrap_or_default()
}

/// bpf(2).
///
/// # Safety
///
/// `attributes` has the shape that `command` wants, whose addresses lead to what that wants there.
pub(super) unsafe fn bpf<T>(command: u32, attributes: &T) -> io::Result<i64> {
    // SAFETY: the kernel reads `size` octets there, which are live; the rest the caller promises.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// A descriptor that a call just returned.
pub(super) fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just opened it for us, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// socket(2), close-on-exec.
pub(super) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes numbers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { owned(fd.into()) }
}

/// Values that the kernel reads and writes octet by octet: any octets are one of them.
///
/// # Safety
///
/// `T` is made of whole numbers only, without padding, and no octets of it are an address.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: whole numbers.
unsafe impl Plain for u32 {}
// SAFETY: whole numbers. Sizes add up: 4, 4 and 8 times 8; 24 times 8; 6 times 8; one.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: as above: 4, 2, 2 and 8 octets.
unsafe impl Plain for libc::packet_mreq {}

/// setsockopt(2).
pub(super) fn set<T: Plain>(
    socket: &impl AsFd,
    level: i32,
    name: i32,
    value: &T,
) -> io::Result<()> {
    // SAFETY: a `Plain` value has no addresses.
    unsafe { set_any(socket, level, name, value) }
}

/// setsockopt(2).
///
/// # Safety
///
/// `value` has the shape of the option, whose addresses lead to what that wants there, as long as
/// it wants it.
pub(super) unsafe fn set_any<T>(
    socket: &impl AsFd,
    level: i32,
    name: i32,
    value: &T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open and the value live and `len` octets long; the rest the caller
    //   promises.
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// getsockopt(2); what the kernel does not know is zero.
pub(super) fn get<T: Plain>(socket: &impl AsFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, the place live, ours, and `len` octets long.
    let done =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every octet was set to zero at least, and any octets are a `Plain` value.
    Ok(unsafe { value.assume_init() })
}

/// bind(2).
///
/// # Safety
///
/// `A` is the shape of an address of the socket's family.
pub(super) unsafe fn bind<A>(socket: &impl AsFd, address: &A) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<A>()).unwrap_or_default();
    // SAFETY: the descriptor is open, and the address live and `len` octets long.
    let done = unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const *address).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A call without octets, by which the kernel goes on with a socket's rings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// It shall send.
    Send,
    /// It shall receive.
    Receive,
}

/// send(2) or recv(2) of nothing. libc's would make points of cancellation of them, at 70 ns each.
pub(super) fn call(socket: &impl AsFd, what: Call) -> io::Result<()> {
    match what {
        Call::Send => send(socket, &[], SendFlags::DONTWAIT)?,
        Call::Receive => recv(socket, &mut [0_u8; 0], RecvFlags::DONTWAIT)?.0,
    };
    Ok(())
}

/// `if_nametoindex(3)`.
pub(super) fn index(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the name is live and ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}
