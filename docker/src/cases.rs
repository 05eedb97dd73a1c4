//! What is asked of a lab, and whether what came back is right.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::director::{Line, Stats};
use crate::inspect::Findings;
use crate::lab::{Lab, Setup, show_logs};
use crate::process::Limits;
use crate::stage::Stage;
use crate::topology::{Family, Topology};
use crate::web::{self, Answers};

/// How it went with one topology and one address family.
#[derive(Debug)]
pub struct Outcome {
    /// The topology's name.
    pub topology: String,
    /// Of the VIP and the dests.
    pub family: Family,
    /// What the client got.
    pub answers: Answers,
    /// The service's line of statistics.
    pub service: Line,
    /// What is not as it should be; empty when all is well.
    pub failures: Vec<String>,
}

impl Outcome {
    /// One that could not be played to its end.
    #[must_use]
    pub fn failed(topology: &Topology, family: Family, error: &anyhow::Error) -> Self {
        println!("   FAILED: {error:#}");
        Self {
            topology: topology.name.clone(),
            family,
            answers: Answers::default(),
            service: Line::default(),
            failures: vec![format!("{error:#}")],
        }
    }
}

/// Runs one topology for each of `families`. Whatever fails is part of the outcomes.
#[must_use]
pub fn run(
    topology: &Topology,
    families: &[Family],
    requests: u32,
    setup: &Setup,
    limits: &Limits,
) -> Vec<Outcome> {
    println!("\n== {}: {}", topology.name, topology.claim);
    let outcomes = match Lab::up(topology, setup, limits) {
        Ok(lab) => run_families(lab, families, requests, limits),
        Err(error) => {
            families.iter().map(|family| Outcome::failed(topology, *family, &error)).collect()
        }
    };
    if outcomes.iter().any(|outcome| !outcome.failures.is_empty())
        && let Err(error) = show_logs(topology, setup)
    {
        println!("   the logs could not be kept: {error:#}");
    }
    outcomes
}

fn run_families(lab: Lab<'_>, families: &[Family], requests: u32, limits: &Limits) -> Vec<Outcome> {
    let case = |family: &Family| run_family(&lab, *family, requests, limits);
    let mut outcomes: Vec<_> = families.iter().map(case).collect();
    if let Err(error) = end(lab, limits) {
        println!("   FAILED: {error:#}");
        for outcome in &mut outcomes {
            outcome.failures.push(format!("{error:#}"));
        }
    }
    outcomes
}

/// An orderly end, with a summary and nothing wrong in any frame.
///
/// # Errors
///
/// It is not, or tshark complains.
pub fn end(lab: Lab<'_>, limits: &Limits) -> Result<()> {
    let topology = lab.topology;
    let (summary, findings) = lab.end(limits)?;
    limits.say(topology, "rvsd ended in order; its summary:");
    show(&summary);
    if let Some(Findings { frames, complaints }) = findings {
        limits.say(topology, &format!("tshark looked at {frames} frames that rvsd sent"));
        let first: Vec<_> = complaints.iter().take(10).map(String::as_str).collect();
        let count = complaints.len();
        ensure!(count == 0, "tshark complains about {count} frames:\n{}", first.join("\n"));
    }
    Ok(())
}

/// Runs one address family in a topology that stands. What fails is printed.
#[must_use]
pub fn run_family(stage: &dyn Stage, family: Family, requests: u32, limits: &Limits) -> Outcome {
    let outcome = ask_family(stage, family, requests, limits);
    outcome.unwrap_or_else(|error| Outcome::failed(stage.topology(), family, &error))
}

fn ask_family(
    stage: &dyn Stage,
    family: Family,
    requests: u32,
    limits: &Limits,
) -> Result<Outcome> {
    let topology = stage.topology();
    let vip = SocketAddr::new(stage.vip(family)?, topology.service.port);
    stage.add_service(vip)?;

    limits.say(topology, &format!("{}: {requests} requests to http://{vip}/", family.name()));
    let client = topology.address_of("client", family)?;
    let curl = stage.command("client", "curl");
    let answers = web::ask(curl, client, vip, requests, stage.dir(), limits)?;
    for (server, count) in &answers.by_server {
        println!("{:16}{server} answered {count}", "");
    }

    println!("{:14}$ rvsadm -Ln", "");
    show(&stage.adm(&["-Ln"])?);
    let stats = stage.settled(vip, u64::from(requests), limits)?;
    println!("{:14}$ rvsadm -Ln --stats", "");
    show(&stage.adm(&["-Ln", "--stats"])?);
    stage.adm(&["-C"])?;

    let mut failures = Vec::new();
    for (claim, holds) in judge(topology, family, requests, &answers, &stats) {
        println!("{:14}{} {claim}", "", if holds { "ok    " } else { "FAILED" });
        if !holds {
            failures.push(claim);
        }
    }
    for word in answers.wrong.iter().chain(Some(&answers.complaints).filter(|c| !c.is_empty())) {
        println!("{:14}       {word}", "");
    }
    let topology = topology.name.clone();
    Ok(Outcome { topology, family, answers, service: stats.service, failures })
}

