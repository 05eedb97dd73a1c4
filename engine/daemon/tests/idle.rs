//! What a director with nothing to do costs, and how soon it is there again. Between a real kernel's
//! end of a TAP and ours, in a network namespace of its own; skipped without root.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A director in a namespace, and its folder. Both end with the test.
struct Director {
    child: Child,
    folder: PathBuf,
}

impl Director {
    /// With so many workers, on any cores; `None` without root.
    fn start(name: &str, idle: &str, workers: usize) -> Option<Self> {
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            eprintln!("skipped: a TAP device takes root");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("rvsd-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let cores = thread::available_parallelism().unwrap().get().min(workers);
        let cores: Vec<_> = (0..cores).collect();
        let text = format!(
            "[control]\nsocket = \"rvsd.sock\"\n[workers]\ncores = {cores:?}\nidle = \"{idle}\"\n\
             [tables]\nconns = 1000\nconns6 = 1000\n[[link]]\nname = \"lan\"\nkind = \"tap\"\n\
             device = \"rvs0\"\naddresses = [\"192.0.2.1/24\"]\n"
        );
        let file = folder.join("rvs.toml");
        fs::write(&file, text).unwrap();
        let mut unshare = Command::new("setpriv");
        unshare
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--net",
                env!("CARGO_BIN_EXE_rvsd"),
                "run",
            ])
            .arg(file);
        let errors = fs::File::create(folder.join("errors")).unwrap();
        let child = unshare.stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        let director = Self { child, folder };
        director.await_ready();
        director.inside(&["ip", "addr", "add", "192.0.2.9/24", "dev", "rvs0"]);
        Some(director)
    }

    fn await_ready(&self) {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let said = fs::read_to_string(self.folder.join("errors")).unwrap();
            if said.contains("rvsd: ready") {
                return;
            }
            assert!(Instant::now() < until, "not ready: {said}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a program in its namespace.
    fn inside(&self, command: &[&str]) -> String {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--net", "--target", &self.child.id().to_string(), "--"]).args(command);
        let output = nsenter.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command:?}: {said}{:?}", output.stderr);
        said
    }

    /// The processor time that it used so far, its kernel's on its behalf included.
    fn used(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).unwrap();
        let mut all = stat.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        // That was the main thread; the others are beside it.
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let task = task.unwrap();
            if task.file_name().to_str() != Some(&self.child.id().to_string()) {
                let stat = fs::read_to_string(task.path().join("schedstat")).unwrap();
                all += stat.split_whitespace().next().unwrap().parse::<u64>().unwrap();
            }
        }
        Duration::from_nanos(all)
    }

    /// The part of a core that it uses when nothing happens.
    fn idle_share(&self) -> f64 {
        thread::sleep(Duration::from_millis(300));
        let (used, begun) = (self.used(), Instant::now());
        thread::sleep(Duration::from_secs(2));
        (self.used().saturating_sub(used)).as_secs_f64() / begun.elapsed().as_secs_f64()
    }

    /// The quickest of many answers, each to a question after some rest, in microseconds. Others may
    /// have the processors: what the quickest took is what the director makes of it.
    fn quickest_answer_us(&self) -> f64 {
        let ping = ["ping", "-n", "-q", "-c", "60", "-i", "0.025", "192.0.2.1"];
        let said = self.inside(&ping);
        let line = said.lines().find(|line| line.starts_with("rtt")).unwrap();
        let least = line.split(['=', '/']).nth(4).unwrap().trim();
        eprintln!("{line}");
        least.parse::<f64>().unwrap() * 1000.0
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// What was measured of a director with so many workers, and whether it is what we claim.
fn measured(workers: usize) -> Option<(bool, String)> {
    let adaptive = Director::start("rests", "adaptive", workers)?;
    let share = adaptive.idle_share();
    let answer = adaptive.quickest_answer_us();
    drop(adaptive);
    let polling = Director::start("polls", "poll", workers).unwrap();
    let floor = polling.quickest_answer_us();
    let words = format!(
        "{workers} workers: {:.2} % of a core; an answer after {answer} us, polling {floor} us",
        share * 100.0
    );
    eprintln!("{words}");
    Some((share < 0.02 && answer - floor < 50.0, words))
}

/// Who else has the processors makes both figures worse, never better: one round of some is enough.
#[test]
fn a_director_with_nothing_to_do_rests_and_a_frame_wakes_it_at_once() {
    for workers in [1, 2] {
        let mut rounds = Vec::new();
        let is_so = (0..5).any(|_| match measured(workers) {
            Some((is_so, words)) => {
                rounds.push(words);
                is_so
            }
            // Not here, as it said.
            None => true,
        });
        assert!(is_so, "{rounds:#?}");
    }
}

/// poll(2) says of such a device, forever, that there is an error.
#[test]
fn a_director_whose_device_was_deleted_says_so_and_rests() {
    let Some(director) = Director::start("deleted", "adaptive", 1) else { return };
    director.inside(&["ip", "link", "delete", "rvs0"]);
    let mut shares = Vec::new();
    let rests = (0..5).any(|_| {
        shares.push(director.idle_share());
        shares.last().is_some_and(|share| *share < 0.02)
    });
    assert!(rests, "{shares:?}");
    let said = fs::read_to_string(director.folder.join("errors")).unwrap();
    let line = "rvsd: TAP rvs0 is gone: nothing comes or goes by it until rvsd is started again\n";
    assert_eq!(said.matches(line).count(), 1, "{said}");
}
