//! Captures as links: a file that frames arrive from, a file that frames are sent to.
//!
//! ```text
//!  client.in.pcap ──► Replay ──► PcapQueue ──► Recorder ──► server.out.pcap
//!                      when due    one queue      at the time it is told
//! ```
//!
//! Each half works alone: without a [`Replay`] nothing arrives, without a [`Recorder`] everything
//! is refused. Neither looks at a clock. A replay hands frames over as fast as they are asked for,
//! or follows the capture's times when it is told how far time has come; a recorder stamps frames
//! with the time it was last told.
//!
//! The format is libpcap's, microseconds or nanoseconds, either octet order; pcapng is not read.
//! A file that breaks off or contradicts itself ends the replay at that record with one error.

use crate::{Burst, Frame, Lost, Pool, Queue, RoomFrame, RoomPool};
use pcap_file::{
    DataLink, Endianness, PcapError, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter},
};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, ErrorKind, Read, Write},
    path::Path,
    time::Duration,
};

/// Octets of a captured frame at most; a record that claims more is corrupt. libpcap's
/// `MAXIMUM_SNAPLEN` says the same.
pub const SNAP_MAX: u32 = 262_144;

/// Why a capture cannot be read or written (any further).
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened or made.
    #[error("cannot open the capture: {0}")]
    Open(#[source] io::Error),
    /// It would be written over while it is read, or before.
    #[error("the capture is one that is read as well: write into another file")]
    IsRead,
    /// Not a capture, or one of another format.
    #[error("not a pcap file (a pcapng file becomes one by `editcap -F pcap IN OUT`)")]
    Format,
    /// Not a capture of Ethernet frames.
    #[error("the capture has link type {0}, not Ethernet (1)")]
    LinkType(u32),
    /// What a record says about itself cannot be.
    #[error("record {record} of the capture is corrupt: {what}")]
    Corrupt {
        /// Its place in the file, the first is 1.
        record: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system could not read.
    #[error("cannot read record {record} of the capture: {source}")]
    Read {
        /// Its place in the file, the first is 1.
        record: u64,
        /// Why.
        source: io::Error,
    },
    /// The system could not write.
    #[error("cannot write the capture: {0}")]
    Write(#[source] io::Error),
}

/// A capture that frames arrive from.
#[derive(Debug)]
pub struct Replay<R: Read = File> {
    reader: PcapReader<R>,
    /// Records read so far, the next one included.
    records: u64,
    /// The next frame, if `due` says that there is one.
    octets: Vec<u8>,
    due: Option<Duration>,
    /// Time of the first record.
    origin: Option<Duration>,
    until: Duration,
    cut_short: u64,
    lost: Lost,
    error: Option<CaptureError>,
}

impl Replay {
    /// Opens the capture at `path`.
    ///
    /// # Errors
    ///
    /// As [`Replay::new`], and when there is no such file.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::new(File::open(path).map_err(CaptureError::Open)?)
    }
}

impl<R: Read> Replay<R> {
    /// Reads the capture's header and first record. `source` needs no buffer of its own.
    ///
    /// # Errors
    ///
    /// [`CaptureError`], when there is nothing to replay.
    pub fn new(source: R) -> Result<Self, CaptureError> {
        let reader = PcapReader::new(source).map_err(|error| match error {
            PcapError::IoError(error) if error.kind() != ErrorKind::UnexpectedEof => {
                CaptureError::Open(error)
            }
            _ => CaptureError::Format,
        })?;
        let link_type = reader.header().datalink;
        if link_type != DataLink::ETHERNET {
            return Err(CaptureError::LinkType(link_type.into()));
        }
        let mut replay = Self {
            reader,
            records: 0,
            octets: Vec::new(),
            due: None,
            origin: None,
            until: Duration::MAX,
            cut_short: 0,
            lost: Lost::default(),
            error: None,
        };
        replay.advance();
        match replay.error.take() {
            Some(error) => Err(error),
            None => Ok(replay),
        }
    }

    /// When the next frame is due, counted from the first one; `None` after the last. A frame
    /// whose time lies before its predecessor's is due with that.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due
    }

    /// The time of the first frame, as the capture tells it, since 1970 or whatever else its maker
    /// meant; `None` if it has none. Captures made together are lined up by it.
    #[must_use]
    pub fn started_at(&self) -> Option<Duration> {
        self.origin
    }

    /// From now on only frames due at `until` or earlier arrive, counted from the first one. At
    /// first all do.
    pub fn arrive_until(&mut self, until: Duration) {
        self.until = until;
    }

    /// Why the replay ended before the end of the file, if it did.
    #[must_use]
    pub fn error(&self) -> Option<&CaptureError> {
        self.error.as_ref()
    }

    /// Frames read so far of which the capture holds the beginning only (its snap length). They
    /// arrive as they are.
    #[must_use]
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        let before = burst.len();
        // A frame that is too long costs a turn as well: the breath stays bounded.
        for _ in 0..most.min(burst.remaining_capacity()) {
            if self.due.is_none_or(|due| due > self.until) {
                break;
            }
            let Some(mut frame) = pool.take() else { break };
            if frame.fill(&self.octets) {
                burst.push(frame);
            } else {
                self.lost.too_long += 1;
                pool.give(frame);
            }
            self.advance();
        }
        burst.len() - before
    }

    /// Reads the next record. `octets` keeps its place in memory.
    fn advance(&mut self) {
        let earliest = self.due.take().unwrap_or_default();
        self.octets.clear();
        self.records += 1;
        let record = self.records;
        let fraction_max = match self.reader.header().ts_resolution {
            TsResolution::MicroSecond => 1_000_000,
            TsResolution::NanoSecond => 1_000_000_000,
        };
        let corrupt = |what| CaptureError::Corrupt { record, what };
        self.error = Some(match self.reader.next_raw_packet() {
            None => return,
            Some(Err(PcapError::IoError(error))) if error.kind() == ErrorKind::UnexpectedEof => {
                corrupt("it reaches beyond the end of the file")
            }
            Some(Err(PcapError::IoError(source))) => CaptureError::Read { record, source },
            Some(Err(_)) => corrupt("it cannot be read"),
            Some(Ok(raw)) if raw.incl_len > raw.orig_len => {
                corrupt("it holds more octets than the frame had")
            }
            Some(Ok(raw)) if raw.incl_len > SNAP_MAX => corrupt("it is too long for a frame"),
            Some(Ok(raw)) if raw.ts_frac >= fraction_max => {
                corrupt("its time has more than a second's fraction")
            }
            Some(Ok(raw)) => {
                let nanos = raw.ts_frac * (1_000_000_000 / fraction_max);
                let at = Duration::new(raw.ts_sec.into(), nanos);
                let origin = *self.origin.get_or_insert(at);
                self.due = Some(at.saturating_sub(origin).max(earliest));
                self.cut_short += u64::from(raw.incl_len < raw.orig_len);
                self.octets.extend_from_slice(&raw.data);
                return;
            }
        });
    }
}

