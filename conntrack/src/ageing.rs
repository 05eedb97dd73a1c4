//! `drop_entry`: connections that look abandoned end at random, so that a flood of them does not
//! keep the table full until their timers ring.
//!
//! Linux 6.1 `ip_vs_conn.c` `ip_vs_random_dropentry()`: looks at random places of the table, ends
//! what never became a connection, and of those that are idle and had few packets one in as many. A
//! template goes if it has no connection and never had one established, and with the last connection
//! that had to go. Who looks how often is the plane's business; each look is one line.
//!
//! DIFFERS from Linux in templates of one-packet services, which count no packets and so are never
//! ended there: a flood of spoofed datagrams leaves nothing but them, so here they go like others.

use crate::conn::Conn;
use crate::conns::Conns;
use arrayvec::ArrayVec;
use rvs_model::{State, Tick, ticks};
use rvs_wire::flow::Family;

/// Seconds without a packet before an established connection may be ended.
const IDLE_SECONDS: u32 = 60;
/// One that had more packets than this is somebody's.
const PACKETS_MAX: usize = 8;

/// Where one worker's ageing stands.
#[derive(Clone, Copy, Debug)]
pub struct Ageing {
    random: u64,
    /// By packets: how many more are spared before one is ended (`todrop_counter`).
    spared: [u8; PACKETS_MAX + 1],
}

impl Ageing {
    /// `seed` is any number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: seed | 1, spared: [0; PACKETS_MAX + 1] }
    }

    /// Looks at `N` random lines, or at `most` if that is less, ends what is abandoned there and
    /// shows it to `gone`.
    pub fn step<F: Family, const N: usize>(
        &mut self,
        conns: &mut Conns<F>,
        most: u32,
        now: Tick,
        mut gone: impl FnMut(&Conn<F>),
    ) {
        let lines = conns.table().capacity();
        let mut looks = ArrayVec::<u32, N>::new();
        for _ in 0..most {
            let index = self.draw(lines);
            if looks.try_push(index).is_err() {
                break;
            }
            conns.table().touch_conn(index);
        }
        for index in looks {
            let is_over = conns.table().conn(index).is_some_and(|conn| self.abandons(conn, now));
            if is_over {
                conns.end(index, &mut gone);
            }
        }
    }

    /// Any of the lines, which are numbered from 1. Xorshift: whose turn it is need not be secret.
    fn draw(&mut self, lines: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let scaled = (u128::from(self.random) * u128::from(lines)) >> u64::BITS;
        u32::try_from(scaled).unwrap_or_default() + 1
    }

    /// Whether `conn` goes.
    fn abandons<F: Family>(&mut self, conn: &Conn<F>, now: Tick) -> bool {
        match conn.state {
            _ if !conn.is_live() => false,
            state if conn.is_template() => state == State::None && conn.control == 0,
            State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit => true,
            State::Established | State::SctpEstablished | State::Udp => self.is_idle(conn, now),
            _ => false,
        }
    }

    /// Linux 6.1 `ip_vs_conn.c` `todrop_entry()`.
    fn is_idle<F: Family>(&mut self, conn: &Conn<F>, now: Tick) -> bool {
        if now.wrapping_sub(conn.seen) < ticks(IDLE_SECONDS) {
            return false;
        }
        let Ok(packets) = u8::try_from(conn.packets) else { return false };
        let Some(spared) = self.spared.get_mut(usize::from(packets)).filter(|_| packets > 0) else {
            return false;
        };
        if *spared > 1 {
            *spared -= 1;
            return false;
        }
        *spared = packets;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_wire::flow::V4;

    fn conn(state: State, packets: u32) -> Conn<V4> {
        Conn { protocol: 6, state, packets, seen: 0, ..Conn::default() }
    }

    #[test]
    fn what_never_became_a_connection_goes_and_what_is_in_use_stays() {
        let mut ageing = Ageing::new(1);
        for state in State::ALL {
            let goes = matches!(
                state,
                State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit
            );
            assert_eq!(ageing.abandons(&conn(state, 1), ticks(59)), goes, "{state:?}");
        }
        assert!(!ageing.abandons(&Conn::<V4>::default(), ticks(99)), "a free line");
    }

    #[test]
    fn a_template_goes_unless_it_has_connections_or_had_one_established() {
        let mut ageing = Ageing::new(1);
        for (state, control, goes) in [
            (State::None, 0, true),
            (State::None, 1, false),
            (State::Established, 0, false),
            (State::Established, 1, false),
        ] {
            // Of a time-out that would be few packets.
            let protocol = crate::template::number(6).unwrap();
            let template = Conn { protocol, control, ..conn(state, 1) };
            assert_eq!(ageing.abandons(&template, ticks(60)), goes, "{state:?} {control}");
        }
    }

    #[test]
    fn of_those_that_are_idle_one_in_as_many_as_they_had_packets_goes() {
        let mut ageing = Ageing::new(1);
        for state in [State::Established, State::SctpEstablished, State::Udp] {
            for packets in 1..=8 {
                let goes = |_: &u32| ageing.abandons(&conn(state, packets), ticks(60));
                let gone = (0..packets * 10).filter(goes).count();
                assert_eq!(gone, 10, "{state:?} after {packets} packets");
            }
            assert!(!(0..100).any(|_| ageing.abandons(&conn(state, 9), ticks(60))));
            assert!(!(0..100).any(|_| ageing.abandons(&conn(state, 0), ticks(60))));
        }
        assert!(!ageing.abandons(&conn(State::TimeWait, 1), ticks(60)));
    }

    #[test]
    fn every_line_is_drawn_about_as_often_as_any_other() {
        let mut ageing = Ageing::new(7);
        let mut drawn = [0; 101];
        (0..100_000).for_each(|_| drawn[usize::try_from(ageing.draw(100)).unwrap()] += 1);
        assert_eq!(drawn[0], 0, "lines begin with 1");
        assert!(drawn[1..].iter().all(|count| (800..1200).contains(count)), "{drawn:?}");
    }
}
