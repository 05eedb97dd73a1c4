//! AF_XDP: a network card, or any device, shared with the host's kernel. A queue for each worker.
//!
//! ```text
//!                  program in the driver
//!  card ──frame──► to our MAC? ──yes──► rings of the queue's socket ──► AfXdpQueue 0, 1, …
//!                       │no
//!                       ▼
//!                  the host's stack: its own addresses, ssh, BGP …
//!                       │ a copy of what is sent to everybody or to a group: ARP, ND
//!                       └──────────────────────────────────────────────► AfXdpQueue 0
//! ```
//!
//! Whose a frame is says its Ethernet address: ours is another than the device's. So VIPs, tunnels,
//! servers' replies to clients and everything else that is routed to us gets here without a table
//! that would have to follow the services, and the rest of the card stays the host's.
//!
//! Frames are copied between rooms and the rings' chunks: any frame can leave by any link, and with
//! any worker. Whether the card copies as well (into the kernel's memory first) is its driver's
//! ability: [`About::zero_copy`].

mod error;
mod group;
mod rings;
mod steer;
mod sys;

use crate::netdevice::{Request, ethtool, ioctl};
use crate::{Burst, Frame, Lost, Pool, Queue, RoomFrame, RoomPool};
use core::cell::Cell;
pub use error::AfXdpError;
use group::{Group, Heard, Member};
use rings::{Chunks, Inbox, Kicked, Outbox, Ring};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
pub use steer::Mode;
use steer::Steering;
use sys::Call;

/// Entries of the receive and the fill ring, and chunks to receive into.
const RECEIVE: u32 = 2048;
/// Entries of the transmit and the completion ring, and chunks to send from.
const TRANSMIT: u32 = 1024;
/// What the kernel keeps free in front of a received frame: `XDP_PACKET_HEADROOM`.
const KERNEL_HEADROOM: usize = 256;
/// Octets of a chunk, the smaller if frames fit: Linux 6.12 `net/xdp/xdp_umem.c` takes
/// these.
const CHUNKS: [usize; 2] = [2048, 4096];
/// The longest frame: a page is one frame's, and a frame in several is not asked for.
pub const FRAME_OCTETS_MAX: usize = 4096 - KERNEL_HEADROOM;
/// Frames that one call sends at most where frames are copied. Linux 6.12 net/xdp/xsk.c
/// `TX_BATCH_SIZE`.
const SENT_BY_CALL: usize = 32;
/// How many looks at the ring, which cost nothing, there are for one at the socket for groups, which is a
/// system call. Who waits is told of it by poll(2).
const GROUP_TURN: u32 = 32;

/// What is wanted of a link.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'s> {
    /// The device.
    pub device: &'s str,
    /// Queues: as many as the device has.
    pub queues: u16,
    /// Our Ethernet address there.
    pub mac: [u8; 6],
    /// Whether the host keeps what is not ours. If not, all frames are ours, those to the device's
    /// own address too.
    pub shared: bool,
    /// Octets of the longest packet that we send.
    pub mtu: u16,
    /// Octets of the longest frame, at most [`FRAME_OCTETS_MAX`].
    pub frame_octets: usize,
    /// Whether the driver must not (`false`) or must (`true`) do without copying; `None`: if it can.
    pub zero_copy: Option<bool>,
    /// Microseconds that a look for frames may drive the card for, instead of its interrupts.
    pub busy_poll_us: Option<u32>,
    /// Finishes the checksum of a frame whose sender left that to a card that is none: see
    /// [`About::mends`].
    pub mend: fn(&mut [u8]),
}

/// How a link is driven.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct About {
    /// The device's driver.
    pub driver: String,
    /// Where the program runs.
    pub mode: Mode,
    /// Why not in the driver.
    pub why_generic: Option<String>,
    /// Whether the card's frames are in our memory at once.
    pub zero_copy: bool,
    /// Whether frames may come with half a checksum, as they do between kernels of one machine, and
    /// are finished here.
    pub mends: bool,
}

/// What the queues of a link share: while one of them lives, the program is on the device.
#[derive(Debug)]
struct Device {
    steering: Steering,
    _member: Member,
}

