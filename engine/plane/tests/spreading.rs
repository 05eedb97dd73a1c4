//! Several workers: whoever gets a packet, its connection's owner handles it; what that costs in
//! handed-over frames; and that workers write to no cache line of each other's.
//!
//! The reports are printed: `cargo nextest run -p rvs-plane --test spreading --no-capture`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a test may panic")]

mod rig;
#[path = "sim/rss.rs"]
#[allow(dead_code, reason = "the simulation uses all of it")]
mod rss;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use rig::frames::{ACK, SYN, ethernet, tcp};
use rig::{CLIENT_MAC, LIMITS, Left, OUR_MACS, Plan, Rig, dest_mac, interface, network_with};
use rss::{Spread, owner};
use rvs_model::{DestLine, ForwardMethod, SchedulerKind};
use rvs_plane::Limits;
use rvs_plane::shared::FrameCounters;
use std::collections::HashMap;

/// Of a cache. Processors fetch them in pairs; what is aligned to two is apart in any case.
const LINE: usize = 64;

/// Where frames come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Arms {
    One,
    Two,
}

/// Clients' addresses and ports, as different as a big site's.
fn client(number: u32) -> SocketAddr {
    let address = Ipv4Addr::from_bits(0x0b00_0000 + number.wrapping_mul(2_654_435_761) % (1 << 24));
    let port = 1024 + u16::try_from(number % 60_000).unwrap();
    (IpAddr::from(address), port).into()
}

struct Balanced {
    rig: Rig,
    arms: Arms,
    vip: SocketAddr,
    dest: SocketAddr,
}

impl Balanced {
    fn new(workers: u16, spread: Spread, arms: Arms, conns: u32) -> Self {
        let mut first = interface(0, 0, 1500);
        let mut interfaces = vec![first.clone()];
        if arms == Arms::One {
            first.addresses.push("192.0.2.1/24".parse().unwrap());
            interfaces = vec![first];
        } else {
            interfaces.push(interface(1, 0, 1500));
        }
        let mut network = network_with(interfaces, u8::from(arms == Arms::Two));
        if arms == Arms::One {
            network = on_one_link(&network);
        }
        let plan = Plan {
            workers,
            limits: Limits { conns4: 2 * conns / u32::from(workers) + 4096, ..LIMITS },
            rss: spread.hashes(),
            ring: 256,
            frames: 16_384,
            cache: 8,
        };
        let mut rig = Rig::new(network, &plan);
        let (vip, dest) = ("198.51.100.80:80", "192.0.2.11:8080");
        rig.add_service((6, vip), SchedulerKind::Rr, &[(dest, ForwardMethod::Masquerade, 1)]);
        Self { rig, arms, vip: vip.parse().unwrap(), dest: dest.parse().unwrap() }
    }

    /// A handshake of each of these clients: who handled each packet, by whom the rule names.
    fn handshakes(&mut self, clients: core::ops::Range<u32>, workers: u16) {
        let to_servers = usize::from(self.arms == Arms::Two);
        for step in 0..3 {
            for number in clients.clone() {
                let client = client(number);
                let (link, frame) = if step == 1 {
                    let packet = tcp(self.dest, client, SYN | ACK, b"");
                    (to_servers, ethernet(OUR_MACS[to_servers], dest_mac(0), &packet))
                } else {
                    let flags = if step == 0 { SYN } else { ACK };
                    (0, ethernet(OUR_MACS[0], CLIENT_MAC, &tcp(client, self.vip, flags, b"")))
                };
                self.rig.far[link].inject(&frame).unwrap();
            }
            let mut handled = 0;
            loop {
                let now = self.rig.now;
                let moved: usize = self.rig.workers.iter_mut().map(|it| it.breathe(now)).sum();
                for Left { worker, frame, .. } in self.rig.collect() {
                    // The client's end: the source on the way to servers, else the destination.
                    let (address, port) = if step == 1 { (30, 36) } else { (26, 34) };
                    let client: [u8; 4] = frame[address..address + 4].try_into().unwrap();
                    let port = u16::from_be_bytes([frame[port], frame[port + 1]]);
                    assert_eq!(worker, owner(client.into(), port, workers), "handled by its owner");
                    handled += 1;
                }
                if moved == 0 {
                    break;
                }
            }
            assert_eq!(handled, clients.len(), "each of them left");
        }
        self.rig.assert_conservation();
    }
}

/// The first destination is known on the one link too.
fn on_one_link(network: &rvs_plane::network::Network) -> rvs_plane::network::Network {
    use rvs_plane::network::{InterfaceId, Network, Route, StaticNeighbor};
    let at = |address: &str, mac| StaticNeighbor {
        interface: InterfaceId(0),
        address: address.parse().unwrap(),
        mac,
    };
    let neighbors = vec![at("198.51.100.254", CLIENT_MAC), at("192.0.2.11", dest_mac(0))];
    let route = Route {
        to: "0.0.0.0/0".parse().unwrap(),
        interface: InterfaceId(0),
        via: Some("198.51.100.254".parse().unwrap()),
    };
    Network::new(network.interfaces().to_vec(), vec![route], vec![], neighbors, true)
}

