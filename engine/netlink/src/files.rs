//! The kernel's files about IPVS, for those who read them: `ipvsadm -Lc`, monitoring, sysctl(8).
//!
//! ```text
//!  ask         {op:8, 0:24} · NAME "net/ip_vs_conn"
//!  READ, LIST  ◄── pieces of text … ◄── done        LOOK, WRITE  ◄── acknowledgement or error
//! ```
//!
//! Messages of a kind of their own on the netlink socket; names are those below `/proc`. The kernel
//! has no such messages: the library that is preloaded into unmodified programs asks so. Of folders it
//! is told which names are rvsd's; those of the kernel it finds itself.

use crate::numbers::{FILES_ID, NLM_F_MULTI};
use crate::wire::{Answers, Attributes, Message, Shape};
use crate::{Done, Genl, Table};
use core::fmt::{self, Display, Write as _};
use core::net::IpAddr;
use rvs_api::{
    Access, AddressFamily, ConnEntry, DestEntry, Errno, Info, Netmask, Rates, Reply, Request,
    ServiceEntry, ServiceFlags, ServiceKey, Totals, Tunable,
};
use rvs_model::{ForwardMethod, Protocol};

/// Whether there is such a file; its acknowledgement says yes.
const LOOK: u8 = 1;
/// What is in it.
const READ: u8 = 2;
/// What the client sends from now on shall be in it.
const WRITE: u8 = 3;
/// Which names rvsd has in this folder, a line each.
const LIST: u8 = 4;

/// The folder of all but sysctls.
const NET: &str = "net";
/// Its files.
const NET_FILES: [(&str, File<'static>); 4] = [
    ("ip_vs", File::Services),
    ("ip_vs_conn", File::Conns { with_origin: false }),
    ("ip_vs_conn_sync", File::Conns { with_origin: true }),
    ("ip_vs_stats", File::Stats),
];
/// Where the folder of sysctls is, and its name there.
const IPV4: &str = "sys/net/ipv4";
const SYSCTLS: &str = "vs";

const NAME: u16 = 1;
const NAME_OCTETS_MAX: usize = 255;
const SHAPES: [Shape; 2] = [Shape::Any, Shape::Text(NAME_OCTETS_MAX)];

/// Octets of a piece of a file.
const PIECE_OCTETS: usize = 4 << 10;
/// Jiffies of a second, in which `ip_vs` tells the timeout of persistence: Debian's kernels have this
/// many.
const HZ: u32 = 250;

/// A file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum File<'n> {
    /// `ip_vs`: services and destinations.
    Services,
    /// `ip_vs_stats`: all services together.
    Stats,
    /// `ip_vs_conn`, and with where connections are from `ip_vs_conn_sync`.
    Conns { with_origin: bool },
    /// A sysctl, by its name.
    Sysctl(&'n str),
    /// The folder of sysctls.
    Sysctls,
}

impl<'n> File<'n> {
    fn named(path: &'n str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/')?;
        match folder.strip_prefix(IPV4) {
            Some("") if name == SYSCTLS => Some(Self::Sysctls),
            Some(rest) if rest.strip_prefix('/') == Some(SYSCTLS) => Some(Self::Sysctl(name)),
            _ if folder == NET => {
                NET_FILES.into_iter().find(|(file, _)| *file == name).map(|(_, file)| file)
            }
            _ => None,
        }
    }
}

/// The names that rvsd has in a folder, a line each.
fn names(folder: &str, table: &mut impl Table) -> Result<String, Errno> {
    let names: Vec<String> = match folder {
        NET => NET_FILES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        IPV4 => vec![SYSCTLS.to_owned()],
        _ if File::named(folder) == Some(File::Sysctls) => {
            tunables(None, table)?.into_iter().map(|it| it.name).collect()
        }
        _ => return Err(Errno::NoEnt),
    };
    Ok(names.join("\n") + "\n")
}

