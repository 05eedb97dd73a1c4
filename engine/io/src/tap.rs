//! TAP devices: one link per device, one file descriptor per queue.
//!
//! ```text
//!   the host's stack                         the director
//!  rvs0: MAC, MTU, up ◄── the wire ──► TapQueue 0, TapQueue 1, …    read(2), write(2): one frame
//! ```
//!
//! The device that `ip link` shows is the host's end of the wire, and ours is the file descriptor.
//! So MTU and MAC of the device are the host's; what addresses the director answers for is the
//! plane's business. Which queue a frame arrives on is the kernel's choice: the one that the flow's
//! last frame in the other direction was written to, or else a hash. Linux 6.12 drivers/net/tun.c
//! `tun_automq_select_queue()`.
//!
//! Without a frame in reach `receive` reads nothing: frames wait in the kernel, which counts what
//! its own queue cannot hold. Frames come and go complete, with finished checksums and within the
//! MTU; or, if the host's end `leaves` them so, uncut and unfinished, with a header before each that
//! says what is left to do (`IFF_VNET_HDR`, `superframe.rs`): sixty-four kilobytes for a system call.
//!
//! The system calls are rustix's: those of libc may be cancelled, which a process of several threads
//! pays for with 70 ns each.

use crate::frame::LARGE_OCTETS;
use crate::netdevice::{Request, ethtool, ioctl, short};
use crate::superframe::{HEADER_LEN, header_for, take_note};
use crate::{Burst, Frame, Lost, Pool, Queue, RoomFrame, RoomPool};
use core::cell::Cell;
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{fs::OpenOptionsExt, net::UnixDatagram},
    },
    thread,
    time::Duration,
};

/// Queues of one device at most. Linux 6.12 drivers/net/tun.c `MAX_TAP_QUEUES`.
pub const QUEUES_MAX: u16 = 256;

/// Long frames that one call takes in, as there are not many rooms for them.
const LONG_MOST: usize = 8;
/// Octets of long frames after which one call takes in no more: the kernel copies each frame once more
/// when it is sent, which should find it in the processor's own cache.
const LONG_OCTETS: usize = 96 * 1024;

/// Where TAP devices come from.
const CONTROL: &str = "/dev/net/tun";

/// What the host's end of the wire shall be like; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HostEnd {
    /// Octets of the largest packet that the host sends, without the Ethernet header.
    pub mtu: Option<u16>,
    /// The host's address on this wire.
    pub mac: Option<[u8; 6]>,
    /// Whether the host leaves frames of TCP uncut and checksums unfinished. Then pools need large
    /// frames, and all links that frames leave by must be such links.
    pub leaves: bool,
}

/// Why a TAP device could not be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel takes no such name.
    #[error(
        "{0:?} is not a device name: 1 to 15 printable characters without blank, '/', ':' or '%'"
    )]
    Name(String),
    /// 0, or more than [`QUEUES_MAX`].
    #[error("TAP {name} cannot have {queues} queues: 1 to {QUEUES_MAX}")]
    Queues {
        /// The device.
        name: String,
        /// How many were asked for.
        queues: u16,
    },
    /// The kernel has no TAP devices, or hides them from this container.
    #[error(
        "{CONTROL} is missing: run `modprobe tun`, or start the container with `--device {CONTROL}`"
    )]
    NoTun,
    /// `CAP_NET_ADMIN` is missing.
    #[error(
        "no permission to {what}: run as root or with CAP_NET_ADMIN, or attach to a device made for \
         this user by `ip tuntap add NAME mode tap user USER multi_queue` and set up by root"
    )]
    Permission {
        /// What was not permitted.
        what: String,
    },
    /// Another program holds the device.
    #[error("TAP {0} is in use by another program: stop that, or choose another name")]
    Busy(String),
    /// The device was made for one queue.
    #[error(
        "TAP {0} exists with a single queue: use 1 queue, or run `ip link delete {0}` and let it be \
         made anew, or make it by `ip tuntap add {0} mode tap multi_queue`"
    )]
    SingleQueue(String),
    /// A device of another kind has the name.
    #[error("the device {0} exists and is no TAP: choose another name")]
    NotTap(String),
    /// Anything else the kernel refused.
    #[error("cannot {what}: {source}")]
    Refused {
        /// What was refused.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl TapError {
    fn refused(what: String, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::PermissionDenied => Self::Permission { what },
            _ => Self::Refused { what, source },
        }
    }
}

