//! `/v1/query`: one statement over one snapshot.
//!
//! The way of a query: who asks and which rows they may see; the request; the snapshot; the validator; the
//! cache; and, if it is not answered by then, a slot and the engine ([`super::job`]).

use std::sync::Arc;

use bytes::Bytes;
use headers::HeaderMapExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER, VARY,
};
use hyper::{HeaderMap, Response, StatusCode};

use super::App;
use super::accept::Negotiated;
use super::body::{self, BoxBody};
use super::cache::Key;
use super::conditional::Validators;
use super::job::{self, Content, MARTD_TRUNCATED, QueryTask};
use super::metrics_guard::MetricsGuard;
use super::problem::Problem;
use super::queries::QueryHandle;
use super::request::QueryRequest;
use super::requested::RequestedSnapshot;
use super::routes::{MARTD_SNAPSHOT, MARTD_SOURCE, RequestContext};
use crate::catalog::Snapshot;
use crate::encode::Coding;
use crate::engine::{self, QueryError};
use crate::ledger;
use crate::metrics::CacheResult;

/// The builds that tell how new the snapshot is.
const MARTD_BUILD: HeaderName = HeaderName::from_static("martd-build");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What an answer depends on beside its URL.
const VARIES_BY: &str = "Accept, Accept-Encoding, Authorization, Martd-Scope, Martd-Snapshot";

/// Answers one query.
pub(super) async fn answer(
    context: &RequestContext<'_>,
    handle: QueryHandle,
    body: Incoming,
) -> Result<Response<BoxBody>, Problem> {
    let mut guard = MetricsGuard::start(context.app.metrics.clone(), context.record.clone());
    match respond(context, handle, body, &mut guard).await {
        Ok((headers, content)) => Ok(into_response(headers, content, guard)),
        Err(problem) => {
            guard.failed(&problem);
            Err(problem)
        }
    }
}

/// The headers and the content of the answer; no content where the client has it.
async fn respond(
    context: &RequestContext<'_>,
    handle: QueryHandle,
    body: Incoming,
    guard: &mut MetricsGuard,
) -> Result<(HeaderMap, Option<Content>), Problem> {
    let RequestContext { app, caller, head, arguments, .. } = context;
    let negotiated = Negotiated::of(arguments, &head.headers)?;
    guard.in_format(negotiated.format);
    let scope = caller.scope(app.settings.scope_column(), &head.headers)?;
    let asked_for = RequestedSnapshot::of(&head.headers, arguments)?;
    let query = QueryRequest::read(context, negotiated, scope, body).await?;
    let task = QueryTask::begin(context, &asked_for, query, &handle, guard).await?;
    let key = key(app, &task).await?;
    let snapshot = Arc::clone(&task.snapshot);
    let mut answer = HeaderMap::new();
    describe(&mut answer, &snapshot, key);
    let etag = key.map(|key| key.etag());
    let known = Validators { etag, modified: None, exists: false };
    if known.is_known_to(&head.method, &head.headers)? {
        app.metrics.cache(CacheResult::Revalidated);
        return Ok((answer, None));
    }
    let (content, cache) = content(app, task, key, handle, guard).await?;
    let coding = match &content {
        Content::Whole(stored) => {
            answer.insert(MARTD_TRUNCATED, job::truth(stored.truncated));
            stored.coding
        }
        Content::Stream(_) => {
            answer.insert(TRAILER, HeaderValue::from_name(MARTD_TRUNCATED));
            negotiated.codings.best
        }
    };
    if coding != Coding::Identity {
        answer.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(negotiated.format.content_type()));
    if key.is_some() {
        answer.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(cache)));
    }
    Ok((answer, Some(content)))
}

/// The answer to a query as JSON, all of it.
pub(super) async fn json(
    context: &RequestContext<'_>,
    query: QueryRequest,
    handle: QueryHandle,
    guard: &mut MetricsGuard,
) -> Result<Bytes, Problem> {
    let app = context.app;
    let asked_for = RequestedSnapshot::named(&context.head.headers);
    let task = QueryTask::begin(context, &asked_for, query, &handle, guard).await?;
    let key = key(app, &task).await?;
    let (content, _) = content(app, task, key, handle, guard).await?;
    let body = content.into_body().collect().await.map_err(Problem::internal)?;
    Ok(body.to_bytes())
}

