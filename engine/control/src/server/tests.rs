use super::*;
use crate::access::Rules;
use crate::config::{Config, Control, Machine};
use crate::conns::Conns;
use crate::director::Director;
use crate::socket::Kind;
use crate::store::Sync;
use rvs_api::{AddressFamily, Client, Errno, Reply, ServiceAttributes, ServiceKey};
use rvs_model::{DestId, Protocol, State};
use rvs_plane::shared::{Command, ConnRow, Shared};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const CONFIG: &str = "[tables]\nservices = 4\ndests = 8\n[[link]]\nname = \"a\"\nkind = \"tap\"\n";

/// A desk of one worker, and the lines that it logs.
struct Rig {
    desk: Arc<Desk>,
    worker: Shared,
    logged: Arc<Mutex<Vec<String>>>,
}

fn rig() -> Rig {
    let config = Config::parse(Path::new("test"), CONFIG, &Machine::default()).unwrap();
    let worker = Shared::new(8);
    let director = Director::new(&config, vec![worker.clone()]);
    let logged = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&logged);
    let conns = Conns::new(core::slice::from_ref(&worker));
    let rules = Rules::default();
    let desk =
        Desk::new(director, conns, rules, move |line| log.lock().unwrap().push(line.to_owned()));
    Rig { desk: Arc::new(desk), worker, logged }
}

/// A folder of its own for a socket.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn control(&self, mode: u32) -> Control {
        Control {
            socket: self.0.join("below/rvsd.sock"),
            netlink: self.0.join("below/netlink.sock"),
            mode,
            owner: None,
            group: None,
            rules: Rules::default(),
            state: None,
            sync: Sync::Soon,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn key() -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: "203.0.113.1:80".parse().unwrap() }
}

fn add() -> Request {
    Request::AddService {
        service: key(),
        attributes: ServiceAttributes::new("rr", AddressFamily::V4),
    }
}

/// Serves one client on a thread; what the other end says is up to the test.
fn served(rig: &Rig) -> (UnixStream, thread::JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let desk = Arc::clone(&rig.desk);
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (ours, thread::spawn(move || serve_client(&theirs, &desk)))
}

fn until_closed(mut stream: UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

#[test]
fn a_batch_is_answered_in_order_and_every_change_is_logged_with_its_author() {
    let rig = rig();
    let (stream, thread) = served(&rig);
    let mut client = Client::greet(stream).unwrap();
    let list = Request::ListServices { service: None };
    let outcomes = client.batch(&[list.clone(), add(), list, add()]).unwrap();
    let counts: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Reply::Services(services)) => services.len(),
            _ => 99,
        })
        .collect();
    assert_eq!(counts, [0, 99, 1, 99]);
    assert_eq!(outcomes[1], Ok(Reply::Done));
    assert_eq!(outcomes[3].clone().unwrap_err().errno, Errno::Exist);
    drop(client);
    thread.join().unwrap();
    let who = format!("uid {} pid {}", rustix::process::getuid().as_raw(), std::process::id());
    let expected = [
        format!("rvsd: change by {who}: -A -t 203.0.113.1:80 -s rr"),
        format!(
            "rvsd: change by {who}: -A -t 203.0.113.1:80 -s rr (refused: Service already exists)"
        ),
    ];
    assert_eq!(*rig.logged.lock().unwrap(), expected);
}

#[test]
fn another_version_is_told_ours_and_left() {
    let rig = rig();
    let (mut stream, thread) = served(&rig);
    codec::write(&mut stream, &codec::Hello { version: 999 }).unwrap();
    let hello: codec::Hello = codec::read(&mut stream).unwrap();
    assert_eq!(hello.version, rvs_api::VERSION);
    assert!(until_closed(stream).is_empty());
    thread.join().unwrap();
    let logged = rig.logged.lock().unwrap();
    assert!(logged[0].contains("was left: rvsd speaks version"), "{logged:?}");
}

#[test]
fn hostile_octets_end_one_conversation_and_nothing_else() {
    let rig = rig();
    let mut hello = Vec::new();
    codec::write(&mut hello, &codec::Hello { version: rvs_api::VERSION }).unwrap();
    let frame = |json: &[u8]| {
        let mut frame = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(json);
        frame
    };
    let deep = frame(&vec![b'['; 100_000]);
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        vec![0xff; 4],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        hello.clone(),
        [&hello[..], &[0xff; 4]].concat(),
        [&hello[..], &[0, 0, 0, 9, b'x']].concat(),
        [&hello[..], &frame(b"{}")].concat(),
        [&hello[..], &frame(b"[\"delete_everything\"]")].concat(),
        [&hello[..], &frame(&[0xff, 0xfe])].concat(),
        [&hello[..], &deep].concat(),
        [&hello[..], &frame(b"")].concat(),
    ];
    for octets in cases {
        let (mut stream, thread) = served(&rig);
        // It may be left before it has said everything.
        let _left = stream.write_all(&octets);
        let _left = stream.shutdown(std::net::Shutdown::Write);
        // What it was told in between is of no interest.
        let _told = stream.read_to_end(&mut Vec::new());
        thread.join().unwrap();
    }
    let (stream, _thread) = served(&rig);
    assert_eq!(Client::greet(stream).unwrap().call(&add()).unwrap(), Ok(Reply::Done));
}

