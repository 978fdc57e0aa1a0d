//! Which request goes where. Loads the state once for each request and passes it down.

use std::convert::Infallible;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use super::access::{Caller, Sizes};
use super::arguments::Arguments;
use super::body::{self, BoxBody};
use super::exchange::{Exchange, RequestRecord};
use super::origin::{self, Peer, is_preflight};
use super::page::Asset;
use super::problem::{self, Problem};
use super::queries::QueryHandle;
use super::trace::TraceParent;
use super::{
    App, datasets, events, freshness, mart_file, marts, mcp, page, probes, query, request_id,
    scrape, snapshot, waiting,
};
use crate::catalog::State;
use crate::hooks;

/// In an answer, the snapshot that it comes from; in a request, the one to ask.
pub(super) const MARTD_SNAPSHOT: HeaderName = HeaderName::from_static("martd-snapshot");
/// The API's description.
const OPENAPI: &str = include_str!("openapi.json");
const QUERY_PATH: &str = "/v1/query";
/// In an answer, what its snapshot is made from.
pub(super) const MARTD_SOURCE: HeaderName = HeaderName::from_static("martd-source");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Everything,
    /// Probes and metrics, which need no token there.
    Admin,
}

/// Answers one request, whatever happens.
pub(super) async fn handle(
    app: App,
    surface: Surface,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Infallible> {
    let started = Instant::now();
    let id = request_id::of(request.headers());
    let admitted = app.settings().doors.admit(peer.door, &request);
    // On the listener for operators no token is asked for.
    let tokens = app.tokens().filter(|_| surface == Surface::Everything);
    let caller = Caller::identify(tokens, request.headers(), peer.address);
    // Only who may ask takes an id from others.
    let handle = match (&admitted, &caller) {
        (Ok(_), Ok(caller)) if request.uri().path() == QUERY_PATH => {
            Some(app.queries().register(id.clone(), caller))
        }
        _ => None,
    };
    let id = handle.as_ref().map_or(id, |handle| handle.id().to_owned());
    let state = app.catalog().load();
    let span = info_span!("request", id, trace_id = Empty, parent_id = Empty);
    if let Some(TraceParent { trace_id, parent_id }) = TraceParent::of(request.headers()) {
        span.record("trace_id", trace_id).record("parent_id", parent_id);
    }
    let route = Route::of(request.uri().path());
    let record = RequestRecord::default();
    let exchange = Exchange {
        app: app.clone(),
        started,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        record: record.clone(),
        span: span.clone(),
    };
    let exchange = exchange.begin();

    let origin = admitted.as_ref().ok().cloned().flatten();
    // A task of its own, so that a panic ends this request alone.
    let task = tokio::spawn({
        let (app, state) = (app.clone(), state.clone());
        async move {
            admitted?;
            if is_preflight(&request) {
                return Ok(preflight());
            }
            answer(&app, surface, &state, caller, handle, record, request).await
        }
        .instrument(span.clone())
    });
    let outcome = AbortOnDrop(task).await;
    let mut response = outcome.unwrap_or_else(|problem| {
        app.metrics().problem(problem.slug());
        problem.into_response(&id)
    });

    let headers = response.headers_mut();
    if !headers.contains_key(MARTD_SOURCE) {
        headers.insert(MARTD_SOURCE, HeaderValue::from_static(state.source().name()));
    }
    if !headers.contains_key(MARTD_SNAPSHOT)
        && let Some(snapshot) = &state.snapshot
        && let Ok(value) = HeaderValue::from_str(&snapshot.id)
    {
        headers.insert(MARTD_SNAPSHOT, value);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(request_id::X_REQUEST_ID, value);
    }
    if let Some(origin) = origin {
        origin::allow(headers, origin);
    }
    // What a web page of somebody else's loads is of the type that it says, and not shown to it.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if app.is_draining() {
        // A client that is told goes elsewhere; one that is not may send into a closing connection.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let timing = format!("total;dur={:.3}", started.elapsed().as_secs_f64() * 1e3);
    if let Ok(value) = HeaderValue::from_str(&timing) {
        headers.insert(SERVER_TIMING, value);
    }
    let status = response.status().as_u16();
    app.metrics().responded(route.map_or("none", Route::name), status);
    Ok(exchange.answer(response))
}

/// A request's task. The client leaving drops it, and with it what it started.
struct AbortOnDrop(tokio::task::JoinHandle<Result<Response<BoxBody>, Problem>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Future for AbortOnDrop {
    type Output = Result<Response<BoxBody>, Problem>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|joined| {
            joined.unwrap_or_else(|error| Err(Problem::internal(format!("a panic: {error}"))))
        })
    }
}

