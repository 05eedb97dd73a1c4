//! The table as requests that make it again.

use super::{Service, State};
use rvs_api::{Request, TimeoutsChange};
use rvs_model::{SYSCTLS, State as ConnState, Sysctls, Timeouts};

impl State {
    /// Requests that make of an empty table with these `timeouts` and `sysctls` one like this, but for
    /// what was counted.
    #[must_use]
    pub fn as_requests(&self, timeouts: &Timeouts, sysctls: &Sysctls) -> Vec<Request> {
        let changed = |state| {
            let seconds = self.timeouts.seconds(state);
            if seconds == timeouts.seconds(state) { 0 } else { seconds }
        };
        let change = TimeoutsChange {
            tcp_s: changed(ConnState::Established),
            tcp_fin_s: changed(ConnState::FinWait),
            udp_s: changed(ConnState::Udp),
        };
        let mut requests = Vec::new();
        if change != TimeoutsChange::default() {
            requests.push(Request::SetTimeouts(change));
        }
        for name in SYSCTLS.iter().map(|sysctl| sysctl.name) {
            if let Some(value) = self.sysctls.get(name)
                && sysctls.get(name).as_deref() != Some(&*value)
            {
                let (name, value) = (name.to_owned(), value.into_owned());
                requests.push(Request::SetTunable { name, value });
            }
        }
        for service in self.services() {
            self.push_service(service, &mut requests);
        }
        // Last: while one runs some destinations are refused.
        requests.extend(self.daemons.list().into_iter().map(Request::StartDaemon));
        requests
    }

    fn push_service(&self, row: &Service, requests: &mut Vec<Request>) {
        let service = row.key;
        requests.push(Request::AddService { service, attributes: row.attributes.clone() });
        // In the order in which they were added, which is what schedulers go by.
        let dests = row.dests.iter().filter_map(|id| self.dests.get(id.0));
        requests.extend(dests.map(|dest| Request::AddDest {
            service,
            dest: dest.address,
            attributes: dest.attributes,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, NoTraffic};
    use super::*;
    use rvs_api::{
        AddressFamily, Daemon, DaemonState, DestAttributes, ServiceAttributes, ServiceKey,
    };
    use rvs_model::{ForwardMethod, Protocol, Weight};

    #[test]
    fn a_table_that_is_made_again_is_the_same_in_the_same_order() {
        let limits = Limits { services: 64, dests: 256, conns: 0 };
        let empty = || State::new(limits).with_devices(["lan".to_owned()]).accept_everything();
        let mut state = empty();
        let mut ask = |request| drop(state.apply(request, &NoTraffic).unwrap());
        for port in [80, 443, 53] {
            let address = format!("203.0.113.1:{port}").parse().unwrap();
            let service = ServiceKey::Address { protocol: Protocol::Tcp, address };
            let attributes = ServiceAttributes::new("wrr", AddressFamily::V4);
            ask(Request::AddService { service, attributes });
            for last in [9, 3, 7] {
                let dest = format!("192.0.2.{last}:80").parse().unwrap();
                let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(last));
                ask(Request::AddDest { service, dest, attributes });
            }
            let dest = "192.0.2.3:80".parse().unwrap();
            ask(Request::DeleteDest { service, dest });
        }
        let change = TimeoutsChange { tcp_s: 100, tcp_fin_s: 0, udp_s: 7 };
        ask(Request::SetTimeouts(change));
        let daemon = Daemon {
            state: DaemonState::Backup,
            interface: "lan".to_owned(),
            sync_id: 3,
            message_octets_max: None,
            group: None,
            port: None,
            ttl: None,
        };
        ask(Request::StartDaemon(daemon));
        let requests = state.as_requests(&Timeouts::default(), &Sysctls::default());
        assert_eq!(requests.first(), Some(&Request::SetTimeouts(change)));
        let mut again = empty();
        for request in requests.clone() {
            again.apply(request, &NoTraffic).unwrap();
        }
        assert_eq!(again.as_requests(&Timeouts::default(), &Sysctls::default()), requests);
        let list = |state: &mut State| {
            state.apply(Request::ListServices { service: None }, &NoTraffic).unwrap()
        };
        assert_eq!(list(&mut again), list(&mut state));
    }
}
