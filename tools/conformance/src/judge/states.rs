//! `states/`: what each packet makes of a connection's state, timer and counts.

use super::{Maybe, answers, seen};
use crate::golden::Golden;
use crate::packet;
use crate::rows::{self, Lingering};
use crate::scene::{Scene, Uncovered, refused, whole_ticks};
use crate::stage::Side;
use crate::tally::{Aspect, Failure, Ledger, Place};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use rvs_api::ServiceKey;
use rvs_model::{Protocol, TICKS_PER_SECOND};
use rvs_wire::icmp::Error;
use rvs_wire::tcp::flag;
use serde::Deserialize;

/// Clients are behind the gateway; recordings tell their ports alone.
const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));
const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77));
/// The port of the first fresh connection.
const FIRST_PORT: u16 = 10_000;

/// From where a packet comes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Direction {
    In,
    Out,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::In => "client",
            Self::Out => "server",
        }
    }
}

/// One packet for a fresh connection in a known state.
#[derive(Debug, Deserialize)]
struct Transition {
    path: Vec<(Direction, String)>,
    state: Option<String>,
    dir: Direction,
    pkt: String,
    next: Option<String>,
    expires: Option<i64>,
    forwarded: bool,
    reply: Option<String>,
    dactive: Option<i64>,
    dinact: Option<i64>,
}

/// A conversation.
#[derive(Debug, Deserialize)]
struct Sequence {
    seq: String,
    cport: u16,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Step {
    Packet {
        dir: Direction,
        pkt: String,
        forwarded: bool,
        reply: Option<String>,
        state: Option<String>,
        expires: Option<i64>,
        lnc: Option<String>,
        active: i64,
        inact: i64,
    },
    Sleep {
        sleep: f64,
        state: Option<String>,
        expires: Option<i64>,
    },
    Command {
        ipvsadm: String,
    },
}

/// What came of a packet.
struct Effect {
    forwarded: bool,
    reply: Option<String>,
}

/// One client's connection.
struct Conversation {
    client: SocketAddr,
    vip: SocketAddr,
    /// Whom the director chose, or would have to.
    server: SocketAddr,
    protocol: Protocol,
}

impl Conversation {
    fn new(scene: &mut Scene, port: u16) -> Option<Self> {
        let services = scene.bench.stage.services();
        let service = services.first()?;
        let ServiceKey::Address { protocol, address: vip } = service.service else { return None };
        let server = service.dests.first()?.dest;
        let client = if vip.is_ipv4() { CLIENT_V4 } else { CLIENT_V6 };
        Some(Self { client: SocketAddr::new(client, port), vip, server, protocol })
    }

    /// The packet that a recording names so.
    fn make(&self, from: Direction, name: &str) -> Result<Vec<u8>, Uncovered> {
        let (source, destination) = match from {
            Direction::In => (self.client, self.vip),
            Direction::Out => (self.server, self.client),
        };
        if name == "icmp 3/3 about the connection" {
            let failed = match self.protocol {
                Protocol::Tcp => packet::tcp(destination, source, flag::ACK),
                Protocol::Udp => packet::udp(destination, source, b"x"),
                Protocol::Sctp => packet::sctp(destination, source, "DATA"),
            };
            return failed
                .and_then(|failed| packet::icmp_error(source.ip(), Error::PortUnreachable, &failed))
                .ok_or_else(|| Uncovered(format!("packets {name:?}")));
        }
        let made = match self.protocol {
            Protocol::Tcp => {
                packet::tcp_flags(name).and_then(|flags| packet::tcp(source, destination, flags))
            }
            Protocol::Udp => packet::udp(source, destination, b"x"),
            Protocol::Sctp => packet::sctp(source, destination, name),
        };
        made.ok_or_else(|| Uncovered(format!("packets {name:?}")))
    }

    fn give(
        &mut self,
        scene: &mut Scene,
        from: Direction,
        packet: &[u8],
    ) -> Result<Effect, Failure> {
        let (sent, near, far) = match from {
            Direction::In => (scene.from_client(packet)?, Side::Client, Side::Servers),
            Direction::Out => (scene.from_server(packet)?, Side::Servers, Side::Client),
        };
        let seen = seen(&sent);
        if let Some(server) = seen.iter().find_map(|seen| seen.server) {
            self.server = server;
        }
        let reply = answers(&seen, near).first().map(|look| look.answer_in_states());
        Ok(Effect { forwarded: seen.iter().any(|seen| seen.side == far), reply })
    }

