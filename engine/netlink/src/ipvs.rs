//! The commands of the IPVS family, in the kernel's order of checks.

use crate::numbers::{NLM_F_DUMP, NLM_F_MULTI, cmd, top};
use crate::wire::{Answers, Attributes, Message, Shape, Writer};
use crate::{Done, Genl, Table, daemon, dest, service};
use rvs_api::{
    Access, Daemon, Errno, Info, Outcome, Reply, Request, ServiceEntry, ServiceKey, TimeoutsChange,
};

/// `IPVS_GENL_VERSION`
const VERSION: u8 = 1;

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_cmd_policy`
const SHAPES: [Shape; 7] =
    [Shape::Any, Shape::Nest, Shape::Nest, Shape::Nest, Shape::U32, Shape::U32, Shape::U32];

type Top<'m> = Attributes<'m, 7>;

/// How a command is answered.
enum Kind {
    /// It changes something.
    Change,
    /// One answer to one question.
    Get,
    /// It can only be dumped.
    DumpOnly,
}

/// genetlink.c `genl_family_rcv_msg()`
pub(crate) fn answer(
    message: &Message,
    access: Access,
    table: &mut impl Table,
    answers: &mut Answers,
) -> Result<Done, Errno> {
    let Genl { command, attributes } = Genl::of(message)?;
    let kind = match command {
        cmd::GET_SERVICE | cmd::GET_CONFIG | cmd::GET_INFO => Kind::Get,
        cmd::GET_DEST | cmd::GET_DAEMON => Kind::DumpOnly,
        cmd::SET_INFO => return Err(Errno::OpNotSupp),
        cmd::NEW_SERVICE..=cmd::FLUSH => Kind::Change,
        _ => return Err(Errno::OpNotSupp),
    };
    let is_change = matches!(kind, Kind::Change);
    if access < if is_change { Access::Change } else { Access::Read } {
        return Err(Errno::Perm);
    }
    let is_dump = message.flags & NLM_F_DUMP == NLM_F_DUMP;
    let can_be_dumped = matches!(kind, Kind::DumpOnly) || command == cmd::GET_SERVICE;
    match kind {
        _ if is_dump && can_be_dumped => {
            let ask = Attributes::parse(attributes, &SHAPES);
            dump(command, ask, message, table, answers);
            return Ok(Done::Told);
        }
        Kind::DumpOnly => return Err(Errno::OpNotSupp),
        _ if is_dump => return Err(Errno::OpNotSupp),
        Kind::Get => {
            get(command, &Attributes::parse(attributes, &SHAPES)?, message, table, answers)?;
        }
        Kind::Change => change(command, &Attributes::parse(attributes, &SHAPES)?, table)?,
    }
    Ok(Done::Acknowledge)
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_set_cmd()`, `ip_vs_genl_set_daemon()`
fn change(command: u8, asked: &Top, table: &mut impl Table) -> Result<(), Errno> {
    let request = match command {
        cmd::FLUSH => Request::Flush,
        cmd::SET_CONFIG => Request::SetTimeouts(TimeoutsChange {
            tcp_s: asked.u32(top::TIMEOUT_TCP).unwrap_or_default(),
            tcp_fin_s: asked.u32(top::TIMEOUT_TCP_FIN).unwrap_or_default(),
            udp_s: asked.u32(top::TIMEOUT_UDP).unwrap_or_default(),
        }),
        cmd::ZERO if !asked.has(top::SERVICE) => Request::Zero { service: None },
        cmd::NEW_DAEMON => Request::StartDaemon(daemon::parse(asked)?),
        cmd::DEL_DAEMON => Request::StopDaemon(daemon::parse_state(asked)?),
        _ => of_service(command, asked, table)?,
    };
    table.carry_out(request).map(|_| ()).map_err(|refusal| refusal.errno)
}

