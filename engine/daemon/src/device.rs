//! The kinds of links, and what rvsd wants of one beside moving frames.

use crate::Failure;
use arrayvec::ArrayVec;
use core::time::Duration;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rvs_control::config::{Config, LINKS_MAX, Links, PcapLink, TapLink};
use rvs_io::pcap::{CaptureError, PcapQueue, Recorder, Replay};
use rvs_io::tap::{self, HostEnd, TapQueue};
use rvs_io::{Queue, Reserve, RoomFrame, RoomPool};
use rvs_plane::Bell;
use rvs_wire::mac::MacAddr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Large frames for each worker's queue of a link: more than a breath takes in, wait for neighbours, and
/// stay in the pool of a worker that has nothing to receive into them.
const LARGE: usize = 32;

/// The longest wait of a worker whose links do not tell when frames come.
const BLIND_WAIT: Duration = Duration::from_micros(50);

/// All links of a director, open.
pub struct Opened<D: Device> {
    /// For each worker a queue of every link, and its empty frames.
    pub workers: Vec<(Vec<D>, D::Pool)>,
    /// The operator's ends of the links, where there is something to see.
    pub ends: Vec<Box<dyn End>>,
    /// Our Ethernet addresses that only devices knew, by link.
    pub macs: Vec<(u8, MacAddr)>,
}

/// An operator's end of a link, or of what links share.
pub trait End {
    /// What is new, as a line: looked at once a second.
    fn look(&mut self) -> Option<String>;
    /// What an operator may want to know at the end, as lines.
    fn account(&self) -> Vec<String>;
}

/// A queue of a link that rvsd can open.
pub trait Device: Queue + Sized + 'static {
    /// What the configuration says of a link of this kind.
    type Link;
    /// What makes a thread a worker's; it ends on that thread.
    type Seat;
    /// Empty breaths after which a worker waits: to ask a ring costs nothing, to be woken several
    /// system calls. 0 where to ask is a system call too: then it waits after each breath, and not at
    /// all if there is a frame.
    const PATIENCE: u32 = 16;

    /// Opens `links`, each with a queue for every worker of `config`.
    fn open(links: &[Self::Link], config: &Config) -> Result<Opened<Self>, Failure>;

    /// Makes the calling thread, which is pinned, a worker's.
    fn sit_down() -> Result<Self::Seat, String>;

    /// Tells it the time, counted from 1970.
    fn tell_time(&mut self, _now: Duration) {}

    /// Waits until a frame may be there on one of `queues`, or the worker's `doorbell` rings, at
    /// most so long; says which. Links that cannot tell when frames come wait a little only.
    fn wait(_queues: &[Self], doorbell: &Doorbell, at_most: Duration) -> Woken {
        wait_for(core::iter::empty(), doorbell, at_most.min(BLIND_WAIT), |_, _| {})
    }

    /// Whether nothing will ever arrive any more.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// What an operator may want to know of it at the end.
    fn note(&self, _link: &Self::Link) -> Option<String> {
        None
    }

    /// Ends it. An error is one line: something that should be there is not.
    fn close(self, _link: &Self::Link) -> Result<(), String> {
        Ok(())
    }
}

/// Links whose frames are in rooms: `open` makes a queue of one link for every worker.
pub fn in_rooms<D: Device<Frame = RoomFrame, Pool = RoomPool>>(
    links: &[D::Link],
    config: &Config,
    open: impl Fn(&D::Link, u16) -> Result<Vec<D>, Failure>,
) -> Result<Opened<D>, Failure> {
    let count = config.workers.count();
    let frames = config.tables.frames.saturating_mul(usize::from(count));
    let mut reserve = Reserve::new(frames, config.tables.frame_octets);
    if matches!(config.links, Links::Tap(_)) && config.workers.offload {
        reserve = reserve.with_large(LARGE * links.len() * usize::from(count));
    }
    let mut workers: Vec<_> = (0..count).map(|_| (Vec::new(), reserve.pool())).collect();
    for link in links {
        for ((queues, _), queue) in workers.iter_mut().zip(open(link, count)?) {
            queues.push(queue);
        }
    }
    Ok(Opened { workers, ends: vec![Box::new(Rooms(reserve))], macs: Vec::new() })
}

