//! The memory that answers are written into, used again and again.
//!
//! A part of a large answer is about a mebibyte. An allocator gets so much from the kernel and gives
//! it back each time, and the kernel clears it page by page: for an Arrow answer that took longer
//! than to write it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Memory that is kept while nothing is written.
const MOST_BYTES: usize = 16 << 20;
/// A buffer larger than this is not kept: few answers have any use for it.
const LARGEST: usize = 4 << 20;

/// Buffers that nobody uses. A clone has the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Spare>>);

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer; the last used, which is in the processor's cache the most.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut spare = self.spare();
        let buffer = spare.buffers.pop().unwrap_or_default();
        spare.bytes -= buffer.capacity();
        buffer
    }

    /// What is in a buffer, to be sent. The buffer comes back when it is.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    /// Takes a buffer back.
    pub(super) fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = self.spare();
        let bytes = spare.bytes + buffer.capacity();
        if buffer.capacity() <= LARGEST && bytes <= MOST_BYTES {
            spare.bytes = bytes;
            spare.buffers.push(buffer);
        }
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_bytes_are_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let bytes = buffers.lend(buffer);
        let half = bytes.slice(1..);
        drop(bytes);
        assert_eq!(buffers.take().capacity(), 0);
        assert_eq!(&half[..], b"bc");
        drop(half);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn so_much_is_kept_and_no_more() {
        let buffers = Buffers::default();
        buffers.put(Vec::with_capacity(LARGEST + 1));
        assert_eq!(buffers.take().capacity(), 0);
        for _ in 0..=MOST_BYTES / LARGEST {
            buffers.put(Vec::with_capacity(LARGEST));
        }
        let kept = std::iter::repeat_with(|| buffers.take().capacity());
        assert_eq!(kept.take_while(|capacity| *capacity > 0).sum::<usize>(), MOST_BYTES);
    }
}
