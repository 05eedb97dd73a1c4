//! What is special about TAP devices, between our end and a real kernel's. Each test has a network
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

use common::{Host, frame, frames, in_namespace, ip, persist};
use rvs_io::{
    Burst, Frame, Lost, Pool, Queue, Reserve, RoomFrame, RoomPool,
    tap::{self, HostEnd, QUEUES_MAX, TapError, TapQueue},
};
use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    thread,
};

const NAME: &str = "rvs-test";

fn open(queues: u16) -> Result<Vec<TapQueue>, TapError> {
    tap::open(NAME, queues, &HostEnd::default())
}

fn pool() -> RoomPool {
    Reserve::new(512, 1514).pool()
}

fn send(queue: &mut TapQueue, pool: &mut RoomPool, frames: &[Vec<u8>]) -> Burst<RoomFrame> {
    let mut burst = Burst::new();
    for octets in frames {
        let mut frame = pool.take().unwrap();
        assert!(frame.fill(octets));
        burst.push(frame);
    }
    queue.send(pool, &mut burst);
    burst
}

fn receive(queue: &mut TapQueue, pool: &mut RoomPool) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    queue.receive(pool, &mut burst, usize::MAX);
    burst.iter().map(|frame| frame.octets().to_vec()).collect()
}

#[test]
fn every_queue_of_a_device_carries_frames_both_ways() {
    in_namespace(|| {
        let (mut queues, host, mut pool) = (open(4).unwrap(), Host::new(NAME), pool());
        let frames = frames(40);
        for (queue, part) in queues.iter_mut().zip(frames.chunks(10)) {
            assert!(send(queue, &mut pool, part).is_empty());
            assert!(host.received(10) == part);
        }
        for octets in &frames {
            host.send(octets).unwrap();
        }
        let mut got: Vec<_> =
            queues.iter_mut().flat_map(|queue| receive(queue, &mut pool)).collect();
        got.sort_by_key(|octets| octets[14..18].to_vec());
        assert!(got == frames);
    });
}

#[test]
fn as_many_queues_as_the_kernel_knows_can_be_had() {
    in_namespace(|| assert_eq!(open(QUEUES_MAX).unwrap().len(), usize::from(QUEUES_MAX)));
}

