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
    /// It never returns, until the test is over.
    Hangs,
    /// There will be no more frames.
    Ends,
}

struct IllQueue {
    ill: Ill,
    looks: u32,
}

static TEST_OVER: AtomicBool = AtomicBool::new(false);
static CLOSED: AtomicU32 = AtomicU32::new(0);

impl Queue for IllQueue {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, _: &mut RoomPool, _: &mut Burst<RoomFrame>, _: usize) -> usize {
        self.looks += 1;
        if self.looks == 100 {
            match self.ill {
                Ill::Panics => panic!("as the test wants"),
                Ill::Hangs => {
                    while !TEST_OVER.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
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
        Ok(code) => assert_eq!(code, ExitCode::from(exit::WORKER)),
        Err(error) => assert_eq!(error.to_string(), "worker 0: died at the start"),
    }
    assert!(!socket.exists());
}

#[test]
fn a_worker_that_hangs_is_left_behind() {
    let (socket, config) = config("hangs");
    let mut running = Running::<IllQueue>::start(&config, &[Ill::Hangs]).unwrap();
    running.told_to_stop = true;
    // Until it hangs: before, it would stop as it is told.
    while running.shared[0].frames.read().breaths < 99 {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(5));
    assert_eq!(running.until_the_end(), ExitCode::from(exit::WORKER));
    TEST_OVER.store(true, Ordering::Relaxed);
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
fn a_stalled_worker_is_reported_once_and_once_when_it_is_back() {
    let mut watch = Watch::default();
    assert_eq!(watch.look(3, 10), None);
    assert_eq!(watch.look(3, 10), None);
    let stalled = "rvsd: worker 3 stalled: it does not breathe";
    assert_eq!(watch.look(3, 10).as_deref(), Some(stalled));
    assert_eq!(watch.look(3, 10), None);
    let back = "rvsd: worker 3 breathes again after 3 s";
    assert_eq!(watch.look(3, 11).as_deref(), Some(back));
    assert_eq!(watch.look(3, 12), None);
}
