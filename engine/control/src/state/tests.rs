use super::*;
use rvs_api::{
    AddressFamily, DestAttributes, Netmask, ServiceAttributes, ServiceEntry, Tunnel, TunnelKind,
};
use rvs_model::{ForwardMethod, Protocol, SchedulerKind, Weight};
use std::cell::RefCell;

const LIMITS: Limits = Limits { services: 8, dests: 16, conns: 4096 };

/// What a test says that the workers counted.
#[derive(Default)]
struct Counted {
    conns: RefCell<HashMap<DestId, u64>>,
    load: RefCell<HashMap<DestId, u32>>,
    templates: RefCell<HashMap<DestId, u32>>,
}

impl Readings for Counted {
    fn load(&self, dest: DestId) -> Load {
        Load { active: self.load.borrow().get(&dest).copied().unwrap_or_default(), inactive: 0 }
    }

    fn totals(&self, dest: DestId) -> Totals {
        let conns = self.conns.borrow().get(&dest).copied().unwrap_or_default();
        Totals { conns, packets_in: conns * 10, ..Totals::default() }
    }

    fn templates(&self, dest: DestId) -> u32 {
        self.templates.borrow().get(&dest).copied().unwrap_or_default()
    }
}

impl Counted {
    fn count(&self, dest: DestId, conns: u64) {
        *self.conns.borrow_mut().entry(dest).or_default() += conns;
    }

    fn hold(&self, dest: DestId, conns: u32) {
        self.load.borrow_mut().insert(dest, conns);
    }
}

fn tcp(address: &str) -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: address.parse().unwrap() }
}

fn vip() -> ServiceKey {
    tcp("203.0.113.1:80")
}

