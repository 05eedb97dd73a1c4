//! Services and destinations as an operator names and describes them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::num::NonZeroU32;
use rvs_model::{ForwardMethod, Protocol, StaleUdp, Weight};
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// RFC 791.
    #[default]
    V4,
    /// RFC 8200.
    V6,
}

impl From<IpAddr> for AddressFamily {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A firewall mark; zero is no mark.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct FwMark(pub NonZeroU32);

/// What a service is known by.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKey {
    /// `-t`, `-u`, `--sctp-service`: packets to an address; port 0 is any port.
    Address {
        /// Which transport protocol.
        protocol: Protocol,
        /// VIP and port.
        address: SocketAddr,
    },
    /// `-f` and `-6`: packets of a family that carry a mark.
    Mark {
        /// The mark.
        mark: FwMark,
        /// Which family's packets.
        family: AddressFamily,
    },
}

impl ServiceKey {
    /// The family of its packets.
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        match self {
            Self::Address { address, .. } => address.ip().into(),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// How a service is marked; bits as in Linux `include/uapi/linux/ip_vs.h` `IP_VS_SVC_F_*`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// `-p`: connections of a client stay with one destination.
    pub const PERSISTENT: Self = Self(0x1);
    /// The kernel shows this bit on every service it holds.
    pub const HASHED: Self = Self(0x2);
    /// `-o`: every datagram is scheduled by itself.
    pub const ONE_PACKET: Self = Self(0x4);
    /// `-b flag-1`; `sh-fallback`, `mh-fallback`.
    pub const SCHEDULER_1: Self = Self(0x8);
    /// `-b flag-2`; `sh-port`, `mh-port`.
    pub const SCHEDULER_2: Self = Self(0x10);
    /// `-b flag-3`.
    pub const SCHEDULER_3: Self = Self(0x20);
    /// All that `-b` can set.
    pub const SCHEDULER: Self = Self(0x38);

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// How many bits of the client's address persistence looks at, `-M`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Netmask {
    /// IPv4: any pattern of bits, as the kernel takes it.
    V4(Ipv4Addr),
    /// IPv6: a prefix length; 1 to 128 are legal.
    V6(u32),
}

impl Netmask {
    /// The whole address.
    #[must_use]
    pub const fn host(family: AddressFamily) -> Self {
        match family {
            AddressFamily::V4 => Self::V4(Ipv4Addr::BROADCAST),
            AddressFamily::V6 => Self::V6(128),
        }
    }

    /// Whether it is the whole address, which is not printed.
    #[must_use]
    pub fn is_host(self) -> bool {
        matches!(self, Self::V4(Ipv4Addr::BROADCAST) | Self::V6(128))
    }
}

/// What `-A` and `-E` say of a service. `-E` replaces all of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceAttributes {
    /// `-s`: at most 15 octets count.
    pub scheduler: String,
    /// `-p`, `-o`, `-b`.
    #[serde(default)]
    pub flags: ServiceFlags,
    /// `-p`: seconds that a client is remembered.
    #[serde(default)]
    pub timeout_s: u32,
    /// `-M`, of the service's family.
    pub netmask: Netmask,
    /// `--pe`: a persistence engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// `--stale-udp`. Not ipvsadm's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stale_udp: StaleUdp,
}

/// The longest scheduler name that counts (Linux `IP_VS_SCHEDNAME_MAXLEN` less the NUL).
const SCHEDULER_NAME_MAX: usize = 15;

impl ServiceAttributes {
    /// A service of `family` that only names its scheduler.
    #[must_use]
    pub fn new(scheduler: &str, family: AddressFamily) -> Self {
        let scheduler = match scheduler.char_indices().nth(SCHEDULER_NAME_MAX) {
            Some((end, _)) => scheduler.get(..end).unwrap_or(scheduler),
            None => scheduler,
        };
        Self {
            scheduler: scheduler.to_owned(),
            flags: ServiceFlags::default(),
            timeout_s: 0,
            netmask: Netmask::host(family),
            engine: None,
            stale_udp: StaleUdp::Keep,
        }
    }
}

impl ServiceAttributes {
    /// The flags that the scheduler has been told, by its names for them, which `-b` takes.
    pub fn scheduler_flags(&self) -> impl Iterator<Item = &'static str> {
        let names: &[&str] = match self.scheduler.as_str() {
            "sh" => &["sh-fallback", "sh-port"],
            "mh" => &["mh-fallback", "mh-port"],
            _ => &["flag-1", "flag-2", "flag-3"],
        };
        let all = [ServiceFlags::SCHEDULER_1, ServiceFlags::SCHEDULER_2, ServiceFlags::SCHEDULER_3];
        let flags = self.flags;
        names.iter().copied().zip(all).filter(move |(_, it)| flags.has(*it)).map(|(name, _)| name)
    }
}

/// `--tun-type`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// IP in IP, RFC 2003 and RFC 2473.
    #[default]
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue).
    Gue,
    /// Generic routing encapsulation, RFC 2784.
    Gre,
}

impl TunnelKind {
    /// What `--tun-type` takes and `-S` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `--tun-nocsum`, `--tun-csum`, `--tun-remcsum`; discriminants as in Linux
/// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None in the outer header.
    #[default]
    None,
    /// Over the whole encapsulation.
    Full,
    /// The inner one is left to the receiver.
    Remote,
}

/// How a tunnelled packet is wrapped.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// `--tun-type`.
    #[serde(default)]
    pub kind: TunnelKind,
    /// `--tun-port`: the UDP port of [`TunnelKind::Gue`], otherwise zero.
    #[serde(default)]
    pub port: u16,
    /// Whether the encapsulation carries a checksum.
    #[serde(default)]
    pub checksum: TunnelChecksum,
}

/// What `-a` and `-e` say of a destination. `-e` replaces all of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DestAttributes {
    /// `-g`, `-i`, `-m`.
    pub method: ForwardMethod,
    /// `-w`: 0 to 2 147 483 647.
    pub weight: Weight,
    /// `-x`: connections from which on no new ones are given; zero is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upper_threshold: u32,
    /// `-y`: connections below which new ones are given again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lower_threshold: u32,
    /// How packets are wrapped when `method` is a tunnel.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tunnel: Tunnel,
}

impl DestAttributes {
    /// A destination that only says how packets reach it and its weight.
    #[must_use]
    pub fn new(method: ForwardMethod, weight: Weight) -> Self {
        Self { method, weight, upper_threshold: 0, lower_threshold: 0, tunnel: Tunnel::default() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fifteen_octets_of_a_scheduler_name_count() {
        let attributes = ServiceAttributes::new("averyveryverylongname", AddressFamily::V4);
        assert_eq!(attributes.scheduler, "averyveryverylo");
        assert_eq!(ServiceAttributes::new("wlc", AddressFamily::V6).scheduler, "wlc");
    }

    #[test]
    fn defaults_are_left_out_of_messages() {
        let plain = DestAttributes::new(ForwardMethod::Direct, Weight(1));
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(text, r#"{"method":"direct","weight":1}"#);
        assert_eq!(serde_json::from_str::<DestAttributes>(&text).unwrap(), plain);
    }
}
