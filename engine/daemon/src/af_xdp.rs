//! Devices shared with the host's kernel: from the configuration to queues.

use crate::device::{Alive, Device, Doorbell, Opened, Woken, in_rooms, wait_for};
use crate::{Failure, log};
use core::time::Duration;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rvs_control::config::{AfXdpLink, Config};
use rvs_io::af_xdp::{self, About, AfXdpQueue, Mode, Settings};
use rvs_wire::partial;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

/// Octets of Ethernet and VLAN headers before a packet.
const HEADERS: usize = 18;

impl Device for AfXdpQueue {
    type Link = AfXdpLink;
    type Seat = ();

    fn open(links: &[AfXdpLink], config: &Config) -> Result<Opened<Self>, Failure> {
        let mut opened = in_rooms(links, config, |link: &AfXdpLink, workers| {
            let settings = Settings {
                device: &link.device,
                queues: workers,
                mac: link.mac.0,
                shared: link.shared,
                mtu: link.mtu,
                frame_octets: usize::from(link.mtu) + HEADERS,
                zero_copy: link.zero_copy,
                busy_poll_us: link.busy_poll_us,
                mend: partial::finish,
            };
            let failed = |source| Failure::AfXdp { link: link.name.clone(), source };
            let (queues, about) = af_xdp::open(&settings).map_err(failed)?;
            log(line(link, &about));
            Ok(queues)
        })?;
        for AfXdpLink { name, device, .. } in links {
            let failed = |source| Failure::System { what: "the index of a device", source };
            // Any socket will do to ask about devices.
            let socket = UnixDatagram::unbound().map_err(failed)?;
            let index = name_to_index(&socket, device).map_err(|error| failed(error.into()))?;
            let is_gone = move || index_to_name(&socket, index).is_err();
            opened.ends.push(Alive::watch(format!("link {name}: device {device}"), is_gone));
        }
        Ok(opened)
    }

    fn sit_down() -> Result<(), String> {
        Ok(())
    }

    fn wait(queues: &[Self], doorbell: &Doorbell, at_most: Duration) -> Woken {
        let shared = || queues.iter().filter_map(|queue| queue.group().map(|fd| (queue, fd)));
        let fds = queues.iter().map(AsFd::as_fd).chain(shared().map(|(_, fd)| fd));
        wait_for(fds, doorbell, at_most, |nth, ready| {
            let group = nth.checked_sub(queues.len()).filter(|_| ready);
            if let Some((queue, _)) = group.and_then(|nth| shared().nth(nth)) {
                queue.expect_group();
            }
        })
    }

    fn note(&self, link: &AfXdpLink) -> Option<String> {
        let missed = self.missed();
        let fault =
            self.fault().map(|fault| format!("what it last refused, it refused with: {fault}"));
        let lost = (missed != af_xdp::Missed::default()).then(|| {
            let (full, dropped) = (missed.ring_full, missed.dropped);
            format!(
                "the kernel dropped {full} frames for which the ring was full, and {dropped} others"
            )
        });
        let said: Vec<_> = fault.into_iter().chain(lost).collect();
        (!said.is_empty()).then(|| format!("link {}: {}", link.name, said.join("; ")))
    }
}

/// The line of the start.
fn line(link: &AfXdpLink, about: &About) -> String {
    let AfXdpLink { name, device, mac, .. } = link;
    let mode = match (about.mode, &about.why_generic) {
        (Mode::Native, _) => "XDP in the driver".to_owned(),
        (Mode::Generic, None) => "generic XDP, which is slow".to_owned(),
        (Mode::Generic, Some(why)) => {
            format!("generic XDP, which is slow, since the driver refused with: {why}")
        }
    };
    let copies = if about.zero_copy { "zero-copy" } else { "copying" };
    let host = if link.shared { "the rest is the host's" } else { "nothing is the host's" };
    let mends = if about.mends { "; half checksums are finished" } else { "" };
    let driver = &about.driver;
    format!("rvsd: link {name}: {device} ({driver}), {mode}, {copies}; mac {mac}, {host}{mends}")
}
