//! `/v1/query`: one statement over one snapshot.
//!
//! The way of a query: who asks and which rows they may see; the snapshot; the request; the gate; the
//! cache; and, if it is not answered by then, a slot and a thread ([`super::run`]).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    TRAILER, VARY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::DropGuard;
use tracing::Span;

use http_body_util::BodyExt;

use super::App;
use super::accept::Wanted;
use super::access::Caller;
use super::arguments::Arguments;
use super::body::{self, Aborted, BoxBody, Parts, Stream};
use super::cache::{Flight, Key, Landing, Stored};
use super::compress::Coding;
use super::exchange::Facts;
use super::problem::{self, Problem};
use super::queries::Ticket;
use super::request::Query;
use super::routes::MARTD_SNAPSHOT;
use super::run::{self, Head, Job, MARTD_TRUNCATED, Task};
use super::tally::Tally;
use crate::catalog::{Snapshot, State};
use crate::engine::Scope;
use crate::metrics::CacheResult;
use crate::sql_gate::{Rejection, ValidatedStatement};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What an answer depends on beside its URL.
const VARIES_BY: &str = "Accept, Accept-Encoding, Authorization, Martd-Scope, Martd-Snapshot";

/// Answers one query over the state that the request loaded.
pub(super) async fn answer(
    app: &App,
    state: &State,
    caller: &Caller,
    ticket: Ticket,
    facts: Facts,
    arguments: &Arguments,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Problem> {
    let mut tally = Tally::start(app.metrics().clone(), facts);
    match respond(app, state, caller, ticket, arguments, request, &mut tally).await {
        Ok((headers, content)) => Ok(content.into_response(headers, tally)),
        Err(problem) => {
            tally.failed(&problem);
            Err(problem)
        }
    }
}

/// The headers and the content of the answer.
async fn respond(
    app: &App,
    state: &State,
    caller: &Caller,
    ticket: Ticket,
    arguments: &Arguments,
    request: Request<Incoming>,
    tally: &mut Tally,
) -> Result<(HeaderMap, Content), Problem> {
    let facts = tally.facts().clone();
    let wanted = Wanted::of(arguments, request.headers())?;
    tally.in_format(wanted.format);
    let scope = caller.scope(app.settings().scope_column.as_deref(), request.headers())?;
    let headers = request.headers().clone();
    let conditional = request.method() == Method::GET || request.method() == Method::HEAD;
    let query = Query::read(app, arguments, request).await?;
    facts.statement(&query.sql, app.settings().log_sql);
    let snapshot = snapshot_asked_for(app, state, &headers)?;
    let checked = check(app, &query.sql).await?;

    let key = checked.cacheable.then(|| key(app, &snapshot, &query, wanted, &scope));
    if let Some(key) = key.filter(|_| conditional) {
        let etag = key.etag();
        if headers.get(IF_NONE_MATCH).is_some_and(|known| names(known, &etag)) {
            app.metrics().cache(CacheResult::Revalidated);
            let mut headers = HeaderMap::new();
            describe(&mut headers, &snapshot, Some(key));
            return Ok((headers, Content::Unchanged));
        }
    }
    let (content, cache) = match key.and_then(|key| app.answers().get(&key)) {
        Some(stored) => (Content::Whole(stored), CacheResult::Hit),
        None => {
            let task = Task {
                snapshot: Arc::clone(&snapshot),
                query,
                wanted,
                checked,
                scope,
                started: tally.started(),
                max_bytes: app.settings().max_result_bytes,
            };
            let work = Work { app, task: Arc::new(task), key, facts: facts.clone() };
            work.answer(ticket).await?
        }
    };
    app.metrics().cache(if key.is_some() { cache } else { CacheResult::Bypass });
    let mut headers = HeaderMap::new();
    let coding = match &content {
        Content::Whole(stored) => {
            facts.rows(stored.rows);
            headers.insert(MARTD_TRUNCATED, run::truth(stored.truncated));
            stored.coding
        }
        Content::Unchanged => Coding::Identity,
        Content::Stream(_) => {
            headers.insert(TRAILER, HeaderValue::from_name(MARTD_TRUNCATED));
            wanted.codings.best
        }
    };
    if coding != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(wanted.format.content_type()));
    describe(&mut headers, &snapshot, key);
    if key.is_some() {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(cache)));
    }
    Ok((headers, content))
}

