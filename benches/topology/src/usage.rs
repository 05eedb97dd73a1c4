//! Processor time of everything in a run, told from the rest of the machine by control groups.
//!
//! Work of the kernel's network stack is done in the context of whoever sends, so what passes a
//! kernel's director is in the clients' and servers' time: only the sum of all compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where control groups of either version count processor time, and the file that does.
const HOMES: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "cpu.stat"), ("/sys/fs/cgroup/cpuacct", "cpuacct.usage")];

/// A control group of our own.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    file: &'static str,
}

impl Group {
    /// Makes one.
    pub fn new(name: &str) -> Result<Self> {
        for (home, file) in HOMES {
            let folder = Path::new(home).join(format!("rvs-{name}-{}", std::process::id()));
            if fs::create_dir(&folder).is_ok() {
                if folder.join(file).exists() {
                    return Ok(Self { folder, file });
                }
                let _ = fs::remove_dir(&folder);
            }
        }
        bail!("no control group that counts processor time can be made here")
    }

    /// Puts a process in, and with it all that it will start.
    pub fn take(&self, process: u32) -> Result<()> {
        let file = self.folder.join("cgroup.procs");
        fs::write(&file, process.to_string()).with_context(|| file.display().to_string())
    }

    /// Processor time so far.
    pub fn used(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.folder.join(self.file))?;
        Ok(match text.lines().find_map(|line| line.strip_prefix("usage_usec ")) {
            Some(us) => Duration::from_micros(us.trim().parse()?),
            None => Duration::from_nanos(text.trim().parse()?),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever is in it goes back to where it came from.
        if let (Some(home), Ok(inside)) =
            (self.folder.parent(), fs::read_to_string(self.folder.join("cgroup.procs")))
        {
            for process in inside.lines() {
                let _ = fs::write(home.join("cgroup.procs"), process);
            }
        }
        let _ = fs::remove_dir(&self.folder);
    }
}
