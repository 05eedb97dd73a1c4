//! The link over DPDK's virtual devices, in one process: rings (`net_ring`) and captures (`net_pcap`).
//!
//! What goes through it is not of its own making: the plane's scenarios, which must come out to the
//! octet as they do over captures.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on shall stop"
)]

use core::time::Duration;
use rvs_adm::NumbersOnly;
use rvs_conformance::stage::Stage;
use rvs_control::config::{Config, Links, Machine};
use rvs_dpdk::ring::{self, FarEnd};
use rvs_dpdk::{Device, DpdkPool, DpdkQueue, Eal, EalPlan, Lcore, Plan, Pools};
use rvs_io::pcap::{PcapQueue, Recorder, Replay, Resolution, SNAP_MAX};
use rvs_io::{Burst, Frame, Pool, Queue, Reserve};
use rvs_model::{TICKS_PER_SECOND, Tick};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, OnceLock, RwLock, mpsc};
use std::thread;

/// Frames of a pool.
const FRAMES: u32 = 1023;
/// Of a ring.
const DEPTH: u32 = 256;

/// DPDK, once for all tests of this process. Without huge pages: tests change nothing here.
fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| {
        let pools = Pools { node: 0, count: 64, frames: FRAMES, frame_octets: 1518 };
        let plan = EalPlan { no_huge: true, pools: vec![pools], ..EalPlan::default() };
        Eal::start(&plan).unwrap_or_else(|error| panic!("{error}"))
    })
}

fn plan(device: &str) -> Plan<'_> {
    Plan::new(device, FRAMES, 1518)
}

/// A link of rings with one queue.
fn link(name: &str) -> (DpdkQueue, DpdkPool, FarEnd) {
    let (device, far) = ring::link(eal(), name, 1, DEPTH).unwrap();
    let (_port, mut queues) = device.open(&plan(name)).unwrap_or_else(|error| panic!("{error}"));
    let (queue, pool) = queues.pop().unwrap();
    (queue, pool, far)
}

fn frame(pool: &mut DpdkPool, octets: &[u8]) -> rvs_dpdk::DpdkFrame {
    let mut frame = pool.take().unwrap();
    assert!(frame.resize(octets.len()));
    frame.octets_mut().copy_from_slice(octets);
    frame
}

#[test]
fn frames_arrive_in_order_and_all_return_to_their_pool() {
    let (mut queue, mut pool, mut far) = link("net_ring_order");
    let free = pool.free();
    for number in 0..200 {
        far.inject(0, frame(&mut pool, &[number; 60])).unwrap();
    }
    let mut burst = Burst::new();
    assert_eq!(queue.receive(&mut pool, &mut burst, 33), 33);
    assert_eq!(queue.receive(&mut pool, &mut burst, 256), 167, "more than 32 at once");
    assert_eq!(queue.receive(&mut pool, &mut burst, 256), 0);
    let numbers: Vec<u8> = burst.iter().map(|frame| frame.octets()[0]).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<u8>>());
    assert_eq!(queue.send(&mut pool, &mut burst), 200);
    assert!(burst.is_empty());
    for number in 0..200 {
        assert_eq!(far.collect(0).unwrap().octets(), [number; 60]);
    }
    assert!(far.collect(0).is_none());
    assert_eq!((pool.free(), queue.lost()), (free, rvs_io::Lost::default()));
}

#[test]
fn a_tag_that_a_device_took_out_is_back_where_it_was() {
    let (mut queue, mut pool, mut far) = link("net_ring_tags");
    let free = pool.free();
    let plain: Vec<u8> = (0..60).collect();
    far.inject(0, frame(&mut pool, &plain)).unwrap();
    far.inject_stripped(0, frame(&mut pool, &plain), 0x6007).unwrap();
    let mut full = frame(&mut pool, &plain);
    assert!(full.shift_front(128), "there is no place for its tag");
    far.inject_stripped(0, full, 7).unwrap();
    far.inject(0, frame(&mut pool, &plain)).unwrap();
    let mut burst = Burst::new();
    assert_eq!((queue.receive(&mut pool, &mut burst, 32), queue.lost().too_long), (3, 1));
    let tagged = [&plain[..12], &[0x81, 0, 0x60, 7], &plain[12..]].concat();
    let octets: Vec<_> = burst.iter().map(Frame::octets).collect();
    assert_eq!(octets, [&plain[..], &tagged[..], &plain[..]]);
    assert_eq!(queue.send(&mut pool, &mut burst), 3);
    assert_eq!(core::iter::from_fn(|| far.collect(0)).count(), 3);
    assert_eq!(pool.free(), free);
}

