//! A worker as a guest of another DPDK program in this process, which has started EAL, and made pools
//! and devices: a framework such as Capsule. Nothing of that is set up or ended here.

use crate::device::{Started, info_of, number_of};
use crate::eal::Eal;
use crate::frame::DpdkPool;
use crate::queue::DpdkQueue;
use crate::sys;
use std::ffi::CString;
use std::sync::Arc;

/// The environment that the host has started. Threads can be made lcores of it.
///
/// # Safety
///
/// EAL runs in this process, and goes on until the last [`crate::Lcore`], queue, pool and frame is
/// gone.
#[must_use]
pub unsafe fn eal() -> Eal {
    Eal::lent()
}

/// Queue `number` of the device `name`, in both directions. `None` if DPDK has no such device.
///
/// # Safety
///
/// - The device has this queue, is started before the first frame is asked for, and is neither
///   stopped nor closed before the last.
/// - Nobody else polls it as long as the value lives.
#[must_use]
pub unsafe fn queue(_eal: Eal, name: &str, number: u16) -> Option<DpdkQueue> {
    let device = number_of(&CString::new(name).ok()?)?;
    Some(DpdkQueue::new(Arc::new(Started::lent(device)), number))
}

/// The pool of mbufs `name`. `None` if DPDK has none.
///
/// # Safety
///
/// It is a pool of mbufs with at least 128 octets of headroom, whose memory was zeroed when it was
/// mapped, and it is not freed before its last frame has returned.
#[must_use]
pub unsafe fn pool(_eal: Eal, name: &str) -> Option<DpdkPool> {
    let name = CString::new(name).ok()?;
    // JUSTIFICATION: DPDK is a C library.
    // SAFETY: the name ends with a zero.
    let found = unsafe { sys::rte_mempool_lookup(name.as_ptr()) };
    // JUSTIFICATION: it is C memory.
    // SAFETY: null, or as the caller promises.
    unsafe { DpdkPool::new(found) }
}

/// The Ethernet address of the device `name`. `None` if DPDK has no such device.
#[must_use]
pub fn mac(_eal: Eal, name: &str) -> Option<[u8; 6]> {
    info_of(number_of(&CString::new(name).ok()?)?).map(|info| info.mac)
}
