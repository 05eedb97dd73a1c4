//! Command lines as people type them, and as they mistype them: one word in ten or so is wrong.
//!
//! Left out: names, which are the machine's; and `-b ,`, of which ipvsadm 1.31 dies.

use crate::golden::Golden;
use serde_json::json;

/// Commands of a case.
const COMMANDS: u32 = 60;

/// One in so many words is not one that belongs there.
const SLIP: u32 = 10;

const VIPS: [&str; 4] = ["198.18.0.1", "198.18.0.2", "[fd00:100::1]", "fd00:100::1"];
const NO_VIPS: [&str; 5] = ["198.18.1", "256.1.1.1", "", "[fd00:100::1", "0.0.0.0"];
const RIPS: [&str; 4] = ["10.1.0.2", "10.1.0.3", "[fd00:1::2]", "fd00:1::3"];
const PORTS: [&str; 3] = ["80", "443", "0"];
const NO_PORTS: [&str; 6] = ["65535", "65536", "-1", "80x", "", "99999999999"];
const MARKS: [&str; 2] = ["1", "2"];
const NO_MARKS: [&str; 5] = ["0", "x", "4294967295", "4294967296", "-3"];
const SCHEDULERS: [&str; 13] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"];
const NUMBERS: [&str; 9] = ["0", "1", "60", "300", "-1", "x", "65536", "2147483648", "4294967296"];
const MASKS: [&str; 10] =
    ["255.255.255.0", "255.255.0.0", "64", "128", "0", "129", "24", "1.2.3", "0.0.0.0", "x"];
const SERVICE_FLAGS: [&str; 9] = [
    "sh-port",
    "sh-fallback",
    "sh-port,sh-fallback",
    "mh-port",
    "mh-fallback",
    "flag-1",
    "flag-1,flag-2",
    "flag-3",
    "flag-4",
];
const LISTINGS: [&str; 12] = [
    "-n",
    "--stats",
    "--rate",
    "--thresholds",
    "--persistent-conn",
    "--tun-info",
    "--exact",
    "--sort",
    "--nosort",
    "--timeout",
    "--daemon",
    "-6",
];
const STRAY: [&str; 9] = ["-n", "extra", "-4", "-6", "--bogus", "--stats", "-w 1", "-s rr", "-c"];

/// The case of `commands` that `seed` names.
pub(super) fn case(seed: u64) -> Golden {
    let mut typist = Typist(fastrand::Rng::with_seed(seed));
    let mut events = Vec::new();
    for number in 1..=COMMANDS {
        events.push(json!({ "op": "run", "args": typist.line() }));
        if number % 6 == 0 {
            events.push(json!({ "op": "run", "args": "-S -n" }));
        }
    }
    Golden {
        id: format!("commands-{seed}"),
        category: "cli".to_owned(),
        sysctl: None,
        setup: Some(Vec::new()),
        events,
        more: [("schema".to_owned(), json!("ipvs-golden/1"))].into_iter().collect(),
    }
}

struct Typist(fastrand::Rng);

impl Typist {
    fn slips(&mut self) -> bool {
        self.0.u32(0..SLIP) == 0
    }

    fn once_in(&mut self, of: u32) -> bool {
        self.0.u32(0..of) == 0
    }

