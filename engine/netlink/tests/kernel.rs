//! The order of checks and the error numbers are those of Linux 6.1 `ip_vs_ctl.c`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall stop")]
#![expect(clippy::indexing_slicing, reason = "of what was just made so long")]

mod common;

use common::{State, Wire, ask, asks, attribute, daemon, dest, full, header, key};
use rvs_api::{Access, AddressFamily, Request, ServiceAttributes, ServiceKey};
use rvs_model::{Protocol, StaleUdp};
use rvs_netlink::{Answer, FAMILY_ID, Table};

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

fn datagrams(state: &mut State, access: Access, request: &[u8]) -> Vec<Vec<u8>> {
    match rvs_netlink::answer(request, access, state).unwrap() {
        Answer::Datagrams(datagrams) => datagrams,
        Answer::Conns(_) | Answer::Written(..) => panic!("more to come"),
    }
}

/// The number in the acknowledgement or error that ends the answer.
fn errno_of(datagrams: &[Vec<u8>]) -> i32 {
    let last = datagrams.last().unwrap();
    assert_eq!(header(last).1, 2, "NLMSG_ERROR");
    -i32::from_ne_bytes(last[16..20].try_into().unwrap())
}

fn errno(state: &mut State, request: &[u8]) -> i32 {
    errno_of(&datagrams(state, Access::Change, request))
}

fn with_dest() -> State {
    let mut state = State::new();
    assert_eq!(errno(&mut state, &ask(1, &[(1, full(b"wlc\0"))])), 0);
    assert_eq!(errno(&mut state, &ask(5, &[(1, key()), (2, dest(3))])), 0);
    state
}

#[test]
fn every_request_of_a_client_is_acknowledged() {
    let mut state = with_dest();
    for (command, attributes) in [
        (2, vec![(1, full(b"rr\0"))]),
        (6, vec![(1, full(b"rr\0")), (2, dest(4))]),
        (16, vec![(1, key())]),
        (16, vec![]),
        (12, vec![(4, 10_u32.to_ne_bytes().to_vec())]),
        (9, vec![(3, daemon(b"lan\0"))]),
        (10, vec![(3, daemon(b"lan\0"))]),
        (7, vec![(1, key()), (2, dest(0))]),
        (3, vec![(1, key())]),
        (17, vec![]),
    ] {
        assert_eq!(errno(&mut state, &ask(command, &attributes)), 0, "command {command}");
    }
}

#[test]
fn errors_are_the_kernels() {
    let mut state = with_dest();
    let other = |port: u16| {
        let mut other = full(b"wlc\0");
        other[28..30].copy_from_slice(&port.to_be_bytes());
        other
    };
    let family = [attribute(1, &7_u16.to_ne_bytes()), attribute(5, &1_u32.to_ne_bytes())].concat();
    let multicast = [attribute(1, &[224, 0, 0, 1]), dest(1)[8..].to_vec()].concat();
    let v6 = [dest(1), attribute(11, &10_u16.to_ne_bytes())].concat();
    for (what, request, expected) in [
        ("a service twice", ask(1, &[(1, full(b"wlc\0"))]), EEXIST),
        (
            "an unknown scheduler",
            ask(
                1,
                &[(1, {
                    let mut it = other(81);
                    let at = it.windows(4).position(|name| name == b"wlc\0").unwrap();
                    it[at..at + 4].copy_from_slice(b"xyz\0");
                    it
                })],
            ),
            ENOENT,
        ),
        ("half a service", ask(1, &[(1, key())]), EINVAL),
        ("no service", ask(1, &[]), EINVAL),
        (
            "half a service comes before that it is not there",
            ask(
                2,
                &[(1, {
                    let mut key = key();
                    key[28..30].copy_from_slice(&81_u16.to_be_bytes());
                    key
                })],
            ),
            EINVAL,
        ),
        ("a service that is not there", ask(2, &[(1, other(81))]), ESRCH),
        ("that comes before no destination", ask(5, &[(1, other(81))]), ESRCH),
        ("no destination", ask(5, &[(1, key())]), EINVAL),
        ("a destination twice", ask(5, &[(1, key()), (2, dest(3))]), EEXIST),
        ("a negative weight", ask(5, &[(1, key()), (2, dest(u32::MAX))]), ERANGE),
        ("an address of many", ask(5, &[(1, key()), (2, multicast)]), EINVAL),
        ("another family without a tunnel", ask(5, &[(1, key()), (2, v6)]), EINVAL),
        ("an unknown family", ask(3, &[(1, family)]), EAFNOSUPPORT),
        ("a text without its end", ask(1, &[(1, full(b"wlc1"))]), EINVAL),
        ("a short number", ask(12, &[(4, vec![1])]), ERANGE),
        ("an unknown device", ask(9, &[(3, daemon(b"wan\0"))]), ENODEV),
        ("a daemon that does not run", ask(10, &[(3, daemon(b"lan\0"))]), ESRCH),
        ("an unknown command", ask(99, &[]), EOPNOTSUPP),
        ("an answer as a question", ask(14, &[]), EOPNOTSUPP),
        ("one destination", ask(8, &[(1, key())]), EOPNOTSUPP),
        ("a dump of the timeouts", asks(0x305, 13, &[]), EOPNOTSUPP),
        ("another family", Wire::new(99, 5, 1, 1).finish(), ENOENT),
        (
            "another family's name",
            Wire::new(16, 5, 1, 3).attribute(2, b"TASKSTATS\0").finish(),
            ENOENT,
        ),
    ] {
        assert_eq!(errno(&mut state, &request), expected, "{what}");
    }
    assert_eq!(errno(&mut state, &ask(6, &[(1, key()), (2, dest(5))])), 0, "nothing was changed");
}

