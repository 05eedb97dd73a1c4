//! The C library's functions of files and programs, replaced.
//!
//! As in `hooks`, each has the safety of the function whose name it has. A path that is none of
//! IPVS's goes to the C library as it came.

use crate::ask::{self, File};
use crate::folders;
use crate::hooks::said;
use crate::next::{next, set_errno};
use crate::swap::borrowed;
use crate::wire::is_for_ipvs;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr;
use libc::{FILE, mode_t, size_t, ssize_t};
use rustix::fd::{AsFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};

/// The file that a path of C names, seen from the first of `folders` if there is one, and else from the
/// working one.
///
/// # Safety
///
/// `path` is a text that ends with a zero, or null.
unsafe fn file(folders: &[c_int], path: *const c_char) -> Option<File> {
    if path.is_null() {
        return None;
    }
    let folder = folders.first().copied().unwrap_or(libc::AT_FDCWD);
    // SAFETY: the caller's word.
    folders::file(folder, unsafe { CStr::from_ptr(path) }.to_bytes())
}

fn failed(error: Errno) -> c_int {
    set_errno(error.raw_os_error());
    -1
}

fn opened(file: File, flags: c_int) -> Result<OwnedFd, Errno> {
    let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
    if file.is_folder() && reads {
        opened_folder(file, flags)
    } else if flags & libc::O_DIRECTORY != 0 {
        file.look().and(Err(Errno::NOTDIR))
    } else if reads {
        file.read()
    } else {
        file.write()
    }
}

/// The folder of the sysctls.
fn opened_folder(file: File, flags: c_int) -> Result<OwnedFd, Errno> {
    file.look()?;
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let fd = rustix::fs::open(file.like(), flags, Mode::empty())?;
    folders::mark(fd.as_fd())?;
    Ok(fd)
}

fn descriptor(file: File, flags: c_int) -> c_int {
    let stays = flags & libc::O_CLOEXEC == 0;
    let opened = opened(file, flags).and_then(|fd| {
        if stays {
            rustix::io::fcntl_setfd(&fd, FdFlags::empty())?;
        }
        Ok(fd)
    });
    opened.map_or_else(failed, IntoRawFd::into_raw_fd)
}

/// open(2) and its like, whose path comes after `$before`. C declares a variable number of arguments;
/// on the machines that rvs runs on a mode is passed in the same place either way, and one that was
/// not passed is not looked at behind this.
macro_rules! opens {
    ($($symbol:literal $name:ident($($before:ident: $type:ty,)*);)*) => {$(
        #[doc = concat!("`", stringify!($name), "()`: a file of IPVS is rvsd's.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($before: $type,)*
            path: *const c_char,
            flags: c_int,
            mode: mode_t,
        ) -> c_int {
            // SAFETY: the caller's path.
            if let Some(file) = unsafe { file(&[$($before),*], path) } {
                return descriptor(file, flags);
            }
            let next = next!(
                $symbol,
                unsafe extern "C" fn($($type,)* *const c_char, c_int, mode_t) -> c_int
            );
            // SAFETY: as it came.
            unsafe { next($($before,)* path, flags, mode) }
        }
    )*};
}

opens! {
    c"open" open();
    c"open64" open64();
    c"__open_2" __open_2();
    c"__open64_2" __open64_2();
    c"openat" openat(folder: c_int,);
    c"openat64" openat64(folder: c_int,);
    c"__openat_2" __openat_2(folder: c_int,);
    c"__openat64_2" __openat64_2(folder: c_int,);
}

/// creat(2) and its like.
macro_rules! creates {
    ($($symbol:literal $name:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "()`: a file of IPVS is rvsd's.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, mode: mode_t) -> c_int {
            // SAFETY: the caller's path.
            if let Some(file) = unsafe { file(&[], path) } {
                return descriptor(file, libc::O_WRONLY);
            }
            let next = next!($symbol, unsafe extern "C" fn(*const c_char, mode_t) -> c_int);
            // SAFETY: as it came.
            unsafe { next(path, mode) }
        }
    )*};
}

