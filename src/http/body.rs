//! The one body type of all answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A failure after the status line was sent: hyper then cuts the connection, so that the answer
/// cannot be taken for a whole one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct Aborted(pub(super) String);

/// The body of every answer.
pub(super) type BoxBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Aborted>;

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is made while it is sent. Dropping it tells the maker that the client is gone.
#[derive(Debug)]
pub(super) struct Stream {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, Aborted>>,
}

impl Stream {
    pub(super) fn new(first: Bytes, rest: mpsc::Receiver<Result<Bytes, Aborted>>) -> Self {
        Self { first: Some(first), rest }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.rest.poll_recv(context).map(|item| item.map(|bytes| bytes.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
