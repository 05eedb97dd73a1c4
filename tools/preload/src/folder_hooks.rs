//! The C library's functions of folders, replaced, so that who lists `/proc` finds what rvsd answers for.
//!
//! ```text
//!  /proc/net              the kernel's names, then ip_vs, ip_vs_conn, ...
//!  /proc/sys/net/ipv4     the kernel's names, then vs
//!  /proc/sys/net/ipv4/vs  rvsd's names; the stream is one of another folder
//! ```
//!
//! As in `hooks`, each function has the safety of that whose name it has. A stream is the C library's;
//! which of them have names of rvsd's is in [`STREAMS`]. Two calls on one stream do not overlap, as
//! readdir(3) demands.

use crate::ask::Folder;
use crate::file_hooks::{lstat, open, stat};
use crate::folders;
use crate::next::{next, set_errno};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::{DIR, dirent, dirent64};
use rustix::fd::{FromRawFd, OwnedFd};
use rustix::io::Errno;

const _: () = assert!(size_of::<dirent>() == size_of::<dirent64>(), "one is the other");

/// What a stream shows that is rvsd's.
struct Listing {
    /// A line each.
    names: Vec<u8>,
    /// How much of them was shown.
    shown: usize,
    /// Whether the kernel's names come first.
    after_kernels: bool,
    /// The one that was shown last.
    entry: dirent,
}

impl Listing {
    /// The next name, if there is one.
    fn next(&mut self) -> Option<*mut dirent> {
        let rest = self.names.get(self.shown..)?;
        let end = rest.iter().position(|octet| *octet == b'\n')?;
        let name = rest.get(..end)?;
        self.shown += end + 1;
        // What looks for files of one number would take these for one file; none of them has two names.
        self.entry.d_ino = u64::try_from(self.shown).unwrap_or(u64::MAX);
        self.entry.d_reclen = u16::try_from(size_of::<dirent>()).unwrap_or(u16::MAX);
        self.entry.d_type = libc::DT_UNKNOWN;
        let last = self.entry.d_name.len() - 1;
        self.entry.d_name.fill(0);
        for (place, octet) in self.entry.d_name.iter_mut().take(last).zip(name) {
            *place = c_char::from_ne_bytes([*octet]);
        }
        Some(&raw mut self.entry)
    }

    /// The kernel has this name itself: it is shown already.
    fn forget(&mut self, name: &[u8]) {
        let is_other = |line: &&[u8]| line.strip_suffix(b"\n") != Some(name);
        let others = self.names.split_inclusive(|octet| *octet == b'\n').filter(is_other);
        self.names = others.collect::<Vec<_>>().concat();
    }
}

struct Stream {
    /// The C library's; null is nobody's.
    dir: AtomicPtr<DIR>,
    /// A box.
    listing: AtomicPtr<Listing>,
}

/// Streams with names of rvsd's: few programs list these folders, and few at a time.
static STREAMS: [Stream; 16] = [const {
    Stream { dir: AtomicPtr::new(ptr::null_mut()), listing: AtomicPtr::new(ptr::null_mut()) }
}; 16];

fn stream(dir: *mut DIR) -> Option<&'static Stream> {
    STREAMS.iter().find(|stream| !dir.is_null() && stream.dir.load(Ordering::Acquire) == dir)
}

/// What a stream of a folder shows; where all names are rvsd's it is not opened without them.
fn listing(folder: Folder) -> Result<Listing, Errno> {
    let names = match (folder.is_whole(), folder.names()) {
        (false, names) => names.unwrap_or_default(),
        (true, names) => [b".\n..\n", names?.as_slice()].concat(),
    };
    // SAFETY: a structure of integers.
    let entry: dirent = unsafe { core::mem::zeroed() };
    Ok(Listing { names, shown: 0, after_kernels: !folder.is_whole(), entry })
}

/// A place for a stream that is being opened.
fn place() -> Option<&'static Stream> {
    let reserved = ptr::without_provenance_mut(1);
    STREAMS.iter().find(|stream| {
        let null = ptr::null_mut();
        stream.dir.compare_exchange(null, reserved, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })
}

/// A place and what is shown there; none if there is no place, and the kernel's names will do.
fn prepared(folder: Folder) -> Result<Option<(&'static Stream, Listing)>, Errno> {
    let listing = listing(folder)?;
    match place() {
        Some(place) => Ok(Some((place, listing))),
        None if listing.after_kernels => Ok(None),
        None => Err(Errno::MFILE),
    }
}

impl Stream {
    /// Has a new stream show what is in `listing`.
    fn show(&self, dir: *mut DIR, listing: Listing) {
        self.listing.store(Box::into_raw(Box::new(listing)), Ordering::Release);
        self.dir.store(dir, Ordering::Release);
    }
}

type Open = unsafe extern "C" fn(*const c_char) -> *mut DIR;
type Read = unsafe extern "C" fn(*mut DIR) -> *mut dirent;

