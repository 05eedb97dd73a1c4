//! Synchronisation daemons: which ones were started, and how.
//!
//! DIFFERS from Linux: synchronisation daemons are taken, checked and told, and synchronise nothing yet.
//! Where they run are rvsd's links, by their names or their devices'.

use super::{Dest, State};
use core::net::{IpAddr, Ipv4Addr};
use rvs_api::{AddressFamily, Daemon, DaemonState, Errno};

/// Linux 6.1 `ip_vs_sync.c`, `start_sync_thread()` and `include/net/ip_vs.h`, `IP_VS_SYNC_GROUP`,
/// `IP_VS_SYNC_PORT`: what is not said.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const PORT: u16 = 8848;
const TTL: u8 = 1;
/// Octets of a packet, headers included, when no length is said.
const PACKET_OCTETS: u16 = 1500;
/// The shortest message of a backup.
const BACKUP_OCTETS_MIN: u16 = 1024;

/// The daemons that run.
#[derive(Clone, Debug, Default)]
pub(super) struct Daemons {
    /// Where they can run.
    pub(super) devices: Vec<String>,
    master: Option<Daemon>,
    backup: Option<Daemon>,
}

impl Daemons {
    pub(super) fn list(&self) -> Vec<Daemon> {
        self.master.iter().chain(&self.backup).cloned().collect()
    }

    /// Whether any runs.
    pub(super) fn run(&self) -> bool {
        self.master.is_some() || self.backup.is_some()
    }

    /// Linux 6.1 `ip_vs_sync.c` `stop_sync_thread()`
    pub(super) fn stop(&mut self, end: DaemonState) -> Result<(), Errno> {
        self.place(end).take().map(drop).ok_or(Errno::Srch)
    }

    fn place(&mut self, end: DaemonState) -> &mut Option<Daemon> {
        match end {
            DaemonState::Master => &mut self.master,
            DaemonState::Backup => &mut self.backup,
        }
    }
}

impl State {
    /// Linux 6.1 `ip_vs_ctl.c` `ip_vs_genl_new_daemon()`, `ip_vs_sync.c` `start_sync_thread()`
    pub(super) fn start_daemon(&mut self, daemon: Daemon) -> Result<(), Errno> {
        if daemon.group.is_some_and(|group| !group.is_multicast()) {
            return Err(Errno::Inval);
        }
        // Its messages have no room for two families in one connection.
        if self.dests().any(|dest| self.is_mixed(dest)) {
            return Err(Errno::Inval);
        }
        if !self.daemons.devices.contains(&daemon.interface) {
            return Err(Errno::NoDev);
        }
        let place = self.daemons.place(daemon.state);
        if place.is_some() {
            return Err(Errno::Exist);
        }
        *place = Some(with_defaults(daemon));
        Ok(())
    }

    fn is_mixed(&self, dest: &Dest) -> bool {
        let family = self.services.get(dest.service.0).map(|service| service.key.family());
        dest.is_available() && family != Some(AddressFamily::from(dest.address.ip()))
    }
}

pub(super) fn with_defaults(daemon: Daemon) -> Daemon {
    let group = daemon.group.unwrap_or(GROUP);
    // IP and UDP.
    let headers = if group.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let least = if daemon.state == DaemonState::Backup { BACKUP_OCTETS_MIN } else { 1 };
    let octets = match daemon.message_octets_max.filter(|octets| *octets != 0) {
        Some(octets) => octets.clamp(least, u16::MAX - headers),
        None => PACKET_OCTETS - headers,
    };
    Daemon {
        message_octets_max: Some(octets),
        group: Some(group),
        port: Some(daemon.port.filter(|port| *port != 0).unwrap_or(PORT)),
        ttl: Some(daemon.ttl.filter(|ttl| *ttl != 0).unwrap_or(TTL)),
        ..daemon
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, NoTraffic};
    use super::*;
    use rvs_api::{Outcome, Reply, Request};

    fn daemon(state: DaemonState, interface: &str) -> Daemon {
        Daemon {
            state,
            interface: interface.to_owned(),
            sync_id: 7,
            message_octets_max: None,
            group: None,
            port: None,
            ttl: None,
        }
    }

    fn state() -> State {
        State::new(Limits { services: 4, dests: 4, conns: 0 }).with_devices(["lan".to_owned()])
    }

    fn ask(state: &mut State, request: Request) -> Outcome {
        state.apply(request, &NoTraffic)
    }

    #[test]
    fn a_daemon_runs_once_on_a_device_that_there_is() {
        let mut state = state();
        let master = daemon(DaemonState::Master, "lan");
        let errno = |outcome: Outcome| outcome.unwrap_err().errno;
        let nowhere = Request::StartDaemon(daemon(DaemonState::Master, "wan"));
        assert_eq!(errno(ask(&mut state, nowhere)), Errno::NoDev);
        ask(&mut state, Request::StartDaemon(master.clone())).unwrap();
        assert_eq!(errno(ask(&mut state, Request::StartDaemon(master))), Errno::Exist);
        let stop = |end| Request::StopDaemon(end);
        assert_eq!(errno(ask(&mut state, stop(DaemonState::Backup))), Errno::Srch);
        ask(&mut state, stop(DaemonState::Master)).unwrap();
        assert_eq!(ask(&mut state, Request::ListDaemons), Ok(Reply::Daemons(Vec::new())));
    }

    #[test]
    fn what_is_not_said_of_a_daemon_is_what_the_kernel_takes() {
        let mut state = state();
        let group = Some("ff02::81".parse().unwrap());
        let backup = Daemon { group, ..daemon(DaemonState::Backup, "lan") };
        ask(&mut state, Request::StartDaemon(backup)).unwrap();
        let Ok(Reply::Daemons(told)) = ask(&mut state, Request::ListDaemons) else { panic!() };
        let told = (told[0].message_octets_max, told[0].port, told[0].ttl);
        assert_eq!(told, (Some(1452), Some(8848), Some(1)));
    }
}
