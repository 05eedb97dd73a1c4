use super::*;
use crate::network::{Interface, Route};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
const ANSWER: News = News { mac: MAC, solicited: true, overrides: true, create: false };

fn network() -> Network {
    let interface = Interface {
        name: "lan".into(),
        link: 1,
        vlan: 0,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        addresses: vec!["192.0.2.1/24".parse().unwrap()],
    };
    Network::new(vec![interface], vec![], vec![], vec![], true)
}

fn next(last: u8) -> NextHop {
    let address = IpAddr::from([192, 0, 2, last]);
    NextHop { interface: InterfaceId(0), address, on_link: true }
}

fn held() -> Held<u8> {
    Held { frame: 7, l3: 14, is_long: false }
}

/// A question and its answer.
fn meet(all: &mut Neighbors<u8>, network: &Network, last: u8, place: Place, now: Tick) -> HopId {
    let id = all.resolve(network, next(last), place, now).unwrap();
    all.hold(id, held(), now).unwrap();
    assert_eq!(all.learn(network, from(last), ANSWER, now), Some(id));
    assert_eq!(all.release(id).len(), 1);
    id
}

#[test]
fn a_frame_waits_for_the_answer_and_the_first_one_asks() {
    let (network, mut all) = (network(), Neighbors::new(8));
    let id = all.resolve(&network, next(9), Place::Guest, 100).unwrap();
    let question = all.hold(id, held(), 100).unwrap().unwrap();
    assert_eq!((question.address, question.to), (next(9).address, None));
    assert_eq!(all.hold(id, held(), 100).unwrap(), None);
    assert!(all.hop(id).unwrap().header().is_none());
    let answered = all.learn(&network, (InterfaceId(0), question.address), ANSWER, 101);
    assert_eq!(answered, Some(id));
    assert_eq!(all.release(id).len(), 2);
    let header = all.hop(id).unwrap().header().unwrap();
    assert_eq!((&header[..6], &header[12..]), (&MAC.0[..], &[8, 0][..]));
}

#[test]
fn three_unanswered_requests_give_up_and_a_later_frame_asks_again() {
    let (network, mut all) = (network(), Neighbors::new(8));
    let id = all.resolve(&network, next(9), Place::Guest, 0).unwrap();
    assert!(all.hold(id, held(), 0).unwrap().is_some());
    let mut asked = 1;
    let mut lost = 0;
    for now in 1..40 {
        let Some(due) = all.tick(now) else { continue };
        asked += due.questions.len();
        lost += due.given_up.len();
    }
    assert_eq!((asked, lost, all.held()), (3, 1, 0));
    assert!(all.hold(id, held(), 25).is_err(), "within a second of giving up");
    assert!(all.hold(id, held(), 60).unwrap().is_some());
}

#[test]
fn a_neighbor_is_probed_after_thirty_seconds_and_lost_when_silent() {
    let (network, mut all) = (network(), Neighbors::<u8>::new(8));
    let id = meet(&mut all, &network, 9, Place::Guest, 0);
    let mut questions = 0;
    for now in 0..ticks(REACHABLE_S) + ticks(10) {
        for question in all.tick(now).into_iter().flat_map(|due| due.questions) {
            assert_eq!(question.to, Some(MAC));
            questions += 1;
        }
    }
    assert_eq!(questions, 3);
    assert!(!all.hop(id).unwrap().is_ready());
}

fn from(last: u8) -> (InterfaceId, IpAddr) {
    (InterfaceId(0), next(last).address)
}

#[test]
fn a_full_table_reuses_only_those_that_do_not_answer_and_not_in_the_same_breath() {
    let (network, mut all) = (network(), Neighbors::<u8>::new(2));
    let alive = meet(&mut all, &network, 1, Place::Resident, 0);
    let silent = all.resolve(&network, next(2), Place::Resident, 0).unwrap();
    assert_eq!(all.resolve(&network, next(3), Place::Resident, 0), None, "somebody means it");
    all.tick(0);
    let reused = meet(&mut all, &network, 3, Place::Resident, 0);
    assert_eq!(reused, silent);
    assert!(!all.hop(reused).unwrap().leads_to(peer(next(2).address)));
    all.tick(0);
    assert_eq!(all.resolve(&network, next(4), Place::Resident, 0), None);
    assert!(all.hop(alive).unwrap().is_ready());
}

