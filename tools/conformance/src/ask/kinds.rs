//! The kinds of cases, and what happens in them.

use super::author::{self, Author, Look, Opening, client, server, vip};
use super::{packets, words};
use crate::golden::Golden;
use crate::scene::Uncovered;
use crate::tally::Failure;
use core::fmt::{self, Display};
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

/// How a case begins, and what happens in it.
pub(super) type Parts = (fn(&mut fastrand::Rng) -> Opening, fn(&mut Author) -> Result<(), Failure>);

/// What a case is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Every scheduler with its flags: new connections, changed destinations.
    Schedulers,
    /// TCP's and UDP's states and timers, under the sysctls that change them.
    States,
    /// Persistent services of all shapes, and their templates.
    Persistence,
    /// Upper and lower thresholds.
    Thresholds,
    /// Command lines, right and wrong, and what they print: [`super::words`].
    Commands,
    /// Every octet of what is forwarded, answered and reported: [`super::packets`].
    Packets,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Schedulers,
        Self::States,
        Self::Persistence,
        Self::Thresholds,
        Self::Commands,
        Self::Packets,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Schedulers => "schedulers",
            Self::States => "states",
            Self::Persistence => "persistence",
            Self::Thresholds => "thresholds",
            Self::Commands => "commands",
            Self::Packets => "packets",
        }
    }

    /// Writes the case of this kind that `seed` names.
    ///
    /// # Errors
    ///
    /// The stage cannot be set.
    pub(super) fn write(self, seed: u64) -> Result<Result<Golden, Uncovered>, Failure> {
        let parts: Parts = match self {
            Self::Schedulers => (schedulers, write_schedulers),
            Self::States => (states, write_states),
            Self::Persistence => (persistence, write_persistence),
            Self::Thresholds => (thresholds, write_thresholds),
            Self::Commands => return Ok(Ok(words::case(seed))),
            Self::Packets => return packets::case(seed),
        };
        author::write(self, parts, seed)
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("expected one of {names}"))
    }
}

/// The schedulers of Debian's kernel (`twos` is not built there), and their flags.
const SCHEDULERS: [&str; 18] = [
    "rr",
    "wrr",
    "lc",
    "wlc",
    "sed",
    "nq",
    "fo",
    "ovf",
    "lblc",
    "lblcr",
    "dh",
    "sh",
    "sh -b sh-port",
    "sh -b sh-fallback",
    "sh -b sh-fallback,sh-port",
    "mh",
    "mh -b mh-port",
    "mh -b mh-fallback",
];
/// Those that many connections tell apart, and that look at nothing but connections.
const COUNTING: [&str; 8] = ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"];

const METHODS: [&str; 3] = ["-m", "-g", "-i"];

fn one<T: Copy>(dice: &mut fastrand::Rng, choices: &[T], otherwise: T) -> T {
    dice.choice(choices).copied().unwrap_or(otherwise)
}

/// `10.0.0.1:80` or `[fd00::1]:80`.
fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// The service of a case, as commands name it, and what its destinations are.
///
/// Cases say the same in their setup: it is read back from there.
struct Shape {
    service: String,
    is_v6: bool,
    is_mark: bool,
    is_masqueraded: bool,
    method: String,
    port: u16,
}

impl Shape {
    fn of(setup: &[String]) -> Self {
        let dest = setup.iter().find(|line| line.starts_with("-a"));
        let words: Vec<&str> = dest.map(|line| line.split(' ').collect()).unwrap_or_default();
        let place = words.iter().position(|word| *word == "-r").unwrap_or_default();
        let service = words.get(1..place).unwrap_or_default().join(" ");
        let rip = words.get(place + 1).and_then(|word| word.parse::<SocketAddr>().ok());
        let method = words.get(place + 2).copied().unwrap_or("-g").to_owned();
        Self {
            is_v6: rip.is_some_and(|rip| rip.is_ipv6()),
            is_mark: service.starts_with("-f"),
            is_masqueraded: method == "-m",
            port: rip.map_or(0, |rip| rip.port()),
            service,
            method,
        }
    }

