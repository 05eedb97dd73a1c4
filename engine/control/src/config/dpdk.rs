//! What is said of DPDK: `[dpdk]`, and links of that kind.

use super::check::{Flaw, Unique, number};
use super::file;
use super::links::{self, MTU_DEFAULT, MTU_MAX, MTU_MIN, host_mac};
use super::{Links, af_xdp};
use rvs_wire::mac::MacAddr;
use toml::Spanned;

/// Descriptors of a queue at most: its number is 16 bits.
const DESCRIPTORS_MAX: i64 = 32_768;
/// DPDK's arguments that rvsd says itself, each with where it takes it from.
const OURS: [(&str, &str); 10] = [
    ("-l", "[workers] cores"),
    ("-c", "[workers] cores"),
    ("-s", "[workers] cores"),
    ("--lcores", "[workers] cores"),
    ("--main-lcore", "[workers] cores"),
    ("--no-huge", "no_huge"),
    ("-a", "the links' `device`"),
    ("--allow", "the links' `device`"),
    ("--vdev", "the links' `device`"),
    ("--no-pci", "the links' `device`"),
];

/// And those that leave no director, each with what it does.
const NO_DIRECTORS: [(&str, &str); 3] = [
    ("-h", "prints DPDK's arguments and ends"),
    ("--help", "prints DPDK's arguments and ends"),
    ("--proc-type", "makes rvsd wait for another process's memory; rvsd shares none"),
];

/// `[dpdk]`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dpdk {
    /// More arguments of DPDK's environment.
    pub eal: Vec<String>,
    /// Whether to do without huge pages.
    pub no_huge: bool,
}

/// Who is at the other end of a link: what its queues are chosen by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Clients, or the way to them.
    Clients,
    /// Real servers.
    Servers,
    /// Both.
    #[default]
    Both,
}

/// A network card, or a virtual device of DPDK's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DpdkLink {
    /// The operator's name for it.
    pub name: String,
    /// PCI address, or a virtual device with its arguments.
    pub device: String,
    /// The device that the host's own stack gets, to use this link as well.
    pub host: Option<String>,
    /// Our Ethernet address there; `None`: the device's own, unless that is the host's.
    pub mac: Option<MacAddr>,
    /// Longest IP packet.
    pub mtu: u16,
    /// Who is there.
    pub side: Side,
    /// Descriptors of each receive queue.
    pub rx_descriptors: Option<u16>,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: Option<u16>,
    /// Whether it takes in frames to anybody.
    pub promiscuous: bool,
}

/// Refuses keys of DPDK's links in one of another kind.
pub(super) fn foreign(kind: &str, link: &file::Link) -> Result<(), Flaw> {
    links::foreign(kind, "side", link.side.as_ref())?;
    links::foreign(kind, "rx_descriptors", link.rx_descriptors.as_ref())?;
    links::foreign(kind, "tx_descriptors", link.tx_descriptors.as_ref())?;
    links::foreign(kind, "promiscuous", link.promiscuous.as_ref())
}

pub(super) fn settings(written: Option<&Spanned<file::Dpdk>>, links: &Links) -> Result<Dpdk, Flaw> {
    let Some(whole) = written else { return Ok(Dpdk::default()) };
    if !matches!(links, Links::Dpdk(_)) {
        let message =
            format!("[dpdk] is of no use to {} links, expected it to be left out", links.kind());
        return Err(Flaw::at(whole, message));
    }
    let dpdk = whole.get_ref();
    for argument in &dpdk.eal {
        let word = argument.get_ref().split('=').next().unwrap_or_default();
        if let Some((_, place)) = OURS.iter().find(|(name, _)| is_said(name, word)) {
            let message = format!("eal has {word:?}, which rvsd says itself: it follows {place}");
            return Err(Flaw::at(argument, message));
        }
        if let Some((_, does)) = NO_DIRECTORS.iter().find(|(name, _)| is_said(name, word)) {
            let message = format!("eal has {word:?}, which {does}; expected it to be left out");
            return Err(Flaw::at(argument, message));
        }
        if argument.get_ref().contains('\0') {
            return Err(Flaw::at(argument, "eal has an argument with a zero octet".to_owned()));
        }
    }
    let eal = dpdk.eal.iter().map(|argument| argument.get_ref().clone()).collect();
    Ok(Dpdk { eal, no_huge: dpdk.no_huge })
}

/// Whether `word` is the argument `name` as `getopt_long(3)` reads it: a long one may be cut short, a
/// short one may have its value behind it.
fn is_said(name: &str, word: &str) -> bool {
    if name.starts_with("--") {
        word.len() > 2 && name.starts_with(word)
    } else {
        word.starts_with(name)
    }
}

pub(super) fn link(link: &file::Link, devices: &mut Unique<'_, String>) -> Result<DpdkLink, Flaw> {
    links::foreign("dpdk", "read", link.read.as_ref())?;
    links::foreign("dpdk", "write", link.write.as_ref())?;
    af_xdp::foreign("dpdk", link)?;
    let name = link.name.get_ref();
    let expected =
        "a PCI address like \"0000:01:00.0\" or a virtual device like \"net_tap0,iface=x\"";
    let Some(device) = &link.device else {
        let message = format!("link {name:?} has no `device`, expected {expected}");
        return Err(Flaw::at(&link.name, message));
    };
    let text = device.get_ref();
    let short = text.split(',').next().unwrap_or_default();
    if short.is_empty() || text.bytes().any(|c| c.is_ascii_control() || c == b' ') {
        return Err(Flaw::at(device, format!("device is {text:?}, expected {expected}")));
    }
    devices.take(short.to_owned(), device, format_args!("device {short}"))?;
    let descriptors = |key, value: &file::Number| {
        value.as_ref().map(|value| number(key, value, &(1..=DESCRIPTORS_MAX))).transpose()
    };
    Ok(DpdkLink {
        name: name.clone(),
        device: text.clone(),
        host: links::host_device(link, devices)?,
        mac: link.mac.as_ref().map(host_mac).transpose()?,
        mtu: match &link.mtu {
            Some(mtu) => number("mtu", mtu, &(MTU_MIN..=MTU_MAX))?,
            None => MTU_DEFAULT,
        },
        side: link.side.as_ref().map(|side| *side.get_ref()).unwrap_or_default(),
        rx_descriptors: descriptors("rx_descriptors", &link.rx_descriptors)?,
        tx_descriptors: descriptors("tx_descriptors", &link.tx_descriptors)?,
        promiscuous: link.promiscuous.as_ref().is_some_and(|on| *on.get_ref()),
    })
}
