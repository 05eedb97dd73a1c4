//! The conversions that `From` does not offer. The only `as` of the crate.
#![expect(
    clippy::as_conversions,
    reason = "each line below says why it loses nothing it should keep"
)]
#![expect(clippy::cast_possible_truncation, reason = "truncation is what these are for")]

const _: () = assert!(usize::BITS >= u32::BITS, "tables are indexed by u32");

/// An index into a table. Lossless, by the assertion above.
#[inline(always)]
pub(crate) const fn at(index: u32) -> usize {
    index as usize
}

/// The low 16 bits.
#[inline(always)]
pub(crate) const fn low16(value: u64) -> u16 {
    value as u16
}

/// The high 32 bits.
#[inline(always)]
pub(crate) const fn high32(value: u64) -> u32 {
    (value >> 32) as u32
}

/// Both halves of the 128-bit product, xored: every input bit reaches every output bit.
#[inline(always)]
pub(crate) const fn fold_multiply(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// Maps `value` evenly onto `0..range` without division or a power of two.
#[inline(always)]
pub(crate) const fn scale(value: u32, range: u32) -> u32 {
    ((value as u64 * range as u64) >> 32) as u32
}
