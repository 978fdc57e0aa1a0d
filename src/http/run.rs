//! The thread that runs a statement, and encodes and compresses as it fetches.
//!
//! DuckDB blocks, so this is one of [the threads for that](super::threads), with 16 MiB of stack. A
//! small answer comes back whole; a large one as a stream whose first part was made before the
//! status line, so that most errors still get a status of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::header::{HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::accept::Wanted;
use super::body::{Aborted, PARTS_AHEAD, Parts};
use super::cache::Stored;
use super::compress::Compressor;
use super::exchange::Facts;
use super::problem::Problem;
use super::request::Query;
use super::slots::Slot;
use crate::catalog::Snapshot;
use crate::encode::{Encoder, Summary};
use crate::engine::{Answer, QueryError, Scope};
use crate::sql_gate::ValidatedStatement;

/// An answer up to this size comes whole, and can be kept: a thousand wide rows are. A larger one is
/// streamed.
const WHOLE_BYTES: usize = 1 << 20;
/// The parts of a stream after the first.
const PART_BYTES: usize = 256 << 10;

/// Whether rows were left out: a header of a whole answer, the trailer of a stream.
pub(super) const MARTD_TRUNCATED: HeaderName = HeaderName::from_static("martd-truncated");

/// A truth value as the value of a header.
pub(super) fn truth(truth: bool) -> HeaderValue {
    HeaderValue::from_static(if truth { "true" } else { "false" })
}

/// A query that is to be answered.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) query: Query,
    pub(super) wanted: Wanted,
    pub(super) checked: Arc<ValidatedStatement>,
    pub(super) scope: Scope,
    pub(super) started: Instant,
    /// The largest answer.
    pub(super) max_bytes: u64,
}

impl Task {
    fn send(&self, answer: &mut Answer<'_, '_>, client: &mut Client) -> Result<(), QueryError> {
        let limits = Limits { rows: self.query.limit, bytes: self.max_bytes };
        let summary = |truncated| Summary {
            truncated,
            snapshot: &self.snapshot.id,
            elapsed: self.started.elapsed(),
        };
        send(answer, self.wanted, limits, summary, client)
    }
}

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) task: Arc<Task>,
    pub(super) slot: Slot,
    pub(super) cancel: CancellationToken,
    /// A client that takes no bytes for this long is gone.
    pub(super) stall: Duration,
    /// Where the rows of a stream are told.
    pub(super) facts: Facts,
    /// Where the answer's head goes.
    pub(super) head: oneshot::Sender<Result<Head, Problem>>,
}

/// The beginning of an answer, which decides its status.
#[derive(Debug)]
pub(super) enum Head {
    /// All of it.
    Whole(Stored),
    /// Its first part, and where the others come from.
    Stream(Bytes, Parts),
}