/// What is served. `/openapi.json` describes the same, which a test compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Query,
    Queries,
    Snapshot,
    Freshness,
    Datasets,
    Dataset,
    Marts,
    MartFile,
    Attach,
    Mcp,
    Ready,
    Live,
    Events,
    Metrics,
    Page,
    Asset(Asset),
    OpenApi,
}

const QUERIES_PREFIX: &str = "/v1/queries/";
const MARTS_PREFIX: &str = "/v1/marts/";
const DATASETS_PREFIX: &str = "/v1/datasets/";
const SCHEMA_SUFFIX: &str = "/schema";

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            QUERY_PATH => Self::Query,
            "/v1/snapshot" => Self::Snapshot,
            "/v1/freshness" => Self::Freshness,
            "/readyz" => Self::Ready,
            "/livez" => Self::Live,
            "/" => Self::Page,
            "/status.css" => Self::Asset(Asset::Style),
            "/status.js" => Self::Asset(Asset::Script),
            "/v1/events" => Self::Events,
            "/metrics" => Self::Metrics,
            "/openapi.json" => Self::OpenApi,
            "/v1/datasets" => Self::Datasets,
            "/v1/marts" => Self::Marts,
            "/v1/attach.sql" => Self::Attach,
            "/mcp" => Self::Mcp,
            _ if dataset_id(path).is_some() => Self::Dataset,
            _ if path.starts_with(QUERIES_PREFIX) => Self::Queries,
            _ if path.starts_with(MARTS_PREFIX) => Self::MartFile,
            _ => return None,
        })
    }

    /// The methods, as `Allow` has them. What answers GET answers HEAD.
    fn methods(self) -> &'static str {
        match self {
            Self::Query => "GET, POST",
            Self::Queries => "DELETE",
            Self::Mcp => "POST",
            _ => "GET",
        }
    }

    /// As metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Queries => "queries",
            Self::Snapshot => "snapshot",
            Self::Freshness => "freshness",
            Self::Datasets => "datasets",
            Self::Dataset => "dataset",
            Self::Marts => "marts",
            Self::MartFile => "mart_file",
            Self::Attach => "attach",
            Self::Mcp => "mcp",
            Self::Ready => "readyz",
            Self::Live => "livez",
            Self::Page => "page",
            Self::Asset(_) => "asset",
            Self::Events => "events",
            Self::Metrics => "metrics",
            Self::OpenApi => "openapi",
        }
    }

    /// Whether it is served where probes and metrics alone are.
    fn is_for_operators(self) -> bool {
        matches!(self, Self::Ready | Self::Live | Self::Metrics)
    }

    fn allows(self, method: &Method) -> bool {
        let name = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.methods().split(", ").any(|allowed| allowed == name)
    }
}