#[test]
fn a_worker_without_a_number_is_told_how_many_there_are() {
    eal();
    let (gate, (tell, told)) = (RwLock::new(()), mpsc::channel());
    let refused: Vec<String> = thread::scope(|scope| {
        let closed = gate.write().unwrap();
        for _ in 0..128 {
            let (gate, tell) = (&gate, tell.clone());
            scope.spawn(move || {
                let lcore = Lcore::register();
                tell.send(lcore.as_ref().err().map(ToString::to_string)).unwrap();
                drop((gate.read(), lcore));
            });
        }
        let all: Vec<_> = told.iter().take(128).collect();
        drop(closed);
        all.into_iter().flatten().collect()
    });
    let line = "a worker cannot become a DPDK lcore: DPDK has no number left for it, of 128 as a rule, \
                one of which is the main thread's";
    assert_eq!(refused, [line]);
    thread::spawn(|| drop(Lcore::register().unwrap())).join().unwrap();
}

#[test]
fn what_a_full_queue_refuses_stays_in_order() {
    let (mut queue, mut pool, mut far) = link("net_ring_full");
    let free = pool.free();
    let mut burst = Burst::new();
    for number in 0..250_u8 {
        burst.push(frame(&mut pool, &[number]));
    }
    assert_eq!(queue.send(&mut pool, &mut burst), 250);
    for number in 0..=255_u8 {
        burst.push(frame(&mut pool, &[number]));
    }
    let depth = usize::try_from(DEPTH).unwrap();
    assert_eq!(queue.send(&mut pool, &mut burst), depth - 250);
    let left: Vec<u8> = burst.iter().map(|frame| frame.octets()[0]).collect();
    assert_eq!(left, (6..=255).collect::<Vec<u8>>());
    burst.clear();
    assert_eq!(core::iter::from_fn(|| far.collect(0)).count(), depth);
    assert_eq!(pool.free(), free);
}

#[test]
fn a_frame_moves_within_its_room_and_not_beyond() {
    let (_queue, mut pool, _far) = link("net_ring_room");
    let mut frame = frame(&mut pool, &[1, 2, 3, 4]);
    assert!(frame.shift_front(-2));
    assert_eq!(frame.octets(), [3, 4]);
    assert!(frame.shift_front(2));
    assert_eq!(frame.octets(), [1, 2, 3, 4]);
    for by in [-5, 129, 40_000, isize::MIN, isize::MAX] {
        assert!(!frame.shift_front(by), "{by}");
    }
    assert!(frame.shift_front(128), "all of the headroom");
    assert_eq!(frame.octets().len(), 132);
    assert!(frame.shift_front(-128) && frame.resize(1518));
    assert_eq!(frame.octets()[..4], [1, 2, 3, 4]);
    assert!(!frame.resize(1 << 16) && !frame.resize(usize::MAX));
    pool.give(frame);
    assert!(pool.take().unwrap().octets().is_empty(), "empty, whatever it held before");
}

#[test]
fn an_empty_pool_is_no_frame_and_not_the_end() {
    let (_queue, mut pool, _far) = link("net_ring_empty");
    let held: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
    assert_eq!(held.len(), usize::try_from(FRAMES).unwrap());
    drop(held);
    assert!(pool.take().is_some());
}

#[test]
fn workers_are_lcores_and_frames_travel_between_them() {
    const EACH: usize = 20_000;
    let (mut queue, mut pool, mut far) = link("net_ring_threads");
    let free = pool.free();
    let echo = thread::spawn(move || {
        let lcore = Lcore::register().unwrap();
        let (mut burst, mut echoed) = (Burst::new(), 0);
        while echoed < EACH {
            queue.receive(&mut pool, &mut burst, 64);
            echoed += queue.send(&mut pool, &mut burst);
        }
        drop(lcore);
    });
    let (mut next, mut back) = (0_u32, 0_u32);
    while usize::try_from(back).unwrap() < EACH {
        if usize::try_from(next).unwrap() < EACH
            && let Some(mut frame) = pool.take()
        {
            assert!(frame.resize(4));
            frame.octets_mut().copy_from_slice(&next.to_be_bytes());
            if far.inject(0, frame).is_ok() {
                next += 1;
            }
        }
        while let Some(frame) = far.collect(0) {
            assert_eq!(frame.octets(), back.to_be_bytes());
            back += 1;
        }
    }
    echo.join().unwrap();
    assert_eq!(pool.free(), free);
}

