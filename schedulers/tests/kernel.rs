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

use rvs_model::{DestId, Load, State, Weight};
use rvs_schedulers::{Candidate, Scheduler};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

const KINDS: [&str; 4] = ["rr", "wrr", "lc", "wlc"];

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
        self.scheduler.as_mut().unwrap().update(&self.dests);
    }

    fn load(&self, id: DestId) -> Load {
        let mut load = Load::default();
        for (_, state) in self.conns.values().filter(|(dest, _)| *dest == id) {
            *if state.is_active() { &mut load.active } else { &mut load.inactive } += 1;
        }
        load
    }

    fn open(&mut self, number: u64, state: State) -> Option<&str> {
        let mut scheduler = self.scheduler.take().unwrap();
        let place = scheduler.pick(&self.dests, |id| self.load(id));
        self.scheduler = Some(scheduler);
        let dest = self.dests[place?];
        if !self.one_packet {
            self.conns.insert(number, (dest.id, state));
        }
        Some(&self.names[usize::try_from(dest.id.0).unwrap()])
    }
}

/// Replays one recording and says how many choices and counts were compared.
fn replay(name: &str, golden: &Value) -> [usize; 2] {
    let mut director = Director::default();
    for line in golden["setup"].as_array().unwrap() {
        director.ipvsadm(line.as_str().unwrap());
    }
    let mut compared = [0; 2];
    for event in golden["events"].as_array().unwrap() {
        match (event["op"].as_str(), event[0].as_str()) {
            (Some("ipvsadm"), _) => director.ipvsadm(event["args"].as_str().unwrap()),
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
                let picked = director.open(event[1].as_u64().unwrap(), state);
                assert_eq!(picked, event[4].as_str(), "{name}: {event}");
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
        let kind = golden["scheduler"].as_str().unwrap();
        if KINDS.contains(&kind) {
            let compared = replay(&path.file_name().unwrap().to_string_lossy(), &golden);
            *picks.entry(kind.to_owned()).or_default() += compared[0];
            counts += compared[1];
        }
    }
    for kind in KINDS {
        assert!(picks[kind] >= 500, "only {} recorded picks of {kind}", picks[kind]);
    }
    assert!(counts >= 100, "only {counts} counts compared");
}
