//! What can be asked of rvsd.

use crate::{DestAttributes, ServiceAttributes, ServiceKey};
use core::net::{IpAddr, SocketAddr};
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
pub struct Daemon {
    /// Which end.
    pub state: DaemonState,
    /// `--mcast-interface`.
    pub interface: String,
    /// `--syncid`; zero takes all.
    pub sync_id: u8,
    /// `--sync-maxlen`, octets.
    #[serde(default)]
    pub message_octets_max: Option<u16>,
    /// `--mcast-group`.
    #[serde(default)]
    pub group: Option<IpAddr>,
    /// `--mcast-port`.
    #[serde(default)]
    pub port: Option<u16>,
    /// `--mcast-ttl`.
    #[serde(default)]
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
                | Self::GetTimeouts
                | Self::GetInfo
                | Self::ListDaemons
                | Self::ListTunables { .. }
        )
    }
}
