//! The netlink socket, at which unmodified ipvsadm and keepalived ask.
//!
//! ```text
//!  poll ──► listener: accept               one thread for all of them: ipvsadm connects anew for
//!       ──► client:   datagram ─► answer   every command
//!       ──► client:   takes more of its answer
//!       ──► publication is due
//! ```
//!
//! A client that does not take its answer is not listened to meanwhile, so what it can make us keep
//! is one answer; it is left after [`ANSWER_PATIENCE`]. One that says nothing may stay: keepalived
//! does for months. Listings of connections wait for workers and have threads of their own.
//!
//! Changes that follow each other closely are published together, at most every [`PUBLISH_PAUSE`]: a
//! publication costs a pointer for every service.

use crate::conns::NoAnswer;
use crate::desk::Desk;
use crate::journal::Peer;
use crate::socket::{ACCEPT_PAUSE, Server, Socket, SocketError, peer};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno as Code;
use rustix::net::{RecvFlags, SendFlags};
use rvs_api::{Access, Errno, Outcome, Request, ServiceAttributes, ServiceKey};
use rvs_netlink::files::{Conns, Written};
use rvs_netlink::{Answer, REQUEST_OCTETS_MAX, Table};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Clients at a time; a further one is turned away.
const CLIENTS: usize = 256;
/// Listings of connections at a time.
const LISTINGS: usize = 8;
/// How long a client may refuse to take a piece of an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Requests of one client before others have their turn.
const TURN: usize = 64;
/// From one publication to the next.
const PUBLISH_PAUSE: Duration = Duration::from_millis(2);
/// How long we stay awake after an answer: ipvsadm asks again at once, three times for every command,
/// and to fall asleep and be woken costs more than most requests do.
const AWAKE: Duration = Duration::from_micros(50);
/// The most answers after which we fall asleep at once.
const ASLEEP_MAX: u32 = 255;
/// The longest wait, so that patience ends in time.
const WAIT: Duration = Duration::from_secs(1);

/// Serves clients on a thread of its own until the server is stopped.
///
/// # Errors
///
/// The system has no thread for it.
pub fn serve(socket: Socket, desk: Arc<Desk>) -> Result<Server, SocketError> {
    Server::start("rvs-netlink", socket, move |socket, stop| {
        if socket.listener().set_nonblocking(true).is_ok() {
            Loop {
                desk,
                clients: Vec::new(),
                published: None,
                awake_until: None,
                watch: Watch::default(),
                listings: Arc::new(()),
                datagram: vec![0; REQUEST_OCTETS_MAX],
            }
            .run(socket, stop);
        }
    })
}

struct Loop {
    desk: Arc<Desk>,
    clients: Vec<Client>,
    /// When changes were last published.
    published: Option<Instant>,
    /// Until when we stay awake.
    awake_until: Option<Instant>,
    watch: Watch,
    /// Each listing holds one.
    listings: Arc<()>,
    /// Where requests are received.
    datagram: Vec<u8>,
}

/// What becomes of a client.
enum Fate {
    Stays,
    Gone,
    Lists(Conns),
}

/// Whether to stay awake after an answer: not if that was in vain, and after several times in vain not
/// for long. Where others want all processors, who does not sleep keeps the one who asks from running.
#[derive(Default)]
struct Watch {
    /// Answers after which to fall asleep at once.
    asleep: u32,
    /// How many there are after the next time in vain.
    next: u32,
}

impl Watch {
    /// Whether to stay awake this time.
    fn begin(&mut self) -> bool {
        let stays = self.asleep == 0;
        self.asleep = self.asleep.saturating_sub(1);
        stays
    }

    fn was_worth_it(&mut self) {
        self.next = 0;
    }

    fn was_in_vain(&mut self) {
        self.asleep = self.next;
        self.next = (2 * self.next + 1).min(ASLEEP_MAX);
    }
}

