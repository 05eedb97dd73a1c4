//! Writes cases. rvs plays along, so that replies come from the server that was chosen, and so that
//! nobody sleeps to a moment at which the kernel's timer wheel may be late.

use super::kinds::{Kind, Parts};
use crate::golden::Golden;
use crate::judge::forwarded_to;
use crate::packet;
use crate::rows::Lingering;
use crate::scene::{Scene, Set, Uncovered};
use crate::tally::Failure;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use rvs_adm::NumbersOnly;
use rvs_model::TICKS_PER_SECOND;
use serde_json::{Value, json};

/// Seconds by which the kernel's clock may be ahead of rvs's while a case is written: it counts the
/// time that its events take.
const AHEAD_S: u32 = 5;
/// Seconds that a sleep is prolonged at most to get away from what is about to end.
const PROLONGED_S: u32 = 240;

/// Seconds after which the kernel has ended all that ours has: the coarsest level's lateness, and a
/// template's last minute.
const AFTER_ALL_S: u32 = 200;

/// How a case begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Opening {
    pub(super) setup: Vec<String>,
    pub(super) sysctl: Vec<(&'static str, u32)>,
    /// An expression of nftables, and the mark that its packets get.
    pub(super) marks: Vec<(String, u32)>,
}

/// A connection of the case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    pub(super) client: SocketAddr,
    pub(super) vip: SocketAddr,
    /// Who got its last packet that was forwarded.
    pub(super) server: Option<SocketAddr>,
    pub(super) is_udp: bool,
}

/// A case being written.
pub(super) struct Author {
    pub(super) dice: fastrand::Rng,
    pub(super) talks: Vec<Talk>,
    scene: Box<Scene>,
    lingering: Lingering,
    case: Golden,
}

/// Writes the case of `kind`, which has these parts, that `seed` names.
///
/// # Errors
///
/// The stage cannot be set.
pub(super) fn write(
    kind: Kind,
    (opening, go_on): Parts,
    seed: u64,
) -> Result<Result<Golden, Uncovered>, Failure> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let opening = opening(&mut dice);
    let golden = Golden {
        id: format!("{kind}-{seed}"),
        category: "behaviour".to_owned(),
        sysctl: Some(
            opening.sysctl.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect(),
        ),
        setup: Some(opening.setup.clone()),
        events: Vec::new(),
        more: [
            ("schema".to_owned(), json!("ipvs-golden/1")),
            ("marks".to_owned(), opening.marks.iter().map(mark).collect()),
        ]
        .into_iter()
        .collect(),
    };
    let scene = match Scene::set(&golden)? {
        Set::Up(scene) => scene,
        Set::Beyond(reason) => return Ok(Err(reason)),
    };
    let mut author =
        Author { dice, talks: Vec::new(), scene, lingering: Lingering::default(), case: golden };
    go_on(&mut author)?;
    Ok(Ok(author.case))
}

fn mark((expression, mark): &(String, u32)) -> Value {
    json!({ "match": expression, "mark": mark })
}

impl Author {
    /// The commands that the case begins with.
    pub(super) fn setup(&self) -> Vec<String> {
        self.case.setup().to_vec()
    }

    /// A number of `range`.
    pub(super) fn number(&mut self, range: RangeInclusive<u32>) -> u32 {
        self.dice.u32(range)
    }

    /// True once in `of`.
    pub(super) fn once_in(&mut self, of: u32) -> bool {
        self.dice.u32(0..of) == 0
    }

