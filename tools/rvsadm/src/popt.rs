//! How a command line falls into options and arguments: the rules of popt 1.19, `poptGetNextOpt()`.
//!
//! ```text
//!  -Ln            -L, then -n           --list         by its whole name only
//!  -t10.0.0.1:80  -t with its argument  -s=rr, --scheduler=rr, never -n=1
//!  -t=10.0.0.1    the same              --             all that follows are arguments
//!  -p -m          an optional argument is no word that begins with a dash
//!  word, -        arguments, wherever they stand
//! ```

use crate::option::{OPTIONS, Tag, Takes};

/// An option that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Found<'a> {
    pub(crate) tag: Tag,
    /// What it was given, if anything.
    pub(crate) value: Option<&'a str>,
}

/// Why there is no further option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Problem {
    /// `POPT_ERROR_NOARG`.
    MissingArgument,
    /// `POPT_ERROR_BADOPT`.
    UnknownOption,
    /// `POPT_ERROR_UNWANTEDARG`.
    UnwantedArgument,
}

impl Problem {
    /// What `poptStrerror()` says.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::MissingArgument => "missing argument",
            Self::UnknownOption => "unknown option",
            Self::UnwantedArgument => "option does not take an argument",
        }
    }
}

/// A command line being read.
#[derive(Debug)]
pub(crate) struct Popt<'a> {
    words: &'a [&'a str],
    /// The next word to look at.
    next: usize,
    /// What is left of a word of short options; empty after a trailing `=`.
    letters: Option<&'a str>,
    /// `--` was seen.
    only_arguments: bool,
    arguments: Vec<&'a str>,
}

