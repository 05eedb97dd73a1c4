use super::*;
use crate::state::{Limits, NoTraffic};
use core::net::{Ipv4Addr, SocketAddr};
use rvs_api::{DestAttributes, FwMark, Request};
use rvs_model::{ForwardMethod, Load, Protocol, SchedulerKind, Weight};
use rvs_schedulers::Request as Picked;

const LIMITS: Limits = Limits { services: 8, dests: 16, conns: 0 };

fn tcp(address: &str) -> Key {
    Key::Address { protocol: Protocol::Tcp, address: address.parse().unwrap() }
}

fn vip() -> Key {
    tcp("203.0.113.1:80")
}

fn real(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 8080).into()
}

fn masquerade(weight: u32) -> DestAttributes {
    DestAttributes::new(ForwardMethod::Masquerade, Weight(weight))
}

/// A table and its compiler, with the lines of two workers.
struct Rig {
    state: State,
    compiler: Compiler,
    lines: Vec<Arc<[DestLine]>>,
}

impl Rig {
    fn new() -> Self {
        let lines: Vec<Arc<[DestLine]>> =
            (0..2).map(|_| (0..16).map(|_| DestLine::default()).collect()).collect();
        let compiler = Compiler::new(Network::default(), lines.clone());
        Self { state: State::new(LIMITS), compiler, lines }
    }

    fn ask(&mut self, request: Request) {
        self.state.apply(request, &NoTraffic).unwrap();
    }

    fn add_service(&mut self, key: Key, scheduler: &str) {
        let attributes = ServiceAttributes::new(scheduler, key.family());
        self.ask(Request::AddService { service: key, attributes });
        self.compiler.note(&self.state, &key, false);
    }

    fn edit_service(&mut self, key: Key, attributes: ServiceAttributes) {
        self.ask(Request::EditService { service: key, attributes });
        self.compiler.note(&self.state, &key, false);
    }

    fn add(&mut self, key: Key, last: u8, weight: u32) {
        self.ask(Request::AddDest {
            service: key,
            dest: real(last),
            attributes: masquerade(weight),
        });
        self.compiler.note(&self.state, &key, true);
    }

    fn edit(&mut self, key: Key, last: u8, weight: u32) {
        let attributes = masquerade(weight);
        self.ask(Request::EditDest { service: key, dest: real(last), attributes });
        self.compiler.note(&self.state, &key, true);
    }

    fn delete(&mut self, key: Key, last: u8) {
        self.ask(Request::DeleteDest { service: key, dest: real(last) });
        self.compiler.note(&self.state, &key, true);
    }

    /// As the director publishes.
    fn publish(&mut self) -> Snapshot {
        let (snapshot, gone) = self.compiler.compile(&self.state);
        self.compiler.retire(&gone);
        snapshot
    }

    fn has(&self, id: DestId, flag: u32) -> bool {
        let place = usize::try_from(id.0).unwrap();
        let all: Vec<_> = self.lines.iter().map(|lines| lines[place].has(flag)).collect();
        assert_eq!(all[0], all[1], "every worker's line says the same");
        all[0]
    }
}

fn plane_key(address: &str) -> ServiceKey {
    let address: SocketAddr = address.parse().unwrap();
    ServiceKey { protocol: 6, address: address.ip(), port: address.port() }
}

fn service_at<'s>(snapshot: &'s Snapshot, address: &str) -> &'s Service {
    snapshot.service(0, &plane_key(address)).unwrap()
}

#[test]
fn a_service_is_found_and_its_dests_are_newest_first() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "wrr");
    rig.add(vip(), 11, 1);
    rig.add(vip(), 12, 5);
    let snapshot = rig.publish();
    let service = service_at(&snapshot, "203.0.113.1:80");
    let sockets: Vec<_> = service.dests.iter().map(|dest| dest.socket).collect();
    assert_eq!(sockets, [real(12), real(11)]);
    let weights: Vec<_> = service.candidates.iter().map(|it| it.weight.0).collect();
    assert_eq!(weights, [5, 1]);
    let pairs = service.candidates.iter().zip(&service.dests);
    assert!(pairs.clone().all(|(candidate, dest)| candidate.id == dest.id));
    assert_eq!(service.scheduler.kind(), SchedulerKind::Wrr);
    assert!(snapshot.network.is_local("203.0.113.1".parse().unwrap()));
    assert_eq!(snapshot.timeouts, *rig.state.timeouts());
    assert!(snapshot.service(0, &plane_key("203.0.113.1:81")).is_none());
}

