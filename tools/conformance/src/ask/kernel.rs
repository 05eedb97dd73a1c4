//! The machine that is asked: Debian's kernel in qemu, made by `oracle/build.sh`.

use crate::golden::Golden;
use crate::tally::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The scripts, which become files beside the cases.
const SCRIPTS: [(&str, &str); 2] = [
    ("ask.py", include_str!("../../oracle/ask.py")),
    ("stage.py", include_str!("../../oracle/stage.py")),
];
const BUILD: &str = include_str!("../../oracle/build.sh");
/// Seconds that a boot with all its cases may take before it is given up.
const PATIENCE_S: &str = "1200";
/// No idle loops, no noise: boots in seconds.
const KERNEL_LINE: &str = "console=ttyS0 quiet rdinit=/init mitigations=off tsc=reliable nokaslr \
    audit=0 apparmor=0 selinux=0 random.trust_cpu=on panic=-1 oops=panic";

/// A machine that can be booted any number of times.
pub(super) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Makes the machine in `folder` if it is not there.
    pub(super) fn prepare(folder: &Path, told: &mut impl FnMut(&str)) -> Result<Self, Failure> {
        let machine = Self { folder: folder.to_owned() };
        let script = folder.join("build.sh");
        let is_current = fs::read_to_string(&script).is_ok_and(|text| text == BUILD);
        if is_current && folder.join("initramfs.cpio").exists() {
            return Ok(machine);
        }
        told("making the machine from Debian's kernel package ...");
        fs::create_dir_all(folder).map_err(|error| about(folder, &error))?;
        fs::write(&script, BUILD).map_err(|error| about(&script, &error))?;
        let status = Command::new("bash").arg(&script).arg(folder).status();
        match status {
            Ok(status) if status.success() => Ok(machine),
            Ok(status) => Err(Failure::new(format!("oracle/build.sh: {status}"))),
            Err(error) => Err(Failure::new(format!("bash: {error}"))),
        }
    }

    /// Plays all cases of all `batches`, a boot for each, as many at once as there are cores.
    pub(super) fn ask_all(&self, batches: &[&[Golden]]) -> Result<Vec<Vec<Golden>>, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut answers = Vec::new();
        for (group, at) in batches.chunks(cores).zip(0..) {
            let boots: Result<Vec<Boot>, Failure> = group
                .iter()
                .zip(0..)
                .map(|(cases, number)| self.boot(&format!("boot-{at}-{number}"), cases))
                .collect();
            for boot in boots? {
                answers.push(boot.answers()?);
            }
        }
        Ok(answers)
    }

    fn boot(&self, name: &str, cases: &[Golden]) -> Result<Boot, Failure> {
        let shared = self.folder.join(name);
        if shared.exists() {
            fs::remove_dir_all(&shared).map_err(|error| about(&shared, &error))?;
        }
        let folder = shared.join("cases");
        fs::create_dir_all(&folder).map_err(|error| about(&folder, &error))?;
        for (file, text) in SCRIPTS {
            fs::write(shared.join(file), text).map_err(|error| about(&shared, &error))?;
        }
        let mut names = Vec::new();
        for (case, number) in cases.iter().zip(0..) {
            let file = format!("{number:04}.json");
            let text = serde_json::to_vec(case).map_err(|error| about(&folder, &error))?;
            fs::write(folder.join(&file), text).map_err(|error| about(&folder, &error))?;
            names.push(file);
        }
        let share = format!("local,path={},mount_tag=host,security_model=none", shared.display());
        let child = Command::new("timeout")
            .args([PATIENCE_S, "qemu-system-x86_64", "-M", "q35", "-smp", "1", "-m", "768"])
            .args(["-accel", "tcg,thread=single", "-cpu", "max", "-icount", "shift=1,sleep=off"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", shared.join("console").display()))
            .arg("-kernel")
            .arg(self.folder.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.folder.join("initramfs.cpio"))
            .args(["-append", KERNEL_LINE, "-virtfs", &share])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| Failure::new(format!("qemu-system-x86_64: {error}")))?;
        Ok(Boot { shared, names, child })
    }
}

/// A running machine.
struct Boot {
    shared: PathBuf,
    names: Vec<String>,
    child: Child,
}

impl Boot {
    /// Waits for its end and reads what it wrote.
    fn answers(mut self) -> Result<Vec<Golden>, Failure> {
        self.child.wait().map_err(|error| about(&self.shared, &error))?;
        let read = |name: &String| {
            let path = self.shared.join("answers").join(name);
            let octets = fs::read(&path).map_err(|error| self.failure(&path, &error))?;
            let answer: Golden =
                serde_json::from_slice(&octets).map_err(|error| about(&path, &error))?;
            match answer.field::<String>("error") {
                Some(error) => Err(Failure::new(format!("{}: the kernel: {error}", answer.id))),
                None => Ok(answer),
            }
        };
        self.names.iter().map(read).collect()
    }

    fn failure(&self, path: &Path, error: &dyn core::fmt::Display) -> Failure {
        let log = fs::read_to_string(self.shared.join("log")).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(5).collect();
        let end: Vec<&str> = end.into_iter().rev().collect();
        Failure::new(format!("{}: {error}; its log ends: {}", path.display(), end.join(" / ")))
    }
}

fn about(path: &Path, error: &dyn core::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