/// A frame that was handed over is freed where it was sent, into that lcore's cache, from which its
/// receiver cannot take it.
#[test]
fn frames_that_other_workers_freed_do_not_starve_a_queue() {
    const OTHERS: u16 = 3;
    let (device, _far) = ring::link(eal(), "net_ring_starve", 1 + OTHERS, DEPTH).unwrap();
    let plan = Plan { queues: 1 + OTHERS, ..plan("net_ring_starve") };
    let mut pool = device.open(&plan).unwrap().1.remove(0).1;
    let freed = Barrier::new(1 + usize::from(OTHERS));
    let mut taken: Vec<_> = core::iter::from_fn(|| pool.take()).take(1023).collect();
    thread::scope(|scope| {
        for _ in 0..OTHERS {
            let theirs = taken.split_off(taken.len() - 341);
            let freed = &freed;
            scope.spawn(move || {
                let lcore = Lcore::register().unwrap();
                drop(theirs);
                freed.wait();
                freed.wait();
                drop(lcore);
            });
        }
        freed.wait();
        let again: Vec<_> = core::iter::from_fn(|| pool.take()).take(1023).collect();
        freed.wait();
        assert_eq!(again.len(), 1023, "they are all free");
    });
}

#[test]
fn what_a_device_cannot_is_one_line_that_says_what_it_can() {
    let error = |more: &dyn Fn(&mut Plan<'_>), name| {
        let (device, _far) = ring::link(eal(), name, 1, DEPTH).unwrap();
        let mut plan = plan(name);
        more(&mut plan);
        let line = device.open(&plan).map(|_| panic!("accepted")).unwrap_err().to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    };
    assert_eq!(
        error(&|plan| plan.queues = 3, "net_ring_queues"),
        "device net_ring_queues (net_ring): 3 workers want a queue each, and it has 1; list at most \
         1 under [workers] cores"
    );
    let line = error(&|plan| plan.frame_octets = 65_500, "net_ring_long");
    assert!(line.contains("[tables] frame_octets is 65500, expected at most 63488"), "{line}");
    let line = error(&|plan| plan.frames = 0, "net_ring_frames");
    assert!(line.contains("refused memory for frames: Invalid argument"), "{line}");

    let missing =
        |name| Device::find(eal(), name).map(|_| panic!("{name}")).unwrap_err().to_string();
    let line = missing("net_pcap9,rx_pcap=/nowhere/x.pcap");
    assert!(line.starts_with("DPDK has no device net_pcap9,rx_pcap=/nowhere/x.pcap: "), "{line}");
    assert!(line.contains("/nowhere/x.pcap: No such file"), "DPDK's own words: {line}");
    assert!(missing("net_flux0").contains("expected a PCI address like 0000:01:00.0"));
    assert!(missing("ffff:1f:00.0").contains("no such PCI device"));
    let twice = Eal::start(&EalPlan { no_huge: true, ..EalPlan::default() }).unwrap_err();
    assert_eq!(twice.to_string(), "DPDK was started in this process already");
}

/// The frames of a capture, each with its time since 1970; none if there is no such file.
fn capture(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let Ok(replay) = Replay::open(path) else { return Vec::new() };
    let start = replay.started_at().unwrap_or_default();
    let mut pool = Reserve::new(8, 2048).pool();
    let mut queue = PcapQueue::<_, Vec<u8>> { replay: Some(replay), recorder: None };
    let mut frames = Vec::new();
    while let Some(due) = queue.replay.as_ref().and_then(Replay::next_due) {
        let mut burst = Burst::new();
        queue.receive(&mut pool, &mut burst, 1);
        for frame in burst.drain(..) {
            frames.push((start + due, frame.octets().to_vec()));
            pool.give(frame);
        }
    }
    frames
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plane/tests/scenarios")
}

