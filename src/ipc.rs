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

/// The most descriptors at once: the kernel's limit. [`send`] sends more of them ahead of their message.
pub const MOST_DESCRIPTORS: usize = 253;
/// In the place of a length: nothing but descriptors of the message that follows.
const DESCRIPTORS_AHEAD: u32 = u32::MAX;
/// A longer message is not believed. The largest are reports on tables, of about 50 bytes a column.
const MOST_BYTES: usize = 64 << 20;

/// Sends a message; the descriptors go with its first byte, or before it.
///
/// # Errors
/// The socket's; also when the message is too large.
pub fn send(
    socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let mut rest = descriptors;
    while rest.len() > MOST_DESCRIPTORS {
        let (ahead, others) = rest.split_at(MOST_DESCRIPTORS);
        send_bytes(socket, &DESCRIPTORS_AHEAD.to_le_bytes(), ahead)?;
        rest = others;
    }
    send_bytes(socket, &bytes, rest)
}

fn send_bytes(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "too many descriptors");
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
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
    let mut descriptors = Vec::new();
    let length = loop {
        let begun = !descriptors.is_empty();
        match receive_length(socket, &mut descriptors) {
            Ok(Some(DESCRIPTORS_AHEAD)) => {}
            Ok(Some(length)) => break length as usize,
            Ok(None) => return Ok(None),
            Err(error) => return Err(if begun { broken_off(error) } else { error }),
        }
    };
    if length > MOST_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    let mut rest = socket;
    rest.read_exact(&mut bytes).map_err(broken_off)?;
    let message = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
    Ok(Some((message, descriptors)))
}

fn broken_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "a message broke off"),
        _ => error,
    }
}

/// The next length, and the descriptors that come with it; `None` at the end.
fn receive_length(socket: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<Option<u32>> {
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
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    let mut rest = socket;
    rest.read_exact(&mut length[received.bytes..]).map_err(broken_off)?;
    Ok(Some(u32::from_le_bytes(length)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_may_have_very_many_descriptors() {
        let (one, other) = UnixStream::pair().expect("sockets");
        let files: Vec<_> = (0..2 * MOST_DESCRIPTORS + 1)
            .map(|number| {
                let mut file = tempfile::tempfile().expect("a temporary file");
                write!(file, "{number}").expect("written");
                file
            })
            .collect();
        for count in [0, 1, MOST_DESCRIPTORS, MOST_DESCRIPTORS + 1, files.len()] {
            let sent: Vec<_> = files[..count].iter().map(AsFd::as_fd).collect();
            send(&one, &count, &sent).expect("sent");
            let (message, received) = receive::<usize>(&other).expect("received").expect("one");
            let number = |fd: OwnedFd| {
                let mut text = [0; 8];
                let length = rustix::io::pread(fd, &mut text, 0).expect("readable");
                String::from_utf8_lossy(&text[..length]).parse::<usize>().expect("a number")
            };
            let numbers: Vec<_> = received.into_iter().map(number).collect();
            assert_eq!((message, numbers), (count, (0..count).collect()));
        }
    }
}
