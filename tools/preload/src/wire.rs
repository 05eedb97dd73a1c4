//! What is said on the program's netlink sockets, as far as it must be understood here, and the way to
//! rvsd.

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use std::ffi::OsString;

/// Names another socket than [`DEFAULT_SOCKET`].
const SOCKET_VARIABLE: &str = "RVS_NETLINK";
/// Where rvsd listens for netlink clients.
const DEFAULT_SOCKET: &str = "/run/rvs/rvsd.netlink";

/// `nlmsghdr` and `genlmsghdr`.
const NETLINK_HEADER: usize = 16;
const GENL_HEADER: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_NAME`, 9 octets long, "IPVS".
const ASKS_FOR_IPVS: &[u8] = b"\x02\x00IPVS\0";
/// The number that rvsd gives the family; the kernel's are smaller.
pub(crate) const FAMILY_ID: u16 = 0x4956;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_ACK: u16 = 4;
/// An `nlmsghdr`, a number, and the `nlmsghdr` that it is about.
const ERROR_OCTETS: u32 = 36;

/// What a message says of the socket that it is sent on.
pub(crate) fn is_for_ipvs(message: &[u8]) -> bool {
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

/// The port id of a socket of generic netlink, zero if it has none yet; nothing of any other descriptor.
pub(crate) fn generic_netlink(fd: BorrowedFd) -> Option<u32> {
    let address = SocketAddrNetlink::try_from(rustix::net::getsockname(fd).ok()?).ok()?;
    let is_generic = sockopt::socket_protocol(fd) == Ok(Some(netlink::GENERIC));
    is_generic.then_some(address.pid())
}

/// Where rvsd is expected.
pub(crate) fn place() -> OsString {
    std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// A new connection to rvsd, closed by exec.
pub(crate) fn connect() -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(place())?;
    let cloexec = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, cloexec, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// The same, with the port id that the kernel gives it now if it has none.
pub(crate) fn bound_generic_netlink(fd: BorrowedFd) -> Option<u32> {
    match generic_netlink(fd)? {
        0 => {
            let _it_stays_without = rustix::net::bind(fd, &SocketAddrNetlink::new(0, 0));
            generic_netlink(fd)
        }
        port => Some(port),
    }
}

/// Writes the socket's port id into all messages, as the kernel answers to the socket and not to
/// what a message says. The last one's sequence number.
pub(crate) fn address(port: u32, mut rest: &mut [u8]) -> u32 {
    let port = port.to_ne_bytes();
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

/// Kinds and flags of the messages of a datagram.
fn headers(mut rest: &[u8]) -> impl Iterator<Item = (u16, u16)> {
    core::iter::from_fn(move || {
        let ([a, b, c, d, e, f, g, h, ..], _) = rest.split_first_chunk::<NETLINK_HEADER>()?;
        let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).ok()?;
        rest.get(NETLINK_HEADER..len)?;
        rest = rest.get(len.saturating_add(3) & !3..).unwrap_or_default();
        Some((u16::from_ne_bytes([*e, *f]), u16::from_ne_bytes([*g, *h])))
    })
}

/// How many acknowledgements, errors and ends of dumps the answers to these messages have; nothing if
/// one of them need not have any.
pub(crate) fn ends_expected(messages: &[u8]) -> Option<u32> {
    let mut headers = headers(messages).peekable();
    headers.peek()?;
    headers.try_fold(0, |sum, (_, flags)| (flags & NLM_F_ACK != 0).then_some(sum + 1))
}

/// How many of them are in a datagram.
pub(crate) fn ends(datagram: &[u8]) -> u32 {
    let is_end = |(kind, _): &(u16, u16)| matches!(*kind, NLMSG_ERROR | NLMSG_DONE);
    u32::try_from(headers(datagram).filter(is_end).count()).unwrap_or(u32::MAX)
}

/// Whether a message asks for a family, rather than for anything of one.
pub(crate) fn is_question(message: &[u8]) -> bool {
    message.get(4..6) == Some(&GENL_ID_CTRL.to_ne_bytes())
}

/// The error that is the answer while there is no rvsd: "there is no such family" is what a kernel
/// without IPVS says.
pub(crate) fn absence(message: &[u8]) -> Errno {
    if is_question(message) { Errno::NOENT } else { Errno::NODEV }
}

/// An error message to whoever has the port id `port`, about the message `seq`.
pub(crate) fn error(port: u32, seq: u32, errno: Errno) -> [u8; 36] {
    let mut message = [0; 36];
    let header = |len: u32, kind: u16| {
        let ([a, b], [c, d]) = (kind.to_ne_bytes(), [0; 2]);
        [len.to_ne_bytes(), [a, b, c, d], seq.to_ne_bytes(), port.to_ne_bytes()]
    };
    let number = (-errno.raw_os_error()).to_ne_bytes();
    let words =
        header(ERROR_OCTETS, NLMSG_ERROR).into_iter().chain([number]).chain(header(16, FAMILY_ID));
    for (place, word) in message.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word);
    }
    message
}
