//! A netlink socket with a table of rvsd's behind it, and programs that are run in front of it.
#![allow(dead_code, reason = "every test has its own need of it")]

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    listen, recv, send, socket_with,
};
use rvs_api::{Access, Outcome, Reply, Request, ServiceAttributes, ServiceKey};
use rvs_control::state::{Limits, NoTraffic, State};
use rvs_netlink::{Answer, REQUEST_OCTETS_MAX, files::Written};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A folder with a netlink socket, behind which a table is; and programs.
pub struct Bench {
    pub folder: PathBuf,
    state: Arc<Mutex<State>>,
    connections: Arc<AtomicUsize>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

struct Table(Arc<Mutex<State>>);

impl rvs_netlink::Table for Table {
    fn service(&self, service: &ServiceKey) -> Option<ServiceAttributes> {
        Some(self.0.lock().unwrap().service(service)?.attributes().clone())
    }

    fn carry_out(&mut self, request: Request) -> Outcome {
        match request {
            Request::ListConns => Ok(Reply::Conns(Vec::new())),
            request => self.0.lock().unwrap().apply(request, &NoTraffic),
        }
    }
}

fn serve(client: &OwnedFd, mut table: Table) {
    let mut written: Option<Written> = None;
    loop {
        let mut datagram = vec![0; REQUEST_OCTETS_MAX];
        let (len, _) =
            recv(client, datagram.as_mut_slice(), RecvFlags::empty()).unwrap_or_default();
        if len == 0 {
            return;
        }
        datagram.truncate(len);
        let answers = if let Some(file) = &written {
            file.write(&datagram, &mut table)
        } else {
            match rvs_netlink::answer(&datagram, Access::Change, &mut table).unwrap() {
                Answer::Datagrams(datagrams) => datagrams,
                Answer::Conns(conns) => conns.end(Ok(())),
                Answer::Written(datagrams, file) => {
                    written = Some(file);
                    datagrams
                }
            }
        };
        for answer in answers {
            if send(client, &answer, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

impl Bench {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvs-run-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let limits = Limits { services: 64, dests: 256, conns: 4096 };
        Self {
            folder,
            state: Arc::new(Mutex::new(State::new(limits))),
            connections: Arc::default(),
        }
    }

    /// The same with somebody behind its socket.
    pub fn served(name: &str) -> Self {
        let bench = Self::new(name);
        let (unix, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let listener = socket_with(unix, SocketType::SEQPACKET, flags, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(bench.folder.join("netlink")).unwrap()).unwrap();
        listen(&listener, 128).unwrap();
        let (state, connections) = (Arc::clone(&bench.state), Arc::clone(&bench.connections));
        thread::spawn(move || {
            while let Ok(client) = accept(&listener) {
                connections.fetch_add(1, Ordering::Relaxed);
                let table = Table(Arc::clone(&state));
                thread::spawn(move || serve(&client, table));
            }
        });
        bench
    }

    /// How many were made to it so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// `client.c`, compiled.
    pub fn client(&self, flags: &[&str]) -> PathBuf {
        let program = self.folder.join("client");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Werror", "-pthread"]).args(flags).arg("-o").arg(&program);
        assert!(cc.arg(source).status().unwrap().success());
        program
    }

    pub fn run(&self, command: &mut Command) -> Output {
        command.env("RVS_NETLINK", self.folder.join("netlink")).output().unwrap()
    }

    pub fn seccomp(&self, program: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-run"));
        self.run(command.arg("--seccomp").arg(program).args(words))
    }

    pub fn preloaded(&self, program: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rvs-run"));
        self.run(command.env("RVS_PRELOAD", library()).arg(program).args(words))
    }

    /// How many sysctls there are.
    pub fn sysctls(&self) -> usize {
        let all = Request::ListTunables { name: None };
        match self.state.lock().unwrap().apply(all, &NoTraffic).unwrap() {
            Reply::Tunables(list) => list.len(),
            other => unreachable!("{other:?}"),
        }
    }

    pub fn sloppy_tcp(&self) -> String {
        self.state.lock().unwrap().sysctls().get("sloppy_tcp").unwrap().into_owned()
    }
}

/// The library; cargo builds none for tests of its package.
fn library() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--profile", "test", "-p", "rvs-preload", "--lib"]);
    assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    Path::new(env!("CARGO_BIN_EXE_rvs-run")).with_file_name("librvs_preload.so")
}

#[track_caller]
pub fn assert_well(what: &str, output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{what}: {output:?}");
}

/// The same where nobody serves, which `rvs-run` tells first.
#[track_caller]
pub fn assert_well_alone(what: &str, output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.starts_with("rvs-run: no rvsd at "), "{what}: {told}");
    assert_eq!(told.lines().count(), 1, "{what}: {told}");
}
