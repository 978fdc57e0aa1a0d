//! The rows of a statement on their way to a client: whole messages, as many as are asked for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::error::PgError;
use crate::http::{PgAnswer, PgClient};

/// The rows of one statement.
pub(super) struct PgRows {
    /// The `RowDescription`.
    pub(super) head: Bytes,
    pending: BytesMut,
    source: Source,
    /// For what waits in memory.
    permit: Option<OwnedSemaphorePermit>,
}

type Waiting = mpsc::UnboundedReceiver<Result<(Bytes, OwnedSemaphorePermit), PgError>>;

enum Source {
    Answer(Box<PgAnswer>),
    /// Was read to its end, so that nobody's slot waits for a client.
    Waiting(Waiting),
    Ended,
}

impl PgRows {
    /// Of an answer that has begun.
    pub(super) async fn of(answer: PgAnswer, client: &PgClient) -> Result<Self, PgError> {
        let source = Source::Answer(Box::new(answer));
        let (head, pending) = (Bytes::new(), BytesMut::new());
        let mut rows = Self { head, pending, source, permit: None };
        loop {
            if let Some(length) = message_length(&rows.pending) {
                rows.head = rows.pending.split_to(length).freeze();
                return Ok(rows);
            }
            if !rows.read(client).await? {
                return Err(PgError::new("XX000", "an answer without a description of its rows"));
            }
        }
    }

    /// The numbers of the columns' types, as the description has them.
    pub(super) fn types(&self) -> Vec<u32> {
        let (mut types, mut rest) = (Vec::new(), self.head.get(7..).unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == 0)
            && let Some(number) = rest.get(end + 7..end + 11)
        {
            types.push(u32::from_be_bytes(number.try_into().expect("four bytes")));
            rest = rest.get(end + 19..).unwrap_or_default();
        }
        types
    }

    /// Reads on. `false` at the end.
    async fn read(&mut self, client: &PgClient) -> Result<bool, PgError> {
        let next = match &mut self.source {
            Source::Answer(answer) => answer.next(client).await.map(|next| Ok((next?, None))),
            Source::Waiting(waiting) => {
                waiting.recv().await.map(|next| next.map(|(bytes, permit)| (bytes, Some(permit))))
            }
            Source::Ended => None,
        };
        match next {
            Some(Ok((bytes, permit))) => {
                self.pending.extend_from_slice(&bytes);
                self.permit = permit;
                Ok(true)
            }
            Some(Err(error)) => {
                self.source = Source::Ended;
                Err(error)
            }
            None => {
                self.source = Source::Ended;
                Ok(false)
            }
        }
    }

    /// The next messages of rows, `most` at most, and how many they are; `None` at the end.
    pub(super) async fn next(
        &mut self,
        most: u64,
        client: &PgClient,
    ) -> Result<Option<(Bytes, u64)>, PgError> {
        loop {
            let (mut length, mut count) = (0, 0);
            while count < most
                && let Some(next) = message_length(&self.pending[length..])
            {
                length += next;
                count += 1;
            }
            if count > 0 {
                return Ok(Some((self.pending.split_to(length).freeze(), count)));
            }
            if !self.read(client).await? {
                return Ok(None);
            }
        }
    }

    /// Lets the rest wait in memory until it is asked for.
    pub(super) fn suspend(
        &mut self,
        room: &Arc<Semaphore>,
        client: &PgClient,
    ) -> Result<(), PgError> {
        if !matches!(self.source, Source::Answer(_)) {
            return Ok(());
        }
        self.permit = Some(take(room, self.pending.len())?);
        let Source::Answer(mut answer) = std::mem::replace(&mut self.source, Source::Ended) else {
            return Ok(());
        };
        let (sender, waiting) = mpsc::unbounded_channel();
        let (room, client) = (Arc::clone(room), client.clone());
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = answer.next(&client) => next,
                    () = sender.closed() => return,
                };
                let Some(next) = next else { return };
                let kept = next.map_err(PgError::from).and_then(|bytes| {
                    let permit = take(&room, bytes.len())?;
                    Ok((bytes, permit))
                });
                let failed = kept.is_err();
                if sender.send(kept).is_err() || failed {
                    return;
                }
            }
        });
        self.source = Source::Waiting(waiting);
        Ok(())
    }
}

fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, PgError> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(room).try_acquire_many_owned(bytes).map_err(|_| {
        let message =
            "rows that wait for their clients take too much memory; fetch more at once, or all";
        PgError::new("53400", message)
    })
}

/// How long the message is that the bytes begin with, once all of it is there.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(1..5)?.try_into().expect("four bytes");
    let length = 1 + u32::from_be_bytes(length) as usize;
    (bytes.len() >= length).then_some(length)
}
