//! Opening links: the only place that knows their kinds. A new kind is a variant of [`Spec`], its
//! words, and an arm of [`open`].

#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(not(feature = "dpdk"))]
mod dpdk {
    use super::{Job, Spec};
    use crate::Trouble;

    pub(super) fn run<J: Job>(
        _first: &Spec,
        _second: Option<&Spec>,
        _frame_octets: usize,
        _job: J,
    ) -> Result<J::Outcome, Trouble> {
        Err(Trouble::Asked(
            "this rvs-pktgen was built without DPDK; build one with it: apt-get install libdpdk-dev \
             pkg-config && cargo build --release -p rvs-pktgen --features dpdk"
                .to_owned(),
        ))
    }
}

use crate::Trouble;
use rvs_io::af_xdp::{self, AfXdpQueue, Settings};
use rvs_io::pcap::{PcapQueue, Recorder, Replay};
use rvs_io::tap::{self, HostEnd, TapQueue};
use rvs_io::{BURST_MAX, Burst, Lost, Queue, Reserve, RoomFrame, RoomPool};
use rvs_wire::partial;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

/// Frames of the pool: all bursts at once, and what a pool exchanges.
const FRAMES: usize = 16 * BURST_MAX;
/// The longest packet of most links.
const ETHERNET_MTU: u16 = 1500;

/// What the command line says of a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spec {
    /// `tap:DEVICE`
    Tap(String),
    /// `af_xdp:DEVICE`: a device of the host's, all of whose frames are taken.
    AfXdp(String),
    /// `dpdk:DEVICE`: a PCI address, or a virtual device of DPDK's with its arguments.
    Dpdk(String),
    /// `pcap:FILE`: what is sent is written there, and nothing arrives.
    Write(PathBuf),
    /// `pcap-in:FILE`: the frames of a capture arrive.
    Read(PathBuf),
}

impl Spec {
    /// Links of one kind are driven together.
    fn kind(&self) -> &'static str {
        match self {
            Self::Tap(_) => "TAPs",
            Self::AfXdp(_) => "AF_XDP devices",
            Self::Dpdk(_) => "DPDK devices",
            Self::Write(_) | Self::Read(_) => "captures",
        }
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("tap", device)) if !device.is_empty() => Ok(Self::Tap(device.to_owned())),
            Some(("af_xdp", device)) if !device.is_empty() => Ok(Self::AfXdp(device.to_owned())),
            Some(("dpdk", device)) if !device.is_empty() => Ok(Self::Dpdk(device.to_owned())),
            Some(("pcap", file)) if !file.is_empty() => Ok(Self::Write(file.into())),
            Some(("pcap-in", file)) if !file.is_empty() => Ok(Self::Read(file.into())),
            _ => Err(format!(
                "{text:?} is no link, expected tap:DEVICE, af_xdp:DEVICE, dpdk:DEVICE, pcap:FILE or \
                 pcap-in:FILE"
            )),
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
    if let Some(second) = second.filter(|second| second.kind() != first.kind()) {
        return Err(Trouble::Asked(format!(
            "both links must be of one kind, expected two {} or two {}",
            first.kind(),
            second.kind()
        )));
    }
    let room = || Reserve::new(FRAMES, frame_octets).pool();
    match first {
        Spec::Tap(_) => {
            let links = (open_tap(first)?, second.map(open_tap).transpose()?);
            Ok(job.run(links, room())?.0)
        }
        Spec::AfXdp(_) => {
            let open = |spec| open_af_xdp(spec, frame_octets);
            let links = (open(first)?, second.map(open).transpose()?);
            Ok(job.run(links, room())?.0)
        }
        Spec::Dpdk(_) => dpdk::run(first, second, frame_octets, job),
        Spec::Write(_) | Spec::Read(_) => {
            let links = (Capture::open(first)?, second.map(Capture::open).transpose()?);
            let (outcome, (first, second)) = job.run(links, room())?;
            first.close()?;
            second.map_or(Ok(()), Capture::close)?;
            Ok(outcome)
        }
    }
}

/// A device with one queue, whose frames are all ours: the generator plays many stations.
fn open_af_xdp(spec: &Spec, frame_octets: usize) -> Result<AfXdpQueue, Trouble> {
    let Spec::AfXdp(device) = spec else {
        return Err(Trouble::Asked("expected an AF_XDP device".to_owned()));
    };
    let settings = Settings {
        device,
        queues: 1,
        // Nobody's: it tells nothing where nothing is shared.
        mac: [2, 0x72, 0x76, 0, 0, 0],
        shared: false,
        mtu: ETHERNET_MTU,
        frame_octets: frame_octets.min(af_xdp::FRAME_OCTETS_MAX),
        zero_copy: None,
        busy_poll_us: None,
        mend: partial::finish,
    };
    let (mut queues, _) = af_xdp::open(&settings)?;
    queues.pop().ok_or_else(|| Trouble::Asked(format!("device {device} has no queue")))
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
            Spec::Tap(_) | Spec::AfXdp(_) | Spec::Dpdk(_) => {}
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
        let card = "dpdk:0000:01:00.0".parse();
        assert_eq!(card, Ok(Spec::Dpdk("0000:01:00.0".to_owned())));
        assert_eq!("af_xdp:eth1".parse(), Ok(Spec::AfXdp("eth1".to_owned())));
        for wrong in ["", "tap", "tap:", "eth0", "dpdk:"] {
            let error = wrong.parse::<Spec>().unwrap_err();
            assert!(error.contains("expected tap:DEVICE"), "{error}");
        }
    }
}