/// Opens the device with a queue for each worker.
///
/// # Errors
///
/// [`AfXdpError`]; then nothing is left behind.
pub fn open(settings: &Settings<'_>) -> Result<(Vec<AfXdpQueue>, About), AfXdpError> {
    let name = settings.device;
    let octets = settings.frame_octets;
    let chunk = CHUNKS.into_iter().find(|chunk| octets + KERNEL_HEADROOM <= *chunk);
    let chunk = chunk.ok_or_else(|| AfXdpError::TooLong { device: name.to_owned(), octets })?;
    let index = sys::index(name).map_err(|_| AfXdpError::NoDevice(name.to_owned()))?;
    let driver = examine(settings)?;

    let refused = |(what, error): (&str, io::Error)| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => AfXdpError::Taken(name.to_owned()),
        Some(libc::EAFNOSUPPORT | libc::ENOSYS) => AfXdpError::NoAfXdp,
        Some(libc::ENOSPC) if driver == "veth" => {
            AfXdpError::PeerQueues { device: name.to_owned(), wanted: settings.queues }
        }
        _ => AfXdpError::refused(format!("{what} on {name}"), error),
    };
    // Sockets first: of a map for them a kernel without AF_XDP says only that it is invalid.
    let sockets = (0..settings.queues)
        .map(|_| sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| refused(("open an AF_XDP socket", error)))?;
    let mac = settings.shared.then_some(settings.mac);
    let attach = |mode| Steering::attach(index, settings.queues.into(), mac, mode);
    let (steering, mode, why_generic) = match attach(Mode::Native) {
        Ok(steering) => (steering, Mode::Native, None),
        // A driver refuses for want of ability, or because of the device's MTU or offloads.
        Err((_, error)) if is_inability(&error) => {
            let steering = attach(Mode::Generic).map_err(refused)?;
            (steering, Mode::Generic, Some(error.to_string()))
        }
        Err(error) => return Err(refused(error)),
    };
    let member = Member::new(index, settings.mac)
        .map_err(|error| refused(("listen to the link's mac", error)))?;
    let device = Arc::new(Device { steering, _member: member });

    // The kernels at the other ends of these leave checksums to a card that is not there.
    let mends = mode == Mode::Generic || matches!(driver.as_str(), "veth" | "virtio_net" | "tun");
    let plan = Plan { settings, index, chunk, mend: mends.then_some(settings.mend) };
    let mut queues = Vec::new();
    for (number, socket) in (0..settings.queues).zip(sockets) {
        queues.push(AfXdpQueue::open(&plan, number, socket, &device)?);
    }
    let zero_copy = queues.first().is_some_and(|queue| !queue.copies);
    Ok((queues, About { driver, mode, why_generic, zero_copy, mends }))
}

/// Looks at the device before anything is changed, and returns its driver's name.
fn examine(settings: &Settings<'_>) -> Result<String, AfXdpError> {
    let name = settings.device;
    let refused = |error| AfXdpError::refused(format!("look at device {name}"), error);
    let request = Request::new(name).ok_or_else(|| AfXdpError::NoDevice(name.to_owned()))?;
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map_err(refused)?;
    let ask = |what| {
        let mut request = request;
        ioctl(socket.as_fd(), what, &mut request).map_err(refused).map(|()| request.value)
    };
    let [low, high, ..] = ask(libc::SIOCGIFFLAGS)?;
    if i32::from(u16::from_ne_bytes([low, high])) & libc::IFF_UP == 0 {
        return Err(AfXdpError::Down(name.to_owned()));
    }
    let [a, b, c, d, ..] = ask(libc::SIOCGIFMTU)?;
    let (has, wanted) = (u32::from_ne_bytes([a, b, c, d]), settings.mtu);
    if has < u32::from(wanted) {
        return Err(AfXdpError::Mtu { device: name.to_owned(), has, wanted });
    }
    let [_, _, mac @ ..] = ask(libc::SIOCGIFHWADDR)?;
    if settings.shared && mac.starts_with(&settings.mac) {
        return Err(AfXdpError::SameMac(name.to_owned()));
    }
    // A driver that does not know its queues has one.
    let [receive, transmit] =
        ethtool::queues(&socket, name).unwrap_or([1; 2]).map(|queues| queues.max(1));
    let (device, wanted) = (name.to_owned(), settings.queues);
    if receive != u32::from(wanted) {
        return Err(AfXdpError::Queues { device, has: receive, of: "receive", wanted });
    }
    // Frames of another queue the kernel leaves in the ring, and says nothing: Linux 6.1
    // net/xdp/xsk.c __xsk_generic_xmit().
    if transmit < u32::from(wanted) {
        return Err(AfXdpError::Queues { device, has: transmit, of: "transmit", wanted });
    }
    Ok(ethtool::driver(&socket, name).unwrap_or_default())
}

type Rings = (Inbox<libc::xdp_desc>, Outbox<u64>, Outbox<libc::xdp_desc>, Inbox<u64>);

