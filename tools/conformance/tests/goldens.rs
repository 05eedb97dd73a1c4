//! The project's own recordings, and what becomes of recordings that it does not have.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails shall stop")]

use rvs_conformance::golden::Golden;
use rvs_conformance::judge;
use rvs_conformance::run;
use rvs_conformance::tally::{Aspect, Ledger, Tally, Verdict};
use serde_json::{Value, json};
use std::path::Path;

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens");

/// What is compared today, by category: recordings that pass, and comparisons. Both may grow: where
/// the preload library is, those of `cli` are made with the unmodified ipvsadm, too.
const AT_LEAST: [(&str, usize, usize); 6] = [
    ("behaviour", 45, 4870),
    ("cli", 5, 354),
    ("environment", 1, 29),
    ("packets", 28, 956),
    ("scheduler", 112, 14369),
    ("states", 13, 6733),
];

#[test]
fn rvs_does_what_the_kernel_did_wherever_it_is_compared_and_stays_compared() {
    let report = run(Path::new(GOLDENS), |_| {}).unwrap();
    for outcome in &report.outcomes {
        assert_ne!(outcome.ledger.verdict(), Verdict::Failed, "{outcome}");
    }
    assert_eq!(report.outcomes.len(), 190 + 21, "all recordings are there");
    for (category, files, comparisons) in AT_LEAST {
        let of_it = report.outcomes.iter().filter(|outcome| outcome.category == category);
        let passed = of_it.filter(|outcome| outcome.ledger.verdict() == Verdict::Passed).count();
        let compared = report.category(category).total().compared;
        assert!(passed >= files, "{category}: {passed} recordings, {files} at least");
        assert!(compared >= comparisons, "{category}: {compared} compared, {comparisons} at least");
    }
}

fn read(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(format!("{GOLDENS}/{file}")).unwrap()).unwrap()
}

fn judged(golden: &Value) -> Ledger {
    let golden: Golden = serde_json::from_value(golden.clone()).unwrap();
    judge::recording(&golden).unwrap()
}

/// The judge must see what is wrong, or its approval is worth nothing.
#[test]
fn every_kind_of_wrong_value_is_a_difference() {
    let cases: [(&str, &str, Value); 9] = [
        ("scheduler/sched-rr-churn.json", "/events/0/4", json!("10.1.0.250:80")),
        ("scheduler/sched-rr-churn.json", "/save/0", json!("-A -t 10.0.0.100:80 -s lc")),
        ("states/tcp-nat-transitions.json", "/events/0/next", json!("ESTABLISHED")),
        ("states/tcp-nat-transitions.json", "/events/0/expires", json!(58)),
        ("states/tcp-nat-transitions.json", "/events/2/reply", json!("tcp flags 0x14")),
        ("states/tcp-nat-transitions.json", "/events/0/dactive", json!(0)),
        ("behaviour/expiry-nat.json", "/events/4/out", json!("10.0.0.100:80 > 172.16.1.9:2000")),
        ("packets/pkt-nat.json", "/events/0/out/0/smac", json!("020000000102")),
        ("cli/cli-empty.json", "/events/0/rc", json!(1)),
    ];
    for (file, place, wrong) in cases {
        let mut golden = read(file);
        let right = judged(&golden);
        assert_eq!(right.verdict(), Verdict::Passed);
        *golden.pointer_mut(place).unwrap() = wrong;
        let ledger = judged(&golden);
        assert_eq!(ledger.verdict(), Verdict::Failed, "{file} {place}");
        // A command is one of rvsadm, and of ipvsadm where that can be preloaded.
        let lost = |((aspect, right), (same, wrong)): ((Aspect, Tally), (Aspect, Tally))| {
            assert_eq!(aspect, same);
            right.equal - wrong.equal
        };
        let lost: Vec<usize> = right.tallies().zip(ledger.tallies()).map(lost).collect();
        assert_eq!(lost.iter().max(), Some(&1), "{file} {place}: only that one");
    }
}

