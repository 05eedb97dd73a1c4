//! Commands that ipvsadm does not have.

mod common;

use common::{LIMITS, RecordedNames, Said, Table};
use rvs_control::state::State;
use rvs_model::SYSCTLS;

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
    ] {
        let before = table.state.version();
        let said = say(&mut table, line);
        assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (255, "", err));
        assert_eq!(table.state.version(), before);
    }
}
