//! Which services changed lately: so that what follows the table need not look at all of it.

use rvs_model::ServiceId;

/// Changes that are remembered. Whoever is further behind looks at everything.
const CHANGES_MAX: usize = 4096;

/// The latest changes, by the version that each made.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// All changes after this version are in the list.
    since: u64,
    list: Vec<(u64, ServiceId)>,
}

impl Log {
    /// Takes note that `id` changed at `version`, which never goes back.
    pub(super) fn note(&mut self, version: u64, id: ServiceId) {
        if self.list.len() == CHANGES_MAX {
            self.since = self.list.last().map_or(self.since, |(last, _)| *last);
            self.list.clear();
        }
        self.list.push((version, id));
    }

    /// The places that changed after `version`, without doubles and in order; `None` if that is not
    /// known any more.
    pub(super) fn after(&self, version: u64) -> Option<Vec<ServiceId>> {
        if version < self.since {
            return None;
        }
        let first = self.list.partition_point(|(at, _)| *at <= version);
        let mut places: Vec<_> = self.list.iter().skip(first).map(|(_, id)| *id).collect();
        places.sort_unstable();
        places.dedup();
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_told_once_and_what_is_not_is_not_guessed() {
        let mut log = Log::default();
        assert_eq!(log.after(0), Some(vec![]));
        for version in 1..=5_u32 {
            log.note(version.into(), ServiceId(7 - version % 2));
        }
        assert_eq!(log.after(0), Some(vec![ServiceId(6), ServiceId(7)]));
        assert_eq!(log.after(4), Some(vec![ServiceId(6)]));
        assert_eq!(log.after(5), Some(vec![]));
        for version in 6..6 + u32::try_from(CHANGES_MAX).unwrap() {
            log.note(version.into(), ServiceId(version));
        }
        assert_eq!(log.after(5), None);
        assert!(log.after(4096 + 4).is_some());
    }
}
