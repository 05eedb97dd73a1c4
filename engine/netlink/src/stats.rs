//! What was counted, as the kernel tells it: once in 32 bits, once in 64.

use crate::wire::Writer;
use rvs_api::{Rates, Totals};

/// The nest `narrow` with `IPVS_STATS_ATTR_*` as `ip_vs_genl_fill_stats()` of Linux 6.1 `ip_vs_ctl.c`
/// has them, and the nest `wide` as `ip_vs_genl_fill_stats64()`. Clients read one or the other.
pub(crate) fn write(writer: &mut Writer, narrow: u16, wide: u16, totals: Totals, rates: Rates) {
    let Totals { conns, packets_in, packets_out, octets_in, octets_out } = totals;
    let all = [conns, packets_in, packets_out, octets_in, octets_out];
    let all = || (1..).zip(all.into_iter().chain(rates.columns()));
    writer.nest(narrow, |writer| {
        for (kind, value) in all() {
            // Octets are wide in both.
            if matches!(kind, 4 | 5) {
                writer.u64(kind, value);
            } else {
                writer.u32(kind, low(value));
            }
        }
    });
    writer.nest(wide, |writer| all().for_each(|(kind, value)| writer.u64(kind, value)));
}

/// The lower half: the kernel's counter wraps too.
fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}
