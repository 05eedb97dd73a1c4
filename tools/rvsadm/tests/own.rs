//! Commands that ipvsadm does not have.

#![allow(clippy::unwrap_used, reason = "a test that fails shall stop")]

mod common;

use common::{LIMITS, RecordedNames, Said, Table};
use rvs_adm::run;
use rvs_api::{ConnEntry, ConnState};
use rvs_control::state::State;
use rvs_model::{Protocol, SYSCTLS, State as ConnStateName};

/// Not by ipvsadm's name, under which nothing is taken that it does not take.
fn as_rvsadm(table: &mut Table, line: &str) -> Said {
    let words = core::iter::once("rvsadm").chain(line.split_ascii_whitespace());
    let argv: Vec<String> = words.map(str::to_owned).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let names = RecordedNames::default();
    let status = run(&argv, &mut &b""[..], table, &names, &mut out, &mut err);
    Said { status, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn say(table: &mut Table, line: &str) -> Said {
    table.say(line, "", &RecordedNames::default())
}

#[test]
fn every_sysctl_is_listed_by_name_and_what_means_nothing_says_so() {
    let mut table = Table::new(State::new(LIMITS));
    let listed = say(&mut table, "tunable");
    assert_eq!((listed.status, listed.err.as_str()), (0, ""));
    assert_eq!(listed.out.lines().count(), SYSCTLS.len());
    assert!(listed.out.contains("\nconn_reuse_mode = 1\n"), "{}", listed.out);
    let conntrack = listed.out.lines().find(|line| line.starts_with("conntrack ")).unwrap();
    assert!(conntrack.starts_with("conntrack = 0    # no meaning here: "), "{conntrack}");
}

#[test]
fn a_sysctl_is_set_and_told_by_its_name() {
    let mut table = Table::new(State::new(LIMITS));
    let said = |out: &str| Said { status: 0, out: out.to_owned(), err: String::new() };
    assert_eq!(say(&mut table, "tunable conn_reuse_mode=3 net.ipv4.vs.sloppy_tcp=1"), said(""));
    let told = say(&mut table, "tunable conn_reuse_mode sloppy_tcp").out;
    assert!(told.starts_with("conn_reuse_mode = 3\n# when a SYN "), "{told}");
    assert!(told.contains("\n# 0 to 3; default \"1\"\nsloppy_tcp = 1\n"), "{told}");
    let kept = say(&mut table, "tunable conntrack=1");
    assert!(kept.out.starts_with("conntrack is kept, but has no meaning here: "), "{}", kept.out);
    assert_eq!(table.state.sysctls().get("conntrack").as_deref(), Some("1"));
}

#[test]
fn a_wrong_name_or_value_is_one_line_and_changes_nothing() {
    let mut table = Table::new(State::new(LIMITS));
    for (line, err) in [
        ("tunable secure_tcp=4", "rvsd: secure_tcp is 4, expected 0 to 3\n"),
        ("tunable sync_ports=3", "rvsd: sync_ports is 3, expected a power of two from 1 to 64\n"),
        ("tunable tcp_fin=1", "rvsd: net.ipv4.vs has no \"tcp_fin\"\n"),
        ("tunable tcp_fin", "rvsd: net.ipv4.vs has no \"tcp_fin\"\n"),
        ("tunable sloppy_tcp=1 drop_entry=9", "rvsd: drop_entry is 9, expected 0 to 3\n"),
        ("tunable sloppy_tcp=1 tcp_fin=9", "rvsd: net.ipv4.vs has no \"tcp_fin\"\n"),
    ] {
        let before = table.state.version();
        let said = say(&mut table, line);
        assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (255, "", err));
        assert_eq!(table.state.version(), before);
    }
}

#[test]
fn an_assignment_with_blanks_is_a_mistake_and_sets_nothing() {
    let mut table = Table::new(State::new(LIMITS));
    let before = table.state.version();
    let said = as_rvsadm(&mut table, "tunable sloppy_tcp = 1");
    let expected = "tunable takes NAME and NAME=VALUE, without blanks around =\n";
    assert_eq!((said.status, said.err.as_str(), said.out.as_str()), (2, expected, ""));
    assert_eq!(table.state.version(), before);
}

#[test]
fn a_fault_of_restore_names_its_line_and_ipvsadm_does_not() {
    let text =
        "-A -t 203.0.113.1:80 -s rr\n\n-A -t 203.0.113.1:80\n-A -t 203.0.113.2:80\n-D -t x\n";
    let restore = |program: &str| {
        let mut table = Table::new(State::new(LIMITS));
        let argv = [program.to_owned(), "-R".to_owned()];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let names = RecordedNames::default();
        let status = run(&argv, &mut text.as_bytes(), &mut table, &names, &mut out, &mut err);
        assert_eq!((status, table.state.services().count()), (2, 2));
        String::from_utf8(err).unwrap()
    };
    assert_eq!(
        restore("rvsadm"),
        "line 3: Service already exists\n\
         line 5: illegal virtual server address[:port] specified\n"
    );
    assert_eq!(
        restore("ipvsadm"),
        "Service already exists\nillegal virtual server address[:port] specified\n"
    );
}

#[test]
fn every_command_of_our_own_has_help() {
    let mut table = Table::new(State::new(LIMITS));
    for name in ["apply", "save", "tunable", "drain", "kill", "completions", "man"] {
        for help in ["--help", "-h"] {
            let said = as_rvsadm(&mut table, &format!("{name} {help}"));
            assert_eq!((said.status, said.err.as_str()), (0, ""), "{name}");
            assert!(said.out.contains(&format!("Usage: rvsadm {name}")), "{}", said.out);
        }
    }
    let said = as_rvsadm(&mut table, "drain --help");
    assert!(said.out.contains("--deadline <deadline>"), "{}", said.out);
}

fn served() -> Table {
    let mut table = Table::new(State::new(LIMITS));
    for line in [
        "-A -u 203.0.113.1:53 -s rr --stale-udp rebind",
        "-A -t 203.0.113.1:80 -s wlc",
        "-a -t 203.0.113.1:80 -r 192.0.2.11:8080 -m -w 3 -x 9",
    ] {
        assert_eq!(say(&mut table, line).status, 0, "{line}");
    }
    let conn = |client: &str, state| ConnEntry {
        protocol: Some(Protocol::Tcp),
        client: client.parse().unwrap(),
        vip: "203.0.113.1:80".parse().unwrap(),
        dest: "192.0.2.11:8080".parse().unwrap(),
        state: ConnState::Conn(state),
        expires_s: 59,
        age_s: 75,
        engine: None,
    };
    table.traffic.conns = vec![
        conn("198.51.100.7:4711", ConnStateName::Established),
        conn("198.51.100.130:4712", ConnStateName::FinWait),
    ];
    table
}

#[test]
fn what_becomes_of_stale_udp_is_listed_and_saved_where_it_is_said_and_nowhere_else() {
    let mut table = served();
    let listed = say(&mut table, "-Ln").out;
    assert!(listed.contains("UDP  203.0.113.1:53 rr stale-udp rebind\n"), "{listed}");
    assert!(listed.contains("TCP  203.0.113.1:80 wlc\n"), "{listed}");
    let saved = say(&mut table, "-Sn").out;
    assert!(saved.contains("-A -u 203.0.113.1:53 -s rr --stale-udp rebind\n"), "{saved}");
    let mut again = Table::new(State::new(LIMITS));
    again.say("-R", &saved, &RecordedNames::default());
    assert_eq!(say(&mut again, "-Sn").out, saved);
    let wrong = say(&mut table, "-A -u 203.0.113.2:53 --stale-udp drop");
    assert_eq!(wrong.status, 2);
    assert!(wrong.err.ends_with("expected keep, rebind or expire\n"), "{}", wrong.err);
}

#[test]
fn connections_are_chosen_by_service_server_client_and_state() {
    let mut table = served();
    for (line, count) in [
        ("-Lnc", 2),
        ("-Lnc -t 203.0.113.1:80", 2),
        ("-Lnc -t 203.0.113.1:80 -r 192.0.2.11", 2),
        ("-Lnc -r 192.0.2.11:80", 0),
        ("-Lnc -r 192.0.2.11:8080", 2),
        ("-Lnc --client 198.51.100.128/25", 1),
        ("-Lnc --client 198.51.100.7", 1),
        ("-Lnc --client 0.0.0.0/0", 2),
        ("-Lnc --client ::/0", 0),
        ("-Lnc --state fin_wait", 1),
    ] {
        let said = as_rvsadm(&mut table, line);
        assert_eq!((said.status, said.out.lines().count()), (0, 2 + count), "{line}: {said:?}");
    }
    for line in ["-Lnc --state GONE", "-Lnc --client 198.51.100.0/33", "-Ln --state CLOSE"] {
        let said = as_rvsadm(&mut table, line);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{line}");
        assert_eq!(said.err.lines().count(), 1, "{line}");
    }
    assert_eq!(say(&mut table, "-Lnc -t 203.0.113.1:80").status, 2, "ipvsadm does not choose");
}

#[test]
fn a_drain_sets_the_weight_alone_and_removes_what_is_empty() {
    let mut table = served();
    table.traffic.conns.clear();
    let drain = "drain -t 203.0.113.1:80 -r 192.0.2.11:8080 --deadline 10m";
    let said = as_rvsadm(&mut table, drain);
    let expected = "192.0.2.11:8080: no connections left\n";
    assert_eq!(said, Said { status: 0, out: expected.to_owned(), err: String::new() });
    let listed = as_rvsadm(&mut table, "-Ln --thresholds").out;
    assert!(listed.contains("192.0.2.11:8080              9          0 "), "{listed}");
    assert!(as_rvsadm(&mut table, "-Sn").out.contains("-r 192.0.2.11:8080 -m -w 0\n"));
    let said = as_rvsadm(&mut table, &format!("{drain} --then remove"));
    assert!(said.out.ends_with("192.0.2.11:8080: removed\n"), "{said:?}");
    let said = as_rvsadm(&mut table, drain);
    assert_eq!((said.status, said.err.as_str()), (255, "No such destination\n"));
}

#[test]
fn what_drain_and_kill_cannot_read_is_one_line() {
    let mut table = served();
    for line in [
        "drain -t 203.0.113.1:80",
        "drain -t 203.0.113.1:80 -r 192.0.2.11 --deadline soon",
        "drain -t 203.0.113.1:80 -r 192.0.2.11 --then drop",
        "drain -t 203.0.113.1:80 -r 192.0.2.11 --deadline",
        "drain -t 203.0.113.1:80 -r 192.0.2.11 --reset",
        "kill -t 203.0.113.1:80",
        "kill -t 203.0.113.1:80 --client here",
        "kill --client 198.51.100.7:4711",
    ] {
        let said = as_rvsadm(&mut table, line);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{line}: {said:?}");
        assert_eq!(said.err.lines().count(), 1, "{line}: {said:?}");
        assert!(!said.err.contains("delete-"), "{line}: {said:?}");
    }
    let said = as_rvsadm(&mut table, "drain -t 203.0.113.1:80");
    let expected = "You need to supply the 'real-server' option for the 'drain' command\n";
    assert_eq!(said.err, expected);
}

#[test]
fn a_word_that_is_no_command_is_named_beside_those_that_are() {
    let mut table = served();
    let said = as_rvsadm(&mut table, "appply rules.toml");
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    assert!(said.err.starts_with("appply: unknown command, expected apply, save, "), "{said:?}");
    let help = as_rvsadm(&mut table, "--help").out;
    assert!(help.contains("\n  drain   ") && help.contains("\n  --json"), "{help}");
    assert_eq!(say(&mut table, "appply rules.toml").status, 255);
    assert!(!say(&mut table, "--help").out.contains("drain"), "ipvsadm has none");
}