/// What a scenario's director is made from: its configuration, and its services.
fn scenario(name: &str) -> (PathBuf, Config, String) {
    let folder = scenarios().join(name);
    let own = folder.join("network.toml");
    let network = if own.exists() { own.clone() } else { scenarios().join("network.toml") };
    let text = fs::read_to_string(network).unwrap();
    let config = Config::parse(&own, &text, &Machine::default()).unwrap();
    (folder.clone(), config, fs::read_to_string(folder.join("setup.ipvs")).unwrap())
}

fn stage<Q: Queue>(config: &Config, setup: &str, queues: Vec<Q>, pool: Q::Pool) -> Stage<Q> {
    let mut stage = Stage::new(config, queues, pool).unwrap();
    let ran = stage.ipvsadm("-R", setup, &NumbersOnly);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    stage
}

/// Plays a scenario over rings and compares what leaves with what should.
fn play(name: &str, run: usize) {
    let (_, config, setup) = scenario(name);
    let Links::Pcap(captures) = &config.links else { panic!("{name}: links are captures") };
    let (mut queues, mut fars) = (Vec::new(), Vec::new());
    let mut pool = None;
    for number in 0..captures.len() {
        let (queue, its_pool, far) = link(&format!("net_ring_play{run}_{number}"));
        queues.push(queue);
        fars.push(far);
        pool = Some(its_pool);
    }
    let mut pool = pool.unwrap();
    let free = pool.free();

    let mut arriving: Vec<(Duration, usize, Vec<u8>)> = Vec::new();
    for (capture_link, number) in captures.iter().zip(0..) {
        let read = capture(capture_link.read.as_ref().unwrap());
        arriving.extend(read.into_iter().map(|(at, octets)| (at, number, octets)));
    }
    arriving.sort_by_key(|(at, number, _)| (*at, *number));
    let start = arriving.first().unwrap().0;
    let tick = |at: Duration| -> Tick {
        (at.saturating_sub(start).as_nanos() * u128::from(TICKS_PER_SECOND) / 1_000_000_000)
            .try_into()
            .unwrap()
    };
    let mut stage = stage(&config, &setup, queues, pool);
    for moment in arriving.chunk_by(|one, other| one.0 == other.0) {
        while stage.now() < tick(moment[0].0) {
            stage.pass_tick();
        }
        for (_, number, octets) in moment {
            fars[*number].inject(0, frame(&mut pool, octets)).unwrap();
        }
        stage.settle();
    }
    for _ in 0..5 * TICKS_PER_SECOND {
        stage.pass_tick();
    }
    assert_eq!(stage.counts().unaccounted(), 0, "{name}: conservation");
    let (queues, _) = stage.finish();
    for ((far, capture_link), queue) in fars.iter_mut().zip(captures).zip(queues) {
        let write = capture_link.write.as_ref().unwrap();
        let expected: Vec<_> = capture(write).into_iter().map(|(_, octets)| octets).collect();
        let frames = core::iter::from_fn(|| far.collect(0));
        let sent: Vec<_> = frames.map(|frame| frame.octets().to_vec()).collect();
        assert_eq!(sent, expected, "{name}: {}", write.display());
        assert_eq!(queue.lost(), rvs_io::Lost::default());
    }
    assert_eq!(pool.free(), free, "{name}: frames leaked");
}

#[test]
fn every_scenario_comes_out_of_rings_as_it_is_written() {
    let entries = fs::read_dir(scenarios()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 10);
    for (name, run) in names.iter().zip(0..) {
        play(name, run);
    }
}