fn real(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

fn scheduled(name: &str) -> ServiceAttributes {
    ServiceAttributes::new(name, AddressFamily::V4)
}

fn masquerade(weight: u32) -> DestAttributes {
    DestAttributes::new(ForwardMethod::Masquerade, Weight(weight))
}

fn add(service: ServiceKey, scheduler: &str) -> Request {
    Request::AddService { service, attributes: scheduled(scheduler) }
}

fn add_dest(dest: SocketAddr, attributes: DestAttributes) -> Request {
    Request::AddDest { service: vip(), dest, attributes }
}

fn with_service() -> State {
    let mut state = State::new(LIMITS);
    state.apply(add(vip(), "wlc"), &NoTraffic).unwrap();
    state
}

fn errno(outcome: Outcome) -> Errno {
    outcome.unwrap_err().errno
}

fn listed(state: &mut State, readings: &impl Readings) -> Vec<ServiceEntry> {
    match state.apply(Request::ListServices { service: None }, readings).unwrap() {
        Reply::Services(list) => list,
        other => panic!("{other:?}"),
    }
}

fn id_of(state: &State, dest: SocketAddr) -> DestId {
    state.dests().find(|row| row.address() == dest).unwrap().id()
}

#[test]
fn the_dest_added_last_comes_first() {
    let mut state = with_service();
    for last in [11, 12, 13] {
        state.apply(add_dest(real(last), masquerade(1)), &NoTraffic).unwrap();
    }
    let order: Vec<_> = listed(&mut state, &NoTraffic)[0].dests.iter().map(|d| d.dest).collect();
    assert_eq!(order, [real(13), real(12), real(11)]);
    let service = state.service(&vip()).unwrap();
    let order: Vec<_> = state.dests_of(service).map(Dest::address).collect();
    assert_eq!(order, [real(13), real(12), real(11)]);
}

#[test]
fn errors_are_the_kernels_and_change_nothing() {
    let mut state = with_service();
    state.apply(add_dest(real(11), masquerade(1)), &NoTraffic).unwrap();
    let version = state.version();
    let nowhere = tcp("203.0.113.9:80");
    let (gone, attributes) = (real(99), masquerade(1));
    let gue = Tunnel { kind: TunnelKind::Gue, ..Tunnel::default() };
    let tunnelled = DestAttributes { tunnel: gue, ..masquerade(1) };
    let cases = [
        (add(vip(), "rr"), Errno::Exist),
        (add(vip(), "nosuch"), Errno::Exist),
        (add(nowhere, "nosuch"), Errno::NoEnt),
        (Request::EditService { service: nowhere, attributes: scheduled("nosuch") }, Errno::Srch),
        (Request::EditService { service: vip(), attributes: scheduled("nosuch") }, Errno::NoEnt),
        (Request::DeleteService { service: nowhere }, Errno::Srch),
        (Request::AddDest { service: nowhere, dest: gone, attributes }, Errno::Srch),
        (Request::EditDest { service: nowhere, dest: gone, attributes }, Errno::Srch),
        (Request::DeleteDest { service: nowhere, dest: gone }, Errno::Srch),
        (Request::EditDest { service: vip(), dest: gone, attributes }, Errno::NoEnt),
        (Request::DeleteDest { service: vip(), dest: gone }, Errno::NoEnt),
        (add_dest(real(11), attributes), Errno::Exist),
        (add_dest(real(11), masquerade(1 << 31)), Errno::Range),
        (add_dest(gone, DestAttributes { lower_threshold: 1, ..attributes }), Errno::Range),
        (add_dest(gone, tunnelled), Errno::Inval),
        (add_dest("224.0.0.1:80".parse().unwrap(), attributes), Errno::Inval),
        (add_dest("255.255.255.255:80".parse().unwrap(), attributes), Errno::Inval),
        (add_dest("0.0.0.0:80".parse().unwrap(), attributes), Errno::Inval),
        (add_dest("[2001:db8::1]:80".parse().unwrap(), attributes), Errno::Inval),
        (Request::Zero { service: Some(nowhere) }, Errno::Srch),
        (Request::ListServices { service: Some(nowhere) }, Errno::Srch),
        (Request::StopDaemon(rvs_api::DaemonState::Master), Errno::Srch),
    ];
    for (request, expected) in cases {
        assert_eq!(errno(state.apply(request.clone(), &NoTraffic)), expected, "{request:?}");
    }
    assert_eq!(state.version(), version);
    assert_eq!(listed(&mut state, &NoTraffic)[0].dests.len(), 1);
}

#[test]
fn a_mask_of_ipv6_is_1_to_128_bits() {
    let mut state = State::new(LIMITS).accept_everything();
    let service = tcp("[2001:db8::1]:80");
    for (netmask, fits) in [
        (Netmask::V6(0), false),
        (Netmask::V6(129), false),
        (Netmask::V4([255; 4].into()), false),
        (Netmask::V6(1), true),
        (Netmask::V6(128), true),
    ] {
        let attributes = ServiceAttributes { netmask, ..scheduled("rr") };
        let outcome = state.apply(Request::AddService { service, attributes }, &NoTraffic);
        assert_eq!(outcome.is_ok(), fits, "{netmask:?}");
        state.apply(Request::Flush, &NoTraffic).unwrap();
    }
}

#[test]
fn every_kind_of_service_tunnel_and_threshold_is_taken() {
    let mut state = with_service();
    let address = "203.0.113.1:53".parse().unwrap();
    let udp = ServiceKey::Address { protocol: Protocol::Udp, address };
    let tunnelled = |kind| DestAttributes {
        upper_threshold: 9,
        tunnel: Tunnel { kind, port: 6080, ..Tunnel::default() },
        ..DestAttributes::new(ForwardMethod::Tunnel, Weight(1))
    };
    let service =
        |scheduler| Request::AddService { service: udp, attributes: scheduled(scheduler) };
    assert_eq!(errno(state.apply(service("nosuch"), &NoTraffic)), Errno::NoEnt);
    state.apply(service("rr"), &NoTraffic).unwrap();
    let kinds = [TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre];
    for (kind, last) in kinds.into_iter().zip(1..) {
        state.apply(add_dest(real(last), tunnelled(kind)), &NoTraffic).unwrap();
    }
}

#[test]
fn the_director_itself_is_no_destination() {
    let local = vec!["203.0.113.0/28".parse().unwrap()];
    let network = Network::new(vec![], vec![], local, vec![], true);
    let mut state = State::new(LIMITS).within(network);
    state.apply(add(vip(), "rr"), &NoTraffic).unwrap();
    for own in ["203.0.113.9:80", "127.0.0.1:80"] {
        let refusal = state.apply(add_dest(own.parse().unwrap(), masquerade(1)), &NoTraffic);
        let message = refusal.unwrap_err().message.unwrap();
        assert!(message.contains("is the director itself"), "{message}");
    }
    assert!(listed(&mut state, &NoTraffic)[0].dests.is_empty());
    state.apply(add_dest("203.0.113.16:80".parse().unwrap(), masquerade(1)), &NoTraffic).unwrap();
}

#[test]
fn a_tunnel_may_lead_to_the_other_family() {
    let mut state = with_service();
    let far = "[2001:db8::11]:80".parse().unwrap();
    let tunnel = DestAttributes::new(ForwardMethod::Tunnel, Weight(1));
    state.apply(add_dest(far, tunnel), &NoTraffic).unwrap();
    state.apply(Request::DeleteDest { service: vip(), dest: far }, &NoTraffic).unwrap();
}

#[test]
fn edits_replace_everything_and_only_another_scheduler_is_bound_anew() {
    let mut state = with_service();
    let bound = state.service(&vip()).unwrap().bound_at();
    let attributes = ServiceAttributes { timeout_s: 5, ..scheduled("wlc") };
    state.apply(Request::EditService { service: vip(), attributes }, &NoTraffic).unwrap();
    assert_eq!(state.service(&vip()).unwrap().bound_at(), bound);
    let attributes = scheduled("wrr");
    state.apply(Request::EditService { service: vip(), attributes }, &NoTraffic).unwrap();
    let service = state.service(&vip()).unwrap();
    assert!(service.bound_at() > bound && service.version() == state.version());
    assert_eq!(service.scheduler(), Some(SchedulerKind::Wrr));
    assert_eq!(service.attributes().timeout_s, 0);
}

#[test]
fn a_deleted_dest_that_comes_back_goes_on_counting() {
    let (mut state, counted) = (with_service(), Counted::default());
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    let id = id_of(&state, real(11));
    counted.count(id, 5);
    state.apply(Request::DeleteDest { service: vip(), dest: real(11) }, &counted).unwrap();
    counted.hold(id, 1);
    assert_eq!(state.reclaim(1_000, &counted), 0);
    assert_eq!(listed(&mut state, &counted)[0].totals.conns, 5, "the trash counts");
    state.apply(add_dest(real(11), masquerade(7)), &counted).unwrap();
    let entry = &listed(&mut state, &counted)[0];
    assert_eq!((entry.dests[0].totals.conns, entry.dests[0].active), (5, 1));
    assert_eq!(entry.dests[0].attributes.weight, Weight(7));
    assert_eq!(id_of(&state, real(11)), id);
}

#[test]
fn a_place_is_free_120_seconds_after_the_last_connection() {
    let (mut state, counted) = (with_service(), Counted::default());
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    let id = id_of(&state, real(11));
    counted.count(id, 3);
    counted.hold(id, 1);
    state.apply(Request::DeleteDest { service: vip(), dest: real(11) }, &counted).unwrap();
    assert_eq!(state.reclaim(1_000, &counted), 0);
    counted.hold(id, 0);
    assert_eq!(state.reclaim(2_000, &counted), 0);
    counted.hold(id, 1);
    assert_eq!(state.reclaim(2_119, &counted), 0, "a connection that came late");
    counted.hold(id, 0);
    assert_eq!(state.reclaim(2_200, &counted), 0);
    assert_eq!(state.reclaim(2_319, &counted), 0);
    assert_eq!(state.reclaim(2_320, &counted), 1);
    assert!(state.dest(id).is_none());
    assert_eq!(listed(&mut state, &counted)[0].totals.conns, 3, "the service still knows");
}

#[test]
fn a_place_that_is_used_again_starts_at_zero() {
    let counted = Counted::default();
    let mut state = State::new(Limits { dests: 1, ..LIMITS });
    state.apply(add(vip(), "rr"), &counted).unwrap();
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    counted.count(DestId(0), 9);
    assert_eq!(errno(state.apply(add_dest(real(12), masquerade(1)), &counted)), Errno::NoMem);
    state.apply(Request::DeleteDest { service: vip(), dest: real(11) }, &counted).unwrap();
    assert_eq!(errno(state.apply(add_dest(real(12), masquerade(1)), &counted)), Errno::NoMem);
    state.reclaim(0, &counted);
    assert_eq!(state.reclaim(TRASH_SECONDS, &counted), 1);
    state.apply(add_dest(real(12), masquerade(1)), &counted).unwrap();
    counted.count(DestId(0), 2);
    let entry = &listed(&mut state, &counted)[0];
    assert_eq!((entry.dests[0].totals.conns, entry.totals.conns), (2, 11));
}

#[test]
fn a_deleted_service_keeps_its_place_while_its_dests_have_theirs() {
    let (mut state, counted) = (with_service(), Counted::default());
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    let (id, dest) = (state.service(&vip()).unwrap().id(), id_of(&state, real(11)));
    counted.count(dest, 4);
    counted.hold(dest, 2);
    state.apply(Request::Flush, &counted).unwrap();
    assert!(state.service(&vip()).is_none() && listed(&mut state, &counted).is_empty());
    assert_eq!(errno(state.apply(add_dest(real(11), masquerade(1)), &counted)), Errno::Srch);
    state.apply(add(tcp("203.0.113.2:80"), "rr"), &counted).unwrap();
    assert_ne!(state.service(&tcp("203.0.113.2:80")).unwrap().id(), id);

    state.apply(add(vip(), "rr"), &counted).unwrap();
    assert_eq!(state.service(&vip()).unwrap().id(), id);
    assert_eq!(listed(&mut state, &counted)[0].totals.conns, 0, "a new service");
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    counted.count(dest, 1);
    let entry = &listed(&mut state, &counted)[0];
    assert_eq!((entry.totals.conns, entry.dests[0].totals.conns), (1, 1));
    assert_eq!(entry.dests[0].active, 2, "connections live on");
}

#[test]
fn a_service_without_dests_gives_its_place_back_at_once() {
    let mut state = State::new(Limits { services: 1, ..LIMITS });
    for last in 1..10 {
        let key = tcp(&format!("203.0.113.{last}:80"));
        state.apply(add(key, "rr"), &NoTraffic).unwrap();
        assert_eq!(errno(state.apply(add(vip(), "rr"), &NoTraffic)) == Errno::NoMem, last != 1);
        state.apply(Request::DeleteService { service: key }, &NoTraffic).unwrap();
    }
}

#[test]
fn zero_starts_counters_again_without_touching_connections() {
    let (mut state, counted) = (with_service(), Counted::default());
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    let id = id_of(&state, real(11));
    counted.count(id, 5);
    counted.hold(id, 3);
    let version = state.version();
    state.apply(Request::Zero { service: Some(vip()) }, &counted).unwrap();
    let entry = &listed(&mut state, &counted)[0];
    assert_eq!((entry.totals, entry.dests[0].totals.conns), (Totals::default(), 0));
    assert_eq!(entry.dests[0].active, 3);
    counted.count(id, 2);
    state.apply(Request::DeleteDest { service: vip(), dest: real(11) }, &counted).unwrap();
    state.reclaim(0, &counted);
    counted.hold(id, 0);
    state.reclaim(1, &counted);
    state.reclaim(1 + TRASH_SECONDS, &counted);
    assert_eq!(listed(&mut state, &counted)[0].totals.conns, 2);
    assert!(state.version() == version + 1, "only the deletion concerns the data path");
}

#[test]
fn rates_follow_what_is_counted_every_two_seconds() {
    let (mut state, counted) = (with_service(), Counted::default());
    state.apply(add_dest(real(11), masquerade(1)), &counted).unwrap();
    let id = id_of(&state, real(11));
    for _ in 0..60 {
        counted.count(id, 20);
        state.estimate(&counted);
    }
    let entry = &listed(&mut state, &counted)[0];
    assert_eq!((entry.rates.conns, entry.rates.packets_in), (10, 100));
    assert_eq!(entry.dests[0].rates, entry.rates);
    state.apply(Request::Zero { service: None }, &counted).unwrap();
    assert_eq!(listed(&mut state, &counted)[0].rates.conns, 0);
}

#[test]
fn timeouts_keep_what_is_zero_and_know_their_limit() {
    let mut state = State::new(LIMITS);
    let set =
        |tcp_s, tcp_fin_s, udp_s| Request::SetTimeouts(TimeoutsChange { tcp_s, tcp_fin_s, udp_s });
    let told = |state: &mut State| match state.apply(Request::GetTimeouts, &NoTraffic) {
        Ok(Reply::Timeouts(told)) => (told.tcp_s, told.tcp_fin_s, told.udp_s),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut state), (900, 120, 300));
    state.apply(set(100, 0, 7), &NoTraffic).unwrap();
    assert_eq!(told(&mut state), (100, 120, 7));
    assert_eq!(errno(state.apply(set(0, TIMEOUT_SECONDS_MAX + 1, 0), &NoTraffic)), Errno::Inval);
    state.apply(set(0, TIMEOUT_SECONDS_MAX, 0), &NoTraffic).unwrap();
    assert_eq!(told(&mut state), (100, TIMEOUT_SECONDS_MAX, 7));
    assert_eq!(state.timeouts().seconds(ConnState::TimeWait), 120, "only FIN_WAIT is tcpfin");
}