#[test]
fn the_host_end_has_the_mtu_and_the_mac_asked_for() {
    in_namespace(|| {
        let mac = [2, 0, 0, 0, 0x16, 0x30];
        let _queues =
            tap::open(NAME, 1, &HostEnd { mtu: Some(1400), mac: Some(mac), leaves: false })
                .unwrap();
        let host = Host::new(NAME);
        assert_eq!(host.mac, mac);
        host.send(&frame(0, 1414)).unwrap();
        let error = host.send(&frame(0, 1415)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    });
}

#[test]
fn an_mtu_that_the_kernel_refuses_is_said_and_leaves_no_device() {
    in_namespace(|| {
        let error =
            tap::open(NAME, 2, &HostEnd { mtu: Some(20), mac: None, leaves: false }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot set the MTU of TAP rvs-test: Invalid argument (os error 22)"
        );
        drop(open(1).unwrap());
    });
}

#[test]
fn a_device_that_exists_is_attached_to_and_stays() {
    in_namespace(|| {
        let mac = [2, 0, 0, 0, 0, 9];
        let queues =
            tap::open(NAME, 2, &HostEnd { mtu: None, mac: Some(mac), leaves: false }).unwrap();
        persist(&queues[0], true);
        drop(queues);
        for queues in [2, 1, 3] {
            let mut queues = open(queues).unwrap();
            let host = Host::new(NAME);
            assert_eq!(host.mac, mac);
            let mut pool = pool();
            assert!(send(queues.last_mut().unwrap(), &mut pool, &frames(3)).is_empty());
            assert!(host.received(3) == frames(3));
        }
    });
}

#[test]
fn a_device_made_for_one_queue_refuses_several_and_says_what_to_do() {
    in_namespace(|| {
        let queues = open(1).unwrap();
        persist(&queues[0], true);
        drop(queues);
        let error = open(2).unwrap_err();
        assert!(matches!(&error, TapError::SingleQueue(name) if name == NAME), "{error}");
        assert!(error.to_string().contains("ip tuntap add rvs-test mode tap multi_queue"));
        open(1).unwrap();
    });
}

#[test]
fn a_device_that_somebody_uses_is_busy_whatever_its_kind() {
    in_namespace(|| {
        for (held, wanted) in [(1, 1), (2, 2), (2, 1)] {
            let queues = open(held).unwrap();
            let error = open(wanted).unwrap_err();
            assert!(matches!(error, TapError::Busy(_)), "{held}, {wanted}: {error}");
            drop(queues);
        }
    });
}

#[test]
fn who_is_refused_a_device_in_use_takes_no_frame_of_its_user() {
    in_namespace(|| {
        let mut queues = open(2).unwrap();
        if !ip("address add 192.0.2.1/24 dev rvs-test") {
            return;
        }
        ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev rvs-test");
        let mut pool = pool();
        let (mut sent, mut got, mut burst) = (0, 0, Burst::new());
        let intruder = thread::spawn(|| {
            for _ in 0..2 {
                assert!(matches!(open(2).unwrap_err(), TapError::Busy(_)));
            }
        });
        let mut socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        while !intruder.is_finished() {
            // Another flow each, so that they are spread over all queues there are.
            for port in 1..=200 {
                sent += socket.send_to(b"x", ("192.0.2.2", port)).unwrap();
            }
            socket = UdpSocket::bind("192.0.2.1:0").unwrap();
            for queue in &mut queues {
                queue.receive(&mut pool, &mut burst, usize::MAX);
                got += burst.iter().filter(|frame| frame.octets()[23] == 17).count();
                burst.drain(..).for_each(|frame| pool.give(frame));
            }
        }
        intruder.join().unwrap();
        assert_eq!(got, sent);
    });
}

#[test]
fn a_device_of_another_kind_is_left_alone() {
    in_namespace(|| {
        for queues in [1, 2] {
            let error = tap::open("lo", queues, &HostEnd::default()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the device lo exists and is no TAP: choose another name"
            );
        }
    });
}

#[test]
fn a_user_without_the_right_is_told_which() {
    in_namespace(|| {
        let nobody: libc::uid_t = 65534;
        // The bare system call: it concerns this thread alone, unlike the C library's setresuid(3).
        // SAFETY: it takes numbers only.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
        assert_eq!(done, 0, "setresuid: {}", io::Error::last_os_error());
        let error = open(1).unwrap_err();
        assert!(matches!(error, TapError::Permission { .. }), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
    });
}

#[test]
fn a_frame_too_short_for_ethernet_does_not_hold_up_the_others() {
    in_namespace(|| {
        let (mut queues, host, mut pool) = (open(1).unwrap(), Host::new(NAME), pool());
        let mut frames = frames(5);
        frames[0].truncate(0);
        frames[3].truncate(13);
        let left = send(&mut queues[0], &mut pool, &frames);
        let lens: Vec<_> = left.iter().map(|frame| frame.octets().len()).collect();
        assert_eq!(lens, [0, 13]);
        assert!(host.received(3) == [&frames[1..3], &frames[4..]].concat());
        assert!(queues[0].fault().is_none());
    });
}

#[test]
fn a_device_that_is_down_refuses_all_says_so_and_works_again_when_it_is_up() {
    in_namespace(|| {
        let (mut queues, mut pool) = (open(1).unwrap(), pool());
        if !ip("link set rvs-test down") {
            return;
        }
        assert_eq!(send(&mut queues[0], &mut pool, &frames(3)).len(), 3);
        assert!(receive(&mut queues[0], &mut pool).is_empty());
        assert_eq!(queues[0].fault().unwrap().raw_os_error(), Some(libc::EIO));
        ip("link set rvs-test up");
        let host = Host::new(NAME);
        assert!(send(&mut queues[0], &mut pool, &frames(3)).is_empty());
        assert!(host.received(3) == frames(3));
    });
}

#[test]
fn a_device_deleted_under_us_is_an_empty_link_with_a_fault() {
    in_namespace(|| {
        let (mut queues, mut pool) = (open(2).unwrap(), pool());
        if !ip("link delete rvs-test") {
            return;
        }
        for queue in &mut queues {
            assert!(!queue.is_gone());
            assert!(receive(queue, &mut pool).is_empty());
            assert!(queue.is_gone());
            assert_eq!(send(queue, &mut pool, &frames(3)).len(), 3);
            assert_eq!(queue.fault().unwrap().raw_os_error(), Some(libc::EBADFD));
        }
    });
}

#[test]
fn a_queue_becomes_readable_when_a_frame_waits() {
    in_namespace(|| {
        let (mut queues, host, mut pool) = (open(1).unwrap(), Host::new(NAME), pool());
        let readable = |queue: &TapQueue| {
            let fd = queue.as_fd().as_raw_fd();
            let mut waiting = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: the place is live and one pollfd long.
            let ready = unsafe { libc::poll(&raw mut waiting, 1, 0) };
            assert!(ready >= 0, "poll: {}", io::Error::last_os_error());
            waiting.revents & libc::POLLIN != 0
        };
        assert!(!readable(&queues[0]));
        host.send(&frame(0, 60)).unwrap();
        assert!(readable(&queues[0]));
        assert_eq!(receive(&mut queues[0], &mut pool).len(), 1);
        assert!(!readable(&queues[0]));
    });
}

#[test]
fn the_hosts_checksums_are_finished_even_if_an_earlier_user_left_offloads_on() {
    in_namespace(|| {
        let queues = open(1).unwrap();
        persist(&queues[0], true);
        let (fd, offloads) = (queues[0].as_fd().as_raw_fd(), libc::TUN_F_CSUM | libc::TUN_F_TSO4);
        let offloads = libc::c_ulong::from(offloads);
        // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes a number.
        let done = unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, offloads) };
        assert_eq!(done, 0, "TUNSETOFFLOAD: {}", io::Error::last_os_error());
        drop(queues);

        let (mut queues, mut pool) = (open(1).unwrap(), pool());
        if !ip("address add 192.0.2.1/24 dev rvs-test") {
            return;
        }
        ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev rvs-test");
        let socket = UdpSocket::bind("192.0.2.1:4000").unwrap();
        socket.send_to(b"partial checksums lose every packet", "192.0.2.2:4001").unwrap();
        let frames = receive(&mut queues[0], &mut pool);
        let ip = frames.iter().find(|frame| frame[12..15] == [8, 0, 0x45] && frame[23] == 17);
        let datagram = &ip.unwrap()[14..];
        // RFC 768: addresses, protocol and length, then the datagram; with the sum it is all ones.
        let pseudo = [&datagram[12..20], &[0, 17], &datagram[24..26]].concat();
        let octets = [&pseudo, &datagram[20..], &[0]].concat();
        let (words, _) = octets.as_chunks::<2>();
        let sum = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    });
}