impl Loop {
    fn run(&mut self, socket: &Socket, stop: &AtomicBool) {
        loop {
            let wait = self.publish();
            let Some(ready) = self.wait(socket, wait) else { continue };
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let (knocks, ready) = ready;
            let is_busy = knocks || ready.contains(&true);
            let mut ready = ready.into_iter();
            let desk = Arc::clone(&self.desk);
            let mut listings = Vec::new();
            let datagram = &mut self.datagram;
            self.clients.retain_mut(|client| {
                match client.turn(ready.next().unwrap_or(false), &desk, datagram) {
                    Fate::Stays => true,
                    Fate::Gone => false,
                    Fate::Lists(conns) => {
                        listings.extend(client.socket.try_clone().ok().map(|it| (it, conns)));
                        false
                    }
                }
            });
            let stays_awake = is_busy && self.watch.begin();
            self.awake_until = stays_awake.then(|| Instant::now() + AWAKE);
            for (socket, conns) in listings {
                self.list(socket, conns);
            }
            if knocks {
                self.accept(socket);
            }
        }
    }

    /// Which sockets have something to do; the listener first.
    fn wait(&mut self, socket: &Socket, wait: Duration) -> Option<(bool, Vec<bool>)> {
        let listener = PollFd::new(socket.listener(), PollFlags::IN);
        let clients = self.clients.iter().map(|client| {
            let waits_for = if client.owed.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            PollFd::new(&client.socket, waits_for)
        });
        let mut sockets: Vec<_> = core::iter::once(listener).chain(clients).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let wait = Timespec::try_from(wait).ok()?;
        let polled = loop {
            let Some(until) = self.awake_until else { break poll(&mut sockets, Some(&wait)) };
            match poll(&mut sockets, Some(&now)) {
                Ok(0) if Instant::now() < until => core::hint::spin_loop(),
                Ok(0) => {
                    self.watch.was_in_vain();
                    self.awake_until = None;
                }
                polled => {
                    self.watch.was_worth_it();
                    break polled;
                }
            }
        };
        if polled.is_err() {
            // A signal, or no memory for the moment.
            thread::sleep(Duration::from_millis(1));
            return None;
        }
        let mut ready = sockets.iter().map(|socket| !socket.revents().is_empty());
        let knocks = ready.next().unwrap_or(false);
        Some((knocks, ready.collect()))
    }

    /// Publishes changes if it is time, and says how long to wait at most.
    fn publish(&mut self) -> Duration {
        let mut director = self.desk.director();
        if !director.has_unpublished() {
            return WAIT;
        }
        let due = self.published.map(|last| PUBLISH_PAUSE.saturating_sub(last.elapsed()));
        if let Some(left) = due.filter(|left| !left.is_zero()) {
            return left;
        }
        director.publish();
        self.published = Some(Instant::now());
        WAIT
    }

    /// Takes one client; a further one knocks again.
    fn accept(&mut self, socket: &Socket) {
        let stream = match socket.listener().accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    thread::sleep(ACCEPT_PAUSE);
                }
                return;
            }
        };
        if self.clients.len() >= CLIENTS {
            self.desk.log(&format!("rvsd: a netlink client was turned away: {CLIENTS} are served"));
            return;
        }
        let peer = peer(&stream);
        let access = self.desk.access(peer);
        let client = Client {
            socket: stream,
            peer,
            access,
            owed: VecDeque::new(),
            since: None,
            written: None,
        };
        self.clients.push(client);
    }

    /// Lists connections to a client on a thread; the socket ends with the listing.
    fn list(&self, socket: UnixStream, conns: Conns) {
        if Arc::strong_count(&self.listings) > LISTINGS {
            let _gone = socket.set_nonblocking(true);
            for datagram in conns.end(Err(Errno::NoMem)) {
                let _gone = send(&socket, &datagram);
            }
            return;
        }
        let (desk, seat) = (Arc::clone(&self.desk), Arc::clone(&self.listings));
        let thread = thread::Builder::new().name("rvs-listing".to_owned());
        let _no_thread = thread.spawn(move || {
            let _gone = list(&socket, conns, &desk);
            drop(seat);
        });
    }
}

/// A listing ended early.
enum Unlisted {
    Worker,
    Client,
}

impl From<NoAnswer> for Unlisted {
    fn from(_: NoAnswer) -> Self {
        Self::Worker
    }
}

