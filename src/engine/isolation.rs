//! Where suspects run: statements that ran when an engine ended, and nobody knows which of them ended it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::process::Process;

/// Suspects that run at once, each in an engine of its own.
const ISOLATED_ENGINES: usize = 3;

/// Engines in which suspects run, each alone. There are a few, for a slow suspect must not have the others
/// wait for as long as it may take.
#[derive(Debug)]
pub(super) struct Isolation {
    turns: Semaphore,
    idle: Mutex<Vec<Arc<Process>>>,
    /// Suspects that run or wait for their turn.
    suspects: AtomicUsize,
}

impl Isolation {
    pub(super) fn new() -> Self {
        Self {
            turns: Semaphore::new(ISOLATED_ENGINES),
            idle: Mutex::default(),
            suspects: AtomicUsize::new(0),
        }
    }

    /// Counts a suspect until what is returned is dropped. The last one ends the engines.
    pub(super) fn begin(&self) -> Suspect<'_> {
        self.suspects.fetch_add(1, Ordering::AcqRel);
        Suspect(self)
    }

    /// The right to run one suspect.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("never closed")
    }

    /// An engine that another suspect has left.
    pub(super) fn idle(&self) -> Option<Arc<Process>> {
        let mut idle = self.idle.lock();
        idle.retain(|process| !process.has_ended());
        idle.pop()
    }

    /// Leaves an engine to the next suspect.
    pub(super) fn give_back(&self, process: Arc<Process>) {
        self.idle.lock().push(process);
    }
}

/// A suspect that waits for its turn, or has it.
pub(super) struct Suspect<'i>(&'i Isolation);

impl Suspect<'_> {
    /// Whether there are others.
    pub(super) fn others_wait(&self) -> bool {
        self.0.suspects.load(Ordering::Acquire) > 1
    }
}

impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        if self.0.suspects.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.lock().drain(..).for_each(|process| process.kill());
        }
    }
}