creates! {
    c"creat" creat;
    c"creat64" creat64;
}

/// What those are shown who only look at what a path names: another file of the same kind, if it names
/// one of IPVS's that is there.
///
/// # Safety
///
/// As for [`file()`].
unsafe fn shown(folders: &[c_int], path: *const c_char) -> Result<*const c_char, Errno> {
    // SAFETY: the caller's word.
    match unsafe { file(folders, path) } {
        Some(file) => file.look().map(|()| file.like().as_ptr()),
        None => Ok(path),
    }
}

/// Functions that only look at what a path names, and return `$r`.
macro_rules! looks {
    ($r:ty: $($symbol:literal $name:ident($($before:ident: $b:ty)?; $($after:ident: $a:ty),*);)*) => {$(
        #[doc = concat!("`", stringify!($name), "()`: a file of IPVS is there if rvsd says so.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($before: $b,)?
            path: *const c_char,
            $($after: $a),*
        ) -> $r {
            // SAFETY: the caller's path.
            let path = match unsafe { shown(&[$($before)?], path) } {
                Ok(path) => path,
                Err(error) => return failed(error).into(),
            };
            let next =
                next!($symbol, unsafe extern "C" fn($($b,)? *const c_char, $($a),*) -> $r);
            // SAFETY: as it came, or with the path of a file that is there.
            unsafe { next($($before,)? path, $($after),*) }
        }
    )*};
}

looks! {
    c_int:
    c"access" access(; mode: c_int);
    c"faccessat" faccessat(folder: c_int; mode: c_int, flags: c_int);
    c"eaccess" eaccess(; mode: c_int);
    c"euidaccess" euidaccess(; mode: c_int);
    c"stat" stat(; to: *mut c_void);
    c"stat64" stat64(; to: *mut c_void);
    c"lstat" lstat(; to: *mut c_void);
    c"lstat64" lstat64(; to: *mut c_void);
    c"fstatat" fstatat(folder: c_int; to: *mut c_void, flags: c_int);
    c"fstatat64" fstatat64(folder: c_int; to: *mut c_void, flags: c_int);
    c"statx" statx(folder: c_int; flags: c_int, mask: c_uint, to: *mut c_void);
}

// `ls -l` asks for labels and lists of rights.
looks! {
    i64:
    c"getxattr" getxattr(; name: *const c_char, to: *mut c_void, len: size_t);
    c"lgetxattr" lgetxattr(; name: *const c_char, to: *mut c_void, len: size_t);
}

/// fstat(2) and its like: who copies compares what is open with what the path named.
macro_rules! looks_at_open {
    ($($symbol:literal $name:ident as $by_path:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "()`: an open file of IPVS is shown as by its path.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(fd: c_int, to: *mut c_void) -> c_int {
            if let Some(like) = File::like_of(fd) {
                // SAFETY: a path, and the caller's room.
                return unsafe { $by_path(like.as_ptr(), to) };
            }
            let next = next!($symbol, unsafe extern "C" fn(c_int, *mut c_void) -> c_int);
            // SAFETY: as it came.
            unsafe { next(fd, to) }
        }
    )*};
}

looks_at_open! {
    c"fstat" fstat as stat;
    c"fstat64" fstat64 as stat64;
}

type FOpen = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;

/// The stream of a file of IPVS.
///
/// # Safety
///
/// `mode` is as for fopen(3).
unsafe fn stream(file: File, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's mode, which has at least its zero.
    let words = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let access = if words.first() == Some(&b'r') { libc::O_RDONLY } else { libc::O_WRONLY };
    let fd = descriptor(file, access | if words.contains(&b'e') { libc::O_CLOEXEC } else { 0 });
    if fd < 0 {
        return ptr::null_mut();
    }
    // SAFETY: a new descriptor, and the caller's mode.
    unsafe { libc::fdopen(fd, mode) }
}

