//! Frames: a length and JSON. What crosses the socket, without the socket.
//!
//! A length beyond the limit is refused before anything is read or allocated for it; memory grows
//! with what has arrived, never with what was announced.

use crate::{Outcome, Reply, Request, VERSION};
use core::mem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The longest frame, in bytes without its length: a batch of about 100 000 changes, and many
/// times what an answer grows to before it is cut.
pub const FRAME_BYTES_MAX: u32 = 32 << 20;

/// Bytes of answers that are gathered before a frame goes out.
const ANSWER_BYTES: usize = 256 << 10;

/// Entries of a list that travel together: one frame's worth.
const LIST_PART: usize = 1024;

/// The first frame in both directions.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// What the sender speaks: [`VERSION`].
    pub version: u32,
}

/// What went wrong between two ends.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end closed the connection between two frames: the regular end.
    #[error("the connection was closed")]
    Closed,
    /// The other end closed the connection within a frame.
    #[error("the connection was closed within a message")]
    Truncated,
    /// A frame is longer than [`FRAME_BYTES_MAX`].
    #[error("a message of {0} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong(u64),
    /// A frame is not what the protocol has at this place.
    #[error("a message is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    /// The answers do not fit the requests.
    #[error("{outcomes} answers to {requests} requests")]
    Unmatched {
        /// How many were asked.
        requests: usize,
        /// How many were answered.
        outcomes: usize,
    },
    /// The two programs are not of the same release.
    #[error(
        "rvsd speaks version {rvsd} of rvs's control protocol and this program version {other}: \
         install both from one release"
    )]
    Version {
        /// What rvsd speaks.
        rvsd: u32,
        /// What its client speaks.
        other: u32,
    },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// `message` as a frame.
///
/// # Errors
///
/// [`FrameError::TooLong`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; size_of::<u32>()];
    serde_json::to_writer(&mut frame, message)?;
    seal(&mut frame)?;
    Ok(frame)
}

/// Writes the length in front of a frame whose first four bytes were left for it.
fn seal(frame: &mut [u8]) -> Result<(), FrameError> {
    let len = frame.len().saturating_sub(size_of::<u32>());
    let len = u32::try_from(len)
        .ok()
        .filter(|len| *len <= FRAME_BYTES_MAX)
        .ok_or(FrameError::TooLong(u64::try_from(len).unwrap_or(u64::MAX)))?;
    if let Some(place) = frame.first_chunk_mut() {
        *place = len.to_be_bytes();
    }
    Ok(())
}

fn checked_len(len: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(len);
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(u64::from(len)));
    }
    usize::try_from(len).map_err(|_| FrameError::TooLong(u64::from(len)))
}

/// A whole frame was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Split<'r> {
    /// What it says: JSON.
    pub message: &'r [u8],
    /// What was received behind it.
    pub rest: &'r [u8],
}

/// Takes a whole frame from the front of what was received, or `None` while it is incomplete.
///
/// # Errors
///
/// [`FrameError::TooLong`], as soon as the length is there.
pub fn split(received: &[u8]) -> Result<Option<Split<'_>>, FrameError> {
    let Some((len, rest)) = received.split_first_chunk::<4>() else { return Ok(None) };
    Ok(rest.split_at_checked(checked_len(*len)?).map(|(message, rest)| Split { message, rest }))
}

/// Reads the message of a frame.
///
/// # Errors
///
/// [`FrameError::NotUnderstood`].
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(message)?)
}

/// Waits for a frame and reads its message.
///
/// # Errors
///
/// [`FrameError::Closed`] at the regular end, else any other but [`FrameError::Unmatched`].
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, FrameError> {
    let mut len = [0; 4];
    let mut filled = 0;
    while let Some(room) = len.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) if filled == 0 => return Err(FrameError::Closed),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(more) => filled = filled.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let len = checked_len(len)?;
    let mut message = Vec::new();
    from.take(u64::try_from(len).unwrap_or(u64::MAX)).read_to_end(&mut message)?;
    if message.len() < len {
        return Err(FrameError::Truncated);
    }
    decode(&message)
}

/// Writes `message` as a frame.
///
/// # Errors
///
/// [`FrameError::TooLong`] or [`FrameError::Io`].
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), FrameError> {
    to.write_all(&encode(message)?)?;
    Ok(to.flush()?)
}

