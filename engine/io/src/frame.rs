//! Frames and where they come from.

/// A frame: octets from the Ethernet header on, in a room with space before and behind them.
pub trait Frame: Send + Sized {
    /// From the Ethernet header on.
    fn octets(&self) -> &[u8];
    /// From the Ethernet header on.
    fn octets_mut(&mut self) -> &mut [u8];
    /// Moves the front: `by` more octets in front if positive, fewer if negative. The new octets
    /// hold anything. `false`, and nothing changes, when there is no such space.
    #[must_use]
    fn shift_front(&mut self, by: isize) -> bool;
    /// Makes the frame `len` octets long, at the end. `false` when there is no such space.
    #[must_use]
    fn resize(&mut self, len: usize) -> bool;
}

/// Empty frames of one worker.
pub trait Pool: Send {
    /// What it lends.
    type Frame: Frame;
    /// An empty frame (length 0, all headroom), or `None` when there is none.
    fn take(&mut self) -> Option<Self::Frame>;
    /// Takes a frame back.
    fn give(&mut self, frame: Self::Frame);
}
