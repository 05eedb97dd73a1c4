//! What becomes of the calls that wait: the rules of the preloaded library (`swap.rs`,
//! `file_hooks.rs`), for programs that do not call the C library.
//!
//! What is known of a socket is kept by its cookie, so that close, dup, fork and threads need not be
//! watched. A call that would wait is waited for on a thread of its own.

use super::launch::NUMBERS;
use super::notify::{Call, End, Notifier, watch};
use crate::ask::File;
use crate::wire::{self, bound_generic_netlink, connect, generic_netlink, is_for_ipvs};
use core::time::Duration;
use libc::{c_int, c_long};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The longest message that a client sends or takes at once.
const MESSAGE_OCTETS: usize = 1 << 20;
/// Sockets that are known at a time; the one known longest is forgotten first.
const SOCKETS: usize = 4096;
/// How often one who waits looks whether the program still does.
const LOOK: Duration = Duration::from_millis(100);
/// `struct sockaddr_nl`
const ADDRESS_OCTETS: usize = 12;
/// Where things are in a 64-bit `struct msghdr`.
const MSG_NAMELEN: u64 = 8;
const MSG_IOV: u64 = 16;
const MSG_IOVLEN: u64 = 24;
const MSG_CONTROLLEN: u64 = 40;
const MSG_FLAGS: u64 = 48;
/// Buffers of one message.
const BUFFERS_MAX: u64 = 64;

/// A connection to rvsd in a program.
#[derive(Clone, Default)]
struct Known {
    port: u32,
    seq: u32,
    /// The other end of a connection to nobody, in which an error waits.
    mate: Option<Arc<OwnedFd>>,
}

/// What is known of sockets, by their cookies.
#[derive(Default)]
struct Sockets {
    known: HashMap<u64, Known>,
    order: VecDeque<u64>,
    /// Sockets that an epoll watches: its descriptor in the program, and its `struct epoll_event`.
    watched: HashMap<u64, (RawFd, Vec<u8>)>,
}

impl Sockets {
    fn put(&mut self, cookie: u64, known: Known) {
        if self.known.insert(cookie, known).is_none() {
            self.order.push_back(cookie);
        }
        while self.order.len() > SOCKETS {
            let oldest = self.order.pop_front();
            oldest.map(|cookie| self.known.remove(&cookie));
        }
    }
}

/// Answers calls.
pub(crate) struct Supervisor {
    notifier: Notifier,
    /// The first number for sockets of generic netlink.
    first: u32,
    sockets: Mutex<Sockets>,
}

/// A connection to rvsd that a call is about.
struct Ours {
    fd: RawFd,
    /// The same in this process.
    socket: OwnedFd,
    known: Known,
}

impl Supervisor {
    pub(crate) fn new(notifier: Notifier, first: u32) -> Arc<Self> {
        Arc::new(Self { notifier, first, sockets: Mutex::default() })
    }

