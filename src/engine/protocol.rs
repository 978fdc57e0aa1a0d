//! What the front and an engine say to each other.
//!
//! Two kinds of Unix sockets. On the **control** socket, which is [`crate::ipc`]'s, the front sends
//! [`Control`] and the engine [`StatusMessage`]. Each **slot** has a socket of its own: the front sends a
//! [`Request`], and the engine answers with any number of [`Response::Part`] and one last response.
//! A slot has one request at a time, so a part needs no id; `Control::Cancel` comes on the other socket
//! and has one.
//!
//! The front gives back pressure by not reading: the engine's write then waits, with a few parts in
//! the socket's buffer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::scope::{Scope, Scoping};
use crate::duck::{DuckError, ResultColumn, Type, TypeName, Value};
use crate::encode::{Coding, Codings, Format};
use crate::marts::build::ReportColumn;
use crate::sql_gate::{Asks, Dialect, Rejection, ValidatedStatement};

/// A part of an answer is at most this large, so that the front never has to take more at once.
pub(super) const PART_BYTES: usize = 1 << 20;
/// What a message on a slot's socket can have beside a part: a statement, or a message of DuckDB's.
const MOST_BYTES: usize = 256 << 20;

/// What an engine is started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessSettings {
    /// DuckDB's memory limit, in bytes (`MARTD_MEMORY`).
    pub memory_bytes: u64,
    /// What the process may allocate in all, in bytes.
    pub data_bytes: u64,
    /// Processors that statements may take together.
    pub threads: usize,
    /// The session time zone.
    pub time_zone: String,
    /// The schemas under which every mart can be named.
    pub schemas: Vec<String>,
    /// How rows are scoped, if they are.
    pub scoping: Option<Scoping>,
    /// Where tables lie that memory had no room for (`MARTD_TABLE_DIR`).
    pub table_dir: Option<PathBuf>,
    /// Whether clients of PostgreSQL are served, who ask for a catalog.
    pub postgres: bool,
}

/// The number of a table: one for each [`BuiltTable`](crate::marts::build::BuiltTable) of a front.
pub(super) type TableNumber = u64;

/// A snapshot as an engine serves it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SnapshotSpec {
    /// Names it between front and engine.
    pub(super) number: u64,
    /// Names it to clients.
    pub(super) id: String,
    pub(super) tables: Vec<TableSpec>,
}

/// A mart as an engine serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// That of its table.
    pub number: u64,
    /// The mart's name.
    pub name: String,
    /// A schema under which this mart alone can be named as well.
    pub schema: Option<String>,
    /// Its columns.
    pub columns: Vec<ReportColumn>,
    /// Whether it is served without rows, whatever the table holds (dbt-duckdb's empty model).
    pub is_empty: bool,
    /// What it holds, as its project says; empty when that says nothing.
    pub description: String,
    /// What columns mean, by name.
    pub meanings: Vec<(String, String)>,
}

/// From the front, on the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Control {
    /// The first message, and how many sockets of slots follow.
    Start(ProcessSettings, usize),
    /// Descriptors: sockets of slots, by number.
    Slots,
    /// Tables that a snapshot will name. Descriptors: theirs, in this order.
    Attach(Vec<TableNumber>),
    /// Serve this. Answered by [`StatusMessage::Ready`] or [`StatusMessage::Refused`].
    Publish(SnapshotSpec),
    /// Nobody will ask for this snapshot any more.
    Drop(u64),
    /// Stop a slot's request, if it is still this one.
    Cancel { slot: usize, request: u64 },
}

/// From the engine, on the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum StatusMessage {
    /// The engine takes requests.
    Started,
    /// It cannot, and ends.
    Failed(StartError),
    /// A snapshot can be asked for.
    Ready(u64),
    /// It cannot, for this reason.
    Refused(u64, String),
}

