//! What can be asked of rvsd.

use crate::{ConnEntry, DestAttributes, Rules, ServiceAttributes, ServiceKey};
use core::net::{IpAddr, SocketAddr};
use rvs_model::Protocol;
use serde::{Deserialize, Serialize};

/// One thing to do or to tell, in IPVS terms. Each names the ipvsadm command it serves.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// `-A`.
    AddService {
        /// Which service.
        service: ServiceKey,
        /// What it shall be.
        attributes: ServiceAttributes,
    },
    /// `-E`: replaces all attributes.
    EditService {
        /// Which service.
        service: ServiceKey,
        /// What it shall be.
        attributes: ServiceAttributes,
    },
    /// `-D`.
    DeleteService {
        /// Which service.
        service: ServiceKey,
    },
    /// `-C`: deletes all services.
    Flush,
    /// `-a`.
    AddDest {
        /// Whose destination.
        service: ServiceKey,
        /// Address and port.
        dest: SocketAddr,
        /// What it shall be.
        attributes: DestAttributes,
    },
    /// `-e`: replaces all attributes.
    EditDest {
        /// Whose destination.
        service: ServiceKey,
        /// Address and port.
        dest: SocketAddr,
        /// What it shall be.
        attributes: DestAttributes,
    },
    /// `-d`.
    DeleteDest {
        /// Whose destination.
        service: ServiceKey,
        /// Address and port.
        dest: SocketAddr,
    },
    /// `-L`, `-S`: all services, or one that must exist.
    ListServices {
        /// The one; all when `None`.
        #[serde(default)]
        service: Option<ServiceKey>,
    },
    /// `-Lc`.
    ListConns,
    /// `-Lc` of some connections only. Not ipvsadm's. Answered like [`Request::ListConns`].
    ListConnsWhere(ConnFilter),
    /// `kill`: ends one connection at once. Not ipvsadm's.
    KillConn {
        /// Which transport protocol.
        protocol: Protocol,
        /// The client.
        client: SocketAddr,
        /// What it is connected to, as `-Lc` lists it.
        vip: SocketAddr,
    },
    /// The end of `drain`: ends all connections of a destination whose weight is 0. Not ipvsadm's.
    EndConns {
        /// Whose destination.
        service: ServiceKey,
        /// Address and port.
        dest: SocketAddr,
        /// Whether those of TCP are reset, each with its client's next packet, until its weight
        /// changes or this is asked without it; else all end at once and silently.
        #[serde(default)]
        resets: bool,
    },
    /// `-Z`: counters start at zero again, of all services or of one that must exist.
    Zero {
        /// The one; all when `None`.
        #[serde(default)]
        service: Option<ServiceKey>,
    },
    /// `--set`.
    SetTimeouts(TimeoutsChange),
    /// `-L --timeout`.
    GetTimeouts,
    /// `tunable`: all sysctls, or one that must exist. Not ipvsadm's.
    ListTunables {
        /// The one; all when `None`.
        #[serde(default)]
        name: Option<String>,
    },
    /// `tunable NAME=VALUE`. Not ipvsadm's. Answered with the one that was set.
    SetTunable {
        /// As under `/proc/sys/net/ipv4/vs`.
        name: String,
        /// What would be written there.
        value: String,
    },
    /// The first line of `-L`.
    GetInfo,
    /// `--start-daemon`.
    StartDaemon(Daemon),
    /// `--stop-daemon`.
    StopDaemon(DaemonState),
    /// `-L --daemon`.
    ListDaemons,
    /// Changes of what is kept, all of them or none, seen together. Not ipvsadm's.
    Together(Vec<Request>),
    /// `apply`: changes the table into what rules say, all of it or nothing. Not ipvsadm's. Answered
    /// with the changes.
    Apply {
        /// What shall be.
        rules: Box<Rules>,
        /// Only tells the changes, and whether they could be made.
        #[serde(default)]
        dry_run: bool,
    },
}

/// Which connections are meant; each that is `None` means all.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnFilter {
    /// Of this service.
    pub service: Option<ServiceKey>,
    /// To this address, and to this port if there is one.
    pub dest: Option<(IpAddr, Option<u16>)>,
    /// Of clients whose addresses begin with so many bits of this one.
    pub client: Option<(IpAddr, u8)>,
    /// In the state of this name.
    pub state: Option<String>,
}

impl ConnFilter {
    /// Whether `conn`, of a destination of `service`, is meant.
    #[must_use]
    pub fn admits(&self, conn: &ConnEntry, service: Option<&ServiceKey>) -> bool {
        let same_dest = |(ip, port): (IpAddr, Option<u16>)| {
            ip == conn.dest.ip() && port.is_none_or(|port| port == conn.dest.port())
        };
        self.service.as_ref().is_none_or(|wanted| service == Some(wanted))
            && self.dest.is_none_or(same_dest)
            && self.client.is_none_or(|network| contains(network, conn.client.ip()))
            && self.state.as_ref().is_none_or(|name| name == conn.state.name())
    }
}

/// Whether `address` is in a network of `bits` bits.
fn contains((network, bits): (IpAddr, u8), address: IpAddr) -> bool {
    let differing = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            u128::from(network.to_bits() ^ address.to_bits()) << 96
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => network.to_bits() ^ address.to_bits(),
        _ => return false,
    };
    differing.leading_zeros() >= bits.into()
}

/// Seconds that connections outlive their last packet; in a change, zero keeps what is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TimeoutsChange {
    /// TCP, ESTABLISHED.
    pub tcp_s: u32,
    /// TCP, `FIN_WAIT` and no other state.
    pub tcp_fin_s: u32,
    /// UDP.
    pub udp_s: u32,
}

/// Which end of connection synchronisation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DaemonState {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

/// A synchronisation daemon; what is `None` takes its default when it starts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// Which end.
    pub state: DaemonState,
    /// `--mcast-interface`.
    pub interface: String,
    /// `--syncid`; zero takes all.
    #[serde(default)]
    pub sync_id: u8,
    /// `--sync-maxlen`, octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_octets_max: Option<u16>,
    /// `--mcast-group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// `--mcast-port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `--mcast-ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
}

impl Request {
    /// Whether it only tells and changes nothing.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        matches!(
            self,
            Self::ListServices { .. }
                | Self::ListConns
                | Self::ListConnsWhere(_)
                | Self::GetTimeouts
                | Self::GetInfo
                | Self::ListDaemons
                | Self::ListTunables { .. }
                | Self::Apply { dry_run: true, .. }
        )
    }

    /// Whether it changes what outlives rvsd: the table, but not its counters and connections.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        !self.is_read_only()
            && !matches!(self, Self::Zero { .. } | Self::EndConns { .. } | Self::KillConn { .. })
    }
}
