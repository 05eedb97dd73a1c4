//! What control costs beside ten thousand services: how soon a worker sees a change, and what a
//! thousand changes a second take from it.
//!
//! ```text
//!  client ──control socket──► Director ──► Snapshot ──► Worker ◄──► Feed
//!  one thread                 rvsd's own threads         one thread, whose processor time counts
//! ```

use crate::case::{Case, Family, Mode};
use crate::feed::{Feed, OCTETS4};
use crate::measure::{median, processor_time};
use crate::rig::{Ends, Rig};
use anyhow::{Context, Result, ensure};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use rvs_api::{AddressFamily, Client, DestAttributes, Request, ServiceAttributes, ServiceKey};
use rvs_control::config::{Config, Machine};
use rvs_control::conns::Conns;
use rvs_control::desk::Desk;
use rvs_control::director::Director;
use rvs_control::socket::{Kind, Socket};
use rvs_model::{ForwardMethod, Protocol, Weight};
use rvs_plane::Shared;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Services, and destinations of each.
pub const SERVICES: u16 = 10_000;
/// Destinations of each service.
pub const DESTS: u8 = 10;
/// Changes a second.
const CHANGES: u32 = 1000;
/// Pairs of stretches with and without changes, one beside the other in time: what else the machine does
/// is in both.
const PAIRS: usize = 164;
/// Packets of one stretch.
const PACKETS: u32 = 1 << 19;
/// Changes whose way is timed.
const TIMED: usize = 1000;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// From a client's request to the end of a worker's breath that saw it: half of them were sooner.
    pub seen_median: Duration,
    /// 99 of 100 were sooner.
    pub seen_99: Duration,
    /// Nanoseconds of processor time that a packet takes a worker without changes.
    pub alone_ns: f64,
    /// How much more it is with changes, in percent.
    pub more: Interval,
    /// Changes a second that were made.
    pub changes: f64,
}

/// The median of what was measured, and what it would be within in 95 of 100 such measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Of these values, whatever their distribution: the ends are values themselves, by their ranks in a
    /// binomial distribution.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        // 1.96 standard deviations, each half of the root.
        let aside = values.len().isqrt() * 98 / 100 + 1;
        let at = |rank: usize| values.get(rank).or(values.last()).copied().unwrap_or_default();
        let high = middle + aside;
        Self { low: at(values.len().saturating_sub(high + 1)), median: at(middle), high: at(high) }
    }
}

/// The `number`th of the services, none of which gets packets.
#[must_use]
pub fn service(number: u16) -> ServiceKey {
    let [high, low] = number.to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(10, 1, high, low), 80));
    ServiceKey::Address { protocol: Protocol::Tcp, address }
}

/// The `number`th destination of a service.
#[must_use]
pub fn dest(service: u16, number: u8) -> SocketAddr {
    let [.., low] = service.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 2, low, number + 1), 8080))
}

/// The configuration of the rig's director.
fn config(folder: &Path) -> Result<Config> {
    let text = r#"
        forwarding = false
        announce = false
        [control]
        socket = "rvsd.sock"
        [tables]
        services = 16384
        dests = 131072
        [[link]]
        name = "feed"
        kind = "pcap"
        write = "unused.pcap"
        mac = "02:00:00:00:00:01"
        addresses = ["198.51.100.1/24", "192.0.2.1/24"]
        [[route]]
        to = "0.0.0.0/0"
        via = "198.51.100.254"
        [[neighbor]]
        link = "feed"
        address = "198.51.100.254"
        mac = "02:00:00:00:00:02"
    "#;
    let neighbors = Ends::new(Family::V4, ForwardMethod::Masquerade).dests.map(|(address, _)| {
        format!(
            "[[neighbor]]\nlink = \"feed\"\naddress = \"{address}\"\nmac = \"02:00:00:00:00:02\"\n"
        )
    });
    let text = format!("{text}\n{}", neighbors.concat());
    Ok(Config::parse(&folder.join("rvs.toml"), &text, &Machine::default())?)
}

/// The service whose packets the worker forwards, then all others.
fn all_services() -> impl Iterator<Item = Request> {
    let ends = Ends::new(Family::V4, ForwardMethod::Masquerade);
    let key = ServiceKey::Address { protocol: Protocol::Tcp, address: ends.vip.into() };
    let add = |service, scheduler| Request::AddService {
        service,
        attributes: ServiceAttributes::new(scheduler, AddressFamily::V4),
    };
    let add_dest = |service, dest| Request::AddDest {
        service,
        dest,
        attributes: DestAttributes::new(ForwardMethod::Masquerade, Weight(1)),
    };
    // Schedulers see the one added last first.
    let own = ends.dests.into_iter().rev().map(move |dest| add_dest(key, dest.into()));
    let others = (0..SERVICES).flat_map(move |number| {
        let dests = (0..DESTS).map(move |it| add_dest(service(number), dest(number, it)));
        core::iter::once(add(service(number), "wlc")).chain(dests)
    });
    core::iter::once(add(key, "rr")).chain(own).chain(others)
}

