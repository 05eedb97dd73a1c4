//! The command line.

use crate::Trouble;
use crate::link::Spec;
use crate::parse::{Addresses, Mix, Rate, Sizes, duration, share};
use crate::scenario::{Choice, Director, FCS, Scenario};
use crate::trial::Plan;
use clap::{Args, Parser, Subcommand};
use rvs_io::{BURST_MAX, af_xdp};
use rvs_wire::mac::MacAddr;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  A director between two TAPs, 100 000 packets a second for ten seconds, with a plot:
    rvs-pktgen run --client tap:gen-c --servers tap:gen-s --clients 172.16.30.100-172.16.30.199 \\
      --vip 172.16.30.1:80 --real 192.168.1.11,192.168.1.12 --rate 100kpps --plot run.svg

  Connections opened by handshakes, IMIX, replies through the director (NAT):
    rvs-pktgen run … --mix established --size imix --flows 10000 --echo --rate 1Gbit/s

  Throughput after RFC 2544 and with 0.1 % of loss allowed:
    rvs-pktgen search … --rate 2Mpps --loss 0,0.1% --trial 60s --json result.json

  Real servers on another machine:
    rvs-pktgen sink --link tap:gen-s --vip 172.16.30.1:80 --real 192.168.1.11,192.168.1.12 --echo

  What the generator itself costs here:
    rvs-pktgen cost";

/// Packet generator and sink for layer-4 directors: an open loop, with loss, order, misdirection
/// and latency judged packet by packet.
#[derive(Debug, Parser)]
#[command(name = "rvs-pktgen", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends at a rate and says what became of the packets
    #[command(after_help = EXAMPLES)]
    Run(Run),
    /// Finds the highest rates at which no more than given shares are lost
    #[command(after_help = EXAMPLES)]
    Search(Search),
    /// Plays the real servers only
    #[command(after_help = EXAMPLES)]
    Sink(Listen),
    /// Measures the generator itself, without any director
    Cost {
        /// How long each kind of packets is sent
        #[arg(long, default_value = "500ms", value_parser = duration)]
        duration: Duration,
    },
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// Who talks to whom.
    #[command(flatten)]
    pub scene: Scene,
    /// How packets are sent.
    #[command(flatten)]
    pub sending: Sending,
    /// How long packets are sent: 500ms, 10s, 2min
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Where results go.
    #[command(flatten)]
    pub output: Output,
}

/// `search`
#[derive(Debug, Args)]
pub struct Search {
    /// Who talks to whom.
    #[command(flatten)]
    pub scene: Scene,
    /// How packets are sent; its rate is the highest that is tried.
    #[command(flatten)]
    pub sending: Sending,
    /// Shares of packets that may be lost, an answer for each: 0 is NDR, 0.5% a PDR
    #[arg(long, default_value = "0,0.1%", value_delimiter = ',', value_parser = share)]
    pub loss: Vec<f64>,
    /// How long each trial lasts; RFC 2544 section 24 asks for 60 s where a result is published
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub trial: Duration,
    /// How near to the limit an answer is, as a share of the highest rate
    #[arg(long, default_value = "1%", value_parser = share)]
    pub resolution: f64,
    /// Where results go.
    #[command(flatten)]
    pub output: Output,
}

/// `sink`
#[derive(Debug, Args)]
pub struct Listen {
    /// The servers' link: tap:DEVICE or pcap-in:FILE
    #[arg(long, value_name = "LINK")]
    pub link: Spec,
    /// The service
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub vip: SocketAddr,
    /// The real servers to be played
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required = true)]
    pub real: Vec<IpAddr>,
    /// Flows that can be told apart
    #[arg(long, default_value_t = 1_000_000)]
    pub flows: u32,
    /// Sends packets that came by masquerading back
    #[arg(long)]
    pub echo: bool,
    /// Tells generators on one network apart: an octet of all Ethernet addresses
    #[arg(long, default_value_t = 0)]
    pub instance: u8,
    /// How long it listens; without it until SIGINT or SIGTERM
    #[arg(long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Writes the result to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No line a second
    #[arg(long)]
    pub quiet: bool,
}