/// All rooms for frames. When links and workers are gone, none of them may be missing.
struct Rooms(Reserve);

impl End for Rooms {
    fn look(&mut self) -> Option<String> {
        None
    }

    fn account(&self) -> Vec<String> {
        let (free, total) = (self.0.free(), self.0.total());
        let missing = total.saturating_sub(free);
        let line = format!("{missing} of {total} frames did not come back, which is a bug");
        (missing > 0).then_some(line).into_iter().collect()
    }
}

/// Tells once that a link's device is gone. Queues know it too, but are their workers'.
pub struct Alive {
    what: String,
    is_gone: Box<dyn Fn() -> bool>,
    is_told: bool,
}

impl Alive {
    /// For `what`, which is gone when `is_gone` says so.
    pub fn watch(what: String, is_gone: impl Fn() -> bool + 'static) -> Box<dyn End> {
        Box::new(Self { what, is_gone: Box::new(is_gone), is_told: false })
    }
}

impl End for Alive {
    fn look(&mut self) -> Option<String> {
        let is_new = !self.is_told && (self.is_gone)();
        self.is_told |= is_new;
        let rest = "is gone: nothing comes or goes by it until rvsd is started again";
        is_new.then(|| format!("rvsd: {} {rest}", self.what))
    }

    fn account(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Waits until there is something to read on one of these, or the doorbell rings, at most so long.
/// `tell` learns of each queue whether it has something, perhaps an error.
pub fn wait_for<'q>(
    queues: impl Iterator<Item = BorrowedFd<'q>>,
    doorbell: &'q Doorbell,
    at_most: Duration,
    mut tell: impl FnMut(usize, bool),
) -> Woken {
    let all = core::iter::once(doorbell.as_fd()).chain(queues);
    let one = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut all: ArrayVec<_, { 2 * LINKS_MAX + 1 }> =
        all.take(2 * LINKS_MAX + 1).map(one).collect();
    let nanos = i64::from(at_most.subsec_nanos());
    let at_most = Timespec { tv_sec: at_most.as_secs().cast_signed(), tv_nsec: nanos };
    // Interrupted by a signal is ready for whatever comes next.
    let is_told = poll(&mut all, Some(&at_most)).is_ok();
    let mut ready = all.iter().map(|one| !one.revents().is_empty());
    let rang = ready.next().unwrap_or_default();
    if rang {
        doorbell.still();
    }
    let mut any = false;
    for (queue, ready) in ready.enumerate() {
        tell(queue, ready || !is_told);
        any |= ready;
    }
    if any { Woken::Frame } else { Woken::Otherwise }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Woken {
    /// A link says that there is a frame.
    Frame,
    /// The doorbell, or time.
    Otherwise,
}

/// What others wake a worker with that waits in the kernel: eventfd(2).
#[derive(Debug)]
pub struct Doorbell(OwnedFd);

impl Doorbell {
    /// One that is still, and rings when `bell` does.
    pub fn of(bell: &Bell) -> Result<Self, Failure> {
        let failed = |source| Failure::System { what: "a worker's doorbell", source };
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        let button = fd.try_clone().map_err(failed)?;
        bell.connect(move || {
            // Refused only when it rings already.
            let _ringing = rustix::io::write(&button, &1_u64.to_ne_bytes());
        });
        Ok(Self(fd))
    }

    fn still(&self) {
        // Refused only when it is.
        let _still = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device for TapQueue {
    type Link = TapLink;
    type Seat = ();
    const PATIENCE: u32 = 0;

    fn open(links: &[TapLink], config: &Config) -> Result<Opened<Self>, Failure> {
        let mut opened = in_rooms(links, config, |link: &TapLink, workers| {
            let host = HostEnd { mtu: link.mtu, mac: None, leaves: config.workers.offload };
            Ok(tap::open(&link.device, workers, &host)?)
        })?;
        let queues = opened.workers.iter().take(1).flat_map(|(queues, _)| queues);
        for (queue, link) in queues.zip(links) {
            let failed = |source| Failure::System { what: "a link's descriptor", source };
            let fd = queue.as_fd().try_clone_to_owned().map_err(failed)?;
            // Linux 6.12 drivers/net/tun.c tun_chr_poll().
            let is_gone = move || {
                let mut one = [PollFd::new(&fd, PollFlags::empty())];
                let _count = poll(&mut one, Some(&Timespec::default()));
                one.iter().any(|one| one.revents().contains(PollFlags::ERR))
            };
            opened.ends.push(Alive::watch(format!("TAP {}", link.device), is_gone));
        }
        Ok(opened)
    }

    fn sit_down() -> Result<(), String> {
        Ok(())
    }

    fn wait(queues: &[Self], doorbell: &Doorbell, at_most: Duration) -> Woken {
        // The doorbell is in the place of one that would end each wait at once.
        let fds = queues.iter().map(
            |queue| {
                if queue.is_gone() { doorbell.as_fd() } else { queue.as_fd() }
            },
        );
        wait_for(fds, doorbell, at_most, |queue, ready| {
            if let Some(queue) = queues.get(queue) {
                queue.expect(ready);
            }
        })
    }

    fn note(&self, link: &TapLink) -> Option<String> {
        // It may have been down for a while, as when it was moved to another namespace.
        let fault = self.fault()?;
        Some(format!("TAP {}: what it last refused, it refused with: {fault}", link.device))
    }
}

impl Device for PcapQueue {
    type Link = PcapLink;
    type Seat = ();

    fn open(links: &[PcapLink], config: &Config) -> Result<Opened<Self>, Failure> {
        let read = links.iter().filter_map(|link| file_behind(link.read.as_ref()?));
        let read: Vec<_> = read.collect();
        let is_read = |path: &&PathBuf| file_behind(path).is_some_and(|file| read.contains(&file));
        if let Some(path) = links.iter().filter_map(|link| link.write.as_ref()).find(is_read) {
            return Err(Failure::Capture { path: path.clone(), source: CaptureError::IsRead });
        }
        in_rooms(links, config, |link: &PcapLink, _one| {
            let named = |path: &PathBuf| {
                let path = path.clone();
                move |source| Failure::Capture { path, source }
            };
            let replay = link.read.as_ref().map(|path| Replay::open(path).map_err(named(path)));
            let recorder =
                link.write.as_ref().map(|path| Recorder::create(path).map_err(named(path)));
            Ok(vec![Self { replay: replay.transpose()?, recorder: recorder.transpose()? }])
        })
    }

    fn sit_down() -> Result<(), String> {
        Ok(())
    }

    fn tell_time(&mut self, now: Duration) {
        if let Some(recorder) = &mut self.recorder {
            recorder.stamp(now);
        }
    }

    fn note(&self, link: &PcapLink) -> Option<String> {
        let (file, cut) = (link.read.as_ref()?.display(), self.replay.as_ref()?.cut_short());
        let said = format!(
            "capture {file}: of {cut} frames it holds the beginning only, as tcpdump's -s or the like \
             told its maker"
        );
        (cut > 0).then_some(said)
    }

    fn is_exhausted(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.next_due().is_none())
    }

    fn close(self, link: &PcapLink) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut tell = |file: &Option<PathBuf>, error: &CaptureError| {
            let file = file.as_ref().map_or(String::new(), |file| file.display().to_string());
            wrong.push(format!("capture {file}: {error}"));
        };
        if let Some(error) = self.replay.as_ref().and_then(Replay::error) {
            tell(&link.read, error);
        }
        if let Some(Err(error)) = self.recorder.map(Recorder::finish) {
            tell(&link.write, &error);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// Which file a path leads to, whatever else it is called; `None` of what is not there, or no file.
fn file_behind(path: &Path) -> Option<(u64, u64)> {
    let about = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((about.dev(), about.ino()))
}

/// Time since 1970 at the start, from which [`Device::tell_time`] counts on.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
