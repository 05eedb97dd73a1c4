//! All figures of a run, and what they mean: medians, and ratios formed within each round, so that a
//! machine which is busier at one time than at another does not decide.

use std::collections::BTreeMap;

use crate::load::{Figure, Load};
use crate::peer::Peer;

/// Figures by peer, load and round.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<(Peer, Load), BTreeMap<u32, Figure>>);

impl Figures {
    /// Adds one.
    pub fn add(&mut self, peer: Peer, load: Load, round: u32, figure: Figure) {
        self.0.entry((peer, load)).or_default().insert(round, figure);
    }

    fn median(&self, peer: Peer, load: Load, of: impl Fn(&Figure) -> f64) -> Option<f64> {
        median(self.0.get(&(peer, load))?.values().map(of).collect())
    }

    /// The median of what `of` makes of both peers' figures in the same round.
    fn paired(
        &self,
        (one, other): (Peer, Peer),
        load: Load,
        of: impl Fn(&Figure, &Figure) -> f64,
    ) -> Option<f64> {
        let others = self.0.get(&(other, load))?;
        let pairs = self.0.get(&(one, load))?.iter();
        median(pairs.filter_map(|(round, it)| Some(of(it, others.get(round)?))).collect())
    }

    /// The table.
    pub fn print(&self, peers: &[Peer]) {
        println!(
            "\n{:19} {:>9} {:>8} {:>7} {:>7} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>6}",
            "",
            "req/s",
            "conn/s",
            "Gbit/s",
            "x8",
            "kpps",
            "p50",
            "p99",
            "p99.9",
            "µs/req",
            "µs/conn",
            "µs/MB",
            "idle"
        );
        for peer in peers.iter().copied() {
            let value = |load| self.median(peer, load, |it| it.value);
            let cpu = |load| self.median(peer, load, |it| it.cpu_us);
            let tail = |place: usize| {
                self.median(peer, Load::Latency, |it| it.tail.get(place).copied().unwrap_or(0.0))
            };
            let idle = value(Load::Idle).filter(|_| peer.is_program());
            println!(
                "{:19} {:>9} {:>8} {:>7} {:>7} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>6}",
                peer.name(),
                shown(value(Load::Requests), 0),
                shown(value(Load::Connections), 0),
                shown(value(Load::Bulk), 2),
                shown(value(Load::Bulk8), 2),
                shown(value(Load::Small), 1),
                shown(value(Load::Latency), 0),
                shown(tail(0), 0),
                shown(tail(1), 0),
                shown(cpu(Load::Requests), 1),
                shown(cpu(Load::Connections), 1),
                shown(cpu(Load::Bulk), 0),
                idle.map_or("-".to_owned(), |share| format!("{share:.1} %")),
            );
        }
        println!(
            "\n{:19} as a part of nftables DNAT's; processor time as a part of forwarding's",
            ""
        );
        self.print_parts(peers, (Peer::Nftables, Peer::Forward));
        for floor in [Peer::TapFloor, Peer::AfXdpFloor] {
            let over = peers.iter().copied().filter(|peer| peer.floor() == Some(floor));
            let over: Vec<_> = over.collect();
            if over.contains(&floor) {
                println!("\n{:19} as a part of the {}'s", "", floor.name());
                self.print_parts(&over, (floor, floor));
            }
        }
        self.judge();
    }

    /// A line for each, as parts of what one has in value and the other in processor time.
    fn print_parts(&self, peers: &[Peer], (whole, whole_cpu): (Peer, Peer)) {
        for peer in peers.iter().copied() {
            let value = |load| self.paired((peer, whole), load, |it, other| it.value / other.value);
            let cpu =
                |load| self.paired((peer, whole_cpu), load, |it, other| it.cpu_us / other.cpu_us);
            println!(
                "{:19} {:>9} {:>8} {:>7} {:>7} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7}",
                peer.name(),
                shown(value(Load::Requests), 2),
                shown(value(Load::Connections), 2),
                shown(value(Load::Bulk), 2),
                shown(value(Load::Bulk8), 2),
                shown(value(Load::Small), 2),
                shown(value(Load::Latency), 2),
                "",
                "",
                shown(cpu(Load::Requests), 2),
                shown(cpu(Load::Connections), 2),
                shown(cpu(Load::Bulk), 2),
            );
        }
    }

    /// What rvs is to reach, and what the floor of its links does: nobody gets further.
    fn judge(&self) {
        println!();
        for (peer, least) in [(Peer::RvsTap, 0.9), (Peer::RvsAfXdp, 1.0)] {
            let both = |of: &dyn Fn(Peer) -> Option<f64>| {
                (of(peer), peer.floor().and_then(|floor| Some((floor, of(floor)?))))
            };
            for (load, what) in [(Load::Requests, "requests"), (Load::Bulk, "bulk")] {
                let ratio = both(&|of| {
                    self.paired((of, Peer::Nftables), load, |it, other| it.value / other.value)
                });
                let claim = format!("{}: {what} at least {least} of nftables DNAT's", peer.name());
                tell(&claim, ratio, |ratio| ratio >= least);
            }
            for (load, what) in [(Load::Requests, "request"), (Load::Connections, "connection")] {
                // A peer that does less than routing adds nothing.
                let added = |of| {
                    self.paired((of, Peer::Forward), load, |it, floor| it.cpu_us - floor.cpu_us)
                };
                let part = both(&|of| Some(added(of)? / added(Peer::Haproxy)?));
                let claim =
                    format!("{}: time added to a {what} at most 0.25 of HAProxy's", peer.name());
                tell(&claim, part, |part| part <= 0.25);
            }
            let idle = self.median(peer, Load::Idle, |it| it.value);
            let claim = format!("{}: idle below 2 % of a core", peer.name());
            tell(&claim, (idle, None), |share| share < 2.0);
        }
    }
}

/// What was found, and what the floor that bounds it has.
type Found = (Option<f64>, Option<(Peer, f64)>);

fn tell(claim: &str, (found, floor): Found, holds: impl Fn(f64) -> bool) {
    if let Some(found) = found {
        let floor = floor
            .map_or(String::new(), |(floor, part)| format!(" (the {}: {part:.2})", floor.name()));
        println!("{} {claim}: {found:.2}{floor}", if holds(found) { "reached" } else { "MISSED " });
    }
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(half.checked_sub(1)?)?, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_formed_within_a_round() {
        let mut figures = Figures::default();
        for (round, nft, rvs) in [(1, 100.0, 90.0), (2, 10.0, 9.0), (3, 50.0, 55.0)] {
            for (peer, value) in [(Peer::Nftables, nft), (Peer::RvsTap, rvs)] {
                figures.add(peer, Load::Requests, round, Figure { value, ..Figure::default() });
            }
        }
        let ratio = |one: &Figure, other: &Figure| one.value / other.value;
        let pair = (Peer::RvsTap, Peer::Nftables);
        assert_eq!(figures.paired(pair, Load::Requests, ratio), Some(0.9));
        assert_eq!(figures.paired(pair, Load::Bulk, ratio), None);
    }
}
