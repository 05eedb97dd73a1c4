//! What is special about AF_XDP, between two devices of a real kernel. Each test has a network
//! namespace of its own, and is skipped without root.
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

use common::{Host, can, frame, in_namespace, ip, veth};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvs_io::{
    Burst, Frame, Pool, Queue, Reserve, RoomPool,
    af_xdp::{self, About, AfXdpError, AfXdpQueue, FRAME_OCTETS_MAX, Mode, Settings},
};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

const NEAR: &str = "rvs-near";
const FAR: &str = "rvs-far";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn settings() -> Settings<'static> {
    Settings {
        device: NEAR,
        queues: 1,
        mac: MAC,
        shared: true,
        mtu: 1500,
        frame_octets: 1518,
        zero_copy: None,
        busy_poll_us: None,
        mend: |_| {},
    }
}

fn open(settings: &Settings<'_>) -> (AfXdpQueue, About) {
    let (mut queues, about) = af_xdp::open(settings).unwrap();
    assert_eq!(queues.len(), 1);
    (queues.remove(0), about)
}

fn refusal(settings: &Settings<'_>) -> String {
    af_xdp::open(settings).unwrap_err().to_string()
}

fn on_veth(test: impl FnOnce() + Send + 'static) {
    in_namespace(|| {
        if veth(NEAR, FAR, 1500) {
            test();
        }
    });
}

/// What arrives until `count` frames are there, or twenty seconds are over.
fn receive(queue: &mut AfXdpQueue, pool: &mut RoomPool, count: usize) -> Vec<Vec<u8>> {
    let (mut burst, end) = (Burst::new(), Instant::now() + Duration::from_secs(20));
    while burst.len() < count && Instant::now() < end {
        queue.receive(pool, &mut burst, 32);
    }
    queue.receive(pool, &mut burst, 32);
    burst.drain(..).map(|frame| (frame.octets().to_vec(), pool.give(frame)).0).collect()
}

fn to(mac: [u8; 6], number: u32) -> Vec<u8> {
    let mut frame = frame(number, 100);
    frame[..6].copy_from_slice(&mac);
    frame
}

#[test]
fn frames_to_our_mac_are_ours_and_others_the_hosts_and_groups_are_for_both() {
    on_veth(|| {
        let (mut queue, about) = open(&settings());
        assert_eq!((about.driver.as_str(), about.mode, about.mends), ("veth", Mode::Native, true));
        let (near, far, mut pool) =
            (Host::new(NEAR), Host::new(FAR), Reserve::new(512, 1518).pool());
        let [ours, hosts, all] = [to(MAC, 1), to(near.mac, 2), to([0xff; 6], 3)];
        let group = to([0x33, 0x33, 0, 0, 0, 1], 4);
        for octets in [&ours, &hosts, &all, &group] {
            far.send(octets).unwrap();
        }
        let mut got = receive(&mut queue, &mut pool, 3);
        got.sort_by_key(|octets| octets[14..18].to_vec());
        assert!(got == [ours, all.clone(), group.clone()]);
        assert!(near.received(3) == [hosts, all, group]);
    });
}

#[test]
fn a_group_frame_is_taken_in_by_the_look_after_poll_told_of_it_and_else_by_one_of_33() {
    on_veth(|| {
        let (mut queue, _about) = open(&settings());
        let (far, mut pool) = (Host::new(FAR), Reserve::new(512, 1518).pool());
        let mut burst = Burst::new();
        for (number, is_told) in [(0, true), (1, false), (2, true), (3, false)] {
            // The first look of all asks, and so has the others to come.
            assert_eq!(queue.receive(&mut pool, &mut burst, 32), 0);
            far.send(&to([0xff; 6], number)).unwrap();
            let mut there = [PollFd::from_borrowed_fd(queue.group().unwrap(), PollFlags::IN)];
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            assert_eq!(poll(&mut there, Some(&second)), Ok(1));
            if is_told {
                queue.expect_group();
            }
            let looks = (1..=33).find(|_| queue.receive(&mut pool, &mut burst, 32) > 0).unwrap();
            assert!(if is_told { looks == 1 } else { looks > 1 }, "{looks}");
            assert_eq!(burst.len(), 1);
            burst.drain(..).for_each(|frame| pool.give(frame));
        }
    });
}

