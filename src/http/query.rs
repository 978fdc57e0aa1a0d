//! `/v1/query`: one statement over one snapshot.
//!
//! The way of a query: who asks and which rows they may see; the request; the snapshot; the validator; the
//! cache; and, if it is not answered by then, a slot and the engine ([`super::job`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headers::{ETag, HeaderMapExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER, VARY,
};
use hyper::{HeaderMap, Request, Response, StatusCode};

use super::App;
use super::accept::Negotiated;
use super::access::Caller;
use super::arguments::Arguments;
use super::body::{self, BoxBody};
use super::cache::{Key, Stored};
use super::conditional::Validators;
use super::exchange::RequestRecord;
use super::job::{self, Answer, AnswerStream, MARTD_TRUNCATED, QueryTask, UncachedQuery};
use super::metrics_guard::MetricsGuard;
use super::problem::Problem;
use super::queries::QueryHandle;
use super::request::QueryRequest;
use super::requested::RequestedSnapshot;
use super::routes::{MARTD_SNAPSHOT, MARTD_SOURCE};
use crate::catalog::{Snapshot, State};
use crate::encode::{Coding, Format};
use crate::engine::{self, Principal, QueryError, Scope};
use crate::ledger;
use crate::metrics::CacheResult;
use crate::sql_gate::{Dialect, ValidatedStatement};

/// The builds that tell how new the snapshot is.
const MARTD_BUILD: HeaderName = HeaderName::from_static("martd-build");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What an answer depends on beside its URL.
const VARIES_BY: &str = "Accept, Accept-Encoding, Authorization, Martd-Scope, Martd-Snapshot";

/// Answers one query over the state that the request loaded.
pub(super) async fn answer(
    app: &App,
    state: &State,
    caller: &Caller,
    handle: QueryHandle,
    record: RequestRecord,
    arguments: &Arguments,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Problem> {
    let mut guard = MetricsGuard::start(app.metrics().clone(), record);
    match respond(app, state, caller, handle, arguments, request, &mut guard).await {
        Ok((headers, content)) => Ok(content.into_response(headers, guard)),
        Err(problem) => {
            guard.failed(&problem);
            Err(problem)
        }
    }
}

/// The headers and the content of the answer.
async fn respond(
    app: &App,
    state: &State,
    caller: &Caller,
    handle: QueryHandle,
    arguments: &Arguments,
    request: Request<Incoming>,
    guard: &mut MetricsGuard,
) -> Result<(HeaderMap, Content), Problem> {
    let negotiated = Negotiated::of(arguments, request.headers())?;
    guard.in_format(negotiated.format);
    let scope = caller.scope(app.settings().scope_column(), request.headers())?;
    let headers = request.headers().clone();
    let asked_for = RequestedSnapshot::of(&headers, arguments)?;
    let method = request.method().clone();
    let query = QueryRequest::read(app, arguments, negotiated.format, request).await?;
    guard.record().statement(&query.sql, app.settings().log_sql);
    let snapshot = requested(app, state, &asked_for, &query, &handle).await?;
    let asked = AcceptedQuery { app, snapshot: &snapshot, caller, query, negotiated, scope };
    let is_known =
        |etag| (Validators { etag, modified: None, exists: false }).is_known_to(&method, &headers);
    let (content, key, cache) = asked.answer(is_known, handle, guard).await?;
    let mut headers = HeaderMap::new();
    describe(&mut headers, &snapshot, key);
    let coding = match &content {
        Content::Unchanged => return Ok((headers, content)),
        Content::Whole(stored) => {
            headers.insert(MARTD_TRUNCATED, job::truth(stored.truncated));
            stored.coding
        }
        Content::Stream(_) => {
            headers.insert(TRAILER, HeaderValue::from_name(MARTD_TRUNCATED));
            negotiated.codings.best
        }
    };
    if coding != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(negotiated.format.content_type()));
    if key.is_some() {
        headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(cache)));
    }
    Ok((headers, content))
}

/// The answer to a query as JSON, all of it.
pub(super) async fn json(
    app: &App,
    state: &State,
    caller: &Caller,
    headers: &HeaderMap,
    query: QueryRequest,
    handle: QueryHandle,
    guard: &mut MetricsGuard,
) -> Result<Bytes, Problem> {
    let negotiated = Negotiated::plain(Format::Json);
    guard.in_format(negotiated.format);
    let scope = caller.scope(app.settings().scope_column(), headers)?;
    guard.record().statement(&query.sql, app.settings().log_sql);
    let asked_for = RequestedSnapshot::named(headers);
    let snapshot = requested(app, state, &asked_for, &query, &handle).await?;
    let asked = AcceptedQuery { app, snapshot: &snapshot, caller, query, negotiated, scope };
    match asked.answer(|_| Ok(false), handle, guard).await? {
        (Content::Whole(stored), ..) => Ok(stored.bytes),
        (Content::Stream(stream), ..) => match stream.collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(aborted) => Err(Problem::internal(aborted)),
        },
        (Content::Unchanged, ..) => Err(Problem::internal("unchanged since never")),
    }
}

/// A query whose form is right, and what it is to be answered from.
pub(super) struct AcceptedQuery<'a> {
    pub(super) app: &'a App,
    pub(super) snapshot: &'a Arc<Snapshot>,
    pub(super) caller: &'a Caller,
    pub(super) query: QueryRequest,
    pub(super) negotiated: Negotiated,
    pub(super) scope: Scope,
}