#[test]
fn guests_take_half_of_the_places_even_when_they_answer() {
    let (network, mut all) = (network(), Neighbors::<u8>::new(8));
    let heard = News { solicited: false, create: true, ..ANSWER };
    // Each claims many addresses, asks for us, and answers what nobody asked.
    for last in 1..100 {
        all.learn(&network, from(last), heard, 0);
        all.learn(&network, from(last), ANSWER, 0);
        all.tick(0);
    }
    assert_eq!((all.guests, all.hops.len()), (4, 4));
    for last in 101..=104 {
        assert!(all.resolve(&network, next(last), Place::Resident, 0).is_some(), "{last}");
    }
    // What was only heard makes way for a guest that is needed.
    for last in 105..=108 {
        let id = all.resolve(&network, next(last), Place::Guest, 0).unwrap();
        all.hold(id, held(), ticks(1)).unwrap();
        assert_eq!(all.learn(&network, from(last), ANSWER, ticks(1)), Some(id));
        all.release(id);
        all.tick(0);
    }
    assert_eq!(all.resolve(&network, next(109), Place::Guest, 0), None, "all four answer");
    assert_eq!(all.learn(&network, from(110), heard, 0), None);
    assert_eq!((all.guests, all.hops.len()), (4, 8));
    // One that the operator names is a guest no more.
    assert!(all.resolve(&network, next(105), Place::Resident, 0).is_some());
    assert_eq!(all.guests, 3);
}

#[test]
fn an_answer_to_nothing_makes_nobody_reachable() {
    let (network, mut all) = (network(), Neighbors::<u8>::new(8));
    let id = all.learn(&network, from(9), News { solicited: false, create: true, ..ANSWER }, 0);
    all.learn(&network, from(9), ANSWER, 0);
    for now in 0..=ticks(REACHABLE_S) {
        assert!(
            all.tick(now).is_none_or(|due| due.questions.is_empty()),
            "what nobody needs is not asked for"
        );
    }
    assert!(!all.hop(id.unwrap()).unwrap().is_ready(), "forgotten");
}

#[test]
fn what_was_only_heard_is_verified_when_it_is_used() {
    let (network, mut all) = (network(), Neighbors::<u8>::new(8));
    let news = News { solicited: false, create: true, ..ANSWER };
    let id = all.learn(&network, from(9), news, 0).unwrap();
    assert_eq!(all.resolve(&network, next(9), Place::Guest, 3), Some(id));
    assert!(all.hop(id).unwrap().is_ready(), "and used meanwhile");
    let due = all.tick(3).unwrap();
    assert_eq!(due.questions[0].to, Some(MAC));
}

#[test]
fn no_more_frames_wait_than_all_neighbors_together_may_have() {
    let (network, mut all) = (network(), Neighbors::new(250));
    let mut refused = 0;
    for last in 0..250 {
        let id = all.resolve(&network, next(last), Place::Resident, 0).unwrap();
        for _ in 0..HELD {
            refused += usize::from(all.hold(id, held(), 0).is_err());
        }
    }
    assert_eq!((all.held(), refused), (HELD_ALL, 250 * HELD - HELD_ALL));
}

