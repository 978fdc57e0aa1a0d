//! Pins: what makes a mart's bytes immutable for as long as anyone reads them.
//!
//! A rename does not make a snapshot: DuckDB opens a path several times in one query, and pandas
//! and pyarrow rewrite files in place. So a file is copied into a sealed memfd when it lands. A
//! file over the pin budget is held by its open descriptor instead, which survives replacement and
//! removal, but not a rewrite in place; [`Pin::is_intact`] tells.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::{Hash, Hasher};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::Serialize;
use tracing::warn;

use crate::scan::Identity;

const COPY_BUFFER_BYTES: usize = 1 << 20;

/// How much memory pins may take, over all snapshots that are alive.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// The bytes that live pins take.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.limit)
            })
            .ok()
            .map(|_| Reservation { budget: Arc::clone(self), bytes })
    }
}

#[derive(Debug)]
struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How a pin holds its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PinKind {
    /// A sealed copy in memory.
    Memory,
    /// The file itself, held open.
    Descriptor,
}

/// The bytes of one version of a mart. Shared by all snapshots that serve it; freed with the last.
#[derive(Debug)]
pub struct Pin {
    fd: OwnedFd,
    kind: PinKind,
    identity: Identity,
    hash: Hash,
    /// Where the file was, for a descriptor pin: DuckDB resolves its descriptor to this.
    origin: Option<PathBuf>,
    _reservation: Option<Reservation>,
}

/// Why a file could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It changed while it was read: it is still being written.
    #[error("is being written")]
    Moved,
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Pin {
    /// Pins an open file: copies it into a sealed memfd if the budget allows, else holds `file`.
    /// Either way all bytes are read and hashed, and the file must not change meanwhile.
    ///
    /// # Errors
    /// [`PinError::Moved`] when it changed, [`PinError::Read`] when reading failed.
    pub fn new(file: File, budget: &Arc<Budget>) -> Result<Self, PinError> {
        let before = Identity::of_open(&file)?;
        let copy = budget.reserve(before.size()).and_then(|reservation| {
            Copy::create(reservation)
                .inspect_err(|error| warn!(%error, "no memfd to be had: holding the file itself"))
                .ok()
        });

        let mut hasher = Hasher::new();
        let mut buffer = vec![0; COPY_BUFFER_BYTES.min(before.size() as usize + 1)];
        let mut source = &file;
        let mut total = 0;
        loop {
            let count = source.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            if let Some(copy) = &copy {
                copy.file.write_all_at(&buffer[..count], total)?;
            }
            total += count as u64;
            if total > before.size() {
                return Err(PinError::Moved);
            }
        }
        if total != before.size() || Identity::of_open(&file)? != before {
            return Err(PinError::Moved);
        }

        let hash = hasher.finalize();
        Ok(match copy {
            Some(Copy { file: copy, reservation }) => {
                let seals =
                    SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
                rustix::fs::fcntl_add_seals(&copy, seals).map_err(io::Error::from)?;
                Self {
                    fd: copy.into(),
                    kind: PinKind::Memory,
                    identity: before,
                    hash,
                    origin: None,
                    _reservation: Some(reservation),
                }
            }
            None => {
                let fd = OwnedFd::from(file);
                let origin = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                Self {
                    fd,
                    kind: PinKind::Descriptor,
                    identity: before,
                    hash,
                    origin: Some(origin),
                    _reservation: None,
                }
            }
        })
    }

    /// Where DuckDB reads the bytes, in this process.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// The path of a held file at the time it was pinned.
    pub fn origin(&self) -> Option<&std::path::Path> {
        self.origin.as_deref()
    }

    /// How the bytes are held.
    pub fn kind(&self) -> PinKind {
        self.kind
    }

    /// The file as it was when it was pinned.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The hash of all bytes. Size and footer of two files that differ in one value can be equal.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.identity.size()
    }

    /// Whether the bytes are still those that were pinned. A sealed copy always is; a held file is
    /// until somebody rewrites it in place. Its removal or replacement (which change the ctime
    /// through the link count) leave the bytes alone.
    pub fn is_intact(&self) -> bool {
        self.kind == PinKind::Memory
            || Identity::of_open(&self.fd).is_ok_and(|now| {
                now.size() == self.identity.size() && now.modified() == self.identity.modified()
            })
    }

    /// Reads bytes at an offset.
    ///
    /// # Errors
    /// As `pread`: past the end, or when a held file's disk fails.
    pub fn read_exact_at(&self, buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let count = rustix::io::pread(&self.fd, &mut buffer[done..], offset)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count;
            offset += count as u64;
        }
        Ok(())
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Copy {
    file: File,
    reservation: Reservation,
}

impl Copy {
    fn create(reservation: Reservation) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("martd-pin", flags)?;
        Ok(Self { file: File::from(fd), reservation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(content).expect("write");
        file
    }

    fn open(file: &tempfile::NamedTempFile) -> File {
        File::open(file.path()).expect("open")
    }

    #[test]
    fn a_sealed_copy_keeps_its_bytes_when_the_file_is_rewritten_in_place() {
        let original = file(b"old");
        let pin = Pin::new(open(&original), &Budget::new(10)).expect("pin");
        std::fs::write(original.path(), b"new").expect("rewrite");

        let mut bytes = [0; 3];
        pin.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"old");
        assert_eq!(pin.kind(), PinKind::Memory);
        let writer = std::fs::OpenOptions::new().write(true).open(pin.path());
        assert!(writer.and_then(|mut file| file.write_all(b"x")).is_err(), "a seal forbids it");
    }

    #[test]
    fn over_the_budget_the_file_is_held_and_a_rewrite_is_noticed() {
        let budget = Budget::new(4);
        let first = Pin::new(open(&file(b"abc")), &budget).expect("pin");
        let original = file(b"def");
        let second = Pin::new(open(&original), &budget).expect("pin");
        assert_eq!((first.kind(), second.kind()), (PinKind::Memory, PinKind::Descriptor));
        assert_eq!(budget.used(), 3);

        std::fs::remove_file(original.path()).expect("remove");
        assert!(second.is_intact(), "removing the file leaves the bytes");
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_held_file_that_is_rewritten_is_not_intact() {
        let original = file(b"def");
        let pin = Pin::new(open(&original), &Budget::new(0)).expect("pin");
        assert!(pin.is_intact());
        std::fs::write(original.path(), b"defg").expect("rewrite");
        assert!(!pin.is_intact());
    }
}
