//! `martd engine`: the process that has DuckDB. The front starts it, and it ends with the front, or
//! when the front says so.
//!
//! Threads: the first reads the control socket; one attaches, publishes and drops snapshots; one
//! interrupts what is to be stopped; and one for each slot answers its requests.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::process::Signal;

use super::database::{Attached, LockedDatabase};
use super::freshness::NewestError;
use super::pg_catalog::Catalogs;
use super::protocol::{
    self, Blame, Control, ProcessSettings, QueryError, Request, Response, SlotTask, SnapshotSpec,
    StartError, StatementFailure, StatusMessage, TableNumber,
};
use super::scope::Scope;
use super::session::{self, Sink};
use super::snapshot::EngineSnapshot;
use crate::duck::{self, ErrorKind, Interrupt};
use crate::ipc;
use crate::sandbox;
use crate::spawner;
use crate::sql_gate::Validator;

/// The name of the hidden subcommand.
pub const SUBCOMMAND: &str = "engine";
/// DuckDB's parser and binder recurse: on 2 MiB, 2 KB of comma joins abort the process.
pub(super) const STACK_BYTES: usize = 16 << 20;
/// Between two interrupts: one that comes between two steps of a statement is lost.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(10);
/// Ended before the front when the machine has no memory left.
const OOM_SCORE: &str = "500";

/// What the threads share.
struct Worker {
    validator: Validator,
    snapshots: RwLock<HashMap<u64, Arc<EngineSnapshot>>>,
    slots: Vec<Mutex<SlotState>>,
}

/// What a slot does.
#[derive(Default)]
struct SlotState {
    /// The request that runs, and how to stop it.
    running: Option<(u64, Interrupt)>,
    /// The newest request that was cancelled.
    cancelled: u64,
}

/// Runs the engine of a front, which is the process `front` that started this one.
pub fn main(front: u32) -> ExitCode {
    // The second line of defence: the first is the end of the control socket.
    let guarded = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_pid().cast_unsigned());
    let left = spawner::leave_signals_to_the_front();
    if guarded.is_err() || left.is_err() || parent != Some(front) {
        return ExitCode::FAILURE;
    }
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    match start(&control) {
        Ok((engine, catalog)) => {
            engine.obey(&control, &catalog);
            end()
        }
        Err(reason) => {
            let _ = ipc::send(&control, &StatusMessage::Failed(reason), &[]); // the front may have ended
            ExitCode::FAILURE
        }
    }
}

/// Ends this process at once, whatever its threads do: destructors would run beside them.
fn end() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    std::process::abort()
}

fn start(control: &UnixStream) -> Result<(Arc<Worker>, Sender<Change>), StartError> {
    let other = StartError::Other;
    let first = ipc::receive(control);
    let first = first.map_err(|error| other(format!("the front is not understood: {error}")))?;
    let Some((Control::Start(settings, slots), _)) = first else {
        return Err(other("the front said nothing".to_owned()));
    };
    let mut sockets = Vec::new();
    while sockets.len() < slots {
        match ipc::receive(control) {
            Ok(Some((Control::Slots, batch))) => sockets.extend(batch),
            _ => return Err(other("the front sent no sockets".to_owned())),
        }
    }
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE); // where there is no /proc
    // Before rights are given up: DuckDB looks for the limits of its cgroup when it is opened, and
    // does not bear that they cannot be read.
    let database = LockedDatabase::open(&settings).map_err(|error| match error.kind() {
        ErrorKind::Statement => {
            let message = error.to_string();
            let near = message.split_once("Candidate time zones: ").map(|(_, near)| near.trim());
            let near = near.map(|near| format!("; near it are {near}")).unwrap_or_default();
            StartError::TimeZone(format!("{:?} is not a time zone{near}", settings.time_zone))
        }
        _ => error.into(),
    })?;
    let catalogs = settings.postgres.then(|| Catalogs::open(&settings)).transpose()?;
    let validator = Validator::new().map_err(|error| other(error.to_string()))?;
    duck::is_keyword(""); // which opens a database
    sandbox::confine_engine(settings.table_dir.as_deref())
        .map_err(|error| other(format!("an engine's rights cannot be given up: {error}")))?;
    sandbox::bound_data(settings.data_bytes)
        .map_err(|error| other(format!("an engine's memory cannot be limited: {error}")))?;
    database.lock(settings.threads)?;
    catalogs.as_ref().map_or(Ok(()), Catalogs::lock)?;

    let slots = sockets.iter().map(|_| Mutex::default()).collect();
    let engine = Arc::new(Worker { validator, snapshots: RwLock::default(), slots });
    let no_thread = |error: io::Error| other(format!("an engine's threads cannot be had: {error}"));
    for (slot, socket) in sockets.into_iter().enumerate() {
        let engine = Arc::clone(&engine);
        let thread = thread::Builder::new().name(format!("slot-{slot}")).stack_size(STACK_BYTES);
        let serve = move || engine.serve(slot, &UnixStream::from(socket));
        thread.spawn(serve).map_err(no_thread)?;
    }
    let (catalog, changes) = mpsc::channel();
    let status = control.try_clone().map_err(no_thread)?;
    let publisher = TableAttacher {
        database,
        catalogs: catalogs.map(Arc::new),
        settings,
        fresh: HashMap::new(),
        attached: HashMap::new(),
        engine: Arc::clone(&engine),
        status,
    };
    thread::Builder::new()
        .name("publish".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || publisher.run(&changes))
        .map_err(no_thread)?;
    ipc::send(control, &StatusMessage::Started, &[]).map_err(no_thread)?;
    Ok((engine, catalog))
}

