//! What is asked of a device and told to it by its name: netdevice(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Octets of a device's name with the zero at its end.
const NAME_OCTETS: usize = libc::IFNAMSIZ;

/// `struct ifreq` of netdevice(7): a name, and a value whose shape depends on the question. As
/// octets, because every shape is octets and a union would cost an `unsafe` per look.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Request {
    name: [u8; NAME_OCTETS],
    /// The value.
    pub(crate) value: [u8; Request::VALUE_OCTETS],
}

impl Request {
    pub(crate) const VALUE_OCTETS: usize = size_of::<libc::ifreq>() - NAME_OCTETS;

    /// `None` when the kernel would take the name for something else, or not at all.
    /// Linux 6.12 net/core/dev.c `dev_valid_name()`; `%` asks it to choose a number.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let plain = |octet: u8| octet.is_ascii_graphic() && !b"/:%".contains(&octet);
        let fits = (1..NAME_OCTETS).contains(&name.len()) && !matches!(name, "." | "..");
        if !fits || !name.bytes().all(plain) {
            return None;
        }
        let mut octets = [0; NAME_OCTETS];
        octets.iter_mut().zip(name.bytes()).for_each(|(place, octet)| *place = octet);
        Some(Self { name: octets, value: [0; Self::VALUE_OCTETS] })
    }

    pub(crate) fn with(mut self, value: &[u8]) -> Self {
        self.value = [0; Self::VALUE_OCTETS];
        self.value.iter_mut().zip(value).for_each(|(place, octet)| *place = *octet);
        self
    }

    pub(crate) fn name(&self) -> String {
        self.name.iter().take_while(|&&octet| octet != 0).map(|&octet| char::from(octet)).collect()
    }
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
const _: () = assert!(align_of::<Request>() >= align_of::<libc::ifreq>());

/// Flags as a request carries them: 16 bits.
pub(crate) fn short(flags: libc::c_int) -> [u8; 2] {
    u16::try_from(flags & 0xffff).unwrap_or_default().to_ne_bytes()
}

/// `what` must be one of the requests whose argument is a `struct ifreq`.
pub(crate) fn ioctl(
    fd: BorrowedFd<'_>,
    what: libc::Ioctl,
    request: &mut Request,
) -> io::Result<()> {
    debug_assert!(matches!(
        what,
        libc::TUNSETIFF
            | libc::SIOCGIFFLAGS
            | libc::SIOCSIFFLAGS
            | libc::SIOCGIFMTU
            | libc::SIOCSIFMTU
            | libc::SIOCGIFHWADDR
            | libc::SIOCSIFHWADDR
    ));
    // JUSTIFICATION: std has no ioctl, and a crate of wrappers would bring more unsafe than this.
    // SAFETY:
    // - the descriptor is open: it is borrowed;
    // - the kernel reads and writes at most a `struct ifreq` at the address: the requests above do
    //   so, and `Request` has its size and alignment (asserted);
    // - the place is ours alone for the call: it is borrowed mutably;
    // - the value holds no pointers: none of these requests takes one.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), what, &raw mut *request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What ethtool(8) asks a device. `include/uapi/linux/ethtool.h`.
pub(crate) mod ethtool {
    use super::io;
    use std::os::fd::{AsFd, AsRawFd};

    const GDRVINFO: u32 = 3;
    const GCHANNELS: u32 = 0x3c;

    /// `struct ethtool_drvinfo`: a number, then words of 32 octets, the driver first and the bus fourth.
    const DRIVER_INFO: usize = 196;
    /// `struct ethtool_channels`: nine numbers.
    const CHANNELS: usize = 36;

    /// The driver's name.
    pub(crate) fn driver(socket: &impl AsFd, device: &str) -> io::Result<String> {
        word_of(socket, device, 4)
    }

    /// Where it is plugged in, if it says so. A TAP says "tap": Linux 6.12 drivers/net/tun.c
    /// `tun_get_drvinfo()`.
    pub(crate) fn bus(socket: &impl AsFd, device: &str) -> io::Result<String> {
        word_of(socket, device, 100)
    }

    /// The word at this place of what a driver tells of itself.
    fn word_of(socket: &impl AsFd, device: &str, at: usize) -> io::Result<String> {
        let info = ask::<DRIVER_INFO>(socket, device, GDRVINFO)?;
        let word = info.iter().skip(at).take(32).take_while(|octet| **octet != 0);
        Ok(word.map(|octet| char::from(*octet)).collect())
    }

    /// Its queues: to receive, and to transmit.
    pub(crate) fn queues(socket: &impl AsFd, device: &str) -> io::Result<[u32; 2]> {
        let answer = ask::<CHANNELS>(socket, device, GCHANNELS)?;
        let (words, _) = answer.as_chunks::<4>();
        let word = |at| words.get(at).copied().map(u32::from_ne_bytes).unwrap_or_default();
        Ok([word(5), word(6)].map(|alone| alone + word(8))) // rx_count, tx_count, combined_count
    }

    fn ask<const N: usize>(socket: &impl AsFd, device: &str, question: u32) -> io::Result<[u8; N]> {
        #[repr(C)]
        struct Request {
            name: [u8; libc::IFNAMSIZ],
            answer: *mut u8,
            _rest: [u64; 2],
        }
        #[repr(C, align(8))]
        struct Answer<const N: usize>([u8; N]);
        const { assert!(size_of::<Request>() == size_of::<libc::ifreq>()) };
        let mut answer = Answer([0; N]);
        answer.0.iter_mut().zip(question.to_ne_bytes()).for_each(|(place, octet)| *place = octet);
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            answer: (&raw mut answer.0).cast(),
            _rest: [0; 2],
        };
        // One octet less, so that it ends with a zero.
        let place = request.name.iter_mut().take(libc::IFNAMSIZ - 1);
        place.zip(device.bytes()).for_each(|(place, octet)| *place = octet);
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open; the request has the size of a `struct ifreq` and leads to
        //   a live answer, whose size is that of the question's shape: the two above.
        let done = unsafe { libc::ioctl(fd, libc::SIOCETHTOOL, &raw mut request) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(answer.0) }
    }
}
