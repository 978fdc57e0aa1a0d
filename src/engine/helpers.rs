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
    /// Helpers that sleep.
    woken: Condvar,
    /// The one on watch.
    hurried: Condvar,
}

struct State {
    /// The statements that run, the oldest first.
    running: Vec<Running>,
    next: u64,
    /// Helpers at work.
    helping: usize,
    /// The databases (their addresses) that helpers run a task of at this moment, or look for one, and
    /// since when.
    visited: Vec<(usize, Instant)>,
    /// Whether a helper looks for work from time to time; the others sleep.
    watched: bool,
    /// How often it does.
    interval: Duration,
    ended: bool,
}

struct Running {
    number: u64,
    since: Instant,
    database: Arc<Database>,
    /// Its database plans for one thread: nobody can help.
    alone: bool,
    help: Help,
}

/// What helpers have done for a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// They worked for so long.
    For(Duration),
    /// They worked on one of several statements of the database.
    OfSomeone,
}

impl Help {
    fn add(&mut self, time: Duration) {
        if let Self::For(sum) = self {
            *sum += time;
        }
    }
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
        let state = Mutex::new(State {
            running: Vec::new(),
            next: 0,
            helping: 0,
            visited: Vec::new(),
            watched: false,
            interval: INTERVAL,
            ended: false,
        });
        let shared =
            Arc::new(Shared { processors, state, woken: Condvar::new(), hurried: Condvar::new() });
        for _ in 1..processors {
            let shared = Arc::clone(&shared);
            let helper = thread::Builder::new().name("help".to_owned()).stack_size(STACK_BYTES);
            if helper.spawn(move || shared.help()).is_err() {
                break;
            }
        }
        Self(shared)
    }

    /// A statement on this database begins, which nobody can help when it is `alone`.
    pub(super) fn begin(&self, database: &Arc<Database>, alone: bool) -> Guard<'_> {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        let database = Arc::clone(database);
        let help = Help::For(Duration::ZERO);
        let running = Running { number, since: Instant::now(), database, alone, help };
        state.running.push(running);
        if !alone && !state.watched {
            self.0.woken.notify_one();
        } else if !alone && state.interval > INTERVAL {
            state.interval = INTERVAL;
            self.0.hurried.notify_one();
        }
        Guard { shared: &self.0, number }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.woken.notify_all();
        self.0.hurried.notify_all();
    }
}

impl Guard<'_> {
    /// The statement has ended, with this help.
    pub(super) fn end(self) -> Help {
        self.take_out().map_or(Help::OfSomeone, |running| running.help)
    }

    fn take_out(&self) -> Option<Running> {
        let mut state = self.shared.lock();
        let place = state.running.iter().position(|running| running.number == self.number)?;
        // Who visits the database at this moment was of help until now.
        let own = address(&state.running[place].database);
        let visits: Vec<Instant> = state
            .visited
            .iter()
            .filter(|(visited, _)| *visited == own)
            .map(|visit| visit.1)
            .collect();
        visits.iter().for_each(|since| state.add_help(own, since.elapsed()));
        Some(state.running.remove(place))
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Closes the database, if this was its last user: not under the lock.
        drop(self.take_out());
    }
}

impl State {
    /// A helper has left these databases, and has run a task of one or none of them.
    fn leave(&mut self, places: &[usize], helped: Option<(usize, Duration)>) {
        for place in places {
            let visit = self.visited.iter().position(|(visited, _)| visited == place);
            self.visited.swap_remove(visit.expect("it was entered"));
        }
        if let Some((database, time)) = helped {
            self.add_help(database, time);
        }
    }

    /// A helper has worked for so long on what runs on this database.
    fn add_help(&mut self, database: usize, time: Duration) {
        let on_it = |running: &&mut Running| address(&running.database) == database;
        let several = self.running.iter_mut().filter(on_it).count() > 1;
        for running in self.running.iter_mut().filter(on_it) {
            if several {
                running.help = Help::OfSomeone;
            } else {
                running.help.add(time);
            }
        }
    }
}

fn address(database: &Arc<Database>) -> usize {
    Arc::as_ptr(database).addr()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a helper: asleep, or the one on watch, or at work.
    fn help(&self) {
        let mut state = self.lock();
        let mut idle = 0;
        while !state.ended {
            if state.watched || idle > IDLE_INTERVALS {
                idle = 0;
                state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let mut found = false;
            let databases = self.in_need(&state);
            if !databases.is_empty() {
                let places: Vec<usize> = databases.iter().map(address).collect();
                state.helping += 1;
                let since = Instant::now();
                state.visited.extend(places.iter().map(|place| (*place, since)));
                self.woken.notify_one(); // someone else keeps watch meanwhile
                drop(state);
                let helped = databases.iter().position(|database| database.help());
                let worked = since.elapsed();
                found = helped.is_some();
                drop(databases);
                state = self.lock();
                let longer = (2 * state.interval).min(LONGEST_INTERVAL);
                state.interval = if found { INTERVAL } else { longer };
                state.helping -= 1;
                state.leave(&places, helped.map(|index| (places[index], worked)));
            }
            if !found && !state.watched {
                idle = if state.running.is_empty() { idle + 1 } else { 0 };
                state.watched = true;
                let interval = state.interval;
                let woken = self.hurried.wait_timeout(state, interval);
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
        databases.retain(|database| {
            !state.running.iter().any(|one| one.alone && Arc::ptr_eq(&one.database, database))
        });
        databases
    }
}