#[test]
fn each_octet_of_a_packet_matters() {
    let golden = read("packets/pkt-nat.json");
    let hex = golden.pointer("/events/0/out/0/hex").unwrap().as_str().unwrap().to_owned();
    for place in (0..hex.len()).step_by(14) {
        let mut wrong = hex.clone().into_bytes();
        wrong[place] = if wrong[place] == b'0' { b'1' } else { b'0' };
        let mut golden = golden.clone();
        *golden.pointer_mut("/events/0/out/0/hex").unwrap() =
            Value::String(String::from_utf8(wrong).unwrap());
        assert_eq!(judged(&golden).verdict(), Verdict::Failed, "digit {place}");
    }
}

#[test]
fn what_is_not_known_is_not_covered_and_no_failure() {
    let setup = json!(["-A -t 10.0.0.100:80 -s rr", "-a -t 10.0.0.100:80 -r 10.1.0.2:80 -g"]);
    let golden = |more: Value| {
        let mut golden = json!({"schema": "ipvs-golden/1", "id": "x", "what": "x", "new": [1]});
        for (name, value) in more.as_object().unwrap() {
            golden[name] = value.clone();
        }
        golden
    };
    for (more, reason) in [
        (json!({"category": "weather", "events": [1, 2]}), "category weather"),
        (json!({"category": "sync", "events": []}), "synchronisation of connections"),
        (
            json!({"category": "behaviour", "marks": [{"match": "ct state new", "mark": 1}]}),
            "marks by \"ct state new\"",
        ),
        (
            json!({"category": "states", "setup": setup, "sysctl": {"snow": 1}}),
            "sysctl snow=1: rvsd: net.ipv4.vs has no \"snow\"",
        ),
        (
            json!({"category": "states", "setup": setup, "sysctl": {"conntrack": 1}}),
            "sysctl conntrack=1: no meaning here: there is no netfilter whose connections could be \
             kept",
        ),
        (
            json!({"category": "behaviour", "setup": setup, "events": [{"op": "thunder", "t": 1}]}),
            "from the first event of a kind that is not known",
        ),
        (
            json!({"category": "packets", "setup": setup, "events": [{"note": 5}]}),
            "from the first event of a kind that is not known",
        ),
    ] {
        let ledger = judged(&golden(more));
        assert_eq!(ledger.verdict(), Verdict::NotCovered, "{reason}");
        let reasons: Vec<_> = ledger.left_out().map(|(reason, _)| reason.to_owned()).collect();
        assert_eq!(reasons, [reason]);
    }
}

#[test]
fn a_sysctl_in_the_middle_takes_effect() {
    let tcp = |flags: &str, rs: Value| {
        json!({"op": "tcp", "flags": flags, "src": "172.16.1.1:2000", "dst": "10.0.0.100:80",
               "t": 0.0, "rs": rs})
    };
    let golden = json!({
        "schema": "ipvs-golden/1", "id": "x", "category": "behaviour",
        "setup": ["-A -t 10.0.0.100:80 -s rr", "-a -t 10.0.0.100:80 -r 10.1.0.2:80 -m -w 1"],
        "events": [
            tcp("A", Value::Null),
            {"op": "sysctl", "name": "sloppy_tcp", "value": 1},
            tcp("A", json!("10.1.0.2")),
            {"op": "sysctl", "name": "conntrack", "value": 1},
            tcp("A", json!("somewhere else, but nobody compares that")),
        ],
    });
    let ledger = judged(&golden);
    assert_eq!((ledger.verdict(), ledger.total().compared), (Verdict::Passed, 2), "{ledger:?}");
    assert_eq!(ledger.left_out_total(), 2);
}

#[test]
fn a_setup_that_rvs_refuses_with_the_kernels_error_is_a_failure() {
    let golden = json!({
        "schema": "ipvs-golden/1", "id": "x", "category": "behaviour",
        "setup": ["-a -t 10.0.0.100:80 -r 10.1.0.2:80 -m -w 1"],
    });
    let golden: Golden = serde_json::from_value(golden).unwrap();
    let failure = judge::recording(&golden).unwrap_err().to_string();
    assert!(failure.ends_with("status 255: Service not defined"), "{failure}");
}