/// What both links of a director send that reads these two captures through `net_pcap`, and through
/// our own pcap link.
fn through_captures(name: &str) -> [Vec<Vec<u8>>; 2] {
    let (folder, config, setup) = scenario(name);
    let scratch = std::env::temp_dir().join(format!("rvs-dpdk-{}-{name}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let out = |number: usize| scratch.join(format!("{number}.pcap"));
    let octets =
        |path: &Path| capture(path).into_iter().map(|(_, octets)| octets).collect::<Vec<_>>();
    let sides = ["client", "servers"];
    // One breath after the other, all at one time: captures hand over as fast as they are asked.
    let run = |stage: &mut dyn FnMut()| (0..50).for_each(|_| stage());

    let own = sides.map(|side| {
        let replay = Replay::open(&folder.join(format!("{side}.in.pcap"))).ok();
        let recorder = Recorder::new(Vec::new(), Resolution::Microseconds, SNAP_MAX).unwrap();
        PcapQueue { replay, recorder: Some(recorder) }
    });
    let pool = Reserve::new(config.tables.frames, config.tables.frame_octets).pool();
    let mut stage_own = stage(&config, &setup, own.into(), pool);
    run(&mut || stage_own.settle());
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for (queue, number) in stage_own.finish().0.into_iter().zip(0..) {
        fs::write(out(number), queue.recorder.unwrap().finish().unwrap()).unwrap();
        expected.extend(octets(&out(number)));
    }

    let mut queues = Vec::new();
    let mut pool = None;
    for (side, number) in sides.into_iter().zip(0..) {
        let short: String = name.chars().take(8).collect();
        let mut device = format!("net_pcap_{short}_{side},tx_pcap={}", out(number).display());
        let read = folder.join(format!("{side}.in.pcap"));
        if read.exists() {
            write!(device, ",rx_pcap={}", read.display()).unwrap();
        }
        let found = Device::find(eal(), &device).unwrap_or_else(|error| panic!("{error}"));
        let opened = found.open(&plan(&device)).unwrap_or_else(|error| panic!("{error}"));
        let (queue, its_pool) = opened.1.into_iter().next().unwrap();
        queues.push(queue);
        pool = Some(its_pool);
    }
    let mut stage_dpdk = stage(&config, &setup, queues, pool.unwrap());
    run(&mut || stage_dpdk.settle());
    assert_eq!(stage_dpdk.counts().unaccounted(), 0, "conservation");
    // Closed, the captures are whole.
    drop(stage_dpdk.finish());
    let sent = (0..2).flat_map(|number| octets(&out(number))).collect();
    fs::remove_dir_all(scratch).unwrap();
    [sent, expected]
}

#[test]
fn captures_through_net_pcap_come_out_as_through_our_own() {
    for name in [
        "nat-maps-address-and-port-there-and-back",
        "direct-routing-changes-ethernet-addresses-and-hop-limit-only",
        "tunnels-carry-packets-whole",
    ] {
        let [sent, expected] = through_captures(name);
        assert!(expected.len() > 3, "{name}: {} frames", expected.len());
        assert_eq!(sent, expected, "{name}");
    }
}

#[test]
fn a_frame_of_several_buffers_is_counted_and_freed() {
    let scratch = std::env::temp_dir().join(format!("rvs-dpdk-{}-long", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let file = scratch.join("in.pcap");
    let mut queue = PcapQueue::<fs::File, _> {
        replay: None,
        recorder: Some(Recorder::new(Vec::new(), Resolution::Microseconds, SNAP_MAX).unwrap()),
    };
    let mut pool = Reserve::new(8, 9000).pool();
    let mut burst = Burst::new();
    for len in [60, 5000, 61] {
        let mut frame = pool.take().unwrap();
        assert!(frame.resize(len));
        burst.push(frame);
    }
    queue.send(&mut pool, &mut burst);
    fs::write(&file, queue.recorder.unwrap().finish().unwrap()).unwrap();

    let name = format!("net_pcap_long,rx_pcap={}", file.display());
    let opened = Device::find(eal(), &name).unwrap().open(&plan(&name)).unwrap();
    let (port, mut queues) = opened;
    let (mut queue, mut pool) = queues.pop().unwrap();
    let free = pool.free();
    let mut burst = Burst::new();
    assert_eq!(queue.receive(&mut pool, &mut burst, 32), 2);
    assert_eq!(burst.iter().map(|frame| frame.octets().len()).collect::<Vec<_>>(), [60, 61]);
    assert_eq!(queue.lost().too_long, 1);
    burst.clear();
    assert_eq!(pool.free(), free);
    assert_eq!(port.driver(), "net_pcap");
    let counters = port.counters();
    assert!(counters.contains(&("rx_good_packets".to_owned(), 3)), "{counters:?}");
    fs::remove_dir_all(scratch).unwrap();
}
