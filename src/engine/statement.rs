//! One request from the front's side: sent to an engine, watched over, and run again where it was a
//! victim.
//!
//! Who asked is answered as early as can be: at the deadline, or when they cancel. What the engine still
//! does is waited for here, so that a slot is free only when it really is, or the engine was replaced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use super::process::{Process, SlotSocket};
use super::protocol::{
    self, Blame, Description, End, QueryError, QueryJob, Request, Response, SlotTask,
    StatementFailure,
};
use super::quarantine::{Culprit, Principal};
use super::scope::Scope;
use super::supervisor::{Engine, EngineShared, StartReason};
use crate::duck::TypeName;
use crate::sql_gate::{Dialect, ValidatedStatement};

/// A statement that runs this long after it was told to stop does not stop.
const STOPS_WITHIN: Duration = Duration::from_secs(2);
/// Parts that wait for a slow client.
const PARTS_AHEAD: usize = 4;
/// How long the front waits for what it asks of its own accord.
const OWN_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a suspect is run alone, if somebody kills the engine that it runs in.
const TRIALS: usize = 2;
/// How long a statement waits before it is run again that had no memory beside others.
const MEMORY_PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// A query, and how long it may take.
#[derive(Debug)]
pub struct Query {
    /// What is asked.
    pub lease: Arc<Lease>,
    /// What is to be done.
    pub job: QueryJob,
    /// Who asks.
    pub principal: Principal,
    /// When it must be answered.
    pub deadline: Instant,
    /// Stops it.
    pub cancel: CancellationToken,
    /// A client that takes no bytes for this long is gone.
    pub stall: Duration,
}

/// The beginning of an answer.
#[derive(Debug)]
pub enum Head {
    /// All of it.
    Whole(End, Bytes),
    /// Its first part, and where the others come from.
    Stream {
        /// The first part.
        first: Bytes,
        /// The rows so far.
        rows: u64,
        /// The others; one that ends without [`Part::Last`] is not whole.
        parts: mpsc::Receiver<Result<Part, QueryError>>,
    },
}

/// A part of a stream after the first.
#[derive(Debug)]
pub enum Part {
    /// One that others follow, after which there are so many rows.
    More(Bytes, u64),
    /// The last.
    Last(End, Bytes),
}

impl Engine {
    /// Answers a query. Resolves when the engine is really done with it, or was replaced; the answer
    /// comes by `head` before that. Must not be dropped midway.
    pub async fn query(&self, query: Query, head: oneshot::Sender<Result<Head, QueryError>>) {
        let Query { lease, job, principal, deadline, cancel, stall } = query;
        let parameters = postcard::to_stdvec(&job.parameters).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(job.sql.as_bytes()).update(&[0]).update(&parameters);
        let culprit = Culprit { principal, statement: hasher.finalize() };
        let client = Client::Query { head: Some(head), parts: None, stall };
        let task = SlotTask::Query { snapshot: lease.spec().number, job };
        let watched = Watched { culprit, deadline, cancel, client };
        watched.run(&self.shared, &task, Some(&lease)).await;
    }

    /// What the validator says of a statement.
    ///
    /// # Errors
    /// Why it may not be asked, or why that is not known.
    pub async fn validate(
        &self,
        sql: &str,
        dialect: Dialect,
        principal: Principal,
        deadline: Instant,
    ) -> Result<ValidatedStatement, QueryError> {
        let culprit = Culprit { principal, statement: blake3::hash(sql.as_bytes()) };
        let task = SlotTask::Validate(sql.to_owned(), dialect);
        match self.ask(culprit, task, deadline, None).await? {
            Response::Validated(statement) => Ok(statement),
            other => Err(nonsense(&other)),
        }
    }

