//! What must hold after every breath, and of every frame that leaves.

use super::menu::{Entry, Menu, PLACES};
use super::rss::owner;
use super::server::number_of;
use crate::rig::frames::{FIN, ICMP, ICMPV6, L3, RST, Seen, TCP, UDP, read, read_packet, trimmed};
use crate::rig::{Left, OUR_MACS, Rig, dest_ip, dest_mac};
use core::net::SocketAddr;
use rvs_model::ForwardMethod::{Direct, Masquerade, Tunnel};
use rvs_model::{Load, Tick, ticks};
use rvs_plane::handoff::TOGETHER;
use rvs_plane::shared::{Command, ConnRow, Dump};
use std::collections::{HashMap, HashSet};

/// Shorter than any state but NONE lasts.
const SURE: Tick = ticks(9);

/// The port of a template that is found no more.
const VOID_PORT: u16 = 65535;

/// How things stood when the links were last emptied: before any frame left that is on them now.
#[derive(Clone, Debug, Default)]
struct Before {
    now: Tick,
    missed: u64,
    upsets: Vec<[u32; PLACES]>,
}

/// What is known of the packets between a client's port and a service.
#[derive(Clone, Copy, Debug)]
struct Flow {
    server: u8,
    /// Where it was before, if it moved since the links were last emptied: packets that came in one
    /// burst with the SYN that began anew may still follow the old connection.
    moved_from: Option<u8>,
    /// There was no connection, for all that is known, before what has left since then.
    was_loose: bool,
    /// Not after its last packet.
    last: Tick,
    upsets: u32,
    missed: u64,
    /// A FIN or a reset went by: a SYN may begin anew. Or nothing is sure.
    ended: bool,
}

pub struct Judge {
    workers: u16,
    flows: HashMap<(SocketAddr, usize), Flow>,
    before: Before,
    /// Frames have waited for neighbours since the links were last emptied: they leave late.
    waited: bool,
    rows: Vec<ConnRow>,
    dumps: u64,
    pub looks: u64,
}

impl Judge {
    pub fn new(workers: u16) -> Self {
        Self {
            workers,
            flows: HashMap::new(),
            before: Before::default(),
            waited: false,
            rows: Vec::with_capacity(256),
            dumps: 0,
            looks: 0,
        }
    }

    /// Lets a worker breathe and looks at what it holds then.
    pub fn breathe(&mut self, rig: &mut Rig, worker: usize, menu: &Menu) {
        self.dumps += 1;
        let v6 = self.dumps.is_multiple_of(2);
        let rows = core::mem::take(&mut self.rows);
        let dump = Dump { v6, from: 0, rows, done: false };
        rig.shared[worker].commands.push(Command::Dump(dump)).unwrap();
        rig.workers[worker].breathe(rig.now);
        let Some(Command::Dump(mut dump)) = rig.shared[worker].replies.pop() else {
            panic!("a table of 256 lines is listed in one breath");
        };
        assert!(dump.done);
        self.conservation(rig, worker);
        self.table(rig, worker, v6, &dump.rows, menu);
        dump.rows.clear();
        self.rows = dump.rows;
        self.looks += 1;
        self.waited |= rig.shared[worker].frames.read().held > 0;
    }

    fn conservation(&self, rig: &Rig, worker: usize) {
        let counts = rig.shared[worker].frames.read();
        assert_eq!(counts.unaccounted(), 0, "worker {worker}: {counts:?}");
        let all: Vec<_> = rig.shared.iter().map(|shared| shared.frames.read()).collect();
        let handed: u64 = all.iter().map(|counts| counts.handed).sum();
        let taken: u64 = all.iter().map(|counts| counts.taken).sum();
        let waiting: usize =
            (0..self.workers).map(|worker| rig.mesh.inbox(worker).unwrap().waiting()).sum();
        let in_rings = usize::try_from(handed - taken).unwrap();
        assert!((waiting..=waiting * TOGETHER).contains(&in_rings), "{in_rings} in {waiting}");
        let no_bug = rig.drops();
        assert_eq!(no_bug.get("no-headroom"), None, "our own mistake");
    }