/// How the answer about a file goes on.
pub(crate) enum Next {
    /// It does not.
    Nothing(Done),
    /// By a listing of connections, which the caller has.
    Conns(Conns),
    /// By contents that the client writes.
    Written(Written),
}

/// Answers a message about a file.
pub(crate) fn answer(
    message: &Message,
    access: Access,
    table: &mut impl Table,
    answers: &mut Answers,
) -> Result<Next, Errno> {
    let Genl { command, attributes } = Genl::of(message)?;
    let asked = Attributes::parse(attributes, &SHAPES)?;
    let name = asked.text(NAME).ok_or(Errno::Inval)?;
    if access < Access::Read {
        return Err(Errno::Perm);
    }
    let Message { seq, port, .. } = *message;
    if command == LIST {
        let lines = names(&name, table)?;
        return Ok(Next::Nothing(told(&lines, message, answers)));
    }
    let text = match (command, File::named(&name).ok_or(Errno::NoEnt)?) {
        (LOOK, File::Sysctl(name)) => {
            sysctl(name, table)?;
            return Ok(Next::Nothing(Done::Acknowledge));
        }
        (LOOK, _) => return Ok(Next::Nothing(Done::Acknowledge)),
        (READ | WRITE, File::Sysctls) => return Err(Errno::Inval),
        (READ, File::Services) => services(table)?,
        (READ, File::Stats) => stats(table)?,
        (READ, File::Sysctl(name)) => sysctl(name, table)? + "\n",
        (READ, File::Conns { with_origin }) => {
            return Ok(Next::Conns(Conns { seq, port, with_origin, begun: false }));
        }
        (WRITE, File::Sysctl(name)) => {
            sysctl(name, table)?;
            if access < Access::Change {
                return Err(Errno::Perm);
            }
            answers.ack(message);
            return Ok(Next::Written(Written { seq, port, name: name.to_owned() }));
        }
        (WRITE, _) => return Err(Errno::Perm),
        _ => return Err(Errno::OpNotSupp),
    };
    Ok(Next::Nothing(told(&text, message, answers)))
}

/// Tells a text, all of it.
fn told(text: &str, message: &Message, answers: &mut Answers) -> Done {
    pieces(text, message, answers);
    answers.done(message);
    Done::Told
}

/// What a sysctl is set to.
fn sysctl(name: &str, table: &mut impl Table) -> Result<String, Errno> {
    tunables(Some(name), table)?.into_iter().next().map(|it| it.value).ok_or(Errno::NoEnt)
}

/// The sysctl of a name, or all of them.
fn tunables(name: Option<&str>, table: &mut impl Table) -> Result<Vec<Tunable>, Errno> {
    let request = Request::ListTunables { name: name.map(str::to_owned) };
    match table.carry_out(request).map_err(|refusal| refusal.errno)? {
        Reply::Tunables(list) => Ok(list),
        _ => Err(Errno::Io),
    }
}

/// A sysctl that was opened to be written to.
#[derive(Clone, Debug)]
pub struct Written {
    seq: u32,
    port: u32,
    name: String,
}

impl Written {
    /// Carries out a write of `content`, and says how it ended. What the kernel tolerates in a number
    /// is blanks around it.
    pub fn write(&self, content: &[u8], table: &mut impl Table) -> Vec<Vec<u8>> {
        let message = Message::empty(FILES_ID, self.seq, self.port);
        let value = String::from_utf8_lossy(content).trim().to_owned();
        let request = Request::SetTunable { name: self.name.clone(), value };
        let mut answers = Answers::default();
        match table.carry_out(request) {
            Ok(_) => answers.ack(&message),
            Err(refusal) => answers.error(&message, refusal.errno),
        }
        answers.datagrams()
    }
}

fn pieces(text: &str, message: &Message, answers: &mut Answers) {
    for piece in text.as_bytes().chunks(PIECE_OCTETS) {
        answers.message(message, FILES_ID, NLM_F_MULTI, |writer| writer.raw(piece));
    }
}

/// A listing of connections that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Conns {
    seq: u32,
    port: u32,
    with_origin: bool,
    begun: bool,
}

