//! Why a frame goes no further. Every reason is one counter; a reason is never used for two causes.

use rvs_wire::unusable::Unusable;

macro_rules! reasons {
    ($($(#[doc = $sentence:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a frame goes no further, beside what makes it [`Unusable`].
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $sentence])+ $name,)+
        }

        impl DropReason {
            /// All of them, in order.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The counter's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => concat!($($sentence),+),)+ }
            }
        }
    };
}

reasons! {
    /// Its VLAN has no interface here.
    VlanUnknown = "vlan-unknown",
    /// Longer than the room of a frame.
    FrameTooLong = "frame-too-long",
    /// Its TAP's header says to cut it, or to finish its checksum, in a way that nobody offered to carry.
    Uncarriable = "uncarriable",
    /// No empty frame was left to receive it into, or to answer with.
    NoFrame = "no-frame",
    /// An ARP message that is malformed or concerns nobody here.
    ArpIgnored = "arp-ignored",
    /// An ARP, neighbour-discovery or ICMP message, dealt with.
    Consumed = "consumed",
    /// A neighbour-discovery message that RFC 4861 says to ignore.
    NdpIgnored = "ndp-ignored",
    /// A packet to the director itself, answered in its own frame's stead.
    Answered = "answered",
    /// An ICMP message to the director that asks for nothing it does, or whose sum is wrong.
    IcmpIgnored = "icmp-ignored",
    /// A TCP segment, UDP datagram or SCTP packet to the director itself whose checksum is wrong.
    SegmentChecksum = "segment-checksum",
    /// A packet to the director itself that no answer is due to.
    LocalIgnored = "local-ignored",
    /// A fragment of a packet that no service took, to one of the director's addresses.
    Fragment = "fragment",
    /// A later fragment whose first one did not come in time.
    FragmentAlone = "fragment-alone",
    /// A later fragment that had to yield to others while it waited for its first one.
    FragmentQueueFull = "fragment-queue-full",
    /// A fragment of an SCTP packet whose checksum would have to be that of the whole packet.
    FragmentOfSctp = "fragment-of-sctp",
    /// A segment of an FTP control connection whose checksum is wrong.
    FtpChecksum = "ftp-checksum",
    /// A segment of an FTP control connection; no room for what it says of a data connection. It will
    /// be sent again.
    FtpFull = "ftp-full",
    /// To a multicast or broadcast address that nobody here listens to.
    Multicast = "multicast",
    /// Its source or its destination is an address that no other host may have.
    Martian = "martian",
    /// The hop limit ran out; the sender was told, if it may be.
    HopLimit = "hop-limit",
    /// Too long for the next link and not to be fragmented; the sender was told, if it may be.
    TooBig = "too-big",
    /// Too long for the next link and could not be fragmented.
    Unfragmentable = "unfragmentable",
    /// No destination of the service takes connections; the client was told, if it may be.
    NoDest = "no-dest",
    /// A masqueraded real server sent it without a connection; it was told, if it may be
    /// (`nat_icmp_send`).
    NoConnection = "no-connection",
    /// Would have opened a connection, but `drop_packet` drops some of those.
    DropPacket = "drop-packet",
    /// Would have opened a connection, and the worker had time for those that stand only.
    Overload = "overload",
    /// Its connection's destination was deleted.
    DestDeleted = "dest-deleted",
    /// No room for another connection; half-open ones had to yield first and none was found.
    TableFull = "table-full",
    /// No route to its destination.
    NoRoute = "no-route",
    /// Belongs to no service, and the director does not route.
    NotForwarded = "not-forwarded",
    /// The next hop did not answer.
    NeighborUnresolved = "neighbor-unresolved",
    /// Too many frames were waiting for the next hop's answer already.
    NeighborQueueFull = "neighbor-queue-full",
    /// No room for another neighbour.
    NeighborTableFull = "neighbor-table-full",
    /// The transmit queue refused it.
    TxFull = "tx-full",
    /// The owner's ring of handed-over frames was full.
    HandoffFull = "handoff-full",
    /// An answer or an error was due to its sender but the rate of them is bounded.
    RateLimited = "rate-limited",
    /// Headers did not fit before the packet: a bug, never the sender's fault.
    NoHeadroom = "no-headroom",
}

/// Number of drop counters.
pub const DROP_COUNTERS: usize = DropReason::ALL.len() + Unusable::ALL.len();

/// Either kind of reason, as one number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DropIndex(u8);

impl DropIndex {
    /// Its place among [`DROP_COUNTERS`].
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<DropReason> for DropIndex {
    #[inline]
    #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
    fn from(reason: DropReason) -> Self {
        Self(reason as u8)
    }
}

impl From<Unusable> for DropIndex {
    #[inline]
    fn from(unusable: Unusable) -> Self {
        let index = unusable.index() + DropReason::ALL.len();
        Self(u8::try_from(index).unwrap_or(u8::MAX))
    }
}

const _: () = assert!(DROP_COUNTERS < 256);

/// Names and meanings of all drop counters, in the order of their indices.
pub fn drop_counters() -> impl Iterator<Item = (&'static str, &'static str)> {
    let ours = DropReason::ALL.into_iter().map(|reason| (reason.name(), reason.sentence()));
    let malformed = Unusable::ALL.into_iter().map(|why| (why.name(), why.sentence()));
    ours.chain(malformed)
}