/// What the control socket says of snapshots.
type Change = (Control, Vec<OwnedFd>);

/// Attaches tables and makes snapshots of them, in the order in which the front says so.
struct TableAttacher {
    database: Arc<LockedDatabase>,
    catalogs: Option<Arc<Catalogs>>,
    settings: ProcessSettings,
    /// Attached for a snapshot that has not come yet.
    fresh: HashMap<TableNumber, Arc<Attached>>,
    /// What any snapshot has attached.
    attached: HashMap<TableNumber, Weak<Attached>>,
    engine: Arc<Worker>,
    status: UnixStream,
}

impl TableAttacher {
    fn run(mut self, changes: &Receiver<Change>) {
        let mut problem = None;
        while let Ok(change) = changes.recv() {
            match change {
                (Control::Attach(numbers), files) => {
                    for (number, file) in numbers.into_iter().zip(files) {
                        if let Err(error) = self.attach(number, file) {
                            problem = Some(error);
                        }
                    }
                }
                (Control::Publish(spec), _) => {
                    let number = spec.number;
                    let status = match self.publish(spec).map_err(|e| problem.take().unwrap_or(e)) {
                        Ok(()) => StatusMessage::Ready(number),
                        Err(reason) => StatusMessage::Refused(number, reason),
                    };
                    self.fresh.clear();
                    let _ = ipc::send(&self.status, &status, &[]); // the front may have ended
                }
                (Control::Drop(number), _) => {
                    let dropped = self.engine.snapshots.write().remove(&number);
                    drop(dropped); // detaches, unless a statement is still at it
                    self.attached.retain(|_, table| table.strong_count() > 0);
                }
                _ => {} // is not of snapshots
            }
        }
    }

    fn attach(&mut self, number: TableNumber, file: OwnedFd) -> Result<(), String> {
        let known = self.attached.get(&number).and_then(Weak::upgrade);
        let table = match known {
            Some(table) => table,
            None => {
                let attached = self.database.attach_table(file);
                Arc::new(attached.map_err(|error| format!("a table cannot be attached: {error}"))?)
            }
        };
        self.attached.insert(number, Arc::downgrade(&table));
        self.fresh.insert(number, table);
        Ok(())
    }

    fn publish(&self, spec: SnapshotSpec) -> Result<(), String> {
        let number = spec.number;
        let tables = spec.tables.iter().map(|table| {
            let attached = self.attached.get(&table.number).and_then(Weak::upgrade);
            attached.ok_or_else(|| format!("the table of {} is not attached", table.name))
        });
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let ProcessSettings { schemas, scoping, .. } = &self.settings;
        let snapshot =
            EngineSnapshot::open(&self.database, schemas, scoping.as_ref(), spec, tables);
        let snapshot = snapshot.map_err(|error| error.to_string())?;
        let snapshot = snapshot.with_catalogs(self.catalogs.clone());
        self.engine.snapshots.write().insert(number, Arc::new(snapshot));
        Ok(())
    }
}

impl Worker {
    fn snapshot(&self, number: u64) -> Result<Arc<EngineSnapshot>, StatementFailure> {
        let snapshots = self.snapshots.read();
        let found = snapshots.get(&number).cloned();
        found.ok_or_else(|| QueryError::Internal("the snapshot was not published".into()).into())
    }

    /// Gives up what kept statements hold, and what the allocator keeps for later.
    fn free(&self) {
        let snapshots: Vec<_> = self.snapshots.read().values().cloned().collect();
        snapshots.iter().for_each(|snapshot| snapshot.forget_prepared());
        duck::give_back_free_memory();
    }

    /// Does what the control socket says, until it ends.
    fn obey(self: &Arc<Self>, control: &UnixStream, catalog: &Sender<Change>) {
        let (stop, stopping) = mpsc::channel();
        let engine = Arc::clone(self);
        let interrupts = thread::Builder::new().name("interrupt".to_owned());
        if interrupts.spawn(move || engine.interrupt(&stopping)).is_err() {
            return;
        }
        while let Ok(Some((message, files))) = ipc::receive::<Control>(control) {
            let sent = match message {
                Control::Cancel { slot, request } => {
                    self.slots[slot].lock().cancelled = request;
                    stop.send((slot, request)).is_ok()
                }
                Control::Start(..) | Control::Slots => false,
                change => catalog.send((change, files)).is_ok(),
            };
            if !sent {
                return;
            }
        }
    }

