//! What Capsule 0.1.5 calls of DPDK, on DPDK 22.11 and later, under the names that it knows.
//!
//! Structures that changed since 19.11 are small records of our own, which `shim.c` turns into
//! DPDK's; of those that Capsule looks into by itself there is the part that it sees, whose layout
//! `shim.c` asserts. EAL's arguments get their present names. There are no kernel interfaces (KNI)
//! any more: asked for, they are refused.
#![allow(non_camel_case_types, non_snake_case, clippy::all, clippy::pedantic)]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ffi::CString;

/// Octets of a buffer that Capsule's pools have.
pub const RTE_MBUF_DEFAULT_BUF_SIZE: u32 = 2176;
/// Frames of a transmit queue come from one pool.
pub const DEV_TX_OFFLOAD_MBUF_FAST_FREE: u32 = 0x10000;
/// Addresses.
pub const ETH_RSS_IP: u32 = 0xa38c;
/// Ports of TCP.
pub const ETH_RSS_TCP: u32 = 0x10410;
/// Ports of UDP.
pub const ETH_RSS_UDP: u32 = 0x20820;
/// Ports of SCTP.
pub const ETH_RSS_SCTP: u32 = 0x1040;

/// As Capsule selects it.
pub mod rte_eth_rx_mq_mode {
    /// Its type.
    pub type Type = u32;
    /// Receive side scaling.
    pub const ETH_MQ_RX_RSS: Type = 1;
}

/// The first octets of a frame's descriptor.
#[repr(C)]
#[derive(Debug)]
pub struct rte_mbuf {
    /// Its buffer.
    pub buf_addr: *mut c_void,
    _iova: u64,
    /// Where in the buffer the frame begins.
    pub data_off: u16,
    _refcnt: u16,
    _nb_segs: u16,
    _port: u16,
    _ol_flags: u64,
    _packet_type: u32,
    /// Octets of the packet.
    pub pkt_len: u32,
    /// Octets in this buffer.
    pub data_len: u16,
    _vlan_tci: u16,
    _hash: [u16; 4],
    _vlan_tci_outer: u16,
    /// Octets of the buffer.
    pub buf_len: u16,
    /// Where it returns to.
    pub pool: *mut rte_mempool,
}

const _: () = assert!(core::mem::offset_of!(rte_mbuf, data_off) == 16);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, pkt_len) == 36);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, buf_len) == 54);
const _: () = assert!(core::mem::offset_of!(rte_mbuf, pool) == 56);

/// The first octets of a pool.
#[repr(C)]
#[derive(Debug)]
pub struct rte_mempool {
    /// Its name.
    pub name: [c_char; 26],
    _pointers: [*mut c_void; 3],
    /// Its flags.
    pub flags: u32,
    /// Its NUMA node.
    pub socket_id: c_int,
    /// Frames in it.
    pub size: u32,
    /// Frames of a cache.
    pub cache_size: u32,
}

const _: () = assert!(core::mem::offset_of!(rte_mempool, flags) == 56);
const _: () = assert!(core::mem::offset_of!(rte_mempool, cache_size) == 68);

/// What a device is and can do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rte_eth_dev_info {
    /// Its driver.
    pub driver_name: *const c_char,
    /// What it can do with frames that arrive.
    pub rx_offload_capa: u64,
    /// And with those that leave.
    pub tx_offload_capa: u64,
    /// What it can hash.
    pub flow_type_rss_offloads: u64,
    /// Receive queues at most.
    pub max_rx_queues: u16,
    /// Transmit queues at most.
    pub max_tx_queues: u16,
}

impl Default for rte_eth_dev_info {
    fn default() -> Self {
        Self {
            driver_name: c"".as_ptr(),
            rx_offload_capa: 0,
            tx_offload_capa: 0,
            flow_type_rss_offloads: 0,
            max_rx_queues: 0,
            max_tx_queues: 0,
        }
    }
}

/// How a device is to be set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_eth_conf {
    /// To receive.
    pub rxmode: RxMode,
    /// To send.
    pub txmode: TxMode,
    /// What is hashed.
    pub rx_adv_conf: RxAdvConf,
}

/// Part of [`rte_eth_conf`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RxMode {
    /// How queues are chosen.
    pub mq_mode: rte_eth_rx_mq_mode::Type,
}

/// Part of [`rte_eth_conf`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TxMode {
    /// What the device is to do.
    pub offloads: u64,
}

/// Part of [`rte_eth_conf`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RxAdvConf {
    /// Receive side scaling.
    pub rss_conf: RssConf,
}