/// Opens the TAP device `name` with `queues` queues (1 to [`QUEUES_MAX`]) and brings it up.
///
/// A device that exists is attached to, and stays when the queues are dropped; otherwise it is made
/// and lives as long as a queue does. With one queue, a device made for several is taken as well.
///
/// # Errors
///
/// [`TapError`]; then nothing is left behind.
pub fn open(name: &str, queues: u16, host: &HostEnd) -> Result<Vec<TapQueue>, TapError> {
    let request = Request::new(name).ok_or_else(|| TapError::Name(name.to_owned()))?;
    if !(1..=QUEUES_MAX).contains(&queues) {
        return Err(TapError::Queues { name: name.to_owned(), queues });
    }
    let device = Device::new(request, host.leaves)?;
    // The kernel lets anybody join a device of several queues, and shares the frames out at once.
    if device.in_use()? {
        let is_tap = ethtool::bus(&device.socket, name).is_ok_and(|bus| bus == "tap");
        let refused = if is_tap { TapError::Busy } else { TapError::NotTap };
        return Err(refused(name.to_owned()));
    }
    let (first, kind) = device.attach_first(queues)?;
    let mut files = vec![first];
    for _ in 1..queues {
        files.push(device.attach(kind).map_err(|error| device.refused("attach to", error))?);
    }
    for file in &files {
        // An earlier user of a persistent device may have left it otherwise.
        offload(file, host.leaves).map_err(|error| device.refused("set the offloads of", error))?;
    }
    device.configure(host)?;
    Ok(files.into_iter().map(|file| TapQueue::new(file, host.leaves)).collect())
}

/// One queue of a TAP device.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
    leaves: bool,
    /// The kernel said just now that there is nothing.
    silent: Cell<bool>,
    lost: Lost,
    fault: Option<i32>,
}

impl TapQueue {
    fn new(file: File, leaves: bool) -> Self {
        Self { file, leaves, silent: Cell::new(false), lost: Lost::default(), fault: None }
    }

    /// What the device last refused for another reason than "nothing there" and "no place": it is
    /// down (EIO), or gone (EBADFD). For the operator; the data path goes on asking.
    #[must_use]
    pub fn fault(&self) -> Option<io::Error> {
        self.fault.map(io::Error::from_raw_os_error)
    }

