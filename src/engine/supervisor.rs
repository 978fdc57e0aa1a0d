//! Which engine is asked: started, replaced when it hangs, fails or ends, and given what it is to serve.
//!
//! One thread does all of that, and lives as long as the front. An engine is replaced, not repaired: a
//! new one takes all new requests, the old one ends when nobody waits for its requests any more. There
//! is at most one old one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::isolation::Isolation;
use super::lease::{Lease, Table};
use super::process::Process;
use super::protocol::{ProcessSettings, StartError};
use super::quarantine::Quarantine;
use crate::spawner::Spawner;

/// An engine that has not published a snapshot in this time is replaced.
const PUBLISH_WITHIN: Duration = Duration::from_secs(60);
/// Pauses between attempts to start an engine: the first, which doubles each time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Slots beside [`EngineSettings::queries`]: the one for a client that has no other, two for statements
/// that are validated or described, and one for what the front asks of its own accord. None of these may
/// wait for queries.
pub(super) const OTHER_SLOTS: usize = 4;

/// Why an engine was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StartReason {
    /// It is the first.
    First,
    /// The one before it ended by itself, or somebody ended it.
    Exited,
    /// A statement of the one before it did not stop when it was told to.
    Wedged,
    /// DuckDB failed in the one before it.
    Failed,
    /// To run statements alone that ran when the one before it ended.
    Suspects,
}

impl StartReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::First, Self::Exited, Self::Wedged, Self::Failed, Self::Suspects];

    /// As metrics and the log have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Exited => "exited",
            Self::Wedged => "wedged",
            Self::Failed => "failed",
            Self::Suspects => "suspects",
        }
    }
}

/// What the front's engine is made from.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The program that has the subcommand: martd itself.
    pub program: PathBuf,
    /// Queries that run at once, beside one of a client that has no other.
    pub queries: usize,
    /// What each process is told.
    pub process: ProcessSettings,
}

/// The engine of a front: a process at a time, which may be replaced. A clone is the same.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) shared: Arc<EngineShared>,
    _thread: Arc<Supervised>,
}

/// Ends the supervisor, and with it all engines.
#[derive(Debug)]
struct Supervised {
    messages: Sender<SupervisorMessage>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.messages.send(SupervisorMessage::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What requests, leases and the supervisor share.
#[derive(Debug)]
pub(super) struct EngineShared {
    /// The engine that takes new requests.
    current: watch::Sender<Option<Arc<Process>>>,
    messages: Sender<SupervisorMessage>,
    leases: Mutex<BTreeMap<u64, Weak<Lease>>>,
    numbers: AtomicU64,
    pub(super) quarantine: Quarantine,
    pub(super) isolation: Isolation,
    settings: EngineSettings,
    spawner: Spawner,
    runtime: Handle,
    history: Mutex<StartHistory>,
}

#[derive(Debug, Default)]
struct StartHistory {
    starts: BTreeMap<StartReason, u64>,
    old: Weak<Process>,
    last: Option<Replacement>,
    /// Since when there is no engine.
    missing: Option<Instant>,
}

/// The last time that an engine was replaced.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: StartReason,
    /// In words, for the operator.
    pub detail: String,
}

/// What is known of the engine, for metrics and people.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// The process id of the one that takes requests.
    pub current: Option<u32>,
    /// That of the one that finishes what it has.
    pub ending: Option<u32>,
    /// How long the one that takes requests has been there.
    pub age: Option<Duration>,
    /// Engines started, by reason.
    pub starts: Vec<(StartReason, u64)>,
    /// The last replacement.
    pub last: Option<Replacement>,
    /// How long there has been no engine.
    pub missing: Option<Duration>,
    /// Statements that are quarantined.
    pub quarantined: usize,
}

enum SupervisorMessage {
    Ended(u32),
    Replace(Arc<Process>, StartReason, String),
    Publish(String, Vec<Table>, mpsc::Sender<Result<Arc<Lease>, String>>),
    Stop,
}

