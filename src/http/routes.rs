//! Which request goes where. Loads the state once for each request and passes it down.

use std::convert::Infallible;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use tracing::{Instrument, debug, info, info_span};

use super::access::Caller;
use super::body::{self, BoxBody};
use super::problem::{self, Problem};
use super::queries::Ticket;
use super::{App, freshness, mart_file, probes, query, request_id, snapshot, waiting};
use crate::catalog::State;

/// What answers come from.
pub(super) const SOURCE: &str = "parquet";

/// In an answer, the snapshot that it comes from; in a request, the one to ask.
pub(super) const MARTD_SNAPSHOT: HeaderName = HeaderName::from_static("martd-snapshot");
const QUERY_PATH: &str = "/v1/query";
const MARTD_SOURCE: HeaderName = HeaderName::from_static("martd-source");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Answers one request, whatever happens.
pub(super) async fn handle(
    app: App,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Infallible> {
    let started = Instant::now();
    let id = request_id::of(request.headers());
    let ticket = (request.uri().path() == QUERY_PATH).then(|| app.queries().register(id.clone()));
    let id = ticket.as_ref().map_or(id, |ticket| ticket.id().to_owned());
    let state = app.catalog().load();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let span = info_span!("request", id);

    // A task of its own, so that a panic ends this request alone.
    let task = tokio::spawn({
        let (app, state) = (app.clone(), state.clone());
        async move { route(&app, &state, ticket, request).await }.instrument(span.clone())
    });
    let outcome = AbortOnDrop(task).await;
    let mut response = outcome.unwrap_or_else(|problem| problem.into_response(&id));

    let headers = response.headers_mut();
    headers.insert(MARTD_SOURCE, HeaderValue::from_static(SOURCE));
    if !headers.contains_key(MARTD_SNAPSHOT)
        && let Some(snapshot) = &state.snapshot
        && let Ok(value) = HeaderValue::from_str(&snapshot.id)
    {
        headers.insert(MARTD_SNAPSHOT, value);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(request_id::X_REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    let timing = format!("total;dur={:.3}", elapsed.as_secs_f64() * 1e3);
    if let Ok(value) = HeaderValue::from_str(&timing) {
        headers.insert(SERVER_TIMING, value);
    }
    let status = response.status().as_u16();
    let ms = elapsed.as_millis() as u64;
    // Probes ask every second and say nothing new.
    if path == "/readyz" || path == "/livez" {
        span.in_scope(|| debug!(%method, path, status, ms, "answered"));
    } else {
        span.in_scope(|| info!(%method, path, status, ms, "answered"));
    }
    Ok(response)
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

async fn route(
    app: &App,
    state: &State,
    ticket: Option<Ticket>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody>, Problem> {
    let path = request.uri().path().to_owned();
    let uri = request.uri().clone();
    let argument = |name: &str| argument(uri.query().unwrap_or_default(), name);
    match path.as_str() {
        "/readyz" => {
            allow(request.method(), GET, "GET")?;
            return probes::ready(app, state, argument("verbose").is_some());
        }
        "/livez" => {
            allow(request.method(), GET, "GET")?;
            return probes::live(app, argument("verbose").is_some());
        }
        _ => {}
    }
    let caller = Caller::identify(app.tokens(), request.headers())?;
    if let Some(id) = path.strip_prefix("/v1/queries/") {
        allow(request.method(), &[Method::DELETE], "DELETE")?;
        return cancel(app, id, &caller);
    }
    if let Some(file) = path.strip_prefix("/v1/marts/") {
        allow(request.method(), GET, "GET")?;
        return mart_file::answer(app, state, request.headers(), file);
    }
    match path.as_str() {
        QUERY_PATH => {
            allow(request.method(), &[Method::GET, Method::HEAD, Method::POST], "GET, POST")?;
            let ticket = ticket.ok_or_else(|| Problem::internal("a query without a ticket"))?;
            ticket.belongs_to(&caller);
            query::answer(app, state, &caller, ticket, request).await
        }
        "/v1/snapshot" => {
            allow(request.method(), GET, "GET")?;
            match argument("build") {
                Some(build) => waiting::answer(app, &build, argument("wait").as_deref()).await,
                None => json(StatusCode::OK, &snapshot::Document::of(state)),
            }
        }
        "/v1/freshness" => {
            allow(request.method(), GET, "GET")?;
            let document = freshness::Document::of(state, Timestamp::now());
            let stale =
                document.status() == freshness::Status::Error && argument("strict").is_some();
            json(if stale { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &document)
        }
        other => {
            let detail = format!("{other} is not served here; the README lists what is");
            Err(Problem::new(problem::NOT_FOUND, detail))
        }
    }
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

/// The value of an argument in a query string; empty when it has none.
pub(super) fn argument(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

const GET: &[Method] = &[Method::GET, Method::HEAD];

fn allow(method: &Method, allowed: &[Method], names: &'static str) -> Result<(), Problem> {
    if allowed.contains(method) { Ok(()) } else { Err(Problem::method_not_allowed(names)) }
}

pub(super) fn json(
    status: StatusCode,
    document: &impl Serialize,
) -> Result<Response<BoxBody>, Problem> {
    let text = serde_json::to_vec(document).map_err(Problem::internal)?;
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
