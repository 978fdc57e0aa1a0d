//! `POST /v1/query`: one statement over one snapshot.
//!
//! DuckDB blocks, so a statement runs on a thread of tokio's blocking pool (with 16 MiB of stack).
//! That thread encodes and compresses as it fetches. A small answer comes back whole; a large one as a stream whose
//! first part was made before the status line, so that most errors still get a status of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRAILER, VARY,
};
use hyper::{Request, Response};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::Span;

use super::App;
use super::accept::{self, Codings};
use super::body::{self, Aborted, BoxBody, Stream};
use super::compress::{Coding, Compressor};
use super::problem::{self, Problem};
use super::routes::MARTD_SNAPSHOT;
use super::slots::{Slot, Stop};
use crate::catalog::{Snapshot, State};
use crate::encode::{Encoder, Format, Summary};
use crate::engine::{Checked, Parameters, QueryError, Rows, Session, Value};

/// Rows of an answer when the request does not say.
const DEFAULT_LIMIT: u64 = 10_000;
/// How long a request body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer up to this size comes whole; a larger one is streamed in parts of about this size.
const PART_BYTES: usize = 256 << 10;
/// Parts that wait for a slow client.
const PARTS_AHEAD: usize = 2;
/// A client that takes no bytes for this long is gone.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Whether the statement had more rows than the answer: a header of a whole answer, the trailer of a
/// stream.
const MARTD_TRUNCATED: HeaderName = HeaderName::from_static("martd-truncated");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    sql: String,
    #[serde(default)]
    params: Json,
    limit: Option<u64>,
    timeout_ms: Option<u64>,
}

/// A request that is well-formed.
#[derive(Debug)]
struct Query {
    sql: String,
    parameters: Parameters,
    limit: u64,
    timeout: Duration,
}

/// Answers one query over the state that the request loaded.
pub(super) async fn answer(
    app: &App,
    state: &State,
    request: Request<Incoming>,
    format: Option<&str>,
) -> Result<Response<BoxBody>, Problem> {
    let started = Instant::now();
    let format = accept::format(format, request.headers())?;
    let codings = accept::codings(request.headers())?;
    let snapshot = snapshot_asked_for(app, state, &request)?;
    let query = read(app, request).await?;
    let slot = app.slots().take().await?;
    let stop = StopOnDrop(slot.stop());
    let (sender, receiver) = oneshot::channel();
    let limit = query.timeout;
    let id = snapshot.id.clone();
    let job = Job {
        app: app.clone(),
        snapshot,
        query,
        format,
        codings,
        slot,
        started,
        answer: Answer { head: Some(sender), parts: None, runtime: Handle::current() },
    };
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(|| job.run()));

    let head = timeout(limit, receiver).await.map_err(|_| timed_out(limit))?;
    let head = head.map_err(|_| Problem::internal("the query's thread panicked"))??;
    let mut headers = HeaderMap::new();
    let (content, coding) = match head {
        Head::Whole { bytes, coding, truncated } => {
            headers.insert(MARTD_TRUNCATED, truth(truncated));
            (body::full(bytes), coding)
        }
        Head::Stream { first, rest } => {
            headers.insert(TRAILER, HeaderValue::from_name(MARTD_TRUNCATED));
            // The statement's time goes on, without what a slow client takes.
            let stream = Guarded { stream: Stream::new(first, rest), _stop: stop };
            (stream.boxed_unsync(), codings.best)
        }
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if coding != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    headers.insert(MARTD_SNAPSHOT, HeaderValue::try_from(id).map_err(Problem::internal)?);
    let mut response = Response::new(content);
    *response.headers_mut() = headers;
    Ok(response)
}

fn truth(truth: bool) -> HeaderValue {
    HeaderValue::from_static(if truth { "true" } else { "false" })
}

/// The snapshot that the request names by its header, or the current one.
fn snapshot_asked_for<B>(
    app: &App,
    state: &State,
    request: &Request<B>,
) -> Result<Arc<Snapshot>, Problem> {
    let Some(id) = request.headers().get(MARTD_SNAPSHOT) else {
        let current = state.snapshot.clone();
        return current.ok_or_else(|| super::probes::not_ready(app, state));
    };
    let found = id.to_str().ok().and_then(|id| state.snapshot_by_id(id));
    found.cloned().ok_or_else(|| {
        let detail = "that snapshot is not kept any more (MARTD_RETAIN); ask again without the \
                      header Martd-Snapshot";
        Problem::new(problem::SNAPSHOT_GONE, detail)
    })
}

fn timed_out(limit: Duration) -> Problem {
    let detail = format!(
        "the query was stopped after {} ms; ask for less, or for more time with timeout_ms",
        limit.as_millis()
    );
    Problem::new(problem::QUERY_TIMEOUT, detail)
}

/// Stops the query when the client goes away.
#[derive(Debug)]
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.ask();
    }
}