/// Part of [`rte_eth_conf`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RssConf {
    /// What is hashed.
    pub rss_hf: u64,
}

/// What a device counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_eth_stats {
    /// Octets received.
    pub ibytes: u64,
    /// Octets sent.
    pub obytes: u64,
    /// Frames without a place.
    pub imissed: u64,
    /// Broken frames.
    pub ierrors: u64,
    /// Frames that could not be sent.
    pub oerrors: u64,
    /// Frames without a buffer.
    pub rx_nombuf: u64,
}

/// An Ethernet address.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_ether_addr {
    /// Its octets.
    pub addr_bytes: [u8; 6],
}

/// Cores.
pub type rte_cpuset_t = libc::cpu_set_t;

unsafe extern "C" {
    #[link_name = "rte_eal_init"]
    fn eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn capsule_device_info(port: u16, info: *mut rte_eth_dev_info) -> c_int;
    fn capsule_configure(
        port: u16,
        rx: u16,
        tx: u16,
        rss: c_int,
        fields: u64,
        tx_offloads: u64,
    ) -> c_int;
    fn capsule_stats(port: u16, stats: *mut rte_eth_stats) -> c_int;

    pub fn numa_node_of_cpu(cpu: c_int) -> c_int;
    pub fn rte_eal_cleanup() -> c_int;
    pub fn rte_eth_allmulticast_disable(port: u16) -> c_int;
    pub fn rte_eth_allmulticast_enable(port: u16) -> c_int;
    pub fn rte_eth_dev_adjust_nb_rx_tx_desc(port: u16, rx: *mut u16, tx: *mut u16) -> c_int;
    pub fn rte_eth_dev_close(port: u16) -> c_int;
    pub fn rte_eth_dev_get_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    pub fn rte_eth_dev_socket_id(port: u16) -> c_int;
    pub fn rte_eth_dev_start(port: u16) -> c_int;
    pub fn rte_eth_dev_stop(port: u16) -> c_int;
    pub fn rte_eth_macaddr_get(port: u16, mac: *mut rte_ether_addr) -> c_int;
    pub fn rte_eth_promiscuous_disable(port: u16) -> c_int;
    pub fn rte_eth_promiscuous_enable(port: u16) -> c_int;
    pub fn rte_eth_rx_queue_setup(
        port: u16,
        queue: u16,
        descriptors: u16,
        socket: c_uint,
        conf: *const c_void,
        pool: *mut rte_mempool,
    ) -> c_int;
    pub fn rte_eth_tx_queue_setup(
        port: u16,
        queue: u16,
        descriptors: u16,
        socket: c_uint,
        conf: *const c_void,
    ) -> c_int;
    pub fn rte_mempool_free(pool: *mut rte_mempool);
    pub fn rte_mempool_in_use_count(pool: *const rte_mempool) -> c_uint;
    pub fn rte_pktmbuf_pool_create(
        name: *const c_char,
        frames: c_uint,
        cache: c_uint,
        private: u16,
        room: u16,
        socket: c_int,
    ) -> *mut rte_mempool;
    pub fn rte_socket_count() -> c_uint;
    pub fn rte_socket_id() -> c_uint;
    pub fn rte_socket_id_by_idx(index: c_uint) -> c_int;
    pub fn rte_strerror(error: c_int) -> *const c_char;
    pub fn rte_thread_set_affinity(cores: *mut rte_cpuset_t) -> c_int;

    pub fn _rte_errno() -> c_int;
    pub fn _rte_eth_rx_burst(port: u16, queue: u16, frames: *mut *mut rte_mbuf, most: u16) -> u16;
    pub fn _rte_eth_tx_burst(port: u16, queue: u16, frames: *mut *mut rte_mbuf, count: u16) -> u16;
    pub fn _rte_mempool_put_bulk(
        pool: *mut rte_mempool,
        objects: *const *mut c_void,
        count: c_uint,
    );
    pub fn _rte_pktmbuf_alloc(pool: *mut rte_mempool) -> *mut rte_mbuf;
    pub fn _rte_pktmbuf_alloc_bulk(
        pool: *mut rte_mempool,
        frames: *mut *mut rte_mbuf,
        count: c_uint,
    ) -> c_int;
    pub fn _rte_pktmbuf_free(frame: *mut rte_mbuf);
}

