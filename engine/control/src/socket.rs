//! Unix sockets on which clients are served: their files, and the threads behind them.

use crate::config::Control;
use crate::journal::Peer;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;
/// After an error of accept(2): descriptors may become free again.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// What is said on a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Frames of a stream: `socket`.
    Control,
    /// Datagrams of a connection: `netlink`.
    Netlink,
}

impl Kind {
    fn socket_type(self) -> SocketType {
        match self {
            Self::Control => SocketType::STREAM,
            Self::Netlink => SocketType::SEQPACKET,
        }
    }

    fn connect(self, path: &Path) -> io::Result<OwnedFd> {
        let address = SocketAddrUnix::new(path)?;
        let (unix, cloexec) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let socket = socket_with(unix, self.socket_type(), cloexec, None)?;
        rustix::net::connect(&socket, &address)?;
        Ok(socket)
    }
}

/// A socket that nobody is served at yet. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    kind: Kind,
}

impl Socket {
    /// Binds one of the sockets that `control` describes, with its permissions, in place of one that
    /// a dead process left behind.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn bind(kind: Kind, control: &Control) -> Result<Self, SocketError> {
        let path = match kind {
            Kind::Control => control.socket.clone(),
            Kind::Netlink => control.netlink.clone(),
        };
        let refused = |source| SocketError::Refused { path: path.clone(), source };
        clear(kind, &path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o755).create(folder).map_err(refused)?;
        }
        // Nobody can connect before listen(2), so nobody does before the permissions are set.
        let bind = || -> io::Result<Self> {
            let address = SocketAddrUnix::new(&path)?;
            let (unix, cloexec) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
            let socket = socket_with(unix, kind.socket_type(), cloexec, None)?;
            rustix::net::bind(&socket, &address)?;
            let bound = Self { listener: UnixListener::from(socket), path: path.clone(), kind };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(control.mode))?;
            if control.owner.is_some() || control.group.is_some() {
                std::os::unix::fs::chown(&path, control.owner, control.group)?;
            }
            rustix::net::listen(&bound.listener, BACKLOG)?;
            Ok(bound)
        };
        bind().map_err(refused)
    }

    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Who is at the other end of a client's socket.
pub(crate) fn peer(socket: impl AsFd) -> Option<Peer> {
    let peer = rustix::net::sockopt::socket_peercred(socket).ok()?;
    Some(Peer {
        pid: peer.pid.as_raw_nonzero().get(),
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
    })
}

/// Makes place for a socket at `path`.
fn clear(kind: Kind, path: &Path) -> Result<(), SocketError> {
    let refused = |source| SocketError::Refused { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match kind.connect(path) {
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
    kind: Kind,
}

impl Server {
    /// Lets `life` serve clients on a thread until it is told to stop; a client comes then to wake it.
    pub(crate) fn start(
        name: &str,
        socket: Socket,
        life: impl FnOnce(&Socket, &AtomicBool) + Send + 'static,
    ) -> Result<Self, SocketError> {
        let (path, kind) = (socket.path.clone(), socket.kind);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || life(&socket, &stopping))
            .map_err(|source| SocketError::Refused { path: path.clone(), source })?;
        Ok(Self { thread: Some(thread), stop, path, kind })
    }

    /// Takes no client from now on, and removes the socket. Clients that are connected are not
    /// waited for.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        // Wakes it. If that fails its file is gone, and so is the reason to wait.
        if self.kind.connect(&self.path).is_ok() {
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
