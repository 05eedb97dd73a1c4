//! The same claims for every link. A new link is a [`Subject`] and a line at the end.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "not every test uses all of it")]
mod common;

use common::{Host, frame, frames, in_namespace, ip, veth};
use pcap_file::pcap::PcapReader;
use rvs_io::{
    BURST_MAX, Burst, Frame, Pool, Queue, Reserve, RoomFrame, RoomPool,
    af_xdp::{self, AfXdpQueue, Settings},
    memory::{self, FarEnd, MemoryQueue},
    pcap::{PcapQueue, Recorder, Replay, Resolution, SNAP_MAX},
    tap::{self, HostEnd, TapQueue},
};
use std::{
    io::{self, Cursor, Write},
    sync::{Arc, Mutex},
};

/// A link with both its ends in the test's hands.
trait Subject: Sized + 'static {
    type Queue: Queue<Frame = RoomFrame, Pool = RoomPool>;
    /// Where the claim can be tried.
    fn surround(claim: fn()) {
        claim();
    }
    /// A link on which `arriving` is on its way to the queue.
    fn new(reserve: &Reserve, arriving: &[Vec<u8>]) -> Self;
    fn queue(&mut self) -> &mut Self::Queue;
    /// What the far end got, `least` frames or more if they ever come.
    fn sent(&mut self, least: usize) -> Vec<Vec<u8>>;
    /// From now on the link takes less than [`TOO_MANY`] frames.
    fn block(&mut self);
    /// Frames longer than a room that the link told about.
    fn too_long(&mut self) -> u64 {
        self.queue().lost().too_long
    }
}

/// Frames that no blocked link takes.
const TOO_MANY: u32 = 100;

const FRAMES: usize = 2048;

// --- The links ---

struct Memory {
    near: MemoryQueue,
    far: FarEnd<fn(&[u8]) -> u32>,
    too_long: u64,
}

impl Subject for Memory {
    type Queue = MemoryQueue;

    fn new(reserve: &Reserve, arriving: &[Vec<u8>]) -> Self {
        let hash: fn(&[u8]) -> u32 = |_| 0;
        let (mut near, mut far) = memory::link(1, 64, reserve.pool(), hash);
        let mut too_long = 0;
        for octets in arriving {
            match far.inject(octets) {
                Err(memory::NotInjected::TooLong) => too_long += 1,
                result => result.unwrap(),
            }
        }
        Self { near: near.remove(0), far, too_long }
    }

    fn queue(&mut self) -> &mut MemoryQueue {
        &mut self.near
    }

    fn sent(&mut self, _least: usize) -> Vec<Vec<u8>> {
        self.far.collect()
    }

    fn block(&mut self) {} // its ring is shorter

    fn too_long(&mut self) -> u64 {
        self.too_long
    }
}

/// A disk that may become full.
#[derive(Clone)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Write for Disk {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let space = disk.1.saturating_sub(disk.0.len()).min(octets.len());
        disk.0.extend_from_slice(&octets[..space]);
        if space == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(space) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Pcap {
    queue: PcapQueue<Cursor<Vec<u8>>, Disk>,
    disk: Disk,
    read: usize,
}

impl Subject for Pcap {
    type Queue = PcapQueue<Cursor<Vec<u8>>, Disk>;

    fn new(reserve: &Reserve, arriving: &[Vec<u8>]) -> Self {
        let recorder = |disk: &Disk| {
            Some(Recorder::new(disk.clone(), Resolution::Nanoseconds, SNAP_MAX).unwrap())
        };
        let disk = || Disk(Arc::new(Mutex::new((Vec::new(), usize::MAX))));

        // What arrives is what another queue recorded; its rooms are as long as they need be.
        let before = disk();
        let mut queue = Self::Queue { replay: None, recorder: recorder(&before) };
        let mut pool = Reserve::new(1, 65_536).pool();
        for octets in arriving {
            let mut burst = Burst::new();
            burst.push(filled(&mut pool, octets));
            assert_eq!(queue.send(&mut pool, &mut burst), 1);
        }
        let capture = before.0.lock().unwrap().0.clone();
        assert!(reserve.frame_octets() < 4000);

        let disk = disk();
        let replay = Some(Replay::new(Cursor::new(capture)).unwrap());
        Self { queue: PcapQueue { replay, recorder: recorder(&disk) }, disk, read: 0 }
    }

    fn queue(&mut self) -> &mut Self::Queue {
        &mut self.queue
    }

    fn sent(&mut self, _least: usize) -> Vec<Vec<u8>> {
        let octets = self.disk.0.lock().unwrap().0.clone();
        let mut reader = PcapReader::new(octets.as_slice()).unwrap();
        let mut all = Vec::new();
        // A full disk may end in the middle of a record.
        while let Some(Ok(packet)) = reader.next_packet() {
            all.push(packet.data.to_vec());
        }
        let new = all.split_off(self.read);
        self.read += new.len();
        new
    }

