//! Numbers, addresses and flags as ipvsadm reads them: strtol(3), `inet_aton(3)` and what it makes
//! of them.

use crate::names::Names;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use rvs_api::ServiceFlags;
use rvs_model::Protocol;

/// strtol(3) in base ten: the number and what follows it. A number that does not fit is the nearest
/// that does; that is all anybody here needs to know of it.
fn leading_number(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start_matches(is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end)?;
    if digits.is_empty() {
        return None;
    }
    let magnitude = digits.parse().unwrap_or(i64::MAX);
    Some((if negative { magnitude.saturating_neg() } else { magnitude }, rest))
}

/// isspace(3) in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// A whole word that is a number of `min` to `max`.
pub(crate) fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    let (number, "") = leading_number(text)? else { return None };
    u32::try_from(number).ok().filter(|number| (min..=max).contains(number))
}

/// atoi(3): whatever follows the number is ignored, and no number is zero.
pub(crate) fn lenient_number(text: &str) -> i64 {
    leading_number(text).map_or(0, |(number, _)| number)
}

/// `inet_aton(3)`: one to four parts, each decimal, octal or hexadecimal; the last one fills what is
/// left. White space ends it.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let end = text.find(is_space).unwrap_or(text.len());
    let parts: Vec<&str> = text.get(..end)?.split('.').collect();
    let (last, before) = parts.split_last()?;
    let room = 32_u32.checked_sub(u32::try_from(before.len()).ok()?.checked_mul(8)?)?;
    let mut address: u32 = 0;
    for part in before {
        address = address << 8 | c_number(part).filter(|part| *part <= 0xff)?;
    }
    let last = c_number(last)?;
    if room == 0 || u64::from(last) >> room != 0 {
        return None;
    }
    let address = address.checked_shl(room).unwrap_or(0) | last;
    Some(Ipv4Addr::from_bits(address))
}

/// strtoul(3) in base zero, without sign or space.
fn c_number(text: &str) -> Option<u32> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match (hex, text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    let all_digits = digits.chars().all(|c| c.is_digit(radix));
    u32::from_str_radix(digits, radix).ok().filter(|_| all_digits)
}

/// An IPv4 address, or the name of one.
pub(crate) fn host(text: &str, names: &dyn Names) -> Option<Ipv4Addr> {
    inet_aton(text).or_else(|| names.address(text))
}

/// What `-t` and `-r` take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HostPort {
    pub(crate) address: IpAddr,
    /// `None` when it was not said.
    pub(crate) port: Option<u16>,
}

/// `host[:port]`, `[ipv6]:port` or a bare IPv6 address, which has no port. In brackets an IPv4 host
/// loses its port, as ipvsadm loses it.
pub(crate) fn host_port(
    text: &str,
    protocol: Option<Protocol>,
    names: &dyn Names,
) -> Option<HostPort> {
    if text.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let (text, behind) = match text.strip_prefix('[') {
        Some(inner) => {
            let (inner, behind) = inner.split_once(']')?;
            (inner, Some(behind.strip_prefix(':')?))
        }
        None => (text, None),
    };
    let (address, port) = if let Ok(address) = text.parse::<Ipv6Addr>() {
        (address.into(), behind)
    } else {
        let (text, port) = match text.rsplit_once(':') {
            Some((text, port)) => (text, Some(port)),
            None => (text, None),
        };
        (host(text, names)?.into(), port)
    };
    let port = match port {
        Some(port) => Some(self::port(port, protocol, names)?),
        None => None,
    };
    Some(HostPort { address, port })
}