impl Engine {
    /// Starts the first engine.
    ///
    /// # Errors
    /// For the operator: why it does not start, for example because of a time zone that DuckDB does
    /// not know.
    pub fn start(
        settings: EngineSettings,
        spawner: Spawner,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let (messages, inbox) = mpsc::channel();
        let shared = Arc::new(EngineShared {
            current: watch::Sender::new(None),
            messages: messages.clone(),
            leases: Mutex::default(),
            numbers: AtomicU64::new(1),
            quarantine: Quarantine::default(),
            isolation: Isolation::new(),
            settings,
            spawner,
            runtime: runtime.clone(),
            history: Mutex::default(),
        });
        let (first, outcome) = mpsc::channel();
        let mut supervisor = Supervisor {
            shared: Arc::clone(&shared),
            old: None,
            next_start: Some((StartReason::First, Instant::now())),
            pause: FIRST_PAUSE,
        };
        let thread = thread::Builder::new().name("engines".to_owned());
        let thread = thread.spawn(move || {
            let started = supervisor.start();
            let failed = started.is_err();
            let _ = first.send(started); // it is waited for below
            if !failed {
                supervisor.run(&inbox);
            }
            supervisor.end();
        });
        let thread = thread
            .map_err(|error| StartError::Other(format!("a thread cannot be had: {error}")))?;
        let supervised = Supervised { messages, thread: Some(thread) };
        let panicked = |_| StartError::Other("the thread of the engines panicked".to_owned());
        outcome.recv().map_err(panicked)??;
        Ok(Self { shared, _thread: Arc::new(supervised) })
    }

    /// Has the engine serve these tables as the snapshot `id`. Blocks until it can be asked.
    ///
    /// # Errors
    /// For the operator: why it cannot.
    pub fn publish(&self, id: &str, tables: Vec<Table>) -> Result<Arc<Lease>, String> {
        let (sender, outcome) = mpsc::channel();
        self.shared.post(SupervisorMessage::Publish(id.to_owned(), tables, sender));
        outcome.recv().map_err(|_| "martd is ending".to_owned())?
    }

    /// What is known of the engine.
    pub fn status(&self) -> EngineStatus {
        let current = self.shared.current.borrow().clone();
        let history = self.shared.history.lock();
        let old = history.old.upgrade().filter(|process| !process.has_ended());
        EngineStatus {
            current: current.as_ref().map(|process| process.pid()),
            ending: old.map(|process| process.pid()),
            age: current.as_ref().map(|process| process.age()),
            starts: history.starts.iter().map(|(reason, count)| (*reason, *count)).collect(),
            last: history.last.clone(),
            missing: history.missing.map(|since| since.elapsed()),
            quarantined: self.shared.quarantine.len(Instant::now()),
        }
    }
}

impl EngineShared {
    fn post(&self, message: SupervisorMessage) {
        let _ = self.messages.send(message); // the supervisor may have ended with martd
    }

