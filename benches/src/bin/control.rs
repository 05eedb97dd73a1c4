//! What control costs with ten thousand services of ten real servers: rvsd and its tools as they are
//! shipped, and a worker beside. Takes root, for a network namespace.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rvs_benches::control::{self, DESTS, Interval, SERVICES, dest, service};
use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Measures what control costs; fails if anything takes more than it may.
#[derive(Parser)]
struct Arguments {
    /// Leaves out rvsd and its tools.
    #[arg(long)]
    no_programs: bool,
    /// Leaves out the worker.
    #[arg(long)]
    no_worker: bool,
}

const CONFIGURATION: &str = r#"
[control]
socket = "rvsd.sock"
state = "state"
[tables]
services = 16384
dests = 131072
[[link]]
name = "lan"
kind = "tap"
device = "rvs-control"
addresses = ["10.3.0.1/16"]
"#;

/// How long rvsd may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own, gone in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// rvsd in a network namespace of its own; it ends with this.
struct Rvsd {
    child: Child,
    folder: PathBuf,
    programs: PathBuf,
    /// Programs that took longer than they may.
    beyond: Cell<u32>,
}

impl Drop for Rvsd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let folder = std::env::temp_dir().join(format!("rvs-control-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let folder = Folder(folder);
    let lines = u32::from(SERVICES) * (u32::from(DESTS) + 1);
    println!("{SERVICES} services of {DESTS} real servers, {lines} lines");
    let mut beyond = 0;
    if !arguments.no_programs {
        beyond += programs(&folder.0)?;
    }
    if !arguments.no_worker {
        beyond += worker(&folder.0)?;
    }
    if beyond > 0 {
        eprintln!(
            "{beyond} of these took more than they may. On a machine with other work the scheduler's slices \
             are what is measured: try again with `chrt -f 50` in front"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a value may be at most, as it is printed behind the value.
struct Limit<'t> {
    most: f64,
    unit: &'t str,
}

impl Limit<'_> {
    /// The words, and whether `value` is beyond.
    fn judge(&self, value: f64) -> (String, bool) {
        let is_beyond = value > self.most;
        let word = if is_beyond { "BEYOND its limit of" } else { "limit" };
        (format!("{word} {} {}", self.most, self.unit), is_beyond)
    }
}

fn worker(folder: &Path) -> Result<u32> {
    let it = control::beside(folder)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (words, is_late) = Limit { most: 5.0, unit: "ms" }.judge(ms(it.seen_99));
    println!(
        "a change is seen by a worker      median {:.3} ms, 99 of 100 within {:.3} ms ({words})",
        ms(it.seen_median),
        ms(it.seen_99)
    );
    let Interval { low, median, high } = it.more;
    // What is beyond by the machine's noise alone is not.
    let (words, is_slow) = Limit { most: 1.0, unit: "%" }.judge(low);
    println!(
        "{:.0} changes a second            a packet costs a worker {:.2} ns without, {median:+.2} % with: 95 of 100 \
         times {low:+.2} to {high:+.2} % ({words})",
        it.changes, it.alone_ns,
    );
    Ok(u32::from(is_late) + u32::from(is_slow))
}

/// How many of the programs took longer than they may.
fn programs(folder: &Path) -> Result<u32> {
    let mut rules = String::new();
    let name = |number| service(number).to_string();
    for number in 0..SERVICES {
        writeln!(rules, "-A {} -s wlc", name(number))?;
        for it in 0..DESTS {
            writeln!(rules, "-a {} -r {} -m -w 1", name(number), dest(number, it))?;
        }
    }
    let path = folder.join("rules");
    std::fs::write(&path, &rules)?;
    let rvsd = Rvsd::start(folder)?;
    let whole = usize::from(SERVICES) * (usize::from(DESTS) + 1);
    rvsd.timed("rvsadm -R", 1.0, &["rvsadm", "-R"], Some(&path))?;
    rvsd.timed("rvsadm -Ln", 0.5, &["rvsadm", "-Ln"], None)?;
    rvsd.timed("rvsadm -L --json", f64::INFINITY, &["rvsadm", "-L", "--json"], None)?;
    rvsd.timed("rvsadm save", f64::INFINITY, &["rvsadm", "save"], None)?;
    let listed = rvsd.timed("rvs-run ipvsadm -Ln", 0.5, &["rvs-run", "ipvsadm", "-Ln"], None)?;
    ensure!(listed == whole + 3, "{listed} lines were listed");
    let saved = folder.join("rvsadm-save");
    let saved = saved.to_string_lossy();
    rvsd.timed("rvsadm apply, no change", f64::INFINITY, &["rvsadm", "apply", &saved], None)?;
    rvsd.run(&["rvsadm", "-C"])?;
    rvsd.timed("rvsadm apply, all new", f64::INFINITY, &["rvsadm", "apply", &saved], None)?;
    rvsd.run(&["rvsadm", "-C"])?;
    rvsd.timed("rvs-run ipvsadm -R", 5.0, &["rvs-run", "ipvsadm", "-R"], Some(&path))?;
    let listed = rvsd.timed("rvsadm -Sn", f64::INFINITY, &["rvsadm", "-Sn"], None)?;
    ensure!(listed == whole, "{listed} rules are there");
    Ok(rvsd.beyond.get())
}

impl Rvsd {
    fn start(folder: &Path) -> Result<Self> {
        let programs = std::env::current_exe()?;
        let programs = programs.parent().context("no folder")?.to_owned();
        std::fs::write(folder.join("rvs.toml"), CONFIGURATION)?;
        let child = Command::new("unshare")
            .arg("--net")
            .arg(programs.join("rvsd"))
            .args(["run", "rvs.toml"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log"))?)
            .spawn()
            .context("unshare")?;
        let mut rvsd = Self { child, folder: folder.to_owned(), programs, beyond: Cell::new(0) };
        let begun = Instant::now();
        while !std::fs::read_to_string(folder.join("log"))?.contains("rvsd: ready") {
            if rvsd.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                bail!("rvsd: {}", std::fs::read_to_string(folder.join("log"))?);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(rvsd)
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let (program, words) = words.split_first().context("no program")?;
        let mut command = Command::new(self.programs.join(program));
        command.args(words).env("RVS_SOCKET", self.folder.join("rvsd.sock"));
        command.env("RVS_NETLINK", self.folder.join("rvsd.netlink"));
        Ok(command)
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        ensure!(self.command(words)?.status()?.success(), "{words:?} failed");
        Ok(())
    }

    /// Runs a program, prints its time and what the processors did for it, and returns how many lines
    /// it wrote; they are in a file of its name.
    fn timed(&self, name: &str, limit: f64, words: &[&str], from: Option<&Path>) -> Result<usize> {
        // No name has a slash but of a file that is read, whose output nobody reads.
        let out = self.folder.join(words.join("-").replace('/', "-"));
        let mut command = self.command(words)?;
        command.stdout(File::create(&out)?);
        command.stdin(from.map_or(Ok(Stdio::null()), |path| File::open(path).map(Stdio::from))?);
        let (rvsd, own) = (seconds_of(&self.child.id().to_string())?, children_seconds()?);
        let begun = Instant::now();
        ensure!(command.status()?.success(), "{name} failed");
        let took = begun.elapsed().as_secs_f64();
        let own = children_seconds()? - own;
        let rvsd = seconds_of(&self.child.id().to_string())? - rvsd;
        let (words, is_beyond) = Limit { most: limit, unit: "s" }.judge(took);
        let words = if limit.is_finite() { format!(" ({words})") } else { String::new() };
        self.beyond.set(self.beyond.get() + u32::from(is_beyond));
        println!("{name:<30} {took:>6.2} s; processors: {own:.2} s, rvsd {rvsd:.2} s{words}");
        Ok(std::fs::read_to_string(&out)?.lines().count())
    }
}

/// Clock ticks a second of proc(5), as on every Linux that is built today.
const TICKS: f64 = 100.0;

/// Numbers of `/proc/ID/stat` behind the program's name.
fn stat(id: &str, fields: [usize; 2]) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("no name")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let mut ticks = 0.0;
    for field in fields {
        ticks += words.get(field).context("a short line")?.parse::<f64>()?;
    }
    Ok(ticks / TICKS)
}

/// Processor time of a process: its `utime` and `stime`.
fn seconds_of(id: &str) -> Result<f64> {
    stat(id, [11, 12])
}

/// Processor time of all children that ended: `cutime` and `cstime`.
fn children_seconds() -> Result<f64> {
    stat("self", [13, 14])
}