/// The client's side of the greeting.
///
/// # Errors
///
/// [`FrameError::Version`], or what [`read`] and [`write()`] say.
pub fn greet(stream: &mut (impl Read + Write)) -> Result<(), FrameError> {
    write(stream, &Hello { version: VERSION })?;
    match read::<Hello>(stream)? {
        Hello { version: VERSION } => Ok(()),
        Hello { version } => Err(FrameError::Version { rvsd: version, other: VERSION }),
    }
}

/// rvsd's side of the greeting. It answers before it refuses, so that the client can say why.
///
/// # Errors
///
/// [`FrameError::Version`], or what [`read`] and [`write()`] say.
pub fn welcome(stream: &mut (impl Read + Write)) -> Result<(), FrameError> {
    let hello = read::<Hello>(stream)?;
    write(stream, &Hello { version: VERSION })?;
    if hello.version == VERSION {
        Ok(())
    } else {
        Err(FrameError::Version { rvsd: VERSION, other: hello.version })
    }
}

/// A frame of answers.
#[derive(Debug, Deserialize, Serialize)]
struct Answers {
    outcomes: Vec<Part>,
    last: bool,
}

/// An outcome, or a piece of one whose list is long.
#[derive(Debug, Deserialize, Serialize)]
struct Part {
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    more: bool,
}

/// Sends the outcomes of one batch, in order: cut into frames, long lists into parts, so that
/// neither end holds a long answer twice.
#[derive(Debug)]
pub struct AnswerWriter<W> {
    to: W,
    /// A frame being built: room for the length, then JSON.
    frame: Vec<u8>,
}

/// What a frame of answers begins with, behind its length.
const ANSWERS_OPEN: &[u8] = br#"{"outcomes":["#;

impl<W: Write> AnswerWriter<W> {
    /// Begins the answers to one batch.
    pub fn new(to: W) -> Self {
        let mut writer = Self { to, frame: Vec::new() };
        writer.open();
        writer
    }

    /// Adds the outcome of the next request.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] or [`FrameError::Io`].
    pub fn push(&mut self, outcome: Outcome) -> Result<(), FrameError> {
        match outcome {
            Ok(Reply::Services(list)) => self.push_list(list, Reply::Services),
            Ok(Reply::Conns(list)) => self.push_list(list, Reply::Conns),
            Ok(Reply::Changes(list)) => self.push_list(list, Reply::Changes),
            outcome => self.push_part(&Part { outcome, more: false }),
        }
    }

    /// Adds a piece of a list that goes on in the next outcome: for who has the list piecemeal.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] or [`FrameError::Io`].
    pub fn push_piece(&mut self, reply: Reply) -> Result<(), FrameError> {
        self.push_part(&Part { outcome: Ok(reply), more: true })
    }

    /// Sends what is left and says that it was all.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] or [`FrameError::Io`].
    pub fn finish(mut self) -> Result<(), FrameError> {
        self.send(true)?;
        Ok(self.to.flush()?)
    }

    fn push_list<T>(
        &mut self,
        mut list: Vec<T>,
        reply: impl Fn(Vec<T>) -> Reply,
    ) -> Result<(), FrameError> {
        while list.len() > LIST_PART {
            let rest = list.split_off(LIST_PART);
            self.push_piece(reply(mem::replace(&mut list, rest)))?;
        }
        self.push_part(&Part { outcome: Ok(reply(list)), more: false })
    }

    fn push_part(&mut self, part: &Part) -> Result<(), FrameError> {
        if self.frame.last() != Some(&b'[') {
            self.frame.push(b',');
        }
        serde_json::to_writer(&mut self.frame, part)?;
        if self.frame.len() > ANSWER_BYTES {
            self.send(false)?;
            self.open();
        }
        Ok(())
    }

    fn open(&mut self) {
        self.frame.clear();
        self.frame.extend_from_slice(&[0; 4]);
        self.frame.extend_from_slice(ANSWERS_OPEN);
    }

    fn send(&mut self, last: bool) -> Result<(), FrameError> {
        self.frame.extend_from_slice(if last {
            br#"],"last":true}"#
        } else {
            br#"],"last":false}"#
        });
        seal(&mut self.frame)?;
        Ok(self.to.write_all(&self.frame)?)
    }
}

/// Sends a batch.
///
/// # Errors
///
/// [`FrameError::TooLong`] or [`FrameError::Io`].
pub fn ask(to: &mut impl Write, requests: &[Request]) -> Result<(), FrameError> {
    write(to, &requests)
}

