//! Which options a command and a tunnel must, may and cannot have.

use crate::option::{Command, Opt, Options};
use rvs_api::TunnelKind;

/// The rules of one command or tunnel; what is in no list is illegal.
struct Rules {
    required: &'static [Opt],
    optional: &'static [Opt],
    /// At most one of these.
    exclusive: &'static [Opt],
}

const NOTHING: Rules = Rules { required: &[], optional: &[], exclusive: &[] };

const SERVICE: Rules = Rules {
    required: &[Opt::Service],
    optional: &[
        Opt::Scheduler,
        Opt::Persistent,
        Opt::Netmask,
        Opt::OnePacket,
        Opt::Engine,
        Opt::SchedulerFlags,
        Opt::StaleUdp,
    ],
    exclusive: &[],
};

const DEST: Rules = Rules {
    required: &[Opt::Service, Opt::Server],
    optional: &[
        Opt::Forward,
        Opt::Weight,
        Opt::UpperThreshold,
        Opt::LowerThreshold,
        Opt::TunType,
        Opt::TunPort,
        Opt::TunNoCsum,
        Opt::TunCsum,
        Opt::TunRemCsum,
    ],
    exclusive: &[],
};

const LIST: Rules = Rules {
    required: &[],
    optional: &[
        Opt::Numeric,
        Opt::Stats,
        Opt::Rate,
        Opt::Thresholds,
        Opt::PersistentConn,
        Opt::NoSort,
        Opt::SyncId,
        Opt::Exact,
        Opt::TunInfo,
    ],
    exclusive: &[Opt::Connection, Opt::Service, Opt::Timeout, Opt::Daemon],
};

/// What ipvsadm does not do: connections that are chosen.
const LIST_SOME_CONNS: Rules = Rules {
    required: &[Opt::Connection],
    optional: &[
        Opt::Numeric,
        Opt::PersistentConn,
        Opt::NoSort,
        Opt::Service,
        Opt::Server,
        Opt::Client,
        Opt::State,
    ],
    exclusive: &[],
};

const START_DAEMON: Rules = Rules {
    optional: &[
        Opt::McastInterface,
        Opt::SyncId,
        Opt::McastGroup,
        Opt::McastPort,
        Opt::McastTtl,
        Opt::SyncMaxlen,
    ],
    ..NOTHING
};

fn of_command(command: Command) -> Rules {
    match command {
        Command::AddService | Command::EditService => SERVICE,
        Command::DeleteService => Rules { required: &[Opt::Service], ..NOTHING },
        Command::List => LIST,
        Command::AddDest | Command::EditDest => DEST,
        Command::DeleteDest => Rules { required: &[Opt::Service, Opt::Server], ..NOTHING },
        Command::StartDaemon => START_DAEMON,
        Command::StopDaemon => Rules { optional: &[Opt::SyncId], ..NOTHING },
        Command::Save => Rules { optional: &[Opt::Numeric], ..NOTHING },
        Command::Zero => Rules { optional: &[Opt::Service], ..NOTHING },
        Command::Flush | Command::SetTimeouts | Command::Restore => NOTHING,
    }
}

/// The options that say how a tunnel wraps, in the order in which they are checked.
const TUNNEL_OPTIONS: [Opt; 4] = [Opt::TunPort, Opt::TunNoCsum, Opt::TunCsum, Opt::TunRemCsum];

/// All that need a tunnel.
pub(crate) const NEED_TUNNEL: [Opt; 5] =
    [Opt::TunType, Opt::TunPort, Opt::TunNoCsum, Opt::TunCsum, Opt::TunRemCsum];

fn of_tunnel(kind: TunnelKind) -> Rules {
    match kind {
        TunnelKind::Ipip => NOTHING,
        TunnelKind::Gue => Rules {
            required: &[Opt::TunPort],
            exclusive: &[Opt::TunNoCsum, Opt::TunCsum, Opt::TunRemCsum],
            ..NOTHING
        },
        TunnelKind::Gre => Rules { exclusive: &[Opt::TunNoCsum, Opt::TunCsum], ..NOTHING },
    }
}

/// What is wrong with the options of a command. `strictly`: as ipvsadm would say.
pub(crate) fn check_command(
    command: Command,
    options: Options,
    strictly: bool,
) -> Result<(), String> {
    let chooses = options.has_any(&[Opt::Service, Opt::Server, Opt::Client, Opt::State]);
    let rules = match command {
        Command::List if !strictly && options.has(Opt::Connection) && chooses => LIST_SOME_CONNS,
        _ => of_command(command),
    };
    check(&rules, &Opt::ALL, options).map_err(|fault| format!("{fault} '{command}' command"))
}

/// What is wrong with the options of a tunnel.
pub(crate) fn check_tunnel(kind: TunnelKind, options: Options) -> Result<(), String> {
    check(&of_tunnel(kind), &TUNNEL_OPTIONS, options)
        .map_err(|fault| format!("{fault} '{kind}' tunnel type"))
}

/// The first fault, in words that end before whose fault it is.
fn check(rules: &Rules, order: &[Opt], options: Options) -> Result<(), String> {
    let mut chosen: Option<Opt> = None;
    for opt in order {
        let required = rules.required.contains(opt);
        if !options.has(*opt) {
            if required {
                return Err(format!("You need to supply the '{opt}' option for the"));
            }
        } else if rules.exclusive.contains(opt) {
            if let Some(other) = chosen {
                return Err(format!(
                    "The option '{opt}' conflicts with the '{other}' option in the"
                ));
            }
            chosen = Some(*opt);
        } else if !required && !rules.optional.contains(opt) {
            return Err(format!("Illegal '{opt}' option with the"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(opts: &[Opt]) -> Options {
        let mut all = Options::default();
        for opt in opts {
            assert!(all.insert(*opt));
        }
        all
    }

    #[test]
    fn the_first_fault_in_the_order_of_options_is_named() {
        let both = options(&[Opt::Weight, Opt::Netmask]);
        let text = check_command(Command::DeleteService, both, true).unwrap_err();
        assert_eq!(
            text,
            "You need to supply the 'service-address' option for the 'delete-service' command"
        );
        let text = check_command(Command::Flush, both, true).unwrap_err();
        assert_eq!(text, "Illegal 'netmask' option with the 'flush' command");
    }

    #[test]
    fn one_of_the_exclusive_options_is_enough() {
        assert_eq!(
            check_command(Command::List, options(&[Opt::Timeout, Opt::Numeric]), true),
            Ok(())
        );
        let text = check_command(Command::List, options(&[Opt::Daemon, Opt::Connection]), true);
        assert_eq!(
            text.unwrap_err(),
            "The option 'daemon' conflicts with the 'connection' option in the 'list' command"
        );
    }

    #[test]
    fn a_tunnel_has_its_own_rules() {
        assert_eq!(check_tunnel(TunnelKind::Ipip, Options::default()), Ok(()));
        assert!(check_tunnel(TunnelKind::Ipip, options(&[Opt::TunCsum])).is_err());
        assert!(check_tunnel(TunnelKind::Gue, Options::default()).is_err());
        assert_eq!(
            check_tunnel(TunnelKind::Gue, options(&[Opt::TunPort, Opt::TunRemCsum])),
            Ok(())
        );
        assert!(check_tunnel(TunnelKind::Gre, options(&[Opt::TunRemCsum])).is_err());
    }
}
