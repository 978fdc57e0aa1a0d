//! How many queries run, wait, and have been asked to stop.
//!
//! A query holds its slot until DuckDB has really let go of it, not until the client was answered:
//! a statement that ignores interrupts must not be joined by another of its kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::problem::{self, Problem};
use crate::engine::Interrupter;
use crate::metrics::{Metrics, Shed};

/// How long a query may wait for its turn.
const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// Between two interrupts: one that comes between two steps of a statement is lost.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(20);
/// A query that is alive this long after it was asked to stop counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The slots of all queries.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    total: usize,
    queue: usize,
    waiting: AtomicUsize,
    /// Cancels every running query. Theirs are its children.
    all: CancellationToken,
    stuck: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Slots {
    pub(super) fn new(total: usize, queue: usize, metrics: Metrics) -> Self {
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            queue,
            waiting: AtomicUsize::new(0),
            all: CancellationToken::new(),
            stuck: Arc::default(),
            metrics,
        }
    }

    /// Waits for a slot.
    pub(super) async fn take(&self) -> Result<Slot, Problem> {
        let overloaded = |reason| {
            self.metrics.shed(reason);
            let detail = format!("all {} query slots are busy; try again", self.total);
            Problem::new(problem::OVERLOADED, detail).retry_after(1)
        };
        let came = Instant::now();
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let place = Place::take(&self.waiting, self.queue);
                let _place = place.ok_or_else(|| overloaded(Shed::QueueFull))?;
                timeout(QUEUE_WAIT, Arc::clone(&self.free).acquire_owned())
                    .await
                    .map_err(|_| overloaded(Shed::QueueWait))?
                    .expect("the semaphore is never closed")
            }
        };
        self.metrics.waited(came.elapsed());
        Ok(Slot { stuck: Arc::clone(&self.stuck), _permit: permit })
    }

    /// How many queries there may be at once.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// How many hold a slot.
    pub(super) fn in_flight(&self) -> usize {
        self.total - self.free.available_permits()
    }

    /// How many wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many do not stop although they were asked to.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Whether every slot is held by a query that does not stop.
    pub(super) fn all_stuck(&self) -> bool {
        self.stuck() >= self.total
    }

    /// The token of a new query.
    pub(super) fn token(&self) -> CancellationToken {
        self.all.child_token()
    }

    /// Cancels every query, and those that come after it.
    pub(super) fn cancel_all(&self) {
        self.all.cancel();
    }
}

/// A place in the queue.
struct Place<'s>(&'s AtomicUsize);

impl<'s> Place<'s> {
    fn take(waiting: &'s AtomicUsize, limit: usize) -> Option<Self> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < limit).then_some(count + 1)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to run one query. Held by the thread that runs it; dropping it ends the query.
#[derive(Debug)]
pub(super) struct Slot {
    stuck: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Interrupts `target` again and again once the query is cancelled, until the session has ended.
    /// Counts the query as stuck while it does not.
    pub(super) fn enforce(&self, cancel: CancellationToken, target: Interrupter) {
        let stuck = Arc::clone(&self.stuck);
        tokio::runtime::Handle::current().spawn(async move {
            cancel.cancelled().await;
            let since = Instant::now();
            let mut counted = None;
            while target.interrupt() {
                sleep(INTERRUPT_INTERVAL).await;
                if counted.is_none() && since.elapsed() >= STUCK_AFTER {
                    counted = Some(Stuck::count(&stuck));
                }
            }
        });
    }
}

struct Stuck(Arc<AtomicUsize>);

impl Stuck {
    fn count(stuck: &Arc<AtomicUsize>) -> Self {
        stuck.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(stuck))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
