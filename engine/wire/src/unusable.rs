//! Why a frame is of no use: one reason a check, one drop counter a reason.

/// The first check that failed, of a frame or of a packet in it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("{}", self.sentence())]
#[repr(u8)]
pub enum Unusable {
    /// Fewer octets than a header needs.
    Truncated,
    /// Unicast to another MAC address: the link is promiscuous, or a switch floods.
    OtherHost,
    /// A service tag (802.1ad), or one 802.1Q tag in another.
    VlanStack,
    /// Neither IPv4, IPv6 nor ARP.
    Ethertype,
    /// ARP, but not for IPv4 over Ethernet.
    ArpFormat,
    /// The Ethernet header says IPv4, the packet does not.
    Ipv4Version,
    /// IHL below 5 words or beyond the packet.
    Ipv4HeaderLength,
    /// Total length below the header's or beyond the frame.
    Ipv4TotalLength,
    /// The header's checksum is wrong.
    Ipv4Checksum,
    /// An option's length is wrong.
    Ipv4Options,
    /// The sender wants to choose the way: an IPv4 source route, an IPv6 routing header with
    /// segments left.
    SourceRoute,
    /// The Ethernet header says IPv6, the packet does not.
    Ipv6Version,
    /// Payload length beyond the frame.
    Ipv6PayloadLength,
    /// More extension headers than any use needs, or in an order RFC 8200 forbids.
    Ipv6Extensions,
    /// Data offset below 5 words or beyond the segment.
    TcpHeaderLength,
    /// Length below the header's or beyond the packet.
    UdpLength,
    /// An ICMP message's checksum is wrong.
    IcmpChecksum,
    /// A neighbour discovery message that RFC 4861 says to discard.
    Ndp,
}

impl Unusable {
    /// All of them, by index.
    pub const ALL: [Self; 18] = [
        Self::Truncated,
        Self::OtherHost,
        Self::VlanStack,
        Self::Ethertype,
        Self::ArpFormat,
        Self::Ipv4Version,
        Self::Ipv4HeaderLength,
        Self::Ipv4TotalLength,
        Self::Ipv4Checksum,
        Self::Ipv4Options,
        Self::SourceRoute,
        Self::Ipv6Version,
        Self::Ipv6PayloadLength,
        Self::Ipv6Extensions,
        Self::TcpHeaderLength,
        Self::UdpLength,
        Self::IcmpChecksum,
        Self::Ndp,
    ];

    /// Its place in [`Unusable::ALL`] and in an array of counters.
    #[inline]
    #[must_use]
    #[expect(clippy::as_conversions, reason = "a discriminant; a test compares it with ALL")]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The counter's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// What the counter counts.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.words().1
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Truncated => ("truncated", "the frame ends before its headers do"),
            Self::OtherHost => ("other-host", "the frame is for another MAC address"),
            Self::VlanStack => ("vlan-stack", "the frame has a service tag or two VLAN tags"),
            Self::Ethertype => ("ethertype", "the frame is neither IPv4, IPv6 nor ARP"),
            Self::ArpFormat => ("arp-format", "the ARP message is not about IPv4 over Ethernet"),
            Self::Ipv4Version => ("ipv4-version", "the IPv4 header has another version"),
            Self::Ipv4HeaderLength => {
                ("ipv4-header-length", "the IPv4 header length is below 20 or beyond the packet")
            }
            Self::Ipv4TotalLength => (
                "ipv4-total-length",
                "the IPv4 total length is below the header's or beyond the frame",
            ),
            Self::Ipv4Checksum => ("ipv4-checksum", "the IPv4 header checksum is wrong"),
            Self::Ipv4Options => ("ipv4-options", "an IPv4 option has a wrong length"),
            Self::SourceRoute => ("source-route", "the sender asks for a source route"),
            Self::Ipv6Version => ("ipv6-version", "the IPv6 header has another version"),
            Self::Ipv6PayloadLength => {
                ("ipv6-payload-length", "the IPv6 payload length is beyond the frame")
            }
            Self::Ipv6Extensions => (
                "ipv6-extensions",
                "the IPv6 extension headers are too many or in a forbidden order",
            ),
            Self::TcpHeaderLength => {
                ("tcp-header-length", "the TCP data offset is below 20 or beyond the segment")
            }
            Self::UdpLength => {
                ("udp-length", "the UDP length is below the header's or beyond the packet")
            }
            Self::IcmpChecksum => ("icmp-checksum", "the ICMP checksum is wrong"),
            Self::Ndp => ("ndp", "the neighbour discovery message fails RFC 4861's checks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_index_and_name() {
        for (index, reason) in Unusable::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            let others = Unusable::ALL.iter().filter(|other| other.name() == reason.name());
            assert_eq!(others.count(), 1, "{}", reason.name());
        }
    }
}
