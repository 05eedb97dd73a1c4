//! Who goes first when more arrives than a worker can carry: the packets of connections that stand.
//! What opens another one costs several times as much, and its client tries again.
//!
//! ```text
//!  a link gave all it was asked for, so often in a row ──► fewer openings a breath, down to a few
//!  it gave less: nothing waits any more                ──► one more a breath, up to as many as come
//! ```
//!
//! A worker does not see how full a card's ring is, but it sees whether it empties it. While packets
//! of known connections come, openings get what time those leave; alone they get all of it.
//!
//! Of SYNs to an end whose openings had to wait, no more are even looked up than may open something:
//! [`Quota::sheds_of`] costs a tenth of an opening, and at that price a worker can receive a flood that it
//! could not look up.
//!
//! DIFFERS from Linux, where a flood of new connections takes a core's time from all packets alike:
//! the ring overflows and the card loses of both.

use arrayvec::ArrayVec;
use core::net::IpAddr;
use rvs_wire::flow::{Ends as _, Family, protocol};
use rvs_wire::packet::Packet;
use rvs_wire::tcp;

/// Breaths in a row that found as much as they could take before openings have to wait: with bursts of
/// 64 that is a ring of 1024.
const PATIENCE: u32 = 16;
/// Openings that every breath has time for: hundreds of thousands a second.
const LEAST: u32 = 1;
/// Breaths without a packet of a known connection after which there is nobody to protect.
const FORGOTTEN: u32 = 64;
/// Ends that SYNs are shed of; those to others are looked up.
const CROWDED: usize = 8;

/// Address and TCP port of a service.
type End = (IpAddr, u16);

/// How many connections one worker opens in a breath.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    /// How many it may; no limit at first.
    allowed: u32,
    /// How many it has in this breath.
    opened: u32,
    /// Breaths in a row that found as much as they could take.
    full: u32,
    /// Breaths since a known connection had a packet.
    quiet: u32,
    /// Where openings had to wait since a link gave less than all it was asked for.
    crowded: ArrayVec<End, CROWDED>,
    /// How many SYNs to those are still looked up in this breath.
    looks: u32,
}

impl Default for Quota {
    fn default() -> Self {
        let crowded = ArrayVec::new();
        Self { allowed: u32::MAX, opened: 0, full: 0, quiet: FORGOTTEN, crowded, looks: 0 }
    }
}

impl Quota {
    /// Begins a breath, `is_full` if a link gave all that it was asked for.
    #[inline]
    pub(crate) fn begin(&mut self, is_full: bool) {
        if !is_full {
            self.allowed = self.allowed.saturating_add(1);
            self.full = 0;
        } else if self.full < PATIENCE {
            self.full += 1;
        } else {
            self.allowed = (self.opened.min(self.allowed) / 4 * 3).max(LEAST);
        }
        self.opened = 0;
        self.looks = self.allowed;
        self.quiet = self.quiet.saturating_add(1);
        if !is_full || self.quiet > FORGOTTEN {
            self.crowded.clear();
        }
    }

    /// What services there are has changed: who asks for none any more is not to be shed.
    pub(crate) fn forget_ends(&mut self) {
        self.crowded.clear();
    }