    /// Answers until no program is left.
    pub(crate) fn run(self: &Arc<Self>) {
        while let Some(call) = self.notifier.next() {
            let end = self.answer(call);
            self.notifier.end(call, end);
        }
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(self: &Arc<Self>, call: Call) -> End {
        match call.number {
            libc::SYS_socket => self.socket(call),
            libc::SYS_openat => Self::open(call, 1),
            libc::SYS_execve => Self::execute(call),
            libc::SYS_sendto | libc::SYS_sendmsg => self.send(call),
            libc::SYS_recvfrom | libc::SYS_recvmsg => match self.ours(call) {
                Some(ours) => self.receive(call, ours),
                None => End::Goes,
            },
            libc::SYS_epoll_ctl => self.watch(call),
            libc::SYS_bind
            | libc::SYS_setsockopt
            | libc::SYS_getsockname
            | libc::SYS_getpeername => match self.ours(call) {
                Some(ours) => Self::of_socket(call, &ours),
                None => End::Goes,
            },
            other => Self::other(call, other),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn other(call: Call, number: c_long) -> End {
        if number == libc::SYS_open { Self::open(call, 0) } else { End::Goes }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn other(_: Call, _: c_long) -> End {
        End::Goes
    }

    /// A socket of generic netlink, as the program wants it but for its number.
    fn socket(&self, call: Call) -> End {
        let kind = call.int(1);
        let made = if kind & 0xf == libc::SOCK_RAW { SocketType::RAW } else { SocketType::DGRAM };
        let nonblock = kind & libc::SOCK_NONBLOCK != 0;
        let flags = if nonblock { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
        let family = AddressFamily::NETLINK;
        let flags = flags | SocketFlags::CLOEXEC;
        let file = rustix::net::socket_with(family, made, flags, Some(netlink::GENERIC));
        let number = call.process().and_then(|process| {
            let is_free = |number: &u32| {
                std::fs::symlink_metadata(format!("/proc/{process}/fd/{number}")).is_err()
            };
            (self.first..self.first + NUMBERS).find(is_free)
        });
        match (file, number.and_then(|number| RawFd::try_from(number).ok())) {
            (Ok(file), Some(number)) => {
                let cloexec = kind & libc::SOCK_CLOEXEC != 0;
                End::Opens { file, number: Some(number), cloexec }
            }
            (Err(error), _) => End::Fails(error),
            (_, None) => End::Fails(Errno::MFILE),
        }
    }

    /// open(2) and openat(2), whose path is the argument `at`.
    fn open(call: Call, at: usize) -> End {
        let (path, flags) = (call.text(call.argument(at)), call.int(at + 1));
        let Some(file) = File::of(&path) else { return End::Goes };
        let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
        match if reads { file.read() } else { file.write() } {
            Ok(file) => End::Opens { file, number: None, cloexec: flags & libc::O_CLOEXEC != 0 },
            Err(error) => End::Fails(error),
        }
    }

    /// A module of the kernel's IPVS is not loaded.
    fn execute(call: Call) -> End {
        let path = call.text(call.argument(0));
        if path.rsplit(|octet| *octet == b'/').next() != Some(b"modprobe") {
            return End::Goes;
        }
        let words = (0..16).map_while(|at| {
            let word = call.word(call.argument(1).wrapping_add(8 * at))?;
            (word != 0).then(|| call.text(word))
        });
        if words.into_iter().any(|word| word.starts_with(b"ip_vs")) {
            End::Fails(Errno::NOENT)
        } else {
            End::Goes
        }
    }

    /// The connection to rvsd that a call's first argument is.
    fn ours(&self, call: Call) -> Option<Ours> {
        let fd = call.int(0);
        let socket = call.file(fd)?;
        let cookie = sockopt::socket_cookie(&socket).ok()?;
        let known = self.sockets().known.get(&cookie)?.clone();
        Some(Ours { fd, socket, known })
    }

    /// `epoll_ctl(2)`: what watches a netlink socket shall watch what comes in its place.
    fn watch(&self, call: Call) -> End {
        let (epoll, fd) = (call.int(0), call.int(2));
        let cookie = call.file(fd).and_then(|socket| sockopt::socket_cookie(socket).ok());
        if let Some(cookie) = cookie {
            let watched = &mut self.sockets().watched;
            if call.int(1) == libc::EPOLL_CTL_DEL {
                watched.remove(&cookie);
            } else if watched.len() < SOCKETS {
                let event = call.read(call.argument(3), size_of::<libc::epoll_event>());
                watched.insert(cookie, (epoll, event));
            }
        }
        End::Goes
    }

    /// Has an epoll that watched the socket `before` watch `ours` in its place.
    fn watch_again(&self, call: Call, before: u64, ours: &Ours) -> Option<()> {
        let mut sockets = self.sockets();
        let (number, event) = sockets.watched.remove(&before)?;
        let epoll = call.file(number)?;
        watch(&epoll, &ours.socket, ours.fd, &event)?;
        let cookie = sockopt::socket_cookie(&ours.socket).ok()?;
        sockets.watched.insert(cookie, (number, event));
        Some(())
    }

    fn send(&self, call: Call) -> End {
        let message = if call.number == libc::SYS_sendto {
            let len = usize::try_from(call.argument(2)).unwrap_or(usize::MAX);
            call.read(call.argument(1), len.min(MESSAGE_OCTETS))
        } else {
            let buffers = buffers(call, call.argument(1));
            buffers.into_iter().flat_map(|(at, len)| call.read(at, len)).collect()
        };
        let Some(mut ours) = self.ours(call).or_else(|| self.begun(call, &message)) else {
            return End::Goes;
        };
        let mut message = message;
        let len = message.len();
        ours.known.seq = wire::address(ours.known.port, &mut message);
        let is_alone = ours.known.mate.is_some() || generic_netlink(ours.socket.as_fd()).is_some();
        let transmit =
            |ours: &Ours| rustix::net::send(&ours.socket, &message, SendFlags::NOSIGNAL).map(drop);
        let sent = if is_alone { Err(Errno::PIPE) } else { transmit(&ours) };
        let again = |ours: &mut Ours| self.reconnect(call, ours).and_then(|()| transmit(ours));
        // As in the library: a send never seems to fail, what went wrong is an answer.
        if sent.is_err() && again(&mut ours).is_err() {
            let _full = self.answer_error(call, &mut ours, wire::absence(&message));
        } else {
            self.remember(&ours);
        }
        End::Value(i64::try_from(len).unwrap_or(i64::MAX))
    }

    /// A netlink socket that becomes a connection to rvsd, because `message` asks for IPVS.
    fn begun(&self, call: Call, message: &[u8]) -> Option<Ours> {
        let fd = call.int(0);
        let socket = is_for_ipvs(message).then(|| call.file(fd))??;
        let port = bound_generic_netlink(socket.as_fd())?;
        let mut ours = Ours { fd, socket, known: Known { port, ..Known::default() } };
        // The send that follows tries again.
        let _not_there = self.reconnect(call, &mut ours);
        Some(ours)
    }

    fn remember(&self, ours: &Ours) {
        if let Ok(cookie) = sockopt::socket_cookie(&ours.socket) {
            self.sockets().put(cookie, ours.known.clone());
        }
    }

    /// A new connection to rvsd in the program's descriptor.
    fn reconnect(&self, call: Call, ours: &mut Ours) -> Result<(), Errno> {
        let socket = connect()?;
        self.replace(call, ours, socket)?;
        ours.known.mate = None;
        self.remember(ours);
        Ok(())
    }

    /// A connection to nobody, in which an error waits to be read.
    fn answer_error(&self, call: Call, ours: &mut Ours, errno: Errno) -> Result<(), Errno> {
        let (mine, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let message = wire::error(ours.known.port, ours.known.seq, errno);
        rustix::net::send(&theirs, &message, SendFlags::NOSIGNAL)?;
        self.replace(call, ours, mine)?;
        ours.known.mate = Some(Arc::new(theirs));
        self.remember(ours);
        Ok(())
    }

    /// Puts `socket` in the program's descriptor, with what the program has set.
    fn replace(&self, call: Call, ours: &mut Ours, socket: OwnedFd) -> Result<(), Errno> {
        if is_nonblocking(ours.socket.as_fd()) {
            rustix::fs::fcntl_setfl(&socket, OFlags::NONBLOCK)?;
        }
        if let Ok(Some(timeout)) = sockopt::socket_timeout(&ours.socket, Timeout::Recv) {
            sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
        }
        let cloexec = call.process().is_some_and(|process| closes(process, ours.fd));
        let before = sockopt::socket_cookie(&ours.socket).unwrap_or_default();
        self.notifier.give(call, socket.as_fd(), Some(ours.fd), cloexec, false)?;
        ours.socket = socket;
        let _nobody_watches = self.watch_again(call, before, ours);
        Ok(())
    }

    /// recvfrom(2) and recvmsg(2).
    fn receive(self: &Arc<Self>, call: Call, ours: Ours) -> End {
        let flags = if call.number == libc::SYS_recvfrom { call.int(3) } else { call.int(2) };
        let waits = flags & libc::MSG_DONTWAIT == 0 && !is_nonblocking(ours.socket.as_fd());
        match self.received(call, &ours, flags) {
            Err(Errno::AGAIN) if waits => {
                let this = Arc::clone(self);
                let waiting = std::thread::Builder::new().spawn(move || {
                    let end = this.wait_for(call, &ours, flags);
                    this.notifier.end(call, end);
                });
                if waiting.is_ok() { End::Ended } else { End::Fails(Errno::NOMEM) }
            }
            Err(error) => End::Fails(error),
            Ok(len) => End::Value(len),
        }
    }

    fn wait_for(&self, call: Call, ours: &Ours, flags: c_int) -> End {
        let timeout = sockopt::socket_timeout(&ours.socket, Timeout::Recv).ok().flatten();
        let begun = Instant::now();
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            let Ok(look) = Timespec::try_from(left.map_or(LOOK, |left| left.min(LOOK))) else {
                return End::Fails(Errno::INVAL);
            };
            let mut fds = [PollFd::new(&ours.socket, PollFlags::IN)];
            let _interrupted = poll(&mut fds, Some(&look));
            if !self.notifier.waits(call) {
                return End::Ended;
            }
            match self.received(call, ours, flags) {
                Err(Errno::AGAIN) if left.is_none_or(|left| !left.is_zero()) => {}
                Err(error) => return End::Fails(error),
                Ok(len) => return End::Value(len),
            }
        }
    }

    /// Receives what is there, and tells the program.
    fn received(&self, call: Call, ours: &Ours, flags: c_int) -> Result<i64, Errno> {
        let is_message = call.number == libc::SYS_recvmsg;
        let buffers = if is_message {
            buffers(call, call.argument(1))
        } else {
            let len = usize::try_from(call.argument(2)).unwrap_or(usize::MAX);
            vec![(call.argument(1), len.min(MESSAGE_OCTETS))]
        };
        let room = buffers.iter().map(|(_, len)| len).sum::<usize>().min(MESSAGE_OCTETS);
        let mut octets = vec![0; room];
        let peeks = flags & libc::MSG_PEEK != 0;
        let how = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        let how = if peeks { how | RecvFlags::PEEK } else { how };
        let is_gone = |received: &Result<(usize, usize), Errno>| match received {
            Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => true,
            Ok(_) | Err(_) => false,
        };
        let mut received = rustix::net::recv(&ours.socket, octets.as_mut_slice(), how);
        if is_gone(&received) {
            // rvsd went away while an answer was due.
            let socket = ours.socket.try_clone().map_err(|_| Errno::NOBUFS)?;
            let mut lost = Ours { fd: ours.fd, socket, known: ours.known.clone() };
            self.answer_error(call, &mut lost, Errno::NODEV)?;
            received = rustix::net::recv(&lost.socket, octets.as_mut_slice(), how);
        }
        let (got, whole) = received?;
        let mut rest = octets.get(..got).unwrap_or_default();
        for (address, len) in buffers {
            let (now, later) = rest.split_at(len.min(rest.len()));
            if !call.write(address, now) {
                return Err(Errno::FAULT);
            }
            rest = later;
        }
        let cut = whole > got;
        if is_message {
            let header = call.argument(1);
            if call.word(header).is_some_and(|name| name != 0) {
                let room = call.read(header + MSG_NAMELEN, 4);
                let name = call.word(header).unwrap_or_default();
                tell_address(call, 0, name, &room, header + MSG_NAMELEN)?;
            }
            let told = if cut { libc::MSG_TRUNC } else { 0 };
            let is_told = call.write(header + MSG_CONTROLLEN, &[0; 8])
                && call.write(header + MSG_FLAGS, &told.to_ne_bytes());
            if !is_told {
                return Err(Errno::FAULT);
            }
        } else if call.argument(4) != 0 {
            let room = call.read(call.argument(5), 4);
            tell_address(call, 0, call.argument(4), &room, call.argument(5))?;
        }
        let told = if flags & libc::MSG_TRUNC != 0 { whole } else { got };
        Ok(i64::try_from(told).unwrap_or(i64::MAX))
    }

    /// What else is done with a netlink socket, of one that is a connection to rvsd.
    fn of_socket(call: Call, ours: &Ours) -> End {
        let port = match call.number {
            libc::SYS_bind => return End::Value(0),
            libc::SYS_setsockopt if call.int(1) == libc::SOL_NETLINK => return End::Value(0),
            libc::SYS_getsockname => ours.known.port,
            libc::SYS_getpeername => 0,
            _ => return End::Goes,
        };
        let room = call.read(call.argument(2), 4);
        match tell_address(call, port, call.argument(1), &room, call.argument(2)) {
            Ok(()) => End::Value(0),
            Err(error) => End::Fails(error),
        }
    }
}

/// Writes a netlink address to the program, as far as there is room, and its length.
fn tell_address(call: Call, port: u32, to: u64, room: &[u8], len: u64) -> Result<(), Errno> {
    let mut address = [0; ADDRESS_OCTETS];
    let family = u16::try_from(libc::AF_NETLINK).unwrap_or_default().to_ne_bytes();
    for (place, octet) in
        address.iter_mut().zip(family.into_iter().chain([0; 2]).chain(port.to_ne_bytes()))
    {
        *place = octet;
    }
    let room = room.first_chunk().map_or(0, |octets| u32::from_ne_bytes(*octets));
    let room = usize::try_from(room).unwrap_or_default().min(ADDRESS_OCTETS);
    let told = call.write(to, address.get(..room).unwrap_or_default());
    let octets = u32::try_from(ADDRESS_OCTETS).unwrap_or_default().to_ne_bytes();
    if told && call.write(len, &octets) { Ok(()) } else { Err(Errno::FAULT) }
}

/// The buffers of a message of the program: where each is and how long.
fn buffers(call: Call, header: u64) -> Vec<(u64, usize)> {
    let (Some(first), Some(count)) = (call.word(header + MSG_IOV), call.word(header + MSG_IOVLEN))
    else {
        return Vec::new();
    };
    let buffer = |at: u64| {
        let place = first.wrapping_add(16 * at);
        let len = usize::try_from(call.word(place.wrapping_add(8))?).ok()?;
        Some((call.word(place)?, len.min(MESSAGE_OCTETS)))
    };
    (0..count.min(BUFFERS_MAX)).map_while(buffer).collect()
}

fn is_nonblocking(socket: BorrowedFd) -> bool {
    rustix::fs::fcntl_getfl(socket).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

/// Whether a descriptor of a process is closed by exec.
fn closes(process: u32, fd: RawFd) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0)
}
