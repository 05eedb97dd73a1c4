//! What there is to say to `rvsadm`, as clap sees it: for completions and the manual page. Command
//! lines themselves are read as popt reads ipvsadm's.

use crate::option::{OPTIONS, Takes, Written};
use crate::usage;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::Shell;
use rvs_model::{SYSCTLS, SchedulerKind, StaleUdp, State};

/// The shells that completions are made for.
const SHELLS: [(&str, Shell); 3] =
    [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

/// What is not in ipvsadm's help.
const OWN: [(&str, &str); 4] = [
    ("stale-udp", "what becomes of UDP flows of a server that is removed or gets weight 0"),
    ("client", "with -Lc: connections of this client or network only"),
    ("state", "with -Lc: connections in this state only"),
    ("version", "display the version"),
];

/// The completions of a shell.
pub(crate) fn completions(shell: &str) -> Option<String> {
    let (_, shell) = SHELLS.into_iter().find(|(name, _)| *name == shell)?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "rvsadm", &mut text);
    String::from_utf8(text).ok()
}

/// The manual page, as troff.
pub(crate) fn manual_page() -> Option<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command()).render(&mut text).ok()?;
    String::from_utf8(text).ok()
}

fn command() -> Command {
    let mut command = Command::new("rvsadm")
        .about("Administers rvsd, a layer-4 load balancer: ipvsadm's commands, and more")
        .long_about(
            "Administers rvsd. The first option or word is the command; ipvsadm(8) says what \
             ipvsadm's do. RVS_SOCKET names rvsd's control socket, if not /run/rvs/rvsd.sock.",
        )
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("with -L and tunable: output for programs"),
        );
    for written in OPTIONS {
        // The second letter of one command.
        command = if written.short == Some('l') {
            command.mut_arg(written.long, |arg| arg.short_alias('l'))
        } else {
            command.arg(option(written))
        };
    }
    command.subcommands(subcommands())
}

fn option(written: &Written) -> Arg {
    let own = OWN.iter().find(|(long, _)| *long == written.long).map(|(_, help)| *help);
    let help = own.or_else(|| usage::of(written.long)).unwrap_or_default();
    let mut arg = Arg::new(written.long).long(written.long).help(help);
    if let Some(short) = written.short {
        arg = arg.short(short);
    }
    arg = match written.takes {
        Takes::Nothing => return arg.action(ArgAction::SetTrue),
        Takes::Argument => arg.num_args(1),
        Takes::MaybeArgument => arg.num_args(0..=1),
    };
    let one_of = |names: Vec<&'static str>| PossibleValuesParser::new(names);
    match written.long {
        "scheduler" => arg.value_parser(one_of(SchedulerKind::ALL.map(SchedulerKind::name).into())),
        "start-daemon" | "stop-daemon" => arg.value_parser(one_of(vec!["master", "backup"])),
        "tun-type" => arg.value_parser(one_of(vec!["ipip", "gue", "gre"])),
        "stale-udp" => arg.value_parser(one_of(StaleUdp::ALL.map(StaleUdp::name).into())),
        "state" => {
            let mut names = State::ALL.map(State::name).to_vec();
            names.sort_unstable();
            names.dedup();
            arg.value_parser(one_of(names))
        }
        "mcast-interface" => arg.value_hint(ValueHint::Other),
        _ => arg,
    }
}

/// What `rvsadm NAME --help` tells.
pub(crate) fn help(name: &str) -> Option<String> {
    let command = subcommands().into_iter().find(|command| command.get_name() == name)?;
    Some(command.bin_name(format!("rvsadm {name}")).render_help().to_string())
}

/// The words of rvsadm's own commands.
pub(crate) fn names() -> Vec<String> {
    subcommands().iter().map(|command| command.get_name().to_owned()).collect()
}

/// What `--help` tells of rvsadm's own commands, behind what it tells as ipvsadm.
pub(crate) fn summary() -> String {
    let line = |command: Command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<35} {about}\n", command.get_name())
    };
    let lines = subcommands().into_iter().map(line).collect::<String>();
    let json = "--json, with -L and tunable";
    format!(
        "\nCommands and options that ipvsadm does not have:\n{lines}  {json:<35} for programs\n"
    )
}

fn subcommands() -> Vec<Command> {
    let value = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    let service = |command: Command| {
        let named = ["tcp-service", "udp-service", "sctp-service", "fwmark-service"];
        let known = OPTIONS.iter().filter(|written| named.contains(&written.long));
        known.fold(command, |command, written| command.arg(option(written)))
    };
    let server = OPTIONS.iter().find(|written| written.long == "real-server").map(option);
    let made = |command: Command| command.disable_help_flag(true).disable_version_flag(true);
    let file = Arg::new("FILE").value_hint(ValueHint::FilePath).required(true);
    let dry_run = value("dry-run", "only shows what would change, as commands");
    let names: Vec<_> = SYSCTLS.iter().map(|sysctl| sysctl.name).collect();
    let shells = SHELLS.map(|(name, _)| name);
    [
        Command::new("apply")
            .about("changes everything into what a file says, all of it or nothing")
            .arg(file.help("TOML; - is standard input"))
            .arg(dry_run.action(ArgAction::SetTrue)),
        Command::new("save").about("writes everything as a file for apply"),
        Command::new("tunable")
            .about("lists, tells and sets what net.ipv4.vs has in the kernel")
            .arg(
                Arg::new("NAME[=VALUE]")
                    .num_args(0..)
                    .value_parser(PossibleValuesParser::new(names))
                    .hide_possible_values(true),
            ),
        service(Command::new("drain"))
            .about("takes a server out of service, and waits for its connections")
            .args(server)
            .arg(value("deadline", "ends those that are left after this time, like 90s, 10m, 1h"))
            .arg(
                Arg::new("reset")
                    .long("reset")
                    .action(ArgAction::SetTrue)
                    .help("tells both sides of those that end at the deadline, by RST"),
            )
            .arg(value("then", "what follows").value_parser(PossibleValuesParser::new(["remove"]))),
        service(Command::new("kill"))
            .about("ends one connection at once")
            .arg(value("client", "ADDRESS:PORT of its client")),
        Command::new("completions")
            .about("writes completions for a shell")
            .arg(Arg::new("SHELL").required(true).value_parser(PossibleValuesParser::new(shells))),
        Command::new("man").about("writes this page"),
    ]
    .map(made)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_in_it_and_everything_has_a_sentence() {
        let command = command();
        command.clone().debug_assert();
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some_and(|help| !help.to_string().is_empty()), "{arg}");
        }
    }
}
