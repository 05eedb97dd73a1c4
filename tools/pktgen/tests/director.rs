//! The generator around a director, both real, on memory links and a clock that is turned by hand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall stop"
)]

#[path = "../../../engine/plane/tests/rig/mod.rs"]
mod rig;

use rig::{PLAN, Plan as RigPlan, Rig, Rss, interface, network_with};
use rvs_io::faulty::{Faults, Faulty};
use rvs_io::memory::FarEnd;
use rvs_model::{ForwardMethod, SchedulerKind};
use rvs_pktgen::clock::Clock;
use rvs_pktgen::scenario::{Choice, Director, Kind, Scenario};
use rvs_pktgen::trial::{Plan, Traffic, Trial};
use rvs_wire::flow::protocol;
use std::time::Duration;

const METHODS: [ForwardMethod; 3] =
    [ForwardMethod::Masquerade, ForwardMethod::Direct, ForwardMethod::Tunnel];

/// A director that breathes whenever somebody looks at the clock.
struct Simulated {
    rig: Rig,
    nanos: u64,
    looks: u64,
}

impl Clock for Simulated {
    fn now(&mut self) -> u64 {
        self.nanos += 2_000;
        self.looks += 1;
        let tick = self.nanos * 8 / 1_000_000_000;
        self.rig.workers[0].breathe(u32::try_from(tick).unwrap());
        if self.looks.is_multiple_of(1000) {
            self.rig.assert_conservation();
        }
        self.nanos
    }
}

/// A director without a single known neighbour, and its two wires.
fn director(v6: bool, method: ForwardMethod) -> (Simulated, [FarEnd<Rss>; 2]) {
    let interfaces = vec![interface(0, 0, 1500), interface(1, 0, 1500)];
    let mut rig = Rig::new(network_with(interfaces, 0), &RigPlan { ring: 256, ..PLAN });
    let dests = if v6 {
        ["[2001:db8:d::11]:80", "[2001:db8:d::12]:80", "[2001:db8:d::13]:80"]
    } else {
        ["192.0.2.11:80", "192.0.2.12:80", "192.0.2.13:80"]
    };
    let dests = dests.map(|dest| (dest, method, 1));
    let vip = if v6 { "[2001:db8:c::80]:80" } else { "198.51.100.80:80" };
    for protocol in [protocol::TCP, protocol::UDP] {
        rig.add_service((protocol, vip), SchedulerKind::Rr, &dests);
    }
    let far = std::mem::take(&mut rig.far).try_into().unwrap();
    (Simulated { rig, nanos: 1_000_000, looks: 0 }, far)
}

fn scenario(v6: bool, mix: &[(Kind, u32)]) -> Scenario {
    let (client, vip, reals) = if v6 {
        let reals = ["2001:db8:d::11", "2001:db8:d::12", "2001:db8:d::13"];
        ("2001:db8:c::1000", "[2001:db8:c::80]:80", reals)
    } else {
        ("198.51.100.100", "198.51.100.80:80", ["192.0.2.11", "192.0.2.12", "192.0.2.13"])
    };
    let vip: std::net::SocketAddr = vip.parse().unwrap();
    let scenario = Scenario {
        client: client.parse().unwrap(),
        clients: 10,
        vip,
        director: Director::Address(vip.ip()),
        reals: reals.iter().map(|real| real.parse().unwrap()).collect(),
        flows: 60,
        mix: mix.to_vec(),
        choice: Choice::Uniform,
        sizes: vec![(100, 3), (600, 1), (1400, 1)],
        echo: true,
        replies: false,
        instance: 0,
        seed: 3,
    };
    scenario.check().unwrap()
}

/// 20 000 packets in 0.2 s.
const TRIAL: Plan = Plan {
    rate: Some(100_000.0),
    duration: Duration::from_millis(200),
    warm_up: Duration::from_millis(20),
    drain: Duration::from_millis(100),
    burst: 32,
    sample: Duration::from_millis(50),
};

