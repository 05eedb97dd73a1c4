//! `behaviour/`: longer stories, with commands, sleeps and listings in between.

use super::rates::{self, Sample};
use super::{Maybe, Seen, answers, forwarded, seen};
use crate::golden::Golden;
use crate::packet::{self, Header};
use crate::rows::{self, Lingering};
use crate::scene::{Scene, Uncovered, refused, whole_ticks};
use crate::stage::Side;
use crate::tally::{Aspect, Failure, Ledger, Place};
use core::net::SocketAddr;
use rvs_adm::NumbersOnly;
use rvs_api::ServiceKey;
use rvs_model::Tick;
use rvs_wire::icmp::Error;
use rvs_wire::tcp::flag;
use serde::Deserialize;
use serde_json::{Map, Value};

/// What happened. Fields that are not needed are not read.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Note {
        text: Option<String>,
    },
    Tcp {
        flags: String,
        #[serde(flatten)]
        trip: Trip,
    },
    Udp {
        #[serde(flatten)]
        trip: Trip,
    },
    Reply {
        flags: Option<String>,
        #[serde(flatten)]
        trip: Trip,
    },
    Icmp {
        note: String,
        rs: Option<String>,
        out: Option<String>,
        back: Option<Vec<String>>,
    },
    Ipvsadm {
        args: String,
        rc: i32,
    },
    Sysctl(Map<String, Value>),
    Sleep {
        s: f64,
    },
    Lnc {
        rows: Vec<String>,
    },
    Ln {
        text: Vec<String>,
    },
    Show {
        args: String,
        text: Vec<String>,
    },
    Sample(Sample),
    Count(Map<String, Value>),
}

/// A packet's way.
#[derive(Debug, Deserialize)]
struct Trip {
    src: SocketAddr,
    dst: SocketAddr,
    rs: Option<String>,
    out: Option<String>,
    back: Option<Vec<String>>,
}

/// Of the connections that chance ends, a part of one in this may be there or not: three times what
/// two recordings of the kernel differ by.
const TREND: u64 = 8;
/// Lines before the services in `-Ln`.
const HEADER_LINES: usize = 3;

pub(super) fn play(golden: &Golden, scene: &mut Scene, ledger: &mut Ledger) -> Result<(), Failure> {
    let mut lingering = Lingering::default();
    let mut samples = Vec::new();
    let mut trend = 0;
    let is_random = golden.sysctl.iter().flatten().any(|(name, _)| name == "drop_entry");
    for (event, number) in golden.events.iter().zip(0..) {
        let Ok(operation) = serde_json::from_value::<Operation>(event.clone()) else {
            super::leave_rest(golden, number, ledger);
            break;
        };
        let t = event.get("t").and_then(Value::as_f64).map_or(0, whole_ticks);
        let late = t.saturating_sub(scene.bench.stage.now());
        pass(scene, &mut lingering, late);
        let place = || Place::event(number, told(event));
        let beyond = match &operation {
            Operation::Sleep { s } => {
                pass(scene, &mut lingering, whole_ticks(*s));
                None
            }
            Operation::Ipvsadm { args, rc } => {
                command(scene, ledger, place, &mut lingering, (args, *rc))
            }
            Operation::Sysctl(fields) => sysctl(scene, fields),
            Operation::Icmp { note, rs, out, back } => match icmp(scene, note) {
                Some((trip, made)) => {
                    let (rs, out, back) = (rs.clone(), out.clone(), back.clone());
                    let trip = Trip { rs, out, back, ..trip };
                    client_packet(scene, ledger, place, &trip, Some(made))?;
                    None
                }
                None => Some(Uncovered("packet that is told in words only".to_owned())),
            },
            Operation::Note { text } => {
                if let Some(crowd) = text.as_deref().and_then(crowd) {
                    open_crowd(scene, crowd)?;
                    let (half_open, _) = crowd;
                    trend = u64::from(half_open) / TREND;
                }
                None
            }
            Operation::Count(fields) => {
                count(scene, ledger, place, fields, if is_random { trend } else { 0 });
                None
            }
            Operation::Sample(sample) => {
                samples.push((number, sample.clone()));
                None
            }
            other => {
                act(scene, ledger, place, other, &lingering)?;
                None
            }
        };
        if let Some(Uncovered(reason)) = beyond {
            ledger.leave_out(format!("from the first {reason}"), golden.events.len() - number);
            break;
        }
    }
    rates::compare(ledger, &samples);
    Ok(())
}

