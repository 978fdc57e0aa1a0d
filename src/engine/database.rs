//! The one DuckDB database of an engine, locked down: it can attach what it was given descriptors of,
//! and read nothing else.
//!
//! Tables and snapshots are attached databases of this one, and detached when nobody has them any more.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::protocol::ProcessSettings;
use crate::duck::{Connection, Database, DuckError, quote_identifier, quote_literal};
use crate::marts::build::TABLE;
use parking_lot::Mutex;

/// A database that is locked down.
pub(super) struct LockedDatabase {
    database: Arc<Database>,
    /// For martd's own statements.
    own: Mutex<Connection>,
    /// Counts what was ever attached, for names that are used once.
    attached: AtomicU64,
}

impl fmt::Debug for LockedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedDatabase").finish_non_exhaustive()
    }
}

impl LockedDatabase {
    /// Opens it, with no thread of its own: rights that this thread gives up are not given up for
    /// threads that are there. [`lock`](Self::lock) it before it has anything to do.
    ///
    /// # Errors
    /// DuckDB's message, for example for an unknown time zone.
    pub(super) fn open(settings: &ProcessSettings) -> Result<Arc<Self>, DuckError> {
        let database = Database::open_in_memory(&[
            ("memory_limit", format!("{}B", settings.memory_bytes)),
            ("threads", "1".to_owned()),
            ("temp_directory", String::new()),
            ("autoinstall_known_extensions", "false".to_owned()),
            ("autoload_known_extensions", "false".to_owned()),
            ("allow_community_extensions", "false".to_owned()),
        ])?;
        let connection = database.connect()?;
        connection
            .execute(&format!("SET GLOBAL TimeZone = {}", quote_literal(&settings.time_zone)))?;
        Ok(Arc::new(Self { database, own: Mutex::new(connection), attached: AtomicU64::new(0) }))
    }

    /// From here on it reads descriptors of its own process and nothing else, and no statement can
    /// change that.
    pub(super) fn lock(&self, threads: usize) -> Result<(), DuckError> {
        // DuckDB refuses these settings in any other order.
        self.execute(&format!(
            "SET GLOBAL threads = {threads}; SET allowed_directories = ['/proc/self/fd'];
             SET enable_external_access = false; SET lock_configuration = true"
        ))
    }

    /// From here on it reads nothing at all, and no statement can change that.
    pub(super) fn lock_away(&self) -> Result<(), DuckError> {
        self.execute("SET enable_external_access = false; SET lock_configuration = true")
    }

    /// A connection for clients' statements.
    pub(super) fn connect(&self) -> Result<Connection, DuckError> {
        self.database.connect()
    }

    /// Attaches the sealed database of a table, read-only.
    pub(super) fn attach_table(self: &Arc<Self>, file: OwnedFd) -> Result<Attached, DuckError> {
        let path = quote_literal(&format!("/proc/self/fd/{}", file.as_raw_fd()));
        self.attach('t', &path, "(READ_ONLY)", Some(file))
    }

    /// Attaches an empty database in memory, for the views of a snapshot.
    pub(super) fn attach_views(self: &Arc<Self>) -> Result<Attached, DuckError> {
        self.attach('s', "':memory:'", "", None)
    }

    fn attach(
        self: &Arc<Self>,
        kind: char,
        path: &str,
        options: &str,
        file: Option<OwnedFd>,
    ) -> Result<Attached, DuckError> {
        let catalog = format!("martd_{kind}{}", self.attached.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("ATTACH {path} AS {catalog} {options}"))?;
        Ok(Attached { catalog, database: Arc::clone(self), _file: file })
    }

    /// Runs statements of martd's own.
    pub(super) fn execute(&self, sql: &str) -> Result<(), DuckError> {
        self.own.lock().execute(sql)
    }

    /// Runs statements of martd's own, all of them or none.
    pub(super) fn transaction(&self, sql: &str) -> Result<(), DuckError> {
        let own = self.own.lock();
        let outcome = own.execute(&format!("BEGIN; {sql} COMMIT"));
        if outcome.is_err() {
            let _ = own.execute("ROLLBACK"); // fails where nothing was begun
        }
        outcome
    }
}

/// An attached database, which is detached when this is dropped.
#[derive(Debug)]
pub(super) struct Attached {
    catalog: String,
    database: Arc<LockedDatabase>,
    /// Closed after the database is detached: DuckDB knows it by the descriptor's number, and two that
    /// are attached must not have the same one.
    _file: Option<OwnedFd>,
}

impl Attached {
    /// Its name, which needs no quotes.
    pub(super) fn catalog(&self) -> &str {
        &self.catalog
    }

    /// A table's rows, for a FROM clause.
    pub(super) fn table(&self) -> String {
        format!("{}.main.{TABLE}", self.catalog)
    }

    /// A schema of it, quoted.
    pub(super) fn schema(&self, name: &str) -> String {
        format!("{}.{}", self.catalog, quote_identifier(name))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // In a database that has failed this fails, too, and means nothing.
        let _ = self.database.execute(&format!("DETACH {}", self.catalog));
    }
}