/// fopen(3), which opens files by itself and not by open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's path.
    if let Some(file) = unsafe { file(&[], path) } {
        // SAFETY: the caller's mode.
        return unsafe { stream(file, mode) };
    }
    let next = next!(c"fopen", FOpen);
    // SAFETY: as it came.
    unsafe { next(path, mode) }
}

/// fopen(3) for long files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's path.
    if let Some(file) = unsafe { file(&[], path) } {
        // SAFETY: the caller's mode.
        return unsafe { stream(file, mode) };
    }
    let next = next!(c"fopen64", FOpen);
    // SAFETY: as it came.
    unsafe { next(path, mode) }
}

type FReopen = unsafe extern "C" fn(*const c_char, *const c_char, *mut FILE) -> *mut FILE;

/// freopen(3) and its like.
macro_rules! reopens {
    ($($symbol:literal $name:ident as $open:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "()`: a file of IPVS is rvsd's.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            path: *const c_char,
            mode: *const c_char,
            stream: *mut FILE,
        ) -> *mut FILE {
            let next = next!($symbol, FReopen);
            // SAFETY: the caller's path.
            if unsafe { file(&[], path) }.is_none() {
                // SAFETY: as it came.
                return unsafe { next(path, mode, stream) };
            }
            // SAFETY: the caller's path and mode.
            let source = unsafe { $open(path, mode) };
            // SAFETY: the caller's mode and stream, which takes any file first and then that one's place.
            let stream = unsafe { next(c"/dev/null".as_ptr(), mode, stream) };
            if source.is_null() || stream.is_null() {
                return ptr::null_mut();
            }
            // SAFETY: two streams that are open, one of which is nobody else's.
            let is_done = unsafe {
                let is_done = libc::dup2(libc::fileno(source), libc::fileno(stream)) >= 0;
                libc::fclose(source);
                is_done
            };
            if is_done { stream } else { ptr::null_mut() }
        }
    )*};
}

reopens! {
    c"freopen" freopen as fopen;
    c"freopen64" freopen64 as fopen64;
}

/// realpath(3): the files of IPVS have no links in their paths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realpath(path: *const c_char, to: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's path.
    if let Some(file) = unsafe { file(&[], path) } {
        if let Err(error) = file.look() {
            failed(error);
            return ptr::null_mut();
        }
        if to.is_null() {
            // SAFETY: the caller's path.
            return unsafe { libc::strdup(path) };
        }
        // SAFETY: the caller has room for PATH_MAX octets, and no file of IPVS has as long a path.
        return unsafe { libc::strcpy(to, path) };
    }
    let next = next!(c"realpath", unsafe extern "C" fn(*const c_char, *mut c_char) -> *mut c_char);
    // SAFETY: as it came.
    unsafe { next(path, to) }
}

/// write(2): what a sysctl is set to may be refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    let content = if from.is_null() {
        &[]
    } else {
        // SAFETY: the caller's buffer.
        unsafe { core::slice::from_raw_parts(from.cast::<u8>(), len) }
    };
    if is_for_ipvs(content) {
        let whole = [libc::iovec { iov_base: from.cast_mut(), iov_len: len }];
        // SAFETY: the caller's buffer.
        if let Some(sent) = unsafe { said(fd, &whole) } {
            return sent;
        }
    }
    if ask::anything_written() {
        match borrowed(fd).and_then(|fd| ask::write(fd, content)) {
            Some(Ok(())) => return ssize_t::try_from(len).unwrap_or(ssize_t::MAX),
            Some(Err(error)) => {
                set_errno(error.raw_os_error());
                return -1;
            }
            None => {}
        }
    }
    let next = next!(c"write", unsafe extern "C" fn(c_int, *const c_void, size_t) -> ssize_t);
    // SAFETY: as it came.
    unsafe { next(fd, from, len) }
}

