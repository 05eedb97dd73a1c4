//! FTP through masquerading: what a control connection says of data connections (Linux 6.1
//! `ip_vs_ftp.c`).
//!
//! ```text
//!  client ── PASV ──────────► VIP:21          control connection      ──────────► server:21
//!         ◄─ 227 (VIP,p) ────                 rewritten, renumbered   ◄── 227 (server,p)
//!                                             awaited: (client, any port) → VIP:p → server:p
//!         ── SYN ───────────► VIP:p           its first packet        ──────────► server:p
//!
//!         ── PORT (client,q) ► VIP:21         read only               ──────────► server:21
//!                                             awaited: (client, q) → VIP:20 → server:20
//!         ◄─ SYN ─────── VIP:20                                       ◄── SYN, from port 20
//! ```
//!
//! A masquerading connection to port 21 is *helped*: the established lane leaves its packets alone,
//! and they come here one by one. A data connection is a line of the connection table in state
//! `LISTEN` until it begins. Of a passive one nobody knows the client's port, and hence the owner
//! (ADR 0002), beforehand: every worker awaits it, the one with the control connection lists and
//! counts it, and whoever gets its first packet tells the others. An active one is told to its owner.
//!
//! Not understood, as in the kernel: a line that a segment's end cuts in two, TLS, `EPSV ALL`.

use crate::balance::{Balance, take_in};
use crate::drop_reason::DropReason;
use crate::forward::{self, Sent};
use crate::handoff::{Inbox, Mesh};
use crate::icmp::Local;
use crate::lane::{Verdict, World, forget, line_of, moved, note};
use crate::neighbor::{Hop, HopId};
use crate::related::hop_of;
use crate::snapshot::FTP_PORT;
use crate::unfinished;
use arrayvec::ArrayString;
use core::fmt::Write as _;
use core::net::IpAddr;
use core::ops::Range;
use rvs_conntrack::conn::{AWAITED, flag};
use rvs_conntrack::{Conn, Conns, Direction, Found, state};
use rvs_io::Frame;
use rvs_model::{ForwardMethod, State, Tick};
use rvs_wire::checksum::{self, Delta};
use rvs_wire::flow::{Ends, Family, Key, protocol};
use rvs_wire::ftp::{self, Command};
use rvs_wire::packet::Packet;
use rvs_wire::rewrite::Rewrite;
use rvs_wire::stream::{self, Shift};
use rvs_wire::tcp::Tcp;

/// Control connections whose talk is remembered: one for so many connections that there is room for,
const CONNS_PER_TALK: u32 = 64;
/// but no more than this, 1 MB.
const TALKS_MAX: u32 = 16_384;
/// Places that the talk of one connection may have.
const WAYS: usize = 8;
/// Words of other workers heard in a breath, of each family.
const WORDS: usize = 64;

/// What a client asked for last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Passive,
    ExtendedPassive,
}

/// What a control connection is remembered for.
#[derive(Clone, Copy, Debug, Default)]
struct Talk<F: Family> {
    /// Its line; 0 is nobody's.
    line: u32,
    inbound: F::Ends,
    /// What its server has not answered yet.
    asked: Option<Asked>,
    /// The answer that was rewritten last, by its sequence number.
    told: Option<(Asked, u32)>,
    /// What rewriting did to the server's half of the stream.
    shift: Shift,
}

/// The talks of one family on one worker.
pub(crate) struct Talks<F: Family> {
    places: Vec<Talk<F>>,
    /// Until when a data connection may be awaited whose client's port is not known.
    awaited: Option<Tick>,
}

/// What workers tell each other of data connections.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word<F: Family> {
    /// It is announced.
    Await(Conn<F>),
    /// The one that was awaited by these ends has begun.
    Begun(F::Ends),
    /// One of this control connection lives.
    Alive(F::Ends),
}

impl<F: Family> Talks<F> {
    /// Beside a table of `conns` connections. All memory is taken now.
    pub(crate) fn new(conns: u32) -> Self {
        let talks = (conns / CONNS_PER_TALK).min(TALKS_MAX);
        let talks = usize::try_from(talks).unwrap_or_default().max(1).next_multiple_of(WAYS);
        Self { places: vec![Talk::default(); talks], awaited: None }
    }

    /// Whether a packet without a connection may begin a data connection.
    #[inline]
    pub(crate) fn awaits(&self) -> bool {
        self.awaited.is_some()
    }

    /// Where the talk of the connection in this line may be.
    fn set(&mut self, line: u32) -> &mut [Talk<F>] {
        let sets = self.places.len() / WAYS;
        let first = usize::try_from(line).unwrap_or_default() % sets.max(1) * WAYS;
        self.places.get_mut(first..first + WAYS).unwrap_or_default()
    }