    fn block(&mut self) {
        let mut disk = self.disk.0.lock().unwrap();
        disk.1 = disk.0.len() + 10_000;
    }
}

struct Tap {
    queue: TapQueue,
    host: Host,
}

impl Subject for Tap {
    type Queue = TapQueue;

    fn surround(claim: fn()) {
        in_namespace(claim);
    }

    fn new(_reserve: &Reserve, arriving: &[Vec<u8>]) -> Self {
        let settings = HostEnd { mtu: Some(9000), mac: None, leaves: false };
        let queue = tap::open("rvs-tap", 1, &settings).unwrap().remove(0);
        let host = Host::new("rvs-tap");
        for octets in arriving {
            host.send(octets).unwrap();
        }
        Self { queue, host }
    }

    fn queue(&mut self) -> &mut TapQueue {
        &mut self.queue
    }

    fn sent(&mut self, least: usize) -> Vec<Vec<u8>> {
        self.host.received(least)
    }

    fn block(&mut self) {
        assert!(ip("link set rvs-tap down"), "this test needs iproute2");
    }
}

struct AfXdp {
    queue: AfXdpQueue,
    host: Host,
}

impl Subject for AfXdp {
    type Queue = AfXdpQueue;

    fn surround(claim: fn()) {
        in_namespace(move || {
            if veth("rvs-near", "rvs-far", 9000) {
                claim();
            }
        });
    }

    fn new(reserve: &Reserve, arriving: &[Vec<u8>]) -> Self {
        let settings = Settings {
            device: "rvs-near",
            queues: 1,
            mac: [2, 0, 0, 0, 0, 9],
            shared: false,
            mtu: 1500,
            frame_octets: reserve.frame_octets(),
            zero_copy: None,
            busy_poll_us: None,
            mend: |_| {},
        };
        let queue = af_xdp::open(&settings).unwrap().0.remove(0);
        let host = Host::new("rvs-far");
        for octets in arriving {
            host.send(octets).unwrap();
        }
        Self { queue, host }
    }

    fn queue(&mut self) -> &mut AfXdpQueue {
        &mut self.queue
    }

    fn sent(&mut self, least: usize) -> Vec<Vec<u8>> {
        self.host.received(least)
    }

    fn block(&mut self) {
        assert!(ip("link set rvs-near down"), "this test needs iproute2");
    }

    fn too_long(&mut self) -> u64 {
        self.queue.lost().too_long + self.queue.missed().dropped
    }
}

// --- What a claim works with ---

fn filled(pool: &mut RoomPool, octets: &[u8]) -> RoomFrame {
    let mut frame = pool.take().unwrap();
    assert!(frame.fill(octets));
    frame
}

fn octets(burst: &Burst<RoomFrame>) -> Vec<Vec<u8>> {
    burst.iter().map(|frame| frame.octets().to_vec()).collect()
}

/// Runs `claim` on a link with `arriving` on the wire, and proves that no room was lost.
fn with<S: Subject>(
    arriving: &[Vec<u8>],
    claim: impl FnOnce(&mut S, &mut RoomPool, &mut Burst<RoomFrame>),
) {
    let reserve = Reserve::new(FRAMES, 1514);
    let mut pool = reserve.pool();
    let mut burst = Burst::new();
    let mut subject = S::new(&reserve, arriving);
    claim(&mut subject, &mut pool, &mut burst);
    burst.drain(..).for_each(|frame| pool.give(frame));
    drop((pool, subject));
    assert_eq!(reserve.free(), reserve.total(), "rooms were lost");
}

// --- The claims ---

fn frames_arrive_once_in_order_and_unaltered<S: Subject>() {
    let frames = frames(50);
    with(&frames, |link: &mut S, pool, burst| {
        assert_eq!(link.queue().receive(pool, burst, usize::MAX), 50);
        assert!(octets(burst) == frames);
        assert_eq!(link.queue().receive(pool, burst, usize::MAX), 0);
        assert_eq!(link.too_long(), 0);
    });
}

fn frames_are_sent_once_in_order_and_unaltered<S: Subject>() {
    let frames = frames(60);
    with(&[], |link: &mut S, pool, burst| {
        for part in frames.chunks(20) {
            burst.extend(part.iter().map(|octets| filled(pool, octets)));
            assert_eq!(link.queue().send(pool, burst), 20);
            assert_eq!(burst.len(), 0);
        }
        assert!(link.sent(60) == frames);
        assert_eq!(link.sent(0).len(), 0);
    });
}

