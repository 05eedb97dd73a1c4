//! What a packet is: views over arrays, checksums, hashes. No I/O, no state, no panic.
//!
//! A view proves a length once, by making an array of a slice; from then on every access has a
//! constant index that the compiler has checked. `parse` splits a slice into a header and what
//! follows; the twin `…Mut` view rewrites and keeps checksums right, so that no caller can forget.
//! Network order never leaves this crate, except inside [`flow::Ends4`] and [`flow::Ends6`], which
//! are compared and never computed with.
//!
//! [`packet::classify`] and [`rewrite::Rewrite`] are the packet path's; everything else serves the
//! frames beside it. Whatever is wrong with a frame has a name in [`unusable::Unusable`].
#![forbid(unsafe_code)]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod ftp;
pub mod icmp;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipip;
pub mod ipv4;
pub mod ipv6;
pub mod ipv6_ext;
pub mod mac;
pub mod mld;
pub mod ndp;
pub mod packet;
pub mod partial;
pub mod piece;
pub mod rewrite;
pub mod sctp;
pub mod stream;
pub mod tcp;
pub mod toeplitz;
pub mod tunnel;
pub mod udp;
pub mod unusable;
