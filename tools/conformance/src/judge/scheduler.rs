//! `scheduler/`: to which real server each new connection went, and the counts now and then.

use super::{Maybe, answers, forwarded, seen};
use crate::golden::Golden;
use crate::packet;
use crate::scene::{Scene, refused, whole_ticks};
use crate::stage::Side;
use crate::tally::{Aspect, Failure, Ledger, Place};
use core::net::SocketAddr;
use rvs_wire::flow::protocol;
use rvs_wire::tcp::flag;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// An event that is an object.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Ipvsadm { args: String },
    Sleep { s: f64 },
    List { rs: Vec<Value> },
    Note {},
}

/// An event that is an array.
struct Packet {
    kind: String,
    number: u64,
    ends: Option<(SocketAddr, SocketAddr)>,
    server: Option<String>,
    back: Option<Vec<String>>,
}

impl Packet {
    fn read(event: &Value) -> Option<Self> {
        let fields = event.as_array()?;
        let text = |at: usize| fields.get(at).and_then(Value::as_str);
        let socket = |at| text(at)?.parse().ok();
        let back = fields.get(5).and_then(|back| serde_json::from_value(back.clone()).ok());
        Some(Self {
            kind: text(0)?.to_owned(),
            number: fields.get(1)?.as_u64()?,
            ends: socket(2).zip(socket(3)),
            server: text(4).map(str::to_owned),
            back,
        })
    }
}

/// What is known of a recorded connection.
#[derive(Clone, Copy)]
struct Opened {
    client: SocketAddr,
    vip: SocketAddr,
    server: Option<SocketAddr>,
}

pub(super) fn play(golden: &Golden, scene: &mut Scene, ledger: &mut Ledger) -> Result<(), Failure> {
    let mut conns = HashMap::new();
    for (event, number) in golden.events.iter().zip(0..) {
        let place = |what: &str| Place::event(number, what);
        if let Some(packet) = Packet::read(event) {
            if !packet_event(&packet, scene, ledger, &mut conns, &|what| place(what))? {
                super::leave_rest(golden, number, ledger);
                return Ok(());
            }
            continue;
        }
        match serde_json::from_value(event.clone()) {
            Ok(Operation::Ipvsadm { args }) => {
                let beyond = scene.is_beyond(&args);
                let ran = scene.ipvsadm(&args);
                if let Some(reason) = beyond.or_else(|| refused(&ran)) {
                    let rest = golden.events.len() - number;
                    ledger.leave_out(format!("from the first {}", reason.0), rest);
                    return Ok(());
                }
                let what = format!("ipvsadm {args}");
                ledger.compare(Aspect::Commands, || place(&what), &0, &ran.status);
            }
            Ok(Operation::Sleep { s }) => scene.pass(whole_ticks(s)),
            Ok(Operation::List { rs }) => {
                let listed = list(scene);
                let (expected, got) = (Value::from(rs), Value::from(listed));
                ledger.compare(Aspect::Counts, || place("list"), &expected, &got);
            }
            Ok(Operation::Note {}) => {}
            Err(_) => {
                super::leave_rest(golden, number, ledger);
                return Ok(());
            }
        }
    }
    if let Some(save) = golden.field::<Vec<String>>("save") {
        let stdout = scene.ipvsadm("-Sn").stdout;
        let got: Vec<&str> = stdout.lines().collect();
        let place = || Place::whole("ipvsadm -Sn at the end");
        ledger.compare(Aspect::Commands, place, &save.join("\n"), &got.join("\n"));
    }
    Ok(())
}

/// Plays a packet; `false` if it is none of those known.
fn packet_event(
    packet: &Packet,
    scene: &mut Scene,
    ledger: &mut Ledger,
    conns: &mut HashMap<u64, Opened>,
    place: &dyn Fn(&str) -> Place,
) -> Result<bool, Failure> {
    let kind = packet.kind.as_str();
    let what = format!("{kind} of connection {}", packet.number);
    if let "syn" | "udp" = kind {
        let Some((client, vip)) = packet.ends else { return Ok(false) };
        let made = match kind {
            "syn" => packet::tcp(client, vip, flag::SYN),
            _ => packet::udp(client, vip, b"x"),
        };
        let Some(made) = made else { return Ok(false) };
        let seen = seen(&scene.from_client(&made)?);
        let server = forwarded(&seen).and_then(|seen| seen.server);
        let (expected, got) =
            (Maybe(packet.server.clone()), Maybe(server.map(|it| it.to_string())));
        ledger.compare(Aspect::Picks, || place(&what), &expected, &got);
        conns.insert(packet.number, Opened { client, vip, server });
        if let Some(back) = &packet.back {
            let got: Vec<String> =
                answers(&seen, Side::Client).iter().map(|look| look.answer()).collect();
            ledger.compare(Aspect::Answers, || place(&what), &back.join(", "), &got.join(", "));
        }
        return Ok(true);
    }
    let Some(&Opened { client, vip, server }) = conns.get(&packet.number) else { return Ok(false) };
    let flags = match kind {
        "synack" => {
            let Some(made) = server.and_then(|it| packet::tcp(it, client, flag::SYN | flag::ACK))
            else {
                return Ok(false);
            };
            let seen = seen(&scene.from_server(&made)?);
            let back = answers(&seen, Side::Client).first().map(ToString::to_string);
            let expected = Maybe(Some(format!("{vip} > {client}")));
            ledger.compare(Aspect::Ways, || place(&what), &expected, &Maybe(back));
            return Ok(true);
        }
        "ack" => flag::ACK,
        "rst" => flag::RST,
        "fin" => flag::FIN | flag::ACK,
        _ => return Ok(false),
    };
    let Some(made) = packet::tcp(client, vip, flags) else { return Ok(false) };
    let seen = seen(&scene.from_client(&made)?);
    let to = forwarded(&seen).filter(|seen| seen.look.protocol != protocol::ICMP);
    let to = Maybe(to.and_then(|seen| seen.server));
    ledger.compare(Aspect::Picks, || place(&what), &Maybe(server), &to);
    Ok(true)
}

/// Destinations as `-Ln` lists them: address and port, method, weight, active, inactive.
fn list(scene: &mut Scene) -> Vec<Value> {
    let row = |line: &str| {
        let words: Vec<&str> = line.trim().strip_prefix("->")?.split_whitespace().collect();
        let [dest, method, weight, active, inactive] = words.as_slice() else { return None };
        let number = |word: &str| word.parse::<i64>().ok();
        let numbers = (number(weight)?, number(active)?, number(inactive)?);
        Some(serde_json::json!([dest, method, numbers.0, numbers.1, numbers.2]))
    };
    scene.ipvsadm("-Ln").stdout.lines().filter_map(row).collect()
}
