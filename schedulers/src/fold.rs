//! How many connections destinations have on other workers, as one worker last looked.
//!
//! ```text
//!  load(dest) = own line, now  +  Σ other workers' lines, when last looked at
//! ```
//!
//! Whoever counts connections would have to read a line of every worker for every destination, for
//! every new connection: 6300 cache lines that other cores write, for 100 destinations on 64
//! workers. So a worker reads only some of them each time, in turn, and remembers the sums. Nobody
//! writes anything that another worker reads; with one worker there is nothing to read.

use crate::Candidate;
use rvs_model::{DestId, Load, Tick};

/// Lines of other workers read for each new connection.
///
/// Reads do not wait for each other, so these are about one microsecond when all of them were just
/// written elsewhere. Up to 64 lines (9 destinations on 8 workers) nothing is remembered longer than
/// for one choice.
pub const LINES: usize = 64;
/// Lines read for the first new connection of a service in a tick: whoever was idle catches up.
pub const LINES_AT_FIRST: usize = 1024;

/// Where a service's turn to be looked at stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    next: u32,
    tick: Option<Tick>,
}

/// Connections on other workers.
#[derive(Clone, Debug)]
pub struct Fold {
    others: Box<[Load]>,
}

impl Fold {
    /// For so many destinations, by [`DestId`].
    #[must_use]
    pub fn new(dests: usize) -> Self {
        Self { others: vec![Load::default(); dests].into() }
    }

    /// Looks at some of `dests` again: what `read` says of each, which adds up the lines of `others`
    /// workers.
    #[inline]
    pub fn refresh(
        &mut self,
        dests: &[Candidate],
        cursor: &mut Cursor,
        others: usize,
        now: Tick,
        read: impl Fn(DestId) -> Load,
    ) {
        let is_first = cursor.tick != Some(now);
        let lines = if is_first { LINES_AT_FIRST } else { LINES };
        let Some(most) = lines.checked_div(others) else { return };
        cursor.tick = Some(now);
        let start = usize::try_from(cursor.next).unwrap_or_default();
        let (before, after) = dests.split_at_checked(start).unwrap_or((&[], dests));
        let count = most.clamp(1, dests.len().max(1));
        for dest in after.iter().chain(before).take(count) {
            let place = usize::try_from(dest.id.0).unwrap_or(usize::MAX);
            if let Some(load) = self.others.get_mut(place) {
                *load = read(dest.id);
            }
        }
        let next = (start + count).checked_rem(dests.len()).unwrap_or_default();
        cursor.next = u32::try_from(next).unwrap_or_default();
    }

    /// A destination's connections, of which `own` are this worker's.
    #[inline]
    #[must_use]
    pub fn load(&self, id: DestId, own: Load) -> Load {
        let place = usize::try_from(id.0).unwrap_or(usize::MAX);
        let others = self.others.get(place).copied().unwrap_or_default();
        Load {
            active: own.active.wrapping_add(others.active),
            inactive: own.inactive.wrapping_add(others.inactive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::dests;

    #[test]
    fn all_dests_are_looked_at_in_turn_and_many_at_first() {
        let list: Vec<_> = (0..40).map(|id| (id, 1)).collect();
        let list = dests(&list);
        let (mut fold, mut cursor) = (Fold::new(40), Cursor::default());
        let fresh = |fold: &Fold, active| {
            let load = |dest: &Candidate| fold.load(dest.id, Load::default()).active;
            list.iter().filter(|dest| load(dest) == active).count()
        };
        let mut look = |fold: &mut Fold, now, active| {
            fold.refresh(&list, &mut cursor, 63, now, |_| Load { active, inactive: 0 });
        };
        look(&mut fold, 1, 1);
        assert_eq!(fresh(&fold, 1), 16, "1024 lines of 63 others");
        (0..24).for_each(|_| look(&mut fold, 1, 2));
        assert_eq!((fresh(&fold, 1), fresh(&fold, 2)), (16, 24));
        (0..16).for_each(|_| look(&mut fold, 1, 3));
        assert_eq!(fresh(&fold, 3), 16);
    }

    #[test]
    fn a_worker_alone_and_a_list_that_shrank_are_no_danger() {
        let list = dests(&[(0, 1), (1, 1), (7, 1)]);
        let (mut fold, mut cursor) = (Fold::new(2), Cursor::default());
        let read = |_| Load { active: 5, inactive: 6 };
        fold.refresh(&list, &mut cursor, 0, 1, read);
        let own = Load { active: 1, inactive: 2 };
        assert_eq!(fold.load(DestId(1), own), own);
        fold.refresh(&list[..2], &mut cursor, 40, 1, read);
        fold.refresh(&list[..1], &mut cursor, 40, 1, read);
        fold.refresh(&[], &mut cursor, 40, 1, read);
        assert_eq!(fold.load(DestId(0), own), Load { active: 6, inactive: 8 });
        assert_eq!(fold.load(DestId(7), own), own, "no such destination");
    }
}
