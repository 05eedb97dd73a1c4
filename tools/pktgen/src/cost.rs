//! What the generator itself costs: both ends at either side of a memory link, nobody between them.
//! A measurement of a director means little above half of what this says.

use crate::clock::Clock;
use crate::scenario::{Choice, Director, Kind, Scenario};
use crate::trial::{Plan, Traffic, number};
use crate::{Trouble, parse};
use rvs_io::memory;
use rvs_io::{BURST_MAX, Reserve};
use rvs_wire::mac::MacAddr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What was sent.
    pub what: String,
    /// Nanoseconds for a frame to be made, handed over, read, checked and judged.
    pub nanos: f64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44}{:>8.1} ns a frame{:>10.2} Mpps", self.what, self.nanos, 1e3 / self.nanos)
    }
}

/// Measures the usual kinds of packets, each for `duration`.
///
/// # Errors
///
/// [`Trouble::Interrupted`].
pub fn measure(
    duration: Duration,
    clock: &mut impl Clock,
    mut tell: impl FnMut(&Line),
) -> Result<(), Trouble> {
    // RFC 2544 appendix C and RFC 5180 section 8: networks for benchmarks.
    let ends: [(IpAddr, IpAddr); 2] = [
        (Ipv4Addr::new(198, 18, 0, 1).into(), Ipv4Addr::new(198, 19, 0, 1).into()),
        (
            Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1).into(),
        ),
    ];
    for (client, vip) in ends {
        for (kind, flows, sizes) in [
            (Kind::Udp, 1000, "100"),
            (Kind::Udp, 1_000_000, "100"),
            (Kind::Ack, 1000, "100"),
            (Kind::Udp, 1000, "imix"),
            (Kind::Udp, 1000, "1518"),
        ] {
            let scenario = Scenario {
                client,
                clients: 1000,
                vip: (vip, 80).into(),
                director: Director::Mac(MacAddr([2, 0x72, 0x76, 0, 0, 0])),
                reals: vec![client],
                flows,
                mix: vec![(kind, 1)],
                choice: Choice::Uniform,
                sizes: sizes.parse::<parse::Sizes>().map_err(Trouble::Asked)?.0,
                echo: false,
                replies: false,
                instance: 0,
                seed: 1,
            };
            let family = if client.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!("{family} {}, {flows} flows, {sizes} octets", kind.word());
            tell(&Line { what, nanos: nanos(scenario, duration, clock)? });
        }
    }
    Ok(())
}

fn nanos(scenario: Scenario, duration: Duration, clock: &mut impl Clock) -> Result<f64, Trouble> {
    let reserve = Reserve::new(8 * BURST_MAX, 1518);
    let (mut near, far) = memory::link(1, BURST_MAX, reserve.pool(), |_| 0);
    let near = near.pop().ok_or(Trouble::Interrupted)?;
    let mut traffic = Traffic::start(scenario, near, Some(far), reserve.pool(), clock)?;
    let plan = Plan {
        rate: None,
        duration,
        warm_up: duration / 4,
        drain: Duration::from_millis(10),
        burst: 32,
        sample: duration,
    };
    let trial = traffic.trial(&plan, clock, |_| {})?;
    let arrived = trial.servers.as_ref().map_or(0, |servers| servers.verdict.arrived);
    Ok(trial.seconds * 1e9 / number(arrived.max(1)))
}