    /// Whether the device was deleted, for good: then poll says forever that there is an error. Known
    /// since something was asked of it. Linux 6.12 drivers/net/tun.c `tun_chr_poll()`.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.fault == Some(libc::EBADFD)
    }

    /// Poll said whether there is something to read. If not, the next [`Queue::receive`] does not ask
    /// again.
    pub fn expect(&self, something: bool) {
        self.silent.set(!something);
    }

    /// Reads one frame, which may not be finished, into a large room. What fits into the ordinary one is
    /// copied there: that takes less than to tell the kernel of two places.
    fn read_unfinished(&mut self, pool: &mut RoomPool, mut frame: RoomFrame) -> Read {
        let room = frame.reach_mut().len();
        let mut large = pool.take_large();
        let read = self.read_behind_header(large.as_mut().unwrap_or(&mut frame));
        let len = read.as_ref().map_or(0, |(_, len)| *len);
        // A room has an octet more than its longest frame. The kernel cuts what does not fit and does
        // not say so.
        let is_long = len >= room;
        let has_large = large.is_some();
        if let Some(mut large) = large {
            if is_long {
                core::mem::swap(&mut frame, &mut large);
            } else if let Some(place) = frame.reach_mut().get_mut(..len)
                && let Some(octets) = large.reach_mut().get(..len)
            {
                place.copy_from_slice(octets);
            }
            pool.give(large);
        }
        let lost = match read {
            Err(error) => {
                pool.give(frame);
                self.note(&error);
                return Read::Nothing;
            }
            Ok(_) if is_long && !has_large => &mut self.lost.no_frame,
            Ok(_) if len > LARGE_OCTETS || !frame.resize(len) => &mut self.lost.too_long,
            Ok((header, _)) if !take_note(header, &mut frame) => &mut self.lost.uncarriable,
            Ok(_) => return Read::Frame(frame, is_long),
        };
        *lost += 1;
        pool.give(frame);
        Read::Lost
    }

    /// Reads into an empty frame's room. The header goes where headers of tunnels will go later.
    fn read_behind_header(&self, frame: &mut RoomFrame) -> io::Result<([u8; HEADER_LEN], usize)> {
        let headroom = HEADER_LEN.cast_signed();
        if !frame.shift_front(headroom) {
            return Err(ErrorKind::OutOfMemory.into());
        }
        let read = rustix::io::read(&self.file, frame.reach_mut());
        let header = frame.octets().first_chunk().copied().unwrap_or_default();
        let _as_it_was = frame.shift_front(-headroom);
        Ok((header, read?.saturating_sub(HEADER_LEN)))
    }

    fn write_unfinished(&mut self, frame: &mut RoomFrame) -> Answer {
        let header = header_for(frame);
        let Some(header) = header.filter(|_| frame.shift_front(HEADER_LEN.cast_signed())) else {
            return Answer::Refused;
        };
        if let Some(place) = frame.octets_mut().first_chunk_mut() {
            *place = header;
        }
        let answer = self.write(frame.octets());
        if answer != Answer::Took {
            let _as_it_was = frame.shift_front(-HEADER_LEN.cast_signed());
        }
        answer
    }

    fn write(&mut self, octets: &[u8]) -> Answer {
        let written = rustix::io::write(&self.file, octets);
        self.answer(written.map_err(io::Error::from))
    }

    fn answer(&mut self, written: io::Result<usize>) -> Answer {
        match written {
            Ok(_) => Answer::Took,
            // Shorter than an Ethernet header. Linux 6.12 drivers/net/tun.c tun_get_user().
            Err(error) if error.kind() == ErrorKind::InvalidInput => Answer::Refused,
            Err(error) => {
                self.note(&error);
                Answer::Full
            }
        }
    }

    fn note(&mut self, error: &io::Error) {
        if error.kind() != ErrorKind::WouldBlock {
            self.fault = error.raw_os_error();
        }
    }
}

/// What was there to read.
enum Read {
    /// A frame, and whether it is a long one.
    Frame(RoomFrame, bool),
    /// A frame that goes no further, and is counted.
    Lost,
    Nothing,
}

/// What the device said to a frame.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Answer {
    Took,
    /// This frame is at fault.
    Refused,
    /// The next frame would fare no better.
    Full,
}

/// For an idle worker to wait on; it must not read or write there.
impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Queue for TapQueue {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        if self.silent.take() {
            return 0;
        }
        let (before, mut long, mut long_octets) = (burst.len(), 0, 0);
        // A frame that is too long costs a turn as well: the breath stays bounded.
        for _ in 0..most.min(burst.remaining_capacity()) {
            let Some(mut frame) = pool.take() else { break };
            if self.leaves {
                match self.read_unfinished(pool, frame) {
                    Read::Frame(frame, is_long) => {
                        if is_long {
                            long += 1;
                            long_octets += frame.octets().len();
                        }
                        burst.push(frame);
                        if long == LONG_MOST || long_octets >= LONG_OCTETS {
                            break;
                        }
                    }
                    Read::Lost => {}
                    Read::Nothing => break,
                }
                continue;
            }
            let reach = frame.reach_mut();
            let room = reach.len();
            match rustix::io::read(&self.file, reach) {
                // The kernel cuts what does not fit and does not say so. A room has an octet more
                // than its longest frame.
                Ok(len) if len < room && frame.resize(len) => burst.push(frame),
                Ok(_) => {
                    self.lost.too_long += 1;
                    pool.give(frame);
                }
                Err(error) => {
                    pool.give(frame);
                    self.note(&error.into());
                    break;
                }
            }
        }
        burst.len() - before
    }

    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        // Refused frames gather at the front, in order; those that went end up behind them.
        let mut refused = 0;
        let mut answer = Answer::Took;
        for at in 0..burst.len() {
            if answer != Answer::Full {
                let Some(frame) = burst.get_mut(at) else { break };
                answer = if self.leaves {
                    self.write_unfinished(frame)
                } else {
                    self.write(frame.octets())
                };
            }
            if answer != Answer::Took {
                burst.swap(refused, at);
                refused += 1;
            }
        }
        let went = burst.len() - refused;
        burst.drain(refused..).for_each(|frame| pool.give(frame));
        went
    }

    fn lost(&self) -> Lost {
        self.lost
    }
}

