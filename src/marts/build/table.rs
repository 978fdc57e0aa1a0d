//! Tables that are built: where their bytes are, and what they take.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytesize::ByteSize;
use rustix::fs::{MemfdFlags, SealFlags};
use serde::Serialize;

use super::Report;
use crate::pin::memfd;

/// What a table counts at least: an engine that has it attached takes so much for it.
pub(super) const SMALLEST_TABLE_BYTES: u64 = 256 << 10;
/// Counts tables.
static NUMBERS: AtomicU64 = AtomicU64::new(1);
const MEMFD_NAME: &str = "martd-table";

/// How much memory tables may take, and where those go that it has no room for.
#[derive(Debug)]
pub struct TableBudget {
    limit: u64,
    used: AtomicU64,
    on_disk: AtomicU64,
    dir: Option<PathBuf>,
}

impl TableBudget {
    /// A budget of `limit` bytes (`MARTD_TABLE_MEMORY`). Tables beyond it are unlinked files in `dir`
    /// (`MARTD_TABLE_DIR`), where there is one.
    pub fn new(limit: u64, dir: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), on_disk: AtomicU64::new(0), dir })
    }

    /// The bytes that live tables take in memory, and those that are being built.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bytes that they may take.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes that live tables take on disk.
    pub fn on_disk(&self) -> u64 {
        self.on_disk.load(Ordering::Relaxed)
    }

    /// Where tables go that memory has no room for.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// A draft for a table of about so many bytes: in memory, unless that has no room or `on_disk`
    /// says that it was tried.
    ///
    /// # Errors
    /// For people: there is no room, or the folder has none.
    pub(super) fn draft(self: &Arc<Self>, bytes: u64, on_disk: bool) -> Result<TableDraft, String> {
        if !on_disk && let Some(reservation) = self.reserve(bytes) {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = memfd(MEMFD_NAME, flags)
                .map_err(|error| format!("has no table: memory cannot be had: {error}"))?;
            return Ok(TableDraft { fd, backing: Backing::Memory(reservation) });
        }
        let Some(dir) = &self.dir else {
            return Err(format!(
                "needs about {} for its table, and of MARTD_TABLE_MEMORY ({}) {} are left; raise \
                 it, or name a folder for large tables in MARTD_TABLE_DIR",
                ByteSize(bytes),
                ByteSize(self.limit),
                ByteSize(self.limit.saturating_sub(self.used())),
            ));
        };
        let file = tempfile::tempfile_in(dir).map_err(|error| {
            format!("has no table: a file in MARTD_TABLE_DIR cannot be had: {error}")
        })?;
        Ok(TableDraft { fd: file.into(), backing: Backing::Disk(Arc::clone(self)) })
    }

    fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let mut reservation = Reservation { budget: Arc::clone(self), bytes: 0 };
        reservation.resize(bytes.max(SMALLEST_TABLE_BYTES)).then_some(reservation)
    }
}

/// Bytes of the budget.
#[derive(Debug)]
struct Reservation {
    budget: Arc<TableBudget>,
    bytes: u64,
}

impl Reservation {
    /// Makes it larger, if the budget has that, or smaller.
    fn resize(&mut self, bytes: u64) -> bool {
        let TableBudget { limit, used, .. } = &*self.budget;
        let resized = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let now = (used - self.bytes).checked_add(bytes)?;
            (now <= *limit || bytes <= self.bytes).then_some(now)
        });
        if resized.is_ok() {
            self.bytes = bytes;
        }
        resized.is_ok()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Where a table lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// In a sealed memfd.
    Memory,
    /// In an unlinked file, held open for reading.
    Disk,
}

#[derive(Debug)]
enum Backing {
    Memory(Reservation),
    Disk(Arc<TableBudget>),
}

/// What a table is built into: empty at first, and nobody reads it before it is finished.
#[derive(Debug)]
pub(super) struct TableDraft {
    fd: OwnedFd,
    backing: Backing,
}

impl TableDraft {
    pub(super) fn kind(&self) -> TableKind {
        match self.backing {
            Backing::Memory(_) => TableKind::Memory,
            Backing::Disk(_) => TableKind::Disk,
        }
    }