#[test]
fn a_scope_does_not_make_another_dest() {
    let mut state = State::new(LIMITS);
    let service = tcp("[2001:db8::1]:80");
    let attributes = ServiceAttributes::new("rr", AddressFamily::V6);
    state.apply(Request::AddService { service, attributes }, &NoTraffic).unwrap();
    let attributes = masquerade(1);
    for (dest, expected) in [("[2001:db8::2]:80", None), ("[2001:db8::2%5]:80", Some(Errno::Exist))]
    {
        let dest = dest.parse().unwrap();
        let outcome = state.apply(Request::AddDest { service, dest, attributes }, &NoTraffic);
        assert_eq!(outcome.err().map(|refusal| refusal.errno), expected);
    }
}

/// A table kept the simplest way, to compare with.
#[derive(Default)]
struct Naive(Vec<(ServiceKey, Vec<(SocketAddr, DestAttributes)>)>);

impl Naive {
    fn apply(&mut self, request: &Request) -> Result<(), Errno> {
        let at = |key: &ServiceKey| self.0.iter().position(|(other, _)| other == key);
        match request {
            Request::AddService { service, .. } => {
                if at(service).is_some() {
                    return Err(Errno::Exist);
                }
                self.0.push((*service, Vec::new()));
                Ok(())
            }
            Request::DeleteService { service } => {
                let at = at(service).ok_or(Errno::Srch)?;
                self.0.remove(at);
                Ok(())
            }
            Request::AddDest { service, dest, attributes } => {
                let at = at(service).ok_or(Errno::Srch)?;
                let dests = &mut self.0[at].1;
                if dests.iter().any(|(other, _)| other == dest) {
                    return Err(Errno::Exist);
                }
                dests.insert(0, (*dest, *attributes));
                Ok(())
            }
            Request::DeleteDest { service, dest } => {
                let at = at(service).ok_or(Errno::Srch)?;
                let dests = &mut self.0[at].1;
                let place =
                    dests.iter().position(|(other, _)| other == dest).ok_or(Errno::NoEnt)?;
                dests.remove(place);
                Ok(())
            }
            _ => {
                self.0.clear();
                Ok(())
            }
        }
    }
}

