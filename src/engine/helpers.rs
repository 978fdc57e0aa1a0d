//! Threads that help statements, as long as processors are idle.
//!
//! DuckDB splits a statement into tasks. Its own background threads take them whether or not other
//! statements need the processor, and the statement's thread spins while they work on the last one: with
//! as many statements as processors, half of all time went into that. So instances have no threads
//! of their own ([`Database::help`]); the thread of each statement runs its tasks, and these
//! threads join only those that take a while, and only as many as there are processors without a
//! statement.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::duck::Database;

/// A statement that takes less than this is not worth another thread.
const PATIENCE: Duration = Duration::from_micros(300);
/// How often the thread on watch looks for tasks while statements run.
const INTERVAL: Duration = Duration::from_micros(200);
/// How seldom it looks when it has found none again and again: a statement may wait for its client.
const LONGEST_INTERVAL: Duration = Duration::from_millis(50);
/// The watch ends when nothing has run for so many intervals; until then a new statement wakes nobody.
const IDLE_INTERVALS: u32 = 50;
/// As DuckDB gives its own threads.
pub(crate) const STACK_BYTES: usize = 8 << 20;

/// The threads of a process. They end when this is dropped.
pub(super) struct Helpers(Arc<Shared>);

struct Shared {
    /// Processors that statements and helpers may take together.
    processors: usize,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    /// The statements that run, the oldest first.
    running: Vec<Running>,
    next: u64,
    /// Helpers at work.
    helping: usize,
    /// Whether a helper looks for work from time to time; the others sleep.
    watched: bool,
    ended: bool,
}

struct Running {
    number: u64,
    since: Instant,
    database: Arc<Database>,
}

/// Says that a statement runs, until it is dropped.
pub(super) struct Guard<'h> {
    shared: &'h Shared,
    number: u64,
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers").field("processors", &self.0.processors).finish_non_exhaustive()
    }
}

impl Helpers {
    /// Starts a thread for each of these processors but one: a statement brings its own. A thread
    /// that cannot be started is done without.
    pub(super) fn start(processors: usize) -> Self {
        let shared =
            Arc::new(Shared { processors, state: Mutex::default(), woken: Condvar::new() });
        for _ in 1..processors {
            let shared = Arc::clone(&shared);
            let helper = thread::Builder::new().name("help".to_owned()).stack_size(STACK_BYTES);
            if helper.spawn(move || shared.help()).is_err() {
                break;
            }
        }
        Self(shared)
    }

    /// A statement on this database begins.
    pub(super) fn begin(&self, database: &Arc<Database>) -> Guard<'_> {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        let database = Arc::clone(database);
        state.running.push(Running { number, since: Instant::now(), database });
        if !state.watched {
            self.0.woken.notify_one();
        }
        Guard { shared: &self.0, number }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.woken.notify_all();
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let ended = {
            let mut state = self.shared.lock();
            let place = state.running.iter().position(|running| running.number == self.number);
            place.map(|place| state.running.remove(place))
        };
        drop(ended); // closes the database, if this was its last user: not under the lock
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a helper: asleep, or the one on watch, or at work.
    fn help(&self) {
        let mut state = self.lock();
        let (mut idle, mut interval, mut newest) = (0, INTERVAL, state.next);
        while !state.ended {
            if state.next != newest {
                (newest, interval) = (state.next, INTERVAL);
            }
            if state.watched || idle > IDLE_INTERVALS {
                idle = 0;
                state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let mut found = false;
            let databases = self.in_need(&state);
            if !databases.is_empty() {
                state.helping += 1;
                self.woken.notify_one(); // someone else keeps watch meanwhile
                drop(state);
                found = databases.iter().any(|database| database.help());
                interval = if found { INTERVAL } else { (2 * interval).min(LONGEST_INTERVAL) };
                drop(databases);
                state = self.lock();
                state.helping -= 1;
            }
            if !found && !state.watched {
                idle = if state.running.is_empty() { idle + 1 } else { 0 };
                state.watched = true;
                let woken = self.woken.wait_timeout(state, interval);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                state.watched = false;
            }
        }
    }

    /// The databases of statements that take a while, if there is a processor to spare.
    fn in_need(&self, state: &State) -> Vec<Arc<Database>> {
        let mut databases: Vec<Arc<Database>> = Vec::new();
        if state.running.len() + state.helping >= self.processors {
            return databases;
        }
        for running in state.running.iter().filter(|one| one.since.elapsed() >= PATIENCE) {
            if !databases.iter().any(|known| Arc::ptr_eq(known, &running.database)) {
                databases.push(Arc::clone(&running.database));
            }
        }
        databases
    }
}
