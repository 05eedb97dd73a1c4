//! Which worker owns a packet: ADR 0002.

use crate::persist::Mask;
use core::net::IpAddr;
use rvs_wire::flow::{Ends, Family, Key};
use rvs_wire::toeplitz::{SYMMETRIC_KEY, Toeplitz};

static TOEPLITZ: Toeplitz = Toeplitz::new(&SYMMETRIC_KEY);

/// Entries of the indirection table, as network cards have them.
const INDIRECTION: usize = 128;

/// The rule, the same in every worker and in every device that can be taught it.
#[derive(Clone, Debug)]
pub struct Steering {
    indirection: [u16; INDIRECTION],
    workers: u16,
}

impl Steering {
    /// For `workers` workers, at least one.
    #[must_use]
    pub fn new(workers: u16) -> Self {
        let workers = workers.max(1);
        let mut indirection = [0; INDIRECTION];
        for (place, number) in indirection.iter_mut().zip(0u16..) {
            *place = number % workers;
        }
        Self { indirection, workers }
    }

    /// Whether there is anything to decide.
    #[inline]
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.workers == 1
    }

    /// The owner of connections of this client.
    #[inline]
    #[must_use]
    pub fn owner_of(&self, client: IpAddr, port: u16) -> u16 {
        // The key repeats after 16 bits, so that this is what a card computes over the client's
        // address and port wherever in its input they stand, if the other end is left out; and the
        // hash is linear, so that the words may be added before it.
        let sum = |octets: &[u8]| {
            let (words, _) = octets.as_chunks();
            words.iter().fold(port, |sum, word| sum ^ u16::from_be_bytes(*word))
        };
        let sum = match client {
            IpAddr::V4(client) => sum(&client.octets()),
            IpAddr::V6(client) => sum(&client.octets()),
        };
        let hash = TOEPLITZ.hash(&sum.to_be_bytes());
        let entry = usize::try_from(hash).unwrap_or_default() % INDIRECTION;
        self.indirection.get(entry).copied().unwrap_or_default()
    }

    /// The owner of a packet: its client is the source if it goes to one of our addresses, else
    /// the destination.
    #[inline]
    #[must_use]
    pub fn owner<F: Family>(&self, key: &Key<F>, is_inbound: bool) -> u16 {
        let (client, port) = if is_inbound { key.ends.source() } else { key.ends.destination() };
        self.owner_of(client.into(), port)
    }

    /// The same where the client's network is what counts, if there is a mask: a card that hashes
    /// addresses only comes to the same of a whole address.
    #[must_use]
    pub fn owner_by<F: Family>(&self, key: &Key<F>, is_inbound: bool, mask: Option<Mask>) -> u16 {
        let Some(mask) = mask else { return self.owner(key, is_inbound) };
        let (client, _) = if is_inbound { key.ends.source() } else { key.ends.destination() };
        self.owner_of(mask.network(client.into()), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use rvs_wire::flow::{Ends4, V4};

    #[test]
    fn the_client_is_who_sends_to_us_and_whom_others_send_to() {
        let steering = Steering::new(8);
        let (client, other) =
            ((Ipv4Addr::new(203, 0, 113, 7), 40000), (Ipv4Addr::new(192, 0, 2, 1), 80));
        let there = Key::<V4> { ends: Ends4::new(client, other), protocol: 6 };
        let back = Key::<V4> { ends: Ends4::new(other, client), protocol: 6 };
        let owner = steering.owner_of(client.0.into(), client.1);
        assert_eq!((steering.owner(&there, true), steering.owner(&back, false)), (owner, owner));
        assert_eq!(steering.owner(&there, false), steering.owner_of(other.0.into(), other.1));
    }

    #[test]
    fn the_owner_is_the_one_of_whom_a_card_computes_the_hash_of_the_clients_end() {
        let steering = Steering::new(100);
        let (v4, v6): (Ipv4Addr, Ipv6Addr) =
            ("203.0.113.7".parse().unwrap(), "2001:db8:1:2:a:b:c0de:7".parse().unwrap());
        for port in [0, 1, 80, 40_000, u16::MAX] {
            for client in [IpAddr::V4(v4), v6.into()] {
                let octets = match client {
                    IpAddr::V4(client) => client.octets().to_vec(),
                    IpAddr::V6(client) => client.octets().to_vec(),
                };
                let hash = TOEPLITZ.hash(&[&octets[..], &port.to_be_bytes()].concat());
                let entry = usize::try_from(hash).unwrap() % INDIRECTION;
                assert_eq!(steering.owner_of(client, port), steering.indirection[entry]);
            }
        }
    }

    #[test]
    fn every_worker_owns_entries_of_the_indirection_table_and_no_more_than_one_more_than_another() {
        for workers in [1, 2, 3, 7, 64, 100, 128] {
            let steering = Steering::new(workers);
            let mut counts = vec![0; usize::from(workers)];
            for worker in steering.indirection {
                counts[usize::from(worker)] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least >= 1 && most - least <= 1, "{workers}: {counts:?}");
        }
        assert!(Steering::new(0).is_single(), "no worker at all is taken for one");
    }
}