    fn table(&mut self, rig: &Rig, worker: usize, v6: bool, rows: &[ConnRow], menu: &Menu) {
        let number = u16::try_from(worker).unwrap();
        assert_eq!(rig.workers[worker].conns()[usize::from(v6)], rows.len());
        let mut keys = HashSet::new();
        let mut loads: HashMap<_, Load> = HashMap::new();
        let mut templates: HashMap<_, u32> = HashMap::new();
        for row in rows {
            let is_void = row.template.is_some() && row.vip.port() == VOID_PORT;
            let key = (row.client, row.vip, row.protocol);
            assert!(keys.insert(key) || is_void, "{row:?} is there twice");
            if row.template.is_some() {
                let of = owner(row.client.ip(), 0, self.workers);
                assert_eq!(of, number, "{row:?} is another worker's");
                *templates.entry(row.dest_id).or_default() += 1;
                continue;
            }
            let mut all = menu.all.iter();
            let entry = all.find(|it| (it.vip, it.protocol) == (row.vip, row.protocol)).unwrap();
            let owner = entry.owner(row.client, self.workers);
            assert_eq!(owner, number, "{row:?} is another worker's");
            let load = loads.entry(row.dest_id).or_default();
            *(if row.state.is_active() { &mut load.active } else { &mut load.inactive }) += 1;
            follows_its_template(rig, entry, row, rows);
        }
        for entry in menu.all.iter().filter(|entry| entry.v6() == v6) {
            for (_, id, _) in &entry.dests {
                let line = &rig.shared[worker].lines[usize::try_from(id.0).unwrap()];
                let wanted = loads.get(id).copied().unwrap_or_default();
                assert_eq!(line.load(), wanted, "load of {id:?} on worker {worker}");
                let wanted = templates.get(id).copied().unwrap_or_default();
                assert_eq!(line.templates(), wanted, "templates to {id:?} on worker {worker}");
            }
        }
    }

    /// The links are empty.
    pub fn emptied(&mut self, rig: &Rig, menu: &Menu) {
        for flow in self.flows.values_mut() {
            (flow.moved_from, flow.was_loose) = (None, false);
        }
        self.waited = rig.counts().held > 0;
        let upsets = menu.all.iter().map(|entry| entry.upsets).collect();
        self.before = Before { now: rig.now, missed: missed(rig), upsets };
    }

    /// When a frame came that leaves now, at the latest that is sure.
    fn last(&self) -> Tick {
        if self.waited { self.before.now.wrapping_sub(SURE) } else { self.before.now }
    }

    /// A packet of a flow was seen at `server`, or came from there.
    fn follow(
        &mut self,
        rig: &Rig,
        menu: &Menu,
        key: (SocketAddr, usize),
        server: u8,
        seen: &Seen,
    ) {
        let before = &self.before;
        let upsets = before.upsets.get(key.1).map_or(0, |all| all[usize::from(server)]);
        let ends = seen.protocol == TCP && seen.flags & (FIN | RST) != 0;
        let (last, missed) = (self.last(), before.missed);
        let fresh =
            Flow { server, moved_from: None, was_loose: true, last, upsets, missed, ended: ends };
        let Some(flow) = self.flows.get(&key).copied() else {
            self.flows.insert(key, fresh);
            return;
        };
        if flow.moved_from == Some(server) {
            return;
        }
        let was_loose = flow.was_loose || self.is_loose(rig, menu, key);
        let moved_from = if flow.server == server { flow.moved_from } else { Some(flow.server) };
        if flow.server != server {
            // The SYN that began anew may have waited for a neighbour in vain.
            let may = self.is_loose(rig, menu, key) || flow.ended || self.waited;
            assert!(may, "{key:?} moved from server {} to {server}: {seen:?}", flow.server);
        }
        // What waited for a neighbour may be older than what has passed: then it goes back and forth.
        let late = flow.server != server && self.waited;
        let ended = ends || late || flow.ended && flow.server == server;
        self.flows.insert(key, Flow { moved_from, was_loose, ended, ..fresh });
    }

    /// Whether the connection may have ended meanwhile without anybody's fault.
    fn is_loose(&self, rig: &Rig, menu: &Menu, key: (SocketAddr, usize)) -> bool {
        self.flows.get(&key).is_none_or(|flow| {
            let entry = &menu.all[key.1];
            let upsets = entry.upsets[usize::from(flow.server)];
            // A SYN leaves a drained destination, if it is told to.
            let is_drained =
                !entry.dests.iter().any(|(it, _, weight)| *it == flow.server && *weight > 0);
            rig.snapshot.tunables.expire_nodest_conn && is_drained
                || rig.now.wrapping_sub(flow.last) >= SURE
                || upsets != flow.upsets
                || missed(rig) != flow.missed
        })
    }

    /// A frame on its way to a server: which server, and the packet that it will see.
    pub fn towards_server(&mut self, rig: &Rig, menu: &Menu, left: &Left) -> (u8, Seen) {
        let outer = read(&left.frame);
        let server = number_of_mac(&left.frame);
        assert_eq!(outer.from, OUR_MACS[1]);
        let tunnelled = matches!(outer.protocol, 4 | 41);
        let seen = if tunnelled {
            read_packet(&outer.data)
        } else {
            read_packet(trimmed(&left.frame[L3..]))
        };
        let service = menu.service_of(seen.protocol, seen.destination);
        let service = service.unwrap_or_else(|| panic!("no service's: {seen:?}"));
        let entry = &menu.all[service];
        assert_eq!(tunnelled, entry.method == Tunnel, "{seen:?}");
        match entry.method {
            Masquerade => assert_eq!(seen.destination, entry.dest(server)),
            Tunnel => assert_eq!(outer.destination.ip(), dest_ip(entry.dest_v6, server)),
            Direct => assert_eq!(seen.destination, entry.vip),
        }
        assert_eq!(seen.hops, 63);
        assert_eq!(usize::from(seen.source.port() - 1024) / 64, service, "{seen:?}");
        assert_eq!(entry.owner(seen.source, self.workers), left.worker, "{seen:?}");
        self.follow(rig, menu, (seen.source, service), server, &seen);
        (server, seen)
    }

