//! The rule set on disk: what survives rvsd.
//!
//! ```text
//!  {"rvs_state":1}                     a file of lines
//!  {"add_service":{…}}                 what makes the table as it was when the file was last written
//!  {"add_dest":{…}}                    anew: temporary file, fsync, rename
//!  …
//!  {"edit_dest":{…}}                   and every change since, in its order
//!  #"delete_service":{…}}              struck out: it was refused
//! ```
//!
//! Changes that are all or none are one line.
//!
//! A change is written before it is made, so that one that cannot be kept is refused and not made; if
//! the table then refuses it, one octet strikes its line out, which needs no room on a full disk. What
//! is written survives the end of this process, whatever ends it; whether an answer also waits for the
//! disk itself is [`Sync`]'s to say. A line without an end is from a moment at which nobody had an
//! answer yet, and counts for nothing.

use core::time::Duration;
use rvs_api::{Errno, Refusal, Request};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

/// What this version writes and reads.
const VERSION: u32 = 1;
/// From a change to the disk, if no answer waits for it.
const SOON: Duration = Duration::from_millis(50);
/// Octets that changes may take before the file is written anew, beside twice what it then had.
const SLACK: u64 = 64 << 10;
/// What a line that was refused begins with.
const STRUCK: u8 = b'#';

/// When a change is on the disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// About 50 ms after it was acknowledged: a change survives rvsd at once, and the machine's power
    /// a moment later.
    #[default]
    Soon,
    /// Before it is acknowledged. Clients that change one thing at a time wait for the disk each time.
    Always,
}

/// The first line.
#[derive(Debug, Deserialize, Serialize)]
struct Head {
    rvs_state: u32,
}

/// Why there is no state to start from. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("state {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another rvsd has it.
    #[error("state {}: another rvsd keeps its state there: stop that, or set another `state`", .0.display())]
    InUse(PathBuf),
    /// It is no state, or one of another version.
    #[error(
        "state {}: line {line} is not understood: mend it, or move the file away to start without services",
        path.display()
    )]
    NotUnderstood {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// What was taken once is refused now.
    #[error(
        "state {}: line {line} is refused: {refusal}: mend it, or the configuration that it needs",
        path.display()
    )]
    Refused {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        refusal: Refusal,
    },
}

/// A request of the file, and its line.
pub type Kept = (usize, Request);

/// The file of a director.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    sync: Sync,
    file: Arc<File>,
    len: u64,
    /// What it had when it was last written anew.
    compact_len: u64,
    /// Tells a thread to bring the file to the disk.
    soon: SyncSender<Arc<File>>,
}

/// Where lines begin that were written for one batch.
#[derive(Debug, Default)]
pub struct Written(std::collections::VecDeque<u64>);

impl Store {
    /// Opens the file, and tells what is in it; there need not be one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn open(path: &Path, sync: Sync) -> Result<(Self, Vec<Kept>), StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        lock(&file, path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let kept = parse(&text)
            .map_err(|line| StoreError::NotUnderstood { path: path.to_owned(), line })?;
        let whole = text.iter().rposition(|octet| *octet == b'\n').map_or(0, |last| last + 1);
        let mut store = Self {
            path: path.to_owned(),
            sync,
            file: Arc::new(file),
            len: u64::try_from(whole).unwrap_or(u64::MAX),
            compact_len: 0,
            soon: syncer().map_err(failed)?,
        };
        if whole == 0 {
            store.rewrite(&[])?;
        } else {
            store.file.set_len(store.len).map_err(failed)?;
        }
        Ok((store, kept))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on there is no room.
    #[cfg(test)]
    pub(crate) fn fill_disk(&mut self) {
        self.file = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
    }

