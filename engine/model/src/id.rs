//! Places in the control plane's tables. A place is not used again while a worker refers to it.

use serde::{Deserialize, Serialize};

/// The place of a destination, the same in every worker's arrays. Deleted destinations keep theirs
/// until no connection is left.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct DestId(pub u32);

/// The place of a service, the same in every worker's arrays.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct ServiceId(pub u32);