/// Tells the kernel of the chunks and maps the four rings: receive, fill, transmit, completion.
fn rings(socket: &OwnedFd, chunks: &Chunks, chunk: usize) -> io::Result<Rings> {
    let octets = u64::try_from(chunks.pages().octets()).unwrap_or_default();
    let memory = libc::xdp_umem_reg {
        addr: sys::address(chunks.pages().start().as_ptr()),
        len: octets,
        chunk_size: u32::try_from(chunk).unwrap_or_default(),
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    // SAFETY: the shape is that of XDP_UMEM_REG; the pages hold nothing but frames, which any octets are.
    //   The kernel pins them, so that what it writes when they are no longer mapped reaches nobody: Linux
    //   6.1 net/xdp/xdp_umem.c xdp_umem_pin_pages().
    unsafe { sys::set_any(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &memory) }?;
    for (option, size) in [
        (libc::XDP_RX_RING, RECEIVE),
        (libc::XDP_UMEM_FILL_RING, RECEIVE),
        (libc::XDP_TX_RING, TRANSMIT),
        (libc::XDP_UMEM_COMPLETION_RING, TRANSMIT),
    ] {
        sys::set(socket, libc::SOL_XDP, option, &size)?;
    }
    let offsets: libc::xdp_mmap_offsets = sys::get(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
    let (fd, at) = (socket.as_fd(), |offset: i64| offset.cast_unsigned());
    Ok((
        Inbox::over(Ring::map(fd, at(libc::XDP_PGOFF_RX_RING), &offsets.rx, RECEIVE)?),
        Outbox::over(Ring::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, RECEIVE)?),
        Outbox::over(Ring::map(fd, at(libc::XDP_PGOFF_TX_RING), &offsets.tx, TRANSMIT)?),
        Inbox::over(Ring::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, &offsets.cr, TRANSMIT)?),
    ))
}

/// Lossless: rvs runs on 64 bits.
fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or_default()
}

fn is_inability(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE))
}

/// What all queues of a link are opened with.
struct Plan<'p> {
    settings: &'p Settings<'p>,
    index: u32,
    chunk: usize,
    mend: Option<fn(&mut [u8])>,
}

/// What the kernel did with frames that never got to the receive ring.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Missed {
    /// Longer than a chunk, or otherwise impossible.
    pub dropped: u64,
    /// The ring was full: the worker is too slow.
    pub ring_full: u64,
}

/// One queue of a device.
#[derive(Debug)]
pub struct AfXdpQueue {
    socket: OwnedFd,
    receive: Inbox<libc::xdp_desc>,
    fill: Outbox<u64>,
    transmit: Outbox<libc::xdp_desc>,
    completion: Inbox<u64>,
    chunks: Chunks,
    chunk: usize,
    /// Chunks to send from that the kernel has not.
    free: Vec<u64>,
    group: Option<Group>,
    /// Looks until the next at the group's socket; 0: the next one.
    turn: Cell<u32>,
    copies: bool,
    /// The kernel has not taken all that was sent: it is asked again at the next look for frames, as
    /// nobody else may send for long.
    is_unsent: bool,
    busy_poll: bool,
    mend: Option<fn(&mut [u8])>,
    lost: Lost,
    fault: Option<i32>,
    _device: Arc<Device>,
}