async fn read(app: &App, request: Request<Incoming>) -> Result<Query, Problem> {
    let is_json = match content_type(&request) {
        None | Some("application/json") => true,
        Some("text/plain") => false,
        Some(other) => {
            let detail = format!("{other} is not understood; send application/json or text/plain");
            return Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail));
        }
    };
    let max_bytes = app.settings().max_body_bytes;
    let limited =
        Limited::new(request.into_body(), usize::try_from(max_bytes).unwrap_or(usize::MAX));
    let bytes = match timeout(BODY_TIMEOUT, limited.collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body may have {max_bytes} bytes at most");
            return Err(Problem::new(problem::PAYLOAD_TOO_LARGE, detail));
        }
        Ok(Err(error)) => return Err(Problem::bad_request(format!("the body broke off: {error}"))),
        Err(_) => {
            let detail = format!("the body was not there after {} s", BODY_TIMEOUT.as_secs());
            return Err(Problem::new(problem::BODY_TIMEOUT, detail));
        }
    };
    let body = if is_json {
        serde_json::from_slice(&bytes)
            .map_err(|error| Problem::bad_request(format!("the body does not parse: {error}")))?
    } else {
        let sql = String::from_utf8(bytes.into())
            .map_err(|_| Problem::bad_request("the statement is not UTF-8"))?;
        Body { sql, params: Json::Null, limit: None, timeout_ms: None }
    };
    check(app, body)
}

fn content_type<B>(request: &Request<B>) -> Option<&str> {
    let value = request.headers().get(CONTENT_TYPE)?;
    Some(value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim())
}

fn check(app: &App, body: Body) -> Result<Query, Problem> {
    let settings = app.settings();
    if body.limit.is_some_and(|limit| limit > settings.max_rows) {
        let detail = format!("limit may be {} at most (MARTD_MAX_ROWS)", settings.max_rows);
        return Err(Problem::bad_request(detail));
    }
    let most = settings.query_timeout;
    let timeout = match body.timeout_ms.map(Duration::from_millis) {
        Some(asked) if asked > most || asked.is_zero() => {
            let detail =
                format!("timeout_ms may be 1 to {} (MARTD_QUERY_TIMEOUT)", most.as_millis());
            return Err(Problem::bad_request(detail));
        }
        Some(asked) => asked,
        None => most,
    };
    let limit = body.limit.unwrap_or(DEFAULT_LIMIT.min(settings.max_rows));
    Ok(Query { sql: body.sql, parameters: parameters(&body.params)?, limit, timeout })
}

fn parameters(json: &Json) -> Result<Parameters, Problem> {
    let value = |name: &str, json: &Json| {
        Value::from_json(json)
            .map_err(|error| Problem::bad_request(format!("parameter {name} {error}")))
    };
    match json {
        Json::Null => Ok(Parameters::default()),
        Json::Array(items) => items
            .iter()
            .zip(1..)
            .map(|(item, place): (&Json, usize)| value(&format!("number {place}"), item))
            .collect::<Result<_, _>>()
            .map(Parameters::Positional),
        Json::Object(members) => members
            .iter()
            .map(|(name, item)| Ok((name.clone(), value(&format!("${name}"), item)?)))
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map(Parameters::Named),
        _ => Err(Problem::bad_request("params must be a list or an object")),
    }
}

/// What the thread that runs the statement needs.
struct Job {
    app: App,
    snapshot: Arc<Snapshot>,
    query: Query,
    format: Format,
    codings: Codings,
    slot: Slot,
    started: Instant,
    answer: Answer,
}

impl Job {
    fn run(mut self) {
        if self.slot.stop().is_asked() {
            return; // the client left while this waited for a thread
        }
        if let Err(problem) = self.execute() {
            self.answer.fail(problem);
        }
    }

    fn execute(&mut self) -> Result<(), Problem> {
        let checked = self.app.gate().check(&self.query.sql)?;
        let session = self.snapshot.instance.session().map_err(Problem::internal)?;
        self.slot.enforce(session.interrupter());
        let deadline = Deadline::start(self.started + self.query.timeout, self.slot.stop());
        let outcome = self.fetch(&session, &checked, &deadline);
        outcome.map_err(|failure| match failure {
            QueryError::Interrupted if deadline.has_passed() => timed_out(self.query.timeout),
            other => other.into(),
        })
    }

