//! Everything that is not a connection's: neighbours, packets to the director itself, routing, errors.
//!
//! ```text
//!              ┌ ARP, neighbour discovery ─► learn, answer
//!  take ───────┼ to one of our addresses ──► echo reply, reset, port unreachable
//!              └ to anybody else ──────────► route: hop limit, next hop, MTU
//!
//!  transmit: hop resolved? header, out : wait, ask
//! ```
//!
//! Not for speed: these packets are few, and what a flood of them can make the director do is bounded
//! by [`Limiter`], the neighbour table and the queue of each neighbour.

use crate::announce::Announcer;
use crate::atlas::is_martian;
use crate::drop_reason::{DropIndex, DropReason};
use crate::fragment;
use crate::handoff::{Heard, Mesh};
use crate::icmp::{Limiter, Local, Look, segment_is_right, write_abort, write_reset};
use crate::ident::Idents;
use crate::links::Links;
use crate::neighbor::{Held, HopId, Neighbors, News, Place, Question};
use crate::network::{Interface, InterfaceId, NextHop};
use crate::snapshot::Snapshot;
use crate::unfinished;
use core::net::{IpAddr, Ipv6Addr};
use rvs_io::{Frame, Queue};
use rvs_model::Tick;
use rvs_wire::arp::{Arp, Operation};
use rvs_wire::ethernet::{Ethernet, ethertype, header, tagged_header};
use rvs_wire::flow::{Ends as _, V4, V6, protocol};
use rvs_wire::icmp::{ERROR_MAX, Error, Kind};
use rvs_wire::ipv6::Ipv6;
use rvs_wire::mac::MacAddr;
use rvs_wire::mld;
use rvs_wire::ndp::{Message, Ndp};

/// Where a packet begins in the frames that the director makes; its Ethernet header is put right
/// before it.
pub(crate) const L3: u16 = 14;

/// News from other workers per breath.
const HEARD_BUDGET: usize = 64;

/// What one worker keeps for it.
pub(crate) struct Stack<B> {
    pub(crate) neighbors: Neighbors<B>,
    pub(crate) announcer: Announcer,
    limiter: Limiter,
    idents: Idents,
}

impl<B: Frame> Stack<B> {
    pub(crate) fn new(neighbors_max: usize, idents: Idents, now: Tick) -> Self {
        Self {
            neighbors: Neighbors::new(neighbors_max),
            announcer: Announcer::new(now),
            limiter: Limiter::new(now),
            idents,
        }
    }

    /// The stack at work.
    pub(crate) fn desk<'d, Q: Queue<Frame = B>>(
        &'d mut self,
        links: &'d mut Links<Q>,
        snapshot: &'d Snapshot,
        mesh: &'d Mesh<B>,
        worker: u16,
        now: Tick,
    ) -> Desk<'d, Q> {
        Desk { stack: self, links, snapshot, mesh, worker, now }
    }
}

/// The stack with all that it needs to act.
pub(crate) struct Desk<'d, Q: Queue> {
    pub(crate) stack: &'d mut Stack<Q::Frame>,
    pub(crate) links: &'d mut Links<Q>,
    pub(crate) snapshot: &'d Snapshot,
    pub(crate) mesh: &'d Mesh<Q::Frame>,
    pub(crate) worker: u16,
    pub(crate) now: Tick,
}