impl AfXdpQueue {
    fn open(
        plan: &Plan<'_>,
        number: u16,
        socket: OwnedFd,
        device: &Arc<Device>,
    ) -> Result<Self, AfXdpError> {
        let Plan { settings, index, chunk, mend } = *plan;
        let name = settings.device;
        let octets = to_usize(RECEIVE + TRANSMIT) * chunk;
        let refused = |what: &'static str| {
            move |error: io::Error| match error.raw_os_error() {
                Some(libc::ENOBUFS | libc::ENOMEM) => {
                    AfXdpError::Memory { device: name.to_owned(), kib: octets / 1024 }
                }
                Some(libc::EBUSY) => AfXdpError::Busy { device: name.to_owned(), queue: number },
                _ => AfXdpError::refused(format!("{what} of {name}"), error),
            }
        };
        // All that the transmit ring holds may be on its way, each frame in a piece of memory twice as
        // large as its chunk. Left at what sockets have it is a tenth of that.
        let on_their_way = 2 * TRANSMIT * u32::try_from(chunk).unwrap_or_default();
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &on_their_way)
            .map_err(refused("have memory to send from"))?;
        let chunks = Chunks::new(octets).map_err(refused("map the memory"))?;
        let (receive, fill, transmit, completion) =
            rings(&socket, &chunks, chunk).map_err(refused("set up the rings"))?;
        let at = |number: u32| u64::from(number) * u64::try_from(chunk).unwrap_or_default();
        let mut queue = Self {
            socket,
            receive,
            fill,
            transmit,
            completion,
            chunks,
            chunk,
            free: (RECEIVE..RECEIVE + TRANSMIT).map(at).collect(),
            group: None,
            turn: Cell::new(0),
            copies: true,
            is_unsent: false,
            busy_poll: settings.busy_poll_us.is_some(),
            mend,
            lost: Lost::default(),
            fault: None,
            _device: Arc::clone(device),
        };
        // As many as the ring has entries.
        let _all = (0..RECEIVE).all(|number| queue.fill.push(at(number)));
        queue.fill.publish();
        if let Some(us) = settings.busy_poll_us {
            queue.poll_busily(us).map_err(refused("turn on busy polling"))?;
        }
        queue.bind(index, number, settings.zero_copy).map_err(|error| {
            match (error.raw_os_error(), settings.zero_copy) {
                (Some(libc::EOPNOTSUPP | libc::EINVAL), Some(true)) => {
                    AfXdpError::NoZeroCopy(name.to_owned())
                }
                _ => refused("bind to a queue")(error),
            }
        })?;
        device
            .steering
            .join(number.into(), &queue.socket)
            .map_err(refused("steer frames to a queue"))?;
        if settings.shared && number == 0 {
            queue.group = Some(Group::new(index).map_err(refused("listen to the groups"))?);
        }
        Ok(queue)
    }

    /// Binds to the device's queue, and learns whether the driver copies.
    fn bind(&mut self, device: u32, queue: u16, zero_copy: Option<bool>) -> io::Result<()> {
        let address = |flags: u16| libc::sockaddr_xdp {
            sxdp_family: u16::try_from(libc::AF_XDP).unwrap_or_default(),
            sxdp_flags: flags | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: device,
            sxdp_queue_id: queue.into(),
            sxdp_shared_umem_fd: 0,
        };
        // Without a flag the kernel copies if the driver cannot do without.
        let flags = match zero_copy {
            None => 0,
            Some(true) => libc::XDP_ZEROCOPY,
            Some(false) => libc::XDP_COPY,
        };
        // SAFETY: the shape is that of AF_XDP.
        unsafe { sys::bind(&self.socket, &address(flags)) }?;
        let options: libc::xdp_options = sys::get(&self.socket, libc::SOL_XDP, libc::XDP_OPTIONS)?;
        self.copies = options.flags & libc::XDP_OPTIONS_ZEROCOPY == 0;
        Ok(())
    }

    /// Linux Documentation/networking/napi.rst, "Busy polling".
    fn poll_busily(&self, us: u32) -> io::Result<()> {
        const SO_BUSY_POLL: i32 = 46;
        const SO_PREFER_BUSY_POLL: i32 = 69;
        const SO_BUSY_POLL_BUDGET: i32 = 70;
        sys::set(&self.socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1_u32)?;
        sys::set(&self.socket, libc::SOL_SOCKET, SO_BUSY_POLL, &us)?;
        sys::set(&self.socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &64_u32)
    }

    /// Why the kernel last refused to move frames: the device is down (ENETDOWN), or gone (ENXIO).
    /// For the operator; the data path goes on asking.
    #[must_use]
    pub fn fault(&self) -> Option<io::Error> {
        self.fault.map(io::Error::from_raw_os_error)
    }

    /// Frames that the kernel could not put into the ring.
    #[must_use]
    pub fn missed(&self) -> Missed {
        let all =
            sys::get::<libc::xdp_statistics>(&self.socket, libc::SOL_XDP, libc::XDP_STATISTICS);
        all.map_or(Missed::default(), |all| Missed {
            dropped: all.rx_dropped,
            ring_full: all.rx_ring_full + all.rx_fill_ring_empty_descs,
        })
    }

    /// Where an idle worker may wait for frames to groups as well, which do not come by the ring.
    #[must_use]
    pub fn group(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().map(AsFd::as_fd)
    }

    /// Poll said that there is something at [`Self::group`]: the next [`Queue::receive`] asks there.
    pub fn expect_group(&self) {
        self.turn.set(0);
    }

    /// Copies what the ring has, at most `most` frames, into rooms.
    fn take_in(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let Some(entry) = self.receive.peek() else { break };
            let Some(mut frame) = pool.take() else { break };
            let len = usize::try_from(entry.len).unwrap_or(usize::MAX);
            // SAFETY: the entry came out of the receive ring, and goes into the fill ring below.
            let octets = unsafe { self.chunks.octets_mut(entry.addr, len) };
            if octets.is_some_and(|octets| frame.fill(octets)) {
                if let Some(mend) = self.mend {
                    mend(frame.octets_mut());
                }
                burst.push(frame);
            } else {
                self.lost.too_long += 1;
                pool.give(frame);
            }
            self.receive.advance();
            // There is room: the ring has as many entries as there are chunks to receive into.
            let _pushed = self.fill.push(self.start_of(entry.addr));
            taken += 1;
        }
        if taken > 0 {
            self.receive.publish();
            self.fill.publish();
        }
        taken
    }

    /// The chunk that an address is in.
    #[inline]
    fn start_of(&self, address: u64) -> u64 {
        address & !(u64::try_from(self.chunk).unwrap_or_default() - 1)
    }

    /// Asks for frames to groups.
    #[cold]
    fn hear(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) {
        self.turn.set(GROUP_TURN);
        let Some(group) = &self.group else { return };
        for _ in 0..most {
            let Some(mut frame) = pool.take() else { return };
            match group.receive(&mut frame) {
                Ok(Heard::Frame) => {
                    if let Some(mend) = self.mend {
                        mend(frame.octets_mut());
                    }
                    burst.push(frame);
                    continue;
                }
                Ok(Heard::TooLong) => self.lost.too_long += 1,
                Ok(Heard::Nothing) => {}
                Err(error) => self.fault = error.raw_os_error(),
            }
            pool.give(frame);
            return;
        }
    }

    /// Has the kernel go on with what it had no place for.
    #[cold]
    fn send_on(&mut self) {
        let Kicked { fault, .. } = self.transmit.kick(1, || sys::call(&self.socket, Call::Send));
        self.fault = fault.or(self.fault);
        self.is_unsent = self.transmit.is_waiting();
    }

    /// Takes chunks back that were sent.
    fn reap(&mut self) {
        let before = self.free.len();
        while let Some(address) = self.completion.peek() {
            self.completion.advance();
            self.free.push(self.start_of(address));
        }
        if self.free.len() > before {
            self.completion.publish();
        }
    }

    /// Puts copies of frames into the transmit ring, until one finds no place: how many. Their chunks
    /// are the last of the free ones, and still among them. A frame longer than a chunk finds none:
    /// the plane makes no such frame, as the link's MTU is less.
    fn put_out(&mut self, burst: &Burst<RoomFrame>) -> usize {
        let mut put = 0;
        for (frame, address) in burst.iter().zip(self.free.iter().rev()) {
            let octets = frame.octets();
            let Ok(len) = u32::try_from(octets.len()) else { break };
            if octets.len() > self.chunk {
                break;
            }
            // SAFETY: the chunk is free, and goes into the transmit ring below.
            let Some(place) = (unsafe { self.chunks.octets_mut(*address, octets.len()) }) else {
                break;
            };
            place.copy_from_slice(octets);
            if !self.transmit.push(libc::xdp_desc { addr: *address, len, options: 0 }) {
                break;
            }
            put += 1;
        }
        put
    }
}

