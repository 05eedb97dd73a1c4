//! Persistence templates beside connections: found by nobody's packets, timed by their own clock,
//! outliving what uses them, and making room before an established connection would.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Random, SEED, address, conn};
use rvs_conntrack::state::tcp::flag::{ACK, SYN};
use rvs_conntrack::{Ageing, Capacity, Conn, Conns, Direction, Full, template};
use rvs_model::{DestId, ForwardMethod, State, Tick, Timeouts, ticks};
use rvs_wire::flow::{Ends, Family, Key, V4, V6, protocol};
use std::collections::HashMap;

const TIMEOUT: Tick = ticks(300);

fn conns<F: Family>(conns_max: u32) -> Conns<F> {
    Conns::new(Capacity::new(conns_max, 2).unwrap(), SEED, &Timeouts::default(), 0, false)
}

/// A template of the client network `number`.
fn remembered<F: Family>(number: u32, timeout: Tick) -> Conn<F> {
    let network = (address::<F>([198, 51, 0, 0], number), 0);
    let ends = F::Ends::new(network, (address::<F>([203, 0, 113, 1], 0), 80));
    let key = Key { ends, protocol: template::number(protocol::TCP).unwrap() };
    let dest = (address::<F>([192, 0, 2, 11], number % 7), 8080);
    Conn {
        method: ForwardMethod::Masquerade,
        dest: DestId(number),
        ..Conn::template(key, dest, timeout)
    }
}

fn using<F: Family>(number: u32, line: u32) -> Conn<F> {
    Conn { control: line, ..conn(number, ForwardMethod::Masquerade) }
}

fn line_of<F: Family>(conns: &Conns<F>, like: &Conn<F>) -> Option<u32> {
    conns.template(&like.key(Direction::Inbound)).map(|(line, _)| line)
}

fn at<F: Family>(conns: &Conns<F>, line: u32) -> Conn<F> {
    *conns.table().conn(line).unwrap()
}

fn packet<F: Family>(
    conns: &mut Conns<F>,
    of: &Conn<F>,
    direction: Direction,
    flags: u8,
    now: Tick,
) {
    let key = of.key(direction);
    let found = conns.table().find(&key, conns.table().hash(&key)).unwrap();
    conns.held(found, &key).unwrap().packet(flags, now);
}

/// Takes `conn` in, in the place of another if need be; `evicted` counts those.
fn take_in<F: Family>(
    conns: &mut Conns<F>,
    conn: &Conn<F>,
    now: Tick,
    evicted: &mut usize,
) -> Result<u32, Full> {
    match conns.open(conn, State::SynRecv, now) {
        Err(Full::Conns) => conns.open_over_half_open(conn, State::SynRecv, now, |_| *evicted += 1),
        other => other,
    }
}

/// Lets time pass and says who went.
fn pass<F: Family>(conns: &mut Conns<F>, from: Tick, to: Tick) -> Vec<Conn<F>> {
    let mut gone = Vec::new();
    for now in from..=to {
        conns.expire::<64>(now, |conn| gone.push(*conn));
    }
    gone
}

#[test]
fn no_packet_finds_a_template_whatever_ports_and_protocol_it_has() {
    let mut conns = conns::<V4>(8);
    let known = remembered::<V4>(1, TIMEOUT);
    conns.open(&known, State::None, 0).unwrap();
    assert_eq!(line_of(&conns, &known), Some(1));
    // All protocols that packets of services have, and with the template's own ends.
    for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP] {
        for ends in [known.inbound, known.inbound.reversed(), known.outbound] {
            let key = Key { ends, protocol };
            assert_eq!(conns.table().find(&key, conns.table().hash(&key)), None);
        }
    }
    assert_eq!(template::number(47), None, "nobody serves GRE");
}

#[test]
fn a_template_says_what_it_is_about() {
    for protocol in [0, protocol::TCP, protocol::UDP, protocol::SCTP] {
        let key = Key::<V6> { protocol: template::number(protocol).unwrap(), ..Key::default() };
        let template = Conn::template(key, (core::net::Ipv6Addr::LOCALHOST, 0), 1);
        assert_eq!((template.is_template(), template.template_protocol()), (true, protocol));
        assert!(!Conn::<V6> { protocol, ..Conn::default() }.is_template());
    }
}

