//! Connections with their timers: against a model, under floods, and by the millions.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{METHODS, Random, SEED, conn};
use rvs_conntrack::state::tcp::flag::{ACK, FIN, RST, SYN};
use rvs_conntrack::state::{View, is_half_open, is_opening, is_reused, may_open, next};
use rvs_conntrack::{Capacity, Conn, Conns, Direction, Full, Held};
use rvs_model::{DestId, ForwardMethod, State, Tick, Timeouts, ticks};
use rvs_wire::flow::{Family, V4, V6, protocol};
use std::collections::HashMap;

fn conns<F: Family>(conns_max: u32, now: Tick) -> Conns<F> {
    let capacity = Capacity::new(conns_max, 2).unwrap();
    Conns::new(capacity, SEED, &Timeouts::default(), now, false)
}

/// The connection that packets of `like` belong to.
fn held<'c, F: Family>(
    conns: &'c mut Conns<F>,
    like: &Conn<F>,
    direction: Direction,
) -> Option<Held<'c, F>> {
    let key = like.key(direction);
    let found = conns.find(&key, conns.table().hash(&key))?;
    conns.held(found, &key)
}

/// Opens a connection as a plane does, and takes its first packet through it.
fn open<F: Family>(
    conns: &mut Conns<F>,
    conn: &Conn<F>,
    flags: u8,
    now: Tick,
) -> Result<u32, Full> {
    let view = View::of(conn.method, Direction::Inbound);
    let index = conns.open(conn, next(State::None, conn.protocol, flags, view, false), now)?;
    held(conns, conn, Direction::Inbound).unwrap().packet(flags, now);
    Ok(index)
}

fn direct(number: u32) -> Conn<V4> {
    conn(number, ForwardMethod::Direct)
}

/// What a connection should be.
#[derive(Clone, Copy)]
struct Model {
    state: State,
    deadline: u64,
    packets: u32,
}

impl Model {
    fn is_half_open(&self) -> bool {
        match self.state {
            State::None | State::SynRecv | State::SynSent | State::SynAck => true,
            State::Udp => self.packets <= 1,
            _ => false,
        }
    }
}