    fn live_leases(&self) -> Vec<Arc<Lease>> {
        self.leases.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The engine that takes new requests, waiting for one.
    pub(super) async fn current(&self) -> Arc<Process> {
        let mut current = self.current.subscribe();
        loop {
            let found = current.borrow_and_update().clone();
            if let Some(process) = found.filter(|process| !process.has_ended()) {
                return process;
            }
            // Both the sender and this borrow of it live: a change or nothing.
            let _ = current.changed().await;
        }
    }

    /// Sends new requests to another engine than this one from here on.
    pub(super) fn replace(&self, process: &Arc<Process>, reason: StartReason, detail: String) {
        if process.retire() {
            self.withdraw(process.pid());
            self.post(SupervisorMessage::Replace(Arc::clone(process), reason, detail));
            process.kill_if_idle();
        }
    }

    fn withdraw(&self, pid: u32) {
        self.current
            .send_if_modified(|current| current.take_if(|process| process.pid() == pid).is_some());
    }

    /// Starts an engine. Blocks until it has started.
    fn spawn(&self, slots: usize, reason: StartReason) -> Result<Arc<Process>, StartError> {
        let EngineSettings { program, process: settings, .. } = &self.settings;
        let messages = self.messages.clone();
        let (known, pid) = mpsc::channel();
        let ended = move || {
            if let Ok(pid) = pid.recv() {
                let _ = messages.send(SupervisorMessage::Ended(pid)); // martd may be ending
            }
        };
        let process =
            Process::start(&self.spawner, program, settings, slots, &self.runtime, ended)?;
        let _ = known.send(process.pid()); // `ended` waits for it
        *self.history.lock().starts.entry(reason).or_default() += 1;
        info!(pid = process.pid(), reason = reason.name(), "an engine has started");
        Ok(process)
    }

    /// An engine of its own for suspects, with one slot and nothing to serve yet.
    pub(super) async fn isolate(self: &Arc<Self>) -> Result<Arc<Process>, StartError> {
        let shared = Arc::clone(self);
        let spawned = tokio::task::spawn_blocking(move || shared.spawn(1, StartReason::Suspects));
        spawned.await.map_err(|error| StartError::Other(error.to_string()))?
    }

    /// Tells engines that nobody will ask for a snapshot any more.
    pub(super) fn forget(&self, lease: &Lease) {
        self.leases.lock().remove(&lease.spec().number);
        let current = self.current.borrow().clone();
        if let Some(process) = current {
            process.drop_snapshot(lease);
        }
    }
}

/// The thread that starts engines.
struct Supervisor {
    shared: Arc<EngineShared>,
    /// The engine that finishes what it has.
    old: Option<Arc<Process>>,
    /// Why an engine is to be started, and when.
    next_start: Option<(StartReason, Instant)>,
    pause: Duration,
}

impl Supervisor {
    fn run(&mut self, inbox: &Receiver<SupervisorMessage>) {
        loop {
            let wait = match self.next_start {
                Some((_, due)) => due.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            match inbox.recv_timeout(wait) {
                Ok(SupervisorMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(problem) = self.start() {
                        error!(%problem, "an engine cannot be started");
                        let due = Instant::now() + self.pause;
                        self.next_start = self.next_start.map(|(reason, _)| (reason, due));
                        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
                    }
                }
                Ok(SupervisorMessage::Ended(pid)) => self.note_end(pid),
                Ok(SupervisorMessage::Replace(process, reason, detail)) => {
                    self.want(reason, detail);
                    if let Some(older) = self.old.replace(process) {
                        older.kill();
                    }
                    let old = self.old.as_ref().map(Arc::downgrade);
                    self.shared.history.lock().old = old.unwrap_or_default();
                }
                Ok(SupervisorMessage::Publish(id, tables, reply)) => {
                    let _ = reply.send(self.publish(&id, tables)); // it waits
                }
            }
        }
    }

    /// Starts an engine, has it serve everything that is leased, and sends new requests there.
    fn start(&mut self) -> Result<(), StartError> {
        let began = Instant::now();
        let reason = self.next_start.map_or(StartReason::Exited, |(reason, _)| reason);
        let process = self.shared.spawn(self.shared.settings.queries + OTHER_SLOTS, reason)?;
        // Held until new requests go there: who drops one after that tells the new engine.
        let leases = self.shared.live_leases();
        for lease in &leases {
            self.serve(&process, lease).map_err(StartError::Other)?;
        }
        self.shared.history.lock().missing = None;
        (self.next_start, self.pause) = (None, FIRST_PAUSE);
        info!(elapsed = ?began.elapsed(), snapshots = leases.len(), "an engine takes requests");
        self.shared.current.send_replace(Some(process));
        Ok(())
    }

    /// Has an engine serve a snapshot, and waits until it does.
    fn serve(&self, process: &Arc<Process>, lease: &Lease) -> Result<(), String> {
        let told = process.publish(lease);
        let wait = async { tokio::time::timeout(PUBLISH_WITHIN, told).await };
        match self.shared.runtime.block_on(wait) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err("the engine ended while it published a snapshot".to_owned()),
            Err(_) => {
                process.kill();
                Err(format!("the engine published nothing within {PUBLISH_WITHIN:?}"))
            }
        }
    }

    fn publish(&mut self, id: &str, tables: Vec<Table>) -> Result<Arc<Lease>, String> {
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let lease = Lease::new(number, id, tables, Arc::downgrade(&self.shared));
        let lease = Arc::new(lease);
        self.shared.leases.lock().insert(number, Arc::downgrade(&lease));
        let current = self.shared.current.borrow().clone();
        let served = current.map(|process| (self.serve(&process, &lease), process));
        match served {
            Some((Err(_), process)) if process.has_ended() || process.is_retired() => {}
            Some((served, _)) => return served.map(|()| lease),
            None => {}
        }
        self.start().map_err(|error| error.to_string())?; // which has it serve this, too
        Ok(lease)
    }

    /// An engine is needed in the place of the one before it.
    fn want(&mut self, reason: StartReason, detail: String) {
        warn!(reason = reason.name(), detail, "the engine is replaced");
        let mut history = self.shared.history.lock();
        history.last = Some(Replacement { at: Timestamp::now(), reason, detail });
        history.missing.get_or_insert_with(Instant::now);
        drop(history);
        self.next_start = Some((reason, Instant::now()));
    }

    /// Notes that an engine has ended.
    fn note_end(&mut self, pid: u32) {
        let current = self.shared.current.borrow().clone();
        if let Some(process) = current.filter(|process| process.pid() == pid) {
            self.shared.withdraw(pid);
            let status = process.reap().map_or_else(|| "unknown".to_owned(), |s| s.to_string());
            self.want(StartReason::Exited, format!("it ended ({status})"));
        }
        if let Some(old) = self.old.take_if(|old| old.pid() == pid) {
            old.reap();
        }
    }

    /// Ends all engines.
    fn end(&mut self) {
        let current = self.shared.current.send_replace(None);
        for process in current.into_iter().chain(self.old.take()) {
            process.kill();
        }
    }
}