/// How a capture tells time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Resolution {
    /// Every tool reads it.
    Microseconds,
    /// Most tools read it.
    #[default]
    Nanoseconds,
}

/// A capture that frames are sent to.
#[derive(Debug)]
pub struct Recorder<W: Write = BufWriter<File>> {
    writer: PcapWriter<W>,
    snap_octets: u32,
    at: Duration,
    cut_short: u64,
    error: Option<CaptureError>,
}

impl Recorder {
    /// Makes the capture at `path`, or begins it anew, with nanoseconds and whole frames.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Open`] or [`CaptureError::Write`].
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = File::create(path).map_err(CaptureError::Open)?;
        Self::new(BufWriter::new(file), Resolution::default(), SNAP_MAX)
    }
}

impl<W: Write> Recorder<W> {
    /// Writes the header of a capture that holds at most `snap_octets` of each frame (at most
    /// [`SNAP_MAX`]). Wants a buffered `sink`.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Write`].
    pub fn new(sink: W, resolution: Resolution, snap_octets: u32) -> Result<Self, CaptureError> {
        let snap_octets = snap_octets.min(SNAP_MAX);
        let header = PcapHeader {
            snaplen: snap_octets,
            datalink: DataLink::ETHERNET,
            ts_resolution: match resolution {
                Resolution::Microseconds => TsResolution::MicroSecond,
                Resolution::Nanoseconds => TsResolution::NanoSecond,
            },
            // The same file on every machine.
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(sink, header).map_err(not_written)?;
        Ok(Self { writer, snap_octets, at: Duration::ZERO, cut_short: 0, error: None })
    }

    /// The time of the frames sent from now on, since 1970 or whatever else the reader expects;
    /// beyond 32 bits of seconds it stands still. At first it is zero.
    pub fn stamp(&mut self, at: Duration) {
        let latest = Duration::new(u32::MAX.into(), 999_999_999);
        self.at = at.min(latest);
    }

    /// Frames of which only the first octets were written, as the snap length demands.
    #[must_use]
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    /// Why nothing is written any more, if so.
    #[must_use]
    pub fn error(&self) -> Option<&CaptureError> {
        self.error.as_ref()
    }

    /// Ends the capture and hands its sink back, everything written.
    ///
    /// # Errors
    ///
    /// The first [`CaptureError::Write`] there was.
    pub fn finish(self) -> Result<W, CaptureError> {
        self.error.map_or(Ok(()), Err)?;
        let mut sink = self.writer.into_writer();
        sink.flush().map_err(CaptureError::Write)?;
        Ok(sink)
    }

    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        // After an error the end of the file is unknown: nothing that follows would be readable.
        let went = burst.iter().take_while(|frame| self.write(frame.octets())).count();
        burst.drain(..went).for_each(|frame| pool.give(frame));
        went
    }