/// `IFF_MULTI_QUEUE` or not: a device is made for one of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Single,
    Multi,
}

impl Kind {
    fn of(queues: u16) -> Self {
        if queues == 1 { Self::Single } else { Self::Multi }
    }

    fn other(self) -> Self {
        match self {
            Self::Single => Self::Multi,
            Self::Multi => Self::Single,
        }
    }

    fn flags(self, leaves: bool) -> libc::c_int {
        let header = if leaves { libc::IFF_VNET_HDR } else { 0 };
        let frames = libc::IFF_TAP | libc::IFF_NO_PI | header;
        match self {
            Self::Single => frames,
            Self::Multi => frames | libc::IFF_MULTI_QUEUE,
        }
    }
}

/// A device by its name, which need not exist yet.
struct Device {
    request: Request,
    /// Any socket will do to ask about devices.
    socket: UnixDatagram,
    leaves: bool,
}

impl Device {
    fn new(request: Request, leaves: bool) -> Result<Self, TapError> {
        let socket = UnixDatagram::unbound()
            .map_err(|error| TapError::refused("open a socket".to_owned(), error))?;
        Ok(Self { request, socket, leaves })
    }

    fn name(&self) -> String {
        self.request.name()
    }

    fn refused(&self, what: &str, source: io::Error) -> TapError {
        TapError::refused(format!("{what} TAP {}", self.name()), source)
    }

    /// The device's flags, or `None` when there is no such device.
    fn flags(&self) -> Result<Option<libc::c_int>, TapError> {
        match self.ask(libc::SIOCGIFFLAGS) {
            Ok([a, b, ..]) => Ok(Some(u16::from_ne_bytes([a, b]).into())),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(self.refused("look for", error)),
        }
    }

    /// Whether somebody has a queue of it: then the device has carrier.
    fn in_use(&self) -> Result<bool, TapError> {
        // The flags may follow the last detaching by a second.
        // Linux 6.12 net/core/link_watch.c linkwatch_schedule_work().
        for _ in 0..12 {
            if self.flags()?.unwrap_or_default() & libc::IFF_RUNNING == 0 {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(true)
    }

    /// Attaches the first queue, and finds out what kind of device it is.
    fn attach_first(&self, queues: u16) -> Result<(File, Kind), TapError> {
        let wanted = Kind::of(queues);
        let error = match self.attach(wanted) {
            Ok(file) => return Ok((file, wanted)),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => return Err(TapError::NoTun),
            Some(libc::EBUSY) => return Err(TapError::Busy(self.name())),
            // An existing device of the other kind, or no TAP at all.
            Some(libc::EINVAL) if self.flags()?.is_some() => {}
            _ => return Err(self.refused("open", error)),
        }
        match (self.attach(wanted.other()), wanted) {
            (Ok(file), Kind::Single) => Ok((file, Kind::Multi)),
            (Ok(_), Kind::Multi) => Err(TapError::SingleQueue(self.name())),
            (Err(error), _) => Err(match error.raw_os_error() {
                Some(libc::EINVAL) => TapError::NotTap(self.name()),
                Some(libc::EBUSY) => TapError::Busy(self.name()),
                _ => self.refused("open", error),
            }),
        }
    }

    /// Attaches one queue; makes the device if there is none.
    fn attach(&self, kind: Kind) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK) // std adds O_CLOEXEC
            .open(CONTROL)?;
        let mut request = self.request.with(&short(kind.flags(self.leaves)));
        ioctl(file.as_fd(), libc::TUNSETIFF, &mut request)?;
        Ok(file)
    }

