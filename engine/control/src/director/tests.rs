use super::*;
use crate::config::Machine;
use rvs_api::{AddressFamily, DestAttributes, Errno, Reply, ServiceAttributes};
use rvs_model::{ForwardMethod, Protocol, Weight};
use std::path::Path;

const CONFIG: &str = "[tables]\nservices = 4\ndests = 8\nconns = 100\n[timeouts]\nudp = 30\n\
                      [[link]]\nname = \"a\"\nkind = \"tap\"\n";

fn director(workers: &[Shared]) -> Director {
    let config = Config::parse(Path::new("test"), CONFIG, &Machine::default()).unwrap();
    Director::new(&config, workers.to_vec())
}

fn vip() -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: "203.0.113.1:80".parse().unwrap() }
}

fn add_service() -> Request {
    let attributes = ServiceAttributes::new("rr", AddressFamily::V4);
    Request::AddService { service: vip(), attributes }
}

fn add_dest(last: u8) -> Request {
    let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(1));
    Request::AddDest { service: vip(), dest: ([192, 0, 2, last], 80).into(), attributes }
}

#[test]
fn a_batch_is_carried_out_in_order_and_published_once() {
    let workers = [Shared::new(8)];
    let mut director = director(&workers);
    let mut reader = director.reader();
    let before = reader.generation();
    let outcomes = director.apply([add_dest(11), add_service(), add_dest(11), add_dest(11)]);
    let errnos: Vec<_> = outcomes.iter().map(|it| it.as_ref().err().map(|no| no.errno)).collect();
    assert_eq!(errnos, [Some(Errno::Srch), None, None, Some(Errno::Exist)]);
    assert_eq!(reader.generation(), before + 1);
    let snapshot = reader.refresh();
    assert_eq!(snapshot.services.get(0).unwrap().dests.len(), 1);
    assert!(workers[0].lines[0].has(DestLine::AVAILABLE));
}

#[test]
fn questions_and_refusals_publish_nothing() {
    let mut director = director(&[Shared::new(8)]);
    let reader = director.reader();
    let before = reader.generation();
    director.apply([Request::ListServices { service: None }, Request::GetInfo, add_dest(11)]);
    director.apply([Request::Zero { service: None }]);
    assert_eq!(reader.generation(), before);
}

#[test]
fn workers_begin_with_the_configured_timeouts() {
    let mut director = director(&[Shared::new(8)]);
    let mut reader = director.reader();
    let udp =
        |reader: &mut Reader<Snapshot>| reader.refresh().timeouts.seconds(rvs_model::State::Udp);
    assert_eq!(udp(&mut reader), 30);
    let change = rvs_api::TimeoutsChange { udp_s: 7, ..rvs_api::TimeoutsChange::default() };
    director.apply([Request::SetTimeouts(change)]);
    assert_eq!(udp(&mut reader), 7);
}

