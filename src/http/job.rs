//! A query on its way through a slot and the engine, and what comes back as a body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;
use tracing::{Instrument, Span};

use super::App;
use super::body::{self, Aborted, BoxBody};
use super::cache::{CallOutcome, Key, SharedCall, Stored};
use super::exchange::RequestRecord;
use super::metrics_guard::MetricsGuard;
use super::problem::Problem;
use super::queries::QueryHandle;
use super::request::QueryRequest;
use crate::catalog::Snapshot;
use crate::engine::{self, Head, Part, Principal, QueryError, QueryJob};
use crate::metrics::CacheResult;

/// Whether rows were left out: a header of a whole answer, the trailer of a stream.
pub(super) const MARTD_TRUNCATED: HeaderName = HeaderName::from_static("martd-truncated");

/// A truth value as the value of a header.
pub(super) fn truth(truth: bool) -> HeaderValue {
    HeaderValue::from_static(if truth { "true" } else { "false" })
}

/// After its deadline a query has so long to say why it was not answered.
const OUTCOME_WITHIN: Duration = Duration::from_millis(500);

/// A query that is to be answered.
#[derive(Debug)]
pub(super) struct QueryTask {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) query: QueryRequest,
    pub(super) principal: Principal,
    pub(super) started: Instant,
}

impl QueryTask {
    /// When it must be answered.
    pub(super) fn deadline(&self) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started) + self.query.timeout
    }
}

/// What is sent.
pub(super) enum Content {
    Whole(Stored),
    Stream(Box<AnswerStream>),
}

impl Content {
    pub(super) fn into_body(self) -> BoxBody {
        match self {
            Self::Whole(stored) => body::full(stored.bytes),
            Self::Stream(stream) => stream.boxed_unsync(),
        }
    }
}

type Parts = mpsc::Receiver<Result<Part, QueryError>>;

/// Runs a query that the cache does not answer, or waits for one like it that is under way. Also says which of
/// the two. The answer is kept under the key, if it may be.
pub(super) async fn run(
    app: &App,
    task: Arc<QueryTask>,
    key: Option<Key>,
    record: RequestRecord,
    handle: QueryHandle,
) -> Result<(Content, CacheResult), Problem> {
    let (limit, deadline) = (task.query.timeout, task.deadline());
    let (stream, mut streamed) = mpsc::channel(1);
    let start = || start(app, &task, key, &record, stream);
    let (call, joined) = match key {
        Some(key) => app.answers.join(key, start),
        None => (Arc::new(start()), false),
    };
    // Its own call says at the deadline what it waited for; another's may go on for longer.
    let patience = if joined { deadline } else { deadline + OUTCOME_WITHIN };
    let outcome = tokio::select! {
        outcome = call.outcome() => outcome,
        () = handle.cancelled() => return Err(Problem::cancelled()),
        () = tokio::time::sleep_until(patience) => return Err(Problem::timed_out(limit)),
    };
    match outcome {
        Some(CallOutcome::Whole(stored)) => {
            let result = if joined { CacheResult::Collapsed } else { CacheResult::Miss };
            Ok((Content::Whole(stored), result))
        }
        Some(CallOutcome::Problem(problem)) if !(joined && problem.is_timeout()) => {
            Err((*problem).clone())
        }
        Some(CallOutcome::Taken) if !joined => {
            let (first, rows, parts) = streamed.recv().await.ok_or_else(gone)?;
            handle.streams(call.cancel.token().clone());
            let stream = AnswerStream {
                first: Some((first, rows)),
                parts,
                trailers: None,
                has_ended: false,
                limit,
                record,
                _cancel: Arc::clone(&call.cancel),
                _handle: handle,
                guard: None,
            };
            Ok((Content::Stream(Box::new(stream)), CacheResult::Miss))
        }
        // What the other got cannot be shared, or the other had less time left: run it.
        Some(_) => Box::pin(run(app, task, None, record, handle)).await,
        None => Err(gone()),
    }
}

