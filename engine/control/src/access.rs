//! Who may ask, and who may change.
//!
//! Root and rvsd's own user may do everything. Of the others the mode of a socket's file decides who
//! comes in, and [`Rules`] what they may there.

use crate::journal::Peer;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use rvs_api::Access;
use std::ffi::CString;

/// The groups that `[control]` names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// Whose members may change. When no group at all is named, anybody may who comes in.
    pub change: Vec<u32>,
    /// Whose members may ask; anybody who comes in when none is named.
    pub read: Vec<u32>,
}

impl Rules {
    /// What a client may.
    #[must_use]
    pub fn access(&self, peer: Option<Peer>) -> Access {
        let Some(peer) = peer else { return Access::None };
        if peer.uid == 0 || peer.uid == Uid::effective().as_raw() {
            return Access::Change;
        }
        if self.change.is_empty() && self.read.is_empty() {
            return Access::Change;
        }
        let groups = groups(peer);
        let is_in = |named: &[u32]| named.iter().any(|gid| groups.contains(gid));
        if is_in(&self.change) {
            Access::Change
        } else if self.read.is_empty() || is_in(&self.read) {
            Access::Read
        } else {
            Access::None
        }
    }
}

/// The groups of a process's user: the process's own, and those of the group database.
fn groups(peer: Peer) -> Vec<u32> {
    let known = || {
        let user = User::from_uid(Uid::from_raw(peer.uid)).ok()??;
        getgrouplist(&CString::new(user.name).ok()?, user.gid).ok()
    };
    let known = known().unwrap_or_default();
    known.into_iter().map(Gid::as_raw).chain([peer.gid]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Option<Peer> = Some(Peer { pid: 1, uid: 4_000_000_000, gid: 4_000_000_001 });

    #[test]
    fn root_may_everything_and_somebody_unknown_nothing() {
        let rules = Rules { change: vec![7], read: vec![8] };
        assert_eq!(rules.access(Some(Peer { pid: 1, uid: 0, gid: 9 })), Access::Change);
        assert_eq!(rules.access(None), Access::None);
    }

    #[test]
    fn groups_decide_once_they_are_named() {
        for (change, read, expected) in [
            (vec![], vec![], Access::Change),
            (vec![4_000_000_001], vec![], Access::Change),
            (vec![7], vec![], Access::Read),
            (vec![7], vec![4_000_000_001], Access::Read),
            (vec![7], vec![8], Access::None),
        ] {
            let rules = Rules { change, read };
            assert_eq!(rules.access(OTHER), expected, "{rules:?}");
        }
    }

    #[test]
    fn a_named_reading_group_alone_lets_nobody_else_change() {
        let rules = Rules { change: vec![], read: vec![8] };
        assert_eq!(rules.access(OTHER), Access::None);
    }
}