    /// Writes lines for those of `requests` that change what is kept, before they are carried out.
    ///
    /// # Errors
    ///
    /// What whoever asked is to be told; nothing may be carried out then.
    pub fn write<'r>(
        &mut self,
        requests: impl IntoIterator<Item = &'r Request>,
    ) -> Result<Written, Refusal> {
        let (mut lines, mut written) = (Vec::new(), Written::default());
        for request in requests.into_iter().filter(|request| request.is_kept()) {
            written.0.push_back(self.len + u64::try_from(lines.len()).unwrap_or_default());
            append(&mut lines, request);
        }
        if lines.is_empty() {
            return Ok(written);
        }
        let put = || {
            self.file.write_all_at(&lines, self.len)?;
            if self.sync == Sync::Always { self.file.sync_data() } else { Ok(()) }
        };
        if let Err(error) = put() {
            // If this fails too, the next lines take the place of these.
            let _shorter = self.file.set_len(self.len);
            return Err(refusal(&self.path, &error));
        }
        self.len += u64::try_from(lines.len()).unwrap_or_default();
        if self.sync == Sync::Soon {
            // Full: it is about to be done anyway.
            let _told = self.soon.try_send(Arc::clone(&self.file));
        }
        Ok(written)
    }

    /// Takes note of how the next of `written`'s requests ended. To be called for each of the batch, in
    /// order.
    pub fn conclude(&self, written: &mut Written, request: &Request, was_refused: bool) {
        if !request.is_kept() {
            return;
        }
        if let Some(line) = written.0.pop_front().filter(|_| was_refused) {
            // The octet is there already, so there is room for it. Were it lost all the same, the
            // table would refuse the line again.
            let _struck = self.file.write_all_at(&[STRUCK], line);
        }
    }

    /// Whether the file is much longer than what it tells.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.len > self.compact_len.saturating_mul(2).saturating_add(SLACK)
    }

    /// The same as [`Store::rewrite`]; what fails is tried again when the file has doubled, and not
    /// before.
    ///
    /// # Errors
    ///
    /// As [`Store::rewrite`].
    pub fn shorten(&mut self, requests: &[Request]) -> Result<(), StoreError> {
        let done = self.rewrite(requests);
        self.compact_len = self.len;
        done
    }

    /// Writes the file anew: these lines and no others.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the file is as it was then.
    pub fn rewrite(&mut self, requests: &[Request]) -> Result<(), StoreError> {
        let failed = |source| StoreError::File { path: self.path.clone(), source };
        let mut lines = serde_json::to_vec(&Head { rvs_state: VERSION }).unwrap_or_default();
        lines.push(b'\n');
        for request in requests {
            append(&mut lines, request);
        }
        let temporary = self.path.with_extension("tmp");
        let write = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&temporary)?;
            file.write_all(&lines)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|error| {
            let _gone = std::fs::remove_file(&temporary);
            failed(error)
        })?;
        lock(&file, &self.path)?;
        std::fs::rename(&temporary, &self.path).map_err(failed)?;
        // The name is on the disk when its folder is.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        folder.sync_all().map_err(failed)?;
        self.file = Arc::new(file);
        self.len = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.compact_len = self.len;
        Ok(())
    }
}

fn append(lines: &mut Vec<u8>, request: &Request) {
    // Only a map whose keys are no texts cannot be written, and no request has one.
    let _never = serde_json::to_writer(&mut *lines, request);
    lines.push(b'\n');
}

fn refusal(path: &Path, error: &io::Error) -> Refusal {
    let errno = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Errno::NoSpc,
        _ => Errno::Io,
    };
    Refusal::with_message(errno, format!("rvsd: state {}: {error}", path.display()))
}

fn lock(file: &File, path: &Path) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::File { path: path.to_owned(), source }),
    }
}

/// The requests of a file, or the line that is none.
fn parse(text: &[u8]) -> Result<Vec<Kept>, usize> {
    let mut lines = (1..).zip(text.split_inclusive(|octet| *octet == b'\n'));
    let mut lines = lines.by_ref().filter(|(_, line)| line.ends_with(b"\n"));
    match lines.next().map(|(_, head)| serde_json::from_slice(head)) {
        None => return Ok(Vec::new()),
        Some(Ok(Head { rvs_state: VERSION })) => {}
        Some(_) => return Err(1),
    }
    lines
        .filter(|(_, line)| !line.starts_with(&[STRUCK]))
        .map(|(number, line)| Ok((number, serde_json::from_slice(line).map_err(|_| number)?)))
        .collect()
}

/// A thread that brings files to the disk, a moment after it was told.
fn syncer() -> io::Result<SyncSender<Arc<File>>> {
    let (sender, told) = mpsc::sync_channel::<Arc<File>>(1);
    thread::Builder::new().name("rvs-state".to_owned()).spawn(move || {
        while let Ok(file) = told.recv() {
            thread::sleep(SOON);
            let _disk_is_failing = file.sync_data();
        }
    })?;
    Ok(sender)
}

#[cfg(test)]
mod tests;