#[test]
fn a_change_shares_every_other_service_with_the_last_snapshot() {
    let mut rig = Rig::new();
    let other = tcp("203.0.113.2:80");
    rig.add_service(vip(), "rr");
    rig.add_service(other, "rr");
    let first = rig.publish();
    rig.add(vip(), 11, 1);
    let second = rig.publish();
    let pair = |at: usize| (first.services.get(at).unwrap(), second.services.get(at).unwrap());
    assert!(!Arc::ptr_eq(pair(0).0, pair(0).1));
    assert!(Arc::ptr_eq(pair(1).0, pair(1).1));
    assert!(
        Arc::ptr_eq(&first.index, &second.index) && Arc::ptr_eq(&first.network, &second.network)
    );
    assert!(pair(0).0.version < pair(0).1.version && pair(0).0.epoch == pair(0).1.epoch);
}

#[test]
fn a_deleted_service_is_found_no_more_and_its_vip_is_nobodys() {
    let mut rig = Rig::new();
    let (other, sibling) = (tcp("203.0.113.2:80"), tcp("203.0.113.2:81"));
    rig.add_service(vip(), "rr");
    rig.add_service(other, "rr");
    rig.add_service(sibling, "rr");
    rig.publish();
    let address = "203.0.113.1".parse().unwrap();
    rig.ask(Request::DeleteService { service: vip() });
    let snapshot = rig.publish();
    assert!(snapshot.service(0, &plane_key("203.0.113.1:80")).is_none());
    assert!(!snapshot.network.is_local(address));
    assert_eq!(service_at(&snapshot, "203.0.113.2:80").id, ServiceId(1));
    rig.ask(Request::DeleteService { service: other });
    let snapshot = rig.publish();
    assert!(snapshot.network.is_local("203.0.113.2".parse().unwrap()), "a sibling is there");
    rig.ask(Request::Flush);
    let snapshot = rig.publish();
    assert_eq!(snapshot.services.iter().count(), 0);
    assert!(snapshot.service(0, &plane_key("203.0.113.2:81")).is_none());
}

/// Persistent for 300 s by this mask.
fn persistent(mask: [u8; 4]) -> ServiceAttributes {
    ServiceAttributes {
        flags: ServiceFlags::PERSISTENT,
        timeout_s: 300,
        netmask: Netmask::V4(mask.into()),
        ..ServiceAttributes::new("rr", AddressFamily::V4)
    }
}

#[test]
fn persistence_comes_and_goes_with_an_edit() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "rr");
    rig.add(vip(), 11, 1);
    assert_eq!(service_at(&rig.publish(), "203.0.113.1:80").persistence, None);
    rig.edit_service(vip(), persistent([255, 255, 255, 0]));
    let mask = Mask::v4(Ipv4Addr::new(255, 255, 255, 0));
    let expected = Persistence { timeout: ticks(300), mask };
    assert_eq!(service_at(&rig.publish(), "203.0.113.1:80").persistence, Some(expected));
    rig.edit_service(vip(), ServiceAttributes::new("rr", AddressFamily::V4));
    assert_eq!(service_at(&rig.publish(), "203.0.113.1:80").persistence, None);
}

#[test]
fn a_service_is_looked_for_by_mark_then_address_then_ftps_then_all_ports() {
    let mut rig = Rig::new();
    let mark = |family| Key::Mark { mark: FwMark(5.try_into().unwrap()), family };
    rig.add_service(tcp("203.0.113.1:80"), "rr");
    let found = |snapshot: &Snapshot, mark, key: &str| {
        snapshot.service(mark, &plane_key(key)).map(|service| service.id.0)
    };
    let snapshot = rig.publish();
    assert_eq!(found(&snapshot, 5, "203.0.113.1:80"), Some(0));
    assert_eq!(found(&snapshot, 0, "203.0.113.1:5000"), None);
    rig.add_service(mark(AddressFamily::V6), "rr");
    assert_eq!(found(&rig.publish(), 5, "203.0.113.1:80"), Some(0), "of the other family");
    rig.add_service(mark(AddressFamily::V4), "rr");
    rig.add_service(tcp("203.0.113.1:21"), "rr");
    rig.add_service(tcp("203.0.113.1:0"), "rr");
    let snapshot = rig.publish();
    for (mark, port, expected) in [
        (5, 80, Some(2)),
        (6, 80, Some(0)),
        (0, 80, Some(0)),
        (0, 21, Some(3)),
        (0, 20, Some(3)),
        (0, 1024, Some(3)),
        (0, 65535, Some(3)),
        (0, 1023, Some(4)),
        (0, 0, Some(4)),
    ] {
        let key = format!("203.0.113.1:{port}");
        assert_eq!(found(&snapshot, mark, &key), expected, "mark {mark}, port {port}");
    }
    let udp = ServiceKey { protocol: 17, ..plane_key("203.0.113.1:80") };
    assert!(snapshot.service(0, &udp).is_none(), "another protocol");
    assert_eq!(found(&snapshot, 0, "203.0.113.2:80"), None, "another address");
    assert!(!snapshot.network.is_local("0.0.0.5".parse().unwrap()), "a mark is no address");
}

