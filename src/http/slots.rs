//! How many queries run, wait, and have been asked to stop.
//!
//! A query holds its slot until DuckDB has really let go of it, not until the client was answered:
//! a statement that ignores interrupts must not be joined by another of its kind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

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
    running: Arc<Running>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Running {
    next: AtomicU64,
    stops: Mutex<HashMap<u64, Stop>>,
    stuck: AtomicUsize,
}

impl Slots {
    pub(super) fn new(total: usize, queue: usize, metrics: Metrics) -> Self {
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
            queue,
            waiting: AtomicUsize::new(0),
            running: Arc::default(),
            metrics,
        }
    }

    /// Waits for a slot for the query that `stop` stops.
    pub(super) async fn take(&self, stop: Stop) -> Result<Slot, Problem> {
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
        let number = self.running.next.fetch_add(1, Ordering::Relaxed);
        self.running.lock().insert(number, stop.clone());
        Ok(Slot { number, stop, running: Arc::clone(&self.running), _permit: permit })
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
        self.running.stuck.load(Ordering::Relaxed)
    }

    /// Whether every slot is held by a query that does not stop.
    pub(super) fn all_stuck(&self) -> bool {
        self.stuck() >= self.total
    }

    /// Asks every running query to stop.
    pub(super) fn interrupt_all(&self) {
        for stop in self.running.lock().values() {
            stop.ask();
        }
    }
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Stop>> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
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
    number: u64,
    stop: Stop,
    running: Arc<Running>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// The handle that asks this query to stop.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Interrupts `target` again and again once somebody asks, until the session has ended.
    /// Counts the query as stuck while it does not.
    pub(super) fn enforce(&self, target: Interrupter) {
        let mut asked = self.stop.0.subscribe();
        let running = Arc::clone(&self.running);
        tokio::runtime::Handle::current().spawn(async move {
            // An error says that the query has ended and nobody can ask any more.
            if asked.wait_for(|asked| *asked).await.is_err() {
                return;
            }
            let since = Instant::now();
            let mut stuck = None;
            while target.interrupt() {
                sleep(INTERRUPT_INTERVAL).await;
                if stuck.is_none() && since.elapsed() >= STUCK_AFTER {
                    stuck = Some(Stuck::count(&running));
                }
            }
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.running.lock().remove(&self.number);
    }
}

struct Stuck(Arc<Running>);

impl Stuck {
    fn count(running: &Arc<Running>) -> Self {
        running.stuck.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(running))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.stuck.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks one query to stop; a clone asks the same.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    pub(super) fn ask(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }
}

/// Stops a query when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct StopOnDrop(Stop);

impl StopOnDrop {
    pub(super) fn new(stop: Stop) -> Self {
        Self(stop)
    }

    pub(super) fn stop(&self) -> Stop {
        self.0.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.ask();
    }
}
