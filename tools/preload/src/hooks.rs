//! The C library's functions of sockets, replaced.
//!
//! Each has the safety of the function whose name it has: pointers that are good for the lengths that
//! come with them. A descriptor that is no connection to rvsd goes to the C library as it came.

use crate::awake;
use crate::next::{errno, next, next_if_any, set_errno};
use crate::swap::{self, Ours, ours, ours_for};
use crate::wire::FAMILY_ID;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr;
use libc::{msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t};

/// `SOL_NETLINK`
const SOL_NETLINK: c_int = 270;
/// `NLE_OBJ_NOTFOUND` of libnl's `netlink/errno.h`
const NO_SUCH_FAMILY: c_int = -12;
/// `IP_VS_BASE_CTL` and what follows it: the oldest of the kernel's interfaces to IPVS.
const IP_VS_SOCKOPTS: core::ops::RangeInclusive<c_int> = 1152..=1167;

/// A `sockaddr_nl` of port `port`.
fn netlink_address(port: u32) -> sockaddr_nl {
    // SAFETY: a structure of integers.
    let mut address: sockaddr_nl = unsafe { core::mem::zeroed() };
    address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or_default();
    address.nl_pid = port;
    address
}

/// Writes an address where a caller wants it, as far as there is room.
///
/// # Safety
///
/// `len` is good, and `to` is good for as many octets as `len` says; or either is null.
unsafe fn tell_address(port: u32, to: *mut sockaddr, len: *mut socklen_t) {
    if to.is_null() || len.is_null() {
        return;
    }
    let address = netlink_address(port);
    let size = size_of::<sockaddr_nl>();
    // SAFETY: the caller's word for `len`.
    let room = usize::try_from(unsafe { *len }).unwrap_or_default();
    // SAFETY: within `address`, and within the room that the caller has at `to`.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(&address).cast::<u8>(), to.cast(), room.min(size));
    };
    // SAFETY: the caller's word for `len`.
    unsafe { *len = socklen_t::try_from(size).unwrap_or_default() };
}

/// The octets of a buffer.
///
/// # Safety
///
/// `buffer` is good for `len` octets while the slice is used, or null.
unsafe fn octets<'a>(buffer: *const c_void, len: size_t) -> &'a [u8] {
    if buffer.is_null() {
        return &[];
    }
    // SAFETY: the caller's word.
    unsafe { core::slice::from_raw_parts(buffer.cast(), len) }
}

/// The buffers of a message.
///
/// # Safety
///
/// `message` is good, and so are its buffers.
unsafe fn buffers<'a>(message: *const msghdr) -> &'a [libc::iovec] {
    // SAFETY: the caller's word.
    let message = unsafe { &*message };
    if message.msg_iov.is_null() {
        return &[];
    }
    // SAFETY: the caller's word.
    unsafe { core::slice::from_raw_parts(message.msg_iov, message.msg_iovlen) }
}

/// So much of a message in several buffers is looked at: a question for a family is shorter.
const BEGINNING: usize = 512;

/// Sends a message to rvsd, if it is for rvsd: as many octets as it has, or -1 and an errno.
///
/// # Safety
///
/// The buffers are good.
pub(crate) unsafe fn said(fd: c_int, buffers: &[libc::iovec]) -> Option<ssize_t> {
    // SAFETY: the caller's word.
    let octets_of = |it: &libc::iovec| unsafe { octets(it.iov_base, it.iov_len) };
    let ours = match buffers {
        [] => return None,
        [whole] => ours_for(fd, octets_of(whole)),
        several => {
            let (mut beginning, mut len) = ([0; BEGINNING], 0);
            let octets = several.iter().flat_map(octets_of);
            for (place, octet) in beginning.iter_mut().zip(octets) {
                *place = *octet;
                len += 1;
            }
            ours_for(fd, beginning.get(..len).unwrap_or_default())
        }
    };
    match ours {
        Ok(None) => None,
        Ok(Some(ours)) => {
            let mut whole = Vec::new();
            for buffer in buffers {
                whole.extend_from_slice(octets_of(buffer));
            }
            ours.send(&mut whole);
            Some(ssize_t::try_from(whole.len()).unwrap_or(ssize_t::MAX))
        }
        Err(error) => {
            set_errno(error.raw_os_error());
            Some(-1)
        }
    }
}

/// sendmsg(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    if !message.is_null() {
        // SAFETY: the caller's message.
        let buffers = unsafe { buffers(message) };
        // SAFETY: the caller's buffers.
        if let Some(sent) = unsafe { said(fd, buffers) } {
            return sent;
        }
    }
    let next = next!(c"sendmsg", unsafe extern "C" fn(c_int, *const msghdr, c_int) -> ssize_t);
    // SAFETY: as it came.
    unsafe { next(fd, message, flags) }
}

type SendTo = unsafe extern "C" fn(
    c_int,
    *const c_void,
    size_t,
    c_int,
    *const sockaddr,
    socklen_t,
) -> ssize_t;