    fn fetch(
        &mut self,
        session: &Session,
        checked: &Checked,
        deadline: &Deadline,
    ) -> Result<(), QueryError> {
        let Self { app, snapshot, query, format, codings, started, answer, .. } = self;
        let max_bytes = app.settings().max_result_bytes;
        session.query(&query.sql, checked, &query.parameters, |rows: &mut Rows<'_>| {
            let mut compressor = Compressor::new(codings.best);
            let mut out = Vec::new();
            let mut sent_bytes = 0_u64;
            let mut truncated = false;
            let mut encoder = Encoder::begin(*format, &mut out, rows.columns())?;
            while let Some(chunk) = session.next_chunk(rows)? {
                let bytes = sent_bytes + (out.len() + encoder.kept_bytes()) as u64;
                let room = if bytes > max_bytes { 0 } else { query.limit - encoder.rows() };
                let take = chunk.rows().min(usize::try_from(room).unwrap_or(usize::MAX));
                encoder.chunk(&mut out, &chunk, take)?;
                truncated = take < chunk.rows();
                if truncated {
                    break;
                }
                if out.len() >= PART_BYTES {
                    sent_bytes += out.len() as u64;
                    let part = compressor.part(std::mem::take(&mut out));
                    deadline.pause(|| answer.part(part))?;
                }
            }
            let summary = Summary { truncated, snapshot: &snapshot.id, elapsed: started.elapsed() };
            encoder.end(&mut out, summary)?;
            let coding =
                if answer.has_begun() { codings.best } else { codings.for_whole(out.len()) };
            let last = if coding == codings.best { compressor.last(out) } else { out };
            deadline.pause(|| answer.last(last, coding, truncated))
        })
    }
}

/// Asks a statement to stop when its time is over. Time in which the client did not take bytes
/// does not count.
struct Deadline {
    at: tokio::sync::watch::Sender<tokio::time::Instant>,
    stop: Stop,
}

impl Deadline {
    fn start(at: Instant, stop: Stop) -> Self {
        let (sender, mut receiver) =
            tokio::sync::watch::channel(tokio::time::Instant::from_std(at));
        let asked = stop.clone();
        Handle::current().spawn(async move {
            loop {
                let at = *receiver.borrow_and_update();
                tokio::select! {
                    () = tokio::time::sleep_until(at) => return asked.ask(),
                    changed = receiver.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { at: sender, stop }
    }

    fn has_passed(&self) -> bool {
        self.stop.is_asked() && tokio::time::Instant::now() >= *self.at.borrow()
    }

    /// Runs `wait` with the clock stopped.
    fn pause<R>(&self, wait: impl FnOnce() -> R) -> R {
        let before = tokio::time::Instant::now();
        let left = self.at.borrow().saturating_duration_since(before);
        self.at.send_replace(before + left + STALL_TIMEOUT);
        let result = wait();
        self.at.send_replace(tokio::time::Instant::now() + left);
        result
    }
}

/// The thread's way to the client.
struct Answer {
    head: Option<oneshot::Sender<Result<Head, Problem>>>,
    parts: Option<mpsc::Sender<Result<Frame<Bytes>, Aborted>>>,
    runtime: Handle,
}

#[derive(Debug)]
enum Head {
    Whole { bytes: Bytes, coding: Coding, truncated: bool },
    Stream { first: Bytes, rest: mpsc::Receiver<Result<Frame<Bytes>, Aborted>> },
}

impl Answer {
    /// Whether the client has a part already.
    fn has_begun(&self) -> bool {
        self.head.is_none()
    }

    /// Sends a part that others will follow.
    fn part(&mut self, bytes: Vec<u8>) -> Result<(), QueryError> {
        match self.head.take() {
            Some(head) => {
                let (sender, rest) = mpsc::channel(PARTS_AHEAD);
                self.parts = Some(sender);
                head.send(Ok(Head::Stream { first: bytes.into(), rest }))
                    .map_err(|_| QueryError::Interrupted)
            }
            None => self.send(Ok(Frame::data(bytes.into()))),
        }
    }

    /// Sends the last part, or a small answer as a whole.
    fn last(&mut self, bytes: Vec<u8>, coding: Coding, truncated: bool) -> Result<(), QueryError> {
        match self.head.take() {
            Some(head) => head
                .send(Ok(Head::Whole { bytes: bytes.into(), coding, truncated }))
                .map_err(|_| QueryError::Interrupted),
            None => {
                self.send(Ok(Frame::data(bytes.into())))?;
                let trailers = HeaderMap::from_iter([(MARTD_TRUNCATED, truth(truncated))]);
                self.send(Ok(Frame::trailers(trailers)))
            }
        }
    }

    /// Tells the client of a problem; once the status line is out, by cutting the connection.
    fn fail(&mut self, problem: Problem) {
        match self.head.take() {
            Some(head) => drop(head.send(Err(problem))), // the client may have left
            None => drop(self.send(Err(Aborted(format!("{problem:?}"))))),
        }
    }

    fn send(&self, part: Result<Frame<Bytes>, Aborted>) -> Result<(), QueryError> {
        let Some(parts) = &self.parts else { return Err(QueryError::Interrupted) };
        match self.runtime.block_on(timeout(STALL_TIMEOUT, parts.send(part))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(QueryError::Interrupted),
        }
    }
}

/// A streamed body that stops its query when it is dropped, for whatever reason.
struct Guarded {
    stream: Stream,
    _stop: StopOnDrop,
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        std::pin::Pin::new(&mut self.stream).poll_frame(context)
    }
}