    fn dest(&self, number: u32) -> String {
        format!("{} -r {}", self.service, at(server(number, self.is_v6), self.port))
    }
}

fn weight(dice: &mut fastrand::Rng) -> u32 {
    if dice.u32(0..8) == 0 { 0 } else { dice.u32(1..6) }
}

/// A service and its destinations; `extra` is added to the first line, `more` to each other.
fn opening(
    dice: &mut fastrand::Rng,
    service: &str,
    extra: &str,
    (method, is_v6, port): (&str, bool, u16),
    more: impl Fn(&mut fastrand::Rng) -> String,
) -> Vec<String> {
    let mut setup = vec![format!("-A {service} {extra}").trim().to_owned()];
    for number in 0..dice.u32(1..7) {
        let rip = at(server(number, is_v6), port);
        let weight = weight(dice);
        let more = more(dice);
        setup.push(format!("-a {service} -r {rip} {method} -w {weight} {more}").trim().to_owned());
    }
    setup
}

fn schedulers(dice: &mut fastrand::Rng) -> Opening {
    let scheduler = one(dice, &SCHEDULERS, "rr");
    let method = one(dice, &METHODS, "-g");
    let by_destination = matches!(scheduler, "dh" | "lblc" | "lblcr");
    let is_v6 = !by_destination && dice.u32(0..4) == 0;
    let (service, marks, port) = if by_destination {
        let all = "ip daddr 198.18.0.0/24".to_owned();
        ("-f 7".to_owned(), vec![(all, 7)], 0)
    } else {
        (format!("-t {}", at(vip(0, is_v6), 80)), Vec::new(), 80)
    };
    let extra = format!("-s {scheduler}");
    let setup = opening(dice, &service, &extra, (method, is_v6, port), |_| String::new());
    Opening { setup, marks, ..Opening::default() }
}

fn write_schedulers(author: &mut Author) -> Result<(), Failure> {
    let shape = Shape::of(&author.setup());
    for number in 0..60_u16 {
        match author.number(0..=19) {
            0..=9 => {
                let host = author.number(0..=63);
                let vip = vip(if shape.is_mark { author.number(0..=40) } else { 0 }, shape.is_v6);
                let from = client(host, 2000 + number, shape.is_v6);
                author.open(from, SocketAddr::new(vip, 80), false)?;
            }
            10..=13 => establish(author, &shape)?,
            14 | 15 => finish(author)?,
            16 => change(author, &shape, ""),
            17 if author.once_in(4) => {
                let scheduler = author.one(&COUNTING).unwrap_or("rr");
                author.command(&format!("-E {} -s {scheduler}", shape.service));
            }
            18 if author.once_in(3) => {
                let seconds = author.number(1..=4);
                author.sleep(seconds);
            }
            _ => author.look(Look::Services),
        }
    }
    author.look(Look::Services);
    author.look(Look::Conns);
    Ok(())
}

/// Takes a conversation through the rest of the handshake.
fn establish(author: &mut Author, shape: &Shape) -> Result<(), Failure> {
    let Some(number) = pick(author) else { return Ok(()) };
    if shape.is_masqueraded {
        author.server_sends(number, "SA")?;
    }
    author.client_sends(number, "A")
}

/// Ends a conversation, or begins to.
fn finish(author: &mut Author) -> Result<(), Failure> {
    let Some(number) = pick(author) else { return Ok(()) };
    let letters = author.one(&["FA", "R", "RA"]).unwrap_or("R");
    author.client_sends(number, letters)
}

fn pick(author: &mut Author) -> Option<usize> {
    let talks = author.talks.len();
    (talks > 0).then(|| author.dice.usize(0..talks))
}

/// Changes, removes or adds a destination.
fn change(author: &mut Author, shape: &Shape, more: &str) {
    let number = author.number(0..=6);
    let (dest, method) = (shape.dest(number), shape.method.as_str());
    let weight = weight(&mut author.dice);
    let line = match author.number(0..=3) {
        0 => format!("-d {dest}"),
        1 => format!("-a {dest} {method} -w {weight} {more}"),
        _ => format!("-e {dest} {method} -w {weight} {more}"),
    };
    author.command(line.trim());
}