fn a_frame_is_sent_as_it_left_the_worker<S: Subject>() {
    with(&frames(3), |link: &mut S, pool, burst| {
        assert_eq!(link.queue().receive(pool, burst, 3), 3);
        // A tunnel's header comes, a tag goes, and the end is cut.
        assert!(burst[0].shift_front(40));
        burst[0].octets_mut()[..40].copy_from_slice(&frame(7, 40));
        assert!(burst[1].shift_front(-4));
        burst[1].octets_mut()[..14].copy_from_slice(&frame(8, 18)[..14]);
        assert!(burst[2].resize(18));
        let expected = octets(burst);
        assert_eq!(link.queue().send(pool, burst), 3);
        assert!(link.sent(3) == expected);
    });
}

fn a_receive_appends_what_was_asked_for_and_what_fits<S: Subject>() {
    let frames = frames(30);
    with(&frames, |link: &mut S, pool, burst| {
        assert_eq!(link.queue().receive(pool, burst, 0), 0);
        assert_eq!(link.queue().receive(pool, burst, 7), 7);
        while burst.len() < BURST_MAX - 3 {
            burst.push(pool.take().unwrap());
        }
        assert_eq!(link.queue().receive(pool, burst, 32), 3);
        assert_eq!(link.queue().receive(pool, burst, 32), 0);
        let all = octets(burst);
        assert!(all[..7] == frames[..7] && all[BURST_MAX - 3..] == frames[7..10]);
        burst.drain(..).for_each(|frame| pool.give(frame));
        assert_eq!(link.queue().receive(pool, burst, 32), 20);
        assert!(octets(burst) == frames[10..]);
    });
}

fn without_anything_to_do_nothing_happens_at_once<S: Subject>() {
    with(&[], |link: &mut S, pool, burst| {
        for _ in 0..1000 {
            assert_eq!(link.queue().receive(pool, burst, 32), 0);
            assert_eq!(link.queue().send(pool, burst), 0);
        }
        assert_eq!(link.sent(0).len(), 0);
        assert_eq!(link.queue().lost(), rvs_io::Lost::default());
    });
}

fn what_a_link_refuses_stays_in_the_burst_in_order<S: Subject>() {
    let frames = frames(TOO_MANY);
    with(&[], |link: &mut S, pool, burst| {
        link.block();
        burst.extend(frames.iter().map(|octets| filled(pool, octets)));
        let went = link.queue().send(pool, burst);
        assert!(went < frames.len());
        assert!(octets(burst) == frames[went..]);
        assert_eq!(link.queue().send(pool, burst), 0, "it is full");
        assert!(octets(burst) == frames[went..]);
        assert!(link.sent(went) == frames[..went]);
    });
}

fn frames_longer_than_a_room_are_counted_and_the_others_arrive<S: Subject>() {
    let mut arriving = frames(5);
    arriving.insert(0, frame(90, 4000));
    arriving.insert(3, frame(91, 4000));
    arriving.push(frame(92, 2100));
    with(&arriving, |link: &mut S, pool, burst| {
        for _ in 0..8 {
            link.queue().receive(pool, burst, 1);
        }
        assert!(octets(burst) == frames(5));
        assert_eq!(link.too_long(), 3);
    });
}

fn without_an_empty_frame_nothing_that_waits_is_lost<S: Subject>() {
    let frames = frames(10);
    with(&frames, |link: &mut S, pool, burst| {
        let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        // Where frames move instead of being copied they arrive nevertheless.
        let got = link.queue().receive(pool, burst, 32);
        for frame in held {
            pool.give(frame);
        }
        assert_eq!(link.queue().receive(pool, burst, 32), 10 - got);
        assert!(octets(burst) == frames);
        assert_eq!(link.queue().lost(), rvs_io::Lost::default());
    });
}

macro_rules! every_link_keeps {
    ($($claim:ident,)*) => {
        mod memory_link { $(#[test] fn $claim() { super::try_on::<super::Memory>(super::$claim::<super::Memory>); })* }
        mod pcap_link { $(#[test] fn $claim() { super::try_on::<super::Pcap>(super::$claim::<super::Pcap>); })* }
        mod af_xdp_link { $(#[test] fn $claim() { super::try_on::<super::AfXdp>(super::$claim::<super::AfXdp>); })* }
        mod tap_link { $(#[test] fn $claim() { super::try_on::<super::Tap>(super::$claim::<super::Tap>); })* }
    };
}

fn try_on<S: Subject>(claim: fn()) {
    S::surround(claim);
}

every_link_keeps!(
    frames_arrive_once_in_order_and_unaltered,
    frames_are_sent_once_in_order_and_unaltered,
    a_frame_is_sent_as_it_left_the_worker,
    a_receive_appends_what_was_asked_for_and_what_fits,
    without_anything_to_do_nothing_happens_at_once,
    what_a_link_refuses_stays_in_the_burst_in_order,
    frames_longer_than_a_room_are_counted_and_the_others_arrive,
    without_an_empty_frame_nothing_that_waits_is_lost,
);
