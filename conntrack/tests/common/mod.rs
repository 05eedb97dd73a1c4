//! What the tests of this folder share.
#![allow(dead_code, reason = "each of them uses a part")]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_conntrack::{Conn, Seed};
use rvs_model::{DestId, ForwardMethod};
use rvs_wire::flow::{Ends, Family, protocol};

pub const SEED: Seed = Seed([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);

pub const METHODS: [ForwardMethod; 3] =
    [ForwardMethod::Masquerade, ForwardMethod::Direct, ForwardMethod::Tunnel];

/// Steele and Vigna's `SplitMix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, range: u32) -> u32 {
        u32::try_from(self.next() % u64::from(range)).unwrap()
    }
}

/// The address `number` places after `v4`, in either family.
pub fn address<F: Family>(v4: [u8; 4], number: u32) -> F::Addr {
    let v4 = Ipv4Addr::from(u32::from_be_bytes(v4).wrapping_add(number));
    let v6 = Ipv6Addr::from((0x2001_0db8_u128 << 96) + u128::from(v4.to_bits()));
    F::address(if F::IS_V6 { IpAddr::V6(v6) } else { IpAddr::V4(v4) }).unwrap()
}

pub fn conn<F: Family>(number: u32, method: ForwardMethod) -> Conn<F> {
    let port = u16::try_from(number % 60_000).unwrap() + 1024;
    let client = (address::<F>([198, 18, 0, 7], number / 60_000), port);
    let vip = (address::<F>([203, 0, 113, 1], 0), 80);
    let dest = (address::<F>([192, 0, 2, 11], number % 7), 8080);
    Conn {
        inbound: F::Ends::new(client, vip),
        outbound: F::Ends::new(dest, client),
        protocol: protocol::TCP,
        method,
        dest: DestId(number),
        ..Conn::default()
    }
}
