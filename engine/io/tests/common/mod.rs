//! What the tests of links share: frames, and a network namespace with a socket at the host's end
//! of a TAP device.

use std::{
    ffi::CString,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// IEEE 802 local experimental: no stack answers it.
pub const ETHERTYPE: u16 = 0x88b5;

/// Frame number `number`, `octets` long (at least 18), from the Ethernet header on.
pub fn frame(number: u32, octets: usize) -> Vec<u8> {
    let header = [[0xff; 6], [2, 0, 0, 0, 0, 7]].concat();
    let mut frame = [&header[..], &ETHERTYPE.to_be_bytes(), &number.to_be_bytes()].concat();
    let pattern = (number..).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes());
    frame.extend(pattern.take(octets - frame.len()));
    frame
}

/// `count` different frames of all lengths from 60 to 1514 octets.
pub fn frames(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(number, 60 + number as usize * 211 % 1455)).collect()
}

/// Says that a test proves nothing here. Not by a macro: the harness would swallow it.
fn skip(why: &str) {
    let test = thread::current();
    let line = format!("skipped {}: {why}\n", test.name().unwrap_or("a test"));
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs `test` on a thread in a network namespace of its own, or says why it cannot.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    // SAFETY: geteuid(2) takes nothing and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return skip("TAP devices in a network namespace need root");
    }
    let alone = move || {
        // SAFETY: unshare(2) takes flags only; CLONE_NEWNET concerns the calling thread alone.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        if done != 0 {
            return skip(&format!("no network namespace: {}", io::Error::last_os_error()));
        }
        if !Path::new("/dev/net/tun").exists() {
            return skip("no /dev/net/tun");
        }
        // The host's end shall be silent. Not there without IPv6, and then it is.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        test();
    };
    let name = thread::current().name().unwrap_or_default().to_owned();
    let thread = thread::Builder::new().name(name).spawn(alone).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The host's end of a TAP device: a packet socket, packet(7).
pub struct Host {
    socket: File,
    /// The address of the device.
    pub mac: [u8; 6],
}

impl Host {
    /// A socket for the frames of [`frame`] on the device `name`.
    pub fn new(name: &str) -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, ETHERTYPE.to_be().into()) };
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was just opened, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);

        // SAFETY: all zeroes is a valid sockaddr_ll: it has numbers only.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETHERTYPE.to_be();
        address.sll_ifindex = index(name);
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is live and `len` octets long.
        let done = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        assert_eq!(done, 0, "bind: {}", io::Error::last_os_error());
        // SAFETY: the place is live, ours, and `len` octets long; the kernel writes no more.
        let done = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut len) };
        assert_eq!(done, 0, "getsockname: {}", io::Error::last_os_error());
        let [a, b, c, d, e, f, ..] = address.sll_addr;
        Self { socket: socket.into(), mac: [a, b, c, d, e, f] }
    }

    /// Sends a frame to the director.
    pub fn send(&self, octets: &[u8]) -> io::Result<()> {
        (&self.socket).write(octets).map(|sent| assert_eq!(sent, octets.len()))
    }

    /// What the director sent: at least `least` frames if they come within twenty seconds.
    pub fn received(&self, least: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let end = Instant::now() + Duration::from_secs(20);
        let mut octets = vec![0; 65536];
        loop {
            match (&self.socket).read(&mut octets) {
                Ok(len) => frames.push(octets[..len].to_vec()),
                // A socket learns once that its device went down, and keeps what it has.
                Err(error) if error.kind() == ErrorKind::NetworkDown => {}
                Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("read: {error}"),
                Err(_) if frames.len() >= least || Instant::now() > end => return frames,
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn set_option(socket: &OwnedFd, level: i32, name: i32, value: i32) {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value is live and `len` octets long.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len)
    };
    assert_eq!(done, 0, "setsockopt: {}", io::Error::last_os_error());
}

fn index(name: &str) -> i32 {
    let name = CString::new(name).unwrap();
    // SAFETY: the name is live and ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "if_nametoindex: {}", io::Error::last_os_error());
    index.try_into().unwrap()
}

/// Runs `ip` with `arguments` in this thread's namespace; `false` when it is not installed.
pub fn ip(arguments: &str) -> bool {
    match std::process::Command::new("ip").args(arguments.split(' ')).status() {
        Ok(status) => {
            assert!(status.success(), "ip {arguments}");
            true
        }
        Err(error) => {
            skip(&format!("ip (iproute2): {error}"));
            false
        }
    }
}

/// Runs `program` with `arguments` in this thread's namespace; `false` when this kernel cannot do it.
pub fn can(program: &str, arguments: &str) -> bool {
    let did = std::process::Command::new(program).args(arguments.split(' ')).status();
    let can = did.is_ok_and(|status| status.success());
    if !can {
        skip(&format!("{program} {arguments}"));
    }
    can
}

/// Makes two devices that are each other's far ends, up; `false` when that is not possible here.
pub fn veth(near: &str, far: &str, mtu: u16) -> bool {
    // Their kernel's end shall be as silent as a TAP's: no address, no protocol.
    ip(&format!("link add {near} mtu {mtu} type veth peer name {far} mtu {mtu}"))
        && ip(&format!("link set {near} up"))
        && ip(&format!("link set {far} up"))
}

/// Makes a TAP device stay when its last queue is dropped, or not.
pub fn persist(queue: &impl AsFd, stay: bool) {
    let fd = queue.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and TUNSETPERSIST takes a number.
    let done = unsafe { libc::ioctl(fd, libc::TUNSETPERSIST, libc::c_ulong::from(stay)) };
    assert_eq!(done, 0, "TUNSETPERSIST: {}", io::Error::last_os_error());
}