/// Why an engine does not start, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StartError {
    /// DuckDB does not know the time zone.
    #[error("--timezone (MARTD_TIMEZONE): {0}")]
    TimeZone(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<DuckError> for StartError {
    fn from(error: DuckError) -> Self {
        Self::Other(error.to_string())
    }
}

/// Something to do for a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    /// Grows from one of a process to the next.
    pub(super) number: u64,
    pub(super) task: SlotTask,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum SlotTask {
    /// Say whether a statement may be asked.
    Validate(String, Dialect),
    /// Answer a query.
    Query { snapshot: u64, job: QueryJob },
    /// Say what parameters and columns a statement has.
    Describe { snapshot: u64, sql: String, types: Vec<Option<TypeName>>, scope: Scope },
    /// Say what the newest value of a mart's column is.
    Newest { snapshot: u64, mart: String, column: String },
}

impl SlotTask {
    /// The hash of its statement, as the access log has it.
    pub(super) fn statement(&self) -> blake3::Hash {
        match self {
            Self::Validate(sql, _)
            | Self::Describe { sql, .. }
            | Self::Query { job: QueryJob { sql, .. }, .. } => blake3::hash(sql.as_bytes()),
            Self::Newest { mart, column, .. } => {
                blake3::hash(format!("{mart}.{column}").as_bytes())
            }
        }
    }
}

/// A query that is to be answered, with everything that its answer depends on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueryJob {
    /// The statement.
    pub sql: String,
    /// The values of its parameters.
    pub parameters: Parameters,
    /// What tells the time to a client of PostgreSQL's: when its transaction began, in microseconds since 1970.
    pub moment: Option<i64>,
    /// The rows that it sees.
    pub scope: Scope,
    /// How the answer is written…
    pub format: Format,
    /// …of [`Format::Postgres`], in which columns in binary form…
    pub binary: Vec<bool>,
    /// …and compressed.
    pub codings: Codings,
    /// The rows after which the answer is cut, and says so; all are asked for without it.
    pub limit: Option<u64>,
    /// The most rows of an answer whose client asked for all of them.
    pub max_rows: u64,
    /// The most bytes of the answer.
    pub max_bytes: u64,
    /// How long ago the request came.
    pub elapsed: Duration,
}

/// How a statement is meant whose answer is of this format.
pub fn dialect(format: Format) -> Dialect {
    match format {
        Format::Postgres => Dialect::Postgres,
        _ => Dialect::DuckDb,
    }
}

/// The values that a client binds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Parameters {
    /// For `?` and `$1`, in order.
    Positional(Vec<Value>),
    /// For `$name`.
    Named(BTreeMap<String, Value>),
}

impl Default for Parameters {
    fn default() -> Self {
        Self::Positional(Vec::new())
    }
}

/// What a slot answers, with bytes beside it where that is said.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    /// A part of an answer (the bytes) that others follow, and how many rows there are so far.
    Part { rows: u64 },
    /// The last part, or a whole answer.
    End(End),
    /// To [`SlotTask::Validate`].
    Validated(ValidatedStatement),
    /// To [`SlotTask::Describe`].
    Described(Description),
    /// To [`SlotTask::Newest`].
    Newest(Result<Option<Timestamp>, String>),
    /// The request came to nothing.
    Failed(StatementFailure),
}

/// What is known of a statement before it is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The types of its parameters by number, where they can be told.
    pub parameters: Vec<Option<Type>>,
    /// Its columns.
    pub columns: Vec<ResultColumn>,
    /// Which database answers it.
    pub asks: Asks,
}

/// What is known at the end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How the bytes are compressed.
    pub coding: Coding,
    /// Whether rows were left out.
    pub truncated: bool,
    /// How many it has.
    pub rows: u64,
}

/// Why a request came to nothing, and who is to blame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StatementFailure {
    pub(super) error: QueryError,
    pub(super) blame: Blame,
}

/// Whose doing a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Blame {
    /// The request's or the machine's: the engine is as good as before.
    Request,
    /// This request made DuckDB fail in a way after which it is of no use.
    Culprit,
    /// Another request did.
    Victim,
}

/// How it is said that a parameter has no type, and that the statement does not tell it.
pub const UNTYPED: &str = "could not determine data type of parameter";

