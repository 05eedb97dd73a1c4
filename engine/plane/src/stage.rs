//! Where a worker is in its breath, for whoever finds it dead or stalled.

use core::fmt;

/// A stage of a breath. One octet is written when it begins: a dozen a breath, none a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Stage {
    /// Between two breaths: it rests, or has not begun.
    #[default]
    Rest,
    /// Takes over a new snapshot.
    Apply,
    /// Asks its links for frames.
    Receive,
    /// Parses them.
    Classify,
    /// Looks for their connections.
    LookUp,
    /// Rewrites packets of known connections.
    Forward,
    /// Schedules new connections, hands packets over to other workers.
    Admit,
    /// Carries out verdicts: headers, answers of its own.
    Dispose,
    /// Puts fragments together.
    Fragments,
    /// Gives its links frames to send.
    Send,
    /// Ends connections whose time is over.
    Timers,
    /// Asks after neighbours and real servers.
    Neighbors,
    /// Does what the control plane asked for.
    Commands,
}

impl Stage {
    /// All of them, by number.
    pub const ALL: [Self; 13] = [
        Self::Rest,
        Self::Apply,
        Self::Receive,
        Self::Classify,
        Self::LookUp,
        Self::Forward,
        Self::Admit,
        Self::Dispose,
        Self::Fragments,
        Self::Send,
        Self::Timers,
        Self::Neighbors,
        Self::Commands,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rest => "between two breaths",
            Self::Apply => "taking over a snapshot",
            Self::Receive => "receiving",
            Self::Classify => "classifying frames",
            Self::LookUp => "looking connections up",
            Self::Forward => "forwarding",
            Self::Admit => "admitting new connections",
            Self::Dispose => "carrying out verdicts",
            Self::Fragments => "reassembling fragments",
            Self::Send => "sending",
            Self::Timers => "expiring connections",
            Self::Neighbors => "looking after neighbours",
            Self::Commands => "obeying the control plane",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_found_by_its_number() {
        for (stage, number) in Stage::ALL.into_iter().zip(0_u8..) {
            // JUSTIFICATION: a unit-only enum of u8.
            #[expect(clippy::as_conversions, reason = "the number is what is tested")]
            let is = stage as u8;
            assert_eq!(is, number, "{stage}");
        }
    }
}