fn states(dice: &mut fastrand::Rng) -> Opening {
    let method = one(dice, &METHODS, "-m");
    let is_v6 = dice.u32(0..5) == 0;
    let protocol = if dice.u32(0..6) == 0 { "-u" } else { "-t" };
    let service = format!("{protocol} {}", at(vip(0, is_v6), 80));
    let mut setup = opening(dice, &service, "-s rr", (method, is_v6, 80), |_| String::new());
    if dice.u32(0..4) == 0 {
        let mut seconds = || one(dice, &[0, 40, 100, 400], 0);
        setup.push(format!("--set {} {} {}", seconds(), seconds(), seconds()));
    }
    let all: [(&str, &[u32]); 5] = [
        ("conn_reuse_mode", &[0, 1, 2, 3]),
        ("secure_tcp", &[0, 3]),
        ("sloppy_tcp", &[0, 1]),
        ("expire_nodest_conn", &[0, 1]),
        ("expire_quiescent_template", &[0, 1]),
    ];
    let mut sysctl = Vec::new();
    for (name, values) in all {
        if dice.u32(0..3) == 0 {
            sysctl.push((name, one(dice, values, 0)));
        }
    }
    Opening { setup, sysctl, ..Opening::default() }
}

fn write_states(author: &mut Author) -> Result<(), Failure> {
    let shape = Shape::of(&author.setup());
    let is_udp = shape.service.starts_with("-u");
    let to = SocketAddr::new(vip(0, shape.is_v6), 80);
    for _ in 0..50 {
        match author.number(0..=19) {
            0 | 1 => {
                let port = 2000 + u16::try_from(author.talks.len()).unwrap_or_default();
                author.open(client(0, port, shape.is_v6), to, is_udp)?;
            }
            2..=9 => {
                let letters = author.one(&["S", "A", "A", "FA", "R", "RA", "PA", "SA", "F", ""]);
                if let Some(number) = pick(author) {
                    author.client_sends(number, letters.unwrap_or("A"))?;
                }
            }
            10..=14 if shape.is_masqueraded => {
                let letters = author.one(&["SA", "SA", "A", "FA", "R", "RA", "PA", "S", "F"]);
                if let Some(number) = pick(author) {
                    author.server_sends(number, letters.unwrap_or("A"))?;
                }
            }
            15 => change(author, &shape, ""),
            16 => {
                let seconds = author.one(&[1, 5, 15, 40, 70, 130, 400]).unwrap_or(1);
                author.sleep(seconds);
            }
            _ => author.look(Look::Conns),
        }
    }
    author.look(Look::Conns);
    author.look(Look::Services);
    Ok(())
}

/// How clients reach a persistent service.
const PERSISTENT: [&str; 5] = ["-t", "-u", "-t any", "-f", "-t ftp"];

fn persistence(dice: &mut fastrand::Rng) -> Opening {
    let shape = one(dice, &PERSISTENT, "-t");
    let is_v6 = shape != "-f" && dice.u32(0..4) == 0;
    let method = one(dice, &METHODS, "-g");
    let scheduler = one(dice, &["rr", "wrr", "wlc", "sh", "lc"], "rr");
    let timeout = one(dice, &[50, 100, 300, 360], 100);
    let mask = if is_v6 {
        one(dice, &["", "", "-M 64", "-M 48", "-M 120"], "")
    } else {
        one(dice, &["", "", "-M 255.255.255.0", "-M 255.255.0.0", "-M 255.255.255.252"], "")
    };
    let extra = format!("-s {scheduler} -p {timeout} {mask}");
    let (service, port) = match shape {
        "-f" => ("-f 9".to_owned(), 0),
        "-t any" => (format!("-t {}", at(vip(0, is_v6), 0)), 0),
        "-t ftp" => (format!("-t {}", at(vip(0, is_v6), 2121)), 2121),
        other => (format!("{other} {}", at(vip(0, is_v6), 80)), 80),
    };
    let mut setup = opening(dice, &service, extra.trim(), (method, is_v6, port), |_| String::new());
    if dice.u32(0..3) == 0 {
        // A second one with the same servers, for what templates of both share.
        let other = format!("-t {}", at(vip(0, is_v6), 443));
        setup.extend(opening(dice, &other, extra.trim(), (method, is_v6, 443), |_| String::new()));
    }
    let marks =
        if shape == "-f" { vec![("ip daddr 198.18.0.0/24".to_owned(), 9)] } else { Vec::new() };
    let mut sysctl = Vec::new();
    for name in ["expire_quiescent_template", "expire_nodest_conn"] {
        if dice.bool() {
            sysctl.push((name, 1));
        }
    }
    Opening { setup, sysctl, marks }
}