/// sendto(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    let whole = [libc::iovec { iov_base: buffer.cast_mut(), iov_len: len }];
    // SAFETY: the caller's buffer.
    if let Some(sent) = unsafe { said(fd, &whole) } {
        return sent;
    }
    let next = next!(c"sendto", SendTo);
    // SAFETY: as it came.
    unsafe { next(fd, buffer, len, flags, to, to_len) }
}

/// send(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as it came; no address.
    unsafe { sendto(fd, buffer, len, flags, ptr::null(), 0) }
}

/// writev(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, buffers: *const libc::iovec, count: c_int) -> ssize_t {
    if let Some(count) = usize::try_from(count).ok().filter(|_| !buffers.is_null()) {
        // SAFETY: the caller's buffers.
        let buffers = unsafe { core::slice::from_raw_parts(buffers, count) };
        // SAFETY: the caller's buffers.
        if let Some(sent) = unsafe { said(fd, buffers) } {
            return sent;
        }
    }
    let next = next!(c"writev", unsafe extern "C" fn(c_int, *const libc::iovec, c_int) -> ssize_t);
    // SAFETY: as it came.
    unsafe { next(fd, buffers, count) }
}

type SendMMsg = unsafe extern "C" fn(c_int, *mut libc::mmsghdr, c_uint, c_int) -> c_int;

/// sendmmsg(2): what rvsd gets goes one by one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut libc::mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    if count > 0 && !messages.is_null() {
        // SAFETY: the caller's messages, of which there is one.
        let first = unsafe { &mut *messages };
        // SAFETY: the caller's message.
        let buffers = unsafe { buffers(&raw const first.msg_hdr) };
        // SAFETY: the caller's buffers.
        if let Some(sent) = unsafe { said(fd, buffers) } {
            let Ok(len) = c_uint::try_from(sent) else { return -1 };
            first.msg_len = len;
            return 1;
        }
    }
    let next = next!(c"sendmmsg", SendMMsg);
    // SAFETY: as it came.
    unsafe { next(fd, messages, count, flags) }
}

/// Receives with `receive`, which is given flags; if rvsd has gone, what is received is an error message
/// instead.
fn receive(ours: &Ours, flags: c_int, receive: impl Fn(c_int) -> ssize_t) -> ssize_t {
    let received = if flags & libc::MSG_DONTWAIT == 0 {
        let look = || {
            let received = receive(flags | libc::MSG_DONTWAIT);
            (received >= 0 || errno() != libc::EAGAIN).then_some(received)
        };
        awake::look(look).unwrap_or_else(|| receive(flags))
    } else {
        receive(flags)
    };
    let is_gone = received == 0
        || received < 0 && matches!(errno(), libc::ECONNRESET | libc::ENOTCONN | libc::EPIPE);
    if !is_gone {
        return received;
    }
    ours.lost();
    receive(flags)
}

type RecvMsg = unsafe extern "C" fn(c_int, *mut msghdr, c_int) -> ssize_t;

/// recvmsg(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let next = next!(c"recvmsg", RecvMsg);
    let Some(ours) = ours(fd).filter(|_| !message.is_null()) else {
        // SAFETY: as it came.
        return unsafe { next(fd, message, flags) };
    };
    // SAFETY: the caller's message, and nobody else's during this call.
    let message = unsafe { &mut *message };
    let (name, mut room) = (message.msg_name, message.msg_namelen);
    message.msg_name = ptr::null_mut();
    message.msg_namelen = 0;
    let at: *mut msghdr = message;
    let received = receive(&ours, flags, |flags| {
        // SAFETY: as it came but for the address.
        unsafe { next(fd, at, flags) }
    });
    if let Ok(len @ 1..) = usize::try_from(received)
        && flags & libc::MSG_PEEK == 0
    {
        // SAFETY: as it came; its buffers are filled.
        let datagram = match unsafe { buffers(at) } {
            // SAFETY: the caller's buffer.
            [whole] => Some(unsafe { octets(whole.iov_base, len.min(whole.iov_len)) }),
            _ => None,
        };
        ours.was_read(datagram);
    }
    message.msg_name = name;
    if !name.is_null() {
        // SAFETY: the caller's room for an address.
        unsafe { tell_address(0, name.cast(), &raw mut room) };
        message.msg_namelen = room;
    }
    received
}

type RecvFrom = unsafe extern "C" fn(
    c_int,
    *mut c_void,
    size_t,
    c_int,
    *mut sockaddr,
    *mut socklen_t,
) -> ssize_t;

/// recvfrom(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    let next = next!(c"recvfrom", RecvFrom);
    let Some(ours) = ours(fd) else {
        // SAFETY: as it came.
        return unsafe { next(fd, buffer, len, flags, from, from_len) };
    };
    let received = receive(&ours, flags, |flags| {
        // SAFETY: as it came but for the address.
        unsafe { next(fd, buffer, len, flags, ptr::null_mut(), ptr::null_mut()) }
    });
    if let Ok(got @ 1..) = usize::try_from(received)
        && flags & libc::MSG_PEEK == 0
    {
        // SAFETY: the caller's buffer.
        ours.was_read(Some(unsafe { octets(buffer, got.min(len)) }));
    }
    // SAFETY: the caller's room for an address.
    unsafe { tell_address(0, from, from_len) };
    received
}

