//! What must not be: growth, frames without an account, drops without an explanation.

use std::fs;

use anyhow::{Context, Result};

/// Memory that may be touched late, and is none that leaked, in KB.
const RSS_SLACK_KB: u64 = 2048;

/// Why frames may be dropped by what happens here, each with its reason.
const EXPLAINED: [(&str, &str); 16] = [
    ("arp-ignored", "a kernel tells of its address"),
    ("consumed", "neighbours talk to each other"),
    ("ndp-ignored", "kernels look for routers and duplicates"),
    ("multicast", "kernels report the groups that they are in"),
    ("answered", "pings, and connections to ports without a service"),
    ("tx-full", "a link that is down takes no frame"),
    ("neighbor-unresolved", "servers are away for a moment"),
    ("neighbor-queue-full", "servers are away for a moment"),
    ("local-ignored", "segments for connections that a fault ended"),
    ("no-connection", "the same, from servers"),
    ("no-dest", "all destinations of a service are taken out for a moment"),
    ("too-big", "clients learn what goes through a tunnel"),
    ("overload", "floods and bulk take all the time there is"),
    ("fragment", "the rest of a datagram whose first fragment was one too many"),
    ("icmp-ignored", "a server's kernel tells when the program that unwraps tunnels is behind"),
    ("rate-limited", "the same flood meets a link that is down"),
];

/// What rvsd holds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Resident memory.
    pub rss_kb: u64,
    /// Open files.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Sample {
    /// Of a process.
    pub fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
        let count = |what: &str| {
            Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{process}/{what}"))?.count())
        };
        Ok(Self { rss_kb: rss.parse()?, descriptors: count("fd")?, threads: count("task")? })
    }
}

/// What grew between the first third and the end.
pub fn leaks(samples: &[Sample]) -> Vec<String> {
    let warm = samples.get(samples.len() / 3);
    let (Some(warm), Some(last)) = (warm, samples.last()) else { return Vec::new() };
    let mut wrong = Vec::new();
    if last.rss_kb > warm.rss_kb + RSS_SLACK_KB {
        wrong.push(format!("memory grew from {} to {} KB", warm.rss_kb, last.rss_kb));
    }
    if last.descriptors > warm.descriptors || last.threads > warm.threads {
        wrong.push(format!("descriptors or threads grew: {warm:?}, {last:?}"));
    }
    wrong
}

/// What the account says that must not be. `seen` are the frames that the kernel's ends of the cables
/// counted: taken by rvsd, and sent by it.
pub fn unexplained(account: &str, seen: [u64; 2]) -> Vec<String> {
    let mut wrong = Vec::new();
    if !account.lines().any(|line| line.starts_with("conservation:") && line.ends_with(": holds")) {
        wrong.push("frames are unaccounted for".to_owned());
    }
    // Reasons are indented.
    for line in account.lines().filter(|line| line.starts_with("  ")) {
        let reason = line.split_whitespace().next().unwrap_or_default();
        if !EXPLAINED.iter().any(|(name, _)| *name == reason) {
            wrong.push(format!("nothing explains {}", line.trim()));
        }
    }
    let left = account.lines().find(|line| line.starts_with("connections"));
    if left.is_none_or(|line| !line.ends_with(" 0 IPv4, 0 IPv6")) {
        wrong.push(format!("connections are left: {}", left.unwrap_or("no line of them")));
    }
    for (name, kernel) in ["received", "sent"].into_iter().zip(seen) {
        let line = account.lines().find_map(|line| line.strip_prefix(name));
        let own = line.and_then(|rest| rest.split_whitespace().next());
        if own.and_then(|own| own.parse().ok()) != Some(kernel) {
            let own = own.unwrap_or("nothing");
            wrong.push(format!("{name}: rvsd counted {own}, the kernel's links {kernel}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rss_kb: u64, descriptors: usize) -> Sample {
        Sample { rss_kb, descriptors, threads: 5 }
    }

    #[test]
    fn what_grows_after_it_was_warm_is_a_leak() {
        let warm = [sample(10_000, 20), sample(40_000, 21), sample(40_100, 21), sample(40_200, 21)];
        assert_eq!(leaks(&warm), Vec::<String>::new());
        let fat = [sample(40_000, 21), sample(40_000, 21), sample(50_000, 21)];
        assert_eq!(leaks(&fat).len(), 1);
        let open = [sample(40_000, 21), sample(40_000, 21), sample(40_000, 22)];
        assert_eq!(leaks(&open).len(), 1);
    }

    const GOOD: &str = "received  9 frames\nsent   6 frames\n  consumed    3  words\n\
                        connections   0 IPv4, 0 IPv6\n\
                        conservation: received 9 == sent 6 + dropped 3: holds";

    #[test]
    fn drops_that_nothing_explains_and_lost_frames_are_found() {
        assert_eq!(unexplained(GOOD, [9, 6]), Vec::<String>::new());
        let bad = "received 9 frames\nsent 6 frames\n  no-frame   3  words\n\
                   connections   1 IPv4, 0 IPv6\nconservation: VIOLATED by 1";
        assert_eq!(unexplained(bad, [9, 6]).len(), 3);
    }

    #[test]
    fn frames_that_only_one_side_of_a_cable_counted_are_found() {
        assert_eq!(unexplained(GOOD, [10, 6]).len(), 1);
        assert_eq!(unexplained(GOOD, [10, 7]).len(), 2);
        assert_eq!(unexplained("", [0, 0]).len(), 4, "nothing was said at all");
    }
}
