//! The beginning: DPDK's environment, and threads as its lcores.

use crate::device::pool_octets;
use crate::host::{Host, pci_address};
use crate::{DpdkError, sys};
use core::cell::Cell;
use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;
use std::io::{self, Write as _};
use std::sync::Mutex;

/// DPDK's `RTE_LOG_WARNING`: it says less than its default, notices.
const LOG_WARNING: u32 = 5;
/// Octets that are kept of what DPDK logs while something fails.
const LOG_OCTETS: usize = 4096;
/// Memory of DPDK itself beside pools, and of a device's queues.
const EAL_MEGABYTES: u64 = 16;

/// With what DPDK is to be started.
#[derive(Clone, Debug, Default)]
pub struct EalPlan {
    /// Its own arguments, from the configuration.
    pub arguments: Vec<String>,
    /// Devices that it will be asked for, as they are configured.
    pub devices: Vec<String>,
    /// Whether to do without huge pages.
    pub no_huge: bool,
    /// The pools that devices will have.
    pub pools: Vec<Pools>,
}

/// Pools of one kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pools {
    /// Their NUMA node.
    pub node: u16,
    /// How many: one for each device.
    pub count: u16,
    /// Frames of each.
    pub frames: u32,
    /// Octets of the longest frame.
    pub frame_octets: usize,
}

/// Proof that DPDK runs in this process. It does so until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

static STARTED: AtomicBool = AtomicBool::new(false);
/// Whether it did start. Released after EAL's start, acquired by threads that register.
static RUNS: AtomicBool = AtomicBool::new(false);
/// DPDK has one log; whoever listens is alone.
static LISTENING: Mutex<()> = Mutex::new(());

impl Eal {
    /// Starts DPDK. The calling thread becomes its main lcore and keeps the cores that it may run on.
    ///
    /// # Errors
    ///
    /// The machine lacks huge pages, EAL refuses, or it was started before.
    pub fn start(plan: &EalPlan) -> Result<Self, DpdkError> {
        let host = Host::this();
        let needs = needs(&plan.pools, plan.no_huge);
        if !plan.no_huge
            && let Some(lack) = host.lacking_pages(&needs)
        {
            return Err(DpdkError::Host(lack));
        }
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err(DpdkError::Twice);
        }
        let arguments = arguments(plan, &host.allowed_cpus(), &needs);
        let mut words = Vec::new();
        for argument in &arguments {
            let word = CString::new(argument.as_str());
            words.push(word.map_err(|_| DpdkError::Argument(argument.clone()))?);
        }
        // DPDK keeps pointers into its arguments.
        let words: &'static [CString] = words.leak();
        let mut pointers: Vec<*mut c_char> =
            words.iter().map(|word| word.as_ptr().cast_mut()).collect();
        let count = i32::try_from(pointers.len()).unwrap_or(i32::MAX);
        pointers.push(core::ptr::null_mut());
        let pointers = pointers.leak().as_mut_ptr();
        let ((done, errno), said) = listen(|| {
            // JUSTIFICATION: no other way to quieten DPDK.
            // SAFETY: takes a number; sound at any time.
            unsafe { sys::rte_log_set_global_level(LOG_WARNING) };
            // JUSTIFICATION: DPDK is a C library.
            // SAFETY: `count` pointers to zero-terminated texts and a null behind them, all of which
            //   live as long as the process; called once (`STARTED`).
            let done = unsafe { sys::rte_eal_init(count, pointers) };
            (done, errno())
        });
        if done < 0 {
            return Err(DpdkError::Eal { what: host.explain_eal(errno), said: said.in_short() });
        }
        if plan.devices.iter().any(|device| pci_address(device).is_some()) {
            said.pass_on();
        }
        RUNS.store(true, Ordering::Release);
        Ok(Self(()))
    }
}

impl Eal {
    /// The same of an environment that somebody else has started.
    #[cfg(feature = "guest")]
    pub(crate) fn lent() -> Self {
        STARTED.store(true, Ordering::Relaxed);
        RUNS.store(true, Ordering::Release);
        Self(())
    }
}

/// Megabytes by node, with what DPDK itself takes.
fn needs(pools: &[Pools], no_huge: bool) -> Vec<(u16, u64)> {
    let mut nodes: Vec<(u16, u64)> = Vec::new();
    for pool in pools {
        let octets = u64::from(pool.count) * pool_octets(pool.frames, pool.frame_octets, no_huge);
        match nodes.iter_mut().find(|(known, _)| *known == pool.node) {
            Some((_, sum)) => *sum += octets,
            None => nodes.push((pool.node, octets)),
        }
    }
    // A tenth for what does not fit into what is left of a page.
    let megabytes = |octets: u64| (octets + octets / 10).div_ceil(1 << 20) + EAL_MEGABYTES;
    nodes.iter().map(|(node, octets)| (*node, megabytes(*octets).next_multiple_of(2))).collect()
}

fn arguments(plan: &EalPlan, cpus: &str, needs: &[(u16, u64)]) -> Vec<String> {
    // Nothing is left in files, and directors on one machine do not meet. DPDK takes the first of
    // these with huge pages only, the second without them.
    let private = if plan.no_huge { "--no-shconf" } else { "--in-memory" };
    let mut arguments: Vec<String> = ["rvsd", private].map(str::to_owned).into();
    // Workers pin themselves and register; the main lcore is this thread, wherever it may run.
    arguments.push(format!("--lcores=0@({cpus})"));
    let addresses: Vec<_> = plan.devices.iter().filter_map(|d| pci_address(d)).collect();
    if addresses.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    for device in plan.devices.iter().filter(|device| pci_address(device).is_some()) {
        arguments.extend(["-a".to_owned(), device.clone()]);
    }
    if plan.no_huge {
        let megabytes: u64 = needs.iter().map(|(_, megabytes)| megabytes).sum();
        arguments.push("--no-huge".to_owned());
        arguments.extend(["-m".to_owned(), (megabytes + EAL_MEGABYTES).to_string()]);
    }
    arguments.extend(plan.arguments.iter().cloned());
    arguments
}