/// Such as those of neighbour discovery for our own addresses, which the host is not in. A macvlan leaves
/// them out as cards do, where a veth does not.
#[test]
fn frames_to_groups_come_that_the_host_is_not_in() {
    on_veth(|| {
        let macvlan = format!("link add link {NEAR} name rvs-card type macvlan mode bridge");
        if can("ip", &macvlan) && can("ip", "link set rvs-card up") {
            let (mut queue, _about) = open(&Settings { device: "rvs-card", ..settings() });
            let (far, mut pool) = (Host::new(FAR), Reserve::new(512, 1518).pool());
            let groups = [to([0x33, 0x33, 0xff, 0, 0, 9], 1), to([1, 0, 0x5e, 0, 0, 18], 2)];
            for octets in &groups {
                far.send(octets).unwrap();
            }
            assert!(receive(&mut queue, &mut pool, 2) == groups);
        }
    });
}

#[test]
fn a_group_frame_has_its_vlan_tag() {
    on_veth(|| {
        let (mut queue, _about) = open(&settings());
        let (far, mut pool) = (Host::new(FAR), Reserve::new(512, 1518).pool());
        let plain = to([0xff; 6], 3);
        let tagged = [&plain[..12], &[0x81, 0, 0x20, 100], &plain[12..]].concat();
        far.send(&tagged).unwrap();
        assert!(receive(&mut queue, &mut pool, 1) == [tagged]);
    });
}

#[test]
fn a_link_that_is_not_shared_has_every_frame() {
    on_veth(|| {
        let (mut queue, _about) = open(&Settings { shared: false, ..settings() });
        let (near, far, mut pool) =
            (Host::new(NEAR), Host::new(FAR), Reserve::new(512, 1518).pool());
        let frames = [to(MAC, 1), to(near.mac, 2), to([0xff; 6], 3)];
        for octets in &frames {
            far.send(octets).unwrap();
        }
        assert!(receive(&mut queue, &mut pool, 3) == frames);
        assert!(near.received(0).is_empty());
    });
}

#[test]
fn many_times_a_ring_goes_through_and_nothing_is_missing() {
    on_veth(|| {
        let (mut queue, _about) = open(&Settings { busy_poll_us: Some(20), ..settings() });
        let (far, mut pool) = (Host::new(FAR), Reserve::new(512, 1518).pool());
        for round in 0..400 {
            let frames: Vec<_> = (0..50).map(|number| to(MAC, round * 50 + number)).collect();
            for octets in &frames {
                far.send(octets).unwrap();
            }
            let mut burst = Burst::new();
            for octets in receive(&mut queue, &mut pool, 50) {
                let mut frame = pool.take().unwrap();
                assert!(frame.fill(&octets));
                burst.push(frame);
            }
            assert_eq!(burst.len(), 50, "round {round}");
            assert_eq!(queue.send(&mut pool, &mut burst), 50, "round {round}");
            assert!(far.received(50) == frames, "round {round}");
        }
        assert_eq!((queue.missed(), queue.fault().is_none()), (af_xdp::Missed::default(), true));
    });
}

#[test]
fn every_queue_has_its_worker() {
    in_namespace(|| {
        let made = ip(&format!(
            "link add {NEAR} numrxqueues 4 numtxqueues 4 type veth peer name {FAR} numtxqueues 4 \
             numrxqueues 4"
        ));
        if !made || !ip(&format!("link set {NEAR} up")) || !ip(&format!("link set {FAR} up")) {
            return;
        }
        let wrong = refusal(&settings());
        assert!(wrong.contains("has 4 receive queues and there are 1 workers"), "{wrong}");
        let (queues, _about) = af_xdp::open(&Settings { queues: 4, ..settings() }).unwrap();
        assert_eq!(queues.len(), 4);
        let groups = queues.iter().map(|queue| queue.group().is_some());
        assert!(groups.eq([true, false, false, false]), "one copy of what is to groups");
    });
}

