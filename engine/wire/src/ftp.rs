//! What FTP says of data connections on its control connection (RFC 959, RFC 2428), as far as a
//! director has to understand it.
//!
//! ```text
//!  client   PASV                           server   227 Entering Passive Mode (192,0,2,11,195,80).
//!           EPSV                                    229 Entering Extended Passive Mode (|||50000|)
//!           PORT 198,51,100,7,156,64
//!           EPRT |2|2001:db8::7|40000|
//! ```
//!
//! Read as Linux 6.1 `ip_vs_ftp.c` reads it, in `ip_vs_ftp_in()`, `ip_vs_ftp_out()` and
//! `ip_vs_ftp_get_addrport()`: a segment at a time, letters of either case. What is cut in two by a
//! segment's end is not understood.
//!
//! DIFFERS from Linux in text that no client or server sends: a number that is too large for its
//! octet or port wraps round there, and nothing stands for 0; here neither is understood.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;
use core::str::FromStr;

/// What a client asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// The server shall say where it listens: `PASV`.
    Passive,
    /// The same without an address: `EPSV`.
    ExtendedPassive,
    /// The client listens: `PORT`, `EPRT`.
    Active(IpAddr, u16),
}

/// Where a server says that it listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Passive {
    /// The octets of the data that say so.
    pub place: Range<usize>,
    /// The address, if there is one.
    pub address: Option<IpAddr>,
    /// The port, never 0.
    pub port: u16,
}