impl<Q: Queue> Desk<'_, Q> {
    /// Sends a packet to a hop, now or when its address is known.
    pub(crate) fn transmit(&mut self, hop: HopId, frame: Q::Frame, l3: u16) {
        if let Some(ready) = self.stack.neighbors.hop(hop).filter(|hop| hop.is_ready()) {
            self.links.push_to(ready, frame, l3);
            return;
        }
        let is_long = frame.unfinished().is_some_and(|left| left.segments.is_some());
        match self.stack.neighbors.hold(hop, Held { frame, l3, is_long }, self.now) {
            Ok(Some(question)) => self.ask(question),
            Ok(None) => {}
            Err((frame, reason)) => self.links.drop(frame, reason),
        }
    }

    /// The same for a packet that is too long, in pieces of `mtu` octets.
    #[cold]
    pub(crate) fn transmit_in_pieces(
        &mut self,
        hop: HopId,
        mut frame: Q::Frame,
        l3: u16,
        mtu: u16,
    ) {
        if unfinished::finish(&mut frame, l3.into()).is_some() {
            return unfinished::each_segment(self, frame, l3, |desk, segment, octets| {
                desk.transmit_fitting(hop, segment, l3, octets.into());
            });
        }
        let ident = self.stack.idents.next();
        match fragment::split(self.links, frame, l3, mtu, ident) {
            Ok(pieces) => {
                for piece in pieces {
                    self.transmit(hop, piece, l3);
                }
            }
            Err((frame, reason)) => self.links.drop(frame, reason),
        }
    }

    /// Sends a packet of `octets` that may be cut, whole if it fits.
    fn transmit_fitting(&mut self, hop: HopId, frame: Q::Frame, l3: u16, octets: usize) {
        let mtu = self.stack.neighbors.hop(hop).map_or(0, |hop| hop.mtu);
        if octets <= usize::from(mtu) || unfinished::fits_in_segments(&frame, l3.into(), mtu) {
            self.transmit(hop, frame, l3);
        } else {
            self.transmit_in_pieces(hop, frame, l3, mtu);
        }
    }

    /// A packet or message that is no connection's.
    pub(crate) fn take(&mut self, frame: Q::Frame, link: u8, l3: u16, vlan: u16) {
        let Some(interface) = self.snapshot.network.interface_of(link, vlan) else {
            self.links.drop(frame, DropReason::VlanUnknown);
            return;
        };
        let octets = frame.octets();
        let Some((ethernet, packet)) = Ethernet::parse(octets).ok().zip(octets.get(l3.into()..))
        else {
            self.links.drop(frame, DropReason::LocalIgnored);
            return;
        };
        let unicast = !ethernet.0.destination().is_multicast();
        match packet.first().map(|first| first >> 4) {
            Some(4) => self.packet::<V4>(frame, interface, l3, unicast),
            Some(6) => self.packet::<V6>(frame, interface, l3, unicast),
            _ => self.arp(frame, interface, l3),
        }
    }

    /// The hop limit of a connection's packet ran out.
    #[cold]
    pub(crate) fn refuse_exceeded(&mut self, frame: Q::Frame, link: u8, l3: u16) {
        self.refuse_either(frame, link, l3, Error::TimeExceeded, DropReason::HopLimit);
    }

    /// A connection's packet does not fit.
    #[cold]
    pub(crate) fn refuse_too_big(&mut self, frame: Q::Frame, link: u8, l3: u16, mtu: u16) {
        self.refuse_either(frame, link, l3, Error::TooBig { mtu }, DropReason::TooBig);
    }

    /// A service has no destination: Linux 6.1 `ip_vs_core.c` `ip_vs_leave()`.
    #[cold]
    pub(crate) fn refuse_no_dest(&mut self, frame: Q::Frame, link: u8, l3: u16) {
        self.refuse_either(frame, link, l3, Error::PortUnreachable, DropReason::NoDest);
    }

    /// A real server answers nobody: Linux 6.1 `ip_vs_core.c` `ip_vs_out_hook()`.
    #[cold]
    pub(crate) fn refuse_no_conn(&mut self, frame: Q::Frame, link: u8, l3: u16) {
        self.refuse_either(frame, link, l3, Error::PortUnreachable, DropReason::NoConnection);
    }

    /// Timers of neighbours, and what other workers heard of them.
    pub(crate) fn tick(&mut self) {
        if let Some(inbox) = self.mesh.inbox(self.worker) {
            for _ in 0..HEARD_BUDGET {
                let Some(Heard { interface, address, news }) = inbox.heard() else { break };
                self.learn((interface, address), News { create: false, ..news });
            }
        }
        if !self.stack.announcer.is_silent() {
            self.announce();
        }
        let Some(due) = self.stack.neighbors.tick(self.now) else { return };
        for question in due.questions {
            self.ask(question);
        }
        for held in due.given_up {
            self.links.drop(held.frame, DropReason::NeighborUnresolved);
        }
    }

    fn refuse_either(
        &mut self,
        frame: Q::Frame,
        link: u8,
        l3: u16,
        error: Error,
        reason: DropReason,
    ) {
        let from = self.interface_of(&frame, link, l3);
        let first = frame.octets().get(usize::from(l3)).copied().unwrap_or_default();
        if first >> 4 == 6 {
            self.refuse::<V6>(frame, from, l3, error, reason);
        } else {
            self.refuse::<V4>(frame, from, l3, error, reason);
        }
    }

    /// Where a frame came in.
    pub(crate) fn interface_of(&self, frame: &Q::Frame, link: u8, l3: u16) -> InterfaceId {
        // A tagged frame's packet begins four octets later.
        let tag = frame.octets().get(14..16).filter(|_| l3 > L3);
        let vlan = tag.and_then(<[u8]>::first_chunk).map_or(0, |tag| u16::from_be_bytes(*tag));
        self.snapshot.network.interface_of(link, vlan & 0x0fff).unwrap_or_default()
    }

    /// Tells the sender of a packet what is wrong with it, if it may be told, and drops the frame.
    fn refuse<F: Local>(
        &mut self,
        frame: Q::Frame,
        from: InterfaceId,
        l3: u16,
        error: Error,
        reason: DropReason,
    ) {
        let packet = frame.octets().get(usize::from(l3)..).unwrap_or_default();
        let told = match F::look(packet) {
            Some(look) => {
                let about = packet.get(..look.octets).unwrap_or_default();
                self.tell::<F>(about, (look.source, look.destination), from, error)
            }
            None => Ok(()),
        };
        self.links.drop(frame, told.err().unwrap_or(reason));
    }

    /// Passes an error about one of our tunnels on to who sent the packet inside, which the frame
    /// quotes from `at` to `end`.
    #[cold]
    pub(crate) fn pass_on(
        &mut self,
        frame: Q::Frame,
        link: u8,
        l3: u16,
        (at, end): (usize, usize),
        error: Error,
    ) {
        let from = self.interface_of(&frame, link, l3);
        let about = frame.octets().get(at..end).unwrap_or_default();
        let told = if about.first().is_some_and(|first| first >> 4 == 6) {
            self.tell_quoted::<V6>(about, from, error)
        } else {
            self.tell_quoted::<V4>(about, from, error)
        };
        self.links.drop(frame, told.err().unwrap_or(DropReason::Answered));
    }

    fn tell_quoted<F: Local>(
        &mut self,
        about: &[u8],
        from: InterfaceId,
        error: Error,
    ) -> Result<(), DropReason> {
        let Ok(Some(quoted)) = F::quoted(about) else { return Err(DropReason::IcmpIgnored) };
        let (source, destination) = (quoted.key.ends.source().0, quoted.key.ends.destination().0);
        self.tell::<F>(about, (source, destination), from, error)
    }

    /// Sends the error, if there may be one about this packet; says why not if too many were sent.
    fn tell<F: Local>(
        &mut self,
        about: &[u8],
        ends: (F::Addr, F::Addr),
        from: InterfaceId,
        error: Error,
    ) -> Result<(), DropReason> {
        if !F::deserves_error(about) {
            return Ok(());
        }
        if !self.may_tell(error) {
            return Err(DropReason::RateLimited);
        }
        if let Some(source) = self.error_source::<F>(ends)
            && let Some(mut answer) = self.links.originate(usize::from(L3) + ERROR_MAX)
        {
            let ident = self.stack.idents.next();
            let place = answer.octets_mut().get_mut(usize::from(L3)..).unwrap_or_default();
            let written = F::write_error(error, source, about, ident, place);
            self.send_made(answer, written, from, ends.0.into());
        }
        Ok(())
    }

    /// Whether the rate of errors allows for this one. News of a link's MTU always goes out, or a
    /// flood of anything else would stop path MTU discovery (Linux 6.1 `net/ipv4/icmp.c`
    /// `icmpv4_mask_allow()`, `net/ipv6/icmp.c` `icmpv6_mask_allow()`).
    fn may_tell(&mut self, error: Error) -> bool {
        matches!(error, Error::TooBig { .. }) || self.stack.limiter.allow(self.now)
    }

    /// The source of an error: the address that the packet was for if that is ours, else the one
    /// that we have towards its sender. IPv6 does not take an address that is ours only as part of
    /// a local network (Linux 6.1 `net/ipv6/icmp.c` `icmp6_send()`).
    fn error_source<F: Local>(&self, (source, to): (F::Addr, F::Addr)) -> Option<F::Addr> {
        let network = &self.snapshot.network;
        let own = if F::IS_V6 { network.is_own(to.into()) } else { network.is_local(to.into()) };
        if own {
            return Some(to);
        }
        network.source_towards(source.into()).and_then(F::address)
    }

    /// Sends a packet of our own towards `to`, through `from` if `to` is only known there.
    fn send_made(
        &mut self,
        mut frame: Q::Frame,
        written: Option<usize>,
        from: InterfaceId,
        to: IpAddr,
    ) {
        let fits = written.is_some_and(|octets| frame.resize(usize::from(L3) + octets));
        match self.hop_back(from, to).filter(|_| fits) {
            Ok(hop) => self.transmit(hop, frame, L3),
            Err(reason) => self.links.drop(frame, reason),
        }
    }

    fn hop_back(&mut self, from: InterfaceId, to: IpAddr) -> Result<HopId, DropReason> {
        let network = &self.snapshot.network;
        let neighbors = &mut self.stack.neighbors;
        if !is_link_local(to) {
            return neighbors.resolve_towards(network, network.about(to), to, self.now);
        }
        let next = NextHop { interface: from, address: to, on_link: true };
        let hop = neighbors.resolve(network, next, Place::Guest, self.now);
        hop.ok_or(DropReason::NeighborTableFull)
    }

    fn packet<F: Local>(
        &mut self,
        frame: Q::Frame,
        interface: InterfaceId,
        l3: u16,
        unicast: bool,
    ) {
        let packet = frame.octets().get(usize::from(l3)..).unwrap_or_default();
        let Some(look) = F::look(packet) else {
            self.links.drop(frame, DropReason::LocalIgnored);
            return;
        };
        let network = &self.snapshot.network;
        let to: IpAddr = look.destination.into();
        if F::IS_V6 && look.protocol == protocol::ICMPV6 && !look.is_fragment {
            let packet = packet.get(..look.octets).unwrap_or_default();
            match read_ndp(packet, look.l4) {
                Ok(None) if mld::is_query(packet) => {
                    self.stack.announcer.asked(interface, self.now);
                    self.links.drop(frame, DropReason::Consumed);
                    return;
                }
                Ok(None) => {}
                Ok(Some((source, message))) => {
                    let mac = Ethernet::parse(frame.octets()).map(|(it, _)| it.source());
                    let reason = self.neighbor(interface, source, mac.ok(), message);
                    self.links.drop(frame, reason);
                    return;
                }
                Err(reason) => {
                    self.links.drop(frame, reason);
                    return;
                }
            }
        }
        if !unicast || to.is_multicast() || network.is_broadcast(to) {
            self.links.drop(frame, DropReason::Multicast);
        } else if network.is_no_host(look.source.into()) || is_martian(to) {
            self.links.drop(frame, DropReason::Martian);
        } else if network.is_local(to) {
            self.local::<F>(frame, interface, l3, look);
        } else {
            self.route::<F>(frame, interface, l3, look);
        }
    }

    /// A packet to one of our addresses that no service takes.
    fn local<F: Local>(
        &mut self,
        mut frame: Q::Frame,
        interface: InterfaceId,
        l3: u16,
        look: Look<F::Addr>,
    ) {
        if look.is_fragment {
            self.links.drop(frame, DropReason::Fragment);
            return;
        }
        let at = usize::from(l3);
        let whole = frame.resize(at + look.octets);
        unfinished::sum_up(&mut frame);
        let packet = frame.octets().get(at..).filter(|_| whole).unwrap_or_default();
        match look.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP
                if !segment_is_right::<F>(packet, &look) =>
            {
                self.links.drop(frame, DropReason::SegmentChecksum);
            }
            protocol::TCP | protocol::SCTP => self.reset::<F>(frame, interface, l3, &look, true),
            protocol::UDP => {
                self.refuse::<F>(
                    frame,
                    interface,
                    l3,
                    Error::PortUnreachable,
                    DropReason::Answered,
                );
            }
            number if number == F::PROTOCOL => self.echo::<F>(frame, interface, l3, &look),
            _ => self.links.drop(frame, DropReason::LocalIgnored),
        }
    }

    pub(crate) fn reset<F: Local>(
        &mut self,
        frame: Q::Frame,
        interface: InterfaceId,
        l3: u16,
        look: &Look<F::Addr>,
        is_limited: bool,
    ) {
        let packet = frame.octets().get(usize::from(l3)..).unwrap_or_default();
        // Longest: IPv6 and TCP without options.
        let mut octets = [0; 60];
        let write = match look.protocol {
            protocol::SCTP => write_abort::<F>,
            _ => write_reset::<F>,
        };
        let reason = match write(packet, look, &mut octets) {
            None => DropReason::LocalIgnored,
            Some(_) if is_limited && !self.stack.limiter.allow(self.now) => DropReason::RateLimited,
            Some(len) => match self.links.originate(usize::from(L3) + len) {
                None => DropReason::NoFrame,
                Some(mut answer) => {
                    let place = answer.octets_mut().get_mut(usize::from(L3)..);
                    for (place, octet) in place.unwrap_or_default().iter_mut().zip(octets) {
                        *place = octet;
                    }
                    self.send_made(answer, Some(len), interface, look.source.into());
                    DropReason::Answered
                }
            },
        };
        self.links.drop(frame, reason);
    }

    /// The frame of an echo request becomes its reply.
    fn echo<F: Local>(
        &mut self,
        mut frame: Q::Frame,
        interface: InterfaceId,
        l3: u16,
        look: &Look<F::Addr>,
    ) {
        let ident = self.stack.idents.next();
        let packet = frame.octets_mut().get_mut(usize::from(l3)..).unwrap_or_default();
        let reason: DropIndex = match F::message(packet, look.l4) {
            Err(unusable) => unusable.into(),
            Ok((Kind::EchoRequest, _)) => {
                let octets = F::echo_reply(packet, look.l4, ident).unwrap_or_default();
                let made = octets > 0 && frame.resize(usize::from(l3) + octets);
                match self.hop_back(interface, look.source.into()).filter(|_| made) {
                    Ok(hop) => return self.transmit_fitting(hop, frame, l3, octets),
                    Err(reason) => reason.into(),
                }
            }
            Ok(_) => DropReason::IcmpIgnored.into(),
        };
        self.links.drop(frame, reason);
    }

    /// A packet to somebody else: RFC 1812 section 5.2, in the order of Linux 6.1 `ip_forward.c`
    /// `ip_forward()`.
    fn route<F: Local>(
        &mut self,
        mut frame: Q::Frame,
        interface: InterfaceId,
        l3: u16,
        look: Look<F::Addr>,
    ) {
        let network = &self.snapshot.network;
        let to: IpAddr = look.destination.into();
        if !network.forwards() || is_link_local(to) || is_link_local(look.source.into()) {
            self.links.drop(frame, DropReason::NotForwarded);
            return;
        }
        if look.hops <= 1 {
            self.refuse::<F>(frame, interface, l3, Error::TimeExceeded, DropReason::HopLimit);
            return;
        }
        let about = network.about(to);
        let hop = match self.stack.neighbors.resolve_towards(network, about, to, self.now) {
            Ok(hop) => hop,
            Err(reason @ DropReason::NoRoute) => {
                self.refuse::<F>(frame, interface, l3, Error::NetUnreachable, reason);
                return;
            }
            Err(reason) => {
                self.links.drop(frame, reason);
                return;
            }
        };
        let at = usize::from(l3);
        let mtu = self.stack.neighbors.hop(hop).map_or(0, |hop| hop.mtu);
        let whole = frame.resize(at + look.octets);
        let fits = look.octets <= usize::from(mtu) || unfinished::fits_in_segments(&frame, at, mtu);
        let packet = frame.octets_mut().get_mut(at..).filter(|_| whole).unwrap_or_default();
        if !fits && F::dont_fragment(packet) {
            self.refuse::<F>(frame, interface, l3, Error::TooBig { mtu }, DropReason::TooBig);
        } else if F::direct(packet).is_err() {
            self.links.drop(frame, DropReason::HopLimit);
        } else {
            self.transmit_fitting(hop, frame, l3, look.octets);
        }
    }

    fn arp(&mut self, frame: Q::Frame, interface: InterfaceId, l3: u16) {
        let packet = frame.octets().get(usize::from(l3)..).unwrap_or_default();
        let reason: DropIndex = match Arp::parse(packet) {
            Err(unusable) => unusable.into(),
            Ok((message, _)) => self.arp_message(&message, interface).into(),
        };
        self.links.drop(frame, reason);
    }

    fn arp_message(&mut self, message: &Arp, at: InterfaceId) -> DropReason {
        let network = &self.snapshot.network;
        let (mac, sender) = message.sender;
        let for_us = network.is_local(message.target.1.into());
        // RFC 5227: a probe has no sender address, and nothing is learnt from it.
        let is_probe = sender.is_unspecified();
        if mac.is_multicast() || network.is_local(sender.into()) {
            return DropReason::ArpIgnored;
        }
        if !is_probe && network.is_connected(at, sender.into()) {
            let solicited = message.operation == Operation::Reply && for_us;
            // Who asks for us is about to talk to us. An answer to nothing makes no entry (Linux:
            // `arp_accept` 0), or who sends many would fill the table with such as answered.
            let create = message.operation == Operation::Request && for_us;
            let news = News { mac, solicited, overrides: true, create };
            self.learn_and_tell((at, sender.into()), news);
        }
        if message.operation != Operation::Request || !for_us {
            return if for_us { DropReason::Consumed } else { DropReason::ArpIgnored };
        }
        let Some(interface) = network.interface(at) else { return DropReason::ArpIgnored };
        let reply = message.reply(interface.mac);
        self.send_message(interface, mac, ethertype::ARP, &reply.octets());
        DropReason::Consumed
    }

    fn neighbor(
        &mut self,
        at: InterfaceId,
        source: Ipv6Addr,
        from: Option<MacAddr>,
        message: Ndp,
    ) -> DropReason {
        let network = &self.snapshot.network;
        match message {
            Ndp::Solicitation { target, source: said } => {
                let Some(interface) = network.interface(at) else {
                    return DropReason::NdpIgnored;
                };
                if !network.is_local_on(at, target) || network.is_local(source.into()) {
                    return DropReason::NdpIgnored;
                }
                let asks_for_duplicates = source.is_unspecified();
                let known = network.is_connected(at, source.into()) || is_link_local(source.into());
                if let Some(mac) = said.filter(|mac| !asks_for_duplicates && !mac.is_multicast())
                    && known
                {
                    let news = News { mac, solicited: false, overrides: true, create: true };
                    self.learn_and_tell((at, source.into()), news);
                }
                let asked_by = if asks_for_duplicates {
                    None
                } else {
                    match said.or(from) {
                        Some(mac) => Some((mac, source)),
                        None => return DropReason::NdpIgnored,
                    }
                };
                let ours = (interface.mac, target);
                let answer = Message::advertisement(ours, asked_by, network.forwards());
                self.send_message(interface, answer.to, ethertype::IPV6, &answer.packet);
            }
            Ndp::Advertisement { target, at: said, solicited, overrides, .. } => {
                let Some(mac) = said.or(from).filter(|mac| !mac.is_multicast()) else {
                    return DropReason::NdpIgnored;
                };
                if network.is_local(target.into()) {
                    return DropReason::NdpIgnored;
                }
                let news = News { mac, solicited, overrides, create: false };
                self.learn_and_tell((at, target.into()), news);
            }
        }
        DropReason::Consumed
    }

    fn learn_and_tell(&mut self, who: (InterfaceId, IpAddr), news: News) {
        self.learn(who, news);
        let (interface, address) = who;
        self.mesh.tell(self.worker, Heard { interface, address, news });
    }

    /// Takes in where a neighbour is, and sends what waited for it.
    fn learn(&mut self, who: (InterfaceId, IpAddr), news: News) {
        let network = &self.snapshot.network;
        let Some(id) = self.stack.neighbors.learn(network, who, news, self.now) else { return };
        for held in self.stack.neighbors.release(id) {
            self.transmit(id, held.frame, held.l3);
        }
    }

    /// Asks where a neighbour is.
    fn ask(&mut self, question: Question) {
        let network = &self.snapshot.network;
        let Some(interface) = network.interface(question.interface) else { return };
        let source = network.source_on(question.interface, question.address);
        match (question.address, source) {
            (IpAddr::V4(wanted), Some(IpAddr::V4(source))) => {
                let request = Arp::request((interface.mac, source), wanted);
                let to = question.to.unwrap_or(MacAddr::BROADCAST);
                self.send_message(interface, to, ethertype::ARP, &request.octets());
            }
            (IpAddr::V6(target), source) => {
                let own = crate::network::link_local(interface.mac);
                let source = match source {
                    Some(IpAddr::V6(source)) if !is_link_local(target.into()) => source,
                    _ => own,
                };
                let message = Message::solicitation((interface.mac, source), target);
                let to = question.to.unwrap_or(message.to);
                self.send_message(interface, to, ethertype::IPV6, &message.packet);
            }
            _ => {}
        }
    }

    /// Sends a message of our own in a frame of its own.
    pub(crate) fn send_message(
        &mut self,
        interface: &Interface,
        to: MacAddr,
        kind: u16,
        message: &[u8],
    ) {
        let plain = header(to, interface.mac, kind);
        let tagged = tagged_header(to, interface.mac, interface.vlan, kind);
        let front = if interface.vlan == 0 { plain.as_slice() } else { tagged.as_slice() };
        if let Some(mut frame) = self.links.originate(front.len() + message.len()) {
            let all = front.iter().chain(message);
            for (place, octet) in frame.octets_mut().iter_mut().zip(all) {
                *place = *octet;
            }
            self.links.push(interface.link, frame);
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The neighbour-discovery message in an ICMPv6 packet, and who sent it.
fn read_ndp(packet: &[u8], l4: usize) -> Result<Option<(Ipv6Addr, Ndp)>, DropIndex> {
    let Ok((ip, _)) = Ipv6::parse(packet) else { return Ok(None) };
    let message = packet.get(l4..).unwrap_or_default();
    let read = Ndp::parse(ip, message).map_err(DropIndex::from)?;
    Ok(read.map(|message| (ip.source(), message)))
}

/// `Result::filter`, which `std` does not have: another failure if the condition does not hold.
trait Filter {
    fn filter(self, condition: impl FnOnce(&HopId) -> bool) -> Self;
}

impl Filter for Result<HopId, DropReason> {
    fn filter(self, condition: impl FnOnce(&HopId) -> bool) -> Self {
        self.and_then(|hop| if condition(&hop) { Ok(hop) } else { Err(DropReason::NoFrame) })
    }
}
