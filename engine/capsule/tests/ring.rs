//! The director beside another Capsule function, which sends it packets through `net_ring`: a device
//! that receives what is sent on it.
//!
//! ```text
//!  a Capsule function ──► net_ring0 ──► rvs
//!                             ▲──────────┘ what it forwards
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on shall stop"
)]

use capsule::Mbuf;
use capsule::batch::{Batch, poll_fn};
use rvs_capsule::Guest;
use rvs_control::config::{Config, Machine};
use rvs_plane::drop_reason::drop_counters;
use std::cell::Cell;
use std::fs;
use std::net::Ipv4Addr;

/// Packets, in so many flows.
const PACKETS: u16 = 20_000;
const FLOWS: u16 = 10;
const BURST: u16 = 25;

/// A UDP datagram from client port `port` to the service, without a checksum.
fn datagram(port: u16) -> Vec<u8> {
    let (client, vip) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 100));
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0];
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend(client.octets().iter().chain(&vip.octets()));
    let sum: u32 = ip.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    packet.extend(ip);
    packet
        .extend([port.to_be_bytes(), 53_u16.to_be_bytes(), 26_u16.to_be_bytes(), [0, 0]].concat());
    packet.extend([0; 18]);
    packet
}

#[test]
fn what_another_function_sends_is_balanced_and_every_frame_is_accounted_for() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let mut cores = allowed.trim().split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    let (Some(master), Some(worker)) = (cores.next(), cores.next()) else {
        println!("skipped: a single core");
        return;
    };
    let folder = std::env::temp_dir().join(format!("rvs-capsule-ring-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let capsule = format!(
        "app_name = \"rvs-ring\"\napp_group = \"rvs-ring-{}\"\nmaster_core = {master}\nduration = 3\n\
         dpdk_args = \"--no-huge -m 128 --no-pci --no-shconf --no-telemetry --log-level error\"\n\
         [mempool]\ncapacity = 8191\ncache_size = 256\n\
         [[ports]]\nname = \"ring\"\ndevice = \"net_ring0\"\ncores = [{worker}]\n",
        std::process::id(),
    );
    let rvs = "announce = false\n[control]\nsocket = \"s.sock\"\n[tables]\nconns = 1000\n\
        conns6 = 1000\n[[link]]\nname = \"wire\"\nkind = \"dpdk\"\ndevice = \"net_ring0\"\n\
        mac = \"02:00:00:00:00:01\"\naddresses = [\"198.51.100.1/24\", \"192.0.2.1/24\"]\n\
        [[neighbor]]\nlink = \"wire\"\naddress = \"192.0.2.11\"\nmac = \"02:00:00:00:01:11\"\n";
    let config = Config::parse(&folder.join("rvs.toml"), rvs, &Machine::default()).unwrap();
    let socket = config.control.socket.clone();
    let mut guest = Guest::new(&capsule, config).unwrap();

    // Over its socket, as every operator does.
    let mut table = rvs_adm::SocketTransport::new(socket);
    let asked = ["-A -u 198.51.100.100:53 -s rr", "-a -u 198.51.100.100:53 -r 192.0.2.11:5353 -m"];
    for line in asked {
        let words: Vec<String> =
            ["rvsadm"].into_iter().chain(line.split(' ')).map(str::to_owned).collect();
        let names = rvs_adm::SystemNames::default();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code =
            rvs_adm::run(&words, &mut std::io::empty(), &mut table, &names, &mut out, &mut err);
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&err));
    }

    guest
        .runtime()
        .add_pipeline_to_port("ring", move |wire| {
            let sent = Cell::new(0);
            let next = move || {
                if sent.get() == PACKETS {
                    return Vec::new();
                }
                sent.set(sent.get() + BURST);
                let flow =
                    |number: u16| Mbuf::from_bytes(&datagram(1024 + number % FLOWS)).unwrap();
                (0..BURST).map(flow).collect()
            };
            poll_fn(next).send(wire)
        })
        .unwrap();
    let shared = guest.shared()[0].clone();
    let summary = guest.run().unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert!(summary.is_conserved(), "{summary}");
    let counts = shared.frames.read();
    // What it forwards comes back through the ring, and is somebody else's.
    let packets = u64::from(PACKETS);
    assert_eq!((counts.received, counts.sent), (2 * packets, packets), "{summary}");
    let names = drop_counters().map(|(name, _)| name);
    let dropped: Vec<_> = names.zip(counts.dropped).filter(|(_, count)| *count > 0).collect();
    assert_eq!(dropped, [("other-host", packets)], "{summary}");
    assert_eq!(counts.conns, [u64::from(FLOWS), 0], "{summary}");
}