/// Random packets of random clients over hours, with a table too small for all. At every tick
/// exactly those connections end whose state's time is over, and every other is there.
fn agrees_with_a_model<F: Family>(seed: u64, start: u64) {
    const CLIENTS: u32 = 900;
    const CONNS_MAX: u32 = 150;
    let mut random = Random(seed);
    let timeouts = Timeouts::default();
    let mut time = start;
    let tick = |time: u64| u32::try_from(time & 0xffff_ffff).unwrap();
    let mut conns = conns::<F>(CONNS_MAX, tick(start));
    let mut model: HashMap<u32, Model> = HashMap::new();
    let mut counts = HashMap::<&str, u32>::new();
    let secure = seed % 2 == 1;
    conns.set_secure(secure);
    for _ in 0..400_000 {
        if random.below(8) == 0 {
            // Mostly moments, now and then long enough for anything to end.
            let sleep = if random.below(400) == 0 { random.below(9000) } else { random.below(12) };
            for _ in 0..sleep {
                time += 1;
                let mut gone = Vec::new();
                while conns.expire::<16>(tick(time), |conn| gone.push(conn.dest.0)) == 16 {}
                for number in gone {
                    let ended = model.remove(&number).unwrap();
                    assert_eq!(ended.deadline, time, "seed {seed}: {:?}", ended.state);
                    *counts.entry(ended.state.name()).or_default() += 1;
                }
                assert!(model.values().all(|conn| conn.deadline > time), "seed {seed}");
            }
        }
        let number = random.below(CLIENTS);
        let mut caller = conn::<F>(number, METHODS[usize::try_from(number % 3).unwrap()]);
        if number.is_multiple_of(7) {
            caller.protocol = protocol::UDP;
        }
        let is_reply = caller.has_way_back() && random.below(3) == 0;
        let direction = if is_reply { Direction::Outbound } else { Direction::Inbound };
        let flags = match caller.protocol {
            protocol::TCP => [SYN, SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN, RST, 0]
                [usize::try_from(random.below(10)).unwrap()],
            _ => 0,
        };
        let now = tick(time);
        let view = View::of(caller.method, direction);
        let first = next(State::None, caller.protocol, flags, view, secure);
        match held(&mut conns, &caller, direction) {
            Some(known) => {
                let known = *known;
                assert_eq!(known.state, model[&number].state);
                let no_output = !caller.has_way_back();
                if !is_reply
                    && is_opening(caller.protocol, flags)
                    && is_reused(3, known.state, no_output)
                {
                    let key = caller.key(direction);
                    let table = conns.table();
                    let index = table.find(&key, table.hash(&key)).unwrap().index;
                    let mut gone = 0;
                    conns.open_over(index, &caller, first, now, |old| gone = old.dest.0).unwrap();
                    assert_eq!(gone, number);
                    model.insert(number, Model { state: State::None, deadline: 0, packets: 0 });
                    *counts.entry("reused").or_default() += 1;
                }
            }
            None if !is_reply && may_open(caller.protocol, flags, false) => {
                assert!(!model.contains_key(&number), "seed {seed}");
                if conns.open(&caller, first, now) == Err(Full::Conns) {
                    assert_eq!(conns.len(), usize::try_from(CONNS_MAX).unwrap());
                    let mut gone = None;
                    let over = |old: &Conn<F>| gone = Some(old.dest.0);
                    let opened = conns.open_over_half_open(&caller, first, now, over);
                    assert_eq!(opened.is_ok(), gone.is_some());
                    let Some(gone) = gone else { continue };
                    assert!(model.remove(&gone).unwrap().is_half_open());
                    *counts.entry("evicted").or_default() += 1;
                }
                model.insert(number, Model { state: State::None, deadline: 0, packets: 0 });
            }
            None => {
                assert!(is_reply || !model.contains_key(&number), "seed {seed}");
                continue;
            }
        }
        let expected = model.get_mut(&number).unwrap();
        let mut known = held(&mut conns, &caller, direction).unwrap();
        let before = known.packet(flags, now);
        let state = next(expected.state, caller.protocol, flags, view, secure);
        assert_eq!(before, (expected.state != state).then_some(expected.state));
        expected.state = state;
        expected.packets += u32::from(!is_reply);
        expected.deadline = time + u64::from(timeouts.ticks(state));
        assert_eq!((known.state, known.packets), (state, expected.packets));
        assert_eq!(is_half_open(&known), expected.is_half_open());
        assert_eq!(conns.len(), model.len());
    }
    for what in ["ESTABLISHED", "SYN_RECV", "TIME_WAIT", "CLOSE", "UDP", "reused", "evicted"] {
        assert!(counts.contains_key(what), "seed {seed}: no {what} in {counts:?}");
    }
}

#[test]
fn connections_live_exactly_as_long_as_their_state_allows_after_the_last_packet_ipv4() {
    for seed in 0..4 {
        agrees_with_a_model::<V4>(seed, 77);
    }
}

#[test]
fn connections_live_exactly_as_long_as_their_state_allows_after_the_last_packet_ipv6() {
    for seed in 4..6 {
        agrees_with_a_model::<V6>(seed, 0);
    }
}

#[test]
fn a_wrap_of_the_tick_is_nothing_special() {
    agrees_with_a_model::<V4>(6, (1 << 32) - 200_000);
    agrees_with_a_model::<V6>(7, (1 << 32) - 50);
}

#[test]
fn every_state_ends_when_its_timeout_says_and_not_a_tick_before() {
    let mut timeouts = Timeouts::default();
    for (state, seconds) in State::ALL.into_iter().zip(1..) {
        timeouts.set(state, seconds);
    }
    timeouts.set(State::Udp, 2000);
    let capacity = Capacity::new(10, 2).unwrap();
    for state in State::ALL {
        let mut conns = Conns::<V4>::new(capacity, SEED, &timeouts, 0, false);
        let caller = Conn { state, ..direct(1) };
        conns.open(&caller, state, 100).unwrap();
        let end = 100 + timeouts.ticks(state);
        for now in 100..end {
            // Longer than the wheel is: looked at in between, and not ended.
            conns.expire::<1>(now, |_| panic!("{state:?} at {now}"));
            let key = caller.key(Direction::Inbound);
            let table = conns.table();
            let found = table.find(&key, table.hash(&key)).unwrap();
            assert_eq!(conns.left(table.conn(found.index).unwrap(), now), end - now);
        }
        assert_eq!(conns.expire::<1>(end, |gone| assert_eq!(gone.state, state)), 1);
        assert!(conns.is_empty());
    }
}