#[test]
fn a_device_with_fewer_queues_to_transmit_than_workers_is_refused() {
    in_namespace(|| {
        // The kernel would leave in the ring what the second worker sends.
        if ip(&format!("link add {NEAR} numrxqueues 2 numtxqueues 1 type veth peer name {FAR}")) {
            assert!(ip(&format!("link set {NEAR} up")) && ip(&format!("link set {FAR} up")));
            let error = refusal(&Settings { queues: 2, ..settings() });
            assert!(error.contains("has 1 transmit queues and there are 2 workers"), "{error}");
        }
    });
}

#[test]
fn a_peer_that_sends_on_more_queues_than_there_are_to_receive_is_said() {
    in_namespace(|| {
        let made = ip(&format!(
            "link add {NEAR} numrxqueues 1 numtxqueues 1 type veth peer name {FAR} numtxqueues 2 \
             numrxqueues 1"
        ));
        if made {
            assert!(ip(&format!("link set {NEAR} up")) && ip(&format!("link set {FAR} up")));
            let error = refusal(&settings());
            assert!(error.contains("run `ethtool -L PEER tx 1` there"), "{error}");
            if can("ethtool", &format!("-L {FAR} tx 1")) {
                assert_eq!(open(&settings()).1.mode, Mode::Native);
            }
        }
    });
}

#[test]
fn what_is_missing_is_said_with_what_would_be_right() {
    on_veth(|| {
        assert!(ip(&format!("link set {NEAR} mtu 1400")));
        assert_eq!(
            refusal(&settings()),
            "device rvs-near has MTU 1400 and the link 1500: run `ip link set rvs-near mtu 1500`, or \
             set the link's mtu to 1400"
        );
        let settings = Settings { mtu: 1400, ..settings() };
        let near = Host::new(NEAR);
        for (settings, expected) in [
            (Settings { device: "rvs-none", ..settings }, "there is no device rvs-none"),
            (Settings { mac: near.mac, ..settings }, "has the link's `mac` itself"),
            (Settings { frame_octets: FRAME_OCTETS_MAX + 1, ..settings }, "3840 at most"),
            (Settings { zero_copy: Some(true), ..settings }, "cannot do zero-copy"),
        ] {
            let error = refusal(&settings);
            assert!(error.contains(expected), "{error}");
        }
        let held = open(&settings);
        let error = refusal(&settings);
        assert!(error.contains("another XDP program is on device rvs-near"), "{error}");
        drop(held);
        // The kernel takes the program off a moment after its last descriptor is closed.
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(AfXdpError::Taken(_) | AfXdpError::Busy { .. }) = af_xdp::open(&settings) {
            assert!(Instant::now() < end, "the program stays");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(ip(&format!("link set {NEAR} down")));
        assert_eq!(refusal(&settings), "device rvs-near is down: run `ip link set rvs-near up`");
    });
}

/// Makes this thread's kernel one without `CONFIG_XDP_SOCKETS`: it has no such sockets, and no map for
/// them. Linux 6.1 net/socket.c `__sock_create()`, kernel/bpf/syscall.c `find_and_alloc_map()`.
fn without_af_xdp() {
    let one = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let unless = |is, skip| one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, is);
    let answer = |what| one(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let refuse = |error: i32| answer(libc::SECCOMP_RET_ERRNO | error.cast_unsigned());
    // struct seccomp_data: the call's number, and 16 octets behind it the lower half of its first argument.
    let mut filter = [
        load(0),
        unless(libc::SYS_bpf as u32, 3),
        load(16),
        unless(0, 1), // BPF_MAP_CREATE
        refuse(libc::EINVAL),
        load(0),
        unless(libc::SYS_socket as u32, 3),
        load(16),
        unless(libc::AF_XDP.cast_unsigned(), 1),
        refuse(libc::EAFNOSUPPORT),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: it takes numbers only.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program leads to live instructions, which the kernel copies; it is this thread's.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!((alone, done), (0, 0), "seccomp: {}", std::io::Error::last_os_error());
}

#[test]
fn a_kernel_without_af_xdp_is_said() {
    on_veth(|| {
        without_af_xdp();
        let error = refusal(&settings());
        assert!(error.contains("this kernel has no AF_XDP"), "{error}");
    });
}

#[test]
fn frames_wait_for_a_device_that_comes_back() {
    on_veth(|| {
        let (mut queue, _about) = open(&settings());
        let (far, mut pool) = (Host::new(FAR), Reserve::new(512, 1518).pool());
        let mut burst = Burst::new();
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(&to(far.mac, 7)));
        burst.push(frame);
        assert!(ip(&format!("link set {NEAR} down")));
        assert_eq!(queue.send(&mut pool, &mut burst), 0);
        assert_eq!(queue.fault().unwrap().raw_os_error(), Some(libc::ENETDOWN));
        assert!(ip(&format!("link set {NEAR} up")));
        assert_eq!(queue.send(&mut pool, &mut burst), 1);
        assert!(far.received(1) == [to(far.mac, 7)]);
    });
}

/// A queue of a device that sends frames on as a slow one lets it, and the other end; `None` where the
/// kernel has no such devices. What it may keep of frames on their way is `memory`.
fn slow(memory: Option<i32>) -> Option<(AfXdpQueue, Host)> {
    let can = can("ip", &format!("link add link {NEAR} name rvs-slow type macvlan mode bridge"))
        && can("ip", "link set rvs-slow up")
        && can("tc", &format!("qdisc add dev {NEAR} root tbf rate 80mbit burst 10kb limit 10mb"));
    let (queue, _about) = can.then(|| open(&Settings { device: "rvs-slow", ..settings() }))?;
    if let Some(octets) = memory {
        let (fd, len) = (queue.as_fd().as_raw_fd(), size_of_val(&octets) as libc::socklen_t);
        let place = (&raw const octets).cast();
        // SAFETY: the descriptor is open, and the value is live and `len` octets long.
        let done = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, place, len) };
        assert_eq!(done, 0, "setsockopt: {}", std::io::Error::last_os_error());
    }
    Some((queue, Host::new(FAR)))
}

