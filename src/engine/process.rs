//! One engine process, as the front sees it: started, given snapshots, asked, and killed.
//!
//! Nothing here waits for an engine that hangs: what is posted to it is sent by a thread of its own,
//! another reads what it says, and requests are asynchronous.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use super::protocol::{Control, ProcessSettings, StartError, StatusMessage, TableNumber};
use super::worker::SUBCOMMAND;
use crate::ipc::{self, MOST_DESCRIPTORS};
use crate::marts::build::BuiltTable;
use crate::spawner::Spawner;

/// An engine that does not start within this time is given up.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How DuckDB's allocator (jemalloc) behaves: what is free is unmapped after ten seconds, for a statement that has to
/// fault its pages in anew takes a fifth longer. It would keep addresses for ever, in an arena for each thread. When
/// memory runs out before that time, the engine asks for it (`duck::give_back_free_memory`).
const ALLOCATOR: &str = "retain:false,narenas:2,dirty_decay_ms:10000,muzzy_decay_ms:0";
/// Where tests look for faults to cause.
const TEST_FAULTS: &str = "MARTD_TEST_FAULTS";

/// A running engine. It is killed when the last of these is dropped.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    started: Instant,
    child: Mutex<Child>,
    control: Sender<Outgoing>,
    slots: Mutex<Vec<SlotSocket>>,
    free: Arc<Semaphore>,
    requests: AtomicU64,
    /// Requests whose outcome somebody waits for.
    busy: AtomicUsize,
    is_retired: AtomicBool,
    is_killed: AtomicBool,
    serves: Mutex<Served>,
    waiting: Arc<Waiting>,
    ended: CancellationToken,
}

/// What an engine was told to serve, and has not been told to drop.
#[derive(Debug, Default)]
struct Served {
    snapshots: HashSet<u64>,
    /// How many of the snapshots have each table.
    tables: HashMap<TableNumber, usize>,
}

/// A message that waits to be sent.
struct Outgoing {
    message: Control,
    tables: Vec<Arc<BuiltTable>>,
}

/// Who waits for what an engine says.
#[derive(Debug, Default)]
struct Waiting {
    started: Mutex<Option<mpsc::Sender<Result<(), StartError>>>>,
    snapshots: Mutex<HashMap<u64, oneshot::Sender<Result<(), String>>>>,
}

/// The socket of a slot that is idle, or that one request has to itself.
#[derive(Debug)]
pub(super) struct SlotSocket {
    pub(super) slot: usize,
    pub(super) socket: tokio::net::UnixStream,
}

