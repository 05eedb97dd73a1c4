//! Values in range, names known: what needs no knowledge of networks.

use super::file::{self, File, Number, Text, Whole};
use super::{
    Config, ConfigError, Control, Idle, Links, Machine, Tables, Workers, dpdk, links, marks,
};
use crate::access::Rules;
use crate::state::TIMEOUT_SECONDS_MAX;
use core::fmt::Display;
use core::hash::Hash;
use core::ops::{Range, RangeInclusive};
use core::str::FromStr;
use nix::unistd::{Group, User};
use rvs_api::line_and_column;
use rvs_model::{SYSCTLS, Setting, State, SysctlError, Sysctls, Timeouts};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Workers at most: the steering table has 128 entries.
const WORKERS_MAX: usize = 128;
/// Octets of a socket's path with the zero at its end: unix(7), `sun_path`.
const SOCKET_PATH_OCTETS: usize = 108;
/// What the netlink socket's name ends with, beside the control socket, unless it is told otherwise.
const NETLINK_EXTENSION: &str = "netlink";
/// Ethernet header and one VLAN tag.
const LINK_HEADERS: usize = 18;

/// What is wrong, and which octets of the text say so.
#[derive(Debug)]
pub(super) struct Flaw {
    place: Option<Range<usize>>,
    message: String,
}

impl Flaw {
    pub(super) fn at<T>(value: &Spanned<T>, message: String) -> Self {
        Self { place: Some(value.span()), message }
    }

    pub(super) fn nowhere(message: String) -> Self {
        Self { place: None, message }
    }

    pub(super) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        // A parser's message may have several lines; an operator's log has one per event.
        let lines: Vec<_> = self.message.lines().map(str::trim).collect();
        ConfigError {
            file: path.display().to_string(),
            place: self.place.map(|place| line_and_column(text, place.start)),
            message: lines.join(", "),
        }
    }
}

/// Things that may be named only once, and where they were.
pub(super) struct Unique<'t, K> {
    text: &'t str,
    seen: HashMap<K, usize>,
}

impl<'t, K: Eq + Hash> Unique<'t, K> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, seen: HashMap::new() }
    }

    /// Takes `key` in; an error that begins with `what` if it was there.
    pub(super) fn take<T>(
        &mut self,
        key: K,
        place: &Spanned<T>,
        what: impl Display,
    ) -> Result<(), Flaw> {
        let first = *self.seen.entry(key).or_insert(place.span().start);
        if first == place.span().start {
            return Ok(());
        }
        let (line, _) = line_and_column(self.text, first);
        Err(Flaw::at(place, format!("{what} is there already (line {line})")))
    }
}

/// A number of the file in a range.
pub(super) fn number<T: TryFrom<i64>>(
    name: &str,
    value: &Spanned<Whole>,
    allowed: &RangeInclusive<i64>,
) -> Result<T, Flaw> {
    let Whole(found) = *value.get_ref();
    T::try_from(found).ok().filter(|_| allowed.contains(&found)).ok_or_else(|| {
        let (low, high) = (allowed.start(), allowed.end());
        Flaw::at(value, format!("{name} is {found}, expected {low} to {high}"))
    })
}

/// The same with a default.
fn number_or<T: TryFrom<i64>>(
    name: &str,
    value: &Number,
    allowed: &RangeInclusive<i64>,
    default: T,
) -> Result<T, Flaw> {
    value.as_ref().map_or(Ok(default), |value| number(name, value, allowed))
}

/// A text of the file as a `T`; `expected` is what an operator should have written.
pub(super) fn parsed<T: FromStr>(name: &str, value: &Text, expected: &str) -> Result<T, Flaw> {
    let found = value.get_ref();
    found.parse().map_err(|_| Flaw::at(value, format!("{name} is {found:?}, expected {expected}")))
}

pub(super) fn config(text: &str, folder: &Path, machine: &Machine) -> Result<Config, Flaw> {
    let file: File = toml::from_str(text)
        .map_err(|error| Flaw { place: error.span(), message: error.message().to_owned() })?;
    let control = control(&file.control, folder)?;
    let (links, network) = links::links_and_network(&file, text, folder, machine)?;
    let dpdk = dpdk::settings(file.dpdk.as_ref(), &links)?;
    let workers = workers(&file.workers, text, machine, default_idle(&links))?;
    if let (Links::Pcap(_), Some(cores)) = (&links, &file.workers.cores)
        && cores.get_ref().len() > 1
    {
        let count = cores.get_ref().len();
        let message = format!("cores has {count} entries, expected 1: a capture is one queue");
        return Err(Flaw::at(cores, message));
    }
    let mtu_max = network.interfaces().iter().map(|interface| interface.mtu).max();
    let tables = tables(&file.tables, usize::from(mtu_max.unwrap_or_default()))?;
    let timeouts = timeouts(&file)?;
    let sysctls = sysctls(&file)?;
    let marks = marks::rules(&file, text, &network)?;
    Ok(Config { control, workers, tables, dpdk, links, network, marks, timeouts, sysctls })
}

