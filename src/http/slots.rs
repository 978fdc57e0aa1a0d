//! How many queries run and wait, and that no client has all the slots while others wait.
//!
//! A query holds its slot until the engine has really let go of it, not until the client was answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant as Clock;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::problem::{self, Problem};
use crate::engine::Principal;
use crate::metrics::{Metrics, Shed};

/// The slots of all queries.
#[derive(Debug)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// One beside these, for a client that has no other.
    reserved: Arc<Semaphore>,
    /// How many there are without the reserved one.
    shared: usize,
    queue: usize,
    waiting: AtomicUsize,
    held: Arc<SlotCounts>,
    /// Cancels every running query. Theirs are its children.
    all: CancellationToken,
    metrics: Metrics,
}

/// How many slots each principal holds or waits for, if any.
type SlotCounts = Mutex<HashMap<Principal, usize>>;

impl Slots {
    /// As many slots as this, and the reserved one.
    pub(super) fn new(shared: usize, queue: usize, metrics: Metrics) -> Self {
        Self {
            free: Arc::new(Semaphore::new(shared)),
            reserved: Arc::new(Semaphore::new(1)),
            shared,
            queue,
            waiting: AtomicUsize::new(0),
            held: Arc::default(),
            all: CancellationToken::new(),
            metrics,
        }
    }

    /// Waits for a slot, for as long as the query may take.
    pub(super) async fn take(
        &self,
        principal: Principal,
        deadline: Instant,
    ) -> Result<Slot, Problem> {
        let came = Clock::now();
        let share = Share::of(principal, &self.held);
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait(share.is_first, deadline).await?,
        };
        self.metrics.wait_seconds.observe(came.elapsed().as_secs_f64());
        Ok(Slot { _permit: permit, _share: share })
    }

    async fn wait(
        &self,
        holds_none: bool,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        if holds_none && let Ok(permit) = Arc::clone(&self.reserved).try_acquire_owned() {
            return Ok(permit);
        }
        // Who has nothing yet may always wait: another's queries must not take all of the queue.
        let limit = if holds_none { usize::MAX } else { self.queue };
        let permit = QueuePermit::take(&self.waiting, limit);
        let _permit = permit.ok_or_else(|| self.overloaded(Shed::QueueFull))?;
        let free = Arc::clone(&self.free).acquire_owned();
        let taken = async {
            if !holds_none {
                return free.await;
            }
            tokio::select! {
                permit = free => permit,
                permit = Arc::clone(&self.reserved).acquire_owned() => permit,
            }
        };
        let taken = timeout_at(deadline, taken).await;
        Ok(taken.map_err(|_| self.overloaded(Shed::QueueWait))?.expect("never closed"))
    }

    fn overloaded(&self, reason: Shed) -> Problem {
        self.metrics.shed(reason);
        Problem::new(problem::OVERLOADED, "all query slots are busy; try again").retry_after(1)
    }

    /// How many queries there may be at once, without the one that has the reserved slot.
    pub(super) fn shared(&self) -> usize {
        self.shared
    }

    /// How many hold a slot, the reserved one too.
    pub(super) fn in_flight(&self) -> usize {
        self.shared + 1 - self.free.available_permits() - self.reserved.available_permits()
    }

    /// How many wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
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

/// A permit of the queue.
struct QueuePermit<'s>(&'s AtomicUsize);

impl<'s> QueuePermit<'s> {
    fn take(waiting: &'s AtomicUsize, limit: usize) -> Option<Self> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < limit).then_some(count + 1)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for QueuePermit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a principal has of the slots, or waits for.
#[derive(Debug)]
struct Share {
    principal: Principal,
    held: Arc<SlotCounts>,
    /// Whether the principal had nothing else.
    is_first: bool,
}

impl Share {
    fn of(principal: Principal, held: &Arc<SlotCounts>) -> Self {
        let mut shares = held.lock();
        let count = shares.entry(principal).or_default();
        *count += 1;
        Self { principal, is_first: *count == 1, held: Arc::clone(held) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.held.lock();
        if let Some(count) = shares.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&self.principal);
            }
        }
    }
}

/// The right to run one query; dropping it ends the query.
#[derive(Debug)]
pub(super) struct Slot {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::marts::build::TableBudget;
    use crate::pin::Budget;

    fn metrics() -> Metrics {
        Metrics::new(Budget::new(1), TableBudget::new(1, None), Vec::new())
    }

    fn principal(name: &str) -> Principal {
        Principal(blake3::hash(name.as_bytes()))
    }

    #[tokio::test]
    async fn a_client_without_slots_gets_one_of_a_greedy_one() {
        let slots = Slots::new(2, 4, metrics());
        let soon = || Instant::now() + Duration::from_millis(20);
        let (greedy, other) = (principal("greedy"), principal("other"));
        let first = slots.take(greedy, soon()).await.expect("a slot");
        let _second = slots.take(greedy, soon()).await.expect("a slot");
        assert!(slots.take(greedy, soon()).await.is_err(), "it has all that there are");
        let theirs = slots.take(other, soon()).await.expect("the one that is reserved");
        assert_eq!((slots.in_flight(), slots.waiting()), (3, 0));
        assert!(slots.take(other, soon()).await.is_err(), "there is one of these");
        drop((first, theirs));
        assert_eq!(slots.in_flight(), 1);
        let _again = slots.take(other, soon()).await.expect("a slot");
    }

    #[tokio::test]
    async fn one_that_fills_the_queue_keeps_no_other_out() {
        let slots = Slots::new(1, 0, metrics());
        let far = || Instant::now() + Duration::from_secs(60);
        let _one = slots.take(principal("greedy"), far()).await.expect("a slot");
        assert!(slots.take(principal("greedy"), far()).await.is_err(), "there is no queue");
        let theirs = slots.take(principal("other"), far()).await.expect("the one that is reserved");
        let third = slots.take(principal("third"), far());
        tokio::pin!(third);
        tokio::select! {
            biased;
            _ = &mut third => panic!("there is no slot"),
            () = tokio::task::yield_now() => {}
        }
        drop(theirs);
        assert!(third.await.is_ok(), "who has nothing may wait");
    }

    #[tokio::test]
    async fn the_queue_has_an_end() {
        let slots = Slots::new(1, 1, metrics());
        let far = Instant::now() + Duration::from_secs(60);
        let _one = slots.take(principal("a"), far).await.expect("a slot");
        let waiting = slots.take(principal("a"), far);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no slot"),
            () = tokio::task::yield_now() => {}
        }
        let full = slots.take(principal("a"), far).await;
        assert!(full.is_err_and(|problem| problem.slug() == "overloaded"));
    }
}
