//! Netlink messages and their attributes: taken apart and put together.
//!
//! ```text
//!  message    length:32 kind:16 flags:16 seq:32 port:32 · payload · padding to 4 octets
//!  attribute  length:16 (with itself) kind:16 · value · padding to 4 octets
//! ```
//!
//! All in the machine's byte order. What the kernel tolerates is tolerated: unknown attributes, flags
//! in an attribute's kind, octets after the last one (Linux 6.1 `lib/nlattr.c` `__nla_parse()` with
//! `NL_VALIDATE_LIBERAL`). Of two attributes of one kind the later one counts.

use crate::numbers::{NLM_F_CAPPED, NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR};
use core::array;
use rvs_api::Errno;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_TYPE_MASK`: without the flags for nests and byte order, which only some clients set.
const KIND_MASK: u16 = 0x3fff;

/// Octets of a datagram from which on a listing goes on in the next one. Clients that do not ask for
/// the length first have room for this and the longest message.
const DATAGRAM_OCTETS: usize = 7 << 10;
const ROOM_OCTETS: usize = 8 << 10;

/// A message, borrowed from its datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'d> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'d [u8],
    /// All of it.
    whole: &'d [u8],
}

impl Message<'static> {
    /// One without content, for answers to it.
    pub(crate) fn empty(kind: u16, seq: u32, port: u32) -> Self {
        Self { kind, flags: 0, seq, port, payload: &[], whole: &[] }
    }
}

/// The messages of a datagram, up to the first that does not fit into it.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    core::iter::from_fn(move || {
        let (header, _) = rest.split_first_chunk::<HEADER>()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *header;
        let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
        let (whole, _) = rest.split_at_checked(len)?;
        let payload = whole.get(HEADER..)?;
        rest = rest.get(aligned(len)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([e, f]),
            flags: u16::from_ne_bytes([g, h]),
            seq: u32::from_ne_bytes([i, j, k, l]),
            port: u32::from_ne_bytes([m, n, o, p]),
            payload,
            whole,
        })
    })
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// What an attribute must look like; `NLA_*` of Linux `include/net/netlink.h`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Not looked at.
    Any,
    /// At least so many octets.
    Min(usize),
    /// At most so many octets.
    Max(usize),
    /// Text with a zero at its end, at most so many octets before it.
    Text(usize),
    /// Attributes.
    Nest,
}

impl Shape {
    pub(crate) const U8: Self = Self::Min(1);
    pub(crate) const U16: Self = Self::Min(2);
    pub(crate) const U32: Self = Self::Min(4);

    /// Linux 6.1 `lib/nlattr.c` `validate_nla()`
    fn check(self, value: &[u8]) -> Result<(), Errno> {
        let fits = match self {
            Self::Any => true,
            Self::Min(least) => value.len() >= least,
            Self::Max(most) => value.len() <= most,
            Self::Nest => value.is_empty() || value.len() >= ATTRIBUTE_HEADER,
            Self::Text(most) => {
                let head = value.get(..=most).unwrap_or(value);
                return if head.contains(&0) { Ok(()) } else { Err(Errno::Inval) };
            }
        };
        if fits { Ok(()) } else { Err(Errno::Range) }
    }
}

/// The attributes of one level, by their kinds below `N`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'m, const N: usize>([Option<&'m [u8]>; N]);

impl<'m, const N: usize> Attributes<'m, N> {
    /// Takes apart what `shapes` knows, by kind.
    pub(crate) fn parse(mut rest: &'m [u8], shapes: &[Shape; N]) -> Result<Self, Errno> {
        let mut found = array::from_fn(|_| None);
        while let Some(([a, b, c, d], _)) = rest.split_first_chunk::<ATTRIBUTE_HEADER>() {
            let len = usize::from(u16::from_ne_bytes([*a, *b]));
            let kind = usize::from(u16::from_ne_bytes([*c, *d]) & KIND_MASK);
            let Some(value) = rest.get(ATTRIBUTE_HEADER..len) else { break };
            rest = rest.get(aligned(len)..).unwrap_or_default();
            if let (Some(place), Some(shape)) = (found.get_mut(kind), shapes.get(kind))
                && kind != 0
            {
                shape.check(value)?;
                *place = Some(value);
            }
        }
        Ok(Self(found))
    }

    /// The attributes within attribute `kind`. IPVS has one error for one that is not there and for
    /// one that is not right.
    pub(crate) fn nest<const M: usize>(
        &self,
        kind: u16,
        shapes: &[Shape; M],
    ) -> Result<Attributes<'m, M>, Errno> {
        let inner = self.octets(kind).ok_or(Errno::Inval)?;
        Attributes::parse(inner, shapes).map_err(|_| Errno::Inval)
    }

    pub(crate) fn has(&self, kind: u16) -> bool {
        self.octets(kind).is_some()
    }

    pub(crate) fn octets(&self, kind: u16) -> Option<&'m [u8]> {
        *self.0.get(usize::from(kind))?
    }

    pub(crate) fn u8(&self, kind: u16) -> Option<u8> {
        self.octets(kind)?.first().copied()
    }

    pub(crate) fn u16(&self, kind: u16) -> Option<u16> {
        self.octets(kind)?.first_chunk().map(|octets| u16::from_ne_bytes(*octets))
    }

    /// In network order.
    pub(crate) fn be16(&self, kind: u16) -> Option<u16> {
        self.octets(kind)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
    }

    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        self.octets(kind)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
    }

    /// The first `L` octets, zeros where there are fewer (`nla_memcpy()`).
    pub(crate) fn padded<const L: usize>(&self, kind: u16) -> Option<[u8; L]> {
        let value = self.octets(kind)?;
        let mut padded = [0; L];
        padded.iter_mut().zip(value).for_each(|(place, octet)| *place = *octet);
        Some(padded)
    }

    /// Up to the zero.
    pub(crate) fn text(&self, kind: u16) -> Option<String> {
        let value = self.octets(kind)?.split(|octet| *octet == 0).next()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// Datagrams being made.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    sealed: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Answers {
    /// Adds a message like `of`'s, whose payload `fill` writes.
    pub(crate) fn message(
        &mut self,
        of: &Message,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Writer),
    ) {
        if self.last.len() >= DATAGRAM_OCTETS {
            self.seal();
        }
        if flags & NLM_F_MULTI != 0 && self.last.is_empty() {
            self.last.reserve(ROOM_OCTETS);
        }
        let start = self.last.len();
        self.last.extend_from_slice(&0_u32.to_ne_bytes());
        self.last.extend_from_slice(&kind.to_ne_bytes());
        self.last.extend_from_slice(&flags.to_ne_bytes());
        self.last.extend_from_slice(&of.seq.to_ne_bytes());
        self.last.extend_from_slice(&of.port.to_ne_bytes());
        fill(&mut Writer(&mut self.last));
        let len = u32::try_from(self.last.len() - start).unwrap_or(u32::MAX).to_ne_bytes();
        if let Some(place) = self.last.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *place = len;
        }
        self.last.resize(aligned(self.last.len()), 0);
    }

    /// A message of a generic netlink family.
    pub(crate) fn genl(
        &mut self,
        of: &Message,
        flags: u16,
        (command, version): (u8, u8),
        fill: impl FnOnce(&mut Writer),
    ) {
        self.message(of, of.kind, flags, |writer| {
            writer.raw(&[command, version, 0, 0]);
            fill(writer);
        });
    }

    /// The end of a dump.
    pub(crate) fn done(&mut self, of: &Message) {
        self.message(of, NLMSG_DONE, NLM_F_MULTI, |writer| writer.raw(&[0; 4]));
    }

    /// An error, with the message that it is about, in a datagram of its own: clients that wait for
    /// an answer and then for the acknowledgement read twice.
    pub(crate) fn error(&mut self, of: &Message, errno: Errno) {
        self.seal();
        self.message(of, NLMSG_ERROR, 0, |writer| {
            writer.raw(&(-errno.number()).to_ne_bytes());
            writer.raw(of.whole);
        });
        self.seal();
    }

    /// An acknowledgement, with the header of the message that it is about.
    pub(crate) fn ack(&mut self, of: &Message) {
        self.seal();
        self.message(of, NLMSG_ERROR, NLM_F_CAPPED, |writer| {
            writer.raw(&0_i32.to_ne_bytes());
            writer.raw(of.whole.get(..HEADER).unwrap_or_default());
        });
        self.seal();
    }

    pub(crate) fn datagrams(mut self) -> Vec<Vec<u8>> {
        self.seal();
        self.sealed
    }

    fn seal(&mut self) {
        if !self.last.is_empty() {
            self.sealed.push(core::mem::take(&mut self.last));
        }
    }
}

/// Writes a payload.
pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn raw(&mut self, octets: &[u8]) {
        self.0.extend_from_slice(octets);
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |writer| writer.raw(value));
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.word(1, kind, [value, 0, 0, 0]);
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        let [a, b] = value.to_ne_bytes();
        self.word(2, kind, [a, b, 0, 0]);
    }

    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        let [a, b] = value.to_be_bytes();
        self.word(2, kind, [a, b, 0, 0]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.word(4, kind, value.to_ne_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        let ([a, b], [c, d]) = (12_u16.to_ne_bytes(), kind.to_ne_bytes());
        let [e, f, g, h, i, j, k, l] = value.to_ne_bytes();
        self.raw(&[a, b, c, d, e, f, g, h, i, j, k, l]);
    }

    /// An attribute of `len` octets, with its padding. A listing has four million of these: each is put
    /// there at once.
    fn word(&mut self, len: u16, kind: u16, [e, f, g, h]: [u8; 4]) {
        let ([a, b], [c, d]) = ((4 + len).to_ne_bytes(), kind.to_ne_bytes());
        self.raw(&[a, b, c, d, e, f, g, h]);
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |writer| {
            writer.raw(value.as_bytes());
            writer.raw(&[0]);
        });
    }

    /// An attribute whose value `fill` writes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        let start = self.0.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        fill(&mut Writer(self.0));
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
        if let Some(place) = self.0.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *place = len;
        }
        self.0.resize(aligned(self.0.len()), 0);
    }
}