impl<'a> Popt<'a> {
    /// Reads `argv` from its second word on: the first is the program.
    pub(crate) fn new(argv: &'a [&'a str]) -> Self {
        Self { words: argv, next: 1, letters: None, only_arguments: false, arguments: Vec::new() }
    }

    /// The next option; `None` when there is none left.
    pub(crate) fn next(&mut self) -> Option<Result<Found<'a>, Problem>> {
        loop {
            if let Some(letters) = self.letters.take() {
                return Some(self.short(letters));
            }
            let word = self.take_word()?;
            let dashed = if self.only_arguments { None } else { word.strip_prefix('-') };
            match dashed {
                None | Some("") => self.arguments.push(word),
                Some("-") => self.only_arguments = true,
                Some(dashed) => match dashed.strip_prefix('-') {
                    Some(long) => return Some(self.long(long)),
                    None => self.letters = Some(dashed),
                },
            }
        }
    }

    /// The word that was looked at last: `poptBadOption()`.
    pub(crate) fn last_word(&self) -> &'a str {
        self.next.checked_sub(1).and_then(|last| self.words.get(last)).copied().unwrap_or_default()
    }

    /// What was no option, in order; complete once there are no options left.
    pub(crate) fn arguments(&self) -> &[&'a str] {
        &self.arguments
    }

    fn take_word(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next = self.next.saturating_add(1);
        Some(word)
    }

    fn long(&mut self, text: &'a str) -> Result<Found<'a>, Problem> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let option = OPTIONS.iter().find(|option| option.long == name);
        let option = option.ok_or(Problem::UnknownOption)?;
        self.with_value(option.tag, option.takes, value)
    }

    fn short(&mut self, letters: &'a str) -> Result<Found<'a>, Problem> {
        let mut rest = letters.chars();
        let letter = rest.next().ok_or(Problem::UnknownOption)?;
        let option = OPTIONS.iter().find(|option| option.short == Some(letter));
        let option = option.ok_or(Problem::UnknownOption)?;
        let rest = rest.as_str();
        let value = rest.strip_prefix('=');
        let rest = Some(rest).filter(|rest| !rest.is_empty());
        if option.takes == Takes::Nothing {
            self.letters = rest;
            return self.with_value(option.tag, option.takes, value);
        }
        self.with_value(option.tag, option.takes, value.or(rest))
    }

    fn with_value(
        &mut self,
        tag: Tag,
        takes: Takes,
        value: Option<&'a str>,
    ) -> Result<Found<'a>, Problem> {
        let value = match (takes, value) {
            (Takes::Nothing, None) => None,
            (Takes::Nothing, Some(_)) => return Err(Problem::UnwantedArgument),
            (_, Some(value)) => Some(value),
            (Takes::Argument, None) => Some(self.take_word().ok_or(Problem::MissingArgument)?),
            (Takes::MaybeArgument, None) => match self.words.get(self.next) {
                Some(word) if !word.starts_with('-') => self.take_word(),
                _ => None,
            },
        };
        Ok(Found { tag, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::option::{Command, Opt};

    /// Options with their values, then what is wrong and with which word; and arguments.
    type Read = (Vec<(Tag, Option<String>)>, Option<(Problem, String)>, Vec<String>);

    fn read(line: &str) -> Read {
        let argv: Vec<&str> = line.split(' ').collect();
        let mut popt = Popt::new(&argv);
        let (mut found, mut problem) = (Vec::new(), None);
        while let (None, Some(next)) = (&problem, popt.next()) {
            match next {
                Ok(Found { tag, value }) => found.push((tag, value.map(str::to_owned))),
                Err(what) => problem = Some((what, popt.last_word().to_owned())),
            }
        }
        let arguments = popt.arguments().iter().map(|word| (*word).to_owned()).collect();
        (found, problem, arguments)
    }

    fn flag(tag: Tag) -> (Tag, Option<String>) {
        (tag, None)
    }

    fn given(tag: Tag, value: &str) -> (Tag, Option<String>) {
        (tag, Some(value.to_owned()))
    }

    const LIST: Tag = Tag::Command(Command::List);
    const NUMERIC: Tag = Tag::Option(Opt::Numeric);
    const SCHEDULER: Tag = Tag::Option(Opt::Scheduler);
    const PERSISTENT: Tag = Tag::Option(Opt::Persistent);

    #[test]
    fn short_options_may_share_a_word() {
        let connection = Tag::Option(Opt::Connection);
        assert_eq!(read("x -Lnc").0, [flag(LIST), flag(NUMERIC), flag(connection)]);
    }

    #[test]
    fn values_follow_in_the_word_or_behind_it() {
        for line in ["x -s rr", "x -srr", "x -s=rr", "x --scheduler rr", "x --scheduler=rr"] {
            assert_eq!(read(line).0, [given(SCHEDULER, "rr")], "{line}");
        }
        assert_eq!(read("x -s -L").0, [given(SCHEDULER, "-L")]);
        assert_eq!(read("x -s=").0, [given(SCHEDULER, "")]);
    }

    #[test]
    fn an_optional_value_does_not_begin_with_a_dash() {
        assert_eq!(read("x -p 5").0, [given(PERSISTENT, "5")]);
        assert_eq!(read("x -p -n").0, [flag(PERSISTENT), flag(NUMERIC)]);
        assert_eq!(read("x -p").0, [flag(PERSISTENT)]);
        assert_eq!(read("x -p-5").0, [given(PERSISTENT, "-5")]);
    }

    #[test]
    fn other_words_are_arguments_wherever_they_stand() {
        let (found, _, arguments) = read("x one -L - two -- -n three");
        assert_eq!(found, [flag(LIST)]);
        assert_eq!(arguments, ["one", "-", "two", "-n", "three"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_word() {
        for (line, problem, word) in [
            ("x -L -q", Problem::UnknownOption, "-q"),
            ("x -Lq", Problem::UnknownOption, "-Lq"),
            ("x -Ln=", Problem::UnwantedArgument, "-Ln="),
            ("x --list=n", Problem::UnwantedArgument, "--list=n"),
            ("x --lis", Problem::UnknownOption, "--lis"),
            ("x ---", Problem::UnknownOption, "---"),
            ("x --=5", Problem::UnknownOption, "--=5"),
            ("x -L -s", Problem::MissingArgument, "-s"),
        ] {
            assert_eq!(read(line).1, Some((problem, word.to_owned())), "{line}");
        }
    }
}