#[test]
fn counters_go_on_after_a_restart_and_begin_at_zero_after_a_crash() {
    let folder = std::env::temp_dir().join(format!("rvs-counters-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("state");
    let life = |packets: u64| {
        let workers = [Shared::new(8)];
        let mut director = director(&workers);
        // With `Soon` a thread may hold the file, and so its lock, for a moment longer.
        director.keep_in(&path, Sync::Always).unwrap();
        director.apply([add_service(), add_dest(11)]);
        // The place of the destination, which is another one after the restart.
        let dest = director.state.dests().next().unwrap().id();
        for _ in 0..packets {
            workers[0].lines[usize::try_from(dest.0).unwrap()].count_packet(false, 100);
        }
        director
    };
    let counted = |director: &mut Director| {
        let list = Request::ListServices { service: None };
        let Ok(Reply::Services(list)) = director.apply([list]).remove(0) else { unreachable!() };
        [list[0].totals.packets_in, list[0].dests[0].totals.packets_in]
    };
    life(3).keep_counters().unwrap();
    let mut second = life(4);
    assert_eq!(counted(&mut second), [7, 7]);
    second.apply([Request::Zero { service: None }]);
    assert_eq!(counted(&mut second), [0, 0]);
    second.keep_counters().unwrap();
    drop(second);
    // This one crashes, and so nothing is left of what it counted.
    assert_eq!(counted(&mut life(5)), [5, 5]);
    assert_eq!(counted(&mut life(2)), [2, 2]);
    // No reason not to start.
    std::fs::write(folder.join("state.counters"), "[{").unwrap();
    assert_eq!(counted(&mut life(1)), [1, 1]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_workers_count_is_added_up() {
    let workers = [Shared::new(8), Shared::new(8)];
    let mut director = director(&workers);
    director.apply([add_service(), add_dest(11)]);
    for (worker, packets) in workers.iter().zip([3, 5]) {
        let line = &worker.lines[0];
        line.count_conn();
        line.step_load(true, true);
        for _ in 0..packets {
            line.count_packet(false, 100);
        }
    }
    // One worker may see the end of what another opened.
    workers[0].lines[0].step_load(true, false);
    workers[0].lines[0].step_load(true, false);
    let outcome = director.apply([Request::ListServices { service: None }]).remove(0);
    let Ok(Reply::Services(services)) = outcome else { panic!("{outcome:?}") };
    let dest = &services[0].dests[0];
    let totals = Totals { conns: 2, packets_in: 8, octets_in: 800, ..Totals::default() };
    assert_eq!((dest.totals, dest.active, dest.inactive), (totals, 0, 0));
}

#[test]
fn rates_are_estimated_every_two_seconds() {
    let workers = [Shared::new(8)];
    let mut director = director(&workers);
    director.apply([add_service(), add_dest(11)]);
    for second in 0..120 {
        for _ in 0..10 {
            workers[0].lines[0].count_packet(false, 100);
        }
        director.tick(Duration::from_secs(second)).unwrap();
        director.tick(Duration::from_millis(second * 1000 + 500)).unwrap();
    }
    let outcome = director.apply([Request::ListServices { service: None }]).remove(0);
    let Ok(Reply::Services(services)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(services[0].dests[0].rates.packets_in, 10);
}

#[test]
fn places_are_not_freed_while_a_worker_holds_its_breath() {
    let mut director = director(&[Shared::new(8)]);
    director.apply([add_service(), add_dest(11)]);
    director.apply([Request::DeleteDest { service: vip(), dest: ([192, 0, 2, 11], 80).into() }]);
    for second in (0..1_000).step_by(10) {
        director.tick(Duration::from_secs(second)).unwrap();
    }
    assert!(director.dest(DestId(0)).is_some(), "nobody knows what a stuck worker still does");
}

#[test]
fn a_tunable_reaches_workers_and_one_without_meaning_publishes_nothing() {
    let mut director = director(&[Shared::new(8)]);
    let mut reader = director.reader();
    let before = reader.generation();
    let set = |name: &str, value: &str| Request::SetTunable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let outcomes = director.apply([set("conntrack", "1"), set("secure_tcp", "9")]);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1].as_ref().err().map(|no| no.errno), Some(Errno::Inval));
    assert_eq!(reader.generation(), before);
    director.apply([set("secure_tcp", "3")]);
    assert_eq!(reader.refresh().tunables.secure_tcp, 3);
}

/// A file of its own, gone with the test.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("rvs-state-{name}-{}", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn list(director: &mut Director) -> Outcome {
    director.apply([Request::ListServices { service: None }]).remove(0)
}

#[test]
fn a_table_outlives_its_director_at_any_moment() {
    let file = File::new("outlives");
    let mut first = director(&[Shared::new(8)]);
    first.keep_in(&file.0, Sync::Always).unwrap();
    first.apply([add_dest(11), add_service(), add_dest(11), add_dest(12), add_dest(12)]);
    first.apply([Request::DeleteDest { service: vip(), dest: ([192, 0, 2, 11], 80).into() }]);
    let (name, value) = ("sync_threshold".to_owned(), "5 10".to_owned());
    first.carry_out(vec![add_dest(13), Request::SetTunable { name: name.clone(), value }]);
    let before = list(&mut first);
    // It is not told to end: what is there was written with each change.
    drop(first.store.take());

    let mut second = director(&[Shared::new(8)]);
    let mut reader = second.reader();
    second.keep_in(&file.0, Sync::Soon).unwrap();
    assert_eq!(list(&mut second), before);
    assert_eq!(second.state.sysctls().get(&name).as_deref(), Some("5 10"));
    let snapshot = reader.refresh();
    assert_eq!(snapshot.services.get(0).unwrap().dests.len(), 2, "workers see it");
}

#[test]
fn what_cannot_be_kept_is_not_done_and_what_only_asks_is() {
    let file = File::new("full");
    let mut director = director(&[Shared::new(8)]);
    director.keep_in(&file.0, Sync::Soon).unwrap();
    director.apply([add_service()]);
    let before = list(&mut director);
    director.store.as_mut().unwrap().fill_disk();
    let outcomes = director.apply([add_dest(11), Request::GetInfo, Request::Flush]);
    let errnos: Vec<_> = outcomes.iter().map(|it| it.as_ref().err().map(|no| no.errno)).collect();
    assert_eq!(errnos, [Some(Errno::NoSpc), None, Some(Errno::NoSpc)]);
    assert_eq!(list(&mut director), before);
}

#[test]
fn a_file_that_no_longer_fits_the_configuration_is_named_with_its_line() {
    let file = File::new("fits");
    let service = |last: u8| {
        let address = ([203, 0, 113, last], 80).into();
        let service = ServiceKey::Address { protocol: Protocol::Tcp, address };
        let attributes = ServiceAttributes::new("rr", AddressFamily::V4);
        serde_json::to_string(&Request::AddService { service, attributes }).unwrap()
    };
    let lines: Vec<_> = (1..=5).map(service).collect();
    std::fs::write(&file.0, format!("{{\"rvs_state\":1}}\n{}\n", lines.join("\n"))).unwrap();
    let error = director(&[Shared::new(8)]).keep_in(&file.0, Sync::Soon).unwrap_err().to_string();
    assert!(error.contains("line 6 is refused: rvsd: all 4 places"), "{error}");
}

#[test]
fn what_a_service_says_of_stale_udp_is_in_the_lines_of_those_removed_and_drained() {
    use rvs_model::StaleUdp::{Expire, Keep, Rebind};
    let (drained, stale) = (DestLine::AVAILABLE | DestLine::DRAINED, DestLine::STALE_UDP);
    for (stale_udp, more) in [(Keep, 0), (Rebind, stale), (Expire, stale | DestLine::ENDS_UDP)] {
        let workers = [Shared::new(8)];
        let mut director = director(&workers);
        director.apply([add_service(), add_dest(11), add_dest(12)]);
        let attributes =
            ServiceAttributes { stale_udp, ..ServiceAttributes::new("rr", AddressFamily::V4) };
        director.apply([Request::EditService { service: vip(), attributes }]);
        let lines = &workers[0].lines;
        assert_eq!([lines[0].flags(), lines[1].flags()], [DestLine::AVAILABLE; 2]);
        let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(0));
        let dest = |last: u8| ([192, 0, 2, last], 80).into();
        director.apply([
            Request::EditDest { service: vip(), dest: dest(11), attributes },
            Request::DeleteDest { service: vip(), dest: dest(12) },
        ]);
        assert_eq!([lines[0].flags(), lines[1].flags()], [drained | more, more], "{stale_udp:?}");
        let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(1));
        director.apply([
            Request::EditDest { service: vip(), dest: dest(11), attributes },
            add_dest(12),
        ]);
        assert_eq!([lines[0].flags(), lines[1].flags()], [DestLine::AVAILABLE; 2], "both again");
    }
}

