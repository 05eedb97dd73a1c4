//! One judge per category of recordings, all of the same shape: plays what happened, and enters
//! into a ledger whether rvs did what the kernel did.

mod behaviour;
mod commands;
mod environment;
mod packets;
mod rates;
mod scheduler;
mod states;

use crate::golden::Golden;
use crate::scene::{Scene, Set};
use crate::stage::{Sent, Side};
use crate::tally::{Failure, Ledger};
use crate::{packet, scene};
use core::net::SocketAddr;
pub(crate) use packets::{hex, leaving};
use rvs_wire::ethernet::{self, Ethernet};
use rvs_wire::tunnel;

/// Plays a recording.
///
/// # Errors
///
/// It cannot be played to its end: a frame was lost, or the kernel took a command of its setup that
/// rvs refuses with an error of the kernel's.
pub fn recording(golden: &Golden) -> Result<Ledger, Failure> {
    let mut ledger = Ledger::default();
    let on_stage: fn(&Golden, &mut Scene, &mut Ledger) -> Result<(), Failure> =
        match golden.category.as_str() {
            "scheduler" => scheduler::play,
            "states" => states::play,
            "behaviour" => behaviour::play,
            "packets" => packets::play,
            "cli" => return commands::play(golden, &mut ledger).map(|()| ledger),
            "environment" => {
                environment::play(golden, &mut ledger);
                return Ok(ledger);
            }
            other => {
                let what = match other {
                    "sync" => "synchronisation of connections".to_owned(),
                    other => format!("category {other}"),
                };
                ledger.leave_out(what, golden.events.len().max(1));
                return Ok(ledger);
            }
        };
    match Scene::set(golden)? {
        Set::Up(mut scene) => on_stage(golden, &mut scene, &mut ledger)?,
        Set::Beyond(reason) => ledger.leave_out(reason.0, golden.events.len().max(1)),
    }
    Ok(ledger)
}

/// Leaves out what follows an event that nobody knows how to play: it may have changed anything.
fn leave_rest(golden: &Golden, number: usize, ledger: &mut Ledger) {
    ledger.leave_out(
        "from the first event of a kind that is not known",
        golden.events.len() - number,
    );
}

/// A packet that the director sent, read.
#[derive(Clone, Debug)]
struct Seen {
    side: Side,
    /// The real server that the frame is addressed to, with the port that it will find the service
    /// at.
    server: Option<SocketAddr>,
    look: packet::Look,
}

/// Reads what the director sent; what is no IP packet is left out.
fn seen(sent: &[Sent]) -> Vec<Seen> {
    let read = |sent: &Sent| {
        let (ethernet, _) = Ethernet::parse(&sent.frame).ok()?;
        let look = packet::look(sent.frame.get(ethernet::HEADER_LEN..)?)?;
        let server = scene::server_of(ethernet.destination(), look.destination);
        let server = server.filter(|_| sent.side == Side::Servers);
        let port = port_at_server(&look, &sent.frame);
        let server = server.map(|address| SocketAddr::new(address, port));
        Some(Seen { side: sent.side, server, look })
    };
    sent.iter().filter_map(read).collect()
}

/// The destination port of a packet, or of the one inside if it is a tunnel's.
fn port_at_server(look: &packet::Look, frame: &[u8]) -> u16 {
    let packet = frame.get(ethernet::HEADER_LEN..).filter(|_| scene::OWN.contains(&look.source));
    let inner = packet.and_then(tunnel::open).and_then(|opened| packet::look(opened.packet));
    inner.unwrap_or(*look).destination_socket().port()
}

/// The server that a client's packet was forwarded to, and how the packet left.
fn forwarded(seen: &[Seen]) -> Option<&Seen> {
    seen.iter().find(|seen| seen.side == Side::Servers)
}

/// The server, with the port that it will find the service at, which got one of the frames `sent`.
#[must_use]
pub fn forwarded_to(sent: &[Sent]) -> Option<SocketAddr> {
    forwarded(&seen(sent))?.server
}

/// What the director answered on `side`.
fn answers(seen: &[Seen], side: Side) -> Vec<&packet::Look> {
    seen.iter().filter(|seen| seen.side == side).map(|seen| &seen.look).collect()
}

/// Something that may not be there, to be compared and printed.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Maybe<T>(Option<T>);

impl<T: core::fmt::Display> core::fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            Some(it) => it.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}
