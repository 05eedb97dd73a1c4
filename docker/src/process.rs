//! Programs that the lab starts: bounded in time, and gone when the lab is gone.
//!
//! Each is started through `setpriv --pdeathsig KILL`, which stays with the process over the exec
//! of the program itself, so that not even a killed lab leaves one behind.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::topology::Topology;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// How long a program has to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every wait heeds: a point in time, and the person at the keyboard.
#[derive(Clone, Debug)]
pub struct Limits {
    started: Instant,
    timeout: Duration,
    stop: Arc<AtomicBool>,
}

impl Limits {
    /// Ends waits after `timeout`, and on SIGINT, SIGTERM or SIGHUP.
    ///
    /// # Errors
    ///
    /// The signal handlers could not be installed.
    pub fn new(timeout: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { started: Instant::now(), timeout, stop })
    }

    /// Time since the lab was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells the person what has just been done, and when.
    pub fn say(&self, topology: &Topology, what: &str) {
        println!("   {:5.1} s  {:4} {what}", self.elapsed().as_secs_f32(), topology.name);
    }

    /// Whether to go on.
    ///
    /// # Errors
    ///
    /// Interrupted, or out of time.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        ensure!(self.elapsed() < self.timeout, "not done after {} s", self.timeout.as_secs());
        Ok(())
    }

    /// Waits until `look` finds something, at most `most`.
    ///
    /// # Errors
    ///
    /// What `look` or [`Limits::check`] says; `what` when it took too long.
    pub fn wait<T>(
        &self,
        what: &str,
        most: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            self.check().with_context(|| format!("while waiting for {what}"))?;
            ensure!(begun.elapsed() < most, "{what}: not within {} s", most.as_secs());
            thread::sleep(POLL);
        }
    }
}

/// `program`, in namespace `host` if one is named, ending when this process ends.
#[must_use]
pub fn command(host: Option<&str>, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(host) = host {
        command.args(["ip", "netns", "exec", host]);
    }
    command.arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// Runs a short program to its end and returns what it printed.
///
/// # Errors
///
/// It could not be started, or failed: then with what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {}", shown(command)))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}{said}{complaint}", shown(command), output.status);
    Ok(said)
}

/// Runs a short program to its end with `input` on its standard input.
///
/// # Errors
///
/// It could not be started, or failed: then with what it said and what it was given.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    let mut pipe = child.stdin.take().context("no pipe to standard input")?;
    // A program that ends early closes its end; its exit status tells more than the broken pipe.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {complaint}for this input:\n{input}", shown(command));
    Ok(())
}

/// The command line as one would type it, without what [`command`] puts in front.
#[must_use]
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let line = words.join(" ");
    line.strip_prefix("setpriv --pdeathsig KILL -- ").unwrap_or(&line).to_owned()
}

/// A program that runs until it is told to end. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Daemon {
    /// Starts `command`; what it prints goes to `NAME.out` and `NAME.err` in `dir`.
    ///
    /// # Errors
    ///
    /// It or its files could not be made.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let out = dir.join(format!("{name}.out"));
        let err = dir.join(format!("{name}.err"));
        command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        // Its own process group: Ctrl-C reaches the lab alone, which then ends it in order.
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("starting {}", shown(&command)))?;
        Ok(Self { name: name.to_owned(), child, out, err })
    }

    /// What it printed so far on standard output.
    #[must_use]
    pub fn output(&self) -> String {
        read_lossy(&self.out)
    }

    /// What it printed so far on standard error.
    #[must_use]
    pub fn errors(&self) -> String {
        read_lossy(&self.err)
    }

    /// Waits until a line of its standard error starts with `start`.
    ///
    /// # Errors
    ///
    /// It ended before, or took too long.
    pub fn wait_for_line(&mut self, start: &str, limits: &Limits) -> Result<()> {
        let name = self.name.clone();
        limits.wait(&format!("{name}: '{start}'"), Duration::from_mins(1), || {
            let errors = self.errors();
            if errors.lines().any(|line| line.starts_with(start)) {
                return Ok(Some(()));
            }
            match self.child.try_wait()? {
                Some(status) => bail!("{name} ended with {status}:\n{errors}{}", self.output()),
                None => Ok(None),
            }
        })
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// Not within `most`.
    pub fn wait(&mut self, most: Duration, limits: &Limits) -> Result<ExitStatus> {
        let name = self.name.clone();
        limits.wait(&format!("the end of {name}"), most, || Ok(self.child.try_wait()?))
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end of what was killed.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn reap(&mut self) -> Result<()> {
        self.child.wait().map(drop).map_err(Into::into)
    }

    /// Its process, and the group of all that it starts.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, by name.
    ///
    /// # Errors
    ///
    /// It ended before by itself.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} had ended before with {status}:\n{}", self.name, self.errors());
        }
        let kill = format!("kill -{name} {}", self.child.id());
        run(Command::new("sh").args(["-c", &kill])).map(drop)
    }

    /// Asks it to end, by SIGTERM, and waits for that.
    ///
    /// # Errors
    ///
    /// It ended before by itself, or does not end.
    pub fn terminate(&mut self, limits: &Limits) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(PATIENCE, limits)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::new(Duration::from_secs(30)).unwrap()
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rvs-lab-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_failing_program_is_reported_with_its_words() {
        let mut command = command(None, "sh");
        let error = run(command.args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("sh -c") && text.contains("no such thing"), "{text}");
    }

    #[test]
    fn a_daemon_that_dies_early_is_told_from_one_that_is_slow() {
        let dir = scratch("early");
        let mut command = command(None, "sh");
        command.args(["-c", "echo cannot open >&2; exit 1"]);
        let mut daemon = Daemon::start("early", command, &dir).unwrap();
        let error = daemon.wait_for_line("ready", &limits()).unwrap_err().to_string();
        assert!(error.contains("ended with") && error.contains("cannot open"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn terminate_returns_the_exit_status_of_an_orderly_end() {
        let dir = scratch("orderly");
        let mut command = command(None, "sh");
        command.args(["-c", "trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.02; done"]);
        let mut daemon = Daemon::start("orderly", command, &dir).unwrap();
        daemon.wait_for_line("ready", &limits()).unwrap();
        assert_eq!(daemon.terminate(&limits()).unwrap().code(), Some(7));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_wait_ends_with_the_time_limit() {
        let limits = Limits::new(Duration::from_millis(30)).unwrap();
        let result = limits.wait("nothing", Duration::from_mins(1), || Ok(None::<()>));
        assert!(format!("{:#}", result.unwrap_err()).contains("while waiting for nothing"));
    }
}
