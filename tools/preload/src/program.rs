//! Whether the loader preloads anything for a program.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where in a 64-bit ELF header (elf(5)) something is: the table of its segments, and the size and number
/// of their entries.
const SEGMENTS_AT: usize = 32;
const SEGMENT_LEN: usize = 54;
const SEGMENTS: usize = 56;
const HEADER: usize = 64;
/// `PT_INTERP`: names the loader.
const LOADER: u32 = 3;

/// Whether a program, looked for as exec does, is one that starts without a loader. What cannot be read,
/// and a script, is none.
pub(crate) fn is_static(program: &OsStr) -> bool {
    found(program).and_then(|path| has_loader(&File::open(path).ok()?)) == Some(false)
}

fn found(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| is_file(path))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file())
}

/// Whether an ELF file asks for a loader; nothing if it is none of 64 bits and this byte order.
fn has_loader(file: &File) -> Option<bool> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).ok()?;
    let byte_order = if cfg!(target_endian = "little") { 1 } else { 2 };
    if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, byte_order]) {
        return None;
    }
    let half = |at: usize| Some(u16::from_ne_bytes(*header.get(at..)?.first_chunk()?));
    let begin = u64::from_ne_bytes(*header.get(SEGMENTS_AT..)?.first_chunk()?);
    let len = u64::from(half(SEGMENT_LEN)?);
    for number in 0..u64::from(half(SEGMENTS)?) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, begin.checked_add(number * len)?).ok()?;
        if u32::from_ne_bytes(kind) == LOADER {
            return Some(true);
        }
    }
    Some(false)
}