#[test]
fn a_shorter_timeout_holds_for_connections_that_are_there() {
    let mut conns = conns::<V4>(1000, 0);
    for number in 0..1000 {
        open(&mut conns, &direct(number), SYN, 0).unwrap();
        held(&mut conns, &direct(number), Direction::Inbound).unwrap().packet(ACK, 8);
    }
    // Armed for SYN_RECV at first, for ESTABLISHED from then on.
    for now in 0..ticks(61) {
        conns.expire::<1000>(now, |_| panic!("{now}"));
    }
    let mut timeouts = Timeouts::default();
    timeouts.set(State::Established, 100);
    conns.set_timeouts(&timeouts);
    let mut gone = 0;
    for now in ticks(61)..8 + ticks(100) {
        conns.expire::<64>(now, |_| panic!("{now}"));
    }
    while conns.expire::<64>(8 + ticks(100), |_| gone += 1) != 0 {}
    assert_eq!(gone, 1000);
}

#[test]
fn a_million_timers_that_ring_at_once_are_never_more_work_per_call_than_asked() {
    let mut conns = conns::<V4>(1_000_000, 0);
    for number in 0..1_000_000 {
        open(&mut conns, &direct(number), SYN, 0).unwrap();
    }
    let (mut gone, mut calls) = (0, 0);
    while !conns.is_empty() {
        let before = gone;
        let looked = conns.expire::<64>(ticks(60), |_| gone += 1);
        assert!(looked <= 64 && gone - before <= looked);
        calls += 1;
    }
    assert_eq!(gone, 1_000_000);
    assert!(calls <= 1_000_000 / 64 + 2, "{calls} calls");
}

#[test]
fn after_hours_without_a_breath_everything_ends_in_bounded_calls() {
    let mut conns = conns::<V6>(10_000, 0);
    for number in 0..10_000 {
        let now = number / 4;
        open(&mut conns, &conn(number, ForwardMethod::Masquerade), SYN, now).unwrap();
    }
    let now = ticks(5 * 3600);
    let calls = (0..).take_while(|_| {
        conns.expire::<64>(now, |_| {});
        !conns.is_empty()
    });
    let calls = calls.take(1000).count();
    assert!(calls <= 10_000 / 64 + 8192 / 512 + 2, "{calls} calls");
}

#[test]
fn established_connections_win_over_half_open_ones_and_are_never_evicted() {
    let mut conns = conns::<V4>(10_000, 0);
    let mut numbers = 0..;
    for _ in 0..6000 {
        let caller = direct(numbers.next().unwrap());
        open(&mut conns, &caller, SYN, 0).unwrap();
        held(&mut conns, &caller, Direction::Inbound).unwrap().packet(ACK, 0);
    }
    // A flood fills the table and goes on; a client that answers within the time in which the ring
    // turns round gets through.
    let mut refused = 0;
    let mut honest: Vec<Conn<V4>> = Vec::new();
    for step in 0..300_000 {
        let now = step / 10_000;
        let caller = direct(numbers.next().unwrap());
        let mut gone = None;
        let opened = open(&mut conns, &caller, SYN, now).or_else(|full| {
            assert_eq!(full, Full::Conns);
            let over = |old: &Conn<V4>| gone = Some(*old);
            let index = conns.open_over_half_open(&caller, State::SynRecv, now, over)?;
            held(&mut conns, &caller, Direction::Inbound).unwrap().packet(SYN, now);
            Ok::<u32, Full>(index)
        });
        refused += u32::from(opened.is_err());
        assert!(gone.is_none_or(|gone| gone.state == State::SynRecv));
        if step % 1000 == 0 {
            honest.push(caller);
        }
        if step % 1000 == 500 {
            let caller = honest.last().unwrap();
            let mut known = held(&mut conns, caller, Direction::Inbound).unwrap();
            assert_eq!(known.packet(ACK, now), Some(State::SynRecv));
        }
        conns.expire::<64>(now, |_| panic!("nothing is due"));
    }
    assert_eq!(refused, 0);
    for caller in (0..6000).map(direct).chain(honest) {
        let known = held(&mut conns, &caller, Direction::Inbound).unwrap();
        assert_eq!(known.state, State::Established);
    }
}