fn share(part: u64, all: u64) -> f64 {
    100.0 * u32::try_from(part).map_or(f64::MAX, f64::from) / f64::from(u32::try_from(all).unwrap())
}

#[test]
fn every_packet_of_a_hundred_thousand_nat_connections_is_handled_by_its_owner() {
    const CONNS: u32 = 100_000;
    println!("handed over, of all packets of {CONNS} NAT connections:");
    for (spread, arms, what, bounds) in [
        (Spread::ByClient, Arms::Two, "source only, destination only", 0.0..=0.0),
        (Spread::ByFlow, Arms::Two, "addresses and ports of both ends", 48.0..=52.0),
        (Spread::ByFlow, Arms::One, "the same, one arm", 48.0..=52.0),
        (Spread::None, Arms::Two, "no RSS: all to one queue", 48.0..=52.0),
    ] {
        let workers = 2;
        let mut balanced = Balanced::new(workers, spread, arms, CONNS);
        let mut next = 0;
        while next < CONNS {
            let step = 100.min(CONNS - next);
            balanced.handshakes(next..next + step, workers);
            next += step;
        }
        let counts = balanced.rig.counts();
        assert_eq!(counts.received, 3 * u64::from(CONNS));
        assert_eq!((counts.sent, counts.dropped_total()), (counts.received, 0));
        let handed = share(counts.handed, counts.received);
        let conns: Vec<u64> =
            balanced.rig.shared.iter().map(|it| it.frames.read().conns[0]).collect();
        println!("  {what:<34}{handed:5.1} %   connections {conns:?}");
        assert!(bounds.contains(&handed), "{what}: {handed}");
        assert_eq!(conns.iter().sum::<u64>(), u64::from(CONNS));
    }
}

#[test]
fn sixty_four_workers_share_the_work_and_write_to_no_line_of_each_others() {
    const WORKERS: u16 = 64;
    const CONNS: u32 = 64_000;
    /// The busiest worker's connections, as a multiple of a fair share. 1000 each by chance: five
    /// standard deviations are 16 %.
    const BOUND: f64 = 1.16;
    let mut balanced = Balanced::new(WORKERS, Spread::ByClient, Arms::Two, CONNS);
    balanced.handshakes(0..256, WORKERS);
    let warm = balanced.rig.reserve.free();
    let mut next = 256;
    while next < CONNS {
        balanced.handshakes(next..next + 256.min(CONNS - next), WORKERS);
        next += 256;
    }
    let counts = balanced.rig.counts();
    assert_eq!((counts.sent, counts.dropped_total()), (3 * u64::from(CONNS), 0));
    // The two things that several workers write to by design, neither of them in this path: rings
    // between workers, and the frames that no pool holds.
    assert_eq!(counts.handed, 0, "no ring is touched");
    assert_eq!(balanced.rig.reserve.free(), warm, "the shared reserve is not touched");

    let conns: Vec<u64> = balanced.rig.shared.iter().map(|it| it.frames.read().conns[0]).collect();
    let (least, most) = (*conns.iter().min().unwrap(), *conns.iter().max().unwrap());
    let fair = f64::from(CONNS) / f64::from(WORKERS);
    let [busiest, idlest] =
        [most, least].map(|count| f64::from(u32::try_from(count).unwrap()) / fair);
    println!("64 workers: the busiest has {busiest:.3} of a fair share, the idlest {idlest:.3}");
    assert!(busiest <= BOUND && idlest >= 2.0 - BOUND, "{conns:?}");

    // By construction: what a worker writes and others can see begins and ends at a line.
    let mut lines: HashMap<usize, u16> = HashMap::new();
    let mut claim = |from: usize, octets: usize, worker: u16| {
        assert_eq!((from % LINE, octets % LINE), (0, 0), "worker {worker} ends within a line");
        for line in from / LINE..(from + octets) / LINE {
            let other = lines.insert(line, worker);
            assert!(other.is_none_or(|other| other == worker), "workers {worker} and {other:?}");
        }
    };
    for (shared, worker) in balanced.rig.shared.iter().zip(0..) {
        let frames = core::ptr::from_ref::<FrameCounters>(&shared.frames).addr();
        claim(frames, size_of::<FrameCounters>(), worker);
        let places = shared.lines.as_ptr().addr();
        claim(places, size_of::<DestLine>() * shared.lines.len(), worker);
    }
    println!("64 workers: {} lines of counters, none of two workers", lines.len());
}
