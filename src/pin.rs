//! Pins: what makes a mart's bytes immutable for as long as anyone reads them.
//!
//! A rename does not make a snapshot: DuckDB opens a path several times in one query, and pandas
//! and pyarrow rewrite files in place. So a file is copied into a sealed memfd when it lands. A
//! file over the pin budget is held by its open descriptor instead, which survives replacement and
//! removal, but not a rewrite in place; [`Pin::is_intact`] tells.
//!
//! Either way a pin takes one descriptor, and the table that is built from it another. Pins get a quarter
//! of those that martd may have, so that what is served can be asked for however many files there are.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use serde::Serialize;
use tracing::warn;

use crate::digest::{Digest, Hasher};
use crate::scan::{CLOCK_TICK, Identity};

/// Read, hashed and written at a time.
const COPY_BUFFER_BYTES: usize = 256 << 10;
const MEMFD_NAME: &str = "martd-pin";

/// How much memory and how many descriptors pins may take, over all snapshots that are alive.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    pins: AtomicU64,
    read: AtomicU64,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        let [used, pins, read] = [0; 3].map(AtomicU64::new);
        Arc::new(Self { limit, used, pins, read })
    }

    /// The bytes that live pins take.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bytes that they may take.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The live pins.
    pub fn pins(&self) -> u64 {
        self.pins.load(Ordering::Relaxed)
    }

    /// The bytes that have been read to pin files.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// A pin's place in the budget, with no bytes yet.
    fn claim(self: &Arc<Self>) -> io::Result<Reservation> {
        let most = descriptor_limit() / PINS_SHARE;
        self.pins
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pins| {
                (pins < most).then_some(pins + 1)
            })
            .map(|_| Reservation { budget: Arc::clone(self), bytes: 0 })
            .map_err(|pins| {
                io::Error::other(format!(
                    "{pins} files are held already, and with a table each take half of what martd may \
                     open; \
                     raise its limit of descriptors (RLIMIT_NOFILE)"
                ))
            })
    }
}

/// A version of a mart takes two descriptors, its pin's and its table's, and half of all are left for others.
const PINS_SHARE: u64 = 4;

/// The descriptors that this process may have. Asked anew each time: it can be raised from outside.
pub fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// Adds bytes, if the budget has them.
    fn reserve(&mut self, bytes: u64) -> bool {
        let Budget { limit, used, .. } = &*self.budget;
        let reserved = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| used <= limit)
        });
        if reserved.is_ok() {
            self.bytes += bytes;
        }
        reserved.is_ok()
    }

    fn give_back(&mut self) {
        self.budget.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back();
        self.budget.pins.fetch_sub(1, Ordering::Relaxed);
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
    /// Shared with whoever opened a file that is held: see [`Pin::of_shared`].
    file: Arc<File>,
    kind: PinKind,
    identity: Identity,
    read_at: Timestamp,
    hash: Digest,
    /// What a held file was when its bytes were last known to be those that were pinned.
    known: Mutex<Identity>,
    reservation: Reservation,
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
    /// Pins an open file: copies it into a sealed memfd if the budget and the kernel allow, else
    /// holds `file`. Either way all bytes are read and hashed, and the file must not change meanwhile.
    ///
    /// # Errors
    /// [`PinError::Moved`] when it changed, [`PinError::Read`] when reading failed.
    pub fn new(file: File, budget: &Arc<Budget>) -> Result<Self, PinError> {
        Self::of_shared(&Arc::new(file), budget)
    }

    /// The same for a descriptor that others have too, for a file on which somebody in this process
    /// holds a POSIX lock: to close any descriptor of it would let go of that.
    ///
    /// # Errors
    /// As [`Pin::new`].
    pub fn of_shared(file: &Arc<File>, budget: &Arc<Budget>) -> Result<Self, PinError> {
        let mut reservation = budget.claim()?;
        let (before, read_at) = (Identity::of_open(file)?, Timestamp::now());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let empty = || memfd(MEMFD_NAME, flags).map(File::from);
        let mut copy = reservation.reserve(before.size()).then(empty).transpose();
        let hash = hash(file, &before, |part, offset| {
            budget.read.fetch_add(part.len() as u64, Ordering::Relaxed);
            if let Ok(Some(to)) = &copy
                && let Err(error) = to.write_all_at(part, offset)
            {
                copy = Err(error);
            }
        })?;
        let sealed = copy.and_then(|copy| copy.map(seal).transpose());
        let copy = sealed.unwrap_or_else(|error| {
            warn!(%error, "a file cannot be copied to memory: holding the file itself");
            None
        });
        let (file, kind) = match copy {
            Some(copy) => (Arc::new(copy), PinKind::Memory),
            None => {
                reservation.give_back();
                (Arc::clone(file), PinKind::Descriptor)
            }
        };
        let known = Mutex::new(before);
        Ok(Self { file, kind, identity: before, read_at, hash, known, reservation })
    }

    /// Whether this open file has the bytes that were pinned. Reads all of them, and copies none.
    ///
    /// # Errors
    /// As [`Pin::new`].
    pub fn is_of(&self, file: impl AsFd) -> Result<bool, PinError> {
        let before = Identity::of_open(&file)?;
        if before.size() != self.size() {
            return Ok(false);
        }
        let Budget { read, .. } = &*self.reservation.budget;
        let hash = hash(&file, &before, |part, _| {
            read.fetch_add(part.len() as u64, Ordering::Relaxed);
        })?;
        Ok(hash == self.hash)
    }

    /// How the bytes are held.
    pub fn kind(&self) -> PinKind {
        self.kind
    }

    /// The file as it was when it was pinned.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When reading it began.
    pub fn read_at(&self) -> Timestamp {
        self.read_at
    }

    /// The hash of all bytes. Size and footer of two files that differ in one value can be equal.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.identity.size()
    }

    /// Whether the bytes are still those that were pinned. A sealed copy's always are; a held file's
    /// are until somebody rewrites it in place.
    ///
    /// Its removal or replacement leaves the bytes alone but changes the ctime (through the link
    /// count), and so does a rewrite by somebody who puts the old mtime back (`cp -p`). When the ctime
    /// alone has moved the bytes are read again, once.
    pub fn is_intact(&self) -> bool {
        if self.kind == PinKind::Memory {
            return true;
        }
        let Ok(now) = Identity::of_open(&*self.file) else { return false };
        let mut known = self.known.lock();
        if now == *known {
            return true;
        }
        if now.size() != self.identity.size() || now.modified() != self.identity.modified() {
            return false;
        }
        let began = Timestamp::now();
        let same = hash(&*self.file, &now, |_, _| {}).is_ok_and(|hash| hash == self.hash);
        if same && !now.is_young(began, CLOCK_TICK) {
            *known = now;
        }
        same
    }

    /// Reads bytes at an offset.
    ///
    /// # Errors
    /// As `pread`: past the end, or when a held file's disk fails.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Hashes the bytes of an open file, which must not change from `before` on, and shows each part to
