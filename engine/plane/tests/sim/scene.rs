//! What a seed decides before anything moves.

use super::random::Random;
use super::rss::Spread;
use super::wire::Quality;
use rvs_model::Tunables;

#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub workers: u16,
    pub spread: Spread,
    pub burst: usize,
    pub ring: usize,
    pub conns: u32,
    pub neighbors: u32,
    /// Client hosts of each family.
    pub hosts: usize,
    /// Ports that a host uses towards one service.
    pub ports: u16,
    /// Conversations at a time.
    pub talks: usize,
    pub quality: Quality,
    /// How often in a hundred steps what left the director is taken off its links.
    pub collects: usize,
    /// How often in a thousand steps an operator changes something.
    pub changes: usize,
    /// How often in a thousand steps time jumps.
    pub jumps: usize,
    /// How often in a thousand steps a server stops or starts answering for its addresses.
    pub mutes: usize,
    pub tunables: Tunables,
    /// Whether nothing happens that may end a conversation early.
    pub calm: bool,
}

impl Scene {
    pub fn of(random: &mut Random) -> Self {
        let workers = random.one_of(&[1, 2, 3, 8]);
        let spread = random.one_of(&Spread::ALL);
        let calm = random.chance(20);
        let few = random.chance(40);
        let quality = if calm {
            Quality { loss: 0, repeat: 0, delay_max: 1 }
        } else {
            Quality {
                loss: random.one_of(&[0, 1, 10]),
                repeat: random.one_of(&[0, 1, 10]),
                delay_max: random.one_of(&[1, 4, 12]),
            }
        };
        let or_calm = |disturbed: usize| if calm { 0 } else { disturbed };
        Self {
            workers,
            spread,
            burst: random.one_of(&[1, 4, 64, 256]),
            ring: if calm { 512 } else { random.one_of(&[4, 32, 256]) },
            conns: if calm { 255 } else { random.one_of(&[8, 40, 255]) },
            neighbors: if calm { 255 } else { random.one_of(&[10, 24, 255]) },
            // In calm, so few that every connection finds room until it times out.
            hosts: if calm {
                2
            } else if few {
                1 + random.below(3)
            } else {
                20 + random.below(40)
            },
            ports: if few || calm { 16 } else { 3 },
            talks: if calm { 40 } else { random.one_of(&[10, 40, 120]) },
            quality,
            collects: if calm { 100 } else { random.one_of(&[15, 60, 100]) },
            changes: or_calm(random.one_of(&[0, 0, 20, 100])),
            jumps: or_calm(random.one_of(&[0, 0, 5, 20])),
            mutes: or_calm(random.one_of(&[0, 0, 10, 40])),
            tunables: if calm { Tunables::default() } else { tunables(random) },
            calm,
        }
    }
}

fn tunables(random: &mut Random) -> Tunables {
    if random.chance(50) {
        return Tunables::default();
    }
    Tunables {
        conn_reuse_mode: random.one_of(&[0, 1, 2, 3]),
        sloppy_tcp: random.chance(30),
        expire_nodest_conn: random.chance(50),
        expire_quiescent_template: random.chance(30),
        secure_tcp: random.one_of(&[0, 3]),
        pmtu_disc: random.chance(50),
        ..Tunables::default()
    }
}
