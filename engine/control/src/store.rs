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
//! Changes that are all or none are one line. A thread writes the file anew, while changes go on at the
//! end of the old one; what came meanwhile is put behind when the new one takes its place.
//!
//! A change is written before it is made, so that one that cannot be kept is refused and not made; if
//! the table then refuses it, one octet strikes its line out, which needs no room on a full disk. A
//! crash between the two leaves a line that is refused once more when the file is read: it is left out
//! then, and told of ([`LeftOut`]). What is written survives the end of this process, whatever ends it; whether an answer also waits for the
//! disk itself is [`Sync`]'s to say. A line without an end is from a moment at which nobody had an
//! answer yet, and counts for nothing.

use core::time::Duration;
use rvs_api::{Errno, Refusal, Request};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// What this version writes and reads.
const VERSION: u32 = 1;
/// From a change to the disk, if no answer waits for it.
const SOON: Duration = Duration::from_millis(50);
/// Octets that changes may take before the file is written anew, beside twice what it then had.
const SLACK: u64 = 64 << 10;
/// A disk without room says so slowly: ext4 looks for some by committing its journal, 20 ms each time.
/// After an attempt that failed, changes are refused at once for this many times as long as it took,
const FULL_TIMES: u32 = 10;
/// and for so long at most.
const FULL_MAX: Duration = Duration::from_secs(1);
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

impl StoreError {
    /// Whether a disk has no room, and nothing else is wrong.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
        matches!(self, Self::File { source, .. } if full.contains(&source.kind()))
    }
}

/// Lines that were refused when the file was read, as they were when they were written: a crash kept them
/// from being struck out. `Display` is one line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "state {}: {lines} of its lines count for nothing, the first is line {first}: it was refused \
     ({refusal}) when a crash came; the file as it was is {}",
    path.display(), refused(path).display()
)]
pub struct LeftOut {
    path: PathBuf,
    /// How many there are.
    pub lines: usize,
    first: usize,
    refusal: Refusal,
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
    /// Brings the file to the disk.
    syncer: Syncer,
    anew: Option<Anew>,
    full: Option<Full>,
}

/// The file that is being written anew.
#[derive(Debug)]
struct Anew {
    thread: JoinHandle<Result<File, StoreError>>,
    /// Where the old one ended when this one's content was taken.
    from: u64,
}

/// The disk had no room.
#[derive(Debug)]
struct Full {
    refusal: Refusal,
    until: Instant,
}

/// What was written for one batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Where those of its lines begin that were not concluded.
    lines: VecDeque<u64>,
    has_struck: bool,
}

impl Store {
    /// Opens the file, and tells what is in it; there need not be one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn open(path: &Path, sync: Sync) -> Result<(Self, Vec<Kept>), StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), source };
        std::fs::create_dir_all(folder(path)).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        lock(&file, path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let kept = parse(&text)
            .map_err(|line| StoreError::NotUnderstood { path: path.to_owned(), line })?;
        let whole = text.iter().rposition(|octet| *octet == b'\n').map_or(0, |last| last + 1);
        let file = Arc::new(file);
        let mut store = Self {
            path: path.to_owned(),
            sync,
            syncer: Syncer::new(Arc::clone(&file), folder(path)).map_err(failed)?,
            file,
            len: u64::try_from(whole).unwrap_or(u64::MAX),
            compact_len: 0,
            anew: None,
            full: None,
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
            written.lines.push_back(self.len + u64::try_from(lines.len()).unwrap_or_default());
            append(&mut lines, request);
        }
        if lines.is_empty() {
            return Ok(written);
        }
        let begun = Instant::now();
        if let Some(Full { refusal, until }) = &self.full
            && begun < *until
        {
            return Err(refusal.clone());
        }
        let put = || {
            self.file.write_all_at(&lines, self.len)?;
            if self.sync == Sync::Always { self.file.sync_data() } else { Ok(()) }
        };
        if let Err(error) = put() {
            // If this fails too, the next lines take the place of these.
            let _shorter = self.file.set_len(self.len);
            let refusal = refusal(&self.path, &error);
            let pause = begun.elapsed().saturating_mul(FULL_TIMES).min(FULL_MAX);
            self.full = Some(Full { refusal: refusal.clone(), until: Instant::now() + pause });
            return Err(refusal);
        }
        self.full = None;
        self.len += u64::try_from(lines.len()).unwrap_or_default();
        if self.sync == Sync::Soon {
            self.syncer.tell();
        }
        Ok(written)
    }

