//! Publication of snapshots, and waking of workers, in every order of events that two or three threads
//! can have.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p rvs-plane --test loom --release`
#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use rvs_plane::{Bell, Publisher, Reader};

/// A value that only its publisher's thread may drop: a worker does not free memory.
struct Value {
    number: u32,
    home: thread::ThreadId,
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.home, "dropped by a worker");
    }
}

fn value(number: u32) -> Value {
    Value { number, home: thread::current().id() }
}

/// Looks `times` times and says what was seen; it must not go back.
fn look(reader: &mut Reader<Value>, times: usize) -> u32 {
    let mut last = 0;
    for _ in 0..times {
        let next = reader.refresh().number;
        assert!(next >= last, "{next} after {last}");
        last = next;
    }
    last
}

#[test]
fn values_only_advance_and_are_dropped_where_they_were_published() {
    loom::model(|| {
        let mut publisher = Publisher::new(value(0));
        let mut reader = publisher.reader();
        let worker = thread::spawn(move || assert!(look(&mut reader, 2) <= 2));
        publisher.publish(value(1));
        publisher.publish(value(2));
        worker.join().unwrap();
        assert_eq!(publisher.reclaim(), 0, "nobody holds an old value any more");
    });
}

#[test]
fn two_workers_see_the_same_order() {
    loom::model(|| {
        let mut publisher = Publisher::new(value(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = publisher.reader();
                thread::spawn(move || assert!(look(&mut reader, 2) <= 1))
            })
            .collect();
        publisher.publish(value(1));
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(publisher.reclaim(), 0);
    });
}

/// As a breath does it: first the number, which says whether there is anything to take over, then
/// the value, which is that or a newer one.
#[test]
fn a_generation_that_was_seen_is_what_the_next_refresh_returns_or_an_older_one() {
    loom::model(|| {
        let mut publisher = Publisher::new(value(0));
        let mut reader = publisher.reader();
        let worker = thread::spawn(move || {
            for _ in 0..2 {
                let generation = reader.generation();
                let number = reader.refresh().number;
                assert!(u64::from(number) >= generation, "{number} at generation {generation}");
            }
        });
        publisher.publish(value(1));
        publisher.publish(value(2));
        worker.join().unwrap();
    });
}

#[test]
fn a_reader_made_while_values_change_begins_with_one_of_them() {
    loom::model(|| {
        let mut publisher = Publisher::new(value(0));
        let mut first = publisher.reader();
        let worker = thread::spawn(move || look(&mut first, 1));
        publisher.publish(value(1));
        let mut second = publisher.reader();
        assert_eq!(second.refresh().number, 1, "the publisher's own thread has published it");
        worker.join().unwrap();
        drop(second);
        assert_eq!(publisher.reclaim(), 0);
    });
}

#[test]
fn a_worker_that_goes_to_sleep_finds_what_is_there_or_is_woken() {
    loom::model(|| {
        let flag = || Arc::new(AtomicBool::new(false));
        let (bell, there, woken) = (Arc::new(Bell::default()), flag(), flag());
        let wake = Arc::clone(&woken);
        bell.connect(move || wake.store(true, Ordering::Release));
        let (visitor, thing) = (Arc::clone(&bell), Arc::clone(&there));
        let visitor = thread::spawn(move || {
            thing.store(true, Ordering::Relaxed);
            visitor.ring();
        });
        let until_woken = || {
            while !woken.load(Ordering::Acquire) {
                thread::yield_now();
            }
        };
        bell.wait_unless(|| there.load(Ordering::Relaxed), until_woken);
        visitor.join().unwrap();
    });
}
