//! Steps of a long command: each with its name, its time and its verdict, and a table at the end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a step that takes long says where it is.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Lines of a failed step's output that are shown.
const SHOWN_LINES: usize = 120;

/// How a step went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug)]
struct Done {
    name: String,
    time: Duration,
    verdict: Verdict,
    note: String,
}

/// What was done so far.
#[derive(Debug)]
pub struct Steps {
    started: Instant,
    logs: PathBuf,
    done: Vec<Done>,
}

impl Steps {
    /// None yet; what they print goes to files in `logs`.
    ///
    /// # Errors
    ///
    /// That folder cannot be made.
    pub fn new(logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        Ok(Self { started: Instant::now(), logs, done: Vec::new() })
    }

    /// Runs `command` as step `name`; it passes when the command succeeds. `note` finds in the
    /// output what is worth a place in the table. Says whether it passed.
    ///
    /// # Errors
    ///
    /// It could not be started.
    pub fn run(
        &mut self,
        name: &str,
        command: &mut Command,
        note: impl Fn(&str) -> Option<String>,
    ) -> Result<bool> {
        println!("{name} ...");
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut heartbeat = HEARTBEAT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > heartbeat {
                let text = read(&log);
                let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                println!("  {:4} s  {}", begun.elapsed().as_secs(), last.trim());
                heartbeat += HEARTBEAT;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let text = read(&log);
        if status.success() {
            self.end(name, begun, Verdict::Passed, note(&text).unwrap_or_default());
        } else {
            let lines: Vec<_> = text.lines().collect();
            let start = lines.len().saturating_sub(SHOWN_LINES);
            for line in lines.iter().skip(start) {
                println!("  {line}");
            }
            self.end(name, begun, Verdict::Failed, format!("all of it: {}", log.display()));
        }
        Ok(status.success())
    }

    /// Runs `check` as step `name`; it passes when there is nothing to complain about.
    ///
    /// # Errors
    ///
    /// It could not be made.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<Vec<String>>) -> Result<()> {
        println!("{name} ...");
        let begun = Instant::now();
        let complaints = check()?;
        for complaint in &complaints {
            println!("  {complaint}");
        }
        if complaints.is_empty() {
            self.end(name, begun, Verdict::Passed, String::new());
        } else {
            self.end(name, begun, Verdict::Failed, format!("{} complaints", complaints.len()));
        }
        Ok(())
    }

    /// Leaves step `name` out, and says why.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("{name} ...");
        self.end(name, Instant::now(), Verdict::Skipped, why.to_owned());
    }

    /// Prints the table and says whether nothing failed.
    #[must_use]
    pub fn conclude(&self) -> bool {
        println!("\n{:14} {:>8}  verdict", "step", "time");
        for Done { name, time, verdict, note } in &self.done {
            println!("{name:14} {:6.1} s  {:8} {note}", time.as_secs_f32(), verdict.name());
        }
        println!("{:14} {:6.1} s", "all", self.started.elapsed().as_secs_f32());
        let count = |verdict| self.done.iter().filter(|done| done.verdict == verdict).count();
        let failed = count(Verdict::Failed);
        let (passed, skipped) = (count(Verdict::Passed), count(Verdict::Skipped));
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        failed == 0
    }

    fn end(&mut self, name: &str, begun: Instant, verdict: Verdict, note: String) {
        let time = begun.elapsed();
        println!("  {:6.1} s  {} {note}", time.as_secs_f32(), verdict.name());
        self.done.push(Done { name: name.to_owned(), time, verdict, note });
    }
}

fn read(log: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(name: &str) -> Steps {
        let dir = format!("xtask-{name}-{}", std::process::id());
        Steps::new(std::env::temp_dir().join(dir)).unwrap()
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn end(steps: Steps, verdicts: &[(Verdict, &str)]) -> bool {
        let all = steps.conclude();
        for (done, (verdict, note)) in steps.done.iter().zip(verdicts) {
            assert_eq!(done.verdict, *verdict, "{}", done.name);
            assert!(done.note.contains(note), "{}", done.note);
        }
        assert_eq!(steps.done.len(), verdicts.len());
        fs::remove_dir_all(steps.logs).unwrap();
        all
    }

    #[test]
    fn skipped_steps_do_not_fail_the_whole() {
        let mut steps = steps("skip");
        let note = |text: &str| Some(text.trim().to_owned());
        assert!(steps.run("good", &mut shell("echo 24 tests"), note).unwrap());
        steps.check("clean", || Ok(Vec::new())).unwrap();
        steps.skip("labs", "no root");
        let verdicts =
            [(Verdict::Passed, "24 tests"), (Verdict::Passed, ""), (Verdict::Skipped, "no root")];
        assert!(end(steps, &verdicts));
    }

    #[test]
    fn one_failed_step_fails_the_whole_and_names_its_log() {
        let mut steps = steps("fail");
        assert!(!steps.run("bad", &mut shell("echo why >&2; exit 1"), |_| None).unwrap());
        assert_eq!(fs::read_to_string(steps.logs.join("bad.log")).unwrap(), "why\n");
        steps.check("untidy", || Ok(vec!["a".to_owned(), "b".to_owned()])).unwrap();
        assert!(steps.run("good", &mut shell("true"), |_| None).unwrap());
        let verdicts = [
            (Verdict::Failed, "bad.log"),
            (Verdict::Failed, "2 complaints"),
            (Verdict::Passed, ""),
        ];
        assert!(!end(steps, &verdicts));
    }
}