    /// What parameters and columns a statement has, with parameters of these types where it leaves them
    /// open.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub async fn describe(
        &self,
        lease: &Arc<Lease>,
        (sql, types, scope): (String, Vec<Option<TypeName>>, Scope),
        principal: Principal,
        deadline: Instant,
    ) -> Result<Description, QueryError> {
        let culprit = Culprit { principal, statement: blake3::hash(sql.as_bytes()) };
        let task = SlotTask::Describe { snapshot: lease.spec().number, sql, types, scope };
        match self.ask(culprit, task, deadline, Some(lease)).await? {
            Response::Described(description) => Ok(description),
            other => Err(nonsense(&other)),
        }
    }

    /// The newest value of a column of a mart; `None` when no row has one. Infinite values do not
    /// count. Reads the whole column.
    ///
    /// # Errors
    /// Why the column does not tell.
    pub async fn newest(
        &self,
        lease: &Arc<Lease>,
        mart: &str,
        column: &str,
    ) -> Result<Option<Timestamp>, String> {
        let snapshot = lease.spec().number;
        let task = SlotTask::Newest { snapshot, mart: mart.to_owned(), column: column.to_owned() };
        let own = blake3::hash(format!("{mart}\0{column}").as_bytes());
        let culprit = Culprit { principal: Principal(own), statement: own };
        let deadline = Instant::now() + OWN_TIMEOUT;
        match self.ask(culprit, task, deadline, Some(lease)).await {
            Ok(Response::Newest(newest)) => newest,
            Ok(other) => Err(nonsense(&other).to_string()),
            Err(error) => Err(format!("the newest value of {column} cannot be had: {error}")),
        }
    }

    /// Asks for something that is answered by one response without bytes.
    async fn ask(
        &self,
        culprit: Culprit,
        task: SlotTask,
        deadline: Instant,
        lease: Option<&Arc<Lease>>,
    ) -> Result<Response, QueryError> {
        let (sender, answer) = oneshot::channel();
        let cancel = CancellationToken::new();
        let _cancelled = cancel.clone().drop_guard();
        let watched = Watched { culprit, deadline, cancel, client: Client::Response(Some(sender)) };
        let (shared, lease) = (Arc::clone(&self.shared), lease.cloned());
        // Not dropped midway, whatever the caller does.
        tokio::spawn(async move { watched.run(&shared, &task, lease.as_ref()).await });
        answer.await.unwrap_or(Err(QueryError::Unavailable))
    }
}

fn nonsense(response: &Response) -> QueryError {
    QueryError::Internal(format!("an engine answered {response:?}"))
}

/// How a request ended on one engine.
enum Ended {
    /// By its last response.
    Response(Response, Bytes),
    /// By an error that is the request's own, or that its client was told of.
    Failed(QueryError),
    /// DuckDB failed because of it.
    Culprit(QueryError),
    /// DuckDB failed because of another.
    Victim,
    /// It did not stop when it was told to. Its client knows that its time is over.
    Wedged,
    /// The engine ended, and nobody knows why.
    Unexplained,
    /// The engine was killed by the front for what others did, or never had the request.
    Killed,
}

/// A request that is watched over.
struct Watched {
    culprit: Culprit,
    deadline: Instant,
    cancel: CancellationToken,
    client: Client,
}

impl Watched {
    async fn run(
        mut self,
        shared: &Arc<EngineShared>,
        task: &SlotTask,
        lease: Option<&Arc<Lease>>,
    ) {
        match self.outcome(shared, task, lease).await {
            Ok((response, bytes)) => self.client.last(response, bytes).await,
            Err(error) => self.client.fail(error),
        }
    }

    async fn outcome(
        &mut self,
        shared: &Arc<EngineShared>,
        task: &SlotTask,
        lease: Option<&Arc<Lease>>,
    ) -> Result<(Response, Bytes), QueryError> {
        shared.quarantine.check(&self.culprit, Instant::now().into_std())?;
        let mut pauses = MEMORY_PAUSES.into_iter();
        loop {
            let process = self.in_time(shared.current()).await?;
            let was_busy = process.is_busy();
            let ended = self.attempt(&process, task).await;
            let statement = &task.statement().to_hex()[..16];
            match ended {
                Ended::Response(response, bytes) => return Ok((response, bytes)),
                // Those beside it may have had the memory, and may have ended since.
                Ended::Failed(QueryError::OutOfMemory)
                    if (was_busy || process.is_busy()) && !self.client.has_begun() =>
                {
                    let left = self.deadline.saturating_duration_since(Instant::now());
                    match pauses.next().filter(|pause| *pause < left) {
                        Some(pause) => self.in_time(sleep(pause)).await?,
                        None => return Err(QueryError::OutOfMemory),
                    }
                }
                Ended::Failed(error) => return Err(error),
                Ended::Culprit(error) => {
                    self.note(shared, &process, true);
                    let detail = format!("statement {statement}: {error}");
                    shared.replace(&process, StartReason::Failed, detail);
                    return Err(error);
                }
                Ended::Wedged => {
                    self.note(shared, &process, false);
                    let detail = format!("statement {statement} did not stop");
                    shared.replace(&process, StartReason::Wedged, detail);
                    return Err(QueryError::TimedOut);
                }
                Ended::Victim => {
                    let detail = "DuckDB refuses all statements".to_owned();
                    shared.replace(&process, StartReason::Failed, detail);
                }
                Ended::Unexplained if !self.client.has_begun() => {
                    return self.alone(shared, task, lease).await;
                }
                Ended::Killed | Ended::Unexplained => {}
            }
            if self.client.has_begun() {
                let reason = "the engine ended during the answer".to_owned();
                return Err(QueryError::EngineFailed(reason));
            }
        }
    }

