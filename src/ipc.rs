//! Messages between martd's own processes, over Unix sockets: a length, the message, and descriptors
//! beside it.
//!
//! Both ends are the same binary, so the encoding (postcard) needs no versions. Blocking; who must not
//! block has a thread for it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most descriptors of one message: the kernel's limit.
pub const MOST_DESCRIPTORS: usize = 253;
/// A longer message is not believed. The largest are reports on tables, of about 50 bytes a column.
const MOST_BYTES: usize = 64 << 20;

/// Sends a message; the descriptors go with its first byte.
///
/// # Errors
/// The socket's; also when the message is too large.
///
/// # Panics
/// With more than [`MOST_DESCRIPTORS`] descriptors.
pub fn send(
    socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    send_bytes(socket, bytes, descriptors)
}

fn send_bytes(
    socket: &UnixStream,
    mut bytes: Vec<u8>,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "too many descriptors");
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    let mut rest = socket;
    rest.write_all(&bytes[sent..])
}

/// The next message with its descriptors; `None` at the end.
///
/// # Errors
/// The socket's. Under a read timeout a message that has not begun is
/// [`io::ErrorKind::WouldBlock`], and can be waited for again; one that broke off, or that does not
/// parse, is another error.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
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
    let broken_off = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "a message broke off"),
        _ => error,
    };
    let mut rest = socket;
    rest.read_exact(&mut length[received.bytes..]).map_err(broken_off)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    rest.read_exact(&mut bytes).map_err(broken_off)?;
    let message = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
    Ok(Some((message, descriptors)))
}