#[test]
fn services_that_share_a_real_server_share_the_bits_that_count_in_all_of_them() {
    let mut rig = Rig::new();
    let all = ["203.0.113.1:80", "203.0.113.2:80", "203.0.113.3:80", "203.0.113.4:80"].map(tcp);
    for (key, first) in all.into_iter().zip([11, 12, 12, 20]) {
        rig.add_service(key, "rr");
        rig.add(key, first, 1);
    }
    let grain = |snapshot: &Snapshot, id, last| {
        let service = snapshot.grains.of_service(ServiceId(id));
        let reply = snapshot.grains.of_reply((real(last).ip(), real(last).port()));
        assert_eq!(service, reply, "both directions come to the same");
        service
    };
    assert!(rig.publish().grains.is_empty());
    let (wide, odd) = ([255, 255, 0, 0], [255, 0, 255, 0]);
    rig.edit_service(all[0], persistent(wide));
    rig.edit_service(all[1], persistent(odd));
    let snapshot = rig.publish();
    assert_eq!(grain(&snapshot, 0, 11), Some(Mask::v4(wide.into())));
    assert_eq!(grain(&snapshot, 1, 12), Some(Mask::v4(odd.into())));
    assert_eq!(grain(&snapshot, 2, 12), Some(Mask::v4(odd.into())), "not persistent itself");
    assert_eq!(grain(&snapshot, 3, 20), None);
    // The third now joins the first with the second.
    rig.add(all[2], 11, 1);
    let snapshot = rig.publish();
    for (id, last) in [(0, 11), (1, 12), (2, 11)] {
        assert_eq!(grain(&snapshot, id, last), Some(Mask::v4([255, 0, 0, 0].into())));
    }
    assert_eq!(grain(&snapshot, 3, 20), None);
    assert_eq!(snapshot.grains.of_reply((real(11).ip(), 9)), None, "another port there");
    // One that keeps the clients' ports answers from any.
    rig.add_service(tcp("203.0.113.9:0"), "rr");
    rig.edit_service(tcp("203.0.113.9:0"), persistent([0, 0, 0, 255]));
    rig.ask(Request::AddDest {
        service: tcp("203.0.113.9:0"),
        dest: SocketAddr::new(real(20).ip(), 0),
        attributes: masquerade(1),
    });
    let snapshot = rig.publish();
    let last = Some(Mask::v4([0, 0, 0, 255].into()));
    assert_eq!(grain(&snapshot, 3, 20), last);
    assert_eq!(snapshot.grains.of_reply((real(20).ip(), 9)), last);
}

#[test]
fn flags_follow_what_an_operator_says() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "rr");
    rig.add(vip(), 11, 1);
    rig.add(vip(), 12, 0);
    rig.publish();
    let (one, two) = (DestId(0), DestId(1));
    assert!(rig.has(one, DestLine::AVAILABLE) && !rig.has(one, DestLine::DRAINED));
    assert!(rig.has(two, DestLine::AVAILABLE | DestLine::DRAINED));
    rig.edit(vip(), 11, 0);
    rig.edit(vip(), 12, 3);
    rig.publish();
    assert!(rig.has(one, DestLine::DRAINED) && !rig.has(two, DestLine::DRAINED));
    rig.delete(vip(), 11);
    rig.publish();
    assert!(!rig.has(one, DestLine::AVAILABLE) && rig.has(two, DestLine::AVAILABLE));
    rig.add(vip(), 11, 1);
    rig.publish();
    assert!(rig.has(one, DestLine::AVAILABLE), "back out of the trash");
    rig.ask(Request::DeleteService { service: vip() });
    rig.publish();
    assert!(!rig.has(one, DestLine::AVAILABLE) && !rig.has(two, DestLine::AVAILABLE));
}

