use super::*;
use crate::access::Rules;
use crate::config::{Config, Control, Machine};
use crate::conns::Conns as Lists;
use crate::director::Director;
use crate::socket::Kind;
use crate::store::Sync;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rvs_netlink::FAMILY_ID;
use rvs_plane::shared::Shared;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const CONFIG: &str =
    "[tables]\nservices = 4\ndests = 4096\n[[link]]\nname = \"a\"\nkind = \"tap\"\n";

const NEW_SERVICE: u8 = 1;
const NEW_DEST: u8 = 5;
const GET_DEST: u8 = 8;
const GET_INFO: u8 = 15;
const ACK: u16 = 5;
const DUMP: u16 = 0x301;

struct Rig {
    folder: PathBuf,
    desk: Arc<Desk>,
    logged: Arc<Mutex<Vec<String>>>,
    server: Option<Server>,
}

impl Rig {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvs-nl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = Config::parse(Path::new("test"), CONFIG, &Machine::default()).unwrap();
        let worker = Shared::new(4096);
        let director = Director::new(&config, vec![worker.clone()]);
        let logged = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&logged);
        let lists = Lists::new(core::slice::from_ref(&worker));
        let desk = Desk::new(director, lists, Rules::default(), move |line| {
            log.lock().unwrap().push(line.to_owned());
        });
        let desk = Arc::new(desk);
        let control = Control {
            socket: folder.join("a.sock"),
            netlink: folder.join("a.netlink"),
            mode: 0o600,
            owner: None,
            group: None,
            rules: Rules::default(),
            state: None,
            sync: Sync::Soon,
        };
        let socket = Socket::bind(Kind::Netlink, &control).unwrap();
        let server = Some(serve(socket, Arc::clone(&desk)).unwrap());
        Self { folder, desk, logged, server }
    }

    fn client(&self) -> OwnedFd {
        let (unix, packets) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = rustix::net::socket_with(unix, packets, SocketFlags::CLOEXEC, None).unwrap();
        let address = SocketAddrUnix::new(self.folder.join("a.netlink")).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        socket
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server = None;
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len() + 4).unwrap();
    let mut octets = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

fn request(flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(20 + attributes.len()).unwrap();
    let mut octets = len.to_ne_bytes().to_vec();
    octets.extend(FAMILY_ID.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    octets.extend([0; 8]);
    octets.extend([command, 1, 0, 0]);
    octets.extend(attributes);
    octets
}

fn service() -> Vec<u8> {
    let key = [
        attribute(1, &2_u16.to_ne_bytes()),
        attribute(2, &6_u16.to_ne_bytes()),
        attribute(3, &[203, 0, 113, 1]),
        attribute(4, &80_u16.to_be_bytes()),
        attribute(6, b"rr\0"),
        attribute(7, &[0; 8]),
        attribute(8, &[0; 4]),
        attribute(9, &[255; 4]),
    ];
    attribute(1, &key.concat())
}

fn dest(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    let all = [
        attribute(1, &[192, 0, high, low]),
        attribute(2, &80_u16.to_be_bytes()),
        attribute(3, &0_u32.to_ne_bytes()),
        attribute(4, &1_u32.to_ne_bytes()),
        attribute(5, &[0; 4]),
        attribute(6, &[0; 4]),
    ];
    [service(), attribute(2, &all.concat())].concat()
}

fn say(client: &OwnedFd, datagram: &[u8]) {
    rustix::net::send(client, datagram, SendFlags::NOSIGNAL).unwrap();
}

fn hear(client: &OwnedFd) -> Vec<u8> {
    let mut datagram = vec![0; 64 << 10];
    let (len, _) = rustix::net::recv(client, datagram.as_mut_slice(), RecvFlags::empty()).unwrap();
    datagram.truncate(len);
    datagram
}

/// Asks, and says how it ended.
fn ask(client: &OwnedFd, command: u8, attributes: &[u8]) -> i32 {
    say(client, &request(ACK, command, attributes));
    i32::from_ne_bytes(hear(client)[16..20].try_into().unwrap())
}

#[test]
fn a_change_is_acknowledged_logged_once_and_soon_seen_by_workers() {
    let rig = Rig::new("change");
    let reader = rig.desk.director().reader();
    let before = reader.generation();
    let client = rig.client();
    assert_eq!(ask(&client, NEW_SERVICE, &service()), 0);
    assert_eq!(ask(&client, NEW_SERVICE, &service()), -17);
    let until = Instant::now() + Duration::from_secs(20);
    while reader.generation() == before && Instant::now() < until {
        thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(reader.generation(), before + 1);
    let logged = rig.logged.lock().unwrap().clone();
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert!(logged[0].ends_with(": -A -t 203.0.113.1:80 -s rr"), "{logged:?}");
    assert!(logged[1].ends_with("(refused: Service already exists)"), "{logged:?}");
}

#[test]
fn a_client_that_takes_no_answer_costs_others_nothing_and_gets_it_whole_later() {
    let rig = Rig::new("slow");
    let quick = rig.client();
    assert_eq!(ask(&quick, NEW_SERVICE, &service()), 0);
    for number in 1..=4000 {
        assert_eq!(ask(&quick, NEW_DEST, &dest(number)), 0);
    }
    let slow = rig.client();
    say(&slow, &request(DUMP, GET_DEST, &service()));
    say(&slow, &request(1, GET_INFO, &[]));
    for _ in 0..100 {
        say(&quick, &request(1, GET_INFO, &[]));
        assert_eq!(hear(&quick)[20..24], [8, 0, 1, 0]);
    }
    let mut told = 0;
    loop {
        let datagram = hear(&slow);
        told += datagram.len();
        if datagram[4..6] == FAMILY_ID.to_ne_bytes() && datagram.len() < 64 {
            break;
        }
    }
    assert!(told > 4000 * 200, "{told} octets");
}

#[test]
fn what_is_no_netlink_ends_the_connection_and_nothing_else() {
    let rig = Rig::new("noise");
    let (noise, other) = (rig.client(), rig.client());
    say(&noise, b"hello");
    assert_eq!(hear(&noise), b"");
    let long = rig.client();
    say(&long, &vec![0; REQUEST_OCTETS_MAX + 1]);
    assert_eq!(hear(&long), b"");
    say(&other, &request(1, GET_INFO, &[]));
    assert!(!hear(&other).is_empty());
    let logged = rig.logged.lock().unwrap().clone();
    assert_eq!(logged.iter().filter(|line| line.contains("was left: a datagram")).count(), 2);
}

#[test]
fn a_client_that_goes_without_reading_leaves_the_server_alone() {
    let rig = Rig::new("gone");
    for _ in 0..200 {
        let client = rig.client();
        say(&client, &request(ACK, GET_INFO, &[]));
        drop(client);
    }
    let client = rig.client();
    say(&client, &request(1, GET_INFO, &[]));
    assert!(!hear(&client).is_empty());
}

#[test]
fn who_watches_in_vain_sleeps_longer_and_longer_until_it_is_worth_it_again() {
    let mut watch = Watch::default();
    let mut watched = 0;
    for _ in 0..1000 {
        if watch.begin() {
            watched += 1;
            watch.was_in_vain();
        }
    }
    assert!(watched < 16, "{watched} of 1000");
    while !watch.begin() {}
    watch.was_worth_it();
    assert!((0..1000).all(|_| watch.begin()));
}
