//! The kernel's files about IPVS, asked of rvsd.
//!
//! The messages are those of `engine/netlink/src/files.rs`.

use crate::wire::connect;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{MemfdFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_cookie};
use rustix::net::{RecvFlags, SendFlags};

const FILES_ID: u16 = 0x4957;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NAME: u16 = 1;

/// How long rvsd may take; it is on this machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than a datagram of rvsd has.
const DATAGRAM_OCTETS: usize = 64 << 10;

/// The longest path below `/proc` that is looked at.
const PATH_OCTETS: usize = 128;
/// The folder in which rvsd's sysctls are.
pub(crate) const SYSCTLS: &[u8] = b"sys/net/ipv4/vs";

/// Files of the kernel's that rvsd's look like.
const LIKE_FILE: &CStr = c"/proc/version";
const LIKE_SYSCTL: &CStr = c"/proc/sys/kernel/hostname";

/// Whether a file of rvsd's was read: a look at this before each fstat(2).
static IS_READ: AtomicBool = AtomicBool::new(false);

/// What can be asked.
#[derive(Clone, Copy)]
enum Ask {
    Look,
    Read,
    Write,
    List,
}

impl Ask {
    fn number(self) -> u8 {
        match self {
            Self::Look => 1,
            Self::Read => 2,
            Self::Write => 3,
            Self::List => 4,
        }
    }
}

/// A path below `/proc`, without what means nothing in it.
#[derive(Clone, Copy)]
struct Below {
    octets: [u8; PATH_OCTETS],
    len: usize,
}

impl Below {
    fn of(path: &[u8]) -> Option<Self> {
        let mut below = Self { octets: [0; PATH_OCTETS], len: 0 };
        let is_root = path.first() == Some(&b'/');
        let parts = path.split(|octet| *octet == b'/');
        let mut parts = parts.filter(|part| !part.is_empty() && *part != b".");
        if !is_root || parts.next() != Some(b"proc") {
            return None;
        }
        for part in parts {
            if part == b".." {
                // The kernel's net is within a process's folder, which means nothing here.
                let whole = below.as_slice();
                let last = whole.iter().rposition(|octet| *octet == b'/');
                below.len = last.or((below.len > 0).then_some(0))?;
                continue;
            }
            if below.len == 0 && (is_process(part) || part == b"task") {
                continue;
            }
            if below.len > 0 {
                below.push(b"/")?;
            }
            below.push(part)?;
        }
        Some(below)
    }

    fn push(&mut self, part: &[u8]) -> Option<()> {
        self.octets.get_mut(self.len..self.len + part.len())?.copy_from_slice(part);
        self.len += part.len();
        Some(())
    }

    fn as_slice(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// Whether a folder of `/proc` is a process's: what they see of networks is the same with rvsd.
fn is_process(part: &[u8]) -> bool {
    matches!(part, b"self" | b"thread-self") || part.iter().all(u8::is_ascii_digit)
}

/// A file that rvsd answers for, or the folder of its sysctls.
#[derive(Clone, Copy)]
pub(crate) struct File(Below);

impl File {
    /// The file that a path from the root names.
    pub(crate) fn of(path: &[u8]) -> Option<Self> {
        let below = Below::of(path)?;
        let path = below.as_slice();
        let is_ours = path.starts_with(b"net/ip_vs")
            || path
                .strip_prefix(SYSCTLS)
                .is_some_and(|rest| rest.first().is_none_or(|it| *it == b'/'));
        is_ours.then_some(Self(below))
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.0.as_slice() == SYSCTLS
    }

    /// Another file of `/proc` with the same type and permissions, for those who only look.
    pub(crate) fn like(self) -> &'static CStr {
        if self.is_folder() {
            Folder::LIKE
        } else if self.is_sysctl() {
            LIKE_SYSCTL
        } else {
            LIKE_FILE
        }
    }

    fn is_sysctl(&self) -> bool {
        self.0.as_slice().starts_with(SYSCTLS)
    }

    /// What a descriptor that [`Self::read`] made is like.
    pub(crate) fn like_of(fd: RawFd) -> Option<&'static CStr> {
        if !IS_READ.load(Ordering::Relaxed) {
            return None;
        }
        let link = rustix::fs::readlink(format!("/proc/self/fd/{fd}"), Vec::new()).ok()?;
        match link.to_bytes() {
            b"/memfd:rvs-file (deleted)" => Some(LIKE_FILE),
            b"/memfd:rvs-sysctl (deleted)" => Some(LIKE_SYSCTL),
            _ => None,
        }
    }

    /// Whether there is such a file.
    pub(crate) fn look(self) -> Result<(), Errno> {
        ask(self.0, Ask::Look, |_| Ok(())).map(drop)
    }

    /// What is in it, as a file without a name.
    pub(crate) fn read(self) -> Result<OwnedFd, Errno> {
        if self.is_folder() {
            return self.look().and(Err(Errno::ISDIR));
        }
        let name = if self.is_sysctl() { c"rvs-sysctl" } else { c"rvs-file" };
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        IS_READ.store(true, Ordering::Relaxed);
        ask(self.0, Ask::Read, |mut piece| {
            while let Some(rest) = piece.get(rustix::io::write(&file, piece)?..)
                && !rest.is_empty()
            {
                piece = rest;
            }
            Ok(())
        })?;
        rustix::fs::seek(&file, SeekFrom::Start(0))?;
        Ok(file)
    }