    /// Runs a suspect with no other beside it.
    async fn alone(
        &mut self,
        shared: &Arc<EngineShared>,
        task: &SlotTask,
        lease: Option<&Arc<Lease>>,
    ) -> Result<(Response, Bytes), QueryError> {
        let suspect = shared.isolation.begin();
        let _turn = self.in_time(shared.isolation.turn()).await?;
        let mut trials = TRIALS;
        loop {
            let process = match shared.isolation.idle() {
                Some(process) => process,
                None => {
                    self.in_time(shared.isolate()).await?.map_err(|_| QueryError::Unavailable)?
                }
            };
            if let Some(lease) = lease {
                let told = self.in_time(process.publish(lease)).await?;
                if !matches!(told, Ok(Ok(()))) {
                    return Err(QueryError::Unavailable);
                }
            }
            let ended = self.attempt(&process, task).await;
            match ended {
                Ended::Response(..) | Ended::Failed(_) if suspect.others_wait() => {
                    shared.isolation.give_back(Arc::clone(&process));
                }
                _ => process.kill(),
            }
            match ended {
                Ended::Response(response, bytes) => return Ok((response, bytes)),
                Ended::Failed(error) => return Err(error),
                Ended::Wedged => {
                    self.note(shared, &process, false);
                    return Err(QueryError::TimedOut);
                }
                Ended::Culprit(error) => {
                    self.note(shared, &process, true);
                    return Err(error);
                }
                Ended::Unexplained | Ended::Victim | Ended::Killed => {
                    trials -= 1;
                    // Whoever kills engines from outside may have met this one, too.
                    if trials > 0 && process.was_killed_by_signal() && !self.client.has_begun() {
                        continue;
                    }
                    self.note(shared, &process, true);
                    let reason = "it made the engine end".to_owned();
                    return Err(QueryError::EngineFailed(reason));
                }
            }
        }
    }

    fn note(&self, shared: &EngineShared, process: &Process, is_quarantined: bool) {
        let now = Instant::now().into_std();
        shared.quarantine.note(self.culprit, process.pid(), is_quarantined, now);
    }

    /// What `wait` comes to, unless the time is over or the client leaves before.
    async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Result<T, QueryError> {
        tokio::select! {
            outcome = timeout_at(self.deadline, wait) => {
                outcome.map_err(|_| QueryError::Unavailable)
            }
            () = self.cancel.cancelled() => Err(QueryError::Cancelled),
        }
    }

    /// Has one engine do it.
    async fn attempt(&mut self, process: &Arc<Process>, task: &SlotTask) -> Ended {
        let _busy = process.begin();
        let (mut socket, _permit) = match self.in_time(process.slot()).await {
            Ok(Some(slot)) => slot,
            Ok(None) => return Ended::Killed,
            Err(error) => return Ended::Failed(error),
        };
        let request = Request { number: process.next_request(), task: task.clone() };
        if protocol::send_request(&mut socket.socket, &request).await.is_err() {
            return Ended::Killed;
        }
        let slot = socket.slot;
        // Since when it is to stop.
        let mut stopping: Option<Instant> = None;
        loop {
            let received = {
                let mut read = Box::pin(protocol::receive_response(&mut socket.socket));
                loop {
                    let until = stopping.map_or(self.deadline, |since| since + STOPS_WITHIN);
                    let over = tokio::select! {
                        received = &mut read => break received,
                        () = sleep_until(until) => QueryError::TimedOut,
                        () = self.cancel.cancelled(), if stopping.is_none() => QueryError::Cancelled,
                    };
                    if stopping.is_some() {
                        return Ended::Wedged;
                    }
                    self.client.fail(over);
                    process.cancel(slot, request.number);
                    stopping = Some(Instant::now());
                }
            };
            match received {
                Ok((Response::Part { rows }, bytes)) => {
                    if stopping.is_none() {
                        match self.client.part(bytes, rows).await {
                            Ok(waited) => self.deadline += waited,
                            Err(error) => {
                                self.client.fail(error);
                                process.cancel(slot, request.number);
                                stopping = Some(Instant::now());
                            }
                        }
                    }
                }
                Ok((response, bytes)) => return ended(process, socket, response, bytes),
                Err(_) if process.is_killed() => return Ended::Killed,
                Err(_) => return Ended::Unexplained,
            }
        }
    }
}

