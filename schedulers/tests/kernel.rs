//! Every choice that the kernel made in its recordings is ours too.
//!
//! The recordings are in `tools/conformance/goldens/scheduler`; their format is in the README of
//! that folder's parent. Beside the list, a scheduler sees how many connections each destination
//! has, so the test follows each connection through the few TCP states that the recordings use.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use core::net::SocketAddr;
use rvs_model::{DestId, Load, SchedulerKind, State, Tick, Weight, ticks};
use rvs_schedulers::map::Map;
use rvs_schedulers::table::{Entry, HashFlags, Table};
use rvs_schedulers::{Candidate, Request, Scheduler};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// The state after a client's segment, as far as the recordings go.
fn after(state: State, kind: &str, masquerading: bool) -> State {
    match (kind, state) {
        ("ack", State::SynRecv) => State::Established,
        ("rst", State::Established) => State::Close,
        ("fin", State::Established) if masquerading => State::CloseWait,
        ("fin", State::Established) => State::FinWait,
        ("fin", State::SynRecv) => State::TimeWait,
        _ => state,
    }
}

#[derive(Default)]
struct Director {
    scheduler: Option<Scheduler>,
    dests: Vec<Candidate>,
    /// By address. A destination that is added again has its old connections.
    ids: HashMap<String, DestId>,
    names: Vec<String>,
    conns: HashMap<u64, (DestId, State)>,
    one_packet: bool,
    masquerading: bool,
    flags: HashFlags,
    last_weights: HashMap<DestId, Weight>,
    map: Option<Map>,
    now: Tick,
}

impl Director {
    fn ipvsadm(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let option =
            |name| words.iter().position(|word| *word == name).map(|place| words[place + 1]);
        if words[0] == "-A" {
            let kind = option("-s").unwrap().parse().unwrap();
            self.scheduler = Some(Scheduler::new(kind));
            self.one_packet = words.contains(&"-o");
            let flags = option("-b").unwrap_or_default();
            self.flags =
                HashFlags { fallback: flags.contains("fallback"), port: flags.contains("port") };
            self.map = Some(Map::new(1000, 1));
            return;
        }
        let name = option("-r").unwrap();
        let weight = Weight(option("-w").map_or(1, |weight| weight.parse().unwrap()));
        self.masquerading |= words.contains(&"-m");
        let next = DestId(u32::try_from(self.names.len()).unwrap());
        let id = *self.ids.entry(name.to_owned()).or_insert(next);
        if id == next {
            self.names.push(name.to_owned());
        }
        let place = self.dests.iter().position(|dest| dest.id == id);
        match (words[0], place) {
            ("-a", None) => self.dests.insert(0, Candidate { id, weight }),
            ("-e", Some(place)) => self.dests[place].weight = weight,
            ("-d", Some(place)) => drop(self.dests.remove(place)),
            _ => panic!("cannot follow: {line}"),
        }
        if weight.is_eligible() {
            self.last_weights.insert(id, weight);
        }
        self.scheduler.as_mut().unwrap().update(&self.dests);
    }

    /// As the control plane makes it.
    fn table(&self) -> Table {
        let entry = |dest: &Candidate| {
            let name = &self.names[usize::try_from(dest.id.0).unwrap()];
            let last_weight = self.last_weights.get(&dest.id).copied().unwrap_or_default();
            Entry { address: name.parse().unwrap(), weight: dest.weight, last_weight }
        };
        let dests: Vec<_> = self.dests.iter().map(entry).collect();
        Table::new(self.scheduler.unwrap().kind(), self.flags, &dests)
    }

    fn load(&self, id: DestId) -> Load {
        let mut load = Load::default();
        for (_, state) in self.conns.values().filter(|(dest, _)| *dest == id) {
            *if state.is_active() { &mut load.active } else { &mut load.inactive } += 1;
        }
        load
    }

