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
        let [a, b] = port.to_be_bytes();
        // The key repeats after 16 bits, so that this is what a card computes over the client's
        // address and port wherever in its input they stand, if the other end is left out.
        let hash = match client {
            IpAddr::V4(client) => TOEPLITZ.hash(&client.octets()),
            IpAddr::V6(client) => TOEPLITZ.hash(&client.octets()),
        } ^ TOEPLITZ.hash(&[a, b]);
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
