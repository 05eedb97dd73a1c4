use super::*;
use rvs_api::{AddressFamily, ServiceAttributes, ServiceKey, TimeoutsChange};
use rvs_model::Protocol;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rvs-store-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn add(port: u16) -> Request {
    let address = format!("203.0.113.1:{port}").parse().unwrap();
    let service = ServiceKey::Address { protocol: Protocol::Tcp, address };
    Request::AddService { service, attributes: ServiceAttributes::new("rr", AddressFamily::V4) }
}

fn open(path: &Path) -> (Store, Vec<Request>) {
    // With `Soon` a thread may hold the file, and so its lock, for a moment longer.
    let (store, kept) = Store::open(path, Sync::Always).unwrap();
    (store, kept.into_iter().map(|(_, request)| request).collect())
}

/// Writes a batch, of which those in `refused` are refused.
fn batch(store: &mut Store, requests: &[Request], refused: &[usize]) {
    let mut written = store.write(requests).unwrap();
    for (number, request) in requests.iter().enumerate() {
        store.conclude(&mut written, request, refused.contains(&number));
    }
    store.finish(&written);
}

#[test]
fn what_was_written_is_there_again_without_what_was_refused_or_only_asked() {
    let folder = Folder::new("again");
    let set = Request::SetTimeouts(TimeoutsChange { tcp_s: 1, tcp_fin_s: 0, udp_s: 2 });
    {
        let (mut store, kept) = open(&folder.file());
        assert!(kept.is_empty());
        let list = Request::ListServices { service: None };
        let zero = Request::Zero { service: None };
        let requests = [list, add(1), add(2), zero, add(3), set.clone()];
        batch(&mut store, &requests, &[2]);
    }
    assert_eq!(open(&folder.file()).1, [add(1), add(3), set]);
}

#[test]
fn a_file_that_is_cut_anywhere_tells_of_a_beginning_of_what_happened() {
    let folder = Folder::new("cut");
    let all: Vec<_> = (1..20).map(add).collect();
    {
        let (mut store, _) = open(&folder.file());
        for one in &all {
            batch(&mut store, core::slice::from_ref(one), &[]);
        }
    }
    let text = std::fs::read(folder.file()).unwrap();
    let mut most = 0;
    for end in 0..=text.len() {
        std::fs::write(folder.file(), &text[..end]).unwrap();
        let (mut store, kept) = open(&folder.file());
        assert_eq!(kept, all[..kept.len()]);
        assert!(kept.len() >= most);
        most = kept.len();
        batch(&mut store, &[add(99)], &[]);
        drop(store);
        let (_store, kept) = open(&folder.file());
        assert_eq!(kept.last(), Some(&add(99)), "it goes on behind the cut");
    }
    assert_eq!(most, all.len());
}

#[test]
fn a_temporary_file_that_a_crash_left_changes_nothing() {
    let folder = Folder::new("crash");
    batch(&mut open(&folder.file()).0, &[add(1)], &[]);
    std::fs::write(folder.0.join("state.tmp"), b"{\"rvs_state\":1}\n{\"flu").unwrap();
    let (mut store, kept) = open(&folder.file());
    assert_eq!(kept, [add(1)]);
    store.rewrite(&kept).unwrap();
    assert!(!folder.0.join("state.tmp").exists());
}

#[test]
fn directors_whose_files_differ_only_behind_a_dot_do_not_meet() {
    let folder = Folder::new("dots");
    let [one, two] = ["lb.one", "lb.two"].map(|name| folder.0.join(name));
    let (store, _) = open(&one);
    // What `one` writes aside is not touched by `two`.
    let aside = temporary(&one);
    std::fs::write(&aside, b"half of it").unwrap();
    let (mut other, _) = open(&two);
    batch(&mut other, &[add(2)], &[]);
    other.rewrite(&[add(2)]).unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), b"half of it");
    drop((store, other));
    // Nor is a name of ours taken for the file aside.
    let (mut store, _) = open(&folder.0.join("lb.tmp"));
    batch(&mut store, &[add(3)], &[]);
    drop(store);
    assert_eq!(open(&folder.0.join("lb.tmp")).1, [add(3)]);
}

#[test]
fn a_file_of_somebody_elses_is_left_as_it_is() {
    let folder = Folder::new("foreign");
    for text in ["secret", "{\"rvs_state\":2", "{\"rvs_state\":1}x", "\0"] {
        std::fs::write(folder.file(), text).unwrap();
        let refused = Store::open(&folder.file(), Sync::Always);
        assert!(matches!(refused, Err(StoreError::NotUnderstood { line: 1, .. })), "{text:?}");
        assert_eq!(std::fs::read(folder.file()).unwrap(), text.as_bytes());
    }
}