/// Begins: a slot, then the engine.
fn start(
    app: &App,
    task: &Arc<QueryTask>,
    key: Option<Key>,
    record: &RequestRecord,
    stream: mpsc::Sender<(Bytes, u64, Parts)>,
) -> SharedCall {
    let cancel = app.slots.token();
    let (land, outcome) = watch::channel(None);
    let (app, task, record) = (app.clone(), Arc::clone(task), record.clone());
    let token = cancel.clone();
    let call = async move {
        let deadline = task.deadline();
        let queued = Instant::now();
        let taken = app.slots.take(task.principal, deadline).await;
        record.lock().waited = queued.elapsed();
        let slot = match taken {
            Ok(slot) => slot,
            Err(problem) => {
                land.send_replace(Some(CallOutcome::Problem(Arc::new(problem))));
                return;
            }
        };
        let (head_sender, head) = oneshot::channel();
        let query = engine::Query {
            lease: Arc::clone(&task.snapshot.lease),
            job: QueryJob { elapsed: task.started.elapsed(), ..task.query.job.clone() },
            principal: task.principal,
            deadline,
            cancel: token,
            stall: app.settings.timeouts.stall,
        };
        let asking = app.clone();
        // A task of its own, which is not aborted: it holds the slot until the engine has let go.
        let asked = async move {
            asking.engine.query(query, head_sender).await;
            drop(slot);
        };
        tokio::spawn(asked.in_current_span());
        let outcome = match head.await {
            Ok(Ok(Head::Whole(end, bytes))) => {
                let stored =
                    Stored { bytes, coding: end.coding, truncated: end.truncated, rows: end.rows };
                if let Some(key) = key {
                    app.answers.put(key, stored.clone());
                }
                CallOutcome::Whole(stored)
            }
            Ok(Ok(Head::Stream { first, rows, parts })) => {
                let _ = stream.send((first, rows, parts)).await; // the client may have left
                CallOutcome::Taken
            }
            Ok(Err(error)) => {
                CallOutcome::Problem(Arc::new(Problem::of_query(error, task.query.timeout)))
            }
            Err(_) => CallOutcome::Problem(Arc::new(gone())),
        };
        land.send_replace(Some(outcome));
    };
    let mut task = JoinSet::new();
    task.spawn(call.instrument(Span::current()));
    SharedCall { outcome, cancel: Arc::new(cancel.drop_guard()), _task: task }
}

fn gone() -> Problem {
    Problem::internal("a query ended without an answer")
}

/// A streamed body. It stops its query when it is dropped, for whatever reason.
pub(super) struct AnswerStream {
    first: Option<(Bytes, u64)>,
    parts: Parts,
    /// What follows the last part.
    trailers: Option<HeaderMap>,
    has_ended: bool,
    /// The time that the query had.
    limit: std::time::Duration,
    record: RequestRecord,
    _cancel: Arc<DropGuard>,
    _handle: QueryHandle,
    /// Counts the query when this is dropped.
    pub(super) guard: Option<MetricsGuard>,
}

impl AnswerStream {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if let Some((first, rows)) = self.first.take() {
            self.record.lock().rows = rows;
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(trailers) = self.trailers.take() {
            self.has_ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.parts.poll_recv(context)) {
            Some(Ok(Part::More(bytes, rows))) => {
                self.record.lock().rows = rows;
                Ok(Frame::data(bytes))
            }
            Some(Ok(Part::Last(end, bytes))) => {
                self.record.lock().rows = end.rows;
                self.trailers =
                    Some(HeaderMap::from_iter([(MARTD_TRUNCATED, truth(end.truncated))]));
                Ok(Frame::data(bytes))
            }
            Some(Err(error)) => {
                self.has_ended = true;
                let problem = Problem::of_query(error, self.limit);
                let (reason, outcome) = (problem.detail().to_owned(), problem.outcome());
                Err(Aborted { reason, outcome, problem: Some(problem) })
            }
            None => {
                // What looks like a whole answer must be one.
                self.has_ended = true;
                Err(Aborted::error("the maker of the answer is gone"))
            }
        }))
    }
}

impl Body for AnswerStream {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let polled = self.next(context);
        if let (Poll::Ready(Some(frame)), Some(guard)) = (&polled, &mut self.guard) {
            match frame {
                Ok(frame) if frame.is_trailers() => guard.ended(),
                Ok(frame) => guard.sent_part(frame.data_ref().map_or(0, Bytes::len)),
                Err(aborted) => guard.broke_off(aborted),
            }
        }
        polled
    }
}