/// Waits for the outcomes of a batch of `requests` requests.
///
/// # Errors
///
/// What [`read`] says, or [`FrameError::Unmatched`].
pub fn read_answers(from: &mut impl Read, requests: usize) -> Result<Vec<Outcome>, FrameError> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut goes_on = false;
    loop {
        let answers: Answers = read(from)?;
        for Part { outcome, more } in answers.outcomes {
            match outcomes.last_mut().filter(|_| goes_on) {
                Some(start) => join(start, outcome),
                None => outcomes.push(outcome),
            }
            goes_on = more;
            if outcomes.len() > requests {
                return Err(FrameError::Unmatched { requests, outcomes: outcomes.len() });
            }
        }
        if answers.last {
            break;
        }
    }
    if goes_on || outcomes.len() != requests {
        return Err(FrameError::Unmatched { requests, outcomes: outcomes.len() });
    }
    Ok(outcomes)
}

/// Adds a further piece of a list; a refusal in the middle of one is the outcome of all of it.
fn join(start: &mut Outcome, piece: Outcome) {
    match (start, piece) {
        (Ok(Reply::Services(list)), Ok(Reply::Services(mut more))) => list.append(&mut more),
        (Ok(Reply::Conns(list)), Ok(Reply::Conns(mut more))) => list.append(&mut more),
        (Ok(Reply::Changes(list)), Ok(Reply::Changes(mut more))) => list.append(&mut more),
        (start, piece) => *start = piece,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddressFamily, Client, ClientError, Rates, ServiceKey, Totals};
    use crate::{DestAttributes, DestEntry, Errno, Refusal, ServiceAttributes, ServiceEntry};
    use rvs_model::{ForwardMethod, Protocol, Weight};
    use std::io::Cursor;

    fn key(port: u16) -> ServiceKey {
        let address = format!("203.0.113.1:{port}").parse().unwrap();
        ServiceKey::Address { protocol: Protocol::Tcp, address }
    }

    fn entry(port: u16) -> ServiceEntry {
        let dest = DestEntry {
            dest: "192.0.2.11:80".parse().unwrap(),
            attributes: DestAttributes::new(ForwardMethod::Masquerade, Weight(3)),
            active: 1,
            inactive: 2,
            persistent: 0,
            totals: Totals { conns: 7, ..Totals::default() },
            rates: Rates::default(),
        };
        ServiceEntry {
            service: key(port),
            attributes: ServiceAttributes::new("wlc", AddressFamily::V4),
            totals: Totals::default(),
            rates: Rates::default(),
            dests: vec![dest; 3],
        }
    }

    /// What one end wrote and the other will read; and the other way round.
    #[derive(Debug)]
    struct Wire {
        incoming: Cursor<Vec<u8>>,
        outgoing: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.incoming.read(room)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.outgoing.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answers(outcomes: Vec<Outcome>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = AnswerWriter::new(&mut bytes);
        for outcome in outcomes {
            writer.push(outcome).unwrap();
        }
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn a_batch_comes_back_as_it_was_sent() {
        let requests = vec![
            Request::Flush,
            Request::AddService {
                service: key(80),
                attributes: ServiceAttributes::new("rr", AddressFamily::V4),
            },
            Request::ListServices { service: Some(key(80)) },
            Request::Zero { service: None },
        ];
        let mut bytes = Vec::new();
        ask(&mut bytes, &requests).unwrap();
        let split = split(&bytes).unwrap().unwrap();
        assert!(split.rest.is_empty());
        assert_eq!(decode::<Vec<Request>>(split.message).unwrap(), requests);
        assert_eq!(read::<Vec<Request>>(&mut &bytes[..]).unwrap(), requests);
    }

    #[test]
    fn a_long_list_is_cut_into_frames_and_comes_back_whole() {
        let list: Vec<_> = (0..5000).map(entry).collect();
        let refused = Err(Refusal::with_message(Errno::OpNotSupp, "rvsd: not today"));
        let outcomes = vec![Ok(Reply::Done), Ok(Reply::Services(list)), refused, Ok(Reply::Done)];
        let bytes = answers(outcomes.clone());
        let first = split(&bytes).unwrap().unwrap();
        assert!(!first.rest.is_empty(), "one frame held it all");
        assert_eq!(read_answers(&mut &bytes[..], 4).unwrap(), outcomes);
    }

    #[test]
    fn no_answers_are_the_answer_to_nothing() {
        let bytes = answers(Vec::new());
        assert_eq!(read_answers(&mut &bytes[..], 0).unwrap(), Vec::new());
    }

    #[test]
    fn a_list_that_fails_midway_is_a_failure() {
        let mut bytes = Vec::new();
        let mut writer = AnswerWriter::new(&mut bytes);
        writer.push_piece(Reply::Services(vec![entry(1)])).unwrap();
        writer.push(Err(Errno::Io.into())).unwrap();
        writer.finish().unwrap();
        assert_eq!(read_answers(&mut &bytes[..], 1).unwrap(), vec![Err(Errno::Io.into())]);
    }

    #[test]
    fn too_few_and_too_many_answers_are_noticed() {
        let bytes = answers(vec![Ok(Reply::Done); 2]);
        for asked in [0, 1, 3] {
            let error = read_answers(&mut &bytes[..], asked).unwrap_err();
            assert!(matches!(error, FrameError::Unmatched { .. }), "{error}");
        }
        let mut bytes = Vec::new();
        let mut writer = AnswerWriter::new(&mut bytes);
        writer.push_piece(Reply::Services(Vec::new())).unwrap();
        writer.finish().unwrap();
        assert!(read_answers(&mut &bytes[..], 1).is_err(), "a list without its end");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_follows() {
        let hostile = (FRAME_BYTES_MAX + 1).to_be_bytes();
        assert!(matches!(split(&hostile), Err(FrameError::TooLong(_))));
        assert!(matches!(read::<Hello>(&mut &hostile[..]), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = encode(&Hello { version: 1 }).unwrap();
        for end in 0..bytes.len() {
            let part = &bytes[..end];
            assert_eq!(split(part).unwrap(), None);
            let error = read::<Hello>(&mut &part[..]).unwrap_err();
            let regular = matches!(error, FrameError::Closed);
            assert!(regular == (end == 0) && (regular || matches!(error, FrameError::Truncated)));
        }
    }

    #[test]
    fn hostile_octets_are_errors_and_never_panics() {
        let mut seed = 0x9e37_79b9_u32;
        for round in 0..20_000_u32 {
            let mut next = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed.to_be_bytes()[0]
            };
            let len = usize::from(next());
            let mut bytes: Vec<u8> = (0..len).map(|_| next()).collect();
            if round % 2 == 0 {
                bytes.splice(0..0, u32::try_from(len).unwrap().to_be_bytes());
            }
            assert!(read::<Vec<Request>>(&mut &bytes[..]).is_err());
            assert!(read_answers(&mut &bytes[..], 1).is_err());
        }
    }

    #[test]
    fn nested_brackets_without_end_do_not_overflow_the_stack() {
        let mut bytes = 100_000_u32.to_be_bytes().to_vec();
        bytes.resize(100_004, b'[');
        let error = read::<Vec<Request>>(&mut &bytes[..]).unwrap_err();
        assert!(matches!(error, FrameError::NotUnderstood(_)));
    }

    #[test]
    fn another_version_is_one_line_that_names_both() {
        let incoming = Cursor::new(encode(&Hello { version: 9 }).unwrap());
        let wire = Wire { incoming, outgoing: Vec::new() };
        let ClientError::Frame(error) = Client::greet(wire).unwrap_err() else { panic!() };
        let line = error.to_string();
        assert!(line.contains("version 9") && line.contains("version 1") && !line.contains('\n'));

        let incoming = Cursor::new(encode(&Hello { version: 9 }).unwrap());
        let mut wire = Wire { incoming, outgoing: Vec::new() };
        assert!(welcome(&mut wire).is_err());
        assert_eq!(read::<Hello>(&mut &wire.outgoing[..]).unwrap(), Hello { version: VERSION });
    }

    #[test]
    fn a_client_gets_the_outcomes_of_what_it_asked() {
        let mut bytes = encode(&Hello { version: VERSION }).unwrap();
        bytes.extend(answers(vec![Ok(Reply::Done)]));
        bytes.extend(answers(vec![Err(Errno::Srch.into()), Ok(Reply::Done)]));
        let wire = Wire { incoming: Cursor::new(bytes), outgoing: Vec::new() };
        let mut client = Client::greet(wire).unwrap();
        assert_eq!(client.call(&Request::Flush).unwrap(), Ok(Reply::Done));
        let both = [Request::DeleteService { service: key(1) }, Request::Flush];
        let outcomes = client.batch(&both).unwrap();
        assert_eq!(outcomes, vec![Err(Errno::Srch.into()), Ok(Reply::Done)]);
        assert!(client.call(&Request::Flush).is_err(), "the other end has gone");
    }
}