/// Measures, with sockets in `folder`.
///
/// # Errors
///
/// The rig cannot be made; packets that are not forwarded; changes that are refused.
pub fn beside(folder: &Path) -> Result<Beside> {
    let config = config(folder)?;
    let shared = Shared::new(config.tables.dests);
    let mut director = Director::new(&config, vec![shared.clone()]);
    let refused = director.apply(all_services()).into_iter().find_map(Result::err);
    ensure!(refused.is_none(), "refused: {refused:?}");
    let case = Case { huge_pages: false, ..Case::new(Mode::Nat, Family::V4, 1 << 16) };
    let services = config.tables.services;
    let mut rig = Rig::<Feed<OCTETS4>>::led(case, 0, director.reader(), shared.clone(), services)?;
    rig.begin()?;
    let desk = Desk::new(
        director,
        Conns::new(core::slice::from_ref(&shared)),
        config.control.rules.clone(),
        |_| {},
    );
    let socket = Socket::bind(Kind::Control, &config.control)?;
    let mut server = rvs_control::server::serve(socket, Arc::new(desk))?;
    let mut client = Client::connect(&config.control.socket)?;
    let measured = measure(&mut rig, &mut client, &shared);
    drop(client);
    server.stop();
    measured
}

fn measure(
    rig: &mut Rig<Feed<OCTETS4>>,
    client: &mut Client<UnixStream>,
    shared: &Shared,
) -> Result<Beside> {
    let (goes_on, changes) = (AtomicBool::new(true), AtomicBool::new(false));
    let made = AtomicU32::new(0);
    thread::scope(|scope| {
        let changing = scope.spawn(|| -> Result<Vec<Duration>> {
            let mut times = Vec::new();
            let (mut number, mut next) = (0_u16, Instant::now());
            while goes_on.load(Relaxed) || times.len() < TIMED {
                let is_timed = !goes_on.load(Relaxed);
                if !is_timed && !changes.load(Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                    next = Instant::now();
                    continue;
                }
                number = (number + 7) % SERVICES;
                let begun = Instant::now();
                change(client, number)?;
                made.fetch_add(1, Relaxed);
                if is_timed {
                    // The breath that runs now may have begun before.
                    let breaths = shared.frames.read().breaths;
                    while shared.frames.read().breaths < breaths + 2 {
                        thread::yield_now();
                    }
                    times.push(begun.elapsed());
                }
                next += Duration::from_secs(1) / CHANGES;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            changes.store(false, Relaxed);
            Ok(times)
        });
        let (mut alone, mut more, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        let mut stretch = |is_changing: bool| -> Result<(f64, f64)> {
            changes.store(is_changing, Relaxed);
            let (begun, before) = (Instant::now(), made.load(Relaxed));
            let from = processor_time();
            rig.run(PACKETS.into())?;
            let took = (processor_time() - from) * 1e9 / f64::from(PACKETS);
            let changes = f64::from(made.load(Relaxed) - before);
            Ok((took, changes / begun.elapsed().as_secs_f64()))
        };
        for pair in 0..PAIRS {
            // Each comes first in half of the pairs.
            let ((quiet, _), (changing, rate)) = if pair % 2 == 0 {
                let quiet = stretch(false)?;
                (quiet, stretch(true)?)
            } else {
                let changing = stretch(true)?;
                (stretch(false)?, changing)
            };
            alone.push(quiet);
            more.push((changing / quiet - 1.0) * 100.0);
            rates.push(rate);
        }
        changes.store(true, Relaxed);
        goes_on.store(false, Relaxed);
        while changes.load(Relaxed) && !changing.is_finished() {
            rig.run(1)?;
        }
        let mut times = changing.join().ok().context("the thread that changes panicked")??;
        times.sort_unstable();
        let part = |of: usize, all: usize| {
            times.get(times.len() * of / all).copied().context("no change was timed")
        };
        Ok(Beside {
            seen_median: part(1, 2)?,
            seen_99: part(99, 100)?,
            alone_ns: median(alone),
            more: Interval::of(more),
            changes: median(rates),
        })
    })
}

/// Gives the first destination of a service another weight.
fn change(client: &mut Client<UnixStream>, number: u16) -> Result<()> {
    static WEIGHT: AtomicU32 = AtomicU32::new(1);
    let weight = Weight(WEIGHT.fetch_add(1, Relaxed) % 100);
    let attributes = DestAttributes::new(ForwardMethod::Masquerade, weight);
    let asked = Request::EditDest { service: service(number), dest: dest(number, 0), attributes };
    client.call(&asked)??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_the_ranks_of_a_table_of_the_sign_test() {
        // 95 % of the median of 100 values: from the 40th to the 61st.
        let values = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Interval::of(values), Interval { low: 40.0, median: 51.0, high: 61.0 });
        assert_eq!(Interval::of(vec![7.0]), Interval { low: 7.0, median: 7.0, high: 7.0 });
    }
}
