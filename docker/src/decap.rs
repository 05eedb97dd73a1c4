//! A real server's end of LVS-TUN where the kernel has no `ipip`, `gre` or `fou` device.
//!
//! ```text
//!  eth0 ── kernel: outer header, reassembly ──► raw or UDP socket ── strip, check ──► raw socket ──► lo ── VIP
//! ```
//!
//! Raw sockets for IP protocols 4, 41 and 47 (GRE) over both families and UDP sockets for GUE, whose
//! checksum the kernel checks, get what the director sent; the packet
//! inside, unchanged, goes out of a raw socket that takes whole packets. Its destination, the VIP, is
//! an address of this host, so the kernel delivers it over `lo` to whoever listens there.
//!
//! The kernel writes the header checksum of IPv4 packets from such a socket itself. So that a wrong
//! one does not go unseen, it is checked here; checksums of TCP and UDP are the receiver's business.
//!
//! A kernel whose `tunnel4` module is loaded answers such packets with port unreachable besides,
//! when it has no tunnel device for them: use that device there.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

use crate::topology::Family;

/// IANA protocol number of IPv4 in IP (RFC 2003).
const IPIP: i32 = 4;
/// IANA protocol number of IPv6 in IP (RFC 2473).
const IPV6: i32 = 41;
/// IANA protocol number of generic routing encapsulation (RFC 2784).
const GRE: i32 = 47;
/// Where GUE is taken out: IANA's port for it.
const GUE_PORT: u16 = 6080;
/// Sends packets that begin with their IP header; receives nothing.
const RAW: i32 = 255;

/// Unwraps what reaches this network namespace, until a socket fails.
///
/// # Errors
///
/// A socket could not be opened (it takes root), or failed.
pub fn run() -> Result<()> {
    let mut threads = Vec::new();
    for outer in Family::ALL {
        for (protocol, wrapping) in
            [(IPIP, Wrapping::Ip), (IPV6, Wrapping::Ip), (GRE, Wrapping::Gre)]
        {
            let from = Socket::new(domain(outer), Type::RAW, Some(Protocol::from(protocol)));
            let from = from.context("raw socket for a tunnel")?;
            let injector = Injector::open()?;
            threads.push(thread::spawn(move || unwrap(&from, &injector, (outer, wrapping))));
        }
        let (from, injector) = (gue_socket(outer)?, Injector::open()?);
        threads.push(thread::spawn(move || unwrap(&from, &injector, (outer, Wrapping::Gue))));
    }
    // A UDP socket over IPv6 gets nothing that comes without a checksum, which `--tun-nocsum` asks for.
    let from = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::UDP))?;
    let injector = Injector::open()?;
    threads.push(thread::spawn(move || {
        unwrap(&from, &injector, (Family::V6, Wrapping::GueWithoutChecksum))
    }));
    eprintln!("decap: ready");
    // None of them ends but by an error, so the first that is looked at may not be the one that
    // failed; the others go on serving.
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

const fn domain(family: Family) -> Domain {
    match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    }
}

fn gue_socket(outer: Family) -> Result<Socket> {
    let socket = Socket::new(domain(outer), Type::DGRAM, Some(Protocol::UDP))?;
    let any = match outer {
        Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, GUE_PORT)),
        Family::V6 => {
            socket.set_only_v6(true)?;
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, GUE_PORT))
        }
    };
    socket.bind(&any.into()).context("UDP socket for GUE")?;
    Ok(socket)
}

/// What stands between the outer IP header and the packet.
#[derive(Clone, Copy, Debug)]
enum Wrapping {
    /// Nothing.
    Ip,
    /// RFC 2784, with or without a checksum.
    Gre,
    /// UDP, which the kernel takes off, and four octets.
    Gue,
    /// UDP without a checksum, and four octets. Other datagrams are not for us.
    GueWithoutChecksum,
}