fn port(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<u16> {
    match number(text, 0, u32::from(u16::MAX)) {
        Some(port) => u16::try_from(port).ok(),
        None => names.port(text, protocol?),
    }
}

/// What is wrong with a list of scheduler flags.
pub(crate) fn scheduler_flags(scheduler: &str, list: &str) -> Result<ServiceFlags, String> {
    let mut flags = ServiceFlags::default();
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let (flag, only_of) = match word {
            "flag-1" => (ServiceFlags::SCHEDULER_1, None),
            "flag-2" => (ServiceFlags::SCHEDULER_2, None),
            "flag-3" => (ServiceFlags::SCHEDULER_3, None),
            "sh-fallback" => (ServiceFlags::SCHEDULER_1, Some("sh")),
            "sh-port" => (ServiceFlags::SCHEDULER_2, Some("sh")),
            "mh-fallback" => (ServiceFlags::SCHEDULER_1, Some("mh")),
            "mh-port" => (ServiceFlags::SCHEDULER_2, Some("mh")),
            _ => return Err(format!("invalid scheduler flag `{word}'")),
        };
        if only_of.is_some_and(|name| name != scheduler) {
            return Err(format!("incompatible scheduler flag `{word}'"));
        }
        flags = flags.with(flag);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FewNames;

    impl Names for FewNames {
        fn address(&self, host: &str) -> Option<Ipv4Addr> {
            (host == "vip.example").then_some(Ipv4Addr::new(203, 0, 113, 1))
        }

        fn host(&self, _: IpAddr) -> Option<String> {
            None
        }

        fn port(&self, service: &str, protocol: Protocol) -> Option<u16> {
            (service == "http" && protocol == Protocol::Tcp).then_some(80)
        }

        fn service(&self, _: u16, _: Protocol) -> Option<String> {
            None
        }
    }

    fn tcp(text: &str) -> Option<(String, Option<u16>)> {
        host_port(text, Some(Protocol::Tcp), &FewNames)
            .map(|found| (found.address.to_string(), found.port))
    }

    #[test]
    fn numbers_are_whole_words_in_a_range() {
        for (text, expected) in [
            ("0", Some(0)),
            (" \t+7", Some(7)),
            ("-0", Some(0)),
            ("100", Some(100)),
            ("101", None),
            ("-1", None),
            ("7 ", None),
            ("", None),
            ("+", None),
            ("0x1", None),
            ("99999999999999999999", None),
            ("-99999999999999999999", None),
        ] {
            assert_eq!(number(text, 0, 100), expected, "{text:?}");
        }
        assert_eq!((lenient_number("64abc"), lenient_number("abc")), (64, 0));
    }

    #[test]
    fn addresses_are_read_as_inet_aton_reads_them() {
        for (text, expected) in [
            ("192.0.2.1", Some([192, 0, 2, 1])),
            ("24", Some([0, 0, 0, 24])),
            ("10.1", Some([10, 0, 0, 1])),
            ("10.1.256", Some([10, 1, 1, 0])),
            ("0x7f.0.0.010", Some([127, 0, 0, 8])),
            ("4294967295", Some([255, 255, 255, 255])),
            ("192.0.2.1 x", Some([192, 0, 2, 1])),
            ("4294967296", None),
            ("1.2.3.256", None),
            ("1.2.3.4.5", None),
            ("1.2.3.", None),
            (".1", None),
            ("08", None),
            ("0x", None),
            ("1e2", None),
            ("", None),
        ] {
            assert_eq!(inet_aton(text), expected.map(Ipv4Addr::from), "{text:?}");
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, address, port) in [
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("192.0.2.1:http", "192.0.2.1", Some(80)),
            ("vip.example:0", "203.0.113.1", Some(0)),
            ("vip.example", "203.0.113.1", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("2001:db8::1", "2001:db8::1", None),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1", None),
            ("[192.0.2.1]:80", "192.0.2.1", None),
        ] {
            assert_eq!(tcp(text), Some((address.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            "80",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.1:nosuch",
            "[2001:db8::1]",
            "[2001:db8::1",
            "[2001:db8::1]80",
            "nosuch.example:80",
            ":80",
        ] {
            assert_eq!(tcp(text), None, "{text}");
        }
        assert_eq!(host_port("192.0.2.1:http", None, &FewNames), None);
    }

    #[test]
    fn flags_belong_to_their_scheduler() {
        let flags = scheduler_flags("sh", "sh-port,,flag-3").unwrap();
        assert_eq!(flags, ServiceFlags::SCHEDULER_2.with(ServiceFlags::SCHEDULER_3));
        assert_eq!(
            scheduler_flags("wlc", "sh-port").unwrap_err(),
            "incompatible scheduler flag `sh-port'"
        );
        assert_eq!(scheduler_flags("sh", "x").unwrap_err(), "invalid scheduler flag `x'");
    }
}
