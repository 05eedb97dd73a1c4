//! The slow half: what an operator says, validated, kept, and made into what workers read.
#![forbid(unsafe_code)]

pub mod compile;
pub mod config;
pub mod rates;
pub mod state;