/// `each`.
fn hash(
    file: impl AsFd,
    before: &Identity,
    mut each: impl FnMut(&[u8], u64),
) -> Result<Digest, PinError> {
    let size = before.size();
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; COPY_BUFFER_BYTES.min(size as usize + 1)];
    let mut total = 0;
    loop {
        let count = rustix::io::pread(&file, &mut buffer, total).map_err(io::Error::from)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        each(&buffer[..count], total);
        total += count as u64;
        if total > size {
            break;
        }
    }
    if total != size || Identity::of_open(&file)? != *before {
        return Err(PinError::Moved);
    }
    Ok(hasher.finish())
}

/// An empty file in memory.
pub(crate) fn memfd(name: &str, flags: MemfdFlags) -> io::Result<OwnedFd> {
    // Hardened systems refuse a memfd that could be executed (vm.memfd_noexec = 2); kernels
    // before 6.3 do not know the flag.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }?;
    Ok(fd)
}

/// Makes what is in a file in memory as it is for ever.
fn seal(file: File) -> io::Result<File> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

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
    fn a_sealed_copy_outlives_a_rewrite_in_place() {
        let original = file(b"old");
        let pin = Pin::new(open(&original), &Budget::new(10)).expect("pin");
        std::fs::write(original.path(), b"new").expect("rewrite");

        let mut bytes = [0; 3];
        pin.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"old");
        assert_eq!(pin.kind(), PinKind::Memory);
        let mode = rustix::fs::fstat(&*pin.file).expect("stat").st_mode;
        assert_eq!(mode & 0o111, 0, "hardened kernels refuse what could be executed");
        let writer = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{}", pin.file.as_raw_fd()));
        assert!(writer.and_then(|mut file| file.write_all(b"x")).is_err(), "a seal forbids it");
    }

    #[test]
    fn a_file_over_the_budget_is_held_and_watched() {
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
    fn a_second_look_tells_if_the_pinned_bytes_changed() {
        let (original, budget) = (file(b"def"), Budget::new(3));
        let pin = Pin::new(open(&original), &budget).expect("pin");
        assert!(pin.is_of(open(&original)).expect("readable"));
        assert_eq!(budget.bytes_read(), 6);
        for other in [&b"xyz"[..], b"defg", b"de"] {
            std::fs::write(original.path(), other).expect("rewrite");
            assert!(!pin.is_of(open(&original)).expect("readable"), "{other:?}");
        }
        std::fs::write(original.path(), b"def").expect("rewrite");
        assert!(pin.is_of(open(&original)).expect("readable"), "whatever its time");
    }

    #[test]
    fn a_file_stamped_while_read_is_being_written() {
        let original = file(b"def");
        let before = Identity::of_open(original.as_file()).expect("stat");
        let stamp = |_: &[u8], _| {
            original.as_file().set_modified(std::time::SystemTime::UNIX_EPOCH).expect("utimensat");
        };
        assert!(matches!(hash(original.as_file(), &before, stamp), Err(PinError::Moved)));
    }

    #[test]
    fn a_held_file_that_is_rewritten_is_not_intact() {
        let original = file(b"def");
        let pin = Pin::new(open(&original), &Budget::new(0)).expect("pin");
        assert!(pin.is_intact());
        std::fs::write(original.path(), b"defg").expect("rewrite");
        assert!(!pin.is_intact());
    }

    #[test]
    fn a_rewrite_that_puts_the_old_time_back_is_noticed() {
        let original = file(b"def");
        let pin = Pin::new(open(&original), &Budget::new(0)).expect("pin");
        let times = std::fs::FileTimes::new()
            .set_modified(original.as_file().metadata().and_then(|m| m.modified()).expect("stat"));
        std::fs::write(original.path(), b"xyz").expect("rewrite");
        original.as_file().set_times(times).expect("utimensat");
        assert!(!pin.is_intact());
        std::fs::write(original.path(), b"def").expect("rewrite");
        original.as_file().set_times(times).expect("utimensat");
        assert!(pin.is_intact(), "the old bytes are there again");
    }
}
