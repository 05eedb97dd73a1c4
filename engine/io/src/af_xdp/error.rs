//! Why a device cannot be a link: a line for the operator, with what to do.

use super::FRAME_OCTETS_MAX;
use std::io;

/// Why a link could not be had. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// There is none of this name.
    #[error("there is no device {0}: `ip link` lists those that there are")]
    NoDevice(String),
    /// Nothing would arrive.
    #[error("device {0} is down: run `ip link set {0} up`")]
    Down(String),
    /// A frame does not fit into a chunk.
    #[error(
        "frames of device {device} may have {octets} octets, AF_XDP carries {FRAME_OCTETS_MAX} at \
         most: set the link's mtu to {} or less",
        FRAME_OCTETS_MAX - 18
    )]
    TooLong {
        /// The device.
        device: String,
        /// Octets of the longest frame.
        octets: usize,
    },
    /// Frames would arrive where nobody looks, or the other way round; or what a worker sends would stay
    /// where it is.
    #[error(
        "device {device} has {has} {of} queues and there are {wanted} workers, a queue is for \
         one worker: run `ethtool -L {device} combined {wanted}` (veth: `rx {wanted} tx {wanted}`), \
         or change [workers] cores"
    )]
    Queues {
        /// The device.
        device: String,
        /// Its queues.
        has: u32,
        /// Whether these receive or transmit.
        of: &'static str,
        /// Our workers.
        wanted: u16,
    },
    /// Frames would come that no queue is for. Linux 6.1 drivers/net/veth.c `veth_xdp_set()`.
    #[error(
        "the peer of device {device} has more queues to transmit than {device} has to receive: run \
         `ethtool -L PEER tx {wanted}` there, or with less"
    )]
    PeerQueues {
        /// The device.
        device: String,
        /// Its queues.
        wanted: u16,
    },
    /// What we send would be too long.
    #[error(
        "device {device} has MTU {has} and the link {wanted}: run `ip link set {device} mtu \
         {wanted}`, or set the link's mtu to {has}"
    )]
    Mtu {
        /// The device.
        device: String,
        /// Its MTU.
        has: u32,
        /// The link's.
        wanted: u16,
    },
    /// Our frames could not be told from the host's.
    #[error(
        "device {0} has the link's `mac` itself, so frames to the director cannot be told from \
         those to the host: leave `mac` out, or choose another, or say `shared = false`"
    )]
    SameMac(String),
    /// Another program is there.
    #[error(
        "another XDP program is on device {0}: stop who has it there, such as another rvsd, or remove \
         it by `ip link set dev {0} xdp off`"
    )]
    Taken(String),
    /// Somebody else has a socket on a queue.
    #[error("queue {queue} of device {device} is in use by another program: stop that")]
    Busy {
        /// The device.
        device: String,
        /// The queue.
        queue: u16,
    },
    /// Rights are missing.
    #[error(
        "no permission to {what}: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF \
         (systemd: AmbientCapabilities=)"
    )]
    Permission {
        /// What was not permitted.
        what: String,
    },
    /// Locked memory is limited.
    #[error(
        "too little memory may be locked for device {device}, {kib} KiB are needed: raise `ulimit \
         -l` (systemd: LimitMEMLOCK=infinity), or give CAP_IPC_LOCK"
    )]
    Memory {
        /// The device.
        device: String,
        /// What a queue needs.
        kib: usize,
    },
    /// The driver copies.
    #[error("device {0} cannot do zero-copy: leave `zero_copy` out, or say `zero_copy = false`")]
    NoZeroCopy(String),
    /// The kernel was built without, or is older than 5.11.
    #[error("this kernel has no AF_XDP: it takes Linux 5.11 or later, with CONFIG_XDP_SOCKETS")]
    NoAfXdp,
    /// Anything else that the kernel refused.
    #[error("cannot {what}: {source}")]
    Refused {
        /// What was refused.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl AfXdpError {
    pub(super) fn refused(what: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { what },
            _ => Self::Refused { what, source },
        }
    }
}
