//! The threads that block: in DuckDB, or while a file is read.
//!
//! All are started before the first request, and stay. Once statements have taken what memory there
//! is, there is none for a thread's stack, and queries would wait for a thread that never comes.
//!
//! Work goes to the thread that was last idle, whose stack and memory are in a processor's cache
//! most likely. A pool that takes them in turn (as tokio's does) made an aggregate a tenth to a third
//! slower.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// A number of threads. They end when this is dropped, which waits for what they do.
#[derive(Debug)]
pub struct Threads {
    work: Queue,
    threads: Vec<JoinHandle<()>>,
}

/// Where threads take their work from. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Queue(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The last to become idle at the end.
    idle: Vec<Sender<Work>>,
    /// What no thread is idle for.
    waiting: VecDeque<Work>,
    ended: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (idle, waiting) = (self.idle.len(), self.waiting.len());
        f.debug_struct("State").field("idle", &idle).field("waiting", &waiting).finish()
    }
}

impl Threads {
    /// Starts so many threads, which may use this runtime.
    ///
    /// # Errors
    /// When the system has no more threads to give.
    pub fn start(count: usize, runtime: &Handle) -> io::Result<Self> {
        let mut all = Self { work: Queue::default(), threads: Vec::new() };
        for _ in 0..count {
            let (work, runtime) = (all.work.clone(), runtime.clone());
            let thread = thread::Builder::new().name("query".to_owned());
            let thread = thread.stack_size(super::STACK_BYTES).spawn(move || {
                let _runtime = runtime.enter();
                work.serve();
            })?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// Where they take their work from.
    pub fn queue(&self) -> Queue {
        self.work.clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.work.lock();
        state.ended = true;
        state.idle.clear();
        drop(state);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it panics for nothing that it runs
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do this, as soon as there is one.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        match state.idle.pop() {
            Some(idle) => drop(idle.send(Box::new(work))), // an idle thread waits for it
            None => state.waiting.push_back(Box::new(work)),
        }
    }

    /// The result of such work; `None` when it panicked, or there are no threads any more.
    pub(super) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, result) = oneshot::channel();
        self.run(move || drop(sender.send(work()))); // nobody may wait any more
        result.await.ok()
    }

    /// The life of a thread.
    fn serve(&self) {
        loop {
            let (sender, receiver) = mpsc::channel();
            let mut state = self.lock();
            let next = state.waiting.pop_front();
            if next.is_none() && state.ended {
                return;
            }
            if next.is_none() {
                state.idle.push(sender);
            }
            drop(state);
            let Some(work) = next.or_else(|| receiver.recv().ok()) else { return };
            drop(catch_unwind(AssertUnwindSafe(work))); // who waits for it finds it gone
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_last_idle_thread_has_the_next_work() {
        let threads = Threads::start(3, &Handle::current()).expect("threads");
        let queue = threads.queue();
        let at_work = || async { queue.ask(|| thread::current().id()).await.expect("a thread") };
        wait_idle(&queue, 3).await;
        // Once two were at work at the same time, the one that ends last is the last idle.
        let (release, wait) = mpsc::channel::<()>();
        let (begun, begins) = oneshot::channel();
        let slow = tokio::spawn({
            let queue = queue.clone();
            async move {
                let work = move || {
                    begun.send(()).expect("somebody waits");
                    wait.recv().expect("released");
                    thread::current().id()
                };
                queue.ask(work).await.expect("a thread")
            }
        });
        begins.await.expect("it begins");
        let other = at_work().await;
        wait_idle(&queue, 2).await; // it answers before it is idle
        release.send(()).expect("it waits");
        let slow = slow.await.expect("its thread");
        assert_ne!(slow, other);
        wait_idle(&queue, 3).await;
        for _ in 0..20 {
            assert_eq!(at_work().await, slow);
            wait_idle(&queue, 3).await;
        }
    }

    async fn wait_idle(queue: &Queue, count: usize) {
        while queue.lock().idle.len() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_there_is_no_thread_for_waits_and_a_panic_ends_no_thread() {
        let threads = Threads::start(2, &Handle::current()).expect("threads");
        let queue = threads.queue();
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..50 {
            let done = Arc::clone(&done);
            queue.run(move || {
                done.fetch_add(1, Ordering::Relaxed);
                assert!(number % 10 != 0, "as this test wants it");
            });
        }
        let asked = async {
            assert_eq!(queue.ask(|| panic!("as this test wants it")).await, None::<()>);
            assert_eq!(queue.ask(|| 7).await, Some(7));
        };
        timeout(Duration::from_secs(30), asked).await.expect("threads are left");
        drop(threads); // waits for all
        assert_eq!(done.load(Ordering::Relaxed), 50);
    }
}
