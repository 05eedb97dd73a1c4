//! The control socket, at which rvsadm asks.
//!
//! ```text
//!  accept ──► one thread per client, at most CLIENTS
//!               frame in, within FRAME_PATIENCE ──► requests ──► Desk
//!               frames out, each within ANSWER_PATIENCE
//! ```
//!
//! A client that is slow, silent or dead costs its own thread and nobody else anything.

use crate::desk::Desk;
use crate::journal::Peer;
use crate::socket::{ACCEPT_PAUSE, Server, Socket, SocketError, peer};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rvs_api::Request;
use rvs_api::codec::{self, AnswerWriter, FrameError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Clients at a time; a further one is turned away.
const CLIENTS: usize = 64;
/// How long a client may say nothing.
const IDLE_PATIENCE: Duration = Duration::from_mins(5);
/// How long a frame may take from its first byte to its last.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may refuse to take a piece of an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Serves clients on threads of its own until the server is stopped.
///
/// # Errors
///
/// The system has no thread for it.
pub fn serve(socket: Socket, desk: Arc<Desk>) -> Result<Server, SocketError> {
    Server::start("rvs-control", socket, move |socket, stop| accept(socket, &desk, stop))
}

fn accept(socket: &Socket, desk: &Arc<Desk>, stop: &AtomicBool) {
    // Each client holds one: their number is the clients'.
    let seats = Arc::new(());
    for stream in socket.listener().incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let (desk, seat) = (Arc::clone(desk), Arc::clone(&seats));
        if Arc::strong_count(&seats) > CLIENTS + 1 {
            desk.log(&format!("rvsd: a control client was turned away: {CLIENTS} are served"));
            continue;
        }
        let client = thread::Builder::new().name("rvs-client".to_owned());
        let _no_thread = client.spawn(move || {
            serve_client(&stream, &desk);
            drop(seat);
        });
    }
}

/// Serves one client until it goes, or does what no client of ours does.
fn serve_client(stream: &UnixStream, desk: &Desk) {
    let peer = peer(stream);
    match converse(stream, peer, desk) {
        Ok(()) | Err(FrameError::Closed) => {}
        Err(error) => {
            let who = peer.map_or(String::new(), |peer| format!(" ({peer})"));
            desk.log(&format!("rvsd: control client{who} was left: {error}"));
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