    /// One of `choices`.
    pub(super) fn one<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.dice.choice(choices).copied()
    }

    /// Begins a conversation with its first packet.
    pub(super) fn open(
        &mut self,
        client: SocketAddr,
        vip: SocketAddr,
        is_udp: bool,
    ) -> Result<(), Failure> {
        self.talks.push(Talk { client, vip, server: None, is_udp });
        self.client_sends(self.talks.len() - 1, "S")
    }

    /// The client of conversation `number` sends a packet with these TCP flags, or a datagram.
    pub(super) fn client_sends(&mut self, number: usize, letters: &str) -> Result<(), Failure> {
        let Some(talk) = self.talks.get(number).copied() else { return Ok(()) };
        let ends = json!({ "src": talk.client.to_string(), "dst": talk.vip.to_string() });
        let (made, event) = if talk.is_udp {
            (packet::udp(talk.client, talk.vip, b"x"), with(ends, json!({ "op": "udp" })))
        } else {
            let flags = packet::tcp_flags(letters);
            let made = flags.and_then(|flags| packet::tcp(talk.client, talk.vip, flags));
            (made, with(ends, json!({ "op": "tcp", "flags": letters })))
        };
        let Some(made) = made else { return Ok(()) };
        let server = forwarded_to(&self.scene.from_client(&made)?);
        if let Some(talk) = self.talks.get_mut(number) {
            talk.server = server.or(talk.server);
        }
        self.case.events.push(event);
        Ok(())
    }

    /// The server of conversation `number` answers, if it has one.
    pub(super) fn server_sends(&mut self, number: usize, letters: &str) -> Result<(), Failure> {
        let Some(talk) = self.talks.get(number).copied() else { return Ok(()) };
        let Some(server) = talk.server else { return Ok(()) };
        let ends =
            json!({ "src": server.to_string(), "dst": talk.client.to_string(), "op": "reply" });
        let (made, event) = if talk.is_udp {
            (packet::udp(server, talk.client, b"x"), ends)
        } else {
            let flags = packet::tcp_flags(letters);
            let made = flags.and_then(|flags| packet::tcp(server, talk.client, flags));
            (made, with(ends, json!({ "flags": letters })))
        };
        let Some(made) = made else { return Ok(()) };
        self.scene.from_server(&made)?;
        self.case.events.push(event);
        Ok(())
    }

    /// A command; what it prints does not matter. What it ends is over afterwards: while the kernel
    /// is at it, its listings leave out others (`/proc/net/ip_vs_conn` goes on by position).
    pub(super) fn command(&mut self, line: &str) {
        let Self { scene, lingering, .. } = self;
        lingering.watch(&mut scene.bench.stage, |stage| {
            stage.ipvsadm(line, "", &NumbersOnly);
        });
        self.case.events.push(json!({ "op": "ipvsadm", "args": line }));
        if line.starts_with("-d") || line.starts_with("-D") {
            self.sleep(1);
        }
    }

    /// A listing that is compared.
    pub(super) fn look(&mut self, what: Look) {
        self.case.events.push(match what {
            Look::Conns => json!({ "op": "lnc" }),
            Look::Services => json!({ "op": "ln" }),
            Look::Listing(args) => json!({ "op": "show", "args": args }),
        });
    }

    /// Sleeps for `seconds`, and on until nothing ends at about that time; until everything is over if
    /// otherwise it would depend on the kernel's wheel what is left.
    pub(super) fn sleep(&mut self, seconds: u32) {
        let mut slept = 0;
        let mut until = seconds;
        while slept < until || slept < until + PROLONGED_S && !self.is_quiet() {
            let Self { scene, lingering, .. } = self;
            lingering.watch(&mut scene.bench.stage, |stage| {
                (0..TICKS_PER_SECOND).for_each(|_| stage.pass_tick());
            });
            slept += 1;
            if lingering.is_blurred() && !scene.bench.stage.conns().is_empty() {
                until = slept + AFTER_ALL_S;
            }
        }
        if self.lingering.is_blurred() {
            self.lingering = Lingering::default();
        }
        self.case.events.push(json!({ "op": "sleep", "s": slept }));
    }

    /// Whether no connection has just ended or is about to.
    fn is_quiet(&mut self) -> bool {
        let soon = AHEAD_S * TICKS_PER_SECOND;
        self.lingering.is_empty()
            && self.scene.bench.stage.conns().iter().all(|(_, left)| *left > soon)
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// `-Lnc`.
    Conns,
    /// `-Ln`, without its header.
    Services,
    /// Some other listing.
    Listing(&'static str),
}

/// Both objects in one.
fn with(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            one.extend(other);
            Value::Object(one)
        }
        (one, _) => one,
    }
}

/// The client with this number: eight hosts of each of several networks, as many as anybody wants.
pub(super) fn client(number: u32, port: u16, is_v6: bool) -> SocketAddr {
    let [_, _, net, host] = number.to_be_bytes();
    let (net, host) = (net.wrapping_add(host / 8), host % 8 + 1);
    let address: IpAddr = if is_v6 {
        [0x2001, 0xdb8, 9, u16::from(net), 0, 0, 0, u16::from(host)].into()
    } else {
        [172, 16, net, host].into()
    };
    SocketAddr::new(address, port)
}

/// The real server with this number, from 0.
pub(super) fn server(number: u32, is_v6: bool) -> IpAddr {
    let [.., last] = (number % 12 + 2).to_be_bytes();
    if is_v6 { [0xfd00, 1, 0, 0, 0, 0, 0, u16::from(last)].into() } else { [10, 1, 0, last].into() }
}

/// The virtual address with this number, from 0.
pub(super) fn vip(number: u32, is_v6: bool) -> IpAddr {
    let [.., last] = number.to_be_bytes();
    if is_v6 {
        [0xfd00, 0x100, 0, 0, 0, 0, 0, u16::from(last) + 1].into()
    } else {
        [198, 18, 0, last.wrapping_add(1)].into()
    }
}
