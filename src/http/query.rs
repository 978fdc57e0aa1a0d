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
use super::accept::Wanted;
use super::access::Caller;
use super::arguments::Arguments;
use super::body::{self, BoxBody};
use super::cache::{Key, Stored};
use super::conditional::Validators;
use super::exchange::Facts;
use super::job::{self, Answer, MARTD_TRUNCATED, Stream, Task, Work};
use super::problem::{self, Problem};
use super::queries::Ticket;
use super::request::Query;
use super::routes::MARTD_SNAPSHOT;
use super::tally::Tally;
use crate::catalog::{Snapshot, State};
use crate::encode::{Coding, Format};
use crate::engine::{self, Principal, QueryError, Scope};
use crate::metrics::CacheResult;
use crate::sql_gate::{Dialect, ValidatedStatement};

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
    let wanted = Wanted::of(arguments, request.headers())?;
    tally.in_format(wanted.format);
    let scope = caller.scope(app.settings().scope_column(), request.headers())?;
    let headers = request.headers().clone();
    let method = request.method().clone();
    let query = Query::read(app, arguments, wanted.format, request).await?;
    tally.facts().statement(&query.sql, app.settings().log_sql);
    let snapshot = snapshot_asked_for(app, state, &headers)?;
    let asked = Asked { app, snapshot: &snapshot, caller, query, wanted, scope };
    let is_known =
        |etag| (Validators { etag, modified: None, exists: false }).is_known_to(&method, &headers);
    let (content, key, cache) = asked.answer(is_known, ticket, tally).await?;
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
            wanted.codings.best
        }
    };
    if coding != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(wanted.format.content_type()));
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
    query: Query,
    ticket: Ticket,
    tally: &mut Tally,
) -> Result<Bytes, Problem> {
    let wanted = Wanted::plain(Format::Json);
    tally.in_format(wanted.format);
    let scope = caller.scope(app.settings().scope_column(), headers)?;
    tally.facts().statement(&query.sql, app.settings().log_sql);
    let snapshot = snapshot_asked_for(app, state, headers)?;
    let asked = Asked { app, snapshot: &snapshot, caller, query, wanted, scope };
    match asked.answer(|_| Ok(false), ticket, tally).await? {
        (Content::Whole(stored), ..) => Ok(stored.bytes),
        (Content::Stream(stream), ..) => match stream.collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(aborted) => Err(Problem::internal(aborted)),
        },
        (Content::Unchanged, ..) => Err(Problem::internal("unchanged since never")),
    }
}

/// A query whose form is right, and what it is to be answered from.
pub(super) struct Asked<'a> {
    pub(super) app: &'a App,
    pub(super) snapshot: &'a Arc<Snapshot>,
    pub(super) caller: &'a Caller,
    pub(super) query: Query,
    pub(super) wanted: Wanted,
    pub(super) scope: Scope,
}

impl Asked<'_> {
    /// The content of the answer, the key by which it is cached, if it may be, and where it came from.
    /// Nothing runs when `is_known` says of its entity tag that the client has it.
    pub(super) async fn answer(
        self,
        is_known: impl FnOnce(Option<ETag>) -> Result<bool, Problem>,
        ticket: Ticket,
        tally: &Tally,
    ) -> Result<(Content, Option<Key>, CacheResult), Problem> {
        let Self { app, snapshot, caller, query, wanted, scope } = self;
        let principal = caller.principal(&scope);
        let deadline = tokio::time::Instant::from_std(tally.started()) + query.timeout;
        let validated = validate(
            app,
            (&query.sql, engine::dialect(wanted.format)),
            principal,
            deadline,
            query.timeout,
        )
        .await?;
        let key = validated.cacheable.then(|| key(app, snapshot, &query, wanted, &scope));
        if is_known(key.map(|key| key.etag()))? {
            app.metrics().cache(CacheResult::Revalidated);
            return Ok((Content::Unchanged, key, CacheResult::Revalidated));
        }
        let (content, cache) = match key.and_then(|key| app.answers().get(&key)) {
            Some(stored) => (Content::Whole(stored), CacheResult::Hit),
            None => {
                let task = Task {
                    snapshot: Arc::clone(snapshot),
                    query,
                    wanted,
                    scope,
                    principal,
                    started: tally.started(),
                };
                let facts = tally.facts().clone();
                let work = Work { app, task: Arc::new(task), key, facts };
                match work.answer(ticket).await? {
                    (Answer::Whole(stored), result) => (Content::Whole(stored), result),
                    (Answer::Stream(stream), result) => (Content::Stream(stream), result),
                }
            }
        };
        app.metrics().cache(if key.is_some() { cache } else { CacheResult::Bypass });
        if let Content::Whole(stored) = &content {
            tally.facts().rows(stored.rows);
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
    if let Ok(id) = HeaderValue::from_str(&snapshot.id) {
        headers.insert(MARTD_SNAPSHOT, id);
    }
}

fn key(app: &App, snapshot: &Snapshot, query: &Query, wanted: Wanted, scope: &Scope) -> Key {
    let parameters = format!("{:?}", query.parameters);
    let scope = format!("{scope:?}");
    let wanted = format!("{wanted:?}{:?}", query.binary);
    let limit = format!("{:?}", query.limit);
    Key::of([
        snapshot.id.as_bytes(),
        query.sql.as_bytes(),
        parameters.as_bytes(),
        scope.as_bytes(),
        wanted.as_bytes(),
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

/// What is sent.
pub(super) enum Content {
    /// Nothing: the client has it.
    Unchanged,
    Whole(Stored),
    Stream(Box<Stream>),
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
