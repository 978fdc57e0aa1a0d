//! The bytes of a connection: whole messages in, a buffer of messages out.

use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use pgwire::messages::{
    DecodeContext, PgWireBackendMessage, PgWireFrontendMessage, ProtocolVersion,
    SslNegotiationMetaMessage,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_io_timeout::TimeoutStream;

use super::error::{PgError, PgFailure};
use super::shape::{self, Shape};
use super::tls::Tls;

/// The largest message before a client is known.
const STARTUP_BYTES: usize = 10_000;
/// What is read ahead while a query runs, to notice that its client has left.
const READ_AHEAD: usize = 64 << 10;
/// Output is sent when there is so much of it.
const WRITE_BYTES: usize = 64 << 10;

/// A stream of bytes in both directions.
pub(super) trait Io: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// One connection.
pub(super) struct Wire {
    io: Pin<Box<dyn Io>>,
    input: BytesMut,
    output: BytesMut,
    context: DecodeContext,
    /// The largest message of a client that is known.
    most: usize,
}

impl Wire {
    /// A connection whose messages are at most so large, and that is cut when it takes no bytes for `stall`.
    pub(super) fn new(io: impl Io + 'static, most: usize, stall: Duration) -> Self {
        let mut io = TimeoutStream::new(io);
        io.set_write_timeout(Some(stall));
        let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        Self { io: Box::pin(io), input: BytesMut::new(), output: BytesMut::new(), context, most }
    }

    /// Encrypts the connection, once the client was told that it will be.
    pub(super) async fn encrypt(&mut self, tls: &Tls) -> Result<(), PgFailure> {
        self.flush().await?;
        // What came in clear text before would be taken for what came encrypted.
        if !self.input.is_empty() {
            let message = "bytes before the handshake of TLS";
            return Err(PgError::fatal("08P01", message).into());
        }
        let plain = std::mem::replace(&mut self.io, Box::pin(tokio::io::empty()));
        self.io = Box::pin(tls.acceptor().accept(plain).await?);
        self.context.awaiting_ssl = true;
        Ok(())
    }

    /// From here on messages have a type.
    pub(super) fn started(&mut self) {
        self.context.awaiting_ssl = false;
        self.context.awaiting_startup = false;
    }

    /// The next message, and what is wrong with its texts. What is to be sent is sent before it is waited
    /// for.
    pub(super) async fn receive(
        &mut self,
    ) -> Result<(PgWireFrontendMessage, Option<PgError>), PgFailure> {
        loop {
            if let Some(length) = self.next_length()? {
                let frame = self.input.split_to(length);
                return self.decode(frame);
            }
            self.flush().await?;
            if self.io.read_buf(&mut self.input).await? == 0 {
                return Err(PgFailure::Gone);
            }
        }
    }

    /// How long the message is that the input begins with, once all of it is there.
    fn next_length(&self) -> Result<Option<usize>, PgFailure> {
        let typed = usize::from(!self.context.awaiting_startup);
        let most = if typed == 0 { STARTUP_BYTES } else { self.most };
        let Some(length) = self.input.get(typed..typed + 4) else { return Ok(None) };
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if !(4..=most).contains(&length) {
            let message = format!("a message of {length} bytes; {most} are the most");
            return Err(PgError::fatal("08P01", message).into());
        }
        Ok(Some(typed + length).filter(|length| self.input.len() >= *length))
    }

    fn decode(
        &mut self,
        frame: BytesMut,
    ) -> Result<(PgWireFrontendMessage, Option<PgError>), PgFailure> {
        let kind = (!self.context.awaiting_startup).then(|| frame[0]);
        let head = 4 + usize::from(kind.is_some());
        let wrong = match shape::of(kind, &frame[head..]) {
            Shape::Whole => None,
            Shape::NotUtf8 => Some(PgError::new("22021", "a text of the message is not UTF-8")),
            Shape::Broken => return Err(not_understood()),
        };
        let mut message = self.decode_as_is(frame.clone())?;
        if let PgWireFrontendMessage::SslNegotiation(SslNegotiationMetaMessage::None) = message {
            self.context.awaiting_ssl = false;
            message = self.decode_as_is(frame)?;
        }
        Ok((message, wrong))
    }

    fn decode_as_is(&self, mut frame: BytesMut) -> Result<PgWireFrontendMessage, PgFailure> {
        let message = PgWireFrontendMessage::decode(&mut frame, &self.context);
        message.ok().flatten().ok_or_else(not_understood)
    }

    /// What `work` comes to, unless the client leaves before.
    pub(super) async fn unless_gone<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, PgFailure> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return Ok(outcome),
                read = self.io.read_buf(&mut self.input), if self.input.len() < READ_AHEAD => {
                    if read? == 0 {
                        return Err(PgFailure::Gone);
                    }
                }
            }
        }
    }

    /// Adds a message to what is to be sent.
    pub(super) fn push(&mut self, message: PgWireBackendMessage) {
        let start = self.output.len();
        if message.encode(&mut self.output).is_err() {
            self.output.truncate(start); // longer than any client takes
        }
    }

    /// Adds messages that are encoded already.
    pub(super) async fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), PgFailure> {
        if self.output.len() + bytes.len() > WRITE_BYTES {
            self.flush().await?;
            if bytes.len() > WRITE_BYTES {
                return Ok(self.io.write_all(bytes).await?);
            }
        }
        self.output.extend_from_slice(bytes);
        Ok(())
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), PgFailure> {
        if !self.output.is_empty() {
            self.io.write_all(&self.output).await?;
            self.output.clear();
        }
        Ok(self.io.flush().await?)
    }
}

fn not_understood() -> PgFailure {
    PgError::fatal("08P01", "a message is not understood").into()
}