async fn answer(
    app: &App,
    surface: Surface,
    state: &State,
    caller: Result<Caller, Problem>,
    handle: Option<QueryHandle>,
    record: RequestRecord,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Problem> {
    let uri = request.uri().clone();
    let path = uri.path();
    let Some(route) = Route::of(path) else {
        let detail = format!("{path} is not served here; /openapi.json tells what is");
        return Err(Problem::new(problem::NOT_FOUND, detail));
    };
    if surface == Surface::Admin && !route.is_for_operators() {
        let detail = format!("{path} is not served on the admin listener (MARTD_ADMIN_LISTEN)");
        return Err(Problem::new(problem::NOT_FOUND, detail));
    }
    if !route.allows(request.method()) {
        return Err(Problem::method_not_allowed(route.methods()));
    }
    let arguments = Arguments::parse(uri.query().unwrap_or_default())?;
    hooks::panic("request");
    match route {
        Route::Ready => return probes::ready(app, state, arguments.flag("verbose")?),
        Route::Live => {
            hooks::stick("http");
            return probes::live(app, arguments.flag("verbose")?);
        }
        Route::Page => return page::answer(app, state, request.headers()),
        Route::Asset(asset) => return Ok(page::asset(asset)),
        _ => {}
    }
    let caller = caller?;
    let sizes = match surface {
        Surface::Everything => caller.sizes(app.settings().scoping.as_ref()),
        Surface::Admin => Sizes::ALL,
    };
    match route {
        Route::Query => {
            let handle = handle.ok_or_else(|| Problem::internal("a query without a handle"))?;
            query::answer(app, state, &caller, handle, record, &arguments, request).await
        }
        Route::Queries => cancel(app, &path[QUERIES_PREFIX.len()..], &caller),
        Route::Marts => json(StatusCode::OK, &marts::MartsDocument::of(app, state, sizes)),
        Route::Attach => marts::attach(app, state, request.headers()),
        Route::Mcp => mcp::answer(app, state, &caller, record, request).await,
        Route::MartFile => {
            let (method, headers) = (request.method(), request.headers());
            mart_file::answer(app, state, method, headers, &path[MARTS_PREFIX.len()..]).await
        }
        Route::Snapshot => {
            let wait = waiting::duration(arguments.get("wait"))?;
            match arguments.get("build") {
                Some(build) => waiting::answer(app, build, wait, sizes).await,
                None => json(StatusCode::OK, &snapshot::SnapshotDocument::of(state, sizes)),
            }
        }
        Route::Freshness => {
            let (max_age, now) = (app.settings().max_age, Timestamp::now());
            let document = freshness::FreshnessDocument::of(state, max_age, sizes, now);
            let strict = arguments.flag("strict")?;
            let stale = strict && document.status() == freshness::FreshnessStatus::Error;
            json(if stale { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &document)
        }
        Route::Datasets => json(StatusCode::OK, &datasets::DatasetsDocument::of(state)),
        Route::Dataset => {
            json(StatusCode::OK, &datasets::schema(state, dataset_id(path).unwrap_or_default())?)
        }
        Route::Events => events::answer(app, request.method(), request.headers()),
        Route::Metrics => scrape::answer(app, state, sizes, request.headers()),
        Route::OpenApi => Ok(json_text(StatusCode::OK, OPENAPI)),
        Route::Ready | Route::Live | Route::Page | Route::Asset(_) => {
            Err(Problem::internal("answered above"))
        }
    }
}

/// What a listed page may send; the browser asks before it does.
fn preflight() -> Response<BoxBody> {
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    origin::allow_requests(response.headers_mut());
    response
}

/// `DELETE /v1/queries/{id}`. Another caller's query is as unknown as one that is over.
fn cancel(app: &App, id: &str, caller: &Caller) -> Result<Response<BoxBody>, Problem> {
    if !app.queries().cancel(id, caller) {
        return Err(Problem::new(problem::NOT_FOUND, "no query of yours is under way by that id"));
    }
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Whose schema a path asks for.
fn dataset_id(path: &str) -> Option<&str> {
    path.strip_prefix(DATASETS_PREFIX)?.strip_suffix(SCHEMA_SUFFIX)
}

pub(super) fn json(
    status: StatusCode,
    document: &impl Serialize,
) -> Result<Response<BoxBody>, Problem> {
    let text = serde_json::to_vec(document).map_err(Problem::internal)?;
    Ok(json_text(status, text))
}

fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Response<BoxBody> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    #[test]
    fn openapi_has_every_route_and_no_other() {
        let description: Json = serde_json::from_str(OPENAPI).expect("JSON");
        let mut described = Vec::new();
        for (path, operations) in description["paths"].as_object().expect("paths") {
            let route = Route::of(path).unwrap_or_else(|| panic!("{path} is not served"));
            let methods: Vec<String> = operations
                .as_object()
                .expect("operations")
                .keys()
                .filter(|key| *key != "parameters")
                .map(|key| key.to_uppercase())
                .collect();
            assert_eq!(methods.join(", "), route.methods(), "{path}");
            described.push(route);
        }
        for route in [
            Route::Query,
            Route::Queries,
            Route::Snapshot,
            Route::Freshness,
            Route::Datasets,
            Route::Dataset,
            Route::Marts,
            Route::MartFile,
            Route::Attach,
            Route::Mcp,
            Route::Ready,
            Route::Live,
            Route::Page,
            Route::Asset(Asset::Style),
            Route::Asset(Asset::Script),
            Route::Events,
            Route::Metrics,
            Route::OpenApi,
        ] {
            assert!(described.contains(&route), "{route:?} is not described");
        }
        let slugs = description["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
            .as_array()
            .expect("slugs");
        let mut described: Vec<&str> = slugs.iter().filter_map(Json::as_str).collect();
        described.sort_unstable();
        let mut known: Vec<String> =
            problem::problems().iter().map(|slug| format!("urn:martd:problem:{slug}")).collect();
        known.sort_unstable();
        assert_eq!(described, known);
    }
}