#[test]
fn one_packet_scheduling_that_is_edited_in_reaches_workers() {
    let mut director = director(&[Shared::new(8)]);
    let mut reader = director.reader();
    director.apply([add_service(), add_dest(11)]);
    let mut attributes = ServiceAttributes::new("rr", AddressFamily::V4);
    attributes.flags = rvs_api::ServiceFlags::ONE_PACKET;
    director.apply([Request::EditService { service: vip(), attributes }]);
    assert!(reader.refresh().services.get(0).unwrap().rules.one_packet);
}

#[test]
fn only_a_drained_destinations_connections_may_be_ended() {
    let workers = [Shared::new(8)];
    let mut director = director(&workers);
    director.apply([add_service(), add_dest(11)]);
    let dest = ([192, 0, 2, 11], 80).into();
    let end = || Request::EndConns { service: vip(), dest, resets: false };
    assert_eq!(director.apply([end()])[0].as_ref().err().map(|no| no.errno), Some(Errno::Inval));
    let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(0));
    director.apply([Request::EditDest { service: vip(), dest, attributes }]);
    assert_eq!(director.apply([end()]), [Ok(Reply::Done)]);
    assert!(workers[0].lines[0].has(DestLine::ENDS | DestLine::AVAILABLE));
}

#[test]
fn a_destination_that_comes_back_from_the_trash_has_its_counters_and_connections() {
    let workers = [Shared::new(8)];
    let mut director = director(&workers);
    director.apply([add_service(), add_dest(11)]);
    workers[0].lines[0].count_conn();
    workers[0].lines[0].step_load(true, true);
    workers[0].lines[0].count_packet(false, 100);
    let dest = ([192, 0, 2, 11], 80).into();
    director.apply([Request::DeleteDest { service: vip(), dest }]);
    assert!(!workers[0].lines[0].has(DestLine::AVAILABLE));
    for second in 0..1000 {
        director.tick(Duration::from_secs(second)).unwrap();
    }
    director.apply([add_dest(11)]);
    assert!(workers[0].lines[0].has(DestLine::AVAILABLE), "the same place");
    let outcome = director.apply([Request::ListServices { service: None }]).remove(0);
    let Ok(Reply::Services(services)) = outcome else { panic!("{outcome:?}") };
    let row = &services[0].dests[0];
    assert_eq!((row.active, row.totals.conns, row.totals.octets_in), (1, 1, 100));
}

