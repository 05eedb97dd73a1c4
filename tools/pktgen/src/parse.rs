//! The words of the command line that are more than a number: ranges, rates, sizes, mixtures.

use crate::scenario::{Choice, Kind, SIZE_MAX, SIZE_MIN, WIRE_OVERHEAD};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// Neighbouring addresses: `198.51.100.10-198.51.100.99`, or one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// The first.
    pub first: IpAddr,
    /// How many.
    pub count: u32,
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is no range of addresses, expected one like 192.0.2.1-192.0.2.99");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first: IpAddr = first.parse().map_err(|_| expected())?;
        let last: IpAddr = last.parse().map_err(|_| expected())?;
        let span = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                u128::from(last.to_bits()).checked_sub(first.to_bits().into())
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().checked_sub(first.to_bits()),
            _ => None,
        };
        let span = span.ok_or_else(expected)?;
        let count = u32::try_from(span + 1).ok().filter(|count| *count <= 1 << 24);
        let count = count.ok_or_else(|| format!("{text:?} has more than 2^24 addresses"))?;
        Ok(Self { first, count })
    }
}

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Packets a second.
    Packets(f64),
    /// Bits a second on the wire: with check sequence, preamble and the gap between frames.
    Bits(f64),
    /// As fast as the link takes them.
    Max,
}

impl Rate {
    /// Packets a second, where frames have `mean_octets` with their check sequence; `None` for as
    /// fast as possible.
    #[must_use]
    pub fn packets(self, mean_octets: f64) -> Option<f64> {
        match self {
            Self::Packets(packets) => Some(packets),
            Self::Bits(bits) => Some(bits / (8.0 * (mean_octets + f64::from(WIRE_OVERHEAD)))),
            Self::Max => None,
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let expected =
            || format!("{text:?} is no rate, expected one like 250kpps, 1.5Mpps, 2Gbit/s or max");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).ok_or_else(expected)?;
        let number: f64 = number.parse().map_err(|_| expected())?;
        let (scale, unit) = match unit.split_at_checked(1) {
            Some(("k", unit)) => (1e3, unit),
            Some(("M", unit)) => (1e6, unit),
            Some(("G", unit)) => (1e9, unit),
            _ => (1.0, unit),
        };
        let number = number * scale;
        let rate = match unit {
            "pps" | "p/s" | "" => Self::Packets(number),
            "bit/s" | "bps" | "bit" => Self::Bits(number),
            _ => return Err(expected()),
        };
        if (1.0..=1e12).contains(&number) { Ok(rate) } else { Err(expected()) }
    }
}

/// Frame sizes, their check sequence included: `64`, `imix`, or `64=7,594=4,1518=1`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sizes(pub Vec<(u16, u32)>);

/// What the field calls the simple IMIX: 7 of 64 octets, 4 of 594, 1 of 1518.
pub const IMIX: [(u16, u32); 3] = [(64, 7), (594, 4), (1518, 1)];

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self(IMIX.to_vec()));
        }
        let all = weighted(text, |word| word.parse().ok());
        let fits = |(size, _): &(u16, u32)| (SIZE_MIN..=SIZE_MAX).contains(size);
        all.filter(|all| all.iter().all(fits)).map(Self).ok_or_else(|| {
            format!(
                "{text:?} are no frame sizes, expected {SIZE_MIN} to {SIZE_MAX} octets, imix, or \
                 sizes with weights like 64=7,594=4,1518=1"
            )
        })
    }
}

/// What flows carry: `udp`, or `established=3,syn=1`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mix(pub Vec<(Kind, u32)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = |word: &str| Kind::ALL.into_iter().find(|kind| kind.word() == word);
        weighted(text, kind).map(Self).ok_or_else(|| {
            let words = Kind::ALL.map(Kind::word).join(", ");
            format!("{text:?} is no mixture, expected {words}, or several like udp=3,syn=1")
        })
    }
}

