//! What people are told when rvsd refuses: the words of libipvs, by operation and error number.

use crate::{Errno, Refusal, Request};

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-Z`
    Zero,
    /// `-a`
    AddDest,
    /// `-e`
    EditDest,
    /// `-d`
    DeleteDest,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-L`
    ListServices,
    /// Anything else.
    Other,
}

impl From<&Request> for Operation {
    fn from(request: &Request) -> Self {
        match request {
            Request::AddService { .. } => Self::AddService,
            Request::EditService { .. } => Self::EditService,
            Request::DeleteService { .. } => Self::DeleteService,
            Request::Zero { .. } => Self::Zero,
            Request::AddDest { .. } => Self::AddDest,
            Request::EditDest { .. } => Self::EditDest,
            Request::DeleteDest { .. } => Self::DeleteDest,
            Request::StartDaemon(_) => Self::StartDaemon,
            Request::StopDaemon(_) => Self::StopDaemon,
            Request::ListServices { .. } => Self::ListServices,
            _ => Self::Other,
        }
    }
}

/// One line, without its end.
#[must_use]
pub fn text(operation: Operation, refusal: &Refusal) -> &str {
    if let Some(message) = &refusal.message {
        return message;
    }
    match (operation, refusal.errno) {
        (Operation::AddService, Errno::Exist) => "Service already exists",
        (Operation::AddService | Operation::EditService, Errno::NoEnt) => {
            "Scheduler or persistence engine not found"
        }
        (
            Operation::EditService
            | Operation::DeleteService
            | Operation::Zero
            | Operation::ListServices,
            Errno::Srch,
        ) => "No such service",
        (Operation::AddDest | Operation::EditDest | Operation::DeleteDest, Errno::Srch) => {
            "Service not defined"
        }
        (Operation::AddDest, Errno::Exist) => "Destination already exists",
        (Operation::EditDest | Operation::DeleteDest, Errno::NoEnt) => "No such destination",
        (Operation::StartDaemon, Errno::Exist) => "Daemon has already run",
        (Operation::StopDaemon, Errno::Srch) => "No daemon is running",
        (_, Errno::Perm) => "Permission denied (you must be root)",
        (_, Errno::Inval) => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        (_, Errno::NoMem) => "Memory allocation problem",
        (_, Errno::OpNotSupp) => "Operation not supported with IPv6",
        (_, Errno::AfNoSupport) => "Operation not supported with specified address family",
        (_, Errno::MsgSize) => "Module is wrong version",
        (_, errno) => errno.text(),
    }
}