    /// Opens a connection and says where it goes: a destination of port 0 gets the port asked for.
    fn open(&mut self, number: u64, state: State, ends: [SocketAddr; 2]) -> Option<String> {
        let [client, vip] = ends;
        let now = self.now;
        let request =
            Request { client: client.ip(), client_port: client.port(), vip: vip.ip(), now };
        let (mut scheduler, mut map) = (self.scheduler.unwrap(), self.map.take());
        let load = |id: DestId| self.load(id);
        let place = scheduler.pick(&self.dests, &self.table(), map.as_mut(), &request, &load);
        (self.scheduler, self.map) = (Some(scheduler), map);
        let dest = self.dests[place?];
        if !self.one_packet {
            self.conns.insert(number, (dest.id, state));
        }
        let mut dest: SocketAddr = self.names[usize::try_from(dest.id.0).unwrap()].parse().unwrap();
        if dest.port() == 0 {
            dest.set_port(vip.port());
        }
        Some(dest.to_string())
    }
}

/// Replays one recording and says how many choices and counts were compared.
fn replay(name: &str, golden: &Value) -> [usize; 2] {
    let mut director = Director::default();
    let expiration = |name: &str| golden["sysctl"][name].as_u64();
    for line in golden["setup"].as_array().unwrap() {
        director.ipvsadm(line.as_str().unwrap());
    }
    if let Some(seconds) = expiration("lblc_expiration").or(expiration("lblcr_expiration")) {
        director.map.as_mut().unwrap().set_expiration(ticks(u32::try_from(seconds).unwrap()));
    }
    let mut compared = [0; 2];
    for event in golden["events"].as_array().unwrap() {
        match (event["op"].as_str(), event[0].as_str()) {
            (Some("ipvsadm"), _) => director.ipvsadm(event["args"].as_str().unwrap()),
            (Some("sleep"), _) => {
                let eighths = event["s"].as_f64().unwrap() * f64::from(ticks(1));
                let whole = (0..10_000).find(|tick| f64::from(*tick + 1) > eighths).unwrap();
                director.now += whole;
                director.map.as_mut().unwrap().step(director.now);
            }
            (Some("list"), _) => {
                for row in event["rs"].as_array().unwrap() {
                    let Load { active, inactive } =
                        director.load(director.ids[row[0].as_str().unwrap()]);
                    let ours = [u64::from(active), u64::from(inactive)].map(Some);
                    assert_eq!([row[3].as_u64(), row[4].as_u64()], ours, "{name}: {row}");
                    compared[1] += 1;
                }
            }
            (None, Some(kind @ ("syn" | "udp"))) => {
                let state = if kind == "syn" { State::SynRecv } else { State::Udp };
                let ends = [2, 3].map(|place| event[place].as_str().unwrap().parse().unwrap());
                let picked = director.open(event[1].as_u64().unwrap(), state, ends);
                assert_eq!(picked.as_deref(), event[4].as_str(), "{name}: {event}");
                compared[0] += 1;
            }
            (None, Some(kind @ ("synack" | "ack" | "rst" | "fin"))) => {
                let masquerading = director.masquerading;
                let conn = director.conns.get_mut(&event[1].as_u64().unwrap()).unwrap();
                conn.1 = after(conn.1, kind, masquerading);
            }
            _ => panic!("{name}: cannot follow {event}"),
        }
    }
    compared
}

#[test]
fn every_pick_equals_the_kernels() {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tools/conformance/goldens/scheduler");
    let mut picks: HashMap<String, usize> = HashMap::new();
    let mut counts = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let golden: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let compared = replay(&path.file_name().unwrap().to_string_lossy(), &golden);
        let kind = golden["scheduler"].as_str().unwrap();
        *picks.entry(kind.to_owned()).or_default() += compared[0];
        counts += compared[1];
    }
    // `twos` draws random numbers, and the recorded kernel was built without it. `none` picks none.
    let unrecorded = [SchedulerKind::Twos, SchedulerKind::None];
    for kind in SchedulerKind::ALL.into_iter().filter(|kind| !unrecorded.contains(kind)) {
        let picks = picks.get(kind.name()).copied().unwrap_or_default();
        assert!(picks >= 300, "only {picks} recorded picks of {kind}");
    }
    assert!(counts >= 500, "only {counts} counts compared");
}
