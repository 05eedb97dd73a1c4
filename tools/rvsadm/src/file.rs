//! `apply FILE` and `save`: all that a director has been told, as a file.

use crate::run::{Exit, FAILED, Session};
use rvs_api::{
    DestRule, Outcome, Reply, Request, Rules, ServiceEntry, ServiceRule, line_and_column,
};
use rvs_model::Setting;
use std::io::BufRead;

/// What names standard input.
const STDIN: &str = "-";

impl Session<'_> {
    /// `apply FILE [--dry-run]`
    pub(crate) fn apply(&mut self, words: &[&str], stdin: &mut dyn BufRead) -> Result<(), Exit> {
        let dry_run = words.contains(&"--dry-run");
        let files: Vec<_> = words.iter().filter(|word| **word != "--dry-run").collect();
        let [name] = files.as_slice() else {
            self.tell_err("apply needs one FILE, or - for standard input, and takes --dry-run\n");
            return Err(Exit(2));
        };
        let text = match **name {
            STDIN => std::io::read_to_string(stdin),
            path => std::fs::read_to_string(path),
        };
        let rules = text.map_err(|error| format!("{name}: {error}\n")).and_then(|text| {
            toml::from_str::<Rules>(&text).map_err(|error| told(name, &text, &error))
        });
        let rules = rules.map_err(|fault| {
            self.tell_err(&fault);
            Exit(2)
        })?;
        let asked = Request::Apply { rules: Box::new(rules), dry_run };
        match self.ask(&[asked])?.pop() {
            Some(Ok(Reply::Changes(changes))) if dry_run => {
                for change in &changes {
                    self.tell(&format!("{change}\n"));
                }
                Ok(())
            }
            Some(Err(refusal)) => {
                self.tell_err(&format!("{refusal}\n"));
                Err(Exit(FAILED))
            }
            _ => Ok(()),
        }
    }

    /// `save`
    pub(crate) fn save(&mut self, words: &[&str]) -> Result<(), Exit> {
        if !words.is_empty() {
            self.tell_err("save takes nothing\n");
            return Err(Exit(2));
        }
        let outcomes = self.ask(&[
            Request::GetTimeouts,
            Request::ListTunables { name: None },
            Request::ListDaemons,
            Request::ListServices { service: None },
        ])?;
        match rules(outcomes) {
            Ok(rules) => {
                // Everything in it can be written: keys are texts, and nothing is null.
                let text = toml::to_string(&rules).unwrap_or_default();
                self.tell(&text);
                Ok(())
            }
            Err(refusal) => {
                self.tell_err(&format!("{refusal}\n"));
                Err(Exit(FAILED))
            }
        }
    }
}

/// `FILE:LINE:COLUMN: what is wrong`
fn told(name: &str, text: &str, error: &toml::de::Error) -> String {
    if text.trim_start().starts_with('-') {
        return format!(
            "{name}: these are lines of -S, which -R takes: apply takes what save prints\n"
        );
    }
    let lines: Vec<_> = error.message().lines().map(str::trim).collect();
    let message = in_numbers(&lines.join(", "));
    match error.span() {
        Some(span) => {
            let (line, column) = line_and_column(text, span.start);
            format!("{name}:{line}:{column}: {message}\n")
        }
        None => format!("{name}: {message}\n"),
    }
}

/// What serde expects, in the words of people who do not know its types.
fn in_numbers(message: &str) -> String {
    let types = [
        ("a nonzero u32", "1 to 4294967295"),
        ("u32", "0 to 4294967295"),
        ("u16", "0 to 65535"),
        ("u8", "0 to 255"),
    ];
    let told = types.iter().find_map(|(name, numbers)| {
        let before = message.strip_suffix(name)?.strip_suffix("expected ")?;
        Some(format!("{before}expected {numbers}"))
    });
    told.unwrap_or_else(|| message.to_owned())
}

/// What was listed, as rules.
fn rules(outcomes: Vec<Outcome>) -> Result<Rules, rvs_api::Refusal> {
    let mut rules = Rules::default();
    for outcome in outcomes {
        match outcome? {
            Reply::Timeouts(timeouts) => rules.timeouts = timeouts.into(),
            Reply::Tunables(all) => {
                rules.ipvs = all.into_iter().map(|it| (it.name, Setting(it.value))).collect();
            }
            Reply::Daemons(daemons) => rules.daemon = Some(daemons),
            Reply::Services(entries) => {
                rules.service = Some(entries.into_iter().map(service).collect());
            }
            _ => {}
        }
    }
    Ok(rules)
}

fn service(entry: ServiceEntry) -> ServiceRule {
    // A listing has the one added last first.
    let dests = entry.dests.iter().rev();
    let dests = dests.map(|it| DestRule { dest: it.dest, attributes: it.attributes }).collect();
    ServiceRule { service: entry.service, attributes: entry.attributes, dests }
}
