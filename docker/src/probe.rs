//! What curl and nc do not say: servers and clients of a few lines, over the hosts' own stacks.
//!
//! A server has one port number for both: over UDP it sends every datagram back; over TCP it sends
//! every line back, until `bye`, when it closes first, or until the client closes its half, when it
//! tells how many octets came and their sum, and closes too. [`count`] is that sum's way to count.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

/// How long a client waits for an answer before it says that there is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tries of a datagram: the first may tell its sender that it was too long.
const TRIES: u32 = 20;

/// EMSGSIZE.
const TOO_LONG: i32 = 90;

/// A client, or the server of all of them.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Probe {
    /// Serves until it is ended.
    Serve {
        /// TCP and UDP port.
        port: u16,
        /// More TCP ports.
        #[arg(long)]
        also: Vec<u16>,
        /// Addresses that datagrams come to, so that they go back from them.
        #[arg(long)]
        address: Vec<IpAddr>,
    },
    /// Datagrams that must come back as they went.
    Datagrams {
        /// Whom to send them.
        to: SocketAddr,
        /// How many, one after another.
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Octets of each.
        #[arg(long, default_value_t = 64)]
        octets: usize,
    },
    /// One connection with a silence in the middle.
    Idle {
        /// Whom to connect to.
        to: SocketAddr,
        /// The silence.
        #[arg(long)]
        millis: u64,
    },
    /// Connections, one after another, all from one port; the server closes first.
    Reuse {
        /// Whom to connect to.
        to: SocketAddr,
        /// How many.
        #[arg(long, default_value_t = 50)]
        count: u32,
        /// The client's port.
        #[arg(long)]
        from_port: u16,
    },
    /// A connection that the client resets after its first line.
    Reset {
        /// Whom to connect to.
        to: SocketAddr,
    },
    /// Connections, one after another, each with a line back and forth, for a time.
    Fresh {
        /// Whom to connect to.
        to: SocketAddr,
        /// For how long.
        #[arg(long)]
        millis: u64,
    },
    /// One connection that says a line every now and then for a time, and how long the longest wait
    /// for an answer was.
    Steady {
        /// Whom to connect to.
        to: SocketAddr,
        /// For how long.
        #[arg(long)]
        millis: u64,
    },
}

/// Does it, and prints what happened in one line.
///
/// # Errors
///
/// What should come back did not.
pub fn run(probe: &Probe) -> Result<()> {
    match probe {
        Probe::Serve { port, also, address } => serve(*port, also, address),
        Probe::Datagrams { to, count, octets } => datagrams(*to, *count, *octets),
        Probe::Idle { to, millis } => {
            println!("{}", idle(*to, Duration::from_millis(*millis))?);
            Ok(())
        }
        Probe::Reuse { to, count, from_port } => reuse(*to, *count, *from_port),
        Probe::Reset { to } => reset(*to),
        Probe::Fresh { to, millis } => fresh(*to, Duration::from_millis(*millis)),
        Probe::Steady { to, millis } => steady(*to, Duration::from_millis(*millis)),
    }
}

/// The sum that a server tells: of all octets, each times its place.
#[must_use]
pub fn count(octets: &[u8], place: &mut u64, sum: &mut u64) -> usize {
    for octet in octets {
        *place = place.wrapping_add(1);
        *sum = sum.wrapping_add(place.wrapping_mul(u64::from(*octet)));
    }
    octets.len()
}

fn serve(port: u16, also: &[u16], addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let udp = UdpSocket::bind((*address, port)).with_context(|| format!("{address} {port}"))?;
        thread::spawn(move || {
            let mut room = vec![0; 65_536];
            loop {
                if let Ok((len, from)) = udp.recv_from(&mut room) {
                    let _ = udp.send_to(room.get(..len).unwrap_or_default(), from);
                }
            }
        });
    }
    let listener = listen(port)?;
    let others = also.iter().map(|port| listen(*port)).collect::<Result<Vec<_>>>()?;
    eprintln!("probe: ready");
    for other in others {
        thread::spawn(move || accept(&other));
    }
    accept(&listener)
}

/// One socket for both families.
fn listen(port: u16) -> Result<TcpListener> {
    let tcp = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    tcp.set_only_v6(false)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    tcp.listen(1024)?;
    Ok(tcp.into())
}

fn accept(listener: &TcpListener) -> Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that went away is its own business.
        thread::spawn(move || answer(&stream));
    }
    Ok(())
}

fn answer(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut first = reader.fill_buf()?;
    // A client that says lines says short ones.
    let by_line = first.len() < 100 && first.last() == Some(&b'\n') && first.is_ascii();
    if by_line {
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            (&*stream).write_all(line.as_bytes())?;
            if line == "bye\n" {
                return Ok(());
            }
            line.clear();
        }
        return Ok(());
    }
    let (mut place, mut sum) = (0, 0);
    while !first.is_empty() {
        let len = count(first, &mut place, &mut sum);
        reader.consume(len);
        first = reader.fill_buf()?;
    }
    writeln!(&*stream, "{place} octets {sum:x}")?;
    Ok(())
}