    /// Takes note of how the next of `written`'s requests ended. To be called for each of the batch, in
    /// order, and then [`Store::finish`].
    pub fn conclude(&self, written: &mut Written, request: &Request, was_refused: bool) {
        if !request.is_kept() {
            return;
        }
        if let Some(line) = written.lines.pop_front().filter(|_| was_refused) {
            // The octet is there already, so there is room for it.
            let _struck = self.file.write_all_at(&[STRUCK], line);
            written.has_struck = true;
        }
    }

    /// All of the batch was concluded: what was struck out is as safe as the lines were.
    pub fn finish(&self, written: &Written) {
        match self.sync {
            _ if !written.has_struck => {}
            Sync::Soon => self.syncer.tell(),
            // The refusal stands, whatever becomes of this: see `LeftOut`.
            Sync::Always => drop(self.file.sync_data()),
        }
    }

    /// Puts a copy of the file aside, because lines of it will be left out; `first` is the first.
    ///
    /// # Errors
    ///
    /// It cannot be copied.
    pub fn leave_out(&self, first: usize, refusal: Refusal) -> Result<LeftOut, StoreError> {
        std::fs::copy(&self.path, refused(&self.path)).map_err(|error| self.failed(error))?;
        Ok(LeftOut { path: self.path.clone(), lines: 1, first, refusal })
    }

    /// Whether the file is much longer than what it tells.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.len > self.compact_len.saturating_mul(2).saturating_add(SLACK)
    }

    /// Has the file written anew if it is much longer than what it tells, which is `table`, and puts the
    /// new one in its place when it is there. What fails is tried again when the file has doubled, and
    /// not before. To be called after changes, and once a second or so.
    ///
    /// # Errors
    ///
    /// As [`Store::rewrite`].
    pub fn tend(&mut self, table: impl FnOnce() -> Vec<Request>) -> Result<(), StoreError> {
        if let Some(Anew { thread, from }) = self.anew.take_if(|anew| anew.thread.is_finished()) {
            // One that panicked has written nothing that counts.
            let panicked = |_| Err(self.failed(ErrorKind::Other.into()));
            let written = thread.join().unwrap_or_else(panicked);
            let taken = written.and_then(|file| self.take(file, from)).inspect_err(|_| {
                let _gone = std::fs::remove_file(temporary(&self.path));
            });
            self.compact_len = *taken.as_ref().unwrap_or(&self.len);
            return taken.map(drop);
        }
        if self.anew.is_none() && self.is_long() {
            let (path, requests, from) = (self.path.clone(), table(), self.len);
            let write = thread::Builder::new().name("rvs-state-anew".to_owned());
            let thread = write.spawn(move || write_anew(&path, &requests));
            self.anew = Some(Anew { thread: thread.map_err(|error| self.failed(error))?, from });
        }
        Ok(())
    }

    /// Writes the file anew: these lines and no others.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the file is as it was then.
    pub fn rewrite(&mut self, requests: &[Request]) -> Result<(), StoreError> {
        self.compact_len = self.take(write_anew(&self.path, requests)?, self.len)?;
        Ok(())
    }

    /// Puts a new file, and behind it what the old one has from `from` on, in the old one's place; says
    /// what the new one had by itself.
    fn take(&mut self, new: File, from: u64) -> Result<u64, StoreError> {
        let failed = |source| self.failed(source);
        let mut tail = vec![0; usize::try_from(self.len.saturating_sub(from)).unwrap_or_default()];
        self.file.read_exact_at(&mut tail, from).map_err(failed)?;
        let begun = new.metadata().map_err(failed)?.len();
        new.write_all_at(&tail, begun).map_err(failed)?;
        if self.sync == Sync::Always && !tail.is_empty() {
            new.sync_data().map_err(failed)?;
        }
        lock(&new, &self.path)?;
        std::fs::rename(temporary(&self.path), &self.path).map_err(failed)?;
        if self.sync == Sync::Always {
            sync_folder(folder(&self.path)).map_err(failed)?;
        }
        self.file = Arc::new(new);
        self.syncer.replace(Arc::clone(&self.file));
        if self.sync == Sync::Soon {
            self.syncer.tell();
        }
        self.len = begun + u64::try_from(tail.len()).unwrap_or_default();
        Ok(begun)
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::File { path: self.path.clone(), source }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The temporary file may be the next one's.
        if let Some(Anew { thread, .. }) = self.anew.take() {
            let _not_needed = thread.join();
        }
    }
}

