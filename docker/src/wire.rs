//! A cable that does something: it tags, or it is bad.
//!
//! ```text
//!  hosts ═ bridge ═ TAP ── Faulty ── this program ── TAP ═ bridge ═ rvsd's TAP
//!          frames as hosts send them                 with a VLAN tag, if one is asked for
//! ```
//!
//! Between namespaces both bridges are in the one that has them all, and the lab plugs it in. Between
//! containers they are in the director's network, and the program plugs itself in ([`insert`]).
//!
//! Not every kernel has VLAN devices or netem; every kernel that can run a lab has TAP.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rvs_io::faulty::{Faults, Faulty};
use rvs_io::tap::{self, HostEnd};
use rvs_io::{Burst, Frame, Pool, Queue, Reserve, RoomFrame, RoomPool};
use signal_hook::consts::SIGTERM;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::netns::{tap_name, wire_names};
use crate::process::run_with_input;
use crate::topology::Cable;

/// Frames that are on the way at most.
const FRAMES: usize = 4096;

/// Octets of a tag, and its Ethernet type (IEEE 802.1Q).
const TAG: usize = 4;
const DOT1Q: [u8; 2] = [0x81, 0x00];

/// Octets of both Ethernet addresses.
const ADDRESSES: usize = 12;

/// How long it rests when there is nothing to carry.
const REST: Duration = Duration::from_micros(50);

/// Carries frames between the TAP devices of `network`'s program, until SIGTERM; then prints what it
/// did to them. `plug_in` is done when both devices are there.
///
/// # Errors
///
/// A device cannot be opened, or `plug_in` fails.
pub fn run(network: &str, cable: &Cable, plug_in: impl FnOnce() -> Result<()>) -> Result<()> {
    let [hosts, director] = wire_names(network);
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stop))?;
    let end = HostEnd { mtu: Some(cable.mtu), mac: None, leaves: false };
    let open = |name: &str| tap::open(name, 1, &end)?.pop().context("no queue");
    let faults = Faults {
        lose: cable.lose,
        corrupt: cable.corrupt,
        truncate: cable.truncate,
        duplicate: cable.duplicate,
        reorder: cable.reorder,
        overtaken_by: 3,
        delay: cable.delay,
        delay_calls: 40,
    };
    let mut hosts = Faulty::new(open(&hosts)?, cable.seed, faults, faults);
    let mut director = open(&director)?;
    plug_in()?;
    let reserve = Reserve::new(FRAMES, usize::from(cable.mtu) + 18 + TAG);
    let mut pool = reserve.pool();
    eprintln!("wire: ready");
    let mut burst = Burst::new();
    while !stop.load(Ordering::Relaxed) {
        let mut carried = hosts.receive(&mut pool, &mut burst, 64);
        if let Some(id) = cable.vlan {
            each(&mut burst, &mut pool, |frame| tag(frame, id));
        }
        pass(&mut burst, &mut director, &mut pool);
        carried += director.receive(&mut pool, &mut burst, 64);
        if let Some(id) = cable.vlan {
            each(&mut burst, &mut pool, |frame| untag(frame, id));
        }
        pass(&mut burst, &mut hosts, &mut pool);
        if carried == 0 {
            thread::sleep(REST);
        }
    }
    println!("from hosts: {:?}\nto hosts: {:?}", hosts.received(), hosts.sent());
    Ok(())
}

/// Takes rvsd's TAP of `network` from the bridge that it shares with hosts, and puts a bridge of its own
/// and the program's TAPs between the two.
///
/// # Errors
///
/// The TAP is on no bridge, or what `ip` complains about.
pub fn insert(network: &str) -> Result<()> {
    let ([hosts, director], tap) = (wire_names(network), tap_name(network));
    let master = fs::read_link(format!("/sys/class/net/{tap}/master"));
    let master = master.with_context(|| format!("the bridge of {tap}"))?;
    let shared = master.file_name().context("a bridge without name")?.to_string_lossy();
    let script = format!(
        "link add brd-{network} type bridge mcast_snooping 0\n\
         link set {tap} master brd-{network}\n\
         link set {director} master brd-{network} up\n\
         link set brd-{network} up\n\
         link set {hosts} master {shared} up\n"
    );
    run_with_input(Command::new("ip").args(["-batch", "-"]), &script)
}

/// Sends all; what the device refuses is lost, as on any cable.
fn pass<Q: Queue<Frame = RoomFrame, Pool = RoomPool>>(
    burst: &mut Burst<RoomFrame>,
    to: &mut Q,
    pool: &mut RoomPool,
) {
    to.send(pool, burst);
    burst.drain(..).for_each(|frame| pool.give(frame));
}

/// Changes each frame; those that cannot be are lost.
fn each(
    burst: &mut Burst<RoomFrame>,
    pool: &mut RoomPool,
    change: impl Fn(&mut RoomFrame) -> bool,
) {
    let mut kept = Burst::new();
    for mut frame in burst.drain(..) {
        if change(&mut frame) {
            kept.push(frame);
        } else {
            pool.give(frame);
        }
    }
    *burst = kept;
}

/// Puts a tag behind the addresses.
fn tag(frame: &mut RoomFrame, id: u16) -> bool {
    if frame.octets().len() < ADDRESSES || !frame.shift_front(4) {
        return false;
    }
    let octets = frame.octets_mut();
    octets.copy_within(TAG..TAG + ADDRESSES, 0);
    let [high, low] = id.to_be_bytes();
    if let Some(place) = octets.get_mut(ADDRESSES..ADDRESSES + TAG) {
        place.copy_from_slice(&[DOT1Q[0], DOT1Q[1], high, low]);
    }
    true
}

/// Takes the tag `id` off; frames without it are not for this network.
fn untag(frame: &mut RoomFrame, id: u16) -> bool {
    let [high, low] = id.to_be_bytes();
    let wanted = [DOT1Q[0], DOT1Q[1], high, low];
    if frame.octets().get(ADDRESSES..ADDRESSES + TAG) != Some(&wanted[..]) {
        return false;
    }
    frame.octets_mut().copy_within(..ADDRESSES, TAG);
    frame.shift_front(-4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_put_behind_the_addresses_and_taken_off_again() {
        let mut frame = Reserve::new(1, 100).pool().take().unwrap();
        let plain: Vec<u8> = (1..=60).collect();
        assert!(frame.fill(&plain) && tag(&mut frame, 100));
        assert_eq!(frame.octets().len(), 64);
        assert_eq!(frame.octets()[10..18], [11, 12, 0x81, 0, 0, 100, 13, 14]);
        assert!(!untag(&mut frame, 101), "another network's");
        assert!(untag(&mut frame, 100));
        assert_eq!(frame.octets(), plain);
    }
}