fn list(socket: &UnixStream, mut conns: Conns, desk: &Desk) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(ANSWER_PATIENCE))?;
    let listed = desk.each_page_of_conns(&rvs_api::ConnFilter::default(), |entries| {
        let datagrams = conns.list(&entries);
        let sent = datagrams.iter().try_for_each(|datagram| send_waiting(socket, datagram));
        sent.map_err(|_| Unlisted::Client)
    });
    let outcome = match listed {
        Ok(()) => Ok(()),
        Err(Unlisted::Worker) => Err(Errno::Io),
        Err(Unlisted::Client) => return Ok(()),
    };
    for datagram in conns.end(outcome) {
        send_waiting(socket, &datagram)?;
    }
    Ok(())
}

fn send(socket: &UnixStream, datagram: &[u8]) -> Result<(), Code> {
    rustix::net::send(socket, datagram, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

fn send_waiting(socket: &UnixStream, datagram: &[u8]) -> Result<(), Code> {
    rustix::net::send(socket, datagram, SendFlags::NOSIGNAL).map(drop)
}

struct Client {
    socket: UnixStream,
    peer: Option<Peer>,
    access: Access,
    /// What it has not taken yet.
    owed: VecDeque<Vec<u8>>,
    /// Since when it takes nothing.
    since: Option<Instant>,
    /// Where it writes to, if it does.
    written: Option<Written>,
}

impl Client {
    fn turn(&mut self, is_ready: bool, desk: &Desk, datagram: &mut [u8]) -> Fate {
        if !is_ready {
            let is_patient = self.since.is_none_or(|since| since.elapsed() < ANSWER_PATIENCE);
            return if is_patient { Fate::Stays } else { self.left(desk, "it takes no answer") };
        }
        for _ in 0..TURN {
            match self.pay() {
                Ok(true) => {}
                Ok(false) => return Fate::Stays,
                Err(_) => return Fate::Gone,
            }
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let received = rustix::net::recv(&self.socket, &mut *datagram, flags);
            let len = match received {
                Ok((_, 0)) => return Fate::Gone,
                Ok((_, len)) => len,
                Err(Code::AGAIN | Code::INTR) => return Fate::Stays,
                Err(_) => return Fate::Gone,
            };
            let Some(request) = datagram.get(..len) else {
                return self.left(desk, "a datagram that is too long");
            };
            let mut asker = Asker { desk, peer: self.peer };
            if let Some(file) = &self.written {
                self.owed.extend(file.write(request, &mut asker));
                continue;
            }
            match rvs_netlink::answer(request, self.access, &mut asker) {
                Ok(Answer::Datagrams(datagrams)) => self.owed.extend(datagrams),
                Ok(Answer::Conns(conns)) => return Fate::Lists(conns),
                Ok(Answer::Written(datagrams, file)) => {
                    self.owed.extend(datagrams);
                    self.written = Some(file);
                }
                Err(error) => return self.left(desk, &error.to_string()),
            }
        }
        if self.pay().is_err() { Fate::Gone } else { Fate::Stays }
    }

    /// Sends what is owed, and says whether that was all.
    fn pay(&mut self) -> Result<bool, Code> {
        while let Some(datagram) = self.owed.front() {
            match send(&self.socket, datagram) {
                Ok(()) => {
                    self.owed.pop_front();
                    self.since = None;
                }
                Err(Code::AGAIN | Code::INTR | Code::NOBUFS) => {
                    self.since.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn left(&self, desk: &Desk, why: &str) -> Fate {
        let who = self.peer.map_or(String::new(), |peer| format!(" ({peer})"));
        desk.log(&format!("rvsd: netlink client{who} was left: {why}"));
        Fate::Gone
    }
}

/// The table as one client has it.
struct Asker<'d> {
    desk: &'d Desk,
    peer: Option<Peer>,
}

impl Table for Asker<'_> {
    fn service(&self, service: &ServiceKey) -> Option<ServiceAttributes> {
        self.desk.director().service(service)
    }

    fn carry_out(&mut self, request: Request) -> Outcome {
        self.desk.carry_out_one(request, self.peer)
    }
}

#[cfg(test)]
mod tests;
