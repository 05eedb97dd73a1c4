//! The controller of generic netlink: which number a family's name has.

use crate::numbers::{self, FAMILY_ID, FAMILY_NAME, NLM_F_DUMP, NLM_F_MULTI, cmd, ctrl};
use crate::wire::{Answers, Attributes, Message, Shape, Writer};
use crate::{Done, Genl};
use rvs_api::Errno;

/// `CTRL_VERSION`
const VERSION: u8 = 2;
/// `GENL_NAMSIZ` less the zero.
const NAME_OCTETS_MAX: usize = 15;

const SHAPES: [Shape; 3] = [Shape::Any, Shape::U16, Shape::Text(NAME_OCTETS_MAX)];

/// `GENL_ADMIN_PERM`, `GENL_CMD_CAP_DO`, `GENL_CMD_CAP_DUMP`, `GENL_CMD_CAP_HASPOL`
const ADMIN_PERM: u32 = 0x1;
const CAP_DO: u32 = 0x2;
const CAP_DUMP: u32 = 0x4;
const CAP_HASPOL: u32 = 0x8;

pub(crate) fn answer(message: &Message, answers: &mut Answers) -> Result<Done, Errno> {
    let Genl { command, attributes } = Genl::of(message)?;
    if command != ctrl::GETFAMILY {
        return Err(Errno::OpNotSupp);
    }
    if message.flags & NLM_F_DUMP == NLM_F_DUMP {
        answers.genl(message, NLM_F_MULTI, (ctrl::NEWFAMILY, VERSION), family);
        answers.done(message);
        return Ok(Done::Told);
    }
    // genetlink.c ctrl_getfamily()
    let asked = Attributes::parse(attributes, &SHAPES)?;
    let is_ours = match (asked.u16(ctrl::FAMILY_ID), asked.text(ctrl::FAMILY_NAME)) {
        (_, Some(name)) => name.as_bytes() == FAMILY_NAME,
        (Some(id), None) => id == FAMILY_ID,
        (None, None) => return Err(Errno::Inval),
    };
    if !is_ours {
        return Err(Errno::NoEnt);
    }
    answers.genl(message, 0, (ctrl::NEWFAMILY, VERSION), family);
    Ok(Done::Acknowledge)
}

fn family(writer: &mut Writer) {
    writer.text(ctrl::FAMILY_NAME, "IPVS");
    writer.u16(ctrl::FAMILY_ID, FAMILY_ID);
    writer.u32(ctrl::VERSION, 1);
    writer.u32(ctrl::HDRSIZE, 0);
    writer.u32(ctrl::MAXATTR, numbers::top::TIMEOUT_UDP.into());
    writer.nest(ctrl::OPS, |writer| {
        let commands = (cmd::NEW_SERVICE..=cmd::FLUSH).filter(|it| *it != cmd::SET_INFO);
        for (number, command) in (1..).zip(commands) {
            writer.nest(number, |writer| {
                writer.u32(ctrl::OP_ID, command.into());
                writer.u32(ctrl::OP_FLAGS, ADMIN_PERM | CAP_HASPOL | capabilities(command));
            });
        }
    });
}

fn capabilities(command: u8) -> u32 {
    match command {
        cmd::GET_SERVICE => CAP_DO | CAP_DUMP,
        cmd::GET_DEST | cmd::GET_DAEMON => CAP_DUMP,
        _ => CAP_DO,
    }
}
