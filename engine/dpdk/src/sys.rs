//! What `shim.c` and libdpdk offer, as Rust sees it. Nothing here is safe; the rest of the crate is.
//!
//! Functions named `rte_` are DPDK's own and have had these signatures in every release since 20.11;
//! those named `rvs_` are in `shim.c`, which the C compiler checks against the headers.

use core::ffi::{c_char, c_int, c_uint};

/// `struct rte_mbuf` up to what is used of it. `shim.c` asserts every offset.
#[repr(C)]
pub struct Mbuf {
    pub buf_addr: *mut u8,
    _iova: u64,
    pub data_off: u16,
    _refcnt: u16,
    pub nb_segs: u16,
    _port: u16,
    pub ol_flags: u64,
    _packet_type: u32,
    pub pkt_len: u32,
    pub data_len: u16,
    pub vlan_tci: u16,
    _hash: [u16; 4],
    _vlan_tci_outer: u16,
    pub buf_len: u16,
}

const _: () = assert!(core::mem::offset_of!(Mbuf, data_off) == 16);
const _: () = assert!(core::mem::offset_of!(Mbuf, nb_segs) == 20);
const _: () = assert!(core::mem::offset_of!(Mbuf, ol_flags) == 24);
const _: () = assert!(core::mem::offset_of!(Mbuf, pkt_len) == 36);
const _: () = assert!(core::mem::offset_of!(Mbuf, data_len) == 40);
const _: () = assert!(core::mem::offset_of!(Mbuf, vlan_tci) == 42);
const _: () = assert!(core::mem::offset_of!(Mbuf, buf_len) == 54);

/// Of [`Mbuf::ol_flags`]: the device took an 802.1Q tag out of the frame.
pub const VLAN_STRIPPED: u64 = 1 << 6;

/// `struct rte_mempool`
#[repr(C)]
pub struct Mempool {
    _opaque: [u8; 0],
}

/// `struct rte_ring`
#[cfg(feature = "rings")]
#[repr(C)]
pub struct Ring {
    _opaque: [u8; 0],
}

/// `struct rvs_device_info`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DeviceInfo {
    pub buffer_min: u32,
    pub frame_max: u32,
    pub node: i32,
    pub speed_mbit: u32,
    pub mtu_min: u16,
    pub mtu_max: u16,
    pub rx_queues_max: u16,
    pub tx_queues_max: u16,
    pub rx_descriptors: [u16; 3],
    pub tx_descriptors: [u16; 3],
    pub table_entries: u16,
    pub mac: [u8; 6],
    pub is_virtual: u8,
    pub is_up: u8,
    pub hashes_one_end: u8,
    pub hashes_flows: u8,
    pub driver: [u8; 32],
}

const _: () = assert!(size_of::<DeviceInfo>() == 80);

/// `struct rvs_device_setup`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DeviceSetup {
    pub mtu: u32,
    pub queues: u16,
    pub spread: u8,
    pub key_repeat: [u8; 2],
    pub unused: [u8; 3],
}

const _: () = assert!(size_of::<DeviceSetup>() == 12);

/// `enum rvs_spread`
pub mod spread {
    pub const NONE: u8 = 0;
    pub const SOURCE: u8 = 1;
    pub const DESTINATION: u8 = 2;
    pub const FLOW: u8 = 3;
}

/// Octets of a name.
pub const NAME_OCTETS: usize = 64;

unsafe extern "C" {
    pub fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    pub fn rte_log_set_global_level(level: u32);
    pub fn rte_thread_register() -> c_int;
    pub fn rte_thread_unregister();
    pub fn rte_dev_probe(devargs: *const c_char) -> c_int;
    pub fn rte_eth_dev_get_port_by_name(name: *const c_char, device: *mut u16) -> c_int;
    pub fn rte_eth_dev_start(device: u16) -> c_int;
    pub fn rte_eth_dev_stop(device: u16) -> c_int;
    pub fn rte_eth_dev_close(device: u16) -> c_int;
    pub fn rte_eth_dev_set_mtu(device: u16, mtu: u16) -> c_int;
    pub fn rte_eth_promiscuous_enable(device: u16) -> c_int;
    pub fn rte_eth_promiscuous_disable(device: u16) -> c_int;
    pub fn rte_eth_allmulticast_enable(device: u16) -> c_int;
    pub fn rte_pktmbuf_pool_create(
        name: *const c_char,
        frames: c_uint,
        cache: c_uint,
        private: u16,
        room: u16,
        node: c_int,
    ) -> *mut Mempool;
    #[cfg(feature = "guest")]
    pub fn rte_mempool_lookup(name: *const c_char) -> *mut Mempool;
    pub fn rte_mempool_avail_count(pool: *const Mempool) -> c_uint;

    pub fn rvs_errno() -> c_int;
    pub fn rvs_device_info(device: u16, info: *mut DeviceInfo) -> c_int;
    pub fn rvs_device_configure(device: u16, setup: *const DeviceSetup) -> c_int;
    pub fn rvs_rx_queue(
        device: u16,
        queue: u16,
        descriptors: u16,
        node: c_int,
        pool: *mut Mempool,
    ) -> c_int;
    pub fn rvs_tx_queue(device: u16, queue: u16, descriptors: u16, node: c_int) -> c_int;
    pub fn rvs_device_spread(device: u16, entries: u16, queues: u16) -> c_int;
    pub fn rvs_device_mac(device: u16, mac: *const u8, beside: c_int) -> c_int;
    pub fn rvs_device_counters(
        device: u16,
        names: *mut u8,
        values: *mut u64,
        room: c_uint,
    ) -> c_int;
    pub fn rvs_rx_burst(device: u16, queue: u16, frames: *mut *mut Mbuf, most: u16) -> u16;
    pub fn rvs_tx_burst(device: u16, queue: u16, frames: *mut *mut Mbuf, count: u16) -> u16;
    pub fn rvs_frame_take(pool: *mut Mempool) -> *mut Mbuf;
    pub fn rvs_frame_give(frame: *mut Mbuf);
    pub fn rvs_frame_unstrip(frame: *mut *mut Mbuf) -> c_int;
    pub fn rvs_log_capture() -> c_int;
    pub fn rvs_log_release(text: *mut u8, room: c_uint) -> c_uint;
}

#[cfg(feature = "rings")]
unsafe extern "C" {
    pub fn rvs_ring_device(
        name: *const c_char,
        arriving: *mut *mut Ring,
        leaving: *mut *mut Ring,
        queues: c_uint,
        node: c_int,
    ) -> c_int;
    pub fn rvs_ring(name: *const c_char, frames: c_uint, node: c_int) -> *mut Ring;
    pub fn rvs_ring_push(ring: *mut Ring, frame: *mut Mbuf) -> c_int;
    pub fn rvs_ring_pop(ring: *mut Ring) -> *mut Mbuf;
    pub fn rvs_ring_count(ring: *const Ring) -> c_uint;
}