/// In the words of RFC 9211.
fn cache_status(result: CacheResult) -> &'static str {
    match result {
        CacheResult::Hit | CacheResult::Revalidated => "martd; hit",
        CacheResult::Collapsed => "martd; fwd=miss; collapsed",
        CacheResult::Miss | CacheResult::Bypass => "martd; fwd=miss",
    }
}

/// Headers that an answer has whether it is sent whole or as 304.
fn describe(headers: &mut HeaderMap, snapshot: &Snapshot, key: Option<Key>) {
    headers.insert(VARY, HeaderValue::from_static(VARIES_BY));
    // Kept by the client alone, and asked for again each time: another snapshot may be there.
    let control = if key.is_some() { "private, no-cache" } else { "no-store" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
    if let Some(key) = key {
        headers.insert(ETAG, key.etag());
    }
    if let Ok(id) = HeaderValue::from_str(&snapshot.id) {
        headers.insert(MARTD_SNAPSHOT, id);
    }
}

/// Whether `If-None-Match` has this tag. Weak tags are compared as they are. A `*` has none: it would
/// say of a statement that was never answered that its answer has not changed.
pub(super) fn names(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else { return false };
    let strong = etag.trim_start_matches("W/");
    known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == strong)
}

fn key(app: &App, snapshot: &Snapshot, query: &Query, wanted: Wanted, scope: &Scope) -> Key {
    let parameters = format!("{:?}", query.parameters);
    let scope = format!("{scope:?}");
    let wanted = format!("{wanted:?}");
    Key::of([
        snapshot.id.as_bytes(),
        query.sql.as_bytes(),
        parameters.as_bytes(),
        scope.as_bytes(),
        wanted.as_bytes(),
        &query.limit.to_le_bytes(),
        app.settings().time_zone.as_bytes(),
    ])
}

/// The gate's word, which is remembered; a new statement is judged on a thread with a large stack.
async fn check(app: &App, sql: &str) -> Result<Arc<ValidatedStatement>, Problem> {
    if let Some(word) = app.gate().recall(sql) {
        return Ok(word?);
    }
    let (app, sql) = (app.clone(), sql.to_owned());
    let _permit = app.parsers().acquire().await.expect("never closed");
    let judging = app.threads().ask({
        let app = app.clone();
        move || app.gate().validate(&sql)
    });
    let word: Option<Result<Arc<ValidatedStatement>, Rejection>> = judging.await;
    Ok(word.ok_or_else(|| Problem::internal("the gate panicked"))??)
}