    /// State and whole seconds of the connection.
    fn state(&self, scene: &mut Scene) -> (Option<String>, Option<i64>) {
        let conns = scene.bench.stage.conns();
        let found =
            conns.iter().find(|(conn, _)| (conn.client, conn.vip) == (self.client, self.vip));
        let state = found.map(|(conn, _)| conn.state.name().to_owned());
        (state, found.map(|(_, left)| i64::from(left / TICKS_PER_SECOND)))
    }
}

pub(super) fn play(golden: &Golden, scene: &mut Scene, ledger: &mut Ledger) -> Result<(), Failure> {
    if let Some(set) = golden.field::<String>("set") {
        let status = scene.ipvsadm(&set).status;
        ledger.compare(Aspect::Commands, || Place::whole(&set), &0, &status);
    }
    let mut ports = FIRST_PORT..;
    let mut lingering = Lingering::default();
    for (event, number) in golden.events.iter().zip(0..) {
        if let Ok(transition) = serde_json::from_value::<Transition>(event.clone()) {
            let port = ports.next().unwrap_or(FIRST_PORT);
            play_transition(scene, ledger, &transition, port, number)?;
        } else if let Ok(sequence) = serde_json::from_value::<Sequence>(event.clone()) {
            play_sequence(scene, ledger, &mut lingering, &sequence, number)?;
        } else {
            ledger.leave_out("events of a kind that is not known", 1);
        }
    }
    if let Some(timeouts) = golden.field::<String>("timeouts") {
        let stdout = scene.ipvsadm("-L --timeout").stdout;
        let place = || Place::whole("ipvsadm -L --timeout");
        ledger.compare(Aspect::Commands, place, &timeouts.trim(), &stdout.trim());
    }
    Ok(())
}

fn play_transition(
    scene: &mut Scene,
    ledger: &mut Ledger,
    it: &Transition,
    port: u16,
    number: usize,
) -> Result<(), Failure> {
    let place = || {
        let path: Vec<String> =
            it.path.iter().map(|(from, packet)| format!("{} {packet:?}", from.word())).collect();
        let now = format!("{} {:?} in {:?}", it.dir.word(), it.pkt, it.state);
        Place::event(number, format!("{now} after [{}]", path.join(", ")))
    };
    let Some(mut conn) = Conversation::new(scene, port) else {
        ledger.leave_out("a setup without a service of an address", 1);
        return Ok(());
    };
    for (from, name) in &it.path {
        match conn.make(*from, name) {
            Ok(packet) => conn.give(scene, *from, &packet).map(drop)?,
            Err(reason) => {
                ledger.leave_out(reason.0, 1);
                return Ok(());
            }
        }
    }
    let packet = match conn.make(it.dir, &it.pkt) {
        Ok(packet) => packet,
        Err(reason) => {
            ledger.leave_out(reason.0, 1);
            return Ok(());
        }
    };
    let (before, _) = conn.state(scene);
    ledger.compare(Aspect::States, place, &Maybe(it.state.clone()), &Maybe(before.clone()));
    let (loads_before, opened_before) = (scene.bench.stage.loads(), opened(scene));
    let effect = conn.give(scene, it.dir, &packet)?;
    let (next, expires) = conn.state(scene);
    ledger.compare(Aspect::States, place, &Maybe(it.next.clone()), &Maybe(next));
    compare_seconds(ledger, place, it.expires, expires);
    compare_effect(ledger, place, (it.forwarded, it.reply.as_ref()), &effect);
    if let (Some(active), Some(inactive)) = (it.dactive, it.dinact) {
        // A packet moves no more than its own connection: others ended in the same instant.
        if active.abs() > 1 || inactive.abs() > 1 {
            ledger.leave_out("counts that changed by more than the packet's own connection", 1);
            return Ok(());
        }
        let loads = scene.bench.stage.loads();
        let got = (loads.0 - loads_before.0, loads.1 - loads_before.1);
        let late = i64::from(is_replaced(before.as_ref(), scene, opened_before));
        let equal = rows::are_explained((active, inactive), got, (0, late));
        let told = || (format!("{active:+} {inactive:+}"), format!("{:+} {:+}", got.0, got.1));
        ledger.judge(Aspect::Counts, equal, place, told);
    }
    Ok(())
}

/// Whether another connection took the place of one that was in state `before`. Linux 6.1
/// `ip_vs_conn.c` `ip_vs_conn_expire_now()`: the old one goes with the next tick of the clock, and
/// may be counted until then.
fn is_replaced(before: Option<&String>, scene: &mut Scene, opened_before: u64) -> bool {
    before.is_some() && opened(scene) > opened_before
}

/// Connections opened so far.
fn opened(scene: &mut Scene) -> u64 {
    scene.bench.stage.services().iter().map(|service| service.totals.conns).sum()
}

fn play_sequence(
    scene: &mut Scene,
    ledger: &mut Ledger,
    lingering: &mut Lingering,
    it: &Sequence,
    number: usize,
) -> Result<(), Failure> {
    let Some(mut conn) = Conversation::new(scene, it.cport) else {
        ledger.leave_out("a setup without a service of an address", it.steps.len());
        return Ok(());
    };
    for (step, at) in it.steps.iter().zip(0usize..) {
        let place = || {
            let what = match step {
                Step::Packet { dir, pkt, .. } => format!("{} {pkt:?}", dir.word()),
                Step::Sleep { sleep, .. } => format!("{sleep} s later"),
                Step::Command { ipvsadm } => ipvsadm.clone(),
            };
            Place::event(number, format!("{}, step {at}: {what}", it.seq))
        };
        match step {
            Step::Sleep { sleep, state, expires } => {
                let ticks = whole_ticks(*sleep);
                lingering.watch(&mut scene.bench.stage, |stage| {
                    (0..ticks).for_each(|_| stage.pass_tick());
                });
                let (got, left) = conn.state(scene);
                ledger.compare(Aspect::States, place, &Maybe(state.clone()), &Maybe(got));
                compare_seconds(ledger, place, *expires, left);
            }
            Step::Command { ipvsadm } => {
                let ran = scene.ipvsadm(ipvsadm);
                if let Some(reason) = refused(&ran) {
                    ledger.leave_out(reason.0, it.steps.len() - at);
                    return Ok(());
                }
                ledger.compare(Aspect::Commands, place, &0, &ran.status);
            }
            Step::Packet { dir, pkt, forwarded, reply, state, expires, lnc, active, inact } => {
                let (before, opened_before) = (conn.state(scene).0, opened(scene));
                match conn.make(*dir, pkt) {
                    Ok(packet) => {
                        let effect = conn.give(scene, *dir, &packet)?;
                        compare_effect(ledger, place, (*forwarded, reply.as_ref()), &effect);
                    }
                    // It leaves the connection as it is (kernel-side: ICMP refreshes no timer).
                    Err(reason) => ledger.leave_out(reason.0, 1),
                }
                let (got, left) = conn.state(scene);
                ledger.compare(Aspect::States, place, &Maybe(state.clone()), &Maybe(got));
                compare_seconds(ledger, place, *expires, left);
                let client = conn.client.to_string();
                let stdout = scene.ipvsadm("-Lnc").stdout;
                let rows = stdout.lines().filter(|row| row.contains(&format!(" {client} ")));
                rows::compare_conns(ledger, place, lnc.as_deref(), rows, lingering);
                let (expected, got) = ((*active, *inact), scene.bench.stage.loads());
                let (late_active, late) = lingering.all();
                let late = late + i64::from(is_replaced(before.as_ref(), scene, opened_before));
                let equal = rows::are_explained(expected, got, (late_active, late));
                let told = || (format!("{expected:?}"), format!("{got:?}"));
                ledger.judge(Aspect::Counts, equal, place, told);
            }
        }
    }
    Ok(())
}

fn compare_seconds(
    ledger: &mut Ledger,
    place: impl FnOnce() -> Place,
    expected: Option<i64>,
    got: Option<i64>,
) {
    let equal = match (expected, got) {
        (Some(expected), Some(got)) => rows::agree(expected, got),
        (expected, got) => expected == got,
    };
    let told = || (Maybe(expected).to_string(), Maybe(got).to_string());
    ledger.judge(Aspect::Timers, equal, place, told);
}

fn compare_effect(
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    (forwarded, reply): (bool, Option<&String>),
    got: &Effect,
) {
    ledger.compare(Aspect::Ways, &place, &forwarded, &got.forwarded);
    ledger.compare(Aspect::Answers, &place, &Maybe(reply.cloned()), &Maybe(got.reply.clone()));
}