fn datagrams(to: SocketAddr, times: u32, octets: usize) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut room = vec![0; 65_536];
    let (mut again, begun) = (0, Instant::now());
    for number in 0..times {
        let tag = number.to_be_bytes();
        let sent: Vec<u8> = tag.into_iter().cycle().zip(0_u8..=250).map(|(a, b)| a ^ b).collect();
        let sent: Vec<u8> = tag.into_iter().chain(sent.into_iter().cycle()).take(octets).collect();
        let mut tries = 0;
        loop {
            ensure!(tries < TRIES, "datagram {number} did not come back");
            again += u32::from(tries > 0);
            tries += 1;
            match socket.send(&sent) {
                Ok(_) => {}
                // The kernel has learnt how long a packet may be, and says so once.
                Err(error) if error.raw_os_error() == Some(TOO_LONG) => continue,
                Err(error) => bail!("sending: {error}"),
            }
            match socket.recv(&mut room) {
                // A late answer to an earlier one.
                Ok(_) if !room.starts_with(&tag) => {}
                Ok(len) => {
                    ensure!(room.get(..len) == Some(&sent), "datagram {number} came back changed");
                    break;
                }
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        || error.raw_os_error() == Some(TOO_LONG) => {}
                Err(error) => bail!("receiving: {error}"),
            }
        }
    }
    let time = begun.elapsed().as_secs_f32();
    // Late answers to what was sent again: to a closed socket the kernel would answer with ICMP errors,
    // which are packets that nobody counts on.
    while again > 0 && socket.recv(&mut room).is_ok() {}
    println!("{times} datagrams of {octets} octets came back, {again} on another try, {time:.2} s");
    Ok(())
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Says `line` and waits for it.
fn echoed(stream: &TcpStream, line: &str) -> Result<(), std::io::Error> {
    (&*stream).write_all(line.as_bytes())?;
    let mut back = vec![0; line.len()];
    (&*stream).read_exact(&mut back)?;
    if back == line.as_bytes() { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn idle(to: SocketAddr, silence: Duration) -> Result<&'static str> {
    let stream = connect(to)?;
    echoed(&stream, "before\n").context("before the silence")?;
    thread::sleep(silence);
    match echoed(&stream, "after\n") {
        Ok(()) => Ok("answered"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok("reset"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok("silence"),
        Err(error) => bail!("after the silence: {error}"),
    }
}

fn reuse(to: SocketAddr, times: u32, from_port: u16) -> Result<()> {
    let domain = Domain::for_address(to);
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], from_port)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, from_port)),
    };
    let begun = Instant::now();
    let once = || -> io::Result<TcpStream> {
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&any.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket.into())
    };
    for number in 0..times {
        let tried = Instant::now();
        let stream = loop {
            match once() {
                // Our own end still waits for the last acknowledgement.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
                    ) && tried.elapsed() < PATIENCE =>
                {
                    thread::sleep(Duration::from_millis(1));
                }
                done => break done.with_context(|| format!("connection {number}"))?,
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        echoed(&stream, "bye\n").with_context(|| format!("connection {number}"))?;
        // The server's end first, so that the port is free at once on this side.
        let end = (&stream).read(&mut [0; 1]).with_context(|| format!("end of {number}"))?;
        ensure!(end == 0, "connection {number}: more than the line");
    }
    println!("{times} connections from port {from_port} in {:.2} s", begun.elapsed().as_secs_f32());
    Ok(())
}

fn reset(to: SocketAddr) -> Result<()> {
    let stream = connect(to)?;
    echoed(&stream, "line\n")?;
    println!("{}", stream.local_addr()?.port());
    // Closing without lingering is a reset.
    Socket::from(stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

fn fresh(to: SocketAddr, time: Duration) -> Result<()> {
    let (begun, mut longest, mut count) = (Instant::now(), Duration::ZERO, 0_u32);
    while begun.elapsed() < time {
        let asked = Instant::now();
        let stream = connect(to).with_context(|| format!("connection {count}"))?;
        echoed(&stream, "hello\n").with_context(|| format!("connection {count}"))?;
        longest = longest.max(asked.elapsed());
        count += 1;
        thread::sleep(Duration::from_millis(5));
    }
    println!("{count} connections, longest {} ms", longest.as_millis());
    Ok(())
}

fn steady(to: SocketAddr, time: Duration) -> Result<()> {
    let stream = connect(to)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    echoed(&stream, "here\n").context("the first line")?;
    eprintln!("probe: steady");
    let (begun, mut longest, mut lines) = (Instant::now(), Duration::ZERO, 0_u32);
    while begun.elapsed() < time {
        let asked = Instant::now();
        echoed(&stream, "still here\n").with_context(|| format!("after {lines} lines"))?;
        longest = longest.max(asked.elapsed());
        lines += 1;
        thread::sleep(Duration::from_millis(10));
    }
    println!("{lines} lines, longest wait {} ms", longest.as_millis());
    Ok(())
}
