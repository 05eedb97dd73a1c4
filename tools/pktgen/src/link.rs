//! Opening links: the only place that knows their kinds. A new kind is a variant of [`Spec`], its
//! words, and an arm of [`open`].

use crate::Trouble;
use rvs_io::pcap::{PcapQueue, Recorder, Replay};
use rvs_io::tap::{self, HostEnd, TapQueue};
use rvs_io::{BURST_MAX, Burst, Lost, Queue, Reserve, RoomFrame, RoomPool};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

/// Frames of the pool: all bursts at once, and what a pool exchanges.
const FRAMES: usize = 16 * BURST_MAX;

/// What the command line says of a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spec {
    /// `tap:DEVICE`
    Tap(String),
    /// `pcap:FILE`: what is sent is written there, and nothing arrives.
    Write(PathBuf),
    /// `pcap-in:FILE`: the frames of a capture arrive.
    Read(PathBuf),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("tap", device)) if !device.is_empty() => Ok(Self::Tap(device.to_owned())),
            Some(("pcap", file)) if !file.is_empty() => Ok(Self::Write(file.into())),
            Some(("pcap-in", file)) if !file.is_empty() => Ok(Self::Read(file.into())),
            _ => {
                Err(format!("{text:?} is no link, expected tap:DEVICE, pcap:FILE or pcap-in:FILE"))
            }
        }
    }
}

/// A link, and another one where both ends are here.
pub type Links<Q> = (Q, Option<Q>);

/// What comes of a job, and its links to be closed.
pub type Done<O, Q> = Result<(O, Links<Q>), Trouble>;

/// What is done on links, whatever their kind.
pub trait Job {
    /// What comes of it.
    type Outcome;

    /// Does it on one link or two, and hands them back to be closed.
    ///
    /// # Errors
    ///
    /// [`Trouble`].
    fn run<Q: Queue>(self, links: Links<Q>, pool: Q::Pool) -> Done<Self::Outcome, Q>;
}

/// Opens links for frames of `frame_octets`, does `job` on them, and closes them.
///
/// # Errors
///
/// A link that cannot be opened or closed, links of different kinds, and what the job says.
pub fn open<J: Job>(
    first: &Spec,
    second: Option<&Spec>,
    frame_octets: usize,
    job: J,
) -> Result<J::Outcome, Trouble> {
    let pool = Reserve::new(FRAMES, frame_octets).pool();
    let is_tap = |spec: &Spec| matches!(spec, Spec::Tap(_));
    if second.is_some_and(|second| is_tap(first) != is_tap(second)) {
        return Err(Trouble::Asked(
            "both links must be of one kind, expected two TAPs or two captures".to_owned(),
        ));
    }
    if is_tap(first) {
        let links = (open_tap(first)?, second.map(open_tap).transpose()?);
        return Ok(job.run(links, pool)?.0);
    }
    let links = (Capture::open(first)?, second.map(Capture::open).transpose()?);
    let (outcome, (first, second)) = job.run(links, pool)?;
    first.close()?;
    second.map_or(Ok(()), Capture::close)?;
    Ok(outcome)
}

fn open_tap(spec: &Spec) -> Result<TapQueue, Trouble> {
    let Spec::Tap(device) = spec else { return Err(Trouble::Asked("expected a TAP".to_owned())) };
    let mut queues = tap::open(device, 1, &HostEnd::default())?;
    queues.pop().ok_or_else(|| Trouble::Asked(format!("TAP {device} has no queue")))
}

/// A capture whose frames have the time at which they were sent.
#[derive(Debug)]
struct Capture(PcapQueue);

impl Capture {
    fn open(spec: &Spec) -> Result<Self, Trouble> {
        let named = |path: &PathBuf| {
            let path = path.clone();
            move |source| Trouble::Capture { path, source }
        };
        let (mut replay, mut recorder) = (None, None);
        match spec {
            Spec::Write(path) => recorder = Some(Recorder::create(path).map_err(named(path))?),
            Spec::Read(path) => replay = Some(Replay::open(path).map_err(named(path))?),
            Spec::Tap(_) => {}
        }
        Ok(Self(PcapQueue { replay, recorder }))
    }

    fn close(self) -> Result<(), Trouble> {
        if let Some(recorder) = self.0.recorder {
            recorder.finish()?;
        }
        Ok(())
    }
}

impl Queue for Capture {
    type Frame = RoomFrame;
    type Pool = RoomPool;

    fn receive(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>, most: usize) -> usize {
        self.0.receive(pool, burst, most)
    }

    fn send(&mut self, pool: &mut RoomPool, burst: &mut Burst<RoomFrame>) -> usize {
        if let Some(recorder) = &mut self.0.recorder {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            recorder.stamp(now.unwrap_or_default());
        }
        self.0.send(pool, burst)
    }

    fn lost(&self) -> Lost {
        self.0.lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_by_kind_and_what_they_are_made_of() {
        assert_eq!("tap:gen0".parse(), Ok(Spec::Tap("gen0".to_owned())));
        assert_eq!("pcap:a:b".parse(), Ok(Spec::Write("a:b".into())));
        assert_eq!("pcap-in:a".parse(), Ok(Spec::Read("a".into())));
        for wrong in ["", "tap", "tap:", "eth0", "dpdk:0000:01:00.0"] {
            let error = wrong.parse::<Spec>().unwrap_err();
            assert!(error.contains("expected tap:DEVICE"), "{error}");
        }
    }
}
