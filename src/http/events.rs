//! `GET /v1/events`: server-sent events, one for each thing that happened.
//!
//! A listener takes a connection and no query slot. All it keeps here is a number, so one that reads
//! slowly costs nothing; one that does not read at all is dropped.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::App;
use super::body::{self, Aborted, BoxBody, Stream};
use super::problem::{self, Problem};
use crate::events::Events;
use crate::metrics::Counted;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A proxy that collects an answer before it passes it on would keep the events.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A listener that takes no bytes for this long is dropped.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon a listener that was cut off should come back.
const RETRY_MS: u32 = 2_000;
/// Events that are sent at once.
const BATCH: usize = 32;

/// Answers with the events after `Last-Event-ID`, or from now on, until martd stops.
pub(super) fn answer(
    app: &App,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<BoxBody>, Problem> {
    let events = app.events.clone();
    let body = if method == Method::HEAD {
        body::full(Bytes::new())
    } else {
        let Ok(permit) = app.listeners.clone().try_acquire_owned() else {
            let detail = "as many listen to events already as may; GET /v1/snapshot tells the same";
            return Err(Problem::new(problem::OVERLOADED, detail).retry_after(5));
        };
        let (hello, cursor) = greet(&events, headers.get(LAST_EVENT_ID));
        let (sender, parts) = tokio::sync::mpsc::channel(1);
        sender.try_send(Ok(Frame::data(hello.into()))).expect("there is room");
        let (draining, counted) = (app.draining.subscribe(), app.metrics.event_listener());
        tokio::spawn(async move {
            Listener { events, cursor, sender, draining, _counted: counted }.run().await;
            drop(permit);
        });
        Stream::new(parts).boxed_unsync()
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The first words to a listener, and the number of the last event that it knows.
fn greet(events: &Events, last: Option<&HeaderValue>) -> (String, u64) {
    let known = last.map(|id| id.to_str().ok().and_then(|id| events.number(id)));
    let cursor = known.flatten().unwrap_or_else(|| events.last());
    let mut hello = format!("retry: {RETRY_MS}\nid: {}\n\n", events.id(cursor));
    if known == Some(None) {
        hello.push_str(&missed(None));
    }
    (hello, cursor)
}

/// Tells that events were missed: how many, or that nobody knows because martd was started anew.
fn missed(count: Option<u64>) -> String {
    let data = serde_json::json!({"missed": count, "ask": "/v1/snapshot"});
    format!("event: missed\ndata: {data}\n\n")
}

struct Listener {
    events: Events,
    cursor: u64,
    sender: Sender<Result<Frame<Bytes>, Aborted>>,
    draining: watch::Receiver<bool>,
    _counted: Counted,
}

impl Listener {
    /// Sends what happens until the listener leaves, is stuck, or martd stops.
    async fn run(mut self) {
        let mut news = self.events.subscribe();
        loop {
            news.borrow_and_update(); // before the look, so that nothing falls between the two
            while let Some(text) = self.next() {
                if !self.send(Frame::data(text.into())).await {
                    return;
                }
            }
            let draining = async { self.draining.wait_for(|draining| *draining).await.is_ok() };
            tokio::select! {
                changed = news.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(HEARTBEAT) => if !self.send(Frame::data(": alive\n\n".into())).await {
                    return;
                },
                is_draining = draining => {
                    if is_draining {
                        // A clean end: the listener comes back, to another martd.
                        self.send(Frame::trailers(HeaderMap::new())).await;
                    }
                    return;
                }
                () = self.sender.closed() => return,
            }
        }
    }

    fn next(&mut self) -> Option<String> {
        let batch = self.events.after(self.cursor, BATCH);
        let last = batch.events.last()?;
        self.cursor = last.number;
        let mut text = String::new();
        if batch.missed > 0 {
            text.push_str(&missed(Some(batch.missed)));
        }
        for event in &batch.events {
            let id = self.events.id(event.number);
            let _ = write!(text, "id: {id}\nevent: {}\ndata: {}\n\n", event.kind, event.data);
        }
        Some(text)
    }

    async fn send(&self, frame: Frame<Bytes>) -> bool {
        matches!(timeout(STALL_TIMEOUT, self.sender.send(Ok(frame))).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marts::build::TableBudget;
    use crate::metrics::Metrics;
    use crate::pin::Budget;

    fn listener(events: &Events, draining: &watch::Sender<bool>) -> (Listener, body::Parts) {
        let (sender, parts) = tokio::sync::mpsc::channel(1);
        let counted = Metrics::new(Budget::new(0), TableBudget::new(0, None), []).event_listener();
        let events = events.clone();
        let draining = draining.subscribe();
        (Listener { events, cursor: 0, sender, draining, _counted: counted }, parts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_takes_nothing_is_dropped() {
        let (events, draining) = (Events::default(), watch::Sender::new(false));
        let (stuck, _parts) = listener(&events, &draining);
        // One heartbeat fits; the next waits, until it is given up. No time really passes.
        timeout(HEARTBEAT * 2 + STALL_TIMEOUT * 2, stuck.run()).await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_hears_heartbeats_and_a_clean_end() {
        let (events, draining) = (Events::default(), watch::Sender::new(false));
        let (listener, mut parts) = listener(&events, &draining);
        let running = tokio::spawn(listener.run());
        for _ in 0..5 {
            let frame = parts.recv().await.expect("a frame").expect("no failure");
            assert_eq!(frame.into_data().expect("data"), ": alive\n\n");
        }
        draining.send_replace(true);
        assert!(parts.recv().await.is_some_and(|end| end.is_ok_and(|end| end.is_trailers())));
        running.await.expect("no panic");
    }
}