/// What the last response of a request says.
fn ended(process: &Process, socket: SlotSocket, response: Response, bytes: Bytes) -> Ended {
    process.give_back(socket);
    match response {
        Response::Failed(StatementFailure { error, blame }) => match blame {
            Blame::Request => Ended::Failed(error),
            Blame::Culprit => Ended::Culprit(error),
            Blame::Victim => Ended::Victim,
        },
        response => Ended::Response(response, bytes),
    }
}

/// Whoever waits for the outcome.
#[derive(Debug)]
enum Client {
    /// For an answer, in parts where it is large.
    Query {
        head: Option<oneshot::Sender<Result<Head, QueryError>>>,
        parts: Option<mpsc::Sender<Result<Part, QueryError>>>,
        stall: Duration,
    },
    /// For one response.
    Response(Option<oneshot::Sender<Result<Response, QueryError>>>),
}

impl Client {
    /// Whether a part of the answer is on its way.
    fn has_begun(&self) -> bool {
        matches!(self, Self::Query { head: None, .. } | Self::Response(None))
    }

    /// Passes on a part, after which there are so many rows. Returns how long it waited for the client.
    async fn part(&mut self, bytes: Bytes, row_count: u64) -> Result<Duration, QueryError> {
        let Self::Query { head, parts, stall } = self else {
            return Err(QueryError::Internal("an engine answered in parts".to_owned()));
        };
        if let Some(head) = head.take() {
            let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
            *parts = Some(sender);
            let begun = Head::Stream { first: bytes, rows: row_count, parts: receiver };
            return head
                .send(Ok(begun))
                .map(|()| Duration::ZERO)
                .map_err(|_| QueryError::Cancelled);
        }
        let Some(parts) = parts else { return Err(QueryError::Cancelled) };
        let came = Instant::now();
        match timeout(*stall, parts.send(Ok(Part::More(bytes, row_count)))).await {
            Ok(Ok(())) => Ok(came.elapsed()),
            Ok(Err(_)) => Err(QueryError::Cancelled),
            Err(_) => Err(QueryError::Stalled(*stall)),
        }
    }

    /// Passes on the last response. Whoever waited for it may have left.
    async fn last(&mut self, response: Response, bytes: Bytes) {
        match (self, response) {
            (Self::Query { head, parts, stall }, Response::End(end)) => {
                if let Some(head) = head.take() {
                    let _ = head.send(Ok(Head::Whole(end, bytes)));
                } else if let Some(parts) = parts.take() {
                    let _ = timeout(*stall, parts.send(Ok(Part::Last(end, bytes)))).await;
                }
            }
            (Self::Response(waiting), response) => {
                if let Some(waiting) = waiting.take() {
                    let _ = waiting.send(Ok(response));
                }
            }
            (client, response) => client.fail(nonsense(&response)),
        }
    }

    /// Passes on an error, unless the client was told of one. Whoever waited may have left.
    fn fail(&mut self, error: QueryError) {
        match self {
            Self::Query { head, parts, stall } => {
                if let Some(head) = head.take() {
                    let _ = head.send(Err(error));
                } else if let Some(parts) = parts.take() {
                    let stall = *stall;
                    // The parts before it may wait for a slow client.
                    tokio::spawn(async move { timeout(stall, parts.send(Err(error))).await });
                }
            }
            Self::Response(waiting) => {
                if let Some(waiting) = waiting.take() {
                    let _ = waiting.send(Err(error));
                }
            }
        }
    }
}
