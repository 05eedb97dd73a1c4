//! What was counted before a restart.
//!
//! Written when rvsd ends in order or because a worker is lost, read and removed at the next start. So
//! counters go on where they were; after a crash they begin at 0, and never twice at the same number:
//! who adds up increases, as monitoring does, must not count them again.

use rvs_api::{ServiceEntry, ServiceKey, Totals};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A service's counters since the last `-Z`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Tally {
    pub(crate) service: ServiceKey,
    pub(crate) totals: Totals,
    pub(crate) dests: Vec<(SocketAddr, Totals)>,
}

impl From<&ServiceEntry> for Tally {
    fn from(entry: &ServiceEntry) -> Self {
        let dests = entry.dests.iter().map(|dest| (dest.dest, dest.totals)).collect();
        Self { service: entry.service, totals: entry.totals, dests }
    }
}

/// Where counters are, beside the state at `path`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".counters");
    name.into()
}

/// Puts them beside the state at `path`.
pub(crate) fn save(path: &Path, tallies: &[Tally]) -> io::Result<()> {
    let text = serde_json::to_vec(tallies)?;
    let (place, mut temporary) = (beside(path), beside(path).into_os_string());
    temporary.push(".tmp");
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&temporary)?.write_all(&text)?;
        fs::rename(&temporary, place)
    };
    // A disk that is full has no room for half of it either.
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Takes them from there. None if there are none, or nothing that we wrote.
pub(crate) fn take(path: &Path) -> Vec<Tally> {
    let place = beside(path);
    let text = fs::read(&place).unwrap_or_default();
    let _there_may_be_none = fs::remove_file(place);
    serde_json::from_slice(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("rvs-tally-{}", std::process::id()));
        fs::create_dir_all(folder.join("state.counters")).unwrap();
        save(&folder.join("state"), &[]).unwrap_err();
        let left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["state.counters"]);
    }
}