#[test]
fn few_of_the_frames_that_wait_are_long_and_all_are_accounted_for() {
    let (network, mut all) = (network(), Neighbors::new(64));
    let long = || Held { is_long: true, ..held() };
    let ids: Vec<_> =
        (10..40).map(|last| all.resolve(&network, next(last), Place::Guest, 0).unwrap()).collect();
    let took = ids.iter().filter(|id| all.hold(**id, long(), 0).is_ok()).count();
    assert_eq!((took, all.held()), (HELD_LONG, HELD_LONG));
    assert!(all.hold(ids[HELD_LONG], held(), 0).is_ok(), "short ones wait");
    // A long one that makes place is no longer counted.
    for _ in 0..HELD {
        let _oldest = all.hold(ids[0], held(), 0);
    }
    assert!(all.hold(ids[HELD_LONG], long(), 0).is_ok());
    assert!(all.hold(ids[HELD_LONG], long(), 0).is_err());
    let released: usize = ids.iter().map(|id| all.release(*id).len()).sum();
    assert_eq!((released, all.held()), (HELD_LONG - 1 + HELD + 2, 0));
    assert!(all.hold(ids[0], long(), 0).is_ok());
}

#[test]
fn frames_for_guests_leave_half_of_the_places_to_destinations() {
    let (network, mut all) = (network(), Neighbors::new(500));
    for number in 0..250_u8 {
        let id = all.resolve(&network, next(number), Place::Guest, 0).unwrap();
        for _ in 0..HELD {
            let _full = all.hold(id, held(), 0);
        }
    }
    assert_eq!(all.held(), HELD_ALL / 2);
    let dest = all.resolve(&network, next(251), Place::Resident, 0).unwrap();
    assert!(all.hold(dest, held(), 0).unwrap().is_some(), "asked for during a scan");
}

#[test]
fn a_router_never_takes_the_place_of_a_host() {
    let route = Route {
        to: "0.0.0.0/0".parse().unwrap(),
        interface: InterfaceId(0),
        via: Some(next(254).address),
    };
    let network = Network::new(network().interfaces().to_vec(), vec![route], vec![], vec![], true);
    let mut all = Neighbors::<u8>::new(2);
    all.configure(&network, 0);
    let hosts = [1, 2].map(|last| {
        all.tick(0);
        all.resolve(&network, next(last), Place::Resident, 0).unwrap()
    });
    all.tick(0);
    let far = network.next_hop(IpAddr::from([203, 0, 113, 7])).unwrap();
    all.resolve(&network, far, Place::Guest, 0).unwrap();
    for host in hosts {
        assert!(!all.hop(host).unwrap().leads_to(peer(next(9).address)));
    }
}

#[test]
fn hosts_of_two_networks_with_the_same_last_word_are_told_apart() {
    let of = |text: &str| peer(text.parse().unwrap());
    assert_ne!(of("2001:db8:1::11"), of("2001:db8:2::11"));
    assert_ne!(of("2001:db8::11"), of("fe80::11"));
}

#[test]
fn all_clients_behind_a_router_have_its_hop_until_routes_change_and_others_have_their_own() {
    let lan = |last: u8| IpAddr::from([192, 0, 2, last]);
    let via = |router: u8| {
        let route = Route {
            to: "0.0.0.0/0".parse().unwrap(),
            interface: InterfaceId(0),
            via: Some(lan(router)),
        };
        let interfaces = network().interfaces().to_vec();
        Network::new(interfaces, vec![route], vec![], vec![], true)
    };
    let hop = |all: &mut Neighbors<u8>, network: &Network, client: IpAddr| {
        let id = all.resolve_towards(network, network.about(client), client, 0).unwrap();
        let entry = &all.entries[usize::from(id)];
        (entry.address, all.hop(id).unwrap().leads_to(peer(client)))
    };
    let clients = || (1..4).map(|last| IpAddr::from([203, 0, 113, last]));
    let mut all = Neighbors::new(8);
    for router in [1, 7, 8] {
        let network = via(router);
        all.forget_routes();
        for client in clients() {
            assert_eq!(hop(&mut all, &network, client), (lan(router), true));
            assert_eq!(hop(&mut all, &network, lan(9)), (lan(9), true), "on the link");
        }
    }
    let nowhere = network();
    all.forget_routes();
    let client = clients().next().unwrap();
    let lost = all.resolve_towards(&nowhere, nowhere.about(client), client, 0);
    assert_eq!(lost, Err(DropReason::NoRoute));
}
