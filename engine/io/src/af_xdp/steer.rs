//! The program in the kernel that says which frames are ours, and its map from queues to sockets.
//!
//! Eight octets an instruction, written here by hand: so few are read faster than a compiler for
//! them is installed, and rvsd needs neither clang nor a file beside it. The kernel checks them.
//! Encoding: Linux Documentation/bpf/standardization/instruction-set.rst.

use super::sys;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `include/uapi/linux/bpf.h`, `enum bpf_cmd`.
mod command {
    pub(super) const MAP_CREATE: u32 = 0;
    pub(super) const MAP_UPDATE_ELEM: u32 = 2;
    pub(super) const PROG_LOAD: u32 = 5;
    pub(super) const LINK_CREATE: u32 = 28;
}

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
/// `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;
/// `enum xdp_action`.
const XDP_PASS: i32 = 2;
/// `enum bpf_func_id`.
const REDIRECT_MAP: i32 = 51;

/// Where a program runs. `include/uapi/linux/if_link.h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet of its own of the frame.
    Native,
    /// After that: any device, but slow.
    Generic,
}

impl Mode {
    fn flag(self) -> u32 {
        match self {
            Self::Generic => 1 << 1, // XDP_FLAGS_SKB_MODE
            Self::Native => 1 << 2,  // XDP_FLAGS_DRV_MODE
        }
    }
}

/// Our program on a device; it goes when this is dropped, or the process ends however it ends.
#[derive(Debug)]
pub(super) struct Steering {
    sockets: OwnedFd,
    _attached: OwnedFd,
}

impl Steering {
    /// Attaches it to the device, for `queues` queues: frames to `mac` are ours, without one all are.
    /// Says the step that failed.
    pub(super) fn attach(
        device: u32,
        queues: u32,
        mac: Option<[u8; 6]>,
        mode: Mode,
    ) -> Result<Self, (&'static str, io::Error)> {
        let sockets = create_map(queues).map_err(|error| ("make a BPF map", error))?;
        let program = load(&instructions(sockets.as_raw_fd(), mac))
            .map_err(|error| ("load an XDP program", error))?;
        let attached =
            attach(&program, device, mode).map_err(|error| ("attach an XDP program", error))?;
        Ok(Self { sockets, _attached: attached })
    }

    /// From now on frames of `queue` go to `socket`.
    pub(super) fn join(&self, queue: u32, socket: &impl AsFd) -> io::Result<()> {
        #[repr(C)]
        struct Attributes {
            map: u32,
            _pad: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let socket = number(socket);
        let attributes = Attributes {
            map: number(&self.sockets),
            _pad: 0,
            key: sys::address(&raw const queue),
            value: sys::address(&raw const socket),
            flags: 0,
        };
        // SAFETY: the shape is that of BPF_MAP_UPDATE_ELEM; key and value are live, and of the four
        //   octets each that the map was made with.
        unsafe { sys::bpf(command::MAP_UPDATE_ELEM, &attributes) }.map(drop)
    }
}

fn number(fd: &impl AsFd) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).unwrap_or_default()
}

fn create_map(queues: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key_octets: u32,
        value_octets: u32,
        entries_max: u32,
    }
    let attributes =
        Attributes { kind: MAP_TYPE_XSKMAP, key_octets: 4, value_octets: 4, entries_max: queues };
    // SAFETY: the shape is that of BPF_MAP_CREATE, and holds no addresses.
    sys::owned(unsafe { sys::bpf(command::MAP_CREATE, &attributes) }?)
}

fn load(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    const LICENSE: &CStr = c"Apache-2.0";
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
    }
    let attributes = Attributes {
        kind: PROG_TYPE_XDP,
        count: u32::try_from(instructions.len()).unwrap_or_default(),
        instructions: sys::address(instructions.as_ptr()),
        license: sys::address(LICENSE.as_ptr()),
    };
    // SAFETY: the shape is that of BPF_PROG_LOAD; instructions and license are live, `count` is that
    //   of the instructions, and the license ends with a zero.
    sys::owned(unsafe { sys::bpf(command::PROG_LOAD, &attributes) }?)
}

fn attach(program: &OwnedFd, device: u32, mode: Mode) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        device: u32,
        kind: u32,
        flags: u32,
    }
    let attributes =
        Attributes { program: number(program), device, kind: BPF_XDP, flags: mode.flag() };
    // SAFETY: the shape is that of BPF_LINK_CREATE, and holds no addresses.
    sys::owned(unsafe { sys::bpf(command::LINK_CREATE, &attributes) }?)
}

/// ```text
///     if the frame is too short for an Ethernet header, or not to `mac`: pass it to the kernel
///     give it to the socket of the queue that it arrived on, or pass it if there is none
/// ```
fn instructions(map: i32, mac: Option<[u8; 6]>) -> Vec<[u8; 8]> {
    // Opcodes; registers are source << 4 | destination.
    const LOAD_U32: u8 = 0x61; // r = *(u32 *)(s + offset)
    const LOAD_U16: u8 = 0x69;
    const COPY: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const SET: u8 = 0xb7;
    const SET_MAP: [u8; 2] = [0x18, 0x11]; // two instructions: r1 = the map of this descriptor
    const IF_MORE: u8 = 0x2d; // if r > s
    const IF_NOT: u8 = 0x56; // if (u32)r != number
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    let one = |code: u8, registers: u8, offset: i16, value: i32| {
        let ([c, d], [e, f, g, h]) = (offset.to_le_bytes(), value.to_le_bytes());
        [code, registers, c, d, e, f, g, h]
    };
    let mut all = Vec::new();
    if let Some([a, b, c, d, e, f]) = mac {
        let (front, back) = (i32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
        all.extend([
            one(LOAD_U32, 0x12, 0, 0),             // r2 = data
            one(LOAD_U32, 0x13, 4, 0),             // r3 = data_end
            one(COPY, 0x24, 0, 0),                 // r4 = r2
            one(ADD, 0x04, 0, 14),                 // r4 += an Ethernet header
            one(IF_MORE, 0x34, 10, 0),             // if r4 > r3: pass
            one(LOAD_U32, 0x24, 0, 0),             // r4 = the first four octets
            one(IF_NOT, 0x04, 8, front),           // if they are not ours: pass
            one(LOAD_U16, 0x24, 4, 0),             // r4 = the other two
            one(IF_NOT, 0x04, 6, i32::from(back)), // if they are not ours: pass
        ]);
    }
    all.extend([
        one(LOAD_U32, 0x12, 16, 0),          // r2 = rx_queue_index
        one(SET_MAP[0], SET_MAP[1], 0, map), // r1 = map
        one(0, 0, 0, 0),
        one(SET, 0x03, 0, XDP_PASS), // r3 = what to do without a socket
        one(CALL, 0, 0, REDIRECT_MAP),
        one(EXIT, 0, 0, 0),
    ]);
    // The kernel refuses what nothing leads to.
    if mac.is_some() {
        all.extend([one(SET, 0x00, 0, XDP_PASS), one(EXIT, 0, 0, 0)]); // pass:
    }
    all
}
