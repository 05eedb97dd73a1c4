//! The kinds of links, and what rvsd wants of one beside moving frames.

use crate::Failure;
use arrayvec::ArrayVec;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvs_control::config::{Config, LINKS_MAX, PcapLink, TapLink};
use rvs_io::pcap::{CaptureError, PcapQueue, Recorder, Replay};
use rvs_io::tap::{self, HostEnd, TapQueue};
use rvs_io::{Queue, Reserve, RoomFrame, RoomPool};
use rvs_wire::mac::MacAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::thread;
use std::time::SystemTime;

/// All links of a director, open.
pub struct Opened<D: Device> {
    /// For each worker a queue of every link, and its empty frames.
    pub workers: Vec<(Vec<D>, D::Pool)>,
    /// The operator's ends of the links, where there is something to see.
    pub ends: Vec<Box<dyn End>>,
    /// Our Ethernet addresses that only devices knew, by link.
    pub macs: Vec<(u8, MacAddr)>,
}

/// An operator's end of a link.
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

    /// Opens `links`, each with a queue for every worker of `config`.
    fn open(links: &[Self::Link], config: &Config) -> Result<Opened<Self>, Failure>;

    /// Makes the calling thread, which is pinned, a worker's.
    fn sit_down() -> Result<Self::Seat, String>;

    /// Tells it the time, counted from 1970.
    fn tell_time(&mut self, _now: Duration) {}

    /// Waits until a frame may be there on one of `queues`, at most so long, and says whether one
    /// may be. Nothing else ends it early.
    fn wait(_queues: &[Self], at_most: Duration) -> bool {
        thread::sleep(at_most);
        false
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
    let reserve = Reserve::new(frames, config.tables.frame_octets);
    let mut workers: Vec<_> = (0..count).map(|_| (Vec::new(), reserve.pool())).collect();
    for link in links {
        for ((queues, _), queue) in workers.iter_mut().zip(open(link, count)?) {
            queues.push(queue);
        }
    }
    Ok(Opened { workers, ends: Vec::new(), macs: Vec::new() })
}

/// Waits until there is something to read on one of these, at most so long: whether there is.
pub fn wait_for<'q>(all: impl Iterator<Item = BorrowedFd<'q>>, at_most: Duration) -> bool {
    let one = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut all: ArrayVec<_, { 2 * LINKS_MAX }> = all.take(2 * LINKS_MAX).map(one).collect();
    let nanos = i64::from(at_most.subsec_nanos());
    let at_most = Timespec { tv_sec: at_most.as_secs().cast_signed(), tv_nsec: nanos };
    // Interrupted by a signal is ready for whatever comes next.
    poll(&mut all, Some(&at_most)).is_ok_and(|ready| ready > 0)
}

impl Device for TapQueue {
    type Link = TapLink;
    type Seat = ();

    fn open(links: &[TapLink], config: &Config) -> Result<Opened<Self>, Failure> {
        in_rooms(links, config, |link: &TapLink, workers| {
            let host = HostEnd { mtu: link.mtu, mac: None };
            Ok(tap::open(&link.device, workers, &host)?)
        })
    }

    fn sit_down() -> Result<(), String> {
        Ok(())
    }

    fn wait(queues: &[Self], at_most: Duration) -> bool {
        wait_for(queues.iter().map(AsFd::as_fd), at_most)
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

/// Time since 1970 at the start, from which [`Device::tell_time`] counts on.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