/// recvfrom(2) of programs that are compiled with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    if len > room {
        std::process::abort();
    }
    // SAFETY: as it came.
    unsafe { recvfrom(fd, buffer, len, flags, from, from_len) }
}

/// recv(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as it came; no address.
    unsafe { recvfrom(fd, buffer, len, flags, ptr::null_mut(), ptr::null_mut()) }
}

/// recv(2) of programs that are compiled with `_FORTIFY_SOURCE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if len > room {
        std::process::abort();
    }
    // SAFETY: as it came.
    unsafe { recv(fd, buffer, len, flags) }
}

type GetName = unsafe extern "C" fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int;

/// getsockname(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: c_int, to: *mut sockaddr, len: *mut socklen_t) -> c_int {
    if let Some(ours) = ours(fd) {
        // SAFETY: the caller's room for an address.
        unsafe { tell_address(ours.port(), to, len) };
        return 0;
    }
    let next = next!(c"getsockname", GetName);
    // SAFETY: as it came.
    unsafe { next(fd, to, len) }
}

/// getpeername(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: c_int, to: *mut sockaddr, len: *mut socklen_t) -> c_int {
    if ours(fd).is_some() {
        // SAFETY: the caller's room for an address.
        unsafe { tell_address(0, to, len) };
        return 0;
    }
    let next = next!(c"getpeername", GetName);
    // SAFETY: as it came.
    unsafe { next(fd, to, len) }
}

fn refuse_kernel_ipvs(level: c_int, name: c_int) -> bool {
    let is_ipvs = level == libc::IPPROTO_IP && IP_VS_SOCKOPTS.contains(&name);
    if is_ipvs {
        set_errno(libc::ENOPROTOOPT);
    }
    is_ipvs
}

type SetSockOpt = unsafe extern "C" fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;

/// setsockopt(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if refuse_kernel_ipvs(level, name) {
        return -1;
    }
    if let Some(ours) = ours(fd) {
        if level == SOL_NETLINK {
            return 0;
        }
        ours.spend();
    }
    let next = next!(c"setsockopt", SetSockOpt);
    // SAFETY: as it came.
    unsafe { next(fd, level, name, value, len) }
}

type GetSockOpt = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;

/// getsockopt(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if refuse_kernel_ipvs(level, name) {
        return -1;
    }
    let told = match name {
        libc::SO_DOMAIN => Some(libc::AF_NETLINK),
        libc::SO_TYPE => Some(libc::SOCK_RAW),
        libc::SO_PROTOCOL => Some(libc::NETLINK_GENERIC),
        _ => None,
    };
    if let Some(told) = told.filter(|_| level == libc::SOL_SOCKET && ours(fd).is_some())
        && !value.is_null()
        && !len.is_null()
    {
        // SAFETY: the caller's length.
        if usize::try_from(unsafe { *len }).unwrap_or_default() >= size_of::<c_int>() {
            // SAFETY: the caller's room, which is long enough; its alignment is the caller's business.
            unsafe { value.cast::<c_int>().write_unaligned(told) };
            return 0;
        }
    }
    let next = next!(c"getsockopt", GetSockOpt);
    // SAFETY: as it came.
    unsafe { next(fd, level, name, value, len) }
}

type EpollCtl = unsafe extern "C" fn(c_int, c_int, c_int, *mut libc::epoll_event) -> c_int;

/// `epoll_ctl(2)`: what watches a netlink socket shall watch what comes in its place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    what: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    let next = next!(c"epoll_ctl", EpollCtl);
    // SAFETY: as it came.
    let done = unsafe { next(epoll, what, fd, event) };
    if done == 0 {
        let event = (what != libc::EPOLL_CTL_DEL && !event.is_null()).then(|| {
            // SAFETY: the caller's event, which the kernel has just read.
            let event = unsafe { event.read_unaligned() };
            (event.events, event.u64)
        });
        swap::watched(epoll, fd, event);
    }
    done
}

/// libnl's `genl_ctrl_resolve()`: ipvsadm asks for the number of "IPVS" before each of its commands.
/// The first answer holds as long as rvsd is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn genl_ctrl_resolve(socket: *mut c_void, family: *const c_char) -> c_int {
    let is_ipvs = !family.is_null() && {
        // SAFETY: the caller's text.
        unsafe { CStr::from_ptr(family) }.to_bytes() == b"IPVS"
    };
    if is_ipvs && swap::knows_family() {
        return FAMILY_ID.into();
    }
    let next = next_if_any!(
        c"genl_ctrl_resolve",
        unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int
    );
    // Who looks for the function finds it here, even if there is no libnl.
    let Some(next) = next else { return NO_SUCH_FAMILY };
    // SAFETY: as it came.
    unsafe { next(socket, family) }
}