/// `a=1,b=2`; a word alone has the weight 1.
fn weighted<T: PartialEq>(text: &str, word: impl Fn(&str) -> Option<T>) -> Option<Vec<(T, u32)>> {
    let mut all: Vec<(T, u32)> = Vec::new();
    for part in text.split(',') {
        let (what, weight) = part.split_once('=').unwrap_or((part, "1"));
        let what = word(what)?;
        let weight = weight.parse().ok().filter(|weight| (1..=1000).contains(weight))?;
        if all.iter().any(|(other, _)| *other == what) {
            return None;
        }
        all.push((what, weight));
    }
    Some(all)
}

/// Which flow is next: `turn`, `uniform`, `zipf` or `zipf=1.2`.
impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, exponent) = text.split_once('=').unwrap_or((text, "1"));
        match (word, exponent.parse::<f64>()) {
            ("turn", _) if word == text => Ok(Self::Turn),
            ("uniform", _) if word == text => Ok(Self::Uniform),
            ("zipf", Ok(exponent)) if (0.1..=10.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
            _ => Err(format!(
                "{text:?} chooses no flow, expected turn, uniform, zipf, or zipf=S with S from 0.1 \
                 to 10"
            )),
        }
    }
}

/// Time: `10`, `10s`, `500ms`, `2min`.
///
/// # Errors
///
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let scale = match unit {
        "" | "s" => Some(1.0),
        "ms" => Some(1e-3),
        "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let seconds = scale.zip(number.parse::<f64>().ok()).map(|(scale, number)| scale * number);
    seconds
        .filter(|seconds| (0.0..=7.0 * 86400.0).contains(seconds))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is no time, expected one like 500ms, 10s or 2min"))
}

/// A share: `0`, `0.005`, `0.5%`.
///
/// # Errors
///
/// What is wrong with it.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().ok().map(|number| number * scale);
    share
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| format!("{text:?} is no share, expected one like 0, 0.005 or 0.5%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses_are_read_in_both_families() {
        let range = |text: &str| text.parse::<Addresses>();
        assert_eq!(range("192.0.2.1-192.0.2.99").unwrap().count, 99);
        assert_eq!(range("2001:db8::1-2001:db8::1:0").unwrap().count, 0x10000);
        assert_eq!(range("192.0.2.1").unwrap().count, 1);
        for wrong in ["", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "::-ffff::", "a-b"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_packets_or_bits_on_the_wire() {
        let rate = |text: &str| text.parse::<Rate>();
        assert_eq!(rate("1.5Mpps"), Ok(Rate::Packets(1.5e6)));
        assert_eq!(rate("1000"), Ok(Rate::Packets(1e3)));
        assert_eq!(rate("max"), Ok(Rate::Max));
        // RFC 2544 appendix B: 64 octets at 10 Mbit/s are 14880 frames a second.
        let packets = rate("10Mbit/s").unwrap().packets(64.0).unwrap();
        assert!((packets - 14_880.95).abs() < 0.01, "{packets}");
        for wrong in ["", "fast", "1Tpps", "-1", "0", "1.2.3", "5 pps", "Mpps"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_mixtures_have_weights() {
        assert_eq!("512".parse(), Ok(Sizes(vec![(512, 1)])));
        assert_eq!("imix".parse(), Ok(Sizes(IMIX.to_vec())));
        assert_eq!("64=7,1518".parse(), Ok(Sizes(vec![(64, 7), (1518, 1)])));
        for wrong in ["", "63", "9019", "64=0", "64,64", "64=x"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
        assert_eq!("udp=2,syn".parse(), Ok(Mix(vec![(Kind::Udp, 2), (Kind::Syn, 1)])));
        for wrong in ["", "tcp", "udp,udp", "udp=0", "udp=1001"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn choices_times_and_shares_are_read() {
        assert_eq!("turn".parse(), Ok(Choice::Turn));
        assert_eq!("zipf=1.2".parse(), Ok(Choice::Zipf(1.2)));
        for wrong in ["", "zipf=0", "zipf=x", "turn=1", "any"] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2min"), Ok(Duration::from_mins(2)));
        assert!(duration("soon").is_err() && duration("-1").is_err() && duration("30d").is_err());
        assert!((share("0.5%").unwrap() - 0.005).abs() < 1e-12);
        assert!(share("1").is_err() && share("-1").is_err() && share("x").is_err());
    }
}
