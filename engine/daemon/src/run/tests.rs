use super::*;
use crate::device::in_rooms;
use core::sync::atomic::AtomicU32;
use rvs_control::config::Machine;
use rvs_io::{Burst, Queue, RoomFrame, RoomPool};
use std::path::{Path, PathBuf};

/// What a link does at its hundredth look for frames.
#[derive(Clone, Copy)]
enum Ill {
    /// A bug in a driver.
    Panics,
    /// It never returns.
    Hangs,
    /// There will be no more frames.
    Ends,
}

struct IllQueue {
    ill: Ill,
    looks: u32,
}

static CLOSED: AtomicU32 = AtomicU32::new(0);

impl Queue for IllQueue {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, _: &mut RoomPool, _: &mut Burst<RoomFrame>, _: usize) -> usize {
        self.looks += 1;
        if self.looks == 100 {
            match self.ill {
                Ill::Panics => panic!("as the test wants"),
                Ill::Hangs => loop {
                    thread::park();
                },
                Ill::Ends => {}
            }
        }
        0
    }

    fn send(&mut self, _: &mut RoomPool, _: &mut Burst<RoomFrame>) -> usize {
        0
    }
}

impl Device for IllQueue {
    type Link = Ill;
    type Seat = ();

    fn open(links: &[Ill], config: &Config) -> Result<Opened<Self>, Failure> {
        in_rooms(links, config, |link: &Ill, workers| {
            Ok((0..workers).map(|_| Self { ill: *link, looks: 0 }).collect())
        })
    }

    fn sit_down() -> Result<(), String> {
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        matches!(self.ill, Ill::Ends) && self.looks >= 100
    }

    fn close(self, _: &Ill) -> Result<(), String> {
        CLOSED.fetch_add(1, Ordering::Relaxed);
        Err("it was ill".to_owned())
    }
}

fn config(name: &str) -> (PathBuf, Config) {
    let socket = std::env::temp_dir().join(format!("rvsd-{name}-{}.sock", std::process::id()));
    let text = format!(
        "[control]\nsocket = {socket:?}\n[tables]\nconns = 10\nconns6 = 10\nservices = 1\n\
         dests = 1\n[[link]]\nname = \"ill\"\nkind = \"tap\"\n"
    );
    let config = Config::parse(Path::new("/test"), &text, &Machine::default());
    (socket, config.unwrap_or_else(|error| panic!("{error}")))
}

fn run_with(name: &str, ill: Ill) -> (PathBuf, Result<ExitCode, Failure>) {
    let (socket, config) = config(name);
    let ended = Running::<IllQueue>::start(&config, &[ill]).map(Running::until_the_end);
    (socket, ended)
}

#[test]
fn a_worker_that_panics_ends_the_director_with_a_code_of_its_own() {
    let (socket, ended) = run_with("panics", Ill::Panics);
    // It may die before its start is over: that is an error of the start.
    match ended {
        Ok(code) => assert_eq!(code, ExitCode::from(exit::DIED)),
        Err(error) => assert_eq!(error.to_string(), "worker 0: died at the start"),
    }
    assert!(!socket.exists());
}

#[test]
fn a_worker_that_stalls_ends_the_director_with_another_code_and_its_stage_is_known() {
    let (socket, config) = config("stalls");
    let running = Running::<IllQueue>::start(&config, &[Ill::Hangs]).unwrap();
    let shared = running.shared[0].clone();
    let begun = Instant::now();
    assert_eq!(running.until_the_end(), ExitCode::from(exit::STALLED));
    assert!(begun.elapsed() >= LOOK * STALLED_LOOKS, "it had its time");
    assert_eq!((shared.frames.stage(), shared.frames.read().breaths), (Stage::Receive, 99));
    assert!(!socket.exists());
}

#[test]
fn a_worker_that_panics_leaves_its_stage() {
    let (_socket, config) = config("stage");
    if let Ok(running) = Running::<IllQueue>::start(&config, &[Ill::Panics]) {
        let shared = running.shared[0].clone();
        running.until_the_end();
        assert_eq!(shared.frames.stage().to_string(), "receiving");
    }
}

#[test]
fn a_worker_that_hangs_is_left_behind() {
    let (socket, config) = config("hangs");
    let mut running = Running::<IllQueue>::start(&config, &[Ill::Hangs]).unwrap();
    running.told_to_stop = true;
    // Until it hangs, in its hundredth breath: before, it would stop as it is told.
    let frames = &running.shared[0].frames;
    while (frames.read().breaths, frames.stage()) != (99, Stage::Receive) {
        thread::yield_now();
    }
    assert_eq!(running.until_the_end(), ExitCode::from(exit::STALLED));
    assert!(!socket.exists());
}

#[test]
fn links_that_end_end_the_director_and_what_they_lost_is_its_exit_code() {
    let (socket, ended) = run_with("ends", Ill::Ends);
    assert_eq!(ended.unwrap(), ExitCode::from(exit::FAILED));
    assert_eq!(CLOSED.load(Ordering::Relaxed), 1);
    assert!(!socket.exists());
}

#[test]
fn a_signal_during_the_start_is_not_forgotten() {
    let (sender, events) = mpsc::channel();
    for event in [Event::Stop, Event::Started(0, Ok(())), Event::Started(1, Ok(()))] {
        sender.send(event).unwrap();
    }
    assert!(await_start(&events, 2).unwrap());
    sender.send(Event::Started(0, Err("cannot be pinned to core 9".to_owned()))).unwrap();
    let error = await_start(&events, 1).unwrap_err();
    assert_eq!(error.to_string(), "worker 0: cannot be pinned to core 9");
}

#[test]
fn a_late_worker_is_reported_once_and_once_when_it_is_back() {
    let mut watch = Watch::default();
    let mut look = |breaths| watch.look(3, breaths, Stage::Timers);
    assert_eq!((look(10), look(10)), (None, None));
    assert_eq!(look(10).unwrap(), "rvsd: worker 3 does not breathe (expiring connections)");
    assert_eq!(look(10), None);
    let back = format!("rvsd: worker 3 breathes again after {:?}", LOOK * 3);
    assert_eq!((look(11), look(12)), (Some(back), None));
    assert!(!watch.is_lost());
    for _ in 0..STALLED_LOOKS {
        assert!(!watch.is_lost());
        watch.look(3, 12, Stage::Timers);
    }
    assert!(watch.is_lost());
}
