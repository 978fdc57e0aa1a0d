//! What the front and a builder say to each other: a length, then JSON, with descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Report;

/// A longer message is not believed. A report takes about 50 bytes a column.
const MOST_BYTES: usize = 64 << 20;
/// A legacy file with its three logs, and a place.
const MOST_DESCRIPTORS: usize = 8;

/// What a builder may take for one request.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Allowance {
    /// Seconds of processor time, after which the kernel ends it. The front's deadline is shorter.
    pub(super) cpu_seconds: u64,
    /// Bytes of the table.
    pub(super) table_bytes: u64,
}

/// What the front asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Build the table of a Parquet file. Descriptors: the file, the place.
    Parquet { block: u32, allowance: Allowance },
    /// Attach a legacy file and list what is in it. Descriptors: the file and its logs, unless there
    /// is a path; then places that are to be writable for a later [`Request::Export`].
    Attach {
        catalog: String,
        schemas: Vec<String>,
        path: Option<PathBuf>,
        /// The endings of the logs' names.
        logs: Vec<String>,
        allowance: Allowance,
    },
    /// Build the table of one of a legacy file's. Descriptor: the place.
    Export { block: u32, schema: String, name: String, allowance: Allowance },
}

/// What a builder answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    /// The table is in its place.
    Built(Report),
    /// What a legacy file has.
    Listed(Vec<Listed>),
    /// Neither; this builder is of no use any more.
    Failed(Failure),
}

/// A table or view of a legacy file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) is_view: bool,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// Without paths.
    pub(super) reason: String,
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// The content, for good.
    Content,
    /// DuckDB itself: an internal or fatal error.
    Internal,
    /// The machine: no memory, no room, a disk that fails.
    Resources,
    /// The table is larger than it was allowed to be.
    TooLarge,
}

/// Sends a message; the descriptors go with its first byte.
pub(super) fn send(
    socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent =
        rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    let mut rest = socket;
    rest.write_all(&bytes[sent..])
}

/// The next message; `None` at the end. Under a read timeout a message that has not begun is
/// [`io::ErrorKind::WouldBlock`], and can be waited for again.
pub(super) fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut length)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "a message was cut"),
        _ => error,
    };
    let mut rest = socket;
    rest.read_exact(&mut length[received.bytes..]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    rest.read_exact(&mut bytes).map_err(cut)?;
    Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
}
