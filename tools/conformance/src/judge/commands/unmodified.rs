//! Debian's own ipvsadm, unmodified, in front of the table.
//!
//! ```text
//!  ipvsadm + librvs_preload.so ──netlink socket in a folder of its own──► rvs_netlink ─► Table
//!  └ in a mount namespace whose /etc/hosts and /etc/services are the recorded machine's
//! ```

use super::Table;
use super::names::RecordedNames;
use crate::stage::Ran;
use crate::tally::Failure;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rvs_api::{Access, Outcome, Reply, Request, ServiceAttributes, ServiceKey};
use rvs_netlink::Answer;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, thread};

const PROGRAM: &str = "/usr/sbin/ipvsadm";
const LIBRARY: &str = "librvs_preload.so";
/// In the namespace: the names, then the command, which prints its own name.
const IN_NAMESPACE: &str = "mount --bind \"$0/hosts\" /etc/hosts \
    && mount --bind \"$0/services\" /etc/services \
    && mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf \
    && LD_PRELOAD=\"$RVS_PRELOAD\" exec ipvsadm \"$@\"";
/// Between two looks whether the command has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The program, and what it needs to come here.
#[derive(Debug)]
pub(super) struct Ipvsadm {
    folder: PathBuf,
    library: PathBuf,
    listener: OwnedFd,
}

impl Ipvsadm {
    /// `None`, and why, where it cannot be run.
    pub(super) fn find() -> Result<Self, &'static str> {
        let library = library().ok_or("librvs_preload.so is not built")?;
        if !Path::new(PROGRAM).exists() {
            return Err("ipvsadm is not installed");
        }
        if !rustix::process::geteuid().is_root() {
            return Err("ipvsadm and mount namespaces take root");
        }
        let folder = env::temp_dir().join(format!("rvs-ipvsadm-{}", std::process::id()));
        let listen = || -> std::io::Result<OwnedFd> {
            fs::create_dir_all(&folder)?;
            let path = folder.join("netlink.sock");
            let _none_before = fs::remove_file(&path);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let kind = SocketType::SEQPACKET;
            let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
            rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
            rustix::net::listen(&listener, 16)?;
            Ok(listener)
        };
        let listener = listen().map_err(|_| "there is no socket for it")?;
        Ok(Self { folder, library, listener })
    }

    /// Runs one command on `table`.
    pub(super) fn run(
        &self,
        table: &mut Table,
        args: &str,
        stdin: &str,
        names: &RecordedNames,
    ) -> Result<Ran, Failure> {
        let mut run = || -> std::io::Result<Ran> {
            fs::write(self.folder.join("hosts"), names.hosts_file())?;
            fs::write(self.folder.join("services"), RecordedNames::services_file())?;
            fs::write(self.folder.join("nsswitch.conf"), "hosts: files\nservices: files\n")?;
            let mut child = Command::new("unshare")
                .args(["--mount", "sh", "-c", IN_NAMESPACE])
                .arg(&self.folder)
                .args(args.split_ascii_whitespace())
                .env("RVS_PRELOAD", &self.library)
                .env("RVS_NETLINK", self.folder.join("netlink.sock"))
                .env("LC_ALL", "C")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                // It may end without reading any.
                let _unread = pipe.write_all(stdin.as_bytes());
            }
            let waiting = thread::spawn(move || child.wait_with_output());
            self.serve(table, || waiting.is_finished());
            let output = waiting.join().map_err(|_| std::io::Error::other("it panicked"))??;
            Ok(Ran {
                status: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        };
        run().map_err(|error| Failure::new(format!("ipvsadm {args}: {error}")))
    }

    /// Serves whoever comes until `ended`.
    fn serve(&self, table: &mut Table, ended: impl Fn() -> bool) {
        let mut clients: Vec<OwnedFd> = Vec::new();
        while !ended() {
            let all = core::iter::once(&self.listener).chain(&clients);
            let mut sockets: Vec<_> = all.map(|it| PollFd::new(it, PollFlags::IN)).collect();
            let look = Timespec::try_from(LOOK).ok();
            let _interrupted = poll(&mut sockets, look.as_ref());
            let mut ready = sockets.iter().map(|it| !it.revents().is_empty());
            let knocks = ready.next().unwrap_or(false);
            let ready: Vec<bool> = ready.collect();
            let mut ready = ready.into_iter();
            clients.retain(|client| !ready.next().unwrap_or(false) || serve(client, table));
            if knocks {
                let accepted = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC);
                clients.extend(accepted.ok());
            }
        }
    }
}

impl Drop for Ipvsadm {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// Beside this program, where cargo puts both.
fn library() -> Option<PathBuf> {
    let library = env::current_exe().ok()?.parent()?.join(LIBRARY);
    library.exists().then_some(library)
}

/// Answers one datagram, and says whether the client is still there.
fn serve(client: &OwnedFd, table: &mut Table) -> bool {
    let mut datagram = vec![0; rvs_netlink::REQUEST_OCTETS_MAX];
    let request = match rustix::net::recv(client, datagram.as_mut_slice(), RecvFlags::empty()) {
        Ok((len, _)) if len > 0 => datagram.get(..len).unwrap_or_default(),
        _ => return false,
    };
    let datagrams = match rvs_netlink::answer(request, Access::Change, table) {
        Ok(Answer::Datagrams(datagrams)) => datagrams,
        Ok(Answer::Conns(mut conns)) => {
            let mut datagrams = conns.list(&table.counted.conns);
            datagrams.append(&mut conns.end(Ok(())));
            datagrams
        }
        Ok(Answer::Written(..)) | Err(_) => return false,
    };
    // ipvsadm may go without reading an acknowledgement.
    datagrams.iter().all(|it| rustix::net::send(client, it, SendFlags::NOSIGNAL).is_ok())
}

impl rvs_netlink::Table for Table {
    fn service(&self, service: &ServiceKey) -> Option<ServiceAttributes> {
        Some(self.state.service(service)?.attributes().clone())
    }

    fn carry_out(&mut self, request: Request) -> Outcome {
        match request {
            Request::ListConns => Ok(Reply::Conns(self.counted.conns.clone())),
            request => self.state.apply(request, &self.counted),
        }
    }
}
