//! Which request goes where. Loads the state once for each request and passes it down.

use std::convert::Infallible;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONNECTION, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use tokio::task::JoinSet;
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
    let admitted = app.settings.doors.admit(peer.door, &request);
    // On the listener for operators no token is asked for.
    let tokens = app.tokens.as_ref().filter(|_| surface == Surface::Everything);
    let caller = Caller::identify(tokens, request.headers(), peer.address);
    // Only who may ask takes an id from others.
    let handle = match (&admitted, &caller) {
        (Ok(_), Ok(caller)) if request.uri().path() == QUERY_PATH => {
            Some(app.queries.register(id.clone(), caller))
        }
        _ => None,
    };
    let id = handle.as_ref().map_or(id, |handle| handle.id().to_owned());
    let state = app.catalog.load();
    let span = info_span!("request", id, trace_id = Empty, parent_id = Empty);
    if let Some(TraceParent { trace_id, parent_id }) = TraceParent::of(request.headers()) {
        span.record("trace_id", trace_id).record("parent_id", parent_id);
    }
    let route = Route::of(request.uri().path()).map_or("none", |(route, _)| route.name);
    let record = RequestRecord::default();
    let exchange = Exchange::begin(&app, started, &request, record.clone(), span.clone());

    let origin = admitted.as_ref().ok().cloned().flatten();
    // A task of its own, so that a panic ends this request alone. The client leaving drops its set, and that it.
    let mut task = JoinSet::new();
    task.spawn({
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
    let joined = task.join_next().await.expect("it was spawned");
    let outcome =
        joined.unwrap_or_else(|error| Err(Problem::internal(format!("a panic: {error}"))));
    let mut response = outcome.unwrap_or_else(|problem| {
        app.metrics.problem(problem.slug());
        problem.into_response(&id)
    });

    let headers = response.headers_mut();
    let source = HeaderValue::from_static(state.source().name());
    headers.entry(MARTD_SOURCE).or_insert(source);
    if let Some(Ok(snapshot)) = state.snapshot.as_ref().map(|snapshot| snapshot.id.parse()) {
        headers.entry(MARTD_SNAPSHOT).or_insert(snapshot);
    }
    headers.extend(id.parse().ok().map(|id| (request_id::X_REQUEST_ID, id)));
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
    headers.extend(timing.parse().ok().map(|timing| (SERVER_TIMING, timing)));
    let status = response.status().as_u16();
    app.metrics.responded(route, status);
    Ok(exchange.answer(response))
}

/// What answers.
#[derive(Debug, Clone, Copy)]
enum Endpoint {
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

struct Route {
    endpoint: Endpoint,
    /// As metrics name it.
    name: &'static str,
    /// With a star for what varies.
    path: &'static str,
    /// As `Allow` has them. What answers GET answers HEAD.
    methods: &'static str,
}

const fn route(
    endpoint: Endpoint,
    name: &'static str,
    path: &'static str,
    methods: &'static str,
) -> Route {
    Route { endpoint, name, path, methods }
}

/// What is served. `/openapi.json` describes the same, which a test compares.
const ROUTES: [Route; 18] = [
    route(Endpoint::Query, "query", QUERY_PATH, "GET, POST"),
    route(Endpoint::Queries, "queries", "/v1/queries/*", "DELETE"),
    route(Endpoint::Snapshot, "snapshot", "/v1/snapshot", "GET"),
    route(Endpoint::Freshness, "freshness", "/v1/freshness", "GET"),
    route(Endpoint::Datasets, "datasets", "/v1/datasets", "GET"),
    route(Endpoint::Dataset, "dataset", "/v1/datasets/*/schema", "GET"),
    route(Endpoint::Marts, "marts", "/v1/marts", "GET"),
    route(Endpoint::MartFile, "mart_file", "/v1/marts/*", "GET"),
    route(Endpoint::Attach, "attach", "/v1/attach.sql", "GET"),
    route(Endpoint::Mcp, "mcp", "/mcp", "POST"),
    route(Endpoint::Ready, "readyz", "/readyz", "GET"),
    route(Endpoint::Live, "livez", "/livez", "GET"),
    route(Endpoint::Events, "events", "/v1/events", "GET"),
    route(Endpoint::Metrics, "metrics", "/metrics", "GET"),
    route(Endpoint::Page, "page", "/", "GET"),
    route(Endpoint::Asset(Asset::Style), "asset", "/status.css", "GET"),
    route(Endpoint::Asset(Asset::Script), "asset", "/status.js", "GET"),
    route(Endpoint::OpenApi, "openapi", "/openapi.json", "GET"),
];

impl Route {
    /// The route of a path, and what varies of that.
    fn of(path: &str) -> Option<(&'static Self, &str)> {
        ROUTES.iter().find_map(|route| {
            let varies = match route.path.split_once('*') {
                Some((before, after)) => path.strip_prefix(before)?.strip_suffix(after)?,
                None => (path == route.path).then_some("")?,
            };
            Some((route, varies))
        })
    }

    /// Whether it is served where probes and metrics alone are.
    fn is_for_operators(&self) -> bool {
        matches!(self.endpoint, Endpoint::Ready | Endpoint::Live | Endpoint::Metrics)
    }

    fn allows(&self, method: &Method) -> bool {
        let name = if method == Method::HEAD { "GET" } else { method.as_str() };
        self.methods.split(", ").any(|allowed| allowed == name)
    }
}

/// A request as those who answer it see it, over the state that it loaded.
pub(super) struct RequestContext<'a> {
    pub(super) app: &'a App,
    pub(super) state: &'a State,
    pub(super) caller: &'a Caller,
    pub(super) head: &'a Parts,
    pub(super) arguments: &'a Arguments,
    pub(super) record: &'a RequestRecord,
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
    let (head, body) = request.into_parts();
    let (method, headers, path) = (&head.method, &head.headers, head.uri.path());
    let Some((route, varies)) = Route::of(path) else {
        let detail = format!("{path} is not served here; /openapi.json tells what is");
        return Err(Problem::new(problem::NOT_FOUND, detail));
    };
    if surface == Surface::Admin && !route.is_for_operators() {
        let detail = format!("{path} is not served on the admin listener (MARTD_ADMIN_LISTEN)");
        return Err(Problem::new(problem::NOT_FOUND, detail));
    }
    if !route.allows(method) {
        return Err(Problem::method_not_allowed(route.methods));
    }
    let arguments = Arguments::parse(head.uri.query().unwrap_or_default())?;
    hooks::panic("request");
    match route.endpoint {
        Endpoint::Ready => return probes::ready(app, state, arguments.flag("verbose")?),
        Endpoint::Live => {
            hooks::stick("http");
            return probes::live(app, arguments.flag("verbose")?);
        }
        Endpoint::Page => return page::answer(app, state, headers),
        Endpoint::Asset(asset) => return Ok(page::asset(asset)),
        _ => {}
    }
    let caller = caller?;
    let sizes = match surface {
        Surface::Everything => caller.sizes(app.settings.scoping.as_ref()),
        Surface::Admin => Sizes::ALL,
    };
    let (caller, arguments, record) = (&caller, &arguments, &record);
    let context = RequestContext { app, state, caller, head: &head, arguments, record };
    match route.endpoint {
        Endpoint::Query => {
            let handle = handle.ok_or_else(|| Problem::internal("a query without a handle"))?;
            query::answer(&context, handle, body).await
        }
        Endpoint::Queries => cancel(app, varies, caller),
        Endpoint::Marts => json(StatusCode::OK, &marts::MartsDocument::of(app, state, sizes)),
        Endpoint::Attach => marts::attach(app, state, headers),
        Endpoint::Mcp => mcp::answer(&context, body).await,
        Endpoint::MartFile => mart_file::answer(&context, varies).await,
        Endpoint::Snapshot => {
            let wait = waiting::duration(arguments.get("wait"))?;
            match arguments.get("build") {
                Some(build) => waiting::answer(app, build, wait, sizes).await,
                None => json(StatusCode::OK, &snapshot::SnapshotDocument::of(state, sizes)),
            }
        }
        Endpoint::Freshness => {
            let (max_age, now) = (app.settings.max_age, Timestamp::now());
            let document = freshness::FreshnessDocument::of(state, max_age, sizes, now);
            let strict = arguments.flag("strict")?;
            let stale = strict && document.status() == freshness::FreshnessStatus::Error;
            json(if stale { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &document)
        }
        Endpoint::Datasets => json(StatusCode::OK, &datasets::DatasetsDocument::of(state)),
        Endpoint::Dataset => json(StatusCode::OK, &datasets::schema(state, varies)?),
        Endpoint::Events => events::answer(app, method, headers),
        Endpoint::Metrics => scrape::answer(app, state, sizes, headers),
        Endpoint::OpenApi => Ok(json_text(StatusCode::OK, OPENAPI)),
        Endpoint::Ready | Endpoint::Live | Endpoint::Page | Endpoint::Asset(_) => {
            Err(Problem::internal("answered above"))
        }
    }
}

/// What a listed page may send; the browser asks before it does.
fn preflight() -> Response<BoxBody> {
    let mut response = body::empty(StatusCode::NO_CONTENT);
    origin::allow_requests(response.headers_mut());
    response
}

/// `DELETE /v1/queries/{id}`. Another caller's query is as unknown as one that is over.
fn cancel(app: &App, id: &str, caller: &Caller) -> Result<Response<BoxBody>, Problem> {
    if !app.queries.cancel(id, caller) {
        return Err(Problem::new(problem::NOT_FOUND, "no query of yours is under way by that id"));
    }
    Ok(body::empty(StatusCode::NO_CONTENT))
}

pub(super) fn json(
    status: StatusCode,
    document: &impl Serialize,
) -> Result<Response<BoxBody>, Problem> {
    let text = serde_json::to_vec(document).map_err(Problem::internal)?;
    Ok(json_text(status, text))
}

fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Response<BoxBody> {
    let mut response = body::response(status, "application/json", text);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
            let (route, _) = Route::of(path).unwrap_or_else(|| panic!("{path} is not served"));
            let methods = operations.as_object().expect("operations").keys();
            let methods = methods.filter(|key| *key != "parameters").map(|key| key.to_uppercase());
            assert_eq!(methods.collect::<Vec<_>>().join(", "), route.methods, "{path}");
            described.push(route.path);
        }
        for Route { path, .. } in ROUTES {
            assert!(described.contains(&path), "{path} is not described");
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