    fn find(&mut self, line: u32, inbound: &F::Ends) -> Option<&mut Talk<F>> {
        self.set(line).iter_mut().find(|talk| talk.line == line && talk.inbound == *inbound)
    }

    /// The talk of a connection, its first word if need be; `None` if there is no place.
    fn begin(&mut self, line: u32, conns: &Conns<F>, inbound: &F::Ends) -> Option<&mut Talk<F>> {
        let set = self.set(line);
        let own = set.iter().position(|talk| talk.line == line && talk.inbound == *inbound);
        // A talk goes with its connection, which tells nobody.
        let is_over = |talk: &Talk<F>| {
            let conn = conns.table().conn(talk.line);
            conn.is_none_or(|conn| !conn.has(flag::HELPED) || conn.inbound != talk.inbound)
        };
        let place = own.or_else(|| set.iter().position(is_over))?;
        let talk = set.get_mut(place)?;
        if own.is_none() {
            *talk = Talk { line, inbound: *inbound, ..Talk::default() };
        }
        Some(talk)
    }

    /// A helped connection was opened in this line: what an older one of the same ends said is past.
    pub(crate) fn forget(&mut self, line: u32) {
        self.set(line).iter_mut().filter(|talk| talk.line == line).for_each(|talk| talk.line = 0);
    }

    /// Takes in a data connection, or awaits it again; `None` if there is no room.
    ///
    /// A client may name any host's address and port. If a connection of those is there that is not
    /// the one which it would get, that one stays as it is (Linux 6.1 `ip_vs_ftp.c` `ip_vs_ftp_in()`
    /// makes none then), unless it is over: a client soon uses a port again, perhaps with another server.
    ///
    /// DIFFERS from Linux, which puts into state `LISTEN` whatever connection is there, so that one of
    /// another's may end sooner.
    fn await_data(
        &mut self,
        conns: &mut Conns<F>,
        world: &World<'_>,
        balance: &Balance,
        data: &Conn<F>,
    ) -> Option<()>
    where
        F: Rewrite,
    {
        let key = data.key(Direction::Inbound);
        let line = line_of(world.lines, data)?;
        if data.is_awaited() {
            let lasts = world.snapshot.timeouts.ticks(State::Listen);
            self.awaited = Some(world.now.wrapping_add(lasts));
        }
        if let Some(found) = conns.find(&key, conns.table().hash(&key)) {
            let old = conns.table().conn(found.index)?;
            if (old.outbound, old.flags) == (data.outbound, data.flags) {
                if let Some(before) = conns.listen(found.index, world.now) {
                    moved(line, before, State::Listen);
                }
                return Some(());
            }
            if !data.is_awaited() && !state::is_reused(1, old.state, false) {
                return Some(());
            }
            let old = conns.remove(found.index)?;
            forget(world.lines, &old);
        }
        take_in(conns, conns.table().hash(&key), data, State::Listen, world).ok()?;
        // Linux 6.1 ip_vs_conn.c ip_vs_bind_dest(). No service counts it as a connection.
        if !data.has(flag::SHADOW) {
            line.step_load(false, true);
            balance.bound(data.dest);
        }
        Some(())
    }

    /// The connection of `packet`, which has none, if it begins one that is awaited (Linux 6.1
    /// `ip_vs_conn.c` `ip_vs_conn_in_get()`, `ip_vs_conn_fill_cport()`).
    #[cold]
    pub(crate) fn claim<B>(
        conns: &mut Conns<F>,
        world: &World<'_>,
        mesh: &Mesh<B>,
        packet: &Packet<F>,
    ) -> Option<Found>
    where
        F: Local,
    {
        let inbound = packet.key.ends;
        let (client, vip) = (inbound.source(), inbound.destination());
        let key = awaited_by::<F>(client.0, vip);
        let found = conns.find(&key, conns.table().hash(&key))?;
        let awaited = conns.remove(found.index)?;
        let data = Conn {
            inbound,
            outbound: <F::Ends as Ends>::new(awaited.outbound.source(), client),
            protocol: protocol::TCP,
            flags: flag::DATA,
            ..awaited
        };
        let hash = conns.table().hash(&packet.key);
        let Ok(index) = take_in(conns, hash, &data, State::Listen, world) else {
            forget(world.lines, &awaited);
            return None;
        };
        if awaited.has(flag::SHADOW) {
            line_of(world.lines, &data)?.step_load(false, true);
        }
        let _full = mesh.say(world.worker, Word::<F>::Begun(key.ends));
        Some(Found { index, direction: Direction::Inbound })
    }