/// Sends `count` long frames at once; how many were taken.
fn send_long(queue: &mut AfXdpQueue, pool: &mut RoomPool, mac: [u8; 6], count: u32) -> usize {
    let mut burst = Burst::new();
    for number in 0..count {
        let mut octets = frame(number, 1514);
        octets[..6].copy_from_slice(&mac);
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(&octets));
        burst.push(frame);
    }
    let went = queue.send(pool, &mut burst);
    burst.drain(..).for_each(|frame| pool.give(frame));
    went
}

#[test]
fn a_burst_to_a_slow_device_goes_at_once() {
    on_veth(|| {
        let mut pool = Reserve::new(512, 1518).pool();
        if let Some((mut queue, far)) = slow(None) {
            for _ in 0..4 {
                assert_eq!(send_long(&mut queue, &mut pool, far.mac, 250), 250);
            }
            assert_eq!(far.received(1000).len(), 1000);
        }
    });
}

#[test]
fn what_the_kernel_has_no_place_for_goes_with_later_looks_for_frames() {
    on_veth(|| {
        let mut pool = Reserve::new(512, 1518).pool();
        if let Some((mut queue, far)) = slow(Some(50_000)) {
            assert_eq!(send_long(&mut queue, &mut pool, far.mac, 250), 250);
            let (mut got, end) = (0, Instant::now() + Duration::from_secs(20));
            while got < 250 && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
                assert_eq!(queue.receive(&mut pool, &mut Burst::new(), 32), 0);
                got += far.received(0).len();
            }
            assert_eq!(got, 250);
        }
    });
}