#[test]
fn a_template_lasts_its_own_time_after_its_last_use_and_not_a_tick_longer() {
    // Longer than the wheel, too.
    for timeout in [ticks(1), ticks(300), ticks(5000)] {
        let mut conns = conns::<V6>(8);
        let known = remembered::<V6>(1, timeout);
        let line = conns.open(&known, State::None, 0).unwrap();
        assert_eq!(pass(&mut conns, 0, 7).len(), 0);
        conns.renew_template(line, 7);
        assert_eq!(conns.left(&at(&conns, line), 7), timeout);
        assert_eq!(pass(&mut conns, 8, 7 + timeout - 1).len(), 0);
        assert_eq!(pass(&mut conns, 7 + timeout, 7 + timeout).len(), 1);
        assert!(conns.is_empty());
    }
}

#[test]
fn while_it_has_connections_it_lives_on_a_minute_at_a_time() {
    let mut conns = conns::<V4>(8);
    let line = conns.open(&remembered::<V4>(1, ticks(30)), State::None, 0).unwrap();
    let user = using::<V4>(1, line);
    conns.open(&user, State::Established, 0).unwrap();
    packet(&mut conns, &user, Direction::Inbound, SYN, 0);
    packet(&mut conns, &user, Direction::Inbound, ACK, 0);
    assert_eq!(at(&conns, line).control, 1);
    assert_eq!(pass(&mut conns, 0, ticks(30) - 1).len(), 0);
    assert_eq!(conns.left(&at(&conns, line), ticks(30) - 1), 1);
    pass(&mut conns, ticks(30), ticks(30));
    assert_eq!(conns.left(&at(&conns, line), ticks(30)), ticks(60));
    // From then on another use gives it a minute only, as in the kernel.
    conns.renew_template(line, ticks(35));
    assert_eq!(conns.left(&at(&conns, line), ticks(35)), ticks(60));
    assert!(conns.remove(line).is_none(), "nothing ends it while it is in use");
    conns.end(line, |_| unreachable!("nothing at all"));
    // The connection's 900 s end first, then the minute that runs.
    let gone = pass(&mut conns, ticks(31), ticks(1000));
    assert_eq!(gone.iter().map(Conn::is_template).collect::<Vec<_>>(), [false, true]);
    assert!(conns.is_empty());
}

#[test]
fn a_template_is_assured_once_a_tcp_connection_stands_or_a_udp_one_is_answered() {
    for (protocol, packets) in [
        (protocol::TCP, [(Direction::Inbound, SYN), (Direction::Inbound, ACK)]),
        (protocol::UDP, [(Direction::Inbound, 0), (Direction::Outbound, 0)]),
    ] {
        let mut conns = conns::<V4>(8);
        let line = conns.open(&remembered::<V4>(1, TIMEOUT), State::None, 0).unwrap();
        let user = Conn { protocol, ..using::<V4>(1, line) };
        conns.open(&user, State::None, 0).unwrap();
        let states = packets.map(|(direction, flags)| {
            packet(&mut conns, &user, direction, flags, 0);
            conns.expire::<64>(0, |_| ());
            at(&conns, line).state
        });
        assert_eq!(states, [State::None, State::Established]);
        assert_eq!(at(&conns, line).control, 1, "it is still held once");
        let key = user.key(Direction::Inbound);
        let found = conns.table().find(&key, conns.table().hash(&key)).unwrap();
        assert_eq!(at(&conns, found.index).template_line(), line);
    }
}

