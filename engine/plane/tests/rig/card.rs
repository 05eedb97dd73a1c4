//! What kernels leave to a network card, and the card: VIRTIO 1.2 section 5.1.6, by the book.

use super::Rig;
use super::frames::{L3, TCP, folded, packet_octets, sum};
use rvs_io::superframe::{HEADER_LEN, header_for, take_note};
use rvs_io::{Frame, Pool as _, Reserve};

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// A frame as a TAP gives it: with a header before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Left {
    pub header: [u8; HEADER_LEN],
    pub frame: Vec<u8>,
}

fn word(octets: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]))
}

/// What a kernel gives a card instead of this frame, to be cut into segments of `mss` octets of payload
/// if that is given.
pub fn left(frame: &[u8], mss: Option<u16>) -> Left {
    let mut frame = frame[..L3 + packet_octets(&frame[L3..])].to_vec();
    let is_v6 = frame[L3] >> 4 == 6;
    let (l4, protocol) = if is_v6 { (40, frame[L3 + 6]) } else { (20, frame[L3 + 9]) };
    let (l4, field) = (L3 + l4, if protocol == TCP { 16 } else { 6 });
    // The checksum is the complement of the pseudo-header's sum and the rest's.
    frame[l4 + field..l4 + field + 2].fill(0);
    let addresses = if is_v6 { L3 + 8..L3 + 40 } else { L3 + 12..L3 + 20 };
    let octets = u32::try_from(frame.len() - l4).unwrap();
    let pseudo = folded(sum(&frame[addresses]) + u32::from(protocol) + octets);
    frame[l4 + field..l4 + field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let mut header = [NEEDS_CSUM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[6..8].copy_from_slice(&u16::try_from(l4).unwrap().to_ne_bytes());
    header[8..10].copy_from_slice(&u16::try_from(field).unwrap().to_ne_bytes());
    if let Some(mss) = mss {
        header[1] = if is_v6 { GSO_TCPV6 } else { GSO_TCPV4 };
        header[2..4].copy_from_slice(&u16::try_from(l4 + 20).unwrap().to_ne_bytes());
        header[4..6].copy_from_slice(&mss.to_ne_bytes());
    }
    Left { header, frame }
}

impl Left {
    /// What a card sends for it.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        let number =
            |at: usize| usize::from(u16::from_ne_bytes([self.header[at], self.header[at + 1]]));
        if self.header == [0; HEADER_LEN] {
            return vec![self.frame.clone()];
        }
        assert_eq!(self.header[0], NEEDS_CSUM);
        let (headers, mss, l4, field) = (number(2), number(4), number(6), number(8));
        let l3 = if word(&self.frame, 12) == 0x8100 { L3 + 4 } else { L3 };
        let is_v6 = self.frame[l3] >> 4 == 6;
        if self.header[1] == 0 {
            let mut frame = self.frame.clone();
            finish(&mut frame, l4, field);
            return vec![frame];
        }
        assert_eq!(self.header[1], if is_v6 { GSO_TCPV6 } else { GSO_TCPV4 });
        assert_eq!((headers, field), (l4 + 20, 16));
        let segment = |(number, payload): (usize, &[u8])| {
            let mut frame = [&self.frame[..headers], payload].concat();
            let (whole, octets) = (self.frame.len() - l4, frame.len() - l4);
            let length = u16::try_from(frame.len() - l3 - if is_v6 { 40 } else { 0 }).unwrap();
            let at = l3 + if is_v6 { 4 } else { 2 };
            frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            if !is_v6 {
                super::frames::sum_up_v4(&mut frame[l3..l4]);
            }
            let sequence = u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap());
            let sequence = sequence + u32::try_from(number * mss).unwrap();
            frame[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
            let pseudo = word(&frame, l4 + field) + (0xffff - whole) + octets;
            let pseudo = folded(u32::try_from(pseudo).unwrap());
            frame[l4 + field..l4 + field + 2].copy_from_slice(&pseudo.to_be_bytes());
            finish(&mut frame, l4, field);
            frame
        };
        self.frame[headers..].chunks(mss).enumerate().map(segment).collect()
    }
}

fn finish(frame: &mut [u8], from: usize, field: usize) {
    let whole = match !folded(sum(&frame[from..])) {
        0 => 0xffff,
        whole => whole,
    };
    frame[from + field..from + field + 2].copy_from_slice(&whole.to_be_bytes());
}

impl Rig {
    /// The same as [`Rig::send`] for what a TAP that carries it gives and takes.
    pub fn send_left(&mut self, link: usize, frames: &[Left]) -> Vec<(usize, Left)> {
        for left in frames {
            assert!(self.offer_left(link, left), "{:?}", left.header);
        }
        self.sent_left()
    }

    /// Whether a TAP takes it in.
    pub fn offer_left(&mut self, link: usize, left: &Left) -> bool {
        let is_long = left.frame.len() > self.reserve.frame_octets();
        let large = || Reserve::new(1, 60).with_large(1).pool().take_large();
        let mut frame = if is_long { large() } else { self.far[link].pool_mut().take() }.unwrap();
        let is_taken = frame.fill(&left.frame) && take_note(left.header, &mut frame);
        if is_taken {
            self.far[link].inject_frame(frame).unwrap();
        } else {
            self.far[link].pool_mut().give(frame);
        }
        is_taken
    }

    /// Breathes until nothing moves, and says what came out.
    pub fn sent_left(&mut self) -> Vec<(usize, Left)> {
        let mut out = Vec::new();
        loop {
            let now = self.now;
            let moved: usize = self.workers.iter_mut().map(|worker| worker.breathe(now)).sum();
            for (link, far) in self.far.iter_mut().enumerate() {
                for worker in 0..u16::try_from(far.queues()).unwrap() {
                    while let Some(mut frame) = far.collect_frame(worker) {
                        let header = header_for(&mut frame).unwrap();
                        out.push((link, Left { header, frame: frame.octets().to_vec() }));
                        far.pool_mut().give(frame);
                    }
                }
            }
            if moved == 0 {
                break;
            }
        }
        self.assert_conservation();
        out
    }
}
