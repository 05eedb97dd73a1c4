//! What workers tell each other: frames that reached the wrong one, neighbours that one heard of, and
//! data connections of FTP that one was told of.

use crate::bell::Bell;
use crate::ftp::Word;
use crate::icmp::Local;
use crate::neighbor::News;
use crate::network::InterfaceId;
use crate::origins::Origins;
use crate::sync::{Ordering, fence};
use arrayvec::ArrayVec;
use core::net::IpAddr;
use crossbeam_queue::ArrayQueue;
use rvs_io::{Burst, Frame};
use rvs_wire::flow::{V4, V6};
use rvs_wire::piece::Names;
use std::sync::Arc;

/// Frames that travel together: one exchange between two cores for so many.
pub const TOGETHER: usize = 8;
/// Batches of frames on their way to their owner, per worker.
pub const BATCHES: usize = 256;
/// Fragments on their way to a worker.
const STRAYS: usize = 256;
/// Neighbours on their way to a worker.
const NEIGHBORS: usize = 256;
/// Words of data connections on their way to a worker, of each family.
const WORDS: usize = 512;

/// A frame and the link that it came from.
#[derive(Debug)]
pub struct Handed<F> {
    /// The frame, as received.
    pub frame: F,
    /// Index of the link.
    pub link: u8,
}

/// Frames from one worker to another.
pub(crate) type Batch<F> = ArrayVec<Handed<F>, TOGETHER>;

/// A fragment on its way to the worker of its client's address, or from there to its connection's.
#[derive(Debug)]
pub(crate) struct Stray<F> {
    pub(crate) frame: F,
    /// Index of the link.
    pub(crate) link: u8,
    /// Where the IP header begins.
    pub(crate) l3: u16,
    /// The VLAN that it came in.
    pub(crate) vlan: u16,
    /// What the first fragment said, once that is known.
    pub(crate) names: Option<Names>,
}

impl<F: Frame> Stray<F> {
    /// The packet, from its IP header on.
    pub(crate) fn packet(&self) -> &[u8] {
        self.frame.octets().get(usize::from(self.l3)..).unwrap_or_default()
    }

    pub(crate) fn named(self, names: Names) -> Self {
        Self { names: Some(names), ..self }
    }
}

/// A neighbour that a worker heard of.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Where.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
    /// What it said of itself.
    pub news: News,
}

/// What others put before one worker.
#[derive(Debug)]
pub struct Inbox<F> {
    pub(crate) frames: ArrayQueue<Batch<F>>,
    pub(crate) strays: ArrayQueue<Stray<F>>,
    heard: ArrayQueue<Heard>,
    /// Wakes the worker.
    bell: Arc<Bell>,
    pub(crate) words4: ArrayQueue<Word<V4>>,
    pub(crate) words6: ArrayQueue<Word<V6>>,
}

impl<F> Inbox<F> {
    /// Takes out what fits of at most `most` frames, or a batch; whether more waits.
    ///
    /// Asks first whether there is anything: to find that out by `pop` is a fence, which waits for all
    /// stores of the last burst.
    #[inline(always)]
    pub(crate) fn empty(&self, into: &mut Burst<F>, most: usize, origins: &mut Origins) -> bool {
        let last = most.saturating_sub(TOGETHER);
        while into.len() <= last {
            if self.frames.is_empty() {
                return false;
            }
            let Some(batch) = self.frames.pop() else { return false };
            for Handed { frame, link } in batch {
                into.push(frame);
                origins.push(link);
            }
        }
        !self.frames.is_empty()
    }

    /// Batches of frames, each of at most [`TOGETHER`], and fragments that wait in it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.frames.len() + self.strays.len()
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        let is_silent = self.heard.is_empty() && !self.has_words();
        self.frames.is_empty() && self.strays.is_empty() && is_silent
    }

    /// A neighbour that another worker heard of.
    #[inline]
    pub(crate) fn heard(&self) -> Option<Heard> {
        // As in `Inbox::empty`.
        if self.heard.is_empty() { None } else { self.heard.pop() }
    }

    /// Whether others know of data connections.
    pub(crate) fn has_words(&self) -> bool {
        !self.words4.is_empty() || !self.words6.is_empty()
    }
}

/// One inbox per worker, known to all.
#[derive(Debug)]
pub struct Mesh<F>(Arc<[Inbox<F>]>);