#[test]
fn a_dest_is_available_before_and_unavailable_after_workers_learn_of_it() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "rr");
    rig.add(vip(), 11, 1);
    let (_unpublished, gone) = rig.compiler.compile(&rig.state);
    assert!(gone.is_empty() && rig.has(DestId(0), DestLine::AVAILABLE));
    rig.delete(vip(), 11);
    let (_unpublished, gone) = rig.compiler.compile(&rig.state);
    assert_eq!(gone, [Gone { id: DestId(0), flags: 0 }]);
    assert!(rig.has(DestId(0), DestLine::AVAILABLE), "not before the publication");
    rig.compiler.retire(&gone);
    assert!(!rig.has(DestId(0), DestLine::AVAILABLE));
}

#[test]
fn a_dest_that_left_and_came_back_in_one_batch_is_not_gone() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "rr");
    rig.add(vip(), 11, 1);
    rig.publish();
    rig.ask(Request::Flush);
    rig.add_service(vip(), "rr");
    rig.add(vip(), 11, 1);
    rig.publish();
    assert!(rig.has(DestId(0), DestLine::AVAILABLE));
}

#[test]
fn only_another_scheduler_or_another_service_is_a_new_epoch() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "rr");
    rig.add(vip(), 11, 1);
    let first = service_at(&rig.publish(), "203.0.113.1:80").clone();
    assert!(first.epoch > 0, "0 is what a worker has seen of nothing");
    let quiet =
        ServiceAttributes { timeout_s: 9, ..ServiceAttributes::new("rr", AddressFamily::V4) };
    rig.edit_service(vip(), quiet);
    let second = service_at(&rig.publish(), "203.0.113.1:80").clone();
    assert_eq!((first.epoch, first.version), (second.epoch, second.version));
    rig.edit_service(vip(), ServiceAttributes::new("wlc", AddressFamily::V4));
    let third = service_at(&rig.publish(), "203.0.113.1:80").clone();
    assert!(third.epoch > second.epoch);
    assert_eq!(third.scheduler.kind(), SchedulerKind::Wlc);
    rig.ask(Request::Flush);
    rig.add_service(tcp("203.0.113.9:80"), "wlc");
    let fourth = service_at(&rig.publish(), "203.0.113.9:80").clone();
    assert!(fourth.epoch > third.epoch);
}

#[test]
fn a_table_follows_the_list_the_flags_and_the_latest_weights_but_zero() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "mh");
    rig.add(vip(), 11, 1);
    rig.add(vip(), 12, 3);
    let shares = |rig: &mut Rig| service_at(&rig.publish(), "203.0.113.1:80").table.shares(2);
    let before = shares(&mut rig);
    assert!(before[0].abs_diff(3070) < 4 && before[0] + before[1] == 4093, "{before:?}");
    rig.edit(vip(), 12, 0);
    assert_eq!(shares(&mut rig), before, "draining moves nobody");
    rig.delete(vip(), 12);
    rig.add(vip(), 12, 0);
    assert_eq!(shares(&mut rig), before, "nor does coming back drained");
    rig.edit(vip(), 12, 1);
    assert!(shares(&mut rig)[0].abs_diff(2046) <= 1);
    let first = service_at(&rig.publish(), "203.0.113.1:80").clone();
    let flags = ServiceFlags::SCHEDULER_2;
    let attributes = ServiceAttributes { flags, ..ServiceAttributes::new("mh", AddressFamily::V4) };
    rig.edit_service(vip(), attributes);
    let second = service_at(&rig.publish(), "203.0.113.1:80").clone();
    assert_eq!((first.epoch, first.version), (second.epoch, second.version), "no new scheduler");
    assert_eq!(second.table.flags(), HashFlags { fallback: false, port: true });
}

#[test]
fn maps_are_made_once_for_each_binding_and_freed_when_nobody_has_any() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "lblc");
    let first = rig.publish();
    rig.add(vip(), 11, 1);
    let second = rig.publish();
    assert_eq!(rig.compiler.lent.len(), 1, "an added destination changes no map");
    assert!(service_at(&second, "203.0.113.1:80").maps.is_some());
    rig.edit_service(vip(), ServiceAttributes::new("lblcr", AddressFamily::V4));
    let third = rig.publish();
    assert_eq!(rig.compiler.lent.len(), 2);
    rig.edit_service(vip(), ServiceAttributes::new("sh", AddressFamily::V4));
    assert!(service_at(&rig.publish(), "203.0.113.1:80").maps.is_none());
    drop((first, second));
    rig.publish();
    assert_eq!(rig.compiler.lent.len(), 1, "somebody still has the third snapshot");
    drop(third);
    rig.publish();
    assert!(rig.compiler.lent.is_empty());
}