/// Who talks to whom.
#[derive(Debug, Args)]
pub struct Scene {
    /// The clients' link: `tap:DEVICE`, `af_xdp:DEVICE`, `dpdk:DEVICE`, or `pcap:FILE` for what would be sent
    #[arg(long, value_name = "LINK")]
    pub client: Spec,
    /// The servers' link; without it, only replies tell what became of packets
    #[arg(long, value_name = "LINK")]
    pub servers: Option<Spec>,
    /// The clients' addresses: FIRST-LAST, or one
    #[arg(long, value_name = "RANGE")]
    pub clients: Addresses,
    /// The service
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub vip: SocketAddr,
    /// The real servers that are played here
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub real: Vec<IpAddr>,
    /// Whose Ethernet address packets are sent to [default: the VIP]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "director_mac")]
    pub director: Option<IpAddr>,
    /// That Ethernet address, when nobody shall be asked
    #[arg(long, value_name = "MAC")]
    pub director_mac: Option<MacAddr>,
    /// How many flows there are
    #[arg(long, default_value_t = 1000)]
    pub flows: u32,
    /// Which flow is next: turn, uniform, zipf, zipf=S
    #[arg(long, default_value = "uniform", value_name = "HOW")]
    pub choose: Choice,
    /// What flows carry, with weights: udp, established, ack, syn; for example udp=3,established=1
    #[arg(long, default_value = "udp")]
    pub mix: Mix,
    /// Octets of a frame with its check sequence: one size, imix, or sizes with weights
    #[arg(long, default_value = "100")]
    pub size: Sizes,
    /// Real servers send what came by masquerading back, and replies count
    #[arg(long)]
    pub echo: bool,
    /// Of everything that is left to chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Tells generators on one network apart: an octet of all Ethernet addresses
    #[arg(long, default_value_t = 0)]
    pub instance: u8,
}

/// How packets are sent.
#[derive(Debug, Args)]
pub struct Sending {
    /// Packets or bits a second (bits with preamble and gap), or as fast as the link takes them
    #[arg(long, default_value = "max")]
    pub rate: Rate,
    /// How long packets are sent before they count
    #[arg(long, default_value = "500ms", value_parser = duration)]
    pub warm_up: Duration,
    /// How long packets on their way are waited for at the end
    #[arg(long, default_value = "500ms", value_parser = duration)]
    pub drain: Duration,
    /// Packets of a burst at most
    #[arg(long, default_value_t = 32)]
    pub burst: u16,
}

/// Where results go.
#[derive(Debug, Args)]
pub struct Output {
    /// Writes the result to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draws rate and latency into a file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// No line a second
    #[arg(long)]
    pub quiet: bool,
}

impl Scene {
    /// The scenario that is described.
    ///
    /// # Errors
    ///
    /// [`Trouble::Asked`].
    pub fn scenario(&self) -> Result<Scenario, Trouble> {
        let asked = |what: &str| Err(Trouble::Asked(what.to_owned()));
        match (&self.servers, self.real.is_empty()) {
            (Some(_), true) => {
                return asked("--servers is a link without real servers, expected --real too");
            }
            (None, false) => {
                return asked("--real needs their link, expected --servers too, or neither");
            }
            _ => {}
        }
        let vip = Director::Address(self.director.unwrap_or(self.vip.ip()));
        let scenario = Scenario {
            client: self.clients.first,
            clients: self.clients.count,
            vip: self.vip,
            director: self.director_mac.map_or(vip, Director::Mac),
            reals: self.real.clone(),
            flows: self.flows,
            mix: self.mix.0.clone(),
            choice: self.choose,
            sizes: self.size.0.clone(),
            echo: self.echo,
            // Where no servers are played, replies are all there is; a capture has none.
            replies: self.echo || self.servers.is_none() && !matches!(self.client, Spec::Write(_)),
            instance: self.instance,
            seed: self.seed,
        };
        if let Some(director) = self.director.filter(|it| it.is_ipv4() != self.vip.is_ipv4()) {
            let vip = self.vip.ip();
            return asked(&format!("--director {director} and --vip {vip} are of two families"));
        }
        let most = af_xdp::FRAME_OCTETS_MAX + FCS;
        let longest = self.size.0.iter().map(|(size, _)| usize::from(*size)).max();
        if let Some(size) = longest.filter(|size| *size > most)
            && matches!(self.client, Spec::AfXdp(_))
        {
            return asked(&format!("--size is {size}, expected at most {most} on AF_XDP devices"));
        }
        scenario.check()
    }
}

impl Sending {
    /// How a trial of `duration` goes, with frames of `mean_octets`.
    ///
    /// # Errors
    ///
    /// [`Trouble::Asked`].
    pub fn plan(&self, duration: Duration, mean_octets: f64) -> Result<Plan, Trouble> {
        let burst = usize::from(self.burst);
        if !(1..=BURST_MAX).contains(&burst) {
            let what = format!("--burst is {burst}, expected 1 to {BURST_MAX}");
            return Err(Trouble::Asked(what));
        }
        if duration.is_zero() {
            return Err(Trouble::Asked("nothing can be measured in 0 s".to_owned()));
        }
        let second = Duration::from_secs(1);
        Ok(Plan {
            rate: self.rate.packets(mean_octets),
            duration,
            warm_up: self.warm_up,
            drain: self.drain,
            burst,
            sample: if duration >= 10 * second { second } else { duration / 10 },
        })
    }
}

impl Listen {
    /// The scenario of a sink: clients are whoever comes.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        Scenario {
            client: self.vip.ip(),
            clients: 1,
            vip: self.vip,
            director: Director::Mac(MacAddr::BROADCAST),
            reals: self.real.clone(),
            flows: self.flows,
            mix: Vec::new(),
            choice: Choice::Turn,
            sizes: Vec::new(),
            echo: self.echo,
            replies: false,
            instance: self.instance,
            seed: 0,
        }
    }
}