fn write_persistence(author: &mut Author) -> Result<(), Failure> {
    let shape = Shape::of(&author.setup());
    let any_port = shape.port == 0;
    for number in 0..45_u16 {
        match author.number(0..=19) {
            0..=8 => {
                let host = author.number(0..=23);
                let at = vip(if shape.is_mark { author.number(0..=3) } else { 0 }, shape.is_v6);
                let ports: &[u16] = if any_port { &[80, 443, 8080] } else { &[shape.port, 443] };
                let port = author.one(ports).unwrap_or(80);
                let is_udp =
                    if shape.is_mark { author.once_in(4) } else { shape.service.starts_with("-u") };
                author.open(
                    client(host, 2000 + number, shape.is_v6),
                    SocketAddr::new(at, port),
                    is_udp,
                )?;
            }
            9 | 10 => establish(author, &shape)?,
            11 => finish(author)?,
            12 | 13 => change(author, &shape, ""),
            14 | 15 => {
                let seconds = author.one(&[3, 20, 70, 110, 380]).unwrap_or(3);
                author.sleep(seconds);
            }
            16 => author.look(Look::Listing("-Ln --persistent-conn")),
            17 => author.look(Look::Services),
            _ => author.look(Look::Conns),
        }
    }
    author.look(Look::Conns);
    author.look(Look::Listing("-Ln --persistent-conn"));
    Ok(())
}

fn limits(dice: &mut fastrand::Rng) -> String {
    let upper = dice.u32(0..6);
    let lower = if dice.bool() { dice.u32(0..=upper) } else { 0 };
    format!("-x {upper} -y {lower}")
}

fn thresholds(dice: &mut fastrand::Rng) -> Opening {
    let scheduler = one(dice, &SCHEDULERS, "rr");
    let by_destination = matches!(scheduler, "dh" | "lblc" | "lblcr");
    let scheduler = if by_destination { "wlc" } else { scheduler };
    let is_v6 = dice.u32(0..5) == 0;
    let protocol = if dice.u32(0..5) == 0 { "-u" } else { "-t" };
    let persistent = if dice.u32(0..6) == 0 { "-p 100" } else { "" };
    let service = format!("{protocol} {}", at(vip(0, is_v6), 80));
    let extra = format!("-s {scheduler} {persistent}");
    let method = one(dice, &METHODS, "-m");
    let setup = opening(dice, &service, extra.trim(), (method, is_v6, 80), limits);
    Opening { setup, ..Opening::default() }
}

fn write_thresholds(author: &mut Author) -> Result<(), Failure> {
    let shape = Shape::of(&author.setup());
    let is_udp = shape.service.starts_with("-u");
    let to = SocketAddr::new(vip(0, shape.is_v6), 80);
    for number in 0..55_u16 {
        match author.number(0..=19) {
            0..=9 => {
                let host = author.number(0..=63);
                author.open(client(host, 2000 + number, shape.is_v6), to, is_udp)?;
            }
            10 | 11 => establish(author, &shape)?,
            12 | 13 => finish(author)?,
            14 => {
                let limits = limits(&mut author.dice);
                change(author, &shape, &limits);
            }
            15 => {
                let seconds = author.one(&[3, 15, 70, 130, 310]).unwrap_or(3);
                author.sleep(seconds);
            }
            16 => author.look(Look::Listing("-Ln --thresholds")),
            _ => author.look(Look::Services),
        }
    }
    author.look(Look::Services);
    author.look(Look::Conns);
    Ok(())
}
