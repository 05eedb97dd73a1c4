//! The table against a `HashMap`, in both families, with methods mixed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{METHODS, Random, SEED, address, conn};
use rvs_conntrack::{Capacity, CapacityError, Conn, Direction, Full, Seed, Table};
use rvs_model::{DestId, ForwardMethod};
use rvs_wire::flow::{Ends, Family, Key, V4, V6};
use std::collections::HashMap;

fn table<F: Family>(conns_max: u32, keys: u32, seed: Seed) -> Table<F> {
    Table::new(Capacity::new(conns_max, keys).unwrap(), seed, false)
}

/// Opens, ends, replaces and looks up at random; every answer is the map's.
fn agrees_with_a_map<F: Family>(conns_max: u32, keys: u32, methods: &[ForwardMethod], seed: u64) {
    let mut random = Random(seed);
    let mut table = table::<F>(conns_max, keys, Seed([random.next(), random.next()]));
    let mut model: HashMap<Key<F>, u32> = HashMap::new();
    let mut held: Vec<u32> = Vec::new();
    let mut refused = 0;
    for round in 0..300_000u32 {
        let grow = if (round / 30_000).is_multiple_of(2) { 7 } else { 3 };
        let method = methods[usize::try_from(random.below(3)).unwrap() % methods.len()];
        let caller = conn::<F>(random.below(conns_max * 3), method);
        let key = caller.key(Direction::Inbound);
        let victim = (!held.is_empty())
            .then(|| usize::try_from(random.below(u32::try_from(held.len()).unwrap())).unwrap());
        let is_new = !model.contains_key(&key);
        match (random.below(10), victim) {
            (0, Some(victim)) if is_new => {
                let index = held[victim];
                let old = *table.conn(index).unwrap();
                assert_eq!(model.remove(&old.key(Direction::Inbound)), Some(index));
                match table.replace(index, &caller) {
                    Ok(()) => assert_eq!(model.insert(key, index), None),
                    Err(why) => {
                        assert_eq!(why, Full::Index);
                        held.swap_remove(victim);
                        refused += 1;
                    }
                }
            }
            (draw, _) if draw < grow && is_new => match table.insert(&caller) {
                Ok(index) => {
                    model.insert(key, index);
                    held.push(index);
                }
                Err(Full::Conns) => assert_eq!(held.len(), usize::try_from(conns_max).unwrap()),
                Err(Full::Index) => refused += 1,
                Err(Full::Timers) => panic!("a table has no timers"),
            },
            (_, Some(victim)) => {
                let index = held.swap_remove(victim);
                let gone = table.remove(index).unwrap();
                assert_eq!(model.remove(&gone.key(Direction::Inbound)), Some(index));
                assert!(table.remove(index).is_none(), "it is gone");
            }
            _ => {}
        }
        let asked = conn::<F>(random.below(conns_max * 3), method);
        let known = model.get(&asked.key(Direction::Inbound)).copied();
        for direction in [Direction::Inbound, Direction::Outbound] {
            let key = asked.key(direction);
            let found = table.find(&key, table.hash(&key));
            let expected = known.filter(|index| {
                direction == Direction::Inbound || table.conn(*index).unwrap().has_way_back()
            });
            assert_eq!(found.map(|found| found.index), expected, "seed {seed} round {round}");
            assert!(found.is_none_or(|found| found.direction == direction));
        }
        assert_eq!(table.len(), model.len());
    }
    let overfull = keys == 1 && methods.contains(&ForwardMethod::Masquerade);
    assert!(refused == 0 || overfull, "{refused} refused");
    for index in held {
        table.remove(index).unwrap();
    }
    assert!(table.is_empty());
}

#[test]
fn table_agrees_with_a_hash_map_when_filled_and_emptied_at_random_ipv4() {
    agrees_with_a_map::<V4>(4000, 2, &METHODS, 1);
    agrees_with_a_map::<V4>(4000, 1, &METHODS[1..], 2);
    agrees_with_a_map::<V4>(37, 2, &METHODS[..1], 3);
}

#[test]
fn table_agrees_with_a_hash_map_when_filled_and_emptied_at_random_ipv6() {
    agrees_with_a_map::<V6>(4000, 2, &METHODS, 4);
    agrees_with_a_map::<V6>(4000, 1, &METHODS[1..], 5);
    agrees_with_a_map::<V6>(37, 2, &METHODS[..1], 6);
}

#[test]
fn index_made_for_one_key_refuses_a_second_rather_than_lose_one() {
    agrees_with_a_map::<V4>(1000, 1, &METHODS[..1], 7);
    agrees_with_a_map::<V6>(1000, 1, &METHODS, 8);
    agrees_with_a_map::<V4>(9, 1, &METHODS[..1], 9);
}