fn of_service(command: u8, asked: &Top, table: &impl Table) -> Result<Request, Errno> {
    let described = service::Described::parse(asked, top::SERVICE)?;
    let known = described.key.and_then(|key| table.service(&key));
    let full = match command {
        cmd::NEW_SERVICE | cmd::SET_SERVICE => Some(described.full(known.as_ref())?),
        _ => None,
    };
    if known.is_none() && command != cmd::NEW_SERVICE {
        return Err(Errno::Srch);
    }
    let service = described.key.ok_or(Errno::OpNotSupp)?;
    Ok(match (command, full) {
        (cmd::NEW_SERVICE, Some(attributes)) => Request::AddService { service, attributes },
        (cmd::SET_SERVICE, Some(attributes)) => Request::EditService { service, attributes },
        (cmd::DEL_SERVICE, _) => Request::DeleteService { service },
        (cmd::ZERO, _) => Request::Zero { service: Some(service) },
        _ => {
            let described = dest::Described::parse(asked, top::DEST, described.family)?;
            let dest = described.address;
            match command {
                cmd::NEW_DEST => Request::AddDest { service, dest, attributes: described.full()? },
                cmd::SET_DEST => Request::EditDest { service, dest, attributes: described.full()? },
                cmd::DEL_DEST => Request::DeleteDest { service, dest },
                _ => return Err(Errno::Inval),
            }
        }
    })
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_get_cmd()`
fn get(
    command: u8,
    asked: &Top,
    message: &Message,
    table: &mut impl Table,
    answers: &mut Answers,
) -> Result<(), Errno> {
    let mut tell = |reply, fill: &dyn Fn(&mut Writer)| {
        answers.genl(message, 0, (reply, VERSION), fill);
        Ok(())
    };
    let request = match command {
        cmd::GET_SERVICE => {
            let described = service::Described::parse(asked, top::SERVICE)?;
            Request::ListServices { service: Some(described.key.ok_or(Errno::Srch)?) }
        }
        cmd::GET_CONFIG => Request::GetTimeouts,
        _ => Request::GetInfo,
    };
    match table.carry_out(request).map_err(|refusal| refusal.errno)? {
        Reply::Services(list) => {
            let entry = list.first().ok_or(Errno::Srch)?;
            tell(cmd::NEW_SERVICE, &|writer| write_service(writer, entry))
        }
        Reply::Timeouts(TimeoutsChange { tcp_s, tcp_fin_s, udp_s }) => {
            tell(cmd::SET_CONFIG, &|writer| {
                writer.u32(top::TIMEOUT_TCP, tcp_s);
                writer.u32(top::TIMEOUT_TCP_FIN, tcp_fin_s);
                writer.u32(top::TIMEOUT_UDP, udp_s);
            })
        }
        Reply::Info(Info { version: (major, minor, patch), size }) => {
            tell(cmd::SET_INFO, &|writer| {
                writer.u32(top::INFO_VERSION, u32::from_be_bytes([0, major, minor, patch]));
                writer.u32(top::INFO_CONN_TAB_SIZE, size);
            })
        }
        _ => Err(Errno::Io),
    }
}

/// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_dump_services()`, `ip_vs_genl_dump_dests()`,
/// `ip_vs_genl_dump_daemons()`: what cannot be answered is an empty dump.
fn dump(
    command: u8,
    asked: Result<Top, Errno>,
    message: &Message,
    table: &mut impl Table,
    answers: &mut Answers,
) {
    let mut tell = |reply, fill: &dyn Fn(&mut Writer)| {
        answers.genl(message, NLM_F_MULTI, (reply, VERSION), fill);
    };
    match command {
        cmd::GET_SERVICE => {
            for entry in &services(table.carry_out(Request::ListServices { service: None })) {
                tell(cmd::NEW_SERVICE, &|writer| write_service(writer, entry));
            }
        }
        cmd::GET_DEST => {
            for entry in asked.map(|asked| dests(&asked, table)).unwrap_or_default() {
                for dest in &entry.dests {
                    tell(cmd::NEW_DEST, &|writer| {
                        writer.nest(top::DEST, |writer| dest::write(writer, dest));
                    });
                }
            }
        }
        _ => {
            for daemon in &daemons(table.carry_out(Request::ListDaemons)) {
                tell(cmd::NEW_DAEMON, &|writer| daemon::write(writer, daemon));
            }
        }
    }
    answers.done(message);
}

fn write_service(writer: &mut Writer, entry: &ServiceEntry) {
    writer.nest(top::SERVICE, |writer| service::write(writer, entry));
}

/// The service whose destinations are asked for, if there is one.
fn dests(asked: &Top, table: &mut impl Table) -> Vec<ServiceEntry> {
    let key: Option<ServiceKey> =
        service::Described::parse(asked, top::SERVICE).ok().and_then(|described| described.key);
    key.map(|key| services(table.carry_out(Request::ListServices { service: Some(key) })))
        .unwrap_or_default()
}

fn services(outcome: Outcome) -> Vec<ServiceEntry> {
    if let Ok(Reply::Services(list)) = outcome { list } else { Vec::new() }
}

fn daemons(outcome: Outcome) -> Vec<Daemon> {
    if let Ok(Reply::Daemons(list)) = outcome { list } else { Vec::new() }
}
