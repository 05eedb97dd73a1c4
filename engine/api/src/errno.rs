//! Why a request was refused: the kernel's error numbers, closed.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The error numbers that Linux IPVS answers with. ipvsadm's words depend on the pair of operation
/// and number, so the number must be the kernel's.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Errno {
    /// `EPERM`: the caller may not do this.
    Perm,
    /// `ENOENT`: no such scheduler, persistence engine or destination.
    NoEnt,
    /// `ESRCH`: no such service, or no daemon is running.
    Srch,
    /// `EIO`: rvsd could not do what was asked.
    Io,
    /// `ENOMEM`: a table is full.
    NoMem,
    /// `EBUSY`: the client is being told something already.
    Busy,
    /// `EEXIST`: the service, destination or daemon is there already.
    Exist,
    /// `ENODEV`: no such link.
    NoDev,
    /// `EINVAL`: an attribute is missing or makes no sense.
    Inval,
    /// `ENOSPC`: what was asked for cannot be kept.
    NoSpc,
    /// `ERANGE`: a weight or a threshold is out of range.
    Range,
    /// `EMSGSIZE`: a message has the wrong size.
    MsgSize,
    /// `ENOPROTOOPT`: there is no IPVS.
    NoProtoOpt,
    /// `EOPNOTSUPP`: this cannot be done here.
    OpNotSupp,
    /// `EAFNOSUPPORT`: neither IPv4 nor IPv6.
    AfNoSupport,
}

impl Errno {
    /// Linux's number on every architecture that rvs runs on.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Perm => 1,
            Self::NoEnt => 2,
            Self::Srch => 3,
            Self::Io => 5,
            Self::NoMem => 12,
            Self::Busy => 16,
            Self::Exist => 17,
            Self::NoDev => 19,
            Self::Inval => 22,
            Self::NoSpc => 28,
            Self::Range => 34,
            Self::MsgSize => 90,
            Self::NoProtoOpt => 92,
            Self::OpNotSupp => 95,
            Self::AfNoSupport => 97,
        }
    }

    /// What strerror(3) of glibc says.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Perm => "Operation not permitted",
            Self::NoEnt => "No such file or directory",
            Self::Srch => "No such process",
            Self::Io => "Input/output error",
            Self::NoMem => "Cannot allocate memory",
            Self::Busy => "Device or resource busy",
            Self::Exist => "File exists",
            Self::NoDev => "No such device",
            Self::Inval => "Invalid argument",
            Self::NoSpc => "No space left on device",
            Self::Range => "Numerical result out of range",
            Self::MsgSize => "Message too long",
            Self::NoProtoOpt => "Protocol not available",
            Self::OpNotSupp => "Operation not supported",
            Self::AfNoSupport => "Address family not supported by protocol",
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A request that was not carried out. Nothing has changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{}", message.as_deref().unwrap_or(errno.text()))]
pub struct Refusal {
    /// What the kernel would answer.
    pub errno: Errno,
    /// One line for a person, when the reason is rvs's own and the kernel has no words for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Refusal {
    /// rvs's own reason, in one line that begins with who says it.
    #[must_use]
    pub fn with_message(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: Some(message.into()) }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, message: None }
    }
}
