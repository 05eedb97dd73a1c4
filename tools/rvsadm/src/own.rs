//! Commands that ipvsadm does not have. Each is a word in the place of the first option.

use crate::run::{Exit, FAILED, Session};
use rvs_api::{Reply, Request, Tunable};

/// How sysctl(8) calls what is known by its last word here.
const PREFIX: &str = "net.ipv4.vs.";

impl Session<'_> {
    /// Does what `words` say if the first of them is a command of our own.
    pub(crate) fn own(&mut self, words: &[&str]) -> Option<Result<(), Exit>> {
        let (command, words) = words.split_first()?;
        match *command {
            "tunable" => Some(self.tunable(words)),
            _ => None,
        }
    }

    /// `tunable`, `tunable NAME`, `tunable NAME=VALUE`, as many as there are words.
    fn tunable(&mut self, words: &[&str]) -> Result<(), Exit> {
        if words.is_empty() {
            return self.told(&Request::ListTunables { name: None }, tunable_row);
        }
        for word in words {
            let word = word.strip_prefix(PREFIX).unwrap_or(word);
            match word.split_once('=') {
                None => {
                    let name = Some(word.to_owned());
                    self.told(&Request::ListTunables { name }, tunable_told)?;
                }
                Some((name, value)) => {
                    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
                    self.told(&Request::SetTunable { name, value }, tunable_set)?;
                }
            }
        }
        Ok(())
    }

    /// Asks, and tells of each tunable in the answer what `line` makes of it.
    fn told(&mut self, request: &Request, line: fn(&Tunable) -> String) -> Result<(), Exit> {
        let outcome = self.ask(core::slice::from_ref(request))?.pop();
        match outcome {
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