    /// Whether SYNs are shed in this breath: otherwise [`Quota::sheds_of`] none, and need not be asked.
    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }

    /// Whether a packet is a SYN that there is not even time to look up.
    pub(crate) fn sheds<F: Family>(&mut self, packet: &Packet<F>) -> bool {
        let (key, (address, port)) = (&packet.key, packet.key.ends.destination());
        let is_first = key.protocol == protocol::TCP && tcp::is_lone_syn(packet.flags);
        is_first && self.sheds_of((address.into(), port))
    }

    /// The same of SYNs to this end.
    #[inline]
    pub(crate) fn sheds_of(&mut self, end: End) -> bool {
        if !self.crowded.contains(&end) {
            return false;
        }
        let sheds = self.looks == 0;
        self.looks = self.looks.saturating_sub(1);
        sheds
    }

    /// So many packets of this breath are of known connections.
    #[inline]
    pub(crate) fn known(&mut self, packets: usize) {
        if packets > 0 {
            self.quiet = 0;
        }
    }

    /// Whether there is time for one more opening, which `asks` says who asks for: a protocol, and its end.
    #[inline]
    pub(crate) fn takes(&mut self, asks: impl FnOnce() -> (u8, End)) -> bool {
        if self.opened >= self.allowed && self.quiet < FORGOTTEN {
            self.crowd(asks());
            return false;
        }
        self.opened += 1;
        true
    }

    #[cold]
    fn crowd(&mut self, (protocol, end): (u8, End)) {
        // TCP to the port of another protocol's service may be the director's own.
        if protocol == protocol::TCP && !self.crowded.contains(&end) {
            let _others_are_looked_up = self.crowded.try_push(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use rvs_wire::flow::{Key, V4};
    use rvs_wire::tcp::flag;

    const VIP: End = (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 80)), 80);

    /// How many of `come` openings a breath takes that has packets of `known` connections.
    fn breathe(quota: &mut Quota, is_full: bool, known: usize, come: u32) -> u32 {
        quota.begin(is_full);
        quota.known(known);
        (0..come).map(|_| u32::from(quota.takes(|| (protocol::TCP, VIP)))).sum()
    }

    #[test]
    fn openings_give_way_to_known_connections_once_a_worker_does_not_keep_up() {
        let mut quota = Quota::default();
        for _ in 0..PATIENCE {
            assert_eq!(breathe(&mut quota, true, 32, 32), 32, "a burst of traffic is no flood");
        }
        let taken: Vec<u32> = (0..12).map(|_| breathe(&mut quota, true, 32, 32)).collect();
        assert!(taken.windows(2).all(|pair| pair[1] <= pair[0]), "{taken:?}");
        assert_eq!(taken.last(), Some(&LEAST));
        let taken: Vec<u32> = (0..40).map(|_| breathe(&mut quota, false, 32, 32)).collect();
        assert_eq!((taken[0], taken[39]), (LEAST + 1, 32), "time is left again");
    }

    #[test]
    fn a_flood_alone_has_all_the_time_there_is() {
        let mut quota = Quota::default();
        for _ in 0..10_000 {
            assert_eq!(breathe(&mut quota, true, 0, 64), 64);
        }
        assert!(breathe(&mut quota, true, 1, 64) < 64, "until somebody else comes");
    }

    /// A packet with `flags` to some end.
    fn packet((address, port): End, protocol: u8, flags: u8) -> Packet<V4> {
        let IpAddr::V4(address) = address else { panic!("{address}") };
        let ends = <V4 as Family>::Ends::new((Ipv4Addr::new(192, 0, 2, 7), 4000), (address, port));
        Packet { key: Key { ends, protocol }, flags, ..Packet::default() }
    }

    #[test]
    fn of_the_syns_to_an_end_whose_openings_wait_no_more_are_looked_up_than_may_open_something() {
        let mut quota = Quota::default();
        for _ in 0..100 {
            breathe(&mut quota, true, 32, 32);
        }
        quota.begin(true);
        assert!(quota.is_crowded());
        let syn = packet(VIP, protocol::TCP, flag::SYN);
        let spared = [
            packet((VIP.0, 22), protocol::TCP, flag::SYN),
            packet(VIP, protocol::UDP, 0),
            packet(VIP, protocol::TCP, flag::ACK),
            packet(VIP, protocol::TCP, flag::SYN | flag::ACK),
            packet(VIP, protocol::TCP, flag::RST),
        ];
        for number in 0..10 {
            assert_eq!(quota.sheds(&syn), number >= LEAST, "{number}");
            assert!(!spared.iter().any(|other| quota.sheds(other)));
        }
        quota.begin(false);
        assert!(!quota.is_crowded(), "time is left again");
    }

    #[test]
    fn a_flood_of_another_protocol_makes_no_syns_shed() {
        let mut quota = Quota::default();
        for _ in 0..100 {
            quota.begin(true);
            quota.known(1);
            (0..32).for_each(|_| {
                quota.takes(|| (protocol::UDP, VIP));
            });
        }
        quota.begin(true);
        assert!(!quota.is_crowded());
        let syn = packet(VIP, protocol::TCP, flag::SYN);
        assert!((0..32).all(|_| !quota.sheds(&syn)));
    }

    #[test]
    fn nothing_is_shed_while_no_known_connection_has_packets() {
        let mut quota = Quota::default();
        for _ in 0..100 {
            breathe(&mut quota, true, 32, 32);
        }
        for _ in 0..=FORGOTTEN {
            breathe(&mut quota, true, 0, 64);
        }
        assert!(!quota.is_crowded());
    }

    #[test]
    fn so_many_ends_are_shed_of_and_others_looked_up() {
        let mut quota = Quota::default();
        for _ in 0..100 {
            breathe(&mut quota, true, 32, 32);
        }
        let ends = || (1..).map(|port| (VIP.0, port)).take(2 * CROWDED);
        quota.begin(true);
        quota.known(1);
        ends().for_each(|end| {
            quota.takes(|| (protocol::TCP, end));
        });
        quota.begin(true);
        (0..LEAST).for_each(|_| assert!(!quota.sheds(&packet(VIP, protocol::TCP, flag::SYN))));
        let shed = ends().filter(|end| quota.sheds(&packet(*end, protocol::TCP, flag::SYN)));
        assert_eq!(shed.count(), CROWDED - 1, "the VIP's port 80 is one of them");
    }
}