/// Writes these lines to the temporary file, and waits until the disk has them.
fn write_anew(path: &Path, requests: &[Request]) -> Result<File, StoreError> {
    let mut lines = head();
    for request in requests {
        append(&mut lines, request);
    }
    let temporary = temporary(path);
    let write = || -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        Ok(file)
    };
    write().map_err(|source| {
        let _gone = std::fs::remove_file(&temporary);
        StoreError::File { path: path.to_owned(), source }
    })
}

fn temporary(path: &Path) -> PathBuf {
    beside(path, ".tmp")
}

/// Where the file is as it was before lines of it were left out.
fn refused(path: &Path) -> PathBuf {
    beside(path, ".refused")
}

/// A file whose name goes on with `ending`: what another director's state is called is no other one's.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name is on the disk when its folder is.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The first line.
fn head() -> Vec<u8> {
    let mut line = serde_json::to_vec(&Head { rvs_state: VERSION }).unwrap_or_default();
    line.push(b'\n');
    line
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
        // Nothing, or the beginning of what we write; anything else is somebody else's file.
        None if head().starts_with(text) => return Ok(Vec::new()),
        Some(Ok(Head { rvs_state: VERSION })) => {}
        None | Some(_) => return Err(1),
    }
    lines
        .filter(|(_, line)| !line.starts_with(&[STRUCK]))
        .map(|(number, line)| Ok((number, serde_json::from_slice(line).map_err(|_| number)?)))
        .collect()
}

/// A thread that brings the file to the disk, and of each new one its name, a moment after it was told.
#[derive(Debug)]
struct Syncer {
    file: Arc<Mutex<Arc<File>>>,
    told: SyncSender<()>,
}

impl Syncer {
    fn new(file: Arc<File>, folder: &Path) -> io::Result<Self> {
        let (told, hears) = mpsc::sync_channel(1);
        let file = Arc::new(Mutex::new(file));
        // Weak: a file that is open is locked.
        let (theirs, folder) = (Arc::downgrade(&file), folder.to_owned());
        let mut known: Weak<File> = Weak::new();
        thread::Builder::new().name("rvs-state".to_owned()).spawn(move || {
            while let Ok(()) = hears.recv() {
                thread::sleep(SOON);
                let Some(slot) = theirs.upgrade() else { return };
                let file = Arc::clone(&slot.lock().unwrap_or_else(PoisonError::into_inner));
                let this = Arc::downgrade(&file);
                if !known.ptr_eq(&this) {
                    let _disk_is_failing = sync_folder(&folder);
                }
                let _disk_is_failing = file.sync_data();
                known = this;
            }
        })?;
        Ok(Self { file, told })
    }

    fn tell(&self) {
        // Full: it is about to look anyway.
        let _told = self.told.try_send(());
    }

    /// There is a new file.
    fn replace(&self, file: Arc<File>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }
}

#[cfg(test)]
mod tests;