/// opendir(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn opendir(path: *const c_char) -> *mut DIR {
    let folder = (!path.is_null()).then(|| {
        // SAFETY: the caller's path.
        folders::folder_at(unsafe { CStr::from_ptr(path) }.to_bytes())
    });
    if folder.flatten().is_none() {
        let next = next!(c"opendir", Open);
        // SAFETY: as it came.
        return unsafe { next(path) };
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the caller's path.
    let fd = unsafe { open(path, flags, 0) };
    if fd < 0 {
        return ptr::null_mut();
    }
    // SAFETY: a new descriptor.
    let dir = unsafe { fdopendir(fd) };
    if dir.is_null() {
        // SAFETY: nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    dir
}

/// fdopendir(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdopendir(fd: c_int) -> *mut DIR {
    let prepared = match folders::folder(fd).map_or(Ok(None), prepared) {
        Ok(prepared) => prepared,
        Err(error) => {
            set_errno(error.raw_os_error());
            return ptr::null_mut();
        }
    };
    let next = next!(c"fdopendir", unsafe extern "C" fn(c_int) -> *mut DIR);
    // SAFETY: as it came.
    let dir = unsafe { next(fd) };
    match prepared {
        Some((place, _)) if dir.is_null() => place.dir.store(dir, Ordering::Release),
        Some((place, listing)) => place.show(dir, listing),
        None => {}
    }
    dir
}

/// readdir(3), whose entries are those of readdir64(3) on the machines that rvs runs on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readdir(dir: *mut DIR) -> *mut dirent {
    let next = next!(c"readdir", Read);
    let Some(stream) = stream(dir) else {
        // SAFETY: as it came.
        return unsafe { next(dir) };
    };
    let listing = stream.listing.load(Ordering::Acquire);
    // SAFETY: a box that goes with the stream; calls on a stream do not overlap.
    let Some(listing) = (unsafe { listing.as_mut() }) else { return ptr::null_mut() };
    if listing.after_kernels {
        // SAFETY: as it came.
        let entry = unsafe { next(dir) };
        if !entry.is_null() {
            // SAFETY: the C library's, until the next call on this stream.
            let name = unsafe { (&raw const (*entry).d_name).cast() };
            // SAFETY: it ends with a zero.
            let name = unsafe { CStr::from_ptr(name) };
            listing.forget(name.to_bytes());
            return entry;
        }
    }
    listing.next().unwrap_or(ptr::null_mut())
}

/// readdir64(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readdir64(dir: *mut DIR) -> *mut dirent {
    // SAFETY: as it came.
    unsafe { readdir(dir) }
}

/// rewinddir(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rewinddir(dir: *mut DIR) {
    if let Some(stream) = stream(dir) {
        // SAFETY: as in `readdir`.
        if let Some(listing) = unsafe { stream.listing.load(Ordering::Acquire).as_mut() } {
            listing.shown = 0;
            if !listing.after_kernels {
                // What marks its descriptor is where that is.
                return;
            }
        }
    }
    let next = next!(c"rewinddir", unsafe extern "C" fn(*mut DIR));
    // SAFETY: as it came.
    unsafe { next(dir) }
}

/// closedir(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn closedir(dir: *mut DIR) -> c_int {
    if let Some(stream) = stream(dir) {
        let listing = stream.listing.swap(ptr::null_mut(), Ordering::AcqRel);
        // Before the C library may give the stream's place to another one.
        stream.dir.store(ptr::null_mut(), Ordering::Release);
        if !listing.is_null() {
            // SAFETY: made by `keep`, and taken out of the only place where it was.
            drop(unsafe { Box::from_raw(listing) });
        }
    }
    let next = next!(c"closedir", unsafe extern "C" fn(*mut DIR) -> c_int);
    // SAFETY: as it came.
    unsafe { next(dir) }
}

/// `glob_t` of the C library, with the functions that it may be told to call.
#[repr(C)]
pub struct Glob {
    paths: usize,
    path: *mut *mut c_char,
    offset: usize,
    flags: c_int,
    closedir: Option<unsafe extern "C" fn(*mut DIR) -> c_int>,
    readdir: Option<Read>,
    opendir: Option<Open>,
    lstat: Option<Stat>,
    stat: Option<Stat>,
}

type Stat = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_int;

/// `GLOB_ALTDIRFUNC`: the functions that a [`Glob`] names are called.
const ITS_FUNCTIONS: c_int = 1 << 9;

type Fails = Option<unsafe extern "C" fn(*const c_char, c_int) -> c_int>;
type Globs = unsafe extern "C" fn(*const c_char, c_int, Fails, *mut Glob) -> c_int;

/// glob(3), which calls functions of folders that are within the C library: it is told to call these.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn glob(
    pattern: *const c_char,
    flags: c_int,
    fails: Fails,
    found: *mut Glob,
) -> c_int {
    let next = next!(c"glob", Globs);
    let is_below_proc = !pattern.is_null() && {
        // SAFETY: the caller's pattern.
        unsafe { CStr::from_ptr(pattern) }.to_bytes().starts_with(b"/proc/")
    };
    if !is_below_proc || found.is_null() || flags & ITS_FUNCTIONS != 0 {
        // SAFETY: as it came.
        return unsafe { next(pattern, flags, fails, found) };
    }
    // SAFETY: the caller's. All of it is integers and pointers that are asked for by the flag only.
    let asked = unsafe { &mut *found };
    asked.closedir = Some(closedir);
    asked.readdir = Some(readdir);
    asked.opendir = Some(opendir);
    asked.lstat = Some(lstat);
    asked.stat = Some(stat);
    // SAFETY: as it came, with functions that are those of the C library for all other folders.
    let done = unsafe { next(pattern, flags | ITS_FUNCTIONS, fails, found) };
    // SAFETY: as above.
    let found = unsafe { &mut *found };
    found.flags &= !ITS_FUNCTIONS;
    done
}

/// glob64(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn glob64(
    pattern: *const c_char,
    flags: c_int,
    fails: Fails,
    found: *mut Glob,
) -> c_int {
    // SAFETY: as it came; both have one layout where files are long.
    unsafe { glob(pattern, flags, fails, found) }
}