fn run(
    (clock, [client, servers]): &mut (Simulated, [FarEnd<Rss>; 2]),
    scenario: Scenario,
) -> Trial {
    let (take, pool) = (
        |end: &mut FarEnd<Rss>| {
            let hash: Rss = |_| 0;
            let (_, spare) = rvs_io::memory::link(1, 1, clock.rig.reserve.pool(), hash);
            std::mem::replace(end, spare)
        },
        clock.rig.reserve.pool(),
    );
    let (client_end, servers_end) = (take(client), take(servers));
    let traffic = Traffic::start(scenario, client_end, Some(servers_end), pool, clock);
    let mut traffic = traffic.unwrap();
    let trial = traffic.trial(&TRIAL, clock, |_| {}).unwrap();
    let (client_end, servers_end) = traffic.finish();
    (*client, *servers) = (client_end, servers_end.unwrap());
    clock.rig.settle();
    trial
}

#[test]
fn what_is_sent_arrives_in_all_methods_and_families_and_by_nat_comes_back() {
    for v6 in [false, true] {
        for (method, place) in METHODS.into_iter().zip(0..) {
            let mut director = director(v6, method);
            let mix = [(Kind::Udp, 2), (Kind::Established, 2), (Kind::Syn, 1)];
            let replies = method == ForwardMethod::Masquerade;
            let trial = run(&mut director, Scenario { replies, ..scenario(v6, &mix) });
            let servers = trial.servers.as_ref().unwrap();
            let what = format!("{method:?}, IPv6 {v6}: {trial}");
            assert_eq!((trial.sent, trial.unsent), (20_000, 0), "{what}");
            assert_eq!((servers.lost, servers.verdict.arrived), (0, 20_000), "{what}");
            let v = servers.verdict;
            assert_eq!((v.reordered, v.misdirected, v.duplicates), (0, 0, 0), "{what}");
            assert_eq!(servers.tally.by_method[place], 20_000, "{what}");
            assert_eq!(servers.tally.damaged + servers.tally.foreign, 0, "{what}");
            assert!(servers.by_real.iter().all(|count| *count > 2000), "{what}");
            let latency = servers.latency;
            assert!((1..1_000_000).contains(&latency.p50), "{what}");
            assert_eq!(trial.clients.is_some(), replies);
            if let Some(clients) = &trial.clients {
                assert_eq!((clients.verdict.arrived, clients.lost), (20_000, 0), "{what}");
                assert!(clients.latency.p50 > latency.p50, "{what}");
            }
            assert_eq!(trial.samples.len(), 4, "{what}");
            let (clock, far) = director;
            clock.rig.assert_conservation();
            drop(far);
            clock.rig.finish();
        }
    }
}

#[test]
fn what_is_lost_is_what_the_director_says_it_dropped() {
    let mut director = director(false, ForwardMethod::Masquerade);
    // Segments of connections that nobody opened.
    let trial = run(&mut director, scenario(false, &[(Kind::Udp, 3), (Kind::Ack, 1)]));
    let servers = trial.servers.as_ref().unwrap();
    let drops = director.0.rig.drops();
    let named: u64 = drops.iter().filter(|(name, _)| **name != "consumed").map(|(_, n)| n).sum();
    assert!(servers.lost > 4000, "{trial}");
    // The warm-up's were dropped as well: 2000 packets, of which the same share.
    let warm_up = named - servers.lost;
    assert!((400..600).contains(&warm_up), "{drops:?}");
    assert_eq!(trial.sent, servers.verdict.arrived + servers.lost);
    let unopened = ["answered", "rate-limited", "consumed"];
    assert!(drops.keys().all(|name| unopened.contains(name)), "{drops:?}");
}

#[test]
fn without_a_service_no_connection_opens_and_the_reason_is_one_line() {
    let (mut clock, [client, servers]) = director(false, ForwardMethod::Masquerade);
    let mut scenario = scenario(false, &[(Kind::Established, 1)]);
    scenario.vip.set_port(81);
    let pool = clock.rig.reserve.pool();
    let error = Traffic::start(scenario, client, Some(servers), pool, &mut clock).unwrap_err();
    let line = error.to_string();
    assert!(line.starts_with("60 of 60 flows got no SYN-ACK from 198.51.100.80:81: "), "{line}");
    assert!(!line.contains('\n'));
}

