//! Whatever a client sends: no panic, and an answer or an error.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod common;

use common::{State, Wire, header, is_answer_to};
use rvs_api::Access;
use rvs_netlink::{Answer, FAMILY_ID, NotNetlink, REQUEST_OCTETS_MAX};

/// Rounds of each test, unless `RVS_ROUNDS` says otherwise.
const ROUNDS: u32 = 200_000;

fn rounds() -> u32 {
    std::env::var("RVS_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[3]
    }
}

/// Everything that answers a well-formed request names it.
fn judge(state: &mut State, datagram: &[u8]) {
    match rvs_netlink::answer(datagram, Access::Change, state) {
        Ok(Answer::Datagrams(answers)) => {
            for answer in &answers {
                assert!(is_answer_to(answer, datagram), "{datagram:02x?}\n{answer:02x?}");
            }
        }
        Ok(Answer::Conns(conns)) => assert!(!conns.end(Ok(())).is_empty()),
        Ok(Answer::Written(acknowledged, file)) => {
            assert_eq!(acknowledged.len(), 1);
            assert_eq!(file.write(datagram, state).len(), 1);
        }
        Err(NotNetlink) => {
            let whole = datagram.first_chunk().map(|len| u32::from_ne_bytes(*len));
            let fits = whole
                .is_some_and(|len| len >= 16 && usize::try_from(len).unwrap() <= datagram.len());
            assert!(!fits, "{datagram:02x?}");
        }
    }
}

#[test]
fn random_octets_are_answered_or_refused() {
    let (mut random, mut state) = (Random(0x9e37_79b9_7f4a_7c15), State::new());
    for _ in 0..rounds() {
        let len = random.below(96);
        let datagram: Vec<u8> = (0..len).map(|_| random.octet()).collect();
        judge(&mut state, &datagram);
    }
}

#[test]
fn random_attributes_of_every_command_are_answered_or_refused() {
    let (mut random, mut state) = (Random(7), State::new());
    for round in 0..rounds() {
        let kind = [16, FAMILY_ID, FAMILY_ID, FAMILY_ID + 1][random.below(4)];
        let flags = [1, 5, 0x301, 0x305, 0][random.below(5)];
        let mut wire = Wire::new(kind, flags, round, random.octet() % 20);
        let mut room = 8;
        while room > 0 && random.below(5) > 0 {
            let attribute = u16::from(random.octet() % 18) | [0, 0x8000][random.below(2)];
            if random.below(3) == 0 {
                wire.attribute(attribute, &[]);
            } else {
                let len = [0, 1, 2, 3, 4, 8, 16, 17, 40][random.below(9)];
                let value: Vec<u8> = (0..len).map(|_| random.octet() % 12).collect();
                wire.attribute(attribute, &value);
            }
            room -= 1;
        }
        judge(&mut state, &wire.finish());
    }
}

#[test]
fn spoilt_requests_of_real_clients_are_answered_or_refused() {
    let (mut random, mut state) = (Random(11), State::new());
    let good = common::requests();
    for _ in 0..rounds() {
        let mut datagram = good[random.below(good.len())].clone();
        for _ in 0..=random.below(3) {
            let place = random.below(datagram.len());
            datagram[place] = match random.below(3) {
                0 => random.octet(),
                1 => datagram[place] ^ (1 << random.below(8)),
                _ => [0, 1, 0x7f, 0xff][random.below(4)],
            };
        }
        if random.below(4) == 0 {
            datagram.truncate(random.below(datagram.len() + 1));
        }
        judge(&mut state, &datagram);
    }
}

#[test]
fn a_datagram_full_of_requests_is_answered_to_its_end() {
    let mut state = State::new();
    let one = Wire::new(FAMILY_ID, 1, 9, 15).finish();
    let all = one.repeat(REQUEST_OCTETS_MAX / one.len());
    let Ok(Answer::Datagrams(answers)) = rvs_netlink::answer(&all, Access::Change, &mut state)
    else {
        panic!("no answer");
    };
    let told: usize = answers.iter().map(|answer| answer.len() / header(answer).0).sum();
    assert_eq!(told, REQUEST_OCTETS_MAX / one.len());
    assert!(answers.iter().all(|answer| answer.len() <= 16 << 10));
}