#[test]
fn changes_that_belong_together_are_kept_all_or_none_wherever_a_crash_cuts_the_file() {
    let file = File::new("together");
    let mut first = director(&[Shared::new(8)]);
    first.keep_in(&file.0, Sync::Always).unwrap();
    let refused = [add_service(), add_dest(1), add_dest(1)];
    let outcomes = first.apply([Request::Together(refused.into())]);
    assert!(outcomes[0].is_err());
    assert_eq!(list(&mut first), Ok(Reply::Services(Vec::new())), "nothing was changed");
    let head = std::fs::read(&file.0).unwrap().len();
    let outcomes = first.apply([Request::Together([add_service(), add_dest(1)].into())]);
    assert_eq!(outcomes, [Ok(Reply::Done)]);
    let whole = list(&mut first);
    drop(first);
    let text = std::fs::read(&file.0).unwrap();
    for len in head..=text.len() {
        std::fs::write(&file.0, &text[..len]).unwrap();
        let mut again = director(&[Shared::new(8)]);
        again.keep_in(&file.0, Sync::Always).unwrap();
        let expected =
            if len == text.len() { whole.clone() } else { Ok(Reply::Services(Vec::new())) };
        assert_eq!(list(&mut again), expected, "{len} octets");
    }
}

fn delete_dest(last: u8) -> Request {
    Request::DeleteDest { service: vip(), dest: ([192, 0, 2, last], 80).into() }
}

fn write_lines<'r>(path: &Path, requests: impl IntoIterator<Item = &'r Request>) {
    let lines = requests.into_iter().map(|it| serde_json::to_string(it).unwrap());
    let text: Vec<_> = core::iter::once("{\"rvs_state\":1}".to_owned()).chain(lines).collect();
    std::fs::write(path, text.join("\n") + "\n").unwrap();
}

#[test]
fn however_many_destinations_and_services_came_and_went_there_is_room_for_those_that_stay() {
    let file = File::new("churn");
    let mut lines = vec![add_service()];
    // Of 4 places for services and 8 for destinations.
    for last in 1..=100 {
        lines.extend([add_dest(last), delete_dest(last)]);
    }
    for port in 1..=20 {
        let address = ([203, 0, 113, 2], port).into();
        let service = ServiceKey::Address { protocol: Protocol::Tcp, address };
        let Request::AddService { attributes, .. } = add_service() else { unreachable!() };
        let Request::AddDest { dest, attributes: how, .. } = add_dest(1) else { unreachable!() };
        let added = [
            Request::AddService { service, attributes },
            Request::AddDest { service, dest, attributes: how },
        ];
        // All or none, by itself, and with all others.
        lines.push(Request::Together(added.into()));
        if port % 2 == 0 {
            lines.push(Request::DeleteService { service });
        } else {
            lines.extend([Request::Flush, add_service()]);
        }
    }
    lines.push(add_dest(101));
    write_lines(&file.0, &lines);

    let workers = [Shared::new(8)];
    let mut director = director(&workers);
    assert_eq!(director.keep_in(&file.0, Sync::Always).unwrap(), None);
    let Ok(Reply::Services(services)) = list(&mut director) else { unreachable!() };
    assert_eq!((services.len(), services[0].dests.len()), (1, 1));
    let outcomes = director.apply((102..=108).map(add_dest));
    assert!(outcomes.iter().all(Result::is_ok), "no place is lost: {outcomes:?}");
    let available = |line: &&DestLine| line.has(DestLine::AVAILABLE);
    assert_eq!(workers[0].lines.iter().filter(available).count(), 8);
    // From now on there may be connections.
    director.apply([delete_dest(108)]);
    assert_eq!(director.apply([add_dest(109)])[0].as_ref().unwrap_err().errno, Errno::NoMem);
}

