//! What a worker counts for a destination, in one cache line that it shares with readers.
//!
//! Only the worker that owns a line writes its counters, so a plain load and store is enough: there
//! is no read-modify-write on the packet path. The control plane reads at any time, and writes the
//! flags, which change when an operator says so.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// One worker's line for one destination.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct DestLine {
    conns: AtomicU64,
    packets: [AtomicU64; 2],
    octets: [AtomicU64; 2],
    active: AtomicU32,
    inactive: AtomicU32,
    flags: AtomicU32,
    templates: AtomicU32,
}

const _: () = assert!(size_of::<DestLine>() == 64);

/// Connections of a destination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// Those in a state that counts as active.
    pub active: u32,
    /// All others.
    pub inactive: u32,
}

impl Load {
    /// All connections.
    #[inline]
    #[must_use]
    pub fn total(self) -> u64 {
        u64::from(self.active) + u64::from(self.inactive)
    }
}

#[inline]
fn add64(place: &AtomicU64, more: u64) {
    place.store(place.load(Relaxed).wrapping_add(more), Relaxed);
}

#[inline]
fn step32(place: &AtomicU32, up: bool) {
    let step = if up { 1 } else { u32::MAX };
    place.store(place.load(Relaxed).wrapping_add(step), Relaxed);
}

impl DestLine {
    /// Set while the destination is in its service's list; packets of its connections are
    /// otherwise not forwarded.
    pub const AVAILABLE: u32 = 1;
    /// Set while its weight is zero.
    pub const DRAINED: u32 = 2;
    /// Set while its UDP flows are scheduled anew with their next packet: it was removed or drained,
    /// and its service says so.
    pub const STALE_UDP: u32 = 4;
    /// Set when its connections end in the next purge.
    pub const ENDS: u32 = 8;
    /// The same of its UDP flows alone.
    pub const ENDS_UDP: u32 = 16;
    /// Set while its TCP connections are reset with their next packet.
    pub const RESETS: u32 = 32;

    /// A packet of `octets` (IP total length) went by.
    #[inline]
    pub fn count_packet(&self, outbound: bool, octets: u64) {
        let ([inward, outward], [inward_octets, outward_octets]) = (&self.packets, &self.octets);
        let (packets, total) =
            if outbound { (outward, outward_octets) } else { (inward, inward_octets) };
        add64(packets, 1);
        add64(total, octets);
    }

    /// More octets of a packet that was counted, or fewer: of its later fragments.
    #[cold]
    pub fn count_octets(&self, outbound: bool, octets: i64) {
        let [inward, outward] = &self.octets;
        // As two's complement: the sum is never below 0.
        add64(if outbound { outward } else { inward }, octets.cast_unsigned());
    }

    /// A connection was opened.
    #[inline]
    pub fn count_conn(&self) {
        add64(&self.conns, 1);
    }

    /// A connection began (`up`) or ceased to exist as active or inactive.
    #[inline]
    pub fn step_load(&self, active: bool, up: bool) {
        step32(if active { &self.active } else { &self.inactive }, up);
    }

    /// A persistence template began (`up`) or ceased to lead here.
    #[inline]
    pub fn step_templates(&self, up: bool) {
        step32(&self.templates, up);
    }

    /// Persistence templates now.
    #[inline]
    #[must_use]
    pub fn templates(&self) -> u32 {
        self.templates.load(Relaxed)
    }

    /// Connections that were opened here and have ended, wrapping.
    #[inline]
    #[must_use]
    pub fn ended(&self) -> u32 {
        let [a, b, c, d, ..] = self.conns.load(Relaxed).to_le_bytes();
        let Load { active, inactive } = self.load();
        u32::from_le_bytes([a, b, c, d]).wrapping_sub(active).wrapping_sub(inactive)
    }

    /// Connections now.
    #[inline]
    #[must_use]
    pub fn load(&self) -> Load {
        Load { active: self.active.load(Relaxed), inactive: self.inactive.load(Relaxed) }
    }

    /// Whether all bits of `flag` are set.
    #[inline]
    #[must_use]
    pub fn has(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag == flag
    }

    /// Whether packets of its connections simply follow them, whatever their protocol.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let any = Self::AVAILABLE | Self::STALE_UDP | Self::RESETS;
        self.flags.load(Relaxed) & any == Self::AVAILABLE
    }

    /// The same for those of one protocol: of UDP if `is_udp`.
    #[inline]
    #[must_use]
    pub fn is_followed(&self, is_udp: bool) -> bool {
        let second_thoughts = if is_udp { Self::STALE_UDP } else { Self::RESETS };
        self.flags.load(Relaxed) & (Self::AVAILABLE | second_thoughts) == Self::AVAILABLE
    }

    /// The flags.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }

    /// Replaces the flags; the control plane's alone.
    pub fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Relaxed);
    }

    /// Connections opened so far, packets and octets inbound and outbound.
    #[must_use]
    pub fn totals(&self) -> ([u64; 3], [u64; 2]) {
        let ([a, b], [c, d]) = (&self.packets, &self.octets);
        (
            [self.conns.load(Relaxed), a.load(Relaxed), b.load(Relaxed)],
            [c.load(Relaxed), d.load(Relaxed)],
        )
    }
}