    fn one(&mut self, of: &[&'static str]) -> &'static str {
        self.0.choice(of).copied().unwrap_or_default()
    }

    /// One of `right`, or now and then of `wrong`.
    fn word(&mut self, right: &[&'static str], wrong: &[&'static str]) -> &'static str {
        let of = if self.slips() { wrong } else { right };
        self.one(of)
    }

    fn line(&mut self) -> String {
        let mut words = match self.0.u32(0..50) {
            0..=10 => vec!["-A".to_owned(), self.service(), self.about_service()],
            11..=15 => vec!["-E".to_owned(), self.service(), self.about_service()],
            16 | 17 => vec!["-D".to_owned(), self.service()],
            18..=28 => vec!["-a".to_owned(), self.service(), self.dest(), self.about_dest()],
            29..=33 => vec!["-e".to_owned(), self.service(), self.dest(), self.about_dest()],
            34..=36 => vec!["-d".to_owned(), self.service(), self.dest()],
            37 => vec!["-Z".to_owned(), self.service()],
            38 => vec![self.one(&["-C", "-Z", "-S -n", "-A", "-a", "-L -A", "-t"]).to_owned()],
            39..=45 => self.listing(),
            46 | 47 => {
                let times = if self.slips() { 2 } else { 3 };
                let times = (0..times).map(|_| self.one(&["0", "900", "120", "x", "-1", "300"]));
                core::iter::once("--set").chain(times).map(str::to_owned).collect()
            }
            48 => self.start(),
            _ => vec!["--stop-daemon".to_owned(), self.one(&["master", "backup", "x"]).to_owned()],
        };
        if self.slips() {
            words.push(self.one(&STRAY).to_owned());
        }
        if self.once_in(20) {
            self.0.shuffle(&mut words);
        }
        words.join(" ")
    }

    fn end(&mut self, addresses: &[&'static str], wrong: &[&'static str]) -> String {
        let address = self.word(addresses, wrong);
        let port = self.word(&PORTS, &NO_PORTS);
        if self.once_in(8) { address.to_owned() } else { format!("{address}:{port}") }
    }

    fn service(&mut self) -> String {
        match self.0.u32(0..8) {
            0 => {
                let mark = self.word(&MARKS, &NO_MARKS);
                let family = if self.once_in(3) { " -6" } else { "" };
                format!("-f {mark}{family}")
            }
            1 => format!("--sctp-service {}", self.end(&VIPS, &NO_VIPS)),
            2 | 3 => format!("-u {}", self.end(&VIPS, &NO_VIPS)),
            _ => format!("-t {}", self.end(&VIPS, &NO_VIPS)),
        }
    }

    fn about_service(&mut self) -> String {
        let mut said: Vec<String> = Vec::new();
        if !self.once_in(3) {
            said.push(format!("-s {}", self.word(&SCHEDULERS, &["bogus", ""])));
        }
        if self.once_in(3) {
            said.push(format!("-p {}", self.word(&["300", "60", ""], &NUMBERS)));
        }
        if self.once_in(5) {
            said.push(format!("-M {}", self.one(&MASKS)));
        }
        if self.once_in(6) {
            said.push(format!("-b {}", self.one(&SERVICE_FLAGS)));
        }
        if self.once_in(8) {
            said.push("-o".to_owned());
        }
        said.join(" ")
    }

    fn dest(&mut self) -> String {
        format!("-r {}", self.end(&RIPS, &["0.0.0.0", "", "x"]))
    }

    fn about_dest(&mut self) -> String {
        let mut said = vec![self.one(&["", "-m", "-g", "-i"]).to_owned()];
        for option in ["-w", "-x", "-y"] {
            if self.once_in(3) {
                said.push(format!("{option} {}", self.word(&["0", "1", "5", "100"], &NUMBERS)));
            }
        }
        if self.once_in(6) {
            said.push(format!("--tun-type {}", self.word(&["ipip", "gue", "gre"], &["x"])));
        }
        if self.once_in(8) {
            said.push(format!("--tun-port {}", self.word(&["6080"], &NUMBERS)));
        }
        if self.once_in(10) {
            said.push(self.one(&["--tun-nocsum", "--tun-csum", "--tun-remcsum"]).to_owned());
        }
        said.join(" ")
    }

    fn listing(&mut self) -> Vec<String> {
        let mut words = vec![self.one(&["-L", "-Ln", "-ln", "--list"]).to_owned()];
        // Names are the machine's.
        words.push("-n".to_owned());
        if self.once_in(4) {
            words.push(self.service());
        }
        for _ in 0..self.0.u32(0..3) {
            words.push(self.one(&LISTINGS).to_owned());
        }
        words
    }

    fn start(&mut self) -> Vec<String> {
        let mut words = vec!["--start-daemon".to_owned()];
        words.push(self.word(&["master", "backup"], &["x"]).to_owned());
        let options: [(&str, &[&'static str]); 5] = [
            ("--mcast-interface", &["dc", "dr", "nope"]),
            ("--syncid", &["1", "255", "256", "x"]),
            ("--sync-maxlen", &["1000", "0", "x", "70000"]),
            ("--mcast-group", &["224.0.0.81", "1.2.3.4", "ff02::81"]),
            ("--mcast-ttl", &["1", "0", "256"]),
        ];
        for (option, values) in options {
            if self.once_in(2) {
                words.push(format!("{option} {}", self.one(values)));
            }
        }
        words
    }
}