    fn write(&mut self, octets: &[u8]) -> bool {
        if self.error.is_some() {
            return false;
        }
        let snap = usize::try_from(self.snap_octets).unwrap_or(usize::MAX);
        let kept = octets.get(..snap).unwrap_or(octets);
        let packet = PcapPacket {
            timestamp: self.at,
            orig_len: u32::try_from(octets.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(kept),
        };
        self.error = self.writer.write_packet(&packet).err().map(not_written);
        let written = self.error.is_none();
        self.cut_short += u64::from(written && kept.len() < octets.len());
        written
    }
}

/// What the pcap crate says when it could not write.
fn not_written(error: PcapError) -> CaptureError {
    CaptureError::Write(match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    })
}

/// A link of one queue made of captures.
#[derive(Debug)]
pub struct PcapQueue<R: Read = File, W: Write = BufWriter<File>> {
    /// Where frames arrive from; without it none do.
    pub replay: Option<Replay<R>>,
    /// Where frames are sent; without it all are refused.
    pub recorder: Option<Recorder<W>>,
}

impl<R: Read + Send, W: Write + Send> Queue for PcapQueue<R, W> {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        self.replay.as_mut().map_or(0, |replay| replay.receive(pool, burst, most))
    }

    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        self.recorder.as_mut().map_or(0, |recorder| recorder.send(pool, burst))
    }

    fn lost(&self) -> Lost {
        self.replay.as_ref().map(|replay| replay.lost).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reserve;

    const HEADER: usize = 24;
    const RECORD: usize = 16;

    type Sent = Recorder<Vec<u8>>;

    fn capture(resolution: Resolution, frames: &[(Duration, &[u8])]) -> Vec<u8> {
        let mut recorder: Sent = Recorder::new(Vec::new(), resolution, SNAP_MAX).unwrap();
        for (at, octets) in frames {
            recorder.stamp(*at);
            assert!(recorder.write(octets));
        }
        recorder.finish().unwrap()
    }

    fn three(resolution: Resolution) -> Vec<u8> {
        let at = |nanos| Duration::from_secs(1_700_000_000) + Duration::from_nanos(nanos);
        capture(resolution, &[(at(0), &[1; 60]), (at(1_500), &[2; 61]), (at(2_000_000), &[3; 62])])
    }

    /// Everything that still arrives, as (first octet, length).
    fn rest(replay: &mut Replay<&[u8]>) -> Vec<(u8, usize)> {
        let mut pool = Reserve::new(8, 1514).pool();
        let mut burst = Burst::new();
        replay.receive(&mut pool, &mut burst, usize::MAX);
        burst.iter().map(|frame| (frame.octets()[0], frame.octets().len())).collect()
    }

    #[test]
    fn times_are_those_of_the_capture_in_either_resolution() {
        for (resolution, second) in
            [(Resolution::Nanoseconds, 1_500), (Resolution::Microseconds, 1_000)]
        {
            let file = three(resolution);
            let mut replay = Replay::new(file.as_slice()).unwrap();
            let mut due = Vec::new();
            while let Some(next) = replay.next_due() {
                due.push(next);
                replay.advance();
            }
            assert_eq!(due, [0, second, 2_000_000].map(Duration::from_nanos));
            assert!(replay.error().is_none());
        }
    }

    #[test]
    fn a_capture_of_the_other_octet_order_reads_alike() {
        let mut file = vec![0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([0, 0, 0xff, 0xff, 0, 0, 0, 1]);
        file.extend([0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 2, 0xaa, 0xbb]);
        let mut replay = Replay::new(file.as_slice()).unwrap();
        assert_eq!(rest(&mut replay), [(0xaa, 2)]);
    }

    #[test]
    fn a_replay_that_follows_time_hands_over_what_is_due() {
        let file = three(Resolution::Nanoseconds);
        let mut replay = Replay::new(file.as_slice()).unwrap();
        replay.arrive_until(Duration::from_nanos(1_499));
        assert_eq!(rest(&mut replay), [(1, 60)]);
        assert_eq!(rest(&mut replay), []);
        assert_eq!(replay.next_due(), Some(Duration::from_nanos(1_500)));
        replay.arrive_until(Duration::from_nanos(1_500));
        assert_eq!(rest(&mut replay), [(2, 61)]);
        replay.arrive_until(Duration::MAX);
        assert_eq!(rest(&mut replay), [(3, 62)]);
        assert_eq!(replay.next_due(), None);
    }

    #[test]
    fn a_frame_stamped_before_its_predecessor_is_due_with_it() {
        let at = Duration::from_secs;
        let file = capture(
            Resolution::Microseconds,
            &[(at(5), &[1; 60]), (at(9), &[2; 60]), (at(2), &[3; 60])],
        );
        let mut replay = Replay::new(file.as_slice()).unwrap();
        replay.arrive_until(at(4));
        assert_eq!(rest(&mut replay).len(), 3);
    }

    #[test]
    fn a_capture_cut_anywhere_replays_the_whole_records_and_says_where_it_broke() {
        let file = three(Resolution::Nanoseconds);
        let ends = [HEADER, HEADER + RECORD + 60, HEADER + 2 * RECORD + 121, file.len()];
        for len in 0..file.len() {
            let replay = Replay::new(&file[..len]);
            let whole = ends.iter().filter(|&&end| end <= len).count();
            let expected = match whole {
                0 => {
                    assert!(matches!(replay, Err(CaptureError::Format)), "{len}");
                    continue;
                }
                1 if len > HEADER => {
                    assert!(
                        matches!(replay, Err(CaptureError::Corrupt { record: 1, .. })),
                        "{len}"
                    );
                    continue;
                }
                whole => whole - 1,
            };
            let mut replay = replay.unwrap();
            assert_eq!(rest(&mut replay).len(), expected, "{len}");
            match replay.error() {
                None => assert!(ends.contains(&len), "{len}"),
                Some(CaptureError::Corrupt { record, .. }) => {
                    assert_eq!(usize::try_from(*record).unwrap(), expected + 1, "{len}");
                }
                Some(error) => panic!("{len}: {error}"),
            }
            assert_eq!(rest(&mut replay), [], "nothing comes after the end");
        }
    }

    #[test]
    fn records_that_contradict_themselves_are_one_clear_error() {
        let second = HEADER + RECORD + 60;
        let with = |at: usize, value: u32| {
            let mut file = three(Resolution::Nanoseconds);
            file[second + at..second + at + 4].copy_from_slice(&value.to_le_bytes());
            let mut replay = Replay::new(file.as_slice()).unwrap();
            assert_eq!(rest(&mut replay), [(1, 60)]);
            replay.error().unwrap().to_string()
        };
        let says = |what| format!("record 2 of the capture is corrupt: {what}");
        assert_eq!(with(4, 1_000_000_000), says("its time has more than a second's fraction"));
        assert_eq!(with(8, 62), says("it holds more octets than the frame had"));
        assert_eq!(with(8, u32::MAX), says("it reaches beyond the end of the file"));
        assert_eq!(with(12, 60), says("it holds more octets than the frame had"));
    }

    #[test]
    fn a_record_longer_than_any_frame_is_corrupt() {
        let mut file = capture(Resolution::Nanoseconds, &[(Duration::ZERO, &vec![7; 262_144])]);
        assert!(Replay::new(file.as_slice()).is_ok());
        file.push(7);
        file[HEADER + 8..HEADER + 16].copy_from_slice(&[1, 0, 4, 0, 1, 0, 4, 0]);
        let error = Replay::new(file.as_slice()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "record 1 of the capture is corrupt: it is too long for a frame"
        );
    }

    #[test]
    fn files_that_are_no_capture_of_ethernet_are_refused_at_once() {
        let error = |file: &[u8]| Replay::new(file).unwrap_err();
        assert!(matches!(error(&[]), CaptureError::Format));
        assert!(matches!(error(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"), CaptureError::Format));
        let pcapng = [&[0x0a, 0x0d, 0x0d, 0x0a][..], &[0; 60]].concat();
        assert!(error(&pcapng).to_string().contains("editcap"));
        let mut raw_ip = three(Resolution::Nanoseconds);
        raw_ip[20] = 101;
        assert!(matches!(error(&raw_ip), CaptureError::LinkType(101)));
        assert!(matches!(Replay::open(Path::new("/nowhere/x")), Err(CaptureError::Open(_))));
        assert!(matches!(Recorder::create(Path::new("/nowhere/x")), Err(CaptureError::Open(_))));
    }

    #[test]
    fn frames_beyond_the_snap_length_are_cut_and_counted_on_both_sides() {
        let mut recorder = Recorder::new(Vec::new(), Resolution::Microseconds, 61).unwrap();
        for octets in [&[1; 60][..], &[2; 61], &[3; 1514]] {
            assert!(recorder.write(octets));
        }
        assert_eq!(recorder.cut_short(), 1);
        let file = recorder.finish().unwrap();
        let mut replay = Replay::new(file.as_slice()).unwrap();
        assert_eq!(rest(&mut replay), [(1, 60), (2, 61), (3, 61)]);
        assert_eq!(replay.cut_short(), 1);
        assert!(replay.error().is_none());
    }

    #[test]
    fn a_recorder_stamps_what_it_was_told_and_never_beyond_its_format() {
        let latest = Duration::new(u32::MAX.into(), 999_999_999);
        let file = capture(Resolution::Nanoseconds, &[(Duration::MAX, &[1; 60])]);
        let mut reader = PcapReader::new(file.as_slice()).unwrap();
        assert_eq!(reader.next_packet().unwrap().unwrap().timestamp, latest);
    }

    #[test]
    fn halves_that_are_missing_receive_nothing_and_refuse_everything() {
        let mut pool = Reserve::new(1, 60).pool();
        let mut queue = PcapQueue::<File> { replay: None, recorder: None };
        let mut burst = Burst::new();
        assert_eq!(queue.receive(&mut pool, &mut burst, 32), 0);
        burst.push(pool.take().unwrap());
        assert_eq!(queue.send(&mut pool, &mut burst), 0);
        assert_eq!((burst.len(), queue.lost()), (1, Lost::default()));
    }
}