#[test]
fn who_may_only_ask_cannot_change_and_who_may_nothing_cannot_ask() {
    let mut state = with_dest();
    let list = asks(0x301, 4, &[]);
    for (access, request, expected) in [
        (Access::Read, ask(17, &[]), EPERM),
        (Access::None, ask(15, &[]), EPERM),
        (Access::None, list.clone(), EPERM),
    ] {
        assert_eq!(errno_of(&datagrams(&mut state, access, &request)), expected);
    }
    let told = datagrams(&mut state, Access::Read, &list);
    assert_eq!(header(told.last().unwrap()).1, FAMILY_ID, "one datagram, with the end in it");
    let family = Wire::new(16, 5, 1, 3).attribute(2, b"IPVS\0").finish();
    assert_eq!(errno_of(&datagrams(&mut state, Access::None, &family)), 0);
}

#[test]
fn an_acknowledgement_is_a_datagram_of_its_own_and_only_when_asked_for() {
    let mut state = with_dest();
    let answer = datagrams(&mut state, Access::Change, &ask(15, &[]));
    assert_eq!(answer.iter().map(|it| header(it).1).collect::<Vec<_>>(), [FAMILY_ID, 2]);
    let answer = datagrams(&mut state, Access::Change, &asks(1, 15, &[]));
    assert_eq!(answer.len(), 1);
    assert!(datagrams(&mut state, Access::Change, &asks(1, 17, &[])).is_empty());
}

#[test]
fn destinations_of_a_service_that_is_not_there_are_an_empty_dump() {
    let mut state = State::new();
    let answer = datagrams(&mut state, Access::Change, &asks(0x301, 8, &[(1, key())]));
    let kinds: Vec<_> = answer.iter().map(|it| (header(it).1, header(it).2)).collect();
    assert_eq!(kinds, [(3, 2)], "NLMSG_DONE with NLM_F_MULTI");
}

#[test]
fn what_is_long_is_told_once_for_a_datagram() {
    let file = Wire::new(0x4957, 1, 5, 2).attribute(1, b"net/ip_vs\0").finish();
    for question in [asks(0x301, 4, &[]), asks(0x301, 8, &[(1, key())]), file] {
        let mut state = with_dest();
        let once = datagrams(&mut state, Access::Read, &question);
        let many = question.repeat(64);
        let answer = datagrams(&mut state, Access::Read, &many);
        assert!(answer[..once.len()] == once);
        let errors = &answer[once.len()..];
        assert_eq!(errors.len(), 63);
        assert!(errors.iter().all(|it| errno_of(core::slice::from_ref(it)) == EBUSY));
        // The next datagram is another matter.
        assert!(datagrams(&mut state, Access::Read, &question) == once);
    }
}

#[test]
fn long_listings_come_in_datagrams_that_every_client_has_room_for() {
    let mut state = with_dest();
    for last in 12..=250_u8 {
        let mut dest = dest(1);
        dest[7] = last;
        assert_eq!(errno(&mut state, &ask(5, &[(1, key()), (2, dest)])), 0);
    }
    let answer = datagrams(&mut state, Access::Change, &asks(0x301, 8, &[(1, key())]));
    assert!(answer.len() > 5 && answer.iter().all(|it| it.len() <= 8 << 10), "{}", answer.len());
    let mut messages = 0;
    for mut rest in answer.iter().map(Vec::as_slice) {
        while !rest.is_empty() {
            let (len, kind, flags, ..) = header(rest);
            assert_eq!(flags, 2, "NLM_F_MULTI of {kind}");
            messages += 1;
            rest = &rest[len.next_multiple_of(4)..];
        }
    }
    assert_eq!(messages, 240 + 1);
}

#[test]
fn flags_that_are_not_meant_stay_as_they_are() {
    let mut state = with_dest();
    let flags = |value: u32, mask: u32| {
        let mut service = full(b"wlc\0");
        let at = service.windows(4).position(|it| it == [12, 0, 7, 0]).unwrap() + 4;
        service[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        service[at + 4..at + 8].copy_from_slice(&mask.to_ne_bytes());
        service
    };
    let told = |state: &mut State| {
        let answer = datagrams(state, Access::Change, &asks(1, 4, &[(1, key())]));
        let at = answer[0].windows(4).position(|it| it == [12, 0, 7, 0]).unwrap() + 4;
        u32::from_ne_bytes(answer[0][at..at + 4].try_into().unwrap())
    };
    assert_eq!(told(&mut state), 2, "the kernel shows that it is hashed");
    assert_eq!(errno(&mut state, &ask(2, &[(1, flags(0x18, u32::MAX))])), 0);
    assert_eq!(errno(&mut state, &ask(2, &[(1, flags(0, 0x10))])), 0);
    assert_eq!(told(&mut state), 0x08 | 2);
}

#[test]
fn an_edit_keeps_what_the_protocol_has_no_word_for() {
    let mut state = with_dest();
    let address = "203.0.113.1:80".parse().unwrap();
    let service = ServiceKey::Address { protocol: Protocol::Tcp, address };
    let mut attributes = ServiceAttributes::new("wlc", AddressFamily::V4);
    attributes.stale_udp = StaleUdp::Rebind;
    state.carry_out(Request::EditService { service, attributes }).unwrap();
    assert_eq!(errno(&mut state, &ask(2, &[(1, full(b"rr\0"))])), 0);
    let known = state.service(&service).unwrap();
    assert_eq!((known.scheduler.as_str(), known.stale_udp), ("rr", StaleUdp::Rebind));
}