impl QueryTask {
    /// A query over the snapshot that it asks for, be it that this is waited for.
    async fn begin(
        RequestContext { app, state, caller, .. }: &RequestContext<'_>,
        asked_for: &RequestedSnapshot<'_>,
        query: QueryRequest,
        handle: &QueryHandle,
        guard: &MetricsGuard,
    ) -> Result<Self, Problem> {
        guard.record().lock().statement(&query.job.sql, app.settings.log_sql);
        let snapshot = tokio::select! {
            snapshot = asked_for.snapshot(app, state, query.timeout) => snapshot?,
            () = handle.cancelled() => return Err(Problem::cancelled()),
        };
        let principal = caller.principal(&query.job.scope);
        Ok(Self { snapshot, query, principal, started: guard.started() })
    }
}

/// Has a statement validated, and says under which key its answer is kept, if it may be.
pub(super) async fn key(app: &App, task: &QueryTask) -> Result<Option<Key>, Problem> {
    let QueryTask { snapshot, query: QueryRequest { job, timeout }, principal, .. } = task;
    let dialect = engine::dialect(job.format);
    let known = app.validated(dialect).get(&job.sql);
    let validated = match known {
        Some(known) => known,
        None => {
            let _permit = app.validating.acquire().await.expect("never closed");
            let validated = app.engine.validate(&job.sql, dialect, *principal, task.deadline());
            let validated = validated.await.map(Arc::new);
            // What the validator says of a text is always the same; what else happens is not.
            if matches!(validated, Ok(_) | Err(QueryError::Rejected(_))) {
                app.validated(dialect).put(&job.sql, validated.clone());
            }
            validated
        }
    };
    let validated = validated.map_err(|error| Problem::of_query(error, *timeout))?;
    Ok(validated.cacheable.then(|| {
        let parameters = format!("{:?}", job.parameters);
        let scope = format!("{:?}", job.scope);
        let form = format!("{:?}{:?}{:?}", job.format, job.codings, job.binary);
        let limit = format!("{:?}", job.limit);
        Key::of([
            snapshot.id.as_bytes(),
            job.sql.as_bytes(),
            parameters.as_bytes(),
            scope.as_bytes(),
            form.as_bytes(),
            limit.as_bytes(),
            &job.max_bytes.to_le_bytes(),
            app.settings.time_zone.as_bytes(),
        ])
    }))
}

/// The content of the answer, and where it came from.
pub(super) async fn content(
    app: &App,
    task: QueryTask,
    key: Option<Key>,
    handle: QueryHandle,
    guard: &MetricsGuard,
) -> Result<(Content, CacheResult), Problem> {
    let (content, cache) = match key.and_then(|key| app.answers.get(&key)) {
        Some(stored) => (Content::Whole(stored), CacheResult::Hit),
        None => job::run(app, Arc::new(task), key, guard.record().clone(), handle).await?,
    };
    app.metrics.cache(if key.is_some() { cache } else { CacheResult::Bypass });
    if let Content::Whole(stored) = &content {
        guard.record().lock().rows = stored.rows;
    }
    Ok((content, cache))
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

fn into_response(
    headers: HeaderMap,
    content: Option<Content>,
    mut guard: MetricsGuard,
) -> Response<BoxBody> {
    let (status, body) = match content {
        None => {
            guard.ended();
            (StatusCode::NOT_MODIFIED, body::full(Bytes::new()))
        }
        Some(Content::Whole(stored)) => {
            guard.sent_part(stored.bytes.len());
            guard.ended();
            (StatusCode::OK, body::full(stored.bytes))
        }
        Some(Content::Stream(mut stream)) => {
            stream.guard = Some(guard);
            (StatusCode::OK, stream.boxed_unsync())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
