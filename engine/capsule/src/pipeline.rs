//! A worker as Capsule's [`Pipeline`]: a future that is never ready, and breathes when it is asked.

use crate::log;
use capsule::batch::Pipeline;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use rvs_dpdk::{DpdkQueue, Lcore};
use rvs_model::{TICKS_PER_SECOND, Tick};
use rvs_plane::{Setup, Worker};
use std::process;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Breaths before the executor may look at its other tasks. Asking it costs about a breath.
const BREATHS: usize = 32;
/// How the process ends when a worker panicked: as rvsd does.
const DIED: i32 = 3;

/// Workers that breathe no more. What waits for them can be counted when they are all there.
#[derive(Clone, Default)]
pub struct Done {
    workers: Arc<Mutex<Vec<Worker<DpdkQueue>>>>,
    /// Capsule is about to end: its threads wake up once more where it never ran.
    is_closed: Arc<AtomicBool>,
}

impl Done {
    /// No worker begins any more.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Counts what waits, and gives frames back.
    pub fn finish(&self) {
        if let Ok(mut workers) = self.workers.lock() {
            for worker in workers.drain(..) {
                drop(worker.finish());
            }
        }
    }
}

/// A worker at work, on the thread of its core.
pub struct Breathing {
    /// `None` when it is done.
    worker: Option<Worker<DpdkQueue>>,
    /// Without it each frame that is freed takes the way of all threads.
    _lcore: Option<Lcore>,
    start: Instant,
    done: Done,
}

impl Breathing {
    /// On the thread that will breathe.
    pub fn new(setup: Setup<DpdkQueue>, start: Instant, done: Done) -> Self {
        if done.is_closed.load(Ordering::Acquire) {
            return Self { worker: None, _lcore: None, start, done };
        }
        let id = setup.id;
        let lcore = Lcore::register().map_err(|error| log(format_args!("rvs-capsule: {error}")));
        let worker = Worker::new(setup)
            .map_err(|error| log(format_args!("rvs-capsule: worker {id}: {error}")));
        if worker.is_err() || lcore.is_err() {
            process::exit(1);
        }
        Self { worker: worker.ok(), _lcore: lcore.ok(), start, done }
    }
}

impl Pipeline for Breathing {
    fn name(&self) -> &'static str {
        "rvs"
    }

    #[inline]
    fn run_once(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let ticks = self.start.elapsed().as_millis() * u128::from(TICKS_PER_SECOND) / 1000;
        worker.breathe(Tick::try_from(ticks & u128::from(Tick::MAX)).unwrap_or_default());
    }
}

impl Future for Breathing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let breathing = self.get_mut();
        for _ in 0..BREATHS {
            breathing.run_once();
        }
        // Again, after everything else that is due on this core.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Breathing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The others hold no connection of its clients: rather nobody forwards than half.
            log("rvs-capsule: a worker died: see above; nothing is forwarded any more");
            process::exit(DIED);
        }
        if let (Some(worker), Ok(mut done)) = (self.worker.take(), self.done.workers.lock()) {
            done.push(worker);
        }
    }
}