    /// Takes note of a frame that may end a connection, before those that may follow from it.
    pub fn foresee(&mut self, menu: &Menu, left: &Left) {
        let seen = read(&left.frame);
        let service = menu.service_of(seen.protocol, seen.source);
        let flow = service.and_then(|service| self.flows.get_mut(&(seen.destination, service)));
        if let Some(flow) = flow.filter(|_| seen.protocol == TCP && seen.flags & (FIN | RST) != 0) {
            flow.ended = true;
        }
    }

    /// A frame on its way to a client, if it is one: the packet, and its service.
    pub fn towards_client(&mut self, rig: &Rig, menu: &Menu, left: &Left) -> Option<(Seen, usize)> {
        let seen = read(&left.frame);
        assert_eq!(seen.from, OUR_MACS[0]);
        if matches!(seen.protocol, ICMP | ICMPV6) {
            let about = quoted(&seen.data[8..]);
            assert_eq!(about.0, seen.destination.ip(), "errors go to who sent the packet");
            return None;
        }
        assert!(matches!(seen.protocol, TCP | UDP), "{seen:?}");
        let service = menu.service_of(seen.protocol, seen.source);
        let Some(service) = service else {
            // On its way to a VIP that is none any more, back where it came from.
            let to = menu.service_of(seen.protocol, seen.destination);
            let to = to.unwrap_or_else(|| panic!("nobody's: {seen:?}"));
            assert!(menu.all[to].removed, "{seen:?}");
            return None;
        };
        let client = seen.destination;
        assert_eq!(usize::from(client.port() - 1024) / 64, service, "{seen:?}");
        let entry = &menu.all[service];
        let mut owners = vec![entry.owner(client, self.workers)];
        if entry.removed || seen.source != entry.vip {
            // Nothing says any more that connections of a network belong together: what is refused,
            // or comes from a destination that was removed, is of the worker that the port names.
            owners.push(owner(client.ip(), client.port(), self.workers));
        }
        assert!(owners.contains(&left.worker), "{seen:?} of {}, not {owners:?}", left.worker);
        let key = (client, service);
        if seen.source != entry.vip {
            // Late, to a connection that is no more: as in Linux it passes as it is.
            let server = number_of(seen.source.ip()).unwrap();
            let flow = self.flows.get(&key);
            let is_late =
                flow.is_none_or(|flow| flow.server != server || flow.ended || flow.was_loose);
            assert!(is_late || self.is_loose(rig, menu, key), "not from its VIP: {seen:?}");
            return None;
        }
        let last = self.last();
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.last = last;
        }
        Some((seen, service))
    }
}

/// While nothing was taken from a persistent service, connections of one network have one template,
/// and its destination.
fn follows_its_template(rig: &Rig, entry: &Entry, row: &ConnRow, rows: &[ConnRow]) {
    let may_leave = rig.snapshot.tunables.expire_quiescent_template;
    if may_leave || entry.upsets != [0; PLACES] {
        return;
    }
    let Some(network) = entry.network(row.client.ip()) else { return };
    let of_network = |it: &&ConnRow| {
        let about = (it.template, it.vip, it.client);
        about == (Some(entry.protocol), entry.vip, SocketAddr::new(network, 0))
    };
    let template = rows.iter().find(of_network);
    let template = template.unwrap_or_else(|| panic!("no template of {row:?}"));
    assert_eq!(template.dest_id, row.dest_id, "{row:?} {template:?}");
}

/// What ends a connection, or moves its state, and is not seen: evictions, and packets that were
/// dropped after they had been counted.
fn missed(rig: &Rig) -> u64 {
    let drops = rig.drops();
    let of = |name: &str| drops.get(name).copied().unwrap_or_default();
    let neighbor =
        of("neighbor-unresolved") + of("neighbor-queue-full") + of("neighbor-table-full");
    rig.counts().evicted + of("tx-full") + neighbor
}

fn number_of_mac(frame: &[u8]) -> u8 {
    let number = frame[5] - 0x11;
    assert_eq!(frame[..6], dest_mac(number).0);
    number
}

/// Source and destination of a packet of which an error quotes the beginning.
fn quoted(packet: &[u8]) -> (core::net::IpAddr, core::net::IpAddr) {
    if packet[0] >> 4 == 4 {
        let at = |from: usize| <[u8; 4]>::try_from(&packet[from..from + 4]).unwrap().into();
        (at(12), at(16))
    } else {
        let at = |from: usize| <[u8; 16]>::try_from(&packet[from..from + 16]).unwrap().into();
        (at(8), at(24))
    }
}