impl Process {
    /// Starts an engine with so many slots. `ended` is called once it has ended.
    ///
    /// # Errors
    /// For the operator: the process cannot be had, or says why it does not start.
    pub(super) fn start(
        spawner: &Spawner,
        program: &Path,
        settings: &ProcessSettings,
        slots: usize,
        runtime: &Handle,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<Self>, StartError> {
        let failed =
            |error: io::Error| StartError::Other(format!("an engine cannot be started: {error}"));
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.args([SUBCOMMAND, &std::process::id().to_string()]).env_clear();
        command.env("DUCKDB_JE_MALLOC_CONF", ALLOCATOR);
        if cfg!(debug_assertions)
            && let Some(dir) = std::env::var_os(TEST_FAULTS)
        {
            command.env(TEST_FAULTS, dir);
        }
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let child = spawner.spawn(command).map_err(failed)?;
        let pid = child.id();
        let (sender, started) = mpsc::channel();
        let waiting = Arc::new(Waiting { started: Mutex::new(Some(sender)), ..Waiting::default() });
        let (outbox, outgoing) = mpsc::channel();
        let process = Arc::new(Self {
            pid,
            started: Instant::now(),
            child: Mutex::new(child),
            control: outbox,
            free: Arc::new(Semaphore::new(slots)),
            slots: Mutex::default(),
            requests: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            serves: Mutex::default(),
            waiting: Arc::clone(&waiting),
            ended: CancellationToken::new(),
        });

        let mut their = Vec::new();
        for slot in 0..slots {
            let (mine, theirs) = UnixStream::pair().map_err(failed)?;
            mine.set_nonblocking(true).map_err(failed)?;
            let _runtime = runtime.enter();
            let socket = tokio::net::UnixStream::from_std(mine).map_err(failed)?;
            process.give_back(SlotSocket { slot, socket });
            their.push(OwnedFd::from(theirs));
        }
        let sockets: Vec<BorrowedFd<'_>> = their.iter().map(AsFd::as_fd).collect();
        ipc::send(&control, &Control::Start(settings.clone(), slots), &[]).map_err(failed)?;
        for batch in sockets.chunks(MOST_DESCRIPTORS) {
            ipc::send(&control, &Control::Slots, batch).map_err(failed)?;
        }
        drop(their);

        let writer = control.try_clone().map_err(failed)?;
        let write = thread::Builder::new().name(format!("to-engine-{pid}"));
        write.spawn(move || send_all(&writer, &outgoing)).map_err(failed)?;
        let read = thread::Builder::new().name(format!("of-engine-{pid}"));
        let token = process.ended.clone();
        read.spawn(move || {
            waiting.read_all(&control);
            token.cancel();
            ended();
        })
        .map_err(failed)?;
        let hung = "an engine ended, or hung, before it had started".to_owned();
        started.recv_timeout(START_WITHIN).map_err(|_| StartError::Other(hung))??;
        Ok(process)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How long it has been there.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Has it serve a snapshot, unless it does. The receiver is told when it can be asked for, or why
    /// not; it gets nothing when the engine ends before that.
    pub(super) fn publish(&self, lease: &Lease) -> oneshot::Receiver<Result<(), String>> {
        let (sender, told) = oneshot::channel();
        let spec = lease.spec();
        let mut serves = self.serves.lock();
        if !serves.snapshots.insert(spec.number) {
            let _ = sender.send(Ok(())); // the receiver is below
            return told;
        }
        self.waiting.snapshots.lock().insert(spec.number, sender);
        let mut missing = Vec::new();
        for table in lease.tables() {
            let count = serves.tables.entry(table.number()).or_default();
            if *count == 0 {
                missing.push(Arc::clone(table));
            }
            *count += 1;
        }
        for batch in missing.chunks(MOST_DESCRIPTORS) {
            let numbers = batch.iter().map(|table| table.number()).collect();
            self.post(Control::Attach(numbers), batch.to_vec());
        }
        self.post(Control::Publish(spec.clone()), Vec::new());
        drop(serves); // what another publishes comes after this
        if self.has_ended() {
            self.waiting.snapshots.lock().clear();
        }
        told
    }

    /// Has it drop a snapshot that nobody will ask for any more.
    pub(super) fn drop_snapshot(&self, lease: &Lease) {
        let number = lease.spec().number;
        let mut serves = self.serves.lock();
        if !serves.snapshots.remove(&number) {
            return;
        }
        for table in lease.tables() {
            if let Some(count) = serves.tables.get_mut(&table.number()) {
                *count -= 1;
                if *count == 0 {
                    serves.tables.remove(&table.number());
                }
            }
        }
        self.post(Control::Drop(number), Vec::new());
    }

    /// Asks it to stop a request.
    pub(super) fn cancel(&self, slot: usize, request: u64) {
        self.post(Control::Cancel { slot, request }, Vec::new());
    }

    fn post(&self, message: Control, tables: Vec<Arc<BuiltTable>>) {
        let _ = self.control.send(Outgoing { message, tables }); // an engine that has ended needs none
    }

    /// Waits for a slot; `None` when the engine has ended.
    pub(super) async fn slot(&self) -> Option<(SlotSocket, OwnedSemaphorePermit)> {
        let permit = tokio::select! {
            permit = Arc::clone(&self.free).acquire_owned() => permit.ok()?,
            () = self.ended.cancelled() => return None,
        };
        let socket = self.slots.lock().pop()?;
        Some((socket, permit))
    }

    /// Takes a slot back, whose request has ended.
    pub(super) fn give_back(&self, socket: SlotSocket) {
        self.slots.lock().push(socket);
    }

    /// The number of the next request.
    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a request as under way, until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// Whether somebody waits for a request of it.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// From here on no new request goes to it. Returns whether that is news.
    pub(super) fn retire(&self) -> bool {
        !self.is_retired.swap(true, Ordering::AcqRel)
    }

    /// Whether no new request may go to it.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Kills a retired engine as soon as nobody waits for one of its requests.
    pub(super) fn kill_if_idle(&self) {
        if self.is_retired() && self.busy.load(Ordering::Acquire) == 0 {
            self.kill();
        }
    }

    /// Ends it. What still ran on it is nobody's fault.
    pub(super) fn kill(&self) {
        if !self.has_ended() {
            self.is_killed.store(true, Ordering::Release);
        }
        let _ = self.child.lock().kill(); // it may have ended
    }

    /// Whether the front ended it.
    pub(super) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Whether somebody ended it by SIGKILL: an operator, or the kernel for want of memory.
    pub(super) fn was_killed_by_signal(&self) -> bool {
        self.reap().is_some_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// Ends what is left of it, and says how it ended.
    pub(super) fn reap(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock();
        let _ = child.kill(); // it has closed its socket, and is of no use
        child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.reap();
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Process>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.kill_if_idle();
    }
}

impl Waiting {
    /// Passes on what an engine says, until it says no more.
    fn read_all(&self, control: &UnixStream) {
        while let Ok(Some((status, _))) = ipc::receive::<StatusMessage>(control) {
            match status {
                StatusMessage::Started => self.tell_started(Ok(())),
                StatusMessage::Failed(reason) => self.tell_started(Err(reason)),
                StatusMessage::Ready(number) => self.tell(number, Ok(())),
                StatusMessage::Refused(number, reason) => self.tell(number, Err(reason)),
            }
        }
        *self.started.lock() = None;
        self.snapshots.lock().clear();
    }

    fn tell_started(&self, started: Result<(), StartError>) {
        if let Some(waiting) = self.started.lock().take() {
            let _ = waiting.send(started); // it may have waited too long
        }
    }

    fn tell(&self, snapshot: u64, outcome: Result<(), String>) {
        if let Some(waiting) = self.snapshots.lock().remove(&snapshot) {
            let _ = waiting.send(outcome); // it may have waited too long
        }
    }
}

/// Sends what is posted to an engine, until the engine or the front has done with the other.
fn send_all(control: &UnixStream, outgoing: &Receiver<Outgoing>) {
    while let Ok(Outgoing { message, tables }) = outgoing.recv() {
        let files: Vec<BorrowedFd<'_>> = tables.iter().map(|table| table.as_fd()).collect();
        if ipc::send(control, &message, &files).is_err() {
            return;
        }
    }
    let _ = control.shutdown(std::net::Shutdown::Both); // which ends the engine
}
