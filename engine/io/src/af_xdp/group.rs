//! Frames to everybody and to groups, which the kernel needs as well as we do: an XDP program cannot
//! give a frame to both. The program leaves them to the kernel, and here is a copy of each.
//!
//! packet(7). The kernel takes a frame's outer VLAN tag off before we see it, and tells it beside.

use super::sys;
use crate::{Frame, RoomFrame};
use core::mem::MaybeUninit;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Octets of both Ethernet addresses: behind them is a tag's place.
const ADDRESSES: usize = 12;
/// Octets of a VLAN tag.
const TAG: usize = 4;
/// Octets of what is told beside a frame.
const AUXDATA: usize = size_of::<libc::tpacket_auxdata>();
/// Every protocol, in network order.
const ALL: u16 = u16::from_be_bytes([0, 3]).to_be();

/// A socket that hears what is sent to more than one host.
#[derive(Debug)]
pub(super) struct Group(OwnedFd);

/// What became of a look.
pub(super) enum Heard {
    /// A frame.
    Frame,
    /// One that was longer than the frame's room.
    TooLong,
    /// Nothing there.
    Nothing,
}

impl Group {
    /// Listens on `device`.
    pub(super) fn new(device: u32) -> io::Result<Self> {
        // Protocol 0: nothing is heard before the filter is in place.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
        sys::set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_u32)?;
        sys::set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_u32)?;
        only_groups(&socket)?;
        bind(&socket, device, ALL)?;
        Ok(Self(socket))
    }

    /// Fills `frame`, which is empty, with the next one.
    pub(super) fn receive(&self, frame: &mut RoomFrame) -> io::Result<Heard> {
        // Space for a tag in front, so that putting one in moves the two addresses only.
        let reach = frame.reach_mut();
        let room = reach.len();
        let mut place = libc::iovec { iov_base: reach.as_mut_ptr().cast(), iov_len: room };
        let mut beside = MaybeUninit::<[u64; 8]>::zeroed();
        // SAFETY: all zeroes is a valid msghdr: numbers, and addresses of nothing.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut place, 1);
        message.msg_control = beside.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&beside);
        // SAFETY: the descriptor is open; the message leads to a place of `room` octets, borrowed
        //   mutably from the frame, and to one of `msg_controllen` octets, aligned for cmsghdr.
        let len = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
        let Ok(len) = usize::try_from(len) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
                _ => Err(error),
            };
        };
        if len >= room || !frame.resize(len) {
            return Ok(Heard::TooLong);
        }
        if let Some(tag) = tag(&message) {
            put_in(frame, tag);
        }
        Ok(Heard::Frame)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The VLAN tag that the kernel took off, as it was in the frame.
fn tag(message: &libc::msghdr) -> Option<[u8; TAG]> {
    // SAFETY: the message is as recvmsg(2) left it: it says how much of its control octets is valid.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const *message) };
    // SAFETY: null, or a header within the control octets, which are live.
    let header = unsafe { first.as_ref() }?;
    let is_ours = header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA;
    if !is_ours {
        return None;
    }
    // SAFETY: the header is one, see above.
    let data = unsafe { libc::CMSG_DATA(first) }.cast::<[u8; AUXDATA]>();
    // SAFETY: the kernel puts a whole tpacket_auxdata behind such a header; as octets it is aligned.
    let aux = unsafe { data.read() };
    // Status is the first field, the tag's two halves are the last, turned round.
    let (status, tag): (&[u8; 4], &[u8; TAG]) = (aux.first_chunk()?, aux.last_chunk()?);
    let [a, b, c, d] = *tag;
    let turned = |octets| u16::from_ne_bytes(octets).to_be_bytes();
    let ([a, b], [c, d]) = (turned([a, b]), turned([c, d]));
    let is_tagged = u32::from_ne_bytes(*status) & libc::TP_STATUS_VLAN_VALID != 0;
    is_tagged.then_some([c, d, a, b])
}

/// Puts `tag` behind the addresses again.
fn put_in(frame: &mut RoomFrame, tag: [u8; TAG]) {
    // An empty frame has all headroom in front of it.
    if frame.shift_front(TAG.cast_signed()) {
        let octets = frame.octets_mut();
        octets.copy_within(TAG..TAG + ADDRESSES, 0);
        let behind = octets.iter_mut().skip(ADDRESSES);
        behind.zip(tag).for_each(|(place, octet)| *place = octet);
    }
}

/// Lets frames through whose destination has the group bit: IEEE 802, bit 0 of the first octet.
fn only_groups(socket: &OwnedFd) -> io::Result<()> {
    let one = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let mut filter = [
        one(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 0),
        one(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, 1),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the shape is that of SO_ATTACH_FILTER, and leads to four live instructions, which the
    //   kernel copies.
    unsafe { sys::set_any(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) }
}

/// Makes the device take in frames to `mac` and to all groups as well, as long as this lives. A card
/// leaves out groups that the host is not in: those that ask for our IPv6 addresses (RFC 4861).
#[derive(Debug)]
pub(super) struct Member {
    _socket: OwnedFd,
}

impl Member {
    pub(super) fn new(device: u32, mac: [u8; 6]) -> io::Result<Self> {
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        let [a, b, c, d, e, f] = mac;
        for kind in [libc::PACKET_MR_UNICAST, libc::PACKET_MR_ALLMULTI] {
            let membership = libc::packet_mreq {
                mr_ifindex: i32::try_from(device).unwrap_or_default(),
                mr_type: u16::try_from(kind).unwrap_or_default(),
                mr_alen: 6,
                mr_address: [a, b, c, d, e, f, 0, 0],
            };
            sys::set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        Ok(Self { _socket: socket })
    }
}

fn bind(socket: &OwnedFd, device: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(device).unwrap_or_default(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the shape is that of packet(7).
    unsafe { sys::bind(socket, &address) }
}