    /// Takes note of what other workers say.
    #[cold]
    pub(crate) fn hear<B>(
        &mut self,
        conns: &mut Conns<F>,
        world: &World<'_>,
        balance: &Balance,
        inbox: &Inbox<B>,
    ) where
        F: Local,
    {
        for _ in 0..WORDS {
            let Some(told) = F::words(inbox).pop() else { return };
            match told {
                Word::Await(data) => {
                    let _full = self.await_data(conns, world, balance, &data);
                }
                Word::Begun(ends) => {
                    let key = Key { ends, protocol: AWAITED };
                    if let Some(found) = conns.find(&key, conns.table().hash(&key))
                        && let Some(awaited) = conns.remove(found.index)
                    {
                        forget(world.lines, &awaited);
                    }
                }
                Word::Alive(ends) => keep(conns, ends),
            }
        }
    }

    /// Looks once a second which data connections live, so that their control connections do.
    pub(crate) fn step<B>(&mut self, conns: &mut Conns<F>, world: &World<'_>, mesh: &Mesh<B>)
    where
        F: Local,
    {
        const HALF: Tick = 1 << 31;
        self.awaited = self.awaited.filter(|until| until.wrapping_sub(world.now) < HALF);
        let mut own = arrayvec::ArrayVec::<_, WORDS>::new();
        conns.take_alive(|data| {
            let (client, vip) = (data.inbound.source().0, data.inbound.destination().0);
            let port = u16::try_from(data.control).unwrap_or_default();
            let control = <F::Ends as Ends>::new((client, port), (vip, FTP_PORT));
            let _full = mesh.say(world.worker, Word::<F>::Alive(control));
            let _fits = own.try_push(control);
        });
        own.into_iter().for_each(|control| keep(conns, control));
    }
}

/// What a data connection is found by before its client's port is known.
fn awaited_by<F: Family>(client: F::Addr, vip: (F::Addr, u16)) -> Key<F> {
    Key { ends: <F::Ends as Ends>::new((client, 0), vip), protocol: AWAITED }
}

/// A control connection outlives its data connections.
fn keep<F: Family>(conns: &mut Conns<F>, control: F::Ends) {
    let key = Key { ends: control, protocol: protocol::TCP };
    if let Some(found) = conns.find(&key, conns.table().hash(&key))
        && let Some(conn) = conns.conn_mut(found.index).filter(|conn| conn.has(flag::HELPED))
    {
        conn.flags |= flag::IN_USE;
    }
}

/// Text in the place of other text.
struct Edit {
    /// Octets of the segment.
    place: Range<usize>,
    text: ArrayString<24>,
    asked: Asked,
}

/// A helped connection's packet, and what it takes to forward it.
pub(crate) struct Helper<'a, 'b, F: Family, B> {
    pub(crate) world: &'a World<'b>,
    pub(crate) conns: &'a mut Conns<F>,
    pub(crate) talks: &'a mut Talks<F>,
    pub(crate) balance: &'a Balance,
    pub(crate) hops: &'a [Hop],
    pub(crate) mesh: &'a Mesh<B>,
}

impl<F: Local, B: Frame> Helper<'_, '_, F, B> {
    /// What becomes of a packet of the connection at `found`.
    #[cold]
    #[inline(never)]
    pub(crate) fn forward(&mut self, found: Found, packet: &Packet<F>, frame: &mut B) -> Verdict {
        self.carry(found, packet, frame).unwrap_or_else(Verdict::from)
    }