#[test]
fn random_changes_agree_with_a_naive_table_and_ids_stay_unique() {
    let limits = Limits { services: 64, dests: 4096, conns: 0 };
    let (mut state, mut naive) = (State::new(limits), Naive::default());
    let mut seed = 7_u32;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    for step in 0..50_000_u64 {
        let service = tcp(&format!("203.0.113.{}:80", random(6)));
        let dest = real(u8::try_from(random(8)).unwrap() + 1);
        let request = match random(64) {
            0 => Request::Flush,
            1..6 => Request::DeleteService { service },
            6..20 => add(service, "rr"),
            20..44 => Request::AddDest { service, dest, attributes: masquerade(random(5)) },
            _ => Request::DeleteDest { service, dest },
        };
        let outcome = state.apply(request.clone(), &NoTraffic).map(|_| ()).map_err(|r| r.errno);
        assert_eq!(outcome, naive.apply(&request), "step {step}: {request:?}");
        state.reclaim(step, &NoTraffic);
        if step % 16 == 0 {
            for (key, dests) in &naive.0 {
                let service = state.service(key).unwrap();
                let rows: Vec<_> =
                    state.dests_of(service).map(|row| (row.address(), *row.attributes())).collect();
                assert_eq!(&rows, dests, "step {step}");
            }
            assert_eq!(state.services().count(), naive.0.len());
            assert!(state.dests().count() <= 6 * 8);
        }
    }
}

#[test]
fn a_deleted_destination_keeps_its_place_while_a_template_leads_to_it() {
    let mut state = with_service();
    state.apply(add_dest(real(11), masquerade(1)), &NoTraffic).unwrap();
    let (id, counted) = (id_of(&state, real(11)), Counted::default());
    counted.templates.borrow_mut().insert(id, 1);
    state.apply(Request::DeleteDest { service: vip(), dest: real(11) }, &counted).unwrap();
    assert_eq!(state.reclaim(0, &counted), 0);
    assert_eq!(state.reclaim(1000, &counted), 0);
    counted.templates.borrow_mut().clear();
    assert_eq!(state.reclaim(1001, &counted), 0);
    assert_eq!(state.reclaim(1001 + TRASH_SECONDS, &counted), 1);
}
