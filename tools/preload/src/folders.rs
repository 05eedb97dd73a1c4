//! Folders that are open: which of them are those where rvsd has names, and what names stand for there.
//!
//! The kernel says in `/proc/self/fd` what is open. It has no folder of rvsd's sysctls, so a descriptor of
//! that is one of another folder, [`Folder::LIKE`], whose position is where nobody who reads it gets.

use crate::ask::{File, Folder, SYSCTLS};
use crate::swap::borrowed;
use core::sync::atomic::{AtomicBool, Ordering};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Beyond all names that a folder can have.
const MARK: u64 = 0x7276_7300;

/// Whether the folder of the sysctls was opened: names in it are rvsd's, whatever they are.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// The file of rvsd's that a path names as seen from `folder`, a descriptor or `AT_FDCWD`.
pub(crate) fn file(folder: RawFd, path: &[u8]) -> Option<File> {
    if path.first().is_none_or(|first| *first == b'/') {
        return File::of(path);
    }
    // All have "vs" in them, but those of sysctls as seen from their folder. Others cost nothing.
    let may_be_ours = IS_OPEN.load(Ordering::Relaxed) || path.windows(2).any(|it| it == b"vs");
    if !may_be_ours {
        return None;
    }
    File::of(&seen_from(folder, path)?)
}

/// A path as seen from a folder, from the root.
fn seen_from(folder: RawFd, path: &[u8]) -> Option<Vec<u8>> {
    let mut whole = path_of(folder)?;
    if whole != b"/" {
        whole.push(b'/');
    }
    whole.extend_from_slice(path);
    Some(whole)
}

/// The folder in which rvsd has names that a path names.
pub(crate) fn folder_at(path: &[u8]) -> Option<Folder> {
    if path.first().is_none_or(|first| *first == b'/') {
        return Folder::of(path);
    }
    Folder::of(&seen_from(libc::AT_FDCWD, path)?)
}

/// The folder in which rvsd has names that is open in a descriptor.
pub(crate) fn folder(fd: RawFd) -> Option<Folder> {
    Folder::of(&path_of(fd)?)
}

/// Makes of a new descriptor of [`Folder::LIKE`] one of the folder of the sysctls.
pub(crate) fn mark(fd: BorrowedFd) -> Result<(), Errno> {
    IS_OPEN.store(true, Ordering::Relaxed);
    rustix::fs::seek(fd, SeekFrom::Start(MARK)).map(drop)
}

/// The path of a folder that is open, or of the working one.
fn path_of(folder: RawFd) -> Option<Vec<u8>> {
    let link = if folder == libc::AT_FDCWD {
        "/proc/self/cwd".to_owned()
    } else {
        format!("/proc/self/fd/{folder}")
    };
    let path = rustix::fs::readlink(link, Vec::new()).ok()?.into_bytes();
    let is_marked = IS_OPEN.load(Ordering::Relaxed)
        && path == Folder::LIKE.to_bytes()
        && borrowed(folder).is_some_and(|fd| rustix::fs::tell(fd) == Ok(MARK));
    Some(if is_marked { [b"/proc/", SYSCTLS].concat() } else { path })
}