#[test]
fn what_was_refused_when_a_crash_came_is_left_out_once_and_told() {
    let file = File::new("crashed");
    let aside = file.0.with_extension("refused");
    let mut first = director(&[Shared::new(8)]);
    first.keep_in(&file.0, Sync::Always).unwrap();
    first.apply([add_service(), add_dest(11)]);
    let before = list(&mut first);
    // Written, and nobody lived to strike it out.
    let refused = [add_service(), delete_dest(12), Request::Together([add_dest(11)].into())];
    first.store.as_mut().unwrap().write(&refused).unwrap();
    drop(first);
    let text = std::fs::read(&file.0).unwrap();

    let mut second = director(&[Shared::new(8)]);
    let told = second.keep_in(&file.0, Sync::Always).unwrap().unwrap().to_string();
    let expected = format!(
        "state {}: 3 of its lines count for nothing, the first is line 4: it was refused (File \
         exists) when a crash came; the file as it was is {}",
        file.0.display(),
        aside.display()
    );
    assert_eq!(told, expected);
    assert_eq!(list(&mut second), before);
    assert_eq!(std::fs::read(&aside).unwrap(), text);
    std::fs::remove_file(aside).unwrap();
    drop(second);
    assert_eq!(director(&[Shared::new(8)]).keep_in(&file.0, Sync::Always).unwrap(), None, "once");
}

#[test]
fn connections_go_on_ending_while_their_service_is_edited_and_no_longer_than_that() {
    let workers = [Shared::new(8)];
    let mut director = director(&workers);
    director.apply([add_service(), add_dest(11), add_dest(12)]);
    let edit = |last: u8, weight: u32| {
        let attributes = DestAttributes::new(ForwardMethod::Direct, Weight(weight));
        Request::EditDest { service: vip(), dest: ([192, 0, 2, last], 80).into(), attributes }
    };
    let end = |resets| {
        let dest = ([192, 0, 2, 11], 80).into();
        Request::EndConns { service: vip(), dest, resets }
    };
    let drained = DestLine::AVAILABLE | DestLine::DRAINED;
    let flags = || workers[0].lines[0].flags();
    director.apply([edit(11, 0)]);
    director.apply([end(true)]);
    director.apply([edit(12, 5)]);
    assert_eq!(flags(), drained | DestLine::RESETS);
    director.apply([end(false)]);
    director.apply([edit(12, 6)]);
    director.tick(Duration::from_secs(1)).unwrap();
    assert_eq!(flags(), drained | DestLine::RESETS | DestLine::ENDS);
    workers[0].note_purged(1);
    director.tick(Duration::from_secs(2)).unwrap();
    assert_eq!(flags(), drained | DestLine::RESETS, "all that was there has ended");
    director.apply([edit(11, 1)]);
    assert_eq!(flags(), DestLine::AVAILABLE);
    director.apply([edit(11, 0)]);
    assert_eq!(flags(), drained, "it is another time");
}

#[test]
fn counters_wait_for_a_director_that_starts() {
    let file = File::new("waiting");
    let at = |ending: &str| std::path::PathBuf::from(format!("{}{ending}", file.0.display()));
    std::fs::write(&file.0, "{\"rvs_state\":1}\n").unwrap();
    std::fs::write(at(".counters"), "[]").unwrap();
    std::fs::create_dir(at(".tmp")).unwrap();
    let failed = director(&[Shared::new(8)]).keep_in(&file.0, Sync::Always);
    assert!(matches!(failed, Err(crate::store::StoreError::File { .. })), "{failed:?}");
    assert!(at(".counters").exists(), "the disk was full, say: they are there for the next one");
    std::fs::remove_dir(at(".tmp")).unwrap();
    director(&[Shared::new(8)]).keep_in(&file.0, Sync::Always).unwrap();
    assert!(!at(".counters").exists());
}

#[test]
fn a_disk_that_is_full_at_the_start_costs_no_service() {
    let file = File::new("full");
    let mut first = director(&[Shared::new(8)]);
    first.keep_in(&file.0, Sync::Always).unwrap();
    first.apply([add_service(), add_dest(11), add_dest(12)]);
    let before = list(&mut first);
    drop(first);
    let aside = format!("{}.tmp", file.0.display());
    std::os::unix::fs::symlink("/dev/full", &aside).unwrap();
    let mut second = director(&[Shared::new(8)]);
    assert_eq!(second.keep_in(&file.0, Sync::Always).unwrap(), None);
    assert_eq!(list(&mut second), before);
    let told = second.tick(Duration::from_secs(1)).unwrap_err().to_string();
    assert!(told.contains("No space left on device"), "{told}");
    // There is room again.
    second.apply([add_dest(13)])[0].as_ref().unwrap();
    let before = list(&mut second);
    drop(second);
    let mut third = director(&[Shared::new(8)]);
    third.keep_in(&file.0, Sync::Always).unwrap();
    assert_eq!(list(&mut third), before);
}
