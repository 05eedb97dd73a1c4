//! The control socket.
//!
//! ```text
//!  accept ──► one thread per client, at most CLIENTS
//!               frame in, within FRAME_PATIENCE ──► requests ──► Director, under its lock
//!               frames out, each within ANSWER_PATIENCE            one publication per batch
//!               ListConns ──► Conns, without the lock
//! ```
//!
//! The lock is held while requests are carried out, never while anybody is waited for: a client
//! that is slow, silent or dead costs its own thread and nobody else anything. Every change is
//! logged once, with who asked for it.

use crate::config::Control;
use crate::conns::{Conns, NoAnswer, entry};
use crate::director::Director;
use crate::journal::{Peer, ending, line};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rvs_api::codec::{self, AnswerWriter, FrameError};
use rvs_api::{Errno, Outcome, Refusal, Reply, Request};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Clients at a time; a further one is turned away.
const CLIENTS: usize = 64;
/// How long a client may say nothing.
const IDLE_PATIENCE: Duration = Duration::from_mins(5);
/// How long a frame may take from its first byte to its last.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may refuse to take a piece of an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;
/// After an error of accept(2): descriptors may become free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be had. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("control socket {}: another rvsd serves it: stop that, or set another `socket`", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("control socket {}: there is a file that is no socket: remove it, or set another `socket`", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("control socket {}: {source}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that nobody is served at yet. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket with its permissions, in place of one that a dead process left behind.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn bind(control: &Control) -> Result<Self, SocketError> {
        let path = control.socket.clone();
        let refused = |source| SocketError::Refused { path: path.clone(), source };
        clear(&path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o755).create(folder).map_err(refused)?;
        }
        // Nobody can connect before listen(2), so nobody does before the permissions are set.
        let bind = || -> io::Result<Self> {
            let address = SocketAddrUnix::new(&path)?;
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&socket, &address)?;
            let bound = Self { listener: UnixListener::from(socket), path: path.clone() };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(control.mode))?;
            rustix::net::listen(&bound.listener, BACKLOG)?;
            Ok(bound)
        };
        bind().map_err(refused)
    }

    /// Serves clients on threads of its own until the server is stopped.
    ///
    /// # Errors
    ///
    /// The system has no thread for it.
    pub fn serve(self, desk: Arc<Desk>) -> Result<Server, SocketError> {
        let path = self.path.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("rvs-control".to_owned())
            .spawn(move || accept(&self, &desk, &stopping))
            .map_err(|source| SocketError::Refused { path: path.clone(), source })?;
        Ok(Server { thread: Some(thread), stop, path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Makes place for a socket at `path`.
fn clear(path: &Path) -> Result<(), SocketError> {
    let refused = |source| SocketError::Refused { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Nobody listens: its process is dead.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(refused)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(error)),
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

/// A socket at which clients are served.
#[derive(Debug)]
pub struct Server {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    path: PathBuf,
}

impl Server {
    /// Takes no client from now on, and removes the socket. Clients that are connected are not
    /// waited for.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        // Wakes it. If that fails its file is gone, and so is the reason to wait.
        if UnixStream::connect(&self.path).is_ok() {
            let _panicked = thread.join();
        }
        let _gone = std::fs::remove_file(&self.path);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(socket: &Socket, desk: &Arc<Desk>, stop: &AtomicBool) {
    // Each client holds one: their number is the clients'.
    let seats = Arc::new(());
    for stream in socket.listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let (desk, seat) = (Arc::clone(desk), Arc::clone(&seats));
        if Arc::strong_count(&seats) > CLIENTS + 1 {
            (desk.log)(&format!("rvsd: a control client was turned away: {CLIENTS} are served"));
            continue;
        }
        let client = thread::Builder::new().name("rvs-client".to_owned());
        let _no_thread = client.spawn(move || {
            serve_client(&stream, &desk);
            drop(seat);
        });
    }
}

/// What client threads share.
pub struct Desk {
    director: Mutex<Director>,
    conns: Conns,
    log: Box<dyn Fn(&str) + Send + Sync>,
}

impl Desk {
    /// Of a director whose workers list `conns`; `log` takes lines without their end.
    pub fn new(
        director: Director,
        conns: Conns,
        log: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self { director: Mutex::new(director), conns, log: Box::new(log) }
    }

    /// The director, once nobody else has it.
    pub fn director(&self) -> MutexGuard<'_, Director> {
        self.director.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out one batch and tells `answers` the outcomes.
    fn carry_out(
        &self,
        requests: Vec<Request>,
        peer: Option<Peer>,
        answers: &mut AnswerWriter<impl Write>,
    ) -> Result<(), FrameError> {
        let mut requests = requests.into_iter().peekable();
        while let Some(first) = requests.next() {
            if first == Request::ListConns {
                self.list_conns(answers)?;
                continue;
            }
            // Lists are long: one at a time. Everything else between two lists goes together.
            let mut together = vec![first];
            if !together.iter().any(is_list) {
                together.extend(core::iter::from_fn(|| requests.next_if(|next| !is_list(next))));
            }
            let lines: Vec<_> = together.iter().map(|request| line(request, peer)).collect();
            let outcomes = self.director().apply(together);
            self.log_changes(lines, &outcomes);
            for outcome in outcomes {
                answers.push(outcome)?;
            }
        }
        Ok(())
    }

    fn log_changes(&self, lines: Vec<Option<String>>, outcomes: &[Outcome]) {
        for (line, outcome) in lines.into_iter().zip(outcomes) {
            if let Some(line) = line {
                (self.log)(&(line + &ending(outcome)));
            }
        }
    }

    fn list_conns(&self, answers: &mut AnswerWriter<impl Write>) -> Result<(), FrameError> {
        let listed = self.conns.each_page(|rows| {
            let entries = {
                let director = self.director();
                rows.iter().filter_map(|row| entry(row, director.dest(row.dest_id))).collect()
            };
            answers.push_piece(Reply::Conns(entries)).map_err(Unlisted::Client)
        });
        match listed {
            Ok(()) => answers.push(Ok(Reply::Conns(Vec::new()))),
            Err(Unlisted::Client(error)) => Err(error),
            Err(Unlisted::Worker(error)) => {
                answers.push(Err(Refusal::with_message(Errno::Io, format!("rvsd: {error}"))))
            }
        }
    }
}

fn is_list(request: &Request) -> bool {
    matches!(request, Request::ListServices { .. } | Request::ListConns)
}

/// Why connections were not listed to the end.
enum Unlisted {
    Worker(NoAnswer),
    Client(FrameError),
}

impl From<NoAnswer> for Unlisted {
    fn from(error: NoAnswer) -> Self {
        Self::Worker(error)
    }
}

/// Serves one client until it goes, or does what no client of ours does.
fn serve_client(stream: &UnixStream, desk: &Desk) {
    let peer = rustix::net::sockopt::socket_peercred(stream)
        .ok()
        .map(|peer| Peer { pid: peer.pid.as_raw_nonzero().get(), uid: peer.uid.as_raw() });
    match converse(stream, peer, desk) {
        Ok(()) | Err(FrameError::Closed) => {}
        Err(error) => {
            let who = peer.map_or(String::new(), |peer| format!(" ({peer})"));
            (desk.log)(&format!("rvsd: control client{who} was left: {error}"));
        }
    }
}

fn converse(stream: &UnixStream, peer: Option<Peer>, desk: &Desk) -> Result<(), FrameError> {
    stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
    codec::welcome(&mut Patient::waiting(stream))?;
    loop {
        let requests: Vec<Request> = codec::read(&mut Patient::waiting(stream))?;
        let mut answers = AnswerWriter::new(stream);
        desk.carry_out(requests, peer, &mut answers)?;
        answers.finish()?;
    }
}

/// Reads one frame: its first byte may be long in coming, the others not.
struct Patient<'s> {
    stream: &'s UnixStream,
    until: Instant,
    begun: bool,
}

impl<'s> Patient<'s> {
    fn waiting(stream: &'s UnixStream) -> Self {
        Self { stream, until: Instant::now() + IDLE_PATIENCE, begun: false }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "it took too long"));
        }
        self.stream.set_read_timeout(Some(left))?;
        let read = (&mut &*self.stream).read(room).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "it took too long"),
            _ => error,
        })?;
        if !self.begun {
            self.begun = true;
            self.until = Instant::now() + FRAME_PATIENCE;
        }
        Ok(read)
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&mut &*self.stream).flush()
    }
}

#[cfg(test)]
mod tests;
