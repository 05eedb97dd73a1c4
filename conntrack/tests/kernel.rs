//! States, timers and counts that the kernel had in its recordings are ours too.
//!
//! The recordings are in `tools/conformance/goldens/states`; their format is in the README of that
//! folder's parent. Each is played through a whole table, as a director with one destination would.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::SEED;
use core::net::Ipv4Addr;
use rvs_conntrack::state::tcp::flag::{ACK, FIN, RST, SYN};
use rvs_conntrack::state::{View, is_opening, is_reused, may_open, next};
use rvs_conntrack::{Capacity, Conn, Conns, Direction};
use rvs_model::{ForwardMethod, State, TICKS_PER_SECOND, Tick, Timeouts, Tunables};
use rvs_wire::flow::{Ends, Ends4, Key, V4, protocol};
use rvs_wire::sctp::event;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 1), 80);
const DEST: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 11), 80);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn golden(name: &str) -> Value {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tools/conformance/goldens/states");
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// The flags of a packet of `protocol` that a recording names so.
fn flags(protocol: u8, name: &str) -> u8 {
    if protocol == protocol::SCTP { chunk(name) } else { letters(name) }
}

/// The event that a chunk is.
fn chunk(name: &str) -> u8 {
    match name {
        "DATA" | "SACK" | "HEARTBEAT" => event::DATA,
        "INIT" => event::INIT,
        "INIT_ACK" => event::INIT_ACK,
        "COOKIE_ECHO" => event::COOKIE_ECHO,
        "COOKIE_ACK" => event::COOKIE_ACK,
        "SHUTDOWN" => event::SHUTDOWN,
        "SHUTDOWN_ACK" => event::SHUTDOWN_ACK,
        "SHUTDOWN_COMPLETE" => event::SHUTDOWN_COMPLETE,
        "ERROR" => event::ERROR,
        "ABORT" => event::ABORT,
        other => panic!("{other}?"),
    }
}

/// Flags by their letters; P is of no account.
fn letters(letters: &str) -> u8 {
    letters.chars().fold(0, |flags, letter| {
        flags
            | match letter {
                'S' => SYN,
                'A' => ACK,
                'F' => FIN,
                'R' => RST,
                _ => 0,
            }
    })
}

/// A director with one destination and everything that moves its connections.
struct Director {
    conns: Conns<V4>,
    timeouts: Timeouts,
    tunables: Tunables,
    method: ForwardMethod,
    protocol: u8,
    now: Tick,
    load: [u64; 2],
    /// Inactive connections that the last packet replaced. The kernel ends them a moment later, and
    /// has counted them in some of its recordings.
    replaced: u64,
    /// Each row of each table that a packet went through: view, secure, event, state.
    cells: HashSet<(&'static str, bool, u8, State)>,
}

impl Director {
    fn new(golden: &Value) -> Self {
        let sysctl = |name: &str| golden["sysctl"][name].as_u64();
        let mut tunables = Tunables::default();
        if let Some(mode) = sysctl("conn_reuse_mode") {
            tunables.conn_reuse_mode = u8::try_from(mode).unwrap();
        }
        tunables.sloppy_tcp = sysctl("sloppy_tcp") == Some(1);
        tunables.secure_tcp = u8::try_from(sysctl("secure_tcp").unwrap_or(0)).unwrap();
        let timeouts = Timeouts::default();
        let capacity = Capacity::new(1000, 2).unwrap();
        let mut conns = Conns::new(capacity, SEED, &timeouts, 0, false);
        conns.set_secure(tunables.secure_tcp == 3);
        let method = match golden["forwarding"].as_str().unwrap() {
            "NAT" => ForwardMethod::Masquerade,
            "DR" => ForwardMethod::Direct,
            other => panic!("{other}?"),
        };
        let protocol = match golden["protocol"].as_str().unwrap() {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "sctp" => protocol::SCTP,
            other => panic!("{other}?"),
        };
        let load = [0; 2];
        let cells = HashSet::new();
        let mut director = Self {
            conns,
            timeouts,
            tunables,
            method,
            protocol,
            now: 1000,
            load,
            replaced: 0,
            cells,
        };
        if let Some(set) = golden["set"].as_str() {
            director.set(set);
        }
        director
    }

    /// `--set tcp tcpfin udp`: 0 keeps.
    fn set(&mut self, line: &str) {
        let words = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
        let states = [State::Established, State::FinWait, State::Udp];
        for (state, seconds) in states.into_iter().zip(words).filter(|(_, seconds)| *seconds != 0) {
            self.timeouts.set(state, seconds);
        }
        self.conns.set_timeouts(&self.timeouts);
    }

    fn key(&self, port: u16, direction: Direction) -> Key<V4> {
        let client = (CLIENT, port);
        let ends = match direction {
            Direction::Inbound => Ends4::new(client, VIP),
            Direction::Outbound => Ends4::new(DEST, client),
        };
        Key { ends, protocol: self.protocol }
    }

    fn packet(&mut self, port: u16, direction: &str, name: &str) {
        let direction = match direction {
            "in" => Direction::Inbound,
            "out" => Direction::Outbound,
            other => panic!("{other}?"),
        };
        let flags = flags(self.protocol, name);
        let key = self.key(port, direction);
        let view = View::of(self.method, direction);
        let secure = self.tunables.secure_tcp == 3;
        let first = next(State::None, self.protocol, flags, view, secure);
        let conn = Conn {
            inbound: key.ends,
            outbound: Ends4::new(DEST, (CLIENT, port)),
            protocol: self.protocol,
            method: self.method,
            ..Conn::default()
        };
        self.replaced = 0;
        let hash = self.conns.table().hash(&key);
        let mut found = self.conns.find(&key, hash);
        match found {
            Some(known) => {
                let state = self.conns.table().conn(known.index).unwrap().state;
                let no_output = self.method != ForwardMethod::Masquerade;
                if direction == Direction::Inbound
                    && is_opening(self.protocol, flags)
                    && is_reused(self.tunables.conn_reuse_mode, state, no_output)
                {
                    let load = &mut self.load;
                    self.conns
                        .open_over(known.index, &conn, first, self.now, |gone| {
                            load[usize::from(!gone.state.is_active())] -= 1;
                        })
                        .unwrap();
                    self.load[1] += 1;
                    self.replaced = 1;
                }
            }
            None if direction == Direction::Inbound
                && may_open(self.protocol, flags, self.tunables.sloppy_tcp) =>
            {
                self.conns.open(&conn, first, self.now).unwrap();
                self.load[1] += 1;
                found = self.conns.find(&key, hash);
            }
            None => {}
        }
        let Some(found) = found else { return };
        let mut held = self.conns.held(found, &key).unwrap();
        let event = match self.protocol {
            protocol::TCP if flags & RST != 0 => RST,
            protocol::TCP => flags & (SYN | FIN | ACK),
            _ => flags,
        };
        let view = match view {
            View::Inbound => "in",
            View::Outbound => "out",
            View::InboundOnly => "in only",
        };
        self.cells.insert((view, secure, event, held.state));
        if let Some(before) = held.packet(flags, self.now) {
            self.load[usize::from(!before.is_active())] -= 1;
            self.load[usize::from(!held.state.is_active())] += 1;
        }
    }

    fn sleep(&mut self, seconds: u64) {
        for _ in 0..u32::try_from(seconds).unwrap() * TICKS_PER_SECOND {
            self.now += 1;
            let load = &mut self.load;
            while self.conns.expire::<64>(self.now, |gone| {
                load[usize::from(!gone.state.is_active())] -= 1;
            }) == 64
            {}
        }
    }

    /// State and seconds left, as the listing shows them.
    fn shown(&self, port: u16) -> Option<(&'static str, u64)> {
        let key = self.key(port, Direction::Inbound);
        let table = self.conns.table();
        let conn = table.conn(table.find(&key, table.hash(&key))?.index)?;
        let left = self.conns.left(conn, self.now) / TICKS_PER_SECOND;
        Some((conn.state.name(), u64::from(left)))
    }

    /// Claims that the connection of `port` is shown as `event` has it under `name`. The recorded
    /// seconds are truncated, some a little later than the packet: 59 and 60 are a timer of 60.
    fn agrees(&self, port: u16, event: &Value, name: &str) {
        let shown = self.shown(port);
        assert_eq!(shown.map(|(state, _)| state), event[name].as_str(), "{event}");
        if let Some((_, left)) = shown {
            let recorded = event["expires"].as_u64().unwrap();
            assert!((recorded..=recorded + 1).contains(&left), "{left} s left: {event}");
        }
    }
}

#[test]
fn every_recorded_transition_is_ours() {
    let mut cells = HashSet::new();
    for (name, events) in [
        ("tcp-nat-transitions.json", 160),
        ("tcp-nat-transitions-noreuse.json", 160),
        ("tcp-nat-transitions-sloppy.json", 90),
        ("tcp-dr-transitions.json", 60),
        ("tcp-dr-transitions-secure.json", 60),
        ("tcp6-nat-transitions.json", 80),
    ] {
        let golden = golden(name);
        let mut director = Director::new(&golden);
        let list = golden["events"].as_array().unwrap();
        assert!(list.len() >= events, "{name}: only {} events", list.len());
        for (event, port) in list.iter().zip(2000..) {
            for step in event["path"].as_array().unwrap() {
                director.packet(port, step[0].as_str().unwrap(), step[1].as_str().unwrap());
            }
            let before = director.shown(port).map(|(state, _)| state);
            assert_eq!(before, event["state"].as_str(), "{name}: {event}");
            director.packet(port, event["dir"].as_str().unwrap(), event["pkt"].as_str().unwrap());
            director.agrees(port, event, "next");
        }
        cells.extend(director.cells);
    }
    assert!(cells.len() >= 150, "only {} cells of the tables were visited", cells.len());
}

/// All states, all chunks, both directions: the tables of associations that the director sees both
/// ways.
#[test]
fn every_cell_of_the_sctp_tables_is_the_kernels() {
    let golden = golden("sctp-nat-transitions.json");
    let mut director = Director::new(&golden);
    for (event, port) in golden["events"].as_array().unwrap().iter().zip(2000..) {
        for step in event["path"].as_array().unwrap() {
            director.packet(port, step[0].as_str().unwrap(), step[1].as_str().unwrap());
        }
        assert_eq!(director.shown(port).map(|(state, _)| state), event["state"].as_str());
        director.packet(port, event["dir"].as_str().unwrap(), event["pkt"].as_str().unwrap());
        director.agrees(port, event, "next");
    }
    // 13 states and 10 events, in and out; INIT in CLOSED begins anew, and begins in no state.
    let cells = director.cells.len();
    assert_eq!(cells, 13 * 10 * 2, "{:?}", director.cells);
}

#[test]
fn every_recorded_conversation_is_ours_with_timers_and_counts() {
    for name in [
        "tcp-nat-sequences-open.json",
        "tcp-dr-sequences-open.json",
        "tcp-set-timeouts.json",
        "tcp-icmp-nat.json",
        "udp-nat.json",
        "sctp-nat-sequences.json",
    ] {
        let golden = golden(name);
        let mut director = Director::new(&golden);
        for event in golden["events"].as_array().unwrap() {
            let port = u16::try_from(event["cport"].as_u64().unwrap()).unwrap();
            for step in event["steps"].as_array().unwrap() {
                if let Some(seconds) = step["sleep"].as_u64() {
                    director.sleep(seconds);
                } else if let Some(line) = step["ipvsadm"].as_str() {
                    director.set(line);
                    continue;
                } else {
                    let packet = step["pkt"].as_str().unwrap();
                    // ICMP about a connection goes through it, but leaves its timer alone.
                    if !packet.starts_with("icmp") {
                        director.packet(port, step["dir"].as_str().unwrap(), packet);
                    }
                    let [active, inactive] =
                        ["active", "inact"].map(|it| step[it].as_u64().unwrap());
                    assert_eq!(active, director.load[0], "{name}: {step}");
                    let later = inactive - director.load[1];
                    assert!(later <= director.replaced, "{name}: {step}");
                }
                director.agrees(port, step, "state");
            }
        }
    }
}
