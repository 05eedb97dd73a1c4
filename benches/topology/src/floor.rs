//! The least that a program between two TAPs can do, whatever it is for: one read and one write a frame, and
//! one wait for all that is there. Frames get other Ethernet addresses, as any router's do, and go on
//! uncut and unfinished, as rvs leaves them. No table, no counters, nothing is looked at.

use std::fs::File;
use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{read, write};
use rvs_io::tap::{HostEnd, open};

use crate::stage::{CLIENT_MAC, DIRECTOR_MACS, SERVERS_MAC};

/// Octets of the header before each frame that says what is left to do.
const HEADER: usize = 10;
/// What both Ethernet addresses take.
const MACS: usize = 12;
/// Frames that are carried before looking whether there are some the other way.
const TURN: usize = 64;

/// One way.
struct Way {
    from: File,
    to: File,
    macs: [u8; MACS],
}

/// Carries frames between the TAPs `c0` and `r0`, which it makes, until it is killed.
pub fn act() -> Result<()> {
    let host = HostEnd { mtu: None, mac: None, leaves: true };
    let one = |name: &str| -> Result<File> {
        let queue = open(name, 1, &host)?.pop().context("a TAP without a queue")?;
        Ok(queue.as_fd().try_clone_to_owned()?.into())
    };
    let [clients, servers] = [one("c0")?, one("r0")?];
    let [near_clients, near_servers] = DIRECTOR_MACS;
    let ways = [
        Way {
            from: clients.try_clone()?,
            to: servers.try_clone()?,
            macs: macs(SERVERS_MAC, near_servers)?,
        },
        Way { from: servers, to: clients, macs: macs(CLIENT_MAC, near_clients)? },
    ];
    eprintln!("floor: ready");
    let mut room = vec![0; 1 << 17];
    loop {
        let mut ready = ways.each_ref().map(|way| PollFd::new(&way.from, PollFlags::IN));
        poll(&mut ready, None)?;
        let ready = ready.map(|one| !one.revents().is_empty());
        for (way, _) in ways.iter().zip(ready).filter(|(_, ready)| *ready) {
            way.carry(&mut room);
        }
    }
}

impl Way {
    fn carry(&self, room: &mut [u8]) {
        for _ in 0..TURN {
            // Nothing there, or a device that is being moved elsewhere: there will be.
            let Ok(octets) = read(&self.from, &mut *room) else { break };
            if let Some(place) = room.get_mut(HEADER..HEADER + MACS) {
                place.copy_from_slice(&self.macs);
            }
            // What the other end does not take is lost, as on a cable.
            let _lost = room.get(..octets).map(|frame| write(&self.to, frame));
        }
    }
}

/// As in a frame: to whom, from whom.
fn macs(to: &str, from: &str) -> Result<[u8; MACS]> {
    let octets = to.split(':').chain(from.split(':')).map(|octet| u8::from_str_radix(octet, 16));
    let octets: Vec<_> = octets.collect::<Result<_, _>>()?;
    octets.try_into().ok().context("an Ethernet address has six octets")
}