fn unwrap(mut from: &Socket, injector: &Injector, how: (Family, Wrapping)) -> Result<()> {
    let mut room = vec![0; 65_536];
    loop {
        let len = from.read(&mut room)?;
        let stripped = strip(how, room.get(..len).unwrap_or_default());
        if stripped == Err(Refused::NotOurs) {
            continue;
        }
        let sent = stripped
            .and_then(Inner::parse)
            .map_err(|refused| anyhow!(refused))
            .and_then(|inner| Ok(injector.send(&inner)?));
        if let Err(error) = sent {
            eprintln!("decap: dropped a packet: {error:#}");
        }
    }
}

/// Sockets that take whole packets, one for each family.
struct Injector {
    v4: Socket,
    v6: Socket,
}

impl Injector {
    fn open() -> Result<Self> {
        let open = |family| {
            Socket::new(domain(family), Type::RAW, Some(Protocol::from(RAW))).context("raw socket")
        };
        Ok(Self { v4: open(Family::V4)?, v6: open(Family::V6)? })
    }

    fn send(&self, inner: &Inner<'_>) -> io::Result<usize> {
        let socket = if inner.to.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.send_to(inner.packet, &inner.to.into())
    }
}

/// Why a packet is not delivered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refused {
    /// Another thread's, or another program's.
    NotOurs,
    /// Ends within a header.
    Truncated,
    /// The inner packet is neither IPv4 nor IPv6.
    Version,
    /// Not a header that a director of LVS writes.
    Wrapping,
    /// The checksum of GRE is wrong.
    Checksum,
    /// The inner IPv4 header's checksum is wrong.
    HeaderChecksum,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotOurs => "not ours",
            Self::Truncated => "truncated",
            Self::Version => "neither IPv4 nor IPv6 inside",
            Self::Wrapping => "not wrapped as a director wraps",
            Self::Checksum => "wrong checksum of GRE",
            Self::HeaderChecksum => "wrong checksum of the inner IPv4 header",
        })
    }
}

/// What follows the outer headers. Over IPv6 a raw socket hands over just that.
fn strip((outer, wrapping): (Family, Wrapping), packet: &[u8]) -> Result<&[u8], Refused> {
    let payload = match (outer, wrapping) {
        (Family::V4, Wrapping::Ip | Wrapping::Gre) => {
            packet.get(ipv4_header_len(packet)?..).ok_or(Refused::Truncated)?
        }
        _ => packet,
    };
    match wrapping {
        Wrapping::Ip => Ok(payload),
        Wrapping::Gre => strip_gre(payload),
        Wrapping::Gue => strip_gue(payload),
        Wrapping::GueWithoutChecksum => match payload {
            [_, _, high, low, _, _, 0, 0, rest @ ..]
                if u16::from_be_bytes([*high, *low]) == GUE_PORT =>
            {
                strip_gue(rest)
            }
            _ => Err(Refused::NotOurs),
        },
    }
}

fn strip_gue(payload: &[u8]) -> Result<&[u8], Refused> {
    match payload {
        [0, 4 | 41, 0, 0, packet @ ..] => Ok(packet),
        _ => Err(Refused::Wrapping),
    }
}

fn strip_gre(payload: &[u8]) -> Result<&[u8], Refused> {
    match payload {
        [0, 0, 0x08, 0x00, packet @ ..] | [0, 0, 0x86, 0xdd, packet @ ..] => Ok(packet),
        [0x80, 0, 0x08, 0x00, _, _, 0, 0, packet @ ..]
        | [0x80, 0, 0x86, 0xdd, _, _, 0, 0, packet @ ..] => {
            if ones_complement_sum(payload) == 0xffff { Ok(packet) } else { Err(Refused::Checksum) }
        }
        _ => Err(Refused::Wrapping),
    }
}

fn ipv4_header_len(packet: &[u8]) -> Result<usize, Refused> {
    let first = packet.first().ok_or(Refused::Truncated)?;
    Ok(usize::from(first & 0x0f) * 4)
}

/// The packet inside, and where it goes.
struct Inner<'p> {
    packet: &'p [u8],
    to: SocketAddr,
}

