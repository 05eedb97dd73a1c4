//! Which client a flow is, and in which order flows come.

use core::net::Ipv4Addr;

/// The first client. Its network is large enough for every [`Flow`].
pub const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// The number of a client's connection: clients have sixteen each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow(pub u32);

impl Flow {
    /// The client's address in IPv4, the last four octets of it in IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn client(self) -> u32 {
        CLIENTS.to_bits() + (self.0 >> 4 & 0x00ff_ffff)
    }

    /// The client's port.
    #[inline(always)]
    #[must_use]
    pub fn port(self) -> u16 {
        let [.., low] = self.0.to_be_bytes();
        0x8000 | u16::from(low & 15) << 8 | 0x11
    }

    /// Which of so many services it uses.
    #[inline(always)]
    #[must_use]
    pub fn service(self, services: u32) -> u16 {
        if services == 1 {
            return 0;
        }
        let scaled = u64::from(self.0.wrapping_mul(0x9e37_79b1)) * u64::from(services);
        u16::try_from(scaled >> 32).unwrap_or_default()
    }
}

/// An order of `0..2^bits` in which neighbours are far apart: the order in which flows come is not
/// the one in which their connections were opened, or each line fetched would bring the next one.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    mask: u32,
    half: u32,
}

impl Shuffle {
    /// Of `len` numbers, rounded up to a power of two.
    #[must_use]
    pub const fn new(len: u32) -> Self {
        let len = len.next_power_of_two();
        Self { mask: len - 1, half: len.trailing_zeros().div_ceil(2) }
    }

    /// The number in `place`, taken modulo the length. Each step has an inverse, so that every
    /// number comes once.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, place: u32) -> u32 {
        let mut number = place.wrapping_mul(0x9e37_79b1) & self.mask;
        number ^= number >> self.half;
        number = number.wrapping_mul(0x85eb_ca6b) & self.mask;
        number ^ number >> self.half
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_flow_comes_once_and_neighbours_are_strangers() {
        for len in [1, 2, 1024, 1 << 16] {
            let order = Shuffle::new(len);
            let seen: Vec<u32> = (0..len).map(|place| order.at(place)).collect();
            let mut sorted = seen.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..len));
            let close = seen.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 4).count();
            assert!(len < 16 || close < seen.len() / 10, "{close} of {len}");
        }
    }

    #[test]
    fn no_two_flows_have_the_same_client_and_port() {
        let all: HashSet<_> = (0..1 << 16).map(Flow).map(|it| (it.client(), it.port())).collect();
        assert_eq!(all.len(), 1 << 16);
    }
}