#[test]
fn a_void_template_is_found_by_nobody_and_another_takes_its_place() {
    let mut conns = conns::<V4>(8);
    let known = remembered::<V4>(1, TIMEOUT);
    let mut lines = Vec::new();
    for round in 1..=4 {
        let line = conns.open(&known, State::None, 0).unwrap();
        conns.open(&using::<V4>(round, line), State::SynRecv, 0).unwrap();
        lines.push(line);
        conns.void_template(line);
        conns.void_template(line);
        assert_eq!(line_of(&conns, &known), None);
        let void = at(&conns, line);
        assert_eq!((void.is_template(), void.template_protocol(), void.control), (true, 6, 1));
        assert_eq!(void.inbound.destination_socket().port(), 65535);
        assert_eq!(void.outbound.source_socket().port(), 65535);
    }
    assert_eq!(conns.len(), 8);
    let gone = pass(&mut conns, 0, TIMEOUT);
    assert_eq!((gone.len(), conns.len()), (8, 0));
    assert!(lines.iter().all(|line| gone.iter().any(|_| *line > 0)));
}

#[test]
fn with_the_last_connection_that_was_ended_early_an_unassured_template_goes() {
    let mut conns = conns::<V4>(8);
    for assured in [false, true] {
        let line = conns.open(&remembered::<V4>(1, TIMEOUT), State::None, 0).unwrap();
        let users = [1, 2].map(|number| conns.open(&using::<V4>(number, line), State::SynRecv, 0));
        if assured {
            packet(&mut conns, &using::<V4>(1, line), Direction::Inbound, SYN, 0);
            packet(&mut conns, &using::<V4>(1, line), Direction::Inbound, ACK, 0);
            conns.expire::<64>(0, |_| ());
        }
        let mut gone = 0;
        for user in users {
            conns.end(user.unwrap(), |_| gone += 1);
        }
        assert_eq!(gone, if assured { 2 } else { 3 });
        assert_eq!(conns.len(), usize::from(assured));
    }
}

#[test]
fn a_template_that_never_got_a_connection_makes_room() {
    let mut conns = conns::<V4>(512);
    for number in 0..512 {
        conns.open(&remembered::<V4>(number, TIMEOUT), State::None, 0).unwrap();
    }
    let mut evicted = 0;
    for number in 0..512 {
        let other = conn(number, ForwardMethod::Direct);
        take_in(&mut conns, &other, 0, &mut evicted).unwrap();
        packet(&mut conns, &other, Direction::Inbound, SYN, 0);
        packet(&mut conns, &other, Direction::Inbound, ACK, 0);
    }
    assert_eq!((evicted, check(&conns).0), (512, 0));
}

#[test]
fn ageing_ends_templates_that_nobody_uses_and_those_whose_last_connection_it_ended() {
    let mut conns = conns::<V4>(8);
    let opened = |conns: &mut Conns<V4>, number, flags: &[u8]| {
        let line = conns.open(&remembered::<V4>(number, TIMEOUT), State::None, 0).unwrap();
        let user = using::<V4>(number, line);
        conns.open(&user, State::SynRecv, 0).unwrap();
        for flags in flags {
            packet(conns, &user, Direction::Inbound, *flags, 0);
        }
    };
    conns.open(&remembered::<V4>(1, TIMEOUT), State::None, 0).unwrap();
    opened(&mut conns, 2, &[SYN]);
    opened(&mut conns, 3, &[SYN, ACK]);
    conns.expire::<64>(0, |_| ());
    let mut gone = Vec::new();
    let mut ageing = Ageing::new(1);
    for _ in 0..100 {
        ageing.step::<V4, 8>(&mut conns, 8, 0, |conn| gone.push((conn.is_template(), conn.state)));
    }
    gone.sort_by_key(|(is_template, _)| *is_template);
    let template = (true, State::None);
    assert_eq!(gone, [(false, State::SynRecv), template, template]);
    assert_eq!(check(&conns), (1, 2), "the established one and its template are left");
}

