//! Which link each frame of a burst came from.

use arrayvec::ArrayVec;
use rvs_io::BURST_MAX;

/// The links of a burst's frames, in their order: one by one, and as runs, for stages that would
/// otherwise ask each frame for what a whole run has in common.
#[derive(Default)]
pub(crate) struct Origins {
    links: ArrayVec<u8, BURST_MAX>,
    runs: ArrayVec<(u8, usize), BURST_MAX>,
}

impl Origins {
    /// So many more frames came from `link`.
    #[inline]
    pub(crate) fn add(&mut self, link: u8, frames: usize) {
        let frames = frames.min(self.links.remaining_capacity());
        if frames == 0 {
            return;
        }
        // One copy, where a loop would ask each of them whether there is room.
        if let Some(run) = [link; BURST_MAX].get(..frames) {
            let _fits = self.links.try_extend_from_slice(run);
        }
        self.extend(link, frames);
    }

    /// One more frame came from `link`.
    #[inline]
    pub(crate) fn push(&mut self, link: u8) {
        if self.links.try_push(link).is_ok() {
            self.extend(link, 1);
        }
    }

    #[inline]
    fn extend(&mut self, link: u8, frames: usize) {
        match self.runs.last_mut() {
            Some((last, run)) if *last == link => *run += frames,
            _ => self.runs.push((link, frames)),
        }
    }

    /// The link of each frame.
    #[inline]
    pub(crate) fn links(&self) -> &[u8] {
        &self.links
    }

    /// Links, each with how many frames in turn came from it.
    #[inline]
    pub(crate) fn runs(&self) -> &[(u8, usize)] {
        &self.runs
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.links.clear();
        self.runs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_the_links_are_in_short() {
        let mut origins = Origins::default();
        for (link, frames) in [(3, 2), (0, 0), (7, 1), (3, 64), (0, 1)] {
            origins.add(link, frames);
            if link == 3 && frames == 2 {
                origins.push(link);
            }
        }
        let runs: Vec<_> =
            origins.links().chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
        assert_eq!(origins.runs(), [(3, 3), (7, 1), (3, 64), (0, 1)]);
        assert_eq!(origins.runs(), runs);
        origins.clear();
        assert_eq!((origins.links().len(), origins.runs().len()), (0, 0));
    }

    #[test]
    fn a_burst_holds_no_more_than_the_largest_one() {
        let mut origins = Origins::default();
        for link in 0..=255 {
            origins.push(link);
        }
        assert_eq!((origins.links().len(), origins.runs().len()), (BURST_MAX, BURST_MAX));
        origins.add(9, 5);
        origins.push(9);
        assert_eq!((origins.links().len(), origins.runs().len()), (BURST_MAX, BURST_MAX));
    }
}