impl Job {
    /// Runs the statement. Blocks.
    pub(super) fn run(self) {
        let Self { task, slot, cancel, stall, facts, head } = self;
        let Task { snapshot, query, checked, scope, started, .. } = &*task;
        if cancel.is_cancelled() {
            // The client left while this waited for a thread.
            return drop(head.send(Err(Problem::cancelled())));
        }
        let runtime = Handle::current();
        let deadline = Deadline::start(*started + query.timeout, cancel.clone(), stall);
        let mut client = Client { head: Some(head), parts: None, deadline, facts, runtime };
        let mut session = match snapshot.instance.session() {
            Ok(session) => session,
            Err(error) => return client.fail(error.into()),
        };
        slot.enforce(cancel, session.interrupter());
        let send = |answer: &mut Answer<'_, '_>| task.send(answer, &mut client);
        let outcome = session.query(&query.sql, checked, &query.parameters, scope, send);
        if let Err(error) = outcome {
            client.fail(match error {
                QueryError::Interrupted if client.deadline.has_passed() => {
                    Problem::timed_out(query.timeout)
                }
                other => other.into(),
            });
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    rows: u64,
    bytes: u64,
}

fn send<'s>(
    answer: &mut Answer<'_, '_>,
    wanted: Wanted,
    limits: Limits,
    summary: impl FnOnce(bool) -> Summary<'s>,
    client: &mut Client,
) -> Result<(), QueryError> {
    let mut compressor = Compressor::new(wanted.codings.best);
    let mut out = Vec::new();
    let mut sent_bytes = 0_u64;
    let mut truncated = false;
    let mut encoder = Encoder::begin(wanted.format, &mut out, answer.columns())?;
    while let Some(chunk) = answer.next_chunk()? {
        let bytes = sent_bytes + (out.len() + encoder.kept_bytes()) as u64;
        let room = if bytes > limits.bytes { 0 } else { limits.rows - encoder.rows() };
        let take = chunk.rows().min(usize::try_from(room).unwrap_or(usize::MAX));
        truncated = take < chunk.rows();
        encoder.chunk(&mut out, chunk, take)?;
        if truncated {
            break;
        }
        if out.len() >= if client.has_begun() { PART_BYTES } else { WHOLE_BYTES } {
            sent_bytes += out.len() as u64;
            let part = match compressor.part(&out) {
                Some(packed) => {
                    out.clear();
                    packed.into()
                }
                None => std::mem::take(&mut out).into(),
            };
            client.part(part, encoder.rows())?;
        }
    }
    let rows = encoder.rows();
    encoder.end(&mut out, summary(truncated))?;
    let best = wanted.codings.best;
    let coding = if client.has_begun() { best } else { wanted.codings.for_whole(out.len()) };
    let packed = if coding == best { compressor.last(&out) } else { None };
    let mut bytes = packed.unwrap_or(out);
    bytes.shrink_to_fit(); // it may be kept
    let bytes = Bytes::from(bytes);
    let last = Stored { bytes, coding, truncated, rows };
    client.last(last)
}

/// Asks a statement to stop when its time is over. Time in which the client did not take bytes
/// does not count.
struct Deadline {
    at: watch::Sender<tokio::time::Instant>,
    cancel: CancellationToken,
    stall: Duration,
}

impl Deadline {
    fn start(at: Instant, cancel: CancellationToken, stall: Duration) -> Self {
        let (sender, mut receiver) = watch::channel(tokio::time::Instant::from_std(at));
        let token = cancel.clone();
        Handle::current().spawn(async move {
            loop {
                let at = *receiver.borrow_and_update();
                tokio::select! {
                    () = tokio::time::sleep_until(at) => return token.cancel(),
                    changed = receiver.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { at: sender, cancel, stall }
    }

    fn has_passed(&self) -> bool {
        self.cancel.is_cancelled() && tokio::time::Instant::now() >= *self.at.borrow()
    }

    /// Runs `wait` with the clock stopped.
    fn pause<R>(&self, wait: impl FnOnce() -> R) -> R {
        let before = tokio::time::Instant::now();
        let left = self.at.borrow().saturating_duration_since(before);
        self.at.send_replace(before + left + self.stall + Duration::from_secs(1));
        let result = wait();
        self.at.send_replace(tokio::time::Instant::now() + left);
        result
    }
}

/// The thread's way to the client.
struct Client {
    head: Option<oneshot::Sender<Result<Head, Problem>>>,
    parts: Option<mpsc::Sender<Result<Frame<Bytes>, Aborted>>>,
    deadline: Deadline,
    facts: Facts,
    runtime: Handle,
}

impl Client {
    /// Whether the client has a part already.
    fn has_begun(&self) -> bool {
        self.head.is_none()
    }

    /// Takes a part that others will follow, after which so many rows are sent.
    fn part(&mut self, bytes: Bytes, rows: u64) -> Result<(), QueryError> {
        self.facts.rows(rows);
        match self.head.take() {
            Some(head) => {
                let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
                self.parts = Some(sender);
                head.send(Ok(Head::Stream(bytes, receiver))).map_err(|_| QueryError::Interrupted)
            }
            None => self.send(Ok(Frame::data(bytes))),
        }
    }

    /// Takes the last part, or a small answer as a whole.
    fn last(&mut self, last: Stored) -> Result<(), QueryError> {
        match self.head.take() {
            Some(head) => head.send(Ok(Head::Whole(last))).map_err(|_| QueryError::Interrupted),
            None => {
                self.facts.rows(last.rows);
                self.send(Ok(Frame::data(last.bytes)))?;
                let trailers = HeaderMap::from_iter([(MARTD_TRUNCATED, truth(last.truncated))]);
                self.send(Ok(Frame::trailers(trailers)))
            }
        }
    }

    /// Tells the client of a problem; once the status line is out, by cutting the connection.
    fn fail(&mut self, problem: Problem) {
        match self.head.take() {
            Some(head) => drop(head.send(Err(problem))), // the client may have left
            None => drop(self.send(Err(Aborted {
                reason: problem.detail().to_owned(),
                outcome: problem.outcome(),
            }))),
        }
    }

    fn send(&self, part: Result<Frame<Bytes>, Aborted>) -> Result<(), QueryError> {
        let Some(parts) = &self.parts else { return Err(QueryError::Interrupted) };
        // Most often there is room, and nothing to wait for.
        let sent = match parts.try_send(part) {
            Err(TrySendError::Full(part)) => self.deadline.pause(|| {
                let sending = timeout(self.deadline.stall, parts.send(part));
                self.runtime.block_on(sending).is_ok_and(|sent| sent.is_ok())
            }),
            sent => sent.is_ok(),
        };
        if sent { Ok(()) } else { Err(QueryError::Interrupted) }
    }
}