    fn carry(
        &mut self,
        found: Found,
        packet: &Packet<F>,
        frame: &mut B,
    ) -> Result<Verdict, DropReason> {
        let is_outbound = found.direction == Direction::Outbound;
        // Linux 6.1 ip_vs_core.c: ip_vs_in() counts a packet and moves the state before the helper
        // sees it, handle_response() afterwards.
        if !is_outbound {
            self.note(found, packet)?;
        }
        let conn = *self.conns.table().conn(found.index).ok_or(DropReason::NoRoute)?;
        let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
        let octets = usize::from(packet.packet_octets);
        if frame.unfinished().is_some() && frame.resize(l3 + octets) {
            // For us to read; whoever finishes it computes it again.
            unfinished::sum_up(frame);
        }
        let ip = frame.octets().get(l3..l3 + octets).ok_or(DropReason::NoHeadroom)?;
        let segment = ip.get(l4..).ok_or(DropReason::NoHeadroom)?;
        let sequence = Tcp::parse(segment).map_or(0, |(tcp, _)| tcp.sequence());
        let edit = if F::piece(ip).is_ok_and(|piece| piece.is_some()) {
            None
        } else {
            if !is_right::<F>(packet, segment) {
                return Err(DropReason::FtpChecksum);
            }
            self.read(found, &conn, segment)?
        };
        let (hop_id, hop) = hop_of(&conn, found.direction, self.hops).ok_or(DropReason::NoRoute)?;
        let sent = forward::in_place(&conn, found.direction, packet, hop, frame);
        if !sent.is_sent() {
            return Ok(sent.verdict(hop_id, packet.l3));
        }
        let mut packet = *packet;
        if let Some(talk) = self.talks.find(found.index, &conn.inbound) {
            let segment = frame.octets_mut().get_mut(l3 + l4..).unwrap_or_default();
            if is_outbound {
                stream::renumber_onward(segment, &talk.shift);
            } else {
                stream::renumber_back(segment, &talk.shift);
            }
            if let Some(edit) = edit {
                let (from, to) = (edit.place.len(), edit.text.len());
                let now = replace::<F, B>(&conn, &packet, edit, talk, sequence, frame)
                    .ok_or(DropReason::NoHeadroom)?;
                let fits = now <= hop.mtu || unfinished::fits_in_segments(frame, l3, hop.mtu);
                if !fits && !matches!(sent, Sent::ToFragment { .. }) {
                    return Err(DropReason::TooBig);
                }
                packet.packet_octets = now;
                talk.shift.change(sequence, from, to);
            }
        }
        if is_outbound {
            self.note(found, &packet)?;
        }
        Ok(match sent {
            Sent::Framed => Verdict::Out { link: hop.link },
            _ => sent.verdict(hop_id, packet.l3),
        })
    }

    fn note(&mut self, found: Found, packet: &Packet<F>) -> Result<(), DropReason> {
        let mut held = self.conns.held(found, &packet.key).ok_or(DropReason::NoRoute)?;
        let line = line_of(self.world.lines, &held).ok_or(DropReason::NoRoute)?;
        let is_outbound = found.direction == Direction::Outbound;
        note(&mut held, line, packet, is_outbound, self.world.now);
        Ok(())
    }

    /// Acts on what a segment says, and what is to be said instead.
    fn read(
        &mut self,
        found: Found,
        conn: &Conn<F>,
        segment: &[u8],
    ) -> Result<Option<Edit>, DropReason> {
        let Ok((tcp, data)) = Tcp::parse(segment) else { return Ok(None) };
        if conn.state != State::Established || data.is_empty() {
            return Ok(None);
        }
        if found.direction == Direction::Outbound {
            let reply = self.read_reply(found.index, conn, tcp.sequence(), data)?;
            let begin = tcp.header_len();
            return Ok(reply.map(|Edit { place, text, asked }| Edit {
                place: begin + place.start..begin + place.end,
                text,
                asked,
            }));
        }
        let asked = match ftp::command(data, F::IS_V6) {
            None => return Ok(None),
            Some(Command::Active(address, port)) => {
                if let Some(talk) = self.talks.find(found.index, &conn.inbound) {
                    talk.asked = None;
                }
                self.await_active(conn, address, port)?;
                return Ok(None);
            }
            Some(Command::Passive) => Asked::Passive,
            Some(Command::ExtendedPassive) => Asked::ExtendedPassive,
        };
        let talk = self.talks.begin(found.index, self.conns, &conn.inbound);
        talk.ok_or(DropReason::FtpFull)?.asked = Some(asked);
        Ok(None)
    }

    /// Linux 6.1 `ip_vs_ftp.c` `ip_vs_ftp_out()`.
    ///
    /// DIFFERS from Linux in a reply that the server sends again, since it was lost: it is rewritten
    /// again. There it names the server's own address, and the stream has a hole.
    fn read_reply(
        &mut self,
        index: u32,
        conn: &Conn<F>,
        sequence: u32,
        data: &[u8],
    ) -> Result<Option<Edit>, DropReason> {
        let Some(talk) = self.talks.find(index, &conn.inbound) else { return Ok(None) };
        let again = talk.told.filter(|(_, told)| *told == sequence).map(|(asked, _)| asked);
        let Some(asked) = again.or(talk.asked) else { return Ok(None) };
        let is_extended = asked == Asked::ExtendedPassive;
        let Some(said) = ftp::passive(data, is_extended, F::IS_V6) else { return Ok(None) };
        let vip = conn.inbound.destination().0;
        if again.is_none() {
            let own = conn.outbound.source().0;
            let from = said.address.and_then(F::address).unwrap_or(own);
            let client = conn.inbound.source().0;
            let data = data_conn(conn, (client, 0), (vip, said.port), (from, said.port));
            self.await_passive(&data).ok_or(DropReason::FtpFull)?;
        }
        let mut text = ArrayString::new();
        let written = match vip.into() {
            IpAddr::V4(vip) if !is_extended => {
                let ([a, b, c, d], [e, f]) = (vip.octets(), said.port.to_be_bytes());
                write!(text, "{a},{b},{c},{d},{e},{f}")
            }
            _ => write!(text, "|||{}|", said.port),
        };
        Ok(written.ok().map(|()| Edit { place: said.place, text, asked }))
    }

