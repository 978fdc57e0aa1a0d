//! One exchange: a request and its answer, from the first byte of the one to the last of the other.
//!
//! Counts what is in flight, so that the end waits for it, and writes the access log: one line when
//! the answer is out, or the client has left.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response};
use parking_lot::Mutex;
use tracing::{Span, debug, info};

use super::App;
use super::body::{Aborted, BoxBody};

/// What a query's handler tells of it, for the log and the counters. A clone tells of the same.
pub(super) type RequestRecord = Arc<Mutex<ToldOfQuery>>;

/// What is told of a query.
#[derive(Debug, Default)]
pub(super) struct ToldOfQuery {
    /// The statement's hash.
    pub(super) statement: Option<String>,
    /// The statement as the client sent it, where that is logged; parameters have no values in it.
    pub(super) sql: Option<String>,
    /// Of the answer.
    pub(super) rows: u64,
    /// How long it waited for a slot.
    pub(super) waited: Duration,
}

impl ToldOfQuery {
    /// Notes the statement, of several the first.
    pub(super) fn statement(&mut self, sql: &str, as_text: bool) {
        if self.statement.is_none() {
            self.statement = Some(blake3::hash(sql.as_bytes()).to_hex()[..16].to_owned());
            self.sql = as_text.then(|| sql.to_owned());
        }
    }
}

/// An exchange under way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Exchange {
    app: App,
    started: Instant,
    method: Method,
    path: String,
    record: RequestRecord,
    span: Span,
    head: Option<Head>,
    bytes: u64,
    /// The length of the body, where it is known before its end.
    expected: Option<u64>,
    whole: bool,
    /// Why martd broke the answer off, if it did.
    aborted: Option<String>,
}

#[derive(Debug)]
struct Head {
    status: u16,
    snapshot: Option<String>,
    after: Duration,
}

impl Exchange {
    /// Begins to count.
    pub(super) fn begin<B>(
        app: &App,
        started: Instant,
        request: &Request<B>,
        record: RequestRecord,
        span: Span,
    ) -> Self {
        app.in_flight.fetch_add(1, Ordering::AcqRel);
        Self {
            app: app.clone(),
            started,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            record,
            span,
            head: None,
            bytes: 0,
            expected: None,
            whole: false,
            aborted: None,
        }
    }

    /// Sends an answer, and ends with it.
    pub(super) fn answer(mut self, response: Response<BoxBody>) -> Response<BoxBody> {
        let snapshot = response.headers().get(super::routes::MARTD_SNAPSHOT);
        self.head = Some(Head {
            status: response.status().as_u16(),
            snapshot: snapshot.and_then(|id| id.to_str().ok()).map(str::to_owned),
            after: self.started.elapsed(),
        });
        let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|length| length.parse().ok());
        self.expected = length.or_else(|| response.body().size_hint().exact());
        self.whole = self.expected == Some(0) || self.method == Method::HEAD;
        response.map(|body| Sending { body, exchange: self }.boxed_unsync())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Self { app, started, method, path, record, span, head, bytes, whole, aborted, .. } =
            self;
        app.in_flight.fetch_sub(1, Ordering::AcqRel);
        let _entered = span.enter();
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        let elapsed = ms(started.elapsed());
        let Some(Head { status, snapshot, after }) = head else {
            info!(%method, path, ms = elapsed, "left before the answer");
            return;
        };
        let (path, snapshot, head_ms) = (path.as_str(), snapshot.as_deref(), ms(*after));
        let message = match (*whole, &aborted) {
            (true, _) => "answered",
            (false, Some(_)) => "broken off",
            (false, None) => "left during the answer",
        };
        let told = record.lock();
        match &told.statement {
            Some(hash) => info!(
                %method, path, status, snapshot, statement = hash, sql = told.sql,
                rows = told.rows, bytes, head_ms, ms = elapsed, reason = aborted,
                queue_ms = ms(told.waited),
                "{message}"
            ),
            // Probes and scrapes come every few seconds and say nothing new.
            None if matches!(path, "/readyz" | "/livez" | "/metrics") => {
                debug!(%method, path, status, bytes, ms = elapsed, "{message}");
            }
            None => info!(%method, path, status, snapshot, bytes, ms = elapsed, "{message}"),
        }
    }
}

/// A body on its way to the client.
struct Sending {
    body: BoxBody,
    exchange: Exchange,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Buf::remaining) as u64;
                self.exchange.bytes += bytes;
                let Exchange { bytes, expected, .. } = self.exchange;
                self.exchange.whole = expected == Some(bytes) || frame.is_trailers();
            }
            Poll::Ready(None) => self.exchange.whole = true,
            Poll::Ready(Some(Err(error))) => self.exchange.aborted = Some(error.reason.clone()),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
