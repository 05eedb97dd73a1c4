//! Commands that ipvsadm does not have. Each is a word in the place of the first option.

use crate::args::{Line, Stop};
use crate::cli;
use crate::drain::{self, Plan};
use crate::json;
use crate::option::{Command, Options};
use crate::run::{Exit, FAILED, Session, is_ipvsadm};
use rvs_api::{Reply, Request, Rules, ServiceKey, Tunable, words};
use rvs_model::Setting;
use std::io::BufRead;

/// How sysctl(8) calls what is known by its last word here.
const PREFIX: &str = "net.ipv4.vs.";

impl Session<'_> {
    /// Does what `words` say if the first of them is a command of our own.
    pub(crate) fn own(
        &mut self,
        words: &[&str],
        stdin: &mut dyn BufRead,
    ) -> Option<Result<(), Exit>> {
        let (command, words) = words.split_first()?;
        if words.iter().any(|word| matches!(*word, "--help" | "-h"))
            && let Some(text) = cli::help(command)
        {
            self.tell(&text);
            return Some(Ok(()));
        }
        match *command {
            "tunable" => Some(self.tunable(words)),
            "kill" => Some(self.kill(words)),
            "drain" => Some(self.drain(words)),
            "apply" => Some(self.apply(words, stdin)),
            "save" => Some(self.save(words)),
            "completions" => Some(self.completions(words)),
            "man" => Some(self.manual_page(words)),
            word if !is_ipvsadm(self.program) && !word.starts_with('-') => {
                let known = cli::names().join(", ");
                self.tell_err(&format!("{word}: unknown command, expected {known} or an option\n"));
                Some(Err(Exit(2)))
            }
            _ => None,
        }
    }

    /// `completions SHELL`
    fn completions(&mut self, words: &[&str]) -> Result<(), Exit> {
        match words {
            [shell] if let Some(text) = cli::completions(shell) => {
                self.tell(&text);
                Ok(())
            }
            _ => {
                self.tell_err("completions needs bash, zsh or fish\n");
                Err(Exit(2))
            }
        }
    }

    /// `man`
    fn manual_page(&mut self, words: &[&str]) -> Result<(), Exit> {
        if let Some(text) = cli::manual_page().filter(|_| words.is_empty()) {
            self.tell(&text);
            return Ok(());
        }
        self.tell_err("man takes nothing\n");
        Err(Exit(2))
    }

    /// `kill -t VIP:PORT --client ADDRESS:PORT`: the ends that `-Lnc` lists.
    fn kill(&mut self, words: &[&str]) -> Result<(), Exit> {
        let (client, rest) = self.take(words, "--client")?;
        let line = self.command_of("kill", Command::DeleteService, &rest)?;
        let client = client.and_then(|text| text.parse().ok());
        let (Some(client), ServiceKey::Address { protocol, address: vip }) = (client, line.key())
        else {
            self.tell_err("kill needs -t, -u or --sctp-service and --client ADDRESS:PORT\n");
            return Err(Exit(2));
        };
        self.change(&Request::KillConn { protocol, client, vip })
    }

    /// `drain -t VIP:PORT -r SERVER [--deadline TIME [--reset]] [--then remove]`.
    fn drain(&mut self, words: &[&str]) -> Result<(), Exit> {
        let (deadline, rest) = self.take(words, "--deadline")?;
        let (then, mut rest) = self.take(&rest, "--then")?;
        let others = rest.len();
        rest.retain(|word| *word != "--reset");
        let resets = rest.len() < others;
        if resets && deadline.is_none() {
            self.tell_err("--reset is what happens at the --deadline, which is missing\n");
            return Err(Exit(2));
        }
        let deadline = match deadline.map(|text| drain::time(text).ok_or(text)) {
            None => None,
            Some(Ok(time)) => Some(time),
            Some(Err(text)) => {
                let fault =
                    format!("illegal deadline `{text}', expected a time like 90s, 10m or 1h\n");
                self.tell_err(&fault);
                return Err(Exit(2));
            }
        };
        let removes = match then {
            None => false,
            Some("remove") => true,
            Some(word) => {
                self.tell_err(&format!("illegal --then `{word}', expected remove\n"));
                return Err(Exit(2));
            }
        };
        let line = self.command_of("drain", Command::DeleteDest, &rest)?;
        drain::run(self, &line, &Plan { deadline, resets, removes })
    }

    /// The value of option `name`, if it is among `words`, and the other words.
    fn take<'w>(
        &mut self,
        words: &[&'w str],
        name: &str,
    ) -> Result<(Option<&'w str>, Vec<&'w str>), Exit> {
        let mut rest = words.to_vec();
        let Some(at) = words.iter().position(|word| *word == name) else { return Ok((None, rest)) };
        if at + 1 >= rest.len() {
            self.tell_err(&format!("{name}: missing argument\n"));
            return Err(Exit(2));
        }
        let value = rest.remove(at + 1);
        rest.remove(at);
        Ok((Some(value), rest))
    }

    /// Reads words as those of an ipvsadm command that takes what ours, `name`, takes.
    fn command_of(&mut self, name: &str, theirs: Command, words: &[&str]) -> Result<Line, Exit> {
        let command = format!("--{theirs}");
        let argv = [&[self.program, command.as_str()], words].concat();
        let stop = match Line::read(&argv, self.names) {
            Ok(line) => return Ok(line),
            // Who typed our command is told of that.
            Err(Stop::Exit(status, text)) => Stop::Exit(
                status,
                text.replace(&format!("'{theirs}' command"), &format!("'{name}' command")),
            ),
            Err(stop) => stop,
        };
        self.stop(stop)?;
        Err(Exit(FAILED))
    }

    /// Asks for one change.
    pub(crate) fn change(&mut self, request: &Request) -> Result<(), Exit> {
        match self.ask(core::slice::from_ref(request))?.pop() {
            Some(Err(refusal)) => {
                self.tell_err(&format!("{}\n", words::text(request.into(), &refusal)));
                Err(Exit(FAILED))
            }
            _ => Ok(()),
        }
    }

    /// `tunable`, `tunable NAME`, `tunable NAME=VALUE`, as many as there are words; of the latter all
    /// or none.
    fn tunable(&mut self, words: &[&str]) -> Result<(), Exit> {
        if words.is_empty() {
            return self.told(&Request::ListTunables { name: None }, tunable_row);
        }
        let words = words.iter().map(|word| word.strip_prefix(PREFIX).unwrap_or(word));
        let words: Vec<_> = words.map(|word| word.split_once('=').ok_or(word)).collect();
        if words.iter().any(|word| matches!(word, Ok(("", _)) | Err(""))) {
            self.tell_err("tunable takes NAME and NAME=VALUE, without blanks around =\n");
            return Err(Exit(2));
        }
        self.try_tunables(words.iter().filter_map(|word| word.ok()))?;
        for word in words {
            match word {
                Err(name) => {
                    let name = Some(name.to_owned());
                    self.told(&Request::ListTunables { name }, tunable_told)?;
                }
                Ok((name, value)) => {
                    let (name, value) = (name.to_owned(), value.trim().to_owned());
                    self.told(&Request::SetTunable { name, value }, tunable_set)?;
                }
            }
        }
        Ok(())
    }

    /// Has rvsd say whether it would take all of these.
    fn try_tunables<'w>(
        &mut self,
        settings: impl Iterator<Item = (&'w str, &'w str)>,
    ) -> Result<(), Exit> {
        let setting =
            |(name, value): (&str, &str)| (name.to_owned(), Setting(value.trim().to_owned()));
        let rules = Rules { ipvs: settings.map(setting).collect(), ..Rules::default() };
        if rules.ipvs.len() < 2 {
            return Ok(());
        }
        match self.ask(&[Request::Apply { rules: Box::new(rules), dry_run: true }])?.pop() {
            Some(Err(refusal)) => {
                self.tell_err(&format!("{refusal}\n"));
                Err(Exit(FAILED))
            }
            _ => Ok(()),
        }
    }

    /// Asks, and tells of each tunable in the answer what `line` makes of it.
    fn told(&mut self, request: &Request, line: fn(&Tunable) -> String) -> Result<(), Exit> {
        let outcome = self.ask(core::slice::from_ref(request))?.pop();
        match outcome {
            Some(Ok(reply)) if self.json => {
                self.tell(&json::text(json::Head::default(), Options::default(), &reply));
                Ok(())
            }
            Some(Ok(Reply::Tunables(tunables))) => {
                let text: String = tunables.iter().map(line).collect();
                self.tell(&text);
                Ok(())
            }
            Some(Ok(_)) | None => Ok(()),
            Some(Err(refusal)) => {
                self.tell_err(&format!("{refusal}\n"));
                Err(Exit(FAILED))
            }
        }
    }
}

/// `NAME = VALUE`, which sysctl(8) writes alike.
fn tunable_row(tunable: &Tunable) -> String {
    let Tunable { name, value, sentence, has_effect, .. } = tunable;
    if *has_effect {
        format!("{name} = {value}\n")
    } else {
        format!("{name} = {value}    # {sentence}\n")
    }
}

fn tunable_told(tunable: &Tunable) -> String {
    let Tunable { name, value, default, allowed, sentence, .. } = tunable;
    format!("{name} = {value}\n# {sentence}\n# {allowed}; default {default:?}\n")
}

/// Nothing, unless there is something to know.
fn tunable_set(tunable: &Tunable) -> String {
    let Tunable { name, sentence, has_effect, .. } = tunable;
    if *has_effect { String::new() } else { format!("{name} is kept, but has {sentence}\n") }
}