fn control(written: &file::Control, folder: &Path) -> Result<Control, Flaw> {
    let path = |name: &str, path: &Option<Text>| {
        path.as_ref().map(|path| socket_path(name, path, folder)).transpose()
    };
    let socket = path("socket", &written.socket)?.unwrap_or_else(|| rvs_api::DEFAULT_SOCKET.into());
    let netlink = path("netlink", &written.netlink)?
        .unwrap_or_else(|| socket.with_extension(NETLINK_EXTENSION));
    let mode = match &written.mode {
        None => 0o600,
        Some(mode) => {
            let is_octal = |text: &str| text.len() >= 3 && text.bytes().all(|c| c.is_ascii_digit());
            Some(mode.get_ref())
                .filter(|text| is_octal(text))
                .and_then(|text| u32::from_str_radix(text, 8).ok())
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| {
                    let found = mode.get_ref();
                    let message = format!(
                        "mode is {found:?}, expected octal permissions \"0000\" to \"0777\""
                    );
                    Flaw::at(mode, message)
                })?
        }
    };
    let groups = |key: &str, listed: &[Text]| -> Result<Vec<u32>, Flaw> {
        listed.iter().map(|name| group(key, name)).collect()
    };
    let control = Control {
        socket,
        netlink,
        mode,
        owner: written.owner.as_ref().map(owner).transpose()?,
        group: written.group.as_ref().map(|name| group("group", name)).transpose()?,
        state: written.state.as_ref().map(|path| state_path(path, folder)).transpose()?,
        sync: written.sync,
        rules: Rules {
            change: groups("change_groups", &written.change_groups)?,
            read: groups("read_groups", &written.read_groups)?,
        },
    };
    if control.netlink != control.socket {
        return Ok(control);
    }
    Err(match (&written.netlink, &written.socket) {
        (Some(path), _) => {
            Flaw::at(path, "netlink's path is socket's, expected another".to_owned())
        }
        (None, Some(path)) => {
            let message = "socket's path is that of netlink, expected another, or a `netlink`";
            Flaw::at(path, message.to_owned())
        }
        (None, None) => Flaw::nowhere("netlink's path is socket's".to_owned()),
    })
}

fn state_path(path: &Text, folder: &Path) -> Result<PathBuf, Flaw> {
    if path.get_ref().is_empty() {
        return Err(Flaw::at(path, "state is empty, expected the path of a file".to_owned()));
    }
    Ok(folder.join(path.get_ref()))
}

fn socket_path(name: &str, path: &Text, folder: &Path) -> Result<PathBuf, Flaw> {
    let socket = folder.join(path.get_ref());
    let octets = socket.as_os_str().as_bytes().len();
    if path.get_ref().is_empty() || octets >= SOCKET_PATH_OCTETS {
        let most = SOCKET_PATH_OCTETS - 1;
        let message = format!("{name}'s path has {octets} octets, expected a path of 1 to {most}");
        return Err(Flaw::at(path, message));
    }
    Ok(socket)
}

fn owner(name: &Text) -> Result<u32, Flaw> {
    let known = |name: &str| User::from_name(name).ok()?.map(|user| user.uid.as_raw());
    id("owner", name, known, "a user's name or number")
}

fn group(key: &str, name: &Text) -> Result<u32, Flaw> {
    let known = |name: &str| Group::from_name(name).ok()?.map(|group| group.gid.as_raw());
    id(key, name, known, "a group's name or number")
}

/// The number of somebody who is named, or given by number.
fn id(
    key: &str,
    name: &Text,
    known: impl Fn(&str) -> Option<u32>,
    expected: &str,
) -> Result<u32, Flaw> {
    let found = name.get_ref();
    let id = found.parse().ok().or_else(|| known(found));
    id.ok_or_else(|| Flaw::at(name, format!("{key} is {found:?}, expected {expected}")))
}