/// Why a statement was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum QueryError {
    /// The statement is wrong.
    #[error("{message}")]
    Sql {
        /// DuckDB's message.
        message: String,
        /// The byte of the statement that it points to.
        position: Option<usize>,
    },
    /// A column of the answer has a type that the format has no form of.
    #[error("{0}")]
    NoForm(String),
    /// The statement may not be asked.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A parameter is missing or was not asked for.
    #[error("{0}")]
    Parameter(String),
    /// A table that is none, or that cannot be read under row scoping.
    #[error("{message}")]
    NotAllowed {
        /// Why not.
        message: String,
        /// The byte of the statement at which it is named.
        position: Option<usize>,
    },
    /// The statement needed more memory than it may have.
    #[error("the statement needs more memory than it may have")]
    OutOfMemory,
    /// The statement was stopped because somebody asked for that.
    #[error("the statement was stopped")]
    Cancelled,
    /// The statement was stopped because its time was over.
    #[error("the statement was stopped at its time limit")]
    TimedOut,
    /// The answer is larger than this, and its format cannot say that rows were left out.
    #[error("the answer has more than {0}; ask for less, or for a limit of rows")]
    AnswerTooLarge(String),
    /// The client took no bytes for too long.
    #[error("the client took nothing for {0:?}")]
    Stalled(Duration),
    /// The statement brought an engine down.
    #[error("the statement made DuckDB fail: {0}")]
    EngineFailed(String),
    /// The statement brought an engine down a while ago, and is not run again for so long.
    #[error("the statement made DuckDB fail, and is not run again for {} s", .0.as_secs())]
    Quarantined(Duration),
    /// Whoever asks brought down several engines lately, and is not answered for so long.
    #[error("statements of this client made DuckDB fail again and again; ask again in {} s", .0.as_secs())]
    TooManyFailures(Duration),
    /// No engine could be had in time.
    #[error("no engine could be had in time; ask again")]
    Unavailable,
    /// Something that is not the client's doing.
    #[error("{0}")]
    Internal(String),
}

/// Before a message on a slot's socket: the length of the message, and that of the bytes after it.
const HEAD_BYTES: usize = 8;

fn head(message: &impl Serialize, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = postcard::to_extend(message, vec![0; HEAD_BYTES]).map_err(io::Error::other)?;
    let length = u32::try_from(out.len() - HEAD_BYTES).map_err(io::Error::other)?;
    let bytes = u32::try_from(bytes).map_err(io::Error::other)?;
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEAD_BYTES].copy_from_slice(&bytes.to_le_bytes());
    Ok(out)
}

fn lengths(head: [u8; HEAD_BYTES]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = head;
    let (message, bytes) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let (message, bytes) = (message as usize, bytes as usize);
    if message + bytes > MOST_BYTES {
        return Err(io::Error::other(format!("a message of {} bytes", message + bytes)));
    }
    Ok((message, bytes))
}

/// The next request of a slot; `None` at the end.
pub(super) fn receive_request(mut socket: &UnixStream) -> io::Result<Option<Request>> {
    let mut head = [0; HEAD_BYTES];
    match socket.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut message = vec![0; lengths(head)?.0];
    socket.read_exact(&mut message)?;
    postcard::from_bytes(&message).map(Some).map_err(io::Error::other)
}

/// Sends a response, with bytes beside it.
pub(super) fn send_response(
    mut socket: &UnixStream,
    response: &Response,
    bytes: &[u8],
) -> io::Result<()> {
    socket.write_all(&head(response, bytes.len())?)?;
    socket.write_all(bytes)
}

/// Sends a request.
pub(super) async fn send_request(
    socket: &mut tokio::net::UnixStream,
    request: &Request,
) -> io::Result<()> {
    socket.write_all(&head(request, 0)?).await
}

/// The next response, with the bytes beside it. Not safe to be dropped midway: the socket is of no
/// use then.
pub(super) async fn receive_response<T: DeserializeOwned>(
    socket: &mut tokio::net::UnixStream,
) -> io::Result<(T, Bytes)> {
    let mut head = [0; HEAD_BYTES];
    socket.read_exact(&mut head).await?;
    let (message, bytes) = lengths(head)?;
    let mut buffer = BytesMut::with_capacity(message + bytes);
    while buffer.len() < message + bytes {
        let missing = (message + bytes - buffer.len()) as u64;
        if (&mut *socket).take(missing).read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let response = postcard::from_bytes(&buffer.split_to(message)).map_err(io::Error::other)?;
    Ok((response, buffer.freeze()))
}