impl AcceptedQuery<'_> {
    /// The content of the answer, the key by which it is cached, if it may be, and where it came from.
    /// Nothing runs when `is_known` says of its entity tag that the client has it.
    pub(super) async fn answer(
        self,
        is_known: impl FnOnce(Option<ETag>) -> Result<bool, Problem>,
        handle: QueryHandle,
        guard: &MetricsGuard,
    ) -> Result<(Content, Option<Key>, CacheResult), Problem> {
        let Self { app, snapshot, caller, query, negotiated, scope } = self;
        let principal = caller.principal(&scope);
        let deadline = tokio::time::Instant::from_std(guard.started()) + query.timeout;
        let validated = validate(
            app,
            (&query.sql, engine::dialect(negotiated.format)),
            principal,
            deadline,
            query.timeout,
        )
        .await?;
        let key = validated.cacheable.then(|| key(app, snapshot, &query, negotiated, &scope));
        if is_known(key.map(|key| key.etag()))? {
            app.metrics().cache(CacheResult::Revalidated);
            return Ok((Content::Unchanged, key, CacheResult::Revalidated));
        }
        let (content, cache) = match key.and_then(|key| app.answers().get(&key)) {
            Some(stored) => (Content::Whole(stored), CacheResult::Hit),
            None => {
                let task = QueryTask {
                    snapshot: Arc::clone(snapshot),
                    query,
                    negotiated,
                    scope,
                    principal,
                    started: guard.started(),
                };
                let record = guard.record().clone();
                let work = UncachedQuery { app, task: Arc::new(task), key, record };
                match work.answer(handle).await? {
                    (Answer::Whole(stored), result) => (Content::Whole(stored), result),
                    (Answer::Stream(stream), result) => (Content::Stream(stream), result),
                }
            }
        };
        app.metrics().cache(if key.is_some() { cache } else { CacheResult::Bypass });
        if let Content::Whole(stored) = &content {
            guard.record().rows(stored.rows);
        }
        Ok((content, key, cache))
    }
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
        headers.typed_insert(key.etag());
    }
    headers.insert(MARTD_SOURCE, HeaderValue::from_static(snapshot.source.name()));
    if let Ok(id) = HeaderValue::from_str(&snapshot.id) {
        headers.insert(MARTD_SNAPSHOT, id);
    }
    // Stamps of the first edition's ledger may be any text.
    let builds = snapshot.heads().iter().map(String::as_str).filter(|build| ledger::is_id(build));
    let builds: Vec<&str> = builds.collect();
    if !builds.is_empty()
        && let Ok(builds) = HeaderValue::from_str(&builds.join(","))
    {
        headers.insert(MARTD_BUILD, builds);
    }
}

fn key(
    app: &App,
    snapshot: &Snapshot,
    query: &QueryRequest,
    negotiated: Negotiated,
    scope: &Scope,
) -> Key {
    let parameters = format!("{:?}", query.parameters);
    let scope = format!("{scope:?}");
    let negotiated = format!("{negotiated:?}{:?}", query.binary);
    let limit = format!("{:?}", query.limit);
    Key::of([
        snapshot.id.as_bytes(),
        query.sql.as_bytes(),
        parameters.as_bytes(),
        scope.as_bytes(),
        negotiated.as_bytes(),
        limit.as_bytes(),
        &query.max_bytes.to_le_bytes(),
        app.settings().time_zone.as_bytes(),
    ])
}

/// What the validator says of a statement, which is remembered.
pub(super) async fn validate(
    app: &App,
    (sql, dialect): (&str, Dialect),
    principal: Principal,
    deadline: tokio::time::Instant,
    limit: Duration,
) -> Result<Arc<ValidatedStatement>, Problem> {
    let known = app.validated(dialect).get(sql);
    let validated = match known {
        Some(known) => known,
        None => {
            let _permit = app.validating().acquire().await.expect("never closed");
            let validated =
                app.engine().validate(sql, dialect, principal, deadline).await.map(Arc::new);
            // What the validator says of a text is always the same; what else happens is not.
            if matches!(validated, Ok(_) | Err(QueryError::Rejected(_))) {
                app.validated(dialect).put(sql, validated.clone());
            }
            validated
        }
    };
    validated.map_err(|error| Problem::of_query(error, limit))
}

/// The snapshot that a query asks for, be it that it is waited for.
async fn requested(
    app: &App,
    state: &State,
    requested: &RequestedSnapshot<'_>,
    query: &QueryRequest,
    handle: &QueryHandle,
) -> Result<Arc<Snapshot>, Problem> {
    tokio::select! {
        snapshot = requested.snapshot(app, state, query.timeout) => snapshot,
        () = handle.cancelled() => Err(Problem::cancelled()),
    }
}

/// What is sent.
pub(super) enum Content {
    /// Nothing: the client has it.
    Unchanged,
    Whole(Stored),
    Stream(Box<AnswerStream>),
}

impl Content {
    fn into_response(self, headers: HeaderMap, mut guard: MetricsGuard) -> Response<BoxBody> {
        let (status, body) = match self {
            Self::Unchanged => {
                guard.ended();
                (StatusCode::NOT_MODIFIED, body::full(Bytes::new()))
            }
            Self::Whole(stored) => {
                guard.sent_part(stored.bytes.len());
                guard.ended();
                (StatusCode::OK, body::full(stored.bytes))
            }
            Self::Stream(mut stream) => {
                stream.guard = Some(guard);
                (StatusCode::OK, stream.boxed_unsync())
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