/// The snapshot that the request names by its header, or the current one.
pub(super) fn snapshot_asked_for(
    app: &App,
    state: &State,
    headers: &HeaderMap,
) -> Result<Arc<Snapshot>, Problem> {
    let Some(id) = headers.get(MARTD_SNAPSHOT) else {
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

/// A query that the cache does not answer.
struct Work<'a> {
    app: &'a App,
    task: Arc<Task>,
    key: Option<Key>,
    facts: Facts,
}

impl Work<'_> {
    /// Runs the query, or waits for one like it that is under way. Also says which of the two.
    async fn answer(self, ticket: Ticket) -> Result<(Content, CacheResult), Problem> {
        let limit = self.task.query.timeout;
        let deadline = tokio::time::Instant::from_std(self.task.started) + limit;
        let (stream, mut streamed) = mpsc::channel(1);
        let start = || self.start(stream);
        let (flight, joined) = match self.key {
            Some(key) => self.app.answers().join(key, start),
            None => (Arc::new(start()), false),
        };
        let landing = tokio::select! {
            landing = flight.landed() => landing,
            () = ticket.cancelled() => return Err(Problem::cancelled()),
            () = tokio::time::sleep_until(deadline) => return Err(Problem::timed_out(limit)),
        };
        match landing {
            Some(Landing::Whole(stored)) => {
                let result = if joined { CacheResult::Collapsed } else { CacheResult::Miss };
                Ok((Content::Whole(stored), result))
            }
            Some(Landing::Problem(problem)) if !(joined && problem.is_timeout()) => {
                Err((*problem).clone())
            }
            Some(Landing::Taken) if !joined => {
                let (first, rest) = streamed.recv().await.ok_or_else(gone)?;
                ticket.streams(flight.cancel.token().clone());
                let body = Streaming {
                    stream: Stream::new(first, rest),
                    _cancel: Arc::clone(&flight.cancel),
                    _ticket: ticket,
                    tally: None,
                };
                Ok((Content::Stream(body), CacheResult::Miss))
            }
            // What the other got cannot be shared, or the other had less time left: run it.
            Some(_) => {
                let alone = Self { key: None, ..self };
                Box::pin(alone.answer(ticket)).await
            }
            None => Err(gone()),
        }
    }

    fn start(&self, stream: mpsc::Sender<(Bytes, Parts)>) -> Flight {
        let cancel = self.app.slots().token();
        let (land, landing) = watch::channel(None);
        let (app, key) = (self.app.clone(), self.key);
        let (head_sender, head) = oneshot::channel();
        let task = Arc::clone(&self.task);
        let token = cancel.clone();
        let facts = self.facts.clone();
        let span = Span::current();
        let task = tokio::spawn(async move {
            let queued = Instant::now();
            let taken = app.slots().take().await;
            facts.waited(queued.elapsed());
            let slot = match taken {
                Ok(slot) => slot,
                Err(problem) => {
                    land.send_replace(Some(Landing::Problem(Arc::new(problem))));
                    return;
                }
            };
            let stall = app.settings().timeouts.stall;
            let job = Job { task, slot, cancel: token, stall, facts, head: head_sender };
            app.threads().run(move || span.in_scope(|| job.run()));
            let landing = match head.await {
                Ok(Ok(Head::Whole(stored))) => {
                    if let Some(key) = key {
                        app.answers().put(key, stored.clone());
                    }
                    Landing::Whole(stored)
                }
                Ok(Ok(Head::Stream(first, rest))) => {
                    let _ = stream.send((first, rest)).await; // the client may have left
                    Landing::Taken
                }
                Ok(Err(problem)) => Landing::Problem(Arc::new(problem)),
                Err(_) => Landing::Problem(Arc::new(gone())),
            };
            land.send_replace(Some(landing));
        });
        Flight { landing, cancel: Arc::new(cancel.drop_guard()), task }
    }
}

/// What is sent.
enum Content {
    /// Nothing: the client has it.
    Unchanged,
    Whole(Stored),
    Stream(Streaming),
}

impl Content {
    fn into_response(self, headers: HeaderMap, mut tally: Tally) -> Response<BoxBody> {
        let (status, body) = match self {
            Self::Unchanged => {
                tally.ended();
                (StatusCode::NOT_MODIFIED, body::full(Bytes::new()))
            }
            Self::Whole(stored) => {
                tally.sent_part(stored.bytes.len());
                tally.ended();
                (StatusCode::OK, body::full(stored.bytes))
            }
            Self::Stream(mut stream) => {
                stream.tally = Some(tally);
                (StatusCode::OK, stream.boxed_unsync())
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn gone() -> Problem {
    Problem::internal("the query's thread ended without an answer")
}

/// A streamed body that stops its query when it is dropped, for whatever reason.
struct Streaming {
    stream: Stream,
    _cancel: Arc<DropGuard>,
    _ticket: Ticket,
    tally: Option<Tally>,
}

impl hyper::body::Body for Streaming {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Aborted>>> {
        let polled = std::pin::Pin::new(&mut self.stream).poll_frame(context);
        if let (std::task::Poll::Ready(Some(frame)), Some(tally)) = (&polled, &mut self.tally) {
            match frame {
                Ok(frame) if frame.is_trailers() => tally.ended(),
                Ok(frame) => tally.sent_part(frame.data_ref().map_or(0, Bytes::len)),
                Err(aborted) => tally.broke_off(aborted),
            }
        }
        polled
    }
}