#[test]
fn a_full_disk_is_a_refusal_and_leaves_what_was_there() {
    let folder = Folder::new("full");
    let (mut store, _) = open(&folder.file());
    batch(&mut store, &[add(1)], &[]);
    let real = Arc::clone(&store.file);
    store.fill_disk();
    let refusal = store.write(&[add(2)]).unwrap_err();
    assert_eq!(refusal.errno, Errno::NoSpc);
    assert!(refusal.to_string().contains("No space left on device"), "{refusal}");
    assert!(store.write(&[Request::GetInfo]).is_ok(), "questions need no room");
    store.file = real;
    store.full.as_mut().unwrap().until = Instant::now();
    batch(&mut store, &[add(3)], &[]);
    drop(store);
    assert_eq!(open(&folder.file()).1, [add(1), add(3)]);
}

#[test]
fn a_disk_that_was_just_full_is_not_asked_again_for_every_change() {
    let folder = Folder::new("asked");
    let (mut store, _) = open(&folder.file());
    let real = Arc::clone(&store.file);
    store.fill_disk();
    let refusal = store.write(&[add(1)]).unwrap_err();
    store.file = real;
    store.full.as_mut().unwrap().until += Duration::from_hours(1);
    assert_eq!(store.write(&[add(1)]).unwrap_err(), refusal, "there is room, but nobody looks");
    assert!(store.write(&[Request::GetInfo]).is_ok());
    store.full.as_mut().unwrap().until = Instant::now();
    batch(&mut store, &[add(2)], &[]);
    assert!(store.full.is_none());
    drop(store);
    assert_eq!(open(&folder.file()).1, [add(2)]);
}

#[test]
fn changes_while_the_file_is_written_anew_are_behind_what_it_tells() {
    let folder = Folder::new("meanwhile");
    let (mut store, _) = open(&folder.file());
    while !store.is_long() {
        batch(&mut store, &[add(1), add(2)], &[1]);
    }
    let long = std::fs::metadata(folder.file()).unwrap().len();
    let until = Instant::now() + Duration::from_secs(20);
    store.tend(|| vec![add(1)]).unwrap();
    let mut expected = vec![add(1)];
    for port in 3.. {
        batch(&mut store, &[add(port), add(2)], &[1]);
        expected.push(add(port));
        if store.anew.as_ref().unwrap().thread.is_finished() {
            break;
        }
        assert!(Instant::now() < until, "it is never written");
    }
    store.tend(|| unreachable!("it is written already")).unwrap();
    assert!(store.anew.is_none() && !folder.0.join("state.tmp").exists());
    batch(&mut store, &[add(9999)], &[]);
    expected.push(add(9999));
    assert!(std::fs::metadata(folder.file()).unwrap().len() < long, "it is not what it was");
    drop(store);
    assert_eq!(open(&folder.file()).1, expected);
}

#[test]
fn a_file_that_cannot_be_written_anew_is_good_still_and_not_tried_again_at_once() {
    let folder = Folder::new("cannot");
    let (mut store, _) = open(&folder.file());
    while !store.is_long() {
        batch(&mut store, &[add(1)], &[]);
    }
    // Where the temporary file would be is something else.
    std::fs::create_dir(folder.0.join("state.tmp")).unwrap();
    store.tend(|| vec![add(1)]).unwrap();
    while !store.anew.as_ref().unwrap().thread.is_finished() {
        thread::yield_now();
    }
    let error = store.tend(Vec::new).unwrap_err().to_string();
    assert!(error.contains("state: Is a directory"), "{error}");
    store.tend(|| unreachable!("not before it has doubled")).unwrap();
    batch(&mut store, &[add(2)], &[]);
    drop(store);
    std::fs::remove_dir(folder.0.join("state.tmp")).unwrap();
    assert_eq!(open(&folder.file()).1.last(), Some(&add(2)));
}

#[test]
fn a_file_is_written_anew_when_it_is_much_longer_than_what_it_tells() {
    let folder = Folder::new("anew");
    let (mut store, _) = open(&folder.file());
    while !store.is_long() {
        batch(&mut store, &[add(1)], &[]);
    }
    let long = std::fs::metadata(folder.file()).unwrap().len();
    store.rewrite(&[add(1)]).unwrap();
    assert!(!store.is_long() && std::fs::metadata(folder.file()).unwrap().len() < long / 100);
    batch(&mut store, &[add(2)], &[]);
    drop(store);
    assert_eq!(open(&folder.file()).1, [add(1), add(2)]);
}

#[test]
fn what_is_no_state_is_left_alone_and_named() {
    let folder = Folder::new("alone");
    for (text, line) in [
        ("services = 7\n", 1),
        ("{\"rvs_state\":2}\n", 1),
        ("{\"rvs_state\":1}\n\"flush\"\nnonsense\n", 3),
    ] {
        std::fs::write(folder.file(), text).unwrap();
        let error = Store::open(&folder.file(), Sync::Soon).unwrap_err().to_string();
        assert!(error.contains(&format!("line {line} is not understood")), "{error}");
        assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);
    }
}

#[test]
fn two_do_not_keep_their_state_in_one_file() {
    let folder = Folder::new("two");
    let (mut store, _) = open(&folder.file());
    let second = |path: &Path| Store::open(path, Sync::Soon).unwrap_err();
    assert!(matches!(second(&folder.file()), StoreError::InUse(_)));
    store.rewrite(&[add(1)]).unwrap();
    assert!(matches!(second(&folder.file()), StoreError::InUse(_)));
}
