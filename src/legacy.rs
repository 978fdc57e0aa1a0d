//! The legacy file: the `analytics.duckdb` that is served until the first mart lands.
//!
//! DuckDB has one writer, and who reads the file itself locks that writer out. So the file is copied
//! like a mart while no writer has it, together with the log that a crashed writer left, and tables
//! are built from the copy. No lock is taken for that: it would turn away a writer that comes
//! meanwhile. A copy counts when nobody held the file for writing at its beginning and nothing of it
//! had changed at its end.
//!
//! A file over the pin budget cannot be copied. A builder opens it by its path, and writers are
//! turned away while it does.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::process::{Flock, FlockType};
use tracing::{info, warn};

use crate::digest::Hasher;
use crate::hooks;
use crate::pin::{Budget, Pin, PinError, PinKind};
use crate::scan::{CLOCK_TICK, Fault, Identity, Remark};

/// What DuckDB appends to the file's name for the logs of a writer that crashed.
const LOGS: [&str; 3] = [".wal", ".wal.checkpoint", ".wal.recovery"];

/// The file at `DUCKDB_PATH`, looked at again and again.
#[derive(Debug)]
pub struct LegacyFile {
    path: PathBuf,
    /// Open as long as this is the file that the path means.
    open: Option<Arc<File>>,
    /// What the files were when they were copied last.
    taken: Option<Vec<Option<Identity>>>,
    trouble: Option<(Trouble, Timestamp)>,
    /// What of it is not served.
    left_out: Vec<Remark>,
}

/// Why there is no copy of the file as it is now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It is not there.
    #[error("the legacy DuckDB file (DUCKDB_PATH) is not there")]
    Absent,
    /// Somebody writes it, and will be done.
    #[error("a writer has the legacy DuckDB file (DUCKDB_PATH)")]
    Locked,
    /// It cannot be read or served, for this reason.
    #[error("the legacy DuckDB file (DUCKDB_PATH) {0}")]
    Unusable(String),
}

/// The file as it was at one moment.
#[derive(Debug)]
pub struct LegacyVersion {
    /// The file's path.
    pub path: PathBuf,
    /// The file itself.
    pub file: Arc<Pin>,
    logs: Vec<Log>,
}

/// What a crashed writer left beside the file, by the ending of its name.
type Log = (&'static str, Arc<Pin>);

impl LegacyFile {
    /// The file at a path, there or not.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None, taken: None, trouble: None, left_out: Vec::new() }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the file as it is now has no copy.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref().map(|(trouble, _)| trouble)
    }

    /// Why it is not served although it is there and nobody writes it, and since when.
    pub fn fault(&self) -> Option<Fault> {
        let Some((Trouble::Unusable(reason), since)) = &self.trouble else { return None };
        let file = self.path.file_name().unwrap_or(self.path.as_os_str());
        let file = file.to_string_lossy().into_owned();
        Some(Fault { file, reason: reason.clone(), since: *since })
    }

    /// What of it is not served although the rest is.
    pub fn left_out(&self) -> &[Remark] {
        &self.left_out
    }

    /// Says what of it is not served.
    pub fn leave_out(&mut self, views: Vec<Remark>) {
        self.left_out = views;
    }

    /// Says that what was copied last cannot be served. It is not tried again until it changes.
    pub fn reject(&mut self, reason: String) {
        self.note(Trouble::Unusable(reason));
    }

    /// Says that what was copied last was of no use, for a reason that is not the file's.
    pub fn forget(&mut self) {
        self.taken = None;
    }

    fn note(&mut self, trouble: Trouble) {
        if self.trouble() != Some(&trouble) {
            match &trouble {
                Trouble::Locked => info!("{trouble}"),
                Trouble::Absent | Trouble::Unusable(_) => {
                    warn!(path = %self.path.display(), "{trouble}");
                }
            }
            self.trouble = Some((trouble, Timestamp::now()));
        }
    }

    /// Copies the file if it is at rest and not what was copied last. Costs a few `stat`s otherwise.
    pub fn look(&mut self, budget: &Arc<Budget>) -> Option<LegacyVersion> {
        let copied = self.copy(budget).unwrap_or_else(|trouble| {
            self.note(trouble);
            None
        });
        if copied.is_some() {
            self.trouble = None;
        }
        copied
    }

    fn copy(&mut self, budget: &Arc<Budget>) -> Result<Option<LegacyVersion>, Trouble> {
        let seen = identities(&self.path)?;
        if self.taken.as_ref() == Some(&seen) {
            if self.trouble() == Some(&Trouble::Locked) {
                self.trouble = None; // the writer left without having written
            }
            return Ok(None);
        }
        let file = self.open(&seen)?;
        if has_writer(file.as_fd())? {
            return Err(Trouble::Locked);
        }
        let now = Timestamp::now();
        if seen.iter().flatten().any(|identity| identity.is_young(now, CLOCK_TICK)) {
            return Ok(None); // another write within the clock's tick would not show
        }
        let pinned = self.pin_all(&file, &seen, budget);
        hooks::stick("legacy");
        if identities(&self.path)? != seen {
            return Err(Trouble::Locked); // whatever pinning came to
        }
        let (pinned, logs) = pinned?;
        self.taken = Some(seen);
        Ok(Some(LegacyVersion { path: self.path.clone(), file: pinned, logs }))
    }

    fn pin_all(
        &self,
        file: &Arc<File>,
        seen: &[Option<Identity>],
        budget: &Arc<Budget>,
    ) -> Result<(Arc<Pin>, Vec<Log>), Trouble> {
        let pin = |file: &Arc<File>| match Pin::of_shared(file, budget) {
            Ok(pin) => Ok(Arc::new(pin)),
            Err(PinError::Moved) => Err(Trouble::Locked),
            Err(PinError::Read(error)) => Err(unreadable(&error)),
        };
        let pinned = pin(file)?;
        let mut logs = Vec::new();
        for (ending, _) in LOGS.into_iter().zip(&seen[1..]).filter(|(_, seen)| seen.is_some()) {
            let log = File::open(with_ending(&self.path, ending));
            let log = log.map_err(|error| unreadable(&error))?;
            logs.push((ending, pin(&Arc::new(log))?));
        }
        Ok((pinned, logs))
    }

    /// The open file, not opened again while it is the same one.
    fn open(&mut self, seen: &[Option<Identity>]) -> Result<Arc<File>, Trouble> {
        let is_it = |open: &Arc<File>| {
            let identity = Identity::of_open(&**open).ok();
            identity.zip(seen[0]).is_some_and(|(open, seen)| open.is_same_file(&seen))
        };
        if let Some(open) = self.open.as_ref().filter(|open| is_it(open)) {
            return Ok(Arc::clone(open));
        }
        let file = File::open(&self.path).map_err(|error| unreadable(&error))?;
        Ok(Arc::clone(self.open.insert(Arc::new(file))))
    }
}

