use super::super::{Limits, NoTraffic};
use super::*;
use core::net::SocketAddr;
use fastrand::Rng;
use rvs_api::{
    AddressFamily, DaemonState, DestAttributes, FwMark, Netmask, Reply, ServiceAttributes,
    ServiceFlags, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
};
use rvs_model::{
    Allowed, ForwardMethod, Protocol, SYSCTLS, SchedulerKind, Setting, StaleUdp, Sysctls, Timeouts,
    Weight,
};

fn empty() -> State {
    let limits = Limits { services: 64, dests: 512, conns: 0 };
    State::new(limits).with_devices(["lan".to_owned()]).accept_everything()
}

fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// A service with all that the protocols have words for.
fn a_service(rng: &mut Rng, number: u16, same_family: bool) -> ServiceRule {
    let family = one_of(rng, &[AddressFamily::V4, AddressFamily::V6]);
    let port = rng.u16(1..);
    let vip = match family {
        AddressFamily::V4 => SocketAddr::from(([203, 0, 113, 1], number)),
        AddressFamily::V6 => SocketAddr::from(([0xfd00, 0x30, 0, 0, 0, 0, 0, 1], number)),
    };
    let service = if rng.bool() {
        let protocol = one_of(rng, &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        ServiceKey::Address { protocol, address: vip }
    } else {
        ServiceKey::Mark { mark: FwMark(u32::from(number).try_into().unwrap()), family }
    };
    let scheduler = one_of(rng, &SchedulerKind::ALL);
    let attributes = ServiceAttributes {
        scheduler: scheduler.name().to_owned(),
        flags: ServiceFlags(rng.u32(..0x80)).without(ServiceFlags::HASHED),
        timeout_s: rng.u32(..),
        netmask: match family {
            AddressFamily::V4 => Netmask::V4(rng.u32(..).into()),
            AddressFamily::V6 => Netmask::V6(rng.u32(1..=128)),
        },
        engine: rng.bool().then(|| "sip".to_owned()),
        stale_udp: one_of(rng, &StaleUdp::ALL),
    };
    let dests = (0..rng.u8(..8)).map(|last| {
        let kind = one_of(rng, &[TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre]);
        let tunnel = Tunnel {
            kind,
            port: rng.u16(1..),
            checksum: one_of(
                rng,
                &[TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote],
            ),
        };
        let methods = [ForwardMethod::Tunnel, ForwardMethod::Masquerade, ForwardMethod::Direct];
        let upper_threshold = rng.u32(..);
        let other_family = !same_family && rng.u8(..4) == 0;
        let attributes = DestAttributes {
            method: if other_family { ForwardMethod::Tunnel } else { one_of(rng, &methods) },
            weight: Weight(rng.u32(..=i32::MAX.unsigned_abs())),
            upper_threshold,
            lower_threshold: rng.u32(..=upper_threshold),
            tunnel,
        };
        let is_v4 = (family == AddressFamily::V4) != other_family;
        let dest = if is_v4 {
            SocketAddr::from(([192, 0, 2, last + 1], port))
        } else {
            SocketAddr::from(([0xfd00, 1, 0, 0, 0, 0, 0, u16::from(last) + 1], port))
        };
        DestRule { dest, attributes }
    });
    let dests = dests.collect();
    ServiceRule { service, attributes, dests }
}

/// Everything that can be said, or a part of it.
fn rules(rng: &mut Rng) -> Rules {
    let daemon = Daemon {
        state: one_of(rng, &[DaemonState::Master, DaemonState::Backup]),
        interface: "lan".to_owned(),
        sync_id: rng.u8(..),
        message_octets_max: rng.bool().then(|| rng.u16(..)),
        group: rng.bool().then(|| "224.0.0.99".parse().unwrap()),
        port: rng.bool().then(|| rng.u16(..)),
        ttl: rng.bool().then(|| rng.u8(..)),
    };
    let has_daemon = rng.bool();
    let services = (1..=rng.u16(1..20)).filter(|_| rng.bool()).collect::<Vec<_>>();
    let tunables = SYSCTLS.iter().filter(|_| rng.u8(..4) == 0);
    let tunable = |it: &rvs_model::Sysctl| {
        let text = match (it.allowed, it.default) {
            (Allowed::Switch, "0") => "1",
            (Allowed::Switch, _) => "0",
            (_, default) => default,
        };
        (it.name.to_owned(), Setting(text.to_owned()))
    };
    let ipvs = tunables.map(tunable).collect();
    Rules {
        timeouts: TimeoutsChange {
            tcp_s: rng.u32(..1000),
            tcp_fin_s: rng.u32(..1000),
            udp_s: rng.u32(..1000),
        }
        .into(),
        ipvs,
        daemon: rng.bool().then(|| if has_daemon { vec![daemon] } else { Vec::new() }),
        service: (rng.u8(..8) != 0)
            .then(|| services.into_iter().map(|it| a_service(rng, it, has_daemon)).collect()),
    }
}

/// What `rvsadm save` writes, read again.
fn saved(state: &mut State) -> Rules {
    let mut ask = |request| state.apply(request, &NoTraffic).unwrap();
    let (Reply::Timeouts(timeouts), Reply::Daemons(daemons)) =
        (ask(Request::GetTimeouts), ask(Request::ListDaemons))
    else {
        panic!("other replies");
    };
    let (Reply::Tunables(tunables), Reply::Services(services)) =
        (ask(Request::ListTunables { name: None }), ask(Request::ListServices { service: None }))
    else {
        panic!("other replies");
    };
    let service = |it: rvs_api::ServiceEntry| ServiceRule {
        service: it.service,
        attributes: it.attributes,
        dests: (it.dests.iter().rev())
            .map(|it| DestRule { dest: it.dest, attributes: it.attributes })
            .collect(),
    };
    let rules = Rules {
        timeouts: timeouts.into(),
        ipvs: tunables.into_iter().map(|it| (it.name, Setting(it.value))).collect(),
        daemon: Some(daemons),
        service: Some(services.into_iter().map(service).collect()),
    };
    toml::from_str(&toml::to_string(&rules).unwrap()).unwrap()
}

/// The same without the order of services and destinations.
fn sorted(mut rules: Rules) -> Rules {
    for service in rules.service.iter_mut().flatten() {
        service.dests.sort_by_key(|it| it.dest);
    }
    if let Some(services) = &mut rules.service {
        services.sort_by_key(|it| it.service.to_string());
    }
    rules
}

fn kept(state: &State) -> Vec<Request> {
    state.as_requests(&Timeouts::default(), &Sysctls::default())
}

fn apply(state: &mut State, rules: &Rules) -> Vec<Request> {
    let asked = Request::Apply { rules: Box::new(rules.clone()), dry_run: false };
    match state.apply(asked, &NoTraffic) {
        Ok(Reply::Changes(changes)) => changes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_saved_and_applied_is_the_same_and_from_any_table() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..300 {
        let mut state = empty();
        apply(&mut state, &rules(&mut rng));
        let saved_rules = saved(&mut state);
        assert_eq!(apply(&mut state, &saved_rules), [], "nothing is to be changed");
        let mut fresh = empty();
        apply(&mut fresh, &saved_rules);
        assert_eq!(kept(&fresh), kept(&state), "and the order of destinations is kept");
        let mut other = empty();
        apply(&mut other, &rules(&mut rng));
        apply(&mut other, &saved_rules);
        assert_eq!(sorted(saved(&mut other)), sorted(saved_rules));
    }
}

#[test]
fn what_is_not_said_stays_as_it_is() {
    let mut rng = Rng::with_seed(8);
    for _ in 0..50 {
        let mut state = empty();
        apply(&mut state, &rules(&mut rng));
        let before = kept(&state);
        assert_eq!(apply(&mut state, &Rules::default()), []);
        assert_eq!(kept(&state), before);
    }
}

#[test]
fn one_that_is_refused_leaves_all_undone_and_is_named() {
    let mut rng = Rng::with_seed(9);
    let mut state = empty();
    apply(&mut state, &rules(&mut rng));
    let before = saved(&mut state);
    let mut wrong = before.clone();
    let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(1));
    let dest = DestRule { dest: "224.0.0.1:80".parse().unwrap(), attributes };
    wrong.daemon = Some(Vec::new());
    let added = ServiceRule {
        service: ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: "203.0.113.9:80".parse().unwrap(),
        },
        attributes: ServiceAttributes::new("rr", AddressFamily::V4),
        dests: vec![dest],
    };
    wrong.service = Some(vec![added]);
    for dry_run in [true, false] {
        let asked = Request::Apply { rules: Box::new(wrong.clone()), dry_run };
        let told = state.apply(asked, &NoTraffic).unwrap_err().to_string();
        let expected = "rvsd: nothing was changed: -a -t 203.0.113.9:80 -r 224.0.0.1:80 ";
        assert!(told.starts_with(expected), "{told}");
        assert_eq!(saved(&mut state), before);
    }
}

#[test]
fn what_is_there_twice_or_unknown_is_told() {
    let mut state = empty();
    let service = a_service(&mut Rng::with_seed(10), 7, true);
    let twice = Rules { service: Some(vec![service.clone(), service]), ..Rules::default() };
    let ipvs = [("tcp_fin".to_owned(), Setting("1".to_owned()))].into();
    for (rules, expected) in [
        (twice, " is there twice"),
        (Rules { ipvs, ..Rules::default() }, "net.ipv4.vs has no \"tcp_fin\""),
    ] {
        let asked = Request::Apply { rules: Box::new(rules), dry_run: false };
        let told = state.apply(asked, &NoTraffic).unwrap_err().to_string();
        assert!(told.ends_with(expected), "{told}");
        assert_eq!(state.services().count(), 0);
    }
}
