//! `apply`, `save`, `--json`, completions and the manual page.
#![allow(clippy::unwrap_used, reason = "a test that fails shall stop")]

mod common;

use common::{LIMITS, RecordedNames, Said, Table};
use rvs_adm::run;
use rvs_control::state::State;
use serde_json::{Value, json};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::process::{Command, Stdio};

fn say(table: &mut Table, words: &[&str], stdin: &str) -> Said {
    let argv: Vec<String> =
        core::iter::once("rvsadm").chain(words.iter().copied()).map(str::to_owned).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let names = RecordedNames::default();
    let status = run(&argv, &mut stdin.as_bytes(), table, &names, &mut out, &mut err);
    Said { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn done(out: &str) -> Said {
    Said { status: 0, out: out.to_owned(), err: String::new() }
}

fn table() -> Table {
    Table::new(State::new(LIMITS).with_devices(["lan".to_owned()]))
}

/// A disk without room, or a pipe that nobody reads.
struct Broken(ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }
}

#[test]
fn rules_that_cannot_be_written_or_read_are_a_failure() {
    for (program, kind, words, status, told) in [
        ("rvsadm", ErrorKind::StorageFull, "-S", 1, "standard output: no storage space\n"),
        ("rvsadm", ErrorKind::StorageFull, "save", 1, "standard output: no storage space\n"),
        ("rvsadm", ErrorKind::IsADirectory, "-R", 1, "standard input: is a directory\n"),
        ("rvsadm", ErrorKind::BrokenPipe, "-S", 0, ""),
        ("ipvsadm", ErrorKind::StorageFull, "-S", 0, ""),
        ("ipvsadm", ErrorKind::IsADirectory, "-R", 0, ""),
    ] {
        let mut table = table();
        say(&mut table, &["-A", "-f", "1"], "");
        let argv = [program.to_owned(), words.to_owned()];
        let (mut stdin, mut err) = (BufReader::new(Broken(kind)), Vec::new());
        let names = RecordedNames::default();
        let came = run(&argv, &mut stdin, &mut table, &names, &mut Broken(kind), &mut err);
        assert_eq!((came, String::from_utf8(err).unwrap().as_str()), (status, told), "{argv:?}");
    }
}

/// The examples of the manual, by what they begin with.
fn example(kind: &str) -> &'static str {
    let manual = include_str!("../../../docs/manual/rvsadm.md");
    let (_, from) = manual.split_once(&format!("```{kind}\n")).unwrap();
    from.split("```").next().unwrap()
}

#[test]
fn the_manuals_file_is_applied_as_the_manual_says() {
    let mut table = table();
    let text = example("toml");
    let shown = say(&mut table, &["apply", "-", "--dry-run"], text);
    assert_eq!((shown.status, shown.err.as_str()), (0, ""), "{shown:?}");
    assert_eq!(table.state.services().count(), 0, "a dry run changes nothing");
    assert_eq!(say(&mut table, &["apply", "-"], text), done(""));
    assert_eq!(say(&mut table, &["apply", "-", "--dry-run"], text), done(""), "nothing is left");
    let changed = text.replace("weight = 2", "weight = 5");
    assert_ne!(changed, text);
    let shown = say(&mut table, &["apply", "-", "--dry-run"], &changed);
    assert_eq!(shown, done(example("dry-run")));
}

#[test]
fn what_a_dry_run_shows_makes_the_same_of_an_empty_table() {
    let (mut applied, mut restored) = (table(), table());
    let shown = say(&mut applied, &["apply", "-", "--dry-run"], example("toml"));
    assert_eq!(say(&mut applied, &["apply", "-"], example("toml")), done(""));
    for line in shown.out.lines() {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(say(&mut restored, &words, ""), done(""), "{line}");
    }
    let saved = say(&mut applied, &["save"], "");
    assert_eq!(say(&mut restored, &["save"], ""), saved);
}

#[test]
fn what_save_writes_apply_reads_and_nothing_changes() {
    let mut first = table();
    assert_eq!(say(&mut first, &["apply", "-"], example("toml")), done(""));
    let saved = say(&mut first, &["save"], "");
    assert_eq!((saved.status, saved.err.as_str()), (0, ""));
    assert_eq!(say(&mut first, &["apply", "-", "--dry-run"], &saved.out), done(""));
    let mut second = table();
    assert_eq!(say(&mut second, &["apply", "-"], &saved.out), done(""));
    assert_eq!(say(&mut second, &["save"], ""), saved);
    // Nothing at all is something, too.
    let nothing = say(&mut table(), &["save"], "").out;
    assert!(nothing.starts_with("daemon = []\nservice = []\n"), "{nothing}");
    assert_eq!(say(&mut second, &["apply", "-"], &nothing), done(""));
    assert_eq!(second.state.services().count(), 0);
}

