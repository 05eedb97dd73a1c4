//! What every measured packet says of itself, at the beginning of its payload.
//!
//! ```text
//!  0      2      4                 8                12               18
//!  ├ "rv" ┼ run  ┼ flow            ┼ sequence       ┼ due            ┤  then zeroes
//!  │      │      │ bit 31: a reply │ in its flow    │ ns, 48 bits    │
//! ```
//!
//! 18 octets: what a UDP datagram in the shortest IPv4 frame that Ethernet has can carry.

/// Octets of a record.
pub const OCTETS: usize = 18;

/// Flows that a record can tell apart.
pub const FLOWS_MAX: u32 = 1 << 31;

const MARK: [u8; 2] = *b"rv";
const REPLY: u32 = 1 << 31;
const TIME_BITS: u32 = 48;

/// One packet's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    /// Which run of which generator.
    pub run: u16,
    /// Its flow.
    pub flow: u32,
    /// Whether it comes back from a real server.
    pub reply: bool,
    /// Its number in its flow, from 0 on; it wraps.
    pub sequence: u32,
    /// When it was due, in nanoseconds of the generator's clock; the lowest 48 bits.
    pub due: u64,
}

impl Record {
    /// As octets.
    #[inline]
    #[must_use]
    pub fn octets(self) -> [u8; OCTETS] {
        let ([a, b], [c, d]) = (MARK, self.run.to_be_bytes());
        let flow = self.flow | if self.reply { REPLY } else { 0 };
        let ([e, f, g, h], [i, j, k, l]) = (flow.to_be_bytes(), self.sequence.to_be_bytes());
        let [_, _, m, n, o, p, q, r] = self.due.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r]
    }

    /// What a payload begins with, if that is a record.
    #[inline]
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let [mark @ .., a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] =
            *payload.first_chunk::<OCTETS>()?;
        if mark != MARK {
            return None;
        }
        let flow = u32::from_be_bytes([c, d, e, f]);
        Some(Self {
            run: u16::from_be_bytes([a, b]),
            flow: flow & !REPLY,
            reply: flow & REPLY != 0,
            sequence: u32::from_be_bytes([g, h, i, j]),
            due: u64::from_be_bytes([0, 0, k, l, m, n, o, p]),
        })
    }

    /// Nanoseconds from when it was due until `now`. A clock that is behind gives 0.
    #[inline]
    #[must_use]
    pub fn age(self, now: u64) -> u64 {
        let bits = (1 << TIME_BITS) - 1;
        let age = now.wrapping_sub(self.due) & bits;
        // The upper half is the future: another machine's clock.
        if age >> (TIME_BITS - 1) == 0 { age } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record { run: 7, flow: 0x7fff_fffe, reply: true, sequence: 9, due: 1 << 47 };
        let octets = [&record.octets()[..], &[1, 2, 3]].concat();
        assert_eq!(Record::read(&octets), Some(record));
        assert_eq!(Record::read(&octets[..OCTETS - 1]), None);
        assert_eq!(Record::read(&[0; OCTETS]), None);
    }

    #[test]
    fn ages_survive_the_clocks_wrapping_and_are_never_negative() {
        let record = Record { run: 0, flow: 0, reply: false, sequence: 0, due: (1 << 48) - 10 };
        assert_eq!(record.age((1 << 48) + 5), 15);
        assert_eq!(record.age((1 << 48) - 11), 0);
    }
}