/// EAL with the names that its arguments have had since 20.11.
///
/// # Safety
///
/// `argc` texts that end with a zero at `argv`; called once.
pub unsafe fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int {
    let mut words = Vec::new();
    for at in 0..usize::try_from(argc).unwrap_or_default() {
        // SAFETY: `argc` pointers to texts.
        let word = unsafe { CStr::from_ptr(*argv.add(at)) };
        let renamed = match word.to_bytes() {
            b"--master-lcore" => c"--main-lcore",
            b"--pci-whitelist" | b"-w" => c"--allow",
            _ => word,
        };
        words.push(CString::from(renamed));
    }
    // DPDK keeps pointers into its arguments.
    let words: &'static [CString] = words.leak();
    let mut pointers: Vec<*mut c_char> =
        words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    pointers.push(core::ptr::null_mut());
    // SAFETY: `argc` texts and a null behind them, which live as long as the process.
    unsafe { eal_init(argc, pointers.leak().as_mut_ptr()) }
}

/// What a device is and can do.
///
/// # Safety
///
/// A place for the answer.
pub unsafe fn rte_eth_dev_info_get(port: u16, info: *mut rte_eth_dev_info) -> c_int {
    // SAFETY: the record that the C half knows.
    unsafe { capsule_device_info(port, info) }
}

/// Sets a device up.
///
/// # Safety
///
/// `conf` is there; nobody else configures the device.
pub unsafe fn rte_eth_dev_configure(
    port: u16,
    rx: u16,
    tx: u16,
    conf: *const rte_eth_conf,
) -> c_int {
    // SAFETY: it is there.
    let conf = unsafe { *conf };
    let rss = c_int::from(conf.rxmode.mq_mode == rte_eth_rx_mq_mode::ETH_MQ_RX_RSS);
    let fields = conf.rx_adv_conf.rss_conf.rss_hf;
    // SAFETY: numbers only.
    unsafe { capsule_configure(port, rx, tx, rss, fields, conf.txmode.offloads) }
}

/// What a device counted.
///
/// # Safety
///
/// A place for the answer.
pub unsafe fn rte_eth_stats_get(port: u16, stats: *mut rte_eth_stats) -> c_int {
    // SAFETY: the record that the C half knows.
    unsafe { capsule_stats(port, stats) }
}

/// A kernel interface, of which there is none.
#[derive(Debug)]
pub struct rte_kni(());

/// How one was set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_kni_conf {
    /// Its name.
    pub name: [c_char; 32],
    /// Its device.
    pub group_id: u16,
    /// Octets of a buffer.
    pub mbuf_size: u32,
    /// Its Ethernet address.
    pub mac_addr: [u8; 6],
}

/// What it called.
#[derive(Clone, Copy, Debug, Default)]
pub struct rte_kni_ops {
    /// Its device.
    pub port_id: u16,
    /// Called for another MTU.
    pub change_mtu: Option<unsafe extern "C" fn(u16, c_uint) -> c_int>,
    /// Called for up and down.
    pub config_network_if: Option<unsafe extern "C" fn(u16, u8) -> c_int>,
    /// Called for another Ethernet address.
    pub config_mac_address: Option<unsafe extern "C" fn(u16, *mut u8) -> c_int>,
    /// Called for promiscuous mode.
    pub config_promiscusity: Option<unsafe extern "C" fn(u16, u8) -> c_int>,
}

/// Refuses: DPDK has had no kernel interfaces since 23.11.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_init(_most: c_uint) -> c_int {
    -libc::ENOTSUP
}

/// None.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_alloc(
    _pool: *mut rte_mempool,
    _conf: *const rte_kni_conf,
    _ops: *mut rte_kni_ops,
) -> *mut rte_kni {
    core::ptr::null_mut()
}

/// Nothing to close.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_close() {}

/// There is none to release.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_release(_kni: *mut rte_kni) -> c_int {
    -libc::ENOTSUP
}

/// No name.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_get_name(_kni: *const rte_kni) -> *const c_char {
    c"".as_ptr()
}

/// Nothing was asked.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_handle_request(_kni: *mut rte_kni) -> c_int {
    0
}

/// Nothing arrives.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_rx_burst(
    _kni: *mut rte_kni,
    _frames: *mut *mut rte_mbuf,
    _most: c_uint,
) -> c_uint {
    0
}

/// Nothing is taken.
///
/// # Safety
///
/// Always sound.
pub unsafe fn rte_kni_tx_burst(
    _kni: *mut rte_kni,
    _frames: *mut *mut rte_mbuf,
    _count: c_uint,
) -> c_uint {
    0
}