fn pass(scene: &mut Scene, lingering: &mut Lingering, ticks: Tick) {
    if ticks > 0 {
        lingering.watch(&mut scene.bench.stage, |stage| {
            (0..ticks).for_each(|_| stage.pass_tick());
        });
    }
}

fn command(
    scene: &mut Scene,
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    lingering: &mut Lingering,
    (args, rc): (&str, i32),
) -> Option<Uncovered> {
    let beyond = scene.is_beyond(args);
    let ran =
        lingering.watch(&mut scene.bench.stage, |stage| stage.ipvsadm(args, "", &NumbersOnly));
    let beyond = beyond.or_else(|| refused(&ran));
    if beyond.is_none() {
        ledger.compare(Aspect::Commands, place, &rc, &ran.status);
    }
    beyond
}

/// A sysctl: `name` and `value`, or the name itself as the field.
fn sysctl(scene: &mut Scene, fields: &Map<String, Value>) -> Option<Uncovered> {
    let named = fields.get("name").and_then(Value::as_str).zip(fields.get("value"));
    let bare =
        || fields.iter().find(|(name, _)| *name != "t").map(|(name, value)| (name.as_str(), value));
    match named.or_else(bare) {
        Some((name, value)) => scene.sysctl(name, value),
        None => Some(Uncovered("sysctl without a name".to_owned())),
    }
}

fn act(
    scene: &mut Scene,
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    operation: &Operation,
    lingering: &Lingering,
) -> Result<(), Failure> {
    match operation {
        Operation::Tcp { flags, trip } => {
            let made =
                packet::tcp_flags(flags).and_then(|flags| packet::tcp(trip.src, trip.dst, flags));
            client_packet(scene, ledger, place, trip, made)?;
        }
        Operation::Udp { trip } => {
            client_packet(scene, ledger, place, trip, packet::udp(trip.src, trip.dst, b"x"))?;
        }
        Operation::Reply { flags, trip } => {
            let made = match flags {
                Some(flags) => packet::tcp_flags(flags)
                    .and_then(|flags| packet::tcp(trip.src, trip.dst, flags)),
                None => packet::udp(trip.src, trip.dst, b"x"),
            };
            let Some(made) = made else {
                ledger.leave_out("packets that cannot be made from what is told", 1);
                return Ok(());
            };
            let seen = seen(&scene.from_server(&made)?);
            let out = answers(&seen, Side::Client).first().map(ToString::to_string);
            ledger.compare(Aspect::Ways, place, &Maybe(trip.out.clone()), &Maybe(out));
        }
        Operation::Lnc { rows } => {
            let stdout = scene.ipvsadm("-Lnc").stdout;
            let expected = rows.iter().map(String::as_str);
            rows::compare_conns(ledger, place, expected, stdout.lines(), lingering);
        }
        Operation::Ln { text } => {
            let got = lines(scene, "-Ln").split_off(HEADER_LINES);
            rows::compare_services(ledger, place, text, &got, lingering);
        }
        Operation::Show { args, text } => {
            let got = lines(scene, args);
            rows::compare_services(ledger, place, text, &got, lingering);
        }
        Operation::Note { .. }
        | Operation::Count(_)
        | Operation::Ipvsadm { .. }
        | Operation::Sysctl(_)
        | Operation::Icmp { .. }
        | Operation::Sample(_)
        | Operation::Sleep { .. } => {}
    }
    Ok(())
}

/// The ICMP packet that a note describes: an echo request to the VIP, or `frag needed ROUTER > VIP
/// about VIP:PORT > CLIENT`.
fn icmp(scene: &mut Scene, note: &str) -> Option<(Trip, Vec<u8>)> {
    let services = scene.bench.stage.services();
    let ServiceKey::Address { address: vip, .. } = services.first()?.service else { return None };
    let trip = |src: SocketAddr| Trip { src, dst: vip, rs: None, out: None, back: None };
    if note == "echo request to the VIP" {
        let source = SocketAddr::new([172, 16, 1, 1].into(), 0);
        return Some((trip(source), packet::echo_request(source.ip(), vip.ip(), Header::PLAIN)?));
    }
    let (router, about) = note.strip_prefix("frag needed ")?.split_once(" > VIP about VIP:")?;
    let (port, client) = about.split_once(" > ")?;
    let source = SocketAddr::new(router.parse().ok()?, 0);
    let reply_from = SocketAddr::new(vip.ip(), port.parse().ok()?);
    let reply = packet::tcp(reply_from, client.parse().ok()?, flag::ACK)?;
    let made = packet::icmp_error(source.ip(), Error::TooBig { mtu: 1300 }, &reply)?;
    Some((trip(source), made))
}

