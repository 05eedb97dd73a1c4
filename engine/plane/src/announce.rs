//! Saying where our addresses are, before anybody asks: so that who knew them elsewhere (another
//! director before a failover, this one with another card) learns better, and switches learn where
//! we are and which groups we listen to.
//!
//! ```text
//!  start, or another set of addresses ─► two rounds, a second apart, some addresses a tick:
//!                                        IPv4: ARP announcement (RFC 5227 section 2.3)
//!                                        IPv6: unsolicited advertisement (RFC 4861 section 7.2.6)
//!                                        and what groups we listen to (RFC 3810 section 6.1)
//!  a router asks for groups ───────────► the groups of that interface, once a second at most
//! ```
//!
//! One worker does the rounds; whichever a question reaches answers it. Nothing is kept of what was
//! announced, so a new VIP announces the others again.

use crate::network::{InterfaceId, Network, Own, link_local};
use crate::stack::Desk;
use core::net::{IpAddr, Ipv6Addr};
use rvs_io::Queue;
use rvs_model::{TICKS_PER_SECOND, Tick};
use rvs_wire::arp::Arp;
use rvs_wire::ethernet::ethertype;
use rvs_wire::mac::MacAddr;
use rvs_wire::mld::{self, GROUPS_MAX, Reason};
use rvs_wire::ndp::{Message, solicited_node};

/// Addresses announced per tick: about a hundred a second, of which no switch takes notice.
const PER_TICK: usize = 12;
const ROUNDS: u8 = 2;

/// What one worker still has to say.
#[derive(Debug)]
pub(crate) struct Announcer {
    rounds: u8,
    /// The next address of the round.
    next: usize,
    /// When the round began, and when something was said last.
    began: Tick,
    spoke: Tick,
    /// By interface: the next of our addresses whose group is to be reported.
    reports: Vec<Option<(usize, Reason)>>,
    /// When a report was last begun because somebody asked, by interface.
    asked: Vec<Tick>,
    waiting: usize,
}

/// Something to be said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Say {
    /// An address.
    Address(Own),
    /// Groups of an interface, of our addresses from a place on.
    Groups(InterfaceId, usize, Reason),
}

impl Announcer {
    pub(crate) fn new(now: Tick) -> Self {
        let before = now.wrapping_sub(TICKS_PER_SECOND);
        Self {
            rounds: 0,
            next: 0,
            began: before,
            spoke: before,
            reports: Vec::new(),
            asked: Vec::new(),
            waiting: 0,
        }
    }

    /// The set of our addresses is another one; `announces` for the worker that says so. Not per
    /// packet: takes memory at the first call.
    #[cold]
    pub(crate) fn begin(&mut self, network: &Network, announces: bool) {
        let interfaces = network.interfaces().len();
        self.reports.resize(interfaces, None);
        self.asked.resize(interfaces, self.began);
        if announces && network.announces() {
            (self.rounds, self.next) = (ROUNDS, 0);
        }
    }

    /// A router asked for the groups of an interface.
    #[cold]
    pub(crate) fn asked(&mut self, at: InterfaceId, now: Tick) {
        let at = usize::from(at.0);
        let (Some(report), Some(asked)) = (self.reports.get_mut(at), self.asked.get_mut(at)) else {
            return;
        };
        if report.is_none() && now.wrapping_sub(*asked) >= TICKS_PER_SECOND {
            (*report, *asked) = (Some((0, Reason::Asked)), now);
            self.waiting += 1;
        }
    }

    /// Whether there is nothing to say.
    #[inline]
    pub(crate) fn is_silent(&self) -> bool {
        self.rounds == 0 && self.waiting == 0
    }

    /// What to say next, if it is time to: to be called until there is nothing.
    #[cold]
    fn next(&mut self, network: &Network, now: Tick, said: usize) -> Option<Say> {
        if said >= PER_TICK || said == 0 && self.spoke == now {
            return None;
        }
        self.spoke = now;
        if self.waiting > 0 {
            return self.next_report(network);
        }
        if self.rounds == 0 {
            return None;
        }
        if self.next == 0 {
            if now.wrapping_sub(self.began) < TICKS_PER_SECOND {
                return None;
            }
            self.began = now;
            self.reports.fill(Some((0, Reason::Joined)));
            self.waiting = self.reports.len();
        }
        let own = network.own().get(self.next).copied();
        self.next += 1;
        if self.next >= network.own().len() {
            (self.rounds, self.next) = (self.rounds.saturating_sub(1), 0);
        }
        own.map(Say::Address)
    }

    fn next_report(&mut self, network: &Network) -> Option<Say> {
        let at = self.reports.iter().position(Option::is_some)?;
        let interface = InterfaceId(u16::try_from(at).ok()?);
        let report = self.reports.get_mut(at)?;
        let (from, reason) = (*report)?;
        let next = groups(network, interface, from).nth(GROUPS_MAX).map(|(next, _)| next);
        *report = next.map(|next| (next, reason));
        self.waiting -= usize::from(next.is_none());
        Some(Say::Groups(interface, from, reason))
    }
}

impl<Q: Queue> Desk<'_, Q> {
    /// Says something of our addresses.
    #[cold]
    pub(crate) fn announce(&mut self) {
        let network = &self.snapshot.network;
        let mut said = 0;
        while let Some(say) = self.stack.announcer.next(network, self.now, said) {
            said += 1;
            match say {
                Say::Address(own) => self.announce_address(own),
                Say::Groups(at, from, reason) => self.report_groups(at, from, reason),
            }
        }
    }

    fn announce_address(&mut self, Own { interface, address }: Own) {
        let network = &self.snapshot.network;
        let Some(interface) = network.interface(interface) else { return };
        match address {
            IpAddr::V4(address) => {
                let request = Arp::request((interface.mac, address), address);
                let to = MacAddr::BROADCAST;
                self.send_message(interface, to, ethertype::ARP, &request.octets());
            }
            IpAddr::V6(address) => {
                let ours = (interface.mac, address);
                let message = Message::advertisement(ours, None, network.forwards());
                self.send_message(interface, message.to, ethertype::IPV6, &message.packet);
            }
        }
    }

    fn report_groups(&mut self, at: InterfaceId, from: usize, reason: Reason) {
        let network = &self.snapshot.network;
        let Some(interface) = network.interface(at) else { return };
        let mut place = [0; mld::REPORT_MAX];
        let groups = groups(network, at, from).map(|(_, group)| group);
        let source = link_local(interface.mac);
        let packet = mld::report(&mut place, source, reason, groups);
        if let Some(packet) = packet.and_then(|octets| place.get(..octets)) {
            self.send_message(interface, mld::ROUTERS_MAC, ethertype::IPV6, packet);
        }
    }
}

/// The groups that we listen to on an interface, each with the place of its address among ours, from
/// a place on. Two addresses may have the same one.
fn groups(
    network: &Network,
    interface: InterfaceId,
    from: usize,
) -> impl Iterator<Item = (usize, Ipv6Addr)> {
    let own = network.own().iter().enumerate().skip(from);
    own.filter(move |(_, own)| own.interface == interface).filter_map(|(at, own)| {
        match own.address {
            IpAddr::V6(address) => Some((at, solicited_node(address))),
            IpAddr::V4(_) => None,
        }
    })
}
