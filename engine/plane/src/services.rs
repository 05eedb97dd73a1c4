//! The services of a snapshot, by their places, in pieces that snapshots share.
//!
//! ```text
//!  pieces: (number, ─►[64 places]) (number, ─►[64 places]) …
//! ```
//!
//! A change copies one piece and the list of pieces, whatever the number of services; and whoever
//! follows looks at the pieces that have another number than last time.

use crate::snapshot::Service;
use std::sync::Arc;

/// Places of one piece.
pub const PIECE: usize = 64;

type Places = [Option<Arc<Service>>; PIECE];

#[derive(Clone, Debug)]
struct Piece {
    /// Grows with every change of it, and is never the same for two of one place.
    number: u64,
    places: Arc<Places>,
}

/// Services by their places.
#[derive(Clone, Debug, Default)]
pub struct Services {
    pieces: Vec<Piece>,
    /// How many changes there were.
    changes: u64,
}

impl Services {
    /// The service at a place.
    #[inline]
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Arc<Service>> {
        self.pieces.get(place / PIECE)?.places.get(place % PIECE)?.as_ref()
    }

    /// Puts `service`, or none, at a place, and hands back what was there.
    pub fn set(&mut self, place: usize, service: Option<Arc<Service>>) -> Option<Arc<Service>> {
        let at = place / PIECE;
        if self.pieces.len() <= at {
            let empty = || Piece { number: 0, places: Arc::new([const { None }; PIECE]) };
            self.pieces.resize_with(at + 1, empty);
        }
        let piece = self.pieces.get_mut(at)?;
        self.changes += 1;
        piece.number = self.changes;
        let slot = Arc::make_mut(&mut piece.places).get_mut(place % PIECE)?;
        core::mem::replace(slot, service)
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.pieces.iter().flat_map(|piece| piece.places.iter().flatten())
    }

    /// How many places there are, used or not.
    #[must_use]
    pub fn places(&self) -> usize {
        self.pieces.len() * PIECE
    }

    /// The pieces in the order of their places: their numbers, and what is in them.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, &Places)> {
        self.pieces.iter().map(|piece| (piece.number, &*piece.places))
    }
}