fn lines(scene: &mut Scene, args: &str) -> Vec<String> {
    scene.ipvsadm(args).stdout.lines().map(str::to_owned).collect()
}

fn client_packet(
    scene: &mut Scene,
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    trip: &Trip,
    made: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let Some(made) = made else {
        ledger.leave_out("packets that cannot be made from what is told", 1);
        return Ok(());
    };
    let seen = seen(&scene.from_client(&made)?);
    let to = forwarded(&seen);
    ledger.compare(Aspect::Picks, &place, &Maybe(trip.rs.clone()), &Maybe(server(trip, to)));
    if trip.out.is_some() {
        let out = to.map(|seen| seen.look.to_string());
        ledger.compare(Aspect::Ways, &place, &Maybe(trip.out.clone()), &Maybe(out));
    }
    if let Some(back) = &trip.back {
        let got: Vec<String> =
            answers(&seen, Side::Client).iter().map(|look| look.answer()).collect();
        ledger.compare(Aspect::Answers, &place, &back.join(", "), &got.join(", "));
    }
    Ok(())
}

/// The server that got a packet, with its port if the recording tells ports.
fn server(trip: &Trip, to: Option<&Seen>) -> Option<String> {
    let server = to?.server?;
    let tells_port = trip.rs.as_ref().is_some_and(|rs| rs.parse::<SocketAddr>().is_ok());
    Some(if tells_port { server.to_string() } else { server.ip().to_string() })
}

/// Connections that a note says were made: so many with a SYN alone, so many established.
fn crowd(note: &str) -> Option<(u16, u16)> {
    let (half_open, rest) = note.split_once(" SYN-only and ")?;
    let established = rest.strip_suffix(" established connections made at t=0")?;
    Some((half_open.parse().ok()?, established.parse().ok()?))
}

fn open_crowd(scene: &mut Scene, (half_open, established): (u16, u16)) -> Result<(), Failure> {
    let services = scene.bench.stage.services();
    let Some(ServiceKey::Address { address: vip, .. }) = services.first().map(|it| it.service)
    else {
        return Err(Failure::new("a crowd without a service".to_owned()));
    };
    let ports = (1024..).take((half_open + established).into());
    for (port, number) in ports.zip(0..) {
        let client = SocketAddr::new([172, 16, 1, 1].into(), port);
        let flags = if number < half_open { &[flag::SYN][..] } else { &[flag::SYN, flag::ACK] };
        for made in flags.iter().filter_map(|flags| packet::tcp(client, vip, *flags)) {
            scene.from_client(&made)?;
        }
    }
    Ok(())
}

/// Connections by state. Of those that `drop_entry` ends at random so many more or less are the same
/// trend.
fn count(
    scene: &mut Scene,
    ledger: &mut Ledger,
    place: impl Fn() -> Place,
    fields: &Map<String, Value>,
    trend: u64,
) {
    let conns = scene.bench.stage.conns();
    for (state, expected) in fields.iter().filter(|(name, _)| *name != "t") {
        let got = conns.iter().filter(|(conn, _)| conn.state.name() == state).count();
        let most = if state == "SYN_RECV" { trend } else { 0 };
        let told = || (expected.to_string(), got.to_string());
        let is_equal = expected
            .as_u64()
            .zip(u64::try_from(got).ok())
            .is_some_and(|(expected, got)| expected.abs_diff(got) <= most);
        ledger.judge(Aspect::States, is_equal, &place, told);
    }
}

/// An event in one line.
fn told(event: &Value) -> String {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let at = event.get("t").map(|t| format!(" at {t} s")).unwrap_or_default();
    match text("op") {
        "tcp" => format!("TCP {:?} of {}{at}", text("flags"), text("src")),
        "udp" => format!("UDP of {}{at}", text("src")),
        "reply" => format!("reply {:?} of {}{at}", text("flags"), text("src")),
        "lnc" => format!("ipvsadm -Lnc{at}"),
        "ln" => format!("ipvsadm -Ln{at}"),
        "ipvsadm" | "show" => format!("ipvsadm {}{at}", text("args")),
        other => format!("{other}{at}"),
    }
}