/// Octets of TCP come back to the host as from somebody else: addresses are swapped, which no sum
/// notices.
fn reflect(burst: &mut Burst<RoomFrame>) {
    for frame in burst.iter_mut() {
        let octets = frame.octets_mut();
        if octets[12..14] == [8, 0] {
            let (macs, addresses) = octets.split_at_mut(26);
            macs[..12].rotate_left(6);
            addresses[..8].rotate_left(4);
        }
    }
}

#[test]
fn a_kernels_uncut_frames_and_unfinished_checksums_come_and_go() {
    in_namespace(|| {
        let end = HostEnd { leaves: true, ..HostEnd::default() };
        let mut queue = tap::open(NAME, 1, &end).unwrap().remove(0);
        if !ip("address add 192.0.2.1/24 dev rvs-test") {
            return;
        }
        ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev rvs-test");
        let listener = TcpListener::bind("192.0.2.1:80").unwrap();
        let data: Vec<u8> = (0..4_u32 << 20).map(|number| (number * 7 % 251) as u8).collect();
        let sent = data.clone();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect("192.0.2.2:80").unwrap();
            stream.write_all(&sent).unwrap();
        });
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        let reserve = Reserve::new(512, 1514).with_large(32);
        let (mut pool, mut burst) = (reserve.pool(), Burst::new());
        let (mut unfinished, mut long) = (0, 0);
        while !server.is_finished() {
            queue.receive(&mut pool, &mut burst, usize::MAX);
            for frame in burst.iter().filter_map(Frame::unfinished) {
                unfinished += 1;
                long += usize::from(frame.segments.is_some());
            }
            reflect(&mut burst);
            queue.send(&mut pool, &mut burst);
            assert!(burst.is_empty(), "the kernel took them all");
        }
        client.join().unwrap();
        assert!(server.join().unwrap() == data);
        assert!(unfinished > long && long > 10, "{unfinished} unfinished, {long} of them long");
        assert_eq!(queue.lost(), Lost::default());
        drop((queue, pool));
        assert_eq!((reserve.free(), reserve.total()), (512 + 32, 512 + 32));
    });
}