impl Conns {
    /// Datagrams that list `conns`, which come next.
    pub fn list(&mut self, conns: &[ConnEntry]) -> Vec<Vec<u8>> {
        let mut text = String::new();
        if !core::mem::replace(&mut self.begun, true) {
            // ip_vs_conn.c ip_vs_conn_seq_show(), ip_vs_conn_sync_seq_show()
            text.push_str(if self.with_origin {
                "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n"
            } else {
                "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
            });
        }
        for conn in conns {
            text.push_str(&row(conn, self.with_origin));
        }
        let mut answers = Answers::default();
        pieces(&text, &self.message(), &mut answers);
        answers.datagrams()
    }

    /// Datagrams that say that these were all, or why they are not.
    #[must_use]
    pub fn end(mut self, outcome: Result<(), Errno>) -> Vec<Vec<u8>> {
        // A listing without connections has a heading.
        let mut datagrams = if self.begun { Vec::new() } else { self.list(&[]) };
        let mut answers = Answers::default();
        match outcome {
            Ok(()) => answers.done(&self.message()),
            Err(errno) => answers.error(&self.message(), errno),
        }
        datagrams.append(&mut answers.datagrams());
        datagrams
    }

    fn message(&self) -> Message<'static> {
        Message::empty(FILES_ID, self.seq, self.port)
    }
}

/// An address in hexadecimal, as the kernel's listings have it; `bracketed` if it is IPv6's.
struct Hex(IpAddr, bool);

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{:08X}", address.to_bits()),
            IpAddr::V6(address) => {
                let groups = address.segments().map(|group| format!("{group:04x}")).join(":");
                if self.1 { write!(f, "[{groups}]") } else { f.write_str(&groups) }
            }
        }
    }
}

