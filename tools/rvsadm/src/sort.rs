//! The order in which ipvsadm lists.
//!
//! It compares addresses by subtracting them in 32 bits, so that two that are 2^31 or more apart
//! are the wrong way round, and three can go in a circle. What comes out then depends on how
//! qsort(3) goes about it, so this is glibc's way: a merge sort of halves, the first the shorter.

use core::cmp::Ordering;
use core::net::{IpAddr, SocketAddr};
use rvs_api::{AddressFamily, DestEntry, ServiceEntry, ServiceKey};

/// Services by mark, family, protocol, address and port.
pub(crate) fn services(entries: &[ServiceEntry]) -> Vec<&ServiceEntry> {
    merge(&entries.iter().collect::<Vec<_>>(), &|a, b| compare_services(&a.service, &b.service))
}

/// Destinations by address and port.
pub(crate) fn dests(entries: &[DestEntry]) -> Vec<&DestEntry> {
    merge(&entries.iter().collect::<Vec<_>>(), &|a, b| compare_sockets(a.dest, b.dest))
}

fn merge<'e, T>(entries: &[&'e T], compare: &impl Fn(&T, &T) -> Ordering) -> Vec<&'e T> {
    if entries.len() <= 1 {
        return entries.to_vec();
    }
    let (first, second) = entries.split_at(entries.len() / 2);
    let (first, second) = (merge(first, compare), merge(second, compare));
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    let mut merged = Vec::with_capacity(entries.len());
    while let (Some(a), Some(b)) = (first.peek(), second.peek()) {
        let next = if compare(a, b).is_le() { first.next() } else { second.next() };
        merged.extend(next);
    }
    merged.extend(first);
    merged.extend(second);
    merged
}

fn compare_services(a: &ServiceKey, b: &ServiceKey) -> Ordering {
    use ServiceKey::{Address, Mark};
    let mark = |key: &ServiceKey| match key {
        Address { .. } => 0,
        Mark { mark, .. } => mark.0.get(),
    };
    let v6 = |key: &ServiceKey| key.family() == AddressFamily::V6;
    let order = by_difference(mark(a), mark(b)).then(v6(a).cmp(&v6(b)));
    match (a, b) {
        (
            Address { protocol, address },
            Address { protocol: other_protocol, address: other_address },
        ) => order
            .then(protocol.number().cmp(&other_protocol.number()))
            .then_with(|| compare_sockets(*address, *other_address)),
        _ => order,
    }
}

/// Destinations of the other family are in the same list; of those only the first four octets are
/// looked at, unless it is the first of the two that is IPv6.
fn compare_sockets(a: SocketAddr, b: SocketAddr) -> Ordering {
    let words = if a.is_ipv6() { 4 } else { 1 };
    let (left, right) = (words_of(a.ip()), words_of(b.ip()));
    let address = left.iter().zip(&right).take(words).map(|(a, b)| by_difference(*a, *b));
    address.fold(Ordering::Equal, Ordering::then).then(a.port().cmp(&b.port()))
}

fn words_of(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => [96, 64, 32, 0].map(|place| {
            u32::try_from(address.to_bits() >> place & 0xffff_ffff).unwrap_or_default()
        }),
    }
}

/// The sign of the difference in 32 bits.
fn by_difference(a: u32, b: u32) -> Ordering {
    a.wrapping_sub(b).cast_signed().cmp(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_api::DestAttributes;
    use rvs_model::{ForwardMethod, Weight};

    fn sorted(addresses: &[&str]) -> Vec<String> {
        let entries: Vec<_> = addresses
            .iter()
            .map(|address| DestEntry {
                dest: address.parse().unwrap(),
                attributes: DestAttributes::new(ForwardMethod::Direct, Weight(1)),
                active: 0,
                inactive: 0,
                persistent: 0,
                totals: rvs_api::Totals::default(),
                rates: rvs_api::Rates::default(),
            })
            .collect();
        dests(&entries).iter().map(|entry| entry.dest.to_string()).collect()
    }

    #[test]
    fn near_addresses_ascend_and_ports_after_them() {
        assert_eq!(
            sorted(&["10.0.0.2:80", "10.0.0.1:81", "10.0.0.1:80"]),
            ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80"]
        );
        assert_eq!(sorted(&["[2001:db8::2]:1", "[2001:db8::1]:2"])[0], "[2001:db8::1]:2");
    }

    #[test]
    fn addresses_half_the_space_apart_are_the_wrong_way_round() {
        assert_eq!(sorted(&["10.0.0.1:80", "192.168.0.1:80"])[0], "192.168.0.1:80");
    }

    #[test]
    fn a_circle_ends() {
        let circle = ["10.0.0.1:80", "100.0.0.1:80", "200.0.0.1:80", "10.0.0.2:80"];
        assert_eq!(sorted(&circle).len(), 4);
    }
}