fn begins(data: &[u8], word: &[u8]) -> bool {
    data.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

/// Where in `data` the first run of `mark` ends; or at the first digit, if that may come without.
fn behind(data: &[u8], mark: u8, may_lack: bool) -> Option<usize> {
    let is_there = |octet: &u8| *octet == mark || may_lack && octet.is_ascii_digit();
    let first = data.iter().position(is_there)?;
    let run = data.get(first..)?.iter().take_while(|octet| **octet == mark).count();
    Some(first + run)
}

/// The number that `data` begins with, and how many digits it has.
fn number<N: FromStr>(data: &[u8]) -> Option<(N, usize)> {
    let digits = data.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let text = core::str::from_utf8(data.get(..digits)?).ok()?;
    Some((text.parse().ok()?, digits))
}

/// Address and port as six numbers with commas between them, and how many octets they take. Something
/// follows them, or the segment may end within the last one.
fn six(data: &[u8]) -> Option<(Ipv4Addr, u16, usize)> {
    let (mut numbers, mut at) = ([0_u8; 6], 0);
    for (place, count) in numbers.iter_mut().zip(0..) {
        if count > 0 {
            (data.get(at) == Some(&b',')).then_some(())?;
            at += 1;
        }
        let (number, digits) = number(data.get(at..)?)?;
        *place = number;
        at += digits;
    }
    let [a, b, c, d, e, f] = numbers;
    let port = u16::from_be_bytes([e, f]);
    (at < data.len() && port != 0).then_some((Ipv4Addr::new(a, b, c, d), port, at))
}

/// RFC 2428 section 2: a delimiter, family, address and port, each with a delimiter behind it; the
/// first two may be missing in a reply. With how many octets they take.
fn extended(data: &[u8], is_v6: bool) -> Option<(Option<IpAddr>, u16, usize)> {
    let delimiter = *data.first().filter(|octet| (33..=126).contains(*octet))?;
    let mut fields = data.get(1..)?.splitn(4, |octet| *octet == delimiter);
    let (family, address, port) = (fields.next()?, fields.next()?, fields.next()?);
    // Something follows the last delimiter, or it is the last octet.
    fields.next()?;
    let text = core::str::from_utf8(address).ok()?;
    let parsed = match family {
        b"" if address.is_empty() => None,
        b"1" if !is_v6 => Some(IpAddr::V4(text.parse::<Ipv4Addr>().ok()?)),
        b"2" if is_v6 => Some(IpAddr::V6(text.parse::<Ipv6Addr>().ok()?)),
        _ => return None,
    };
    let (number, digits) = number::<u16>(port)?;
    let octets = 1 + family.len() + 1 + address.len() + 1 + port.len() + 1;
    (digits == port.len() && number != 0).then_some((parsed, number, octets))
}

/// What a client's data asks for, on a control connection of IPv4 or IPv6: wants of passive mode
/// anywhere in it, addresses at its beginning only.
#[must_use]
pub fn command(data: &[u8], is_v6: bool) -> Option<Command> {
    for at in 0..data.len().saturating_sub(b"PASV\r".len()) {
        let line = data.get(at..)?;
        if !is_v6 && begins(line, b"PASV\r\n") {
            return Some(Command::Passive);
        }
        if begins(line, b"EPSV") {
            match line.get(4..)? {
                [b'\r', ..] => return Some(Command::ExtendedPassive),
                [b' ', family, b'\r', ..] => {
                    let is_own = *family == if is_v6 { b'2' } else { b'1' };
                    return is_own.then_some(Command::ExtendedPassive);
                }
                [b' ', ..] => return None,
                _ => {}
            }
        }
    }
    let rest = data.get(4..)?;
    if !is_v6 && begins(data, b"PORT") {
        let (address, port, _) = six(rest.get(behind(rest, b' ', true)?..)?)?;
        return Some(Command::Active(address.into(), port));
    }
    if begins(data, b"EPRT") {
        let (address, port, _) = extended(rest.get(behind(rest, b' ', false)?..)?, is_v6)?;
        return Some(Command::Active(address?, port));
    }
    None
}

/// Where a server's reply says that it listens: to [`Command::Passive`], or to
/// [`Command::ExtendedPassive`] if that `is_extended`.
#[must_use]
pub fn passive(data: &[u8], is_extended: bool, is_v6: bool) -> Option<Passive> {
    let code: &[u8] = if is_extended { b"229 " } else { b"227 " };
    let rest = data.get(code.len()..).filter(|_| begins(data, code))?;
    // The parenthesis is often missing in the older reply.
    let start = code.len() + behind(rest, b'(', !is_extended)?;
    let said = data.get(start..)?;
    let (address, port, octets) = if is_extended {
        extended(said, is_v6)?
    } else {
        let (address, port, octets) = six(said)?;
        (Some(address.into()), port, octets)
    };
    Some(Passive { place: start..start + octets, address, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        let active = |text: &str, port| Some(Command::Active(text.parse().unwrap(), port));
        for (line, wanted) in [
            ("PASV\r\n", Some(Command::Passive)),
            ("pasv\r\n", Some(Command::Passive)),
            ("PASVX\r\n", None),
            ("TYPE I\r\nPASV\r\n", Some(Command::Passive)),
            ("EPSV\r\n", Some(Command::ExtendedPassive)),
            ("EPSV 1\r\n", Some(Command::ExtendedPassive)),
            ("EPSV 2\r\n", None),
            ("EPSV ALL\r\n", None),
            ("PORT 198,51,100,7,156,64\r\n", active("198.51.100.7", 40_000)),
            ("port 198,51,100,7,156\r\n", None),
            ("PORT 198,51,100,7,156,64", None),
            ("PORT 198,51,100,7,0,0\r\n", None),
            ("PORT 198,51,100,256,1,1\r\n", None),
            ("EPRT |1|198.51.100.7|40000|\r\n", active("198.51.100.7", 40_000)),
            ("EPRT   |1|198.51.100.7|40000|\r\n", active("198.51.100.7", 40_000)),
            ("EPRT !2!2001:db8::7!40000!\r\n", None),
            ("EPRT |2|198.51.100.7|40000|\r\n", None),
            ("EPRT |||40000|\r\n", None),
            ("EPRT |1|198.51.100.7|99999|\r\n", None),
            ("NOOP\r\n", None),
            ("", None),
        ] {
            assert_eq!(command(line.as_bytes(), false), wanted, "{line:?}");
        }
        for (line, wanted) in [
            ("PASV\r\n", None),
            ("EPSV\r\n", Some(Command::ExtendedPassive)),
            ("EPSV 2\r\n", Some(Command::ExtendedPassive)),
            ("EPSV 1\r\n", None),
            ("PORT 198,51,100,7,156,64\r\n", None),
            ("EPRT !2!2001:db8::7!40000!\r\n", active("2001:db8::7", 40_000)),
            ("EPRT |1|198.51.100.7|40000|\r\n", None),
        ] {
            assert_eq!(command(line.as_bytes(), true), wanted, "{line:?} over IPv6");
        }
    }

    #[test]
    fn replies_say_where_and_which_octets_say_so() {
        let line = b"227 Entering Passive Mode (10,1,0,2,195,80).\r\n";
        let read = passive(line, false, false).unwrap();
        assert_eq!(&line[read.place.clone()], b"10,1,0,2,195,80");
        assert_eq!((read.address, read.port), (Some("10.1.0.2".parse().unwrap()), 50_000));
        assert_eq!(passive(b"227 10,1,0,2,195,80\r\n", false, false).unwrap().place, 4..19);
        let line = b"229 Entering Extended Passive Mode (|||50000|)\r\n";
        for is_v6 in [false, true] {
            let read = passive(line, true, is_v6).unwrap();
            assert_eq!(&line[read.place.clone()], b"|||50000|");
            assert_eq!((read.address, read.port), (None, 50_000));
        }
        let read = passive(b"229 x (|2|2001:db8::2|50000|)\r\n", true, true).unwrap();
        assert_eq!((read.address, read.place), (Some("2001:db8::2".parse().unwrap()), 7..28));
        for (line, is_extended) in [
            (&b"220 ready\r\n"[..], false),
            (b"227 Entering Passive Mode (10,1,0,2,195).\r\n", false),
            (b"227 Entering Passive Mode (10,1,0,2,195,80", false),
            (b"227 Entering Passive Mode 2 (10,1,0,2,195,80).\r\n", false),
            (b"229 Entering Extended Passive Mode (|||0|)\r\n", true),
            (b"229 Entering Extended Passive Mode |||50000|\r\n", true),
            (b"229 Entering Extended Passive Mode (|2|2001:db8::2|50000|)\r\n", true),
            (b"229 (|||50000", true),
        ] {
            assert_eq!(passive(line, is_extended, false), None);
        }
    }

    #[test]
    fn no_beginning_of_a_line_and_no_octet_in_it_makes_it_panic() {
        let lines = [
            "PORT 198,51,100,7,156,64\r\n",
            "EPRT |2|2001:db8::7|40000|\r\n",
            "EPSV 1\r\n",
            "227 Entering Passive Mode (10,1,0,2,195,80).\r\n",
            "229 Entering Extended Passive Mode (|||50000|)\r\n",
        ];
        for line in lines {
            for end in 0..line.len() {
                for octet in 0..=u8::MAX {
                    let mut data = line.as_bytes().to_vec();
                    data[end] = octet;
                    data.truncate(end + usize::from(octet % 7));
                    for is_v6 in [false, true] {
                        let _either = command(&data, is_v6);
                        for is_extended in [false, true] {
                            let said = passive(&data, is_extended, is_v6);
                            assert!(said.is_none_or(|said| said.place.end <= data.len()));
                        }
                    }
                }
            }
        }
    }
}