/// Each claim, and whether it holds.
fn judge(
    topology: &Topology,
    family: Family,
    requests: u32,
    answers: &Answers,
    stats: &Stats,
) -> Vec<(String, bool)> {
    let requests = u64::from(requests);
    let service = &topology.service;
    let answered = |dest: &String| answers.by_server.get(dest).copied().unwrap_or_default();
    let dests = u64::try_from(service.dests.len()).unwrap_or(u64::MAX);
    let share = requests.checked_div(dests).unwrap_or_default();
    let shares = service.dests.iter().map(answered);

    let counted = service.dests.iter().all(|dest| {
        let address = topology.address_of(dest, family);
        let line = stats.dests.iter().find(|(real, _)| address.as_ref().is_ok_and(|a| a == real));
        line.is_some_and(|(_, line)| line.conns == answered(dest))
    });
    let conns: u64 = stats.dests.iter().map(|(_, line)| line.conns).sum();

    let mut claims = vec![
        (
            format!("all {requests} requests were answered, each on a connection of its own"),
            answers.total() == requests
                && answers.wrong.is_empty()
                && answers.complaints.is_empty()
                && answers.shared == 0,
        ),
        (
            "the servers saw the client's own address".to_owned(),
            answers.total() > 0 && answers.disguised == 0,
        ),
        (
            format!("{} gave every server its share", service.scheduler),
            shares.clone().sum::<u64>() == requests
                && shares.clone().all(|n| n == share || n == share + 1),
        ),
        (
            format!("rvsadm counts {requests} connections, each where it was answered"),
            stats.service.conns == requests && conns == requests && counted,
        ),
    ];
    let Line { in_packets, out_packets, .. } = stats.service;
    claims.push(if service.method.replies_pass_director() {
        (
            format!(
                "both directions pass the director ({in_packets} packets in, {out_packets} out)"
            ),
            in_packets > requests && out_packets > requests,
        )
    } else {
        (
            format!("replies bypass the director ({in_packets} packets in, {out_packets} out)"),
            in_packets > requests && out_packets == 0,
        )
    });
    claims
}

/// Prints `text`, indented.
fn show(text: &str) {
    for line in text.lines() {
        println!("{:16}{line}", "");
    }
}

/// Prints the table of all outcomes and says whether all passed.
#[must_use]
pub fn conclude(outcomes: &[Outcome], requests: u32, limits: &Limits) -> bool {
    let passed = outcomes.iter().filter(|outcome| outcome.failures.is_empty()).count();
    println!(
        "\n   method family  asked answered  Conns InPkts OutPkts  by server            result"
    );
    for outcome in outcomes {
        let shares = outcome.answers.by_server.iter().map(|(name, n)| format!("{name} {n}"));
        println!(
            "   {:6} {:6} {requests:6} {:8} {:6} {:6} {:7}  {:20} {}",
            outcome.topology,
            outcome.family.name(),
            outcome.answers.total(),
            outcome.service.conns,
            outcome.service.in_packets,
            outcome.service.out_packets,
            shares.collect::<Vec<_>>().join(", "),
            if outcome.failures.is_empty() { "PASS" } else { "FAIL" },
        );
        for failure in &outcome.failures {
            println!("          not so: {failure}");
        }
    }
    let all = !outcomes.is_empty() && passed == outcomes.len();
    println!(
        "\n{}: {passed} of {} cases in {:.0} s",
        if all { "PASS" } else { "FAIL" },
        outcomes.len(),
        limits.elapsed().as_secs_f32()
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(topology: &Topology) -> (Answers, Stats) {
        let mut answers = Answers::default();
        let out_packets = if topology.service.method.replies_pass_director() { 5 } else { 0 };
        let line = |conns| Line { conns, in_packets: 6 * conns, out_packets: out_packets * conns };
        let names = &topology.service.dests;
        let count = u64::try_from(names.len()).unwrap();
        let mut dests = Vec::new();
        for (name, number) in names.iter().zip(0..) {
            let share = 100 / count + u64::from(number < 100 % count);
            answers.by_server.insert(name.clone(), share);
            dests.insert(0, (topology.address_of(name, Family::V4).unwrap(), line(share)));
        }
        (answers, Stats { service: line(100), dests })
    }

    fn failed(topology: &Topology, answers: &Answers, stats: &Stats) -> usize {
        let claims = judge(topology, Family::V4, 100, answers, stats);
        claims.iter().filter(|(_, holds)| !holds).count()
    }

    #[test]
    fn agreement_of_answers_and_counters_passes() {
        for (name, _) in crate::topology::BUILT_IN {
            let topology = Topology::load(name).unwrap();
            let (answers, stats) = good(&topology);
            assert_eq!(failed(&topology, &answers, &stats), 0, "{name}");
        }
    }

    #[test]
    fn each_disagreement_fails() {
        let dr = Topology::load("dr").unwrap();
        let (answers, stats) = good(&dr);

        let mut one_missing = answers.clone();
        one_missing.by_server.insert("rs1".to_owned(), 49);
        assert_ne!(failed(&dr, &one_missing, &stats), 0);

        let mut lopsided = answers.clone();
        lopsided.by_server.extend([("rs1".to_owned(), 52), ("rs2".to_owned(), 48)]);
        assert_ne!(failed(&dr, &lopsided, &stats), 0);

        let disguised = Answers { disguised: 1, ..answers.clone() };
        assert_eq!(failed(&dr, &disguised, &stats), 1);

        let shared = Answers { shared: 1, ..answers.clone() };
        assert_eq!(failed(&dr, &shared, &stats), 1);

        let mut through = stats.clone();
        through.service.out_packets = 1;
        assert_eq!(failed(&dr, &answers, &through), 1);

        let mut miscounted = stats;
        miscounted.dests[0].1.conns = 49;
        assert_eq!(failed(&dr, &answers, &miscounted), 1);
    }
}
