//! How long a packet the ways to destinations take, as routers on them told.
//!
//! Linux 6.1 `net/ipv4/route.c` `__ip_rt_update_pmtu()`, `net/ipv6/route.c` `__ip6_rt_update_pmtu()`:
//! kept by address for ten minutes, never more than was known, never less than a floor. Bounded: of
//! more addresses than there is room for nothing is kept, and each packet that is too long for the
//! way to one is lost with an error to its sender, as on any path.

use core::net::IpAddr;
use rvs_model::{Tick, ticks};

/// Addresses that something is known about.
const MOST: usize = 1024;
/// Seconds that it is believed (Linux `ip_rt_mtu_expires`, `ip6_rt_mtu_expires`; RFC 8201 section 4
/// and RFC 1191 section 6.3 recommend ten minutes).
const EXPIRES_S: u32 = 600;
/// What no router is believed to be below (Linux `ip_rt_min_pmtu`): whoever can forge an error could
/// have every packet cut to pieces otherwise.
const FLOOR_V4: u16 = 552;
/// RFC 8200 section 5.
const FLOOR_V6: u16 = 1280;

#[derive(Clone, Copy, Debug)]
struct Told {
    address: IpAddr,
    mtu: u16,
    since: Tick,
}

/// What is known, by address.
#[derive(Debug)]
pub(crate) struct PathMtus {
    all: Vec<Told>,
    /// Looked at next for its end.
    hand: usize,
}

impl PathMtus {
    pub(crate) fn new() -> Self {
        Self { all: Vec::with_capacity(MOST), hand: 0 }
    }

    /// What is known of `address`; `u16::MAX` if nothing is.
    pub(crate) fn of(&self, address: IpAddr) -> u16 {
        self.all.iter().find(|told| told.address == address).map_or(u16::MAX, |told| told.mtu)
    }

    /// Takes in that packets to `address` may have `mtu` octets, and says what holds from now on if
    /// that is news. `before` held until now.
    pub(crate) fn learn(
        &mut self,
        address: IpAddr,
        mtu: u16,
        before: u16,
        now: Tick,
    ) -> Option<u16> {
        if mtu > before {
            return None;
        }
        let floor = if address.is_ipv6() { FLOOR_V6 } else { FLOOR_V4 };
        let told = Told { address, mtu: mtu.max(floor.min(before)), since: now };
        let has_room = self.all.len() < MOST;
        match self.all.iter_mut().find(|told| told.address == address) {
            Some(known) => {
                let is_news = known.mtu != told.mtu;
                *known = told;
                is_news.then_some(told.mtu)
            }
            None if has_room => {
                self.all.push(told);
                Some(told.mtu)
            }
            None => None,
        }
    }

    /// Looks at one of them, and says whose time is over.
    #[inline]
    pub(crate) fn expire(&mut self, now: Tick) -> Option<IpAddr> {
        if self.all.is_empty() {
            return None;
        }
        self.expire_next(now)
    }

    #[cold]
    fn expire_next(&mut self, now: Tick) -> Option<IpAddr> {
        self.hand = (self.hand + 1) % self.all.len();
        let told = self.all.get(self.hand)?;
        if now.wrapping_sub(told.since) < ticks(EXPIRES_S) {
            return None;
        }
        Some(self.all.swap_remove(self.hand).address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn only_less_is_believed_and_never_below_the_floor() {
        let mut mtus = PathMtus::new();
        assert_eq!(mtus.learn(ip(1), 1400, 1300, 0), None, "more than is known");
        assert_eq!(mtus.learn(ip(1), 1200, 1500, 0), Some(1200));
        assert_eq!(mtus.learn(ip(1), 1200, 1200, 0), None, "no news");
        assert_eq!(mtus.learn(ip(1), 0, 1200, 0), Some(FLOOR_V4));
        assert_eq!(mtus.of(ip(1)), FLOOR_V4);
        assert_eq!(mtus.learn(ip(2), 68, 296, 0), Some(296), "a link below the floor stays so");
        let six = "2001:db8::1".parse().unwrap();
        assert_eq!(mtus.learn(six, 1000, 1500, 0), Some(FLOOR_V6));
        assert_eq!(mtus.of(ip(3)), u16::MAX);
    }

    #[test]
    fn it_is_forgotten_ten_minutes_after_it_was_last_told() {
        let mut mtus = PathMtus::new();
        mtus.learn(ip(1), 1200, 1500, 0);
        mtus.learn(ip(2), 1300, 1500, 0);
        mtus.learn(ip(2), 1300, 1300, 100);
        assert_eq!((0..4).find_map(|_| mtus.expire(ticks(600) - 1)), None);
        assert_eq!((0..4).find_map(|_| mtus.expire(ticks(600))), Some(ip(1)));
        assert_eq!((0..4).find_map(|_| mtus.expire(ticks(600) + 99)), None);
        assert_eq!((0..4).find_map(|_| mtus.expire(ticks(600) + 100)), Some(ip(2)));
        assert_eq!(mtus.of(ip(2)), u16::MAX);
    }

    #[test]
    fn room_is_bounded() {
        let mut mtus = PathMtus::new();
        let address = |number| core::net::Ipv4Addr::from_bits(number).into();
        let most = u32::try_from(MOST).unwrap();
        assert!((0..most).all(|number| mtus.learn(address(number), 1400, 1500, 0) == Some(1400)));
        assert_eq!(mtus.learn(address(most), 1400, 1500, 0), None);
        assert_eq!(mtus.learn(address(3), 1300, 1400, 0), Some(1300), "who is known stays so");
    }
}
