//! The one body type of all answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::problem::Problem;
use crate::metrics::Outcome;

/// A failure after the status line was sent: hyper then cuts the connection, so that the answer
/// cannot be taken for a whole one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Aborted {
    pub(super) reason: String,
    /// What the request counts as.
    pub(super) outcome: Outcome,
    /// Why, in the words for a client.
    pub(super) problem: Option<Problem>,
}

impl Aborted {
    /// A failure of martd's own.
    pub(super) fn error(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), outcome: Outcome::Error, problem: None }
    }
}

/// The body of every answer.
pub(super) type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Aborted>;

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of one media type that is there already.
pub(super) fn response(
    status: StatusCode,
    media_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<BoxBody> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer that says all by its status.
pub(super) fn empty(status: StatusCode) -> Response<BoxBody> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// The parts of a body as they are made.
pub(super) type Parts = mpsc::Receiver<Result<Frame<Bytes>, Aborted>>;

/// A body that is made while it is sent, and ends with its trailers. Dropping it tells the maker
/// that the client is gone.
#[derive(Debug)]
pub(super) struct Stream {
    parts: Parts,
    ended: bool,
}

impl Stream {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, ended: false }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.parts.poll_recv(context)).unwrap_or_else(|| {
            // A maker that panicked must not leave something that looks like a whole answer.
            Err(Aborted::error("the maker of the answer is gone"))
        });
        self.ended = frame.as_ref().map_or(true, Frame::is_trailers);
        Poll::Ready(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    async fn frames(parts: Vec<Result<Frame<Bytes>, Aborted>>) -> Vec<bool> {
        let (sender, receiver) = mpsc::channel(parts.len());
        for part in parts {
            sender.try_send(part).expect("there is room");
        }
        drop(sender);
        let mut stream = Stream::new(receiver);
        let mut frames = Vec::new();
        while let Some(frame) = stream.frame().await {
            frames.push(frame.is_ok());
        }
        frames
    }

    #[tokio::test]
    async fn a_stream_is_whole_only_with_its_trailers() {
        let data = || Ok(Frame::data(Bytes::from_static(b"b")));
        assert_eq!(frames(vec![data(), Ok(Frame::trailers(HeaderMap::new()))]).await, [true; 2]);
        assert_eq!(frames(vec![data()]).await, [true, false]);
        assert_eq!(frames(vec![data(), Err(Aborted::error("x"))]).await, [true, false]);
    }
}