/// The kernel's round begins where the changes led it, one by one: weights 1, 3, 2 added in this
/// order leave another level than all three at once.
#[test]
fn a_scheduler_has_seen_each_change_of_a_batch_by_itself() {
    let mut rig = Rig::new();
    rig.add_service(vip(), "wrr");
    for (last, weight) in [(11, 1), (12, 3), (13, 2)] {
        rig.add(vip(), last, weight);
    }
    let service = service_at(&rig.publish(), "203.0.113.1:80").clone();
    let mut stepwise = Scheduler::new(SchedulerKind::Wrr);
    let all = &service.candidates;
    stepwise.update(&[]);
    for from in [2, 1, 0] {
        stepwise.update(&all[from..]);
    }
    let picks = |mut scheduler: Scheduler| -> Vec<_> {
        let nowhere = Ipv4Addr::UNSPECIFIED.into();
        let request = Picked { client: nowhere, client_port: 0, vip: nowhere, now: 0 };
        let mut pick =
            || scheduler.pick(all, &service.table, None, &request, &|_: DestId| Load::default());
        (0..12).map(|_| pick()).collect()
    };
    assert_eq!(picks(service.scheduler), picks(stepwise));
    let mut at_once = Scheduler::new(SchedulerKind::Wrr);
    at_once.update(all);
    assert_ne!(picks(service.scheduler), picks(at_once), "the order would not matter otherwise");
}

/// What is shared from snapshot to snapshot must come to what one made anew is.
#[test]
fn snapshots_that_follow_changes_are_those_that_are_made_at_once() {
    let mut rng = fastrand::Rng::with_seed(11);
    let limits = Limits { services: 200, dests: 1000, conns: 0 };
    let lines: Vec<Arc<[DestLine]>> =
        (0..2).map(|_| (0..1000).map(|_| DestLine::default()).collect()).collect();
    let mut compiler = Compiler::new(Network::default(), lines.clone());
    let mut state = State::new(limits);
    for round in 0..2000_u64 {
        for _ in 0..rng.u8(1..6) {
            let vip = format!("203.0.113.{}:{}", rng.u8(1..20), [21, 80, 443, 0][rng.usize(..4)]);
            let service = if rng.u8(..4) == 0 {
                let mark = FwMark(rng.u32(1..30).try_into().unwrap());
                Key::Mark { mark, family: AddressFamily::V6 }
            } else {
                tcp(&vip)
            };
            let dest = match service {
                Key::Mark { .. } => format!("[fd00::{}]:80", rng.u8(1..9)).parse().unwrap(),
                Key::Address { .. } => real(rng.u8(1..9)),
            };
            let mut attributes = ServiceAttributes::new("wrr", service.family());
            if rng.u8(..8) == 0 {
                attributes.flags = ServiceFlags::PERSISTENT;
                attributes.timeout_s = 60;
            }
            let request = match rng.u8(..20) {
                0..6 => Request::AddService { service, attributes },
                6 => Request::DeleteService { service },
                7 => Request::EditService { service, attributes },
                8..15 => Request::AddDest { service, dest, attributes: masquerade(rng.u32(..4)) },
                15..17 => Request::DeleteDest { service, dest },
                17..19 => Request::EditDest { service, dest, attributes: masquerade(rng.u32(..4)) },
                _ if rng.u8(..20) == 0 => Request::Flush,
                _ => Request::Zero { service: None },
            };
            // Many are refused, as they come.
            let _refused = state.apply(request, &NoTraffic);
            compiler.note(&state, &service, true);
        }
        state.reclaim(round, &NoTraffic);
        let (followed, _) = compiler.compile(&state);
        let (fresh, _) = Compiler::new(Network::default(), lines.clone()).compile(&state);
        assert_eq!(followed.index, fresh.index);
        assert_eq!(followed.grains, fresh.grains);
        let told = |snapshot: &Snapshot| -> Vec<_> {
            let services = snapshot.services.iter();
            services
                .map(|it| (it.id, it.key, it.version, it.candidates.clone(), it.persistence))
                .collect()
        };
        assert_eq!(told(&followed), told(&fresh));
        for last in 1..20 {
            let vip = Ipv4Addr::new(203, 0, 113, last).into();
            assert_eq!(followed.network.is_local(vip), fresh.network.is_local(vip));
        }
    }
}