    /// Every worker awaits it.
    fn await_passive(&mut self, data: &Conn<F>) -> Option<()> {
        self.talks.await_data(self.conns, self.world, self.balance, data)?;
        let shadow = Conn { flags: data.flags | flag::SHADOW, ..*data };
        self.mesh.say(self.world.worker, Word::Await(shadow))
    }

    /// Its owner awaits it. Linux 6.1 `ip_vs_ftp.c` `ip_vs_ftp_in()`: from the port before the server's
    /// own, and the VIP's.
    fn await_active(
        &mut self,
        conn: &Conn<F>,
        address: IpAddr,
        port: u16,
    ) -> Result<(), DropReason> {
        let World { snapshot, worker, steering, .. } = *self.world;
        let Some(client) = F::address(address).filter(|_| !snapshot.network.is_no_host(address))
        else {
            return Ok(());
        };
        let (vip, vip_port) = conn.inbound.destination();
        let (dest, dest_port) = conn.outbound.source();
        let ends = ((vip, vip_port.wrapping_sub(1)), (dest, dest_port.wrapping_sub(1)));
        let data = data_conn(conn, (client, port), ends.0, ends.1);
        let owner = if steering.is_single() {
            worker
        } else {
            self.world.owner(&data.key(Direction::Outbound), false, (0, 0))
        };
        let told = if owner == worker {
            self.talks.await_data(self.conns, self.world, self.balance, &data)
        } else {
            let inbox = self.mesh.inbox(owner);
            inbox.and_then(|inbox| F::words(inbox).push(Word::Await(data)).ok())
        };
        told.ok_or(DropReason::FtpFull)
    }
}

/// Whether the checksum holds: text is not read that the client's or the server's stack would throw
/// away (Linux 6.1 `ip_vs_proto_tcp.c` `tcp_csum_check()`).
fn is_right<F: Local>(packet: &Packet<F>, segment: &[u8]) -> bool {
    let (from, to) = (packet.key.ends.source().0, packet.key.ends.destination().0);
    u16::try_from(segment.len()).is_ok_and(|octets| {
        checksum::is_right(segment, F::pseudo_sum(from, to, protocol::TCP, octets))
    })
}

/// A data connection of the control connection `conn`.
fn data_conn<F: Rewrite>(
    conn: &Conn<F>,
    client: (F::Addr, u16),
    vip: (F::Addr, u16),
    dest: (F::Addr, u16),
) -> Conn<F> {
    let (address_delta, segment_delta) = Delta::end::<F>(vip, dest);
    Conn {
        inbound: <F::Ends as Ends>::new(client, vip),
        outbound: <F::Ends as Ends>::new(dest, client),
        protocol: if client.1 == 0 { AWAITED } else { protocol::TCP },
        state: State::Listen,
        method: ForwardMethod::Masquerade,
        flags: flag::DATA,
        dest: conn.dest,
        // Nobody's: found when the first packet comes.
        next_hop: HopId::MAX,
        client_hop: HopId::MAX,
        address_delta,
        segment_delta,
        mark: conn.mark,
        control: conn.inbound.source().1.into(),
        ..Conn::default()
    }
}

/// Carries out an edit in a frame that is rewritten already. How long the packet is then.
fn replace<F: Local, B: Frame>(
    conn: &Conn<F>,
    packet: &Packet<F>,
    edit: Edit,
    talk: &mut Talk<F>,
    sequence: u32,
    frame: &mut B,
) -> Option<u16> {
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    let octets = usize::from(packet.packet_octets);
    if !frame.resize(l3 + octets + edit.text.len()) {
        return None;
    }
    let place = frame.octets_mut().get_mut(l3..)?;
    let ends = conn.inbound.reversed();
    let text = edit.text.as_bytes();
    let now = stream::replace::<F>(place, (l4, octets), ends, edit.place, text)?;
    talk.asked = None;
    talk.told = Some((edit.asked, sequence));
    frame.resize(l3 + now).then_some(())?;
    u16::try_from(now).ok()
}