/// A card's ring is full within 100 µs at line rate: who has one wants to poll it.
fn default_idle(links: &Links) -> Idle {
    match links {
        Links::Dpdk(_) => Idle::Poll,
        Links::Tap(_) | Links::Pcap(_) | Links::AfXdp(_) => Idle::default(),
    }
}

fn workers(
    written: &file::Workers,
    text: &str,
    machine: &Machine,
    idle: Idle,
) -> Result<Workers, Flaw> {
    let mut cores = Vec::new();
    if let Some(listed) = &written.cores {
        let count = listed.get_ref().len();
        if !(1..=WORKERS_MAX).contains(&count) {
            let message = format!("cores has {count} entries, expected 1 to {WORKERS_MAX}");
            return Err(Flaw::at(listed, message));
        }
        let mut unique = Unique::new(text);
        for core in listed.get_ref() {
            let Whole(found) = *core.get_ref();
            let known = usize::try_from(found).ok().filter(|core| machine.cores.contains(core));
            let known = known.ok_or_else(|| {
                let there: Vec<_> = machine.cores.iter().map(ToString::to_string).collect();
                let there = there.join(", ");
                Flaw::at(core, format!("core {found} is not there, expected one of {there}"))
            })?;
            unique.take(known, core, format_args!("core {known}"))?;
            cores.push(known);
        }
    }
    Ok(Workers {
        cores,
        burst: number_or("burst", &written.burst, &(1..=256), 64)?,
        huge_pages: written.huge_pages.unwrap_or(true),
        idle: written.idle.unwrap_or(idle),
        offload: written.offload.unwrap_or(true),
    })
}

fn tables(written: &file::Tables, mtu_max: usize) -> Result<Tables, Flaw> {
    // What conntrack::Capacity takes.
    let conns = 1..=1 << 28;
    let needed = mtu_max + LINK_HEADERS;
    let tables = Tables {
        conns4: number_or("conns", &written.conns, &conns, 1 << 18)?,
        conns6: number_or("conns6", &written.conns6, &conns, 1 << 16)?,
        services: number_or("services", &written.services, &(1..=1 << 20), 1 << 14)?,
        dests: number_or("dests", &written.dests, &(1..=1 << 22), 1 << 17)?,
        neighbors: number_or("neighbors", &written.neighbors, &(1..=65_535), 1024)?,
        frames: number_or("frames", &written.frames, &(2048..=1 << 22), 4096)?,
        frame_octets: number_or("frame_octets", &written.frame_octets, &(64..=65_553), needed)?,
    };
    if let Some(octets) = &written.frame_octets
        && tables.frame_octets < needed
    {
        let found = tables.frame_octets;
        let message = format!(
            "frame_octets is {found}, expected at least {needed}: the largest mtu and \
             {LINK_HEADERS} octets of Ethernet and VLAN headers"
        );
        return Err(Flaw::at(octets, message));
    }
    Ok(tables)
}

/// The key of a state's timeout: its name in small letters, and whose it is if it is SCTP's.
fn timeout_key(state: State) -> String {
    let name = state.name().to_ascii_lowercase();
    if state.is_sctp() { format!("sctp_{}", name.replace('-', "_")) } else { name }
}

fn timeouts(file: &File) -> Result<Timeouts, Flaw> {
    let mut timeouts = Timeouts::default();
    for (name, seconds) in &file.timeouts {
        let state = State::ALL.into_iter().find(|state| timeout_key(*state) == *name.get_ref());
        let state = state.ok_or_else(|| {
            let known: Vec<_> = State::ALL.map(|state| format!("`{}`", timeout_key(state))).into();
            let (name_found, known) = (name.get_ref(), known.join(", "));
            Flaw::at(name, format!("unknown field `{name_found}`, expected one of {known}"))
        })?;
        timeouts.set(state, number(name.get_ref(), seconds, &(1..=TIMEOUT_SECONDS_MAX.into()))?);
    }
    Ok(timeouts)
}

fn sysctls(file: &File) -> Result<Sysctls, Flaw> {
    let mut sysctls = Sysctls::default();
    for (name, setting) in &file.ipvs {
        let Setting(text) = setting.get_ref();
        match sysctls.set(name.get_ref(), text) {
            Ok(_) => {}
            Err(SysctlError::Unknown(found)) => {
                let known: Vec<_> = SYSCTLS.iter().map(|it| format!("`{}`", it.name)).collect();
                let known = known.join(", ");
                let message = format!("unknown field `{found}`, expected one of {known}");
                return Err(Flaw::at(name, message));
            }
            Err(refused) => return Err(Flaw::at(setting, refused.to_string())),
        }
    }
    Ok(sysctls)
}