/// Spoofed addresses: each leaves a template that lasts longer than the table does.
#[test]
fn a_flood_pushes_out_its_own_templates_and_no_other() {
    let mut conns = conns::<V4>(512);
    let good = conns.open(&remembered::<V4>(9_999_999, TIMEOUT), State::None, 0).unwrap();
    let user = using::<V4>(59_000, good);
    conns.open(&user, State::SynRecv, 0).unwrap();
    packet(&mut conns, &user, Direction::Inbound, SYN, 0);
    packet(&mut conns, &user, Direction::Inbound, ACK, 0);
    conns.expire::<64>(0, |_| ());
    let mut evicted = 0;
    for number in 0..20_000 {
        // So slowly at first that connections time out and leave their templates.
        let now = ticks(number.min(200));
        conns.expire::<64>(now, |_| ());
        let new = remembered::<V4>(number, TIMEOUT);
        let line = take_in(&mut conns, &new, now, &mut evicted).unwrap();
        let flooding = using::<V4>(number, line);
        take_in(&mut conns, &flooding, now, &mut evicted).unwrap();
        packet(&mut conns, &flooding, Direction::Inbound, SYN, now);
    }
    assert!(evicted > 30_000, "{evicted}");
    assert!(at(&conns, good).is_template() && at(&conns, good).control == 1);
    check(&conns);
}

/// Every template has as many connections as it says, and every connection a template that lives.
fn check<F: Family>(conns: &Conns<F>) -> (usize, usize) {
    let mut held: HashMap<u32, u32> = HashMap::new();
    let mut templates: HashMap<u32, u32> = HashMap::new();
    conns.table().scan(0, u32::MAX, |line, conn| {
        if conn.is_template() {
            templates.insert(line, conn.control);
        } else if conn.template_line() != 0 {
            *held.entry(conn.template_line()).or_default() += 1;
        }
    });
    for (line, count) in &templates {
        assert_eq!(held.remove(line).unwrap_or_default(), *count, "template {line}");
    }
    assert!(held.is_empty(), "connections without their template: {held:?}");
    (templates.len(), conns.len())
}

#[test]
fn whatever_comes_and_goes_no_connection_is_without_its_template() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let mut conns = conns::<V4>(96);
        let (mut now, mut most) = (0, 0);
        let mut seen = [0; 6];
        for _ in 0..20_000 {
            let network = random.below(30);
            let known = remembered::<V4>(network, ticks(1 + random.below(100)));
            let line = line_of(&conns, &known);
            match (random.below(12), line) {
                (0, Some(line)) => {
                    conns.void_template(line);
                    seen[0] += 1;
                }
                (1, _) => {
                    now += random.below(80);
                    let mut gone = 0;
                    conns.expire::<64>(now, |_| gone += 1);
                    seen[1] += gone;
                }
                (2, _) => conns.end(1 + random.below(96), |_| seen[2] += 1),
                (3, _) => {
                    conns.remove(1 + random.below(96));
                }
                (_, line) => {
                    let line = match line {
                        Some(line) => Ok(line),
                        None => take_in(&mut conns, &known, now, &mut seen[3]),
                    };
                    let Ok(line) = line else {
                        seen[4] += 1;
                        continue;
                    };
                    let user = using::<V4>(random.below(200), line);
                    let key = user.key(Direction::Inbound);
                    let found = conns.table().find(&key, conns.table().hash(&key));
                    match found {
                        Some(found) => {
                            let over =
                                conns.open_over(found.index, &user, State::SynRecv, now, |_| ());
                            seen[5] += usize::from(over.is_ok());
                        }
                        None => {
                            let _may_be_full = take_in(&mut conns, &user, now, &mut seen[3]);
                        }
                    }
                    if random.below(3) == 0
                        && conns.table().find(&key, conns.table().hash(&key)).is_some()
                    {
                        packet(&mut conns, &user, Direction::Inbound, SYN, now);
                        packet(&mut conns, &user, Direction::Inbound, ACK, now);
                    }
                }
            }
            most = most.max(check(&conns).0);
        }
        assert!(most > 10 && seen.iter().all(|count| *count > 0), "seed {seed}: {most} {seen:?}");
        now += ticks(2000);
        for _ in 0..20_000 {
            conns.expire::<64>(now, |_| ());
            now += 1;
        }
        assert!(conns.is_empty(), "seed {seed}: {}", conns.len());
    }
}