#[test]
fn a_mistake_is_one_line_with_its_place_and_nothing_is_changed() {
    let mut table = table();
    let service = "[[service]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1:80\"\n";
    for (text, status, expected) in [
        ("[timeouts]\ntcp = 9\n", 2, "-:2:1: unknown field `tcp`, expected one of "),
        (
            "[timeouts]\nudp = 0\n",
            2,
            "-:2:7: invalid value: integer `0`, expected 1 to 4294967295\n",
        ),
        ("[[service]]\nprotocol = \"tcp\"\n", 2, "-:1:1: a service needs `protocol` and "),
        (
            "[[service]]\nprotocol = \"tcp\"\naddress = \"203.0.113.1\"\n",
            2,
            "-:3:11: address is \"203.0.113.1\", expected ADDRESS:PORT like \"203.0.113.1:80\" or ",
        ),
        (
            &format!(
                "{service}[[service.dest]]\naddress = \"192.0.2.1:1\"\nmethod = \"direct\"\nweight = -1\n"
            ),
            2,
            "-:7:10: invalid value: integer `-1`, expected 0 to 4294967295\n",
        ),
        ("-A -t 203.0.113.1:80 -s wlc\n", 2, "-: these are lines of -S, which -R takes: apply "),
        ("[ipvs]\nconn_reuse_mode = 9\n", 255, "rvsd: conn_reuse_mode is 9, expected 0 to 3"),
        (
            &format!("{service}{service}"),
            255,
            "rvsd: nothing was changed: service -t 203.0.113.1:80 is there twice",
        ),
        (
            &format!("{service}engine = \"sip\"\n"),
            255,
            "rvsd: nothing was changed: -A -t 203.0.113.1:80 -s wlc --pe sip: Scheduler or \
             persistence engine not found",
        ),
    ] {
        let said = say(&mut table, &["apply", "-"], text);
        assert_eq!((said.status, said.out.as_str()), (status, ""), "{text}: {said:?}");
        assert!(said.err.starts_with(expected), "{text}: {}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert_eq!(table.state.services().count(), 0);
    }
    for words in [&["apply"][..], &["apply", "-", "-"], &["apply", "/nowhere"], &["save", "all"]] {
        let said = say(&mut table, words, "");
        assert_eq!((said.status, said.err.lines().count()), (2, 1), "{words:?}: {said:?}");
    }
}

#[test]
fn json_has_the_names_of_the_manual_and_ipvsadm_has_none() {
    let mut table = table();
    assert_eq!(say(&mut table, &["apply", "-"], example("toml")), done(""));
    let mut read = |words: &[&str]| -> Value {
        let said = say(&mut table, words, "");
        assert_eq!((said.status, said.err.as_str()), (0, ""), "{words:?}");
        assert_eq!(said.out.lines().count(), 1);
        serde_json::from_str(&said.out).unwrap()
    };
    let listed = read(&["-Ln", "--json"]);
    assert_eq!(listed["version"], json!("1.2.1"));
    let expected: Value = serde_json::from_str(example("json")).unwrap();
    assert_eq!(listed["service"][0], expected);
    for words in [&["-L", "--json", "--stats"][..], &["--json", "-L", "--rate", "-n"]] {
        assert_eq!(read(words), listed);
    }
    let timeouts = json!({"timeouts": {"established": 1200, "fin_wait": 120, "udp": 300}});
    assert_eq!(read(&["-L", "--timeout", "--json"]), timeouts);
    let daemon = &read(&["-L", "--daemon", "--json"])["daemon"][0];
    assert_eq!((&daemon["state"], &daemon["interface"]), (&json!("master"), &json!("lan")));
    assert_eq!(read(&["-Lnc", "--json"]), json!({"connection": []}));
    let tunable = &read(&["tunable", "sloppy_tcp", "--json"])["tunable"][0];
    assert_eq!((&tunable["name"], &tunable["value"]), (&json!("sloppy_tcp"), &json!("1")));
    let wrong = say(&mut table, &["-C", "--json"], "");
    assert_eq!((wrong.status, wrong.err.lines().count()), (2, 1));
    assert_ne!(table.state.services().count(), 0, "nothing was cleared");
    let as_ipvsadm = table.say("-Ln --json", "", &RecordedNames::default());
    assert_eq!(as_ipvsadm.err, "--json: unknown option\n");
}

#[test]
fn completions_are_what_a_shell_can_read() {
    let made = say(&mut table(), &["completions", "bash"], "").out;
    let ask = "COMP_WORDS=(rvsadm apply --d); COMP_CWORD=2; _rvsadm rvsadm --d apply; \
               echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all((made + ask).as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--dry-run\n");
    for (shell, begins) in [("zsh", "#compdef rvsadm\n"), ("fish", "")] {
        let made = say(&mut table(), &["completions", shell], "");
        assert!(made.status == 0 && made.out.starts_with(begins) && made.out.len() > 1000);
    }
    assert_eq!(say(&mut table(), &["completions", "cmd"], "").status, 2);
}

#[test]
fn the_manual_page_tells_of_every_command() {
    let page = say(&mut table(), &["man"], "").out;
    assert!(page.contains(".TH rvsadm 1"), "{page}");
    for word in ["apply", "save", "drain", "tunable", "stale", "weight"] {
        assert!(page.contains(word), "{word}");
    }
}