#[test]
fn without_large_frames_long_ones_are_counted_and_others_come() {
    in_namespace(|| {
        let end = HostEnd { leaves: true, mtu: Some(9000), ..HostEnd::default() };
        let (mut queues, mut pool) = (tap::open(NAME, 1, &end).unwrap(), pool());
        let host = Host::new(NAME);
        for octets in [60, 5000, 1514, 9014, 1514] {
            host.send(&frame(0, octets)).unwrap();
        }
        let lens: Vec<_> =
            receive(&mut queues[0], &mut pool).iter().map(std::vec::Vec::len).collect();
        assert_eq!(lens, [60, 1514, 1514]);
        assert_eq!(queues[0].lost(), Lost { no_frame: 2, ..Lost::default() });
    });
}

#[test]
fn a_call_takes_in_no_more_long_frames_than_a_cache_holds_and_the_rest_comes_next() {
    in_namespace(|| {
        let end = HostEnd { leaves: true, mtu: Some(65_000), ..HostEnd::default() };
        let mut queue = tap::open(NAME, 1, &end).unwrap().remove(0);
        let mut pool = Reserve::new(512, 1514).with_large(32).pool();
        let host = Host::new(NAME);
        let mut calls = |sent: &[usize]| {
            for octets in sent {
                host.send(&frame(0, *octets)).unwrap();
            }
            let mut received = || {
                let mut burst = Burst::new();
                queue.receive(&mut pool, &mut burst, usize::MAX);
                let lens: Vec<_> = burst.iter().map(|frame| frame.octets().len()).collect();
                burst.drain(..).for_each(|frame| pool.give(frame));
                lens
            };
            [received(), received()]
        };
        assert_eq!(
            calls(&[60_000, 60, 60_000, 60, 60_000]),
            [vec![60_000, 60, 60_000], vec![60, 60_000]]
        );
        assert_eq!(calls(&[3000; 10]), [vec![3000; 8], vec![3000; 2]]);
    });
}

#[test]
fn a_queue_that_poll_found_silent_is_not_asked_once() {
    in_namespace(|| {
        for leaves in [false, true] {
            let end = HostEnd { leaves, ..HostEnd::default() };
            let (mut queues, mut pool) = (tap::open(NAME, 1, &end).unwrap(), pool());
            let host = Host::new(NAME);
            host.send(&frame(0, 60)).unwrap();
            queues[0].expect(false);
            assert_eq!(receive(&mut queues[0], &mut pool).len(), 0);
            queues[0].expect(true);
            assert_eq!(receive(&mut queues[0], &mut pool), [frame(0, 60)]);
        }
    });
}
