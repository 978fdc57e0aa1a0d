//! Work that no request waits for: it reads, decodes and prepares what is served next. Where there
//! are few processors, requests have them first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

/// With more processors than threads that work in the background, the kernel finds a free one for
/// those that answer.
const FEW_PROCESSORS: usize = 4;

/// Lets requests have the processor, between two steps of such work. The kernel would leave it to
/// the thread that works for milliseconds, in each of which a processor answers ten requests.
pub(crate) fn yield_to_requests() {
    thread::yield_now();
}

/// The threads that take requests in and give the short answers. A clone is the same.
///
/// While there is work in the background, each keeps to a processor of its own. The kernel counts
/// threads: with two processors it puts both of these on one and that work on the other, and for up
/// to 4 ms one of them waits with a request in hand, where there would be room after each step of that
/// work. That was the p99 of short answers while marts are replaced: 1.05 ms, and 0.83 ms so.
/// Only then, for beside long statements two threads that go where there is room answer more.
#[derive(Debug, Clone, Default)]
pub struct AsyncThreads(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    threads: Vec<Pid>,
    /// Those that keep to a processor.
    kept: Vec<Pid>,
    /// How much work there is in the background.
    works: usize,
}

/// Work in the background, until this is dropped.
#[derive(Debug)]
pub(crate) struct Working(AsyncThreads);

impl AsyncThreads {
    /// The calling thread is one of them.
    pub fn join(&self) {
        self.lock().threads.push(gettid());
    }

    /// It is about to end, and its number may become that of a stranger.
    pub fn leave(&self) {
        let (mut state, this) = (self.lock(), gettid());
        state.threads.retain(|thread| *thread != this);
        state.kept.retain(|thread| *thread != this);
    }

    /// The calling thread, which is none of them, begins to work.
    pub(crate) fn give_way(&self) -> Working {
        let mut state = self.lock();
        state.keep();
        state.works += 1;
        Working(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.works -= 1;
        if state.works == 0 {
            state.release();
        }
    }
}

/// What the kernel refuses here costs some answers a moment, and nothing else.
impl State {
    fn keep(&mut self) {
        // This thread may run wherever the process may.
        let Ok(all) = sched_getaffinity(None) else { return };
        let processors = members(&all);
        if processors.len() > FEW_PROCESSORS {
            return;
        }
        for (thread, processor) in self.threads.iter().zip(processors) {
            let is_free = sched_getaffinity(Some(*thread)).is_ok_and(|own| own == all);
            let mut one = CpuSet::new();
            one.set(processor);
            // One that somebody has placed stays there.
            if is_free && sched_setaffinity(Some(*thread), &one).is_ok() {
                self.kept.push(*thread);
            }
        }
    }

    fn release(&mut self) {
        let all = sched_getaffinity(None);
        for thread in self.kept.drain(..) {
            if let Ok(all) = &all {
                let _ = sched_setaffinity(Some(thread), all);
            }
        }
    }
}

/// The numbers of the processors in a set, the least first.
fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|one| set.is_set(*one)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};
    use std::thread::JoinHandle;

    use super::*;

    /// A thread that is there until this is dropped.
    struct Waiting {
        pid: Pid,
        end: Option<Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Waiting {
        /// One of these.
        fn start(threads: &AsyncThreads) -> Self {
            let (end, ends) = mpsc::channel::<()>();
            let (sender, pid) = mpsc::channel();
            let threads = threads.clone();
            let thread = thread::spawn(move || {
                threads.join();
                sender.send(gettid()).expect("somebody waits");
                let _ = ends.recv();
                threads.leave();
            });
            let pid = pid.recv().expect("it starts");
            Self { pid, end: Some(end), thread: Some(thread) }
        }

        fn processors(&self) -> Vec<usize> {
            members(&sched_getaffinity(Some(self.pid)).expect("the thread lives"))
        }

        fn place(&self, processors: &[usize]) {
            sched_setaffinity(Some(self.pid), &set(processors)).expect("processors of its own");
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            drop(self.end.take());
            let _ = self.thread.take().expect("dropped once").join();
        }
    }

    fn set(members: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        members.iter().for_each(|one| set.set(*one));
        set
    }

    /// Has the calling thread, and those that it starts, run on two processors; `None` when there are
    /// no two.
    fn on_two() -> Option<[usize; 2]> {
        let all = members(&sched_getaffinity(None).expect("known"));
        let [first, second, ..] = all[..] else { return None };
        sched_setaffinity(None, &set(&[first, second])).expect("two of its own");
        Some([first, second])
    }

    #[test]
    fn each_keeps_to_a_processor_while_there_is_work() {
        let Some([first, second]) = on_two() else { return };
        let threads = AsyncThreads::default();
        let (one, other) = (Waiting::start(&threads), Waiting::start(&threads));
        let late = Waiting::start(&threads);
        let places = || [one.processors(), other.processors(), late.processors()];
        let anywhere = vec![first, second];
        assert_eq!(places(), [(); 3].map(|()| anywhere.clone()));
        let work = threads.give_way();
        let kept = [vec![first], vec![second], anywhere.clone()];
        assert_eq!(places(), kept);
        let more = threads.give_way();
        drop(work);
        assert_eq!(places(), kept, "some work goes on");
        drop(more);
        assert_eq!(places(), [(); 3].map(|()| anywhere.clone()));
    }

    #[test]
    fn a_thread_that_somebody_has_placed_stays_there() {
        let Some([first, second]) = on_two() else { return };
        let threads = AsyncThreads::default();
        let (placed, other) = (Waiting::start(&threads), Waiting::start(&threads));
        placed.place(&[second]);
        let work = threads.give_way();
        assert_eq!([placed.processors(), other.processors()], [[second], [second]]);
        drop(work);
        assert_eq!([placed.processors(), other.processors()], [vec![second], vec![first, second]]);
    }

    #[test]
    fn a_thread_that_has_ended_is_forgotten() {
        let Some([_, second]) = on_two() else { return };
        let threads = AsyncThreads::default();
        let (ended, other) = (Waiting::start(&threads), Waiting::start(&threads));
        let work = threads.give_way();
        drop(ended);
        assert_eq!(threads.lock().threads, [other.pid]);
        assert_eq!(threads.lock().kept, [other.pid]);
        assert_eq!(other.processors(), [second]);
        drop((work, other));
        assert_eq!(threads.lock().threads, []);
        assert_eq!(threads.lock().kept, []);
    }
}
