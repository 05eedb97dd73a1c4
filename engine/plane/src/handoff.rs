//! What workers tell each other: frames that reached the wrong one, and neighbours that one heard of.

use crate::neighbor::News;
use crate::network::InterfaceId;
use core::net::IpAddr;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// Frames on their way to their owner, per worker.
const FRAMES: usize = 1024;
/// Neighbours on their way to a worker.
const NEIGHBORS: usize = 256;

/// A frame and the link that it came from.
#[derive(Debug)]
pub struct Handed<F> {
    /// The frame, as received.
    pub frame: F,
    /// Index of the link.
    pub link: u8,
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
    pub(crate) frames: ArrayQueue<Handed<F>>,
    pub(crate) heard: ArrayQueue<Heard>,
}

impl<F> Inbox<F> {
    /// Frames waiting in it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.frames.len()
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
    /// For `workers` workers.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        let inbox = || Inbox { frames: ArrayQueue::new(FRAMES), heard: ArrayQueue::new(NEIGHBORS) };
        Self((0..workers.max(1)).map(|_| inbox()).collect())
    }

    /// One worker's.
    #[inline]
    #[must_use]
    pub fn inbox(&self, worker: u16) -> Option<&Inbox<F>> {
        self.0.get(usize::from(worker))
    }

    /// Tells all others. A full ring loses the news: the loser asks for itself.
    pub(crate) fn tell(&self, from: u16, heard: Heard) {
        for (inbox, number) in self.0.iter().zip(0u16..) {
            if number != from {
                let _full = inbox.heard.push(heard);
            }
        }
    }
}
