//! The services there are, and an operator who changes them.

use super::random::Random;
use super::rss::owner;
use crate::rig::{Rig, dest_ip};
use core::net::{IpAddr, SocketAddr};
use ipnet::IpNet;
use rvs_model::ForwardMethod::{self, Direct, Masquerade, Tunnel};
use rvs_model::{DestId, SchedulerKind, ServiceId, Tick, ticks};
use rvs_plane::persist::Mask;

/// Those that refuse no client while somebody is eligible.
const SCHEDULERS: [SchedulerKind; 10] = [
    SchedulerKind::Rr,
    SchedulerKind::Wrr,
    SchedulerKind::Lc,
    SchedulerKind::Wlc,
    SchedulerKind::Sed,
    SchedulerKind::Nq,
    SchedulerKind::Lblc,
    SchedulerKind::Lblcr,
    SchedulerKind::Fo,
    SchedulerKind::Twos,
];

/// Servers; each has an address of each family.
pub const SERVERS: u8 = 5;
/// The same, as a number of places.
pub const PLACES: usize = 5;

#[derive(Debug)]
pub struct Entry {
    pub protocol: u8,
    pub vip: SocketAddr,
    pub method: ForwardMethod,
    pub dest_v6: bool,
    pub kind: SchedulerKind,
    /// If it is persistent: bits of a client's address that count, and for how long.
    pub persists: Option<(u8, Tick)>,
    pub id: Option<ServiceId>,
    pub removed: bool,
    /// By server: changes so far that may take connections from it.
    pub upsets: [u32; PLACES],
    /// Server numbers, ids and weights of the destinations now.
    pub dests: Vec<(u8, DestId, u32)>,
}

impl Entry {
    pub fn v6(&self) -> bool {
        self.vip.is_ipv6()
    }

    /// The network of a client, if that is what counts here.
    pub fn network(&self, client: IpAddr) -> Option<IpAddr> {
        let (bits, _) = self.persists?;
        Some(IpNet::new(client, bits).unwrap().network())
    }

    /// Whose connections of `client` are.
    pub fn owner(&self, client: SocketAddr, workers: u16) -> u16 {
        match self.network(client.ip()) {
            Some(network) => owner(network, 0, workers),
            None => owner(client.ip(), client.port(), workers),
        }
    }

    pub fn dest(&self, server: u8) -> SocketAddr {
        let port = match self.method {
            // One port a service, so that no two masqueraded connections look alike to a server.
            Masquerade => 8000 + self.vip.port(),
            _ => self.vip.port(),
        };
        SocketAddr::new(dest_ip(self.dest_v6, server), port)
    }
}

#[derive(Debug, Default)]
pub struct Menu {
    pub all: Vec<Entry>,
}

impl Menu {
    /// Two services that always stay, and up to six more.
    pub fn open(random: &mut Random, rig: &mut Rig) -> Self {
        let mut menu = Self::default();
        for number in 0..3 + random.below(5) {
            let v6 = if number < 2 { number == 1 } else { random.chance(50) };
            let address = match (v6, random.chance(50)) {
                (false, false) => "198.51.100.80",
                (false, true) => "203.0.114.80",
                (true, false) => "2001:db8:c::80",
                (true, true) => "2001:db8:5::80",
            };
            let port = 80 + u16::try_from(number).unwrap();
            let method = random.one_of(&[Masquerade, Direct, Tunnel]);
            let mixed = method == Tunnel && random.chance(40);
            let bits = if v6 { [64, 120, 128] } else { [16, 28, 32] };
            let persists = (random.one_of(&bits), random.one_of(&[ticks(1), ticks(30)]));
            let persists = random.chance(30).then_some(persists);
            menu.all.push(Entry {
                protocol: random.one_of(&[6, 6, 17]),
                vip: SocketAddr::new(address.parse().unwrap(), port),
                method,
                dest_v6: v6 != mixed,
                kind: random.one_of(&SCHEDULERS),
                persists,
                id: None,
                removed: false,
                upsets: [0; PLACES],
                dests: vec![],
            });
            menu.add_service(number, rig);
            for server in 0..SERVERS {
                if server == 0 || random.chance(60) {
                    menu.add_dest(number, server, 1 + u32::from(random.octet() % 4), rig);
                }
            }
        }
        menu
    }

    fn add_service(&mut self, number: usize, rig: &mut Rig) {
        let entry = &mut self.all[number];
        let id = rig.add_service((entry.protocol, &entry.vip.to_string()), entry.kind, &[]);
        entry.id = Some(id);
        if let Some((bits, timeout)) = entry.persists {
            let v4 = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or_default();
            let mask = if entry.v6() { Mask::v6(bits.into()) } else { Mask::v4(v4.into()) };
            rig.persist(id, timeout, mask);
        }
    }

    fn add_dest(&mut self, number: usize, server: u8, weight: u32, rig: &mut Rig) {
        let entry = &mut self.all[number];
        let id = rig.add_dest(entry.id.unwrap(), entry.dest(server), entry.method, weight);
        entry.dests.insert(0, (server, id, weight));
    }

    fn upset(&mut self, number: usize, server: u8) {
        self.all[number].upsets[usize::from(server)] += 1;
    }

    /// The service of packets between a client and this end.
    pub fn service_of(&self, protocol: u8, end: SocketAddr) -> Option<usize> {
        let mut all = self.all.iter();
        all.position(|entry| {
            let is_vip = end == entry.vip;
            let is_dest = entry.method == Masquerade && end.port() == entry.dest(0).port();
            entry.protocol == protocol && entry.v6() == end.is_ipv6() && (is_vip || is_dest)
        })
    }

    /// Something that operators do.
    pub fn change(&mut self, random: &mut Random, rig: &mut Rig) {
        let number = random.below(self.all.len());
        let Some(id) = self.all[number].id else {
            self.add_service(number, rig);
            return;
        };
        let server = random.octet() % SERVERS;
        let found = self.all[number].dests.iter().position(|(other, ..)| *other == server);
        match (random.below(10), found) {
            (0, _) if number >= 2 => {
                rig.remove_service(id);
                let entry = &mut self.all[number];
                (entry.id, entry.removed) = (None, true);
                entry.dests.clear();
                (0..SERVERS).for_each(|server| self.upset(number, server));
            }
            (_, None) => self.add_dest(number, server, u32::from(random.octet() % 4), rig),
            (1..4, Some(at)) => {
                let (_, dest, _) = self.all[number].dests.remove(at);
                rig.remove_dest(id, dest);
                self.upset(number, server);
            }
            (_, Some(at)) => {
                let weight = u32::from(random.octet() % 4);
                let (_, dest, before) = &mut self.all[number].dests[at];
                *before = weight;
                rig.set_weight(id, *dest, weight);
                // Nobody loses a connection to a weight unless this is set.
                if rig.snapshot.tunables.expire_nodest_conn {
                    self.upset(number, server);
                }
            }
        }
    }
}