/// What DPDK logged during an action.
pub(crate) struct Said(String);

impl Said {
    /// Its last lines as the end of an error's line.
    pub(crate) fn in_short(&self) -> String {
        last_words(&self.0)
    }

    /// All of it to standard error: a card's driver warns of what it does without (ice of its package)
    /// where all went well. Virtual devices only say what nobody needs.
    pub(crate) fn pass_on(&self) {
        for line in self.0.lines() {
            let _closed = io::stderr().write_all(format!("DPDK: {line}\n").as_bytes());
        }
    }
}

/// Runs `action` and returns what DPDK logged meanwhile.
pub(crate) fn listen<T>(action: impl FnOnce() -> T) -> (T, Said) {
    let _alone = LISTENING.lock();
    // JUSTIFICATION: DPDK's log is C's.
    // SAFETY: one capture at a time (`LISTENING`).
    let is_captured = unsafe { sys::rvs_log_capture() } == 0;
    let outcome = action();
    let mut text = vec![0; LOG_OCTETS];
    let mut octets = 0;
    if is_captured {
        let room = u32::try_from(text.len()).unwrap_or_default();
        // JUSTIFICATION: as above.
        // SAFETY: `room` octets at `text` are ours.
        octets = unsafe { sys::rvs_log_release(text.as_mut_ptr(), room) };
    }
    text.truncate(usize::try_from(octets).unwrap_or_default());
    (outcome, Said(String::from_utf8_lossy(&text).into_owned()))
}

/// The last lines of a log as the end of a sentence.
fn last_words(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!(" (DPDK says: {})", last.join("; ")) }
}

/// The thread's `rte_errno`.
pub(crate) fn errno() -> i32 {
    // JUSTIFICATION: it is a variable of C's, one for each thread.
    // SAFETY: reads it; sound at any time.
    unsafe { sys::rvs_errno() }
}

/// The words of a negative errno.
pub(crate) fn words(error: i32) -> String {
    io::Error::from_raw_os_error(error.saturating_abs()).to_string()
}

/// A text of C's that ends with a zero, or with its room.
pub(crate) fn text(octets: &[u8]) -> String {
    CStr::from_bytes_until_nul(octets)
        .map_or_else(|_| String::from_utf8_lossy(octets), CStr::to_string_lossy)
        .into_owned()
}

/// This thread as an lcore of DPDK: with a cache of its own in every pool. Dropped, it is none.
#[derive(Debug)]
pub struct Lcore {
    /// Registered is the thread, so this value stays there.
    _this_thread: PhantomData<(Cell<()>, *const ())>,
}

impl Lcore {
    /// Registers the calling thread, which is pinned where it will work.
    ///
    /// # Errors
    ///
    /// DPDK was not started, or has no number left: 128 are usual, the main thread has one, and each
    /// call takes another.
    pub fn register() -> Result<Self, DpdkError> {
        if !RUNS.load(Ordering::Acquire) {
            return Err(DpdkError::Lcore("DPDK was not started".to_owned()));
        }
        // JUSTIFICATION: without it every frame that is freed takes the way of all threads.
        // SAFETY: EAL runs (`RUNS`).
        let done = unsafe { sys::rte_thread_register() };
        if done < 0 {
            return Err(DpdkError::Lcore(match errno() {
                libc::ENOMEM => {
                    "DPDK has no number left for it, of 128 as a rule, one of which is the \
                                 main thread's"
                        .to_owned()
                }
                other => words(other),
            }));
        }
        Ok(Self { _this_thread: PhantomData })
    }
}

impl Drop for Lcore {
    fn drop(&mut self) {
        // JUSTIFICATION: the number is to be free again.
        // SAFETY: on the thread that was registered: the value cannot leave it.
        unsafe { sys::rte_thread_unregister() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_cards_are_touched() {
        let mut plan = EalPlan { devices: vec!["net_null0".to_owned()], ..EalPlan::default() };
        assert!(arguments(&plan, "0-3", &[]).contains(&"--no-pci".to_owned()));
        plan.devices.push("01:00.0,a=b".to_owned());
        let words = arguments(&plan, "0-3", &[]);
        assert_eq!(words[1..], ["--in-memory", "--lcores=0@(0-3)", "-a", "01:00.0,a=b"]);
    }

    #[test]
    fn without_huge_pages_the_memory_is_what_pools_need() {
        let plan = EalPlan { no_huge: true, ..EalPlan::default() };
        let pools = |node, count| Pools { node, count, frames: 4096, frame_octets: 1518 };
        let needs = |no_huge| needs(&[pools(0, 1), pools(0, 2), pools(1, 1)], no_huge);
        assert_eq!(needs(false), [(0, 56), (1, 30)]);
        // A frame has a page of its own then.
        let needs = needs(true);
        assert_eq!(needs, [(0, 80), (1, 38)]);
        let words = arguments(&plan, "0", &needs);
        assert_eq!(words[words.len() - 3..], ["--no-huge", "-m", "134"]);
    }

    #[test]
    fn the_end_of_a_log_is_one_line() {
        assert_eq!(last_words("\n"), "");
        assert_eq!(last_words("a\nb\n\nc\n d\n"), " (DPDK says: b; c; d)");
    }
}