    /// Something to write to: rvsd takes what arrives there for a new content of the file.
    pub(crate) fn write(self) -> Result<OwnedFd, Errno> {
        if self.is_folder() {
            return self.look().and(Err(Errno::ISDIR));
        }
        let socket = ask(self.0, Ask::Write, |_| Ok(()))?;
        let cookie = socket_cookie(&socket)?;
        let place = WRITTEN.iter().find(|place| {
            let free = place.compare_exchange(0, cookie, Ordering::Relaxed, Ordering::Relaxed);
            free.is_ok()
        });
        if place.is_none() {
            // All are of descriptors that are closed, most likely; this one goes on without.
            for place in &WRITTEN {
                place.store(0, Ordering::Relaxed);
            }
        }
        Ok(socket)
    }
}

/// A folder in which rvsd has names.
#[derive(Clone, Copy)]
pub(crate) struct Folder(Below);

impl Folder {
    /// A folder of the kernel's with the same type and permissions as that of the sysctls, beside it: one
    /// that it is in would look like a loop to who walks through all.
    pub(crate) const LIKE: &'static CStr = c"/proc/sys/net/ipv4/neigh";

    /// The folder that a path names.
    pub(crate) fn of(path: &[u8]) -> Option<Self> {
        let below = Below::of(path)?;
        let is_ours = matches!(below.as_slice(), b"net" | b"sys/net/ipv4" | SYSCTLS);
        is_ours.then_some(Self(below))
    }

    /// Whether all that is in it is rvsd's.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.as_slice() == SYSCTLS
    }

    /// rvsd's names in it, a line each.
    pub(crate) fn names(self) -> Result<Vec<u8>, Errno> {
        let mut names = Vec::new();
        ask(self.0, Ask::List, |piece| {
            names.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(names)
    }
}

/// Asks about a path, and shows `take` what comes before the end.
fn ask(
    path: Below,
    ask: Ask,
    mut take: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    let socket = connect().map_err(|_| Errno::NOENT)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    rustix::net::send(&socket, &request(path, ask), SendFlags::NOSIGNAL)?;
    let mut datagram = vec![0; DATAGRAM_OCTETS];
    loop {
        let (len, _) = rustix::net::recv(&socket, datagram.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = datagram.get(..len).filter(|it| !it.is_empty()).ok_or(Errno::IO)?;
        while let Some((kind, payload, next)) = message(rest) {
            match kind {
                FILES_ID => take(payload)?,
                NLMSG_DONE => return Ok(socket),
                NLMSG_ERROR => return verdict(payload).map(|()| socket),
                _ => {}
            }
            rest = next;
        }
    }
}

fn request(path: Below, ask: Ask) -> Vec<u8> {
    let value = [path.as_slice(), b"\0"].concat();
    let attribute_len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut message = vec![0; 4];
    for half in [FILES_ID, NLM_F_REQUEST | NLM_F_ACK] {
        message.extend_from_slice(&half.to_ne_bytes());
    }
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[ask.number(), 0, 0, 0]);
    message.extend_from_slice(&attribute_len.to_ne_bytes());
    message.extend_from_slice(&NAME.to_ne_bytes());
    message.extend_from_slice(&value);
    message.resize(message.len().next_multiple_of(4), 0);
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message.splice(..4, len.to_ne_bytes());
    message
}

/// The next message: its kind, its payload, and what follows it.
fn message(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let ([a, b, c, d, e, f, ..], _) = octets.split_first_chunk::<16>()?;
    let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).ok()?;
    let payload = octets.get(16..len)?;
    let rest = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([*e, *f]), payload, rest))
}

fn verdict(payload: &[u8]) -> Result<(), Errno> {
    match payload.first_chunk().map(|octets| i32::from_ne_bytes(*octets)) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(-errno)),
        None => Err(Errno::IO),
    }
}

/// The cookies of what [`File::write`] handed out: few programs write sysctls, and few of them.
static WRITTEN: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// Whether anything was handed out to be written to; a look at this before each write(2).
pub(crate) fn anything_written() -> bool {
    WRITTEN.iter().any(|place| place.load(Ordering::Relaxed) != 0)
}

/// Writes to a descriptor that [`File::write`] made, and waits for what rvsd says; `None` for any
/// other.
pub(crate) fn write(fd: BorrowedFd, content: &[u8]) -> Option<Result<(), Errno>> {
    let cookie = socket_cookie(fd).ok()?;
    WRITTEN.iter().find(|place| place.load(Ordering::Relaxed) == cookie)?;
    Some(exchange(fd, content))
}

fn exchange(fd: BorrowedFd, content: &[u8]) -> Result<(), Errno> {
    rustix::net::send(fd.as_fd(), content, SendFlags::NOSIGNAL)?;
    let mut datagram = [0; 256];
    let (len, _) = rustix::net::recv(fd, datagram.as_mut_slice(), RecvFlags::empty())?;
    let (_, payload, _) = message(datagram.get(..len).unwrap_or_default()).ok_or(Errno::IO)?;
    verdict(payload)
}