impl<F> Clone for Mesh<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F> Mesh<F> {
    /// For `workers` workers that never wait.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        Self::with_bells((0..workers.max(1)).map(|_| Arc::default()))
    }

    /// For as many workers as there are bells, each woken by its own.
    #[must_use]
    pub fn with_bells(bells: impl Iterator<Item = Arc<Bell>>) -> Self {
        let inbox = |bell| Inbox {
            frames: ArrayQueue::new(BATCHES),
            strays: ArrayQueue::new(STRAYS),
            heard: ArrayQueue::new(NEIGHBORS),
            bell,
            words4: ArrayQueue::new(WORDS),
            words6: ArrayQueue::new(WORDS),
        };
        Self(bells.map(inbox).collect())
    }

    /// One worker's.
    #[inline]
    #[must_use]
    pub fn inbox(&self, worker: u16) -> Option<&Inbox<F>> {
        self.0.get(usize::from(worker))
    }

    /// Says `word` to all others; `None` if somebody's ring is full.
    pub(crate) fn say<A: Local>(&self, from: u16, word: Word<A>) -> Option<()> {
        let others = self.0.iter().zip(0u16..).filter(|(_, number)| *number != from);
        let heard =
            |all: bool, (inbox, _): (&Inbox<F>, u16)| A::words(inbox).push(word).is_ok() && all;
        others.fold(true, heard).then_some(())
    }

    /// Tells all others. A full ring loses the news: the loser asks for itself.
    pub(crate) fn tell(&self, from: u16, heard: Heard) {
        for (inbox, number) in self.0.iter().zip(0u16..) {
            if number != from {
                let _full = inbox.heard.push(heard);
            }
        }
        self.wake(from);
    }

    /// Wakes all others that wait although something waits for them. Once a breath, and only in one
    /// that handed something over: it is a fence.
    #[cold]
    pub(crate) fn wake(&self, from: u16) {
        fence(Ordering::SeqCst);
        for (inbox, number) in self.0.iter().zip(0u16..) {
            if number != from && !inbox.is_empty() {
                inbox.bell.ring_if_asleep();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    fn heard() -> Heard {
        let mac = rvs_wire::mac::MacAddr([2, 0, 0, 0, 0, 9]);
        let news = News { mac, solicited: true, overrides: true, create: false };
        Heard { interface: InterfaceId(0), address: [192, 0, 2, 9].into(), news }
    }

    fn batch() -> Batch<u8> {
        iter::once(Handed { frame: 7, link: 0 }).collect()
    }

    #[test]
    fn news_reaches_all_others_and_a_full_ring_loses_it() {
        let mesh = Mesh::<u8>::new(3);
        for _ in 0..NEIGHBORS + 5 {
            mesh.tell(1, heard());
        }
        let waiting: Vec<_> =
            (0..3).map(|worker| mesh.inbox(worker).unwrap().heard.len()).collect();
        assert_eq!(waiting, [NEIGHBORS, 0, NEIGHBORS]);
    }

    #[test]
    fn who_waits_with_something_before_it_is_woken_and_nobody_else() {
        let bells: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
        let woken = Arc::new(ArrayQueue::new(8));
        for (bell, number) in bells.iter().zip(0..) {
            let woken = Arc::clone(&woken);
            bell.connect(move || woken.push(number).unwrap());
        }
        let mesh = Mesh::with_bells(bells.iter().map(Arc::clone));
        mesh.inbox(1).unwrap().frames.push(batch()).unwrap();
        mesh.wake(0);
        assert_eq!(woken.pop(), None, "all are awake");
        bells[1].wait_unless(|| false, || bells[2].wait_unless(|| false, || mesh.wake(0)));
        assert_eq!((woken.pop(), woken.pop()), (Some(1), None));
        bells[2].wait_unless(|| false, || mesh.tell(0, heard()));
        assert_eq!((woken.pop(), woken.pop()), (Some(2), None));
    }

    #[test]
    fn clones_are_the_same_inboxes_and_there_is_one_for_each_worker() {
        let mesh = Mesh::new(2);
        let other = mesh.clone();
        mesh.inbox(1).unwrap().frames.push(batch()).unwrap();
        assert_eq!(other.inbox(1).unwrap().waiting(), 1);
        assert!(other.inbox(2).is_none());
    }
}
