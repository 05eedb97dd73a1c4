//! What the control plane asks of a worker's connections: to list them, or to end one.

use crate::lane::forget;
use crate::shared::{ConnRow, Dump, Kill};
use core::net::SocketAddr;
use rvs_conntrack::conn::{AWAITED, flag};
use rvs_conntrack::{Conn, Conns, Direction};
use rvs_model::{DestLine, Tick};
use rvs_wire::flow::{Ends, Key, protocol};
use rvs_wire::rewrite::Rewrite;

/// Connections listed per breath.
const DUMP_BUDGET: u32 = 256;

/// Ends a connection; `false` if it is not in this table.
pub(crate) fn kill<F: Rewrite>(conns: &mut Conns<F>, lines: &[DestLine], kill: Kill) -> bool {
    let end = |socket: SocketAddr| Some((F::address(socket.ip())?, socket.port()));
    let (Some(client), Some(vip)) = (end(kill.client), end(kill.vip)) else { return false };
    // Of a data connection that is awaited, the client's port is not known.
    let is_awaited = kill.protocol == protocol::TCP && client.1 == 0;
    let protocol = if is_awaited { AWAITED } else { kill.protocol };
    let key = Key::<F> { ends: <F::Ends as Ends>::new(client, vip), protocol };
    let found = conns.table().find(&key, conns.table().hash(&key));
    let found = found.filter(|found| found.direction == Direction::Inbound);
    let ended = found.and_then(|found| conns.remove(found.index));
    if let Some(conn) = &ended {
        forget(lines, conn);
    }
    ended.is_some()
}

/// Appends connections to `dump` until its room or the breath's budget is used up.
pub(crate) fn list<F: Rewrite>(conns: &Conns<F>, dump: &mut Dump, now: Tick) {
    let room = dump.rows.capacity().saturating_sub(dump.rows.len());
    let room = u32::try_from(room).unwrap_or(u32::MAX).min(DUMP_BUDGET);
    let rows = &mut dump.rows;
    let next = conns.table().scan(dump.from, room, |_, conn: &Conn<F>| {
        if conn.has(flag::SHADOW) {
            return;
        }
        rows.push(ConnRow {
            protocol: if conn.is_awaited() { protocol::TCP } else { conn.protocol },
            state: conn.state,
            template: conn.is_template().then(|| conn.template_protocol()),
            expires: conns.left(conn, now),
            age: now.wrapping_sub(conn.born),
            client: conn.inbound.source_socket(),
            vip: conn.inbound.destination_socket(),
            dest: conn.outbound.source_socket(),
            dest_id: conn.dest,
        });
    });
    match next {
        Some(next) => dump.from = next,
        None => dump.done = true,
    }
}