impl LegacyVersion {
    /// Whether martd has a copy, or has to open the file itself.
    pub fn is_copied(&self) -> bool {
        self.pins().all(|pin| pin.kind() == PinKind::Memory)
    }

    /// Whether the file is still what it was, and nobody writes it.
    pub fn is_current(&self) -> bool {
        if has_writer(self.file.as_fd()).unwrap_or(true) {
            return false;
        }
        let pinned = |ending| {
            let log = self.logs.iter().find(|(known, _)| *known == ending);
            log.map(|(_, pin)| *pin.identity())
        };
        let mut known = vec![Some(*self.file.identity())];
        known.extend(LOGS.map(pinned));
        identities(&self.path).is_ok_and(|now| now == known)
    }

    /// Derived from the contents, as a snapshot's id is.
    pub fn id(&self) -> String {
        let mut hasher = Hasher::default();
        hasher.update(b"duckdb");
        for pin in self.pins() {
            hasher.update(pin.hash().as_bytes());
        }
        hasher.finish().short()
    }

    /// The file, and the logs after it.
    pub fn pins(&self) -> impl Iterator<Item = &Arc<Pin>> {
        std::iter::once(&self.file).chain(self.logs.iter().map(|(_, pin)| pin))
    }

    /// The endings of the names of the logs that a crashed writer left, in the order of [`Self::pins`].
    pub fn log_endings(&self) -> impl Iterator<Item = &'static str> {
        self.logs.iter().map(|(ending, _)| *ending)
    }
}

/// The name under which a legacy file is attached. Views in it know each other by the one that DuckDB
/// gave it when they were made: the file's stem. One that would hide a schema or is DuckDB's own is
/// not possible.
pub fn catalog_name(path: &Path, schemas: &[String]) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let taken = ["", "memory", "system", "temp", "main"];
    let is_taken = |name: &str| {
        taken.iter().any(|taken| taken.eq_ignore_ascii_case(name))
            || schemas.iter().any(|schema| schema.eq_ignore_ascii_case(name))
    };
    let mut name = stem.to_owned();
    while is_taken(&name) {
        name.push_str("_legacy");
    }
    name
}

/// The file's identity and those of its logs.
fn identities(path: &Path) -> Result<Vec<Option<Identity>>, Trouble> {
    let of = |path: &Path| match Identity::of_path(path) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&error)),
    };
    let mut identities = vec![Some(of(path)?.ok_or(Trouble::Absent)?)];
    for ending in LOGS {
        identities.push(of(&with_ending(path, ending))?);
    }
    Ok(identities)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Whether another process has the file open for writing: DuckDB locks it then.
fn has_writer(file: BorrowedFd<'_>) -> Result<bool, Trouble> {
    let read = Flock::from(FlockType::ReadLock);
    match rustix::process::fcntl_getlk(file, &read) {
        Ok(holder) => Ok(holder.is_some()),
        Err(error) => Err(unreadable(&error.into())),
    }
}

fn unreadable(error: &io::Error) -> Trouble {
    Trouble::Unusable(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "may not be read by martd's user; give it read permission".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_attached_by_its_stem_if_that_is_free() {
        let schemas = ["mart".to_owned(), "main_mart".to_owned()];
        let name = |path: &str| catalog_name(Path::new(path), &schemas);
        assert_eq!(name("/data/analytics.duckdb"), "analytics");
        assert_eq!(name("/data/dev.2024.duckdb"), "dev.2024");
        assert_eq!(name("/data/Mart.duckdb"), "Mart_legacy");
        assert_eq!(name("/data/memory.db"), "memory_legacy");
    }
}