fn row(conn: &ConnEntry, with_origin: bool) -> String {
    let ConnEntry { protocol, client, vip, dest, state, expires_s, engine, age_s: _ } = conn;
    let (protocol, state) = (protocol.map_or("IP", name), state.name());
    let mut row = format!("{protocol:<3}");
    for end in [client, vip, dest] {
        // A `String` takes everything.
        let _never = write!(row, " {} {:04X}", Hex(end.ip(), false), end.port());
    }
    let _never = if with_origin {
        write!(row, " {state:<11} LOCAL  {expires_s:>7}")
    } else {
        write!(row, " {state:<11} {expires_s:>7}")
    };
    if let Some(engine) = engine.as_ref().filter(|_| !with_origin) {
        let _never = write!(row, " {} {}", engine.name, engine.data);
    }
    row + "\n"
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn all_services(table: &mut impl Table) -> Result<Vec<ServiceEntry>, Errno> {
    match table.carry_out(Request::ListServices { service: None }) {
        Ok(Reply::Services(list)) => Ok(list),
        Ok(_) => Err(Errno::Io),
        Err(refusal) => Err(refusal.errno),
    }
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_info_seq_show()`
fn services(table: &mut impl Table) -> Result<String, Errno> {
    let Ok(Reply::Info(Info { version: (major, minor, patch), size })) =
        table.carry_out(Request::GetInfo)
    else {
        return Err(Errno::Io);
    };
    let mut text = format!(
        "IP Virtual Server version {major}.{minor}.{patch} (size={size})\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    );
    for entry in &all_services(table)? {
        service(&mut text, entry);
        for dest in &entry.dests {
            self::dest(&mut text, dest);
        }
    }
    Ok(text)
}

fn service(text: &mut String, entry: &ServiceEntry) {
    let it = &entry.attributes;
    let scheduler = &it.scheduler;
    let ops = if it.flags.has(ServiceFlags::ONE_PACKET) { "ops " } else { "" };
    let _never = match entry.service {
        ServiceKey::Mark { mark, .. } => write!(text, "FWM  {:08X} {scheduler} {ops}", mark.0),
        ServiceKey::Address { protocol, address } => {
            let (protocol, port) = (name(protocol), address.port());
            let address = Hex(address.ip(), true);
            // The kernel tells of `-o` in one family only.
            match entry.service.family() {
                AddressFamily::V4 => {
                    write!(text, "{protocol}  {address}:{port:04X} {scheduler} {ops} ")
                }
                AddressFamily::V6 => write!(text, "{protocol}  {address}:{port:04X} {scheduler} "),
            }
        }
    };
    if it.flags.has(ServiceFlags::PERSISTENT) {
        let jiffies = it.timeout_s.saturating_mul(HZ);
        let mask = match it.netmask {
            Netmask::V4(mask) => mask.to_bits(),
            Netmask::V6(length) => length.to_be(),
        };
        let _never = write!(text, "persistent {jiffies} {mask:08X}");
    }
    text.push('\n');
}

fn dest(text: &mut String, entry: &DestEntry) {
    let DestEntry { dest, attributes, active, inactive, .. } = entry;
    let method = match attributes.method {
        ForwardMethod::Masquerade => "Masq",
        ForwardMethod::Direct => "Route",
        ForwardMethod::Tunnel => "Tunnel",
    };
    let (address, port, weight) = (Hex(dest.ip(), true), dest.port(), attributes.weight.0);
    let _never = writeln!(
        text,
        "  -> {address}:{port:04X}      {method:<7} {weight:<6} {active:<10} {inactive:<10}"
    );
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_stats_show()`.
// DIFFERS from Linux, whose `/proc/net/ip_vs_stats` also has what deleted services counted: it adds up
// the services that there are.
fn stats(table: &mut impl Table) -> Result<String, Errno> {
    let all = all_services(table)?;
    let totals = all.iter().fold(Totals::default(), |sum, entry| sum.plus(entry.totals));
    let Totals { conns, packets_in, packets_out, octets_in, octets_out } = totals;
    let [conns_s, packets_in_s, packets_out_s, octets_in_s, octets_out_s] =
        all.iter().map(|entry| entry.rates).fold([0; 5], |sum: [u64; 5], rates: Rates| {
            let mut columns = rates.columns();
            columns.iter_mut().zip(sum).for_each(|(rate, sum)| *rate = rate.wrapping_add(sum));
            columns
        });
    Ok(format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n\
         {conns:8X} {packets_in:8X} {packets_out:8X} {octets_in:16X} {octets_out:16X}\n\n \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
         {conns_s:8X} {packets_in_s:8X} {packets_out_s:8X} {octets_in_s:16X} {octets_out_s:16X}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::SocketAddr;
    use rvs_api::ConnState;
    use rvs_model::State;

    fn conn(client: &str, vip: &str, dest: &str) -> ConnEntry {
        let [client, vip, dest]: [SocketAddr; 3] =
            [client, vip, dest].map(|it| it.parse().unwrap());
        let state = ConnState::Conn(State::SynRecv);
        let protocol = Some(Protocol::Tcp);
        ConnEntry { protocol, client, vip, dest, state, expires_s: 57, age_s: 0, engine: None }
    }

    #[test]
    fn a_row_is_the_kernels() {
        // environment.json of the recordings: example_proc_net_ip_vs_conn and _sync.
        let conn = conn("172.16.0.1:2000", "10.0.0.100:80", "10.1.0.2:80");
        let told = "TCP AC100001 07D0 0A000064 0050 0A010002 0050 SYN_RECV         57\n";
        assert_eq!(row(&conn, false), told);
        let told = "TCP AC100001 07D0 0A000064 0050 0A010002 0050 SYN_RECV    LOCAL       57\n";
        assert_eq!(row(&conn, true), told);
    }

    #[test]
    fn addresses_of_ipv6_are_long_and_bare_in_rows() {
        let row = row(&conn("[fd00::7]:1", "[fd00:100::1]:53", "[fd00:1::2]:53"), false);
        assert!(row.starts_with("TCP fd00:0000:0000:0000:0000:0000:0000:0007 0001 fd00:0100:"));
    }
}