#[test]
fn a_silent_client_keeps_nobody_waiting() {
    let rig = rig();
    let (mut silent, _thread) = served(&rig);
    codec::greet(&mut silent).unwrap();
    // Half a frame.
    silent.write_all(&[0, 0, 1]).unwrap();
    // Asks for much and takes nothing.
    let (mut greedy, _thread) = served(&rig);
    codec::greet(&mut greedy).unwrap();
    codec::ask(&mut greedy, &vec![Request::GetInfo; 200_000]).unwrap();
    let (stream, _thread) = served(&rig);
    let mut client = Client::greet(stream).unwrap();
    let before = Instant::now();
    assert_eq!(client.call(&add()).unwrap(), Ok(Reply::Done));
    // The silent one has that long.
    assert!(before.elapsed() < FRAME_PATIENCE);
}

#[test]
fn connections_are_listed_page_by_page_from_the_worker() {
    let rig = rig();
    let (stream, thread) = served(&rig);
    let worker = rig.worker.clone();
    let asked = thread::spawn(move || {
        let mut answered = 0;
        while answered < 3 {
            let Some(Command::Dump(mut dump)) = worker.commands.pop() else {
                thread::yield_now();
                continue;
            };
            let rows = if dump.v6 { 0 } else { 600 };
            dump.done = dump.v6 || dump.from == 600;
            dump.from += rows;
            let row = |port| ConnRow {
                protocol: 17,
                state: State::Udp,
                template: None,
                expires: 80,
                age: 0,
                client: ([198, 51, 100, 7], port).into(),
                vip: ([203, 0, 113, 1], 53).into(),
                dest: ([192, 0, 2, 11], 53).into(),
                dest_id: DestId(0),
            };
            dump.rows.extend((1..=600).filter(|_| rows > 0).map(row));
            worker.replies.push(Command::Dump(dump)).unwrap();
            answered += 1;
        }
    });
    let mut client = Client::greet(stream).unwrap();
    let outcomes = client.batch(&[Request::GetInfo, Request::ListConns, Request::GetInfo]).unwrap();
    asked.join().unwrap();
    assert_eq!(outcomes.len(), 3);
    let Ok(Reply::Conns(conns)) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert_eq!(conns.len(), 1200);
    assert_eq!(conns[0].expires_s, 10);
    drop(client);
    thread.join().unwrap();
}

#[test]
fn a_worker_that_does_not_answer_is_an_error_of_that_question_alone() {
    let rig = rig();
    let (stream, _thread) = served(&rig);
    let mut client = Client::greet(stream).unwrap();
    let outcomes = client.batch(&[Request::ListConns, add()]).unwrap();
    let refusal = outcomes[0].clone().unwrap_err();
    assert_eq!(refusal.errno, Errno::Io);
    assert_eq!(refusal.to_string(), "rvsd: worker 0 does not answer");
    assert_eq!(outcomes[1], Ok(Reply::Done));
}

#[test]
fn a_socket_has_the_mode_that_was_asked_for_and_goes_with_the_server() {
    let folder = Folder::new("mode");
    let control = folder.control(0o640);
    let socket = Socket::bind(Kind::Control, &control).unwrap();
    let mode = std::fs::metadata(&control.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let mut server = serve(socket, rig().desk).unwrap();
    Client::connect(&control.socket).unwrap().call(&Request::GetInfo).unwrap().unwrap();
    server.stop();
    assert!(!control.socket.exists());
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
    let folder = Folder::new("stale");
    let control = folder.control(0o600);
    std::fs::create_dir_all(control.socket.parent().unwrap()).unwrap();
    // Its file stays behind, as after SIGKILL.
    drop(UnixListener::bind(&control.socket).unwrap());
    assert!(control.socket.exists());
    let living = Socket::bind(Kind::Control, &control).unwrap();
    let error = Socket::bind(Kind::Control, &control).unwrap_err().to_string();
    assert!(
        error.ends_with("another rvsd serves it: stop that, or set another `socket`"),
        "{error}"
    );
    assert!(control.socket.exists());
    drop(living);
    assert!(!control.socket.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new("file");
    let control = folder.control(0o600);
    std::fs::create_dir_all(control.socket.parent().unwrap()).unwrap();
    std::fs::write(&control.socket, "precious").unwrap();
    let error = Socket::bind(Kind::Control, &control).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read(&control.socket).unwrap(), b"precious");
}

#[test]
fn no_more_than_so_many_clients_are_served_and_a_seat_is_given_back() {
    let folder = Folder::new("seats");
    let control = folder.control(0o600);
    let rig = rig();
    let _server =
        serve(Socket::bind(Kind::Control, &control).unwrap(), Arc::clone(&rig.desk)).unwrap();
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| Client::connect(&control.socket).unwrap()).collect();
    assert!(Client::connect(&control.socket).is_err());
    clients.pop();
    let served_again = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        Client::connect(&control.socket).is_ok()
    });
    assert!(served_again);
}
