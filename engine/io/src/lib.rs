//! Where frames come from and go to.
//!
//! ```text
//!  Link (a device) ──split──► one Queue per worker: receive, send
//!                             one Pool  per worker: empty frames, refilled from what all share
//! ```
//!
//! A frame is octets in a room with space before and behind; what the octets mean is nobody's
//! business here. A worker holds one queue of every link and one pool. Which driver it is, is a type
//! parameter of the worker, chosen once per process: nothing dynamic per frame.
//!
//! | link | for | frames |
//! |---|---|---|
//! | [`memory`] | tests, benches, simulation; receive side scaling in software | move |
//! | [`pcap`] | a capture in, a capture out | are copied |
//! | [`tap`] | the host's stack, containers; several queues | are copied, a system call each |
//! | [`af_xdp`] | cards that the host's kernel keeps; several queues | are copied, out of memory that card or kernel wrote |
//! | [`faulty`] | a bad network around any of them: tests, simulation | as inside |
//!
//! These share one kind of frame, [`RoomFrame`]. A driver with memory of its own brings its own
//! frame and pool. All `unsafe` of the links is in this crate.

pub mod af_xdp;
pub mod faulty;
pub mod frame;
pub mod memory;
mod netdevice;
pub mod pcap;
pub mod superframe;
pub mod tap;

use arrayvec::ArrayVec;
pub use frame::{Frame, Pool, Reserve, RoomFrame, RoomPool, Segments, Unfinished};

/// The largest burst: what one breath may take in, over all links.
pub const BURST_MAX: usize = 256;

/// Frames that move together.
pub type Burst<F> = ArrayVec<F, BURST_MAX>;

/// One worker's end of a link: a receive queue and a transmit queue. Neither `Clone` nor shared.
pub trait Queue: Send {
    /// What the link's frames live in.
    type Frame: Frame;
    /// Where they come from and return to.
    type Pool: Pool<Frame = Self::Frame>;

    /// Appends at most `most` received frames to `burst`, never beyond its capacity, and says how
    /// many. Does not wait.
    fn receive(
        &mut self,
        pool: &mut Self::Pool,
        burst: &mut Burst<Self::Frame>,
        most: usize,
    ) -> usize;

    /// Sends frames from the front of `burst`, in order, and removes those; what is left the queue
    /// refused, and the caller counts it. Returns how many went.
    fn send(&mut self, pool: &mut Self::Pool, burst: &mut Burst<Self::Frame>) -> usize;

    /// What the link itself received but could not hand over so far.
    fn lost(&self) -> Lost {
        Lost::default()
    }
}

/// Frames that a queue received and could not hand over; each is part of the worker's drops.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// Longer than a frame's room.
    pub too_long: u64,
    /// No empty frame was left.
    pub no_frame: u64,
    /// To be cut, or to be given a checksum, in a way that nobody offered to carry.
    pub uncarriable: u64,
}

impl Lost {
    /// All of them.
    #[must_use]
    pub fn all(self) -> u64 {
        let Self { too_long, no_frame, uncarriable } = self;
        too_long + no_frame + uncarriable
    }
}