impl AsFd for AfXdpQueue {
    /// Where an idle worker may wait; it must not read or write there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Queue for AfXdpQueue {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        let before = burst.len();
        let most = most.min(burst.remaining_capacity());
        if self.is_unsent {
            self.send_on();
        }
        if self.busy_poll || self.fill.wants_call() {
            // Refused when the device is down; then nothing comes.
            if let Err(error) = sys::call(&self.socket, Call::Receive) {
                self.fault =
                    error.raw_os_error().filter(|code| *code != libc::EAGAIN).or(self.fault);
            }
        }
        let taken = self.take_in(pool, burst, most);
        if self.group.is_some() {
            match self.turn.get() {
                0 if taken < most => self.hear(pool, burst, most - taken),
                turn => self.turn.set(turn.saturating_sub(1)),
            }
        }
        burst.len() - before
    }

    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        self.reap();
        let put = self.put_out(burst);
        if put == 0 {
            return 0;
        }
        self.transmit.publish();
        let Kicked { fault, is_unseen } =
            self.transmit.kick(1 + put / SENT_BY_CALL, || sys::call(&self.socket, Call::Send));
        self.fault = fault.or(self.fault);
        if is_unseen && self.copies {
            self.transmit.take_back(u32::try_from(put).unwrap_or_default());
            return 0;
        }
        self.is_unsent = self.transmit.is_waiting();
        self.free.truncate(self.free.len() - put);
        burst.drain(..put).for_each(|frame| pool.give(frame));
        put
    }

    fn lost(&self) -> Lost {
        self.lost
    }
}