impl<'p> Inner<'p> {
    fn parse(packet: &'p [u8]) -> Result<Self, Refused> {
        let first = packet.first().ok_or(Refused::Truncated)?;
        let to = match first >> 4 {
            4 => {
                let header = packet.get(..ipv4_header_len(packet)?).ok_or(Refused::Truncated)?;
                if ones_complement_sum(header) != 0xffff {
                    return Err(Refused::HeaderChecksum);
                }
                SocketAddr::from((Ipv4Addr::from(field::<4>(header, 16)?), 0))
            }
            6 => SocketAddr::from((Ipv6Addr::from(field::<16>(packet, 24)?), 0)),
            _ => return Err(Refused::Version),
        };
        Ok(Self { packet, to })
    }
}

fn field<const N: usize>(octets: &[u8], at: usize) -> Result<[u8; N], Refused> {
    let rest = octets.get(at..).ok_or(Refused::Truncated)?;
    rest.first_chunk().copied().ok_or(Refused::Truncated)
}

/// RFC 1071: all ones over a header with a right checksum in it. Not `rvs_wire`'s: what checks
/// rvs here must not be rvs.
fn ones_complement_sum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| match *pair {
        [high, low] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        _ => 0,
    });
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 1071 has no header as example; this one is worked by hand: 203.0.113.1 from 198.51.100.7.
    const INNER: [u8; 20] =
        [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 198, 51, 100, 7, 203, 0, 113, 1];

    fn with_checksum(mut header: [u8; 20]) -> [u8; 20] {
        let sum = !ones_complement_sum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn an_outer_header_with_options_is_stripped_whole() {
        let mut packet = vec![0x46; 24];
        packet.extend(with_checksum(INNER));
        let inner = Inner::parse(strip((Family::V4, Wrapping::Ip), &packet).unwrap()).unwrap();
        assert_eq!(inner.packet, with_checksum(INNER));
        assert_eq!(inner.to, "203.0.113.1:0".parse().unwrap());
    }

    #[test]
    fn a_wrong_inner_header_checksum_is_refused() {
        let mut header = with_checksum(INNER);
        header[8] -= 1;
        assert_eq!(Inner::parse(&header).err(), Some(Refused::HeaderChecksum));
    }

    #[test]
    fn ipv6_goes_to_its_destination() {
        let mut packet = [0; 40];
        packet[0] = 0x60;
        packet[24..40].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(Inner::parse(&packet).unwrap().to, "[2001:db8::1]:0".parse().unwrap());
    }

    #[test]
    fn every_truncation_is_refused() {
        let header = with_checksum(INNER);
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        for packet in [&header[..], &v6[..]] {
            for len in 0..packet.len() {
                assert_eq!(Inner::parse(&packet[..len]).err(), Some(Refused::Truncated), "{len}");
            }
        }
        assert_eq!(strip((Family::V4, Wrapping::Ip), &[0x45; 19]), Err(Refused::Truncated));
    }

    #[test]
    fn gre_and_gue_are_taken_off_and_a_wrong_checksum_refused() {
        let gue = |packet| strip((Family::V4, Wrapping::Gue), packet);
        assert_eq!(gue(&[0, 4, 0, 0, 1, 2]), Ok(&[1, 2][..]));
        assert_eq!(gue(&[0x20, 4, 0, 0, 1, 2]), Err(Refused::Wrapping));
        let gre = |packet| strip((Family::V6, Wrapping::Gre), packet);
        assert_eq!(gre(&[0, 0, 8, 0, 1, 2]), Ok(&[1, 2][..]));
        // 0x8000 + 0x0800 + 0x0102 is 0x8902; its complement 0x76fd.
        assert_eq!(gre(&[0x80, 0, 8, 0, 0x76, 0xfd, 0, 0, 1, 2]), Ok(&[1, 2][..]));
        assert_eq!(gre(&[0x80, 0, 8, 0, 0x76, 0xfc, 0, 0, 1, 2]), Err(Refused::Checksum));
        assert_eq!(gre(&[0x20, 0, 8, 0, 0, 0, 0, 0, 1, 2]), Err(Refused::Wrapping));
    }

    #[test]
    fn anything_else_is_refused_by_version() {
        assert_eq!(Inner::parse(&[0x50; 60]).err(), Some(Refused::Version));
    }
}
