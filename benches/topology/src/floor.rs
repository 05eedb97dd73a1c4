//! The least that a program between two devices can do, whatever it is for. Frames get other Ethernet
//! addresses, as any router's do. No table, no counters, nothing is looked at.
//!
//! - Between TAPs: one read and one write a frame, and one wait for all that is there. Frames go on uncut
//!   and unfinished, as rvs leaves them.
//! - Between veths, over AF_XDP: all that a ring has goes into the other ring, with one call for all of it.

use std::fs::File;
use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{read, write};
use rvs_io::af_xdp::{self, AfXdpQueue, Settings};
use rvs_io::tap::{self, HostEnd};
use rvs_io::{Burst, Frame as _, Pool as _, Queue as _, Reserve, RoomFrame, RoomPool};

use crate::stage::{CLIENT_MAC, DIRECTOR_MACS, SERVERS_MAC, SHARED_MACS};

/// Octets of the header before each frame that says what is left to do.
const HEADER: usize = 10;
/// What both Ethernet addresses take.
const MACS: usize = 12;
/// Frames that are carried before looking whether there are some the other way.
const TURN: usize = 64;
/// Octets of the longest frame on veths, which have the MTU that they are made with.
const LONGEST: usize = 1514;
/// Empty looks at both rings before a wait.
const PATIENCE: u32 = 16;

/// One way.
struct Way {
    from: File,
    to: File,
    macs: [u8; MACS],
}

/// Carries frames between the TAPs `c0` and `r0`, which it makes, until it is killed.
pub fn tap() -> Result<()> {
    let host = HostEnd { mtu: None, mac: None, leaves: true };
    let one = |name: &str| -> Result<File> {
        let queue = tap::open(name, 1, &host)?.pop().context("a TAP without a queue")?;
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

/// Carries frames between the veths `d0` and `d1`, all that come, until it is killed.
pub fn af_xdp() -> Result<()> {
    let one = |device| -> Result<AfXdpQueue> {
        let settings = Settings {
            device,
            queues: 1,
            mac: [0; 6],
            shared: false,
            mtu: 1500,
            frame_octets: LONGEST,
            zero_copy: None,
            busy_poll_us: None,
            mend: |_| {},
        };
        af_xdp::open(&settings)?.0.pop().context("a device without a queue")
    };
    let [mut clients, mut servers] = [one("d0")?, one("d1")?];
    let [near_clients, near_servers] = SHARED_MACS;
    let to_servers = macs(SERVERS_MAC, near_servers)?;
    let to_clients = macs(CLIENT_MAC, near_clients)?;
    let mut pool = Reserve::new(2 * TURN, LONGEST).pool();
    let mut burst = Burst::new();
    eprintln!("floor: ready");
    let mut empty = 0;
    loop {
        let there = pass(&mut clients, &mut servers, &to_servers, &mut pool, &mut burst)
            + pass(&mut servers, &mut clients, &to_clients, &mut pool, &mut burst);
        empty = if there > 0 { 0 } else { empty + 1 };
        if empty >= PATIENCE {
            let all = [&clients, &servers];
            poll(&mut all.map(|queue| PollFd::new(queue, PollFlags::IN)), None)?;
        }
    }
}

/// Passes on what is there: how many frames.
fn pass(
    from: &mut AfXdpQueue,
    to: &mut AfXdpQueue,
    macs: &[u8; MACS],
    pool: &mut RoomPool,
    burst: &mut Burst<RoomFrame>,
) -> usize {
    let there = from.receive(pool, burst, TURN);
    if there > 0 {
        for place in burst.iter_mut().filter_map(|frame| frame.octets_mut().get_mut(..MACS)) {
            place.copy_from_slice(macs);
        }
        to.send(pool, burst);
        // What the other end does not take is lost, as on a cable.
        burst.drain(..).for_each(|frame| pool.give(frame));
    }
    there
}

/// As in a frame: to whom, from whom.
fn macs(to: &str, from: &str) -> Result<[u8; MACS]> {
    let octets = to.split(':').chain(from.split(':')).map(|octet| u8::from_str_radix(octet, 16));
    let octets: Vec<_> = octets.collect::<Result<_, _>>()?;
    octets.try_into().ok().context("an Ethernet address has six octets")
}
