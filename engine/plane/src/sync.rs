//! Where atomics and locks come from: `std`, or loom's models of them under `--cfg loom`.

#[cfg(loom)]
pub use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