    /// How large the table may become here.
    pub(super) fn most_bytes(&self) -> u64 {
        match &self.backing {
            Backing::Memory(Reservation { budget, bytes }) => {
                bytes + budget.limit.saturating_sub(budget.used())
            }
            Backing::Disk(_) => u64::MAX,
        }
    }

    /// Makes it a table: from here on nobody can write it, whoever has a descriptor. `None` when it
    /// came out larger than the memory that is left.
    ///
    /// A file on disk has no seals: its builder must have ended.
    ///
    /// # Errors
    /// When it cannot be sealed, because somebody still writes it.
    pub(super) fn finish(self, report: Report) -> io::Result<Option<BuiltTable>> {
        let size = || -> io::Result<u64> { Ok(rustix::fs::fstat(&self.fd)?.st_size as u64) };
        let (fd, backing, bytes) = match self.backing {
            Backing::Memory(mut reservation) => {
                let seals =
                    SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
                rustix::fs::fcntl_add_seals(&self.fd, seals)?;
                let bytes = size()?;
                if !reservation.resize(bytes.max(SMALLEST_TABLE_BYTES)) {
                    return Ok(None);
                }
                (self.fd, Backing::Memory(reservation), bytes)
            }
            Backing::Disk(budget) => {
                let bytes = size()?;
                let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
                let fd = File::open(path)?.into(); // for reading alone
                budget.on_disk.fetch_add(bytes, Ordering::Relaxed);
                (fd, Backing::Disk(budget), bytes)
            }
        };
        Ok(Some(BuiltTable {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            fd,
            backing,
            bytes,
            report,
        }))
    }
}

impl AsFd for TableDraft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A mart's version as engines attach it: a DuckDB database with one table, [`super::TABLE`]. Nobody
/// can change it. Shared by all snapshots that serve it; its memory is given back with the last.
#[derive(Debug)]
pub struct BuiltTable {
    number: u64,
    fd: OwnedFd,
    backing: Backing,
    bytes: u64,
    report: Report,
}

impl BuiltTable {
    /// Names it among all tables that this process ever has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where it lies.
    pub fn kind(&self) -> TableKind {
        match self.backing {
            Backing::Memory(_) => TableKind::Memory,
            Backing::Disk(_) => TableKind::Disk,
        }
    }

    /// The size of its database in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it has.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl AsFd for BuiltTable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for BuiltTable {
    fn drop(&mut self) {
        if let Backing::Disk(budget) = &self.backing {
            budget.on_disk.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// The table of what `select` selects, for the tests of whoever attaches tables.
#[cfg(test)]
pub(crate) fn table_of(select: &str) -> Arc<BuiltTable> {
    use super::{ReportColumn, TABLE};
    use std::io::Write;

    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("made.duckdb");
    let duckdb = duckdb::Connection::open_in_memory().expect("DuckDB opens");
    let make =
        format!("ATTACH '{}' AS made; CREATE TABLE made.{TABLE} AS {select}", path.display());
    duckdb.execute_batch(&make).expect(select);
    let mut columns = duckdb.prepare(&format!("DESCRIBE made.{TABLE}")).expect("a table");
    let columns = columns
        .query_map([], |row| Ok(ReportColumn { name: row.get(0)?, ty: row.get(1)? }))
        .and_then(Iterator::collect)
        .expect("its columns");
    let count = format!("SELECT count(*) FROM made.{TABLE}");
    let rows = duckdb.query_row(&count, [], |row| row.get(0)).expect("its rows");
    duckdb.execute_batch("DETACH made").expect("written");
    let bytes = std::fs::read(path).expect("readable");
    let draft = TableBudget::new(1 << 30, None).draft(bytes.len() as u64, false).expect("room");
    let mut file = File::from(draft.fd.try_clone().expect("a descriptor"));
    file.write_all(&bytes).expect("written");
    let finished = draft.finish(Report { rows, columns, is_null_row: false });
    Arc::new(finished.expect("sealed").expect("small"))
}