/// The ring knows an eighth of them; the flood has overwritten the others in it.
#[test]
fn every_half_open_connection_makes_room_however_many_were_opened_after_it() {
    let size = 16_384;
    let mut conns = conns::<V4>(size, 0);
    for number in 0..size {
        open(&mut conns, &direct(number), SYN, 0).unwrap();
    }
    let mut shake_hands = |number| {
        let caller = direct(number);
        assert_eq!(open(&mut conns, &caller, SYN, 1), Err(Full::Conns));
        let over = |old: &Conn<V4>| assert_eq!(old.state, State::SynRecv);
        conns.open_over_half_open(&caller, State::SynRecv, 1, over)?;
        held(&mut conns, &caller, Direction::Inbound).unwrap().packet(SYN, 1);
        held(&mut conns, &caller, Direction::Inbound).unwrap().packet(ACK, 1);
        Ok(())
    };
    for number in size..2 * size {
        assert_eq!(shake_hands(number), Ok(()), "{number}");
    }
    assert_eq!(shake_hands(2 * size), Err(Full::Conns), "all are established now");
    for number in size..2 * size {
        let known = held(&mut conns, &direct(number), Direction::Inbound).unwrap();
        assert_eq!(known.state, State::Established);
    }
}

#[test]
fn a_table_of_established_connections_refuses_and_keeps_them() {
    let mut conns = conns::<V4>(2000, 0);
    for number in 0..2000 {
        open(&mut conns, &direct(number), SYN, 0).unwrap();
        held(&mut conns, &direct(number), Direction::Inbound).unwrap().packet(ACK, 0);
    }
    for number in 2000..2100 {
        let caller = direct(number);
        assert_eq!(open(&mut conns, &caller, SYN, 1), Err(Full::Conns));
        let over = conns.open_over_half_open(&caller, State::SynRecv, 1, |_| panic!("evicted"));
        assert_eq!(over, Err(Full::Conns));
    }
    assert_eq!(conns.len(), 2000);
}

#[test]
fn udp_that_was_answered_by_a_second_datagram_is_not_evicted() {
    let udp = |number| Conn { protocol: protocol::UDP, ..direct(number) };
    let mut conns = conns::<V4>(2, 0);
    for number in 0..2 {
        open(&mut conns, &udp(number), 0, 0).unwrap();
    }
    held(&mut conns, &udp(0), Direction::Inbound).unwrap().packet(0, 1);
    let mut gone = None;
    let over = |old: &Conn<V4>| gone = Some(old.dest);
    conns.open_over_half_open(&udp(2), State::Udp, 1, over).unwrap();
    assert_eq!(gone, Some(DestId(1)));
}

#[test]
fn a_client_that_opens_and_closes_as_fast_as_it_can_fills_nothing() {
    let mut conns = conns::<V4>(1000, 0);
    let caller = direct(1);
    let mut index = open(&mut conns, &caller, SYN, 0).unwrap();
    for step in 0..2_000_000 {
        let now = step / 50_000;
        // A segment without flags closes; the next SYN takes the place of what it closed.
        held(&mut conns, &caller, Direction::Inbound).unwrap().packet(0, now);
        if step % 2 == 0 {
            conns.open_over(index, &caller, State::SynRecv, now, |_| {}).unwrap();
        } else {
            // And here without inheriting the timer: each turn leaves two stale entries.
            conns.remove(index).unwrap();
            index = conns.open(&caller, State::SynRecv, now).unwrap();
        }
        held(&mut conns, &caller, Direction::Inbound).unwrap().packet(SYN, now);
        if step % 32 == 31 {
            conns.expire::<64>(now, |_| panic!("it is in use"));
        }
        if step % 10_000 == 0 {
            let other = direct(1000 + step);
            let other = open(&mut conns, &other, SYN, now).unwrap();
            conns.remove(other).unwrap();
        }
    }
    let end = 2_000_000 / 50_000 + ticks(60);
    for now in 0..=end {
        while conns.expire::<64>(now, |_| {}) == 64 {}
    }
    assert!(conns.is_empty());
}