/// Whether a program loads a module of the kernel's IPVS: there is nothing to load.
///
/// # Safety
///
/// `program` is a text or null; `arguments` is a list of texts that ends with null, or null.
unsafe fn is_modprobe(program: *const c_char, arguments: *const *const c_char) -> bool {
    if program.is_null() || arguments.is_null() {
        return false;
    }
    // SAFETY: the caller's word.
    let program = unsafe { CStr::from_ptr(program) }.to_bytes();
    if program.rsplit(|octet| *octet == b'/').next() != Some(b"modprobe") {
        return false;
    }
    let mut place = arguments;
    loop {
        // SAFETY: before or at the null that ends the list.
        let argument = unsafe { *place };
        if argument.is_null() {
            return false;
        }
        // SAFETY: the caller's word.
        if unsafe { CStr::from_ptr(argument) }.to_bytes().starts_with(b"ip_vs") {
            return true;
        }
        // SAFETY: not beyond the null, which was not met yet.
        place = unsafe { place.add(1) };
    }
}

/// Ends a process that was forked to load a module of the kernel's IPVS.
///
/// # Safety
///
/// As for [`is_modprobe()`].
unsafe fn ends_if_modprobe(program: *const c_char, arguments: *const *const c_char) {
    // SAFETY: the caller's word.
    if unsafe { is_modprobe(program, arguments) } {
        // SAFETY: ends this process, a child that wanted to become another program.
        unsafe { libc::_exit(0) };
    }
}

type Exec = unsafe extern "C" fn(*const c_char, *const *const c_char) -> c_int;
type ExecE =
    unsafe extern "C" fn(*const c_char, *const *const c_char, *const *const c_char) -> c_int;

/// execv(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(program: *const c_char, arguments: *const *const c_char) -> c_int {
    // SAFETY: the caller's texts.
    unsafe { ends_if_modprobe(program, arguments) };
    let next = next!(c"execv", Exec);
    // SAFETY: as it came.
    unsafe { next(program, arguments) }
}

/// execvp(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(program: *const c_char, arguments: *const *const c_char) -> c_int {
    // SAFETY: the caller's texts.
    unsafe { ends_if_modprobe(program, arguments) };
    let next = next!(c"execvp", Exec);
    // SAFETY: as it came.
    unsafe { next(program, arguments) }
}

/// execve(2)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's texts.
    unsafe { ends_if_modprobe(program, arguments) };
    let next = next!(c"execve", ExecE);
    // SAFETY: as it came.
    unsafe { next(program, arguments, environment) }
}

/// execvpe(3)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's texts.
    unsafe { ends_if_modprobe(program, arguments) };
    let next = next!(c"execvpe", ExecE);
    // SAFETY: as it came.
    unsafe { next(program, arguments, environment) }
}

type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const libc::posix_spawn_file_actions_t,
    *const libc::posix_spawnattr_t,
    *const *mut c_char,
    *const *mut c_char,
) -> c_int;

/// `posix_spawn(3)` and its like: who wants to load a module gets a child that does nothing.
macro_rules! spawns {
    ($($symbol:literal $name:ident;)*) => {$(
        #[doc = concat!("`", stringify!($name), "()`: modprobe does nothing.")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            child: *mut libc::pid_t,
            program: *const c_char,
            actions: *const libc::posix_spawn_file_actions_t,
            attributes: *const libc::posix_spawnattr_t,
            arguments: *const *mut c_char,
            environment: *const *mut c_char,
        ) -> c_int {
            // SAFETY: the caller's texts.
            let loads = unsafe { is_modprobe(program, arguments.cast()) };
            let program = if loads { c"/bin/true".as_ptr() } else { program };
            let next = next!($symbol, Spawn);
            // SAFETY: as it came, or another program that there is.
            unsafe { next(child, program, actions, attributes, arguments, environment) }
        }
    )*};
}

spawns! {
    c"posix_spawn" posix_spawn;
    c"posix_spawnp" posix_spawnp;
}