    /// Interrupts what is cancelled, again and again until it has ended.
    fn interrupt(&self, stopping: &Receiver<(usize, u64)>) {
        let mut live: Vec<(usize, u64)> = Vec::new();
        loop {
            let wait = if live.is_empty() { Duration::MAX } else { INTERRUPT_INTERVAL };
            match stopping.recv_timeout(wait) {
                Ok(cancelled) => live.push(cancelled),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // One that has not begun looks at `cancelled` itself.
            live.retain(|&(slot, request)| match &self.slots[slot].lock().running {
                Some((running, interrupt)) if *running == request => {
                    interrupt.interrupt();
                    true
                }
                _ => false,
            });
        }
    }

    /// Answers the requests of a slot until its socket ends.
    fn serve(&self, slot: usize, socket: &UnixStream) {
        while let Ok(Some(request)) = protocol::receive_request(socket) {
            let mut answers = AnswerSink {
                engine: self,
                slot,
                request: request.number,
                socket,
                has_begun: false,
            };
            let answer = AssertUnwindSafe(|| self.respond(&request, &mut answers));
            let (response, bytes) = catch_unwind(answer).unwrap_or_else(|_| {
                let error = QueryError::EngineFailed("an encoder panicked".to_owned());
                (Response::Failed(StatementFailure { error, blame: Blame::Culprit }), Vec::new())
            });
            self.slots[slot].lock().running = None;
            if protocol::send_response(socket, &response, &bytes).is_err() {
                return;
            }
        }
    }

    fn respond(&self, request: &Request, answers: &mut AnswerSink<'_>) -> (Response, Vec<u8>) {
        let outcome = match &request.task {
            SlotTask::Validate(sql, dialect) => match self.validator.validate_as(*dialect, sql) {
                Ok(statement) => Ok((Response::Validated((*statement).clone()), Vec::new())),
                Err(rejection) => Err(session::explain_rejection(rejection)),
            },
            SlotTask::Query { snapshot, job } => self
                .validator
                .validate_as(protocol::dialect(job.format), &job.sql)
                .map_err(session::explain_rejection)
                .and_then(|statement| {
                    let snapshot = self.snapshot(*snapshot)?;
                    session::answer_with_room(&snapshot, &statement, job, answers, || self.free())
                })
                .map(|(end, bytes)| (Response::End(end), bytes)),
            SlotTask::Describe { snapshot, sql, types, scope } => self
                .snapshot(*snapshot)
                .and_then(|snapshot| {
                    super::describe::describe(
                        &self.validator,
                        &snapshot,
                        sql,
                        types,
                        scope,
                        answers,
                    )
                })
                .map(|description| (Response::Described(description), Vec::new())),
            SlotTask::Newest { snapshot, mart, column } => self
                .snapshot(*snapshot)
                .and_then(|snapshot| newest(&snapshot, mart, column, answers))
                .map(|newest| (Response::Newest(newest), Vec::new())),
        };
        outcome.unwrap_or_else(|failure| (Response::Failed(failure), Vec::new()))
    }
}

type Newest = Result<Option<jiff::Timestamp>, String>;

fn newest(
    snapshot: &EngineSnapshot,
    mart: &str,
    column: &str,
    answers: &mut AnswerSink<'_>,
) -> Result<Newest, StatementFailure> {
    let explain = |error| session::explain("", &error);
    let pooled = snapshot.connection(&Scope::AllRows).map_err(explain)?;
    answers.begin(pooled.connection.interrupt_handle())?;
    match snapshot.newest(&pooled.connection, mart, column) {
        Ok(newest) => Ok(Ok(newest)),
        Err(NewestError::Column(reason)) => Ok(Err(reason)),
        Err(NewestError::Duck(error)) => Err(explain(error)),
    }
}

/// The way of one request's answer to the front.
struct AnswerSink<'a> {
    engine: &'a Worker,
    slot: usize,
    request: u64,
    socket: &'a UnixStream,
    has_begun: bool,
}

impl Sink for AnswerSink<'_> {
    fn begin(&mut self, interrupt: Interrupt) -> Result<(), StatementFailure> {
        let mut slot = self.engine.slots[self.slot].lock();
        if slot.cancelled == self.request {
            return Err(QueryError::Cancelled.into());
        }
        slot.running = Some((self.request, interrupt));
        Ok(())
    }

    fn end(&mut self) {
        self.engine.slots[self.slot].lock().running = None;
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn part(&mut self, bytes: &[u8], rows: u64) -> Result<(), StatementFailure> {
        self.has_begun = true;
        if self.engine.slots[self.slot].lock().cancelled == self.request {
            return Err(QueryError::Cancelled.into());
        }
        let sent = protocol::send_response(self.socket, &Response::Part { rows }, bytes);
        sent.map_err(|_| QueryError::Cancelled.into())
    }
}