    /// Changes what differs only: someone who may attach need not be allowed to configure.
    fn configure(&self, host: &HostEnd) -> Result<(), TapError> {
        let refused = |what: &str| {
            let what = what.to_owned();
            move |error| self.refused(&what, error)
        };
        if let Some(mac) = host.mac {
            let [_, _, now @ ..] =
                self.ask(libc::SIOCGIFHWADDR).map_err(refused("read the MAC of"))?;
            if !now.starts_with(&mac) {
                let [family, ethernet] = libc::ARPHRD_ETHER.to_ne_bytes();
                let [a, b, c, d, e, f] = mac;
                self.tell(libc::SIOCSIFHWADDR, &[family, ethernet, a, b, c, d, e, f])
                    .map_err(refused("set the MAC of"))?;
            }
        }
        if let Some(mtu) = host.mtu {
            let mtu = i32::from(mtu).to_ne_bytes();
            let now = self.ask(libc::SIOCGIFMTU).map_err(refused("read the MTU of"))?;
            if !now.starts_with(&mtu) {
                self.tell(libc::SIOCSIFMTU, &mtu).map_err(refused("set the MTU of"))?;
            }
        }
        let flags = self.flags()?.unwrap_or_default();
        if flags & libc::IFF_UP == 0 {
            let up = flags | libc::IFF_UP;
            self.tell(libc::SIOCSIFFLAGS, &short(up)).map_err(refused("bring up"))?;
        }
        Ok(())
    }

    fn ask(&self, what: libc::Ioctl) -> io::Result<[u8; Request::VALUE_OCTETS]> {
        let mut request = self.request;
        ioctl(self.socket.as_fd(), what, &mut request)?;
        Ok(request.value)
    }

    fn tell(&self, what: libc::Ioctl, value: &[u8]) -> io::Result<()> {
        ioctl(self.socket.as_fd(), what, &mut self.request.with(value))
    }
}

/// Frames shall come with finished checksums, no longer than the MTU; or else uncut if they are of TCP,
/// and with a header of [`HEADER_LEN`] before them.
fn offload(file: &File, leaves: bool) -> io::Result<()> {
    const LEFT: libc::c_uint =
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    if leaves {
        let octets = libc::c_int::try_from(HEADER_LEN).unwrap_or_default();
        // JUSTIFICATION: as in `ioctl`.
        // SAFETY: the descriptor is open as `file` is borrowed, and TUNSETVNETHDRSZ reads an int where
        //   it is told, which lives for the call. Linux 6.12 drivers/net/tun.c __tun_chr_ioctl().
        let done =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const octets) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let left = libc::c_ulong::from(if leaves { LEFT } else { 0 });
    // JUSTIFICATION: as in `ioctl`.
    // SAFETY: the descriptor is open as `file` is borrowed, and TUNSETOFFLOAD takes a number, no
    //   address. Linux 6.12 drivers/net/tun.c set_offload().
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, left) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_not_take_as_they_are_are_refused() {
        for name in
            ["", ".", "..", "a b", "a/b", "a:1", "tap%d", "sixteen-letters!", "größe", "a\0"]
        {
            let error = open(name, 1, &HostEnd::default()).unwrap_err();
            assert!(matches!(error, TapError::Name(_)), "{name:?}: {error}");
        }
        assert_eq!(Request::new("fifteen-letters").unwrap().name(), "fifteen-letters");
    }

    #[test]
    fn numbers_of_queues_that_the_kernel_lacks_are_refused() {
        for queues in [0, QUEUES_MAX + 1, u16::MAX] {
            let error = open("rvs-none", queues, &HostEnd::default()).unwrap_err();
            assert!(matches!(error, TapError::Queues { .. }), "{error}");
        }
    }

    #[test]
    fn a_missing_permission_is_told_apart_from_other_refusals() {
        let error =
            |number| TapError::refused("x".to_owned(), io::Error::from_raw_os_error(number));
        assert!(matches!(error(libc::EPERM), TapError::Permission { .. }));
        assert!(matches!(error(libc::EACCES), TapError::Permission { .. }));
        assert!(matches!(error(libc::EIO), TapError::Refused { .. }));
    }
}