#[test]
fn without_a_director_nobody_answers_and_the_reason_is_one_line() {
    let (mut clock, [client, servers]) = director(false, ForwardMethod::Masquerade);
    let nobody = Director::Address("198.51.100.99".parse().unwrap());
    let scenario = Scenario { director: nobody, ..scenario(false, &[(Kind::Udp, 1)]) };
    let pool = clock.rig.reserve.pool();
    let error = Traffic::start(scenario, client, Some(servers), pool, &mut clock).unwrap_err();
    let line = error.to_string();
    assert!(
        line.starts_with("nobody on the client's link answers ARP for 198.51.100.99"),
        "{line}"
    );
}

#[test]
fn every_corrupted_packet_is_found() {
    let (mut clock, [client, servers]) = director(false, ForwardMethod::Direct);
    let scenario = Scenario { echo: false, ..scenario(false, &[(Kind::Udp, 1)]) };
    let corrupt = Faults { corrupt: 0.02, ..Faults::default() };
    let pool = clock.rig.reserve.pool();
    let network = Faulty::new(servers, 11, corrupt, Faults::default());
    let mut traffic = Traffic::start(scenario, client, Some(network), pool, &mut clock).unwrap();
    let plan = Plan { warm_up: Duration::ZERO, ..TRIAL };
    let trial = traffic.trial(&plan, &mut clock, |_| {}).unwrap();
    let done = traffic.finish().1.unwrap().received();
    let arrived = trial.servers.unwrap();
    let found = arrived.tally.damaged + arrived.tally.foreign;
    assert_eq!(arrived.lost, found, "{arrived:?}");
    // A bit in the Ethernet header's source hurts nobody, and in its destination may name another
    // server. Six octets of 114 and more are the source.
    assert!(done.corrupted > 300 && found <= done.corrupted, "{done:?} {arrived:?}");
    assert!(done.corrupted - found < done.corrupted / 10, "{done:?} {arrived:?}");
}

#[test]
fn loss_order_and_duplicates_are_counted_to_the_packet() {
    for faults in [
        Faults { lose: 0.02, ..Faults::default() },
        Faults { duplicate: 0.02, ..Faults::default() },
        Faults { reorder: 0.02, overtaken_by: 7, ..Faults::default() },
        Faults { lose: 0.02, duplicate: 0.02, reorder: 0.02, overtaken_by: 3, ..Faults::default() },
    ] {
        let (mut clock, [client, servers]) = director(true, ForwardMethod::Tunnel);
        let scenario = Scenario { flows: 1, echo: false, ..scenario(true, &[(Kind::Udp, 1)]) };
        let pool = clock.rig.reserve.pool();
        // Faults begin behind the warm-up, which finds the neighbours.
        let network = Faulty::new(servers, 5, faults, Faults::default());
        let mut traffic =
            Traffic::start(scenario, client, Some(network), pool, &mut clock).unwrap();
        let plan = Plan { warm_up: Duration::ZERO, ..TRIAL };
        let trial = traffic.trial(&plan, &mut clock, |_| {}).unwrap();
        let done = traffic.finish().1.unwrap().received();
        let arrived = trial.servers.unwrap();
        // Questions for neighbours pass the faults too: a few frames, none of them counted.
        let others = arrived.tally.neighbour;
        let near = |judged: u64, done: u64| judged <= done && done - judged <= others;
        assert!(near(arrived.lost, done.lost), "{done:?} {arrived:?}");
        assert!(near(arrived.verdict.duplicates, done.duplicated), "{done:?} {arrived:?}");
        assert!(near(arrived.verdict.reordered, done.reordered), "{done:?} {arrived:?}");
        assert!(others <= 3, "{arrived:?}");
        assert_eq!(arrived.verdict.arrived + arrived.lost, trial.sent);
    }
}