fn takes_exactly<F: Family>(conns_max: u32, seed: Seed) {
    let mut table = table::<F>(conns_max, 2, seed);
    for number in 0..conns_max {
        let caller = conn::<F>(number, ForwardMethod::Masquerade);
        assert!(table.insert(&caller).is_ok(), "number {number}, {seed:?}");
    }
    let one_more = conn::<F>(conns_max, ForwardMethod::Direct);
    assert_eq!(table.insert(&one_more), Err(Full::Conns));
    for number in 0..conns_max {
        for direction in [Direction::Inbound, Direction::Outbound] {
            let key = conn::<F>(number, ForwardMethod::Masquerade).key(direction);
            let found = table.find(&key, table.hash(&key)).unwrap();
            assert_eq!(table.conn(found.index).unwrap().dest, DestId(number));
        }
    }
}

#[test]
fn table_takes_exactly_as_many_as_it_was_made_for_whatever_the_seed() {
    for seed in [Seed([0, 0]), Seed([u64::MAX; 2]), Seed([1, 1 << 63]), SEED] {
        takes_exactly::<V4>(100_000, seed);
        takes_exactly::<V6>(100_000, seed);
    }
    for conns_max in 1..50 {
        takes_exactly::<V4>(conns_max, SEED);
    }
}

#[test]
fn of_two_connections_with_one_outbound_key_the_younger_gets_the_replies() {
    const PAIRS: u32 = 10_000;
    // In a full table a few have been moved away from home since.
    for (conns_max, wrong_max) in [(PAIRS * 8, 0), (PAIRS * 2, 50)] {
        let mut table = table::<V4>(conns_max, 2, SEED);
        let older = |number| conn::<V4>(number, ForwardMethod::Masquerade);
        let younger = |number| {
            let (client, vip) =
                (older(number).inbound.source(), address::<V4>([203, 0, 113, 2], 0));
            let inbound = Ends::new(client, (vip, 80));
            Conn { inbound, dest: DestId(PAIRS + number), ..older(number) }
        };
        for number in 0..PAIRS {
            table.insert(&older(number)).unwrap();
        }
        let replies_go_to = |table: &Table<V4>, number| {
            let key = older(number).key(Direction::Outbound);
            table.conn(table.find(&key, table.hash(&key)).unwrap().index).unwrap().dest.0
        };
        let young: Vec<u32> =
            (0..PAIRS).map(|number| table.insert(&younger(number)).unwrap()).collect();
        let wrong = (0..PAIRS).filter(|it| replies_go_to(&table, *it) != PAIRS + it).count();
        assert!(wrong <= wrong_max, "{wrong} of {PAIRS}");
        for index in young {
            table.remove(index).unwrap();
        }
        assert!((0..PAIRS).all(|it| replies_go_to(&table, it) == it));
    }
}

#[test]
fn guess_names_the_connection_or_nobody() {
    let mut table = table::<V4>(1000, 2, SEED);
    let mut known = 0;
    for number in 0..1000 {
        table.insert(&conn(number, ForwardMethod::Masquerade)).unwrap();
    }
    for number in 0..2000 {
        let key = conn::<V4>(number, ForwardMethod::Masquerade).key(Direction::Outbound);
        let hash = table.hash(&key);
        table.touch(hash);
        let found = table.guesser().guess(hash);
        let is_it = table.conn(found.index).unwrap().key(found.direction) == key;
        assert!(!is_it || number < 1000);
        known += u32::from(is_it);
    }
    assert!(known > 950, "only {known} of 1000 were guessed");
}

#[test]
fn scan_shows_each_connection_once_in_bounded_steps() {
    let mut table = table::<V4>(1000, 1, SEED);
    let indices: Vec<u32> = (0..500)
        .map(|number| table.insert(&conn(number, ForwardMethod::Direct)).unwrap())
        .collect();
    for index in indices.iter().step_by(3) {
        table.remove(*index);
    }
    let (mut from, mut seen, mut calls) = (Some(0), Vec::new(), 0);
    while let Some(start) = from {
        let before = seen.len();
        from = table.scan(start, 64, |index, conn| seen.push((index, conn.dest)));
        assert!(seen.len() - before <= 64);
        calls += 1;
    }
    seen.dedup();
    assert_eq!((seen.len(), calls), (table.len(), 1001_usize.div_ceil(64)));
    assert!(seen.iter().all(|(index, dest)| table.conn(*index).unwrap().dest == *dest));
    assert_eq!(table.scan(u32::MAX, 1, |_, _| panic!("nothing is there")), None);
}

#[test]
fn capacity_names_what_is_out_of_range() {
    let words = |conns, keys| Capacity::new(conns, keys).unwrap_err().to_string();
    assert_eq!(Capacity::new(0, 1), Err(CapacityError::Conns(0)));
    assert_eq!(Capacity::new(1, 3), Err(CapacityError::Keys(3)));
    assert_eq!(words((1 << 28) + 1, 1), "268435457 connections (allowed: 1 to 268435456)");
    assert_eq!(words(1, 0), "0 keys per connection (allowed: 1, or 2 if any is masqueraded)");
    assert!(Capacity::new(1 << 28, 2).is_ok());
}

#[test]
fn an_ipv4_connection_takes_81_octets_directly_and_94_masqueraded_index_and_free_list_included() {
    for (keys, octets) in [(1, 81), (2, 94)] {
        let per_conn = table::<V4>(100_000, keys, SEED).bytes() / 100_000;
        assert!(per_conn <= octets, "{per_conn} octets");
    }
}
