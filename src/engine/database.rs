//! The DuckDB database of one snapshot: its marts' tables, attached, and locked down to those.
//!
//! It dies with its snapshot, and with it what DuckDB caches by path.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tracing::warn;

use super::instance::{Settings, Table};
use crate::duck::{Connection, Database, DuckError};
use crate::duck::{quote_identifier, quote_literal};

/// A database that is locked down.
pub(super) struct LockedDatabase {
    pub(super) database: Arc<Database>,
    /// The marts by (schema, name) in lower case, as DuckDB compares identifiers.
    pub(super) names: HashMap<(String, String), usize>,
    /// For each mart the number under which its table is attached.
    pub(super) attached: Vec<usize>,
    /// Marts whose views exist. A view costs 0.2 ms, so it is made when a statement first names it:
    /// a thousand marts cost no more than eleven.
    pub(super) viewed: Mutex<HashSet<usize>>,
    /// DuckDB has failed in a way after which it refuses every statement.
    is_broken: AtomicBool,
}

impl fmt::Debug for LockedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedDatabase").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl LockedDatabase {
    /// Opens a database in which these tables are, and locks it down.
    pub(super) fn open(
        settings: &Settings,
        tables: &[Table],
    ) -> Result<(Self, Connection), DuckError> {
        let temp_dir = settings.temp_dir.as_ref().map(|dir| dir.display().to_string());
        let database = Database::open_in_memory(&[
            ("memory_limit", format!("{}B", settings.memory_bytes)),
            ("threads", settings.threads.to_string()),
            ("temp_directory", temp_dir.unwrap_or_default()),
            ("autoinstall_known_extensions", "false".to_owned()),
            ("autoload_known_extensions", "false".to_owned()),
            ("allow_community_extensions", "false".to_owned()),
        ])?;

        let mut names = HashMap::new();
        let mut schemas: Vec<&String> = settings.schemas.iter().collect();
        for (index, table) in tables.iter().enumerate() {
            for schema in settings.schemas.iter().chain(&table.schema) {
                let key = (schema.to_ascii_lowercase(), table.name.to_ascii_lowercase());
                names.insert(key, index);
                if !schemas.iter().any(|known| known.eq_ignore_ascii_case(schema)) {
                    schemas.push(schema);
                }
            }
        }

        let connection = database.connect()?;
        for schema in &schemas {
            connection
                .execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote_identifier(schema)))?;
        }
        connection
            .execute(&format!("SET GLOBAL TimeZone = {}", quote_literal(&settings.time_zone)))?;
        let mut attached = Vec::<usize>::with_capacity(tables.len());
        for (number, table) in tables.iter().enumerate() {
            // Two marts of one content have one table, which cannot be attached twice.
            let known = tables[..number].iter().position(|t| Arc::ptr_eq(&t.table, &table.table));
            if known.is_none() {
                attach(&connection, number, table)?;
            }
            attached.push(known.unwrap_or(number));
        }
        lock_down(&connection)?;
        let viewed = Mutex::default();
        let locked = Self { database, names, attached, viewed, is_broken: AtomicBool::new(false) };
        Ok((locked, connection))
    }

    /// An internal error of a statement, too, makes DuckDB refuse all that come after it.
    pub(super) fn note(&self, error: &DuckError) {
        if error.is_fatal() && !self.is_broken.swap(true, Ordering::Relaxed) {
            warn!(%error, "DuckDB has failed: its database is opened anew");
        }
    }

    /// Whether it is of no use any more.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// Attaches the table with this number as `t<number>`.
fn attach(connection: &Connection, number: usize, table: &Table) -> Result<(), DuckError> {
    let path = format!("/proc/self/fd/{}", table.table.as_fd().as_raw_fd());
    connection.execute(&format!("ATTACH {} AS t{number} (READ_ONLY)", quote_literal(&path)))
}

/// From here on the database reads what is attached and nothing else, and no statement can change
/// that. DuckDB refuses these settings in the other order.
fn lock_down(connection: &Connection) -> Result<(), DuckError> {
    connection.execute("SET enable_external_access = false")?;
    connection.execute("SET lock_configuration = true")
}