#[test]
fn established_connections_that_close_and_open_again_all_day_do_not_fill_the_wheel() {
    let mut conns = conns::<V4>(5000, 0);
    let mut now = 0;
    for number in 0..5000 {
        open(&mut conns, &direct(number), SYN, now).unwrap();
    }
    // Long enough established to be armed for 900 s, then closed: the far entry is left behind.
    for _ in 0..300 {
        for number in 0..5000 {
            let caller = direct(number);
            if held(&mut conns, &caller, Direction::Inbound).is_none() {
                open(&mut conns, &caller, SYN, now).unwrap();
            }
            held(&mut conns, &caller, Direction::Inbound).unwrap().packet(ACK, now);
            if number % 64 == 0 {
                conns.expire::<64>(now, |_| {});
            }
        }
        for _ in 0..ticks(61) {
            now += 1;
            while conns.expire::<64>(now, |_| {}) == 64 {}
        }
        for number in 0..5000 {
            held(&mut conns, &direct(number), Direction::Inbound).unwrap().packet(RST, now);
            if number % 64 == 0 {
                conns.expire::<64>(now, |_| {});
            }
        }
        for _ in 0..ticks(10) {
            now += 1;
            while conns.expire::<64>(now, |_| {}) == 64 {}
        }
        assert!(conns.is_empty());
    }
}

#[test]
fn replies_are_found_and_connections_end_as_soon_as_they_were_opened() {
    // More than are ever left to be settled, and each of them at every place among those.
    for count in 1..20_u32 {
        let all: Vec<Conn<V4>> =
            (0..count).map(|number| conn(number, ForwardMethod::Masquerade)).collect();
        let mut conns = conns::<V4>(64, 0);
        let opened = |conns: &mut Conns<V4>| -> Vec<u32> {
            all.iter().map(|conn| conns.open(conn, State::SynRecv, 0).unwrap()).collect()
        };
        let indices = opened(&mut conns);
        for conn in all.iter().rev() {
            assert!(held(&mut conns, conn, Direction::Outbound).is_some(), "{count}");
        }
        for index in indices {
            assert!(conns.remove(index).is_some());
        }
        let indices = opened(&mut conns);
        assert!(conns.remove(indices[0]).is_some());
        conns.settle();
        for (number, conn) in all.iter().enumerate() {
            for direction in [Direction::Inbound, Direction::Outbound] {
                assert_eq!(held(&mut conns, conn, direction).is_some(), number > 0);
            }
        }
        conns.expire::<64>(ticks(1000), |_| {});
        assert!(conns.is_empty());
    }
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let mut conns = conns::<V4>(10, 0);
    assert!(conns.remove(0).is_none() && conns.remove(3).is_none() && conns.remove(999).is_none());
    let over = conns.open_over(3, &direct(1), State::SynRecv, 0, |_| panic!("nobody is there"));
    assert_eq!(over, Err(Full::Conns));
    assert!(held(&mut conns, &direct(1), Direction::Inbound).is_none());
    assert!(conns.conn_mut(999).is_none());
}

#[test]
fn all_in_a_masqueraded_ipv4_connection_takes_105_octets_and_a_direct_one_92() {
    for (keys, octets) in [(1, 92), (2, 105)] {
        let capacity = Capacity::new(4_000_000, keys).unwrap();
        let conns = Conns::<V4>::new(capacity, SEED, &Timeouts::default(), 0, false);
        let per_conn = conns.bytes().div_ceil(4_000_000);
        assert!(per_conn <= octets, "{per_conn} octets");
    }
}
